//! Sets as arrays keep them, 64 bits a way, four ways a vector: whatever a page, its size and its context are, they are one
//! word. For [`super::super::flow`].

use super::trees::{VICTIM4, VICTIM8, uses};
use crate::hw::array::{MRU_SHIFT, Parts, follow};
use crate::hw::fast::stream::Stream;
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;
use std::ops::Range;

/// Window of lane masks of a word each: from `UP_TO + 32 - p`, lanes 0 to p are set; from `ONE + 32 - p`, lane p alone.
const UP_TO: [i64; 72] = lanes(true);
const ONE: [i64; 72] = lanes(false);

const fn lanes(up_to: bool) -> [i64; 72] {
    let mut table = [0; 72];
    let mut i = if up_to { 0 } else { 32 };
    while i <= 32 {
        table[i] = -1;
        i += 1;
    }
    table
}

/// An array, or two of one shape and the bits of a page below the one that picks the second.
pub(super) struct Banks<'a> {
    pub(super) one: Parts<'a>,
    pub(super) two: Option<(Parts<'a>, u8)>,
}

/// Bit `i` is set where lane `i` is negative.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes4(lanes: __m256i) -> u32 {
    _mm256_movemask_pd(_mm256_castsi256_pd(lanes)).cast_unsigned()
}

/// The accesses `range` of a stream through recency orders of `WAYS` ways; those that miss move to `missed` and on. Returns
/// where they end. With `OTHERS`, notes whether another key of a page was there.
#[inline]
#[allow(clippy::needless_range_loop)] // a constant number of registers
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn recency<const WAYS: usize, const BANKS: bool, const OTHERS: bool>(
    mut banks: Banks<'_>,
    stream: &mut Stream,
    range: Range<usize>,
    mut missed: usize,
) -> usize {
    let Banks { one: Parts { keys, fold, .. }, .. } = &mut banks;
    assert!(WAYS <= 32 && missed <= range.start && range.end <= stream.keys.len());
    assert!(keys.len().is_multiple_of(WAYS) && (keys.len() / WAYS).is_power_of_two());
    let (mask, fold) = (keys.len() / WAYS - 1, *fold);
    let mut rows = [keys.as_mut_ptr().cast::<u64>(); 2];
    let mut bits = [0; 2];
    if let Some((other, _)) = &mut banks.two {
        assert!(other.keys.len() == (mask + 1) * WAYS);
        rows[1] = other.keys.as_mut_ptr().cast();
    }
    let shift = banks.two.as_ref().map_or(0, |(_, shift)| *shift);
    let vectors = WAYS.div_ceil(4);
    // Of a last vector that is not whole, the lanes that are ways.
    let rest = WAYS % 4;
    let lane = |number| if rest == 0 || rest > number { -1 } else { 0 };
    let tail = _mm256_setr_epi64x(lane(0), lane(1), lane(2), lane(3));
    let mut crossed = _mm256_setzero_si256();
    for i in range {
        // SAFETY: the set is below the number of sets, so its ways are in `keys`, and a partial vector is read and written
        // under its mask; `i` is below the end of the stream, `missed <= i`; a place is at most 31.
        unsafe {
            let word = *stream.keys.get_unchecked(i);
            let set = (word ^ word >> fold) as usize & mask;
            let bank = if BANKS { (word >> shift) as usize & 1 } else { 0 };
            let row = rows[bank].add(set * WAYS);
            let key = _mm256_set1_epi64x(word.cast_signed());
            let other =
                if OTHERS { _mm256_set1_epi64x(stream.others.get_unchecked(i).cast_signed()) } else { key };
            let mut old = [key; 8];
            let mut found = 0;
            for v in 0..vectors {
                let at = row.add(4 * v);
                old[v] = if rest > 0 && v + 1 == vectors {
                    _mm256_maskload_epi64(at.cast(), tail)
                } else {
                    _mm256_loadu_si256(at.cast())
                };
                found |= lanes4(_mm256_cmpeq_epi64(old[v], key)) << (4 * v);
                if OTHERS {
                    crossed = _mm256_or_si256(crossed, _mm256_cmpeq_epi64(old[v], other));
                }
            }
            // On a miss all ways move, the last one out.
            let place = (found | 1 << (WAYS - 1)).trailing_zeros() as usize;
            let moves = UP_TO.as_ptr().add(32 - place);
            let mut carry = key;
            for v in 0..vectors {
                let rotated = _mm256_permute4x64_epi64::<0x93>(old[v]);
                let moved = _mm256_blend_epi32::<0b11>(rotated, carry);
                carry = rotated;
                let up = _mm256_loadu_si256(moves.add(4 * v).cast());
                let new = _mm256_blendv_epi8(old[v], moved, up);
                let at = row.add(4 * v);
                if rest > 0 && v + 1 == vectors {
                    _mm256_maskstore_epi64(at.cast(), tail, new);
                } else {
                    _mm256_storeu_si256(at.cast(), new);
                }
            }
            bits[bank] |= 1 << (set % 64);
            missed = keep::<OTHERS>(stream, i, missed, found == 0);
        }
    }
    banks.one.filled.enter(bits[0]);
    if let Some((other, _)) = banks.two {
        other.filled.enter(bits[1]);
    }
    stream.crossed |= _mm256_testz_si256(crossed, crossed) == 0;
    missed
}

/// As [`recency`], through sets whose replacement is direction bits: `WAYS` ways in `GROUPS` trees.
#[inline]
#[allow(clippy::needless_range_loop)] // a constant number of registers
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
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
    let vectors = WAYS / 4;
    let empty = _mm256_setzero_si256();
    let mut crossed = empty;
    for i in range {
        // SAFETY: as in `recency`; the way is below `WAYS`.
        unsafe {
            let word = *stream.keys.get_unchecked(i);
            let set = (word ^ word >> fold) as usize & mask;
            let bank = if BANKS { (word >> shift) as usize & 1 } else { 0 };
            let row = rows[bank].add(set * WAYS);
            let tree = trees[bank].add(set);
            let directions = *tree;
            let key = _mm256_set1_epi64x(word.cast_signed());
            let other =
                if OTHERS { _mm256_set1_epi64x(stream.others.get_unchecked(i).cast_signed()) } else { key };
            let mut old = [key; 4];
            let (mut hit, mut free) = (0, 0);
            for v in 0..vectors {
                old[v] = _mm256_loadu_si256(row.add(4 * v).cast());
                hit |= lanes4(_mm256_cmpeq_epi64(old[v], key)) << (4 * v);
                free |= lanes4(_mm256_cmpeq_epi64(old[v], empty)) << (4 * v);
                if OTHERS {
                    crossed = _mm256_or_si256(crossed, _mm256_cmpeq_epi64(old[v], other));
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
            let one = ONE.as_ptr().add(32 - way);
            for v in 0..vectors {
                let here = _mm256_loadu_si256(one.add(4 * v).cast());
                _mm256_storeu_si256(row.add(4 * v).cast(), _mm256_blendv_epi8(old[v], key, here));
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
    stream.crossed |= _mm256_testz_si256(crossed, crossed) == 0;
    missed
}

/// Moves access `i` to place `missed`, where it stays if it missed; returns the next place.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn keep<const OTHERS: bool>(
    stream: &mut Stream,
    i: usize,
    missed: usize,
    stays: bool,
) -> usize {
    // SAFETY: `missed <= i`, and `i` is below the end of the stream, by the callers.
    unsafe {
        *stream.keys.get_unchecked_mut(missed) = *stream.keys.get_unchecked(i);
        *stream.numbers.get_unchecked_mut(missed) = *stream.numbers.get_unchecked(i);
        if OTHERS {
            *stream.others.get_unchecked_mut(missed) = *stream.others.get_unchecked(i);
        }
    }
    missed + usize::from(stays)
}
