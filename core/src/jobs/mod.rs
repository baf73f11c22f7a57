//! Keyed jobs on a schedule: what a refresh names runs at its instants, late but never lost, never twice at once.
//!
//! ```
//! use grafolean_core::interval::{Interval, Intervals};
//! use grafolean_core::jobs::{JobKey, JobSpec, JobTable, JobsMem, JobsState, Progress, Running};
//! use grafolean_core::schedule::{Class, Entry, Extra};
//! use grafolean_core::table::{NONE, Slot};
//! use grafolean_core::time::{Millis, Tick};
//!
//! let mut state = JobsState::new(1);
//! let (mut slots, mut heads, mut progress) = ([const { Slot::EMPTY }; 3], [NONE; 2], [Progress::EMPTY; 3]);
//! let (mut ready, mut extras, mut entries) = ([0; 3], [Extra::EMPTY; 3], [Entry::EMPTY; 4]);
//! let (mut classes, mut running) = ([Class::EMPTY; 2], [Running::EMPTY; 1]);
//! let mut jobs = JobTable::new(&mut state, JobsMem {
//!     slots: &mut slots, heads: &mut heads, spare: 1, progress: &mut progress, ready: &mut ready,
//!     extras: &mut extras, entries: &mut entries, classes: &mut classes, running: &mut running,
//! });
//! let minute = Intervals::one(Interval::new(60)?);
//! jobs.begin();
//! jobs.upsert(JobSpec::aligned(JobKey::new(1, 2), minute, Tick(0), "thermometer"))?;
//! jobs.commit(Millis(0), |_account| false, |_event| {});
//! jobs.advance(Millis(60_250));
//! let due = jobs.next_run(Millis(60_250)).ok_or("not due")?;
//! assert_eq!((due.scheduled, due.late_ms, jobs.params(due.run)), (Tick(60), 250, Some(&"thermometer")));
//! assert!(jobs.complete(due.run).is_some());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Rules
//! A job fires at `start + k · interval` for each of its intervals. What falls due while it waits or runs is
//! *pending*: a set of intervals, the earliest instant, and how many instants of the shortest interval. A run takes
//! all that is pending. The ready queue is ordered by (scheduled instant, slot); a job that waits keeps its place.
//!
//! *Missed* is the number of instants of the shortest interval that a run stands for, less one (not below 0); an
//! extra first run is none of them. The count begins anew if the shortest interval changes.
//!
//! *First runs*: a new job under [`Phase::Spread`] runs once within W seconds of its commit at tick n: at
//! `n + 1 + hash(key) mod W`, unless its grid has an instant up to n + W; then that is its first run. Either way
//! the first run has all intervals affecting. W = min(shortest interval, max(60 s, X / max(R, F))) in whole seconds,
//! X being the number of jobs of this commit that are to have a first run, R the sum over all jobs after
//! commit of 1 / shortest interval, in steps of 10⁻⁹/s, and F a floor ([`JobsState::new`]). (R is exact where longer
//! intervals are multiples of the shortest; otherwise the table runs a little more often than that and W is longer.)
//! A grid instant anywhere in the window, not only before the extra one, makes the extra run needless: jobs of 15 s
//! would otherwise run at twice their rate in the first seconds of a table.
//!
//! A job whose intervals change and whose next instant is later than it was has a first run likewise; if it still
//! waits for one, that comes when it was to come, so that no frequency of changes puts it off for ever.
//!
//! An unchanged set of intervals keeps its grid, whatever [`JobSpec::phase`] says then.
//!
//! *What fits* is judged at commit, against what would be there after it. If not all that was named fits, those
//! that are live already come first: each changed one in the order of naming gets its new intervals, or keeps its old
//! ones; then new ones in the order of naming, each if it fits.
//!
//! A job that is removed while it runs ends its run. If its key comes again meanwhile, the new job waits for that
//! end before its own first run.
//!
//! # Cost
//! [`JobTable::advance`]: as [`Schedule::advance`], plus sorting what has become ready. [`JobTable::next_run`],
//! [`JobTable::complete`], [`JobTable::expired`]: O(log of the runs under way); a job that ends a run with something
//! pending also moves the shorter part of the ready queue. [`JobTable::commit`]: a few looks at each slot; only if
//! intervals differ or jobs come or go, also one move of the entries of the schedule.

mod key;
mod ready;
mod running;
mod types;

pub use key::JobKey;
pub use running::Running;
pub use types::{Completed, Due, InsertError, JobCounters, JobEvent, JobSpec, Phase, RunId};

use core::fmt;

use crate::interval::{Affecting, Intervals};
use crate::schedule::{
    Class, Entry, EntryFormat, Extra, Fired, Schedule, ScheduleError, ScheduleMem, ScheduleState,
    next_instant,
};
use crate::table::{Change, Committed, NONE, Slot, StageError, Staged, Table, TableMem, TableState};
use crate::time::{Millis, Tick};
use ready::{Ready, ReadyState};
use running::{RunningSet, RunningState};

/// A first run comes within this many seconds, unless so many jobs get one that they would be a stampede.
pub const FIRST_RUN_WITHIN_S: u32 = 60;
/// Bounds of a default deadline, in milliseconds.
pub const DEFAULT_DEADLINE_MS: core::ops::RangeInclusive<u32> = 10_000..=300_000;
/// 1 run/s in the unit in which rates are added up.
const PER_SECOND: u64 = 1_000_000_000;

/// A job in the table.
#[derive(Clone)]
pub struct Job<J> {
    intervals: Intervals,
    phase: Phase,
    first_run: bool,
    deadline_ms: Option<u32>,
    params: J,
    start: Tick,
    /// The tick of its extra first run; past or 0 if there is none to come.
    extra: u64,
    /// Staged: the one staged next.
    next_staged: u32,
}

impl<J> fmt::Debug for Job<J> {
    /// Without the parameters, which can hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("intervals", &self.intervals)
            .field("phase", &self.phase)
            .field("deadline_ms", &self.deadline_ms)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl<J> Job<J> {
    fn rate(&self) -> u64 {
        u64::from(PER_SECOND as u32 / self.intervals.shortest().max(1))
    }

    fn allowed_ms(&self) -> u64 {
        let default = || {
            let shortest_ms = u64::from(self.intervals.shortest()) * 1000;
            shortest_ms.clamp(u64::from(*DEFAULT_DEADLINE_MS.start()), u64::from(*DEFAULT_DEADLINE_MS.end()))
        };
        self.deadline_ms.map_or_else(default, u64::from)
    }
}

impl<J: PartialEq> Job<J> {
    fn same(&self, other: &Self) -> bool {
        self.intervals == other.intervals
            && self.phase == other.phase
            && self.first_run == other.first_run
            && self.deadline_ms == other.deadline_ms
            && self.params == other.params
    }
}

/// Room for one job in the table.
pub type JobSlot<J> = Slot<JobKey, Job<J>>;

/// What is pending at a slot. 16 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The earliest instant that is pending.
    scheduled: Tick,
    /// How many instants of the shortest interval are pending; begins anew when something gets pending.
    instants: u32,
    pending: Affecting,
    all: Affecting,
    flags: u8,
}

/// A run is under way.
const RUNS: u8 = 1;
/// Whatever falls due next has all intervals affecting.
const FIRST: u8 = 2;
/// Commit: its entries leave the schedule.
const LEAVES: u8 = 4;
/// Commit: its entries are to be put into the schedule.
const ENTERS: u8 = 8;
/// Commit: it is to get an extra run, unless its grid comes first.
const WANTS_EXTRA: u8 = 16;

impl Progress {
    /// Nothing yet.
    pub const EMPTY: Self = Progress {
        scheduled: Tick(0),
        instants: 0,
        pending: Affecting::NONE,
        all: Affecting::NONE,
        flags: 0,
    };

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The memory of a job table. It may grow between calls (what is there stays at the same index), never shrink.
#[derive(Debug)]
pub struct JobsMem<'a, J, E: EntryFormat = Entry> {
    /// One for each job, spare ones included.
    pub slots: &'a mut [JobSlot<J>],
    /// Heads of the hash chains: about one per slot, filled with [`NONE`].
    pub heads: &'a mut [u32],
    /// How many of the slots are for staging only; at least 1.
    pub spare: usize,
    /// As many as slots.
    pub progress: &'a mut [Progress],
    /// As many as slots.
    pub ready: &'a mut [E::Number],
    /// As many as slots.
    pub extras: &'a mut [Extra],
    /// One for each interval of each job (by default twice the jobs on a board, four times on a host).
    pub entries: &'a mut [E],
    /// One for each distinct interval.
    pub classes: &'a mut [Class],
    /// As many as may run at once.
    pub running: &'a mut [Running],
}

/// What a job table remembers besides its memory.
#[derive(Clone, Debug)]
pub struct JobsState {
    table: TableState,
    schedule: ScheduleState,
    ready: ReadyState,
    running: RunningState,
    rest: Rest,
}

#[derive(Clone, Debug)]
struct Rest {
    now: Millis,
    first_staged: u32,
    last_staged: u32,
    /// A refresh is under way.
    open: bool,
    /// Runs whose job has been removed may be under way.
    orphans: bool,
    /// The sum of the jobs' rates.
    rate: u64,
    floor_per_s: u32,
    counters: JobCounters,
}

impl JobsState {
    /// An empty table. `floor_per_s` is F of the first runs: 1 run/s on a board, 50 on a host; 0 counts as 1.
    #[must_use]
    pub const fn new(floor_per_s: u32) -> Self {
        JobsState {
            table: TableState::new(),
            schedule: ScheduleState::new(),
            ready: ReadyState::new(),
            running: RunningState::new(),
            rest: Rest {
                now: Millis(0),
                first_staged: NONE,
                last_staged: NONE,
                open: false,
                orphans: false,
                rate: 0,
                floor_per_s: if floor_per_s == 0 { 1 } else { floor_per_s },
                counters: JobCounters { runs: 0, cancelled: 0, missed: 0, coalesced: 0 },
            },
        }
    }

    /// What has happened since the table was made.
    #[must_use]
    pub const fn counters(&self) -> JobCounters {
        self.rest.counters
    }
}

/// A job table for the time of a call: its state and its memory.
///
/// Times that are earlier than the last one count as the last one. `E` is the format of the schedule's entries.
#[derive(Debug)]
pub struct JobTable<'a, J, E: EntryFormat = Entry> {
    table: Table<'a, JobKey, Job<J>>,
    schedule: Schedule<'a, E>,
    ready: Ready<'a, E::Number>,
    running: RunningSet<'a>,
    progress: &'a mut [Progress],
    rest: &'a mut Rest,
}

impl<'a, J: PartialEq, E: EntryFormat> JobTable<'a, J, E> {
    /// The table of `state` in `mem`. O(1), unless the memory has grown. The shortest of the slices that must be as
    /// long as `slots` sets how many slots there are, or [`EntryFormat::MAX_SLOTS`], if that is less.
    #[must_use]
    pub fn new(state: &'a mut JobsState, mem: JobsMem<'a, J, E>) -> Self {
        let JobsMem { slots, heads, spare, progress, ready, extras, entries, classes, running } = mem;
        let lengths = [progress.len(), ready.len(), extras.len(), E::MAX_SLOTS as usize];
        let n = lengths.into_iter().fold(slots.len(), usize::min);
        let table_mem = TableMem { slots: slots.get_mut(..n).unwrap_or(&mut []), heads, spare: spare.max(1) };
        JobTable {
            table: Table::new(&mut state.table, table_mem),
            schedule: Schedule::new(&mut state.schedule, ScheduleMem { entries, classes, extras }),
            ready: Ready::new(&mut state.ready, ready),
            running: RunningSet::new(&mut state.running, running),
            progress,
            rest: &mut state.rest,
        }
    }

    /// Live jobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no live job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many jobs it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Runs under way.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Jobs that are due and wait.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// What has happened since the table was made.
    #[must_use]
    pub fn counters(&self) -> JobCounters {
        self.rest.counters
    }

    /// Slot and parameters of a live job.
    #[must_use]
    pub fn get(&self, key: &JobKey) -> Option<(u32, &J)> {
        let slot = self.table.find(key)?;
        Some((slot, &self.table.get(slot)?.params))
    }

    /// The parameters of the job of this run, as they are now; `None` if it has been removed.
    #[must_use]
    pub fn params(&self, run: RunId) -> Option<&J> {
        let job = self.table.get(run.slot)?;
        (self.table.generation(run.slot) == run.generation).then_some(&job.params)
    }

    /// Live jobs by ascending slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &JobKey, &J)> {
        self.table.iter().map(|(slot, key, job)| (slot, key, &job.params))
    }

    /// The next instant of a live job, if nothing of it is pending. O(its intervals), with divisions.
    #[must_use]
    pub fn next_instant(&self, key: &JobKey) -> Option<Tick> {
        let slot = self.table.find(key)?;
        let (job, progress) = (self.table.get(slot)?, self.progress.get(slot as usize)?);
        if progress.pending.is_empty() { self.next_of(job) } else { None }
    }

    fn next_of(&self, job: &Job<J>) -> Option<Tick> {
        let position = self.schedule.position();
        let grid = next_instant(&job.intervals, job.start, position)?;
        Some(if job.extra > position.0 { grid.min(Tick(job.extra)) } else { grid })
    }

    // ---- refresh ----

    /// Begins a refresh; one that was under way is aborted.
    pub fn begin(&mut self) {
        self.abort();
        self.rest.open = true;
    }

    /// Ends the refresh: nothing has happened.
    pub fn abort(&mut self) {
        self.table.abort();
        self.rest.first_staged = NONE;
        self.rest.last_staged = NONE;
        self.rest.open = false;
    }

    /// Names a job of the refresh, which begins if none is under way. Until [`Self::commit`] nothing has happened.
    ///
    /// # Errors
    /// [`InsertError`], but whether its intervals have room in the schedule is judged at commit
    /// ([`JobEvent::Refused`]).
    pub fn upsert(&mut self, spec: JobSpec<J>) -> Result<Staged, InsertError> {
        if !self.rest.open {
            self.begin();
        }
        let JobSpec { key, intervals, phase, first_run, deadline_ms, params } = spec;
        if intervals.is_empty() {
            return Err(InsertError::NoIntervals { key });
        }
        let job = Job {
            intervals,
            phase,
            first_run,
            deadline_ms,
            params,
            start: Tick(0),
            extra: 0,
            next_staged: NONE,
        };
        let staged = self.table.stage(key, job, Job::same).map_err(|e| match e {
            StageError::Duplicate => {
                InsertError::Duplicate { key, first: self.table.find(&key).unwrap_or(NONE) }
            }
            StageError::Capacity { capacity } => InsertError::Jobs { key, capacity },
            StageError::NoSpare => InsertError::NoSpare { key },
        })?;
        if let Staged::New(slot) | Staged::Changed(slot) = staged {
            self.link_staged(self.rest.last_staged, slot);
            self.rest.last_staged = slot;
        }
        Ok(staged)
    }

    /// Names a live job that stays as it is; `false` if there is none.
    pub fn keep(&mut self, key: &JobKey) -> bool {
        let live = self.table.find(key).filter(|&slot| self.table.is_live(slot));
        if let Some(slot) = live {
            self.table.keep(slot);
        }
        live.is_some()
    }

    /// Names all live jobs of which `which` is true and that have not been named, as they are. How many they are.
    /// O(slots).
    pub fn keep_where(&mut self, mut which: impl FnMut(&JobKey) -> bool) -> u32 {
        let mut kept = 0;
        for slot in 0..self.table.upper_index() {
            let live = self.table.is_live(slot) && !self.table.is_named(slot);
            if live && self.table.key(slot).is_some_and(&mut which) {
                self.table.keep(slot);
                kept += 1;
            }
        }
        kept
    }

    fn next_staged(&self, slot: u32) -> u32 {
        self.table.staged(slot).map_or(NONE, |j| j.next_staged)
    }

    fn link_staged(&mut self, before: u32, slot: u32) {
        if before == NONE {
            self.rest.first_staged = slot;
        } else if let Some(job) = self.table.staged_mut(before) {
            job.next_staged = slot;
        }
    }

    fn has_failed(&self, slot: u32, failed: &impl Fn(u64) -> bool) -> bool {
        self.table.key(slot).is_none_or(|k| failed(k.account))
    }

    fn is_new(&self, slot: u32) -> bool {
        self.table.order(slot).is_some()
    }

    fn flag(&self, slot: u32, flag: u8) -> bool {
        self.progress.get(slot as usize).is_some_and(|p| p.has(flag))
    }

    fn set_flag(&mut self, slot: u32, flag: u8) {
        if let Some(p) = self.progress.get_mut(slot as usize) {
            p.flags |= flag;
        }
    }

    /// Ends the refresh at `now`: what was not named goes, except in accounts that have `failed`; there all is as it
    /// was. What was named is there from now on, as far as it fits. Each difference is told to `on`: what did not
    /// fit first, then by ascending slot. Without a refresh under way it does nothing but [`Self::advance`].
    pub fn commit(
        &mut self,
        now: Millis,
        failed: impl Fn(u64) -> bool,
        mut on: impl FnMut(JobEvent),
    ) -> Committed {
        self.advance(now);
        if !self.rest.open {
            return Committed::default();
        }
        let (staying, removed) = self.see_who_leaves(&failed);
        let mut refused = 0;
        if !self.reserve_all(staying, &failed) {
            self.schedule.unreserve_all();
            refused = self.reserve_in_order(staying, &failed, &mut on);
        }
        self.set_phases(&failed);
        self.enter();
        let mut done = self.table.commit(&failed, |slot, key, change| {
            let key = *key;
            on(match change {
                Change::Added(_) => JobEvent::Added { slot, key },
                Change::Changed { old, new } => {
                    JobEvent::Changed { slot, key, rescheduled: old.intervals != new.intervals }
                }
                Change::Removed(_) => JobEvent::Removed { slot, key },
                // Does not happen: what the table has no room for was discarded before.
                Change::Refused(_) => JobEvent::Refused(InsertError::NoSpare { key }),
            });
        });
        done.refused += refused;
        self.rest.orphans |= removed;
        self.adopt_orphans();
        self.rest.first_staged = NONE;
        self.rest.last_staged = NONE;
        self.rest.open = false;
        done
    }

    /// Takes out of schedule and ready queue who is removed or changes intervals. How many jobs stay, and whether
    /// some are removed.
    fn see_who_leaves(&mut self, failed: &impl Fn(u64) -> bool) -> (usize, bool) {
        let (mut staying, mut leaves, mut removed) = (0, false, false);
        for slot in 0..self.table.upper_index() {
            let Some(live) = self.table.get(slot) else { continue };
            let Some(p) = self.progress.get_mut(slot as usize) else { continue };
            let kept = self.table.key(slot).is_some_and(|k| failed(k.account));
            if kept || self.table.is_named(slot) {
                staying += 1;
                if !kept && self.table.staged(slot).is_some_and(|new| new.intervals != live.intervals) {
                    p.flags |= LEAVES;
                    leaves = true;
                }
            } else {
                self.rest.rate -= live.rate();
                *p = Progress { flags: LEAVES, ..Progress::EMPTY };
                leaves = true;
                removed = true;
            }
        }
        if leaves {
            let progress = &*self.progress;
            self.schedule.remove_where(|slot| progress.get(slot as usize).is_some_and(|p| p.has(LEAVES)));
        }
        (staying, removed)
    }

    /// Whether all that was named fits; if so, room is reserved for it.
    fn reserve_all(&mut self, staying: usize, failed: &impl Fn(u64) -> bool) -> bool {
        let mut room = self.table.capacity().saturating_sub(staying);
        let mut slot = self.rest.first_staged;
        while slot != NONE {
            if !self.has_failed(slot, failed) {
                let new = self.is_new(slot);
                if new && room == 0 {
                    return false;
                }
                room -= usize::from(new);
                if (new || self.flag(slot, LEAVES))
                    && let Some(job) = self.table.staged(slot)
                    && self.schedule.reserve(&job.intervals).is_err()
                {
                    return false;
                }
            }
            slot = self.next_staged(slot);
        }
        true
    }

    /// Reserves room for what fits and discards the rest; how much that is.
    fn reserve_in_order(
        &mut self,
        staying: usize,
        failed: &impl Fn(u64) -> bool,
        on: &mut impl FnMut(JobEvent),
    ) -> u32 {
        let mut refused = 0;
        // Those that are there keep their room ...
        let mut slot = self.rest.first_staged;
        while slot != NONE {
            if self.flag(slot, LEAVES)
                && let Some(live) = self.table.get(slot)
            {
                let kept = self.schedule.reserve(&live.intervals);
                debug_assert!(kept.is_ok(), "{kept:?}");
            }
            slot = self.next_staged(slot);
        }
        // ... until there is room for what they want; then come the new ones.
        let mut room = self.table.capacity().saturating_sub(staying);
        for new in [false, true] {
            let (mut before, mut slot) = (NONE, self.rest.first_staged);
            while slot != NONE {
                let next = self.next_staged(slot);
                let concerned = !self.has_failed(slot, failed)
                    && self.is_new(slot) == new
                    && (new || self.flag(slot, LEAVES));
                let error = if concerned { self.reserve_one(slot, &mut room).err() } else { None };
                if let Some(error) = error {
                    on(JobEvent::Refused(error));
                    refused += 1;
                    self.table.discard(slot);
                    if !new {
                        // Its old entries come back.
                        self.set_flag(slot, ENTERS);
                    }
                    self.link_staged(before, next);
                } else {
                    before = slot;
                }
                slot = next;
            }
        }
        refused
    }

    fn reserve_one(&mut self, slot: u32, room: &mut usize) -> Result<(), InsertError> {
        let (Some(&key), Some(job)) = (self.table.key(slot), self.table.staged(slot)) else { return Ok(()) };
        let live = self.table.get(slot);
        match live {
            Some(live) => self.schedule.unreserve(&live.intervals),
            None if *room == 0 => {
                return Err(InsertError::Jobs { key, capacity: self.table.capacity() });
            }
            None => {}
        }
        let result = self.schedule.reserve(&job.intervals);
        match live {
            Some(live) if result.is_err() => {
                let back = self.schedule.reserve(&live.intervals);
                debug_assert!(back.is_ok(), "{back:?}");
            }
            None if result.is_ok() => *room -= 1,
            _ => {}
        }
        result.map_err(|e| match e {
            ScheduleError::DistinctIntervals { interval_s, capacity } => {
                InsertError::DistinctIntervals { key, interval_s, capacity }
            }
            ScheduleError::Entries { capacity } | ScheduleError::Extras { capacity } => {
                InsertError::Entries { key, capacity }
            }
            ScheduleError::Slot { .. } => InsertError::Jobs { key, capacity: self.table.capacity() },
        })
    }

    /// Gives what was named and fits its phase, its pending bits and its extra run.
    fn set_phases(&mut self, failed: &impl Fn(u64) -> bool) {
        let position = self.schedule.position();
        let mut extra_runs = 0u64;
        let mut slot = self.rest.first_staged;
        while slot != NONE {
            let next = self.next_staged(slot);
            if !self.has_failed(slot, failed) {
                extra_runs += u64::from(self.set_phase(slot));
            }
            slot = next;
        }
        if extra_runs == 0 {
            return;
        }
        let floor = u64::from(self.rest.floor_per_s) * PER_SECOND;
        // No overflow: slots are fewer than 2²⁹.
        let gentle_s = extra_runs * PER_SECOND / self.rest.rate.max(floor);
        let gentle_s = u32::try_from(gentle_s).unwrap_or(u32::MAX).max(FIRST_RUN_WITHIN_S);
        let mut slot = self.rest.first_staged;
        while slot != NONE {
            let next = self.next_staged(slot);
            if self.flag(slot, WANTS_EXTRA)
                && let Some(hash) = self.table.key(slot).map(JobKey::fnv1a64)
                && let Some(job) = self.table.staged_mut(slot)
            {
                let within_s = job.intervals.shortest().min(gentle_s).max(1);
                let grid = next_instant(&job.intervals, job.start, position);
                let soon = grid.is_some_and(|g| g.since(position) <= u64::from(within_s));
                let extra = position.0.saturating_add(1).saturating_add(hash % u64::from(within_s));
                job.extra = if soon { 0 } else { extra };
            }
            slot = next;
        }
    }

    /// Whether this job is to get an extra run, unless its grid comes first.
    fn set_phase(&mut self, slot: u32) -> bool {
        let position = self.schedule.position();
        let Some(hash) = self.table.key(slot).map(JobKey::fnv1a64) else { return false };
        let live = self.table.get(slot);
        let old = live.map(|l| (l.intervals, l.start, l.extra, l.rate(), self.next_of(l)));
        let Some(job) = self.table.staged_mut(slot) else { return false };
        let Some(p) = self.progress.get_mut(slot as usize) else { return false };
        if let Some((intervals, start, extra, ..)) = old
            && intervals == job.intervals
        {
            (job.start, job.extra) = (start, extra);
            return false;
        }
        job.start = match job.phase {
            Phase::Aligned(start) => start,
            Phase::Spread => Tick(hash % u64::from(job.intervals.longest().max(1))),
        };
        self.rest.rate += job.rate();
        let eager = job.first_run && job.phase == Phase::Spread;
        let later = match old {
            None => {
                *p = Progress { all: job.intervals.all(), ..Progress::EMPTY };
                true
            }
            Some((intervals, _, _, rate, next)) => {
                self.rest.rate -= rate;
                let grid = next_instant(&job.intervals, job.start, position).unwrap_or(Tick(u64::MAX));
                let was = if p.pending.is_empty() { next } else { Some(p.scheduled) };
                // A first run that was promised comes then at the latest, however often intervals change.
                job.extra = was.filter(|was| p.has(FIRST) && *was < grid).map_or(0, |was| was.0);
                p.pending = job.intervals.carry_over(&intervals, p.pending);
                p.all = job.intervals.all();
                if intervals.shortest() != job.intervals.shortest() {
                    p.instants = 0;
                }
                let is = match (p.pending.is_empty(), job.extra) {
                    (false, _) => p.scheduled,
                    (true, 0) => grid,
                    (true, extra) => Tick(extra),
                };
                was.is_none_or(|was| is > was)
            }
        };
        p.flags |= ENTERS;
        if eager && later {
            p.flags |= FIRST | WANTS_EXTRA;
        }
        eager && later
    }

    /// Puts who enters into the schedule, out of the ready queue what is no longer pending, and clears the flags.
    fn enter(&mut self) {
        let upper = self.table.upper_index();
        let (table, progress) = (&self.table, &*self.progress);
        let entering = || {
            (0..upper)
                .zip(progress)
                .filter(|(_, p)| p.has(ENTERS))
                .filter_map(|(i, _)| Some((i, table.staged(i)?)))
        };
        let entered = self.schedule.insert_reserved(entering().map(|(i, job)| (i, job.intervals, job.start)));
        debug_assert!(entered.is_ok(), "no more slots than have numbers: {entered:?}");
        let position = self.schedule.position();
        let extras =
            entering().filter(|(_, job)| job.extra > position.0).map(|(i, job)| (i, Tick(job.extra)));
        let added = self.schedule.add_extras(extras);
        debug_assert!(added.is_ok(), "one place per slot: {added:?}");
        self.ready.retain(|slot| progress.get(slot as usize).is_some_and(|p| !p.pending.is_empty()));
        for p in self.progress.iter_mut().take(upper as usize) {
            p.flags &= RUNS | FIRST;
        }
    }

    /// Runs of removed jobs go on; a job with the same key that has come again waits for their end.
    fn adopt_orphans(&mut self) {
        if !self.rest.orphans {
            return;
        }
        self.rest.orphans = false;
        for run in self.running.iter_mut() {
            if self.table.is_live(run.slot) && self.table.generation(run.slot) == run.generation {
                continue;
            }
            match self.table.find(&run.key) {
                Some(slot) => {
                    run.slot = slot;
                    run.generation = self.table.generation(slot);
                    if let Some(p) = self.progress.get_mut(slot as usize) {
                        p.flags |= RUNS;
                    }
                }
                None => self.rest.orphans = true,
            }
        }
    }

    /// Adds or changes one job outside of a refresh; all others stay. A refresh under way is aborted. O(slots +
    /// entries): for many, use a refresh.
    ///
    /// # Errors
    /// [`InsertError`]; nothing has happened then.
    pub fn insert(&mut self, now: Millis, spec: JobSpec<J>) -> Result<Staged, InsertError> {
        let key = spec.key;
        self.begin();
        self.keep_where(|k| *k != key);
        let staged = self.upsert(spec);
        if staged.is_err() {
            self.abort();
            return staged;
        }
        let mut refused = None;
        self.commit(
            now,
            |_| false,
            |event| {
                if let JobEvent::Refused(error) = event {
                    refused = Some(error);
                }
            },
        );
        refused.map_or(staged, Err)
    }

    /// Removes one job outside of a refresh; `false` if there is none. A refresh under way is aborted. O(slots +
    /// entries).
    pub fn remove(&mut self, now: Millis, key: &JobKey) -> bool {
        self.begin();
        self.keep_where(|k| k != key);
        self.commit(now, |_| false, |_| {}).removed > 0
    }

    // ---- runs ----

    fn set_now(&mut self, now: Millis) -> Millis {
        self.rest.now = self.rest.now.max(now);
        self.rest.now
    }

    /// Goes on to `now`: what has fallen due by then is ready, or pending if the job runs.
    pub fn advance(&mut self, now: Millis) {
        let (from, to) = (self.schedule.position(), self.set_now(now).tick());
        let waiting = self.ready.len();
        let (progress, ready) = (&mut *self.progress, &mut self.ready);
        self.schedule.advance(to, |Fired { slot, bit, first, count }| {
            let Some(p) = progress.get_mut(slot as usize) else { return };
            if p.pending.is_empty() {
                p.scheduled = first;
                p.instants = 0;
                if !p.has(RUNS) {
                    ready.push_back(slot);
                }
            } else if first < p.scheduled {
                p.scheduled = first;
            }
            if bit == Fired::EXTRA || p.has(FIRST) {
                p.flags &= !FIRST;
                p.pending = p.all;
            } else {
                p.pending.set(usize::from(bit));
            }
            if bit == 0 {
                p.instants = p.instants.saturating_add(count);
            }
        });
        // Those that waited before are scheduled earlier than all that is new.
        if to.since(from) <= 1 && cfg!(not(target_os = "none")) {
            // All at the same instant: sorted faster, at the cost of another sorting's code.
            self.ready.sort_tail(waiting, |slot| slot);
        } else {
            let progress = &*self.progress;
            self.ready.sort_tail(waiting, |slot| rank(progress, slot));
        }
    }

    /// Begins the next ready run; `None` if no job is ready, or if as many run as may run at once. Call
    /// [`Self::advance`] first.
    pub fn next_run(&mut self, now: Millis) -> Option<Due> {
        let now = self.set_now(now);
        if self.running.is_full() {
            return None;
        }
        let slot = self.ready.pop_front()?;
        let (key, job) = (*self.table.key(slot)?, self.table.get(slot)?);
        let p = self.progress.get_mut(slot as usize)?;
        let deadline = now.saturating_add(job.allowed_ms());
        let run = self.running.begin(key, slot, self.table.generation(slot), deadline)?;
        let due = Due {
            run,
            key,
            intervals: job.intervals,
            affecting: p.pending,
            scheduled: p.scheduled,
            late_ms: now.since(p.scheduled.start()),
            missed: p.instants.saturating_sub(1),
            deadline,
        };
        p.pending = Affecting::NONE;
        p.flags |= RUNS;
        let counters = &mut self.rest.counters;
        counters.runs = counters.runs.saturating_add(1);
        counters.missed = counters.missed.saturating_add(due.missed);
        counters.coalesced = counters.coalesced.saturating_add(u32::from(due.missed > 0));
        Some(due)
    }

    /// A run has ended (or, cancelled, has been dropped). What fell due meanwhile is ready now. `None` if it is not
    /// under way, which is harmless.
    pub fn complete(&mut self, run: RunId) -> Option<Completed> {
        let run = self.running.end(run)?;
        let there = self.table.is_live(run.slot) && self.table.generation(run.slot) == run.generation;
        if there && let Some(p) = self.progress.get_mut(run.slot as usize) {
            p.flags &= !RUNS;
            if !p.pending.is_empty() {
                let progress = &*self.progress;
                self.ready.insert(run.slot, |slot| rank(progress, slot));
            }
        }
        let removed = !there || (run.id.slot, run.id.generation) != (run.slot, run.generation);
        Some(Completed { key: run.key, cancelled: run.is_cancelled(), removed })
    }

    /// The next run whose deadline has passed, to be cancelled: each is told once, by deadline, and holds its place
    /// and its job until [`Self::complete`].
    pub fn expired(&mut self, now: Millis) -> Option<RunId> {
        let now = self.set_now(now);
        let run = self.running.expire(now)?;
        self.rest.counters.cancelled = self.rest.counters.cancelled.saturating_add(1);
        Some(run)
    }

    /// Whether this run is under way.
    #[must_use]
    pub fn is_running(&self, run: RunId) -> bool {
        self.running.get(run).is_some()
    }

    /// The key of a run's job while the run is under way, even if the job has been removed.
    #[must_use]
    pub fn running_key(&self, run: RunId) -> Option<JobKey> {
        self.running.get(run).map(|r| r.key)
    }

    /// How long a run of a live job may take, in milliseconds.
    #[must_use]
    pub fn deadline_ms(&self, key: &JobKey) -> Option<u64> {
        Some(self.table.get(self.table.find(key)?)?.allowed_ms())
    }

    /// A live job's intervals, and the tick that its grid goes through.
    #[must_use]
    pub fn grid(&self, key: &JobKey) -> Option<(Intervals, Tick)> {
        let job = self.table.get(self.table.find(key)?)?;
        Some((job.intervals, job.start))
    }

    /// The earliest deadline of a run under way that has not been told by [`Self::expired`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.running.next_deadline()
    }

    /// When to call next if nothing else happens: at the next due instant, if one more may run (now, if a job is
    /// ready), or at the next deadline. `None`: never. O(1).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let run = if self.running.is_full() {
            None
        } else if !self.ready.is_empty() {
            Some(self.rest.now)
        } else {
            self.schedule.next_due().map(Tick::start)
        };
        match (run, self.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// First due first, then the lowest slot.
fn rank(progress: &[Progress], slot: u32) -> (Tick, u32) {
    (progress.get(slot as usize).map_or(Tick(u64::MAX), |p| p.scheduled), slot)
}
