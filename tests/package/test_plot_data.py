"""What is drawn is what the table holds, in the unit that the label names: every point, both ends of every interval."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tlbcore as tc

matplotlib = pytest.importorskip("matplotlib", reason="the extra `plot`")
matplotlib.use("Agg")
from matplotlib.figure import Figure  # noqa: E402

LOAD = tc.scenarios.user_shootdown(duration_s=0.02)


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.fixture(scope="module")
def compared() -> tc.Comparison:
    return tc.compare(LOAD, machine="broadwell-ep", policies=["ipi", "coalesce-v7-fixed"], replications=3)


# Each unit that a figure can have, once.
FIGURES = {
    "ipis_per_hour": "1/h",
    "interference_us_per_hour": "us/h",
    "interruption_mean_ns": "ns",
    "wait_mean_us": "us",
    "shortest_longest_quiet_s": "s",
    "syscalls_per_s": "1/s",
    "user_share": "1",
}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("cpu_class", ["housekeeping", "all"])
def test_a_comparison_draws_the_column_and_its_interval(axes, compared, figure: str, cpu_class: str) -> None:
    rows = compared.table["cpu_class"] == cpu_class
    values = {part: compared.table[f"{figure}{part}"][rows] for part in ("", "_low", "_high")}
    tc.plot.comparison(axes, compared, figure, cpu_class=cpu_class)
    (points,) = axes.lines
    assert points.get_ydata().tolist() == values[""].tolist()
    ends = [sorted(float(y) for _, y in segment) for segment in axes.collections[0].get_segments()]
    assert ends == [list(pair) for pair in zip(values["_low"], values["_high"], strict=True)]
    (unit,) = (one.unit for one in tc.figures() if one.name == figure)
    assert unit == FIGURES[figure]
    assert unit == "1" or f"({unit}, predicted)" in axes.get_ylabel().replace("\n", " ")


def test_every_unit_of_figures_is_drawn_here() -> None:
    assert set(FIGURES.values()) == {one.unit for one in tc.figures()}


def test_latencies_are_quantiles_in_nanoseconds(axes, compared) -> None:
    for kind in ("interruption_isolated", "wait_housekeeping"):
        axes.clear()
        tc.plot.latency(axes, compared, kind)
        assert "(ns, predicted)" in axes.get_xlabel()
        drawn = {line.get_label(): line for line in axes.lines}
        for name, run in compared.items():
            if not run.latencies[kind]["count"]:
                continue
            x = drawn[name].get_xdata()
            quantiles = [
                run.latencies[kind][part] for part in ("p50_ps", "p90_ps", "p99_ps", "p999_ps", "max_ps")
            ]
            np.testing.assert_allclose([x[-1], x[-2]], [quantiles[-1] / 1000, quantiles[-2] / 1000])
            assert set(np.round(np.array(quantiles) / 1000, 6)) <= set(np.round(x, 6))
            at_median = drawn[name].get_ydata()[np.argmin(abs(x - quantiles[0] / 1000))]
            assert at_median == pytest.approx(0.5)


def test_a_timeline_is_in_seconds_and_on_its_cpu(axes, compared) -> None:
    run = compared["ipi"]
    tc.plot.timeline(axes, run)
    assert re.match(r"time \(s", axes.get_xlabel())
    drawn = np.concatenate([dots.get_offsets() for dots in axes.collections])
    events = run.timeline
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(events["time_ps"] * 1e-12))
    assert np.bincount(np.round(drawn[:, 1]).astype(int)).tolist() == np.bincount(events["cpu"]).tolist()


def test_a_miss_curve_is_its_table(axes) -> None:
    curve = tc.miss_curve(np.array([1, 2, 1, 3, 2, 1], dtype=np.uint64), sets=[1, 2], ways=3)
    tc.plot.miss_curve(axes, curve)
    for line in axes.lines:
        rows = curve["sets"] == int(line.get_label())
        assert line.get_xdata().tolist() == (curve["sets"] * curve["ways"])[rows].tolist()
        assert line.get_ydata().tolist() == curve["misses"][rows].tolist()
    assert axes.lines[0].get_ydata().tolist() == [6, 5, 3], (
        "one set: none, the second 1, and all but the first three"
    )
    assert "6 accesses" in axes.get_ylabel()


def test_a_sweep_and_a_heat_map_are_the_means_of_every_cell_and_the_intervals_of_effects(axes) -> None:
    grid = {"spawn_hz": [100, 1000, 4000], "gap_ns": [0.0, 500.0]}
    found = tc.sweep("syscall-heavy", grid, fixed={"duration_s": 0.01}, replications=3)
    metric, table = "syscall_mean_ns", found.table
    tc.plot.heat_map(axes, found, "spawn_hz", "gap_ns", metric, where={"policy": "coalesce-v7-fixed"})
    cells = axes.images[0].get_array()
    for column, hz in enumerate(grid["spawn_hz"]):
        for row, gap in enumerate(grid["gap_ns"]):
            here = (
                (table["policy"] == "coalesce-v7-fixed")
                & (table["spawn_hz"] == hz)
                & (table["gap_ns"] == gap)
            )
            assert cells[row, column] == pytest.approx(table[metric][here].mean())
    axes.clear()
    tc.plot.sweep(axes, found, "spawn_hz", metric)
    assert "(ns, predicted)" in axes.get_ylabel().replace("\n", " ")
    for line in axes.lines:
        means = [
            table[metric][(table["policy"] == line.get_label()) & (table["spawn_hz"] == hz)].mean()
            for hz in grid["spawn_hz"]
        ]
        np.testing.assert_allclose(line.get_ydata(), means)
