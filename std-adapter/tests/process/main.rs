//! What starts its own program again, and holds locked files meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

#[path = "../all/http_support/mod.rs"]
mod http_support;
mod http_tls;
mod outbox_files;
