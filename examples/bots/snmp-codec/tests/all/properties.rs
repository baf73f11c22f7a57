//! What holds for every message, and for any bytes.

use crate::support::{LongOid, Spec, mutate, mutations, oid, read_any, spec};
use grafolean_snmp_codec::{EncodeError, Message, MessageWriter, Oid, OidRef, RequestTag, request_tag};
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_written_is_read(spec in spec()) {
        let datagram = spec.write();
        let message = Message::decode(&datagram).unwrap();
        prop_assert_eq!(message.version, spec.version);
        prop_assert_eq!(message.community.as_bytes(), &spec.community[..]);
        spec.assert_read_as(&message.pdu);
        prop_assert_eq!(request_tag(&datagram), Some(RequestTag::RequestId(spec.header.request_id())));
    }

    #[test]
    fn a_message_that_ends_too_soon_is_an_error_and_what_lies_behind_it_is_ignored(
        spec in spec(), padding in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let mut datagram = spec.write();
        for len in 0..datagram.len() {
            prop_assert!(Message::decode(&datagram[..len]).is_err(), "{} bytes", len);
        }
        datagram.extend(padding);
        spec.assert_read_as(&Message::decode(&datagram).unwrap().pdu);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_any(&bytes);
    }

    #[test]
    fn a_changed_message_is_read_without_a_panic(spec in spec(), changes in mutations()) {
        let mut bytes = spec.write();
        mutate(&mut bytes, &changes);
        read_any(&bytes);
    }

    #[test]
    fn a_writer_takes_what_it_says_fits_and_no_more_than_its_buffer(spec in spec(), len in 0..700_usize) {
        let mut buffer = vec![0; len];
        let unlimited = Spec { var_binds: Vec::new(), ..spec.clone() }.write().len();
        let mut writer = match MessageWriter::new(&mut buffer, spec.version, &spec.community, spec.header) {
            Ok(writer) => writer,
            Err(EncodeError::DoesNotFit { needed_bytes, available_bytes, .. }) => {
                prop_assert_eq!(available_bytes, len);
                prop_assert!(needed_bytes > len && needed_bytes <= unlimited + 9);
                return Ok(());
            }
            Err(error) => panic!("{error}"),
        };
        let oids: Vec<&LongOid> = spec.var_binds.iter().map(|(oid, _)| oid).collect();
        let fitting = writer.how_many_fit(oids.iter().copied());
        for (index, oid) in oids.iter().enumerate() {
            match writer.push_oid(*oid) {
                Ok(()) => prop_assert!(index < fitting),
                Err(error) => {
                    prop_assert_eq!(index, fitting);
                    let is_variable = matches!(error, EncodeError::DoesNotFit { part: "variable", needed_bytes, available_bytes }
                        if needed_bytes > available_bytes && available_bytes == writer.available_bytes());
                    prop_assert!(is_variable, "{}", error);
                    break;
                }
            }
        }
        let datagram = writer.finish().unwrap();
        prop_assert!(datagram.len() <= len);
        let read: Vec<_> = Message::decode(datagram).unwrap().pdu.var_binds.map(|v| v.unwrap().oid).collect();
        prop_assert_eq!(read, oids[..fitting].iter().map(|oid| OidRef::from(*oid)).collect::<Vec<_>>());
    }

    #[test]
    fn identifiers_are_ordered_and_nested_as_their_numbers_are(a in oid(), b in oid(), suffix in proptest::collection::vec(any::<u32>(), 0..4)) {
        let arcs = |oid: &LongOid| oid.arcs().collect::<Vec<_>>();
        prop_assert_eq!(a.cmp(&b), arcs(&a).cmp(&arcs(&b)));
        prop_assert_eq!(a == b, arcs(&a) == arcs(&b));
        prop_assert_eq!(a.starts_with(&b), arcs(&a).starts_with(&arcs(&b)));
        let mut below = a.clone();
        suffix.iter().for_each(|arc| below.push(*arc).unwrap());
        prop_assert_eq!(below.suffix_of(&a).unwrap().collect::<Vec<_>>(), suffix.clone());
        prop_assert!(below >= a && below.starts_with(&a) && (suffix.is_empty() || !a.starts_with(&below)));
    }

    #[test]
    fn an_identifier_is_the_same_after_text_and_bytes(oid in oid()) {
        prop_assert_eq!(&oid.to_string().parse::<LongOid>().unwrap(), &oid);
        prop_assert_eq!(&format!(".{oid}").parse::<LongOid>().unwrap(), &oid);
        prop_assert_eq!(OidRef::from_ber(oid.as_ber()).unwrap(), oid.clone());
        prop_assert_eq!(LongOid::from_arcs(&oid.arcs().collect::<Vec<_>>()).unwrap(), oid.clone());
        // A shorter one takes it exactly if it has room for its bytes.
        prop_assert_eq!(Oid::<20>::try_from(oid.as_oid_ref()).is_ok(), oid.as_ber().len() <= 20);
    }

    #[test]
    fn any_bytes_are_an_identifier_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(oid) = OidRef::from_ber(&bytes) {
            let copy = LongOid::try_from(oid).unwrap();
            prop_assert_eq!(copy.as_oid_ref(), oid);
            prop_assert!(copy.as_ber().len() <= bytes.len().max(1));
        }
    }

    #[test]
    fn any_text_is_an_identifier_or_an_error_within_it(text in "[0-9.]{0,30}|.{0,10}") {
        match text.parse::<LongOid>() {
            Ok(oid) => prop_assert_eq!(oid.to_string().parse::<LongOid>().unwrap(), oid),
            Err(grafolean_snmp_codec::OidError::Text { offset }) => prop_assert!(offset <= text.len()),
            Err(_) => {}
        }
    }
}
