//! Real shapes, faster: any replacement and index, one context, 4 KiB pages, level after level in batches.
//!
//! A level never feeds back into the one before it, unless it is inclusive or its entry is of another kind than the
//! walk would make (global, stale). Where neither is so, a batch of pages passes the first level, its misses the next,
//! and what is left walks; each of these loops is short and predicts well. State and counters are those of
//! [`Tlb::access`], access by access.

use super::interned;
use super::rows::BATCH;
use crate::hw::array::{Array, Entry};
use crate::hw::tlb::Tlb;
use crate::hw::{Kind, PageSize, Pcid, Vpn};

/// Shorter calls do not pay for looking whether the shape fits.
const WORTH_LOOKING: usize = 1024;

/// Runs `vpns`, all valid, in context `pcid`, which is loaded, with vectors if `vector`. `None`: not such a case; nothing
/// has changed.
pub(in crate::hw) fn run(
    tlb: &mut Tlb,
    vpns: &[u64],
    pcid: Pcid,
    kind: Kind,
    mut levels: Option<&mut [u8]>,
    vector: bool,
) -> Option<()> {
    let inclusive = tlb.geometry().levels().iter().any(|level| level.inclusive);
    let special = |array: &Array| array.keys().iter().any(|entry| entry.is_global());
    if vpns.len() < WORTH_LOOKING || inclusive || tlb.holds_stale() || tlb.arrays().iter().any(special) {
        return None;
    }
    if vector && interned::run(tlb, vpns, pcid, kind, levels.as_deref_mut()).is_some() {
        return Some(());
    }
    wide(tlb, vpns, pcid, kind, levels);
    Some(())
}

/// Without vectors, for pages anywhere.
fn wide(tlb: &mut Tlb, vpns: &[u64], pcid: Pcid, kind: Kind, mut levels: Option<&mut [u8]>) {
    let walk = tlb.levels();
    let context = Entry::new(0, PageSize::K4, pcid, false).0;
    let mut pages = [0_u64; BATCH];
    let mut numbers = [0_u32; BATCH];
    for (number, batch) in vpns.chunks(BATCH).enumerate() {
        for (i, &vpn) in batch.iter().enumerate() {
            pages[i] = vpn & Vpn::MASK;
            numbers[i] = i as u32;
        }
        let start = number * BATCH;
        let mut left = batch.len();
        for level in 0..walk {
            let Some((arrays_of, banks, shift)) = tlb.banks(usize::from(level), PageSize::K4, kind) else {
                continue;
            };
            if let Some(levels) = levels.as_deref_mut() {
                numbers[..left].iter().for_each(|&i| levels[start + i as usize] = level);
            }
            let (pages, numbers) = (&mut pages[..left], &mut numbers[..left]);
            let arrays = tlb.arrays_mut();
            let missed = if banks == 1 {
                arrays[usize::from(arrays_of[0])].pass(context, pages, numbers)
            } else {
                pass_banks(arrays, &arrays_of[..banks], shift, context, pages, numbers)
            };
            tlb.counters_mut().hits[usize::from(level)] += (left - missed) as u64;
            left = missed;
        }
        let counters = tlb.counters_mut();
        counters.accesses += batch.len() as u64;
        counters.walks += left as u64;
        if let Some(levels) = levels.as_deref_mut() {
            numbers[..left].iter().for_each(|&i| levels[start + i as usize] = walk);
        }
        walks(tlb, context, &mut pages[..left], &mut numbers[..left]);
    }
}

/// Walks for 4 KiB pages. A walk begins at the deepest cached entry and fills what is below, so each
/// paging-structure cache sees what the one below it missed, as the levels of the TLB do.
fn walks(tlb: &mut Tlb, context: u64, pages: &mut [u64], numbers: &mut [u32]) {
    let mut left = pages.len();
    let mut loads = 0;
    let mut hits = [0; 4];
    for (level, psc) in tlb.psc_mut().iter_mut().enumerate() {
        pages[..left].iter_mut().for_each(|page| *page >>= 9);
        loads += left as u64;
        if psc.ways() > 0 {
            let missed = psc.pass(context, &mut pages[..left], &mut numbers[..left]);
            hits[level] += (left - missed) as u64;
            left = missed;
        }
    }
    let counters = tlb.counters_mut();
    counters.walk_loads += loads + left as u64;
    for (sum, more) in counters.psc_hits.iter_mut().zip(hits) {
        *sum += more;
    }
}

/// One batch through several arrays that share the pages: each takes its own, and the misses are put back in order.
fn pass_banks(
    arrays: &mut [Array],
    banks: &[u8],
    shift: u8,
    context: u64,
    pages: &mut [u64],
    numbers: &mut [u32],
) -> usize {
    let mut missed = [false; BATCH];
    let (mut own, mut places) = ([0_u64; BATCH], [0_u32; BATCH]);
    for (bank, &array) in banks.iter().enumerate() {
        let mut taken = 0;
        for (place, &page) in pages.iter().enumerate() {
            own[taken] = page;
            places[taken] = place as u32;
            taken += usize::from((page >> shift) as usize % banks.len() == bank);
        }
        let left = arrays[usize::from(array)].pass(context, &mut own[..taken], &mut places[..taken]);
        places[..left].iter().for_each(|&place| missed[place as usize] = true);
    }
    let mut left = 0;
    for place in 0..pages.len() {
        (pages[left], numbers[left]) = (pages[place], numbers[place]);
        left += usize::from(missed[place]);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::Preset;
    use crate::hw::array::splitmix64;
    use std::sync::Arc;

    #[test]
    fn level_after_level_is_the_same_as_access_after_access() {
        for name in Preset::names() {
            let preset = Preset::builtin(name).unwrap();
            let mut expected = Tlb::new(Arc::clone(&preset.geometry));
            let mut batched = expected.clone();
            for (part, pages) in [(1, 60), (2, 3_000), (3, 90_000)] {
                let vpns: Vec<u64> = (0..5_000)
                    .map(|n| splitmix64(part, n))
                    .map(|draw| {
                        0x7_f000_0000 + if draw % 4 == 0 { draw >> 8 } else { draw >> 40 & 0x3ff } % pages
                    })
                    .collect();
                let pcid = Pcid(if preset.features.pcid { part as u16 } else { 0 });
                for kind in [Kind::Load, Kind::Fetch] {
                    expected.switch(pcid);
                    batched.switch(pcid);
                    let access = |&vpn: &u64| expected.access(Vpn(vpn), kind, PageSize::K4, false).level;
                    let wanted: Vec<u8> = vpns.iter().map(access).collect();
                    let before = batched.clone();
                    for (with_levels, vectors) in [(true, true), (false, true), (true, false)] {
                        batched = before.clone();
                        let mut levels = vec![9; vpns.len()];
                        let out = with_levels.then_some(&mut levels[..]);
                        run(&mut batched, &vpns, pcid, kind, out, vectors).unwrap();
                        assert!(!with_levels || levels == wanted, "{name}");
                        assert!(batched == expected, "{name}, levels {with_levels}, vectors {vectors}");
                    }
                }
            }
        }
    }

    #[test]
    fn pages_far_apart_pass_without_vectors_and_are_the_same() {
        let preset = Preset::builtin("skylake-sp").unwrap();
        let mut expected = Tlb::new(Arc::clone(&preset.geometry));
        let mut batched = expected.clone();
        let vpns: Vec<u64> = (0..6_000)
            .map(|n| splitmix64(5, n))
            .map(|draw| draw % 3_000 + if draw >> 63 == 0 { 0x7_f000_0000 } else { 0x1f_ffff_8000_0000 })
            .map(|vpn| vpn & Vpn::MASK)
            .collect();
        expected.switch(Pcid(1));
        batched.switch(Pcid(1));
        for &vpn in &vpns {
            expected.access(Vpn(vpn), Kind::Load, PageSize::K4, false);
        }
        assert!(interned::run(&mut batched.clone(), &vpns, Pcid(1), Kind::Load, None).is_none());
        run(&mut batched, &vpns, Pcid(1), Kind::Load, None, true).unwrap();
        assert!(batched == expected);
    }
}
