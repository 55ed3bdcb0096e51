//! Consecutive pages at two levels at once: what the first level or the second answers, one page after the other, as
//! [`Tlb::access`] would. It knows nothing of walks, and nothing of entries marked stale; a page that needs either ends
//! the run before anything has changed for it.
//!
//! [`Tlb::access`]: crate::hw::Tlb::access

#![allow(clippy::inline_always)] // what is inlined here is compiled for the vectors of the caller

use std::marker::PhantomData;
use std::ops::Range;

use super::{AWAY, Array, Entry, Policy, follow, lanes};

/// How four ways are searched.
pub(in crate::hw) trait Search {
    /// Bit `i` is set where way `i` holds one of the keys.
    fn four(ways: &[Entry; 4], key: Entry, global: Entry) -> u32;
}

/// Without vectors.
pub(in crate::hw) struct Scalar;

impl Search for Scalar {
    #[inline]
    fn four(ways: &[Entry; 4], key: Entry, global: Entry) -> u32 {
        lanes(ways, key) | lanes(ways, global)
    }
}

/// How far a run came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::hw) struct Answered {
    /// Pages that some level answered.
    pub pages: u64,
    /// Of those, the ones that the second level answered.
    pub second: u64,
}

impl Array {
    /// Whether [`Array::hits_four`] knows its shape.
    pub(in crate::hw) fn is_tree_of_four(&self) -> bool {
        self.policy == Policy::Tree && self.ways == 4 && !self.modulo && self.fold == 0
    }

    /// [`Array::lookup`] where [`Array::is_tree_of_four`]; `false` also while anything is stale.
    #[inline]
    pub(in crate::hw) fn hits_four(&mut self, page: u64, key: Entry, global: Entry) -> bool {
        let set = page as usize & (self.sets as usize - 1);
        let (Some(ways), Some(bits)) = (self.keys.as_chunks::<4>().0.get(set), self.tree.get_mut(set)) else {
            return false;
        };
        let Some(way) = ways.iter().position(|&way| way == key || way == global) else { return false };
        if self.stale > 0 {
            return false;
        }
        let (keep, on) = AWAY[way & 3];
        *bits = *bits & keep | on;
        true
    }

    /// Whether [`run`] may look into it.
    pub(in crate::hw) fn runs(&self) -> bool {
        self.stale == 0 && !self.modulo
    }

    /// Whether a context has nothing to lose.
    #[inline]
    pub(in crate::hw) fn is_untouched(&self) -> bool {
        self.filled.any & self.filled.own == 0
    }

    /// Where [`Array::set_of`] finds a page, for an array that [`Array::runs`].
    fn index(&self) -> Index {
        Index { fold: if self.fold == 0 { u64::BITS - 1 } else { self.fold }, mask: u64::from(self.sets) - 1 }
    }
}

/// Page numbers are shorter than 63 bits, so that shifting one by 63 leaves nothing to fold.
#[derive(Clone, Copy)]
struct Index {
    fold: u32,
    mask: u64,
}

impl Index {
    #[inline]
    fn of(self, page: u64) -> usize {
        ((page ^ page >> self.fold) & self.mask) as usize
    }
}

/// The level that is asked first.
trait Near {
    /// [`Array::lookup`].
    fn look(&mut self, set: usize, key: Entry, global: Entry) -> bool;
    /// [`Array::fill`].
    fn fill(&mut self, set: usize, key: Entry);
}

impl Near for Array {
    #[inline]
    fn look(&mut self, set: usize, key: Entry, global: Entry) -> bool {
        self.lookup(set, key, global) != Entry::EMPTY
    }

    #[inline]
    fn fill(&mut self, set: usize, key: Entry) {
        Array::fill(self, set, key);
    }
}

/// A level whose sets are trees of four ways.
struct Fours<'a, S> {
    sets: &'a mut [[Entry; 4]],
    trees: &'a mut [u64],
    /// Bits of [`Array::filled`] where something entered.
    filled: u64,
    search: PhantomData<S>,
}

impl<S> Fours<'_, S> {
    #[inline(always)]
    fn turn(&mut self, set: usize, way: u32) {
        let (keep, on) = AWAY[way as usize & 3];
        let bits = &mut self.trees[set];
        *bits = *bits & keep | on;
    }
}

impl<S: Search> Near for Fours<'_, S> {
    #[inline(always)]
    fn look(&mut self, set: usize, key: Entry, global: Entry) -> bool {
        let found = S::four(&self.sets[set], key, global);
        if found == 0 {
            return false;
        }
        self.turn(set, found.trailing_zeros());
        true
    }

    #[inline(always)]
    fn fill(&mut self, set: usize, key: Entry) {
        let ways = &mut self.sets[set];
        let empty = S::four(ways, Entry::EMPTY, Entry::EMPTY);
        let way = if empty == 0 { follow(self.trees[set], 0, 4) } else { empty.trailing_zeros() };
        ways[way as usize & 3] = key;
        self.filled |= 1 << ((4 * set as u32 + way) % 64);
        self.turn(set, way);
    }
}

/// The level that is asked next.
trait Far {
    /// [`Array::lookup`].
    fn look(&mut self, place: usize, key: Entry, global: Entry) -> Entry;
}

impl Far for Array {
    #[inline]
    fn look(&mut self, place: usize, key: Entry, global: Entry) -> Entry {
        self.lookup(place, key, global)
    }
}

/// A level whose ways are their order.
struct Orders<'a, const WAYS: usize> {
    sets: &'a mut [[Entry; WAYS]],
}

impl<const WAYS: usize> Far for Orders<'_, WAYS> {
    /// Moves what it finds to the front on the way there.
    #[inline(always)]
    fn look(&mut self, place: usize, key: Entry, global: Entry) -> Entry {
        let ways = &mut self.sets[place];
        let first = ways[0];
        if first == key || first == global {
            return first;
        }
        let mut pushed = first;
        for way in 1..WAYS {
            let here = std::mem::replace(&mut ways[way], pushed);
            if here == key || here == global {
                ways[0] = here;
                return here;
            }
            pushed = here;
        }
        // It is not there: everyone back into place.
        for way in (1..WAYS).rev() {
            pushed = std::mem::replace(&mut ways[way], pushed);
        }
        Entry::EMPTY
    }
}

/// Accesses `pages` in the context of `key`, which is that of page 0, at the level of `near` and then at that of `far`.
#[inline(always)]
pub(in crate::hw) fn run<S: Search>(
    near: &mut Array,
    far: &mut Array,
    key: Entry,
    pages: Range<u64>,
) -> Answered {
    let indices = (near.index(), far.index());
    // What moves from far to near may be global.
    near.globals.0 |= far.globals.0;
    near.in_pieces.0 |= far.in_pieces.0;
    if near.policy != Policy::Tree || near.ways != 4 {
        return run_in(near, far, indices, key, pages);
    }
    let mut fours = Fours {
        sets: near.keys.as_chunks_mut::<4>().0,
        trees: &mut near.tree,
        filled: 0,
        search: PhantomData::<S>,
    };
    let keys = &mut far.keys;
    let answered = match (far.policy, far.ways) {
        (Policy::Lru, 6) => {
            run_in(&mut fours, &mut Orders { sets: keys.as_chunks_mut::<6>().0 }, indices, key, pages)
        }
        (Policy::Lru, 8) => {
            run_in(&mut fours, &mut Orders { sets: keys.as_chunks_mut::<8>().0 }, indices, key, pages)
        }
        _ => run_in(&mut fours, far, indices, key, pages),
    };
    near.filled.enter(fours.filled);
    answered
}

#[inline(always)]
fn run_in<N: Near, F: Far>(
    near: &mut N,
    far: &mut F,
    (near_index, far_index): (Index, Index),
    key: Entry,
    pages: Range<u64>,
) -> Answered {
    let mut answered = Answered::default();
    let all_global = key.as_global();
    let mut page = pages.start;
    while page < pages.end {
        let (own, global) = (Entry(key.0 | page), Entry(all_global.0 | page));
        let set = near_index.of(page);
        if !near.look(set, own, global) {
            let found = far.look(far_index.of(page), own, global);
            if found == Entry::EMPTY {
                break;
            }
            answered.second += 1;
            near.fill(set, found);
        }
        page += 1;
    }
    answered.pages = page - pages.start;
    answered
}

#[cfg(test)]
mod tests {
    use super::super::splitmix64;
    use crate::hw::geometry::Index;
    use crate::hw::{Geometry, Kind, Mmu, PageSize, Pcid, Preset, Vpn};
    use std::sync::Arc;

    /// A machine whose pages fold into their set in every array, and whose first level has so many ways.
    fn other(name: &str, ways: u32) -> Arc<Preset> {
        let mut preset = Preset::clone(&Preset::builtin(name).unwrap());
        let shape = Arc::clone(&preset.geometry);
        let mut levels = shape.levels().to_vec();
        for array in levels.iter_mut().flat_map(|level| &mut level.structures).filter(|array| array.sets > 1)
        {
            array.index = Index::Xor;
        }
        levels[0].structures.iter_mut().filter(|array| array.sets > 1).for_each(|array| array.ways = ways);
        let folded = Geometry::new(shape.name(), levels, shape.psc(), shape.table_levels());
        preset.geometry = Arc::new(folded.unwrap());
        Arc::new(preset)
    }

    #[test]
    fn a_run_leaves_what_its_accesses_one_by_one_leave() {
        let builtin = ["broadwell-ep-e5-2699v4", "skylake-sp", "ice-lake-sp", "zen4-epyc"];
        let mut machines: Vec<_> = builtin.map(|name| (name, Preset::builtin(name).unwrap())).into();
        machines.extend([4, 8].map(|ways| ("skylake-sp, folded", other("skylake-sp", ways))));
        machines.push(("zen4-epyc, folded", other("zen4-epyc", 8)));
        for (name, preset) in machines {
            let (mut runs, mut single) = (Mmu::new(&preset), Mmu::new(&preset));
            let (mut answered, mut walked) = (0, 0);
            for turn in 0..20_000 {
                let draw = splitmix64(7, turn);
                let (first, pages, global) = (draw >> 8 & 0x1ff, 1 + (draw >> 20) % 24, draw >> 40 & 7 == 0);
                let first = Vpn(0x7_f000_0000 + (first << (draw >> 50 & 3)));
                match draw % 16 {
                    0..3 => {
                        let pcid = Pcid(1 + (draw >> 30) as u16 % 3);
                        assert_eq!(runs.mov_cr3(pcid, true), single.mov_cr3(pcid, true));
                    }
                    3 => assert_eq!(runs.invlpg(first), single.invlpg(first)),
                    4 if draw >> 60 == 0 => {
                        for mmu in [&mut runs, &mut single] {
                            mmu.tlb_mut().mark_stale(first, pages, None);
                        }
                    }
                    5 if draw >> 60 == 0 => assert_eq!(runs.toggle_pge(), single.toggle_pge()),
                    _ => {
                        let mut sum = (0, 0);
                        for page in first.0..first.0 + pages {
                            let a = single.access_page(Vpn(page), Kind::Load, PageSize::K4, global);
                            sum = (sum.0 + u64::from(a.cycles), sum.1 + u64::from(a.loads > 0));
                        }
                        let hit = pages == 1 && runs.access_first(first, Kind::Load);
                        let got =
                            if hit { (0, 0) } else { runs.access_pages(first, pages, Kind::Load, global) };
                        assert_eq!(got, sum, "{name}, turn {turn}");
                        (answered, walked) = (answered + pages - sum.1, walked + sum.1);
                    }
                }
                assert!(runs.tlb() == single.tlb(), "{name}, turn {turn}");
            }
            assert!(answered > 10_000 && walked > 10_000, "{name}: {answered} {walked}");
        }
    }
}
