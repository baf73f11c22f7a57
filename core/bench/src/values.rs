//! Values: numbers and paths made into text, and kept until they are delivered.

use std::fmt::Write as _;
use std::hint::black_box;

use grafolean_core::heapless;
use grafolean_core::outbox::{AccountQueue, Cell, Outbox, OutboxMem, Outcome, Settings, ValueTime};
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{Decimal, MAX_PATH_BYTES, Number, NumberText, ValuePath};

use crate::random::Random;

const ACCOUNT: u64 = 7;
const UNIX: u64 = 1_700_000_000_000;

/// `n` round-trip times in seconds, to the microsecond.
#[must_use]
pub fn times_s(n: usize) -> Vec<f64> {
    let mut random = Random::new(77);
    (0..n).map(|_| f64::from(random.below(2_000_000)) / 1e6).collect()
}

/// Floats to text.
#[must_use]
pub fn floats(numbers: &[f64]) -> usize {
    numbers.iter().map(|n| black_box(n.number_text().unwrap()).as_bytes().len()).sum()
}

/// The same as microseconds with six places: no float code.
#[must_use]
pub fn decimals(numbers: &[i64]) -> usize {
    let text = |n: &i64| black_box(Decimal { mantissa: *n, exponent: -6 }.number_text().unwrap());
    numbers.iter().map(|n| text(n).as_bytes().len()).sum()
}

/// Whole numbers to text.
#[must_use]
pub fn integers(numbers: &[i64]) -> usize {
    numbers.iter().map(|n| black_box(n.number_text().unwrap()).as_bytes().len()).sum()
}

/// Paths written and checked.
#[must_use]
pub fn paths(n: usize) -> usize {
    let mut path: heapless::String<MAX_PATH_BYTES> = heapless::String::new();
    let mut bytes = 0;
    for i in 0..n {
        path.clear();
        write!(path, "entity.{}.ping.p{}.rtt", 1_000_000 + 7 * i, i % 10).unwrap();
        bytes += black_box(ValuePath::new(&path, MAX_PATH_BYTES).unwrap()).as_str().len();
    }
    bytes
}

/// An outbox in memory, and the values for it.
#[derive(Debug)]
pub struct Queue {
    outbox: Outbox,
    cells: Vec<Cell>,
    index: Vec<u32>,
    accounts: [AccountQueue; 1],
    values: Vec<(String, NumberText)>,
}

impl Queue {
    /// Empty, with `n` values to come.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self::with(n, Settings::DEFAULT)
    }

    /// The same with other settings.
    #[must_use]
    pub fn with(n: usize, settings: Settings) -> Self {
        let times = times_s(n);
        let value = |(i, t): (usize, &f64)| {
            (format!("entity.{}.ping.p{}.rtt", 1_000_000 + i / 10, i % 10), t.number_text().unwrap())
        };
        Queue {
            outbox: Outbox::new(settings),
            cells: vec![Cell::EMPTY; 2 * n + 2],
            index: vec![0; n],
            accounts: [AccountQueue::EMPTY],
            values: times.iter().enumerate().map(value).collect(),
        }
    }

    /// All of them are handed over, 5 in a millisecond.
    pub fn hand_over(&mut self) {
        let Queue { outbox, cells, index, accounts, values } = self;
        let mut mem = OutboxMem { cells, index, accounts, records: &mut [], left: &mut [] };
        outbox.handle_wall(&mut mem, Millis(0), UnixMillis(UNIX));
        for (i, (path, number)) in values.iter().enumerate() {
            let ms = i as u64 / 5;
            let path = ValuePath::new(path, MAX_PATH_BYTES).unwrap();
            let time = ValueTime::Unix(UnixMillis(UNIX + ms));
            outbox.push(&mut mem, Millis(ms), ACCOUNT, time, path, number).unwrap();
        }
    }

    /// All of them are delivered: bodies are made and answered by 204.
    pub fn deliver(&mut self) {
        let Queue { outbox, cells, index, accounts, values } = self;
        let mut mem = OutboxMem { cells, index, accounts, records: &mut [], left: &mut [] };
        let (mut now, mut body) = (Millis(values.len() as u64 / 5 + 10_000), vec![0; 64 << 10]);
        while outbox.queued() > 0 {
            let Some(head) = outbox.poll(&mut mem, now) else {
                now = outbox.poll_timeout().map_or(Millis(now.0 + 1), |at| at.max(Millis(now.0 + 1)));
                continue;
            };
            let mut read = 0;
            while read < head.body_len as usize {
                read += black_box(outbox.body(&mut mem, read, &mut body));
            }
            outbox.handle_outcome(&mut mem, now, Outcome::status(204));
        }
        assert_eq!(outbox.ledger().delivered, values.len() as u64);
    }

    /// The body of the next request, in memory of its own; `None` when all are delivered.
    pub fn request(&mut self) -> Option<Vec<u8>> {
        let Queue { outbox, cells, index, accounts, values } = self;
        let mut mem = OutboxMem { cells, index, accounts, records: &mut [], left: &mut [] };
        let head = outbox.poll(&mut mem, Millis(values.len() as u64 / 5 + 10_000))?;
        let mut body = vec![0; head.body_len as usize];
        assert_eq!(outbox.body(&mut mem, 0, &mut body), body.len());
        Some(body)
    }

    /// It was answered with this status.
    pub fn answered(&mut self, status: u16) {
        let Queue { outbox, cells, index, accounts, values } = self;
        let mut mem = OutboxMem { cells, index, accounts, records: &mut [], left: &mut [] };
        outbox.handle_outcome(&mut mem, Millis(values.len() as u64 / 5 + 10_000), Outcome::status(status));
    }

    /// Bytes for each value.
    #[must_use]
    pub fn bytes_per_value(&self) -> f64 {
        (size_of_val(&self.cells[..]) + size_of_val(&self.index[..])) as f64 / self.values.len() as f64
    }
}
