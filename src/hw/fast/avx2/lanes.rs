//! Tables and small things that several loops share.

#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;

/// `COMPACT[m]`: the numbers of the lanes set in `m`, a byte each.
pub(super) const COMPACT: [u64; 256] = {
    let mut table = [0; 256];
    let mut m = 0_usize;
    while m < 256 {
        let (mut lane, mut at) = (0, 0);
        while lane < 8 {
            if m >> lane & 1 == 1 {
                table[m] |= (lane as u64) << (8 * at);
                at += 1;
            }
            lane += 1;
        }
        m += 1;
    }
    table
};

/// Bit `i` is set where lane `i` is negative.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn lanes8(lanes: __m256i) -> u32 {
    _mm256_movemask_ps(_mm256_castsi256_ps(lanes)).cast_unsigned()
}

/// The lanes as words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn words8(lanes: __m256i) -> [u32; 8] {
    let mut words = [0; 8];
    // SAFETY: 32 bytes of our own.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), lanes) };
    words
}

/// Words as lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn vector8(words: [u32; 8]) -> __m256i {
    // SAFETY: 32 bytes of our own.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Window of single lanes: from `ONE + 16 - p`, lane `p` is set.
pub(super) const ONE: [i32; 40] = {
    let mut table = [0; 40];
    table[16] = -1;
    table
};

/// Window of lane masks for sets of up to 32 ways: from `WIDE + 32 - p`, lanes 0 to p are set.
pub(super) const WIDE: [i32; 72] = {
    let mut table = [0; 72];
    let mut i = 0;
    while i <= 32 {
        table[i] = -1;
        i += 1;
    }
    table
};
