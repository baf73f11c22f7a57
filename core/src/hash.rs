//! FNV-1a, 64 bits: the hash that decides *when* (phases, first runs), the same on every target.
//!
//! Test vectors (offset basis `0xcbf29ce484222325`, prime `0x100000001b3`):
//!
//! | bytes | hash |
//! | --- | --- |
//! | none | `0xcbf29ce484222325` |
//! | `a` | `0xaf63dc4c8601ec8c` |
//! | `foobar` | `0x85944171f73967e8` |
//!
//! ```
//! use grafolean_core::hash::Fnv1a64;
//! assert_eq!(Fnv1a64::of(b"foobar"), 0x8594_4171_f739_67e8);
//! ```

/// FNV-1a 64 over bytes, fed piece by piece. Source: <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>.
///
/// Not collision resistant: use it to spread, and as a cheap "has this changed" where an equal hash does no harm.
#[derive(Clone, Copy, Debug)]
pub struct Fnv1a64(u64);

impl Default for Fnv1a64 {
    fn default() -> Self {
        Self::new()
    }
}

impl Fnv1a64 {
    /// A hash of nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Fnv1a64(0xcbf2_9ce4_8422_2325)
    }

    /// The hash of `bytes`.
    #[must_use]
    pub const fn of(bytes: &[u8]) -> u64 {
        Self::new().bytes(bytes).finish()
    }

    /// This hash continued by `bytes`.
    #[must_use]
    pub const fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut i = 0;
        while i < bytes.len() {
            self.0 = (self.0 ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            i += 1;
        }
        self
    }

    /// This hash continued by the eight bytes of `n`, least significant first.
    #[must_use]
    pub const fn u64(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    /// The hash of all that was fed.
    #[must_use]
    pub const fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_vectors_hold() {
        assert_eq!(Fnv1a64::of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv1a64::of(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fnv1a64::of(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn integers_are_fed_least_significant_byte_first() {
        assert_eq!(
            Fnv1a64::new().u64(0x0807_0605_0403_0201).finish(),
            Fnv1a64::of(&[1, 2, 3, 4, 5, 6, 7, 8])
        );
    }
}
