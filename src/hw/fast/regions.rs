//! Pages that lie far from each other, brought together: what [`super::lru`] needs of pages is that they lie in one window, and
//! those of a process (its heap, its libraries, its stack, the kernel) do not.
//!
//! A region is a row of `2^shift` pages. The regions of a call get numbers in the order in which they come, and each page is
//! taken for the one at the same place of the region with that number. So different pages stay different, and all bits below
//! `shift` stay, those that pick sets among them. What a TLB without paging-structure caches does depends on nothing else, so
//! it does the same; its entries are renamed before and named back after.
//!
//! With paging-structure caches a region is what one entry of the highest cached level covers, 2^27 pages: an entry of a level
//! is then its region's number and the bits below, as a page is, so that two pages share it under their new names if and only
//! if they did under the old ones. 16 such regions have numbers for [`interned`], more than a process and the kernel have;
//! five levels of tables with a cache of the fifth are left out.
//!
//! A context is a part of a page's name as its region is: the regions of each context have numbers of their own, and all of
//! them are taken for regions of one context. Where no array has few slots a change of context does nothing but be counted.

use super::{flow, interned, lru};
use crate::hw::array::{Array, Entry};
use crate::hw::tlb::Tlb;
use crate::hw::{Contexts, Kind, PageSize, Pcid, Vpn};

/// Shorter calls do not pay for it.
const WORTH_RENAMING: usize = 1 << 13;
/// Pages that are renamed at once: they stay in the second cache.
const PIECE: usize = 1 << 16;
/// Bits of a page that is renamed.
const BITS: u32 = 31;
/// Bits of a number in a word of the table; above them is the region, its context above 45 bits of a page.
const NUMBER: u32 = 21;
/// Bits of the largest region.
const MOST_SHIFTED: u32 = 27;
/// Contexts that a region can be told apart by; all bits of a region and its context are never set.
const MOST_CONTEXTS: usize = 127;

/// Numbers of regions.
#[derive(Debug)]
struct Regions {
    shift: u32,
    /// `region << NUMBER | number`, by a hash of the region and what follows; all ones: nothing.
    table: Vec<u64>,
    numbered: Vec<u64>,
    /// The contexts there are, and 1 more than the place of each; 0: none.
    contexts: Vec<Pcid>,
    places: Vec<u8>,
}

impl Regions {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

    fn new(shift: u32) -> Self {
        let places = vec![0; usize::from(Pcid::MAX) + 1];
        Regions { shift, table: vec![u64::MAX; 256], numbered: Vec::new(), contexts: Vec::new(), places }
    }

    /// `None`: there are too many contexts.
    fn know(&mut self, pcid: Pcid) -> Option<()> {
        let place = &mut self.places[usize::from(pcid.0)];
        if *place == 0 {
            if self.contexts.len() == MOST_CONTEXTS {
                return None;
            }
            self.contexts.push(pcid);
            *place = self.contexts.len() as u8;
        }
        Some(())
    }

    /// The bits of a known context.
    #[inline]
    fn context(&self, pcid: Pcid) -> Option<u64> {
        let place = self.places[usize::from(pcid.0 & Pcid::MAX)];
        (place > 0).then(|| u64::from(place - 1) << Vpn::BITS)
    }

    #[inline]
    fn slot(&self, region: u64) -> usize {
        (region.wrapping_mul(Self::SPREAD) >> (u64::BITS - self.table.len().trailing_zeros())) as usize
    }

    /// `None`: there are no more numbers.
    fn find(&mut self, region: u64) -> Option<u64> {
        let mut slot = self.slot(region);
        while self.table[slot] != u64::MAX {
            if self.table[slot] >> NUMBER == region {
                return Some(self.table[slot] & ((1 << NUMBER) - 1));
            }
            slot = (slot + 1) & (self.table.len() - 1);
        }
        let number = self.numbered.len() as u64;
        if number >> (BITS - self.shift).min(NUMBER) != 0 {
            return None;
        }
        self.numbered.push(region);
        self.table[slot] = region << NUMBER | number;
        if 4 * self.numbered.len() > self.table.len() {
            let old = std::mem::take(&mut self.table);
            self.table = vec![u64::MAX; 4 * old.len()];
            for word in old.into_iter().filter(|&word| word != u64::MAX) {
                let mut slot = self.slot(word >> NUMBER);
                while self.table[slot] != u64::MAX {
                    slot = (slot + 1) & (self.table.len() - 1);
                }
                self.table[slot] = word;
            }
        }
        Some(number)
    }

    /// Renames pages in place; `None`: there are more regions than numbers, and what is in `pages` means nothing.
    fn rename(&mut self, pages: &mut [u64]) -> Option<()> {
        let (shift, low) = (self.shift, (1 << self.shift) - 1);
        let mut at = 0;
        while at < pages.len() {
            // What is in the table at the place of its hash, as nearly all is.
            let bits = u64::BITS - self.table.len().trailing_zeros();
            let (table, mask) = (&self.table[..], self.table.len() - 1);
            for page in &mut pages[at..] {
                let region = *page >> shift;
                let slot = region.wrapping_mul(Self::SPREAD) >> bits;
                let known = table[slot as usize & mask];
                // Nothing is no region of a context.
                if known >> NUMBER != region {
                    break;
                }
                *page = (known & ((1 << NUMBER) - 1)) << shift | *page & low;
                at += 1;
            }
            if let Some(page) = pages.get_mut(at) {
                *page = self.find(*page >> shift)? << shift | *page & low;
                at += 1;
            }
        }
        Some(())
    }

    /// Renames what an array holds of 4 KiB pages in the known contexts, into `pcid`; of each page it has the bits above
    /// `cut`.
    fn enter(&mut self, array: &mut Array, pcid: Pcid, cut: u32) -> Option<()> {
        let shift = self.shift;
        rename(array, |entry| {
            let Some(context) = self.context(entry.pcid()) else { return Some(entry) };
            let word = entry.page() << cut | context;
            let page = self.find(word >> shift)? << shift | word & ((1 << shift) - 1);
            Some(Entry::new(page >> cut, PageSize::K4, pcid, false))
        })
    }

    /// Names it back.
    fn leave(&self, array: &mut Array, pcid: Pcid, cut: u32) {
        let shift = self.shift;
        let back = |entry: Entry| {
            if entry.pcid() != pcid {
                return Some(entry);
            }
            let page = entry.page() << cut;
            let region = self.numbered[(page >> shift) as usize];
            let pcid = self.contexts[(region >> (Vpn::BITS - shift)) as usize];
            let page = region << shift & Vpn::MASK | page & ((1 << shift) - 1);
            Some(Entry::new(page >> cut, PageSize::K4, pcid, false))
        };
        rename(array, back).expect("what was named has a region");
    }

    /// Renames all that a TLB holds.
    fn enter_all(&mut self, tlb: &mut Tlb, pcid: Pcid) -> Option<()> {
        tlb.arrays_mut().iter_mut().try_for_each(|array| self.enter(array, pcid, 0))?;
        cached(tlb).try_for_each(|(cut, array)| self.enter(array, pcid, cut))
    }

    /// Names all of it back.
    fn leave_all(&self, tlb: &mut Tlb, pcid: Pcid) {
        tlb.arrays_mut().iter_mut().for_each(|array| self.leave(array, pcid, 0));
        cached(tlb).for_each(|(cut, array)| self.leave(array, pcid, cut));
    }
}

/// The paging-structure caches that there are, and how many low bits of a page the entries of each do not have.
fn cached(tlb: &mut Tlb) -> impl Iterator<Item = (u32, &mut Array)> {
    (9..).step_by(9).zip(tlb.psc_mut()).filter(|(_, array)| array.ways() > 0)
}

/// Renames the entries of 4 KiB pages that are not global.
fn rename(array: &mut Array, mut name: impl FnMut(Entry) -> Option<Entry>) -> Option<()> {
    if array.is_untouched() {
        return Some(());
    }
    for entry in array.keys_mut() {
        if *entry == Entry::new(entry.page(), PageSize::K4, entry.pcid(), false) {
            *entry = name(*entry)?;
        }
    }
    Some(())
}

/// Whether pages lie in more than one window of the loops in [`lru`], as far as a sample shows, or so far
/// apart there that ways would have to be wide.
pub(in crate::hw) fn apart(vpns: &[u64]) -> bool {
    /// The window that 16 bits a way can tell apart in 16 sets.
    const NEAR: u64 = 1 << 18;
    let sample = vpns.iter().step_by(vpns.len().div_ceil(4096).max(1));
    let (low, high) = sample.fold((u64::MAX, 0), |(low, high), &vpn| (low.min(vpn), high.max(vpn)));
    high.saturating_sub(low) >= NEAR
}

/// Runs the head of `vpns`, all valid, in their contexts; returns how many. What is left, for there are too many regions or
/// it is no such case, is for [`flow`].
pub(in crate::hw) fn run(
    tlb: &mut Tlb,
    vpns: &[u64],
    contexts: Contexts<'_>,
    kind: Kind,
    mut levels: Option<&mut [u8]>,
    vector: bool,
) -> usize {
    if vpns.len() < WORTH_RENAMING || flow::holds_globals(tlb) {
        return 0;
    }
    let plain = lru::fits(tlb, kind);
    let together = matches!(contexts, Contexts::One(_)) && interned::together(vpns);
    if !plain && (together || !vector || !interned::fits(tlb)) {
        return 0;
    }
    // Bits that pick sets, or are folded to them, and those that the highest cached level of tables has not.
    let picking = tlb.arrays().iter().map(|array| array.fold() + array.sets().next_power_of_two().ilog2());
    let shift = picking.max().unwrap_or(0).max(if plain { 9 } else { MOST_SHIFTED });
    if shift > MOST_SHIFTED || cached(tlb).any(|(cut, _)| cut > shift) {
        return 0;
    }
    let mut regions = Regions::new(shift);
    if let Contexts::One(pcid) = contexts {
        tlb.switch(pcid);
    }
    // Everything runs in the context that is loaded; what changes there are is counted apart.
    let pcid = tlb.pcid();
    let mut known = regions.know(pcid);
    if let Contexts::Each(pcids) = contexts {
        if tlb.has_slots() {
            return 0;
        }
        for &pcid in pcids {
            known = known.and_then(|()| regions.know(Pcid(pcid & Pcid::MAX)));
        }
    }
    if known.is_none() {
        return 0;
    }
    let mut current = pcid;
    let mut pages = Vec::new();
    let before = tlb.clone();
    if regions.enter_all(tlb, pcid).is_none() {
        *tlb = before;
        return 0;
    }
    // A page that repeats its predecessor hits the level nearest to the core and changes nothing: where many do, and nobody
    // asks which, they are counted and left out.
    let near = (0..tlb.levels()).find(|&level| tlb.banks(usize::from(level), PageSize::K4, kind).is_some());
    let drop = levels.is_none() && lru::repeats(vpns);
    let mut done = 0;
    for piece in vpns.chunks(if drop { 8 * PIECE } else { PIECE }) {
        // A short rest would be no such case any more.
        if piece.len() < WORTH_RENAMING {
            break;
        }
        if pages.len() < piece.len() {
            pages.resize(piece.len(), 0);
        }
        let mut kept = 0;
        let (mut last, mut switches) = (current, 0);
        if let Contexts::Each(pcids) = contexts {
            // One that became unknown meanwhile, as another thread writes, is taken for the first.
            for ((page, &vpn), &pcid) in pages.iter_mut().zip(piece).zip(&pcids[done..]) {
                let pcid = Pcid(pcid & Pcid::MAX);
                *page = vpn & Vpn::MASK | regions.context(pcid).unwrap_or(0);
                switches += u64::from(pcid != last);
                last = pcid;
            }
        }
        if drop {
            let mut previous = u64::MAX;
            for i in 0..piece.len() {
                let page = if matches!(contexts, Contexts::One(_)) { piece[i] & Vpn::MASK } else { pages[i] };
                pages[kept] = page;
                kept += usize::from(page != previous);
                previous = page;
            }
        } else {
            if matches!(contexts, Contexts::One(_)) {
                pages.iter_mut().zip(piece).for_each(|(page, &vpn)| *page = vpn & Vpn::MASK);
            }
            kept = piece.len();
        }
        let pages = &mut pages[..kept];
        if kept < lru::WORTH_PACKING || regions.rename(pages).is_none() {
            break;
        }
        let out = levels.as_deref_mut().map(|levels| &mut levels[done..done + piece.len()]);
        let ran = if plain {
            lru::run(tlb, pages, pcid, kind, out, vector)
        } else {
            interned::run(tlb, pages, pcid, kind, out)
        };
        if ran.is_none() {
            break;
        }
        let dropped = (piece.len() - kept) as u64;
        let counters = tlb.counters_mut();
        counters.accesses += dropped;
        counters.hits[usize::from(near.unwrap_or(0))] += dropped;
        done += piece.len();
        counters.switches += switches;
        current = last;
    }
    regions.leave_all(tlb, pcid);
    if current != pcid {
        tlb.set_pcid(current);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::Preset;
    use crate::hw::array::splitmix64;
    use std::sync::Arc;

    #[test]
    fn pages_of_many_regions_leave_what_they_leave_one_by_one() {
        let mut passed = 0;
        for name in ["skylake-sp", "peers-64x4-1536x12"] {
            let preset = Preset::builtin(name).unwrap();
            let mut expected = Tlb::new(Arc::clone(&preset.geometry));
            let mut renamed = expected.clone();
            for (part, span, spread) in [(1, 60, 3), (2, 3_000, 3), (3, 30_000, 300), (4, 900, 1 << 20)] {
                let place = |draw: u64| splitmix64(77, draw % spread) & Vpn::MASK & !0xfff;
                let often = if part == 2 { 8 } else { 1 };
                let vpns: Vec<u64> = (0..70_000 + 8_192)
                    .map(|n| splitmix64(part, n / often))
                    .map(|draw| {
                        (place(draw >> 44)
                            + if draw.is_multiple_of(4) { draw >> 8 } else { draw >> 40 & 0x3ff } % span)
                            & Vpn::MASK
                    })
                    .collect();
                let pcid = Pcid(part as u16 % 3);
                let pcids: Vec<u16> = (0..vpns.len() as u64)
                    .map(|n| {
                        splitmix64(9, if part == 1 { n } else { n / 500 }) as u16
                            % [7, 120, 130][part as usize % 3]
                    })
                    .collect();
                for (kind, contexts) in [
                    (Kind::Load, Contexts::One(pcid)),
                    (Kind::Load, Contexts::Each(&pcids)),
                    (Kind::Fetch, Contexts::One(pcid)),
                ] {
                    let context = |i: usize| match contexts {
                        Contexts::One(pcid) => pcid,
                        Contexts::Each(pcids) => Pcid(pcids[i]),
                    };
                    let mut wanted = Vec::new();
                    for (i, &vpn) in vpns.iter().enumerate() {
                        expected.switch(context(i));
                        wanted.push(expected.access(Vpn(vpn), kind, PageSize::K4, false).level);
                    }
                    let before = renamed.clone();
                    for (with_levels, vectors) in [(true, true), (false, true), (true, false)] {
                        renamed = before.clone();
                        let mut levels = vec![9; vpns.len()];
                        let out = with_levels.then_some(&mut levels[..]);
                        let done = run(&mut renamed, &vpns, contexts, kind, out, vectors);
                        // Of repeats few are left.
                        let able = lru::fits(&renamed, kind) && spread < 1_000;
                        if able && part != 2 && matches!(contexts, Contexts::One(_)) {
                            assert_eq!(done, vpns.len(), "{name}, part {part}");
                        }
                        passed += usize::from(done > 0);
                        for (i, &vpn) in vpns.iter().enumerate().skip(done) {
                            renamed.switch(context(i));
                            levels[i] = renamed.access(Vpn(vpn), kind, PageSize::K4, false).level;
                        }
                        assert!(!with_levels || levels == wanted, "{name}, part {part}");
                        assert!(renamed == expected, "{name}, part {part}, vectors {vectors}");
                    }
                }
            }
        }
        assert!(passed > 20, "{passed}");
    }

    #[test]
    fn regions_of_real_shapes_leave_what_they_leave_one_by_one() {
        if !crate::hw::vectors::available() {
            return;
        }
        let mut passed = 0;
        for name in Preset::names() {
            let preset = Preset::builtin(name).unwrap();
            let mut expected = Tlb::new(Arc::clone(&preset.geometry));
            if lru::fits(&expected, Kind::Load) {
                continue;
            }
            let mut renamed = expected.clone();
            // What is there before: pages of another size, other contexts, some in the very regions.
            for n in 0..200 {
                expected.switch(Pcid(n as u16 % 9));
                let size = if n % 5 == 0 { PageSize::M2 } else { PageSize::K4 };
                expected.access(Vpn((splitmix64(5, n % 3) & Vpn::MASK) + 9 * n), Kind::Load, size, false);
            }
            renamed.clone_from(&expected);
            // So many places, contexts, and pages that repeat their predecessor.
            for (part, places, kinds, often) in [(1, 3, 1, 1), (2, 4, 3, 1), (3, 2, 5, 2), (4, 30, 2, 1)] {
                let vpns: Vec<u64> = (0..70_000 + 8_192)
                    .map(|n| splitmix64(part, n / often))
                    .map(|draw| {
                        let place = splitmix64(5, (draw >> 40) % places) & Vpn::MASK & !0xffff_ffff;
                        // A few pages often, many in a row of tables, some far in the region.
                        let page = match draw % 16 {
                            0 => draw >> 50 << 12,
                            1..5 => (draw >> 20) % 40_000,
                            _ => (draw >> 20) % 90,
                        };
                        place + page
                    })
                    .collect();
                let pcids: Vec<u16> =
                    (0..vpns.len() as u64).map(|n| (splitmix64(9, n / 20) % kinds) as u16).collect();
                for contexts in [Contexts::One(Pcid(part as u16)), Contexts::Each(&pcids)] {
                    let context = |i: usize| match contexts {
                        Contexts::One(pcid) => pcid,
                        Contexts::Each(pcids) => Pcid(pcids[i]),
                    };
                    let mut wanted = Vec::new();
                    for (i, &vpn) in vpns.iter().enumerate() {
                        expected.switch(context(i));
                        wanted.push(expected.access(Vpn(vpn), Kind::Load, PageSize::K4, false).level);
                    }
                    let before = renamed.clone();
                    for with_levels in [true, false] {
                        renamed = before.clone();
                        let mut levels = vec![9; vpns.len()];
                        let out = with_levels.then_some(&mut levels[..]);
                        let done = run(&mut renamed, &vpns, contexts, Kind::Load, out, true);
                        if part == 1 && interned::fits(&renamed) && matches!(contexts, Contexts::One(_)) {
                            assert_eq!(done, vpns.len(), "{name}, part {part}");
                        }
                        passed += usize::from(done > 0);
                        for (i, &vpn) in vpns.iter().enumerate().skip(done) {
                            renamed.switch(context(i));
                            levels[i] = renamed.access(Vpn(vpn), Kind::Load, PageSize::K4, false).level;
                        }
                        assert!(!with_levels || levels == wanted, "{name}, part {part}");
                        assert!(renamed == expected, "{name}, part {part}");
                    }
                }
            }
        }
        assert!(passed > 100, "{passed}");
    }

    #[test]
    fn regions_get_numbers_until_there_are_none_left() {
        let mut regions = Regions::new(18);
        let pages: Vec<u64> = (0..1 << 13).map(|n| (splitmix64(1, n) & Vpn::MASK) >> 18 << 18 | n).collect();
        let mut out = pages.clone();
        regions.rename(&mut out).unwrap();
        assert!(out.iter().all(|page| page >> BITS == 0));
        let back = |page: u64| regions.numbered[(page >> 18) as usize] << 18 | page & 0x3_ffff;
        assert!(out.iter().zip(&pages).all(|(&out, &page)| back(out) == page));
        let left = (1 << 13) - regions.numbered.len() as u64;
        let mut more: Vec<u64> = (0..=left).map(|n| (1 << 44) - 1 - (n << 18)).collect();
        assert!(regions.rename(&mut more).is_none());
    }
}
