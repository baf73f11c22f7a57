//! Random pushes, faults and time jumps against a model of the backend that stores what it is sent.
//!
//! `OUTBOX_SEED=n` replays one run, `OUTBOX_RUNS=n` makes more of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::rig::{Batch, Rig, Rng, UNIX0};
use grafolean_core::hash::Fnv1a64;
use grafolean_core::outbox::{
    DropReason, Ledger, Left, Method, OutboxEvent, Outcome, PushError, Settings, ValueTime,
};
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
    /// When values get a record.
    storing: Storing,
    /// The process dies now and then; the store lives on.
    crashes: bool,
    steps: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Storing {
    /// Never: only what an earlier life left is in the store.
    Never,
    /// At hand-over, as on a host.
    First,
    /// Some at hand-over, some when they have waited, others never.
    Mixed,
}

/// What a store keeps of a value.
#[derive(Clone)]
struct Kept {
    account: u64,
    path: String,
    time: ValueTime,
    at: u64,
    number: i64,
}

/// A store that forgets nothing.
#[derive(Default)]
struct Store {
    last: u64,
    records: BTreeMap<u64, Kept>,
    /// Given to the outbox and not come back.
    inside: BTreeSet<u64>,
    parked: BTreeSet<u64>,
    /// How often each thing happened.
    parkings: u32,
    returns: u32,
    refusals: u32,
    late: u32,
    lost: u32,
}

impl Store {
    fn next(&mut self, kept: Kept) -> u64 {
        self.last += 1;
        self.records.insert(self.last, kept);
        self.last
    }
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
    store: Store,
    /// Of the lives before this one.
    past: Vec<Ledger>,
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
            store: Store::default(),
            past: Vec::new(),
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
        // Where all have records, the same path and time come often: while the first is parked, too.
        let often = self.scene.storing == Storing::First;
        let own_time = rng.one_in(if often { 3 } else { 8 });
        let step = if often { 100_000 } else { 1_000 };
        let path = if often && own_time { format!("own.{}", rng.below(3)) } else { path };
        let time = match rng.below(4) {
            _ if own_time => ValueTime::Unix(UnixMillis(UNIX0 + now / step * step - 1_000_000)),
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
        let found = self.scene.storing == Storing::Never && own_time && self.rng.one_in(3);
        let stored = self.scene.storing == Storing::First
            || self.scene.storing == Storing::Mixed && self.rng.one_in(2);
        // Without records at hand-over, nothing keeps those found in order with later ones.
        let path = if found { format!("found.{number}") } else { path };
        self.pushed[number as usize].path.clone_from(&path);
        let kept = Kept { account, path: path.clone(), time, at: now, number };
        if found {
            let record = self.store.next(kept);
            self.store.parked.insert(record);
            self.rig.with(|o, _, n| o.handle_stored(n, 1));
        } else if stored {
            let record = self.store.next(kept);
            self.store.inside.insert(record);
            let (path, text) =
                (ValuePath::new(&path, MAX_PATH_BYTES).unwrap(), number.number_text().unwrap());
            self.rig.with(|o, m, n| o.push_stored(m, n, account, time, path, &text, record)).unwrap();
        } else {
            self.rig.push_at(account, time, &path, number).unwrap();
        }
        self.take_left();
        self.expected.insert((account, path, unix_ms), number);
    }

    /// What has left the outbox leaves the store, or waits there.
    fn take_left(&mut self) {
        for Left { record, parked } in std::mem::take(&mut self.rig.departed) {
            assert!(self.store.inside.remove(&record), "record {record} left but was not inside");
            if parked {
                self.store.parkings += 1;
                assert!(self.store.parked.insert(record));
            } else {
                self.store.records.remove(&record);
            }
        }
        assert_eq!(self.rig.outbox.parked(), self.store.parked.len() as u64);
    }

    /// Gives parked values back, as many as the outbox wants.
    fn feed(&mut self) {
        for account in 100..100 + self.scene.accounts {
            let room = self.rig.with(|o, m, _| o.room_for_backlog(m, account));
            let parked: Vec<u64> = self.store.parked.iter().copied().collect();
            let of_account = parked.into_iter().filter(|r| self.store.records[r].account == account);
            for record in of_account.take(room as usize).collect::<Vec<_>>() {
                let Kept { path, time, at, number, .. } = self.store.records[&record].clone();
                let at = if self.wall_known {
                    ValueTime::Unix(UnixMillis(UNIX0 + at))
                } else {
                    ValueTime::Monotonic(Millis(at))
                };
                let path = ValuePath::new(&path, MAX_PATH_BYTES).unwrap();
                let text = number.number_text().unwrap();
                let before = self.rig.ledger();
                match self.rig.with(|o, m, n| o.recover(m, n, account, time, at, path, &text, record)) {
                    Ok(()) => {
                        self.store.returns += 1;
                        self.store.parked.remove(&record);
                        self.store.inside.insert(record);
                        self.pushed[number as usize].own_time = true;
                        self.take_left();
                    }
                    Err(PushError::NoRoom) => {
                        self.store.refusals += 1;
                        assert_eq!(self.rig.ledger(), before, "what finds no room changes no count");
                        self.take_left();
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Stores what has waited; some of it leaves while it is being written.
    fn store_late(&mut self) {
        let before = Millis(self.rig.now.saturating_sub(2_000));
        let next = self.rng.one_in(2);
        let unstored = if next {
            self.rig.with(|o, m, _| o.next_unstored(m))
        } else {
            self.rig.with(|o, m, _| o.oldest_unstored(m, before))
        };
        let Some(unstored) = unstored else { return };
        assert!(next || unstored.handed_over < before);
        if next && self.rng.one_in(20) {
            self.rig.with(|o, _, _| o.pass_account());
            return;
        }
        let mut text = [0; 300];
        let n = self.rig.with(|o, m, _| o.unstored_text(m, &mut text));
        assert_eq!(n, usize::from(unstored.path_len) + usize::from(unstored.number_len));
        let (path, number) = text[..n].split_at(usize::from(unstored.path_len));
        let path = String::from_utf8(path.to_vec()).unwrap();
        let number: i64 = std::str::from_utf8(number).unwrap().parse().unwrap();
        let pushed = &self.pushed[number as usize];
        assert_eq!((pushed.account, &pushed.path), (unstored.account, &path));
        let at = unstored.handed_over.0;
        let kept = Kept { account: unstored.account, path, time: unstored.time, at, number };
        if self.rng.one_in(3) {
            self.answer();
            self.push();
        }
        let record = self.store.next(kept);
        if self.rig.with(|o, m, _| o.set_record(m, record)) {
            self.store.late += 1;
            self.store.inside.insert(record);
        } else {
            self.store.records.remove(&record);
        }
    }

    /// Some records of values in memory are lost: these have none any more.
    fn lose_records(&mut self) {
        let lost: Vec<u64> = self.store.inside.iter().copied().filter(|r| r % 3 == 0).collect();
        let forgotten = self.rig.with(|o, m, _| o.forget_records(m, |r| lost.contains(&r)));
        assert_eq!(forgotten as usize, lost.len(), "each of them was in memory");
        for record in lost {
            self.store.inside.remove(&record);
            self.store.records.remove(&record);
        }
        self.store.lost += forgotten;
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

    /// The process dies; the next one finds what is in the store.
    fn crash(&mut self) {
        if let Some(batch) = self.flight.take()
            && self.rng.one_in(2)
        {
            self.backend.handle(&batch);
        }
        let ledger = self.rig.ledger();
        let found = self.store.records.len() as u64;
        assert_eq!(ledger.queued, found, "what was queued is what is found");
        self.past.push(ledger);
        let (settings, now) = (*self.rig.outbox.settings(), self.rig.now);
        self.rig = Rig::new(settings, self.scene.cells, self.scene.accounts as usize);
        self.rig.now = now;
        self.know_wall();
        self.rig.with(|o, _, n| o.handle_stored(n, found));
        self.store.inside.clear();
        self.store.parked = self.store.records.keys().copied().collect();
    }

    fn step(&mut self) {
        self.take_left();
        if self.scene.crashes && self.rng.one_in(40) {
            self.crash();
        }
        if self.rng.one_in(6) {
            self.feed();
        }
        if self.scene.storing == Storing::Mixed && self.rng.one_in(3) {
            self.store_late();
        }
        if self.scene.storing == Storing::Mixed && self.rng.one_in(100) {
            self.take_left();
            self.lose_records();
        }
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
        while self.rig.outbox.queued() > 0 {
            self.take_left();
            self.feed();
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
        self.take_left();
        assert_eq!(self.rig.outbox.bytes_used(), 0, "all cells are free again");
        assert!(self.rig.outbox.is_idle());
        assert!(
            self.store.inside.is_empty() && self.store.parked.is_empty() && self.store.records.is_empty()
        );
    }

    fn go(seed: u64, scene: Scene) -> Run {
        eprintln!("OUTBOX_SEED={seed}");
        let mut run = Run::new(seed, scene);
        if scene.storing == Storing::First {
            run.know_wall();
        }
        for _ in 0..scene.steps {
            run.step();
        }
        run.drain();
        let ledger = run.rig.ledger();
        let (mut collected, mut ended) = (ledger.collected, ledger.delivered + ledger.dropped_total());
        for past in &run.past {
            collected += past.collected;
            ended += past.delivered + past.dropped_total();
        }
        if !scene.crashes {
            collected += ledger.recovered;
        }
        assert_eq!((collected as usize, ended as usize), (run.pushed.len(), run.pushed.len()));
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

const MILD: Scene = Scene {
    accounts: 4,
    cells: 20_000,
    harsh: false,
    bad_paths: true,
    storing: Storing::Never,
    crashes: false,
    steps: 200,
};
const HARSH: Scene = Scene {
    accounts: 5,
    cells: 160,
    harsh: true,
    bad_paths: true,
    storing: Storing::Never,
    crashes: false,
    steps: 500,
};
/// A host's store and so little memory that most values are parked.
const STORED: Scene = Scene { cells: 120, storing: Storing::First, steps: 150, ..MILD };
const CRASHING: Scene = Scene { crashes: true, ..STORED };
const MIXED: Scene = Scene { storing: Storing::Mixed, ..HARSH };

#[test]
fn under_put_every_value_is_stored_exactly_once_whatever_happens_to_requests() {
    arrives_exactly_once(MILD);
}

#[test]
fn with_a_store_and_short_memory_every_value_still_arrives_exactly_once_and_the_last_one_wins() {
    let parkings = arrives_exactly_once(STORED);
    assert!(parkings > 500 || std::env::var("OUTBOX_SEED").is_ok(), "most values are parked: {parkings}");
}

#[test]
fn with_a_store_every_value_arrives_exactly_once_over_crashes_and_the_last_one_wins() {
    let parkings = arrives_exactly_once(CRASHING);
    assert!(parkings > 100 || std::env::var("OUTBOX_SEED").is_ok(), "values are parked: {parkings}");
}

/// How often a value was parked.
fn arrives_exactly_once(scene: Scene) -> u32 {
    let mut total = Ledger::EMPTY;
    let mut parkings = 0;
    for seed in seeds(6) {
        let run = Run::go(seed, scene);
        parkings += run.store.parkings;
        let mut ledger = run.rig.ledger();
        for past in &run.past {
            ledger.delivered += past.delivered;
            for (sum, n) in ledger.dropped.iter_mut().zip(past.dropped) {
                *sum += n;
            }
        }
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
    parkings
}

#[test]
fn with_short_memory_denied_methods_and_old_values_the_books_balance_and_all_drains() {
    balances_and_drains(HARSH);
}

#[test]
fn with_records_for_some_values_the_books_balance_all_drains_and_each_record_leaves_once() {
    let all = balances_and_drains(MIXED);
    if std::env::var("OUTBOX_SEED").is_err() {
        assert!(all.iter().all(|n| *n > 0), "everything happens: {all:?}");
    }
}

/// How often values were parked, came back, found no room, were stored late, and lost their record.
fn balances_and_drains(scene: Scene) -> [u32; 5] {
    let mut total = [0; 8];
    let mut counts = [0; 5];
    for seed in seeds(10) {
        let run = Run::go(seed, scene);
        let store = &run.store;
        let of_run = [store.parkings, store.returns, store.refusals, store.late, store.lost];
        for (sum, n) in counts.iter_mut().zip(of_run) {
            *sum += n;
        }
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
    counts
}

#[test]
fn the_same_seed_gives_the_same_requests_at_the_same_times() {
    for seed in seeds(1) {
        for scene in [MILD, HARSH, STORED, MIXED, CRASHING] {
            let (a, b) = (Run::go(seed, scene), Run::go(seed, scene));
            assert!(a.requests > 20);
            assert_eq!((a.trace.finish(), a.requests), (b.trace.finish(), b.requests));
            assert_eq!(a.rig.ledger(), b.rig.ledger());
        }
        assert_ne!(Run::go(seed, MILD).trace.finish(), Run::go(seed + 1, MILD).trace.finish());
    }
}
