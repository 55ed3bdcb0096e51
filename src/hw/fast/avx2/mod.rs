//! The loops of [`super::lru`], [`super::interned`], [`super::events`], [`super::flow`] and [`super::curve`] for AVX2, and where
//! a CPU has AVX-512 those of [`super::flow`] for it, in [`eights`]. The only folder with `unsafe`; beside it `hw/vectors.rs`
//! asks the CPU what it has and compares keys.
//!
//! Why each use is sound:
//! - Functions with `#[target_feature]` are called only after [`available`], or [`vectors::eights`], said that the CPU has
//!   these features; each safe wrapper below asserts it.
//! - Loads and stores of sets go to rows of [`Packed`], [`Stacks`] or [`Job`]: whole 64-byte lines, aligned, `sets * stride`
//!   pages long. A set number is masked with `sets - 1`, and `sets` is a power of two ([`crate::hw::Geometry`] checks it
//!   for the linear and the XOR index; the loops assert it), so a set lies within its rows; a set's `ways` fit its stride,
//!   and a stride that is no whole vector is loaded by the half.
//! - The event loop takes its sets from [`Job`] by the event's CPU, which it compares with the number of CPUs for eight
//!   events at a time, and panics on; its events are a copy that nobody else can write to
//!   ([`crate::hw::event::Rules`]), so that a CPU which is read again is the one that was compared. `pack` refuses states
//!   whose places do not fit 32 bits.
//! - Pages of the other loops stand in memory that Python may write to meanwhile. Whatever is read there is masked before
//!   it names a set, and nothing else depends on it.
//! - A [`Log`]'s bucket has eight bits and there are 256 of them; that its vectors are as long is asserted.
//! - [`Entry`] is a transparent `u64`, so four entries are a vector of words.
//! - A set of [`super::tags::Narrow`] is `stride` words aligned to their size, and its number is masked with `sets - 1` too.
//! - Words of [`sixteens`] are rows of our own, each a vector.
//! - The sets of an array as it is ([`wide`], [`eights`]): its number of sets, a power of two, masks the set, and its keys are that many
//!   times its ways; both are asserted. Where the ways are no whole vectors, the last one is read and written under a mask, or
//!   in parts.
//!   Its accesses are a [`Stream`] of our own, and the range of them is compared with its length.
//! - Buffers of a batch have room for the batch and two vectors more; at most the batch is ever appended, and a vector
//!   store begins at most at the number appended so far. Misses are written over pages that were read: `missed <= i`.
//! - Mask tables are read as windows that begin at `16 - place` (or 32), with `place` at most the number of ways.
//!
//! The scalar twins are in the files of those names one folder up, and in `array.rs` and `drive.rs`; tests compare state,
//! counters and answers. Miri runs them, vector loops included, with
//! `RUSTFLAGS="-C target-feature=+avx2,+bmi1,+bmi2,+popcnt"` and `MIRIFLAGS=-Zmiri-disable-isolation` before
//! `cargo +nightly miri test --lib hw::fast::lru::tests::the_plain_loops` (and `hw::fast::curve`, `hw::fast::interned`):
//! minutes each, on shorter streams.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod depths;
#[cfg(target_arch = "x86_64")]
mod eights;
#[cfg(target_arch = "x86_64")]
mod events;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lru;
#[cfg(target_arch = "x86_64")]
mod pages;
#[cfg(target_arch = "x86_64")]
mod recency;
#[cfg(target_arch = "x86_64")]
mod sixteens;
#[cfg(target_arch = "x86_64")]
mod step;
#[cfg(target_arch = "x86_64")]
mod tags;
#[cfg(target_arch = "x86_64")]
mod trees;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::ops::Range;

use super::job::{Job, Ran};
use super::log::Log;
use super::rows::{Packed, ROOM};
use super::stacks::Stacks;
use super::state::{Answers, Hits, State};
use super::stream::{BATCH, Before, Stream};
use crate::hw::array::neighbours::Answered;
use crate::hw::array::{Array, Entry, Order, TreeShape};
use crate::hw::event::EVENT_BYTES;
use crate::hw::vectors::{self, available};
use crate::hw::{Contexts, Pcid};

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
    unsafe { lru::run(state, vpns, base, filter, answers, walk) }
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
            TreeShape::Four => trees::tree_pass::<4, 1>(packed, tree, fold, ids, numbers),
            TreeShape::Eight => trees::tree_pass::<8, 1>(packed, tree, fold, ids, numbers),
            TreeShape::ThreeFours => trees::tree_pass::<12, 3>(packed, tree, fold, ids, numbers),
            TreeShape::Sixteen => unreachable!("a tree of sixteen ways is not packed"),
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
            4 => recency::lru_pass::<4>(packed, fold, ids, numbers),
            6 => recency::lru_pass::<6>(packed, fold, ids, numbers),
            8 => recency::lru_pass::<8>(packed, fold, ids, numbers),
            12 => recency::lru_pass::<12>(packed, fold, ids, numbers),
            16 => recency::lru_pass::<16>(packed, fold, ids, numbers),
            24 => recency::lru_pass::<24>(packed, fold, ids, numbers),
            32 => recency::lru_pass::<32>(packed, fold, ids, numbers),
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
    unsafe { recency::log_pass(log, ids, numbers) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn log_pass(_: &mut Log, _: &mut [u32], _: &mut [u32]) -> usize {
    0
}

/// The accesses `range` of a stream through an array as it is, that holds nothing stale; those that miss move to `missed`
/// and on. Returns where they end; `None`: no loop knows this array, and nothing was done. With `second`, pages whose bit
/// there is set go to another array of the same shape. With `eights`, by [`eights`], if the CPU has what it takes.
#[cfg(target_arch = "x86_64")]
pub(super) fn stream_pass(
    array: &mut Array,
    second: Option<(&mut Array, u8)>,
    stream: &mut Stream,
    range: Range<usize>,
    missed: usize,
    (others, eights): (bool, bool),
) -> Option<usize> {
    assert!(available());
    let eights = eights && vectors::eights();
    let (order, ways, sets) = (array.order(), array.ways(), array.sets());
    let two = second.map(|(array, shift)| (array.parts_mut(others), shift));
    let banks = wide::Banks { one: array.parts_mut(others), two };
    macro_rules! pass {
        ($($loop:tt)+) => {
            // SAFETY: the features are present.
            unsafe {
                match (eights, banks.two.is_some(), others) {
                    (false, false, false) => wide::$($loop)+, false, false>(banks, stream, range, missed),
                    (false, false, true) => wide::$($loop)+, false, true>(banks, stream, range, missed),
                    (false, true, false) => wide::$($loop)+, true, false>(banks, stream, range, missed),
                    (false, true, true) => wide::$($loop)+, true, true>(banks, stream, range, missed),
                    (true, false, false) => eights::$($loop)+, false, false>(banks, stream, range, missed),
                    (true, false, true) => eights::$($loop)+, false, true>(banks, stream, range, missed),
                    (true, true, false) => eights::$($loop)+, true, false>(banks, stream, range, missed),
                    (true, true, true) => eights::$($loop)+, true, true>(banks, stream, range, missed),
                }
            }
        };
    }
    macro_rules! single {
        ($vectors:literal) => {
            // SAFETY: the features are present.
            unsafe {
                match others {
                    true => eights::single::<$vectors, true>(banks.one, stream, range, missed),
                    false => eights::single::<$vectors, false>(banks.one, stream, range, missed),
                }
            }
        };
    }
    macro_rules! by_words {
        ($vectors:literal, $bits:expr) => {
            // SAFETY: the features are present.
            unsafe { sixteens::single::<$vectors>(banks.one, stream, range, missed, $bits) }
        };
    }
    let alone = eights && sets == 1 && banks.two.is_none() && (17..=eights::MOST).contains(&ways);
    if alone
        && order == Order::Recency
        && !others
        // SAFETY: the features are present.
        && let Some(bits) = unsafe { sixteens::differing(banks.one.keys, &stream.keys[range.clone()]) }
    {
        return Some(match ways.div_ceil(16) {
            ..=2 => by_words!(2, bits),
            3..=4 => by_words!(4, bits),
            5 => by_words!(5, bits),
            _ => by_words!(6, bits),
        });
    }
    Some(match (order, ways) {
        (Order::Recency, 1..=eights::MOST) if eights && sets == 1 && banks.two.is_none() => {
            match ways.div_ceil(8) {
                1 => single!(1),
                2..=4 => single!(4),
                5..=8 => single!(8),
                9 => single!(9),
                _ => single!(12),
            }
        }
        (Order::Recency, 4) => pass!(recency::<4),
        (Order::Recency, 6) => pass!(recency::<6),
        (Order::Recency, 8) => pass!(recency::<8),
        (Order::Recency, 12) => pass!(recency::<12),
        (Order::Recency, 16) => pass!(recency::<16),
        (Order::Recency, 24) => pass!(recency::<24),
        (Order::Recency, 32) => pass!(recency::<32),
        (Order::Trees(TreeShape::Four), _) => pass!(trees::<4, 1),
        (Order::Trees(TreeShape::Eight), _) => pass!(trees::<8, 1),
        (Order::Trees(TreeShape::Sixteen), _) => pass!(trees::<16, 1),
        (Order::Trees(TreeShape::ThreeFours), _) => pass!(trees::<12, 3),
        (Order::Recency | Order::Other, _) => return None,
    })
}

/// The keys of accesses to 4 KiB pages to `keys` from `kept` on, with `fresh` those that differ from the one before: how many
/// accesses were taken, and where the keys end. All fit, and what is left is fewer than eight; or the CPU has no such vectors.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
pub(super) fn keys(
    keys: &mut [u64; BATCH],
    kept: usize,
    vpns: &[u64],
    contexts: Contexts<'_>,
    fresh: bool,
    before: &mut Before,
) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if vectors::eights() {
        // SAFETY: the features are present.
        return unsafe {
            match (contexts, fresh) {
                (Contexts::One(pcid), false) => {
                    eights::keys::<false, false>(keys, kept, vpns, (pcid, &[]), before)
                }
                (Contexts::One(pcid), true) => {
                    eights::keys::<false, true>(keys, kept, vpns, (pcid, &[]), before)
                }
                (Contexts::Each(each), false) => {
                    eights::keys::<true, false>(keys, kept, vpns, (Pcid(0), each), before)
                }
                (Contexts::Each(each), true) => {
                    eights::keys::<true, true>(keys, kept, vpns, (Pcid(0), each), before)
                }
            }
        };
    }
    (0, kept)
}

/// Most ways of one recency order that [`stream_pass`] is sooner done with than a list is.
pub(super) fn longest() -> usize {
    #[cfg(target_arch = "x86_64")]
    if vectors::eights() {
        return eights::MOST;
    }
    0
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn stream_pass(
    _: &mut Array,
    _: Option<(&mut Array, u8)>,
    _: &mut Stream,
    _: Range<usize>,
    _: usize,
    _: (bool, bool),
) -> Option<usize> {
    None
}

/// [`super::array::neighbours::run`], four ways at a time.
#[cfg(target_arch = "x86_64")]
pub(in crate::hw) fn neighbours(
    near: &mut Array,
    far: &mut Array,
    key: Entry,
    pages: Range<u64>,
) -> Answered {
    debug_assert!(available());
    // SAFETY: the caller asked `available`.
    unsafe { pages::run_pages(near, far, key, pages) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::hw) fn neighbours(_: &mut Array, _: &mut Array, _: Entry, _: Range<u64>) -> Answered {
    Answered::default()
}

/// Asks for the memory in which these stand, so that it is near when they are read.
#[cfg(target_arch = "x86_64")]
pub(super) fn ahead<T>(what: &[T]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let bytes = what.as_ptr_range();
    let mut at = bytes.start.cast::<i8>();
    while at < bytes.end.cast() {
        // SAFETY: a hint reads nothing, and `at` stays within a line of the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
        at = at.wrapping_add(64);
    }
}

/// There is no hint.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn ahead<T>(_: &[T]) {}

/// The depths at which the first `count` pages are found in LRU stacks. With `narrow` all names, less the bits that pick
/// a set, are below `u16::MAX`, and `rows` are 16-bit places.
#[cfg(target_arch = "x86_64")]
pub(super) fn find_depths(stacks: &mut Stacks, names: &mut [u32; ROOM], count: usize, narrow: bool) {
    assert!(available());
    // SAFETY: the features are present.
    unsafe { depths::find_depths(stacks, names, count, narrow) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn find_depths(_: &mut Stacks, _: &mut [u32; ROOM], _: usize, _: bool) {}

/// The event loop: runs events until one that it cannot, or finds that a page's G bit changed.
#[cfg(target_arch = "x86_64")]
pub(super) fn run_events(job: &mut Job, events: &[[u8; EVENT_BYTES]], levels: Option<&mut [u8]>) -> Ran {
    assert!(available());
    // SAFETY: the features are present.
    unsafe { events::run_events(job, events, levels) }
}

/// Never called: [`available`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn run_events(_: &mut Job, _: &[[u8; EVENT_BYTES]], _: Option<&mut [u8]>) -> Ran {
    Ran::Events(0)
}
