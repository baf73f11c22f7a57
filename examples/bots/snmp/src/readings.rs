//! What was read, packed one behind the other, until the sensors that want it are evaluated.

use grafolean_core::time::Millis;
use grafolean_snmp_codec::{ErrorStatus, Oid, OidRef, Value};

use crate::memory::{Bytes, Full};
use crate::poll::{Name, ReadFault, Wanted, When};

/// Longer texts are cut: a path has no room for more, and no number is as long.
const MAX_TEXT: usize = 255;
/// Position, kind, whether there is sysUpTime, sysUpTime, time, length.
const HEAD: usize = 2 + 1 + 1 + 4 + 8 + 1;

/// What was read for a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample<'v> {
    pub(crate) read: Result<Value<'v>, ReadFault>,
    pub(crate) when: When,
}

/// Samples by the positions of their names.
#[derive(Default)]
pub(crate) struct Readings<B> {
    bytes: B,
    /// Something had no room.
    pub(crate) overflowed: bool,
}

mod kind {
    pub(super) const FAULT: u8 = 0;
    pub(super) const INTEGER: u8 = 1;
    pub(super) const TEXT: u8 = 2;
    pub(super) const NULL: u8 = 3;
    pub(super) const OID: u8 = 4;
    pub(super) const IP: u8 = 5;
    pub(super) const COUNTER32: u8 = 6;
    pub(super) const UNSIGNED: u8 = 7;
    pub(super) const TICKS: u8 = 8;
    pub(super) const OPAQUE: u8 = 9;
    pub(super) const COUNTER64: u8 = 10;
}

impl<B: Bytes> Readings<B> {
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(0);
        self.overflowed = false;
    }

    pub(crate) fn push(&mut self, at: usize, when: When, read: Result<Value<'_>, ReadFault>) {
        let mut number = [0; 8];
        let mut of = |kind, bytes: &[u8]| {
            for (to, from) in number.iter_mut().zip(bytes) {
                *to = *from;
            }
            (kind, bytes.len())
        };
        let (kind, len) = match read {
            Err(fault) => {
                let (code, status) = match fault {
                    ReadFault::Absent => (0, 0),
                    ReadFault::Refused(status) => (1, status.code()),
                    ReadFault::TooBig => (2, 0),
                    ReadFault::LongName => (3, 0),
                    ReadFault::OtherName | ReadFault::Unreadable(_) => (4, 0),
                };
                let [a, b, c, d] = i32::to_le_bytes(status);
                of(kind::FAULT, &[code, a, b, c, d])
            }
            Ok(value) => match value {
                Value::Integer(n) => of(kind::INTEGER, &n.to_le_bytes()),
                Value::Counter32(n) => of(kind::COUNTER32, &n.to_le_bytes()),
                Value::Unsigned32(n) => of(kind::UNSIGNED, &n.to_le_bytes()),
                Value::TimeTicks(n) => of(kind::TICKS, &n.to_le_bytes()),
                Value::Counter64(n) => of(kind::COUNTER64, &n.to_le_bytes()),
                Value::IpAddress(ip) => of(kind::IP, &ip),
                Value::OctetString(text) => return self.put(at, when, kind::TEXT, text),
                Value::Opaque(bytes) => return self.put(at, when, kind::OPAQUE, bytes),
                Value::ObjectIdentifier(oid) if oid.as_ber().len() <= MAX_TEXT => {
                    return self.put(at, when, kind::OID, oid.as_ber());
                }
                // Exceptions are faults by now.
                _ => of(kind::NULL, &[]),
            },
        };
        self.put(at, when, kind, number.get(..len).unwrap_or_default());
    }

    fn put(&mut self, at: usize, when: When, kind: u8, bytes: &[u8]) {
        let bytes = bytes.get(..MAX_TEXT).unwrap_or(bytes);
        let mut head = [0; HEAD];
        let [at_low, at_high] = (at as u16).to_le_bytes();
        let fields = [at_low, at_high, kind, u8::from(when.uptime_cs.is_some())].into_iter();
        let times = when.uptime_cs.unwrap_or(0).to_le_bytes().into_iter().chain(when.now.0.to_le_bytes());
        for (to, from) in head.iter_mut().zip(fields.chain(times).chain([bytes.len() as u8])) {
            *to = from;
        }
        let before = self.bytes.as_slice().len();
        if self.bytes.append(&head).and_then(|()| self.bytes.append(bytes)).is_err() {
            self.bytes.truncate(before);
            self.overflowed = true;
        }
    }

    /// What was read for the name at this position; `None` if it had no room.
    pub(crate) fn get(&self, at: usize) -> Option<Sample<'_>> {
        let mut rest = self.bytes.as_slice();
        loop {
            let (head, after) = rest.split_first_chunk::<HEAD>()?;
            let [at_low, at_high, kind, has_uptime, u0, u1, u2, u3, time @ .., len] = *head;
            let (bytes, after) = after.split_at_checked(usize::from(len))?;
            rest = after;
            if usize::from(u16::from_le_bytes([at_low, at_high])) != at {
                continue;
            }
            let when = When {
                uptime_cs: (has_uptime != 0).then_some(u32::from_le_bytes([u0, u1, u2, u3])),
                now: Millis(u64::from_le_bytes(time)),
            };
            return Some(Sample { read: read(kind, bytes), when });
        }
    }
}

fn read(kind: u8, bytes: &[u8]) -> Result<Value<'_>, ReadFault> {
    let four = || bytes.first_chunk::<4>().copied().unwrap_or_default();
    let eight = || bytes.first_chunk::<8>().copied().unwrap_or_default();
    Ok(match kind {
        kind::INTEGER => Value::Integer(i32::from_le_bytes(four())),
        kind::TEXT => Value::OctetString(bytes),
        kind::OID => OidRef::from_ber(bytes).map_or(Value::Null, Value::ObjectIdentifier),
        kind::IP => Value::IpAddress(four()),
        kind::COUNTER32 => Value::Counter32(u32::from_le_bytes(four())),
        kind::UNSIGNED => Value::Unsigned32(u32::from_le_bytes(four())),
        kind::TICKS => Value::TimeTicks(u32::from_le_bytes(four())),
        kind::OPAQUE => Value::Opaque(bytes),
        kind::COUNTER64 => Value::Counter64(u64::from_le_bytes(eight())),
        kind::NULL => Value::Null,
        _ => {
            let [code, a, b, c, d, ..] = eight_from(bytes);
            return Err(match code {
                1 => ReadFault::Refused(ErrorStatus::from_code(i32::from_le_bytes([a, b, c, d]))),
                2 => ReadFault::TooBig,
                3 => ReadFault::LongName,
                4 => ReadFault::OtherName,
                _ => ReadFault::Absent,
            });
        }
    })
}

fn eight_from(bytes: &[u8]) -> [u8; 8] {
    let mut all = [0; 8];
    for (to, from) in all.iter_mut().zip(bytes) {
        *to = *from;
    }
    all
}

/// Names that are each read once, however many sensors want them.
#[derive(Default)]
pub(crate) struct Gets<B> {
    /// Each: its length, and its BER.
    names: B,
    count: usize,
    pub(crate) read: Readings<B>,
}

impl<B: Bytes> Gets<B> {
    pub(crate) fn clear(&mut self) {
        self.names.truncate(0);
        self.count = 0;
        self.read.clear();
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of `names`, or none.
    pub(crate) fn add(&mut self, names: impl Iterator<Item = Oid>) -> Result<(), Full> {
        let (len, count) = (self.names.as_slice().len(), self.count);
        for name in names {
            if self.position(&name).is_some() {
                continue;
            }
            let ber = name.as_ber();
            let put = self.names.append(&[ber.len() as u8]).and_then(|()| self.names.append(ber));
            // What it will read needs room as well: a number at least.
            let room = (self.count + 1) * (HEAD + 8) <= B::LIMIT && self.count < usize::from(u16::MAX);
            if put.is_err() || !room {
                self.names.truncate(len);
                self.count = count;
                return Err(Full);
            }
            self.count += 1;
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.names.as_slice();
        core::iter::from_fn(move || {
            let (len, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(*len))?;
            rest = after;
            Some(name)
        })
    }

    fn position(&self, name: &Oid) -> Option<usize> {
        self.names().position(|ber| ber == name.as_ber())
    }

    /// What was read for `name`; `None` if it had no room.
    pub(crate) fn sample(&self, name: &Oid) -> Option<Sample<'_>> {
        self.read.get(self.position(name)?)
    }
}

impl<B: Bytes> Wanted for Gets<B> {
    fn count(&self) -> usize {
        self.count
    }

    fn name(&self, at: usize) -> Option<Name> {
        Name::try_from(OidRef::from_ber(self.names().nth(at)?).ok()?).ok()
    }

    fn take(&mut self, at: usize, when: When, read: Result<Value<'_>, ReadFault>) {
        self.read.push(at, when, read);
    }
}

/// The instances of columns in some rows of a walk: row by row, column by column.
pub(crate) struct Cells<'r, I, B> {
    /// The rows' names, from the first one on.
    pub(crate) rows: I,
    /// What was walked.
    pub(crate) walked: &'r Name,
    pub(crate) columns: &'r [Oid],
    pub(crate) count: usize,
    pub(crate) read: &'r mut Readings<B>,
}

impl<'n, I: Iterator<Item = OidRef<'n>> + Clone, B: Bytes> Wanted for Cells<'_, I, B> {
    fn count(&self) -> usize {
        self.count * self.columns.len()
    }

    fn name(&self, at: usize) -> Option<Name> {
        let row = self.rows.clone().nth(at.checked_div(self.columns.len())?)?;
        let column = self.columns.get(at % self.columns.len())?;
        let mut name = Name::try_from(column.as_oid_ref()).ok()?;
        row.suffix_of(self.walked)?.try_for_each(|arc| name.push(arc)).ok()?;
        Some(name)
    }

    fn take(&mut self, at: usize, when: When, read: Result<Value<'_>, ReadFault>) {
        self.read.push(at, when, read);
    }
}
