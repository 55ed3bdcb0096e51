//! The TLB of one CPU and the pages its work touches (`detail = "full"`).

use super::super::stats::Stat;
use super::Timed;
use crate::hw::invalidate::Scope;
use crate::hw::{Kind as Access, Mmu, PageSize, Pcid, Preset, Vpn};
use crate::kernel::step::Cpu;

/// The TLB of one CPU and the pages its work touches (`detail = "full"`).
#[derive(Clone, Debug)]
pub struct CpuTlb {
    pub(super) mmu: Mmu,
    pcid: bool,
    overlap_tenths: u64,
    ps_per_1000_cycles: u64,
}

/// Page numbers of what is touched; only that they differ matters.
pub(super) const ENTRY_PAGES: u64 = 0xffff_fe00_0000_0000 >> 12;
const KERNEL_PAGES: u64 = 0xffff_8880_0000_0000 >> 12;
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
            pcid,
            overlap_tenths: u64::from(preset.costs.overlap_tenths),
            ps_per_1000_cycles: preset.picoseconds(1000),
        }
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
        self.mmu.mov_cr3(pcid, keep && self.pcid).expect("the context follows CR4.PCIDE");
    }

    pub(super) fn flush_all(&mut self) {
        self.mmu.apply(Scope::ALL);
    }

    /// Touches pages one after the other; misses overlap. (time, walks)
    pub(super) fn touch(&mut self, first: u64, pages: u32, global: bool) -> (u64, u64) {
        let (mut cycles, mut walks) = (0u64, 0);
        for page in first..first + u64::from(pages) {
            let a = self.mmu.access_page(Vpn(page), Access::Load, PageSize::K4, global);
            cycles += u64::from(a.cycles);
            walks += u64::from(a.loads > 0);
        }
        (cycles * 10 / self.overlap_tenths * self.ps_per_1000_cycles / 1000, walks)
    }
}

impl Timed {
    /// Looks pages up: the kernel's, or the user's. Time is charged, walks are counted.
    pub fn look_up(&mut self, cpu: Cpu, kernel: bool, pages: u32) {
        let pti = self.has_pti();
        let Some(tlbs) = &mut self.tlbs else { return };
        let tlb = &mut tlbs[usize::from(cpu)];
        let (time, walks) =
            if kernel { tlb.touch(KERNEL_PAGES, pages, !pti) } else { tlb.touch(USER_PAGES, pages, false) };
        self.refilled(cpu, walks, time);
    }

    /// Misses that a flush caused: their time passes, and they are counted with the kind of that flush.
    pub fn refilled(&mut self, cpu: Cpu, misses: u64, time: u64) {
        let c = &mut self.cores[usize::from(cpu)];
        c.clock += time;
        let kind = c.flushed_by.misses();
        for (stat, by) in [(Stat::refill_misses, misses), (kind, misses), (Stat::refill_ps, time)] {
            self.add(cpu, stat, by);
        }
    }
}
