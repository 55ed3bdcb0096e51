"""Other people's simulators as oracles: for tests and benches, where they are installed."""

from __future__ import annotations

from collections.abc import Sequence


def cachesim_counts(addresses: Sequence[int], line: int) -> tuple[int, int, int]:
    """Return L1 hits, STLB hits and walks of pycachesim: the golden geometry with pages as lines.

    The released version cuts addresses to 32 bits, so pages must be small numbers times `line`.
    """
    import cachesim

    memory = cachesim.MainMemory()
    l2 = cachesim.Cache("L2", 128, 12, line, "LRU")
    memory.load_to(l2)
    memory.store_from(l2)
    l1 = cachesim.Cache("L1", 16, 4, line, "LRU", store_to=l2, load_from=l2)
    simulator = cachesim.CacheSimulator(l1, memory)
    simulator.load(addresses, length=1)
    first, second, rest = list(simulator.stats())[:3]
    assert rest["LOAD_count"] == second["MISS_count"]
    return first["HIT_count"], second["HIT_count"], second["MISS_count"]


def libcachesim_hits(pages: Sequence[int], entries: int) -> int:
    """Return the hits of libcachesim's LRU of `entries` objects."""
    import libcachesim

    cache = libcachesim.LRU(cache_size=entries)
    request = libcachesim.Request()
    request.obj_size = 1
    hits = 0
    for page in pages:
        request.obj_id = page
        hits += cache.get(request)
    return hits
