//! The set of keys seen so far, in order of discovery, each with the state it was found from.
//!
//! A key costs itself twice, once in the order and once in a table that is half to three quarters full, and four
//! bytes of parent. The table is cut into shards by hash, so that threads can insert at once; who was first
//! among equals is decided by the order of the candidates, never by time.

use super::parts::Key;

/// Candidates of one chunk of states for one shard, in order.
#[derive(Clone, Debug, Default)]
pub struct Bucket<K> {
    /// Keys.
    pub keys: Vec<K>,
    /// The position of each among all candidates of the chunk; empty if there is one bucket.
    pub places: Vec<u32>,
}

/// The candidates of a chunk of states.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a, K> {
    /// The first state.
    pub from: usize,
    /// By state: how many candidates there are up to it.
    pub ends: &'a [u32],
    /// By shard.
    pub buckets: &'a [Bucket<K>],
}

#[derive(Clone, Debug)]
struct Shard<K> {
    /// Open addressing; the slot is the hash scaled, so that growing keeps the order.
    table: Vec<K>,
    held: usize,
    /// By chunk: which keys of its bucket were new.
    fresh: Vec<Vec<u32>>,
}

/// Keys, in order of discovery.
#[derive(Clone, Debug)]
pub struct Visited<K> {
    order: Vec<K>,
    parent: Vec<u32>,
    shards: Vec<Shard<K>>,
}

/// Candidates whose slots are fetched together, so that their cache misses overlap.
const TOGETHER: usize = 16;
/// Slots of an empty table.
const SMALLEST: usize = 1 << 10;

/// Up to here a table doubles and more: growing often costs more than the room.
const SMALL: usize = 1 << 18;

/// The next size of a table of `slots`.
fn grown(slots: usize) -> usize {
    if slots < SMALL { slots * 4 } else { slots + slots / 2 }
}

/// May a table of `slots` hold so many?
fn fits(held: usize, slots: usize) -> bool {
    held + TOGETHER <= slots / 4 * 3
}

impl<K: Key> Shard<K> {
    fn new() -> Self {
        Shard { table: vec![K::default(); SMALLEST], held: 0, fresh: Vec::new() }
    }

    /// Add; `false` if it was there. `at` is the slot its hash says.
    #[inline]
    fn add(&mut self, key: K, mut at: usize) -> bool {
        loop {
            let e = self.table[at];
            if e == key {
                return false;
            }
            if e == K::default() {
                self.table[at] = key;
                self.held += 1;
                return true;
            }
            at += 1;
            if at == self.table.len() {
                at = 0;
            }
        }
    }

    #[cold]
    fn grow(&mut self, shards: usize) {
        let slots = grown(self.table.len());
        for key in std::mem::replace(&mut self.table, vec![K::default(); slots]) {
            if key != K::default() {
                self.held -= 1;
                self.add(key, slot(key.hash(), shards, slots));
            }
        }
    }

    /// Insert the keys of a bucket and note which are new.
    fn insert(&mut self, keys: &[K], fresh: &mut Vec<u32>, shards: usize) {
        fresh.clear();
        for (group, keys) in keys.chunks(TOGETHER).enumerate() {
            while !fits(self.held, self.table.len()) {
                self.grow(shards);
            }
            let slots = self.table.len();
            let mut at = [0; TOGETHER];
            let mut there = [K::default(); TOGETHER];
            for ((key, at), there) in keys.iter().zip(&mut at).zip(&mut there) {
                *at = slot(key.hash(), shards, slots);
                *there = self.table[*at];
            }
            for (i, &key) in keys.iter().enumerate() {
                if there[i] != key && self.add(key, at[i]) {
                    fresh.push((group * TOGETHER + i) as u32);
                }
            }
        }
    }
}

/// Which shard a hash belongs to.
#[inline]
pub fn shard_of(hash: u64, shards: usize) -> usize {
    ((u128::from(hash) * shards as u128) >> 64) as usize
}

/// Where a hash belongs in its shard.
#[inline]
fn slot(hash: u64, shards: usize, slots: usize) -> usize {
    let within = hash.wrapping_mul(shards as u64);
    ((u128::from(within) * slots as u128) >> 64) as usize
}

impl<K: Key> Visited<K> {
    /// One key, its own parent.
    pub fn new(first: K, shards: usize) -> Self {
        Self::rebuilt(vec![first], vec![0], shards)
    }

    fn rebuilt(order: Vec<K>, parent: Vec<u32>, shards: usize) -> Self {
        let mut all: Vec<Shard<K>> = (0..shards).map(|_| Shard::new()).collect();
        for &key in &order {
            let shard = &mut all[shard_of(key.hash(), shards)];
            while !fits(shard.held, shard.table.len()) {
                shard.grow(shards);
            }
            let at = slot(key.hash(), shards, shard.table.len());
            shard.add(key, at);
        }
        Visited { order, parent, shards: all }
    }

    /// The same states under other keys.
    pub fn translated<L: Key>(&self, key: impl Fn(K) -> L) -> Visited<L> {
        let order = self.order.iter().map(|&k| key(k)).collect();
        Visited::rebuilt(order, self.parent.clone(), self.shards.len())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// How many shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// By number.
    #[inline]
    pub fn get(&self, i: usize) -> K {
        self.order[i]
    }

    /// The state it was found from; the first state is its own parent.
    pub fn parent(&self, i: usize) -> usize {
        self.parent[i] as usize
    }

    /// Bytes for so many states: a number of states alone decides, so a search is cut at the same place whatever
    /// the threads.
    pub fn bytes(states: usize) -> usize {
        let mut slots = SMALLEST;
        while !fits(states, slots) {
            slots = grown(slots);
        }
        states * (size_of::<K>() + 4) + slots * size_of::<K>()
    }

    /// Insert the candidates of some chunks, in order.
    pub fn insert(&mut self, chunks: &[Candidates<'_, K>]) {
        let n = self.shards.len();
        let busy = chunks.iter().flat_map(|c| c.buckets).map(|b| b.keys.len()).sum::<usize>();
        let work = |i: usize, shard: &mut Shard<K>| {
            let mut fresh = std::mem::take(&mut shard.fresh);
            fresh.resize_with(chunks.len(), Vec::new);
            for (chunk, fresh) in chunks.iter().zip(&mut fresh) {
                shard.insert(&chunk.buckets[i].keys, fresh, n);
            }
            shard.fresh = fresh;
        };
        super::threads::each(&mut self.shards, busy > super::threads::WORTH, work);
        for (c, &Candidates { from, ends, buckets }) in chunks.iter().enumerate() {
            let mut state = 0;
            let mut push = |key: K, place: u32| {
                while ends[state] <= place {
                    state += 1;
                }
                self.order.push(key);
                self.parent.push((from + state) as u32);
            };
            if n == 1 {
                for &i in &self.shards[0].fresh[c] {
                    push(buckets[0].keys[i as usize], i);
                }
                continue;
            }
            // Merge what the shards found new, in order of the candidates.
            let mut heads: Vec<usize> = vec![0; n];
            let place = |s: usize, head: usize| {
                self.shards[s].fresh[c].get(head).map_or(u32::MAX, |&i| buckets[s].places[i as usize])
            };
            let mut places: Vec<u32> = (0..n).map(|s| place(s, 0)).collect();
            loop {
                let (s, &least) =
                    places.iter().enumerate().min_by_key(|&(_, &p)| p).expect("there is a shard");
                if least == u32::MAX {
                    break;
                }
                push(buckets[s].keys[self.shards[s].fresh[c][heads[s]] as usize], least);
                heads[s] += 1;
                places[s] = place(s, heads[s]);
            }
        }
    }
}
