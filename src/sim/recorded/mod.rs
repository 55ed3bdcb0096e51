//! A recorded workload under any policy: what the policy's programs make of the requests and entries that a real kernel
//! was seen to have.
//!
//! Given are each isolated CPU's own entries into the kernel, the mode it is in, and every request of a flush, a sync or
//! another remote call. Outcomes are the calls that the policy's initiators send, the interrupts they cause, and what is
//! pending meanwhile. A stay in the kernel that only calls gave a reason for happens if one of these calls is sent;
//! a later call then finds the CPU where it would have been, not where it was recorded (feedback).
//!
//! The interpreter is [`crate::kernel::step`], the machine is [`Timed`](super::machine::Timed). Order is that of the
//! recording; [`Timed`](super::machine::Timed)'s clocks only number the steps. What the recording leaves open is decided
//! twice: [`Variant::favour`] puts a CPU in user mode wherever that is possible, the other run in the kernel.
//!
//! Reading order: here (the workload), `timeline` (one CPU's marks become steps), `play` (the run), `calls`, `senders`.

#[cfg(test)]
mod oracle;
mod play;
#[cfg(test)]
mod tests;
mod timeline;

use crate::kernel::step::Cpu;

pub use play::{Costs, CpuPlayed, Levels, Played, Player, play};

/// Not known, or not happened.
pub const NEVER: u64 = u64::MAX;

/// What a recording shows of one CPU at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It returns to user mode.
    Enter,
    /// It leaves user mode.
    Exit,
    /// It has a reason of its own to be in the kernel: a system call, a fault, a switch.
    Own,
    /// An interrupt that no remote call asked for, until then.
    OwnIrq {
        /// Its end.
        end_ns: u64,
    },
    /// An interrupt that runs the call queue.
    Calls {
        /// Number on this CPU.
        irq: u32,
        /// Its end.
        end_ns: u64,
    },
    /// The idle task begins or stops to run.
    Idle(bool),
    /// Events are missing: from here on nothing is known.
    Lost,
}

/// A mark and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Nanoseconds of the recording.
    pub at_ns: u64,
    /// It lies in what is counted.
    pub counted: bool,
    /// What.
    pub mark: Mark,
}

/// A CPU whose interrupts are outcomes, an isolated one in a recording.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Its number.
    pub cpu: Cpu,
    /// It is not in `nohz_full`: its interrupts are outcomes, but no policy that asks for isolation spares it.
    pub housekeeping: bool,
    /// In the order of time.
    pub marks: Vec<Marked>,
}

/// What a request asks for: which initiator of the kernel's text runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A flush that a policy may defer, its addresses used again: `purge`.
    Purge,
    /// A flush that a policy may defer, of an unmap its caller relies on at once: `vunmap`.
    Unmap,
    /// A flush that no policy may defer: `table_free`.
    Tables,
    /// The same: `set_memory`.
    Rights,
    /// A flush of the kernel range: deferrable or not is not recorded.
    Kernel,
    /// A sync of patched text, which a policy may defer unless the text is `.noinstr.text`; that is not recorded.
    Sync,
    /// A flush of a user range: `flush_mm`.
    User,
    /// A call that no initiator of the kernel's text stands for: it is sent under every policy.
    Other,
    /// A call of which nothing is known but its interrupt.
    Unknown,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks; `None` if the recording does not tell.
    pub sender: Option<Cpu>,
    /// For what.
    pub ask: Ask,
    /// The range is flushed as a whole.
    pub full: bool,
    /// Every call of it to an isolated CPU would have been recorded.
    pub complete: bool,
    /// Line that shows it.
    pub line: u64,
    /// Its calls, ascending by CPU.
    pub calls: std::ops::Range<usize>,
}

/// A recorded call to an isolated CPU.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Target.
    pub cpu: Cpu,
    /// When it was queued.
    pub queued_ns: u64,
    /// That is not recorded: it was just before the interrupt.
    pub guessed: bool,
    /// Number of the interrupt that ran it ([`Mark::Calls`]); 0 if none did.
    pub irq: u32,
    /// It ran in what is counted.
    pub counted: bool,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// Number of CPUs, one more than the highest.
    pub cpus: Cpu,
    /// Isolated CPUs, ascending.
    pub targets: Vec<Target>,
    /// Requests with a call to one of them.
    pub requests: Vec<Request>,
    /// Their calls.
    pub calls: Vec<Call>,
    /// Beginning of what is counted.
    pub begin_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// A change this close to a decision may have come before or after it.
    pub margin_ns: u64,
    /// Idle tasks are known.
    pub idle_known: bool,
}

/// One of the two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What is not recorded is as a policy would like it.
    pub favour: bool,
    /// What a call of which nothing is known would have asked for, in favour.
    pub unknown: Ask,
    /// Flushes of user ranges free page tables too, which is not recorded.
    pub tables: bool,
    /// What is pending on each CPU is kept as it changes.
    pub levels: bool,
}
