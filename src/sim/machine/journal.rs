//! What each CPU did and in which state it was, for tests that follow a run in another machine.

use super::{Timed, USER};
use crate::kernel::program::{Pc, ProgId};
use crate::kernel::step::Cpu;
use crate::sim::stats::Cause;

/// Something that a CPU did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// An op.
    Op(Pc),
    /// A program begins: which, and why an interrupt came.
    Begins(ProgId, Cause),
    /// It is over.
    Over,
}

/// What a CPU did, and its state then: before an op or a program, behind what is over.
#[allow(clippy::struct_excessive_bools)] // registers of one bit
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub time: u64,
    /// Who.
    pub cpu: Cpu,
    /// What.
    pub did: Did,
    /// IF.
    pub irqs: bool,
    /// An NMI handler runs.
    pub nmi_blocked: bool,
    /// GSBASE is the kernel's.
    pub kernel_gs: bool,
    /// The user half of the table is loaded.
    pub user_table: bool,
    /// The address space and the ASID in CR3.
    pub context: (u16, u8),
    /// What `next mm` and `mm to flush` answer.
    pub asked: (u16, u16),
}

impl Timed {
    /// Writes down what a CPU does, where that is asked for.
    pub fn mark(&mut self, cpu: Cpu, did: Did) {
        let c = &self.cores[usize::from(cpu)];
        let asked = self.contexts.asked(cpu);
        if let Some(journal) = &mut self.journal {
            journal.push(Mark {
                time: c.clock,
                cpu,
                did,
                irqs: c.if_on,
                nmi_blocked: c.nmi_blocked,
                kernel_gs: c.gs_kernel,
                user_table: c.cr3 & USER != 0,
                context: ((c.cr3 >> 16) as u16, (c.cr3 >> 8) as u8),
                asked,
            });
        }
    }
}
