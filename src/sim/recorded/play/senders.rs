//! Those who ask: each request runs its initiator on the CPU of its sender, from CPU to CPU as they were visited, and
//! waits for its acknowledgements.

use super::super::{Ask, NEVER};
use super::calls::Pending;
use super::{FORCED, Pause, Player, Stops};
use crate::kernel::program::Op;
use crate::kernel::step::{Cpu, Frame};
use crate::sim::stats::Cause;

/// An initiator, halfway.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim::recorded) struct Work {
    pub(super) frame: Frame,
    pub(super) request: u32,
    began_ns: u64,
    took_ps: u64,
    text: bool,
}

impl Player<'_> {
    /// The recorded call of a request to a CPU.
    pub(super) fn row_of(&self, request: u32, cpu: Cpu) -> Option<u32> {
        let calls = self.request(request).calls.clone();
        let rows = &self.w.calls[calls.clone()];
        rows.binary_search_by_key(&cpu, |c| c.cpu).ok().map(|i| (calls.start + i) as u32)
    }

    /// A loop is at a CPU that its sender visited later than now.
    pub(super) fn comes_later(&self, request: u32, cpu: Cpu) -> bool {
        self.row_of(request, cpu).is_some_and(|row| self.call(row).queued_ns > self.now)
    }

    /// A call of a request is due.
    pub(super) fn visit(&mut self, request: u32, call: u32) {
        let r = self.request(request);
        let sender = r.sender.unwrap_or(self.nobody);
        if self.ask_of(request) == Ask::Other {
            let c = self.call(call);
            let (cpu, irq) = (c.cpu, c.irq);
            self.sent[call as usize] = true;
            if let Some(t) = self.place[usize::from(cpu)] {
                self.waits_now(t as usize, Pending { call: None, irq, row: Some(call), due_ns: NEVER });
            }
            return;
        }
        let i = usize::from(sender);
        match &self.works[i] {
            Some(work) if work.request == request => self.resume(sender),
            Some(_) if self.begun[request as usize] => {}
            Some(work) if !self.is_halfway(work) => {
                // The one before must be over by now, whatever it waits for.
                self.give_up(sender);
                self.begin(sender, request);
            }
            Some(_) => {
                self.begun[request as usize] = true;
                self.queued[i].push_back(request);
            }
            None if !self.begun[request as usize] => self.begin(sender, request),
            None => {}
        }
    }

    /// Its loop has not visited everyone.
    fn is_halfway(&self, work: &Work) -> bool {
        work.frame.cur != crate::kernel::step::NO_CPU && self.comes_later(work.request, work.frame.cur)
    }

    fn begin(&mut self, sender: Cpu, request: u32) {
        self.begun[request as usize] = true;
        let r = self.request(request);
        let ask = self.ask_of(request);
        let name = match ask {
            Ask::Purge | Ask::Kernel | Ask::Unknown | Ask::Other => "purge",
            Ask::Unmap => "vunmap",
            Ask::Tables => "table_free",
            Ask::Rights => "set_memory",
            Ask::Sync => "text_breakpoint",
            Ask::User if self.variant.tables => "flush_mm_tables",
            Ask::User => "flush_mm",
        };
        let run = self.code.program(name).expect("every policy has the kernel's initiators");
        if let Some(t) = self.place[usize::from(sender)].map(|t| t as usize)
            && self.own[t].base.is_none()
        {
            self.enter(t, FORCED, false, false); // who sends is in the kernel
        }
        let user = ask == Ask::User;
        if let (true, Some(mm)) = (user, self.mm) {
            for cpu in std::mem::take(&mut self.in_mask) {
                self.m.contexts.mask(u64::from(mm), cpu, false).expect("it was created");
            }
            let members = r.calls.clone().map(|c| self.w.calls[c].cpu).chain([sender]);
            self.in_mask = members.collect();
            for cpu in &self.in_mask {
                self.m.contexts.mask(u64::from(mm), *cpu, true).expect("it was created");
            }
            self.m.contexts.set_flush(sender, mm);
        }
        self.tick(sender);
        let c = &mut self.m.cores[usize::from(sender)];
        (c.request.full, c.request.pages) = (r.full, u32::from(!r.full));
        (c.request.user, c.request.cause) = (user, Cause::Other);
        c.promised = false;
        let frame = Frame::new(self.code.start(run));
        let text = ask == Ask::Sync;
        self.works[usize::from(sender)] = Some(Work { frame, request, began_ns: self.now, took_ps: 0, text });
        self.resume(sender);
    }

    /// Goes on with what a sender is at.
    pub(super) fn resume(&mut self, sender: Cpu) {
        let i = usize::from(sender);
        loop {
            let Some(mut work) = self.works[i].take() else { return };
            let before = self.tick(sender);
            self.m.cores[i].working = 1;
            let stops = Stops { calls: false, counts: false, request: Some(work.request) };
            let pause = self.advance(sender, &mut work.frame, stops);
            self.m.cores[i].working = 0;
            work.took_ps += self.m.cores[i].clock - before;
            self.works[i] = Some(work);
            if let Some(t) = self.place[i] {
                self.settle(t as usize);
            }
            if pause == Pause::Long || pause == Pause::Wait && self.awaits_a_variable(&work.frame) {
                self.spinning.push(sender);
            }
            if pause != Pause::Done {
                return;
            }
            self.ends(sender);
            let Some(next) = self.queued[i].pop_front() else { return };
            self.begin(sender, next);
        }
    }

    fn ends(&mut self, sender: Cpu) {
        let i = usize::from(sender);
        let Some(work) = self.works[i].take() else { return };
        let waited = self.now.saturating_sub(work.began_ns);
        self.out.wait_ps += if self.is_counted() { waited * 1000 + work.took_ps } else { 0 };
        let request = self.m.cores[i].request;
        let postponed = !work.text && !self.m.cores[i].promised;
        self.out.postponed += u64::from(postponed);
        for t in 0..self.own.len() {
            let cpu = self.own[t].cpu;
            let row = self.row_of(work.request, cpu);
            let complete = self.request(work.request).complete;
            let debt = &mut self.m.debts[usize::from(cpu)];
            if postponed && debt.flushed_at < request.at {
                debt.owed = true; // nobody relies on it, and it is not done
            }
            let c = &mut self.m.cores[usize::from(cpu)];
            if !(debt.owed || c.sync_owed) {
                continue;
            }
            let from = match row {
                Some(row) if !self.sent[row as usize] => Some(self.w.calls[row as usize].queued_ns),
                None if complete => Some(work.began_ns),
                // It ran the call; or the request is not known to concern it.
                Some(_) | None => None,
            };
            let o = &mut self.own[t];
            let first = o.owes_since == NEVER;
            if first {
                match from {
                    Some(from) => o.owes_since = from,
                    None => (debt.owed, c.sync_owed) = (false, false),
                }
            }
            if let (true, Some(from)) = (self.variant.levels, from) {
                let waits = if work.text {
                    c.sync_owed && c.serialised_at < request.at
                } else {
                    debt.owed && debt.flushed_at < request.at && debt.served != request.id
                };
                if first {
                    o.level(from, 1);
                } else if waits {
                    let before = o.levels.last().map_or(0, |(_, value)| *value);
                    o.level(from, before + 1);
                }
            }
        }
    }

    /// A sender stops to wait: what it sent goes on without it.
    pub(super) fn give_up(&mut self, sender: Cpu) {
        let i = usize::from(sender);
        if self.works[i].is_none() {
            return;
        }
        let gone = self.gone;
        for t in 0..self.own.len() {
            for p in 0..self.own[t].pending.len() {
                if let Some(call) = &mut self.own[t].pending[p].call
                    && call.from == sender
                {
                    call.from = gone;
                    self.m.cores[usize::from(gone)].acks_left += 1;
                }
            }
        }
        self.m.cores[usize::from(gone)].request = self.m.cores[i].request;
        self.m.cores[i].acks_left = 0;
        self.resume(sender);
        if let Some(work) = self.works[i] {
            // It waits for something else, for ever.
            let at = usize::from(work.frame.pc);
            self.out.unfinished += u64::from(!matches!(self.code.ops[at], Op::Return));
            self.works[i] = None;
        }
    }

    /// Calls have been acknowledged: those who waited for them go on.
    pub(super) fn acks_arrive(&mut self, taken: &[Pending]) {
        let mut senders: Vec<Cpu> = taken.iter().filter_map(|p| p.call.map(|c| c.from)).collect();
        senders.sort_unstable();
        senders.dedup();
        for sender in senders {
            self.resume(sender);
        }
    }

    fn awaits_a_variable(&self, frame: &Frame) -> bool {
        matches!(self.code.ops[usize::from(frame.pc)], Op::Await { .. })
    }
}
