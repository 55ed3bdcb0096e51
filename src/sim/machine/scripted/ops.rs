//! What an op does to the machine of counterexamples: it goes on to [`Timed`](super::Timed), and to what the schedule can see.

use super::super::USER;
use super::{OTHERS, Scripted, Stored};
use crate::hw::invalidate::{Invpcid as HwInvpcid, Scope};
use crate::kernel::program::{
    Ask, At, Cr3, Entry, Invpcid, Level, NoFlush, Op, Pages, Pc, ProgId, Rcu, Set, Site, Slot, Touch, Walk,
    Zone,
};
use crate::kernel::step::{Cpu, Invalidate, Machine, Order, Ran, Violation};

impl Machine for Scripted {
    fn ordered(&self, cpu: Cpu, order: Order) -> bool {
        let stores = &self.stores[usize::from(cpu)];
        match order {
            Order::Publishes => stores.is_empty(),
            Order::Invpcid if self.rules.invpcid_publishes => stores.is_empty(),
            Order::Invpcid if !self.rules.invpcid_ordered => true,
            Order::Invpcid => !stores.iter().any(|s| matches!(s, Stored::Entry { .. })),
        }
    }

    fn charge(&mut self, cpu: Cpu, pc: Pc, op: Op) {
        self.t.charge(cpu, pc, op);
    }

    fn read(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu) -> Result<u64, Violation> {
        self.reach(cpu, field, at)?;
        // This CPU's own stores come first, the youngest on top; a field may share its word with others.
        let mine = self.t.place_of(field, of);
        let mut word = self.t.word_of(field, of);
        for store in &self.stores[usize::from(cpu)] {
            if let Stored::Field { field: other, owner, v } = *store
                && self.t.place_of(other, owner) == mine
            {
                let f = self.t.fields[usize::from(other)];
                word = word & !(f.mask << f.shift) | v << f.shift;
            }
        }
        let f = self.t.fields[usize::from(field)];
        Ok(word >> f.shift & f.mask)
    }

    fn write(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu, v: u64) -> Result<(), Violation> {
        self.reach(cpu, field, at)?;
        if v > self.t.fields[usize::from(field)].mask {
            return Err(Violation::Overflow);
        }
        self.store(cpu, Stored::Field { field, owner: of, v })
    }

    fn rmw(
        &mut self,
        cpu: Cpu,
        field: u8,
        at: At,
        of: Cpu,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Violation> {
        self.reach(cpu, field, at)?;
        self.t.change(field, of, f)
    }

    fn contains(&self, cpu: Cpu, set: Set, who: Cpu) -> bool {
        self.t.contains(cpu, set, who)
    }

    fn is_empty(&self, cpu: Cpu, set: Set) -> bool {
        self.t.is_empty(cpu, set)
    }

    fn decides(&self, _: Cpu) -> bool {
        self.takes.unwrap_or(true)
    }

    fn start_loop(&mut self, cpu: Cpu, _: Set) {
        self.visited[usize::from(cpu)][self.level] = 0;
    }

    fn next_in(&mut self, cpu: Cpu, set: Set) -> Option<Cpu> {
        let left = self.unvisited(cpu, set);
        let next = self.pick.or(left.first().copied()).filter(|who| left.contains(who));
        let visited = &mut self.visited[usize::from(cpu)][self.level];
        *visited = next.map_or(0, |who| *visited | 1 << who);
        next
    }

    fn clear_targets(&mut self, cpu: Cpu) {
        self.t.clear_targets(cpu);
    }

    fn put(&mut self, cpu: Cpu, who: Cpu) {
        self.t.put(cpu, who);
    }

    fn irq(&mut self, cpu: Cpu, on: bool) {
        if self.level == 0 {
            self.t.irq(cpu, on);
        }
    }

    fn gs(&self, cpu: Cpu) -> bool {
        self.t.gs(cpu)
    }

    fn set_gs(&mut self, cpu: Cpu, kernel: bool) {
        self.t.set_gs(cpu, kernel);
    }

    fn cr3(&self, cpu: Cpu) -> u64 {
        self.t.cr3(cpu)
    }

    fn cr3_is_user(&self, _: Cpu, cr3: u64) -> bool {
        cr3 & USER != 0
    }

    fn cr3_for(&self, cpu: Cpu, to: Cr3, a: u64, b: u64) -> u64 {
        match to {
            Cr3::User if !self.t.has_pti() => self.cr3(cpu),
            Cr3::Kernel | Cr3::User | Cr3::Reg(_) | Cr3::Mm { .. } => self.t.cr3_for(cpu, to, a, b),
        }
    }

    fn mov_cr3(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation> {
        let i = usize::from(cpu);
        self.t.mov_cr3(cpu, cr3, keep)?;
        self.load(cpu);
        let flush = match keep {
            NoFlush::Flush => true,
            NoFlush::Keep => false,
            NoFlush::Owed => self.owes[i] & Self::owed_to(cr3) != 0,
        };
        if keep == NoFlush::Owed && cr3 & USER != 0 {
            self.owes[i] &= !Self::owed_to(cr3);
        }
        if flush {
            self.mmus[i].apply(Scope::mov_cr3(Self::pcid(cr3)));
        }
        Ok(())
    }

    fn invalidate(&mut self, cpu: Cpu, what: Invalidate) -> Result<(), Violation> {
        self.t.invalidate(cpu, what)?;
        let cr3 = self.cr3_of(cpu);
        let here = &mut self.mmus[usize::from(cpu)];
        let pages = |pages: Pages| match pages {
            Pages::One(page) => usize::from(page)..usize::from(page) + 1,
            Pages::Range => 0..self.pages.len(),
            Pages::Text(..) => 0..0,
        };
        match what {
            Invalidate::Cr4Pge(_) | Invalidate::Invpcid(Invpcid::AllGlobal, ..) => {
                here.apply(Scope::ALL);
            }
            Invalidate::Invpcid(Invpcid::All, ..) => {
                here.apply(Scope::ALL_NON_GLOBAL);
            }
            Invalidate::Invpcid(Invpcid::Context, half, _) => {
                here.apply(Scope::invpcid(HwInvpcid::SingleContext(Self::pcid_of(cr3, half))));
            }
            Invalidate::Invpcid(Invpcid::Address, half, of) => {
                for page in pages(of) {
                    let what = HwInvpcid::Address(Self::pcid_of(cr3, half), Self::page_number(page));
                    here.apply(Scope::invpcid(what));
                }
            }
            Invalidate::Page(of) => {
                for page in pages(of) {
                    here.apply(Scope::invlpg(Self::page_number(page), Self::pcid(cr3)));
                }
            }
            // As late as it may be (APM Vol. 3, INVLPGB): at the next TLBSYNC.
            Invalidate::Broadcast { pages: of, .. } => {
                self.broadcast[usize::from(cpu)] |= pages(of).fold(0, |sent, page| sent | 1 << page);
            }
            Invalidate::BroadcastAll => self.broadcast[usize::from(cpu)] = (1 << self.pages.len()) - 1,
        }
        Ok(())
    }

    fn tlbsync(&mut self, cpu: Cpu) -> bool {
        let sent = std::mem::take(&mut self.broadcast[usize::from(cpu)]);
        for page in (0..self.pages.len()).filter(|page| sent >> page & 1 != 0) {
            let page = Some(Self::page_number(page));
            for mmu in &mut self.mmus {
                mmu.apply(Scope { page, ..Scope::ALL });
            }
        }
        self.t.tlbsync(cpu)
    }

    fn rar(&mut self, cpu: Cpu, to: Set) -> Result<(), Violation> {
        self.t.rar(cpu, to)?;
        for who in 0..self.mmus.len() {
            if self.t.in_set(cpu, to, who as Cpu) {
                self.mmus[who].apply(Scope::ALL);
            }
        }
        Ok(())
    }

    fn owe(&mut self, cpu: Cpu, others: bool) {
        self.owes[usize::from(cpu)] |= if others { OTHERS } else { Self::owed_to(self.cr3_of(cpu)) };
        self.t.owe(cpu, others);
    }

    fn touch(&mut self, cpu: Cpu, what: Touch) -> Result<(), Violation> {
        match what {
            Touch::Zone(zone) => self.zone(cpu, zone),
            Touch::Read(page) | Touch::Write(page) => self.access(cpu, usize::from(page), true),
            Touch::Text => Ok(()),
        }
    }

    fn run_site(&mut self, cpu: Cpu, site: Site) -> Result<Ran, Violation> {
        self.t.run_site(cpu, site)
    }

    fn walk(&mut self, cpu: Cpu, page: u8, step: Walk) -> Result<(), Violation> {
        self.t.walk(cpu, page, step)?;
        self.walk_in_software(cpu, usize::from(page), step)
    }

    fn rcu(&mut self, cpu: Cpu, what: Rcu) -> Result<(), Violation> {
        self.t.rcu(cpu, what)
    }

    fn graced(&self, cpu: Cpu) -> bool {
        self.t.graced(cpu)
    }

    fn call_later(&mut self, cpu: Cpu, run: ProgId) -> Result<(), Violation> {
        self.t.call_later(cpu, run)
    }

    fn body(&mut self, cpu: Cpu, slot: Slot) -> Result<(), Violation> {
        self.t.body(cpu, slot)?;
        self.zone(
            cpu,
            match slot {
                Slot::Syscall | Slot::Interrupt => Zone::Kernel,
                Slot::Nmi => Zone::Nmi,
                Slot::Idle => Zone::Danger,
            },
        )
    }

    fn pte(&mut self, cpu: Cpu, pages: Pages, _: Level, v: Entry, locked: bool) -> Result<(), Violation> {
        let lasting = self.rules.lasting;
        let changed = if v == Entry::LessRights && lasting != 0 { lasting } else { !lasting };
        for page in self.which(pages) {
            if pages == Pages::Range && u32::from(self.own[usize::from(cpu)]) & changed & 1 << page == 0 {
                continue;
            }
            let store = Stored::Entry { page, v };
            if locked {
                self.commit(cpu, store)?;
            } else {
                self.store(cpu, store)?;
            }
        }
        Ok(())
    }

    fn free_table(&mut self, _: Cpu, _: Pages) -> Result<(), Violation> {
        Ok(())
    }

    fn range_is_full(&self, _: Cpu) -> bool {
        !self.rules.ranged
    }

    fn request(&mut self, cpu: Cpu, pages: Pages) {
        self.t.request(cpu, pages);
        for page in self.which(pages) {
            // S2: what is overwritten and visible, and what this CPU itself has overwritten.
            self.covered[usize::from(cpu)][page] = self.version[page] + self.own_entries(cpu, page);
        }
    }

    fn promise(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation> {
        self.t.promise(cpu, pages)?;
        for page in self.which(pages) {
            let covered = std::mem::take(&mut self.covered[usize::from(cpu)][page]);
            self.dead[page] = self.dead[page].max(covered);
        }
        Ok(())
    }

    fn ipi(&mut self, cpu: Cpu, to: Set, run: ProgId) {
        self.t.ipi(cpu, to, run);
    }

    fn acked(&self, cpu: Cpu) -> bool {
        self.t.acked(cpu)
    }

    fn take_call(&mut self, cpu: Cpu) -> Option<ProgId> {
        self.t.take_call(cpu)
    }

    fn ack(&mut self, cpu: Cpu) {
        // csd_unlock is a store-release: behind earlier stores if there are any.
        if self.pending(cpu) == 0 {
            self.t.ack(cpu);
        } else if let Some(call) = self.t.cores[usize::from(cpu)].call.take() {
            self.stores[usize::from(cpu)].push_back(Stored::Ack(call));
        }
    }

    fn ask(&mut self, cpu: Cpu, what: Ask, v: u64) -> Result<u64, Violation> {
        self.t.ask(cpu, what, v)
    }

    fn flush_info(&mut self, cpu: Cpu, mm: u64, generation: u64) {
        self.t.flush_info(cpu, mm, generation);
    }

    fn mask(&mut self, cpu: Cpu, mm: u64, on: bool) -> Result<(), Violation> {
        self.t.mask(cpu, mm, on)
    }

    fn serialise(&mut self, cpu: Cpu) {
        self.t.serialise(cpu);
    }
}
