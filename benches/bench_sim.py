"""Throughput of the timed machine. One event is one program run on one CPU."""

from __future__ import annotations

import time

import pytest

import tlbcore as tc
from tlbcore import scenarios
from tlbcore.simulation.shootdowns import shootdown

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
def bench_program_runs_one_by_one(benchmark, cpus: int):
    """One after the other, nothing skipped; calls whose course is known are replayed (`src/sim/engine/replay.rs`)."""
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
    # 12 in the body, 4 in user mode, 4 in the entry code (entry page and stack, on the way in and out).
    load = loop(44, 0.005)
    actors = (
        scenarios.idle((0,)),
        scenarios.syscalls(
            "isolated", base_ns=770.0, gap_ns=230.0, kernel_pages=12, user_pages=4, poisson=True
        ),
    )
    measure(benchmark, load.replace(actors=actors), detail="full", policy="ipi", skip=skip)


def broadcasts(cpus: int, rounds: int) -> scenarios.Scenario:
    """Deferred flushes that examine every CPU and interrupt none of the isolated ones."""
    return scenarios.Scenario(
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


def seconds_of_rounds(cpus: int, rounds: int) -> float:
    """Best of five; what a run takes beside its rounds is measured alternately and taken off."""

    def took(load: scenarios.Scenario) -> float:
        start = time.process_time()
        tc.simulate(load, machine=MACHINE, timeline=0, policy="coalesce-v7")
        return time.process_time() - start

    many, one = broadcasts(cpus, rounds), broadcasts(cpus, 1)
    pairs = [(took(many), took(one)) for _ in range(5)]
    return min(pair[0] for pair in pairs) - min(pair[1] for pair in pairs)


@pytest.mark.parametrize("cpus", [44, 256, 1024])
def bench_broadcast(benchmark, cpus: int):
    """What a target adds: the time of a round beyond that of a round of four CPUs, per CPU beyond those."""
    rounds = 2000
    result = measure(benchmark, broadcasts(cpus, rounds), policy="coalesce-v7")
    assert result.total("ipis_received", isolated=True) == 0
    more = seconds_of_rounds(cpus, rounds) - seconds_of_rounds(4, rounds)
    benchmark.extra_info["ns_per_target"] = more * 1e9 / (rounds * (cpus - 4))


@pytest.mark.parametrize(
    ("policy", "victims", "requests"),
    [
        ("ipi", 1, 20_000),
        ("ipi", 255, 2000),
        ("ipi", 1023, 2000),
        ("invlpgb", 255, 2000),
        ("invlpgb", 1023, 2000),
    ],
)
def bench_shootdowns(benchmark, policy: str, victims: int, requests: int):
    """Unmaps of one thread while others of its process compute; counted are the shootdowns of one victim each."""
    result = benchmark(lambda: shootdown(victims, machine="zen4-epyc", policy=policy, requests=requests))
    assert result.violation is None
    seconds = benchmark.stats.stats.median if benchmark.stats is not None else float("nan")
    done = result.total("user_flush_requests")
    benchmark.extra_info["shootdowns"] = done * victims
    benchmark.extra_info["shootdowns_per_s"] = done * victims / seconds
    benchmark.extra_info["s_per_hundred_thousand"] = 1e5 * seconds / (done * victims)


WHOLE_MACHINE = {
    # One thread unmaps, the other 1,023 compute: every shootdown interrupts all of them.
    "one-sender": {"cpus": 1024, "isolated": "1-1023"},
    # The same with a process of 64 threads.
    "sixty-four-threads": {"cpus": 1024, "isolated": "1-63", "threads": 64},
    # Four threads unmap; where two do at once, the victims of both are interrupted one by one.
    "four-senders": {"cpus": 1024, "isolated": "4-1023"},
    # Not mainline's programs, so every victim is interrupted by itself.
    "another-policy": {"cpus": 1024, "isolated": "1-1023", "policy": "early-ack"},
    # Each victim's TLB is looked at.
    "looked-up": {"cpus": 1024, "isolated": "1-1023", "detail": "full"},
}
REQUESTS = {"another-policy": 60, "looked-up": 60, "four-senders": 1000}


def shootdowns_of(kind: str, requests: int) -> tuple[scenarios.Scenario, dict[str, str]]:
    what = dict(WHOLE_MACHINE[kind])
    threads, cpus = what.pop("threads", None), what.pop("cpus")
    load = scenarios.user_shootdown(cpus=cpus, isolated=what.pop("isolated"), duration_s=requests / 500.0)
    if threads is not None:
        unmap = [{"do": "unmap", "pages": 4}]
        also_on = tuple(range(1, threads))
        one = scenarios.tasks(unmap, (0,), rate_hz=500.0, shared=True, also_on=also_on, name="threads")
        load = load.replace(
            isolated=tuple(range(1, cpus)), actors=(scenarios.spin("all", user_pages=32), one)
        )
    return load, what


@pytest.mark.parametrize("kind", WHOLE_MACHINE)
def bench_shootdowns_on_a_thousand_cpus(benchmark, kind: str):
    """Unmaps of a process on 1,024 CPUs; counted are the requests, each of which interrupts every other thread.

    The last two kinds are those that nothing is known of in advance: the worst of the class.
    """
    load, options = shootdowns_of(kind, REQUESTS.get(kind, 10_000))
    result = benchmark(lambda: tc.simulate(load, machine="zen4-epyc", timeline=0, **options))
    assert result.violation is None
    seconds = benchmark.stats.stats.median if benchmark.stats is not None else float("nan")
    requests, victims = result.total("user_flush_requests"), result.total("interrupts_user_flush")
    benchmark.extra_info["requests"] = requests
    benchmark.extra_info["victims"] = victims
    benchmark.extra_info["ns_per_victim"] = 1e9 * seconds / victims
    benchmark.extra_info["s_per_hundred_thousand"] = 1e5 * seconds / requests


def bench_a_run_of_nothing(benchmark):
    """What every run costs besides what it simulates: names in, a result out."""
    load = scenarios.Scenario(
        name="nothing", duration_s=1e-6, cpus=4, isolated=(2, 3), actors=(scenarios.spin("all"),)
    )
    result = benchmark(lambda: tc.simulate(load, machine="skylake-sp", policy="ipi", timeline=0))
    assert result.duration_s == 1e-6
    if benchmark.stats is not None:
        benchmark.extra_info["us"] = benchmark.stats.stats.median * 1e6
