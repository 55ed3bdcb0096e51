//! One access in a set of 32-bit pages: found or not, the page becomes the newest.

use super::lanes::{WIDE, lanes8};
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;

/// `KEEP4[m]`: lanes behind the match stay; with no match all move.
pub(super) const KEEP4: [[i32; 4]; 16] = {
    let mut table = [[0; 4]; 16];
    let mut m = 1_usize;
    while m < 16 {
        let mut lane = m.trailing_zeros() as usize + 1;
        while lane < 4 {
            table[m][lane] = -1;
            lane += 1;
        }
        m += 1;
    }
    table
};

/// Window of lane masks: from `MOVES + 16 - p`, lanes 0 to p are set.
pub(super) const MOVES: [i32; 34] = {
    let mut table = [0; 34];
    let mut i = 0;
    while i <= 16 {
        table[i] = -1;
        i += 1;
    }
    table
};

/// One access: the page becomes the newest of its set; hit and miss are the same shift. With `CROSS`, `crossed`
/// gathers whether `other` was there.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn step<const WAYS: usize, const CROSS: bool>(
    set: *mut u32,
    id: u32,
    other: u32,
    crossed: &mut __m256i,
) -> bool {
    // SAFETY: the caller's set is aligned to its stride.
    unsafe {
        if CROSS {
            let other = _mm256_set1_epi32(other.cast_signed());
            let mut look = |ways| {
                *crossed = _mm256_or_si256(*crossed, ways);
            };
            let long = |at: usize| _mm256_cmpeq_epi32(_mm256_load_si256(set.add(at).cast()), other);
            // Compared before it is widened: a page may be called 0.
            let short = |at: usize| {
                let four = _mm_load_si128(set.add(at).cast());
                _mm256_zextsi128_si256(_mm_cmpeq_epi32(four, _mm256_castsi256_si128(other)))
            };
            match WAYS {
                4 => look(short(0)),
                8 => look(long(0)),
                12 => {
                    look(long(0));
                    look(short(8));
                }
                _ => {
                    look(long(0));
                    look(long(8));
                }
            }
        }
        match WAYS {
            4 => step4(set, id),
            8 => step8(set, id) < 8,
            12 => step12(set, id),
            _ => step16(set, id, id) < 16,
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn step4(set: *mut u32, id: u32) -> bool {
    // SAFETY: 16 bytes of an aligned row; the mask of 4 lanes indexes 16 entries.
    unsafe {
        let old = _mm_load_si128(set.cast());
        let key = _mm_set1_epi32(id.cast_signed());
        let same = _mm_cmpeq_epi32(old, key);
        let found = _mm_movemask_ps(_mm_castsi128_ps(same)) as usize;
        let moved = _mm_alignr_epi8::<12>(old, key);
        let keep = _mm_loadu_si128(KEEP4.as_ptr().add(found).cast());
        _mm_store_si128(set.cast(), _mm_blendv_epi8(moved, old, keep));
        found != 0
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn step8(set: *mut u32, id: u32) -> usize {
    // SAFETY: 32 bytes of an aligned row; positions 0 to 8 stay within `MOVES`.
    unsafe {
        let old = _mm256_load_si256(set.cast());
        let key = _mm256_set1_epi32(id.cast_signed());
        let found = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(old, key))).cast_unsigned();
        let place = (found | 1 << 8).trailing_zeros() as usize;
        let moves = _mm256_loadu_si256(MOVES.as_ptr().add(16 - place).cast());
        let moved = shift_in(old, key);
        _mm256_store_si256(set.cast(), _mm256_blendv_epi8(old, moved, moves));
        place
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn step12(set: *mut u32, id: u32) -> bool {
    // SAFETY: 48 bytes of one aligned row; positions 0 to 12 stay within `MOVES`.
    unsafe {
        let old = _mm256_load_si256(set.cast());
        let tail = _mm_load_si128(set.add(8).cast());
        let key = _mm256_set1_epi32(id.cast_signed());
        let head_found =
            _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(old, key))).cast_unsigned();
        let tail_same = _mm_cmpeq_epi32(tail, _mm256_castsi256_si128(key));
        let tail_found = _mm_movemask_ps(_mm_castsi128_ps(tail_same)).cast_unsigned();
        let found = head_found | tail_found << 8;
        let place = (found | 1 << 12).trailing_zeros() as usize;
        let moves = MOVES.as_ptr().add(16).sub(place);
        let moved = shift_in(old, key);
        let tail_moved = _mm_alignr_epi8::<12>(tail, _mm256_extracti128_si256::<1>(old));
        let head_moves = _mm256_loadu_si256(moves.cast());
        let tail_moves = _mm_loadu_si128(moves.add(8).cast());
        _mm256_store_si256(set.cast(), _mm256_blendv_epi8(old, moved, head_moves));
        _mm_store_si128(set.add(8).cast(), _mm_blendv_epi8(tail, tail_moved, tail_moves));
        found != 0
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn step16(set: *mut u32, id: u32, enters: u32) -> usize {
    // SAFETY: 64 bytes of one aligned row; positions 0 to 16 stay within `MOVES`.
    unsafe {
        let head = _mm256_load_si256(set.cast());
        let tail = _mm256_load_si256(set.add(8).cast());
        let key = _mm256_set1_epi32(id.cast_signed());
        let found_in =
            |lanes| _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(lanes, key))).cast_unsigned();
        let found = found_in(head) | found_in(tail) << 8;
        let place = (found | 1 << 16).trailing_zeros() as usize;
        let moves = MOVES.as_ptr().add(16 - place);
        let carry = _mm256_permutevar8x32_epi32(head, _mm256_set1_epi32(7));
        let head_moved = shift_in(head, _mm256_set1_epi32(enters.cast_signed()));
        let tail_moved = shift_in(tail, carry);
        let head_moves = _mm256_loadu_si256(moves.cast());
        let tail_moves = _mm256_loadu_si256(moves.add(8).cast());
        _mm256_store_si256(set.cast(), _mm256_blendv_epi8(head, head_moved, head_moves));
        _mm256_store_si256(set.add(8).cast(), _mm256_blendv_epi8(tail, tail_moved, tail_moves));
        place
    }
}

/// As [`step16`] over 32 places; returns the depth, or 32.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn step32(set: *mut u32, id: u32) -> usize {
    // SAFETY: 128 bytes of two aligned rows; each half's place is 0 to 16.
    unsafe {
        let last = *set.add(15);
        let place = step16(set, id, id);
        // Found in the first half: the second does not move.
        if place < 16 { place } else { 16 + step16(set.add(16), id, last) }
    }
}

/// One access in a set of up to 32 ways.
#[inline]
#[allow(clippy::needless_range_loop)] // a constant number of registers
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn step_wide<const WAYS: usize>(set: *mut u32, id: u32) -> bool {
    let vectors = WAYS.div_ceil(8);
    let key = _mm256_set1_epi32(id.cast_signed());
    // SAFETY: a set is whole vectors; positions 0 to 31 stay within `WIDE`.
    unsafe {
        let mut old = [key; 4];
        let mut found = 0;
        for i in 0..vectors {
            old[i] = _mm256_load_si256(set.add(8 * i).cast());
            found |= lanes8(_mm256_cmpeq_epi32(old[i], key)) << (8 * i);
        }
        // On a miss all ways move, the last one out.
        let place = (found | 1 << (WAYS - 1)).trailing_zeros() as usize;
        let moves = WIDE.as_ptr().add(32 - place);
        let mut carry = key;
        for i in 0..vectors {
            let rotated = _mm256_permutevar8x32_epi32(old[i], _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6));
            let moved = _mm256_blend_epi32::<1>(rotated, carry);
            carry = rotated;
            let mask = _mm256_loadu_si256(moves.add(8 * i).cast());
            _mm256_store_si256(set.add(8 * i).cast(), _mm256_blendv_epi8(old[i], moved, mask));
        }
        found != 0
    }
}

/// All lanes one place down, lane 0 from `new`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn shift_in(old: __m256i, new: __m256i) -> __m256i {
    let down = _mm256_permutevar8x32_epi32(old, _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6));
    _mm256_blend_epi32::<1>(down, new)
}
