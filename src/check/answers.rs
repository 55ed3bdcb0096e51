//! What one CPU can do, kept by the few words that decide it.
//!
//! It mostly depends on the CPU's own words and the shared ones alone, and few pairs of these make up many
//! states. An answer that read further CPUs is kept under their words too; one that read all of them is not kept.

use super::model::{Expansion, Move};
use super::parts::Key;
use crate::kernel::step::Violation;

/// One CPU's answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    first: u32,
    count: u16,
    /// The parts that decide it and that it changes, a bit each.
    pub parts: u8,
    flags: u8,
    /// `Seen` bits.
    pub seen: u32,
}

impl Known {
    const PROGRESS: u8 = 1;
    const BUSY: u8 = 2;
    const FURTHER: u8 = 4;
    const BREAKS: u8 = 8;

    /// As in [`Expansion`].
    pub fn progress(self) -> bool {
        self.flags & Self::PROGRESS != 0
    }

    /// As in [`Expansion`].
    pub fn busy(self) -> bool {
        self.flags & Self::BUSY != 0
    }

    /// After its successors comes a move that breaks a rule.
    pub fn breaks(self) -> bool {
        self.flags & Self::BREAKS != 0
    }
}

/// Answers in a row, and the new numbers of the parts they change.
#[derive(Clone, Debug)]
struct Store<K> {
    known: Vec<Known>,
    next: Vec<K>,
    broken: Vec<(u32, Move, Violation)>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Store { known: Vec::new(), next: Vec::new(), broken: Vec::new() }
    }
}

impl<K: Key> Store<K> {
    fn push(&mut self, e: Expansion, parts: u8, next: &[K], broken: Option<(Move, Violation)>) -> u32 {
        let number = self.known.len() as u32;
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        self.known.push(Known {
            first: self.next.len() as u32,
            count: u16::try_from(next.len()).expect("a CPU has few moves"),
            parts,
            flags: flag(e.progress, Known::PROGRESS)
                | flag(e.busy, Known::BUSY)
                | flag(broken.is_some(), Known::BREAKS),
            seen: e.seen,
        });
        self.next.extend_from_slice(next);
        self.broken.extend(broken.map(|(mv, v)| (number, mv, v)));
        number
    }
}

/// Where an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// There.
    Known(u32),
    /// To be found out, and kept under these parts.
    Missing(u8),
    /// To be found out for this state alone.
    Whole,
}

/// Slots of one CPU: masked keys and answers.
#[derive(Clone, Debug)]
struct Table<K> {
    slots: Vec<(K, u32)>,
    held: usize,
}

/// An answer that is being found out.
const PENDING: u32 = u32::MAX;
/// Answers that hold for one state.
const PASSING: u32 = 1 << 31;
/// Answers kept at most for one CPU.
const MOST: usize = 1 << 20;

/// The answers of all CPUs.
#[derive(Clone, Debug)]
pub struct Answers<K> {
    tables: Vec<Table<K>>,
    kept: Store<K>,
    passing: Store<K>,
    all: u8,
}

impl<K: Key> Table<K> {
    fn new() -> Self {
        Table { slots: vec![(K::default(), 0); 256], held: 0 }
    }

    #[inline]
    fn slot(&self, key: K) -> usize {
        key.hash() as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn find(&self, key: K) -> Result<u32, usize> {
        let mut at = self.slot(key);
        loop {
            let (k, v) = self.slots[at];
            if k == key {
                return Ok(v);
            }
            if k == K::default() {
                return Err(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn put(&mut self, key: K, v: u32) {
        let at = match self.find(key) {
            Ok(_) => {
                let mut at = self.slot(key);
                while self.slots[at].0 != key {
                    at = (at + 1) & (self.slots.len() - 1);
                }
                at
            }
            Err(at) => {
                self.held += 1;
                at
            }
        };
        self.slots[at] = (key, v);
        if self.held * 2 > self.slots.len() {
            let bigger = vec![(K::default(), 0); self.slots.len() * 4];
            for (k, v) in std::mem::replace(&mut self.slots, bigger) {
                if k != K::default() {
                    let at = self.find(k).expect_err("keys are different");
                    self.slots[at] = (k, v);
                }
            }
        }
    }
}

impl<K: Key> Answers<K> {
    /// None yet, for so many CPUs.
    pub fn new(cpus: usize) -> Self {
        Answers {
            tables: (0..cpus).map(|_| Table::new()).collect(),
            kept: Store::default(),
            passing: Store::default(),
            all: ((2u16 << cpus) - 1) as u8,
        }
    }

    /// The part of the shared words and the CPU's own.
    fn own(&self, cpu: usize) -> u8 {
        1 << cpu | 1 << self.tables.len()
    }

    /// Look for a CPU's answer in a state.
    #[inline]
    pub fn find(&self, cpu: usize, key: K, mask: impl Fn(u8) -> K) -> Lookup {
        let mut parts = self.own(cpu);
        loop {
            match self.tables[cpu].find(key & mask(parts)) {
                Err(_) if self.tables[cpu].held >= MOST => return Lookup::Whole,
                Err(_) | Ok(PENDING) => return Lookup::Missing(parts),
                Ok(number) => {
                    let known = self.kept.known[number as usize];
                    if known.flags & Known::FURTHER == 0 {
                        return Lookup::Known(number);
                    }
                    parts = known.parts;
                    if parts == self.all {
                        return Lookup::Whole;
                    }
                }
            }
        }
    }

    /// Is this answer to be found out, and nobody does?
    pub fn claim(&mut self, cpu: usize, masked: K) -> bool {
        let free = self.tables[cpu].find(masked).is_err();
        if free {
            self.tables[cpu].put(masked, PENDING);
        }
        free
    }

    /// Keep what was claimed. `read` are the parts that decided it, which may be more than it was claimed under.
    pub fn keep(
        &mut self,
        cpu: usize,
        key: K,
        mask: impl Fn(u8) -> K,
        claimed: u8,
        read: u8,
        found: (Expansion, &[K], Option<(Move, Violation)>),
    ) {
        if read != claimed {
            let number = self.kept.push(Expansion::default(), read, &[], None);
            self.kept.known[number as usize].flags = Known::FURTHER;
            self.tables[cpu].put(key & mask(claimed), number);
        }
        if read != self.all {
            let number = self.kept.push(found.0, read, found.1, found.2);
            self.tables[cpu].put(key & mask(read), number);
        }
    }

    /// An answer for one state, until [`Answers::forget_passing`].
    pub fn pass(&mut self, e: Expansion, next: &[K], broken: Option<(Move, Violation)>) -> u32 {
        self.passing.push(e, self.all, next, broken) | PASSING
    }

    /// The answers of single states are no longer needed.
    pub fn forget_passing(&mut self) {
        self.passing.known.clear();
        self.passing.next.clear();
        self.passing.broken.clear();
    }

    /// An answer and the new numbers of the parts it changes.
    #[inline]
    pub fn get(&self, number: u32) -> (Known, &[K]) {
        let store = if number & PASSING == 0 { &self.kept } else { &self.passing };
        let known = store.known[(number & !PASSING) as usize];
        let first = known.first as usize;
        (known, &store.next[first..first + usize::from(known.count)])
    }

    /// The move that breaks a rule.
    pub fn broken(&self, number: u32) -> Option<(Move, Violation)> {
        let store = if number & PASSING == 0 { &self.kept } else { &self.passing };
        store.broken.iter().find(|b| b.0 == number & !PASSING).map(|&(_, mv, v)| (mv, v))
    }

    /// Whether an answer depends on every part.
    pub fn all(&self) -> u8 {
        self.all
    }
}
