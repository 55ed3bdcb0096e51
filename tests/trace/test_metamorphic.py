"""What must stay the same, add up or change places when a recording is cut, shifted, or its CPUs are renamed."""

from __future__ import annotations

import lzma
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tlbcore as tc

DATA = Path(__file__).parents[1] / "data"
NAME = "p4.w7.trace.txt.xz"
LINE = re.compile(r"^(.{22,}? \[)(\d{3})(\] \S+ +)(\d+\.\d{6})(: .*)$", re.DOTALL)
COUNTS = ("interrupts", "entries")
TABLES = ("interrupts_by_cause", "interrupts_by_vector", "calls_by_function")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return lzma.open(DATA / NAME, "rt").read().splitlines(keepends=True)


def rows(path: Path, isolated: str = "2-3") -> dict[int, dict[str, Any]]:
    report = tc.read_trace(path, isolated=isolated).figures["report"]
    return {cpu["cpu"]: cpu for cpu in report["isolated"]}


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(lines))
    return path


def quiet_places(lines: list[str]) -> list[int]:
    """Return where the recording can be cut: nothing for half a millisecond, and every CPU in user mode or idle."""
    found, before = [], None
    inside: Counter[str] = Counter()
    for at, text in enumerate(lines):
        match = LINE.match(text)
        if not match:
            continue
        time = float(match[4])
        if before is not None and time - before > 5e-4 and not any(inside.values()):
            found.append(at)
        before = time
        body = match[5]
        for what, by in (("_entry:", 1), ("_exit:", -1)):
            if what in body.split(" ")[1]:
                inside[match[2]] += by
    return found


def test_the_parts_of_a_recording_add_up(lines: list[str], tmp_path: Path) -> None:
    head = [text for text in lines[:20] if text.startswith("#")]
    places = quiet_places(lines)
    assert len(places) > 10
    whole = rows(written(tmp_path / "whole.txt", lines))
    for at in places[:: max(1, len(places) // 4)]:
        first = rows(written(tmp_path / "first.txt", lines[:at]))
        second = rows(written(tmp_path / "second.txt", head + lines[at:]))
        for cpu, one in whole.items():
            for name in COUNTS:
                parts = [part[cpu][name] or 0 for part in (first, second)]  # None: a part that shows none
                assert sum(parts) == one[name], (at, cpu, name)
            for name in TABLES:
                parts = Counter(first[cpu][name]) + Counter(second[cpu][name])
                if name == "interrupts_by_cause":  # who sent a call may stand in the other part
                    assert sum(parts.values()) == sum(one[name].values()), (at, cpu)
                else:
                    assert parts == Counter(one[name]), (at, cpu, name)


def test_a_shift_in_time_changes_nothing(lines: list[str], tmp_path: Path) -> None:
    def later(text: str) -> str:
        match = LINE.match(text)
        if not match:
            return text
        whole, fraction = match[4].split(".")
        return f"{match[1]}{match[2]}{match[3]}{int(whole) + 1000}.{fraction}{match[5]}"

    before = rows(written(tmp_path / "a.txt", lines))
    after = rows(written(tmp_path / "b.txt", [later(text) for text in lines]))
    assert before.keys() == after.keys()
    for cpu, one in before.items():
        for name in (*COUNTS, *TABLES):
            assert after[cpu][name] == one[name], name
        assert after[cpu]["seconds"] == pytest.approx(one["seconds"])
        assert after[cpu]["taken_ms"] == pytest.approx(one["taken_ms"], abs=1e-3)


def test_cpus_that_change_names_change_rows(lines: list[str], tmp_path: Path) -> None:
    """Only where a line says which CPU it is of; what names CPUs within events is left out."""
    kept = [
        text for text in lines if not (m := LINE.match(text)) or ("cpu=" not in m[5] and "cpus=" not in m[5])
    ]
    swapped = [
        f"{m[1]}{ {'002': '003', '003': '002'}.get(m[2], m[2]) }{m[3]}{m[4]}{m[5]}" if (m := LINE.match(text)) else text
        for text in kept
    ]  # fmt: skip
    one, other = rows(written(tmp_path / "a.txt", kept)), rows(written(tmp_path / "b.txt", swapped))
    assert one[2]["interrupts_by_vector"] != one[3]["interrupts_by_vector"], "or nothing would be seen"
    for here, there in ((2, 3), (3, 2)):
        for name in (*COUNTS, "interrupts_by_vector", "calls_by_function"):
            assert one[here][name] == other[there][name], name
