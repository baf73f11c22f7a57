//! The files of one account: a row of segments, appended to at the end, given up from the front.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;

use grafolean_core::time::Millis;

use super::Gone;
use super::codec::{self, Frames, Header, Record, ValuesWriter};
use super::disk::{Disk, Syncing};
use super::ranges::Ranges;

/// Sequence numbers stay below.
pub(super) const SEQUENCE_END: u64 = 1 << 48;
/// One entry of a segment's index for so many bytes.
const INDEX_BYTES: u64 = 16 * 1024;
/// Read at once while values come back, bytes.
const READ_BYTES: usize = 32 * 1024;
/// Where a disk can't read, it is tried in pieces of so many bytes.
const PIECE_BYTES: usize = 4096;
/// A file is not read further, bytes: segments are smaller by far.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A file is thinned so often at most.
const LEVELS: u8 = 8;
/// A bad spot is given up after so long, if the disk reads others: it may only be slow, or have lost its connection, ms.
const READ_PATIENCE_MS: u64 = 600_000;
/// Other files of an account in which it is tried whether the disk reads at all.
const PROBES: usize = 16;

/// What a segment's second file, `.seg.old`, is: the segment as it was before it was thinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Old {
    /// Not there.
    None,
    /// There until the thinned one survives a power cut.
    Spare,
    /// The segment itself: the thinned one could not take its place, and its name could not be given back.
    Only,
}

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: u64,
    /// The highest sequence number in it; below `first` if it holds no value.
    pub(super) last: u64,
    /// Whole frames end here: what comes next is written here.
    pub(super) len: u64,
    /// The latest hand-over in it, Unix ms.
    newest_ms: u64,
    pub(super) level: u8,
    /// Nothing is appended any more.
    pub(super) sealed: bool,
    /// So many bytes of it survive a power cut.
    synced: u64,
    /// The highest sequence number in these.
    synced_last: u64,
    /// What was written behind them, if `kept_whole`; otherwise it can be read back only.
    kept: Vec<u8>,
    kept_whole: bool,
    /// A sync has failed: what is behind the bytes that survive is to be written again.
    again: bool,
    /// Its name survives a power cut when so many changes of the directory do. Another one after a rewriting.
    born: u64,
    old: Old,
    /// Some of the frames, in their order.
    index: Vec<Mark>,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Its first sequence number, and when that was handed over, Unix ms.
    sequence: u64,
    handed_over_ms: u64,
    place: u64,
}

impl Segment {
    const fn new(first: u64) -> Self {
        Segment {
            first,
            last: first.saturating_sub(1),
            len: 0,
            newest_ms: 0,
            level: 0,
            sealed: false,
            synced: 0,
            synced_last: first.saturating_sub(1),
            kept: Vec::new(),
            kept_whole: false,
            again: false,
            born: 0,
            old: Old::None,
            index: Vec::new(),
        }
    }

    /// Its file at present.
    fn file(&self, dir: &str) -> String {
        if self.old == Old::Only { old_name(dir, self.first) } else { name(dir, self.first) }
    }

    const fn has_values(&self) -> bool {
        self.last >= self.first
    }

    /// Notes a frame of values that was written at `place`.
    fn note_frame(&mut self, payload: &[u8], place: u64) {
        if let Some((_, sequence, handed_over_ms)) = codec::values_begin(payload)
            && self.index.last().is_none_or(|before| place >= before.place + INDEX_BYTES)
        {
            self.index.push(Mark { sequence, handed_over_ms, place });
        }
    }

    /// The last frame known at or before which a sequence number is.
    fn mark_before(&self, sequence: u64) -> Option<&Mark> {
        let n = self.index.partition_point(|mark| mark.sequence <= sequence);
        n.checked_sub(1).and_then(|i| self.index.get(i))
    }

    /// Where to look for a sequence number.
    fn place_of(&self, sequence: u64) -> u64 {
        self.mark_before(sequence).map_or(0, |mark| mark.place)
    }
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    sequence: u64,
    /// When it was taken.
    taken: Millis,
    handed_over_ms: u64,
    time_ms: u64,
    text_at: usize,
    path_len: u16,
    number_len: u8,
    /// Done with before it was written: it never will be.
    left: bool,
    /// A write failed that may have left it in a file, from where it might come back.
    tried: bool,
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Values that can be read.
    pub(super) values: u64,
    /// Values that were written and can't be read.
    pub(super) corrupt: u64,
    pub(super) bad_bytes: u64,
}

/// A part of a file: its first number and which of that name, up to which byte, and the last number in there.
#[derive(Clone, Copy)]
struct Part {
    first: u64,
    born: u64,
    len: u64,
    last: u64,
}

/// What has to be synced of a log: done elsewhere.
pub(super) struct Group {
    /// Each file.
    files: Vec<(Part, Syncing)>,
    /// How many changes of the directory.
    dirs: Option<(u64, Vec<Syncing>)>,
    covered: u64,
    /// There is more than this.
    more: bool,
}

/// What came of it.
pub(super) struct Grouped {
    files: Vec<(Part, io::Result<()>)>,
    dirs: Option<(u64, io::Result<()>)>,
    covered: u64,
    pub(super) more: bool,
}

impl Group {
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    pub(super) fn run(self) -> Grouped {
        let files = self.files.into_iter().map(|(part, sync)| (part, sync())).collect();
        let dirs = self.dirs.map(|(changes, dirs)| (changes, dirs.into_iter().try_for_each(|sync| sync())));
        Grouped { files, dirs, covered: self.covered, more: self.more }
    }
}

/// What feeding did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fed {
    pub(super) corrupt: u64,
    pub(super) too_old: u64,
}

/// Retries after failures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) until: Millis,
    length_ms: u64,
}

/// What reading misses: numbers that no frame speaks of, and how many values were in the frames that did.
#[derive(Default)]
struct Losses {
    /// Values that were written up to the last frame, if known.
    written: Option<u64>,
    /// Numbers that are missing since then.
    open: Ranges,
    closed: Vec<(Ranges, Option<u64>)>,
}

impl Losses {
    /// A frame says how many values were written `before` it, if it does, and has some.
    fn count(&mut self, before: Option<u64>, values: u64) {
        if !self.open.is_empty() {
            let lost = before.zip(self.written).map(|(now, then)| now.saturating_sub(then));
            self.closed.push((core::mem::take(&mut self.open), lost));
        }
        self.written = before.map(|n| n.saturating_add(values));
    }

    /// Each stretch of missing numbers, and how many values it had, if that is known: some of them may be done with.
    fn stretches(mut self) -> Vec<(Ranges, Option<u64>)> {
        self.count(None, 0);
        self.closed
    }
}

/// What of a log is in its store's sums.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counted {
    pub(super) parked: u64,
    pub(super) written: u64,
    pub(super) feedable: bool,
}

/// What thinning a file did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thinned {
    /// Parked values that were left out, which may be none.
    pub(super) values: u64,
    pub(super) bytes_read: u64,
}

/// A value while a file is thinned.
struct Sample {
    path: usize,
    time_ms: u64,
    sequence: u64,
    number: f64,
}

/// Of each path and window the sequence numbers of the lowest, highest and last value; both are sorted, `samples` by path
/// and time.
fn keep_outline(samples: &[Sample], window_ms: u64) -> Vec<u64> {
    let mut kept = Vec::new();
    let same = |a: &Sample, b: &Sample| a.path == b.path && a.time_ms / window_ms == b.time_ms / window_ms;
    for window in samples.chunk_by(same) {
        let Some(first) = window.first() else { continue };
        let (mut low, mut high) = (first, first);
        for s in window {
            if s.number < low.number {
                low = s;
            }
            if s.number > high.number {
                high = s;
            }
        }
        let last = window.last().unwrap_or(first);
        kept.extend([low.sequence, high.sequence, last.sequence]);
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

#[derive(Debug)]
pub(super) struct Log {
    pub(super) id: u64,
    dir: String,
    dir_made: bool,
    /// The store's directory may not hold this one's name after a power cut.
    dir_new: bool,
    /// Changes of names in the directory, and how many of them survive a power cut.
    dir_changes: u64,
    dir_synced: u64,
    /// All values up to this number that were written survive a power cut.
    durable_to: u64,
    pub(super) segments: VecDeque<Segment>,
    next: u64,
    /// All sequence numbers up to this one are in a frame, or in none on purpose.
    covered: u64,
    pending: Vec<Pending>,
    /// How many of them have not left.
    pending_live: u64,
    text: String,
    /// In the store only.
    pub(super) parked: Ranges,
    /// In the collector's memory too.
    held: Ranges,
    /// In the collector's memory only: what was written of them was lost in a failed sync.
    pub(super) missing: Ranges,
    /// Done with, to be written down.
    done: Ranges,
    /// A segment (by its first number) that a failed write may have left longer than this: it is cut before the next one,
    /// so that nothing is found there that was never said to be written.
    cut: Option<(u64, u64)>,
    /// Some segment is to be written again.
    pub(super) again: bool,
    /// Parked values that could not be, to be told.
    pub(super) lost: u64,
    /// Values that were ever written.
    total_written: u64,
    /// What of it is in the store's sums.
    pub(super) counted: Counted,
    /// Bytes kept for that, as the store knows.
    pub(super) kept_noted: usize,
    /// Its bytes, as the store knows.
    pub(super) bytes_noted: u64,
    pub(super) wait: Option<Wait>,
    /// The same for reading.
    pub(super) read_wait: Option<Wait>,
    /// Since when reading has failed without a success between.
    unread_since: Option<Millis>,
}

fn name(dir: &str, first: u64) -> String {
    format!("{dir}/{first:016x}.seg")
}

/// The name of a file as it was before it was thinned.
fn old_name(dir: &str, first: u64) -> String {
    format!("{dir}/{first:016x}.seg.old")
}

/// Whether a file that was thinned is there as it was written.
fn is_whole(disk: &mut impl Disk, id: u64, file: &str, len: u64) -> bool {
    let mut bytes = vec![0; len.min(FILE_BYTES_MAX) as usize];
    if !matches!(disk.read(file, 0, &mut bytes), Ok(n) if n == bytes.len()) {
        return false;
    }
    let mut frames = Frames::new(id, &bytes, true);
    let header = frames.next().filter(|(_, f)| f.kind == codec::HEADER);
    let Some(header) = header.and_then(|(_, f)| codec::read_header(f.payload)) else { return false };
    let body = len - frames.end as u64;
    frames.by_ref().for_each(drop);
    header.level > 0 && header.body == body && frames.bad_bytes == 0
}

/// The sequence number in a segment's name.
fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|d| d.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|&n| (1..SEQUENCE_END).contains(&n))
}

/// Whether the disk could not read: its bytes are damaged, or it fails as a whole.
pub(super) fn is_read_error(error: &io::Error) -> bool {
    // Linux: EIO, EBADMSG, EUCLEAN. Windows: ERROR_CRC, ERROR_IO_DEVICE, ERROR_FILE_CORRUPT.
    let codes: &[i32] = if cfg!(windows) { &[23, 1117, 1392] } else { &[5, 74, 117] };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Whether bytes are damaged or gone. Other errors say that they can't be reached now: rights that an operator will set
/// right, too many open files, a file system that is not mounted. Nothing is given up for these.
fn is_damage(disk: &mut impl Disk, dir: &str, error: &io::Error) -> bool {
    // Only the file, or all?
    is_read_error(error) || (error.kind() == io::ErrorKind::NotFound && disk.list(dir).is_ok())
}

fn removed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads a part of a file; where the disk can't, zeros, which are no frame: how many bytes were read.
pub(super) fn read_pieces(disk: &mut impl Disk, file: &str, at: u64, buf: &mut [u8]) -> usize {
    let mut bytes = 0;
    for (i, piece) in buf.chunks_mut(PIECE_BYTES).enumerate() {
        let from = at + (i * PIECE_BYTES) as u64;
        let read = (0..2).find_map(|_| disk.read(file, from, piece).ok()).unwrap_or(0);
        piece.iter_mut().skip(read).for_each(|b| *b = 0);
        bytes += read;
    }
    bytes
}

/// Whether something of a file can be read.
pub(super) fn can_read(disk: &mut impl Disk, file: &str) -> bool {
    matches!(disk.read(file, 0, &mut [0; 1]), Ok(1..))
}

impl Log {
    pub(super) fn new(id: u64) -> Self {
        Log {
            id,
            dir: id.to_string(),
            dir_made: false,
            dir_new: false,
            dir_changes: 0,
            dir_synced: 0,
            durable_to: 0,
            segments: VecDeque::new(),
            next: 1,
            covered: 0,
            pending: Vec::new(),
            pending_live: 0,
            text: String::new(),
            parked: Ranges::new(),
            held: Ranges::new(),
            missing: Ranges::new(),
            done: Ranges::new(),
            cut: None,
            again: false,
            lost: 0,
            total_written: 0,
            counted: Counted::default(),
            kept_noted: 0,
            bytes_noted: 0,
            wait: None,
            read_wait: None,
            unread_since: None,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.len).sum()
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.text.len() + self.pending.len() * size_of::<Pending>()
    }

    /// Reads what an earlier life left. All that can be read is parked.
    ///
    /// # Errors
    /// The directory can't be listed, or a file can't be reached. Where the disk has lost bytes, they count as damaged;
    /// if it can't read a single one, that is an error, too ([`is_read_error`]), unless `others_read`: then it is no
    /// failure of the disk as a whole.
    pub(super) fn open(disk: &mut impl Disk, id: u64, others_read: bool) -> io::Result<(Self, Found)> {
        let mut log = Log::new(id);
        log.dir_made = true;
        (log.dir_new, log.dir_changes) = (true, 1);
        let (mut files, mut olds, mut kinds) = (Vec::new(), Vec::new(), BTreeMap::new());
        for entry in disk.list(&log.dir)? {
            if let Some(first) = first_of(&entry.name).filter(|_| !entry.dir) {
                files.push((first, entry.len));
            } else if let Some(first) = entry.name.strip_suffix(".old").and_then(first_of) {
                olds.push((first, entry.len));
            } else if entry.name.ends_with(".tmp") {
                // A rewriting that was cut short; the segment itself is there.
                let _ = disk.remove(&format!("{}/{}", log.dir, entry.name));
            }
        }
        for (first, len) in olds {
            let (file, old) = (name(&log.dir, first), old_name(&log.dir, first));
            let thinned = files.iter().find(|(f, _)| *f == first).map(|&(_, len)| len);
            let left = if thinned.is_some_and(|len| is_whole(disk, id, &file, len)) {
                if disk.remove(&old).is_ok() { Old::None } else { Old::Spare }
            } else {
                files.retain(|(f, _)| *f != first);
                files.push((first, len));
                // If it can't get its name back, it is read as it is named.
                if disk.rename(&old, &file).is_ok() { Old::None } else { Old::Only }
            };
            kinds.insert(first, left);
        }
        files.sort_unstable();
        let (mut bytes_read, mut unreadable) = (0, None);

        let (mut found, mut lost) = (Found::default(), Losses::default());
        let (mut front, mut high, mut next, mut taken) = (0u64, None::<u64>, 1u64, 0);
        for (first, file_len) in files {
            let mut segment = Segment::new(first);
            segment.old = kinds.remove(&first).unwrap_or(Old::None);
            let file = segment.file(&log.dir);
            let mut bytes = vec![0; file_len.min(FILE_BYTES_MAX) as usize];
            let n = match disk.read(&file, 0, &mut bytes) {
                Ok(n) if n == bytes.len() => n,
                Err(e) if !is_damage(disk, &log.dir, &e) => return Err(e),
                other => {
                    let n = read_pieces(disk, &file, 0, &mut bytes);
                    unreadable = other.err().filter(is_read_error).or(unreadable);
                    n
                }
            };
            bytes_read += n;
            let readable = n == bytes.len();
            // Also where damage begins at the oldest file's begin, it is known how much is missing.
            high.get_or_insert(first - 1);
            let mut frames = Frames::new(id, &bytes, true);
            for (at, frame) in &mut frames {
                // Whatever this frame tells of lies in [begin, ..): what is between is lost.
                let mut gap_to = |begin: u64| {
                    let seen = high.get_or_insert(begin.saturating_sub(1));
                    if begin > *seen + 1 {
                        lost.open.insert_range(*seen + 1, begin - 1);
                        *seen = begin - 1;
                    }
                };
                match frame.kind {
                    codec::HEADER => {
                        let Some(h) = codec::read_header(frame.payload).filter(|h| h.first == first) else {
                            continue;
                        };
                        front = front.max(h.front.min(SEQUENCE_END));
                        segment.level = h.level;
                        gap_to(h.first);
                        if h.written.is_some() {
                            lost.count(h.written, 0);
                        }
                    }
                    codec::VALUES => {
                        let Some((begin, start, _)) = codec::values_begin(frame.payload) else { continue };
                        if begin == 0 || start >= SEQUENCE_END {
                            continue;
                        }
                        gap_to(begin);
                        segment.note_frame(frame.payload, at as u64);
                        let mut values = 0;
                        let written = codec::read_counted(frame.payload, |r| {
                            values += 1;
                            if r.sequence < SEQUENCE_END {
                                log.parked.insert(r.sequence);
                                high = high.max(Some(r.sequence));
                                segment.last = segment.last.max(r.sequence);
                                segment.newest_ms = segment.newest_ms.max(r.handed_over_ms);
                            }
                        });
                        lost.count(written, values);
                    }
                    codec::DONE => {
                        codec::read_done(frame.payload, |a, b| {
                            if b < SEQUENCE_END {
                                gap_to(b.saturating_add(1));
                                log.done.insert_range(a, b);
                            }
                        });
                    }
                    _ => {}
                }
            }
            let bad_bytes = frames.bad_bytes + (file_len - bytes.len() as u64);
            found.bad_bytes += bad_bytes;
            segment.len = frames.end as u64;
            next = next.max(first);
            if segment.len == 0 && readable {
                // Nothing of worth: an empty file that a power cut left, or rubbish.
                let _ = disk.remove(&file);
                continue;
            }
            // What is behind the last whole frame was cut short by the end of the process.
            if segment.len == 0 {
                // It can't be read: no other may get its name.
                taken = taken.max(first);
            }
            // The life before may have been killed before it synced.
            segment.born = log.dir_changes;
            segment.sealed = !readable
                || segment.level > 0
                || (file_len > segment.len && disk.truncate(&file, segment.len).is_err());
            log.segments.push_back(segment);
        }

        if let Some(error) = unreadable.filter(|_| bytes_read == 0 && !others_read) {
            return Err(error);
        }
        front = front.max(1);
        for (a, b) in log.done.iter() {
            log.parked.remove_range(a, b);
        }
        log.parked.remove_to(front - 1);
        log.total_written = lost.written.or(high).unwrap_or(0);
        let done = core::mem::take(&mut log.done);
        for (mut numbers, values) in lost.stretches() {
            // A failed sync may have left the end of what was written again into the next file.
            if let Some((first, last)) = numbers.first().zip(numbers.last()) {
                log.parked.within(first, last).for_each(|(a, b)| {
                    numbers.remove_range(a, b);
                });
            }
            // Told now; not again by the next life.
            numbers
                .iter()
                .filter(|&(_, b)| b >= front)
                .for_each(|(a, b)| log.done.insert_range(a.max(front), b));
            for (a, b) in done.iter() {
                numbers.remove_range(a, b);
            }
            numbers.remove_to(front - 1);
            found.corrupt += numbers.len().min(values.unwrap_or(u64::MAX));
        }
        // Numbers between are left out on purpose, and the next frame says so.
        log.covered = high.unwrap_or(0).max(taken);
        // A number below `front` would count as done.
        log.next = next.max(log.covered + 1).max(front);
        found.values = log.parked.len();
        Ok((log, found))
    }

    pub(super) fn unsynced(&self) -> bool {
        self.dir_synced < self.dir_changes || self.segments.iter().any(|s| s.synced < s.len)
    }

    /// Whether it survives a power cut, or there is nothing more to wait for.
    pub(super) fn is_durable(&self, sequence: u64) -> bool {
        sequence <= self.durable_to || !self.held.contains(sequence)
    }

    fn survives(&self, at: usize) -> bool {
        self.segments.get(at).is_some_and(|s| s.synced > 0 && s.born <= self.dir_synced)
    }

    /// Whether files can be removed now that waited for others to be synced.
    pub(super) fn can_remove(&self, durable: bool) -> bool {
        (self.front_is_done() && (!durable || self.survives(1)))
            || (0..self.segments.len())
                .any(|at| self.segments.get(at).is_some_and(|s| s.old == Old::Spare) && self.survives(at))
    }

    /// Takes a value: its sequence number; `None` if it can't be written in this format, or numbers have run out.
    pub(super) fn take(&mut self, now: Millis, value: &super::Value<'_>) -> Option<u64> {
        let fits =
            (1..=codec::MAX_STORED_PATH).contains(&value.path.len()) && codec::number_fits(value.number);
        if !fits || self.next >= SEQUENCE_END {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        self.held.insert(sequence);
        self.pending.push(Pending {
            sequence,
            taken: now,
            handed_over_ms: value.handed_over.0,
            time_ms: value.time.0,
            text_at: self.text.len(),
            path_len: value.path.len() as u16,
            number_len: value.number.len() as u8,
            left: false,
            tried: false,
        });
        self.pending_live += 1;
        self.text.push_str(value.path);
        self.text.push_str(value.number);
        Some(sequence)
    }

    /// The error says why this value is no longer kept, which is a loss if it was parked.
    pub(super) fn left(&mut self, sequence: u64, parked: bool) -> Result<(), Gone> {
        if !self.held.remove(sequence) {
            // Its file gave way to the bound while it was in memory, or its bytes were lost.
            return Err(if self.missing.remove(sequence) { Gone::Corrupt } else { Gone::Full });
        }
        if parked {
            self.parked.insert(sequence);
            return Ok(());
        }
        match self.pending.binary_search_by_key(&sequence, |p| p.sequence) {
            Ok(at) => {
                if let Some(p) = self.pending.get_mut(at) {
                    self.pending_live -= u64::from(!p.left);
                    p.left = true;
                    if p.tried {
                        self.done.insert(sequence);
                    }
                }
            }
            Err(_) => {
                self.done.insert(sequence);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn held_sequences(&self) -> impl Iterator<Item = u64> {
        self.held.iter().flat_map(|(a, b)| a..=b)
    }

    #[cfg(test)]
    pub(super) fn is_pending(&self, sequence: u64) -> bool {
        self.pending.iter().any(|p| p.sequence == sequence)
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Values that wait and are written.
    pub(super) fn written(&self) -> u64 {
        (self.parked.len() + self.held.len()).saturating_sub(self.pending_live)
    }

    /// Parked values that can be read now.
    pub(super) fn feedable(&self) -> bool {
        self.parked.first().is_some_and(|first| first <= self.covered)
    }

    pub(super) fn count(&self) -> Counted {
        Counted { parked: self.parked.len(), written: self.written(), feedable: self.feedable() }
    }

    /// When the oldest value that waits was handed over, Unix ms; of values in files, when the first of the 16 kB around
    /// it was.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        let oldest = Some(self.oldest_live()).filter(|&n| n < self.next)?;
        if oldest > self.covered {
            return self.pending.iter().find(|p| p.sequence == oldest).map(|p| p.handed_over_ms);
        }
        let segment = self.segments.partition_point(|s| s.first <= oldest).checked_sub(1)?;
        let segment = self.segments.get(segment)?;
        segment.mark_before(oldest).map(|mark| mark.handed_over_ms)
    }

    fn oldest_live(&self) -> u64 {
        let oldest = |r: &Ranges| r.first().unwrap_or(self.next);
        oldest(&self.parked).min(oldest(&self.held))
    }

    fn front_is_done(&self) -> bool {
        self.segments.len() > 1 && self.segments.front().is_some_and(|s| s.last < self.oldest_live())
    }

    /// Whether everything is done, and the files take more than `bytes`.
    fn can_rotate(&self, bytes: u64) -> bool {
        self.parked.is_empty()
            && self.held.is_empty()
            && self.segments.back().is_some_and(|s| s.has_values() && s.len > bytes)
    }

    /// Begins a segment of nothing but a header. No value in a frame or to be written is between `covered` and `first`.
    fn begin_segment(&mut self, disk: &mut impl Disk, first: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        codec::put_header(
            &mut bytes,
            self.id,
            Header { first, front: self.oldest_live(), level: 0, body: 0, written: Some(self.total_written) },
        );
        self.write_new(disk, first, &bytes)?;
        self.covered = first - 1;
        Ok(())
    }

    fn write_new(&mut self, disk: &mut impl Disk, first: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.dir_made {
            disk.create_dir(&self.dir)?;
            (self.dir_made, self.dir_new) = (true, true);
        }
        if let Err(e) = disk.write(&name(&self.dir, first), 0, bytes) {
            // Somebody may have removed the directory.
            self.dir_made &= e.kind() != io::ErrorKind::NotFound;
            return Err(e);
        }
        self.dir_changes += 1;
        let mut segment = Segment::new(first);
        segment.born = self.dir_changes;
        (segment.kept, segment.kept_whole) = (bytes.to_vec(), true);
        segment.len = bytes.len() as u64;
        self.segments.push_back(segment);
        Ok(())
    }

    fn remove_front(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        let Some(front) = self.segments.front_mut() else { return Ok(()) };
        let (file, old) = (name(&self.dir, front.first), old_name(&self.dir, front.first));
        match front.old {
            Old::None => removed(disk.remove(&file))?,
            Old::Spare => {
                removed(disk.remove(&old))?;
                front.old = Old::None;
                removed(disk.remove(&file))?;
            }
            Old::Only => {
                // A rewriting that was cut short may have the name.
                removed(disk.remove(&file))?;
                removed(disk.remove(&old))?;
            }
        }
        self.cut = self.cut.filter(|&(first, _)| first != front.first);
        // A power cut would bring it back.
        self.dir_changes += 1;
        self.done.remove_to(front.last);
        self.segments.pop_front();
        Ok(())
    }

    /// When the oldest value was taken that waits to be written and has not left. O(values before it).
    pub(super) fn oldest_taken(&self) -> Option<Millis> {
        self.pending.iter().find(|p| !p.left).map(|p| p.taken)
    }

    /// Forgets the values that waited to be written and have left, up to the first one that has not. O(values).
    fn forget_left(&mut self) {
        if self.pending_live == 0 {
            self.pending.clear();
            self.text.clear();
        }
        let stays = self.pending.iter().position(|p| !p.left).unwrap_or(0);
        if let Some(text_at) = self.pending.get(stays).filter(|_| stays > 0).map(|p| p.text_at) {
            self.pending.drain(..stays);
            self.text.drain(..text_at);
            self.pending.iter_mut().for_each(|p| p.text_at -= text_at);
        }
    }

    /// Writes values that wait, if the first of them was taken up to `values_to`, and if `marks` what is done with; removes
    /// files that are done with. `durable`: a file may be removed only after its successor survives a power cut.
    ///
    /// # Errors
    /// As the disk; what was not written waits on.
    pub(super) fn write(
        &mut self,
        disk: &mut impl Disk,
        segment_bytes: u64,
        durable: bool,
        marks: bool,
        values_to: Option<Millis>,
        now: Millis,
    ) -> io::Result<()> {
        let back = self.put_back(disk);
        if self.again {
            back?;
            self.write_again(disk, now)?;
        }
        self.forget_left();
        if self.pending.is_empty() && self.can_rotate(segment_bytes / 16) {
            // The last file carries the numbering on, so that it is never without one.
            self.begin_segment(disk, self.next)?;
        }
        while self.front_is_done() && (!durable || self.survives(1)) {
            self.remove_front(disk)?;
        }
        for at in 0..self.segments.len() {
            if self.survives(at)
                && let Some(segment) = self.segments.get_mut(at).filter(|s| s.old == Old::Spare)
            {
                removed(disk.remove(&old_name(&self.dir, segment.first)))?;
                segment.old = Old::None;
                self.dir_changes += 1;
            }
        }
        // Numbers that are done with and in no frame yet (a write failed) are written with the values around them.
        let values = self.oldest_taken().is_some_and(|taken| Some(taken) <= values_to)
            || (marks && self.done.last().is_some_and(|last| last > self.covered));
        while (values && !self.pending.is_empty()) || (marks && self.has_marks()) {
            self.write_some(disk, segment_bytes, values, marks)?;
        }
        Ok(())
    }

    /// Files that are only there as they were before they were thinned get their names back. They can be used without.
    fn put_back(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        for segment in self.segments.iter_mut().filter(|s| s.old == Old::Only) {
            disk.rename(&old_name(&self.dir, segment.first), &name(&self.dir, segment.first))?;
            segment.old = Old::None;
            self.dir_changes += 1;
        }
        Ok(())
    }

    /// Whether a file could not get its name back yet.
    pub(super) fn wants_name(&self) -> bool {
        self.segments.iter().any(|s| s.old == Old::Only)
    }

    /// Whether it is to be written that something is done with.
    pub(super) fn has_marks(&self) -> bool {
        !self.done.is_empty()
    }

    fn write_some(
        &mut self,
        disk: &mut impl Disk,
        segment_bytes: u64,
        values: bool,
        marks: bool,
    ) -> io::Result<()> {
        if let Some((first, len)) = self.cut {
            let segment = self.segments.iter().find(|s| s.first == first);
            removed(
                disk.truncate(&segment.map_or_else(|| name(&self.dir, first), |s| s.file(&self.dir)), len),
            )?;
            self.cut = None;
        }
        // A segment without values is never followed by another of the same name.
        let same_name = |s: &Segment| !s.has_values() && s.first > self.covered;
        let goes_on = self.segments.back().filter(|s| same_name(s) || (!s.sealed && s.len < segment_bytes));
        let at = goes_on.map(|s| s.len);
        let mut bytes = Vec::new();
        if at.is_none() {
            let (first, front) = (self.covered + 1, self.oldest_live());
            let written = Some(self.total_written);
            codec::put_header(&mut bytes, self.id, Header { first, front, level: 0, body: 0, written });
        }
        let from = bytes.len();
        let (mut taken, mut last, mut newest_ms) = (0, self.covered, 0);
        let mut writer = ValuesWriter::new(&mut bytes, self.id, self.covered, Some(self.total_written));
        for p in self.pending.iter().filter(|_| values) {
            if at.unwrap_or(0) + writer.len() as u64 >= segment_bytes && taken > 0 {
                break;
            }
            taken += 1;
            let texts = self.text.get(p.text_at..).and_then(|t| t.split_at_checked(usize::from(p.path_len)));
            let Some((path, rest)) = texts.filter(|_| !p.left) else { continue };
            let number = rest.get(..usize::from(p.number_len)).unwrap_or("");
            let Pending { sequence, handed_over_ms, time_ms, .. } = *p;
            writer.put(&Record { sequence, handed_over_ms, time_ms, path, number });
            last = sequence;
            newest_ms = newest_ms.max(handed_over_ms);
        }
        writer.finish();
        let marks = marks && (taken == self.pending.len() || !values);
        if marks {
            codec::put_done(&mut bytes, self.id, self.done.iter());
        }
        match at {
            None => {
                let first = self.covered + 1;
                if let Err(e) = self.write_new(disk, first, &bytes) {
                    self.cut = Some((first, 0));
                    self.note_tried(taken);
                    return Err(e);
                }
            }
            Some(at) => {
                let Some(tail) = self.segments.back_mut() else { return Ok(()) };
                let file = tail.file(&self.dir);
                if let Err(e) = disk.write(&file, at, &bytes) {
                    self.cut = Some((tail.first, at));
                    tail.sealed = e.kind() != io::ErrorKind::StorageFull;
                    self.note_tried(taken);
                    return Err(e);
                }
                if tail.synced == at {
                    tail.kept_whole = true;
                }
                if tail.kept_whole {
                    tail.kept.extend_from_slice(&bytes);
                }
                tail.len = at + bytes.len() as u64;
            }
        }
        if let Some(tail) = self.segments.back_mut() {
            let base = at.unwrap_or(0);
            let frames = Frames::new(self.id, &bytes, true).filter(|(place, _)| *place >= from);
            for (place, frame) in frames.filter(|(_, f)| f.kind == codec::VALUES) {
                tail.note_frame(frame.payload, base + place as u64);
            }
            tail.newest_ms = tail.newest_ms.max(newest_ms);
            tail.last = tail.last.max(last.max(tail.first.saturating_sub(1)));
        }
        self.covered = last;
        let live = self.pending.drain(..taken).filter(|p| !p.left).count() as u64;
        self.pending_live -= live;
        self.total_written += live;
        if self.pending.is_empty() {
            self.text.clear();
        }
        if marks {
            self.done.clear();
        }
        Ok(())
    }

    /// After a failed write of the first values that wait.
    fn note_tried(&mut self, values: usize) {
        let mut before = self.covered;
        for p in self.pending.iter_mut().take(values).filter(|p| !p.left) {
            // The numbers between are in no frame; that has to be known if this one is only marked as done.
            self.done.insert_range(before + 1, p.sequence - 1);
            before = p.sequence;
            p.tried = true;
        }
    }

    /// What has to be done so that all that was written survives a power cut; at most so many files at a time.
    ///
    /// # Errors
    /// As the disk.
    pub(super) fn group(&mut self, disk: &mut impl Disk, max_files: usize) -> io::Result<Group> {
        let mut files = Vec::new();
        let mut waiting = self.segments.iter_mut().filter(|s| s.synced < s.len);
        for segment in waiting.by_ref().take(max_files.max(1)) {
            let part =
                Part { first: segment.first, born: segment.born, len: segment.len, last: segment.last };
            match disk.syncing(&segment.file(&self.dir)) {
                Ok(sync) => files.push((part, sync)),
                Err(e) => {
                    if e.kind() == io::ErrorKind::NotFound {
                        (segment.again, self.again) = (true, true);
                    }
                    return Err(e);
                }
            }
        }
        let more = waiting.next().is_some();
        let mut dirs = Vec::new();
        if self.dir_synced < self.dir_changes {
            dirs.push(disk.syncing_dir(&self.dir)?);
            if self.dir_new {
                dirs.push(disk.syncing_dir("")?);
            }
        }
        let dirs = (!dirs.is_empty()).then_some((self.dir_changes, dirs));
        Ok(Group { files, dirs, covered: self.covered, more })
    }

    /// It was done.
    ///
    /// # Errors
    /// As the disk; the file at fault is not appended to any more.
    pub(super) fn grouped(&mut self, done: Grouped) -> io::Result<()> {
        let mut result = Ok(());
        for (part, synced) in done.files {
            let segment = self.segments.iter_mut().find(|s| s.first == part.first && s.born == part.born);
            let Some(segment) = segment else { continue };
            match synced {
                Ok(()) => {
                    let more = part.len.saturating_sub(segment.synced) as usize;
                    segment.kept.drain(..more.min(segment.kept.len()));
                    (segment.synced, segment.synced_last) = (part.len, part.last);
                    if segment.synced == segment.len {
                        (segment.kept, segment.kept_whole) = (Vec::new(), true);
                    }
                }
                Err(e) => {
                    segment.sealed = true;
                    (segment.again, self.again) = (true, true);
                    result = Err(e);
                }
            }
        }
        if let Some((changes, synced)) = done.dirs {
            match synced {
                Ok(()) => (self.dir_synced, self.dir_new) = (self.dir_synced.max(changes), false),
                Err(e) => result = Err(e),
            }
        }
        if result.is_ok() && !done.more {
            self.durable_to = self.durable_to.max(done.covered);
        }
        result
    }

    /// Bytes that are kept to be written again.
    pub(super) fn kept(&self) -> usize {
        self.segments.iter().map(|s| s.kept.len()).sum()
    }

    /// No more than so many bytes are to be kept: if a sync fails, what was written before is read back.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        if self.kept() > bytes {
            for segment in self.segments.iter_mut().filter(|s| !s.again) {
                (segment.kept, segment.kept_whole) = (Vec::new(), false);
            }
        }
    }

    /// After a failed sync: what was written since the last good one is written into other files. The system counts it as
    /// written although it is lost, so that a further sync of the same file would say that all is well.
    fn write_again(&mut self, disk: &mut impl Disk, now: Millis) -> io::Result<()> {
        if self.segments.iter().any(|s| s.again && !s.kept_whole) {
            // What can't be read back may have been marks, and these are not missed as values are.
            self.mark_all_done();
        }
        while let Some(at) = self.segments.iter().position(|s| s.again) {
            self.write_one_again(disk, at, now)?;
        }
        self.again = false;
        Ok(())
    }

    /// Everything that does not wait is to be written down as done with, also what was before.
    fn mark_all_done(&mut self) {
        let end = self.pending.iter().find(|p| !p.left).map_or(self.next, |p| p.sequence);
        self.done.insert_range(1, end.saturating_sub(1));
        for (a, b) in self.parked.iter().chain(self.held.iter()) {
            self.done.remove_range(a, b);
        }
    }

    fn write_one_again(&mut self, disk: &mut impl Disk, at: usize, now: Millis) -> io::Result<()> {
        let front = self.oldest_live();
        let Some(segment) = self.segments.get_mut(at) else { return Ok(()) };
        let file = name(&self.dir, segment.first);
        let mut read = Vec::new();
        let bytes = if segment.kept_whole {
            &segment.kept
        } else {
            read.resize((segment.len - segment.synced) as usize, 0);
            match disk.read(&file, segment.synced, &mut read) {
                Ok(_) => self.unread_since = None,
                Err(e) if is_read_error(&e) && is_patient(&mut self.unread_since, now) => return Err(e),
                Err(_) => {
                    self.unread_since = None;
                    read_pieces(disk, &file, segment.synced, &mut read);
                }
            }
            &read
        };
        let (mut values, mut found, mut marks) = (Vec::new(), Ranges::new(), Ranges::new());
        if segment.synced > 0 && segment.synced_last < segment.first {
            // This file may be replaced as a whole: what else it says stays.
            let mut begin = vec![0; segment.synced as usize];
            read_pieces(disk, &file, 0, &mut begin);
            for (_, frame) in Frames::new(self.id, &begin, true).filter(|(_, f)| f.kind == codec::DONE) {
                codec::read_done(frame.payload, |a, b| marks.insert_range(a, b));
            }
        }
        for (place, frame) in Frames::new(self.id, bytes, true) {
            match frame.kind {
                codec::VALUES => {
                    codec::read_values(frame.payload, |r| {
                        found.insert(r.sequence);
                    });
                    let end = place + codec::FRAME_HEAD + frame.payload.len();
                    values.extend_from_slice(bytes.get(place..end).unwrap_or(&[]));
                }
                codec::DONE => {
                    codec::read_done(frame.payload, |a, b| marks.insert_range(a, b));
                }
                _ => {}
            }
        }
        let (lo, last) = (segment.synced_last + 1, segment.last);
        let instead = found.first().filter(|&f| f > segment.first && segment.synced > 0);
        let first = instead.unwrap_or(segment.first);
        codec::put_done(&mut values, self.id, marks.iter());
        let (level, body) = (if instead.is_some() { 0 } else { segment.level }, values.len() as u64);
        let mut out = Vec::new();
        if instead.is_some() || segment.synced_last < segment.first {
            codec::put_header(
                &mut out,
                self.id,
                Header { first, front: front.min(first), level, body, written: None },
            );
            out.extend_from_slice(&values);
            // The old file stays until all of this is written: the process may end in between.
            let new = format!("{}/again.tmp", self.dir);
            disk.write(&new, 0, &out)?;
            disk.truncate(&new, out.len() as u64)?;
            disk.rename(&new, &name(&self.dir, first))?;
            self.dir_changes += 1;
        } else {
            // They go with what is written next.
            marks.iter().for_each(|(a, b)| self.done.insert_range(a, b));
        }
        let mut new = Segment::new(first);
        (new.last, new.newest_ms, new.level, new.old) = (last, segment.newest_ms, level, segment.old);
        (new.sealed, new.born, new.len) = (true, self.dir_changes, out.len() as u64);
        for (place, frame) in Frames::new(self.id, &out, true).filter(|(_, f)| f.kind == codec::VALUES) {
            new.note_frame(frame.payload, place as u64);
        }
        (new.kept, new.kept_whole) = (out, true);
        segment.again = false;
        // What a failed write left behind is not in the new file, and behind the cut in the old one.
        self.cut = self.cut.filter(|&(first, _)| first != segment.first);
        if instead.is_none() && new.len > 0 {
            *segment = new;
        } else {
            // If it can't be cut, the same values are there twice, which is harmless.
            let _ = disk.truncate(&file, segment.synced);
            (segment.len, segment.last) = (segment.synced, segment.synced_last);
            (segment.kept, segment.kept_whole) = (Vec::new(), true);
            segment.index.retain(|mark| mark.place < segment.synced);
            if instead.is_some() {
                new.old = Old::None;
                self.segments.insert(at + 1, new);
            }
        }
        let not_found = |kept: &Ranges| -> Vec<u64> {
            let sequences = kept.within(lo, last).flat_map(|(a, b)| a..=b);
            sequences.filter(|&sequence| !found.contains(sequence)).collect()
        };
        for sequence in not_found(&self.parked) {
            self.lost += self.give_up(sequence, sequence);
        }
        for sequence in not_found(&self.held) {
            self.held.remove(sequence);
            self.missing.insert(sequence);
            self.done.insert(sequence);
        }
        Ok(())
    }

    /// Gives up the oldest file: how many parked values were in it. `None` if there is none.
    ///
    /// # Errors
    /// As the disk; nothing was given up then.
    pub(super) fn drop_front(&mut self, disk: &mut impl Disk) -> io::Result<Option<u64>> {
        let Some(last) = self.segments.front().map(|s| s.last) else { return Ok(None) };
        if self.segments.len() == 1 && self.segments.front().is_some_and(Segment::has_values) {
            // Carries the numbering on. If there is no room even for that, it goes on in memory.
            let _ = self.begin_segment(disk, self.covered + 1);
        }
        self.remove_front(disk)?;
        self.held.remove_to(last.min(self.covered));
        Ok(Some(self.parked.remove_to(last.min(self.covered))))
    }

    /// Thins the file out that was thinned least (the oldest of those), with the first windows that take a quarter off it
    /// or more: what came of it. `None` if no file can be thinned any more. Values in frames that were damaged meanwhile
    /// count as left out. A file that no windows make shorter is not read again in this life.
    ///
    /// # Errors
    /// As the disk; nothing has changed then.
    pub(super) fn thin(&mut self, disk: &mut impl Disk, durable: bool) -> io::Result<Option<Thinned>> {
        let tail = self.segments.len().saturating_sub(1);
        let fit = |s: &Segment| s.level < LEVELS && !s.again && s.old != Old::Only;
        let candidates = self.segments.iter().enumerate().take(tail).filter(|(_, s)| fit(s));
        let Some((at, _)) = candidates.min_by_key(|(_, s)| s.level) else { return Ok(None) };
        let front = self.oldest_live();
        let Some(segment) = self.segments.get_mut(at) else { return Ok(None) };
        let file = name(&self.dir, segment.first);
        let mut thinned = Thinned { values: 0, bytes_read: segment.len };
        let mut bytes = vec![0; segment.len as usize];
        let Ok(n) = disk.read(&file, 0, &mut bytes) else {
            // Others are thinned, and then the oldest given up: the bound is kept.
            segment.level = LEVELS;
            return Ok(Some(thinned));
        };
        bytes.truncate(n);

        let (mut samples, mut paths) = (Vec::new(), HashMap::new());
        let (mut done, mut values) = (Ranges::new(), 0usize);
        for (_, frame) in Frames::new(self.id, &bytes, true) {
            if frame.kind == codec::DONE {
                codec::read_done(frame.payload, |a, b| done.insert_range(a, b));
            }
            if frame.kind != codec::VALUES {
                continue;
            }
            codec::read_values(frame.payload, |r| {
                values += 1;
                if !self.parked.contains(r.sequence) {
                    return;
                }
                let path = paths.get(r.path).copied().unwrap_or_else(|| {
                    let path = paths.len();
                    paths.insert(r.path.to_owned(), path);
                    path
                });
                let number = r.number.parse().unwrap_or(0.0);
                samples.push(Sample { path, time_ms: r.time_ms, sequence: r.sequence, number });
            });
        }
        drop(paths);
        samples.sort_unstable_by_key(|s| (s.path, s.time_ms, s.sequence));
        done.insert_range(segment.first, segment.last);
        let held =
            self.held.within(segment.first, segment.last).map(|(a, b)| b - a + 1).sum::<u64>() as usize;

        let (level_before, mut chosen) = (segment.level, None);
        while chosen.is_none() && segment.level < LEVELS && !samples.is_empty() {
            let kept = keep_outline(&samples, 60_000u64 << (2 * u32::from(segment.level)));
            segment.level += 1;
            if kept.len() + held > values - values / 4 {
                continue;
            }
            // What is in the collector's memory stays too.
            let (mut body, mut done) = (Vec::new(), done.clone());
            let mut writer = ValuesWriter::new(&mut body, self.id, segment.first.saturating_sub(1), None);
            for (_, frame) in Frames::new(self.id, &bytes, true).filter(|(_, f)| f.kind == codec::VALUES) {
                codec::read_values(frame.payload, |r| {
                    let stays = kept.binary_search(&r.sequence).is_ok() || self.held.contains(r.sequence);
                    if stays && done.remove(r.sequence) {
                        writer.put(&r);
                    }
                });
            }
            writer.finish();
            codec::put_done(&mut body, self.id, done.iter());
            let mut out = Vec::new();
            let header = Header {
                first: segment.first,
                front: front.min(segment.first),
                level: segment.level,
                body: body.len() as u64,
                written: None,
            };
            codec::put_header(&mut out, self.id, header);
            out.extend_from_slice(&body);
            if out.len() as u64 <= segment.len - segment.len / 4 {
                chosen = Some((out, done));
            }
        }
        let Some((out, done)) = chosen else {
            segment.level = LEVELS;
            return Ok(Some(thinned));
        };

        let (new, old) = (format!("{}/thin.tmp", self.dir), old_name(&self.dir, segment.first));
        let mut written = disk.write(&new, 0, &out).and_then(|()| disk.truncate(&new, out.len() as u64));
        let keep = durable && segment.old == Old::None && written.is_ok();
        let mut aside = false;
        if keep {
            // As long as the new one may not survive a power cut.
            written = disk.rename(&file, &old);
            aside = written.is_ok();
        }
        if let Err(e) = written.and_then(|()| disk.rename(&new, &file)) {
            if aside {
                self.dir_changes += 1;
                segment.old = if disk.rename(&old, &file).is_ok() { Old::None } else { Old::Only };
            }
            let _ = disk.remove(&new);
            segment.level = level_before;
            return match e.kind() {
                // It takes room to make room: the oldest is given up instead.
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Ok(None),
                _ => Err(e),
            };
        }
        if aside {
            segment.old = Old::Spare;
        }
        self.dir_changes += 1;
        (segment.born, segment.synced) = (self.dir_changes, 0);
        segment.synced_last = segment.first.saturating_sub(1);
        (segment.kept, segment.kept_whole) = (Vec::new(), false);
        segment.sealed = true;
        segment.len = out.len() as u64;
        segment.index.clear();
        for (at, frame) in Frames::new(self.id, &out, true).filter(|(_, f)| f.kind == codec::VALUES) {
            segment.note_frame(frame.payload, at as u64);
        }
        let left_out = done.within(segment.first, segment.last);
        thinned.values = left_out.map(|(a, b)| self.parked.remove_range(a, b)).sum();
        Ok(Some(thinned))
    }

    /// Whether all values of the oldest file were handed over before `ms`, and it has some.
    pub(super) fn front_is_older_than(&self, ms: u64) -> bool {
        self.segments.front().is_some_and(|s| s.has_values() && s.newest_ms < ms)
    }

    /// Whether the oldest file may be given up for room: it holds values, or others follow.
    pub(super) fn can_drop_front(&self) -> bool {
        self.segments.len() > 1 || self.segments.front().is_some_and(Segment::has_values)
    }

    /// Gives up to `max` parked values to `accept`, in their order, until it says no.
    ///
    /// # Errors
    /// As the disk. If it reads others, what can't be read is given up after 10 min.
    pub(super) fn feed(
        &mut self,
        disk: &mut impl Disk,
        now: Millis,
        oldest_ms: u64,
        max: u64,
        mut accept: impl FnMut(&Record<'_>) -> bool,
    ) -> (Fed, io::Result<()>) {
        let mut fed = Fed::default();
        if self.again {
            // What is in the file may not be what was written.
            return (fed, Ok(()));
        }
        let (mut given, mut more) = (0, max > 0);
        let mut buf = vec![0; READ_BYTES];
        while let Some(wanted) = self.parked.first().filter(|&w| more && w <= self.covered) {
            let which = self.segments.partition_point(|s| s.first <= wanted);
            let Some(segment) = which.checked_sub(1).and_then(|i| self.segments.get(i)) else {
                fed.corrupt += self.give_up(wanted, wanted);
                continue;
            };
            let (file, last, len) = (segment.file(&self.dir), segment.last, segment.len);
            let mut at = segment.place_of(wanted);
            let mut gives_up = false;
            while more && at < len {
                let part = buf.get_mut(..READ_BYTES.min((len - at) as usize)).unwrap_or_default();
                match disk.read(&file, at, part) {
                    Ok(n) => {
                        self.unread_since = None;
                        // A file that became shorter: the rest is gone.
                        part.iter_mut().skip(n).for_each(|b| *b = 0);
                    }
                    Err(e) => {
                        if !is_damage(disk, &self.dir, &e) {
                            return (fed, Err(e));
                        }
                        if is_read_error(&e) && !gives_up {
                            if is_patient(&mut self.unread_since, now) || !self.reads_others(disk, &file, at)
                            {
                                return (fed, Err(e));
                            }
                            // All bad spots of this file; the next file gets its time.
                            (gives_up, self.unread_since) = (true, None);
                        }
                        read_pieces(disk, &file, at, part);
                    }
                }
                let whole = at + part.len() as u64 == len;
                let mut frames = Frames::new(self.id, part, whole);
                for (_, frame) in &mut frames {
                    if frame.kind != codec::VALUES {
                        continue;
                    }
                    codec::read_values(frame.payload, |r| {
                        if !more || !self.parked.contains(r.sequence) {
                            return;
                        }
                        // Parked ones before it should have come before it.
                        if let Some(missing) = self.parked.first().filter(|&m| m < r.sequence) {
                            fed.corrupt += give_up(&mut self.parked, &mut self.done, missing, r.sequence - 1);
                        }
                        if r.handed_over_ms < oldest_ms {
                            fed.too_old += give_up(&mut self.parked, &mut self.done, r.sequence, r.sequence);
                        } else if accept(&r) {
                            self.parked.remove(r.sequence);
                            self.held.insert(r.sequence);
                            given += 1;
                            more = given < max;
                        } else {
                            more = false;
                        }
                    });
                    if !more {
                        break;
                    }
                }
                at += frames.position().max(1) as u64;
            }
            if more {
                fed.corrupt += self.give_up(wanted, last.max(wanted));
            }
        }
        (fed, Ok(()))
    }

    /// Whether the disk reads something of this account's files beside the piece of `file` at `at`.
    fn reads_others(&self, disk: &mut impl Disk, file: &str, at: u64) -> bool {
        let others = self.segments.iter().rev().take(PROBES).map(|s| s.file(&self.dir)).filter(|f| f != file);
        let pieces = (0..READ_BYTES / PIECE_BYTES).map(|i| at + (i * PIECE_BYTES) as u64);
        others
            .map(|f| (f, 0))
            .chain([(file.to_owned(), 0)])
            .chain(pieces.map(|at| (file.to_owned(), at)))
            .any(|(file, at)| matches!(disk.read(&file, at, &mut [0; PIECE_BYTES]), Ok(1..)))
    }

    fn give_up(&mut self, first: u64, last: u64) -> u64 {
        give_up(&mut self.parked, &mut self.done, first, last)
    }

    /// Sets the time of the next try after a failure, and doubles the wait.
    pub(super) fn back_off(&mut self, now: Millis, min_ms: u64, max_ms: u64) {
        self.wait = Some(longer(self.wait, now, min_ms, max_ms));
    }

    /// The same for reading.
    pub(super) fn back_off_reading(&mut self, now: Millis, min_ms: u64, max_ms: u64) {
        self.read_wait = Some(longer(self.read_wait, now, min_ms, max_ms));
    }
}

/// After a read that failed: whether it is to be tried again before anything is given up.
fn is_patient(since: &mut Option<Millis>, now: Millis) -> bool {
    now.0 < since.get_or_insert(now).0 + READ_PATIENCE_MS
}

fn longer(before: Option<Wait>, now: Millis, min_ms: u64, max_ms: u64) -> Wait {
    let length_ms = before.map_or(min_ms, |w| (w.length_ms * 2).min(max_ms));
    Wait { until: Millis(now.0 + length_ms), length_ms }
}

/// Takes values out of the parked ones: how many.
fn give_up(parked: &mut Ranges, done: &mut Ranges, first: u64, last: u64) -> u64 {
    let gone: Vec<(u64, u64)> = parked.within(first, last).collect();
    for &(a, b) in &gone {
        parked.remove_range(a, b);
        done.insert_range(a, b);
    }
    gone.iter().map(|(a, b)| b - a + 1).sum()
}
