//! SNMPv3 with the user-based security model (RFC 3412, 3414, 3826, 7860): discovery, requests, answers and reports.

use core::fmt;

use crate::ber::{DecodeError, DecodeErrorKind, Element, INTEGER, OCTET_STRING, Reader, SEQUENCE};
use crate::keys::{LocalizedKeys, PrivProtocol, SecurityLevel};
use crate::message::VERSION_3;
use crate::writer::{EncodeError, Envelope, MessageWriter};
use crate::{Oid, OidRef, Pdu, PduHeader, PduKind};

/// By how many seconds an answer may be older than the engine's clock (RFC 3414, section 3.2).
pub const TIME_WINDOW_S: u32 = 150;

/// The smallest message size that everyone must take, in bytes (RFC 3412).
pub const MIN_MESSAGE_BYTES: u32 = 484;

/// The security model of RFC 3414.
pub(crate) const USM: i32 = 3;
pub(crate) const FLAG_AUTH: u8 = 1;
pub(crate) const FLAG_PRIV: u8 = 2;
pub(crate) const FLAG_REPORTABLE: u8 = 4;
/// The bytes that go into an initialization vector, of DES and AES alike.
pub(crate) const SALT_BYTES: usize = 8;

const MAX_ENGINE_ID: usize = 32;
const MAX_USER_NAME: usize = 32;

/// The name of an SNMP engine: 1 to 32 bytes (RFC 3411 wants at least 5, but agents do send shorter ones).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EngineId {
    len: u8,
    /// Zeros behind `len`.
    bytes: [u8; MAX_ENGINE_ID],
}

impl EngineId {
    /// Takes its bytes; none if there are none, or more than 32.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let mut id = Self { len: 0, bytes: [0; MAX_ENGINE_ID] };
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        id.len = bytes.len() as u8;
        Some(id)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Display for EngineId {
    /// Hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineId({self})")
    }
}

/// What is known of an agent's engine: its name and its clock. Keep one for each device, beside its keys.
///
/// One which was kept for days still works if the device has not been restarted; else it is brought up to date by the
/// first report (see [`Report::send_again`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its name.
    pub id: EngineId,
    /// How often it was started.
    pub boots: u32,
    /// Seconds since it was started, at `learned_at_ms`.
    pub time_s: u32,
    /// When that was, on the caller's monotonic clock, in milliseconds.
    pub learned_at_ms: u64,
    /// Whether a signed message has told the clock. Until then any signed message may set it.
    pub is_verified: bool,
}

impl Engine {
    /// An engine of which only the name is known.
    pub const fn new(id: EngineId) -> Self {
        Self { id, boots: 0, time_s: 0, learned_at_ms: 0, is_verified: false }
    }

    /// Its clock at a time of the caller's.
    pub fn time_at(&self, now_ms: u64) -> u32 {
        let passed_s = now_ms.saturating_sub(self.learned_at_ms) / 1000;
        let time_s = u64::from(self.time_s).saturating_add(passed_s).min(MAX_FIELD.into());
        // Before it is known, zero asks for it.
        if self.boots == 0 && self.time_s == 0 { 0 } else { time_s as u32 }
    }

    /// Reads the answer to a [`discovery_request`]: the engine, with a clock that is not verified.
    ///
    /// # Errors
    ///
    /// [`AnswerError::Message`], [`AnswerError::NotAReport`] and [`AnswerError::EngineId`].
    pub fn from_discovery(datagram: &[u8], now_ms: u64) -> Result<Self, AnswerError> {
        let frame = Frame::read(datagram)?;
        let scoped = frame.scoped(datagram)?;
        if scoped.pdu.header.kind() != PduKind::Report {
            return Err(AnswerError::NotAReport);
        }
        let id = EngineId::new(frame.engine_id(datagram)).ok_or(AnswerError::EngineId)?;
        Ok(Self { id, boots: frame.boots, time_s: frame.time_s, learned_at_ms: now_ms, is_verified: false })
    }

    /// The checks of RFC 3414, section 3.2, step 7b; `boots` and `time_s` are of a signed message.
    fn accept_clock(&mut self, boots: u32, time_s: u32, now_ms: u64) -> Result<(), AnswerError> {
        let here = (self.boots, self.time_at(now_ms));
        let there = (boots, time_s);
        let is_late = boots < here.0 || (boots == here.0 && time_s.saturating_add(TIME_WINDOW_S) < here.1);
        // The largest number of boots means that the engine can't count them any more (section 2.2.3).
        if boots >= MAX_FIELD || (self.is_verified && is_late) {
            return Err(AnswerError::OutsideTimeWindow { engine: there, expected: here });
        }
        // Compared with the latest time received rather than with the one expected now: a slow clock is followed, an
        // older message does not set it back.
        if !self.is_verified || there > (self.boots, self.time_s) {
            *self = Self { boots, time_s, learned_at_ms: now_ms, is_verified: true, ..*self };
        }
        Ok(())
    }
}

/// The largest value of most numbers in SNMPv3's headers.
const MAX_FIELD: u32 = i32::MAX as u32;

/// What a request of SNMPv3 says beside its variables.
#[derive(Clone, Copy, Debug)]
pub struct RequestParams<'e> {
    /// The number that the answer repeats, from 0 to 2³¹-1. Take one that cannot be guessed and is not in flight.
    pub message_id: i32,
    /// The PDU's first fields.
    pub header: PduHeader,
    /// The engine that holds the context; none for the one asked. Proxies have others.
    pub context_engine_id: Option<EngineId>,
    /// The context that holds the variables; usually empty.
    pub context_name: &'e [u8],
    /// The longest answer that may come, in bytes; at least [`MIN_MESSAGE_BYTES`] are told.
    pub max_answer_bytes: u32,
    /// Now, on the clock of [`Engine::learned_at_ms`].
    pub now_ms: u64,
    /// A number that no other message encrypted with the same keys has had: a counter which began somewhere at
    /// random. One that comes twice can reveal both messages.
    pub salt: u64,
}

impl<'e> RequestParams<'e> {
    /// For the default context and answers of any length.
    pub const fn new(message_id: i32, header: PduHeader, now_ms: u64, salt: u64) -> Self {
        Self {
            message_id,
            header,
            context_engine_id: None,
            context_name: &[],
            max_answer_bytes: 65_507,
            now_ms,
            salt,
        }
    }

    /// For another context.
    pub const fn with_context(self, context_name: &'e [u8]) -> Self {
        Self { context_name, ..self }
    }
}

/// Writes the request that makes an agent tell its engine's name and clock; read the answer with
/// [`Engine::from_discovery`].
///
/// # Errors
///
/// [`EncodeError::DoesNotFit`]: it takes about 64 bytes. [`EncodeError::MessageId`].
pub fn discovery_request(buffer: &mut [u8], message_id: i32, request_id: i32) -> Result<&[u8], EncodeError> {
    let params = RequestParams::new(message_id, PduHeader::get(request_id), 0, 0);
    MessageWriter::begin(buffer, params.header, Envelope::usm(None, params)?)?.finish()
}

/// A user of one agent: writes requests in its name, and checks answers.
///
/// ```
/// use grafolean_snmp_codec::v3::{
///     Answer, AuthProtocol, Engine, MasterKeys, PrivProtocol, RequestParams, Security, discovery_request,
/// };
/// use grafolean_snmp_codec::{Oid, PduHeader};
///
/// # fn exchange(request: &[u8]) -> Vec<u8> { unimplemented!() }
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut buffer = [0; 1472];
/// // Once for each password.
/// let keys = MasterKeys::auth_priv(AuthProtocol::Sha256, b"secret one", PrivProtocol::Aes128, b"secret two")?;
/// // Once for each device.
/// let answer = exchange(discovery_request(&mut buffer, 1, 1)?);
/// let mut engine = Engine::from_discovery(&answer, 0)?;
/// let keys = keys.localize(&engine.id);
///
/// let security = Security::new(b"reader", &keys)?;
/// let uptime: Oid = "1.3.6.1.2.1.1.3.0".parse()?;
/// let mut writer =
///     security.encode_request(&mut buffer, &engine, RequestParams::new(2, PduHeader::get(2), 10, 77))?;
/// writer.push_oid(&uptime)?;
/// let mut answer = exchange(writer.finish()?);
/// match security.decode_response(&mut engine, &mut answer, 20)? {
///     Answer::Response(scoped) => println!("{:?}", scoped.pdu.var_binds),
///     Answer::Report(report) if report.send_again => println!("the clock is right now: send it again, once"),
///     Answer::Report(report) => println!("{}", report.reason),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Security<'u> {
    user_name: &'u [u8],
    keys: &'u LocalizedKeys,
}

impl<'u> Security<'u> {
    /// A user, by its name of up to 32 bytes.
    ///
    /// # Errors
    ///
    /// [`UserNameTooLong`].
    pub fn new(user_name: &'u [u8], keys: &'u LocalizedKeys) -> Result<Self, UserNameTooLong> {
        if user_name.len() > MAX_USER_NAME {
            return Err(UserNameTooLong { bytes: user_name.len() });
        }
        Ok(Self { user_name, keys })
    }

    pub(crate) const fn user_name(&self) -> &'u [u8] {
        self.user_name
    }

    pub(crate) const fn keys(&self) -> &'u LocalizedKeys {
        self.keys
    }

    /// Begins a message: append variables, and finish it. It is signed and encrypted as the keys allow.
    ///
    /// `buffer` limits its length, of which up to 32 bytes are not used. With [`PduHeader::response`] it writes an
    /// agent's answers too.
    ///
    /// # Errors
    ///
    /// [`EncodeError::DoesNotFit`] without room for a message without variables, [`EncodeError::OtherEngine`],
    /// [`EncodeError::MessageId`].
    pub fn encode_request<'b>(
        &self,
        buffer: &'b mut [u8],
        engine: &Engine,
        params: RequestParams<'u>,
    ) -> Result<MessageWriter<'b, 'u>, EncodeError> {
        if engine.id != *self.keys.engine_id() {
            return Err(EncodeError::OtherEngine);
        }
        MessageWriter::begin(buffer, params.header, Envelope::usm(Some((*self, *engine)), params)?)
    }

    /// Checks and reads an answer, and keeps `engine`'s clock up to date. Match it by its
    /// [`request_tag`](crate::request_tag) before.
    ///
    /// Encrypted variables are decrypted in place, so the datagram can't be read a second time.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: the datagram should then be ignored, as anyone may have sent it, and the answer waited for.
    pub fn decode_response<'d>(
        &self,
        engine: &mut Engine,
        datagram: &'d mut [u8],
        now_ms: u64,
    ) -> Result<Answer<'d>, AnswerError> {
        let frame = Frame::read(datagram)?;
        let is_ours =
            engine.id == *self.keys.engine_id() && frame.engine_id(datagram) == engine.id.as_bytes();
        if frame.level == SecurityLevel::NoAuthNoPriv {
            let scoped = frame.scoped(datagram)?;
            return match scoped.pdu.header.kind() {
                PduKind::Report => Ok(Answer::Report(Report {
                    reason: ReportReason::read(&scoped.pdu),
                    is_verified: false,
                    engine_id: EngineId::new(frame.engine_id(datagram)),
                    send_again: false,
                })),
                _ if self.keys.level() != SecurityLevel::NoAuthNoPriv => {
                    Err(AnswerError::Level { found: frame.level, expected: self.keys.level() })
                }
                _ if !is_ours => Err(AnswerError::EngineId),
                _ if frame.user_name(datagram) != self.user_name => Err(AnswerError::UserName),
                kind => response(kind, scoped),
            };
        }
        if frame.level > self.keys.level() {
            return Err(AnswerError::Level { found: frame.level, expected: self.keys.level() });
        }
        if !is_ours {
            return Err(AnswerError::EngineId);
        }
        if frame.user_name(datagram) != self.user_name {
            return Err(AnswerError::UserName);
        }
        let expected_bytes = self.keys.auth_protocol().map(|protocol| protocol.mac_bytes());
        let message = datagram.get(..frame.bytes).unwrap_or_default();
        if Some(frame.auth.len) != expected_bytes || !self.keys.verify(message, frame.auth.at) {
            return Err(AnswerError::Signature);
        }
        engine.accept_clock(frame.boots, frame.time_s, now_ms)?;
        let scoped = if frame.level == SecurityLevel::AuthPriv {
            let salt = frame.salt(datagram).ok_or(AnswerError::Decryption { error: None })?;
            let text = frame.data.of_mut(datagram);
            self.keys
                .decrypt(text, frame.boots, frame.time_s, salt)
                .ok_or(AnswerError::Decryption { error: None })?;
            frame.scoped(datagram).map_err(|error| AnswerError::Decryption { error: Some(error) })?
        } else {
            frame.scoped(datagram)?
        };
        match scoped.pdu.header.kind() {
            PduKind::Report => {
                let reason = ReportReason::read(&scoped.pdu);
                Ok(Answer::Report(Report {
                    reason,
                    is_verified: true,
                    engine_id: Some(engine.id),
                    send_again: reason == ReportReason::NotInTimeWindow,
                }))
            }
            _ if frame.level != self.keys.level() => {
                Err(AnswerError::Level { found: frame.level, expected: self.keys.level() })
            }
            kind => response(kind, scoped),
        }
    }
}

fn response(kind: PduKind, scoped: ScopedPdu<'_>) -> Result<Answer<'_>, AnswerError> {
    if kind == PduKind::Response { Ok(Answer::Response(scoped)) } else { Err(AnswerError::Kind { kind }) }
}

impl fmt::Debug for Security<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("keys", self.keys).finish_non_exhaustive()
    }
}

/// A user name of more than 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserNameTooLong {
    /// Its length.
    pub bytes: usize,
}

impl fmt::Display for UserNameTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the user name has {} bytes, {MAX_USER_NAME} are possible", self.bytes)
    }
}

impl core::error::Error for UserNameTooLong {}

/// What an agent says.
#[derive(Clone, Debug)]
pub enum Answer<'d> {
    /// The answer to the request.
    Response(ScopedPdu<'d>),
    /// Why the request was not even looked at.
    Report(Report),
}

/// A PDU and the context it is about.
#[derive(Clone, Debug)]
pub struct ScopedPdu<'d> {
    /// The engine that holds the context.
    pub context_engine_id: &'d [u8],
    /// The context's name.
    pub context_name: &'d [u8],
    /// The PDU.
    pub pdu: Pdu<'d>,
    /// The longest message that the agent takes, in bytes (msgMaxSize); at least 484 by the standard, not checked.
    pub max_message_bytes: u32,
}

impl<'d> ScopedPdu<'d> {
    fn read(element: &Element<'d>, max_message_bytes: u32) -> Result<Self, DecodeError> {
        let mut fields = element.reader();
        let context_engine_id = fields.expect(OCTET_STRING)?.content;
        let context_name = fields.expect(OCTET_STRING)?.content;
        let pdu = Pdu::read(&mut fields)?;
        fields.end()?;
        Ok(Self { context_engine_id, context_name, pdu, max_message_bytes })
    }
}

/// Why an agent did not look at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The reason.
    pub reason: ReportReason,
    /// Whether it was signed. Anyone may have sent one that was not: most agents sign only
    /// [`ReportReason::NotInTimeWindow`].
    pub is_verified: bool,
    /// The engine which sent it. With [`ReportReason::UnknownEngineId`], the one that the device has now: discover
    /// it, and make new keys.
    pub engine_id: Option<EngineId>,
    /// Whether it told the engine's clock, so that the same request may succeed when it is written again. Do so
    /// once for each request.
    pub send_again: bool,
}

/// What a report counts (RFC 3412, 3413 and 3414).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReportReason {
    /// usmStatsUnsupportedSecLevels: the agent or the user has no such level.
    UnsupportedSecurityLevel,
    /// usmStatsNotInTimeWindows: the request's time is wrong, as after a restart.
    NotInTimeWindow,
    /// usmStatsUnknownUserNames.
    UnknownUserName,
    /// usmStatsUnknownEngineIDs: what discovery asks for; later, that the device has become another one.
    UnknownEngineId,
    /// usmStatsWrongDigests: a wrong password or protocol for authentication.
    WrongDigest,
    /// usmStatsDecryptionErrors: a wrong password or protocol for privacy. Agents need not notice: net-snmp mostly
    /// says nothing then, so that a device which reports other mistakes but is silent now has another password.
    DecryptionError,
    /// snmpUnknownSecurityModels: the agent has no user-based security.
    UnknownSecurityModel,
    /// snmpInvalidMsgs.
    InvalidMessage,
    /// snmpUnknownPDUHandlers.
    UnknownPduHandler,
    /// snmpUnavailableContexts.
    UnavailableContext,
    /// snmpUnknownContexts.
    UnknownContext,
    /// Something else, or nothing.
    Other,
}

impl ReportReason {
    fn read(pdu: &Pdu<'_>) -> Self {
        let Some(Ok(var_bind)) = pdu.var_binds.clone().next() else { return Self::Other };
        Self::from_oid(var_bind.oid)
    }

    /// The reason that a counter's identifier stands for.
    pub fn from_oid(oid: OidRef<'_>) -> Self {
        let Some(mut arcs) = SNMP_MODULES.as_ref().ok().and_then(|base| oid.suffix_of(base)) else {
            return Self::Other;
        };
        let mut suffix = [0; 5];
        let mut count = 0;
        for (place, arc) in suffix.iter_mut().zip(&mut arcs) {
            *place = arc;
            count += 1;
        }
        if arcs.next().is_some() {
            return Self::Other;
        }
        match suffix.get(..count) {
            Some([15, 1, 1, 1, 0]) => Self::UnsupportedSecurityLevel,
            Some([15, 1, 1, 2, 0]) => Self::NotInTimeWindow,
            Some([15, 1, 1, 3, 0]) => Self::UnknownUserName,
            Some([15, 1, 1, 4, 0]) => Self::UnknownEngineId,
            Some([15, 1, 1, 5, 0]) => Self::WrongDigest,
            Some([15, 1, 1, 6, 0]) => Self::DecryptionError,
            Some([11, 2, 1, 1, 0]) => Self::UnknownSecurityModel,
            Some([11, 2, 1, 2, 0]) => Self::InvalidMessage,
            Some([11, 2, 1, 3, 0]) => Self::UnknownPduHandler,
            Some([12, 1, 4, 0]) => Self::UnavailableContext,
            Some([12, 1, 5, 0]) => Self::UnknownContext,
            _ => Self::Other,
        }
    }
}

const SNMP_MODULES: Result<Oid<8>, crate::OidError> = Oid::from_arcs(&[1, 3, 6, 1, 6, 3]);

impl fmt::Display for ReportReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnsupportedSecurityLevel => "the agent does not have this security level for this user",
            Self::NotInTimeWindow => "the request's time is outside of the agent's window",
            Self::UnknownUserName => "the agent does not know this user",
            Self::UnknownEngineId => "the agent has another engine ID",
            Self::WrongDigest => "wrong digest: the authentication protocol or password is not the agent's",
            Self::DecryptionError => {
                "the agent cannot decrypt: the privacy protocol or password is not its own"
            }
            Self::UnknownSecurityModel => "the agent does not have the user-based security model",
            Self::InvalidMessage => "the agent finds the message invalid",
            Self::UnknownPduHandler => "the agent has nothing that handles this kind of PDU",
            Self::UnavailableContext => "the context is not available",
            Self::UnknownContext => "the agent does not know this context",
            Self::Other => "the agent reports something unknown",
        })
    }
}

/// Why a datagram is no answer that can be trusted and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// It is no message of SNMPv3.
    Message(DecodeError),
    /// Its security level is not that of the keys.
    Level {
        /// Its own.
        found: SecurityLevel,
        /// The keys'.
        expected: SecurityLevel,
    },
    /// It comes from another engine than the keys are for; in a discovery, from one without a name.
    EngineId,
    /// It is for another user.
    UserName,
    /// The keys do not give its signature: made with another password or protocol, or changed on its way.
    Signature,
    /// It is too old: an answer that came late, or a device whose clock was set back. Discover it anew after some.
    OutsideTimeWindow {
        /// The boots and seconds in the message.
        engine: (u32, u32),
        /// Those that are expected now.
        expected: (u32, u32),
    },
    /// It can't be decrypted: the password or protocol for privacy is another one.
    Decryption {
        /// What is wrong with what decryption gave; none if it could not even be tried.
        error: Option<DecodeError>,
    },
    /// It is neither a response nor a report.
    Kind {
        /// What it is.
        kind: PduKind,
    },
    /// An answer to a discovery must be a report.
    NotAReport,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(error) => write!(f, "{error}"),
            Self::Level { found, expected } => write!(f, "an answer with {found} where {expected} belongs"),
            Self::EngineId => write!(f, "an answer from another engine"),
            Self::UserName => write!(f, "an answer for another user"),
            Self::Signature => write!(f, "an answer with a wrong signature"),
            Self::OutsideTimeWindow { engine: (boots, time), expected: (here_boots, here_time) } => {
                write!(
                    f,
                    "an answer from boot {boots}, second {time}, at boot {here_boots}, second {here_time}"
                )
            }
            Self::Decryption { error: Some(error) } => {
                write!(f, "an answer that decrypts to no message: {error}")
            }
            Self::Decryption { error: None } => {
                write!(f, "an answer whose encryption is not that of the keys")
            }
            Self::Kind { kind } => write!(f, "a {kind:?} where an answer belongs"),
            Self::NotAReport => write!(f, "an answer to a discovery that is no report"),
        }
    }
}

impl core::error::Error for AnswerError {}

impl From<DecodeError> for AnswerError {
    fn from(error: DecodeError) -> Self {
        Self::Message(error)
    }
}

/// A part of a datagram.
#[derive(Clone, Copy)]
struct Part {
    at: usize,
    len: usize,
}

impl Part {
    fn content(element: &Element<'_>) -> Self {
        Self { at: element.content_offset, len: element.content.len() }
    }

    fn of(self, datagram: &[u8]) -> &[u8] {
        datagram.get(self.at..self.at + self.len).unwrap_or_default()
    }

    fn of_mut(self, datagram: &mut [u8]) -> &mut [u8] {
        datagram.get_mut(self.at..self.at + self.len).unwrap_or_default()
    }
}

/// Where the parts of a datagram are, so that it can be verified and decrypted in between.
struct Frame {
    /// The message's length in the datagram.
    bytes: usize,
    max_message_bytes: u32,
    level: SecurityLevel,
    engine: Part,
    boots: u32,
    time_s: u32,
    user: Part,
    auth: Part,
    salt: Part,
    /// The plain scoped PDU with its tag, or the content of the encrypted one.
    data: Part,
}

impl Frame {
    fn read(datagram: &[u8]) -> Result<Self, DecodeError> {
        // What lies behind it is padding, which no signature covers.
        let message = Reader::new(datagram).expect(SEQUENCE)?;
        let mut fields = message.reader();
        let version = fields.expect(INTEGER)?;
        match version.signed()? {
            VERSION_3 => {}
            found => return Err(version.error(DecodeErrorKind::Version { found })),
        }

        let mut global = fields.expect(SEQUENCE)?.reader();
        natural(&mut global, "msgID")?;
        let max_message_bytes = natural(&mut global, "msgMaxSize")?;
        let flags = global.expect(OCTET_STRING)?;
        let level = match flags.content {
            [flags] if flags & (FLAG_AUTH | FLAG_PRIV) == 0 => SecurityLevel::NoAuthNoPriv,
            [flags] if flags & (FLAG_AUTH | FLAG_PRIV) == FLAG_AUTH => SecurityLevel::AuthNoPriv,
            [flags] if flags & FLAG_AUTH != 0 => SecurityLevel::AuthPriv,
            _ => return Err(flags.error(DecodeErrorKind::Field { name: "msgFlags" })),
        };
        let model = global.expect(INTEGER)?;
        if model.signed()? != USM {
            return Err(model.error(DecodeErrorKind::Field { name: "msgSecurityModel" }));
        }
        global.end()?;

        let mut parameters = fields.expect(OCTET_STRING)?.reader();
        let mut usm = parameters.expect(SEQUENCE)?.reader();
        parameters.end()?;
        let engine = usm.expect(OCTET_STRING)?;
        if engine.content.len() > MAX_ENGINE_ID {
            return Err(engine.error(DecodeErrorKind::Field { name: "msgAuthoritativeEngineID" }));
        }
        let boots = natural(&mut usm, "msgAuthoritativeEngineBoots")?;
        let time_s = natural(&mut usm, "msgAuthoritativeEngineTime")?;
        let user = usm.expect(OCTET_STRING)?;
        let auth = usm.expect(OCTET_STRING)?;
        let salt = usm.expect(OCTET_STRING)?;
        usm.end()?;

        let data = if level == SecurityLevel::AuthPriv {
            Part::content(&fields.expect(OCTET_STRING)?)
        } else {
            let scoped = fields.expect(SEQUENCE)?;
            Part { at: scoped.offset, len: scoped.content_offset - scoped.offset + scoped.content.len() }
        };
        fields.end()?;
        Ok(Self {
            bytes: message.content_offset + message.content.len(),
            max_message_bytes,
            level,
            engine: Part::content(&engine),
            boots,
            time_s,
            user: Part::content(&user),
            auth: Part::content(&auth),
            salt: Part::content(&salt),
            data,
        })
    }

    fn engine_id<'d>(&self, datagram: &'d [u8]) -> &'d [u8] {
        self.engine.of(datagram)
    }

    fn user_name<'d>(&self, datagram: &'d [u8]) -> &'d [u8] {
        self.user.of(datagram)
    }

    fn salt(&self, datagram: &[u8]) -> Option<[u8; SALT_BYTES]> {
        self.salt.of(datagram).try_into().ok()
    }

    /// What is behind it after decryption is padding (RFC 3414, section 8.1.1.3), which some agents add with AES too.
    fn scoped<'d>(&self, datagram: &'d [u8]) -> Result<ScopedPdu<'d>, DecodeError> {
        let mut reader = Reader::at(self.data.of(datagram), self.data.at);
        ScopedPdu::read(&reader.expect(SEQUENCE)?, self.max_message_bytes)
    }
}

/// A number from 0 to 2³¹-1.
fn natural(reader: &mut Reader<'_>, name: &'static str) -> Result<u32, DecodeError> {
    let element = reader.expect(INTEGER)?;
    u32::try_from(element.signed()?).map_err(|_| element.error(DecodeErrorKind::Field { name }))
}

/// How many bytes may have to be added before encryption.
pub(crate) const fn max_padding(protocol: Option<PrivProtocol>) -> usize {
    match protocol {
        Some(PrivProtocol::Des) => 7,
        _ => 0,
    }
}
