//! Another implementation reads what this one writes, and the other way round: messages, keys and encryption.

use crate::support;
use crate::support::{Spec, mutate, mutations, spec, their_oid, their_value};
use async_snmp::message::{
    CommunityMessage, MsgFlags, MsgGlobalData, RawMsgData, RawV3Message, ScopedPdu, V3Message,
};
use async_snmp::v3::auth::{authenticate_message, verify_message};
use async_snmp::v3::{DesSaltState, MasterKey, PrivKey, SaltCounter, UsmSecurityParams};
use async_snmp::{AuthProtocol as TheirAuth, DecodeConfig, PrivProtocol as TheirPriv};
use bytes::Bytes;
use grafolean_snmp_codec::v3::{
    Answer, AuthProtocol, Engine, EngineId, LocalizedKeys, MasterKeys, PrivProtocol, RequestParams, Security,
    SecurityLevel, discovery_request,
};
use grafolean_snmp_codec::{Message, PduKind, RequestTag, Version, request_tag};
use proptest::prelude::*;

fn their_version(version: Version) -> async_snmp::client::CommunityVersion {
    match version {
        Version::V1 => async_snmp::client::CommunityVersion::V1,
        Version::V2c => async_snmp::client::CommunityVersion::V2c,
    }
}

fn their_decode(datagram: &[u8]) -> async_snmp::Result<CommunityMessage> {
    CommunityMessage::decode(Bytes::copy_from_slice(datagram), DecodeConfig::STRICT)
        .map(|outcome| outcome.value)
}

proptest! {
    #[test]
    fn the_other_implementation_reads_what_is_written(spec in spec()) {
        let theirs = their_decode(&spec.write()).unwrap();
        prop_assert_eq!(theirs.community().as_bytes(), &spec.community[..]);
        prop_assert_eq!(theirs.pdu().standard().unwrap(), &spec.their_pdu());
    }

    #[test]
    fn both_write_the_same_bytes(spec in spec()) {
        // The other one refuses combinations that make no sense.
        let theirs = CommunityMessage::new(their_version(spec.version), spec.community.clone(), spec.their_pdu());
        if let Ok(theirs) = theirs.and_then(|message| message.encode()) {
            prop_assert_eq!(spec.write(), theirs);
        }
    }

    #[test]
    fn what_both_read_in_changed_bytes_is_the_same(spec in spec(), changes in mutations()) {
        let mut bytes = spec.write();
        mutate(&mut bytes, &changes);
        let (Ok(ours), Ok(theirs)) = (Message::decode(&bytes), their_decode(&bytes)) else { return Ok(()) };
        let Some(theirs) = theirs.pdu().standard() else { return Ok(()) };
        prop_assert_eq!(ours.pdu.header.request_id(), theirs.request_id());
        let Ok(read) = ours.pdu.var_binds.collect::<Result<Vec<_>, _>>() else { return Ok(()) };
        prop_assert_eq!(read.len(), theirs.varbinds().len());
        for (ours, theirs) in read.iter().zip(theirs.varbinds()) {
            prop_assert_eq!(their_oid(ours.oid), theirs.oid.clone());
            match &theirs.value {
                // Read as Unsigned32 here.
                async_snmp::Value::UInteger32(value) => prop_assert_eq!(ours.value, grafolean_snmp_codec::Value::Unsigned32(*value)),
                theirs => prop_assert_eq!(&their_value(ours.value), theirs),
            }
        }
    }
}

const AUTH: [(AuthProtocol, TheirAuth); 6] = [
    (AuthProtocol::Md5, TheirAuth::Md5),
    (AuthProtocol::Sha1, TheirAuth::Sha1),
    (AuthProtocol::Sha224, TheirAuth::Sha224),
    (AuthProtocol::Sha256, TheirAuth::Sha256),
    (AuthProtocol::Sha384, TheirAuth::Sha384),
    (AuthProtocol::Sha512, TheirAuth::Sha512),
];

const PRIVACY: [(PrivProtocol, TheirPriv); 6] = [
    (PrivProtocol::Des, TheirPriv::Des),
    (PrivProtocol::Aes128, TheirPriv::Aes128),
    (PrivProtocol::Aes192Blumenthal, TheirPriv::Aes192Blumenthal),
    (PrivProtocol::Aes256Blumenthal, TheirPriv::Aes256Blumenthal),
    (PrivProtocol::Aes192Reeder, TheirPriv::Aes192Reeder),
    (PrivProtocol::Aes256Reeder, TheirPriv::Aes256Reeder),
];

#[test]
fn both_make_the_same_keys_of_passwords() {
    let id = EngineId::new(b"\x80\x00\x1f\x88\x80some engine").unwrap();
    for (auth, their_auth) in AUTH {
        let master = MasterKey::from_password(their_auth, b"for privacy").unwrap();
        let auth_key =
            MasterKey::from_password(their_auth, b"authentication").unwrap().localize(id.as_bytes()).unwrap();
        // The others' keys are long enough for every cipher.
        let is_short = auth.key_bytes() < 32;
        for (privacy, their_privacy) in PRIVACY.into_iter().take(if is_short { 6 } else { 1 }) {
            let keys = MasterKeys::auth_priv(auth, b"authentication", privacy, b"for privacy")
                .unwrap()
                .localize(&id);
            assert_eq!(keys.auth_key().unwrap(), auth_key.as_bytes());
            // The part of the key that makes DES' initialization vectors shows in the messages below.
            let theirs = PrivKey::from_master_key(&master, their_privacy, id.as_bytes()).unwrap();
            let ours = keys.priv_key().unwrap();
            assert_eq!(
                &ours[..theirs.encryption_key().len()],
                theirs.encryption_key(),
                "{auth:?} {privacy:?}"
            );
        }
    }
}

/// Keys of both, with any bytes.
#[derive(Debug)]
struct Keys {
    ours: LocalizedKeys,
    auth: Option<async_snmp::LocalizedKey>,
    privacy: Option<PrivKey>,
}

fn keys(id: EngineId) -> impl Strategy<Value = Keys> {
    let auth = proptest::option::weighted(0.9, prop::sample::select(AUTH.to_vec()));
    let privacy = proptest::option::weighted(0.8, prop::sample::select(PRIVACY.to_vec()));
    (auth, privacy, any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(move |(auth, privacy, a, b)| {
        let bytes = [a, b].concat();
        let auth = auth.map(|(ours, theirs)| (ours, theirs, bytes[..ours.key_bytes()].to_vec()));
        let privacy = privacy
            .filter(|_| auth.is_some())
            .map(|(ours, theirs)| (ours, theirs, a[..ours.key_bytes()].to_vec()));
        Keys {
            ours: LocalizedKeys::from_keys(
                id,
                auth.as_ref().map(|(protocol, _, key)| (*protocol, &key[..])),
                privacy.as_ref().map(|(protocol, _, key)| (*protocol, &key[..])),
            )
            .unwrap(),
            auth: auth.map(|(_, protocol, key)| async_snmp::LocalizedKey::from_bytes(protocol, key).unwrap()),
            privacy: privacy.map(|(_, protocol, key)| PrivKey::from_bytes(protocol, key).unwrap()),
        }
    })
}

fn their_level(level: SecurityLevel) -> async_snmp::SecurityLevel {
    match level {
        SecurityLevel::NoAuthNoPriv => async_snmp::SecurityLevel::NoAuthNoPriv,
        SecurityLevel::AuthNoPriv => async_snmp::SecurityLevel::AuthNoPriv,
        SecurityLevel::AuthPriv => async_snmp::SecurityLevel::AuthPriv,
    }
}

fn engine() -> Engine {
    let id = EngineId::new(b"\x80\x00\x1f\x88\x80abcdef").unwrap();
    Engine { boots: 7, time_s: 70_000, learned_at_ms: 5_000, is_verified: true, ..Engine::new(id) }
}

fn verify_and_read(datagram: &[u8], keys: &Keys) -> (RawV3Message, UsmSecurityParams, ScopedPdu) {
    let message = RawV3Message::decode(Bytes::copy_from_slice(datagram), DecodeConfig::STRICT).unwrap().value;
    let usm =
        UsmSecurityParams::decode(message.security_params().clone(), DecodeConfig::STRICT).unwrap().value;
    usm.validate_for_security_level(message.security_level()).unwrap();
    if let Some(key) = &keys.auth {
        let (at, len) = UsmSecurityParams::find_auth_params_offset(datagram).unwrap();
        assert!(verify_message(key, datagram, at, len).unwrap());
    }
    let plain = match (message.msg_data(), &keys.privacy) {
        (RawMsgData::Plaintext { data, .. }, None) => data.clone(),
        (RawMsgData::Encrypted(text), Some(key)) => {
            key.decrypt(text, usm.engine_boots(), usm.engine_time(), usm.priv_params()).unwrap()
        }
        (data, _) => panic!("{data:?}"),
    };
    let scoped = ScopedPdu::decode(&mut async_snmp::ber::Decoder::new(plain)).unwrap();
    (message, usm, scoped)
}

/// A message of the other implementation, with its own signature and encryption.
fn write_theirs(
    spec: &Spec,
    keys: &Keys,
    engine: &Engine,
    user: &[u8],
    id: i32,
    salts: (&SaltCounter, &DesSaltState),
) -> Vec<u8> {
    let level = their_level(keys.ours.level());
    let size = async_snmp::MessageSize::new(65_507).unwrap();
    let global = MsgGlobalData::new(id, size, MsgFlags::new(level, false)).unwrap();
    let usm =
        UsmSecurityParams::new(engine.id.as_bytes().to_vec(), engine.boots, engine.time_s, user.to_vec())
            .unwrap();
    let usm = match &keys.auth {
        Some(key) => usm.with_auth_placeholder(key.mac_len()).unwrap(),
        None => usm,
    };
    let scoped = ScopedPdu::new(engine.id.as_bytes().to_vec(), b"context".to_vec(), spec.their_pdu());
    let message = match &keys.privacy {
        None => V3Message::new(global, usm.encode().unwrap(), scoped).unwrap(),
        Some(key) => {
            let plain = scoped.encode_to_bytes().unwrap();
            let (text, salt) = if key.protocol() == TheirPriv::Des {
                key.encrypt_des_family(&plain, salts.1).unwrap()
            } else {
                key.encrypt_aes(&plain, engine.boots, engine.time_s, salts.0).unwrap()
            };
            let usm = usm.with_priv_params(salt).unwrap();
            V3Message::new_with_opaque_encrypted_scoped_pdu(global, usm.encode().unwrap(), text).unwrap()
        }
    };
    let mut datagram = message.encode().unwrap().to_vec();
    if let Some(key) = &keys.auth {
        let (at, len) = UsmSecurityParams::find_auth_params_offset(&datagram).unwrap();
        authenticate_message(key, &mut datagram, at, len).unwrap();
    }
    datagram
}

proptest! {
    #[test]
    fn the_other_implementation_verifies_decrypts_and_reads_requests(
        spec in spec(), keys in keys(engine().id), id in 0..=i32::MAX, salt: u64, now_ms in 5_000..1_000_000_u64, proxied: bool,
        user in proptest::collection::vec(any::<u8>(), 1..=32),
    ) {
        let engine = engine();
        let security = Security::new(&user, &keys.ours).unwrap();
        let mut buffer = vec![0; 65_535];
        let context_engine_id = proxied.then(|| EngineId::new(b"behind a proxy").unwrap());
        let params = RequestParams {
            max_answer_bytes: 1_472,
            context_engine_id,
            ..RequestParams::new(id, spec.header, now_ms, salt)
        };
        let mut writer = security.encode_request(&mut buffer, &engine, params.with_context(b"vlan-1")).unwrap();
        spec.push_to(&mut writer);
        let datagram = writer.finish().unwrap();
        prop_assert_eq!(request_tag(datagram), Some(RequestTag::MessageId(id)));

        let (message, usm, scoped) = verify_and_read(datagram, &keys);
        let asks = !matches!(spec.header.kind(), PduKind::Response | PduKind::Report | PduKind::Trap);
        prop_assert_eq!(message.msg_id(), id);
        prop_assert_eq!(message.global_data().msg_max_size(), async_snmp::MessageSize::new(1_472).unwrap());
        prop_assert_eq!(message.global_data().msg_flags(), MsgFlags::new(their_level(keys.ours.level()), asks));
        prop_assert_eq!(&usm.username()[..], &user[..]);
        prop_assert_eq!(&usm.engine_id()[..], engine.id.as_bytes());
        prop_assert_eq!(usm.engine_boots(), 7);
        prop_assert_eq!(u64::from(usm.engine_time()), 70_000 + (now_ms - 5_000) / 1000);
        let id = context_engine_id.unwrap_or(engine.id);
        prop_assert_eq!(scoped, ScopedPdu::new(id.as_bytes().to_vec(), b"vlan-1".to_vec(), spec.their_pdu()));
    }

    #[test]
    fn answers_of_the_other_implementation_are_verified_decrypted_and_read(
        spec in spec(), keys in keys(engine().id), id in 0..=i32::MAX, later_s in 0..1_000_u32,
    ) {
        let mut engine = engine();
        let there = Engine { time_s: engine.time_s + later_s, ..engine };
        let salts = (SaltCounter::new().unwrap(), DesSaltState::install(|_| Ok::<_, std::io::Error>(())).unwrap());
        let header = grafolean_snmp_codec::PduHeader::response(spec.header.request_id(), grafolean_snmp_codec::ErrorStatus::NoError, 0);
        let spec = Spec { header, ..spec };
        let mut datagram = write_theirs(&spec, &keys, &there, b"reader", id, (&salts.0, &salts.1));
        prop_assert_eq!(request_tag(&datagram), Some(RequestTag::MessageId(id)));

        let security = Security::new(b"reader", &keys.ours).unwrap();
        match security.decode_response(&mut engine, &mut datagram, 5_000).unwrap() {
            Answer::Response(scoped) => {
                prop_assert_eq!(scoped.context_engine_id, there.id.as_bytes());
                prop_assert_eq!(scoped.context_name, b"context");
                prop_assert_eq!(scoped.max_message_bytes, 65_507);
                spec.assert_read_as(&scoped.pdu);
            }
            Answer::Report(report) => panic!("{report:?}"),
        }
        let learned = if keys.auth.is_some() { later_s } else { 0 };
        prop_assert_eq!(engine.time_at(5_000), 70_000 + learned);
    }
}

#[test]
fn the_other_implementation_takes_a_discovery_and_its_report_is_understood() {
    let mut buffer = [0; 100];
    let datagram = discovery_request(&mut buffer, 5, 6).unwrap();
    let message = V3Message::decode(Bytes::copy_from_slice(datagram), DecodeConfig::STRICT).unwrap().value;
    let theirs = V3Message::discovery_request(5, async_snmp::MessageSize::new(65_507).unwrap()).unwrap();
    assert_eq!(message.global_data(), theirs.global_data());
    assert_eq!(message.security_params(), theirs.security_params());
    assert_eq!(request_tag(datagram), Some(RequestTag::MessageId(5)));

    let there = engine();
    let none = Keys { ours: MasterKeys::none().localize(&there.id), auth: None, privacy: None };
    let spec = Spec {
        version: Version::V2c,
        community: Vec::new(),
        header: grafolean_snmp_codec::PduHeader::report(6),
        var_binds: vec![("1.3.6.1.6.3.15.1.1.4.0".parse().unwrap(), support::Owned::Counter32(3))],
    };
    let salts =
        (SaltCounter::new().unwrap(), DesSaltState::install(|_| Ok::<_, std::io::Error>(())).unwrap());
    let answer = write_theirs(&spec, &none, &there, b"", 5, (&salts.0, &salts.1));
    let found = Engine::from_discovery(&answer, 9).unwrap();
    assert_eq!(found, Engine { learned_at_ms: 9, is_verified: false, ..there });
}
