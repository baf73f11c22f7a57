//! The values of SNMP: the types of SMIv2 (RFC 2578), the exceptions of RFC 3416, and net-snmp's numbers in Opaque.

use crate::OidRef;
use crate::ber::{
    Back, DecodeError, DecodeErrorKind, Element, Full, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING,
    element_len, signed_bytes, unsigned_bytes,
};

const IP_ADDRESS: u8 = 0x40;
const COUNTER32: u8 = 0x41;
const UNSIGNED32: u8 = 0x42;
const TIME_TICKS: u8 = 0x43;
const OPAQUE: u8 = 0x44;
const COUNTER64: u8 = 0x46;
const UINTEGER32: u8 = 0x47;
const NO_SUCH_OBJECT: u8 = 0x80;
const NO_SUCH_INSTANCE: u8 = 0x81;
const END_OF_MIB_VIEW: u8 = 0x82;

/// A value as a datagram has it.
///
/// # What is read beyond the standards
///
/// - Numbers with superfluous leading bytes, as fixed-width encoders send them, as long as the value fits the type.
/// - Numbers without sign whose first bit is set, because the leading zero byte is missing: `C8` is 200, and
///   `FF FF FF FF` is 4,294,967,295. (net-snmp reads the latter likewise, but extends the sign of shorter ones.)
/// - Lengths of the long form where the short one would do.
/// - UInteger32 (tag 0x47, RFC 1442) as [`Value::Unsigned32`].
/// - Object identifiers of no bytes as 0.0.
///
/// A number of no bytes, an IpAddress of other than 4 bytes, a Null with content, and every number out of its type's
/// range are errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    /// INTEGER, Integer32, and enumerations.
    Integer(i32),
    /// OCTET STRING: texts and binary data, such as addresses.
    OctetString(&'a [u8]),
    /// No value: stands in requests.
    Null,
    /// OBJECT IDENTIFIER.
    ObjectIdentifier(OidRef<'a>),
    /// An IPv4 address.
    IpAddress([u8; 4]),
    /// A counter that wraps at 2³².
    Counter32(u32),
    /// Unsigned32 and Gauge32, which are one type.
    Unsigned32(u32),
    /// Hundredths of a second.
    TimeTicks(u32),
    /// Any BER in an octet string; see [`Value::opaque_number`].
    Opaque(&'a [u8]),
    /// A counter that wraps at 2⁶⁴; not in SNMPv1.
    Counter64(u64),
    /// The agent has no such object; not in SNMPv1.
    NoSuchObject,
    /// The agent has the object, but not this instance; not in SNMPv1.
    NoSuchInstance,
    /// Nothing comes after the identifier asked for; not in SNMPv1.
    EndOfMibView,
}

/// A number which net-snmp's agents put into Opaque, as SMI has no such type (draft-perkins-opaque-01).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum OpaqueNumber {
    /// IEEE 754 with 32 bits, such as UCD-SNMP-MIB's laLoadFloat.
    Float(f32),
    /// IEEE 754 with 64 bits.
    Double(f64),
    /// A signed integer.
    Int64(i64),
    /// An integer without sign.
    Unsigned64(u64),
    /// A counter that wraps at 2⁶⁴.
    Counter64(u64),
}

impl<'a> Value<'a> {
    /// Whether it is one of the three exceptions that stand for a missing value.
    pub const fn is_exception(&self) -> bool {
        matches!(self, Self::NoSuchObject | Self::NoSuchInstance | Self::EndOfMibView)
    }

    /// The number in an [`Value::Opaque`]; none if it holds something else.
    pub fn opaque_number(&self) -> Option<OpaqueNumber> {
        let Self::Opaque(bytes) = self else { return None };
        // A context tag in the long form, then one of net-snmp's types, then a short length.
        let [0x9f, kind, length, content @ ..] = bytes else { return None };
        if usize::from(*length) != content.len() {
            return None;
        }
        let unsigned = || eight_bytes(content, 0).map(u64::from_be_bytes);
        match kind {
            0x76 => unsigned().map(OpaqueNumber::Counter64),
            0x78 => Some(OpaqueNumber::Float(f32::from_be_bytes(content.try_into().ok()?))),
            0x79 => Some(OpaqueNumber::Double(f64::from_be_bytes(content.try_into().ok()?))),
            0x7a => {
                let sign = if content.first()? & 0x80 == 0 { 0 } else { 0xff };
                eight_bytes(content, sign).map(|bytes| OpaqueNumber::Int64(i64::from_be_bytes(bytes)))
            }
            0x7b => unsigned().map(OpaqueNumber::Unsigned64),
            _ => None,
        }
    }

    /// Whether SNMPv1 has its type.
    pub(crate) const fn is_in_v1(&self) -> bool {
        !self.is_exception() && !matches!(self, Self::Counter64(_))
    }

    pub(crate) fn read(element: &Element<'a>) -> Result<Self, DecodeError> {
        let narrow = || element.unsigned(u32::MAX.into()).map(|value| value as u32);
        let empty = |value| element.empty().map(|()| value);
        match element.tag {
            INTEGER => element.signed().map(Self::Integer),
            OCTET_STRING => Ok(Self::OctetString(element.content)),
            NULL => empty(Self::Null),
            OBJECT_IDENTIFIER => read_oid(element).map(Self::ObjectIdentifier),
            IP_ADDRESS => element.array().map(Self::IpAddress),
            COUNTER32 => narrow().map(Self::Counter32),
            UNSIGNED32 | UINTEGER32 => narrow().map(Self::Unsigned32),
            TIME_TICKS => narrow().map(Self::TimeTicks),
            OPAQUE => Ok(Self::Opaque(element.content)),
            COUNTER64 => element.unsigned(u64::MAX).map(Self::Counter64),
            NO_SUCH_OBJECT => empty(Self::NoSuchObject),
            NO_SUCH_INSTANCE => empty(Self::NoSuchInstance),
            END_OF_MIB_VIEW => empty(Self::EndOfMibView),
            tag => Err(element.error(DecodeErrorKind::ValueTag { tag })),
        }
    }

    /// The bytes of its encoding with tag and length.
    pub(crate) fn encoded_len(&self) -> usize {
        element_len(match self {
            Self::Integer(value) => signed_bytes(*value).1,
            Self::OctetString(bytes) | Self::Opaque(bytes) => bytes.len(),
            Self::Null | Self::NoSuchObject | Self::NoSuchInstance | Self::EndOfMibView => 0,
            Self::ObjectIdentifier(oid) => oid.as_ber().len(),
            Self::IpAddress(address) => address.len(),
            Self::Counter32(value) | Self::Unsigned32(value) | Self::TimeTicks(value) => {
                unsigned_bytes((*value).into()).1
            }
            Self::Counter64(value) => unsigned_bytes(*value).1,
        })
    }

    pub(crate) fn write(&self, back: &mut Back<'_>) -> Result<(), Full> {
        match self {
            Self::Integer(value) => back.integer(*value),
            Self::OctetString(bytes) => back.element(OCTET_STRING, bytes),
            Self::Null => back.element(NULL, &[]),
            Self::ObjectIdentifier(oid) => back.element(OBJECT_IDENTIFIER, oid.as_ber()),
            Self::IpAddress(address) => back.element(IP_ADDRESS, address),
            Self::Counter32(value) => back.unsigned(COUNTER32, (*value).into()),
            Self::Unsigned32(value) => back.unsigned(UNSIGNED32, (*value).into()),
            Self::TimeTicks(value) => back.unsigned(TIME_TICKS, (*value).into()),
            Self::Opaque(bytes) => back.element(OPAQUE, bytes),
            Self::Counter64(value) => back.unsigned(COUNTER64, *value),
            Self::NoSuchObject => back.element(NO_SUCH_OBJECT, &[]),
            Self::NoSuchInstance => back.element(NO_SUCH_INSTANCE, &[]),
            Self::EndOfMibView => back.element(END_OF_MIB_VIEW, &[]),
        }
    }
}

/// A number of 1 to 8 bytes, or with one more byte of `fill` before them, filled up to 8.
fn eight_bytes(content: &[u8], fill: u8) -> Option<[u8; 8]> {
    let content = match content {
        [] => return None,
        [first, low @ ..] if *first == fill && low.len() == 8 => low,
        content => content,
    };
    let mut bytes = [fill; 8];
    bytes.get_mut(8_usize.checked_sub(content.len())?..)?.copy_from_slice(content);
    Some(bytes)
}

pub(crate) fn read_oid<'a>(element: &Element<'a>) -> Result<OidRef<'a>, DecodeError> {
    OidRef::from_ber(element.content).map_err(|error| element.error(DecodeErrorKind::Oid(error)))
}
