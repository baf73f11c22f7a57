//! A custom bot that posts the load and memory of the machine that it runs on.
//!
//! It has one job of its own and needs no entities. Where the numbers come from is a [`HostReadings`]: on Linux, with the
//! feature `linux`, `linux::ProcReadings`.
//!
//! ```
//! use core::convert::Infallible;
//! use grafolean_bot_host::{HostBot, HostReadings, Readings};
//! use grafolean_core::interval::Interval;
//!
//! struct Board;
//! impl HostReadings for Board {
//!     type Error = Infallible;
//!     fn read(&self) -> Result<Readings, Infallible> {
//!         Ok(Readings { uptime_s: Some(12), ..Readings::default() })
//!     }
//! }
//! let bot = HostBot::new(Board, "board-7")?.every(Interval::new(5)?);
//! # let _ = bot;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Values
//! Those that the machine has, of
//!
//! | path | value |
//! | --- | --- |
//! | `host.{name}.load1`, `.load5`, `.load15` | load averages over 1, 5 and 15 minutes |
//! | `host.{name}.memory.total`, `.available` | bytes |
//! | `host.{name}.swap.total`, `.free` | bytes |
//! | `host.{name}.uptime` | seconds |
//!
//! `{name}` is the host name as a segment of a path: its dots are `%2e`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "linux")]
extern crate std;

#[cfg(feature = "linux")]
pub mod linux;
pub mod proc;

use core::fmt;

use grafolean_core::bot::{Anything, Bot, Context, HandOverError, JobSink, NewJob};
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::Due;
use grafolean_core::values::{Decimal, Segment};

/// The longest host name, in bytes (Linux's `HOST_NAME_MAX`).
pub const MAX_NAME: usize = 64;

/// How often it posts unless it is told otherwise.
pub const DEFAULT_INTERVAL_S: u32 = 60;

/// What a machine says of itself; `None`: it has no such thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readings {
    /// Load averages over 1, 5 and 15 minutes, in hundredths.
    pub load_hundredths: Option<[u64; 3]>,
    /// Main memory in bytes.
    pub memory_total: Option<u64>,
    /// Main memory that programs can still get, in bytes.
    pub memory_available: Option<u64>,
    /// Swap space in bytes.
    pub swap_total: Option<u64>,
    /// Swap space that is not used, in bytes.
    pub swap_free: Option<u64>,
    /// Since the start of the machine, in seconds.
    pub uptime_s: Option<u64>,
}

/// Reads a machine's numbers. Called within a run: it should not block for long.
pub trait HostReadings {
    /// Why they can't be read.
    type Error: fmt::Display;

    /// Reads them.
    ///
    /// # Errors
    /// The run ends with it; no value is handed over.
    fn read(&self) -> Result<Readings, Self::Error>;
}

/// Why a text is no host name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing but blanks.
    Empty,
    /// Too long.
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The most bytes that it can have: [`MAX_NAME`].
        limit: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => f.write_str("the host name is empty"),
            NameError::TooLong { len, limit } => {
                write!(f, "the host name of {len} bytes is over the limit of {limit} bytes")
            }
        }
    }
}

impl core::error::Error for NameError {}

/// Why a run failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HostError<E> {
    /// The readings failed.
    Read(E),
    /// A value was not taken; the others were.
    HandOver(HandOverError),
}

impl<E: fmt::Display> fmt::Display for HostError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Read(error) => write!(f, "{error}"),
            HostError::HandOver(error) => write!(f, "{error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for HostError<E> {}

/// The host bot: see the [crate's description](self).
#[derive(Clone, Debug)]
pub struct HostBot<R> {
    readings: R,
    name: heapless::String<MAX_NAME, u8>,
    /// In seconds; `None` for the default.
    interval: Option<Interval>,
}

impl<R> HostBot<R> {
    /// A bot that posts `readings` under the name `name`, every [`DEFAULT_INTERVAL_S`].
    ///
    /// # Errors
    /// [`NameError`] if `name`, without blanks around it, is empty or longer than [`MAX_NAME`] bytes.
    pub fn new(readings: R, name: &str) -> Result<Self, NameError> {
        let name = name.trim_ascii();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        let too_long = |_| NameError::TooLong { len: name.len(), limit: MAX_NAME };
        Ok(HostBot { readings, name: name.try_into().map_err(too_long)?, interval: None })
    }

    /// The same, at this interval.
    #[must_use]
    pub fn every(self, interval: Interval) -> Self {
        HostBot { interval: Some(interval), ..self }
    }
}

impl<R: HostReadings> Bot for HostBot<R> {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = HostError<R::Error>;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<()>) {
        if let Some(interval) = self.interval.or(Interval::new(DEFAULT_INTERVAL_S.into()).ok()) {
            jobs.add(NewJob::new(Intervals::one(interval), ()).named("host"));
        }
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, cx: &mut C) -> Result<(), Self::Error> {
        let now = self.readings.read().map_err(HostError::Read)?;
        let name = Segment(&self.name);
        let mut refused = None;
        let mut post = |what: &str, number: Option<Decimal>| {
            if let Some(number) = number
                && let Err(error) = cx.value(format_args!("host.{name}.{what}"), number)
            {
                refused.get_or_insert(error);
            }
        };
        for (i, what) in ["load1", "load5", "load15"].into_iter().enumerate() {
            let load = now.load_hundredths.and_then(|loads| loads.get(i).copied());
            post(what, load.and_then(|load| decimal(load, -2)));
        }
        for (what, number) in [
            ("memory.total", now.memory_total),
            ("memory.available", now.memory_available),
            ("swap.total", now.swap_total),
            ("swap.free", now.swap_free),
            ("uptime", now.uptime_s),
        ] {
            post(what, number.and_then(|number| decimal(number, 0)));
        }
        refused.map_or(Ok(()), |error| Err(HostError::HandOver(error)))
    }
}

/// `None` beyond 2^63, which no machine has of anything.
fn decimal(mantissa: u64, exponent: i8) -> Option<Decimal> {
    Some(Decimal { mantissa: i64::try_from(mantissa).ok()?, exponent })
}
