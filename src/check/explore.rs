//! Breadth-first search with exact states: the first violation is the shortest.
//!
//! States are expanded in blocks of the order of discovery. Known answers to what each CPU can do are written out as
//! candidates, unknown ones found out first; candidates are inserted into the shards of the set, and the new ones
//! put in order. Each of these steps is cut into pieces, a chunk of the block or a shard, and the threads take the
//! next piece whenever they are done with one.
//! Invariant: states, their order and their parents are those of a search that takes one state after the other.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use super::answers::Answers;
use super::machine::{Model, Seen};
use super::model::Move;
use super::parts::{Full, Key, Parts};
use super::visited::{Recent, Shard, Spread, Visited};
use super::with_words;
use crate::kernel::step::Violation;
use crate::pool::{Crew, with_crew};
use crate::room::room;

mod chunk;
mod runs;
mod steps;

use chunk::{Chunk, Stop, Task};

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

/// States of a block, whatever the threads: so they find the same words and answers in the same order, and stop at
/// the same memory limit. Levels end blocks too.
const BLOCK: usize = 1 << 16;
/// States found from which on the set is in shards, and more than one thread may be worth it.
const WIDE: usize = 1 << 15;
/// Bytes that are asked for before a block is expanded: at first, and for each of its states (their candidates and answers,
/// while what holds them is moved to twice the room).
const NEEDS: (usize, usize) = (8 << 20, 1 << 10);
/// States of a block and answers to find out below which one thread takes a step alone.
const WORTH: (usize, usize) = (2048, 256);

/// What the threads do to so many chunks; between these steps the leader alone works.
#[derive(Clone, Copy, Debug)]
enum Job {
    /// Look for the answers to a chunk's states, and write their successors if all are known.
    Expand(usize),
    /// Run the model for a chunk's tasks.
    FindOut(usize),
    /// Look again for the answers that were not known.
    LookAgain(usize),
    /// Write the successors of a chunk's states if some were not known at first.
    Write(usize),
    /// Insert what they found into a shard.
    Insert(usize),
    /// Put the new states of a chunk in order.
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
    /// What the scope observes of the ends found.
    ends: BTreeSet<Vec<u64>>,
}

/// A search in progress.
#[derive(Debug)]
pub struct Search<'a, K> {
    core: RwLock<Core<'a, K>>,
    chunks: Vec<RwLock<Chunk<K>>>,
    /// One until there are states enough to share.
    shards: Vec<RwLock<Shard<K>>>,
    /// By thread.
    recent: Vec<RwLock<Recent<K>>>,
    /// Pieces of the current step that a thread has taken.
    taken: AtomicUsize,
    threads: usize,
}

/// Pieces of a step for so many threads: several for each, so that one that is held up leaves some to the others,
/// and enough that none takes long. A power of two: so many shards can be made.
fn pieces(threads: usize) -> usize {
    (4 * threads).next_power_of_two().clamp(16, 128)
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

/// The locks only say which thread has what: none is ever waited for, and a thread that fails ends the search.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect("no thread failed")
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().expect("no thread failed")
}

fn inner<T>(lock: RwLock<T>) -> T {
    lock.into_inner().expect("no thread failed")
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
            asks: m.scope.never.is_some() || m.scope.exists.is_some() || m.scope.forall.is_some(),
            first_wrong_gs: None,
            ends: BTreeSet::new(),
        };
        let spread = Spread::new(core.parts.bits(), 1);
        let mut shards = Shard::all(spread, 1);
        shards[0].load(spread.mixed(core.visited.get(0)));
        Self::of(core, shards, threads)
    }

    /// A search whose set is in these shards.
    fn of(core: Core<'a, K>, shards: Vec<Shard<K>>, threads: usize) -> Self {
        Search {
            chunks: (0..pieces(threads)).map(|_| RwLock::default()).collect(),
            shards: shards.into_iter().map(RwLock::new).collect(),
            recent: (0..threads).map(|_| RwLock::default()).collect(),
            taken: AtomicUsize::new(0),
            core: RwLock::new(core),
            threads,
        }
    }

    /// Cut the set into so many shards.
    fn cut(&mut self, shards: usize) {
        let spread = Spread::new(read(&self.core).parts.bits(), shards);
        let old = self.shards.drain(..).map(inner).collect();
        self.shards = Shard::translated(old, spread, |k| k).into_iter().map(RwLock::new).collect();
    }

    /// The same search, as far as it is, with keys of another width.
    pub fn with_keys<L: Key>(self) -> Search<'a, L> {
        let core = inner(self.core);
        let parts: Parts<L> = core.parts.with_keys();
        let key = |k| parts.translate(core.parts.fields(), k);
        let spread = Spread::new(parts.bits(), self.shards.len());
        let shards = Shard::translated(self.shards.into_iter().map(inner).collect(), spread, key);
        let new = Core {
            m: core.m,
            answers: core.answers.translated(key),
            visited: core.visited.translated(key),
            parts,
            next: core.next,
            level_end: core.level_end,
            counts: core.counts,
            limit: core.limit,
            asks: core.asks,
            first_wrong_gs: core.first_wrong_gs,
            ends: core.ends,
        };
        Search::of(new, shards, self.threads)
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

    /// What the scope observes of the ends found, each once, in order.
    pub fn ends(&self) -> Vec<Vec<u64>> {
        read(&self.core).ends.iter().cloned().collect()
    }

    /// Let another thread free the memory of a search that was stopped: gigabytes take longer than a user waits.
    pub fn abandon(self) {
        let core = inner(self.core);
        let held = (core.visited, self.shards);
        // Without a thread they are freed here.
        drop(thread::Builder::new().spawn(move || drop(held)));
    }

    /// Go on to the end. `go_on` sees the counters now and then and may stop it by returning `false`.
    pub fn run(&mut self, go_on: &mut dyn FnMut(&Counts) -> bool) -> Pause {
        if self.shards.len() == 1 {
            let work = |i, job| self.part(i, job);
            let team = Team { crew: &Crew::alone(), work: &work };
            if let Some(pause) = self.lead(&team, WIDE, go_on) {
                return pause;
            }
            self.cut(pieces(self.threads));
            if self.starved() {
                return Pause::Done(End::Cut(Cut::Memory));
            }
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
                if core.next >= asked + BLOCK {
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
                if (level || core.next.is_multiple_of(BLOCK)) && core.bytes() > core.limit {
                    return Some(Pause::Done(End::Cut(Cut::Memory)));
                }
                let to = core.level_end.min((core.next / BLOCK + 1) * BLOCK);
                if room(NEEDS.0 + NEEDS.1 * (to - core.next)).is_err() {
                    return Some(Pause::Done(End::Cut(Cut::Memory)));
                }
                to
            };
            match self.block(team, to) {
                Ok(Some(end)) => return Some(Pause::Done(end)),
                Ok(None) => {
                    let mut core = write(&self.core);
                    core.next = to;
                    core.visited.forget_before(to);
                }
                // Nothing of the block is inserted yet.
                Err(Full) => {
                    let mut core = write(&self.core);
                    if room(core.bytes()).is_err() {
                        return Some(Pause::Done(End::Cut(Cut::Memory)));
                    }
                    if !core.reshape(&self.shards) {
                        return Some(Pause::Narrow);
                    }
                    if self.starved() {
                        return Some(Pause::Done(End::Cut(Cut::Memory)));
                    }
                    self.recent.iter().for_each(|r| write(r).clear());
                }
            }
        }
        // A run whose value overflows says nothing; a violation of another run is one all the same.
        let seen = read(&self.core).counts.seen;
        Some(Pause::Done(if seen & Seen::OVERFLOW != 0 {
            End::Cut(Cut::Overflow)
        } else if seen & Seen::FULL != 0 {
            End::Cut(Cut::Buffer)
        } else {
            End::Complete
        }))
    }

    /// Take a step, together if it is worth it.
    fn step(&self, team: &Team<'_>, job: Job, worth: bool) {
        self.taken.store(0, Relaxed); // the crew orders this before its members look
        if worth && team.crew.size() > 1 {
            team.crew.all(job, || (team.work)(0, job));
        } else {
            (team.work)(0, job);
        }
    }

    /// A thread's part of a step.
    fn part(&self, i: usize, job: Job) {
        let core = &*read(&self.core);
        let recent = &mut *write(&self.recent[i]);
        let chunk = |i: usize| write(&self.chunks[i]);
        let spread = Spread::new(core.parts.bits(), self.shards.len());
        match job {
            Job::Expand(n) => self.take(n, |i| core.expand(i as u8, &mut chunk(i), recent, spread)),
            Job::FindOut(n) => {
                self.take(n, |i| with_words!(core.m, W => core.find_out::<W>(&mut chunk(i))));
            }
            Job::LookAgain(n) => self.take(n, |i| core.look_again(i as u8, &mut chunk(i))),
            Job::Write(n) => {
                recent.clear(); // it may know candidates of chunks that come later and are written
                self.take(n, |i| {
                    let c = &mut *chunk(i);
                    if !c.written {
                        core.write(c, recent, spread);
                    }
                });
            }
            Job::Insert(n) => self.take(self.shards.len(), |i| {
                let mut shard = write(&self.shards[i]);
                for (chunk, c) in self.chunks[..n].iter().enumerate() {
                    shard.insert(chunk, &read(c).candidates);
                }
            }),
            Job::Merge(n) => {
                let held: Vec<_> = self.shards.iter().map(read).collect();
                self.take(n, |i| {
                    let c = &mut *chunk(i);
                    let fresh: Vec<&[u32]> = held.iter().map(|s| &s.fresh[i][..]).collect();
                    c.piece = c.candidates.new_ones(&fresh);
                });
            }
        }
    }

    /// Take pieces of a step until none is left. A thread's are in order, as candidates that it remembers must be.
    fn take(&self, pieces: usize, mut work: impl FnMut(usize)) {
        loop {
            match self.taken.fetch_add(1, Relaxed) {
                i if i < pieces => work(i),
                _ => return,
            }
        }
    }

    /// Was there no memory for a shard to grow?
    fn starved(&self) -> bool {
        self.shards.iter().any(|shard| read(shard).is_starved())
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
        // One chunk takes all if it is not worth it.
        let pieces = if worth { self.chunks.len() } else { 1 };
        let chunks = &self.chunks[..pieces];
        for (i, c) in chunks.iter().enumerate() {
            write(c).clear(from + n * i / pieces, from + n * (i + 1) / pieces);
        }
        self.step(team, Job::Expand(pieces), worth);
        if chunks.iter().any(|c| !read(c).written) {
            self.answer(team, pieces)?;
            self.step(team, Job::Write(pieces), worth);
        }
        let stopped = chunks.iter().position(|c| read(c).stop.is_some());
        let last = stopped.map_or(pieces, |i| i + 1);
        self.step(team, Job::Insert(last), worth);
        if self.starved() {
            return Ok(Some(End::Cut(Cut::Memory)));
        }
        self.step(team, Job::Merge(last), worth);
        let mut core = write(&self.core);
        let Core { visited, counts, first_wrong_gs, ends, .. } = &mut *core;
        for c in &chunks[..last] {
            let mut c = write(c);
            visited.append(take(&mut c.piece), c.from);
            counts.transitions += c.transitions;
            counts.seen |= c.seen;
            *first_wrong_gs = first_wrong_gs.or(c.wrong_gs);
            ends.append(&mut c.ends);
        }
        counts.states = visited.count() as u64;
        let stop = stopped.and_then(|i| read(&chunks[i]).stop);
        Ok(stop.map(|(state, stop)| core.end(state, stop)))
    }

    /// Find out what each CPU can do in the states of the chunks that are not written.
    fn answer(&self, team: &Team<'_>, pieces: usize) -> Result<(), Full> {
        loop {
            let mut tasks: Vec<Task> = Vec::new();
            {
                let mut core = write(&self.core);
                let Core { answers, parts, visited, next, .. } = &mut *core;
                for c in &self.chunks[..pieces] {
                    for task in write(c).tasks.drain(..) {
                        let masked = visited.get(*next + task.state as usize) & parts.mask(task.parts);
                        if task.parts == 0 || answers.claim(usize::from(task.cpu), task.asked, masked) {
                            tasks.push(task);
                        }
                    }
                }
            }
            if tasks.is_empty() {
                return Ok(());
            }
            let all = tasks.len();
            let worth = all >= WORTH.1;
            let n = if worth { self.chunks.len() } else { 1 };
            for (i, c) in self.chunks[..n].iter().enumerate() {
                let work = &mut write(c).work;
                work.clear();
                work.extend_from_slice(&tasks[all * i / n..all * (i + 1) / n]);
            }
            self.step(team, Job::FindOut(n), worth);
            let mut core = write(&self.core);
            for c in &self.chunks[..n] {
                let (found, words, happens) = {
                    let c = &mut *write(c);
                    (take(&mut c.found), take(&mut c.words), take(&mut c.happens))
                };
                core.keep(&found, (&words, &happens), &self.chunks)?;
                let c = &mut *write(c);
                (c.found, c.words, c.happens) = (found, words, happens);
            }
            drop(core);
            self.step(team, Job::LookAgain(pieces), worth);
        }
    }

    /// How a state was reached, every op a move of its own.
    pub fn path(&self, to: usize) -> Vec<Move> {
        read(&self.core).path(to)
    }
}
