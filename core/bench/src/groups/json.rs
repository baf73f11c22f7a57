//! Framing and decoding of the backend's lists, next to four parsers that want all in memory or are fed in chunks.

use std::hint::black_box;
use std::time::Duration;

use picojson::{ChunkReader, Event, PullParser, StreamParser};

use super::{CpuTime, Effort, instructions};
use crate::json::{Folded, Taken, by_model, by_serde, entities, framed};
use crate::table::{Table, figure};

/// Decodes the whole body.
pub fn serde_json(body: &[u8]) -> Taken {
    serde_json::from_slice::<Folded>(body).unwrap().0
}

/// Decodes the whole body.
pub fn serde_json_core(body: &[u8]) -> Taken {
    serde_json_core::from_slice_escaped::<Folded>(body, &mut [0; 128]).unwrap().0.0
}

/// Decodes the whole body, which it changes, so that it needs a copy.
pub fn simd_json(body: &[u8]) -> Taken {
    simd_json::serde::from_slice::<Folded>(&mut body.to_vec()).unwrap().0
}

/// Takes the same out of events, in chunks of so many bytes.
pub fn picojson(body: &[u8], chunk: usize) -> Taken {
    #[derive(Clone, Copy)]
    enum Key {
        Entity,
        Length,
        Number,
        Sensor,
        Interval,
        Other,
    }
    let mut buffer = [0; 2048];
    let mut parser = StreamParser::new(ChunkReader::new(body, chunk), &mut buffer);
    let mut taken = Taken::default();
    let mut key = Key::Other;
    while let Some(event) = parser.next() {
        match event.unwrap() {
            Event::Key(name) => {
                key = match name.as_str() {
                    "id" => Key::Entity,
                    "name" | "ipv4" => Key::Length,
                    "credential" | "bot" => Key::Number,
                    "sensor" => Key::Sensor,
                    "interval" => Key::Interval,
                    _ => Key::Other,
                }
            }
            Event::String(text) => {
                if let Key::Length = key {
                    taken.number(text.as_str().len() as u64);
                }
            }
            Event::Number(number) => {
                match key {
                    Key::Entity => taken.entities += 1,
                    Key::Sensor => taken.sensors += 1,
                    Key::Number | Key::Interval => {}
                    Key::Length | Key::Other => continue,
                }
                taken.number(number.as_int().unwrap() as u64);
            }
            Event::Null => {
                if let Key::Interval = key {
                    taken.number(0);
                }
            }
            _ => {}
        }
    }
    taken
}

/// Looks at each byte and keeps one number.
pub fn byte_scan(body: &[u8]) -> u32 {
    body.iter().fold(0u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte))
}

/// What is fed in chunks, by their size; `usize::MAX`: all at once.
const CHUNKS: [(usize, &str); 4] =
    [(64, "64-byte chunks"), (256, "256-byte chunks"), (1460, "1460-byte chunks"), (usize::MAX, "whole")];

/// One row: what it is called, what callgrind's case is, and what it does.
type Row<'a> = (String, String, Box<dyn Fn() + 'a>);

type Chunked = fn(&[u8], usize) -> Taken;
type Whole = fn(&[u8]) -> Taken;

/// Prints it.
pub fn run(effort: Effort) {
    let body = entities(300, 5);
    let body = body.as_bytes();
    let wanted = serde_json(body);
    assert_eq!((wanted.entities, wanted.sensors), (300, 1500));
    let mut rows: Vec<Row<'_>> = Vec::new();
    let all: [(&str, &str, Chunked); 3] = [
        ("**core**: framed and taken apart, as a refresh does", "json-model", by_model),
        ("core: framed and decoded by serde", "json-serde", by_serde),
        ("core: framed and checked only", "json-frame", |body, chunk| {
            black_box(framed(body, chunk));
            Taken::default()
        }),
    ];
    for (name, case, work) in all {
        for (chunk, size) in CHUNKS {
            assert!([wanted, Taken::default()].contains(&work(body, chunk)), "{name}, {size}");
            let name = format!("{name}; {size}");
            let word = if chunk == usize::MAX { "whole".to_owned() } else { chunk.to_string() };
            rows.push((
                name,
                format!("{case}-{word}"),
                Box::new(move || {
                    black_box(work(body, chunk));
                }),
            ));
        }
    }
    let peers: [(&str, Whole); 3] =
        [("serde_json", serde_json), ("serde-json-core", serde_json_core), ("simd-json", simd_json)];
    for (name, work) in peers {
        assert_eq!(work(body), wanted, "{name}");
        let text = format!("{name}; whole");
        rows.push((
            text,
            format!("json-{name}"),
            Box::new(move || {
                black_box(work(body));
            }),
        ));
    }
    assert_eq!(picojson(body, 256), wanted, "picojson");
    rows.push((
        "picojson; 256-byte chunks".into(),
        "json-picojson".into(),
        Box::new(|| {
            black_box(picojson(body, 256));
        }),
    ));
    rows.push((
        "a byte scan".into(),
        "json-byte-scan".into(),
        Box::new(|| {
            black_box(byte_scan(body));
        }),
    ));

    println!("## JSON\n\na list of 300 entities x 5 sensors, {} bytes\n", body.len());
    let turns = if effort == Effort::Quick { 20 } else { 100 };
    let mut shortest = vec![Duration::MAX; rows.len()];
    for _ in 0..4 * effort.repetitions() {
        for ((_, _, work), shortest) in rows.iter().zip(&mut shortest) {
            let begin = CpuTime::now();
            (0..turns / 4).for_each(|_| work());
            *shortest = begin.elapsed().min(*shortest);
        }
    }
    let per_second = |took: Duration| body.len() as f64 * f64::from(turns / 4) / took.as_secs_f64() / 1e6;
    let ours = per_second(shortest[1]);
    let mut table = Table::new(&["parser", "MB/s", "first in 256 / it", "instructions/byte"]);
    for ((name, case, _), took) in rows.iter().zip(shortest) {
        let instructions = instructions(case).map_or("-".to_owned(), figure);
        let speed = per_second(took);
        table.row(vec![name.clone(), figure(speed), format!("{}x", figure(ours / speed)), instructions]);
    }
    table.print();
}
