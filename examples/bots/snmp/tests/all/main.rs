//! The bot and its parts through their public API, in one program: each file is a subject of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

#[path = "support/agent.rs"]
mod agent;
mod bot;
mod details;
mod expression;
mod interfaces;
mod poll;
mod rates;
mod template;
mod v3;
