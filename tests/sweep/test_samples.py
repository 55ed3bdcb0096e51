"""Row i is sample i, whoever made the samples, whoever computed them and whoever reads the rows: with real packages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc

NAMES = ["spawn_hz", "gap_ns"]
FIXED = {"duration_s": 0.01, "cpus": 8, "isolated": "4-7"}
COUNT = 24


def drawn() -> np.ndarray[Any, Any]:
    """Samples in no order, one of them twice."""
    samples = np.random.default_rng(11).uniform([100, 100], [4000, 900], size=(COUNT, 2))
    samples[17] = samples[5]
    return samples


def swept(samples: Any, **options: Any) -> tc.Sweep:
    return tc.sweep("syscall-heavy", samples=samples, policies=["ipi"], fixed=FIXED, **options)


@pytest.fixture(scope="module")
def expected() -> list[float]:
    """One simulation after the other: nothing that could be in another order."""
    table = [swept({name: [value] for name, value in zip(NAMES, row, strict=True)}).table for row in drawn()]
    found = [float(one["syscalls_per_s"][0]) for one in table]
    assert len(set(found)) == COUNT - 1
    return found


def check(sweep: tc.Sweep, expected: list[float]) -> None:
    samples = drawn()
    assert sweep.table["sample"].tolist() == list(range(COUNT))
    for place, name in enumerate(NAMES):
        assert sweep.table[name].tolist() == samples[:, place].tolist()
    assert sweep.table["syscalls_per_s"].tolist() == expected


def of_numpy() -> dict[str, Any]:
    return {"samples": drawn(), "names": NAMES}


def of_pandas() -> dict[str, Any]:
    pandas = pytest.importorskip("pandas", reason="makes samples as a data frame")
    return {"samples": pandas.DataFrame(drawn(), columns=NAMES)}


def of_polars() -> dict[str, Any]:
    polars = pytest.importorskip("polars", reason="makes samples as a data frame")
    return {"samples": polars.DataFrame(drawn(), schema=NAMES)}


def of_duckdb() -> dict[str, Any]:
    duckdb = pytest.importorskip("duckdb", reason="makes samples as the result of a query")
    pytest.importorskip("pandas", reason="what duckdb's result becomes")
    x = drawn()
    assert len(x) == COUNT
    values = ", ".join(f"({i}, {a!r}, {b!r})" for i, (a, b) in enumerate(x.tolist()))
    query = f"select spawn_hz::double spawn_hz, gap_ns::double gap_ns from (values {values}) t(i, spawn_hz, gap_ns)"
    return {"samples": duckdb.sql(f"{query} order by i").df()}


@pytest.mark.parametrize("make", [of_numpy, of_pandas, of_polars, of_duckdb])
def test_samples_of_every_package_come_back_in_their_order(
    make: Callable[[], dict[str, Any]], expected: list[float]
) -> None:
    check(swept(**make()), expected)


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "directory"])
def test_a_process_pool_gives_them_in_order(kept: bool, expected: list[float], tmp_path: Path) -> None:
    with ProcessPoolExecutor(3) as pool:
        check(swept(**of_numpy(), executor=pool, out=tmp_path / "out" if kept else None), expected)


def test_a_resumed_directory_gives_them_in_order(expected: list[float], tmp_path: Path) -> None:
    swept(drawn()[::-3], names=NAMES, out=tmp_path / "out")  # an earlier design has computed some, backwards
    check(swept(**of_numpy(), out=tmp_path / "out"), expected)
    check(tc.read_sweep(tmp_path / "out"), expected)


DASK = """
import sys, json
sys.path.insert(0, sys.argv[1])

def main():
    from distributed import Client, LocalCluster
    from test_samples import of_numpy, swept
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        table = swept(**of_numpy(), executor=client.get_executor()).table
    print(json.dumps([table["sample"].tolist(), table["spawn_hz"].tolist(), table["syscalls_per_s"].tolist()]))

if __name__ == "__main__":
    main()
"""


def test_a_dask_cluster_gives_them_in_order(expected: list[float], tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster`")
    script = tmp_path / "cluster.py"
    script.write_text(DASK)
    done = subprocess.run(
        [sys.executable, str(script), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [list(range(COUNT)), drawn()[:, 0].tolist(), expected]


def _pandas(file: Path) -> list[Any]:
    pandas = pytest.importorskip("pandas", reason="reads the Parquet file")
    frame = pandas.read_parquet(file)
    return [frame[name].tolist() for name in ("sample", "syscalls_per_s")]


def _polars(file: Path) -> list[Any]:
    polars = pytest.importorskip("polars", reason="reads the Parquet file")
    frame = polars.read_parquet(file)
    return [frame[name].to_list() for name in ("sample", "syscalls_per_s")]


def _duckdb(file: Path) -> list[Any]:
    duckdb = pytest.importorskip("duckdb", reason="reads the Parquet file")
    rows = duckdb.sql(f"select sample, syscalls_per_s from '{file}'").fetchall()
    return [list(column) for column in zip(*rows, strict=True)]


def _pyarrow(file: Path) -> list[Any]:
    dataset = pytest.importorskip("pyarrow.dataset", reason="reads the Parquet file")
    table = dataset.dataset(file).to_table()
    return [table[name].to_pylist() for name in ("sample", "syscalls_per_s")]


@pytest.mark.parametrize("read", [_pandas, _polars, _duckdb, _pyarrow])
def test_every_package_reads_the_rows_of_a_pool_in_order(
    read: Callable[[Path], list[Any]], expected: list[float], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="the extra `tables`")
    with ProcessPoolExecutor(2) as pool:
        result = swept(**of_numpy(), executor=pool, out=tmp_path / "out")
    assert read(result.to_parquet(tmp_path / "rows.parquet")) == [list(range(COUNT)), expected]
    assert result.to_pandas()["syscalls_per_s"].tolist() == expected


def test_salib_finds_the_indices_of_the_model_from_a_pool_and_from_a_file(tmp_path: Path) -> None:
    """A call takes what its body takes, whatever the gap: first-order indices 1 and 0, if rows keep their order."""
    sobol = pytest.importorskip("SALib.analyze.sobol", reason="the peer of sensitivity analysis")
    pandas = pytest.importorskip("pandas", reason="reads the Parquet file")
    from SALib.sample.sobol import sample

    problem = {"num_vars": 2, "names": ["base_ns", "gap_ns"], "bounds": [[300.0, 900.0], [100.0, 1000.0]]}
    samples = sample(problem, 64, calc_second_order=False, seed=1)
    with ProcessPoolExecutor(2) as pool:
        result = tc.sweep(
            "syscall-heavy", samples=samples, names=problem["names"], policies=["ipi"], executor=pool,
            fixed={**FIXED, "spawn_hz": 0.001},
        )  # fmt: skip
    frame = pandas.read_parquet(result.to_parquet(tmp_path / "rows.parquet"))
    for values in (result.table["syscall_mean_ns"], frame["syscall_mean_ns"].to_numpy()):
        found = sobol.analyze(problem, values, calc_second_order=False, seed=1)
        assert found["S1"] == pytest.approx([1.0, 0.0], abs=0.1)
