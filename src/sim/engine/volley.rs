//! A volley: one call to many CPUs that all are in user mode, carried out for all of them at once.
//!
//! Why nobody can tell it from one interrupt after the other:
//!
//! - Only the programs of mainline 6.12 are taken this way ([`Kernel::is_mainline`](super::Kernel)). What their
//!   interrupts do to a CPU in user mode follows from how it looks ([`Shape`]), from what is asked
//!   ([`Asked`](super::super::machine::Asked)) and from the *differences* of generations: a handler only compares them
//!   and subtracts them. So it is the same, time by time, for every CPU of a shape. It is found out once, on a real one
//!   that is put back as it was (`rehearse`), and kept only if the CPU ends in the shape it began in.
//! - On the way (looked at op by op in `rehearse`) nothing is written but the CPU itself and its `ctx_gen`, and nothing
//!   is read of others but `tlb_gen` and the request, which stand until the acknowledgements are in: the sender
//!   goes from its call to its wait without touching them. So the victims do not see each other.
//! - Nothing else happens to a victim before its handler is over: what is due on it comes later (`quiet`), and so does
//!   whoever else is in the global queue (`end`), except a CPU that is amid a loop over `mm_cpumask` which cannot end by
//!   then; it looks at `loaded_mm` and `is_lazy`, and handlers leave these alone.
//! - The sender goes on when it has seen the acknowledgements, while victims still return to user mode. There it can
//!   meet them with a promise, which looks at what they have flushed (they have, before they acknowledged); with a loop,
//!   as above; or with its next call, whose interrupt waits until the return (a victim is taken in a volley again only
//!   after that).
//!
//! What is counted is written into a CPU when it is brought forward, or when the run is looked at.

use super::super::machine::{Effect, Shape, Shot, Shots};
use super::super::queue::NEVER;
use super::super::stats::Stat;
use super::super::timeline::{Event, Timeline};
use super::Engine;
use super::class::Class;
use super::ops::one;
use crate::kernel::program::{Ask, At, Code, Cond, Op, Pc, Set};
use crate::kernel::smp::Call;
use crate::kernel::step::{Cpu, Outcome};

#[cfg(test)]
mod tests;

/// Different effects that are remembered; more would mean that nothing repeats.
const EFFECTS: usize = 64;

/// Longest pause between two rehearsals without success, in calls.
const LONGEST_PAUSE: u32 = 4096;

/// When to rehearse again: after failures less and less often.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rehearsals {
    pause: u32,
    left: u32,
}

impl Rehearsals {
    fn is_time(&mut self) -> bool {
        let now = self.left == 0;
        self.left = self.left.saturating_sub(1);
        now
    }

    fn ended(&mut self, well: bool) {
        self.pause = if well { 0 } else { (2 * self.pause + 1).min(LONGEST_PAUSE) };
        // The first tries come at once: a CPU takes its shape from the first interrupts.
        self.left = if self.pause <= 7 { 0 } else { self.pause };
    }
}

/// May a handler do this in a volley: does it concern nobody but its own CPU?
fn is_own(op: Op) -> bool {
    match op {
        Op::Load { from, .. } => matches!(from.at, At::Me | At::Asid(_) | At::Mm(_)),
        Op::Store { to, .. } => matches!(to.at, At::Asid(_)),
        Op::Unless { c, .. } => match c {
            Cond::Cmp(..) | Cond::Cr3User | Cond::RegUser(_) | Cond::RangeFull => true,
            Cond::MeIn(_) | Cond::CurIn(_) | Cond::CurIsMe | Cond::Empty(_) => false,
            Cond::Either | Cond::Text(_) => false,
        },
        Op::Ask { what, .. } => matches!(what, Ask::InfoMm | Ask::InfoGen | Ask::LoadedAsid),
        Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } | Op::Jump(_) | Op::Fence(_) | Op::Irq(_) => {
            true
        }
        Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) | Op::ReadCr3(_) | Op::MovCr3 { .. } => true,
        Op::Rsp(_) => true,
        Op::MovCr4Pge(_) | Op::Invlpg(_) | Op::Invpcid { .. } | Op::Touch(_) | Op::Body(_) => true,
        Op::HandleCalls | Op::OweUser | Op::OweOthers | Op::Return => true,
        Op::Rmw { .. } | Op::Cas { .. } | Op::Loop(_) | Op::Each { .. } | Op::Clear | Op::Put => false,
        Op::Await { .. } | Op::AwaitAcks | Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll => false,
        Op::Tlbsync | Op::Rar(_) | Op::LoadPage { .. } | Op::StorePage { .. } | Op::Pte { .. } => false,
        Op::FreeTable(_) | Op::FreeMm(_) | Op::Migrate | Op::Request(_) | Op::Promise(_) | Op::Ipi { .. } => {
            false
        }
        Op::FlushInfo { .. } | Op::Mask { .. } | Op::Walk { .. } => false,
        Op::Rcu(_) | Op::CallLater(_) | Op::Clflush(_) | Op::Wbinvd => false,
    }
}

/// After the call at `pc`, does the sender wait for its acknowledgements before it does anything that a victim could
/// notice, or looks at one?
pub(super) fn then_waits(code: &Code, pc: usize) -> bool {
    let mut seen = vec![false; code.ops.len()];
    let mut todo = vec![pc + 1];
    while let Some(at) = todo.pop() {
        if at >= code.ops.len() {
            return false;
        }
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        match code.ops[at] {
            Op::AwaitAcks => {}
            Op::Unless { to, .. } => todo.extend([at + 1, usize::from(to)]),
            Op::Jump(to) => todo.push(usize::from(to)),
            // Its own switch out of lazy mode: the mask is read by senders only.
            Op::Mask { .. } | Op::Ask { .. } => todo.push(at + 1),
            Op::Store { to, .. } if to.at == At::Me => todo.push(at + 1),
            Op::Return | Op::HandleCalls | Op::Body(_) => return false,
            op if is_own(op) => todo.push(at + 1),
            _ => return false,
        }
    }
    true
}

impl Engine {
    /// The call at `pc` is about to be sent: carries it out for those whom it finds in user mode, and notes that they
    /// have had it. `stop`: nothing may end later.
    pub(super) fn volley(&mut self, cpu: Cpu, pc: Pc, stop: u64) {
        let Op::Ipi { to: Set::Targets, run } = self.code.ops[usize::from(pc)] else { return };
        if !self.volleys || !self.known[usize::from(pc)].then_waits {
            return;
        }
        let Some(asked) = self.m.asked(cpu, run) else { return };
        let targets = self.m.count_targets(cpu) - u64::from(self.m.is_target(cpu, cpu));
        let times = &self.m.times;
        let c = &self.m.cores[usize::from(cpu)];
        let now = c.clock + times.op[usize::from(pc)] + times.queue_call.0 * targets + times.send;
        let at = (now + times.ipi.0, now + times.ipi.1);
        let call = Shots { from: cpu, asked, id: c.request.id, generation: c.request.generation, at };
        let known = self.m.volleys.effects.iter().filter(|e| e.asked == asked);
        let longest = known.map(|e| e.took).max();
        if let Some(longest) = longest {
            if !self.is_undisturbed(cpu, at.0.max(at.1) + longest, stop) {
                return;
            }
            self.fire(call);
        }
        self.get_to_know(call);
    }

    /// Does nobody else do anything before `end` that could meet a victim?
    fn is_undisturbed(&mut self, cpu: Cpu, end: u64, stop: u64) -> bool {
        if end >= stop {
            return false;
        }
        let mut others = std::mem::take(&mut self.early);
        others.clear();
        let mut calm = true;
        loop {
            let (time, who) = self.m.queue.top();
            if time > end {
                break;
            }
            others.push((time, who));
            self.m.queue.set(who, NEVER);
            if who == cpu || !self.looks_until(who, end) {
                calm = false;
                break;
            }
        }
        for (time, who) in others.drain(..) {
            self.m.queue.set(who, time);
        }
        self.early = others;
        calm
    }

    /// Is this CPU amid a loop that only looks at CPUs, and over so many that it cannot end before?
    fn looks_until(&self, cpu: Cpu, end: u64) -> bool {
        let i = usize::from(cpu);
        let c = &self.m.cores[i];
        let Some(top) = usize::from(c.depth).checked_sub(1) else { return false };
        let pc = self.own[i].acts[top].frame.pc;
        let Some(head) = (0..=pc).rev().find(|at| self.known[usize::from(*at)].class == Class::ScanMask)
        else {
            return false;
        };
        let Op::Each { done, .. } = self.code.ops[usize::from(head)] else { return false };
        if pc >= done || c.calls.first().is_some() && c.irq_at <= end {
            return false;
        }
        let left = self.m.contexts.members_from(c.request.mm, c.loop_next);
        // Each turn runs the ops up to its first branch.
        let turn = usize::from(head)..usize::from(done);
        let branches = |at: &usize| matches!(self.code.ops[*at], Op::Unless { .. } | Op::Jump(_));
        let least: u64 = turn.take_while(|at| !branches(at)).map(|at| self.m.times.op[at]).sum();
        c.clock.saturating_add(left.saturating_sub(2) * least) > end
    }

    /// Carries a call out for each target whose effect is known.
    fn fire(&mut self, call: Shots) {
        let mut had = std::mem::take(&mut self.m.volleys.had);
        had.clear();
        had.resize(self.m.words_of(call.from).len(), 0);
        let mut hits = std::mem::take(&mut self.hits);
        hits.clear();
        hits.resize(self.m.volleys.effects.len(), [0; 2]);
        for (word, had) in had.iter_mut().enumerate() {
            let mut left = self.m.words_of(call.from)[word];
            if word == usize::from(call.from) / 64 {
                left &= !(1 << (call.from % 64));
            }
            // Those who had the same before, all at once; then whoever must be recognised.
            for (effect, hits) in hits.iter_mut().enumerate() {
                if left == 0 || self.m.volleys.effects[effect].asked != call.asked {
                    continue;
                }
                let (hit, near) = self.m.sweep(word, left, effect, &call);
                self.m.acknowledged(effect, &call, hit & near != 0, hit & !near != 0);
                let housekeeping = (hit & self.housekeeping_words[word]).count_ones();
                hits[0] += u64::from(hit.count_ones() - housekeeping);
                hits[1] += u64::from(housekeeping);
                *had |= hit;
                left &= !hit;
            }
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let who = (64 * word) as Cpu + bit as Cpu;
                let near = self.m.is_near(call.from, who);
                let at = if near { call.at.0 } else { call.at.1 };
                let Some(effect) = self.effect_on(who, &call, at) else { continue };
                self.m.acknowledged(effect, &call, near, !near);
                self.m.shoot(who, at, &call);
                hits[effect][usize::from(self.class_of_cpu[usize::from(who)])] += 1;
                *had |= 1 << bit;
            }
        }
        for (effect, classes) in self.m.volleys.effects.iter().zip(&hits) {
            for (class, n) in classes.iter().enumerate().filter(|(_, n)| **n > 0) {
                self.latencies.interruption[class].record_n(effect.took, *n);
                self.runs += n;
                self.hit += n;
            }
        }
        self.work += 1;
        self.hits = hits;
        self.m.volleys.had = had;
    }

    /// The effect that a call has on a CPU, if it is known and nothing comes between; what was counted of the CPU is of
    /// this effect then, or nothing.
    #[inline]
    fn effect_on(&mut self, who: Cpu, call: &Shots, at: u64) -> Option<usize> {
        let shot = self.m.volleys.shots[usize::from(who)];
        let number = match shot.effect.checked_sub(1) {
            Some(number) => {
                let effect = &self.m.volleys.effects[number as usize];
                let behind = call.generation.wrapping_sub(shot.generation);
                if effect.asked == call.asked && effect.generations.is_none_or(|(b, _)| b == behind) {
                    number as usize
                } else {
                    self.m.settle_volleys(who);
                    self.recognise(who, call)?
                }
            }
            None => self.recognise(who, call)?,
        };
        let effect = &self.m.volleys.effects[number];
        if cfg!(any(test, debug_assertions)) {
            assert_eq!(self.shape_of(who), Some(effect.shape), "CPU {who} has changed unnoticed");
        }
        let shot = &self.m.volleys.shots[usize::from(who)];
        (self.m.is_quiet_until(who, at + effect.took) && shot.quiet_from <= at).then_some(number)
    }

    /// How a CPU looks to a remote call, the pages that it touches after a flush included.
    fn shape_of(&self, who: Cpu) -> Option<(Shape, (u32, u32))> {
        Some((self.m.shape_of(who)?, self.refill_pages[usize::from(who)]))
    }

    /// Finds the effect that a call has on a CPU of which nothing is counted.
    fn recognise(&mut self, who: Cpu, call: &Shots) -> Option<usize> {
        let own = &self.own[usize::from(who)];
        let late = self.m.cores[usize::from(who)].clock > call.at.0.min(call.at.1);
        if own.faults || own.idle || late || !self.m.is_quiet_until(who, call.at.0) {
            return None;
        }
        let shape = self.shape_of(who)?;
        let generation = self.m.generation_of(who).unwrap_or(0);
        let behind = call.generation.wrapping_sub(generation);
        let number = self.m.volleys.effects.iter().position(|e| {
            e.asked == call.asked && e.shape == shape && e.generations.is_none_or(|(b, _)| b == behind)
        })?;
        let quiet_from = self.m.cores[usize::from(who)].quiet_from;
        self.m.volleys.shots[usize::from(who)] =
            Shot { effect: number as u32 + 1, times: 0, quiet_from, longest: 0, generation };
        Some(number)
    }

    /// Rehearses the call on a target that did not get it, now and then.
    fn get_to_know(&mut self, call: Shots) {
        for who in 0..self.scenario.cpus {
            let (word, bit) = (usize::from(who) / 64, who % 64);
            let had = self.m.volleys.had.get(word).copied().unwrap_or(0);
            if (self.m.words_of(call.from)[word] & !had) >> bit & 1 == 0 {
                continue;
            }
            let own = &self.own[usize::from(who)];
            if who == call.from || own.faults || own.idle {
                continue;
            }
            let at = if self.m.is_near(call.from, who) { call.at.0 } else { call.at.1 };
            if !self.m.is_quiet_until(who, at) {
                continue;
            }
            self.m.settle_volleys(who);
            if self.shape_of(who).is_none() || self.m.cores[usize::from(who)].clock > at {
                continue;
            }
            if !self.rehearsals.is_time() {
                return;
            }
            let effect = self.rehearse(who, &call, at);
            self.rehearsals.ended(effect.is_some());
            let Some(effect) = effect else { return };
            if self.m.volleys.effects.len() >= EFFECTS {
                self.m.settle_all_volleys();
                self.m.volleys.effects.clear();
            }
            let same = |e: &Effect| {
                (e.asked, e.shape, e.generations.map(|g| g.0))
                    == (effect.asked, effect.shape, effect.generations.map(|g| g.0))
            };
            if !self.m.volleys.effects.iter().any(same) {
                self.m.volleys.effects.push(effect);
            }
            return;
        }
    }

    /// What the call does to a CPU in user mode; the CPU, and everything else, is put back as it was.
    fn rehearse(&mut self, who: Cpu, call: &Shots, at: u64) -> Option<Effect> {
        let (i, s) = (usize::from(who), usize::from(call.from));
        let before =
            (self.m.cores[i].clone(), self.m.debts[i], self.m.stats[i], self.m.by_cause[i], self.own[i].acts);
        let generation = self.m.generation_of(who);
        let (timeline, levels) = (self.m.timelines[i].clone(), self.m.levels[i].clone());
        let latencies = std::mem::take(&mut self.latencies);
        let counters = (self.runs, self.work, self.m.violation, self.m.queue.time_of(call.from));
        let sender = (self.m.cores[s].acks_left, self.m.cores[s].acked_at);

        (self.m.cores[s].acks_left, self.m.cores[s].acked_at) = (Cpu::MAX.into(), 0);
        self.m.timelines[i] = Timeline::new(usize::MAX);
        let effect = self.rehearsed(who, call, at);

        (self.m.cores[i], self.m.debts[i], self.m.stats[i], self.m.by_cause[i], self.own[i].acts) = before;
        if let Some(generation) = generation {
            self.m.set_generation(who, generation);
        }
        (self.m.timelines[i], self.m.levels[i]) = (timeline, levels);
        self.latencies = latencies;
        (self.runs, self.work, self.m.violation) = (counters.0, counters.1, counters.2);
        self.m.queue.set(call.from, counters.3);
        (self.m.cores[s].acks_left, self.m.cores[s].acked_at) = sender;
        self.m.note_quiet(who);
        effect
    }

    fn rehearsed(&mut self, who: Cpu, call: &Shots, at: u64) -> Option<Effect> {
        let i = usize::from(who);
        let shape = self.shape_of(who)?;
        let (row, mut causes, debt) = (self.m.stats[i], self.m.by_cause[i], self.m.debts[i]);
        let serialised = self.m.cores[i].serialised_at;
        let generation = if call.asked.mm.is_some() { Some(self.m.generation_of(who)?) } else { None };
        let c = &mut self.m.cores[i];
        c.clock = at;
        c.irq_at = at;
        c.calls.add(Call { from: call.from, run: call.asked.run, request: call.id, behind: (0, 0) });
        self.take_interrupt(who, at, at); // a call, which is not replayed
        while self.m.cores[i].depth > 0 {
            let pc = self.own[i].acts[0].frame.pc;
            let op = self.code.ops[usize::from(pc)];
            if !is_own(op) {
                return None;
            }
            if matches!(op, Op::Body(_)) {
                if !self.run_body(who, 0, NEVER, (NEVER, Cpu::MAX), true) {
                    return None;
                }
                continue;
            }
            let frame = &mut self.own[i].acts[0].frame;
            match one(&self.code, frame, &mut self.m, who) {
                Outcome::Next => {}
                Outcome::Done => self.pop(who),
                Outcome::Wait | Outcome::Breakpoint | Outcome::Violated(_) => return None,
            }
        }
        let end = self.m.generation_of(who).unwrap_or(0);
        let c = &self.m.cores[i];
        let took = c.clock - at;
        let acked = self.m.cores[usize::from(call.from)].acked_at;
        let line = self.m.times.line;
        let line = if self.m.is_near(call.from, who) { line.0 } else { line.1 };
        let new = self.m.debts[i];
        let counted = |s: &usize| *s != Stat::longest_quiet_ps as usize && self.m.stats[i][*s] != row[*s];
        let effect = Effect {
            asked: call.asked,
            shape,
            generations: generation
                .map(|g| (call.generation.wrapping_sub(g), end.wrapping_sub(call.generation))),
            took,
            acked: acked.checked_sub(line)?.checked_sub(at)?,
            serialised: (c.serialised_at != serialised).then(|| c.serialised_at - at),
            flushed: (new.flushed_at != debt.flushed_at).then(|| new.flushed_at - at),
            served: new.served != debt.served,
            events: self.m.timelines[i].events().map(|e| Event { time_ps: e.time_ps - at, ..*e }).collect(),
            delta: (0..row.len()).filter(counted).map(|s| (s, self.m.stats[i][s] - row[s])).collect(),
        };
        causes[call.asked.cause as usize] += 1;
        let same = self.shape_of(who) == Some(shape)
            && self.m.by_cause[i] == causes
            && new.deferrals == debt.deferrals
            && (!effect.served || new.served == call.id)
            // What it was asked to flush is flushed.
            && effect.generations.is_none_or(|(_, ahead)| ahead < u64::MAX / 2);
        same.then_some(effect)
    }
}
