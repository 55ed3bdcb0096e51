"""A sweep with a plot: `python examples/sweep_plot.py PICTURE.png`."""

from __future__ import annotations

import sys

import tlbcore as tc


def main(picture: str) -> None:
    """Draw what a system call takes over the rate of process creation, with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = tc.sweep(
        "syscall-heavy",
        {"spawn_hz": [100, 1000, 10_000]},
        policies=["ipi", "coalesce-v7", "coalesce-v7-fixed"],
        fixed={"duration_s": 0.2},
        replications=4,
    )
    figure, axes = pyplot.subplots()
    tc.plot.sweep(axes, found, "spawn_hz", "syscall_mean_ns")
    figure.savefig(picture)
    means = found.effects("syscall_mean_ns", ["policy"])
    for policy, mean, low, high in zip(
        *(means[name] for name in ("value", "mean", "low", "high")), strict=True
    ):
        print(f"{policy}: {mean:.1f} ns ({low:.1f} to {high:.1f}, predicted)")


if __name__ == "__main__":
    main(sys.argv[1])
