//! The plain loop of [`super::super::lru`].

use super::lanes::COMPACT;
use super::step::step;
use super::tags::{Places, drop_hits, lines_pass, place};
use crate::hw::fast::rows::{BATCH, Packed, ROOM};
use crate::hw::fast::state::{Answers, Hits, State};
use crate::hw::fast::tags::Narrow;
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;

/// Buffers of one batch.
#[repr(C, align(64))]
pub(super) struct Buffers {
    /// The interned pages that are still to be found.
    ids: [u32; ROOM],
    /// Which accesses these are, where that is asked.
    numbers: [u32; ROOM],
    places: Places,
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn run(
    state: &mut State,
    vpns: &[u64],
    base: u64,
    filter: bool,
    answers: Answers<'_>,
    walk: u8,
) -> Option<Hits> {
    let State { first, second, narrow, .. } = state;
    let second_ways = second.as_ref().map_or(0, |second| second.ways);
    let levels = match (first.ways, second_ways) {
        (4, 0) => levels::<4, 0>,
        (4, 8) => levels::<4, 8>,
        (4, 12) => levels::<4, 12>,
        (4, 16) => levels::<4, 16>,
        (8, 0) => levels::<8, 0>,
        (8, 8) => levels::<8, 8>,
        (8, 12) => levels::<8, 12>,
        (8, 16) => levels::<8, 16>,
        _ => return None,
    };
    // SAFETY: as the caller's.
    unsafe { levels(first, second.as_mut(), narrow, vpns, base, filter, answers, walk) }
}

#[allow(clippy::too_many_arguments)] // those of `run`, and both levels
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn levels<const FIRST: usize, const SECOND: usize>(
    first: &mut Packed,
    mut second: Option<&mut Packed>,
    narrow: &mut [Option<Narrow>; 2],
    vpns: &[u64],
    base: u64,
    filter: bool,
    mut answers: Answers<'_>,
    walk: u8,
) -> Option<Hits> {
    let mut buffers =
        Buffers { ids: [0; ROOM], numbers: [0; ROOM], places: Places { sets: [0; ROOM], tags: [0; ROOM] } };
    let Buffers { ids, numbers, places } = &mut buffers;
    let [first_narrow, second_narrow] = narrow;
    let mut hits = Hits::default();
    let mut previous = u32::MAX;
    for (number, batch) in vpns.chunks(BATCH).enumerate() {
        // SAFETY: see the head of the file; `batch` has at most `BATCH` pages.
        unsafe {
            let kept = if filter {
                intern::<true>(batch, base, ids, &mut previous)?
            } else {
                intern::<false>(batch, base, ids, &mut previous)?
            };
            let Some((out, first_level, second_level)) = &mut answers else {
                let misses = pass::<FIRST, false>(first, first_narrow, ids, None, places, kept);
                let left = match second.as_deref_mut() {
                    Some(second) => pass::<SECOND, true>(second, second_narrow, ids, None, places, misses),
                    None => misses,
                };
                hits.first += (batch.len() - misses) as u64;
                hits.second += (misses - left) as u64;
                continue;
            };
            let out = &mut out[number * BATCH..][..batch.len()];
            numbers.iter_mut().enumerate().for_each(|(i, number)| *number = i as u32);
            out.fill(*first_level);
            let misses = pass::<FIRST, false>(first, first_narrow, ids, Some(numbers), places, kept);
            let left = match second.as_deref_mut() {
                Some(second) => {
                    numbers[..misses].iter().for_each(|&i| out[i as usize] = *second_level);
                    pass::<SECOND, false>(second, second_narrow, ids, Some(numbers), places, misses)
                }
                None => misses,
            };
            numbers[..left].iter().for_each(|&i| out[i as usize] = walk);
            hits.first += (batch.len() - misses) as u64;
            hits.second += (misses - left) as u64;
        }
    }
    Some(hits)
}

/// The first `count` pages through a level; those it does not hold move to the front, and with them their numbers,
/// but after the `LAST` level nobody asks for them. Returns how many these are.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn pass<const WAYS: usize, const LAST: bool>(
    packed: &mut Packed,
    narrow: &mut Option<Narrow>,
    ids: &mut [u32; ROOM],
    numbers: Option<&mut [u32; ROOM]>,
    places: &mut Places,
    count: usize,
) -> usize {
    // SAFETY: as the caller's.
    unsafe {
        if let Some(form) = narrow
            && !place(form.shape, ids, places, count)
        {
            form.back(packed);
            *narrow = None;
        }
        match narrow {
            Some(form) => {
                let found = lines_pass::<WAYS, LAST>(form, places, count);
                if LAST {
                    return count - found;
                }
                if let Some(numbers) = numbers {
                    drop_hits(numbers, &places.sets, count);
                }
                drop_hits(ids, &places.sets, count)
            }
            None => rows_pass::<WAYS>(packed, ids, numbers, count),
        }
    }
}

/// [`pass`] over rows of 32-bit pages.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn rows_pass<const WAYS: usize>(
    packed: &mut Packed,
    ids: &mut [u32; ROOM],
    mut numbers: Option<&mut [u32; ROOM]>,
    count: usize,
) -> usize {
    let mask = packed.sets - 1;
    let rows = packed.rows.as_mut_ptr().cast::<u32>();
    let mut misses = 0;
    for i in 0..count {
        // SAFETY: the set lies within the rows, aligned to its stride; `misses <= i < ROOM`.
        unsafe {
            let id = *ids.get_unchecked(i);
            let set = rows.add((id as usize & mask) * WAYS.next_power_of_two());
            let hit = step::<WAYS, false>(set, id, 0, &mut _mm256_setzero_si256());
            *ids.get_unchecked_mut(misses) = id;
            if let Some(numbers) = numbers.as_deref_mut() {
                numbers[misses] = numbers[i];
            }
            misses += usize::from(!hit);
        }
    }
    misses
}

/// Interns a batch; with `FILTER`, without pages that repeat their predecessor. Returns how many are left.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn intern<const FILTER: bool>(
    batch: &[u64],
    base: u64,
    ids: &mut [u32; ROOM],
    previous: &mut u32,
) -> Option<usize> {
    let bases = _mm256_set1_epi64x(base.cast_signed());
    let mut outside = _mm256_setzero_si256();
    let (eights, rest) = batch.as_chunks::<8>();
    let rotate = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
    let mut last = _mm256_set1_epi32(previous.cast_signed());
    let mut kept = 0;
    for eight in eights {
        // SAFETY: `eight` is 8 pages; `kept` <= pages seen so far <= BATCH, and the buffer has 16 more.
        unsafe {
            let low = _mm256_xor_si256(_mm256_loadu_si256(eight.as_ptr().cast()), bases);
            let high = _mm256_xor_si256(_mm256_loadu_si256(eight.as_ptr().add(4).cast()), bases);
            outside = _mm256_or_si256(outside, _mm256_or_si256(low, high));
            let mixed = _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(
                _mm256_castsi256_ps(low),
                _mm256_castsi256_ps(high),
            ));
            let all = _mm256_permute4x64_epi64::<0xd8>(mixed);
            let out = ids.as_mut_ptr().add(kept).cast();
            if FILTER {
                let rotated = _mm256_permutevar8x32_epi32(all, rotate);
                let before = _mm256_blend_epi32::<1>(rotated, last);
                last = rotated;
                let same = _mm256_cmpeq_epi32(all, before);
                let fresh = !_mm256_movemask_ps(_mm256_castsi256_ps(same)) as usize & 0xff;
                let order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(COMPACT[fresh].cast_signed()));
                _mm256_storeu_si256(out, _mm256_permutevar8x32_epi32(all, order));
                kept += fresh.count_ones() as usize;
            } else {
                _mm256_storeu_si256(out, all);
                kept += 8;
            }
        }
    }
    let mut before = _mm256_cvtsi256_si32(last).cast_unsigned();
    let mut beyond = 0;
    for &vpn in rest {
        let id = (vpn ^ base) as u32;
        beyond |= vpn ^ base;
        ids[kept] = id;
        kept += usize::from(!FILTER || id != before);
        before = id;
    }
    *previous = before;
    // Only the low 31 bits of a page may differ from the base.
    let window = _mm256_set1_epi64x(!0x7fff_ffff);
    (beyond >> 31 == 0 && _mm256_testz_si256(outside, window) == 1).then_some(kept)
}
