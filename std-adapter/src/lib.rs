//! Runs Grafolean bots on tokio: HTTP, timers, signals, settings from the environment

#![forbid(unsafe_code)]

pub mod clock;
pub mod env;
pub mod http;
