//! Breadth-first search with exact states: the first violation is the shortest.
//!
//! States are expanded in blocks of the order of discovery. A block is looked up (what can each CPU do), answered
//! where nothing is known yet, written out as candidates and inserted; each of the four can be cut among threads.
//! Invariant: states, their order and their parents are those of a search that takes one state after the other.

use super::answers::{Answers, Lookup};
use super::machine::{Model, Seen};
use super::model::{Action, Expansion, Move};
use super::parts::{Full, Key, Parts};
use super::threads;
use super::visited::{Bucket, Candidates, Visited, shard_of};
use super::with_words;
use crate::kernel::step::Violation;

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

/// States between two looks at the memory limit. Levels end blocks too.
const ROUND: usize = 1 << 16;
/// States of a block, for each thread.
const BLOCK: usize = 1 << 12;

/// A CPU whose answer in a state must be found out.
#[derive(Clone, Copy, Debug)]
struct Task {
    state: u32,
    cpu: u8,
    /// Parts to keep the answer under; 0 to keep it for this state alone.
    parts: u8,
    chunk: u8,
}

/// An answer in words.
#[derive(Clone, Copy, Debug)]
struct Found {
    task: Task,
    /// Successors in words.
    count: u32,
    e: Expansion,
    broken: Option<(Move, Violation)>,
}

/// What ends a search at a state.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Buffer,
    Broken(Move, Violation),
    Shown(Violation),
}

/// A piece of a block, for one thread.
#[derive(Clone, Debug)]
struct Chunk<K> {
    from: usize,
    to: usize,
    /// By state and CPU: the number of its answer.
    answers: Vec<u32>,
    /// Those not known yet.
    open: Vec<u32>,
    tasks: Vec<Task>,
    work: Vec<Task>,
    found: Vec<Found>,
    words: Vec<u64>,
    /// Candidates by shard.
    buckets: Vec<Bucket<K>>,
    /// By state: candidates up to it.
    ends: Vec<u32>,
    transitions: u64,
    seen: u32,
    wrong_gs: Option<usize>,
    stop: Option<(usize, Stop)>,
}

impl<K: Key> Chunk<K> {
    fn new(shards: usize) -> Self {
        Chunk {
            from: 0,
            to: 0,
            answers: Vec::new(),
            open: Vec::new(),
            tasks: Vec::new(),
            work: Vec::new(),
            found: Vec::new(),
            words: Vec::new(),
            buckets: vec![Bucket { keys: Vec::new(), places: Vec::new() }; shards],
            ends: Vec::new(),
            transitions: 0,
            seen: 0,
            wrong_gs: None,
            stop: None,
        }
    }
}

const UNKNOWN: u32 = u32::MAX;

/// A search in progress.
#[derive(Debug)]
pub struct Search<'a, K> {
    pub(super) m: &'a Model,
    pub(super) parts: Parts<K>,
    answers: Answers<K>,
    /// States.
    pub visited: Visited<K>,
    chunks: Vec<Chunk<K>>,
    next: usize,
    level_end: usize,
    /// Counters.
    pub counts: Counts,
    limit: usize,
    asks: bool,
    /// Soft finding to look for, and the state that showed it first.
    pub first_wrong_gs: Option<usize>,
}

/// A slice of a search is over.
#[derive(Debug)]
pub enum Slice {
    /// There is more to do.
    More,
    /// It ended.
    Done(End),
    /// Keys must be wider to go on: [`Search::with_keys`].
    Narrow,
}

impl<'a, K: Key> Search<'a, K> {
    /// Start.
    pub fn new(m: &'a Model, limit_bytes: usize, symmetric: bool, threads: usize) -> Self {
        let mut parts = Parts::new(m, symmetric);
        let first: Vec<u64> = with_words!(m, W => m.initial::<W>().to_vec());
        let first = parts.intern(&first, u8::MAX).expect("a key holds one number of each part");
        Search {
            m,
            answers: Answers::new(m.layout.cpus.len()),
            visited: Visited::new(parts.canonical(first), threads),
            chunks: vec![Chunk::new(threads); threads],
            parts,
            next: 0,
            level_end: 1,
            counts: Counts { states: 1, ..Counts::default() },
            limit: limit_bytes,
            asks: m.scope.never.is_some() || m.scope.exists.is_some(),
            first_wrong_gs: None,
        }
    }

    /// The same search, as far as it is, with keys of another width.
    pub fn with_keys<L: Key>(&self) -> Search<'a, L> {
        let parts: Parts<L> = self.parts.with_keys();
        let old = self.parts.fields();
        Search {
            m: self.m,
            answers: Answers::new(self.m.layout.cpus.len()),
            visited: self.visited.translated(|k| parts.translate(old, k)),
            chunks: vec![Chunk::new(self.visited.shards()); self.visited.shards()],
            parts,
            next: self.next,
            level_end: self.level_end,
            counts: self.counts,
            limit: self.limit,
            asks: self.asks,
            first_wrong_gs: self.first_wrong_gs,
        }
    }

    /// Go on for about `budget` states.
    pub fn run(&mut self, budget: usize) -> Slice {
        let stop = self.next + budget;
        while self.next < self.visited.count() {
            if self.next >= stop {
                return Slice::More;
            }
            let level = self.next == self.level_end;
            if level {
                self.level_end = self.visited.count();
                self.counts.depth += 1;
            }
            if (level || self.next.is_multiple_of(ROUND))
                && (Visited::<K>::bytes(self.visited.count()) > self.limit
                    || self.visited.count() > u32::MAX as usize / 2)
            {
                return Slice::Done(End::Cut(Cut::Memory));
            }
            let round = (self.next / ROUND + 1) * ROUND;
            let to = self.level_end.min(round).min(self.next + BLOCK * self.chunks.len());
            match self.block(to) {
                Ok(Some(end)) => return Slice::Done(end),
                Ok(None) => self.next = to,
                // Nothing of the block is inserted yet.
                Err(Full) => {
                    let old = self.parts.fields().to_vec();
                    if !self.parts.reshape() {
                        return Slice::Narrow;
                    }
                    self.visited = self.visited.translated(|k| self.parts.translate(&old, k));
                    self.answers = Answers::new(self.m.layout.cpus.len());
                }
            }
        }
        // A run whose value overflows says nothing; a violation of another run is one all the same.
        let overflow = self.counts.seen & Seen::OVERFLOW != 0;
        Slice::Done(if overflow { End::Cut(Cut::Overflow) } else { End::Complete })
    }

    /// Expand the states from `next` to `to`.
    fn block(&mut self, to: usize) -> Result<Option<End>, Full> {
        let n = to - self.next;
        let mut chunks = std::mem::take(&mut self.chunks);
        let pieces = if n < threads::WORTH / 4 { 1 } else { chunks.len() };
        let apart = pieces > 1;
        for (i, c) in chunks[..pieces].iter_mut().enumerate() {
            c.from = self.next + n * i / pieces;
            c.to = self.next + n * (i + 1) / pieces;
        }
        self.answers.forget_passing();
        if let Err(full) = self.answer(&mut chunks[..pieces]) {
            self.chunks = chunks;
            return Err(full);
        }
        threads::each(&mut chunks[..pieces], apart, |_, c| self.write(c));
        let last = chunks[..pieces].iter().position(|c| c.stop.is_some()).map_or(pieces, |i| i + 1);
        let candidates: Vec<_> = chunks[..last]
            .iter()
            .map(|c| Candidates { from: c.from, ends: &c.ends, buckets: &c.buckets })
            .collect();
        self.visited.insert(&candidates);
        self.counts.states = self.visited.count() as u64;
        for c in &chunks[..last] {
            self.counts.transitions += c.transitions;
            self.counts.seen |= c.seen;
            self.first_wrong_gs = self.first_wrong_gs.or(c.wrong_gs);
        }
        let stop = chunks[last - 1].stop;
        self.chunks = chunks;
        Ok(stop.map(|(state, stop)| self.end(state, stop)))
    }

    /// Find out what each CPU can do in each state of the chunks.
    fn answer(&mut self, chunks: &mut [Chunk<K>]) -> Result<(), Full> {
        let cpus = self.m.layout.cpus.len();
        for c in chunks.iter_mut() {
            c.answers.clear();
            c.answers.resize((c.to - c.from) * cpus, UNKNOWN);
            c.open.clear();
        }
        let mut again = false;
        loop {
            let many =
                chunks.iter().map(|c| if again { c.open.len() } else { c.answers.len() }).sum::<usize>();
            threads::each(chunks, many > threads::WORTH, |i, c| self.look_up(i as u8, c, again));
            again = true;
            let mut tasks: Vec<Task> = Vec::new();
            for c in chunks.iter_mut() {
                for task in c.tasks.drain(..) {
                    let key = self.visited.get(task.state as usize);
                    let cpu = usize::from(task.cpu);
                    if task.parts == 0 || self.answers.claim(cpu, key & self.parts.mask(task.parts)) {
                        tasks.push(task);
                    }
                }
            }
            if tasks.is_empty() {
                return Ok(());
            }
            let (n, all) = (chunks.len(), tasks.len());
            for (i, c) in chunks.iter_mut().enumerate() {
                c.work.clear();
                c.work.extend_from_slice(&tasks[all * i / n..all * (i + 1) / n]);
            }
            threads::each(chunks, all > threads::WORTH / 16, |_, c| {
                with_words!(self.m, W => self.find_out::<W>(c));
            });
            for i in 0..n {
                let found = std::mem::take(&mut chunks[i].found);
                let words = std::mem::take(&mut chunks[i].words);
                let done = self.keep(chunks, &found, &words);
                chunks[i].found = found;
                chunks[i].words = words;
                done?;
            }
        }
    }

    /// Look for known answers.
    fn look_up(&self, chunk: u8, c: &mut Chunk<K>, again: bool) {
        let cpus = self.m.layout.cpus.len();
        let mask = |parts| self.parts.mask(parts);
        let Chunk { from, to, answers, open, tasks, .. } = c;
        let mut miss = |state: usize, cpu: usize, parts: u8| {
            tasks.push(Task { state: state as u32, cpu: cpu as u8, parts, chunk });
        };
        if again {
            open.retain(|&at| {
                if answers[at as usize] != UNKNOWN {
                    return false;
                }
                let (state, cpu) = (*from + at as usize / cpus, at as usize % cpus);
                match self.answers.find(cpu, self.visited.get(state), mask) {
                    Lookup::Known(number) => answers[at as usize] = number,
                    Lookup::Missing(parts) => miss(state, cpu, parts),
                    Lookup::Whole => miss(state, cpu, 0),
                }
                answers[at as usize] == UNKNOWN
            });
            return;
        }
        let mut at = 0;
        for state in *from..*to {
            let key = self.visited.get(state);
            for cpu in 0..cpus {
                match self.answers.find(cpu, key, mask) {
                    Lookup::Known(number) => answers[at] = number,
                    Lookup::Missing(parts) => {
                        miss(state, cpu, parts);
                        open.push(at as u32);
                    }
                    Lookup::Whole => {
                        miss(state, cpu, 0);
                        open.push(at as u32);
                    }
                }
                at += 1;
            }
        }
    }

    /// Run the model for a chunk's tasks.
    fn find_out<const W: usize>(&self, c: &mut Chunk<K>) {
        let words = self.m.layout.words;
        c.found.clear();
        c.words.clear();
        for &task in &c.work {
            let mut s = [0; W];
            self.parts.decode(self.visited.get(task.state as usize), &mut s);
            let (mut count, mut broken) = (0, None);
            let mut e = Expansion::default();
            self.m.of_cpu(&s, usize::from(task.cpu), &mut e, &mut |mv, next| match next {
                Ok(n) => {
                    count += 1;
                    c.words.extend_from_slice(&n[..words]);
                    true
                }
                Err(v) => {
                    broken = Some((mv, v));
                    false
                }
            });
            c.found.push(Found { task, count, e, broken });
        }
    }

    /// Give numbers to the words of new answers.
    fn keep(&mut self, chunks: &mut [Chunk<K>], found: &[Found], words: &[u64]) -> Result<(), Full> {
        let cpus = self.m.layout.cpus.len();
        let width = self.m.layout.words;
        let mut words = words.chunks_exact(width);
        let mut next = Vec::new();
        for f in found {
            let (cpu, claimed) = (usize::from(f.task.cpu), f.task.parts);
            let read = f.e.others | 1 << cpu | 1 << cpus | claimed;
            let set = if claimed == 0 { self.answers.all() } else { read };
            next.clear();
            for _ in 0..f.count {
                next.push(self.parts.intern(words.next().expect("counted"), set)?);
            }
            if claimed == 0 || read == self.answers.all() {
                let chunk = &mut chunks[usize::from(f.task.chunk)];
                let at = (f.task.state as usize - chunk.from) * cpus + cpu;
                chunk.answers[at] = self.answers.pass(f.e, &next, f.broken);
            }
            if claimed != 0 {
                let key = self.visited.get(f.task.state as usize);
                let parts = &self.parts;
                self.answers.keep(cpu, key, |set| parts.mask(set), claimed, read, (f.e, &next, f.broken));
            }
        }
        Ok(())
    }

    /// Write the successors of a chunk's states, up to the first state that ends the search.
    fn write(&self, c: &mut Chunk<K>) {
        let cpus = self.m.layout.cpus.len();
        let shards = c.buckets.len();
        for b in &mut c.buckets {
            b.keys.clear();
            b.places.clear();
        }
        c.ends.clear();
        (c.transitions, c.seen, c.wrong_gs, c.stop) = (0, 0, None, None);
        let mut place = 0u32;
        let mut answers = c.answers.chunks_exact(cpus);
        for state in c.from..c.to {
            let key = self.visited.get(state);
            let mut all = Expansion::default();
            let mut broken = None;
            for &number in answers.next().expect("one answer for each CPU") {
                let (known, next) = self.answers.get(number);
                all.seen |= known.seen;
                all.progress |= known.progress();
                all.busy |= known.busy();
                let rest = key & !self.parts.mask(known.parts);
                for &n in next {
                    let n = self.parts.canonical(rest | n);
                    if shards == 1 {
                        c.buckets[0].keys.push(n);
                    } else {
                        let bucket = &mut c.buckets[shard_of(n.hash(), shards)];
                        bucket.keys.push(n);
                        bucket.places.push(place);
                    }
                    place += 1;
                }
                c.transitions += next.len() as u64;
                if known.breaks() {
                    c.transitions += 1;
                    broken = self.answers.broken(number);
                    break;
                }
            }
            c.ends.push(place);
            c.seen |= all.seen;
            if all.seen & Seen::WRONG_GS != 0 && c.wrong_gs.is_none() {
                c.wrong_gs = Some(state);
            }
            all.deadlock = broken.is_none() && all.busy && !all.progress;
            if let Some(stop) = self.stop(key, all, broken) {
                c.stop = Some((state, stop));
                return;
            }
        }
    }

    /// Does this state end the search?
    #[inline]
    fn stop(&self, key: K, all: Expansion, broken: Option<(Move, Violation)>) -> Option<Stop> {
        if all.seen & Seen::FULL != 0 {
            return Some(Stop::Buffer);
        }
        if let Some((mv, v)) = broken {
            return Some(Stop::Broken(mv, v));
        }
        if self.asks {
            let mut words = vec![0; self.m.layout.words];
            self.parts.decode(key, &mut words);
            if let Some(v) = self.m.asked(&words, &all) {
                return Some(Stop::Shown(v));
            }
        }
        all.deadlock.then_some(Stop::Shown(Violation::Deadlock))
    }

    fn end(&self, state: usize, stop: Stop) -> End {
        match stop {
            Stop::Buffer => End::Cut(Cut::Buffer),
            Stop::Shown(v) => End::Violated(v, self.path(state)),
            Stop::Broken(mv, v) => {
                let mut path = self.path(state);
                path.push(with_words!(self.m, W => self.breaking::<W>(&path, mv, v)));
                End::Violated(v, path)
            }
        }
    }

    /// The move that breaks `v` after a path: `mv`, unless CPUs were renamed on the way.
    fn breaking<const W: usize>(&self, path: &[Move], mv: Move, v: Violation) -> Move {
        let plain = Model { fuse: false, ..self.m.clone() };
        let end: [u64; W] = path
            .iter()
            .fold(self.m.initial(), |s, &mv| plain.after(&s, mv).expect("the path was found by running it"));
        let (mut same, mut found) = (false, None);
        self.m.each_successor(&end, &mut |m, next| {
            if next == Err(v) {
                same |= m == mv;
                found = found.or(Some(m));
            }
            true
        });
        if same { mv } else { found.unwrap_or(mv) }
    }

    /// How a state was reached, every op a move of its own.
    ///
    /// Under symmetry the states on the way are representatives: what is followed is a run whose states they
    /// represent.
    pub fn path(&self, to: usize) -> Vec<Move> {
        with_words!(self.m, W => self.path_in::<W>(to))
    }

    fn path_in<const W: usize>(&self, to: usize) -> Vec<Move> {
        let mut goals = Vec::new();
        let mut at = to;
        while at != 0 {
            goals.push(self.visited.get(at));
            at = self.visited.parent(at);
        }
        let words = self.m.layout.words;
        let plain = Model { fuse: false, ..self.m.clone() };
        let mut s: [u64; W] = self.m.initial();
        let mut out = Vec::new();
        for goal in goals.into_iter().rev() {
            let mut found = None;
            self.m.each_successor(&s, &mut |mv, next| {
                if let Ok(n) = next
                    && self.parts.find(&n[..words]).is_some_and(|k| self.parts.canonical(k) == goal)
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
}
