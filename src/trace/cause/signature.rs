//! How a recording shows which cause it is: functions that CPUs are asked to run, places that ask, frames of call chains,
//! functions of timers and work items, names of kernel threads.
//!
//! Names are compared without what the compiler appends (`.part.0`, `.isra.0`, `.constprop.0`), and where a kernel renamed a
//! function both names stand here: 4.18 to 7.3 were looked at. Lists are in the order of how much a name says.

use super::Cause;
use crate::trace::import::scan::plain_function;

/// Functions a CPU is asked to run, and why.
const FUNCTIONS: &[(&str, Cause)] = &[
    ("do_flush_tlb_all", Cause::KernelFlushUnknown),
    ("do_kernel_range_flush", Cause::KernelFlushUnknown),
    ("kernel_tlb_flush_all", Cause::KernelFlushUnknown),
    ("kernel_tlb_flush_range", Cause::KernelFlushUnknown),
    ("__cpa_flush_tlb", Cause::SetMemory),
    ("__cpa_flush_all", Cause::SetMemory),
    ("cpa_flush_range", Cause::SetMemory),
    ("flush_tlb_func", Cause::UserShootdown),
    ("flush_tlb_func_remote", Cause::UserShootdown),
    ("flush_ldt", Cause::UserShootdown),
    ("tlb_remove_table_smp_sync", Cause::TlbRemoveTable),
    ("do_shoot_lazy_tlb", Cause::LazyTlb),
    ("do_sync_core", Cause::TextSync),
    ("nohz_full_kick_func", Cause::NohzKick),
    ("nohz_full_kick_work_func", Cause::NohzKick),
    ("sched_ttwu_pending", Cause::Wakeup),
    ("__hrtick_start", Cause::Hrtick),
    ("nohz_csd_func", Cause::LoadBalance),
    ("rto_push_irq_work_func", Cause::RtPush),
    ("__cfsb_csd_unthrottle", Cause::Bandwidth),
    ("rcu_exp_handler", Cause::RcuExpedited),
    ("rcu_exp_need_qs", Cause::RcuExpedited),
    ("sync_rcu_exp_handler", Cause::RcuExpedited),
    ("sync_sched_exp_handler", Cause::RcuExpedited),
    ("rcu_barrier_handler", Cause::RcuBarrier),
    ("rcu_barrier_func", Cause::RcuBarrier),
    ("ipi_mb", Cause::Membarrier),
    ("ipi_sync_core", Cause::Membarrier),
    ("ipi_rseq", Cause::Membarrier),
    ("ipi_sync_rq_state", Cause::Membarrier),
    ("__bpf_arch_ibpb", Cause::BpfIbpb),
    ("retrigger_next_event", Cause::ClockSet),
    ("clocksource_verify_one_cpu", Cause::ClocksourceWatchdog),
    ("watchdog_check_skew_remote", Cause::ClocksourceWatchdog),
    ("drain_local_stock", Cause::PercpuDrain),
    ("lru_add_drain_per_cpu", Cause::PercpuDrain),
    ("drain_local_pages", Cause::PercpuDrain),
    ("drain_local_pages_wq", Cause::PercpuDrain),
    ("invalidate_bh_lru", Cause::PercpuDrain),
    ("__invalidate_bh_lrus", Cause::PercpuDrain),
    ("aperfmperf_snapshot_khz", Cause::Aperfmperf),
    ("__wbinvd", Cause::CacheFlush),
    ("__wbnoinvd", Cause::CacheFlush),
    ("cr4_update_pce", Cause::CacheFlush),
    ("__rdmsr_on_cpu", Cause::CacheFlush),
    ("__wrmsr_on_cpu", Cause::CacheFlush),
    ("__rdmsr_safe_on_cpu", Cause::CacheFlush),
    ("__wrmsr_safe_on_cpu", Cause::CacheFlush),
    ("__perf_event_read", Cause::CacheFlush),
    ("remote_function", Cause::CacheFlush),
    ("multi_cpu_stop", Cause::StopMachine),
    ("ftrace_sync_ipi", Cause::Recording),
    ("enable_trace_buffered_event", Cause::Recording),
    ("disable_trace_buffered_event", Cause::Recording),
    ("ignore_task_cpu", Cause::Recording),
    ("tracing_swap_cpu_buffer", Cause::Recording),
    ("rb_cpu_sync", Cause::Recording),
];

/// Where a reschedule or a call was sent from, and why; the most specific first.
const PLACES: &[(&str, Cause)] = &[
    ("dl_task_timer", Cause::DlServer),
    ("dl_server_timer", Cause::DlServer),
    ("zap_other_threads", Cause::Signal),
    ("__send_signal_locked", Cause::Signal),
    ("__send_signal", Cause::Signal),
    ("signal_wake_up_state", Cause::Signal),
    ("complete_signal", Cause::Signal),
    ("sched_tick_remote", Cause::SchedTick),
    ("resched_cpu", Cause::SchedTick),
    ("wakeup_preempt", Cause::Wakeup),
    ("check_preempt_curr", Cause::Wakeup),
    ("ttwu_queue", Cause::Wakeup),
    ("ttwu_queue_wakelist", Cause::Wakeup),
    ("try_to_wake_up", Cause::Wakeup),
    ("enqueue_task_fair", Cause::Wakeup),
    ("update_curr", Cause::SchedTick),
    ("__resched_curr", Cause::SchedTick),
    ("resched_curr", Cause::SchedTick),
];

/// Callers that the call site of a queued call names, where the function alone does not tell.
const CALLSITES: &[(&str, Cause)] = &[
    ("cpa_flush", Cause::SetMemory),
    ("__change_page_attr_set_clr", Cause::SetMemory),
    ("__change_page_attr", Cause::SetMemory),
    ("__split_large_page", Cause::SetMemory),
    ("membarrier_private_expedited", Cause::Membarrier),
    ("membarrier_global_expedited", Cause::Membarrier),
    ("sync_runqueues_membarrier_state", Cause::Membarrier),
    ("bpf_prog_pack_alloc", Cause::BpfIbpb),
    ("dl_server_timer", Cause::DlServer),
    ("dl_task_timer", Cause::DlServer),
    ("clock_was_set", Cause::ClockSet),
    ("rcu_barrier", Cause::RcuBarrier),
];

/// Functions of hrtimers; others are [`Cause::Hrtimer`].
const HRTIMERS: &[(&str, Cause)] = &[
    ("tick_sched_timer", Cause::SchedulerTick),
    ("tick_nohz_handler", Cause::SchedulerTick),
    ("tick_nohz_highres_handler", Cause::SchedulerTick),
    ("tick_nohz_lowres_handler", Cause::SchedulerTick),
    ("hrtick", Cause::Hrtick),
    ("dl_task_timer", Cause::DlServer),
    ("dl_server_timer", Cause::DlServer),
];

/// What a remote call of this function means; kernel flushes need their sender's context to be told apart.
pub fn of_function(name: &[u8]) -> Cause {
    find(FUNCTIONS, name).unwrap_or(Cause::CallOther)
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

/// What the place adds that a call was queued from: the caller of a kernel flush, or who kicks.
pub fn of_callsite(callsite: &[u8]) -> Option<Cause> {
    find(CALLSITES, callsite)
}

/// Programs that record, by the beginning of their names.
const RECORDERS: &[&[u8]] =
    &[b"trace-cmd", b"perf", b"bpftrace", b"rtla", b"osnoise", b"timerlat", b"tlbcore", b"cyclictest"];

/// Is this one of the functions a CPU is asked to run? A kprobe on it counts as a call.
pub fn is_handler(name: &[u8]) -> bool {
    find(FUNCTIONS, name).is_some()
}

/// What a reschedule from this place means.
pub fn of_reschedule(callsite: &[u8]) -> Cause {
    find(PLACES, callsite).unwrap_or(Cause::RescheduleOther)
}

/// The frame of a call chain that says most about why it interrupts another CPU.
pub fn origin<'a>(frames: &(impl Iterator<Item = &'a [u8]> + Clone)) -> Option<&'a [u8]> {
    PLACES.iter().find_map(|(name, _)| frames.clone().find(|frame| plain_function(frame) == name.as_bytes()))
}

/// What the function of an hrtimer means.
pub fn of_hrtimer(function: &[u8]) -> Cause {
    find(HRTIMERS, function).unwrap_or(Cause::Hrtimer)
}

/// What a task is that runs in the place of another.
pub fn of_task(comm: &[u8]) -> Cause {
    let is = |prefix: &[u8]| comm.starts_with(prefix);
    if is(b"kworker/") {
        Cause::Kworker
    } else if is(b"ksoftirqd/") {
        Cause::Ksoftirqd
    } else if is(b"irq/") {
        Cause::IrqThread
    } else if is(b"migration/") || is(b"stopper/") {
        Cause::StopMachine
    } else if is(b"rcu") && (is(b"rcu_") || is(b"rcuc/") || is(b"rcuo") || is(b"rcub/")) {
        Cause::RcuThread
    } else if is(b"irq_work/") || KERNEL_THREADS.iter().any(|name| is(name)) {
        Cause::KernelThread
    } else {
        Cause::OtherTask
    }
}

/// Kernel threads that are met on isolated CPUs, by the beginning of their names: `ps -e` of 4.18 to 7.3.
const KERNEL_THREADS: &[&[u8]] = &[
    b"kthreadd",
    b"kswapd",
    b"kcompactd",
    b"khugepaged",
    b"ksmd",
    b"kdamond",
    b"kauditd",
    b"khungtaskd",
    b"oom_reaper",
    b"watchdog/",
    b"watchdogd",
    b"cpuhp/",
    b"idle_inject/",
    b"ktimers/",
    b"ktimersoftd/",
    b"backlog_napi/",
    b"napi/",
    b"kblockd",
    b"jbd2/",
    b"xfsaild/",
    b"kdevtmpfs",
    b"psimon",
    b"sugov:",
    b"scsi_eh_",
    b"usb-storage",
    b"dmcrypt_write",
    b"pr/",
    b"card0-crtc",
    b"cfinteractive",
    b"vhost-",
    b"kvm-nx-lpage",
    b"kvm-pit/",
    b"nvidia-modeset",
    b"txg_sync",
];

/// Is this a thread of the kernel, by its name? Such a thread is never the task that an isolated CPU is for.
pub fn is_kernel_thread(comm: &[u8]) -> bool {
    of_task(comm) != Cause::OtherTask
}

/// What a work item means, beyond that a kworker runs it.
pub fn of_work(function: &[u8]) -> Option<Cause> {
    match function {
        b"vmstat_update" => Some(Cause::Vmstat),
        b"lru_add_drain_per_cpu" | b"drain_local_pages_wq" | b"drain_local_memcg_stock" => {
            Some(Cause::PercpuDrain)
        }
        _ => None,
    }
}

/// Frames of call chains, and what for.
const FRAMES: &[(&str, Cause)] = &[
    ("pmd_free_pte_page", Cause::KernelTableFree),
    ("pud_free_pmd_page", Cause::KernelTableFree),
    ("pcpu_post_unmap_tlb_flush", Cause::PercpuReclaim),
    ("pcpu_reclaim_populated", Cause::PercpuReclaim),
    ("pcpu_depopulate_chunk", Cause::PercpuReclaim),
    ("toggle_allocation_gate", Cause::Kfence),
    ("uprobe_register", Cause::Uprobe),
    ("uprobe_unregister", Cause::Uprobe),
    ("uprobe_unregister_nosync", Cause::Uprobe),
    ("set_optimized_insn", Cause::Uprobe),
    ("bpf_prog_pack_alloc", Cause::BpfIbpb),
    ("vm_reset_perms", Cause::ExecFree),
    ("_vm_unmap_aliases", Cause::VmUnmapAliases),
    ("vm_unmap_aliases", Cause::VmUnmapAliases),
    ("drain_vmap_area_work", Cause::VmallocPurge),
    ("reclaim_and_purge_vmap_areas", Cause::VmallocPurge),
    ("try_purge_vmap_area_lazy", Cause::VmallocPurge),
    ("__purge_vmap_area_lazy", Cause::VmallocPurge),
    // Before 5.18 (UNVERIFIED) whoever frees purges by itself; these are 4.18's and 5.14's.
    ("purge_vmap_area_lazy", Cause::VmallocPurge),
    ("purge_fragmented_blocks_allcpus", Cause::VmallocPurge),
    ("unmap_kernel_range", Cause::Vunmap),
    ("vm_area_unmap_pages", Cause::Vunmap),
    ("vunmap_range", Cause::Vunmap),
    ("text_poke_sync", Cause::TextSync),
    ("text_poke_bp", Cause::TextSync),
    ("text_poke_bp_batch", Cause::TextSync),
    ("text_poke_finish", Cause::TextSync),
    ("smp_text_poke_sync_each_cpu", Cause::TextSync),
    ("smp_text_poke_batch_finish", Cause::TextSync),
    ("arch_jump_label_transform", Cause::TextSync),
    ("arch_jump_label_transform_apply", Cause::TextSync),
    ("ftrace_replace_code", Cause::TextSync),
    ("load_module", Cause::ExecProtect),
    ("bpf_prog_select_runtime", Cause::ExecProtect),
    ("__bpf_prog_select_runtime", Cause::ExecProtect),
    ("bpf_int_jit_compile", Cause::ExecProtect),
    ("execmem_alloc_rw", Cause::ExecProtect),
    ("execmem_free", Cause::ExecProtect),
    ("__execmem_cache_free", Cause::ExecProtect),
    ("do_free_init", Cause::ExecProtect),
    ("cpa_flush", Cause::SetMemory),
    ("change_page_attr_set_clr", Cause::SetMemory),
    ("__change_page_attr_set_clr", Cause::SetMemory),
    ("membarrier_private_expedited", Cause::Membarrier),
    ("membarrier_global_expedited", Cause::Membarrier),
    ("synchronize_rcu_expedited", Cause::RcuExpedited),
    ("tlb_remove_table_sync_one", Cause::TlbRemoveTable),
    ("flush_tlb_mm_range", Cause::UserShootdown),
    ("flush_tlb_page", Cause::UserShootdown),
    ("native_flush_tlb_others", Cause::UserShootdown),
    ("native_flush_tlb_multi", Cause::UserShootdown),
    ("text_poke_flush", Cause::TextSync),
    ("kick_all_cpus_sync", Cause::CallOther),
    ("rcu_barrier", Cause::RcuBarrier),
    ("sync_rcu_exp_select_cpus", Cause::RcuExpedited),
    ("synchronize_sched_expedited", Cause::RcuExpedited),
    ("clock_was_set", Cause::ClockSet),
    ("wbinvd_on_all_cpus", Cause::CacheFlush),
    ("invalidate_bh_lrus", Cause::PercpuDrain),
    ("dl_server_timer", Cause::DlServer),
    ("dl_task_timer", Cause::DlServer),
    ("clocksource_watchdog", Cause::ClocksourceWatchdog),
    ("tick_nohz_full_kick_cpu", Cause::NohzKick),
    ("wake_up_nohz_cpu", Cause::NohzKick),
    ("ttwu_queue_wakelist", Cause::Wakeup),
];

/// What the call chain of a kernel flush or of another call says; the most specific frame wins.
pub fn of_stack(frames: &[u8]) -> Option<Cause> {
    let has = |name: &str| each(frames).any(|frame| frame == name.as_bytes());
    let cause = FRAMES.iter().find(|(name, _)| has(name)).map(|(_, cause)| *cause)?;
    // vm_reset_perms is inlined into vfree since 7.3: the aliases are flushed for nobody else below vfree.
    let frees = cause == Cause::VmUnmapAliases && !has("change_page_attr_set_clr");
    Some(if frees && (has("vfree") || has("execmem_free") || has("module_memfree")) {
        Cause::ExecFree
    } else {
        cause
    })
}

/// Does this call chain, or this function, ask other CPUs to run something?
pub fn sends_calls(frames: &[u8]) -> bool {
    each(frames).any(|frame| {
        frame.starts_with(b"smp_call_function")
            || frame.starts_with(b"on_each_cpu")
            || frame.starts_with(b"generic_exec_single")
            || frame.starts_with(b"native_send_call_func")
    })
}

/// Whoever had text patched, by the call chain: the first caller outside the machinery of patching.
pub fn patched_for(frames: &[u8]) -> Option<&[u8]> {
    const MACHINERY: &[&[u8]] = &[
        b"smp_",
        b"on_each_cpu",
        b"text_poke",
        b"arch_",
        b"__jump_label",
        b"jump_label",
        b"static_key",
        b"__static_key",
        b"static_call",
        b"__static_call",
        b"generic_exec",
        b"__text_poke",
    ];
    let mut patching = false;
    each(frames).find(|frame| {
        let inside = MACHINERY.iter().any(|prefix| frame.starts_with(prefix));
        patching |= inside;
        patching && !inside
    })
}

fn each(frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    frames.split(|&b| b == b'\n').filter(|frame| !frame.is_empty()).map(plain_function)
}

fn find(table: &[(&str, Cause)], name: &[u8]) -> Option<Cause> {
    table.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_the_compiler_appends_to_a_frame_says_nothing() {
        let parts =
            b"flush_tlb_kernel_range\n__purge_vmap_area_lazy\n_vm_unmap_aliases.part.0\nvfree.part.0\n";
        assert_eq!(of_stack(parts), Some(Cause::ExecFree));
        assert_eq!(
            of_stack(b"cpa_flush.isra.0\nset_memory_ro\n__bpf_prog_select_runtime.constprop.0\n"),
            Some(Cause::ExecProtect)
        );
        let rights =
            b"_vm_unmap_aliases.part.0\nchange_page_attr_set_clr\nset_memory_nx\nexecmem_free\nvfree\n";
        assert_eq!(of_stack(rights), Some(Cause::VmUnmapAliases));
    }

    #[test]
    fn patching_is_told_with_whoever_asked_for_it() {
        let chain = b"smp_call_function_many\non_each_cpu\ntext_poke_bp\narch_jump_label_transform\n\
            __jump_label_update\njump_label_update\nstatic_key_slow_inc\nnet_enable_timestamp\nsock_setsockopt\n";
        assert_eq!(of_stack(chain), Some(Cause::TextSync));
        assert_eq!(patched_for(chain), Some(&b"net_enable_timestamp"[..]));
        assert!(sends_calls(chain));
        assert!(!sends_calls(b"vfree\nkthread\n"));
    }

    #[test]
    fn kernel_threads_are_known_by_name_and_no_program_is_one() {
        for name in
            ["kworker/7:1", "ksoftirqd/3", "irq/24-eth0", "migration/8", "rcuc/2", "kcompactd0", "cpuhp/3"]
        {
            assert!(is_kernel_thread(name.as_bytes()), "{name}");
        }
        for name in ["user_loop", "dpdk-w7", "rcutorture-app", "kworkerlike", "irqbalance", "watchdog-app"] {
            assert!(!is_kernel_thread(name.as_bytes()), "{name}");
        }
    }
}
