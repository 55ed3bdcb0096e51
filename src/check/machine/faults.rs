//! Faults (SEMANTICS S8): what an access does whose translation is absent.
//!
//! User memory is accessed through the exception table, so a fault there is an outcome: it ends the column. In an
//! interrupt or NMI the access is left out and reads 0, as `copy_from_user_nmi` does. Kernel code has no handler: a
//! fault of its own is `unmapped_access`, unless the question asks whether this column faults at this page.

use super::Model;
use super::{Abs, CR3_USER};
use crate::kernel::program::{Op, PageKind, Touch};
use crate::kernel::step::{self, Violation};

/// The page that an op of a program accesses by itself.
pub fn page_of(op: Op) -> Option<usize> {
    match op {
        Op::Touch(Touch::Read(p) | Touch::Write(p))
        | Op::LoadPage { page: p, .. }
        | Op::StorePage { page: p, .. } => Some(usize::from(p)),
        _ => None,
    }
}

impl Model {
    /// Does a CPU's task, not its interrupts, access a page by itself?
    pub fn accesses(&self, cpu: usize, page: usize) -> bool {
        self.layout.cpus[cpu].frames[0].locations.iter().any(|l| page_of(l.op) == Some(page))
    }
}

impl<const W: usize> Abs<'_, W> {
    /// An access that a program makes by itself: `true` if it is carried out, `false` if it faults.
    pub(super) fn explicit(&mut self, cpu: usize, p: usize) -> Result<bool, Violation> {
        self.access(cpu, p, true)?;
        let cr3 = self.get(self.m.layout.cpus[cpu].cr3);
        if self.used_of(cpu, p, cr3)?.is_some() {
            return Ok(true);
        }
        let user = matches!(self.m.layout.pages[p].kind, PageKind::User(_));
        if self.level == 0 && (user || self.m.scope.asks_fault(cpu, p)) {
            self.fault = Some(p);
            return Ok(false);
        }
        if user { Ok(false) } else { Err(Violation::UnmappedAccess) }
    }

    /// The column ends where it is. Its locals keep the values they had before the access. What handles the fault is
    /// kernel code under the kernel's CR3: entry code has switched, if user code faulted.
    pub(super) fn end_in_fault(&mut self, cpu: usize, page: usize, frame: &step::Frame) {
        let c = &self.m.layout.cpus[cpu];
        let cr3 = self.get(c.cr3);
        self.set(c.cr3, cr3 & !CR3_USER);
        self.set(c.gs, 1);
        self.set(c.fault, page as u64 + 1);
        self.set(c.left, 0);
        self.keep(cpu, 0, frame);
        self.done(cpu, 0);
    }

    /// Keep what is asked about of a column that ends.
    pub(super) fn keep(&mut self, cpu: usize, level: usize, frame: &step::Frame) {
        if level > 0 {
            return;
        }
        for &(reg, bits) in &self.m.layout.cpus[self.task(cpu)].kept {
            self.set(bits, frame.regs[usize::from(reg.0)]);
        }
    }
}
