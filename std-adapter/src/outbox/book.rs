//! What is kept besides values: the keyed state of jobs, and the ledger over all lives of the directory.

use std::collections::BTreeMap;
use std::io;

use grafolean_core::outbox::{DropReason, Ledger};

use super::codec::{self, Frames, Reader, put_varint};
use super::disk::{Disk, Entry, Syncing};
use super::log::{is_read_error, read_pieces};
use super::{OpenError, StoreEvent};

pub(super) const STATES: &str = "state";
const STATES_NEW: &str = "state.tmp";
pub(super) const LEDGER: &str = "ledger";
/// The ledger is written in two places in turn, so that one of them is always whole.
const LEDGER_PLACES: [u64; 2] = [0, LEDGER_ROOM as u64];
/// Room for the ledger in each place, bytes.
const LEDGER_ROOM: usize = 512;
/// The log of states is rewritten when it is longer than this and twice what it says, bytes.
const STATES_SLACK: u64 = 64 * 1024;
/// No more is read, bytes.
const STATES_MAX: u64 = 256 * 1024 * 1024;

/// Counts of values over all lives of a store's directory.
///
/// `collected = delivered + queued + dropped + lost`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Handed over and accepted.
    pub collected: u64,
    /// Stored by the backend.
    pub delivered: u64,
    /// Waiting now, also in files of accounts that this life of the process leaves alone: there also what was lost, until
    /// they can be read.
    pub queued: u64,
    /// Dropped, by reason in the order of [`DropReason::ALL`].
    pub dropped: [u64; 8],
    /// In memory only, or about to be counted, when a process ended without notice: delivered or lost.
    pub lost: u64,
    /// How often the directory was opened.
    pub lives: u64,
}

impl Totals {
    /// Whether every value is in exactly one place.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.collected == self.delivered + self.queued + self.dropped.iter().sum::<u64>() + self.lost
    }
}

impl std::fmt::Display for Totals {
    /// One line; reasons that never occurred are left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dropped: u64 = self.dropped.iter().sum();
        let Totals { collected, delivered, queued, lost, lives, .. } = self;
        write!(f, "collected {collected} = delivered {delivered} + queued {queued} + dropped {dropped}")?;
        let mut open = false;
        for (reason, &n) in DropReason::ALL.iter().zip(&self.dropped).filter(|(_, n)| **n > 0) {
            write!(f, "{}{} {n}", if open { ", " } else { " (" }, reason.name())?;
            open = true;
        }
        write!(f, "{} + lost {lost}, in {lives} starts", if open { ")" } else { "" })
    }
}

/// One state of a job: [`StateSlot`](grafolean_core::state::StateSlot) as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredState {
    /// Hash of the job's key.
    pub job: u64,
    /// Hash of the state's name.
    pub name: u64,
    /// The state.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    /// Of earlier lives.
    base: Totals,
    /// Values that wait in files of accounts that this life leaves alone, so far as the ledger says.
    away: u64,
    ledger: Ledger,
    ledger_saved: Option<Ledger>,
    writes: u64,
    /// Where it was written last.
    ledger_place: usize,
    ledger_pace: Pace,
    /// The ledger's time to be synced has come.
    ledger_due: bool,
    states: BTreeMap<(u64, u64), Vec<u8>>,
    /// Bytes of their frames.
    states_live: u64,
    states_len: u64,
    /// Frames to append.
    states_new: Vec<u8>,
    rewrite: bool,
    /// All states are in a new file of this length, which takes the place of the old one when it is synced.
    rewritten: Option<u64>,
    states_pace: Pace,
    names_pace: Pace,
    /// Not a byte of a file could be read, of this one or any other: nothing is written, so that a next life may read it.
    sealed: bool,
    /// Files that somebody else has removed, to be told.
    gone: Vec<&'static str>,
}

/// How often something was changed, and up to which change it survives a power cut.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    changes: u64,
    synced: u64,
}

impl Pace {
    const fn lags(self) -> bool {
        self.synced < self.changes
    }
}

/// What has to be synced of state and ledger: done elsewhere.
pub(super) struct Group {
    states: Option<(u64, Syncing)>,
    rewritten: Option<Syncing>,
    ledger: Option<(u64, Syncing)>,
    names: Option<(u64, Syncing)>,
}

/// What came of it.
pub(super) struct Grouped {
    states: Option<(u64, io::Result<()>)>,
    rewritten: Option<io::Result<()>>,
    ledger: Option<(u64, io::Result<()>)>,
    names: Option<(u64, io::Result<()>)>,
}

impl Group {
    pub(super) fn run(self) -> Grouped {
        let run = |(changes, sync): (u64, Syncing)| (changes, sync());
        Grouped {
            states: self.states.map(run),
            rewritten: self.rewritten.map(|sync| sync()),
            ledger: self.ledger.map(run),
            names: self.names.map(run),
        }
    }
}

fn put_state(out: &mut Vec<u8>, job: u64, name: u64, bytes: &[u8]) {
    codec::put_frame(out, 0, codec::STATE, |out| {
        out.extend_from_slice(&job.to_le_bytes());
        out.extend_from_slice(&name.to_le_bytes());
        out.extend_from_slice(bytes);
    });
}

/// Bytes that a state takes in the file.
const fn frame_len(state: &[u8]) -> u64 {
    (codec::FRAME_HEAD + 16 + state.len()) as u64
}

fn read_state(payload: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (job, rest) = payload.split_first_chunk()?;
    let (name, bytes) = rest.split_first_chunk()?;
    Some((u64::from_le_bytes(*job), u64::from_le_bytes(*name), bytes))
}

fn read_totals(payload: &[u8]) -> Option<(u64, Totals)> {
    let mut r = Reader(payload);
    let mut t = Totals::default();
    let writes = r.varint()?;
    for n in [&mut t.collected, &mut t.delivered, &mut t.lost, &mut t.lives].into_iter().chain(&mut t.dropped)
    {
        *n = r.varint()?;
    }
    Some((writes, t))
}

/// What a file holds: zeros where the disk can't read, and then what it says.
fn read(
    disk: &mut impl Disk,
    file: &'static str,
    at: u64,
    len: usize,
) -> Result<(Vec<u8>, Option<io::Error>), OpenError> {
    let mut bytes = vec![0; len];
    match disk.read(file, at, &mut bytes) {
        Ok(n) => {
            bytes.truncate(n);
            Ok((bytes, None))
        }
        Err(error) if is_read_error(&error) => {
            let n = read_pieces(disk, file, at, &mut bytes);
            Ok((bytes, Some(error).filter(|_| n < len)))
        }
        Err(error) => Err(OpenError::File { file, error }),
    }
}

/// The frame of totals that a place of the ledger holds.
fn read_place(bytes: &[u8]) -> Option<(u64, Totals)> {
    codec::frame(0, bytes).filter(|f| f.kind == codec::TOTALS).and_then(|f| read_totals(f.payload))
}

/// Whether a file has at least so many bytes.
fn is_there(disk: &mut impl Disk, file: &str, len: u64) -> io::Result<bool> {
    match disk.len(file) {
        Ok(now) => Ok(now >= len),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

impl Book {
    /// Reads what is there (`entries` of the directory), which may be damaged: what is then to be told. `found`: values
    /// that were found in segments, or are known to have been there. `some_away`: some accounts are left alone, so that the
    /// values that are missing may wait there. `others_read`: something in the directory can be
    /// read.
    ///
    /// # Errors
    /// [`OpenError::File`]: nothing in there was touched.
    pub(super) fn open(
        disk: &mut impl Disk,
        entries: &[Entry],
        found: u64,
        some_away: bool,
        others_read: bool,
    ) -> Result<(Self, Vec<StoreEvent>), OpenError> {
        let (mut book, mut events) = (Book::default(), Vec::new());
        let entry = |name| entries.iter().find(|e| e.name == name);
        if entry(LEDGER).is_some() {
            events.extend(book.read_ledger(disk, others_read)?);
        } else if found > 0 {
            events.push(StoreEvent::DamagedFile { file: LEDGER, why: "it is missing".to_owned(), left: 0 });
        }
        if let Some(entry) = entry(STATES) {
            events.extend(book.read_states(disk, entry.len, others_read)?);
        }
        book.begin(found, some_away);
        Ok((book, events))
    }

    /// A file of which nothing can be read.
    fn seal(&mut self, file: &'static str, error: &io::Error) -> StoreEvent {
        self.sealed = true;
        let why = format!("it can't be read, and is left alone until the next start ({error})");
        StoreEvent::DamagedFile { file, why, left: 0 }
    }

    fn read_ledger(
        &mut self,
        disk: &mut impl Disk,
        others_read: bool,
    ) -> Result<Option<StoreEvent>, OpenError> {
        let (mut wrong, mut whole, mut bytes_read) = (Vec::new(), 0, 0);
        for (i, &at) in LEDGER_PLACES.iter().enumerate() {
            let (bytes, error) = read(disk, LEDGER, at, LEDGER_ROOM)?;
            if let Some(error) = error.as_ref().filter(|_| !others_read) {
                return Ok(Some(self.seal(LEDGER, error)));
            }
            bytes_read += bytes.len();
            match (read_place(&bytes), error) {
                (Some((writes, totals)), _) => {
                    whole += 1;
                    if whole == 1 || writes > self.writes {
                        (self.writes, self.base, self.ledger_place) = (writes, totals, i);
                    }
                }
                (None, Some(error)) => {
                    wrong.push(format!("bytes {at} to {} can't be read: {error}", at + 511))
                }
                // Not written yet.
                (None, None) if bytes.iter().all(|b| *b == 0) => {}
                (None, None) => wrong.push(format!("bytes {at} to {} are damaged", at + 511)),
            }
        }
        if whole == 0 && wrong.is_empty() {
            wrong.push(if bytes_read == 0 { "it is empty" } else { "it holds zeros only" }.to_owned());
        }
        let why = wrong.join(", ");
        Ok((!why.is_empty()).then_some(StoreEvent::DamagedFile { file: LEDGER, why, left: whole }))
    }

    fn read_states(
        &mut self,
        disk: &mut impl Disk,
        len: u64,
        others_read: bool,
    ) -> Result<Option<StoreEvent>, OpenError> {
        let (bytes, error) = read(disk, STATES, 0, len.min(STATES_MAX) as usize)?;
        if let Some(error) = error.as_ref().filter(|_| !others_read) {
            return Ok(Some(self.seal(STATES, error)));
        }
        let mut frames = Frames::new(0, &bytes, true);
        let mut first_bad = None;
        let mut end = 0;
        for (at, frame) in &mut frames {
            if at > end {
                first_bad.get_or_insert(end);
            }
            end = at + codec::FRAME_HEAD + frame.payload.len();
            match read_state(frame.payload).filter(|_| frame.kind == codec::STATE) {
                Some((job, name, state)) => self.put((job, name), state.to_vec()),
                None => {
                    first_bad.get_or_insert(at);
                }
            }
        }
        self.states_len = end as u64;
        // What a killed process has left need not be synced.
        self.states_pace.changes += 1;
        self.names_pace.changes += 1;
        if (end as u64) < len {
            first_bad.get_or_insert(end);
        }
        let bad_bytes = frames.bad_bytes + (len - bytes.len() as u64);
        self.rewrite = first_bad.is_some();
        let Some(at) = first_bad else { return Ok(None) };
        let cause = error.map_or_else(String::new, |e| format!(" ({e})"));
        let why = format!("{bad_bytes} of {len} bytes are damaged, the first of them at {at}{cause}");
        Ok(Some(StoreEvent::DamagedFile { file: STATES, why, left: self.states.len() }))
    }

    /// A further life.
    fn begin(&mut self, found: u64, some_away: bool) {
        // The process may have ended between the last writing of the ledger and that of values.
        let base = &mut self.base;
        let placed = base.delivered + base.dropped.iter().sum::<u64>() + base.lost;
        let waited = base.collected.saturating_sub(placed);
        let missing = waited.saturating_sub(found);
        // Written down, they wait: the next life looks again.
        *(if some_away { &mut self.away } else { &mut base.lost }) += missing;
        base.collected = placed.max(base.collected) + found.saturating_sub(waited);
        base.lives += 1;
    }

    pub(super) fn totals(&self) -> Totals {
        let (base, l) = (&self.base, &self.ledger);
        let mut t = Totals {
            collected: base.collected + l.collected,
            delivered: base.delivered + l.delivered,
            queued: l.queued + self.away,
            ..*base
        };
        t.dropped.iter_mut().zip(&l.dropped).for_each(|(t, n)| *t += n);
        t
    }

    pub(super) fn set_ledger(&mut self, ledger: &Ledger) {
        self.ledger = *ledger;
    }

    pub(super) fn states(&self) -> impl Iterator<Item = StoredState> {
        self.states.iter().map(|(&(job, name), bytes)| StoredState { job, name, bytes: bytes.clone() })
    }

    /// `false` if it is too long.
    pub(super) fn set_state(&mut self, job: u64, name: u64, bytes: &[u8]) -> bool {
        if bytes.len() + 16 > codec::MAX_PAYLOAD {
            return false;
        }
        if self.states.get(&(job, name)).is_none_or(|old| old != bytes) {
            self.put((job, name), bytes.to_vec());
            // What is written anew has it too.
            if !self.sealed && !self.rewrite {
                put_state(&mut self.states_new, job, name, bytes);
                if self.states_new.len() as u64 > STATES_SLACK + self.states_live {
                    // They can't be written at present: sooner or later all are, from what there is then.
                    (self.states_new, self.rewrite) = (Vec::new(), true);
                }
            }
        }
        true
    }

    fn put(&mut self, key: (u64, u64), bytes: Vec<u8>) {
        self.states_live += frame_len(&bytes);
        if let Some(old) = self.states.insert(key, bytes) {
            self.states_live -= frame_len(&old);
        }
    }

    pub(super) fn replace_states(&mut self, all: impl Iterator<Item = StoredState>) {
        self.states = all
            .filter(|s| s.bytes.len() + 16 <= codec::MAX_PAYLOAD)
            .map(|s| ((s.job, s.name), s.bytes))
            .collect();
        self.states_live = self.states.values().map(|s| frame_len(s)).sum();
        (self.states_new, self.rewrite) = (Vec::new(), true);
    }

    /// Bytes of changes that wait to be appended.
    #[cfg(test)]
    pub(super) fn states_waiting(&self) -> usize {
        self.states_new.len()
    }

    pub(super) fn has_states_to_write(&self) -> bool {
        !self.sealed && self.rewritten.is_none() && (self.rewrite || !self.states_new.is_empty())
    }

    /// Writes states that changed. `durable`: where all are written anew, the new file takes the old one's place when it
    /// is synced. `due`: it is time to look whether the file is still there.
    ///
    /// # Errors
    /// As the disk; they wait on.
    pub(super) fn write_states(&mut self, disk: &mut impl Disk, durable: bool, due: bool) -> io::Result<()> {
        // One that is gone can't be appended to.
        let has_file = self.states_len > 0 && !self.rewrite && self.rewritten.is_none();
        if has_file && (due || !self.states_new.is_empty()) && !is_there(disk, STATES, self.states_len)? {
            (self.rewrite, self.states_len) = (true, 0);
            self.gone.push(STATES);
        }
        if !self.has_states_to_write() {
            return Ok(());
        }
        let appended = self.states_len + self.states_new.len() as u64;
        if self.rewrite || appended > STATES_SLACK + 2 * self.states_live {
            let mut bytes = Vec::new();
            self.states.iter().for_each(|(&(job, name), state)| put_state(&mut bytes, job, name, state));
            disk.write(STATES_NEW, 0, &bytes)?;
            disk.truncate(STATES_NEW, bytes.len() as u64)?;
            self.rewritten = Some(bytes.len() as u64);
            self.rewrite = false;
            self.states_new.clear();
            if !durable {
                self.put_in_place(disk)?;
            }
        } else {
            disk.write(STATES, self.states_len, &self.states_new)?;
            if self.states_len == 0 {
                self.names_pace.changes += 1;
            }
            self.states_len = appended;
            self.states_pace.changes += 1;
            self.states_new.clear();
        }
        Ok(())
    }

    fn put_in_place(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        let Some(len) = self.rewritten.take() else { return Ok(()) };
        // All may have been replaced again while the new file was synced.
        let again = std::mem::replace(&mut self.rewrite, true);
        disk.rename(STATES_NEW, STATES)?;
        (self.rewrite, self.states_len) = (again, len);
        self.names_pace.changes += 1;
        self.states_pace.synced = self.states_pace.changes;
        Ok(())
    }

    pub(super) fn unsynced(&self) -> bool {
        self.states_pace.lags()
            || self.rewritten.is_some()
            || self.names_pace.lags()
            || (self.ledger_due && self.ledger_pace.lags())
    }

    /// Writes the ledger, if it changed. `due`: and it is to survive a power cut.
    ///
    /// # Errors
    /// As the disk.
    pub(super) fn write_ledger(&mut self, disk: &mut impl Disk, durable: bool, due: bool) -> io::Result<()> {
        if self.sealed {
            return Ok(());
        }
        self.ledger_due |= durable && due;
        if self.ledger_saved.is_some() && !is_there(disk, LEDGER, 1)? {
            self.ledger_saved = None;
            self.gone.push(LEDGER);
        }
        if self.ledger_saved == Some(self.ledger) {
            return Ok(());
        }
        let (t, writes) = (self.totals(), self.writes + 1);
        let mut bytes = Vec::new();
        codec::put_frame(&mut bytes, 0, codec::TOTALS, |out| {
            let all = [writes, t.collected, t.delivered, t.lost, t.lives];
            all.into_iter().chain(t.dropped).for_each(|n| put_varint(out, n));
        });
        // The other place holds what survives a power cut, until this one does.
        let place =
            if durable && self.ledger_pace.lags() { self.ledger_place } else { 1 - self.ledger_place };
        disk.write(LEDGER, LEDGER_PLACES.get(place).copied().unwrap_or(0), &bytes)?;
        if self.ledger_saved.is_none() {
            self.names_pace.changes += 1;
        }
        self.ledger_place = place;
        self.ledger_pace.changes += 1;
        self.writes = writes;
        self.ledger_saved = Some(self.ledger);
        Ok(())
    }

    /// A file that somebody else has removed or cut; it is written again.
    pub(super) fn poll_gone(&mut self) -> Option<&'static str> {
        self.gone.pop()
    }

    /// What has to be done so that all that was written survives a power cut.
    ///
    /// # Errors
    /// As the disk.
    pub(super) fn group(&mut self, disk: &mut impl Disk) -> io::Result<Group> {
        let mut file = |pace: Pace, name| match pace.lags() {
            true => disk.syncing(name).map(|sync| Some((pace.changes, sync))),
            false => Ok(None),
        };
        let states = file(self.states_pace, STATES)?;
        let ledger = file(self.ledger_pace, LEDGER)?;
        let rewritten = self.rewritten.map(|_| disk.syncing(STATES_NEW)).transpose()?;
        let names = match self.names_pace.lags() {
            true => Some((self.names_pace.changes, disk.syncing_dir("")?)),
            false => None,
        };
        Ok(Group { states, rewritten, ledger, names })
    }

    /// It was done. What was lost is written again.
    ///
    /// # Errors
    /// As the disk.
    pub(super) fn grouped(&mut self, disk: &mut impl Disk, done: Grouped) -> io::Result<()> {
        let mut result = Ok(());
        match done.states {
            Some((changes, Ok(()))) => self.states_pace.synced = self.states_pace.synced.max(changes),
            Some((_, Err(e))) => (self.rewrite, result) = (true, Err(e)),
            None => {}
        }
        match done.rewritten {
            Some(Ok(())) => {
                if let Err(e) = self.put_in_place(disk) {
                    result = Err(e);
                }
            }
            Some(Err(e)) => (self.rewritten, self.rewrite, result) = (None, true, Err(e)),
            None => {}
        }
        match done.ledger {
            Some((changes, Ok(()))) => {
                self.ledger_pace.synced = self.ledger_pace.synced.max(changes);
                self.ledger_due &= self.ledger_pace.lags();
            }
            Some((_, Err(e))) => (self.ledger_saved, result) = (None, Err(e)),
            None => {}
        }
        match done.names {
            Some((changes, Ok(()))) => self.names_pace.synced = self.names_pace.synced.max(changes),
            Some((_, Err(e))) => result = Err(e),
            None => {}
        }
        result
    }
}
