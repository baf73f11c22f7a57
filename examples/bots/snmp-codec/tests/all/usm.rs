//! The user-based security model: keys, what is accepted and what is not, clocks, reports, and any bytes.

use crate::support::{Spec, mutate, mutations, spec};
use grafolean_snmp_codec::v3::{
    Answer, AnswerError, AuthProtocol, Engine, EngineId, KeyError, LocalizedKeys, MasterKeys, PrivProtocol,
    Report, ReportReason, RequestParams, Security, SecurityLevel, TIME_WINDOW_S, UserNameTooLong,
    discovery_request,
};
use grafolean_snmp_codec::{
    DecodeErrorKind, EncodeError, ErrorStatus, Message, MessageWriter, Oid, PduHeader, PduKind, Value,
};
use proptest::prelude::*;

const AUTH: [AuthProtocol; 6] = [
    AuthProtocol::Md5,
    AuthProtocol::Sha1,
    AuthProtocol::Sha224,
    AuthProtocol::Sha256,
    AuthProtocol::Sha384,
    AuthProtocol::Sha512,
];

const PRIVACY: [PrivProtocol; 6] = [
    PrivProtocol::Des,
    PrivProtocol::Aes128,
    PrivProtocol::Aes192Blumenthal,
    PrivProtocol::Aes256Blumenthal,
    PrivProtocol::Aes192Reeder,
    PrivProtocol::Aes256Reeder,
];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn id() -> EngineId {
    EngineId::new(b"\x80\x00\x1f\x88\x80agent").unwrap()
}

/// Boot 5, second 1000 at 0 ms.
fn engine() -> Engine {
    Engine { boots: 5, time_s: 1000, learned_at_ms: 0, is_verified: true, ..Engine::new(id()) }
}

/// Ready keys, as making them of passwords takes long; every byte of both is `byte`.
fn keys(auth: Option<AuthProtocol>, privacy: Option<PrivProtocol>, byte: u8) -> LocalizedKeys {
    let key = [byte; 64];
    LocalizedKeys::from_keys(
        id(),
        auth.map(|protocol| (protocol, &key[..protocol.key_bytes()])),
        privacy.map(|protocol| (protocol, &key[..protocol.key_bytes()])),
    )
    .unwrap()
}

fn strong() -> LocalizedKeys {
    keys(Some(AuthProtocol::Sha256), Some(PrivProtocol::Aes128), 1)
}

fn signing() -> LocalizedKeys {
    keys(Some(AuthProtocol::Sha256), None, 1)
}

/// What an agent would send: a message of user `u` whose only variable is `oid` with `value`.
fn message(keys: &LocalizedKeys, engine: &Engine, header: PduHeader, oid: &str, value: Value<'_>) -> Vec<u8> {
    let mut buffer = [0; 1472];
    let security = Security::new(b"u", keys).unwrap();
    let params = RequestParams::new(1, header, engine.learned_at_ms, 99);
    let mut writer = security.encode_request(&mut buffer, engine, params).unwrap();
    writer.push(&oid.parse::<Oid>().unwrap(), value).unwrap();
    writer.finish().unwrap().to_vec()
}

fn answer(keys: &LocalizedKeys, engine: &Engine) -> Vec<u8> {
    message(keys, engine, PduHeader::response(1, ErrorStatus::NoError, 0), "1.3.6.1", Value::Integer(7))
}

fn report(keys: &LocalizedKeys, engine: &Engine, oid: &str) -> Vec<u8> {
    message(keys, engine, PduHeader::report(0), oid, Value::Counter32(1))
}

const NOT_IN_TIME_WINDOW: &str = "1.3.6.1.6.3.15.1.1.2.0";

/// What user `u` makes of a datagram at second `now_s`: its first value, or the report.
fn decode(
    keys: &LocalizedKeys,
    engine: &mut Engine,
    datagram: &[u8],
    now_s: u64,
) -> Result<Result<String, Report>, AnswerError> {
    let security = Security::new(b"u", keys).unwrap();
    security.decode_response(engine, &mut datagram.to_vec(), now_s * 1000).map(|answer| match answer {
        Answer::Response(scoped) => {
            Ok(scoped.pdu.var_binds.map(|v| format!("{:?}", v.unwrap().value)).collect::<Vec<_>>().join(","))
        }
        Answer::Report(report) => Err(report),
    })
}

#[test]
fn passwords_give_the_keys_of_rfc_3414() {
    // Appendices A.3 and A.5.
    let id = EngineId::new(&hex("000000000000000000000002")).unwrap();
    for (protocol, password, key) in [
        (AuthProtocol::Md5, "maplesyrup", "526f5eed9fcce26f8964c2930787d82b"),
        (AuthProtocol::Sha1, "maplesyrup", "6695febc9288e36282235fc7151f128497b38f3f"),
        (AuthProtocol::Md5, "newsyrup", "87021d7bd9d101ba05ea6e3bf9d9bd4a"),
        (AuthProtocol::Sha1, "newsyrup", "78e2dcce79d59403b58c1bbaa5bff46391f1cd25"),
    ] {
        let keys = MasterKeys::auth(protocol, password.as_bytes()).unwrap().localize(&id);
        assert_eq!(keys.auth_key().unwrap(), hex(key), "{protocol:?} {password}");
        assert_eq!(keys.priv_key(), None);
        let keys = MasterKeys::auth_priv(protocol, b"other", PrivProtocol::Aes128, password.as_bytes())
            .unwrap()
            .localize(&id);
        assert_eq!(keys.priv_key().unwrap(), &hex(key)[..16]);
    }
}

#[test]
fn passwords_of_any_length_are_repeated_without_a_gap() {
    // A password and its repetition expand to the same megabyte; 1,024 bytes and more take another way than 512.
    let key = |password: &[u8]| {
        MasterKeys::auth(AuthProtocol::Md5, password).unwrap().localize(&id()).auth_key().unwrap().to_vec()
    };
    let once = key(b"12345678");
    assert_eq!(once, key(&b"12345678".repeat(64)));
    assert_eq!(once, key(&b"12345678".repeat(65)));
    assert_eq!(once, key(&b"12345678".repeat(300)));
    assert_ne!(once, key(b"1234567"));
}

#[test]
fn keys_for_longer_ciphers_differ_between_the_two_drafts_only_where_the_digest_is_too_short() {
    let priv_key = |auth, privacy| {
        let master = MasterKeys::auth_priv(auth, b"authentication", privacy, b"encryption").unwrap();
        master.localize(&id()).priv_key().unwrap().to_vec()
    };
    use PrivProtocol::{Aes128, Aes256Blumenthal, Aes256Reeder};
    let [short, blumenthal, reeder] =
        [Aes128, Aes256Blumenthal, Aes256Reeder].map(|p| priv_key(AuthProtocol::Md5, p));
    assert_eq!((blumenthal.len(), reeder.len()), (32, 32));
    assert_eq!((&blumenthal[..16], &reeder[..16]), (&short[..], &short[..]));
    assert_ne!(blumenthal[16..], reeder[16..]);
    assert_eq!(
        priv_key(AuthProtocol::Sha256, Aes256Blumenthal),
        priv_key(AuthProtocol::Sha256, Aes256Reeder)
    );
}

#[test]
fn keys_of_wrong_lengths_and_empty_passwords_are_errors() {
    assert_eq!(MasterKeys::auth(AuthProtocol::Md5, b"").unwrap_err(), KeyError::EmptyPassword);
    let error = MasterKeys::auth_priv(AuthProtocol::Md5, b"12345678", PrivProtocol::Des, b"").unwrap_err();
    assert_eq!(error, KeyError::EmptyPassword);
    let error = LocalizedKeys::from_keys(id(), Some((AuthProtocol::Sha1, &[0; 16])), None).unwrap_err();
    assert_eq!(error, KeyError::KeyLength { expected_bytes: 20, found_bytes: 16 });
    let auth = Some((AuthProtocol::Md5, &[0; 16][..]));
    let error =
        LocalizedKeys::from_keys(id(), auth, Some((PrivProtocol::Aes192Reeder, &[0; 32]))).unwrap_err();
    assert_eq!(error, KeyError::KeyLength { expected_bytes: 24, found_bytes: 32 });
    let keys = LocalizedKeys::from_keys(id(), None, Some((PrivProtocol::Des, &[0; 16]))).unwrap();
    assert_eq!(keys.level(), SecurityLevel::NoAuthNoPriv);
    assert_eq!(Security::new(&[b'u'; 33], &keys).unwrap_err(), UserNameTooLong { bytes: 33 });
    assert!(EngineId::new(&[]).is_none() && EngineId::new(&[1; 33]).is_none());
}

#[test]
fn protocols_are_read_by_their_usual_names() {
    for (protocol, names) in AUTH.into_iter().zip([
        &["MD5", "md5"][..],
        &["SHA", "sha1", "SHA-1"],
        &["SHA-224", "sha224"],
        &["SHA256"],
        &["SHA-384"],
        &["SHA-512"],
    ]) {
        for name in names {
            assert_eq!(name.parse(), Ok(protocol), "{name}");
        }
    }
    for (protocol, names) in PRIVACY.into_iter().zip([
        &["DES", "des"][..],
        &["AES", "AES128", "aes-128"],
        &["AES-192", "AES192"],
        &["AES256"],
        &["AES-192-C"],
        &["AES256C"],
    ]) {
        for name in names {
            assert_eq!(name.parse(), Ok(protocol), "{name}");
        }
    }
    for name in ["", "SHA3", "AES", "MD"] {
        assert!(name.parse::<AuthProtocol>().is_err(), "{name}");
    }
    for name in ["", "3DES", "AES-512", "SHA"] {
        assert!(name.parse::<PrivProtocol>().is_err(), "{name}");
    }
}

#[test]
fn every_combination_of_protocols_gives_back_what_was_written() {
    let levels = AUTH.into_iter().flat_map(|auth| {
        PRIVACY.into_iter().map(Some).chain([None]).map(move |privacy| (Some(auth), privacy))
    });
    for (auth, privacy) in levels.chain([(None, None)]) {
        let keys = keys(auth, privacy, 9);
        let datagram = answer(&keys, &engine());
        assert_eq!(
            decode(&keys, &mut engine(), &datagram, 0),
            Ok(Ok("Integer(7)".to_owned())),
            "{auth:?} {privacy:?}"
        );
        let is_readable = datagram.windows(5).any(|bytes| bytes == [6, 3, 0x2b, 6, 1]);
        assert_eq!(is_readable, privacy.is_none());
    }
}

#[test]
fn what_lies_behind_an_answer_is_ignored_and_not_covered_by_its_signature() {
    for keys in [keys(None, None, 1), signing(), strong()] {
        let mut datagram = answer(&keys, &engine());
        datagram.extend([0, 0, 7]);
        assert_eq!(decode(&keys, &mut engine(), &datagram, 1), Ok(Ok("Integer(7)".to_string())));
    }
    let mut discovered =
        message(&keys(None, None, 1), &engine(), PduHeader::report(0), "1.3.6.1", Value::Counter32(1));
    discovered.push(0);
    assert_eq!(Engine::from_discovery(&discovered, 0).unwrap().id, id());
}

#[test]
fn a_message_signed_with_another_key_is_refused() {
    let datagram = answer(&keys(Some(AuthProtocol::Sha512), None, 1), &engine());
    let other = keys(Some(AuthProtocol::Sha512), None, 2);
    assert_eq!(decode(&other, &mut engine(), &datagram, 0), Err(AnswerError::Signature));
    let other = keys(Some(AuthProtocol::Sha384), None, 1);
    assert_eq!(decode(&other, &mut engine(), &datagram, 0), Err(AnswerError::Signature));
}

#[test]
fn a_message_encrypted_with_another_key_is_told_from_a_forged_one() {
    for privacy in PRIVACY {
        let key = [3; 32];
        let auth = Some((AuthProtocol::Sha1, &[1; 20][..]));
        let theirs =
            LocalizedKeys::from_keys(id(), auth, Some((privacy, &key[..privacy.key_bytes()]))).unwrap();
        let key = [4; 32];
        let ours =
            LocalizedKeys::from_keys(id(), auth, Some((privacy, &key[..privacy.key_bytes()]))).unwrap();
        let refused = decode(&ours, &mut engine(), &answer(&theirs, &engine()), 0);
        assert!(matches!(refused, Err(AnswerError::Decryption { error: Some(_) })), "{refused:?}");
    }
}

#[test]
fn an_encryption_of_another_shape_is_an_error() {
    // As long as DES has no whole number of blocks.
    let aes = keys(Some(AuthProtocol::Md5), Some(PrivProtocol::Aes128), 1);
    let des = keys(Some(AuthProtocol::Md5), Some(PrivProtocol::Des), 1);
    let header = PduHeader::response(1, ErrorStatus::NoError, 0);
    let shapes: Vec<_> = (0..8)
        .map(|len| {
            let datagram = message(&aes, &engine(), header, "1.3.6.1", Value::OctetString(&[0; 8][..len]));
            decode(&des, &mut engine(), &datagram, 0).unwrap_err()
        })
        .collect();
    assert_eq!(shapes.iter().filter(|error| **error == AnswerError::Decryption { error: None }).count(), 7);
}

#[test]
fn des_adds_no_more_than_fills_its_last_block() {
    let aes = keys(Some(AuthProtocol::Md5), Some(PrivProtocol::Aes128), 1);
    let des = keys(Some(AuthProtocol::Md5), Some(PrivProtocol::Des), 1);
    let header = PduHeader::response(1, ErrorStatus::NoError, 0);
    let mut padding: Vec<_> = (0..8)
        .map(|len| {
            let len =
                |keys| message(keys, &engine(), header, "1.3.6.1", Value::OctetString(&[0; 8][..len])).len();
            len(&des) - len(&aes)
        })
        .collect();
    padding.sort_unstable();
    assert_eq!(padding, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn an_answer_with_less_protection_than_the_request_is_refused() {
    let none = keys(None, None, 0);
    for (ours, theirs) in [(strong(), &none), (strong(), &signing()), (signing(), &none)] {
        let refused = decode(&ours, &mut engine(), &answer(theirs, &engine()), 0);
        assert_eq!(refused, Err(AnswerError::Level { found: theirs.level(), expected: ours.level() }));
    }
    for (ours, theirs) in [(&none, signing()), (&none, strong()), (&signing(), strong())] {
        let refused = decode(ours, &mut engine(), &answer(&theirs, &engine()), 0);
        assert_eq!(refused, Err(AnswerError::Level { found: theirs.level(), expected: ours.level() }));
    }
}

#[test]
fn an_answer_of_another_engine_or_for_another_user_is_refused() {
    let other = EngineId::new(b"another").unwrap();
    for level in [None, Some(AuthProtocol::Md5)] {
        let ours = keys(level, None, 1);
        let key = [1; 16];
        let theirs =
            LocalizedKeys::from_keys(other, level.map(|protocol| (protocol, &key[..])), None).unwrap();
        let datagram = answer(&theirs, &Engine { id: other, ..engine() });
        assert_eq!(decode(&ours, &mut engine(), &datagram, 0), Err(AnswerError::EngineId));
        let mut datagram = answer(&ours, &engine());
        let refused = Security::new(b"v", &ours).unwrap().decode_response(&mut engine(), &mut datagram, 0);
        assert_eq!(refused.map(|_| ()), Err(AnswerError::UserName));
    }
}

#[test]
fn a_request_is_no_answer() {
    for keys in [keys(None, None, 0), strong()] {
        let datagram = message(&keys, &engine(), PduHeader::get(1), "1.3.6.1", Value::Null);
        assert_eq!(decode(&keys, &mut engine(), &datagram, 0), Err(AnswerError::Kind { kind: PduKind::Get }));
    }
}

#[test]
fn requests_are_not_written_with_the_keys_of_another_engine_or_a_negative_number() {
    let (keys, mut buffer) = (strong(), [0; 500]);
    let security = Security::new(b"u", &keys).unwrap();
    let other = Engine::new(EngineId::new(b"other").unwrap());
    let params = RequestParams::new(1, PduHeader::get(1), 0, 0);
    assert_eq!(security.encode_request(&mut buffer, &other, params).unwrap_err(), EncodeError::OtherEngine);
    let params = RequestParams::new(-1, PduHeader::get(1), 0, 0);
    assert_eq!(security.encode_request(&mut buffer, &engine(), params).unwrap_err(), EncodeError::MessageId);
    assert_eq!(discovery_request(&mut buffer, -1, 1).unwrap_err(), EncodeError::MessageId);
    assert!(matches!(
        discovery_request(&mut buffer[..40], 1, 1),
        Err(EncodeError::DoesNotFit { part: "header", .. })
    ));
}

#[test]
fn the_clock_of_an_engine_goes_on_between_messages() {
    let mut engine = Engine { learned_at_ms: 10_000, ..engine() };
    assert_eq!(engine.time_at(9_000), 1000);
    assert_eq!(engine.time_at(10_999), 1000);
    assert_eq!(engine.time_at(20_000), 1010);
    assert_eq!(engine.time_at(u64::MAX), i32::MAX as u32);
    engine = Engine::new(id());
    assert_eq!((engine.boots, engine.time_at(1_000_000)), (0, 0), "an unknown clock asks for it");
}

#[test]
fn signed_answers_set_the_clock_but_those_that_come_late_do_not() {
    let keys = signing();
    let mut here = engine();
    // 100 s later by our clock, 103 s by the engine's.
    let there = Engine { time_s: 1103, ..engine() };
    decode(&keys, &mut here, &answer(&keys, &there), 100).unwrap().unwrap();
    assert_eq!(here, Engine { time_s: 1103, learned_at_ms: 100_000, ..engine() });
    // One that was sent before, and came late.
    decode(&keys, &mut here, &answer(&keys, &engine()), 100).unwrap().unwrap();
    assert_eq!(here.time_at(100_000), 1103);
    // A restart.
    let there = Engine { boots: 6, time_s: 3, ..engine() };
    decode(&keys, &mut here, &answer(&keys, &there), 200).unwrap().unwrap();
    assert_eq!((here.boots, here.time_at(201_000)), (6, 4));
}

#[test]
fn a_clock_that_is_too_slow_or_too_fast_is_followed_for_ever() {
    let keys = signing();
    for gained_s in [-2, 2] {
        let (mut here, mut time_s) = (engine(), 1000_i32);
        for poll in 1..1000_u32 {
            time_s += 100 + gained_s;
            let there = Engine { time_s: time_s as u32, ..engine() };
            decode(&keys, &mut here, &answer(&keys, &there), u64::from(poll) * 100).unwrap().unwrap();
            assert_eq!(here.time_at(u64::from(poll) * 100_000), time_s as u32);
        }
    }
}

#[test]
fn signed_answers_older_than_the_window_are_refused() {
    let keys = signing();
    let old = answer(&keys, &engine());
    let mut here = engine();
    assert!(decode(&keys, &mut here, &old, TIME_WINDOW_S.into()).is_ok());
    assert_eq!(
        decode(&keys, &mut here, &old, u64::from(TIME_WINDOW_S) + 1),
        Err(AnswerError::OutsideTimeWindow { engine: (5, 1000), expected: (5, 1151) })
    );
    assert_eq!(here, engine());
    let before_restart = answer(&keys, &Engine { boots: 4, time_s: 9_999, ..engine() });
    assert_eq!(
        decode(&keys, &mut here, &before_restart, 0),
        Err(AnswerError::OutsideTimeWindow { engine: (4, 9_999), expected: (5, 1000) })
    );
    let stuck = answer(&keys, &Engine { boots: i32::MAX as u32, ..engine() });
    assert!(matches!(decode(&keys, &mut here, &stuck, 0), Err(AnswerError::OutsideTimeWindow { .. })));
}

#[test]
fn a_signed_report_brings_a_wrong_clock_up_to_date_so_that_the_request_can_be_sent_again() {
    let keys = strong();
    let there = Engine { boots: 9, time_s: 50, ..engine() };
    // Agents sign this report, but do not encrypt it.
    let datagram = report(&signing(), &there, NOT_IN_TIME_WINDOW);
    for mut here in [Engine::new(id()), engine(), Engine { boots: 30, is_verified: false, ..engine() }] {
        let found = decode(&keys, &mut here, &datagram, 60).unwrap().unwrap_err();
        assert_eq!(
            found,
            Report {
                reason: ReportReason::NotInTimeWindow,
                is_verified: true,
                engine_id: Some(id()),
                send_again: true
            }
        );
        assert_eq!(here, Engine { learned_at_ms: 60_000, ..there });
    }
}

#[test]
fn a_report_without_signature_changes_nothing() {
    let there = Engine { boots: 9, time_s: 50, ..engine() };
    let datagram = report(&keys(None, None, 0), &there, NOT_IN_TIME_WINDOW);
    let mut here = engine();
    let found = decode(&strong(), &mut here, &datagram, 60).unwrap().unwrap_err();
    assert_eq!(
        (found.reason, found.is_verified, found.send_again),
        (ReportReason::NotInTimeWindow, false, false)
    );
    assert_eq!(here, engine());
}

#[test]
fn a_signed_report_of_anything_but_the_clock_is_no_reason_to_send_again() {
    let datagram = report(&signing(), &engine(), "1.3.6.1.6.3.15.1.1.6.0");
    let found = decode(&strong(), &mut engine(), &datagram, 0).unwrap().unwrap_err();
    assert_eq!(
        (found.reason, found.is_verified, found.send_again),
        (ReportReason::DecryptionError, true, false)
    );
}

#[test]
fn encryption_without_a_signature_is_no_level() {
    let mut datagram = answer(&keys(None, None, 0), &engine());
    // msgFlags, and the security model behind it.
    let at = datagram.windows(6).position(|bytes| bytes == [4, 1, 0, 2, 1, 3]).unwrap();
    datagram[at + 2] = 2;
    let Err(AnswerError::Message(error)) = decode(&strong(), &mut engine(), &datagram, 0) else { panic!() };
    assert_eq!((error.offset(), error.kind()), (at, &DecodeErrorKind::Field { name: "msgFlags" }));
}

#[test]
fn a_report_of_another_engine_tells_its_name() {
    let other = EngineId::new(b"replaced").unwrap();
    let none = LocalizedKeys::from_keys(other, None, None).unwrap();
    let datagram = report(&none, &Engine { id: other, ..engine() }, "1.3.6.1.6.3.15.1.1.4.0");
    let found = decode(&strong(), &mut engine(), &datagram, 0).unwrap().unwrap_err();
    assert_eq!((found.reason, found.engine_id), (ReportReason::UnknownEngineId, Some(other)));
}

#[test]
fn reports_have_their_reasons() {
    for (suffix, reason) in [
        ("15.1.1.1.0", ReportReason::UnsupportedSecurityLevel),
        ("15.1.1.2.0", ReportReason::NotInTimeWindow),
        ("15.1.1.3.0", ReportReason::UnknownUserName),
        ("15.1.1.4.0", ReportReason::UnknownEngineId),
        ("15.1.1.5.0", ReportReason::WrongDigest),
        ("15.1.1.6.0", ReportReason::DecryptionError),
        ("11.2.1.1.0", ReportReason::UnknownSecurityModel),
        ("11.2.1.2.0", ReportReason::InvalidMessage),
        ("11.2.1.3.0", ReportReason::UnknownPduHandler),
        ("12.1.4.0", ReportReason::UnavailableContext),
        ("12.1.5.0", ReportReason::UnknownContext),
        ("15.1.1.7.0", ReportReason::Other),
        ("15.1.1.1", ReportReason::Other),
        ("15.1.1.1.0.0", ReportReason::Other),
        ("12.1.4.0.0", ReportReason::Other),
    ] {
        let oid: Oid = format!("1.3.6.1.6.3.{suffix}").parse().unwrap();
        assert_eq!(ReportReason::from_oid(oid.as_oid_ref()), reason, "{oid}");
    }
    let elsewhere: Oid = "1.3.6.1.6.4.15.1.1.1.0".parse().unwrap();
    assert_eq!(ReportReason::from_oid(elsewhere.as_oid_ref()), ReportReason::Other);
}

#[test]
fn a_discovery_takes_reports_only() {
    let none = keys(None, None, 0);
    let there = Engine { is_verified: false, ..engine() };
    let datagram = report(&none, &there, "1.3.6.1.6.3.15.1.1.4.0");
    assert_eq!(Engine::from_discovery(&datagram, 0), Ok(there));
    assert_eq!(Engine::from_discovery(&answer(&none, &there), 0), Err(AnswerError::NotAReport));
    let mut buffer = [0; 100];
    let nameless = discovery_request(&mut buffer, 1, 1).unwrap().to_vec();
    assert_eq!(Engine::from_discovery(&nameless, 0), Err(AnswerError::NotAReport));
    let mut nameless_report = nameless;
    let at = nameless_report.iter().rposition(|byte| *byte == 0xa0).unwrap();
    nameless_report[at] = 0xa8;
    assert_eq!(Engine::from_discovery(&nameless_report, 0), Err(AnswerError::EngineId));
}

#[test]
fn messages_of_other_versions_are_told_apart() {
    let mut buffer = [0; 100];
    let version = grafolean_snmp_codec::Version::V2c;
    let old = MessageWriter::new(&mut buffer, version, b"public", PduHeader::get(1))
        .unwrap()
        .finish()
        .unwrap()
        .to_vec();
    let Err(AnswerError::Message(error)) = decode(&strong(), &mut engine(), &old, 0) else { panic!() };
    assert_eq!(error.kind(), &DecodeErrorKind::Version { found: 1 });
    let new = answer(&strong(), &engine());
    assert_eq!(Message::decode(&new).unwrap_err().kind(), &DecodeErrorKind::Version { found: 3 });
}

#[test]
fn the_salt_makes_equal_messages_different() {
    for privacy in PRIVACY {
        let keys = keys(Some(AuthProtocol::Sha1), Some(privacy), 1);
        let security = Security::new(b"u", &keys).unwrap();
        let encrypted = |salt| {
            let mut buffer = [0; 500];
            let params = RequestParams::new(1, PduHeader::get(1), 0, salt);
            security.encode_request(&mut buffer, &engine(), params).unwrap().finish().unwrap().to_vec()
        };
        let (one, other) = (encrypted(1), encrypted(2));
        assert_eq!(one.len(), other.len());
        assert_ne!(one[one.len() - 16..], other[other.len() - 16..]);
        assert_eq!(one, encrypted(1));
    }
}

#[test]
fn keys_names_and_passwords_are_not_displayed() {
    let master =
        MasterKeys::auth_priv(AuthProtocol::Md5, b"password", PrivProtocol::Des, b"password").unwrap();
    let localized = keys(Some(AuthProtocol::Sha1), Some(PrivProtocol::Aes128), 0xab);
    let security = Security::new(b"someone", &localized).unwrap();
    let mut buffer = [0; 500];
    let params = RequestParams::new(1, PduHeader::get(1), 0, 0);
    let writer = security.encode_request(&mut buffer, &engine(), params).unwrap();
    assert_eq!(format!("{master:?}"), "MasterKeys { auth: Some(Md5), privacy: Some(Des), .. }");
    assert_eq!(format!("{localized:?}"), "LocalizedKeys { auth: Some(Sha1), privacy: Some(Aes128), .. }");
    assert_eq!(format!("{security:?}"), format!("Security {{ keys: {localized:?}, .. }}"));
    for text in [format!("{writer:?}"), format!("{security:?}")] {
        assert!(!text.contains("171") && !text.contains("115"), "{text}");
    }
}

fn any_keys() -> impl Strategy<Value = LocalizedKeys> {
    let auth = proptest::option::weighted(0.9, prop::sample::select(AUTH.to_vec()));
    let privacy = proptest::option::weighted(0.8, prop::sample::select(PRIVACY.to_vec()));
    (auth, privacy, any::<u8>()).prop_map(|(auth, privacy, byte)| keys(auth, privacy, byte))
}

/// Asserts what holds for any bytes.
fn read_any(keys: &LocalizedKeys, bytes: &[u8]) -> Result<(), AnswerError> {
    let check = |error: &AnswerError| {
        if let AnswerError::Message(error) | AnswerError::Decryption { error: Some(error) } = error {
            assert!(error.offset() <= bytes.len(), "{error}");
        }
        assert!(!error.to_string().is_empty());
    };
    Engine::from_discovery(bytes, 0).inspect_err(check).ok();
    let (mut engine, mut datagram) = (engine(), bytes.to_vec());
    match Security::new(b"u", keys)
        .unwrap()
        .decode_response(&mut engine, &mut datagram, 0)
        .inspect_err(check)?
    {
        Answer::Response(scoped) => assert!(scoped.pdu.var_binds.count() <= bytes.len() / 2),
        Answer::Report(report) => assert!(!report.reason.to_string().is_empty()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_signed_answer_is_refused_when_any_bit_of_it_is_changed(keys in any_keys(), at: prop::sample::Index, bit in 0..8_u32) {
        prop_assume!(keys.level() != SecurityLevel::NoAuthNoPriv);
        let mut datagram = answer(&keys, &engine());
        let at = at.index(datagram.len());
        datagram[at] ^= 1 << bit;
        // A change of the flags can make it a message without signature, which is refused too.
        prop_assert!(decode(&keys, &mut engine(), &datagram, 0).is_err(), "byte {}", at);
    }

    #[test]
    fn an_answer_that_ends_too_soon_is_an_error(keys in any_keys()) {
        let datagram = answer(&keys, &engine());
        for len in 0..datagram.len() {
            prop_assert!(read_any(&keys, &datagram[..len]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(keys in any_keys(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read_any(&keys, &bytes).is_err());
    }

    #[test]
    fn a_changed_answer_is_read_without_a_panic(keys in any_keys(), changes in mutations(), sign: bool) {
        let keys = if sign { keys } else { self::keys(None, None, 0) };
        let mut bytes = answer(&keys, &engine());
        mutate(&mut bytes, &changes);
        read_any(&keys, &bytes).ok();
    }

    #[test]
    fn what_is_written_is_read_from_a_buffer_of_any_length(spec in spec(), keys in any_keys(), len in 0..900_usize, salt: u64) {
        let header = PduHeader::response(spec.header.request_id(), ErrorStatus::NoError, 0);
        let mut spec = Spec { header, ..spec };
        let mut buffer = vec![0xaa; len];
        let security = Security::new(b"u", &keys).unwrap();
        let params = RequestParams::new(1, header, 0, salt).with_context(b"c");
        let mut writer = match security.encode_request(&mut buffer, &engine(), params) {
            Ok(writer) => writer,
            Err(error) => {
                let names_the_limit = matches!(error, EncodeError::DoesNotFit { part: "header", needed_bytes, available_bytes }
                    if needed_bytes > available_bytes && available_bytes == len);
                prop_assert!(names_the_limit && len < 250, "{}", error);
                return Ok(());
            }
        };
        let fitting = spec.var_binds.iter().take_while(|(oid, value)| writer.push(oid, value.borrowed()).is_ok()).count();
        spec.var_binds.truncate(fitting);
        let written = writer.finish().unwrap();
        prop_assert!(written.len() <= len);
        let mut datagram = written.to_vec();
        match security.decode_response(&mut engine(), &mut datagram, 0).unwrap() {
            Answer::Response(scoped) => {
                prop_assert_eq!(scoped.context_name, b"c");
                spec.assert_read_as(&scoped.pdu);
            }
            Answer::Report(report) => panic!("{report:?}"),
        };
    }
}
