//! The timed machine with what a counterexample needs: a store queue per CPU (x86-TSO), tracked pages whose entries
//! have versions, and TLBs that are filled when the schedule says so.
//!
//! Clock, costs, registers, variables and remote calls are [`Timed`]'s. What is cached is what the model of the
//! hardware ([`crate::hw::Mmu`]) holds, so invalidations are its rules, not rules of this file. Whether an access is
//! stale is decided by versions (SEMANTICS S1-S5).

use std::collections::VecDeque;

use super::super::queue::NEVER;
use super::{Timed, USER};
use crate::hw::invalidate::{Invpcid as HwInvpcid, Scope};
use crate::hw::{Kind as Access, Mmu, PageSize, Pcid, Vpn};
use crate::kernel::program::{
    Ask, At, Cr3, Entry, Invpcid, Level, NoFlush, Op, Pages, Pc, PcidOf, ProgId, Set, Slot, Touch, Zone,
};
use crate::kernel::smp::Call;
use crate::kernel::step::{Cpu, Invalidate, Machine, Order, Violation};

/// A page whose translation is tracked.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// Name in schedules.
    pub name: String,
    /// Its entries are global.
    pub global: bool,
    /// The user table maps it too.
    pub user_mapped: bool,
    /// Mapped at the start.
    pub present: bool,
    /// Its address goes to somebody else when it is mapped again: vmalloc.
    pub handed_on: bool,
}

/// What the machine assumes, and what its code touches.
#[derive(Clone, Debug)]
pub struct Rules {
    /// By zone: the tracked pages its accesses look at, a bit each.
    pub zones: [u32; Zone::ALL.len()],
    /// Tracked pages whose region is never unmapped, a bit each: not what `range` means where it is, and what it means
    /// where rights change.
    pub lasting: u32,
    /// INVPCID and INVLPGB wait for every earlier store.
    pub invpcid_publishes: bool,
    /// They wait for this CPU's page-table stores.
    pub invpcid_ordered: bool,
    /// TLBSYNC and RAR make the stores of the CPUs they reach visible.
    pub broadcast_drains: bool,
    /// Stores are queued.
    pub store_buffers: bool,
    /// A %gs-relative access under the user's GSBASE is a violation.
    pub gs_faults: bool,
    /// Requested ranges are flushed page by page.
    pub ranged: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stored {
    Field { field: u8, owner: Cpu, v: u64 },
    Entry { page: usize, v: Entry },
    Ack(Call),
}

/// First tracked page; the others follow.
const FIRST: u64 = 0x1000;

const ASID_SHIFT: u32 = 8;

/// See the module.
#[derive(Clone, Debug)]
pub struct Scripted {
    /// The machine.
    pub t: Timed,
    rules: Rules,
    pages: Vec<Tracked>,
    mmus: Vec<Mmu>,
    /// By CPU and page and context: the version an entry was filled from.
    filled: Vec<Vec<[u64; 4]>>,
    version: Vec<u64>,
    mapped: Vec<bool>,
    dead: Vec<u64>,
    /// By CPU and page: what its request covers.
    covered: Vec<Vec<u64>>,
    stores: Vec<VecDeque<Stored>>,
    /// By CPU: the pages whose INVLPGB has no TLBSYNC yet.
    broadcast: Vec<u64>,
    owes: Vec<u8>,
    own: Vec<u8>,
    /// By CPU and frame.
    visited: Vec<[u64; 3]>,
    /// The frame that runs.
    pub level: usize,
    /// The CPU a loop goes to next.
    pub pick: Option<Cpu>,
}

impl Scripted {
    /// At the start. `own` by CPU: the pages that `range` means when it writes entries.
    pub fn new(t: Timed, mmu: &Mmu, pages: Vec<Tracked>, own: Vec<u8>, rules: Rules) -> Self {
        let (n, count) = (t.cores.len(), pages.len());
        let mut machine = Scripted {
            rules,
            mmus: vec![mmu.clone(); n],
            filled: vec![vec![[0; 4]; count]; n],
            version: vec![1; count],
            mapped: pages.iter().map(|p| p.present).collect(),
            dead: vec![0; count],
            covered: vec![vec![0; count]; n],
            stores: vec![VecDeque::new(); n],
            broadcast: vec![0; n],
            owes: vec![0; n],
            own,
            visited: vec![[0; 3]; n],
            level: 0,
            pick: None,
            pages,
            t,
        };
        for cpu in 0..n as Cpu {
            machine.load(cpu);
            let c = &mut machine.t.cores[usize::from(cpu)];
            (c.in_call_irq, c.request.full) = (true, !machine.rules.ranged);
        }
        machine
    }

    /// The context of a CR3 word.
    fn pcid(cr3: u64) -> Pcid {
        Pcid((1 + (cr3 >> ASID_SHIFT & 0xff) as u16) | if cr3 & USER != 0 { 0x800 } else { 0 })
    }

    fn pcid_of(cr3: u64, half: PcidOf) -> Pcid {
        Self::pcid(if half == PcidOf::User { cr3 | USER } else { cr3 & !USER })
    }

    fn cr3_of(&self, cpu: Cpu) -> u64 {
        self.t.cores[usize::from(cpu)].cr3
    }

    fn in_user_table(&self, cpu: Cpu) -> bool {
        self.cr3_of(cpu) & USER != 0
    }

    /// The MMU follows CR3; nothing is invalidated.
    fn load(&mut self, cpu: Cpu) {
        let pcid = Self::pcid(self.cr3_of(cpu));
        self.mmus[usize::from(cpu)].mov_cr3(pcid, true).expect("contexts are on");
    }

    fn page_number(page: usize) -> Vpn {
        Vpn(FIRST + page as u64)
    }

    fn tag(&self, page: usize, cr3: u64) -> usize {
        if self.pages[page].global {
            return 0;
        }
        (cr3 >> ASID_SHIFT & 1) as usize + if cr3 & USER != 0 { 2 } else { 0 }
    }

    /// Whether the loaded table has the page (if it is mapped at all).
    fn has(&self, cpu: Cpu, page: usize) -> bool {
        self.pages[page].user_mapped || !self.in_user_table(cpu)
    }

    fn cached(&self, cpu: Cpu, page: usize) -> Option<u64> {
        let (i, cr3) = (usize::from(cpu), self.cr3_of(cpu));
        let (number, pcid) = (Self::page_number(page), Self::pcid(cr3));
        self.mmus[i].tlb().probe(number, pcid, Access::Load, PageSize::K4)?;
        Some(self.filled[i][page][self.tag(page, cr3)])
    }

    /// A walk that nobody asked for caches a page. `false`: there is nothing to cache.
    pub fn speculate(&mut self, cpu: Cpu, page: usize) -> bool {
        if !self.has(cpu, page) || !self.mapped[page] || self.cached(cpu, page).is_some() {
            return false;
        }
        let (i, cr3) = (usize::from(cpu), self.cr3_of(cpu));
        let tag = self.tag(page, cr3);
        self.filled[i][page][tag] = self.version[page];
        let global = self.pages[page].global;
        self.mmus[i].speculate(Self::page_number(page), Access::Load, PageSize::K4, global);
        true
    }

    /// Stores that are not yet visible.
    pub fn pending(&self, cpu: Cpu) -> usize {
        self.stores[usize::from(cpu)].len()
    }

    /// The oldest store becomes visible. `false`: there is none.
    pub fn drain(&mut self, cpu: Cpu) -> Result<bool, Violation> {
        let Some(store) = self.stores[usize::from(cpu)].pop_front() else { return Ok(false) };
        self.commit(cpu, store)?;
        Ok(true)
    }

    fn store(&mut self, cpu: Cpu, store: Stored) -> Result<(), Violation> {
        if self.rules.store_buffers {
            self.stores[usize::from(cpu)].push_back(store);
            return Ok(());
        }
        self.commit(cpu, store)
    }

    fn commit(&mut self, cpu: Cpu, store: Stored) -> Result<(), Violation> {
        match store {
            Stored::Field { field, owner, v } => {
                self.t.change(field, owner, |_| v)?;
            }
            Stored::Entry { page, v } => {
                // S3: an address that is mapped again was handed on, whatever its unmapper has promised by then.
                let mapped_before = self.version[page] > 1;
                self.version[page] += 1;
                if v == Entry::Fresh && self.pages[page].handed_on && !self.mapped[page] && mapped_before {
                    self.dead[page] = self.dead[page].max(self.version[page]);
                }
                self.mapped[page] = !matches!(v, Entry::None | Entry::Int3);
            }
            Stored::Ack(call) => {
                let serving = self.t.cores[usize::from(cpu)].call.replace(call);
                self.t.ack(cpu);
                self.t.cores[usize::from(cpu)].call = serving;
            }
        }
        Ok(())
    }

    fn own_entries(&self, cpu: Cpu, page: usize) -> u64 {
        let entry = |s: &&Stored| matches!(s, Stored::Entry { page: p, .. } if *p == page);
        self.stores[usize::from(cpu)].iter().filter(entry).count() as u64
    }

    /// Where the pages an op names are. Text and user memory are not tracked here.
    fn which(&self, pages: Pages) -> std::ops::Range<usize> {
        match pages {
            Pages::One(page) => usize::from(page)..usize::from(page) + 1,
            Pages::Range => 0..self.pages.len(),
            Pages::Text(_) => 0..0,
        }
    }

    fn gs_access(&self, cpu: Cpu) -> Result<(), Violation> {
        if self.rules.gs_faults && !self.t.cores[usize::from(cpu)].gs_kernel {
            return Err(Violation::WrongGsAccess);
        }
        Ok(())
    }

    fn reach(&self, cpu: Cpu, field: u8, at: At) -> Result<(), Violation> {
        if at == At::Me {
            self.gs_access(cpu)?;
        }
        if self.in_user_table(cpu) && !self.t.fields[usize::from(field)].user_mapped {
            return Err(Violation::UnmappedAccess);
        }
        Ok(())
    }

    fn access(&self, cpu: Cpu, page: usize, explicit: bool) -> Result<(), Violation> {
        let dead = self.dead[page];
        let live = self.mapped[page] && self.version[page] >= dead;
        // S4: code uses what is allocated; an address that is not is nobody's to use.
        if !explicit && !live {
            return Ok(());
        }
        if !self.has(cpu, page) {
            return Err(Violation::UnmappedAccess);
        }
        let walked = self.mapped[page].then_some(self.version[page]);
        match self.cached(cpu, page).or(walked) {
            Some(used) if used < dead && live => Err(Violation::StaleAccessReused),
            Some(used) if used < dead => Err(Violation::StaleAccessNotReused),
            _ => Ok(()),
        }
    }

    /// Code of this zone runs.
    pub fn zone(&mut self, cpu: Cpu, zone: Zone) -> Result<(), Violation> {
        if self.in_user_table(cpu) && !matches!(zone, Zone::Entry | Zone::User) {
            return Err(Violation::UnmappedAccess);
        }
        if zone == Zone::PerCpu {
            self.gs_access(cpu)?;
        }
        let looked_at = self.rules.zones[zone as usize];
        (0..self.pages.len())
            .filter(|page| looked_at >> page & 1 != 0)
            .try_for_each(|page| self.access(cpu, page, false))
    }

    /// `switch_mm_irqs_off` to the other ASID: NOFLUSH unless `invalidate_other` owes it a flush (FACTS 2.5).
    pub fn switch_asid(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        self.t.cores[i].cr3 ^= 1 << ASID_SHIFT;
        self.load(cpu);
        if self.owes[i] & 2 != 0 {
            self.owes[i] &= !2;
            let cr3 = self.cr3_of(cpu);
            for half in [PcidOf::Kernel, PcidOf::User] {
                self.mmus[i].apply(Scope::mov_cr3(Self::pcid_of(cr3, half)));
            }
        }
    }

    /// A frame ends: its loop is forgotten.
    pub fn frame_ends(&mut self, cpu: Cpu, level: usize) {
        self.visited[usize::from(cpu)][level] = 0;
    }

    /// Members of a set that the loop of the running frame has not visited.
    pub fn unvisited(&self, cpu: Cpu, set: Set) -> Vec<Cpu> {
        let visited = self.visited[usize::from(cpu)][self.level];
        (0..self.t.cores.len() as Cpu)
            .filter(|who| visited >> who & 1 == 0 && self.t.in_set(cpu, set, *who))
            .collect()
    }
}

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
            NoFlush::Owed => self.owes[i] & 1 != 0,
        };
        if keep == NoFlush::Owed && cr3 & USER != 0 {
            self.owes[i] &= !1;
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
            Pages::Text(_) => 0..0,
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
        self.owes[usize::from(cpu)] |= if others { 2 } else { 1 };
        self.t.owe(cpu, others);
    }

    fn touch(&mut self, cpu: Cpu, what: Touch) -> Result<(), Violation> {
        match what {
            Touch::Zone(zone) => self.zone(cpu, zone),
            Touch::Read(page) | Touch::Write(page) => self.access(cpu, usize::from(page), true),
            Touch::Text => Ok(()),
        }
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

impl Timed {
    /// A remote call's interrupt is pending and may be taken.
    pub fn takes_irq(&self, cpu: Cpu) -> bool {
        let c = &self.cores[usize::from(cpu)];
        c.irq_at != NEVER && c.if_on
    }

    fn place_of(&self, field: u8, of: Cpu) -> (bool, usize) {
        let f = self.fields[usize::from(field)];
        (f.shared, if f.shared { f.var } else { self.slot(f, of) })
    }

    fn word_of(&self, field: u8, of: Cpu) -> u64 {
        let f = self.fields[usize::from(field)];
        u64::from(if f.shared { self.shared[f.var] } else { self.values[self.slot(f, of)] })
    }
}
