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
    /// Kernel functions from who asks to who interrupts, `<-` reads "called by".
    pub chain: &'static str,
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
       signature: $signature:literal, chain: $chain:literal, meaning: $meaning:literal, deferral: $deferral:ident, $because:literal, helps: $helps:literal;)*) => {
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
            id: $id, class: Class::$class, title: $title, signature: $signature, chain: $chain, meaning: $meaning,
            deferral: Deferral::$deferral, because: $because, helps: $helps,
        },)*];
    };
}

catalogue! {
    VmallocPurge = "vmalloc_purge", Purge, "lazy vmalloc purge",
        signature: "do_flush_tlb_all or do_kernel_range_flush queued between drain_vmap_area_work and purge_vmap_area_lazy",
        chain: "do_flush_tlb_all <- flush_tlb_kernel_range <- __purge_vmap_area_lazy <- drain_vmap_area_work (a kworker); queued by free_vmap_area_noflush <- remove_vm_area <- vfree <- thread_stack_free_rcu, free_fdtable and others",
        meaning: "freed vmalloc areas (mostly kernel stacks of ended tasks) reached lazy_max_pages(); one flush of their hull goes to every CPU before the addresses are used again",
        deferral: KernelRange, "vmap leaves are cleared without freeing page-table pages (v7 30/31)",
        helps: "fewer processes and threads per second on the housekeeping CPUs (a pool instead of a fork per job); a kernel with a deferral policy; more CPUs raise lazy_max_pages()";
    Vunmap = "vunmap", Vunmap, "immediate vunmap",
        signature: "flush_tlb_kernel_range below vunmap_range or vm_area_unmap_pages",
        chain: "flush_tlb_kernel_range <- vunmap_range <- vm_area_unmap_pages <- arena_free_pages; with DEBUG_PAGEALLOC <- free_vmap_area_noflush",
        meaning: "a kernel mapping was removed and flushed at once (BPF arenas, DEBUG_PAGEALLOC)",
        deferral: KernelRange, "on the list of v7 30/31",
        helps: "find the user in the initiator column";
    VmUnmapAliases = "vm_unmap_aliases", Alias, "purge before a rights change",
        signature: "_vm_unmap_aliases, then flush_tlb_kernel_range in the same task",
        chain: "flush_tlb_kernel_range <- __purge_vmap_area_lazy <- _vm_unmap_aliases <- vm_unmap_aliases <- change_page_attr_set_clr <- set_memory_*",
        meaning: "set_memory_* and freeing of executable memory first flush every lazily freed alias of the pages",
        deferral: KernelRange, "on the list of v7 30/31; its hull may include direct-map rights (SEMANTICS L5)",
        helps: "JIT on (net.core.bpf_jit_enable=1 packs programs), no module loading while the machine is isolated";
    ExecFree = "exec_memory_free", Alias, "module or BPF code freed",
        signature: "_vm_unmap_aliases with flush=1 (before 6.2 __purge_vmap_area_lazy with a range), then flush_tlb_kernel_range",
        chain: "flush_tlb_kernel_range <- __purge_vmap_area_lazy <- _vm_unmap_aliases <- vm_reset_perms <- vfree <- free_module, bpf_prog_free, bpf_jit_free",
        meaning: "executable memory goes back to the page allocator: its aliases and its direct-map rights are flushed in one hull, which is always a full flush",
        deferral: KernelRange, "on the list of v7 30/31 as _vm_unmap_aliases; its hull includes direct-map rights (SEMANTICS L5)",
        helps: "net.core.bpf_jit_enable=1 (programs then share packs and freeing one flushes nothing); no module loading, socket filter or seccomp churn while the machine is isolated";
    KernelTableFree = "kernel_table_free", TableFree, "kernel page table freed",
        signature: "flush_tlb_kernel_range(addr, addr + 0xfff) below pmd_free_pte_page or pud_free_pmd_page",
        chain: "flush_tlb_kernel_range <- pmd_free_pte_page <- vmap_try_huge_pmd <- vmap_range_noflush <- __vmalloc_node_range, ioremap",
        meaning: "a huge vmalloc or ioremap mapping replaced a page table, whose page is freed right after",
        deferral: Never, "a deferred flush would leave paging-structure caches pointing at a freed page",
        helps: "avoid large kvmalloc tables that come and go (fd tables beyond 64k entries); nohugevmalloc on the command line";
    SetMemory = "set_memory", SetMemory, "kernel page rights changed",
        signature: "flush_tlb_all or __cpa_flush_tlb after set_memory_ro, rw, x, nx, rox",
        chain: "flush_tlb_all or __cpa_flush_tlb <- cpa_flush <- change_page_attr_set_clr <- set_memory_*; also flush_tlb_all <- __split_large_page",
        meaning: "cpa_flush() tells every CPU that rights or cache attributes in the kernel map changed",
        deferral: Never, "cpa_flush stays immediate in every version of the series",
        helps: "load modules and BPF programs before the isolated work starts; JIT on";
    ExecProtect = "exec_memory_protect", SetMemory, "module or BPF code made executable",
        signature: "as set_memory, with load_module, bpf_prog_select_runtime or a JIT in the call chain",
        chain: "flush_tlb_all <- cpa_flush <- change_page_attr_set_clr <- set_memory_rox <- module_enable_text_rox <- load_module, or <- bpf_prog_lock_ro <- bpf_prog_select_runtime",
        meaning: "new code becomes read-only and executable, which changes rights in the direct map of every CPU",
        deferral: Never, "cpa_flush stays immediate in every version of the series",
        helps: "load modules and BPF programs before the isolated work starts; net.core.bpf_jit_enable=1 packs programs";
    PercpuReclaim = "percpu_reclaim", Vunmap, "percpu chunk given back",
        signature: "flush_tlb_kernel_range below pcpu_reclaim_populated or pcpu_depopulate_chunk, from a kworker",
        chain: "flush_tlb_kernel_range <- pcpu_post_unmap_tlb_flush <- pcpu_reclaim_populated <- pcpu_balance_workfn",
        meaning: "pages of the percpu allocator that nobody uses any more (cgroups, BPF maps, network namespaces that went) are unmapped",
        deferral: Never, "not on the list of v7 30/31: the address is handed out again at once",
        helps: "create and remove cgroups, namespaces and percpu BPF maps before or after the isolated work";
    KernelFlushUnknown = "kernel_flush_unknown", Unknown, "kernel flush, caller unknown",
        signature: "do_flush_tlb_all or do_kernel_range_flush with no probe, range, purge event or stack that tells the caller",
        chain: "do_flush_tlb_all or do_kernel_range_flush <- flush_tlb_kernel_range or flush_tlb_all <- not recorded",
        meaning: "some kernel mapping changed; the trace does not say which",
        deferral: Unknown, "depends on the caller",
        helps: "record vmalloc events and a kprobe on flush_tlb_kernel_range, or stacks on it";
    TextSync = "text_sync", Text, "kernel text patched",
        signature: "do_sync_core queued, mostly three rounds in a row",
        chain: "do_sync_core <- text_poke_bp_batch (smp_text_poke_batch_finish since 6.16) <- arch_jump_label_transform_apply, ftrace_replace_code, arch_arm_kprobe, static_call_update",
        meaning: "static key, static call, kprobe, ftrace or jump label: every CPU must serialise before the new code runs. Switching tracing on does this too",
        deferral: TextSync, "v7 25/31 defers do_sync_core to kernel entry (text-defer-v7, text-sync-*); it is not a TLB policy",
        helps: "no tracing, perf or sysctl changes that flip static keys during isolated work";
    UserShootdown = "user_shootdown", User, "user address space shootdown",
        signature: "flush_tlb_func queued; tlb_flush with reason remote shootdown",
        chain: "flush_tlb_func <- native_flush_tlb_multi <- flush_tlb_mm_range <- tlb_finish_mmu, change_protection, ptep_clear_flush, try_to_unmap",
        meaning: "a thread of the same process unmapped or protected memory, or the CPU still lazily held that address space",
        deferral: Never, "the kernel-range policies do not cover user ranges",
        helps: "no other threads of the isolated process that map and unmap; pre-fault and mlock; separate processes";
    TlbRemoveTable = "tlb_remove_table", User, "page-table free synchronisation",
        signature: "tlb_remove_table_smp_sync queued",
        chain: "tlb_remove_table_smp_sync <- tlb_remove_table_sync_one <- tlb_remove_table (no memory for a batch), collapse_huge_page",
        meaning: "user page tables are freed without a batch, so every CPU is asked whether it walks them",
        deferral: Never, "a deferral was proposed and dropped over a race (20230620144618.125703-1-ypodemsk@redhat.com)",
        helps: "kernels since 6.6 restrict it to CPUs of the mm; fewer khugepaged collapses and gup-fast users";
    Khugepaged = "khugepaged", User, "khugepaged collapses pages",
        signature: "tlb_remove_table_smp_sync or flush_tlb_func queued by khugepaged",
        chain: "tlb_remove_table_smp_sync <- tlb_remove_table_sync_one <- collapse_huge_page <- khugepaged",
        meaning: "small pages of some process are joined into a huge one; every CPU is asked whether it walks the old table",
        deferral: Never, "as page-table free synchronisation",
        helps: "transparent_hugepage=madvise or never, or khugepaged/defrag=0; huge pages from hugetlbfs for the isolated task";
    NohzKick = "nohz_kick", Other, "nohz_full kick",
        signature: "nohz_full_kick_func queued through irq_work_queue_on",
        chain: "nohz_full_kick_func <- irq_work_queue_on <- tick_nohz_full_kick_cpu <- tick_nohz_dep_set_cpu (scheduler, perf), tick_nohz_dep_set_signal (posix CPU timer), wake_up_full_nohz_cpu <- add_timer_on (dev_watchdog and other timers)",
        meaning: "somebody set a tick dependency, so the CPU must re-evaluate whether it needs its tick: posix timers, perf events, the scheduler (a second runnable task), dl_server, dev_watchdog's timer",
        deferral: Never, "the tick decision cannot wait",
        helps: "one runnable task per isolated CPU, no posix CPU timers, no perf events there, nowatchdog; kernels from 6.8 whose fair deadline server restarts every second: echo 0 > /sys/kernel/debug/sched/fair_server/cpuN/runtime";
    DlServer = "dl_server", Other, "deadline server timer",
        signature: "reschedule sent from dl_task_timer or dl_server_timer",
        chain: "reschedule <- resched_curr <- dl_task_timer, dl_server_timer (an hrtimer on any CPU)",
        meaning: "the fair deadline server (since 6.8) wakes up once a period on CPUs that run fair tasks; a nohz_full kick and one kept scheduler tick mostly follow, so one remedy may remove all three",
        deferral: Never, "a scheduler decision",
        helps: "echo 0 > /sys/kernel/debug/sched/fair_server/cpuN/runtime; kernels where the server stops when idle";
    SchedTick = "sched_resched", Other, "reschedule asked by the scheduler",
        signature: "reschedule sent from resched_cpu, resched_curr or update_curr",
        chain: "reschedule <- resched_cpu <- rcu_implicit_dynticks_qs (rcu_preempt), sched_tick_remote, set_user_nice and others",
        meaning: "another CPU asks this one to run the scheduler (RCU stall prevention, remote tick, class change)",
        deferral: Never, "a scheduler decision",
        helps: "rcu_nocbs, no FIFO tasks that starve RCU, one task per CPU";
    Wakeup = "wakeup", Other, "remote wakeup",
        signature: "sched_ttwu_pending queued, or reschedule from wakeup_preempt, ttwu_queue, enqueue_task_fair",
        chain: "sched_ttwu_pending <- __smp_call_single_queue <- ttwu_queue_wakelist <- try_to_wake_up; or reschedule <- wakeup_preempt <- ttwu_do_activate",
        meaning: "a task was woken on this CPU by another",
        deferral: Never, "the task waits for it",
        helps: "affinity of the woken task (kworker, ksoftirqd, application threads); isolcpus=managed_irq,domain";
    Signal = "signal", Other, "signal to a running task",
        signature: "reschedule sent from __send_signal_locked or signal_wake_up_state",
        chain: "reschedule <- kick_process <- signal_wake_up_state <- __send_signal_locked",
        meaning: "a signal for the task that runs here",
        deferral: Never, "the signal waits for it",
        helps: "mask or route signals to housekeeping threads";
    RescheduleOther = "reschedule", Other, "reschedule, sender unknown",
        signature: "reschedule vector without a matching ipi_send_cpu",
        chain: "reschedule <- not recorded",
        meaning: "the vector is known, the sender is not",
        deferral: Unknown, "depends on the sender",
        helps: "record ipi:ipi_send_cpu on all CPUs";
    RcuExpedited = "rcu_expedited", Other, "expedited RCU grace period",
        signature: "rcu_exp_handler or rcu_exp_need_qs queued",
        chain: "rcu_exp_handler <- sync_rcu_exp_select_node_cpus <- synchronize_rcu_expedited",
        meaning: "somebody could not wait for a normal grace period; CPUs in user mode are normally spared",
        deferral: Never, "the grace period waits for it",
        helps: "rcupdate.rcu_normal=1 after boot";
    PercpuDrain = "percpu_drain", Other, "per-CPU page lists drained",
        signature: "lru_add_drain_per_cpu, drain_local_stock, drain_pages or invalidate_bh_lru queued",
        chain: "lru_add_drain_per_cpu <- __lru_add_drain_all; drain_local_stock <- drain_all_stock; drain_local_pages <- drain_all_pages; invalidate_bh_lru <- invalidate_bh_lrus",
        meaning: "memory pressure, migration or cgroup charge draining asks every CPU for its private pages",
        deferral: Never, "the caller waits for the pages",
        helps: "no memory cgroup limits on isolated tasks that are hit; compaction and migration off during the run";
    CacheFlush = "cache_or_msr", Other, "cache, MSR or PMU call",
        signature: "wbinvd, __wrmsr, rdmsr, mce or perf functions queued",
        chain: "__rdmsr_on_cpu <- rdmsr_on_cpu; __wbinvd <- wbinvd_on_all_cpus; remote_function <- perf_event_read, event_function_call",
        meaning: "a driver or tool reads or writes a register of this CPU",
        deferral: Never, "the value is wanted now",
        helps: "stop turbostat, msr-tools, perf -a, EDAC polling, resctrl reconfiguration on these CPUs";
    Aperfmperf = "aperfmperf", Other, "frequency snapshot",
        signature: "aperfmperf_snapshot_khz queued",
        chain: "aperfmperf_snapshot_khz <- arch_freq_prepare_all <- cpuinfo_open",
        meaning: "reading /proc/cpuinfo or cpufreq asks every CPU for its frequency on kernels before 5.18",
        deferral: Never, "the reader waits",
        helps: "do not read /proc/cpuinfo; a newer kernel";
    LoadBalance = "load_balance", Other, "load balancer kick",
        signature: "nohz_csd_func queued",
        chain: "nohz_csd_func <- kick_ilb <- nohz_balancer_kick <- sched_tick",
        meaning: "an idle CPU is asked to balance on behalf of others",
        deferral: Never, "a scheduler decision",
        helps: "isolcpus=domain or a cpuset partition of type isolated";
    RtPush = "rt_push", Other, "real-time push",
        signature: "rto_push_irq_work_func queued",
        chain: "rto_push_irq_work_func <- irq_work_queue_on <- tell_cpu_to_push <- pull_rt_task",
        meaning: "the real-time balancer asks an overloaded CPU to push a task",
        deferral: Never, "a scheduler decision",
        helps: "one real-time task per CPU; RT_PUSH_IPI off (NO_RT_PUSH_IPI in sched/features)";
    StopMachine = "stop_machine", Other, "stop machine or migration",
        signature: "multi_cpu_stop, cpu_stop or migration calls",
        chain: "multi_cpu_stop <- cpu_stopper_thread <- stop_machine, stop_one_cpu",
        meaning: "every CPU stops while something global changes",
        deferral: Never, "all CPUs take part",
        helps: "no CPU hotplug, module unload or clocksource watchdog during isolated work";
    Kfence = "kfence", Text, "KFENCE toggles its static key",
        signature: "do_sync_core from toggle_allocation_gate, every sample interval",
        chain: "do_sync_core <- text_poke_bp_batch <- static_key_enable <- toggle_allocation_gate (a kworker)",
        meaning: "KFENCE opens and closes its allocation gate",
        deferral: TextSync, "as text patching",
        helps: "kfence.sample_interval=0, or CONFIG_KFENCE_STATIC_KEYS off";
    Tick = "tick", Other, "timer interrupt",
        signature: "local_timer vector; tick_stop names the dependency",
        chain: "sysvec_apic_timer_interrupt <- the local APIC; hrtimer_interrupt runs tick_nohz_handler or a timer of this CPU",
        meaning: "the tick was stopped and still the timer fired: a timer of this CPU, or the residual tick of about one a second that older kernels kept; without tick_stop events every timer interrupt counts here",
        deferral: Never, "a clock, not a remote call",
        helps: "record timer:tick_stop and timer:hrtimer_expire_entry to tell them apart; move timers of the application to a housekeeping thread; nohz_full= keeps unpinned kernel timers away";
    TickKept = "tick_kept", Other, "scheduler tick kept",
        signature: "local_timer vector after tick_stop: success=0 on that CPU",
        chain: "sysvec_apic_timer_interrupt <- the local APIC; tick_nohz_handler, kept by check_tick_dependency",
        meaning: "the tick could not be stopped: a second runnable task or a deadline server (SCHED), RCU callbacks or a grace period (RCU), a posix CPU timer, perf, or an unstable clock",
        deferral: Never, "a clock, not a remote call",
        helps: "the dependency tells: SCHED: one runnable task per CPU; RCU: rcu_nocbs and nothing in the kernel for long; POSIX_TIMER, PERF_EVENTS: none on these CPUs; CLOCK_UNSTABLE: tsc=reliable if it is";
    IrqWork = "irq_work", Other, "interrupt work",
        signature: "irq_work vector",
        chain: "sysvec_irq_work <- arch_irq_work_raise <- irq_work_queue",
        meaning: "work queued from NMI or atomic context: perf, printk, RCU, scheduler",
        deferral: Never, "raised on this CPU itself",
        helps: "no perf events, no printk storms";
    Device = "device", Other, "device interrupt",
        signature: "irq_handler_entry with a name",
        chain: "common_interrupt <- the device",
        meaning: "a device is routed to this CPU",
        deferral: Never, "the device waits",
        helps: "irqaffinity=, /proc/irq/N/smp_affinity, isolcpus=managed_irq";
    OtherVector = "other_vector", Other, "thermal, error or spurious vector",
        signature: "another irq_vectors event",
        chain: "sysvec_thermal, sysvec_threshold, sysvec_error_interrupt, sysvec_spurious_apic_interrupt",
        meaning: "hardware reports something",
        deferral: Never, "hardware",
        helps: "look at dmesg and the machine-check log";
    Vmstat = "vmstat", Other, "vmstat worker",
        signature: "workqueue_execute_start: vmstat_update on this CPU; it is a work item, so it shows among work and tasks, not among interrupts",
        chain: "vmstat_update <- process_one_work; queued by vmstat_shepherd",
        meaning: "per-CPU memory counters are folded",
        deferral: Never, "a worker, not a remote call",
        helps: "vm.stat_interval raised; nohz_full CPUs are spared since 6.5";
    Recording = "recording", Text, "the recording itself",
        signature: "do_sync_core or calls queued by trace-cmd, perf, bpftrace or a writer of tracefs",
        chain: "do_sync_core <- text_poke_bp_batch <- tracepoint, kprobe and ftrace registration",
        meaning: "enabling probes and events patches text on every CPU: the observer effect",
        deferral: TextSync, "as text patching",
        helps: "ignore the first and last moments of a recording; keep a flight recorder running instead of starting it often";
    CallOther = "call_other", Other, "remote call, function known",
        signature: "csd_function_entry with a function not in this catalogue",
        chain: "generic_smp_call_function_single_interrupt runs it",
        meaning: "see the function's name in calls_by_function",
        deferral: Never, "no policy here defers it",
        helps: "look up the function";
    CallEmpty = "call_empty", Other, "call interrupt with nothing left to do",
        signature: "call_function vector without a call",
        chain: "generic_smp_call_function_single_interrupt <- an interrupt whose queue was already empty",
        meaning: "an earlier interrupt already ran the calls this one was sent for",
        deferral: Unknown, "goes when the calls go",
        helps: "nothing; it goes with its cause";
    CallUnknown = "call_unknown", Unknown, "remote call: vector known, sender unknown",
        signature: "call_function vector, and the trace has neither csd events nor probes",
        chain: "generic_smp_call_function_single_interrupt <- not recorded",
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
    ("drain_local_stock", Cause::PercpuDrain),
    ("lru_add_drain_per_cpu", Cause::PercpuDrain),
    ("drain_local_pages", Cause::PercpuDrain),
    ("drain_local_pages_wq", Cause::PercpuDrain),
    ("invalidate_bh_lru", Cause::PercpuDrain),
    ("__invalidate_bh_lrus", Cause::PercpuDrain),
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

/// What a call of this function means when this task asks for it.
pub fn of_call(name: &[u8], comm: &[u8]) -> Cause {
    let cause = of_function(name);
    match cause {
        // Who switches probes and events on patches text on every CPU: the observer effect.
        Cause::TextSync if RECORDERS.iter().any(|r| comm.starts_with(r)) => Cause::Recording,
        Cause::TlbRemoveTable | Cause::UserShootdown if comm == b"khugepaged" => Cause::Khugepaged,
        other => other,
    }
}

/// Programs that record, by the beginning of their names.
const RECORDERS: &[&[u8]] =
    &[b"trace-cmd", b"perf", b"bpftrace", b"rtla", b"osnoise", b"timerlat", b"tlbcore", b"cyclictest"];

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
        ("pcpu_post_unmap_tlb_flush", Cause::PercpuReclaim),
        ("pcpu_reclaim_populated", Cause::PercpuReclaim),
        ("pcpu_depopulate_chunk", Cause::PercpuReclaim),
        ("toggle_allocation_gate", Cause::Kfence),
        ("vm_reset_perms", Cause::ExecFree),
        ("_vm_unmap_aliases", Cause::VmUnmapAliases),
        ("drain_vmap_area_work", Cause::VmallocPurge),
        ("reclaim_and_purge_vmap_areas", Cause::VmallocPurge),
        ("__purge_vmap_area_lazy", Cause::VmallocPurge),
        ("vm_area_unmap_pages", Cause::Vunmap),
        ("vunmap_range", Cause::Vunmap),
        ("text_poke_sync", Cause::TextSync),
        ("text_poke_bp_batch", Cause::TextSync),
        ("smp_text_poke_sync_each_cpu", Cause::TextSync),
        ("smp_text_poke_batch_finish", Cause::TextSync),
        ("load_module", Cause::ExecProtect),
        ("bpf_prog_select_runtime", Cause::ExecProtect),
        ("bpf_int_jit_compile", Cause::ExecProtect),
        ("cpa_flush", Cause::SetMemory),
        ("change_page_attr_set_clr", Cause::SetMemory),
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
                [e.title, e.signature, e.chain, e.meaning, e.because, e.helps].iter().all(|t| !t.is_empty()),
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
        let freed = b"flush_tlb_kernel_range\n_vm_unmap_aliases\nvm_reset_perms\nvfree\nfree_module\n";
        assert_eq!(of_stack(freed), Some(Cause::ExecFree));
        let loaded = b"flush_tlb_all\ncpa_flush\nchange_page_attr_set_clr\nset_memory_rox\nload_module\n";
        assert_eq!(of_stack(loaded), Some(Cause::ExecProtect));
        assert_eq!(of_stack(b"kthread\n"), None);
    }

    #[test]
    fn only_leaf_unmaps_are_deferrable() {
        let deferrable: Vec<_> = CATALOGUE
            .iter()
            .filter(|e| e.deferral == Deferral::KernelRange)
            .map(|e| e.class.name())
            .collect();
        assert_eq!(deferrable, ["purge", "vunmap", "alias", "alias"]);
    }
}
