//! A fresh generator for each connection, from the board's randomness.

use rand_core::{CryptoRng, CryptoRngCore, RngCore};
use sha2::{Digest, Sha256};

use super::TlsFault;

/// The board's generator, with what has been drawn from it so far.
///
/// A connection's key is a hash of 64 fresh bytes and of all that came before: bytes that are not quite even, as those of
/// a ring oscillator, become a full key.
pub(super) struct Random<R> {
    source: R,
    state: [u8; 32],
    /// The hash of the last 64 bytes.
    last: [u8; 32],
}

impl<R: CryptoRngCore> Random<R> {
    pub(super) const fn new(source: R) -> Self {
        Random { source, state: [0; 32], last: [0; 32] }
    }

    /// A generator for one connection.
    pub(super) fn seed(&mut self) -> Result<Seeded, TlsFault> {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        self.source.try_fill_bytes(&mut a).map_err(|_| TlsFault::Random)?;
        self.source.try_fill_bytes(&mut b).map_err(|_| TlsFault::Random)?;
        let drawn: [u8; 32] = Sha256::new().chain_update(a).chain_update(b).finalize().into();
        // A generator that is off or stuck gives the same again and again.
        if a == b || drawn == self.last {
            return Err(TlsFault::Random);
        }
        self.last = drawn;
        let hash = |label: u8| {
            Sha256::new().chain_update([label]).chain_update(self.state).chain_update(a).chain_update(b)
        };
        let key = hash(1).finalize().into();
        self.state = hash(2).finalize().into();
        Ok(Seeded { key, blocks: 0 })
    }
}

/// SHA-256 of a key and a counter.
pub(super) struct Seeded {
    key: [u8; 32],
    blocks: u64,
}

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for part in dest.chunks_mut(32) {
            let block =
                Sha256::new().chain_update(self.key).chain_update(self.blocks.to_le_bytes()).finalize();
            self.blocks += 1;
            for (to, from) in part.iter_mut().zip(block) {
                *to = from;
            }
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Seeded {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Gives its bytes from a function of how many were given before.
    struct Source<F>(u64, F);

    impl<F: Fn(u64) -> Option<u8>> RngCore for Source<F> {
        fn next_u32(&mut self) -> u32 {
            0
        }
        fn next_u64(&mut self) -> u64 {
            0
        }
        fn fill_bytes(&mut self, _: &mut [u8]) {}
        fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
            for byte in dest {
                *byte = self.1(self.0).ok_or(core::num::NonZeroU32::MIN)?;
                self.0 += 1;
            }
            Ok(())
        }
    }

    impl<F: Fn(u64) -> Option<u8>> CryptoRng for Source<F> {}

    #[test]
    fn a_generator_that_fails_or_repeats_itself_is_refused() {
        let seed = |f: fn(u64) -> Option<u8>| Random::new(Source(0, f)).seed().map(|_| ());
        assert_eq!(seed(|_| None), Err(TlsFault::Random));
        assert_eq!(seed(|_| Some(0)), Err(TlsFault::Random));
        assert_eq!(seed(|_| Some(0xff)), Err(TlsFault::Random));
        assert_eq!(seed(|n| Some((n % 32) as u8)), Err(TlsFault::Random));
        assert_eq!(seed(|n| (n < 60).then_some(n as u8)), Err(TlsFault::Random));
        // The same 64 bytes at each draw.
        let mut random = Random::new(Source(0, |n| Some((n % 64) as u8)));
        assert!(random.seed().is_ok());
        assert_eq!(random.seed().map(|_| ()), Err(TlsFault::Random));
    }

    #[test]
    fn each_seed_gives_other_bytes_and_no_block_comes_twice() {
        let mut random =
            Random::new(Source(0, |n: u64| Some((n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)));
        let mut blocks = HashSet::new();
        for _ in 0..100 {
            let mut seeded = random.seed().unwrap();
            let mut bytes = [0; 100];
            seeded.fill_bytes(&mut bytes);
            for block in bytes.chunks_exact(20) {
                assert!(blocks.insert(block.to_vec()));
            }
            assert!(blocks.insert(seeded.next_u64().to_le_bytes().to_vec()));
        }
    }
}
