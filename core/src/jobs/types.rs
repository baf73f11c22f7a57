//! What goes into a job table and what comes out of it: specifications, due runs, errors, events, counters.

use super::JobKey;
use crate::interval::{Affecting, Interval, Intervals};
use crate::time::{Millis, Tick};
use core::fmt;

/// Where a job's grid of instants lies: it runs at `start + k · interval`, for any whole k, of each of its intervals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Phase {
    /// The grid through this tick, and nothing else: no extra first run.
    Aligned(Tick),
    /// start = hash(key) mod the job's longest interval, so that neither short nor long intervals herd.
    Spread,
}

/// A job as its owner wants it.
#[derive(Clone, Copy, PartialEq)]
pub struct JobSpec<J> {
    /// Its identity.
    pub key: JobKey,
    /// How often it runs; at least one.
    pub intervals: Intervals,
    /// Where its grid lies. It counts when the job is made and when its intervals change.
    pub phase: Phase,
    /// Under [`Phase::Spread`]: run once soon after the job was made, not only on its grid.
    pub first_run: bool,
    /// How long a run may take, in milliseconds; `None`: its shortest interval, at least 10 s, at most 5 min.
    pub deadline_ms: Option<u32>,
    /// What the bot needs to perform it.
    pub params: J,
}

impl<J> fmt::Debug for JobSpec<J> {
    /// Without the parameters, which can hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSpec")
            .field("key", &self.key)
            .field("intervals", &self.intervals)
            .field("phase", &self.phase)
            .field("first_run", &self.first_run)
            .field("deadline_ms", &self.deadline_ms)
            .finish_non_exhaustive()
    }
}

impl<J> JobSpec<J> {
    /// A job with the defaults of controlled bots: spread, with an extra first run and the default deadline.
    #[must_use]
    pub const fn spread(key: JobKey, intervals: Intervals, params: J) -> Self {
        JobSpec { key, intervals, phase: Phase::Spread, first_run: true, deadline_ms: None, params }
    }

    /// A job that runs at `start + k · interval` and at no other instant.
    #[must_use]
    pub const fn aligned(key: JobKey, intervals: Intervals, start: Tick, params: J) -> Self {
        JobSpec { key, intervals, phase: Phase::Aligned(start), first_run: false, deadline_ms: None, params }
    }
}

/// One run of one job. A completion that comes late, when this run is over or its job is gone, is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RunId {
    /// The job's slot.
    pub slot: u32,
    /// Tells the jobs apart that this slot has held.
    pub generation: u32,
    /// Tells the runs apart.
    pub run: u32,
    /// The place in the running set, below `max_running`: no two runs have the same one at the same time.
    pub place: u32,
}

/// A run that is due and has begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Due {
    /// Which run.
    pub run: RunId,
    /// Which job.
    pub key: JobKey,
    /// The job's intervals.
    pub intervals: Intervals,
    /// Those that made this run due: the union since the last run began.
    pub affecting: Affecting,
    /// The earliest instant that this run is for.
    pub scheduled: Tick,
    /// From the start of `scheduled` to the begin of the run, in milliseconds.
    pub late_ms: u64,
    /// Instants of the shortest interval that this run stands for, beyond the first one.
    pub missed: u32,
    /// When the run must have ended.
    pub deadline: Millis,
}

impl Due {
    /// Whether `interval` is one of those that made this run due.
    #[must_use]
    pub fn affects(&self, interval: Interval) -> bool {
        self.intervals.position(interval).is_some_and(|bit| self.affecting.has(bit))
    }

    /// The intervals, in seconds, that made this run due, ascending.
    pub fn affecting_seconds(&self) -> impl Iterator<Item = u32> + '_ {
        let all = self.intervals.as_slice().iter().enumerate();
        all.filter(|(bit, _)| self.affecting.has(*bit)).map(|(_, s)| *s)
    }
}

/// A run that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Completed {
    /// Its job.
    pub key: JobKey,
    /// Its deadline had passed.
    pub cancelled: bool,
    /// Its job was removed meanwhile.
    pub removed: bool,
}

/// Why a job was not taken, or not changed. All else is untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum InsertError {
    /// It has no interval.
    NoIntervals {
        /// Which job.
        key: JobKey,
    },
    /// The key was named before in this refresh; the first one counts.
    Duplicate {
        /// The key of both.
        key: JobKey,
        /// The slot of the first.
        first: u32,
    },
    /// The table holds no more jobs.
    Jobs {
        /// Which job.
        key: JobKey,
        /// How many jobs the table holds.
        capacity: usize,
    },
    /// The schedule holds no more interval entries (one for each interval of each job).
    Entries {
        /// Which job.
        key: JobKey,
        /// How many entries the schedule holds.
        capacity: usize,
    },
    /// The schedule holds no more distinct intervals.
    DistinctIntervals {
        /// Which job.
        key: JobKey,
        /// The first of its intervals that has no room, in seconds.
        interval_s: u32,
        /// How many distinct intervals the schedule holds.
        capacity: usize,
    },
    /// No spare slot until commit: a live job keeps its old state, a new one needs a further refresh.
    NoSpare {
        /// Which job.
        key: JobKey,
    },
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InsertError::NoIntervals { key } => write!(f, "{key}: no interval"),
            InsertError::Duplicate { key, first } => {
                write!(f, "{key}: named twice, the first one (slot {first}) counts")
            }
            InsertError::Jobs { key, capacity } => {
                write!(f, "{key}: refused, the table holds {capacity} jobs")
            }
            InsertError::Entries { key, capacity } => {
                write!(f, "{key}: refused, the schedule holds {capacity} intervals of all jobs together")
            }
            InsertError::DistinctIntervals { key, interval_s, capacity } => {
                write!(
                    f,
                    "{key}: refused, {interval_s} s is one interval more than the {capacity} distinct ones that the schedule holds"
                )
            }
            InsertError::NoSpare { key } => {
                write!(f, "{key}: kept as it was, no spare slot is left in this refresh")
            }
        }
    }
}

impl core::error::Error for InsertError {}

/// What a commit did to one job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum JobEvent {
    /// It is new.
    Added {
        /// Its slot.
        slot: u32,
        /// Which job.
        key: JobKey,
    },
    /// It has other parameters, or other intervals.
    Changed {
        /// Its slot.
        slot: u32,
        /// Which job.
        key: JobKey,
        /// Its intervals differ: it was scheduled anew.
        rescheduled: bool,
    },
    /// It was not named and is gone; a run that is under way goes on to its end.
    Removed {
        /// Its slot, free now.
        slot: u32,
        /// Which job.
        key: JobKey,
    },
    /// It did not fit. A new job is not there; one that was to change is as it was.
    Refused(InsertError),
}

/// What has happened since the table was made. All of them saturate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct JobCounters {
    /// Runs begun.
    pub runs: u32,
    /// Runs whose deadline passed.
    pub cancelled: u32,
    /// Instants of shortest intervals that were missed: the sum of [`Due::missed`].
    pub missed: u32,
    /// Runs that stood for more than one instant of the job's shortest interval.
    pub coalesced: u32,
}
