//! Translations: what a TLB holds, what a walk finds, what an invalidation drops, and which ASID an address space has.

use super::{Abs, NO_MM};
use crate::check::layout::tags;
use crate::kernel::program::{PageKind, Pages, PcidOf};
use crate::kernel::step::Violation;

impl<'a, const W: usize> Abs<'a, W> {
    /// Is the page mapped in memory, both levels?
    #[inline]
    pub fn present(&self, p: usize) -> bool {
        let s = &self.m.layout.shared;
        self.get(s.kind[p]) != 0 && (!self.m.layout.tables || self.get(s.upper_kind[p]) != 0)
    }

    /// What an access through the current CR3 would use: the cached version, or the one a walk finds.
    #[inline]
    pub(super) fn used(&self, cpu: usize, p: usize, cr3: u64) -> Result<Option<u64>, Violation> {
        let page = &self.m.layout.pages[p];
        let Some(slot) = self.m.slot(page, cr3) else { return Err(Violation::UnmappedAccess) };
        let cached = self.get(self.m.layout.cpus[cpu].tlb[p][slot]);
        if cached != 0 {
            return Ok(Some(cached));
        }
        if !self.m.maps(page, cr3) {
            return Ok(None);
        }
        self.walk(cpu, p, slot)
    }

    /// Is the address space of a CR3 word free (SEMANTICS S9)?
    #[inline]
    pub(super) fn is_freed(&self, cr3: u64) -> bool {
        self.get(self.m.layout.shared.freed_mms) >> self.m.mm(cr3) & 1 != 0
    }

    /// What a walk finds now (SEMANTICS S6: through a freed table is a violation, speculative or not).
    pub fn walk(&self, cpu: usize, p: usize, slot: usize) -> Result<Option<u64>, Violation> {
        let s = &self.m.layout.shared;
        if s.freed_mms.exists() && self.is_freed(self.get(self.m.layout.cpus[cpu].cr3)) {
            return Err(Violation::FreedMm);
        }
        if self.m.layout.tables && self.m.layout.pages[p].kind != PageKind::Text {
            let cached = self.get(self.m.layout.cpus[cpu].upper[p][slot]);
            let memory = self.get(s.upper[p]);
            let through = if cached != 0 {
                cached
            } else if self.get(s.upper_kind[p]) != 0 {
                memory
            } else {
                return Ok(None);
            };
            if through < self.get(s.freed[p]) {
                return Err(Violation::FreedTableWalk);
            }
            if through != memory {
                let old = self.get(s.old_leaf[p]);
                return Ok((old != 0).then_some(old));
            }
        }
        Ok((self.get(s.kind[p]) != 0).then(|| self.get(s.version[p])))
    }

    /// The field a page's data is in, by the translation an access uses now; none if it faults.
    pub(super) fn frame_of(&self, cpu: usize, page: u8) -> Result<Option<u8>, Violation> {
        let p = usize::from(page);
        let cr3 = self.get(self.m.layout.cpus[cpu].cr3);
        let Some(version) = self.used(cpu, p, cr3)? else { return Ok(None) };
        let frames = self.m.scope.frames.get(p).map_or(&[][..], Vec::as_slice);
        Ok(frames.get(version as usize - 1).or(frames.last()).copied())
    }

    #[inline]
    pub(super) fn which(&self, pages: Pages) -> impl Iterator<Item = usize> + use<'a, W> {
        let n = self.m.layout.pages.len();
        let m = self.m;
        (0..n).filter(move |&p| match pages {
            Pages::One(q) => usize::from(q) == p,
            Pages::Text(part) => m.layout.text.is_some_and(|t| t[part as usize] == p),
            Pages::Range => match m.layout.pages[p].kind {
                PageKind::User(_) => m.code.pages.len() == 1,
                PageKind::Text => false,
                PageKind::Vmalloc | PageKind::EntryArea => true,
                PageKind::DirectMap | PageKind::Image | PageKind::PerCpu => true,
            },
        })
    }

    #[inline]
    pub(super) fn forget(&mut self, cpu: usize, p: usize, slot: usize, upper: bool) {
        let c = &self.m.layout.cpus[cpu];
        self.set(c.tlb[p][slot], 0);
        if upper {
            self.set(c.upper[p][slot], 0);
        }
    }

    /// Invalidate by tag: `globals` too, or only `slot`s chosen.
    #[inline]
    pub(super) fn forget_where(&mut self, cpu: usize, globals: bool, chosen: impl Fn(usize) -> bool) {
        for p in 0..self.m.layout.pages.len() {
            let page = &self.m.layout.pages[p];
            if page.kind == PageKind::Text {
                continue; // no translation
            }
            for slot in 0..tags(page, self.m.layout.asids) {
                if page.global && globals || !page.global && chosen(slot) {
                    self.forget(cpu, p, slot, true);
                }
            }
        }
    }

    #[inline]
    pub(super) fn send_broadcast(&mut self, cpu: usize, pages: u64) {
        let b = self.m.layout.cpus[cpu].broadcast;
        let sent = self.get(b);
        self.set(b, sent | pages);
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
