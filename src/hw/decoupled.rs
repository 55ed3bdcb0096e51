//! Real shapes, faster: any replacement and index, one context, 4 KiB pages, level after level in batches.
//!
//! A level never feeds back into the one before it, unless it is inclusive or its entry is of another kind than the
//! walk would make (global, stale). Where neither is so, a batch of pages passes the first level, its misses the next,
//! and what is left walks; each of these loops is short and predicts well. State and counters are those of
//! [`Tlb::access`], access by access.

use super::array::{Array, Entry};
use super::plain::BATCH;
use super::tlb::Tlb;
use super::{Kind, PageSize, Pcid, Vpn};

/// Shorter calls do not pay for looking whether the shape fits.
const WORTH_LOOKING: usize = 1024;

/// Runs `vpns`, all valid, in context `pcid`, which is loaded. `None`: not such a case; nothing has changed.
pub(super) fn run(
    tlb: &mut Tlb,
    vpns: &[u64],
    pcid: Pcid,
    kind: Kind,
    mut levels: Option<&mut [u8]>,
) -> Option<()> {
    let inclusive = tlb.geometry().levels().iter().any(|level| level.inclusive);
    let special = |array: &Array| array.keys().iter().any(|entry| entry.is_global());
    if vpns.len() < WORTH_LOOKING || inclusive || tlb.holds_stale() || tlb.arrays().iter().any(special) {
        return None;
    }
    let walk = tlb.levels();
    let mut pages = [(0_u64, 0_u32); BATCH];
    for (number, batch) in vpns.chunks(BATCH).enumerate() {
        for (i, (slot, &vpn)) in pages.iter_mut().zip(batch).enumerate() {
            *slot = (vpn & Vpn::MASK, i as u32);
        }
        let start = number * BATCH;
        let mut left = batch.len();
        for level in 0..walk {
            let Some(taken) = pass(tlb, usize::from(level), kind, pcid, &mut pages[..left], |i| {
                if let Some(levels) = levels.as_deref_mut() {
                    levels[start + i as usize] = level;
                }
            }) else {
                continue;
            };
            tlb.counters_mut().hits[usize::from(level)] += (left - taken) as u64;
            left = taken;
        }
        let counters = tlb.counters_mut();
        counters.accesses += batch.len() as u64;
        counters.walks += left as u64;
        for &(page, i) in &pages[..left] {
            tlb.walk(Vpn(page), PageSize::K4);
            if let Some(levels) = levels.as_deref_mut() {
                levels[start + i as usize] = walk;
            }
        }
    }
    Some(())
}

/// One batch through one level; misses move to the front of `pages`. `None` if the level holds no such pages.
#[inline]
fn pass(
    tlb: &mut Tlb,
    level: usize,
    kind: Kind,
    pcid: Pcid,
    pages: &mut [(u64, u32)],
    mut hit: impl FnMut(u32),
) -> Option<usize> {
    let (arrays_of, banks, shift) = tlb.banks(level, PageSize::K4, kind)?;
    let context = Entry::new(0, PageSize::K4, pcid, false).0;
    let mut missed = 0;
    let arrays = tlb.arrays_mut();
    for i in 0..pages.len() {
        let (page, number) = pages[i];
        let bank = if banks == 1 { 0 } else { (page >> shift) as usize % banks };
        let array = &mut arrays[usize::from(arrays_of[bank])];
        let set = array.set_of(page);
        if array.step(set, Entry(context | page)) {
            hit(number);
        } else {
            pages[missed] = (page, number);
            missed += 1;
        }
    }
    Some(missed)
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
                    let mut levels = vec![9; vpns.len()];
                    run(&mut batched, &vpns, pcid, kind, Some(&mut levels)).unwrap();
                    assert!(levels == wanted, "{name}");
                    assert!(batched == expected, "{name}");
                }
            }
        }
    }
}
