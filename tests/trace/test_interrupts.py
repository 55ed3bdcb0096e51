"""Copies of /proc/interrupts: what is read, what two of them say, and what a recording missed of it, by hand."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tlbcore as tc
from tlbcore.cli import main
from tlbcore.trace import interrupts as module
from tlbcore.trace.interrupts import coverage, difference, interrupts, read_interrupts, snapshot_text
from tlbcore.trace.stolen import stolen_ms

BEFORE = """\
            CPU0       CPU2
   7:         10         20   IO-APIC  7-edge  parport
 NMI:          1          1   Non-maskable interrupts
 PMI:          1          1   Performance monitoring interrupts
 CAL:        100        200   Function call interrupts
 TLB:         10         20   TLB shootdowns
 RES:          5          5   Rescheduling interrupts
 LOC:          5          5   Local timer interrupts
 ERR:          0
 BAD:          0  errors so far
 MIS:          0
"""
AFTER = (
    BEFORE.replace("100        200", "100        207").replace("TLB:         10         20", "TLB: 10 23")
    .replace("RES:          5          5", "RES: 9 5").replace("LOC:          5          5", "LOC: 5 1005")
    .replace("NMI:          1          1", "NMI: 1 3").replace("PMI:          1          1", "PMI: 1 2")
    + " 200:          4          6   virtio\n"
)  # fmt: skip


@pytest.fixture
def both(tmp_path: Path) -> tuple[Any, Any]:
    for name, text in {"before": BEFORE, "after": AFTER}.items():
        (tmp_path / name).write_text(text)
    return read_interrupts(tmp_path / "before"), read_interrupts(tmp_path / "after")


def test_rows_are_read_by_cpu_name_and_those_of_the_machine_are_left_out(both) -> None:
    before, after = both
    assert list(before.counts) == ["7", "NMI", "PMI", "CAL", "TLB", "RES", "LOC"]
    assert before.counts["7"] == {0: 10, 2: 20}
    assert before.names["7"] == "IO-APIC 7-edge parport"
    assert after.counts["200"] == {0: 4, 2: 6}


def test_a_difference_has_the_rows_that_counted(both) -> None:
    assert difference(*both) == {
        "NMI": {0: 0, 2: 2},
        "PMI": {0: 0, 2: 1},
        "CAL": {0: 0, 2: 7},
        "TLB": {0: 0, 2: 3},
        "RES": {0: 4, 2: 0},
        "LOC": {0: 0, 2: 1000},
        "200": {0: 4, 2: 6},  # a device that came later
    }
    assert difference(both[0], both[0]) == {}
    with pytest.raises(tc.TraceError, match=r"before: NMI counts less than in .*after: swapped"):
        difference(both[1], both[0])


def test_an_interrupt_that_stands_in_two_rows_counts_once(both) -> None:
    delta = difference(*both)
    assert interrupts(delta, 2) == 2 + 7 + 1000 + 6
    assert interrupts(delta, 0) == 4 + 4
    assert interrupts({"TLB": {2: 3}}, 2) == 3, "on other architectures TLB stands by itself"


def test_what_a_recording_missed_is_what_the_kernel_counted_beyond_it(both) -> None:
    cpu = {
        "cpu": 2,
        "interrupts_by_vector": {"call_function": 2, "call_function_single": 1, "local_timer": 1003},
    }
    trace: Any = SimpleNamespace(figures={"report": {"isolated": [cpu]}})
    rows = {row["row"]: (row["counted"], row["traced"], row["missing"]) for row in coverage(trace, *both)}
    assert (rows["CAL"], rows["LOC"]) == ((7, 3, 4), (1000, 1003, 0))
    assert "RES" not in rows, "none was counted and none recorded"
    assert set(rows) <= set(module._ROWS)


def test_the_text_lists_most_first_and_says_what_does_not_add(both) -> None:
    text = snapshot_text(*both, [2])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "CPU 2: 1,015 interrupts." in lines
    assert lines[3:] == [
        "1,000 LOC Local timer interrupts",
        "7 CAL Function call interrupts",
        "6 200 virtio",
        "3 TLB TLB shootdowns (within CAL)",
        "2 NMI Non-maskable interrupts",
        "1 PMI Performance monitoring interrupts (within NMI)",
    ]


def test_a_cpu_that_no_row_has_was_not_interrupted(both) -> None:
    assert snapshot_text(*both, [5]).splitlines()[2:] == ["  CPU 5: 0 interrupts."]


STAT = "cpu2 1 2 3 4 5 6 7 {} 9 10"


@pytest.mark.parametrize(
    ("before", "after", "hz", "stolen"),
    [
        (STAT.format(5), STAT.format(17), "100", (120.0, 110.0, 130.0)),
        (STAT.format(5), STAT.format(17), "250", (48.0, 44.0, 52.0)),
        (STAT.format(5), STAT.format(6), "1", (1000.0, 0.0, 2000.0)),
        (STAT.format(5), STAT.format(5), "100", (0.0, 0.0, 10.0)),
        (STAT.format(5), STAT.format(17), "0", (120.0, 110.0, 130.0)),  # no frequency: the usual one
        (STAT.format(5), STAT.format(17), "many", (120.0, 110.0, 130.0)),
        (STAT.format(5), STAT.format(4), "100", None),  # from another boot
        (STAT.format(5), "cpu2 1 2 3 4 5 6 7", "100", None),  # an old kernel's
        ("cpu2 1 2 3 4 5 6 7 5", "cpu2 1 2 3 4 5 6 7 17", "100", (120.0, 110.0, 130.0)),
        (STAT.format(5), STAT.format("-"), "100", None),
        ("cpu 1 2 3 4 5 6 7 5 9", "cpu 1 2 3 4 5 6 7 6 9", "100", None),  # the sum of all
        ("cpu1 1 2 3 4 5 6 7 5 9", STAT.format(17), "100", None),
    ],
)
def test_stolen_time_is_a_difference_in_ticks_good_to_one(
    before: str, after: str, hz: str, stolen: Any
) -> None:
    notes = [("user_hz", hz), ("stat_before", before), ("stat_after", after), ("version", after)]
    assert stolen_ms(notes) == ({} if stolen is None else {2: stolen})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: is no copy of /proc/interrupts: the first line has no CPU names"),
        ("CPU CPUx\n", ":1: is no copy"),
        ("  CPU0\n no colon\n", ":2: expected `name:` and counts: ' no colon'"),
        (f"  CPU0\n CAL: 1\n{'x' * 70}\n", f":3: expected `name:` and counts: '{'x' * 60}'"),
    ],
)
def test_what_is_no_copy_is_refused_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(tc.TraceError) as refused:
        read_interrupts(tmp_path / "file")
    assert said in str(refused.value)


def test_a_recording_has_both_copies_or_none() -> None:
    def recording(*which: str) -> Any:
        notes = [(f"interrupts_{when}", line) for when in which for line in (" CPU0", f" CAL: {len(when)}")]
        return SimpleNamespace(path="f", figures={"notes": [("version", "6.12"), *notes]})

    found = module.noted(recording("before", "after"))
    assert found is not None
    assert [snapshot.counts["CAL"][0] for snapshot in found] == [6, 5]
    assert [snapshot.path for snapshot in found] == ["f (before)", "f (after)"]
    assert module.noted(recording("before")) is None
    assert module.noted(recording("after")) is None


def recorded(path: Path, calls: int, counted: int) -> str:
    """A recording of calls to CPU 2, a second apart and between two texts of `trace_marker`, as `record` notes it."""
    text = "".join(
        f"# tlbcore interrupts_{when} | {line}\n"
        for when, n in (("before", 100), ("after", 100 + counted))
        for line in ("     CPU2", f" CAL: {n}  Function call interrupts")
    )
    rows = [(0.5, "tracing_mark_write: begin"), (1.5, "tracing_mark_write: end")]
    for i in range(1, calls + 1):
        rows += [
            (i, "call_function_single_entry: vector=251"),
            (i + 1e-6, "call_function_single_exit: vector=251"),
        ]
    text += "".join(f"app-7 [002] d.h.. {at:.6f}: {event}\n" for at, event in sorted(rows))
    path.write_text(text)
    return str(path)


def row(counted: int, traced: int) -> dict[str, Any]:
    return {"cpu": 2, "row": "CAL", "counted": counted, "traced": traced, "missing": counted - traced}


def test_each_recording_has_the_coverage_of_its_own_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 of 4 and 2 of 7, in the text, in JSON and in the JSON of the page."""
    both = [recorded(tmp_path / "one", 3, 4), recorded(tmp_path / "two", 2, 7)]
    one = [row(4, 3)]
    page = tmp_path / "page.html"

    def in_page() -> Any:
        _, _, rest = page.read_text().partition('<script type="application/json" id="data">')
        return json.loads(unescape(rest.partition("</script>")[0]))

    words = ["explain", "--isolated", "2", "--html", str(page)]
    assert main([*words, both[0], "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["coverage"] == one
    assert in_page() == printed

    assert main([*words, *both, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [trace["coverage"] for trace in printed["traces"]] == [one, [row(7, 2)]]
    assert "coverage" not in printed
    assert in_page() == printed

    assert main([*words, *both]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in shown if line.startswith("2 CAL")] == ["2 CAL 4 3 75%", "2 CAL 7 2 29%"]


def test_a_part_of_a_recording_has_no_coverage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the kernel counted is of the whole: one of the three calls is between the texts, and none is missing."""
    words = ["explain", recorded(tmp_path / "one", 3, 3), "--isolated", "2"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["coverage"] == [row(3, 3)]
    assert main([*words, "--between", "begin", "end", "--json"]) == 0
    part = json.loads(capsys.readouterr().out)
    assert "coverage" not in part
    assert part["isolated"][0]["interrupts"] == 1
    assert main([*words, "--between", "begin", "end"]) == 0
    assert "Coverage" not in capsys.readouterr().out
