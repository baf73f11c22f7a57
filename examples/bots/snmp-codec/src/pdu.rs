//! Protocol data units (RFC 3416): their kinds, their first fields, error statuses, and the list of bound variables.

use core::fmt;

use crate::ber::{
    Back, DecodeError, DecodeErrorKind, Full, OBJECT_IDENTIFIER, Reader, SEQUENCE, signed_bytes,
};
use crate::value::read_oid;
use crate::{OidRef, Value};

/// What a PDU asks or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PduKind {
    /// Asks for values.
    Get,
    /// Asks for what comes after each identifier.
    GetNext,
    /// An answer.
    Response,
    /// Changes values.
    Set,
    /// Asks for much of what comes after each identifier; not in SNMPv1.
    GetBulk,
    /// A notification that wants an answer; not in SNMPv1.
    Inform,
    /// A notification of SNMPv2.
    Trap,
    /// Tells why a message of SNMPv3 was not accepted.
    Report,
}

impl PduKind {
    pub(crate) const fn tag(self) -> u8 {
        match self {
            Self::Get => 0xa0,
            Self::GetNext => 0xa1,
            Self::Response => 0xa2,
            Self::Set => 0xa3,
            Self::GetBulk => 0xa5,
            Self::Inform => 0xa6,
            Self::Trap => 0xa7,
            Self::Report => 0xa8,
        }
    }

    const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0xa0 => Some(Self::Get),
            0xa1 => Some(Self::GetNext),
            0xa2 => Some(Self::Response),
            0xa3 => Some(Self::Set),
            0xa5 => Some(Self::GetBulk),
            0xa6 => Some(Self::Inform),
            0xa7 => Some(Self::Trap),
            0xa8 => Some(Self::Report),
            _ => None,
        }
    }

    /// Whether SNMPv1 has it, with SNMPv2's layout.
    pub(crate) const fn is_in_v1(self) -> bool {
        matches!(self, Self::Get | Self::GetNext | Self::Response | Self::Set)
    }
}

/// What stands in a PDU before its variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PduHeader {
    kind: PduKind,
    request_id: i32,
    /// error-status and error-index, or non-repeaters and max-repetitions.
    fields: [i32; 2],
}

impl PduHeader {
    const fn new(kind: PduKind, request_id: i32, fields: [i32; 2]) -> Self {
        Self { kind, request_id, fields }
    }

    /// Asks for the values of the variables given.
    pub const fn get(request_id: i32) -> Self {
        Self::new(PduKind::Get, request_id, [0, 0])
    }

    /// Asks for the variables after those given.
    pub const fn get_next(request_id: i32) -> Self {
        Self::new(PduKind::GetNext, request_id, [0, 0])
    }

    /// Asks for one variable after each of the first `non_repeaters`, and for up to `max_repetitions` after each of
    /// the others. Both are at most 2³¹-1 and are cut to it.
    pub const fn get_bulk(request_id: i32, non_repeaters: u32, max_repetitions: u32) -> Self {
        Self::new(PduKind::GetBulk, request_id, [to_field(non_repeaters), to_field(max_repetitions)])
    }

    /// Changes the variables given.
    pub const fn set(request_id: i32) -> Self {
        Self::new(PduKind::Set, request_id, [0, 0])
    }

    /// Answers; `error_index` counts the variables from 1, 0 stands for none.
    pub const fn response(request_id: i32, error_status: ErrorStatus, error_index: u32) -> Self {
        Self::new(PduKind::Response, request_id, [error_status.code(), to_field(error_index)])
    }

    /// Tells why a message of SNMPv3 was not accepted.
    pub const fn report(request_id: i32) -> Self {
        Self::new(PduKind::Report, request_id, [0, 0])
    }

    /// What it asks or tells.
    pub const fn kind(&self) -> PduKind {
        self.kind
    }

    /// The number that the answer repeats.
    pub const fn request_id(&self) -> i32 {
        self.request_id
    }

    /// What was wrong with the request; means nothing in a [`PduKind::GetBulk`].
    pub const fn error_status(&self) -> ErrorStatus {
        ErrorStatus::from_code(self.fields[0])
    }

    /// Which variable was, counted from 1; 0 for none. Negative ones, which some agents send, are 0.
    pub const fn error_index(&self) -> u32 {
        from_field(self.fields[1])
    }

    /// Of a [`PduKind::GetBulk`]: how many of the first variables are wanted once. Negative ones are 0 (RFC 3416).
    pub const fn non_repeaters(&self) -> u32 {
        from_field(self.fields[0])
    }

    /// Of a [`PduKind::GetBulk`]: how often the others are wanted. Negative ones are 0 (RFC 3416).
    pub const fn max_repetitions(&self) -> u32 {
        from_field(self.fields[1])
    }

    /// The bytes of its three numbers.
    pub(crate) const fn encoded_len(&self) -> usize {
        6 + signed_bytes(self.request_id).1 + signed_bytes(self.fields[0]).1 + signed_bytes(self.fields[1]).1
    }

    pub(crate) fn write(&self, back: &mut Back<'_>) -> Result<(), Full> {
        let [first, second] = self.fields;
        back.integer(second)?;
        back.integer(first)?;
        back.integer(self.request_id)
    }
}

const fn to_field(value: u32) -> i32 {
    if value > i32::MAX as u32 { i32::MAX } else { value as i32 }
}

const fn from_field(value: i32) -> u32 {
    if value < 0 { 0 } else { value as u32 }
}

/// A PDU in a datagram.
#[derive(Clone, Debug)]
pub struct Pdu<'a> {
    /// Its first fields.
    pub header: PduHeader,
    /// Its variables, read when they are asked for.
    pub var_binds: VarBinds<'a>,
}

impl<'a> Pdu<'a> {
    /// Reads the last element of `reader`.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let element = reader.element()?;
        let Some(kind) = PduKind::from_tag(element.tag) else {
            return Err(element.error(DecodeErrorKind::PduTag { tag: element.tag }));
        };
        let mut fields = element.reader();
        let header = PduHeader::new(kind, fields.integer()?, [fields.integer()?, fields.integer()?]);
        let list = fields.expect(SEQUENCE)?;
        fields.end()?;
        Ok(Self { header, var_binds: VarBinds { reader: list.reader() } })
    }
}

/// A variable: what it is, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VarBind<'a> {
    /// Its identifier.
    pub oid: OidRef<'a>,
    /// Its value.
    pub value: Value<'a>,
}

/// The variables of a PDU, in their order.
///
/// After an error in a variable's identifier or value it goes on with the next variable; after one in the list's
/// structure it ends. It gives at most one item per two bytes of the datagram.
#[derive(Clone)]
pub struct VarBinds<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for VarBinds<'a> {
    type Item = Result<VarBind<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let element = match self.reader.expect(SEQUENCE) {
            Ok(element) => element,
            Err(error) => {
                self.reader = Reader::new(&[]);
                return Some(Err(error));
            }
        };
        let mut fields = element.reader();
        Some((|| {
            let oid = read_oid(&fields.expect(OBJECT_IDENTIFIER)?)?;
            let value = Value::read(&fields.element()?)?;
            fields.end()?;
            Ok(VarBind { oid, value })
        })())
    }
}

impl core::iter::FusedIterator for VarBinds<'_> {}

impl fmt::Debug for VarBinds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

macro_rules! error_statuses {
    ($($(#[$doc:meta])* $variant:ident = $code:literal $name:literal,)*) => {
        /// What an agent finds wrong with a request (RFC 3416, section 3); displayed by its name there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorStatus {
            $($(#[$doc])* $variant,)*
            /// A number that the standard does not have.
            Unknown(i32),
        }

        impl ErrorStatus {
            /// Its number.
            pub const fn code(self) -> i32 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown(code) => code,
                }
            }

            /// The status with a number.
            pub const fn from_code(code: i32) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    code => Self::Unknown(code),
                }
            }

            /// Its name in RFC 3416; "unknown" for others.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unknown(_) => "unknown",
                }
            }
        }
    };
}

error_statuses! {
    /// Nothing.
    NoError = 0 "noError",
    /// The answer would be larger than the agent or the request allows.
    TooBig = 1 "tooBig",
    /// SNMPv1: there is no such variable.
    NoSuchName = 2 "noSuchName",
    /// SNMPv1: the value cannot be set.
    BadValue = 3 "badValue",
    /// SNMPv1: the variable cannot be set.
    ReadOnly = 4 "readOnly",
    /// Anything else.
    GenErr = 5 "genErr",
    /// The variable may not be set by this user.
    NoAccess = 6 "noAccess",
    /// The value has another type.
    WrongType = 7 "wrongType",
    /// The value has another length.
    WrongLength = 8 "wrongLength",
    /// The value's encoding is wrong.
    WrongEncoding = 9 "wrongEncoding",
    /// The value is never possible.
    WrongValue = 10 "wrongValue",
    /// The variable does not exist and cannot be made.
    NoCreation = 11 "noCreation",
    /// The value is not possible now.
    InconsistentValue = 12 "inconsistentValue",
    /// A resource for it is missing.
    ResourceUnavailable = 13 "resourceUnavailable",
    /// Setting failed, and everything is as it was.
    CommitFailed = 14 "commitFailed",
    /// Setting failed, and undoing it failed.
    UndoFailed = 15 "undoFailed",
    /// The community or user may not do this.
    AuthorizationError = 16 "authorizationError",
    /// The variable can never be set.
    NotWritable = 17 "notWritable",
    /// The variable does not exist and cannot be made now.
    InconsistentName = 18 "inconsistentName",
}

impl fmt::Display for ErrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(code) => write!(f, "error status {code}"),
            known => f.write_str(known.name()),
        }
    }
}
