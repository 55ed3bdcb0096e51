"""Plots of TLBs, of made-up results: each line, bar, band, tick and word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tlbcore as tc

matplotlib = pytest.importorskip("matplotlib", reason="the extra `plot`")
matplotlib.use("Agg")
from matplotlib.colors import to_hex  # noqa: E402

from tlbcore.plot import translated  # noqa: E402

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


class Curve(dict[str, Any]):
    accesses = 1234
    errors: Any = None
    sample = 1.0


def test_a_miss_curve_has_a_line_per_number_of_sets_over_entries(axes: Any) -> None:
    curve: Any = Curve(
        sets=np.array([1, 4, 1, 4]), ways=np.array([1, 1, 2, 2]), misses=np.array([9, 7, 5, 3])
    )
    assert tc.plot.miss_curve(axes, curve) is axes
    assert [(line.get_label(), line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines] == [
        ("1", [1, 2], [9, 5]), ("4", [4, 8], [7, 3]),
    ]  # fmt: skip
    assert [to_hex(line.get_color()) for line in axes.lines] == [BLUE, ORANGE]
    assert (axes.get_xscale(), axes.xaxis.get_transform().base) == ("log", 2)
    assert axes.get_xlabel() == "entries (sets times ways)"
    assert axes.get_ylabel() == "misses of 1,234 accesses\n(LRU, exact)"
    assert (axes.get_legend().get_title().get_text(), len(axes.collections)) == ("sets", 0)


def test_a_curve_from_a_sample_has_a_band_of_its_errors(axes: Any) -> None:
    """Errors are shares of the accesses: 0.01 and 0.02 of 1,000 are 10 and 20 misses."""
    curve: Any = Curve(
        sets=np.array([1, 1]), ways=np.array([1, 2]), misses=np.array([900, 500]), entries=np.array([1, 2])
    )
    curve.accesses, curve.errors, curve.sample = 1000, np.array([0.01, 0.02]), 0.05
    tc.plot.miss_curve(axes, curve)
    (band,) = axes.collections
    at = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
    assert at == {(1.0, 890.0), (1.0, 910.0), (2.0, 480.0), (2.0, 520.0)}
    assert (band.get_alpha(), band.get_linewidth()[0]) == (0.2, 0)
    assert axes.get_ylabel() == "misses of 1,000 accesses\n(LRU, from 0.05 of the pages)"
    assert texts(axes.get_legend().get_texts()) == ["1", "95 %"]


def test_a_translation_has_a_bar_per_cpu_with_a_part_per_level(axes: Any) -> None:
    """CPU 1: 10 accesses in two rows, 6 and 2 answered, 2 walks; CPU 4 had none."""
    table = {
        "cpu": [1, 4, 1], "accesses": [6, 0, 4], "l1_hits": [5, 0, 1], "l2_hits": [0, 0, 2], "walks": [1, 0, 1],
    }  # fmt: skip
    found: Any = SimpleNamespace(
        table={name: np.array(column) for name, column in table.items()}, levels=("l1", "l2"), path="a.txt",
        machine=SimpleNamespace(name="m"),
    )  # fmt: skip
    assert translated.translation(axes, found) is axes
    bars = [(round(bar.get_x(), 9), round(bar.get_width(), 9), round(bar.get_y() + bar.get_height() / 2, 9))
            for bar in axes.patches]  # fmt: skip
    assert bars == [(0, 0.6, 0), (0, 0, 1), (0.6, 0.2, 0), (0, 0, 1), (0.8, 0.2, 0), (0, 0, 1)]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches[::2]] == [BLUE, ORANGE, GREEN]
    assert texts(axes.get_legend().get_texts()) == ["l1 hits", "l2 hits", "walks"]
    assert texts(axes.get_yticklabels()) == ["CPU 1", "CPU 4"]
    assert (axes.get_xlabel(), axes.get_title()) == ("share of accesses (predicted)", "a.txt on m")


def test_the_counters_of_a_call_that_are_not_zero_are_bars(axes: Any) -> None:
    found: Any = SimpleNamespace(counters={"accesses": 3, "l1_hits": 0, "walk_loads": np.int64(8)})
    assert translated.access(axes, found) is axes
    assert [(bar.get_width(), round(bar.get_y() + bar.get_height() / 2, 9)) for bar in axes.patches] == [
        (3, 0),
        (8, 1),
    ]
    assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {BLUE}
    assert (texts(axes.get_yticklabels()), axes.get_xlabel()) == (["accesses", "walk loads"], "count")


def test_a_call_of_no_access_says_so(axes: Any) -> None:
    nothing = tc.Tlb("peers-64x4-1536x12").access(np.zeros(0, dtype=np.uint64))
    assert texts(translated.access(axes, nothing).texts) == ["nothing was counted"]
