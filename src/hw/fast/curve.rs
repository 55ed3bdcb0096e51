//! Miss counts of many LRU TLBs in one pass: for each set count, all way counts at once.
//!
//! LRU is a stack algorithm (Mattson et al. 1970; per set: Hill and Smith 1989): a set of `w` ways holds the `w` most
//! recently used pages of the set, so one stack per set and a histogram of the depths at which pages are found give the
//! misses for every `w`. A full flush empties the stacks and begins a new epoch; a context is part of the page's name.

use rustc_hash::FxHashMap;

use super::avx2;
pub use super::orders::MOST_WAYS;
use super::orders::Orders;
use super::rows::{BATCH, ROOM, Row};
pub use super::stacks::MAX_WAYS;
use super::stacks::{EMPTY, Stacks};
use crate::hw::vectors;
use crate::hw::{Pcid, TlbError, Vpn};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Pages, as `va >> 12`.
    pub vpns: &'a [u64],
    /// A context for each page; `None`: one for all.
    pub pcids: Option<&'a [u16]>,
    /// Full flushes: each happens before the access with this number. In rising order.
    pub flushes: &'a [u64],
    /// Set counts, each a power of two.
    pub sets: &'a [u32],
    /// Way counts 1 to this.
    pub ways: usize,
}

/// Misses by set count (outer, as asked) and way count (inner, from 1).
pub fn misses(question: &Question<'_>) -> Result<Vec<Vec<u64>>, TlbError> {
    let mut running = Running::new(question)?;
    while running.advance(usize::MAX)? {}
    Ok(running.misses())
}

/// A question being answered, in steps.
#[derive(Debug)]
pub struct Running<'a> {
    question: Question<'a>,
    names: Names,
    stacks: All,
    at: usize,
    flushed: usize,
}

/// The stacks of every set count; those of more than [`MAX_WAYS`] are orders.
#[derive(Debug)]
struct All {
    stacks: Vec<Stacks>,
    orders: Vec<Orders>,
    ways: usize,
    vector: bool,
}

/// Miss counts of pages that come in pieces, of a trace that need not fit into memory. What grows is a name for each
/// distinct page.
#[derive(Debug)]
pub struct Growing {
    names: Names,
    stacks: All,
    taken: u64,
}

impl Growing {
    /// Empty stacks of these set counts, for 1 to `ways` ways.
    pub fn new(sets: &[u32], ways: usize) -> Result<Self, TlbError> {
        Ok(Growing { names: Names::table(), stacks: All::new(sets, ways)?, taken: 0 })
    }

    /// Takes further accesses. After an error the counts mean nothing.
    pub fn feed(&mut self, vpns: &[u64]) -> Result<(), TlbError> {
        Vpn::check(vpns, 0)?;
        let mut names = [0; ROOM];
        for batch in vpns.chunks(BATCH) {
            let taken = self.names.of(batch, None, &mut names)?;
            self.stacks.find_depths(&mut names, taken, self.names.greatest());
        }
        self.taken += vpns.len() as u64;
        Ok(())
    }

    /// Accesses taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Misses by set count (outer, as asked) and way count (inner, from 1).
    pub fn misses(&self) -> Vec<Vec<u64>> {
        self.stacks.misses(self.taken)
    }
}

impl All {
    fn new(sets: &[u32], ways: usize) -> Result<Self, TlbError> {
        if ways == 0 || ways > MOST_WAYS {
            return Err(TlbError::shape("ways", format!("must be 1 to {MOST_WAYS}: got {ways}")));
        }
        if sets.is_empty() {
            return Err(TlbError::shape("sets", "must hold at least one set count: got none"));
        }
        for (index, &count) in sets.iter().enumerate() {
            if !count.is_power_of_two() || count > 1 << KEPT {
                let rule = format!("must be a power of two, at most {}: got {count}", 1 << KEPT);
                return Err(TlbError::Element { field: "sets", index, rule });
            }
        }
        if ways > MAX_WAYS {
            let orders = sets.iter().map(|&sets| Orders::new(sets as usize, ways)).collect();
            return Ok(All { stacks: Vec::new(), orders, ways, vector: false });
        }
        let depth = if ways <= 8 { 8 } else { ways.next_power_of_two() };
        let stacks = sets
            .iter()
            .map(|&sets| Stacks {
                rows: vec![Row([EMPTY; 16]); (sets as usize * depth).div_ceil(16)],
                sets: sets as usize,
                depth,
                found: [0; MAX_WAYS + 1],
            })
            .collect();
        Ok(All { stacks, orders: Vec::new(), ways, vector: vectors::available() })
    }

    fn flush(&mut self) {
        self.stacks.iter_mut().for_each(|stacks| stacks.rows.fill(Row([EMPTY; 16])));
        self.orders.iter_mut().for_each(Orders::flush);
    }

    /// The first `taken` names, none of which is above `greatest`.
    fn find_depths(&mut self, names: &mut [u32; ROOM], taken: usize, greatest: u32) {
        for orders in &mut self.orders {
            orders.find_depths(&names[..taken]);
        }
        for stacks in &mut self.stacks {
            if self.vector {
                let narrow = greatest >> stacks.sets.ilog2() < u32::from(u16::MAX);
                avx2::find_depths(stacks, names, taken, narrow);
            } else {
                stacks.find_depths(&names[..taken]);
            }
        }
    }

    fn misses(&self, taken: u64) -> Vec<Vec<u64>> {
        let of = |found: &[u64]| {
            let mut left = taken;
            let under = |depth: usize| {
                left -= found[depth];
                left
            };
            (0..self.ways).map(under).collect()
        };
        let stacks = self.stacks.iter().map(|stacks| &stacks.found[..]);
        stacks.chain(self.orders.iter().map(Orders::found)).map(of).collect()
    }
}

/// How pages get 32-bit names that keep the low bits, by which sets are picked.
#[derive(Debug)]
enum Names {
    /// `index of context << bits | page - base`.
    Window { base: u64, bits: u32, contexts: Vec<u32>, greatest: u32 },
    /// A table; the low 16 bits of the page, then a number.
    Table(FxHashMap<(u64, u16), u32>, FxHashMap<u32, u32>),
}

/// Low bits kept by [`Names::Table`].
const KEPT: u32 = 16;
/// What the high bits of a name can tell apart, without that of [`EMPTY`].
const MOST_ALIKE: u32 = (1 << (u32::BITS - KEPT)) - 1;

impl<'a> Running<'a> {
    /// Checks the question.
    pub fn new(question: &Question<'a>) -> Result<Self, TlbError> {
        let &Question { vpns, pcids, flushes, sets, ways } = question;
        let stacks = All::new(sets, ways)?;
        let (mut low, mut high) = (u64::MAX, 0);
        for &vpn in vpns {
            low = low.min(vpn);
            high = high.max(vpn);
        }
        if high >> Vpn::BITS != 0 {
            Vpn::check(vpns, 0)?;
        }
        if let Some(pcids) = pcids {
            if pcids.len() != vpns.len() {
                let rule = format!("must be as long as vpn ({}): got {}", vpns.len(), pcids.len());
                return Err(TlbError::shape("pcid", rule));
            }
            Pcid::check(pcids)?;
        }
        for (index, &flush) in flushes.iter().enumerate() {
            if index > 0 && flushes[index - 1] > flush {
                let rule = format!("must not fall: got {flush} after {}", flushes[index - 1]);
                return Err(TlbError::Element { field: "flushes", index, rule });
            }
        }
        let names = Names::new(low.min(high), high, pcids);
        Ok(Running { question: *question, names, stacks, at: 0, flushed: 0 })
    }

    /// Takes up to `count` further accesses; `false` at the end.
    pub fn advance(&mut self, count: usize) -> Result<bool, TlbError> {
        let end = self.question.vpns.len().min(self.at.saturating_add(count));
        let mut names = [0; ROOM];
        while self.at < end {
            while self.question.flushes.get(self.flushed).is_some_and(|&at| at <= self.at as u64) {
                self.flushed += 1;
                self.stacks.flush();
            }
            let next = self.question.flushes.get(self.flushed).map_or(end, |&at| end.min(at as usize));
            let batch = self.at..next.min(self.at + BATCH);
            let pcids = self.question.pcids.map(|pcids| &pcids[batch.clone()]);
            let taken = self.names.of(&self.question.vpns[batch.clone()], pcids, &mut names)?;
            self.stacks.find_depths(&mut names, taken, self.names.greatest());
            self.at = batch.end;
        }
        Ok(self.at < self.question.vpns.len())
    }

    /// The answer, so far.
    pub fn misses(&self) -> Vec<Vec<u64>> {
        self.stacks.misses(self.at as u64)
    }
}

impl Names {
    fn table() -> Self {
        Names::Table(FxHashMap::default(), FxHashMap::default())
    }

    fn new(low: u64, high: u64, pcids: Option<&[u16]>) -> Self {
        let base = low >> KEPT << KEPT;
        let bits = (u64::BITS - (high - base).leading_zeros()).max(KEPT);
        let mut contexts = vec![u32::MAX; usize::from(Pcid::MAX) + 1];
        let mut known = 0;
        for &pcid in pcids.unwrap_or(&[0]) {
            let index = &mut contexts[usize::from(pcid & Pcid::MAX)];
            if *index == u32::MAX {
                *index = known;
                known += 1;
            }
        }
        if bits < 31 && u64::from(known) << bits <= 1 << 31 {
            let greatest = (high - base) as u32 | (known.max(1) - 1) << bits;
            Names::Window { base, bits, contexts, greatest }
        } else if bits == 31 && known == 1 {
            Names::Window { base, bits: 0, contexts: vec![0; contexts.len()], greatest: u32::MAX }
        } else {
            Names::table()
        }
    }

    /// No name is greater.
    fn greatest(&self) -> u32 {
        match self {
            Names::Window { greatest, .. } => *greatest,
            Names::Table(..) => u32::MAX,
        }
    }

    fn of(
        &mut self,
        vpns: &[u64],
        pcids: Option<&[u16]>,
        names: &mut [u32; ROOM],
    ) -> Result<usize, TlbError> {
        match (self, pcids) {
            (Names::Window { base, .. }, None) => {
                for (name, &vpn) in names.iter_mut().zip(vpns) {
                    *name = vpn.wrapping_sub(*base) as u32;
                }
            }
            (Names::Window { base, bits, contexts, .. }, Some(pcids)) => {
                for ((name, &vpn), &pcid) in names.iter_mut().zip(vpns).zip(pcids) {
                    *name = vpn.wrapping_sub(*base) as u32 | contexts[usize::from(pcid & Pcid::MAX)] << *bits;
                }
            }
            (Names::Table(table, counts), pcids) => {
                for (i, &vpn) in vpns.iter().enumerate() {
                    let pcid = pcids.map_or(0, |pcids| pcids[i]);
                    let page = (vpn & Vpn::MASK, pcid);
                    names[i] = if let Some(&name) = table.get(&page) {
                        name
                    } else {
                        // Names of pages with equal low bits differ above them.
                        let low = vpn as u32 & ((1 << KEPT) - 1);
                        let count = counts.entry(low).or_insert(0);
                        if *count == MOST_ALIKE {
                            let rule = format!(
                                "must have at most {MOST_ALIKE} pages that agree in their low {KEPT} bits: got one more with {low:#x}"
                            );
                            return Err(TlbError::shape("vpn", rule));
                        }
                        let name = low | *count << KEPT;
                        *count += 1;
                        table.insert(page, name);
                        name
                    };
                }
            }
        }
        Ok(vpns.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::array::splitmix64;

    /// As many separate TLBs as there are way counts, each a list per set.
    fn slowly(question: &Question<'_>) -> Vec<Vec<u64>> {
        let tlb = |sets: u32, ways: usize| {
            let mut lists = vec![Vec::new(); sets as usize];
            let mut missed = 0;
            for (i, &vpn) in question.vpns.iter().enumerate() {
                if question.flushes.contains(&(i as u64)) {
                    lists.iter_mut().for_each(Vec::clear);
                }
                let page = (vpn, question.pcids.map_or(0, |pcids| pcids[i]));
                let list = &mut lists[(vpn % u64::from(sets)) as usize];
                if let Some(at) = list.iter().position(|&other| other == page) {
                    list.remove(at);
                } else {
                    missed += 1;
                    list.truncate(ways - 1);
                }
                list.insert(0, page);
            }
            missed
        };
        question.sets.iter().map(|&sets| (1..=question.ways).map(|ways| tlb(sets, ways)).collect()).collect()
    }

    #[test]
    fn one_pass_counts_what_separate_tlbs_count() {
        // Names of 16 bits, of 32 with the page in them, and of 32 from a table.
        for (seed, ways, far) in [
            (1, 8, 0),
            (2, 5, 0),
            (3, 16, 0),
            (4, 32, 0),
            (5, 8, 1 << 25),
            (6, 16, 1 << 25),
            (7, 32, 1 << 25),
            (8, 32, 1 << 40),
            (9, 11, 1 << 40),
            (10, 33, 1 << 40),
            (11, 400, 0),
            (12, 150, 1 << 25),
        ]
        .into_iter()
        .take(if cfg!(miri) { 2 } else { 12 })
        {
            let count = if cfg!(miri) { 60 } else { 3000 };
            let draws: Vec<u64> = (0..count).map(|n| splitmix64(seed, n)).collect();
            let vpns: Vec<u64> =
                draws.iter().map(|d| 0x7_f000_0000 + d % 300 + (d >> 20) % 2 * far).collect();
            let pcids: Vec<u16> = draws.iter().map(|d| (d >> 30) as u16 % 3 * 1000).collect();
            for (pcids, flushes) in [(None, vec![]), (Some(&pcids[..]), vec![0, 700, 700, 1500, 9000])] {
                let question = Question { vpns: &vpns, pcids, flushes: &flushes, sets: &[1, 16, 4], ways };
                let wanted = slowly(&question);
                for vector in [false, vectors::available()] {
                    let mut running = Running::new(&question).unwrap();
                    running.stacks.vector = vector;
                    while running.advance(777).unwrap() {}
                    assert_eq!(running.misses(), wanted, "seed {seed}, vector {vector}");
                    if pcids.is_none() {
                        let mut growing = Growing::new(&[1, 16, 4], ways).unwrap();
                        growing.stacks.vector = vector;
                        vpns.chunks(777).for_each(|piece| growing.feed(piece).unwrap());
                        assert_eq!(growing.misses(), wanted, "seed {seed}, vector {vector}, in pieces");
                    }
                }
            }
        }
    }

    #[test]
    fn pages_that_no_name_is_left_for_are_refused() {
        let pages = |count: u64| (0..count).map(|n| n << KEPT | 5).collect::<Vec<_>>();
        let asked = |vpns: &[u64]| misses(&Question { vpns, pcids: None, flushes: &[], sets: &[1], ways: 1 });
        let most = u64::from(MOST_ALIKE);
        // Each page is new, and the last one of a row that is as long as names last misses like the others.
        assert_eq!(asked(&pages(most)).unwrap(), [[most]]);
        assert!(asked(&pages(most + 1)).unwrap_err().to_string().contains("low 16 bits"));
        let mut growing = Growing::new(&[1], 1).unwrap();
        growing.feed(&pages(most)).unwrap();
        assert!(growing.feed(&[most << KEPT | 5]).is_err());
    }

    #[test]
    fn questions_that_make_no_sense_are_refused() {
        let fine = Question { vpns: &[1, 2], pcids: None, flushes: &[], sets: &[16], ways: 4 };
        assert!(misses(&fine).is_ok());
        for bad in [
            Question { ways: 0, ..fine },
            Question { ways: MOST_WAYS + 1, ..fine },
            Question { sets: &[], ..fine },
            Question { sets: &[3], ..fine },
            Question { vpns: &[1 << 45], ..fine },
            Question { pcids: Some(&[1]), ..fine },
            Question { pcids: Some(&[1, 4096]), ..fine },
            Question { flushes: &[2, 1], ..fine },
        ] {
            assert!(misses(&bad).is_err());
        }
    }
}
