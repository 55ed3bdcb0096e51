//! Values by number, in memory that does not grow: the first ones stay, of what comes behind only the latest.

use std::collections::VecDeque;

/// See above.
#[derive(Debug)]
pub(super) struct Kept<T> {
    first: Vec<T>,
    most: usize,
    latest: VecDeque<T>,
    ring: usize,
    /// Number of the first in the ring.
    from: u32,
}

impl<T> Kept<T> {
    /// Keeps the first `most`, and the latest `ring` behind them.
    pub(super) fn new(most: usize, ring: usize) -> Self {
        Self { first: Vec::new(), most, latest: VecDeque::new(), ring, from: 0 }
    }

    /// Adds one: its number, and the value that had to go.
    pub(super) fn push(&mut self, value: T) -> (u32, Option<T>) {
        if !self.is_full() {
            self.first.push(value);
            self.from = self.first.len() as u32;
            return (self.from - 1, None);
        }
        let gone = if self.latest.len() >= self.ring { self.latest.pop_front() } else { None };
        self.from = self.from.wrapping_add(u32::from(gone.is_some()));
        self.latest.push_back(value);
        (self.from.wrapping_add(self.latest.len() as u32 - 1), gone)
    }

    /// What comes from now on does not stay.
    pub(super) fn seal(&mut self) {
        self.most = self.most.min(self.first.len());
    }

    /// Nothing more stays.
    pub(super) fn is_full(&self) -> bool {
        self.first.len() >= self.most
    }

    /// The value of this number stays.
    pub(super) fn keeps(&self, number: u32) -> bool {
        (number as usize) < self.first.len()
    }

    /// Those that stay.
    pub(super) fn first(&self) -> &[T] {
        &self.first
    }

    fn place(&self, number: u32) -> usize {
        number.wrapping_sub(self.from) as usize
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        if self.keeps(number) { self.first.get(number as usize) } else { self.latest.get(self.place(number)) }
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        if self.keeps(number) {
            return self.first.get_mut(number as usize);
        }
        let place = self.place(number);
        self.latest.get_mut(place)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.latest)
    }

    /// Empties the ring, oldest first.
    pub(super) fn drain(&mut self) -> VecDeque<T> {
        self.from = self.from.wrapping_add(self.latest.len() as u32);
        std::mem::take(&mut self.latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stay_and_the_latest_are_found_until_they_go() {
        let mut kept = Kept::new(2, 3);
        let gone: Vec<_> = (10..17).map(|v| kept.push(v)).collect();
        assert_eq!(gone[4], (4, None));
        assert_eq!(gone[5], (5, Some(12)));
        assert_eq!(gone[6], (6, Some(13)));
        let found: Vec<_> = (0..8).map(|n| kept.get(n).copied()).collect();
        assert_eq!(found, [Some(10), Some(11), None, None, Some(14), Some(15), Some(16), None]);
        assert_eq!(kept.get(u32::MAX), None, "no number");
        assert_eq!((kept.first(), kept.keeps(1), kept.keeps(2)), (&[10, 11][..], true, false));
        *kept.get_mut(5).expect("it is there") = 99;
        assert_eq!(kept.drain(), [14, 99, 16]);
        assert_eq!(kept.get(6), None);
        assert_eq!(kept.push(17), (7, None));
    }

    #[test]
    fn sealed_before_it_is_full_it_numbers_on() {
        let mut kept = Kept::new(100, 2);
        kept.push('a');
        kept.seal();
        assert!(kept.is_full());
        assert_eq!(kept.push('b'), (1, None));
        assert_eq!((kept.get(0), kept.get(1)), (Some(&'a'), Some(&'b')));
    }
}
