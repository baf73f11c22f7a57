//! Messages and security through the public API, in one program: each file is a subject of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod differential;
mod messages;
mod net_snmp;
mod properties;
mod support;
mod usm;
