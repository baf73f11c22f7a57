//! The memory that the bot's runs take: of a fixed size on boards, growing up to a limit on hosts.
//!
//! [`BoardMemory`] needs no allocator; [`HostMemory`], of the feature `std`, is for hosts.

use core::cell::RefCell;
use core::fmt;

use grafolean_core::time::Millis;
#[cfg(feature = "v3")]
use grafolean_snmp_codec::v3;

/// After how long a change of entities that was denied is tried again, in milliseconds.
pub const TRY_AGAIN_MS: u64 = 3_600_000;

/// No room is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room is left")
    }
}

impl core::error::Error for Full {}

/// What the bot keeps, for a run or between runs.
pub trait Memory {
    /// Bytes of a run: names, readings, interfaces.
    type Bytes: Bytes;
    /// A few bytes of a run: the entities that seem to be gone.
    type Few: Bytes;
    /// Where something is among the bytes of a run.
    type Places: Places;
    /// Numbers of a run, to find those that come twice.
    type Hashes: Hashes;

    /// The accounts in which the bot may not change entities.
    fn denials(&self, look: &mut dyn FnMut(&mut dyn Denials));

    /// The keys that were made of a credential, by a hash of it.
    #[cfg(feature = "v3")]
    fn master_keys(&self, credential: u64) -> Option<v3::MasterKeys> {
        let _ = credential;
        None
    }

    /// Keeps them, if there is room.
    #[cfg(feature = "v3")]
    fn keep_master_keys(&self, credential: u64, keys: &v3::MasterKeys) {
        let _ = (credential, keys);
    }

    /// What is known of an agent, by a hash of its address and credential.
    #[cfg(feature = "v3")]
    fn user(&self, agent: u64) -> Option<(v3::Engine, v3::LocalizedKeys)> {
        let _ = agent;
        None
    }

    /// Keeps it, if there is room; `None`: forgets it.
    #[cfg(feature = "v3")]
    fn keep_user(&self, agent: u64, user: Option<(v3::Engine, &v3::LocalizedKeys)>) {
        let _ = (agent, user);
    }
}

/// Bytes up to a limit.
pub trait Bytes: Default {
    /// The most bytes.
    const LIMIT: usize;
    /// Those there are.
    fn as_slice(&self) -> &[u8];
    /// Those there are, to be changed.
    fn as_mut_slice(&mut self) -> &mut [u8];
    /// Appends all of `bytes`, or none.
    ///
    /// # Errors
    /// [`Full`].
    fn append(&mut self, bytes: &[u8]) -> Result<(), Full>;
    /// Keeps the first `len`.
    fn truncate(&mut self, len: usize);
}

/// Where something is, by keys.
pub trait Places: Default {
    /// Puts a place in, instead of what the key had.
    fn put(&mut self, key: u64, at: usize);
    /// The place of a key; `None`: nothing is kept here, so it has to be looked for.
    fn get(&self, key: u64) -> Option<Option<usize>>;
}

/// Keeps none: few interfaces are looked through faster.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPlaces;

impl Places for NoPlaces {
    fn put(&mut self, _: u64, _: usize) {}
    fn get(&self, _: u64) -> Option<Option<usize>> {
        None
    }
}

/// An entity of an interface, as the backend has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child<'a> {
    /// Its id.
    pub id: u64,
    /// Its name; empty if it is longer than an interface's.
    pub name: &'a str,
    /// ifIndex, if readable.
    pub index: Option<u32>,
    /// ifSpeed in bit/s, if readable.
    pub speed_bps: Option<u64>,
    /// Its protocols: JSON.
    pub protocols: &'a str,
}

/// A set of numbers up to a limit.
pub trait Hashes: Default {
    /// The most numbers.
    const LIMIT: usize;
    /// Puts one in; whether it is new.
    ///
    /// # Errors
    /// [`Full`]: it is not in it, and there is no room.
    fn insert(&mut self, hash: u64) -> Result<bool, Full>;
}

/// Accounts in which the bot may not change entities.
pub trait Denials {
    /// The one of this account, put in if there is none: `None` if there is no room.
    fn of(&mut self, account: u64) -> Option<&mut Denial>;
}

/// Whether the bot may change an account's entities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Denial {
    /// The account.
    pub account: u64,
    /// When it may be tried again; `None`: it may.
    pub until: Option<Millis>,
    /// The entity whose job says so, so that it is said once.
    pub said_by: u64,
}

impl<const N: usize> Bytes for heapless::Vec<u8, N> {
    const LIMIT: usize = N;
    fn as_slice(&self) -> &[u8] {
        self
    }
    fn as_mut_slice(&mut self) -> &mut [u8] {
        self
    }
    fn append(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.extend_from_slice(bytes).map_err(|_| Full)
    }
    fn truncate(&mut self, len: usize) {
        heapless::Vec::truncate(self, len);
    }
}

impl<const N: usize> Hashes for heapless::Vec<u64, N> {
    const LIMIT: usize = N;
    fn insert(&mut self, hash: u64) -> Result<bool, Full> {
        if self.contains(&hash) {
            return Ok(false);
        }
        self.push(hash).map(|()| true).map_err(|_| Full)
    }
}

impl<const N: usize> Denials for heapless::Vec<Denial, N> {
    fn of(&mut self, account: u64) -> Option<&mut Denial> {
        let at = match self.iter().position(|denial| denial.account == account) {
            Some(at) => at,
            None => {
                self.push(Denial { account, ..Denial::default() }).ok()?;
                self.len() - 1
            }
        };
        self.get_mut(at)
    }
}

/// Memory of a fixed size: each run takes three times `BYTES` bytes, and `HASHES` times 8.
#[derive(Debug, Default)]
pub struct BoardMemory<const BYTES: usize, const HASHES: usize> {
    denials: RefCell<heapless::Vec<Denial, 2>>,
}

impl<const BYTES: usize, const HASHES: usize> BoardMemory<BYTES, HASHES> {
    /// Nothing is kept yet.
    #[must_use]
    pub const fn new() -> Self {
        BoardMemory { denials: RefCell::new(heapless::Vec::new()) }
    }
}

impl<const BYTES: usize, const HASHES: usize> Memory for BoardMemory<BYTES, HASHES> {
    type Bytes = heapless::Vec<u8, BYTES>;
    type Few = heapless::Vec<u8, 54>;
    type Places = NoPlaces;
    type Hashes = heapless::Vec<u64, HASHES>;

    fn denials(&self, look: &mut dyn FnMut(&mut dyn Denials)) {
        if let Ok(mut denials) = self.denials.try_borrow_mut() {
            look(&mut *denials);
        }
    }
}

#[cfg(feature = "std")]
pub use host::{FewBytes, GrowingBytes, HostHashes, HostMemory, HostPlaces};

#[cfg(feature = "std")]
mod host {
    extern crate std;

    use std::collections::{HashMap, HashSet};
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::vec::Vec;

    use super::{Bytes, Denial, Denials, Full, Hashes, Memory, Places};
    #[cfg(feature = "v3")]
    use grafolean_snmp_codec::v3;

    /// The most accounts, credentials and agents that are remembered.
    const REMEMBERED: usize = 100_000;

    /// Memory of a host: it grows with what a run needs, and remembers up to 100,000 accounts, credentials and agents.
    #[derive(Debug, Default)]
    pub struct HostMemory {
        denials: Mutex<Remembered<Denial>>,
        #[cfg(feature = "v3")]
        master_keys: Mutex<Remembered<v3::MasterKeys>>,
        #[cfg(feature = "v3")]
        users: Mutex<Remembered<(v3::Engine, v3::LocalizedKeys)>>,
    }

    impl HostMemory {
        /// Nothing is kept yet.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }
    }

    /// Every change under these locks is complete at each panic that could happen, so a poisoned one is used on.
    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[derive(Debug)]
    struct Remembered<T>(HashMap<u64, T>);

    impl<T> Default for Remembered<T> {
        fn default() -> Self {
            Remembered(HashMap::new())
        }
    }

    impl<T> Remembered<T> {
        /// A full one forgets something, which is then found out anew.
        fn put(&mut self, key: u64, value: T) {
            if self.0.len() >= REMEMBERED
                && !self.0.contains_key(&key)
                && let Some(any) = self.0.keys().next().copied()
            {
                self.0.remove(&any);
            }
            self.0.insert(key, value);
        }
    }

    impl Denials for Remembered<Denial> {
        fn of(&mut self, account: u64) -> Option<&mut Denial> {
            if !self.0.contains_key(&account) {
                self.put(account, Denial { account, ..Denial::default() });
            }
            self.0.get_mut(&account)
        }
    }

    impl Memory for HostMemory {
        type Bytes = GrowingBytes;
        type Few = FewBytes;
        type Places = HostPlaces;
        type Hashes = HostHashes;

        fn denials(&self, look: &mut dyn FnMut(&mut dyn Denials)) {
            look(&mut *lock(&self.denials));
        }

        #[cfg(feature = "v3")]
        fn master_keys(&self, credential: u64) -> Option<v3::MasterKeys> {
            lock(&self.master_keys).0.get(&credential).cloned()
        }

        #[cfg(feature = "v3")]
        fn keep_master_keys(&self, credential: u64, keys: &v3::MasterKeys) {
            lock(&self.master_keys).put(credential, keys.clone());
        }

        #[cfg(feature = "v3")]
        fn user(&self, agent: u64) -> Option<(v3::Engine, v3::LocalizedKeys)> {
            lock(&self.users).0.get(&agent).cloned()
        }

        #[cfg(feature = "v3")]
        fn keep_user(&self, agent: u64, user: Option<(v3::Engine, &v3::LocalizedKeys)>) {
            match user {
                Some((engine, keys)) => lock(&self.users).put(agent, (engine, keys.clone())),
                None => drop(lock(&self.users).0.remove(&agent)),
            }
        }
    }

    /// Bytes up to 16 MiB: of 60,000 interfaces with the longest names.
    #[derive(Debug, Default)]
    pub struct GrowingBytes(Vec<u8>);

    impl Bytes for GrowingBytes {
        const LIMIT: usize = 16 << 20;
        fn as_slice(&self) -> &[u8] {
            &self.0
        }
        fn as_mut_slice(&mut self) -> &mut [u8] {
            &mut self.0
        }
        fn append(&mut self, bytes: &[u8]) -> Result<(), Full> {
            if self.0.len() + bytes.len() > Self::LIMIT {
                return Err(Full);
            }
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn truncate(&mut self, len: usize) {
            self.0.truncate(len);
        }
    }

    /// Bytes for 768 entities that seem to be gone.
    #[derive(Debug, Default)]
    pub struct FewBytes(Vec<u8>);

    impl Bytes for FewBytes {
        const LIMIT: usize = 768 * 9;
        fn as_slice(&self) -> &[u8] {
            &self.0
        }
        fn as_mut_slice(&mut self) -> &mut [u8] {
            &mut self.0
        }
        fn append(&mut self, bytes: &[u8]) -> Result<(), Full> {
            if self.0.len() + bytes.len() > Self::LIMIT {
                return Err(Full);
            }
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn truncate(&mut self, len: usize) {
            self.0.truncate(len);
        }
    }

    /// Places by hash.
    #[derive(Debug, Default)]
    pub struct HostPlaces(HashMap<u64, usize>);

    impl Places for HostPlaces {
        fn put(&mut self, key: u64, at: usize) {
            self.0.insert(key, at);
        }
        fn get(&self, key: u64) -> Option<Option<usize>> {
            Some(self.0.get(&key).copied())
        }
    }

    /// A million numbers at most.
    #[derive(Debug, Default)]
    pub struct HostHashes(HashSet<u64>);

    impl Hashes for HostHashes {
        const LIMIT: usize = 1_000_000;
        fn insert(&mut self, hash: u64) -> Result<bool, Full> {
            if self.0.len() >= Self::LIMIT && !self.0.contains(&hash) {
                return Err(Full);
            }
            Ok(self.0.insert(hash))
        }
    }
}
