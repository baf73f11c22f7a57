//! Deterministic simulation of whole deployments: the real collector, a bot, a machine, a network and a backend with faults, on
//! simulated time.
//!
//! ```
//! use grafolean_simulator::{Plan, simulate};
//! let report = simulate(&Plan::of(7), false);
//! assert_eq!(report.violation, None);
//! ```
#![forbid(unsafe_code)]

mod bot;
mod machine;
mod plan;
mod random;
mod schedule;
mod server;
mod shrink;
mod values;
mod violation;
mod wire;
mod world;

pub use plan::{Act, Fault, Faults, Plan, Target};
pub use shrink::{BadCut, Cut, shrink};
pub use violation::{Invariant, Violation};
pub use world::{Report, Stats, simulate};
