//! Calls that wait at a CPU, and the interrupts that take them.

use std::cmp::Reverse;

use super::super::NEVER;
use super::{FORCED, Pause, Player, Stops};
use crate::kernel::program::{Op, Set};
use crate::kernel::smp;
use crate::kernel::step::{Cpu, Frame, Outcome, step};

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim::recorded) struct Pending {
    /// What it runs, if an initiator of the kernel's text sent it.
    pub(super) call: Option<smp::Call>,
    /// The interrupt that takes it; 0: none that was recorded.
    pub(super) irq: u32,
    /// The recorded call, if it is one.
    pub(super) row: Option<u32>,
    /// When the interrupt comes for one that was not recorded.
    pub(super) due_ns: u64,
}

impl Player<'_> {
    /// Is there a call for this interrupt?
    pub(super) fn waits(&self, t: usize, irq: u32) -> bool {
        self.own[t].pending.iter().any(|p| p.irq != 0 && p.irq <= irq)
    }

    /// `Op::Ipi`: the machine queues the calls, and what reaches isolated CPUs waits for its interrupt.
    pub(super) fn ipi(&mut self, cpu: Cpu, frame: &mut Frame, to: Set, request: Option<u32>) {
        let mut called = Vec::new();
        let mut next = self.m.next_member(cpu, to, 0);
        while let Some(who) = next {
            if who != cpu {
                called.push(who);
            }
            next = self.m.next_member(cpu, to, who + 1);
        }
        if step(self.code, frame, &mut self.m, cpu) != Outcome::Next {
            frame.pc += 1;
            return;
        }
        for who in called {
            match self.place[usize::from(who)] {
                None => self.serve(who, false),
                Some(t) => {
                    let call = self.m.cores[usize::from(who)].calls.take().expect("it was just queued");
                    self.reaches(t as usize, call, request);
                }
            }
        }
    }

    /// A call is queued at an isolated CPU.
    fn reaches(&mut self, t: usize, call: smp::Call, request: Option<u32>) {
        let cpu = self.own[t].cpu;
        let row = request.and_then(|r| self.row_of(r, cpu));
        let waits = |p: &Pending| p.row == row && row.is_some();
        match row {
            // Also a second call for one that was recorded once joins it while it waits.
            Some(row)
                if !self.sent[row as usize]
                    || self.own[t].pending.iter().any(waits)
                    || self.call(row).irq == 0 =>
            {
                self.sent[row as usize] = true;
                self.waits_now(
                    t,
                    Pending { call: Some(call), irq: self.call(row).irq, row: Some(row), due_ns: NEVER },
                );
            }
            _ => {
                if request.is_some_and(|r| !self.request(r).complete) {
                    // Of this request the recording need not have every call: acknowledged, and not counted.
                    self.acknowledge(call);
                    return;
                }
                self.out.more_calls += 1;
                if let Some(r) = request
                    && self.out.more_lines.len() < 100
                {
                    self.out.more_lines.push(self.request(r).line);
                }
                let due_ns = self.now + self.typical.0;
                let n = self.out.more_calls;
                self.more.push(Reverse((due_ns, n, t as u32, false)));
                self.waits_now(t, Pending { call: Some(call), irq: 0, row: None, due_ns });
            }
        }
    }

    /// It waits; a stay that waited for it begins.
    pub(super) fn waits_now(&mut self, t: usize, pending: Pending) {
        self.own[t].pending.push(pending);
        if let Some((stay, irq, counted)) = self.own[t].armed
            && pending.irq != 0
            && pending.irq <= irq
        {
            self.enter(t, stay, true, counted);
        }
    }

    /// Acknowledged without having run.
    pub(super) fn acknowledge(&mut self, call: smp::Call) {
        let c = &mut self.m.cores[usize::from(call.from)];
        c.acks_left = c.acks_left.saturating_sub(1);
    }

    /// A recorded interrupt takes what waits for it.
    pub(super) fn take(&mut self, t: usize, irq: u32, stay: u32, counted: bool, length_ns: u32) {
        if !self.waits(t, irq) {
            self.own[t].out.gone_interrupts += u64::from(counted);
            return;
        }
        if self.own[t].base.is_none() {
            let counted = self.own[t].armed.is_some_and(|(armed, _, counted)| armed == stay && counted);
            self.enter(t, stay, true, counted);
        }
        self.own[t].out.calls_ns += if counted { u64::from(length_ns) } else { 0 };
        self.run_those(t, |p, _| p.irq != 0 && p.irq <= irq, length_ns > 0);
    }

    /// An interrupt that was not recorded takes what waits for it.
    pub(super) fn more_arrives(&mut self, t: usize) {
        let now = self.now;
        if !self.own[t].pending.iter().any(|p| p.due_ns <= now) {
            return; // an earlier one took it
        }
        self.own[t].out.more_interrupts += 1;
        if self.own[t].base.is_none() {
            self.own[t].out.more_entries += 1;
            self.enter(t, FORCED - 1, true, true);
            self.more.push(Reverse((now + self.typical.1, u64::MAX, t as u32, true)));
        }
        self.run_those(t, |p, now| p.due_ns <= now, false);
    }

    /// ... and returns, unless something else holds the CPU in the kernel by now.
    pub(super) fn more_leaves(&mut self, t: usize) {
        if self.own[t].base.is_some() && self.own[t].stay == FORCED - 1 {
            self.leave(t);
        }
    }

    /// The handlers of some calls run, in the frame that stands at the call queue or in one of their own.
    fn run_those(&mut self, t: usize, which: impl Fn(&Pending, u64) -> bool, stays: bool) {
        let now = self.now;
        let mut taken = Vec::new();
        self.own[t].pending.retain(|p| {
            let take = which(p, now);
            if take {
                taken.push(*p);
            }
            !take
        });
        let cpu = self.own[t].cpu;
        for p in &taken {
            if let Some(call) = p.call {
                self.m.cores[usize::from(cpu)].calls.add(call);
            }
        }
        self.serve(cpu, stays);
        self.settle(t);
        self.acks_arrive(&taken);
    }

    /// Runs what is queued in the machine at a CPU.
    fn serve(&mut self, cpu: Cpu, stays: bool) {
        let i = usize::from(cpu);
        let t = self.place[i].map(|t| t as usize);
        let at_queue = |f: &Frame| matches!(self.code.ops[usize::from(f.pc)], Op::HandleCalls) && f.pc != 0;
        let standing = t.and_then(|t| self.own[t].base).filter(at_queue);
        self.tick(cpu);
        if let (Some(t), Some(mut frame)) = (t, standing) {
            self.advance(cpu, &mut frame, Stops { calls: false, counts: false, request: None });
            self.own[t].base = Some(frame);
        } else if let Some(t) = t.filter(|t| self.own[*t].idle.is_some() && self.own[*t].idle_irq.is_none()) {
            let mut frame = Frame::new(self.code.start(self.programs.interrupt_idle));
            if self.advance(cpu, &mut frame, Stops { calls: false, counts: false, request: None })
                == Pause::Body
            {
                self.own[t].idle_irq = Some(frame);
            }
            if !stays {
                self.idle_irq_ends(t);
            }
        } else {
            let mut frame = Frame::new(self.code.start(self.programs.interrupt_kernel));
            while self.advance(cpu, &mut frame, Stops { calls: false, counts: false, request: None })
                == Pause::Body
            {
                frame.pc += 1;
            }
        }
    }
}
