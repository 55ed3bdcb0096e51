//! How a program is carried forward, by the kind of op it is at.

use super::super::machine::Timed;
use super::super::queue::{Key, NEVER};
use super::super::stats::{Cause, Stat};
use super::super::timeline::Kind as EventKind;
use super::class::{Class, writes};
use super::queued::{Run, Work};
use super::{Engine, Why};
use crate::kernel::program::{At, Code, Op, Pc, Set, Slot};
use crate::kernel::step::{Cpu, Frame, Outcome, Violation, step};

/// A wait on a variable longer than this is a deadlock.
const STUCK_PS: u64 = 1_000_000_000_000;

/// [`step`] where it is not worth a copy of its own.
#[inline(never)]
pub(super) fn one(code: &Code, frame: &mut Frame, m: &mut Timed, cpu: Cpu) -> Outcome {
    step(code, frame, m, cpu)
}

impl Engine {
    /// Ops nobody else notices, up to `until` or the first that is not so. Driven, it also reads and writes the
    /// variables of CPUs that are quiet, which concerns nobody else either: a broadcast examines its targets here.
    #[inline]
    pub(super) fn run_private(&mut self, cpu: Cpu, top: usize, until: u64, driven: bool) {
        let i = usize::from(cpu);
        let frame = &mut self.own[i].acts[top].frame;
        let known = &self.known[..];
        loop {
            match step(&self.code, frame, &mut self.m, cpu) {
                Outcome::Next => {
                    let now = self.m.cores[i].clock;
                    if now >= until {
                        return;
                    }
                    let mut next = known[usize::from(frame.pc)];
                    if next.does != frame.pc {
                        frame.pc = next.does;
                        next = known[usize::from(frame.pc)];
                    }
                    match next.class {
                        Class::Private => {}
                        Class::Cross if driven && next.reads_cur => {
                            if frame.cur != cpu && !self.m.is_quiet_until(frame.cur, now) {
                                return;
                            }
                        }
                        Class::Mask | Class::Calls | Class::Body | Class::Cross | Class::Acks => return,
                        Class::Grace | Class::Scan | Class::ScanMask => return,
                    }
                }
                Outcome::Done => return self.pop(cpu),
                Outcome::Breakpoint => return self.breaks(cpu),
                Outcome::Wait => return self.spin(cpu, top),
                Outcome::Violated(v) => {
                    let pc = frame.pc;
                    frame.pc += 1;
                    return self.violated(cpu, pc, v);
                }
            }
        }
    }

    pub(super) fn spin(&mut self, cpu: Cpu, top: usize) {
        let i = usize::from(cpu);
        self.m.cores[i].clock += self.m.times.poll;
        let act = &self.own[i].acts[top];
        if self.m.cores[i].clock > act.began + STUCK_PS {
            let pc = act.frame.pc;
            self.own[i].acts[top].frame.pc += 1;
            self.violated(cpu, pc, Violation::Deadlock);
        }
    }

    pub(super) fn violated(&mut self, cpu: Cpu, pc: Pc, v: Violation) {
        let clock = self.m.cores[usize::from(cpu)].clock;
        self.m.add(cpu, Stat::violations, 1);
        self.m.event(cpu, clock, 0, EventKind::Violation, Cause::Other, u32::from(pc));
        if self.m.violation.is_none_or(|(t, c, ..)| (clock, cpu) < (t, c)) {
            self.m.violation = Some((clock, cpu, pc, v));
        }
    }

    /// One op that others notice: first everyone it concerns is brought to its time.
    pub(super) fn run_cross(&mut self, cpu: Cpu, top: usize, pc: Pc, stop: u64) {
        let i = usize::from(cpu);
        match self.code.ops[usize::from(pc)] {
            Op::Load { from: p, .. }
            | Op::Store { to: p, .. }
            | Op::Rmw { at: p, .. }
            | Op::Cas { at: p, .. }
            | Op::Await { at: p, .. }
                if p.at == At::Cur =>
            {
                let who = self.own[i].acts[top].frame.cur;
                self.bring(who, cpu);
            }
            Op::Ipi { to, .. } => {
                self.volley(cpu, pc, stop);
                self.m.had_are_targets(cpu, false);
                let mut next = self.m.next_member(cpu, to, 0);
                while let Some(who) = next {
                    self.bring(who, cpu);
                    next = self.m.next_member(cpu, to, who + 1);
                }
            }
            Op::Promise(_) if self.m.cores[i].request.user => {
                let now = self.m.cores[i].clock;
                let mut next = self.m.next_to_bring(0, now);
                while let Some(who) = next {
                    if self.m.in_set(cpu, Set::MmCpumask, who) {
                        self.bring(who, cpu);
                    }
                    next = self.m.next_to_bring(who + 1, now);
                }
            }
            Op::Tlbsync | Op::Rar(_) | Op::Promise(_) => {
                let now = self.m.cores[i].clock;
                self.bring_all(cpu);
                if self.streams {
                    (0..self.scenario.cpus).for_each(|who| self.stream_until(who, now));
                }
            }
            op if writes(op).is_some_and(|field| self.m.is_read_freely(field)) => self.bring_all(cpu),
            _ => {}
        }
        if let Op::CallLater(run) = self.code.ops[usize::from(pc)] {
            let c = &self.m.cores[i];
            let ready = c.clock + self.scenario.rcu_ps;
            let (full, pages, cause) = (c.request.full, c.request.pages, c.request.cause);
            self.own[i].works.push(Work::new(ready, Run::Program(run, false), full, pages, cause));
            self.refresh(cpu);
        }
        let frame = &mut self.own[i].acts[top].frame;
        match one(&self.code, frame, &mut self.m, cpu) {
            Outcome::Next => {}
            Outcome::Done => self.pop(cpu),
            Outcome::Breakpoint => self.breaks(cpu),
            Outcome::Wait => self.spin(cpu, top),
            Outcome::Violated(v) => {
                frame.pc += 1;
                self.violated(cpu, pc, v);
            }
        }
        if !self.m.volleys.had.is_empty() {
            self.m.had_are_targets(cpu, true);
            self.m.volleys.had.clear();
        }
    }

    /// Brings whoever may do something before `cpu`'s next op to its time.
    fn bring_all(&mut self, cpu: Cpu) {
        let now = self.m.cores[usize::from(cpu)].clock;
        let mut next = self.m.next_to_bring(0, now);
        while let Some(who) = next {
            self.bring(who, cpu);
            next = self.m.next_to_bring(who + 1, now);
        }
    }

    /// At `await acks`. `false`: nothing more can happen before `limit`.
    pub(super) fn run_acks(&mut self, cpu: Cpu, top: usize, due: u64, limit: Key, driven: bool) -> bool {
        let c = &mut self.m.cores[usize::from(cpu)];
        if c.wait_from == NEVER {
            c.wait_from = c.clock;
        }
        c.waiting = c.acks_left > 0;
        let until = if c.waiting { NEVER } else { c.clock.max(c.acked_at).max(c.wait_from + c.reads) };
        // Acknowledged, it does nothing before this: asking it for its time again would not move it.
        c.resume = if c.waiting { 0 } else { due.min(until) };
        if due <= until && due != NEVER {
            if (due, cpu) >= limit {
                return false;
            }
            c.clock = c.clock.max(due);
            return true; // the interrupt is taken at the next turn
        }
        if c.waiting || !driven {
            return false;
        }
        c.clock = until;
        if (until, cpu) >= limit {
            return false;
        }
        let waited = until - std::mem::replace(&mut c.wait_from, NEVER);
        (c.acked_at, c.reads) = (0, 0);
        self.m.add(cpu, Stat::wait_ps, waited);
        let longest = &mut self.m.stats[usize::from(cpu)][Stat::wait_max_ps as usize];
        *longest = (*longest).max(waited);
        let class = usize::from(self.class_of_cpu[usize::from(cpu)]);
        self.latencies.wait[class].record(waited);
        let frame = &mut self.own[usize::from(cpu)].acts[top].frame;
        one(&self.code, frame, &mut self.m, cpu);
        true
    }

    /// At the wait for a grace period, which lasts as long as the scenario says, and again while a CPU is in what it was in
    /// when it began (SEMANTICS L10). `false`: it lasts beyond `limit`.
    pub(super) fn run_grace(&mut self, cpu: Cpu, top: usize, due: u64, limit: Key, driven: bool) -> bool {
        let i = usize::from(cpu);
        let c = &mut self.m.cores[i];
        if c.wait_from == NEVER {
            c.wait_from = c.clock;
        }
        let from = c.wait_from;
        let end = c.clock.max(from + self.scenario.rcu_ps);
        let until = end.min(due).min(limit.0);
        c.clock = c.clock.max(until);
        if due <= c.clock {
            return true;
        }
        if c.clock < end || (c.clock, cpu) >= limit || !driven {
            c.resume = end.min(due);
            return false;
        }
        (0..self.scenario.cpus).for_each(|who| self.bring(who, cpu));
        let held = |who: usize| {
            let act = &self.own[who].acts[0];
            who != i && self.m.cores[who].depth > 0 && act.why != Why::Idle && act.began <= from
        };
        if (0..self.own.len()).any(held) {
            self.m.cores[i].clock += self.scenario.rcu_ps;
            return true;
        }
        self.m.cores[i].wait_from = NEVER;
        self.m.cores[i].resume = 0;
        let frame = &mut self.own[i].acts[top].frame;
        one(&self.code, frame, &mut self.m, cpu);
        true
    }

    /// At `body`. `false`: it lasts beyond `limit`.
    pub(super) fn run_body(&mut self, cpu: Cpu, top: usize, due: u64, limit: Key, driven: bool) -> bool {
        let i = usize::from(cpu);
        let pc = self.own[i].acts[top].frame.pc;
        let Op::Body(slot) = self.code.ops[usize::from(pc)] else { unreachable!("the class says so") };
        let clock = self.m.cores[i].clock;
        if (clock, cpu) >= limit {
            return false;
        }
        self.m.cores[i].resume = 0;
        if slot == Slot::Idle {
            self.m.view_ends(cpu);
            let c = &mut self.m.cores[i];
            let end = c.clock.max(c.init_next);
            let until = end.min(due).min(limit.0);
            c.clock = c.clock.max(until);
            // Of what comes at one moment an interrupt is first, as in any body: wherever the limit lies.
            if until == end && due > end && (end, cpu) < limit {
                let act = &mut self.own[i].acts[top];
                self.m.stats[i][Stat::idle_ps as usize] += end - act.began;
                act.began = end;
                let frame = &mut act.frame;
                one(&self.code, frame, &mut self.m, cpu);
                return true;
            }
            let c = &mut self.m.cores[i];
            c.resume = end.min(due);
            return due <= c.clock;
        }
        let act = &mut self.own[i].acts[top];
        if act.body_left == NEVER {
            act.body_left = act.body_ps;
            act.entered = self.m.cores[i].clock - act.began;
            self.m.note_entered(cpu);
            if slot == Slot::Syscall && act.why != Why::Fault {
                let class = usize::from(self.class_of_cpu[i]);
                self.latencies.entered(class, act.entered);
            }
            if self.m.tlbs.is_some() {
                let pages = self.refill_pages[i].0;
                self.m.look_up(cpu, true, pages);
                let clock = self.m.cores[i].clock;
                if driven || due <= clock || (clock, cpu) >= limit {
                    return true;
                }
            } else if self.m.cores[i].cold {
                self.refill(cpu, true);
                return true;
            }
        }
        if slot == Slot::Syscall && self.work_due(cpu) {
            if !driven {
                return false;
            }
            self.start_work(cpu);
            return true;
        }
        let act = &mut self.own[i].acts[top];
        let c = &mut self.m.cores[i];
        // A system call does kernel work when it is due, amid its body.
        let work = if slot == Slot::Syscall { c.init_next } else { NEVER };
        let end = c.clock + act.body_left;
        let until = end.min(due).min(work).min(limit.0);
        if until > c.clock {
            act.body_left -= until - c.clock;
            c.clock = until;
        }
        if due <= c.clock || work <= c.clock && (c.clock, cpu) < limit {
            return true;
        }
        if act.body_left > 0 || (c.clock, cpu) >= limit {
            // Nothing happens before this; whoever drives this CPU need not ask earlier.
            c.resume = end.min(due).min(work);
            return false;
        }
        let frame = &mut act.frame;
        one(&self.code, frame, &mut self.m, cpu);
        true
    }

    /// Charges the misses after a flush: the kernel's pages in a body, all that is left on return to user mode.
    pub(super) fn refill(&mut self, cpu: Cpu, kernel: bool) {
        let i = usize::from(cpu);
        let (k, u) = self.refill_pages[i];
        let pages = u64::from(if kernel { k } else { u });
        let time = pages * self.m.times.refill;
        if !kernel {
            self.m.cores[i].cold = false;
        }
        self.m.refilled(cpu, pages, time);
    }
}
