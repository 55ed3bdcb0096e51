//! The plain loop of [`super::plain`] and the event loop of [`super::batch`] for AVX2. The only file with `unsafe`.
//!
//! Why each use is sound:
//! - Functions with `#[target_feature]` are called only after [`available`] said that the CPU has these features.
//! - Loads and stores go to rows of [`Packed`], whose length is `sets * stride` pages rounded up to whole 64-byte rows;
//!   `id & (sets - 1)` is a set number because `sets` is a power of two ([`super::Geometry`] checks it for the linear
//!   index), and a set's `ways` fit its stride.
//! - [`Entry`] is a transparent `u64`, so a slice of entries is a slice of words.
//! - Batch buffers have room for `BATCH` pages and one vector more; at most `BATCH` are ever appended, and a vector
//!   store begins at most at the number appended so far.
//!
//! The scalar twins are in `plain.rs` and `batch.rs`; tests compare state, counters and answers.
#![allow(unsafe_code)]

use super::array::{Entry, TreeShape};
use super::batch::{Job, Ran};
use super::curve::Stacks;
use super::plain::{Answers, Hits, State};
use super::stream::EVENT_BYTES;

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

/// The plain loop; `None` if a page lies outside the window.
#[cfg(target_arch = "x86_64")]
pub(super) fn run(
    state: &mut State,
    vpns: &[u64],
    base: u64,
    filter: bool,
    answers: Answers<'_>,
    walk: u8,
) -> Option<Hits> {
    assert!(available());
    // SAFETY: the features are present.
    unsafe { x86::run(state, vpns, base, filter, answers, walk) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn run(_: &mut State, _: &[u64], _: u64, _: bool, _: Answers<'_>, _: u8) -> Option<Hits> {
    None
}

/// One batch through an array of direction-bit trees; see [`super::array::Array::pass`].
#[cfg(target_arch = "x86_64")]
pub(super) fn tree_pass(
    keys: &mut [Entry],
    tree: &mut [u64],
    fold: u32,
    shape: TreeShape,
    context: u64,
    pages: &mut [u64],
    numbers: &mut [u32],
) -> usize {
    assert!(available() && pages.len() == numbers.len() && tree.len().is_power_of_two());
    // SAFETY: the features are present; each call names the ways of its shape.
    unsafe {
        match shape {
            TreeShape::Four => x86::tree_pass::<4, 1>(keys, tree, fold, context, pages, numbers),
            TreeShape::Eight => x86::tree_pass::<8, 1>(keys, tree, fold, context, pages, numbers),
            TreeShape::ThreeFours => x86::tree_pass::<12, 3>(keys, tree, fold, context, pages, numbers),
        }
    }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn tree_pass(
    _: &mut [Entry],
    _: &mut [u64],
    _: u32,
    _: TreeShape,
    _: u64,
    _: &mut [u64],
    _: &mut [u32],
) -> usize {
    0
}

/// One batch through an array of recency orders; see [`super::array::Array::pass`].
#[cfg(target_arch = "x86_64")]
pub(super) fn lru_pass(
    keys: &mut [Entry],
    ways: usize,
    fold: u32,
    context: u64,
    pages: &mut [u64],
    numbers: &mut [u32],
) -> usize {
    assert!(available() && pages.len() == numbers.len());
    // SAFETY: the features are present.
    unsafe { x86::lru_pass(keys, ways, fold, context, pages, numbers) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn lru_pass(_: &mut [Entry], _: usize, _: u32, _: u64, _: &mut [u64], _: &mut [u32]) -> usize {
    0
}

/// The first way that holds either key.
#[cfg(target_arch = "x86_64")]
pub(super) fn find(ways: &[Entry], key: Entry, global: Entry) -> Option<usize> {
    debug_assert!(available());
    // SAFETY: the caller asked `available`.
    unsafe { x86::find(ways, key.0, global.0) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn find(_: &[Entry], _: Entry, _: Entry) -> Option<usize> {
    None
}

/// The depths at which pages are found in LRU stacks.
#[cfg(target_arch = "x86_64")]
pub(super) fn find_depths(stacks: &mut Stacks, names: &[u32]) {
    assert!(available());
    // SAFETY: the features are present.
    unsafe { x86::find_depths(stacks, names) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn find_depths(_: &mut Stacks, _: &[u32]) {}

/// The event loop: runs events until one that it cannot, or finds that a page's G bit changed.
#[cfg(target_arch = "x86_64")]
pub(super) fn run_events(job: &mut Job, events: &[[u8; EVENT_BYTES]], levels: Option<&mut [u8]>) -> Ran {
    assert!(available());
    // SAFETY: the features are present.
    unsafe { x86::run_events(job, events, levels) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn run_events(_: &mut Job, _: &[[u8; EVENT_BYTES]], _: Option<&mut [u8]>) -> Ran {
    Ran::Events(0)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)] // intrinsics name themselves
    use std::arch::x86_64::*;

    use super::super::array::{Entry, MRU_SHIFT, follow, point_away};
    use super::super::batch::{Job, Ran, Removal, control};
    use super::super::curve::{MAX_WAYS, Stacks};
    use super::super::plain::{Answers, BATCH, Hits, Packed, State};
    use super::super::stream::{EVENT_BYTES, Event, NO_ACCESS};
    use super::super::{PageSize, Pcid, Vpn};

    /// Buffers of one batch, with room for one vector beyond its end.
    #[repr(C, align(64))]
    struct Buffers {
        ids: [u32; BATCH + 8],
        missed: [u32; BATCH + 8],
        missed_at: [u32; BATCH + 8],
    }

    /// `KEEP4[m]`: lanes behind the match stay; with no match all move.
    const KEEP4: [[i32; 4]; 16] = {
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
    const MOVES: [i32; 34] = {
        let mut table = [0; 34];
        let mut i = 0;
        while i <= 16 {
            table[i] = -1;
            i += 1;
        }
        table
    };

    /// `COMPACT[m]`: the numbers of the lanes set in `m`, a byte each.
    const COMPACT: [u64; 256] = {
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

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn run(
        state: &mut State,
        vpns: &[u64],
        base: u64,
        filter: bool,
        answers: Answers<'_>,
        walk: u8,
    ) -> Option<Hits> {
        let State { first, second, .. } = state;
        let second_ways = second.as_ref().map_or(0, |second| second.ways);
        // SAFETY: as the caller's.
        unsafe {
            match (first.ways, second_ways) {
                (4, 0) => levels::<4, 0>(first, second.as_mut(), vpns, base, filter, answers, walk),
                (4, 8) => levels::<4, 8>(first, second.as_mut(), vpns, base, filter, answers, walk),
                (4, 12) => levels::<4, 12>(first, second.as_mut(), vpns, base, filter, answers, walk),
                (4, 16) => levels::<4, 16>(first, second.as_mut(), vpns, base, filter, answers, walk),
                (8, 0) => levels::<8, 0>(first, second.as_mut(), vpns, base, filter, answers, walk),
                (8, 8) => levels::<8, 8>(first, second.as_mut(), vpns, base, filter, answers, walk),
                (8, 12) => levels::<8, 12>(first, second.as_mut(), vpns, base, filter, answers, walk),
                (8, 16) => levels::<8, 16>(first, second.as_mut(), vpns, base, filter, answers, walk),
                _ => None,
            }
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn levels<const FIRST: usize, const SECOND: usize>(
        first: &mut Packed,
        second: Option<&mut Packed>,
        vpns: &[u64],
        base: u64,
        filter: bool,
        mut answers: Answers<'_>,
        walk: u8,
    ) -> Option<Hits> {
        let mut buffers = Buffers { ids: [0; BATCH + 8], missed: [0; BATCH + 8], missed_at: [0; BATCH + 8] };
        let first_mask = first.sets - 1;
        let first_rows = first.rows.as_mut_ptr().cast::<u32>();
        let (second_rows, second_mask) =
            second.map_or((std::ptr::null_mut(), 0), |s| (s.rows.as_mut_ptr().cast::<u32>(), s.sets - 1));
        let mut hits = Hits::default();
        let mut previous = u32::MAX;
        for (number, batch) in vpns.chunks(BATCH).enumerate() {
            // SAFETY: see the head of the file; `batch` has at most `BATCH` pages.
            unsafe {
                let kept = if filter {
                    intern::<true>(batch, base, &mut buffers.ids, &mut previous)?
                } else {
                    intern::<false>(batch, base, &mut buffers.ids, &mut previous)?
                };
                let ids = &buffers.ids[..kept];
                let missed = buffers.missed.as_mut_ptr();
                let mut misses = 0;
                if let Some((out, first_level, second_level)) = &mut answers {
                    let out = &mut out[number * BATCH..][..batch.len()];
                    let at = buffers.missed_at.as_mut_ptr();
                    for (i, &id) in ids.iter().enumerate() {
                        let hit = step::<FIRST>(first_rows, first_mask, id);
                        *missed.add(misses) = id;
                        *at.add(misses) = i as u32;
                        misses += usize::from(!hit);
                        out[i] = *first_level;
                    }
                    for i in 0..misses {
                        let hit = SECOND > 0 && step::<SECOND>(second_rows, second_mask, *missed.add(i));
                        hits.second += u64::from(hit);
                        out[*at.add(i) as usize] = if hit { *second_level } else { walk };
                    }
                } else {
                    for &id in ids {
                        let hit = step::<FIRST>(first_rows, first_mask, id);
                        *missed.add(misses) = id;
                        misses += usize::from(!hit);
                    }
                    if SECOND > 0 {
                        let mut found = 0;
                        for i in 0..misses {
                            found += u64::from(step::<SECOND>(second_rows, second_mask, *missed.add(i)));
                        }
                        hits.second += found;
                    }
                }
                hits.first += (batch.len() - misses) as u64;
            }
        }
        Some(hits)
    }

    /// Interns a batch; with `FILTER`, without pages that repeat their predecessor. Returns how many are left.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn intern<const FILTER: bool>(
        batch: &[u64],
        base: u64,
        ids: &mut [u32; BATCH + 8],
        previous: &mut u32,
    ) -> Option<usize> {
        let bases = _mm256_set1_epi64x(base.cast_signed());
        let mut outside = _mm256_setzero_si256();
        let (eights, rest) = batch.as_chunks::<8>();
        let rotate = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
        let mut last = _mm256_set1_epi32(previous.cast_signed());
        let mut kept = 0;
        for eight in eights {
            // SAFETY: `eight` is 8 pages; `kept` <= pages seen so far <= BATCH, and the buffer has 8 more.
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

    /// One access: the page becomes the newest of its set; hit and miss are the same shift.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn step<const WAYS: usize>(rows: *mut u32, mask: usize, id: u32) -> bool {
        // SAFETY: the set lies within the rows, aligned to its stride.
        unsafe {
            let set = rows.add((id as usize & mask) * WAYS.next_power_of_two());
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
    unsafe fn step4(set: *mut u32, id: u32) -> bool {
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
    unsafe fn step8(set: *mut u32, id: u32) -> usize {
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
    unsafe fn step12(set: *mut u32, id: u32) -> bool {
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
            let moves = MOVES.as_ptr().add(16 - place);
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
    unsafe fn step16(set: *mut u32, id: u32, enters: u32) -> usize {
        // SAFETY: 64 bytes of one aligned row; positions 0 to 16 stay within `MOVES`.
        unsafe {
            let head = _mm256_load_si256(set.cast());
            let tail = _mm256_load_si256(set.add(8).cast());
            let key = _mm256_set1_epi32(id.cast_signed());
            let found_in = |lanes| {
                _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(lanes, key))).cast_unsigned()
            };
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
    unsafe fn step32(set: *mut u32, id: u32) -> usize {
        // SAFETY: 128 bytes of two aligned rows; each half's place is 0 to 16.
        unsafe {
            let last = *set.add(15);
            let place = step16(set, id, id);
            // Found in the first half: the second does not move.
            if place < 16 { place } else { 16 + step16(set.add(16), id, last) }
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn find_depths(stacks: &mut Stacks, names: &[u32]) {
        // SAFETY: `sets * depth` places in whole rows, `sets` a power of two.
        unsafe {
            match stacks.depth {
                8 => depths::<8>(stacks, names),
                16 => depths::<16>(stacks, names),
                _ => depths::<32>(stacks, names),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn depths<const DEPTH: usize>(stacks: &mut Stacks, names: &[u32]) {
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

    /// All lanes one place down, lane 0 from `new`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn shift_in(old: __m256i, new: __m256i) -> __m256i {
        let down = _mm256_permutevar8x32_epi32(old, _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6));
        _mm256_blend_epi32::<1>(down, new)
    }

    /// `KEEP64[m]`: of four words, those behind the match stay; with no match all move.
    const KEEP64: [[i64; 4]; 16] = {
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

    /// Window of word masks: from `MOVES64 + 16 - p`, words 0 to p are set.
    const MOVES64: [i64; 34] = {
        let mut table = [0; 34];
        let mut i = 0;
        while i <= 16 {
            table[i] = -1;
            i += 1;
        }
        table
    };

    /// `SQUEEZE[m]`: 32-bit lanes that bring the words set in `m` to the front; the rest is lane 7, to be masked.
    const SQUEEZE: [[i32; 8]; 16] = {
        let mut table = [[7; 8]; 16];
        let mut m = 0_usize;
        while m < 16 {
            let (mut word, mut at) = (0, 0);
            while word < 4 {
                if m >> word & 1 == 1 {
                    table[m][2 * at] = 2 * word;
                    table[m][2 * at + 1] = 2 * word + 1;
                    at += 1;
                }
                word += 1;
            }
            m += 1;
        }
        table
    };

    /// Misses of one batch of events.
    #[repr(C, align(64))]
    struct Missed {
        keys: [u64; BATCH + 1],
        others: [u64; BATCH + 1],
        at: [u32; BATCH + 1],
        cpus: [u16; BATCH + 1],
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn run_events(
        job: &mut Job,
        events: &[[u8; EVENT_BYTES]],
        levels: Option<&mut [u8]>,
    ) -> Ran {
        // SAFETY: as the caller's.
        unsafe {
            match (job.first_ways / 4, job.second_ways / 4) {
                (1, 1) => events_of::<1, 1>(job, events, levels),
                (1, 2) => events_of::<1, 2>(job, events, levels),
                (1, 3) => events_of::<1, 3>(job, events, levels),
                (1, 4) => events_of::<1, 4>(job, events, levels),
                (2, 2) => events_of::<2, 2>(job, events, levels),
                (2, 3) => events_of::<2, 3>(job, events, levels),
                (2, 4) => events_of::<2, 4>(job, events, levels),
                _ => Ran::Events(0),
            }
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn events_of<const FIRST: usize, const SECOND: usize>(
        job: &mut Job,
        events: &[[u8; EVENT_BYTES]],
        levels: Option<&mut [u8]>,
    ) -> Ran {
        // SAFETY: as the caller's.
        unsafe {
            match levels {
                None => event_loop::<FIRST, SECOND, false>(job, events, &mut []),
                Some(levels) => event_loop::<FIRST, SECOND, true>(job, events, levels),
            }
        }
    }

    /// `FIRST` and `SECOND` are the vectors of four words per set.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn event_loop<const FIRST: usize, const SECOND: usize, const LEVELS: bool>(
        job: &mut Job,
        events: &[[u8; EVENT_BYTES]],
        levels: &mut [u8],
    ) -> Ran {
        let mut missed =
            Missed { keys: [0; BATCH + 1], others: [0; BATCH + 1], at: [0; BATCH + 1], cpus: [0; BATCH + 1] };
        let (first_mask, second_mask) = (job.first_sets - 1, job.second_sets - 1);
        let words = job.words;
        let rows = job.lines.as_mut_ptr().cast::<u64>();
        let mut crossed = _mm256_setzero_si256();
        let mut start = 0;
        // An access to a 4 KiB page: op 0 to 2, no size bits. One addition makes op 3 fail the same test as op 4.
        let one_op = 1_u64 << 48;
        let no_access = 0xfc << 48 | 0x0c << 56;
        while start < events.len() {
            let batch = &events[start..(start + BATCH).min(events.len())];
            let mut misses = 0;
            let mut ran = 0;
            for (i, event) in batch.iter().enumerate() {
                let (halves, _) = event.as_chunks::<8>();
                let (vpn, rest) = (u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]));
                if (rest + one_op) & no_access != 0 {
                    break;
                }
                ran = i + 1;
                let cpu = (rest >> 16) as usize & 0xffff;
                let pcid = rest & 0xffff;
                let context = pcid << Entry::PCID_SHIFT;
                let either = context ^ Entry::GLOBAL;
                let own = vpn & Vpn::MASK | Entry::VALID | context;
                let (key, other) =
                    if rest >> 56 & 1 == 0 { (own, own ^ either) } else { (own ^ either, own) };
                let counts = &mut job.cpus[cpu];
                counts.switches += u64::from(counts.pcid != pcid);
                counts.pcid = pcid;
                counts.accesses += 1;
                // SAFETY: `cpu` is below the number of CPUs (indexed above), the set within its level.
                unsafe {
                    let set = rows.add(cpu * words + (vpn as usize & first_mask) * FIRST * 4);
                    let hit = step64::<FIRST>(set, key, other, &mut crossed);
                    counts.first += u64::from(hit);
                    *missed.keys.as_mut_ptr().add(misses) = key;
                    *missed.others.as_mut_ptr().add(misses) = other;
                    *missed.cpus.as_mut_ptr().add(misses) = cpu as u16;
                    if LEVELS {
                        *missed.at.as_mut_ptr().add(misses) = (start + i) as u32;
                        levels[start + i] = 0;
                    }
                    misses += usize::from(!hit);
                }
            }
            for i in 0..misses {
                let (key, cpu) = (missed.keys[i], usize::from(missed.cpus[i]));
                // SAFETY: as above, in the second level.
                let hit = unsafe {
                    let set =
                        rows.add(cpu * words + job.second_at + (key as usize & second_mask) * SECOND * 4);
                    step64::<SECOND>(set, key, missed.others[i], &mut crossed)
                };
                job.cpus[cpu].second += u64::from(hit);
                if LEVELS {
                    levels[missed.at[i] as usize] = 2 - u8::from(hit);
                }
            }
            start += ran;
            if _mm256_testz_si256(crossed, crossed) == 0 {
                return Ran::Mixed;
            }
            // What ended the batch early: control events, one after the other.
            if ran < batch.len() {
                let event = Event::read(&events[start]);
                let cpu = usize::from(event.cpu);
                let Some((pcid, removal)) = control(event, job.cpus[cpu].pcid as u16) else {
                    return Ran::Events(start);
                };
                let pcid = u64::from(pcid);
                job.cpus[cpu].switches += u64::from(job.cpus[cpu].pcid != pcid);
                job.cpus[cpu].pcid = pcid;
                // SAFETY: the CPU exists.
                job.cpus[cpu].invalidated += unsafe { remove::<FIRST, SECOND>(job, cpu, removal) };
                if LEVELS {
                    levels[start] = NO_ACCESS;
                }
                start += 1;
            }
        }
        Ran::Events(start)
    }

    /// One access on a set of `VECTORS * 4` words; `crossed` gathers whether the other key was there.
    #[inline]
    #[allow(clippy::needless_range_loop)] // a constant number of registers
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn step64<const VECTORS: usize>(
        set: *mut u64,
        key: u64,
        other: u64,
        crossed: &mut __m256i,
    ) -> bool {
        let wanted = _mm256_set1_epi64x(key.cast_signed());
        let unwanted = _mm256_set1_epi64x(other.cast_signed());
        // SAFETY: the set is `VECTORS` aligned vectors; positions 0 to 16 stay within the tables.
        unsafe {
            let mut old = [_mm256_setzero_si256(); VECTORS];
            let mut found = 0;
            for i in 0..VECTORS {
                old[i] = _mm256_load_si256(set.add(4 * i).cast());
                let same = _mm256_cmpeq_epi64(old[i], wanted);
                *crossed = _mm256_or_si256(*crossed, _mm256_cmpeq_epi64(old[i], unwanted));
                found |= _mm256_movemask_pd(_mm256_castsi256_pd(same)).cast_unsigned() << (4 * i);
            }
            if VECTORS == 1 {
                let moved = _mm256_blend_epi32::<3>(_mm256_permute4x64_epi64::<0x90>(old[0]), wanted);
                let keep = _mm256_loadu_si256(KEEP64.as_ptr().add(found as usize).cast());
                _mm256_store_si256(set.cast(), _mm256_blendv_epi8(moved, old[0], keep));
            } else {
                let place = (found | 1 << (4 * VECTORS)).trailing_zeros() as usize;
                let moves = MOVES64.as_ptr().add(16 - place);
                let mut carry = wanted;
                for i in 0..VECTORS {
                    let rotated = _mm256_permute4x64_epi64::<0x93>(old[i]);
                    let moved = _mm256_blend_epi32::<3>(rotated, carry);
                    carry = rotated;
                    let mask = _mm256_loadu_si256(moves.add(4 * i).cast());
                    _mm256_store_si256(set.add(4 * i).cast(), _mm256_blendv_epi8(old[i], moved, mask));
                }
            }
            found != 0
        }
    }

    /// Carries out a removal on one CPU; returns the entries that left.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn remove<const FIRST: usize, const SECOND: usize>(
        job: &mut Job,
        cpu: usize,
        removal: Removal,
    ) -> u64 {
        let base = cpu * job.words;
        // SAFETY: the CPU's words.
        let rows = unsafe { job.lines.as_mut_ptr().cast::<u64>().add(base) };
        let second_at = job.second_at;
        match removal {
            Removal::Nothing => 0,
            Removal::All => {
                let zero = _mm256_setzero_si256();
                let mut empty = zero;
                for at in (0..job.words).step_by(4) {
                    // SAFETY: the CPU's words are whole lines of eight.
                    unsafe {
                        let old = _mm256_load_si256(rows.add(at).cast());
                        empty = _mm256_sub_epi64(empty, _mm256_cmpeq_epi64(old, zero));
                        _mm256_store_si256(rows.add(at).cast(), zero);
                    }
                }
                let pair = _mm_add_epi64(_mm256_castsi256_si128(empty), _mm256_extracti128_si256::<1>(empty));
                let sum = _mm_add_epi64(pair, _mm_unpackhi_epi64(pair, pair));
                job.words as u64 - _mm_cvtsi128_si64(sum).cast_unsigned()
            }
            Removal::Matching { mask, value } => {
                let dies = Dies { mask, value, also: value };
                let mut removed = 0;
                // SAFETY: every set of both levels.
                unsafe {
                    for set in 0..job.first_sets {
                        removed += squeeze::<FIRST>(rows.add(set * FIRST * 4), dies);
                    }
                    for set in 0..job.second_sets {
                        removed += squeeze::<SECOND>(rows.add(second_at + set * SECOND * 4), dies);
                    }
                }
                removed
            }
            Removal::Pages { first, pages, own, globals } => {
                let mut removed = 0;
                for page in first.0..(first.0 + pages).min(Vpn::MASK + 1) {
                    let key = |pcid, global| Entry::new(page, PageSize::K4, pcid, global).0;
                    let value = key(own, false);
                    let also = if globals { key(Pcid(0), true) } else { value };
                    let dies = Dies { mask: u64::MAX, value, also };
                    // SAFETY: the page's sets.
                    unsafe {
                        let set = page as usize & (job.first_sets - 1);
                        removed += squeeze::<FIRST>(rows.add(set * FIRST * 4), dies);
                        let set = page as usize & (job.second_sets - 1);
                        removed += squeeze::<SECOND>(rows.add(second_at + set * SECOND * 4), dies);
                    }
                }
                removed
            }
        }
    }

    /// Entries whose word under `mask` is `value` or `also`.
    #[derive(Clone, Copy)]
    struct Dies {
        mask: u64,
        value: u64,
        also: u64,
    }

    /// Takes the dying entries out of a set; survivors move up in order, freed ways are at the end.
    #[inline]
    #[allow(clippy::needless_range_loop)] // a constant number of registers
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn squeeze<const VECTORS: usize>(set: *mut u64, dies: Dies) -> u64 {
        let mask = _mm256_set1_epi64x(dies.mask.cast_signed());
        let value = _mm256_set1_epi64x(dies.value.cast_signed());
        let also = _mm256_set1_epi64x(dies.also.cast_signed());
        // SAFETY: `VECTORS` aligned vectors; the write position never passes the read position, so a store of four
        // words never reaches beyond the set.
        unsafe {
            let mut old = [_mm256_setzero_si256(); VECTORS];
            let mut dead = [0_u32; VECTORS];
            let mut all = 0;
            for i in 0..VECTORS {
                old[i] = _mm256_load_si256(set.add(4 * i).cast());
                let seen = _mm256_and_si256(old[i], mask);
                let same = _mm256_or_si256(_mm256_cmpeq_epi64(seen, value), _mm256_cmpeq_epi64(seen, also));
                dead[i] = _mm256_movemask_pd(_mm256_castsi256_pd(same)).cast_unsigned();
                all |= dead[i];
            }
            if all == 0 {
                return 0;
            }
            let mut removed = 0;
            let mut at = 0;
            for i in 0..VECTORS {
                let lives = !dead[i] as usize & 0xf;
                let order = _mm256_loadu_si256(SQUEEZE.as_ptr().add(lives).cast());
                let kept = lives.count_ones() as usize;
                let front = _mm256_permutevar8x32_epi32(old[i], order);
                // Words 0 to kept - 1; the window ends one earlier than a move to place `kept`.
                let here = _mm256_loadu_si256(MOVES64.as_ptr().add(17 - kept).cast());
                _mm256_storeu_si256(set.add(at).cast(), _mm256_and_si256(front, here));
                at += kept;
                removed += u64::from(dead[i].count_ones());
            }
            for word in at..4 * VECTORS {
                *set.add(word) = 0;
            }
            removed
        }
    }

    /// What a use of each way does to the direction bits: those to clear and those to set.
    const fn uses<const WAYS: usize, const GROUPS: usize>() -> [(u64, u64); WAYS] {
        let mut table = [(0, 0); WAYS];
        let size = (WAYS / GROUPS) as u32;
        let mut way = 0;
        while way < WAYS {
            let group = way as u32 / size;
            let inside = way as u32 % size;
            let from_none = point_away(0, group * size, size, inside);
            let from_all = point_away(u64::MAX, group * size, size, inside);
            let mru = if GROUPS > 1 { 0xff << MRU_SHIFT } else { 0 };
            table[way] =
                (from_all & !mru, from_none | if GROUPS > 1 { (group as u64) << MRU_SHIFT } else { 0 });
            way += 1;
        }
        table
    }

    /// The victim of a tree by its direction bits.
    const VICTIM4: [u8; 16] = {
        let mut table = [0; 16];
        let mut bits = 0;
        while bits < 16 {
            table[bits as usize] = follow(bits, 0, 4) as u8;
            bits += 1;
        }
        table
    };

    /// The victim of a tree of eight ways by its direction bits.
    const VICTIM8: [u8; 256] = {
        let mut table = [0; 256];
        let mut bits = 0;
        while bits < 256 {
            table[bits as usize] = follow(bits, 0, 8) as u8;
            bits += 1;
        }
        table
    };

    /// `WAYS` ways in `GROUPS` trees.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn tree_pass<const WAYS: usize, const GROUPS: usize>(
        keys: &mut [Entry],
        tree: &mut [u64],
        fold: u32,
        context: u64,
        pages: &mut [u64],
        numbers: &mut [u32],
    ) -> usize {
        assert!(keys.len() == tree.len() * WAYS);
        // SAFETY: as the caller's, and the lengths fit.
        unsafe {
            if keys.contains(&Entry::EMPTY) {
                trees::<WAYS, GROUPS, false>(keys, tree, fold, context, pages, numbers)
            } else {
                trees::<WAYS, GROUPS, true>(keys, tree, fold, context, pages, numbers)
            }
        }
    }

    /// `FULL`: no way is empty.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn trees<const WAYS: usize, const GROUPS: usize, const FULL: bool>(
        keys: &mut [Entry],
        tree: &mut [u64],
        fold: u32,
        context: u64,
        pages: &mut [u64],
        numbers: &mut [u32],
    ) -> usize {
        let table = const { uses::<WAYS, GROUPS>() };
        let mask = tree.len() - 1;
        let keys = keys.as_mut_ptr().cast::<u64>();
        // Without folding nothing is mixed in: no page has bits above 45.
        let fold = if fold == 0 { 63 } else { fold };
        let mut missed = 0;
        for i in 0..pages.len() {
            let (page, number) = (pages[i], numbers[i]);
            let set = (page ^ page >> fold) as usize & mask;
            // SAFETY: `set` is below the number of sets, ways below `WAYS`; `missed <= i`.
            unsafe {
                let row = keys.add(set * WAYS);
                let bits = *tree.get_unchecked(set);
                let hit = lanes::<WAYS>(row, context | page);
                let victim = if GROUPS == 1 {
                    let bits = bits as usize;
                    usize::from(if WAYS == 4 { VICTIM4[bits & 0xf] } else { VICTIM8[bits & 0xff] })
                } else {
                    let recent = (bits >> MRU_SHIFT) as usize;
                    let next = if recent + 1 == GROUPS { 0 } else { 4 * (recent + 1) };
                    next + usize::from(VICTIM4[(bits >> next) as usize & 0xf])
                };
                let free = if FULL { 0 } else { lanes::<WAYS>(row, 0) };
                let wanted = if hit == 0 { free } else { hit };
                let way = if wanted == 0 { victim } else { wanted.trailing_zeros() as usize };
                *row.add(way) = context | page;
                let (keep, set_bits) = *table.get_unchecked(way);
                *tree.get_unchecked_mut(set) = bits & keep | set_bits;
                *pages.get_unchecked_mut(missed) = page;
                *numbers.get_unchecked_mut(missed) = number;
                missed += usize::from(hit == 0);
            }
        }
        missed
    }

    /// Bit `i` is set where way `i` of `WAYS` holds `key`.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn lanes<const WAYS: usize>(row: *const u64, key: u64) -> u32 {
        let key = _mm256_set1_epi64x(key.cast_signed());
        let mut found = 0;
        for at in (0..WAYS).step_by(4) {
            // SAFETY: `WAYS` words.
            let ways = unsafe { _mm256_loadu_si256(row.add(at).cast()) };
            let same = _mm256_castsi256_pd(_mm256_cmpeq_epi64(ways, key));
            found |= _mm256_movemask_pd(same).cast_unsigned() << at;
        }
        found
    }

    /// The first way that holds either key.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn find(ways: &[Entry], key: u64, global: u64) -> Option<usize> {
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

    /// Recency orders of any number of ways.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn lru_pass(
        keys: &mut [Entry],
        ways: usize,
        fold: u32,
        context: u64,
        pages: &mut [u64],
        numbers: &mut [u32],
    ) -> usize {
        let sets = keys.len() / ways;
        assert!(sets.is_power_of_two() && keys.len() == sets * ways);
        let keys = keys.as_mut_ptr().cast::<u64>();
        let fold = if fold == 0 { 63 } else { fold };
        let mut missed = 0;
        for i in 0..pages.len() {
            let (page, number) = (pages[i], numbers[i]);
            let set = (page ^ page >> fold) as usize & (sets - 1);
            // SAFETY: the set lies within the keys; `missed <= i`.
            unsafe {
                let hit = renew(keys.add(set * ways), ways, context | page);
                *pages.get_unchecked_mut(missed) = page;
                *numbers.get_unchecked_mut(missed) = number;
                missed += usize::from(!hit);
            }
        }
        missed
    }

    /// Makes `key` the newest of `ways` words. Loads and stores keep their places from call to call, so that each load
    /// finds the store before it whole.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn renew(row: *mut u64, ways: usize, key: u64) -> bool {
        let wanted = _mm256_set1_epi64x(key.cast_signed());
        let mut carry = wanted;
        let mut at = 0;
        // SAFETY: all accesses are below `ways` words.
        unsafe {
            while at + 4 <= ways {
                let old = _mm256_loadu_si256(row.add(at).cast());
                let same = _mm256_castsi256_pd(_mm256_cmpeq_epi64(old, wanted));
                let found = _mm256_movemask_pd(same) as usize;
                let rotated = _mm256_permute4x64_epi64::<0x93>(old);
                let moved = _mm256_blend_epi32::<3>(rotated, carry);
                if found != 0 {
                    let keep = _mm256_loadu_si256(KEEP64.as_ptr().add(found).cast());
                    _mm256_storeu_si256(row.add(at).cast(), _mm256_blendv_epi8(moved, old, keep));
                    return true;
                }
                _mm256_storeu_si256(row.add(at).cast(), moved);
                carry = rotated;
                at += 4;
            }
            let mut carry = _mm256_extract_epi64::<0>(carry).cast_unsigned();
            while at < ways {
                let old = *row.add(at);
                *row.add(at) = carry;
                if old == key {
                    return true;
                }
                carry = old;
                at += 1;
            }
        }
        false
    }
}
