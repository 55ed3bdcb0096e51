//! The keys found so far, as a set: each is held as the part of it that its place does not tell (Cleary, "Compact Hash
//! Tables Using Bidirectional Linear Probing", IEEE Trans. Comput. C-33(9), 1984).
//!
//! A key's bits are mixed by a function that can be undone. The first of the mixed bits say which shard, the next,
//! scaled, which cache line of the shard; a line has room for the rest of some keys, four to fifteen bytes each. What a
//! full line has no room for goes into a small table of whole keys, and 28 bits of the line say which keys may be there.
//! Invariant: two keys are equal exactly if they are at the same place with the same rest. Nothing is hashed away.

#![allow(clippy::inline_always)] // by width, the loops over lines are the hot ones

use memmap2::MmapMut;

use crate::check::parts::Key;

/// Keys whose lines are fetched together, so that their cache misses overlap.
pub(super) const TOGETHER: usize = 16;
/// Bytes of a line for keys; the others say how many there are, and which may be elsewhere.
const ROOM: usize = 60;
/// Bytes of a key's rest, of which a table takes the fewest that do.
const WIDTHS: [usize; 6] = [4, 5, 6, 8, 12, 15];
/// Bits that say which line, as long as they are many times as many as there are lines.
const LINE_BITS: u32 = 40;
/// Keys up to which a table grows by more than a half: growing often costs more than the room.
const SMALL: usize = 1 << 16;
/// Bytes from which on a table's memory comes from the system, in large pages where it has them.
const LARGE: usize = 1 << 20;

type Line = [u8; 64];

/// Zeros in a row.
#[derive(Debug)]
enum Lines {
    Small(Vec<Line>),
    Large(MmapMut),
}

impl Lines {
    /// `None` if there is no memory.
    fn new(count: usize) -> Option<Self> {
        let bytes = count.checked_mul(size_of::<Line>())?;
        if bytes < LARGE {
            let mut all = Vec::new();
            all.try_reserve_exact(count).ok()?;
            all.resize(count, [0; 64]);
            return Some(Lines::Small(all));
        }
        let map = MmapMut::map_anon(bytes).ok()?;
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage); // without them it is only slower
        Some(Lines::Large(map))
    }

    #[inline]
    fn get(&self) -> &[Line] {
        match self {
            Lines::Small(all) => all,
            Lines::Large(map) => map.as_chunks().0,
        }
    }

    #[inline]
    fn get_mut(&mut self) -> &mut [Line] {
        match self {
            Lines::Small(all) => all,
            Lines::Large(map) => map.as_chunks_mut().0,
        }
    }
}

/// How keys are spread over shards: `bits` of a key are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    bits: u32,
    /// Of the mixed bits, those that say which shard.
    of_shard: u32,
}

impl Spread {
    /// Over so many shards, a power of two.
    pub fn new(bits: u32, shards: usize) -> Self {
        assert!(shards.is_power_of_two() && shards.ilog2() < bits, "a shard is some bits of a key");
        Spread { bits, of_shard: shards.ilog2() }
    }

    /// Bits in use.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// How many shards.
    pub fn shards(self) -> usize {
        1 << self.of_shard
    }

    /// A key's bits, mixed.
    #[inline]
    pub fn mixed<K: Key>(self, key: K) -> K {
        key.mix(self.bits)
    }

    /// Which shard mixed bits belong to.
    #[inline]
    pub fn shard<K: Key>(self, mixed: K) -> usize {
        if self.of_shard == 0 { 0 } else { (mixed >> self.rest()).low() as usize }
    }

    /// Bits of a key that say which line, or are kept.
    fn rest(self) -> u32 {
        self.bits - self.of_shard
    }
}

/// Where mixed bits are kept in a shard, and as what.
#[derive(Clone, Copy, Debug)]
struct Shape {
    lines: u64,
    /// Bytes of a rest.
    width: usize,
    /// Bits that are kept or say which line; the first `top` of them do.
    bits: u32,
    top: u32,
    /// `2^64 / lines`, rounded up: a product with it divides by the number of lines.
    inverse: u64,
}

impl Shape {
    /// Lines for so many places.
    fn new(bits: u32, places: usize) -> Self {
        let with = |width: usize| {
            let lines = (places.div_ceil(ROOM / width) as u64).max(2);
            let top = bits.min(LINE_BITS).min(lines.leading_zeros() - 1);
            Shape { lines, width, bits, top, inverse: (u64::MAX / lines) + 1 }
        };
        let fits = |s: &Shape| s.rest_bits() <= 8 * s.width as u32;
        let widest = with(WIDTHS[WIDTHS.len() - 1]);
        WIDTHS.into_iter().map(with).find(fits).unwrap_or(widest)
    }

    /// Bits of the largest rest, which is one more than what is left of a key.
    fn rest_bits(&self) -> u32 {
        let left = ((1_u64 << self.top) - 1) / self.lines + 1;
        64 - left.leading_zeros() + self.bits - self.top
    }

    /// Keys for which the lines have room.
    fn places(&self) -> usize {
        self.lines as usize * (ROOM / self.width)
    }

    /// The line of mixed bits, and what is kept there; never 0.
    ///
    /// The product of the top bits and the number of lines is a line and a remainder. Of the tops that have their
    /// product in one line each has another remainder, and these are `lines` apart: divided by it they count from 0.
    #[inline]
    fn place<K: Key>(&self, mixed: K) -> (usize, K) {
        let low = self.bits - self.top;
        let kept = mixed & K::ones(self.bits);
        let product = (kept >> low).low() * self.lines; // fewer than 2^63
        let remainder = product & ((1 << self.top) - 1);
        // Exact: the inverse is too large by less than 1, so the quotient by less than `remainder / 2^64`, and that is
        // less than half of `1 / lines`.
        let nth = ((u128::from(remainder) * u128::from(self.inverse)) >> 64) as u64;
        let rest = (K::of(u128::from(nth)) << low) | (kept & K::ones(low));
        ((product >> self.top) as usize, rest.next())
    }

    /// The smallest top of a line.
    fn first(&self, line: usize) -> u64 {
        ((line as u64) << self.top).div_ceil(self.lines)
    }

    /// The mixed bits, without those of the shard, that are kept as this in the line whose first top is this.
    #[inline]
    fn kept<K: Key>(&self, first: u64, rest: K) -> K {
        let low = self.bits - self.top;
        let rest = rest.before();
        (K::of(u128::from(first + (rest >> low).low())) << low) | (rest & K::ones(low))
    }
}

/// A rest as it is read from a line.
trait Rest: Copy + Eq + Default {
    /// What begins at a byte, of a width.
    fn read(line: &Line, at: usize, width: usize) -> Self;
    fn of<K: Key>(key: K) -> Self;
    fn key<K: Key>(self) -> K;
}

macro_rules! rest {
    ($int:ty) => {
        impl Rest for $int {
            #[inline(always)]
            fn read(line: &Line, at: usize, width: usize) -> Self {
                const N: usize = size_of::<$int>();
                let bytes: [u8; N] = line[at..at + N].try_into().expect("a line has room");
                <$int>::from_le_bytes(bytes) & (<$int>::MAX >> (8 * (N - width)))
            }
            #[inline(always)]
            fn of<K: Key>(key: K) -> Self {
                Into::<u128>::into(key) as $int
            }
            #[inline(always)]
            fn key<K: Key>(self) -> K {
                K::of(u128::from(self))
            }
        }
    };
}
rest!(u32);
rest!(u64);
rest!(u128);

/// Call `$f` for the width of a shape, with the integer that holds it.
macro_rules! by_width {
    ($shape:expr, $w:ident, $r:ident => $body:expr) => {
        by_width!(@ $shape, $w, $r, $body, (4, u32), (5, u64), (6, u64), (8, u64), (12, u128), (15, u128))
    };
    (@ $shape:expr, $w:ident, $r:ident, $body:expr, $(($n:literal, $int:ty)),*) => {
        match $shape.width {
            $($n => {
                const $w: usize = $n;
                type $r = $int;
                $body
            })*
            other => unreachable!("{other} is none of the widths"),
        }
    };
}

/// The end of a line: how many rests it holds, in the four low bits, and which may be elsewhere.
#[inline(always)]
fn end(line: &Line) -> u32 {
    u32::from_le_bytes(line[ROOM..].try_into().expect("four bytes"))
}

/// Which bit of a line's end says that a rest may be elsewhere.
#[inline(always)]
fn flag<K: Key>(rest: K) -> u32 {
    1 << (4 + (rest.low() & 31) * 7 / 8)
}

/// Is a rest in its line?
#[inline(always)]
fn has<R: Rest, const W: usize>(line: &Line, rest: R) -> bool {
    // All of them, for where the search ends cannot be predicted. What is not taken is 0.
    (0..ROOM / W).fold(false, |there, i| there | (R::read(line, i * W, W) == rest))
}

/// Mixed bits, mixed once more: the last of them are best, for the first say which line.
#[inline]
fn hash<K: Key>(mixed: K) -> u64 {
    let low = mixed.low();
    (low ^ low >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whole keys that found no room in their lines: open addressing, at most three quarters full.
#[derive(Debug)]
struct Others<K> {
    slots: Vec<K>,
    held: usize,
}

impl<K: Key> Others<K> {
    fn new() -> Self {
        Others { slots: Vec::new(), held: 0 }
    }

    /// Where mixed bits are or belong.
    fn find(&self, mixed: K) -> usize {
        let mut at = ((u128::from(hash(mixed)) * self.slots.len() as u128) >> 64) as usize;
        while self.slots[at] != mixed && self.slots[at] != K::default() {
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
        at
    }

    fn has(&self, mixed: K) -> bool {
        !self.slots.is_empty() && self.slots[self.find(mixed)] == mixed
    }

    /// Make room for so many more; `false` if there is no memory.
    fn make_room(&mut self, more: usize) -> bool {
        if self.held + more <= self.slots.len() / 4 * 3 {
            return true;
        }
        let want = (self.slots.len() + self.slots.len() / 2).max((self.held + more) * 3 / 2);
        let mut slots = Vec::new();
        if slots.try_reserve_exact(want).is_err() {
            return false;
        }
        slots.resize(want, K::default());
        for mixed in std::mem::replace(&mut self.slots, slots) {
            if mixed != K::default() {
                let at = self.find(mixed);
                self.slots[at] = mixed;
            }
        }
        true
    }

    /// Add what is not there, for which there is room.
    fn add(&mut self, mixed: K) {
        let at = self.find(mixed);
        self.slots[at] = mixed;
        self.held += 1;
    }
}

/// A part of the set: the keys whose mixed bits belong here.
#[derive(Debug)]
pub(super) struct Table<K> {
    shard: K,
    shape: Shape,
    lines: Lines,
    others: Others<K>,
    held: usize,
}

/// Places for so many keys.
fn places(keys: usize) -> usize {
    keys + keys / 9 // nine in ten are taken
}

impl<K: Key> Table<K> {
    /// Room for so many keys of a shard; `None` if there is no memory.
    pub(super) fn new(spread: Spread, shard: usize, keys: usize) -> Option<Self> {
        let fewest = if K::BITS > 64 { 4096 } else { 256 };
        let shape = Shape::new(spread.rest(), places(keys).max(fewest));
        Some(Table {
            shard: if shard == 0 { K::default() } else { K::of(shard as u128) << spread.rest() },
            lines: Lines::new(shape.lines as usize)?,
            shape,
            others: Others::new(),
            held: 0,
        })
    }

    /// Does the next batch fit?
    #[inline]
    fn fits(&self) -> bool {
        places(self.held + TOGETHER) <= self.shape.places()
    }

    /// Make room for a batch; `false` if there is no memory.
    #[inline]
    pub(super) fn make_room(&mut self) -> bool {
        self.others.make_room(TOGETHER) && (self.fits() || self.grow())
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let now = self.held + TOGETHER;
        let more = if now < SMALL / 8 {
            now * 4
        } else if now < SMALL {
            now * 2
        } else {
            now + now / 2
        };
        self.resize(more)
    }

    /// Move to lines for so many keys. Lines keep their order, so both are gone through from front to back.
    fn resize(&mut self, keys: usize) -> bool {
        let shape = Shape::new(self.shape.bits, places(keys));
        let Some(lines) = Lines::new(shape.lines as usize) else { return false };
        let (old, old_shape) =
            (std::mem::replace(&mut self.lines, lines), std::mem::replace(&mut self.shape, shape));
        let others = std::mem::replace(&mut self.others, Others::new());
        // Some of them find room now, and as many others may not.
        if !self.others.make_room(others.held) {
            return false;
        }
        self.held = 0;
        let mut room = true;
        each(&old_shape, &old, |kept: K| room = room && self.load(kept | self.shard));
        // In another order than that of their hashes: those which find room now leave no gap in it.
        let mut others: Vec<K> = others.slots.into_iter().filter(|&m| m != K::default()).collect();
        others.sort_unstable();
        for mixed in others {
            room = room && self.load(mixed);
        }
        room
    }

    /// Add mixed bits that are known not to be there; `false` if there is no memory.
    pub(super) fn load(&mut self, mixed: K) -> bool {
        let room = self.make_room();
        if room {
            let (at, rest) = self.shape.place(mixed);
            by_width!(self.shape, W, _R => self.add::<W>(mixed, at, rest));
        }
        room
    }

    /// Add what is not there: to its line, or to the others if that is full.
    #[inline(always)]
    fn add<const W: usize>(&mut self, mixed: K, at: usize, rest: K) {
        let line = &mut self.lines.get_mut()[at];
        let end = end(line);
        let held = (end & 15) as usize;
        let new = if held < ROOM / W {
            line[held * W..][..W].copy_from_slice(&Into::<u128>::into(rest).to_le_bytes()[..W]);
            end + 1
        } else {
            self.others.add(mixed);
            end | flag(rest)
        };
        line[ROOM..].copy_from_slice(&new.to_le_bytes());
        self.held += 1;
    }

    /// Insert; `false` if it was there.
    #[inline(always)]
    fn insert_one<R: Rest, const W: usize>(&mut self, mixed: K) -> bool {
        let (at, rest) = self.shape.place(mixed);
        let line = &self.lines.get()[at];
        let new = !has::<R, W>(line, R::of(rest)) && (end(line) & flag(rest) == 0 || !self.others.has(mixed));
        if new {
            self.add::<W>(mixed, at, rest);
        }
        new
    }

    /// Insert a batch of mixed bits, for which there is room, and hear the places of those that are new.
    #[inline]
    pub(super) fn insert(&mut self, batch: &[K], new: impl FnMut(usize)) {
        by_width!(self.shape, W, R => self.insert_batch::<R, W>(batch, new));
    }

    #[inline(always)]
    fn insert_batch<R: Rest, const W: usize>(&mut self, batch: &[K], mut new: impl FnMut(usize)) {
        let mut there = [0; TOGETHER];
        for (there, &mixed) in there.iter_mut().zip(batch) {
            *there = self.lines.get()[self.shape.place(mixed).0][0];
        }
        std::hint::black_box(&there); // they are fetched
        for (i, &mixed) in batch.iter().enumerate() {
            if self.insert_one::<R, W>(mixed) {
                new(i);
            }
        }
    }

    /// The mixed bits of every key.
    pub(super) fn each(&self, mut to: impl FnMut(K)) {
        each(&self.shape, &self.lines, |kept: K| to(kept | self.shard));
        self.others.slots.iter().copied().filter(|&m| m != K::default()).for_each(to);
    }

    /// How many.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.shape.lines as usize * size_of::<Line>() + self.others.slots.len() * size_of::<K>()
    }
}

/// The mixed bits, without those of the shard, of what the lines hold.
fn each<K: Key>(shape: &Shape, lines: &Lines, mut to: impl FnMut(K)) {
    by_width!(shape, W, R => {
        for (at, line) in lines.get().iter().enumerate() {
            let first = shape.first(at);
            for i in 0..(end(line) & 15) as usize {
                to(shape.kept(first, <R as Rest>::read(line, i * W, W).key::<K>()));
            }
        }
    });
}

/// Bytes for so many keys of which so many bits are in use: lines of shards whose growth by a half is spread, one of them
/// while it moves, and the keys of full lines, about one in twenty. Fewer keys of two words have room in a line, and of
/// more of them some are elsewhere.
pub(super) fn bytes<K: Key>(keys: usize, bits: u32) -> usize {
    let shape = Shape::new(bits, places(keys + keys / 4).max(256));
    let elsewhere = if size_of::<K>() > size_of::<u64>() { keys / 4 } else { keys / 14 };
    shape.lines as usize * (size_of::<Line>() + size_of::<Line>() / 16) + elsewhere * size_of::<K>()
}
