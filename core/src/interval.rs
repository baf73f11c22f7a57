//! How often a job runs: checked whole-second intervals, a small sorted set of them, and which of them made a
//! run due.

use core::fmt;
use core::num::NonZeroU32;

/// The most distinct intervals that one job can have.
pub const MAX_INTERVALS: usize = 8;

/// A checked interval: whole seconds, at least 1, at most 2147483647 (the backend's int4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Interval(NonZeroU32);

/// Why a number is no interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum IntervalError {
    /// Not a whole number of seconds within 1..=2147483647.
    OutOfRange {
        /// The number, if it was whole and fits.
        seconds: i64,
    },
    /// A number with a fraction.
    Fraction {
        /// The number in thousandths of a second.
        thousandths: i64,
    },
    /// No number at all, or one with more digits than can be told.
    NotWhole,
}

impl fmt::Display for IntervalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntervalError::OutOfRange { seconds } => {
                write!(f, "interval {seconds} s is not within 1..={} s", Interval::MAX_S)
            }
            IntervalError::Fraction { thousandths } => {
                let (sign, n) = (if *thousandths < 0 { "-" } else { "" }, thousandths.unsigned_abs());
                write!(f, "interval {sign}{}.{:03} s is not a whole number of seconds", n / 1000, n % 1000)
            }
            IntervalError::NotWhole => f.write_str("interval is not a whole number of seconds"),
        }
    }
}

impl core::error::Error for IntervalError {}

impl Interval {
    /// The longest interval, in seconds.
    pub const MAX_S: u32 = i32::MAX as u32;

    /// An interval of `seconds`.
    ///
    /// # Errors
    /// [`IntervalError::OutOfRange`] if `seconds` is not within 1..=2147483647.
    pub const fn new(seconds: i64) -> Result<Self, IntervalError> {
        if seconds >= 1
            && seconds <= Self::MAX_S as i64
            && let Some(s) = NonZeroU32::new(seconds as u32)
        {
            return Ok(Interval(s));
        }
        Err(IntervalError::OutOfRange { seconds })
    }

    /// Seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0)
    }
}

/// A sorted set of 1 to [`MAX_INTERVALS`] distinct intervals (it can be empty while it is being built).
///
/// 36 bytes; every method looks at most at eight numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Intervals {
    seconds: [u32; MAX_INTERVALS],
    len: u8,
}

/// A ninth distinct interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyIntervals(pub Interval);

impl fmt::Display for TooManyIntervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "interval {} would be one more than the {MAX_INTERVALS} distinct ones that a job can have",
            self.0
        )
    }
}

impl core::error::Error for TooManyIntervals {}

impl Intervals {
    /// No interval yet.
    pub const EMPTY: Self = Intervals { seconds: [0; MAX_INTERVALS], len: 0 };

    /// The set with just this one.
    #[must_use]
    pub const fn one(interval: Interval) -> Self {
        let mut seconds = [0; MAX_INTERVALS];
        seconds[0] = interval.seconds();
        Intervals { seconds, len: 1 }
    }

    /// Adds `interval`; one that is there already changes nothing.
    ///
    /// # Errors
    /// [`TooManyIntervals`] if it would be the ninth distinct one; the set stays as it was.
    pub fn insert(&mut self, interval: Interval) -> Result<(), TooManyIntervals> {
        let n = usize::from(self.len);
        let s = interval.seconds();
        let at = match self.as_slice().binary_search(&s) {
            Ok(_) => return Ok(()),
            Err(at) => at,
        };
        if n == MAX_INTERVALS {
            return Err(TooManyIntervals(interval));
        }
        self.seconds.copy_within(at..n, at + 1);
        self.seconds[at] = s;
        self.len += 1;
        Ok(())
    }

    /// The intervals in seconds, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        self.seconds.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The shortest interval in seconds, 0 if there is none.
    #[must_use]
    pub fn shortest(&self) -> u32 {
        self.as_slice().first().copied().unwrap_or(0)
    }

    /// The longest interval in seconds, 0 if there is none.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.as_slice().last().copied().unwrap_or(0)
    }

    /// The position of `interval` in [`Self::as_slice`], which is its bit in [`Affecting`].
    #[must_use]
    pub fn position(&self, interval: Interval) -> Option<usize> {
        self.as_slice().binary_search(&interval.seconds()).ok()
    }

    /// All of this set as affecting.
    #[must_use]
    pub const fn all(&self) -> Affecting {
        Affecting(((1u16 << self.len) - 1) as u8)
    }

    /// `mask`, which speaks of `old`, said of this set: intervals that are in both keep their bit.
    #[must_use]
    pub fn carry_over(&self, old: &Intervals, mask: Affecting) -> Affecting {
        let mut kept = Affecting::NONE;
        for (bit, s) in old.as_slice().iter().enumerate() {
            if mask.has(bit)
                && let Ok(at) = self.as_slice().binary_search(s)
            {
                kept.set(at);
            }
        }
        kept
    }
}

impl fmt::Debug for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Intervals {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", self.as_slice());
    }
}

/// Which of a job's intervals made a run due: bit *i* speaks of the *i*-th shortest one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Affecting(pub u8);

impl Affecting {
    /// None of them.
    pub const NONE: Self = Affecting(0);

    /// Whether the interval at position `bit` is affecting.
    #[must_use]
    pub const fn has(self, bit: usize) -> bool {
        bit < MAX_INTERVALS && self.0 & (1 << bit) != 0
    }

    /// Marks the interval at position `bit`; one beyond the last is ignored.
    pub const fn set(&mut self, bit: usize) {
        if bit < MAX_INTERVALS {
            self.0 |= 1 << bit;
        }
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Affecting) -> Affecting {
        Affecting(self.0 | other.0)
    }

    /// Whether it is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[i64]) -> Intervals {
        let mut out = Intervals::EMPTY;
        for &s in list {
            out.insert(Interval::new(s).unwrap()).unwrap();
        }
        out
    }

    #[test]
    fn only_whole_positive_int4_seconds_are_intervals() {
        assert_eq!(Interval::new(0), Err(IntervalError::OutOfRange { seconds: 0 }));
        assert_eq!(Interval::new(-60), Err(IntervalError::OutOfRange { seconds: -60 }));
        assert!(Interval::new(2_147_483_648).is_err());
        assert_eq!(Interval::new(2_147_483_647).unwrap().seconds(), 2_147_483_647);
        assert_eq!(
            std::format!("{}", Interval::new(-5).unwrap_err()),
            "interval -5 s is not within 1..=2147483647 s"
        );
    }

    #[test]
    fn a_set_is_sorted_distinct_and_holds_eight() {
        let mut s = set(&[60, 10, 60, 300, 1, 2, 3, 4, 5]);
        assert_eq!(s.as_slice(), &[1, 2, 3, 4, 5, 10, 60, 300]);
        let ninth = Interval::new(7).unwrap();
        assert_eq!(s.insert(ninth), Err(TooManyIntervals(ninth)));
        assert_eq!(s.insert(Interval::new(60).unwrap()), Ok(()));
        assert_eq!((s.shortest(), s.longest(), s.all()), (1, 300, Affecting(0xff)));
    }

    #[test]
    fn pending_bits_of_intervals_that_remain_are_carried_over() {
        let old = set(&[10, 60, 300]);
        let new = set(&[60, 120, 300]);
        assert_eq!(new.carry_over(&old, Affecting(0b011)), Affecting(0b001));
        assert_eq!(new.carry_over(&old, Affecting(0b100)), Affecting(0b100));
        assert_eq!(new.carry_over(&old, Affecting(0b001)), Affecting::NONE);
    }
}
