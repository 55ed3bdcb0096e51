//! Sets whose replacement is direction bits.

use super::lanes::{ONE, lanes8};
use crate::hw::array::{MRU_SHIFT, follow, point_away};
use crate::hw::fast::rows::Packed;
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;

/// What a use of each way does to the direction bits: those to clear and those to set.
pub(super) const fn uses<const WAYS: usize, const GROUPS: usize>() -> [(u64, u64); WAYS] {
    let mut table = [(0, 0); WAYS];
    let size = (WAYS / GROUPS) as u32;
    let mut way = 0;
    while way < WAYS {
        let group = way as u32 / size;
        let inside = way as u32 % size;
        let from_none = point_away(0, group * size, size, inside);
        let from_all = point_away(u64::MAX, group * size, size, inside);
        let mru = if GROUPS > 1 { 0xff << MRU_SHIFT } else { 0 };
        table[way] = (from_all & !mru, from_none | if GROUPS > 1 { (group as u64) << MRU_SHIFT } else { 0 });
        way += 1;
    }
    table
}

/// The victim of a tree by its direction bits.
pub(super) const VICTIM4: [u8; 16] = {
    let mut table = [0; 16];
    let mut bits = 0;
    while bits < 16 {
        table[bits as usize] = follow(bits, 0, 4) as u8;
        bits += 1;
    }
    table
};

/// The victim of a tree of eight ways by its direction bits.
pub(super) const VICTIM8: [u8; 256] = {
    let mut table = [0; 256];
    let mut bits = 0;
    while bits < 256 {
        table[bits as usize] = follow(bits, 0, 8) as u8;
        bits += 1;
    }
    table
};

/// One batch through trees of direction bits: `WAYS` ways in `GROUPS` trees.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn tree_pass<const WAYS: usize, const GROUPS: usize>(
    packed: &mut Packed,
    tree: &mut [u64],
    fold: u32,
    ids: &mut [u32],
    numbers: &mut [u32],
) -> usize {
    assert!(packed.ways == WAYS && packed.sets == tree.len() && tree.len().is_power_of_two());
    // SAFETY: as the caller's, and the lengths fit.
    unsafe {
        if !packed.full {
            packed.full = packed.is_full();
        }
        match (packed.full, numbers.is_empty()) {
            (false, _) => trees::<WAYS, GROUPS, false, true>(packed, tree, fold, ids, numbers),
            (true, false) => trees::<WAYS, GROUPS, true, true>(packed, tree, fold, ids, numbers),
            (true, true) => trees::<WAYS, GROUPS, true, false>(packed, tree, fold, ids, numbers),
        }
    }
}

/// `FULL`: no way is empty. `NUMBERS`: those of the misses are wanted, if there are any.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn trees<const WAYS: usize, const GROUPS: usize, const FULL: bool, const NUMBERS: bool>(
    packed: &mut Packed,
    tree: &mut [u64],
    fold: u32,
    ids: &mut [u32],
    numbers: &mut [u32],
) -> usize {
    let table = const { uses::<WAYS, GROUPS>() };
    let mask = tree.len() - 1;
    let rows = packed.rows.as_mut_ptr().cast::<u32>();
    // Without folding nothing is mixed in: no page has bit 31.
    let fold = if fold == 0 { 31 } else { fold };
    let mut missed = 0;
    for i in 0..ids.len() {
        // SAFETY: the set is below the number of sets, the way below `WAYS`; `missed <= i`.
        unsafe {
            let id = *ids.get_unchecked(i);
            let set = (id ^ id >> fold) as usize & mask;
            let row = rows.add(set * WAYS.next_power_of_two());
            let bits = *tree.get_unchecked(set);
            let key = _mm256_set1_epi32(id.cast_signed());
            let short = _mm256_castsi256_si128(key);
            let empty = _mm256_set1_epi32(-1);
            let found4 =
                |ways, key| _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(ways, key))).cast_unsigned();
            let (head, tail);
            let (hit, free);
            match WAYS {
                4 => {
                    head = empty;
                    tail = _mm_load_si128(row.cast());
                    hit = found4(tail, short);
                    free = found4(tail, _mm256_castsi256_si128(empty));
                }
                8 => {
                    head = _mm256_load_si256(row.cast());
                    tail = short;
                    hit = lanes8(_mm256_cmpeq_epi32(head, key));
                    free = lanes8(_mm256_cmpeq_epi32(head, empty));
                }
                _ => {
                    head = _mm256_load_si256(row.cast());
                    tail = _mm_load_si128(row.add(8).cast());
                    hit = lanes8(_mm256_cmpeq_epi32(head, key)) | found4(tail, short) << 8;
                    free = lanes8(_mm256_cmpeq_epi32(head, empty))
                        | found4(tail, _mm256_castsi256_si128(empty)) << 8;
                }
            }
            let victim = if GROUPS == 1 {
                let bits = bits as usize;
                usize::from(if WAYS == 4 { VICTIM4[bits & 0xf] } else { VICTIM8[bits & 0xff] })
            } else {
                let recent = (bits >> MRU_SHIFT) as usize;
                let next = if recent + 1 == GROUPS { 0 } else { 4 * (recent + 1) };
                next + usize::from(VICTIM4[(bits >> next) as usize & 0xf])
            };
            let wanted = if FULL || hit != 0 { hit } else { free };
            let way = if wanted == 0 { victim } else { wanted.trailing_zeros() as usize };
            // Whole vectors are written, as they were read: a load finds the store before it.
            let one = ONE.as_ptr().add(16 - way);
            match WAYS {
                4 => {
                    let mask = _mm_loadu_si128(one.cast());
                    _mm_store_si128(row.cast(), _mm_blendv_epi8(tail, short, mask));
                }
                8 => {
                    let mask = _mm256_loadu_si256(one.cast());
                    _mm256_store_si256(row.cast(), _mm256_blendv_epi8(head, key, mask));
                }
                _ => {
                    let mask = _mm256_loadu_si256(one.cast());
                    _mm256_store_si256(row.cast(), _mm256_blendv_epi8(head, key, mask));
                    let mask = _mm_loadu_si128(one.add(8).cast());
                    _mm_store_si128(row.add(8).cast(), _mm_blendv_epi8(tail, short, mask));
                }
            }
            let (keep, set_bits) = *table.get_unchecked(way);
            *tree.get_unchecked_mut(set) = bits & keep | set_bits;
            *ids.get_unchecked_mut(missed) = id;
            if NUMBERS && !numbers.is_empty() {
                numbers[missed] = numbers[i];
            }
            missed += usize::from(hit == 0);
        }
    }
    missed
}
