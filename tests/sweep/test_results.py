"""The rows of a sweep as a table, in memory and on disk."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from tlbcore import SweepError
from tlbcore.sweeps import batches, results
from tlbcore.sweeps.batches import Outcome
from tlbcore.sweeps.parts import Directory
from tlbcore.sweeps.points import Batch, Points, grid_axes, sample_axis

METRICS = ("cost_ns", "ipis")
UNITS = {"cost_ns": "ns", "ipis": "count"}


def job(batch: Batch, threads: int) -> Outcome:
    x = np.asarray(batch.columns["x"])
    errors = [f"{value:g} is unlucky" if value == 13 else None for value in x]
    return Outcome(metrics={"cost_ns": 2 * x + batch.replications, "ipis": x}, errors=errors)


def points(count: int = 20) -> Points:
    return Points("base", 1, grid_axes({"x": range(count), "policy": ["ipi", "ct-late"]}), replications=3)


def in_memory(some: Points) -> results.Sweep:
    rows = results.Memory(METRICS)
    list(batches.drive_threads(some, job, rows.done.contains, rows.sink, 1))
    return results.from_memory(rows, some.design(), METRICS, UNITS, {"seed": 1})


def on_disk(some: Points, path: Path) -> results.Sweep:
    with Directory(path, {"seed": 1}, UNITS) as directory:
        directory.plan(some.design())
        rows = results.Disk(directory, METRICS)
        list(batches.drive_threads(some, job, rows.done.contains, rows.sink, 1))
        directory.compact()
    return results.from_directory(path)


def test_memory_and_disk_hold_the_same_rows(tmp_path: Path):
    memory, disk = in_memory(points()), on_disk(points(), tmp_path)
    assert memory.parameters == disk.parameters == ("x", "policy")
    assert dict(memory.units) == dict(disk.units) == UNITS
    assert list(memory.table) == list(disk.table)
    for name in memory.table:
        np.testing.assert_array_equal(memory.table[name], disk.table[name], err_msg=name)


@pytest.mark.parametrize("kept", [False, True])
def test_a_failed_point_is_a_row_with_its_error_and_no_metrics(tmp_path: Path, kept: bool):
    sweep = on_disk(points(), tmp_path) if kept else in_memory(points())
    assert len(sweep) == 120
    assert set(sweep.failed["error"]) == {"13 is unlucky"}
    assert len(sweep.failed["x"]) == 6
    assert np.isnan(sweep.table["cost_ns"]).sum() == 6


def test_xarray_has_a_dimension_per_parameter(tmp_path: Path):
    pytest.importorskip("xarray")
    cube = on_disk(points(), tmp_path).to_xarray()
    assert cube["cost_ns"].sizes == {"x": 20, "policy": 2, "replication": 3}
    assert float(cube["cost_ns"].sel(x=7, policy="ipi", replication=2)) == 16
    assert cube["cost_ns"].attrs == {"units": "ns"}
    assert cube["cost_ns"].sel(x=13).isnull().all()


def test_samples_are_points_along_one_dimension():
    pytest.importorskip("xarray")
    some = Points("base", 1, [sample_axis({"x": np.linspace(0, 1, 50), "y": np.linspace(5, 9, 50)})])
    cube = in_memory(some).to_xarray()
    assert cube["cost_ns"].sizes == {"point": 50}
    assert "x" in cube.coords


def test_pandas_polars_and_duckdb_read_it(tmp_path: Path):
    import pandas
    import pyarrow.dataset

    sweep = on_disk(points(), tmp_path)
    for frame in (sweep.to_pandas(), pandas.DataFrame(sweep.table), pandas.read_parquet(tmp_path)):
        assert frame.groupby("policy").ipis.sum().to_dict() == {"ipi": 531.0, "ct-late": 531.0}
    assert pyarrow.dataset.dataset(tmp_path).to_table(columns=["ipis"]).num_rows == 120
    polars = pytest.importorskip("polars")
    assert polars.read_parquet(tmp_path / "*.parquet")["ipis"].sum() == 1062  # it takes no other files beside
    assert polars.DataFrame(sweep.table)["ipis"].fill_nan(0).sum() == 1062
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.sql(f"select sum(ipis) from '{tmp_path}/*.parquet'").fetchall() == [(1062,)]


def test_every_table_is_one_that_pandas_takes_and_that_nobody_can_change():
    sweep = in_memory(points())
    with pytest.raises(TypeError, match="cannot be changed"):
        sweep.table["ipis"] = np.zeros(120)
    with pytest.raises(ValueError, match="read-only"):
        sweep.table["ipis"][0] = 1
    mine = dict(sweep.table)
    mine["ipis"] = np.zeros(120)
    assert sweep.table["ipis"].any()


class Backwards:
    """An executor whose last batch is done first: a few are computed at once, in the wrong order."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future, tuple]] = []

    _max_workers = 4

    def submit(self, *call: object) -> Future:
        future: Future = Future()
        self._waiting.append((future, call))
        if len(self._waiting) == 8:
            self._run()
        return future

    def _run(self) -> None:
        for future, (function, *arguments) in reversed(self._waiting):
            future.set_result(function(*arguments))
        self._waiting.clear()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("order", ["threads", "backwards", "resumed"])
def test_row_i_is_sample_i_however_they_were_computed(tmp_path: Path, kept: bool, order: str, monkeypatch):
    rng = np.random.default_rng(3)
    x = rng.permutation(64).astype(float)
    x[50] = x[3]  # a sample that was drawn twice
    policy = grid_axes({"policy": ["ipi", "ct-late"]})[0]
    some = Points("base", 1, [sample_axis({"x": x}), policy], replications=2)

    def drive(into: Points, done, sink) -> None:
        monkeypatch.setattr(batches, "BATCH_SECONDS", 0.0)  # one point a batch
        monkeypatch.setattr(batches, "LEAST_SECONDS", 0.0)
        if order == "backwards":
            # 8 = 2 x _max_workers fly at once; what is left at the end is computed in order
            monkeypatch.setattr(
                batches, "wait", lambda flying, **_: (executor._run(), (set(flying), set()))[1]
            )
            executor = Backwards()
            list(batches.drive_executor(into, job, done, sink, executor))
        else:
            list(batches.drive_threads(into, job, done, sink, 1))

    if kept:
        with Directory(tmp_path, {"seed": 1}, UNITS) as directory:
            rows = results.Disk(directory, METRICS)
            if order == "resumed":  # an earlier design of the same sweep left some of the rows, and others
                before = sample_axis({"x": np.concatenate([x[40:60], [1000.0, 1001.0]])})
                drive(Points("base", 1, [before, policy], replications=2), rows.done.contains, rows.sink)
        with Directory(tmp_path, {"seed": 1}, UNITS) as directory:
            directory.plan(some.design())
            rows = results.Disk(directory, METRICS)
            drive(some, rows.done.contains, rows.sink)
        sweep = results.from_directory(tmp_path)
    else:
        memory = results.Memory(METRICS)
        drive(some, memory.done.contains, memory.sink)
        sweep = results.from_memory(memory, some.design(), METRICS, UNITS, {"seed": 1})
    assert len(sweep) == 64 * 2 * 2
    one = (sweep.table["policy"] == "ct-late") & (sweep.table["replication"] == 1)
    assert sweep.table["x"][one].tolist() == x.tolist()
    assert sweep.table["sample"][one].tolist() == list(range(64))
    assert sweep.table["point"].tolist() == np.repeat(np.arange(128), 2).tolist()
    np.testing.assert_array_equal(
        sweep.table["ipis"], np.where(sweep.table["x"] == 13, np.nan, sweep.table["x"])
    )


def test_every_row_of_every_design_is_read_only_when_asked_for(tmp_path: Path):
    on_disk(points(5), tmp_path)
    last = on_disk(Points("base", 1, grid_axes({"x": [9, 2], "policy": ["ipi"]}), replications=3), tmp_path)
    assert last.table["x"].tolist() == [9] * 3 + [2] * 3
    every = results.from_directory(tmp_path, every=True)
    assert len(every) == 5 * 2 * 3 + 3
    assert every.table["x"].tolist() == sorted(every.table["x"])


def test_an_order_that_was_damaged_is_an_error(tmp_path: Path):
    on_disk(points(5), tmp_path)
    data = bytearray((tmp_path / "_design").read_bytes())
    # The header's name of a field, its number of replications, and a key.
    for place in (3, data.index(b'"replications": 3') + 16, len(data) - 5):
        bad = bytearray(data)
        bad[place] ^= 1
        (tmp_path / "_design").write_bytes(bad)
        with pytest.raises(SweepError, match="the order of the rows is damaged"):
            results.from_directory(tmp_path)


def test_effects_and_front_take_the_parameters_of_the_sweep(tmp_path: Path):
    sweep = on_disk(points(), tmp_path)
    effects = sweep.effects("cost_ns")
    assert set(effects["parameter"]) == {"x", "policy"}
    assert sweep.pareto(["cost_ns"])["x"].tolist() == [0, 0]


def test_reading_a_million_rows_keeps_only_the_columns_asked_for(tmp_path: Path):
    sweep = on_disk(points(), tmp_path)
    assert "cost_ns" in sweep.table
    assert not sweep.table.loaded
    assert len(sweep) == 120
    assert sweep.table.loaded == ("seed",)


def test_a_table_keeps_its_rows_while_its_files_are_merged_and_deleted(tmp_path: Path):
    sweep = on_disk(points(), tmp_path)
    (part,) = tmp_path.glob("*.parquet")
    part.unlink()
    assert len(sweep) == 120


@pytest.mark.parametrize("kept", [False, True])
def test_a_sweep_survives_pickling(tmp_path: Path, kept: bool):
    sweep = on_disk(points(), tmp_path) if kept else in_memory(points())
    again = pickle.loads(pickle.dumps(sweep))
    assert sweep.table["ipis"].tobytes() == again.table["ipis"].tobytes()
    assert (again.parameters, again.units, again.path) == (sweep.parameters, sweep.units, sweep.path)


@pytest.mark.parametrize("what", ["nothing", "empty"])
def test_reading_no_sweep_is_an_error(tmp_path: Path, what: str):
    path = tmp_path / "out"
    if what == "empty":
        Directory(path, {}, UNITS).close()
    with pytest.raises(SweepError, match=r"holds no sweep|has no rows yet"):
        results.from_directory(path)


def test_memory_needs_no_pyarrow():
    script = (
        "import sys; sys.modules['pyarrow'] = None; sys.path.insert(0, sys.argv[1])\n"
        "from test_results import in_memory, points; print(len(in_memory(points())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "120\n"


SAMPLES = {"x": [0.5, 0.25, 0.5], "y": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    ("axes", "x", "policy", "sample", "point"),
    [
        # Two replications of two policies of three samples; then three samples of each policy.
        (["samples", "policy"], [0.5] * 4 + [0.25] * 4 + [0.5] * 4, "iicciicciicc", [0] * 4 + [1] * 4 + [2] * 4,
         [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (["policy", "samples"], [0.5, 0.5, 0.25, 0.25, 0.5, 0.5] * 2, "iiiiiicccccc", [0, 0, 1, 1, 2, 2] * 2,
         [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
    ],
)  # fmt: skip
def test_a_row_says_which_point_and_sample_it_is(axes, x, policy, sample, point):
    made = {"samples": sample_axis(SAMPLES), "policy": grid_axes({"policy": ["i", "c"]})[0]}
    some = Points("base", 1, [made[name] for name in axes], replications=2)
    assert len(some) == 12
    table = in_memory(some).table
    assert table["x"].tolist() == x
    assert "".join(table["policy"].tolist()) == policy
    assert table["sample"].tolist() == sample
    assert table["point"].tolist() == point
    assert table["replication"].tolist() == [0, 1] * 6
    y = {0: 1.0, 1: 2.0, 2: 3.0}
    assert table["y"].tolist() == [y[i] for i in sample]
    assert table["cost_ns"].tolist() == [2 * a + b for a, b in zip(x, [0, 1] * 6, strict=True)]
    assert some.batch(3, 100).replications.tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    part = some.batch(0, 12).select(slice(2, 4))
    assert (len(part), part.columns["policy"], part.replications.tolist()) == (
        2, ["c", "c"] if axes[0] == "samples" else ["i", "i"], [0, 1]
    )  # fmt: skip


def test_a_grid_has_no_samples():
    design = points(2).design()
    assert (design.samples, design.rows_per_sample, design.replications) == (0, 1, 3)
    assert set(design.numbers(np.arange(12))) == {"point"}
    assert design.numbers(np.arange(12))["point"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(("rows", "grid"), [(4, False), (5, True), (8, True)])
def test_a_grid_of_which_half_is_there_is_still_one(rows: int, grid: bool):
    """Three values by three: nine cells are more than twice four rows, not more than twice five."""
    pytest.importorskip("xarray")
    cells = [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 1)][:rows]
    x, y = (np.array(column, dtype=float) for column in zip(*cells, strict=True))
    whole = in_memory(Points("base", 1, [sample_axis({"x": x, "y": y})]))
    cube = whole.to_xarray()
    assert cube["cost_ns"].sizes == ({"x": 3, "y": 3, "replication": 1} if grid else {"point": rows})
    values = cube["cost_ns"].values
    assert np.isnan(values).sum() == (9 - rows if grid else 0)
    if grid:
        assert float(cube["cost_ns"].sel(x=2, y=2, replication=0)) == 4.0


def test_rows_in_which_a_policy_does_nothing_are_counted():
    table = {
        "policy": np.array(["a", "b", "a", "c", "b", "a"]),
        "inert": np.array([True, False, True, False, True, False]),
    }
    assert results.inert_policies(table) == [
        "`a` does nothing in 2 of 3 rows", "`b` does nothing in 1 of 2 rows",
    ]  # fmt: skip
    assert results.inert_policies({**table, "inert": np.zeros(6, dtype=bool)}) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid_axes({}), "the grid is empty"),
        (lambda: grid_axes({"x": []}), "'x' has no values"),
        (lambda: grid_axes({"x": "ab"}), "must be a list of values: got 'ab'"),
        (lambda: grid_axes({"x": [1, 2, 1.0]}), "has the value 1.0 twice"),
        (lambda: grid_axes({("x", "y"): [(1, 2), (1, 2)]}), r"has the value \(1.0, 2.0\) twice"),
        (lambda: grid_axes({("x", "y"): [(1, 2), (1,)]}), r"needs 2 values in each row: got \(1,\)"),
        (lambda: sample_axis({"x": [1], "y": [1, 2]}), r"differ in length: \[1, 2\]"),
        (lambda: sample_axis({"x": []}), "the samples are empty"),
        (lambda: sample_axis({}), "the samples are empty"),
        (lambda: sample_axis([[1, 2]]), "samples without names"),
        (lambda: sample_axis([[1, 2]], ["x"]), r"must have shape \(n, 1\): got \(1, 2\)"),
        (lambda: sample_axis([1, 2], ["x"]), r"must have shape \(n, 1\): got \(2,\)"),
        (lambda: sample_axis({"x": [1, "a"]}), "numbers only or names only: got 'a'"),
        (lambda: sample_axis({"x": [1, float("nan")]}), "must hold finite numbers"),
        (lambda: Points("b", 1, grid_axes({"x": [1]}) * 2), "parameter 'x' is given twice"),
        (lambda: Points("b", 1, grid_axes({"x": [1]}), replications=0), "replications must be"),
    ],
)
def test_points_that_cannot_be_are_refused(make, message: str):
    with pytest.raises(SweepError, match=message):
        make()
