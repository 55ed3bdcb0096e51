"""What is drawn is what the table holds, in the unit that the label names: every point, both ends of every interval."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

import tlbcore as tc
from tlbcore.analysis import BreakEven

matplotlib = pytest.importorskip("matplotlib", reason="the extra `plot`")
matplotlib.use("Agg")

from tlbcore.plot.simulated import swept  # noqa: E402

LOAD = tc.scenarios.user_shootdown(duration_s=0.02)


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


def made_up_timeline(cpus: list[int], kinds: list[str]) -> SimpleNamespace:
    n = len(cpus)
    at = np.arange(1, n + 1, dtype=np.int64) * 500_000_000_000
    return SimpleNamespace(timeline={"kind": np.array(kinds), "cpu": np.array(cpus), "time_ps": at})


def test_kinds_of_events_stand_side_by_side_around_their_cpu(axes) -> None:
    """Four kinds share 0.8 of a row: at -0.3, -0.1, 0.1 and 0.3; seconds are picoseconds by 10^12."""
    run = made_up_timeline([0, 3, 3, 1, 0], ["a", "b_x", "c", "d", "a"])
    tc.plot.timeline(axes, run)
    drawn = {dots.get_label(): np.asarray(dots.get_offsets()) for dots in axes.collections}
    assert {name: np.round(at, 9).tolist() for name, at in drawn.items()} == {
        "a": [[0.5, -0.3], [2.5, -0.3]],
        "b x": [[1.0, 2.9]],
        "c": [[1.5, 3.1]],
        "d": [[2.0, 1.3]],
    }
    colours = [matplotlib.colors.to_hex(dots.get_edgecolor()[0]) for dots in axes.collections]
    assert colours == ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]
    assert [float(tick) for tick in axes.get_yticks()] == [0, 1, 3]
    axes.clear()
    tc.plot.timeline(axes, run, kinds=["c"])
    (dots,) = axes.collections
    assert np.round(dots.get_offsets(), 9).tolist() == [[1.5, 3.1]], (
        "a kind has its place whoever else is drawn"
    )
    assert matplotlib.colors.to_hex(dots.get_edgecolor()[0]) == "#009e73"


@pytest.mark.parametrize(
    ("count", "ticks"), [(16, [*range(16)]), (17, [*range(0, 17, 2)]), (33, [*range(0, 33, 3)])]
)
def test_at_most_sixteen_cpus_are_named_beside_a_timeline(axes, count: int, ticks: list[int]) -> None:
    tc.plot.timeline(axes, made_up_timeline([*range(count)], ["a"] * count))
    assert [int(tick) for tick in axes.get_yticks()] == ticks


def test_a_tail_ends_at_one_call_of_all(axes) -> None:
    found = dict(
        zip(("p50_ps", "p90_ps", "p99_ps", "p999_ps", "max_ps"), range(1000, 6000, 1000), strict=True)
    )
    runs = {
        name: SimpleNamespace(latencies={"entry_all": {"count": count, **found}}, inert=())
        for name, count in (("many", 100_000), ("few", 5), ("none", 0))
    }
    tc.plot.latency(axes, runs, "entry_all")
    many, few = axes.lines
    assert many.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert many.get_ydata().tolist() == pytest.approx([0.5, 0.1, 0.01, 0.001, 0.00001])
    assert few.get_ydata().tolist() == pytest.approx([0.5, 0.2, 0.2, 0.2, 0.2])
    assert axes.get_xlabel() == "From SYSCALL to the body, all CPUs\n(ns, predicted)"
    assert axes.get_yscale() == "log"


def test_a_break_even_has_both_ends_of_each_point_and_says_who_is_less_where(axes) -> None:
    points = {"value": [1.0, 4.0], "mean": [-2.0, 3.0], "low": [-2.5, 2.0], "high": [-1.0, 3.5]}
    found = BreakEven(
        parameter="spawn_hz", policies=("ipi", "ct-late"), metric="syscall_mean_ns", value=2.34567, low=2.0, high=2.5,
        cheaper_below="ipi", cheaper_above="ct-late", points={key: np.array(at) for key, at in points.items()},
    )  # fmt: skip
    tc.plot.break_even(axes, found)
    ends = [sorted(y for _, y in segment) for segment in axes.collections[0].get_segments()]
    assert ends == [[-2.5, -1.0], [2.0, 3.5]]
    assert [line.get_ydata() for line in axes.lines if line.get_linewidth() == 0.8] == [[0, 0]]
    assert axes.get_title().replace("\n", " ") == "ipi is less below, ct-late above 2.346"


@pytest.mark.parametrize(
    ("tables", "chosen"),
    [
        ({"interference_us_per_hour": [1.0, 2.0], "ipis_per_hour": [1.0, 2.0]}, "interference_us_per_hour"),
        ({"ipis_per_hour": [1.0, 2.0], "syscall_mean_ns": [1.0, 2.0]}, "ipis_per_hour"),
        ({"syscall_mean_ns": [1.0, np.nan]}, "syscall_mean_ns"),
        ({"entry_mean_ns": [-1.0, 0.0]}, "entry_mean_ns"),
        ({}, "kernel_share"),  # all are equal
    ],
)
def test_a_comparison_draws_the_first_figure_that_differs(axes, compared, tables, chosen) -> None:
    rows = compared.table["cpu_class"] == "housekeeping"
    figures = (
        "interference_us_per_hour",
        "ipis_per_hour",
        "syscall_mean_ns",
        "entry_mean_ns",
        "kernel_share",
    )
    table = {name: np.array(column) for name, column in compared.table.items()}
    for name in figures:
        table[name][rows] = tables.get(name, [3.0, 3.0])
    tc.plot.comparison(axes, compared.replace(table=table), cpu_class="housekeeping")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), table[chosen][rows])


def test_a_sweep_chooses_the_first_parameter_with_several_numbers(axes) -> None:
    grid = {"machine": ["broadwell-ep", "skylake-sp"], "gap_ns": [300.0], "spawn_hz": [1000, 100]}
    found = tc.sweep("syscall-heavy", grid, fixed={"duration_s": 0.01}, policies=["ipi"])
    swept(axes, found)
    assert axes.get_xlabel() == "spawn (1/s)"
    first = found.metrics[0]
    means = [found.table[first][found.table["spawn_hz"] == hz].mean() for hz in (100, 1000)]
    assert axes.lines[0].get_xdata().tolist() == [100, 1000], "in order"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), means)
    axes.clear()
    swept(axes, found, first, against="spawn_hz")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("gap (ns)", "spawn (1/s)"), (
        "what is against is not across"
    )
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["100", "1000"]
    np.testing.assert_allclose(axes.images[0].get_array()[:, 0], means)
