"""What is kept from line to line: who is isolated, whose call it is, what the tracer said before, who is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_trace_cli import ticks, tlbcore
from test_trace_kinds import explained, irq, line, rows, switch

import tlbcore as tc


@pytest.mark.parametrize(
    "notes",
    [
        "# tlbcore snapshot | 1\n# tlbcore isolated | 2\n",
        "# tlbcore cgroup_root | 0\n# tlbcore isolated | 2\n",
        "# tlbcore isolated | 2\n# tlbcore isolated | 3\n",
    ],
)
def test_one_note_alone_says_who_is_isolated_and_the_first_of_them(tmp_path: Path, notes: str):
    path = tmp_path / "trace.txt"
    path.write_text(notes + ticks("NONE", "NONE"))
    document = json.loads(tlbcore("explain", str(path), "--json").stdout)

    assert [cpu["cpu"] for cpu in document["isolated"]] == [2]


def test_a_note_that_names_nobody_leaves_it_to_what_was_recorded(tmp_path: Path):
    path = tmp_path / "trace.txt"
    path.write_text(ticks("NONE", "NONE"))
    deduced = json.loads(tlbcore("explain", str(path), "--json").stdout)
    path.write_text("# tlbcore isolated | \n" + ticks("NONE", "NONE"))
    noted = json.loads(tlbcore("explain", str(path), "--json").stdout)

    assert [cpu["cpu"] for cpu in noted["isolated"]] == [cpu["cpu"] for cpu in deduced["isolated"]] != []


QUEUE = "csd_queue_cpu: cpu=2 callsite=x+0x1/0x2 func=ipi_mb csd={}"
RUN = "csd_function_{}: func={}, csd={}"


@pytest.mark.parametrize("apart", [False, True])
def test_what_a_cpu_was_in_is_forgotten_where_another_recording_begins(tmp_path: Path, apart: bool):
    """The CPU went to user mode in the first recording; the call is of the second, a second later."""
    text = line(0.5, "user_enter: ", flags=".....")
    text += "# tracer: nop\n" if apart else ""
    text += line(1.0, QUEUE.format("aa"), cpu=0, task="x-9") + line(
        1.00001, "call_function_entry: vector=251"
    )
    text += line(1.00002, RUN.format("entry", "ipi_mb", "aa"))
    path = tmp_path / "trace.txt"
    path.write_text("# tracer: nop\n" + text)

    assert tc.read_trace(path, isolated="2").calls["mode"].tolist() == ["unknown" if apart else "user"]


def test_calls_queued_by_a_probe_take_the_data_of_the_event_that_names_them(tmp_path: Path):
    """Two flushes of one function, from two CPUs, run in the other order: told apart by csd alone."""
    flush = "flush_tlb_all: (flush_tlb_all+0x0/0x30)"
    queued = "csd_queue_cpu: cpu=2 callsite=on_each_cpu_cond_mask+0x1/0x2 func=do_flush_tlb_all csd={}"
    path = tmp_path / "trace.txt"
    path.write_text(
        line(0.5, "sched_wakeup: comm=y pid=7 prio=120 target_cpu=002")
        + line(1.0, flush, cpu=0, task="x-9", flags=".....")
        + line(1.000001, flush, cpu=1, task="y-8", flags=".....")
        + line(1.000002, queued.format("aa"), cpu=0, task="x-9")
        + line(1.000003, queued.format("bb"), cpu=1, task="y-8")
        + line(1.00001, "call_function_entry: vector=251")
        + line(1.00002, RUN.format("entry", "do_flush_tlb_all", "bb"))
        + line(1.00003, RUN.format("exit", "do_flush_tlb_all", "bb"))
        + line(1.00004, RUN.format("entry", "do_flush_tlb_all", "aa"))
        + line(1.00005, RUN.format("exit", "do_flush_tlb_all", "aa"))
        + line(1.00006, "call_function_exit: vector=251")
    )
    calls = tc.read_trace(path, isolated="2").calls

    by_sender = dict(zip(calls["sender_cpu"].tolist(), calls["ran_s"].tolist(), strict=True))
    assert by_sender == {1: pytest.approx(1.00002), 0: pytest.approx(1.00004)}


@pytest.mark.parametrize("more", [0, 1, 2])
def test_a_call_races_with_an_interrupt_only_where_the_queue_was_empty(tmp_path: Path, more: int):
    """A call comes after the entry of an interrupt in which nothing ran yet: it may have found the queue emptied, and
    whether an interrupt of its own was due cannot be told. Those behind it find it waiting, and send none."""
    text = line(0.9, "ipi_send_cpu: cpu=3 callsite=x+0x1/0x2 callback=generic_smp", cpu=0, task="x-9")
    text += line(1.0, "call_function_single_entry: vector=251")
    for n in range(1 + more):
        text += line(1.00001 + n / 1e6, QUEUE.format(f"a{n}"), cpu=1, task="y-8")
    for n in range(1 + more):
        text += line(1.00002 + n / 1e6, RUN.format("entry", "ipi_mb", f"a{n}"))
    text += line(1.00003, "call_function_single_exit: vector=251")
    path = tmp_path / "trace.txt"
    path.write_text(text)
    (cpu,) = tc.read_trace(path, isolated="2").figures["report"]["isolated"]

    assert (cpu["baseline"]["raced"], cpu["calls_by_function"]) == (1, {"ipi_mb": 1 + more})


def test_every_interrupt_of_a_graph_is_one(tmp_path: Path):
    text = "# tracer: function_graph\n" + (
        " 2)               |  sysvec_apic_timer_interrupt() {\n"
        " 2)   0.500 us    |    hrtimer_interrupt();\n"
        " 2)   4.000 us    |  }\n"
    )
    cpu, _ = explained(tmp_path, text + text.split("\n", 1)[1] * 2)

    assert cpu["interrupts_by_cause"] == {"timer": 3}


@pytest.mark.parametrize("pid", [1, 2, 4242])
def test_whoever_takes_a_cpu_from_its_task_is_counted_whatever_its_number(tmp_path: Path, pid: int):
    text = switch(1.0, "app-7", "R", f"other-{pid}") + switch(1.002, f"other-{pid}", "S", "app-7")
    cpu, _ = explained(tmp_path, text)

    taken = {cause: (row["n"], row["total_ms"]) for cause, row in rows(cpu).items()}
    assert taken == {"other_task": (1, pytest.approx(2.0))}


def test_sums_give_way_to_events_of_any_kind_even_one_of_each(tmp_path: Path):
    """A table counts a thousand interrupts; a tick and a noise that were recorded beside it are all that is told."""
    table = (
        "# tracer: osnoise\n#\n"
        "#  TASK-PID  CPU# ||||  TIMESTAMP  IN US  IN US  AVAILABLE  IN US  HW  NMI  IRQ  SIRQ THREAD\n"
        "           <...>-859  [002] ....  81.637220: 1000000  190  99.98100  9  18  0  1007  18  1\n"
    )
    noise = line(81.0, "thread_noise: kworker/2:1:99 start 80.999990000 duration 10000 ns")
    alone, _ = explained(tmp_path, table)
    beside, _ = explained(tmp_path, table + noise + irq(81.1, "local_timer", 5))

    assert (alone["interrupts"], beside["interrupts"]) == (1007, 1)
