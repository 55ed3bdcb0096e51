//! How each state was found: the state that led to it, and as which of its successors.
//!
//! States are numbered in order of discovery, so that of two neighbours the later one was found from the same state or
//! a later one. A row of bits therefore says it all: bit `i + parent(i)` is set for every state `i`. With a byte for
//! the successor's place that makes one byte and about two bits a state, and a key is found again by following the
//! places from the first state on.

/// States between two whose parents are written out.
const EVERY: usize = 512;
/// Says that a place is among the large ones.
const FAR: u8 = u8::MAX;

/// Parents and places of all states found so far.
#[derive(Clone, Debug, Default)]
pub struct Births {
    marks: Vec<u64>,
    /// Places among the successors of the parent.
    places: Vec<u8>,
    /// Those that fit no byte, by state.
    far: Vec<(usize, u16)>,
    /// Parents of the states 0, `EVERY`, ...
    parents: Vec<usize>,
}

/// Make room for `more`, by an eighth: what doubles would ask for twice of what it needs.
fn widen<T>(v: &mut Vec<T>, more: usize) {
    if v.capacity() < v.len() + more {
        v.reserve_exact(more.max(v.len() / 8).max(64));
    }
}

impl Births {
    /// How many.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Add the next states. Their parents do not decrease.
    pub fn extend(&mut self, births: impl ExactSizeIterator<Item = (usize, u16)>) {
        widen(&mut self.places, births.len());
        for (parent, place) in births {
            let state = self.places.len();
            let bit = state + parent;
            if bit / 64 >= self.marks.len() {
                let more = bit / 64 + 1 - self.marks.len();
                widen(&mut self.marks, more);
                self.marks.resize(bit / 64 + 1, 0);
            }
            self.marks[bit / 64] |= 1 << (bit % 64);
            if state.is_multiple_of(EVERY) {
                self.parents.push(parent);
            }
            self.places.push(u8::try_from(place).unwrap_or(FAR));
            if place >= u16::from(FAR) {
                self.far.push((state, place));
            }
        }
    }

    /// The state it was found from.
    pub fn parent(&self, state: usize) -> usize {
        let from = state / EVERY * EVERY;
        let first = from + self.parents[state / EVERY];
        let mut left = state - from;
        let mut at = first / 64;
        let mut word = self.marks[at] & !0 << (first % 64);
        while word.count_ones() as usize <= left {
            left -= word.count_ones() as usize;
            at += 1;
            word = self.marks[at];
        }
        for _ in 0..left {
            word &= word - 1;
        }
        at * 64 + word.trailing_zeros() as usize - state
    }

    /// Its place among the successors of that state.
    pub fn place(&self, state: usize) -> usize {
        match self.places[state] {
            FAR => {
                let at = self.far.binary_search_by_key(&state, |f| f.0).expect("it is written down");
                usize::from(self.far[at].1)
            }
            place => usize::from(place),
        }
    }

    /// Parents and places in order, from a state on.
    pub fn from(&self, state: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let first = if state < self.count() { state + self.parent(state) } else { 0 };
        let mut at = first / 64;
        let mut word = self.marks.get(at).map_or(0, |w| w & !0 << (first % 64));
        (state..self.count()).map(move |state| {
            while word == 0 {
                at += 1;
                word = self.marks[at];
            }
            let parent = at * 64 + word.trailing_zeros() as usize - state;
            word &= word - 1;
            (parent, self.place(state))
        })
    }

    /// Bytes that so many take, each with a place that fits a byte.
    pub fn bytes(states: usize) -> usize {
        states + states / 4 + states / EVERY * size_of::<usize>()
    }

    /// Bytes that these take.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.marks.len() * 8 + self.places.len() + self.far.len() * 16 + self.parents.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::parts::Key;

    #[test]
    fn parents_and_places_are_those_that_were_told_however_far_apart() {
        let mut told = vec![(0, 0_u16)];
        for i in 1..20_000_usize {
            let draw = (i as u64).hash();
            // Many of one parent, runs of childless states, and long stretches of both.
            let step = match draw % 16 {
                0 => (draw >> 8) as usize % 900,
                1..8 => 1,
                _ => 0,
            };
            let place =
                if draw >> 20 & 63 == 0 { (draw >> 32) as u16 & 0x7fff } else { (draw >> 32) as u16 & 255 };
            told.push(((told[i - 1].0 + step).min(i - 1), place));
        }
        let mut births = Births::default();
        for some in told.chunks(777) {
            births.extend(some.iter().copied());
        }
        let want: Vec<(usize, usize)> = told.iter().map(|&(p, n)| (p, usize::from(n))).collect();
        let got: Vec<_> = (0..told.len()).map(|i| (births.parent(i), births.place(i))).collect();
        assert_eq!(got, want);
        for from in [0, 1, 511, 512, 19_999, 20_000] {
            assert!(births.from(from).eq(want[from..].iter().copied()), "from {from}");
        }
    }

    #[test]
    fn a_state_takes_a_byte_and_two_bits() {
        let mut births = Births::default();
        births.extend((0..1_000_000_usize).map(|i| (i.saturating_sub(1) * 9 / 10, 3)));
        let (held, said) = (births.held(), Births::bytes(births.count()));
        assert!(held <= said && said < held + held / 20, "{held} of {said}");
        assert!(said * 100 <= 127 * births.count());
    }
}
