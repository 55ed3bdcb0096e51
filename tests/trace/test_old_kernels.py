"""Who sent a call on kernels without csd events (before 6.5): functions, probes on functions and call chains tell.

Written after the sources and documentation of 4.18 and 5.14, on no machine: names of functions are UNVERIFIED there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_trace_cli import DATA
from test_trace_kinds import explained, line

import tlbcore as tc


def call(at: float, handler: str = "") -> str:
    """An interrupt of CPU 2; with the function tracer on the handler, too."""
    ran = line(at + 1e-6, f"{handler} <-flush_smp_call_function_queue") if handler else ""
    return (
        line(at, "call_function_entry: vector=252") + ran + line(at + 3e-6, "call_function_exit: vector=252")
    )


def asks(at: float, *functions: str, probes: bool = False, task: str = "worker-41") -> str:
    """Entries of these functions on CPU 0, by the function tracer or by kprobes."""
    shape = "p_{0}_0: ({0}+0x0/0x2a0)" if probes else "{0} <-caller"
    return "".join(
        line(at + i * 1e-6, shape.format(name), cpu=0, task=task, flags="d....")
        for i, name in enumerate(functions)
    )


@pytest.mark.parametrize("probes", [False, True])
@pytest.mark.parametrize(
    ("functions", "cause"),
    [
        # 4.18, 5.14: whoever frees purges by itself.
        (("__purge_vmap_area_lazy", "on_each_cpu", "smp_call_function_many"), "vmalloc_purge"),
        (("text_poke_bp", "on_each_cpu", "smp_call_function_many_cond"), "text_sync"),
        (("flush_tlb_mm_range", "native_flush_tlb_others", "smp_call_function_many"), "user_shootdown"),
        (("change_page_attr_set_clr", "on_each_cpu", "smp_call_function_many"), "set_memory"),
        (("membarrier_private_expedited", "smp_call_function_many_cond"), "membarrier"),
        (("smp_call_function_single",), "call_sender_only"),
    ],
)
def test_functions_of_old_kernels_tell_who_sent_a_call_and_why(
    tmp_path: Path, functions: tuple[str, ...], cause: str, probes: bool
):
    cpu, _ = explained(tmp_path, asks(1.0, *functions, probes=probes) + call(1.00001) + call(3.0))

    assert cpu["interrupts_by_cause"] == {cause: 1, "call_unknown": 1}  # nobody was heard before the second
    assert {(i["comm"], i["cause"]) for i in cpu["initiators"]} >= {("worker", cause)}


def test_the_function_that_ran_and_the_one_that_asked_are_put_together(tmp_path: Path):
    asked = asks(1.0, "__purge_vmap_area_lazy", "smp_call_function_many")
    cpu, _ = explained(tmp_path, asked + call(1.00001, "do_flush_tlb_all") + call(3.0, "do_flush_tlb_all"))

    assert cpu["calls_by_function"] == {"do_flush_tlb_all": 2}
    assert cpu["interrupts_by_cause"] == {"vmalloc_purge": 1, "kernel_flush_unknown": 1}


def test_what_ran_says_more_than_what_was_asked_before(tmp_path: Path):
    asked = asks(1.0, "__purge_vmap_area_lazy", "smp_call_function_many")

    cpu, _ = explained(tmp_path, asked + call(1.00001, "flush_tlb_func_remote"))

    assert cpu["interrupts_by_cause"] == {"user_shootdown": 1}


def test_what_was_asked_long_ago_or_by_another_thread_is_not_why(tmp_path: Path):
    purge = asks(1.0, "__purge_vmap_area_lazy")
    late = asks(1.1, "smp_call_function_many") + call(1.10001)
    other = asks(1.2, "__purge_vmap_area_lazy") + asks(1.20001, "smp_call_function_many", task="other-42")

    cpu, _ = explained(tmp_path, purge + late + other + call(1.20002))

    assert cpu["interrupts_by_cause"] == {"call_sender_only": 2}


@pytest.mark.parametrize("kernel", ["4.18", "5.14"])
def test_call_chains_of_old_kernels_have_a_cause(tmp_path: Path, kernel: str):
    frames = {
        "4.18": ["smp_call_function_many", "on_each_cpu", "flush_tlb_kernel_range", "__purge_vmap_area_lazy",
                 "free_vmap_area_noflush", "remove_vm_area", "__vunmap", "free_work"],
        "5.14": ["smp_call_function_many_cond", "on_each_cpu_cond_mask", "flush_tlb_kernel_range",
                 "__purge_vmap_area_lazy", "free_vmap_area_noflush", "remove_vm_area", "vfree"],
    }[kernel]  # fmt: skip
    chain = line(1.0, "kernel_stack: <stack trace >", cpu=0, task="worker-41", flags="d....")
    chain += "".join(f"=> {frame} (ffffffff8a6ae749)\n" for frame in frames)

    cpu, shown = explained(tmp_path, chain + call(1.00001))

    assert cpu["interrupts_by_cause"] == {"vmalloc_purge": 1}
    assert "worker" in shown


def test_headline_policies_are_those_of_replay(tmp_path: Path):
    """What the report says of policies is what a replay says: they are one function, whatever is left out for speed."""
    for path in sorted(DATA.glob("*.trace.txt.xz")):
        try:
            trace = tc.read_trace(path)
        except tc.TraceError:
            continue
        told = trace.figures["report"]["policies"]
        replayed = tc.replay(trace, policies=[one["policy"] for one in told])
        for one, other in zip(told, replayed.outcomes, strict=True):
            assert {k: one[k] for k in one} == {k: other[k] for k in one}, (path, one["policy"])
