//! The timed machine with what a counterexample needs: a store queue per CPU (x86-TSO), tracked pages whose entries
//! have versions, and TLBs that are filled when the schedule says so.
//!
//! Clock, costs, registers, variables and remote calls are [`Timed`]'s. What is cached is what the model of the
//! hardware ([`crate::hw::Mmu`]) holds, so invalidations are its rules, not rules of this file. Whether an access is
//! stale is decided by versions (SEMANTICS S1-S5).

use std::collections::VecDeque;

mod ops;
#[cfg(test)]
mod tests;

use super::super::queue::NEVER;
use super::{Timed, USER};
use crate::hw::invalidate::Scope;
use crate::hw::{Kind as Access, Mmu, PageSize, Pcid, Vpn};
use crate::kernel::program::{At, Entry, Pages, PcidOf, Set, Walk, Zone};
use crate::kernel::smp::Call;
use crate::kernel::step::{Cpu, Machine, Violation};

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
    /// Its frame never changes, only its rights: the direct map.
    pub direct: bool,
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
    /// Interrupts, NMIs and machine checks arrive when every earlier store is visible.
    pub interrupts_drain: bool,
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

/// What is cached or found of a page, or mapped now.
#[derive(Clone, Copy, Debug, Default)]
struct Leaf {
    /// The version of its entry; 0 for none.
    version: u64,
    /// With fewer rights than the page can have.
    less: bool,
}

/// First tracked page; the others follow.
const FIRST: u64 = 0x1000;

const ASID_SHIFT: u32 = 8;

/// In what is owed: `invalidate_other`. Below, a bit for the user half of each ASID.
const OTHERS: u8 = 1 << 2;

/// See the module.
#[derive(Clone, Debug)]
pub struct Scripted {
    /// The machine.
    pub t: Timed,
    rules: Rules,
    pages: Vec<Tracked>,
    mmus: Vec<Mmu>,
    /// By CPU and page and context: the entry that it was filled from.
    filled: Vec<Vec<[Leaf; 4]>>,
    version: Vec<u64>,
    mapped: Vec<bool>,
    /// It is mapped with fewer rights than it can have.
    less: Vec<bool>,
    /// The version from which on a page's entries map the frame that is mapped now (SEMANTICS S4).
    since: Vec<u64>,
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
    /// By CPU and frame: the entry that a walk in software has loaded.
    walked: Vec<[Leaf; 3]>,
    /// The frame that runs.
    pub level: usize,
    /// The CPU a loop goes to next.
    pub pick: Option<Cpu>,
    /// Which way an undecided branch goes.
    pub takes: Option<bool>,
}

impl Scripted {
    /// At the start. `own` by CPU: the pages that `range` means when it writes entries.
    pub fn new(t: Timed, mmu: &Mmu, pages: Vec<Tracked>, own: Vec<u8>, rules: Rules) -> Self {
        let (n, count) = (t.cores.len(), pages.len());
        let mut machine = Scripted {
            rules,
            mmus: vec![mmu.clone(); n],
            filled: vec![vec![[Leaf::default(); 4]; count]; n],
            version: vec![1; count],
            mapped: pages.iter().map(|p| p.present).collect(),
            less: vec![false; count],
            since: vec![1; count],
            dead: vec![0; count],
            covered: vec![vec![0; count]; n],
            stores: vec![VecDeque::new(); n],
            broadcast: vec![0; n],
            owes: vec![0; n],
            own,
            visited: vec![[0; 3]; n],
            walked: vec![[Leaf::default(); 3]; n],
            level: 0,
            pick: None,
            takes: None,
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

    /// The bit of a CR3 word's ASID in what is owed.
    fn owed_to(cr3: u64) -> u8 {
        1 << (cr3 >> ASID_SHIFT & 1)
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

    /// What is mapped now, if anything.
    fn now(&self, page: usize) -> Option<Leaf> {
        self.mapped[page].then_some(Leaf { version: self.version[page], less: self.less[page] })
    }

    fn cached(&self, cpu: Cpu, page: usize) -> Option<Leaf> {
        let (i, cr3) = (usize::from(cpu), self.cr3_of(cpu));
        let (number, pcid) = (Self::page_number(page), Self::pcid(cr3));
        self.mmus[i].tlb().probe(number, pcid, Access::Load, PageSize::K4)?;
        Some(self.filled[i][page][self.tag(page, cr3)])
    }

    /// A walk that nobody asked for caches a page. `false`: there is nothing to cache.
    pub fn speculate(&mut self, cpu: Cpu, page: usize) -> bool {
        let Some(now) = self.now(page).filter(|_| self.has(cpu, page) && self.cached(cpu, page).is_none())
        else {
            return false;
        };
        let (i, cr3) = (usize::from(cpu), self.cr3_of(cpu));
        let tag = self.tag(page, cr3);
        self.filled[i][page][tag] = now;
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
                let (mapped, of) = (self.mapped[page], &self.pages[page]);
                // S4: the frame stays the same through `less-rights`, and where only rights change through all that maps it.
                let same = match v {
                    Entry::None | Entry::Int3 | Entry::Uncached | Entry::Cached => true,
                    Entry::LessRights => mapped,
                    Entry::Fresh => of.direct && mapped,
                    Entry::Initial => (of.direct || self.since[page] == 1) && mapped,
                };
                if !same {
                    self.since[page] = self.version[page];
                }
                self.mapped[page] = !matches!(v, Entry::None | Entry::Int3);
                self.less[page] = v == Entry::LessRights;
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
            Pages::Text(..) => 0..0,
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
        // S4: code uses what is allocated; an address that is not is nobody's to use.
        if !explicit && !self.is_live(page) {
            return Ok(());
        }
        if !self.has(cpu, page) {
            return Err(Violation::UnmappedAccess);
        }
        // S8: kernel code that faults has no handler.
        let used = self.cached(cpu, page).or(self.now(page)).ok_or(Violation::UnmappedAccess)?;
        self.uses(page, used)
    }

    /// It is mapped, and nobody relies on its being out of use.
    fn is_live(&self, page: usize) -> bool {
        self.mapped[page] && self.version[page] >= self.dead[page]
    }

    /// The memory is used that an entry maps (SEMANTICS S5). One that maps the frame which is mapped now, with its rights or
    /// fewer, is harmless (S4).
    fn uses(&self, page: usize, used: Leaf) -> Result<(), Violation> {
        let harmless = used.version >= self.since[page] && (used.less || !self.less[page]);
        match self.is_live(page) {
            _ if used.version >= self.dead[page] => Ok(()),
            true if harmless => Ok(()),
            true => Err(Violation::StaleAccessReused),
            false => Err(Violation::StaleAccessNotReused),
        }
    }

    /// A step of a walk in software. Tables are not freed here (the question is refused), so the one above is there.
    fn walk_in_software(&mut self, cpu: Cpu, page: usize, step: Walk) -> Result<(), Violation> {
        if step != Walk::Use && self.own_entries(cpu, page) > 0 {
            return Err(Violation::Overflow);
        }
        let found = match step {
            Walk::Table | Walk::Last | Walk::Use => Leaf::default(),
            Walk::Leaf => self.now(page).unwrap_or_default(),
        };
        let last = std::mem::replace(&mut self.walked[usize::from(cpu)][self.level], found);
        match step {
            Walk::Use if last.version > 0 => self.uses(page, last),
            Walk::Table | Walk::Last | Walk::Leaf | Walk::Use => Ok(()),
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
        if self.owes[i] & OTHERS != 0 {
            self.owes[i] &= !OTHERS;
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
