"""Accesses and events per second, with the peers a reader would compare with, in the same run.

`pytest benches/bench_tlb.py --benchmark-enable -s` prints the ratios too. Without `--benchmark-enable` each
bench runs once, on a short stream, as a test of its counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from benches import peers, streams
from tests.geometry import one_tlb

import tlbcore as tc

PEERS = "peers-64x4-1536x12"
SHORT = 200_000


@pytest.fixture
def pages(request: pytest.FixtureRequest) -> Callable[[str], streams.Stream]:
    """The whole stream when timed, a short one when run as a test."""
    timed = request.config.getoption("benchmark_enable")
    return lambda name: streams.stream(name) if timed else streams.stream(name)[:SHORT]


def rate(seconds: float, count: int) -> float:
    return count / seconds / 1e6


def best_of(run: Callable[[], Any], rounds: int = 3) -> float:
    """Return the least CPU time of this thread: other jobs do not count."""
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return min(times)


def numba_loop() -> Callable[[streams.Stream], tuple[int, int]]:
    """The loop a reader writes in ten minutes, on levels with nothing in them."""
    loop = peers.numba_loop()
    return lambda pages: loop(pages, *peers.empty())


@pytest.mark.parametrize("name", streams.NAMES)
def bench_plain_lru(benchmark: Any, pages: Callable[[str], streams.Stream], name: str) -> None:
    """The golden geometry, counts only."""
    vpn = pages(name)
    result = benchmark(lambda: tc.Tlb(PEERS).access(vpn, counts_only=True))
    if len(vpn) == streams.COUNT:
        assert (result.l1_hits, result.stlb_hits, result.walks) == streams.GOLDEN[name][1:]
    benchmark.extra_info["accesses"] = len(vpn)
    if benchmark.enabled:
        benchmark.extra_info["million_accesses_per_s"] = rate(benchmark.stats["min"], len(vpn))


@pytest.mark.parametrize("name", streams.NAMES)
def bench_ratio_to_numba_and_pycachesim(
    benchmark: Any, pages: Callable[[str], streams.Stream], name: str
) -> None:
    """The same stream through a Numba loop and through pycachesim, where they are installed."""
    vpn = pages(name)
    tlb = tc.Tlb(PEERS)
    ours = benchmark.pedantic(
        lambda: best_of(lambda: (tlb.reset(), tlb.access(vpn, counts_only=True)), 7), rounds=1
    )
    counts = tlb.counters
    loop = numba_loop()
    assert loop(vpn) == (counts["l1_hits"], counts["stlb_hits"])
    theirs = best_of(lambda: loop(vpn), 5)
    scalar = tc.Tlb(PEERS)
    scalar._state.set_vectors(False)
    without = best_of(lambda: (scalar.reset(), scalar.access(vpn, counts_only=True)), 5)
    assert scalar == tlb
    benchmark.extra_info["accesses"] = len(vpn)
    benchmark.extra_info["million_accesses_per_s"] = rate(ours, len(vpn))
    benchmark.extra_info["numba_million_accesses_per_s"] = rate(theirs, len(vpn))
    benchmark.extra_info["times_numba"] = theirs / ours
    benchmark.extra_info["scalar_times_numba"] = theirs / without
    line = f"{name:10} {rate(ours, len(vpn)):5.0f} M/s, numba {rate(theirs, len(vpn)):4.0f} M/s"
    line += f" = {theirs / ours:.2f}x (without vectors {theirs / without:.2f}x)"
    try:
        from tests.peers import cachesim_counts
    except ImportError:
        pass
    else:
        part = vpn[: 1 << 21]
        addresses = ((part & np.uint64(0xFFFFF)) << np.uint64(6)).tolist()
        slow = best_of(lambda: cachesim_counts(addresses, 64), 1) * len(vpn) / len(part)
        benchmark.extra_info["times_pycachesim"] = slow / ours
        line += f", pycachesim {rate(slow, len(vpn)):4.1f} M/s = {slow / ours:.1f}x"
    print(line)


def bench_ratio_to_libcachesim(benchmark: Any, pages: Callable[[str], streams.Stream]) -> None:
    """Hits of one fully associative LRU of 1,536 pages: libcachesim's `get` per request against one call."""
    pytest.importorskip("libcachesim")
    from tests.peers import libcachesim_hits

    vpn = pages("zipf1.0")
    machine = one_tlb(1536)
    part = vpn[: 1 << 17]
    tlb = tc.Tlb(machine)
    ours = benchmark.pedantic(
        lambda: best_of(lambda: (tlb.reset(), tlb.access(part, counts_only=True))), rounds=1
    )
    numbers = part.tolist()
    assert libcachesim_hits(numbers, 1536) == tlb.counters["l1_hits"]
    theirs = best_of(lambda: libcachesim_hits(numbers, 1536), 1)
    benchmark.extra_info["accesses"] = len(part)
    benchmark.extra_info["million_accesses_per_s"] = rate(ours, len(part))
    benchmark.extra_info["times_libcachesim"] = theirs / ours


@pytest.mark.parametrize("machine", ["skylake-sp", "broadwell-ep-e5-2699v4", "zen4-epyc"])
def bench_real_cpu(benchmark: Any, pages: Callable[[str], streams.Stream], machine: str) -> None:
    """Presets of real CPUs: PLRU, XOR index, PCID slots, walker, paging-structure caches."""
    vpn = pages("zipf1.0")
    result = benchmark(lambda: tc.Tlb(machine).access(vpn, counts_only=True))
    assert result.accesses == len(vpn)
    benchmark.extra_info["accesses"] = len(vpn)
    if benchmark.enabled:
        benchmark.extra_info["million_translations_per_s"] = rate(benchmark.stats["min"], len(vpn))


def full_semantics(vpn: streams.Stream, *, cpus: int = 8, ranges: bool) -> np.ndarray:
    """Make events: 1/16 of the pages global, 0.1 % flushes; `ranges` adds a context and range flushes."""
    rng = np.random.default_rng(streams.SEED)
    events = np.zeros(len(vpn), dtype=tc.EVENT)
    events["vpn"] = vpn
    events["cpu"] = rng.integers(0, cpus, len(vpn))
    events["flags"] = (vpn * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(60) == 0
    events["pcid"] = 1
    flush = rng.random(len(vpn)) < 0.001
    events["op"][flush] = tc.OPS["invpcid_all"]
    if ranges:
        events["pcid"] = 1 + (rng.random(len(vpn)) < 0.25)
        kinds = [
            tc.OPS["invlpg"],
            tc.OPS["invpcid_context"],
            tc.OPS["invpcid_address"],
            tc.OPS["invpcid_all"],
        ]
        events["op"][flush] = rng.choice(kinds, flush.sum())
        events["pages"][flush] = rng.integers(1, 34, flush.sum())
    return events


@pytest.mark.parametrize("ranges", [False, True], ids=["full-flushes", "pcid-and-ranges"])
@pytest.mark.parametrize("name", ["zipf1.0", "hot48"])
def bench_full_semantics(
    benchmark: Any, pages: Callable[[str], streams.Stream], name: str, ranges: bool
) -> None:
    """16-byte events with PCIDs, globals and invalidations on 8 CPUs."""
    events = full_semantics(pages(name), ranges=ranges)
    result = benchmark(lambda: tc.Tlb(PEERS, cpus=8).run(events, counts_only=True))
    assert result.accesses == (events["op"] <= 2).sum()
    benchmark.extra_info["events"] = len(events)
    if benchmark.enabled:
        benchmark.extra_info["million_events_per_s"] = rate(benchmark.stats["min"], len(events))


def bench_call_overhead(benchmark: Any) -> None:
    """One access per call: what Python pays."""
    tlb = tc.Tlb(PEERS)
    vpn = np.array([7], dtype=np.uint64)
    assert benchmark(lambda: tlb.access(vpn, counts_only=True)).accesses == 1


def bench_two_threads(benchmark: Any, pages: Callable[[str], streams.Stream]) -> None:
    """Two independent TLBs in two threads, against one after the other; reported, not asserted."""
    import threading

    vpn = pages("zipf1.0")

    def one() -> None:
        tc.Tlb(PEERS).access(vpn, counts_only=True)

    def both() -> None:
        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    start = time.perf_counter()
    one()
    alone = time.perf_counter() - start
    benchmark(both)
    benchmark.extra_info["accesses"] = 2 * len(vpn)
    benchmark.extra_info["cpus"] = os.cpu_count()
    if benchmark.enabled:
        benchmark.extra_info["times_one"] = 2 * alone / benchmark.stats["min"]


@pytest.mark.parametrize("ways", [8, 32])
def bench_miss_curve(benchmark: Any, pages: Callable[[str], streams.Stream], ways: int) -> None:
    """All way counts of one set count in one pass."""
    vpn = pages("zipf1.0")
    curve = benchmark(lambda: tc.miss_curve(vpn, sets=16, ways=ways))
    if len(vpn) == streams.COUNT:
        assert curve.table[0, 3] == streams.COUNT - streams.GOLDEN["zipf1.0"][1]
    benchmark.extra_info["accesses"] = len(vpn)
    if benchmark.enabled:
        benchmark.extra_info["million_accesses_per_s"] = rate(benchmark.stats["min"], len(vpn))
