//! The outbox against its rules, one by one, and against a model of the backend, on simulated time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;
mod rig;
mod rules;
mod stored;
