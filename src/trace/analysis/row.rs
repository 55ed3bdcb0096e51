//! One remote call to a CPU that may be isolated.

use super::tasks::Sym;

/// What a CPU is doing, as far as a sender's decision goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// The trace does not tell.
    #[default]
    Unknown,
    /// In user mode, between `user_enter` and `user_exit`.
    User,
    /// In the kernel.
    Kernel,
    /// In the idle loop, no interrupt.
    Idle,
}

impl Mode {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::Idle => "idle",
        }
    }
}

/// Not known, or not happened.
pub const NEVER: u64 = u64::MAX;
/// No operation, no row.
pub const NONE: u32 = u32::MAX;

/// One remote call to a CPU that may be isolated.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // facts about a call, independent of each other
pub struct Row {
    /// Index of the operation, or [`NONE`].
    pub op: u32,
    /// Function.
    pub func: Sym,
    /// Target.
    pub cpu: u32,
    /// When it was queued, or [`NEVER`].
    pub queued_ns: u64,
    /// When its function began, or the interrupt that must have run it; [`NEVER`] if it was not seen.
    pub ran_ns: u64,
    /// Line of the event that shows it run, 0 if none does.
    pub ran_line: u64,
    /// Line where that interrupt began, 0 unknown.
    pub irq_line: u64,
    /// When the target next entered the kernel for another reason, or [`NEVER`].
    pub other_ns: u64,
    /// Number of the interrupt that ran it, from 1 on each CPU; 0 if none did.
    pub irq: u32,
    /// Length of that interrupt, if this is the first call it ran; 0 unknown.
    pub irq_len_ns: u32,
    /// Number of the stay in the kernel it ran in, from 1; 0 unknown.
    pub stay: u32,
    /// What the target was doing when it was queued.
    pub mode: Mode,
    /// No change of that within the resolution of the trace.
    pub mode_sure: bool,
    /// That stay had other reasons too.
    pub stay_other: bool,
    /// First call of its interrupt.
    pub first: bool,
    /// That took the CPU from its task: it was neither taken nor idle already.
    pub outermost: bool,
    /// Its own event or a probe on its function shows it run.
    pub traced: bool,
    /// Inside the window that is counted.
    pub counted: bool,
}
