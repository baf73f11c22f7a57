//! Sorting in place: that of the standard library on hosts, a heap of a few hundred bytes of code where there is no operating system.
//!
//! The standard library's quicksort takes 2 to 3 kB of flash for each type that is sorted; heapsort (Williams 1964, Floyd 1964) takes a
//! few times as long, O(n log n) in any case, and is made once for all types.

/// What [`by_heap`] sorts: things at the places 0..n.
pub(crate) trait Places {
    /// Whether what is at place `a` goes before what is at `b`.
    fn is_before(&self, a: usize, b: usize) -> bool;
    /// Exchanges two.
    fn swap(&mut self, a: usize, b: usize);
}

impl<T: Ord> Places for &mut [T] {
    fn is_before(&self, a: usize, b: usize) -> bool {
        self.get(a) < self.get(b)
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a < self.len() && b < self.len() {
            (**self).swap(a, b);
        }
    }
}

/// Sorts the places 0..`n`, equal ones in any order.
pub(crate) fn by_heap(places: &mut dyn Places, n: usize) {
    // First each half-built heap's root sinks, then the largest goes behind the rest again and again.
    for step in (1..n + n / 2).rev() {
        let (mut root, end) = if step >= n { (step - n, n) } else { (0, step) };
        if step < n {
            places.swap(0, step);
        }
        loop {
            let mut child = 2 * root + 1;
            if child >= end {
                break;
            }
            if child + 1 < end && places.is_before(child, child + 1) {
                child += 1;
            }
            if !places.is_before(root, child) {
                break;
            }
            places.swap(root, child);
            root = child;
        }
    }
}

/// Sorts `list`, equal ones in any order.
pub(crate) fn unstable<T: Ord>(list: &mut [T]) {
    #[cfg(not(target_os = "none"))]
    list.sort_unstable();
    #[cfg(target_os = "none")]
    {
        let n = list.len();
        by_heap(&mut { list }, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn a_heap_sorts_as_the_standard_library_does(mut list in prop::collection::vec(0u8..20, 0..60)) {
            let mut wanted: Vec<u8> = list.clone();
            wanted.sort_unstable();
            let n = list.len();
            by_heap(&mut list.as_mut_slice(), n);
            prop_assert_eq!(list, wanted);
        }
    }
}
