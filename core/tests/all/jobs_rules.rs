//! What the rules of scheduling promise, one by one, and the faults of the reference that ours does not have.

use super::Entry;
use super::jobs_common::{Boxed, Memory, Room, every, run_all};
use grafolean_core::interval::{Affecting, Interval, IntervalError, Intervals};
use grafolean_core::jobs::{Completed, Due, InsertError, JobEvent, JobKey, JobSpec, JobTable, Phase};
use grafolean_core::schedule::EntryFormat as _;
use grafolean_core::table::{Staged, TableKey};
use grafolean_core::time::{Millis, Tick};

type Table<'a> = JobTable<'a, u32, Entry>;

fn key(entity: u64) -> JobKey {
    JobKey::new(1, entity)
}

fn aligned(entity: u64, seconds: &[u32], start: u64) -> JobSpec<u32> {
    JobSpec::aligned(key(entity), every(seconds), Tick(start), 0)
}

fn spread(entity: u64, seconds: &[u32]) -> JobSpec<u32> {
    JobSpec::spread(key(entity), every(seconds), 0)
}

fn refresh(jobs: &mut Table<'_>, at: u64, specs: &[JobSpec<u32>]) -> Vec<JobEvent> {
    jobs.begin();
    for spec in specs {
        jobs.upsert(*spec).unwrap();
    }
    let mut events = Vec::new();
    jobs.commit(Millis(at * 1000), |_| false, |e| events.push(e));
    events
}

/// (tick, affecting seconds) of all runs in (from, to], each begun in its second.
fn runs(jobs: &mut Table<'_>, from: u64, to: u64) -> Vec<(u64, Vec<u32>)> {
    let mut out = Vec::new();
    for s in from + 1..=to {
        for due in run_all(jobs, Millis(s * 1000)) {
            assert_eq!((due.scheduled, due.late_ms, due.missed), (Tick(s), 0, 0));
            out.push((s, due.affecting_seconds().collect()));
        }
    }
    out
}

fn begin(jobs: &mut Table<'_>, ms: u64) -> Option<Due> {
    jobs.advance(Millis(ms));
    jobs.next_run(Millis(ms))
}

// ---- S1 ----

#[test]
fn the_hash_of_a_key_is_fnv_1a_of_its_canonical_bytes() {
    for (account, entity, item, name, expected) in [
        (0, 0, 0, "", 0x81d2_3fd7_003c_2305u64),
        (1, 2, 3, "", 0xda2b_fb22_5e0d_1f05),
        (1, 2, 3, "ping", 0x2c1d_9c78_f1cc_3789),
        (u64::MAX, 256, 0, "upkeep", 0xe381_a782_9086_74fe),
    ] {
        let key = JobKey { account, entity, item, name };
        assert_eq!((key.fnv1a64(), TableKey::hash(&key)), (expected, expected), "{key}");
    }
}

#[test]
fn a_key_shows_what_it_names() {
    let full = JobKey { account: 1, entity: 2, item: 3, name: "upkeep" };
    assert_eq!(full.to_string(), "job of account 1, entity 2, item 3, \"upkeep\"");
    assert_eq!(key(7).to_string(), "job of account 1, entity 7");
}

// ---- S3, S4 ----

#[test]
fn aligned_jobs_fire_at_start_plus_multiples_and_several_that_fall_together_make_one_run() {
    type Case = (&'static [u32], u64, u64, &'static [(u64, &'static [u32])]);
    let cases: [Case; 7] = [
        (&[10], 3, 3, &[(13, &[10]), (23, &[10]), (33, &[10])]),
        (&[10], 3, 12, &[(13, &[10]), (23, &[10]), (33, &[10])]),
        (&[10], 3, 13, &[(23, &[10]), (33, &[10])]),
        (
            &[4, 6],
            100,
            100,
            &[(104, &[4]), (106, &[6]), (108, &[4]), (112, &[4, 6]), (116, &[4]), (118, &[6]), (120, &[4])],
        ),
        (&[5, 10, 20], 0, 0, &[(5, &[5]), (10, &[5, 10]), (15, &[5]), (20, &[5, 10, 20]), (25, &[5])]),
        // A start ahead: its grid reaches back.
        (&[7], 50, 20, &[(22, &[7]), (29, &[7]), (36, &[7]), (43, &[7]), (50, &[7])]),
        (&[1, 3], 2, 9, &[(10, &[1]), (11, &[1, 3]), (12, &[1]), (13, &[1]), (14, &[1, 3]), (15, &[1])]),
    ];
    for (intervals, start, now, expected) in cases {
        let mut memory = Boxed::ample(2);
        let mut jobs = memory.table();
        refresh(&mut jobs, now, &[aligned(1, intervals, start)]);
        let until = expected.last().unwrap().0;
        let expected: Vec<_> = expected.iter().map(|(t, a)| (*t, a.to_vec())).collect();
        assert_eq!(runs(&mut jobs, now, until), expected, "{intervals:?} from {start}, inserted at {now}");
    }
}

#[test]
fn a_spread_job_starts_at_its_hash_modulo_its_longest_interval_and_its_intervals_fall_together() {
    for entity in 0..50 {
        let mut memory = Boxed::ample(1);
        let mut jobs = memory.table();
        let spec = JobSpec { first_run: false, ..spread(entity, &[20, 60]) };
        refresh(&mut jobs, 1_000_000, &[spec]);
        let start = key(entity).fnv1a64() % 60;
        let runs = runs(&mut jobs, 1_000_000, 1_000_200);
        assert!(runs.len() >= 9);
        for (tick, affecting) in runs {
            assert_eq!(tick % 20, start % 20);
            assert_eq!(affecting.contains(&60), tick % 60 == start);
        }
    }
}

#[test]
fn a_new_spread_job_runs_once_soon_with_all_its_intervals_and_then_on_its_grid() {
    let n = 10_000;
    for entity in 0..100 {
        let mut memory = Boxed::ample(1);
        let mut jobs = memory.table();
        refresh(&mut jobs, n, &[spread(entity, &[600, 3600])]);
        let hash = key(entity).fnv1a64();
        let start = hash % 3600;
        let grid = (n + 1..).find(|t| (t + 36_000 - start).is_multiple_of(600)).unwrap();
        let first = if grid <= n + 60 { grid } else { n + 1 + hash % 60 };
        let runs = runs(&mut jobs, n, n + 700);
        assert_eq!(runs[0], (first, vec![600, 3600]));
        for (tick, affecting) in &runs[1..] {
            assert_eq!((tick + 36_000 - start) % 600, 0);
            assert_eq!(affecting.contains(&3600), (tick + 36_000 - start).is_multiple_of(3600));
        }
    }
}

#[test]
fn a_job_whose_grid_comes_within_the_window_of_first_runs_has_no_extra_one() {
    for entity in 0..60 {
        let mut memory = Boxed::ample(1);
        let mut jobs = memory.table();
        refresh(&mut jobs, 777, &[spread(entity, &[30, 60])]);
        let runs = runs(&mut jobs, 777, 777 + 120);
        assert_eq!(runs.len(), 4, "{runs:?}");
        assert_eq!(runs[0].1, [30, 60], "the first of all has all affecting");
        assert_eq!(
            runs.iter().filter(|r| r.1.contains(&60)).count(),
            2 + usize::from(runs[1].1.contains(&60))
        );
    }
}

#[test]
fn the_window_of_first_runs_grows_with_the_crowd() {
    // 50,000 jobs of 1000 s: R = 50/s, so that first runs take 1000 s. Or as many as there can be, at the same rate.
    let interval_s = 1000.min((Entry::MAX_SLOTS - 1) / 50);
    let n = 50 * interval_s as usize;
    let room = Room { jobs: n, spare: 1, entries: n, classes: 1, running: 1, floor_per_s: 1 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    let specs: Vec<_> = (0..n as u64).map(|e| spread(e, &[interval_s])).collect();
    refresh(&mut jobs, 5, &specs);
    let mut most = 0;
    for s in 6..200 {
        most = most.max(run_all(&mut jobs, Millis(s * 1000)).len());
    }
    assert!((50..100).contains(&most), "{most} in one second");
}

// ---- S5, S6, S7 ----

#[test]
fn a_late_job_runs_once_with_all_that_fell_due_and_stays_on_its_grid() {
    let mut memory = Boxed::ample(1);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10, 60, 300], 5)]);
    assert_eq!(runs(&mut jobs, 0, 14), [(5, vec![10, 60, 300])]);
    // 15, 25, 35, 45, 55 and 65 have passed.
    let due = begin(&mut jobs, 70_250).unwrap();
    assert_eq!((due.scheduled, due.late_ms, due.missed), (Tick(15), 55_250, 5));
    assert_eq!(due.affecting_seconds().collect::<Vec<_>>(), [10, 60]);
    assert!(due.affects(Interval::new(60).unwrap()) && !due.affects(Interval::new(300).unwrap()));
    assert!(!due.affects(Interval::new(11).unwrap()));
    jobs.complete(due.run);
    assert_eq!(jobs.poll_timeout(), Some(Millis(75_000)));
    assert_eq!(runs(&mut jobs, 70, 76), [(75, vec![10])]);
    assert_eq!((jobs.counters().missed, jobs.counters().coalesced), (5, 1));
}

#[test]
fn years_of_suspension_make_one_run_of_each_job() {
    let mut memory = Boxed::ample(3);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[1], 0), aligned(2, &[7, 86_400], 3), spread(3, &[3600])]);
    let now = Millis(20 * 365 * 86_400_000);
    let runs = run_all(&mut jobs, now);
    assert_eq!(runs.len(), 3);
    assert_eq!(runs[0].missed, 20 * 365 * 86_400 - 1);
    // The end of time is no fault either.
    assert_eq!(run_all(&mut jobs, Millis(u64::MAX)).len(), 3);
    assert!(run_all(&mut jobs, Millis(u64::MAX)).is_empty());
}

#[test]
fn a_clock_that_stands_or_goes_back_counts_as_the_last_time() {
    let mut memory = Boxed::ample(1);
    let mut jobs = memory.table();
    refresh(&mut jobs, 100, &[aligned(1, &[10], 0)]);
    assert_eq!(runs(&mut jobs, 100, 110), [(110, vec![10])]);
    assert!(begin(&mut jobs, 5_000).is_none());
    assert_eq!(jobs.poll_timeout(), Some(Millis(120_000)));
    jobs.advance(Millis(120_000));
    let due = jobs.next_run(Millis(1)).unwrap();
    assert_eq!((due.late_ms, due.deadline), (0, Millis(130_000)));
}

#[test]
fn under_overload_the_first_due_runs_first_and_nothing_is_lost() {
    let room = Room { jobs: 60, spare: 1, entries: 60, classes: 60, running: 1, floor_per_s: 50 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    // 6 runs/s are wanted, 2 runs/s can be done.
    let specs: Vec<_> = (0..60).map(|e| aligned(e, &[10], e % 10)).collect();
    refresh(&mut jobs, 1000, &specs);
    let (mut done, mut instants) = ([0u32; 60], [0u32; 60]);
    let mut last = (Tick(0), 0);
    for half in 2000..2000 + 2 * 600 {
        let Some(due) = begin(&mut jobs, half * 500) else { continue };
        assert!((due.scheduled, due.run.slot) > last, "{due:?} after {last:?}");
        last = (due.scheduled, due.run.slot);
        done[due.key.entity as usize] += 1;
        instants[due.key.entity as usize] += 1 + due.missed;
        jobs.complete(due.run);
    }
    assert!(done.iter().all(|n| (18..=21).contains(n)), "{done:?}");
    assert!(instants.iter().all(|n| (56..=60).contains(n)), "{instants:?}");
}

#[test]
fn a_job_that_waits_keeps_its_place_and_takes_in_what_falls_due() {
    let room = Room { jobs: 4, spare: 1, entries: 8, classes: 8, running: 1, floor_per_s: 50 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[100], 1), aligned(2, &[10, 20], 2), aligned(3, &[100], 5)]);
    let first = begin(&mut jobs, 1_000).unwrap();
    jobs.advance(Millis(22_000));
    assert_eq!(jobs.ready(), 2);
    jobs.complete(first.run);
    let second = jobs.next_run(Millis(22_000)).unwrap();
    assert_eq!((second.key, second.scheduled, second.missed), (key(2), Tick(2), 2));
    assert_eq!(second.affecting, Affecting(0b11));
    jobs.complete(second.run);
    assert_eq!(jobs.next_run(Millis(22_000)).map(|d| d.key), Some(key(3)));
}

#[test]
fn one_job_never_runs_twice_at_once_and_what_falls_due_meanwhile_runs_once() {
    let mut memory = Boxed::ample(2);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10, 60], 0), aligned(2, &[1000], 35)]);
    let first = begin(&mut jobs, 10_000).unwrap();
    jobs.advance(Millis(65_000));
    assert_eq!(jobs.next_run(Millis(65_000)).map(|d| d.key), Some(key(2)));
    assert!(jobs.next_run(Millis(65_000)).is_none());
    assert!(jobs.complete(first.run).is_some());
    let second = jobs.next_run(Millis(65_000)).unwrap();
    assert_eq!((second.scheduled, second.missed, second.late_ms), (Tick(20), 4, 45_000));
    assert_eq!(second.affecting_seconds().collect::<Vec<_>>(), [10, 60]);
    assert!(jobs.next_run(Millis(65_000)).is_none());
    // A late completion of the first run does not end the second.
    assert_eq!(jobs.complete(first.run), None);
    assert!(jobs.is_running(second.run));
}

#[test]
fn a_run_has_a_deadline_and_is_cancelled_once() {
    let mut memory = Boxed::ample(5);
    let mut jobs = memory.table();
    let own = JobSpec { deadline_ms: Some(1_500), ..aligned(4, &[3600], 1) };
    refresh(&mut jobs, 0, &[aligned(1, &[3], 1), aligned(2, &[60, 300], 1), aligned(3, &[3600], 1), own]);
    jobs.advance(Millis(1_200));
    let runs: Vec<_> = std::iter::from_fn(|| jobs.next_run(Millis(1_200))).collect();
    let allowed: Vec<_> = runs.iter().map(|d| d.deadline.0 - 1_200).collect();
    assert_eq!(allowed, [10_000, 60_000, 300_000, 1_500]);
    assert_eq!((jobs.next_deadline(), jobs.poll_timeout()), (Some(Millis(2_700)), Some(Millis(2_700))));
    assert_eq!(jobs.expired(Millis(2_699)), None);
    assert_eq!(jobs.expired(Millis(2_700)), Some(runs[3].run));
    assert_eq!((jobs.expired(Millis(2_700)), jobs.next_deadline()), (None, Some(Millis(11_200))));
    // It holds its place until it has ended.
    assert_eq!(jobs.running(), 4);
    let completed = Completed { key: key(4), cancelled: true, removed: false };
    assert_eq!(jobs.complete(runs[3].run), Some(completed));
    assert_eq!((jobs.complete(runs[3].run), jobs.running(), jobs.counters().cancelled), (None, 3, 1));
    assert_eq!(jobs.expired(Millis(100_000)), Some(runs[0].run));
    assert_eq!(jobs.expired(Millis(100_000)), Some(runs[1].run));
    assert_eq!(jobs.expired(Millis(100_000)), None);
}

#[test]
fn no_more_run_at_once_than_there_are_places_and_a_full_set_does_not_ask_to_be_woken() {
    let room = Room { jobs: 3, spare: 1, entries: 3, classes: 3, running: 2, floor_per_s: 50 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10], 0), aligned(2, &[10], 0), aligned(3, &[10], 0)]);
    assert_eq!(jobs.poll_timeout(), Some(Millis(10_000)));
    let first = begin(&mut jobs, 10_000).unwrap();
    assert_eq!(jobs.poll_timeout(), Some(Millis(10_000)), "one more is ready");
    assert!(jobs.next_run(Millis(10_000)).is_some());
    assert!(jobs.next_run(Millis(10_000)).is_none());
    assert_eq!(jobs.poll_timeout(), Some(Millis(20_000)), "the first deadline");
    jobs.complete(first.run);
    assert_eq!(jobs.next_run(Millis(11_000)).map(|d| (d.key, d.late_ms)), Some((key(3), 1_000)));
}

// ---- S8 ----

#[test]
fn nothing_happens_before_commit_and_nothing_has_happened_after_abort() {
    let mut memory = Boxed::ample(3);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10], 0)]);
    jobs.begin();
    assert_eq!(jobs.upsert(JobSpec { params: 9, ..aligned(1, &[7], 0) }), Ok(Staged::Changed(0)));
    assert_eq!(jobs.upsert(aligned(2, &[1], 0)).map(|s| matches!(s, Staged::New(_))), Ok(true));
    assert_eq!((jobs.len(), jobs.get(&key(1)), jobs.get(&key(2))), (1, Some((0, &0)), None));
    assert_eq!(runs(&mut jobs, 0, 10), [(10, vec![10])]);
    jobs.abort();
    assert_eq!(runs(&mut jobs, 10, 20), [(20, vec![10])]);
    // Without a refresh under way, a commit removes nothing.
    jobs.commit(Millis(20_000), |_| false, |e| panic!("{e:?}"));
    assert_eq!(jobs.len(), 1);
}

#[test]
fn a_failed_account_keeps_its_jobs_and_loses_what_was_staged() {
    let mut memory = Boxed::ample(6);
    let mut jobs = memory.table();
    let of = |account, entity, params| JobSpec {
        key: JobKey::new(account, entity),
        params,
        ..aligned(0, &[10], 0)
    };
    refresh(&mut jobs, 0, &[of(1, 1, 0), of(1, 2, 0), of(2, 1, 0), of(2, 2, 0)]);
    jobs.begin();
    for spec in [of(1, 1, 1), of(1, 3, 1), of(2, 1, 1), of(2, 3, 1)] {
        jobs.upsert(spec).unwrap();
    }
    let done = jobs.commit(Millis(0), |account| account == 2, |_| {});
    assert_eq!((done.added, done.changed, done.removed), (1, 1, 1));
    let mut live: Vec<_> = jobs.iter().map(|(_, k, p)| (k.account, k.entity, *p)).collect();
    live.sort_unstable();
    assert_eq!(live, [(1, 1, 1), (1, 3, 1), (2, 1, 0), (2, 2, 0)]);
}

#[test]
fn jobs_that_could_not_be_read_are_kept_by_name() {
    let mut memory = Boxed::ample(6);
    let mut jobs = memory.table();
    let item = |entity, item| JobSpec { key: JobKey { item, ..key(entity) }, ..aligned(0, &[10], 0) };
    refresh(&mut jobs, 0, &[item(1, 1), item(1, 2), item(2, 1), item(3, 1)]);
    jobs.begin();
    assert_eq!(jobs.keep_where(|k| k.entity == 1), 2);
    assert!(jobs.keep(&item(2, 1).key));
    assert!(!jobs.keep(&item(2, 2).key));
    assert_eq!(jobs.commit(Millis(0), |_| false, |_| {}).removed, 1);
    assert_eq!(jobs.len(), 3);
}

#[test]
fn changed_parameters_keep_phase_and_what_is_pending_and_the_next_run_has_them() {
    let room = Room { jobs: 2, spare: 2, entries: 4, classes: 4, running: 1, floor_per_s: 50 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    refresh(&mut jobs, 5, &[aligned(1, &[10], 0), aligned(2, &[10, 20], 1)]);
    let running = begin(&mut jobs, 10_000).unwrap();
    jobs.advance(Millis(21_000));
    // Even a phase that is named anew does not move a job whose intervals are the same.
    let changed = JobSpec { params: 5, phase: Phase::Spread, ..aligned(2, &[10, 20], 0) };
    let events = refresh(&mut jobs, 25, &[JobSpec { params: 4, ..aligned(1, &[10], 0) }, changed]);
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|e| matches!(e, JobEvent::Changed { rescheduled: false, .. })), "{events:?}");
    assert_eq!(jobs.params(running.run), Some(&4));
    jobs.complete(running.run);
    let due = jobs.next_run(Millis(25_000)).unwrap();
    assert_eq!((due.key, due.scheduled, due.affecting), (key(2), Tick(11), Affecting(0b11)));
    assert_eq!(jobs.params(due.run), Some(&5));
    jobs.complete(due.run);
    assert_eq!(jobs.next_instant(&key(2)), Some(Tick(31)));
}

#[test]
fn changed_intervals_keep_the_pending_bits_of_those_that_remain() {
    let room = Room { jobs: 2, spare: 2, entries: 9, classes: 9, running: 0, floor_per_s: 50 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10, 20, 300], 0), aligned(2, &[10], 5)]);
    jobs.advance(Millis(20_000));
    assert_eq!(jobs.ready(), 2);
    refresh(&mut jobs, 20, &[aligned(1, &[20, 60, 300], 0), aligned(2, &[50], 0)]);
    assert_eq!(jobs.ready(), 1, "nothing of the second remains pending");
    memory.grow(Room { running: 1, ..room });
    let mut jobs = memory.table();
    let due = jobs.next_run(Millis(20_000)).unwrap();
    assert_eq!((due.key, due.scheduled), (key(1), Tick(10)));
    assert_eq!(due.affecting_seconds().collect::<Vec<_>>(), [20]);
}

#[test]
fn changed_intervals_bring_a_first_run_only_if_the_next_instant_is_now_later() {
    for entity in 0..60 {
        let n = 50_000;
        let mut memory = Boxed::ample(1);
        let mut jobs = memory.table();
        let settled = JobSpec { first_run: false, ..spread(entity, &[600]) };
        refresh(&mut jobs, n, &[settled]);
        let was = jobs.next_instant(&key(entity)).unwrap();
        // More often: the next instant is no later.
        refresh(&mut jobs, n, &[spread(entity, &[300, 600])]);
        assert!(jobs.next_instant(&key(entity)).unwrap() <= was);
        let was = jobs.next_instant(&key(entity)).unwrap();
        refresh(&mut jobs, n, &[spread(entity, &[86_400])]);
        let hash = key(entity).fnv1a64();
        let grid = n + 1 + (hash % 86_400 + 10 * 86_400 - n - 1) % 86_400;
        let expected = if grid <= was.0.max(n + 60) { grid } else { n + 1 + hash % 60 };
        assert_eq!(jobs.next_instant(&key(entity)), Some(Tick(expected)));
        let runs = runs(&mut jobs, n, n + 600);
        assert_eq!(runs[0], (expected, vec![86_400]));
    }
}

#[test]
fn a_job_removed_while_it_runs_ends_its_run() {
    let mut memory = Boxed::ample(2);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10], 0)]);
    let due = begin(&mut jobs, 10_000).unwrap();
    assert!(jobs.remove(Millis(11_000), &key(1)));
    assert!(!jobs.remove(Millis(11_000), &key(1)));
    assert_eq!((jobs.params(due.run), jobs.running(), jobs.next_deadline()), (None, 1, Some(due.deadline)));
    // Its slot goes to another job, which the end of the old run does not concern.
    jobs.insert(Millis(11_000), aligned(2, &[10], 5)).unwrap();
    let other = begin(&mut jobs, 15_000).unwrap();
    assert_eq!((other.run.slot, other.key), (due.run.slot, key(2)));
    assert_eq!(jobs.complete(due.run), Some(Completed { key: key(1), cancelled: false, removed: true }));
    assert!(jobs.is_running(other.run));
    assert_eq!(jobs.complete(due.run), None);
}

#[test]
fn a_key_that_comes_again_while_its_old_run_goes_on_waits_for_its_end() {
    let mut memory = Boxed::ample(3);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10], 0)]);
    let old = begin(&mut jobs, 10_000).unwrap();
    jobs.remove(Millis(10_000), &key(1));
    jobs.insert(Millis(10_000), aligned(9, &[1000], 0)).unwrap();
    jobs.insert(Millis(10_000), JobSpec { params: 7, ..aligned(1, &[10], 0) }).unwrap();
    assert!(begin(&mut jobs, 25_000).is_none());
    // Gone and back once more: still the same run is under way.
    jobs.remove(Millis(25_000), &key(1));
    jobs.insert(Millis(25_000), JobSpec { params: 8, ..aligned(1, &[10], 0) }).unwrap();
    assert!(begin(&mut jobs, 35_000).is_none());
    assert_eq!((jobs.running(), jobs.params(old.run)), (1, None));
    assert_eq!(jobs.complete(old.run), Some(Completed { key: key(1), cancelled: false, removed: true }));
    let new = jobs.next_run(Millis(35_000)).unwrap();
    assert_eq!((new.key, new.scheduled, jobs.params(new.run)), (key(1), Tick(30), Some(&8)));
    assert_ne!(new.run.run, old.run.run);
}

// ---- S9 and bad input ----

#[test]
fn what_does_not_fit_is_refused_with_the_capacity_and_the_others_are_not_touched() {
    let room = Room { jobs: 3, spare: 3, entries: 5, classes: 3, running: 1, floor_per_s: 1 };
    let mut memory = Boxed::<u32>::new(room);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10, 20], 0), aligned(2, &[10], 0)]);
    let error = jobs.insert(Millis(0), aligned(3, &[10, 20, 30], 0)).unwrap_err();
    assert_eq!(error, InsertError::Entries { key: key(3), capacity: 5 });
    let message = "job of account 1, entity 3: refused, the schedule holds 5 intervals of all jobs together";
    assert_eq!(error.to_string(), message);
    let error = jobs.insert(Millis(0), aligned(3, &[30, 40], 0)).unwrap_err();
    assert_eq!(error, InsertError::DistinctIntervals { key: key(3), interval_s: 40, capacity: 3 });
    // A live job that is to grow beyond the room keeps its intervals.
    let error = jobs.insert(Millis(0), aligned(2, &[10, 20, 30, 40], 0)).unwrap_err();
    assert_eq!(error, InsertError::Entries { key: key(2), capacity: 5 });
    jobs.insert(Millis(0), aligned(3, &[30], 0)).unwrap();
    let error = jobs.insert(Millis(0), aligned(4, &[10], 0)).unwrap_err();
    assert_eq!(error, InsertError::Jobs { key: key(4), capacity: 3 });
    assert_eq!(error.to_string(), "job of account 1, entity 4: refused, the table holds 3 jobs");
    let mut all = runs(&mut jobs, 0, 30);
    all.sort();
    let expected: [(u64, &[u32]); 7] =
        [(10, &[10]), (10, &[10]), (20, &[10]), (20, &[10, 20]), (30, &[10]), (30, &[10]), (30, &[30])];
    assert_eq!(all, expected.map(|(t, a)| (t, a.to_vec())));
}

#[test]
fn capacity_is_judged_by_what_is_there_after_commit() {
    let room = Room { jobs: 2, spare: 2, entries: 2, classes: 2, running: 1, floor_per_s: 1 };
    let mut memory = Boxed::<u32>::new(room);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10], 0), aligned(2, &[20], 0)]);
    // All is exchanged at once, though nothing was free.
    let events = refresh(&mut jobs, 0, &[aligned(3, &[30], 0), aligned(4, &[40], 0)]);
    assert!(!events.iter().any(|e| matches!(e, JobEvent::Refused(_))), "{events:?}");
    assert_eq!(runs(&mut jobs, 0, 40), [(30, vec![30]), (40, vec![40])]);
    // Two live jobs change places.
    let events = refresh(&mut jobs, 40, &[aligned(3, &[40, 41], 0)]);
    assert!(!events.iter().any(|e| matches!(e, JobEvent::Refused(_))), "{events:?}");
}

#[test]
fn of_new_jobs_that_do_not_all_fit_the_first_named_ones_come() {
    let room = Room { jobs: 9, spare: 9, entries: 4, classes: 9, running: 1, floor_per_s: 1 };
    let mut memory = Boxed::<u32>::new(room);
    let mut jobs = memory.table();
    let specs = [aligned(1, &[1, 2], 0), aligned(2, &[3, 4, 5], 0), aligned(3, &[6], 0), aligned(4, &[7], 0)];
    let events = refresh(&mut jobs, 0, &specs);
    let refused = JobEvent::Refused(InsertError::Entries { key: key(2), capacity: 4 });
    assert_eq!(events[0], refused);
    assert_eq!(jobs.iter().map(|(_, k, _)| k.entity).collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn the_same_key_twice_names_both_and_the_first_counts() {
    let mut memory = Boxed::ample(2);
    let mut jobs = memory.table();
    jobs.begin();
    let first = jobs.upsert(JobSpec { params: 1, ..aligned(7, &[10], 0) }).unwrap().index();
    let error = jobs.upsert(JobSpec { params: 2, ..aligned(7, &[20], 0) }).unwrap_err();
    assert_eq!(error, InsertError::Duplicate { key: key(7), first });
    assert_eq!(error.to_string(), "job of account 1, entity 7: named twice, the first one (slot 0) counts");
    jobs.commit(Millis(0), |_| false, |_| {});
    assert_eq!(jobs.get(&key(7)), Some((first, &1)));
}

#[test]
fn a_table_without_memory_refuses_all_and_does_nothing() {
    let mut memory =
        Boxed::<u32>::new(Room { jobs: 0, spare: 0, entries: 0, classes: 0, running: 0, floor_per_s: 0 });
    let mut jobs = memory.table();
    assert_eq!(
        jobs.insert(Millis(0), aligned(1, &[1], 0)),
        Err(InsertError::Jobs { key: key(1), capacity: 0 })
    );
    jobs.advance(Millis(u64::MAX));
    assert_eq!((jobs.next_run(Millis(u64::MAX)), jobs.poll_timeout(), jobs.len()), (None, None, 0));
}

#[test]
fn a_table_that_grows_goes_on_as_if_nothing_had_happened() {
    let small = Room { jobs: 3, spare: 1, entries: 4, classes: 2, running: 1, floor_per_s: 50 };
    let mut memory = Boxed::new(small);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10], 1), aligned(2, &[10], 2), aligned(3, &[10, 20], 3)]);
    // The ring of the ready queue has gone round.
    assert_eq!(runs(&mut jobs, 0, 12).len(), 5);
    let running = begin(&mut jobs, 13_000).unwrap();
    jobs.advance(Millis(22_000));
    assert_eq!(jobs.ready(), 2);
    memory.grow(Room { jobs: 20, spare: 5, entries: 40, classes: 8, running: 4, floor_per_s: 50 });
    let mut jobs = memory.table();
    jobs.insert(Millis(22_000), aligned(4, &[7, 8, 9], 0)).unwrap();
    assert!(jobs.complete(running.run).is_some());
    let order: Vec<_> = std::iter::from_fn(|| jobs.next_run(Millis(24_000))).map(|d| d.key.entity).collect();
    assert_eq!(order, [1, 2]);
    jobs.advance(Millis(24_000));
    let order: Vec<_> = std::iter::from_fn(|| jobs.next_run(Millis(24_000))).map(|d| d.key.entity).collect();
    assert_eq!(order, [3, 4]);
}

// ---- the faults of the reference, by their numbers ----

#[test]
fn fault_2_runs_that_wait_for_a_worker_are_late_and_not_lost() {
    // 1000 jobs aligned on one second every 10 s, ten workers, 50 ms each: 200 runs/s.
    let room = Room { jobs: 1000, spare: 1, entries: 1000, classes: 1, running: 10, floor_per_s: 50 };
    let mut memory = Boxed::new(room);
    let mut jobs = memory.table();
    let specs: Vec<_> = (0..1000).map(|e| aligned(e, &[10], 0)).collect();
    refresh(&mut jobs, 0, &specs);
    let mut done = vec![0; 1000];
    for slice in 0..20 * 20 {
        let now = Millis(10_000 + slice * 50);
        jobs.advance(now);
        let batch: Vec<_> = std::iter::from_fn(|| jobs.next_run(now)).collect();
        assert!(batch.len() <= 10);
        for due in batch {
            assert!(due.late_ms < 5_000 && due.missed == 0);
            done[due.key.entity as usize] += 1;
            jobs.complete(due.run);
        }
    }
    assert!(done.iter().all(|n| *n == 2));
}

#[test]
fn fault_3_an_hourly_interval_keeps_its_turn_beside_one_of_ten_seconds() {
    let mut memory = Boxed::ample(1);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[10, 3600], 0)]);
    let long = begin(&mut jobs, 3_590_000).unwrap();
    jobs.advance(Millis(3_650_000));
    jobs.complete(long.run);
    let due = jobs.next_run(Millis(3_650_000)).unwrap();
    assert_eq!(due.affecting_seconds().collect::<Vec<_>>(), [10, 3600]);
}

#[test]
fn fault_4_a_job_that_changes_at_every_refresh_runs_all_the_same() {
    let mut memory = Boxed::ample(4);
    let mut jobs = memory.table();
    let mut done = [0; 3];
    for minute in 0..120u64 {
        let changing = [
            // Other parameters each time.
            JobSpec { params: minute as u32, ..spread(0, &[300]) },
            // Other intervals each time, always longer than a refresh.
            spread(1, &[600 + minute as u32]),
            spread(2, &[if minute % 2 == 0 { 120 } else { 121 }]),
        ];
        refresh(&mut jobs, minute * 60, &changing);
        for s in 1..=60 {
            for due in run_all(&mut jobs, Millis((minute * 60 + s) * 1000)) {
                done[due.key.entity as usize] += 1;
            }
        }
    }
    assert!((24..=25).contains(&done[0]), "every 300 s and once at first: {done:?}");
    assert!(done[1] >= 11, "at least as often as its interval: {done:?}");
    assert!(done[2] >= 55, "at least as often as its interval: {done:?}");
}

#[test]
fn fault_4_an_interval_that_changes_alone_is_heeded() {
    let mut memory = Boxed::ample(2);
    let mut jobs = memory.table();
    refresh(&mut jobs, 0, &[aligned(1, &[60], 0)]);
    refresh(&mut jobs, 0, &[aligned(1, &[20], 0)]);
    assert_eq!(runs(&mut jobs, 0, 60).len(), 3);
}

#[test]
fn fault_5_a_fresh_start_is_no_stampede_and_first_runs_do_not_wait_for_an_interval() {
    let mut memory = Boxed::ample(1000);
    let mut jobs = memory.table();
    let specs: Vec<_> = (0..1000).map(|e| spread(e, &[3600])).collect();
    refresh(&mut jobs, 0, &specs);
    let each: Vec<_> = (1..=60).map(|s| run_all(&mut jobs, Millis(s * 1000)).len()).collect();
    assert_eq!(each.iter().sum::<usize>(), 1000, "all have run within a minute");
    assert!(each.iter().all(|n| *n < 50), "{each:?}");
}

#[test]
fn fault_7_bad_intervals_are_refused_one_by_one() {
    for bad in [0, -1, -60, i64::MIN, i64::MAX] {
        assert_eq!(Interval::new(bad), Err(IntervalError::OutOfRange { seconds: bad }));
    }
    let mut memory = Boxed::ample(2);
    let mut jobs = memory.table();
    jobs.begin();
    let none = JobSpec::spread(key(1), Intervals::EMPTY, 0);
    let error = jobs.upsert(none).unwrap_err();
    assert_eq!(error, InsertError::NoIntervals { key: key(1) });
    assert_eq!(error.to_string(), "job of account 1, entity 1: no interval");
    jobs.upsert(aligned(2, &[10], 0)).unwrap();
    jobs.commit(Millis(0), |_| false, |_| {});
    assert_eq!(runs(&mut jobs, 0, 10).len(), 1);
}

#[test]
fn fault_8_no_jump_of_the_clock_stops_the_jobs_or_loses_a_run() {
    let mut memory = Boxed::ample(1);
    let mut jobs = memory.table();
    refresh(&mut jobs, 7_200, &[aligned(1, &[10], 0)]);
    assert_eq!(runs(&mut jobs, 7_200, 7_210).len(), 1);
    // An hour back, as a clock that is set would show; then on from where it was.
    assert!(run_all(&mut jobs, Millis(3_610_000)).is_empty());
    assert_eq!(runs(&mut jobs, 7_210, 7_230).len(), 2);
    // An hour ahead: one run for all that was missed, and on.
    let late = run_all(&mut jobs, Millis(10_835_000));
    assert_eq!((late.len(), late[0].missed), (1, 359));
    assert_eq!(runs(&mut jobs, 10_835, 10_850).len(), 2);
}
