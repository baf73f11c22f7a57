//! What callgrind counts.

use crate::timer::{Jobs, MIXED, SLOW, Sink, Spec, T0, Timer, specs};

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
    case("timer-1k", "firing", || timer(1_000, &MIXED, 1_000)),
    case("timer-100k", "firing", || timer(100_000, &MIXED, 10)),
    case("timer-slow-10k", "firing", || timer(10_000, &SLOW, 500)),
    case("timer-idle", "tick", || {
        let idle: Vec<Spec> =
            (0..15).map(|i| Spec { start: T0, intervals: [80_000_000 + i, 0, 0, 0] }).collect();
        Box::new(Ticks {
            timer: Timer::new(&idle, 0),
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
];

struct Ticks {
    timer: Timer,
    seconds: u32,
    sink: Sink,
    by_tick: bool,
}

impl Load for Ticks {
    fn run(&mut self) {
        self.timer.run(self.seconds, &mut self.sink);
    }

    fn units(&self) -> u64 {
        if self.by_tick { self.seconds.into() } else { self.sink.firings }
    }
}

fn timer(n: usize, choice: &[u32], seconds: u32) -> Box<dyn Load> {
    let timer = Timer::new(&specs(n, choice), 0);
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
