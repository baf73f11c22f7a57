//! Deterministic simulation of whole deployments: the real collector, a bot, a machine with clocks and a disk, a network and a
//! backend, all with faults, on simulated time and from one seed.
//!
//! ```
//! use grafolean_simulator::{Plan, simulate};
//! let report = simulate(&Plan::of(7), false);
//! assert_eq!(report.violation, None);
//! ```
//!
//! In the spirit of FoundationDB's simulation and of TigerBeetle's VOPR. A [`Plan`] follows from a seed: what the bot runs on, how
//! many devices there are, and which [`Fault`]s happen, a random subset of them (swarm testing). [`simulate`] goes through it until
//! an [`Invariant`] is violated, or to its end; [`shrink`] takes away what a failure does not need. The program does that for many
//! seeds on all cores:
//!
//! ```sh
//! cargo run --release -p grafolean-simulator -- --seeds 2000 --from 0
//! cargo run --release -p grafolean-simulator -- --seed 356 --trace
//! ```
//!
//! # What is real, what is simulated
//! Real: `grafolean-core` with all its rooms; the durable outboxes with the drivers' own glue, on hosts
//! in files (`grafolean_std::outbox`), on boards in flash (`grafolean_embassy::flash`); the backend's answers (the stand-in's, checked against recorded ones).
//! Simulated: time, the machine's clocks, the disk (syncs take their time beside the loop, as on the driver's thread), the flash, the transport as the collector sees it (heads, pieces of bodies, failures), and
//! the driver's loop. Not simulated: sockets, HTTP, TLS, and threads (the adapters' own tests).
//!
//! # Phases of a simulation
//! First faults happen, for minutes to days of simulated time. Then they end, and all waits that they caused run out; from then on
//! live values must be fast, the backlog must be gone within a time that follows from its size, and the jobs must be those of
//! the configuration. Then the process is told to stop, and must, with nothing left.
//!
//! # The oracle
//! Each value's number is its identity, so it is followed without the collector's help: in requests (path, time, and that nothing
//! is sent again that must not be), in the backend's rows, in acknowledgements. What a life of the process must find of the one before
//! follows from what was written or synced then, and where values were thinned out, the lowest, highest and last one of each window must arrive. The collector's ledger must agree at every step,
//! and of each drop it is asked which rule allows it. When jobs must run is worked out from their keys and intervals alone.
//!
//! # How far it was run
//! CI simulates seeds 0 to 1,999: 539 days. By hand, seeds 300,000 to 319,999: 5,727 days, 33.9 million values, 166,673 lives of
//! processes, 9.6 million faults, no violation. The run before found that an account's live values starved on a slow link
//! while another's bad values were looked for (seed 302720).
//!
//! # Planted bugs
//! `core/simulator/planted/run` plants bugs, one after the other, and expects that each is found.
//!
//! # Cost
//! About 40 ms of CPU for a seed, 0.3 simulated days, of an optimised build.
#![forbid(unsafe_code)]

mod bot;
mod flash;
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

pub use plan::{Act, Fault, Faults, FlashPlan, Plan, Target};
pub use shrink::{BadCut, Cut, shrink};
pub use violation::{Invariant, Violation};
pub use world::{Report, Stats, simulate};
