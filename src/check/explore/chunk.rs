//! A piece of a block: what a thread is given of it and what it finds.

use std::collections::BTreeSet;

use crate::check::answers::{Asked, Pair};
use crate::check::model::{Expansion, Move};
use crate::check::parts::Key;
use crate::check::visited::{Candidates, Piece};
use crate::kernel::step::Violation;

/// An answer that must be found out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// Its number from the block's first on.
    pub(super) state: u32,
    pub(super) cpu: u8,
    pub(super) asked: Asked,
    /// Parts to keep the answer under; 0 to keep it for this state alone.
    pub(super) parts: u8,
    pub(super) chunk: u8,
}

/// An answer in words.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    /// Successors in words.
    pub(super) count: u32,
    pub(super) e: Expansion,
    pub(super) broken: Option<(Move, Violation)>,
}

/// Answers to a task: about the step and the events if it asks for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) task: Task,
    /// `None` where it was not asked, or nothing comes after a broken rule.
    pub(super) step: Option<Answer>,
    pub(super) events: Option<Answer>,
}

/// What ends a search at a state.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    Buffer,
    Broken(Move, Violation),
    Shown(Violation),
}

/// A piece of a block. Threads write to their own at every candidate: no two may share a cache line.
#[derive(Clone, Debug)]
#[repr(align(128))]
pub(super) struct Chunk<K> {
    pub(super) from: usize,
    pub(super) to: usize,
    /// By state and CPU.
    pub(super) answers: Vec<Pair>,
    /// All were known at first, and the successors are written.
    pub(super) written: bool,
    /// Those not known yet.
    pub(super) open: Vec<u32>,
    pub(super) tasks: Vec<Task>,
    pub(super) work: Vec<Task>,
    pub(super) found: Vec<Found>,
    /// Successors of what was found, in words, and whether they come about by themselves.
    pub(super) words: Vec<u64>,
    pub(super) happens: Vec<bool>,
    pub(super) candidates: Candidates<K>,
    pub(super) transitions: u64,
    pub(super) seen: u32,
    pub(super) wrong_gs: Option<usize>,
    /// What the scope observes of ends among its states.
    pub(super) ends: BTreeSet<Vec<u64>>,
    pub(super) stop: Option<(usize, Stop)>,
    /// Those of the candidates that were new.
    pub(super) piece: Piece<K>,
}

impl<K: Key> Default for Chunk<K> {
    fn default() -> Self {
        Chunk {
            from: 0,
            to: 0,
            answers: Vec::new(),
            written: false,
            open: Vec::new(),
            tasks: Vec::new(),
            work: Vec::new(),
            found: Vec::new(),
            words: Vec::new(),
            happens: Vec::new(),
            candidates: Candidates::default(),
            transitions: 0,
            seen: 0,
            wrong_gs: None,
            ends: BTreeSet::new(),
            stop: None,
            piece: Piece::default(),
        }
    }
}

impl<K: Key> Chunk<K> {
    pub(super) fn clear(&mut self, from: usize, to: usize) {
        (self.from, self.to) = (from, to);
        self.answers.clear();
        self.open.clear();
        self.tasks.clear();
        self.candidates.clear();
        (self.transitions, self.seen, self.wrong_gs, self.stop) = (0, 0, None, None);
        self.ends.clear();
    }
}
