//! Breadth-first search with exact states: the first violation is the shortest.
//!
//! A state costs its words, four bytes of parent and about 12 bytes of index. The search runs in slices, so a
//! caller can show progress and be interrupted.

use super::machine::{Model, Seen};
use super::model::{Action, Move};
use crate::kernel::step::Violation;

/// A set of packed states, in order of discovery.
pub struct States<const W: usize> {
    all: Vec<[u64; W]>,
    parent: Vec<u32>,
    /// High half: some bits of the hash; low half: number of the state plus one.
    table: Vec<u64>,
}

/// Mix the words of a state.
#[inline]
pub fn hash<const W: usize>(s: &[u64; W]) -> u64 {
    let mut h = 0x9e37_79b9_7f4a_7c15u64;
    for &w in s {
        let x = u128::from(h ^ w) * 0xd6e8_feb8_6659_fd93_u128;
        h = (x as u64) ^ ((x >> 64) as u64);
    }
    let x = u128::from(h ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db_u128;
    (x as u64) ^ ((x >> 64) as u64)
}

impl<const W: usize> Default for States<W> {
    fn default() -> Self {
        States { all: Vec::new(), parent: Vec::new(), table: vec![0; 1 << 10] }
    }
}

impl<const W: usize> States<W> {
    /// How many.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// None yet.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// By number.
    #[inline]
    pub fn get(&self, i: usize) -> &[u64; W] {
        &self.all[i]
    }

    /// The state it was found from; the first state is its own parent.
    pub fn parent(&self, i: usize) -> usize {
        self.parent[i] as usize
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.all.capacity() * W * 8 + self.parent.capacity() * 4 + self.table.capacity() * 8
    }

    /// Add; `false` if it was there.
    #[inline]
    pub fn insert(&mut self, s: &[u64; W], parent: u32) -> bool {
        if self.all.len() * 8 >= self.table.len() * 7 {
            self.grow();
        }
        let h = hash(s);
        let tag = h & 0xffff_ffff_0000_0000;
        let len = self.table.len();
        let mut at = slot_of(h, len);
        loop {
            let e = self.table[at];
            if e == 0 {
                self.table[at] = tag | (self.all.len() as u64 + 1);
                self.all.push(*s);
                self.parent.push(parent);
                return true;
            }
            if e & 0xffff_ffff_0000_0000 == tag && self.all[(e & 0xffff_ffff) as usize - 1] == *s {
                return false;
            }
            at += 1;
            if at == len {
                at = 0;
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let len = self.table.len() * 3 / 2;
        let mut table = vec![0u64; len];
        for (i, s) in self.all.iter().enumerate() {
            let h = hash(s);
            let mut at = slot_of(h, len);
            while table[at] != 0 {
                at += 1;
                if at == len {
                    at = 0;
                }
            }
            table[at] = h & 0xffff_ffff_0000_0000 | (i as u64 + 1);
        }
        self.table = table;
    }
}

/// Low bits choose the slot (the high half is the tag), scaled to any table length.
#[inline]
fn slot_of(h: u64, len: usize) -> usize {
    ((u128::from(h.rotate_right(32)) * len as u128) >> 64) as usize
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every state was seen.
    Complete,
    /// A rule is broken; the last move breaks it, or leads to nothing (deadlock).
    Violated(Violation, Vec<Move>),
    /// Why nothing can be said.
    Cut(Cut),
}

/// Why a search stopped early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Memory limit.
    Memory,
    /// A value overflowed its width.
    Overflow,
    /// Store buffers were too shallow: repeat with a deeper one.
    Buffer,
    /// The caller gave up.
    Stopped,
}

/// What a search counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Distinct states.
    pub states: u64,
    /// Transitions.
    pub transitions: u64,
    /// Levels.
    pub depth: u32,
    /// [`Seen`] bits.
    pub seen: u32,
}

/// A search in progress.
pub struct Search<'a, const W: usize> {
    m: &'a Model,
    /// States.
    pub states: States<W>,
    next: usize,
    level_end: usize,
    /// Counters.
    pub counts: Counts,
    limit: usize,
    /// Soft finding to look for, and the state that showed it first.
    pub first_wrong_gs: Option<usize>,
}

impl<'a, const W: usize> Search<'a, W> {
    /// Start.
    pub fn new(m: &'a Model, limit_bytes: usize) -> Self {
        let mut states = States::default();
        states.insert(&m.initial(), 0);
        Search {
            m,
            states,
            next: 0,
            level_end: 1,
            counts: Counts { states: 1, ..Counts::default() },
            limit: limit_bytes,
            first_wrong_gs: None,
        }
    }

    /// Go on for about `budget` states; `None` if there is more to do.
    pub fn run(&mut self, budget: usize) -> Option<End> {
        let stop = self.next + budget;
        while self.next < self.states.len() {
            if self.next >= stop {
                return None;
            }
            if self.next == self.level_end {
                self.level_end = self.states.len();
                self.counts.depth += 1;
                if self.states.bytes() > self.limit || self.states.len() > u32::MAX as usize / 2 {
                    return Some(End::Cut(Cut::Memory));
                }
            }
            let s = *self.states.get(self.next);
            let from = self.next as u32;
            let mut broken = None;
            let states = &mut self.states;
            let mut transitions = 0;
            let e = self.m.successors(&s, &mut |mv, next| {
                transitions += 1;
                match next {
                    Ok(n) => {
                        states.insert(&n, from);
                        true
                    }
                    Err(v) => {
                        broken = Some((mv, v));
                        false
                    }
                }
            });
            self.counts.transitions += transitions;
            self.counts.states = self.states.len() as u64;
            if e.seen & Seen::WRONG_GS != 0 && self.first_wrong_gs.is_none() {
                self.first_wrong_gs = Some(self.next);
            }
            self.counts.seen |= e.seen;
            if e.seen & Seen::FULL != 0 {
                return Some(End::Cut(Cut::Buffer));
            }
            if let Some((mv, v)) = broken {
                let mut path = self.path(self.next);
                path.push(mv);
                return Some(End::Violated(v, path));
            }
            if e.deadlock {
                return Some(End::Violated(Violation::Deadlock, self.path(self.next)));
            }
            if e.seen & Seen::OVERFLOW != 0 {
                return Some(End::Cut(Cut::Overflow));
            }
            self.next += 1;
        }
        Some(End::Complete)
    }

    /// How a state was reached, every op a move of its own.
    pub fn path(&self, to: usize) -> Vec<Move> {
        let mut back = Vec::new();
        let mut at = to;
        while at != 0 {
            let parent = self.states.parent(at);
            let goal = *self.states.get(at);
            let mut found = None;
            self.m.each_successor(self.states.get(parent), &mut |mv, next| {
                if next == Ok(goal) {
                    found = Some(mv);
                }
                found.is_none()
            });
            back.push((found.expect("a state is a successor of its parent"), goal));
            at = parent;
        }
        let plain = Model { fuse: false, ..self.m.clone() };
        let mut s = *self.states.get(0);
        let mut out = Vec::new();
        for (mv, goal) in back.into_iter().rev() {
            let mut next = mv;
            loop {
                s = plain.after(&s, next).expect("a fused move is made of plain ones");
                out.push(next);
                if s == goal {
                    break;
                }
                next = (mv.0, Action::Step);
            }
        }
        out
    }
}
