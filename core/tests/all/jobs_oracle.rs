//! The job table against a naive model that looks at every interval of every job at every tick: refreshes, commits,
//! aborts, failed accounts, tables too small, overload, overlap, deadlines, clocks that stand still or jump.

use super::jobs_common::{Boxed, Inline, Memory, Random, Room, every, for_seeds};
use grafolean_core::jobs::{
    Completed, Due, InsertError, JobCounters, JobEvent, JobKey, JobSpec, Phase, RunId,
};
use grafolean_core::table::Staged;
use grafolean_core::time::{Millis, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// FNV-1a 64 as the rules say it, once more.
fn hash(key: &JobKey) -> u64 {
    let ids = [key.account, key.entity, key.item].map(u64::to_le_bytes);
    let bytes = ids.as_flattened().iter().chain(key.name.as_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

#[derive(Clone, Debug)]
struct Run {
    id: RunId,
    key: JobKey,
    deadline: u64,
    told: bool,
    /// Its job has been removed since.
    removed: bool,
}

#[derive(Clone, Debug)]
struct Job {
    slot: u32,
    intervals: Vec<u32>,
    spec: JobSpec<u32>,
    start: u64,
    extra: Option<u64>,
    all_at_first: bool,
    pending: BTreeSet<u32>,
    scheduled: u64,
    instants: u32,
}

impl Job {
    fn due_at(&self, tick: u64) -> Vec<u32> {
        let fires = |i: &&u32| (i128::from(tick) - i128::from(self.start)).rem_euclid(i128::from(**i)) == 0;
        self.intervals.iter().filter(fires).copied().collect()
    }

    fn next_on_grid(&self, after: u64) -> u64 {
        (after + 1..).find(|&t| !self.due_at(t).is_empty()).unwrap()
    }
}

#[derive(Clone, Debug)]
struct Model {
    room: Room,
    now: u64,
    position: u64,
    jobs: BTreeMap<JobKey, Job>,
    runs: Vec<Run>,
    counters: JobCounters,
    named: Vec<JobKey>,
    staged: Vec<(JobKey, JobSpec<u32>)>,
    deferred: u32,
}

fn entries(set: &BTreeMap<JobKey, Vec<u32>>) -> usize {
    set.values().map(Vec::len).sum()
}

fn distinct(set: &BTreeMap<JobKey, Vec<u32>>) -> BTreeSet<u32> {
    set.values().flatten().copied().collect()
}

impl Model {
    fn new(room: Room) -> Self {
        Model {
            room,
            now: 0,
            position: 0,
            jobs: BTreeMap::new(),
            runs: Vec::new(),
            counters: JobCounters::default(),
            named: Vec::new(),
            staged: Vec::new(),
            deferred: 0,
        }
    }

    fn is_running(&self, key: &JobKey) -> bool {
        self.runs.iter().any(|r| r.key == *key)
    }

    fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        while self.position < self.now / 1000 {
            self.position += 1;
            let t = self.position;
            for job in self.jobs.values_mut() {
                let mut due: BTreeSet<u32> = job.due_at(t).into_iter().collect();
                let instants = u32::from(due.first() == job.intervals.first() && !due.is_empty());
                if job.extra == Some(t) || (job.all_at_first && !due.is_empty()) {
                    due.extend(&job.intervals);
                    job.all_at_first = false;
                    job.extra = None;
                }
                if due.is_empty() {
                    continue;
                }
                if job.pending.is_empty() {
                    job.scheduled = t;
                    job.instants = 0;
                }
                job.pending.extend(due);
                job.instants += instants;
            }
        }
    }

    fn ready(&self) -> Option<&Job> {
        let ready = self.jobs.values().filter(|j| !j.pending.is_empty() && !self.is_running(&j.spec.key));
        ready.min_by_key(|j| (j.scheduled, j.slot))
    }

    /// What the next run must look like; `id` is the table's to choose.
    fn next_run(&mut self, now: u64, id: Option<RunId>) -> Option<Due> {
        self.now = self.now.max(now);
        if self.runs.len() == self.room.running {
            return None;
        }
        let key = self.ready()?.spec.key;
        let job = self.jobs.get_mut(&key)?;
        let allowed = match job.spec.deadline_ms {
            Some(ms) => u64::from(ms),
            None => (u64::from(job.intervals[0]) * 1000).clamp(10_000, 300_000),
        };
        let run = id.expect("a run is due");
        assert_eq!(run.slot, job.slot);
        assert!(
            (run.place as usize) < self.room.running && self.runs.iter().all(|r| r.id.place != run.place)
        );
        let mut affecting = grafolean_core::interval::Affecting::NONE;
        for (bit, i) in job.intervals.iter().enumerate() {
            if job.pending.contains(i) {
                affecting.set(bit);
            }
        }
        let missed = job.instants.saturating_sub(1);
        let due = Due {
            run,
            key,
            intervals: job.spec.intervals,
            affecting,
            scheduled: Tick(job.scheduled),
            late_ms: self.now - job.scheduled * 1000,
            missed,
            deadline: Millis(self.now + allowed),
        };
        job.pending.clear();
        job.instants = 0;
        self.counters.runs += 1;
        self.counters.missed += missed;
        self.counters.coalesced += u32::from(missed > 0);
        self.runs.push(Run { id: run, key, deadline: self.now + allowed, told: false, removed: false });
        Some(due)
    }

    fn complete(&mut self, id: RunId) -> Option<Completed> {
        let at = self.runs.iter().position(|r| r.id == id)?;
        let run = self.runs.remove(at);
        Some(Completed { key: run.key, cancelled: run.told, removed: run.removed })
    }

    fn expired(&mut self, now: u64) -> Option<RunId> {
        self.now = self.now.max(now);
        let over = self.runs.iter_mut().filter(|r| !r.told && r.deadline <= self.now);
        let run = over.min_by_key(|r| (r.deadline, r.id.place))?;
        run.told = true;
        self.counters.cancelled += 1;
        Some(run.id)
    }

    fn poll_timeout(&self) -> Option<u64> {
        let deadline = self.runs.iter().filter(|r| !r.told).map(|r| r.deadline).min();
        let due = if self.runs.len() == self.room.running {
            None
        } else if self.ready().is_some() {
            Some(self.now)
        } else {
            let next = |j: &Job| j.next_on_grid(self.position).min(j.extra.unwrap_or(u64::MAX));
            self.jobs.values().map(next).min().map(|t| t * 1000)
        };
        deadline.into_iter().chain(due).min()
    }

    fn begin(&mut self) {
        self.named.clear();
        self.staged.clear();
        self.deferred = 0;
    }

    fn keep(&mut self, key: JobKey) -> bool {
        let live = self.jobs.contains_key(&key);
        if live && !self.named.contains(&key) {
            self.named.push(key);
        }
        live
    }

    /// Whether and why it is not staged, apart from slots.
    fn upsert(&mut self, spec: JobSpec<u32>) -> Result<&'static str, &'static str> {
        let key = spec.key;
        if spec.intervals.is_empty() {
            return Err("no intervals");
        }
        if self.named.contains(&key) {
            return Err("duplicate");
        }
        let live = self.jobs.get(&key);
        let free = self.room.jobs + self.room.spare - self.jobs.len() - self.staged.len();
        if live.is_some_and(|l| l.spec == spec) {
            self.named.push(key);
            return Ok("same");
        }
        if live.is_none() && self.named.len() >= self.room.jobs {
            return Err("jobs");
        }
        if free == 0 {
            self.deferred += 1;
            if live.is_some() {
                self.named.push(key);
            }
            return Err("no spare");
        }
        let change = if live.is_some() { "changed" } else { "new" };
        self.named.push(key);
        self.staged.push((key, spec));
        Ok(change)
    }

    fn fits(&self, set: &BTreeMap<JobKey, Vec<u32>>) -> Result<(), &'static str> {
        if set.len() > self.room.jobs {
            Err("jobs")
        } else if entries(set) > self.room.entries {
            Err("entries")
        } else if distinct(set).len() > self.room.classes {
            Err("distinct")
        } else {
            Ok(())
        }
    }

    /// The keys that are refused, why, and those that come, change, and go.
    #[allow(clippy::type_complexity)]
    fn commit(
        &mut self,
        now: u64,
        failed: &BTreeSet<u64>,
        slots: &BTreeMap<JobKey, u32>,
    ) -> (Vec<(JobKey, &'static str)>, Vec<(JobKey, bool)>, Vec<JobKey>, u32) {
        self.advance(now);
        let n = self.position;
        // Who goes.
        let gone: Vec<JobKey> = self
            .jobs
            .keys()
            .filter(|k| !failed.contains(&k.account) && !self.named.contains(k))
            .copied()
            .collect();
        for key in &gone {
            self.jobs.remove(key);
            for run in self.runs.iter_mut().filter(|r| r.key == *key) {
                run.removed = true;
            }
        }
        // What fits.
        let staged: Vec<_> = self.staged.drain(..).filter(|(k, _)| !failed.contains(&k.account)).collect();
        let mut set: BTreeMap<JobKey, Vec<u32>> =
            self.jobs.iter().map(|(k, j)| (*k, j.intervals.clone())).collect();
        let mut all = set.clone();
        all.extend(staged.iter().map(|(k, s)| (*k, s.intervals.as_slice().to_vec())));
        let mut refused = Vec::new();
        let mut taken = staged.clone();
        if self.fits(&all).is_err() {
            for new in [false, true] {
                for (key, spec) in &staged {
                    if self.jobs.contains_key(key) == new {
                        continue;
                    }
                    let mut with = set.clone();
                    with.insert(*key, spec.intervals.as_slice().to_vec());
                    match self.fits(&with) {
                        Ok(()) => set = with,
                        Err(why) => refused.push((*key, why)),
                    }
                }
            }
            taken.retain(|(k, _)| refused.iter().all(|(r, _)| r != k));
        }
        // Phases and pending bits.
        let mut eager = Vec::new();
        let mut changes = Vec::new();
        for (key, spec) in &taken {
            let intervals = spec.intervals.as_slice().to_vec();
            let start = match spec.phase {
                Phase::Aligned(start) => start.0,
                Phase::Spread => hash(key) % u64::from(*intervals.last().unwrap()),
            };
            let mut job = Job {
                slot: slots.get(key).copied().unwrap_or(u32::MAX),
                intervals,
                spec: *spec,
                start,
                extra: None,
                all_at_first: false,
                pending: BTreeSet::new(),
                scheduled: 0,
                instants: 0,
            };
            let first_runs = spec.phase == Phase::Spread && spec.first_run;
            if let Some(old) = self.jobs.get(key) {
                changes.push((*key, old.intervals != job.intervals));
                if old.intervals == job.intervals {
                    job = Job { spec: *spec, ..old.clone() };
                } else {
                    let upcoming = |j: &Job| match j.pending.is_empty() {
                        true => j.next_on_grid(n).min(j.extra.unwrap_or(u64::MAX)),
                        false => j.scheduled,
                    };
                    job.slot = old.slot;
                    job.pending = old.pending.iter().filter(|i| job.intervals.contains(i)).copied().collect();
                    job.scheduled = old.scheduled;
                    job.all_at_first = old.all_at_first;
                    if old.intervals[0] == job.intervals[0] {
                        job.instants = old.instants;
                    }
                    if old.all_at_first {
                        job.extra = Some(upcoming(old)).filter(|e| *e < job.next_on_grid(n));
                    }
                    if first_runs && upcoming(&job) > upcoming(old) {
                        eager.push(*key);
                    }
                }
            } else if first_runs {
                eager.push(*key);
            }
            self.jobs.insert(*key, job);
        }
        // First runs.
        let rate: u128 = self.jobs.values().map(|j| u128::from(1_000_000_000 / j.intervals[0])).sum();
        let floor = u128::from(self.room.floor_per_s) * 1_000_000_000;
        let gentle = (eager.len() as u128 * 1_000_000_000 / rate.max(floor)).max(60);
        for key in eager {
            let job = self.jobs.get_mut(&key).unwrap();
            let w = gentle.min(u128::from(job.intervals[0])) as u64;
            let extra = n + 1 + hash(&key) % w;
            job.all_at_first = true;
            job.extra = if job.next_on_grid(n) <= n + w { None } else { Some(extra) };
        }
        self.named.clear();
        (refused, changes, gone, std::mem::take(&mut self.deferred))
    }
}

const NAMES: [&str; 2] = ["", "upkeep"];

fn random_spec(r: &mut Random, keys: u64, now: u64, pool: &[u32]) -> JobSpec<u32> {
    let key = JobKey { account: r.below(3), entity: r.below(keys), item: r.below(2), name: r.pick(&NAMES) };
    let count = if r.one_in(4) { r.below(9) } else { 1 + r.below(2) };
    let intervals = every(&(0..count).map(|_| r.pick(pool)).collect::<Vec<_>>());
    let phase = if r.one_in(3) { Phase::Aligned(Tick(r.below(now / 1000 + 100))) } else { Phase::Spread };
    let deadline_ms = if r.one_in(3) { Some(r.below(30_000) as u32) } else { None };
    JobSpec { key, intervals, phase, first_run: !r.one_in(4), deadline_ms, params: r.below(3) as u32 }
}

fn why(error: &InsertError) -> (&'static str, JobKey, usize) {
    match *error {
        InsertError::NoIntervals { key } => ("no intervals", key, 0),
        InsertError::Duplicate { key, .. } => ("duplicate", key, 0),
        InsertError::Jobs { key, capacity } => ("jobs", key, capacity),
        InsertError::Entries { key, capacity } => ("entries", key, capacity),
        InsertError::DistinctIntervals { key, capacity, .. } => ("distinct", key, capacity),
        InsertError::NoSpare { key } => ("no spare", key, 0),
        _ => panic!("{error}"),
    }
}

/// Drives table and model through the same operations; what the table told.
fn drive(seed: u64, memory: &mut impl Memory<u32>, steps: usize) -> Vec<String> {
    let room = memory.room();
    let mut r = Random::new(seed);
    let mut model = Model::new(room);
    let mut told = Vec::new();
    let mut over: Vec<RunId> = Vec::new();
    let mut now = r.pick(&[0, 999, 86_399_000, 4_294_967_295_000, 1_700_000_000_123]);
    let pool: &[u32] = r.pick(&[&[1, 2, 3, 60][..], &[5, 10, 15, 60, 300, 7, 61], &[60, 90, 300, 600]]);
    let keys = 1 + room.jobs as u64 / r.pick(&[2, 6, 12]);
    let capacity_of = |why: &str| match why {
        "jobs" => room.jobs,
        "entries" => room.entries,
        "distinct" => room.classes,
        _ => 0,
    };
    // The clock begins anywhere; an empty table has nothing to say to that, a model that ticks shall not walk there.
    memory.table().advance(Millis(now));
    (model.now, model.position) = (now, now / 1000);
    for _ in 0..steps {
        match r.below(12) {
            0 => {
                let mut jobs = memory.table();
                jobs.begin();
                model.begin();
                let live: Vec<_> = model.jobs.values().map(|j| j.spec).collect();
                let churn = r.pick(&[0, 2, 5]);
                for spec in live {
                    let fresh = random_spec(&mut r, keys, now, pool);
                    let spec = match r.below(10) {
                        0..5 => Some(spec),
                        5 | 6 if churn == 5 => None,
                        5..8 if churn > 0 => Some(JobSpec { key: spec.key, ..fresh }),
                        8 => Some(JobSpec { params: fresh.params, ..spec }),
                        _ => {
                            assert_eq!(jobs.keep(&spec.key), model.keep(spec.key));
                            None
                        }
                    };
                    if let Some(spec) = spec {
                        name(&mut jobs, &mut model, spec, &mut told);
                    }
                }
                for _ in 0..r.below(room.jobs as u64 / 2 + 2) {
                    let spec = random_spec(&mut r, keys, now, pool);
                    name(&mut jobs, &mut model, spec, &mut told);
                }
                if r.one_in(6) {
                    jobs.abort();
                    model.begin();
                } else {
                    let failed: BTreeSet<u64> = (0..3).filter(|_| r.one_in(6)).collect();
                    let mut events = Vec::new();
                    let done = jobs.commit(Millis(now), |a| failed.contains(&a), |e| events.push(e));
                    told.push(format!("{events:?}"));
                    let mut slots = BTreeMap::new();
                    for e in &events {
                        if let JobEvent::Added { slot, key } = e {
                            slots.insert(*key, *slot);
                        }
                    }
                    let expected = model.commit(now, &failed, &slots);
                    let (mut refused, mut changed, mut gone, mut last) =
                        (Vec::new(), Vec::new(), Vec::new(), None);
                    for e in events {
                        let slot = match e {
                            JobEvent::Refused(error) => {
                                let (why, key, capacity) = why(&error);
                                assert_eq!(capacity, capacity_of(why));
                                assert_eq!(last, None, "what is refused comes first");
                                refused.push((key, why));
                                continue;
                            }
                            JobEvent::Added { slot, .. } => slot,
                            JobEvent::Changed { slot, key, rescheduled } => {
                                changed.push((key, rescheduled));
                                slot
                            }
                            JobEvent::Removed { slot, key } => {
                                gone.push(key);
                                slot
                            }
                            _ => panic!("{e:?}"),
                        };
                        assert!(last.is_none_or(|l| l < slot), "by ascending slot");
                        last = Some(slot);
                    }
                    let (mut expected_changes, mut expected_gone) = (expected.1, expected.2);
                    expected_changes.sort_unstable();
                    expected_gone.sort_unstable();
                    changed.sort_unstable();
                    gone.sort_unstable();
                    let counts = (done.added, done.changed, done.removed, done.refused, done.deferred);
                    let lens = [slots.len(), changed.len(), gone.len(), refused.len()].map(|n| n as u32);
                    assert_eq!(counts, (lens[0], lens[1], lens[2], lens[3], expected.3));
                    assert_eq!((refused, changed, gone), (expected.0, expected_changes, expected_gone));
                }
            }
            1 => {
                // Outside of a refresh.
                let spec = random_spec(&mut r, keys, now, pool);
                let mut jobs = memory.table();
                if r.one_in(3) {
                    model.begin();
                    let there = model.jobs.contains_key(&spec.key);
                    for key in model.jobs.keys().copied().filter(|k| *k != spec.key).collect::<Vec<_>>() {
                        model.keep(key);
                    }
                    model.commit(now, &BTreeSet::new(), &BTreeMap::new());
                    assert_eq!(jobs.remove(Millis(now), &spec.key), there);
                } else {
                    model.begin();
                    for key in model.jobs.keys().copied().filter(|k| *k != spec.key).collect::<Vec<_>>() {
                        model.keep(key);
                    }
                    let expected = model.upsert(spec);
                    let got = jobs.insert(Millis(now), spec);
                    let slot = jobs.get(&spec.key).map(|(slot, _)| (spec.key, slot));
                    match expected {
                        Err(e) => {
                            model.begin();
                            assert_eq!(got.map_err(|e| why(&e).0), Err(e));
                        }
                        Ok(_) => {
                            let slots = slot.into_iter().collect();
                            let refused = model.commit(now, &BTreeSet::new(), &slots).0;
                            assert_eq!(got.err().map(|e| why(&e).0), refused.first().map(|r| r.1));
                        }
                    }
                }
            }
            2..=5 => {
                // Time: ticks, a little, a late jump, and now and then a clock that goes back.
                let step = match r.below(12) {
                    0 => r.below(2_000_000),
                    1 => r.below(100_000),
                    2..5 => r.below(3),
                    _ => r.below(2_500),
                };
                now += step;
                let shown = if r.one_in(10) { now.saturating_sub(r.below(5_000_000)) } else { now };
                memory.table().advance(Millis(shown));
                model.advance(shown);
                now = model.now;
            }
            6..=8 => {
                let mut jobs = memory.table();
                for _ in 0..r.below(6) {
                    let got = jobs.next_run(Millis(now));
                    let expected = model.next_run(now, got.map(|d| d.run));
                    assert_eq!(got, expected);
                    told.push(format!("{got:?}"));
                    if let Some(due) = got {
                        assert_eq!(jobs.params(due.run), Some(&model.jobs[&due.key].spec.params));
                        assert!(jobs.is_running(due.run));
                    }
                }
            }
            9 | 10 => {
                for _ in 0..r.below(4) {
                    let id = if r.one_in(3) || model.runs.is_empty() {
                        // A late completion, or one that never was.
                        let none = RunId { slot: 0, generation: 0, run: 0, place: 0 };
                        if over.is_empty() { none } else { r.pick(&over) }
                    } else {
                        model.runs[r.below(model.runs.len() as u64) as usize].id
                    };
                    let got = memory.table().complete(id);
                    assert_eq!(got, model.complete(id));
                    told.push(format!("{got:?}"));
                    over.push(id);
                }
            }
            _ => {
                let mut jobs = memory.table();
                loop {
                    let got = jobs.expired(Millis(now));
                    assert_eq!(got, model.expired(now));
                    told.push(format!("{got:?}"));
                    if got.is_none() {
                        break;
                    }
                }
            }
        }
        let jobs = memory.table();
        assert_eq!(jobs.counters(), model.counters);
        assert_eq!(jobs.running(), model.runs.len());
        let waiting = |j: &&Job| !j.pending.is_empty() && !model.is_running(&j.spec.key);
        assert_eq!(jobs.ready(), model.jobs.values().filter(waiting).count());
        assert_eq!(jobs.poll_timeout().map(|t| t.0), model.poll_timeout());
        let mut live: Vec<_> = jobs.iter().map(|(slot, key, params)| (*key, slot, *params)).collect();
        live.sort_unstable();
        let expected: Vec<_> = model.jobs.iter().map(|(k, j)| (*k, j.slot, j.spec.params)).collect();
        assert_eq!(live, expected);
        assert_eq!((jobs.len(), jobs.capacity()), (model.jobs.len(), room.jobs));
        for run in &model.runs {
            let params = jobs.params(run.id);
            assert_eq!(params.is_none(), run.removed);
        }
    }
    told
}

fn name(
    jobs: &mut grafolean_core::jobs::JobTable<'_, u32, super::Entry>,
    model: &mut Model,
    spec: JobSpec<u32>,
    told: &mut Vec<String>,
) {
    let got = jobs.upsert(spec);
    told.push(format!("{got:?}"));
    if let Err(InsertError::Duplicate { key, first }) = got
        && let Some(job) = model.jobs.get(&key)
    {
        assert_eq!(first, job.slot);
    }
    let got = got.map_err(|e| {
        assert_eq!(why(&e).1, spec.key);
        why(&e).0
    });
    let got = got.map(|staged| match staged {
        Staged::Same(_) => "same",
        Staged::New(_) => "new",
        Staged::Changed(_) => "changed",
    });
    assert_eq!(got, model.upsert(spec));
}

#[test]
fn a_table_in_inline_arrays_runs_as_the_model_does() {
    for_seeds(30, |seed| {
        drive(seed, &mut Inline::new(), 250);
    });
}

#[test]
fn a_table_on_the_heap_runs_as_the_model_does() {
    for_seeds(25, |seed| {
        let mut r = Random::new(!seed);
        let room = Room {
            jobs: 1 + r.below(40) as usize,
            spare: 1 + r.below(20) as usize,
            entries: 10 + r.below(80) as usize,
            classes: 2 + r.below(8) as usize,
            running: r.below(12) as usize,
            floor_per_s: r.pick(&[1, 50]),
        };
        drive(seed, &mut Boxed::new(room), 200);
    });
}

#[test]
fn the_same_calls_give_the_same_runs_wherever_the_memory_lies() {
    for_seeds(5, |seed| {
        let inline = drive(seed, &mut Inline::new(), 150);
        assert_eq!(inline, drive(seed, &mut Inline::new(), 150));
        assert_eq!(inline, drive(seed, &mut Boxed::new(Inline::<u32>::ROOM), 150));
    });
}

#[test]
fn first_runs_of_a_crowd_are_spread_by_the_rate_of_the_table_through_all_its_changes() {
    for_seeds(2, |seed| {
        let mut r = Random::new(seed);
        let room = Room { jobs: 1200, spare: 1200, entries: 1200, classes: 4, running: 1, floor_per_s: 1 };
        let mut memory = Boxed::new(room);
        let mut model = Model::new(room);
        let mut now = 1_000 * r.below(100_000);
        memory.table().advance(Millis(now));
        (model.now, model.position) = (now, now / 1000);
        let mut beyond_a_minute = 0;
        for _ in 0..6 {
            let mut jobs = memory.table();
            jobs.begin();
            model.begin();
            let wanted = 200 + r.below(1000);
            for entity in 0..wanted {
                let key = JobKey::new(1, entity);
                let spec = match model.jobs.get(&key) {
                    Some(job) if !r.one_in(4) => job.spec,
                    _ => JobSpec::spread(key, every(&[r.pick(&[250, 300, 600, 900])]), 0),
                };
                let _ = (jobs.upsert(spec), model.upsert(spec));
            }
            let mut slots = BTreeMap::new();
            jobs.commit(
                Millis(now),
                |_| false,
                |e| {
                    if let JobEvent::Added { slot, key } = e {
                        slots.insert(key, slot);
                    }
                },
            );
            model.commit(now, &BTreeSet::new(), &slots);
            for (key, job) in &model.jobs {
                let next = job.next_on_grid(model.position).min(job.extra.unwrap_or(u64::MAX));
                assert_eq!(
                    jobs.next_instant(key).map(|t| t.0),
                    job.pending.is_empty().then_some(next),
                    "{key}"
                );
                beyond_a_minute += u32::from(job.extra.is_some_and(|e| e > model.position + 60));
            }
            now += 1_000 * r.below(50);
            jobs.advance(Millis(now));
            model.advance(now);
        }
        assert!(beyond_a_minute > 0, "the rate never mattered");
    });
}
