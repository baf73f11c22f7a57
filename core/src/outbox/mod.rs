//! What waits to be delivered: bounded in bytes and age, with a ledger of every value.
//!
//! [`Outbox`] is the state, [`OutboxMem`] the memory that its owner lends at every call: the same code serves
//! `[Cell; 64]` in a static on a board and boxed slices of millions of cells on a server. Values go in by
//! [`push`](Outbox::push); [`poll`](Outbox::poll) says which request is to be sent next, one at a time,
//! [`body`](Outbox::body) gives its bytes, and [`handle_outcome`](Outbox::handle_outcome) takes what became of it.
//!
//! ```
//! use grafolean_core::outbox::{AccountQueue, Cell, Method, Outbox, OutboxMem, Outcome, Settings, ValueTime};
//! use grafolean_core::time::{Millis, UnixMillis};
//! use grafolean_core::values::{MAX_PATH_BYTES, Number, ValuePath};
//!
//! let (mut cells, mut index, mut accounts) = ([Cell::EMPTY; 64], [0; 64], [AccountQueue::EMPTY; 1]);
//! let mut mem = OutboxMem {
//!     cells: &mut cells, index: &mut index, accounts: &mut accounts, records: &mut [], left: &mut [],
//! };
//! let mut outbox = Outbox::new(Settings::DEFAULT);
//!
//! let path = ValuePath::new("board.temperature", MAX_PATH_BYTES).unwrap();
//! let time = ValueTime::Unix(UnixMillis(1_700_000_000_123));
//! outbox.push(&mut mem, Millis(1000), 7, time, path, &21.5.number_text().unwrap()).unwrap();
//!
//! let due = outbox.poll_timeout().unwrap();
//! let head = outbox.poll(&mut mem, due).unwrap();
//! assert_eq!((head.account, head.method, head.values), (7, Method::Put, 1));
//! let mut body = [0; 64];
//! let n = outbox.body(&mut mem, 0, &mut body);
//! assert_eq!(&body[..n], br#"[{"p":"board.temperature","v":21.5,"t":1700000000.123}]"#);
//! assert_eq!(n, head.body_len as usize);
//!
//! outbox.handle_outcome(&mut mem, due, Outcome::status(204));
//! assert_eq!(outbox.ledger().delivered, 1);
//! ```
//!
//! # Cost
//! A value takes 48 bytes if path and number have at most 14 together, 96 up to 58, 144 up to 102, and so on by 44
//! ([`Cell::needed`]); plus 4 bytes per bucket of the index (about one bucket per value). An account takes about 150
//! bytes, the state about 800, the code 14 kB on a Cortex-M0+.
//!
//! `push` is O(length of the path), plus O(accounts) when the outbox is full. `poll` is O(1) before the time that
//! `poll_timeout` gives, else O(accounts) plus O(values in the batch). `body` is O(bytes) read in order, and
//! `handle_outcome` O(values in the batch).
//!
//! # With a store
//! A store (flash on a board, files on a host) keeps values beyond a loss of power, and beyond what memory holds. It only
//! keeps bytes: each value's are its *record*, named by a number. Everything about values is decided here:
//! [`push_stored`](Outbox::push_stored) takes a value with its record, or [`set_record`](Outbox::set_record) gives one
//! later; [`poll_left`](Outbox::poll_left) says which record is done with, and which is *parked*: the only copy from now
//! on, as memory was needed; [`recover`](Outbox::recover) takes a parked value back,
//! [`room_for_backlog`](Outbox::room_for_backlog) says how many. Parked values count as queued.
//! Without a store, `records` and `left` of [`OutboxMem`] are empty slices.
//!
//! # Errors
//! [`PushError`]: a value that can't be kept is refused and was never collected. All that happens later is counted
//! in the [`Ledger`] and told by [`poll_event`](Outbox::poll_event).

mod account;
mod backoff;
mod cells;
mod delivery;
mod event;
mod ledger;
mod stored;

use core::fmt;

use heapless::Deque;

use crate::random::SplitMix64;
use crate::time::{Millis, UnixMillis};
use crate::values::{MAX_PATH_BYTES, NumberText, ValuePath};
use account::Table;
use backoff::BackOff;
use cells::{Cells, Index, Key, Link, NONE, NewHead, Place, Pool, TIME_MAX, pieces};
use delivery::Flight;

pub use account::AccountQueue;
pub use cells::Cell;
pub use delivery::{BatchHead, Method, Outcome};
pub use event::OutboxEvent;
pub use ledger::{DropReason, Ledger};
pub use stored::{Left, RECORD_MAX, Unstored};

/// The memory of an outbox. The same at every call; only [`Outbox::handle_grown`] allows other slices.
///
/// Zeroed memory (`Cell::EMPTY`, `0`, `AccountQueue::EMPTY`) is an empty outbox.
#[derive(Debug)]
pub struct OutboxMem<'a> {
    /// Where values are kept: their number is the bound of the outbox.
    pub cells: &'a mut [Cell],
    /// Buckets that find a value by (account, path, time); about one per value expected.
    pub index: &'a mut [u32],
    /// One per account, at most 65,535.
    pub accounts: &'a mut [AccountQueue],
    /// With a store: the record of the value that begins in the cell of the same index, 0 if none. As many as `cells`, or
    /// none at all: then nothing can be stored.
    pub records: &'a mut [u64],
    /// With a store: records that wait for [`Outbox::poll_left`]. At least one more than `cells`, or none at all.
    pub left: &'a mut [u64],
}

/// How values are delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DeliveryMethod {
    /// By PUT with times; by POST where the backend permits only that.
    #[default]
    PutElsePost,
    /// By POST: the backend stamps the values. For permissions that never include PUT.
    PostOnly,
}

/// The limits of an outbox; capacity comes from [`OutboxMem`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Settings {
    /// Values in a PUT at most.
    pub max_values: u16,
    /// Values in a POST at most (the backend stores pages of 100: a larger one can be stored in part).
    pub post_max_values: u16,
    /// Bytes in a body at most; the backend's front refuses more than 1 MiB.
    pub max_body_bytes: u32,
    /// How long a live value waits for others to share its request, ms; at most 1000.
    pub linger_ms: u32,
    /// A value that waited longer is dropped, ms.
    pub max_age_ms: u64,
    /// A POST takes no value older than this, ms: the backend would stamp it falsely.
    pub post_max_age_ms: u32,
    /// The shortest wait after a failure, ms.
    pub backoff_min_ms: u32,
    /// The longest wait after failures, ms.
    pub backoff_max_ms: u32,
    /// `Retry-After` is honoured up to this, ms.
    pub retry_after_max_ms: u32,
    /// Pause between two requests of values that were kept, ms: live values and the backend need room.
    pub backlog_gap_ms: u32,
    /// PUT, POST or both.
    pub delivery: DeliveryMethod,
    /// Seed of the jitter: give each collector its own.
    pub seed: u64,
}

impl Settings {
    /// The defaults.
    pub const DEFAULT: Settings = Settings {
        max_values: 1000,
        post_max_values: 100,
        max_body_bytes: 256 * 1024,
        linger_ms: 500,
        max_age_ms: 7 * 24 * 3_600_000,
        post_max_age_ms: 5_000,
        backoff_min_ms: 1_000,
        backoff_max_ms: 300_000,
        retry_after_max_ms: 24 * 3_600_000,
        backlog_gap_ms: 100,
        delivery: DeliveryMethod::PutElsePost,
        seed: 0,
    };
}

impl Default for Settings {
    fn default() -> Self {
        Settings::DEFAULT
    }
}

/// The time of a value that is handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ValueTime {
    /// Fixed.
    Unix(UnixMillis),
    /// Monotonic time of this boot: becomes Unix time once, when the wall clock is known
    /// ([`Outbox::handle_wall`]), at once if it is.
    Monotonic(Millis),
}

/// Why a value was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PushError {
    /// It needs more than the whole outbox.
    TooLarge {
        /// What it needs, in bytes.
        bytes: usize,
        /// What the outbox has, in bytes.
        limit: usize,
    },
    /// Its path is longer than 65,535 bytes.
    PathTooLong {
        /// The path's length in bytes.
        len: usize,
    },
    /// All places for accounts are taken by accounts whose values wait.
    TooManyAccounts {
        /// The places.
        capacity: usize,
    },
    /// Its time is after the year 10889.
    TimeTooLate {
        /// The time.
        time: ValueTime,
    },
    /// The outbox was lent no index.
    NoIndex,
    /// The record's number is 0 or over [`RECORD_MAX`].
    BadRecord {
        /// The number.
        record: u64,
    },
    /// The memory has no room for records ([`OutboxMem::records`], [`OutboxMem::left`]).
    NotStoring,
    /// Too many records wait to be polled: call [`Outbox::poll_left`] until it gives none.
    LeftNotPolled,
    /// Only of [`Outbox::recover`]: no room for it now. The value stays parked.
    NoRoom,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            PushError::TooLarge { bytes, limit } => {
                write!(f, "value needs {bytes} bytes, the whole outbox has {limit} bytes")
            }
            PushError::PathTooLong { len } => {
                write!(f, "path of {len} bytes is over the limit of 65535 bytes")
            }
            PushError::TooManyAccounts { capacity } => {
                write!(f, "outbox has room for {capacity} accounts and values of all of them wait")
            }
            PushError::TimeTooLate {
                time: ValueTime::Unix(UnixMillis(ms)) | ValueTime::Monotonic(Millis(ms)),
            } => {
                write!(f, "time {ms} ms is over the limit of {TIME_MAX} ms")
            }
            PushError::NoIndex => f.write_str("outbox has no index: lend at least one bucket"),
            PushError::BadRecord { record } => {
                write!(f, "record {record} is not between 1 and {RECORD_MAX}")
            }
            PushError::NotStoring => f.write_str(
                "outbox has no memory for records: lend as many as cells, and one more for those that leave",
            ),
            PushError::LeftNotPolled => f.write_str("records that have left the outbox wait to be polled"),
            PushError::NoRoom => f.write_str("outbox has no room for a parked value now"),
        }
    }
}

impl core::error::Error for PushError {}

/// What is known about one account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AccountStatus {
    /// Values in memory that wait or are in flight.
    pub queued: u32,
    /// Memory that they take, in bytes.
    pub bytes: usize,
    /// How values are sent at present.
    pub method: Method,
    /// The next try after a failure, if there was one since the last success.
    pub retry_at: Option<Millis>,
}

/// Events that wait at most; beyond that the oldest is forgotten.
const EVENTS: usize = 8;

/// The state of an outbox; its memory is [`OutboxMem`].
#[derive(Debug)]
pub struct Outbox {
    settings: Settings,
    /// The latest time seen: time never goes back.
    now: Millis,
    pool: Pool,
    /// Account places ever used.
    accounts: u16,
    ledger: Ledger,
    /// Queued values without Unix time.
    untimed: u64,
    /// Unix ms at monotonic 0, once known.
    wall: Option<i64>,
    flight: Option<Flight>,
    /// The next time at which `poll` has something to do, if nothing changes.
    wake: Millis,
    /// Where the rounds of accounts go on: of live values, of suspects, of values that were kept. Each has its own, or
    /// the turns of one would start another over, and the accounts at its end would starve.
    rounds: [u16; 3],
    prefer_suspects: bool,
    /// Values in the backlog and under suspicion, of all accounts.
    kept: u32,
    /// Requests since the last one of values that were kept.
    in_a_row: u8,
    link: BackOff,
    link_told: bool,
    rng: SplitMix64,
    /// Requests that succeeded, and refreshes that ended.
    successes: u32,
    refreshes: u32,
    /// What a 413 taught about bodies, bytes.
    body_limit: u32,
    backlog_after: Millis,
    flushing: bool,
    /// Values dropped since the outbox became full.
    full_dropped: u64,
    stored: stored::Stored,
    events: Deque<OutboxEvent, EVENTS>,
    refused_path: [u8; MAX_PATH_BYTES],
    refused_path_len: usize,
}

impl Outbox {
    /// An empty outbox; its memory must be empty too.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Outbox {
            settings,
            now: Millis(0),
            pool: Pool::EMPTY,
            accounts: 0,
            ledger: Ledger::EMPTY,
            untimed: 0,
            wall: None,
            flight: None,
            wake: NEVER,
            rounds: [0; 3],
            prefer_suspects: false,
            kept: 0,
            in_a_row: 0,
            link: BackOff::NONE,
            link_told: false,
            rng: SplitMix64::new(settings.seed),
            successes: 0,
            refreshes: 0,
            body_limit: settings.max_body_bytes,
            backlog_after: Millis(0),
            flushing: false,
            full_dropped: 0,
            stored: stored::Stored::NONE,
            events: Deque::new(),
            refused_path: [0; MAX_PATH_BYTES],
            refused_path_len: 0,
        }
    }

    /// The limits.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The counts of all values.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Values that wait, in memory or parked, or are in flight.
    #[must_use]
    pub const fn queued(&self) -> u64 {
        self.ledger.queued
    }

    /// Whether nothing waits in memory and nothing is in flight; values may be parked.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.ledger.queued == self.stored.parked
    }

    /// Whether a value whose path and number have `text_bytes` together can be taken without dropping another one.
    #[must_use]
    pub fn has_room(&self, mem: &OutboxMem<'_>, text_bytes: usize) -> bool {
        mem.cells.len() - mem.cells.len().min(self.pool.used() as usize) >= Cell::needed(text_bytes)
    }

    /// Memory taken by values, in bytes.
    #[must_use]
    pub const fn bytes_used(&self) -> usize {
        self.pool.used() as usize * Cell::BYTES
    }

    /// What is known about `account`; `None` if nothing.
    #[must_use]
    pub fn account(&self, mem: &mut OutboxMem<'_>, account: u64) -> Option<AccountStatus> {
        let slot = Table { slots: mem.accounts }.find(account)?;
        let q = mem.accounts.get(usize::from(slot))?;
        Some(AccountStatus {
            queued: q.queued,
            bytes: q.cells as usize * Cell::BYTES,
            method: if self.posts(q) { Method::Post } else { Method::Put },
            retry_at: q.wait.failing().then_some(q.wait.until),
        })
    }

    /// Takes a value that was handed over at `now`, to be sent soon. If a value with the same account, path and
    /// time waits, this one takes its place. If there is no room, the oldest values of the account that
    /// uses the most memory are parked (if they have a record) or dropped, or, if all are in flight, this one.
    ///
    /// # Errors
    /// [`PushError`]; nothing is changed then, and the value does not count as collected.
    pub fn push(
        &mut self,
        mem: &mut OutboxMem<'_>,
        now: Millis,
        account: u64,
        time: ValueTime,
        path: ValuePath<'_>,
        number: &NumberText,
    ) -> Result<(), PushError> {
        self.enter(mem, now, account, time, path, number, Entry::New { record: 0 })
    }

    /// Counts values found in a store that can't be taken back: [`DropReason::Corrupt`], or [`DropReason::NoTime`] for
    /// those of an earlier boot whose time can never be known. Those that [`handle_stored`](Outbox::handle_stored) has
    /// counted are given up by [`drop_parked`](Outbox::drop_parked).
    pub fn count_unrecoverable(&mut self, reason: DropReason, values: u64) {
        self.ledger.recovered += values;
        self.ledger.count_dropped(reason, values);
    }

    #[allow(clippy::too_many_arguments)]
    fn enter(
        &mut self,
        mem: &mut OutboxMem<'_>,
        now: Millis,
        account: u64,
        time: ValueTime,
        path: ValuePath<'_>,
        number: &NumberText,
        entry: Entry,
    ) -> Result<(), PushError> {
        let now = self.step(now);
        let (path, number) = (path.as_str().as_bytes(), number.as_bytes());
        let needed = Cell::needed(path.len() + number.len());
        if path.len() > usize::from(u16::MAX) {
            return Err(PushError::PathTooLong { len: path.len() });
        }
        if needed as u64 > u64::from(Pool::capacity(mem.cells)) {
            let limit = mem.cells.len().saturating_mul(Cell::BYTES);
            return Err(PushError::TooLarge { bytes: needed * Cell::BYTES, limit });
        }
        let (timed, time_ms) = match time {
            ValueTime::Unix(UnixMillis(ms)) => (true, ms),
            ValueTime::Monotonic(at) => self.unix(at).map_or((false, at.0), |ms| (true, ms)),
        };
        if time_ms > TIME_MAX {
            return Err(PushError::TimeTooLate { time });
        }
        if mem.index.is_empty() {
            return Err(PushError::NoIndex);
        }
        let record = match entry {
            Entry::New { record } | Entry::Parked { record, .. } => record,
        };
        let mut table = Table { slots: mem.accounts };
        let capacity = table.capacity();
        let slot = table
            .find_or_make(account, &mut self.accounts, now, self.refreshes)
            .ok_or(PushError::TooManyAccounts { capacity })?;
        if let Entry::Parked { .. } = entry
            && !self.make_room_fairly(mem, slot, needed)
        {
            return Err(PushError::NoRoom);
        }

        match entry {
            Entry::New { .. } => {
                self.ledger.collected += 1;
                self.ledger.queued += 1;
            }
            Entry::Parked { .. } => self.unpark(),
        }
        // How long before now the value was measured: it may be its own time, far from the hand-over.
        let lag_ms = match (timed, time) {
            (_, ValueTime::Monotonic(at)) => now.since(at) as i64,
            (_, ValueTime::Unix(_)) => self.unix(now).map_or(0, |unix| unix as i64 - time_ms as i64),
        };
        let (own_time, since_ms) = match entry {
            Entry::Parked { handed_over, .. } => {
                let age_ms = self.age_ms(now, handed_over);
                if age_ms > self.settings.max_age_ms {
                    self.drop_record(mem, record, DropReason::TooOld);
                    return Ok(());
                }
                (true, now.0.saturating_sub(age_ms))
            }
            Entry::New { .. } => {
                let own_time = lag_ms.unsigned_abs() > u64::from(self.settings.post_max_age_ms);
                (own_time, if own_time { now.0 } else { now.0.saturating_sub(lag_ms.max(0) as u64) })
            }
        };
        let key = Key { account: slot, time_ms, timed };
        let index = self.index(mem.index);
        let bucket = index.bucket(key, pieces(path));
        let same = index.find(&Cells(mem.cells), bucket, key, path.len(), pieces(path));
        if same != NONE {
            if matches!(entry, Entry::Parked { .. }) && stored::is_later(mem, same, record) {
                self.drop_record(mem, record, DropReason::Superseded);
                return Ok(());
            }
            self.drop_waiting(mem, same, DropReason::Superseded);
        }
        if matches!(entry, Entry::New { .. }) && record != 0 && self.follows_parked(now, timed, time_ms) {
            self.park_record(mem, record, timed, time_ms);
            return Ok(());
        }
        let link = loop {
            let head = NewHead { account: slot, time_ms, timed, own_time, since_ms };
            match self.pool.store(&mut Cells(mem.cells), head, path, number) {
                Some(link) => break link,
                None if self.yield_oldest(mem) => {}
                None if record != 0 => {
                    self.park_record(mem, record, timed, time_ms);
                    return Ok(());
                }
                None => {
                    self.ledger.queued -= 1;
                    self.ledger.count_dropped(DropReason::Full, 1);
                    self.tell_full(account);
                    return Ok(());
                }
            }
        };
        self.untimed += u64::from(!timed);
        if record != 0 {
            self.note_record(mem, link, record);
        }
        if let Some(q) = mem.accounts.get_mut(usize::from(slot)) {
            q.queued += 1;
            q.cells += needed as u32;
        }
        let place = match entry {
            Entry::New { .. } => {
                self.list_in(mem, link, slot, Place::Live, false);
                Place::Live
            }
            Entry::Parked { .. } => {
                self.list_in_order(mem, link, slot);
                Place::Backlog
            }
        };
        self.index(mem.index).insert_into(bucket, &mut Cells(mem.cells), link);
        if let Some(q) = mem.accounts.get(usize::from(slot)) {
            let due = match place {
                Place::Live if !self.is_full_batch(q) => Millis(since_ms).saturating_add(self.linger_ms()),
                _ => now,
            };
            self.wake = self.wake.min(due);
        }
        debug_assert!(self.ledger.balanced(), "{}", self.ledger);
        Ok(())
    }

    /// The wall clock shows `unix` at `now`: waiting values that have no time yet get theirs, now and for good.
    /// To be called when the clock becomes known and whenever it was moved; gives the latest time that a value got. O(values)
    /// the first time, else O(1).
    pub fn handle_wall(
        &mut self,
        mem: &mut OutboxMem<'_>,
        now: Millis,
        unix: UnixMillis,
    ) -> Option<UnixMillis> {
        let now = self.step(now);
        self.wall = i64::try_from(unix.0).ok().and_then(|u| u.checked_sub(i64::try_from(now.0).ok()?));
        if self.untimed == 0 {
            return None;
        }
        let mut latest = None;
        for slot in 0..self.accounts {
            for place in [Place::Backlog, Place::Suspect, Place::Live] {
                let mut at = mem.accounts.get(usize::from(slot)).map_or(NONE, |q| q.list(place).head);
                while at != NONE {
                    let cells = Cells(mem.cells);
                    if !cells.timed(at) {
                        latest = latest.max(self.unix(Millis(cells.time_ms(at))));
                    }
                    at = self.fix_waiting(mem, at);
                }
            }
        }
        self.wake = Millis(0);
        latest.map(UnixMillis)
    }

    /// Gives a waiting value its time; the next in its list.
    fn fix_waiting(&mut self, mem: &mut OutboxMem<'_>, link: Link) -> Link {
        let mut cells = Cells(mem.cells);
        let Some(unix) = (!cells.timed(link)).then(|| self.unix(Millis(cells.time_ms(link)))).flatten()
        else {
            return cells.next(link);
        };
        let mut index = self.index(mem.index);
        index.remove(&mut cells, link);
        cells.fix_time(link, unix);
        self.stored.forget_storing(link);
        let same = index.find_same(&cells, link);
        index.insert(&mut cells, link);
        self.untimed -= 1;
        if same == NONE {
            return cells.next(link);
        }
        // The later one wins. The other may be the next in the list: it is asked for after the removal.
        if is_later(&cells, same, link) {
            let next = cells.next(link);
            self.drop_waiting(mem, link, DropReason::Superseded);
            next
        } else {
            self.drop_waiting(mem, same, DropReason::Superseded);
            Cells(mem.cells).next(link)
        }
    }

    /// From now until the outbox is empty, values leave without lingering, and waits after failures so far are over:
    /// for a graceful stop, or a board about to sleep.
    pub fn flush(&mut self, mem: &mut OutboxMem<'_>, now: Millis) {
        self.step(now);
        self.flushing = true;
        self.link.until = Millis(0);
        for q in mem.accounts.iter_mut().take(usize::from(self.accounts)) {
            q.wait.until = Millis(0);
            q.put_wait.until = Millis(0);
            q.suspects.wait.until = Millis(0);
        }
        self.wake = Millis(0);
    }

    /// A request that the outbox did not ask for has succeeded (a refresh, for example): the backend answers, so a
    /// 500 on values is about the values.
    pub fn note_other_success(&mut self) {
        self.successes = self.successes.wrapping_add(1);
        self.link_up();
    }

    /// A refresh has ended: accounts that fell back to POST try PUT again, and larger bodies are tried again.
    pub fn note_refresh(&mut self) {
        self.refreshes = self.refreshes.wrapping_add(1);
        self.body_limit = self.body_limit.saturating_mul(2).min(self.settings.max_body_bytes);
        self.wake = Millis(0);
    }

    /// Tells that the memory was replaced by larger slices that begin with what the old ones held. O(values).
    pub fn handle_grown(&mut self, mem: &mut OutboxMem<'_>) {
        mem.index.fill(0);
        Table { slots: mem.accounts }.rehash(self.accounts);
        for q in mem.accounts.iter().take(usize::from(self.accounts)) {
            for place in [Place::Backlog, Place::Suspect, Place::Live] {
                let mut at = q.list(place).head;
                while at != NONE {
                    let mut cells = Cells(mem.cells);
                    let next = cells.next(at);
                    self.index(mem.index).insert(&mut cells, at);
                    at = next;
                }
            }
        }
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<OutboxEvent> {
        self.events.pop_front()
    }

    /// The path of the value last refused (its first 200 bytes). Read it when [`OutboxEvent::ValueRefused`] is polled,
    /// before the next [`handle_outcome`](Outbox::handle_outcome).
    #[must_use]
    pub fn event_path(&self) -> &str {
        let bytes = self.refused_path.get(..self.refused_path_len).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Walks all of the memory and counts again what the ledger counts: for tests. O(cells).
    ///
    /// # Errors
    /// The first thing found to be wrong.
    pub fn audit(&self, mem: &mut OutboxMem<'_>) -> Result<(), &'static str> {
        let cells = Cells(&mut *mem.cells);
        let (mut values, mut used, mut untimed, mut in_index, mut kept) = (0u64, 0u32, 0u64, 0u64, 0u32);
        for (slot, q) in mem.accounts.iter().enumerate() {
            let (mut queued, mut in_cells, mut live_bytes) = (0u32, 0u32, 0u32);
            let flight = self.flight.as_ref().filter(|f| usize::from(f.slot) == slot);
            let lists = [Place::Backlog, Place::Suspect, Place::Live].map(|p| (p, q.list(p)));
            for (place, list) in lists.into_iter().chain(flight.map(|f| (Place::Flight, f.list))) {
                let (mut at, mut prev, mut len) = (list.head, NONE, 0);
                while at != NONE && len <= list.len {
                    if cells.prev(at) != prev
                        || cells.place(at) != place
                        || usize::from(cells.account(at)) != slot
                    {
                        return Err("a value is linked wrongly");
                    }
                    if place != Place::Flight && self.index(mem.index).find_same(&cells, at) != at {
                        return Err(
                            "a waiting value is not in the index, or another with its path and time waits",
                        );
                    }
                    in_index += u64::from(place != Place::Flight);
                    live_bytes += if place == Place::Live {
                        (cells.path_len(at) + cells.number_len(at)) as u32
                    } else {
                        0
                    };
                    untimed += u64::from(!cells.timed(at));
                    in_cells += cells.cells_of(at);
                    len += 1;
                    (prev, at) = (at, cells.next(at));
                }
                if list.tail != prev || list.len != len || at != NONE {
                    return Err("a list's length is wrong");
                }
                queued += len;
            }
            if queued != q.queued || in_cells != q.cells || live_bytes != q.live_bytes {
                return Err("an account's counts are wrong");
            }
            kept += q.backlog.len + q.suspects.list.len;
            let in_flight = flight.filter(|f| f.origin == Place::Suspect).map_or(0, |f| f.list.len);
            if !q.suspects.list.is_empty() && q.suspects.bad > q.suspects.list.len + in_flight {
                return Err("more values are suspected than there are");
            }
            values += u64::from(queued);
            used += in_cells;
        }
        let mut indexed = 0;
        for bucket in 0..mem.index.len() {
            indexed += self.index(mem.index).count(&cells, bucket);
        }
        if indexed != in_index {
            return Err("the index holds what does not wait");
        }
        if values + self.stored.parked != self.ledger.queued || untimed != self.untimed {
            return Err("the count of queued values is wrong");
        }
        if kept != self.kept {
            return Err("the count of values that were kept is wrong");
        }
        if used != self.pool.used() || !self.pool.sound(&cells) {
            return Err("cells were lost");
        }
        self.audit_records(mem)?;
        if self.ledger.balanced() { Ok(()) } else { Err("the ledger is not balanced") }
    }

    fn step(&mut self, now: Millis) -> Millis {
        self.now = self.now.max(now);
        self.now
    }

    /// Unix ms at monotonic `at`, if the wall clock is known.
    fn unix(&self, at: Millis) -> Option<u64> {
        let unix = i64::try_from(at.0).ok()?.checked_add(self.wall?)?;
        Some(u64::try_from(unix).unwrap_or(0))
    }

    fn index<'m>(&self, buckets: &'m mut [u32]) -> Index<'m> {
        Index { buckets, seed: self.settings.seed }
    }

    fn tell(&mut self, event: OutboxEvent) {
        if self.events.is_full() {
            self.events.pop_front();
        }
        let _ = self.events.push_back(event);
    }

    fn tell_full(&mut self, account: u64) {
        self.full_dropped += 1;
        if self.full_dropped == 1 {
            self.tell(OutboxEvent::Full { account });
        }
    }

    /// Puts a value that is in no list into one, and into the index.
    fn wait_in(&mut self, mem: &mut OutboxMem<'_>, link: Link, slot: u16, place: Place, front: bool) {
        self.list_in(mem, link, slot, place, front);
        self.index(mem.index).insert(&mut Cells(mem.cells), link);
    }

    /// Puts a value that is in no list into one.
    fn list_in(&mut self, mem: &mut OutboxMem<'_>, link: Link, slot: u16, place: Place, front: bool) {
        let mut cells = Cells(mem.cells);
        if let Some(q) = mem.accounts.get_mut(usize::from(slot)) {
            if place == Place::Live {
                q.live_bytes += (cells.path_len(link) + cells.number_len(link)) as u32;
            }
            if let Some(list) = q.list_mut(place) {
                self.kept += u32::from(place != Place::Live);
                cells.set_place(link, place);
                if front { list.push_front(&mut cells, link) } else { list.push_back(&mut cells, link) }
            }
        }
    }

    /// Takes a waiting value out of its list and the index.
    fn unwait(&mut self, mem: &mut OutboxMem<'_>, link: Link) {
        let mut cells = Cells(mem.cells);
        self.stored.walk_past(&cells, link);
        self.index(mem.index).remove(&mut cells, link);
        let place = cells.place(link);
        if let Some(q) = mem.accounts.get_mut(usize::from(cells.account(link))) {
            if place == Place::Live {
                q.live_bytes -= (cells.path_len(link) + cells.number_len(link)) as u32;
            }
            if let Some(list) = q.list_mut(place) {
                self.kept -= u32::from(place != Place::Live);
                list.unlink(&mut cells, link);
                cells.set_place(link, Place::Flight);
            }
        }
    }

    /// Frees a value that is in no list: it is done, or parked, which the ledger is told by the caller.
    fn release(&mut self, mem: &mut OutboxMem<'_>, link: Link, parked: bool) {
        self.record_leaves(mem, link, parked);
        let mut cells = Cells(mem.cells);
        if let Some(q) = mem.accounts.get_mut(usize::from(cells.account(link))) {
            q.queued -= 1;
            q.cells -= cells.cells_of(link);
        }
        self.ledger.queued -= u64::from(!parked);
        self.untimed -= u64::from(!cells.timed(link));
        self.pool.free(&mut cells, link);
    }

    fn drop_waiting(&mut self, mem: &mut OutboxMem<'_>, link: Link, reason: DropReason) {
        self.take_out(mem, link);
        self.release(mem, link, false);
        self.ledger.count_dropped(reason, 1);
    }

    /// Takes a waiting value out of its list and the index, and out of a search for bad values.
    fn take_out(&mut self, mem: &mut OutboxMem<'_>, link: Link) {
        let cells = Cells(mem.cells);
        if cells.place(link) == Place::Suspect {
            let slot = cells.account(link);
            let in_flight = self.suspects_in_flight(slot);
            if let Some(s) = mem.accounts.get_mut(usize::from(slot)).map(|q| &mut q.suspects) {
                // Was it among those that hold a bad value?
                let mut at = s.list.head;
                for _ in in_flight..s.bad {
                    if at == link {
                        s.bad -= 1;
                        break;
                    }
                    at = if at == NONE { NONE } else { cells.next(at) };
                }
            }
        }
        self.unwait(mem, link);
    }

    /// The oldest waiting value of the account that uses the most memory, by whose loss each account is sure of its fair
    /// share, and that account's slot. O(accounts).
    fn oldest_of_most(&self, mem: &mut OutboxMem<'_>) -> Option<(u16, Link)> {
        let slots =
            mem.accounts.iter().take(usize::from(self.accounts)).enumerate().filter(|(_, q)| q.waits());
        let (slot, _) = slots.reduce(|most, q| if q.1.cells > most.1.cells { q } else { most })?;
        Some((slot as u16, self.oldest_of(mem, slot as u16)?))
    }

    /// The oldest waiting value of the account at `slot`.
    fn oldest_of(&self, mem: &mut OutboxMem<'_>, slot: u16) -> Option<Link> {
        let q = mem.accounts.get(usize::from(slot))?;
        let cells = Cells(&mut *mem.cells);
        [q.backlog.head, q.suspects.list.head, q.live.head]
            .into_iter()
            .filter(|&head| head != NONE)
            .min_by_key(|&head| cells.since_ms(head))
    }

    /// Makes room: parks that value if it has a record, else drops it. `false` if none waits.
    fn yield_oldest(&mut self, mem: &mut OutboxMem<'_>) -> bool {
        let Some((slot, oldest)) = self.oldest_of_most(mem) else { return false };
        if !self.park(mem, oldest) {
            self.drop_waiting(mem, oldest, DropReason::Full);
            self.tell_full(mem.accounts.get(usize::from(slot)).map_or(0, |q| q.id));
        }
        true
    }
}

/// How a value comes in.
#[derive(Clone, Copy)]
enum Entry {
    /// It is handed over; `record` is 0 if it has none.
    New { record: u64 },
    /// It comes back from the store.
    Parked { handed_over: ValueTime, record: u64 },
}

/// Whether `a` was handed over after `b`: live values after others, and in list order. O(values), for the rare
/// case that two values turn out to have the same time.
fn is_later(cells: &Cells<'_>, a: Link, b: Link) -> bool {
    let live = |link| cells.place(link) == Place::Live;
    if live(a) != live(b) {
        return live(a);
    }
    let mut at = cells.next(b);
    while at != NONE && at != a {
        at = cells.next(at);
    }
    at == a
}

/// No time at which something is due.
const NEVER: Millis = Millis(u64::MAX);
