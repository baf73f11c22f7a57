//! Generated messages, for this crate and for the other one that it is compared with.
#![allow(dead_code, reason = "each test uses a part")]

use async_snmp::pdu::StandardPduType;
use grafolean_snmp_codec::{
    ErrorStatus, Message, MessageWriter, Oid, OidRef, Pdu, PduHeader, PduKind, Value, VarBind, Version,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Long enough for every identifier.
pub(crate) type LongOid = Oid<640>;

/// A value that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owned {
    Integer(i32),
    OctetString(Vec<u8>),
    Null,
    ObjectIdentifier(Box<LongOid>),
    IpAddress([u8; 4]),
    Counter32(u32),
    Unsigned32(u32),
    TimeTicks(u32),
    Opaque(Vec<u8>),
    Counter64(u64),
    NoSuchObject,
    NoSuchInstance,
    EndOfMibView,
}

impl Owned {
    pub(crate) fn borrowed(&self) -> Value<'_> {
        match self {
            Self::Integer(value) => Value::Integer(*value),
            Self::OctetString(bytes) => Value::OctetString(bytes),
            Self::Null => Value::Null,
            Self::ObjectIdentifier(oid) => Value::ObjectIdentifier(oid.as_oid_ref()),
            Self::IpAddress(address) => Value::IpAddress(*address),
            Self::Counter32(value) => Value::Counter32(*value),
            Self::Unsigned32(value) => Value::Unsigned32(*value),
            Self::TimeTicks(value) => Value::TimeTicks(*value),
            Self::Opaque(bytes) => Value::Opaque(bytes),
            Self::Counter64(value) => Value::Counter64(*value),
            Self::NoSuchObject => Value::NoSuchObject,
            Self::NoSuchInstance => Value::NoSuchInstance,
            Self::EndOfMibView => Value::EndOfMibView,
        }
    }
}

/// A message before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) version: Version,
    pub(crate) community: Vec<u8>,
    pub(crate) header: PduHeader,
    pub(crate) var_binds: Vec<(LongOid, Owned)>,
}

impl Spec {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut buffer = vec![0xaa; 65_535];
        let mut writer = MessageWriter::new(&mut buffer, self.version, &self.community, self.header).unwrap();
        self.push_to(&mut writer);
        writer.finish().unwrap().to_vec()
    }

    pub(crate) fn push_to(&self, writer: &mut MessageWriter<'_, '_>) {
        for (oid, value) in &self.var_binds {
            writer.push(oid, value.borrowed()).unwrap();
        }
    }

    pub(crate) fn assert_read_as(&self, pdu: &Pdu<'_>) {
        assert_eq!(pdu.header, self.header);
        let found = pdu.var_binds.clone().collect::<Result<Vec<_>, _>>().unwrap();
        let wanted: Vec<_> = self
            .var_binds
            .iter()
            .map(|(oid, value)| VarBind { oid: oid.into(), value: value.borrowed() })
            .collect();
        assert_eq!(found, wanted);
    }

    pub(crate) fn their_var_binds(&self) -> Vec<async_snmp::VarBind> {
        self.var_binds
            .iter()
            .map(|(oid, value)| {
                async_snmp::VarBind::new(their_oid(oid.into()), their_value(value.borrowed()))
            })
            .collect()
    }

    pub(crate) fn their_pdu(&self) -> async_snmp::Pdu {
        async_snmp::Pdu::from_raw_parts(
            self.header.request_id(),
            their_body(&self.header),
            self.their_var_binds(),
        )
    }
}

pub(crate) fn their_body(header: &PduHeader) -> async_snmp::pdu::PduBody {
    let pdu_type = match header.kind() {
        PduKind::GetBulk => {
            return async_snmp::pdu::PduBody::GetBulk {
                non_repeaters: header.non_repeaters(),
                max_repetitions: header.max_repetitions(),
            };
        }
        PduKind::Get => StandardPduType::GetRequest,
        PduKind::GetNext => StandardPduType::GetNextRequest,
        PduKind::Response => StandardPduType::Response,
        PduKind::Set => StandardPduType::SetRequest,
        PduKind::Inform => StandardPduType::InformRequest,
        PduKind::Trap => StandardPduType::TrapV2,
        PduKind::Report => StandardPduType::Report,
        kind => panic!("{kind:?} is new"),
    };
    async_snmp::pdu::PduBody::Standard {
        pdu_type,
        error_status: header.error_status().code(),
        error_index: header.error_index() as i32,
    }
}

pub(crate) fn their_oid(oid: OidRef<'_>) -> async_snmp::Oid {
    async_snmp::Oid::new(oid.arcs())
}

pub(crate) fn their_value(value: Value<'_>) -> async_snmp::Value {
    use async_snmp::Value as Theirs;
    match value {
        Value::Integer(value) => Theirs::Integer(value),
        Value::OctetString(bytes) => Theirs::OctetString(bytes.to_vec().into()),
        Value::Null => Theirs::Null,
        Value::ObjectIdentifier(oid) => Theirs::ObjectIdentifier(their_oid(oid)),
        Value::IpAddress(address) => Theirs::IpAddress(address),
        Value::Counter32(value) => Theirs::Counter32(value),
        Value::Unsigned32(value) => Theirs::Gauge32(value),
        Value::TimeTicks(value) => Theirs::TimeTicks(value),
        Value::Opaque(bytes) => Theirs::Opaque(bytes.to_vec().into()),
        Value::Counter64(value) => Theirs::Counter64(value),
        Value::NoSuchObject => Theirs::NoSuchObject,
        Value::NoSuchInstance => Theirs::NoSuchInstance,
        Value::EndOfMibView => Theirs::EndOfMibView,
    }
}

/// Numbers near the ends of ranges and of encodings' lengths as often as any.
pub(crate) fn number() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![
        any::<u32>(),
        0..300_u32,
        (0..32_u32, -1..=1_i64).prop_map(|(bit, step)| ((1_i64 << bit) + step) as u32),
        Just(u32::MAX),
    ]
}

pub(crate) fn oid() -> impl Strategy<Value = LongOid> {
    let root =
        prop_oneof![(0..2_u32, 0..40_u32), (Just(2_u32), number().prop_map(|arc| arc.min(u32::MAX - 80)))];
    (root, vec(number(), 0..24)).prop_map(|((first, second), rest)| {
        let arcs: Vec<u32> = [first, second].into_iter().chain(rest).collect();
        LongOid::from_arcs(&arcs).unwrap()
    })
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 100..400)]
}

/// Values of version 2; of version 1 those before Counter64.
pub(crate) fn value(version: Version) -> BoxedStrategy<Owned> {
    let in_v1 = prop_oneof![
        number().prop_map(|value| Owned::Integer(value as i32)),
        octets().prop_map(Owned::OctetString),
        Just(Owned::Null),
        oid().prop_map(|oid| Owned::ObjectIdentifier(Box::new(oid))),
        any::<[u8; 4]>().prop_map(Owned::IpAddress),
        number().prop_map(Owned::Counter32),
        number().prop_map(Owned::Unsigned32),
        number().prop_map(Owned::TimeTicks),
        octets().prop_map(Owned::Opaque),
    ];
    match version {
        Version::V1 => in_v1.boxed(),
        Version::V2c => prop_oneof![
            9 => in_v1,
            2 => (number(), number()).prop_map(|(high, low)| Owned::Counter64(u64::from(high) << 32 | u64::from(low))),
            1 => Just(Owned::NoSuchObject),
            1 => Just(Owned::NoSuchInstance),
            1 => Just(Owned::EndOfMibView),
        ]
        .boxed(),
    }
}

fn natural() -> impl Strategy<Value = u32> {
    number().prop_map(|value| value & i32::MAX as u32)
}

pub(crate) fn header(version: Version) -> BoxedStrategy<PduHeader> {
    let id = number().prop_map(|id| id as i32);
    let in_v1 = prop_oneof![
        id.clone().prop_map(PduHeader::get),
        id.clone().prop_map(PduHeader::get_next),
        id.clone().prop_map(PduHeader::set),
        (id.clone(), 0..20_i32, natural()).prop_map(|(id, status, index)| PduHeader::response(
            id,
            ErrorStatus::from_code(status),
            index
        )),
    ];
    match version {
        Version::V1 => in_v1.boxed(),
        Version::V2c => prop_oneof![
            4 => in_v1,
            1 => (id, natural(), natural())
                .prop_map(|(id, once, often)| PduHeader::get_bulk(id, once, often)),
        ]
        .boxed(),
    }
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    prop_oneof![Just(Version::V1), Just(Version::V2c)].prop_flat_map(|version| {
        (vec(any::<u8>(), 0..40), header(version), vec((oid(), value(version)), 0..12))
            .prop_map(move |(community, header, var_binds)| Spec { version, community, header, var_binds })
    })
}

/// A change of a message that breaks it in most cases.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Cut(usize),
}

pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<usize>();
    let byte = prop_oneof![
        any::<u8>(),
        Just(0x00),
        Just(0x7f),
        Just(0x80),
        Just(0x82),
        Just(0x84),
        Just(0xff),
        Just(0x30)
    ];
    vec(
        prop_oneof![
            4 => (at, byte.clone()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
            1 => (at, byte).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
            1 => at.prop_map(Mutation::Remove),
            1 => at.prop_map(Mutation::Cut),
        ],
        1..5,
    )
}

pub(crate) fn mutate(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match mutation {
            Mutation::Set(at, byte) => bytes[at % len] = *byte,
            Mutation::Insert(at, byte) => bytes.insert(at % len, *byte),
            Mutation::Remove(at) => drop(bytes.remove(at % len)),
            Mutation::Cut(at) => bytes.truncate(at % len),
        }
    }
}

/// Reads a message with all that is in it, and asserts what holds for any bytes; the number of its variables.
pub(crate) fn read_any(bytes: &[u8]) -> Option<usize> {
    grafolean_snmp_codec::request_tag(bytes);
    match Message::decode(bytes) {
        Ok(message) => {
            let mut count = 0;
            for var_bind in message.pdu.var_binds.clone() {
                count += 1;
                match var_bind {
                    Ok(VarBind { oid, value }) => {
                        assert!(oid.arcs().count() >= 2);
                        assert!(oid.starts_with(oid));
                        assert_eq!(LongOid::try_from(oid).as_ref().map(Oid::as_oid_ref), Ok(oid));
                        value.opaque_number();
                    }
                    Err(error) => assert!(error.offset() < bytes.len(), "{error}"),
                }
            }
            assert!(count <= bytes.len() / 2);
            assert!(!format!("{message:?}").is_empty());
            Some(count)
        }
        Err(error) => {
            assert!(error.offset() <= bytes.len(), "{error}");
            None
        }
    }
}
