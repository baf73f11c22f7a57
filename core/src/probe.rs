//! Open addressing: a slice of slots as a hash table, without links and without memory of its own.
//!
//! Linear probing where the slot farther from its home goes first ("Robin Hood", Celis 1986): all slots can be used,
//! and a search for what is not there ends at the first slot that is nearer to its home than the one sought would be.
//! A search costs a few looks on average, about √n in a table of n slots that is full; inserting and removing shift the
//! rest of the stretch by one. The slice must have the same length as long as anything is in it.

/// A slot of the table.
pub(crate) trait Probed: Copy {
    /// An empty one.
    const EMPTY: Self;
    /// The hash that decides where it belongs, `None` if it is empty.
    fn hash(&self) -> Option<u64>;
}

/// Where the search for `hash` begins.
fn home(hash: u64, len: usize) -> usize {
    let folded = (hash ^ (hash >> 32)) & 0xffff_ffff;
    ((folded * len as u64) >> 32) as usize
}

fn after(at: usize, len: usize) -> usize {
    if at + 1 < len { at + 1 } else { 0 }
}

/// How far what is at `at` is from its home, `None` if nothing is there.
fn distance<S: Probed>(slots: &[S], at: usize) -> Option<usize> {
    let home = home(slots.get(at)?.hash()?, slots.len());
    Some(if at >= home { at - home } else { at + slots.len() - home })
}

/// The place of the slot with this hash that `is_it`.
pub(crate) fn find<S: Probed>(slots: &[S], hash: u64, is_it: impl Fn(&S) -> bool) -> Option<usize> {
    let mut at = home(hash, slots.len());
    for steps in 0..slots.len() {
        if distance(slots, at)? < steps {
            return None;
        }
        if slots.get(at).is_some_and(&is_it) {
            return Some(at);
        }
        at = after(at, slots.len());
    }
    None
}

/// Puts in a slot that is not in the table yet; `false` if there is no room.
pub(crate) fn insert<S: Probed>(slots: &mut [S], slot: S) -> bool {
    let Some(hash) = slot.hash() else { return false };
    let len = slots.len();
    let mut at = home(hash, len);
    let mut steps = 0;
    while distance(slots, at).is_some_and(|other| other >= steps) {
        if steps >= len {
            return false;
        }
        (at, steps) = (after(at, len), steps + 1);
    }
    let mut free = at;
    let mut looked = 0;
    while slots.get(free).is_none_or(|s| s.hash().is_some()) {
        if looked >= len {
            return false;
        }
        (free, looked) = (after(free, len), looked + 1);
    }
    // All between move up by one.
    let mut carried = slot;
    loop {
        if let Some(place) = slots.get_mut(at) {
            core::mem::swap(place, &mut carried);
        }
        if at == free {
            return true;
        }
        at = after(at, len);
    }
}

/// Empties a slot; later ones of the stretch move up. Whoever goes through the table looks at `at` again.
pub(crate) fn remove<S: Probed>(slots: &mut [S], at: usize) {
    let mut hole = at;
    for _ in 0..slots.len() {
        let next = after(hole, slots.len());
        if distance(slots, next).is_none_or(|d| d == 0) || next == at {
            break;
        }
        slots.swap(hole, next);
        hole = next;
    }
    if let Some(slot) = slots.get_mut(hole) {
        *slot = S::EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec;

    #[derive(Clone, Copy, Debug)]
    struct Item(Option<u64>, u16);

    impl Probed for Item {
        const EMPTY: Self = Item(None, 0);
        fn hash(&self) -> Option<u64> {
            self.0
        }
    }

    proptest! {
        #[test]
        fn a_table_equals_a_map_up_to_its_last_slot_however_hashes_collide(
            len in 0usize..12,
            ops in prop::collection::vec((0u64..16, any::<bool>(), any::<u16>()), 0..200),
        ) {
            let mut slots = vec![Item::EMPTY; len];
            let mut model = BTreeMap::new();
            for (key, put, value) in ops {
                // Four homes for sixteen keys.
                let hash = (key / 4) << 30 | key;
                let found = find(&slots, hash, |s| s.0 == Some(hash));
                prop_assert_eq!(found.map(|at| slots[at].1), model.get(&hash).copied());
                match (put, found) {
                    (true, Some(at)) => {
                        slots[at].1 = value;
                        model.insert(hash, value);
                    }
                    (true, None) => {
                        prop_assert_eq!(insert(&mut slots, Item(Some(hash), value)), model.len() < len);
                        if model.len() < len {
                            model.insert(hash, value);
                        }
                    }
                    (false, Some(at)) => {
                        remove(&mut slots, at);
                        model.remove(&hash);
                    }
                    (false, None) => {}
                }
                for (hash, value) in &model {
                    let at = find(&slots, *hash, |s| s.0 == Some(*hash));
                    prop_assert_eq!(at.map(|at| slots[at].1), Some(*value));
                }
                prop_assert_eq!(slots.iter().filter(|s| s.0.is_some()).count(), model.len());
            }
        }
    }
}
