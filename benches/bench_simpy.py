"""The timed machine against the event loop a reader would write with SimPy, in one run; skipped without SimPy.

Both have 44 CPUs of which 43 make system calls with gaps drawn from an exponential distribution. The SimPy model
does nothing else; tlbcore also runs the entry and exit programs op by op and keeps its counters.
"""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

import tlbcore as tc
from tlbcore import scenarios

CPUS = 44


def calls_by_simpy(duration_ns: float, seed: int) -> int:
    """Return the system calls of 43 processes in SimPy."""
    simpy = pytest.importorskip("simpy")
    world = simpy.Environment()
    rng = random.Random(seed)
    done = 0

    def cpu() -> Any:
        nonlocal done
        while True:
            yield world.timeout(rng.expovariate(1 / 230.0))
            yield world.timeout(770.0)
            done += 1

    for _ in range(CPUS - 1):
        world.process(cpu())
    world.run(until=duration_ns)
    return done


def bench_ratio_to_simpy(benchmark: Any) -> None:
    """Counts system calls per second of processor time in both."""
    duration_s = 1e-3 if benchmark.enabled else 5e-5
    load = scenarios.Scenario(
        name="calls",
        duration_s=duration_s,
        cpus=CPUS,
        isolated=tuple(range(1, CPUS)),
        actors=(
            scenarios.idle((0,)),
            scenarios.syscalls("isolated", base_ns=770.0, gap_ns=230.0, poisson=True),
        ),
    )

    def timed(run: Any) -> tuple[float, Any]:
        start = time.thread_time()
        result = run()
        return time.thread_time() - start, result

    ours, result = benchmark.pedantic(
        lambda: timed(lambda: tc.simulate(load, machine="broadwell-ep-e5-2699v4", timeline=0, skip=False)),
        rounds=1,
    )
    theirs, calls = timed(lambda: calls_by_simpy(duration_s * 1e9, 1))
    mine = result.total("syscalls")
    assert mine == pytest.approx(calls, rel=0.1), "the same work"
    benchmark.extra_info["events"] = mine
    benchmark.extra_info["syscalls_per_s"] = mine / ours
    benchmark.extra_info["simpy_syscalls_per_s"] = calls / theirs
    benchmark.extra_info["times_simpy"] = mine / ours / (calls / theirs)
