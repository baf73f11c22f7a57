//! Writing messages into a caller's buffer: variables are appended, then everything before them is written once.

use core::fmt;
use core::ops::Range;

use crate::ber::{Back, Full, MAX_LEN, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, element_len, header_len};
use crate::{OidRef, PduHeader, Value, Version};
#[cfg(feature = "v3")]
use crate::{
    PduKind,
    ber::{INTEGER, signed_bytes, unsigned_bytes},
    keys::{AuthProtocol, MAX_MAC, PrivProtocol, SecurityLevel},
    message::VERSION_3,
    usm::{
        Engine, EngineId, FLAG_AUTH, FLAG_PRIV, FLAG_REPORTABLE, MIN_MESSAGE_BYTES, RequestParams,
        SALT_BYTES, Security, USM, max_padding,
    },
};

/// Why a message was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// Something is too long for the buffer, or for the 65,535 bytes that are used of a longer one.
    DoesNotFit {
        /// What: "variable", or "header" with the community string or the security parameters.
        part: &'static str,
        /// The bytes it takes.
        needed_bytes: usize,
        /// The bytes that are left.
        available_bytes: usize,
    },
    /// Something that SNMPv1 does not have.
    NotInV1 {
        /// What: "kind of PDU" or "type of value".
        what: &'static str,
    },
    /// The keys are for another engine.
    #[cfg(feature = "v3")]
    OtherEngine,
    /// A negative msgID.
    #[cfg(feature = "v3")]
    MessageId,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoesNotFit { part, needed_bytes, available_bytes } => {
                write!(
                    f,
                    "the {part} takes {needed_bytes} bytes of the message where {available_bytes} are left"
                )
            }
            Self::NotInV1 { what } => write!(f, "SNMPv1 has no such {what}"),
            #[cfg(feature = "v3")]
            Self::OtherEngine => write!(f, "the keys are for another engine than the message"),
            #[cfg(feature = "v3")]
            Self::MessageId => write!(f, "a msgID is not negative"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// What surrounds a PDU.
pub(crate) enum Envelope<'e> {
    Community {
        version: Version,
        community: &'e [u8],
    },
    #[cfg(feature = "v3")]
    Usm(UsmEnvelope<'e>),
}

#[cfg(feature = "v3")]
pub(crate) struct UsmEnvelope<'e> {
    /// None in a discovery.
    peer: Option<(Security<'e>, Engine)>,
    params: RequestParams<'e>,
    time_s: u32,
}

#[cfg(feature = "v3")]
impl<'e> Envelope<'e> {
    pub(crate) fn usm(
        peer: Option<(Security<'e>, Engine)>,
        params: RequestParams<'e>,
    ) -> Result<Self, EncodeError> {
        if params.message_id < 0 {
            return Err(EncodeError::MessageId);
        }
        let time_s = peer.as_ref().map_or(0, |(_, engine)| engine.time_at(params.now_ms));
        Ok(Self::Usm(UsmEnvelope { peer, params, time_s }))
    }
}

#[cfg(feature = "v3")]
impl UsmEnvelope<'_> {
    fn boots(&self) -> u32 {
        self.peer.as_ref().map_or(0, |(_, engine)| engine.boots)
    }

    fn engine_id(&self) -> &[u8] {
        self.peer.as_ref().map_or(&[], |(_, engine)| engine.id.as_bytes())
    }

    fn context_engine_id(&self) -> &[u8] {
        self.params.context_engine_id.as_ref().map_or(self.engine_id(), EngineId::as_bytes)
    }

    fn user_name(&self) -> &[u8] {
        self.peer.as_ref().map_or(&[], |(security, _)| security.user_name())
    }

    fn level(&self) -> SecurityLevel {
        self.peer.as_ref().map_or(SecurityLevel::NoAuthNoPriv, |(security, _)| security.keys().level())
    }

    fn auth_protocol(&self) -> Option<AuthProtocol> {
        self.peer.as_ref().and_then(|(security, _)| security.keys().auth_protocol())
    }

    fn priv_protocol(&self) -> Option<PrivProtocol> {
        self.peer.as_ref().and_then(|(security, _)| security.keys().priv_protocol())
    }

    fn max_answer_bytes(&self) -> i32 {
        i32::try_from(self.params.max_answer_bytes.max(MIN_MESSAGE_BYTES)).unwrap_or(i32::MAX)
    }

    /// The bytes before the variables but those of the PDU, where frames of unknown length take `frame`; and behind.
    fn room(&self, frame: usize) -> (usize, usize) {
        let integer = |value: i32| element_len(signed_bytes(value).1);
        let natural = |value: u32| element_len(unsigned_bytes(value.into()).1);
        let global = integer(self.params.message_id) + integer(self.max_answer_bytes()) + 3 + 3;
        let mac = self.auth_protocol().map_or(0, AuthProtocol::mac_bytes);
        let salt = if self.priv_protocol().is_some() { SALT_BYTES } else { 0 };
        let security = element_len(self.engine_id().len())
            + natural(self.boots())
            + natural(self.time_s)
            + element_len(self.user_name().len())
            + element_len(mac)
            + element_len(salt);
        // Version; frames of the message, the encrypted and the plain scoped PDU, the PDU and its list.
        let context =
            element_len(self.context_engine_id().len()) + element_len(self.params.context_name.len());
        let front = 3 + element_len(global) + element_len(element_len(security)) + context + 5 * frame;
        (front, max_padding(self.priv_protocol()))
    }

    /// Writes everything before the variables, which lie from `start` to `end`; gives where the message lies then.
    fn finish(
        &self,
        buffer: &mut [u8],
        header: &PduHeader,
        start: usize,
        end: usize,
    ) -> Result<Range<usize>, Full> {
        let mut back = Back::new(buffer.get_mut(..start).ok_or(Full)?);
        write_pdu_front(&mut back, header, end)?;
        back.element(OCTET_STRING, self.params.context_name)?;
        back.element(OCTET_STRING, self.context_engine_id())?;
        back.header(SEQUENCE, end)?;
        let scoped = back.at();
        let salt = self.params.salt.to_be_bytes();
        let end = match (self.priv_protocol(), &self.peer) {
            (Some(protocol), Some((security, _))) => {
                let padding = match protocol {
                    PrivProtocol::Des => (end - scoped).wrapping_neg() % 8,
                    _ => 0,
                };
                buffer.get_mut(end..end + padding).ok_or(Full)?.fill(0);
                let text = buffer.get_mut(scoped..end + padding).ok_or(Full)?;
                security.keys().encrypt(text, self.boots(), self.time_s, salt).ok_or(Full)?;
                end + padding
            }
            _ => end,
        };

        let mut back = Back::new(buffer.get_mut(..scoped).ok_or(Full)?);
        let level = self.level();
        if level == SecurityLevel::AuthPriv {
            back.header(OCTET_STRING, end)?;
        }
        let parameters_end = back.at();
        back.element(OCTET_STRING, if level == SecurityLevel::AuthPriv { &salt } else { &[] })?;
        let mac_end = back.at();
        let zeros = [0; MAX_MAC];
        let mac = self.auth_protocol().map_or(0, AuthProtocol::mac_bytes);
        back.element(OCTET_STRING, zeros.get(..mac).unwrap_or_default())?;
        back.element(OCTET_STRING, self.user_name())?;
        back.unsigned(INTEGER, self.time_s.into())?;
        back.unsigned(INTEGER, self.boots().into())?;
        back.element(OCTET_STRING, self.engine_id())?;
        back.header(SEQUENCE, parameters_end)?;
        back.header(OCTET_STRING, parameters_end)?;

        let global_end = back.at();
        let asks = matches!(
            header.kind(),
            PduKind::Get | PduKind::GetNext | PduKind::GetBulk | PduKind::Set | PduKind::Inform
        );
        let flags = match level {
            SecurityLevel::NoAuthNoPriv => 0,
            SecurityLevel::AuthNoPriv => FLAG_AUTH,
            SecurityLevel::AuthPriv => FLAG_AUTH | FLAG_PRIV,
        };
        back.integer(USM)?;
        back.element(OCTET_STRING, &[flags | if asks { FLAG_REPORTABLE } else { 0 }])?;
        back.integer(self.max_answer_bytes())?;
        back.integer(self.params.message_id)?;
        back.header(SEQUENCE, global_end)?;
        back.integer(VERSION_3)?;
        back.header(SEQUENCE, end)?;
        let begin = back.at();
        if let (Some((security, _)), true) = (&self.peer, mac > 0) {
            let message = buffer.get_mut(begin..end).ok_or(Full)?;
            security.keys().sign(message, mac_end - mac - begin).ok_or(Full)?;
        }
        Ok(begin..end)
    }
}

/// Writes a message into a buffer.
///
/// The message ends up somewhere within the buffer: up to 9 bytes may be left at its beginning, because lengths are
/// not known before. Nothing is copied or written twice.
///
/// ```
/// use grafolean_snmp_codec::{MessageWriter, Oid, PduHeader, Version};
///
/// let oids: [Oid; 2] = ["1.3.6.1.2.1.1.3.0".parse()?, "1.3.6.1.2.1.1.5.0".parse()?];
/// let mut buffer = [0; 484];
/// let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"public", PduHeader::get(1))?;
/// assert_eq!(writer.how_many_fit(&oids), 2);
/// for oid in &oids {
///     writer.push_oid(oid)?;
/// }
/// let datagram: &[u8] = writer.finish()?;
/// assert_eq!(datagram.len(), 54);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MessageWriter<'b, 'e> {
    buffer: &'b mut [u8],
    header: PduHeader,
    envelope: Envelope<'e>,
    /// Where the first variable begins.
    start: usize,
    /// Where the last one ends.
    end: usize,
    /// Where the last one must end.
    limit: usize,
}

impl<'b, 'e> MessageWriter<'b, 'e> {
    /// Begins a message of SNMPv1 or SNMPv2c. `buffer` is also the limit of its length: 484 bytes are what every
    /// agent takes, 1,472 what an Ethernet frame holds over IPv4.
    ///
    /// # Errors
    ///
    /// [`EncodeError::DoesNotFit`] without room for a message without variables, [`EncodeError::NotInV1`].
    pub fn new(
        buffer: &'b mut [u8],
        version: Version,
        community: &'e [u8],
        header: PduHeader,
    ) -> Result<Self, EncodeError> {
        if version == Version::V1 && !header.kind().is_in_v1() {
            return Err(EncodeError::NotInV1 { what: "kind of PDU" });
        }
        Self::begin(buffer, header, Envelope::Community { version, community })
    }

    pub(crate) fn begin(
        buffer: &'b mut [u8],
        header: PduHeader,
        envelope: Envelope<'e>,
    ) -> Result<Self, EncodeError> {
        let len = buffer.len().min(MAX_LEN);
        let buffer = buffer.get_mut(..len).unwrap_or_default();
        // Tag and length of whatever fits.
        let frame = header_len(len);
        let (front, tail) = match &envelope {
            // Version; community; frames of the message, the PDU and the list.
            Envelope::Community { community, .. } => (3 + element_len(community.len()) + 3 * frame, 0),
            #[cfg(feature = "v3")]
            Envelope::Usm(usm) => usm.room(frame),
        };
        let start = front.saturating_add(header.encoded_len());
        let needed_bytes = start.saturating_add(tail);
        match len.checked_sub(tail) {
            Some(limit) if start <= limit => Ok(Self { buffer, header, envelope, start, end: start, limit }),
            _ => Err(EncodeError::DoesNotFit { part: "header", needed_bytes, available_bytes: len }),
        }
    }

    /// Appends a variable without a value, as requests have them.
    ///
    /// # Errors
    ///
    /// [`EncodeError::DoesNotFit`]; nothing is appended then, and the message can be finished with what it has.
    pub fn push_oid<'a>(&mut self, oid: impl Into<OidRef<'a>>) -> Result<(), EncodeError> {
        self.push(oid, Value::Null)
    }

    /// Appends a variable.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]; nothing is appended then, and the message can be finished with what it has.
    pub fn push<'a>(&mut self, oid: impl Into<OidRef<'a>>, value: Value<'_>) -> Result<(), EncodeError> {
        let oid = oid.into();
        if matches!(self.envelope, Envelope::Community { version: Version::V1, .. }) && !value.is_in_v1() {
            return Err(EncodeError::NotInV1 { what: "type of value" });
        }
        let needed_bytes = var_bind_len(oid, &value);
        let does_not_fit = EncodeError::DoesNotFit {
            part: "variable",
            needed_bytes,
            available_bytes: self.available_bytes(),
        };
        if needed_bytes > self.available_bytes() {
            return Err(does_not_fit);
        }
        let end = self.end + needed_bytes;
        let window = self.buffer.get_mut(self.end..end).ok_or(does_not_fit)?;
        write_var_bind(&mut Back::new(window), oid, &value).map_err(|Full| does_not_fit)?;
        self.end = end;
        Ok(())
    }

    /// The bytes that are left for variables.
    pub const fn available_bytes(&self) -> usize {
        self.limit - self.end
    }

    /// Whether it has no variables yet.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many of `oids`, from the first on, can still be appended without values.
    pub fn how_many_fit<'a, O: Into<OidRef<'a>>>(&self, oids: impl IntoIterator<Item = O>) -> usize {
        let mut left = self.available_bytes();
        oids.into_iter()
            .map_while(|oid| {
                left = left.checked_sub(var_bind_len(oid.into(), &Value::Null))?;
                Some(())
            })
            .count()
    }

    /// Completes the message, and gives its bytes.
    ///
    /// # Errors
    ///
    /// None that a caller can cause: there is room for everything by then.
    pub fn finish(self) -> Result<&'b [u8], EncodeError> {
        let Self { buffer, header, envelope, start, end, .. } = self;
        let available_bytes = buffer.len();
        let range = match envelope {
            Envelope::Community { version, community } => {
                finish_community(buffer, version, community, &header, start, end)
            }
            #[cfg(feature = "v3")]
            Envelope::Usm(usm) => usm.finish(buffer, &header, start, end),
        };
        let range = range.map_err(|Full| EncodeError::DoesNotFit {
            part: "header",
            needed_bytes: start,
            available_bytes,
        })?;
        Ok(buffer.get(range).unwrap_or_default())
    }
}

/// Writes everything before the variables, which lie from `start` to `end`; gives where the message lies then.
fn finish_community(
    buffer: &mut [u8],
    version: Version,
    community: &[u8],
    header: &PduHeader,
    start: usize,
    end: usize,
) -> Result<Range<usize>, Full> {
    let mut back = Back::new(buffer.get_mut(..start).ok_or(Full)?);
    write_pdu_front(&mut back, header, end)?;
    back.element(OCTET_STRING, community)?;
    back.integer(version.number())?;
    back.header(SEQUENCE, end)?;
    Ok(back.at()..end)
}

/// What stands before the variables, which end at `end`, in their PDU.
fn write_pdu_front(back: &mut Back<'_>, header: &PduHeader, end: usize) -> Result<(), Full> {
    back.header(SEQUENCE, end)?;
    header.write(back)?;
    back.header(header.kind().tag(), end)
}

fn var_bind_len(oid: OidRef<'_>, value: &Value<'_>) -> usize {
    element_len(element_len(oid.as_ber().len()).saturating_add(value.encoded_len()))
}

fn write_var_bind(back: &mut Back<'_>, oid: OidRef<'_>, value: &Value<'_>) -> Result<(), Full> {
    let end = back.at();
    value.write(back)?;
    back.element(OBJECT_IDENTIFIER, oid.as_ber())?;
    back.header(SEQUENCE, end)
}

impl fmt::Debug for MessageWriter<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the buffer, which holds secrets.
        f.debug_struct("MessageWriter")
            .field("header", &self.header)
            .field("available_bytes", &self.available_bytes())
            .finish_non_exhaustive()
    }
}
