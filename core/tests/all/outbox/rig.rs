//! An outbox with its memory and a clock that stands still until told: audited after every step.

use grafolean_core::outbox::{
    AccountQueue, BatchHead, Cell, DropReason, Ledger, Left, Method, Outbox, OutboxEvent, OutboxMem, Outcome,
    PushError, Settings, ValueTime,
};
use grafolean_core::random::SplitMix64;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_PATH_BYTES, Number, ValuePath};

/// Unix ms at monotonic 0.
pub(crate) const UNIX0: u64 = 1_700_000_000_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    pub(crate) path: String,
    pub(crate) number: i64,
    pub(crate) unix_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    pub(crate) account: u64,
    pub(crate) method: Method,
    pub(crate) values: Vec<Sent>,
    pub(crate) body: String,
}

impl Batch {
    pub(crate) fn paths(&self) -> Vec<&str> {
        self.values.iter().map(|v| v.path.as_str()).collect()
    }
}

pub(crate) struct Rig {
    pub(crate) outbox: Outbox,
    cells: Vec<Cell>,
    index: Vec<u32>,
    accounts: Vec<AccountQueue>,
    records: Vec<u64>,
    left: Vec<u64>,
    /// What has left, until the test takes it.
    pub(crate) departed: Vec<Left>,
    pub(crate) now: u64,
    /// A full audit after every step; large tests do without.
    pub(crate) audited: bool,
}

impl Rig {
    pub(crate) fn new(settings: Settings, cells: usize, accounts: usize) -> Rig {
        Rig {
            outbox: Outbox::new(settings),
            cells: vec![Cell::EMPTY; cells],
            // Few buckets: chains are long, and an audit stays cheap.
            index: vec![0; (cells / 2).clamp(1, 251)],
            accounts: vec![AccountQueue::EMPTY; accounts],
            records: vec![0; cells],
            left: vec![0; cells + 1],
            departed: Vec::new(),
            now: 0,
            audited: true,
        }
    }

    /// Runs `f` on the outbox with its memory, then audits.
    pub(crate) fn with<T>(&mut self, f: impl FnOnce(&mut Outbox, &mut OutboxMem<'_>, Millis) -> T) -> T {
        let mut mem = OutboxMem {
            cells: &mut self.cells,
            index: &mut self.index,
            accounts: &mut self.accounts,
            records: &mut self.records,
            left: &mut self.left,
        };
        let out = f(&mut self.outbox, &mut mem, Millis(self.now));
        assert!(self.outbox.ledger().balanced(), "{}", self.outbox.ledger());
        if self.audited {
            assert_eq!(self.outbox.audit(&mut mem), Ok(()), "at {} ms, {}", self.now, self.outbox.ledger());
        }
        self.departed.extend(std::iter::from_fn(|| self.outbox.poll_left(&mut mem)));
        out
    }

    pub(crate) fn unix(&self) -> UnixMillis {
        UnixMillis(UNIX0 + self.now)
    }

    pub(crate) fn push(&mut self, account: u64, path: &str, number: i64) {
        let time = ValueTime::Unix(self.unix());
        self.push_at(account, time, path, number).unwrap();
    }

    pub(crate) fn push_at(
        &mut self,
        account: u64,
        time: ValueTime,
        path: &str,
        number: i64,
    ) -> Result<(), PushError> {
        let path = ValuePath::new(path, MAX_PATH_BYTES).unwrap();
        self.with(|o, mem, now| o.push(mem, now, account, time, path, &number.number_text().unwrap()))
    }

    /// The request that is due now, its body read in odd pieces.
    pub(crate) fn poll(&mut self) -> Option<Batch> {
        let head = self.with(|o, mem, now| o.poll(mem, now))?;
        Some(self.batch(head))
    }

    fn batch(&mut self, head: BatchHead) -> Batch {
        let body = self.read(0, 37);
        assert_eq!(body.len(), head.body_len as usize, "the length is exact");
        let json: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(&body).unwrap();
        assert_eq!(json.len(), head.values as usize);
        let values = json.into_iter().map(|v| {
            assert!(v.keys().all(|k| ["p", "v", "t"].contains(&k.as_str())));
            Sent {
                path: v["p"].as_str().unwrap().to_owned(),
                number: v["v"].as_i64().unwrap(),
                unix_ms: v.get("t").map(|t| (t.as_f64().unwrap() * 1000.0).round() as u64),
            }
        });
        let values = values.collect();
        Batch { account: head.account, method: head.method, values, body: String::from_utf8(body).unwrap() }
    }

    /// The body from `offset` on, in pieces of `piece` bytes.
    pub(crate) fn read(&mut self, offset: usize, piece: usize) -> Vec<u8> {
        let mut body = Vec::new();
        // Reading changes nothing: the audit is left to the other steps.
        let audited = std::mem::replace(&mut self.audited, false);
        loop {
            let mut buf = vec![0; piece];
            let n = self.with(|o, mem, _| o.body(mem, offset + body.len(), &mut buf));
            body.extend_from_slice(&buf[..n]);
            if n < piece {
                self.audited = audited;
                return body;
            }
        }
    }

    /// Goes on to the next request, however late it is due.
    pub(crate) fn next(&mut self) -> Option<Batch> {
        for _ in 0..1000 {
            if let Some(batch) = self.poll() {
                return Some(batch);
            }
            self.now = self.now.max(self.outbox.poll_timeout()?.0);
        }
        panic!("1000 polls without a request at {} ms: {}", self.now, self.outbox.ledger());
    }

    pub(crate) fn outcome(&mut self, outcome: Outcome) {
        self.with(|o, mem, now| o.handle_outcome(mem, now, outcome));
    }

    pub(crate) fn answer(&mut self, code: u16) {
        self.outcome(Outcome::status(code));
    }

    pub(crate) fn refuse(&mut self) {
        self.outcome(Outcome::Status { code: 400, validation_failed: true, retry_after_ms: None });
    }

    pub(crate) fn events(&mut self) -> Vec<OutboxEvent> {
        std::iter::from_fn(|| self.outbox.poll_event()).collect()
    }

    pub(crate) fn ledger(&self) -> Ledger {
        *self.outbox.ledger()
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.ledger().dropped_by(reason)
    }

    /// Moves to memory of other sizes, as an owner does who grows it.
    pub(crate) fn grow(&mut self, cells: usize, accounts: usize) {
        self.cells.resize(cells, Cell::EMPTY);
        self.index = vec![0; 2 * self.index.len() + 1];
        self.accounts.resize(accounts, AccountQueue::EMPTY);
        self.records.resize(cells, 0);
        self.left.resize(cells + 1, 0);
        self.with(|o, mem, _| o.handle_grown(mem));
    }
}

/// The tests' generator, seeded and printed.
pub(crate) struct Rng(SplitMix64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Rng(SplitMix64::new(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
