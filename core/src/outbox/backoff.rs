//! Exponential back-off with seeded full jitter.

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
        let wait = min + rng.below(cap - min + 1);
        self.until = now.saturating_add(wait.max(u64::from(at_least_ms)));
    }

    /// Whether it waits or has failed since the last success.
    pub(super) const fn failing(&self) -> bool {
        self.failures > 0
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a generator of 8 bytes, good enough to spread retries.
#[derive(Clone, Copy, Debug)]
pub(super) struct SplitMix64(pub(super) u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (which fits 32 bits and is not 0), the bias is below 2^-32.
    fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * (n & 0xffff_ffff)) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_sequence() {
        let mut rng = SplitMix64(1_234_567);
        let got = [rng.next(), rng.next(), rng.next()];
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn waits_grow_from_one_second_to_five_minutes() {
        let mut rng = SplitMix64(1);
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
        let (mut wait, mut rng) = (BackOff::NONE, SplitMix64(1));
        wait.fail(Millis(0), &mut rng, 1000, 300_000, 3_000_000);
        assert_eq!(wait.until, Millis(3_000_000));
    }
}
