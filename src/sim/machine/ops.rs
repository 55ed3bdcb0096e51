//! What an op does to the machine.
//!
//! Invariant: an op that other CPUs could notice runs only when every CPU it concerns has been brought to its time
//! (the engine sees to that before it calls `step`), so methods here never advance anyone.

use super::super::levels::Pending;
use super::super::stats::{Cause, Stat};
use super::super::timeline::{Event, Kind};
use super::tlb::ENTRY_PAGES;
use super::{Core, FieldAt, Reached, Request, Step, Timed, USER};
use crate::kernel::program::{
    Ask, At, Cr3, Entry, Feature, Level, NoFlush, Op, Pages, Pc, ProgId, Rcu, Set, Site, Slot, Touch, Walk,
    Zone,
};
use crate::kernel::step::{Cpu, Invalidate, Machine, Order, Ran, Violation};

impl Timed {
    fn check(&self, cpu: Cpu, f: FieldAt, at: At) -> Result<(), Violation> {
        let c = &self.cores[usize::from(cpu)];
        if c.cr3 & USER != 0 && !f.user_mapped && self.has_pti() {
            return Err(Violation::UnmappedAccess);
        }
        if at == At::Me && !c.gs_kernel {
            return Err(Violation::WrongGsAccess);
        }
        Ok(())
    }

    /// A variable of an address space or of an ASID. Generations only grow and have 64 bits here.
    fn context(&mut self, cpu: Cpu, var: usize, at: At, of: Cpu) -> Result<&mut u64, Violation> {
        match at {
            At::Mm(_) => self.contexts.of_mm(var, of),
            At::Asid(_) | At::Shared | At::Me | At::Cur => self.contexts.of_asid(var, cpu, of),
        }
    }

    /// Changes a field in memory; the value before.
    #[inline]
    pub(super) fn change(
        &mut self,
        field: u8,
        of: Cpu,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Violation> {
        let field = self.fields[usize::from(field)];
        let slot = self.slot(field, of);
        let word = if field.shared { &mut self.shared[field.var] } else { &mut self.values[slot] };
        let old = u64::from(*word) >> field.shift & field.mask;
        let new = f(old);
        if new > field.mask {
            return Err(Violation::Overflow);
        }
        *word = (u64::from(*word) & !(field.mask << field.shift) | new << field.shift) as u16;
        Ok(old)
    }

    pub(super) fn slot(&self, f: FieldAt, of: Cpu) -> usize {
        usize::from(of) * self.vars + f.var
    }

    /// Memory that was unmapped and mapped again is used: a hazard while this CPU owes a flush.
    fn used_recycled(&mut self, cpu: Cpu) {
        let c = &self.cores[usize::from(cpu)];
        if self.debts[usize::from(cpu)].owed && c.view {
            let clock = c.clock;
            self.add(cpu, Stat::hazards, 1);
            self.event(cpu, clock, 0, Kind::Hazard, Cause::Other, 0);
        }
    }

    pub(super) fn current_request(&self, cpu: Cpu) -> Request {
        let c = &self.cores[usize::from(cpu)];
        match c.call {
            Some(call) => self.cores[usize::from(call.from)].request,
            None => c.request,
        }
    }
}

impl Machine for Timed {
    #[inline]
    fn ordered(&self, _cpu: Cpu, _order: Order) -> bool {
        true // sequentially consistent at op granularity; reports say so
    }

    #[inline]
    fn charge(&mut self, cpu: Cpu, pc: Pc, _op: Op) {
        #[cfg(test)]
        self.mark(cpu, super::journal::Did::Op(pc));
        self.cores[usize::from(cpu)].clock += self.times.op[usize::from(pc)];
    }

    #[inline]
    fn read(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu) -> Result<u64, Violation> {
        let f = self.fields[usize::from(field)];
        self.check(cpu, f, at)?;
        if at == At::Cur && !self.is_near(cpu, of) {
            self.cores[usize::from(cpu)].clock += self.times.far.0;
        }
        if f.context {
            return self.context(cpu, f.var, at, of).map(|v| *v);
        }
        let word = if f.shared { self.shared[f.var] } else { self.values[self.slot(f, of)] };
        Ok(u64::from(word) >> f.shift & f.mask)
    }

    #[inline]
    fn write(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu, v: u64) -> Result<(), Violation> {
        self.rmw(cpu, field, at, of, |_| v).map(|_| ())
    }

    #[inline]
    fn rmw(
        &mut self,
        cpu: Cpu,
        field: u8,
        at: At,
        of: Cpu,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Violation> {
        let resolved = self.fields[usize::from(field)];
        self.check(cpu, resolved, at)?;
        if at == At::Cur && !self.is_near(cpu, of) {
            self.cores[usize::from(cpu)].clock += self.times.far.1;
        }
        if resolved.context {
            let word = self.context(cpu, resolved.var, at, of)?;
            let old = *word;
            *word = f(old);
            return Ok(old);
        }
        self.change(field, of, f)
    }

    #[inline]
    fn contains(&self, cpu: Cpu, set: Set, who: Cpu) -> bool {
        self.in_set(cpu, set, who)
    }

    fn is_empty(&self, cpu: Cpu, set: Set) -> bool {
        self.next_member(cpu, set, 0).is_none()
    }

    #[inline]
    fn start_loop(&mut self, cpu: Cpu, _set: Set) {
        self.cores[usize::from(cpu)].loop_next = 0;
    }

    #[inline]
    fn next_in(&mut self, cpu: Cpu, set: Set) -> Option<Cpu> {
        let n = self.cores.len() as Cpu;
        let mut who = self.cores[usize::from(cpu)].loop_next;
        if set == Set::MmCpumask {
            let mm = self.cores[usize::from(cpu)].request.mm;
            who = self.contexts.next_in(mm, who).unwrap_or(n);
            if who == cpu {
                who = self.contexts.next_in(mm, who + 1).unwrap_or(n);
            }
        }
        while who < n && !self.in_set(cpu, set, who) {
            who += 1;
        }
        self.cores[usize::from(cpu)].loop_next = who + 1;
        (who < n).then_some(who)
    }

    fn clear_targets(&mut self, cpu: Cpu) {
        let at = usize::from(cpu) * self.words;
        self.targets[at..at + self.words].fill(0);
    }

    #[inline]
    fn put(&mut self, cpu: Cpu, who: Cpu) {
        self.targets[usize::from(cpu) * self.words + usize::from(who) / 64] |= 1 << (who % 64);
    }

    #[inline]
    fn irq(&mut self, cpu: Cpu, on: bool) {
        self.cores[usize::from(cpu)].if_on = on;
        self.note_if(on);
    }

    #[inline]
    fn gs(&self, cpu: Cpu) -> bool {
        self.cores[usize::from(cpu)].gs_kernel
    }

    #[inline]
    fn set_gs(&mut self, cpu: Cpu, kernel: bool) {
        self.cores[usize::from(cpu)].gs_kernel = kernel;
    }

    #[inline]
    fn cr3(&self, cpu: Cpu) -> u64 {
        self.cores[usize::from(cpu)].cr3
    }

    #[inline]
    fn cr3_is_user(&self, _cpu: Cpu, cr3: u64) -> bool {
        cr3 & USER != 0
    }

    #[inline]
    fn cr3_for(&self, cpu: Cpu, to: Cr3, a: u64, b: u64) -> u64 {
        let now = self.cores[usize::from(cpu)].cr3;
        match to {
            Cr3::Kernel => now & !USER,
            Cr3::User => now | USER,
            Cr3::Reg(_) => a,
            Cr3::Mm { .. } => a << 16 | b << 8,
        }
    }

    #[inline]
    fn mov_cr3(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation> {
        self.loads_cr3(cpu, cr3, keep);
        Ok(())
    }

    fn invalidate(&mut self, cpu: Cpu, what: Invalidate) -> Result<(), Violation> {
        self.invalidated(cpu, what);
        Ok(())
    }

    fn tlbsync(&mut self, cpu: Cpu) -> bool {
        let c = &mut self.cores[usize::from(cpu)];
        let (at, id) = (c.clock, c.request.id);
        let sent = c.broadcast.take();
        if sent.is_some() && self.flushes_user(cpu) {
            self.user_broadcast(cpu, Set::Online);
        }
        if let Some(full) = sent.filter(|full| *full || !self.flushes_user(cpu)) {
            for who in 0..self.cores.len() as Cpu {
                self.broadcast_reached(who, at, full, id);
            }
        }
        true
    }

    fn rar(&mut self, cpu: Cpu, to: Set) -> Result<(), Violation> {
        if self.flushes_user(cpu) {
            self.user_broadcast(cpu, to);
            return Ok(());
        }
        let c = &self.cores[usize::from(cpu)];
        let (at, id, full) = (c.clock, c.request.id, c.request.full);
        for who in 0..self.cores.len() as Cpu {
            if self.in_set(cpu, to, who) {
                self.broadcast_reached(who, at, full, id);
            }
        }
        Ok(())
    }

    fn owe(&mut self, cpu: Cpu, others: bool) {
        let c = &mut self.cores[usize::from(cpu)];
        if others {
            c.owe_others = true;
        } else {
            c.owe_user |= 1 << (c.cr3 >> 8 & 7);
        }
    }

    fn load_mm(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation> {
        self.loads_mm(cpu, cr3, keep)
    }

    fn ask(&mut self, cpu: Cpu, what: Ask, v: u64) -> Result<u64, Violation> {
        let c = &mut self.cores[usize::from(cpu)];
        let loaded = c.cr3 >> 8 & 0xff;
        Ok(match what {
            Ask::NextMm => u64::from(self.contexts.asked(cpu).0),
            Ask::FlushMm => u64::from(self.contexts.asked(cpu).1),
            Ask::InfoMm => u64::from(self.current_request(cpu).mm),
            Ask::InfoGen => self.current_request(cpu).generation,
            Ask::LoadedAsid => loaded,
            Ask::AsidFor(_) => {
                let others = std::mem::take(&mut c.owe_others);
                let pcid = self.features.has(Feature::Pcid);
                let choice = self.contexts.choose(cpu, v, loaded as usize, others, pcid)?;
                self.add(cpu, Stat::asid_hits, u64::from(choice.hit));
                self.add(cpu, Stat::asid_misses, u64::from(!choice.hit));
                self.add(cpu, Stat::residency, u64::from(choice.dropped));
                u64::from(choice.asid)
            }
        })
    }

    fn flush_info(&mut self, cpu: Cpu, mm: u64, generation: u64) {
        let request = &mut self.cores[usize::from(cpu)].request;
        (request.mm, request.generation) = (mm as u16, generation);
    }

    fn mask(&mut self, cpu: Cpu, mm: u64, on: bool) -> Result<(), Violation> {
        self.contexts.mask(mm, cpu, on)
    }

    #[inline]
    fn touch(&mut self, cpu: Cpu, what: Touch) -> Result<(), Violation> {
        if let Touch::Read(page) | Touch::Write(page) = what
            && self.cores[usize::from(cpu)].cr3 & USER != 0
            && !self.user_mapped[usize::from(page)]
        {
            return Err(Violation::UnmappedAccess); // page-table isolation: the user table has not got it
        }
        if what == Touch::Zone(Zone::Recycled) {
            self.used_recycled(cpu);
        }
        // In summary, misses are charged as one sum after a flush; in full, bodies and user mode look pages up too.
        if self.tlbs.is_some()
            && let Touch::Zone(zone @ (Zone::Entry | Zone::Stack)) = what
        {
            let pti = self.features.has(Feature::Pti);
            let (page, global) =
                if zone == Zone::Entry { (ENTRY_PAGES, true) } else { (ENTRY_PAGES + 0x100, !pti) };
            let by = self.cores[usize::from(cpu)].flushed_by;
            let (time, walks) = self.on_tlb(cpu, Step::Touch { page, global, by });
            self.refilled(cpu, walks, time);
        }
        Ok(())
    }

    fn walk(&mut self, cpu: Cpu, _: u8, _: Walk) -> Result<(), Violation> {
        let user = self.cores[usize::from(cpu)].cr3 & USER != 0 && self.has_pti();
        if user { Err(Violation::UnmappedAccess) } else { Ok(()) }
    }

    /// The engine knows which programs run, and how long a grace period takes.
    fn rcu(&mut self, _: Cpu, _: Rcu) -> Result<(), Violation> {
        Ok(())
    }

    fn graced(&self, _: Cpu) -> bool {
        true
    }

    fn call_later(&mut self, _: Cpu, _: ProgId) -> Result<(), Violation> {
        Ok(())
    }

    #[inline]
    fn body(&mut self, cpu: Cpu, _slot: Slot) -> Result<(), Violation> {
        let c = &self.cores[usize::from(cpu)];
        if c.sync_owed && c.cr3 & USER == 0 {
            let clock = c.clock;
            self.add(cpu, Stat::text_hazards, 1);
            self.event(cpu, clock, 0, Kind::Hazard, Cause::TextPoke, 0);
        }
        self.used_recycled(cpu);
        Ok(())
    }

    fn run_site(&mut self, _: Cpu, site: Site) -> Result<Ran, Violation> {
        Ok(self.ran(site))
    }

    fn pte(&mut self, _: Cpu, pages: Pages, _: Level, v: Entry, _: bool) -> Result<(), Violation> {
        if let Pages::Text(site, part) = pages {
            self.patch(site, part, v);
        }
        Ok(())
    }

    fn free_table(&mut self, _: Cpu, _: Pages) -> Result<(), Violation> {
        Ok(())
    }

    #[inline]
    fn range_is_full(&self, cpu: Cpu) -> bool {
        self.current_request(cpu).full
    }

    fn serialise(&mut self, cpu: Cpu) {
        self.serialised(cpu);
    }

    fn request(&mut self, cpu: Cpu, pages: Pages) {
        if matches!(pages, Pages::Text(..)) {
            return self.sync_requested(cpu);
        }
        self.last_request += 1;
        let c = &mut self.cores[usize::from(cpu)];
        c.request.id = self.last_request;
        c.request.at = c.clock;
        c.request.reached = Reached::Nobody;
        c.sent = 0;
        let Request { full, user, .. } = c.request;
        let (all, of_which) = if user {
            (Stat::user_flush_requests, Stat::user_flush_requests_full)
        } else {
            (Stat::flush_requests, Stat::flush_requests_full)
        };
        self.add(cpu, all, 1);
        self.add(cpu, of_which, u64::from(full));
    }

    fn promise(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation> {
        if matches!(pages, Pages::Text(..)) {
            self.sync_promised(cpu);
            return Ok(());
        }
        let Core { request, clock: now, sent, .. } = self.cores[usize::from(cpu)];
        self.cores[usize::from(cpu)].promised = true;
        let took = if request.user { Stat::user_flush_request_ps } else { Stat::flush_request_ps };
        self.add(cpu, took, now - request.at);
        self.event(cpu, request.at, now - request.at, Kind::Request, request.cause, sent);
        if request.user {
            return self.user_promise(cpu, request);
        }
        for who in 0..self.volleys.shots.len() {
            if self.debts[who].flushed_at < request.at && self.debts[who].served != request.id {
                self.settle_volleys(who as Cpu);
            }
        }
        for (who, debt) in self.debts.iter_mut().enumerate() {
            if debt.flushed_at >= request.at || debt.served == request.id {
                continue;
            }
            debt.deferrals += 1;
            if !debt.owed {
                debt.owed = true;
                let c = &mut self.cores[who];
                if c.view {
                    c.exposed_from = now;
                    c.exposed_in = c.window;
                }
            }
            if self.keeps_events {
                self.levels[who][Pending::Flushes as usize].rise(now);
                self.timelines[who].push(Event {
                    time_ps: now,
                    duration_ps: 0,
                    cpu: who as Cpu,
                    kind: Kind::Deferral,
                    cause: request.cause,
                    other: u32::from(cpu),
                });
            }
        }
        Ok(())
    }

    fn ipi(&mut self, cpu: Cpu, to: Set, run: ProgId) {
        self.send_calls(cpu, to, run);
    }

    #[inline]
    fn acked(&self, cpu: Cpu) -> bool {
        self.cores[usize::from(cpu)].acks_left == 0
    }

    fn take_call(&mut self, cpu: Cpu) -> Option<ProgId> {
        self.next_call(cpu)
    }

    fn ack(&mut self, cpu: Cpu) {
        self.acknowledge(cpu);
    }
}
