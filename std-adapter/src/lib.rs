//! Runs [Grafolean](https://grafolean.com) bots on tokio: HTTP over kept-alive connections with rustls, timers that count
//! suspended time, settings from the environment, a graceful stop.
//!
//! A bot implements [`Bot`](grafolean_core::bot::Bot); [`app::main`] makes a program of it, [`driver::Runner`] runs it inside
//! of another one, and [`plan::plan`] says what it would do.

#![forbid(unsafe_code)]

pub use grafolean_core as core;

pub mod app;
pub mod clock;
pub mod driver;
pub mod env;
pub mod http;
pub mod outbox;
pub mod plan;
