//! How a value is written to flash: one item of the queue, whose checksum the queue keeps.
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | version 1 in the upper four bits; 1: the time is Unix time, else monotonic time of its boot |
//! | 4 | record number, little-endian |
//! | 1-5 | boot number (LEB128) |
//! | 1-10 | account (LEB128) |
//! | 6 | time in ms, little-endian |
//! | 1-10 | time of the hand-over minus that time, in ms (zigzag, LEB128) |
//! | 1 | length of the path |
//! | | path, then number to the end |

use grafolean_core::values::{MAX_NUMBER_BYTES, MAX_PATH_BYTES};

/// The longest record, a multiple of the 32 bytes that are the largest word of any flash.
pub(super) const RECORD_BYTES: usize =
    (1 + 4 + 5 + 10 + 6 + 10 + 1 + MAX_PATH_BYTES + MAX_NUMBER_BYTES).next_multiple_of(32);

const VERSION: u8 = 0x10;
const VERSION_BITS: u8 = 0xf0;
const TIMED: u8 = 1;

/// A value as it is in flash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record<'a> {
    pub(super) number: u32,
    pub(super) boot: u32,
    pub(super) account: u64,
    /// The time is Unix time; else monotonic time of its boot.
    pub(super) timed: bool,
    pub(super) time_ms: u64,
    /// In the same time as `time_ms`.
    pub(super) handed_over_ms: u64,
    pub(super) path: &'a str,
    pub(super) digits: &'a str,
}

impl<'a> Record<'a> {
    /// Its length; `None` if it does not fit.
    pub(super) fn write(&self, buf: &mut [u8]) -> Option<usize> {
        let mut out = Writer { buf, at: 0 };
        out.bytes(&[VERSION | if self.timed { TIMED } else { 0 }])?;
        out.bytes(&self.number.to_le_bytes())?;
        out.leb(u64::from(self.boot))?;
        out.leb(self.account)?;
        out.bytes(self.time_ms.to_le_bytes().get(..6)?)?;
        let lag = self.handed_over_ms.wrapping_sub(self.time_ms) as i64;
        out.leb((lag << 1 ^ lag >> 63) as u64)?;
        out.bytes(&[u8::try_from(self.path.len()).ok()?])?;
        out.bytes(self.path.as_bytes())?;
        out.bytes(self.digits.as_bytes())?;
        Some(out.at)
    }

    /// `None` if this is no record of this version.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let [flags] = take(&mut rest)?;
        if flags & VERSION_BITS != VERSION {
            return None;
        }
        let number = u32::from_le_bytes(take(&mut rest)?);
        let boot = u32::try_from(leb(&mut rest)?).ok()?;
        let account = leb(&mut rest)?;
        let [a, b, c, d, e, f] = take(&mut rest)?;
        let time_ms = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let lag = leb(&mut rest)?;
        let lag = (lag >> 1) as i64 ^ -((lag & 1) as i64);
        let [path_len] = take(&mut rest)?;
        let (path, digits) = rest.split_at_checked(usize::from(path_len))?;
        Some(Record {
            number,
            boot,
            account,
            timed: flags & TIMED != 0,
            time_ms,
            handed_over_ms: time_ms.wrapping_add_signed(lag),
            path: core::str::from_utf8(path).ok()?,
            digits: core::str::from_utf8(digits).ok()?,
        })
    }
}

struct Writer<'b> {
    buf: &'b mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let to = self.at + bytes.len();
        self.buf.get_mut(self.at..to)?.copy_from_slice(bytes);
        self.at = to;
        Some(())
    }

    fn leb(&mut self, mut n: u64) -> Option<()> {
        while n >= 0x80 {
            self.bytes(&[n as u8 | 0x80])?;
            n >>= 7;
        }
        self.bytes(&[n as u8])
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, more) = rest.split_first_chunk::<N>()?;
    *rest = more;
    Some(*first)
}

fn leb(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn what_is_written_is_read_whatever_the_times() {
        for (time_ms, handed_over_ms) in
            [(0, 0), (1_700_000_000_000, 1_700_000_000_250), (9_000, 3), ((1 << 48) - 1, 0)]
        {
            for (account, timed) in [(0, false), (u64::MAX, true), (300, true)] {
                let path: String = "p".repeat(MAX_PATH_BYTES);
                let record = Record {
                    number: u32::MAX,
                    boot: u32::MAX,
                    account,
                    timed,
                    time_ms,
                    handed_over_ms,
                    path: &path,
                    digits: "-1.7976931348623157e308",
                };
                let mut buf = [0; RECORD_BYTES];
                let len = record.write(&mut buf).unwrap();
                assert_eq!(Record::read(&buf[..len]), Some(record));
                assert!((0..len).all(|cut| Record::read(&buf[..cut]).is_none_or(|r| r != record)));
            }
        }
    }

    #[test]
    fn a_usual_record_takes_15_bytes_besides_its_text() {
        let record = Record {
            number: 1,
            boot: 1,
            account: 7,
            timed: true,
            time_ms: 1_700_000_000_000,
            handed_over_ms: 1_700_000_000_000,
            path: "board.temperature",
            digits: "21.5",
        };
        let len = record.write(&mut [0; RECORD_BYTES]).unwrap();
        assert_eq!(len - "board.temperature21.5".len(), 15);
    }
}
