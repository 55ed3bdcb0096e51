"""One table of figures: Python, pages, stubs, text, JSON and sweeps say what it says, in the units that they name.

The value of each figure is worked out in `src/sim/figures/tests.rs`, a row per figure.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios
from tlbcore._input import vocabulary as _vocabulary
from tlbcore.cli import main
from tlbcore.simulation.compare import _comparison
from tlbcore.simulation.figures import vocabulary

MACHINE = "broadwell-ep-e5-2699v4"
NAMES = [figure.name for figure in tc.figures()]


def clockwork(duration_s: float, slow: int = 2, fast: int = 3) -> scenarios.Scenario:
    """Nothing drawn: two isolated CPUs that call at different rates, a flush every 100 us, a tick every 400 us."""
    purge = [{"program": "purge", "pages": 0, "cause": "purge"}]
    return scenarios.Scenario(
        name="clockwork", duration_s=duration_s, cpus=4, isolated=(2, 3), abstraction="Nothing is drawn.",
        actors=(
            scenarios.syscalls((slow,), base_ns=900.0, gap_ns=5000.0, name="slow"),
            scenarios.syscalls((fast,), base_ns=700.0, gap_ns=1000.0, name="fast"),
            scenarios.idle("housekeeping"),
            scenarios.chain(purge, (0,), rate_hz=10_000, poisson=False),
            scenarios.interrupts((fast,), rate_hz=2500, cause="tick", poisson=False),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def busy() -> tc.SimResult:
    load = scenarios.user_shootdown(duration_s=0.05)
    return tc.simulate(load, machine=MACHINE, policy="coalesce-v7")


def test_a_result_and_a_comparison_have_every_figure_in_the_tables_order(busy):
    assert list(busy.figures) == ["cpu_class", "cpus", *NAMES]
    found = tc.compare(clockwork(0.01), machine=MACHINE, policies=["ipi"])
    assert list(found.table) == ["policy", "cpu_class", "cpus", "replications", "inert", *NAMES]
    many = tc.compare(clockwork(0.01), machine=MACHINE, policies=["ipi"], replications=2)
    ends = [f"{name}{end}" for name in NAMES for end in ("", "_low", "_high")]
    assert list(many.table) == ["policy", "cpu_class", "cpus", "replications", "inert", *ends]
    assert found.table["cpu_class"].tolist() == ["isolated", "housekeeping", "all"]
    assert found.table["cpus"].tolist() == [2, 2, 4]
    whole = tc.simulate(scenarios.hackbench(duration_s=0.01, isolated=()), machine=MACHINE)
    assert whole.figures["cpu_class"].tolist() == ["housekeeping", "all"]


def test_every_figure_is_on_the_page_with_unit_sentence_and_formula():
    page = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (.*) \| `(.*)` \|$", page, re.MULTILINE)
    assert rows == [(f.name, f.unit, f.doc, f.how) for f in tc.figures()]


def test_the_names_that_type_checkers_know_are_those_of_the_core():
    text = Path(_vocabulary.__file__).read_text()
    assert text == vocabulary(), "python -m tests.package.test_docs writes it"


def test_a_figure_of_a_result_is_its_cell(busy):
    for row, cpu_class in enumerate(busy.figures["cpu_class"].tolist()):
        for name in NAMES:
            assert busy.figure(name, cpu_class) == pytest.approx(busy.figures[name][row], rel=0, nan_ok=True)
    with pytest.raises(tc.SimError, match="unknown figure 'syscall_mean_n', did you mean 'syscall_mean_ns'"):
        busy.figure("syscall_mean_n")
    with pytest.raises(tc.SimError, match="unknown class of CPUs 'isolate', did you mean 'isolated'"):
        busy.figure("ipis_per_hour", "isolate")


def test_figures_follow_from_the_statistics_and_latencies_of_the_same_result(busy):
    """By their formulas, in Python: the units of `table`, `latencies` and `figures` are what their names say."""
    unit_ps = {"ns": 1e3, "us": 1e6}
    checked = 0
    for row, cpu_class in enumerate(busy.figures["cpu_class"].tolist()):
        chosen = {"isolated": busy.table["isolated"], "housekeeping": ~busy.table["isolated"]}.get(cpu_class)
        total = {
            name: float(busy.table[name][... if chosen is None else chosen].sum()) for name in busy.table
        }
        cpu_seconds = busy.duration_s * int(busy.figures["cpus"][row])
        for figure in tc.figures():
            value = busy.figures[figure.name][row]
            if found := re.fullmatch(r"(\w+) / \(cpus \* (hours|seconds|time)\)", figure.how):
                scale = {"hours": 3600.0, "seconds": 1.0, "time": 1e-12}[found[2]]
                scale *= 1e-6 if figure.unit == "us/h" else 1.0
                expected = total[found[1]] * scale / cpu_seconds
            elif found := re.fullmatch(r"(.*) of latencies\[\"(\w+)\"\]", figure.how):
                kinds = {"mean": "mean_ps", "50% quantile": "p50_ps", "90% quantile": "p90_ps",
                         "99% quantile": "p99_ps", "99.9% quantile": "p999_ps", "maximum": "max_ps"}  # fmt: skip
                one = busy.latencies[f"{found[2]}_{cpu_class}"]
                expected = one[kinds[found[1]]] / unit_ps[figure.unit] if one["count"] else math.nan
            elif found := re.fullmatch(r"(\w+_ps) / (\w+)", figure.how):
                count = total[found[2]]
                expected = total[found[1]] / unit_ps[figure.unit] / count if count else math.nan
            else:
                continue
            assert value == pytest.approx(expected, rel=1e-12, nan_ok=True), figure.name
            checked += 1
    assert checked >= 150


def test_classes_add_up(busy):
    """Figures are per CPU, so that of all is the mean of those of the classes, by their CPUs."""
    cpus = busy.figures["cpus"].astype(float)
    assert cpus[2] == cpus[0] + cpus[1]
    for figure in tc.figures():
        if figure.how.endswith(("(cpus * hours)", "(cpus * seconds)")):
            values = busy.figures[figure.name]
            assert values[2] * cpus[2] == pytest.approx(values[0] * cpus[0] + values[1] * cpus[1], rel=1e-12)
    for kind in ("entry", "syscall", "interruption", "wait"):
        counts = [busy.latencies[f"{kind}_{name}"]["count"] for name in ("isolated", "housekeeping", "all")]
        assert counts[2] == counts[0] + counts[1] > 0, kind


@pytest.mark.parametrize("policy", ["ipi", "coalesce-v7"])
def test_twice_the_duration_doubles_counts_and_leaves_rates(policy):
    once, twice = (tc.simulate(clockwork(s), machine=MACHINE, policy=policy) for s in (0.2, 0.4))
    longest = ("longest_quiet_ps", "wait_max_ps")
    counted = 0
    for statistic in tc.statistics():
        if statistic.name in longest:
            continue
        a, b = (run.table[statistic.name].astype(float) for run in (once, twice))
        # What is under way at an end is counted on one side of it: one system call, flush, tick and interrupt with
        # their events, at most 30 events or 40 us per CPU and end.
        edge = 30 if statistic.unit == "count" else 40e6
        edge *= 16 if statistic.name.startswith("refill_misses") else 1  # a call touches 12 + 4 pages
        assert (np.abs(b - 2 * a) <= 2 * edge).all(), statistic.name
        counted += bool((a > 50 * edge).any())
    assert counted > 5
    for figure in tc.figures():
        if figure.name.endswith("_max_ns") or figure.name in ("wait_max_us", "shortest_longest_quiet_s"):
            continue
        a, b = (run.figures[figure.name] for run in (once, twice))
        for x, y, how_many in zip(a, b, once.figures["cpus"], strict=True):
            if math.isnan(x) or math.isnan(y):
                continue
            if figure.unit in ("1/h", "1/s", "us/h"):  # the same edges as a rate over 0.2 s
                how_many *= 16 if figure.name.startswith("refill_misses") else 1
                per = {"1/h": 3600.0, "1/s": 1.0, "us/h": 3600.0 * 40 / 30}[figure.unit]
                assert abs(x - y) <= 2 * 30 * per / 0.2 * float(how_many), figure.name
            else:
                assert x == pytest.approx(y, rel=0.05, abs=1e-3), figure.name


def test_a_permutation_of_cpus_permutes_rows():
    """Both isolated CPUs are on one socket, so only the order of sends within a round tells them apart."""
    a = tc.simulate(clockwork(0.2, slow=2, fast=3), machine=MACHINE)
    b = tc.simulate(clockwork(0.2, slow=3, fast=2), machine=MACHINE)
    for statistic in tc.statistics():
        x, y = (run.table[statistic.name].astype(float) for run in (a, b))
        np.testing.assert_allclose(x[[2, 3]], y[[3, 2]], rtol=1e-3, atol=2, err_msg=statistic.name)
    assert a.table["syscalls"][3] > 3 * a.table["syscalls"][2] > 1000
    for name in ("ipis_per_hour", "syscalls_per_s", "syscall_mean_ns", "user_share"):
        assert a.figure(name) == pytest.approx(b.figure(name), rel=1e-3), name


def test_replications_with_different_seeds_differ_and_the_same_seed_does_not():
    load = scenarios.trading(duration_s=0.5)
    found = tc.compare(load, machine=MACHINE, policies=["ipi", "coalesce-v7"], replications=5)
    ipi = [run for run in found.results if run.policy.name == "ipi"]
    assert len({run.seed for run in ipi}) == 5
    assert len({run.table["syscalls"].tobytes() for run in ipi}) == 5
    width = found.table["syscalls_per_s_high"][0] - found.table["syscalls_per_s_low"][0]
    assert width > 0
    values = [run.figure("syscalls_per_s") for run in ipi]
    assert found.table["syscalls_per_s"][0] == pytest.approx(np.mean(values), rel=1e-12)
    # Student's t for five values: 2.776 standard errors on both sides.
    assert width == pytest.approx(2 * 2.7764 * np.std(values, ddof=1) / math.sqrt(5), rel=1e-4)
    again = tc.simulate(load, machine=MACHINE, policy="ipi", seed=ipi[3].seed)
    assert again.table == ipi[3].table


def test_text_and_json_and_python_say_the_same(capsys):
    argv = [
        "compare",
        "--scenario",
        "trading",
        "--duration",
        "0.2",
        "--policy",
        "ipi",
        "--policy",
        "coalesce-v7",
    ]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert main([*argv, "--all-figures"]) == 0
    everything = capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    kernel = tc.Kernel(broadcast_tlb_flush=True)
    found = tc.compare(
        scenarios.trading(duration_s=0.2), machine=MACHINE, kernel=kernel, policies=["ipi", "coalesce-v7"]
    )
    for name in NAMES:
        values = [None if math.isnan(x) else x for x in found.table[name].tolist()]
        assert document["table"][name] == values, name
    for shown, full in ((text, False), (everything, True)):
        shown = shown.replace("per CPU, all together (", "per all CPU (")
        parts = re.split(r"^per (\w+) CPU \(predicted\)\s*$", shown, flags=re.MULTILINE)[1:]
        assert parts[::2] == ["isolated", "housekeeping", "all"][: 3 if full else 2]
        for cpu_class, part in zip(parts[::2], parts[1::2], strict=True):
            rows = np.flatnonzero(found.table["cpu_class"] == cpu_class)
            lines = {words[0]: words[1:] for line in part.splitlines() if (words := line.split())}
            for figure in tc.figures():
                values = [float(found.table[figure.name][i]) for i in rows]
                something = any(not math.isnan(x) and x != 0 for x in values)
                assert (figure.name in lines) == (something and (full or figure.brief)), figure.name
                for cell, value in zip(lines.get(figure.name, values), values, strict=True):
                    if figure.name in lines and cell != "-":
                        assert float(cell) == pytest.approx(value, rel=6e-4), figure.name


def test_a_plot_labels_the_figure_with_its_unit():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    found = tc.compare(clockwork(0.01), machine=MACHINE, policies=["ipi"])
    _, axes = plt.subplots()
    tc.plot.comparison(axes, found, "wait_mean_us", cpu_class="housekeeping")
    words = " ".join(axes.get_ylabel().split())
    assert words == "Mean wait of an initiator, per flush or sync that it requested (us, predicted)"
    (point,) = axes.lines
    assert point.get_ydata().tolist() == [found["ipi"].figure("wait_mean_us", "housekeeping")]


# The table of a comparison, of made-up runs: what is a mean, what an interval, and what is only known from low to high.


def made_up(
    policy: str, value: float, *, cpus: tuple[int, int] = (2, 5), **changes: object
) -> SimpleNamespace:
    """Return a run in which every figure is 1 but `wait_mean_us`: `value` on isolated CPUs, ten times it on all."""
    columns = {figure.name: np.ones(2) for figure in tc.figures()}
    columns["wait_mean_us"] = np.array([value, 10 * value])
    figures = {"cpu_class": np.array(["isolated", "all"]), "cpus": np.array(cpus), **columns}
    usual = {"duration_s": 1.0, "inert": (), "figures": figures, "policy": SimpleNamespace(name=policy)}
    return SimpleNamespace(**(usual | changes))


nan = math.nan
T = 12.706204736  # Student's t of one degree of freedom: of two values the half is t times half their distance


@pytest.mark.parametrize(
    ("values", "ends", "mean", "low", "high"),
    [
        ([3.0], [], 3.0, None, None),
        ([2.0, 4.0], [], 3.0, 3 - T, 3 + T),
        ([3.0, 3.0], [], 3.0, 3.0, 3.0),
        ([2.0, nan], [], nan, nan, nan),
        # With the costs low and high it is another figure: no mean, and the interval spans them and the seeds.
        ([3.0], [1.0, 7.0], nan, 1.0, 7.0),
        ([3.0], [3.0, 7.0], nan, 3.0, 7.0),
        ([3.0], [3.0, 3.0], 3.0, nan, nan),
        ([2.0, 4.0], [-20.0, 5.0], nan, -20.0, 3 + T),
        ([nan], [nan, nan], nan, nan, nan),
        ([nan], [nan, 4.0], nan, 4.0, 4.0),
        ([3.0], [nan, 4.0], nan, 3.0, 4.0),
    ],
)
def test_a_cell_of_a_comparison_is_a_mean_or_an_interval(values, ends, mean, low, high):
    runs = tuple(made_up("a", value) for value in values)
    bounds = tuple(made_up("a", value) for value in ends)
    table = _comparison(runs, ("a",), bounds).table
    assert ("wait_mean_us_low" in table) is (low is not None)
    assert table["cpu_class"].tolist() == ["isolated", "all"]
    assert table["cpus"].tolist() == [2, 5]
    assert table["replications"].tolist() == [len(values)] * 2
    for row, scale in enumerate((1, 10)):
        cell = [table["wait_mean_us"][row] / scale]
        if low is not None:
            cell += [table[f"wait_mean_us_{end}"][row] / scale for end in ("low", "high")]
        assert cell == pytest.approx([mean, low, high][: len(cell)], nan_ok=True)
        assert table["ipis_per_hour"][row] == 1.0, "what costs do not change is a mean"


def test_policies_are_rows_in_their_order_and_runs_that_did_not_begin_are_none():
    runs = (
        made_up("b", 1.0, inert=("why",)),
        made_up("a", 2.0, duration_s=0.0),
        made_up("b", 3.0, inert=("why",)),
        made_up("c", 5.0),
        made_up("d", 6.0, duration_s=0.0),
        made_up("c", 9.0, duration_s=0.0),
    )
    found = _comparison(runs, ("c", "a", "b", "d"))
    assert found.table["policy"].tolist() == ["c", "c", "b", "b"]
    assert found.table["replications"].tolist() == [1, 1, 2, 2]
    assert found.table["inert"].tolist() == [False, False, True, True]
    assert found.table["wait_mean_us"].tolist() == [5.0, 50.0, 2.0, 20.0]
    assert np.isnan(found.table["wait_mean_us_low"]).tolist() == [True, True, False, False]
    assert list(found) == ["c", "a", "b", "d"]
    assert len(found) == 4
    assert found["b"] is runs[0], "that of the first seed"
    with pytest.raises(KeyError):
        found["e"]
    assert "wait_mean_us_low" not in _comparison(runs[3:4], ("c", "e")).table, "one run at most: no interval"


def test_a_comparison_is_interrupted_if_any_run_is():
    runs = [made_up("a", 1.0, interrupted=False), made_up("b", 1.0, interrupted=False)]
    assert not _comparison(tuple(runs), ("a", "b")).interrupted
    runs[1].interrupted = True
    assert _comparison(tuple(runs), ("a", "b")).interrupted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policies": []}, "no policy to compare"),
        ({"policies": ["ipi", "ct-late", "ipi"]}, "two policies are called 'ipi': give one another name"),
        ({"replications": 0}, "replications must be"),
        ({"detail": "some"}, "detail must be summary or full: got 'some'"),
        ({"costs": "worst"}, "costs must be best or low or high: got 'worst'"),
        ({"timeline": -1}, "timeline must be"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(options: dict[str, object], message: str):
    with pytest.raises((tc.SimError, tc.ConfigError), match=message):
        tc.compare(tc.scenarios.syscall_heavy(duration_s=0.001), **options)  # type: ignore[arg-type]


def test_seeds_of_replications_are_those_of_one_run_and_then_others():
    load = tc.scenarios.syscall_heavy(duration_s=0.001, spawn_hz=1000)
    found = tc.compare(load, machine="broadwell-ep", policies=["ipi", "ct-late"], seed=7, replications=3)
    seeds = [[run.seed for run in found.results if run.policy.name == name] for name in found]
    assert seeds[0] == seeds[1]
    assert seeds[0][0] == 7
    assert len(set(seeds[0])) == 3
    alone = tc.simulate(load, machine="broadwell-ep", policy="ct-late", seed=seeds[0][2])
    again = [run for run in found.results if run.policy.name == "ct-late"][2]
    assert alone.table["kernel_ps"].tolist() == again.table["kernel_ps"].tolist()
    assert sorted(found._about()["seeds"]) == sorted(seeds[0])
