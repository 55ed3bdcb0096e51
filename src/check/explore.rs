//! Breadth-first search with exact states: the first violation is the shortest.
//!
//! A state costs its words, four bytes of parent and about 12 bytes of index. The search runs in slices, so a
//! caller can show progress and be interrupted.

use super::machine::{Model, Seen};
use super::model::{Action, Expansion, Move};
use super::reduce::Symmetry;
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

#[inline]
fn insert<const W: usize>(states: &mut States<W>, symmetry: Option<&Symmetry>, n: &[u64; W], from: u32) {
    match symmetry {
        Some(y) => states.insert(&y.canonical(n), from),
        None => states.insert(n, from),
    };
}

/// What one CPU can do, by its own word and the shared one.
struct Cache {
    /// There is one word per CPU and one shared.
    usable: bool,
    own: Vec<usize>,
    shared: usize,
    /// Open addressing: own word, shared word, CPU plus one (0: empty), answer.
    table: Vec<(u64, u64, u32, Known)>,
    held: usize,
    /// The new own and shared words of each action.
    next: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    first: u32,
    count: u32,
    seen: u32,
    progress: bool,
    busy: bool,
}

impl Cache {
    /// Answers kept at most.
    const MOST: usize = 1 << 20;

    fn new(m: &Model) -> Self {
        let cpus = &m.layout.cpus;
        let usable = cpus.iter().all(|c| c.words.1 == 1) && m.layout.words == cpus.len() + 1;
        Cache {
            usable,
            own: cpus.iter().map(|c| c.words.0).collect(),
            shared: if usable { cpus.len() } else { 0 },
            table: vec![(0, 0, 0, Known::default()); 1 << 10],
            held: 0,
            next: Vec::new(),
        }
    }

    #[inline]
    fn slot(&self, cpu: usize, own: u64, shared: u64) -> usize {
        hash(&[own, shared, cpu as u64]) as usize & (self.table.len() - 1)
    }

    #[inline]
    fn find(&self, cpu: usize, own: u64, shared: u64) -> Option<Known> {
        if !self.usable {
            return None;
        }
        let mut at = self.slot(cpu, own, shared);
        loop {
            let e = &self.table[at];
            if e.2 == 0 {
                return None;
            }
            if e.0 == own && e.1 == shared && e.2 == cpu as u32 + 1 {
                return Some(e.3);
            }
            at = (at + 1) & (self.table.len() - 1);
        }
    }

    fn keep(&mut self, cpu: usize, own: u64, shared: u64, known: Known) {
        if self.held == Self::MOST {
            return;
        }
        if self.held * 2 >= self.table.len() {
            let bigger = vec![(0, 0, 0, Known::default()); self.table.len() * 4];
            for e in std::mem::replace(&mut self.table, bigger) {
                if e.2 != 0 {
                    self.put(e);
                }
            }
        }
        self.held += 1;
        self.put((own, shared, cpu as u32 + 1, known));
    }

    fn put(&mut self, e: (u64, u64, u32, Known)) {
        let mut at = self.slot(e.2 as usize - 1, e.0, e.1);
        while self.table[at].2 != 0 {
            at = (at + 1) & (self.table.len() - 1);
        }
        self.table[at] = e;
    }
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
    cache: Cache,
    asks: bool,
    symmetry: Option<Symmetry>,
    /// Soft finding to look for, and the state that showed it first.
    pub first_wrong_gs: Option<usize>,
}

impl<'a, const W: usize> Search<'a, W> {
    /// Start.
    pub fn new(m: &'a Model, limit_bytes: usize, symmetric: bool) -> Self {
        let mut states = States::default();
        let symmetry = Some(Symmetry::new(m)).filter(|s| symmetric && !s.is_trivial());
        let first = m.initial();
        states.insert(&symmetry.as_ref().map_or(first, |y| y.canonical(&first)), 0);
        Search {
            m,
            states,
            next: 0,
            level_end: 1,
            counts: Counts { states: 1, ..Counts::default() },
            limit: limit_bytes,
            asks: m.scope.never.is_some() || m.scope.exists.is_some(),
            symmetry,
            cache: Cache::new(m),
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
            let (e, transitions, broken) = self.expand(&s);
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
                path.push(self.breaking(&path, mv, v));
                return Some(End::Violated(v, path));
            }
            if self.asks
                && let Some(v) = self.m.asked(&s, &e)
            {
                return Some(End::Violated(v, self.path(self.next)));
            }
            if e.deadlock {
                return Some(End::Violated(Violation::Deadlock, self.path(self.next)));
            }
            self.next += 1;
        }
        // A run whose value overflows says nothing; a violation of another run is one all the same.
        Some(if self.counts.seen & Seen::OVERFLOW != 0 { End::Cut(Cut::Overflow) } else { End::Complete })
    }

    /// Insert every successor of a state. What one CPU can do mostly depends on its own word and the shared one
    /// alone, and few pairs of these make up many states: such answers are kept.
    #[inline]
    fn expand(&mut self, s: &[u64; W]) -> (Expansion, u64, Option<(Move, Violation)>) {
        let from = self.next as u32;
        let mut all = Expansion::default();
        let mut transitions = 0;
        let shared = s[self.cache.shared];
        for cpu in 0..self.m.layout.cpus.len() {
            let own = s[self.cache.own[cpu]];
            if let Some(known) = self.cache.find(cpu, own, shared) {
                all.seen |= known.seen;
                all.progress |= known.progress;
                all.busy |= known.busy;
                for k in known.first..known.first + known.count {
                    let (o, h) = self.cache.next[k as usize];
                    let mut n = *s;
                    n[self.cache.own[cpu]] = o;
                    n[self.cache.shared] = h;
                    insert(&mut self.states, self.symmetry.as_ref(), &n, from);
                }
                transitions += u64::from(known.count);
                continue;
            }
            let mut e = Expansion::default();
            let mut broken = None;
            let first = self.cache.next.len();
            let (cache, states, symmetry) = (&mut self.cache, &mut self.states, self.symmetry.as_ref());
            self.m.of_cpu(s, cpu, &mut e, &mut |mv, next| {
                transitions += 1;
                match next {
                    Ok(n) => {
                        cache.next.push((n[cache.own[cpu]], n[cache.shared]));
                        insert(states, symmetry, &n, from);
                        true
                    }
                    Err(v) => {
                        broken = Some((mv, v));
                        false
                    }
                }
            });
            all.seen |= e.seen;
            all.progress |= e.progress;
            all.busy |= e.busy;
            if e.foreign || broken.is_some() || !self.cache.usable {
                self.cache.next.truncate(first);
            } else {
                let count = (self.cache.next.len() - first) as u32;
                let known =
                    Known { first: first as u32, count, seen: e.seen, progress: e.progress, busy: e.busy };
                self.cache.keep(cpu, own, shared, known);
            }
            if broken.is_some() {
                return (all, transitions, broken);
            }
        }
        all.deadlock = all.busy && !all.progress;
        (all, transitions, None)
    }

    /// The move that breaks `v` after a path: `mv`, unless CPUs were renamed on the way.
    fn breaking(&self, path: &[Move], mv: Move, v: Violation) -> Move {
        if self.symmetry.is_none() {
            return mv;
        }
        let mut found = None;
        self.m.each_successor(&self.end_of(path), &mut |m, next| {
            if next == Err(v) && found.is_none() {
                found = Some(m);
            }
            found.is_none()
        });
        found.unwrap_or(mv)
    }

    /// How a state was reached, every op a move of its own.
    ///
    /// Under symmetry the states on the way are representatives: what is followed is a run whose states they
    /// represent.
    pub fn path(&self, to: usize) -> Vec<Move> {
        let mut goals = Vec::new();
        let mut at = to;
        while at != 0 {
            goals.push(*self.states.get(at));
            at = self.states.parent(at);
        }
        let canonical = |s: &[u64; W]| self.symmetry.as_ref().map_or(*s, |y| y.canonical(s));
        let plain = Model { fuse: false, ..self.m.clone() };
        let mut s = self.m.initial();
        let mut out = Vec::new();
        for goal in goals.into_iter().rev() {
            let mut found = None;
            self.m.each_successor(&s, &mut |mv, next| {
                if let Ok(n) = next
                    && canonical(&n) == goal
                {
                    found = Some((mv, n));
                }
                found.is_none()
            });
            let (mv, end) = found.expect("a state is a successor of its parent");
            let mut next = mv;
            loop {
                s = plain.after(&s, next).expect("a fused move is made of plain ones");
                out.push(next);
                if s == end {
                    break;
                }
                next = (mv.0, Action::Step);
            }
        }
        out
    }

    /// The state a path of moves leads to, unlike the representative that stands for it.
    pub fn end_of(&self, path: &[Move]) -> [u64; W] {
        let plain = Model { fuse: false, ..self.m.clone() };
        path.iter()
            .fold(self.m.initial(), |s, &mv| plain.after(&s, mv).expect("the path was found by running it"))
    }
}
