//! Exponential back-off with seeded full jitter.

use crate::random::SplitMix64;
use crate::time::Millis;

/// A wait after failures in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackOff {
    pub(super) until: Millis,
    failures: u8,
}

impl BackOff {
    pub(super) const NONE: BackOff = BackOff { until: Millis(0), failures: 0 };

    /// Another failure: waits a random time between `min_ms` and `min_ms · 2^failures`, at most `max_ms`, and at
    /// least `at_least_ms`.
    pub(super) fn fail(
        &mut self,
        now: Millis,
        rng: &mut SplitMix64,
        min_ms: u32,
        max_ms: u32,
        at_least_ms: u32,
    ) {
        self.failures = self.failures.saturating_add(1).min(32);
        let min = u64::from(min_ms.max(1));
        let cap = (min << self.failures.min(31)).min(u64::from(max_ms)).max(min);
        let wait = min + u64::from(rng.below(u32::try_from(cap - min + 1).unwrap_or(u32::MAX)));
        self.until = now.saturating_add(wait.max(u64::from(at_least_ms)));
    }

    /// Whether it waits or has failed since the last success.
    pub(super) const fn failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_one_second_to_five_minutes() {
        let mut rng = SplitMix64::new(1);
        for _ in 0..1000 {
            let mut wait = BackOff::NONE;
            for failures in 1..=40u32 {
                wait.fail(Millis(1000), &mut rng, 1000, 300_000, 0);
                let ms = wait.until.since(Millis(1000));
                let cap = (1000u64 << failures.min(20)).min(300_000);
                assert!((1000..=cap).contains(&ms), "{ms} after {failures}");
            }
        }
    }

    #[test]
    fn what_the_backend_asks_for_is_the_minimum() {
        let (mut wait, mut rng) = (BackOff::NONE, SplitMix64::new(1));
        wait.fail(Millis(0), &mut rng, 1000, 300_000, 3_000_000);
        assert_eq!(wait.until, Millis(3_000_000));
    }
}
