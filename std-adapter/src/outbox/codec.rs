//! How records are written: frames of a few values each, every frame with its own checksum.
//!
//! A file is a sequence of frames:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | kind: [`HEADER`], [`VALUES`], [`DONE`], [`STATE`], [`TOTALS`] |
//! | 2 | length of the payload, little-endian, at most [`MAX_PAYLOAD`] |
//! | 4 | CRC-32C of the owner (account, 8 bytes), kind, length and payload |
//! | n | payload |
//!
//! Numbers in payloads are LEB128 (7 bits a byte, lowest first), signed ones zigzag. The payload of values:
//! sequence number of the first; how many numbers before it are in no frame on purpose; how many values; then each:
//! numbers left out before it (not for the first), hand-over in Unix ms (first: absolute, others: difference to the one
//! before), time minus hand-over, how many bytes of path are those of the value before it, length and bytes of the
//! rest, length of the number's text, and the text with four bits per character. Behind the values: how many values were
//! written to this account's files before this frame, if that is known; so it is behind a header's numbers. From these
//! follows how many values were in frames that are lost, as not all numbers were ever in a frame.
//!
//! Nothing in a frame refers to another frame. A damaged one costs its own values (a frame is closed beyond
//! [`FULL_PAYLOAD`] bytes, about 30 values), and the reader finds the next one by trying each byte.

use crc::{CRC_32_ISCSI, Crc, Table};

/// First frame of a segment.
pub(super) const HEADER: u8 = 0xa6;
/// Values.
pub(super) const VALUES: u8 = 0xc3;
/// Ranges of sequence numbers that are done with.
pub(super) const DONE: u8 = 0x99;
/// One keyed state.
pub(super) const STATE: u8 = 0x5c;
/// The ledger over all lives.
pub(super) const TOTALS: u8 = 0x35;

/// A frame that has reached so many bytes takes no further value.
pub(super) const FULL_PAYLOAD: usize = 512;
/// No payload is longer, bytes.
pub(super) const MAX_PAYLOAD: usize = 1200;
/// Bytes of a frame before its payload.
pub(super) const FRAME_HEAD: usize = 7;
/// No frame is longer, bytes.
pub(super) const MAX_FRAME: usize = FRAME_HEAD + MAX_PAYLOAD;
/// A longer path is not stored, bytes.
pub(super) const MAX_STORED_PATH: usize = 512;
/// A longer number is not stored, bytes of text.
pub(super) const MAX_STORED_NUMBER: usize = 64;

static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// The characters of a JSON number; each is written as its place in here.
const NIBBLES: &[u8; 15] = b"0123456789-+.eE";

fn nibble(c: u8) -> Option<u8> {
    NIBBLES.iter().position(|&n| n == c).map(|at| at as u8)
}

/// Whether a number's text can be written.
pub(super) fn number_fits(text: &str) -> bool {
    (1..=MAX_STORED_NUMBER).contains(&text.len()) && text.bytes().all(|c| nibble(c).is_some())
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Reads a payload from its front. After the first mistake everything is `None`.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let n = self.varint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn len(&mut self, limit: usize) -> Option<usize> {
        self.varint().and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= limit)
    }
}

/// Appends a frame whose payload `fill` writes.
pub(super) fn put_frame(out: &mut Vec<u8>, owner: u64, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0]);
    fill(out);
    let len = (out.len() - at - FRAME_HEAD) as u16;
    debug_assert!(usize::from(len) <= MAX_PAYLOAD);
    let payload = out.get(at + FRAME_HEAD..).unwrap_or(&[]);
    let crc = checksum(owner, kind, len, payload).to_le_bytes();
    for (place, byte) in out.iter_mut().skip(at + 1).zip(len.to_le_bytes().into_iter().chain(crc)) {
        *place = byte;
    }
}

fn checksum(owner: u64, kind: u8, len: u16, payload: &[u8]) -> u32 {
    let mut digest = CRC32C.digest();
    digest.update(&owner.to_le_bytes());
    digest.update(&[kind]);
    digest.update(&len.to_le_bytes());
    digest.update(payload);
    digest.finalize()
}

/// A frame that is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) payload: &'a [u8],
}

/// The frame at the front of `bytes`, if a whole one of this owner is there.
pub(super) fn frame(owner: u64, bytes: &[u8]) -> Option<Frame<'_>> {
    let (head, rest) = bytes.split_first_chunk::<FRAME_HEAD>()?;
    let [kind, l0, l1, c0, c1, c2, c3] = *head;
    if !matches!(kind, HEADER | VALUES | DONE | STATE | TOTALS) {
        return None;
    }
    let len = u16::from_le_bytes([l0, l1]);
    let payload = rest.get(..usize::from(len)).filter(|p| p.len() <= MAX_PAYLOAD)?;
    (checksum(owner, kind, len, payload) == u32::from_le_bytes([c0, c1, c2, c3]))
        .then_some(Frame { kind, payload })
}

/// Finds the whole frames in `bytes`, skipping what is none. Iterates over (offset, frame).
pub(super) struct Frames<'a> {
    owner: u64,
    bytes: &'a [u8],
    at: usize,
    /// Do not try from here on: the rest may be the beginning of a frame that goes on after `bytes`.
    until: usize,
    /// Bytes that were no frame.
    pub(super) bad_bytes: u64,
    /// Behind the last whole frame.
    pub(super) end: usize,
}

impl<'a> Frames<'a> {
    /// All of a file (`whole`), or a part that goes on.
    pub(super) fn new(owner: u64, bytes: &'a [u8], whole: bool) -> Self {
        let until = if whole { bytes.len() } else { bytes.len().saturating_sub(MAX_FRAME) };
        Frames { owner, bytes, at: 0, until, bad_bytes: 0, end: 0 }
    }

    /// Where the next part has to begin.
    pub(super) fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (usize, Frame<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.until {
            let at = self.at;
            if let Some(frame) = self.bytes.get(at..).and_then(|b| frame(self.owner, b)) {
                self.at += FRAME_HEAD + frame.payload.len();
                self.end = self.at;
                return Some((at, frame));
            }
            self.at += 1;
            self.bad_bytes += 1;
        }
        None
    }
}

/// A value as it is in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record<'a> {
    pub(super) sequence: u64,
    pub(super) handed_over_ms: u64,
    pub(super) time_ms: u64,
    pub(super) path: &'a str,
    pub(super) number: &'a str,
}

/// Makes frames of values.
pub(super) struct ValuesWriter<'a> {
    out: &'a mut Vec<u8>,
    owner: u64,
    /// The highest sequence number that a frame accounts for.
    covered: u64,
    first: u64,
    skipped: u64,
    count: u64,
    /// Values that were written before this frame.
    written: Option<u64>,
    body: Vec<u8>,
    path: String,
    handed_over_ms: u64,
    last: u64,
}

impl<'a> ValuesWriter<'a> {
    /// `written`: how many values were written before, if that is known.
    pub(super) fn new(out: &'a mut Vec<u8>, owner: u64, covered: u64, written: Option<u64>) -> Self {
        ValuesWriter {
            out,
            owner,
            covered,
            written,
            first: 0,
            skipped: 0,
            count: 0,
            body: Vec::new(),
            path: String::new(),
            handed_over_ms: 0,
            last: 0,
        }
    }

    /// Takes a value with a higher sequence number than the one before.
    pub(super) fn put(&mut self, record: &Record<'_>) {
        if self.count == 0 {
            self.first = record.sequence;
            self.skipped = record.sequence.saturating_sub(self.covered + 1);
            put_varint(&mut self.body, record.handed_over_ms);
            self.path.clear();
        } else {
            put_varint(&mut self.body, record.sequence.saturating_sub(self.last + 1));
            put_signed(&mut self.body, record.handed_over_ms.wrapping_sub(self.handed_over_ms) as i64);
        }
        put_signed(&mut self.body, record.time_ms.wrapping_sub(record.handed_over_ms) as i64);
        let shared = self.path.bytes().zip(record.path.bytes()).take_while(|(a, b)| a == b).count();
        let shared = (0..=shared).rev().find(|&n| record.path.is_char_boundary(n)).unwrap_or(0);
        put_varint(&mut self.body, shared as u64);
        let rest = record.path.get(shared..).unwrap_or("");
        put_varint(&mut self.body, rest.len() as u64);
        self.body.extend_from_slice(rest.as_bytes());
        put_varint(&mut self.body, record.number.len() as u64);
        for pair in record.number.as_bytes().chunks(2) {
            let of = |at: usize| pair.get(at).and_then(|&c| nibble(c)).unwrap_or(0xf);
            self.body.push(of(0) << 4 | of(1));
        }
        self.path.clear();
        self.path.push_str(record.path);
        (self.handed_over_ms, self.last) = (record.handed_over_ms, record.sequence);
        self.count += 1;
        if self.body.len() >= FULL_PAYLOAD {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.count == 0 {
            return;
        }
        let (first, skipped, count, body) = (self.first, self.skipped, self.count, &self.body);
        let written = self.written;
        put_frame(self.out, self.owner, VALUES, |out| {
            put_varint(out, first);
            put_varint(out, skipped);
            put_varint(out, count);
            out.extend_from_slice(body);
            written.into_iter().for_each(|n| put_varint(out, n));
        });
        self.written = written.map(|n| n + count);
        self.covered = self.last;
        self.count = 0;
        self.body.clear();
    }

    /// Bytes so far, with what is not closed.
    pub(super) fn len(&self) -> usize {
        self.out.len() + self.body.len() + if self.count > 0 { FRAME_HEAD + 20 } else { 0 }
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) {
        self.close();
    }
}

/// What a frame of values accounts for, without its values: the first sequence number that it covers (with those left
/// out on purpose), the first that is in it, and when that one was handed over, Unix ms.
pub(super) fn values_begin(payload: &[u8]) -> Option<(u64, u64, u64)> {
    let mut r = Reader(payload);
    let (first, skipped, _count) = (r.varint()?, r.varint()?, r.varint()?);
    Some((first.checked_sub(skipped)?, first, r.varint()?))
}

/// Reads a frame of values. `false` if it is not as written (of a later version, say): what was read until then counts.
pub(super) fn read_values(payload: &[u8], each: impl FnMut(Record<'_>)) -> bool {
    read_to_end(payload, each).is_some()
}

/// The same: how many values were written before the frame, if it says so.
pub(super) fn read_counted(payload: &[u8], each: impl FnMut(Record<'_>)) -> Option<u64> {
    read_to_end(payload, each).and_then(|mut rest| rest.varint())
}

fn read_to_end(payload: &[u8], mut each: impl FnMut(Record<'_>)) -> Option<Reader<'_>> {
    let mut r = Reader(payload);
    let mut path: Vec<u8> = Vec::new();
    let mut read = || {
        let (mut sequence, _skipped, count) = (r.varint()?, r.varint()?, r.varint()?);
        let mut handed_over_ms = 0u64;
        for i in 0..count {
            if i == 0 {
                handed_over_ms = r.varint()?;
            } else {
                sequence = sequence.checked_add(r.varint()?)?.checked_add(1)?;
                handed_over_ms = handed_over_ms.wrapping_add(r.signed()? as u64);
            }
            let time_ms = handed_over_ms.wrapping_add(r.signed()? as u64);
            let shared = r.len(path.len())?;
            let rest = r.len(MAX_STORED_PATH)?;
            path.truncate(shared);
            path.extend_from_slice(r.bytes(rest)?);
            let len = r.len(MAX_STORED_NUMBER)?;
            let mut number = [0; MAX_STORED_NUMBER];
            for (pair, &byte) in number.get_mut(..len)?.chunks_mut(2).zip(r.bytes(len.div_ceil(2))?) {
                for (c, half) in pair.iter_mut().zip([byte >> 4, byte & 0xf]) {
                    *c = *NIBBLES.get(usize::from(half))?;
                }
            }
            let path = std::str::from_utf8(&path).ok()?;
            let number = std::str::from_utf8(number.get(..len)?).ok()?;
            each(Record { sequence, handed_over_ms, time_ms, path, number });
        }
        Some(r)
    };
    read()
}

/// The first frame of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Sequence numbers in this segment are not below.
    pub(super) first: u64,
    /// All values with lower sequence numbers were done when the segment began.
    pub(super) front: u64,
    /// How often it was thinned.
    pub(super) level: u8,
    /// If it was thinned: bytes behind the header.
    pub(super) body: u64,
    /// How many values were written to files before this one, if that is known.
    pub(super) written: Option<u64>,
}

/// The layout that this code writes. A change of it gets a new number; readers skip numbers that they don't know.
const VERSION: u64 = 1;

pub(super) fn put_header(out: &mut Vec<u8>, owner: u64, header: Header) {
    put_frame(out, owner, HEADER, |out| {
        for n in [VERSION, header.first, header.front, u64::from(header.level), header.body] {
            put_varint(out, n);
        }
        header.written.into_iter().for_each(|n| put_varint(out, n));
    });
}

pub(super) fn read_header(payload: &[u8]) -> Option<Header> {
    let mut r = Reader(payload);
    (r.varint()? == VERSION).then_some(())?;
    let (first, front, level) = (r.varint()?, r.varint()?, u8::try_from(r.varint()?).ok()?);
    Some(Header { first, front, level, body: r.varint()?, written: r.varint() })
}

/// Appends frames that say which sequence numbers are done with.
pub(super) fn put_done(out: &mut Vec<u8>, owner: u64, ranges: impl Iterator<Item = (u64, u64)>) {
    let mut ranges = ranges.peekable();
    while ranges.peek().is_some() {
        put_frame(out, owner, DONE, |out| {
            let (from, mut last) = (out.len(), 0);
            while out.len() - from < FULL_PAYLOAD
                && let Some((a, b)) = ranges.next()
            {
                put_varint(out, a - last);
                put_varint(out, b - a);
                last = b;
            }
        });
    }
}

/// Reads first and last of each range.
pub(super) fn read_done(payload: &[u8], mut each: impl FnMut(u64, u64)) -> bool {
    let mut r = Reader(payload);
    let mut last = 0u64;
    while !r.0.is_empty() {
        let Some(a) = r.varint().and_then(|n| last.checked_add(n)) else { return false };
        let Some(b) = r.varint().and_then(|n| a.checked_add(n)) else { return false };
        each(a, b);
        last = b;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (u64, u64, u64, String, String);

    fn values() -> impl Strategy<Value = Vec<Owned>> {
        let one = (
            1..5u64,
            0..1u64 << 45,
            0..1u64 << 45,
            "[a-z.]{1,40}",
            "-?[0-9]{1,3}(\\.[0-9]{1,3})?(e-?[0-9]{1,2})?",
        );
        prop::collection::vec(one, 1..120).prop_map(|mut all| {
            let mut sequence = 0;
            for value in &mut all {
                sequence += value.0;
                value.0 = sequence;
            }
            all
        })
    }

    fn record(v: &Owned) -> Record<'_> {
        Record { sequence: v.0, handed_over_ms: v.1, time_ms: v.2, path: &v.3, number: &v.4 }
    }

    fn write(all: &[Owned]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = ValuesWriter::new(&mut out, 7, 0, Some(0));
        all.iter().for_each(|v| writer.put(&record(v)));
        writer.finish();
        out
    }

    fn read(owner: u64, bytes: &[u8]) -> Vec<Owned> {
        let mut out = Vec::new();
        for (_, frame) in Frames::new(owner, bytes, true) {
            assert!(read_values(frame.payload, |r| out.push((
                r.sequence,
                r.handed_over_ms,
                r.time_ms,
                r.path.to_owned(),
                r.number.to_owned()
            ))));
        }
        out
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again_and_only_by_its_owner(all in values()) {
            let bytes = write(&all);
            prop_assert_eq!(read(7, &bytes), all);
            prop_assert_eq!(read(8, &bytes), vec![]);
        }

        #[test]
        fn a_flipped_bit_costs_the_values_of_one_frame_and_no_value_is_changed(all in values(), at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = write(&all);
            let at = at.index(bytes.len());
            let hit = Frames::new(7, &bytes, true).take_while(|(from, _)| *from <= at).last().unwrap();
            let mut lost = Vec::new();
            read_values(hit.1.payload, |r| lost.push(r.sequence));
            bytes[at] ^= 1 << bit;
            let rest: Vec<Owned> = all.into_iter().filter(|v| !lost.contains(&v.0)).collect();
            prop_assert_eq!(read(7, &bytes), rest);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read_values(&bytes, |_| {});
            read_done(&bytes, |_, _| {});
            read_header(&bytes);
            values_begin(&bytes);
            prop_assert_eq!(Frames::new(0, &bytes, true).count(), 0);
        }

        #[test]
        fn done_ranges_are_read_again(steps in prop::collection::vec((1..1u64 << 40, 0..1u64 << 20), 0..300)) {
            let mut next = 0;
            let ranges: Vec<(u64, u64)> = steps.iter().map(|(gap, len)| {
                let (a, b) = (next + gap, next + gap + len);
                next = b;
                (a, b)
            }).collect();
            let mut out = Vec::new();
            put_done(&mut out, 3, ranges.iter().copied());
            let mut back = Vec::new();
            for (_, frame) in Frames::new(3, &out, true) {
                prop_assert!(frame.payload.len() <= MAX_PAYLOAD);
                prop_assert!(read_done(frame.payload, |a, b| back.push((a, b))));
            }
            prop_assert_eq!(back, ranges);
        }
    }

    #[test]
    fn the_longest_value_fits_a_frame() {
        let path = "p".repeat(MAX_STORED_PATH);
        let number = "1".repeat(MAX_STORED_NUMBER);
        let mut out = Vec::new();
        let mut writer = ValuesWriter::new(&mut out, u64::MAX, 0, Some(u64::MAX - 2));
        let short = "q".repeat(FULL_PAYLOAD - 40);
        for (sequence, path) in [(1 << 60, &short), (1 << 61, &path)] {
            writer.put(&Record { sequence, handed_over_ms: u64::MAX, time_ms: 0, path, number: &number });
        }
        writer.finish();
        let frames: Vec<_> = Frames::new(u64::MAX, &out, true).collect();
        assert!(frames.iter().all(|(_, f)| f.payload.len() <= MAX_PAYLOAD));
        let mut n = 0;
        assert!(frames.iter().all(|(_, f)| read_values(f.payload, |_| n += 1)));
        assert_eq!(n, 2);
    }

    #[test]
    fn a_value_of_a_usual_series_takes_about_twelve_bytes() {
        let mut out = Vec::new();
        let mut writer = ValuesWriter::new(&mut out, 7, 0, Some(0));
        for i in 0..1000u64 {
            let path = format!("ping.entity.{}.rtt.{}", 1000 + i / 4, i % 4);
            let number = format!("{}.{:03}", i % 90, i % 1000);
            let t = 1_700_000_000_000 + i * 3;
            writer.put(&Record {
                sequence: i + 1,
                handed_over_ms: t,
                time_ms: t - 5,
                path: &path,
                number: &number,
            });
        }
        writer.finish();
        assert!((8_000..14_000).contains(&out.len()), "{} bytes for 1000 values", out.len());
    }
}
