//! The one event model behind every importer: what one line of a recording says, borrowed from that line.
//!
//! Nothing here is owned, so an importer hands over millions of events a second without allocating; a consumer
//! copies what it wants to keep. A field a source does not carry is `None`, never a guess.

/// The task a line was recorded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task<'a> {
    /// Name of at most 15 bytes; `<...>` when the kernel's name cache had lost it.
    pub comm: &'a [u8],
    /// Thread id; 0 is the idle task.
    pub pid: u32,
    /// Process id, with the `record-tgid` option.
    pub tgid: Option<u32>,
}

/// One recorded event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Nanoseconds of the trace clock.
    pub at_ns: u64,
    /// CPU it was recorded on.
    pub cpu: u32,
    /// Task running there.
    pub task: Task<'a>,
    /// True in hard or soft interrupt context (`task` is then who was interrupted), if the source tells.
    pub in_interrupt: Option<bool>,
    /// Line number in the file, from 1.
    pub line: u64,
    /// What happened.
    pub what: What<'a>,
}

/// What an interrupt is: vectors of the `irq_vectors` trace system (`asm/irq_vectors.h`), the arm64 kernel's inter-processor
/// interrupts (`ipi_entry`), timers with a line of their own, and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Vector {
    /// 0xfc, a mask of CPUs is asked to run its call queue.
    CallFunction,
    /// 0xfb, one CPU is asked to.
    CallFunctionSingle,
    /// 0xfd.
    Reschedule,
    /// 0xf6.
    IrqWork,
    /// 0xec.
    LocalTimer,
    /// Thermal, threshold, error and spurious vectors.
    Other,
    /// A device, from `irq_handler_entry`.
    Device,
    /// 0xf7, x86_platform_ipi, and callbacks of a hypervisor.
    Platform,
    /// Posted interrupts of KVM and of devices.
    Posted,
    /// arm64: `IPI_CALL_FUNC`.
    IpiCall,
    /// arm64: `IPI_RESCHEDULE`.
    IpiReschedule,
    /// arm64: `IPI_TIMER`, a tick broadcast by another CPU.
    IpiTimer,
    /// arm64: `IPI_IRQ_WORK`.
    IpiIrqWork,
    /// arm64: CPU stop, backtrace, or an inter-processor interrupt whose `ipi_entry` was not recorded.
    IpiOther,
    /// arm64: the per-CPU timer (`arch_timer`).
    ArchTimer,
    /// RISC-V: the per-CPU timer.
    RiscvTimer,
}

impl Vector {
    /// How many there are.
    pub const COUNT: usize = 16;
    /// All of them, in the order of their numbers here.
    pub const ALL: [Vector; Self::COUNT] = [
        Self::CallFunction,
        Self::CallFunctionSingle,
        Self::Reschedule,
        Self::IrqWork,
        Self::LocalTimer,
        Self::Other,
        Self::Device,
        Self::Platform,
        Self::Posted,
        Self::IpiCall,
        Self::IpiReschedule,
        Self::IpiTimer,
        Self::IpiIrqWork,
        Self::IpiOther,
        Self::ArchTimer,
        Self::RiscvTimer,
    ];

    /// The trace system's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CallFunction => "call_function",
            Self::CallFunctionSingle => "call_function_single",
            Self::Reschedule => "reschedule",
            Self::IrqWork => "irq_work",
            Self::LocalTimer => "local_timer",
            Self::Other => "other_vector",
            Self::Device => "device",
            Self::Platform => "x86_platform_ipi",
            Self::Posted => "posted_interrupt",
            Self::IpiCall => "ipi_call_function",
            Self::IpiReschedule => "ipi_reschedule",
            Self::IpiTimer => "ipi_timer_broadcast",
            Self::IpiIrqWork => "ipi_irq_work",
            Self::IpiOther => "ipi_other",
            Self::ArchTimer => "arch_timer",
            Self::RiscvTimer => "riscv_timer",
        }
    }

    /// Does its handler run the CPU's call queue?
    pub fn runs_call_queue(self) -> bool {
        matches!(self, Self::CallFunction | Self::CallFunctionSingle | Self::IpiCall)
    }

    /// Is it the CPU's own timer?
    pub fn is_timer(self) -> bool {
        matches!(self, Self::LocalTimer | Self::ArchTimer | Self::RiscvTimer)
    }

    /// Does only x86 have it?
    pub fn is_x86(self) -> bool {
        match self {
            Self::CallFunction
            | Self::CallFunctionSingle
            | Self::Reschedule
            | Self::IrqWork
            | Self::LocalTimer
            | Self::Other
            | Self::Platform
            | Self::Posted => true,
            Self::Device
            | Self::IpiCall
            | Self::IpiReschedule
            | Self::IpiTimer
            | Self::IpiIrqWork
            | Self::IpiOther
            | Self::ArchTimer
            | Self::RiscvTimer => false,
        }
    }

    /// By the stem of an irq_vectors event, an osnoise name or a `sysvec_` function.
    pub fn of_x86(stem: &[u8]) -> Option<Self> {
        Some(match stem {
            b"call_function" => Self::CallFunction,
            b"call_function_single" => Self::CallFunctionSingle,
            b"reschedule" | b"reschedule_ipi" => Self::Reschedule,
            b"irq_work" => Self::IrqWork,
            b"local_timer" | b"apic_timer_interrupt" | b"hyperv_stimer0" => Self::LocalTimer,
            b"x86_platform_ipi" | b"hyperv_callback" | b"xen_hvm_callback" | b"acrn_hv_callback" => {
                Self::Platform
            }
            b"posted_msi_notification" => Self::Posted,
            _ if stem.starts_with(b"kvm_posted_intr") => Self::Posted,
            b"thermal_apic"
            | b"threshold_apic"
            | b"deferred_error_apic"
            | b"error_apic"
            | b"spurious_apic" => Self::Other,
            b"thermal"
            | b"threshold"
            | b"deferred_error"
            | b"error_interrupt"
            | b"spurious_apic_interrupt" => Self::Other,
            _ => return None,
        })
    }

    /// By what arm64 prints in brackets (`ipi_types` in arch/arm64/kernel/smp.c).
    pub fn of_ipi(reason: &[u8]) -> Self {
        match reason {
            b"Rescheduling interrupts" => Self::IpiReschedule,
            b"Function call interrupts" => Self::IpiCall,
            b"Timer broadcast interrupts" => Self::IpiTimer,
            b"IRQ work interrupts" => Self::IpiIrqWork,
            _ => Self::IpiOther,
        }
    }

    /// By the name of an `irq_handler_entry`.
    pub fn of_device(name: &[u8]) -> Self {
        match name {
            b"arch_timer" | b"arch_sys_timer" | b"arch_mem_timer" => Self::ArchTimer,
            b"riscv-timer" => Self::RiscvTimer,
            b"IPI" => Self::IpiOther,
            _ => Self::Device,
        }
    }
}

/// Which call data a `csd_function_entry` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Csd {
    /// `(nil)` or all zero: the sender runs the function itself.
    Local,
    /// A queued call; the kernel hashes the address, so it only serves to match.
    Queued(u64),
}

/// What the osnoise tracer measured on one CPU: one row of its table, or of rtla's, which adds them up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoiseSums {
    /// Periods measured.
    pub periods: u64,
    /// Time measured, without the pauses between periods.
    pub runtime_ns: u64,
    /// Of that, taken from the measuring thread.
    pub noise_ns: u64,
    /// Most of it in one period.
    pub max_period_ns: u64,
    /// Longest single piece.
    pub max_single_ns: u64,
    /// How often: hardware, NMIs, interrupts, soft interrupts, threads; `None` if that was not measured.
    pub counts: [Option<u64>; 5],
}

/// Sums of tools that print no events.
#[derive(Clone, Copy, Debug)]
pub enum Sum<'a> {
    /// osnoise.
    Noise(NoiseSums),
    /// timerlat, through rtla.
    Latency {
        /// `irq`, `thread` or `user-ret`.
        context: &'a [u8],
        /// Measurements, if printed.
        n: Option<u64>,
        /// Their mean, rounded down to the tool's unit.
        mean_ns: Option<u64>,
        /// The longest.
        max_ns: u64,
        /// How long the tool ran.
        over_ns: u64,
    },
    /// `perf stat`: how often an event happened on this CPU.
    Count {
        /// The interrupt it tells of.
        vector: Option<Vector>,
        /// The event, without its system.
        name: &'a [u8],
        /// How often.
        n: u64,
        /// In how much time.
        over_ns: u64,
    },
}

impl Sum<'_> {
    /// How much time it covers, up to the event's own.
    pub fn over_ns(&self) -> u64 {
        match self {
            Self::Noise(noise) => noise.runtime_ns,
            Self::Latency { over_ns, .. } | Self::Count { over_ns, .. } => *over_ns,
        }
    }
}

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// context_tracking: about to return to user mode. Only on nohz_full CPUs.
    UserEnter,
    /// context_tracking: entered the kernel.
    UserExit,
    /// An interrupt handler begins.
    IrqEntry {
        /// Which vector.
        vector: Vector,
        /// Device name, for [`Vector::Device`].
        name: &'a [u8],
    },
    /// It ends.
    IrqExit {
        /// Which vector.
        vector: Vector,
    },
    /// csd: this CPU queues a call for `cpu`.
    CsdQueue {
        /// Target.
        cpu: u32,
        /// What it will run, without offset.
        func: &'a [u8],
        /// Where it was queued, without offset.
        callsite: &'a [u8],
        /// Call data.
        csd: u64,
    },
    /// csd: the function begins here.
    CsdEntry {
        /// Function, without offset.
        func: &'a [u8],
        /// Call data.
        csd: Csd,
    },
    /// csd: it returned.
    CsdExit,
    /// ipi: one CPU is sent an interrupt.
    IpiSend {
        /// Target.
        cpu: u32,
        /// Sender's code, without offset.
        callsite: &'a [u8],
        /// Handler, without offset; empty for a reschedule (`0x0`).
        callback: &'a [u8],
    },
    /// ipi: several are.
    IpiSendMask {
        /// Targets, as printed: hex groups or a CPU list (see [`for_each_cpu`]).
        mask: &'a [u8],
        /// Sender's code, without offset.
        callsite: &'a [u8],
        /// Handler, without offset.
        callback: &'a [u8],
    },
    /// vmalloc: an area was taken.
    AllocArea {
        /// First address.
        start: u64,
        /// Bytes, guard page included.
        size: u64,
        /// Alignment asked for.
        align: u64,
        /// False when the allocator found nothing.
        ok: bool,
    },
    /// vmalloc: an area went to the lazy list.
    FreeArea {
        /// First address.
        start: u64,
        /// Pages now on the list.
        nr_lazy: u64,
        /// Limit, `lazy_max_pages()`.
        nr_lazy_max: u64,
    },
    /// vmalloc: a purge ended; nothing was purged, and nothing flushed, if `areas` is 0.
    Purge {
        /// Lowest address flushed.
        start: u64,
        /// Highest.
        end: u64,
        /// Areas handed back to the allocator.
        areas: u64,
    },
    /// sched: a task was created (threads too).
    Fork {
        /// Name of the new task.
        child_comm: &'a [u8],
        /// Its id.
        child_pid: u32,
    },
    /// irq: a soft interrupt begins.
    SoftirqEntry {
        /// `TIMER`, `NET_RX`, `RCU` and so on.
        action: &'a [u8],
    },
    /// It ends.
    SoftirqExit,
    /// cgroup: a task was moved to another control group.
    CgroupAttach {
        /// Hierarchy; 0 is the one of version 2.
        root: u32,
        /// The group's path in it.
        path: &'a [u8],
        /// The task.
        pid: u32,
    },
    /// workqueue: a work item begins to run.
    Work {
        /// Its function, without offset.
        function: &'a [u8],
    },
    /// sched: a task ends.
    Exit {
        /// Its name.
        comm: &'a [u8],
        /// Its id.
        pid: u32,
    },
    /// sched: another task runs here.
    Switch {
        /// Who ran until now; `None` if the source does not say.
        prev_pid: Option<u32>,
        /// Did it still want to run (state `R`)? `None` if the source does not say.
        preempted: Option<bool>,
        /// Its name.
        next_comm: &'a [u8],
        /// Its id; 0 is idle.
        next_pid: u32,
    },
    /// A kprobe or kretprobe.
    Probe {
        /// The event's own name, which whoever recorded chose.
        name: &'a [u8],
        /// The function it sits on, without offset; empty if the source prints a bare address.
        function: &'a [u8],
        /// True for a return probe.
        returns: bool,
        /// Its arguments as printed.
        args: &'a [u8],
    },
    /// raw_syscalls or syscalls: a system call begins.
    SyscallEntry {
        /// The event's name: `sys_enter`, or `sys_enter_munmap` of the syscalls system.
        name: &'a [u8],
        /// Number and arguments, or named arguments, as printed.
        args: &'a [u8],
    },
    /// It ends.
    SyscallExit,
    /// exceptions: a page fault.
    PageFault,
    /// tlb: a user-range flush (kernel ranges never emit this).
    TlbFlush {
        /// Pages, -1 for all.
        pages: i64,
        /// Reason as printed.
        reason: &'a [u8],
    },
    /// timer: the tick was or was not stopped.
    TickStop {
        /// What kept it, `NONE` if it stopped.
        dependency: &'a [u8],
    },
    /// timer: an hrtimer's function begins.
    HrtimerExpire {
        /// Function, without offset.
        function: &'a [u8],
    },
    /// timer: a timer of the wheel is armed on a CPU.
    TimerStart {
        /// Function, without offset.
        function: &'a [u8],
        /// Which CPU will run it, if printed.
        cpu: Option<u32>,
    },
    /// ipi, on arm64: CPUs are sent an interrupt.
    IpiRaise {
        /// Targets, as printed.
        mask: &'a [u8],
        /// Which.
        vector: Vector,
    },
    /// The function tracer: this function was entered.
    Function {
        /// Its name.
        name: &'a [u8],
    },
    /// timerlat: how late its interrupt handler or its thread was.
    Latency {
        /// `irq`, `thread` or `user-ret`.
        context: &'a [u8],
        /// By how much.
        ns: u64,
    },
    /// A sum that a tool made, of many events that are not there.
    Sum(&'a Sum<'a>),
    /// sched: a task is moved to another CPU, whether it runs or waits.
    Migrate {
        /// The task.
        pid: u32,
        /// Where it goes.
        to: u32,
    },
    /// Text written to `trace_marker`.
    Marker {
        /// The text.
        text: &'a [u8],
    },
    /// The call chain of an earlier event of the same task, one symbol per line.
    Stack {
        /// Frames, innermost first, separated by newlines.
        frames: &'a [u8],
    },
    /// osnoise: something took time from a task, and how much.
    Noise {
        /// `irq`, `softirq`, `thread`, `nmi`, `hardware` (a sample no event explains, and those of the hwlat tracer) or
        /// `sample` (a whole sample above the threshold).
        kind: &'a [u8],
        /// What, by the tracer's name for it.
        name: &'a [u8],
        /// How long.
        duration_ns: u64,
    },
    /// An event nobody here interprets.
    Other {
        /// Its name.
        name: &'a [u8],
    },
}

/// Something a recording lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Why it is known.
    pub kind: HoleKind,
    /// CPU, if the marker names one.
    pub cpu: Option<u32>,
    /// Events lost, if the marker counts them.
    pub events: Option<u64>,
    /// Line of the marker, from 1.
    pub line: u64,
}

/// How a recording shows that events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoleKind {
    /// `[LOST n EVENTS]` of a consuming read, or trace-cmd's `EVENTS DROPPED`.
    Lost,
    /// `CPU n buffer started`: the ring overwrote what came before on this CPU.
    BufferStarted,
    /// The header counts more events written than kept.
    Overwritten,
    /// The text was cut in mid-line.
    Cut,
}

impl HoleKind {
    /// One word for tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::BufferStarted => "buffer_started",
            Self::Overwritten => "overwritten",
            Self::Cut => "cut",
        }
    }
}

/// Calls `each` for every CPU a mask names. The kernel prints hex groups of eight digits, trace-cmd a CPU list,
/// and nothing marks which: a mask is one whose every group has exactly eight hex digits.
pub fn for_each_cpu(text: &[u8], mut each: impl FnMut(u32)) {
    let groups = || text.split(|&b| b == b',');
    let hex = |g: &[u8]| g.len() == 8 && g.iter().all(u8::is_ascii_hexdigit);
    if !text.is_empty() && groups().all(hex) {
        let last = groups().count() - 1;
        // Lowest CPUs stand in the last group; report them in ascending order.
        for back in 0..=last {
            let group = groups().nth(last - back).unwrap_or_default();
            let mut bits = group.iter().fold(0u32, |v, &b| v << 4 | (b as char).to_digit(16).unwrap_or(0));
            while bits != 0 {
                each(back as u32 * 32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        return;
    }
    for_each_number(text, crate::trace::MAX_CPUS, each);
}

/// Calls `each` for every number of a list such as `2,7-9`, at most for `most` of them.
pub fn for_each_number(text: &[u8], most: u32, mut each: impl FnMut(u32)) {
    let mut left = most;
    for range in text.split(|&b| b == b',') {
        let mut ends = range.splitn(2, |&b| b == b'-');
        let number =
            |t: Option<&[u8]>| t.and_then(|t| std::str::from_utf8(t).ok()?.trim().parse::<u32>().ok());
        let Some(first) = number(ends.next()) else { continue };
        let last = number(ends.next()).unwrap_or(first).min(first.saturating_add(left));
        left = left.saturating_sub(last.saturating_sub(first) + 1);
        (first..=last).for_each(&mut each);
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(text: &str) -> Vec<u32> {
        let mut out = Vec::new();
        for_each_cpu(text.as_bytes(), |c| out.push(c));
        out
    }

    #[test]
    fn eight_hex_digits_are_a_mask_and_anything_else_is_a_list() {
        assert_eq!(cpus("00000000,0000000d"), [0, 2, 3]);
        assert_eq!(cpus("00000001,00000002"), [1, 32]);
        assert_eq!(cpus("1-3"), [1, 2, 3]);
        assert_eq!(cpus("0,2-3,17"), [0, 2, 3, 17]);
        assert_eq!(cpus("10"), [10]);
        assert_eq!(cpus(""), [0; 0]);
    }
}
