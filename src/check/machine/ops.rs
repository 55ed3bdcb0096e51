//! What an op does: the abstract machine's side of `kernel::step`.

use super::counts::of_mm;
use super::{Abs, CR3_USER, INIT_MM, Model, NO_MM, Seen};
use crate::check::layout::{Target, tags};
use crate::check::scope::InvpcidOrder;
use crate::kernel::program::{
    Ask, At, Cr3, Entry, Invpcid, Level, NoFlush, Op, PageKind, Pages, PcidOf, ProgId, Rcu, Set, Site, Slot,
    Touch, Walk,
};
use crate::kernel::step::{Cpu, Invalidate, Machine, Order, Ran, Violation};

impl<const W: usize> Machine for Abs<'_, W> {
    fn ordered(&self, cpu: Cpu, order: Order) -> bool {
        let cpu = usize::from(cpu);
        let n = self.buffered(cpu);
        match order {
            Order::Publishes => n == 0,
            Order::Invpcid => match self.m.assume.invpcid {
                InvpcidOrder::Unordered => true,
                InvpcidOrder::Ordered => {
                    (0..n).all(|i| !matches!(self.decode(cpu, i).0, Target::Entry { .. }))
                }
                InvpcidOrder::Publishes => n == 0,
            },
        }
    }

    fn charge(&mut self, _: Cpu, _: u16, _: Op) {}

    fn read(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu) -> Result<u64, Violation> {
        self.reach_var(usize::from(cpu), field, at)?;
        Ok(self.load_field(usize::from(cpu), field, if at == At::Shared { 0 } else { usize::from(of) }))
    }

    fn write(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu, v: u64) -> Result<(), Violation> {
        self.reach_var(usize::from(cpu), field, at)?;
        let owner = if at == At::Shared { 0 } else { of as u8 };
        if matches!(at, At::Asid(_)) {
            self.fits(field, v)?;
            self.commit(usize::from(cpu), Target::Field { field, owner }, v);
            return Ok(());
        }
        self.store_field(usize::from(cpu), field, owner, v)
    }

    fn rmw(
        &mut self,
        cpu: Cpu,
        field: u8,
        at: At,
        of: Cpu,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Violation> {
        self.reach_var(usize::from(cpu), field, at)?;
        let owner = if at == At::Shared { 0 } else { usize::from(of) };
        let (b, shift, mask) = self.place(usize::from(cpu), field, owner);
        let word = self.get(b);
        let old = (word & mask) >> shift;
        let mut new = f(old);
        if old == 0 && matches!(at, At::Mm(_)) && self.m.code.counts(field).is_some() {
            new = of_mm(new, owner); // `inc`, which is all that there is
        }
        if new > mask >> shift {
            return Err(Violation::Overflow);
        }
        self.set(b, word & !mask | new << shift);
        Ok(old)
    }

    fn contains(&self, cpu: Cpu, set: Set, who: Cpu) -> bool {
        self.members(set, cpu) >> who & 1 != 0
    }

    fn is_empty(&self, cpu: Cpu, set: Set) -> bool {
        self.members(set, cpu) == 0
    }

    fn decides(&self, _: Cpu) -> bool {
        self.takes
    }

    fn start_loop(&mut self, cpu: Cpu, _: Set) {
        let b = self.f(cpu).visited;
        self.set(b, 0);
    }

    fn next_in(&mut self, cpu: Cpu, set: Set) -> Option<Cpu> {
        let b = self.f(cpu).visited;
        let visited = self.get(b);
        let left = u64::from(self.members(set, cpu)) & !visited;
        if left == 0 {
            self.set(b, 0);
            return None;
        }
        let who = self.pick.unwrap_or(left.trailing_zeros() as Cpu);
        self.set(b, visited | 1 << who);
        Some(who)
    }

    fn clear_targets(&mut self, cpu: Cpu) {
        let b = self.f(cpu).targets;
        self.set(b, 0);
    }

    fn put(&mut self, cpu: Cpu, who: Cpu) {
        let b = self.f(cpu).targets;
        let old = self.get(b);
        self.set(b, old | 1 << who);
    }

    fn irq(&mut self, cpu: Cpu, on: bool) {
        if self.level == 0 {
            let b = self.c(cpu).irqs;
            self.set(b, u64::from(on));
        }
    }

    fn gs(&self, cpu: Cpu) -> bool {
        self.get(self.c(cpu).gs) != 0
    }

    fn set_gs(&mut self, cpu: Cpu, kernel: bool) {
        let b = self.c(cpu).gs;
        self.set(b, u64::from(kernel));
    }

    fn cr3(&self, cpu: Cpu) -> u64 {
        self.get(self.c(cpu).cr3)
    }

    fn cr3_is_user(&self, _: Cpu, cr3: u64) -> bool {
        cr3 & CR3_USER != 0
    }

    fn cr3_for(&self, cpu: Cpu, to: Cr3, a: u64, b: u64) -> u64 {
        let now = self.cr3(cpu);
        match to {
            Cr3::Kernel => now & !CR3_USER,
            Cr3::User if self.m.pti => now | CR3_USER,
            Cr3::User => now,
            Cr3::Reg(_) => a,
            Cr3::Mm { .. } => (b << 1) | a << (1 + u32::from(self.m.layout.asids > 1)),
        }
    }

    fn mov_cr3(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation> {
        let c = self.c(cpu);
        if self.m.layout.shared.freed_mms.exists() && self.is_freed(cr3) {
            return Err(Violation::FreedMm);
        }
        self.set(c.cr3, cr3);
        self.drop_text(usize::from(cpu));
        let owes = self.get(c.owes);
        let flush = match keep {
            NoFlush::Flush => true,
            NoFlush::Keep => false,
            NoFlush::Owed => owes >> self.m.asid(cr3) & 1 != 0,
        };
        if keep == NoFlush::Owed && cr3 & CR3_USER != 0 {
            self.set(c.owes, owes & !(1 << self.m.asid(cr3)));
        }
        if !self.m.pcid {
            self.forget_where(usize::from(cpu), false, |_| true);
        } else if flush {
            let half = if cr3 & CR3_USER != 0 { PcidOf::User } else { PcidOf::Kernel };
            let gone = self.slot_of(half, cr3);
            self.forget_where(usize::from(cpu), false, |slot| slot == gone);
        }
        Ok(())
    }

    fn invalidate(&mut self, cpu: Cpu, what: Invalidate) -> Result<(), Violation> {
        let me = usize::from(cpu);
        let cr3 = self.cr3(cpu);
        let here = self.slot_of(if cr3 & CR3_USER != 0 { PcidOf::User } else { PcidOf::Kernel }, cr3);
        // MOV CR4 and INVLPG are on the SDM's list of serialising instructions, INVPCID and INVLPGB are not (H4).
        if matches!(what, Invalidate::Cr4Pge(_) | Invalidate::Page(_)) {
            self.drop_text(me);
        }
        match what {
            Invalidate::Cr4Pge(_) => self.forget_where(me, true, |_| true),
            Invalidate::Page(pages) => {
                for p in self.reached_by(pages) {
                    let slot = if self.m.layout.pages[p].global { 0 } else { here };
                    if slot < tags(&self.m.layout.pages[p], self.m.layout.asids) {
                        self.forget(me, p, slot);
                    }
                }
                // Upper entries of the current PCID: for every address (SDM 3A 4.10.4.1), or under EFER.TCE for those
                // flushed (APM 2 3.1.7).
                for p in 0..self.m.layout.pages.len() {
                    if !self.m.assume.tce || self.which(pages).any(|q| q == p) {
                        self.forget_upper(me, p, here);
                    }
                }
            }
            Invalidate::Invpcid(Invpcid::Address, of, pages) => {
                let slot = self.slot_of(of, cr3);
                for p in self.reached_by(pages) {
                    let page = &self.m.layout.pages[p];
                    if !page.global && slot < tags(page, self.m.layout.asids) {
                        self.forget(me, p, slot);
                    }
                    self.forget_upper(me, p, slot);
                }
            }
            Invalidate::Invpcid(Invpcid::Context, of, _) => {
                let gone = self.slot_of(of, cr3);
                self.forget_where(me, false, |slot| slot == gone);
            }
            Invalidate::Invpcid(Invpcid::AllGlobal, ..) => self.forget_where(me, true, |_| true),
            Invalidate::Invpcid(Invpcid::All, ..) => self.forget_where(me, false, |_| true),
            // Complete at the next TLBSYNC and no earlier that one could rely on (APM Vol. 3, INVLPGB).
            Invalidate::Broadcast { pages, leaves, asid } => {
                let of = self.reached_by(pages).fold(0, |of, p| of | 1 << p);
                self.send_broadcast(me, of, (leaves, asid));
            }
            Invalidate::BroadcastAll => {
                self.send_broadcast(me, (1 << self.m.layout.pages.len()) - 1, (false, None));
            }
        }
        Ok(())
    }

    fn tlbsync(&mut self, cpu: Cpu) -> bool {
        let b = self.c(cpu).broadcast;
        let of = self.get(b);
        if of != 0 {
            self.set(b, 0);
            self.others = self.m.masks[3];
            let pages = self.m.layout.pages.len();
            for c in 0..self.m.layout.cpus.len() {
                for (i, &operands) in self.m.layout.broadcasts.iter().enumerate() {
                    for p in (0..pages).filter(|p| of >> (i * pages + p) & 1 != 0) {
                        self.take_broadcast(c, p, operands);
                    }
                }
                self.reached(c);
            }
        }
        true
    }

    fn rar(&mut self, cpu: Cpu, to: Set) -> Result<(), Violation> {
        let set = self.members(to, cpu);
        self.others |= set;
        for c in 0..self.m.layout.cpus.len() {
            if set >> c & 1 != 0 {
                self.forget_where(c, true, |_| true);
                self.reached(c);
            }
        }
        Ok(())
    }

    fn serialise(&mut self, cpu: Cpu) {
        self.drop_text(usize::from(cpu));
    }

    fn owe(&mut self, cpu: Cpu, others: bool) {
        let b = self.c(cpu).owes;
        let old = self.get(b);
        let bit = if others { self.m.layout.asids } else { self.m.asid(self.cr3(cpu)) };
        self.set(b, old | 1 << bit);
    }

    fn ask(&mut self, cpu: Cpu, what: Ask, v: u64) -> Result<u64, Violation> {
        let c = self.c(cpu);
        let cr3 = self.get(c.cr3);
        let mms = self.m.layout.mms as u64;
        let task = self.task(usize::from(cpu));
        Ok(match what {
            // In turn: init_mm (a kernel thread), then each process.
            Ask::NextMm => match self.m.mm(cr3) as u64 {
                INIT_MM => NO_MM + 1,
                mm if mm + 1 < mms => mm + 1,
                _ => INIT_MM,
            },
            // That of the tracked user page.
            Ask::FlushMm => {
                let page = self.m.layout.pages.iter().find_map(|p| match p.kind {
                    PageKind::User(mm) => Some(u64::from(mm)),
                    _ => None,
                });
                page.unwrap_or(NO_MM + 1)
            }
            Ask::InfoMm | Ask::InfoGen => {
                let serving = self.get(c.serving) as usize;
                let from = serving.checked_sub(1).unwrap_or(task);
                if from != usize::from(cpu) {
                    self.others |= 1 << from;
                }
                let (mm, generation) = self.m.layout.cpus[from].info;
                self.get(if what == Ask::InfoMm { mm } else { generation })
            }
            Ask::LoadedAsid => self.m.asid(cr3) as u64,
            Ask::AsidFor(_) => self.choose_asid(usize::from(cpu), v),
        })
    }

    fn flush_info(&mut self, cpu: Cpu, mm: u64, generation: u64) {
        let (a, b) = self.m.layout.cpus[self.task(usize::from(cpu))].info;
        self.set(a, mm);
        self.set(b, generation);
    }

    fn mask(&mut self, cpu: Cpu, mm: u64, on: bool) -> Result<(), Violation> {
        let b = self.m.layout.shared.masks.get(mm as usize).copied().unwrap_or_default();
        if !b.exists() {
            return Err(Violation::Overflow);
        }
        let old = self.get(b);
        self.set(b, if on { old | 1 << cpu } else { old & !(1 << cpu) });
        Ok(())
    }

    fn touch(&mut self, cpu: Cpu, what: Touch) -> Result<(), Violation> {
        match what {
            Touch::Zone(z) => self.zone(usize::from(cpu), z),
            Touch::Text => self.run_text(usize::from(cpu), 0).map(|_head| ()),
            Touch::Read(p) | Touch::Write(p) => {
                self.explicit(usize::from(cpu), usize::from(p)).map(|_carried_out| ())
            }
        }
    }

    fn run_site(&mut self, cpu: Cpu, site: Site) -> Result<Ran, Violation> {
        self.run_branch(usize::from(cpu), site)
    }

    fn rsp(&mut self, cpu: Cpu, stack: bool) {
        let b = self.f(cpu).scratch;
        if b.exists() {
            self.set(b, u64::from(!stack));
        }
    }

    fn load_page(&mut self, cpu: Cpu, page: u8) -> Result<u64, Violation> {
        if !self.explicit(usize::from(cpu), usize::from(page))? {
            return Ok(0);
        }
        match self.frame_of(usize::from(cpu), page)? {
            Some(field) => Ok(self.load_field(usize::from(cpu), field, 0)),
            None => Ok(0), // no data stands behind the page
        }
    }

    fn store_page(&mut self, cpu: Cpu, page: u8, v: u64) -> Result<(), Violation> {
        if !self.explicit(usize::from(cpu), usize::from(page))? {
            return Ok(());
        }
        match self.frame_of(usize::from(cpu), page)? {
            Some(field) => self.store_field(usize::from(cpu), field, 0, v),
            None => Ok(()),
        }
    }

    fn walk(&mut self, cpu: Cpu, page: u8, step: Walk) -> Result<(), Violation> {
        self.walk_in_software(usize::from(cpu), usize::from(page), step)
    }

    fn rcu(&mut self, cpu: Cpu, what: Rcu) -> Result<(), Violation> {
        self.about_grace(usize::from(cpu), what)
    }

    fn graced(&self, cpu: Cpu) -> bool {
        self.get(self.c(cpu).grace) == 0
    }

    fn call_later(&mut self, cpu: Cpu, run: ProgId) -> Result<(), Violation> {
        self.runs_later(usize::from(cpu), run)
    }

    fn body(&mut self, cpu: Cpu, slot: Slot) -> Result<(), Violation> {
        let zone = Model::zone_of(Op::Body(slot)).expect("every body is in a zone");
        self.zone(usize::from(cpu), zone)
    }

    fn pte(&mut self, cpu: Cpu, pages: Pages, level: Level, v: Entry, locked: bool) -> Result<(), Violation> {
        let own = self.m.role(self.task(usize::from(cpu))).own & self.m.changed(v);
        for p in self.which(pages) {
            if pages == Pages::Range && own >> p & 1 == 0 {
                continue;
            }
            if locked {
                self.commit_entry(p, level, v);
            } else {
                self.push_store(usize::from(cpu), Target::Entry { page: p as u8, level, v }, 0);
            }
        }
        Ok(())
    }

    fn clflush(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation> {
        let own = self.m.role(self.task(usize::from(cpu))).own & self.m.changed(Entry::Uncached);
        for p in self.which(pages) {
            if self.m.is_typed(p) && (pages != Pages::Range || own >> p & 1 != 0) {
                self.push_store(usize::from(cpu), Target::Lines { page: p as u8 }, 0);
            }
        }
        Ok(())
    }

    fn wbinvd(&mut self, cpu: Cpu) {
        self.drop_text(usize::from(cpu));
        self.write_back(usize::from(cpu));
    }

    fn free_table(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation> {
        let own = self.m.role(self.task(usize::from(cpu))).own & self.m.changed(Entry::None);
        for p in self.which(pages) {
            if pages == Pages::Range && own >> p & 1 == 0 {
                continue;
            }
            self.seen |= Seen::HANDED_ON; // S3
            let s = &self.m.layout.shared;
            let now = self.get(s.upper[p]) + self.own_entries(usize::from(cpu), p, Some(Level::Table));
            // Tables the entry pointed to before; its first table if it was never changed.
            self.set(s.freed[p], now.max(2));
        }
        Ok(())
    }

    fn free_mm(&mut self, _: Cpu, mm: u8) {
        let b = self.m.layout.shared.freed_mms;
        let freed = self.get(b);
        self.set(b, freed | 1 << mm);
    }

    fn migrate(&mut self, _: Cpu) {
        self.moved = self.pick.map(usize::from);
    }

    fn range_is_full(&self, _: Cpu) -> bool {
        !self.m.assume.ranged
    }

    fn request(&mut self, cpu: Cpu, pages: Pages) {
        let me = usize::from(cpu);
        for p in self.which(pages) {
            // S2: what is overwritten and visible, and what this CPU itself has overwritten.
            let covered = if self.m.layout.pages[p].kind == PageKind::Text {
                self.own_text(me, p)
            } else {
                self.get(self.m.layout.shared.version[p]) + self.own_entries(me, p, None)
            };
            self.set(self.m.layout.cpus[self.task(me)].covered[p], covered);
        }
    }

    fn promise(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation> {
        for p in self.which(pages) {
            let b = self.m.layout.cpus[self.task(usize::from(cpu))].covered[p];
            let covered = self.get(b);
            self.seen |= if covered == 0 { Seen::UNREQUESTED } else { Seen::PROMISED };
            self.set(b, 0);
            let dead = self.m.layout.shared.dead[p];
            if covered > self.get(dead) {
                self.set(dead, covered);
            }
            self.asks(p, covered);
            if self.m.layout.pages[p].kind != PageKind::Text {
                self.rename(p);
            }
        }
        Ok(())
    }

    fn ipi(&mut self, cpu: Cpu, to: Set, run: ProgId) {
        let set = self.members(to, cpu);
        self.others |= set;
        let me = usize::from(cpu);
        if self.m.masks[3] & !set & !(1 << cpu) != 0 {
            self.seen |= Seen::DEFERRED;
        }
        let handler = self.m.layout.handlers.iter().position(|&h| h == run).expect("listed") as u64;
        let task = self.task(me);
        let of_task = self.m.layout.cpus[task].waits;
        let mut waits = self.get(of_task);
        for t in 0..self.m.layout.cpus.len() {
            let c = &self.m.layout.cpus[t];
            // A CPU without a queue takes no remote calls at all (SEMANTICS: a walker such as an IOMMU).
            if set >> t & 1 == 0 || c.queue.is_empty() {
                continue;
            }
            self.seen |= Seen::IPI;
            let n = self.get(c.queued) as usize;
            if n == c.queue.len() {
                self.seen |= Seen::OVERFLOW;
                continue;
            }
            self.set(c.queue[n], handler * self.m.layout.cpus.len() as u64 + task as u64);
            self.set(c.queued, n as u64 + 1);
            if n == 0 {
                self.set(c.irq, 1);
            }
            waits |= 1 << t;
        }
        self.set(of_task, waits);
    }

    fn acked(&self, cpu: Cpu) -> bool {
        self.get(self.m.layout.cpus[self.task(usize::from(cpu))].waits) == 0
    }

    fn take_call(&mut self, cpu: Cpu) -> Option<ProgId> {
        let c = self.c(cpu);
        let n = self.get(c.queued) as usize;
        if n == 0 || self.get(self.f(cpu).device) != 0 {
            return None;
        }
        let e = self.get(c.queue[0]);
        for i in 1..n {
            let next = self.get(c.queue[i]);
            self.set(c.queue[i - 1], next);
        }
        self.set(c.queue[n - 1], 0);
        self.set(c.queued, n as u64 - 1);
        let cpus = self.m.layout.cpus.len() as u64;
        self.set(c.serving, e % cpus + 1);
        Some(self.m.layout.handlers[(e / cpus) as usize])
    }

    fn ack(&mut self, cpu: Cpu) {
        let c = self.c(cpu);
        let sender = self.get(c.serving) - 1;
        self.set(c.serving, 0);
        let target = Target::Ack { sender: sender as u8 };
        // A plain store (csd_unlock is a store-release): behind earlier stores if there are any.
        if self.buffered(usize::from(cpu)) == 0 {
            self.commit(usize::from(cpu), target, 0);
        } else {
            self.push_store(usize::from(cpu), target, 0);
        }
    }
}
