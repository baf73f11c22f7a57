//! The outbox's memory: values as chains of fixed-size cells, doubly linked lists of values, and a hash index
//! over (account, time, path).
//!
//! A value's first cell holds 30 bytes of head and 14 of text, each further one 44 bytes of text; the text is the
//! path followed by the number. Freed cells are used again one by one, so nothing is ever moved or compacted.
//! Links are the cell's number plus one, 0 is none: zeroed memory is an empty outbox.

/// Bytes of a cell that hold data.
const DATA_BYTES: usize = 44;
/// Bytes of the first cell that hold the head.
const HEAD_BYTES: usize = 30;
/// Bytes of text in the first cell.
const FIRST_TEXT_BYTES: usize = DATA_BYTES - HEAD_BYTES;
/// Times (ms) are stored in 48 bits: until the year 10889.
pub(super) const TIME_MAX: u64 = (1 << 48) - 1;

/// The piece of memory that the outbox deals with: 48 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The value's next cell, or the next free one.
    next: u32,
    data: [u8; DATA_BYTES],
}

impl Cell {
    /// An unused cell, all bytes zero.
    pub const EMPTY: Cell = Cell { next: 0, data: [0; DATA_BYTES] };
    /// Size of a cell in bytes.
    pub const BYTES: usize = core::mem::size_of::<Cell>();

    /// Cells that a value takes whose path and number have `text_bytes` together.
    #[must_use]
    pub const fn needed(text_bytes: usize) -> usize {
        1 + text_bytes.saturating_sub(FIRST_TEXT_BYTES).div_ceil(DATA_BYTES)
    }
}

impl Default for Cell {
    fn default() -> Self {
        Cell::EMPTY
    }
}

/// A value's first cell plus one, or 0.
pub(super) type Link = u32;
/// No value.
pub(super) const NONE: Link = 0;

// Where the head's fields are.
const TIME: usize = 0;
const SINCE: usize = 6;
const PREV: usize = 12;
const NEXT: usize = 16;
const CHAIN: usize = 20;
const ACCOUNT: usize = 24;
const PATH_LEN: usize = 26;
const NUMBER_LEN: usize = 28;
const FLAGS: usize = 29;

/// The list that a value is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Flight = 0,
    Live = 1,
    Backlog = 2,
    Suspect = 3,
}

const PLACE_BITS: u8 = 3;
/// The time is Unix time; otherwise monotonic time of this boot.
const TIMED: u8 = 4;
/// The time is not that of the hand-over: no POST may stamp it.
const OWN_TIME: u8 = 8;

/// What a new value's head says.
#[derive(Clone, Copy)]
pub(super) struct NewHead {
    pub(super) account: u16,
    pub(super) time_ms: u64,
    pub(super) timed: bool,
    pub(super) own_time: bool,
    /// Monotonic ms from which its age counts.
    pub(super) since_ms: u64,
}

/// The cells, seen as values.
pub(super) struct Cells<'m>(pub(super) &'m mut [Cell]);

impl Cells<'_> {
    fn cell(&self, link: Link) -> &Cell {
        // A link that leads nowhere would be a bug, or other memory than at the last call.
        let cell = self.0.get((link as usize).wrapping_sub(1));
        debug_assert!(cell.is_some(), "a link leads to a cell");
        cell.unwrap_or(&Cell::EMPTY)
    }

    fn field<const N: usize>(&self, link: Link, at: usize) -> [u8; N] {
        self.cell(link).data.get(at..).and_then(|d| d.first_chunk::<N>()).copied().unwrap_or([0; N])
    }

    fn set_field(&mut self, link: Link, at: usize, bytes: &[u8]) {
        let cell = self.0.get_mut((link as usize).wrapping_sub(1));
        if let Some(to) = cell.and_then(|c| c.data.get_mut(at..at + bytes.len())) {
            to.copy_from_slice(bytes);
        } else {
            debug_assert!(false, "a link leads to a cell");
        }
    }

    fn u32_at(&self, link: Link, at: usize) -> u32 {
        u32::from_le_bytes(self.field(link, at))
    }

    fn time_at(&self, link: Link, at: usize) -> u64 {
        let [a, b, c, d, e, f] = self.field(link, at);
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    fn set_time_at(&mut self, link: Link, at: usize, ms: u64) {
        let [a, b, c, d, e, f, ..] = ms.min(TIME_MAX).to_le_bytes();
        self.set_field(link, at, &[a, b, c, d, e, f]);
    }

    fn flags(&self, link: Link) -> u8 {
        let [flags] = self.field(link, FLAGS);
        flags
    }

    pub(super) fn time_ms(&self, link: Link) -> u64 {
        self.time_at(link, TIME)
    }

    /// Fixes a monotonic time as Unix time.
    pub(super) fn fix_time(&mut self, link: Link, unix_ms: u64) {
        self.set_time_at(link, TIME, unix_ms);
        let flags = self.flags(link) | TIMED;
        self.set_field(link, FLAGS, &[flags]);
    }

    pub(super) fn since_ms(&self, link: Link) -> u64 {
        self.time_at(link, SINCE)
    }

    pub(super) fn timed(&self, link: Link) -> bool {
        self.flags(link) & TIMED != 0
    }

    pub(super) fn own_time(&self, link: Link) -> bool {
        self.flags(link) & OWN_TIME != 0
    }

    pub(super) fn place(&self, link: Link) -> Place {
        match self.flags(link) & PLACE_BITS {
            1 => Place::Live,
            2 => Place::Backlog,
            3 => Place::Suspect,
            _ => Place::Flight,
        }
    }

    pub(super) fn set_place(&mut self, link: Link, place: Place) {
        let flags = self.flags(link) & !PLACE_BITS | place as u8;
        self.set_field(link, FLAGS, &[flags]);
    }

    pub(super) fn account(&self, link: Link) -> u16 {
        u16::from_le_bytes(self.field(link, ACCOUNT))
    }

    pub(super) fn path_len(&self, link: Link) -> usize {
        usize::from(u16::from_le_bytes(self.field(link, PATH_LEN)))
    }

    pub(super) fn number_len(&self, link: Link) -> usize {
        let [len] = self.field(link, NUMBER_LEN);
        usize::from(len)
    }

    pub(super) fn next(&self, link: Link) -> Link {
        self.u32_at(link, NEXT)
    }

    fn set_next(&mut self, link: Link, to: Link) {
        self.set_field(link, NEXT, &to.to_le_bytes());
    }

    pub(super) fn prev(&self, link: Link) -> Link {
        self.u32_at(link, PREV)
    }

    fn set_prev(&mut self, link: Link, to: Link) {
        self.set_field(link, PREV, &to.to_le_bytes());
    }

    fn chain(&self, link: Link) -> Link {
        self.u32_at(link, CHAIN)
    }

    fn set_chain(&mut self, link: Link, to: Link) {
        self.set_field(link, CHAIN, &to.to_le_bytes());
    }

    /// The bytes `from..to` of a value's text (path, then number), in pieces.
    pub(super) fn text(&self, link: Link, from: usize, to: usize) -> Text<'_> {
        Text { cells: self.0, cell: link, head: HEAD_BYTES, skip: from, left: to.saturating_sub(from) }
    }

    pub(super) fn path(&self, link: Link) -> Text<'_> {
        self.text(link, 0, self.path_len(link))
    }

    pub(super) fn number(&self, link: Link) -> Text<'_> {
        let from = self.path_len(link);
        self.text(link, from, from + self.number_len(link))
    }

    pub(super) fn cells_of(&self, link: Link) -> u32 {
        Cell::needed(self.path_len(link) + self.number_len(link)) as u32
    }

    pub(super) fn same_path(&self, a: Link, b: Link) -> bool {
        self.path_len(a) == self.path_len(b) && self.path(a).eq(self.path(b))
    }

    fn key(&self, link: Link) -> Key {
        Key { account: self.account(link), time_ms: self.time_ms(link), timed: self.timed(link) }
    }
}

/// A value's text in pieces: one per cell.
#[derive(Clone)]
pub(super) struct Text<'m> {
    cells: &'m [Cell],
    cell: Link,
    head: usize,
    skip: usize,
    left: usize,
}

impl<'m> Iterator for Text<'m> {
    type Item = &'m [u8];

    fn next(&mut self) -> Option<&'m [u8]> {
        while self.left > 0 {
            let cell = self.cells.get((self.cell as usize).wrapping_sub(1))?;
            let data = cell.data.get(self.head..)?;
            self.head = 0;
            self.cell = cell.next;
            match data.get(self.skip..) {
                None | Some([]) => self.skip -= data.len(),
                Some(data) => {
                    self.skip = 0;
                    let piece = data.get(..self.left).unwrap_or(data);
                    self.left -= piece.len();
                    return Some(piece);
                }
            }
        }
        None
    }
}

/// A path in the pieces in which cells keep it.
pub(super) fn pieces(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let (first, rest) = path.split_at_checked(FIRST_TEXT_BYTES).unwrap_or((path, &[]));
    core::iter::once(first).chain(rest.chunks(DATA_BYTES))
}

/// Which cells are free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool {
    free: Link,
    /// Cells from here on were never used.
    fresh: u32,
    used: u32,
}

impl Pool {
    pub(super) const EMPTY: Pool = Pool { free: NONE, fresh: 0, used: 0 };

    pub(super) const fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn capacity(cells: &[Cell]) -> u32 {
        u32::try_from(cells.len()).unwrap_or(u32::MAX).min(u32::MAX - 1)
    }

    pub(super) fn free_cells(&self, cells: &[Cell]) -> u32 {
        Self::capacity(cells).saturating_sub(self.used)
    }

    fn take(&mut self, cells: &mut [Cell]) -> Option<Link> {
        let link = if self.free != NONE {
            let link = self.free;
            self.free = cells.get(link as usize - 1)?.next;
            link
        } else {
            if self.fresh >= Self::capacity(cells) {
                return None;
            }
            self.fresh += 1;
            self.fresh
        };
        self.used += 1;
        *cells.get_mut(link as usize - 1)? = Cell::EMPTY;
        Some(link)
    }

    /// Stores a value. `None` if there is no room; nothing is changed then.
    pub(super) fn store(
        &mut self,
        cells: &mut Cells<'_>,
        head: NewHead,
        path: &[u8],
        number: &[u8],
    ) -> Option<Link> {
        let needed = Cell::needed(path.len() + number.len());
        if needed as u64 > u64::from(self.free_cells(cells.0)) {
            return None;
        }
        let first = self.take(cells.0)?;
        let mut text = [path, number];
        let mut last = first;
        let mut from = HEAD_BYTES;
        for k in 0..needed {
            if k > 0 {
                let next = self.take(cells.0)?;
                if let Some(cell) = cells.0.get_mut(last as usize - 1) {
                    cell.next = next;
                }
                last = next;
            }
            if let Some(mut room) = cells.0.get_mut(last as usize - 1).and_then(|c| c.data.get_mut(from..)) {
                for part in &mut text {
                    let n = part.len().min(room.len());
                    let (now, later) = part.split_at_checked(n).unwrap_or_default();
                    let (to, rest) = room.split_at_mut_checked(n).unwrap_or_default();
                    to.copy_from_slice(now);
                    (*part, room) = (later, rest);
                }
            }
            from = 0;
        }
        cells.set_time_at(first, TIME, head.time_ms);
        cells.set_time_at(first, SINCE, head.since_ms);
        cells.set_field(first, ACCOUNT, &head.account.to_le_bytes());
        cells.set_field(first, PATH_LEN, &(path.len() as u16).to_le_bytes());
        let flags = if head.timed { TIMED } else { 0 } | if head.own_time { OWN_TIME } else { 0 };
        cells.set_field(first, NUMBER_LEN, &[number.len() as u8, flags]);
        Some(first)
    }

    /// Takes a value's cells back.
    pub(super) fn free(&mut self, cells: &mut Cells<'_>, link: Link) {
        let n = cells.cells_of(link);
        let mut last = link;
        for _ in 1..n {
            last = cells.cell(last).next;
        }
        if let Some(cell) = cells.0.get_mut((last as usize).wrapping_sub(1)) {
            cell.next = self.free;
            self.free = link;
            self.used -= n;
        }
    }

    /// Walks the free list: whether it and the used cells make up all that were ever used.
    pub(super) fn sound(&self, cells: &Cells<'_>) -> bool {
        let mut free = 0;
        let mut link = self.free;
        while link != NONE && free <= self.fresh {
            free += 1;
            link = cells.cell(link).next;
        }
        free + self.used == self.fresh
    }
}

/// A doubly linked list of values.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) head: Link,
    pub(super) tail: Link,
    pub(super) len: u32,
}

impl List {
    pub(super) const EMPTY: List = List { head: NONE, tail: NONE, len: 0 };

    pub(super) const fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub(super) fn push_back(&mut self, cells: &mut Cells<'_>, link: Link) {
        cells.set_prev(link, self.tail);
        cells.set_next(link, NONE);
        if self.tail == NONE {
            self.head = link;
        } else {
            cells.set_next(self.tail, link);
        }
        self.tail = link;
        self.len += 1;
    }

    pub(super) fn push_front(&mut self, cells: &mut Cells<'_>, link: Link) {
        cells.set_prev(link, NONE);
        cells.set_next(link, self.head);
        if self.head == NONE {
            self.tail = link;
        } else {
            cells.set_prev(self.head, link);
        }
        self.head = link;
        self.len += 1;
    }

    /// Puts a value behind `after`, which is in the list; at its front if `after` is none.
    pub(super) fn insert_after(&mut self, cells: &mut Cells<'_>, after: Link, link: Link) {
        if after == NONE {
            self.push_front(cells, link);
        } else if after == self.tail {
            self.push_back(cells, link);
        } else {
            let next = cells.next(after);
            cells.set_prev(link, after);
            cells.set_next(link, next);
            cells.set_next(after, link);
            cells.set_prev(next, link);
            self.len += 1;
        }
    }

    pub(super) fn unlink(&mut self, cells: &mut Cells<'_>, link: Link) {
        let (prev, next) = (cells.prev(link), cells.next(link));
        if prev == NONE {
            self.head = next;
        } else {
            cells.set_next(prev, next);
        }
        if next == NONE {
            self.tail = prev;
        } else {
            cells.set_prev(next, prev);
        }
        self.len -= 1;
    }
}

/// What makes a value the same as another, besides its path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) account: u16,
    pub(super) time_ms: u64,
    pub(super) timed: bool,
}

/// The hash index over the values that wait (not those in flight). Buckets hold links, values chain.
pub(super) struct Index<'m> {
    pub(super) buckets: &'m mut [u32],
    pub(super) seed: u64,
}

/// Where a value belongs in the index.
#[derive(Clone, Copy)]
pub(super) struct Bucket(usize);

impl Index<'_> {
    /// The bucket of this key and path, which comes in the pieces in which cells keep it.
    pub(super) fn bucket<'p>(&self, key: Key, path: impl Iterator<Item = &'p [u8]>) -> Bucket {
        let kind = u64::from(key.timed) << 63 | u64::from(key.account) << 47;
        let hash = mixed(mixed(0, self.seed), key.time_ms ^ kind);
        Bucket(place(path.fold(hash, mixed_with), self.buckets.len()))
    }

    fn head(&self, Bucket(bucket): Bucket) -> Link {
        self.buckets.get(bucket).copied().unwrap_or(NONE)
    }

    /// The waiting value with this key and path, which belongs in `bucket`.
    pub(super) fn find<'p>(
        &self,
        cells: &Cells<'_>,
        bucket: Bucket,
        key: Key,
        path_len: usize,
        path: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Link {
        let mut at = self.head(bucket);
        while at != NONE {
            if cells.key(at) == key && cells.path_len(at) == path_len && cells.path(at).eq(path.clone()) {
                break;
            }
            at = cells.chain(at);
        }
        at
    }

    /// The waiting value with the same key and path as `link`, which itself does not wait.
    pub(super) fn find_same(&self, cells: &Cells<'_>, link: Link) -> Link {
        let (key, path) = (cells.key(link), cells.path(link));
        self.find(cells, self.bucket(key, path.clone()), key, cells.path_len(link), path)
    }

    pub(super) fn insert(&mut self, cells: &mut Cells<'_>, link: Link) {
        let bucket = self.bucket(cells.key(link), cells.path(link));
        self.insert_into(bucket, cells, link);
    }

    /// The same for a value of which it is known where it belongs.
    pub(super) fn insert_into(&mut self, Bucket(bucket): Bucket, cells: &mut Cells<'_>, link: Link) {
        if let Some(head) = self.buckets.get_mut(bucket) {
            cells.set_chain(link, *head);
            *head = link;
        }
    }

    pub(super) fn remove(&mut self, cells: &mut Cells<'_>, link: Link) {
        let bucket = self.bucket(cells.key(link), cells.path(link));
        let after = cells.chain(link);
        let mut at = self.head(bucket);
        if at == link {
            if let Some(head) = self.buckets.get_mut(bucket.0) {
                *head = after;
            }
            return;
        }
        while at != NONE {
            let next = cells.chain(at);
            if next == link {
                cells.set_chain(at, after);
                return;
            }
            at = next;
        }
    }

    /// Values in a bucket.
    pub(super) fn count(&self, cells: &Cells<'_>, bucket: usize) -> u64 {
        let (mut n, mut at) = (0, self.head(Bucket(bucket)));
        while at != NONE {
            n += 1;
            at = cells.chain(at);
        }
        n
    }
}

/// A hash as wide as the processor's numbers. It is only as good as tables of this outbox need it.
type Hash = usize;

/// The golden ratio's fraction.
const GOLDEN: Hash = (0x9e37_79b9_7f4a_7c15_u64 >> (64 - usize::BITS)) as usize | 1;

/// A hash continued by a word.
const fn mixed_word(hash: Hash, word: usize) -> Hash {
    // The product's upper half has what has changed in a word.
    let product = (hash ^ word).wrapping_mul(GOLDEN);
    product ^ (product >> (usize::BITS / 2))
}

/// A hash continued by a number.
pub(super) const fn mixed(hash: Hash, n: u64) -> Hash {
    let hash = mixed_word(hash, n as usize);
    if usize::BITS < 64 { mixed_word(hash, (n >> 32) as usize) } else { hash }
}

/// A hash continued by a piece of a path.
fn mixed_with(hash: Hash, piece: &[u8]) -> Hash {
    let (words, rest) = piece.as_chunks();
    let hash = words.iter().fold(hash, |hash, word| mixed_word(hash, usize::from_le_bytes(*word)));
    if rest.is_empty() {
        return hash;
    }
    // Bytes of the word before once more: that costs less than to look at single ones.
    let last = piece.last_chunk().map(|word| usize::from_le_bytes(*word));
    mixed_word(hash, last.unwrap_or_else(|| rest.iter().fold(0, |word, byte| word << 8 | usize::from(*byte))))
}

/// The place of a hash among so many: no division, which a Cortex-M0+ doesn't have.
pub(super) fn place(hash: Hash, places: usize) -> usize {
    (((hash as u64 & 0xffff_ffff) * (places as u64 & 0xffff_ffff)) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn a_path_is_hashed_the_same_within_cells_and_outside_of_them() {
        let text: Vec<u8> = (0..200).map(|i| b'a' + i % 26).collect();
        let mut cells = vec![Cell::EMPTY; 12];
        let mut buckets = vec![0; 1 << 20];
        for len in 1..=200 {
            let (path, mut pool) = (&text[200 - len..], Pool::EMPTY);
            let head = NewHead { account: 3, time_ms: 7, timed: true, own_time: false, since_ms: 7 };
            let mut cells = Cells(&mut cells);
            let link = pool.store(&mut cells, head, path, b"1.5").unwrap();
            assert_eq!(cells.path(link).flatten().copied().collect::<Vec<_>>(), path);
            assert_eq!(cells.number(link).flatten().copied().collect::<Vec<_>>(), b"1.5");
            let index = Index { buckets: &mut buckets, seed: 1 };
            let (inside, outside) = (
                index.bucket(cells.key(link), cells.path(link)),
                index.bucket(cells.key(link), pieces(path)),
            );
            assert_eq!(inside.0, outside.0, "{len} bytes");
        }
    }

    #[test]
    fn values_that_differ_in_a_digit_of_path_or_time_are_spread_over_the_index() {
        let mut buckets = vec![0; 10_000];
        let index = Index { buckets: &mut buckets, seed: 0 };
        let usual = |i: usize| {
            (std::format!("entity.{}.ping.p{}.rtt", 1_000_000 + i / 10, i % 10), 1_700_000_000_000u64)
        };
        let timed = |i: usize| ("t".into(), 1_700_000_000_000 + 1_000 * i as u64);
        let short = |i: usize| (std::format!("{i}"), 0);
        for values in [&usual as &dyn Fn(usize) -> (std::string::String, u64), &timed, &short] {
            let mut lengths = vec![0u32; 10_000];
            for i in 0..10_000 {
                let (path, time_ms) = values(i);
                let Bucket(at) =
                    index.bucket(Key { account: 0, time_ms, timed: true }, pieces(path.as_bytes()));
                lengths[at] += 1;
            }
            // By chance some 3,680 stay empty, and the fullest has 6 to 8.
            assert!(lengths.iter().filter(|n| **n == 0).count() < 3_900);
            assert!(lengths.iter().all(|n| *n < 12));
        }
    }
}
