//! What an invariant that does not hold looks like.

use core::fmt;

/// Which invariant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Invariant {
    /// The collector's ledger balances, and counts what the oracle counts.
    Ledger,
    /// A value goes out with the path, number and time that it was handed over with, and is there exactly once.
    Values,
    /// Nothing is sent again that must not be.
    Repeats,
    /// Nothing is dropped unless a bound or a rule said so.
    Drops,
    /// Jobs run at each of their instants, with the intervals that fell due, whatever faults and refreshes there are.
    Schedule,
    /// The jobs are those of the configuration; a failed account keeps its jobs.
    Jobs,
    /// No job runs twice at once.
    TwiceAtOnce,
    /// After the faults the backlog drains in bounded time, live values are not held up.
    Drain,
    /// Memory and requests keep to their bounds.
    Bounds,
    /// Keyed state is what was stored last.
    State,
    /// The collector always comes to rest, and stops when told to.
    Rest,
    /// What was stored survives as the policy says.
    Storage,
}

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// When, in milliseconds since the start.
    pub at_ms: u64,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.at_ms / 1000, self.at_ms % 1000);
        write!(f, "{:?} violated at {s}.{ms:03} s: {}", self.invariant, self.found)
    }
}

impl core::error::Error for Violation {}
