//! The loops of [`super::plain`], [`super::packed`], [`super::batch`] and [`super::curve`] for AVX2. The only file with
//! `unsafe`.
//!
//! Why each use is sound:
//! - Functions with `#[target_feature]` are called only after [`available`] said that the CPU has these features; each
//!   safe wrapper asserts it.
//! - Loads and stores of sets go to rows of [`Packed`], [`Stacks`] or [`Job`]: whole 64-byte lines, aligned, `sets * stride`
//!   pages long. A set number is masked with `sets - 1`, and `sets` is a power of two ([`super::Geometry`] checks it for
//!   the linear and the XOR index; the loops assert it), so a set lies within its rows; a set's `ways` fit its stride, and
//!   a stride that is no whole vector is loaded by the half.
//! - The event loop takes its sets from [`Job`] by the event's CPU, which it compares with the number of CPUs for eight
//!   events at a time, and panics on; its events are a copy that nobody else can write to ([`super::stream::Rules`]), so
//!   that a CPU which is read again is the one that was compared. `pack` refuses states whose places do not fit 32 bits.
//! - Pages of the other loops stand in memory that Python may write to meanwhile. Whatever is read there is masked before
//!   it names a set, and nothing else depends on it.
//! - A [`Log`]'s bucket has eight bits and there are 256 of them; that its vectors are as long is asserted.
//! - [`Entry`] is a transparent `u64`, so four entries are a vector of words and sixteen are four.
//! - A set of [`Narrow`] is `stride` words aligned to their size, and its number is masked with `sets - 1` too.
//! - Buffers of a batch have room for the batch and two vectors more; at most the batch is ever appended, and a vector
//!   store begins at most at the number appended so far. Misses are written over pages that were read: `missed <= i`.
//! - Mask tables are read as windows that begin at `16 - place` (or 32), with `place` at most the number of ways.
//!
//! The scalar twins are in `plain.rs`, `array.rs` and `stream.rs`; tests compare state, counters and answers. Miri runs
//! them, vector loops included, with `RUSTFLAGS="-C target-feature=+avx2,+bmi1,+bmi2,+popcnt"` and
//! `MIRIFLAGS=-Zmiri-disable-isolation` before `cargo +nightly miri test --lib hw::plain::tests::the_plain_loops` (and
//! `hw::curve`, `hw::packed`): minutes each, on shorter streams.
#![allow(unsafe_code)]

use std::ops::Range;

use super::array::neighbours::Answered;
use super::array::{Array, Entry, TreeShape};
use super::batch::{Job, Ran};
use super::curve::Stacks;
use super::packed::Log;
use super::plain::{Answers, Hits, Packed, ROOM, State};
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

/// One batch through trees of direction bits; misses move to the front of `ids`, their `numbers`, unless these are not
/// wanted and empty, with them. Returns how many there are.
#[cfg(target_arch = "x86_64")]
pub(super) fn tree_pass(
    packed: &mut Packed,
    tree: &mut [u64],
    fold: u32,
    shape: TreeShape,
    ids: &mut [u32],
    numbers: &mut [u32],
) -> usize {
    assert!(available());
    // SAFETY: the features are present.
    unsafe {
        match shape {
            TreeShape::Four => x86::tree_pass::<4, 1>(packed, tree, fold, ids, numbers),
            TreeShape::Eight => x86::tree_pass::<8, 1>(packed, tree, fold, ids, numbers),
            TreeShape::ThreeFours => x86::tree_pass::<12, 3>(packed, tree, fold, ids, numbers),
        }
    }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn tree_pass(
    _: &mut Packed,
    _: &mut [u64],
    _: u32,
    _: TreeShape,
    _: &mut [u32],
    _: &mut [u32],
) -> usize {
    0
}

/// Numbers of ways that [`lru_pass`] knows.
pub(super) const LRU_WAYS: [usize; 7] = [4, 6, 8, 12, 16, 24, 32];

/// One batch through recency orders of [`LRU_WAYS`] ways; as [`tree_pass`].
#[cfg(target_arch = "x86_64")]
pub(super) fn lru_pass(packed: &mut Packed, fold: u32, ids: &mut [u32], numbers: &mut [u32]) -> usize {
    assert!(available());
    // SAFETY: the features are present.
    unsafe {
        match packed.ways {
            4 => x86::lru_pass::<4>(packed, fold, ids, numbers),
            6 => x86::lru_pass::<6>(packed, fold, ids, numbers),
            8 => x86::lru_pass::<8>(packed, fold, ids, numbers),
            12 => x86::lru_pass::<12>(packed, fold, ids, numbers),
            16 => x86::lru_pass::<16>(packed, fold, ids, numbers),
            24 => x86::lru_pass::<24>(packed, fold, ids, numbers),
            32 => x86::lru_pass::<32>(packed, fold, ids, numbers),
            ways => unreachable!("{ways} is none of LRU_WAYS"),
        }
    }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn lru_pass(_: &mut Packed, _: u32, _: &mut [u32], _: &mut [u32]) -> usize {
    0
}

/// One batch through a fully associative recency order; as [`tree_pass`].
#[cfg(target_arch = "x86_64")]
pub(super) fn log_pass(log: &mut Log, ids: &mut [u32], numbers: &mut [u32]) -> usize {
    assert!(available());
    // SAFETY: the features are present.
    unsafe { x86::log_pass(log, ids, numbers) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn log_pass(_: &mut Log, _: &mut [u32], _: &mut [u32]) -> usize {
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

/// [`super::array::neighbours::run`], four ways at a time.
#[cfg(target_arch = "x86_64")]
pub(super) fn neighbours(near: &mut Array, far: &mut Array, key: Entry, pages: Range<u64>) -> Answered {
    debug_assert!(available());
    // SAFETY: the caller asked `available`.
    unsafe { x86::run_pages(near, far, key, pages) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn neighbours(_: &mut Array, _: &mut Array, _: Entry, _: Range<u64>) -> Answered {
    Answered::default()
}

/// The depths at which the first `count` pages are found in LRU stacks. With `narrow` all names, less the bits that pick
/// a set, are below `u16::MAX`, and `rows` are 16-bit places.
#[cfg(target_arch = "x86_64")]
pub(super) fn find_depths(stacks: &mut Stacks, names: &mut [u32; ROOM], count: usize, narrow: bool) {
    assert!(available());
    // SAFETY: the features are present.
    unsafe { x86::find_depths(stacks, names, count, narrow) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn find_depths(_: &mut Stacks, _: &mut [u32; ROOM], _: usize, _: bool) {}

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
    use std::ops::Range;

    use super::super::Vpn;
    use super::super::array::neighbours::{Answered, Search, run as neighbours};
    use super::super::array::{Array, Entry, MRU_SHIFT, follow, point_away};
    use super::super::batch::{Job, Names, Ran, Removal, control};
    use super::super::curve::{MAX_WAYS, Stacks};
    use super::super::narrow::{Narrow, Shape, TAG};
    use super::super::packed::Log;
    use super::super::plain::{Answers, BATCH, Hits, Packed, ROOM, State};
    use super::super::stream::{EVENT_BYTES, Event, NO_ACCESS};

    /// Buffers of one batch.
    #[repr(C, align(64))]
    struct Buffers {
        /// The interned pages that are still to be found.
        ids: [u32; ROOM],
        /// Which accesses these are, where that is asked.
        numbers: [u32; ROOM],
        places: Places,
    }

    /// Where the pages of a batch go in [`Narrow`]: the bytes before their sets, and their tags.
    #[repr(C, align(64))]
    struct Places {
        sets: [u32; ROOM],
        tags: [u16; ROOM],
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
    unsafe fn levels<const FIRST: usize, const SECOND: usize>(
        first: &mut Packed,
        mut second: Option<&mut Packed>,
        narrow: &mut [Option<Narrow>; 2],
        vpns: &[u64],
        base: u64,
        filter: bool,
        mut answers: Answers<'_>,
        walk: u8,
    ) -> Option<Hits> {
        let mut buffers = Buffers {
            ids: [0; ROOM],
            numbers: [0; ROOM],
            places: Places { sets: [0; ROOM], tags: [0; ROOM] },
        };
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
                        Some(second) => {
                            pass::<SECOND, true>(second, second_narrow, ids, None, places, misses)
                        }
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
    unsafe fn pass<const WAYS: usize, const LAST: bool>(
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
    unsafe fn rows_pass<const WAYS: usize>(
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

    /// Finds the places of the first `count` pages; `false` if one is outside the window.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn place(shape: Shape, ids: &mut [u32; ROOM], places: &mut Places, count: usize) -> bool {
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
    unsafe fn lines_pass<const WAYS: usize, const COUNT: bool>(
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
    unsafe fn drop_hits(words: &mut [u32; ROOM], found: &[u32; ROOM], count: usize) -> usize {
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
    const fn moves<const WAYS: usize>() -> [[i8; 16]; 17] {
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
    unsafe fn line_step32(set: *mut u16, tag: __m128i) -> [__m256i; 2] {
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
    const WIDE_BYTES: [i8; 64] = {
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
    unsafe fn line_step<const WAYS: usize>(set: *mut u16, tag: __m128i) -> (u32, __m256i) {
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

    /// Interns a batch; with `FILTER`, without pages that repeat their predecessor. Returns how many are left.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn intern<const FILTER: bool>(
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

    /// One access: the page becomes the newest of its set; hit and miss are the same shift. With `CROSS`, `crossed`
    /// gathers whether `other` was there.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn step<const WAYS: usize, const CROSS: bool>(
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

    /// With `narrow` the names, less the bits that pick a set, are below `u16::MAX`, and stacks are of 16-bit places.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn find_depths(
        stacks: &mut Stacks,
        names: &mut [u32; ROOM],
        count: usize,
        narrow: bool,
    ) {
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

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn narrow_depths<const DEPTH: usize>(stacks: &mut Stacks, names: &mut [u32; ROOM], count: usize) {
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

    /// All lanes one place down, lane 0 from `new`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn shift_in(old: __m256i, new: __m256i) -> __m256i {
        let down = _mm256_permutevar8x32_epi32(old, _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6));
        _mm256_blend_epi32::<1>(down, new)
    }

    /// Accesses per batch of the event loop.
    const EVENTS: usize = 256;

    /// So many CPUs may be looked at once per batch.
    const FEW_CPUS: usize = 64;

    /// What the accesses of a batch are, column by column, and the numbers of those that missed the first level.
    #[repr(C, align(64))]
    struct Decoded {
        names: [u32; EVENTS + 8],
        others: [u32; EVENTS + 8],
        firsts: [u32; EVENTS + 8],
        seconds: [u32; EVENTS + 8],
        cpus: [u32; EVENTS + 8],
        missed: [u32; EVENTS + 8],
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn run_events(
        job: &mut Job,
        events: &[[u8; EVENT_BYTES]],
        levels: Option<&mut [u8]>,
    ) -> Ran {
        // SAFETY: as the caller's.
        unsafe {
            match (job.first_ways, job.second_ways) {
                (4, 4) => event_loop::<4, 4>(job, events, levels),
                (4, 8) => event_loop::<4, 8>(job, events, levels),
                (4, 12) => event_loop::<4, 12>(job, events, levels),
                (4, 16) => event_loop::<4, 16>(job, events, levels),
                (8, 8) => event_loop::<8, 8>(job, events, levels),
                (8, 12) => event_loop::<8, 12>(job, events, levels),
                (8, 16) => event_loop::<8, 16>(job, events, levels),
                _ => Ran::Events(0),
            }
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn event_loop<const FIRST: usize, const SECOND: usize>(
        job: &mut Job,
        events: &[[u8; EVENT_BYTES]],
        mut levels: Option<&mut [u8]>,
    ) -> Ran {
        const BLANK: [u32; EVENTS + 8] = [0; EVENTS + 8];
        let mut decoded = Decoded {
            names: BLANK,
            others: BLANK,
            firsts: BLANK,
            seconds: BLANK,
            cpus: BLANK,
            missed: BLANK,
        };
        let mut crossed = _mm256_setzero_si256();
        // The context that all CPUs are in, if they are: then accesses in it switch nothing.
        let mut common = None;
        let mut start = 0;
        while start < events.len() {
            let batch = &events[start..(start + EVENTS).min(events.len())];
            if common.is_none() && job.pcids.len() <= FEW_CPUS {
                let first = job.pcids[0];
                common = job.pcids.iter().all(|&pcid| pcid == first).then_some(u32::from(first));
            }
            // SAFETY: the features are the caller's.
            let (ran, nameless) = unsafe { decode::<FIRST, SECOND>(job, batch, &mut decoded, &mut common) };
            let rows = job.rows.as_mut_ptr().cast::<u32>();
            let mut misses = 0;
            for i in 0..ran {
                // SAFETY: `ran` is at most EVENTS; `decode` gives places of whole sets.
                unsafe {
                    let set = rows.add(*decoded.firsts.get_unchecked(i) as usize);
                    let (name, other) = (*decoded.names.get_unchecked(i), *decoded.others.get_unchecked(i));
                    let hit = step::<FIRST, true>(set, name, other, &mut crossed);
                    *decoded.missed.get_unchecked_mut(misses) = i as u32;
                    misses += usize::from(!hit);
                }
            }
            if let Some(levels) = levels.as_deref_mut() {
                levels[start..start + ran].fill(0);
            }
            for at in 0..misses {
                // SAFETY: as above; `decode` has checked that the CPU exists.
                unsafe {
                    let i = *decoded.missed.get_unchecked(at) as usize;
                    let set = rows.add(*decoded.seconds.get_unchecked(i) as usize);
                    let (name, other) = (*decoded.names.get_unchecked(i), *decoded.others.get_unchecked(i));
                    let hit = step::<SECOND, true>(set, name, other, &mut crossed);
                    let cpu = *decoded.cpus.get_unchecked(i) as usize;
                    *job.missed.get_unchecked_mut(cpu) += 1 << 32 | u64::from(hit);
                    if let Some(levels) = levels.as_deref_mut() {
                        levels[start + i] = 2 - u8::from(hit);
                    }
                }
            }
            start += ran;
            if _mm256_testz_si256(crossed, crossed) == 0 {
                return Ran::Mixed;
            }
            if nameless {
                return Ran::Nameless(start);
            }
            // What ended the batch early: a control event.
            if ran < batch.len() {
                let event = Event::read(&events[start]);
                let cpu = usize::from(event.cpu);
                let Some((pcid, removal)) = control(event, job.pcids[cpu]) else {
                    return Ran::Events(start);
                };
                job.accesses[cpu] += u64::from(job.pcids[cpu] != pcid) << 32;
                job.pcids[cpu] = pcid;
                common = common.filter(|&common| common == u32::from(pcid));
                // SAFETY: the features are the caller's; the CPU exists, as it was an index just now.
                let removed = unsafe { remove::<FIRST, SECOND>(job, cpu, removal) };
                job.removed[cpu] += removed;
                if let Some(levels) = levels.as_deref_mut() {
                    levels[start] = NO_ACCESS;
                }
                start += 1;
            }
        }
        Ran::Events(start)
    }

    /// Rows of four 32-bit words, eight of them, as four columns.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn columns(row: impl Fn(usize) -> *const __m128i) -> [__m256i; 4] {
        // SAFETY: the caller's rows are 16 readable bytes each.
        let pair = |i: usize| unsafe {
            _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_loadu_si128(row(i))),
                _mm_loadu_si128(row(i + 4)),
            )
        };
        let [a, b, c, d] = [pair(0), pair(1), pair(2), pair(3)];
        let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }

    /// Decodes the accesses at the head of a batch and counts them; returns how many there are, and whether what
    /// follows has no name.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn decode<const FIRST: usize, const SECOND: usize>(
        job: &mut Job,
        batch: &[[u8; EVENT_BYTES]],
        decoded: &mut Decoded,
        common: &mut Option<u32>,
    ) -> (usize, bool) {
        let all = |word: u32| _mm256_set1_epi32(word.cast_signed());
        let cpus = job.pcids.len() as u32;
        let low_bits = all((1 << Names::LOW) - 1);
        let mut ran = 0;
        while ran < batch.len() {
            let left = (batch.len() - ran).min(8);
            let mut padded = [[0; EVENT_BYTES]; 8];
            let group = match batch[ran..].first_chunk::<8>() {
                Some(group) => group,
                None => {
                    padded[..left].copy_from_slice(&batch[ran..]);
                    &padded
                }
            };
            // SAFETY: eight events of 16 bytes.
            let [page, page_high, who, what] = unsafe { columns(|i| group[i].as_ptr().cast()) };
            // An access to a 4 KiB page: op 0 to 2, no size bits. One addition makes op 3 fail the same test as op 4.
            let odd = _mm256_and_si256(_mm256_add_epi32(what, all(1 << 16)), all(0x0cfc_0000));
            let plain = lanes8(_mm256_cmpeq_epi32(odd, _mm256_setzero_si256()));
            let mut taken = (plain.trailing_ones() as usize).min(left);
            let cpu = _mm256_srli_epi32::<16>(who);
            let pcid = _mm256_and_si256(who, all(0xffff));
            // Signed compares are right: both are 16 bits.
            assert!(lanes8(_mm256_cmpgt_epi32(all(cpus), cpu)) == 0xff, "events were checked");
            let low = _mm256_and_si256(page, low_bits);
            let window = _mm256_or_si256(
                _mm256_srli_epi32::<{ Names::LOW.cast_signed() }>(page),
                _mm256_slli_epi32::<{ 32 - Names::LOW.cast_signed() }>(_mm256_and_si256(
                    page_high,
                    all((Vpn::MASK >> 32) as u32),
                )),
            );
            let mixed = _mm256_xor_si256(
                _mm256_mullo_epi32(window, all(Names::SPREAD[0])),
                _mm256_mullo_epi32(pcid, all(Names::SPREAD[1])),
            );
            let slots = words8(_mm256_srli_epi32::<{ 32 - Names::KNOWN.cast_signed() }>(mixed));
            let known = job.names.known.as_ptr();
            // SAFETY: a slot has `KNOWN` bits, and there are 2^KNOWN places of 16 bytes.
            let [of_window, of_pcid, mut own, mut global] =
                unsafe { columns(|i| known.add(slots[i] as usize).cast()) };
            let same =
                _mm256_and_si256(_mm256_cmpeq_epi32(of_window, window), _mm256_cmpeq_epi32(of_pcid, pcid));
            let mut nameless = false;
            if lanes8(same) != 0xff {
                let (windows, pcids) = (words8(window), words8(pcid));
                let (mut owns, mut globals) = ([0; 8], [0; 8]);
                let mut i = 0;
                while i < taken {
                    match job.names.of(windows[i], pcids[i]) {
                        Some(known) => (owns[i], globals[i]) = (known.own, known.global),
                        None => (taken, nameless) = (i, true),
                    }
                    i += 1;
                }
                (own, global) = (vector8(owns), vector8(globals));
            }
            let (own, global) = (_mm256_or_si256(own, low), _mm256_or_si256(global, low));
            // The lowest flag, as a sign.
            let choice = _mm256_castsi256_ps(_mm256_slli_epi32::<7>(what));
            let choose = |a, b| {
                let chosen = _mm256_blendv_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), choice);
                _mm256_castps_si256(chosen)
            };
            let base = _mm256_mullo_epi32(cpu, all(job.words as u32));
            let place = |sets: usize, ways: usize| {
                let set = _mm256_and_si256(low, all(sets as u32 - 1));
                _mm256_mullo_epi32(set, all(ways.next_power_of_two() as u32))
            };
            let first = _mm256_add_epi32(base, place(job.first_sets, FIRST));
            let second = _mm256_add_epi32(
                _mm256_add_epi32(base, all(job.second_at as u32)),
                place(job.second_sets, SECOND),
            );
            // SAFETY: `ran` is at most EVENTS, and the columns have room for eight more.
            unsafe {
                let store = |column: &mut [u32; EVENTS + 8], lanes| {
                    _mm256_storeu_si256(column.as_mut_ptr().add(ran).cast(), lanes);
                };
                store(&mut decoded.names, choose(own, global));
                store(&mut decoded.others, choose(global, own));
                store(&mut decoded.firsts, first);
                store(&mut decoded.seconds, second);
                store(&mut decoded.cpus, cpu);
            }
            let usual = common.is_some_and(|common| lanes8(_mm256_cmpeq_epi32(pcid, all(common))) == 0xff);
            if usual && taken == 8 {
                for event in group {
                    // SAFETY: the CPU was checked above.
                    unsafe { *job.accesses.get_unchecked_mut(cpu_of(event)) += 1 };
                }
            } else {
                for event in &group[..taken] {
                    let cpu = cpu_of(event);
                    let pcid = u16::from_le_bytes([event[8], event[9]]);
                    // SAFETY: as above.
                    unsafe {
                        let current = job.pcids.get_unchecked_mut(cpu);
                        *job.accesses.get_unchecked_mut(cpu) += 1 + (u64::from(*current != pcid) << 32);
                        *current = pcid;
                    }
                }
                *common = common.filter(|_| usual);
            }
            ran += taken;
            if taken < left {
                return (ran, nameless);
            }
        }
        (ran, false)
    }

    /// The CPU of an event.
    #[inline]
    fn cpu_of(event: &[u8; EVENT_BYTES]) -> usize {
        usize::from(u16::from_le_bytes([event[10], event[11]]))
    }

    /// Bit `i` is set where lane `i` is negative.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn lanes8(lanes: __m256i) -> u32 {
        _mm256_movemask_ps(_mm256_castsi256_ps(lanes)).cast_unsigned()
    }

    /// The lanes as words.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn words8(lanes: __m256i) -> [u32; 8] {
        let mut words = [0; 8];
        // SAFETY: 32 bytes of our own.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), lanes) };
        words
    }

    /// Words as lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn vector8(words: [u32; 8]) -> __m256i {
        // SAFETY: 32 bytes of our own.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    /// Carries out a removal on one CPU; returns the entries that left.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn remove<const FIRST: usize, const SECOND: usize>(
        job: &mut Job,
        cpu: usize,
        removal: Removal,
    ) -> u64 {
        assert!(cpu < job.pcids.len());
        // SAFETY: the CPU's words.
        let rows = unsafe { job.rows.as_mut_ptr().cast::<u32>().add(cpu * job.words) };
        let second_at = job.second_at;
        let (first_stride, second_stride) = (FIRST.next_power_of_two(), SECOND.next_power_of_two());
        let everywhere = |dies: Dies| {
            let mut removed = 0;
            // SAFETY: every set of both levels.
            unsafe {
                for set in 0..job.first_sets {
                    removed += squeeze::<FIRST>(rows.add(set * first_stride), dies);
                }
                for set in 0..job.second_sets {
                    removed += squeeze::<SECOND>(rows.add(second_at + set * second_stride), dies);
                }
            }
            removed
        };
        let context = u32::MAX << job.names.shift;
        match removal {
            Removal::Nothing => 0,
            Removal::All => {
                let empty = _mm256_set1_epi32(-1);
                let mut free = _mm256_setzero_si256();
                for at in (0..job.words).step_by(8) {
                    // SAFETY: the CPU's words are whole rows of sixteen.
                    unsafe {
                        let old = _mm256_load_si256(rows.add(at).cast());
                        free = _mm256_sub_epi32(free, _mm256_cmpeq_epi32(old, empty));
                        _mm256_store_si256(rows.add(at).cast(), empty);
                    }
                }
                job.words as u64 - words8(free).into_iter().map(u64::from).sum::<u64>()
            }
            // Neither global (context 0) nor empty (all bits).
            Removal::NonGlobal => everywhere(Dies { mask: context, value: 0, also: context, but: true }),
            Removal::Context(pcid) => match job.names.context(pcid) {
                None => 0,
                Some(value) => everywhere(Dies { mask: context, value, also: value, but: false }),
            },
            Removal::Pages { first, pages, own, globals } => {
                let mut removed = 0;
                let context = job.names.context(own);
                for page in first.0..(first.0 + pages).min(Vpn::MASK + 1) {
                    let Some(global) = job.names.global(page) else { continue };
                    let value = match context {
                        Some(context) => context | global,
                        None if globals => global,
                        None => continue,
                    };
                    let also = if globals { global } else { value };
                    let dies = Dies { mask: u32::MAX, value, also, but: false };
                    // SAFETY: the page's sets.
                    unsafe {
                        let set = page as usize & (job.first_sets - 1);
                        removed += squeeze::<FIRST>(rows.add(set * first_stride), dies);
                        let set = page as usize & (job.second_sets - 1);
                        removed += squeeze::<SECOND>(rows.add(second_at + set * second_stride), dies);
                    }
                }
                removed
            }
        }
    }

    /// Ways that, under `mask`, are `value` or `also`; with `but`, all others.
    #[derive(Clone, Copy)]
    struct Dies {
        mask: u32,
        value: u32,
        also: u32,
        but: bool,
    }

    /// Takes the dying ways out of a set; survivors move up in order, freed ways are at the end.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn squeeze<const WAYS: usize>(set: *mut u32, dies: Dies) -> u64 {
        let all = |word: u32| _mm256_set1_epi32(word.cast_signed());
        let empty = all(u32::MAX);
        let stride = WAYS.next_power_of_two();
        let flip = if dies.but { 0xff } else { 0 };
        let dead = |ways| {
            let seen = _mm256_and_si256(ways, all(dies.mask));
            let same = _mm256_or_si256(
                _mm256_cmpeq_epi32(seen, all(dies.value)),
                _mm256_cmpeq_epi32(seen, all(dies.also)),
            );
            lanes8(same) ^ flip
        };
        let order = |dead: u32| {
            let lives = !dead as usize & 0xff;
            let order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(COMPACT[lives].cast_signed()));
            (order, lives.count_ones() as usize)
        };
        // SAFETY: a set is `stride` aligned words, of which those beyond `WAYS` are empty, and empty ways live.
        unsafe {
            if stride == 4 {
                let ways = _mm256_inserti128_si256::<0>(empty, _mm_load_si128(set.cast()));
                let dead = dead(ways);
                if dead == 0 {
                    return 0;
                }
                // The lanes beyond the four are empty and move up.
                let (order, _) = order(dead);
                let moved = _mm256_permutevar8x32_epi32(ways, order);
                _mm_store_si128(set.cast(), _mm256_castsi256_si128(moved));
                return u64::from(dead.count_ones());
            }
            let head = _mm256_load_si256(set.cast());
            let tail = if stride == 16 { _mm256_load_si256(set.add(8).cast()) } else { empty };
            let (head_dead, tail_dead) = (dead(head), dead(tail));
            if head_dead | tail_dead == 0 {
                return 0;
            }
            let mut kept = [u32::MAX; 24];
            let (head_order, head_kept) = order(head_dead);
            let (tail_order, tail_kept) = order(tail_dead);
            _mm256_storeu_si256(kept.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(head, head_order));
            let behind = kept.as_mut_ptr().add(head_kept);
            _mm256_storeu_si256(behind.cast(), _mm256_permutevar8x32_epi32(tail, tail_order));
            kept[head_kept + tail_kept..].fill(u32::MAX);
            std::ptr::copy_nonoverlapping(kept.as_ptr(), set, stride);
            u64::from(head_dead.count_ones() + tail_dead.count_ones())
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

    /// Window of single lanes: from `ONE + 16 - p`, lane `p` is set.
    const ONE: [i32; 40] = {
        let mut table = [0; 40];
        table[16] = -1;
        table
    };

    /// Window of lane masks for sets of up to 32 ways: from `WIDE + 32 - p`, lanes 0 to p are set.
    const WIDE: [i32; 72] = {
        let mut table = [0; 72];
        let mut i = 0;
        while i <= 32 {
            table[i] = -1;
            i += 1;
        }
        table
    };

    /// One batch through trees of direction bits: `WAYS` ways in `GROUPS` trees.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn tree_pass<const WAYS: usize, const GROUPS: usize>(
        packed: &mut Packed,
        tree: &mut [u64],
        fold: u32,
        ids: &mut [u32],
        numbers: &mut [u32],
    ) -> usize {
        assert!(packed.ways == WAYS && packed.sets == tree.len() && tree.len().is_power_of_two());
        // SAFETY: as the caller's, and the lengths fit.
        unsafe {
            if !packed.full {
                packed.full = packed.is_full();
            }
            match (packed.full, numbers.is_empty()) {
                (false, _) => trees::<WAYS, GROUPS, false, true>(packed, tree, fold, ids, numbers),
                (true, false) => trees::<WAYS, GROUPS, true, true>(packed, tree, fold, ids, numbers),
                (true, true) => trees::<WAYS, GROUPS, true, false>(packed, tree, fold, ids, numbers),
            }
        }
    }

    /// `FULL`: no way is empty. `NUMBERS`: those of the misses are wanted, if there are any.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn trees<const WAYS: usize, const GROUPS: usize, const FULL: bool, const NUMBERS: bool>(
        packed: &mut Packed,
        tree: &mut [u64],
        fold: u32,
        ids: &mut [u32],
        numbers: &mut [u32],
    ) -> usize {
        let table = const { uses::<WAYS, GROUPS>() };
        let mask = tree.len() - 1;
        let rows = packed.rows.as_mut_ptr().cast::<u32>();
        // Without folding nothing is mixed in: no page has bit 31.
        let fold = if fold == 0 { 31 } else { fold };
        let mut missed = 0;
        for i in 0..ids.len() {
            // SAFETY: the set is below the number of sets, the way below `WAYS`; `missed <= i`.
            unsafe {
                let id = *ids.get_unchecked(i);
                let set = (id ^ id >> fold) as usize & mask;
                let row = rows.add(set * WAYS.next_power_of_two());
                let bits = *tree.get_unchecked(set);
                let key = _mm256_set1_epi32(id.cast_signed());
                let short = _mm256_castsi256_si128(key);
                let empty = _mm256_set1_epi32(-1);
                let found4 =
                    |ways, key| _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(ways, key))).cast_unsigned();
                let (head, tail);
                let (hit, free);
                match WAYS {
                    4 => {
                        head = empty;
                        tail = _mm_load_si128(row.cast());
                        hit = found4(tail, short);
                        free = found4(tail, _mm256_castsi256_si128(empty));
                    }
                    8 => {
                        head = _mm256_load_si256(row.cast());
                        tail = short;
                        hit = lanes8(_mm256_cmpeq_epi32(head, key));
                        free = lanes8(_mm256_cmpeq_epi32(head, empty));
                    }
                    _ => {
                        head = _mm256_load_si256(row.cast());
                        tail = _mm_load_si128(row.add(8).cast());
                        hit = lanes8(_mm256_cmpeq_epi32(head, key)) | found4(tail, short) << 8;
                        free = lanes8(_mm256_cmpeq_epi32(head, empty))
                            | found4(tail, _mm256_castsi256_si128(empty)) << 8;
                    }
                }
                let victim = if GROUPS == 1 {
                    let bits = bits as usize;
                    usize::from(if WAYS == 4 { VICTIM4[bits & 0xf] } else { VICTIM8[bits & 0xff] })
                } else {
                    let recent = (bits >> MRU_SHIFT) as usize;
                    let next = if recent + 1 == GROUPS { 0 } else { 4 * (recent + 1) };
                    next + usize::from(VICTIM4[(bits >> next) as usize & 0xf])
                };
                let wanted = if FULL || hit != 0 { hit } else { free };
                let way = if wanted == 0 { victim } else { wanted.trailing_zeros() as usize };
                // Whole vectors are written, as they were read: a load finds the store before it.
                let one = ONE.as_ptr().add(16 - way);
                match WAYS {
                    4 => {
                        let mask = _mm_loadu_si128(one.cast());
                        _mm_store_si128(row.cast(), _mm_blendv_epi8(tail, short, mask));
                    }
                    8 => {
                        let mask = _mm256_loadu_si256(one.cast());
                        _mm256_store_si256(row.cast(), _mm256_blendv_epi8(head, key, mask));
                    }
                    _ => {
                        let mask = _mm256_loadu_si256(one.cast());
                        _mm256_store_si256(row.cast(), _mm256_blendv_epi8(head, key, mask));
                        let mask = _mm_loadu_si128(one.add(8).cast());
                        _mm_store_si128(row.add(8).cast(), _mm_blendv_epi8(tail, short, mask));
                    }
                }
                let (keep, set_bits) = *table.get_unchecked(way);
                *tree.get_unchecked_mut(set) = bits & keep | set_bits;
                *ids.get_unchecked_mut(missed) = id;
                if NUMBERS && !numbers.is_empty() {
                    numbers[missed] = numbers[i];
                }
                missed += usize::from(hit == 0);
            }
        }
        missed
    }

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

    /// One access in a set of up to 32 ways.
    #[inline]
    #[allow(clippy::needless_range_loop)] // a constant number of registers
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn step_wide<const WAYS: usize>(set: *mut u32, id: u32) -> bool {
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

    /// Four ways are one vector. Only for the functions below.
    struct Vector;

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
    unsafe fn four(ways: &[Entry; 4], key: u64, global: u64) -> u32 {
        let keys = _mm256_set1_epi64x(key.cast_signed());
        let globals = _mm256_set1_epi64x(global.cast_signed());
        // SAFETY: 4 words.
        let four = unsafe { _mm256_loadu_si256(ways.as_ptr().cast()) };
        let same = _mm256_or_si256(_mm256_cmpeq_epi64(four, keys), _mm256_cmpeq_epi64(four, globals));
        _mm256_movemask_pd(_mm256_castsi256_pd(same)).cast_unsigned()
    }

    /// Consecutive pages at two levels.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) unsafe fn run_pages(
        near: &mut Array,
        far: &mut Array,
        key: Entry,
        pages: Range<u64>,
    ) -> Answered {
        neighbours::<Vector>(near, far, key, pages)
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
}
