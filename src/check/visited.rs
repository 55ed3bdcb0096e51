//! The set of keys seen so far, in order of discovery, each with the state it was found from.
//!
//! A key costs itself twice, once in the order and once in a table that is half to three quarters full, and four
//! bytes of parent. The table is cut into shards by hash, so that threads can insert at once; who was first
//! among equals is decided by the order of the candidates, never by time.

use super::parts::Key;

/// Candidates whose slots are fetched together, so that their cache misses overlap.
const TOGETHER: usize = 16;
/// Slots of an empty table.
const SMALLEST: usize = 1 << 10;
/// Up to here a table doubles and more: growing often costs more than the room.
const SMALL: usize = 1 << 18;
/// States up to which a piece of the order takes in the next one.
const PIECE: usize = 1 << 10;

/// The next size of a table of `slots`.
fn grown(slots: usize) -> usize {
    if slots < SMALL { slots * 4 } else { slots + slots / 2 }
}

/// May a table of `slots` hold so many?
fn fits(held: usize, slots: usize) -> bool {
    held + TOGETHER <= slots / 4 * 3
}

/// Which shard a hash belongs to.
#[inline]
fn shard_of(hash: u64, shards: usize) -> usize {
    ((u128::from(hash) * shards as u128) >> 64) as usize
}

/// Where a hash belongs in its shard. Scaled, so that growing keeps the order.
#[inline]
fn slot(hash: u64, shards: usize, slots: usize) -> usize {
    let within = hash.wrapping_mul(shards as u64);
    ((u128::from(within) * slots as u128) >> 64) as usize
}

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

/// New states, and what they were found from.
#[derive(Clone, Debug, Default)]
pub struct Piece<K> {
    keys: Vec<K>,
    parents: Vec<u32>,
}

/// Candidates that a chunk of states leads to.
#[derive(Clone, Debug, Default)]
pub struct Candidates<K> {
    /// In order; behind `count` there is only room.
    keys: Vec<K>,
    parents: Vec<u32>,
    count: usize,
    /// By shard, each in order: their places. Empty if there is one shard.
    sorted: Vec<u32>,
    /// By shard: where its places end.
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
            self.parents.resize(room, 0);
        }
    }

    /// Add one, for which there is room, unless it was recently.
    #[inline]
    pub fn put(&mut self, key: K, parent: u32, recent: &mut Recent<K>) {
        // Written in any case: whether it is a new one cannot be predicted.
        (self.keys[self.count], self.parents[self.count]) = (key, parent);
        self.count += usize::from(recent.add(key));
    }

    /// Sort them by shard.
    pub fn sort(&mut self, shards: usize) {
        let keys = &self.keys[..self.count];
        if shards == 1 {
            let sorted = self.sorted.len();
            self.sorted.extend(sorted as u32..keys.len() as u32); // what is there already says the same
            self.ends.clear();
            self.ends.push(self.count as u32);
            return;
        }
        self.sorted.resize(self.sorted.len().max(keys.len()), 0);
        self.ends.clear();
        self.ends.resize(shards + 1, 0);
        for key in keys {
            self.ends[shard_of(key.hash(), shards) + 1] += 1;
        }
        for i in 1..shards {
            self.ends[i + 1] += self.ends[i];
        }
        for (place, key) in keys.iter().enumerate() {
            let end = &mut self.ends[shard_of(key.hash(), shards)];
            self.sorted[*end as usize] = place as u32;
            *end += 1;
        }
    }

    /// The places of those that belong to a shard.
    fn of_shard(&self, shard: usize) -> &[u32] {
        let start = if shard == 0 { 0 } else { self.ends[shard - 1] };
        &self.sorted[start as usize..self.ends[shard] as usize]
    }

    /// Those that were new, by the places that each shard found.
    pub fn new_ones(&mut self, fresh: &[&[u32]]) -> Piece<K> {
        if let [places] = *fresh {
            return Piece {
                keys: places.iter().map(|&p| self.keys[p as usize]).collect(),
                parents: places.iter().map(|&p| self.parents[p as usize]).collect(),
            };
        }
        for &place in fresh.iter().copied().flatten() {
            self.parents[place as usize] |= NEW;
        }
        let count = fresh.iter().map(|f| f.len()).sum();
        let mut piece = Piece { keys: vec![K::default(); count + 1], parents: vec![0; count + 1] };
        let mut at = 0;
        for (&key, &parent) in self.keys.iter().zip(&self.parents).take(self.count) {
            // As in `put`.
            (piece.keys[at], piece.parents[at]) = (key, parent & !NEW);
            at += usize::from(parent & NEW != 0);
        }
        piece.keys.truncate(count);
        piece.parents.truncate(count);
        piece
    }
}

/// Marks a candidate as new, in its parent's number.
const NEW: u32 = 1 << 31;

/// A part of the set: the keys whose hash belongs here.
#[derive(Clone, Debug)]
#[repr(align(128))] // as above
pub struct Shard<K> {
    /// Its number, and how many there are.
    place: (usize, usize),
    /// How much earlier than the last it grows: to move the keys of all shards at once takes long.
    early: usize,
    /// Open addressing; the slot is the hash scaled, so that growing keeps the order.
    table: Vec<K>,
    held: usize,
    /// There was no memory to grow: what did not fit was left out, and nothing that is inserted any more counts.
    pub starved: bool,
    /// By chunk: the places of the candidates that were new.
    pub fresh: Vec<Vec<u32>>,
}

impl<K: Key> Shard<K> {
    /// `at_once` of them grow together, for so many threads.
    pub fn empty(place: (usize, usize), at_once: usize) -> Self {
        let early = (place.1 - 1 - place.0) / at_once * at_once;
        Shard {
            place,
            early,
            table: vec![K::default(); SMALLEST],
            held: 0,
            starved: false,
            fresh: Vec::new(),
        }
    }

    fn slot(&self, key: K) -> usize {
        slot(key.hash(), self.place.1, self.table.len())
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
                return true;
            }
            at += 1;
            if at == self.table.len() {
                at = 0;
            }
        }
    }

    /// Grow in place.
    ///
    /// Moved from the back, run by run: what comes before a run stays where it is until its turn, and a run's keys
    /// have no slot before it, so that each finds its new place among those moved already. Keys that went round
    /// the end are in the first run, which is the last to move.
    #[cold]
    fn grow(&mut self) {
        let mut end = self.table.len();
        let more = grown(end) - end;
        if self.table.try_reserve_exact(more).is_err() {
            self.starved = true;
            return;
        }
        self.table.resize(end + more, K::default());
        let mut run = Vec::new();
        while end > 0 {
            let mut start = end;
            while start > 0 && self.table[start - 1] != K::default() {
                start -= 1;
            }
            run.extend_from_slice(&self.table[start..end]);
            self.table[start..end].fill(K::default());
            for key in run.drain(..) {
                self.add(key, self.slot(key));
            }
            end = start.saturating_sub(1);
        }
    }

    fn make_room(&mut self) {
        let (shards, early) = (self.place.1, self.early);
        while !self.starved && !fits(self.held + self.table.len() / 8 / shards * early, self.table.len()) {
            self.grow();
        }
    }

    /// Insert the candidates of a chunk that belong here, and note which are new.
    pub fn insert(&mut self, chunk: usize, candidates: &Candidates<K>) {
        if self.fresh.len() <= chunk {
            self.fresh.resize_with(chunk + 1, Vec::new);
        }
        let mut fresh = std::mem::take(&mut self.fresh[chunk]);
        fresh.clear();
        for places in candidates.of_shard(self.place.0).chunks(TOGETHER) {
            self.make_room();
            if self.starved {
                break;
            }
            let mut keys = [K::default(); TOGETHER];
            let mut at = [0; TOGETHER];
            let mut there = [K::default(); TOGETHER];
            for (i, &place) in places.iter().enumerate() {
                keys[i] = candidates.keys[place as usize];
                at[i] = self.slot(keys[i]);
                there[i] = self.table[at[i]];
            }
            let before = fresh.len();
            for (i, &place) in places.iter().enumerate() {
                if there[i] != keys[i] && self.add(keys[i], at[i]) {
                    fresh.push(place);
                }
            }
            self.held += fresh.len() - before;
        }
        self.fresh[chunk] = fresh;
    }

    /// Add what is known not to be there.
    fn load(&mut self, key: K) {
        self.make_room();
        if !self.starved {
            self.add(key, self.slot(key));
            self.held += 1;
        }
    }
}

/// Keys, in order of discovery, and the state each was found from; the first is its own parent.
#[derive(Clone, Debug)]
pub struct Visited<K> {
    /// As the threads found them: to copy 12 to 20 bytes a state into one place would be one thread's work.
    pieces: Vec<Piece<K>>,
    /// By piece: the number of its first state.
    starts: Vec<usize>,
    count: usize,
}

impl<K: Key> Visited<K> {
    /// One key, its own parent.
    pub fn new(first: K) -> Self {
        let mut all = Visited { pieces: Vec::new(), starts: Vec::new(), count: 0 };
        all.append(Piece { keys: vec![first], parents: vec![0] });
        all
    }

    /// Add new ones.
    pub fn append(&mut self, piece: Piece<K>) {
        self.count += piece.keys.len();
        match self.pieces.last_mut() {
            Some(last) if last.keys.len() < PIECE => {
                last.keys.extend(piece.keys);
                last.parents.extend(piece.parents);
            }
            _ => {
                self.starts.push(self.count - piece.keys.len());
                self.pieces.push(piece);
            }
        }
    }

    /// The same states under other keys.
    pub fn translated<L: Key>(&self, key: impl Fn(K) -> L) -> Visited<L> {
        let piece = |p: &Piece<K>| Piece {
            keys: p.keys.iter().map(|&k| key(k)).collect(),
            parents: p.parents.clone(),
        };
        Visited {
            pieces: self.pieces.iter().map(piece).collect(),
            starts: self.starts.clone(),
            count: self.count,
        }
    }

    /// The shards of the set, for so many threads.
    pub fn cut(&self, shards: usize, threads: usize) -> Vec<Shard<K>> {
        let mut all: Vec<Shard<K>> = (0..shards).map(|i| Shard::empty((i, shards), threads)).collect();
        for key in self.from(0) {
            all[shard_of(key.hash(), shards)].load(key);
        }
        all
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where a state is: piece and place in it.
    fn find(&self, i: usize) -> (usize, usize) {
        let piece = self.starts.partition_point(|&start| start <= i) - 1;
        (piece, i - self.starts[piece])
    }

    /// By number.
    pub fn get(&self, i: usize) -> K {
        let (piece, at) = self.find(i);
        self.pieces[piece].keys[at]
    }

    /// The state it was found from; the first state is its own parent.
    pub fn parent(&self, i: usize) -> usize {
        let (piece, at) = self.find(i);
        self.pieces[piece].parents[at] as usize
    }

    /// All from a number on.
    pub fn from(&self, i: usize) -> impl Iterator<Item = K> + '_ {
        let (piece, at) = self.find(i);
        self.pieces[piece..].iter().flat_map(|p| &p.keys).copied().skip(at)
    }

    /// The numbers of all keys.
    ///
    /// `None` if `go_on`, which is asked now and then, returns `false`.
    pub fn numbers(&self, go_on: &mut dyn FnMut() -> bool) -> Option<Numbers<K>> {
        let mut all = Numbers { slots: vec![(K::default(), 0); Numbers::<K>::slots(self.count)] };
        for (key, number) in self.from(0).zip(0_u32..) {
            if number.is_multiple_of(1 << 16) && !go_on() {
                return None;
            }
            let at = all.find(key);
            all.slots[at] = (key, number);
        }
        Some(all)
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

/// What number each key has.
#[derive(Debug)]
pub struct Numbers<K> {
    slots: Vec<(K, u32)>,
}

impl<K: Key> Numbers<K> {
    fn slots(count: usize) -> usize {
        count * 3 / 2 + 1
    }

    /// Where a key is or belongs.
    #[inline]
    fn find(&self, key: K) -> usize {
        let mut at = slot(key.hash(), 1, self.slots.len());
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
            // As in `Shard::insert`.
            let mut there = [(K::default(), 0); TOGETHER];
            for (there, key) in there.iter_mut().zip(keys) {
                *there = self.slots[slot(key.hash(), 1, self.slots.len())];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_grows_keeps_its_keys_and_each_can_be_found() {
        for shards in [1, 3] {
            // Keys of one shard whose hashes crowd at the end of the table, so that runs go round it.
            let crowded =
                |k: &u64| shard_of(k.hash(), shards) == shards - 1 && k.hash() > u64::MAX - (1 << 52);
            let keys: Vec<u64> = (1..).filter(crowded).take(700).collect();
            let mut shard = Shard::empty((shards - 1, shards), 1);
            for &k in &keys {
                shard.load(k);
            }
            for _ in 0..3 {
                shard.grow();
                for &k in &keys {
                    assert!(!shard.add(k, shard.slot(k)), "{k} is lost");
                }
                assert_eq!(shard.table.iter().filter(|&&k| k != 0).count(), keys.len());
            }
        }
    }

    #[test]
    fn shards_and_a_filter_change_neither_the_new_ones_nor_their_order() {
        let draw = |i: u64| (i * i * 31) % 977 + 1;
        let run = |shards: usize, slots: usize| {
            let mut all = Visited::new(500_u64);
            let mut set = all.cut(shards, 2);
            let mut recent = Recent { slots: vec![0; slots] };
            for chunk in 0..40 {
                let mut c = Candidates::default();
                c.reserve(60);
                (0..60).for_each(|i| c.put(draw(chunk * 50 + i), chunk as u32, &mut recent));
                c.sort(shards);
                for shard in &mut set {
                    shard.insert(0, &c);
                }
                let fresh: Vec<&[u32]> = set.iter().map(|s| &s.fresh[0][..]).collect();
                all.append(c.new_ones(&fresh));
            }
            let parents: Vec<usize> = (0..all.count()).map(|i| all.parent(i)).collect();
            (all.from(0).collect::<Vec<_>>(), parents)
        };
        let (order, parents) = run(1, 1);
        let mut plain = vec![500];
        for k in (0..40).flat_map(|chunk| (0..60).map(move |i| draw(chunk * 50 + i))) {
            if !plain.contains(&k) {
                plain.push(k);
            }
        }
        assert_eq!(order, plain);
        for shards in [1, 2, 3, 8] {
            for slots in [1, 16, 1024] {
                assert_eq!(
                    run(shards, slots),
                    (order.clone(), parents.clone()),
                    "{shards} shards, {slots} slots"
                );
            }
        }
    }
}
