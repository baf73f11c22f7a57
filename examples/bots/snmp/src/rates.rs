//! Counters to rates per second, from the previous reading that a job's state has kept.
//!
//! ```
//! use grafolean_bot_snmp::rates::{Counter, CounterState, Outcome, Reading};
//! use grafolean_core::time::Millis;
//!
//! let read = |value, uptime_cs, now_ms| Reading {
//!     counter: Counter::Bits32(value), uptime_cs: Some(uptime_cs), now: Millis(now_ms), life: 7,
//! };
//! let (outcome, state) = CounterState::advance(None, read(1000, 512, 0));
//! assert_eq!(outcome, Outcome::First);
//! let (outcome, state) = CounterState::advance(Some(state), read(2000, 612, 1004));
//! assert_eq!(outcome, Outcome::Rate(1000.0));
//! // What is kept between runs, and under restarts.
//! let kept = state.pack();
//! let (outcome, _) = CounterState::advance(CounterState::unpack(&kept), read(2300, 912, 4001));
//! assert_eq!(outcome, Outcome::Rate(100.0));
//! ```
//!
//! # Time
//! The time between two readings is that of the device's own sysUpTime, if it was read in the same datagram and moved as
//! much as the collector's clock did: the way through the network does not blur it. Where it did not move, or counts in
//! whole seconds only, or jumped without a reboot, or was not given, the collector's clock counts.
//!
//! # What the counter did
//! | | same life of the collector, or restarted since on a host | restarted since on a board, or with a clock that was set |
//! | --- | --- | --- |
//! | sysUpTime moved with the collector's clock (its wrap after 497 days included) | up: rate. A Counter32 that went down has wrapped: rate. A Counter64 that went down was reset: dropped | up: rate over the time that sysUpTime moved. Down: dropped |
//! | the device is up for no longer than since the last reading | dropped: it was rebooted | dropped, where sysUpTime went back |
//! | sysUpTime is not given, or jumped | up: rate by the collector's clock. Down: dropped | up: rate by the collector's clock, if both times are Unix times. Down: dropped |
//!
//! That a Counter32 wraps more than once between two readings can't be seen: at 1 Gbit/s ifInOctets does so each 34 s, and the
//! rate is then too low by a multiple of 2^32 per interval. Read ifHCInOctets (Counter64), or more often. A counter that a
//! device resets without a reboot, and that has grown beyond its old reading since, looks like a low rate.
//!
//! # Restarts
//! A monotonic time of an earlier life of the collector means nothing on a board, so each state holds the mark of the life
//! in which it was made, and times of different lives are compared only if both are Unix times, as hosts have them
//! ([`UNIX_FROM`]). So a device that was rebooted while a host's collector was down gives no rate, however long it has been up
//! again.
//!
//! # Cost
//! A few comparisons and one division; [`STATE_BYTES`] bytes for each counter of each row.

use grafolean_core::state::MAX_STATE_BYTES;
use grafolean_core::time::Millis;

/// How long a packed state is, in bytes.
pub const STATE_BYTES: usize = 26;
const _: () = assert!(STATE_BYTES <= MAX_STATE_BYTES, "a state fits");

/// A monotonic time from here on counts from 1970: this is September 2001, or 31 years after a board's boot.
pub const UNIX_FROM: Millis = Millis(1_000_000_000_000);

/// The layout of packed states; states of other versions count as none.
const VERSION: u8 = 1;
/// sysUpTime may be off from the collector's clock by this and a 32nd of the time, in milliseconds: by the way through
/// the network (with repetitions) and by a device's bad clock.
const SLACK_MS: u64 = 3_000;

/// A counter's reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Counter32.
    Bits32(u32),
    /// Counter64.
    Bits64(u64),
}

impl Counter {
    const fn value(self) -> u64 {
        match self {
            Counter::Bits32(value) => value as u64,
            Counter::Bits64(value) => value,
        }
    }
}

/// A counter's reading, and when it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The counter.
    pub counter: Counter,
    /// sysUpTime from the same datagram, in hundredths of a second; `None` if the device does not give it.
    pub uptime_cs: Option<u32>,
    /// The collector's monotonic time.
    pub now: Millis,
    /// Marks the life of the collector's process (on a board: since boot), by a number that the next one has not: random, or
    /// of the time of the start.
    pub life: u32,
}

/// What came of two readings.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// There was no earlier reading, or one of another type or another layout of its state.
    First,
    /// This many per second.
    Rate(f64),
    /// This many per second; the counter has wrapped.
    Wrapped(f64),
    /// No rate: the device was rebooted.
    Rebooted,
    /// No rate: the counter went down, and it is not certain that it has wrapped.
    WentDown,
    /// No rate: no time has passed that can be measured, or it can't be known how much. The earlier reading stays if it is
    /// of use.
    NoTime,
}

impl Outcome {
    /// The rate per second.
    #[must_use]
    pub const fn rate(self) -> Option<f64> {
        match self {
            Outcome::Rate(rate) | Outcome::Wrapped(rate) => Some(rate),
            _ => None,
        }
    }
}

/// The last reading, as it is kept for the next run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterState {
    last: Reading,
}

/// What is known of the time between two readings.
enum Elapsed {
    /// So many milliseconds, within which the device was certainly not rebooted.
    Unbroken(u64),
    /// So many milliseconds.
    Known(u64),
    Rebooted,
    Unknown,
}

impl CounterState {
    /// What came of the earlier reading and this one, and the state to keep.
    #[must_use]
    pub fn advance(earlier: Option<CounterState>, new: Reading) -> (Outcome, CounterState) {
        let next = CounterState { last: new };
        let Some(earlier) = earlier else { return (Outcome::First, next) };
        let old = earlier.last;
        let wraps = match (old.counter, new.counter) {
            (Counter::Bits32(_), Counter::Bits32(_)) => Some(1u64 << 32),
            (Counter::Bits64(_), Counter::Bits64(_)) => None,
            _ => return (Outcome::First, next),
        };
        let (ms, unbroken) = match elapsed(&old, &new) {
            Elapsed::Rebooted => return (Outcome::Rebooted, next),
            Elapsed::Unknown => return (Outcome::NoTime, next),
            Elapsed::Unbroken(0) | Elapsed::Known(0) => return (Outcome::NoTime, earlier),
            Elapsed::Unbroken(ms) => (ms, true),
            Elapsed::Known(ms) => (ms, false),
        };
        let per_second = |count: u64| count as f64 * 1000.0 / ms as f64;
        let (from, to) = (old.counter.value(), new.counter.value());
        let outcome = match (to.checked_sub(from), wraps) {
            (Some(count), _) => Outcome::Rate(per_second(count)),
            (None, Some(span)) if unbroken => Outcome::Wrapped(per_second(to + span - from)),
            (None, _) => Outcome::WentDown,
        };
        (outcome, next)
    }

    /// The bytes to keep.
    #[must_use]
    pub fn pack(&self) -> [u8; STATE_BYTES] {
        let Reading { counter, uptime_cs, now, life } = self.last;
        let is_64 = matches!(counter, Counter::Bits64(_));
        let flags = u8::from(is_64) | u8::from(uptime_cs.is_some()) << 1;
        let mut bytes = [0; STATE_BYTES];
        let parts: [&[u8]; 6] = [
            &[VERSION],
            &[flags],
            &counter.value().to_le_bytes(),
            &uptime_cs.unwrap_or(0).to_le_bytes(),
            &now.0.to_le_bytes(),
            &life.to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(parts.iter().copied().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// The state that was kept; `None` if these bytes are none of this version.
    #[must_use]
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STATE_BYTES] = bytes.try_into().ok()?;
        let [VERSION, flags @ 0..4, rest @ ..] = bytes else { return None };
        let (value, rest) = rest.split_first_chunk()?;
        let (uptime, rest) = rest.split_first_chunk()?;
        let (now, rest) = rest.split_first_chunk()?;
        let (life, _) = rest.split_first_chunk()?;
        let value = u64::from_le_bytes(*value);
        let counter = match flags & 1 {
            0 => Counter::Bits32(u32::try_from(value).ok()?),
            _ => Counter::Bits64(value),
        };
        let uptime_cs = (flags & 2 != 0).then_some(u32::from_le_bytes(*uptime));
        let now = Millis(u64::from_le_bytes(*now));
        Some(CounterState { last: Reading { counter, uptime_cs, now, life: u32::from_le_bytes(*life) } })
    }
}

fn elapsed(old: &Reading, new: &Reading) -> Elapsed {
    let same_life = old.life == new.life;
    // By the collector's clock.
    let clock_ms = new.now.0.checked_sub(old.now.0);
    let (Some(from), Some(to)) = (old.uptime_cs, new.uptime_cs) else {
        return match clock_ms {
            Some(ms) if same_life || old.now >= UNIX_FROM => Elapsed::Known(ms),
            _ => Elapsed::Unknown,
        };
    };
    let by_uptime = || match to.checked_sub(from) {
        Some(cs) => Elapsed::Known(u64::from(cs) * 10),
        None => Elapsed::Rebooted,
    };
    // A board's time means nothing in another life, and a host's may have been set back since.
    let clock_ms = match clock_ms {
        Some(ms) if same_life || old.now >= UNIX_FROM => ms,
        None if same_life => return Elapsed::Unknown,
        _ => return by_uptime(),
    };
    let uptime_ms = u64::from(to.wrapping_sub(from)) * 10;
    let slack_ms = SLACK_MS + clock_ms / 32;
    if uptime_ms.abs_diff(clock_ms) <= slack_ms {
        let is_coarse = uptime_ms == 0 || from % 100 == 0 && to % 100 == 0;
        let ms = if is_coarse { clock_ms } else { uptime_ms };
        // A device that was up for a moment only at the earlier reading may have been rebooted right after it.
        let was_up = to < from || u64::from(to) * 10 > clock_ms + slack_ms;
        return if was_up { Elapsed::Unbroken(ms) } else { Elapsed::Known(ms) };
    }
    if u64::from(to) * 10 <= clock_ms + slack_ms {
        return Elapsed::Rebooted;
    }
    // The device was up for longer than that: its sysUpTime jumped, or a host's clock was set between two lives.
    if !same_life {
        return by_uptime();
    }
    Elapsed::Known(clock_ms)
}
