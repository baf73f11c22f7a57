//! What the outbox of a host costs, in memory and in files: `cargo bench -p grafolean-std --bench outbox` prints a table.
//!
//! Values of ping bots (100 devices, 11 series each) are handed over while the backend is away, then all are delivered.
//! Where values are in files, they are also found by another start and given back. Files are made in the folder that
//! `OUTBOX_BENCH_DIR` names, else in the one for temporary files: the disk below it decides the rows that sync.
//!
//! Instructions are those of the program itself, without the kernel's, counted by `valgrind --tool=callgrind` if it is
//! installed: unlike times they are the same on a busy machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here is the end of it

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use grafolean_core::outbox::{AccountQueue, Cell, Outbox, OutboxMem, Outcome, Settings as Limits, ValueTime};
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_PATH_BYTES, Number, NumberText, ValuePath};
use grafolean_std::outbox::{RealDisk, Settings, Store, Sync, Value, WritePolicy};

const ACCOUNT: u64 = 1;
const UNIX: u64 = 1_700_000_000_000;
/// Values that are handed over in one millisecond.
const VALUES_PER_MS: usize = 5;
/// Each time is the shortest of so many.
const RUNS: usize = 5;
/// How often the store is asked what is due, ms.
const STEP_MS: u64 = 100;

/// How values are kept.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    files: Option<(WritePolicy, Sync)>,
    /// So many values are measured.
    values: usize,
}

const KINDS: [Kind; 5] = [
    Kind { name: "memory only", files: None, values: 200_000 },
    Kind { name: "behind, never synced", files: Some((WritePolicy::Behind, Sync::Never)), values: 200_000 },
    Kind {
        name: "behind, synced each second",
        files: Some((WritePolicy::Behind, Sync::Every { ms: 1_000 })),
        values: 200_000,
    },
    Kind { name: "first, never synced", files: Some((WritePolicy::First, Sync::Never)), values: 50_000 },
    Kind { name: "first, always synced", files: Some((WritePolicy::First, Sync::Always)), values: 2_000 },
];

/// How far a measurement goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    HandOver,
    Deliver,
    /// Instead of delivery: the next start finds them and gives all back.
    Return,
}

/// What one run took.
#[derive(Default)]
struct Took {
    hand_over: Duration,
    deliver: Duration,
    give_back: Duration,
    memory_bytes: usize,
    file_bytes: u64,
}

struct Memory {
    cells: Vec<Cell>,
    index: Vec<u32>,
    accounts: [AccountQueue; 1],
    records: Vec<u64>,
    left: Vec<u64>,
}

impl Memory {
    fn new(values: usize, stored: bool) -> Self {
        // Two cells for each of these values.
        let cells = 2 * values + 2;
        let of_store = |n| if stored { vec![0; n] } else { Vec::new() };
        Memory {
            cells: vec![Cell::EMPTY; cells],
            index: vec![0; values],
            accounts: [AccountQueue::EMPTY],
            records: of_store(cells),
            left: of_store(cells + 1),
        }
    }

    fn lend(&mut self) -> OutboxMem<'_> {
        OutboxMem {
            cells: &mut self.cells,
            index: &mut self.index,
            accounts: &mut self.accounts,
            records: &mut self.records,
            left: &mut self.left,
        }
    }
}

/// Path and number of the `n`th value.
fn value(n: usize) -> (String, NumberText) {
    let (device, series) = (n / 11 % 100, n % 11);
    let rtt = 0.001 + (n * 7919 % 1000) as f64 / 1e6;
    match series {
        10 => (format!("entity.{device}.ping.success"), 1.number_text().unwrap()),
        s if s % 2 == 0 => (format!("entity.{device}.ping.p{}.ok", s / 2), 1.number_text().unwrap()),
        s => (format!("entity.{device}.ping.p{}.rtt", s / 2), rtt.number_text().unwrap()),
    }
}

fn run(kind: Kind, values: usize, until: Phase, dir: &std::path::Path) -> Took {
    let _ = std::fs::remove_dir_all(dir);
    let settings = kind.files.map(|(write, sync)| Settings { write, sync, ..Settings::DEFAULT });
    let open = || settings.map(|settings| Store::open(RealDisk::new(dir).unwrap(), settings).unwrap().0);
    let mut store = open();
    let mut memory = Memory::new(values, store.is_some());
    let mut mem = memory.lend();
    let mut outbox = Outbox::new(Limits::DEFAULT);
    outbox.handle_wall(&mut mem, Millis(0), UnixMillis(UNIX));
    let at = |n: usize| (n / VALUES_PER_MS) as u64;
    // Not measured.
    let made: Vec<(String, NumberText)> = (0..values).map(value).collect();
    let mut took = Took::default();

    let began = Instant::now();
    let mut stepped = 0;
    for (n, (path, number)) in made.iter().enumerate() {
        let (now, unix) = (Millis(at(n)), UnixMillis(UNIX + at(n)));
        let time = ValueTime::Unix(unix);
        let path = ValuePath::new(path, MAX_PATH_BYTES).unwrap();
        match &mut store {
            None => outbox.push(&mut mem, now, ACCOUNT, time, path, number).unwrap(),
            Some(store) => {
                let kept =
                    Value { time: unix, handed_over: unix, path: path.as_str(), number: number.as_str() };
                let record = store.take(now, ACCOUNT, &kept).expect("the disk takes it");
                outbox.push_stored(&mut mem, now, ACCOUNT, time, path, number, record).unwrap();
                if now.0 >= stepped + STEP_MS {
                    stepped = now.0;
                    store.set_ledger(now, outbox.ledger());
                    store.handle_time(now, unix);
                }
            }
        }
    }
    let end = at(values) + 10_000;
    if let Some(store) = &mut store {
        store.set_ledger(Millis(end), outbox.ledger());
        store.flush(Millis(end), UnixMillis(UNIX + end));
        took.file_bytes = store.bytes();
    }
    took.hand_over = began.elapsed();
    // Cells; for each a record and a place among those that left, where there are files; a bucket of the index.
    let of_store = if store.is_some() { outbox.bytes_used() / Cell::BYTES * 16 } else { 0 };
    took.memory_bytes = outbox.bytes_used() + of_store + 4 * values;

    if until == Phase::Deliver {
        let began = Instant::now();
        let (mut now, mut body) = (Millis(end), vec![0; 64 << 10]);
        while outbox.queued() > 0 {
            let Some(head) = outbox.poll(&mut mem, now) else {
                now = outbox.poll_timeout().map_or(Millis(now.0 + 1), |at| at.max(Millis(now.0 + 1)));
                continue;
            };
            let mut read = 0;
            while read < head.body_len as usize {
                read += outbox.body(&mut mem, read, &mut body);
            }
            outbox.handle_outcome(&mut mem, now, Outcome::status(204));
            if let Some(store) = &mut store {
                while let Some(left) = outbox.poll_left(&mut mem) {
                    store.left(now, left.record, left.parked);
                }
                store.set_ledger(now, outbox.ledger());
                store.handle_time(now, UnixMillis(UNIX + now.0));
            }
        }
        assert_eq!(outbox.ledger().delivered, values as u64);
        took.deliver = began.elapsed();
    }
    drop(store);
    if until == Phase::Return {
        let began = Instant::now();
        let (mut back, mut bytes) = (0, 0);
        if let Some(mut store) = open() {
            store.feed(Millis(0), UnixMillis(UNIX + end), ACCOUNT, u64::MAX, |_, value| {
                back += 1;
                bytes += value.path.len();
                true
            });
        }
        took.give_back = began.elapsed();
        assert!(back == values && bytes > 0, "{back} of {values} came back");
    }
    let _ = std::fs::remove_dir_all(dir);
    took
}

/// Instructions of this program when it does only this.
fn instructions(kind: usize, values: usize, phase: Phase) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args(["--only", &kind.to_string(), &values.to_string(), &(phase as u8).to_string()])
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().find_map(|l| l.split_once("Collected : ")?.1.trim().parse().ok())
}

/// Instructions for each value of a phase: what more values cost more, without start and end of the program.
fn per_value(kind: usize, phase: Phase) -> Option<u64> {
    let many = KINDS.get(kind)?.values.min(24_000) / 2;
    let few = many / 4;
    let of = |kind, phase| Some(instructions(kind, many, phase)? - instructions(kind, few, phase)?);
    // Making the values is no part of it.
    let before = if phase == Phase::HandOver { of(usize::MAX, phase)? } else { of(kind, Phase::HandOver)? };
    Some(of(kind, phase)?.saturating_sub(before) / (many - few) as u64)
}

fn main() {
    let dir = std::env::var_os("OUTBOX_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("grafolean-bench-outbox-{}", std::process::id()));
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [only, kind, values, phase] = args.as_slice()
        && only == "--only"
    {
        let (kind, values): (usize, usize) = (kind.parse().unwrap(), values.parse().unwrap());
        let phase = match phase.as_str() {
            "0" => Phase::HandOver,
            "1" => Phase::Deliver,
            _ => Phase::Return,
        };
        match KINDS.get(kind) {
            Some(kind) => drop(run(*kind, values, phase, &dir)),
            None => drop((0..values).map(value).collect::<Vec<_>>()),
        }
        return;
    }
    println!("values of ping bots; files in {}", dir.parent().unwrap_or(&dir).display());
    println!(
        "{:<36} {:>32}  {:>17}  {:>29}",
        "", "thousands a second", "bytes a value", "instructions a value"
    );
    println!(
        "{:<27}{:>9} {:>10} {:>10} {:>10}  {:>8} {:>8}  {:>9} {:>9} {:>9}",
        "kept",
        "values",
        "hand over",
        "deliver",
        "give back",
        "memory",
        "files",
        "hand over",
        "deliver",
        "give back"
    );
    for (n, kind) in KINDS.into_iter().enumerate() {
        let several = |phase| -> Vec<Took> {
            let take = |_| run(kind, kind.values, phase, &dir);
            (0..RUNS).map(take).collect()
        };
        let delivered = several(Phase::Deliver);
        // The shortest, as others may keep the machine busy.
        let per_second = |all: &[Took], part: fn(&Took) -> Duration| {
            let took = all.iter().map(part).min().unwrap_or_default();
            format!("{:.1}", kind.values as f64 / took.as_secs_f64() / 1e3)
        };
        let count = |phase| per_value(n, phase).map_or("-".to_owned(), |n| n.to_string());
        let (back, counted) = match kind.files {
            None => ("-".to_owned(), "-".to_owned()),
            Some(_) => (per_second(&several(Phase::Return), |t| t.give_back), count(Phase::Return)),
        };
        println!(
            "{:<27}{:>9} {:>10} {:>10} {:>10}  {:>8.1} {:>8.1}  {:>9} {:>9} {:>9}",
            kind.name,
            kind.values,
            per_second(&delivered, |t| t.hand_over),
            per_second(&delivered, |t| t.deliver),
            back,
            delivered[0].memory_bytes as f64 / kind.values as f64,
            delivered[0].file_bytes as f64 / kind.values as f64,
            count(Phase::HandOver),
            count(Phase::Deliver),
            counted,
        );
    }
    if instructions(usize::MAX, 1, Phase::HandOver).is_none() {
        println!("instructions are not counted: valgrind is not installed, or does not run here");
    }
}
