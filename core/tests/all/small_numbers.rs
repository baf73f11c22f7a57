//! Where the numbers of small entries end: a table has no more slots than they can tell apart, and says so; memory for
//! more jobs has large entries.

use super::Entry;
use super::jobs_common::{Boxed, Memory, Room, every};
use crate::support::TestBot;
use grafolean_core::jobs::{InsertError, JobKey, JobSpec};
use grafolean_core::schedule::EntryFormat;
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, Tick};
use std::any::type_name;

#[test]
fn a_table_with_more_slots_than_numbers_refuses_the_job_that_has_none_and_names_the_limit() {
    let slots = Entry::MAX_SLOTS as usize;
    let room =
        Room { jobs: slots + 99, spare: 1, entries: slots + 100, classes: 1, running: 1, floor_per_s: 1 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    assert_eq!(jobs.capacity(), slots - 1);
    let spec = |e: u64| JobSpec::aligned(JobKey::new(1, e), every(&[60]), Tick(e % 60), e);
    jobs.begin();
    for e in 0..slots as u64 {
        let expected = InsertError::Jobs { key: JobKey::new(1, e), capacity: slots - 1 };
        let refused = jobs.upsert(spec(e)).err();
        assert_eq!(refused, (e == slots as u64 - 1).then_some(expected));
    }
    jobs.commit(Millis(0), |_| false, |_| {});
    assert_eq!(jobs.len(), slots - 1);
    // Each runs as itself, in the minute from 0 on.
    let mut seen = vec![0u8; slots];
    for s in 1..=60 {
        let now = Millis(s * 1000);
        jobs.advance(now);
        while let Some(due) = jobs.next_run(now) {
            assert_eq!((jobs.params(due.run), due.key.entity % 60), (Some(&due.key.entity), s % 60));
            seen[due.key.entity as usize] += 1;
            assert!(jobs.complete(due.run).is_some());
        }
    }
    assert!(seen[..slots - 1].iter().all(|n| *n == 1) && seen[slots - 1] == 0);
}

#[allow(dead_code)]
mod memories {
    use super::TestBot;

    grafolean_core::inline_storage! {
        pub struct Most for TestBot {
            accounts: 1, entities: 1, links: 1, credentials: 1, sensors: 1, jobs: 16_382, spare: 2, intervals: 1_000,
            distinct_intervals: 1, runs: 1, cells: 1, element: 1, scratch: 1, listing: 1, states: 1, faults: 1, events: 1,
        }
    }

    grafolean_core::inline_storage! {
        pub struct More for TestBot {
            accounts: 1, entities: 1, links: 1, credentials: 1, sensors: 1, jobs: 16_383, spare: 2, intervals: 1_000,
            distinct_intervals: 1, runs: 1, cells: 1, element: 1, scratch: 1, listing: 1, states: 1, faults: 1, events: 1,
        }
    }
}

#[test]
fn inline_memory_has_the_smallest_entries_that_can_number_its_slots() {
    fn name_of<S: Storage<TestBot>>() -> &'static str {
        type_name::<S::Entry>()
    }
    assert_eq!(name_of::<memories::Most>(), type_name::<Entry>());
    assert_eq!(name_of::<memories::More>(), type_name::<grafolean_core::schedule::Entry>());
    assert_eq!((size_of::<Entry>(), align_of::<Entry>()), (6, 2));
    assert!(size_of::<memories::More>() > size_of::<memories::Most>() + 2 * 1_000 + 2 * 16_384);
}
