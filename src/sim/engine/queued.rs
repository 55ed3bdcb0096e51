//! Kernel work that waits for its turn on a CPU.

use super::super::stats::Cause;
use super::Kernel;
use crate::kernel::program::ProgId;

/// Kernel work an initiator does.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Work {
    pub(super) ready: u64,
    pub(super) run: Run,
    pub(super) full: bool,
    pub(super) pages: u32,
    pub(super) cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Run {
    /// `drain_vmap_area_work`.
    Drain,
    /// A program; `true` when it consumes the lazy list (`_vm_unmap_aliases`).
    Program(ProgId, bool),
    /// A process does something to its address space.
    Task(Task),
}

/// What a turn queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Task {
    Switch {
        actor: u16,
    },
    Sleep,
    Unmap {
        actor: u16,
        tables: bool,
    },
    Exec {
        actor: u16,
    },
    Migrate {
        actor: u16,
    },
    /// `exit_mmap` of an address space that nobody uses any more.
    TearDown {
        mm: u16,
    },
}

impl Work {
    pub(super) fn new(ready: u64, run: Run, full: bool, pages: u32, cause: Cause) -> Self {
        Work { ready, run, full, pages, cause }
    }
}

impl Run {
    pub(super) fn purges(self) -> bool {
        matches!(self, Run::Drain | Run::Program(_, true))
    }
}

/// Are so many pages flushed as a whole? 0 stands for more than any ceiling.
pub(super) fn is_full(kernel: &Kernel, pages: u32) -> bool {
    pages == 0 || u64::from(pages) > kernel.flush_ceiling
}
