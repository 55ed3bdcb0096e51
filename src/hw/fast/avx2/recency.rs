//! Recency orders of many ways, in sets and as a log.

use super::lanes::{ONE, lanes8};
use super::step::{step_wide, step4, step8, step12, step16};
use crate::hw::fast::log::Log;
use crate::hw::fast::rows::Packed;
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;

/// One batch through recency orders.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn lru_pass<const WAYS: usize>(
    packed: &mut Packed,
    fold: u32,
    ids: &mut [u32],
    numbers: &mut [u32],
) -> usize {
    assert!(packed.ways == WAYS && packed.sets.is_power_of_two());
    let mask = packed.sets - 1;
    let rows = packed.rows.as_mut_ptr().cast::<u32>();
    let fold = if fold == 0 { 31 } else { fold };
    let mut missed = 0;
    for i in 0..ids.len() {
        // SAFETY: the set lies within the rows; `missed <= i`.
        unsafe {
            let id = *ids.get_unchecked(i);
            let set = rows.add(((id ^ id >> fold) as usize & mask) * WAYS.next_power_of_two());
            let hit = match WAYS {
                4 => step4(set, id),
                8 => step8(set, id) < 8,
                12 => step12(set, id),
                16 => step16(set, id, id) < 16,
                _ => step_wide::<WAYS>(set, id),
            };
            *ids.get_unchecked_mut(missed) = id;
            if !numbers.is_empty() {
                numbers[missed] = numbers[i];
            }
            missed += usize::from(!hit);
        }
    }
    missed
}

/// One batch through a fully associative recency order.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn log_pass(log: &mut Log, ids: &mut [u32], numbers: &mut [u32]) -> usize {
    log.make_room(ids.len());
    assert!(log.rows.len() == Log::BUCKETS / 2 && log.at.len() == 8 * Log::BUCKETS);
    let empty = _mm256_set1_epi32(-1);
    let mut missed = 0;
    let mut i = 0;
    while i < ids.len() {
        let id = ids[i];
        let bucket = log.bucket(id);
        let key = _mm256_set1_epi32(id.cast_signed());
        // SAFETY: a bucket is one of `BUCKETS` aligned vectors, a lane one of eight; `missed <= i`.
        unsafe {
            let row = log.rows.as_mut_ptr().cast::<u32>().add(8 * bucket);
            let old = _mm256_load_si256(row.cast());
            let same = lanes8(_mm256_cmpeq_epi32(old, key));
            let free = lanes8(_mm256_cmpeq_epi32(old, empty));
            let wanted = if same == 0 { free } else { same };
            if wanted == 0 {
                log.spread_anew();
                continue;
            }
            let lane = wanted.trailing_zeros() as usize;
            let one = _mm256_loadu_si256(ONE.as_ptr().add(16 - lane).cast());
            // Whole vectors are written, as they were read: a load finds the store before it.
            _mm256_store_si256(row.cast(), _mm256_blendv_epi8(old, key, one));
            log.used(8 * bucket + lane, same == 0);
            *ids.get_unchecked_mut(missed) = id;
            if !numbers.is_empty() {
                numbers[missed] = numbers[i];
            }
            missed += usize::from(same == 0);
        }
        i += 1;
    }
    missed
}
