//! The core through its public API, in one program: each file is a subject of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod collector_limits;
mod collector_own;
mod collector_runs;
mod collector_values;
mod debug_secrets;
mod jobs_common;
mod jobs_load;
mod jobs_oracle;
mod jobs_rules;
mod json_decode;
mod json_frame;
mod json_oracle;
mod json_read;
mod json_write;
mod outbox;
mod refresh_capacity;
mod refresh_content;
mod refresh_progress;
mod refresh_requests;
mod schedule_properties;
mod support;
mod tiny_memory;
