//! The steps of a block: answers looked up, found out and kept, and the successors they stand for written.

use std::mem::take;
use std::sync::RwLock;

use super::chunk::{Answer, Chunk, Found, Stop, Task};
use super::{Core, write};
use crate::check::answers::{Asked, NONE, Outcome, Pair, UNKNOWN};
use crate::check::machine::{Model, Seen};
use crate::check::model::{Expansion, Move};
use crate::check::parts::{Full, Key};
use crate::check::visited::{Birth, Recent, Shard, Spread, Visited};
use crate::kernel::step::Violation;

impl<K: Key> Core<'_, K> {
    /// Bytes held: by numbers that do not depend on the threads.
    pub(super) fn bytes(&self) -> usize {
        let (count, bits) = (self.visited.count(), self.parts.bits());
        Visited::<K>::bytes(count, count - self.next, bits) + self.parts.bytes() + self.answers.bytes()
    }

    /// Share out the bits of the keys anew; `false` if there are too few.
    pub(super) fn reshape(&mut self, shards: &[RwLock<Shard<K>>]) -> bool {
        let old = self.parts.fields().to_vec();
        let enough = self.parts.reshape();
        if enough {
            let key = |k| self.parts.translate(&old, k);
            self.visited = take(&mut self.visited).translated(key);
            self.answers = self.answers.translated(key);
            let spread = Spread::new(self.parts.bits(), shards.len());
            let held = shards.iter().map(|shard| write(shard).take()).collect();
            for (shard, new) in shards.iter().zip(Shard::translated(held, spread, key)) {
                *write(shard) = new;
            }
        }
        enough
    }

    /// Look for the answers to a chunk's states, and write their successors if all are known.
    pub(super) fn expand(&self, chunk: u8, c: &mut Chunk<K>, recent: &mut Recent<K>, spread: Spread) {
        let cpus = self.m.layout.cpus.len();
        let mask = |parts| self.parts.mask(parts);
        recent.widen(self.visited.count());
        for (state, key) in (c.from..c.to).zip(self.visited.from(c.from)) {
            for cpu in 0..cpus {
                let mut pair = [UNKNOWN; 2];
                let miss = |asked, parts| {
                    let state = (state - self.next) as u32;
                    c.tasks.push(Task { state, cpu: cpu as u8, asked, parts, chunk });
                };
                if !self.answers.find(cpu, key, mask, &mut pair, miss) {
                    c.open.push(c.answers.len() as u32);
                }
                c.answers.push(pair);
            }
        }
        c.written = c.open.is_empty();
        if c.written {
            self.write(c, recent, spread);
        }
    }

    /// Look again for the answers that were not known.
    pub(super) fn look_again(&self, chunk: u8, c: &mut Chunk<K>) {
        let cpus = self.m.layout.cpus.len();
        let mask = |parts| self.parts.mask(parts);
        let Chunk { from, answers, open, tasks, .. } = c;
        open.retain(|&at| {
            let (state, cpu) = (*from + at as usize / cpus, at as usize % cpus);
            let pair = &mut answers[at as usize];
            let had = *pair;
            let known = |n: u32| n != UNKNOWN;
            if pair.iter().all(|&n| known(n)) {
                return false;
            }
            let miss = |asked, parts| {
                // What holds for this state alone is not found: it is there.
                if !known(had[usize::from(asked == Asked::Events)]) {
                    let state = (state - self.next) as u32;
                    tasks.push(Task { state, cpu: cpu as u8, asked, parts, chunk });
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
    pub(super) fn find_out<const W: usize>(&self, c: &mut Chunk<K>) {
        let Chunk { work, found, words, happens, .. } = c;
        found.clear();
        words.clear();
        happens.clear();
        for &task in &*work {
            let mut s = [0; W];
            self.parts.decode(self.visited.get(self.next + task.state as usize), &mut s);
            let cpu = usize::from(task.cpu);
            let mut ask = |step| asked(self.m, &s, cpu, step, (&mut *words, &mut *happens));
            let step = (task.asked != Asked::Events).then(|| ask(true));
            let over = task.asked == Asked::Step || step.is_some_and(|a| a.broken.is_some());
            let events = (!over).then(|| ask(false));
            found.push(Found { task, step, events });
        }
    }

    /// Give numbers to the words of new answers.
    pub(super) fn keep(
        &mut self,
        found: &[Found],
        (words, mut happens): (&[u64], &[bool]),
        chunks: &[RwLock<Chunk<K>>],
    ) -> Result<(), Full> {
        let cpus = self.m.layout.cpus.len();
        let width = self.m.layout.words;
        let mut words = words.chunks_exact(width);
        let mut next = Vec::new();
        for f in found {
            let Task { state, cpu, asked, parts: claimed, chunk } = f.task;
            let (state, cpu) = (self.next + state as usize, usize::from(cpu));
            let key = self.visited.get(state);
            let own = self.answers.own(cpu);
            let halves = [(Asked::Step, f.step), (Asked::Events, f.events)];
            let read = halves.iter().filter_map(|h| h.1).fold(own | claimed, |read, a| read | a.e.others);
            let pass = |asked: Asked, number: u32| {
                let c = &mut *write(&chunks[usize::from(chunk)]);
                let pair = &mut c.answers[(state - c.from) * cpus + cpu];
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
                let happens = happens.split_off(..next.len()).expect("one for each");
                let found = Outcome { e, next: &next, happens, broken };
                if claimed == 0 {
                    pass(Asked::All, self.answers.pass(found));
                } else {
                    let parts = &self.parts;
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
                let happens = happens.split_off(..next.len()).expect("one for each");
                let found = Outcome { e: a.e, next: &next, happens, broken: a.broken };
                if set == self.answers.all() {
                    pass(asked, self.answers.pass(found));
                }
                if claimed != 0 {
                    let parts = &self.parts;
                    self.answers.keep((cpu, asked), key, |set| parts.mask(set), claimed, read, found);
                }
            }
        }
        Ok(())
    }

    /// Write the successors of a chunk's states, whose answers are known.
    pub(super) fn write(&self, c: &mut Chunk<K>, recent: &mut Recent<K>, spread: Spread) {
        let cpus = self.m.layout.cpus.len();
        let answers = take(&mut c.answers);
        let states = (c.from..c.to).zip(self.visited.from(c.from));
        for ((state, key), pairs) in states.zip(answers.chunks_exact(cpus)) {
            self.write_one(c, recent, (state, key), pairs);
            if c.stop.is_some() {
                break;
            }
        }
        c.answers = answers;
        c.candidates.sort(spread);
    }

    /// Write the successors of a state.
    #[inline]
    pub(super) fn write_one(
        &self,
        c: &mut Chunk<K>,
        recent: &mut Recent<K>,
        (state, key): (usize, K),
        pairs: &[Pair],
    ) {
        let mut all = Expansion::default();
        let mut broken = None;
        let mut place = 0;
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
                c.candidates.reserve(next.len());
                assert!(place + next.len() <= Birth::MOST, "a state has few successors");
                for (&n, place) in next.iter().zip(place..) {
                    let birth = Birth::new(state - c.from, place);
                    c.candidates.put(self.parts.canonical(rest | n), birth, recent);
                }
                place += next.len();
                c.transitions += next.len() as u64;
                if known.breaks() {
                    c.transitions += 1;
                    broken = self.answers.broken(number);
                    break 'cpus;
                }
            }
        }
        c.seen |= all.seen;
        if all.seen & Seen::WRONG_GS != 0 && c.wrong_gs.is_none() {
            c.wrong_gs = Some(state);
        }
        all.deadlock = broken.is_none() && all.busy && !all.progress;
        if broken.is_none() && !all.busy && !all.progress {
            c.seen |= Seen::ENDED;
            if self.m.scope.lists_ends {
                let s = self.words(key);
                c.ends.insert(
                    self.m.scope.observed.iter().map(|q| q.value(self.m, &s).unwrap_or_default()).collect(),
                );
            }
        }
        c.stop = self.stop(key, all, broken).map(|stop| (state, stop));
    }

    /// The keys of the states that a state leads to, and whether that happens by itself some day. Is a CPU busy? `None`
    /// if the answers are not kept.
    #[inline]
    pub(in crate::check) fn leads(&self, key: K, mut to: impl FnMut(K, bool)) -> Option<bool> {
        let mut busy = false;
        for cpu in 0..self.m.layout.cpus.len() {
            let mut pair = [UNKNOWN; 2];
            if !self.answers.find(cpu, key, |parts| self.parts.mask(parts), &mut pair, |_, _| ()) {
                return None;
            }
            for number in pair.into_iter().take_while(|&n| n != NONE) {
                let (known, next) = self.answers.get(number);
                busy |= known.busy();
                let rest = key & !self.parts.mask(known.parts);
                for (&n, &happens) in next.iter().zip(self.answers.happens(number)) {
                    to(self.parts.canonical(rest | n), happens);
                }
            }
        }
        Some(busy)
    }

    /// Does this state end the search?
    #[inline]
    pub(super) fn stop(&self, key: K, all: Expansion, broken: Option<(Move, Violation)>) -> Option<Stop> {
        if all.seen & Seen::FULL != 0 && !self.m.deepest {
            return Some(Stop::Buffer);
        }
        // What no state may show is broken a move before what one of its moves breaks.
        if self.m.scope.never.is_some() && self.m.shows_never(&self.words(key)) {
            return Some(Stop::Shown(Violation::Invariant));
        }
        if let Some((mv, v)) = broken {
            return Some(Stop::Broken(mv, v));
        }
        if self.asks
            && let Some(v) = self.m.asked(&self.words(key), &all)
        {
            return Some(Stop::Shown(v));
        }
        all.deadlock.then_some(Stop::Shown(Violation::Deadlock))
    }
}

/// Run the model for a CPU's step or its events; successors and whether they happen by themselves go to `words` and
/// `happens`. Apart from [`Core::find_out`], so that the model is compiled for each width of a state, not for each of a key.
fn asked<const W: usize>(
    m: &Model,
    s: &[u64; W],
    cpu: usize,
    step: bool,
    (words, happens): (&mut Vec<u64>, &mut Vec<bool>),
) -> Answer {
    let mut a = Answer::default();
    let Answer { count, e, broken } = &mut a;
    let mut out = |mv, next: Result<[u64; W], Violation>| match next {
        Ok(n) => {
            *count += 1;
            words.extend_from_slice(&n[..m.layout.words]);
            happens.push(m.happens(mv));
            true
        }
        Err(v) => {
            *broken = Some((mv, v));
            false
        }
    };
    if step {
        m.steps(s, cpu, e, &mut out);
    } else {
        m.events(s, cpu, e, &mut out);
    }
    a
}
