//! Grace periods (SEMANTICS L10): who is in a read-side section, and who waits for it.
//!
//! Invariant: after each move, a grace period that has begun waits for no CPU that has been quiescent since. So nobody
//! remembers when a section began: a bit per CPU and grace period is enough.

use super::Abs;
use crate::check::scope::UNBOUNDED;
use crate::kernel::program::{ProgId, Rcu};
use crate::kernel::step::Violation;

impl<const W: usize> Abs<'_, W> {
    /// Does a grace period that begins now wait for this CPU? A section of it may be open, or its stores not visible yet.
    fn holds_up(&self, cpu: usize) -> bool {
        let c = &self.m.layout.cpus[cpu];
        let on = |b: super::Bits| b.exists() && self.get(b) != 0;
        let watched = !on(c.unwatched) || c.frames[1..].iter().any(|f| on(f.watch));
        if !watched {
            return false;
        }
        let above = c.frames[1..].iter().any(|f| on(f.at) || on(f.reads));
        let task = if on(c.frames[0].at) { self.get(c.irqs) == 0 } else { false };
        above || task || on(c.frames[0].reads) && !self.has_left(cpu) || self.buffered(cpu) > 0
    }

    /// Did this CPU end its last round in a read-side section? Then what it does next is no part of the question: it holds
    /// nothing up, and uses nothing.
    pub fn has_left(&self, cpu: usize) -> bool {
        let c = &self.m.layout.cpus[cpu];
        let reads = c.frames[0].reads;
        reads.exists()
            && self.get(reads) != 0
            && self.get(c.frames[0].at) == 0
            && self.m.role(cpu).left != UNBOUNDED
            && self.get(c.left) == 0
    }

    /// The CPUs that a grace period which begins now waits for.
    fn sections(&mut self) -> u64 {
        self.others = self.m.masks[3];
        (0..self.m.layout.cpus.len()).fold(0, |all, cpu| all | u64::from(self.holds_up(cpu)) << cpu)
    }

    /// After a move of a CPU: who waits for it no longer does if it is quiescent, and what it has asked for begins once its
    /// own stores are visible.
    pub(super) fn pass(&mut self, cpu: usize) {
        let layout = &self.m.layout;
        if layout.graces == 0 {
            return;
        }
        self.others |= layout.graces;
        if !self.holds_up(cpu) {
            for c in &layout.cpus {
                for b in c.later.iter().map(|l| l.waits).chain([c.grace]).filter(|b| b.exists()) {
                    let waits = self.get(b);
                    self.set(b, waits & !(1 << cpu));
                }
            }
        }
        if self.buffered(cpu) == 0 {
            for l in &layout.cpus[cpu].later {
                if self.get(l.run) != 0 && self.get(l.begun) == 0 {
                    let all = self.sections();
                    self.set(l.begun, 1);
                    self.set(l.waits, all);
                }
            }
        }
    }

    /// A read-side section opens or closes, RCU starts or stops watching, or a grace period is asked for.
    pub(super) fn about_grace(&mut self, cpu: usize, what: Rcu) -> Result<(), Violation> {
        let c = &self.m.layout.cpus[cpu];
        let f = &c.frames[self.level];
        match what {
            Rcu::Lock if f.reads.exists() && self.get(f.reads) != 0 => return Err(Violation::Overflow), // they do not nest
            Rcu::Lock | Rcu::Unlock if f.reads.exists() => self.set(f.reads, u64::from(what == Rcu::Lock)),
            Rcu::Watch | Rcu::Unwatch if self.level > 0 => {
                if f.watch.exists() {
                    self.set(f.watch, u64::from(what == Rcu::Watch));
                }
            }
            Rcu::Watch | Rcu::Unwatch if c.unwatched.exists() => {
                self.set(c.unwatched, u64::from(what == Rcu::Unwatch));
            }
            Rcu::Start => {
                let all = self.sections();
                self.set(c.grace, all);
            }
            Rcu::Lock | Rcu::Unlock | Rcu::Watch | Rcu::Unwatch | Rcu::Wait => {}
        }
        Ok(())
    }

    /// A program is to run on this CPU after a grace period.
    pub(super) fn runs_later(&mut self, cpu: usize, run: ProgId) -> Result<(), Violation> {
        let layout = &self.m.layout;
        let number = layout.laters.iter().position(|&p| p == run).expect("listed") as u64 + 1;
        let free = layout.cpus[cpu].later.iter().find(|l| self.get(l.run) == 0);
        let Some(l) = free else { return Err(Violation::Overflow) };
        self.set(l.run, number);
        self.set(l.begun, 0);
        self.set(l.waits, 0);
        Ok(())
    }

    /// The program whose grace period is over, if there is one.
    pub fn due_later(&self, cpu: usize) -> Option<ProgId> {
        let l = self.m.layout.cpus[cpu].later.first()?;
        let run = self.get(l.run);
        let over = run != 0 && self.get(l.begun) != 0 && self.get(l.waits) == 0;
        over.then(|| self.m.layout.laters[run as usize - 1])
    }

    /// It starts, like an interrupt.
    pub fn start_later(&mut self, cpu: usize, run: ProgId) {
        let later = &self.m.layout.cpus[cpu].later;
        for (l, next) in later.iter().zip(later.iter().skip(1).map(Some).chain([None])) {
            for (to, from) in [
                (l.run, next.map(|n| n.run)),
                (l.begun, next.map(|n| n.begun)),
                (l.waits, next.map(|n| n.waits)),
            ] {
                let v = from.map_or(0, |b| self.get(b));
                self.set(to, v);
            }
        }
        self.enter(cpu, 1, run);
    }
}
