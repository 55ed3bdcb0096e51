"""Each drawing puts what the result holds into the axes it was given, and touches nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import tlbcore as tc

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

LOAD = tc.scenarios.syscall_heavy(duration_s=0.01, spawn_hz=1000)


@pytest.fixture(scope="module")
def compared() -> tc.Comparison:
    return tc.compare(LOAD, machine="broadwell-ep", policies=["ipi", "coalesce-v7"], replications=3)


@pytest.fixture(scope="module")
def swept() -> tc.Sweep:
    grid = {"spawn_hz": [100, 1000, 4000], "gap_ns": [0.0, 500.0]}
    return tc.sweep("syscall-heavy", grid, fixed={"duration_s": 0.01}, replications=3)


def test_a_comparison_is_a_point_per_policy_with_its_interval(axes, compared):
    assert tc.plot.comparison(axes, compared, "syscall_mean_ns") is axes
    (points,) = axes.lines
    rows = compared.table["cpu_class"] == "isolated"
    assert points.get_ydata().tolist() == compared.table["syscall_mean_ns"][rows].tolist()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ipi", "coalesce-v7"]
    assert len(axes.collections[0].get_segments()) == 2


def test_a_sweep_is_a_line_per_policy_through_the_means(axes, swept):
    tc.plot.sweep(axes, swept, "spawn_hz", "syscall_mean_ns")
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"ipi", "coalesce-v7-fixed"}
    table = swept.table
    for policy, line in lines.items():
        assert line.get_xdata().tolist() == [100, 1000, 4000]
        chosen = (table["policy"] == policy) & (table["spawn_hz"] == 1000)
        assert line.get_ydata()[1] == pytest.approx(table["syscall_mean_ns"][chosen].mean())
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "Mean system call, refills\nincluded\n(ns, predicted)"
    assert axes.get_xlabel() == "spawn (1/s)"


def test_other_axes_of_the_grid_widen_no_band(axes):
    """Issue 17: a second axis that doubles the metric is no uncertainty of the first."""
    grid = {"gap_ns": [100.0, 300.0], "base_ns": [500.0, 1000.0]}
    found = tc.sweep("syscall-heavy", grid, fixed={"duration_s": 0.02}, policies=["ipi"], replications=3)
    tc.plot.sweep(axes, found, "gap_ns", "syscall_mean_ns")
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    # The bodies take 500 and 1,000 ns whatever the seed: the mean is 750, and repetitions move it by next to nothing.
    assert heights.min() == pytest.approx(750, abs=5)
    assert heights.max() == pytest.approx(750, abs=5)
    axes.clear()
    once = tc.sweep("syscall-heavy", grid, fixed={"duration_s": 0.02}, policies=["ipi"])
    tc.plot.sweep(axes, once, "gap_ns", "syscall_mean_ns")
    assert len(axes.collections) == 0, "one replication has no interval"


def test_policies_that_do_nothing_are_marked(axes):
    load = tc.scenarios.syscall_heavy(duration_s=0.01)
    with pytest.warns(tc.InertPolicyWarning):
        found = tc.compare(load, machine="cascade-lake-sp", policies=["ipi", "coalesce-v7"])
    assert found.table["inert"].tolist() == [name == "coalesce-v7" for name in found.table["policy"]]
    tc.plot.comparison(axes, found, "syscall_mean_ns")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ipi", "coalesce-v7 (inert)"]
    axes.clear()
    tc.plot.latency(axes, found)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ipi", "coalesce-v7 (inert)"]
    axes.clear()
    grid = {"machine": ["broadwell-ep", "cascade-lake-sp"], "gap_ns": [0.0, 100.0]}
    with pytest.warns(tc.InertPolicyWarning):
        swept = tc.sweep("syscall-heavy", grid, fixed={"duration_s": 0.01}, policies=["ipi", "coalesce-v7"])
    tc.plot.sweep(axes, swept, "gap_ns", "syscall_mean_ns")
    assert [line.get_label() for line in axes.lines] == ["coalesce-v7 (partly inert)", "ipi"]


def test_a_heat_map_has_the_mean_of_each_cell(axes, swept):
    tc.plot.heat_map(axes, swept, "spawn_hz", "gap_ns", "syscalls_per_s", where={"policy": "ipi"})
    (image,) = axes.images
    table = swept.table
    cell = (table["policy"] == "ipi") & (table["spawn_hz"] == 4000) & (table["gap_ns"] == 500)
    assert image.get_array().shape == (2, 3)
    assert image.get_array()[1, 2] == pytest.approx(table["syscalls_per_s"][cell].mean())


def test_a_miss_curve_falls_with_the_entries(axes):
    curve = tc.miss_curve(np.tile(np.arange(64, dtype=np.uint64), 4), sets=[4, 8], ways=8)
    tc.plot.miss_curve(axes, curve)
    assert [line.get_label() for line in axes.lines] == ["4", "8"]
    for line in axes.lines:
        assert (np.diff(line.get_ydata().astype(float)) <= 0).all()
        assert line.get_xdata()[-1] == int(line.get_label()) * 8


def test_latencies_show_their_tail(axes, compared):
    tc.plot.latency(axes, compared)
    (mainline, deferred) = axes.lines
    assert mainline.get_label() == "ipi"
    assert deferred.get_xdata()[0] > mainline.get_xdata()[0] + 300, "the entry flush"
    assert (np.diff(mainline.get_ydata()) <= 0).all()
    assert mainline.get_ydata()[-1] > 0, "a maximum is one call, not none"


def test_a_break_even_shows_its_points_and_its_interval(axes):
    found = tc.analysis.bisect(
        lambda x, n: np.linspace(x - 4.2, x - 3.8, n), 0, 10, parameter="rate", metric="cost",
        policies=("a", "b"), tolerance=0.1,
    )  # fmt: skip
    tc.plot.break_even(axes, found)
    assert axes.get_xlabel() == "rate"
    assert axes.get_ylabel() == "cost\n(predicted)\na minus b"
    band = axes.patches[0].get_bbox()
    assert (band.x0, band.x1) == (found.low, found.high)
    assert axes.lines[0].get_xdata().tolist() == found.points["value"].tolist()


def test_a_timeline_has_a_row_per_cpu(axes, compared):
    run = tc.simulate(LOAD, machine="broadwell-ep")
    tc.plot.timeline(axes, run)
    drawn = sum(len(dots.get_offsets()) for dots in axes.collections)
    assert drawn == len(run.timeline["kind"])


@pytest.mark.parametrize(
    ("name", "of", "arguments", "kind", "message"),
    [
        ("comparison", "compared", {"figure": "syscal_mean_ns"}, tc.ConfigError, "did you mean"),
        ("comparison", "compared", {"figure": "user_share", "cpu_class": "x"}, tc.ConfigError, "no 'x' CPUs"),
        ("latency", "compared", {"kind": "syscall"}, tc.ConfigError, "unknown latency"),
        ("timeline", "run", {"kinds": ["nonsense"]}, tc.ConfigError, "unknown kind of event"),
        ("sweep", "swept", {"parameter": "spawn_hz", "metric": "x"}, tc.SweepError, "unknown column"),
        (
            "heat_map",
            "swept",
            {"x": "spawn_hz", "y": "gap_n", "metric": "violations"},
            tc.SweepError,
            "'gap_ns'",
        ),
        (
            "heat_map",
            "swept",
            {"x": "spawn_hz", "y": "gap_ns", "metric": "violations", "where": {"policy": "x"}},
            tc.SweepError,
            "no point has",
        ),
    ],
)
def test_an_unknown_name_is_refused(
    axes,
    compared,
    swept,
    name: str,
    of: str,
    arguments: dict[str, object],
    kind: type[Exception],
    message: str,
):
    result = {"compared": compared, "swept": swept, "run": compared["ipi"]}[of]
    with pytest.raises(kind, match=message):
        getattr(tc.plot, name)(axes, result, **arguments)
    assert not axes.has_data()
