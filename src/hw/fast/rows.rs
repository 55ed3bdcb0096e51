//! An array packed to 32 bits a way: pages of one window by their low bits, all else as tokens that no page equals.
//!
//! The recency order is the layout: a set is its pages, newest first, so hit and miss are one shift.

use crate::hw::array::{Array, Entry};
use crate::hw::{PageSize, Pcid};

/// Accesses per batch: the buffers stay in the first-level cache.
pub(super) const BATCH: usize = 512;
/// Room for a batch and two vectors beyond its end.
pub(super) const ROOM: usize = BATCH + 16;
/// Bits of an interned page.
pub(super) const WINDOW: u32 = 31;
/// An empty way.
pub(super) const EMPTY: u32 = u32::MAX;

/// One level, packed: every set is a row of `STRIDE[ways]` interned pages.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// Rows, newest page first.
    pub(super) rows: Vec<Row>,
    pub(super) sets: usize,
    pub(super) ways: usize,
    /// Interned pages per set, a power of two, so that no set straddles two rows.
    pub(super) stride: usize,
    /// Whether no way is empty, as far as was looked.
    pub(super) full: bool,
}

/// One cache line of interned pages.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Row(pub(super) [u32; 16]);

/// The pages that are interned as their low `bits`; all others become tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) base: u64,
    pub(super) bits: u32,
}

impl Window {
    /// An entry as 32 bits; `None` for a global one.
    pub(super) fn intern(self, entry: Entry, pcid: Pcid, tokens: &mut Vec<Entry>) -> Option<u32> {
        if entry == Entry::EMPTY {
            return Some(EMPTY);
        }
        if entry.is_global() {
            return None;
        }
        let page = entry.page();
        let known = entry == Entry::new(page, PageSize::K4, pcid, false);
        if known && page >> self.bits == self.base >> self.bits {
            return Some((page & ((1 << self.bits) - 1)) as u32);
        }
        tokens.push(entry);
        Some((1 << WINDOW) | (tokens.len() as u32 - 1))
    }

    /// The entry again.
    pub(super) fn entry(self, id: u32, pcid: Pcid, tokens: &[Entry]) -> Entry {
        if id == EMPTY {
            Entry::EMPTY
        } else if id >> WINDOW == 0 {
            Entry::new(self.base | u64::from(id), PageSize::K4, pcid, false)
        } else {
            tokens[(id & (u32::MAX >> 1)) as usize]
        }
    }
}

impl Packed {
    /// An array as rows; `None` if it holds a global entry.
    pub(super) fn of(array: &Array, window: Window, pcid: Pcid, tokens: &mut Vec<Entry>) -> Option<Self> {
        let (sets, ways) = (array.sets() as usize, array.ways());
        let stride = ways.next_power_of_two();
        let mut rows = vec![Row([EMPTY; 16]); (sets * stride).div_ceil(16)];
        for (at, &entry) in array.keys().iter().enumerate() {
            let slot = at / ways * stride + at % ways;
            rows[slot / 16].0[slot % 16] = window.intern(entry, pcid, tokens)?;
        }
        Some(Packed { rows, sets, ways, stride, full: false })
    }

    /// Back into the array.
    pub(super) fn back(&self, array: &mut Array, window: Window, pcid: Pcid, tokens: &[Entry]) {
        for (at, entry) in array.keys_mut().iter_mut().enumerate() {
            let slot = at / self.ways * self.stride + at % self.ways;
            *entry = window.entry(self.rows[slot / 16].0[slot % 16], pcid, tokens);
        }
    }

    /// Whether no way is empty.
    pub(super) fn is_full(&self) -> bool {
        let words = self.rows.iter().flat_map(|row| row.0);
        words
            .enumerate()
            .take(self.sets * self.stride)
            .all(|(at, id)| id != EMPTY || at % self.stride >= self.ways)
    }

    /// Pages in order, without vectors; those not found move to the front, with their numbers if there are any. Returns
    /// how many these are.
    pub(super) fn pass(&mut self, ids: &mut [u32], numbers: &mut [u32]) -> usize {
        match (self.ways, numbers.is_empty()) {
            (4, true) => self.pass_ways::<4, 4, false>(ids, numbers),
            (4, false) => self.pass_ways::<4, 4, true>(ids, numbers),
            (8, true) => self.pass_ways::<8, 8, false>(ids, numbers),
            (8, false) => self.pass_ways::<8, 8, true>(ids, numbers),
            (12, true) => self.pass_ways::<12, 16, false>(ids, numbers),
            (12, false) => self.pass_ways::<12, 16, true>(ids, numbers),
            (16, true) => self.pass_ways::<16, 16, false>(ids, numbers),
            (16, false) => self.pass_ways::<16, 16, true>(ids, numbers),
            (ways, _) => unreachable!("no plain level has {ways} ways"),
        }
    }

    fn pass_ways<const WAYS: usize, const STRIDE: usize, const NUMBERS: bool>(
        &mut self,
        ids: &mut [u32],
        numbers: &mut [u32],
    ) -> usize {
        assert!(self.ways == WAYS && self.stride == STRIDE);
        let (mask, rows) = (self.sets - 1, &mut self.rows[..]);
        let mut misses = 0;
        for i in 0..ids.len() {
            let id = ids[i];
            let set = id as usize & mask;
            let row = &mut rows[set * STRIDE / 16].0;
            // Where a set is a row, its place is a constant, and so are those of its ways.
            let at = if STRIDE == 16 { 0 } else { set * STRIDE % 16 };
            let ways = row[at..].first_chunk_mut::<WAYS>().expect("a stride has room");
            let hit = to_front(ways, id);
            ids[misses] = id;
            if NUMBERS {
                numbers[misses] = numbers[i];
            }
            misses += usize::from(!hit);
        }
        misses
    }
}

/// One access: the page becomes the newest of its set, and what stood before it moves down.
#[inline]
fn to_front<const WAYS: usize>(ways: &mut [u32; WAYS], id: u32) -> bool {
    let mut carry = id;
    for way in ways {
        let old = std::mem::replace(way, carry);
        if old == id {
            return true;
        }
        carry = old;
    }
    false
}
