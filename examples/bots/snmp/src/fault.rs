//! Why a run failed: the first thing that was wrong with each of some sensors, and how many more there were.

use core::fmt;

use grafolean_core::bot::{BackendError, HandOverError, StateError};
use grafolean_core::json::ReadError;
use grafolean_snmp_codec::Oid;
use heapless::Vec;

use crate::expression::Missing;
use crate::poll::{PollFault, ReadFault};

/// How many sensors' faults an error names.
const MAX_FAULTS: usize = 4;

/// One thing that was wrong with a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What was wrong.
    pub problem: Problem,
    /// The sensor that it is about; 0 if it is about none, or all.
    pub sensor: u64,
    /// The OID that it is about, if it is not longer than 40 bytes.
    pub oid: Option<Oid<40>>,
}

/// Why a run failed, or what was wrong with it although other values were handed over.
///
/// It names the first thing that was wrong with each of the first four sensors, and counts the others: a table with 10,000 bad
/// rows is one message, and does not hide what is wrong elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnmpError {
    first: Fault,
    others: Vec<Fault, { MAX_FAULTS - 1 }>,
    more: u32,
}

/// What can be wrong with a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The agent can't be asked, or does not answer as it should.
    Poll(PollFault),
    /// An OID has no value.
    Read(ReadFault),
    /// The expression has no value.
    Missing(Missing),
    /// A walk found nothing.
    NoRows,
    /// A row has the same path as one before: the output path lacks `{$indexes}`.
    SamePath,
    /// More rows than can be checked for equal paths: those beyond have no values.
    TooManyPaths {
        /// How many can be checked.
        limit: usize,
    },
    /// More than there is memory for.
    NoRoom {
        /// The memory in bytes.
        limit: usize,
    },
    /// A value was not taken.
    HandOver(HandOverError),
    /// A counter's reading is not remembered, so there will be no rate.
    State(StateError),
    /// The bot may not change the account's entities.
    MayNotChange,
    /// The backend could not be asked, or did not do what it was asked for.
    Backend(BackendError),
    /// An entity of the account was not readable.
    Entity(ReadError),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Poll(fault) => write!(f, "{fault}"),
            Problem::Read(fault) => write!(f, "{fault}"),
            Problem::Missing(missing) => write!(f, "{missing}"),
            Problem::NoRows => f.write_str("the agent has nothing below it"),
            Problem::SamePath => f.write_str(
                "two rows have the same output path, the second has no value: `{$indexes}` tells them apart",
            ),
            Problem::TooManyPaths { limit } => write!(
                f,
                "more than {limit} rows to be checked for equal paths, the others have no values: `{{$indexes}}` needs no check"
            ),
            Problem::NoRoom { limit } => write!(f, "more than there is room for ({limit} bytes)"),
            Problem::HandOver(error) => write!(f, "{error}"),
            Problem::State(error) => write!(f, "a counter's reading is not remembered: {error}"),
            Problem::MayNotChange => f.write_str(
                "the bot has no permission to keep entities for interfaces (POST, PUT and DELETE of accounts/N/entities); tried again each hour",
            ),
            Problem::Backend(error) => write!(f, "{error}"),
            Problem::Entity(error) => write!(f, "an entity is not readable, so none is changed: {error}"),
        }
    }
}

impl Fault {
    pub(crate) const fn of(problem: Problem) -> Self {
        Fault { problem, sensor: 0, oid: None }
    }
}

impl From<Fault> for SnmpError {
    fn from(first: Fault) -> Self {
        SnmpError { first, others: Vec::new(), more: 0 }
    }
}

impl SnmpError {
    /// What was wrong first.
    #[must_use]
    pub const fn problem(&self) -> Problem {
        self.first.problem
    }

    /// What was wrong, in the order in which it was met: of each sensor the first thing.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        core::iter::once(&self.first).chain(&self.others)
    }

    /// How many more things were wrong.
    #[must_use]
    pub const fn more(&self) -> u32 {
        self.more
    }

    fn add(&mut self, fault: Fault) {
        let is_known = self.faults().any(|known| known.sensor == fault.sensor);
        if is_known || self.others.push(fault).is_err() {
            self.more = self.more.saturating_add(1);
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sensor != 0 {
            write!(f, "sensor {}: ", self.sensor)?;
        }
        if let Some(oid) = &self.oid {
            write!(f, "{oid}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

impl fmt::Display for SnmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        for fault in &self.others {
            write!(f, "; {fault}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl core::error::Error for SnmpError {}

/// The OID for a message.
pub(crate) fn short(oid: &Oid) -> Option<Oid<40>> {
    Oid::try_from(oid.as_oid_ref()).ok()
}

/// What was wrong so far.
#[derive(Default)]
pub(crate) struct Report {
    error: Option<SnmpError>,
    /// Not all was read, whatever it may be.
    is_partial: bool,
    /// The hashes of the states of counters that were met, one over the other.
    pub(crate) counters: u64,
}

impl Report {
    pub(crate) fn add(&mut self, sensor: u64, oid: Option<&Oid>, problem: Problem) {
        self.is_partial |= match problem {
            // There is no more than that to be read.
            Problem::Poll(PollFault::Endless | PollFault::TooManyRows { .. } | PollFault::LongName(_)) => {
                false
            }
            Problem::Poll(_) | Problem::NoRoom { .. } => true,
            _ => false,
        };
        let fault = Fault { problem, sensor, oid: oid.and_then(short) };
        match &mut self.error {
            Some(error) => error.add(fault),
            None => self.error = Some(fault.into()),
        }
    }

    /// Whether something may have been there that was not read.
    pub(crate) const fn is_partial(&self) -> bool {
        self.is_partial
    }

    pub(crate) fn into_error(self) -> Option<SnmpError> {
        self.error
    }
}
