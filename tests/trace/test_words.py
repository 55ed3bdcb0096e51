"""What every report of a recording begins with, and the one of `tlbcore replay`, sentence by sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlbcore._output import width
from tlbcore.trace.report import words

REPORT = {
    "window": None, "architecture": "x86_64", "recordings": 1, "overwritten": 0, "cpus_seen": [0, 2], "backwards": 0,
    "one_cpu_each": False,
    "snapshots": 0, "elapsed_s": 3.5, "calls_not_kept": 0,
}  # fmt: skip
FIGURES = {
    "lines": 31, "bytes": 4711, "machine_cpus": 0, "unknown_events": {}, "broken_lines": 0, "broken_first": [],
    "holes": [], "hole_count": 0,
}  # fmt: skip


def trace(**changes: Any) -> SimpleNamespace:
    """Return 1.5 s of 1,234 events in `r.txt`, CPUs 2 and 3 isolated as given; changes go to where the name is."""
    figures = {name: changes.pop(name, value) for name, value in FIGURES.items()}
    figures["report"] = {name: changes.pop(name, value) for name, value in REPORT.items()}
    figures["report"]["isolated"] = changes.pop("rows", ())
    usual = {
        "path": "r.txt", "seconds": 1.5, "events": 1234, "isolated": (2, 3), "isolated_from": "given", "damage": None,
    }  # fmt: skip
    return SimpleNamespace(figures=figures, **(usual | changes))


ISOLATED = "Isolated CPUs: 2-3 (as given)."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, f"1.5 s and 1,234 events; x86-64. {ISOLATED}"),
        ({"seconds": 0.0, "events": 1}, f"No clock and 1 event; x86-64. {ISOLATED}"),
        ({"seconds": 0.0125, "events": 0}, f"12.5 ms and 0 events; x86-64. {ISOLATED}"),
        ({"architecture": "aarch64"}, f"1.5 s and 1,234 events; arm64. {ISOLATED}"),
        ({"architecture": "riscv64"}, f"1.5 s and 1,234 events; RISC-V. {ISOLATED}"),
        ({"architecture": None}, f"1.5 s and 1,234 events. {ISOLATED}"),
        (
            {"window": ["A one", "B"], "machine_cpus": 1},
            f"1.5 s and 1,234 events between markers 'A one' and 'B'; machine of 1 CPU; x86-64. {ISOLATED}",
        ),
        (
            {"recordings": 2},
            "1.5 s and 1,234 events; x86-64. The text holds 2 recordings one behind the other (time stamps begin anew, "
            "or a second header stands in it): their times are added, and nothing is carried from one to the next. "
            f"{ISOLATED}",
        ),
        (
            {"recordings": 2, "one_cpu_each": True},
            "1.5 s and 1,234 events; x86-64. The text holds 2 recordings one behind the other (time stamps begin anew, "
            "or a second header stands in it): their times are added, and nothing is carried from one to the next. "
            "Each is of one CPU: per-CPU files of one recording are read as one where they are given apart, with "
            f"--merge. {ISOLATED}",
        ),
        (
            {"overwritten": True},
            "1.5 s and 1,234 events; x86-64. Rings were overwritten: the window of each CPU begins with the first "
            f"event that is left of it. {ISOLATED}",
        ),
        (
            {"snapshots": 1200, "elapsed_s": 3600.0},
            "1.5 s and 1,234 events; x86-64. A flight recorder's: 1,200 snapshots hold 1.5 s of 3,600 s. Rates are "
            "those of the seconds that were kept, which are the interrupted ones; for the whole time see the kernel's "
            f"own counts below. {ISOLATED}",
        ),
        (
            {"isolated_from": "recorded"},
            "1.5 s and 1,234 events; x86-64. Isolated CPUs: 2-3 (as the recorder noted).",
        ),
        (
            {"isolated_from": "context_tracking", "isolated": (5,)},
            "1.5 s and 1,234 events; x86-64. Isolated CPUs: 5 (deduced: they have user_enter/user_exit events, which "
            "only nohz_full CPUs have).",
        ),
        (
            {"isolated_from": "only_cpu", "isolated": (0,)},
            "1.5 s and 1,234 events; x86-64. Isolated CPUs: 0 (deduced: no other CPU was recorded).",
        ),
        (
            {"isolated_from": "none", "isolated": ()},
            "1.5 s and 1,234 events; x86-64. Isolated CPUs: none (not known).",
        ),
        (
            {"hole_count": 3, "holes": [
                {"kind": "lost", "line": 17, "events": 1500}, {"kind": "gap", "line": 20, "events": None},
                {"kind": "lost", "line": 21, "events": 34},
            ]},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} The trace has holes: gap 1x, lost 2x, first at r.txt:17; "
            "1,534 events are known to be lost. Counts are lower limits.",
        ),
        (
            {"hole_count": 1, "holes": [{"kind": "lost", "line": 20, "events": 1}], "machine_cpus": 8},
            f"1.5 s and 1,234 events; machine of 8 CPUs; x86-64. {ISOLATED} The trace has holes: lost 1x, first at "
            "r.txt:20; 1 event is known to be lost. Counts are lower limits.",
        ),
        (
            {"snapshots": 1},
            "1.5 s and 1,234 events; x86-64. A flight recorder's: 1 snapshot holds 1.5 s of 3.5 s. Rates are those of "
            "the seconds that were kept, which are the interrupted ones; for the whole time see the kernel's own "
            f"counts below. {ISOLATED}",
        ),
        (
            {"hole_count": 1, "holes": [{"kind": "gap", "line": 20, "events": None}]},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} The trace has holes: gap 1x, first at r.txt:20. Counts are "
            "lower limits.",
        ),
        (
            {"hole_count": 2345, "holes": [{"kind": "lost", "line": i, "events": 2} for i in range(7, 1007)]},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} The trace has 2,345 holes. Of the first 1,000: lost 1000x, "
            "first at r.txt:7; 2,000 events are known to be lost. Counts are lower limits.",
        ),
        (
            {"broken_lines": 1, "broken_first": [{"line": 4, "column": 9, "why": "no time", "text": "ab"}]},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} 1 line could not be read and is not counted: r.txt:4:9: no "
            "time: 'ab'",
        ),
        (
            {"broken_lines": 4, "broken_first": [
                {"line": at, "column": 1, "why": "cut", "text": "x"} for at in (4, 5, 6, 7)
            ]},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} 4 lines could not be read and are not counted: r.txt:4:1: "
            "cut: 'x' r.txt:5:1: cut: 'x' r.txt:6:1: cut: 'x'",
        ),
        (
            {"unknown_events": {f"e{i}": 1000 * i for i in range(8)}},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} Events that say nothing about interference: e0 0, e1 1,000, "
            "e2 2,000, e3 3,000, e4 4,000, e5 5,000, e6 6,000, e7 7,000.",
        ),
        (
            {"unknown_events": {f"e{i}": i for i in range(17)}},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} Events that say nothing about interference: e0 0, e1 1, e2 2, "
            "e3 3, e4 4, e5 5, e6 6, e7 7 and 9 more.",
        ),
        (
            {"backwards": 1},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} Time stamps step back once: the trace clock does not agree "
            "between CPUs.",
        ),
        (
            {"backwards": 2000},
            f"1.5 s and 1,234 events; x86-64. {ISOLATED} Time stamps step back 2,000 times: the trace clock does not "
            "agree between CPUs.",
        ),
    ],
)  # fmt: skip
def test_a_report_begins_with_what_was_read_and_what_is_missing(changes: dict[str, Any], said: str) -> None:
    first, *lines = words.opening(trace(**changes))  # type: ignore[arg-type]
    assert first == "r.txt"
    assert " ".join(" ".join(lines).split()) == said
    assert all(line.startswith("  ") for line in lines)


def test_broken_lines_stand_below_their_number() -> None:
    broken = {"line": 4, "column": 9, "why": "no time stamp", "text": "x " * 30}
    with width.fitted(50):
        lines = words.opening(trace(broken_lines=2, broken_first=[broken]))  # type: ignore[arg-type]
    assert lines[3:6] == [
        "  2 lines could not be read and are not counted:",
        "    r.txt:4:9: no time stamp: 'x x x x x x x x x x",
        "      x x x x x x x x x x x x x x x x x x x x '",
    ]


def test_the_head_of_the_json_has_each_figure_under_its_name() -> None:
    shown = {
        "window": ["A", "B"], "architecture": "aarch64", "recordings": 2, "overwritten": True, "cpus_seen": [0, 4],
        "snapshots": 6, "elapsed_s": 7.5, "calls_not_kept": 8, "machine_cpus": 9, "unknown_events": {"e": 10},
        "broken_lines": 11, "broken_first": [{"line": 12}], "lines": 31, "bytes": 4711, "one_cpu_each": "each",
    }  # fmt: skip
    holes = {"holes": [{"kind": "gap"}], "hole_count": 14}
    found = words.header_json(trace(**shown, **holes, backwards=13, damage="cut"))  # type: ignore[arg-type]
    about = {"path": "r.txt", "seconds": 1.5, "events": 1234, "damage": "cut", "timestamps_backwards": 13}
    isolated = {"isolated_cpus": [2, 3], "isolated_from": "given"}
    assert found == {"trace": {**shown, **about, **isolated}, **holes}


def test_coverage_is_what_was_recorded_of_what_the_kernel_counted_and_never_more_than_all() -> None:
    rows = [
        {"cpu": 2, "row": "LOC", "counted": 2000, "traced": 1500},
        {"cpu": 13, "row": "CAL", "counted": 4, "traced": 5},
        {"cpu": 3, "row": "RES", "counted": 0, "traced": 7},
    ]
    assert words.coverage_text(rows).split("\n") == [
        "Coverage against /proc/interrupts (measured; the snapshots may lie a little outside)",
        "  CPU  row  kernel  trace  covered",
        "    2  LOC   2,000  1,500  75%",
        "   13  CAL       4      5  100%",
        "    3  RES       0      7  -",
    ]


def test_columns_stand_in_groups_as_their_widths_say() -> None:
    rows = [["k", "a" * 12, "b" * 12, "c" * 12], ["key", "1", "2", "3"]]
    with width.fitted(43):
        assert words.columns(rows, "<>>>") == [
            f"  k    {'a' * 12}  {'b' * 12}",
            f"  key  {'1':>12}  {'2':>12}",
            f"  k    {'c' * 12}",
            "  key  3",
        ]
        assert words.columns([["k", "b" * 12, "c" * 12, "word " * 8]], "<<<<", indent="") == [
            f"k  {'b' * 12}  {'c' * 12}",
            "      word word word word word word word",
            "      word",
        ]
    with width.fitted(45):
        assert words.columns(rows, "<<>>", indent="") == [
            f"k    {'a' * 12}  {'b' * 12}  {'c' * 12}",
            f"key  {'1':<12}  {'2':>12}  3",
        ]
    # 2 + 6 of the key, then 2 + 14 and 2 + 15: 41, so the last stands in a group of its own if there are 40.
    of_six = [["policy", "a" * 14, "b" * 15, "c"]]
    with width.fitted(40):
        assert words.columns(of_six, "<<<<") == [f"  policy  {'a' * 14}", f"  policy  {'b' * 15}  c"]
    assert words.columns([["k\x1b", ""]], "<<") == ["  k\\x1b"]


def interval(low: float, high: float | None = None) -> dict[str, float]:
    return {"low": low, "high": low if high is None else high}


ZERO = interval(0)
NOTHING = {
    "deferred": ZERO,
    "remaining": ZERO,
    "entry_flushes": ZERO,
    "exposure_s": ZERO,
    "exposure_longest_s": ZERO,
}


def outcome(policy: str, **changes: Any) -> dict[str, Any]:
    usual = {
        "policy": policy, "title": f"the title of {policy}", "needs": "", "deferred": ZERO, "remaining": interval(6),
        "interrupts": interval(6), "cpus": [], "deferred_by_class": {}, "remaining_by_class": {}, "wait_ms": None,
        "more_calls": ZERO, "not_modelled": [],
    }  # fmt: skip
    return usual | changes


def isolated(cpu: int, **changes: Any) -> dict[str, Any]:
    baseline = {
        "derived_ipis": {}, "recorded_ipis": {}, "unexplained": 0, "unexplained_first": [], "executions_equal": True,
    }  # fmt: skip
    return {"cpu": cpu, "baseline": baseline | changes}


MORE = outcome(
    "other", needs="a CPU", deferred=interval(3, 4), remaining=interval(1500), interrupts=interval(2, 3),
    deferred_by_class={"purge": interval(1, 2), "alias": interval(2)}, remaining_by_class={"user": interval(1500)},
    wait_ms=interval(0.12345, 2.5), more_calls=interval(0, 7), not_modelled=["how long", "how often"],
    inert="no such CPU",
    cpus=[
        {
            "cpu": 2, **NOTHING, "deferred": interval(3), "remaining": interval(1000), "entry_flushes": interval(5, 8),
            "exposure_s": interval(0.5, 0.75), "exposure_longest_s": interval(0.25, 0.5),
        },
        {
            "cpu": 13, **NOTHING, "deferred": interval(0, 1), "remaining": interval(500),
            "exposure_longest_s": interval(0.125, 0.125),
        },
    ],
)  # fmt: skip
SAME = outcome(
    "ipi", cpus=[{"cpu": 2, **NOTHING, "remaining": interval(4)}, {"cpu": 13, **NOTHING, "remaining": interval(2)}]
)  # fmt: skip
TITLE = "Under other policies (predicted; sums over 2 isolated CPUs)"


def test_a_replay_says_what_is_left_under_each_policy_and_on_each_cpu() -> None:
    made = trace(rows=[isolated(2), isolated(13)])
    lines = words.replay_text(made, [SAME, MORE], {}).split("\n")
    assert lines[0] == "r.txt"
    assert lines[3:] == [
        "  The replayed baseline executes exactly the calls of the trace, per CPU and function.",
        "",
        TITLE,
        "  policy  deferred  calls left  interrupts left   longest pending  needs",
        "  ipi            0           6                6                 -  nothing",
        "  other     3 to 4       1,500           2 to 3  250 ms to 500 ms  a CPU",
        "",
        "Per isolated CPU (predicted)",
        "  policy  CPU  deferred   left  entry flushes           pending  longest pending",
        "  ipi       2         0      4              0               0 s  0 s",
        "  ipi      13         0      2              0               0 s  0 s",
        "  other     2         3  1,000         5 to 8  500 ms to 750 ms  250 ms to 500 ms",
        "  other    13    0 to 1    500              0               0 s  125 ms",
        "  other (the title of other) defers purge 1 to 2, alias 2; leaves user 1,500.",
        "  other is inert: no such CPU; its figures are mainline's.",
        "  other: senders wait for isolated CPUs, and their code takes, 0.123 to 2.5 ms.",
        "  other calls isolated CPUs 0 to 7 times where the recording has no call.",
        "  other, not modelled: how long.",
        "  other, not modelled: how often.",
        "  Intervals: the trace leaves open what the CPU was doing when the call was queued, or who asked for",
        "  it.",
    ]


def test_with_a_machine_a_replay_has_a_column_of_costs() -> None:
    made = trace(rows=[isolated(2), isolated(13)])
    costs = {
        "entry_cost_ms_low": np.array([0.0, 0.0, 0.12345, 3.0]),
        "entry_cost_ms_high": np.array([0.0, 0.0, 0.2, 3.0]),
    }
    lines = words.replay_text(made, [SAME, MORE], costs).split("\n")
    at = lines.index("Per isolated CPU (predicted)")
    assert lines[at + 1 : at + 6] == [
        "  policy  CPU  deferred   left  entry flushes           pending   longest pending  entry cost ms",
        "  ipi       2         0      4              0               0 s               0 s  0",
        "  ipi      13         0      2              0               0 s               0 s  0",
        "  other     2         3  1,000         5 to 8  500 ms to 750 ms  250 ms to 500 ms  0.123 to 0.2",
        "  other    13    0 to 1    500              0               0 s            125 ms  3",
    ]


def test_what_defers_nothing_has_no_table_of_policies_and_no_interval() -> None:
    text = words.replay_text(trace(rows=[isolated(2)]), [SAME], {})
    assert "Under other policies" not in text
    assert "Intervals:" not in text
    assert "defers" not in text
    sure = outcome("sure", deferred=interval(3), deferred_by_class={"purge": interval(3)}, cpus=MORE["cpus"])
    text = " ".join(words.replay_text(trace(rows=[isolated(2)]), [sure], {}).split())
    assert "sure (the title of sure) defers purge 3; leaves nothing." in text
    assert "sums over 1 isolated CPU)" in text
    assert "Intervals:" not in text
    known = trace()
    assert words.replay_text(known, [], {}) == "\n".join(words.opening(known))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (interval(1), "p calls isolated CPUs once where the recording has no call."),
        (interval(2), "p calls isolated CPUs 2 times where the recording has no call."),
        (interval(0, 1), "p calls isolated CPUs 0 to 1 times where the recording has no call."),
        (interval(0), ""),
    ],
)
def test_how_often_a_policy_calls_where_the_recording_does_not(more: dict[str, float], said: str) -> None:
    assert " ".join(words._said_of(outcome("p", more_calls=more))).strip() == said


def test_the_wrapped_lines_about_a_policy_stand_further_in() -> None:
    text = outcome("other", not_modelled=["how long it takes until somebody looks"])
    with width.fitted(40):
        assert words._said_of(text) == [
            "  other, not modelled: how long it takes",
            "    until somebody looks.",
        ]
        lines = words.replay_text(trace(rows=[isolated(2)]), [MORE], {}).split("\n")
    assert "  other (the title of other) defers" in lines
    assert (
        lines[lines.index("  other (the title of other) defers") + 1]
        == "    purge 1 to 2, alias 2; leaves user"
    )


SENT = {"recorded_ipis": {"a": 1000, "b": 234}}
FIRST = [{"line": 7, "function": "f"}, {"line": 8, "function": "g"}]


@pytest.mark.parametrize(
    ("cpus", "said"),
    [
        ([SENT, {}], "Call-queue order explains all 1,234 call interrupts sent to them."),
        ([SENT, SENT], "Call-queue order explains all 2,468 call interrupts sent to them."),
        ([{}, {}], ""),
        ([SENT, {"derived_ipis": None}], ""),
        (
            [SENT, {"unexplained": 2, "unexplained_first": FIRST}],
            "Call-queue order explains 1,234 call interrupts but for 2 unexplained, first at r.txt:7 (f).",
        ),
        (
            [SENT | {"unexplained": 1, "unexplained_first": FIRST[1:]}, {"unexplained": 2, "unexplained_first": FIRST}],
            "Call-queue order explains 1,234 call interrupts but for 3 unexplained, first at r.txt:8 (g).",
        ),
        (
            [{"unexplained": 1, "unexplained_first": FIRST}],
            "Call-queue order explains 0 call interrupts but for 1 unexplained, first at r.txt:7 (f).",
        ),
    ],
)  # fmt: skip
def test_how_much_the_order_of_the_queue_explains(cpus: list[dict[str, Any]], said: str) -> None:
    there = [isolated(2 + i, **changes) for i, changes in enumerate(cpus)]
    lines = words._baseline(there, trace())  # type: ignore[arg-type]
    assert " ".join(" ".join(lines).split()) == said


def test_one_cpu_that_ran_other_calls_is_told() -> None:
    made = trace(rows=[isolated(2), isolated(3, executions_equal=False)])
    assert words.replay_text(made, [], {}).split("\n")[3] == (
        "  The replayed baseline executes other calls than the trace."
    )
