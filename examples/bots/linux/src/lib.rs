//! Grafolean bots for Linux
