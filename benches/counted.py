"""The hot loops whose instructions are counted: `benches.instructions` runs this in callgrind.

Each loop stands between two calls of a function of the C library that nothing else calls, at which callgrind writes
what it has counted and begins anew. The timed machine does each loop once for a while and once for twice as long:
what a run costs before it begins is in both. Printed is a line for each loop: its name and how many units it did.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benches import streams
from benches.bench_sim import MACHINE, broadcasts, loop
from benches.bench_tlb import PEERS, full_semantics

import tlbcore as tc
from tlbcore import scenarios

#: The function at which callgrind writes.
MARK = "getppid"
COUNT = 1_000_000
SECONDS = 0.005

Accesses = Callable[[np.ndarray], Any]


def simulated(load: scenarios.Scenario, policy: str, **options: Any) -> tc.SimResult:
    """Return what one seed gives."""
    return tc.simulate(load, machine=MACHINE, timeline=0, policy=policy, seed=1, **options)


def touches(times: int) -> int:
    """Do system calls with 20 looked-up touches; program runs."""
    return simulated(loop(4, SECONDS * times), "ipi", detail="full", skip=False).program_runs


def one_by_one(times: int) -> int:
    """Do the same without looking pages up, each call replayed; program runs."""
    return simulated(loop(4, SECONDS * times), "ipi", skip=False).program_runs


def broadcast(times: int) -> int:
    """Flush what examines 1,024 CPUs; CPUs examined."""
    return simulated(broadcasts(1024, 100 * times), "coalesce-v7").total("flush_requests") * 1024


def plain(pages: np.ndarray) -> Any:
    """Access pages of the peers' geometry."""
    return tc.Tlb(PEERS).access(pages, counts_only=True)


def real(pages: np.ndarray) -> Any:
    """Access pages of a CPU with trees and two levels."""
    return tc.Tlb("skylake-sp").access(pages, counts_only=True)


def events(pages: np.ndarray) -> Any:
    """Run events of 8 CPUs."""
    return tc.Tlb(PEERS, cpus=8).run(pages, counts_only=True)


def curve(pages: np.ndarray) -> Any:
    """Count the misses of 1 to 8 ways."""
    return tc.miss_curve(pages, sets=16, ways=8)


#: name -> stream, what is run over it.
STREAMS: dict[str, tuple[str, Accesses]] = {
    "plain uniform64k": ("uniform64k", plain),
    "plain zipf1.0": ("zipf1.0", plain),
    "plain hot48": ("hot48", plain),
    "plain runs8": ("runs8", plain),
    "real zipf1.0": ("zipf1.0", real),
    "events zipf1.0": ("zipf1.0", events),
    "events hot48": ("hot48", events),
    "events zipf1.0, ranges": ("zipf1.0", events),
    "curve zipf1.0": ("zipf1.0", curve),
}
#: name -> units done in so many times the shortest run.
ENGINES: dict[str, Callable[[int], int]] = {
    "engine, 20 looked-up touches": touches,
    "engine, one by one": one_by_one,
    "engine, broadcast to 1,024 CPUs": broadcast,
}


def prepare(file: Path) -> None:
    """Write the streams, which callgrind would take minutes to draw."""
    drawn = {}
    for name, (stream, run) in STREAMS.items():
        pages: np.ndarray = streams.stream(stream)[:COUNT]
        drawn[name] = full_semantics(pages, ranges=name.endswith("ranges")) if run is events else pages
    np.savez(file, **drawn)


def main() -> None:
    """Do every loop once."""
    mark = os.getppid
    drawn = np.load(sys.argv[1])
    for name, (_, run) in STREAMS.items():
        given = drawn[name]
        run(given[:1000])  # what is loaded at first use is no part of the loop
        mark()
        run(given)
        mark()
        print(name, COUNT, sep="\t")
    for name, engine in ENGINES.items():
        done = []
        for times in (1, 2):
            mark()
            done.append(engine(times))
            mark()
        print(name, done[1] - done[0], sep="\t")


if __name__ == "__main__":
    main()
