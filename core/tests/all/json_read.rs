//! Reading one text by hand: numbers in all their spellings, strings, spans, and errors that say where.

use grafolean_core::json::{
    Decimal, DurationMs, Kind, MAX_DEPTH, NumberError, ReadError, ReadErrorKind, Reader, Syntax,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn reader(text: &str) -> Reader<'_> {
    Reader::new(text.as_bytes())
}

fn error<T>(offset: usize, kind: ReadErrorKind) -> Result<T, ReadError> {
    Err(ReadError { offset, kind })
}

fn number_error<T>(offset: usize, error: NumberError) -> Result<T, ReadError> {
    Err(ReadError { offset, kind: ReadErrorKind::Number(error) })
}

#[test]
fn a_whole_number_is_read_from_every_spelling_that_the_backend_stores() {
    for text in [
        "60",
        "60.0",
        "60.000",
        "6e1",
        "6E+1",
        "0.6e2",
        "600e-1",
        "\"60\"",
        "\"60.0\"",
        "\" 60 \"",
        "\"\\t60\\n\"",
        "\"+60\"",
        "\"060\"",
        "\"6e1\"",
        "\"60.\"",
        "\"\\u00360\"",
        " \n 60",
    ] {
        assert_eq!(reader(text).u64(), Ok(60), "{text}");
        assert_eq!(reader(text).i64(), Ok(60), "{text}");
        assert_eq!(reader(text).int::<u8>(), Ok(60), "{text}");
    }
    assert_eq!(reader("-7.0").i64(), Ok(-7));
    assert_eq!(reader("\"-7\"").int::<i8>(), Ok(-7));
    assert_eq!(reader("-0").u64(), Ok(0));
    assert_eq!(reader("-0.0e5").u64(), Ok(0));
    assert_eq!(reader("\".5e1\"").u64(), Ok(5));
    assert_eq!(reader("0e999999999999").u64(), Ok(0));
    assert_eq!(reader("999999999999999999").u64(), Ok(999_999_999_999_999_999));
    assert_eq!(reader("18446744073709551615").u64(), Ok(u64::MAX));
    assert_eq!(reader("1844674407370955161500e-2").u64(), Ok(u64::MAX));
    assert_eq!(reader("-9223372036854775808").i64(), Ok(i64::MIN));
    assert_eq!(reader("9223372036854775807.000").i64(), Ok(i64::MAX));
}

#[test]
fn a_number_that_does_not_fit_is_refused_by_name_and_place() {
    use NumberError::*;
    assert_eq!(reader(" 2.5").u64(), number_error(1, NotAnInteger));
    assert_eq!(reader("5e-1").u64(), number_error(0, NotAnInteger));
    assert_eq!(reader("\"2.5\"").i64(), number_error(0, NotAnInteger));
    assert_eq!(reader("-1").u64(), number_error(0, OutOfRange));
    assert_eq!(reader("256").int::<u8>(), number_error(0, OutOfRange));
    assert_eq!(reader("\"256\"").int::<u8>(), number_error(0, OutOfRange));
    assert_eq!(reader("18446744073709551616").u64(), number_error(0, TooManyDigits));
    assert_eq!(reader("1e20").u64(), number_error(0, OutOfRange));
    assert_eq!(reader("1e300").u64(), number_error(0, OutOfRange));
    assert_eq!(reader("1e99999999999").u64(), number_error(0, OutOfRange));
    assert_eq!(reader("1e-99999999999").u64(), number_error(0, OutOfRange));
    assert_eq!(reader("9223372036854775808").i64(), number_error(0, OutOfRange));
    assert_eq!(reader("-9223372036854775809").i64(), number_error(0, OutOfRange));
    for text in [
        "\"\"",
        "\" \"",
        "\"x\"",
        "\"6 0\"",
        "\"6_0\"",
        "\"0x10\"",
        "\"NaN\"",
        "\"inf\"",
        "\"-\"",
        "\".\"",
        "\"1e\"",
        "\"1e+\"",
        "\"--1\"",
        "\"1.2.3\"",
        "\"٣\"",
        "\"é\"",
        "\"1,5\"",
        "\"e5\"",
    ] {
        assert_eq!(reader(text).u64(), number_error(0, NotANumber), "{text}");
    }
    for (text, found) in
        [("null", Kind::Null), ("true", Kind::Bool), ("[]", Kind::Array), ("{}", Kind::Object)]
    {
        assert_eq!(reader(text).u64(), error(0, ReadErrorKind::WrongKind { wanted: Kind::Number, found }));
    }
    assert_eq!(reader("012").u64().map_err(|e| e.kind), Err(ReadErrorKind::Syntax(Syntax::BadNumber)));
}

#[test]
fn a_decimal_is_exact_and_shows_as_json() {
    for (text, shown) in [
        ("0", "0"),
        ("-0.000", "0"),
        ("2.50", "2.5"),
        ("-2.50", "-2.5"),
        ("120", "120"),
        ("0.001", "0.001"),
        ("1e3", "1000"),
        ("-1.5e-3", "-0.0015"),
        ("1e-40", "1e-40"),
        ("25e30", "25e30"),
        ("0.12345678901234567890", "0.1234567890123456789"),
        ("18446744073709551615", "18446744073709551615"),
        ("1e20", "100000000000000000000"),
        ("1e-20", "0.00000000000000000001"),
    ] {
        let number = Decimal::parse(text).unwrap();
        assert_eq!(number.to_string(), shown, "{text}");
        assert_eq!(Decimal::parse(shown), Ok(number));
    }
    assert_eq!(Decimal::parse("2.5"), Decimal::parse("250e-2"));
    assert_eq!(Decimal::from(1500u64), Decimal::parse("1.5e3").unwrap());
    assert_eq!(Decimal::from(-20i64), Decimal::parse("-20").unwrap());
    assert_eq!(Decimal::from(i64::MIN).to_i64(), Ok(i64::MIN));
    assert_eq!(Decimal::from(0u32), Decimal::default());
    let number = Decimal::parse("-12.50").unwrap();
    assert_eq!((number.is_negative(), number.magnitude(), number.exponent()), (true, 125, -1));
}

#[test]
fn seconds_become_milliseconds_rounded_to_the_nearest() {
    let millis = |text: &str| Decimal::parse(text).and_then(DurationMs::try_from).map(DurationMs::as_millis);
    assert_eq!(millis("2"), Ok(2000));
    assert_eq!(millis("2.0"), Ok(2000));
    assert_eq!(millis("2.5"), Ok(2500));
    assert_eq!(millis("0.0004999"), Ok(0));
    assert_eq!(millis("0.0005"), Ok(1));
    assert_eq!(millis("1.9999"), Ok(2000));
    assert_eq!(millis("1e-300"), Ok(0));
    assert_eq!(millis("9e-20"), Ok(0));
    assert_eq!(millis("4294967.295"), Ok(u32::MAX));
    assert_eq!(millis("4294967.296"), Err(NumberError::OutOfRange));
    assert_eq!(millis("1e30"), Err(NumberError::OutOfRange));
    assert_eq!(millis("-0.001"), Err(NumberError::OutOfRange));
}

#[test]
fn a_string_without_escapes_is_borrowed_and_others_are_resolved() {
    let text = r#"["plain é🚀","\"\\\/\b\f\n\r\t\u0000\u00e9\uD83D\uDE80",""]"#;
    let mut scratch = [0; 32];
    let mut reader = reader(text);
    reader.begin_array().unwrap();
    assert_eq!(reader.next_item(), Ok(true));
    assert_eq!(reader.str(&mut []), Ok("plain é🚀"));
    assert_eq!(reader.next_item(), Ok(true));
    let string = reader.text().unwrap();
    let resolved = "\"\\/\u{8}\u{c}\n\r\t\0é🚀";
    assert_eq!(string.plain(), None);
    assert_eq!(string.to_str(&mut scratch), Ok(resolved));
    assert_eq!(string.to_string::<32>().as_deref(), Ok(resolved));
    assert!(string == resolved);
    assert!(string != "\"\\/\u{8}\u{c}\n\r\t\0é" && string != "\"\\/\u{8}\u{c}\n\r\t\0é🚀x" && string != "");
    let too_long = |limit| error(string.offset(), ReadErrorKind::TextTooLong { limit });
    let needed = resolved.len();
    assert_eq!(string.to_str(&mut scratch[..needed]), Ok(resolved));
    assert_eq!(string.to_str(&mut scratch[..needed - 1]), too_long(needed - 1));
    assert_eq!(string.to_string::<4>().err(), too_long(4).err());
    assert_eq!(reader.next_item(), Ok(true));
    assert_eq!(reader.str(&mut []), Ok(""));
    assert_eq!(reader.next_item(), Ok(false));
    assert_eq!(reader.end(), Ok(()));
}

#[test]
fn half_a_surrogate_pair_is_refused_where_it_is_decoded_and_skipped_elsewhere() {
    for (text, offset) in [
        (r#""\ud800""#, 1),
        (r#""a\udc00""#, 2),
        (r#""\ud800\ud800""#, 1),
        (r#""\udc00\udc00""#, 1),
        (r#""\ud83dx""#, 1),
        (r#""\ud83d\n""#, 1),
        (r#""\ud83d\u0041""#, 1),
    ] {
        let lone = error(offset, ReadErrorKind::LoneSurrogate);
        assert_eq!(reader(text).str(&mut [0; 32]), lone, "{text}");
        assert!(reader(text).text().unwrap() != "\u{fffd}");
        assert_eq!(reader(text).skip_value().map(|span| span.end), Ok(text.len()));
    }
}

#[test]
fn keys_match_however_they_are_escaped() {
    let mut reader = reader(r#" { "\u0069d" : 1 , "" : 2, "n\u00e4me":3 } "#);
    reader.begin_object().unwrap();
    assert!(reader.next_key().unwrap().unwrap() == "id");
    assert_eq!(reader.u64(), Ok(1));
    assert!(reader.next_key().unwrap().unwrap() == "");
    assert_eq!(reader.u64(), Ok(2));
    assert!(reader.next_key().unwrap().unwrap() == "näme");
    assert_eq!(reader.u64(), Ok(3));
    assert!(reader.next_key().unwrap().is_none());
    assert_eq!(reader.end(), Ok(()));
}

#[test]
fn a_skipped_value_is_found_again_by_its_span() {
    let text = r#"{"a": {"x":[1,{"y":"]}"}]} ,"b":[],"c":-1.5e3,"d":null,"e":true}"#;
    let mut reader = reader(text);
    let mut spans = Vec::new();
    reader.begin_object().unwrap();
    while reader.next_key().unwrap().is_some() {
        spans.push(String::from_utf8(reader.skip_value().unwrap().of(text.as_bytes()).to_vec()).unwrap());
    }
    assert_eq!(spans, [r#"{"x":[1,{"y":"]}"}]}"#, "[]", "-1.5e3", "null", "true"]);
    assert_eq!(reader.offset(), text.len());
}

#[test]
fn booleans_nulls_and_kinds_are_told_apart() {
    let mut r = reader("[true,false,null,1,\"\",{},[]]");
    r.begin_array().unwrap();
    let mut kinds = Vec::new();
    while r.next_item().unwrap() {
        kinds.push(r.peek().unwrap());
        r.skip_value().unwrap();
    }
    use Kind::*;
    assert_eq!(kinds, [Bool, Bool, Null, Number, String, Object, Array]);
    assert_eq!(reader("true").bool(), Ok(true));
    assert_eq!(reader("false").bool(), Ok(false));
    assert_eq!(reader("1").bool(), error(0, ReadErrorKind::WrongKind { wanted: Bool, found: Number }));
    assert_eq!(reader("null").null(), Ok(true));
    assert_eq!(reader("0").null(), Ok(false));
    assert_eq!(reader("nul").null(), error(3, ReadErrorKind::Syntax(Syntax::UnexpectedEnd)));
}

#[test]
fn faults_of_syntax_are_told_with_their_offset() {
    use Syntax::*;
    fn walk(text: &[u8]) -> Result<(), ReadError> {
        let mut reader = Reader::new(text);
        reader.begin_object()?;
        while reader.next_key()?.is_some() {
            reader.begin_array()?;
            while reader.next_item()? {
                reader.skip_value()?;
            }
        }
        reader.end()
    }
    let good = br#" { "a" : [ 1 , "x\n" ] , "b":[] } "#;
    assert_eq!(walk(good), Ok(()));
    for length in 0..good.len() - 2 {
        let cut = error(length, ReadErrorKind::Syntax(UnexpectedEnd));
        assert_eq!(walk(&good[..length]), cut, "cut at {length}");
    }
    for (text, offset, fault) in [
        ("{\"a\":[1,]}", 8, ExpectedValue),
        ("{\"a\":[,1]}", 6, ExpectedValue),
        ("{\"a\":[1 2]}", 8, ExpectedCommaOrEnd),
        ("{\"a\":[1}}", 7, ExpectedCommaOrEnd),
        ("{\"a\":[],}", 8, ExpectedKey),
        ("{,\"a\":[]}", 1, ExpectedKey),
        ("{\"a\" []}", 5, ExpectedColon),
        ("{\"a\":[]]", 7, ExpectedCommaOrEnd),
        ("{\"a\":[]}x", 8, TrailingBytes),
        ("{\"a\":[\"\\q\"]}", 8, BadEscape),
        ("{\"a\":[\"\u{1}\"]}", 7, ControlCharacter),
        ("{\"\u{1}\":[]}", 2, ControlCharacter),
        ("\u{feff}{}", 0, ByteOrderMark),
    ] {
        assert_eq!(walk(text.as_bytes()), error(offset, ReadErrorKind::Syntax(fault)), "{text}");
    }
    assert_eq!(walk(b"{\"a\":[\"\xff\"]}"), error(7, ReadErrorKind::Syntax(BadUtf8)));
    assert_eq!(walk(b"{\"\xff\":[]}"), error(2, ReadErrorKind::Syntax(BadUtf8)));
}

#[test]
fn a_value_nested_too_deep_is_refused_without_recursion() {
    let nest = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(reader(&nest(MAX_DEPTH as usize)).skip_value().is_ok());
    assert_eq!(reader(&nest(MAX_DEPTH as usize + 1)).skip_value(), error(0, ReadErrorKind::TooDeep));
    assert_eq!(reader(&nest(100_000)).skip_value(), error(0, ReadErrorKind::TooDeep));
}

#[test]
fn errors_and_debug_output_hold_nothing_of_the_text() {
    let text = r#"{"community":"s3cret"}"#;
    let mut r = reader(text);
    r.begin_object().unwrap();
    let key = r.next_key().unwrap().unwrap();
    let value = r.clone().text().unwrap();
    let error = r.u64().unwrap_err();
    assert_eq!(error.to_string(), "not a number (byte 13)");
    let debug = format!("{key:?} {value:?} {:?} {error:?}", value.chars());
    assert!(!debug.contains("s3cret") && !debug.contains("community"), "{debug}");
}

/// Failing cases are kept in a file beside this one, and are tried first from then on.
fn kept() -> ProptestConfig {
    let file = FileFailurePersistence::Direct("tests/all/json_read.proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn every_integer_is_read_back(number: u64, signed: i64) {
        prop_assert_eq!(reader(&number.to_string()).u64(), Ok(number));
        prop_assert_eq!(reader(&format!("\"{number}.0\"")).u64(), Ok(number));
        prop_assert_eq!(reader(&signed.to_string()).i64(), Ok(signed));
        prop_assert_eq!(Decimal::from(number).to_string(), number.to_string());
        prop_assert_eq!(Decimal::from(signed), Decimal::parse(&signed.to_string()).unwrap());
    }

    #[test]
    fn every_decimal_shows_as_the_same_number(magnitude in 0..=u64::MAX, exponent in -60i32..60, negative: bool) {
        let text = format!("{}{magnitude}e{exponent}", if negative { "-" } else { "" });
        let number = Decimal::parse(&text).unwrap();
        prop_assert_eq!(Decimal::parse(&number.to_string()), Ok(number));
        // Rust's floats as oracle of the value.
        prop_assert_eq!(number.to_string().parse::<f64>().unwrap(), text.parse::<f64>().unwrap());
        prop_assert!(serde_json::from_str::<serde_json::Value>(&number.to_string()).is_ok());
    }

    #[test]
    fn every_string_is_read_back(string: String) {
        let text = serde_json::to_string(&string).unwrap();
        let mut scratch = vec![0; string.len()];
        prop_assert_eq!(reader(&text).str(&mut scratch), Ok(string.as_str()));
        // All characters escaped.
        let escaped: String = string.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        let text = format!("\"{escaped}\"");
        prop_assert_eq!(reader(&text).str(&mut scratch), Ok(string.as_str()));
        prop_assert!(reader(&text).text().unwrap() == string.as_str());
    }
}
