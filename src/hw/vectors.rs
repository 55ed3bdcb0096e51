//! Whether this CPU runs the vector loops, and the one that stands below [`super::array`]: a key among many ways.
//!
//! `unsafe` is sound here because functions with `#[target_feature]` run only after [`available`] said that the CPU has
//! these features, and because [`Entry`] is a transparent `u64`, so that four entries are a vector of words.
#![allow(unsafe_code)]

use super::entry::Entry;

/// Whether this CPU runs the vector loops.
pub(super) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("popcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether it has vectors of eight words, too.
pub(super) fn eights() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        available()
            && std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512vl")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The first way that holds either key.
#[cfg(target_arch = "x86_64")]
pub(super) fn find(ways: &[Entry], key: Entry, global: Entry) -> Option<usize> {
    debug_assert!(available());
    // SAFETY: the caller asked `available`.
    unsafe { find_wide(ways, key.0, global.0) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn find(_: &[Entry], _: Entry, _: Entry) -> Option<usize> {
    None
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
unsafe fn find_wide(ways: &[Entry], key: u64, global: u64) -> Option<usize> {
    #[allow(clippy::wildcard_imports)] // intrinsics name themselves
    use std::arch::x86_64::*;

    let keys = _mm256_set1_epi64x(key.cast_signed());
    let globals = _mm256_set1_epi64x(global.cast_signed());
    let (sixteens, rest) = ways.as_chunks::<16>();
    for (number, sixteen) in sixteens.iter().enumerate() {
        let mut found = 0;
        for at in (0..16).step_by(4) {
            // SAFETY: 16 words.
            let four = unsafe { _mm256_loadu_si256(sixteen.as_ptr().add(at).cast()) };
            let same = _mm256_or_si256(_mm256_cmpeq_epi64(four, keys), _mm256_cmpeq_epi64(four, globals));
            found |= _mm256_movemask_pd(_mm256_castsi256_pd(same)).cast_unsigned() << at;
        }
        if found != 0 {
            return Some(16 * number + found.trailing_zeros() as usize);
        }
    }
    let tail = rest.iter().position(|way| way.0 == key || way.0 == global);
    tail.map(|place| 16 * sixteens.len() + place)
}
