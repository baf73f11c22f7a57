//! Random choices, all from one seed: each purpose has a stream of its own, so that leaving one out changes no other.

use grafolean_core::hash::Fnv1a64;
use grafolean_core::random::SplitMix64;

/// What random numbers are for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Plan = 1,
    Request = 3,
    Run = 4,
    Config = 5,
    Busy = 6,
    Disk = 7,
    Flash = 8,
    Sync = 9,
    Store = 10,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(SplitMix64);

impl Random {
    /// The stream of this seed for the `n`-th thing of this purpose.
    pub(crate) fn of(seed: u64, purpose: Purpose, n: u64) -> Self {
        Random(SplitMix64::new(Fnv1a64::new().u64(seed).u64(purpose as u64).u64(n).finish()))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high.saturating_sub(low) + 1)
    }

    /// True in so many of 1000 cases.
    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        self.next() % 1000 < u64::from(per_mille)
    }

    /// One of these; the default of an empty list.
    pub(crate) fn pick<T: Copy + Default>(&mut self, of: &[T]) -> T {
        let at = self.next() % (of.len().max(1) as u64);
        usize::try_from(at).ok().and_then(|at| of.get(at)).copied().unwrap_or_default()
    }

    /// From `low` to `high`, each order of magnitude alike; `low` is at least 1.
    pub(crate) fn scaled(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(low).max(1));
        let doublings = u64::from((high / low).ilog2());
        let top = (low << self.between(0, doublings)).min(high);
        self.between(low, (top * 2).min(high))
    }
}
