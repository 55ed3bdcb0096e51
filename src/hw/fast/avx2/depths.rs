//! Depths in LRU stacks, for [`super::super::curve`].

use super::step::{step8, step16, step32};
use super::tags::{Places, line_step, line_step32, place};
use crate::hw::fast::rows::{BATCH, ROOM};
use crate::hw::fast::stacks::{MAX_WAYS, Stacks};
use crate::hw::fast::tags::Shape;
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;

/// With `narrow` the names, less the bits that pick a set, are below `u16::MAX`, and stacks are of 16-bit places.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn find_depths(stacks: &mut Stacks, names: &mut [u32; ROOM], count: usize, narrow: bool) {
    assert!(stacks.sets.is_power_of_two() && stacks.sets * stacks.depth <= 16 * stacks.rows.len());
    // SAFETY: `sets * depth` places of 32 or of 16 bits in whole rows, `sets` a power of two.
    unsafe {
        match (stacks.depth, narrow) {
            (8, false) => depths::<8>(stacks, &names[..count]),
            (16, false) => depths::<16>(stacks, &names[..count]),
            (_, false) => depths::<32>(stacks, &names[..count]),
            (8, true) => narrow_depths::<8>(stacks, names, count),
            (16, true) => narrow_depths::<16>(stacks, names, count),
            (_, true) => narrow_depths::<32>(stacks, names, count),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn depths<const DEPTH: usize>(stacks: &mut Stacks, names: &[u32]) {
    let mask = stacks.sets - 1;
    let rows = stacks.rows.as_mut_ptr().cast::<u32>();
    // Two histograms, so that equal depths in a row do not wait for each other.
    let mut found = [[0_u32; MAX_WAYS + 1]; 2];
    for (i, &name) in names.iter().enumerate() {
        // SAFETY: the set lies within the rows; depths are at most `MAX_WAYS`.
        unsafe {
            let set = rows.add((name as usize & mask) * DEPTH);
            let depth = match DEPTH {
                8 => step8(set, name),
                16 => step16(set, name, name),
                _ => step32(set, name),
            };
            *found.get_unchecked_mut(i % 2).get_unchecked_mut(depth) += 1;
        }
    }
    for (depth, sum) in stacks.found.iter_mut().enumerate().take(DEPTH) {
        *sum += u64::from(found[0][depth]) + u64::from(found[1][depth]);
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn narrow_depths<const DEPTH: usize>(
    stacks: &mut Stacks,
    names: &mut [u32; ROOM],
    count: usize,
) {
    let mut places = Places { sets: [0; ROOM], tags: [0; ROOM] };
    let shape = Shape { sets: stacks.sets, stride: DEPTH, base: 0, shift: stacks.sets.ilog2() };
    let rows = stacks.rows.as_mut_ptr();
    // A lane counts the matches in one place: a batch is fewer than it can hold.
    const { assert!(BATCH <= u16::MAX as usize) };
    let mut found = [_mm256_setzero_si256(); 2];
    // SAFETY: `place` gives sets within the rows, `count` of them.
    unsafe {
        place(shape, names, &mut places, count);
        for i in 0..count {
            let set = rows.byte_add(*places.sets.get_unchecked(i) as usize).cast::<u16>();
            let tag = _mm_loadu_si128(places.tags.as_ptr().add(i).cast());
            let same = match DEPTH {
                8 => [line_step::<8>(set, tag).1, found[1]],
                16 => [line_step::<16>(set, tag).1, found[1]],
                _ => line_step32(set, tag),
            };
            found[0] = _mm256_sub_epi16(found[0], same[0]);
            if DEPTH > 16 {
                found[1] = _mm256_sub_epi16(found[1], same[1]);
            }
        }
        let mut counts = [0_u16; MAX_WAYS];
        _mm256_storeu_si256(counts.as_mut_ptr().cast(), found[0]);
        _mm256_storeu_si256(counts.as_mut_ptr().add(16).cast(), found[1]);
        for (sum, count) in stacks.found.iter_mut().zip(&counts[..DEPTH]) {
            *sum += u64::from(*count);
        }
    }
}
