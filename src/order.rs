//! Sorting where speed does not matter.
//!
//! The standard library's sort is compiled anew for each type and each comparison, some seven kilobytes each time. Rows of a
//! report are few: here their indices are sorted, by one copy for all, and the rows are moved once.

use std::cmp::Ordering;

/// `items.sort_by(compare)`: stable.
pub fn by<T>(items: &mut [T], mut compare: impl FnMut(&T, &T) -> Ordering) {
    let mut from = indices(items.len(), &mut |a, b| compare(&items[a], &items[b]));
    // Along each cycle of the permutation; `from[at] == at` where the item is in its place.
    for first in 0..items.len() {
        let mut at = first;
        while from[at] != at {
            let next = std::mem::replace(&mut from[at], at);
            if next == first {
                break;
            }
            items.swap(at, next);
            at = next;
        }
    }
}

/// `items.sort_by_key(key)`: stable.
pub fn by_key<T, K: Ord>(items: &mut [T], mut key: impl FnMut(&T) -> K) {
    by(items, |a, b| key(a).cmp(&key(b)));
}

/// `items.sort()`.
pub fn natural<T: Ord>(items: &mut [T]) {
    by(items, T::cmp);
}

/// `items.collect()` into a map or a set, one after the other: the standard library's sorts them first.
pub fn gather<T, C: Default + Extend<T>>(items: impl IntoIterator<Item = T>) -> C {
    let mut all = C::default();
    all.extend(items);
    all
}

/// The index of the item that belongs to each place.
#[inline(never)]
fn indices(count: usize, compare: &mut dyn FnMut(usize, usize) -> Ordering) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    all.sort_by(|&a, &b| compare(a, b));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_the_standard_library(items in prop::collection::vec((0u8..9, any::<u8>()), 0..60)) {
            let (mut by_keys, mut whole) = (items.clone(), items.clone());
            let (mut stable, mut sorted) = (items.clone(), items);
            stable.sort_by_key(|item| item.0);
            sorted.sort_unstable();
            by_key(&mut by_keys, |item| item.0);
            natural(&mut whole);
            prop_assert_eq!(by_keys, stable);
            prop_assert_eq!(whole, sorted);
        }
    }
}
