//! The adapter through its public API, in one program: each file is a subject of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

#[path = "support/backend.rs"]
mod backend;
mod driver;
mod flash;
mod http;
#[cfg(feature = "nal")]
#[macro_use]
#[path = "support/misbehaviour.rs"]
mod misbehaviour;
mod misbehaviour_transport;
mod misbehaviour_values;
mod net;
#[path = "support/requests.rs"]
mod requests;
mod same_bot;
mod sockets;
mod support;
#[cfg(feature = "nal")]
#[path = "support/tcp.rs"]
mod tcp;
mod whole;
#[path = "support/wire.rs"]
mod wire;
