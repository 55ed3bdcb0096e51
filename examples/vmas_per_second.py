"""From which rate of freed VMAs on is the coalesced flush better than interrupts?

`python examples/vmas_per_second.py PICTURE.png`

A machine of 64 CPUs, 48 of them isolated. One housekeeping CPU allocates and frees vmalloc areas (VMAs of the
kernel); when enough of them have piled up, a purge flushes every CPU. Mainline interrupts the isolated CPUs for that.
The coalesced flush (`coalesce-v7-fixed`) does not, and pays at each entry into the kernel instead. So it is worse
below a rate of frees that grows with the rate of system calls. This finds that rate for three rates of system calls,
with the interval that repetitions leave open.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tlbcore as tc

CALLS_HZ = (0.1, 1.0, 10.0)
POLICIES = ("ipi", "coalesce-v7-fixed")


def load(vmas_hz: float, calls_hz: float) -> tc.Scenario:
    """Return the workload: frees of 4-page areas (and a guard page) on CPU 0, system calls on 48 isolated CPUs."""
    place = tc.scenarios
    return tc.Scenario(
        name="vmas",
        abstraction="A free is its share of a purge; system calls have 900 ns of work (unsourced).",
        duration_s=20.0 / calls_hz,  # about ten purges near the break-even, whatever the rate
        cpus=64,
        isolated=tc.scenarios.cpu_list("16-63"),
        actors=(
            place.syscalls("isolated", base_ns=900.0, gap_ns=1e9 / calls_hz - 900.0, poisson=True),
            place.vfree((0,), rate_hz=vmas_hz, pages=5),
        ),
    )


def study(calls: tuple[float, ...] = CALLS_HZ) -> list[tc.BreakEven]:
    """Return the break-even of each rate of system calls: time in the kernel of the isolated CPUs is what costs."""
    return [
        tc.break_even(
            load,
            "vmas_hz",
            1e3 * calls_hz,
            5e4 * calls_hz,
            policies=POLICIES,
            metric="kernel_share",
            fixed={"calls_hz": calls_hz},
            machine="broadwell-ep",
            tolerance=0.2,
            replications=5,
            most_replications=10,
        )
        for calls_hz in calls
    ]


def main(picture: str) -> None:
    """Print the table and draw it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = study()
    print("coalesced flush worse than interrupts below (VMAs per second, 64 CPUs):")
    for calls_hz, one in zip(CALLS_HZ, found, strict=True):
        assert one.cheaper_below == "ipi"
        print(f"  {calls_hz:>5g} calls/s: {one.value:,.0f} ({one.low:,.0f} to {one.high:,.0f})")
    figure, axes = pyplot.subplots()
    values = [one.value for one in found]
    spread = [[one.value - one.low for one in found], [one.high - one.value for one in found]]
    axes.errorbar(CALLS_HZ, values, yerr=spread, fmt="o-", capsize=3)
    axes.fill_between(CALLS_HZ, 0, values, alpha=0.15, label="interrupts cost less")
    axes.set(xscale="log", yscale="log", xlabel="system calls per second and isolated CPU")
    axes.set_ylabel("VMAs freed per second (predicted)")
    axes.legend()
    figure.savefig(picture)
    print(f"drawn: {Path(picture).name}")


if __name__ == "__main__":
    main(sys.argv[1])
