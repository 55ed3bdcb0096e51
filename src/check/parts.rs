//! A state as one number: the words of each CPU, and the shared ones, are kept once and named by a small number.
//!
//! Invariant: two states have the same key exactly if they have the same words, for as long as the shape of the
//! keys stays the same. Nothing is hashed away. Few different words make up many states, so a key is 8 bytes
//! where the words are 8 per CPU and 8 shared, and the next state is a key with two fields exchanged.

use std::cmp::Ordering;
use std::ops::{BitAnd, BitOr, Not, Shl, Shr};

use super::layout::width;
use super::machine::Model;
use super::reduce::{Class, Symmetry};

/// A word that holds the numbers of all parts.
pub trait Key:
    Copy
    + Ord
    + Into<u128>
    + Default
    + Send
    + Sync
    + 'static
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + Not<Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
    /// Bits.
    const BITS: u32;
    /// A number in a field.
    fn at(v: u32, shift: u32) -> Self;
    /// The number in a field.
    fn part(self, field: Field) -> u32;
    /// Its bits mixed; the high ones best.
    fn hash(self) -> u64;
    /// As many of its bits mixed, so that it can be undone.
    #[must_use]
    fn mix(self, bits: u32) -> Self;
    /// What was mixed.
    #[must_use]
    fn unmix(self, bits: u32) -> Self;
    /// The low bits.
    fn low(self) -> u64;
    /// A number.
    fn of(v: u128) -> Self;
    /// So many ones.
    fn ones(bits: u32) -> Self;
    /// One more.
    #[must_use]
    fn next(self) -> Self;
    /// One less.
    #[must_use]
    fn before(self) -> Self;
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let x = u128::from(a) * u128::from(b);
    x as u64 ^ (x >> 64) as u64
}

/// What an odd number is multiplied with to make 1.
const fn inverse(odd: u128) -> u128 {
    let mut x = odd; // right in three bits, then in twice as many each time
    let mut bits = 3;
    while bits < u128::BITS {
        x = x.wrapping_mul(2_u128.wrapping_sub(odd.wrapping_mul(x)));
        bits *= 2;
    }
    x
}

/// Mixing and numbers of one width. A multiplication by an odd number carries bits up and a shift by half of them brings
/// them down; both can be undone.
macro_rules! mixing {
    ($int:ty, $first:literal, $second:literal) => {
        #[inline]
        fn mix(self, bits: u32) -> Self {
            let (half, ones) = (bits.div_ceil(2), <Self as Key>::ones(bits));
            let x = (self ^ self >> half).wrapping_mul($first) & ones;
            let x = (x ^ x >> half).wrapping_mul($second) & ones;
            x ^ x >> half
        }

        #[inline]
        fn unmix(self, bits: u32) -> Self {
            const INVERSE: ($int, $int) = (inverse($first) as $int, inverse($second) as $int);
            let (half, ones) = (bits.div_ceil(2), <Self as Key>::ones(bits));
            let x = (self ^ self >> half).wrapping_mul(INVERSE.1) & ones;
            let x = (x ^ x >> half).wrapping_mul(INVERSE.0) & ones;
            x ^ x >> half
        }

        #[inline]
        fn low(self) -> u64 {
            self as u64
        }

        #[inline]
        fn of(v: u128) -> Self {
            v as $int
        }

        #[inline]
        fn ones(bits: u32) -> Self {
            if bits == 0 { 0 } else { <$int>::MAX >> (<$int>::BITS - bits) }
        }

        #[inline]
        fn next(self) -> Self {
            self.wrapping_add(1)
        }

        #[inline]
        fn before(self) -> Self {
            self.wrapping_sub(1)
        }
    };
}

impl Key for u64 {
    mixing!(u64, 0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53);

    const BITS: u32 = 64;

    #[inline]
    fn at(v: u32, shift: u32) -> Self {
        u64::from(v) << shift
    }

    #[inline]
    fn part(self, field: Field) -> u32 {
        (self >> field.shift) as u32 & field.mask
    }

    #[inline]
    fn hash(self) -> u64 {
        fold(self ^ 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db)
    }
}

impl Key for u128 {
    mixing!(u128, 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645, 0xda94_2042_e4dd_58b5_c4ce_b9fe_1a85_ec53);

    const BITS: u32 = 128;

    #[inline]
    fn at(v: u32, shift: u32) -> Self {
        u128::from(v) << shift
    }

    #[inline]
    fn part(self, field: Field) -> u32 {
        (self >> field.shift) as u32 & field.mask
    }

    #[inline]
    fn hash(self) -> u64 {
        let low = fold(self as u64 ^ 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db);
        fold(low ^ (self >> 64) as u64, 0x8ebc_6af0_9c88_c6e3)
    }
}

/// Bits of a key that are in use as long as they are enough: what a large table holds of each then takes five bytes.
const USED: u32 = 60;

/// Where a part's number is in a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    shift: u32,
    mask: u32,
}

/// A part's number no longer fits its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Different words of one part, numbered from 1 in order of discovery.
#[derive(Clone, Debug, Default)]
struct Pool {
    width: usize,
    words: Vec<u64>,
    /// Open addressing: numbers, 0 for empty.
    table: Vec<u32>,
}

impl Pool {
    fn new(width: usize) -> Self {
        Pool { width, words: vec![0; width], table: vec![0; 64] }
    }

    /// The largest number.
    fn len(&self) -> u32 {
        (self.words.len() / self.width - 1) as u32
    }

    #[inline]
    fn get(&self, number: u32) -> &[u64] {
        let at = number as usize * self.width;
        &self.words[at..at + self.width]
    }

    #[inline]
    fn compare(&self, a: u32, b: u32) -> Ordering {
        if self.width == 1 {
            self.words[a as usize].cmp(&self.words[b as usize])
        } else {
            self.get(a).cmp(self.get(b))
        }
    }

    #[inline]
    fn slot(&self, words: &[u64]) -> usize {
        let h = words.iter().fold(0xa076_1d64_78bd_642f, |h, &w| fold(h ^ w, 0xe703_7ed1_a0b4_28db));
        h as usize & (self.table.len() - 1)
    }

    /// The number of these words, or the empty slot where it belongs.
    #[inline]
    fn find(&self, words: &[u64]) -> Result<u32, usize> {
        let mut at = self.slot(words);
        loop {
            match self.table[at] {
                0 => return Err(at),
                n if self.get(n) == words => return Ok(n),
                _ => at = (at + 1) & (self.table.len() - 1),
            }
        }
    }

    fn intern(&mut self, words: &[u64]) -> u32 {
        let at = match self.find(words) {
            Ok(n) => return n,
            Err(at) => at,
        };
        self.words.extend_from_slice(words);
        let number = self.len();
        self.table[at] = number;
        if number as usize * 2 > self.table.len() {
            self.table = vec![0; self.table.len() * 2];
            for n in 1..=number {
                let at = self.find(self.get(n)).expect_err("numbers are different words");
                self.table[at] = n;
            }
        }
        number
    }
}

/// A class of interchangeable CPUs, by numbers.
#[derive(Clone, Debug)]
struct Alike {
    class: Class,
    /// Every order of them.
    orders: Vec<Vec<usize>>,
    /// Order, three bits each, to its place in `orders`.
    place: Vec<u8>,
    holders: Vec<Holder>,
}

/// A CPU whose words name those of a class: what its numbers become when they are renamed.
#[derive(Clone, Debug)]
struct Holder {
    part: usize,
    /// By number and CPU of the class: what it holds about that CPU.
    about: Vec<u64>,
    /// By number and order: the number of the renamed words.
    renamed: Vec<u32>,
}

/// The parts of the states of one search.
#[derive(Clone, Debug)]
pub struct Parts<K> {
    /// First word and how many, of each CPU and then of the shared words.
    spans: Vec<(usize, usize)>,
    pool_of: Vec<usize>,
    pools: Vec<Pool>,
    fields: Vec<Field>,
    /// By set of parts: the bits of their fields.
    masks: Vec<K>,
    alike: Vec<Alike>,
    words: usize,
}

impl<K: Key> Parts<K> {
    /// No words yet.
    pub fn new(m: &Model, symmetric: bool) -> Self {
        let mut spans: Vec<(usize, usize)> = m.layout.cpus.iter().map(|c| c.words).collect();
        let shared = spans.iter().map(|s| s.1).sum();
        spans.push((shared, m.layout.words - shared));
        let mut pool_of: Vec<usize> = (0..spans.len()).collect();
        let classes = if symmetric { Symmetry::new(m).classes().to_vec() } else { Vec::new() };
        for class in &classes {
            for &cpu in &class.cpus {
                pool_of[cpu] = class.cpus[0];
            }
        }
        let alike = classes.into_iter().map(Alike::new).collect();
        let pools = spans.iter().map(|s| Pool::new(s.1)).collect();
        let mut parts = Parts {
            spans,
            pool_of,
            pools,
            fields: Vec::new(),
            masks: Vec::new(),
            alike,
            words: m.layout.words,
        };
        assert!(parts.reshape(), "empty pools fit");
        parts
    }

    /// The bits of a set of parts.
    #[inline]
    pub fn mask(&self, set: u8) -> K {
        self.masks[usize::from(set)]
    }

    /// Share out the bits of a key anew; `false` if there are too few of them.
    pub fn reshape(&mut self) -> bool {
        let need: Vec<u32> =
            self.pool_of.iter().map(|&p| width(u64::from(self.pools[p].len()) * 5 / 4 + 1)).collect();
        let (n, least) = (need.len() as u32, need.iter().sum());
        // Of bits that are not in use the set holds none: two for each part are left to grow.
        let Some(spare) = K::BITS.min(USED.max(least + 2 * n)).checked_sub(least) else { return false };
        let mut shift = 0;
        self.fields = need
            .iter()
            .zip(0..)
            .map(|(&need, i)| {
                let bits = (need + spare / n + u32::from(i < spare % n)).min(31);
                let field = Field { shift, mask: (1 << bits) - 1 };
                shift += bits;
                field
            })
            .collect();
        self.masks = (0..1u32 << n)
            .map(|set| {
                let of = self.fields.iter().enumerate().filter(|(i, _)| set >> i & 1 != 0);
                of.fold(K::default(), |m, (_, f)| m | K::at(f.mask, f.shift))
            })
            .collect();
        true
    }

    /// Bits of a key that are in use.
    pub fn bits(&self) -> u32 {
        self.fields.iter().map(|f| f.shift + f.mask.count_ones()).max().unwrap_or(1)
    }

    /// The same parts under keys of another width, which must be enough.
    pub fn with_keys<L: Key>(&self) -> Parts<L> {
        let mut parts = Parts {
            spans: self.spans.clone(),
            pool_of: self.pool_of.clone(),
            pools: self.pools.clone(),
            fields: Vec::new(),
            masks: Vec::new(),
            alike: self.alike.clone(),
            words: self.words,
        };
        assert!(parts.reshape(), "twice the bits are enough for as many states as there are numbers");
        parts
    }

    /// A key of `old` parts as one of these.
    pub fn translate<L: Key>(&self, old: &[Field], key: L) -> K {
        let new = self.fields.iter();
        new.zip(old).fold(K::default(), |k, (f, &o)| k | K::at(key.part(o), f.shift))
    }

    /// Bytes of the words and of what is kept about them.
    pub fn bytes(&self) -> usize {
        let pools =
            self.pools.iter().map(|p| p.words.len() * size_of::<u64>() + p.table.len() * size_of::<u32>());
        let holders = self.alike.iter().flat_map(|a| &a.holders);
        let renamed = holders.map(|h| h.about.len() * size_of::<u64>() + h.renamed.len() * size_of::<u32>());
        pools.chain(renamed).sum()
    }

    /// Where the numbers are.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The words of a key.
    pub fn decode(&self, key: K, out: &mut [u64]) {
        for ((&(first, n), &pool), &field) in self.spans.iter().zip(&self.pool_of).zip(&self.fields) {
            out[first..first + n].copy_from_slice(self.pools[pool].get(key.part(field)));
        }
    }

    /// The key of a state's words, if each was seen before.
    pub fn find(&self, s: &[u64]) -> Option<K> {
        let mut key = K::default();
        for ((&(first, n), &pool), &field) in self.spans.iter().zip(&self.pool_of).zip(&self.fields) {
            key = key | K::at(self.pools[pool].find(&s[first..first + n]).ok()?, field.shift);
        }
        Some(key)
    }

    /// The key of a set of parts of a state, with zeros elsewhere.
    pub fn intern(&mut self, s: &[u64], set: u8) -> Result<K, Full> {
        let mut key = K::default();
        for part in (0..self.spans.len()).filter(|p| set >> p & 1 != 0) {
            let (first, n) = self.spans[part];
            let pool = &mut self.pools[self.pool_of[part]];
            let before = pool.len();
            let number = pool.intern(&s[first..first + n]);
            if pool.len() != before {
                self.rename(self.pool_of[part]);
            }
            let field = self.fields[part];
            if self.pools[self.pool_of[part]].len() > field.mask {
                return Err(Full);
            }
            key = key | K::at(number, field.shift);
        }
        Ok(key)
    }

    /// Keep what new words of a pool become when interchangeable CPUs are renamed.
    fn rename(&mut self, pool: usize) {
        let Parts { spans, pool_of, pools, alike, words, .. } = self;
        let mut more = true;
        while more {
            more = false;
            for a in alike.iter_mut() {
                for h in a.holders.iter_mut().filter(|h| pool_of[h.part] == pool) {
                    let (first, n) = spans[h.part];
                    while h.about.len() < (pools[pool].len() as usize + 1) * a.class.cpus.len() {
                        more = true;
                        let number = (h.about.len() / a.class.cpus.len()) as u32;
                        let mut s = vec![0; *words];
                        s[first..first + n].copy_from_slice(pools[pool].get(number));
                        h.about.extend(a.class.cpus.iter().map(|&cpu| a.class.about(&s, cpu)));
                        for order in &a.orders {
                            let mut t = s.clone();
                            a.class.rename(&mut t, order);
                            h.renamed.push(pools[pool].intern(&t[first..first + n]));
                        }
                    }
                }
            }
        }
    }

    /// The representative of a state.
    #[inline]
    pub fn canonical(&self, key: K) -> K {
        self.alike.iter().fold(key, |key, a| self.sorted(a, key))
    }

    #[inline]
    fn sorted(&self, a: &Alike, key: K) -> K {
        let cpus = &a.class.cpus[..];
        let number = |i: usize| key.part(self.fields[cpus[i]]);
        let pool = &self.pools[cpus[0]];
        let about = |i: usize| {
            a.holders.iter().map(move |h| h.about[key.part(self.fields[h.part]) as usize * cpus.len() + i])
        };
        let compare = |i: usize, j: usize| match (number(i), number(j)) {
            (x, y) if x == y => about(i).cmp(about(j)),
            (x, y) => pool.compare(x, y),
        };
        if (1..cpus.len()).all(|i| compare(i - 1, i).is_le()) {
            return key;
        }
        let mut order = [0, 1, 2, 3, 4];
        let order = &mut order[..cpus.len()];
        // Insertion: there are two to five.
        for i in 1..order.len() {
            let mut j = i;
            while j > 0 && compare(order[j - 1], order[j]).is_gt() {
                order.swap(j - 1, j);
                j -= 1;
            }
        }
        let place = usize::from(a.place[order.iter().fold(0, |code, &i| code << 3 | i)]);
        let mut set = 0u8;
        let mut new = K::default();
        for (to, &from) in order.iter().enumerate() {
            new = new | K::at(number(from), self.fields[cpus[to]].shift);
            set |= 1 << cpus[to];
        }
        for h in &a.holders {
            let field = self.fields[h.part];
            let number = h.renamed[key.part(field) as usize * a.orders.len() + place];
            new = new | K::at(number, field.shift);
            set |= 1 << h.part;
        }
        key & !self.mask(set) | new
    }
}

impl Alike {
    fn new(class: Class) -> Self {
        let n = class.cpus.len();
        let mut orders = vec![Vec::new()];
        for _ in 0..n {
            orders = orders
                .into_iter()
                .flat_map(|o: Vec<usize>| {
                    let left: Vec<usize> = (0..n).filter(|i| !o.contains(i)).collect();
                    left.into_iter().map(move |i| [o.clone(), vec![i]].concat())
                })
                .collect();
        }
        let mut place = vec![0; 1 << (3 * n)];
        for (i, order) in orders.iter().enumerate() {
            place[order.iter().fold(0, |code, &i| code << 3 | i)] = i as u8;
        }
        // Number 0 is nobody's.
        let holders = class.holders.iter().map(|&part| Holder {
            part,
            about: vec![0; n],
            renamed: vec![0; orders.len()],
        });
        let holders = holders.collect();
        Alike { class, orders, place, holders }
    }
}
