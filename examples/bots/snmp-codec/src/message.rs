//! Messages of SNMPv1 and SNMPv2c (RFC 1157, RFC 1901) in datagrams, and the numbers by which answers are matched.

use core::fmt;

use crate::Pdu;
use crate::ber::{DecodeError, DecodeErrorKind, OCTET_STRING, Reader, SEQUENCE};

/// The versions with a community string. The third has a type of its own for each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// SNMPv1: no bulk requests, no 64-bit counters, and one missing variable fails a whole request.
    V1,
    /// SNMPv2c.
    V2c,
}

impl Version {
    pub(crate) const fn number(self) -> i32 {
        match self {
            Self::V1 => 0,
            Self::V2c => 1,
        }
    }
}

/// The version number of SNMPv3 messages.
pub(crate) const VERSION_3: i32 = 3;

/// A community string: a secret, which is never displayed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Community<'a>(&'a [u8]);

impl<'a> Community<'a> {
    /// Its bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Community<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Community(hidden)")
    }
}

/// A message of SNMPv1 or SNMPv2c.
///
/// ```
/// use grafolean_snmp_codec::{ErrorStatus, Message, MessageWriter, Oid, PduHeader, Value, Version};
///
/// let oid: Oid = "1.3.6.1.2.1.1.3.0".parse()?;
/// let mut buffer = [0; 1472];
/// let header = PduHeader::response(7, ErrorStatus::NoError, 0);
/// let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"public", header)?;
/// writer.push(&oid, Value::TimeTicks(4242))?;
/// let datagram = writer.finish()?;
///
/// let message = Message::decode(datagram)?;
/// assert_eq!(message.pdu.header, header);
/// let first = message.pdu.var_binds.into_iter().next().unwrap()?;
/// assert_eq!((first.oid, first.value), (oid.as_oid_ref(), Value::TimeTicks(4242)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// Its version.
    pub version: Version,
    /// Its community string.
    pub community: Community<'a>,
    /// What it says.
    pub pdu: Pdu<'a>,
}

impl<'a> Message<'a> {
    /// Reads the message that a datagram begins with: agents do send padding behind it. The variables are read when they are
    /// iterated.
    ///
    /// # Errors
    ///
    /// What is wrong and at which byte; [`DecodeErrorKind::Version`] for SNMPv3.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new(datagram).expect(SEQUENCE)?.reader();
        let number = fields.expect(crate::ber::INTEGER)?;
        let version = match number.signed()? {
            0 => Version::V1,
            1 => Version::V2c,
            found => return Err(number.error(DecodeErrorKind::Version { found })),
        };
        let community = Community(fields.expect(OCTET_STRING)?.content);
        let pdu = Pdu::read(&mut fields)?;
        fields.end()?;
        Ok(Self { version, community, pdu })
    }
}

/// The number by which an answer is matched with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestTag {
    /// The request-id of a PDU of SNMPv1 or SNMPv2c.
    RequestId(i32),
    /// The msgID of a message of SNMPv3, whose PDU may be encrypted.
    MessageId(i32),
}

/// Reads no more of a datagram than the number by which it is matched; none if it has none where it belongs.
///
/// The rest may be broken, and nothing is verified: decoding comes later.
pub fn request_tag(datagram: &[u8]) -> Option<RequestTag> {
    let mut fields = Reader::new(datagram).expect(SEQUENCE).ok()?.reader();
    match fields.integer().ok()? {
        0 | 1 => {
            fields.expect(OCTET_STRING).ok()?;
            let mut pdu = fields.element().ok()?.reader();
            pdu.integer().ok().map(RequestTag::RequestId)
        }
        VERSION_3 => {
            let mut global = fields.expect(SEQUENCE).ok()?.reader();
            global.integer().ok().map(RequestTag::MessageId)
        }
        _ => None,
    }
}
