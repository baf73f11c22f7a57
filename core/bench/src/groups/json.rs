//! Framing and decoding of the backend's lists, next to four parsers that want all in memory or are fed in chunks.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use grafolean_core::json::Framer;
use picojson::{ChunkReader, Event, PullParser, StreamParser};

use super::{Bounds, CpuTime, Effort, instructions};
use crate::json::{
    Element, Entity, Folded, Recorded, Taken, by_model, by_serde, by_serde_as, entities, framed,
    recorded_by_model,
};
use crate::table::{Table, figure};

/// What was taken, or why it can't be decoded.
pub type Decoded = Result<Taken, String>;

/// Decodes the whole body.
pub fn serde_json<E: Element>(body: &[u8]) -> Decoded {
    serde_json::from_slice::<Folded<E>>(body).map(|f| f.0).map_err(|e| e.to_string())
}

/// Decodes the whole body.
pub fn serde_json_core<E: Element>(body: &[u8]) -> Decoded {
    let decoded = serde_json_core::from_slice_escaped::<Folded<E>>(body, &mut [0; 128]);
    decoded.map(|f| f.0.0).map_err(|e| e.to_string())
}

/// It changes the body, so that it needs a copy. Its memory is kept from one body to the next.
#[derive(Default)]
pub struct Simd {
    copy: Vec<u8>,
    buffers: simd_json::Buffers,
}

impl std::fmt::Debug for Simd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Simd")
    }
}

impl Simd {
    /// Decodes the whole body.
    pub fn decode<E: Element>(&mut self, body: &[u8]) -> Decoded {
        self.copy.clear();
        self.copy.extend_from_slice(body);
        let decoded =
            simd_json::serde::from_slice_with_buffers::<Folded<E>>(&mut self.copy, &mut self.buffers);
        decoded.map(|f| f.0).map_err(|e| e.to_string())
    }
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

type Chunked = fn(&[u8], usize) -> Decoded;

/// One row: what it is called, what callgrind's case is, what it does, and whether that is decoding.
struct Row<'a> {
    name: String,
    case: String,
    work: Box<dyn FnMut() -> Decoded + 'a>,
    decodes: bool,
}

impl<'a> Row<'a> {
    fn new(name: &str, case: &str, decodes: bool, work: impl FnMut() -> Decoded + 'a) -> Self {
        Row { name: name.to_owned(), case: case.to_owned(), work: Box::new(work), decodes }
    }

    /// What others do with a whole body.
    fn peers<E: Element>(body: &'a [u8], case: &str) -> [Self; 3] {
        let mut simd = Simd::default();
        let row = |name: &str, of_it: &str, work| Row {
            name: name.to_owned(),
            case: format!("{case}-{of_it}"),
            work,
            decodes: true,
        };
        [
            row("serde_json; whole", "serde_json", Box::new(move || serde_json::<E>(body))),
            row("serde-json-core; whole", "serde-json-core", Box::new(move || serde_json_core::<E>(body))),
            row(
                "simd-json; whole, and the copy of it that it needs",
                "simd-json",
                Box::new(move || simd.decode::<E>(body)),
            ),
        ]
    }
}

/// What was measured: MB/s and instructions for a byte.
#[derive(Clone, Copy)]
struct Speed {
    megabytes: f64,
    instructions: Option<f64>,
}

/// Measures all in turns, prints a table, and says how fast each case is. All that decode bring the same, or can't.
fn measure(effort: Effort, body: &[u8], mut rows: Vec<Row<'_>>) -> BTreeMap<String, Speed> {
    let mut wanted = None;
    let mut failed = Vec::new();
    rows.retain_mut(|row| match (row.work)() {
        Ok(taken) => {
            if row.decodes {
                assert_eq!(taken, *wanted.get_or_insert(taken), "{}", row.name);
            }
            true
        }
        Err(why) => {
            failed.push(vec![row.name.clone(), "-".into(), format!("can't decode it: {why}")]);
            false
        }
    });
    let turns = if effort == Effort::Quick { 5 } else { 25 };
    let mut shortest = vec![Duration::MAX; rows.len()];
    for _ in 0..4 * effort.repetitions() {
        for (row, shortest) in rows.iter_mut().zip(&mut shortest) {
            let begin = CpuTime::now();
            (0..turns).for_each(|_| _ = black_box((row.work)()));
            *shortest = begin.elapsed().min(*shortest);
        }
    }
    let mut table = Table::new(&["parser", "MB/s", "instructions/byte"]);
    let mut speeds = BTreeMap::new();
    for (row, took) in rows.into_iter().zip(shortest) {
        let megabytes = body.len() as f64 * f64::from(turns) / took.as_secs_f64() / 1e6;
        let instructions = instructions(&row.case);
        table.row(vec![row.name, figure(megabytes), instructions.map_or("-".to_owned(), figure)]);
        speeds.insert(row.case, Speed { megabytes, instructions });
    }
    failed.into_iter().for_each(|row| table.row(row));
    table.print();
    speeds
}

const CHECKS_ONLY: &str = "core: framed; checks only, decodes nothing";

fn checked(body: &[u8], chunk: usize) -> Decoded {
    black_box(framed(body, chunk));
    Ok(Taken::default())
}

/// The lists of entities in the recorded traffic of a real backend, one after the other, thrice: most hold the same.
#[must_use]
pub fn recorded() -> String {
    let transcript = include_str!("../../../../examples/stand-in/tests/recorded/transcript.jsonl");
    let list = |line: &str| {
        let exchange: serde_json::Value = serde_json::from_str(line).unwrap();
        let target = exchange["request"]["target"].as_str()?;
        let body = exchange["response"]["body"].as_str()?;
        let items = body.strip_prefix(r#"{"list":["#)?.strip_suffix("]}")?;
        (target.contains("/entities") && !items.is_empty()).then(|| items.to_owned())
    };
    let lists = transcript.lines().filter_map(list).collect::<Vec<_>>().join(",");
    format!("{{\"list\":[{}]}}", vec![lists; 3].join(","))
}

/// Prints it.
pub fn run(effort: Effort, bounds: &mut Bounds) {
    let body = entities(300, 5);
    let body = body.as_bytes();
    let mut rows = Vec::new();
    let all: [(&str, &str, Chunked); 3] = [
        ("**core**: framed and taken apart, as a refresh does", "json-model", |b, c| Ok(by_model(b, c))),
        ("core: framed and decoded by serde", "json-serde", |b, c| Ok(by_serde(b, c))),
        (CHECKS_ONLY, "json-frame", checked),
    ];
    for (name, case, work) in all {
        for (chunk, size) in CHUNKS {
            let word = if chunk == usize::MAX { "whole".to_owned() } else { chunk.to_string() };
            let (name, case_name) = (format!("{name}; {size}"), format!("{case}-{word}"));
            rows.push(Row::new(&name, &case_name, case != "json-frame", move || work(body, chunk)));
        }
    }
    rows.extend(Row::peers::<Entity>(body, "json"));
    rows.push(Row::new("picojson; 256-byte chunks", "json-picojson", true, || Ok(picojson(body, 256))));
    let scan = || {
        black_box(byte_scan(body));
        Ok(Taken::default())
    };
    rows.push(Row::new("a byte scan; checks and decodes nothing", "json-byte-scan", false, scan));
    println!(
        "## JSON\n\na list of 300 entities x 5 sensors, made, {} bytes; the framer's own memory: {} bytes\n",
        body.len(),
        size_of::<Framer>()
    );
    let speeds = measure(effort, body, rows);

    let times = |of: fn(&str) -> String, peer: &str| {
        let ratio = |case: &str| speeds[&of(case)].megabytes / speeds[peer].megabytes;
        let [model, serde, frame] = ["json-model", "json-serde", "json-frame"].map(ratio);
        let [a, b, c] = [model, serde, frame].map(figure);
        (format!("as a refresh does {a}x, by serde {b}x; checks only {c}x"), model.min(serde))
    };
    let (measured, least) = times(|case| format!("{case}-whole"), "json-serde-json-core");
    bounds.add("JSON: at least serde-json-core's speed, whole", measured, least >= 1.0);
    let (measured, least) = times(|case| format!("{case}-256"), "json-picojson");
    bounds.add("JSON: at least 6x picojson, 256-byte chunks", measured, least >= 6.0);
    let count = |case: &str| speeds[case].instructions.unwrap_or(f64::NAN);
    let counts = ["json-model-whole", "json-serde-whole", "json-frame-whole"].map(count);
    let [a, b, c] = counts.map(figure);
    let measured = format!("as a refresh does {a}, by serde {b}; checks only {c}");
    bounds.add("JSON: at most 25 instructions/byte, whole", measured, counts[0].max(counts[1]) <= 25.0);

    let body = recorded();
    let body = body.as_bytes();
    let whole = usize::MAX;
    let mut rows = vec![
        Row::new(
            "**core**: framed and taken apart, as a refresh does; whole",
            "recorded-model",
            true,
            || Ok(recorded_by_model(body, whole)),
        ),
        Row::new("core: framed and decoded by serde; whole", "recorded-serde", true, || {
            Ok(by_serde_as::<Recorded>(body, whole))
        }),
        Row::new(&format!("{CHECKS_ONLY}; whole"), "recorded-frame", false, || checked(body, whole)),
    ];
    rows.extend(Row::peers::<Recorded>(body, "recorded"));
    println!(
        "entities that a real backend gave (odd ones among them, many the same), {} bytes\n",
        body.len()
    );
    measure(effort, body, rows);
}
