//! What `core/bench/run` prints, group by group.

pub mod bots;
pub mod json;
pub mod refresh;
pub mod sink;
pub mod system;
pub mod timer;
pub mod values;
pub mod wire;

use crate::table::Table;
use std::sync::OnceLock;
use std::time::Duration;

use nix::time::ClockId;

/// How long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// For a look: fewer and shorter repetitions, no million.
    Quick,
    /// For the record.
    Full,
}

impl Effort {
    /// How often each is measured; the shortest counts, since the machine is not ours alone.
    #[must_use]
    pub const fn repetitions(self) -> usize {
        match self {
            Effort::Quick => 2,
            Effort::Full => 5,
        }
    }
}

/// What was asked for, next to what was measured.
#[derive(Debug)]
pub struct Bounds(Table);

impl Default for Bounds {
    fn default() -> Self {
        Bounds(Table::new(&["bound", "measured", "met"]))
    }
}

impl Bounds {
    /// One more.
    pub fn add(&mut self, bound: &str, measured: String, met: bool) {
        self.0.row(vec![bound.to_owned(), measured, if met { "yes" } else { "**no**" }.to_owned()]);
    }

    /// Prints them.
    pub fn print(&self) {
        println!("## Bounds\n");
        self.0.print();
    }
}

/// What is allocated now, in bytes, and how often it was allocated so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap {
    /// Bytes.
    pub live: usize,
    /// Allocations and reallocations.
    pub allocations: usize,
}

static PROBE: OnceLock<fn() -> Heap> = OnceLock::new();

/// The program `memory` counts what is allocated; the one that measures times does not, since that takes time.
pub fn count_heap_by(probe: fn() -> Heap) {
    let _ = PROBE.set(probe);
}

/// As far as it is counted.
#[must_use]
pub fn heap() -> Heap {
    PROBE.get().map_or(Heap::default(), |probe| probe())
}

/// Time that this thread has computed, so that others on the machine count as little as possible. Reading it is a system
/// call, some 0.2 µs.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime(Duration);

impl CpuTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        CpuTime(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap().into())
    }

    /// Since then.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0 - self.0
    }
}

/// The shortest time of several runs of `run` on what `setup` makes.
pub fn shortest<S>(effort: Effort, mut setup: impl FnMut() -> S, mut run: impl FnMut(&mut S)) -> Duration {
    let once = |_| {
        let mut state = setup();
        let begin = CpuTime::now();
        run(&mut state);
        begin.elapsed()
    };
    (0..effort.repetitions()).map(once).min().unwrap_or_default()
}

/// What callgrind counts for each unit of a case of [`crate::counted`]; `None` without valgrind.
#[must_use]
pub fn instructions(case: &str) -> Option<f64> {
    let program = std::env::current_exe().ok()?.with_file_name("counts");
    let out = std::process::Command::new(program).args(["--count", case]).output().ok()?;
    String::from_utf8_lossy(&out.stdout).trim().parse().ok()
}
