//! [`super::eights::single`] at 32 bits a way, sixteen ways a vector, where few bits tell the keys of a batch apart.
//!
//! Which bits differ among the keys of a batch and of the array is seen first. Without the others, which all of them share, a key
//! is another word, and two words are equal where two keys are: the loop compares words, and what it leaves is made into keys
//! again with the bits that all share. A way that is empty has a key as well.

use super::wide::keep;
use crate::hw::array::{Entry, Parts};
use crate::hw::fast::stream::Stream;
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;
use std::ops::Range;

/// Fewer accesses do not pay for making words of an array.
const WORTH: usize = 64;
/// Most bits of a word.
const BITS: u32 = 32;

/// What all keys of an array and of accesses share, and which bits they do not share. `None`: there are too many of these, or
/// too few accesses.
#[target_feature(enable = "avx512f,avx512vl,avx2,bmi1,bmi2,popcnt")]
pub(super) fn differing(array: &[Entry], accesses: &[u64]) -> Option<(u64, u64)> {
    let shared = *accesses.get(..WORTH)?.first()?;
    let differ = accesses.iter().fold(0, |all, &key| all | (key ^ shared));
    let differ = array.iter().fold(differ, |all, key| all | (key.0 ^ shared));
    (differ.count_ones() <= BITS).then_some((shared, differ))
}

/// As [`super::eights::single`], where nothing is global, in an order of at most `16 * VECTORS` ways whose keys differ from those
/// of the accesses in bits of `differ` alone.
#[inline]
#[allow(clippy::needless_range_loop)] // a constant number of registers
#[target_feature(enable = "avx512f,avx512vl,avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn single<const VECTORS: usize>(
    array: Parts<'_>,
    stream: &mut Stream,
    range: Range<usize>,
    mut missed: usize,
    (shared, differ): (u64, u64),
) -> usize {
    let Parts { keys, filled, .. } = array;
    assert!(missed <= range.start && range.end <= stream.keys.len());
    assert!(VECTORS <= 6 && keys.len() <= 16 * VECTORS);
    // The lanes that are ways; what the others hold has left.
    let lanes: [u16; VECTORS] =
        std::array::from_fn(|v| ((1_u32 << keys.len().saturating_sub(16 * v).min(16)) - 1) as u16);
    let mut words = [[0_u32; 16]; VECTORS];
    for (word, key) in words.as_flattened_mut().iter_mut().zip(&*keys) {
        *word = _pext_u64(key.0, differ) as u32;
    }
    // SAFETY: a row of `words` is a vector; `i` is below the end of the stream, `missed <= i`.
    unsafe {
        let mut order: [__m512i; VECTORS] =
            std::array::from_fn(|v| _mm512_loadu_si512(words[v].as_ptr().cast()));
        for i in range {
            let word = _pext_u64(*stream.keys.get_unchecked(i), differ) as u32;
            let key = _mm512_set1_epi32(word.cast_signed());
            let mut found = [0_u64; 2];
            for v in 0..VECTORS {
                let here = _mm512_cmpeq_epi32_mask(order[v], key) & lanes[v];
                found[v / 4] |= u64::from(here) << (v % 4 * 16);
            }
            if found == [0, 0] {
                for v in (1..VECTORS).rev() {
                    order[v] = _mm512_alignr_epi32::<15>(order[v], order[v - 1]);
                }
                order[0] = _mm512_alignr_epi32::<15>(order[0], key);
            } else if found[0] & 1 == 0 {
                let near = found[0] ^ found[0].wrapping_sub(1);
                let far = if found[0] == 0 { found[1] ^ found[1].wrapping_sub(1) } else { 0 };
                let mut before = key;
                for v in 0..VECTORS {
                    let up = (if v < 4 { near } else { far } >> (v % 4 * 16)) as u16;
                    let old = order[v];
                    order[v] = _mm512_mask_alignr_epi32::<15>(old, up, old, before);
                    before = old;
                }
            }
            missed = keep::<false>(stream, i, missed, found == [0, 0]);
        }
        for v in 0..VECTORS {
            _mm512_storeu_si512(words[v].as_mut_ptr().cast(), order[v]);
        }
    }
    for (key, &word) in keys.iter_mut().zip(words.as_flattened()) {
        key.0 = _pdep_u64(u64::from(word), differ) | shared & !differ;
    }
    filled.enter(1);
    missed
}
