//! Reads any bytes as a message of SNMPv1 or v2c, with async-snmp as the oracle where both accept them.
#![no_main]

use async_snmp::message::CommunityMessage;
use async_snmp::{DecodeConfig, Value as Theirs};
use bytes::Bytes;
use grafolean_snmp_codec::{
    Message, MessageWriter, Oid, OidRef, PduHeader, PduKind, Value, VarBind, request_tag,
};
use libfuzzer_sys::fuzz_target;

fn is_same(ours: Value<'_>, theirs: &Theirs) -> bool {
    match (ours, theirs) {
        (Value::Integer(a), Theirs::Integer(b)) => a == *b,
        (Value::OctetString(a), Theirs::OctetString(b)) | (Value::Opaque(a), Theirs::Opaque(b)) => {
            a == &b[..]
        }
        (Value::Null, Theirs::Null)
        | (Value::NoSuchObject, Theirs::NoSuchObject)
        | (Value::NoSuchInstance, Theirs::NoSuchInstance)
        | (Value::EndOfMibView, Theirs::EndOfMibView) => true,
        (Value::ObjectIdentifier(a), Theirs::ObjectIdentifier(b)) => a.arcs().eq(b.arcs().iter().copied()),
        (Value::IpAddress(a), Theirs::IpAddress(b)) => a == *b,
        (Value::Counter32(a), Theirs::Counter32(b)) | (Value::TimeTicks(a), Theirs::TimeTicks(b)) => a == *b,
        (Value::Unsigned32(a), Theirs::Gauge32(b) | Theirs::UInteger32(b)) => a == *b,
        (Value::Counter64(a), Theirs::Counter64(b)) => a == *b,
        _ => false,
    }
}

/// What was read is the same after it was written.
fn assert_written_is_read(header: PduHeader, var_binds: &[VarBind<'_>]) {
    if matches!(header.kind(), PduKind::Trap | PduKind::Inform) {
        return;
    }
    let mut buffer = vec![0; 65_535];
    let version = grafolean_snmp_codec::Version::V2c;
    let mut writer = MessageWriter::new(&mut buffer, version, b"c", header).unwrap();
    let fitting = var_binds.iter().take_while(|v| writer.push(v.oid, v.value).is_ok()).count();
    let message = Message::decode(writer.finish().unwrap()).unwrap();
    assert_eq!(message.pdu.header, header);
    assert_eq!(message.pdu.var_binds.collect::<Result<Vec<_>, _>>().unwrap(), var_binds[..fitting]);
}

fuzz_target!(|bytes: &[u8]| {
    request_tag(bytes);
    if let Ok(oid) = OidRef::from_ber(bytes) {
        let copy = Oid::<640>::try_from(oid).unwrap();
        assert_eq!(copy.as_oid_ref(), oid);
        assert_eq!(copy.to_string().parse::<Oid<640>>().unwrap(), copy);
    }
    Value::Opaque(bytes).opaque_number();

    let message = match Message::decode(bytes) {
        Ok(message) => message,
        Err(error) => return assert!(error.offset() <= bytes.len(), "{error}"),
    };
    let mut var_binds = Vec::new();
    for var_bind in message.pdu.var_binds.clone() {
        match var_bind {
            Ok(var_bind) => var_binds.push(var_bind),
            Err(error) => return assert!(error.offset() < bytes.len(), "{error}"),
        }
    }
    assert_written_is_read(message.pdu.header, &var_binds);
    let theirs = CommunityMessage::decode(Bytes::copy_from_slice(bytes), DecodeConfig::STRICT);
    if let Some(theirs) = theirs.ok().and_then(|outcome| outcome.value.pdu().standard().cloned()) {
        assert_eq!(message.pdu.header.request_id(), theirs.request_id());
        assert_eq!(var_binds.len(), theirs.varbinds().len());
        for (ours, theirs) in var_binds.iter().zip(theirs.varbinds()) {
            assert!(ours.oid.arcs().eq(theirs.oid.arcs().iter().copied()), "{ours:?} {theirs:?}");
            // An empty identifier is 0.0 here, and empty there.
            assert!(is_same(ours.value, &theirs.value), "{ours:?} {theirs:?}");
        }
    }
});
