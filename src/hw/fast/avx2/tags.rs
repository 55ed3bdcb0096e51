//! Sets of 16-bit tags ([`super::super::tags`]): places of a batch, and one access.

use super::lanes::{COMPACT, lanes8};
use crate::hw::fast::rows::ROOM;
use crate::hw::fast::tags::{Narrow, Shape, TAG};
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;

/// Where the pages of a batch go in [`Narrow`]: the bytes before their sets, and their tags.
#[repr(C, align(64))]
pub(super) struct Places {
    pub(super) sets: [u32; ROOM],
    pub(super) tags: [u16; ROOM],
}

/// Finds the places of the first `count` pages; `false` if one is outside the window.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn place(shape: Shape, ids: &mut [u32; ROOM], places: &mut Places, count: usize) -> bool {
    // What is behind the last page is looked at, too.
    let last = ids[count.saturating_sub(1)];
    ids[count..count + 16].fill(last);
    let masks = _mm256_set1_epi32((shape.sets as u32 - 1).cast_signed());
    let bytes = _mm_cvtsi32_si128((2 * shape.stride).ilog2().cast_signed());
    let base = _mm256_set1_epi32(shape.base.cast_signed());
    let shift = _mm_cvtsi32_si128(shape.shift.cast_signed());
    let tags = |ids| _mm256_srl_epi32(_mm256_sub_epi32(ids, base), shift);
    let sets = |ids| _mm256_sll_epi32(_mm256_and_si256(ids, masks), bytes);
    let mut beyond = _mm256_setzero_si256();
    for i in (0..count).step_by(16) {
        // SAFETY: `i` is below BATCH, and the buffers have 16 more.
        unsafe {
            let ids = ids.as_ptr().add(i);
            let (low, high) = (_mm256_loadu_si256(ids.cast()), _mm256_loadu_si256(ids.add(8).cast()));
            let (low_tags, high_tags) = (tags(low), tags(high));
            beyond = _mm256_or_si256(beyond, _mm256_or_si256(low_tags, high_tags));
            let tags = _mm256_permute4x64_epi64::<0xd8>(_mm256_packus_epi32(low_tags, high_tags));
            _mm256_store_si256(places.tags.as_mut_ptr().add(i).cast(), tags);
            let to = places.sets.as_mut_ptr().add(i);
            _mm256_store_si256(to.cast(), sets(low));
            _mm256_store_si256(to.add(8).cast(), sets(high));
        }
    }
    _mm256_testz_si256(beyond, _mm256_set1_epi32(-1 << TAG)) == 1
}

/// The first `count` accesses at their `places`. With `COUNT`, returns how many hit; without, `places.sets` becomes
/// zero for those that miss.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn lines_pass<const WAYS: usize, const COUNT: bool>(
    narrow: &mut Narrow,
    places: &mut Places,
    count: usize,
) -> usize {
    assert!(narrow.ways == WAYS);
    let lines = narrow.lines.as_mut_ptr();
    let mut hits = 0;
    for i in 0..count {
        // SAFETY: `place` gives sets of this level, and `count` of them.
        unsafe {
            let at = places.sets.get_unchecked_mut(i);
            let set = lines.byte_add(*at as usize).cast::<u16>();
            // As a vector, which is what a broadcast from memory needs; seven more tags are there.
            let tag = _mm_loadu_si128(places.tags.as_ptr().add(i).cast());
            let (found, _) = line_step::<WAYS>(set, tag);
            if COUNT {
                hits += usize::from(found != 0);
            } else {
                *at = found;
            }
        }
    }
    if !COUNT {
        // What is behind the last access has not missed.
        places.sets[count..count + 8].fill(1);
    }
    hits
}

/// Keeps of the first `count` words those whose access missed, by what [`lines_pass`] noted; returns their number.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn drop_hits(words: &mut [u32; ROOM], found: &[u32; ROOM], count: usize) -> usize {
    let mut kept = 0;
    for i in (0..count).step_by(8) {
        // SAFETY: `kept <= i`, and the buffers have more than a vector behind `count`.
        unsafe {
            let found = _mm256_loadu_si256(found.as_ptr().add(i).cast());
            let missed = lanes8(_mm256_cmpeq_epi32(found, _mm256_setzero_si256()));
            let order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(COMPACT[missed as usize].cast_signed()));
            let all = _mm256_loadu_si256(words.as_ptr().add(i).cast());
            let left = _mm256_permutevar8x32_epi32(all, order);
            _mm256_storeu_si256(words.as_mut_ptr().add(kept).cast(), left);
            kept += missed.count_ones() as usize;
        }
    }
    kept
}

/// `MOVE[p]`: with the match in place `p` the ways up to it move; row 16 is no match, and all move.
pub(super) const fn moves<const WAYS: usize>() -> [[i8; 16]; 17] {
    let mut table = [[0; 16]; 17];
    let mut place = 0;
    while place <= 16 {
        let mut way = 0;
        while way < WAYS && way <= place {
            table[place][way] = -1;
            way += 1;
        }
        place += 1;
    }
    table
}

/// As [`line_step`] over 32 places; returns the lanes that matched.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn line_step32(set: *mut u16, tag: __m128i) -> [__m256i; 2] {
    // SAFETY: the caller's set is 64 aligned bytes; depths 0 to 32 stay within `WIDE_BYTES`.
    unsafe {
        let low = _mm256_load_si256(set.cast());
        let high = _mm256_load_si256(set.add(16).cast());
        let key = _mm256_broadcastw_epi16(tag);
        let same = [_mm256_cmpeq_epi16(low, key), _mm256_cmpeq_epi16(high, key)];
        let found = same.map(|lanes| u64::from(_mm256_movemask_epi8(lanes).cast_unsigned()));
        let depth = (found[0] | found[1] << 32).trailing_zeros() as usize / 2;
        let moves = WIDE_BYTES.as_ptr().add(32 - depth);
        let low_moved = _mm256_alignr_epi8::<14>(low, _mm256_permute2x128_si256::<0x02>(low, key));
        let high_moved = _mm256_alignr_epi8::<14>(high, _mm256_permute2x128_si256::<0x03>(high, low));
        let low_moves = _mm256_cvtepi8_epi16(_mm_loadu_si128(moves.cast()));
        let high_moves = _mm256_cvtepi8_epi16(_mm_loadu_si128(moves.add(16).cast()));
        _mm256_store_si256(set.cast(), _mm256_blendv_epi8(low, low_moved, low_moves));
        _mm256_store_si256(set.add(16).cast(), _mm256_blendv_epi8(high, high_moved, high_moves));
        same
    }
}

/// Window of lane masks of a byte each: from `WIDE_BYTES + 32 - p`, lanes 0 to p are set.
pub(super) const WIDE_BYTES: [i8; 64] = {
    let mut table = [0; 64];
    let mut i = 0;
    while i <= 32 {
        table[i] = -1;
        i += 1;
    }
    table
};

/// One access in a set of 16-bit tags, the lowest lane of `tag`, as [`step`]. Returns zero on a miss, and the lanes that
/// matched.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn line_step<const WAYS: usize>(set: *mut u16, tag: __m128i) -> (u32, __m256i) {
    // SAFETY: the caller's set is `stride(WAYS)` words, aligned to their size. Two bits of `found` stand for each of
    // 8 or 16 ways, and 32 zeros for none, so the row is at most 16.
    unsafe {
        let moves = |found: u32| {
            let rows = const { &moves::<WAYS>() };
            _mm_loadu_si128(rows.get_unchecked(found.trailing_zeros() as usize / 2).as_ptr().cast())
        };
        match WAYS {
            4 => {
                let old = _mm_loadl_epi64(set.cast());
                let same = _mm_cmpeq_epi16(old, _mm_broadcastw_epi16(tag));
                // In one word of 64 bits: less one, the lanes below the match become ones, or without a match all.
                let moves = _mm_or_si128(same, _mm_add_epi64(same, _mm_set1_epi64x(-1)));
                let moved = _mm_blend_epi16::<1>(_mm_slli_epi64::<16>(old), tag);
                _mm_storel_epi64(set.cast(), _mm_blendv_epi8(old, moved, moves));
                let found = _mm_cvtsi128_si32(_mm_packs_epi16(same, same)).cast_unsigned();
                (found, _mm256_zextsi128_si256(same))
            }
            8 => {
                let old = _mm_load_si128(set.cast());
                let key = _mm_broadcastw_epi16(tag);
                let same = _mm_cmpeq_epi16(old, key);
                let found = _mm_movemask_epi8(same).cast_unsigned();
                let moved = _mm_alignr_epi8::<14>(old, key);
                let moves = _mm_cvtepi8_epi16(moves(found));
                _mm_store_si128(set.cast(), _mm_blendv_epi8(old, moved, moves));
                (found, _mm256_zextsi128_si256(same))
            }
            _ => {
                let old = _mm256_load_si256(set.cast());
                let key = _mm256_broadcastw_epi16(tag);
                let same = _mm256_cmpeq_epi16(old, key);
                let found = _mm256_movemask_epi8(same).cast_unsigned();
                let below = _mm256_permute2x128_si256::<0x02>(old, key);
                let moved = _mm256_alignr_epi8::<14>(old, below);
                let moves = _mm256_cvtepi8_epi16(moves(found));
                _mm256_store_si256(set.cast(), _mm256_blendv_epi8(old, moved, moves));
                (found, same)
            }
        }
    }
}
