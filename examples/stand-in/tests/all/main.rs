//! The stand-in as the backend in memory and over real sockets, in one program: each file is a subject of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod answers;
mod any_input;
#[cfg(feature = "server")]
mod control;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod misbehaviour;
#[cfg(feature = "server")]
mod program;
