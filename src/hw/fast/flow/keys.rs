//! The accesses of a call as keys: page, size and context in one word.

use super::super::avx2;
use super::super::stream::{BATCH, Before};
use crate::hw::array::Entry;
use crate::hw::{Contexts, PageSize, Pcid, Vpn};

/// Puts the keys of accesses to pages of `size` to `keys` from `kept` on, with `fresh` only those that differ from the one
/// before; returns where they end. They must fit.
pub(super) fn gather(
    before: &mut Before,
    keys: &mut [u64; BATCH],
    mut kept: usize,
    vpns: &[u64],
    contexts: Contexts<'_>,
    (size, fresh, vector): (PageSize, bool, bool),
) -> usize {
    assert!(kept + vpns.len() <= BATCH);
    let mut at = 0;
    if vector && size == PageSize::K4 {
        (at, kept) = avx2::keys(keys, kept, vpns, contexts, fresh, before);
    }
    for i in at..vpns.len() {
        let pcid = match contexts {
            Contexts::One(pcid) => pcid,
            Contexts::Each(pcids) => Pcid(pcids[i] & Pcid::MAX),
        };
        let key = Entry::new((vpns[i] & Vpn::MASK) >> size.shift(), size, pcid, false).0;
        keys[kept] = key;
        kept += usize::from(!fresh || key != before.key);
        before.switches += u64::from((key ^ before.key) & Entry::PCID_FIELD != 0);
        before.pages = before.pages.with(vpns[i]);
        before.key = key;
    }
    kept
}
