"""Throughput of the timed machine. One event is one program run on one CPU."""

from __future__ import annotations

import time

import pytest

import tlbcore as tc
from tlbcore import scenarios

MACHINE = "broadwell-ep-e5-2699v4"


def loop(cpus: int, duration_s: float, *, kernel_pages: int = 12, user_pages: int = 4) -> scenarios.Scenario:
    """System calls on every CPU but the first, which is idle; nobody talks to anybody."""
    return scenarios.Scenario(
        name="loop",
        duration_s=duration_s,
        cpus=cpus,
        isolated=tuple(range(1, cpus)),
        actors=(
            scenarios.idle((0,)),
            scenarios.syscalls(
                "isolated", base_ns=770.0, gap_ns=230.0, kernel_pages=kernel_pages, user_pages=user_pages
            ),
        ),
    )


def measure(benchmark, load, **options):
    result = benchmark(lambda: tc.simulate(load, machine=MACHINE, timeline=0, **options))
    seconds = benchmark.stats.stats.median if benchmark.stats is not None else float("nan")
    benchmark.extra_info["events"] = result.program_runs
    benchmark.extra_info["events_per_s"] = result.program_runs / seconds
    return result


@pytest.mark.parametrize("policy", ["ipi", "coalesce-v7"])
def bench_published_six_hours(benchmark, policy: str):
    result = measure(benchmark, scenarios.rteval(), policy=policy)
    assert result.duration_s == 6 * 3600


@pytest.mark.parametrize("cpus", [4, 44, 256, 1024])
def bench_program_runs_interpreted(benchmark, cpus: int):
    measure(benchmark, loop(cpus, 0.4 / cpus), skip=False)


@pytest.mark.parametrize("policy", ["ipi", "coalesce-v7"])
def bench_program_runs_in_summary(benchmark, policy: str):
    """Jumps over proven fixed points; draws of the gaps are made."""
    load = loop(44, 0.05)
    actors = (
        scenarios.idle((0,)),
        scenarios.syscalls("isolated", base_ns=770.0, gap_ns=230.0, poisson=True),
    )
    measure(benchmark, load.replace(actors=actors), policy=policy)


@pytest.mark.parametrize("skip", [True, False], ids=["skipping", "each"])
def bench_program_runs_with_twenty_looked_up_touches(benchmark, skip: bool):
    """Every page looked up in a 2-level TLB; or jumped over where a call leaves the TLB as it found it."""
    # 14 in the body and in user mode, 6 in the entry code.
    load = loop(44, 0.005)
    actors = (
        scenarios.idle((0,)),
        scenarios.syscalls(
            "isolated", base_ns=770.0, gap_ns=230.0, kernel_pages=10, user_pages=4, poisson=True
        ),
    )
    measure(benchmark, load.replace(actors=actors), detail="full", policy="ipi", skip=skip)


@pytest.mark.parametrize("cpus", [4, 44, 256, 1024])
def bench_broadcast(benchmark, cpus: int):
    """A deferred flush that examines every CPU and interrupts none of the isolated ones."""
    rounds = 2000
    load = scenarios.Scenario(
        name="broadcast",
        duration_s=rounds * 1e-3,
        cpus=cpus,
        isolated=tuple(range(1, cpus)),
        actors=(
            scenarios.spin("all"),
            scenarios.chain(
                [{"program": "purge", "pages": 0, "cause": "purge"}], (0,), rate_hz=1000, poisson=False
            ),
        ),
    )
    result = measure(benchmark, load, policy="coalesce-v7")
    assert result.total("ipis_received", isolated=True) == 0
    start = time.perf_counter()
    tc.simulate(load, machine=MACHINE, timeline=0, policy="coalesce-v7")
    took = time.perf_counter() - start
    benchmark.extra_info["ns_per_target"] = took * 1e9 / (result.total("flush_requests") * cpus)
