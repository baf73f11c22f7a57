//! Random pushes, faults and time jumps against a model of the backend that stores what it is sent.
//!
//! `OUTBOX_SEED=n` replays one run, `OUTBOX_RUNS=n` makes more of them.

use std::collections::{HashMap, HashSet};

use crate::rig::{Batch, Rig, Rng, UNIX0};
use grafolean_core::hash::Fnv1a64;
use grafolean_core::outbox::{DropReason, Ledger, Method, OutboxEvent, Outcome, Settings, ValueTime};
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_PATH_BYTES, Number, ValuePath};

/// (account, path, Unix ms)
type Key = (u64, String, u64);

/// A backend: PUT is an upsert by (account, path, time), POST adds.
struct Backend {
    rng: Rng,
    /// Passing faults.
    chaos: bool,
    max_body_bytes: usize,
    put_denied: HashSet<u64>,
    post_denied: HashSet<u64>,
    stored: HashMap<Key, i64>,
    posted: HashMap<i64, u32>,
}

impl Backend {
    fn store(&mut self, batch: &Batch) {
        for v in &batch.values {
            match v.unix_ms {
                Some(ms) => {
                    self.stored.insert((batch.account, v.path.clone(), ms), v.number);
                }
                None => *self.posted.entry(v.number).or_default() += 1,
            }
        }
    }

    fn handle(&mut self, batch: &Batch) -> Outcome {
        let status = Outcome::status;
        if self.chaos {
            match self.rng.below(40) {
                0..=2 => return Outcome::NotSent,
                3 => return Outcome::Lost,
                4 | 5 => {
                    if self.takes(batch) {
                        self.store(batch);
                    }
                    return Outcome::Lost;
                }
                6 => return status(500),
                7 => {
                    // Stored, and failed afterwards.
                    if self.takes(batch) {
                        self.store(batch);
                    }
                    return status(500);
                }
                8 => return status([401, 404, 502, 503, 307][self.rng.below(5) as usize]),
                9 => {
                    let retry_after_ms = Some(self.rng.below(20_000) as u32);
                    return Outcome::Status { code: 429, validation_failed: false, retry_after_ms };
                }
                _ => {}
            }
        }
        if batch.body.len() > self.max_body_bytes {
            return status(413);
        }
        let denied = if batch.method == Method::Put { &self.put_denied } else { &self.post_denied };
        if denied.contains(&batch.account) {
            return status(403);
        }
        // Pages of 100 before that of a bad value are stored.
        let bad = batch.values.iter().position(|v| v.path.starts_with("bad"));
        if let Some(bad) = bad {
            let mut before = batch.clone();
            before.values.truncate(bad / 100 * 100);
            self.store(&before);
            return Outcome::Status { code: 400, validation_failed: true, retry_after_ms: None };
        }
        if batch.values.iter().any(|v| v.path.starts_with("err")) {
            return status(500);
        }
        self.store(batch);
        status(204)
    }

    fn takes(&self, batch: &Batch) -> bool {
        let denied = if batch.method == Method::Put { &self.put_denied } else { &self.post_denied };
        !denied.contains(&batch.account)
            && batch.values.iter().all(|v| !v.path.starts_with("bad") && !v.path.starts_with("err"))
    }
}

/// What was handed over under a number.
#[derive(Clone)]
struct Pushed {
    account: u64,
    path: String,
    at: u64,
    own_time: bool,
}

#[derive(Clone, Copy)]
struct Scene {
    accounts: u64,
    cells: usize,
    /// PUT is denied now and then, values age, memory is short: values may be dropped.
    harsh: bool,
    bad_paths: bool,
    steps: u32,
}

struct Run {
    rig: Rig,
    rng: Rng,
    backend: Backend,
    scene: Scene,
    pushed: Vec<Pushed>,
    /// What the series should hold: the last number handed over for each key.
    expected: HashMap<Key, i64>,
    refused: HashSet<Key>,
    wall_known: bool,
    flight: Option<Batch>,
    /// Everything that was sent, hashed.
    trace: Fnv1a64,
    requests: u32,
}

impl Run {
    fn new(seed: u64, scene: Scene) -> Run {
        let mut rng = Rng::new(seed);
        let settings = Settings {
            max_values: 1 + rng.below(40) as u16,
            post_max_values: 1 + rng.below(20) as u16,
            max_body_bytes: 200 + rng.below(4000) as u32,
            max_age_ms: if scene.harsh { 600_000 } else { u64::MAX },
            seed,
            ..Settings::DEFAULT
        };
        let backend = Backend {
            rng: Rng::new(rng.next()),
            chaos: true,
            max_body_bytes: 500 + rng.below(4000) as usize,
            put_denied: HashSet::new(),
            post_denied: HashSet::new(),
            stored: HashMap::new(),
            posted: HashMap::new(),
        };
        Run {
            rig: Rig::new(settings, scene.cells, scene.accounts as usize),
            rng,
            backend,
            scene,
            pushed: Vec::new(),
            expected: HashMap::new(),
            refused: HashSet::new(),
            wall_known: false,
            flight: None,
            trace: Fnv1a64::new(),
            requests: 0,
        }
    }

    fn push(&mut self) {
        let rng = &mut self.rng;
        let account = 100 + rng.below(self.scene.accounts);
        let kind = match rng.below(40) {
            0 if self.scene.bad_paths => "bad",
            1 if self.scene.bad_paths => "err",
            _ => "entity.7.ping",
        };
        let path = format!("{kind}.{}{}", rng.below(12), "x".repeat((rng.below(4) * rng.below(30)) as usize));
        let number = self.pushed.len() as i64;
        let now = self.rig.now;
        let own_time = rng.one_in(8);
        let time = match rng.below(4) {
            _ if own_time => ValueTime::Unix(UnixMillis(UNIX0 + now / 1000 * 1000 - 1_000_000)),
            0 => ValueTime::Monotonic(Millis(now)),
            1 => ValueTime::Monotonic(Millis(now.saturating_sub(rng.below(100)))),
            _ => ValueTime::Unix(UnixMillis(UNIX0 + now)),
        };
        let unix_ms = match time {
            ValueTime::Unix(UnixMillis(ms)) => ms,
            ValueTime::Monotonic(at) => UNIX0 + at.0,
        };
        // Before the wall clock is known, a Unix time of one's own looks like that of the hand-over.
        self.pushed.push(Pushed {
            account,
            path: path.clone(),
            at: now,
            own_time: own_time && self.wall_known,
        });
        let checked = ValuePath::new(&path, MAX_PATH_BYTES).unwrap();
        let text = number.number_text().unwrap();
        if own_time && self.rng.one_in(3) {
            self.rig.with(|o, m, n| o.recover(m, n, account, UnixMillis(unix_ms), checked, &text)).unwrap();
        } else {
            self.rig.with(|o, m, n| o.push(m, n, account, time, checked, &text)).unwrap();
        }
        self.expected.insert((account, path, unix_ms), number);
    }

    fn poll(&mut self) -> bool {
        assert!(self.flight.is_none());
        let Some(batch) = self.rig.poll() else { return false };
        self.requests += 1;
        self.trace = self.trace.u64(self.rig.now).u64(batch.account).bytes(batch.body.as_bytes());
        let settings = *self.rig.outbox.settings();
        let post = batch.method == Method::Post;
        let max = if post { settings.post_max_values } else { settings.max_values };
        assert!(batch.values.len() <= usize::from(max));
        assert!(batch.values.len() == 1 || batch.body.len() <= settings.max_body_bytes as usize);
        let mut keys = HashSet::new();
        for v in &batch.values {
            assert!(keys.insert((v.path.clone(), v.unix_ms)), "{batch:?} has a path twice");
            let pushed = &self.pushed[v.number as usize];
            assert_eq!((pushed.account, &pushed.path), (batch.account, &v.path));
            if post {
                assert!(
                    self.rig.now - pushed.at <= 5_000 && !pushed.own_time,
                    "{v:?} would be stamped falsely"
                );
            }
        }
        self.flight = Some(batch);
        true
    }

    fn answer(&mut self) {
        let Some(batch) = self.flight.take() else { return };
        let outcome = self.backend.handle(&batch);
        self.rig.outcome(outcome);
        for event in self.rig.events() {
            if let OutboxEvent::ValueRefused { account, time, .. } = event {
                let path = self.rig.outbox.event_path().to_owned();
                assert!(
                    path.starts_with("bad")
                        || path.starts_with("err")
                        || self.backend.chaos
                        || self.scene.harsh,
                    "{path} was refused"
                );
                if let Some(UnixMillis(ms)) = time {
                    self.refused.insert((account, path, ms));
                }
            }
        }
    }

    fn know_wall(&mut self) {
        let unix = self.rig.unix();
        self.rig.with(|o, mem, now| o.handle_wall(mem, now, unix));
        self.wall_known = true;
    }

    fn step(&mut self) {
        match self.rng.below(24) {
            0..=5 => {
                for _ in 0..=self.rng.below(12) {
                    self.push();
                }
            }
            6..=13 if self.flight.is_none() => {
                self.poll();
            }
            6..=13 => self.answer(),
            14..=17 => self.rig.now += self.rng.below(700),
            18 => self.rig.now += self.rng.below(30_000),
            19 if self.rng.one_in(10) => self.rig.now += self.rng.below(900_000),
            20 => self.rig.outbox.note_other_success(),
            21 if self.rng.one_in(4) => self.rig.outbox.note_refresh(),
            22 if self.rng.one_in(10) => self.know_wall(),
            23 if self.scene.harsh => {
                let account = 100 + self.rng.below(self.scene.accounts);
                let (all, one) = match self.rng.below(4) {
                    0 => (&mut self.backend.post_denied, true),
                    1 => (&mut self.backend.put_denied, true),
                    2 => (&mut self.backend.post_denied, false),
                    _ => (&mut self.backend.put_denied, false),
                };
                if one {
                    all.insert(account)
                } else {
                    all.remove(&account)
                };
            }
            23 if self.rng.one_in(50) => self.rig.with(|o, m, n| o.flush(m, n)),
            _ => {
                if let Some(at) = self.rig.outbox.poll_timeout() {
                    self.rig.now = self.rig.now.max(at.0);
                }
            }
        }
    }

    /// All faults end: everything must leave within a bounded time.
    fn drain(&mut self) {
        self.answer();
        self.backend.chaos = false;
        self.backend.put_denied.clear();
        self.backend.post_denied.clear();
        self.know_wall();
        let (start, mut refreshed) = (self.rig.now, self.rig.now);
        let mut stuck = 0;
        while !self.rig.outbox.is_idle() {
            if self.rig.now >= refreshed + 60_000 {
                refreshed = self.rig.now;
                self.rig.outbox.note_refresh();
                self.rig.outbox.note_other_success();
            }
            if self.poll() {
                stuck = 0;
                self.answer();
            } else {
                stuck += 1;
                let at = self.rig.outbox.poll_timeout().map_or(u64::MAX, |t| t.0);
                self.rig.now = self.rig.now.max(at.min(refreshed + 60_000));
            }
            assert!(stuck < 100, "polls without progress: {}", self.rig.ledger());
            assert!(self.rig.now < start + 12 * 3_600_000, "not drained: {}", self.rig.ledger());
        }
        assert_eq!(self.rig.outbox.bytes_used(), 0, "all cells are free again");
    }

    fn go(seed: u64, scene: Scene) -> Run {
        eprintln!("OUTBOX_SEED={seed}");
        let mut run = Run::new(seed, scene);
        for _ in 0..scene.steps {
            run.step();
        }
        run.drain();
        let ledger = run.rig.ledger();
        assert_eq!((ledger.collected + ledger.recovered) as usize, run.pushed.len());
        run
    }
}

/// The seeds to run.
fn seeds(runs: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let only = number("OUTBOX_SEED");
    let runs = if only.is_some() { 1 } else { number("OUTBOX_RUNS").unwrap_or(runs) };
    (0..runs).map(move |k| only.unwrap_or(0x0b0c_5000 + k))
}

const MILD: Scene = Scene { accounts: 4, cells: 20_000, harsh: false, bad_paths: true, steps: 200 };
const HARSH: Scene = Scene { accounts: 5, cells: 160, harsh: true, bad_paths: true, steps: 500 };

#[test]
fn under_put_every_value_is_stored_exactly_once_whatever_happens_to_requests() {
    let mut total = Ledger::EMPTY;
    for seed in seeds(6) {
        let run = Run::go(seed, MILD);
        let ledger = run.rig.ledger();
        assert!(run.backend.posted.is_empty());
        for (key, number) in &run.expected {
            match run.backend.stored.get(key) {
                Some(stored) => assert_eq!(stored, number, "{key:?}: the last one handed over wins"),
                None => assert!(run.refused.contains(key), "{key:?} is missing without reason"),
            }
        }
        assert!(run.backend.stored.keys().all(|key| run.expected.contains_key(key)), "nothing is made up");
        let told = ledger.dropped_by(DropReason::Refused) + ledger.dropped_by(DropReason::Superseded);
        assert_eq!(told, ledger.dropped_total(), "{ledger}");
        total.delivered += ledger.delivered;
        total.dropped[0] += ledger.dropped_by(DropReason::Superseded);
        total.dropped[1] += ledger.dropped_by(DropReason::Refused);
    }
    if std::env::var("OUTBOX_SEED").is_err() {
        assert!(
            total.delivered > 1000 && total.dropped[0] > 10 && total.dropped[1] > 20,
            "the runs do something: {total}"
        );
    }
}

#[test]
fn with_short_memory_denied_methods_and_old_values_the_books_balance_and_all_drains() {
    let mut total = [0; 7];
    for seed in seeds(10) {
        let run = Run::go(seed, HARSH);
        for (number, times) in &run.backend.posted {
            assert_eq!(*times, 1, "value {number} was stored twice by POST");
        }
        for (key, number) in &run.backend.stored {
            let pushed = &run.pushed[*number as usize];
            assert_eq!((key.0, &key.1), (pushed.account, &pushed.path));
        }
        for (sum, n) in total.iter_mut().zip(run.rig.ledger().dropped) {
            *sum += n;
        }
    }
    if std::env::var("OUTBOX_SEED").is_err() {
        assert!(total[..6].iter().all(|n| *n > 0), "every reason occurs: {total:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_requests_at_the_same_times() {
    for seed in seeds(1) {
        for scene in [MILD, HARSH] {
            let (a, b) = (Run::go(seed, scene), Run::go(seed, scene));
            assert!(a.requests > 20);
            assert_eq!((a.trace.finish(), a.requests), (b.trace.finish(), b.requests));
            assert_eq!(a.rig.ledger(), b.rig.ledger());
        }
        assert_ne!(Run::go(seed, MILD).trace.finish(), Run::go(seed + 1, MILD).trace.finish());
    }
}
