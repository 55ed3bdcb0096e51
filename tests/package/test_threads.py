"""Several threads at once, also without a global interpreter lock: each gets what it would get alone."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc

TRACE = Path(__file__).parents[1] / "data" / "p4.w7.trace.txt.xz"


def work(kind: int) -> object:
    if kind == 0:
        verdict = tc.check("coalesce-v7")
        return verdict.status, verdict.counterexample is not None and len(verdict.counterexample.steps)
    if kind == 1:
        load = tc.scenarios.trading(duration_s=0.05, cpus=4, isolated="2-3")
        return tc.simulate(load, machine="skylake-sp", seed=3).total("syscalls")
    if kind == 2:
        return tc.explain(tc.read_trace(TRACE)).table["interrupts"].tolist()
    pages = np.arange(4096, dtype=np.uint64) % 700
    return tc.Tlb("skylake-sp").access(pages).walks


def test_threads_get_what_they_would_get_alone():
    alone = [work(kind) for kind in range(4)]
    assert len({str(each) for each in alone}) == 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, [kind for _ in range(4) for kind in range(4)]))
    assert found == alone * 4


def test_importing_the_core_does_not_switch_the_lock_on_again():
    enabled = getattr(sys, "_is_gil_enabled", None)
    if enabled is None or "free-threading" not in sys.version:
        pytest.skip("this Python has a global interpreter lock")
    assert not enabled()
