"""`.plot()` of every result: what is drawn is what the tables hold; sizes, files, pictures that were looked at."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore._output.result import Result
from tlbcore.plot._dispatch import _DRAWN
from tlbcore.simulation.repair_cost import Cost

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.image  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402

DATA = Path(__file__).parents[1] / "data"
PICTURES = DATA / "plots"
RECORDING = DATA / "p4.w7.trace.txt.xz"
WORDS = {"Causes", "Host", "Listed", "LitmusResult", "WorldTable"}  # results without figures to draw


@pytest.fixture(autouse=True)
def _closed():
    plt.close("all")  # what another file's tests left open
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def explained() -> tc.Explanation:
    return tc.explain(tc.read_trace(RECORDING))


@pytest.fixture(scope="module")
def compared() -> tc.Comparison:
    load = tc.scenarios.syscall_heavy(duration_s=0.01, spawn_hz=1000)
    with pytest.warns(tc.InertPolicyWarning):
        return tc.compare(
            load, machine="broadwell-ep", policies=["ipi", "coalesce-v7", "invlpgb"], replications=3
        )


def points(axes: Any, marker: str | None = None) -> list[tuple[float, float]]:
    """The marks of an axes."""
    return [
        (float(x), float(y))
        for line in axes.lines
        if line.get_marker() not in ("", "None", None) and marker in (None, line.get_marker())
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def subclasses(of: type) -> set[str]:
    ours = [sub for sub in of.__subclasses__() if sub.__module__.startswith("tlbcore.")]
    return {name for sub in ours for name in ({sub.__name__} | subclasses(sub))}


def test_every_kind_of_result_is_drawn_or_says_that_it_is_words():
    for name in tc._EXPORTS:
        getattr(tc, name)
    import tlbcore.analysis

    assert tlbcore.analysis.BreakEven.__name__ in _DRAWN
    assert set(_DRAWN) | WORDS == {name for name in subclasses(Result) if not name.startswith("_")}
    assert not set(_DRAWN) & WORDS
    with pytest.raises(tc.ConfigError, match="a Host is words, with nothing to draw: print it"):
        tc.inspect_host(cmdline="nohz_full=2-7", release="6.12.0", cpus=8).plot()
    assert plt.get_fignums() == []


def test_an_explanation_has_a_mark_per_cpu_and_cause_and_the_interval_of_its_rate(explained):
    axes = explained.plot()
    table = explained.table
    drawn = points(axes)
    assert sorted(x for x, _ in drawn) == pytest.approx(sorted(table["per_hour"].tolist()))
    segments = [segment for lines in axes.collections for segment in lines.get_segments()]
    assert sorted(s[0][0] for s in segments) == pytest.approx(sorted(table["per_hour_low"].tolist()))
    assert sorted(s[1][0] for s in segments) == pytest.approx(sorted(table["per_hour_high"].tolist()))
    labels = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert labels[0] == "module or BPF code freed", "most frequent first, by hand: 210 of 540"
    assert len(labels) == len(set(table["cause"].tolist()))
    for line in axes.lines:
        cpu = int(line.get_label().removeprefix("CPU "))
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
            cause = [name for name in tc.causes if tc.causes[name].title == labels[round(y)]]
            assert x in table["per_hour"][(table["cpu"] == cpu) & np.isin(table["cause"], cause)]
    assert axes.get_xlabel() == "interruptions per hour (measured)"
    assert explained.plot("total_ms").get_xlabel() == "time taken (ms, measured)"
    assert explained.trace.plot().get_xlabel() == axes.get_xlabel()
    with pytest.raises(tc.ConfigError, match="did you mean 'per_hour'"):
        explained.plot("per_hours")


def test_a_replay_has_the_sums_of_its_cpus_from_low_to_high(explained):
    found = tc.replay(explained.trace, ["ipi", "coalesce-v7"])
    axes = found.plot()
    table = found.table
    for i, policy in enumerate(("ipi", "coalesce-v7")):
        mine = table["policy"] == policy
        ys = sorted(y for x, y in points(axes) if x == i)
        assert ys == [table["interrupts_low"][mine].sum(), table["interrupts_high"][mine].sum()]
    assert points(axes)[0] == (0.0, 540.0), "all that was recorded"
    longest = found.plot("exposure_longest_s")
    mine = table["policy"] == "coalesce-v7"
    assert max(y for _, y in points(longest)) == table["exposure_longest_high_s"][mine].max()
    with pytest.raises(tc.ConfigError, match="unknown figure"):
        found.plot("interrupt")


def test_validation_has_each_ratio_and_its_tolerance():
    found = tc.validate()
    axes = found.plot()
    rows = [row for row in found.rows if row.ratio is not None]
    assert [x for x, _ in points(axes)] == [row.ratio for row in rows]
    fills = [line.get_fillstyle() for line in axes.lines if line.get_marker() == "o"]
    assert fills == ["full" if row.role == "prediction" else "none" for row in rows]
    bars = [segment for lines in axes.collections for segment in lines.get_segments()]
    for row, bar in zip(rows, bars, strict=True):
        assert row.ratio is not None
        assert (bar[0][0] - 1e-9 <= row.ratio <= bar[1][0] + 1e-9) == bool(row.within), row.name


def test_a_verdict_has_the_states_of_each_search():
    found = tc.check("coalesce-v7-fixed")
    axes = found.plot()
    cases = [case for case in found.cases if not case.implied] or [found]
    assert points(axes) == [(float(case.states), float(i)) for i, case in enumerate(cases)]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"verified"}
    broken = tc.check("coalesce-v7").plot()
    assert broken.lines[0].get_fillstyle() == "none", "a search that ended early"


def test_what_a_policy_needs_is_filled():
    found = tc.necessary("coalesce-v7-fixed", world="pti")
    axes = found.plot()
    marks = {line.get_label(): len(line.get_ydata()) for line in axes.lines}
    assert marks["needed"] == sum(need.needed for need in found) > 0
    assert sum(marks.values()) == len(found)
    for line in axes.lines:
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
            assert x == found[int(y)].states
            assert (line.get_label() == "needed") == found[int(y)].needed


def test_a_repair_has_a_bar_of_its_cost():
    cost = Cost(machine="broadwell-ep", syscall_extra_ns=552.5, nmi_extra_ns=0.0, deferred=0.99, ipis=0.01)
    given: dict[str, Any] = {
        "policy": tc.policies["coalesce-v7"], "edits": 2, "machine": "broadwell-ep", "sentence": "Violated."
    }  # fmt: skip
    one = tc.Repair(
        edits=("insert `fence`", "move a store"), policy=tc.policies["coalesce-v7-fixed"],
        verdict="verified (bounded)", states=1234, hypothesis=None, cost=cost,
    )  # fmt: skip
    axes = tc.Repairs(rows=(one,), **given).plot()
    assert [bar.get_width() for bar in axes.patches] == [552.5]
    assert axes.get_yticklabels()[0].get_text() == "insert `fence`; move a store"
    none = tc.Repairs(rows=(), **given).plot()
    assert none.texts[0].get_text() == "nothing with at most 2 edits repairs coalesce-v7"


def test_growth_is_over_cpus():
    # A sender that remembers whom it met, so that no CPU stands for another.
    purge = (
        "pte range = none locked", "request range", "let met = 0", "each cpu in nohz_full", "  let met = 1",
        "if met == 1", "  flush_kernel_range", "promise range", "pte range = fresh",
    )  # fmt: skip
    head = 'policy grows\n  "Its purge remembers."\n  source "a test"\n  based on ipi\n\npurge\n'
    text = head + "".join(f"  {line}\n" for line in purge)
    found = {n: tc.check(tc.Policy(text=text), cpus=n, world="pti", confirm=False) for n in (3, 2)}
    axes = tc.plot.growth(tc.plot.figure(), found)
    assert list(axes.lines[0].get_xdata()) == [2, 3]
    assert list(axes.lines[0].get_ydata()) == [found[2].states, found[3].states]
    assert found[3].states > found[2].states
    with pytest.raises(tc.ConfigError, match="at least one"):
        tc.plot.growth(axes, {})
    with pytest.raises(tc.ConfigError, match="of one policy: got coalesce-v7, ipi"):
        tc.plot.growth(axes, {2: tc.check("ipi"), 3: tc.check("coalesce-v7")})


def test_shootdowns_are_a_matrix_in_which_no_call_is_empty():
    found = tc.shootdowns(DATA / "user.p73.us1.trace.txt.xz")
    axes = found.plot()
    image = axes.images[0].get_array()
    pairs = found.pairs
    senders, victims = sorted(set(pairs["sender_cpu"].tolist())), sorted(set(pairs["victim_cpu"].tolist()))
    assert image.shape == (len(senders), len(victims))
    for i, sender in enumerate(senders):
        for j, victim in enumerate(victims):
            here = (pairs["sender_cpu"] == sender) & (pairs["victim_cpu"] == victim)
            if here.any():
                assert image[i, j] == pairs["calls"][here].sum()
            else:
                assert np.ma.getmaskarray(np.ma.masked_invalid(image))[i, j]


def test_a_translation_has_what_answered_its_accesses():
    found = tc.translate(DATA / "addresses" / "walk.lackey.txt.xz", machine="skylake-sp")
    axes = found.plot()
    widths = {
        text.get_text(): bar.patches[0].get_width()
        for text, bar in zip(axes.get_legend().get_texts(), axes.containers, strict=True)
    }
    # 96 pages, three times, are 96 walks in 288 loads; 1,453 fetches are of one page.
    assert widths["walks"] == pytest.approx(97 / (288 + 1453))
    assert widths["stlb hits"] == pytest.approx(192 / (288 + 1453))
    assert sum(widths.values()) == pytest.approx(1)


def test_counters_of_a_call_are_bars():
    axes = tc.Tlb("peers-64x4-1536x12").access(np.array([7, 7, 8], dtype=np.uint64)).plot()
    shown = {
        label.get_text(): bar.get_width()
        for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)
    }
    assert (shown["accesses"], shown["l1 hits"], shown["walks"]) == (3, 1, 2)


def test_a_comparison_shows_inert_policies_hollow(compared):
    axes = compared.plot("syscall_mean_ns")
    full, hollow = axes.lines
    assert (full.get_fillstyle(), hollow.get_fillstyle()) == ("full", "none")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ipi", "coalesce-v7", "invlpgb (inert)"]
    rows = compared.table["cpu_class"] == "isolated"
    assert [y for _, y in points(axes)] == compared.table["syscall_mean_ns"][rows].tolist()
    assert compared.plot().get_ylabel(), "a figure is chosen"


def test_a_run_draws_its_timeline_or_a_latency(compared):
    run = compared["coalesce-v7"]
    assert run.plot().get_xlabel() == "time (s, predicted)"
    tail = run.plot("syscall_isolated")
    assert tail.get_xlabel() == "Whole system call, isolated CPUs\n(ns, predicted)"
    assert tail.lines[0].get_xdata()[0] == run.latencies["syscall_isolated"]["p50_ps"] * 1e-3


def test_a_sweep_draws_over_its_first_numbers_or_two_of_them():
    grid = {"machine": ["broadwell-ep"], "spawn_hz": [100, 1000], "gap_ns": [0.0, 500.0]}
    found = tc.sweep("syscall-heavy", grid, fixed={"duration_s": 0.01})
    assert found.plot().get_xlabel() == "spawn (1/s)"
    heat = found.plot("kernel_share", "spawn_hz", against="gap_ns", where={"policy": "ipi"})
    assert (heat.get_xlabel(), heat.get_ylabel()) == ("spawn (1/s)", "gap (ns)")
    names = tc.sweep("syscall-heavy", {"machine": ["broadwell-ep", "skylake-sp"]}, fixed={"duration_s": 0.01})
    with pytest.raises(tc.SweepError, match="no parameter has numbers to draw over: machine, policy"):
        names.plot()
    assert len(plt.get_fignums()) == 2, "a figure that was not drawn is closed"


def test_figures_are_as_wide_as_columns(explained):
    assert explained.plot(columns=2).figure.get_size_inches()[0] == 7.0
    assert explained.plot().figure.get_size_inches()[0] == 3.35
    for columns in (0, 3, True, "2"):
        with pytest.raises(tc.ConfigError, match="columns must be 1 or 2"):
            explained.plot(columns=columns)


@pytest.mark.parametrize("ending", ["pdf", "svg", "png"])
def test_files_are_the_same_bytes_for_the_same_result(compared, tmp_path, ending):
    one, two = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    compared.plot("entry_mean_ns", file=one)
    compared.plot("entry_mean_ns", file=two)
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes()[:5].strip() in (b"%PDF-", b"<?xml", b"\x89PNG")
    if ending == "svg":
        assert "coalesce-v7" in one.read_text(), "text stays text"


def test_a_file_that_cannot_be_is_refused(compared, tmp_path):
    with pytest.raises(tc.ConfigError, match=r"written as \.pdf, \.svg or \.png"):
        compared.plot(file=tmp_path / "a.jpg")
    with pytest.raises(OSError, match="nowhere"):
        compared.plot(file="/nowhere/a.png")


def test_axes_that_are_given_are_used(explained):
    _, axes = plt.subplots()
    assert explained.plot(axes=axes) is axes
    assert len(plt.get_fignums()) == 1


def test_drawing_leaves_matplotlib_s_settings_alone(explained):
    before = dict(matplotlib.rcParams)
    explained.plot()
    with pytest.raises(tc.ConfigError):
        explained.plot("nonsense")
    assert dict(matplotlib.rcParams) == before


def test_names_of_strangers_are_visible(compared):
    from tlbcore.plot import _canvas

    assert _canvas.marked("a\x1b[31m‮", False) == "a\\x1b[31m\\u202e"


def shown(name: str, explained: tc.Explanation, compared: tc.Comparison) -> Any:
    """The axes of a picture."""
    if name == "comparison":
        return compared.plot("syscall_mean_ns")
    if name == "explanation":
        return explained.plot(columns=2)
    if name == "latency":
        return compared["coalesce-v7"].plot("syscall_isolated")
    if name == "miss-curve":
        return tc.miss_curve(np.tile(np.arange(64, dtype=np.uint64), 4), sets=[1, 4, 8], ways=16).plot()
    assert name == "replay"
    return tc.replay(explained.trace, ["ipi", "coalesce-v7"]).plot()


SHOWN = ("comparison", "explanation", "latency", "miss-curve", "replay")


def raster(axes: Any) -> np.ndarray:
    """A figure as a small grey picture, in which type is a shade."""
    out = io.BytesIO()
    axes.figure.savefig(out, format="png", dpi=50)
    out.seek(0)
    return grey(matplotlib.image.imread(out))


def grey(picture: np.ndarray) -> np.ndarray:
    return (picture[..., :3].mean(axis=2) if picture.ndim == 3 else picture) * 255


def difference(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.sqrt(((one - two) ** 2).mean()))


TOLERANCE = 8.0  # of 255, root mean square: another version's type and antialiasing


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_is_the_one_that_was_looked_at(name, explained, compared):
    drawn = raster(shown(name, explained, compared))
    kept = grey(matplotlib.image.imread(PICTURES / f"{name}.png"))
    assert drawn.shape == kept.shape
    assert difference(drawn, kept) < TOLERANCE


def test_another_picture_is_another(explained, compared):
    other = compared.plot("entry_mean_ns")
    same = raster(compared.plot("syscall_mean_ns"))
    assert difference(raster(other), same) > TOLERANCE


if __name__ == "__main__":  # python -m tests.package.test_plot_results: write the pictures, then look at them
    load = tc.scenarios.syscall_heavy(duration_s=0.01, spawn_hz=1000)
    result = tc.compare(
        load, machine="broadwell-ep", policies=["ipi", "coalesce-v7", "invlpgb"], replications=3
    )
    PICTURES.mkdir(exist_ok=True)
    for each in SHOWN:
        picture = raster(shown(each, tc.explain(tc.read_trace(RECORDING)), result))
        matplotlib.image.imsave(PICTURES / f"{each}.png", picture, cmap="gray", vmin=0, vmax=255)
