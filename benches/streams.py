"""The five streams of published TLB-simulator comparisons, and what exact LRU does with them (PEERS 2.2).

Pages are `address >> 12`; a stream has 2**24 of them unless told otherwise. The counts hold for L1 64
entries in 4 ways and STLB 1,536 in 12, exact LRU, and were confirmed by drcachesim's own TLB classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

PAGES, COUNT, SEED, BASE = 65536, 1 << 24, 20251114, 0x7F0000000
Stream = NDArray[np.uint64]


def _rng(seed: int = SEED) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _uniform(pages: int) -> Stream:
    return _rng().integers(0, pages, size=COUNT, dtype=np.uint64) + np.uint64(BASE)


def _zipf(exponent: float) -> Stream:
    """Rank k has weight k**-exponent; ranks are spread over the pages by a permutation."""
    rng = _rng()
    weights = np.cumsum(1 / np.arange(1, PAGES + 1, dtype=np.float64) ** exponent)
    weights /= weights[-1]
    spread = rng.permutation(PAGES).astype(np.uint64)
    ranks = np.searchsorted(weights, rng.random(COUNT), side="right")
    return spread[np.minimum(ranks, PAGES - 1)] + np.uint64(BASE)


def _runs(exponent: float, mean: float) -> Stream:
    return np.repeat(_zipf(exponent), _rng(SEED + 1).geometric(1 / mean, size=COUNT))[:COUNT]


_MAKE: dict[str, Callable[[], Stream]] = {
    "uniform64k": lambda: _uniform(65536),
    "zipf1.0": lambda: _zipf(1.0),
    "zipf1.2": lambda: _zipf(1.2),
    "hot48": lambda: _uniform(48),
    "runs8": lambda: _runs(1.0, 8),
}
NAMES = tuple(_MAKE)

#: First 16 digits of the SHA-256, and L1 hits, STLB hits, walks of the whole stream.
GOLDEN: dict[str, tuple[str, int, int, int]] = {
    "uniform64k": ("82ad4bbabf4deac2", 16_438, 376_509, 16_384_269),
    "zipf1.0": ("309498fd4ddeb3cb", 4_120_601, 5_462_051, 7_194_564),
    "zipf1.2": ("b31da442cd920957", 9_067_316, 4_842_344, 2_867_556),
    "hot48": ("cdbdf7f88d80fe4a", 16_777_168, 0, 48),
    "runs8": ("d369ff086e967432", 15_194_228, 682_996, 899_992),
}
#: The same for the first 1,000,000 accesses.
GOLDEN_MILLION = {"uniform64k": (982, 22_181, 976_837), "zipf1.0": (245_847, 325_693, 428_460)}


@cache
def stream(name: str) -> Stream:
    """Return a whole stream, read-only; made once per process."""
    made = _MAKE[name]()
    made.flags.writeable = False
    return made


def digest(pages: Stream) -> str:
    """Return the first 16 digits of the SHA-256 of the pages as little-endian 64-bit words."""
    return hashlib.sha256(pages.astype("<u8", copy=False).tobytes()).hexdigest()[:16]


def splitmix(count: int, pages: int, seed: int = SEED) -> Stream:
    """Return a stream that does not depend on NumPy's generators: SplitMix64, modulo `pages`."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) % np.uint64(pages) + np.uint64(BASE)
