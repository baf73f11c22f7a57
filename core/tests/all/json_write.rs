//! Writing of bodies: what comes out is JSON, whole or in pieces, and never more than fits.

use grafolean_core::json::{Decimal, WriteError, Writer};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

/// Writes a value call by call.
fn write(json: &mut Writer<'_>, value: &Value) {
    match value {
        Value::Null => json.null(),
        Value::Bool(value) => json.bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => json.u64(number),
            (_, Some(number)) => json.i64(number),
            _ => json.raw(number.to_string().as_bytes()),
        },
        Value::String(text) => json.string(text),
        Value::Array(items) => {
            json.begin_array();
            items.iter().for_each(|item| write(json, item));
            json.end_array()
        }
        Value::Object(members) => {
            json.begin_object();
            for (key, value) in members {
                json.key(key);
                write(json, value);
            }
            json.end_object()
        }
    };
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Failing cases are kept in a file beside this one, and are tried first from then on.
fn kept() -> ProptestConfig {
    let file = FileFailurePersistence::Direct("tests/all/json_write.proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn what_is_written_is_what_serde_json_writes(value in any_json()) {
        let expected = serde_json::to_vec(&value).unwrap();
        let mut buffer = vec![0; expected.len()];
        let mut json = Writer::new(&mut buffer);
        write(&mut json, &value);
        prop_assert_eq!(json.finish(), Ok(expected.len()));
        prop_assert_eq!(&buffer, &expected);

        let mut buffer = vec![0; expected.len() - 1];
        let mut json = Writer::new(&mut buffer);
        write(&mut json, &value);
        prop_assert_eq!(json.finish(), Err(WriteError::TooLong { needed: expected.len(), limit: expected.len() - 1 }));
        prop_assert_eq!(&buffer, &expected[..expected.len() - 1]);
    }

    #[test]
    fn pieces_of_any_size_make_up_the_whole(value in any_json(), size in 1usize..40) {
        let expected = serde_json::to_vec(&value).unwrap();
        let mut measure = Writer::window(&mut [], 0);
        write(&mut measure, &value);
        prop_assert_eq!(measure.finish(), Ok(0));
        let mut whole = Vec::new();
        while whole.len() < measure.total() {
            let mut piece = vec![0; size];
            let mut json = Writer::window(&mut piece, whole.len());
            write(&mut json, &value);
            let len = json.finish().unwrap();
            prop_assert!(len > 0);
            whole.extend_from_slice(&piece[..len]);
        }
        prop_assert_eq!(whole, expected);
    }
}

fn written(calls: impl FnOnce(&mut Writer<'_>)) -> Result<String, WriteError> {
    let mut buffer = [0; 200];
    let mut json = Writer::new(&mut buffer);
    calls(&mut json);
    let len = json.finish()?;
    Ok(String::from_utf8(buffer[..len].to_vec()).unwrap())
}

#[test]
fn an_entity_is_written_with_details_as_strings() {
    let body = written(|json| {
        json.begin_object().key("name").string("eth0\u{1}\"\\\n").key("entity_type").string("interface");
        json.key("parent").u64(42).key("details").begin_object().key("snmp_index").display(&1);
        json.key("speed_bps").display(&Decimal::from(1_000_000_000u64)).end_object();
        json.key("protocols").raw(br#"{"snmp":null}"#).key("ratio").decimal(Decimal::parse("-2.50").unwrap());
        json.key("list").begin_array().i64(-1).bool(true).null().end_array().end_object();
    });
    assert_eq!(
        body.as_deref(),
        Ok("{\"name\":\"eth0\\u0001\\\"\\\\\\n\",\"entity_type\":\"interface\",\"parent\":42,\
            \"details\":{\"snmp_index\":\"1\",\"speed_bps\":\"1000000000\"},\"protocols\":{\"snmp\":null},\
            \"ratio\":-2.5,\"list\":[-1,true,null]}")
    );
}

#[test]
fn calls_that_make_no_json_are_refused() {
    let cases: [fn(&mut Writer<'_>); 14] = [
        |_| {},
        |json| _ = json.u64(1).u64(2),
        |json| _ = json.begin_object(),
        |json| _ = json.begin_array().end_object(),
        |json| _ = json.begin_object().end_array(),
        |json| _ = json.begin_object().key("a").end_object(),
        |json| _ = json.begin_object().key("a").key("b").u64(1).end_object(),
        |json| _ = json.begin_object().u64(1).end_object(),
        |json| _ = json.begin_object().key("a").u64(1).u64(2).end_object(),
        |json| _ = json.begin_array().key("a").end_array(),
        |json| _ = json.key("a"),
        |json| _ = json.end_array(),
        |json| _ = json.raw(b"[1"),
        |json| _ = json.raw(b"1 2"),
    ];
    for (n, calls) in cases.into_iter().enumerate() {
        assert_eq!(written(calls), Err(WriteError::NotJson), "case {n}");
    }
    let nested = |levels: usize| {
        written(|json| {
            (0..levels).for_each(|_| _ = json.begin_array());
            (0..levels).for_each(|_| _ = json.end_array());
        })
    };
    assert_eq!(nested(32), Ok("[".repeat(32) + &"]".repeat(32)));
    assert_eq!(nested(33), Err(WriteError::NotJson));
}

#[test]
fn a_body_that_does_not_fit_tells_how_much_it_needs() {
    let mut buffer = [b'#'; 8];
    let mut json = Writer::new(&mut buffer[..6]);
    json.string("12345678");
    let error = json.finish().unwrap_err();
    assert_eq!(error, WriteError::TooLong { needed: 10, limit: 6 });
    assert_eq!(error.to_string(), "10 bytes of JSON do not fit into 6");
    assert_eq!(&buffer, b"\"12345##");
}
