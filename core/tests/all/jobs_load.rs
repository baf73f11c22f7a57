//! Load of many spread jobs: the peak per second over the mean of the long run, counted in runs of a real table.

use super::jobs_common::{Boxed, Memory, Random, Room, every, run_all};
use grafolean_core::jobs::{JobKey, JobSpec};
use grafolean_core::time::Millis;

const JOBS: usize = 100_000;

#[derive(Debug)]
struct Load {
    first_hour: f64,
    long_run: f64,
}

/// The first hour, and the one after it.
const HOUR_S: usize = 3600;

/// Runs of 100,000 jobs in each second after a commit at tick `begin`; entity `i` has `intervals[i mod 4]`.
fn load(ids: &[u64], intervals: [u32; 4], begin: u64) -> Load {
    let room = Room { jobs: JOBS, spare: 1, entries: JOBS, classes: 4, running: 1, floor_per_s: 50 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    jobs.begin();
    for (i, &id) in ids.iter().enumerate() {
        jobs.upsert(JobSpec::spread(JobKey::new(1, id), every(&[intervals[i % 4]]), ())).unwrap();
    }
    jobs.commit(Millis(begin * 1000), |_| false, |e| assert!(!format!("{e:?}").contains("Refused")));
    let mut runs = Vec::new();
    for s in 1..=2 * HOUR_S as u64 {
        let now = Millis((begin + s) * 1000);
        jobs.advance(now);
        let mut n = 0u32;
        while let Some(due) = jobs.next_run(now) {
            assert!(jobs.complete(due.run).is_some());
            n += 1;
        }
        runs.push(n);
    }
    let mean: f64 = (0..JOBS).map(|i| 1.0 / f64::from(intervals[i % 4])).sum();
    let (first, long) = runs.split_at(HOUR_S);
    let peak = |of: &[u32]| f64::from(*of.iter().max().unwrap()) / mean;
    let load = Load { first_hour: peak(first), long_run: peak(long) };
    println!("ids from {}, {intervals:?} s, begun at {begin}: {load:.2?}", ids[0]);
    load
}

fn sequential() -> Vec<u64> {
    (1..=JOBS as u64).collect()
}

fn random() -> Vec<u64> {
    let mut r = Random::new(1);
    (0..JOBS).map(|_| r.next() >> 1).collect()
}

#[test]
fn jobs_of_15_s_to_an_hour_make_an_even_load_from_the_first_second_on() {
    for (ids, begin) in [(sequential(), 0), (random(), 1_700_000_003)] {
        let load = load(&ids, [15, 60, 300, 3600], begin);
        assert!(load.first_hour <= 1.6, "{load:?}");
        assert!(load.long_run <= 1.15, "{load:?}");
    }
}

#[test]
fn jobs_of_five_minutes_make_an_even_load_from_the_first_second_on() {
    for (ids, begin) in [(sequential(), 0), (random(), 1_700_000_003)] {
        let load = load(&ids, [300; 4], begin);
        assert!(load.first_hour <= 2.4, "{load:?}");
        assert!(load.long_run <= 1.3, "{load:?}");
    }
}

#[test]
fn twenty_hourly_jobs_of_a_board_all_run_once_within_a_minute() {
    for begin in [0, 7, 3_599, 1_700_000_003] {
        let room = Room { jobs: 20, spare: 1, entries: 20, classes: 1, running: 1, floor_per_s: 1 };
        let mut memory = Boxed::new(room);
        let mut jobs = memory.table();
        for id in 0..20 {
            jobs.upsert(JobSpec::spread(JobKey::new(1, id), every(&[3600]), ())).unwrap();
        }
        jobs.commit(Millis(begin * 1000), |_| false, |_| {});
        let mut seen = Vec::new();
        for s in 1..=60 {
            seen.extend(run_all(&mut jobs, Millis((begin + s) * 1000)).iter().map(|due| due.key.entity));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}
