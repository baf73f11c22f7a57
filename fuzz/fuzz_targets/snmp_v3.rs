//! Reads any bytes as an answer of SNMPv3: as they are, and signed and encrypted by async-snmp, with itself as oracle.
#![no_main]

use async_snmp::message::{MsgFlags, MsgGlobalData, V3Message};
use async_snmp::v3::auth::authenticate_message;
use async_snmp::v3::{PrivKey, SaltCounter, UsmSecurityParams};
use async_snmp::{
    AuthProtocol as TheirAuth, MessageSize, PrivProtocol as TheirPriv, SecurityLevel as TheirLevel,
};
use grafolean_snmp_codec::v3::{
    Answer, AnswerError, AuthProtocol, Engine, EngineId, LocalizedKeys, PrivProtocol, Security,
};
use libfuzzer_sys::fuzz_target;

const ID: &[u8] = b"\x80\x00\x1f\x88\x80fuzz";
const KEY: [u8; 16] = [7; 16];

fn engine() -> Engine {
    let id = EngineId::new(ID).unwrap();
    Engine { boots: 1, time_s: 1, learned_at_ms: 0, is_verified: true, ..Engine::new(id) }
}

/// The variables of an answer, or what is wrong.
fn read(keys: &LocalizedKeys, datagram: &mut [u8]) -> Result<String, AnswerError> {
    let len = datagram.len();
    let mut engine = engine();
    let answer = Security::new(b"u", keys).unwrap().decode_response(&mut engine, datagram, 0);
    let shown = answer.map(|answer| match answer {
        Answer::Response(scoped) => format!("{scoped:?}"),
        Answer::Report(report) => format!("{:?}", report.reason),
    });
    if let Err(AnswerError::Message(error) | AnswerError::Decryption { error: Some(error) }) = &shown {
        assert!(error.offset() <= len, "{error}");
    }
    shown
}

/// The bytes as an encrypted scoped PDU in a signed message.
fn protect(plain: &[u8]) -> Vec<u8> {
    let privacy = PrivKey::from_bytes(TheirPriv::Aes128, KEY).unwrap();
    let auth = async_snmp::LocalizedKey::from_bytes(TheirAuth::Md5, KEY).unwrap();
    let (text, salt) = privacy.encrypt_aes(plain, 1, 1, &SaltCounter::new().unwrap()).unwrap();
    let size = MessageSize::new(65_507).unwrap();
    let global = MsgGlobalData::new(1, size, MsgFlags::new(TheirLevel::AuthPriv, false)).unwrap();
    let usm = UsmSecurityParams::new(ID.to_vec(), 1, 1, b"u".to_vec()).unwrap();
    let usm = usm.with_auth_placeholder(12).unwrap().with_priv_params(salt).unwrap();
    let message =
        V3Message::new_with_opaque_encrypted_scoped_pdu(global, usm.encode().unwrap(), text).unwrap();
    let mut datagram = message.encode().unwrap().to_vec();
    let (at, len) = UsmSecurityParams::find_auth_params_offset(&datagram).unwrap();
    authenticate_message(&auth, &mut datagram, at, len).unwrap();
    datagram
}

fuzz_target!(|bytes: &[u8]| {
    let id = EngineId::new(ID).unwrap();
    let none = LocalizedKeys::from_keys(id, None, None).unwrap();
    let auth = Some((AuthProtocol::Md5, &KEY[..]));
    let strong = LocalizedKeys::from_keys(id, auth, Some((PrivProtocol::Aes128, &KEY))).unwrap();
    Engine::from_discovery(bytes, 0).ok();
    read(&none, &mut bytes.to_vec()).ok();
    // Nobody signs by chance; reports without signatures pass.
    read(&strong, &mut bytes.to_vec()).ok();

    if bytes.len() > 60_000 {
        return;
    }
    let datagram = protect(bytes);
    match read(&strong, &mut datagram.clone()) {
        Ok(_) | Err(AnswerError::Decryption { error: Some(_) } | AnswerError::Kind { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let mut forged = datagram;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    if !bytes.is_empty() {
        assert_eq!(read(&strong, &mut forged), Err(AnswerError::Signature));
    }
});
