//! Decoding of one text into types: what serde's types get, limits by name, and errors that hide the content.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::Ipv4Addr;

use grafolean_core::json::{
    DECODE_DEPTH, Decimal, DecodeError, DecodeErrorKind, DurationMs, LenientInt, NumberError, ReadErrorKind,
    Syntax, from_slice,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, DecodeError> {
    from_slice(text.as_bytes(), &mut [0; 64])
}

/// The message of the error.
fn refused<T: DeserializeOwned + Debug>(text: &str) -> String {
    decode::<T>(text).unwrap_err().to_string()
}

#[derive(Debug, PartialEq, Deserialize)]
struct Credential {
    #[serde(default = "two_seconds")]
    timeout: DurationMs,
    #[serde(default)]
    retry: LenientInt<u8>,
    n_packets: Option<u16>,
    community: heapless::String<8>,
}

fn two_seconds() -> DurationMs {
    DurationMs(2000)
}

#[test]
fn settings_are_read_from_numbers_and_strings_alike() {
    let expected = |timeout, retry, n_packets| Credential {
        timeout: DurationMs(timeout),
        retry: LenientInt(retry),
        n_packets,
        community: "püblic".try_into().unwrap(),
    };
    for (text, wanted) in [
        (r#"{"community":"p\u00fcblic"}"#, expected(2000, 0, None)),
        (r#"{"timeout":2.0,"retry":3,"n_packets":null,"community":"püblic"}"#, expected(2000, 3, None)),
        (r#"{"timeout":"1.0","retry":"3","n_packets":"7","community":"püblic"}"#, expected(1000, 3, Some(7))),
        (r#"{"timeout":"2.5","retry":3.0,"n_packets":7.0,"community":"püblic"}"#, expected(2500, 3, Some(7))),
        (
            r#"{"timeout":25e-1,"retry":" 3\n","n_packets":0.7e1,"community":"püblic"}"#,
            expected(2500, 3, Some(7)),
        ),
        (
            r#" { "x" : [ { "community" : 1 } , "\ud800" , 1e999 ] , "community" : "püblic" , "timeout" : 4294967.295 } "#,
            expected(u32::MAX, 0, None),
        ),
    ] {
        assert_eq!(decode::<Credential>(text).as_ref(), Ok(&wanted), "{text}");
    }
}

#[test]
fn errors_name_the_field_the_place_and_the_limit() {
    let with = |field: &str| format!(r#"{{"community":"x",{field}}}"#);
    for (text, message) in [
        (r#"{"timeout":1}"#.to_owned(), "missing field `community` (byte 0)"),
        (with(r#""community":"y""#), "field `community` comes twice (byte 0)"),
        (
            with(r#""timeout":-1"#),
            "unfit value, expected 0 to 4294967.295 seconds (field `timeout`, byte 27)",
        ),
        (with(r#""timeout":"2 s""#), "not a number (field `timeout`, byte 27)"),
        (with(r#""timeout":true"#), "expected a number, found a boolean (field `timeout`, byte 27)"),
        (with(r#""retry":256"#), "unfit value, expected a whole number (u8) (field `retry`, byte 25)"),
        (with(r#""retry":2.5"#), "unfit value, expected a whole number (u8) (field `retry`, byte 25)"),
        (with(r#""n_packets": 65536"#), "unfit value, expected u16 (field `n_packets`, byte 30)"),
        (with(r#""n_packets":-1"#), "unfit value, expected u16 (field `n_packets`, byte 29)"),
        (with(r#""n_packets":1.5"#), "not a whole number (field `n_packets`, byte 29)"),
        (with(r#""n_packets":1e30"#), "number out of range (field `n_packets`, byte 29)"),
        (with(r#""n_packets":[]"#), "expected u16, found an array (field `n_packets`, byte 29)"),
        (
            r#"{"community":"123456789"}"#.to_owned(),
            "unfit length 9, expected a string no more than 8 bytes long (field `community`, byte 13)",
        ),
        (
            r#"{"community":null}"#.to_owned(),
            "expected a string no more than 8 bytes long, found null (field `community`, byte 13)",
        ),
        (
            r#"{"community":"\udead"}"#.to_owned(),
            "escape of half a surrogate pair (field `community`, byte 14)",
        ),
        (r#"{"community":"x""#.to_owned(), "the text ends too early (byte 16)"),
        (r#"{"community":"x"} x"#.to_owned(), "something follows after the value (byte 18)"),
        (r#"{"community":"x",}"#.to_owned(), "expected a key in quotes (byte 17)"),
        (r#"{"community" "x"}"#.to_owned(), "expected a colon (byte 13)"),
        (r#"{"community":"\x"}"#.to_owned(), "unknown escape in a string (field `community`, byte 15)"),
        ("7".to_owned(), "expected struct Credential, found a number (byte 0)"),
        (String::new(), "the text ends too early (byte 0)"),
    ] {
        assert_eq!(refused::<Credential>(&text), message, "{text}");
    }
}

#[test]
fn a_string_with_escapes_must_fit_the_scratch() {
    let text = br#"{"community":"\u0070ublic"}"#;
    assert!(from_slice::<Credential>(text, &mut [0; 6]).is_ok());
    let error = from_slice::<Credential>(text, &mut [0; 5]).unwrap_err();
    assert_eq!(error.kind(), &DecodeErrorKind::Read(ReadErrorKind::TextTooLong { limit: 5 }));
    assert_eq!((error.field(), error.offset()), (Some("community"), 13));
}

#[derive(Debug, PartialEq, Deserialize)]
struct Borrowing<'a> {
    #[serde(borrow)]
    name: &'a str,
    #[serde(borrow)]
    other: Option<&'a str>,
}

#[test]
fn strings_without_escapes_are_borrowed_and_others_cannot_be() {
    let text = r#"{"name":"Črnuče","other":null}"#.to_owned();
    let decoded: Borrowing<'_> = from_slice(text.as_bytes(), &mut []).unwrap();
    assert_eq!(decoded, Borrowing { name: "Črnuče", other: None });
    assert!(text.as_bytes().as_ptr_range().contains(&decoded.name.as_ptr()));
    let error = from_slice::<Borrowing<'_>>(br#"{"name":"\n"}"#, &mut [0; 8]).unwrap_err();
    assert_eq!(error.to_string(), "expected a borrowed string, found a string (field `name`, byte 8)");
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Version {
    V1,
    V2c(heapless::String<8>),
    V3 { user: heapless::String<8>, level: u8 },
    Pair(u8, bool),
}

#[derive(Debug, PartialEq, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Deserialize)]
struct New(u8);

#[test]
fn enums_are_tagged_by_their_name() {
    let text = |text: &str| text.try_into().unwrap();
    assert_eq!(decode(r#""v1""#), Ok(Version::V1));
    assert_eq!(decode(r#""\u0076\u0031""#), Ok(Version::V1));
    assert_eq!(decode(r#"{"v1":null}"#), Ok(Version::V1));
    assert_eq!(decode(r#" { "v2c" : "public" } "#), Ok(Version::V2c(text("public"))));
    assert_eq!(decode(r#"{"v3":{"level":"2","user":"me"}}"#), Ok(Version::V3 { user: text("me"), level: 2 }));
    assert_eq!(decode(r#"{"pair":[1,true]}"#), Ok(Version::Pair(1, true)));
    for (text, message) in [
        (r#""v4""#, "unknown variant, expected `v1` or `v2c` or `v3` or `pair` (byte 0)"),
        (r#"{"v4":1}"#, "unknown variant, expected `v1` or `v2c` or `v3` or `pair` (byte 1)"),
        (r#"{}"#, "unfit length 0, expected an object with one key, the variant (byte 0)"),
        (r#"{"v1":null,"v2c":""}"#, "more items than expected (byte 0)"),
        (r#"{"v1":1}"#, "expected unit, found a number (byte 6)"),
        (r#""v3""#, "expected a variant with content, found a variant without content (byte 0)"),
        (r#"{"v3":{"user":"me"}}"#, "missing field `level` (byte 6)"),
        (r#"{"v3":{"user":"me","level":300}}"#, "unfit value, expected u8 (field `level`, byte 27)"),
        (r#"{"pair":[1]}"#, "unfit length 1, expected tuple variant Version::Pair with 2 eleme (byte 8)"),
        (r#"{"pair":[1,true,2]}"#, "more items than expected (byte 8)"),
        ("1", "expected enum Version, found a number (byte 0)"),
        (r#"{"v1":null"#, "the text ends too early (byte 10)"),
    ] {
        assert_eq!(refused::<Version>(text), message, "{text}");
    }
}

#[test]
fn sequences_tuples_and_maps_are_read_up_to_their_capacity() {
    assert_eq!(decode(r#"[1,"2",3.0]"#), Ok(heapless::Vec::<u8, 4>::from_slice(&[1, 2, 3]).unwrap()));
    assert_eq!(refused::<heapless::Vec<u8, 2>>("[1,2,3]"), "unfit length 3, expected a sequence (byte 0)");
    assert_eq!(decode(r#"[1,-2,"x"]"#), Ok((1u8, -2i8, 'x')));
    assert_eq!(refused::<(u8, u8)>("[1,2,3]"), "more items than expected (byte 0)");
    assert_eq!(refused::<[u8; 3]>("[1,2]"), "unfit length 2, expected an array of length 3 (byte 0)");
    let map = decode::<BTreeMap<String, Vec<i64>>>(r#"{"":[],"a\n":[1],"b":[-1,2]}"#).unwrap();
    assert_eq!(
        map,
        BTreeMap::from([(String::new(), vec![]), ("a\n".to_owned(), vec![1]), ("b".to_owned(), vec![-1, 2])])
    );
    assert_eq!(
        decode::<BTreeMap<u8, bool>>(r#"{"1":true,"2":false}"#),
        Ok(BTreeMap::from([(1, true), (2, false)]))
    );
    assert_eq!(refused::<Vec<u8>>("[1,2"), "the text ends too early (byte 4)");
    assert_eq!(refused::<Vec<u8>>("[1 2]"), "expected a comma or a closing bracket (byte 3)");
    assert_eq!(refused::<Vec<u8>>("[1,]"), "expected a value (byte 3)");
    assert_eq!(decode("null"), Ok(()));
    assert_eq!(decode("null"), Ok(Unit));
    assert_eq!(decode("7"), Ok(New(7)));
    assert_eq!(decode("null"), Ok(None::<New>));
    assert_eq!(decode("7"), Ok(Some(New(7))));
    assert_eq!(refused::<char>(r#""xy""#), "unfit value, expected a character (byte 0)");
    assert_eq!(refused::<bool>("1"), "expected a boolean, found a number (byte 0)");
    assert_eq!(decode(r#"["x",{"y":1}]"#), Ok(IgnoredAny));
}

#[test]
fn floats_are_parsed_only_for_types_that_ask_and_never_infinite() {
    for text in ["2.5", "25e-1", "\"2.5\"", "\" +2.50 \"", "\"\\t2.5\""] {
        assert_eq!(decode(text), Ok(2.5f64), "{text}");
        assert_eq!(decode(text), Ok(2.5f32), "{text}");
    }
    assert_eq!(decode("7"), Ok(7.0f64));
    assert_eq!(decode("\".5\""), Ok(0.5f64));
    assert_eq!(decode("\"5.\""), Ok(5.0f64));
    assert_eq!(decode("123456789012345678901234567890"), Ok(123_456_789_012_345_678_901_234_567_890_f64));
    assert!(decode::<f64>("-0.0").is_ok_and(|zero| zero == 0.0 && zero.is_sign_negative()));
    for text in ["1e999", "\"-1e999\"", "1e99999999999"] {
        assert_eq!(refused::<f64>(text), "number out of range (byte 0)", "{text}");
    }
    assert_eq!(decode("1e-99999999999"), Ok(0.0f64));
    assert!(decode::<f64>("1e39").is_ok());
    assert_eq!(refused::<f32>("1e39"), "number out of range (byte 0)");
    for text in ["\"inf\"", "\"NaN\"", "\"infinity\"", "\"\"", "\"1 2\"", "\"1_0\""] {
        assert_eq!(refused::<f64>(text), "not a number (byte 0)", "{text}");
    }
    assert_eq!(refused::<f64>("[]"), "expected f64, found an array (byte 0)");
    assert_eq!(refused::<serde_json::Value>("[1e999]"), "number out of range (byte 1)");
}

#[test]
fn lenient_types_read_the_same_from_serde_json() {
    for text in ["3", "3.0", "\"3\"", "\" 3.0 \"", "30e-1"] {
        assert_eq!(serde_json::from_str::<LenientInt<u8>>(text).ok(), decode(text).ok(), "{text}");
        assert_eq!(serde_json::from_str::<LenientInt<u8>>(text).ok(), Some(LenientInt(3)), "{text}");
        assert_eq!(serde_json::from_str::<DurationMs>(text).ok(), Some(DurationMs(3000)), "{text}");
        assert_eq!(decode::<Decimal>(text), Ok(Decimal::from(3u64)), "{text}");
    }
    assert_eq!(serde_json::from_str::<DurationMs>("0.1").ok(), Some(DurationMs(100)));
    assert_eq!(serde_json::from_str::<Decimal>("-1e-7").ok(), Decimal::parse("-0.0000001").ok());
    assert_eq!(serde_json::from_str::<Decimal>("1e300").ok(), Decimal::parse("1e300").ok());
    for text in ["null", "true", "[]", "\"x\"", "-1", "256", "0.5"] {
        assert!(serde_json::from_str::<LenientInt<u8>>(text).is_err(), "{text}");
        assert!(decode::<LenientInt<u8>>(text).is_err(), "{text}");
    }
    assert_eq!(core::time::Duration::from(DurationMs(1500)), core::time::Duration::from_millis(1500));
    assert_eq!(*LenientInt(7), 7);
}

#[test]
fn a_text_nested_too_deep_is_refused_where_it_is_decoded_and_passes_where_it_is_ignored() {
    let nest = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let most = usize::from(DECODE_DEPTH);
    assert!(decode::<serde_json::Value>(&nest(most)).is_ok());
    let error = decode::<serde_json::Value>(&nest(most + 1)).unwrap_err();
    assert_eq!(error.kind(), &DecodeErrorKind::TooDeep);
    assert_eq!(decode::<serde_json::Value>(&nest(100_000)).unwrap_err().kind(), &DecodeErrorKind::TooDeep);
    assert_eq!(decode::<IgnoredAny>(&nest(128)), Ok(IgnoredAny));
    let error = decode::<IgnoredAny>(&nest(100_000)).unwrap_err();
    assert_eq!(error.kind(), &DecodeErrorKind::Read(ReadErrorKind::TooDeep));
    let side_by_side = format!("[{}0]", "[[],{}],".repeat(100));
    assert!(decode::<serde_json::Value>(&side_by_side).is_ok());
    let objects = "{\"a\":".repeat(40) + "1" + &"}".repeat(40);
    assert_eq!(decode::<serde_json::Value>(&objects).unwrap_err().kind(), &DecodeErrorKind::TooDeep);
}

/// A type that quotes the value in its own errors, as some do.
#[derive(Debug)]
struct Quoting;

impl<'de> Deserialize<'de> for Quoting {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Err(serde::de::Error::custom(format_args!("{text} is no password")))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only decoded")]
struct Strict {
    address: Ipv4Addr,
    quoting: Option<Quoting>,
    version: Option<Version>,
    n: Option<u8>,
    flag: Option<bool>,
}

#[test]
fn no_error_holds_a_part_of_the_text() {
    for (text, message) in [
        (r#"{"address":"s3cret"}"#, "(field `address`, byte 11)"),
        (r#"{"address":"192.0.2.1","quoting":"s3cret"}"#, "refused by its type (field `quoting`, byte 33)"),
        (r#"{"address":"192.0.2.1","version":"s3cret"}"#, "unknown variant, expected `v1` or"),
        (r#"{"address":"192.0.2.1","n":"s3cret"}"#, "not a number (field `n`, byte 27)"),
        (
            r#"{"address":"192.0.2.1","flag":"s3cret"}"#,
            "expected a boolean, found a string (field `flag`, byte 30)",
        ),
        (
            r#"{"address":"192.0.2.1","s3cret":1}"#,
            "unknown field, expected `address` or `quoting` or `version` or `n` or `flag` (byte 23)",
        ),
        (r#"{"address":"192.0.2.1","n":"s3cret"#, "the text ends too early (field `n`, byte 34)"),
        (r#"["192.0.2.1","s3cret"]"#, "refused by its type (byte 13)"),
        (r#""s3cret""#, "expected struct Strict, found a string (byte 0)"),
    ] {
        let error = decode::<Strict>(text).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(message), "{shown}");
        assert!(!shown.contains("s3cret") && !format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[test]
fn a_text_cut_anywhere_is_refused() {
    let text = r#"{"community":"p\u00fcb","timeout":"1.0","x":[{"y":null},true,-1.5e3]}"#;
    assert!(decode::<Credential>(text).is_ok());
    for length in 0..text.len() {
        let error = decode::<Credential>(&text[..length]).unwrap_err();
        let cut = DecodeErrorKind::Read(ReadErrorKind::Syntax(Syntax::UnexpectedEnd));
        assert_eq!((error.kind(), error.offset()), (&cut, length), "cut at {length}");
    }
}

#[test]
fn whole_numbers_reach_their_bounds_and_no_further() {
    assert_eq!(decode("18446744073709551615"), Ok(u64::MAX));
    assert_eq!(decode("\"-9223372036854775808\""), Ok(i64::MIN));
    assert_eq!(decode("-128"), Ok(i8::MIN));
    assert_eq!(refused::<i8>("-129"), "unfit value, expected i8 (byte 0)");
    let kind = |text| decode::<u64>(text).map_err(|error| error.kind().clone());
    let number = |error| Err(DecodeErrorKind::Read(ReadErrorKind::Number(error)));
    assert_eq!(kind("1e20"), number(NumberError::OutOfRange));
    assert_eq!(kind("123456789012345678901"), number(NumberError::TooManyDigits));
    assert_eq!(kind("0.1"), number(NumberError::NotAnInteger));
}
