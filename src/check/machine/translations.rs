//! Translations: what a TLB holds, what a walk finds, what an invalidation drops, and which ASID an address space has.

use super::lines::UNCACHED;
use super::{Abs, NO_MM};
use crate::check::layout::{tags, upper_tags};
use crate::kernel::program::{PageKind, Pages, PcidOf};
use crate::kernel::step::Violation;

/// A leaf, cached or in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its version.
    pub version: u64,
    /// It has fewer rights than the page can have.
    pub less: bool,
    /// What goes through it is not cached (SEMANTICS H11).
    pub uncached: bool,
}

impl<'a, const W: usize> Abs<'a, W> {
    /// Is the page mapped in memory, both levels?
    #[inline]
    pub fn present(&self, p: usize) -> bool {
        let s = &self.m.layout.shared;
        self.get(s.kind[p]) != 0 && (!self.m.layout.tables || self.get(s.upper_kind[p]) != 0)
    }

    /// The page whose entry maps an address of `p` now: that of the large entry while it is present (SEMANTICS H9).
    #[inline]
    pub(super) fn mapped_by(&self, p: usize) -> usize {
        self.m.layout.pages[p].within.filter(|&large| self.present(large)).unwrap_or(p)
    }

    /// What an access through the current CR3 would use, and whose it is: a cached leaf, the large one first, or the one
    /// that a walk finds.
    #[inline]
    pub(super) fn used_of(&self, cpu: usize, p: usize, cr3: u64) -> Result<Option<(usize, Leaf)>, Violation> {
        if let Some(large) = self.m.layout.pages[p].within
            && let Some(slot) = self.m.slot(&self.m.layout.pages[large], cr3)
        {
            let c = &self.m.layout.cpus[cpu];
            let cached = |p: usize| self.get(c.tlb[p][slot]) != 0;
            if cached(large) || self.present(large) && !cached(p) {
                return Ok(self.used(cpu, large, cr3)?.map(|leaf| (large, leaf)));
            }
        }
        Ok(self.used(cpu, p, cr3)?.map(|leaf| (p, leaf)))
    }

    /// What an access through the current CR3 would use: the cached leaf, or the one a walk finds.
    #[inline]
    pub(super) fn used(&self, cpu: usize, p: usize, cr3: u64) -> Result<Option<Leaf>, Violation> {
        let page = &self.m.layout.pages[p];
        let Some(slot) = self.m.slot(page, cr3) else { return Err(Violation::UnmappedAccess) };
        let c = &self.m.layout.cpus[cpu];
        let cached = self.get(c.tlb[p][slot]);
        if cached != 0 {
            let (less, uncached) = (self.get(c.less[p][slot]) != 0, self.get(c.uncached[p][slot]) != 0);
            return Ok(Some(Leaf { version: cached, less, uncached }));
        }
        if !self.m.maps(page, cr3) {
            return Ok(None);
        }
        self.walk(cpu, p, cr3)
    }

    /// Is the address space of a CR3 word free (SEMANTICS S9)?
    #[inline]
    pub(super) fn is_freed(&self, cr3: u64) -> bool {
        self.get(self.m.layout.shared.freed_mms) >> self.m.mm(cr3) & 1 != 0
    }

    /// What a walk finds now (SEMANTICS S6: through a freed table is a violation, speculative or not).
    pub fn walk(&self, cpu: usize, p: usize, cr3: u64) -> Result<Option<Leaf>, Violation> {
        let s = &self.m.layout.shared;
        if s.freed_mms.exists() && self.is_freed(cr3) {
            return Err(Violation::FreedMm);
        }
        let page = &self.m.layout.pages[p];
        if self.m.layout.tables
            && page.kind != PageKind::Text
            && let Some(slot) = self.m.upper_slot(page, cr3)
        {
            let cached = self.get(self.m.layout.cpus[cpu].upper[p][slot]);
            let memory = self.get(s.upper[p]);
            let through = if cached != 0 {
                cached
            } else if self.get(s.upper_kind[p]) != 0 && self.leads(p, cr3) {
                memory
            } else {
                return Ok(None);
            };
            if through < self.get(s.freed[p]) {
                return Err(Violation::FreedTableWalk);
            }
            if through != memory {
                let table = through as usize - 1;
                let version = self.get(s.old_leaf[p][table]);
                let less = self.get(s.old_less[p][table]) != 0;
                return Ok((version != 0).then_some(Leaf { version, less, uncached: false }));
            }
        }
        if !self.m.layout.tables && !self.leads(p, cr3) {
            return Ok(None);
        }
        if self.mapped_by(p) != p {
            return Ok(None); // the walk ends above, at the large entry
        }
        Ok(self.leaf_in_memory(p))
    }

    /// The leaf in the table that is linked now, if it is present.
    pub(super) fn leaf_in_memory(&self, p: usize) -> Option<Leaf> {
        let s = &self.m.layout.shared;
        let kind = self.get(s.kind[p]);
        (kind != 0).then(|| Leaf {
            version: self.get(s.version[p]),
            less: kind == 2,
            uncached: kind == UNCACHED,
        })
    }

    /// Does the top-level table of a CR3 word lead to the page? Of a page that the question says nothing about each does.
    #[inline]
    pub fn leads(&self, p: usize, cr3: u64) -> bool {
        let Some(&Some(var)) = self.m.scope.tops.get(p) else { return true };
        self.get(self.m.layout.shared.mm_vars[usize::from(var)][self.m.mm(cr3)]) != 0
    }

    /// The field a page's data is in, by the translation an access uses now; none if it faults.
    pub(super) fn frame_of(&self, cpu: usize, page: u8) -> Result<Option<u8>, Violation> {
        let p = usize::from(page);
        let cr3 = self.get(self.m.layout.cpus[cpu].cr3);
        let Some(Leaf { version, .. }) = self.used(cpu, p, cr3)? else { return Ok(None) };
        let frames = self.m.scope.frames.get(p).map_or(&[][..], Vec::as_slice);
        Ok(frames.get(version as usize - 1).or(frames.last()).copied())
    }

    #[inline]
    pub(super) fn which(&self, pages: Pages) -> impl Iterator<Item = usize> + use<'a, W> {
        let n = self.m.layout.pages.len();
        let m = self.m;
        (0..n).filter(move |&p| match pages {
            Pages::One(q) => usize::from(q) == p,
            Pages::Text(site, part) => {
                m.layout.sites[usize::from(site)].is_some_and(|t| t[part as usize] == p)
            }
            Pages::Range => match m.layout.pages[p].kind {
                PageKind::User(_) => m.code.pages.len() == 1,
                PageKind::Text => false,
                PageKind::Vmalloc | PageKind::EntryArea => true,
                PageKind::DirectMap | PageKind::Image | PageKind::PerCpu => true,
            },
        })
    }

    /// Pages of which an invalidation by address drops leaves: those named, and the large ones they lie in, since each
    /// translation of an address goes, whatever its size (SEMANTICS H9).
    #[inline]
    pub(super) fn reached_by(&self, pages: Pages) -> impl Iterator<Item = usize> + use<'a, W> {
        let m = self.m;
        let named = self.which(pages).fold(0_u8, |all, p| all | 1 << p);
        let within = |all: u8, p: usize| all | m.layout.pages[p].within.map_or(0, |large| 1 << large);
        let all = (0..m.layout.pages.len()).filter(|p| named >> p & 1 != 0).fold(named, within);
        (0..m.layout.pages.len()).filter(move |p| all >> p & 1 != 0)
    }

    /// A leaf becomes cached.
    #[inline]
    pub fn hold(&mut self, cpu: usize, p: usize, slot: usize, leaf: Leaf) {
        let c = &self.m.layout.cpus[cpu];
        self.set(c.tlb[p][slot], leaf.version);
        for (b, v) in [(c.less[p][slot], leaf.less), (c.uncached[p][slot], leaf.uncached)] {
            if b.exists() {
                self.set(b, u64::from(v));
            }
        }
    }

    /// A cached leaf goes.
    #[inline]
    pub fn forget(&mut self, cpu: usize, p: usize, slot: usize) {
        let c = &self.m.layout.cpus[cpu];
        self.set(c.tlb[p][slot], 0);
        self.set(c.less[p][slot], 0);
        self.set(c.uncached[p][slot], 0);
    }

    /// A cached upper entry goes.
    #[inline]
    pub fn forget_upper(&mut self, cpu: usize, p: usize, slot: usize) {
        let b = self.m.layout.cpus[cpu].upper[p][slot];
        self.set(b, 0);
    }

    /// Invalidate by tag: leaves that are global if `globals`, other leaves and upper entries of the PCIDs `chosen`.
    #[inline]
    pub(super) fn forget_where(&mut self, cpu: usize, globals: bool, chosen: impl Fn(usize) -> bool) {
        for p in 0..self.m.layout.pages.len() {
            let page = &self.m.layout.pages[p];
            if page.kind == PageKind::Text {
                continue; // no translation
            }
            for slot in 0..tags(page, self.m.layout.asids) {
                if page.global && globals || !page.global && chosen(slot) {
                    self.forget(cpu, p, slot);
                }
            }
            for slot in (0..upper_tags(page, self.m.layout.asids)).filter(|&slot| chosen(slot)) {
                self.forget_upper(cpu, p, slot);
            }
        }
    }

    /// A broadcast is under way: pages, a bit each, and operands.
    #[inline]
    pub(super) fn send_broadcast(&mut self, cpu: usize, pages: u64, operands: (bool, Option<u8>)) {
        let b = self.m.layout.cpus[cpu].broadcast;
        let sent = self.get(b);
        let n = self.m.layout.broadcasts.iter().position(|&o| o == operands).expect("listed");
        self.set(b, sent | pages << (n * self.m.layout.pages.len()));
    }

    /// What a broadcast of a page drops on one CPU. One of a user page names the PCID of the global ASID, the last of
    /// the scope's (SEMANTICS H3).
    pub(super) fn take_broadcast(&mut self, cpu: usize, p: usize, (leaves, asid): (bool, Option<u8>)) {
        let page = &self.m.layout.pages[p];
        let asids = self.m.layout.asids;
        let of = match (asid, page.kind) {
            (_, PageKind::Text) => return, // no translation
            (Some(n), _) => Some(usize::from(n)),
            (None, PageKind::User(_)) => Some(asids - 1),
            (None, _) => None,
        };
        for slot in 0..tags(page, asids) {
            if of.is_none_or(|n| !page.global && slot == n) {
                self.forget(cpu, p, slot);
            }
        }
        for slot in 0..upper_tags(page, asids) {
            if !leaves && of.is_none_or(|n| slot == n) {
                self.forget_upper(cpu, p, slot);
            }
        }
    }

    /// Stores of a CPU that a broadcast reached (SEMANTICS H4).
    pub(super) fn reached(&mut self, cpu: usize) {
        if self.m.assume.broadcast_drains {
            while self.buffered(cpu) > 0 {
                self.drain(cpu);
            }
        }
    }

    #[inline]
    pub(super) fn slot_of(&self, of: PcidOf, cr3: u64) -> usize {
        self.m.asid(cr3) + if of == PcidOf::User { self.m.layout.asids } else { 0 }
    }

    /// `switch_mm_irqs_off` to the other ASID: NOFLUSH unless `invalidate_other` owes it a flush (FACTS 2.5).
    pub fn switch_asid(&mut self, cpu: usize) {
        let c = &self.m.layout.cpus[cpu];
        let cr3 = self.get(c.cr3) ^ 2;
        self.set(c.cr3, cr3);
        self.drop_text(cpu);
        let owes = self.get(c.owes);
        let asids = self.m.layout.asids;
        if owes >> asids & 1 != 0 || !self.m.pcid {
            let asid = self.m.asid(cr3);
            self.set(c.owes, owes & !(1 << asids));
            self.forget_where(cpu, false, |slot| slot % asids == asid);
        }
    }

    /// `choose_new_asid` (FACTS 2.3): the slot that holds `mm`, or the next one in turn, taken over for it.
    pub(super) fn choose_asid(&mut self, cpu: usize, mm: u64) -> u64 {
        let c = &self.m.layout.cpus[cpu];
        let asids = self.m.layout.asids;
        let loaded = self.m.asid(self.get(c.cr3));
        let owes = self.get(c.owes);
        if owes >> asids & 1 != 0 {
            self.set(c.owes, owes & !(1 << asids));
            for asid in (0..asids).filter(|a| *a != loaded) {
                self.set(c.contexts[asid], NO_MM);
            }
        }
        if self.m.pcid
            && let Some(asid) = (0..asids).find(|a| self.get(c.contexts[*a]) == mm)
        {
            return asid as u64;
        }
        let next = if self.m.pcid { self.get(c.next_asid) as usize } else { 0 };
        let asid = if next < asids { next } else { 0 };
        self.set(c.next_asid, asid as u64 + 1);
        self.set(c.contexts[asid], mm);
        for (v, copies) in self.m.code.vars.iter().zip(&c.asid_vars).filter(|(_, b)| b[asid].exists()) {
            self.set(copies[asid], u64::from(v.init));
        }
        asid as u64
    }
}
