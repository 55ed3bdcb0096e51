//! The catalogue of what interrupts an isolated CPU: one entry per cause, with its signature in a trace, its meaning,
//! whether a policy can defer it and why, and what helps.

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

/// One cause.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Stable word for JSON and tables.
    pub id: &'static str,
    /// Class of the calls behind it.
    pub class: Class,
    /// A few words for people.
    pub title: &'static str,
    /// How it looks in a trace.
    pub signature: &'static str,
    /// What happens.
    pub meaning: &'static str,
    /// Whether a policy can defer it.
    pub deferral: Deferral,
    /// Why (not).
    pub because: &'static str,
    /// What an operator can do.
    pub helps: &'static str,
}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $class:ident, $title:literal,
       signature: $signature:literal, meaning: $meaning:literal, deferral: $deferral:ident, $because:literal, helps: $helps:literal;)*) => {
        /// A cause, by name; [`Cause::entry`] is its catalogue entry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Cause { $(#[doc = $title] $name,)* }

        impl Cause {
            /// Every cause, in the order of the catalogue.
            pub const ALL: &[Cause] = &[$(Cause::$name,)*];

            /// Its entry.
            pub fn entry(self) -> &'static Entry {
                &CATALOGUE[self as usize]
            }
        }

        /// The entries, in the order of [`Cause::ALL`].
        pub static CATALOGUE: &[Entry] = &[$(Entry {
            id: $id, class: Class::$class, title: $title, signature: $signature, meaning: $meaning,
            deferral: Deferral::$deferral, because: $because, helps: $helps,
        },)*];
    };
}

catalogue! {
    VmallocPurge = "vmalloc_purge", Purge, "lazy vmalloc purge",
        signature: "do_flush_tlb_all or do_kernel_range_flush queued between drain_vmap_area_work and purge_vmap_area_lazy",
        meaning: "freed vmalloc areas (mostly kernel stacks of ended tasks) reached lazy_max_pages(); one flush of their hull goes to every CPU before the addresses are used again",
        deferral: KernelRange, "vmap leaves are cleared without freeing page-table pages (v7 30/31)",
        helps: "fewer processes and threads per second on the housekeeping CPUs (a pool instead of a fork per job); a kernel with a deferral policy; more CPUs raise lazy_max_pages()";
    Vunmap = "vunmap", Vunmap, "immediate vunmap",
        signature: "flush_tlb_kernel_range below vunmap_range or vm_area_unmap_pages",
        meaning: "a kernel mapping was removed and flushed at once (BPF arenas, DEBUG_PAGEALLOC)",
        deferral: KernelRange, "on the list of v7 30/31",
        helps: "find the user in the initiator column";
    VmUnmapAliases = "vm_unmap_aliases", Alias, "purge before a rights change",
        signature: "_vm_unmap_aliases, then flush_tlb_kernel_range in the same task",
        meaning: "set_memory_* and freeing of executable memory first flush every lazily freed alias of the pages",
        deferral: KernelRange, "on the list of v7 30/31; its hull may include direct-map rights (SEMANTICS L5)",
        helps: "JIT on (net.core.bpf_jit_enable=1 packs programs), no module loading while the machine is isolated";
    KernelTableFree = "kernel_table_free", TableFree, "kernel page table freed",
        signature: "flush_tlb_kernel_range(addr, addr + 0xfff) below pmd_free_pte_page or pud_free_pmd_page",
        meaning: "a huge vmalloc or ioremap mapping replaced a page table, whose page is freed right after",
        deferral: Never, "a deferred flush would leave paging-structure caches pointing at a freed page",
        helps: "avoid large kvmalloc tables that come and go (fd tables beyond 64k entries); nohugevmalloc on the command line";
    SetMemory = "set_memory", SetMemory, "kernel page rights changed",
        signature: "flush_tlb_all or __cpa_flush_tlb after set_memory_ro, rw, x, nx, rox",
        meaning: "cpa_flush() tells every CPU that rights or cache attributes in the kernel map changed",
        deferral: Never, "cpa_flush stays immediate in every version of the series",
        helps: "load modules and BPF programs before the isolated work starts; JIT on";
    KernelFlushUnknown = "kernel_flush_unknown", Unknown, "kernel flush, caller unknown",
        signature: "do_flush_tlb_all or do_kernel_range_flush with no probe, range, purge event or stack that tells the caller",
        meaning: "some kernel mapping changed; the trace does not say which",
        deferral: Unknown, "depends on the caller",
        helps: "record vmalloc events and a kprobe on flush_tlb_kernel_range, or stacks on it";
    TextSync = "text_sync", Text, "kernel text patched",
        signature: "do_sync_core queued, mostly three rounds in a row",
        meaning: "static key, static call, kprobe, ftrace or jump label: every CPU must serialise before the new code runs. Switching tracing on does this too",
        deferral: TextSync, "v7 25/31 defers do_sync_core to kernel entry; it is not a TLB policy",
        helps: "no tracing, perf or sysctl changes that flip static keys during isolated work";
    UserShootdown = "user_shootdown", User, "user address space shootdown",
        signature: "flush_tlb_func queued; tlb_flush with reason remote shootdown",
        meaning: "a thread of the same process unmapped or protected memory, or the CPU still lazily held that address space",
        deferral: Never, "the kernel-range policies do not cover user ranges",
        helps: "no other threads of the isolated process that map and unmap; pre-fault and mlock; separate processes";
    TlbRemoveTable = "tlb_remove_table", User, "page-table free synchronisation",
        signature: "tlb_remove_table_smp_sync queued",
        meaning: "user page tables are freed without a batch, so every CPU is asked whether it walks them",
        deferral: Never, "a deferral was proposed and dropped over a race (20230620144618.125703-1-ypodemsk@redhat.com)",
        helps: "kernels since 6.6 restrict it to CPUs of the mm; fewer khugepaged collapses and gup-fast users";
    NohzKick = "nohz_kick", Other, "nohz_full kick",
        signature: "nohz_full_kick_func queued through irq_work_queue_on",
        meaning: "somebody set a tick dependency, so the CPU must re-evaluate whether it needs its tick: posix timers, perf events, the scheduler (a second runnable task), dl_server, dev_watchdog's timer",
        deferral: Never, "the tick decision cannot wait",
        helps: "one runnable task per isolated CPU, no posix CPU timers, nowatchdog; on 6.8 to 6.14 the dl_server timer kicks every second";
    DlServer = "dl_server", Other, "deadline server timer",
        signature: "reschedule sent from dl_task_timer or dl_server_timer",
        meaning: "the fair deadline server (since 6.8) wakes up once a period on CPUs that run fair tasks",
        deferral: Never, "a scheduler decision",
        helps: "echo 0 > /sys/kernel/debug/sched/fair_server/cpuN/runtime; kernels where the server stops when idle";
    SchedTick = "sched_resched", Other, "reschedule asked by the scheduler",
        signature: "reschedule sent from resched_cpu, resched_curr or update_curr",
        meaning: "another CPU asks this one to run the scheduler (RCU stall prevention, remote tick, class change)",
        deferral: Never, "a scheduler decision",
        helps: "rcu_nocbs, no FIFO tasks that starve RCU, one task per CPU";
    Wakeup = "wakeup", Other, "remote wakeup",
        signature: "sched_ttwu_pending queued, or reschedule from wakeup_preempt, ttwu_queue, enqueue_task_fair",
        meaning: "a task was woken on this CPU by another",
        deferral: Never, "the task waits for it",
        helps: "affinity of the woken task (kworker, ksoftirqd, application threads); isolcpus=managed_irq,domain";
    Signal = "signal", Other, "signal to a running task",
        signature: "reschedule sent from __send_signal_locked or signal_wake_up_state",
        meaning: "a signal for the task that runs here",
        deferral: Never, "the signal waits for it",
        helps: "mask or route signals to housekeeping threads";
    RescheduleOther = "reschedule", Other, "reschedule, sender unknown",
        signature: "reschedule vector without a matching ipi_send_cpu",
        meaning: "the vector is known, the sender is not",
        deferral: Unknown, "depends on the sender",
        helps: "record ipi:ipi_send_cpu on all CPUs";
    RcuExpedited = "rcu_expedited", Other, "expedited RCU grace period",
        signature: "rcu_exp_handler or rcu_exp_need_qs queued",
        meaning: "somebody could not wait for a normal grace period; CPUs in user mode are normally spared",
        deferral: Never, "the grace period waits for it",
        helps: "rcupdate.rcu_normal=1 after boot";
    PercpuReclaim = "percpu_reclaim", Other, "per-CPU memory reclaim",
        signature: "lru_add_drain_per_cpu, drain_local_stock, drain_pages or invalidate_bh_lru queued",
        meaning: "memory pressure, migration or cgroup charge draining asks every CPU for its private pages",
        deferral: Never, "the caller waits for the pages",
        helps: "no memory cgroup limits on isolated tasks that are hit; compaction and migration off during the run";
    CacheFlush = "cache_or_msr", Other, "cache, MSR or PMU call",
        signature: "wbinvd, __wrmsr, rdmsr, mce or perf functions queued",
        meaning: "a driver or tool reads or writes a register of this CPU",
        deferral: Never, "the value is wanted now",
        helps: "stop turbostat, msr-tools, perf -a, EDAC polling, resctrl reconfiguration on these CPUs";
    Aperfmperf = "aperfmperf", Other, "frequency snapshot",
        signature: "aperfmperf_snapshot_khz queued",
        meaning: "reading /proc/cpuinfo or cpufreq asks every CPU for its frequency on kernels before 5.18",
        deferral: Never, "the reader waits",
        helps: "do not read /proc/cpuinfo; a newer kernel";
    LoadBalance = "load_balance", Other, "load balancer kick",
        signature: "nohz_csd_func queued",
        meaning: "an idle CPU is asked to balance on behalf of others",
        deferral: Never, "a scheduler decision",
        helps: "isolcpus=domain or a cpuset partition of type isolated";
    RtPush = "rt_push", Other, "real-time push",
        signature: "rto_push_irq_work_func queued",
        meaning: "the real-time balancer asks an overloaded CPU to push a task",
        deferral: Never, "a scheduler decision",
        helps: "one real-time task per CPU; RT_PUSH_IPI off (NO_RT_PUSH_IPI in sched/features)";
    StopMachine = "stop_machine", Other, "stop machine or migration",
        signature: "multi_cpu_stop, cpu_stop or migration calls",
        meaning: "every CPU stops while something global changes",
        deferral: Never, "all CPUs take part",
        helps: "no CPU hotplug, module unload or clocksource watchdog during isolated work";
    Kfence = "kfence", Text, "KFENCE toggles its static key",
        signature: "do_sync_core from toggle_allocation_gate, every sample interval",
        meaning: "KFENCE opens and closes its allocation gate",
        deferral: TextSync, "as text patching",
        helps: "kfence.sample_interval=0, or CONFIG_KFENCE_STATIC_KEYS off";
    Tick = "tick", Other, "timer interrupt",
        signature: "local_timer vector; tick_stop names the dependency",
        meaning: "the tick runs because of a dependency (scheduler, RCU, posix timer, perf), or a timer of this CPU expired; one residual tick a second exists on older kernels",
        deferral: Never, "a clock, not a remote call",
        helps: "the tick_stop dependency tells: one task per CPU, rcu_nocbs, no posix timers, skew_tick has no effect here";
    IrqWork = "irq_work", Other, "interrupt work",
        signature: "irq_work vector",
        meaning: "work queued from NMI or atomic context: perf, printk, RCU, scheduler",
        deferral: Never, "raised on this CPU itself",
        helps: "no perf events, no printk storms";
    Device = "device", Other, "device interrupt",
        signature: "irq_handler_entry with a name",
        meaning: "a device is routed to this CPU",
        deferral: Never, "the device waits",
        helps: "irqaffinity=, /proc/irq/N/smp_affinity, isolcpus=managed_irq";
    OtherVector = "other_vector", Other, "thermal, error or spurious vector",
        signature: "another irq_vectors event",
        meaning: "hardware reports something",
        deferral: Never, "hardware",
        helps: "look at dmesg and the machine-check log";
    Vmstat = "vmstat", Other, "vmstat worker",
        signature: "vmstat_update work, or vmstat_shepherd queueing it, on this CPU",
        meaning: "per-CPU memory counters are folded",
        deferral: Never, "a worker, not a remote call",
        helps: "vm.stat_interval raised; nohz_full CPUs are spared since 6.5";
    Recording = "recording", Text, "the recording itself",
        signature: "do_sync_core or calls queued by trace-cmd, perf, bpftrace or a writer of tracefs",
        meaning: "enabling probes and events patches text on every CPU: the observer effect",
        deferral: TextSync, "as text patching",
        helps: "ignore the first and last moments of a recording";
    CallOther = "call_other", Other, "remote call, function known",
        signature: "csd_function_entry with a function not in this catalogue",
        meaning: "see the function's name in calls_by_function",
        deferral: Never, "no policy here defers it",
        helps: "look up the function";
    CallEmpty = "call_empty", Other, "call interrupt with nothing left to do",
        signature: "call_function vector without a call",
        meaning: "an earlier interrupt already ran the calls this one was sent for",
        deferral: Unknown, "goes when the calls go",
        helps: "nothing; it goes with its cause";
    CallUnknown = "call_unknown", Unknown, "remote call: vector known, sender unknown",
        signature: "call_function vector, and the trace has neither csd events nor probes",
        meaning: "some CPU asked this one to run a function",
        deferral: Unknown, "depends on the function",
        helps: "record csd:* and ipi:* on all CPUs (kernel 6.5 or newer), or kprobes on the handlers";
}

/// Functions a CPU is asked to run, and why.
const FUNCTIONS: &[(&str, Cause)] = &[
    ("do_flush_tlb_all", Cause::KernelFlushUnknown),
    ("do_kernel_range_flush", Cause::KernelFlushUnknown),
    ("kernel_tlb_flush_all", Cause::KernelFlushUnknown),
    ("kernel_tlb_flush_range", Cause::KernelFlushUnknown),
    ("__cpa_flush_tlb", Cause::SetMemory),
    ("__cpa_flush_all", Cause::SetMemory),
    ("flush_tlb_func", Cause::UserShootdown),
    ("flush_ldt", Cause::UserShootdown),
    ("tlb_remove_table_smp_sync", Cause::TlbRemoveTable),
    ("do_sync_core", Cause::TextSync),
    ("nohz_full_kick_func", Cause::NohzKick),
    ("sched_ttwu_pending", Cause::Wakeup),
    ("nohz_csd_func", Cause::LoadBalance),
    ("rto_push_irq_work_func", Cause::RtPush),
    ("rcu_exp_handler", Cause::RcuExpedited),
    ("rcu_exp_need_qs", Cause::RcuExpedited),
    ("drain_local_stock", Cause::PercpuReclaim),
    ("lru_add_drain_per_cpu", Cause::PercpuReclaim),
    ("drain_local_pages", Cause::PercpuReclaim),
    ("drain_local_pages_wq", Cause::PercpuReclaim),
    ("invalidate_bh_lru", Cause::PercpuReclaim),
    ("__invalidate_bh_lrus", Cause::PercpuReclaim),
    ("aperfmperf_snapshot_khz", Cause::Aperfmperf),
    ("__wbinvd", Cause::CacheFlush),
    ("__rdmsr_on_cpu", Cause::CacheFlush),
    ("__wrmsr_on_cpu", Cause::CacheFlush),
    ("__rdmsr_safe_on_cpu", Cause::CacheFlush),
    ("__perf_event_read", Cause::CacheFlush),
    ("remote_function", Cause::CacheFlush),
    ("multi_cpu_stop", Cause::StopMachine),
];

/// Where a reschedule was sent from, and why.
const RESCHEDULES: &[(&str, Cause)] = &[
    ("dl_task_timer", Cause::DlServer),
    ("dl_server_timer", Cause::DlServer),
    ("resched_cpu", Cause::SchedTick),
    ("resched_curr", Cause::SchedTick),
    ("update_curr", Cause::SchedTick),
    ("sched_tick_remote", Cause::SchedTick),
    ("wakeup_preempt", Cause::Wakeup),
    ("ttwu_queue", Cause::Wakeup),
    ("try_to_wake_up", Cause::Wakeup),
    ("enqueue_task_fair", Cause::Wakeup),
    ("check_preempt_curr", Cause::Wakeup),
    ("__send_signal_locked", Cause::Signal),
    ("signal_wake_up_state", Cause::Signal),
];

/// What a remote call of this function means; kernel flushes need their sender's context to be told apart.
pub fn of_function(name: &[u8]) -> Cause {
    FUNCTIONS.iter().find(|(f, _)| f.as_bytes() == name).map_or(Cause::CallOther, |(_, cause)| *cause)
}

/// Is this one of the functions a CPU is asked to run? A kprobe on it counts as a call.
pub fn is_handler(name: &[u8]) -> bool {
    FUNCTIONS.iter().any(|(f, _)| f.as_bytes() == name)
}

/// What a reschedule from this place means.
pub fn of_reschedule(callsite: &[u8]) -> Cause {
    RESCHEDULES
        .iter()
        .find(|(f, _)| f.as_bytes() == callsite)
        .map_or(Cause::RescheduleOther, |(_, cause)| *cause)
}

/// What the call chain of a kernel flush says; the most specific frame wins.
pub fn of_stack(frames: &[u8]) -> Option<Cause> {
    const FRAMES: &[(&str, Cause)] = &[
        ("pmd_free_pte_page", Cause::KernelTableFree),
        ("pud_free_pmd_page", Cause::KernelTableFree),
        ("toggle_allocation_gate", Cause::Kfence),
        ("_vm_unmap_aliases", Cause::VmUnmapAliases),
        ("vm_reset_perms", Cause::VmUnmapAliases),
        ("drain_vmap_area_work", Cause::VmallocPurge),
        ("reclaim_and_purge_vmap_areas", Cause::VmallocPurge),
        ("__purge_vmap_area_lazy", Cause::VmallocPurge),
        ("vm_area_unmap_pages", Cause::Vunmap),
        ("vunmap_range", Cause::Vunmap),
        ("cpa_flush", Cause::SetMemory),
        ("change_page_attr_set_clr", Cause::SetMemory),
        ("text_poke_sync", Cause::TextSync),
        ("smp_text_poke_sync_each_cpu", Cause::TextSync),
    ];
    FRAMES
        .iter()
        .find(|(f, _)| frames.split(|&b| b == b'\n').any(|frame| frame == f.as_bytes()))
        .map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_complete_and_no_id_occurs_twice() {
        let mut ids: Vec<_> = CATALOGUE.iter().map(|e| e.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Cause::ALL.len());
        for e in CATALOGUE {
            assert!(
                [e.title, e.signature, e.meaning, e.because, e.helps].iter().all(|t| !t.is_empty()),
                "{}",
                e.id
            );
        }
    }

    #[test]
    fn the_most_specific_frame_names_the_cause() {
        let chain =
            b"flush_tlb_kernel_range\n__purge_vmap_area_lazy\n_vm_unmap_aliases\nchange_page_attr_set_clr\n";
        assert_eq!(of_stack(chain), Some(Cause::VmUnmapAliases));
        assert_eq!(of_stack(b"flush_tlb_kernel_range\npmd_free_pte_page\n"), Some(Cause::KernelTableFree));
        assert_eq!(of_stack(b"kthread\n"), None);
    }

    #[test]
    fn only_leaf_unmaps_are_deferrable() {
        let deferrable: Vec<_> = CATALOGUE
            .iter()
            .filter(|e| e.deferral == Deferral::KernelRange)
            .map(|e| e.class.name())
            .collect();
        assert_eq!(deferrable, ["purge", "vunmap", "alias"]);
    }
}
