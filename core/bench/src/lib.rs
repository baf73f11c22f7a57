//! What the suite measures: loads that are the same for the collector and its peers, and on every machine.
//!
//! `core/bench/run` measures them; `core/bench/run --check` counts their instructions.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here is the end of it

pub mod counted;
#[cfg(feature = "peers")]
pub mod groups;
pub mod json;
pub mod random;
pub mod refresh;
#[cfg(feature = "peers")]
pub mod table;
pub mod timer;
pub mod values;
