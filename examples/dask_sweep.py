"""A sweep on a local Dask cluster: `python examples/dask_sweep.py DIRECTORY`.

On a real cluster, replace `LocalCluster` by the address of its scheduler.
"""

from __future__ import annotations

import sys

import tlbcore as tc

SCENARIO = "syscall-heavy"
GRID = {"spawn_hz": [100, 1000, 4000], "gap_ns": [0.0, 500.0, 2000.0]}
OPTIONS = {"fixed": {"duration_s": 0.05}, "replications": 4}


def main(directory: str) -> None:
    """Start two workers, sweep, and say how many rows there are."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        result = tc.sweep(SCENARIO, GRID, **OPTIONS, executor=client.get_executor(), out=directory)
    print(f"{len(result)} points in {directory}")


if __name__ == "__main__":
    main(sys.argv[1])
