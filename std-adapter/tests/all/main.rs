//! The adapter through its public API with real sockets, in one program: each file is a subject of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod driver;
mod driver_faults;
mod driver_load;
mod driver_memory;
mod driver_observed;
mod driver_support;
mod driver_syncs;
mod http_connections;
mod http_faults;
mod http_support;
mod misbehaviour_refresh;
#[macro_use]
mod misbehaviour_support;
mod misbehaviour_transport;
mod misbehaviour_values;
mod outbox_driver;
