"""What is kept of what was heard before a call, calls told apart by their data, and modes that are sure."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_trace_kinds import call, explained, irq, line

import tlbcore as tc


def entered(us: int, function: str, pid: int) -> str:
    """Return a line of the function tracer on CPU 0."""
    return line(1.0 + us / 1e6, f"{function} <-caller", cpu=0, task=f"x-{pid}", flags=".....")


@pytest.mark.parametrize(("others", "cause"), [(63, "text_sync"), (64, "call_sender_only")])
def test_what_was_asked_for_is_kept_of_the_last_64_who_ask(tmp_path: Path, others: int, cause: str):
    """x-9 asks for a patch and calls within a millisecond; so many others have asked in between."""
    text = entered(0, "text_poke_bp", 9)
    text += "".join(entered(1 + i, "text_poke_bp", 100 + i) for i in range(others))
    text += entered(100, "on_each_cpu", 9) + irq(1.00011, "call_function", 5)

    assert explained(tmp_path, text)[0]["interrupts_by_cause"] == {cause: 1}


def test_one_event_of_a_queue_ends_guessing_by_functions(tmp_path: Path):
    """Where calls show when they are queued, an interrupt that finds none is empty, whoever was heard before it."""
    guess = entered(0, "on_each_cpu", 9) + irq(1.00001, "call_function", 5)
    elsewhere = "csd_queue_cpu: cpu=1 callsite=x+0x1/0x2 func=ipi_mb csd=00000000aa"
    known = line(0.9, elsewhere, cpu=0, task="x-9")

    assert explained(tmp_path, guess)[0]["interrupts_by_cause"] == {"call_sender_only": 1}
    assert explained(tmp_path, known + guess)[0]["interrupts_by_cause"] == {"call_empty": 1}


@pytest.mark.parametrize("data", [1, 2, 0xAA])
def test_a_call_is_found_by_its_data_whatever_its_number(tmp_path: Path, data: int):
    path = tmp_path / "trace.txt"
    path.write_text(call("ipi_mb", "x").replace("csd=00000000aa", f"csd={data:010x}"))
    calls = tc.read_trace(path, isolated="2").calls

    assert calls["function"].tolist() == ["ipi_mb"]
    assert (calls["sender_cpu"].tolist(), calls["queued_s"].tolist()) == ([0], [1.0])
    assert calls["ran_s"].tolist() == pytest.approx([1.00002])


@pytest.mark.parametrize(
    ("exit_us", "sure"),
    [(1, False), (2, False), (3, True)],
)
def test_a_mode_is_sure_if_it_did_not_change_within_two_microseconds(
    tmp_path: Path, exit_us: int, sure: bool
):
    """The CPU entered user mode a second before the call was queued, and left it so much behind that."""
    text = line(0.0, "user_enter: ", flags=".....")
    queued, ran = call("ipi_mb", "x").split("\n", 1)
    text += queued + "\n" + line(1.0 + exit_us / 1e6, "user_exit: ", flags=".....") + ran
    path = tmp_path / "trace.txt"
    path.write_text(text)
    calls = tc.read_trace(path, isolated="2").calls

    assert calls["mode"].tolist() == ["user"]
    assert calls["mode_sure"].tolist() == [sure]


def test_a_mode_that_changed_just_before_is_not_sure(tmp_path: Path):
    path = tmp_path / "trace.txt"
    path.write_text(line(0.999998, "user_enter: ", flags=".....") + call("ipi_mb", "x"))
    assert tc.read_trace(path, isolated="2").calls["mode_sure"].tolist() == [False]
    path.write_text(line(0.999997, "user_enter: ", flags=".....") + call("ipi_mb", "x"))
    assert tc.read_trace(path, isolated="2").calls["mode_sure"].tolist() == [True]


@pytest.mark.parametrize("runs_it", [False, True])
@pytest.mark.parametrize("higher", [False, True])
def test_a_flush_is_queued_by_its_probe_for_no_cpu_that_has_recorded_nothing(
    tmp_path: Path, higher: bool, runs_it: bool
):
    """CPU 2 has no event before the flush of all CPUs; whether CPU 3 has one says nothing of CPU 2."""
    text = line(0.5, "sched_wakeup: comm=y pid=7 prio=120 target_cpu=003", cpu=3) if higher else ""
    text += line(1.0, "flush_tlb_all: (flush_tlb_all+0x0/0x30)", cpu=0, task="x-9", flags=".....")
    ran = line(1.000021, "do_flush_tlb_all: (do_flush_tlb_all+0x0/0x30)") if runs_it else ""
    text += line(1.00002, "call_function_entry: vector=251") + ran
    text += line(1.00003, "call_function_exit: vector=251")
    path = tmp_path / "trace.txt"
    path.write_text(text)
    calls = tc.read_trace(path, isolated="2").calls

    expected = (["do_flush_tlb_all"], [0], [1.0]) if runs_it else ([], [], [])
    assert tuple(calls[of].tolist() for of in ("function", "sender_cpu", "queued_s")) == expected
