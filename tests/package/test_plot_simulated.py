"""Plots of simulations, of made-up results: each point, bar, band, colour, tick and word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore.analysis import BreakEven

matplotlib = pytest.importorskip("matplotlib", reason="the extra `plot`")
matplotlib.use("Agg")
from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from tlbcore.plot.simulated import run, swept  # noqa: E402

nan = float("nan")
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"


def compared(**columns: list[Any]) -> Any:
    """Return three policies on isolated CPUs and one row of another class in between, the second inert."""
    table = {
        "policy": ["a", "x", "b", "c"], "cpu_class": ["isolated", "all", "isolated", "isolated"],
        "inert": [False, False, True, False], **{name: [0.0] * 4 for name in ("ipis_per_hour", "kernel_share")},
        **{name: [0.0] * 4 for name in ("interference_us_per_hour", "syscall_mean_ns", "entry_mean_ns")}, **columns,
    }  # fmt: skip
    first = SimpleNamespace(scenario=SimpleNamespace(name="load"), machine="cpu")
    return SimpleNamespace(table={name: np.array(column) for name, column in table.items()}, results=(first,))


def segments(lines: Any) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in segment] for segment in lines.get_segments()]


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


def test_a_comparison_has_a_bar_and_a_point_per_policy(axes: Any) -> None:
    found = compared(
        syscall_mean_ns=[1.0, 90.0, 2.0, nan], syscall_mean_ns_low=[0.5, 80.0, nan, 3.0],
        syscall_mean_ns_high=[1.5, 99.0, nan, 4.0],
    )  # fmt: skip
    assert tc.plot.comparison(axes, found, "syscall_mean_ns") is axes
    full, hollow = axes.lines
    assert (full.get_xdata().tolist(), full.get_fillstyle()) == ([0, 2], "full")
    np.testing.assert_array_equal(full.get_ydata(), [1.0, nan])
    assert (hollow.get_xdata().tolist(), hollow.get_ydata().tolist()) == ([1], [2.0])
    assert hollow.get_fillstyle() == "none"
    assert {to_hex(line.get_color()) for line in axes.lines} == {BLUE}
    assert {(line.get_marker(), line.get_linestyle()) for line in axes.lines} == {("o", "None")}
    (bars,) = axes.collections
    first, _, last = segments(bars)
    assert (first, last) == ([(0.0, 0.5), (0.0, 1.5)], [(2.0, 3.0), (2.0, 4.0)])
    assert (bars.get_linewidth()[0], bars.get_alpha(), to_hex(bars.get_color()[0])) == (3, 0.5, BLUE)
    assert axes.get_xticks().tolist() == [0, 1, 2]
    assert texts(axes.get_xticklabels()) == ["a", "b (inert)", "c"]
    assert {(label.get_rotation(), label.get_ha()) for label in axes.get_xticklabels()} == {(30.0, "right")}
    assert axes.margins()[0] == 0.15
    assert axes.get_ylabel() == "Mean system call, refills\nincluded\n(ns, predicted)"
    assert axes.get_title() == "load on cpu, per isolated CPU"


def test_a_comparison_of_single_runs_has_no_bars_and_of_inert_ones_no_full_points(axes: Any) -> None:
    tc.plot.comparison(axes, compared(ipis_per_hour=[1.0, 0.0, 2.0, 3.0]))
    assert len(axes.collections) == 0
    assert axes.get_ylabel().endswith("(1/h, predicted)"), "the first figure that differs"
    axes.clear()
    tc.plot.comparison(axes, compared(inert=[True] * 4), "kernel_share")
    (only,) = axes.lines
    assert (only.get_fillstyle(), only.get_xdata().tolist()) == ("none", [0, 1, 2])
    axes.clear()
    tc.plot.comparison(axes, compared(), "kernel_share", cpu_class="all")
    (only,) = axes.lines
    assert (only.get_fillstyle(), only.get_xdata().tolist()) == ("full", [0])
    assert axes.get_title() == "load on cpu, per all CPU"
    with pytest.raises(tc.ConfigError, match=r"^the comparison has no 'housekeeping' CPUs$"):
        tc.plot.comparison(axes, compared(), "kernel_share", cpu_class="housekeeping")


class Swept:
    """A sweep of these columns; whatever is no parameter is a metric."""

    def __init__(self, parameters: str, **columns: list[Any]) -> None:
        n = len(next(iter(columns.values())))
        usual = {"policy": ["a"] * n, "inert": [False] * n, "replication": [0] * n}
        self.table = {name: np.array(column) for name, column in (usual | columns).items()}
        self.parameters = parameters.split()
        self.metrics = [name for name in columns if name not in (*usual, *self.parameters)]
        self.units = {"m": "us"}

    def __len__(self) -> int:
        return len(self.table["policy"])


def test_a_sweep_has_a_line_per_group_in_order_of_its_values(axes: Any) -> None:
    """Of b at 3 there are 1 and 3: the mean is 2, and Student's t of one degree of freedom 12.706 times 1 the half."""
    found: Any = Swept(
        "x policy", x=[3.0, 1.0, 3.0, 3.0, 1.0, 1.0], policy=["a", "a", "b", "b", "b", "b"],
        inert=[False, True, False, False, False, False], replication=[0, 0, 0, 1, 0, 1],
        m=[5.0, 7.0, 1.0, 3.0, 4.0, 4.0],
    )  # fmt: skip
    assert tc.plot.sweep(axes, found, "x", "m") is axes
    a, b = axes.lines
    assert (a.get_xdata().tolist(), a.get_ydata().tolist()) == ([1.0, 3.0], [7.0, 5.0])
    assert (b.get_xdata().tolist(), b.get_ydata().tolist()) == ([1.0, 3.0], [4.0, 2.0])
    assert [line.get_label() for line in axes.lines] == ["a (partly inert)", "b"]
    assert [line.get_fillstyle() for line in axes.lines] == ["bottom", "full"]
    assert [to_hex(line.get_color()) for line in axes.lines] == [BLUE, ORANGE]
    (band,) = axes.collections
    assert (to_hex(band.get_facecolor()[0]), band.get_alpha()) == (ORANGE, 0.2)
    at = {(float(x), round(float(y), 3)) for x, y in band.get_paths()[0].vertices}
    assert at == {(1.0, 4.0), (3.0, -10.706), (3.0, 14.706)}
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("x", "m\n(us, predicted)", "linear")
    assert axes.get_legend().get_title().get_text() == "policy"


def test_a_band_stands_where_there_is_an_interval(axes: Any) -> None:
    found: Any = Swept(
        "x", x=[1.0, 1.0, 2.0, 2.0, 3.0], replication=[0, 1, 0, 1, 0], m=[1.0, 1.0, 2.0, 2.0, nan]
    )
    tc.plot.sweep(axes, found, "x", "m")
    (band,) = axes.collections
    assert {float(x) for x in band.get_paths()[0].vertices[:, 0]} == {1.0, 2.0}


def test_a_sweep_is_by_another_parameter_if_asked(axes: Any) -> None:
    found: Any = Swept("x_hz y", x_hz=[1.0, 11.0, 1.0, 11.0], y=[1, 1, 2, 2], q=[1.0, 2.0, 3.0, 4.0])
    tc.plot.sweep(axes, found, "x_hz", "q", by="y")
    assert [line.get_label() for line in axes.lines] == ["1", "2"]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1.0, 2.0], [3.0, 4.0]]
    assert axes.get_legend().get_title().get_text() == "y"
    assert (axes.get_xlabel(), axes.get_xscale(), axes.get_ylabel()) == ("x (1/s)", "log", "q\n(predicted)")


def test_words_have_no_place_on_an_axis(axes: Any) -> None:
    found: Any = Swept("machine", machine=["a", "b"], m=[1.0, 2.0])
    with pytest.raises(tc.SweepError, match=r"^'machine' has no numbers to draw over$"):
        tc.plot.sweep(axes, found, "machine", "m")
    with pytest.raises(tc.SweepError, match=r"^unknown column 'machin', did you mean 'machine'"):
        tc.plot.sweep(axes, found, "machin", "m")


@pytest.mark.parametrize(
    ("columns", "against", "across"),
    [
        ({"machine": ["p", "q"], "one": [1, 1], "two": [1, 2], "three": [3, 4]}, None, "two"),
        ({"machine": ["p", "q"], "one": [1, 1], "two": [1, 2], "three": [3, 4]}, "two", "three"),
        ({"machine": ["p", "q"], "one": [1, 1], "two": [2, 2]}, None, "one"),
        ({"machine": ["p", "q"], "truth": [True, False]}, None, "truth"),
        ({"machine": ["p", "q"], "whole": np.array([1, 2], dtype=np.uint8)}, None, "whole"),
    ],
)
def test_a_sweep_is_over_its_first_parameter_with_several_numbers(
    columns: dict[str, Any], against: str | None, across: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    for name in ("sweep", "heat_map"):
        monkeypatch.setattr(
            f"tlbcore.plot.simulated.{name}", lambda *given, **more: asked.append((*given, more))
        )
    found: Any = Swept(" ".join(columns), **columns, m=[1.0, 2.0], k=[3.0, 4.0])
    swept("axes", found, against=against, z=1)  # type: ignore[arg-type]
    swept("axes", found, "k", "machine")  # type: ignore[arg-type]
    first = ("axes", found, across, "m") if against is None else ("axes", found, across, against, "m")
    assert asked == [(*first, {"z": 1}), ("axes", found, "machine", "k", {})]


def test_a_sweep_without_numbers_says_so() -> None:
    found: Any = Swept("machine policy", machine=["p", "q"], m=[1.0, 2.0])
    with pytest.raises(tc.SweepError, match=r"^no parameter has numbers to draw over: machine, policy$"):
        swept("axes", found)  # type: ignore[arg-type]
    only: Any = Swept("x", x=[1.0, 2.0], m=[1.0, 2.0])
    with pytest.raises(tc.SweepError, match=r"^no parameter has numbers to draw over: x$"):
        swept("axes", only, against="x")  # type: ignore[arg-type]


def test_a_heat_map_has_means_where_there_are_points(axes: Any) -> None:
    found: Any = Swept(
        "x y", x=[2.5, 1.0, 1.0, 1.0, 2.5, 2.5], y=["q", "p", "p", "q", "q", "p"], m=[9.0, 1.0, 3.0, nan, nan, 7.0],
        policy=["a", "a", "a", "a", "a", "b"],
    )  # fmt: skip
    axes.grid(True)
    assert tc.plot.heat_map(axes, found, "x", "y", "m", where={"policy": "a"}) is axes
    (image,) = axes.images
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), nan), [[2.0, nan], [nan, 9.0]])
    assert (image.origin, image.get_cmap().name, axes.get_aspect()) == ("lower", "cividis", "auto")
    assert (axes.get_xticks().tolist(), texts(axes.get_xticklabels())) == ([0, 1], ["1", "2.5"])
    assert (axes.get_yticks().tolist(), texts(axes.get_yticklabels())) == ([0, 1], ["p", "q"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    assert axes.figure.axes[1].get_ylabel() == "m\n(us, predicted)"
    assert not any(line.get_visible() for line in axes.get_xgridlines())
    other = Figure().subplots()
    tc.plot.heat_map(other, found, "x", "y", "m")
    np.testing.assert_array_equal(np.ma.filled(other.images[0].get_array(), nan), [[2.0, 7.0], [nan, 9.0]])
    with pytest.raises(tc.SweepError, match=r"^no point has \{'policy': 'a', 'y': 'z'\}$"):
        tc.plot.heat_map(other, found, "x", "y", "m", where={"policy": "a", "y": "z"})
    with pytest.raises(tc.SweepError, match=r"^unknown column 'z'"):
        tc.plot.heat_map(other, found, "x", "y", "m", where={"z": 1})


def test_a_break_even_stroke_by_stroke(axes: Any) -> None:
    points = {"value": [1.0, 20.0], "mean": [-2.0, 3.0], "low": [-2.5, 2.0], "high": [-1.0, 3.5]}
    found = BreakEven(
        parameter="spawn_hz", policies=("ipi", "ct-late"), metric="wait_mean_us", value=2.0, low=1.5, high=2.5,
        cheaper_below="ipi", cheaper_above="ct-late", points={key: np.array(at) for key, at in points.items()},
    )  # fmt: skip
    assert tc.plot.break_even(axes, found) is axes
    dots, *caps, zero = axes.lines
    assert (dots.get_xdata().tolist(), dots.get_ydata().tolist()) == ([1.0, 20.0], [-2.0, 3.0])
    assert (dots.get_marker(), dots.get_linestyle(), to_hex(dots.get_color())) == ("o", "None", BLUE)
    assert [cap.get_markersize() for cap in caps] == [6, 6]
    assert (list(zero.get_ydata()), zero.get_linewidth(), zero.get_color()) == ([0, 0], 0.8, "black")
    assert segments(axes.collections[0]) == [[(1.0, -2.5), (1.0, -1.0)], [(20.0, 2.0), (20.0, 3.5)]]
    (between,) = axes.patches
    assert (between.get_x(), between.get_width(), between.get_linewidth()) == (1.5, 1.0, 0)
    assert (to_hex(between.get_facecolor()), between.get_alpha()) == (ORANGE, 0.2)
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "spawn (1/s)")
    assert axes.get_ylabel().endswith("(us, predicted)\nipi minus ct-late")


QUANTILES = {"p50_ps": 1000, "p90_ps": 2000, "p99_ps": 3000, "p999_ps": 4000, "max_ps": 5000}


def run_of(count: int, *inert: str, kind: str = "syscall_isolated") -> Any:
    return SimpleNamespace(
        latencies={kind: {"count": count, **QUANTILES}}, inert=inert, policy=SimpleNamespace(name="p")
    )


def test_latencies_of_several_runs_have_lines_of_their_own(axes: Any) -> None:
    results = {"a": run_of(10_000), "none": run_of(0), "b": run_of(20, "why")}
    assert tc.plot.latency(axes, results) is axes
    a, b = axes.lines
    assert a.get_ydata().tolist() == pytest.approx([0.5, 0.1, 0.01, 0.001, 0.0001])
    assert b.get_ydata().tolist() == pytest.approx([0.5, 0.1, 0.05, 0.05, 0.05])
    assert [line.get_label() for line in axes.lines] == ["a", "b (inert)"]
    assert [line.get_fillstyle() for line in axes.lines] == ["full", "none"]
    assert [to_hex(line.get_color()) for line in axes.lines] == [BLUE, GREEN], (
        "a run has its colour whoever is empty"
    )
    assert axes.get_ylabel() == "share that takes longer"
    assert texts(axes.get_legend().get_texts()) == ["a", "b (inert)"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("entry_housekeeping", "From SYSCALL to the body, housekeeping CPUs"),
        ("syscall_all", "Whole system call, all CPUs"),
        ("interruption_isolated", "Interruption of user mode, isolated CPUs"),
        ("wait_isolated", "Wait for acknowledgements, isolated CPUs"),
        ("user_flush_all", "user_flush, all CPUs"),
    ],
)
def test_an_axis_says_of_what_a_latency_is(kind: str, said: str, axes: Any) -> None:
    tc.plot.latency(axes, {"a": run_of(0, kind=kind)}, kind)
    assert axes.get_xlabel() == f"{said}\n(ns, predicted)"
    assert axes.get_yscale() == "log"
    assert axes.get_legend() is None
    assert texts(axes.texts) == ["none occurred"]
    with pytest.raises(tc.ConfigError, match=f"unknown latency 'x': known are {kind}"):
        tc.plot.latency(axes, {"a": run_of(0, kind=kind)}, "x")


def events(kinds: list[str], cpus: list[int]) -> Any:
    at = np.arange(len(kinds), dtype=np.int64) * 1_500_000_000_000
    return SimpleNamespace(timeline={"kind": np.array(kinds), "cpu": np.array(cpus), "time_ps": at})


def test_events_are_strokes_in_seconds_and_eight_kinds_share_seven_colours(axes: Any) -> None:
    kinds = [*"abcdefg", "h_i"]
    assert tc.plot.timeline(axes, events(kinds, [0] * 8)) is axes
    at = [np.asarray(dots.get_offsets())[0] for dots in axes.collections]
    assert [round(float(x), 9) for x, _ in at] == [1.5 * i for i in range(8)]
    assert [round(float(y), 9) for _, y in at] == [round(-0.35 + 0.1 * i, 9) for i in range(8)]
    colours = [to_hex(dots.get_edgecolor()[0]) for dots in axes.collections]
    assert colours[7] == colours[0] == BLUE
    assert len(set(colours)) == 7
    assert {(dots.get_sizes()[0], dots.get_linewidth()[0]) for dots in axes.collections} == {(12, 0.8)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (s, predicted)", "CPU")
    assert texts(axes.get_legend().get_texts())[-1] == "h i"
    assert axes.get_yticks().tolist() == [0]


def test_without_events_a_timeline_says_so_and_of_unknown_kinds_which_there_are(axes: Any) -> None:
    tc.plot.timeline(axes, events([], []))
    assert texts(axes.texts) == ["no event was kept"]
    assert axes.get_legend() is None
    with pytest.raises(tc.ConfigError, match=r"^unknown kind of event 'nothing': known are a, b$"):
        tc.plot.timeline(axes, events(["b", "a"], [0, 1]), ["nothing"])


def test_a_run_draws_what_is_asked_with_its_options(axes: Any) -> None:
    run(axes, events(["a", "b"], [0, 1]), kinds=["b"])
    assert [dots.get_label() for dots in axes.collections] == ["b"]
    axes.clear()
    run(axes, run_of(5), "syscall_isolated")
    assert [line.get_label() for line in axes.lines] == ["p"]
