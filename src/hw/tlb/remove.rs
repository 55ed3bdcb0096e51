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
        for (array, &sizes) in self.state.arrays.iter_mut().zip(&self.sizes) {
            removed += match (scope.page, scope.pcid, scope.globals) {
                (None, None, true) => array.clear(),
                (None, Some(pcid), false) => array.remove_context(pcid),
                (Some(page), ..) if array.sets() > 1 => remove_page(array, sizes, page, scope),
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

    /// As [`Tlb::invalidate`] for each of `pages` pages from `first` on, whose scopes `of` gives.
    ///
    /// What a scope takes of the paging-structure caches whatever the address, the first page has taken.
    pub(in crate::hw) fn invalidate_pages(&mut self, first: Vpn, pages: u64, of: impl Fn(Vpn) -> Scope) {
        for page in 0..pages {
            let scope = of(Vpn(first.0 + page));
            let gone = page > 0 && scope.psc == PscScope::Context;
            self.invalidate(if gone { Scope { psc: PscScope::None, ..scope } } else { scope });
        }
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

/// One page can only be in the sets that the sizes held select, bit `size` of `sizes`; pieces of a 1 GiB page can be anywhere.
fn remove_page(array: &mut Array, sizes: u8, page: Vpn, scope: Scope) -> usize {
    let mut removed = 0;
    let mut before = [usize::MAX; 3];
    for size in PageSize::ALL.into_iter().filter(|&size| sizes >> size as u8 & 1 == 1) {
        let set = array.set_of(page.0 >> size.shift());
        if !before.contains(&set) {
            removed += array.remove_in(set, |entry| falls(entry, scope));
        }
        before[size as usize] = set;
    }
    if array.holds_pieces() {
        removed += array.remove(|entry| falls(entry, scope));
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::array::splitmix64;
    use crate::hw::tlb::Cached;
    use crate::hw::{Kind, Preset};

    /// A TLB after accesses in three contexts to pages of three sizes, a few of them global.
    fn used(preset: &str, seed: u64) -> Tlb {
        let mut tlb = Tlb::new(std::sync::Arc::clone(&Preset::builtin(preset).unwrap().geometry));
        for n in 0..3_000 {
            let draw = splitmix64(seed, n);
            let kind = Kind::ALL[(draw >> 8) as usize % 3];
            let large = draw >> 16 & 7 == 0 && tlb.check_held(PageSize::M2, kind).is_ok();
            let giant = draw >> 19 & 31 == 0 && tlb.check_held(PageSize::G1, kind).is_ok();
            let (size, base) = match (giant, large) {
                (true, _) => (PageSize::G1, 1 << 30),
                (false, true) => (PageSize::M2, 1 << 20),
                (false, false) => (PageSize::K4, 0),
            };
            // A giant page is met at a few places, which a TLB may hold in pieces.
            let far = if giant { draw >> 24 & 3 } else { 0 } * 512;
            let vpn = Vpn(base + (draw >> 32) % if giant { 9 } else { 700 } * size.pages() + far);
            tlb.switch(Pcid(1 + (n / 40 % 3) as u16));
            tlb.access(vpn, kind, size, vpn.0 % 16 == 5 || (giant || large) && draw >> 34 & 3 == 0);
        }
        tlb
    }

    /// SDM Vol. 3A 4.10.4.1 over what people are shown.
    fn leaves(held: &Cached, scope: Scope) -> bool {
        let context = match held.pcid {
            None => scope.globals,
            Some(pcid) => scope.pcid.is_none_or(|wanted| wanted == pcid),
        };
        // Of a giant page each piece leaves with every page.
        let size = if held.vpn.0 >= 1 << 30 { PageSize::G1 } else { held.size };
        let first = held.vpn.0 / size.pages() * size.pages();
        let pages = first..first + size.pages();
        context && scope.page.is_none_or(|page| pages.contains(&page.0))
    }

    #[test]
    fn of_every_machine_leaves_what_a_scope_names_and_nothing_else() {
        let mut gone = 0;
        for (number, preset) in Preset::names().into_iter().enumerate() {
            for (turn, few) in [true, false].into_iter().enumerate() {
                let mut before = used(preset, number as u64);
                if few {
                    // All but two contexts' worth of one page in eight.
                    before.invalidate(Scope::mov_cr3(Pcid(1)));
                    before.invalidate(Scope::mov_cr3(Pcid(2)));
                }
                let page = |n: u64| Vpn((splitmix64(7 + turn as u64, n) % 700) / 16 * 16 + n % 2 * 5);
                let mut scopes = vec![Scope::ALL, Scope::ALL_NON_GLOBAL, Scope::mov_cr3(Pcid(3))];
                scopes.extend((0..40).map(|n| Scope::invlpg(page(n), Pcid(1 + (n % 3) as u16))));
                scopes.extend((0..9).map(|n| Scope::invlpg(Vpn((1 << 20) + 513 * n), Pcid(3))));
                scopes.extend((0..9).map(|n| Scope::invlpg(Vpn((1 << 30) + (n << 18) + 77), Pcid(3))));
                scopes.extend((0..9).map(|n| Scope { globals: false, ..Scope::invlpg(page(n), Pcid(2)) }));
                for scope in scopes {
                    let mut tlb = before.clone();
                    let removed = tlb.invalidate(scope);
                    let sorted = |mut all: Vec<Cached>| {
                        all.sort_by_key(|one| (one.structure, one.set, one.vpn, one.pcid));
                        all.into_iter().map(|one| (one.structure, one.set, one.vpn, one.size, one.pcid))
                    };
                    let mut stay = before.entries();
                    stay.retain(|held| !leaves(held, scope));
                    assert_eq!(removed, before.entries().len() - stay.len(), "{preset}, {scope:?}");
                    assert!(sorted(tlb.entries()).eq(sorted(stay)), "{preset}, {scope:?}");
                    gone += removed;
                }
            }
        }
        assert!(gone > 10_000);
    }

    #[test]
    fn pages_in_a_row_leave_as_one_after_the_other() {
        for preset in Preset::names() {
            let before = used(preset, 99);
            let scopes: [fn(Vpn) -> Scope; 2] = [
                |page| Scope::invlpg(page, Pcid(3)),
                |page| Scope { psc: PscScope::Page, globals: false, ..Scope::invlpg(page, Pcid(3)) },
            ];
            for (of, first) in scopes.into_iter().zip([Vpn(90), Vpn(510)]) {
                let (mut at_once, mut singly) = (before.clone(), before.clone());
                at_once.invalidate_pages(first, 33, of);
                for page in 0..33 {
                    singly.invalidate(of(Vpn(first.0 + page)));
                }
                assert!(at_once == singly, "{preset}");
                assert!(at_once != before, "{preset}: something was there");
            }
        }
    }
}
