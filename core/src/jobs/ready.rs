//! The ready queue: slots by (scheduled instant, slot) in a ring of lent memory.
//!
//! What falls due later is scheduled later, so that a batch is sorted by itself and put behind; only a job that
//! ends a run with something pending goes in further ahead.

use crate::schedule::SlotNumber;
use crate::sort;

/// What a ready queue remembers besides its memory.
#[derive(Clone, Debug)]
pub(super) struct ReadyState {
    head: u32,
    len: u32,
    capacity: u32,
}

impl ReadyState {
    pub(super) const fn new() -> Self {
        ReadyState { head: 0, len: 0, capacity: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Ready<'a, N> {
    state: &'a mut ReadyState,
    ring: &'a mut [N],
}

impl<'a, N: SlotNumber> Ready<'a, N> {
    /// O(1), unless the memory has grown.
    pub(super) fn new(state: &'a mut ReadyState, ring: &'a mut [N]) -> Self {
        let capacity = u32::try_from(ring.len()).unwrap_or(u32::MAX);
        if state.capacity != capacity {
            if let Some(old) = ring.get_mut(..state.capacity as usize)
                && !old.is_empty()
            {
                old.rotate_left(state.head as usize);
            }
            state.head = 0;
            state.capacity = capacity;
        }
        Ready { state, ring }
    }

    pub(super) fn len(&self) -> usize {
        self.state.len as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.len == 0
    }

    fn place(&self, i: usize) -> usize {
        let at = self.state.head as usize + i;
        if at >= self.ring.len() { at - self.ring.len() } else { at }
    }

    fn get(&self, i: usize) -> u32 {
        self.ring.get(self.place(i)).map_or(0, |&slot| slot.into())
    }

    fn set(&mut self, i: usize, slot: u32) {
        let at = self.place(i);
        if let Some(s) = self.ring.get_mut(at) {
            *s = N::of(slot);
        }
    }

    /// Behind all others. A slot is in the queue at most once, so that one place per slot is enough.
    pub(super) fn push_back(&mut self, slot: u32) {
        debug_assert!(self.len() < self.ring.len(), "a slot is ready twice");
        if self.len() < self.ring.len() {
            self.state.len += 1;
            self.set(self.len() - 1, slot);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let slot = self.get(0);
        self.state.head = self.place(1) as u32;
        self.state.len -= 1;
        Some(slot)
    }

    /// Sorts those from `from` on.
    pub(super) fn sort_tail<K: Ord>(&mut self, from: usize, key: impl Fn(u32) -> K) {
        let n = self.len().saturating_sub(from);
        if n < 2 {
            return;
        }
        #[cfg(not(target_os = "none"))]
        {
            let begin = self.place(from);
            if let Some(tail) = self.ring.get_mut(begin..begin + n) {
                tail.sort_unstable_by_key(|&slot| key(slot.into()));
                return;
            }
            // Around the end of the ring, which happens once in as many entries as the ring has: by heap.
        }
        sort::by_heap(&mut Tail { ready: self, from, key }, n);
    }

    /// At its place among the others, which are sorted: moves those on the shorter side.
    pub(super) fn insert<K: Ord>(&mut self, slot: u32, key: impl Fn(u32) -> K) {
        let n = self.len();
        if n >= self.ring.len() {
            debug_assert!(false, "a slot is ready twice");
            return;
        }
        let new = key(slot);
        let (mut low, mut high) = (0, n);
        while low < high {
            let mid = low + (high - low) / 2;
            if key(self.get(mid)) < new { low = mid + 1 } else { high = mid }
        }
        self.state.len += 1;
        if low < n / 2 {
            self.state.head = self.place(self.ring.len() - 1) as u32;
            for i in 0..low {
                self.set(i, self.get(i + 1));
            }
        } else {
            for i in (low..n).rev() {
                self.set(i + 1, self.get(i));
            }
        }
        self.set(low, slot);
    }

    /// Takes out all of which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        let mut kept = 0;
        for i in 0..self.len() {
            let slot = self.get(i);
            if keep(slot) {
                self.set(kept, slot);
                kept += 1;
            }
        }
        self.state.len = kept as u32;
    }
}

/// Those of a queue from `from` on, to be sorted.
struct Tail<'a, 'm, N, F> {
    ready: &'a mut Ready<'m, N>,
    from: usize,
    key: F,
}

impl<N: SlotNumber, K: Ord, F: Fn(u32) -> K> sort::Places for Tail<'_, '_, N, F> {
    fn is_before(&self, a: usize, b: usize) -> bool {
        (self.key)(self.ready.get(self.from + a)) < (self.key)(self.ready.get(self.from + b))
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (x, y) = (self.ready.get(self.from + a), self.ready.get(self.from + b));
        self.ready.set(self.from + a, y);
        self.ready.set(self.from + b, x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// What to do, and with which slots.
    type Operations = Vec<(u8, Vec<u32>)>;

    fn equals_a_sorted_list<N: SlotNumber>(start: u32, operations: Operations) -> Result<(), TestCaseError> {
        let keys = [5u8, 3, 3, 9, 1, 7, 0, 2, 2];
        let key = |s: u32| (keys[s as usize], s);
        let mut ring = [N::default(); 9];
        let mut state = ReadyState { head: start, len: 0, capacity: 9 };
        let mut ready = Ready::new(&mut state, &mut ring);
        let mut model: Vec<u32> = Vec::new();
        for (what, slots) in operations {
            match what {
                0 => {
                    // A batch, sorted behind what is there.
                    let from = model.len();
                    for s in slots {
                        if !model.contains(&s) {
                            model.push(s);
                            ready.push_back(s);
                        }
                    }
                    model[from..].sort_by_key(|&s| key(s));
                    ready.sort_tail(from, key);
                }
                1 => {
                    model.sort_by_key(|&s| key(s));
                    ready.sort_tail(0, key);
                    if !model.contains(&slots[0]) {
                        model.push(slots[0]);
                        model.sort_by_key(|&s| key(s));
                        ready.insert(slots[0], key);
                    }
                }
                2 => {
                    model.retain(|s| !slots.contains(s));
                    ready.retain(|s| !slots.contains(&s));
                }
                _ => {
                    let first = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(ready.pop_front(), first);
                }
            }
            prop_assert_eq!((0..ready.len()).map(|i| ready.get(i)).collect::<Vec<_>>(), model.clone());
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_ready_queue_equals_a_sorted_list_wherever_its_ring_begins(
            start in 0u32..9,
            operations in prop::collection::vec((0u8..4, prop::collection::vec(0u32..9, 1..9)), 1..40),
        ) {
            equals_a_sorted_list::<u32>(start, operations.clone())?;
            equals_a_sorted_list::<u16>(start, operations)?;
        }
    }

    #[test]
    fn a_ring_that_grows_keeps_its_order() {
        let mut ring = [7u16, 8, 9, 5, 6, 0, 0, 0];
        let mut state = ReadyState { head: 3, len: 4, capacity: 5 };
        let mut ready = Ready::new(&mut state, &mut ring);
        ready.push_back(1);
        assert_eq!(std::iter::from_fn(|| ready.pop_front()).collect::<Vec<_>>(), [5, 6, 7, 8, 1]);
    }
}
