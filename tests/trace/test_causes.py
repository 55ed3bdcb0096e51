"""Every cause of the catalogue has a recording, of few events, whose one interrupt (or thief) it is and no other's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_trace_kinds import call, explained, irq, line, switch

import tlbcore as tc

HERE = Path(__file__).parent


def stack(*frames: str) -> str:
    """Return a call chain of the sender, as ftrace prints it after an event."""
    return line(1.0, "<stack trace>", cpu=0, task="x-9") + "".join(f" => {frame}\n" for frame in frames)


def sent(callsite: str) -> str:
    """Return a reschedule interrupt that was sent from a place."""
    text = f"ipi_send_cpu: cpu=2 callsite={callsite}+0x1/0x2 callback=0x0"
    return line(1.0, text, cpu=0, task="x-9") + irq(1.00001, "reschedule", 4)


def flush(*frames: str) -> str:
    return call("do_flush_tlb_all", "on_each_cpu_cond_mask", after=stack(*frames))


def intruder(task: str) -> str:
    return switch(1.0, "app-7", "R", task) + switch(1.01, task, "S", "app-7") + line(3.0, "user_enter: ")


# What counts under `interrupts_by_cause`.
INTERRUPTS = {
    "vmalloc_purge": flush("flush_tlb_kernel_range", "__purge_vmap_area_lazy", "drain_vmap_area_work"),
    "vunmap": flush("flush_tlb_kernel_range", "vunmap_range", "kunmap"),
    "vm_unmap_aliases": flush("flush_tlb_kernel_range", "_vm_unmap_aliases", "change_page_attr_set_clr"),
    "exec_memory_free": flush("flush_tlb_kernel_range", "_vm_unmap_aliases", "vfree"),
    "kernel_table_free": flush("flush_tlb_kernel_range", "pmd_free_pte_page", "vmap_range_noflush"),
    "set_memory": flush("flush_tlb_all", "cpa_flush", "change_page_attr_set_clr", "set_memory_ro"),
    "exec_memory_protect": flush("flush_tlb_all", "cpa_flush", "change_page_attr_set_clr", "load_module"),
    "percpu_reclaim": flush("flush_tlb_kernel_range", "pcpu_post_unmap_tlb_flush", "pcpu_balance_workfn"),
    "kernel_flush_unknown": call("do_flush_tlb_all", "on_each_cpu_cond_mask"),
    "text_sync": call("do_sync_core", "on_each_cpu_cond_mask"),
    "kfence": call(
        "do_sync_core", "on_each_cpu_cond_mask", after=stack("text_poke_bp", "toggle_allocation_gate")
    ),
    "uprobe": call("do_sync_core", "on_each_cpu_cond_mask", after=stack("text_poke_bp", "uprobe_register")),
    "recording": call("rb_cpu_sync", "x"),
    "user_shootdown": call("flush_tlb_func", "on_each_cpu_cond_mask"),
    "tlb_remove_table": call("tlb_remove_table_smp_sync", "smp_call_function_many_cond"),
    "khugepaged": call("tlb_remove_table_smp_sync", "x").replace("x-9", "khugepaged-9"),
    "lazy_tlb": call("do_shoot_lazy_tlb", "x"),
    "nohz_kick": call("nohz_full_kick_func", "irq_work_queue_on"),
    "rcu_expedited": call("rcu_exp_handler", "x"),
    "rcu_barrier": call("rcu_barrier_handler", "x"),
    "membarrier": call("ipi_mb", "membarrier_private_expedited"),
    "bpf_ibpb": call("__bpf_arch_ibpb", "bpf_prog_pack_alloc"),
    "cfs_bandwidth": call("__cfsb_csd_unthrottle", "x"),
    "clock_set": call("retrigger_next_event", "x"),
    "clocksource_watchdog": call("watchdog_check_skew_remote", "x"),
    "hrtick": call("__hrtick_start", "generic_exec_single"),
    "percpu_drain": call("drain_local_stock", "x"),
    "cache_or_msr": call("__wbnoinvd", "x"),
    "aperfmperf": call("aperfmperf_snapshot_khz", "x"),
    "load_balance": call("nohz_csd_func", "x"),
    "rt_push": call("rto_push_irq_work_func", "x"),
    "stop_machine": call("multi_cpu_stop", "x"),
    "call_other": call("a_drivers_own", "x"),
    "wakeup": sent("ttwu_queue_wakelist"),
    "dl_server": sent("dl_server_timer"),
    "sched_resched": sent("resched_curr"),
    "signal": sent("zap_other_threads"),
    "reschedule": irq(1.0, "reschedule", 4),
    "irq_work": irq(1.0, "irq_work", 4),
    "other_vector": irq(1.0, "thermal_apic", 4),
    "platform_ipi": irq(1.0, "x86_platform_ipi", 4),
    "device": line(1.0, "irq_handler_entry: irq=55 name=eth0")
    + line(1.1, "irq_handler_exit: irq=55 ret=handled"),
    "timer": irq(1.0, "local_timer", 4),
    "call_unknown": irq(1.0, "call_function", 4),
    "posted_interrupt": " 2)   3.000 us    |  sysvec_kvm_posted_intr_wakeup_ipi();\n",
    "timer_broadcast": line(1.0, "ipi_entry: (Timer broadcast interrupts)")
    + line(1.1, "ipi_exit: (Timer broadcast interrupts)"),
    "ipi_other": line(1.0, "ipi_entry: (CPU stop interrupts)") + line(1.1, "ipi_exit: (CPU stop interrupts)"),
}
# What takes the CPU without being an interrupt.
THIEVES = {
    "kworker": intruder("kworker/2:1-99"),
    "ksoftirqd": intruder("ksoftirqd/2-21"),
    "irq_thread": intruder("irq/24-eth0-88"),
    "rcu_thread": intruder("rcuc/2-19"),
    "kernel_thread": intruder("kcompactd0-60"),
    "other_task": intruder("backup.sh-900"),
    "softirq": line(1.0, "softirq_entry: vec=1 [action=TIMER]")
    + line(1.1, "softirq_exit: vec=1 [action=TIMER]"),
    "nmi": line(1.0, "nmi_handler: perf_event_nmi_handler() delta_ns: 5000 handled: 1"),
    "vmstat": switch(1.0, "app-7", "R", "kworker/2:1-99")
    + line(1.0, "workqueue_execute_start: work struct 0: function vmstat_update", task="kworker/2:1-99")
    + switch(1.01, "kworker/2:1-99", "I", "app-7"),
}
# What takes more than an interrupt to tell has its recording in the test named here.
ELSEWHERE = {
    "tick": "test_trace_kinds.py",
    "tick_kept": "test_trace_cli.py",
    "scheduler_tick": "test_trace_kinds.py",
    "hrtimer": "test_trace_kinds.py",
    "smi": "test_trace_cases.py",
    "call_sender_only": "test_trace_cases.py",
    "interrupt_unnamed": "test_trace_sums.py",
    "task_unnamed": "test_trace_sums.py",
    "noise_unnamed": "test_trace_sums.py",
    "call_empty": "test_causes.py",
}


@pytest.mark.parametrize("cause", INTERRUPTS)
def test_an_interrupt_has_its_cause(cause: str, tmp_path: Path) -> None:
    cpu, _ = explained(tmp_path, INTERRUPTS[cause])
    assert cpu["interrupts_by_cause"] == {cause: 1}


@pytest.mark.parametrize("cause", THIEVES)
def test_what_takes_the_cpu_has_its_cause(cause: str, tmp_path: Path) -> None:
    cpu, _ = explained(tmp_path, THIEVES[cause] + line(5.0, "user_enter: "))
    assert {row["cause"]: row["n"] for row in cpu["interference"]} == {cause: 1}
    assert cpu["interrupts"] in (0, None)


def test_a_call_interrupt_that_finds_nothing_is_empty_where_the_queue_was_recorded(tmp_path: Path) -> None:
    cpu, _ = explained(tmp_path, call("ipi_mb", "x") + irq(2.0, "call_function_single", 4))
    assert cpu["interrupts_by_cause"] == {"membarrier": 1, "call_empty": 1}


def test_every_cause_has_a_recording() -> None:
    assert set(INTERRUPTS) | set(THIEVES) | set(ELSEWHERE) == set(tc.causes)
    assert len(INTERRUPTS) + len(THIEVES) + len(ELSEWHERE) == len(tc.causes)
    for cause, name in ELSEWHERE.items():
        assert re.search(rf'"{cause}\b', (HERE / name).read_text()), cause
