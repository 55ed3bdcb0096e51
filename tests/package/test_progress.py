"""The bar that `progress=True` shows: on a terminal, in a notebook, and nowhere else."""

from __future__ import annotations

import io
import sys
import time
import types

import pytest

import tlbcore as tc
from tlbcore._output import progress

pytest.importorskip("rich")

FIXED = {"duration_s": 0.01, "cpus": 4}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_count_rate_and_time_left(monkeypatch):
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "110")
    with progress.bar("sweep", "points", stream) as advance:
        for done in range(0, 500, 100):
            advance(done, 1000)
            time.sleep(0.12)
    shown = stream.getvalue()
    assert "/1000" in shown
    assert "points" in shown
    assert "/s" in shown
    assert "0:00:" in shown


def test_a_stream_that_is_no_terminal_stays_empty():
    stream = io.StringIO()
    with progress.bar("sweep", "points", stream) as advance:
        advance(1, 2)
    assert stream.getvalue() == ""


@pytest.fixture
def cell(monkeypatch) -> list[str]:
    """Stands for IPython: what a notebook's cell shows, time by time."""
    told: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            assert raw
            told.append(data["text/plain"])

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        told.append(data["text/plain"])
        return Handle()

    module = types.ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    return told


def test_a_notebook_shows_the_bar_in_its_cell(cell: list[str]):
    tc.sweep("syscall-heavy", {"spawn_hz": [1000, 4000]}, fixed=FIXED, replications=3, progress=True)
    assert "12/12 points" in cell[-1]
    assert "/s" in cell[-1]
    assert all("\n" not in text for text in cell), "one line"


def test_every_long_function_takes_true(cell: list[str]):
    load = tc.scenarios.syscall_heavy(**FIXED)
    tc.simulate(load, machine="broadwell-ep", progress=True)
    tc.compare(load, machine="broadwell-ep", policies=["ipi"], progress=True)
    assert any("simulating" in text for text in cell)
    told = len(cell)
    tc.simulate(load, machine="broadwell-ep", progress=False)
    assert len(cell) == told


def test_without_rich_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tlbcore\[cli\]'"):
        tc.sweep("syscall-heavy", {"spawn_hz": [1000]}, fixed=FIXED, progress=True)
