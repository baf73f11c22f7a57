//! Grafolean bots for Linux: what their programs share.

#![forbid(unsafe_code)]

pub mod plan;
