//! Keyed state of jobs: small values that a job's later runs find again, bounded, in RAM; a store can keep them longer.

use crate::bot::StateError;
use crate::hash::Fnv1a64;
use crate::jobs::JobKey;
use crate::probe::{self, Probed};
use crate::sort;

/// The most bytes of one state.
pub const MAX_STATE_BYTES: usize = 32;

/// Marks a state that a store does not have yet.
const CHANGED: u8 = 0x80;
/// Marks a state that its job has read or set since untouched ones were forgotten last.
const TOUCHED: u8 = 0x40;
const LEN: u8 = 0x3f;

/// Room for one state, or a state as a store keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateSlot {
    job: u64,
    name: u64,
    /// Length and 1, [`CHANGED`] and [`TOUCHED`]; 0 is an empty slot.
    len: u8,
    bytes: [u8; MAX_STATE_BYTES],
}

impl StateSlot {
    /// No state.
    pub const EMPTY: Self = StateSlot { job: 0, name: 0, len: 0, bytes: [0; MAX_STATE_BYTES] };

    /// A state as a store kept it: the hash of its job's key, that of its name, and its bytes; `None` if they are more than
    /// [`MAX_STATE_BYTES`].
    #[must_use]
    pub fn new(job: u64, name: u64, value: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_STATE_BYTES];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(StateSlot { job, name, len: value.len() as u8 + 1, bytes })
    }

    /// The FNV-1a 64 hash of its job's key ([`JobKey::fnv1a64`]).
    #[must_use]
    pub const fn job(&self) -> u64 {
        self.job
    }

    /// The FNV-1a 64 hash of its name.
    #[must_use]
    pub const fn name(&self) -> u64 {
        self.name
    }

    /// What it holds.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        let len = usize::from(self.len & LEN).saturating_sub(1);
        self.bytes.get(..len).unwrap_or_default()
    }

    fn is(&self, job: u64, name: u64) -> bool {
        self.job == job && self.name == name
    }
}

impl Probed for StateSlot {
    const EMPTY: Self = StateSlot::EMPTY;
    fn hash(&self) -> Option<u64> {
        (self.len != 0).then_some(home_of(self.job, self.name))
    }
}

/// What decides where a state is: of the job and the name, so that the thousands of states that a job may have (a counter
/// for each row of a table) do not stand in each other's way.
const fn home_of(job: u64, name: u64) -> u64 {
    (job ^ name.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The states for the time of a call.
///
/// A state is found by the FNV-1a 64 hashes of its job's key and of its name, wherever the job's other states are. Cost: a few
/// looks, however many states a job has; all slots if a new state is refused for want of room, or those of a job are
/// forgotten.
#[derive(Debug)]
pub struct States<'a> {
    slots: &'a mut [StateSlot],
}

impl<'a> States<'a> {
    /// States in this memory, one in each slot.
    #[must_use]
    pub const fn new(slots: &'a mut [StateSlot]) -> Self {
        States { slots }
    }

    /// How many states there can be.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Reads a state into `buf`: its length, `None` if there is none or `buf` is too short.
    #[must_use]
    pub fn get(&mut self, job: &JobKey, name: &str, buf: &mut [u8]) -> Option<usize> {
        let slot = self.find_mut(job.fnv1a64(), Fnv1a64::of(name.as_bytes()))?;
        slot.len |= TOUCHED;
        let value = slot.value();
        buf.get_mut(..value.len())?.copy_from_slice(value);
        Some(value.len())
    }

    /// Stores a state.
    ///
    /// # Errors
    /// [`StateError`]: what was stored before remains.
    pub fn set(&mut self, job: &JobKey, name: &str, value: &[u8]) -> Result<(), StateError> {
        let (job, name) = (job.fnv1a64(), Fnv1a64::of(name.as_bytes()));
        let Some(mut new) = StateSlot::new(job, name, value) else {
            return Err(StateError::TooLong { limit: MAX_STATE_BYTES });
        };
        new.len |= CHANGED | TOUCHED;
        if let Some(slot) = self.find_mut(job, name) {
            // The same again is nothing to write, unless it never was: flash wears.
            if slot.value() != value {
                *slot = new;
            }
            slot.len |= TOUCHED;
            return Ok(());
        }
        self.insert(new)
    }

    /// Puts a state back that a store kept. One that was set since then remains; of several kept ones the last wins, as a
    /// store may give earlier ones first.
    ///
    /// # Errors
    /// [`StateError::Full`].
    pub fn restore(&mut self, state: StateSlot) -> Result<(), StateError> {
        let restored = StateSlot { len: state.len & LEN, ..state };
        match self.find_mut(state.job, state.name) {
            _ if state.len == 0 => {}
            Some(there) if there.len & CHANGED != 0 => {}
            Some(there) => *there = restored,
            None => return self.insert(restored),
        }
        Ok(())
    }

    /// Gives each state that was set to another value since it was given last. O(slots).
    pub fn changed(&mut self, mut each: impl FnMut(&StateSlot)) {
        for slot in self.slots.iter_mut().filter(|s| s.len & CHANGED != 0) {
            slot.len &= !CHANGED;
            each(slot);
        }
    }

    /// One state that was set to another value since it was given last. O(slots).
    pub fn next_changed(&mut self) -> Option<StateSlot> {
        let slot = self.slots.iter_mut().find(|s| s.len & CHANGED != 0)?;
        slot.len &= !CHANGED;
        Some(*slot)
    }

    /// From now on all states count as changed. O(slots).
    pub fn all_changed(&mut self) {
        for slot in self.slots.iter_mut().filter(|s| s.len != 0) {
            slot.len |= CHANGED;
        }
    }

    /// All states; none counts as changed after that. O(slots).
    pub fn all(&mut self, mut each: impl FnMut(&StateSlot)) {
        for slot in self.slots.iter_mut().filter(|s| s.len != 0) {
            slot.len &= !CHANGED;
            each(slot);
        }
    }

    /// Forgets all states of a job; whether there were any. O(slots).
    pub fn forget(&mut self, job: &JobKey) -> bool {
        self.forget_all(&mut [job.fnv1a64()])
    }

    /// Forgets all states of the jobs with these hashes, which it sorts; whether there were any. O(slots), times the
    /// logarithm of the number of jobs.
    pub fn forget_all(&mut self, jobs: &mut [u64]) -> bool {
        sort::unstable(jobs);
        let (mut at, mut any) = (0, false);
        while let Some(slot) = self.slots.get(at) {
            if slot.len != 0 && jobs.binary_search(&slot.job).is_ok() {
                // A later one may have taken its place.
                probe::remove(self.slots, at);
                any = true;
            } else {
                at += 1;
            }
        }
        any
    }

    /// Forgets those states of a job that it has neither read nor set since the last call (or since they were restored);
    /// whether there were any. O(slots).
    pub fn forget_untouched(&mut self, job: &JobKey) -> bool {
        let job = job.fnv1a64();
        let mut any = false;
        let mut at = 0;
        while let Some(slot) = self.slots.get(at) {
            if slot.len != 0 && slot.job == job && slot.len & TOUCHED == 0 {
                probe::remove(self.slots, at);
                any = true;
            } else {
                at += 1;
            }
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.job == job) {
            slot.len &= !TOUCHED;
        }
        any
    }

    /// Takes over what is in `slots`, which are fewer than its own: for an owner that makes room for more.
    pub fn take_over(&mut self, slots: &[StateSlot]) {
        for slot in slots.iter().filter(|slot| slot.len != 0) {
            probe::insert(self.slots, *slot);
        }
    }

    fn find_mut(&mut self, job: u64, name: u64) -> Option<&mut StateSlot> {
        let at = probe::find(self.slots, home_of(job, name), |s| s.is(job, name))?;
        self.slots.get_mut(at)
    }

    fn insert(&mut self, new: StateSlot) -> Result<(), StateError> {
        let full = StateError::Full { capacity: self.capacity() };
        if probe::insert(self.slots, new) { Ok(()) } else { Err(full) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::{vec, vec::Vec};

    #[test]
    fn a_state_is_bounded_in_length_and_number() {
        let mut slots = [StateSlot::EMPTY; 2];
        let mut s = States::new(&mut slots);
        let key = JobKey::new(1, 2);
        assert_eq!(s.set(&key, "a", &[0; 33]), Err(StateError::TooLong { limit: 32 }));
        s.set(&key, "a", &[1]).unwrap();
        s.set(&key, "b", &[]).unwrap();
        assert_eq!(s.set(&key, "c", &[3]), Err(StateError::Full { capacity: 2 }));
        s.set(&key, "a", &[7, 7]).unwrap();
        let mut buf = [0; 32];
        assert_eq!((s.get(&key, "a", &mut buf), buf[0]), (Some(2), 7));
        assert_eq!(s.get(&key, "b", &mut buf), Some(0));
        assert_eq!(s.get(&key, "a", &mut [0; 1]), None);
    }

    #[test]
    fn a_store_is_given_what_changed_and_gives_back_what_was_not_set_since() {
        let mut slots = [StateSlot::EMPTY; 4];
        let mut s = States::new(&mut slots);
        let (key, gone) = (JobKey::new(1, 2), JobKey::new(1, 3));
        let take = |s: &mut States<'_>| {
            let mut kept = vec![];
            s.changed(|slot| kept.push(*slot));
            kept
        };
        s.set(&key, "a", &[1]).unwrap();
        s.set(&gone, "b", &[2; 32]).unwrap();
        let kept = take(&mut s);
        assert_eq!(kept.len(), 2);
        s.set(&key, "a", &[1]).unwrap();
        assert_eq!(take(&mut s), [], "the same again");
        s.set(&key, "a", &[]).unwrap();
        assert!(take(&mut s)[0].value().is_empty());
        assert!(s.forget(&gone) && !s.forget(&gone));
        let mut all = vec![];
        s.all(|slot| all.push(slot.job()));
        assert_eq!(all, [key.fnv1a64()]);

        let mut slots = [StateSlot::EMPTY; 2];
        let mut s = States::new(&mut slots);
        s.set(&key, "a", &[9]).unwrap();
        for slot in &kept {
            let read = StateSlot::new(slot.job(), slot.name(), slot.value()).unwrap();
            s.restore(read).unwrap();
        }
        let mut buf = [0; 32];
        assert_eq!((s.get(&key, "a", &mut buf), buf[0]), (Some(1), 9), "set since then");
        assert_eq!((s.get(&gone, "b", &mut buf), buf), (Some(32), [2; 32]));
        assert_eq!(take(&mut s).len(), 1, "what was restored is stored already");
        let third = StateSlot::new(7, 7, &[7]).unwrap();
        assert_eq!(s.restore(third), Err(StateError::Full { capacity: 2 }));
        assert_eq!(StateSlot::new(7, 7, &[0; 33]), None);
        assert_eq!(StateSlot::new(7, 7, &[0; 255]), None);
    }

    #[test]
    fn one_slot_holds_one_state_and_none_holds_none() {
        let (mut one, mut none) = ([StateSlot::EMPTY; 1], [StateSlot::EMPTY; 0]);
        let (key, mut buf) = (JobKey::new(1, 2), [0; 32]);
        let mut s = States::new(&mut none);
        assert_eq!(s.set(&key, "a", &[1]), Err(StateError::Full { capacity: 0 }));
        assert_eq!(s.get(&key, "a", &mut buf), None);
        s.forget(&key);
        let mut s = States::new(&mut one);
        s.set(&key, "a", &[1]).unwrap();
        assert_eq!((s.get(&key, "a", &mut buf), buf[0]), (Some(1), 1));
        assert_eq!(s.set(&key, "b", &[2]), Err(StateError::Full { capacity: 1 }));
        s.forget(&key);
        s.set(&key, "b", &[2]).unwrap();
    }

    #[test]
    fn of_several_kept_states_the_last_is_restored_but_none_over_one_that_was_set() {
        let mut slots = [StateSlot::EMPTY; 2];
        let mut s = States::new(&mut slots);
        let (key, mut buf) = (JobKey::new(1, 2), [0; 32]);
        let kept =
            |name: &str, byte| StateSlot::new(key.fnv1a64(), Fnv1a64::of(name.as_bytes()), &[byte]).unwrap();
        s.set(&key, "a", &[9]).unwrap();
        for byte in 1..=3 {
            s.restore(kept("a", byte)).unwrap();
            s.restore(kept("b", byte)).unwrap();
        }
        assert_eq!((s.get(&key, "a", &mut buf), buf[0]), (Some(1), 9));
        assert_eq!((s.get(&key, "b", &mut buf), buf[0]), (Some(1), 3));
        // Only what was set is to be stored, one at a time, unless the store has lost all.
        assert_eq!(s.next_changed().unwrap().value(), [9]);
        assert_eq!(s.next_changed(), None);
        s.all_changed();
        assert_eq!([(); 2].map(|()| s.next_changed().is_some()), [true; 2]);
        assert_eq!(s.next_changed(), None);
    }

    #[test]
    fn a_job_with_thousands_of_states_finds_each_after_a_few_looks() {
        const STATES: usize = 10_000;
        let mut slots = vec![StateSlot::EMPTY; STATES * 5 / 4];
        let mut s = States::new(&mut slots);
        let key = JobKey::new(1, 2);
        let name = |n: usize| std::format!("{n}");
        for n in 0..STATES {
            s.set(&key, &name(n), &(n as u64).to_le_bytes()).unwrap();
        }
        let looks = |job: u64, name: u64| {
            let looks = core::cell::Cell::new(0usize);
            let count = |slot: &StateSlot| {
                looks.set(looks.get() + 1);
                slot.is(job, name)
            };
            assert!(probe::find(s.slots, home_of(job, name), count).is_some());
            looks.get()
        };
        let of = |n| looks(key.fnv1a64(), Fnv1a64::of(name(n).as_bytes()));
        let all: usize = (0..STATES).map(of).sum();
        assert!(all < STATES * 10, "{all} looks for {STATES} states");
        assert!((0..STATES).map(of).max().unwrap() < 100);
    }

    #[test]
    fn states_of_several_jobs_are_forgotten_at_once_and_others_stay() {
        let mut slots = [StateSlot::EMPTY; 40];
        let mut s = States::new(&mut slots);
        for n in 0..40u64 {
            s.set(&JobKey::new(1, n % 5), &std::format!("{n}"), &[n as u8]).unwrap();
        }
        let hash = |job| JobKey::new(1, job).fnv1a64();
        assert!(s.forget_all(&mut [hash(3), hash(9), hash(1)]));
        assert!(!s.forget_all(&mut [hash(3), hash(1)]));
        for n in 0..40u64 {
            let mut buf = [0; 32];
            let there = s.get(&JobKey::new(1, n % 5), &std::format!("{n}"), &mut buf);
            assert_eq!(there, (n % 5 != 1 && n % 5 != 3).then_some(1), "{n}");
        }
    }

    #[test]
    fn what_a_job_has_not_touched_for_a_while_can_be_forgotten() {
        let mut slots = [StateSlot::EMPTY; 8];
        let mut s = States::new(&mut slots);
        let (key, other) = (JobKey::new(1, 2), JobKey::new(1, 3));
        for name in ["read", "set", "same", "old"] {
            s.set(&key, name, &[1]).unwrap();
        }
        s.set(&other, "old", &[1]).unwrap();
        assert!(!s.forget_untouched(&key), "all are new");
        let mut buf = [0; 32];
        assert_eq!(s.get(&key, "read", &mut buf), Some(1));
        s.set(&key, "set", &[2, 2]).unwrap();
        s.set(&key, "same", &[1]).unwrap();
        assert!(s.forget_untouched(&key));
        let mut there = |key: &JobKey, name: &str| s.get(key, name, &mut buf).is_some();
        assert_eq!(["read", "set", "same", "old"].map(|name| there(&key, name)), [true, true, true, false]);
        assert!(there(&other, "old"));
    }

    #[test]
    fn larger_memory_takes_over_all_states_and_which_of_them_changed() {
        let (mut few, mut many) = ([StateSlot::EMPTY; 4], [StateSlot::EMPTY; 8]);
        let key = JobKey::new(1, 2);
        let mut s = States::new(&mut few);
        s.set(&key, "a", &[1]).unwrap();
        s.changed(|_| {});
        s.set(&key, "b", &[2]).unwrap();
        let mut larger = States::new(&mut many);
        larger.take_over(&few);
        let mut buf = [0; 32];
        assert_eq!((larger.get(&key, "a", &mut buf), buf[0]), (Some(1), 1));
        assert_eq!(larger.next_changed().unwrap().value(), [2]);
        assert_eq!(larger.next_changed(), None);
    }

    proptest! {
        #[test]
        fn states_equal_a_map(ops in prop::collection::vec((0u64..6, 0u8..4, 0u8..3, any::<u8>()), 0..200)) {
            let mut slots = vec![StateSlot::EMPTY; 8];
            let mut model: BTreeMap<(u64, u8), Vec<u8>> = BTreeMap::new();
            for (job, name, op, byte) in ops {
                let mut s = States::new(&mut slots);
                let key = JobKey::new(1, job);
                let label = std::format!("{name}");
                if op == 0 {
                    s.forget(&key);
                    model.retain(|(j, _), _| *j != job);
                } else {
                    let value = vec![byte; usize::from(byte) % 33];
                    let room = model.len() < 8 || model.contains_key(&(job, name));
                    prop_assert_eq!(s.set(&key, &label, &value).is_ok(), room);
                    if room {
                        model.insert((job, name), value);
                    }
                }
                for j in 0..6 {
                    for n in 0..4u8 {
                        let mut buf = [0; 32];
                        let got = s.get(&JobKey::new(1, j), &std::format!("{n}"), &mut buf).map(|l| buf[..l].to_vec());
                        prop_assert_eq!(got, model.get(&(j, n)).cloned());
                    }
                }
            }
        }
    }
}
