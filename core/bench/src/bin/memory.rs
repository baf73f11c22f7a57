//! `memory [--quick]` says how many bytes each timer takes for a job, and how often it allocates: for `bench`, which
//! measures times and so must not count.

#![forbid(unsafe_code)]

use std::alloc::System;

use grafolean_bench::groups::{Effort, Heap, count_heap_by, timer};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    count_heap_by(|| {
        let stats = COUNTED.stats();
        Heap {
            live: stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated),
            allocations: stats.allocations + stats.reallocations,
        }
    });
    let quick = std::env::args().any(|arg| arg == "--quick");
    timer::memory(if quick { Effort::Quick } else { Effort::Full });
}
