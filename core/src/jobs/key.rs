//! What identifies a job, and the hash of it that decides when the job runs.

use crate::hash::Fnv1a64;
use crate::table::TableKey;
use core::fmt;

/// A job's permanent identity, unique in a collector.
///
/// Its hash is FNV-1a 64 over `account`, `entity`, `item` (8 bytes each, least significant first) and the bytes of
/// `name`. Test vectors:
///
/// | account | entity | item | name | hash |
/// | --- | --- | --- | --- | --- |
/// | 0 | 0 | 0 | | `0x81d23fd7003c2305` |
/// | 1 | 2 | 3 | | `0xda2bfb225e0d1f05` |
/// | 1 | 2 | 3 | `ping` | `0x2c1d9c78f1cc3789` |
/// | 18446744073709551615 | 256 | 0 | `upkeep` | `0xe381a782908674fe` |
///
/// ```
/// use grafolean_core::jobs::JobKey;
/// use grafolean_core::table::TableKey;
/// assert_eq!(JobKey::new(1, 2).hash(), JobKey { account: 1, entity: 2, item: 0, name: "" }.hash());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct JobKey {
    /// The account that the job's values belong to.
    pub account: u64,
    /// The entity that it polls, or 0.
    pub entity: u64,
    /// What tells the jobs of one entity apart (a sensor's id where a bot makes a job per sensor), or 0.
    pub item: u64,
    /// A name, often empty.
    pub name: &'static str,
}

impl JobKey {
    /// The key of the only job of an entity.
    #[must_use]
    pub const fn new(account: u64, entity: u64) -> Self {
        JobKey { account, entity, item: 0, name: "" }
    }

    /// FNV-1a 64 of this key, the same on every target. O(24 + length of the name).
    #[must_use]
    pub const fn fnv1a64(&self) -> u64 {
        Fnv1a64::new().u64(self.account).u64(self.entity).u64(self.item).bytes(self.name.as_bytes()).finish()
    }
}

impl TableKey for JobKey {
    fn hash(&self) -> u64 {
        self.fnv1a64()
    }

    fn account(&self) -> u64 {
        self.account
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job of account {}", self.account)?;
        if self.entity != 0 {
            write!(f, ", entity {}", self.entity)?;
        }
        if self.item != 0 {
            write!(f, ", item {}", self.item)?;
        }
        if !self.name.is_empty() {
            write!(f, ", \"{}\"", self.name)?;
        }
        Ok(())
    }
}
