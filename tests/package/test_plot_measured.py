# ruff: noqa: E501  # a made-up row stands on its line
"""Plots of recordings, measurements and verdicts, of made-up results: each mark, bar, colour, tick and word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore.trace.explanation import Explanation

matplotlib = pytest.importorskip("matplotlib", reason="the extra `plot`")
matplotlib.use("Agg")
from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from tlbcore.plot import checked, measured  # noqa: E402

nan = float("nan")
BLUE, ORANGE, BLACK = "#0072b2", "#d55e00", "#000000"


def columns(**given: list[Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.array(values) for name, values in given.items()}


def segments(axes: Any) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in one] for lines in axes.collections for one in lines.get_segments()
    ]


def texts(labels: Any) -> list[str]:
    return [label.get_text().replace("\n", " ") for label in labels]


def marks(axes: Any) -> list[tuple[str, str, str, list[float], list[float]]]:
    """Return label, colour, filling, x and y of each line of marks."""
    return [
        (str(line.get_label()), to_hex(line.get_color()), line.get_fillstyle(),
         [float(x) for x in line.get_xdata()], [round(float(y), 9) for y in line.get_ydata()])
        for line in axes.lines if line.get_marker() not in ("", "None", None)
    ]  # fmt: skip


TOOK = columns(
    cpu=[2, 2, 5, 5], cause=["timer", "device", "device", "nmi"], n=[1, 2, 3, 4], total_ms=[9.0, 1.0, 2.0, nan],
    per_hour=[10.0, 20.0, 30.0, 900.0], per_hour_low=[1.0, 2.0, 3.0, 4.0], per_hour_high=[11.0, 22.0, 33.0, 944.0],
)  # fmt: skip


def test_an_explanation_has_a_row_per_cause_and_a_mark_per_cpu_beside_the_other(axes: Any) -> None:
    """Two CPUs stand 0.3 apart around their row; rows are by the sum over CPUs: 900, 50 and 10 per hour."""
    found: Any = SimpleNamespace(table=TOOK)
    assert tc.plot.explanation(axes, found) is axes
    assert texts(axes.get_yticklabels()) == ["non-maskable interrupt", "device interrupt", "timer interrupt"]
    assert marks(axes) == [
        ("CPU 2", BLUE, "full", [10.0, 20.0], [1.85, 0.85]), ("CPU 5", ORANGE, "full", [30.0, 900.0], [1.15, 0.15]),
    ]  # fmt: skip
    assert {line.get_linestyle() for line in axes.lines} == {"None"}
    ends = [[x for x, _ in one] for one in segments(axes)]
    assert ends == [[1.0, 11.0], [2.0, 22.0], [3.0, 33.0], [4.0, 944.0]]
    assert [(to_hex(lines.get_color()[0]), lines.get_alpha()) for lines in axes.collections] == [
        (BLUE, 0.5),
        (ORANGE, 0.5),
    ]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "interruptions per hour (measured)")
    assert texts(axes.get_legend().get_texts()) == ["CPU 2", "CPU 5"]
    assert axes.get_ylim() == (2.5, -0.5)


@pytest.mark.parametrize(
    ("figure", "order", "scale", "label"),
    [
        ("n", ["device interrupt", "non-maskable interrupt", "timer interrupt"], "linear", "interruptions (measured)"),
        ("total_ms", ["timer interrupt", "device interrupt", "non-maskable interrupt"], "linear", "time taken (ms, measured)"),
    ],
)  # fmt: skip
def test_other_figures_of_an_explanation_have_no_interval(
    figure: str, order: list[str], scale: str, label: str, axes: Any
) -> None:
    measured.explanation(axes, SimpleNamespace(table=TOOK), figure)  # type: ignore[arg-type]
    assert texts(axes.get_yticklabels()) == order
    assert (axes.get_xscale(), axes.get_xlabel()) == (scale, label)
    assert segments(axes) == []


def test_a_zero_leaves_the_axis_of_the_others_logarithmic(axes: Any) -> None:
    zero: Any = SimpleNamespace(table=TOOK | columns(total_ms=[0.0, 1.0, 50.0, nan]))
    measured.explanation(axes, zero, "total_ms")
    assert axes.get_xscale() == "log"


def test_what_of_a_recording_was_explained_is_not_explained_again(
    axes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Any = object.__new__(Explanation)
    object.__setattr__(made, "table", TOOK)
    monkeypatch.setattr(
        "tlbcore.trace.explanation.explain", lambda trace: made if trace == "trace" else 1 / 0
    )
    assert measured.causes_of(made) == measured.causes_of("trace") == 3
    measured.recording(axes, "trace", "n")  # type: ignore[arg-type]
    assert axes.get_xlabel() == "interruptions (measured)"
    nothing: Any = SimpleNamespace(table={name: column[:0] for name, column in TOOK.items()})
    other = Figure().subplots()
    measured.explanation(other, nothing)
    assert texts(other.texts) == ["nothing took the isolated CPUs, as far as was recorded"]
    with pytest.raises(tc.ConfigError, match=r"^unknown figure 'nothing': known are "):
        measured.explanation(other, nothing, "nothing")


def replayed(cpus: list[int], **more: list[float]) -> Any:
    """Return two policies on these CPUs: 1 or 2 each are left under a, 3 to 4 under b, which is inert."""
    n = len(cpus)
    table = columns(
        policy=["a"] * n + ["b"] * n, cpu=cpus * 2, interrupts_low=[1.0] * n + [3.0] * n, interrupts_high=[2.0] * n + [4.0] * n,
        exposure_longest_low_s=[0.5, 0.25][:n] + [0.0] * n, exposure_longest_high_s=[0.75, 0.5][:n] + [0.0] * n, **more,
    )  # fmt: skip
    return SimpleNamespace(
        table=table, policies=("a", "b"), outcomes=({"policy": "a"}, {"policy": "b", "inert": "why"})
    )


def test_a_replay_has_a_bar_per_policy_from_low_to_high(axes: Any) -> None:
    assert tc.plot.replay(axes, replayed([2, 3])) is axes
    assert marks(axes) == [
        ("_child1", BLUE, "full", [0, 0], [2.0, 4.0]), ("_child3", BLUE, "none", [1, 1], [6.0, 8.0]),
    ]  # fmt: skip
    assert segments(axes) == [[(0, 2), (0, 4)], [(1, 6), (1, 8)]]
    looks = [
        (lines.get_linewidth()[0], lines.get_alpha(), to_hex(lines.get_color()[0]))
        for lines in axes.collections
    ]
    assert looks == [(3, 0.5, BLUE)] * 2
    assert texts(axes.get_xticklabels()) == ["a", "b (inert)"]
    assert axes.get_ylim() == pytest.approx((0, 8.8))
    assert axes.margins()[0] == 0.15
    assert (axes.get_ylabel(), axes.get_title()) == ("interrupts left (predicted)", "2 isolated CPUs")
    longest = Figure().subplots()
    tc.plot.replay(longest, replayed([2, 3]), "exposure_longest_s")
    assert [y for *_, y in marks(longest)] == [[0.5, 0.75], [0.0, 0.0]], "that of the worst CPU"
    one = Figure().subplots()
    tc.plot.replay(one, replayed([2], deferred_low=[0.0] * 2, deferred_high=[0.0] * 2), "deferred")
    assert (one.get_title(), one.get_ylim()) == ("1 isolated CPU", (0.0, 1.0))
    with pytest.raises(
        tc.ConfigError, match=r"^unknown figure 'entries': known are exposure_longest_s, interrupts$"
    ):
        tc.plot.replay(one, replayed([2]), "entries")


def published(
    ratio: float | None,
    *,
    role: str = "prediction",
    within: bool = True,
    tolerance: float = 0.5,
    at: float = 0.0,
) -> Any:
    """Return a row; with `at` its tolerance is absolute, and what was published is that."""
    return SimpleNamespace(
        number=7, name="an experiment", ratio=ratio, tolerance=tolerance, absolute=at != 0, published=at, role=role, within=within,
    )  # fmt: skip


def test_validation_has_a_mark_per_ratio_on_the_bar_of_its_tolerance(axes: Any) -> None:
    rows = (
        published(1.25), published(None), published(2.0, role="input", within=False), published(1.0, tolerance=3.0),
        published(1.0, tolerance=2.0, at=-8.0),
    )  # fmt: skip
    assert tc.plot.validation(axes, SimpleNamespace(rows=rows)) is axes  # type: ignore[arg-type]
    assert [mark[1:] for mark in marks(axes)] == [
        (BLUE, "full", [1.25], [0]), (ORANGE, "none", [2.0], [1]), (BLUE, "full", [1.0], [2]), (BLUE, "full", [1.0], [3]),
    ]  # fmt: skip
    assert segments(axes) == [
        [(0.5, 0), (1.5, 0)],
        [(0.5, 1), (1.5, 1)],
        [(0.001, 2), (4.0, 2)],
        [(0.75, 3), (1.25, 3)],
    ]
    assert {(lines.get_linewidth()[0], lines.get_alpha()) for lines in axes.collections} == {(5, 0.2)}
    (one,) = (line for line in axes.lines if line.get_marker() in ("", "None", None))
    assert (list(one.get_xdata()), one.get_linewidth(), one.get_color()) == ([1, 1], 0.8, "black")
    assert texts(axes.get_yticklabels()) == ["7 an experiment"] * 4
    assert axes.get_xscale() == "linear"
    assert axes.get_xlabel().startswith("computed over published; bar: tolerance\n(hollow: ")


@pytest.mark.parametrize(
    ("ratios", "scale"),
    [
        ((1.0, 3.0), "linear"),
        ((1.0, 3.01), "log"),
        ((0.0, 2.0), "linear"),
        ((-1.0, 2.0), "linear"),
        ((), "linear"),
    ],
)
def test_ratios_more_than_three_apart_are_on_a_logarithmic_axis(
    ratios: tuple[float, ...], scale: str, axes: Any
) -> None:
    tc.plot.validation(axes, SimpleNamespace(rows=[published(ratio) for ratio in ratios]))  # type: ignore[arg-type]
    assert axes.get_xscale() == scale


def test_validation_without_a_ratio_says_so(axes: Any) -> None:
    tc.plot.validation(axes, SimpleNamespace(rows=[published(None)]))  # type: ignore[arg-type]
    assert texts(axes.texts) == ["no row has a ratio"]


def test_shootdowns_are_a_matrix_of_senders_and_victims(axes: Any) -> None:
    pairs = columns(
        sender_cpu=[3, -1, 3], victim_cpu=[4, 2, 2], calls=[1, 5, 7], interrupts=[1, 2, 3], handler_ms=[0.5, nan, 1.5],
    )  # fmt: skip
    axes.grid(True)
    assert tc.plot.shootdowns(axes, SimpleNamespace(pairs=pairs)) is axes  # type: ignore[arg-type]
    (image,) = axes.images
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), nan), [[5, nan], [7, 1]])
    assert (image.get_cmap().name, image.get_clim()[0], axes.get_aspect()) == ("cividis", 0, "auto")
    assert (axes.get_xticks().tolist(), texts(axes.get_xticklabels())) == ([0, 1], ["2", "4"])
    assert (axes.get_yticks().tolist(), texts(axes.get_yticklabels())) == ([0, 1], ["not recorded", "3"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("interrupted CPU", "sending CPU")
    assert not any(line.get_visible() for line in axes.get_xgridlines())
    for figure, words in (
        ("calls", "remote calls (measured)"), ("interrupts", "interrupts (measured)"),
        ("handler_ms", "time in handlers (ms, measured)"),
    ):  # fmt: skip
        other = Figure().subplots()
        tc.plot.shootdowns(other, SimpleNamespace(pairs=pairs), figure)  # type: ignore[arg-type]
        assert other.figure.axes[1].get_ylabel() == words
        assert float(other.images[0].get_array()[1, 0]) == float(pairs[figure][2])
    none: Any = SimpleNamespace(pairs={name: column[:0] for name, column in pairs.items()})
    empty = Figure().subplots()
    tc.plot.shootdowns(empty, none)
    assert texts(empty.texts) == ["no remote call between CPUs was recorded"]
    with pytest.raises(tc.ConfigError, match=r"^unknown figure 'waits'"):
        tc.plot.shootdowns(empty, none, "waits")


def test_a_calibration_is_its_curve(axes: Any) -> None:
    found: Any = SimpleNamespace(cpu=3, curve=columns(pages=[1, 16, 64], ns=[1.0, 1.5, 9.0]))
    assert measured.calibration(axes, found) is axes
    (line,) = axes.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1, 16, 64], [1.0, 1.5, 9.0])
    assert (axes.get_xscale(), axes.get_title()) == ("log", "CPU 3")
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "pages of the pointer chase",
        "time per load (ns, measured)",
    )


# Verdicts.


def case(
    status: str,
    states: int,
    world: str = "pti",
    asked: str | None = None,
    *,
    implied: bool = False,
    **more: Any,
) -> Any:
    return SimpleNamespace(
        status="".join([*status]), states=states, world=world, asked=asked, implied=implied, **more
    )


def test_a_verdict_has_a_mark_per_search_by_its_status(axes: Any) -> None:
    cases = [
        case("verified", 10), case("violated", 20, asked="purge"), case("verified", 5, implied=True),
        case("inconclusive", 30, "nopti"), case("verified", 40, asked="free"),
    ]  # fmt: skip
    found: Any = SimpleNamespace(cases=cases, policy="p", inert="", status="violated")
    assert checked.verdict(axes, found) is axes
    assert marks(axes) == [
        ("verified", BLUE, "full", [10, 40], [0, 3]), ("violated", ORANGE, "none", [20], [1]),
        ("inconclusive", BLACK, "none", [30], [2]),
    ]  # fmt: skip
    assert [line.get_marker() for line in axes.lines] == ["o", "X", "s"]
    assert texts(axes.get_yticklabels()) == ["as asked, pti", "purge, pti", "as asked, nopti", "free, pti"]
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_title()) == (
        "log",
        "states (counted)",
        "p: violated",
    )
    assert texts(axes.get_legend().get_texts()) == ["verified", "violated", "inconclusive"]
    alone: Any = case(
        "verified", 7, asked="x", policy="p", inert="why", cases=[case("verified", 1, implied=True)]
    )
    other = Figure().subplots()
    checked.verdict(other, alone)
    assert marks(other) == [("verified", BLUE, "full", [7], [0])]
    assert other.get_title() == "p (inert): verified"


def test_growth_is_a_line_over_cpus_with_a_mark_by_status(axes: Any) -> None:
    found: Any = {
        4: case("inconclusive", 900, policy="p"),
        2: case("verified", 10, policy="p"),
        3: case("verified", 90, policy="p"),
    }
    assert checked.growth(axes, found) is axes
    line = axes.lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([2, 3, 4], [10, 90, 900])
    assert (to_hex(line.get_color()), line.get_linewidth()) == (BLUE, 0.8)
    assert marks(axes) == [
        ("verified", BLUE, "full", [2, 3], [10, 90]),
        ("inconclusive", BLACK, "none", [4], [900]),
    ]
    assert (axes.get_yscale(), axes.get_xticks().tolist()) == ("log", [2, 3, 4])
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("CPUs", "states (counted)", "p")
    assert texts(axes.get_legend().get_texts()) == ["verified", "inconclusive"]
    with pytest.raises(tc.ConfigError, match=r"^growth needs at least one verdict$"):
        checked.growth(axes, {})
    with pytest.raises(tc.ConfigError, match=r"^growth is that of one policy: got a, b$"):
        checked.growth(axes, {2: case("verified", 1, policy="b"), 3: case("verified", 1, policy="a")})


class NeedsOf(list[Any]):
    policy = SimpleNamespace(name="p")


def test_what_is_needed_is_filled_and_what_is_open_has_a_mark_of_its_own(axes: Any) -> None:
    found: Any = NeedsOf(
        SimpleNamespace(needed=needed, status=status, states=states, section="purge", what=f"op {states}")
        for needed, status, states in ((True, "violated", 5), (False, "verified", 6), (False, "inconclusive", 7), (True, "violated", 8))
    )  # fmt: skip
    assert checked.needs(axes, found) is axes
    assert marks(axes) == [
        ("needed", ORANGE, "full", [5, 8], [0, 3]), ("not needed", BLUE, "none", [6], [1]),
        ("inconclusive", BLACK, "none", [7], [2]),
    ]  # fmt: skip
    assert [line.get_marker() for line in axes.lines] == ["o", "o", "s"]
    assert texts(axes.get_yticklabels()) == [f"purge: op {i}" for i in (5, 6, 7, 8)]
    assert (axes.get_xscale(), axes.get_title()) == ("log", "p: 2 of 4 needed")
    assert axes.get_xlabel() == "states until the answer (counted)"
    assert len(axes.get_legend().get_texts()) == 3


class RepairsOf(NeedsOf):
    machine = "m"
    edits = 2


def test_repairs_have_a_bar_of_what_they_cost(axes: Any) -> None:
    rows = [
        SimpleNamespace(edits=edits, cost=SimpleNamespace(syscall_extra_ns=ns))
        for edits, ns in ((("a", "b"), 5.0), (("c",), -1.0))
    ]
    assert checked.repairs(axes, RepairsOf(rows)) is axes  # type: ignore[arg-type]
    bars = [(bar.get_width(), bar.get_y() + bar.get_height() / 2, bar.get_height()) for bar in axes.patches]
    assert bars == [(5.0, pytest.approx(0), pytest.approx(0.6)), (-1.0, pytest.approx(1), pytest.approx(0.6))]
    assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {BLUE}
    assert texts(axes.get_yticklabels()) == ["a; b", "c"]
    (zero,) = axes.lines
    assert (list(zero.get_xdata()), zero.get_linewidth(), zero.get_color()) == ([0, 0], 0.8, "black")
    assert (axes.get_xlabel(), axes.get_title()) == (
        "system call, beyond mainline (ns, predicted)",
        "Repairs of p on m",
    )
    for edits, said in ((0, "0 edits"), (1, "one edit"), (2, "2 edits")):
        none: Any = RepairsOf()
        none.edits = edits
        empty = Figure().subplots()
        checked.repairs(empty, none)
        assert texts(empty.texts) == [f"nothing with at most {said} repairs p"]


def test_the_verdict_table_has_a_row_per_policy(axes: Any) -> None:
    rows: Any = [
        case("verified", 1, policy="b"),
        case("violated", 2, policy="a"),
        case("verified", 3, policy="a"),
        case("verified", 4, policy="b"),
    ]
    assert checked.verdict_table(axes, rows) is axes
    assert marks(axes) == [
        ("verified", BLUE, "full", [1, 3, 4], [0, 1, 0]),
        ("violated", ORANGE, "none", [2], [1]),
    ]
    assert {line.get_alpha() for line in axes.lines} == {0.7}
    assert texts(axes.get_yticklabels()) == ["b", "a"]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "states (counted)")
    assert texts(axes.get_legend().get_texts()) == ["verified", "violated"]
