//! Tasks that go on on another CPU (SEMANTICS L11).
//!
//! What is a task's goes with it: its frame, whom it waits for, what its flush covers and its `flush_tlb_info` (on its stack
//! since Linux 7.3). These stay in the words of the column that the task is, and each CPU says whose task it runs. What is
//! a CPU's stays: TLB, CR3, store buffer, queue of calls, copies of per-CPU variables. So `me`, and `NAME` of a variable per
//! CPU, are those of the CPU where the op is carried out.

use super::{Abs, Model};
use crate::check::scope::Rest;
use crate::kernel::step;

impl Model {
    /// The CPU that runs the task of a column, or ran it last.
    pub fn cpu_of(&self, s: &[u64], column: usize) -> usize {
        if !self.layout.migrates {
            return column;
        }
        let runs = |&cpu: &usize| self.layout.cpus[cpu].task.get(s) as usize == column;
        (0..self.layout.cpus.len()).find(runs).expect("each column is on one CPU")
    }
}

impl<const W: usize> Abs<'_, W> {
    /// The column whose task a CPU runs, or ran last.
    #[inline]
    pub(super) fn task(&self, cpu: usize) -> usize {
        if self.m.layout.migrates { self.get(self.m.layout.cpus[cpu].task) as usize } else { cpu }
    }

    /// CPUs where the task of this one can go on, a bit each: they rest in ordinary kernel code under the same CR3, and have
    /// switched, which publishes. Only a task itself is preempted, and with interrupts on.
    pub fn free_for(&self, cpu: usize, level: usize) -> u8 {
        let cpus = &self.m.layout.cpus;
        if level > 0 || self.get(cpus[cpu].irqs) == 0 {
            return 0;
        }
        let cr3 = self.get(cpus[cpu].cr3);
        let free = |&to: &usize| {
            let role = self.m.role(to);
            role.rest == Rest::Kernel
                && !role.isolated
                && !role.deaf
                && self.top(to).is_none()
                && self.get(cpus[to].cr3) == cr3
                && self.get(cpus[to].pending) == 0
        };
        (0..cpus.len()).filter(free).fold(0, |all, to| all | 1 << to)
    }

    /// The task of a CPU goes on on another one, at `frame`; what ran there last is over.
    pub(super) fn move_task(&mut self, from: usize, to: usize, frame: &step::Frame) {
        let (a, b) = (&self.m.layout.cpus[from], &self.m.layout.cpus[to]);
        let (old, new) = (&a.frames[0], &b.frames[0]);
        for (was, is) in [(old.visited, new.visited), (old.targets, new.targets)] {
            let v = self.get(was);
            self.set(is, v);
        }
        for b in [old.at, old.area, old.cur, old.visited, old.targets, old.mce, old.device] {
            self.set(b, 0);
        }
        let (task, over) = (self.get(a.task), self.get(b.task));
        self.set(a.task, over);
        self.set(b.task, task);
        self.store(to, 0, frame);
    }
}
