//! One physical array of entries: sets, ways, and who leaves when a set is full.
//!
//! An entry is one word, so a lookup is one or two compares per way. For LRU and FIFO the ways of a set *are* the
//! order (newest first, empty ways last), so no clock is kept; for the other policies a way is a place and the
//! order is a word of bits per set.

mod hints;
pub(super) mod neighbours;

use serde::{Deserialize, Serialize};

use hints::{Filled, MayBe};

pub use super::entry::Entry;
use super::geometry::{Index, Replacement, Structure};
use super::vectors::{self, Gone};
use super::{PageSize, Pcid};

/// One structure's contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Array {
    sets: u32,
    ways: u32,
    fold: u32,
    modulo: bool,
    policy: Policy,
    keys: Vec<Entry>,
    /// Direction bits per set; empty for LRU, FIFO and random.
    tree: Vec<u64>,
    /// Evictions decided by the random policy so far.
    draws: u64,
    /// Entries marked stale; while it is 0 a hit cannot be one.
    stale: u32,
    /// Where to look for entries that are to leave.
    #[serde(skip)]
    filled: Filled,
    #[serde(skip)]
    globals: MayBe,
    #[serde(skip)]
    in_pieces: MayBe,
}

/// What a loop over sets needs of an array.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// Sets one after the other.
    pub(super) keys: &'a mut [Entry],
    /// Direction bits per set, if there are any.
    pub(super) tree: &'a mut [u64],
    /// Where something is entered: bit `set % 64` where the ways of a set are an order, bit `index % 64` where a way is a place.
    pub(super) filled: &'a mut Filled,
    /// By how much a key is shifted and XORed to itself before its low bits pick a set; bit 63 of no key is set.
    pub(super) fold: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Policy {
    Lru,
    Fifo,
    Tree,
    MruTree { groups: u32 },
    Random { seed: u64 },
}

/// So many filled places are looked at one by one. Measured with callgrind on the bench of looked-up touches, some 20 places
/// filled: 527 instructions a round in here, and 914 where all 64 are compared without a branch.
const FEW_FILLED: u32 = 32;
/// Where there are more entries, of which few are filled or which no vectors compare, what is filled is looked for first.
const MOST_COMPARED: usize = 256;

/// Where the number of the most recently used group stands in a set's word.
pub(super) const MRU_SHIFT: u32 = 56;

/// How a set's order is kept, for the vector loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The ways are their recency order.
    Recency,
    /// Direction bits.
    Trees(TreeShape),
    /// Something that no vector loop knows.
    Other,
}

/// Sets whose replacement is direction bits alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TreeShape {
    /// One tree of four ways.
    Four,
    /// One tree of eight ways.
    Eight,
    /// One tree of sixteen ways.
    Sixteen,
    /// Three trees of four ways; the victim's group follows the most recent one.
    ThreeFours,
}

impl Array {
    pub(crate) fn new(shape: &Structure) -> Self {
        let policy = match shape.replacement {
            Replacement::Lru => Policy::Lru,
            Replacement::Fifo => Policy::Fifo,
            Replacement::TreePlru => Policy::Tree,
            Replacement::MruPlru { groups } => Policy::MruTree { groups: u32::from(groups) },
            Replacement::Random { seed } => Policy::Random { seed },
        };
        let tree = match policy {
            Policy::Tree | Policy::MruTree { .. } => vec![0; shape.sets as usize],
            Policy::Lru | Policy::Fifo | Policy::Random { .. } => Vec::new(),
        };
        Array {
            sets: shape.sets,
            ways: shape.ways,
            fold: if shape.index == Index::Xor { shape.sets.trailing_zeros() } else { 0 },
            modulo: shape.index == Index::Modulo,
            policy,
            keys: vec![Entry::EMPTY; shape.entries() as usize],
            tree,
            draws: 0,
            stale: 0,
            filled: Filled::NOTHING,
            globals: MayBe(false),
            in_pieces: MayBe(false),
        }
    }

    /// A fully associative LRU array.
    pub(crate) fn associative(entries: u32) -> Self {
        Array {
            sets: 1,
            ways: entries,
            fold: 0,
            modulo: false,
            policy: Policy::Lru,
            keys: vec![Entry::EMPTY; entries as usize],
            tree: Vec::new(),
            draws: 0,
            stale: 0,
            filled: Filled::NOTHING,
            globals: MayBe(false),
            in_pieces: MayBe(false),
        }
    }

    pub(crate) fn sets(&self) -> u32 {
        self.sets
    }

    pub(crate) fn ways(&self) -> usize {
        self.ways as usize
    }

    pub(crate) fn stale(&self) -> u32 {
        self.stale
    }

    pub(crate) fn keys(&self) -> &[Entry] {
        &self.keys
    }

    /// The contents, for a loop that keeps the same order by other means.
    pub(crate) fn keys_mut(&mut self) -> &mut [Entry] {
        self.filled = Filled::ANYTHING;
        (self.globals, self.in_pieces) = (MayBe(true), MayBe(true));
        &mut self.keys
    }

    /// Whether it holds anything global.
    pub(crate) fn holds_globals(&mut self) -> bool {
        self.globals.0 = self.globals.0 && self.keys.iter().any(|entry| entry.is_global());
        self.globals.0
    }

    /// Whether it holds pieces of 1 GiB pages.
    pub(crate) fn holds_pieces(&mut self) -> bool {
        self.in_pieces.0 = self.in_pieces.0 && self.keys.iter().any(|entry| entry.is_piece());
        self.in_pieces.0
    }

    /// Whether the ways of a set are its recency order and its index is linear.
    pub(crate) fn is_plain_lru(&self) -> bool {
        self.policy == Policy::Lru && self.fold == 0 && !self.modulo
    }

    /// Whether `other` has the same shape, so that its contents may replace these.
    pub(crate) fn same_shape(&self, other: &Array) -> bool {
        let shape = |a: &Array| (a.sets, a.ways, a.fold, a.modulo, a.policy, a.keys.len(), a.tree.len());
        shape(self) == shape(other)
    }

    #[inline]
    pub(crate) fn set_of(&self, page: u64) -> usize {
        if self.modulo {
            return (page % u64::from(self.sets)) as usize;
        }
        let folded = if self.fold == 0 { page } else { page ^ page >> self.fold };
        folded as usize & (self.sets as usize - 1)
    }

    #[inline]
    fn ways_of(&self, set: usize) -> &[Entry] {
        &self.keys[set * self.ways as usize..][..self.ways as usize]
    }

    /// How the order of a set is kept, for a loop that knows that order.
    pub(super) fn order(&self) -> Order {
        match (self.policy, self.ways) {
            _ if self.modulo => Order::Other,
            (Policy::Lru, _) => Order::Recency,
            (Policy::Tree, 4) => Order::Trees(TreeShape::Four),
            (Policy::Tree, 8) => Order::Trees(TreeShape::Eight),
            (Policy::Tree, 16) => Order::Trees(TreeShape::Sixteen),
            (Policy::MruTree { groups: 3 }, 12) => Order::Trees(TreeShape::ThreeFours),
            (Policy::Tree | Policy::MruTree { .. } | Policy::Fifo | Policy::Random { .. }, _) => Order::Other,
        }
    }

    /// Bits by which a page is shifted before it is XORed to itself; 0: not at all.
    pub(super) fn fold(&self) -> u32 {
        self.fold
    }

    /// Its parts, for a loop that knows its order and keeps them as [`Array::fill`] and [`Array::lookup`] do; with `globals`
    /// if it may enter anything global.
    pub(super) fn parts_mut(&mut self, globals: bool) -> Parts<'_> {
        self.globals.0 |= globals;
        let fold = if self.fold == 0 { u64::BITS - 1 } else { self.fold };
        Parts { keys: &mut self.keys, tree: &mut self.tree, filled: &mut self.filled, fold }
    }

    /// The direction bits, a word per set.
    pub(super) fn tree_mut(&mut self) -> &mut [u64] {
        &mut self.tree
    }

    #[inline]
    fn find(&self, set: usize, key: Entry, global: Entry) -> Option<usize> {
        let ways = self.ways_of(set);
        if self.stale == 0 {
            if let Ok(four) = <&[Entry; 4]>::try_from(ways) {
                return four.iter().position(|&way| way == key || way == global);
            }
            if let Ok(six) = <&[Entry; 6]>::try_from(ways) {
                return six.iter().position(|&way| way == key || way == global);
            }
            if ways.len() >= 16 && vectors::available() {
                return vectors::find(ways, key, global);
            }
            // Eight at a time without a branch, then the one among them.
            let (eights, rest) = ways.as_chunks::<8>();
            for (number, eight) in eights.iter().enumerate() {
                let found = lanes(eight, key) | lanes(eight, global);
                if found != 0 {
                    return Some(8 * number + found.trailing_zeros() as usize);
                }
            }
            let tail = rest.iter().position(|&way| way == key || way == global);
            tail.map(|place| 8 * eights.len() + place)
        } else {
            ways.iter().map(|way| Entry(way.0 & !Entry::STALE)).position(|way| way == key || way == global)
        }
    }

    /// The entry that answers, without any effect on the order; empty if none does.
    pub(crate) fn peek(&self, set: usize, key: Entry, global: Entry) -> Entry {
        self.find(set, key, global).map_or(Entry::EMPTY, |way| self.ways_of(set)[way])
    }

    /// The entry that answers, now the most recently used one; empty if none does.
    #[inline]
    pub(crate) fn lookup(&mut self, set: usize, key: Entry, global: Entry) -> Entry {
        let Some(way) = self.find(set, key, global) else { return Entry::EMPTY };
        let found = self.ways_of(set)[way];
        match self.policy {
            Policy::Lru if way > 0 => {
                let start = set * self.ways as usize;
                let ways = &mut self.keys[start..=start + way];
                ways.copy_within(..way, 1);
                ways[0] = found;
            }
            Policy::Lru => {}
            Policy::Tree | Policy::MruTree { .. } => self.touch(set, way as u32),
            Policy::Fifo | Policy::Random { .. } => {}
        }
        found
    }

    /// Enters `key`, which no way of the set holds; returns what had to leave.
    #[inline]
    pub(crate) fn fill(&mut self, set: usize, key: Entry) -> Entry {
        self.globals.0 |= key.is_global();
        self.in_pieces.0 |= key.is_piece();
        let start = set * self.ways as usize;
        let ways = &mut self.keys[start..start + self.ways as usize];
        let victim = match self.policy {
            Policy::Lru | Policy::Fifo => {
                let last = ways.len() - 1;
                let victim = ways[last];
                ways.copy_within(..last, 1);
                ways[0] = key;
                self.filled.enter(1 << (set % 64));
                victim
            }
            Policy::Tree | Policy::MruTree { .. } | Policy::Random { .. } => {
                let empty = ways.iter().position(|&way| way == Entry::EMPTY);
                let way = empty.unwrap_or_else(|| self.victim(set));
                self.filled.enter(1 << ((start + way) % 64));
                let victim = std::mem::replace(&mut self.keys[start + way], key);
                self.touch(set, way as u32);
                victim
            }
        };
        self.stale = self.stale + u32::from(key.is_stale()) - u32::from(victim.is_stale());
        victim
    }

    /// Points the direction bits on the path to `way` away from it.
    #[inline]
    fn touch(&mut self, set: usize, way: u32) {
        match self.policy {
            Policy::Tree => {
                let bits = &mut self.tree[set];
                *bits = turn_away(*bits, 0, self.ways, way);
            }
            Policy::MruTree { groups } => {
                let size = self.ways / groups;
                let (group, inside) = (way / size, way % size);
                let bits = &mut self.tree[set];
                *bits = turn_away(*bits, group * size, size, inside);
                *bits = *bits & !(0xff << MRU_SHIFT) | u64::from(group) << MRU_SHIFT;
            }
            Policy::Lru | Policy::Fifo | Policy::Random { .. } => {}
        }
    }

    fn victim(&mut self, set: usize) -> usize {
        match self.policy {
            Policy::Tree => follow(self.tree[set], 0, self.ways) as usize,
            Policy::MruTree { groups } => {
                let size = self.ways / groups;
                let bits = self.tree[set];
                let group = ((bits >> MRU_SHIFT) as u32 + 1) % groups;
                (group * size + follow(bits, group * size, size)) as usize
            }
            Policy::Random { seed } => {
                let draw = splitmix64(seed, self.draws);
                self.draws += 1;
                ((u128::from(draw) * u128::from(self.ways)) >> 64) as usize
            }
            Policy::Lru | Policy::Fifo => self.ways as usize - 1,
        }
    }

    /// Removes the entries for which `dies` holds. Survivors keep their order; dead ways become free.
    #[inline]
    pub(crate) fn remove(&mut self, dies: impl Fn(Entry) -> bool) -> usize {
        let (mut removed, mut left) = (0, self.filled.any);
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left - 1;
            let (mut at, mut kept) = (bit as usize, 0);
            if self.is_ordered() {
                while at < self.sets as usize {
                    let (gone, stay) = self.remove_ordered(at, &dies);
                    removed += gone;
                    kept += stay;
                    at += 64;
                }
            } else {
                while at < self.keys.len() {
                    let gone = self.remove_at(at, &dies);
                    removed += usize::from(gone);
                    kept += usize::from(self.keys[at] != Entry::EMPTY);
                    at += 64;
                }
            }
            if kept == 0 {
                self.filled.any &= !(1 << bit);
            }
        }
        removed
    }

    /// Removes what a context has cached; globals are nobody's.
    ///
    /// As [`Array::remove`] would. Contexts change often where globals have gathered, so what stays is passed over quickly: an
    /// order is looked at again only if something of it dies, and places are compared without a branch.
    pub(crate) fn remove_context(&mut self, pcid: Pcid) -> usize {
        let field = Entry::VALID | Entry::GLOBAL | Entry::PCID_FIELD;
        let gone = Gone { field, value: Entry::new(0, PageSize::K4, pcid, false).0 & field };
        let dies = |entry: Entry| gone.has(entry);
        if self.filled.any & self.filled.own == 0 {
            return 0;
        }
        if self.stale > 0 {
            return self.remove(dies);
        }
        if self.is_ordered() {
            let (mut removed, mut left) = (0, self.filled.any & self.filled.own);
            let by_eights = self.ways <= 8 && vectors::eights();
            while left != 0 {
                let bit = left & left.wrapping_neg();
                left ^= bit;
                let (mut any, mut own) = (0, 0);
                for set in (bit.trailing_zeros() as usize..self.sets as usize).step_by(64) {
                    let ways = set * self.ways as usize..(set + 1) * self.ways as usize;
                    removed += if by_eights {
                        vectors::close_up(&mut self.keys[ways.clone()], gone)
                    } else {
                        let dying = self.keys[ways.clone()].iter().map(|&way| usize::from(dies(way)));
                        if dying.sum::<usize>() > 0 { self.remove_ordered(set, dies).0 } else { 0 }
                    };
                    for way in &self.keys[ways] {
                        any |= way.0;
                        own |= if way.is_global() { 0 } else { way.0 };
                    }
                }
                self.filled.any ^= if any == 0 { bit } else { 0 };
                self.filled.own ^= if own == 0 { bit } else { 0 };
            }
            return removed;
        }
        let few = self.filled.any.count_ones() <= FEW_FILLED;
        if self.keys.len() > MOST_COMPARED && (few || !vectors::eights()) {
            return self.remove(dies);
        }
        if vectors::eights() {
            let removed;
            (removed, self.filled.any, self.filled.own) = vectors::empty_places(&mut self.keys, gone);
            return removed;
        }
        // A way is a place, and of 64 each has a bit of its own.
        if !few || self.keys.len() != 64 {
            let (mut removed, mut rest) = (0, 0);
            for way in &mut self.keys {
                let gone = u64::from(dies(*way));
                removed += gone as usize;
                way.0 &= gone.wrapping_sub(1);
                rest |= way.0;
            }
            self.filled.any &= if rest == 0 { 0 } else { !0 };
            return removed;
        }
        let (mut removed, mut left) = (0, self.filled.any);
        while left != 0 {
            let bit = left & left.wrapping_neg();
            let way = &mut self.keys[(left.trailing_zeros() & 63) as usize];
            let gone = dies(*way);
            way.0 = if gone { 0 } else { way.0 };
            removed += usize::from(gone);
            self.filled.any ^= if way.0 == 0 { bit } else { 0 };
            left ^= bit;
        }
        removed
    }

    /// As [`Array::remove`], in one set.
    pub(crate) fn remove_in(&mut self, set: usize, dies: impl Fn(Entry) -> bool) -> usize {
        if self.is_ordered() {
            let dying = self.ways_of(set).iter().any(|&way| way != Entry::EMPTY && dies(way));
            return if dying { self.remove_ordered(set, dies).0 } else { 0 };
        }
        let start = set * self.ways as usize;
        (start..start + self.ways as usize).filter(|&at| self.remove_at(at, &dies)).count()
    }

    fn is_ordered(&self) -> bool {
        matches!(self.policy, Policy::Lru | Policy::Fifo)
    }

    /// Where a way is a place. Whether there was an entry that had to leave.
    #[inline]
    fn remove_at(&mut self, at: usize, dies: impl Fn(Entry) -> bool) -> bool {
        let entry = self.keys[at];
        if entry == Entry::EMPTY || !dies(entry) {
            return false;
        }
        self.keys[at] = Entry::EMPTY;
        self.stale -= u32::from(entry.is_stale());
        true
    }

    /// Where ways are an order: how many entries of a set left and stayed.
    #[inline]
    fn remove_ordered(&mut self, set: usize, dies: impl Fn(Entry) -> bool) -> (usize, usize) {
        let ways = &mut self.keys[set * self.ways as usize..][..self.ways as usize];
        let (mut removed, mut kept) = (0, 0);
        for way in 0..ways.len() {
            let entry = ways[way];
            if entry == Entry::EMPTY {
                break; // empty ways come last
            }
            ways[way] = Entry::EMPTY;
            if dies(entry) {
                removed += 1;
                self.stale -= u32::from(entry.is_stale());
            } else {
                ways[kept] = entry;
                kept += 1;
            }
        }
        (removed, kept)
    }

    /// Forgets every entry; the direction bits and the number of draws stay, as after any flush.
    pub(crate) fn clear(&mut self) -> usize {
        if self.filled.any.count_ones() <= FEW_FILLED {
            return self.remove(|_| true);
        }
        let removed = self.keys.iter().map(|&way| usize::from(way != Entry::EMPTY)).sum();
        self.keys.fill(Entry::EMPTY);
        (self.filled, self.stale) = (Filled::NOTHING, 0);
        removed
    }

    /// Marks the entries for which `changed` holds; returns how many were not yet marked.
    pub(crate) fn mark_stale(&mut self, changed: impl Fn(Entry) -> bool) -> usize {
        let mut marked = 0;
        for way in self.keys.iter_mut().filter(|way| **way != Entry::EMPTY && !way.is_stale()) {
            if changed(*way) {
                way.0 |= Entry::STALE;
                marked += 1;
            }
        }
        self.stale += marked as u32;
        marked
    }
}

/// Bit `i` is set where way `i` holds `key`.
#[inline]
fn lanes<const WAYS: usize>(ways: &[Entry; WAYS], key: Entry) -> u32 {
    ways.iter().enumerate().fold(0, |found, (i, &way)| found | u32::from(way == key) << i)
}

/// Direction bits as a heap: node 1 is the root, bit `base + node` = 1 sends the victim right.
#[inline]
pub(super) const fn point_away(mut bits: u64, base: u32, ways: u32, way: u32) -> u64 {
    let mut node = 1;
    let mut half = ways >> 1;
    while half > 0 {
        let right = (way & half != 0) as u32;
        let bit = 1 << (base + node);
        bits = if right == 1 { bits & !bit } else { bits | bit };
        node = 2 * node + right;
        half >>= 1;
    }
    bits
}

/// What [`point_away`] keeps and sets of four ways' bits.
const AWAY: [(u64, u64); 4] = {
    let mut table = [(0, 0); 4];
    let mut way = 0;
    while way < 4 {
        table[way as usize] = (point_away(!0, 0, 4, way), point_away(0, 0, 4, way));
        way += 1;
    }
    table
};

/// [`point_away`], by a table where there is one.
#[inline]
fn turn_away(bits: u64, base: u32, ways: u32, way: u32) -> u64 {
    if ways == 4 {
        let (keep, set) = AWAY[way as usize & 3];
        return bits & !(!keep << base) | set << base;
    }
    point_away(bits, base, ways, way)
}

#[inline]
pub(super) const fn follow(bits: u64, base: u32, ways: u32) -> u32 {
    let mut node = 1;
    while node < ways {
        node = 2 * node + (bits >> (base + node) & 1) as u32;
    }
    node - ways
}

/// The `n`-th number of Steele, Lea and Flood's SplitMix64 from `seed` (OOPSLA 2014), counted from 0.
pub(crate) fn splitmix64(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests;
