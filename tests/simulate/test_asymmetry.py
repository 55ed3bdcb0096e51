"""CPUs that are all different: what is counted of one must not depend on which number it has.

Where every CPU has the same load, a statistic that is counted on the wrong CPU adds up all the same. Here four isolated
CPUs have four loads, which change places; then each statistic changes places with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from test_statistics import actor, machine, steps, tasks

import tlbcore as tc
from tlbcore import scenarios as s

ISOLATED = (2, 3, 4, 5)
POLICIES = ["coalesce-v7", "ct-late"]


def loads(cpu: int, which: int) -> list[tc.Actor]:
    """Return what the CPU with one of four loads does; no two of them do a thing as often or as long."""
    own = which + 1
    calls = {
        "base_ps": 3_000_000 * own,
        "kernel_pages": 3 + 2 * which,
        "user_pages": 5 - which,
        "by": "syscall",
    }
    cause = ("tick", "residual", "device", "other")[which]
    return [
        actor("syscalls", cpu, us=40 + 17 * which, **calls),
        actor("interrupts", cpu, us=310 + 90 * which, body_ps=1_000_000 * own, cause=cause),
        actor("nmis", cpu, us=1100 + 130 * which, body_ps=700_000 * own),
        actor("faults", cpu, us=170 + 60 * which, body_ps=300_000 * own, by="exception"),
    ]


def run(order: tuple[int, ...], policy: str, *more: tc.Actor, us: float = 10_000) -> tc.SimResult:
    """Run with load `i` on CPU `order[i]`. Sends follow each other at once: which number comes first is nothing."""
    placed = [one for which, cpu in enumerate(order) for one in loads(cpu, which)]
    scenario = tc.Scenario(
        name="different", duration_s=us * 1e-6, cpus=6, isolated=ISOLATED, actors=[actor("spin", 0, 1), *placed, *more]
    )  # fmt: skip
    return tc.simulate(scenario, machine=machine(ipi_next=0), policy=policy)


def rows(result: tc.SimResult, order: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return each statistic by load instead of by CPU."""
    return {one.name: result.table[one.name][list(order)].astype(float) for one in tc.statistics()}


@pytest.mark.parametrize("order", list(permutations(ISOLATED))[1:])
def test_loads_that_change_places_change_rows(order: tuple[int, ...]) -> None:
    """Nobody flushes: to the picosecond."""
    one, other = (rows(run(by, "ipi", us=3_000), by) for by in (ISOLATED, order))
    for name, values in one.items():
        assert values.tolist() == other[name].tolist(), name
    differing = {name for name, values in one.items() if len(set(values.tolist())) == 4}
    assert differing >= {"syscalls", "syscalls_ps", "kernel_entries", "kernel_ps", "user_ps"} & set(one)
    assert len(differing) >= 5, differing


def flushes() -> tuple[tc.Actor, ...]:
    return steps("vunmap", 3, 0, us=83), steps("text_poke", 0, 1, us=217)


@pytest.mark.parametrize("order", [(5, 4, 3, 2), (3, 2, 5, 4), (4, 5, 2, 3), (3, 4, 5, 2)])
@pytest.mark.parametrize("policy", ["ipi", "quarantine"])
def test_so_they_do_while_others_flush(policy: str, order: tuple[int, ...]) -> None:
    one, other = (rows(run(by, policy, *flushes()), by) for by in (ISOLATED, order))
    for name, values in one.items():
        assert values.tolist() == other[name].tolist(), name


@pytest.mark.parametrize("order", [(5, 4, 3, 2), (3, 4, 5, 2)])
@pytest.mark.parametrize("policy", POLICIES)
def test_so_they_nearly_do_where_each_is_looked_at_in_turn(policy: str, order: tuple[int, ...]) -> None:
    """The last is looked at some cycles after the first, and may have come in meanwhile: a tenth of events."""
    one, other = (rows(run(by, policy, *flushes(), us=100_000), by) for by in (ISOLATED, order))
    for name, values in one.items():
        few = 20 * (1 if values.max() < 1e7 else 60_000_000)  # events, or their time in ps
        np.testing.assert_allclose(other[name], values, rtol=0.1, atol=few, err_msg=name)
    assert (one["syscalls"][:-1] > 1.2 * one["syscalls"][1:]).all(), "or rows of other CPUs would do"


@pytest.mark.parametrize("order", [(5, 4, 3, 2), (3, 4, 5, 2)])
def test_processes_that_change_places_change_rows(order: tuple[int, ...]) -> None:
    """Each CPU has another number of processes and switches at another rate."""

    def switching(by: tuple[int, ...]) -> dict[str, np.ndarray]:
        some = [
            tasks(
                cpu,
                us=70 + 30 * which,
                do=[{"do": "switch"}, {"do": "unmap", "pages": which + 1}],
                processes=which + 2,
            )
            for which, cpu in enumerate(by)
        ]
        scenario = tc.Scenario(
            name="different",
            duration_s=0.01,
            cpus=6,
            isolated=ISOLATED,
            actors=[actor("spin", *range(6)), *some],
        )
        return rows(tc.simulate(scenario, machine=machine()), by)

    one, other = switching(ISOLATED), switching(order)
    for name, values in one.items():
        assert values.tolist() == other[name].tolist(), name
    assert len({name for name, values in one.items() if len(set(values.tolist())) == 4}) >= 3


STEPS = [{"program": "vunmap", "pages": 3, "cause": "vunmap"}]
TIMES: dict[tuple[str, str], tuple[Callable[..., tc.Actor], dict[str, Any], str, int]] = {
    ("syscalls", "base_ns"): (s.syscalls, {"gap_ns": 7.0}, "base_ps", 1_000),
    ("syscalls", "gap_ns"): (s.syscalls, {"base_ns": 7.0}, "gap.mean_ps", 1_000),
    ("faults", "body_us"): (s.faults, {"rate_hz": 7.0}, "body_ps", 1_000_000),
    ("faults", "rate_hz"): (s.faults, {"body_us": 7.0}, "gap.mean_ps", 0),
    ("interrupts", "body_us"): (s.interrupts, {"rate_hz": 7.0}, "body_ps", 1_000_000),
    ("interrupts", "rate_hz"): (s.interrupts, {"body_us": 7.0}, "gap.mean_ps", 0),
    ("nmis", "body_us"): (s.nmis, {"rate_hz": 7.0}, "body_ps", 1_000_000),
    ("nmis", "rate_hz"): (s.nmis, {"body_us": 7.0}, "gap.mean_ps", 0),
    ("forks", "rate_hz"): (s.forks, {}, "gap.mean_ps", 0),
    ("vfree", "apart_ms"): (s.vfree, {"rate_hz": 7.0, "pages": 3, "roams_ms": 7.0}, "apart_ps", 1_000_000_000),
    ("vfree", "roams_ms"): (s.vfree, {"rate_hz": 7.0, "pages": 3, "apart_ms": 7.0}, "roams_ps", 1_000_000_000),
    ("vfree", "rate_hz"): (s.vfree, {"pages": 3, "apart_ms": 7.0, "roams_ms": 7.0}, "gap.mean_ps", 0),
    ("chain", "rate_hz"): (s.chain, {"steps": STEPS}, "gap.mean_ps", 0),
    ("tasks", "rate_hz"): (s.tasks, {"steps": [{"do": "switch"}]}, "gap.mean_ps", 0),
    ("stream", "rate_hz"): (s.stream, {"on": (2,), "pattern": s.sequential(3)}, "gap.mean_ps", 0),
}  # fmt: skip


@pytest.mark.parametrize(("name", "word"), TIMES)
def test_a_time_is_in_the_unit_of_its_own_word(name: str, word: str) -> None:
    """Beside others that are in another unit, or another number: 2.5 of them, or as often a second."""
    make, others, place, unit = TIMES[name, word]
    params: Any = make(**others, **{word: 2.5}).params
    for step in place.split("."):
        params = params[step]
    assert params == (2.5 * unit if unit else 400_000_000_000)


def test_every_word_for_a_time_has_a_row() -> None:
    words = {
        (name, word)
        for name in (
            "syscalls",
            "faults",
            "interrupts",
            "nmis",
            "forks",
            "vfree",
            "chain",
            "tasks",
            "stream",
            "spin",
            "idle",
        )
        for word in inspect.signature(getattr(s, name)).parameters
        if word.endswith(("_ns", "_us", "_ms", "_s", "_hz"))
    }
    assert words == set(TIMES)
