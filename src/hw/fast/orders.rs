//! Orders of last use of any depth, one per set, and how deep in them pages are found: Olken's tree (1981), flat.
//!
//! Every use of a page has a time, and the last use of each has a bit, so a page is as deep as there are bits after its own.
//! They are counted in three steps: in the word, by the word in blocks of 64 words, and by the block in a Fenwick tree, which
//! for 65,536 pages has some thirty leaves. When times run out, the bits close up, and there are twice as many times as bits
//! again, so a use costs as much on average however long the trace is.

use rustc_hash::FxHashMap;

/// Most ways that can be asked for.
pub const MOST_WAYS: usize = 1 << 20;
/// Times of a block.
const BLOCK: usize = 64 * 64;
/// Names below this have their times in a row.
const LOW_NAMES: usize = 1 << 24;

/// Orders of one set count.
#[derive(Debug)]
pub(super) struct Orders {
    sets: Vec<Order>,
    last: Times,
    /// How often a page was found at each depth.
    found: Vec<u64>,
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
    /// Bits in each word.
    words: Vec<u8>,
    /// Bits in blocks, as a Fenwick tree from index 1.
    blocks: Vec<u32>,
    /// Whose use each time is.
    who: Vec<u32>,
    now: usize,
    live: usize,
}

impl Order {
    fn new(times: usize) -> Self {
        Order {
            bits: vec![0; times / 64],
            words: vec![0; times / 64],
            blocks: vec![0; times.div_ceil(BLOCK) + 1],
            who: vec![0; times],
            now: 0,
            live: 0,
        }
    }

    #[inline]
    fn change(&mut self, time: usize, set: bool) {
        let word = time / 64;
        self.bits[word] ^= 1 << (time % 64);
        self.words[word] = if set { self.words[word] + 1 } else { self.words[word] - 1 };
        let mut block = time / BLOCK + 1;
        while block < self.blocks.len() {
            let count = &mut self.blocks[block];
            *count = if set { *count + 1 } else { *count - 1 };
            block += block & block.wrapping_neg();
        }
    }

    /// Bits after a time that has one.
    #[inline]
    fn after(&self, time: usize) -> usize {
        let (word, mut block) = (time / 64, time / BLOCK + 1);
        let end = (block * 64).min(self.words.len());
        let mut before = 0;
        while block > 0 {
            before += self.blocks[block] as usize;
            block &= block - 1;
        }
        let in_word = (self.bits[word] >> (time % 64) >> 1).count_ones() as usize;
        let in_block: usize = self.words[word + 1..end].iter().map(|&count| usize::from(count)).sum();
        self.live - before + in_block + in_word
    }

    /// Whether a time is the last use of a page.
    #[inline]
    fn is_of(&self, time: usize, name: u32) -> bool {
        time < self.now && self.who[time] == name && self.bits[time / 64] >> (time % 64) & 1 == 1
    }

    /// Makes room for further times: the bits close up.
    fn close_up(&mut self, last: &mut Times) {
        let mut closed = Order::new((2 * self.live).next_power_of_two().max(64));
        for time in 0..self.now {
            if self.bits[time / 64] >> (time % 64) & 1 == 1 {
                let name = self.who[time];
                closed.who[closed.now] = name;
                closed.change(closed.now, true);
                closed.now += 1;
                *last.of(name) = closed.now as u32;
            }
        }
        closed.live = self.live;
        *self = closed;
    }
}

impl Orders {
    pub(super) fn new(sets: usize, ways: usize) -> Self {
        Orders { sets: vec![Order::new(0); sets], last: Times::default(), found: vec![0; ways] }
    }

    pub(super) fn found(&self) -> &[u64] {
        &self.found
    }

    /// Everything leaves; times begin anew.
    pub(super) fn flush(&mut self) {
        for order in self.sets.iter_mut().filter(|order| order.now > 0) {
            order.bits.fill(0);
            order.words.fill(0);
            order.blocks.fill(0);
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
            if order.is_of(before, name) {
                if let Some(count) = self.found.get_mut(order.after(before)) {
                    *count += 1;
                }
                order.change(before, false);
            } else {
                order.live += 1;
            }
            order.who[order.now] = name;
            order.change(order.now, true);
            order.now += 1;
            *last = order.now as u32;
        }
    }
}
