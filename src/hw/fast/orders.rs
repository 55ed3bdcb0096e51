//! Orders of last use of any depth, one per set, and how deep in them pages are found: Olken's tree (1981), flat.
//!
//! Every use of a page has a time, and the last use of each has a bit, so a page is as deep as there are bits after its own.
//! Times are in words, these in some hundred blocks. How many bits are before a block is known, and how many of its block are
//! before a word: so a depth is these two numbers and the bits of one word, and where a bit goes, one is taken from the numbers
//! of what comes behind it. When times run out, the bits close up, and there are twice as many times as bits again, so a use
//! costs as much on average however long the trace is.

use rustc_hash::FxHashMap;

/// Most ways that can be asked for.
pub const MOST_WAYS: usize = 1 << 20;
/// Blocks that there are where that leaves them some words, and not more than can be counted in 16 bits.
const BLOCKS: usize = 64;
const WORDS: std::ops::RangeInclusive<usize> = 16..=512;
/// Names below this have their times in a row.
const LOW_NAMES: usize = 1 << 24;

/// Orders of one set count.
#[derive(Debug)]
pub(super) struct Orders {
    sets: Vec<Order>,
    last: Times,
    /// How often a page was found at each depth.
    found: Vec<u64>,
    /// Something has been forgotten, and so a time need not be that of the name.
    flushed: bool,
}

/// When each name was used last, plus 1; 0: never. What was forgotten may still have a time: whether it is that of the name
/// is asked of [`Order::who`].
#[derive(Debug, Default)]
struct Times {
    low: Vec<u32>,
    high: FxHashMap<u32, u32>,
}

impl Times {
    /// Where the time of a name stands.
    #[inline]
    fn of(&mut self, name: u32) -> &mut u32 {
        let at = name as usize;
        if at >= LOW_NAMES {
            return self.high.entry(name).or_insert(0);
        }
        if at >= self.low.len() {
            self.low.resize((at + 1).next_power_of_two(), 0);
        }
        &mut self.low[at]
    }
}

/// One set.
#[derive(Clone, Debug)]
struct Order {
    /// Bit `time` is set for the last use of a page.
    bits: Vec<u64>,
    /// Bits before each block. Of blocks that no time is in yet this means nothing.
    before: Vec<[u32; 8]>,
    /// Bits of its block before each word, in words that have times.
    within: Vec<[u16; 16]>,
    /// Words of a block, a power of two, and its logarithm.
    words: usize,
    shift: u32,
    /// Whose use each time is.
    who: Vec<u32>,
    now: usize,
    live: usize,
}

impl Order {
    fn new(times: usize) -> Self {
        let words = (times / 64 / BLOCKS).clamp(*WORDS.start(), *WORDS.end());
        let blocks = (times / 64).div_ceil(words);
        Order {
            bits: vec![0; times / 64],
            before: vec![[0; 8]; blocks.div_ceil(8)],
            within: vec![[0; 16]; blocks * words / 16],
            words,
            shift: words.trailing_zeros(),
            who: vec![0; times],
            now: 0,
            live: 0,
        }
    }

    /// Takes the bit of a time away; returns how many are after it.
    #[inline]
    fn take(&mut self, time: usize) -> usize {
        let (word, bit) = (time / 64, 1 << (time % 64));
        let block = word >> self.shift;
        let before = self.before.as_flattened()[block] as usize;
        let within = usize::from(self.within.as_flattened()[word]);
        let in_word = (self.bits[word] & (bit - 1)).count_ones() as usize;
        self.bits[word] ^= bit;
        self.live -= 1;
        // Whole vectors, in which what is not behind the word or the block is left as it is.
        let first = word / 16;
        let end = ((block + 1) << self.shift) / 16;
        for (numbers, at) in self.within[first..end].iter_mut().zip(first..) {
            let behind = (word + 1).saturating_sub(16 * at) as u16;
            for (number, at) in numbers.iter_mut().zip(0..) {
                *number = number.wrapping_sub(u16::from(at >= behind));
            }
        }
        let first = block / 8;
        for (numbers, at) in self.before[first..].iter_mut().zip(first..) {
            let behind = (block + 1).saturating_sub(8 * at) as u32;
            for (number, at) in numbers.iter_mut().zip(0..) {
                *number = number.wrapping_sub(u32::from(at >= behind));
            }
        }
        self.live - before - within - in_word
    }

    /// A page is used, and has no bit.
    #[inline]
    fn put(&mut self, name: u32) {
        let word = self.now / 64;
        if self.now.is_multiple_of(64) {
            let block = word >> self.shift;
            let before = &mut self.before.as_flattened_mut()[block];
            if word & (self.words - 1) == 0 {
                *before = self.live as u32;
            }
            self.within.as_flattened_mut()[word] = (self.live - *before as usize) as u16;
        }
        self.bits[word] |= 1 << (self.now % 64);
        self.who[self.now] = name;
        self.now += 1;
        self.live += 1;
    }

    /// Whether a time is the last use of a page.
    #[inline]
    fn is_of(&self, time: usize, name: u32) -> bool {
        time < self.now && self.who[time] == name && self.bits[time / 64] >> (time % 64) & 1 == 1
    }

    /// Makes room for further times: the bits close up.
    fn close_up(&mut self, last: &mut Times) {
        let mut closed = Order::new((2 * self.live).next_power_of_two().max(64));
        for (word, &bits) in self.bits.iter().enumerate() {
            let mut left = bits;
            while left != 0 {
                let name = self.who[64 * word + left.trailing_zeros() as usize];
                left &= left - 1;
                closed.put(name);
                *last.of(name) = closed.now as u32;
            }
        }
        *self = closed;
    }
}

impl Orders {
    pub(super) fn new(sets: usize, ways: usize) -> Self {
        Orders {
            sets: vec![Order::new(0); sets],
            last: Times::default(),
            found: vec![0; ways],
            flushed: false,
        }
    }

    pub(super) fn found(&self) -> &[u64] {
        &self.found
    }

    /// Everything leaves; times begin anew.
    pub(super) fn flush(&mut self) {
        self.flushed = true;
        for order in self.sets.iter_mut().filter(|order| order.now > 0) {
            order.bits[..order.now.div_ceil(64)].fill(0);
            (order.now, order.live) = (0, 0);
        }
    }

    /// Accesses in order.
    pub(super) fn find_depths(&mut self, names: &[u32]) {
        let mask = self.sets.len() - 1;
        for &name in names {
            let order = &mut self.sets[name as usize & mask];
            if order.now == order.who.len() {
                order.close_up(&mut self.last);
            }
            let last = self.last.of(name);
            let before = (*last as usize).wrapping_sub(1);
            if if self.flushed { order.is_of(before, name) } else { *last > 0 } {
                let depth = order.take(before);
                if let Some(count) = self.found.get_mut(depth) {
                    *count += 1;
                }
            }
            order.put(name);
            *last = order.now as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::array::splitmix64;

    #[test]
    fn pages_are_found_as_deep_as_in_a_list_of_them() {
        // Few pages, and so many that there are several blocks, of several words; most uses are of a few.
        for (seed, pages, count) in [(1, 3, 500), (2, 90, 4_000), (3, 3_000, 20_000), (4, 9_000, 30_000)] {
            for flushed in [0, 700, 9_000] {
                let mut orders = Orders::new(2, 5_000);
                let (mut lists, mut found) = ([Vec::new(), Vec::new()], vec![0; 5_000]);
                let skewed = |n| {
                    let draw = splitmix64(seed, n);
                    (if draw & 3 == 0 { draw >> 8 } else { draw >> 8 & 0x7f }) % pages
                };
                // Some names have their times in the table.
                let name = |n| (skewed(n) * if flushed == 700 { 40_009 } else { 1 }) as u32;
                for n in 0..count {
                    if flushed > 0 && n % flushed == flushed - 1 {
                        orders.flush();
                        lists.iter_mut().for_each(Vec::clear);
                    }
                    let name = name(n);
                    orders.find_depths(&[name]);
                    let list = &mut lists[name as usize & 1];
                    if let Some(depth) = list.iter().rev().position(|&other| other == name) {
                        if let Some(count) = found.get_mut(depth) {
                            *count += 1;
                        }
                        list.remove(list.len() - 1 - depth);
                    }
                    list.push(name);
                }
                assert_eq!(orders.found(), found, "{pages} pages, a flush every {flushed}");
            }
        }
    }
}
