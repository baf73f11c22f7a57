//! Collector for [Grafolean](https://grafolean.com) bots: everything that decides, and nothing that waits.
//!
//! This crate is `no_std`, does not allocate, reads no clock, opens no socket and spawns nothing. Time and bytes come in
//! by calls, decisions go out by calls: the same inputs give the same outputs on a Cortex-M0+ and on a server, and a
//! whole collector runs in a unit test on simulated time. Adapters (`grafolean-std` on tokio, `grafolean-embassy` on
//! microcontrollers) do the waiting.
//!
//! A bot author implements [`bot::Bot`]; a driver owns a [`collector::Collector`] and the memory that it works in
//! ([`storage::Storage`]).
//!
//! # Rooms
//! Each module knows only those above it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`time`] | milliseconds, ticks, the wall clock learned from outside |
//! | [`hash`], [`random`] | FNV-1a 64 and SplitMix64, the same on every target |
//! | [`interval`] | checked intervals, small sorted sets of them, which of them made a run due |
//! | [`schedule`] | when each slot is due; indices only |
//! | [`table`] | a keyed table of fixed capacity with a refresh transaction |
//! | [`jobs`] | keyed jobs on a schedule: refresh, what is pending, ready and running |
//! | [`json`] | framing of chunked bodies into bounded elements, decoding of one, a bounded writer |
//! | [`device`] | where an entity is, for bots of several protocols |
//! | [`api`] | the backend's URLs, the token, methods |
//! | [`values`] | checked paths, numbers formatted once |
//! | [`outbox`] | what waits to be delivered, and the ledger of every value |
//! | [`model`] | what is kept of entities, credentials and sensors |
//! | [`bot`] | the traits of bots and of the context that a run is given |
//! | [`state`] | keyed state of jobs |
//! | [`journal`] | faults and events |
//! | [`config`] | the refresh: from accounts, entities, credentials and sensors to jobs |
//! | [`storage`] | the memory of all that, lent by its owner |
//! | [`collector`] | puts it together behind `handle_*` and `poll_*` |
//! | [`context`] | what a run is given, over what an adapter lends |
//!
//! # Features
//! `defmt` derives `defmt::Format`. Nothing is on by default.
#![no_std]
#![forbid(unsafe_code)]
#![allow(async_fn_in_trait)]

#[cfg(test)]
extern crate std;

pub mod api;
pub mod bot;
pub mod collector;
pub mod config;
pub mod context;
pub mod device;
pub mod hash;
pub mod interval;
pub mod jobs;
pub mod journal;
pub mod json;
pub mod model;
pub mod outbox;
mod probe;
pub mod random;
pub mod schedule;
mod sort;
pub mod state;
pub mod storage;
pub mod table;
pub mod time;
pub mod values;

#[doc(hidden)]
pub use heapless;
