//! Frames any bytes, in chunks that the first two bytes choose, with serde_json as the oracle.
#![no_main]

use grafolean_core::json::{Frame, FrameError, Framer, MAX_DEPTH};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

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

fuzz_target!(|input: &[u8]| {
    let [chunk, room, text @ ..] = input else { return };
    let (chunk, room) = (usize::from(*chunk), usize::from(*room));
    let valid = std::str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok();
    for framer in [Framer::document(), Framer::list("list")] {
        let whole = frame(framer.clone(), text, usize::MAX, text.len());
        assert_eq!(frame(framer.clone(), text, chunk, text.len()), whole);
        let bounded = frame(framer.clone(), text, chunk, room);
        assert_eq!(bounded, frame(framer, text, usize::MAX, room));
        assert_eq!((bounded.0, bounded.1.len()), (whole.0, whole.1.len()));
    }
    let brackets = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let document = frame(Framer::document(), text, usize::MAX, text.len());
    if brackets <= MAX_DEPTH as usize {
        assert_eq!(document.0.is_ok(), valid);
    } else {
        assert!(document.0.is_ok() || !valid);
    }
    let (end, elements) = frame(Framer::list("list"), text, usize::MAX, text.len());
    if let (Ok(()), Ok(Value::Object(members))) = (end, serde_json::from_slice(text)) {
        let elements = elements.iter().map(|(_, text)| serde_json::from_slice(text).expect("JSON")).collect();
        assert_eq!(members.get("list"), Some(&Value::Array(elements)));
    }
});
