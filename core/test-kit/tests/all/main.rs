//! What the kit does and what it says, in one program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod assertions;
mod lab;
mod support;
