"""What a sweep costs beyond its simulations, and how fast its rows are read back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore.sweeps import batches, results
from tlbcore.sweeps import run as sweeps
from tlbcore.sweeps.batches import Outcome
from tlbcore.sweeps.parts import Directory
from tlbcore.sweeps.points import Batch, Points, grid_axes

COUNT = 10_000


@pytest.fixture
def free_points(monkeypatch):
    """Points that cost nothing, so that what is left is the sweep's own work."""
    core = sweeps._core

    class Free:
        def __getattr__(self, name: str):
            return getattr(core, name)

        def sweep_run(self, *parts):
            count = len(parts[5])
            figures = np.zeros((len(parts[6]), count))
            return figures, [None] * count, np.ones(count, bool), np.zeros(count, bool), None

    monkeypatch.setattr(sweeps, "_core", Free())


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "disk"])
def bench_ten_thousand_points_beyond_the_simulation(benchmark, free_points, tmp_path: Path, kept: bool):
    pytest.importorskip("pyarrow.parquet")
    grid = {"spawn_hz": range(1, 51), "gap_ns": range(20)}
    folders = iter(range(1_000_000))

    def run() -> int:
        out = tmp_path / str(next(folders)) if kept else None
        return len(tc.sweep("syscall-heavy", grid, replications=5, threads=1, out=out, fixed={"cpus": 8}))

    assert benchmark(run) == COUNT
    if benchmark.stats is not None:
        benchmark.extra_info["us_per_point"] = benchmark.stats.stats.median / COUNT * 1e6


def bench_points_of_a_millisecond(benchmark):
    """Real ones, two policies and five seeds each: mostly what is set up anew for every row."""
    grid = {"spawn_hz": [1000 + n for n in range(20)]}
    fixed = {"cpus": 8, "duration_s": 1e-3}

    def run() -> int:
        return len(
            tc.sweep(
                "syscall-heavy", grid, policies=["ipi", "coalesce-v7"], replications=5, threads=1, fixed=fixed
            )
        )

    assert benchmark(run) == 200
    if benchmark.stats is not None:
        benchmark.extra_info["us_per_point"] = benchmark.stats.stats.median / 200 * 1e6


@pytest.mark.parametrize("threads", [1, 2])
def bench_real_points(benchmark, threads: int):
    if threads > (os.cpu_count() or 1):
        pytest.skip("needs two CPUs")
    points = 200 if benchmark.enabled else 20
    grid = {"spawn_hz": [1000 + n for n in range(points // 10)]}
    options = {"fixed": {"cpus": 8, "duration_s": 1.0}, "replications": 5}

    def run() -> int:
        return len(tc.sweep("syscall-heavy", grid, threads=threads, **options))

    assert benchmark(run) == points // 10 * 10
    if benchmark.stats is not None:
        benchmark.extra_info["points_per_second"] = points / benchmark.stats.stats.median


def bench_dask_with_two_local_workers_against_one_thread(benchmark):
    """Points of 10 ms and more; the runs that are compared alternate, since the machine may be shared."""
    distributed = pytest.importorskip("distributed")
    if benchmark.enabled and (os.cpu_count() or 1) < 2:
        pytest.skip("needs two CPUs")
    points, seconds = (600, 60.0) if benchmark.enabled else (4, 0.01)
    grid = {"spawn_hz": [1000 + n for n in range(points // 2)]}
    options = {"fixed": {"cpus": 8, "duration_s": seconds}}
    alone: list[float] = []

    def one_thread() -> None:
        start = time.perf_counter()
        tc.sweep("syscall-heavy", grid, threads=1, **options)
        alone.append(time.perf_counter() - start)

    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        executor = client.get_executor()
        tc.sweep("syscall-heavy", {"spawn_hz": [1, 2, 3, 4]}, executor=executor, **options)  # imports there
        count = benchmark.pedantic(
            lambda: len(tc.sweep("syscall-heavy", grid, executor=executor, **options)),
            setup=one_thread, rounds=3 if benchmark.enabled else 1,
        )  # fmt: skip
    assert count == points
    if benchmark.stats is not None:
        benchmark.extra_info["ms_per_point_on_one_thread"] = min(alone) / points * 1e3
        benchmark.extra_info["speedup"] = min(alone) / benchmark.stats.stats.min


def bench_read_back(benchmark, tmp_path: Path):
    pytest.importorskip("pyarrow.parquet")
    count = 1_000_000 if benchmark.enabled else 10_000
    names = ["a", "b", "c", "d", "e", "f"]
    points = Points("base", 1, grid_axes({"x": range(count // 10)}), replications=10)
    with Directory(tmp_path, {"seed": 1}, dict.fromkeys(names, "1")) as directory:
        rows = results.Disk(directory, names)
        for start in range(0, count, batches.BATCH_POINTS):
            batch: Batch = points.batch(start, start + batches.BATCH_POINTS)
            values = np.asarray(batch.columns["x"])
            rows.sink(batch, Outcome(metrics=dict.fromkeys(names, values), errors=[None] * len(batch)))
        directory.compact()

    def read() -> int:
        result = tc.read_sweep(tmp_path)
        return min(len(result.table[name]) for name in result.table)

    assert benchmark(read) == count
    if benchmark.stats is not None:
        benchmark.extra_info["rows_per_second"] = count / benchmark.stats.stats.median
