//! Remote calls: they are queued and sent, taken and acknowledged.

use super::super::stats::Stat;
use super::{Request, Timed};
use crate::kernel::program::{ProgId, Set};
use crate::kernel::smp::Call;
use crate::kernel::step::Cpu;

impl Timed {
    /// When an interrupt sent now would be taken.
    fn delivery(&mut self, from: Cpu, to: Cpu, now: u64) -> u64 {
        let near = self.is_near(from, to);
        let extra = match &mut self.extra_ipi {
            Some((mean, draws)) => draws.exponential(*mean),
            None => 0,
        };
        now + extra + if near { self.times.ipi.0 } else { self.times.ipi.1 }
    }

    /// `smp_call_function_many_cond`: the members of a set get a call, and an interrupt where none is pending.
    pub(super) fn send_calls(&mut self, cpu: Cpu, to: Set, run: ProgId) {
        let Request { id: request, user, mm, .. } = self.cores[usize::from(cpu)].request;
        let mut called = std::mem::take(&mut self.scratch);
        called.clear();
        let had = self.volleys.count();
        let mut sent = had;
        let (mut behind, mut reads) = ((0, 0), 0);
        if self.times.apart {
            behind = self.called(cpu, to);
            let (queue, line) = (self.times.queue_call, self.times.line);
            let (near, far) = (u64::from(behind.0), u64::from(behind.1));
            reads = near * line.0 + far * line.1;
            self.cores[usize::from(cpu)].clock += near * queue.0 + far * queue.1;
        }
        let mut next = self.next_member(cpu, to, 0);
        while let Some(who) = next {
            if who != cpu {
                if self.times.apart {
                    let which = if self.is_near(cpu, who) { &mut behind.0 } else { &mut behind.1 };
                    *which -= 1;
                }
                let call = Call { from: cpu, run, request, behind };
                let empty = self.cores[usize::from(who)].calls.add(call);
                sent += u32::from(empty);
                called.push((who, empty));
            }
            next = self.next_member(cpu, to, who + 1);
        }
        if user && to == Set::Targets {
            let others = self.contexts.members(mm) - u64::from(self.contexts.has(mm, cpu));
            self.add(cpu, Stat::lazy_skips, others.saturating_sub(called.len() as u64 + u64::from(had)));
        }
        let c = &mut self.cores[usize::from(cpu)];
        if !self.times.apart {
            c.clock += self.times.queue_call.0 * (called.len() as u64 + u64::from(had));
        }
        c.reads += reads;
        if sent > 0 {
            c.clock += self.times.send;
        }
        c.acks_left += called.len() as u32;
        c.sent += sent;
        let now = c.clock;
        self.add(cpu, Stat::ipi_rounds, u64::from(sent > 0));
        self.add(cpu, Stat::calls_queued, called.len() as u64 + u64::from(had));
        self.add(cpu, Stat::ipis_sent, u64::from(sent));
        for &(who, empty) in &called {
            if empty {
                let at = self.delivery(cpu, who, now);
                let c = &mut self.cores[usize::from(who)];
                c.irq_at = c.irq_at.min(at);
                c.resume = 0;
                self.note_quiet(who);
            }
            let demand = self.demand(who);
            self.queue.set(who, demand);
        }
        self.scratch = called;
    }

    /// How many get a call that this CPU sends to a set, on its socket and on others.
    fn called(&self, cpu: Cpu, to: Set) -> (Cpu, Cpu) {
        let (mut near, mut far) = (0, 0);
        let mut next = self.next_member(cpu, to, 0);
        while let Some(who) = next {
            if who != cpu {
                *if self.is_near(cpu, who) { &mut near } else { &mut far } += 1;
            }
            next = self.next_member(cpu, to, who + 1);
        }
        (near, far)
    }

    /// The next call of this CPU, taken.
    pub(super) fn next_call(&mut self, cpu: Cpu) -> Option<ProgId> {
        let c = &mut self.cores[usize::from(cpu)];
        if !c.in_call_irq {
            return None;
        }
        let call = c.calls.take()?;
        c.call = Some(call);
        self.add(cpu, Stat::calls_executed, 1);
        Some(call.run)
    }

    /// `csd_unlock`: who sent the call sees that it is over.
    pub(super) fn acknowledge(&mut self, cpu: Cpu) {
        let c = &mut self.cores[usize::from(cpu)];
        let Some(call) = c.call.take() else { return };
        let (clock, near) = (c.clock, self.is_near(cpu, call.from));
        let line = self.times.line;
        let then = u64::from(call.behind.0) * line.0 + u64::from(call.behind.1) * line.1;
        let seen = clock + then + if near { line.0 } else { line.1 };
        let s = &mut self.cores[usize::from(call.from)];
        s.acks_left -= 1;
        s.acked_at = s.acked_at.max(seen);
        if s.acks_left == 0 && s.waiting {
            s.waiting = false;
            let demand = self.demand(call.from);
            self.queue.set(call.from, demand);
        }
    }
}
