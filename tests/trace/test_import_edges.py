"""Lines at the edge of what an importer takes: brackets without room, nothing in them, and where a bad line is bad."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_trace_kinds import lttng

import tlbcore as tc


def softirqs(*numbers: int) -> str:
    """Return soft interrupts of CPU 3, a second apart, of 30 us each."""
    return lttng(
        *((3, 1.0 + n, "irq_softirq_entry", f"vec = {number}") for n, number in enumerate(numbers)),
        *((3, 1.00003 + n, "irq_softirq_exit", f"vec = {number}") for n, number in enumerate(numbers)),
    )


def in_order(text: str) -> str:
    return "".join(sorted(text.splitlines(keepends=True)))


@pytest.mark.parametrize("room", [True, False])
def test_lttng_s_braces_need_no_room_inside(tmp_path: Path, room: bool):
    """The first field is found in both spellings: NET_RX twice (number 3), RCU once (9)."""
    text = in_order(softirqs(3, 9, 3))
    if not room:
        text = text.replace("{ vec", "{vec").replace(" }\n", "}\n")
    path = tmp_path / "lttng.txt"
    path.write_text(text)
    trace = tc.read_trace(path, isolated="3")
    (cpu,) = trace.figures["report"]["isolated"]

    assert trace.figures["broken_lines"] == 0
    (softirq,) = cpu["interference"]
    assert {row["name"]: (row["n"], row["total_ms"]) for row in softirq["by"]} == {
        "NET_RX": (2, pytest.approx(0.06)),
        "RCU": (1, pytest.approx(0.03)),
    }


@pytest.mark.parametrize("fields", ["{ }", "{}"])
def test_lttng_s_event_without_fields_is_one(tmp_path: Path, fields: str):
    path = tmp_path / "lttng.txt"
    bare = f"[00:00:02.000000000] (+0.000001000) node-7 local_event: {{ cpu_id = 3 }}, {fields}\n"
    path.write_text(in_order(softirqs(3)) + bare)
    trace = tc.read_trace(path, isolated="3")

    assert (trace.figures["broken_lines"], trace.figures["events_read"]) == (0, 3)


@pytest.mark.parametrize(
    ("bad", "column", "why"),
    [
        ("nothing of a task", 1, "expected `task pid [cpu] time: event:`"),
        ("  [x] 1.000000: irq_vectors:nmi:", 1, "expected `task pid [cpu] time: event:`"),
        ("app 700 [8192] 1.000000: irq_vectors:nmi:", 10, "CPU number is beyond 8191"),
        ("app 4294967296 [003] 1.000000: irq_vectors:nmi:", 5, "task id does not fit 32 bits"),
        ("app 700 [003] yes", 15, "expected a time stamp"),
        ("app 700 [003] 1.0000000000: irq_vectors:nmi:", 27, "expected `:` behind the time stamp"),
    ],
)
def test_perf_s_bad_line_is_named_with_its_column(tmp_path: Path, bad: str, column: int, why: str):
    good = "".join(
        f"app 700 [003] {100 + n}.00000{e}: irq_vectors:local_timer_{edge}: vector=236\n"
        for n in range(5)
        for e, edge in enumerate(("entry", "exit"))
    )
    path = tmp_path / "perf.txt"
    path.write_text(good + bad + "\n" + good.replace("100", "200"))
    (broken,) = tc.read_trace(path, isolated="3").figures["broken_first"]

    assert (broken["line"], broken["column"], broken["why"]) == (11, column, why)
