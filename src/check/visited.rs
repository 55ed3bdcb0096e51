//! The states found so far: the set of their keys, the keys of those that are not yet expanded in order of discovery,
//! and how each was found (`births`).
//!
//! An expanded state's key is in the set alone: from the first state on, what led to it is followed again when it is
//! asked for. The set is cut into shards by hash (`table`), so that threads can insert at once; who was first among
//! equals is decided by the order of the candidates, never by time.

use std::collections::VecDeque;

use super::parts::Key;
use births::Births;
pub use table::Spread;
use table::{TOGETHER, Table};

mod births;
mod table;
#[cfg(test)]
mod tests;

/// States up to which a piece of the order takes in the next one.
const PIECE: usize = 1 << 10;

/// Keys that were candidates a short while ago. Most candidates are one of them: 67 % of those that are not new in
/// 2^10 slots, 77 % in 2^12, 85 % in 2^14 (the largest search of the benches). They need no look at the table, whose
/// slots are far from the processor.
#[derive(Clone, Debug)]
#[repr(align(128))] // one for each thread: no two share a cache line
pub struct Recent<K> {
    slots: Vec<K>,
}

/// Slots for recent keys: of a small search, and at most.
const RECENT: (usize, usize) = (1 << 8, 1 << 14);

impl<K: Key> Default for Recent<K> {
    fn default() -> Self {
        Recent { slots: vec![K::default(); RECENT.0] }
    }
}

impl<K: Key> Recent<K> {
    /// Take slots enough for a search that has found so many states.
    pub fn widen(&mut self, states: usize) {
        if self.slots.len() < RECENT.1 && self.slots.len() < states / 16 {
            self.slots = vec![K::default(); self.slots.len() * 4]; // one forgotten costs a look
        }
    }

    /// Forget them.
    pub fn clear(&mut self) {
        self.slots.fill(K::default());
    }

    /// Remember one; `true` if it was not there.
    #[inline]
    fn add(&mut self, key: K) -> bool {
        let at = key.hash() as usize & (self.slots.len() - 1); // shards and slots go by the high bits
        std::mem::replace(&mut self.slots[at], key) != key
    }
}

/// Which state of a chunk leads to a candidate, and as which of its successors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Birth(u32);

impl Birth {
    /// Marks a candidate as new.
    const NEW: u32 = 1 << 31;
    /// Successors that a state may have.
    pub const MOST: usize = 1 << 15;

    /// Of a state of the chunk, fewer than 2^16, and a successor, fewer than [`Birth::MOST`].
    #[inline]
    pub fn new(state: usize, place: usize) -> Self {
        Birth((state << 15 | place) as u32)
    }

    /// The state of the chunk, and the place among its successors.
    fn parts(self) -> (usize, u16) {
        ((self.0 & !Self::NEW) as usize >> 15, (self.0 & 0x7fff) as u16)
    }
}

/// New states, and what they were found from.
#[derive(Clone, Debug, Default)]
pub struct Piece<K> {
    keys: Vec<K>,
    births: Vec<Birth>,
}

/// Candidates that a chunk of states leads to.
#[derive(Clone, Debug, Default)]
pub struct Candidates<K> {
    /// In order; behind `count` there is only room.
    keys: Vec<K>,
    births: Vec<Birth>,
    count: usize,
    /// By shard, each in order: their mixed bits and their places.
    mixed: Vec<K>,
    sorted: Vec<u32>,
    /// By shard: where its candidates end.
    ends: Vec<u32>,
}

impl<K: Key> Candidates<K> {
    /// None.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Make room for so many.
    #[inline]
    pub fn reserve(&mut self, more: usize) {
        if self.keys.len() < self.count + more {
            let room = (self.count + more).next_power_of_two();
            self.keys.resize(room, K::default());
            self.births.resize(room, Birth::default());
        }
    }

    /// Add one, for which there is room, unless it was recently.
    #[inline]
    pub fn put(&mut self, key: K, birth: Birth, recent: &mut Recent<K>) {
        // Written in any case: whether it is a new one cannot be predicted.
        (self.keys[self.count], self.births[self.count]) = (key, birth);
        self.count += usize::from(recent.add(key));
    }

    /// Sort them by shard.
    pub fn sort(&mut self, spread: Spread) {
        let keys = &self.keys[..self.count];
        if self.sorted.len() < keys.len() {
            self.sorted.resize(keys.len(), 0);
            self.mixed.resize(keys.len(), K::default());
        }
        let shards = spread.shards();
        self.ends.clear();
        self.ends.resize(shards + 1, 0);
        for &key in keys {
            self.ends[spread.shard(spread.mixed(key)) + 1] += 1;
        }
        for i in 1..shards {
            self.ends[i + 1] += self.ends[i];
        }
        for (place, &key) in keys.iter().enumerate() {
            let mixed = spread.mixed(key);
            let end = &mut self.ends[spread.shard(mixed)];
            (self.mixed[*end as usize], self.sorted[*end as usize]) = (mixed, place as u32);
            *end += 1;
        }
    }

    /// Mixed bits and places of those that belong to a shard.
    fn of_shard(&self, shard: usize) -> (&[K], &[u32]) {
        let start = if shard == 0 { 0 } else { self.ends[shard - 1] };
        let range = start as usize..self.ends[shard] as usize;
        (&self.mixed[range.clone()], &self.sorted[range])
    }

    /// Those that were new, by the places that each shard found.
    pub fn new_ones(&mut self, fresh: &[&[u32]]) -> Piece<K> {
        if let [places] = *fresh {
            return Piece {
                keys: places.iter().map(|&p| self.keys[p as usize]).collect(),
                births: places.iter().map(|&p| self.births[p as usize]).collect(),
            };
        }
        for &place in fresh.iter().copied().flatten() {
            self.births[place as usize].0 |= Birth::NEW;
        }
        let count = fresh.iter().map(|f| f.len()).sum();
        let mut piece = Piece { keys: vec![K::default(); count + 1], births: vec![Birth(0); count + 1] };
        let mut at = 0;
        for (&key, &birth) in self.keys.iter().zip(&self.births).take(self.count) {
            // As in `put`.
            (piece.keys[at], piece.births[at]) = (key, birth);
            at += usize::from(birth.0 & Birth::NEW != 0);
        }
        piece.keys.truncate(count);
        piece.births.truncate(count);
        piece
    }
}

/// A part of the set: the keys whose hash belongs here.
#[derive(Debug)]
#[repr(align(128))] // as above
pub struct Shard<K> {
    spread: Spread,
    number: usize,
    /// `None` once there was no memory to grow: what did not fit was left out, and nothing that is inserted any more
    /// counts.
    table: Option<Table<K>>,
    /// By chunk: the places of the candidates that were new.
    pub fresh: Vec<Vec<u32>>,
}

impl<K: Key> Shard<K> {
    /// All shards, for so many keys. They are full one after the other: to move the keys of all at once takes long, and
    /// for a while the room twice.
    pub fn all(spread: Spread, keys: usize) -> Vec<Self> {
        let shards = spread.shards();
        let keys = |number: usize| (keys + keys / 2 * number / shards) / shards;
        let shard = |number| Shard {
            spread,
            number,
            table: Table::new(spread, number, keys(number)),
            fresh: Vec::new(),
        };
        (0..shards).map(shard).collect()
    }

    /// The same keys under others, spread anew. The old ones are freed on the way.
    pub fn translated<L: Key>(old: Vec<Self>, spread: Spread, key: impl Fn(K) -> L) -> Vec<Shard<L>> {
        let count = old.iter().filter_map(|s| s.table.as_ref()).map(Table::held).sum();
        let mut new = Shard::all(spread, count);
        for shard in old {
            let bits = shard.spread.bits();
            let Some(table) = shard.table else { continue };
            table.each(|mixed: K| {
                let mixed = spread.mixed(key(mixed.unmix(bits)));
                new[spread.shard(mixed)].load(mixed);
            });
        }
        new
    }

    /// This one; what is left holds nothing.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let (table, fresh) = (self.table.take(), std::mem::take(&mut self.fresh));
        Shard { spread: self.spread, number: self.number, table, fresh }
    }

    /// Was there no memory to grow?
    pub fn is_starved(&self) -> bool {
        self.table.is_none()
    }

    /// Add mixed bits that are known not to be there.
    pub fn load(&mut self, mixed: K) {
        self.table.take_if(|table| !table.load(mixed));
    }

    /// Insert the candidates of a chunk that belong here, and note which are new.
    pub fn insert(&mut self, chunk: usize, candidates: &Candidates<K>) {
        if self.fresh.len() <= chunk {
            self.fresh.resize_with(chunk + 1, Vec::new);
        }
        let fresh = &mut self.fresh[chunk];
        fresh.clear();
        let (mixed, places) = candidates.of_shard(self.number);
        for (mixed, places) in mixed.chunks(TOGETHER).zip(places.chunks(TOGETHER)) {
            self.table.take_if(|table| !table.make_room());
            let Some(table) = &mut self.table else { return };
            table.insert(mixed, |i| fresh.push(places[i]));
        }
    }
}

/// States in order of discovery: how each was found, and the keys of those that are still to be expanded.
#[derive(Clone, Debug, Default)]
pub struct Visited<K> {
    /// As the threads found them: to copy them into one place would be one thread's work.
    pieces: VecDeque<Vec<K>>,
    /// By piece: the number of its first state.
    starts: VecDeque<usize>,
    births: Births,
}

impl<K: Key> Visited<K> {
    /// One key, its own parent.
    pub fn new(first: K) -> Self {
        let mut all = Visited::default();
        all.append(Piece { keys: vec![first], births: vec![Birth(0)] }, 0);
        all
    }

    /// Add new ones, found from a chunk whose first state is `from`.
    pub fn append(&mut self, piece: Piece<K>, from: usize) {
        let start = self.count();
        self.births.extend(piece.births.iter().map(|b| {
            let (state, place) = b.parts();
            (from + state, place)
        }));
        match self.pieces.back_mut() {
            Some(last) if last.len() < PIECE => last.extend(piece.keys),
            _ => {
                self.starts.push_back(start);
                self.pieces.push_back(piece.keys);
            }
        }
    }

    /// The keys of the states before this one are no longer asked for.
    pub fn forget_before(&mut self, state: usize) {
        while self.starts.get(1).is_some_and(|&next| next <= state) {
            self.starts.pop_front();
            self.pieces.pop_front();
        }
    }

    /// The same states under other keys.
    pub fn translated<L: Key>(self, key: impl Fn(K) -> L) -> Visited<L> {
        let piece = |p: Vec<K>| p.into_iter().map(&key).collect();
        Visited {
            pieces: self.pieces.into_iter().map(piece).collect(),
            starts: self.starts,
            births: self.births,
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.births.count()
    }

    /// Where a state's key is: piece and place in it.
    fn find(&self, i: usize) -> (usize, usize) {
        let piece = self.starts.partition_point(|&start| start <= i) - 1;
        (piece, i - self.starts[piece])
    }

    /// By number, of a state that is still to be expanded.
    pub fn get(&self, i: usize) -> K {
        let (piece, at) = self.find(i);
        self.pieces[piece][at]
    }

    /// All from a number on, of a state that is still to be expanded.
    pub fn from(&self, i: usize) -> impl Iterator<Item = K> + '_ {
        let (piece, at) = self.find(i);
        self.pieces.range(piece..).flatten().copied().skip(at)
    }

    /// How states were found.
    pub fn births(&self) -> &Births {
        &self.births
    }

    /// Bytes for so many states, some of them still to be expanded, of whose keys so many bits are in use. These numbers
    /// alone decide, so a search is cut at the same place whatever the threads.
    pub fn bytes(states: usize, open: usize, bits: u32) -> usize {
        table::bytes::<K>(states, bits) + Births::bytes(states) + open * size_of::<K>()
    }
}

/// What number each key has.
#[derive(Debug)]
pub struct Numbers<K> {
    slots: Vec<(K, u32)>,
}

/// Where a hash belongs among so many slots.
#[inline]
fn slot(hash: u64, slots: usize) -> usize {
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

impl<K: Key> Numbers<K> {
    /// Of keys in order.
    ///
    /// `None` if `go_on`, which is asked now and then, returns `false`.
    pub fn new(keys: &[K], go_on: &mut dyn FnMut() -> bool) -> Option<Self> {
        let mut all = Numbers { slots: vec![(K::default(), 0); Self::slots(keys.len())] };
        for (&key, number) in keys.iter().zip(0_u32..) {
            if number.is_multiple_of(1 << 16) && !go_on() {
                return None;
            }
            let at = all.find(key);
            all.slots[at] = (key, number);
        }
        Some(all)
    }

    fn slots(count: usize) -> usize {
        count * 3 / 2 + 1
    }

    /// Where a key is or belongs.
    #[inline]
    fn find(&self, key: K) -> usize {
        let mut at = slot(key.hash(), self.slots.len());
        while self.slots[at].0 != key && self.slots[at].0 != K::default() {
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
        at
    }

    /// The numbers of keys that have one.
    pub fn of_all(&self, keys: &[K], out: &mut Vec<u32>) {
        for keys in keys.chunks(TOGETHER) {
            // As in `Table::insert`.
            let mut there = [(K::default(), 0); TOGETHER];
            for (there, key) in there.iter_mut().zip(keys) {
                *there = self.slots[slot(key.hash(), self.slots.len())];
            }
            for (&(first, number), &key) in there.iter().zip(keys) {
                let (found, number) = if first == key { (key, number) } else { self.slots[self.find(key)] };
                assert!(found == key, "every successor was found by the search");
                out.push(number);
            }
        }
    }

    /// Bytes for so many.
    pub fn bytes(count: usize) -> usize {
        Self::slots(count) * size_of::<(K, u32)>()
    }
}
