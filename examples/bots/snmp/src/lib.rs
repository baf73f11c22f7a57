//! The logic of Grafolean's SNMP bot: reads devices, computes the values that their sensors ask for, and posts them.
//!
//! [`SnmpBot`] is a [`grafolean_core::bot::Bot`] over a [`network::Network`], which is all that it needs of one, and a
//! [`memory::Memory`]: the same logic runs on hosts and on boards.
//!
//! | module | is |
//! | --- | --- |
//! | [`expression`] | a sensor's expression over what was read, parsed once and evaluated for each row |
//! | [`template`] | a sensor's output path with its placeholders |
//! | [`details`] | the details of entities, credentials and sensors as the web page's forms store them |
//! | [`rates`] | counters to rates per second |
//! | [`network`] | what the bot needs of a network |
//! | [`poll`] | requests with repetitions, GETs of any number of names, walks |
//! | [`memory`] | the memory of runs, of fixed size or growing |
//!
//! # Values
//! At `entity.{id}.snmp.{output_path}`: one for each sensor that only GETs, one for each row where it walks. The rows are those
//! of its first walk; what it GETs counts for each of them; a row that another of its walks lacks has no value. A counter
//! stands for its rate per second.
//!
//! # Requests
//! What all the sensors that are due GET goes into one request (as many as it fits), each OID once, with sysUpTime. Walks
//! take GETBULK where the version has it, row batch by row batch: of the other walked columns, the batch's rows are read by
//! GETs, so that the order of tables does not matter and memory does not depend on their length.
//!
//! # Errors
//! What can't be polled by its settings is told at the refresh, by entity or sensor. A run that misses something ends with
//! [`SnmpError`], which names the first thing of each of some sensors; the other values are handed over all the same. No message
//! shows a secret.
//!
//! # Interfaces
//! A second job per entity keeps the entities of the device's interfaces up to date: see [`interfaces`].
//!
//! # Features
//! | feature | |
//! | --- | --- |
//! | `std` | [`memory::HostMemory`], and sizes of a host |
//! | `v3` | SNMPv3 |
#![no_std]
#![forbid(unsafe_code)]

mod bot;
pub mod details;
pub mod expression;
mod fault;
pub mod interfaces;
pub mod memory;
pub mod network;
pub mod poll;
pub mod rates;
mod readings;
pub mod template;
#[cfg(feature = "v3")]
mod users;

#[cfg(feature = "std")]
pub use bot::HostSnmpBot;
pub use bot::{INTERFACES_INTERVAL_S, SnmpBot, SnmpJob};
pub use fault::{Fault, Problem, SnmpError};
