//! Generated and mutated texts, with serde_json as the oracle.
//!
//! Where the two differ, by design:
//! - the framer counts brackets only, beyond `MAX_DEPTH` levels; the decoder refuses more than `DECODE_DEPTH` (serde_json: 127);
//! - serde_json's skipping of strings does not check UTF-8, so the oracle is "valid UTF-8 and accepted by serde_json";
//! - serde_json's floats can be off in the last digit (without its feature `float_roundtrip`), ours are exact;
//! - asked for an integer or float, the decoder takes `60.0` and `"60"` too.

use grafolean_core::json::{
    DECODE_DEPTH, DecodeErrorKind, DurationMs, Frame, FrameError, Framer, LenientInt, MAX_DEPTH, ReadError,
    Reader, Span, from_element, from_slice,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// How the body ended, and its elements as they were kept.
type Framed = (Result<(), FrameError>, Vec<(Frame, Vec<u8>)>);

fn frame(mut framer: Framer, body: &[u8], chunk: usize, buffer_len: usize) -> Framed {
    let mut buffer = vec![0; buffer_len];
    let mut elements = Vec::new();
    let keep = |frame: Frame, buffer: &[u8]| {
        let (Frame::Element { len } | Frame::TooLong { kept: len, .. } | Frame::TooDeep { kept: len, .. }) =
            frame
        else {
            unreachable!("no other frames")
        };
        (frame, buffer[..len].to_vec())
    };
    for mut rest in body.chunks(chunk.max(1)) {
        while !rest.is_empty() {
            match framer.push(rest, &mut buffer) {
                Ok((consumed, frame)) => {
                    elements.extend(frame.map(|frame| keep(frame, &buffer)));
                    rest = &rest[consumed..];
                }
                Err(error) => return (Err(error), elements),
            }
        }
    }
    let end = framer.finish().map(|last| elements.extend(last.map(|frame| keep(frame, &buffer))));
    (end, elements)
}

/// Whether the text is JSON, by the oracle.
fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// The deepest nesting of brackets outside strings, if the text is JSON.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Equal but for the last digit of floats.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || (a - b).abs() <= 1e-14 * a.abs().max(f64::MIN_POSITIVE)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((ka, a), (kb, b))| ka == kb && same(a, b))
        }
        _ => ours == theirs,
    }
}

/// Reads all parts of a value by hand. It recurses, so it is for values that are not nested too deep.
fn walk(reader: &mut Reader<'_>) -> Result<Value, ReadError> {
    use grafolean_core::json::Kind;
    Ok(match reader.peek()? {
        Kind::Null => {
            reader.null()?;
            Value::Null
        }
        Kind::Bool => reader.bool()?.into(),
        Kind::Number => {
            let value = reader.decimal();
            match value {
                Ok(number) => serde_json::from_str(&number.to_string()).unwrap_or(Value::Null),
                // The number may be one that no decimal holds; it has been read over.
                Err(error) if matches!(error.kind, grafolean_core::json::ReadErrorKind::Number(_)) => {
                    Value::Null
                }
                Err(error) => return Err(error),
            }
        }
        Kind::String => {
            let mut scratch = [0; 1000];
            reader.str(&mut scratch)?.into()
        }
        Kind::Array => {
            let mut items = Vec::new();
            reader.begin_array()?;
            while reader.next_item()? {
                items.push(walk(reader)?);
            }
            items.into()
        }
        Kind::Object => {
            let mut members = serde_json::Map::new();
            reader.begin_object()?;
            while let Some(key) = reader.next_key()? {
                let mut scratch = [0; 1000];
                let key = key.to_str(&mut scratch)?.to_owned();
                members.insert(key, walk(reader)?);
            }
            members.into()
        }
    })
}

#[derive(Debug, PartialEq, Deserialize)]
struct Entity {
    id: u64,
    name: heapless::String<40>,
    parent: Option<u64>,
    #[serde(default)]
    details: Details,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
struct Details {
    ipv4: Option<heapless::String<15>>,
    timeout: Option<DurationMs>,
    retry: Option<LenientInt<u8>>,
}

/// Where each value lies, itself and all in it, as far as it can be read.
fn spans(reader: &mut Reader<'_>, spans: &mut Vec<Span>) -> Result<(), ReadError> {
    use grafolean_core::json::Kind;
    spans.push(reader.clone().skip_value()?);
    match reader.peek()? {
        Kind::Array => {
            reader.begin_array()?;
            while reader.next_item()? {
                self::spans(reader, spans)?;
            }
        }
        Kind::Object => {
            reader.begin_object()?;
            while reader.next_key()?.is_some() {
                self::spans(reader, spans)?;
            }
        }
        _ => {
            reader.skip_value()?;
        }
    }
    Ok(())
}

/// Reads an unchecked text without checking it, unless it is nested too deep for a test that recurses.
fn walk_shallow(text: &[u8]) -> Option<Result<Value, ReadError>> {
    (depth(text) <= MAX_DEPTH as usize && text.iter().filter(|b| matches!(b, b'[' | b'{')).count() < 200)
        .then(|| walk(&mut Reader::framed(text)))
}

/// Asserts that what reads without checking, since the framer has checked, sees the same in `text` as what checks.
fn check_framed(text: &[u8]) -> Result<(), TestCaseError> {
    let mut places = (Vec::new(), Vec::new());
    spans(&mut Reader::new(text), &mut places.0).map_err(|error| TestCaseError::fail(error.to_string()))?;
    spans(&mut Reader::framed(text), &mut places.1)
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(places.0, places.1);
    prop_assert_eq!(walk(&mut Reader::framed(text)), walk(&mut Reader::new(text)));
    let scratch = &mut [0; 1000];
    prop_assert_eq!(from_element::<Value>(text, scratch), from_slice::<Value>(text, scratch));
    prop_assert_eq!(from_element::<Entity>(text, scratch), from_slice::<Entity>(text, scratch));
    prop_assert_eq!(from_element::<Details>(text, scratch), from_slice::<Details>(text, scratch));
    Ok(())
}

/// Asserts all that must hold for any text.
fn check(text: &[u8]) -> Result<(), TestCaseError> {
    let valid = is_json(text);
    let depth = depth(text);

    // As a document: accepted if and only if the oracle accepts.
    let whole = frame(Framer::document(), text, usize::MAX, 1 << 16);
    for chunk in [1, 7, 256] {
        prop_assert_eq!(&frame(Framer::document(), text, chunk, 1 << 16), &whole, "chunks of {}", chunk);
    }
    if depth <= MAX_DEPTH as usize {
        prop_assert_eq!(whole.0.is_ok(), valid);
    } else {
        prop_assert!(whole.0.is_ok() || !valid);
    }
    if let (Ok(()), [(Frame::Element { .. }, element)]) = (whole.0, &whole.1[..]) {
        prop_assert_eq!(element, &text.trim_ascii_start().trim_ascii_end());
    }

    // As a list: accepted if and only if it is JSON with one array `list`; then the elements are the oracle's.
    let listed = frame(Framer::list("list"), text, usize::MAX, 1 << 16);
    for (chunk, buffer_len) in [(1, 1 << 16), (7, 1 << 16), (256, 1 << 16)] {
        prop_assert_eq!(
            &frame(Framer::list("list"), text, chunk, buffer_len),
            &listed,
            "chunks of {}",
            chunk
        );
    }
    prop_assert_eq!(
        frame(Framer::list("list"), text, 5, 20).0,
        listed.0,
        "the size of the buffer changes nothing"
    );
    if listed.0.is_ok() {
        prop_assert!(valid || depth > MAX_DEPTH as usize);
        if let Ok(Value::Object(members)) = serde_json::from_slice(text) {
            let elements: Vec<Value> =
                listed.1.iter().map(|(_, element)| serde_json::from_slice(element).unwrap()).collect();
            prop_assert_eq!(members.get("list"), Some(&Value::Array(elements)));
        }
    }

    // Each element is read alike with and without being checked again.
    for (frame, element) in whole.1.iter().chain(&listed.1) {
        if let Frame::Element { .. } = frame {
            check_framed(element)?;
        }
    }
    // What no framer handed on does no harm: whatever is valid is read, all else ends in any way.
    for text in [text, text.get(..text.len() / 2).unwrap_or_default()] {
        let (_, _) = (walk_shallow(text), from_element::<Value>(text, &mut [0; 1000]));
    }

    // Decoded and walked as it is, valid or not.
    let theirs = serde_json::from_slice::<Value>(text).map_err(|error| error.to_string());
    match (from_slice::<Value>(text, &mut [0; 1000]), &theirs) {
        (Ok(ours), Ok(theirs)) => prop_assert!(same(&ours, theirs), "{} {}", ours, theirs),
        (Err(error), _) if error.kind() == &DecodeErrorKind::TooDeep => {
            prop_assert!(depth > usize::from(DECODE_DEPTH) || !valid);
        }
        (Ok(ours), Err(error)) => prop_assert!(false, "only ours accepts: {} {}", ours, error),
        (Err(error), Ok(_)) => prop_assert!(false, "only ours refuses: {}", error),
        (Err(_), Err(_)) => {}
    }
    prop_assert_eq!(from_slice::<IgnoredAny>(text, &mut []).is_ok(), valid && depth <= MAX_DEPTH as usize);
    if depth <= 64 {
        let mut reader = Reader::new(text);
        let walked = walk(&mut reader).and_then(|value| reader.end().map(|()| value));
        if theirs.is_ok() {
            prop_assert!(walked.is_ok(), "{:?}", walked);
        } else if walked.is_ok() {
            prop_assert!(valid);
        }
    }
    // A type: no panic, and only JSON is accepted.
    if from_slice::<Entity>(text, &mut [0; 100]).is_ok() {
        prop_assert!(valid);
    }
    Ok(())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~\n\t\u{7f}é🚀\u{2028}]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Texts of pieces of JSON in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\"",
        b"\\",
        b"\"\"",
        b"\"list\"",
        b"{\"list\":[",
        b"]}",
        b"1",
        b"0",
        b"-",
        b".5",
        b"e",
        b"E+",
        b"1.0",
        b"-0",
        b"true",
        b"false",
        b"null",
        b"nul",
        b" ",
        b"\n",
        b"\\u",
        b"d83d",
        b"\\ude00",
        b"\\n",
        b"\xc3",
        b"\xa9",
        b"\xf0\x9f\x9a\x80",
        b"\0",
        b"a",
        b"\xef\xbb\xbf",
        b"1e400",
        b"123456789012345678901234567890",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

/// Failing cases are kept in a file beside this one, and are tried first from then on.
fn kept() -> ProptestConfig {
    let file = FileFailurePersistence::Direct("tests/all/json_oracle.proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn an_element_is_read_alike_whether_it_is_checked_again_or_not(
        value in any_json(), pretty in any::<bool>(), chunk in 1usize..300,
    ) {
        let body = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let (end, elements) = frame(Framer::document(), body.as_bytes(), chunk, 1 << 16);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(elements.len(), 1);
        check_framed(&elements[0].1)?;
    }

    #[test]
    fn an_entity_is_read_alike_whether_it_is_checked_again_or_not(
        members in prop::collection::vec((
            prop::sample::select(vec!["id", "name", "parent", "details", "i\\u0064", "na\"me", "other", ""]),
            prop::sample::select(vec!["7", "\"7.0\"", "007", "null", "\"R\"", "\"\\u010crn\\\\\"", "\"Č\\\"\"", "-1.5e2",
                "{\"ipv4\":\"::1\",\"timeout\":2.5,\"retry\":\"3\",\"x\":[\"]\",{\"}\":0}]}", "[[],{},\"\\\\\"]", "true", "18446744073709551616"]),
        ), 0..8),
        blanks in prop::sample::select(vec!["", " ", "\n\t "]),
    ) {
        let members: Vec<_> = members.iter().map(|(key, value)| {
            let key = if key.contains('"') { key.replace('"', "\\\"") } else { (*key).to_owned() };
            format!("{blanks}\"{key}\"{blanks}:{blanks}{value}{blanks}")
        }).collect();
        let text = format!("{{{}}}", members.join(","));
        let scratch = &mut [0; 1000];
        if is_json(text.as_bytes()) {
            check_framed(text.as_bytes())?;
        } else {
            prop_assert!(from_slice::<Entity>(text.as_bytes(), scratch).is_err());
        }
    }

    #[test]
    fn pieces_of_json_are_accepted_exactly_if_the_oracle_accepts_them(text in pieces()) {
        check(&text)?;
    }

    #[test]
    fn any_bytes_are_judged_as_the_oracle_judges_them(text in prop::collection::vec(any::<u8>(), 0..40)) {
        check(&text)?;
    }

    #[test]
    fn every_value_is_decoded_as_it_was_written(value in any_json()) {
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            check(text.as_bytes())?;
            let mut scratch = vec![0; text.len()];
            let decoded = from_slice::<Value>(text.as_bytes(), &mut scratch);
            prop_assert_eq!(decoded.as_ref(), Ok(&value));
        }
    }

    #[test]
    fn a_list_of_any_values_is_cut_into_these(values in prop::collection::vec(any_json(), 0..6), chunk in 1usize..50) {
        let body = format!("{{\"total\":{},\"list\":{}}}", values.len(), Value::from(values.clone()));
        let (end, elements) = frame(Framer::list("list"), body.as_bytes(), chunk, body.len());
        prop_assert_eq!(end, Ok(()));
        let texts: Vec<String> = elements.into_iter().map(|(_, text)| String::from_utf8(text).unwrap()).collect();
        prop_assert_eq!(texts, values.iter().map(Value::to_string).collect::<Vec<_>>());
    }
}

/// Marsaglia's xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let deep = "[".repeat(130) + &"]".repeat(130);
    [
        r#"{"list":[{"id":6719205,"name":"Router 090 (Črnuče)","entity_type":"device","parent":null,"details":{"ipv4":"127.0.0.91","timeout":"2.5","retry":3.0},"protocols":{"snmp":{"credential":592946342,"sensors":[{"sensor":823218995,"interval":null},{"sensor":72461632,"interval":-60}],"bot":1408704727}}}]}"#,
        r#"{"list":[{"id":1,"name":"x","protocol":"ping","details":{"username":"u","password":"pa\"ss\\06","timeout":8}},{"id":2}]}"#,
        r#"{"id":7,"name":"\u010crnu\u010de \ud83d\ude80","parent":"9","details":{"":[],"a\u0000":1e300,"n":-0.0,"big":123456789012345678901234567890123456789012,"retry":"1.0"}}"#,
        "{ \"a\" : [ true , false , null , 0 , -1.5E-3 ] ,\r\n\t\"list\" : [ ] , \"b\" : {\"list\":{}} }",
        r#"{"list":[1,"2",[3],{"4":5},6.0e1,null,true,"\ud800","é🚀"],"z":[[[[{}]]]]}"#,
        &deep,
        r#""plain""#,
        "-12.5e+7",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn mutate(random: &mut Random, text: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    const TOKENS: &[&[u8]] = &[
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\u",
        b"\\ud83d",
        b"1e999",
        b"-",
        b"null",
        b"\xff",
        b"\xc3\xa9",
        b" ",
        b"0",
    ];
    for _ in 0..=random.below(3) {
        let at = random.below(text.len());
        let end = at + random.below(text.len().saturating_sub(at).min(12) + 1);
        match random.below(8) {
            0 => text.truncate(at),
            1 => drop(text.drain(at..end)),
            2 => {
                let copy = text[at..end].to_vec();
                text.splice(at..at, copy);
            }
            3 | 4 => drop(text.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            5 => {
                if let Some(byte) = text.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            6 => {
                if let Some(byte) = text.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                let to = from + random.below(other.len() - from + 1);
                text.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
}

/// `JSON_SEED` and `JSON_MUTATIONS` replay or lengthen it.
#[test]
fn mutated_bodies_never_panic_and_are_judged_as_the_oracle_judges_them() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a whole number"))
    };
    let seed = number("JSON_SEED", 0x6a73_6f6e);
    let count = number("JSON_MUTATIONS", 20_000);
    println!("JSON_SEED={seed} JSON_MUTATIONS={count}");
    let corpus = corpus();
    let mut random = Random(seed | 1);
    let mut accepted = 0;
    for round in 0..count {
        let mut text = corpus[random.below(corpus.len())].clone();
        mutate(&mut random, &mut text, &corpus);
        if let Err(error) = check(&text) {
            panic!("JSON_SEED={seed}, mutation {round}, {:?}: {error}", String::from_utf8_lossy(&text));
        }
        accepted += u64::from(is_json(&text));
    }
    println!("{accepted} of {count} mutations are JSON");
    assert!(
        accepted * 50 > count && accepted < count,
        "mutations must give both: {accepted} of {count} are JSON"
    );
}
