//! Grafolean bots for Linux: what their programs share.

#![forbid(unsafe_code)]

pub mod pinger;
pub mod plan;
pub mod snmp;
