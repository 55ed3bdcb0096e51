//! A fully associative recency order in which an access takes as long for 20 ways as for 60,000: a list of the entries by
//! last use, and a hash table of chains that finds them.

use crate::hw::array::{Array, Entry};

/// So many ways are sooner looked at in a row.
const FEW: usize = 32;
/// Context and G bit: keys that differ in these alone share a chain, where both are looked for.
const WHOSE: u64 = Entry::PCID_FIELD | Entry::GLOBAL;
/// No node.
const NONE: u32 = u32::MAX;

/// One entry: its neighbours in the list, and the next one in its chain.
#[derive(Clone, Copy, Debug)]
struct Node {
    key: u64,
    newer: u32,
    older: u32,
    next: u32,
}

/// The order of one array, taken from it and given back.
#[derive(Clone, Debug)]
pub(super) struct Linked {
    nodes: Vec<Node>,
    heads: Vec<u32>,
    newest: u32,
    oldest: u32,
    ways: usize,
    /// By how much a product is shifted to name a chain.
    shift: u32,
    /// What of a key names a chain.
    named: u64,
}

impl Linked {
    /// Whether an array is such an order.
    pub(super) fn fits(array: &Array) -> bool {
        array.is_plain_lru() && array.sets() == 1 && array.ways() > FEW
    }

    /// With `others`, [`Linked::access_or`] is asked.
    pub(super) fn of(array: &Array, others: bool) -> Self {
        let ways = array.ways();
        let chains = (2 * ways).next_power_of_two();
        let mut linked = Linked {
            nodes: Vec::with_capacity(ways),
            heads: vec![NONE; chains],
            newest: NONE,
            oldest: NONE,
            ways,
            shift: u64::BITS - chains.trailing_zeros(),
            named: if others { !WHOSE } else { !0 },
        };
        for &entry in array.keys().iter().rev() {
            if entry != Entry::EMPTY {
                linked.enter(entry.0);
            }
        }
        linked
    }

    /// Newest first, empty ways last, as the array has them.
    pub(super) fn back(&self, array: &mut Array) {
        let keys = array.keys_mut();
        keys.fill(Entry::EMPTY);
        let mut at = self.newest;
        for way in keys.iter_mut().take(self.nodes.len()) {
            let node = self.nodes[at as usize];
            *way = Entry(node.key);
            at = node.older;
        }
    }

    #[inline]
    fn chain(&self, key: u64) -> usize {
        ((key & self.named).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// One access: the key becomes the newest; `false`: it was not there, and the oldest may have left for it.
    #[inline]
    pub(super) fn access(&mut self, key: u64) -> bool {
        let chain = self.chain(key);
        let mut at = self.heads[chain];
        while at != NONE {
            let node = &self.nodes[at as usize];
            if node.key == key {
                break;
            }
            at = node.next;
        }
        self.use_node(at, chain, key)
    }

    /// The same, and whether `other`, the same page of another context or as a global one, is there.
    #[inline]
    pub(super) fn access_or(&mut self, key: u64, other: u64) -> (bool, bool) {
        let chain = self.chain(key);
        let (mut at, mut found, mut crossed) = (self.heads[chain], NONE, false);
        while at != NONE {
            let node = &self.nodes[at as usize];
            if node.key == key {
                found = at;
            }
            crossed |= node.key == other;
            at = node.next;
        }
        (self.use_node(found, chain, key), crossed)
    }

    #[inline]
    fn use_node(&mut self, at: u32, chain: usize, key: u64) -> bool {
        if at == NONE {
            self.enter_in(chain, key);
            return false;
        }
        if at != self.newest {
            let Node { newer, older, .. } = self.nodes[at as usize];
            self.nodes[newer as usize].older = older;
            match older {
                NONE => self.oldest = newer,
                older => self.nodes[older as usize].newer = newer,
            }
            self.lead(at);
        }
        true
    }

    /// A node that is in no list becomes the newest.
    #[inline]
    fn lead(&mut self, at: u32) {
        let second = self.newest;
        self.nodes[at as usize].newer = NONE;
        self.nodes[at as usize].older = second;
        match second {
            NONE => self.oldest = at,
            second => self.nodes[second as usize].newer = at,
        }
        self.newest = at;
    }

    fn enter(&mut self, key: u64) {
        self.enter_in(self.chain(key), key);
    }

    fn enter_in(&mut self, chain: usize, key: u64) {
        let at = if self.nodes.len() < self.ways {
            self.nodes.push(Node { key, newer: NONE, older: NONE, next: NONE });
            self.nodes.len() as u32 - 1
        } else {
            self.drop_oldest()
        };
        self.nodes[at as usize].key = key;
        self.nodes[at as usize].next = self.heads[chain];
        self.heads[chain] = at;
        self.lead(at);
    }

    /// Takes the oldest out of list and chain; its node is free.
    fn drop_oldest(&mut self) -> u32 {
        let gone = self.oldest;
        let Node { key, newer, next, .. } = self.nodes[gone as usize];
        self.oldest = newer;
        match newer {
            NONE => self.newest = NONE,
            newer => self.nodes[newer as usize].older = NONE,
        }
        let chain = self.chain(key);
        if self.heads[chain] == gone {
            self.heads[chain] = next;
        } else {
            let mut at = self.heads[chain];
            while self.nodes[at as usize].next != gone {
                at = self.nodes[at as usize].next;
            }
            self.nodes[at as usize].next = next;
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::array::splitmix64;
    use crate::hw::{PageSize, Pcid};

    #[test]
    fn a_list_with_chains_is_the_array_after_every_access() {
        for (ways, pages) in [(1, 3), (2, 2), (20, 15), (20, 30), (33, 90), (700, 1_000)] {
            let mut array = Array::associative(ways);
            let mut linked = Linked::of(&array, ways % 2 == 0);
            for n in 0..4_000 {
                let draw = splitmix64(u64::from(ways), n);
                let key = Entry::new(draw % pages, PageSize::K4, Pcid((draw >> 40) as u16 % 2), false);
                let other = Entry::new(key.page(), PageSize::K4, Pcid(1 - key.pcid().0), false);
                let crosses = array.peek(0, other, other) != Entry::EMPTY;
                let hit = array.lookup(0, key, key) != Entry::EMPTY;
                if !hit {
                    array.fill(0, key);
                }
                if ways % 2 == 0 {
                    let found = linked.access_or(key.0, other.0);
                    assert_eq!(found, (hit, crosses), "{ways} ways, access {n}");
                } else {
                    assert_eq!(linked.access(key.0), hit, "{ways} ways, access {n}");
                }
                if n % 97 == 0 {
                    let mut same = Array::associative(ways);
                    linked.back(&mut same);
                    assert!(same == array, "{ways} ways, access {n}");
                    linked = Linked::of(&array, ways % 2 == 0);
                }
            }
        }
    }
}
