//! When each slot is due: slots fire at `start + k · interval` of each of their intervals, told in batches as time
//! goes on. Indices only; what a slot stands for is the owner's business.
//!
//! ```
//! use grafolean_core::interval::{Interval, Intervals};
//! use grafolean_core::schedule::{Class, Entry, Extra, Schedule, ScheduleMem, ScheduleState};
//! use grafolean_core::time::Tick;
//!
//! let mut state = ScheduleState::new();
//! let (mut entries, mut classes, mut extras) = ([Entry::EMPTY; 4], [Class::EMPTY; 2], [Extra::EMPTY; 1]);
//! let mem = ScheduleMem { entries: &mut entries, classes: &mut classes, extras: &mut extras };
//! let mut schedule = Schedule::new(&mut state, mem);
//! let minute = Intervals::one(Interval::new(60)?);
//! schedule.insert(7, &minute, Tick(5))?;
//! assert_eq!(schedule.next_due(), Some(Tick(5)));
//! let mut fired = None;
//! schedule.advance(Tick(70), |f| fired = Some(f));
//! assert_eq!(fired.map(|f| (f.slot, f.first, f.count)), Some((7, Tick(5), 2)));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! For each distinct interval there is a *class*: the entries of all slots that have it, sorted by phase (start
//! modulo interval), and a cursor that goes round once per interval. Entries never move when they fire, and nothing
//! is divided.
//!
//! Cost of [`Schedule::advance`]: O(1) before the next due tick; otherwise one look at each distinct interval, plus
//! one at each entry that is due, however many wait and however far time has gone. Edits move entries, O(entries)
//! for a batch of any size plus sorting the classes that have grown by more than eight; a new distinct interval
//! costs O(distinct intervals).
//!
//! Memory: 8 bytes for each interval of each slot ([`Entry`]), or 6 ([`SmallEntry`]) for up to 16,384 slots;
//! 40 for each distinct interval, 16 for each extra run.
//!
//! Errors: [`ScheduleError`] when one of the three has no room, or a slot no number; nothing is touched then (but for
//! [`Schedule::insert_reserved`], which adds all others).

use crate::interval::Intervals;
use crate::sort;
use crate::time::Tick;
use core::cmp::Ordering;
use core::fmt;

const NEVER: u64 = u64::MAX;
/// The schedule stops here, some 5·10¹¹ years after 0, so that no later instant overflows.
const LAST: u64 = u64::MAX - (1 << 33);
/// A class that has grown by at most this many entries takes them in one by one.
const FEW: usize = 8;

mod sealed {
    /// How an entry keeps what it is made of. Entries are ordered by phase, then slot, then bit.
    pub trait Packed {
        /// Of a phase below 2³¹, a slot below `MAX_SLOTS` and a bit below 8.
        fn new(phase: u32, slot: u32, bit: u32) -> Self;
        fn phase(&self) -> u32;
        fn slot(&self) -> u32;
        fn bit(&self) -> u8;
    }

    pub trait Number {
        /// Of a slot below `MAX_SLOTS`.
        fn of(slot: u32) -> Self;
    }

    pub trait Choice {}
    impl Choice for super::AreFew<true> {}
    impl Choice for super::AreFew<false> {}

    impl Number for u32 {
        fn of(slot: u32) -> Self {
            slot
        }
    }

    impl Number for u16 {
        fn of(slot: u32) -> Self {
            slot as u16
        }
    }
}

/// How large the entries of a schedule are, and so how many slots it can tell apart: [`Entry`] or [`SmallEntry`].
pub trait EntryFormat: Copy + Ord + fmt::Debug + sealed::Packed {
    /// Slots are numbered below this.
    const MAX_SLOTS: u32;
    /// Room for an entry, all bytes zero.
    const EMPTY: Self;
    /// A slot's number in a list of slots.
    type Number: SlotNumber;
}

/// A slot's number in a list of slots: `u32` beside [`Entry`], `u16` beside [`SmallEntry`].
pub trait SlotNumber: Copy + Into<u32> + TryFrom<u32> + Default + fmt::Debug + sealed::Number {}

impl SlotNumber for u32 {}
impl SlotNumber for u16 {}

/// Room for one interval of one slot, of up to 2²⁹ slots: its phase, then slot and position of the interval. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    phase: u32,
    packed: u32,
}

impl Entry {
    /// Room for an entry.
    pub const EMPTY: Self = Entry { phase: 0, packed: 0 };
}

impl EntryFormat for Entry {
    const MAX_SLOTS: u32 = 1 << 29;
    const EMPTY: Self = Self::EMPTY;
    type Number = u32;
}

impl sealed::Packed for Entry {
    fn new(phase: u32, slot: u32, bit: u32) -> Self {
        Entry { phase, packed: slot << 3 | bit }
    }

    fn phase(&self) -> u32 {
        self.phase
    }

    fn slot(&self) -> u32 {
        self.packed >> 3
    }

    fn bit(&self) -> u8 {
        (self.packed & 7) as u8
    }
}

/// Room for one interval of one slot, of up to 16,384 slots. 6 bytes.
///
/// It has the same order and the same longest interval as [`Entry`]; telling what is due takes slightly longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SmallEntry {
    /// One number of 48 bits, the lowest ones last: phase (31), slot (14), position of the interval (3). The upper 32 have
    /// their lower half first, as little-endian processors have it.
    upper: [u16; 2],
    lower: u16,
}

impl SmallEntry {
    /// Room for an entry.
    pub const EMPTY: Self = SmallEntry { upper: [0; 2], lower: 0 };

    fn upper(&self) -> u32 {
        let [low, high] = self.upper;
        u32::from(high) << 16 | u32::from(low)
    }
}

impl Ord for SmallEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.upper(), self.lower).cmp(&(other.upper(), other.lower))
    }
}

impl PartialOrd for SmallEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl EntryFormat for SmallEntry {
    const MAX_SLOTS: u32 = 1 << 14;
    const EMPTY: Self = Self::EMPTY;
    type Number = u16;
}

impl sealed::Packed for SmallEntry {
    fn new(phase: u32, slot: u32, bit: u32) -> Self {
        let upper = phase << 1 | slot >> 13;
        SmallEntry { upper: [upper as u16, (upper >> 16) as u16], lower: (slot << 3 | bit) as u16 }
    }

    fn phase(&self) -> u32 {
        self.upper() >> 1
    }

    fn slot(&self) -> u32 {
        (self.upper() & 1) << 13 | u32::from(self.lower >> 3)
    }

    fn bit(&self) -> u8 {
        (self.lower & 7) as u8
    }
}

/// Whether a table has at most as many slots as [`SmallEntry`] can number: [`EntryFor`] decides by it.
#[derive(Clone, Copy, Debug)]
pub struct AreFew<const FEW: bool>;

/// See [`EntryFor`].
pub trait ChooseEntry: sealed::Choice {
    /// The entries.
    type Entry: EntryFormat;
}

impl ChooseEntry for AreFew<true> {
    type Entry = SmallEntry;
}

impl ChooseEntry for AreFew<false> {
    type Entry = Entry;
}

/// The smallest entries that will do: `EntryFor<{ fit_small_entries(SLOTS) }>`.
pub type EntryFor<const FEW: bool> = <AreFew<FEW> as ChooseEntry>::Entry;

/// Whether [`SmallEntry`] can number so many slots.
#[must_use]
pub const fn fit_small_entries(slots: usize) -> bool {
    slots <= SmallEntry::MAX_SLOTS as usize
}

/// Room for one distinct interval.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// The first instant that has not been told.
    next: u64,
    /// A multiple of the interval; entries before the cursor have been told for the cycle that begins here.
    cycle: u64,
    interval: u32,
    begin: u32,
    len: u32,
    cursor: u32,
    reserved: u32,
    placed: u32,
}

impl Class {
    /// Room for a class, all bytes zero.
    pub const EMPTY: Self =
        Class { next: 0, cycle: 0, interval: 0, begin: 0, len: 0, cursor: 0, reserved: 0, placed: 0 };

    fn range(&self) -> core::ops::Range<usize> {
        let begin = self.begin as usize;
        begin..begin + self.len as usize
    }

    fn set_next<E: EntryFormat>(&mut self, list: &[E]) {
        self.next = match (list.get(self.cursor as usize), list.first()) {
            (Some(e), _) => self.cycle.saturating_add(u64::from(e.phase())),
            (None, Some(e)) => {
                self.cycle.saturating_add(u64::from(self.interval)).saturating_add(u64::from(e.phase()))
            }
            (None, None) => NEVER,
        };
    }

    /// Puts the cursor behind what is due at `position`.
    fn settle<E: EntryFormat>(&mut self, list: &[E], position: u64) {
        let mut r = position.saturating_sub(self.cycle);
        if r >= u64::from(self.interval) {
            r = u64::from(remainder(position, self.interval));
            self.cycle = position - r;
        }
        self.cursor = list.partition_point(|e| u64::from(e.phase()) <= r) as u32;
        self.set_next(list);
    }

    /// Tells what is due up to and including `to`.
    fn pass<E: EntryFormat>(&mut self, to: u64, list: &[E], on: &mut impl FnMut(Fired)) -> u32 {
        let interval = u64::from(self.interval);
        let elapsed = to.saturating_sub(self.cycle);
        let cursor = (self.cursor as usize).min(list.len());
        let (before, after) = list.split_at(cursor);
        let mut told = 0;
        if elapsed < interval {
            for e in after.iter().take_while(|e| u64::from(e.phase()) <= elapsed) {
                on(Fired::grid(e, self.cycle, 1));
                told += 1;
            }
            self.cursor += told;
        } else {
            let beyond = elapsed - interval;
            // A division only if whole cycles have been missed.
            let (cycles, r) =
                if beyond < interval { (1, beyond) } else { (elapsed / interval, elapsed % interval) };
            for e in after {
                on(Fired::grid(e, self.cycle, cycles + u64::from(u64::from(e.phase()) <= r)));
                told += 1;
            }
            for e in before {
                let count = cycles - 1 + u64::from(u64::from(e.phase()) <= r);
                if count == 0 {
                    break;
                }
                on(Fired::grid(e, self.cycle + interval, count));
                told += 1;
            }
            self.cycle = to - r;
            self.cursor = list.partition_point(|e| u64::from(e.phase()) <= r) as u32;
        }
        self.set_next(list);
        told
    }
}

/// Room for one extra run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extra {
    tick: u64,
    slot: u32,
}

/// The latest first: the next one is the last of a list.
impl Ord for Extra {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.tick, other.slot).cmp(&(self.tick, self.slot))
    }
}

impl PartialOrd for Extra {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Extra {
    /// Room for an extra run.
    pub const EMPTY: Self = Extra { tick: 0, slot: 0 };
}

/// `n` modulo `by`, by the short division where it will do.
fn remainder(n: u64, by: u32) -> u32 {
    match u32::try_from(n) {
        Ok(n) => n % by.max(1),
        Err(_) => (n % u64::from(by.max(1))) as u32,
    }
}

/// The first instant after `after` of the grids of `intervals` through `start`; `None` if there is no interval.
///
/// At most eight pairs of divisions.
#[must_use]
pub fn next_instant(intervals: &Intervals, start: Tick, after: Tick) -> Option<Tick> {
    let wait = |&s: &u32| {
        let (phase, r) = (remainder(start.0, s), remainder(after.0, s));
        if phase > r { phase - r } else { s - r + phase }
    };
    let least = intervals.as_slice().iter().map(wait).min()?;
    Some(Tick(after.0.saturating_add(u64::from(least))))
}

/// What a schedule tells: a slot's interval has fallen due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fired {
    /// Whose.
    pub slot: u32,
    /// The interval's position in the slot's set, or [`Fired::EXTRA`].
    pub bit: u8,
    /// The first instant since the last time this was told.
    pub first: Tick,
    /// How many instants since then; at least 1, saturating.
    pub count: u32,
}

impl Fired {
    /// In place of an interval's position: an extra run.
    pub const EXTRA: u8 = 8;

    fn grid<E: EntryFormat>(e: &E, cycle: u64, count: u64) -> Self {
        Fired {
            slot: e.slot(),
            bit: e.bit(),
            first: Tick(cycle.saturating_add(u64::from(e.phase()))),
            count: u32::try_from(count).unwrap_or(u32::MAX),
        }
    }
}

/// What has no room, or no number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ScheduleError {
    /// No room for as many intervals of all slots together.
    Entries {
        /// How many the schedule holds.
        capacity: usize,
    },
    /// No room for one more distinct interval.
    DistinctIntervals {
        /// The first one without room, in seconds.
        interval_s: u32,
        /// How many the schedule holds.
        capacity: usize,
    },
    /// No room for one more extra run.
    Extras {
        /// How many the schedule holds.
        capacity: usize,
    },
    /// Entries of this format cannot number the slot ([`EntryFormat::MAX_SLOTS`]).
    Slot {
        /// The number.
        slot: u32,
        /// Slots are numbered below this.
        max_slots: u32,
    },
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleError::Entries { capacity } => {
                write!(f, "schedule is full: it holds {capacity} intervals of all jobs together")
            }
            ScheduleError::DistinctIntervals { interval_s, capacity } => {
                write!(f, "schedule has no room for {interval_s} s: it holds {capacity} distinct intervals")
            }
            ScheduleError::Extras { capacity } => {
                write!(f, "schedule is full: it holds {capacity} extra runs")
            }
            ScheduleError::Slot { slot, max_slots } => {
                write!(f, "slot {slot} is not below {max_slots}")
            }
        }
    }
}

impl core::error::Error for ScheduleError {}

/// What a schedule remembers besides its memory.
#[derive(Clone, Debug)]
pub struct ScheduleState {
    position: u64,
    next: u64,
    entries: u32,
    reserved: u32,
    classes: u32,
    extras: u32,
    steps: u32,
}

impl Default for ScheduleState {
    fn default() -> Self {
        Self::new()
    }
}

impl ScheduleState {
    /// An empty schedule that stands at tick 0.
    #[must_use]
    pub const fn new() -> Self {
        ScheduleState { position: 0, next: NEVER, entries: 0, reserved: 0, classes: 0, extras: 0, steps: 0 }
    }
}

/// The memory of a schedule. It may grow at its ends between calls, never shrink.
#[derive(Debug)]
pub struct ScheduleMem<'a, E = Entry> {
    /// One for each interval of each slot.
    pub entries: &'a mut [E],
    /// One for each distinct interval.
    pub classes: &'a mut [Class],
    /// One for each extra run that is still to come.
    pub extras: &'a mut [Extra],
}

/// A schedule for the time of a call: its state and its memory.
#[derive(Debug)]
pub struct Schedule<'a, E = Entry> {
    state: &'a mut ScheduleState,
    entries: &'a mut [E],
    /// In use: those up to `state.classes`, by ascending interval; their ranges follow each other without gap.
    classes: &'a mut [Class],
    /// In use: those up to `state.extras`, the latest first.
    extras: &'a mut [Extra],
}

impl<'a, E: EntryFormat> Schedule<'a, E> {
    /// The schedule of `state` in `mem`. O(1).
    #[must_use]
    pub fn new(state: &'a mut ScheduleState, mem: ScheduleMem<'a, E>) -> Self {
        let ScheduleMem { entries, classes, extras } = mem;
        Schedule { state, entries, classes, extras }
    }

    /// The tick up to which all has been told.
    #[must_use]
    pub const fn position(&self) -> Tick {
        Tick(self.state.position)
    }

    /// The next tick at which a slot is due. O(1).
    #[must_use]
    pub const fn next_due(&self) -> Option<Tick> {
        if self.state.next == NEVER { None } else { Some(Tick(self.state.next)) }
    }

    /// Intervals of all slots together.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.state.entries as usize
    }

    /// Distinct intervals.
    #[must_use]
    pub const fn distinct_intervals(&self) -> usize {
        self.state.classes as usize
    }

    /// Classes and entries that [`Self::advance`] has looked at since the schedule was made, modulo 2³²: its cost,
    /// for tests and metrics.
    #[must_use]
    pub const fn steps(&self) -> u32 {
        self.state.steps
    }

    fn used(&self) -> &[Class] {
        self.classes.get(..self.state.classes as usize).unwrap_or(&[])
    }

    fn used_mut(&mut self) -> &mut [Class] {
        self.classes.get_mut(..self.state.classes as usize).unwrap_or(&mut [])
    }

    fn find(&self, interval_s: u32) -> Result<usize, usize> {
        self.used().binary_search_by_key(&interval_s, |c| c.interval)
    }

    /// Goes on to `to` and tells what has fallen due after the old position, up to and including `to`: each
    /// interval of each slot at most once, with its first instant and their number, then the extra runs. Within an
    /// interval and within the extra runs the order is by instant, then slot (unless whole intervals were missed);
    /// between them there is none. A time that is not later does nothing.
    pub fn advance(&mut self, to: Tick, mut on: impl FnMut(Fired)) {
        let to = to.0.min(LAST);
        if to <= self.state.position {
            return;
        }
        self.state.position = to;
        if to < self.state.next {
            return;
        }
        let mut next = NEVER;
        let mut steps = self.state.classes;
        for class in self.classes.iter_mut().take(self.state.classes as usize) {
            if class.next <= to {
                let list = self.entries.get(class.range()).unwrap_or(&[]);
                steps = steps.wrapping_add(class.pass(to, list, &mut on));
            }
            next = next.min(class.next);
        }
        while let Some(extra) = self.last_extra() {
            if extra.tick > to {
                next = next.min(extra.tick);
                break;
            }
            self.state.extras -= 1;
            steps = steps.wrapping_add(1);
            on(Fired { slot: extra.slot, bit: Fired::EXTRA, first: Tick(extra.tick), count: 1 });
        }
        self.state.next = next;
        self.state.steps = self.state.steps.wrapping_add(steps);
    }

    fn last_extra(&self) -> Option<Extra> {
        let last = self.state.extras.checked_sub(1)?;
        self.extras.get(last as usize).copied()
    }

    fn refresh_next(&mut self) {
        let grid = self.used().iter().map(|c| c.next).min().unwrap_or(NEVER);
        self.state.next = grid.min(self.last_extra().map_or(NEVER, |e| e.tick));
    }

    /// Adds one slot, which fires first after the position. O(entries + distinct intervals): for many, use
    /// [`Self::reserve`] and [`Self::insert_reserved`].
    ///
    /// # Errors
    /// [`ScheduleError`]; nothing is touched then.
    pub fn insert(&mut self, slot: u32, intervals: &Intervals, start: Tick) -> Result<(), ScheduleError> {
        Self::check(slot)?;
        self.reserve(intervals)?;
        self.insert_reserved(core::iter::once((slot, *intervals, start)))
    }

    const fn check(slot: u32) -> Result<(), ScheduleError> {
        let max_slots = E::MAX_SLOTS;
        if slot < max_slots { Ok(()) } else { Err(ScheduleError::Slot { slot, max_slots }) }
    }

    /// Keeps room for one slot with these intervals, until [`Self::insert_reserved`]. At most eight binary searches
    /// among the distinct intervals; a new one moves those behind it.
    ///
    /// # Errors
    /// [`ScheduleError`]; nothing is reserved then.
    pub fn reserve(&mut self, intervals: &Intervals) -> Result<(), ScheduleError> {
        let capacity = self.entries.len().min(u32::MAX as usize);
        let taken = self.state.entries as usize + self.state.reserved as usize;
        if capacity.saturating_sub(taken) < intervals.len() {
            return Err(ScheduleError::Entries { capacity });
        }
        let mut room = self.classes.len().saturating_sub(self.state.classes as usize);
        for &interval_s in intervals.as_slice() {
            if self.find(interval_s).is_err() {
                if room == 0 {
                    let capacity = self.classes.len();
                    return Err(ScheduleError::DistinctIntervals { interval_s, capacity });
                }
                room -= 1;
            }
        }
        for &interval_s in intervals.as_slice() {
            let at = self.find(interval_s).unwrap_or_else(|at| self.open_class(at, interval_s));
            if let Some(class) = self.classes.get_mut(at) {
                class.reserved += 1;
                self.state.reserved += 1;
            }
        }
        Ok(())
    }

    fn open_class(&mut self, at: usize, interval: u32) -> usize {
        let n = self.state.classes as usize;
        let begin = self.used().get(at).map_or(self.state.entries, |c| c.begin);
        self.classes.copy_within(at..n, at + 1);
        self.state.classes += 1;
        let cycle = self.state.position - u64::from(remainder(self.state.position, interval));
        if let Some(class) = self.classes.get_mut(at) {
            *class = Class { interval, begin, cycle, next: NEVER, ..Class::EMPTY };
        }
        at
    }

    /// Gives back what [`Self::reserve`] has kept for these intervals.
    pub fn unreserve(&mut self, intervals: &Intervals) {
        for &interval_s in intervals.as_slice() {
            let Ok(at) = self.find(interval_s) else { continue };
            let n = self.state.classes as usize;
            let Some(class) = self.classes.get_mut(at) else { continue };
            if class.reserved > 0 {
                class.reserved -= 1;
                self.state.reserved -= 1;
            }
            if class.reserved == 0 && class.len == 0 {
                self.classes.copy_within(at + 1..n, at);
                self.state.classes -= 1;
            }
        }
    }

    /// Gives back all that [`Self::reserve`] has kept.
    pub fn unreserve_all(&mut self) {
        for class in self.used_mut() {
            class.reserved = 0;
        }
        self.state.reserved = 0;
        self.drop_empty_classes();
    }

    fn drop_empty_classes(&mut self) {
        let n = self.state.classes as usize;
        let mut kept = 0;
        for i in 0..n {
            let Some(&class) = self.classes.get(i) else { break };
            if class.len > 0 || class.reserved > 0 {
                if let Some(to) = self.classes.get_mut(kept) {
                    *to = class;
                }
                kept += 1;
            }
        }
        self.state.classes = kept as u32;
    }

    /// Adds the slots that room was kept for: (slot, intervals, start). They fire first after the position. What
    /// was not reserved is left out. O(entries + distinct intervals), plus sorting.
    ///
    /// # Errors
    /// [`ScheduleError::Slot`] for the first slot that has no number in entries of this format; all others have been added.
    pub fn insert_reserved(
        &mut self,
        slots: impl Iterator<Item = (u32, Intervals, Tick)>,
    ) -> Result<(), ScheduleError> {
        let mut shift = self.state.reserved as usize;
        if shift == 0 {
            return Ok(());
        }
        let mut result = Ok(());
        // A gap behind each class for its new entries.
        for class in self.classes.iter_mut().take(self.state.classes as usize).rev() {
            shift -= class.reserved as usize;
            if shift == 0 {
                break;
            }
            let from = class.range();
            let to = from.start + shift;
            self.entries.copy_within(from, to);
            class.begin = to as u32;
        }
        for (slot, intervals, start) in slots {
            if let Err(error) = Self::check(slot) {
                result = result.and(Err(error));
                continue;
            }
            for (bit, &interval_s) in (0u32..).zip(intervals.as_slice()) {
                let Ok(at) = self.find(interval_s) else { continue };
                let Some(class) = self.classes.get_mut(at) else { continue };
                let place = class.begin as usize + class.len as usize + class.placed as usize;
                debug_assert!(class.placed < class.reserved, "{interval_s} s was not reserved");
                if class.placed < class.reserved
                    && let Some(entry) = self.entries.get_mut(place)
                {
                    *entry = E::new(remainder(start.0, interval_s), slot, bit);
                    class.placed += 1;
                }
            }
        }
        let position = self.state.position;
        let mut end = 0u32;
        for class in self.classes.iter_mut().take(self.state.classes as usize) {
            let old = class.len as usize;
            class.len += class.placed;
            if class.begin != end {
                // Only if less was inserted than reserved.
                self.entries.copy_within(class.range(), end as usize);
                class.begin = end;
            }
            end += class.len;
            if class.placed > 0
                && let Some(list) = self.entries.get_mut(class.range())
            {
                take_in(list, old);
                class.settle(list, position);
            }
            class.placed = 0;
            class.reserved = 0;
        }
        self.state.entries = end;
        self.state.reserved = 0;
        self.drop_empty_classes();
        self.refresh_next();
        result
    }

    /// Adds an extra run for each (slot, tick); a tick that is not after the position counts as the next one.
    /// O(extra runs), plus sorting.
    ///
    /// # Errors
    /// [`ScheduleError::Extras`]: those before it have been added.
    pub fn add_extras(&mut self, extras: impl Iterator<Item = (u32, Tick)>) -> Result<(), ScheduleError> {
        let earliest = self.state.position.saturating_add(1);
        let before = self.state.extras;
        let mut result = Ok(());
        for (slot, tick) in extras {
            let capacity = self.extras.len();
            let Some(place) = self.extras.get_mut(self.state.extras as usize) else {
                result = Err(ScheduleError::Extras { capacity });
                break;
            };
            *place = Extra { tick: tick.0.max(earliest), slot };
            self.state.extras += 1;
        }
        if self.state.extras > before {
            let used = self.extras.get_mut(..self.state.extras as usize).unwrap_or(&mut []);
            sort::unstable(used);
            self.refresh_next();
        }
        result
    }

    /// Removes one slot. O(entries).
    pub fn remove(&mut self, slot: u32) {
        self.remove_where(|s| s == slot);
    }

    /// Removes all slots of which `gone` is true, with their extra runs. O(entries + extra runs).
    pub fn remove_where(&mut self, mut gone: impl FnMut(u32) -> bool) {
        let mut end = 0usize;
        for class in self.classes.iter_mut().take(self.state.classes as usize) {
            let (begin, cursor) = (end, class.cursor as usize);
            let mut told = 0;
            for (i, from) in class.range().enumerate() {
                let Some(&entry) = self.entries.get(from) else { break };
                if gone(entry.slot()) {
                    continue;
                }
                told += u32::from(i < cursor);
                if let Some(to) = self.entries.get_mut(end) {
                    *to = entry;
                }
                end += 1;
            }
            class.begin = begin as u32;
            class.len = (end - begin) as u32;
            class.cursor = told;
            class.set_next(self.entries.get(begin..end).unwrap_or(&[]));
        }
        self.state.entries = end as u32;
        let mut kept = 0;
        for i in 0..self.state.extras as usize {
            let Some(&extra) = self.extras.get(i) else { break };
            if !gone(extra.slot) {
                if let Some(to) = self.extras.get_mut(kept) {
                    *to = extra;
                }
                kept += 1;
            }
        }
        self.state.extras = kept as u32;
        self.drop_empty_classes();
        self.refresh_next();
    }
}

/// Sorts `list`, of which the first `old` are sorted.
fn take_in<E: EntryFormat>(list: &mut [E], old: usize) {
    if list.len() - old > FEW {
        sort::unstable(list);
        return;
    }
    for i in old..list.len() {
        let (sorted, rest) = list.split_at(i);
        let Some(new) = rest.first() else { break };
        let at = sorted.partition_point(|e| e < new);
        if let Some(moved) = list.get_mut(at..=i) {
            moved.rotate_right(1);
        }
    }
}
