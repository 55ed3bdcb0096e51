"""Figures of a recording of a few lines, with their values worked out: bursts, gaps, windows, what is not said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_trace_kinds import irq, line

import tlbcore as tc


def report(path: Path, *lines: str, isolated: str = "2", **options: Any) -> dict[str, Any]:
    path.joinpath("trace.txt").write_text("".join(lines))
    return tc.read_trace(path / "trace.txt", isolated=isolated, **options).figures["report"]


def ticks(*at: float) -> str:
    return (
        line(1.0, "user_enter: ") + "".join(irq(s, "local_timer", 4) for s in at) + line(5.0, "user_exit: ")
    )


@pytest.mark.parametrize(
    ("at", "bursts", "largest", "largest_at_s"),
    [
        ((2.0, 2.005, 2.010), 1, 3, 2.0),
        ((2.0, 2.005), 0, 0, 0.0),
        ((2.0, 2.02, 2.04, 2.06), 0, 0, 0.0),
        ((2.0, 2.009999, 2.019998), 1, 3, 2.0),
        ((2.0, 2.01, 2.02), 0, 0, 0.0),
        ((2.0, 2.005, 2.010, 3.0, 4.0, 4.009, 4.018, 4.0279), 2, 4, 4.0),
    ],
)
def test_a_burst_is_three_within_ten_milliseconds_of_each_other(
    at: tuple[float, ...], bursts: int, largest: int, largest_at_s: float, tmp_path: Path
) -> None:
    found = report(tmp_path, ticks(*at))["isolated"][0]["bursts"]
    assert (found["n"], found["largest"], found["largest_at_s"]) == (bursts, largest, largest_at_s)


def test_a_gap_lasts_from_one_interrupts_end_to_the_next_ones_begin(tmp_path: Path) -> None:
    gaps = report(tmp_path, ticks(2.0, 2.5, 3.5, 3.75))["isolated"][0]["gaps"]
    assert gaps["n"] == 3
    assert gaps["longest_s"] == pytest.approx(1 - 4e-6, abs=1e-9)
    assert gaps["longest_from_s"] == pytest.approx(2.5 + 4e-6, abs=1e-9)


def test_a_window_is_named_by_its_first_and_last_marker(tmp_path: Path) -> None:
    """Two windows: of 1.6 s with an interrupt, and of 1 s with another."""
    found = report(
        tmp_path,
        line(0.9, "tracing_mark_write: A1 first", cpu=0),
        line(1.0, "user_enter: "),
        irq(2.0, "local_timer", 4),
        line(2.5, "tracing_mark_write: B1 end", cpu=0),
        irq(2.7, "local_timer", 4),
        line(3.0, "tracing_mark_write: A2 again", cpu=0),
        irq(3.5, "local_timer", 4),
        line(4.0, "tracing_mark_write: B2 last", cpu=0),
        irq(4.5, "local_timer", 4),
        between=("A", "B"),
    )
    assert found["window"] == ["A1 first", "B2 last"]
    assert found["isolated"][0]["interrupts"] == 2
    assert found["seconds"] == pytest.approx(2.6)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("", True),
        ("softirq_entry: vec=1 [action=TIMER]", False),
        ("irq_noise: local_timer:236 start 2.000000001 duration 4000 ns", False),
        ("irq_noise: twice", False),
    ],
)
def test_soft_interrupts_are_unknown_where_nothing_tells_of_them(
    event: str, said: bool, tmp_path: Path
) -> None:
    more = (
        line(2.5, event.replace("twice", "local_timer:236 start 2.000000001 duration 4000 ns"))
        if event
        else ""
    )
    more *= 2 if "twice" in event else 1
    asked = [row["question"] for row in report(tmp_path, ticks(2.0), more)["cannot_say"]]
    assert ("whether soft interrupts took time" in asked) == said


@pytest.mark.parametrize(
    "text",
    [
        "12:34:56 up 3 days",
        "a b 12:34:56.5 c\n",
        "1:2:3.4 x",
        "[ab:cd:ef.gh] (+0.1) host x: { }",
        "45:67 8.9: x",
    ],
)
def test_a_clock_alone_makes_no_recording_of_another_tool(text: str, tmp_path: Path) -> None:
    path = tmp_path / "prose.txt"
    path.write_text(text + "\n")
    with pytest.raises(tc.TraceError) as error:
        tc.read_trace(path, isolated="2")
    for tool in ("babeltrace", "LTTng", "perf"):
        assert f"looks like {tool}" not in str(error.value)
    assert "is a trace event" in str(error.value)
