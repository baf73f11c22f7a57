//! Runs Grafolean bots on tokio: HTTP, timers, signals, settings from the environment
