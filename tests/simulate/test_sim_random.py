"""Any scenario ends: CPUs, rates, isolation, actors, machines and policies by chance.

A run that stands still says so (`engine/watch.rs`); here none may. Rates and durations are chosen together, so that a
scenario is some thousand events and not a matter of patience.
"""

from __future__ import annotations

import random

import pytest

import tlbcore as tc
from tlbcore import scenarios
from tlbcore.scenarios import Actor, Scenario

MACHINES = (
    "skylake-sp",
    "broadwell-ep",
    "sapphire-rapids",
    "zen4-epyc",
    "cascade-lake-sp",
    "haswell-ep-calls",
)
POLICIES = tuple(tc.policies)
CHAINS = (
    "purge",
    "vunmap",
    "table_free",
    "set_memory",
    "text_poke",
    "text_breakpoint",
    "flush_all",
    "sync_table_free",
)
PATHS = (
    "syscall",
    "syscall_compat",
    "sysenter_compat",
    "exception",
    "exception_espfix",
    "exception_bad_iret",
)

# Programs of initiators and foreground that a scenario may start, about.
EVENTS = 600


def turns(draw: random.Random, *, shared: bool) -> list[dict[str, object]]:
    """Return the steps of a turn."""
    kinds = ["switch", "sleep", "unmap", "unmap", "fork", "exit"] + ([] if shared else ["exec", "migrate"])
    steps: list[dict[str, object]] = []
    for kind in draw.choices(kinds, k=draw.randint(1, 5)):
        step: dict[str, object] = {"do": kind}
        if kind == "unmap":
            step |= {"pages": draw.choice((0, 1, 4, 33, 34, 600)), "tables": draw.random() < 0.3}
        if kind == "exit":
            step |= {"spread": draw.choice((0, 500))}
        if draw.random() < 0.3:
            step |= {"per_mille": draw.randint(1, 999)}
        steps.append(step)
    return steps


def rate(draw: random.Random, cpus: int, duration_s: float) -> float:
    """Return events a second on each of `cpus` CPUs, some of them all at one moment."""
    total = EVENTS * 10 ** draw.uniform(-2.0, 0.0)
    return max(total / (cpus * duration_s), 0.5 / duration_s)


def initiators(draw: random.Random, on: object, count: int, duration_s: float) -> Actor:
    """Return an actor that interrupts others."""
    hz = rate(draw, count, duration_s)
    kind = draw.choice(("tasks", "tasks", "forks", "vfree", "chain"))
    if kind == "forks":
        return scenarios.forks(on, rate_hz=hz, batch=draw.choice((1, 3, 20)), spread=draw.random() < 0.5)
    if kind == "vfree":
        return scenarios.vfree(on, rate_hz=hz, pages=draw.choice((1, 5, 30_000)))
    if kind == "chain":
        steps = [
            {"program": program, "pages": draw.choice((0, 1, 40)), "cause": "other"}
            for program in draw.sample(CHAINS, k=draw.randint(1, 3))
        ]
        return scenarios.chain(steps, on=on, rate_hz=hz, poisson=draw.random() < 0.5)
    shared = draw.random() < 0.5
    more = (
        {"shared": True, "also_on": draw.choice(("isolated", "all"))}
        if shared
        else {"processes": draw.randint(1, 9)}
    )
    return scenarios.tasks(
        turns(draw, shared=shared), on=on, rate_hz=hz, name=f"tasks-{draw.random():.6f}", **more
    )


def scenario(draw: random.Random) -> Scenario:
    """Return a scenario that may be."""
    cpus = draw.choice((2, 2, 3, 4, 5, 8, 16, 56, 64, 100, 192))
    first = draw.randint(1, cpus)
    isolated = tuple(range(first, cpus)) if draw.random() < 0.8 else ()
    duration_s = 10 ** draw.uniform(-4.0, -1.0)
    housekeeping = cpus - len(isolated)
    actors: list[Actor] = []
    for place, count in (("isolated", len(isolated)), ("housekeeping", housekeeping)):
        if not count:
            continue
        kind = draw.choice(("spin", "syscalls", "idle", "nothing"))
        hz = rate(draw, count, duration_s)
        if kind == "spin":
            actors.append(scenarios.spin(place, user_pages=draw.choice((0, 32))))
        elif kind == "idle":
            actors.append(scenarios.idle(place))
        elif kind == "syscalls":
            base_ns = draw.choice((300.0, 5_000.0))
            gap_ns, poisson = 1e9 / hz, draw.random() < 0.5
            actors.append(
                scenarios.syscalls(
                    place, base_ns=base_ns, gap_ns=gap_ns, poisson=poisson, by=draw.choice(PATHS)
                )
            )
        hz = min(hz, 5e4)  # 2 us each, of three kinds: a CPU that never leaves its handlers answers nobody
        if kind in ("spin", "syscalls") and draw.random() < 0.3:
            actors.append(scenarios.faults(place, rate_hz=hz))
        if draw.random() < 0.4:
            actors.append(scenarios.interrupts(place, rate_hz=hz, cause=draw.choice(("tick", "residual"))))
        if draw.random() < 0.3:
            actors.append(scenarios.nmis(place, rate_hz=hz))
    for _ in range(draw.randint(1, 3)):
        place = draw.choice(("housekeeping", "housekeeping", "all", *(("isolated",) if isolated else ())))
        count = {"all": cpus, "isolated": len(isolated), "housekeeping": housekeeping}[place]
        actors.append(initiators(draw, place, count, duration_s))
    return Scenario(
        name="random",
        duration_s=duration_s,
        cpus=cpus,
        isolated=isolated,
        sockets=draw.choice((1, 1, 2)),
        actors=tuple(actors),
    )


def ends(seed: int) -> tuple[int, int]:
    """Run the scenario of a seed to its end; programs that ran, and interrupts of remote calls."""
    draw = random.Random(seed)
    load = scenario(draw)
    machine, policy = draw.choice(MACHINES), draw.choice(POLICIES)
    kernel = tc.Kernel(
        rar=policy == "rar" and machine == "sapphire-rapids", pti=draw.choice((None, True, False))
    )
    run = tc.simulate(
        load,
        machine=machine,
        kernel=kernel,
        policy=policy,
        seed=seed,
        detail=draw.choice(("summary", "full")),
    )
    said = f"seed {seed}: {policy} on {machine}, {load!r}"
    assert not run.interrupted, said
    assert run.duration_s == pytest.approx(load.duration_s), said
    assert not any("moves simulated time" in note for note in run.notes), (said, run.notes)
    assert run.violation is None or not any(word in run.violation for word in ("deadlock", "livelock")), (
        said,
        run.violation,
    )
    return run.program_runs, run.total("ipis_received")


def end_all(seeds: range) -> None:
    runs = [ends(seed) for seed in seeds]
    ran, interrupted = (sum(1 for one in runs if one[i] > 0) for i in (0, 1))
    assert ran > 0.9 * len(runs), "the scenarios are not empty"
    assert interrupted > 0.4 * len(runs), "CPUs interrupt each other"


def test_random_scenarios_end() -> None:
    end_all(range(160))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_ten_thousand_random_scenarios_end(block: int) -> None:
    end_all(range(1000 * block, 1000 * (block + 1)))


@pytest.mark.parametrize("cpus", [4, 56, 64])
@pytest.mark.parametrize("name", ["user-shootdown", "pthread-churn"])
def test_what_once_never_returned_does(name: str, cpus: int) -> None:
    isolated = f"{cpus // 2}-{cpus - 1}"
    load = scenarios.by_name(name, cpus=cpus, isolated=isolated, rate_hz=20_000, duration_s=0.002)
    run = tc.simulate(load, machine="sapphire-rapids")
    assert run.duration_s == pytest.approx(0.002)
    assert run.violation is None
    assert run.total("user_flush_requests") > 0
