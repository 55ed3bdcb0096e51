//! Whom a flush reaches without a remote call, and whether a flush of a user range reached everyone that it must.

use super::super::levels::Pending;
use super::super::stats::{FlushKind, Stat, Window};
use super::{Request, Timed};
use crate::kernel::program::Set;
use crate::kernel::step::{Cpu, Violation};

/// Which CPUs no longer hold what a flush of a user range is about, because a broadcast took it from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Reached {
    /// None.
    Nobody,
    /// All but the one that asks.
    Others,
    /// All.
    Everyone,
}

impl Timed {
    /// A CPU carried out a broadcast it never saw.
    pub(super) fn broadcast_reached(&mut self, cpu: Cpu, at: u64, full: bool, id: u32) {
        self.settle_volleys(cpu);
        let c = &mut self.cores[usize::from(cpu)];
        let debt = &mut self.debts[usize::from(cpu)];
        if full {
            debt.flushed_at = debt.flushed_at.max(at);
            debt.owed = false;
            self.levels[usize::from(cpu)][Pending::Flushes as usize].set(at, 0);
            c.flushed_by = FlushKind::Other;
            c.cold = self.tlbs.is_none();
            if let Some(tlbs) = &mut self.tlbs {
                tlbs[usize::from(cpu)].flush_all();
            }
            self.emptied(cpu);
        } else {
            debt.served = id;
        }
    }

    /// Every translation of an address space is gone from a CPU, which never saw the broadcast that took it. Of a few
    /// pages nothing is counted, as of INVLPG: their refills are the workload's.
    pub(super) fn lost_mm(&mut self, cpu: Cpu, mm: u16) {
        self.settle_volleys(cpu);
        let asids = self.contexts.slots_of(cpu, mm);
        let i = usize::from(cpu);
        if let Some(tlbs) = &mut self.tlbs {
            for asid in (0..8).filter(|n| asids >> n & 1 == 1) {
                tlbs[i].drop_asid(asid);
            }
        }
        let c = &mut self.cores[i];
        if c.cr3 >> 16 == u64::from(mm) {
            c.cold = self.tlbs.is_none();
            c.flushed_by = FlushKind::Other;
            self.emptied(cpu);
        }
    }

    /// A broadcast for a user range reached the CPUs of a set.
    pub(super) fn user_broadcast(&mut self, cpu: Cpu, to: Set) {
        let Request { mm, full, .. } = self.cores[usize::from(cpu)].request;
        if full {
            for who in 0..self.cores.len() as Cpu {
                if self.in_set(cpu, to, who) {
                    self.lost_mm(who, mm);
                }
            }
        }
        let mut at = 0;
        let mut others = true;
        while let Some(who) = self.contexts.next_in(mm, at) {
            at = who + 1;
            others &= who == cpu || self.in_set(cpu, to, who);
        }
        let reached = match (others, self.in_set(cpu, to, cpu)) {
            (true, true) => Reached::Everyone,
            (true, false) => Reached::Others,
            (false, _) => Reached::Nobody,
        };
        let request = &mut self.cores[usize::from(cpu)].request;
        request.reached = request.reached.max(reached); // what one took from a CPU no other gives back
    }

    /// It runs a flush of a user range that is its own.
    pub(super) fn flushes_user(&self, cpu: Cpu) -> bool {
        let c = &self.cores[usize::from(cpu)];
        c.request.user && c.working > 0
    }

    /// May it be amid a switch or a remote call, which look at the generation before they end? It is in the kernel with
    /// interrupts closed, and not because a device's interrupt or, in user mode, an NMI has closed them.
    fn may_look(&self, cpu: Cpu) -> bool {
        let c = &self.cores[usize::from(cpu)];
        let device = c.window == Window::Interrupt && !c.in_call_irq;
        let nmi = c.window == Window::Nmi && c.depth == 1;
        c.depth > 0 && !c.if_on && !device && !nmi
    }

    /// A flush of a user range is over: who has the address space loaded and runs its code must have seen it.
    pub(super) fn user_promise(&mut self, cpu: Cpu, request: Request) -> Result<(), Violation> {
        let Some((is_lazy, ctx_gen)) = self.lag else { return Ok(()) };
        let mut at = 0;
        while let Some(who) = self.next_behind(request.mm, at, request.generation) {
            at = who + 1;
            self.settle_volleys(who);
            match request.reached {
                Reached::Everyone => break,
                Reached::Others if who != cpu => continue,
                Reached::Others | Reached::Nobody => {}
            }
            let cr3 = self.cores[usize::from(who)].cr3;
            if cr3 >> 16 != u64::from(request.mm) || who != cpu && self.may_look(who) {
                continue;
            }
            let seen = *self.contexts.of_asid(ctx_gen, who, (cr3 >> 8 & 0xff) as u16)?;
            if seen >= request.generation {
                continue;
            }
            // S10: a lazy CPU keeps what is dead, and may.
            if self.values[usize::from(who) * self.vars + is_lazy] == 0 {
                return Err(Violation::StaleAccessNotReused);
            }
            self.add(cpu, Stat::residency, 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::*;
    use crate::hw::Preset;
    use crate::kernel::policy::{builtin, load_with};
    use crate::kernel::program::Features;
    use crate::sim::cost::{Bound, Times};

    fn timed(cpus: Cpu) -> Timed {
        let (features, preset) = (Features::PTI_PCID, Preset::builtin("zen3-epyc").unwrap());
        let code = load_with(&builtin("ipi").unwrap(), &["flush_mm", "switch_mm"], features).unwrap();
        let times = Times::new(&code, &preset, features, Bound::Best);
        Timed::new(
            &code,
            features,
            times,
            &Layout { cpus, isolated: &[], flush_mask: &[], sockets: 1, keep: 0 },
        )
    }

    #[test]
    fn amid_a_switch_or_a_call_is_who_has_closed_interrupts_of_its_own_accord() {
        use Window::{Interrupt, Nmi, Other, Syscall};
        let rows = [
            // Window, frames, IF, a remote call's interrupt: may it look?
            (Other, 0, false, false, false),
            (Other, 1, true, false, false),
            (Other, 1, false, false, true),
            (Syscall, 1, false, false, true),
            (Syscall, 2, true, false, false),
            (Interrupt, 1, false, true, true),
            (Interrupt, 2, false, true, true),
            (Interrupt, 1, false, false, false),
            (Interrupt, 2, true, true, false),
            (Nmi, 1, false, false, false),
            (Nmi, 2, false, false, true),
            (Nmi, 1, false, true, false),
        ];
        for (window, depth, if_on, in_call_irq, may) in rows {
            let mut m = timed(1);
            let c = &mut m.cores[0];
            (c.window, c.depth, c.if_on, c.in_call_irq) = (window, depth, if_on, in_call_irq);
            assert_eq!(m.may_look(0), may, "{window:?}, {depth} frames, IF {if_on}, call {in_call_irq}");
        }
    }

    #[test]
    fn whom_a_broadcast_reached_is_the_most_that_one_of_them_did() {
        use Reached::{Everyone, Nobody, Others};
        let rows = [
            (&[0, 1, 2][..], Set::Online, Everyone),
            (&[0, 1, 2], Set::Others, Others),
            (&[0], Set::Others, Others),
            (&[1, 2], Set::Targets, Nobody),
            (&[], Set::Targets, Others),
        ];
        for (members, to, reached) in rows {
            let mut m = timed(3);
            let mm = m.contexts.create().unwrap();
            for cpu in members {
                m.contexts.mask(u64::from(mm), *cpu, true).unwrap();
            }
            (m.cores[0].request.mm, m.cores[0].request.full) = (mm, false);
            m.user_broadcast(0, to);
            assert_eq!(m.cores[0].request.reached, reached, "{members:?} by {to:?}");
            m.user_broadcast(0, Set::Online);
            m.user_broadcast(0, Set::Targets);
            assert_eq!(m.cores[0].request.reached, Everyone, "what one took no other gives back");
        }
    }

    #[test]
    fn a_full_broadcast_empties_whom_it_reaches_and_a_ranged_one_serves() {
        let owing = || {
            let mut m = timed(2);
            for debt in &mut m.debts {
                (debt.owed, debt.flushed_at) = (true, 70);
            }
            m
        };
        let mut m = owing();
        m.broadcast_reached(1, 90, true, 5);
        assert_eq!((m.debts[1].owed, m.debts[1].flushed_at, m.debts[1].served), (false, 90, 0));
        assert!(m.cores[1].cold && m.cores[1].flushed_by == FlushKind::Other);
        assert!(m.debts[0].owed && !m.cores[0].cold, "the other one");
        m.broadcast_reached(1, 80, true, 5);
        assert_eq!(m.debts[1].flushed_at, 90, "the later of both");
        let mut m = owing();
        m.broadcast_reached(1, 90, false, 5);
        assert_eq!((m.debts[1].owed, m.debts[1].flushed_at, m.debts[1].served), (true, 70, 5));
        assert!(!m.cores[1].cold);
    }

    #[test]
    fn what_a_cpu_loses_of_an_address_space_is_what_it_has_loaded() {
        for (loaded, cold) in [(4, true), (5, false)] {
            let mut m = timed(1);
            (m.cores[0].cr3, m.cores[0].flushed_by) = (loaded << 16 | 1 << 8, FlushKind::Local);
            m.lost_mm(0, 4);
            assert_eq!(m.cores[0].cold, cold);
            assert_eq!(m.cores[0].flushed_by == FlushKind::Other, cold);
        }
    }

    #[test]
    fn a_flush_is_of_a_user_range_while_its_work_runs() {
        for (user, working, is) in [(true, 1, true), (true, 0, false), (false, 1, false), (true, 2, true)] {
            let mut m = timed(1);
            (m.cores[0].request.user, m.cores[0].working) = (user, working);
            assert_eq!(m.flushes_user(0), is, "{user} {working}");
        }
    }
}
