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


def test_the_place_of_a_call_names_it_only_where_its_function_does_not(tmp_path: Path):
    """Queued from where the clock is set; a membarrier stays one, a function nobody knows takes the place's name."""

    def causes(func: str) -> list[str]:
        queued = f"csd_queue_cpu: cpu=2 callsite=clock_was_set+0x1/0x2 func={func} csd=aa"
        path = tmp_path / "trace.txt"
        path.write_text(
            line(1.0, queued, cpu=0, task="x-9")
            + line(1.00001, "call_function_entry: vector=251")
            + line(1.00002, RUN.format("entry", func, "aa"))
            + line(1.00003, "call_function_exit: vector=251")
        )
        return tc.read_trace(path, isolated="2").calls["cause"].tolist()

    assert causes("ipi_mb") == ["membarrier"]
    assert causes("some_driver_call") == ["clock_set"]


def test_calls_outside_of_the_markers_are_not_counted(tmp_path: Path):
    def call(at: float, func: str) -> str:
        return (
            line(at, QUEUE.format("aa").replace("ipi_mb", func), cpu=0, task="x-9")
            + line(at + 1e-5, "call_function_entry: vector=251")
            + line(at + 2e-5, RUN.format("entry", func, "aa"))
            + line(at + 3e-5, RUN.format("exit", func, "aa"))
            + line(at + 4e-5, "call_function_exit: vector=251")
        )

    mark = line(2.0, "tracing_mark_write: BEGIN", cpu=0, task="sh-3")
    path = tmp_path / "trace.txt"
    end = mark.replace("BEGIN", "END").replace("2.000000", "4.000000")
    path.write_text(call(1.0, "ipi_mb") + mark + call(3.0, "do_sync_core") + end + call(5.0, "ipi_mb"))
    (cpu,) = tc.read_trace(path, isolated="2", between=("BEGIN", "END")).figures["report"]["isolated"]

    assert cpu["calls_by_function"] == {"do_sync_core": 1}


def test_an_entry_into_the_kernel_inside_an_interrupt_does_not_end_it(tmp_path: Path):
    text = line(0.5, "user_enter: ", flags=".....") + line(1.0, "local_timer_entry: vector=236")
    text += line(1.000002, "user_exit: ") + line(1.00001, "local_timer_exit: vector=236")
    cpu, _ = explained(tmp_path, text)

    assert rows(cpu)["timer"]["max_us"] == 10


def test_of_two_quiet_times_as_long_the_first_is_named(tmp_path: Path):
    cpu, _ = explained(tmp_path, "".join(irq(at, "local_timer", 10) for at in (1.0, 2.0, 3.0)))

    assert cpu["gaps"]["longest_from_s"] == pytest.approx(1.00001)


def test_notes_say_who_is_isolated_for_raw_lines_too(tmp_path: Path):
    path = tmp_path / "trace.txt"
    path.write_text(
        "# tlbcore isolated | 2\n" + irq(1.0, "local_timer", 3, cpu=1) + irq(2.0, "local_timer", 3)
    )
    shown = tlbcore("explain", str(path), "--lines", "timer").stdout

    assert [place.count("[002]") for place in shown.splitlines()] == [1]


def test_a_comment_of_perf_is_no_event_though_it_reads_like_one(tmp_path: Path):
    path = tmp_path / "perf.txt"
    event = "app     7 [002]     {}: irq_vectors:local_timer_{}: vector=236\n"
    path.write_text(
        "# " + event.format("0.500000", "entry")
        + "".join("    " + event.format(at, edge) for at, edge in (("1.000000", "entry"), ("1.000004", "exit")))
        + "# " + event.format("1.500000", "entry")
    )  # fmt: skip
    (cpu,) = tc.read_trace(path, isolated="2").figures["report"]["isolated"]

    assert (cpu["interrupts"], cpu["events"]) == (1, 2)


@pytest.mark.parametrize("name", ['a\\"} b', "a\\\\"])
def test_quotes_in_the_name_of_an_lttng_task(tmp_path: Path, name: str):
    path = tmp_path / "lttng.txt"
    stamp = "[00:00:0{}.000000000] (+0.000001000) node-7 x86_irq_vectors_local_timer_{}: "
    tail = f'{{ cpu_id = 2 }}, {{ tid = 7, procname = "{name}" }}, {{ vector = 236 }}\n'
    path.write_text("".join(stamp.format(n, edge) + tail for n, edge in ((1, "entry"), (2, "exit"))))
    trace = tc.read_trace(path, isolated="2")
    (cpu,) = trace.figures["report"]["isolated"]

    assert trace.figures["broken_lines"] == 0
    assert rows(cpu)["timer"]["max_us"] == 1e6
