//! One CPU's memory-management unit: CR3, CR4, a TLB, a walker, and what each operation costs.
//!
//! The rules of invalidation are SDM Vol. 3A 4.10.4.1; each is a test in `mmu/tests.rs`. Every operation returns
//! core cycles, so that a timed machine needs no second table.

use std::sync::Arc;

use super::geometry::MAX_LEVELS;
use super::invalidate::{Invpcid, Quirks, Scope};
use super::preset::{Costs, Preset};
use super::table::{Change, Mapping, NotPresent, Root, Tables};
use super::tlb::{Answer, Tlb};
use super::walker::TableLines;
use super::{Kind, PageSize, Pcid, TlbError, Vpn};

/// One access as the MMU answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Level that hit (0 nearest), or the number of levels if the tables were walked.
    pub level: u8,
    /// Entries the walk read; 0 without a walk.
    pub loads: u8,
    /// Whether it went through something cached before its table changed.
    pub stale: bool,
    /// Cycles beyond a first-level hit, as one dependent access.
    pub cycles: u32,
}

/// One CPU's MMU.
#[allow(clippy::struct_excessive_bools)] // each is a bit of CR4 or of CPUID
#[derive(Clone, Debug)]
pub struct Mmu {
    tlb: Tlb,
    root: Option<Root>,
    pge: bool,
    pcide: bool,
    has_pcid: bool,
    has_invpcid: bool,
    quirks: Quirks,
    costs: Arc<Costs>,
    lines: Option<TableLines>,
    /// Which root each context last loaded: a store to a table concerns the contexts that may have cached it.
    bound: Vec<(Pcid, Root)>,
}

/// Entries that a walk reads at most: five levels.
const MOST_LOADS: u8 = 5;

impl Mmu {
    /// The MMU of this CPU model after reset of its TLB: CR4.PGE = 1, CR4.PCIDE = 1 where the CPU has PCIDs, context 0.
    pub fn new(preset: &Preset) -> Self {
        Mmu {
            tlb: Tlb::new(Arc::clone(&preset.geometry)),
            root: None,
            pge: true,
            pcide: preset.features.pcid,
            has_pcid: preset.features.pcid,
            has_invpcid: preset.features.invpcid,
            quirks: Quirks { invlpg_keeps_globals: preset.features.invlpg_erratum, ..Quirks::default() },
            costs: Arc::clone(&preset.costs),
            lines: None,
            bound: Vec::new(),
        }
    }

    /// The same with other deviations from the architecture.
    #[must_use]
    pub fn with_quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }

    /// The same with a model of which page-table lines the L2 and the L3 hold; without it every read of a walk hits the
    /// L2, as in the measurements that fit `walk_setup`.
    #[must_use]
    pub fn with_table_lines(mut self, lines: TableLines) -> Self {
        self.lines = Some(lines);
        self
    }

    /// Its TLB.
    pub fn tlb(&self) -> &Tlb {
        &self.tlb
    }

    /// Its TLB, for fills and resets.
    pub fn tlb_mut(&mut self) -> &mut Tlb {
        &mut self.tlb
    }

    /// The current context: CR3\[11:0\], or 0 while CR4.PCIDE = 0.
    pub fn pcid(&self) -> Pcid {
        self.tlb.pcid()
    }

    /// The table CR3 points to.
    pub fn root(&self) -> Option<Root> {
        self.root
    }

    /// CR4.PCIDE.
    pub fn pcide(&self) -> bool {
        self.pcide
    }

    /// Whether every access and operation from here on would be answered as by another MMU of this model.
    pub fn same_state(&self, other: &Mmu) -> bool {
        (self.pge, self.pcide, self.root) == (other.pge, other.pcide, other.root)
            && self.lines.is_none()
            && other.lines.is_none()
            && self.tlb.same_contents(&other.tlb)
    }

    /// CR4.PGE.
    pub fn pge(&self) -> bool {
        self.pge
    }

    /// The state as text, for [`Mmu::restore`]. `None` once it has page tables or a model of their lines: those are
    /// their owners' to save.
    pub fn save(&self) -> Option<String> {
        let plain = self.root.is_none() && self.bound.is_empty() && self.lines.is_none();
        plain.then(|| format!("{} {} {}", u8::from(self.pge), u8::from(self.pcide), self.tlb.save()))
    }

    /// Takes a saved state over; an error if it is of another model.
    pub fn restore(&mut self, saved: &str) -> Result<(), TlbError> {
        let bit = |text: &str| match text {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(TlbError::shape("saved state", format!("must begin with two bits: got {other:?}"))),
        };
        let mut parts = saved.splitn(3, ' ');
        let mut next = || parts.next().unwrap_or_default();
        let (pge, pcide) = (bit(next())?, bit(next())?);
        self.tlb = Tlb::restore(Arc::clone(self.tlb.geometry()), next())?;
        (self.pge, self.pcide) = (pge, pcide);
        Ok(())
    }

    /// What its operations cost.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Removes what `scope` names from TLB and paging-structure caches, with this machine's quirks.
    pub fn apply(&mut self, scope: Scope) -> usize {
        let scope =
            if self.quirks.drops_what_may_be_kept { scope.dropping_what_may_be_kept() } else { scope };
        self.tlb.invalidate(scope)
    }

    /// MOV CR3 in context `pcid`. Without `noflush` every non-global entry of the *new* context leaves; with it
    /// nothing need leave. While CR4.PCIDE = 0 there is only context 0 and bit 63 is reserved.
    #[inline]
    pub fn mov_cr3(&mut self, pcid: Pcid, noflush: bool) -> Result<u32, TlbError> {
        if !self.pcide && (noflush || pcid != Pcid(0)) {
            let rule = format!("bits 63 and 11:0 need CR4.PCIDE = 1: got noflush {noflush}, pcid {}", pcid.0);
            return Err(TlbError::Fault { instruction: "MOV CR3", rule });
        }
        self.tlb.switch(pcid);
        if !noflush || self.quirks.drops_what_may_be_kept {
            self.apply(Scope::mov_cr3(pcid));
        }
        Ok(if noflush { self.costs.mov_cr3_noflush.cycles } else { self.costs.mov_cr3_flush.cycles })
    }

    /// MOV CR3 to a page table.
    pub fn load_cr3(&mut self, root: Root, pcid: Pcid, noflush: bool) -> Result<u32, TlbError> {
        let cycles = self.mov_cr3(pcid, noflush)?;
        self.root = Some(root);
        if !self.bound.contains(&(pcid, root)) {
            self.bound.push((pcid, root));
        }
        Ok(cycles)
    }

    /// MOV CR4 with this value of PGE: a change removes everything, in every context.
    pub fn mov_cr4_pge(&mut self, pge: bool) -> u32 {
        if self.pge != pge {
            self.pge = pge;
            self.apply(Scope::ALL);
        }
        self.costs.cr4_pge_toggle.cycles / 2
    }

    /// CR4.PGE off and on again, the flush of everything on CPUs without INVPCID.
    pub fn toggle_pge(&mut self) -> u32 {
        self.mov_cr4_pge(!self.pge) + self.mov_cr4_pge(!self.pge)
    }

    /// MOV CR4 with this value of PCIDE: clearing it removes everything; setting it needs PCIDs and CR3\[11:0\] = 0.
    pub fn mov_cr4_pcide(&mut self, pcide: bool) -> Result<u32, TlbError> {
        let fault = |rule: String| Err(TlbError::Fault { instruction: "MOV CR4", rule });
        if pcide && !self.has_pcid {
            return fault("this machine has no PCIDs".into());
        }
        if pcide && !self.pcide && self.pcid() != Pcid(0) {
            return fault(format!("PCIDE needs CR3[11:0] = 0: got {}", self.pcid().0));
        }
        if self.pcide && !pcide {
            self.apply(Scope::ALL);
            self.tlb.switch(Pcid(0));
        }
        self.pcide = pcide;
        Ok(self.costs.cr4_pge_toggle.cycles / 2)
    }

    /// MOV CR4 that sets SMEP: every entry of the current context leaves.
    pub fn mov_cr4_set_smep(&mut self) -> u32 {
        self.apply(Scope::mov_cr3(self.pcid()));
        self.costs.cr4_pge_toggle.cycles / 2
    }

    /// INVLPG.
    pub fn invlpg(&mut self, page: Vpn) -> u32 {
        let mut scope = Scope::invlpg(page, self.pcid());
        // Erratum: global entries survive while PCIDs are on (FACTS B11).
        scope.globals = !(self.quirks.invlpg_keeps_globals && self.pcide);
        self.tlb.invalidate(scope);
        self.costs.invlpg.cycles
    }

    /// INVPCID. Types 0 and 1 for another context than 0 need CR4.PCIDE = 1; types 2 and 3 do not.
    pub fn invpcid(&mut self, what: Invpcid) -> Result<u32, TlbError> {
        let fault = |rule: String| Err(TlbError::Fault { instruction: "INVPCID", rule });
        if !self.has_invpcid {
            return fault("this machine does not have it".into());
        }
        let cost = match what {
            Invpcid::Address(pcid, _) | Invpcid::SingleContext(pcid) if !self.pcide && pcid != Pcid(0) => {
                return fault(format!("pcid must be 0 while CR4.PCIDE = 0: got {}", pcid.0));
            }
            Invpcid::Address(..) => self.costs.invpcid_address.cycles,
            Invpcid::SingleContext(_) => self.costs.invpcid_context.cycles,
            Invpcid::AllIncludingGlobal => self.costs.invpcid_all.cycles,
            Invpcid::AllNonGlobal => self.costs.invpcid_non_global.cycles,
        };
        self.apply(Scope::invpcid(what));
        Ok(cost)
    }

    /// An access to a page that the caller knows to be mapped like this (no page table needed).
    #[inline]
    pub fn access_page(&mut self, page: Vpn, kind: Kind, size: PageSize, global: bool) -> Access {
        // With CR4.PGE = 0 the G bit means nothing (SDM 4.10.2.4).
        let answer = self.tlb.access(page, kind, size, global && self.pge);
        self.charged(answer, page, size)
    }

    /// Accesses one 4 KiB page if the first level answers, which takes no time; `false`: nothing has changed.
    #[inline]
    pub fn access_first(&mut self, page: Vpn, kind: Kind) -> bool {
        self.tlb.access_first(page, kind)
    }

    /// The same for consecutive 4 KiB pages, one after the other: cycles of all, and how many were walked.
    #[inline]
    pub fn access_pages(&mut self, first: Vpn, pages: u64, kind: Kind, global: bool) -> (u64, u64) {
        let (mut cycles, mut walks, mut done) = (0, 0, 0);
        let second = u64::from(self.costs.stlb_hit.cycles);
        while done < pages {
            let (answered, by_second) = self.tlb.access_run(Vpn(first.0 + done), pages - done, kind);
            cycles += by_second * second;
            done += answered;
            if done < pages {
                let a = self.access_page(Vpn(first.0 + done), kind, PageSize::K4, global);
                cycles += u64::from(a.cycles);
                walks += u64::from(a.loads > 0);
                done += 1;
            }
        }
        (cycles, walks)
    }

    /// Cycles that no access to a page takes more than.
    pub fn dearest(&self) -> u32 {
        let walk = match self.lines {
            None => self.costs.walk_cycles(MOST_LOADS),
            Some(_) => self.costs.walk_setup.cycles + u32::from(MOST_LOADS) * self.costs.mem_dram.cycles,
        };
        walk.max(MAX_LEVELS as u32 * self.costs.stlb_hit.cycles)
    }

    /// A fill nobody waits for: the processor may cache any page mapped in the loaded tables at any time.
    pub fn speculate(&mut self, page: Vpn, kind: Kind, size: PageSize, global: bool) {
        self.tlb.fill(page, kind, size, global && self.pge);
    }

    /// An access through the loaded page table. A translation cached before its table changed is used as it is;
    /// where sizes compete, the stale one answers (the worst that the manual allows).
    pub fn access(
        &mut self,
        tables: &Tables,
        page: Vpn,
        kind: Kind,
    ) -> Result<(Access, Option<Mapping>), NotPresent> {
        let top = NotPresent { level: tables.levels() - 1 };
        let mapped = self.root.ok_or(top).and_then(|root| tables.walk(root, page));
        if self.tlb.holds_stale() {
            for size in PageSize::ALL {
                let probed = self.tlb.probe(page, self.pcid(), kind, size);
                if probed.is_some_and(|answer| answer.stale) {
                    let global = mapped.is_ok_and(|mapping| mapping.global);
                    return Ok((self.access_page(page, kind, size, global), None));
                }
            }
        }
        let mapping = mapped?;
        Ok((self.access_page(page, kind, mapping.size, mapping.global), Some(mapping)))
    }

    /// A store to a table that contexts of this CPU may have cached from: marks what is now old.
    pub fn table_changed(&mut self, root: Root, change: Change) {
        let contexts: Vec<Pcid> =
            self.bound.iter().filter(|(_, other)| *other == root).map(|(pcid, _)| *pcid).collect();
        for pcid in contexts {
            self.table_changed_in(Some(pcid), change);
        }
    }

    /// The same for one context, or for all (`None`): kernel tables are shared between address spaces.
    pub fn table_changed_in(&mut self, pcid: Option<Pcid>, change: Change) {
        self.tlb.mark_stale(change.first, change.pages, pcid);
        if !change.leaf {
            self.tlb.mark_psc_stale(usize::from(change.level) - 1, change.first, change.pages, pcid);
            for below in 0..usize::from(change.level) - 1 {
                self.tlb.mark_psc_stale(below, change.first, change.pages, pcid);
            }
        }
    }

    #[inline]
    fn charged(&mut self, answer: Answer, page: Vpn, size: PageSize) -> Access {
        let cycles = if answer.loads > 0 {
            match &mut self.lines {
                None => self.costs.walk_cycles(answer.loads),
                Some(lines) => {
                    let reads = lines.read(&self.costs, page, size, self.tlb.pcid(), answer.loads);
                    self.costs.walk_setup.cycles + reads
                }
            }
        } else if answer.level > 0 {
            self.costs.stlb_hit.cycles * u32::from(answer.level)
        } else {
            0
        };
        Access { level: answer.level, loads: answer.loads, stale: answer.stale, cycles }
    }
}

#[cfg(test)]
mod tests;
