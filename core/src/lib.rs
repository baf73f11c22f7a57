//! Collector for Grafolean bots: no_std, no alloc, sans-IO
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(test)]
extern crate std;

pub mod api;
pub mod hash;
pub mod interval;
pub mod jobs;
pub mod json;
pub mod outbox;
pub mod schedule;
pub mod table;
pub mod time;
pub mod values;
