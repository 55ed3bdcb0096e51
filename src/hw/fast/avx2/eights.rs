//! [`super::wide`] for CPUs with AVX-512: eight ways a vector. A comparison gives a mask of ways at once, and one instruction
//! moves those of them that move, so a set of eight ways takes six instructions. Fully associative orders stay in registers.

use super::trees::{VICTIM4, VICTIM8, uses};
use super::wide::{Banks, keep};
use crate::hw::addr::Together;
use crate::hw::array::{Entry, MRU_SHIFT, Parts, follow};
use crate::hw::fast::stream::{BATCH, Before, Stream};
use crate::hw::{PageSize, Pcid, Vpn};
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;
use std::ops::Range;

/// Most ways of an order that [`single`] keeps in registers.
pub(super) const MOST: usize = 96;

/// The ways that move when the lowest of `found` becomes the newest: it and those before it, or all.
#[inline]
fn moves(found: u32) -> u32 {
    found ^ found.wrapping_sub(1)
}

/// Writes a whole vector. Where what stays and what is new are chosen by a mask, the compiler would write under that mask
/// instead, and the next load of the set could not be answered by that store: it would wait until it has left the core.
macro_rules! store_whole {
    ($store:ident, $class:ident, $at:expr, $value:expr) => {{
        let mut value = $value;
        std::arch::asm!("/* {0} */", inout($class) value, options(pure, nomem, nostack, preserves_flags));
        $store($at.cast(), value);
    }};
}

/// As [`super::wide::recency`].
#[inline]
#[allow(clippy::needless_range_loop)] // a constant number of registers
#[target_feature(enable = "avx512f,avx512vl,avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn recency<const WAYS: usize, const BANKS: bool, const OTHERS: bool>(
    mut banks: Banks<'_>,
    stream: &mut Stream,
    range: Range<usize>,
    mut missed: usize,
) -> usize {
    let Banks { one: Parts { keys, fold, .. }, .. } = &mut banks;
    assert!(WAYS <= 32 && WAYS.is_multiple_of(2) && missed <= range.start && range.end <= stream.keys.len());
    assert!(keys.len().is_multiple_of(WAYS) && (keys.len() / WAYS).is_power_of_two());
    let (mask, fold) = (keys.len() / WAYS - 1, *fold);
    let mut rows = [keys.as_mut_ptr().cast::<u64>(); 2];
    let mut bits = [0; 2];
    if let Some((other, _)) = &mut banks.two {
        assert!(other.keys.len() == (mask + 1) * WAYS);
        rows[1] = other.keys.as_mut_ptr().cast();
    }
    let shift = banks.two.as_ref().map_or(0, |(_, shift)| *shift);
    // Whole vectors, then four ways, then two; no part of one under a mask, for the reason at `store_whole`.
    let (whole, four_at, two_at) = (WAYS / 8, WAYS / 8 * 8, WAYS / 4 * 4);
    let (fours, twos) = (four_at < two_at, two_at < WAYS);
    let mut crossed = 0;
    for i in range {
        // SAFETY: the set is below the number of sets, so its ways are in `keys`, and all that is read and written there is
        // `WAYS` words from its beginning; `i` is below the end of the stream, `missed <= i`.
        unsafe {
            let word = *stream.keys.get_unchecked(i);
            let set = (word ^ word >> fold) as usize & mask;
            let bank = if BANKS { (word >> shift) as usize & 1 } else { 0 };
            let row = rows[bank].add(set * WAYS);
            let key = _mm512_set1_epi64(word.cast_signed());
            let (key4, key2) = (_mm512_castsi512_si256(key), _mm512_castsi512_si128(key));
            let mut old = [key; 4];
            let mut found = 0;
            for v in 0..whole {
                old[v] = _mm512_loadu_si512(row.add(8 * v).cast());
                found |= u32::from(_mm512_cmpeq_epi64_mask(old[v], key)) << (8 * v);
            }
            let four = if fours { _mm256_loadu_si256(row.add(four_at).cast()) } else { key4 };
            if fours {
                found |= u32::from(_mm256_cmpeq_epi64_mask(four, key4)) << four_at;
            }
            let two = if twos { _mm_loadu_si128(row.add(two_at).cast()) } else { key2 };
            if twos {
                found |= u32::from(_mm_cmpeq_epi64_mask(two, key2)) << two_at;
            }
            if OTHERS {
                let other = _mm512_set1_epi64(stream.others.get_unchecked(i).cast_signed());
                for v in 0..whole {
                    crossed |= _mm512_cmpeq_epi64_mask(old[v], other);
                }
                if fours {
                    crossed |= _mm256_cmpeq_epi64_mask(four, _mm512_castsi512_si256(other));
                }
                if twos {
                    crossed |= _mm_cmpeq_epi64_mask(two, _mm512_castsi512_si128(other));
                }
            }
            // On a miss all ways move, the last one out.
            let moves = moves(found);
            let mut before = key;
            for v in 0..whole {
                let up = (moves >> (8 * v)) as u8;
                let new = _mm512_mask_alignr_epi64::<7>(old[v], up, old[v], before);
                store_whole!(_mm512_storeu_si512, zmm_reg, row.add(8 * v), new);
                before = old[v];
            }
            let mut before = if whole > 0 { _mm512_extracti64x4_epi64::<1>(before) } else { key4 };
            if fours {
                let up = (moves >> four_at) as u8;
                let new = _mm256_mask_alignr_epi64::<3>(four, up, four, before);
                store_whole!(_mm256_storeu_si256, ymm_reg, row.add(four_at), new);
                before = four;
            }
            if twos {
                let before = if WAYS > 2 { _mm256_extracti128_si256::<1>(before) } else { key2 };
                let new = _mm_mask_alignr_epi64::<1>(two, (moves >> two_at) as u8, two, before);
                store_whole!(_mm_storeu_si128, xmm_reg, row.add(two_at), new);
            }
            bits[bank] |= 1 << (set % 64);
            missed = keep::<OTHERS>(stream, i, missed, found == 0);
        }
    }
    banks.one.filled.enter(bits[0]);
    if let Some((other, _)) = banks.two {
        other.filled.enter(bits[1]);
    }
    stream.crossed |= crossed != 0;
    missed
}

/// As [`recency`], in an array of one set, whose order stays in `VECTORS` registers or fewer. Every access waits for the one before
/// it there, so what it would wait for is predicted where that mostly can be: that it misses, or is the newest already.
#[inline]
#[allow(clippy::needless_range_loop)] // a constant number of registers
#[target_feature(enable = "avx512f,avx512vl,avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn single<const VECTORS: usize, const OTHERS: bool>(
    array: Parts<'_>,
    stream: &mut Stream,
    range: Range<usize>,
    mut missed: usize,
) -> usize {
    let Parts { keys, filled, .. } = array;
    assert!(missed <= range.start && range.end <= stream.keys.len());
    assert!(VECTORS <= 16 && keys.len() <= 8 * VECTORS);
    // The lanes that are ways; what the others hold has left.
    let ways: [u8; VECTORS] =
        std::array::from_fn(|v| ((1_u16 << keys.len().saturating_sub(8 * v).min(8)) - 1) as u8);
    let lanes = |v: usize| ways[v];
    let mut order = [_mm512_setzero_si512(); VECTORS];
    // SAFETY: read and written under a mask of what `keys` has; `i` is below the end of the stream, `missed <= i`.
    unsafe {
        for v in 0..VECTORS {
            order[v] = _mm512_maskz_loadu_epi64(lanes(v), keys.as_ptr().add(8 * v).cast());
        }
        let mut crossed = 0;
        for i in range {
            let key = _mm512_set1_epi64(stream.keys.get_unchecked(i).cast_signed());
            let mut found = [0_u64; 2];
            for v in 0..VECTORS {
                let here = _mm512_cmpeq_epi64_mask(order[v], key) & lanes(v);
                found[v / 8] |= u64::from(here) << (v % 8 * 8);
            }
            if OTHERS {
                let other = _mm512_set1_epi64(stream.others.get_unchecked(i).cast_signed());
                for v in 0..VECTORS {
                    crossed |= _mm512_cmpeq_epi64_mask(order[v], other) & lanes(v);
                }
            }
            if found == [0, 0] {
                for v in (1..VECTORS).rev() {
                    order[v] = _mm512_alignr_epi64::<7>(order[v], order[v - 1]);
                }
                order[0] = _mm512_alignr_epi64::<7>(order[0], key);
            } else if found[0] & 1 == 0 {
                let near = found[0] ^ found[0].wrapping_sub(1);
                let far = if found[0] == 0 { found[1] ^ found[1].wrapping_sub(1) } else { 0 };
                let mut before = key;
                for v in 0..VECTORS {
                    let up = (if v < 8 { near } else { far } >> (v % 8 * 8)) as u8;
                    let old = order[v];
                    order[v] = _mm512_mask_alignr_epi64::<7>(old, up, old, before);
                    before = old;
                }
            }
            missed = keep::<OTHERS>(stream, i, missed, found == [0, 0]);
        }
        for v in 0..VECTORS {
            _mm512_mask_storeu_epi64(keys.as_mut_ptr().add(8 * v).cast(), lanes(v), order[v]);
        }
        stream.crossed |= crossed != 0;
    }
    filled.enter(1);
    missed
}

/// The keys of accesses to 4 KiB pages, eight at a time, to `keys` from `kept` on; with `FRESH` those that differ from the one
/// before. Returns how many accesses these were, whole vectors, and where the keys end.
#[target_feature(enable = "avx512f,avx512vl,avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn keys<const EACH: bool, const FRESH: bool>(
    keys: &mut [u64; BATCH],
    mut kept: usize,
    vpns: &[u64],
    (context, pcids): (Pcid, &[u16]),
    before: &mut Before,
) -> (usize, usize) {
    assert!(kept + vpns.len() <= BATCH && (!EACH || pcids.len() == vpns.len()));
    let pages = _mm512_set1_epi64(Vpn::MASK.cast_signed());
    let field = _mm512_set1_epi64(Entry::PCID_FIELD.cast_signed());
    let mut own = _mm512_set1_epi64(Entry::new(0, PageSize::K4, context, false).0.cast_signed());
    let mut last = _mm512_set1_epi64(before.key.cast_signed());
    let half = _mm512_set1_epi64(Together::HALF.cast_signed());
    let looked_at = _mm512_set1_epi64(Together::LOOKED_AT.cast_signed());
    let (mut all, mut moved) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let (eights, _) = vpns.as_chunks::<8>();
    for (number, eight) in eights.iter().enumerate() {
        // SAFETY: `eight` is 8 pages, and there are as many contexts. Of each eight before at most 8 keys are kept, so that
        // `kept + 8` is at most where they all would end.
        unsafe {
            if EACH {
                let eight = _mm_loadu_si128(pcids.as_ptr().add(8 * number).cast());
                let words = _mm512_slli_epi64::<{ Entry::PCID_SHIFT }>(_mm512_cvtepu16_epi64(eight));
                own = _mm512_or_si512(
                    _mm512_and_si512(words, field),
                    _mm512_set1_epi64(Entry::VALID.cast_signed()),
                );
            }
            let given = _mm512_loadu_si512(eight.as_ptr().cast());
            all = _mm512_or_si512(all, given);
            moved = _mm512_or_si512(moved, _mm512_and_si512(_mm512_add_epi64(given, half), looked_at));
            let key = _mm512_or_si512(_mm512_and_si512(given, pages), own);
            let previous = _mm512_alignr_epi64::<7>(key, last);
            last = key;
            if EACH {
                let changed = _mm512_test_epi64_mask(_mm512_xor_si512(key, previous), field);
                before.switches += u64::from(changed.count_ones());
            }
            let to = keys.as_mut_ptr().add(kept).cast();
            if FRESH {
                let fresh = _mm512_cmpneq_epi64_mask(key, previous);
                _mm512_storeu_si512(to, _mm512_maskz_compress_epi64(fresh, key));
                kept += fresh.count_ones() as usize;
            } else {
                _mm512_storeu_si512(to, key);
                kept += 8;
            }
        }
    }
    let mut words = [0_u64; 8];
    // SAFETY: 8 words of our own.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), last) };
    before.key = words[7];
    let (all, moved) = (_mm512_reduce_or_epi64(all), _mm512_reduce_or_epi64(moved));
    before.pages = before.pages.with_those(all.cast_unsigned(), moved.cast_unsigned());
    (8 * eights.len(), kept)
}

/// As [`super::wide::trees`].
#[inline]
#[allow(clippy::needless_range_loop)] // a constant number of registers
#[target_feature(enable = "avx512f,avx512vl,avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn trees<const WAYS: usize, const GROUPS: usize, const BANKS: bool, const OTHERS: bool>(
    mut banks: Banks<'_>,
    stream: &mut Stream,
    range: Range<usize>,
    mut missed: usize,
) -> usize {
    let Banks { one: Parts { keys, tree, fold, .. }, .. } = &mut banks;
    assert!(WAYS <= 16 && WAYS.is_multiple_of(4));
    assert!(missed <= range.start && range.end <= stream.keys.len());
    assert!(keys.len() == WAYS * tree.len() && tree.len().is_power_of_two());
    let table = const { uses::<WAYS, GROUPS>() };
    let (mask, fold) = (tree.len() - 1, *fold);
    let mut rows = [keys.as_mut_ptr().cast::<u64>(); 2];
    let mut trees = [tree.as_mut_ptr(); 2];
    let mut bits = [0; 2];
    if let Some((other, _)) = &mut banks.two {
        assert!(other.keys.len() == (mask + 1) * WAYS && other.tree.len() == mask + 1);
        rows[1] = other.keys.as_mut_ptr().cast();
        trees[1] = other.tree.as_mut_ptr();
    }
    let shift = banks.two.as_ref().map_or(0, |(_, shift)| *shift);
    let (whole, four_at) = (WAYS / 8, WAYS / 8 * 8);
    let fours = four_at < WAYS;
    let mut crossed = 0;
    for i in range {
        // SAFETY: as in `recency`; the way is below `WAYS`.
        unsafe {
            let word = *stream.keys.get_unchecked(i);
            let set = (word ^ word >> fold) as usize & mask;
            let bank = if BANKS { (word >> shift) as usize & 1 } else { 0 };
            let row = rows[bank].add(set * WAYS);
            let tree = trees[bank].add(set);
            let directions = *tree;
            let key = _mm512_set1_epi64(word.cast_signed());
            let key4 = _mm512_castsi512_si256(key);
            let mut old = [key; 2];
            let (mut hit, mut free) = (0, 0);
            for v in 0..whole {
                old[v] = _mm512_loadu_si512(row.add(8 * v).cast());
                hit |= u32::from(_mm512_cmpeq_epi64_mask(old[v], key)) << (8 * v);
                free |= u32::from(_mm512_testn_epi64_mask(old[v], old[v])) << (8 * v);
            }
            let four = if fours { _mm256_loadu_si256(row.add(four_at).cast()) } else { key4 };
            if fours {
                hit |= u32::from(_mm256_cmpeq_epi64_mask(four, key4)) << four_at;
                free |= u32::from(_mm256_testn_epi64_mask(four, four)) << four_at;
            }
            if OTHERS {
                let other = _mm512_set1_epi64(stream.others.get_unchecked(i).cast_signed());
                for v in 0..whole {
                    crossed |= _mm512_cmpeq_epi64_mask(old[v], other);
                }
                if fours {
                    crossed |= _mm256_cmpeq_epi64_mask(four, _mm512_castsi512_si256(other));
                }
            }
            let victim = if GROUPS > 1 {
                let recent = (directions >> MRU_SHIFT) as usize;
                let next = if recent + 1 == GROUPS { 0 } else { 4 * (recent + 1) };
                next + usize::from(VICTIM4[(directions >> next) as usize & 0xf])
            } else {
                match WAYS {
                    4 => usize::from(VICTIM4[directions as usize & 0xf]),
                    8 => usize::from(VICTIM8[directions as usize & 0xff]),
                    _ => follow(directions, 0, WAYS as u32) as usize,
                }
            };
            let wanted = if hit == 0 { free } else { hit };
            let way = if wanted == 0 { victim } else { wanted.trailing_zeros() as usize };
            // Whole vectors are written, as they were read: a load finds the store before it.
            let here = 1_u32 << way;
            for v in 0..whole {
                let new = _mm512_mask_blend_epi64((here >> (8 * v)) as u8, old[v], key);
                store_whole!(_mm512_storeu_si512, zmm_reg, row.add(8 * v), new);
            }
            if fours {
                let new = _mm256_mask_blend_epi64((here >> four_at) as u8, four, key4);
                store_whole!(_mm256_storeu_si256, ymm_reg, row.add(four_at), new);
            }
            let (keep_bits, set_bits) = *table.get_unchecked(way);
            *tree = directions & keep_bits | set_bits;
            bits[bank] |= 1 << ((set * WAYS + way) % 64);
            missed = keep::<OTHERS>(stream, i, missed, hit == 0);
        }
    }
    banks.one.filled.enter(bits[0]);
    if let Some((other, _)) = banks.two {
        other.filled.enter(bits[1]);
    }
    stream.crossed |= crossed != 0;
    missed
}
