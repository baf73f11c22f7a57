//! The core through its public API, in one program: each file is a subject of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// What holds for one format of entries holds for the other.
#![allow(clippy::duplicate_mod)]

mod collector_limits;
mod collector_own;
mod collector_runs;
mod collector_values;
mod debug_secrets;
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
mod support;
mod tiny_memory;

/// Schedules and jobs with entries of 8 bytes.
#[path = "."]
mod large_entries {
    pub(crate) use grafolean_core::schedule::Entry;
    mod jobs_common;
    mod jobs_load;
    mod jobs_oracle;
    mod jobs_rules;
    mod schedule_properties;
}

/// The same with entries of 6 bytes; but not the load of 100,000 jobs, which they cannot number.
#[path = "."]
mod small_entries {
    pub(crate) use grafolean_core::schedule::SmallEntry as Entry;
    mod jobs_common;
    mod jobs_oracle;
    mod jobs_rules;
    mod schedule_properties;
    mod small_numbers;
}
