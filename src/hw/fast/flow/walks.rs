//! Walks of what no level holds, through the paging-structure caches.

use super::super::stream::Buffers;
use super::Flow;
use super::pass::{Form, run};
use crate::hw::Vpn;
use crate::hw::array::Entry;

impl Flow<'_> {
    /// Walks for the first `left` accesses.
    #[allow(clippy::needless_range_loop)] // the level is that of three things
    pub(super) fn walks(&mut self, mut left: usize, larger: bool) {
        if !larger && self.tlb.psc_mut().iter().all(|array| array.ways() == 0) {
            let loads = (left * (self.tlb.psc_mut().len() + 1)) as u64;
            self.tlb.counters_mut().walk_loads += loads;
            return;
        }
        // From here on a key is that of a paging-structure entry, in a context: of a 4 KiB page its PDE, and so on.
        let stream = &mut self.with.stream;
        for i in 0..left {
            let key = stream.keys[i];
            let own = if self.globals && key & Entry::GLOBAL != 0 { stream.others[i] } else { key };
            let size = if larger { Entry(own).size() as u32 } else { 0 };
            let page = (own & Vpn::MASK) << (9 * size) >> 9;
            stream.keys[i] = Entry::VALID | own & Entry::PCID_FIELD | page;
        }
        if self.walkers.is_empty() {
            self.walkers.resize(self.tlb.psc_mut().len(), Form::default());
        }
        let mut loads = 0;
        let mut hits = [0; 4];
        for level in 0..self.tlb.psc_mut().len() {
            // Accesses to larger pages wait for their level.
            let mut here = left;
            if larger && level < 2 {
                here = self.set_apart(left, level as u8);
            }
            loads += here as u64;
            if self.tlb.psc_mut()[level].ways() > 0 {
                let (array, form) = (&mut self.tlb.psc_mut()[level], &mut self.walkers[level]);
                let missed =
                    run(array, form, &mut self.with.stream, 0..here, 0, (self.worth, false, self.vector));
                hits[level] += (here - missed) as u64;
                if here == left {
                    left = missed;
                } else {
                    left = self.join(missed, left - here);
                }
            } else if here < left {
                left = self.join(here, left - here);
            }
            for key in &mut self.with.stream.keys[..left] {
                *key = *key & !Vpn::MASK | (*key & Vpn::MASK) >> 9;
            }
        }
        let counters = self.tlb.counters_mut();
        counters.walk_loads += loads + left as u64;
        for (sum, more) in counters.psc_hits.iter_mut().zip(hits) {
            *sum += more;
        }
    }

    /// Moves those of the first `left` walks whose page is larger than `level` has entries for aside; returns how many stay.
    fn set_apart(&mut self, left: usize, level: u8) -> usize {
        let (mut stay, mut wait) = (0, 0);
        for i in 0..left {
            let number = self.with.stream.numbers[i] as usize;
            if self.with.whats[number] / 3 > level {
                let Buffers { stream, aside, .. } = &mut *self.with;
                aside.copy(wait, stream, i);
                wait += 1;
            } else {
                let stream = &mut self.with.stream;
                stream.keys[stay] = stream.keys[i];
                stream.numbers[stay] = stream.numbers[i];
                stay += 1;
            }
        }
        stay
    }

    /// Puts the `waiting` walks back among the first `left`, by their numbers.
    fn join(&mut self, left: usize, waiting: usize) -> usize {
        let Buffers { stream, aside, .. } = &mut *self.with;
        let (mut a, mut b) = (left, waiting);
        for to in (0..left + waiting).rev() {
            if b == 0 {
                break;
            }
            if a > 0 && stream.numbers[a - 1] > aside.numbers[b - 1] {
                a -= 1;
                stream.keys[to] = stream.keys[a];
                stream.numbers[to] = stream.numbers[a];
            } else {
                b -= 1;
                stream.copy(to, aside, b);
            }
        }
        left + waiting
    }
}
