//! The schedule against arithmetic: whatever is inserted, removed and skipped, each interval of each slot is told
//! with its first instant and their number, at a cost that does not depend on what waits.

use super::Entry;
use super::jobs_common::{Random, every, for_seeds};
use grafolean_core::interval::Intervals;
use grafolean_core::schedule::{
    Class, EntryFormat, Extra, Fired, Schedule, ScheduleError, ScheduleMem, ScheduleState, next_instant,
};
use grafolean_core::time::Tick;
use std::collections::BTreeMap;

struct Owner {
    state: ScheduleState,
    entries: Vec<Entry>,
    classes: Vec<Class>,
    extras: Vec<Extra>,
}

impl Owner {
    fn new(entries: usize, classes: usize, extras: usize) -> Self {
        Owner {
            state: ScheduleState::new(),
            entries: vec![Entry::EMPTY; entries],
            classes: vec![Class::EMPTY; classes],
            extras: vec![Extra::EMPTY; extras],
        }
    }

    fn schedule(&mut self) -> Schedule<'_, Entry> {
        let Owner { state, entries, classes, extras } = self;
        Schedule::new(state, ScheduleMem { entries, classes, extras })
    }

    fn advance(&mut self, to: u64) -> Vec<Fired> {
        let mut fired = Vec::new();
        self.schedule().advance(Tick(to), |f| fired.push(f));
        fired
    }
}

/// The first instant of `start + k·interval` in (from, to] and how many there are.
fn instants(start: u64, interval: u32, from: u64, to: u64) -> Option<(u64, u32)> {
    let (start, interval, from, to) =
        (i128::from(start), i128::from(interval), i128::from(from), i128::from(to));
    let first = start + ((from - start).div_euclid(interval) + 1) * interval;
    let count = (to - start).div_euclid(interval) - (from - start).div_euclid(interval);
    (count > 0).then(|| (u64::try_from(first).unwrap(), u32::try_from(count).unwrap_or(u32::MAX)))
}

#[derive(Default)]
struct Model {
    position: u64,
    slots: BTreeMap<u32, (Intervals, u64)>,
    extras: BTreeMap<u32, u64>,
}

impl Model {
    fn between(&self, from: u64, to: u64) -> Vec<(u32, u8, u64, u32)> {
        let mut out = Vec::new();
        for (&slot, (intervals, start)) in &self.slots {
            for (bit, &interval) in (0u8..).zip(intervals.as_slice()) {
                if let Some((first, count)) = instants(*start, interval, from, to) {
                    out.push((slot, bit, first, count));
                }
            }
            if let Some(&tick) = self.extras.get(&slot)
                && tick <= to
            {
                out.push((slot, Fired::EXTRA, tick, 1));
            }
        }
        out
    }

    fn next_due(&self) -> Option<u64> {
        let grid = self.slots.values().flat_map(|(intervals, start)| {
            let far = self.position + u64::from(u32::MAX);
            intervals
                .as_slice()
                .iter()
                .filter_map(move |&i| instants(*start, i, self.position, far))
                .map(|f| f.0)
        });
        grid.chain(self.extras.values().copied()).min()
    }

    fn entries(&self) -> usize {
        self.slots.values().map(|(i, _)| i.len()).sum()
    }

    fn distinct(&self) -> usize {
        let mut all: Vec<u32> = self.slots.values().flat_map(|(i, _)| i.as_slice().to_vec()).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }
}

fn random_intervals(r: &mut Random) -> Intervals {
    let pool = [1, 2, 3, 5, 7, 10, 12, 60, 61, 300, 3600, 86_400, 2_147_483_647, 2_147_483_646];
    every(&(0..1 + r.below(8)).map(|_| r.pick(&pool)).collect::<Vec<_>>())
}

#[test]
fn a_schedule_tells_what_arithmetic_tells() {
    for_seeds(200, |seed| {
        let mut r = Random::new(seed);
        let (entries, classes) = (20 + r.below(60) as usize, 3 + r.below(12) as usize);
        let mut owner = Owner::new(entries, classes, 40);
        let mut model = Model::default();
        let begin = r.pick(&[0, 1, 59, 4_294_967_290, 1_700_000_000, 1 << 53, u64::MAX / 1000]);
        assert!(owner.advance(begin).is_empty());
        model.position = begin;
        for _ in 0..60 {
            match r.below(8) {
                // A batch, with extra runs.
                0 => {
                    let (mut batch, mut extras) = (Vec::new(), Vec::new());
                    let mut schedule = owner.schedule();
                    for _ in 0..1 + r.below(20) {
                        let (slot, intervals) = (r.below(40) as u32, random_intervals(&mut r));
                        let any = r.below(model.position + 100_000);
                        let start = r.pick(&[0, model.position, u64::MAX, any]);
                        if model.slots.contains_key(&slot) {
                            continue;
                        }
                        let before = (model.entries(), model.distinct());
                        model.slots.insert(slot, (intervals, start));
                        let fits = model.entries() <= entries && model.distinct() <= classes;
                        assert_eq!(schedule.reserve(&intervals).is_ok(), fits);
                        if !fits {
                            model.slots.remove(&slot);
                            assert_eq!(before, (model.entries(), model.distinct()));
                        } else if r.one_in(8) {
                            schedule.unreserve(&intervals);
                            model.slots.remove(&slot);
                        } else {
                            batch.push((slot, intervals, Tick(start)));
                            if r.one_in(2) {
                                let tick = model.position.saturating_add(1 + r.below(100));
                                model.extras.insert(slot, tick);
                                extras.push((slot, Tick(tick)));
                            }
                        }
                    }
                    schedule.insert_reserved(batch.into_iter()).unwrap();
                    schedule.add_extras(extras.into_iter()).unwrap();
                }
                1 => {
                    let (slot, intervals) = (40 + r.below(8) as u32, random_intervals(&mut r));
                    if model.slots.contains_key(&slot) {
                        continue;
                    }
                    let start = r.below(100_000);
                    model.slots.insert(slot, (intervals, start));
                    let fits = model.entries() <= entries && model.distinct() <= classes;
                    assert_eq!(owner.schedule().insert(slot, &intervals, Tick(start)).is_ok(), fits);
                    if !fits {
                        model.slots.remove(&slot);
                    }
                }
                2 => {
                    let slot = r.below(48) as u32;
                    owner.schedule().remove(slot);
                    model.slots.remove(&slot);
                    model.extras.remove(&slot);
                }
                3 => {
                    let mask = r.next() | r.next();
                    owner.schedule().remove_where(|s| mask >> s & 1 == 0);
                    model.slots.retain(|s, _| mask >> s & 1 == 1);
                    model.extras.retain(|s, _| mask >> s & 1 == 1);
                }
                _ => {
                    let step = match r.below(10) {
                        0 => 1 << r.below(62),
                        1 => r.below(10_000),
                        2 => 0,
                        3..6 => r.below(100),
                        _ => 1,
                    };
                    let to = model.position.saturating_add(step).min(u64::MAX - (1 << 33));
                    let mut expected = model.between(model.position, to);
                    let whole_intervals_missed = expected.iter().any(|e| e.3 > 1);
                    let fired = owner.advance(to);
                    if !whole_intervals_missed {
                        for (i, a) in fired.iter().enumerate() {
                            for b in &fired[i + 1..] {
                                let interval = |f: &Fired| {
                                    model.slots[&f.slot].0.as_slice().get(usize::from(f.bit)).copied()
                                };
                                if interval(a) == interval(b) {
                                    assert!((a.first, a.slot) < (b.first, b.slot), "{a:?} before {b:?}");
                                }
                            }
                        }
                    }
                    let mut fired: Vec<_> =
                        fired.iter().map(|f| (f.slot, f.bit, f.first.0, f.count)).collect();
                    fired.sort_unstable();
                    expected.sort_unstable();
                    assert_eq!(fired, expected);
                    model.position = to;
                    model.extras.retain(|_, tick| *tick > to);
                }
            }
            let schedule = owner.schedule();
            assert_eq!(schedule.position(), Tick(model.position));
            assert_eq!(
                (schedule.entries(), schedule.distinct_intervals()),
                (model.entries(), model.distinct())
            );
            assert_eq!(schedule.next_due().map(|t| t.0), model.next_due());
        }
    });
}

#[test]
fn the_grid_extends_to_both_sides_of_start_and_the_first_instant_is_after_the_insertion() {
    for (start, position, expected) in
        [(5, 0, 5), (5, 4, 5), (5, 5, 15), (5, 6, 15), (1_000_003, 0, 3), (1_000_003, 3, 13), (0, 20, 30)]
    {
        let mut owner = Owner::new(1, 1, 0);
        owner.advance(position);
        owner.schedule().insert(0, &every(&[10]), Tick(start)).unwrap();
        assert_eq!(
            owner.schedule().next_due(),
            Some(Tick(expected)),
            "start {start}, inserted at {position}"
        );
    }
}

#[test]
fn time_that_does_not_go_on_tells_nothing() {
    let mut owner = Owner::new(1, 1, 0);
    owner.schedule().insert(0, &every(&[10]), Tick(0)).unwrap();
    assert_eq!(owner.advance(10).len(), 1);
    assert!(owner.advance(10).is_empty());
    assert!(owner.advance(3).is_empty());
    assert_eq!(owner.schedule().position(), Tick(10));
    assert_eq!(owner.schedule().next_due(), Some(Tick(20)));
}

#[test]
fn an_extra_run_whose_tick_has_passed_comes_at_the_next_one_and_goes_with_its_slot() {
    let mut owner = Owner::new(1, 1, 3);
    owner.advance(100);
    let mut schedule = owner.schedule();
    schedule.add_extras([(3, Tick(7)), (1, Tick(100)), (2, Tick(105))].into_iter()).unwrap();
    assert_eq!(schedule.next_due(), Some(Tick(101)));
    schedule.remove(3);
    let fired: Vec<_> = owner.advance(110).iter().map(|f| (f.slot, f.first.0, f.bit)).collect();
    assert_eq!(fired, [(1, 101, Fired::EXTRA), (2, 105, Fired::EXTRA)]);
    assert_eq!(owner.schedule().next_due(), None);
}

#[test]
fn ten_thousand_distinct_intervals_cost_one_look_each_at_a_due_tick_and_none_at_an_idle_one() {
    let n = 10_000u32;
    let mut owner = Owner::new(n as usize, n as usize, 0);
    let mut schedule = owner.schedule();
    for i in 0..n {
        // Worst order: each goes in front of all others.
        schedule.reserve(&every(&[200_000 - 10 * i])).unwrap();
    }
    let all = (0..n).map(|i| (i, every(&[200_000 - 10 * i]), Tick(u64::from(i))));
    schedule.insert_reserved(all).unwrap();
    assert_eq!(schedule.distinct_intervals(), 10_000);
    let (mut told, mut due_ticks) = (0u32, 0);
    for t in 1..=12_000 {
        let before = schedule.steps();
        let due = schedule.next_due() == Some(Tick(t));
        let mut now = 0;
        schedule.advance(Tick(t), |_| now += 1);
        let steps = schedule.steps() - before;
        assert_eq!(steps, if due { n + now } else { 0 }, "tick {t}");
        told += now;
        due_ticks += u32::from(due);
    }
    assert_eq!((told, due_ticks), (9_999, 9_999));
    // Years at once: one look at each, and one telling.
    let before = schedule.steps();
    let mut now = 0;
    schedule.advance(Tick(1_000_000_000), |_| now += 1);
    assert_eq!((now, schedule.steps() - before), (n, 2 * n));
}

#[test]
fn the_cost_of_a_tick_does_not_depend_on_how_many_wait() {
    for waiting in [1_000u32, 100_000.min(Entry::MAX_SLOTS - 1)] {
        let mut owner = Owner::new(waiting as usize + 1, 2, 0);
        let mut schedule = owner.schedule();
        for _ in 0..waiting {
            schedule.reserve(&every(&[1_000_000])).unwrap();
        }
        let all = (0..waiting).map(|s| (s, every(&[1_000_000]), Tick(900_000 + u64::from(s) % 1000)));
        schedule.insert_reserved(all).unwrap();
        schedule.insert(waiting, &every(&[1]), Tick(0)).unwrap();
        let before = schedule.steps();
        let mut told = 0;
        for t in 1..=1000 {
            schedule.advance(Tick(t), |_| told += 1);
        }
        assert_eq!((told, schedule.steps() - before), (1000, 3000));
    }
}

#[test]
fn what_has_no_room_is_refused_by_name_and_touches_nothing() {
    let mut owner = Owner::new(3, 2, 1);
    let mut schedule = owner.schedule();
    schedule.insert(0, &every(&[10, 20]), Tick(1)).unwrap();
    assert_eq!(schedule.insert(1, &every(&[10, 20]), Tick(2)), Err(ScheduleError::Entries { capacity: 3 }));
    let error = schedule.insert(1, &every(&[30]), Tick(2)).unwrap_err();
    assert_eq!(error, ScheduleError::DistinctIntervals { interval_s: 30, capacity: 2 });
    assert_eq!(error.to_string(), "schedule has no room for 30 s: it holds 2 distinct intervals");
    let max_slots = Entry::MAX_SLOTS;
    let error = ScheduleError::Slot { slot: max_slots, max_slots };
    assert_eq!(schedule.insert(max_slots, &every(&[10]), Tick(2)), Err(error));
    assert_eq!(error.to_string(), format!("slot {max_slots} is not below {max_slots}"));
    assert_eq!(schedule.add_extras([(0, Tick(3))].into_iter()), Ok(()));
    assert_eq!(schedule.add_extras([(0, Tick(4))].into_iter()), Err(ScheduleError::Extras { capacity: 1 }));
    assert_eq!(
        (schedule.entries(), schedule.distinct_intervals(), schedule.next_due()),
        (2, 2, Some(Tick(1)))
    );
    schedule.insert(1, &every(&[20]), Tick(2)).unwrap();
    let fired: Vec<_> = owner.advance(12).iter().map(|f| (f.slot, f.bit, f.first.0)).collect();
    assert_eq!(fired, [(0, 0, 1), (0, 1, 1), (1, 0, 2), (0, 8, 3)]);
}

#[test]
fn an_interval_that_nobody_has_any_more_gives_its_room_back() {
    let mut owner = Owner::new(4, 1, 0);
    let mut schedule = owner.schedule();
    for interval in 1..100 {
        schedule.insert(0, &every(&[interval]), Tick(0)).unwrap();
        schedule.remove(0);
        schedule.reserve(&every(&[interval + 1000])).unwrap();
        schedule.unreserve_all();
    }
    assert_eq!((schedule.entries(), schedule.distinct_intervals(), schedule.next_due()), (0, 0, None));
}

#[test]
fn less_inserted_than_reserved_leaves_no_gap() {
    let mut owner = Owner::new(8, 4, 0);
    let mut schedule = owner.schedule();
    schedule.insert(0, &every(&[7, 9]), Tick(0)).unwrap();
    for intervals in [&[5][..], &[7], &[7], &[9], &[11]] {
        schedule.reserve(&every(intervals)).unwrap();
    }
    schedule.insert_reserved([(3, every(&[7, 11]), Tick(1))].into_iter()).unwrap();
    assert_eq!((schedule.entries(), schedule.distinct_intervals()), (4, 3));
    let mut fired: Vec<_> = owner.advance(11).iter().map(|f| (f.first.0, f.slot, f.bit)).collect();
    fired.sort_unstable();
    assert_eq!(fired, [(1, 3, 0), (1, 3, 1), (7, 0, 0), (9, 0, 1)]);
}

#[test]
fn the_end_of_time_is_reached_without_a_fault() {
    let mut owner = Owner::new(4, 4, 1);
    let longest = every(&[1, 2_147_483_647]);
    owner.schedule().insert(0, &longest, Tick(u64::MAX)).unwrap();
    let fired = owner.advance(u64::MAX);
    assert_eq!(fired.len(), 2);
    assert_eq!(fired[0].count, u32::MAX);
    assert!(owner.advance(u64::MAX).is_empty());
    owner.schedule().insert(1, &longest, Tick(5)).unwrap();
    owner.schedule().add_extras([(1, Tick(u64::MAX))].into_iter()).unwrap();
    assert!(owner.advance(u64::MAX).is_empty());
    assert_eq!(owner.schedule().position(), Tick(u64::MAX - (1 << 33)));
    assert!(next_instant(&longest, Tick(0), Tick(u64::MAX)).is_some());
}

#[test]
fn memory_may_grow_between_calls() {
    let mut owner = Owner::new(2, 1, 0);
    owner.schedule().insert(0, &every(&[10]), Tick(1)).unwrap();
    owner.schedule().insert(1, &every(&[10]), Tick(2)).unwrap();
    owner.entries.resize(6, Entry::EMPTY);
    owner.classes.resize(3, Class::EMPTY);
    owner.schedule().insert(2, &every(&[4, 10]), Tick(3)).unwrap();
    owner.schedule().insert(3, &every(&[15]), Tick(4)).unwrap();
    let mut fired: Vec<_> = owner.advance(4).iter().map(|f| (f.first.0, f.slot, f.bit)).collect();
    fired.sort_unstable();
    assert_eq!(fired, [(1, 0, 0), (2, 1, 0), (3, 2, 0), (3, 2, 1), (4, 3, 0)]);
}

#[test]
fn the_last_slot_and_the_longest_interval_are_told_as_they_are() {
    // The phases that fill the most bits, each bit of a set, and slots with the upper bits set and clear.
    let longest = 2_147_483_647;
    let intervals = every(&[2_147_483_640, 2_147_483_641, 3, 5, 7, longest - 1, 1 << 30, longest]);
    let slots = [0, 1, 8_191, 8_192, Entry::MAX_SLOTS - 2, Entry::MAX_SLOTS - 1];
    let mut owner = Owner::new(8 * slots.len(), 8, 0);
    let start = u64::from(longest) - 2;
    for slot in slots {
        owner.schedule().insert(slot, &intervals, Tick(start)).unwrap();
    }
    owner.advance(start - 1);
    let fired = owner.advance(start);
    let told: Vec<_> = fired.iter().map(|f| (f.bit, f.slot, f.first.0, f.count)).collect();
    let expected: Vec<_> = (0..8).flat_map(|bit| slots.map(|slot| (bit, slot, start, 1))).collect();
    assert_eq!(told, expected);
    // Those alone in their class, at its last phase.
    let mut owner = Owner::new(8, 8, 0);
    owner.schedule().insert(Entry::MAX_SLOTS - 1, &every(&[longest]), Tick(u64::from(longest) - 1)).unwrap();
    assert_eq!(owner.schedule().next_due(), Some(Tick(u64::from(longest) - 1)));
    assert!(owner.advance(u64::from(longest) - 2).is_empty());
    let fired = owner.advance(5 * u64::from(longest));
    assert_eq!(fired.len(), 1);
    assert_eq!((fired[0].slot, fired[0].bit, fired[0].count), (Entry::MAX_SLOTS - 1, 0, 5));
}

#[test]
fn a_batch_with_a_slot_that_has_no_number_has_all_others_and_says_which_and_why() {
    let max_slots = Entry::MAX_SLOTS;
    let mut owner = Owner::new(4, 2, 0);
    let mut schedule = owner.schedule();
    for _ in 0..4 {
        schedule.reserve(&every(&[10])).unwrap();
    }
    let batch = [1, max_slots, u32::MAX, max_slots - 1].map(|slot| (slot, every(&[10]), Tick(3)));
    let error = schedule.insert_reserved(batch.into_iter()).unwrap_err();
    assert_eq!(error, ScheduleError::Slot { slot: max_slots, max_slots });
    assert_eq!(schedule.entries(), 2);
    let told: Vec<_> = owner.advance(3).iter().map(|f| (f.slot, f.first.0)).collect();
    assert_eq!(told, [(1, 3), (max_slots - 1, 3)]);
}
