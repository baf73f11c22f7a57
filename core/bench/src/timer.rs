//! The timer core's load: jobs with a few intervals each, on ticks of one second that are stepped without waiting.
//!
//! What a timer has to say at each tick: which jobs are due, each once, and which of its intervals made it so.

use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::{
    JobKey, JobSlot, JobSpec, JobTable, JobsMem, JobsState, Phase, Progress, Running,
};
use grafolean_core::schedule::{Class, Entry, EntryFormat, Extra, Schedule, ScheduleMem, ScheduleState};
use grafolean_core::table::{NONE, Slot};
use grafolean_core::time::{Millis, Tick};

use crate::random::Random;

/// The tick that timers stand at when they have been set up: later than the start of any job.
pub const T0: u32 = 1_000_000;
/// Intervals that people choose, in seconds.
pub const MIXED: [u32; 15] = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 3600, 14400, 86400];
/// Only those from a minute up.
pub const SLOW: [u32; 8] = [60, 120, 300, 600, 900, 3600, 14400, 86400];

/// A job: one to four distinct intervals, ascending, 0 where there is none, on grids through `start`.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// A tick not after [`T0`].
    pub start: u32,
    /// Seconds.
    pub intervals: [u32; 4],
}

impl Spec {
    /// How many intervals it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.intervals.iter().filter(|i| **i != 0).count()
    }

    /// Whether it has none, which no job of [`specs`] has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which intervals are due at `t`, by division.
    #[must_use]
    pub fn mask(&self, t: u32) -> u32 {
        let due = |k: usize| self.intervals[k] != 0 && (t - self.start).is_multiple_of(self.intervals[k]);
        (0..4).map(|k| u32::from(due(k)) << k).sum()
    }

    /// Its intervals as the core has them.
    #[must_use]
    pub fn set(&self) -> Intervals {
        let mut set = Intervals::EMPTY;
        for &s in self.intervals.iter().filter(|s| **s != 0) {
            set.insert(Interval::new(s.into()).unwrap()).unwrap();
        }
        set
    }
}

/// `n` jobs with 1 to 4 of `choice`, spread over a day.
#[must_use]
pub fn specs(n: usize, choice: &[u32]) -> Vec<Spec> {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut one = |_| {
        let count = 1 + random.below(4) as usize;
        let mut intervals = [0; 4];
        let mut have = 0;
        while have < count {
            let s = choice[random.below(choice.len() as u32) as usize];
            if !intervals[..have].contains(&s) {
                intervals[have] = s;
                have += 1;
            }
        }
        intervals[..count].sort_unstable();
        Spec { start: T0 - random.below(86_400), intervals }
    };
    (0..n).map(&mut one).collect()
}

/// `n` jobs of one interval each, of which `distinct` are different: 60 s and more, in random order.
#[must_use]
pub fn distinct_specs(n: usize, distinct: u32) -> Vec<Spec> {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut one =
        |i| Spec { start: T0 - random.below(86_400), intervals: [60 + i as u32 % distinct, 0, 0, 0] };
    let mut specs: Vec<Spec> = (0..n).map(&mut one).collect();
    random.shuffle(&mut specs);
    specs
}

/// How many different intervals they have.
fn distinct(specs: &[Spec]) -> usize {
    let mut all: Vec<u32> = specs.iter().flat_map(|s| s.intervals).filter(|s| *s != 0).collect();
    all.sort_unstable();
    all.dedup();
    all.len()
}

/// Takes what a timer says and adds it up, so that timers can be compared: the order within a tick does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sink {
    /// How many jobs were due, at all ticks together.
    pub firings: u64,
    /// Of job, tick and intervals of each.
    pub sum: u64,
}

impl Sink {
    /// Job `id` is due at tick `t` for the intervals of `mask`.
    #[inline(always)]
    pub fn emit(&mut self, id: u32, t: u32, mask: u32) {
        self.firings += 1;
        let one = (u64::from(id) << 4 | u64::from(mask)).wrapping_mul(u64::from(t) | 1);
        self.sum = self.sum.wrapping_add(one);
    }
}

/// What is due by division, looking at every job at every tick: what all timers must say.
#[must_use]
pub fn by_division(specs: &[Spec], seconds: u32) -> Sink {
    let mut sink = Sink::default();
    for t in T0 + 1..=T0 + seconds {
        for (id, spec) in (0..).zip(specs) {
            let mask = spec.mask(t);
            if mask != 0 {
                sink.emit(id, t, mask);
            }
        }
    }
    sink
}

/// The memory of a [`Schedule`], and what puts the intervals of one job together: a byte for each job, and a list of
/// those that are due, as long as there can be.
#[derive(Debug)]
pub struct Timer<E: EntryFormat = Entry> {
    state: ScheduleState,
    entries: Vec<E>,
    classes: Vec<Class>,
    extras: Vec<Extra>,
    due: Vec<u8>,
    list: Vec<E::Number>,
}

impl<E: EntryFormat> Timer<E> {
    /// All of `specs`, at [`T0`], with room for `spare` further entries and as many classes as there are distinct
    /// intervals.
    #[must_use]
    pub fn new(specs: &[Spec], spare: usize) -> Self {
        let entries: usize = specs.iter().map(Spec::len).sum();
        let mut timer = Timer {
            state: ScheduleState::new(),
            entries: vec![E::EMPTY; entries + spare],
            classes: vec![Class::EMPTY; distinct(specs)],
            extras: Vec::new(),
            due: vec![0; specs.len() + spare],
            // One more: it is written before it is known whether the job is there already.
            list: vec![E::Number::default(); specs.len() + spare + 1],
        };
        let mut schedule = timer.schedule();
        schedule.advance(Tick(T0.into()), |_| {});
        for spec in specs {
            schedule.reserve(&spec.set()).unwrap();
        }
        let with_slot = (0..).zip(specs).map(|(slot, s)| (slot, s.set(), Tick(s.start.into())));
        schedule.insert_reserved(with_slot).unwrap();
        timer
    }

    /// The schedule itself.
    pub fn schedule(&mut self) -> Schedule<'_, E> {
        let mem =
            ScheduleMem { entries: &mut self.entries, classes: &mut self.classes, extras: &mut self.extras };
        Schedule::new(&mut self.state, mem)
    }

    /// Goes on to tick `t` and says what is due.
    pub fn tick(&mut self, t: u32, sink: &mut Sink) {
        let Timer { state, entries, classes, extras, due, list } = self;
        let mut n = 0;
        Schedule::new(state, ScheduleMem { entries, classes, extras }).advance(Tick(t.into()), |fired| {
            let mask = &mut due[fired.slot as usize];
            list[n] = fired.slot.try_into().unwrap_or_default();
            n += usize::from(*mask == 0);
            *mask |= 1 << fired.bit;
        });
        for &slot in &list[..n] {
            let slot: u32 = slot.into();
            let mask = core::mem::take(&mut due[slot as usize]);
            sink.emit(slot, t, mask.into());
        }
    }

    /// All ticks of so many seconds.
    pub fn run(&mut self, seconds: u32, sink: &mut Sink) {
        for t in T0 + 1..=T0 + seconds {
            self.tick(t, sink);
        }
    }
}

/// The memory of a [`JobTable`]: the schedule with keyed jobs, pending and ready ones, runs under way.
#[derive(Debug)]
pub struct Jobs<E: EntryFormat = Entry> {
    state: JobsState,
    slots: Vec<JobSlot<u32>>,
    heads: Vec<u32>,
    spare: usize,
    progress: Vec<Progress>,
    ready: Vec<E::Number>,
    extras: Vec<Extra>,
    entries: Vec<E>,
    classes: Vec<Class>,
    running: Vec<Running>,
}

impl<E: EntryFormat> Jobs<E> {
    /// All of `specs` at [`T0`], on their grids, with room to stage `spare` jobs.
    #[must_use]
    pub fn new(specs: &[Spec], spare: usize) -> Self {
        let n = specs.len() + spare;
        let entries: usize = specs.iter().map(Spec::len).sum();
        let mut jobs = Jobs {
            state: JobsState::new(50),
            slots: std::iter::repeat_with(|| Slot::EMPTY).take(n).collect(),
            heads: vec![NONE; n],
            spare,
            progress: vec![Progress::EMPTY; n],
            ready: vec![E::Number::default(); n],
            extras: vec![Extra::EMPTY; n],
            entries: vec![E::EMPTY; entries + 4 * spare],
            // One more: for what a refresh changes intervals to.
            classes: vec![Class::EMPTY; distinct(specs) + 1],
            running: vec![Running::EMPTY; 64],
        };
        let mut table = jobs.table();
        table.begin();
        for (id, spec) in (0..).zip(specs) {
            table.upsert(job(id, spec)).unwrap();
        }
        let committed = table.commit(Millis(u64::from(T0) * 1000), |_| false, |_| {});
        assert_eq!(committed.added as usize, specs.len());
        jobs
    }

    /// The table itself.
    pub fn table(&mut self) -> JobTable<'_, u32, E> {
        JobTable::new(
            &mut self.state,
            JobsMem {
                slots: &mut self.slots,
                heads: &mut self.heads,
                spare: self.spare,
                progress: &mut self.progress,
                ready: &mut self.ready,
                extras: &mut self.extras,
                entries: &mut self.entries,
                classes: &mut self.classes,
                running: &mut self.running,
            },
        )
    }

    /// Goes on to tick `t`; what is due runs, one after the other.
    pub fn tick(&mut self, t: u32, sink: &mut Sink) {
        let now = Millis(u64::from(t) * 1000);
        let mut table = self.table();
        table.advance(now);
        while let Some(due) = table.next_run(now) {
            sink.emit(due.key.entity as u32, t, due.affecting.0.into());
            table.complete(due.run);
        }
    }

    /// All ticks of so many seconds.
    pub fn run(&mut self, seconds: u32, sink: &mut Sink) {
        for t in T0 + 1..=T0 + seconds {
            self.tick(t, sink);
        }
    }

    /// A refresh that names all of `specs` and changes the intervals of `changed` of them, the first ones: from those of
    /// `specs` to an interval that others have, or back.
    pub fn refresh(&mut self, specs: &[Spec], changed: usize, to: Option<u32>) {
        let mut table = self.table();
        table.begin();
        for (id, spec) in (0..).zip(specs) {
            let mut spec = *spec;
            if let (Some(s), true) = (to, (id as usize) < changed) {
                spec.intervals = [s, 0, 0, 0];
            }
            table.upsert(job(id, &spec)).unwrap();
        }
        let now = Millis(u64::from(T0) * 1000);
        let committed = table.commit(now, |_| false, |_| {});
        assert_eq!((committed.changed as usize, committed.removed, committed.added), (changed, 0, 0));
    }
}

/// A job as the table is told of it.
#[must_use]
pub fn job(id: u32, spec: &Spec) -> JobSpec<u32> {
    JobSpec {
        key: JobKey::new(1, id.into()),
        intervals: spec.set(),
        phase: Phase::Aligned(Tick(spec.start.into())),
        first_run: false,
        deadline_ms: None,
        params: id,
    }
}
