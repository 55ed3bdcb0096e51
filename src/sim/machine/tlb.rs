//! The TLB of one CPU and the pages its work touches (`detail = "full"`).

use super::super::stats::Stat;
use super::{Step, Timed};
use crate::hw::invalidate::{Invpcid, Scope};
use crate::hw::{Kind as Access, Mmu, PageSize, Pcid, Preset, Vpn};
use crate::kernel::program::{Touch, Zone};
use crate::kernel::step::Cpu;

/// The TLB of one CPU and the pages its work touches (`detail = "full"`).
#[derive(Clone, Debug)]
pub struct CpuTlb {
    mmu: Mmu,
    /// Operations so far: while it stands still, nothing has changed.
    operations: u64,
    /// Flushes so far.
    pub(in super::super) flushes: u64,
    pcid: bool,
    overlap_tenths: u64,
    ps_per_1000_cycles: u64,
}

/// A [`CpuTlb`] in a checkpoint.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct SavedTlb {
    mmu: String,
    operations: u64,
    flushes: u64,
}

/// Whether pages are looked up for such a touch in a program; bodies and user mode look up their own.
pub(in super::super) const fn looks_up(what: Touch) -> bool {
    matches!(what, Touch::Zone(Zone::Entry | Zone::Stack))
}

/// Page numbers of what is touched, as [`Vpn`] has them (without sign extension); only that they differ matters.
pub(super) const ENTRY_PAGES: u64 = 0xffff_fe00_0000_0000 >> 12 & Vpn::MASK;
const KERNEL_PAGES: u64 = 0xffff_8880_0000_0000 >> 12 & Vpn::MASK;
const USER_PAGES: u64 = 0x5555_5555_4000 >> 12;

impl CpuTlb {
    /// Empty, in the kernel's context.
    pub fn new(preset: &Preset, pcid: bool) -> Self {
        let mut mmu = Mmu::new(preset);
        if !pcid && mmu.pcide() {
            mmu.mov_cr4_pcide(false).expect("clearing is always allowed");
        }
        CpuTlb {
            mmu,
            operations: 0,
            flushes: 0,
            pcid,
            overlap_tenths: u64::from(preset.costs.overlap_tenths),
            ps_per_1000_cycles: preset.picoseconds(1000),
        }
    }

    /// What a checkpoint keeps: the TLB, its operations and flushes.
    pub(in super::super) fn save(&self) -> SavedTlb {
        let mmu = self.mmu.save().expect("the timed machine gives it no page tables");
        SavedTlb { mmu, operations: self.operations, flushes: self.flushes }
    }

    /// Takes a saved state over. `false`: it is of another CPU model, or damaged.
    pub(in super::super) fn restore(&mut self, saved: &SavedTlb) -> bool {
        (self.operations, self.flushes) = (saved.operations, saved.flushes);
        self.mmu.restore(&saved.mmu).is_ok()
    }

    /// kPCID is the ASID plus one, uPCID has bit 11 set (FACTS 2.1).
    pub(super) fn switch(&mut self, asid: u16, user: bool, keep: bool) {
        let pcid = if !self.pcid {
            Pcid(0)
        } else if user {
            Pcid(0x801 + asid)
        } else {
            Pcid(1 + asid)
        };
        self.operations += 1;
        self.mmu.mov_cr3(pcid, keep && self.pcid).expect("the context follows CR4.PCIDE");
    }

    pub(super) fn flush_all(&mut self) {
        self.apply(Scope::ALL);
    }

    pub(super) fn apply(&mut self, scope: Scope) {
        self.operations += 1;
        self.mmu.apply(scope);
    }

    /// Both halves of an ASID, but global pages.
    pub(super) fn drop_asid(&mut self, asid: u16) {
        let pcids = if self.pcid { [Pcid(1 + asid), Pcid(0x801 + asid)] } else { [Pcid(0); 2] };
        for pcid in pcids {
            self.apply(Scope::invpcid(Invpcid::SingleContext(pcid)));
        }
    }

    pub(super) fn mov_cr4_pge(&mut self, on: bool) {
        self.operations += 1;
        self.mmu.mov_cr4_pge(on);
    }

    /// Grows with every operation.
    pub(in super::super) fn operations(&self) -> u64 {
        self.operations
    }

    /// What decides every answer from here on.
    pub(in super::super) fn mmu(&self) -> &Mmu {
        &self.mmu
    }

    /// Does what a step says. (time, walks)
    #[inline]
    pub(in super::super) fn take(&mut self, step: &Step) -> (u64, u64) {
        match *step {
            Step::Touch { page, global, .. } => {
                if !self.touch_first(page) {
                    return self.touch(page, 1, global);
                }
            }
            Step::Pages { first, pages, global, .. } => return self.touch(first, pages, global),
            Step::Switch { asid, user, keep } => self.switch(asid, user, keep),
            Step::Apply(scope) => self.apply(scope),
            Step::Pge(on) => self.mov_cr4_pge(on),
            Step::Flushed(_) | Step::Serialised(_) | Step::Entered(_) => {}
        }
        (0, 0)
    }

    /// The time of so many pages if each of them misses everything.
    pub(super) fn longest(&self, pages: u64) -> u64 {
        self.time(pages * u64::from(self.mmu.dearest()))
    }

    fn time(&self, cycles: u64) -> u64 {
        cycles * 10 / self.overlap_tenths * self.ps_per_1000_cycles / 1000
    }

    /// Touches one page if the first level has it, in no time. `false`: nothing has changed.
    #[inline]
    fn touch_first(&mut self, page: u64) -> bool {
        let hit = self.mmu.access_first(Vpn(page), Access::Load);
        self.operations += u64::from(hit);
        hit
    }

    /// Touches pages one after the other; misses overlap. (time, walks)
    fn touch(&mut self, first: u64, pages: u32, global: bool) -> (u64, u64) {
        self.operations += 1;
        let (cycles, walks) = self.mmu.access_pages(Vpn(first), u64::from(pages), Access::Load, global);
        (if cycles == 0 { 0 } else { self.time(cycles) }, walks)
    }

    /// Touches one page of an access stream. (time, whether it was walked)
    fn touch_one(&mut self, page: u64, dependent: bool) -> (u64, bool) {
        self.operations += 1;
        let a = self.mmu.access_page(Vpn(page), Access::Load, PageSize::K4, false);
        let cycles = u64::from(a.cycles) * 10 / if dependent { 10 } else { self.overlap_tenths };
        (cycles * self.ps_per_1000_cycles / 1000, a.loads > 0)
    }
}

impl Timed {
    /// Operations on a CPU's TLB so far; 0 if pages are not looked up.
    pub fn tlb_operations(&self, cpu: Cpu) -> u64 {
        self.tlbs.as_ref().map_or(0, |tlbs| tlbs[usize::from(cpu)].operations())
    }

    /// Looks pages up: the kernel's, or the user's. Time is charged, walks are counted.
    pub fn look_up(&mut self, cpu: Cpu, kernel: bool, pages: u32) {
        let by = self.cores[usize::from(cpu)].flushed_by;
        let (first, global) = if kernel { (KERNEL_PAGES, !self.has_pti()) } else { (USER_PAGES, false) };
        let (time, walks) = self.on_tlb(cpu, Step::Pages { first, pages, global, by });
        self.refilled(cpu, walks, time);
    }

    /// Looks up one page of an access stream, last touched after `stamp - 1` flushes (0: never). Returns the number of
    /// flushes so far.
    pub fn look_up_stream(&mut self, cpu: Cpu, page: u64, dependent: bool, stamp: u64) -> u64 {
        let Some(tlbs) = &mut self.tlbs else { return 0 };
        let tlb = &mut tlbs[usize::from(cpu)];
        let (time, walked) = tlb.touch_one(page, dependent);
        let flushes = tlb.flushes;
        if time > 0 {
            self.add(cpu, Stat::stream_ps, time);
        }
        if walked {
            if stamp == 0 {
                self.add(cpu, Stat::stream_first, 1);
            } else if stamp == flushes + 1 {
                self.add(cpu, Stat::stream_evicted, 1);
            } else {
                self.count_refill(cpu, 1, time);
            }
        }
        flushes
    }

    /// Misses that a flush caused: their time passes, and they are counted with the kind of that flush.
    pub fn refilled(&mut self, cpu: Cpu, misses: u64, time: u64) {
        if misses == 0 && time == 0 {
            return;
        }
        self.cores[usize::from(cpu)].clock += time;
        self.count_refill(cpu, misses, time);
    }

    fn count_refill(&mut self, cpu: Cpu, misses: u64, time: u64) {
        let kind = self.cores[usize::from(cpu)].flushed_by.misses();
        for (stat, by) in [(Stat::refill_misses, misses), (kind, misses), (Stat::refill_ps, time)] {
            self.add(cpu, stat, by);
        }
    }

    /// The TLB of a CPU lost what a flush takes.
    pub(super) fn emptied(&mut self, cpu: Cpu) {
        if let Some(tlbs) = &mut self.tlbs {
            tlbs[usize::from(cpu)].flushes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ASIDs whose kernel and user half hold a page.
    fn held(tlb: &CpuTlb) -> String {
        let holds = |pcid| tlb.mmu.tlb().probe(Vpn(7), Pcid(pcid), Access::Load, PageSize::K4).is_some();
        let kernel = (0..6).filter(|asid| holds(1 + asid)).map(|asid| format!("k{asid}"));
        kernel.chain((0..6).filter(|asid| holds(0x801 + asid)).map(|asid| format!("u{asid}"))).collect()
    }

    fn filled() -> CpuTlb {
        let mut many = Preset::clone(&Preset::builtin("skylake-sp").unwrap());
        many.geometry = std::sync::Arc::new(many.geometry.without_pcid_slots());
        let mut tlb = CpuTlb::new(&many, true);
        for asid in 0..3 {
            for user in [false, true] {
                tlb.switch(asid, user, true);
                tlb.touch(7, 1, false);
            }
        }
        tlb
    }

    #[test]
    fn an_asid_has_two_halves_which_leave_together_or_alone() {
        type Row = (&'static str, fn(&mut CpuTlb));
        assert_eq!(held(&filled()), "k0k1k2u0u1u2");
        let rows: [Row; 8] = [
            ("k0k2u0u2", |tlb| tlb.drop_asid(1)),
            ("k1k2u1u2", |tlb| tlb.drop_asid(0)),
            ("k0k1u0u1u2", |tlb| tlb.switch(2, false, false)),
            ("k0k1k2u1u2", |tlb| tlb.switch(0, true, false)),
            ("k0k1k2u0u1u2", |tlb| tlb.switch(1, true, true)),
            ("", CpuTlb::flush_all),
            ("", |tlb| tlb.mov_cr4_pge(false)),
            ("k0k1k2u0u1u2", |tlb| tlb.mov_cr4_pge(true)),
        ];
        for (row, (left, what)) in rows.into_iter().enumerate() {
            let mut tlb = filled();
            let before = tlb.operations();
            what(&mut tlb);
            assert_eq!(held(&tlb), left, "row {row}");
            assert!(tlb.operations() > before, "row {row}");
        }
    }

    #[test]
    fn without_contexts_a_switch_drops_what_is_not_global() {
        let mut tlb = CpuTlb::new(&Preset::builtin("skylake-sp").unwrap(), false);
        let walks = |tlb: &mut CpuTlb, page, global| tlb.touch(page, 1, global).1;
        assert_eq!(
            [walks(&mut tlb, 7, false), walks(&mut tlb, 7, false), walks(&mut tlb, 8, true)],
            [1, 0, 1]
        );
        tlb.switch(1, true, true);
        assert_eq!([walks(&mut tlb, 7, false), walks(&mut tlb, 8, true)], [1, 0]);
        tlb.drop_asid(3);
        assert_eq!([walks(&mut tlb, 7, false), walks(&mut tlb, 8, true)], [1, 0], "all have context 0");
    }
}
