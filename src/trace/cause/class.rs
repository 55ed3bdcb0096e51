//! Words for causes: how a remote call is classed, whether it can be deferred, and what kind of thing takes the CPU.

use serde::Serialize;

/// How a remote call is classed in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The lazy vmalloc purge.
    Purge,
    /// `vunmap_range` and other immediate unmaps.
    Vunmap,
    /// `_vm_unmap_aliases`, before a change of attributes or on freeing executable memory.
    Alias,
    /// A kernel page-table page is freed.
    TableFree,
    /// `set_memory_*`: rights or cache attributes changed.
    SetMemory,
    /// Instruction patching.
    Text,
    /// User address spaces.
    User,
    /// Anything else that is known.
    Other,
    /// The trace cannot tell.
    Unknown,
}

impl Class {
    /// The word in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Vunmap => "vunmap",
            Self::Alias => "alias",
            Self::TableFree => "table_free",
            Self::SetMemory => "set_memory",
            Self::Text => "text",
            Self::User => "user",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}

/// Can the interrupt be replaced by work at the next kernel entry?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// The kernel-range list of v7 30/31 (FACTS 1.2): vunmap, purge, aliases.
    KernelRange,
    /// Not by any policy known here; the entry says why.
    Never,
    /// By the text-patching half of the series (v7 25/31), which is not a TLB policy.
    TextSync,
    /// The trace does not tell what it is.
    Unknown,
}

impl Deferral {
    /// The word in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::KernelRange => "kernel_range",
            Self::Never => "never",
            Self::TextSync => "text_sync",
            Self::Unknown => "unknown",
        }
    }
}

/// What takes the CPU from its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An interrupt.
    Interrupt,
    /// A soft interrupt, run behind an interrupt or a system call.
    Softirq,
    /// Another task: a kernel thread, an interrupt's thread, a second runnable task.
    Task,
    /// A non-maskable interrupt.
    Nmi,
    /// Firmware (SMI), the hardware or a hypervisor.
    Firmware,
}

impl Kind {
    /// The word in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Softirq => "softirq",
            Self::Task => "task",
            Self::Nmi => "nmi",
            Self::Firmware => "firmware",
        }
    }
}
