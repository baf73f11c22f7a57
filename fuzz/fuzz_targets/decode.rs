//! Decodes any bytes, with serde_json as the oracle, and reads them by hand.
#![no_main]

use grafolean_core::json::{
    DecodeErrorKind, DurationMs, Kind, LenientInt, ReadError, ReadErrorKind, Reader, from_slice,
};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::Value;

/// Settings with every kind of field; only decoded.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only decoded")]
struct Settings {
    name: heapless::String<8>,
    timeout: Option<DurationMs>,
    retry: Option<LenientInt<u8>>,
    list: Option<heapless::Vec<i16, 4>>,
    pair: Option<(f32, char)>,
    version: Option<Version>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only decoded")]
enum Version {
    V1,
    V2(heapless::String<4>),
    V3 { level: u64 },
}

fn walk(reader: &mut Reader<'_>, depth: u32) -> Result<(), ReadError> {
    let mut scratch = [0; 64];
    match reader.peek()? {
        Kind::Array if depth > 0 => {
            reader.begin_array()?;
            while reader.next_item()? {
                walk(reader, depth - 1)?;
            }
        }
        Kind::Object if depth > 0 => {
            reader.begin_object()?;
            while let Some(key) = reader.next_key()? {
                key.to_str(&mut scratch).ok();
                walk(reader, depth - 1)?;
            }
        }
        Kind::Number | Kind::String => {
            let copy = reader.clone();
            if let Err(ReadError { kind: ReadErrorKind::Syntax(_), .. }) = reader.decimal() {
                *reader = copy;
                reader.text()?;
            }
        }
        _ => drop(reader.skip_value()?),
    }
    Ok(())
}

fuzz_target!(|text: &[u8]| {
    let mut scratch = vec![0; text.len()];
    match (from_slice::<Value>(text, &mut scratch), serde_json::from_slice::<Value>(text)) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs),
        (Err(error), _) if error.kind() == &DecodeErrorKind::TooDeep => {}
        (Ok(ours), Err(error)) => panic!("only ours accepts {ours}: {error}"),
        (Err(error), Ok(theirs)) => panic!("only ours refuses {theirs}: {error}"),
        (Err(_), Err(_)) => {}
    }
    if let Err(error) = from_slice::<Settings>(text, &mut [0; 16]) {
        assert!(error.offset() <= text.len(), "{error}");
    }
    let mut reader = Reader::new(text);
    walk(&mut reader, 40).and_then(|()| reader.end()).ok();
});
