//! Consecutive pages at two levels, four ways at a time.

#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;
use std::ops::Range;

use crate::hw::array::neighbours::{Answered, Search, run as neighbours};
use crate::hw::array::{Array, Entry};

/// Four ways are one vector. Only for the functions below.
pub(super) struct Vector;

impl Search for Vector {
    #[inline(always)]
    #[allow(clippy::inline_always)] // for the vectors of the caller
    fn four(ways: &[Entry; 4], key: Entry, global: Entry) -> u32 {
        // SAFETY: whoever names this type has the features.
        unsafe { four(ways, key.0, global.0) }
    }
}

/// Bit `i` is set where way `i` holds one of the keys.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn four(ways: &[Entry; 4], key: u64, global: u64) -> u32 {
    let keys = _mm256_set1_epi64x(key.cast_signed());
    let globals = _mm256_set1_epi64x(global.cast_signed());
    // SAFETY: 4 words.
    let four = unsafe { _mm256_loadu_si256(ways.as_ptr().cast()) };
    let same = _mm256_or_si256(_mm256_cmpeq_epi64(four, keys), _mm256_cmpeq_epi64(four, globals));
    _mm256_movemask_pd(_mm256_castsi256_pd(same)).cast_unsigned()
}

/// Consecutive pages at two levels.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn run_pages(near: &mut Array, far: &mut Array, key: Entry, pages: Range<u64>) -> Answered {
    neighbours::<Vector>(near, far, key, pages)
}
