#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "a test kit speaks by panics")]

mod answer;
mod check;
mod clock;
mod device;
mod lab;
mod memory;
mod record;
mod script;
mod shared;

/// The backend's own types, for what the lab has no shorthand for.
pub mod backend {
    pub use grafolean_stand_in::*;
}

pub use answer::{Answer, SILENCE_LIMIT_MS};
pub use check::LEARNED_CLOCK_MS;
pub use clock::{Clock, Sleep};
pub use device::Device;
pub use lab::{ACCOUNT, BOT, Lab, LatencyMs, SEED_VARIABLE, Setup};
pub use memory::{Links, Memory};
pub use record::{HandedOver, Job, Outcome, Run, Sent, Stored, Told};
pub use script::Script;
