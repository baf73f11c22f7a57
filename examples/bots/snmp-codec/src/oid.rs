//! Object identifiers as they are in datagrams: [`OidRef`] borrows one, [`Oid`] keeps one in a fixed number of bytes.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::str::FromStr;

/// The most sub-identifiers an object identifier may have (RFC 2578, section 3.5).
pub const MAX_ARCS: usize = 128;

/// Why something is no object identifier that this crate can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OidError {
    /// Text with something else than decimal numbers joined by dots.
    Text {
        /// The byte of the text, counted from 0.
        offset: usize,
    },
    /// Fewer than two sub-identifiers: SNMP cannot send it.
    TooFewArcs,
    /// More than [`MAX_ARCS`] sub-identifiers.
    TooManyArcs,
    /// The first sub-identifier is above 2, or the second above 39 below 0 and 1, or above 4,294,967,215 below 2.
    Root,
    /// A sub-identifier above 4,294,967,295.
    ArcRange,
    /// The encoding ends within a sub-identifier.
    Unfinished,
    /// It takes more bytes than the [`Oid`] has.
    TooLong {
        /// Its room, in bytes of the encoding.
        limit_bytes: usize,
    },
}

impl fmt::Display for OidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("object identifier: ")?;
        match self {
            Self::Text { offset } => write!(f, "at byte {offset}: not decimal numbers joined by dots"),
            Self::TooFewArcs => write!(f, "fewer than two numbers"),
            Self::TooManyArcs => write!(f, "more than {MAX_ARCS} numbers"),
            Self::Root => write!(f, "its first number is at most 2, the second below 0 and 1 at most 39"),
            Self::ArcRange => write!(f, "a number above {}", u32::MAX),
            Self::Unfinished => write!(f, "it ends within a number"),
            Self::TooLong { limit_bytes } => write!(f, "longer than {limit_bytes} bytes"),
        }
    }
}

impl core::error::Error for OidError {}

/// What is added to the second sub-identifier below 2.
const JOINT_ISO: u32 = 80;
/// The largest second sub-identifier below 2.
const MAX_JOINT_ISO: u32 = u32::MAX - JOINT_ISO;

/// An object identifier within a datagram, checked when it was read.
///
/// It compares by its numbers, as tables are ordered. Every method takes time linear in the length.
#[derive(Clone, Copy)]
pub struct OidRef<'a> {
    /// Valid BER, at least one byte.
    bytes: &'a [u8],
}

impl<'a> OidRef<'a> {
    /// Takes the content of a BER object identifier, without tag and length.
    ///
    /// Superfluous leading 0x80 bytes of a number are accepted, and no bytes at all are 0.0: agents send it as the
    /// "null" identifier (net-snmp reads it the same way).
    ///
    /// # Errors
    ///
    /// [`OidError::Unfinished`], [`OidError::ArcRange`], [`OidError::TooManyArcs`].
    pub fn from_ber(bytes: &'a [u8]) -> Result<Self, OidError> {
        if bytes.is_empty() {
            return Ok(Self { bytes: &[0] });
        }
        let mut arcs = 1;
        let mut arc = 0_u32;
        let mut inside = false;
        for byte in bytes {
            if arc >> 25 != 0 {
                return Err(OidError::ArcRange);
            }
            arc = arc << 7 | u32::from(byte & 0x7f);
            inside = byte & 0x80 != 0;
            if !inside {
                arc = 0;
                arcs += 1;
                if arcs > MAX_ARCS {
                    return Err(OidError::TooManyArcs);
                }
            }
        }
        if inside { Err(OidError::Unfinished) } else { Ok(Self { bytes }) }
    }

    /// The content of its BER encoding: what came in the datagram, or the shortest encoding if it is from an [`Oid`].
    pub const fn as_ber(self) -> &'a [u8] {
        self.bytes
    }

    /// Its sub-identifiers, at least two.
    pub const fn arcs(self) -> Arcs<'a> {
        Arcs { rest: self.bytes, place: Place::First }
    }

    /// Whether it lies below `base` or is the same.
    pub fn starts_with<'b>(self, base: impl Into<OidRef<'b>>) -> bool {
        self.suffix_of(base).is_some()
    }

    /// The numbers behind `base`, such as a row's index behind its column; none if it does not lie below `base`.
    pub fn suffix_of<'b>(self, base: impl Into<OidRef<'b>>) -> Option<Arcs<'a>> {
        let mut arcs = self.arcs();
        for arc in base.into().arcs() {
            if arcs.next() != Some(arc) {
                return None;
            }
        }
        Some(arcs)
    }
}

impl PartialEq for OidRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.arcs().eq(other.arcs())
    }
}

impl Eq for OidRef<'_> {}

impl PartialOrd for OidRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OidRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.arcs().cmp(other.arcs())
    }
}

impl Hash for OidRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.arcs().for_each(|arc| arc.hash(state));
    }
}

impl fmt::Display for OidRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, arc) in self.arcs().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write!(f, "{arc}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for OidRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The sub-identifiers of an object identifier, from left to right.
#[derive(Clone, Debug)]
pub struct Arcs<'a> {
    rest: &'a [u8],
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// Before the first.
    First,
    /// The first two share a number; the second is this.
    Second(u32),
    Later,
}

impl Iterator for Arcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if let Place::Second(arc) = self.place {
            self.place = Place::Later;
            return Some(arc);
        }
        let mut arc = 0_u32;
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            arc = arc << 7 | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        if let Place::First = self.place {
            let root = (arc / 40).min(2);
            self.place = Place::Second(arc - root * 40);
            arc = root;
        }
        Some(arc)
    }
}

/// An object identifier of its own, in `N` bytes: 40 numbers and more in the 64 of the default, as most are below 128.
///
/// ```
/// use grafolean_snmp_codec::Oid;
///
/// let column: Oid = ".1.3.6.1.2.1.2.2.1.10".parse()?;
/// let mut cell = column.clone();
/// cell.push(4_227_000)?;
/// assert_eq!(cell.suffix_of(&column).unwrap().collect::<Vec<_>>(), [4_227_000]);
/// assert!(cell > column && cell.starts_with(&column));
/// # Ok::<(), grafolean_snmp_codec::OidError>(())
/// ```
#[derive(Clone)]
pub struct Oid<const N: usize = 64> {
    len: u16,
    /// Valid BER of the shortest form, at least one byte.
    bytes: [u8; N],
}

impl<const N: usize> Oid<N> {
    /// Makes one of its numbers; in constants too.
    ///
    /// # Errors
    ///
    /// All but [`OidError::Text`] and [`OidError::Unfinished`].
    pub const fn from_arcs(arcs: &[u32]) -> Result<Self, OidError> {
        let [first, second, rest @ ..] = arcs else { return Err(OidError::TooFewArcs) };
        let mut oid = match Self::from_root(*first, *second) {
            Ok(oid) => oid,
            Err(error) => return Err(error),
        };
        if arcs.len() > MAX_ARCS {
            return Err(OidError::TooManyArcs);
        }
        let mut rest = rest;
        while let [arc, after @ ..] = rest {
            if let Err(error) = oid.append(*arc) {
                return Err(error);
            }
            rest = after;
        }
        Ok(oid)
    }

    const fn from_root(first: u32, second: u32) -> Result<Self, OidError> {
        let joint = match (first, second) {
            (0 | 1, 0..40) => first * 40 + second,
            (2, 0..=MAX_JOINT_ISO) => second + JOINT_ISO,
            _ => return Err(OidError::Root),
        };
        let mut oid = Self { len: 0, bytes: [0; N] };
        match oid.append(joint) {
            Ok(()) => Ok(oid),
            Err(error) => Err(error),
        }
    }

    const fn append(&mut self, arc: u32) -> Result<(), OidError> {
        let digits = (32 - arc.leading_zeros()).div_ceil(7);
        let mut digit = if digits == 0 { 1 } else { digits };
        let len = self.len as usize + digit as usize;
        if len > N || len > u16::MAX as usize {
            return Err(OidError::TooLong { limit_bytes: N });
        }
        let mut at = self.len as usize;
        while digit > 0 {
            digit -= 1;
            let more = if digit > 0 { 0x80 } else { 0 };
            self.bytes[at] = (arc >> (7 * digit)) as u8 & 0x7f | more;
            at += 1;
        }
        self.len = len as u16;
        Ok(())
    }

    /// Adds a number at the end.
    ///
    /// # Errors
    ///
    /// [`OidError::TooLong`] or [`OidError::TooManyArcs`]; it is then as it was.
    pub fn push(&mut self, arc: u32) -> Result<(), OidError> {
        if self.arcs().count() >= MAX_ARCS {
            return Err(OidError::TooManyArcs);
        }
        self.append(arc)
    }

    /// It, borrowed.
    pub fn as_oid_ref(&self) -> OidRef<'_> {
        OidRef { bytes: self.bytes.get(..usize::from(self.len)).unwrap_or_default() }
    }

    /// The content of its BER encoding, without tag and length.
    pub fn as_ber(&self) -> &[u8] {
        self.as_oid_ref().as_ber()
    }

    /// Its sub-identifiers, at least two.
    pub fn arcs(&self) -> Arcs<'_> {
        self.as_oid_ref().arcs()
    }

    /// Whether it lies below `base` or is the same.
    pub fn starts_with<'b>(&self, base: impl Into<OidRef<'b>>) -> bool {
        self.as_oid_ref().starts_with(base)
    }

    /// The numbers behind `base`; none if it does not lie below `base`.
    pub fn suffix_of<'b>(&self, base: impl Into<OidRef<'b>>) -> Option<Arcs<'_>> {
        self.as_oid_ref().suffix_of(base)
    }
}

impl<const N: usize> FromStr for Oid<N> {
    type Err = OidError;

    /// Reads decimal numbers joined by dots; one dot may lead.
    fn from_str(text: &str) -> Result<Self, OidError> {
        let digits = text.strip_prefix('.').unwrap_or(text);
        let mut offset = text.len() - digits.len();
        let mut root = None;
        let mut oid: Option<Self> = None;
        for (index, number) in digits.split('.').enumerate() {
            if let Some(bad) = number.bytes().position(|byte| !byte.is_ascii_digit()) {
                return Err(OidError::Text { offset: offset + bad });
            }
            if number.is_empty() {
                return Err(OidError::Text { offset });
            }
            // All digits: only its size can be wrong.
            let arc = number.parse().map_err(|_| OidError::ArcRange)?;
            match (&mut oid, root) {
                (Some(_), _) if index >= MAX_ARCS => return Err(OidError::TooManyArcs),
                (Some(oid), _) => oid.append(arc)?,
                (None, Some(root)) => oid = Some(Self::from_root(root, arc)?),
                (None, None) => root = Some(arc),
            }
            offset += number.len() + 1;
        }
        oid.ok_or(OidError::TooFewArcs)
    }
}

impl<const N: usize> TryFrom<OidRef<'_>> for Oid<N> {
    type Error = OidError;

    /// Copies it, in the shortest encoding.
    fn try_from(oid: OidRef<'_>) -> Result<Self, OidError> {
        let mut arcs = oid.arcs();
        let (Some(first), Some(second)) = (arcs.next(), arcs.next()) else {
            return Err(OidError::TooFewArcs);
        };
        let mut copy = Self::from_root(first, second)?;
        arcs.try_for_each(|arc| copy.append(arc))?;
        Ok(copy)
    }
}

impl<'a, const N: usize> From<&'a Oid<N>> for OidRef<'a> {
    fn from(oid: &'a Oid<N>) -> Self {
        oid.as_oid_ref()
    }
}

impl<const N: usize, const M: usize> PartialEq<Oid<M>> for Oid<N> {
    fn eq(&self, other: &Oid<M>) -> bool {
        // Both in the shortest form.
        self.as_ber() == other.as_ber()
    }
}

impl<const N: usize> Eq for Oid<N> {}

impl<const N: usize> PartialEq<OidRef<'_>> for Oid<N> {
    fn eq(&self, other: &OidRef<'_>) -> bool {
        self.as_oid_ref() == *other
    }
}

impl<const N: usize> PartialEq<Oid<N>> for OidRef<'_> {
    fn eq(&self, other: &Oid<N>) -> bool {
        *self == other.as_oid_ref()
    }
}

impl<const N: usize, const M: usize> PartialOrd<Oid<M>> for Oid<N> {
    fn partial_cmp(&self, other: &Oid<M>) -> Option<Ordering> {
        Some(self.as_oid_ref().cmp(&other.as_oid_ref()))
    }
}

impl<const N: usize> Ord for Oid<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_oid_ref().cmp(&other.as_oid_ref())
    }
}

impl<const N: usize> Hash for Oid<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_oid_ref().hash(state);
    }
}

impl<const N: usize> fmt::Display for Oid<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_oid_ref(), f)
    }
}

impl<const N: usize> fmt::Debug for Oid<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
