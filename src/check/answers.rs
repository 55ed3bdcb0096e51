//! What one CPU can do, kept by the few words that decide it.
//!
//! It mostly depends on the CPU's own words and the shared ones alone, and few pairs of these make up many
//! states. Where it depends on more, it is taken apart into the next step of the CPU's program and everything else,
//! which seldom both do. An answer that read further CPUs is kept under their words too; one that read all of them
//! is not kept.

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
    const APART: u8 = 16;

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

/// What a CPU can do in a state.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a, K> {
    /// What was seen on the way.
    pub e: Expansion,
    /// The new numbers of the parts that each move changes.
    pub next: &'a [K],
    /// By move: it comes about by itself some day ([`Model::happens`]).
    ///
    /// [`Model::happens`]: super::machine::Model::happens
    pub happens: &'a [bool],
    /// The move that breaks a rule, after these.
    pub broken: Option<(Move, Violation)>,
}

/// Answers in a row, and the new numbers of the parts they change.
#[derive(Clone, Debug)]
struct Store<K> {
    known: Vec<Known>,
    next: Vec<K>,
    /// By successor: it comes about by itself some day.
    happens: Vec<bool>,
    broken: Vec<(u32, Move, Violation)>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Store { known: Vec::new(), next: Vec::new(), happens: Vec::new(), broken: Vec::new() }
    }
}

impl<K: Key> Store<K> {
    fn push(&mut self, parts: u8, Outcome { e, next, happens, broken }: Outcome<'_, K>) -> u32 {
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
        self.happens.extend_from_slice(happens);
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
    Alone,
}

/// What is asked about a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Everything it can do.
    All,
    /// What its program does next.
    Step,
    /// Everything else.
    Events,
}

/// Answers about one CPU in one state: everything, or step and events apart.
pub type Pair = [u32; 2];
/// Not known yet.
pub const UNKNOWN: u32 = u32::MAX;
/// No second answer: the first says everything.
pub const NONE: u32 = u32::MAX - 1;

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
/// Answers kept at most for one CPU and question.
const MOST: usize = 1 << 20;

/// The answers of all CPUs.
#[derive(Clone, Debug)]
pub struct Answers<K> {
    cpus: usize,
    /// By question and CPU.
    tables: [Vec<Table<K>>; 3],
    kept: Store<K>,
    passing: Store<K>,
    all: u8,
}

impl<K: Key> Table<K> {
    fn new(slots: usize) -> Self {
        Table { slots: vec![(K::default(), 0); slots], held: 0 }
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
            cpus,
            // Few are taken apart.
            tables: [256, 32, 32].map(|slots| (0..cpus).map(|_| Table::new(slots)).collect()),
            kept: Store::default(),
            passing: Store::default(),
            all: ((2u16 << cpus) - 1) as u8,
        }
    }

    /// The same answers under other keys.
    pub fn translated<L: Key>(&self, key: impl Fn(K) -> L) -> Answers<L> {
        let table = |t: &Table<K>| {
            let mut new = Table { slots: vec![(L::default(), 0); t.slots.len()], held: 0 };
            for &(k, v) in t.slots.iter().filter(|(k, v)| *k != K::default() && *v != PENDING) {
                new.put(key(k), v);
            }
            new
        };
        Answers {
            cpus: self.cpus,
            tables: self.tables.each_ref().map(|of| of.iter().map(table).collect()),
            kept: Store {
                known: self.kept.known.clone(),
                next: self.kept.next.iter().map(|&k| key(k)).collect(),
                happens: self.kept.happens.clone(),
                broken: self.kept.broken.clone(),
            },
            passing: Store::default(),
            all: self.all,
        }
    }

    /// Bytes of what is kept.
    pub fn bytes(&self) -> usize {
        let slots: usize = self.tables.iter().flatten().map(|t| t.slots.len()).sum();
        slots * size_of::<(K, u32)>()
            + self.kept.known.len() * size_of::<Known>()
            + self.kept.next.len() * (size_of::<K>() + 1)
    }

    /// The part of the shared words and the CPU's own.
    #[inline]
    pub fn own(&self, cpu: usize) -> u8 {
        1 << cpu | 1 << self.cpus
    }

    /// Look for the answers about a CPU in a state; `missing` hears of those to be found out. `false` if there are
    /// any.
    #[inline]
    pub fn find(
        &self,
        cpu: usize,
        key: K,
        mask: impl Fn(u8) -> K + Copy,
        pair: &mut Pair,
        mut missing: impl FnMut(Asked, u8),
    ) -> bool {
        let own = self.own(cpu);
        if own == self.all {
            // One CPU: its words and the shared ones are the state.
            missing(Asked::All, 0);
            return false;
        }
        let table = &self.tables[Asked::All as usize][cpu];
        match table.find(key & mask(own)) {
            Err(_) if table.held >= MOST => missing(Asked::All, 0),
            Err(_) | Ok(PENDING) => missing(Asked::All, own),
            Ok(number) if self.kept.known[number as usize].flags & Known::APART == 0 => {
                *pair = [number, NONE];
                return true;
            }
            Ok(_) => {
                *pair = [UNKNOWN; 2];
                for (at, asked) in pair.iter_mut().zip([Asked::Step, Asked::Events]) {
                    match self.look(cpu, asked, key, mask) {
                        Lookup::Known(number) => *at = number,
                        Lookup::Missing(parts) => missing(asked, parts),
                        Lookup::Alone => missing(asked, 0),
                    }
                }
                return pair.iter().all(|&n| n != UNKNOWN);
            }
        }
        false
    }

    fn look(&self, cpu: usize, asked: Asked, key: K, mask: impl Fn(u8) -> K) -> Lookup {
        let table = &self.tables[asked as usize][cpu];
        let mut parts = self.own(cpu);
        loop {
            match table.find(key & mask(parts)) {
                Err(_) if table.held >= MOST => return Lookup::Alone,
                Err(_) | Ok(PENDING) => return Lookup::Missing(parts),
                Ok(number) => {
                    let known = self.kept.known[number as usize];
                    if known.flags & Known::FURTHER == 0 {
                        return Lookup::Known(number);
                    }
                    parts = known.parts;
                    if parts == self.all {
                        return Lookup::Alone;
                    }
                }
            }
        }
    }

    /// Is this answer to be found out, and nobody does?
    pub fn claim(&mut self, cpu: usize, asked: Asked, masked: K) -> bool {
        let table = &mut self.tables[asked as usize][cpu];
        let free = table.find(masked).is_err();
        if free {
            table.put(masked, PENDING);
        }
        free
    }

    fn mark(&mut self, cpu: usize, asked: Asked, masked: K, parts: u8, flag: u8) {
        let nothing = Outcome { e: Expansion::default(), next: &[], happens: &[], broken: None };
        let number = self.kept.push(parts, nothing);
        self.kept.known[number as usize].flags = flag;
        self.tables[asked as usize][cpu].put(masked, number);
    }

    /// Keep that step and events are asked about apart, for all the CPU can do depends on more than its own words.
    pub fn take_apart(&mut self, cpu: usize, masked: K) {
        self.mark(cpu, Asked::All, masked, self.own(cpu), Known::APART);
    }

    /// Keep what was claimed. `read` are the parts that decided it, which may be more than it was claimed under.
    pub fn keep(
        &mut self,
        (cpu, asked): (usize, Asked),
        key: K,
        mask: impl Fn(u8) -> K,
        claimed: u8,
        read: u8,
        found: Outcome<'_, K>,
    ) {
        if read != claimed {
            self.mark(cpu, asked, key & mask(claimed), read, Known::FURTHER);
        }
        if read != self.all {
            let number = self.kept.push(read, found);
            self.tables[asked as usize][cpu].put(key & mask(read), number);
        }
    }

    /// An answer for one state, until [`Answers::forget_passing`].
    pub fn pass(&mut self, found: Outcome<'_, K>) -> u32 {
        self.passing.push(self.all, found) | PASSING
    }

    /// The answers of single states are no longer needed.
    pub fn forget_passing(&mut self) {
        self.passing.known.clear();
        self.passing.next.clear();
        self.passing.happens.clear();
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

    /// By successor of a kept answer: it comes about by itself some day.
    pub fn happens(&self, number: u32) -> &[bool] {
        let known = self.kept.known[number as usize];
        &self.kept.happens[known.first as usize..][..usize::from(known.count)]
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
