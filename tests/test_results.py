"""The rows of a sweep as a table, in memory and on disk."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tlbcore import SweepError, _batches, _results
from tlbcore._batches import Outcome
from tlbcore._parts import Directory
from tlbcore._points import Batch, Points, grid_axes, sample_axis

METRICS = ("cost_ns", "ipis")
UNITS = {"cost_ns": "ns", "ipis": "count"}


def job(batch: Batch, threads: int) -> Outcome:
    x = np.asarray(batch.columns["x"])
    errors = [f"{value:g} is unlucky" if value == 13 else None for value in x]
    return Outcome(metrics={"cost_ns": 2 * x + batch.replications, "ipis": x}, errors=errors)


def points(count: int = 20) -> Points:
    return Points("base", 1, grid_axes({"x": range(count), "policy": ["ipi", "ct-late"]}), replications=3)


def in_memory(some: Points) -> _results.Sweep:
    rows = _results.Memory(METRICS)
    list(_batches.drive_threads(some, job, rows.done.contains, rows.sink, 1))
    return _results.from_memory(rows, some.names, METRICS, UNITS, {"seed": 1})


def on_disk(some: Points, path: Path) -> _results.Sweep:
    with Directory(path, {"seed": 1}, UNITS) as directory:
        rows = _results.Disk(directory, METRICS)
        list(_batches.drive_threads(some, job, rows.done.contains, rows.sink, 1))
        directory.compact()
    return _results.from_directory(path)


def test_memory_and_disk_hold_the_same_rows(tmp_path: Path):
    memory, disk = in_memory(points()), on_disk(points(), tmp_path)
    assert memory.parameters == disk.parameters == ("x", "policy")
    assert dict(memory.units) == dict(disk.units) == UNITS
    order = [
        np.lexsort((sweep.table["replication"], sweep.table["policy"], sweep.table["x"]))
        for sweep in (memory, disk)
    ]
    for name in memory.table:
        here, there = memory.table[name][order[0]], disk.table[name][order[1]]
        np.testing.assert_array_equal(here, there, err_msg=name)


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
    frame = on_disk(points(), tmp_path).to_pandas()
    assert frame.groupby("policy").ipis.sum().to_dict() == {"ipi": 531.0, "ct-late": 531.0}
    polars = pytest.importorskip("polars")
    assert polars.read_parquet(tmp_path / "*.parquet")["ipis"].sum() == 1062
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.sql(f"select sum(ipis) from '{tmp_path}/*.parquet'").fetchall() == [(1062,)]


def test_effects_and_front_take_the_parameters_of_the_sweep(tmp_path: Path):
    sweep = on_disk(points(), tmp_path)
    effects = sweep.effects("cost_ns")
    assert set(effects["parameter"]) == {"x", "policy"}
    assert sweep.pareto(["cost_ns"])["x"].tolist() == [0, 0]


def test_reading_a_million_rows_keeps_only_the_columns_asked_for(tmp_path: Path):
    sweep = on_disk(points(), tmp_path)
    assert "cost_ns" in sweep.table
    assert not sweep.table._loaded
    assert len(sweep) == 120
    assert sorted(sweep.table._loaded) == ["seed"]


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
        _results.from_directory(path)


def test_memory_needs_no_pyarrow():
    script = (
        "import sys; sys.modules['pyarrow'] = None; sys.path.insert(0, sys.argv[1])\n"
        "from test_results import in_memory, points; print(len(in_memory(points())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "120\n"
