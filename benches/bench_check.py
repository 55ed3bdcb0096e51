"""Speed of the explorer: distinct states and transitions per second, and the time of the standard checks."""

from __future__ import annotations

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
    verdict = benchmark(tc.check, policy, cpus=cpus, nmis=nmis, assume={"D": "none", "N": "none"})

    assert verdict.status == "verified"
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.min
        benchmark.extra_info["states"] = verdict.states
        benchmark.extra_info["states_per_s"] = verdict.states / seconds
        benchmark.extra_info["transitions_per_s"] = verdict.transitions / seconds


@pytest.mark.parametrize("threads", [1, 2])
def test_states_per_second_of_threads(benchmark: Any, threads: int) -> None:
    """Counts distinct states and transitions of one larger search; compare the two rows of one run, on idle cores."""
    how: dict[str, Any] = {"nmis": 1, "assume": {"D": "none", "N": "none"}, "threads": threads}
    if benchmark.enabled:
        how |= {"cpus": 3, "reduce": False}
    policy = "ipi" if benchmark.enabled else "coalesce-tri-state"
    verdict = benchmark.pedantic(tc.check, args=(policy,), kwargs=how, rounds=1)

    assert verdict.status == "verified"
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.min
        benchmark.extra_info["threads"] = threads
        benchmark.extra_info["states"] = verdict.states
        benchmark.extra_info["states_per_s"] = verdict.states / seconds
        benchmark.extra_info["transitions_per_s"] = verdict.transitions / seconds


def test_time_of_the_verdict_table(benchmark: Any) -> None:
    """Counts verdicts: every policy under every standard assumption."""
    rows = benchmark.pedantic(tc.verdict_table, rounds=1)

    assert all(row.status != "inconclusive" for row in rows)
    if benchmark.stats is not None:
        benchmark.extra_info["verdicts_per_s"] = len(rows) / benchmark.stats.stats.min
