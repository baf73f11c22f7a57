//! A set of sequence numbers, kept as ranges.
//!
//! Cost: 16 bytes and some per range, O(log ranges) per call; [`Ranges::remove_to`] O(ranges removed).

use std::collections::BTreeMap;

/// A set of numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ranges {
    /// First to last of each range, both in the set; ranges neither overlap nor touch.
    map: BTreeMap<u64, u64>,
    len: u64,
}

impl Ranges {
    pub(super) const fn new() -> Self {
        Ranges { map: BTreeMap::new(), len: 0 }
    }

    /// How many numbers.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.map.first_key_value().map(|(&first, _)| first)
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.map.last_key_value().map(|(_, &last)| last)
    }

    fn around(&self, n: u64) -> Option<(u64, u64)> {
        self.map.range(..=n).next_back().map(|(&a, &b)| (a, b)).filter(|&(_, b)| b >= n)
    }

    pub(super) fn contains(&self, n: u64) -> bool {
        self.around(n).is_some()
    }

    /// `false` if it was there.
    pub(super) fn insert(&mut self, n: u64) -> bool {
        if self.contains(n) {
            return false;
        }
        let (mut first, mut last) = (n, n);
        let before = self.map.range(..n).next_back().map(|(&a, &b)| (a, b));
        if let Some((a, _)) = before.filter(|&(_, b)| b.checked_add(1) == Some(n)) {
            first = a;
        }
        if let Some(b) = n.checked_add(1).and_then(|next| self.map.remove(&next)) {
            last = b;
        }
        self.map.insert(first, last);
        self.len += 1;
        true
    }

    /// Takes in all from `first` to `last`.
    pub(super) fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        self.remove_range(first, last);
        let (mut from, mut to) = (first, last);
        let before = self.map.range(..first).next_back().map(|(&a, &b)| (a, b));
        if let Some((a, _)) = before.filter(|&(_, b)| b.checked_add(1) == Some(first)) {
            from = a;
        }
        if let Some(b) = last.checked_add(1).and_then(|next| self.map.remove(&next)) {
            to = b;
        }
        self.map.insert(from, to);
        self.len = self.len.saturating_add(last - first).saturating_add(1);
    }

    /// `false` if it was not there.
    pub(super) fn remove(&mut self, n: u64) -> bool {
        self.remove_range(n, n) == 1
    }

    /// Takes out all from `first` to `last`: how many there were.
    pub(super) fn remove_range(&mut self, first: u64, last: u64) -> u64 {
        if first > last {
            return 0;
        }
        let mut removed = 0;
        if let Some((a, b)) = self.around(first).filter(|&(a, _)| a < first) {
            self.map.insert(a, first - 1);
            removed += b.min(last) - first + 1;
            if b > last {
                self.map.insert(last + 1, b);
            }
        }
        while let Some((&a, &b)) = self.map.range(first..=last).next() {
            self.map.remove(&a);
            removed += b.min(last) - a + 1;
            if b > last {
                self.map.insert(last + 1, b);
            }
        }
        self.len -= removed;
        removed
    }

    /// Takes out all up to `last`: how many there were.
    pub(super) fn remove_to(&mut self, last: u64) -> u64 {
        self.remove_range(0, last)
    }

    /// First and last of each range, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.map.iter().map(|(&a, &b)| (a, b))
    }

    /// First and last of each range, as far as they are between `first` and `last`.
    pub(super) fn within(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
        let from = self.around(first).map_or(first, |(a, _)| a);
        self.map
            .range(from..=last.max(from))
            .map(move |(&a, &b)| (a.max(first), b.min(last)))
            .filter(|(a, b)| a <= b)
    }

    pub(super) fn clear(&mut self) {
        self.map.clear();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_hold_what_a_plain_set_holds(steps in prop::collection::vec((0..4u8, 0..40u64, 0..12u64), 0..80)) {
            let (mut ranges, mut set) = (Ranges::new(), BTreeSet::new());
            for (what, n, more) in steps {
                match what {
                    0 => prop_assert_eq!(ranges.insert(n), set.insert(n)),
                    1 => prop_assert_eq!(ranges.remove(n), set.remove(&n)),
                    2 => {
                        ranges.insert_range(n, n + more);
                        set.extend(n..=n + more);
                    }
                    _ => {
                        let before = set.len();
                        set.retain(|x| !(n..=n + more).contains(x));
                        prop_assert_eq!(ranges.remove_range(n, n + more), (before - set.len()) as u64);
                    }
                }
                prop_assert_eq!(ranges.len(), set.len() as u64);
                prop_assert_eq!((ranges.first(), ranges.last()), (set.first().copied(), set.last().copied()));
                let flat: Vec<u64> = ranges.iter().flat_map(|(a, b)| a..=b).collect();
                prop_assert_eq!(flat, set.iter().copied().collect::<Vec<_>>());
                let within: Vec<u64> = ranges.within(n, n + more).flat_map(|(a, b)| a..=b).collect();
                prop_assert_eq!(within, set.range(n..=n + more).copied().collect::<Vec<_>>());
                let ends: Vec<_> = ranges.iter().collect();
                prop_assert!(ends.windows(2).all(|w| w[0].1 + 1 < w[1].0), "ranges touch: {:?}", ends);
            }
        }
    }
}
