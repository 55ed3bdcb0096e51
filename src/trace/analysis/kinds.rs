//! Counts over the whole recording: kinds of events, and flushes of kernel ranges.

/// Which kinds of events a recording has; what is missing decides what can be said.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Kinds {
    /// context_tracking.
    pub user: u64,
    /// irq_vectors.
    pub vectors: u64,
    /// csd_queue_cpu.
    pub csd_queue: u64,
    /// csd_function_entry.
    pub csd_entry: u64,
    /// ipi_send_*.
    pub ipi: u64,
    /// vmalloc.
    pub vmalloc: u64,
    /// kprobes.
    pub probes: u64,
    /// Stack traces.
    pub stacks: u64,
    /// sched_switch.
    pub switches: u64,
    /// System calls.
    pub syscalls: u64,
    /// tlb_flush.
    pub tlb_flush: u64,
    /// osnoise, apart from NMIs, which have an event of their own.
    pub noise: u64,
    /// nmi_handler and nmi_noise.
    pub nmis: u64,
    /// cgroup_attach_task and cgroup_transfer_tasks.
    pub cgroups: u64,
    /// softirq_entry.
    pub softirqs: u64,
    /// tick_stop.
    pub tick_stop: u64,
    /// hrtimer_expire_entry.
    pub hrtimers: u64,
    /// Samples of the hwlat tracer, and of osnoise that no event explains.
    pub firmware: u64,
    /// Rows of osnoise and rtla, where no event tells more.
    pub sums: u64,
}

/// Calls of `flush_tlb_kernel_range` seen by a probe.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct RangeCalls {
    /// All.
    pub calls: u64,
    /// More than 33 pages, so `do_flush_tlb_all` on every CPU.
    pub full: u64,
    /// The others.
    pub ranged: u64,
}
