"""Speed of the explorer: distinct states and transitions per second, and the time of the standard checks."""

from __future__ import annotations

import time
from typing import Any

import pytest

import tlbcore as tc

SCOPES = [
    ("coalesce-v7-fixed", 2, 0),
    ("coalesce-tri-state", 2, 1),
    ("coalesce-v7-fixed", 3, 0),
    ("ipi", 3, 1),
]


@pytest.mark.parametrize(("policy", "cpus", "nmis"), SCOPES)
def test_states_per_second_of_a_check(benchmark: Any, policy: str, cpus: int, nmis: int) -> None:
    """Counts distinct states and transitions; nothing is random. One search under D=none, N=none."""
    verdict = benchmark(
        tc.check, policy, cpus=cpus, nmis=nmis, world="pti", assume={"D": "none", "N": "none"}
    )

    assert verdict.status == "verified"
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.min
        benchmark.extra_info["states"] = verdict.states
        benchmark.extra_info["states_per_s"] = verdict.states / seconds
        benchmark.extra_info["transitions_per_s"] = verdict.transitions / seconds


def test_two_threads_of_a_search(benchmark: Any) -> None:
    """Counts distinct states of one larger search; one thread against two, on idle cores if there are any."""
    small = not benchmark.enabled
    how: dict[str, Any] = {"nmis": 1, "world": "pti", "assume": {"D": "none", "N": "none"}}
    how |= {} if small else {"cpus": 3, "reduce": False}
    policy = "coalesce-tri-state" if small else "ipi"

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
        benchmark.extra_info["states"] = verdict.states
        benchmark.extra_info["one_thread_states_per_s"] = verdict.states / one
        benchmark.extra_info["states_per_s"] = verdict.states / seconds
        benchmark.extra_info["times_one"] = one / seconds


def test_transitions_per_second_beyond_forty_million_states(benchmark: Any) -> None:
    """Counts transitions of one search on one thread, without symmetry and without fusing."""
    small = not benchmark.enabled
    how: dict[str, Any] = {"cpus": 2 if small else 3, "nmis": 1, "entries": 3, "reduce": False, "threads": 1}
    verdict = benchmark.pedantic(
        tc.check, args=("ipi",), kwargs=how | {"world": "pti", "assume": {"D": "none", "N": "none"}}, rounds=1
    )

    assert verdict.status == "verified"
    assert small or verdict.states > 40_000_000
    if benchmark.stats is not None:
        benchmark.extra_info["states"] = verdict.states
        benchmark.extra_info["transitions_per_s"] = verdict.transitions / benchmark.stats.stats.min


def test_time_of_the_verdict_table(benchmark: Any) -> None:
    """Counts verdicts: every policy under every standard assumption."""
    rows = benchmark.pedantic(tc.verdict_table, rounds=1)

    assert all(row.status != "inconclusive" for row in rows)
    if benchmark.stats is not None:
        benchmark.extra_info["verdicts_per_s"] = len(rows) / benchmark.stats.stats.min
