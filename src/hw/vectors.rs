//! Whether this CPU runs the vector loops, and those that stand below [`super::array`]: a key among many ways, and all that a
//! context has leaves.
//!
//! `unsafe` is sound here because functions with `#[target_feature]` run only after [`available`] said that the CPU has
//! these features, and because [`Entry`] is a transparent `u64`, so that four entries are a vector of words.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

use super::entry::Entry;

/// Whether this CPU runs the vector loops.
#[inline]
pub(super) fn available() -> bool {
    words() >= 4
}

/// Whether it has vectors of eight words, too.
#[inline]
pub(super) fn eights() -> bool {
    words() >= 8
}

/// Words of its longest vectors that there are loops for: 4, 8, or 1.
#[inline]
fn words() -> u8 {
    /// 0: nobody has looked.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    let known = KNOWN.load(Ordering::Relaxed);
    if known > 0 {
        return known;
    }
    let found = look();
    KNOWN.store(found, Ordering::Relaxed);
    found
}

#[cfg(target_arch = "x86_64")]
fn look() -> u8 {
    let four = std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("popcnt");
    let eight =
        std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vl");
    match (four, eight) {
        (false, _) => 1,
        (true, false) => 4,
        (true, true) => 8,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn look() -> u8 {
    1
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

/// What a context holds leaves an array in which a way is a place: how many entries these are, and bit `index % 64` for all that
/// stays, and for what of it is not global.
#[cfg(target_arch = "x86_64")]
pub(super) fn empty_places(ways: &mut [Entry], gone: Gone) -> (usize, u64, u64) {
    debug_assert!(eights());
    // SAFETY: the caller asked `eights`.
    unsafe { empty_places_by_eights(ways, gone) }
}

/// Never called: [`eights`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn empty_places(_: &mut [Entry], _: Gone) -> (usize, u64, u64) {
    (0, 0, 0)
}

/// What a context holds leaves one set of at most eight ways, whose order the others keep, empty ones last; how many these are.
#[cfg(target_arch = "x86_64")]
pub(super) fn close_up(ways: &mut [Entry], gone: Gone) -> usize {
    debug_assert!(eights());
    // SAFETY: the caller asked `eights`.
    unsafe { close_up_by_eights(ways, gone) }
}

/// Never called: [`eights`] is false.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn close_up(_: &mut [Entry], _: Gone) -> usize {
    0
}

/// What the entries of one context that are not global have in common: these bits, with these values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    pub(super) field: u64,
    pub(super) value: u64,
}

impl Gone {
    /// Whether an entry is one.
    #[inline]
    pub(super) fn has(self, entry: Entry) -> bool {
        entry.0 & self.field == self.value
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,popcnt")]
unsafe fn empty_places_by_eights(ways: &mut [Entry], gone: Gone) -> (usize, u64, u64) {
    #[allow(clippy::wildcard_imports)] // intrinsics name themselves
    use std::arch::x86_64::*;

    let field = _mm512_set1_epi64(gone.field.cast_signed());
    let value = _mm512_set1_epi64(gone.value.cast_signed());
    let global = _mm512_set1_epi64(Entry::GLOBAL.cast_signed());
    let (mut removed, mut any, mut own) = (0, 0, 0);
    let (eights, rest) = ways.as_chunks_mut::<8>();
    for (number, eight) in eights.iter_mut().enumerate() {
        // SAFETY: 8 words.
        unsafe {
            let old = _mm512_loadu_si512(eight.as_ptr().cast());
            let dies = _mm512_cmpeq_epi64_mask(_mm512_and_si512(old, field), value);
            _mm512_storeu_si512(eight.as_mut_ptr().cast(), _mm512_maskz_mov_epi64(!dies, old));
            removed += dies.count_ones() as usize;
            let stays = _mm512_mask_test_epi64_mask(!dies, old, old);
            any |= u64::from(stays) << (8 * number % 64);
            own |= u64::from(_mm512_mask_testn_epi64_mask(stays, old, global)) << (8 * number % 64);
        }
    }
    for (way, at) in rest.iter_mut().zip(8 * eights.len()..) {
        if gone.has(*way) {
            *way = Entry::EMPTY;
            removed += 1;
        }
        any |= u64::from(*way != Entry::EMPTY) << (at % 64);
        own |= u64::from(*way != Entry::EMPTY && !way.is_global()) << (at % 64);
    }
    (removed, any, own)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,popcnt")]
unsafe fn close_up_by_eights(ways: &mut [Entry], gone: Gone) -> usize {
    #[allow(clippy::wildcard_imports)] // intrinsics name themselves
    use std::arch::x86_64::*;

    let count = ways.len();
    assert!((1..=8).contains(&count));
    let lanes = u8::MAX >> (8 - count);
    let field = _mm512_set1_epi64(gone.field.cast_signed());
    let value = _mm512_set1_epi64(gone.value.cast_signed());
    // SAFETY: `count` words, read and written under their mask.
    unsafe {
        let old = _mm512_maskz_loadu_epi64(lanes, ways.as_ptr().cast());
        let dies = _mm512_mask_cmpeq_epi64_mask(lanes, _mm512_and_si512(old, field), value);
        if dies != 0 {
            let closed = _mm512_maskz_compress_epi64(!dies, old);
            _mm512_mask_storeu_epi64(ways.as_mut_ptr().cast(), lanes, closed);
        }
        dies.count_ones() as usize
    }
}
