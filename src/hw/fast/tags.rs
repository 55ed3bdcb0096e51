//! Sets of up to 16 ways at 16 bits a way: a set is at most one vector of 256 bits.
//!
//! All pages of a set agree in the low bits that pick it, so what tells them apart is the page number without these
//! bits: its tag. Where the pages of a call lie in one window of 2^15 tags (with 16 sets 2 GiB of addresses, with 128
//! sets 16 GiB), 15 bits name them. Whatever else a set holds becomes a token above them, that no page equals, as in
//! [`super::rows`]. A page outside the window ends this form, not the call: [`Narrow::back`] gives the 32-bit rows again.

use super::rows::{EMPTY, Packed, WINDOW};

/// Most ways of a set.
pub(super) const MOST_WAYS: usize = 16;
/// Bits of a tag.
pub(super) const TAG: u32 = 15;
/// No way and no tag.
const NOTHING: u16 = u16::MAX;

/// Sixteen ways, four in a word, the first in the lowest bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(super) struct Line([u64; MOST_WAYS / 4]);

/// One level, packed to 16 bits a way.
#[derive(Debug)]
pub(super) struct Narrow {
    /// Sets of [`stride`] ways one after the other, in each the newest way first.
    pub(super) lines: Vec<Line>,
    pub(super) shape: Shape,
    pub(super) ways: usize,
    tokens: Vec<u32>,
}

/// Sets of 16-bit tags: their number, the ways one takes up, and which pages have tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) sets: usize,
    pub(super) stride: usize,
    /// What the window begins at; a multiple of the number of sets. It may wrap.
    pub(super) base: u32,
    /// log2 of the number of sets.
    pub(super) shift: u32,
}

/// Ways a set takes up: those it does not have stay empty.
const fn stride(ways: usize) -> usize {
    if ways <= 4 { 4 } else { ways.next_power_of_two() }
}

impl Narrow {
    /// Rows of interned pages in this form, for pages that are expected to lie from `low` to `high`. `None`: too many
    /// ways, sets or tokens, or too wide a range.
    pub(super) fn of(packed: &Packed, low: u32, high: u32) -> Option<Self> {
        let (sets, ways) = (packed.sets, packed.ways);
        let shift = sets.trailing_zeros();
        let fits = sets.is_power_of_two() && ways <= MOST_WAYS && shift + TAG <= WINDOW;
        if !fits || high.checked_sub(low)? >> (shift + TAG - 1) != 0 {
            return None;
        }
        let middle = low + (high - low) / 2;
        let base = (middle >> shift << shift).wrapping_sub(1 << (shift + TAG - 1));
        let shape = Shape { sets, stride: stride(ways), base, shift };
        let lines = vec![Line([u64::MAX; MOST_WAYS / 4]); (sets * shape.stride).div_ceil(MOST_WAYS)];
        let mut narrow = Narrow { lines, shape, ways, tokens: Vec::new() };
        for set in 0..sets {
            for way in 0..ways {
                let at = set * packed.stride + way;
                let name = narrow.name(packed.rows[at / 16].0[at % 16])?;
                let at = set * shape.stride + way;
                let word = &mut narrow.lines[at / MOST_WAYS].0[at % MOST_WAYS / 4];
                *word ^= u64::from(name ^ NOTHING) << (16 * (at % 4));
            }
        }
        Some(narrow)
    }

    fn name(&mut self, id: u32) -> Option<u16> {
        if id == EMPTY {
            return Some(NOTHING);
        }
        let tag = id.wrapping_sub(self.shape.base) >> self.shape.shift;
        if id >> WINDOW == 0 && tag >> TAG == 0 {
            return Some(tag as u16);
        }
        // The last token would be `NOTHING`.
        let token = self.tokens.len() as u16;
        self.tokens.push(id);
        (token < (1 << TAG) - 1).then_some(1 << TAG | token)
    }

    /// Back into the rows.
    pub(super) fn back(&self, packed: &mut Packed) {
        for set in 0..self.shape.sets {
            for way in 0..self.ways {
                let at = set * self.shape.stride + way;
                let name = (self.lines[at / MOST_WAYS].0[at % MOST_WAYS / 4] >> (16 * (at % 4))) as u16;
                let at = set * packed.stride + way;
                packed.rows[at / 16].0[at % 16] = if name == NOTHING {
                    EMPTY
                } else if name >> TAG == 0 {
                    self.shape.base.wrapping_add(u32::from(name) << self.shape.shift) | set as u32
                } else {
                    self.tokens[usize::from(name & ((1 << TAG) - 1))]
                };
            }
        }
    }

    /// Whether all pages have tags.
    pub(super) fn holds(&self, ids: &[u32]) -> bool {
        let Shape { base, shift, .. } = self.shape;
        ids.iter().fold(0, |all, id| all | id.wrapping_sub(base) >> shift) >> TAG == 0
    }

    /// Pages that have tags through sets of four ways, without vectors; those not found move to the front, with their
    /// numbers if there are any. Returns how many these are.
    pub(super) fn pass4(&mut self, ids: &mut [u32], numbers: &mut [u32]) -> usize {
        if numbers.is_empty() {
            self.pass4_or::<false>(ids, numbers)
        } else {
            self.pass4_or::<true>(ids, numbers)
        }
    }

    fn pass4_or<const NUMBERS: bool>(&mut self, ids: &mut [u32], numbers: &mut [u32]) -> usize {
        const LOW: u64 = 0x0001_0001_0001_0001;
        const HIGH: u64 = LOW << 15;
        let Shape { sets, base, shift, .. } = self.shape;
        let lines = &mut self.lines[..];
        let mut misses = 0;
        for i in 0..ids.len() {
            let id = ids[i];
            let set = id as usize & (sets - 1);
            let word = &mut lines[set / 4].0[set % 4];
            let tag = u64::from(id.wrapping_sub(base) >> shift);
            // The lowest bit that is left is the highest of the first way that is equal.
            let differs = *word ^ tag.wrapping_mul(LOW);
            let found = differs.wrapping_sub(LOW) & !differs & HIGH;
            // Ways up to the one found, or all, move up.
            let moves = found ^ found.wrapping_sub(1);
            *word ^= (*word ^ (*word << 16 | tag)) & moves;
            ids[misses] = id;
            if NUMBERS {
                numbers[misses] = numbers[i];
            }
            misses += usize::from(found == 0);
        }
        misses
    }
}
