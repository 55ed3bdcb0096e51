//! Accesses: which code may touch what (SEMANTICS A1, A2), and which of them break a rule (S5, S7 to S9, S13).

use super::lines::UNCACHED;
use super::translations::Leaf;
use super::{Abs, CR3_USER, Model, Seen};
use crate::check::layout::TEXT;
use crate::kernel::program::{PageKind, Site, Zone};
use crate::kernel::step::{Ran, Violation};

impl<const W: usize> Abs<'_, W> {
    /// An access whose address some code holds.
    #[inline]
    pub(super) fn access(&mut self, cpu: usize, p: usize, explicit: bool) -> Result<(), Violation> {
        let cr3 = self.get(self.m.layout.cpus[cpu].cr3);
        let s = &self.m.layout.shared;
        let now = self.mapped_by(p);
        let live = self.present(now) && self.get(s.version[now]) >= self.get(s.dead[now]);
        // S4: code uses what is allocated; an address that is not is nobody's to use.
        if !explicit && !live {
            return Ok(());
        }
        let page = &self.m.layout.pages[p];
        // S9: user code and uaccess hold addresses of one mm; under another's table the same address is not theirs.
        if matches!(page.kind, PageKind::User(mm) if self.m.mm(cr3) != usize::from(mm)) {
            return Err(Violation::WrongAddressSpace);
        }
        let Some((of, leaf)) = self.used_of(cpu, p, cr3)? else { return Ok(()) };
        // The large entry of the start maps the frames of the small ones of the start (SEMANTICS H9): what is promised of
        // these is promised of it.
        let first = leaf.version == 1;
        let dead = leaf.version < self.get(s.dead[of]) || of != p && first && self.get(s.dead[p]) > 1;
        if !dead || live && (now == of || first) && self.is_harmless(now, leaf) {
            return Ok(());
        }
        Err(if live { Violation::StaleAccessReused } else { Violation::StaleAccessNotReused })
    }

    /// The memory is used that a leaf maps (SEMANTICS S5).
    #[inline]
    pub(super) fn uses(&self, p: usize, leaf: Leaf) -> Result<(), Violation> {
        let s = &self.m.layout.shared;
        let (dead, version) = (self.get(s.dead[p]), self.get(s.version[p]));
        if leaf.version >= dead {
            return Ok(());
        }
        let live = self.present(p) && version >= dead;
        match live {
            true if self.is_harmless(p, leaf) => Ok(()),
            true => Err(Violation::StaleAccessReused),
            false => Err(Violation::StaleAccessNotReused),
        }
    }

    /// Does a leaf map the frame that is mapped now, with the rights it has now or fewer, and of the type it has now
    /// (SEMANTICS S4)?
    fn is_harmless(&self, p: usize, leaf: Leaf) -> bool {
        let s = &self.m.layout.shared;
        let kind = self.get(s.kind[p]);
        s.since[p].exists()
            && leaf.version >= self.get(s.since[p])
            && (leaf.less || kind != 2)
            && leaf.uncached == (kind == UNCACHED)
    }

    /// Run a patched instruction (SEMANTICS S7): each part as it was fetched, or as memory has it now. An INT3 is a whole
    /// instruction; otherwise head and tail must belong together. The version of its head.
    #[inline]
    pub(super) fn run_text(&self, cpu: usize, site: Site) -> Result<u64, Violation> {
        let Some(parts) = self.m.layout.sites[usize::from(site)] else { return Ok(TEXT.initial) };
        let s = &self.m.layout.shared;
        let [head, tail] = parts.map(|p| {
            let fetched = self.get(self.m.layout.cpus[cpu].tlb[p][0]);
            if fetched == 0 { self.get(s.version[p]) } else { fetched }
        });
        let [head_dead, tail_dead] = parts.map(|p| self.get(s.dead[p]));
        let whole = TEXT.is_whole(head);
        if head < head_dead || whole && (tail < tail_dead || tail != head) {
            return Err(Violation::StaleText);
        }
        Ok(head)
    }

    /// Run a patched instruction that decides a branch (SEMANTICS H10). An INT3 is delivered without a stack of its own, and
    /// drains the store buffer as any exception does (H5).
    pub(super) fn run_branch(&self, cpu: usize, site: Site) -> Result<Ran, Violation> {
        let head = self.run_text(cpu, site)?;
        let new = TEXT.is_new(head);
        if TEXT.is_whole(head) {
            return Ok(if new { Ran::New } else { Ran::Old });
        }
        let frames = &self.m.layout.cpus[cpu].frames;
        if self.get(frames[self.level].scratch) != 0 {
            return Err(Violation::UnusableStack);
        }
        if self.m.assume.interrupts_drain && self.buffered(cpu) > 0 {
            return Ok(Ran::Wait);
        }
        // Exceptions nest to depth 3 (H5).
        if self.level + 1 == frames.len() {
            return Err(Violation::Overflow);
        }
        Ok(Ran::Int3(new))
    }

    /// A serialising instruction: what was fetched before is fetched again (SEMANTICS H4 c).
    #[inline]
    pub(super) fn drop_text(&mut self, cpu: usize) {
        for p in self.m.layout.text..self.m.layout.pages.len() {
            let b = self.m.layout.cpus[cpu].tlb[p][0];
            self.set(b, 0);
        }
    }

    #[inline]
    pub(super) fn zone(&mut self, cpu: usize, zone: Zone) -> Result<(), Violation> {
        let c = &self.m.layout.cpus[cpu];
        let user = self.get(c.cr3) & CR3_USER != 0;
        if user && !matches!(zone, Zone::Entry | Zone::User) {
            return Err(Violation::UnmappedAccess);
        }
        if zone == Zone::PerCpu {
            self.gs_access(cpu)?;
        }
        for p in 0..self.m.layout.pages.len() {
            let kind = self.m.layout.pages[p].kind;
            if kind != PageKind::Text && Model::zone_may(self.m.assume, zone, kind) {
                self.access(cpu, p, false)?;
            }
        }
        if Model::zone_may(self.m.assume, zone, PageKind::Text) {
            self.run_text(cpu, 0)?;
        }
        Ok(())
    }

    /// Ordinary kernel code on a CPU that rests in the kernel.
    pub fn use_kernel(&mut self, cpu: usize) -> Result<(), Violation> {
        self.zone(cpu, Zone::Kernel)
    }

    /// Code of a zone, in an interrupt that does nothing else.
    pub fn touch_zone(&mut self, cpu: usize, zone: Zone) -> Result<(), Violation> {
        self.zone(cpu, zone)
    }

    #[inline]
    pub(super) fn gs_access(&mut self, cpu: usize) -> Result<(), Violation> {
        if self.get(self.m.layout.cpus[cpu].gs) == 0 {
            self.seen |= Seen::WRONG_GS;
            if self.m.assume.gs_faults {
                return Err(Violation::WrongGsAccess);
            }
        }
        Ok(())
    }
}
