"""A thread writes into arrays that another one gives to the TLBs: also run alone, under memcheck (docs/safety.md).

`python tests/raced.py SECONDS`
"""

from __future__ import annotations

import sys
import threading
import time
import warnings

import numpy as np

import tlbcore as tc

MACHINES = ("peers-64x4-1536x12", "skylake-sp", "zen4-epyc")


def race(machine: str, seconds: float, count: int) -> tuple[int, int]:
    """Return how many calls ran and how many were refused, with arrays of `count` that change all the time."""
    rng = np.random.default_rng(1)
    events = np.zeros(count, dtype=tc.EVENT)
    events["cpu"] = rng.integers(0, 8, count)
    events["vpn"] = rng.integers(0, 5000, count)
    events["op"] = rng.integers(0, 3, count)
    pages, contexts = events["vpn"].copy(), np.ones(count, dtype=np.uint16)
    good = events.copy()
    done = threading.Event()

    def scribble() -> None:
        while not done.is_set():
            for name, value in (("cpu", 60_000), ("op", 200), ("pcid", 60_000), ("vpn", 1 << 63)):
                events[name] = value
            pages[:] = np.uint64(1 << 63)
            contexts[:] = 60_000
            events[:], pages[:], contexts[:] = good, good["vpn"], 1
            time.sleep(0)

    tlb = tc.Tlb(machine, cpus=8)
    thread = threading.Thread(target=scribble)
    thread.start()
    refused = ran = 0
    few = min(count, 5000)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for work in (
                lambda: tlb.run(events),
                lambda: tlb.access(pages),
                lambda: tlb.access(pages[:few], contexts[:few]),
                lambda: tc.miss_curve(pages, sets=[1, 16], pcid=contexts),
            ):
                try:
                    with warnings.catch_warnings():  # what is written there may look like addresses
                        warnings.simplefilter("ignore")
                        work()
                    ran += 1
                except tc.TlbError:
                    refused += 1
    finally:
        done.set()
        thread.join()
    return ran, refused


if __name__ == "__main__":
    for one in MACHINES:
        print(one, *race(one, float(sys.argv[1]), 1 << 13))
