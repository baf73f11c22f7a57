//! Keyed jobs on a schedule: refresh transaction, what is pending, ready and running.

mod key;
mod types;

pub use key::JobKey;
pub use types::{Completed, Due, InsertError, JobCounters, JobEvent, JobSpec, Phase, RunId};

use crate::schedule::{Class, Entry, Extra};
use crate::table::{Committed, Slot, Staged};
use crate::time::Millis;

/// API being filled in.
#[derive(Debug)]
pub struct Job<J> {
    spec: J,
}
/// Room for one job in the table.
pub type JobSlot<J> = Slot<JobKey, Job<J>>;

/// What the table knows about a slot between runs. One per slot.
#[derive(Clone, Copy, Debug)]
pub struct Progress {}
impl Progress {
    /// Nothing yet.
    pub const EMPTY: Self = Progress {};
}

/// Room for one run under way.
#[derive(Clone, Copy, Debug)]
pub struct Running {}
impl Running {
    /// No run.
    pub const EMPTY: Self = Running {};
}

/// The memory of a job table.
#[derive(Debug)]
pub struct JobsMem<'a, J> {
    /// N + spare of them.
    pub slots: &'a mut [JobSlot<J>],
    /// Heads of the hash chains: about N, filled with [`crate::table::NONE`].
    pub heads: &'a mut [u32],
    /// How many of the slots are for staging only; at least 1.
    pub spare: usize,
    /// As many as slots.
    pub progress: &'a mut [Progress],
    /// As many as slots.
    pub ready: &'a mut [u32],
    /// As many as slots.
    pub extras: &'a mut [Extra],
    /// One for each interval of each job (by default 2·N on a board, 4·N on a host).
    pub entries: &'a mut [Entry],
    /// One for each distinct interval.
    pub classes: &'a mut [Class],
    /// As many as may run at once.
    pub running: &'a mut [Running],
}

/// What a job table remembers besides its memory.
#[derive(Clone, Debug)]
pub struct JobsState {
    floor: u32,
}
impl JobsState {
    /// An empty table; `floor_per_s` is F of the first runs: 1 on a board, 50 on a host.
    #[must_use]
    pub const fn new(floor_per_s: u32) -> Self {
        JobsState { floor: floor_per_s }
    }
}

/// A job table for the time of a call.
#[derive(Debug)]
pub struct JobTable<'a, J> {
    state: &'a mut JobsState,
    mem: JobsMem<'a, J>,
}

impl<'a, J: PartialEq> JobTable<'a, J> {
    /// View.
    #[must_use]
    pub fn new(state: &'a mut JobsState, mem: JobsMem<'a, J>) -> Self {
        JobTable { state, mem }
    }
    /// Begins a refresh; one under way is aborted.
    pub fn begin(&mut self) {}
    /// Names a job of the refresh.
    /// # Errors
    /// [`InsertError`]
    pub fn upsert(&mut self, _spec: JobSpec<J>) -> Result<Staged, InsertError> {
        Ok(Staged::Same(0))
    }
    /// Names a live job that stays as it is; false if there is none.
    pub fn keep(&mut self, _key: &JobKey) -> bool {
        false
    }
    /// Names all live jobs of which `which` is true, as they are; how many.
    pub fn keep_where(&mut self, _which: impl FnMut(&JobKey) -> bool) -> u32 {
        0
    }
    /// Ends the refresh.
    pub fn commit(&mut self, _now: Millis, _failed: impl Fn(u64) -> bool, _on: impl FnMut(JobEvent)) -> Committed {
        Committed::default()
    }
    /// Ends the refresh: nothing has happened.
    pub fn abort(&mut self) {}
    /// One job outside of a refresh, all others stay.
    /// # Errors
    /// [`InsertError`]
    pub fn insert(&mut self, _now: Millis, _spec: JobSpec<J>) -> Result<Staged, InsertError> {
        Ok(Staged::Same(0))
    }
    /// Removes one job outside of a refresh.
    pub fn remove(&mut self, _now: Millis, _key: &JobKey) -> bool {
        false
    }
    /// What has fallen due by `now` becomes ready.
    pub fn advance(&mut self, _now: Millis) {}
    /// Begins the next ready run, if there is one and `running` has room.
    pub fn next_run(&mut self, _now: Millis) -> Option<Due> {
        None
    }
    /// A run has ended; `None` if it is not under way.
    pub fn complete(&mut self, _run: RunId) -> Option<Completed> {
        None
    }
    /// The next run whose deadline has passed: told once, it keeps its place until [`Self::complete`].
    pub fn expired(&mut self, _now: Millis) -> Option<RunId> {
        None
    }
    /// The earliest deadline of a run under way.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        None
    }
    /// When to call again: next due instant (if there is room to run), next deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        None
    }
    /// The parameters of the job of this run, `None` if it has been removed.
    #[must_use]
    pub fn params(&self, _run: RunId) -> Option<&J> {
        None
    }
    /// Slot and parameters of a live job.
    #[must_use]
    pub fn get(&self, _key: &JobKey) -> Option<(u32, &J)> {
        None
    }
    /// Live jobs by ascending slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &JobKey, &J)> {
        core::iter::empty()
    }
    /// Live jobs.
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }
    /// Whether there is no live job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }
    /// How many jobs it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        0
    }
    /// Runs under way.
    #[must_use]
    pub fn running(&self) -> usize {
        0
    }
    /// Jobs that are due and wait.
    #[must_use]
    pub fn ready(&self) -> usize {
        0
    }
    /// What has happened.
    #[must_use]
    pub fn counters(&self) -> JobCounters {
        JobCounters::default()
    }
}
