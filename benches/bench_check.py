"""Speed of the explorer: distinct states and transitions per second, memory, and the time of the standard checks.

Rates are of plain searches (`reduce=False`), which visit everything, and count the states of every question that is
asked; times are of what users ask, with the reductions. Nothing is random.
"""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import time
from typing import Any

import pytest

import tlbcore as tc

NOTHING_ASSUMED: dict[str, Any] = {"world": "pti", "assume": {"D": "none", "N": "none"}}
PLAIN: dict[str, Any] = {**NOTHING_ASSUMED, "reduce": False}


def totals(verdict: tc.Verdict) -> tuple[int, int]:
    """Distinct states and transitions of every question that was asked."""
    cases = verdict.cases or (verdict,)
    return sum(case.states for case in cases), sum(case.transitions for case in cases)


@pytest.mark.parametrize(
    ("policy", "cpus", "nmis"),
    [("coalesce-v7-fixed", 2, 1), ("coalesce-tri-state", 2, 1), ("early-ack", 2, 0), ("ipi", 2, 0)],
)
def test_states_per_second_of_a_plain_search(benchmark: Any, policy: str, cpus: int, nmis: int) -> None:
    """Counts distinct states and transitions of all questions, on one thread."""
    nmis = nmis if benchmark.enabled else 0
    verdict = benchmark(tc.check, policy, cpus=cpus, nmis=nmis, threads=1, **PLAIN)

    assert verdict.status == "verified"
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.min
        states, transitions = totals(verdict)
        benchmark.extra_info["states"] = states
        benchmark.extra_info["states_per_s"] = states / seconds
        benchmark.extra_info["transitions_per_s"] = transitions / seconds


@pytest.mark.parametrize(
    ("policy", "cpus", "nmis", "status"),
    [
        ("coalesce-v7-fixed", 2, 0, "verified"),
        ("coalesce-v7-fixed", 4, 1, "verified"),
        ("coalesce-v7-fixed", 5, 0, "verified"),
        ("invlpgb-from-4-cpus", 3, 1, "verified"),
        ("text-defer-v7", 3, 0, "violated"),
    ],
)
def test_time_of_a_check(benchmark: Any, policy: str, cpus: int, nmis: int, status: str) -> None:
    """Times whole checks in all worlds, NMIs with plain bodies, the core of a violation included."""
    verdict = benchmark(tc.check, policy, cpus=cpus, nmis=nmis, assume={"N": "none"})

    assert verdict.status == status
    benchmark.extra_info["states"] = totals(verdict)[0]


def test_factor_of_an_nmi(benchmark: Any) -> None:
    """Counts by how much each further NMI multiplies the states of a check, at the worst of some policies."""
    policies = ["coalesce-v7-fixed", "ipi", "latr", "ct-late"] if benchmark.enabled else ["ipi"]

    def states() -> list[list[int]]:
        return [
            [totals(tc.check(policy, nmis=nmis, confirm=False, **NOTHING_ASSUMED))[0] for nmis in range(1, 4)]
            for policy in policies
        ]

    counts = benchmark.pedantic(states, rounds=1)
    factors = {
        later / before: policy
        for policy, row in zip(policies, counts, strict=True)
        for before, later in itertools.pairwise(row)
    }
    benchmark.extra_info["largest_factor"] = max(factors)
    benchmark.extra_info["of"] = factors[max(factors)]


@pytest.mark.parametrize("plain", [False, True], ids=["default", "plain"])
def test_two_threads_of_a_search(benchmark: Any, plain: bool) -> None:
    """Counts distinct states of one larger search; one thread against two, on idle cores if there are any."""
    small = not benchmark.enabled
    policy = "coalesce-v7-fixed" if plain or small else "latr"
    how = {**NOTHING_ASSUMED, "reduce": not plain, "confirm": None if plain else False}
    how |= {"nmis": 1} if small else {"cpus": 3} if plain else {"cpus": 3, "nmis": 2}

    def took(threads: int) -> float:
        start = time.perf_counter()
        tc.check(policy, threads=threads, **how)
        return time.perf_counter() - start

    one = min(took(1) for _ in range(1 if small else 3))
    verdict = benchmark.pedantic(
        tc.check, args=(policy,), kwargs={"threads": 2, **how}, rounds=1 if small else 3
    )

    assert verdict.status == "verified"
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.min
        states, _ = totals(verdict)
        benchmark.extra_info["states"] = states
        benchmark.extra_info["one_thread_states_per_s"] = states / one
        benchmark.extra_info["states_per_s"] = states / seconds
        benchmark.extra_info["times_one"] = one / seconds


# VmHWM, since ru_maxrss of a process begins with that of the one which started it.
LARGE = """
import pathlib, re, tlbcore as tc
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = peak()
verdict = tc.check("coalesce-v7-fixed", threads=1, **{how!r})
assert verdict.status == "verified"
print(verdict.states, verdict.transitions, peak() - before)
"""


def test_transitions_and_bytes_beyond_forty_million_states(benchmark: Any) -> None:
    """Counts transitions of one plain search on one thread, and by how much the process grew at its peak."""
    small = not benchmark.enabled
    how = {**PLAIN, "cpus": 2 if small else 3, "entries": 2}
    said: list[str] = []

    def run() -> None:
        command = [sys.executable, "-c", LARGE.format(how=how)]
        said.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    benchmark.pedantic(run, rounds=1)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    states, transitions, grown = (int(word) for word in said[-1].split())

    assert small or states > 40_000_000
    if benchmark.stats is not None:
        benchmark.extra_info["states"] = states
        benchmark.extra_info["transitions_per_s"] = transitions / seconds
        benchmark.extra_info["bytes_per_state"] = grown / states


def test_time_of_the_verdict_table(benchmark: Any) -> None:
    """Counts verdicts: every policy under every standard assumption."""
    rows = benchmark.pedantic(tc.verdict_table, rounds=1)

    assert all(row.status != "inconclusive" for row in rows)
    if benchmark.stats is not None:
        benchmark.extra_info["verdicts_per_s"] = len(rows) / benchmark.stats.stats.min
