//! The BER (X.690) that SNMP uses: single-byte tags, definite lengths; reading with offsets, writing from the back.

use core::fmt;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// Why bytes are no SNMP message that this crate reads, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    offset: usize,
    kind: DecodeErrorKind,
}

impl DecodeError {
    pub(crate) const fn new(offset: usize, kind: DecodeErrorKind) -> Self {
        Self { offset, kind }
    }

    /// The byte of the datagram, counted from 0, at which the faulty element begins.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong.
    pub const fn kind(&self) -> &DecodeErrorKind {
        &self.kind
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.kind)
    }
}

impl core::error::Error for DecodeError {}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end before the element's tag and length do.
    Truncated,
    /// An element is longer than what is left of the one around it, or of the datagram.
    BeyondEnd {
        /// The length it declares, in bytes.
        length_bytes: usize,
        /// The bytes that are left.
        available_bytes: usize,
    },
    /// The indefinite form of a length, which SNMP forbids, or one of more than 4 bytes.
    Length,
    /// Another element than the message's structure asks for.
    Tag {
        /// The tag which belongs here.
        expected: u8,
        /// The tag found.
        found: u8,
    },
    /// Bytes after the last element.
    TrailingBytes {
        /// Their number.
        bytes: usize,
    },
    /// A number that does not fit its type.
    IntegerRange,
    /// A value with a length that its type cannot have.
    ValueLength {
        /// The value's tag.
        tag: u8,
        /// Its length in bytes.
        length_bytes: usize,
    },
    /// A value of a type that SNMPv2's structure of management information does not have.
    ValueTag {
        /// Its tag.
        tag: u8,
    },
    /// An object identifier that is none.
    Oid(crate::OidError),
    /// Another version of the protocol.
    Version {
        /// The number found: 0 is v1, 1 is v2c, 3 is v3.
        found: i32,
    },
    /// A PDU which is none of SNMPv2's, such as the trap of version 1.
    PduTag {
        /// Its tag.
        tag: u8,
    },
    /// A field of SNMPv3's header with a value that it cannot have.
    Field {
        /// The field's name in RFC 3412 or 3414.
        name: &'static str,
    },
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the message ends within an element's tag or length"),
            Self::BeyondEnd { length_bytes, available_bytes } => {
                write!(f, "an element of {length_bytes} bytes where only {available_bytes} are left")
            }
            Self::Length => write!(f, "a length of the indefinite form or of more than 4 bytes"),
            Self::Tag { expected, found } => write!(f, "tag {found:#04x} where {expected:#04x} belongs"),
            Self::TrailingBytes { bytes } => write!(f, "{bytes} bytes too many at the end"),
            Self::IntegerRange => write!(f, "a number that does not fit its type"),
            Self::ValueLength { tag, length_bytes } => {
                write!(f, "a value with tag {tag:#04x} cannot have {length_bytes} bytes")
            }
            Self::ValueTag { tag } => write!(f, "tag {tag:#04x} is no type of value"),
            Self::Oid(error) => write!(f, "{error}"),
            Self::Version { found } => write!(f, "version number {found} where another belongs"),
            Self::PduTag { tag } => write!(f, "tag {tag:#04x} is no PDU of SNMPv2"),
            Self::Field { name } => write!(f, "{name} has a value that it cannot have"),
        }
    }
}

/// One element: its tag, its content, and where in the datagram it begins.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    /// Where its tag is.
    pub(crate) offset: usize,
    pub(crate) content: &'a [u8],
    /// Where its content begins.
    pub(crate) content_offset: usize,
}

impl<'a> Element<'a> {
    pub(crate) fn reader(&self) -> Reader<'a> {
        Reader { rest: self.content, offset: self.content_offset }
    }

    pub(crate) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(self.offset, kind)
    }

    fn bad_length(&self) -> DecodeError {
        self.error(DecodeErrorKind::ValueLength { tag: self.tag, length_bytes: self.content.len() })
    }

    /// Two's complement of any length of at least one byte whose value fits.
    pub(crate) fn signed(&self) -> Result<i32, DecodeError> {
        let [first, ..] = self.content else { return Err(self.bad_length()) };
        let sign = if first & 0x80 == 0 { 0 } else { 0xff };
        let (fill, low) = self.content.split_at(self.content.len().saturating_sub(4));
        let value = low.iter().fold(i32::from(sign as i8), |value, byte| value << 8 | i32::from(*byte));
        if fill.iter().any(|byte| *byte != sign) || (value < 0) != (sign != 0) {
            return Err(self.error(DecodeErrorKind::IntegerRange));
        }
        Ok(value)
    }

    /// A number without sign, of any length of at least one byte whose value is at most `max`.
    pub(crate) fn unsigned(&self, max: u64) -> Result<u64, DecodeError> {
        if self.content.is_empty() {
            return Err(self.bad_length());
        }
        let (fill, low) = self.content.split_at(self.content.len().saturating_sub(8));
        let value = low.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        if fill.iter().any(|byte| *byte != 0) || value > max {
            return Err(self.error(DecodeErrorKind::IntegerRange));
        }
        Ok(value)
    }

    pub(crate) fn empty(&self) -> Result<(), DecodeError> {
        if self.content.is_empty() { Ok(()) } else { Err(self.bad_length()) }
    }

    pub(crate) fn array<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        self.content.try_into().map_err(|_| self.bad_length())
    }
}

/// Reads elements one after another; each is checked against what is left of its parent.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// For bytes which begin at `offset` of the datagram.
    #[cfg(feature = "v3")]
    pub(crate) const fn at(bytes: &'a [u8], offset: usize) -> Self {
        Self { rest: bytes, offset }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn element(&mut self) -> Result<Element<'a>, DecodeError> {
        let error = |kind| Err(DecodeError::new(self.offset, kind));
        let [tag, first, after @ ..] = self.rest else { return error(DecodeErrorKind::Truncated) };
        let (length_bytes, after) = if *first < 0x80 {
            (usize::from(*first), after)
        } else {
            let digits = usize::from(*first & 0x7f);
            if digits == 0 || digits > 4 {
                return error(DecodeErrorKind::Length);
            }
            let Some((length, after)) = after.split_at_checked(digits) else {
                return error(DecodeErrorKind::Truncated);
            };
            let length = length.iter().fold(0_u32, |length, byte| length << 8 | u32::from(*byte));
            // Longer than any slice where `usize` is too small for it.
            (usize::try_from(length).unwrap_or(usize::MAX), after)
        };
        let Some((content, rest)) = after.split_at_checked(length_bytes) else {
            return error(DecodeErrorKind::BeyondEnd { length_bytes, available_bytes: after.len() });
        };
        let offset = self.offset;
        let content_offset = offset + (self.rest.len() - after.len());
        self.rest = rest;
        self.offset = content_offset + length_bytes;
        Ok(Element { tag: *tag, offset, content, content_offset })
    }

    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, DecodeError> {
        let element = self.element()?;
        if element.tag != tag {
            return Err(element.error(DecodeErrorKind::Tag { expected: tag, found: element.tag }));
        }
        Ok(element)
    }

    pub(crate) fn integer(&mut self) -> Result<i32, DecodeError> {
        self.expect(INTEGER)?.signed()
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::new(self.offset, DecodeErrorKind::TrailingBytes { bytes: self.rest.len() }))
    }
}

/// The bytes of tag and length before a content of `length` bytes.
pub(crate) const fn header_len(length: usize) -> usize {
    match length {
        0..=0x7f => 2,
        0x80..=0xff => 3,
        _ => 4,
    }
}

/// The bytes of an element with a content of `length` bytes, which must be at most [`MAX_LEN`].
pub(crate) const fn element_len(length: usize) -> usize {
    header_len(length) + length
}

/// More than a UDP datagram can hold; lengths so take at most two bytes.
pub(crate) const MAX_LEN: usize = u16::MAX as usize;

/// The shortest two's complement of a number: the array's last bytes, and how many.
pub(crate) const fn signed_bytes(value: i32) -> ([u8; 4], usize) {
    // The bits which are not copies of the sign, and one sign bit.
    let bits = 33 - (if value < 0 { !value } else { value }).leading_zeros();
    (value.to_be_bytes(), bits.div_ceil(8) as usize)
}

/// The shortest two's complement of a number without sign, likewise.
pub(crate) const fn unsigned_bytes(value: u64) -> ([u8; 9], usize) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    let bits = 65 - value.leading_zeros();
    ([0, a, b, c, d, e, f, g, h], bits.div_ceil(8) as usize)
}

/// No room is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full;

/// Writes elements from the end of a buffer to its beginning, so that their lengths are known when they are written.
pub(crate) struct Back<'b> {
    buffer: &'b mut [u8],
    at: usize,
}

impl<'b> Back<'b> {
    pub(crate) fn new(buffer: &'b mut [u8]) -> Self {
        let at = buffer.len();
        Self { buffer, at }
    }

    /// Where the last thing written begins.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let at = self.at.checked_sub(bytes.len()).ok_or(Full)?;
        self.buffer.get_mut(at..self.at).ok_or(Full)?.copy_from_slice(bytes);
        self.at = at;
        Ok(())
    }

    /// Tag and length before a content which ends at `end`.
    pub(crate) fn header(&mut self, tag: u8, end: usize) -> Result<(), Full> {
        let length = end.saturating_sub(self.at);
        let [high, low] = u16::try_from(length).map_err(|_| Full)?.to_be_bytes();
        match header_len(length) {
            2 => self.bytes(&[tag, low]),
            3 => self.bytes(&[tag, 0x81, low]),
            _ => self.bytes(&[tag, 0x82, high, low]),
        }
    }

    pub(crate) fn element(&mut self, tag: u8, content: &[u8]) -> Result<(), Full> {
        let end = self.at;
        self.bytes(content)?;
        self.header(tag, end)
    }

    pub(crate) fn integer(&mut self, value: i32) -> Result<(), Full> {
        let (bytes, length) = signed_bytes(value);
        self.element(INTEGER, bytes.get(4 - length..).unwrap_or_default())
    }

    pub(crate) fn unsigned(&mut self, tag: u8, value: u64) -> Result<(), Full> {
        let (bytes, length) = unsigned_bytes(value);
        self.element(tag, bytes.get(9 - length..).unwrap_or_default())
    }
}
