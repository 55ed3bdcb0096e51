"""The TLBs on what people bring, class by class: worst and best beside Numba's loop and C's, in one process and run.

`pytest benches/bench_classes.py --benchmark-enable -s` prints every member. Times are CPU times of this thread, the
least of several rounds, ours and the peers' in turns. Without `--benchmark-enable` each member runs once on a short
stream, as a test that its counts are the peers'.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from benches import classes, peers, streams
from benches.classes import PEERS, Class
from numpy.typing import NDArray
from tests.geometry import one_tlb

import tlbcore as tc

LONG, SHORT = 1 << 21, 20_000
ROUNDS = 5


class Timing:
    """How long the streams are, and how often each is run."""

    def __init__(self, timed: bool) -> None:
        self.timed = timed
        self.count = LONG if timed else SHORT

    def best(self, *runs: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
        """Least CPU time of each, taken in turns."""
        times = [[float("inf")] for _ in runs]
        for _ in range(rounds if self.timed else 1):
            for run, taken in zip(runs, times, strict=True):
                start = time.thread_time()
                run()
                taken.append(time.thread_time() - start)
        return [max(min(taken), 1e-9) for taken in times]


@pytest.fixture
def timing(request: pytest.FixtureRequest) -> Timing:
    return Timing(bool(request.config.getoption("benchmark_enable")))


def report(benchmark: Any, found: Class, title: str, *, least: bool = False) -> None:
    """Hand worst and best to pytest-benchmark; the timed function is nothing, as the members time themselves."""
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(found.extremes(least))
    print(found.table(title))


def accessing(tlb: tc.Tlb, vpn: Any, pcid: Any = 0) -> Callable[[], Any]:
    """One call from empty TLBs."""
    return lambda: (tlb.reset(), tlb.access(vpn, pcid, counts_only=True))


def running(tlb: tc.Tlb, made: NDArray[np.void]) -> Callable[[], Any]:
    """Events from empty TLBs."""
    return lambda: (tlb.reset(), tlb.run(made, counts_only=True))


def compare(
    timing: Timing, found: Class, name: str, vpn: Any, *, pcid: Any = 0, call: int | None = None
) -> None:
    """One member on the geometry of the peers, in calls of `call` accesses."""
    pages = np.asarray(vpn).astype(np.uint64)
    keys = pages if np.ndim(pcid) == 0 else pages | pcid.astype(np.uint64) << np.uint64(52)
    step = call or len(pages)
    ends = range(0, len(pages), step)
    parts = [(vpn[at : at + step], pcid if np.ndim(pcid) == 0 else pcid[at : at + step]) for at in ends]
    theirs = [keys[at : at + step] for at in ends]
    tlb, loop = tc.Tlb(PEERS), peers.numba_loop()
    hits = {}

    def ours() -> None:
        tlb.reset()
        for part, context in parts:
            tlb.access(part, context, counts_only=True)

    def numba() -> None:
        l1, l2 = peers.empty()
        hits["numba"] = tuple(np.sum([loop(part, l1, l2) for part in theirs], axis=0).tolist())

    def c() -> None:
        l1, l2 = peers.empty()
        hits["c"] = tuple(np.sum([peers.c_access(part, None, l1, l2) for part in theirs], axis=0).tolist())

    times = timing.best(ours, numba, c)
    counted = (tlb.counters["l1_hits"], tlb.counters["stlb_hits"])
    assert counted == hits["numba"] == hits["c"], name
    found.add("million_per_s", name, len(pages) / times[0] / 1e6)
    found.add("times_numba", name, times[1] / times[0])
    found.add("times_c", name, times[2] / times[0])


def bench_class_regions(benchmark: Any, timing: Timing) -> None:
    """Where pages lie, on every stream."""
    found = Class()
    for region in classes.REGIONS:
        for stream in streams.NAMES:
            vpn = classes.placed(streams.stream(stream)[: timing.count], region)
            compare(timing, found, f"{region}, {stream}", vpn)
    report(benchmark, found, "regions")


def bench_class_integers(benchmark: Any, timing: Timing) -> None:
    """Which integers the pages are."""
    found = Class()
    for kind in classes.INTEGERS:
        # 32 bits hold the pages of a process that lies low.
        vpn = streams.stream("zipf1.0")[: timing.count] - np.uint64(streams.BASE - 0x40000)
        compare(timing, found, kind, vpn.astype(kind))
    report(benchmark, found, "integers")


def bench_class_calls(benchmark: Any, timing: Timing) -> None:
    """How many accesses a call has."""
    found = Class()
    for region in ("one heap", "PIE heap, libraries, stack"):
        for call in classes.CALLS:
            count = min(timing.count, 4000 * call)
            vpn = classes.placed(streams.stream("zipf1.0")[:count], region)
            compare(timing, found, f"{call}, {region}", vpn, call=call)
    report(benchmark, found, "calls")


def bench_class_one_element(benchmark: Any, timing: Timing) -> None:
    """A call of one page."""
    found = Class()
    count = 20_000 if timing.timed else 10
    for machine in (PEERS, "skylake-sp", "zen4-epyc"):
        for kind in classes.INTEGERS:
            vpn, tlb = np.array([7], dtype=kind), tc.Tlb(machine)

            def ours(tlb: tc.Tlb = tlb, vpn: NDArray[Any] = vpn) -> None:
                for _ in range(count):
                    tlb.access(vpn, counts_only=True)

            (taken,) = timing.best(ours)
            assert tlb.counters["walks"] == 1
            found.add("microseconds", f"{kind}, {machine}", taken / count * 1e6)
    loop, page = peers.numba_loop(), np.array([7], dtype=np.uint64)
    l1, l2 = peers.empty()
    (taken,) = timing.best(lambda: [loop(page, l1, l2) for _ in range(count)])
    report(benchmark, found, "one element", least=True)
    benchmark.extra_info["numba_microseconds"] = taken / count * 1e6


def bench_class_contexts(benchmark: Any, timing: Timing) -> None:
    """How contexts come."""
    found = Class()
    for region in ("one heap", "PIE heap, libraries, stack"):
        for name, drawn in classes.CONTEXTS.items():
            vpn = classes.placed(streams.stream("zipf1.0")[: timing.count], region)
            pcid: Any = 1 if drawn is None else classes.contexts(len(vpn), *drawn)
            compare(timing, found, f"{name}, {region}", vpn, pcid=pcid)
    report(benchmark, found, "contexts")


def bench_class_machines(benchmark: Any, timing: Timing) -> None:
    """Every preset, beside the peers' loops over their simpler geometry."""
    found = Class()
    loop = peers.numba_loop()
    for region in ("one heap", "PIE heap, libraries, stack", "random 48-bit"):
        vpn = classes.placed(streams.stream("zipf1.0")[: timing.count], region)
        many = classes.contexts(len(vpn), 2, 1000)
        (theirs,) = timing.best(partial(loop, vpn, *peers.empty()), rounds=3)
        for machine in tc.machines:
            tlb = tc.Tlb(machine)
            for name, pcid in (("", 0), (", two contexts", many)):
                run = accessing(tlb, vpn, pcid)
                (ours,) = timing.best(run, rounds=2)
                assert tlb.counters["accesses"] == len(vpn)
                found.add("million_per_s", f"{machine}, {region}{name}", len(vpn) / ours / 1e6)
                found.add("times_numba", f"{machine}, {region}{name}", theirs / ours)
    report(benchmark, found, "machines")


def bench_class_events(benchmark: Any, timing: Timing) -> None:
    """Events of every mix, on every preset, on 1 to 64 CPUs."""
    found = Class()
    count = timing.count // 8
    vpn = classes.placed(streams.stream("zipf1.0")[:count], "PIE heap, libraries, stack")
    for machine in tc.machines:
        for mix in classes.MIXES:
            for cpus in (1, 8, 64):
                made = classes.events(vpn, mix, cpus)
                tlb = tc.Tlb(machine, cpus=cpus)
                try:
                    tlb.run(made[:100])
                except tc.TlbError:
                    continue  # a machine without 2 MiB pages
                run = running(tlb, made)
                (ours,) = timing.best(run, rounds=2)
                assert tlb.counters["accesses"] == (made["op"] <= 2).sum()
                found.add("million_per_s", f"{machine}, {mix}, {cpus} CPUs", len(made) / ours / 1e6)
    report(benchmark, found, "events")


def bench_class_events_of_the_peers(benchmark: Any, timing: Timing) -> None:
    """Events on the geometry of the peers, beside C."""
    found = Class()
    for stream in streams.NAMES:
        for mix in ("loads", "full flushes"):
            for cpus in (1, 8, 64):
                made = classes.events(streams.stream(stream)[: timing.count // 2], mix, cpus)
                tlb = tc.Tlb(PEERS, cpus=cpus)
                run = running(tlb, made)
                ours, theirs = timing.best(run, partial(peers.c_events, made, cpus))
                counted = (tlb.counters["l1_hits"], tlb.counters["stlb_hits"])
                assert counted == peers.c_events(made, cpus)
                found.add("million_per_s", f"{stream}, {mix}, {cpus} CPUs", len(made) / ours / 1e6)
                found.add("times_c", f"{stream}, {mix}, {cpus} CPUs", theirs / ours)
                if stream == "hot48":
                    found.add("times_c_on_hot48", f"{mix}, {cpus} CPUs", theirs / ours)
    report(benchmark, found, "events of the peers")


def bench_class_full_lru(benchmark: Any, timing: Timing) -> None:
    """Fully associative LRU, by its ways."""
    found = Class()
    for region in ("one heap", "random 48-bit"):
        vpn = classes.placed(streams.stream("zipf1.0")[: timing.count // 2], region)
        misses = peers.c_curve(vpn, 16384)
        for ways in (16, 33, 64, 512, 1536, 16384):
            tlb = tc.Tlb(one_tlb(ways))
            run = accessing(tlb, vpn)
            (ours,) = timing.best(run, rounds=3)
            assert tlb.counters["walks"] == misses[ways - 1]
            found.add("million_per_s", f"{ways} ways, {region}", len(vpn) / ours / 1e6)
    report(benchmark, found, "full LRU")


def bench_class_curves(benchmark: Any, timing: Timing) -> None:
    """Misses of every number of ways in one pass, beside Olken's tree in C, which counts all of them in any case."""
    found = Class()
    for region in ("one heap", "PIE heap, libraries, stack", "random 48-bit"):
        for stream in streams.NAMES:
            vpn = classes.placed(streams.stream(stream)[: timing.count // 2], region)
            for ways in (8, 32, 1536, 65536):
                ours, theirs = timing.best(
                    partial(tc.miss_curve, vpn, 1, ways), partial(peers.c_curve, vpn, ways), rounds=2
                )
                name = f"{ways} ways, {region}, {stream}"
                found.add("million_per_s", name, len(vpn) / ours / 1e6)
                found.add("times_c", name, theirs / ours)
                if not timing.timed:
                    assert (tc.miss_curve(vpn, 1, ways).table[0] == peers.c_curve(vpn, ways)).all()
    report(benchmark, found, "curves")


if __name__ == "__main__":
    pytest.main([__file__, "--benchmark-enable", "-s", "-q", "-p", "no:cacheprovider"])
