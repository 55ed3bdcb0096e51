"""Sweeps of real simulations: identities, results, executors, and what happens when things break."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios
from tlbcore.sweeps import batches
from tlbcore.sweeps import run as sweeps

FIXED = {"duration_s": 0.02, "cpus": 4}
GRID = {"spawn_hz": [1000, 4000], "gap_ns": [100.0, 300.0, 900.0]}


def rows(sweep: sweeps.Sweep) -> dict[tuple[object, ...], tuple[float, ...]]:
    """The metrics by point, whatever the order of rows."""
    names = (*sorted(sweep.parameters), "replication", "seed")
    keys = zip(*(sweep.table[name].tolist() for name in names), strict=True)
    values = zip(*(np.nan_to_num(sweep.table[name], nan=-1).tolist() for name in sweep.metrics), strict=True)
    found = list(zip(keys, values, strict=True))
    assert len({key for key, _ in found}) == len(found), "a point stands twice"
    return dict(found)


@pytest.fixture(scope="module")
def undisturbed() -> dict[tuple[object, ...], tuple[float, ...]]:
    return rows(tc.sweep("syscall-heavy", GRID, fixed=FIXED, replications=2, threads=1))


def test_a_point_is_the_simulation_it_says():
    sweep = tc.sweep("syscall-heavy", {"spawn_hz": [4000]}, fixed=FIXED, policies=["coalesce-v7"])
    seed = int(sweep.table["seed"][0])
    load = scenarios.syscall_heavy(spawn_hz=4000, **FIXED)
    alone = tc.compare(load, machine="broadwell-ep-e5-2699v4", policies=["coalesce-v7"], seed=seed)
    isolated = list(alone.table["cpu_class"]).index("isolated")
    compared = 0
    for name in sweep.metrics:
        if name in alone.table:
            expected = alone.table[name][isolated]
            assert sweep.table[name][0] == pytest.approx(expected, rel=1e-9, nan_ok=True), name
            compared += 1
    assert compared > 8
    assert sweep.table["syscalls_per_s"][0] > 1e5


def test_a_metric_is_a_figure_of_any_class_of_cpus():
    names = ["entry_p999_ns", "housekeeping_wait_mean_us", "all_syscalls_per_s", "all_purges_per_hour"]
    fixed = {"cpus": 4, "isolated": "2-3", "duration_s": 10.0}
    options = {"fixed": fixed, "policies": ["coalesce-v7"]}
    sweep = tc.sweep("trading", {"spawn_hz": [4000]}, metrics=names, **options)
    assert sweep.metrics == tuple(names)
    assert dict(sweep.units) == dict(zip(names, ["ns", "us", "1/s", "1/h"], strict=True))
    load = scenarios.trading(spawn_hz=4000, **fixed)
    run = tc.simulate(
        load, machine="broadwell-ep-e5-2699v4", policy="coalesce-v7", seed=int(sweep.table["seed"][0])
    )
    expected = [
        run.figure("entry_p999_ns"), run.figure("wait_mean_us", "housekeeping"),
        run.figure("syscalls_per_s", "all"), run.figure("purges_per_hour", "all"),
    ]  # fmt: skip
    assert [float(sweep.table[name][0]) for name in names] == expected
    whole = tc.sweep("trading", {"spawn_hz": [4000]}, **options)
    assert whole.table["seed"][0] == sweep.table["seed"][0], "metrics do not enter seeds"


def calls_of_cpu_1(run: tc.SimResult) -> float:
    return run.table["syscalls"][1]


def test_a_metric_of_ones_own_sees_the_result_of_its_point():
    seen = []

    def program_runs(run: tc.SimResult) -> int:
        seen.append((run.policy.name, run.machine, run.seed, len(run.timeline["cpu"])))
        return run.program_runs

    sweep = tc.sweep(
        "syscall-heavy", {"spawn_hz": [10, 20]}, metrics=[program_runs, "syscalls_per_s"], fixed=FIXED,
        machine="skylake-sp",
    )  # fmt: skip
    assert sweep.metrics == ("syscalls_per_s", "program_runs")
    assert sweep.units["program_runs"] == ""
    wanted = {
        (p, "skylake-sp", int(s), 0) for p, s in zip(sweep.table["policy"], sweep.table["seed"], strict=True)
    }
    assert set(seen) == wanted
    assert len(seen) == len(sweep) == 4
    for i, policy in enumerate(sweep.table["policy"]):
        load = scenarios.syscall_heavy(spawn_hz=sweep.table["spawn_hz"][i], **FIXED)
        run = tc.simulate(load, machine="skylake-sp", policy=policy, seed=int(sweep.table["seed"][i]))
        assert sweep.table["program_runs"][i] == run.program_runs


def test_a_metric_of_ones_own_that_fails_is_the_error_of_its_row():
    def above(run: tc.SimResult) -> object:
        if run.policy.name == "ipi":
            raise RuntimeError("not this one")
        return "many"

    sweep = tc.sweep("syscall-heavy", {"spawn_hz": [10]}, metrics=[above], fixed=FIXED)
    errors = dict(zip(sweep.table["policy"], sweep.table["error"], strict=True))
    assert errors["ipi"] == "RuntimeError: not this one"
    assert errors["coalesce-v7-fixed"] == "SweepError: above must return a number: got 'many'"
    assert np.isnan(sweep.table["above"]).all()


def test_metrics_that_cannot_be_are_refused(tmp_path: Path):
    def seed(run: tc.SimResult) -> float:
        return 0.0

    for metrics, message in (
        (["ipis_per_hours"], "unknown metric 'ipis_per_hours', did you mean"),
        ("ipis_per_hour", "metrics is a list of names and functions"),
        ([], "at least one metric"),
        ([3], "a metric is the name of a figure or a function with a name: got 3"),
        ([lambda _: 0.0], "a function with a name"),
        ([seed], "called 'seed', which is the name of another column"),
        (["user_share", "user_share"], "metric 'user_share' is given twice"),
    ):
        with pytest.raises(tc.SweepError, match=message):
            tc.sweep("syscall-heavy", {"spawn_hz": [10]}, metrics=metrics, fixed=FIXED)
    with pytest.raises(tc.SweepError, match="out= takes metrics by name only"):
        tc.sweep("syscall-heavy", {"spawn_hz": [10]}, metrics=[calls_of_cpu_1], fixed=FIXED, out=tmp_path)
    tc.sweep("syscall-heavy", {"spawn_hz": [10]}, metrics=["user_share"], fixed=FIXED, out=tmp_path / "a")
    with pytest.raises(tc.SweepError, match="holds another sweep: its metrics is"):
        tc.sweep("syscall-heavy", {"spawn_hz": [10]}, fixed=FIXED, out=tmp_path / "a")


def test_a_break_even_takes_a_metric_of_ones_own():
    def in_the_kernel(run: tc.SimResult) -> float:
        return run.figure("kernel_share")

    both = [
        tc.break_even(
            "trading", "calls_hz", 0.01, 10, metric=metric, fixed={"duration_s": 20, "spawn_hz": 2000}, tolerance=0.5,
        )
        for metric in ("kernel_share", in_the_kernel)
    ]  # fmt: skip
    assert both[0].value == both[1].value
    assert both[1].metric == "in_the_kernel"


@pytest.mark.parametrize("threads", [2, 3])
def test_rows_do_not_depend_on_threads(undisturbed, threads: int):
    again = tc.sweep("syscall-heavy", GRID, fixed=FIXED, replications=2, threads=threads)
    assert rows(again) == undisturbed


def test_policies_of_a_point_share_their_seed():
    sweep = tc.sweep("syscall-heavy", GRID, fixed=FIXED, replications=2)
    table = sweep.table
    ipi, fixed = (table["policy"] == name for name in ("ipi", "coalesce-v7-fixed"))
    assert sorted(table["seed"][ipi]) == sorted(table["seed"][fixed])
    assert len(set(table["seed"])) == len(sweep) / 2


def test_kernel_machine_and_policy_are_parameters():
    grid = {
        "kernel.flush_ceiling": [1, 33],
        "machine": ["broadwell-ep-e5-2699v4", "cascade-lake-sp"],
        "policy": ["ipi", "coalesce-v7"],
        ("spawn_hz", "gap_ns"): [(1000, 100.0), (4000, 300.0)],
    }
    with pytest.warns(tc.InertPolicyWarning, match="`coalesce-v7` does nothing in 4 of 8 rows"):
        sweep = tc.sweep("syscall-heavy", grid, fixed=FIXED)
    assert len(sweep) == 16
    assert set(sweep.parameters) == {"kernel.flush_ceiling", "machine", "policy", "spawn_hz", "gap_ns"}
    table = sweep.table
    entry = table["entry_flush_ns"]
    pti = table["machine"] == "broadwell-ep-e5-2699v4"
    assert (entry[pti & (table["policy"] == "coalesce-v7")] > 0).all()
    assert (entry[~pti] == 0).all(), "without PTI the policy is inert"


def test_a_policy_of_ones_own_is_named_with_its_digest():
    from tlbcore import op

    mine = tc.policies["coalesce-v7"].replace(name="mine", coalesce=[op.invpcid(2)])
    sweep = tc.sweep("syscall-heavy", {"spawn_hz": [1000]}, fixed=FIXED, policies=["ipi", mine])
    assert set(sweep.table["policy"]) == {"ipi", f"mine@{mine.digest[:8]}"}


def test_a_function_or_a_scenario_is_a_base_too():
    by_function = tc.sweep(scenarios.spawn_storm, {"rate_hz": [500]}, fixed={"duration_s": 0.1})
    by_object = tc.sweep(scenarios.spawn_storm(rate_hz=500, duration_s=0.1), {"rcu_ms": [5.0, 20.0]})
    assert (len(by_function), len(by_object)) == (2, 4)


def test_a_function_that_changed_is_computed_anew(tmp_path: Path):
    base_ns = 300.0

    def base(gap_ns: float, duration_s: float) -> tc.Scenario:  # a parameter without a default
        return scenarios.syscall_heavy(gap_ns=gap_ns, base_ns=base_ns, duration_s=duration_s, cpus=4)

    def run() -> tuple[sweeps.Sweep, int]:
        told = []
        swept = tc.sweep(base, {"gap_ns": [100.0, 300.0]}, fixed={"duration_s": 0.02}, out=tmp_path / "out",
                         progress=lambda done, _: told.append(done))  # fmt: skip
        return swept, max(told, default=0)

    first, computed = run()
    assert computed == 4
    again, computed = run()
    assert computed == 0
    assert rows(again) == rows(first)
    base_ns = 900.0
    changed, computed = run()
    assert computed == 4
    assert (changed.table["syscall_mean_ns"] > first.table["syscall_mean_ns"] + 550).all()
    assert changed.table["seed"].tolist() == first.table["seed"].tolist()


def test_inert_policies_are_marked_and_two_of_them_are_not_compared(tmp_path: Path):
    """Without PTI `coalesce-*` does nothing: the row has mainline's figures, and says so."""
    grid = {"machine": ["broadwell-ep-e5-2699v4", "cascade-lake-sp"], "policy": ["ipi", "coalesce-v7"]}
    for out in (None, tmp_path / "out"):
        with pytest.warns(tc.InertPolicyWarning, match="`coalesce-v7` does nothing in 1 of 2 rows"):
            table = tc.sweep("syscall-heavy", grid, fixed=FIXED, out=out).table
        assert table["inert"].tolist() == [False, False, False, True]
    load = tc.scenarios.syscall_heavy(**FIXED)
    assert "Meltdown" in tc.simulate(load, machine="cascade-lake-sp", policy="coalesce-v7").inert[0]
    assert tc.simulate(load, machine="broadwell-ep", policy="coalesce-v7").inert == ()
    with pytest.raises(tc.SweepError, match=r"both do nothing here.*coalesce-v7` is inert.*Meltdown"):
        tc.break_even("syscall-heavy", "gap_ns", 1, 2, policies=("coalesce-v6", "coalesce-v7"),
                      machine="cascade-lake-sp", fixed=FIXED)  # fmt: skip


def test_rows_of_another_engine_are_not_taken_for_this_ones(tmp_path: Path, monkeypatch):
    tc.sweep("syscall-heavy", {"gap_ns": [100.0]}, fixed=FIXED, out=tmp_path)
    monkeypatch.setattr(tc._core, "engine", lambda: "0" * 32)
    with pytest.raises(tc.SweepError, match="holds another sweep: its engine is"):
        tc.sweep("syscall-heavy", {"gap_ns": [100.0]}, fixed=FIXED, out=tmp_path)


def test_an_exception_of_ones_own_is_the_row_of_its_point(tmp_path: Path):
    def base(gap_ns: float = 100.0) -> tc.Scenario:
        if gap_ns == 300:
            raise ZeroDivisionError("three hundred")
        return scenarios.syscall_heavy(gap_ns=gap_ns, **FIXED)

    for out in (None, tmp_path / "out"):
        sweep = tc.sweep(base, {"gap_ns": [100.0, 300.0, 900.0]}, policies=["ipi"], out=out)
        assert sweep.table["error"].tolist() == [None, "ZeroDivisionError: three hundred", None]
        assert np.isfinite(sweep.table["syscall_mean_ns"]).tolist() == [True, False, True]


def test_row_i_is_sample_i_for_salib_pandas_polars_and_qmc():
    """First-order indices of a known function of two parameters come out right only if rows keep their order."""
    pandas = pytest.importorskip("pandas")
    bounds = np.array([[100.0, 4000.0], [100.0, 900.0]])
    rng = np.random.default_rng(4)
    x = rng.uniform(*bounds.T, size=(16, 2))
    x[9] = x[2]
    frames = [pandas.DataFrame(x, columns=["spawn_hz", "gap_ns"])]
    if polars := sys.modules.get("polars") or pytest.importorskip("polars"):
        frames.append(polars.DataFrame({"spawn_hz": x[:, 0], "gap_ns": x[:, 1]}))
    expected = None
    for frame in frames:
        with ProcessPoolExecutor(2) as pool:
            sweep = tc.sweep("syscall-heavy", samples=frame, policies=["ipi"], fixed=FIXED, executor=pool)
        assert sweep.table["spawn_hz"].tolist() == x[:, 0].tolist()
        assert sweep.table["gap_ns"].tolist() == x[:, 1].tolist()
        assert sweep.table["sample"].tolist() == list(range(16))
        assert sweep.table["syscalls_per_s"][9] == sweep.table["syscalls_per_s"][2]
        expected = expected or rows_in_order(sweep)
        assert rows_in_order(sweep) == expected


def rows_in_order(sweep: sweeps.Sweep) -> list[bytes]:
    return [sweep.table[name].tobytes() for name in sweep.metrics]


def test_salibs_indices_are_those_of_the_model(tmp_path: Path):
    sobol = pytest.importorskip("SALib.analyze.sobol")
    sample = pytest.importorskip("SALib.sample.sobol").sample
    problem = {"num_vars": 2, "names": ["base_ns", "gap_ns"], "bounds": [[300.0, 900.0], [100.0, 1000.0]]}
    samples = sample(problem, 64, calc_second_order=False, seed=1)
    with ProcessPoolExecutor(2) as pool:
        sweep = tc.sweep("syscall-heavy", samples=samples, names=problem["names"], policies=["ipi"],
                         fixed={**FIXED, "spawn_hz": 0.001}, executor=pool, out=tmp_path / "out")  # fmt: skip
    found = sobol.analyze(problem, sweep.table["syscall_mean_ns"], calc_second_order=False, seed=1)
    # A system call takes what its body takes, whatever the gap to the next: S1 = 1 and 0.
    assert found["S1"] == pytest.approx([1.0, 0.0], abs=0.1)
    again = tc.read_sweep(tmp_path / "out")
    np.testing.assert_array_equal(again.table["syscall_mean_ns"], sweep.table["syscall_mean_ns"])


def test_samples_of_salib_work_unasked():
    rng = np.random.default_rng(1)
    problem = {"names": ["spawn_hz", "gap_ns"]}
    samples = rng.uniform([100, 100], [4000, 900], size=(10, 2))
    sweep = tc.sweep("syscall-heavy", samples=samples, names=problem["names"], fixed=FIXED)
    assert len(sweep) == 20
    assert set(sweep.table["gap_ns"]) == set(samples[:, 1])


def test_a_point_that_cannot_be_is_a_row_with_its_error():
    sweep = tc.sweep("syscall-heavy", {"isolated": ["2-3", "0-1", "2-9"]}, fixed=FIXED)
    failed = dict(zip(sweep.failed["isolated"].tolist(), sweep.failed["error"].tolist(), strict=True))
    assert set(failed) == {"0-1", "2-9"}
    assert "CPU 0 cannot be isolated" in failed["0-1"]
    assert np.isfinite(sweep.table["syscall_mean_ns"][sweep.table["isolated"] == "2-3"]).all()


def test_a_policy_that_the_machine_lacks_is_a_row_with_its_error_or_inert():
    sweep = tc.sweep("syscall-heavy", {"cpus": [4, 0]}, fixed={"duration_s": 0.02})
    assert set(sweep.failed["cpus"]) == {0}


def test_a_stopped_sweep_goes_on_and_a_widened_grid_computes_only_what_is_new(tmp_path: Path, undisturbed):
    out = tmp_path / "out"
    small = {**GRID, "gap_ns": [100.0]}
    steps: list[float] = []
    tc.sweep("syscall-heavy", small, fixed=FIXED, replications=2, out=out)
    sweep = tc.sweep(
        "syscall-heavy",
        GRID,
        fixed=FIXED,
        replications=2,
        out=out,
        progress=lambda done, _: steps.append(done),
    )
    assert steps[-1] == 24 - 8
    assert rows(sweep) == undisturbed
    steps.clear()
    tc.sweep(
        "syscall-heavy",
        GRID,
        fixed=FIXED,
        replications=2,
        out=out,
        progress=lambda done, _: steps.append(done),
    )
    assert not steps
    assert rows(tc.read_sweep(out)) == undisturbed


def test_a_process_pool_gives_the_same_rows(tmp_path: Path, undisturbed):
    with ProcessPoolExecutor(2) as pool:
        sweep = tc.sweep(
            "syscall-heavy", GRID, fixed=FIXED, replications=2, executor=pool, out=tmp_path / "out"
        )
    assert rows(sweep) == undisturbed


DRIVER = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
import tlbcore as tc
from tlbcore.sweeps import batches
batches.BATCH_SECONDS = 0.02
sys.path.insert(0, sys.argv[2])
from test_sweep import FIXED, GRID
def pool():
    made = ProcessPoolExecutor(2)
    list(made.map(int, range(4)))
    print(*[process.pid for process in made._processes.values()], flush=True)
    return made
# The rest between batches leaves time to be killed in, however busy the machine is.
tc.sweep("syscall-heavy", {**GRID, "base_ns": [500.0, 600.0, 700.0]}, fixed={**FIXED, "duration_s": 0.1},
         replications=3, out=sys.argv[1], executor=pool, progress=lambda *_: time.sleep(float(sys.argv[3])))
"""


def test_kill_9_of_workers_and_of_the_driver_loses_and_doubles_nothing(tmp_path: Path):
    whole = {**GRID, "base_ns": [500.0, 600.0, 700.0]}
    expected = rows(tc.sweep("syscall-heavy", whole, fixed={**FIXED, "duration_s": 0.1}, replications=3))
    out = tmp_path / "out"
    workers_killed = drivers_killed = 0
    rng = np.random.default_rng(3)
    for attempt in range(8):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(out), str(Path(__file__).parent), "0.2" if attempt < 5 else "0"],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        with driver:
            assert driver.stdout is not None
            workers = [int(pid) for pid in driver.stdout.readline().split()]
            before = set(out.glob("*.parquet"))
            while attempt < 5 and driver.poll() is None and set(out.glob("*.parquet")) <= before:
                time.sleep(0.005)
            time.sleep(float(rng.uniform(0.0, 0.02)))
            if attempt < 5 and driver.poll() is None:
                if attempt % 2 and workers:
                    os.kill(workers[0], signal.SIGKILL)
                    workers_killed += 1
                    time.sleep(0.3)
                if driver.poll() is None:
                    os.killpg(driver.pid, signal.SIGKILL)
                    drivers_killed += 1
            driver.communicate(timeout=300)
        if driver.returncode == 0:
            break
    assert driver.returncode == 0
    assert drivers_killed >= 2
    assert workers_killed >= 1
    assert rows(tc.read_sweep(out)) == expected


def test_a_corrupt_part_is_computed_again(tmp_path: Path, undisturbed):
    out = tmp_path / "out"
    tc.sweep("syscall-heavy", GRID, fixed=FIXED, replications=2, out=out)
    (part,) = out.glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-50])
    assert rows(tc.sweep("syscall-heavy", GRID, fixed=FIXED, replications=2, out=out)) == undisturbed
    assert list(out.glob("*.corrupt"))


def test_ctrl_c_leaves_a_directory_that_goes_on(tmp_path: Path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'scenario = "syscall-heavy"\nreplications = 50\n[fixed]\nduration_s = 0.5\n[grid]\nspawn_hz = [1000, 4000]\n'
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tlbcore", "sweep", str(grid), "--out", str(out), "--threads", "1"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(out.glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    driver.send_signal(signal.SIGINT)
    printed, complaint = driver.communicate(timeout=60)
    assert (driver.returncode, printed) == (130, "")
    assert complaint == f"tlbcore: interrupted; what is done is in {out}, and the same command goes on\n"
    assert 0 < len(tc.read_sweep(out)) < 200


@pytest.mark.parametrize("kept", [False, True])
def test_ctrl_c_returns_what_is_done(tmp_path: Path, kept: bool):
    out = tmp_path / "out" if kept else None
    load = {"base": "syscall-heavy", "grid": {"spawn_hz": [1000, 4000]}, "fixed": FIXED, "replications": 200}

    def stop(done: float, _total: float | None) -> None:
        signal.raise_signal(signal.SIGINT)

    part = tc.sweep(**load, out=out, threads=1, progress=stop)
    assert part.interrupted
    assert 0 < len(part) < 800
    whole = tc.sweep(**load, out=out)
    assert (len(whole), whole.interrupted) == (800, False)
    everything = rows(whole)
    assert all(everything[key] == values for key, values in rows(part).items())


def test_progress_counts_what_is_left_to_do_not_what_the_directory_holds(tmp_path: Path):
    told: list[tuple[float, float | None]] = []
    tc.sweep("syscall-heavy", {"gap_ns": [1, 2, 3]}, fixed=FIXED, out=tmp_path)
    tc.sweep(
        "syscall-heavy",
        {"gap_ns": [3, 4]},
        fixed=FIXED,
        out=tmp_path,
        progress=lambda *args: told.append(args),
    )
    assert told[-1] == (2, 2)
    assert sum(told[-1]) == 4


def test_break_even_between_ipis_and_entry_flushes_is_a_few_calls_a_second():
    """An interrupt costs each isolated CPU microseconds per purge, an entry flush half of one per system call."""
    load = {"duration_s": 20, "spawn_hz": 2000}
    found = tc.break_even("trading", "calls_hz", 0.01, 10, metric="kernel_share", fixed=load, tolerance=0.2)
    assert (found.cheaper_below, found.cheaper_above) == ("coalesce-v7-fixed", "ipi")
    assert 0.01 < found.low <= found.value <= found.high < 10
    sides = {"calls_hz": [found.low / 2, found.high * 2]}
    around = tc.sweep("trading", sides, fixed=load, replications=20)
    means = {
        (value, policy): around.table["kernel_share"][
            (around.table["calls_hz"] == value) & (around.table["policy"] == policy)
        ].mean()
        for value in sides["calls_hz"]
        for policy in ("ipi", "coalesce-v7-fixed")
    }
    below, above = sides["calls_hz"]
    assert means[below, "coalesce-v7-fixed"] < means[below, "ipi"]
    assert means[above, "coalesce-v7-fixed"] > means[above, "ipi"]


def test_a_break_even_of_an_unknown_metric_gets_the_nearest():
    with pytest.raises(tc.SweepError, match="did you mean 'kernel_share'"):
        tc.break_even("trading", "calls_hz", 1, 10, metric="kernel_shar")


def test_a_large_sweep_asks_first_and_says_how_long_it_takes(monkeypatch):
    monkeypatch.setattr(sweeps, "MANY", 100)
    with pytest.raises(tc.SweepError, match=r"^400 points would take about [\d.,]+ hours .* GB .*--yes"):
        tc.sweep("syscall-heavy", {"gap_ns": list(range(200))}, fixed=FIXED)
    assert len(tc.sweep("syscall-heavy", {"gap_ns": list(range(60))}, fixed=FIXED, yes=True)) == 120


def test_a_billion_points_are_counted_without_being_made():
    axis = list(range(1000))
    grid = {"spawn_hz": [x + 1 for x in axis], "gap_ns": axis, "base_ns": [x + 1 for x in axis]}
    with pytest.raises(tc.SweepError, match=r"^2,000,000,000 points would take"):
        tc.sweep("syscall-heavy", grid, fixed=FIXED)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            {"grid": {"spawn_hertz": [1]}},
            tc.SweepError,
            "unknown parameter 'spawn_hertz', did you mean 'spawn_hz'",
        ),
        ({"grid": {"kernel.ptii": [1]}}, tc.SweepError, "did you mean 'kernel.pti'"),
        ({"grid": {}}, tc.SweepError, "the grid is empty"),
        ({"grid": {"gap_ns": []}}, tc.SweepError, "the grid is empty: 'gap_ns' has no values"),
        ({"grid": {"policy": ["coalesce-v9"]}}, tc.PolicyError, "coalesce-v"),
        ({"grid": {"machine": ["skylake-xp"]}}, tc.TlbError, "skylake-"),
        ({"grid": {"gap_ns": [1]}, "policies": []}, tc.SweepError, "at least one policy"),
        ({"grid": {"gap_ns": [1]}, "seed": -1}, tc.SweepError, r"seed must be an integer .* got -1"),
        ({"grid": {"duration_s": [1]}}, tc.SweepError, "'duration_s' is both fixed and varied"),
        ({}, tc.SweepError, "needs a grid or samples"),
    ],
)
def test_bad_sweeps_are_refused(arguments: dict[str, object], kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        tc.sweep("syscall-heavy", fixed=FIXED, **arguments)


def test_an_unknown_scenario_gets_the_nearest():
    with pytest.raises(tc.SimError, match="did you mean 'syscall-heavy'"):
        tc.sweep("syscal-heavy", {"gap_ns": [1]})


GOOD = 'scenario = "syscall-heavy"\n[fixed]\nduration_s = 0.02\n[grid]\nspawn_hz = [1000, 4000]\n'


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlbcore", "sweep", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_line_writes_a_data_set_and_shows_means(tmp_path: Path):
    (tmp_path / "grid.toml").write_text(GOOD)
    done = cli(tmp_path / "grid.toml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"4 points in {tmp_path / 'out'}\n")
    assert "syscall_mean_ns" in done.stdout
    again = json.loads(cli(tmp_path / "grid.toml", "--out", tmp_path / "out", "--json").stdout)
    assert (again["schema"], again["version"], again["points"]) == ("tlbcore.sweep", 1, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scenario = ", "grid.toml: invalid value"),
        ('scenario = "rteval"\ngird = 1\n', "unknown key 'gird', did you mean 'grid'"),
        ("[grid]\nx = [1]\n", "scenario is missing"),
        ('scenario = "syscall-heavy"\n', "the grid is empty"),
        ('scenario = "syscall-heavy"\n[grid]\nspam = [1]\n', "unknown parameter 'spam'"),
        ('scenario = "syscall-heavy"\n[grid]\nspawn_hz = 3\n', "must be a list of values"),
        ('scenario = "syscall-heavy"\n[[zip]]\nspawn_hz = [1]\ngap_ns = [1, 2]\n', "must have one length"),
        ('scenario = "syscall-heavy"\n[kernel]\nptii = true\n[grid]\nspawn_hz = [1]\n', "ptii"),
    ],
)
def test_a_bad_file_is_one_line_and_status_2(tmp_path: Path, text: str, message: str):
    (tmp_path / "grid.toml").write_text(text)
    done = cli(tmp_path / "grid.toml", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tlbcore: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_directory_of_another_sweep_is_refused(tmp_path: Path):
    (tmp_path / "grid.toml").write_text(GOOD)
    cli(tmp_path / "grid.toml", "--out", tmp_path / "out")
    (tmp_path / "grid.toml").write_text("seed = 2\n" + GOOD)
    done = cli(tmp_path / "grid.toml", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "holds another sweep: its seed is 1, not 2" in done.stderr
    assert len(tc.read_sweep(tmp_path / "out")) == 4


def test_batches_are_sized_for_executors():
    assert 0.2 <= batches.BATCH_SECONDS <= 1.0


def test_the_page_of_sweeps_lists_every_metric_that_is_computed_by_default():
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|$", page, re.MULTILINE)
    assert rows == list(tc.sweep("quiet", {"cpus": [4]}, fixed={"duration_s": 0.001}).units.items())


def test_the_file_on_the_page_is_a_sweep(tmp_path: Path):
    from tlbcore.cli import sweep as command

    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "grid.toml").write_text(text)
    plan = command._read(tmp_path / "grid.toml")
    plan["fixed"] = {"duration_s": 0.01}
    plan["replications"] = 1
    assert len(tc.sweep(**plan)) == 12


def test_the_dask_example_gives_the_rows_of_threads(tmp_path: Path):
    pytest.importorskip("distributed")
    script = Path(__file__).parents[2] / "examples" / "dask_sweep.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    namespace = runpy.run_path(str(script))
    alone = tc.sweep(namespace["SCENARIO"], namespace["GRID"], **namespace["OPTIONS"])
    assert rows(tc.read_sweep(tmp_path / "out")) == rows(alone)


DASK = """
import os, signal, sys
import tlbcore as tc
from distributed import Client, LocalCluster
sys.path.insert(0, sys.argv[2])
from test_sweep import cli, DASK_LOAD

def main():
    from tlbcore.sweeps import batches
    batches.BATCH_SECONDS = batches.LEAST_SECONDS = 0.05
    killed = []
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        def kill(done, total):
            if done > 20 * (len(killed) + 1) and len(killed) < 3:
                alive = {nanny.pid for nanny in cluster.workers.values()} - {None, *killed}
                if alive:
                    killed.append(min(alive))
                    os.kill(killed[-1], signal.SIGKILL)
        tc.sweep(**DASK_LOAD, executor=client.get_executor(), out=sys.argv[1], progress=kill)
        print(len(killed), flush=True)
        done = cli(sys.argv[3], "--out", sys.argv[1] + "-cli", "--dask", cluster.scheduler_address)
        print(done.returncode, done.stdout.splitlines()[0], done.stderr)

if __name__ == "__main__":
    main()
"""
DASK_LOAD = {
    "base": "syscall-heavy", "grid": {"spawn_hz": [1000, 4000]}, "fixed": {**FIXED, "duration_s": 2.0},
    "replications": 50,
}  # fmt: skip


def test_kill_9_of_dask_workers_loses_and_doubles_nothing(tmp_path: Path):
    pytest.importorskip("distributed")
    (tmp_path / "driver.py").write_text(DASK)
    (tmp_path / "grid.toml").write_text(GOOD)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "out"), str(Path(__file__).parent),
         str(tmp_path / "grid.toml")],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed, command = done.stdout.splitlines()[:2]
    assert killed == "3"
    assert command.strip() == f"0 4 points in {tmp_path / 'out'}-cli"
    assert rows(tc.read_sweep(tmp_path / "out")) == rows(tc.sweep(**DASK_LOAD))


@pytest.mark.slow  # Dask tries for ten seconds
def test_an_address_without_a_cluster_is_one_line(tmp_path: Path):
    pytest.importorskip("distributed")
    (tmp_path / "grid.toml").write_text(GOOD)
    done = cli(tmp_path / "grid.toml", "--out", tmp_path / "out", "--dask", "tcp://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("tlbcore: error: ")
    assert not (tmp_path / "out").exists()
