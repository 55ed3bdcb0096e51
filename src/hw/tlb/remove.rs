//! What invalidations take away, and what changes of the tables make stale.

use super::Tlb;
use crate::hw::array::{Array, Entry};
use crate::hw::invalidate::{PscScope, Scope};
use crate::hw::{PageSize, Pcid, Vpn};

impl Tlb {
    /// Removes what `scope` names; returns the number of TLB entries that left (not counting paging-structure
    /// caches).
    pub fn invalidate(&mut self, scope: Scope) -> usize {
        let mut removed = 0;
        for array in &mut self.state.arrays {
            removed += match (scope.page, scope.pcid, scope.globals) {
                (None, None, true) => array.clear(),
                (Some(page), ..) if array.sets() > 1 => remove_page(array, page, scope),
                _ => array.remove(|entry| falls(entry, scope)),
            };
        }
        match scope.psc {
            PscScope::None => {}
            PscScope::Page | PscScope::Context => {
                for (level, psc) in self.state.psc.iter_mut().enumerate() {
                    if scope.psc == PscScope::Context && scope.pcid.is_none() {
                        psc.clear();
                        continue;
                    }
                    psc.remove(|entry| {
                        let here = scope.psc == PscScope::Context
                            || scope.page.is_none_or(|page| entry.page() == page.0 >> (9 * (level + 1)));
                        here && scope.pcid.is_none_or(|pcid| entry.pcid() == pcid)
                    });
                }
            }
        }
        self.state.counters.invalidated += removed as u64;
        removed
    }

    /// Marks everything cached for these pages as older than its table: SEMANTICS S1. `pcid` restricts the mark to
    /// one context and the globals. Returns the number of TLB entries marked.
    pub fn mark_stale(&mut self, first: Vpn, pages: u64, pcid: Option<Pcid>) -> usize {
        let overlaps = |start: u64, length: u64| start < first.0 + pages && first.0 < start + length;
        let context = |entry: Entry| pcid.is_none_or(|pcid| entry.is_global() || entry.pcid() == pcid);
        let mut marked = 0;
        for array in &mut self.state.arrays {
            marked += array.mark_stale(|entry| {
                let (start, length) = entry.mapping();
                context(entry) && overlaps(start, length)
            });
        }
        marked
    }

    /// Marks cached paging-structure entries of `level` (0 PDE, 1 PDPTE, 2 PML4E, 3 PML5E) that cover these pages.
    pub fn mark_psc_stale(&mut self, level: usize, first: Vpn, pages: u64, pcid: Option<Pcid>) -> usize {
        let shift = 9 * (level as u32 + 1);
        self.state.psc[level].mark_stale(|entry| {
            let (start, length) = (entry.page() << shift, 1_u64 << shift);
            pcid.is_none_or(|pcid| entry.pcid() == pcid)
                && start < first.0 + pages
                && first.0 < start + length
        })
    }
}

/// The invalidation rule for one entry.
fn falls(entry: Entry, scope: Scope) -> bool {
    let context =
        if entry.is_global() { scope.globals } else { scope.pcid.is_none_or(|pcid| pcid == entry.pcid()) };
    context
        && scope.page.is_none_or(|page| {
            let (start, length) = entry.mapping();
            start <= page.0 && page.0 < start + length
        })
}

/// One page can only be in the sets its sizes select; pieces of a 1 GiB page can be anywhere.
fn remove_page(array: &mut Array, page: Vpn, scope: Scope) -> usize {
    let mut sets = PageSize::ALL.map(|size| array.set_of(page.0 >> size.shift()));
    sets.sort_unstable();
    let mut removed = 0;
    for (i, &set) in sets.iter().enumerate() {
        if i == 0 || sets[i - 1] != set {
            removed += array.remove_in(set, |entry| falls(entry, scope));
        }
    }
    if array.may_hold_pieces() {
        removed += array.remove(|entry| falls(entry, scope));
    }
    removed
}
