//! Identifiers, values, errors and limits of messages, by examples.

use grafolean_snmp_codec::{
    DecodeError, DecodeErrorKind, EncodeError, ErrorStatus, MAX_ARCS, Message, MessageWriter, Oid, OidError,
    OidRef, OpaqueNumber, PduHeader, PduKind, RequestTag, Value, VarBind, Version, request_tag,
};

fn oid(text: &str) -> Oid {
    text.parse().unwrap()
}

/// A response with one variable, 1.3.6.1, whose value is encoded as `value`.
fn response(value: &[u8]) -> Vec<u8> {
    let element = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        [&[tag, 0x82][..], &u16::try_from(content.len()).unwrap().to_be_bytes(), &content].concat()
    };
    let var_bind = element(0x30, &[&[6, 3, 0x2b, 6, 1], value]);
    let list = element(0x30, &[&var_bind]);
    let pdu = element(0xa2, &[&[2, 1, 9, 2, 1, 0, 2, 1, 0], &list]);
    element(0x30, &[&[2, 1, 1, 4, 1, b'c'], &pdu])
}

/// Reads a value; errors with the offset from its tag.
fn read(value: &[u8]) -> Result<String, (isize, DecodeErrorKind)> {
    let datagram = response(value);
    let begin = datagram.len() - value.len();
    let mut var_binds = Message::decode(&datagram).unwrap().pdu.var_binds;
    let read = var_binds.next().unwrap();
    assert!(var_binds.next().is_none());
    read.map(|var_bind| format!("{:?}", var_bind.value))
        .map_err(|error| (error.offset() as isize - begin as isize, *error.kind()))
}

#[test]
fn an_identifier_is_read_from_text_with_or_without_a_leading_dot() {
    for (text, arcs) in [
        ("1.3.6.1.2.1.1.3.0", &[1, 3, 6, 1, 2, 1, 1, 3, 0][..]),
        (".1.3.6.1.4.1.4294967295", &[1, 3, 6, 1, 4, 1, u32::MAX]),
        ("0.0", &[0, 0]),
        ("1.39.00128", &[1, 39, 128]),
        ("2.999.3", &[2, 999, 3]),
        ("2.4294967215", &[2, u32::MAX - 80]),
    ] {
        assert_eq!(oid(text).arcs().collect::<Vec<_>>(), arcs, "{text}");
        assert_eq!(oid(text), Oid::<64>::from_arcs(arcs).unwrap());
    }
}

#[test]
fn text_that_is_no_identifier_gets_an_error_that_says_where() {
    for (text, error) in [
        ("", OidError::Text { offset: 0 }),
        (".", OidError::Text { offset: 1 }),
        ("..1.3", OidError::Text { offset: 1 }),
        ("1..3", OidError::Text { offset: 2 }),
        ("1.3.", OidError::Text { offset: 4 }),
        ("1.3.6.x", OidError::Text { offset: 6 }),
        (".1.3.-6", OidError::Text { offset: 5 }),
        ("1.3.+6", OidError::Text { offset: 4 }),
        ("1.3 ", OidError::Text { offset: 3 }),
        ("iso.3", OidError::Text { offset: 0 }),
        ("1", OidError::TooFewArcs),
        ("3.1", OidError::Root),
        ("0.40", OidError::Root),
        ("2.4294967216", OidError::Root),
        ("1.3.4294967296", OidError::ArcRange),
    ] {
        assert_eq!(text.parse::<Oid>().unwrap_err(), error, "{text}");
    }
    assert_eq!("1.3.6.1.128".parse::<Oid<4>>().unwrap_err(), OidError::TooLong { limit_bytes: 4 });
    assert_eq!("1.3.6.1.127".parse::<Oid<4>>().unwrap().to_string(), "1.3.6.1.127");
}

#[test]
fn an_identifier_has_at_most_128_numbers() {
    let mut oid = Oid::<640>::from_arcs(&[1; MAX_ARCS]).unwrap();
    let before = oid.clone();
    assert_eq!(oid.push(1), Err(OidError::TooManyArcs));
    assert_eq!(oid, before);
    assert_eq!(Oid::<640>::from_arcs(&[1; MAX_ARCS + 1]), Err(OidError::TooManyArcs));
    assert_eq!(format!("1{}", ".1".repeat(MAX_ARCS)).parse::<Oid<640>>(), Err(OidError::TooManyArcs));
    assert_eq!(OidRef::from_ber(&[1; MAX_ARCS - 1]).unwrap().arcs().count(), MAX_ARCS);
    assert_eq!(OidRef::from_ber(&[1; MAX_ARCS]), Err(OidError::TooManyArcs));
}

#[test]
fn a_number_that_does_not_fit_leaves_the_identifier_as_it_was() {
    let mut oid = "1.3.6.1".parse::<Oid<5>>().unwrap();
    assert_eq!(oid.push(16_384), Err(OidError::TooLong { limit_bytes: 5 }));
    assert_eq!(oid.to_string(), "1.3.6.1");
    oid.push(16_383).unwrap();
    assert_eq!(oid.as_ber(), [0x2b, 6, 1, 0xff, 0x7f]);
}

#[test]
fn identifiers_are_ordered_by_numbers_rather_than_by_bytes() {
    // ff 7f and 81 80 00.
    assert!(oid("1.3.16383") < oid("1.3.16384"));
    assert!(oid("1.3.16383").as_ber() > oid("1.3.16384").as_ber());
    assert!(oid("1.3.6") < oid("1.3.6.0"));
    assert!(oid("0.39.5") < oid("1.0"));
    assert!(oid("1.39.5") < oid("2.0"));
}

#[test]
fn a_suffix_is_what_lies_behind_the_base() {
    let cell = oid("1.3.6.1.2.1.4.20.1.2.192.0.2.1");
    let index: Vec<u32> = cell.suffix_of(&oid("1.3.6.1.2.1.4.20.1.2")).unwrap().collect();
    assert_eq!(index, [192, 0, 2, 1]);
    assert_eq!(cell.suffix_of(&cell).unwrap().count(), 0);
    assert!(cell.suffix_of(&oid("1.3.6.1.2.1.4.20.1.3")).is_none());
    assert!(oid("1.3.6").suffix_of(&oid("1.3.6.1")).is_none());
    assert!(!oid("1.3.61").starts_with(&oid("1.3.6")));
}

#[test]
fn an_identifier_can_be_a_constant() {
    const UPTIME: Oid<16> = match Oid::from_arcs(&[1, 3, 6, 1, 2, 1, 1, 3, 0]) {
        Ok(oid) => oid,
        Err(_) => panic!("not an identifier"),
    };
    assert_eq!(UPTIME, oid("1.3.6.1.2.1.1.3.0"));
}

#[test]
fn superfluous_bytes_within_an_identifier_do_not_make_it_another_one() {
    let padded = OidRef::from_ber(&[0x80, 0x2b, 0x80, 0x80, 6, 0x80, 0x81, 0x00]).unwrap();
    assert_eq!(padded, oid("1.3.6.128"));
    assert!(padded.starts_with(&oid("1.3.6")));
    assert_eq!(Oid::<64>::try_from(padded).unwrap().as_ber(), [0x2b, 6, 0x81, 0]);
    assert_eq!(OidRef::from_ber(&[]).unwrap(), oid("0.0"));
    assert_eq!(OidRef::from_ber(&[0x2b, 0x81]), Err(OidError::Unfinished));
    assert_eq!(OidRef::from_ber(&[0x2b, 0x8f, 0xff, 0xff, 0xff, 0x7f]).unwrap(), oid("1.3.4294967295"));
    assert_eq!(OidRef::from_ber(&[0x2b, 0x90, 0x80, 0x80, 0x80, 0x00]), Err(OidError::ArcRange));
}

#[test]
fn values_are_read_as_sloppy_agents_send_them() {
    for (bytes, value) in [
        (&[0x02, 1, 0x80][..], "Integer(-128)"),
        (&[0x02, 5, 0xff, 0xff, 0xff, 0xff, 0x80], "Integer(-128)"),
        (&[0x02, 6, 0, 0, 0x7f, 0xff, 0xff, 0xff], "Integer(2147483647)"),
        (&[0x02, 0x84, 0, 0, 0, 1, 5], "Integer(5)"),
        (&[0x41, 4, 0xff, 0xff, 0xff, 0xff], "Counter32(4294967295)"),
        (&[0x41, 5, 0, 0xff, 0xff, 0xff, 0xff], "Counter32(4294967295)"),
        (&[0x41, 9, 0, 0, 0, 0, 0, 0, 0, 0, 7], "Counter32(7)"),
        (&[0x42, 1, 0xc8], "Unsigned32(200)"),
        (&[0x47, 1, 3], "Unsigned32(3)"),
        (&[0x43, 4, 0x80, 0, 0, 0], "TimeTicks(2147483648)"),
        (&[0x46, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "Counter64(18446744073709551615)"),
        (
            &[0x46, 10, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            "Counter64(18446744073709551615)",
        ),
        (&[0x40, 4, 192, 0, 2, 1], "IpAddress([192, 0, 2, 1])"),
        (&[0x06, 0], "ObjectIdentifier(0.0)"),
        (&[0x04, 0x81, 2, b'h', b'i'], "OctetString([104, 105])"),
        (&[0x05, 0], "Null"),
        (&[0x05, 0x82, 0, 0], "Null"),
        (&[0x80, 0], "NoSuchObject"),
        (&[0x81, 0], "NoSuchInstance"),
        (&[0x82, 0], "EndOfMibView"),
    ] {
        assert_eq!(read(bytes), Ok(value.to_owned()), "{bytes:02x?}");
    }
}

#[test]
fn values_out_of_range_or_of_unknown_types_are_errors_with_their_place() {
    use DecodeErrorKind::{BeyondEnd, IntegerRange, Length, TrailingBytes, Truncated, ValueLength, ValueTag};
    for (bytes, offset, kind) in [
        (&[0x02, 0][..], 0, ValueLength { tag: 2, length_bytes: 0 }),
        (&[0x02, 5, 0, 0xff, 0xff, 0xff, 0xff], 0, IntegerRange),
        (&[0x02, 5, 1, 0, 0, 0, 0], 0, IntegerRange),
        (&[0x41, 0], 0, ValueLength { tag: 0x41, length_bytes: 0 }),
        (&[0x41, 5, 1, 0, 0, 0, 0], 0, IntegerRange),
        (&[0x41, 5, 0xff, 0xff, 0xff, 0xff, 0xff], 0, IntegerRange),
        (&[0x46, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0], 0, IntegerRange),
        (&[0x40, 3, 1, 2, 3], 0, ValueLength { tag: 0x40, length_bytes: 3 }),
        (&[0x05, 1, 0], 0, ValueLength { tag: 5, length_bytes: 1 }),
        (&[0x82, 1, 0], 0, ValueLength { tag: 0x82, length_bytes: 1 }),
        (&[0x06, 2, 0x2b, 0x81], 0, DecodeErrorKind::Oid(OidError::Unfinished)),
        (&[0x45, 1, 0], 0, ValueTag { tag: 0x45 }),
        (&[0x04, 0x80, 0, 0], 0, Length),
        (&[0x04, 0x85, 0, 0, 0, 0, 0], 0, Length),
        (
            &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff],
            0,
            BeyondEnd { length_bytes: u32::MAX as usize, available_bytes: 0 },
        ),
        (&[0x04, 5, 1, 2], 0, BeyondEnd { length_bytes: 5, available_bytes: 2 }),
        (&[0x04, 0x82, 1], 0, Truncated),
        (&[0x04], 0, Truncated),
        (&[], 0, Truncated),
        (&[0x05, 0, 7, 7], 2, TrailingBytes { bytes: 2 }),
    ] {
        assert_eq!(read(bytes), Err((offset, kind)), "{bytes:02x?}");
    }
}

#[test]
fn a_bad_value_does_not_hide_the_variables_behind_it_but_a_bad_structure_ends_the_list() {
    let mut buffer = [0; 200];
    let header = PduHeader::response(1, ErrorStatus::NoError, 0);
    let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"", header).unwrap();
    for index in 0..3 {
        writer.push(&Oid::<8>::from_arcs(&[1, 3, index]).unwrap(), Value::Integer(5)).unwrap();
    }
    let datagram = writer.finish().unwrap();
    // Each variable has 9 bytes: 30 07, 06 02 2b xx, 02 01 05.
    let changed = |from_end: usize, byte: u8| {
        let mut changed = datagram.to_vec();
        let at = changed.len() - from_end;
        changed[at] = byte;
        let message = Message::decode(&changed).unwrap();
        message.pdu.var_binds.map(|read| read.map(|_| ()).map_err(|error| error.offset())).collect::<Vec<_>>()
    };
    assert_eq!(changed(12, 0x45), [Ok(()), Err(datagram.len() - 12), Ok(())]);
    assert_eq!(changed(18, 0x31), [Ok(()), Err(datagram.len() - 18)]);
}

#[test]
fn a_length_beyond_its_parent_is_an_error_even_if_the_datagram_has_the_bytes() {
    let mut buffer = [0; 64];
    let writer = MessageWriter::new(&mut buffer, Version::V1, b"abc", PduHeader::get(5)).unwrap();
    let valid = writer.finish().unwrap();
    let error = |at: usize, byte: u8| {
        let mut bytes = valid.to_vec();
        bytes[at] = byte;
        let DecodeError { .. } = Message::decode(&bytes).unwrap_err();
        Message::decode(&bytes).unwrap_err()
    };
    // 30 len, 02 01 00, 04 03 abc, a0 len, 02 01 05, 02 01 00, 02 01 00, 30 00
    assert_eq!(valid.len(), 23);
    assert_eq!(error(11, 12).kind(), &DecodeErrorKind::BeyondEnd { length_bytes: 12, available_bytes: 11 });
    assert_eq!(error(11, 12).offset(), 10);
    assert_eq!(error(22, 1).to_string(), "at byte 21: an element of 1 bytes where only 0 are left");
    assert_eq!(error(11, 10).to_string(), "at byte 21: the message ends within an element's tag or length");
    assert_eq!(error(6, 200).kind(), &DecodeErrorKind::Length, "200 is 72 bytes of length");
    assert_eq!(error(4, 3).kind(), &DecodeErrorKind::Version { found: 3 });
    assert_eq!(error(10, 0xa4).kind(), &DecodeErrorKind::PduTag { tag: 0xa4 });
    assert_eq!(error(12, 4).kind(), &DecodeErrorKind::Tag { expected: 2, found: 4 });
}

#[test]
fn a_writer_without_room_says_what_is_too_long_and_what_is_left() {
    let mut buffer = [0; 40];
    let header = PduHeader::get(1);
    let error = MessageWriter::new(&mut buffer, Version::V2c, &[b'x'; 40], header).unwrap_err();
    assert_eq!(error, EncodeError::DoesNotFit { part: "header", needed_bytes: 60, available_bytes: 40 });

    let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"", header).unwrap();
    assert!(writer.is_empty());
    writer.push_oid(&oid("1.3.6.1")).unwrap();
    let left = writer.available_bytes();
    let error = writer.push(&oid("1.3.6.1"), Value::OctetString(&[0; 20])).unwrap_err();
    assert_eq!(error, EncodeError::DoesNotFit { part: "variable", needed_bytes: 29, available_bytes: left });
    assert_eq!(
        error.to_string(),
        format!("the variable takes 29 bytes of the message where {left} are left")
    );
    let datagram = writer.finish().unwrap();
    assert_eq!(Message::decode(datagram).unwrap().pdu.var_binds.count(), 1);
}

#[test]
fn lengths_are_written_in_their_shortest_form() {
    let mut buffer = [0; 1000];
    for (len, length) in [(127, &[127][..]), (128, &[0x81, 128]), (255, &[0x81, 255]), (256, &[0x82, 1, 0])] {
        let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"", PduHeader::set(1)).unwrap();
        writer.push(&oid("1.3"), Value::OctetString(&[7; 256][..len])).unwrap();
        let datagram = writer.finish().unwrap();
        let (before, _) = datagram.split_at(datagram.len() - len);
        let written = [&[6, 1, 0x2b, 4][..], length].concat();
        assert!(before.ends_with(&written), "{len}: {before:02x?}");
    }
}

#[test]
fn a_message_takes_at_most_65535_bytes_of_a_longer_buffer() {
    let mut buffer = vec![0; 100_000];
    let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"public", PduHeader::set(1)).unwrap();
    let room = writer.available_bytes();
    assert!(room < 65_535 - 30);
    let name = oid("1.3.6.1");
    // The variable's own frames: 4 and 4 bytes, and 5 of the identifier.
    let too_long = vec![7; room - 12];
    assert!(matches!(
        writer.push(&name, Value::OctetString(&too_long)),
        Err(EncodeError::DoesNotFit { part: "variable", .. })
    ));
    writer.push(&name, Value::OctetString(&too_long[1..])).unwrap();
    assert_eq!(writer.available_bytes(), 0);
    let datagram = writer.finish().unwrap();
    assert!(datagram.len() <= 65_535);
    let value = Message::decode(datagram).unwrap().pdu.var_binds.next().unwrap().unwrap().value;
    assert_eq!(value, Value::OctetString(&too_long[1..]));
}

#[test]
fn version_1_has_no_bulk_requests_no_64_bit_counters_and_no_exceptions() {
    let mut buffer = [0; 100];
    for header in [PduHeader::get_bulk(1, 0, 10), PduHeader::report(1)] {
        let error = MessageWriter::new(&mut buffer, Version::V1, b"c", header).unwrap_err();
        assert_eq!(error, EncodeError::NotInV1 { what: "kind of PDU" });
    }
    let header = PduHeader::response(1, ErrorStatus::NoError, 0);
    let mut writer = MessageWriter::new(&mut buffer, Version::V1, b"c", header).unwrap();
    for value in [Value::Counter64(1), Value::NoSuchObject, Value::NoSuchInstance, Value::EndOfMibView] {
        let error = writer.push(&oid("1.3"), value).unwrap_err();
        assert_eq!(error, EncodeError::NotInV1 { what: "type of value" });
    }
    assert!(writer.is_empty());
}

#[test]
fn bulk_fields_and_error_fields_are_never_negative() {
    let bulk = PduHeader::get_bulk(1, u32::MAX, 10);
    assert_eq!(
        (bulk.kind(), bulk.non_repeaters(), bulk.max_repetitions()),
        (PduKind::GetBulk, 0x7fff_ffff, 10)
    );
    // A response with error-index -1, as some agents send it.
    let mut datagram = response(&[5, 0]);
    let at = datagram.windows(3).position(|bytes| bytes == [2, 1, 0]).unwrap() + 3;
    datagram[at + 2] = 0xff;
    let header = Message::decode(&datagram).unwrap().pdu.header;
    assert_eq!((header.error_status(), header.error_index()), (ErrorStatus::NoError, 0));
}

#[test]
fn error_statuses_have_the_names_and_numbers_of_the_standard() {
    let names = [
        "noError",
        "tooBig",
        "noSuchName",
        "badValue",
        "readOnly",
        "genErr",
        "noAccess",
        "wrongType",
        "wrongLength",
        "wrongEncoding",
        "wrongValue",
        "noCreation",
        "inconsistentValue",
        "resourceUnavailable",
        "commitFailed",
        "undoFailed",
        "authorizationError",
        "notWritable",
        "inconsistentName",
    ];
    for (code, name) in (0..).zip(names) {
        let status = ErrorStatus::from_code(code);
        assert_eq!((status.code(), status.to_string().as_str()), (code, name));
    }
    assert_eq!(ErrorStatus::from_code(19), ErrorStatus::Unknown(19));
    assert_eq!(ErrorStatus::from_code(-1).to_string(), "error status -1");
}

#[test]
fn a_tag_is_read_from_the_beginning_of_a_message_whatever_comes_behind() {
    let mut buffer = [0; 100];
    let writer =
        MessageWriter::new(&mut buffer, Version::V1, b"public", PduHeader::get_next(-70_000)).unwrap();
    let mut datagram = writer.finish().unwrap().to_vec();
    assert_eq!(request_tag(&datagram), Some(RequestTag::RequestId(-70_000)));
    let last = datagram.len() - 2;
    datagram[last] = 0xff;
    assert_eq!(request_tag(&datagram), Some(RequestTag::RequestId(-70_000)));
    assert_eq!(request_tag(&datagram[..10]), None);
    assert_eq!(request_tag(b"GET / HTTP/1.1"), None);
}

#[test]
fn a_community_string_is_not_displayed() {
    let mut buffer = [0; 100];
    let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"s3cret", PduHeader::get(1)).unwrap();
    writer.push_oid(&oid("1.3.6")).unwrap();
    let numbers = format!("{:?}", b"s3cret");
    let shown = format!("{writer:?}");
    let datagram = writer.finish().unwrap();
    let message = Message::decode(datagram).unwrap();
    for text in [shown, format!("{message:?}"), format!("{message:#?}")] {
        assert!(!text.contains("s3cret") && !text.contains(numbers.trim_matches(['[', ']'])), "{text}");
    }
    assert_eq!(message.community.as_bytes(), b"s3cret");
}

#[test]
fn numbers_which_net_snmp_puts_into_opaque_are_read() {
    use OpaqueNumber::{Counter64, Double, Float, Int64, Unsigned64};
    for (bytes, number) in [
        (&[0x9f, 0x78, 4, 0x3f, 0xc0, 0, 0][..], Some(Float(1.5))),
        (&[0x9f, 0x79, 8, 0xc0, 0x04, 0, 0, 0, 0, 0, 0], Some(Double(-2.5))),
        (&[0x9f, 0x7a, 2, 0xff, 0x00], Some(Int64(-256))),
        (&[0x9f, 0x7a, 9, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(Int64(i64::MAX))),
        (&[0x9f, 0x7b, 9, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(Unsigned64(u64::MAX))),
        (&[0x9f, 0x76, 1, 0xff], Some(Counter64(255))),
        (&[0x9f, 0x76, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0], None),
        (&[0x9f, 0x76, 0], None),
        (&[0x9f, 0x7a, 0], None),
        (&[0x9f, 0x78, 3, 0, 0, 0], None),
        (&[0x9f, 0x78, 4, 0, 0, 0], None),
        (&[0x9f, 0x78, 4, 0, 0, 0, 0, 0], None),
        (&[0x9f, 0x77, 1, 0], None),
        (&[0x9f, 0x7a, 1, 5, 6], None),
        (&[0x04, 1, 0], None),
        (&[], None),
    ] {
        assert_eq!(Value::Opaque(bytes).opaque_number(), number, "{bytes:02x?}");
        assert_eq!(Value::OctetString(bytes).opaque_number(), None);
    }
}

#[test]
fn variables_can_be_iterated_again() {
    let datagram = response(&[2, 1, 5]);
    let pdu = Message::decode(&datagram).unwrap().pdu;
    let name = oid("1.3.6.1");
    let wanted = VarBind { oid: name.as_oid_ref(), value: Value::Integer(5) };
    for _ in 0..2 {
        assert_eq!(pdu.var_binds.clone().collect::<Result<Vec<_>, _>>().unwrap(), [wanted]);
    }
}
