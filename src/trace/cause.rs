//! The catalogue of what interrupts an isolated CPU: one entry per cause, with its signature in a trace, its meaning,
//! whether a policy can defer it and why, and what helps.

pub mod class;
pub mod signature;

pub use class::{Class, Deferral, Kind};
pub use signature::{
    is_handler, is_kernel_thread, of_call, of_callsite, of_function, of_hrtimer, of_reschedule, of_stack,
    of_task, of_work,
};

/// What helps on some kernels only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// `6.8-7.2`, `7.3-`: the first and the last version it is known for, of those looked at.
    pub kernels: &'static str,
    /// What an operator can do there.
    pub helps: &'static str,
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
    /// Kernels that have it, as far as their sources or recordings were looked at. A border that stands on memory alone
    /// carries the mark UNVERIFIED in the text beside it.
    pub kernels: &'static str,
    /// What else helps, or does not, on some of them.
    pub remedies: &'static [Remedy],
}

macro_rules! or_any {
    ($kernels:literal) => {
        $kernels
    };
    () => {
        "any"
    };
}

macro_rules! catalogue {
    ($($name:ident = $id:literal, $class:ident, $title:literal, $(kernels: $kernels:literal,)?
       signature: $signature:literal, chain: $chain:literal, meaning: $meaning:literal, deferral: $deferral:ident, $because:literal,
       helps: $helps:literal $(, on $range:literal: $remedy:literal)*;)*) => {
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
            deferral: Deferral::$deferral, because: $because, helps: $helps, kernels: or_any!($($kernels)?),
            remedies: &[$(Remedy { kernels: $range, helps: $remedy },)*],
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
        helps: "no module loading while the machine is isolated; net.core.bpf_jit_enable=1 packs programs";
    ExecFree = "exec_memory_free", Alias, "module or BPF code freed",
        signature: "_vm_unmap_aliases with flush=1 (before 6.2, UNVERIFIED, __purge_vmap_area_lazy with a range), then flush_tlb_kernel_range; vm_reset_perms may be inlined into vfree",
        chain: "flush_tlb_kernel_range <- __purge_vmap_area_lazy <- _vm_unmap_aliases <- vm_reset_perms <- vfree <- free_module, bpf_prog_free, bpf_jit_free",
        meaning: "executable memory goes back to the page allocator: its aliases and its direct-map rights are flushed in one hull, which is always a full flush",
        deferral: KernelRange, "on the list of v7 30/31 as _vm_unmap_aliases; its hull includes direct-map rights (SEMANTICS L5)",
        helps: "no module loading, socket filter or seccomp churn while the machine is isolated",
        on "5.18-": "(from 5.18 on: UNVERIFIED) net.core.bpf_jit_enable=1: programs share packs, and freeing one flushes no TLB; where IBPB is used for BPF (eIBRS and AutoIBRS servers) reusing a pack interrupts every CPU all the same (bpf_ibpb)";
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
        helps: "load modules and BPF programs before the isolated work starts; net.core.bpf_jit_enable=1 packs programs";
    ExecProtect = "exec_memory_protect", SetMemory, "rights of module or BPF code changed",
        signature: "as set_memory, with load_module, bpf_prog_select_runtime, execmem_alloc_rw, execmem_free or a JIT in the call chain",
        chain: "flush_tlb_all <- cpa_flush <- change_page_attr_set_clr <- set_memory_rox <- module_enable_text_rox <- load_module, or <- bpf_prog_lock_ro <- bpf_prog_select_runtime",
        meaning: "new code becomes read-only and executable, or freed code writable again, which changes rights in the direct map of every CPU",
        deferral: Never, "cpa_flush stays immediate in every version of the series",
        helps: "load modules and BPF programs before the isolated work starts",
        on "5.18-": "(from 5.18 on: UNVERIFIED) net.core.bpf_jit_enable=1 packs programs: loading one then changes no rights, but see bpf_ibpb",
        on "7.3-": "each module load and unload flushes about 19 times (execmem's cache of executable memory), not 3 as on 6.12";
    PercpuReclaim = "percpu_reclaim", Vunmap, "percpu chunk given back",
        signature: "flush_tlb_kernel_range below pcpu_reclaim_populated or pcpu_depopulate_chunk, from a kworker",
        chain: "flush_tlb_kernel_range <- pcpu_post_unmap_tlb_flush <- pcpu_reclaim_populated <- pcpu_balance_workfn",
        meaning: "pages of the percpu allocator that nobody uses any more (cgroups, BPF maps, network namespaces that went) are unmapped",
        deferral: Never, "not on the list of v7 30/31: the address is handed out again at once",
        helps: "create and remove cgroups, namespaces and percpu BPF maps before or after the isolated work";
    KernelFlushUnknown = "kernel_flush_unknown", Unknown, "kernel flush, caller unknown",
        signature: "do_flush_tlb_all or do_kernel_range_flush with no probe, range, purge event, call site or stack that tells the caller",
        chain: "do_flush_tlb_all or do_kernel_range_flush <- flush_tlb_kernel_range or flush_tlb_all <- not recorded",
        meaning: "some kernel mapping changed; the trace does not say which",
        deferral: Unknown, "depends on the caller",
        helps: "record vmalloc events and a kprobe on flush_tlb_kernel_range, or stacks on it";
    TextSync = "text_sync", Text, "kernel text patched",
        signature: "do_sync_core queued, mostly three rounds in a row; before 6.5 a call interrupt behind text_poke_bp in a call chain",
        chain: "do_sync_core <- text_poke_bp (text_poke_bp_batch since 5.4, smp_text_poke_batch_finish since 6.16; both versions UNVERIFIED) <- arch_jump_label_transform_apply, ftrace_replace_code, arch_arm_kprobe, static_call_update",
        meaning: "static key, static call, kprobe, ftrace or jump label: every CPU must serialise before the new code runs. Switching tracing on does this too",
        deferral: TextSync, "v7 25/31 defers do_sync_core to kernel entry (text-defer-v7, text-sync-*); it is not a TLB policy",
        helps: "no tracing, perf or sysctl changes that flip static keys during isolated work; start programs that switch on packet time stamps (chrony, ptp4l: net_enable_timestamp) before it";
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
        helps: "fewer khugepaged collapses and hugetlb unshares; enough free memory that a batch can be allocated",
        on "7.3-": "a missing batch waits for RCU instead; collapse and hugetlb unshare still interrupt every CPU";
    Khugepaged = "khugepaged", User, "khugepaged collapses pages",
        signature: "tlb_remove_table_smp_sync or flush_tlb_func queued by khugepaged",
        chain: "tlb_remove_table_smp_sync <- tlb_remove_table_sync_one <- collapse_huge_page <- khugepaged",
        meaning: "small pages of some process are joined into a huge one; every CPU is asked whether it walks the old table",
        deferral: Never, "as page-table free synchronisation",
        helps: "transparent_hugepage=madvise or never, or khugepaged/defrag=0; huge pages from hugetlbfs for the isolated task";
    NohzKick = "nohz_kick", Other, "nohz_full kick",
        signature: "nohz_full_kick_func queued through irq_work_queue_on; or a call interrupt right behind timer_start with cpu= of this CPU, from another",
        chain: "nohz_full_kick_func <- irq_work_queue_on <- tick_nohz_full_kick_cpu <- tick_nohz_dep_set_cpu (scheduler, perf), tick_nohz_dep_set_signal (posix CPU timer), wake_up_full_nohz_cpu <- add_timer_on (dev_watchdog and other timers)",
        meaning: "somebody set a tick dependency, so the CPU must re-evaluate whether it needs its tick: posix timers, perf events, the scheduler (a second runnable task), dl_server, a timer put on this CPU",
        deferral: Never, "the tick decision cannot wait",
        helps: "one runnable task per isolated CPU, no posix CPU timers, no perf events there, nowatchdog",
        on "6.8-7.2": "(from 6.8 on: UNVERIFIED) if a kept tick for SCHED follows each: the fair deadline server, see dl_server";
    DlServer = "dl_server", Other, "deadline server timer", kernels: "6.8-",
        signature: "reschedule or nohz_full kick sent from dl_task_timer or dl_server_timer, also inside function_graph",
        chain: "reschedule <- resched_curr <- dl_task_timer, dl_server_timer (an hrtimer on any CPU); nohz_full_kick_func <- tick_nohz_dep_set_cpu <- sched_can_stop_tick <- enqueue_dl_entity",
        meaning: "the fair deadline server wakes up once a period on CPUs that run fair tasks; a nohz_full kick and one kept scheduler tick mostly follow, so one remedy may remove all three (since 6.8: UNVERIFIED; seen on 6.12 and 6.14)",
        deferral: Never, "a scheduler decision",
        helps: "which kernel has it varies with backports: ls /sys/kernel/debug/sched/fair_server tells",
        on "6.12-7.2": "echo 0 > /sys/kernel/debug/sched/fair_server/cpuN/runtime (55 interrupts in 20 s and CPU on 6.12 with one spinner)",
        on "7.3-": "the server stops when idle and does not fire for one fair task: look for a second runnable task on that CPU";
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
        signature: "reschedule sent from __send_signal_locked, signal_wake_up_state or zap_other_threads",
        chain: "reschedule <- kick_process <- signal_wake_up_state <- __send_signal_locked, zap_other_threads (exit_group or execve of another thread)",
        meaning: "a signal for the task that runs here, or the end of its process",
        deferral: Never, "the signal waits for it",
        helps: "mask or route signals to housekeeping threads";
    RescheduleOther = "reschedule", Other, "reschedule, reason not recorded",
        signature: "reschedule vector without a matching ipi_send_cpu",
        chain: "reschedule <- not recorded",
        meaning: "another CPU asks this one to run the scheduler; from which function is not recorded",
        deferral: Unknown, "depends on the sender",
        helps: "record ipi:ipi_send_cpu on all CPUs (kernel 6.4 or newer)";
    RcuExpedited = "rcu_expedited", Other, "expedited RCU grace period",
        signature: "rcu_exp_handler or rcu_exp_need_qs queued",
        chain: "rcu_exp_handler <- sync_rcu_exp_select_node_cpus <- synchronize_rcu_expedited",
        meaning: "somebody could not wait for a normal grace period; CPUs in user mode are normally spared",
        deferral: Never, "the grace period waits for it",
        helps: "rcupdate.rcu_normal=1 after boot";
    RcuBarrier = "rcu_barrier", Other, "RCU barrier",
        signature: "rcu_barrier_handler queued",
        chain: "rcu_barrier_handler <- rcu_barrier <- module unload, unmount, kmem_cache_destroy",
        meaning: "somebody waits until every RCU callback queued so far has run; CPUs with callbacks are asked",
        deferral: Never, "the caller waits",
        helps: "rcu_nocbs= for these CPUs; no module unloads and unmounts while the machine is isolated";
    Membarrier = "membarrier", Other, "membarrier system call",
        signature: "ipi_mb, ipi_sync_core, ipi_rseq or ipi_sync_rq_state queued, mostly by membarrier_private_expedited",
        chain: "ipi_mb <- membarrier_private_expedited <- sys_membarrier (a JIT, a garbage collector, liburcu)",
        meaning: "a thread of the same process asked for a memory barrier, a serialising instruction or a restart of rseq on every CPU that runs one of its threads",
        deferral: Never, "the caller goes on as soon as it has happened",
        helps: "no thread of the isolated process that collects garbage, compiles or unloads code meanwhile; find the caller in the initiator column";
    BpfIbpb = "bpf_ibpb", Other, "branch predictor barrier for BPF", kernels: "6.12.117-",
        signature: "__bpf_arch_ibpb queued from bpf_prog_pack_alloc",
        chain: "__bpf_arch_ibpb <- bpf_prog_pack_alloc <- bpf_jit_binary_pack_alloc",
        meaning: "memory of an unloaded BPF program is reused: every CPU runs an IBPB first, on machines that have IBPB and do not use retpolines (eIBRS, AutoIBRS); it is no TLB flush",
        deferral: Never, "the new program must not run before",
        helps: "no socket filter, seccomp or tracing program churn while the machine is isolated (one interrupt for about two programs)";
    LazyTlb = "lazy_tlb", User, "lazily held address space dropped",
        signature: "do_shoot_lazy_tlb queued",
        chain: "do_shoot_lazy_tlb <- shoot_lazy_tlbs <- mm_put_huge_zero_folio, __mmdrop",
        meaning: "an address space ends that this CPU still holds while it runs a kernel thread or idles",
        deferral: Never, "the page tables are freed right after",
        helps: "processes that end elsewhere should not have run on this CPU";
    Bandwidth = "cfs_bandwidth", Other, "CPU limit of a control group",
        signature: "__cfsb_csd_unthrottle queued",
        chain: "__cfsb_csd_unthrottle <- unthrottle_cfs_rq_async <- distribute_cfs_runtime",
        meaning: "a control group with cpu.max is given its time back",
        deferral: Never, "a scheduler decision",
        helps: "no cpu.max (docker --cpus, systemd CPUQuota=, a Kubernetes limit) on the isolated task; use a cpuset instead";
    ClockSet = "clock_set", Other, "clock was set",
        signature: "retrigger_next_event queued",
        chain: "retrigger_next_event <- clock_was_set <- settimeofday, adjtimex, a leap second",
        meaning: "the wall clock jumped, so every CPU re-evaluates its timers",
        deferral: Never, "timers depend on it",
        helps: "let the clock be slewed, not stepped (chrony makestep only at start)";
    ClocksourceWatchdog = "clocksource_watchdog", Other, "clocksource watchdog",
        signature: "timer_start with function=clocksource_watchdog and cpu= of this CPU; since 7.3 watchdog_check_skew_remote queued; clocksource_verify_one_cpu",
        chain: "a timer that hops from CPU to CPU every half a second: clocksource_watchdog <- call_timer_fn; add_timer_on kicks a nohz_full CPU through wake_up_nohz_cpu",
        meaning: "the TSC is compared with another clock on one CPU after the other, isolated ones too",
        deferral: Never, "a clock, not a TLB flush",
        helps: "tsc=reliable (or tsc=nowatchdog) if the TSC of the machine is good",
        on "7.3-": "the check is a call to every online CPU in turn, with both CPUs spinning with interrupts off: tsc=reliable matters more";
    Hrtick = "hrtick", Other, "scheduler's precise preemption timer", kernels: "7.3-",
        signature: "__hrtick_start queued, or hrtimer_expire_entry with function=hrtick",
        chain: "__hrtick_start <- generic_exec_single <- hrtick_start <- hrtick_update; hrtick <- __hrtimer_run_queues",
        meaning: "HRTICK, on by default since 7.3: another CPU programs the end of a time slice here, and the timer fires when it is over",
        deferral: Never, "a scheduler decision",
        helps: "one runnable task per CPU; echo NO_HRTICK > /sys/kernel/debug/sched/features";
    PercpuDrain = "percpu_drain", Other, "per-CPU page lists drained",
        signature: "drain_local_stock, drain_pages or invalidate_bh_lru queued, or the work item lru_add_drain_per_cpu",
        chain: "drain_local_stock <- drain_all_stock (before 7.3); drain_local_pages <- drain_all_pages; invalidate_bh_lru <- invalidate_bh_lrus; lru_add_drain_per_cpu <- __lru_add_drain_all (a work item)",
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
        meaning: "reading /proc/cpuinfo or cpufreq asks every CPU for its frequency on kernels before 5.18 (UNVERIFIED)",
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
        signature: "multi_cpu_stop queued, or sched_switch to migration/N while the task still wanted to run",
        chain: "multi_cpu_stop <- cpu_stopper_thread <- stop_machine, stop_one_cpu",
        meaning: "every CPU stops while something global changes",
        deferral: Never, "all CPUs take part",
        helps: "no CPU hotplug, module unload or affinity changes of its tasks during isolated work";
    Kfence = "kfence", Text, "KFENCE toggles its static key",
        signature: "do_sync_core from toggle_allocation_gate, every sample interval",
        chain: "do_sync_core <- text_poke_bp_batch <- static_key_enable <- toggle_allocation_gate (a kworker)",
        meaning: "KFENCE opens and closes its allocation gate",
        deferral: TextSync, "as text patching",
        helps: "kfence.sample_interval=0, or CONFIG_KFENCE_STATIC_KEYS off";
    Uprobe = "uprobe", Text, "user-space probe set or removed", kernels: "6.18-",
        signature: "do_sync_core below uprobe_register or uprobe_unregister: three to four rounds",
        chain: "do_sync_core <- smp_text_poke_sync_each_cpu <- int3_update <- set_optimized_insn <- uprobe_register",
        meaning: "a probe on user code is patched into a long NOP, with a sync of every CPU per step (since 6.18: UNVERIFIED; seen on 7.3)",
        deferral: TextSync, "as text patching",
        helps: "set bpftrace, perf and SystemTap probes on user code before the isolated work starts";
    Timer = "timer", Other, "timer interrupt",
        signature: "local_timer or arch_timer, with neither tick_stop nor hrtimer_expire_entry recorded",
        chain: "hrtimer_interrupt <- the CPU's own timer",
        meaning: "the scheduler tick or a timer of this CPU: what for, and why the tick was not stopped, is not recorded",
        deferral: Never, "a clock, not a remote call",
        helps: "record timer:tick_stop and timer:hrtimer_expire_entry to tell a kept tick from a timer; without nohz_full= on the command line it is the tick";
    SchedulerTick = "scheduler_tick", Other, "scheduler tick",
        signature: "hrtimer_expire_entry with tick_sched_timer, tick_nohz_handler or tick_nohz_highres_handler, and no tick_stop recorded",
        chain: "tick_sched_timer (tick_nohz_handler since 6.9, UNVERIFIED) <- __hrtimer_run_queues <- hrtimer_interrupt",
        meaning: "the tick ran; why it was not stopped (its dependency) is not recorded",
        deferral: Never, "a clock, not a remote call",
        helps: "record timer:tick_stop, which names the dependency; without nohz_full= on the command line the tick never stops while a task runs";
    Hrtimer = "hrtimer", Other, "timer of this CPU",
        signature: "hrtimer_expire_entry with another function than the tick's",
        chain: "the function named <- __hrtimer_run_queues <- hrtimer_interrupt",
        meaning: "a high-resolution timer that was armed on this CPU ran out: a sleep of a task, a posix timer, the watchdog, perf, a deadline server",
        deferral: Never, "a clock, not a remote call",
        helps: "the function tells whose it is: hrtimer_wakeup: a sleeping task; watchdog_timer_fn: nowatchdog; perf_mux_hrtimer_handler: no perf there; dl_task_timer, dl_server_timer, inactive_task_timer: see dl_server; arm timers of the application on a housekeeping CPU";
    Tick = "tick", Other, "timer although the tick was stopped",
        signature: "local_timer after tick_stop with success=1 on that CPU, no dependency in the next tick_stop",
        chain: "hrtimer_interrupt <- the CPU's own timer",
        meaning: "the tick was stopped and still the timer fired: a timer of this CPU, or the residual tick of about one a second that older kernels kept",
        deferral: Never, "a clock, not a remote call",
        helps: "record timer:hrtimer_expire_entry, which names the timer; move timers of the application to a housekeeping thread; nohz_full= keeps unpinned kernel timers away";
    TickKept = "tick_kept", Other, "scheduler tick kept",
        signature: "the timer, before or behind tick_stop: success=0 on that CPU",
        chain: "tick_sched_timer (tick_nohz_handler since 6.9, UNVERIFIED) <- hrtimer_interrupt, kept by check_tick_dependency",
        meaning: "the tick could not be stopped: a second runnable task or a deadline server (SCHED), RCU callbacks or a grace period (RCU), a posix CPU timer, perf, or an unstable clock",
        deferral: Never, "a clock, not a remote call",
        helps: "the dependency tells: SCHED: one runnable task per CPU; RCU: rcu_nocbs and nothing in the kernel for long; POSIX_TIMER, PERF_EVENTS: none on these CPUs",
        on "x86": "CLOCK_UNSTABLE: tsc=reliable if the TSC is";
    IrqWork = "irq_work", Other, "interrupt work",
        signature: "the irq_work interrupt",
        chain: "sysvec_irq_work <- arch_irq_work_raise <- irq_work_queue",
        meaning: "work queued from NMI or atomic context: perf, printk, RCU, scheduler",
        deferral: Never, "raised on this CPU itself; since 7.3 also by another one (irq_work_queue_on) for interrupts of devices that share a vector",
        helps: "no perf events, no printk storms";
    Device = "device", Other, "device interrupt",
        signature: "irq_handler_entry with a name",
        chain: "common_interrupt <- the device",
        meaning: "a device is routed to this CPU",
        deferral: Never, "the device waits",
        helps: "irqaffinity=, /proc/irq/N/smp_affinity, isolcpus=managed_irq";
    OtherVector = "other_vector", Other, "thermal, error or spurious vector",
        signature: "thermal_apic, threshold_apic, deferred_error_apic, error_apic or spurious_apic of irq_vectors",
        chain: "sysvec_thermal, sysvec_threshold, sysvec_error_interrupt, sysvec_spurious_apic_interrupt",
        meaning: "hardware reports something",
        deferral: Never, "hardware",
        helps: "look at dmesg and the machine-check log";
    PlatformIpi = "platform_ipi", Other, "platform or hypervisor interrupt",
        signature: "x86_platform_ipi of irq_vectors; sysvec_hyperv_callback, sysvec_xen_hvm_callback",
        chain: "sysvec_x86_platform_ipi <- the platform (SGI UV), a hypervisor's callback",
        meaning: "the platform or the hypervisor has something for the kernel",
        deferral: Never, "the platform waits",
        helps: "in a guest: route the devices of the hypervisor to housekeeping CPUs";
    PostedInterrupt = "posted_interrupt", Other, "posted interrupt",
        signature: "sysvec_kvm_posted_intr_*, sysvec_posted_msi_notification; rows PIN, NPI, PIW, PMN of /proc/interrupts",
        chain: "sysvec_kvm_posted_intr_wakeup_ipi <- the IOMMU or another CPU",
        meaning: "an interrupt for a guest's virtual CPU that does not run now, or a device interrupt posted to this CPU",
        deferral: Never, "the guest waits for it",
        helps: "pin virtual CPUs, and route their devices, apart from isolated CPUs that run no guest";
    TimerBroadcast = "timer_broadcast", Other, "tick broadcast by another CPU",
        signature: "ipi_entry: (Timer broadcast interrupts)",
        chain: "tick_receive_broadcast <- another CPU, in whose stead this one's timer sleeps",
        meaning: "the timer of this CPU stops in deep idle states, so another CPU wakes it",
        deferral: Never, "a clock, not a remote call",
        helps: "no deep idle states on this CPU (PM QoS, cpuidle.off=1)";
    IpiOther = "ipi_other", Other, "inter-processor interrupt",
        signature: "irq_handler_entry with name=IPI and no ipi_entry; CPU stop, backtrace",
        chain: "ipi_handler <- another CPU",
        meaning: "another CPU interrupted this one; what for is not recorded",
        deferral: Unknown, "depends on what for",
        helps: "record ipi:ipi_entry and ipi:ipi_raise on all CPUs";
    Vmstat = "vmstat", Other, "vmstat worker",
        signature: "workqueue_execute_start: vmstat_update on this CPU; a work item, so it is among the tasks, not among the interrupts",
        chain: "vmstat_update <- process_one_work; queued by vmstat_shepherd",
        meaning: "per-CPU memory counters are folded by a worker",
        deferral: Never, "a worker, not a remote call",
        helps: "vm.stat_interval raised",
        on "6.5-6.12": "CPUs of nohz_full= or isolcpus=domain are spared",
        on "7.3-": "only CPUs of isolcpus=domain or of an isolated cpuset partition are spared: nohz_full= alone no longer keeps it, kcompactd and kdamond away";
    Kworker = "kworker", Other, "kernel worker",
        signature: "sched_switch to kworker/N:M while the task still wanted to run (prev_state=R), or thread_noise of osnoise",
        chain: "worker_thread <- kthread; the work item is in workqueue_execute_start",
        meaning: "a work item ran on this CPU in the place of its task: bound work queued here, or unbound work whose mask includes this CPU",
        deferral: Never, "a task, not a remote call",
        helps: "record workqueue:workqueue_execute_start, which names the function; /sys/devices/virtual/workqueue/cpumask without these CPUs; who queues bound work must run elsewhere",
        on "6.5-6.12": "unbound workers avoid nohz_full= and isolcpus=domain CPUs",
        on "7.3-": "unbound workers avoid isolcpus=domain CPUs and isolated cpuset partitions only: nohz_full= alone does not keep them away";
    Ksoftirqd = "ksoftirqd", Other, "soft interrupts in their thread",
        signature: "sched_switch to ksoftirqd/N while the task still wanted to run",
        chain: "run_ksoftirqd <- smpboot_thread_fn; woken by invoke_softirq or raise_softirq",
        meaning: "soft interrupts raised on this CPU (timers, RCU, scheduler, network) were left to their thread",
        deferral: Never, "a task, not a remote call",
        helps: "softirq_raise tells which: TIMER: timers armed or put on this CPU; RCU: rcu_nocbs=; SCHED: the load balancer, isolcpus=domain; NET_RX, NET_TX: interrupts and RPS/XPS of the network card elsewhere";
    IrqThread = "irq_thread", Other, "thread of an interrupt",
        signature: "sched_switch to irq/N-name while the task still wanted to run",
        chain: "irq_thread <- kthread; woken by the interrupt's handler (threadirqs, PREEMPT_RT)",
        meaning: "a device interrupt is handled on this CPU by a thread",
        deferral: Never, "a task, not a remote call",
        helps: "/proc/irq/N/smp_affinity, irqaffinity=, isolcpus=managed_irq; its thread follows the interrupt";
    RcuThread = "rcu_thread", Other, "RCU thread",
        signature: "sched_switch to rcuc/N, rcuop/N, rcuog/N, rcu_preempt or rcu_sched while the task still wanted to run",
        chain: "rcu_cpu_kthread, rcu_nocb_cb_kthread <- kthread",
        meaning: "RCU callbacks or grace periods ran here",
        deferral: Never, "a task, not a remote call",
        helps: "rcu_nocbs= for these CPUs, and the rcuo threads bound to housekeeping CPUs (taskset -p, tuna, tuned)";
    KernelThread = "kernel_thread", Other, "kernel thread",
        signature: "sched_switch to a thread of the kernel (migration, kcompactd, kswapd, watchdog, cpuhp, kdamond, ...) while the task still wanted to run",
        chain: "kthread",
        meaning: "a thread of the kernel ran on this CPU in the place of its task",
        deferral: Never, "a task, not a remote call",
        helps: "kthread_cpus= or isolcpus=domain keeps unbound ones away; per-CPU ones go with what wakes them",
        on "7.3-": "kernel threads follow isolcpus=domain and isolated cpuset partitions, no longer nohz_full= alone";
    OtherTask = "other_task", Other, "another task",
        signature: "sched_switch to another task while the first still wanted to run (prev_state=R)",
        chain: "__schedule",
        meaning: "a second task is runnable on this CPU; both share it, and the scheduler tick runs meanwhile",
        deferral: Never, "a task, not a remote call",
        helps: "pin the other task elsewhere (taskset, cpuset); isolcpus=domain or an isolated cpuset partition keeps the load balancer from bringing tasks here";
    Softirq = "softirq", Other, "soft interrupt",
        signature: "softirq_entry behind an interrupt, or softirq_noise of osnoise",
        chain: "handle_softirqs (__do_softirq) <- irq_exit_rcu, local_bh_enable",
        meaning: "deferred work of an interrupt or of a system call ran on the time of this CPU's task",
        deferral: Never, "raised on this CPU itself",
        helps: "by its name: TIMER: timers armed on this CPU; RCU: rcu_nocbs=; SCHED: isolcpus=domain; NET_RX, NET_TX: interrupts and RPS/XPS of the network card elsewhere; BLOCK: rq_affinity=2 of the disk";
    Nmi = "nmi", Other, "non-maskable interrupt",
        signature: "nmi_noise of osnoise, nmi:nmi_handler",
        chain: "exc_nmi <- the local APIC",
        meaning: "the hard lockup detector, perf, a backtrace request or the hardware",
        deferral: Never, "cannot be masked",
        helps: "nowatchdog (or nmi_watchdog=0), no perf record on these CPUs";
    Firmware = "smi", Other, "firmware or hypervisor (SMI, stolen time)",
        signature: "samples of the hwlat tracer; sample_threshold of osnoise with 0 interferences",
        chain: "none: the kernel does not run",
        meaning: "time passed that the kernel cannot account for: system management interrupts of the firmware, in a guest the host",
        deferral: Never, "outside the kernel",
        helps: "firmware settings (power management, USB legacy, memory scrubbing, error logging) and turbostat's SMI count; in a guest: dedicated host CPUs for its virtual CPUs";
    Recording = "recording", Text, "the recording itself",
        signature: "do_sync_core or calls queued by trace-cmd, perf, bpftrace or a writer of tracefs; ftrace_sync_ipi, enable_trace_buffered_event, ignore_task_cpu, tracing_swap_cpu_buffer, rb_cpu_sync",
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
    InterruptUnnamed = "interrupt_unnamed", Unknown, "interrupt, which is not recorded",
        signature: "the IRQ column of the osnoise tracer's table and of rtla osnoise top",
        chain: "not recorded",
        meaning: "interrupts were counted, whatever their vector",
        deferral: Unknown, "depends on which they are",
        helps: "record the events of osnoise, which name each (rtla osnoise top -t, trace-cmd record -p osnoise -e osnoise), or irq_vectors";
    TaskUnnamed = "task_unnamed", Other, "another task, which is not recorded",
        signature: "the THREAD column of the osnoise tracer's table and of rtla osnoise top",
        chain: "not recorded",
        meaning: "other threads ran on this CPU in the place of the measuring one, and were only counted",
        deferral: Never, "a task, not a remote call",
        helps: "record osnoise:thread_noise or sched:sched_switch, which name them";
    NoiseUnnamed = "noise_unnamed", Other, "noise whose source is not recorded",
        signature: "the columns NOISE and MAX of the osnoise tracer's table and of rtla",
        chain: "not recorded",
        meaning: "time that the measuring thread did not get, summed over every source",
        deferral: Unknown, "depends on the source",
        helps: "record the events of osnoise, which tell the source of each piece";
    CallFrom = "call_sender_only", Unknown, "remote call: sender known, function not recorded",
        signature: "a call interrupt right behind ipi_raise: (Function call interrupts) for this CPU, or behind smp_call_function in the function tracer",
        chain: "generic_smp_call_function_interrupt <- not recorded",
        meaning: "a task on another CPU asked this one to run a function",
        deferral: Unknown, "depends on the function",
        helps: "record csd:csd_queue_cpu and csd:csd_function_entry on all CPUs (kernel 6.5 or newer), or stacks of the sender";
    CallUnknown = "call_unknown", Unknown, "remote call: vector known, sender unknown",
        signature: "call_function vector, and the trace has neither csd events nor probes",
        chain: "generic_smp_call_function_single_interrupt <- not recorded",
        meaning: "some CPU asked this one to run a function",
        deferral: Unknown, "depends on the function",
        helps: "record csd:* and ipi:* on all CPUs (kernel 6.5 or newer), or kprobes on the handlers";
}

impl Cause {
    /// What kind of thing takes the CPU.
    pub fn kind(self) -> Kind {
        match self {
            Self::Vmstat
            | Self::Kworker
            | Self::Ksoftirqd
            | Self::IrqThread
            | Self::RcuThread
            | Self::KernelThread
            | Self::TaskUnnamed
            | Self::OtherTask => Kind::Task,
            Self::Softirq => Kind::Softirq,
            Self::Nmi => Kind::Nmi,
            Self::Firmware => Kind::Firmware,
            _ => Kind::Interrupt,
        }
    }
}

#[cfg(test)]
mod tests;
