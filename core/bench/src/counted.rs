//! What callgrind counts.

use grafolean_core::schedule::{Entry, EntryFormat, SmallEntry};

use crate::json::{by_model, by_serde, entities, framed};
use crate::refresh::Account;
use crate::timer::{Jobs, MIXED, SLOW, Sink, Spec, T0, Timer, specs};
use crate::values::{self, Queue};

const VALUES: usize = 10_000;

/// Something to be done once, prepared.
pub trait Load {
    /// Does it.
    fn run(&mut self);
    /// How many units that was.
    fn units(&self) -> u64;
}

/// One load.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// What is counted by.
    pub unit: &'static str,
    /// Prepares it.
    pub make: fn() -> Box<dyn Load>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn case(name: &'static str, unit: &'static str, make: fn() -> Box<dyn Load>) -> Case {
    Case { name, unit, make }
}

/// All of them.
pub const CASES: &[Case] = &[
    case("timer-1k", "firing", || timer::<Entry>(1_000, &MIXED, 1_000)),
    case("timer-100k", "firing", || timer::<Entry>(100_000, &MIXED, 10)),
    case("timer-slow-10k", "firing", || timer::<Entry>(10_000, &SLOW, 500)),
    case("timer-small-ids-1k", "firing", || timer::<SmallEntry>(1_000, &MIXED, 1_000)),
    case("timer-idle", "tick", || {
        let idle: Vec<Spec> =
            (0..15).map(|i| Spec { start: T0, intervals: [80_000_000 + i, 0, 0, 0] }).collect();
        Box::new(Ticks {
            timer: Timer::<Entry>::new(&idle, 0),
            seconds: 100_000,
            sink: Sink::default(),
            by_tick: true,
        })
    }),
    case("jobs-run-10k", "run", || {
        Box::new(Runs { jobs: Jobs::new(&specs(10_000, &MIXED), 1), sink: Sink::default() })
    }),
    case("jobs-refresh-same-10k", "job", || refresh(10_000, 0)),
    case("jobs-refresh-1-percent-10k", "job", || refresh(10_000, 100)),
    case("json-frame-64", "byte", || json(|body| black(framed(body, 64)))),
    case("json-frame-256", "byte", || json(|body| black(framed(body, 256)))),
    case("json-frame-1460", "byte", || json(|body| black(framed(body, 1460)))),
    case("json-frame-whole", "byte", || json(|body| black(framed(body, usize::MAX)))),
    case("json-serde-64", "byte", || json(|body| black(by_serde(body, 64)))),
    case("json-serde-256", "byte", || json(|body| black(by_serde(body, 256)))),
    case("json-serde-1460", "byte", || json(|body| black(by_serde(body, 1460)))),
    case("json-serde-whole", "byte", || json(|body| black(by_serde(body, usize::MAX)))),
    case("json-model-64", "byte", || json(|body| black(by_model(body, 64)))),
    case("json-model-256", "byte", || json(|body| black(by_model(body, 256)))),
    case("json-model-1460", "byte", || json(|body| black(by_model(body, 1460)))),
    case("json-model-whole", "byte", || json(|body| black(by_model(body, usize::MAX)))),
    case("values-float", "value", || number(|n| black(values::floats(n)))),
    case("values-decimal", "value", || {
        let numbers: Vec<i64> = values::times_s(VALUES).iter().map(|t| (t * 1e6) as i64).collect();
        work(VALUES, move || black(values::decimals(&numbers)))
    }),
    case("values-path", "value", || work(VALUES, || black(values::paths(VALUES)))),
    case("outbox-hand-over", "value", || {
        let mut queue = Queue::new(VALUES);
        work(VALUES, move || queue.hand_over())
    }),
    case("outbox-deliver", "value", || {
        let mut queue = Queue::new(VALUES);
        queue.hand_over();
        work(VALUES, move || queue.deliver())
    }),
    case("refresh-first", "byte", || {
        let mut account = Account::new(1460);
        work(account.bytes(), move || black(account.refresh()))
    }),
    case("refresh-same", "byte", || {
        let mut account = Account::new(1460);
        account.refresh();
        work(account.bytes(), move || black(account.refresh()))
    }),
];

/// What others need for the same, where they are built.
#[cfg(not(feature = "peers"))]
pub const PEERS: &[Case] = &[];
/// What others need for the same.
#[cfg(feature = "peers")]
pub const PEERS: &[Case] = {
    use crate::groups::json::{self as peers, Simd};
    use crate::groups::values as numbers;
    use crate::json::{Entity, Recorded, by_serde_as, recorded_by_model};
    &[
        case("json-serde_json", "byte", || json(|body| black(peers::serde_json::<Entity>(body)))),
        case("json-serde-json-core", "byte", || json(|body| black(peers::serde_json_core::<Entity>(body)))),
        case("json-simd-json", "byte", || {
            let (body, mut simd) = (entities(300, 5), Simd::default());
            // Its memory is there already, as it is from the second body on.
            black(simd.decode::<Entity>(body.as_bytes()));
            work(body.len(), move || black(simd.decode::<Entity>(body.as_bytes())))
        }),
        case("recorded-model", "byte", || recorded(|body| black(recorded_by_model(body, usize::MAX)))),
        case("recorded-serde", "byte", || recorded(|body| black(by_serde_as::<Recorded>(body, usize::MAX)))),
        case("recorded-frame", "byte", || recorded(|body| black(framed(body, usize::MAX)))),
        case("recorded-serde_json", "byte", || recorded(|body| black(peers::serde_json::<Recorded>(body)))),
        case("recorded-serde-json-core", "byte", || {
            recorded(|body| black(peers::serde_json_core::<Recorded>(body)))
        }),
        case("json-picojson", "byte", || json(|body| black(peers::picojson(body, 256)))),
        case("json-byte-scan", "byte", || json(|body| black(peers::byte_scan(body)))),
        case("values-std", "value", || number(|n| black(numbers::std_format(n)))),
        case("values-serde_json", "value", || number(|n| black(numbers::serde_json(n)))),
    ]
};

struct Ticks<E: EntryFormat> {
    timer: Timer<E>,
    seconds: u32,
    sink: Sink,
    by_tick: bool,
}

impl<E: EntryFormat> Load for Ticks<E> {
    fn run(&mut self) {
        self.timer.run(self.seconds, &mut self.sink);
    }

    fn units(&self) -> u64 {
        if self.by_tick { self.seconds.into() } else { self.sink.firings }
    }
}

fn timer<E: EntryFormat + 'static>(n: usize, choice: &[u32], seconds: u32) -> Box<dyn Load> {
    let timer = Timer::<E>::new(&specs(n, choice), 0);
    Box::new(Ticks { timer, seconds, sink: Sink::default(), by_tick: false })
}

struct Runs {
    jobs: Jobs,
    sink: Sink,
}

impl Load for Runs {
    fn run(&mut self) {
        self.jobs.run(20, &mut self.sink);
    }

    fn units(&self) -> u64 {
        self.sink.firings
    }
}

struct Refresh {
    jobs: Jobs,
    specs: Vec<Spec>,
    changed: usize,
}

impl Load for Refresh {
    fn run(&mut self) {
        self.jobs.refresh(&self.specs, self.changed, Some(7_777));
    }

    fn units(&self) -> u64 {
        self.specs.len() as u64
    }
}

fn refresh(n: usize, changed: usize) -> Box<dyn Load> {
    let specs = specs(n, &MIXED);
    Box::new(Refresh { jobs: Jobs::new(&specs, changed.max(1)), specs, changed })
}

fn black<T>(value: T) {
    std::hint::black_box(value);
}

fn json(take: fn(&[u8])) -> Box<dyn Load> {
    let body = entities(300, 5);
    work(body.len(), move || take(std::hint::black_box(body.as_bytes())))
}

#[cfg(feature = "peers")]
fn recorded(take: fn(&[u8])) -> Box<dyn Load> {
    let body = crate::groups::json::recorded();
    work(body.len(), move || take(std::hint::black_box(body.as_bytes())))
}

struct Work<F> {
    units: usize,
    work: F,
}

impl<F: FnMut()> Load for Work<F> {
    fn run(&mut self) {
        (self.work)();
    }

    fn units(&self) -> u64 {
        self.units as u64
    }
}

fn work(units: usize, work: impl FnMut() + 'static) -> Box<dyn Load> {
    Box::new(Work { units, work })
}

fn number(make: fn(&[f64])) -> Box<dyn Load> {
    let numbers = values::times_s(VALUES);
    work(VALUES, move || make(&numbers))
}
