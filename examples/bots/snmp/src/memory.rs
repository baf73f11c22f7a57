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

    /// Whether it is the turn of this device's entities to be looked after; if so, [`Memory::end_turn`] follows. So many devices
    /// at once wait for the backend that runs for values find room; one that was turned away comes again at its next time,
    /// and is let in before others.
    fn begin_turn(&self, account: u64, device: u64) -> bool {
        let _ = (account, device);
        true
    }

    /// A turn has ended.
    fn end_turn(&self) {}

    /// How the entities of an account are to be had. [`Share::Mine`]: the caller lists them and tells each; others wait.
    fn share(&self, account: u64, device: u64, now: Millis) -> Share {
        let _ = (account, device, now);
        Share::Alone
    }

    /// What has become of the list of an account's entities, or of an entity.
    fn note(&self, account: u64, note: Note<'_>) {
        let _ = (account, note);
    }

    /// The interfaces' entities of a device, of a list that is [`Share::Ready`]; `None`: the list is gone. Else the limit that
    /// an entity of the account was longer than, if any.
    fn children(&self, account: u64, device: u64, each: &mut dyn FnMut(&Child<'_>)) -> Option<Option<usize>> {
        let _ = (account, device, each);
        None
    }

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

/// How the entities of an account are to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// Nobody shares a list: each run lists them for itself.
    Alone,
    /// Another run lists them.
    Wait,
    /// The caller is to list them for all.
    Mine,
    /// They were listed not long ago.
    Ready,
}

/// What has become of a shared list, or of an entity in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note<'c> {
    /// The list has this entity, whose parent is `device`.
    Listed {
        /// Its parent.
        device: u64,
        /// It.
        child: Child<'c>,
    },
    /// The list has come to its end.
    Complete {
        /// When.
        now: Millis,
        /// An entity was longer than this, in bytes.
        unread: Option<usize>,
    },
    /// The list has not come to its end.
    Broken,
    /// The bot has created or changed it.
    Put {
        /// Its parent.
        device: u64,
        /// It, as it is now.
        child: Child<'c>,
    },
    /// The bot has deleted it.
    Deleted {
        /// Its parent.
        device: u64,
        /// Its id.
        id: u64,
    },
    /// What the backend has of this device is not known any more.
    Doubtful {
        /// The device.
        device: u64,
    },
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

    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::string::String;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::vec::Vec;

    use super::{Bytes, Child, Denial, Denials, Full, Hashes, Memory, Note, Places, Share};
    use grafolean_core::hash::Fnv1a64;
    use grafolean_core::time::Millis;
    #[cfg(feature = "v3")]
    use grafolean_snmp_codec::v3;

    /// The most accounts, credentials and agents that are remembered.
    const REMEMBERED: usize = 100_000;

    /// So long a list of an account's entities is shared, in milliseconds.
    const SHARED_MS: u64 = 300_000;
    /// After how long it is tried again to share a list that was too long, in milliseconds.
    const TOO_LONG_MS: u64 = 3_600_000;
    /// All shared lists together take so much, in bytes, roughly: of half a million interfaces.
    const SHARED_BYTES: usize = 128 << 20;
    /// What an entity takes besides its texts, in bytes, roughly.
    const CHILD_BYTES: usize = 128;
    /// So many devices at once wait for the backend, at first; more for those that were turned away, with each time.
    const TURNS: usize = 8;
    const TURNS_MORE: usize = 4;
    /// So many at most.
    const TURNS_MOST: usize = 16;

    /// Memory of a host: it grows with what a run needs, and remembers up to 100,000 accounts, credentials and agents. The
    /// devices of an account share one list of the entities of their interfaces for five minutes, as far as all such lists fit
    /// into 128 MiB.
    #[derive(Debug, Default)]
    pub struct HostMemory {
        denials: Mutex<Remembered<Denial>>,
        turns: Mutex<Turns>,
        lists: Mutex<Lists>,
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

        /// Shared lists of entities take this much together, in bytes, instead of 128 MiB; the account whose list does not fit
        /// is listed by each device for itself.
        #[must_use]
        pub fn shared_bytes(self, limit: usize) -> Self {
            lock(&self.lists).limit = limit;
            self
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

    /// How many devices wait for the backend, and how often others were turned away.
    #[derive(Debug, Default)]
    struct Turns {
        taken: usize,
        turned_away: Remembered<usize>,
    }

    #[derive(Debug)]
    struct Kept {
        name: String,
        index: Option<u32>,
        speed_bps: Option<u64>,
        protocols: String,
    }

    impl Kept {
        fn of(child: &Child<'_>) -> Self {
            let Child { name, index, speed_bps, protocols, .. } = *child;
            Kept { name: name.into(), index, speed_bps, protocols: protocols.into() }
        }

        fn child(&self, id: u64) -> Child<'_> {
            let Kept { index, speed_bps, .. } = *self;
            Child { id, name: &self.name, index, speed_bps, protocols: &self.protocols }
        }

        fn bytes(&self) -> usize {
            CHILD_BYTES + self.name.len() + self.protocols.len()
        }
    }

    /// Whether a list of that time may be used. A time to come is of another clock.
    fn is_new(at: Millis, now: Millis) -> bool {
        now.0.checked_sub(at.0).is_some_and(|ms| ms <= SHARED_MS)
    }

    #[derive(Debug)]
    enum Stage {
        /// It is listed, so far so well.
        UnderWay,
        /// It was listed at this time; an entity was longer than this.
        Ready(Millis, Option<usize>),
        /// There is no room for it until this time.
        TooLong(Option<Millis>),
    }

    /// The interfaces' entities of an account.
    #[derive(Debug)]
    struct List {
        stage: Stage,
        /// By device, and by id.
        children: HashMap<u64, BTreeMap<u64, Kept>>,
        bytes: usize,
        /// Devices whose entities may have changed after they were listed.
        doubtful: HashSet<u64>,
    }

    impl List {
        fn new(stage: Stage) -> Self {
            List { stage, children: HashMap::new(), bytes: 0, doubtful: HashSet::new() }
        }

        fn remove(&mut self, device: u64, id: u64) {
            if let Some(kept) = self.children.get_mut(&device).and_then(|children| children.remove(&id)) {
                self.bytes = self.bytes.saturating_sub(kept.bytes());
            }
        }

        /// Instead of what there is with its id.
        fn put(&mut self, device: u64, child: &Child<'_>) {
            self.remove(device, child.id);
            let kept = Kept::of(child);
            self.bytes += kept.bytes();
            self.children.entry(device).or_default().insert(child.id, kept);
        }
    }

    /// The lists of all accounts.
    #[derive(Debug)]
    struct Lists {
        of: HashMap<u64, List>,
        bytes: usize,
        limit: usize,
    }

    impl Default for Lists {
        fn default() -> Self {
            Lists { of: HashMap::new(), bytes: 0, limit: SHARED_BYTES }
        }
    }

    impl Lists {
        /// Instead of what there is of this account.
        fn begin(&mut self, account: u64, stage: Stage) {
            self.remove(account);
            self.of.insert(account, List::new(stage));
        }

        fn remove(&mut self, account: u64) {
            if let Some(list) = self.of.remove(&account) {
                self.bytes = self.bytes.saturating_sub(list.bytes);
            }
        }

        /// Changes an account's list, and makes room for it.
        fn change(&mut self, account: u64, change: impl FnOnce(&mut List)) {
            let Some(list) = self.of.get_mut(&account) else { return };
            let before = list.bytes;
            change(list);
            self.bytes = (self.bytes + list.bytes).saturating_sub(before);
            while self.bytes > self.limit {
                let other = self.of.iter().find_map(|(other, list)| {
                    (*other != account && matches!(list.stage, Stage::Ready(..))).then_some(*other)
                });
                match (other, self.of.get(&account).map(|list| &list.stage)) {
                    (Some(other), _) => self.remove(other),
                    (None, Some(Stage::Ready(now, _))) => {
                        let until = Millis(now.0.saturating_add(TOO_LONG_MS));
                        return self.begin(account, Stage::TooLong(Some(until)));
                    }
                    (None, _) => return self.begin(account, Stage::TooLong(None)),
                }
            }
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

        fn begin_turn(&self, account: u64, device: u64) -> bool {
            let mut turns = lock(&self.turns);
            let key = Fnv1a64::new().u64(account).u64(device).finish();
            let times = turns.turned_away.0.get(&key).copied().unwrap_or(0);
            let limit = times.saturating_mul(TURNS_MORE).saturating_add(TURNS).min(TURNS_MOST);
            let begins = turns.taken < limit;
            if begins {
                turns.taken += 1;
                turns.turned_away.0.remove(&key);
            } else {
                turns.turned_away.put(key, times.saturating_add(1));
            }
            begins
        }

        fn end_turn(&self) {
            let mut turns = lock(&self.turns);
            turns.taken = turns.taken.saturating_sub(1);
        }

        fn share(&self, account: u64, device: u64, now: Millis) -> Share {
            let mut lists = lock(&self.lists);
            match lists.of.get(&account) {
                Some(List { stage: Stage::UnderWay, .. }) => return Share::Wait,
                Some(List { stage: Stage::TooLong(None), .. }) => return Share::Alone,
                Some(List { stage: Stage::TooLong(Some(until)), .. }) if now < *until => return Share::Alone,
                Some(List { stage: Stage::Ready(at, _), doubtful, .. })
                    if !doubtful.contains(&device) && is_new(*at, now) =>
                {
                    return Share::Ready;
                }
                _ => {}
            }
            // Lists of accounts that nobody asks for any more take no memory for long.
            let old = |(account, list): (&u64, &List)| match list.stage {
                Stage::Ready(at, _) if !is_new(at, now) => Some(*account),
                _ => None,
            };
            while let Some(account) = lists.of.iter().find_map(old) {
                lists.remove(account);
            }
            lists.begin(account, Stage::UnderWay);
            Share::Mine
        }

        fn note(&self, account: u64, note: Note<'_>) {
            let mut lists = lock(&self.lists);
            let Some(list) = lists.of.get_mut(&account) else { return };
            match (note, &mut list.stage) {
                (Note::Listed { device, child }, Stage::UnderWay) => {
                    lists.change(account, |list| list.put(device, &child));
                }
                (Note::Complete { now, unread }, stage @ Stage::UnderWay) => {
                    *stage = Stage::Ready(now, unread);
                }
                (Note::Complete { now, .. }, Stage::TooLong(until @ None)) => {
                    *until = Some(Millis(now.0.saturating_add(TOO_LONG_MS)));
                }
                (Note::Broken, Stage::UnderWay | Stage::TooLong(None)) => lists.remove(account),
                (Note::Put { device, child }, Stage::Ready(..)) => {
                    lists.change(account, |list| list.put(device, &child));
                }
                (Note::Deleted { device, id }, Stage::Ready(..)) => {
                    lists.change(account, |list| list.remove(device, id));
                }
                (Note::Doubtful { .. }, Stage::Ready(..)) => lists.remove(account),
                (
                    Note::Put { device, .. } | Note::Deleted { device, .. } | Note::Doubtful { device },
                    Stage::UnderWay,
                ) => drop(list.doubtful.insert(device)),
                _ => {}
            }
        }

        fn children(
            &self,
            account: u64,
            device: u64,
            each: &mut dyn FnMut(&Child<'_>),
        ) -> Option<Option<usize>> {
            let lists = lock(&self.lists);
            let list = lists.of.get(&account)?;
            let Stage::Ready(_, unread) = list.stage else { return None };
            list.children.get(&device).into_iter().flatten().for_each(|(id, kept)| each(&kept.child(*id)));
            Some(unread)
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
