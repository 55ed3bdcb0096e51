//! What empties a CPU's TLB, and as what it is counted.

use super::super::levels::Pending;
use super::super::stats::{Cause, FlushKind, Stat};
use super::super::timeline::Kind;
use super::{Step, Timed, USER};
use crate::hw::Pcid;
use crate::hw::invalidate::{Invpcid as HwInvpcid, Scope};
use crate::kernel::program::{Feature, Invpcid, NoFlush, PcidOf};
use crate::kernel::step::{Cpu, Invalidate, Violation};

impl Timed {
    /// Everything cached on `cpu` is gone. `took`: time of the instruction, counted if entry code did it.
    pub(super) fn flushed(&mut self, cpu: Cpu, took: u64, architectural: bool) {
        self.emptied(cpu);
        let c = &mut self.cores[usize::from(cpu)];
        let debt = &mut self.debts[usize::from(cpu)];
        let (owed, entry) = (debt.owed, c.entry_code && c.call.is_none());
        debt.flushed_at = c.clock;
        debt.owed = false;
        if let Some(log) = &mut self.log {
            log.flushed(c.clock);
        }
        c.cold = self.tlbs.is_none();
        let (working, in_call, clock) = (c.working > 0, c.call.is_some(), c.clock);
        c.flushed_by = if architectural {
            FlushKind::Other
        } else if in_call {
            FlushKind::Remote
        } else if entry {
            FlushKind::Entry
        } else if working {
            FlushKind::Local
        } else {
            FlushKind::Other
        };
        let kind = c.flushed_by;
        if owed {
            self.levels[usize::from(cpu)][Pending::Flushes as usize].set(clock, 0);
            self.close_exposure(cpu);
        }
        match kind {
            FlushKind::Other => {}
            FlushKind::Remote => self.add(cpu, Stat::remote_flushes, 1),
            FlushKind::Local => self.add(cpu, Stat::local_flushes, 1),
            FlushKind::Entry => {
                let which = if owed { Stat::entry_flushes_needed } else { Stat::entry_flushes_unneeded };
                self.add(cpu, which, 1);
                self.add(cpu, Stat::entry_flush_ps, took);
                if owed {
                    self.event(cpu, clock, took, Kind::EntryFlush, Cause::Other, 0);
                }
            }
        }
    }

    /// CR3 is written: the other half of the same address space.
    #[inline]
    pub(super) fn loads_cr3(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) {
        let pcid = self.features.has(Feature::Pcid);
        self.serialised(cpu);
        let c = &mut self.cores[usize::from(cpu)];
        c.cr3 = cr3;
        let kernel = cr3 & USER == 0;
        let flushes = match keep {
            NoFlush::Flush => true,
            NoFlush::Keep => !pcid,
            NoFlush::Owed => {
                let bit = 1 << (cr3 >> 8 & 7);
                let owed = c.owe_user & bit != 0;
                c.owe_user &= !bit;
                if owed && pcid {
                    c.clock += self.times.cr3_flush_extra;
                    self.stats[usize::from(cpu)][Stat::user_pcid_flushes as usize] += 1;
                }
                owed || !pcid
            }
        };
        if self.tlbs.is_some() {
            let switch = Step::Switch { asid: (cr3 >> 8) as u16 & 0xff, user: !kernel, keep: !flushes };
            self.on_tlb(cpu, switch);
        }
        if flushes && self.tlbs.is_some() {
            // Also where only the user half leaves, which no flush of the kernel's counts.
            self.cores[usize::from(cpu)].flushed_by = FlushKind::Other;
            self.emptied(cpu);
        }
        if kernel && self.has_pti() {
            self.view_begins(cpu);
        } else if self.has_pti() {
            self.view_ends(cpu);
        }
        // Without PCIDs each write drops every non-global translation, vmalloc's among them while PTI is on.
        if flushes && self.has_pti() && (kernel || !pcid) {
            let took = self.times.cr3_flush_extra;
            self.flushed(cpu, took, !(pcid && keep == NoFlush::Flush));
        }
    }

    /// CR3 is written: another address space, or the same with a flush.
    pub(super) fn loads_mm(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation> {
        let pcid = self.features.has(Feature::Pcid);
        let c = &mut self.cores[usize::from(cpu)];
        let (from, to) = ((c.cr3 >> 16) as u16, (cr3 >> 16) as u16);
        let flushes = keep != NoFlush::Keep || !pcid;
        c.cr3 = cr3;
        let (in_call, working) = (c.call.is_some(), c.request.user && c.working > 0);
        if flushes {
            c.cold = self.tlbs.is_none();
            c.flushed_by = if in_call {
                FlushKind::Remote
            } else if working {
                FlushKind::Local
            } else {
                FlushKind::Other
            };
            self.emptied(cpu);
        }
        if let Some(tlbs) = &mut self.tlbs {
            tlbs[usize::from(cpu)].switch((cr3 >> 8) as u16 & 0xff, false, !flushes);
        }
        if from != to {
            self.contexts.loaded(from, to)?;
            self.add(cpu, Stat::mm_switches, 1);
            self.add(cpu, Stat::mm_switches_flushed, u64::from(flushes));
        } else if in_call {
            self.add(cpu, Stat::remote_flushes, 1);
        } else if working {
            self.add(cpu, Stat::local_flushes, 1);
        }
        // Without PCIDs each write drops every non-global translation, the kernel's too while PTI is on.
        if !pcid && self.has_pti() {
            self.flushed(cpu, 0, true);
        }
        Ok(())
    }

    /// An instruction of this CPU invalidates translations.
    pub(super) fn invalidated(&mut self, cpu: Cpu, what: Invalidate) {
        if self.tlbs.is_some() {
            match what {
                Invalidate::Cr4Pge(on) => {
                    self.on_tlb(cpu, Step::Pge(on));
                }
                Invalidate::Invpcid(kind @ (Invpcid::AllGlobal | Invpcid::All), ..) => {
                    let kind = if kind == Invpcid::All {
                        HwInvpcid::AllNonGlobal
                    } else {
                        HwInvpcid::AllIncludingGlobal
                    };
                    self.on_tlb(cpu, Step::Apply(Scope::invpcid(kind)));
                }
                Invalidate::Invpcid(Invpcid::Context, half, _) => {
                    let asid = (self.cores[usize::from(cpu)].cr3 >> 8) as u16 & 0xff;
                    let pcid = Pcid(asid + if half == PcidOf::Kernel { 1 } else { 0x801 });
                    self.on_tlb(cpu, Step::Apply(Scope::invpcid(HwInvpcid::SingleContext(pcid))));
                }
                // vmalloc pages are in nobody's working set here.
                Invalidate::Invpcid(Invpcid::Address, ..) | Invalidate::Page(_) => {}
                Invalidate::Broadcast { .. } | Invalidate::BroadcastAll => {}
            }
        }
        match what {
            Invalidate::Cr4Pge(true) => {} // the change to off has emptied everything
            Invalidate::Cr4Pge(false) => {
                self.flushed(cpu, self.times.cr4_pge, false);
            }
            Invalidate::Invpcid(Invpcid::AllGlobal, ..) => self.flushed(cpu, self.times.invpcid.0, false),
            Invalidate::Invpcid(Invpcid::All, ..) => self.flushed(cpu, self.times.invpcid.1, false),
            Invalidate::Invpcid(Invpcid::Context, PcidOf::Kernel, _) => {
                self.flushed(cpu, self.times.invpcid.2, false);
            }
            Invalidate::Invpcid(Invpcid::Context, PcidOf::User, _) => self.emptied(cpu),
            Invalidate::Invpcid(Invpcid::Address, PcidOf::User, _) => {
                // The user half of pages whose kernel half is counted.
                let request = self.current_request(cpu);
                let extra = u64::from(request.pages.saturating_sub(1)) * self.times.invpcid_address;
                self.cores[usize::from(cpu)].clock += extra;
            }
            Invalidate::Invpcid(Invpcid::Address, ..) | Invalidate::Page(_) => {
                let request = self.current_request(cpu);
                let extra = u64::from(request.pages.saturating_sub(1)) * self.times.invlpg;
                let c = &mut self.cores[usize::from(cpu)];
                c.clock += extra;
                if !request.user {
                    self.debts[usize::from(cpu)].served = request.id;
                }
                let stat = if c.call.is_some() { Stat::remote_flushes } else { Stat::local_flushes };
                self.add(cpu, stat, 1);
            }
            Invalidate::Broadcast { .. } => {
                let request = self.current_request(cpu);
                // Up to eight pages per instruction (CPUID 8000_0008h.EDX + 1).
                let extra = u64::from(request.pages.saturating_sub(1) / 8) * self.times.invlpgb;
                let c = &mut self.cores[usize::from(cpu)];
                c.clock += extra;
                c.broadcast = Some(c.broadcast == Some(true));
            }
            Invalidate::BroadcastAll => self.cores[usize::from(cpu)].broadcast = Some(true),
        }
    }
}
