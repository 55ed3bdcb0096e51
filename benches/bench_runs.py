"""Program runs one by one, class by class: what runs, under which policy, on how many CPUs; worst and best of them.

Nothing is skipped. What is known is replayed (`src/sim/engine/replay.rs`, `handlers.rs`), the rest is interpreted:
remote calls, context switches, kernel work, and entry code that writes what others read (`WRITES`).
`pytest benches/bench_runs.py --benchmark-enable -s` prints every member. Times are CPU times of the whole process, a
run of nothing taken off, the least of several. Without `--benchmark-enable` each member runs once and briefly.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from benches.classes import Class

import tlbcore as tc
from tlbcore import scenarios

MACHINE = "broadwell-ep-e5-2699v4"
#: Each entry writes what all share, so none can be replayed and every CPU is kept in the order of the queue.
WRITES = tc.Policy(
    text="""policy writes-at-entry
  var last : 1 bit, shared, starts 0

to_kernel
  if feature pti
    mov cr3, kernel noflush
  xchg last, 1
"""
)
POLICIES = ("ipi", "coalesce-v7", "generation-at-entry", WRITES)
CPUS = (4, 64, 1024)
LEAST = 0.02  # seconds that are measured

Actors = tuple[scenarios.Actor, ...]

#: A program run of these kinds each few microseconds of a CPU, as CPUs in user mode or idle meet them.
KINDS: dict[str, Actors] = {
    "system calls": (scenarios.syscalls(base_ns=770.0, gap_ns=230.0, kernel_pages=4, user_pages=4),),
    "system calls, drawn gaps": (scenarios.syscalls(base_ns=770.0, gap_ns=230.0, poisson=True),),
    "exceptions": (scenarios.spin(user_pages=4), scenarios.faults(rate_hz=4e5)),
    "interrupts": (scenarios.spin(user_pages=4), scenarios.interrupts(rate_hz=2e5)),
    "interrupts out of idle": (scenarios.idle("isolated"), scenarios.interrupts(rate_hz=2e5)),
    "NMIs": (scenarios.spin(user_pages=4), scenarios.nmis(rate_hz=2e5)),
    "calls and interrupts": (
        scenarios.syscalls(base_ns=770.0, gap_ns=230.0, poisson=True),
        scenarios.interrupts(rate_hz=1e5),
        scenarios.nmis(rate_hz=1e4),
    ),
    "purges and their calls": (
        scenarios.spin(user_pages=4),
        scenarios.chain([{"program": "purge", "pages": 0, "cause": "purge"}], (0,), rate_hz=2e4),
    ),
    "context switches": (
        scenarios.spin(user_pages=4),
        scenarios.tasks([{"do": "switch"}], "isolated", rate_hz=1e5, processes=8),
    ),
}


def load(actors: Actors, cpus: int, seconds: float) -> scenarios.Scenario:
    return scenarios.Scenario(
        name="runs",
        duration_s=seconds,
        cpus=cpus,
        isolated=tuple(range(1, cpus)),
        actors=(scenarios.idle((0,)), *actors),
    )


def taken(scenario: scenarios.Scenario, **options: Any) -> tuple[float, int]:
    """CPU time beyond that of a run of nothing, the least of three; and how many programs ran."""
    times, runs = [], 0
    for _ in range(3):
        start = time.process_time()
        tc.simulate(scenario.replace(duration_s=1e-9), machine=MACHINE, timeline=0, skip=False, **options)
        middle = time.process_time()
        runs = tc.simulate(scenario, machine=MACHINE, timeline=0, skip=False, **options).program_runs
        times.append(time.process_time() - middle - (middle - start))
    return min(times), runs


def million_per_second(actors: Actors, cpus: int, **options: Any) -> float:
    """Runs per microsecond of a scenario that is long enough to be told from a run of nothing."""
    seconds, took, runs = 0.1 / cpus, 0.0, 0
    while took < LEAST:
        seconds *= 4
        took, runs = taken(load(actors, cpus, seconds), **options)
    return runs / took / 1e6


@pytest.mark.parametrize("detail", ["summary", "full"])
def bench_class_program_runs(benchmark: Any, request: pytest.FixtureRequest, detail: str) -> None:
    """Every kind of program run; with `full` each page is looked up."""
    timed = bool(request.config.getoption("benchmark_enable"))
    found = Class()
    for kind, actors in KINDS.items():
        for policy in POLICIES:
            for cpus in CPUS if timed else (4,):
                options = {"policy": policy, "detail": detail}
                name = f"{kind}, {tc.policy.as_policy(policy).name}, {cpus} CPUs"
                if timed:
                    found.add("million_per_s", name, million_per_second(actors, cpus, **options))
                else:
                    assert taken(load(actors, cpus, 0.001), **options)[1] > 0
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(found.extremes())
    print(found.table(f"program runs, {detail}"))
