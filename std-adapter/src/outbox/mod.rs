//! The durable outbox of a host: values that wait are kept in files and survive the end of the process.
//!
//! [`Store`] keeps the bytes; which values are kept, sent, parked and dropped is decided by the collector
//! ([`grafolean_core::outbox`]). It reads no clock and starts no thread: times come in with the calls, and all files
//! are reached through a [`Disk`], so that simulations run the very code on a disk that fails.
//!
//! ```
//! use grafolean_core::time::{Millis, UnixMillis};
//! use grafolean_std::outbox::{RealDisk, Settings, Store, Value};
//!
//! let dir = std::env::temp_dir().join(format!("grafolean-doc-{}", std::process::id()));
//! let unix = UnixMillis(1_700_000_000_000);
//! let (mut store, found) = Store::open(RealDisk::new(&dir).unwrap(), Settings::DEFAULT).unwrap();
//! assert_eq!(found.values, 0);
//!
//! // A value is handed over: it is written at the next call after `poll_timeout`, at most 0.9 s later.
//! let value = Value { time: unix, handed_over: unix, path: "room.temperature", number: "21.5" };
//! let record = store.take(Millis(1000), 7, &value).unwrap();
//! store.handle_time(store.poll_timeout().unwrap(), unix);
//! drop(store);
//!
//! // The next life of the process finds it, and gives it back.
//! let (mut store, found) = Store::open(RealDisk::new(&dir).unwrap(), Settings::DEFAULT).unwrap();
//! assert_eq!(found.values, 1);
//! let mut back = Vec::new();
//! store.feed(Millis(0), unix, 7, 10, |record, value| {
//!     back.push((record, value.path.to_owned()));
//!     true
//! });
//! assert_eq!(back[0].1, "room.temperature");
//! // It was delivered:
//! store.left(Millis(0), back[0].0, false);
//! store.close(Millis(1), unix);
//! # std::fs::remove_dir_all(&dir).unwrap();
//! ```
//!
//! # What is in the directory
//! - `lock`: held while a process uses the directory; a second process gets [`OpenError::InUse`].
//! - `<account>/<first sequence number, 16 hex digits>.seg`: that account's values. A segment is only appended to, by
//!   the life that began it or by the next one if it was small, until it is full
//!   ([`Settings::segment_bytes`]). All files are removed from the oldest on; the last one stays, with a header only,
//!   so that sequence numbers are never used twice.
//! - `<account>/<first sequence number>.seg.old`: a segment as it was before it was thinned, or the segment itself while it
//!   can't be renamed.
//! - `state`: keyed state of jobs, appended, and rewritten (`state.tmp`, sync, rename, sync of the directory) when it
//!   has become twice as long as needed.
//! - `ledger`: counts over all lives, in two places in turn, each with a checksum.
//!
//! Values are in frames of about 30, each with a CRC-32C that also covers the account: a frame in the wrong file is none.
//! A value takes about 12 bytes (paths that resemble the one before it in the frame, numbers of up to six digits).
//! Nothing refers to another frame, so damage costs its own frame only. What is done with is written as ranges of
//! sequence numbers, so that a restart does not send again what was acknowledged; values that leave within the time
//! before they are written are never written at all: while the backend answers, nothing is.
//!
//! # What survives
//! - The end of the process (SIGKILL, out of memory): everything handed over more than 0.9 s before, under
//!   [`WritePolicy::First`] everything. What was acknowledged within the last second may be sent again, which is
//!   harmless under PUT.
//! - Loss of power: everything as of the last sync ([`Sync`]); beyond that what the file system chose to write. A frame
//!   that was written in part is skipped, what was behind the last whole one is cut off.
//!   With [`Sync::Never`] a file system may lose up to its own interval (ext4: 5 s, and up to 30 s for lengths of files).
//! - Flipped bits, unreadable sectors, files that were removed: the reader goes on at the next whole frame. How many
//!   values were lost is known: each frame says how many were written before it, and which sequence numbers before it
//!   are in no frame on purpose; they are counted as corrupt once. The count is an upper bound where some of them were
//!   done with (no more than the numbers not marked so are counted), and behind files that were thinned or written
//!   again. Values lost behind the last readable frame leave no gap: they are seen as [`Totals::lost`].
//! - A disk that can't be read (I/O errors): nothing is given up while that lasts; it is tried again after 1 s, 2 s, and
//!   so on up to 60 s. If other parts of the account's files can be read after 10 min, what can't be is a bad spot: its
//!   values are counted as corrupt, one file at a time. At the start spots are damage at once; an account
//!   of which no byte can be read, as no other file either, is left alone ([`StoreEvent::Unusable`]).
//! - `state` and `ledger`: what is whole in them counts, the rest is told ([`StoreEvent::DamagedFile`]). Removed or cut
//!   while in use, they are written whole again, within 10 s ([`StoreEvent::FileGone`]). If not a byte of any file can be
//!   read at the start, they are left as they are until the next one.
//! - Files that can't be reached (rights, too many open files, an unmounted file system) are not damaged: nothing in
//!   there is given up. At the start their account is left alone ([`StoreEvent::Unusable`]), and for `state` and `ledger`
//!   that is an error ([`OpenError::File`]); later reading is tried again after 1 s, 2 s, and so on up to 60 s.
//! - A full or failing disk: nothing is lost by that alone. Values stay in the collector's memory without a record,
//!   writing is tried again after 1 s, 2 s, and so on up to 60 s, for each account by itself; [`StoreEvent`] tells once
//!   when that begins and once when it ends. After a failed sync the system counts what it did not write as
//!   written: a second sync would succeed, and a power cut lose it. What was written since the last good sync is therefore
//!   written again, into another file: from memory (up to 1 MiB of all accounts together), or as read back if it is
//!   whole; what is not is told ([`StoreEvent::Damaged`]) and counted as corrupt. Of that, values that are also in the
//!   collector's memory are delivered from there, but have no record any more: a kill before costs them. If the process
//!   ends in between, the next one can't know, and a power cut or a further failed sync may still lose it, or what it says
//!   is done with (which is then sent again). For a directory the sync is repeated only: file systems that keep a journal
//!   allow no more changes when that fails.
//!
//! # Waiting for the disk
//! Writing goes to the system's cache. A sync, which may take seconds, is an object of its own: [`Store::poll_sync`] gives
//! the [`SyncJob`] that is due, [`SyncJob::run`] waits for the disk on whatever thread, [`Store::handle_synced`] takes what
//! came of it. Without [`Store::sync_elsewhere`] the calls of the store do all that themselves, and wait.
//!
//! # Order of writing
//! New file: bytes, then (at the next sync) the file, its directory, and the store's directory. A file is removed only
//! when all its values are done or given up; the file that carries the numbering on is synced before, unless
//! [`Sync::Never`]. Of a file that was thinned the old one (`.seg.old`) stays until the new one survives a power cut.
//! That a file was removed is synced like a writing; if a power cut brings it back before, its values may be sent again.
//!
//! # Bounds
//! [`Settings::max_bytes`] for all files: when it is passed, the account that uses most gives its oldest file, again and
//! again ([`Gone::Full`]). With [`Settings::thin`] its files are rewritten from a segment before that on, those thinned
//! least and then the oldest first: of each path the lowest, highest and last value of each window are kept
//! ([`Gone::Thinned`]); windows are 1 min wide, and four times wider at each further pass over a file, at most 11 days;
//! those are skipped that would take less than a quarter off the file. One step reads 256 kB and a file at most, the
//! next one comes 0.1 s later; values that come faster than that makes room cost the oldest file. A file that can't be
//! read is not thinned; where there is no room to write the thinned one, the oldest file is given. [`Settings::max_age_ms`]: older
//! values are not given back ([`Gone::TooOld`]).
//!
//! # Cost
//! `take` and `left` are O(log ranges) in memory. Writing is one write per account with news and interval. Memory: 24
//! bytes per 16 kB of files, about 40 bytes per gap in the parked values, and the values of the last 0.9 s. Opening
//! reads all files once. `feed` reads 32 kB at a time. At most [`RealDisk::OPEN_FILES`] files are open.
//!
//! # Errors
//! [`OpenError`] at the start. Later failures of the disk never reach the caller as errors: see above.

mod book;
mod codec;
mod disk;
#[cfg(any(test, feature = "test-disk"))]
pub mod faulty;
mod log;
mod ranges;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::{fmt, io};

use grafolean_core::outbox::Ledger;
use grafolean_core::time::{Millis, UnixMillis};

use book::{Book, LEDGER, STATES};
use log::{Log, SEQUENCE_END};

pub use book::{StoredState, Totals};
pub use disk::{Disk, Entry, RealDisk, Syncing};

const LOCK: &str = "lock";
/// Bits of a record's number that are the sequence number; above is the account's place.
const SEQUENCE_BITS: u32 = SEQUENCE_END.trailing_zeros();
/// Record numbers stay below 2^63.
const ACCOUNTS_MAX: usize = 1 << (63 - SEQUENCE_BITS);
/// A value is written so long after its hand-over, at the latest, ms.
const BEHIND_MS: u64 = 900;
/// When values are written, an account's go with them if its oldest has waited so long, ms: one writing for many accounts.
const TOGETHER_MS: u64 = 800;
/// What is done with is written so much later, ms.
const DONE_MS: u64 = 900;
/// The ledger is written so often even if no values are, ms.
const LEDGER_MS: u64 = 10_000;
/// Age is looked at so often, ms.
const AGE_MS: u64 = 60_000;
/// First and longest wait after a failure of the disk, ms.
const BACK_OFF_MS: (u64, u64) = (1_000, 60_000);
/// Values wait in memory for their writing in so many bytes at most; then they are written at once.
const PENDING_BYTES: usize = 1 << 20;
/// What was written since the last good sync is kept in so many bytes at most, to be written again if the next one fails.
const KEPT_BYTES: usize = 1 << 20;
/// Files and accounts that are synced in one go at most.
const SYNC_FILES: usize = 64;
/// No more files are read to be thinned in one step after so many bytes.
const THIN_BYTES: u64 = 256 * 1024;
/// The next step comes so much later, ms.
const THIN_MS: u64 = 100;
/// Events that wait at most.
const EVENTS: usize = 1024;

/// When a value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WritePolicy {
    /// At most 0.9 s after its hand-over; not at all if it has left before that.
    #[default]
    Behind,
    /// Before its hand-over returns ([`Store::take`] writes).
    First,
}

/// When what was written is made to survive a loss of power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// When the file system likes.
    Never,
    /// So many ms after it was written.
    Every {
        /// The time, ms.
        ms: u64,
    },
    /// With each writing.
    Always,
}

/// The settings of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// All segments together, in bytes; at least 64 kB.
    pub max_bytes: u64,
    /// Older values are dropped, ms since hand-over.
    pub max_age_ms: u64,
    /// When values are written.
    pub write: WritePolicy,
    /// When they are synced.
    pub sync: Sync,
    /// At the bound in bytes values are thinned before any are dropped.
    pub thin: bool,
}

impl Settings {
    /// The defaults: 256 MiB, 7 days, behind, each second.
    pub const DEFAULT: Settings = Settings {
        max_bytes: 256 << 20,
        max_age_ms: 7 * 24 * 3_600_000,
        write: WritePolicy::Behind,
        sync: Sync::Every { ms: 1_000 },
        thin: false,
    };

    /// A segment is closed at so many bytes: a sixteenth of the bound, between 4 kB and 1 MiB.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        let part = self.max_bytes / 16;
        if part < 4096 {
            4096
        } else if part > 1 << 20 {
            1 << 20
        } else {
            part
        }
    }

    /// Bytes and ms as people read them.
    fn readable(mut n: u64, units: &[(u64, &'static str)], smallest: &'static str) -> String {
        let mut unit = smallest;
        for &(of, name) in units {
            if n == 0 || !n.is_multiple_of(of) {
                break;
            }
            (n, unit) = (n / of, name);
        }
        format!("{n} {unit}")
    }

    const fn durable(&self) -> bool {
        !matches!(self.sync, Sync::Never)
    }
}

/// As people read it: `at most 256 MiB and 7 days, written within 0.9 s, synced 1 s later`.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = Self::readable(self.max_bytes, &[(1024, "KiB"), (1024, "MiB"), (1024, "GiB")], "bytes");
        let times = [(1000, "s"), (60, "min"), (60, "h"), (24, "days")];
        let age = Self::readable(self.max_age_ms, &times, "ms");
        write!(f, "at most {bytes} and {age}, ")?;
        f.write_str(match self.write {
            WritePolicy::Behind => "written within 0.9 s, ",
            WritePolicy::First => "written at once, ",
        })?;
        match self.sync {
            Sync::Never => f.write_str("never synced")?,
            Sync::Always => f.write_str("synced with each writing")?,
            Sync::Every { ms } => write!(f, "synced {} later", Self::readable(ms, &times, "ms"))?,
        }
        f.write_str(if self.thin { ", thinned when full" } else { "" })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::DEFAULT
    }
}

/// A value as a store keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value<'a> {
    /// Its time.
    pub time: UnixMillis,
    /// When it was handed over: its age counts from here.
    pub handed_over: UnixMillis,
    /// Its path, at most 512 bytes.
    pub path: &'a str,
    /// Its number as JSON text, at most 64 bytes.
    pub number: &'a str,
}

/// Why a store gave parked values up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Gone {
    /// The bound in bytes.
    Full,
    /// Their age.
    TooOld,
    /// They could not be read back.
    Corrupt,
    /// Others of their path and window were kept.
    Thinned,
}

/// What a store found at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Values that wait. All are parked.
    pub values: u64,
    /// Values that were damaged.
    pub corrupt: u64,
}

/// Why a store can't be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses the directory.
    InUse,
    /// `state` or `ledger` can't be used: no right to read and write it, a directory. What it holds is not touched.
    File {
        /// Its name in the directory.
        file: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// The directory can't be used.
    Disk {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse => {
                f.write_str("another process uses it; give each collector a directory of its own")
            }
            OpenError::File { file, error } => write!(f, "can't use its file {file}: {error}"),
            OpenError::Disk { doing, error } => write!(f, "can't {doing}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Disk { error, .. } | OpenError::File { error, .. } => Some(error),
            OpenError::InUse => None,
        }
    }
}

/// What an operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreEvent {
    /// From now on values are in memory only (`read`: those that wait stay in their files); it is tried again.
    Failing {
        /// What was tried: write, sync, read, and so on.
        doing: &'static str,
        /// Whose values; `None` for state and ledger.
        account: Option<u64>,
        /// What the system says.
        error: String,
    },
    /// Something works again while something else still fails.
    WorkingInPart {
        /// What works: as it can be said of who can do it.
        doing: &'static str,
        /// How long it did not, ms.
        after_ms: u64,
    },
    /// All works again.
    Working {
        /// How long it did not, ms.
        after_ms: u64,
    },
    /// An account's files were damaged; the rest was read.
    Damaged {
        /// The account.
        account: u64,
        /// Values lost, as far as known.
        values: u64,
        /// Bytes that could not be read as values.
        bytes: u64,
    },
    /// `state` or `ledger` was damaged when the store was opened; what can be read counts.
    DamagedFile {
        /// Its name.
        file: &'static str,
        /// What is wrong, and where.
        why: String,
        /// What is left: states of jobs, or copies of the ledger.
        left: usize,
    },
    /// `state` or `ledger` was removed, cut or replaced by somebody else while the store uses it. It is written again.
    FileGone {
        /// Its name.
        file: &'static str,
    },
    /// An account's values can't be stored during this life of the process: its directory or a file in it can't be
    /// reached (rights, for example). What is in there stays.
    Unusable {
        /// The account.
        account: u64,
        /// What the system says.
        error: String,
    },
    /// The bound in bytes was passed: values were thinned.
    Thinned {
        /// Whose values.
        account: u64,
        /// How many were left out.
        values: u64,
    },
    /// The bound in bytes was passed: the oldest values give way.
    Full {
        /// Whose values.
        account: u64,
        /// How many.
        values: u64,
    },
}

impl fmt::Display for StoreEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreEvent::Failing { doing: doing @ "sync", account: Some(account), error } => write!(
                f,
                "outbox can't {doing} values of account {account}, they are written again later: {error}"
            ),
            StoreEvent::Failing { doing: doing @ "read", account: Some(account), error } => write!(
                f,
                "outbox can't {doing} values of account {account}, they wait in their files: {error}"
            ),
            StoreEvent::Failing { doing: doing @ "remove", account: Some(account), error } => write!(
                f,
                "outbox can't {doing} old values of account {account}, its new ones stay in memory: {error}"
            ),
            StoreEvent::Failing { doing, account: Some(account), error } => {
                write!(f, "outbox can't {doing} values of account {account}, they stay in memory: {error}")
            }
            StoreEvent::Failing { doing, account: None, error } => write!(f, "outbox can't {doing}: {error}"),
            StoreEvent::WorkingInPart { doing, after_ms } => {
                write!(
                    f,
                    "outbox can {doing} again after {} s; others of its failures go on",
                    after_ms / 1000
                )
            }
            StoreEvent::Working { after_ms } => {
                write!(f, "outbox works again after {} s", after_ms / 1000)
            }
            // Damage that an earlier start has counted stays in its file.
            StoreEvent::Damaged { account, values: 0, bytes } => {
                write!(
                    f,
                    "outbox of account {account}: {bytes} damaged bytes were skipped, no further value is lost"
                )
            }
            StoreEvent::Damaged { account, values, bytes } => write!(
                f,
                "outbox of account {account} is damaged: {values} values are lost ({bytes} bytes were skipped)"
            ),
            StoreEvent::DamagedFile { file: LEDGER, why, left: 0 } => {
                write!(f, "outbox's file {LEDGER}: {why}; totals begin anew")
            }
            StoreEvent::DamagedFile { file: LEDGER, why, .. } => {
                write!(f, "outbox's file {LEDGER}: {why}; the totals are those of its other copy")
            }
            StoreEvent::DamagedFile { file, why, left } => {
                write!(f, "outbox's file {file}: {why}; {left} states of jobs are left")
            }
            StoreEvent::FileGone { file } => {
                write!(f, "outbox's file {file} was removed or cut by somebody else, and is written again")
            }
            StoreEvent::Unusable { account, error } => {
                write!(f, "outbox of account {account} can't be read, its values stay in memory: {error}")
            }
            StoreEvent::Thinned { account, values } => {
                write!(f, "outbox is full: {values} values of account {account} were thinned out")
            }
            StoreEvent::Full { account, values } => {
                write!(f, "outbox is full: the {values} oldest values of account {account} were dropped")
            }
        }
    }
}

/// Syncs that are due: to be [`run`](Self::run) while the store goes on being used, on another thread for example.
#[must_use]
pub struct SyncJob {
    id: u64,
    logs: Vec<(usize, log::Group)>,
    book: Option<book::Group>,
}

impl fmt::Debug for SyncJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncJob").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SyncJob {
    /// Waits for the disk: a few ms on a good one, seconds on others. What came of it is for
    /// [`Store::handle_synced`].
    pub fn run(self) -> Synced {
        let logs = self.logs.into_iter().map(|(place, group)| (place, group.run())).collect();
        Synced { id: self.id, logs, book: self.book.map(book::Group::run) }
    }
}

/// What came of a [`SyncJob`].
#[must_use]
pub struct Synced {
    id: u64,
    logs: Vec<(usize, log::Grouped)>,
    book: Option<book::Grouped>,
}

impl fmt::Debug for Synced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synced").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The store. See the [module](self).
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    settings: Settings,
    logs: Vec<Log>,
    places: BTreeMap<u64, usize>,
    /// Accounts whose directory can't be read.
    unusable: BTreeSet<u64>,
    /// Places of logs with something to write.
    busy: BTreeSet<usize>,
    /// Places of logs with something to sync.
    unsynced: BTreeSet<usize>,
    /// Those of them whose time has come.
    due: BTreeSet<usize>,
    /// Where the next job begins among them.
    due_from: usize,
    book_due: bool,
    /// The job that is under way, and its places.
    flight: Option<(u64, BTreeSet<usize>)>,
    jobs: u64,
    /// Places of logs with values in the collector's memory whose records are lost.
    lost: BTreeSet<usize>,
    /// Bytes that all logs keep to be written again.
    kept: usize,
    /// Of all logs: values that are parked, and those that wait and are written; places of logs that can be fed.
    parked: u64,
    written: u64,
    feedable: BTreeSet<usize>,
    /// Bytes in all segments, and of each log (with its place).
    bytes: u64,
    by_bytes: BTreeSet<(u64, usize)>,
    /// The caller runs the jobs.
    elsewhere: bool,
    book: Book,
    gone: BTreeMap<Gone, u64>,
    events: VecDeque<StoreEvent>,
    write_at: Option<Millis>,
    sync_at: Option<Millis>,
    ledger_at: Millis,
    age_at: Millis,
    book_retry_at: Option<Millis>,
    book_wait_ms: u64,
    failing: BTreeSet<usize>,
    /// Places of logs whose files can't be read at present.
    unread: BTreeSet<usize>,
    /// Those whose oldest file should go and can't be removed.
    unremoved: BTreeSet<usize>,
    failing_since: Option<Millis>,
    /// What fails, in the order of [`PARTS`].
    episodes: [Failure; PARTS.len()],
}

/// What can fail by itself, as it is told.
const PARTS: [&str; 3] = ["read values", "write values", "write state and ledger"];
const READING: usize = 0;
const WRITING: usize = 1;
const BOOK: usize = 2;

/// Since when a part fails, and what of that was told.
#[derive(Debug, Default)]
struct Failure {
    since: Option<Millis>,
    told: BTreeSet<(&'static str, io::ErrorKind)>,
}

impl<D: Disk> Store<D> {
    /// Opens a directory: locks it and reads what is there. Damaged files never make it fail: [`poll_event`](Self::poll_event)
    /// tells of them.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(mut disk: D, settings: Settings) -> Result<(Self, Found), OpenError> {
        let failed = |doing| move |error| OpenError::Disk { doing, error };
        disk.lock(LOCK).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse,
            _ => OpenError::Disk { doing: "lock the directory", error },
        })?;
        let mut store = Store {
            disk,
            settings,
            logs: Vec::new(),
            places: BTreeMap::new(),
            unusable: BTreeSet::new(),
            busy: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            due: BTreeSet::new(),
            due_from: 0,
            book_due: false,
            flight: None,
            jobs: 0,
            lost: BTreeSet::new(),
            kept: 0,
            parked: 0,
            written: 0,
            feedable: BTreeSet::new(),
            bytes: 0,
            by_bytes: BTreeSet::new(),
            elsewhere: false,
            book: Book::default(),
            gone: BTreeMap::new(),
            events: VecDeque::new(),
            write_at: None,
            sync_at: None,
            ledger_at: Millis(0),
            age_at: Millis(0),
            book_retry_at: None,
            book_wait_ms: 0,
            failing: BTreeSet::new(),
            unread: BTreeSet::new(),
            unremoved: BTreeSet::new(),
            failing_since: None,
            episodes: Default::default(),
        };
        let mut entries = store.disk.list("").map_err(failed("list the directory"))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut found = Found::default();
        let mut unread = Vec::new();
        for entry in entries.iter().filter(|e| e.dir) {
            let Ok(id) = entry.name.parse::<u64>() else { continue };
            if id.to_string() != entry.name {
                continue;
            }
            match store.open_log(id, false, &mut found) {
                Err(error) if log::is_read_error(&error) => unread.push(id),
                Err(error) => store.leave_alone(id, &error),
                Ok(()) => {}
            }
        }
        // If the disk reads others, what it can't is damage. Otherwise it may read all of it later.
        let others_read =
            store.bytes > 0 || [LEDGER, STATES].iter().any(|file| log::can_read(&mut store.disk, file));
        for id in unread {
            if let Err(error) = store.open_log(id, others_read, &mut found) {
                store.leave_alone(id, &error);
            }
        }
        if !store.busy.is_empty() {
            store.write_at = Some(Millis(0));
        }
        let known = found.values + found.corrupt;
        let (book, damaged) =
            Book::open(&mut store.disk, &entries, known, !store.unusable.is_empty(), others_read)?;
        store.book = book;
        damaged.into_iter().for_each(|event| store.tell(event));
        Ok((store, found))
    }

    /// What an account's files hold.
    fn open_log(&mut self, id: u64, others_read: bool, found: &mut Found) -> io::Result<()> {
        if self.logs.len() >= ACCOUNTS_MAX {
            return Ok(());
        }
        let (log, in_log) = Log::open(&mut self.disk, id, others_read)?;
        found.values += in_log.values;
        found.corrupt += in_log.corrupt;
        if in_log.bad_bytes > 0 || in_log.corrupt > 0 {
            let (values, bytes) = (in_log.corrupt, in_log.bad_bytes);
            self.tell(StoreEvent::Damaged { account: id, values, bytes });
        }
        let unsynced = log.unsynced() && self.settings.durable();
        let place = self.add(log);
        self.busy.insert(place);
        if unsynced {
            self.unsynced.insert(place);
            self.sync_at = Some(Millis(0));
        }
        Ok(())
    }

    fn leave_alone(&mut self, account: u64, error: &io::Error) {
        self.unusable.insert(account);
        self.tell(StoreEvent::Unusable { account, error: error.to_string() });
    }

    fn add(&mut self, log: Log) -> usize {
        let place = self.logs.len();
        self.places.insert(log.id, place);
        self.logs.push(log);
        self.weigh(place);
        place
    }

    /// After each change of a log's files. O(files of this log + log accounts).
    fn weigh(&mut self, place: usize) {
        let Some(log) = self.logs.get_mut(place) else { return };
        let bytes = log.bytes();
        self.by_bytes.remove(&(log.bytes_noted, place));
        self.by_bytes.insert((bytes, place));
        self.bytes = self.bytes - log.bytes_noted + bytes;
        log.bytes_noted = bytes;
        self.count(place);
    }

    /// After each change of what a log holds. O(log ranges).
    fn count(&mut self, place: usize) {
        let Some(log) = self.logs.get_mut(place) else { return };
        let now = log.count();
        let before = core::mem::replace(&mut log.counted, now);
        self.parked = self.parked - before.parked + now.parked;
        self.written = self.written - before.written + now.written;
        if before.feedable != now.feedable {
            if now.feedable {
                self.feedable.insert(place);
            } else {
                self.feedable.remove(&place);
            }
        }
    }

    fn tell(&mut self, event: StoreEvent) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The next thing an operator should know.
    pub fn poll_event(&mut self) -> Option<StoreEvent> {
        self.events.pop_front()
    }

    /// Parked values that were given up since the last call: for
    /// [`drop_parked`](grafolean_core::outbox::Outbox::drop_parked).
    pub fn poll_gone(&mut self) -> Option<(Gone, u64)> {
        self.gone.pop_first()
    }

    fn give_up(&mut self, why: Gone, values: u64) {
        if values > 0 {
            *self.gone.entry(why).or_insert(0) += values;
        }
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Bytes in all segments. O(1).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Accounts with parked values that can be fed, and how many. O(those accounts).
    pub fn parked(&self) -> impl Iterator<Item = (u64, u64)> {
        self.feedable.iter().filter_map(|&place| self.logs.get(place)).map(|l| (l.id, l.parked.len()))
    }

    /// All parked values. O(1).
    #[must_use]
    pub const fn parked_total(&self) -> u64 {
        self.parked
    }

    /// Values that wait, in the collector's memory or not, and are written: the next life finds them. O(1).
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// When the oldest value that waits was handed over, in the collector's memory or not; of those that are written it
    /// is known to 16 kB of their file, about 1000 values: not later than that. O(accounts).
    #[must_use]
    pub fn oldest(&self) -> Option<UnixMillis> {
        self.logs.iter().filter_map(Log::oldest_ms).min().map(UnixMillis)
    }

    /// The time by which [`handle_time`](Self::handle_time) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let in_flight = |p: &usize| self.flight.as_ref().is_some_and(|(_, places)| places.contains(p));
        let retries = self.failing.iter().filter(|p| !self.due.contains(p) && !in_flight(p));
        let retries = retries.filter_map(|&p| self.logs.get(p)).filter_map(|l| l.wait).map(|w| w.until);
        // The next one begins when the one that is under way ends.
        let sync_at = self.sync_at.filter(|_| self.flight.is_none());
        [self.write_at, sync_at, self.book_retry_at].into_iter().flatten().chain(retries).min()
    }

    fn write_by(&mut self, at: Millis) {
        self.write_at = Some(self.write_at.map_or(at, |before| before.min(at)));
    }

    /// Takes a value that is handed over now: its record's number, higher than all before of this account. `None` if it
    /// is to stay in memory only: the disk fails at present, or path or number are longer than this format takes.
    ///
    /// Under [`WritePolicy::First`] it is written before this returns, under [`Sync::Always`] synced too; after
    /// [`sync_elsewhere`](Self::sync_elsewhere) that is due then, and [`is_settled`](Self::is_settled) tells.
    pub fn take(&mut self, now: Millis, account: u64, value: &Value<'_>) -> Option<u64> {
        let place = match self.places.get(&account) {
            Some(&place) => place,
            None if self.unusable.contains(&account) || self.logs.len() >= ACCOUNTS_MAX => return None,
            None => self.add(Log::new(account)),
        };
        if self.failing.contains(&place) {
            return None;
        }
        let log = self.logs.get_mut(place)?;
        let record = (place as u64) << SEQUENCE_BITS | log.take(now, value)?;
        let much = log.pending_bytes() > PENDING_BYTES;
        self.count(place);
        self.busy.insert(place);
        if much || self.settings.write == WritePolicy::First {
            // What is done with is written together with the ledger.
            self.write_one(now, place, false, true);
            // Else it is kept at the next writing. A burst must not fill the disk until then.
            if self.bytes() > self.settings.max_bytes + self.settings.segment_bytes() {
                self.keep_bound(now);
            }
            self.sync_here(now);
        } else {
            self.write_by(Millis(now.0 + BEHIND_MS));
        }
        Some(record)
    }

    /// A record has left the collector's memory, as [`Left`](grafolean_core::outbox::Left) says. `parked`: it is the
    /// only copy from now on. If its value was given up meanwhile, [`poll_gone`](Self::poll_gone) tells.
    pub fn left(&mut self, now: Millis, record: u64, parked: bool) {
        let (place, sequence) = ((record >> SEQUENCE_BITS) as usize, record & (SEQUENCE_END - 1));
        let Some(log) = self.logs.get_mut(place) else { return };
        let result = log.left(sequence, parked);
        self.count(place);
        match result {
            Ok(()) if !parked => {
                self.busy.insert(place);
                self.write_by(Millis(now.0 + DONE_MS));
            }
            Err(gone) if parked => self.give_up(gone, 1),
            _ => {}
        }
    }

    /// Gives up to `max` parked values of an account back, in the order of hand-over, until `accept` says no. One that
    /// was accepted is in the collector's memory again, under the same record.
    pub fn feed(
        &mut self,
        now: Millis,
        unix: UnixMillis,
        account: u64,
        max: u64,
        mut accept: impl FnMut(u64, &Value<'_>) -> bool,
    ) {
        let Some(&place) = self.places.get(&account) else { return };
        let Some(log) = self.logs.get_mut(place) else { return };
        if log.read_wait.is_some_and(|w| now < w.until) {
            return;
        }
        let oldest_ms = unix.0.saturating_sub(self.settings.max_age_ms);
        let fed = log.feed(&mut self.disk, now, oldest_ms, max, |r| {
            let value = Value {
                time: UnixMillis(r.time_ms),
                handed_over: UnixMillis(r.handed_over_ms),
                path: r.path,
                number: r.number,
            };
            accept((place as u64) << SEQUENCE_BITS | r.sequence, &value)
        });
        self.count(place);
        let (fed, error) = match fed {
            (fed, Ok(())) => (fed, None),
            (fed, Err(e)) => (fed, Some(e)),
        };
        if fed.corrupt > 0 {
            self.tell(StoreEvent::Damaged { account, values: fed.corrupt, bytes: 0 });
        }
        self.give_up(Gone::Corrupt, fed.corrupt);
        self.give_up(Gone::TooOld, fed.too_old);
        if fed.corrupt + fed.too_old > 0 {
            self.busy.insert(place);
            self.write_by(Millis(now.0 + DONE_MS));
        }
        match error {
            // What can't be read may be written to all the same.
            Some(error) => {
                if let Some(log) = self.logs.get_mut(place) {
                    log.back_off_reading(now, BACK_OFF_MS.0, BACK_OFF_MS.1);
                }
                self.unread.insert(place);
                self.tell_failing(now, READING, "read", Some(account), &error);
            }
            None => self.reads(now, place),
        }
    }

    fn reads(&mut self, now: Millis, place: usize) {
        if self.unread.remove(&place) {
            if let Some(log) = self.logs.get_mut(place) {
                log.read_wait = None;
            }
            self.tell_working(now);
        }
    }

    fn fails(&mut self, now: Millis, place: usize, doing: &'static str, error: &io::Error) {
        let Some(log) = self.logs.get_mut(place) else { return };
        log.back_off(now, BACK_OFF_MS.0, BACK_OFF_MS.1);
        let account = Some(log.id);
        self.failing.insert(place);
        self.tell_failing(now, WRITING, doing, account, error);
    }

    /// Each kind of error is told once per part, until that works again; not for each account, as they share the disk.
    fn tell_failing(
        &mut self,
        now: Millis,
        part: usize,
        doing: &'static str,
        account: Option<u64>,
        error: &io::Error,
    ) {
        self.failing_since.get_or_insert(now);
        let Some(failure) = self.episodes.get_mut(part) else { return };
        failure.since.get_or_insert(now);
        if failure.told.insert((doing, error.kind())) {
            self.tell(StoreEvent::Failing { doing, account, error: error.to_string() });
        }
    }

    fn works(&mut self, now: Millis, place: usize) {
        if self.unremoved.contains(&place) {
            return;
        }
        if self.failing.remove(&place)
            && let Some(log) = self.logs.get_mut(place)
        {
            log.wait = None;
        }
        self.tell_working(now);
    }

    fn tell_working(&mut self, now: Millis) {
        let fail = [!self.unread.is_empty(), !self.failing.is_empty(), self.book_retry_at.is_some()];
        let others = fail.contains(&true);
        for (part, doing) in PARTS.into_iter().enumerate().filter(|(part, _)| fail.get(*part) == Some(&false))
        {
            let ended = self.episodes.get_mut(part).map(core::mem::take);
            if let Some(since) = ended.and_then(|f| f.since).filter(|_| others) {
                self.tell(StoreEvent::WorkingInPart { doing, after_ms: now.0.saturating_sub(since.0) });
            }
        }
        if !others && let Some(since) = self.failing_since.take() {
            self.tell(StoreEvent::Working { after_ms: now.0.saturating_sub(since.0) });
        }
    }

    /// Writes what waits in one log, and syncs it if the settings say at once. Without `all`, values only if one of them
    /// has waited long enough.
    fn write_one(&mut self, now: Millis, place: usize, marks: bool, all: bool) {
        let (segment_bytes, durable) = (self.settings.segment_bytes(), self.settings.durable());
        let Some(log) = self.logs.get_mut(place) else { return };
        if log.wait.is_some_and(|w| now < w.until) {
            return;
        }
        // After a failure something is to be written, so that it is known whether that works.
        let all = all || log.wait.is_some();
        let values_to = if all { Some(now) } else { now.0.checked_sub(TOGETHER_MS).map(Millis) };
        let result = log.write(&mut self.disk, segment_bytes, durable, marks, values_to, now);
        self.weigh(place);
        if let Err(e) = result {
            return self.fails(now, place, "write", &e);
        }
        let Some(log) = self.logs.get(place) else { return };
        let oldest = log.oldest_taken();
        if (marks || !log.has_marks()) && !log.wants_name() && oldest.is_none() {
            self.busy.remove(&place);
        }
        if let Some(oldest) = oldest {
            self.write_by(Millis(oldest.0 + BEHIND_MS));
        }
        self.note(now, place);
        if !self.unsynced.contains(&place) || !self.failing.contains(&place) {
            self.works(now, place);
        }
    }

    /// After a change of a log's files.
    fn note(&mut self, now: Millis, place: usize) {
        let durable = self.settings.durable();
        let Some(log) = self.logs.get_mut(place) else { return };
        self.kept -= log.kept_noted;
        log.keep_at_most(if durable { KEPT_BYTES.saturating_sub(self.kept) } else { 0 });
        log.kept_noted = log.kept();
        self.kept += log.kept_noted;
        let (account, lost) = (log.id, core::mem::take(&mut log.lost));
        if !log.missing.is_empty() {
            self.lost.insert(place);
        }
        if lost > 0 {
            self.give_up(Gone::Corrupt, lost);
            self.tell(StoreEvent::Damaged { account, values: lost, bytes: 0 });
        }
        if !self.logs.get(place).is_some_and(Log::unsynced) {
            return;
        }
        match self.settings.sync {
            Sync::Never => {}
            Sync::Always => {
                self.unsynced.insert(place);
                self.due.insert(place);
            }
            Sync::Every { ms } => {
                self.unsynced.insert(place);
                self.sync_by(Millis(now.0 + ms));
            }
        }
    }

    fn sync_by(&mut self, at: Millis) {
        self.sync_at = Some(self.sync_at.map_or(at, |before| before.min(at)));
    }

    /// From now on syncs, which may take seconds, are left to the caller: after each
    /// [`handle_time`](Self::handle_time), [`take`](Self::take) and [`handle_synced`](Self::handle_synced) it asks
    /// [`poll_sync`](Self::poll_sync). Otherwise these calls wait for the disk.
    pub const fn sync_elsewhere(&mut self) {
        self.elsewhere = true;
    }

    /// The next syncs that are due. One job at a time: `None` until [`handle_synced`](Self::handle_synced) was called with
    /// what came of the one before. A job that was lost is replaced by [`flush`](Self::flush).
    pub fn poll_sync(&mut self, now: Millis) -> Option<SyncJob> {
        if self.flight.is_some() {
            return None;
        }
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync_all_soon(now);
        }
        let (mut logs, mut files, mut places) = (Vec::new(), 0, BTreeSet::new());
        while files + logs.len() < SYNC_FILES
            && let Some(place) = self.next_due()
        {
            let ready = |l: &&mut Log| !l.again && l.wait.is_none_or(|w| w.until <= now);
            let Some(log) = self.logs.get_mut(place).filter(ready) else {
                continue;
            };
            match log.group(&mut self.disk, SYNC_FILES - files) {
                Ok(group) => {
                    files += group.files();
                    logs.push((place, group));
                    places.insert(place);
                }
                Err(e) => {
                    self.busy.insert(place);
                    self.fails(now, place, "sync", &e);
                }
            }
        }
        let mut book = None;
        if core::mem::take(&mut self.book_due) && self.book.unsynced() {
            match self.book.group(&mut self.disk) {
                Ok(group) => book = Some(group),
                Err(e) => self.book_fails(now, &e),
            }
        }
        if logs.is_empty() && book.is_none() {
            return None;
        }
        self.jobs += 1;
        self.flight = Some((self.jobs, places));
        Some(SyncJob { id: self.jobs, logs, book })
    }

    /// The next place whose sync is due, each in its turn: none waits longer than one turn of all others.
    fn next_due(&mut self) -> Option<usize> {
        let place = *self.due.range(self.due_from..).next().or_else(|| self.due.first())?;
        self.due.remove(&place);
        self.due_from = place + 1;
        Some(place)
    }

    /// A job has ended.
    pub fn handle_synced(&mut self, now: Millis, synced: Synced) {
        if self.flight.take_if(|(id, _)| *id == synced.id).is_none() {
            // Flushed meanwhile.
            return;
        }
        for (place, done) in synced.logs {
            let more = done.more;
            let Some(log) = self.logs.get_mut(place) else { continue };
            let result = log.grouped(done);
            if log.can_remove(self.settings.durable()) {
                self.busy.insert(place);
                self.write_by(now);
            }
            self.weigh(place);
            let Some(log) = self.logs.get(place) else { continue };
            match result {
                Ok(()) if log.unsynced() => {
                    if more {
                        self.due.insert(place);
                    } else {
                        self.note(now, place);
                    }
                }
                Ok(()) => {
                    self.unsynced.remove(&place);
                    if !self.busy.contains(&place) || !log.has_pending() {
                        self.works(now, place);
                    }
                }
                Err(e) => {
                    // What was lost is written again.
                    self.busy.insert(place);
                    self.fails(now, place, "sync", &e);
                }
            }
            self.note(now, place);
        }
        if let Some(done) = synced.book {
            match self.book.grouped(&mut self.disk, done) {
                Ok(()) => self.note_book(now),
                Err(e) => self.book_fails(now, &e),
            }
        }
    }

    /// Whether a job is under way.
    #[must_use]
    pub const fn is_syncing(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether there is nothing to wait for: a record survives a power cut, is no longer kept, or the disk fails.
    #[must_use]
    pub fn is_settled(&self, record: u64) -> bool {
        let (place, sequence) = ((record >> SEQUENCE_BITS) as usize, record & (SEQUENCE_END - 1));
        self.failing.contains(&place) || self.logs.get(place).is_none_or(|l| l.is_durable(sequence))
    }

    /// Whether values in the collector's memory may have records that a failed sync lost: each of which
    /// [`is_lost`](Self::is_lost), for [`forget_records`](grafolean_core::outbox::Outbox::forget_records); then
    /// [`forget_lost`](Self::forget_lost).
    #[must_use]
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Whether a record is lost, and its value was in the collector's memory.
    #[must_use]
    pub fn is_lost(&self, record: u64) -> bool {
        let (place, sequence) = ((record >> SEQUENCE_BITS) as usize, record & (SEQUENCE_END - 1));
        self.logs.get(place).is_some_and(|l| l.missing.contains(sequence))
    }

    /// The collector has forgotten the lost records: they will not leave it.
    pub fn forget_lost(&mut self) {
        for place in core::mem::take(&mut self.lost) {
            if let Some(log) = self.logs.get_mut(place) {
                log.missing.clear();
            }
        }
    }

    fn sync_all_soon(&mut self, now: Millis) {
        self.sync_at = None;
        let ready = |p: &&usize| self.logs.get(**p).is_some_and(|l| l.wait.is_none_or(|w| w.until <= now));
        self.due.extend(self.unsynced.iter().filter(ready));
        self.book_due = true;
    }

    fn sync_here(&mut self, now: Millis) {
        while !self.elsewhere
            && let Some(job) = self.poll_sync(now)
        {
            self.handle_synced(now, job.run());
        }
    }

    /// Does what is due: writes, syncs, tries again, keeps the bounds. Calling early or late is harmless.
    pub fn handle_time(&mut self, now: Millis, unix: UnixMillis) {
        let writes = self.write_at.is_some_and(|at| at <= now);
        self.work(now, unix, writes, false);
        self.sync_here(now);
    }

    /// Does all that waits, whether it is due or not, and syncs unless that is off. For the end of the process, and
    /// before one that may be. Waits for the disk. A job that is under way has to end before
    /// ([`handle_synced`](Self::handle_synced)): what comes of it later is ignored, and if it fails, so is what it lost.
    pub fn flush(&mut self, now: Millis, unix: UnixMillis) {
        self.begin_flush(now);
        self.flight = None;
        // Files that are done with go when others were synced, and that is synced again.
        for _ in 0..3 {
            self.flush_step(now, unix);
            while let Some(job) = self.poll_sync(now) {
                self.handle_synced(now, job.run());
            }
            if self.is_flushed() {
                break;
            }
        }
    }

    /// A flush whose syncs the caller does: first this; then [`flush_step`](Self::flush_step), and all jobs that
    /// [`poll_sync`](Self::poll_sync) gives, three times or until it [is flushed](Self::is_flushed).
    pub fn begin_flush(&mut self, now: Millis) {
        self.failing.iter().for_each(|&p| {
            if let Some(l) = self.logs.get_mut(p)
                && let Some(w) = &mut l.wait
            {
                w.until = now;
            }
        });
        self.book_retry_at = self.book_retry_at.map(|_| now);
        self.ledger_at = now;
    }

    /// Writes all that waits, and makes all syncs due.
    pub fn flush_step(&mut self, now: Millis, unix: UnixMillis) {
        self.work(now, unix, true, true);
        if self.settings.durable() {
            self.sync_all_soon(now);
        }
    }

    /// Whether all is written, and synced unless that is off.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        let book = self.settings.durable() && self.book.unsynced();
        self.busy.is_empty() && self.unsynced.is_empty() && !book
    }

    /// Flushes, and gives the directory free.
    pub fn close(mut self, now: Millis, unix: UnixMillis) {
        self.flush(now, unix);
    }

    /// `writes`: it is time to write; `all`: also what has not waited long.
    fn work(&mut self, now: Millis, unix: UnixMillis, writes: bool, all: bool) {
        if self.age_at <= now {
            self.age_at = Millis(now.0 + AGE_MS);
            self.drop_old(now, unix);
        }
        // What was to be read may have been given up meanwhile.
        let nothing = |p: &usize| self.logs.get(*p).is_none_or(|l| l.parked.is_empty());
        for place in self.unread.iter().copied().filter(nothing).collect::<Vec<_>>() {
            self.reads(now, place);
        }
        let retries: Vec<usize> = self.failing.iter().copied().collect();
        let bytes = self.bytes();
        if writes {
            self.write_at = None;
            // Where something can't be removed, that comes first.
            let ready: Vec<usize> = self.busy.difference(&self.unremoved).copied().collect();
            ready.into_iter().for_each(|place| self.write_one(now, place, true, all));
            self.keep_bound(now);
        }
        for place in retries {
            if self.logs.get(place).is_some_and(|l| l.wait.is_some_and(|w| now < w.until)) {
                continue;
            }
            if self.unremoved.contains(&place) && !self.removes(now, unix, place) {
                continue;
            }
            if self.busy.contains(&place) {
                self.write_one(now, place, true, true);
            }
            if self.unsynced.contains(&place) {
                self.due.insert(place);
            } else if !self.busy.contains(&place) {
                // It was a read that failed: whoever reads will see.
                self.works(now, place);
            }
        }
        if (writes || self.book_retry_at.is_some()) && self.book_retry_at.is_none_or(|at| at <= now) {
            self.write_book(now, self.bytes() != bytes);
        }
    }

    /// `news`: values, or that they left, were written: then the ledger goes with them, so that after a kill they are not
    /// counted as lost.
    fn write_book(&mut self, now: Millis, news: bool) {
        let durable = self.settings.durable();
        let due = self.ledger_at <= now;
        let mut result = self.book.write_states(&mut self.disk, durable, due);
        if result.is_ok() && (due || news) {
            result = self.book.write_ledger(&mut self.disk, durable, due);
            if due {
                self.ledger_at = Millis(now.0 + LEDGER_MS);
            }
        }
        while let Some(file) = self.book.poll_gone() {
            self.tell(StoreEvent::FileGone { file });
        }
        match result {
            Ok(()) => {
                let retried = self.book_retry_at.take().is_some();
                if retried && durable && self.book.unsynced() {
                    self.book_due = true;
                } else {
                    self.note_book(now);
                }
            }
            Err(e) => self.book_fails(now, &e),
        }
    }

    fn note_book(&mut self, now: Millis) {
        if self.settings.durable() && self.book.unsynced() {
            match self.settings.sync {
                Sync::Never => {}
                Sync::Always => self.book_due = true,
                Sync::Every { ms } => self.sync_by(Millis(now.0 + ms)),
            }
        }
        if self.book.has_states_to_write() {
            self.write_by(Millis(now.0 + BEHIND_MS));
        }
        self.book_wait_ms = 0;
        self.tell_working(now);
    }

    fn book_fails(&mut self, now: Millis, error: &io::Error) {
        // The ledger waits too: it would ask for the time at once, again and again.
        self.book_wait_ms = (self.book_wait_ms * 2).clamp(BACK_OFF_MS.0, BACK_OFF_MS.1);
        self.ledger_at = Millis(now.0 + self.book_wait_ms);
        self.book_retry_at = Some(self.ledger_at);
        self.tell_failing(now, BOOK, "write state and ledger", None, error);
    }

    fn drop_old(&mut self, now: Millis, unix: UnixMillis) {
        for place in 0..self.logs.len() {
            self.drop_old_of(now, unix, place);
        }
    }

    fn drop_old_of(&mut self, now: Millis, unix: UnixMillis, place: usize) {
        let oldest_ms = unix.0.saturating_sub(self.settings.max_age_ms);
        let is_old = |l: &&mut Log| l.front_is_older_than(oldest_ms) && l.wait.is_none_or(|w| w.until <= now);
        while let Some(log) = self.logs.get_mut(place).filter(is_old) {
            let result = log.drop_front(&mut self.disk);
            self.weigh(place);
            self.note(now, place);
            match result {
                Ok(Some(values)) => self.give_up(Gone::TooOld, values),
                Ok(None) => break,
                Err(e) => self.cannot_remove(now, place, &e),
            }
        }
    }

    /// Until it can, the account takes no values into its files: they would grow beyond the bound.
    fn cannot_remove(&mut self, now: Millis, place: usize, error: &io::Error) {
        self.unremoved.insert(place);
        self.fails(now, place, "remove", error);
    }

    /// Tries again what could not be removed: whether nothing is left that should go.
    fn removes(&mut self, now: Millis, unix: UnixMillis, place: usize) -> bool {
        self.unremoved.remove(&place);
        self.drop_old_of(now, unix, place);
        self.keep_bound(now);
        !self.unremoved.contains(&place)
    }

    /// Thinning begins a segment before the bound, and goes on with the next steps: reading files takes its time.
    fn keep_bound(&mut self, now: Millis) {
        let mut given: BTreeMap<u64, u64> = BTreeMap::new();
        let mut thinned: BTreeMap<u64, u64> = BTreeMap::new();
        let settings = self.settings;
        let room = if settings.thin { settings.segment_bytes() } else { 0 };
        let mut bytes_read = 0;
        while self.bytes() > settings.max_bytes.saturating_sub(room) {
            let mut most = self.by_bytes.iter().rev().map(|&(_, place)| place);
            // Where removing failed, the next one gives: the bound holds for all.
            let gives = |l: &Log| l.can_drop_front() && l.wait.is_none_or(|w| w.until <= now);
            let most = most.find(|&p| self.logs.get(p).is_some_and(gives));
            let Some((place, log)) = most.and_then(|p| Some((p, self.logs.get_mut(p)?))) else { break };
            let account = log.id;
            if settings.thin && bytes_read >= THIN_BYTES {
                self.write_by(Millis(now.0 + THIN_MS));
            } else if settings.thin {
                let result = log.thin(&mut self.disk, settings.durable());
                self.weigh(place);
                self.note(now, place);
                match result {
                    Ok(Some(step)) => {
                        bytes_read += step.bytes_read;
                        *thinned.entry(account).or_insert(0) += step.values;
                        self.give_up(Gone::Thinned, step.values);
                        continue;
                    }
                    // No more to be gained by that.
                    Ok(None) => {}
                    Err(e) => {
                        // The file may have to get its name back.
                        self.busy.insert(place);
                        self.fails(now, place, "thin", &e);
                        break;
                    }
                }
            }
            if self.bytes() <= settings.max_bytes {
                break;
            }
            let Some(log) = self.logs.get_mut(place) else { break };
            let result = log.drop_front(&mut self.disk);
            self.weigh(place);
            self.note(now, place);
            match result {
                Ok(Some(values)) => {
                    *given.entry(account).or_insert(0) += values;
                    self.give_up(Gone::Full, values);
                }
                Ok(None) => break,
                Err(e) => self.cannot_remove(now, place, &e),
            }
        }
        for (account, values) in thinned.into_iter().filter(|(_, v)| *v > 0) {
            self.tell(StoreEvent::Thinned { account, values });
        }
        for (account, values) in given.into_iter().filter(|(_, v)| *v > 0) {
            self.tell(StoreEvent::Full { account, values });
        }
    }

    /// The collector's ledger at present, for [`totals`](Self::totals); written with values, else each 10 s, and at the
    /// end.
    pub fn set_ledger(&mut self, now: Millis, ledger: &Ledger) {
        self.book.set_ledger(ledger);
        if self.ledger_at <= now {
            self.write_by(now);
        }
    }

    /// Counts over all lives of the directory, as of the last [`set_ledger`](Self::set_ledger).
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.book.totals()
    }

    /// All states.
    pub fn states(&self) -> impl Iterator<Item = StoredState> {
        self.book.states()
    }

    /// A state has changed. It is written with the next values, at most 0.9 s later. `false` if it is longer than 1 kB.
    pub fn set_state(&mut self, now: Millis, job: u64, name: u64, bytes: &[u8]) -> bool {
        let taken = self.book.set_state(job, name, bytes);
        if self.book.has_states_to_write() {
            self.write_by(Millis(now.0 + BEHIND_MS));
        }
        taken
    }

    /// Some states were forgotten: these are all that there are.
    pub fn replace_states(&mut self, now: Millis, all: impl Iterator<Item = StoredState>) {
        self.book.replace_states(all);
        self.write_by(Millis(now.0 + BEHIND_MS));
    }
}
