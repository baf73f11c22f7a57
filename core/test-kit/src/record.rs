//! What has happened in a lab.

use core::fmt;

use grafolean_core::jobs::{Due, JobKey, RunId};
use grafolean_core::journal::Event;

/// One run of a job. Times are in milliseconds since the lab's start.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Run {
    /// What the bot was given: key, affecting intervals, deadline, and so on.
    pub due: Due,
    /// The instant that it was scheduled for.
    pub scheduled_ms: u64,
    /// When it began.
    pub began_ms: u64,
    /// From its begin to its end; none while it is under way.
    pub took_ms: Option<u64>,
    /// Values that it has handed over, and that were taken.
    pub values: u32,
    /// How it ended.
    pub outcome: Outcome,
}

impl Run {
    /// Its job.
    #[must_use]
    pub const fn key(&self) -> JobKey {
        self.due.key
    }

    /// The entity of its job, 0 if it has none.
    #[must_use]
    pub const fn entity(&self) -> u64 {
        self.due.key.entity
    }

    /// The intervals that made it due, in seconds, ascending.
    #[must_use]
    pub fn affecting_s(&self) -> Vec<u32> {
        self.due.affecting_seconds().collect()
    }

    /// Whether it ended well.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms: {}, {} values", self.began_ms, self.key(), self.values)?;
        if let Some(took_ms) = self.took_ms {
            write!(f, ", {took_ms} ms")?;
        }
        match &self.outcome {
            Outcome::Running => f.write_str(", under way"),
            Outcome::Done => f.write_str(", done"),
            Outcome::Failed(why) => write!(f, ", failed: {why}"),
            Outcome::Cancelled => f.write_str(", cancelled at its deadline"),
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not, or is held ([`Lab::hold_runs`](crate::Lab::hold_runs)).
    Running,
    /// Well.
    Done,
    /// With this error of the bot.
    Failed(String),
    /// Its deadline came first.
    Cancelled,
}

/// A value that a bot has handed over and that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandedOver {
    /// When it was handed over, in milliseconds since the lab's start.
    pub at_ms: u64,
    /// Its own time, in milliseconds since the lab's start, negative if before: that of `Context::value_at`, or of the system's
    /// clock. None for the present time of a board, which learns the wall clock's: that differs from `at_ms` by up to a second.
    pub time_ms: Option<i64>,
    /// By which run.
    pub run: RunId,
    /// Of which job. The value belongs to the job's account.
    pub key: JobKey,
    /// Its path.
    pub path: String,
    /// The number as it goes over the wire.
    pub number: String,
}

impl HandedOver {
    /// The time that it should be stored with, as far as it is known.
    pub(crate) fn expected_ms(&self) -> i64 {
        self.time_ms.unwrap_or_else(|| i64::try_from(self.at_ms).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for HandedOver {
    /// `path=number`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.path, self.number)
    }
}

/// A value that the backend has stored.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stored {
    /// Its account.
    pub account: u64,
    /// Its path.
    pub path: String,
    /// Its time, in milliseconds since the lab's start; negative if before.
    pub at_ms: i64,
    /// The number.
    pub number: f64,
}

/// A request that was sent to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// When, in milliseconds since the lab's start.
    pub at_ms: u64,
    /// Its method.
    pub method: String,
    /// Its path below the base URL, without the token.
    pub path: String,
    /// Its body; empty if it has none.
    pub body: String,
    /// The status of the answer as far as the bot has got it.
    pub status: Option<u16>,
}

impl fmt::Display for Sent {
    /// `PUT /accounts/1/values/`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What the collector has told: faults of the configuration, refreshes, refused values.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Told {
    /// When, in milliseconds since the lab's start.
    pub at_ms: u64,
    /// What.
    pub event: Event,
    /// The same as it is logged.
    pub text: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms: {}", self.at_ms, self.text)
    }
}

/// A job as it is planned now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// Its key.
    pub key: JobKey,
    /// Its intervals, in seconds, ascending.
    pub intervals_s: Vec<u32>,
    /// How long a run may take, in milliseconds.
    pub deadline_ms: u64,
}
