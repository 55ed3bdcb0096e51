"""Which parameter decides? Sobol indices with SALib, on a pool of processes: `python examples/sensitivity.py`.

Row i of the sweep is sample i, whoever computed it, which is what SALib's analysis needs.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import tlbcore as tc

PROBLEM = {
    "num_vars": 3,
    "names": ["base_ns", "gap_ns", "spawn_hz"],
    "bounds": [[300.0, 900.0], [100.0, 1000.0], [10.0, 1000.0]],
}


def main() -> None:
    """Print first-order indices of what a system call takes under the coalesced flush."""
    from SALib.analyze import sobol
    from SALib.sample.sobol import sample

    samples = sample(PROBLEM, 64, calc_second_order=False, seed=1)
    with ProcessPoolExecutor(2) as pool:
        found = tc.sweep(
            "syscall-heavy", samples=samples, names=PROBLEM["names"], policies=["coalesce-v7-fixed"], executor=pool,
            fixed={"duration_s": 0.01},
        )  # fmt: skip
    indices = sobol.analyze(PROBLEM, found.table["syscall_mean_ns"], calc_second_order=False, seed=1)
    for name, first in zip(PROBLEM["names"], indices["S1"], strict=True):
        print(f"{name}: {abs(first):.2f}")


if __name__ == "__main__":
    main()
