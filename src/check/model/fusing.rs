//! Which ops commute with everything else that can happen, and happen with the op before them.

use crate::check::layout::Device;
use crate::check::machine::{Abs, Model, Seen};
use crate::kernel::program::{At, Cond, Cr3, Invpcid, NoFlush, Op, Place, Set, Touch, Zone};
use crate::kernel::step::{NO_PC, Outcome, Violation};

impl Model {
    /// Is this CPU in an NMI, so that no other comes (SEMANTICS H5)?
    pub(super) fn in_nmi<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize) -> bool {
        self.layout.cpus[cpu].frames.iter().any(|f| {
            let n = a.get(f.at);
            n != 0 && f.locations[n as usize - 1].nmi && a.get(f.mce) == 0
        })
    }

    /// Can an NMI, a machine check or an interrupt arrive on this CPU now?
    fn disturbed<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let c = &self.layout.cpus[cpu];
        let shared = &self.layout.shared;
        let open = top == 0 && a.get(c.irqs) != 0;
        if open && (c.irq.exists() || self.devices[cpu].iter().any(|d| matches!(d, Device::Runs(_)))) {
            return true;
        }
        if !self.assume.nmis_arrive || self.role(cpu).deaf {
            return false;
        }
        a.get(shared.mces) > 0 || a.get(shared.nmis) > 0 && !self.in_nmi(a, cpu)
    }

    /// May a device interrupt look at this CPU's translations now? It changes nothing, so only ops that change what it
    /// would use must not be passed over.
    fn watched<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let looks =
            |d: &Device| matches!(d, Device::Checks(zones) if zones.iter().any(|&z| self.zone_checks(z)));
        top == 0 && a.get(self.layout.cpus[cpu].irqs) != 0 && self.devices[cpu].iter().any(looks)
    }

    /// Does the next op commute with everything else that can happen now, on this CPU and on others, so that it
    /// may as well happen at once?
    ///
    /// Register ops always do. While nothing can interrupt this CPU so do ops on what only it can see: its
    /// GSBASE and CR3, its store buffer's tail, a switch away from a table that maps no tracked page, and an
    /// invalidation of everything (a fill just before it is undone by it).
    fn local<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let (pc, op) = a.next_op(cpu, top);
        match op {
            Op::MoveWide { .. } => true,
            Op::Move { .. } | Op::Alu { .. } | Op::Jump(_) | Op::Loop(_) | Op::Clear | Op::Put => true,
            // Other CPUs join and leave an address space's mask.
            Op::Unless {
                c: Cond::MeIn(Set::MmCpumask) | Cond::CurIn(Set::MmCpumask) | Cond::Empty(Set::MmCpumask),
                ..
            }
            | Op::Each { of: Set::MmCpumask, .. }
            | Op::Mask { .. } => false,
            Op::Unless { c, .. } => c != Cond::Cr3User || !self.disturbed(a, cpu, top),
            Op::Ask { .. } | Op::FlushInfo { .. } => !self.disturbed(a, cpu, top),
            Op::Load { from: Place { at: At::Asid(_), .. }, .. }
            | Op::Store { to: Place { at: At::Asid(_), .. }, .. } => !self.disturbed(a, cpu, top),
            Op::Touch(Touch::Zone(z)) if z == Zone::Entry && !self.zone_checks(z) => true,
            Op::Touch(Touch::Zone(z)) => !self.zone_checks(z) && !self.disturbed(a, cpu, top),
            Op::Body(_) => {
                !self.zone_checks(Model::zone_of(op).expect("a body has a zone"))
                    && !self.disturbed(a, cpu, top)
            }
            Op::Store { .. } => self.assume.store_buffers && !self.disturbed(a, cpu, top),
            Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) | Op::ReadCr3(_) | Op::Irq(true) => {
                !self.disturbed(a, cpu, top)
            }
            Op::MovCr3 { to: Cr3::Kernel, keep: NoFlush::Keep } => {
                self.nothing_user && self.pcid && !self.disturbed(a, cpu, top) && !self.watched(a, cpu, top)
            }
            Op::Invpcid { kind: Invpcid::AllGlobal, .. } | Op::MovCr4Pge(_) => {
                !self.disturbed(a, cpu, top) && !self.watched(a, cpu, top)
            }
            Op::Load { from, .. } => {
                self.private[usize::from(from.field)] && from.at == At::Me && !self.disturbed(a, cpu, top)
            }
            Op::Request(_) => self.writers == 1 && !self.disturbed(a, cpu, top),
            Op::Return => {
                let c = &self.layout.cpus[cpu];
                let f = &c.frames[top];
                let at = &f.locations[a.get(f.at) as usize - 1];
                debug_assert_eq!(at.pc, pc);
                let passes = at.ret == NO_PC && !(at.iret && a.get(c.pending) != 0);
                passes && !self.disturbed(a, cpu, top) && !self.watched(a, cpu, top)
            }
            Op::Each { of, .. } => {
                let mut probe = Abs::new(self, a.s);
                probe.level = top;
                let visited = a.get(self.layout.cpus[cpu].frames[top].visited);
                (u64::from(probe.members(of, cpu as u16)) & !visited).count_ones() < 2
            }
            Op::Rmw { .. } | Op::Cas { .. } | Op::Await { .. } | Op::AwaitAcks | Op::Fence(_) => false,
            Op::Irq(false) | Op::MovCr3 { .. } | Op::Invlpg(_) | Op::Invpcid { .. } | Op::Invlpgb(_) => false,
            Op::InvlpgbAll
            | Op::Tlbsync
            | Op::Rar(_)
            | Op::Touch(_)
            | Op::Pte { .. }
            | Op::FreeTable(_)
            | Op::FreeMm(_) => false,
            Op::LoadPage { .. } | Op::StorePage { .. } => false,
            Op::Promise(_) | Op::Ipi { .. } | Op::HandleCalls | Op::OweUser | Op::OweOthers => false,
        }
    }

    /// Do accesses of this zone look at any tracked page?
    #[inline]
    fn zone_checks(&self, zone: Zone) -> bool {
        self.checked_zones >> zone as u8 & 1 != 0
    }

    /// Would the next op store into a full buffer? Where none is deeper it waits, and what came before it has happened.
    fn overfills<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let c = &self.layout.cpus[cpu];
        let full = !c.stores.is_empty() && a.get(c.pending) == c.stores.len() as u64;
        full && matches!(a.next_op(cpu, top).1, Op::Store { .. })
    }

    /// Carry out local ops until there is none.
    pub(super) fn tail<const W: usize>(&self, a: &mut Abs<'_, W>, cpu: usize) -> Option<Violation> {
        const MOST: usize = 200;
        for _ in 0..MOST {
            let top = a.top(cpu)?;
            if !self.local(a, cpu, top) || self.deepest && self.overfills(a, cpu, top) {
                return None;
            }
            a.pick = None;
            match a.run(cpu, top) {
                Outcome::Next => {}
                Outcome::Done | Outcome::Wait => return None,
                Outcome::Violated(v) => return Some(v),
            }
            if a.seen & (Seen::FULL | Seen::OVERFLOW) != 0 {
                return None;
            }
        }
        None
    }
}
