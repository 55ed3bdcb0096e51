//! Breadth-first search with exact states: the first violation is the shortest.
//!
//! States are expanded in blocks of the order of discovery. Known answers to what each CPU can do are written out as
//! candidates, unknown ones found out first; candidates are inserted into the shards of the set, and the new ones
//! put in order. Each of these steps can be cut among threads: a chunk of the block, or a shard, for each.
//! Invariant: states, their order and their parents are those of a search that takes one state after the other.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::answers::{Answers, Asked, NONE, Pair, UNKNOWN};
use super::machine::{Model, Seen};
use super::model::{Action, Expansion, Move};
use super::parts::{Full, Key, Parts};
use super::scope::MAX_CPUS;
use super::threads::{Crew, with_crew};
use super::visited::{self, Bucket, Candidates, Shard, Visited, shard_of};
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
/// States of a block, whatever the threads: so they find the same words and answers in the same order.
const BLOCK: usize = 1 << 14;
/// States found from which on more than one thread may be worth it.
const WIDE: usize = 1 << 15;
/// States of a block and answers to find out below which one thread takes a step alone.
const WORTH: (usize, usize) = (2048, 256);
/// States expanded between two questions whether to go on.
const SLICE: usize = 1 << 16;

/// An answer that must be found out.
#[derive(Clone, Copy, Debug)]
struct Task {
    state: u32,
    cpu: u8,
    asked: Asked,
    /// Parts to keep the answer under; 0 to keep it for this state alone.
    parts: u8,
    chunk: u8,
}

/// An answer in words.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    /// Successors in words.
    count: u32,
    e: Expansion,
    broken: Option<(Move, Violation)>,
}

/// Answers to a task: about the step and the events if it asks for all.
#[derive(Clone, Copy, Debug)]
struct Found {
    task: Task,
    /// `None` where it was not asked, or nothing comes after a broken rule.
    step: Option<Answer>,
    events: Option<Answer>,
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
    /// States up to here are written.
    written: usize,
    /// By state that is not, and CPU.
    answers: Vec<Pair>,
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
    /// States that were new, and what they were found from.
    fresh: (Vec<K>, Vec<u32>),
}

impl<K: Key> Chunk<K> {
    fn new(shards: usize) -> Self {
        Chunk {
            from: 0,
            to: 0,
            written: 0,
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
            fresh: (Vec::new(), Vec::new()),
        }
    }

    fn clear(&mut self, from: usize, to: usize) {
        (self.from, self.to, self.written) = (from, to, from);
        self.answers.clear();
        self.open.clear();
        self.tasks.clear();
        for b in &mut self.buckets {
            b.keys.clear();
            b.places.clear();
        }
        self.ends.clear();
        (self.transitions, self.seen, self.wrong_gs, self.stop) = (0, 0, None, None);
    }

    fn done(&self) -> bool {
        self.written == self.to || self.stop.is_some()
    }

    fn candidates(&self) -> Candidates<'_, K> {
        Candidates { from: self.from, ends: &self.ends, buckets: &self.buckets }
    }
}

/// What the threads do to their chunks and shards; between these steps the leader alone works.
#[derive(Clone, Copy, Debug)]
enum Job {
    /// Write the successors of a chunk's states; from the first with an unknown answer on, look for answers alone.
    Expand,
    /// Run the model for a chunk's tasks.
    FindOut,
    /// Look again for the answers that were not known.
    Look,
    /// Write the successors that are not written.
    Write,
    /// Insert what so many chunks found into a shard.
    Insert(usize),
    /// Put the new states of a chunk among so many in order.
    Merge(usize),
}

/// What all threads read while they work.
#[derive(Debug)]
pub struct Core<'a, K> {
    pub(super) m: &'a Model,
    pub(super) parts: Parts<K>,
    answers: Answers<K>,
    pub(super) visited: Visited<K>,
    next: usize,
    level_end: usize,
    counts: Counts,
    limit: usize,
    asks: bool,
    first_wrong_gs: Option<usize>,
}

/// A search in progress.
#[derive(Debug)]
pub struct Search<'a, K> {
    core: RwLock<Core<'a, K>>,
    /// One for each thread.
    chunks: Vec<RwLock<Chunk<K>>>,
    shards: Vec<RwLock<Shard<K>>>,
    threads: usize,
}

/// Why a search paused.
#[derive(Debug)]
pub enum Pause {
    /// It ended.
    Done(End),
    /// Keys must be wider to go on: [`Search::with_keys`].
    Narrow,
}

/// Who takes the steps of a search.
struct Team<'s> {
    crew: &'s Crew<Job>,
    work: &'s dyn Fn(usize, Job),
}

impl Team<'_> {
    /// Take a step, apart if there are several threads and it is worth it.
    fn step(&self, job: Job, worth: bool) {
        if worth && self.crew.size() > 1 {
            self.crew.all(job, || (self.work)(0, job));
        } else {
            (0..self.crew.size()).for_each(|i| (self.work)(i, job));
        }
    }
}

/// The locks only say which thread has what: none is ever waited for, and a thread that fails ends the search.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect("no thread failed")
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().expect("no thread failed")
}

impl<'a, K: Key> Search<'a, K> {
    /// Start.
    pub fn new(m: &'a Model, limit_bytes: usize, symmetric: bool, threads: usize) -> Self {
        let mut parts = Parts::new(m, symmetric);
        let first: Vec<u64> = with_words!(m, W => m.initial::<W>().to_vec());
        let first = parts.intern(&first, u8::MAX).expect("a key holds one number of each part");
        let core = Core {
            m,
            answers: Answers::new(m.layout.cpus.len()),
            visited: Visited::new(parts.canonical(first)),
            parts,
            next: 0,
            level_end: 1,
            counts: Counts { states: 1, ..Counts::default() },
            limit: limit_bytes,
            asks: m.scope.never.is_some() || m.scope.exists.is_some(),
            first_wrong_gs: None,
        };
        Self::of(core, 1, threads)
    }

    /// A search cut for `width` threads of at most `threads`.
    fn of(core: Core<'a, K>, width: usize, threads: usize) -> Self {
        Search {
            chunks: (0..width).map(|_| RwLock::new(Chunk::new(width))).collect(),
            shards: visited::cut(&core.visited.order, width).into_iter().map(RwLock::new).collect(),
            core: RwLock::new(core),
            threads,
        }
    }

    /// The same search, as far as it is, with keys of another width.
    pub fn with_keys<L: Key>(&self) -> Search<'a, L> {
        let core = read(&self.core);
        let parts: Parts<L> = core.parts.with_keys();
        let old = core.parts.fields();
        let new = Core {
            m: core.m,
            answers: core.answers.translated(|k| parts.translate(old, k)),
            visited: core.visited.translated(|k| parts.translate(old, k)),
            parts,
            next: core.next,
            level_end: core.level_end,
            counts: core.counts,
            limit: core.limit,
            asks: core.asks,
            first_wrong_gs: core.first_wrong_gs,
        };
        Search::of(new, self.chunks.len(), self.threads)
    }

    /// What was found.
    pub fn core(&self) -> RwLockReadGuard<'_, Core<'a, K>> {
        read(&self.core)
    }

    /// Counters.
    pub fn counts(&self) -> Counts {
        read(&self.core).counts
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        read(&self.core).bytes()
    }

    /// The first state that showed a %gs-relative access under the user's GSBASE.
    pub fn first_wrong_gs(&self) -> Option<usize> {
        read(&self.core).first_wrong_gs
    }

    /// Go on to the end. `go_on` sees the counters now and then and may stop it by returning `false`.
    pub fn run(&mut self, go_on: &mut dyn FnMut(&Counts) -> bool) -> Pause {
        if self.chunks.len() < self.threads || self.threads == 1 {
            let most = if self.threads == 1 { usize::MAX } else { WIDE };
            let work = |i, job| self.part(i, job);
            let team = Team { crew: &Crew::alone(), work: &work };
            if let Some(pause) = self.lead(&team, most, go_on) {
                return pause;
            }
            // Large enough to share.
            self.chunks = (0..self.threads).map(|_| RwLock::new(Chunk::new(self.threads))).collect();
            let cut = visited::cut(&read(&self.core).visited.order, self.threads);
            self.shards = cut.into_iter().map(RwLock::new).collect();
        }
        let this = &*self;
        with_crew(
            this.threads,
            |i, job| this.part(i, job),
            |crew, work| this.lead(&Team { crew, work }, usize::MAX, go_on).expect("there is no limit"),
        )
    }

    /// Lead the search to its end; `None` if it has found `most` states before.
    fn lead(&self, team: &Team<'_>, most: usize, go_on: &mut dyn FnMut(&Counts) -> bool) -> Option<Pause> {
        let mut asked = read(&self.core).next;
        loop {
            let to = {
                let mut core = write(&self.core);
                let count = core.visited.count();
                if core.next == count {
                    break;
                }
                if count >= most {
                    return None;
                }
                if core.next >= asked + SLICE {
                    asked = core.next;
                    if !go_on(&core.counts) {
                        return Some(Pause::Done(End::Cut(Cut::Stopped)));
                    }
                }
                let level = core.next == core.level_end;
                if level {
                    core.level_end = count;
                    core.counts.depth += 1;
                }
                if (level || core.next.is_multiple_of(ROUND))
                    && (core.bytes() > core.limit || count > u32::MAX as usize / 2)
                {
                    return Some(Pause::Done(End::Cut(Cut::Memory)));
                }
                let round = (core.next / ROUND + 1) * ROUND;
                core.level_end.min(round).min(core.next + BLOCK)
            };
            match self.block(team, to) {
                Ok(Some(end)) => return Some(Pause::Done(end)),
                Ok(None) => write(&self.core).next = to,
                // Nothing of the block is inserted yet.
                Err(Full) => {
                    let mut core = write(&self.core);
                    if !core.reshape() {
                        return Some(Pause::Narrow);
                    }
                    let cut = visited::cut(&core.visited.order, self.shards.len());
                    for (shard, new) in self.shards.iter().zip(cut) {
                        *write(shard) = new;
                    }
                }
            }
        }
        // A run whose value overflows says nothing; a violation of another run is one all the same.
        let overflow = read(&self.core).counts.seen & Seen::OVERFLOW != 0;
        Some(Pause::Done(if overflow { End::Cut(Cut::Overflow) } else { End::Complete }))
    }

    /// A thread's part of a step.
    fn part(&self, i: usize, job: Job) {
        match job {
            Job::Expand => read(&self.core).expand(i as u8, &mut write(&self.chunks[i])),
            Job::FindOut => {
                let core = read(&self.core);
                with_words!(core.m, W => core.find_out::<W>(&mut write(&self.chunks[i])));
            }
            Job::Look => read(&self.core).look_again(i as u8, &mut write(&self.chunks[i])),
            Job::Write => read(&self.core).write_rest(&mut write(&self.chunks[i])),
            Job::Insert(chunks) => {
                let mut shard = write(&self.shards[i]);
                for (chunk, c) in self.chunks[..chunks].iter().enumerate() {
                    shard.insert(chunk, &read(c).buckets[i].keys, self.shards.len());
                }
            }
            Job::Merge(chunks) if i >= chunks => {}
            Job::Merge(_) => {
                let mut c = write(&self.chunks[i]);
                let shards: Vec<_> = self.shards.iter().map(read).collect();
                let (mut keys, mut parents) = std::mem::take(&mut c.fresh);
                keys.clear();
                parents.clear();
                let fresh: Vec<&[u32]> = shards.iter().map(|s| &s.fresh[i][..]).collect();
                c.candidates().new_ones(&fresh, |key, parent| {
                    keys.push(key);
                    parents.push(parent);
                });
                c.fresh = (keys, parents);
            }
        }
    }

    /// Expand the states from `next` to `to`.
    fn block(&self, team: &Team<'_>, to: usize) -> Result<Option<End>, Full> {
        let from = {
            let mut core = write(&self.core);
            core.answers.forget_passing();
            core.next
        };
        let n = to - from;
        let worth = n >= WORTH.0;
        let pieces = self.chunks.len();
        for (i, c) in self.chunks.iter().enumerate() {
            // The first takes all if it is not worth it.
            let at = |i: usize| {
                if worth {
                    from + n * i / pieces
                } else if i == 0 {
                    from
                } else {
                    to
                }
            };
            write(c).clear(at(i), at(i + 1));
        }
        team.step(Job::Expand, worth);
        if self.chunks.iter().any(|c| !read(c).done()) {
            self.answer(team)?;
            team.step(Job::Write, worth);
        }
        let stopped = self.chunks.iter().position(|c| read(c).stop.is_some());
        let last = stopped.map_or(pieces, |i| i + 1);
        team.step(Job::Insert(last), worth);
        if pieces > 1 {
            team.step(Job::Merge(last), worth);
        }
        let mut core = write(&self.core);
        let Core { visited, counts, first_wrong_gs, .. } = &mut *core;
        for (i, c) in self.chunks[..last].iter().enumerate() {
            let c = read(c);
            if pieces == 1 {
                let shard = read(&self.shards[0]);
                c.candidates().new_ones(&[&shard.fresh[i]], |key, parent| {
                    visited.order.push(key);
                    visited.parent.push(parent);
                });
            } else {
                visited.order.extend_from_slice(&c.fresh.0);
                visited.parent.extend_from_slice(&c.fresh.1);
            }
            counts.transitions += c.transitions;
            counts.seen |= c.seen;
            *first_wrong_gs = first_wrong_gs.or(c.wrong_gs);
        }
        counts.states = visited.count() as u64;
        let stop = stopped.and_then(|i| read(&self.chunks[i]).stop);
        Ok(stop.map(|(state, stop)| core.end(state, stop)))
    }

    /// Find out what each CPU can do in the states of the chunks that are not written.
    fn answer(&self, team: &Team<'_>) -> Result<(), Full> {
        loop {
            let mut tasks: Vec<Task> = Vec::new();
            {
                let mut core = write(&self.core);
                let Core { answers, parts, visited, .. } = &mut *core;
                for c in &self.chunks {
                    for task in write(c).tasks.drain(..) {
                        let masked = visited.get(task.state as usize) & parts.mask(task.parts);
                        if task.parts == 0 || answers.claim(usize::from(task.cpu), task.asked, masked) {
                            tasks.push(task);
                        }
                    }
                }
            }
            if tasks.is_empty() {
                return Ok(());
            }
            let (n, all) = (self.chunks.len(), tasks.len());
            for (i, c) in self.chunks.iter().enumerate() {
                let work = &mut write(c).work;
                work.clear();
                work.extend_from_slice(&tasks[all * i / n..all * (i + 1) / n]);
            }
            team.step(Job::FindOut, all >= WORTH.1);
            let mut core = write(&self.core);
            for c in &self.chunks {
                let (found, words) = {
                    let c = &mut *write(c);
                    (std::mem::take(&mut c.found), std::mem::take(&mut c.words))
                };
                core.keep(&found, &words, &self.chunks)?;
                let c = &mut *write(c);
                (c.found, c.words) = (found, words);
            }
            drop(core);
            team.step(Job::Look, all >= WORTH.1);
        }
    }

    /// How a state was reached, every op a move of its own.
    pub fn path(&self, to: usize) -> Vec<Move> {
        read(&self.core).path(to)
    }
}

impl<K: Key> Core<'_, K> {
    /// Bytes held: by numbers that do not depend on the threads.
    fn bytes(&self) -> usize {
        Visited::<K>::bytes(self.visited.count()) + self.parts.bytes() + self.answers.bytes()
    }

    /// Share out the bits of the keys anew; `false` if there are too few.
    fn reshape(&mut self) -> bool {
        let old = self.parts.fields().to_vec();
        let enough = self.parts.reshape();
        if enough {
            self.visited = self.visited.translated(|k| self.parts.translate(&old, k));
            self.answers = self.answers.translated(|k| self.parts.translate(&old, k));
        }
        enough
    }

    /// Write the successors of a chunk's states as long as all answers are known, and then look for answers.
    fn expand(&self, chunk: u8, c: &mut Chunk<K>) {
        let cpus = self.m.layout.cpus.len();
        let mask = |parts| self.parts.mask(parts);
        let mut pairs = [[UNKNOWN; 2]; MAX_CPUS];
        while c.written < c.to {
            let key = self.visited.get(c.written);
            let known = (0..cpus).all(|cpu| self.answers.find(cpu, key, mask, &mut pairs[cpu], |_, _| ()));
            if !known {
                break;
            }
            self.write(c, key, &pairs[..cpus]);
            if c.stop.is_some() {
                return;
            }
        }
        for state in c.written..c.to {
            let key = self.visited.get(state);
            for cpu in 0..cpus {
                let mut pair = [UNKNOWN; 2];
                let miss = |asked, parts| {
                    c.tasks.push(Task { state: state as u32, cpu: cpu as u8, asked, parts, chunk });
                };
                if !self.answers.find(cpu, key, mask, &mut pair, miss) {
                    c.open.push(c.answers.len() as u32);
                }
                c.answers.push(pair);
            }
        }
    }

    /// Look again for the answers that were not known.
    fn look_again(&self, chunk: u8, c: &mut Chunk<K>) {
        let cpus = self.m.layout.cpus.len();
        let mask = |parts| self.parts.mask(parts);
        let Chunk { written, answers, open, tasks, .. } = c;
        open.retain(|&at| {
            let (state, cpu) = (*written + at as usize / cpus, at as usize % cpus);
            let pair = &mut answers[at as usize];
            let had = *pair;
            let known = |n: u32| n != UNKNOWN;
            if pair.iter().all(|&n| known(n)) {
                return false;
            }
            let miss = |asked, parts| {
                // What holds for this state alone is not found: it is there.
                if !known(had[usize::from(asked == Asked::Events)]) {
                    tasks.push(Task { state: state as u32, cpu: cpu as u8, asked, parts, chunk });
                }
            };
            self.answers.find(cpu, self.visited.get(state), mask, pair, miss);
            for (n, had) in pair.iter_mut().zip(had) {
                if !known(*n) {
                    *n = had;
                }
            }
            pair.iter().any(|&n| !known(n))
        });
    }

    /// Run the model for a chunk's tasks.
    fn find_out<const W: usize>(&self, c: &mut Chunk<K>) {
        let width = self.m.layout.words;
        let Chunk { work, found, words, .. } = c;
        found.clear();
        words.clear();
        for &task in &*work {
            let mut s = [0; W];
            self.parts.decode(self.visited.get(task.state as usize), &mut s);
            let cpu = usize::from(task.cpu);
            let mut ask = |step: bool| {
                let mut a = Answer::default();
                let Answer { count, e, broken } = &mut a;
                let mut out = |mv, next: Result<[u64; W], Violation>| match next {
                    Ok(n) => {
                        *count += 1;
                        words.extend_from_slice(&n[..width]);
                        true
                    }
                    Err(v) => {
                        *broken = Some((mv, v));
                        false
                    }
                };
                if step {
                    self.m.steps(&s, cpu, e, &mut out);
                } else {
                    self.m.events(&s, cpu, e, &mut out);
                }
                a
            };
            let step = (task.asked != Asked::Events).then(|| ask(true));
            let over = task.asked == Asked::Step || step.is_some_and(|a| a.broken.is_some());
            let events = (!over).then(|| ask(false));
            found.push(Found { task, step, events });
        }
    }

    /// Give numbers to the words of new answers.
    fn keep(&mut self, found: &[Found], words: &[u64], chunks: &[RwLock<Chunk<K>>]) -> Result<(), Full> {
        let cpus = self.m.layout.cpus.len();
        let width = self.m.layout.words;
        let mut words = words.chunks_exact(width);
        let mut next = Vec::new();
        for f in found {
            let Task { state, cpu, asked, parts: claimed, chunk } = f.task;
            let cpu = usize::from(cpu);
            let key = self.visited.get(state as usize);
            let own = self.answers.own(cpu);
            let halves = [(Asked::Step, f.step), (Asked::Events, f.events)];
            let read = halves.iter().filter_map(|h| h.1).fold(own | claimed, |read, a| read | a.e.others);
            let pass = |asked: Asked, number: u32| {
                let c = &mut *write(&chunks[usize::from(chunk)]);
                let pair = &mut c.answers[(state as usize - c.written) * cpus + cpu];
                match asked {
                    Asked::All => *pair = [number, NONE],
                    Asked::Step => pair[0] = number,
                    Asked::Events => pair[1] = number,
                }
            };
            let apart = asked == Asked::All && claimed != 0 && read != own;
            if apart {
                self.answers.take_apart(cpu, key & self.parts.mask(own));
            }
            if asked == Asked::All && !apart {
                let set = if claimed == 0 { self.answers.all() } else { own };
                next.clear();
                let mut e = Expansion::default();
                let mut broken = None;
                for a in halves.iter().filter_map(|h| h.1) {
                    for _ in 0..a.count {
                        next.push(self.parts.intern(words.next().expect("counted"), set)?);
                    }
                    e.seen |= a.e.seen;
                    e.progress |= a.e.progress;
                    e.busy |= a.e.busy;
                    broken = broken.or(a.broken);
                }
                if claimed == 0 {
                    pass(Asked::All, self.answers.pass(e, &next, broken));
                } else {
                    let parts = &self.parts;
                    let found = (e, &next[..], broken);
                    self.answers.keep((cpu, asked), key, |set| parts.mask(set), own, own, found);
                }
                continue;
            }
            for (asked, a) in halves {
                let Some(a) = a else { continue };
                let read = own | claimed | a.e.others;
                let set = if claimed == 0 { self.answers.all() } else { read };
                next.clear();
                for _ in 0..a.count {
                    next.push(self.parts.intern(words.next().expect("counted"), set)?);
                }
                if set == self.answers.all() {
                    pass(asked, self.answers.pass(a.e, &next, a.broken));
                }
                if claimed != 0 {
                    let parts = &self.parts;
                    let found = (a.e, &next[..], a.broken);
                    self.answers.keep((cpu, asked), key, |set| parts.mask(set), claimed, read, found);
                }
            }
        }
        Ok(())
    }

    /// Write the successors that are not written yet.
    fn write_rest(&self, c: &mut Chunk<K>) {
        let cpus = self.m.layout.cpus.len();
        let answers = std::mem::take(&mut c.answers);
        let mut pairs = answers.chunks_exact(cpus);
        while c.written < c.to && c.stop.is_none() {
            let key = self.visited.get(c.written);
            self.write(c, key, pairs.next().expect("one answer for each CPU"));
        }
        c.answers = answers;
    }

    /// Write the successors of a chunk's next state.
    #[inline]
    fn write(&self, c: &mut Chunk<K>, key: K, pairs: &[Pair]) {
        let shards = c.buckets.len();
        let state = c.written;
        let mut place = c.ends.last().copied().unwrap_or(0);
        let mut all = Expansion::default();
        let mut broken = None;
        'cpus: for pair in pairs {
            for &number in pair {
                if number == NONE {
                    break;
                }
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
                    break 'cpus;
                }
            }
        }
        c.ends.push(place);
        c.written += 1;
        c.seen |= all.seen;
        if all.seen & Seen::WRONG_GS != 0 && c.wrong_gs.is_none() {
            c.wrong_gs = Some(state);
        }
        all.deadlock = broken.is_none() && all.busy && !all.progress;
        c.stop = self.stop(key, all, broken).map(|stop| (state, stop));
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
    fn path(&self, to: usize) -> Vec<Move> {
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
