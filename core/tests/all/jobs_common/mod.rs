//! For the tests of schedule and jobs: seeded random numbers, tables in inline and in boxed memory.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::{Due, JobSlot, JobTable, JobsMem, JobsState, Progress, Running};
use grafolean_core::random::SplitMix64;
use grafolean_core::schedule::{Class, EntryFormat, Extra};
use grafolean_core::table::{NONE, Slot};
use grafolean_core::time::Millis;
use std::hash::{BuildHasher, Hasher};

use super::Entry;

type Number = <Entry as EntryFormat>::Number;

/// Seeded random numbers.
pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(SplitMix64::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay this case alone: GRAFOLEAN_SEED={}", self.0);
        }
    }
}

/// Runs `case` with `n` fresh seeds, or with the one in `GRAFOLEAN_SEED`; the seed of a failure is printed.
pub fn for_seeds(n: u64, case: impl Fn(u64)) {
    let replay = std::env::var("GRAFOLEAN_SEED").ok().and_then(|s| s.parse().ok());
    let first =
        replay.unwrap_or_else(|| std::collections::hash_map::RandomState::new().build_hasher().finish());
    for i in 0..if replay.is_some() { 1 } else { n } {
        let seed = first.wrapping_add(i);
        let _told = Told(seed);
        case(seed);
    }
}

pub fn every(seconds: &[u32]) -> Intervals {
    let mut out = Intervals::EMPTY;
    for &s in seconds {
        out.insert(Interval::new(i64::from(s)).unwrap()).unwrap();
    }
    out
}

/// What a table can hold.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub jobs: usize,
    pub spare: usize,
    pub entries: usize,
    pub classes: usize,
    pub running: usize,
    pub floor_per_s: u32,
}

/// Memory of a table, wherever it lies.
pub trait Memory<J> {
    fn room(&self) -> Room;
    fn table(&mut self) -> JobTable<'_, J, Entry>;
}

/// A table on the heap.
pub struct Boxed<J> {
    pub state: JobsState,
    pub slots: Vec<JobSlot<J>>,
    pub heads: Vec<u32>,
    pub progress: Vec<Progress>,
    pub ready: Vec<Number>,
    pub extras: Vec<Extra>,
    pub entries: Vec<Entry>,
    pub classes: Vec<Class>,
    pub running: Vec<Running>,
    pub room: Room,
}

impl<J: Clone> Boxed<J> {
    pub fn new(room: Room) -> Self {
        let n = room.jobs + room.spare;
        Boxed {
            state: JobsState::new(room.floor_per_s),
            slots: (0..n).map(|_| Slot::EMPTY).collect(),
            heads: vec![NONE; room.jobs.max(1)],
            progress: vec![Progress::EMPTY; n],
            ready: vec![0; n],
            extras: vec![Extra::EMPTY; n],
            entries: vec![Entry::EMPTY; room.entries],
            classes: vec![Class::EMPTY; room.classes],
            running: vec![Running::EMPTY; room.running],
            room,
        }
    }

    /// Room enough for `jobs` of any kind, all running at once.
    pub fn ample(jobs: usize) -> Self {
        Boxed::new(Room {
            jobs,
            spare: jobs,
            entries: 8 * jobs,
            classes: 8 * jobs,
            running: jobs,
            floor_per_s: 50,
        })
    }

    /// Moves to larger memory, as a host does.
    pub fn grow(&mut self, room: Room) {
        let n = room.jobs + room.spare;
        self.slots.resize_with(n, || Slot::EMPTY);
        self.heads.resize(room.jobs, NONE);
        self.progress.resize(n, Progress::EMPTY);
        self.ready.resize(n, 0);
        self.extras.resize(n, Extra::EMPTY);
        self.entries.resize(room.entries, Entry::EMPTY);
        self.classes.resize(room.classes, Class::EMPTY);
        self.running.resize(room.running, Running::EMPTY);
        self.room = room;
    }
}

impl<J: PartialEq> Memory<J> for Boxed<J> {
    fn room(&self) -> Room {
        self.room
    }

    fn table(&mut self) -> JobTable<'_, J, Entry> {
        let mem = JobsMem {
            slots: &mut self.slots,
            heads: &mut self.heads,
            spare: self.room.spare,
            progress: &mut self.progress,
            ready: &mut self.ready,
            extras: &mut self.extras,
            entries: &mut self.entries,
            classes: &mut self.classes,
            running: &mut self.running,
        };
        JobTable::new(&mut self.state, mem)
    }
}

/// A table as a board has it: 16 jobs, 2 spare slots, 20 entries, 6 distinct intervals, 3 runs at once.
pub struct Inline<J> {
    state: JobsState,
    slots: [JobSlot<J>; 18],
    heads: [u32; 16],
    progress: [Progress; 18],
    ready: [Number; 18],
    extras: [Extra; 18],
    entries: [Entry; 20],
    classes: [Class; 6],
    running: [Running; 3],
}

impl<J> Inline<J> {
    pub const ROOM: Room = Room { jobs: 16, spare: 2, entries: 20, classes: 6, running: 3, floor_per_s: 1 };

    pub fn new() -> Self {
        Inline {
            state: JobsState::new(1),
            slots: [const { Slot::EMPTY }; 18],
            heads: [NONE; 16],
            progress: [Progress::EMPTY; 18],
            ready: [0; 18],
            extras: [Extra::EMPTY; 18],
            entries: [Entry::EMPTY; 20],
            classes: [Class::EMPTY; 6],
            running: [Running::EMPTY; 3],
        }
    }
}

impl<J: PartialEq> Memory<J> for Inline<J> {
    fn room(&self) -> Room {
        Self::ROOM
    }

    fn table(&mut self) -> JobTable<'_, J, Entry> {
        let mem = JobsMem {
            slots: &mut self.slots,
            heads: &mut self.heads,
            spare: 2,
            progress: &mut self.progress,
            ready: &mut self.ready,
            extras: &mut self.extras,
            entries: &mut self.entries,
            classes: &mut self.classes,
            running: &mut self.running,
        };
        JobTable::new(&mut self.state, mem)
    }
}

/// Begins and ends all runs that are due at `now`.
pub fn run_all<J: PartialEq>(jobs: &mut JobTable<'_, J, Entry>, now: Millis) -> Vec<Due> {
    jobs.advance(now);
    let mut runs = Vec::new();
    while let Some(due) = jobs.next_run(now) {
        assert!(jobs.complete(due.run).is_some());
        runs.push(due);
    }
    runs
}
