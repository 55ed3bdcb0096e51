//! Processes and threads as data: what a turn of theirs does to address spaces and kernel stacks.

use serde::{Deserialize, Serialize};

/// One step of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Do {
    /// `switch_mm` to the next process of this CPU.
    Switch,
    /// Nothing is runnable: a kernel thread borrows the address space (`enter_lazy_tlb`).
    Sleep,
    /// `munmap`, `mprotect`, `madvise`: changes a user range of the current process and flushes it.
    Unmap {
        /// Pages; 0: beyond the ceiling, a full flush.
        pages: u32,
        /// Page-table pages are freed too, so lazy CPUs are interrupted.
        #[serde(default)]
        tables: bool,
    },
    /// A child is created: its kernel stack.
    Fork,
    /// The oldest child exits: its kernel stack goes the way of 3.2.
    Exit,
    /// The current process becomes another: a fresh address space is loaded, then the old one is torn down
    /// (`exec_mmap`, `exit_mmap`: a full flush with freed tables).
    Exec,
}

/// A step and how often it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStep {
    /// What.
    #[serde(flatten)]
    pub what: Do,
    /// Chance per thousand that it happens in a turn.
    #[serde(default = "super::always")]
    pub per_mille: u16,
}
