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

/// A part of the set: the keys whose hash belongs here.
#[derive(Clone, Debug)]
pub struct Shard<K> {
    /// Open addressing; the slot is the hash scaled, so that growing keeps the order.
    table: Vec<K>,
    held: usize,
    /// By chunk: which keys of its bucket were new.
    pub fresh: Vec<Vec<u32>>,
}

/// Keys, in order of discovery.
#[derive(Clone, Debug)]
pub struct Visited<K> {
    /// By number.
    pub order: Vec<K>,
    /// The state each was found from; the first is its own parent.
    pub parent: Vec<u32>,
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

impl<K: Key> Default for Shard<K> {
    fn default() -> Self {
        Shard { table: vec![K::default(); SMALLEST], held: 0, fresh: Vec::new() }
    }
}

impl<K: Key> Shard<K> {
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

    /// Insert the keys of a chunk's bucket and note which are new.
    pub fn insert(&mut self, chunk: usize, keys: &[K], shards: usize) {
        if self.fresh.len() <= chunk {
            self.fresh.resize_with(chunk + 1, Vec::new);
        }
        let mut fresh = std::mem::take(&mut self.fresh[chunk]);
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
        self.fresh[chunk] = fresh;
    }

    /// Add what is known not to be there.
    fn load(&mut self, key: K, shards: usize) {
        while !fits(self.held, self.table.len()) {
            self.grow(shards);
        }
        self.add(key, slot(key.hash(), shards, self.table.len()));
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

impl<K: Key> Candidates<'_, K> {
    /// Pass on those that were new, with the state they were found from, in order. `fresh` are their places in each
    /// bucket.
    pub fn new_ones(&self, fresh: &[&[u32]], mut push: impl FnMut(K, u32)) {
        let mut state = 0;
        let mut found = |key: K, place: u32| {
            while self.ends[state] <= place {
                state += 1;
            }
            push(key, (self.from + state) as u32);
        };
        match (self.buckets, fresh) {
            ([bucket], [fresh]) => {
                for &i in *fresh {
                    found(bucket.keys[i as usize], i);
                }
            }
            ([a, b], [fresh_a, fresh_b]) => {
                let (mut i, mut j) = (fresh_a.iter(), fresh_b.iter());
                let place = |b: &Bucket<K>, i: Option<&u32>| i.map_or(u32::MAX, |&i| b.places[i as usize]);
                let (mut x, mut y) = (i.next(), j.next());
                loop {
                    let (px, py) = (place(a, x), place(b, y));
                    match (x, y) {
                        (Some(&at), _) if px < py => {
                            found(a.keys[at as usize], px);
                            x = i.next();
                        }
                        (_, Some(&at)) => {
                            found(b.keys[at as usize], py);
                            y = j.next();
                        }
                        _ => break,
                    }
                }
            }
            (buckets, fresh) => {
                let mut heads = vec![0; buckets.len()];
                let place = |s: usize, head: usize| {
                    fresh[s].get(head).map_or(u32::MAX, |&i| buckets[s].places[i as usize])
                };
                let mut places: Vec<u32> = (0..buckets.len()).map(|s| place(s, 0)).collect();
                loop {
                    let (s, &least) =
                        places.iter().enumerate().min_by_key(|&(_, &p)| p).expect("there is a shard");
                    if least == u32::MAX {
                        break;
                    }
                    found(buckets[s].keys[fresh[s][heads[s]] as usize], least);
                    heads[s] += 1;
                    places[s] = place(s, heads[s]);
                }
            }
        }
    }
}

/// The shards of a set.
pub fn cut<K: Key>(keys: &[K], shards: usize) -> Vec<Shard<K>> {
    let mut all: Vec<Shard<K>> = (0..shards).map(|_| Shard::default()).collect();
    for &key in keys {
        all[shard_of(key.hash(), shards)].load(key, shards);
    }
    all
}

impl<K: Key> Visited<K> {
    /// One key, its own parent.
    pub fn new(first: K) -> Self {
        Visited { order: vec![first], parent: vec![0] }
    }

    /// The same states under other keys.
    pub fn translated<L: Key>(&self, key: impl Fn(K) -> L) -> Visited<L> {
        Visited { order: self.order.iter().map(|&k| key(k)).collect(), parent: self.parent.clone() }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.order.len()
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
}
