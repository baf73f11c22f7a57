//! Framing of bodies: any chunking gives the same elements, bad bodies end with an error that says where.

use grafolean_core::json::{Frame, FrameError, FrameErrorKind, Framer, MAX_DEPTH, Syntax};

/// What came out of a body: the elements and how it ended.
#[derive(Debug, PartialEq, Clone)]
struct Framed {
    elements: Vec<Out>,
    end: Result<(), FrameError>,
}

#[derive(Debug, PartialEq, Clone)]
enum Out {
    Element(Vec<u8>),
    TooLong(Vec<u8>, u64),
    TooDeep(Vec<u8>, u64),
}

fn out(frame: Frame, buffer: &[u8]) -> Out {
    match frame {
        Frame::Element { len } => Out::Element(buffer[..len].to_vec()),
        Frame::TooLong { kept, total_bytes } => Out::TooLong(buffer[..kept].to_vec(), total_bytes),
        Frame::TooDeep { kept, total_bytes } => Out::TooDeep(buffer[..kept].to_vec(), total_bytes),
        _ => unreachable!("no other frames"),
    }
}

fn frame_chunks(mut framer: Framer, body: &[u8], chunk: usize, buffer_len: usize) -> Framed {
    let mut buffer = vec![0; buffer_len];
    let mut elements = Vec::new();
    for mut rest in body.chunks(chunk.max(1)) {
        while !rest.is_empty() {
            match framer.push(rest, &mut buffer) {
                Ok((consumed, frame)) => {
                    assert!(frame.is_some() || consumed == rest.len(), "without a frame all input is taken");
                    rest = &rest[consumed..];
                    if let Some(frame) = frame {
                        elements.push(out(frame, &buffer));
                        buffer.fill(b'#');
                    }
                }
                Err(error) => {
                    assert_eq!(framer.push(rest, &mut buffer), Err(error), "errors are final");
                    assert_eq!(framer.finish(), Err(error), "errors are final");
                    return Framed { elements, end: Err(error) };
                }
            }
        }
    }
    let end = framer.finish().map(|last| elements.extend(last.map(|frame| out(frame, &buffer))));
    if end.is_ok() {
        assert_eq!(framer.bytes(), body.len() as u64);
        assert_eq!(framer.elements() as usize, elements.len());
        assert!(framer.is_complete());
    }
    Framed { elements, end }
}

/// Frames in several chunkings, which must all give the same.
fn frame_all_ways(framer: &Framer, body: &[u8], buffer_len: usize) -> Framed {
    let whole = frame_chunks(framer.clone(), body, body.len(), buffer_len);
    for chunk in [1, 2, 3, 7, 64, 256] {
        assert_eq!(frame_chunks(framer.clone(), body, chunk, buffer_len), whole, "chunks of {chunk}");
    }
    whole
}

fn list(body: &str) -> Framed {
    frame_all_ways(&Framer::list("list"), body.as_bytes(), 4096)
}

fn document(body: &[u8]) -> Framed {
    frame_all_ways(&Framer::document(), body, 4096)
}

fn elements(texts: &[&str]) -> Vec<Out> {
    texts.iter().map(|text| Out::Element(text.as_bytes().to_vec())).collect()
}

fn failed(offset: u64, kind: FrameErrorKind) -> Result<(), FrameError> {
    Err(FrameError { offset, kind })
}

fn bad(offset: u64, fault: Syntax) -> Result<(), FrameError> {
    failed(offset, FrameErrorKind::Syntax(fault))
}

/// A body like those of a Grafolean account, with `count` entities.
fn account_body(count: usize) -> String {
    let mut body = String::from(r#"{"list":["#);
    for n in 0..count {
        if n > 0 {
            body.push(',');
        }
        let sensors: Vec<_> = (0..n % 7)
            .map(|s| {
                format!(
                    r#"{{"sensor":{},"interval":{}}}"#,
                    1 + s * 7919,
                    if s % 2 == 0 { "null" } else { "60" }
                )
            })
            .collect();
        body.push_str(&format!(
            r#"{{"id":{},"name":"Router {n} (Črnuče \"x\\y\" 🚀)","entity_type":"device","parent":null,"details":{{"ipv4":"127.0.0.{}","":[{{}},[]],"n":-1.50e+3}},"protocols":{{"snmp":{{"credential":592946342,"sensors":[{}],"bot":null}}}}}}"#,
            n * 2_147_483 + 1,
            n % 256,
            sensors.join(",")
        ));
    }
    body.push_str("]}\n");
    body
}

#[test]
fn a_list_is_cut_into_its_elements_as_they_are_written() {
    assert_eq!(
        list(
            " {\"a\":[{\"list\":[9]}], \"list\" : [ {\"id\": 1} ,2,\"x\" , [ ] , null,-0.5e-7 ] ,\"z\":{\"list\":3}}\r\n\t "
        ),
        Framed { elements: elements(&["{\"id\": 1}", "2", "\"x\"", "[ ]", "null", "-0.5e-7"]), end: Ok(()) }
    );
    assert_eq!(list(r#"{"list":[]}"#), Framed { elements: vec![], end: Ok(()) });
    assert_eq!(list(r#"{"list":[7]}"#), Framed { elements: elements(&["7"]), end: Ok(()) });
}

#[test]
fn a_document_is_one_element_of_any_kind() {
    for text in ["{\"a\":[1,2,{}]}", "[]", "12", "-0", "1e5", "\"\"", "true", "false", "null", "0.10"] {
        let body = format!(" \n{text} \t");
        assert_eq!(document(body.as_bytes()), Framed { elements: elements(&[text]), end: Ok(()) });
        assert_eq!(document(text.as_bytes()), Framed { elements: elements(&[text]), end: Ok(()) });
    }
}

#[test]
fn a_list_longer_than_any_buffer_is_framed_in_a_buffer_for_one_element() {
    let body = account_body(300);
    let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
    let framed = frame_all_ways(&Framer::list("list"), body.as_bytes(), 700);
    assert!(body.len() > 50_000);
    assert_eq!(framed.end, Ok(()));
    let values: Vec<serde_json::Value> = framed
        .elements
        .iter()
        .map(|element| match element {
            Out::Element(bytes) => serde_json::from_slice(bytes).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(&serde_json::Value::Array(values), &parsed["list"]);
}

#[test]
fn an_element_longer_than_the_buffer_is_told_with_its_first_bytes_and_its_length() {
    let long = format!(r#"{{"id":42,"name":"{}"}}"#, "x".repeat(1000));
    let body = format!(r#"{{"list":[{{"id":1}},{long},{{"id":3}}]}}"#);
    let framed = frame_all_ways(&Framer::list("list"), body.as_bytes(), 16);
    let mut expected = elements(&[r#"{"id":1}"#, r#"{"id":3}"#]);
    expected.insert(1, Out::TooLong(long.as_bytes()[..16].to_vec(), long.len() as u64));
    assert_eq!(framed, Framed { elements: expected, end: Ok(()) });

    // A buffer of no bytes at all.
    let framed = frame_all_ways(&Framer::list("list"), b"{\"list\":[1,22]}", 0);
    assert_eq!(framed.elements, [Out::TooLong(vec![], 1), Out::TooLong(vec![], 2)]);
    // One byte too short, and just long enough.
    assert_eq!(frame_all_ways(&Framer::document(), b"[1]", 2).elements, [Out::TooLong(b"[1".to_vec(), 3)]);
    assert_eq!(frame_all_ways(&Framer::document(), b"[1]", 3).elements, elements(&["[1]"]));
}

#[test]
fn an_element_nested_too_deep_is_told_and_the_next_one_is_read() {
    let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let fits = nest(MAX_DEPTH as usize);
    let deep = nest(MAX_DEPTH as usize + 1);
    let deeper = format!("{}[\"]\\\"\",-1.5e3,true]{}", "{\"k\":".repeat(100_000), "}".repeat(100_000));
    let body = format!(r#"{{"skipped":{deeper},"list":[{fits},{deep},{deeper},8]}}"#);
    let framed = frame_all_ways(&Framer::list("list"), body.as_bytes(), 300);
    assert_eq!(framed.end, Ok(()));
    assert_eq!(framed.elements[0], Out::Element(fits.into_bytes()));
    assert_eq!(framed.elements[1], Out::TooDeep(deep.clone().into_bytes(), deep.len() as u64));
    assert_eq!(framed.elements[2], Out::TooDeep(deeper.as_bytes()[..300].to_vec(), deeper.len() as u64));
    assert_eq!(framed.elements[3], Out::Element(b"8".to_vec()));
    // Above the bound everything is checked again once the deep part has ended.
    let body = format!("{}}}", "[".repeat(200) + &"]".repeat(199));
    assert_eq!(document(body.as_bytes()).end, bad(399, Syntax::ExpectedCommaOrEnd));
    let unclosed = "[".repeat(100_000);
    assert_eq!(document(unclosed.as_bytes()).end, bad(100_000, Syntax::UnexpectedEnd));
}

#[test]
fn a_body_that_ends_anywhere_before_its_end_is_refused() {
    for (framer, body) in [
        (Framer::list("list"), account_body(5).trim_end().to_owned()),
        (Framer::document(), account_body(2).trim_end().to_owned()),
        (Framer::document(), r#"[true,false,null,"\u00e9\ud83d\ude00é🚀",-1.5e-3]"#.to_owned()),
    ] {
        for length in 0..body.len() {
            let framed = frame_chunks(framer.clone(), &body.as_bytes()[..length], 64, 4096);
            assert_eq!(framed.end, bad(length as u64, Syntax::UnexpectedEnd), "cut at {length}");
        }
        assert_eq!(frame_chunks(framer, body.as_bytes(), 64, 4096).end, Ok(()));
    }
    assert_eq!(document(b"-").end, bad(1, Syntax::UnexpectedEnd));
    assert_eq!(document(b"1.").end, bad(2, Syntax::UnexpectedEnd));
    assert_eq!(document(b"1e+").end, bad(3, Syntax::UnexpectedEnd));
}

#[test]
fn a_body_without_its_list_is_refused_by_name() {
    use FrameErrorKind::{NoList, NotAnArray, NotAnObject, RepeatedList};
    assert_eq!(list("{}").end, failed(1, NoList("list")));
    assert_eq!(list(r#"{"lists":[],"lis":[],"List":[],"":[]}"#).end, failed(36, NoList("list")));
    assert_eq!(list(r#"[{"list":[]}]"#).end, failed(0, NotAnObject("list")));
    assert_eq!(list("7").end, failed(0, NotAnObject("list")));
    assert_eq!(list(r#"{"list":{}}"#).end, failed(8, NotAnArray("list")));
    assert_eq!(list(r#"{"list": null}"#).end, failed(9, NotAnArray("list")));
    let twice = list(r#"{"list":[1],"list":[2]}"#);
    assert_eq!(twice, Framed { elements: elements(&["1"]), end: failed(18, RepeatedList("list")) });
    // The name must be written without escapes.
    assert_eq!(list(r#"{"l\u0069st":[]}"#).end, failed(15, NoList("list")));
    let error = list("{}").end.unwrap_err();
    assert_eq!(error.to_string(), "the object has no member `list` (byte 1)");
}

#[test]
fn every_fault_of_syntax_is_named_with_its_offset() {
    use Syntax::*;
    let cases: &[(&[u8], u64, Syntax)] = &[
        (b"", 0, UnexpectedEnd),
        (b"  ", 2, UnexpectedEnd),
        (b"\xef\xbb\xbf[]", 0, ByteOrderMark),
        (b"?", 0, ExpectedValue),
        (b"[1,]", 3, ExpectedValue),
        (b"[,1]", 1, ExpectedValue),
        (b"[1 2]", 3, ExpectedCommaOrEnd),
        (b"[1}", 2, ExpectedCommaOrEnd),
        (b"{\"a\":1]", 6, ExpectedCommaOrEnd),
        (b"{1:2}", 1, ExpectedKey),
        (b"{\"a\":1,}", 7, ExpectedKey),
        (b"{\"a\" 1}", 5, ExpectedColon),
        (b"{\"a\"}", 4, ExpectedColon),
        (b"{\"a\":}", 5, ExpectedValue),
        (b"[01]", 2, BadNumber),
        (b"[-]", 2, BadNumber),
        (b"[-a]", 2, BadNumber),
        (b"[1.]", 3, BadNumber),
        (b"[1.e1]", 3, BadNumber),
        (b"[1e]", 3, BadNumber),
        (b"[1e+]", 4, BadNumber),
        (b"[.5]", 1, ExpectedValue),
        (b"[+5]", 1, ExpectedValue),
        (b"[0x10]", 2, ExpectedCommaOrEnd),
        (b"[NaN]", 1, ExpectedValue),
        (b"[Infinity]", 1, ExpectedValue),
        (b"[nulL]", 4, BadLiteral),
        (b"[truE]", 4, BadLiteral),
        (b"[fals]", 5, BadLiteral),
        (b"[\"\\x\"]", 3, BadEscape),
        (b"[\"\\u12g4\"]", 6, BadEscape),
        (b"[\"\\u12\"]", 6, BadEscape),
        (b"[\"\\U0001f680\"]", 3, BadEscape),
        (b"[\"a\nb\"]", 3, ControlCharacter),
        (b"[\"\0\"]", 2, ControlCharacter),
        (b"['a']", 1, ExpectedValue),
        (b"[\"\x80\"]", 2, BadUtf8),
        (b"[\"\xc0\x80\"]", 2, BadUtf8),
        (b"[\"\xc3\"]", 3, BadUtf8),
        (b"[\"\xe0\x9f\xbf\"]", 3, BadUtf8),
        (b"[\"\xed\xa0\x80\"]", 3, BadUtf8),
        (b"[\"\xf0\x8f\xbf\xbf\"]", 3, BadUtf8),
        (b"[\"\xf4\x90\x80\x80\"]", 3, BadUtf8),
        (b"[\"\xf5\x80\x80\x80\"]", 2, BadUtf8),
        (b"[\"\xff\"]", 2, BadUtf8),
        (b"[\xc3\xa9]", 1, ExpectedValue),
        (b"[] []", 3, TrailingBytes),
        (b"{}}", 2, TrailingBytes),
        (b"1 1", 2, TrailingBytes),
        (b"nullx", 4, TrailingBytes),
        (b"[/**/]", 1, ExpectedValue),
        (b"\x0c[]", 0, ExpectedValue),
        (b"\xa0[]", 0, ExpectedValue),
        (b"]", 0, ExpectedValue),
    ];
    for (body, offset, fault) in cases {
        let shown = String::from_utf8_lossy(body);
        assert_eq!(document(body).end, bad(*offset, *fault), "{shown}");
        // The same in an element and in a member that is skipped.
        if body.starts_with(b"[") && *fault != TrailingBytes {
            for before in ["{\"list\":[", "{\"x\":"] {
                let body = [before.as_bytes(), body, b"]"].concat();
                let framed = frame_all_ways(&Framer::list("list"), &body, 99);
                assert_eq!(framed.end, bad(*offset + before.len() as u64, *fault), "{before}{shown}");
            }
        }
    }
    for (body, offset, fault) in [
        ("{\"list\":[1,]}", 11, ExpectedValue),
        ("{\"list\":[,]}", 9, ExpectedValue),
        ("{\"list\":[1 2]}", 11, ExpectedCommaOrEnd),
        ("{\"list\":[1}", 10, ExpectedCommaOrEnd),
        ("{\"list\":[]]", 10, ExpectedCommaOrEnd),
        ("{\"list\":[],}", 11, ExpectedKey),
        ("{,\"list\":[]}", 1, ExpectedKey),
        ("{\"list\",[]}", 7, ExpectedColon),
        ("{\"list\":[]} x", 12, TrailingBytes),
        ("{\"list\":[]}{", 11, TrailingBytes),
        ("\u{feff}{\"list\":[]}", 0, ByteOrderMark),
    ] {
        assert_eq!(list(body).end, bad(offset, fault), "{body}");
    }
}

#[test]
fn odd_but_valid_json_passes() {
    let odd = [
        "123456789012345678901234567890123456789012345678901234567890",
        "-0.0",
        "-0",
        "1e300",
        "1E+300",
        "1e99999999999",
        "0.000000000000000000000000000000000000000001",
        r#""\u0000""#,
        r#"{"":1,"":2}"#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\"\\\/\b\f\n\r\t\uD83D\uDE00""#,
        "\"\u{7f}\u{2028}\u{10ffff}\u{d7ff}\u{e000}🚀\"",
        "[[],{},[{}],{\"a\":{\"b\":[]}}]",
    ];
    let body = format!("{{\"x\":[{0}],\"list\":[{0}],\"y\":[{0}]}}", odd.join(" , "));
    assert_eq!(list(&body), Framed { elements: elements(&odd), end: Ok(()) });
}

#[test]
fn a_huge_string_is_passed_in_constant_memory() {
    let huge = "é\\n\\u00e9x".repeat(200_000);
    let body = format!(r#"{{"s":"{huge}","list":["{huge}",1]}}"#);
    let framed = frame_chunks(Framer::list("list"), body.as_bytes(), 1460, 8);
    assert_eq!(framed.end, Ok(()));
    assert_eq!(framed.elements[0], Out::TooLong("\"é\\n\\u0".into(), huge.len() as u64 + 2));
    assert_eq!(framed.elements[1], Out::Element(b"1".to_vec()));
}

#[test]
fn a_body_longer_than_its_limit_is_refused_at_the_limit() {
    let body = b"{\"list\":[1,2]}";
    let limited = |max| frame_all_ways(&Framer::list("list").with_max_bytes(max), body, 9);
    assert_eq!(limited(14), Framed { elements: elements(&["1", "2"]), end: Ok(()) });
    assert_eq!(limited(13).end, failed(13, FrameErrorKind::TooManyBytes(13)));
    assert_eq!(
        limited(11),
        Framed { elements: elements(&["1"]), end: failed(11, FrameErrorKind::TooManyBytes(11)) }
    );
    assert_eq!(limited(0).end, failed(0, FrameErrorKind::TooManyBytes(0)));
}

#[test]
fn the_start_of_the_element_is_known_for_messages() {
    let mut framer = Framer::list("list");
    let body = b"{\"list\":[1, 2]}";
    let mut buffer = [0; 4];
    let (first, frame) = framer.push(body, &mut buffer).unwrap();
    assert_eq!((frame, framer.element_start()), (Some(Frame::Element { len: 1 }), 9));
    let (_, frame) = framer.push(&body[first..], &mut buffer).unwrap();
    assert_eq!((frame, framer.element_start(), framer.elements()), (Some(Frame::Element { len: 1 }), 12, 2));
    assert!(!framer.is_complete());
}
