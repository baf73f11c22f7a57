//! The bot, and one that keeps entities, in one program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod bot;
mod upkeep;
