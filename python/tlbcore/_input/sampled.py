"""Miss curves from a sample of the pages: SHARDS of Waldspurger et al., FAST 2015, with fixed rate.

A page is in the sample if a hash of it says so, so all of its references are, or none. Between two references to a page
the sample has `rate` times as many other pages as the trace, so a depth in the sample's stack is that part of the depth
in the whole one, and each sampled miss stands for `1 / rate` misses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core

#: Groups of sampled pages, each left out once: how the curves differ says how uncertain the one of all is.
GROUPS = 8
#: 97.5 % quantile of Student's t with `GROUPS - 1` degrees of freedom.
STUDENT = 2.365
_CHUNK = 1 << 16
_BITS = 53


class Sample:
    """Sampled references that come in pieces, and the curves of a fully associative LRU TLB that they give."""

    def __init__(self, rate: float, ways: int) -> None:
        self.rate, self.ways = rate, ways
        self.references = self.sampled = 0
        # One more than the deepest depth that is read, for what lies between two of them.
        depths = math.ceil(ways * rate) + 1
        self._all = _core.MissCounter([1], depths)
        self._without = [_core.MissCounter([1], depths) for _ in range(GROUPS)]

    def feed(self, pages: NDArray[np.uint64], whose: NDArray[np.uint64] | None = None) -> None:
        """Take further references, to pages below 2^45; those of different `whose` are to different pages."""
        for at in range(0, len(pages), _CHUNK):
            piece = pages[at : at + _CHUNK]
            self.references += len(piece)
            drawn = _hash(piece if whose is None else piece ^ _hash(whose[at : at + _CHUNK]))
            chosen = (drawn >> np.uint64(64 - _BITS)) < np.uint64(round(self.rate * 2**_BITS))
            drawn = drawn[chosen]
            self.sampled += len(drawn)
            # The hash is one to one, and 45 bits of it are a name: of n sampled pages two share one in about
            # n^2 / 2^46 of all cases.
            kept = piece[chosen] if whose is None else drawn & np.uint64((1 << 45) - 1)
            group = drawn & np.uint64(GROUPS - 1)
            self._all.feed(kept)
            for number, counter in enumerate(self._without):
                counter.feed(kept[group != number])

    @property
    def tells(self) -> bool:
        """Whether every group has a page: else nothing says how uncertain the curve is."""
        return all(counter.counts()[0] < self.sampled for counter in self._without)

    def curve(self) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Return the estimated misses of 1 to `ways` ways, and half the width of the 95 % interval of their share.

        NaN: so few ways are less than one sampled page, and what is between 0 and 1 of them was not looked at.
        """
        estimate = self._estimate(self._all, self.rate)
        part = self.rate * (GROUPS - 1) / GROUPS
        others = np.array([self._estimate(counter, part) for counter in self._without])
        # The jackknife over groups.
        variance = (GROUPS - 1) / GROUPS * ((others - others.mean(axis=0)) ** 2).sum(axis=0)
        error = STUDENT * np.sqrt(variance) / max(self.references, 1)
        error[np.arange(1, self.ways + 1) * self.rate < 1] = np.nan
        return np.rint(estimate).astype(np.uint64), error

    def _estimate(self, counter: Any, rate: float) -> NDArray[np.float64]:
        _, misses = counter.counts()
        known = np.array([self.references, *(count / rate for count in misses[0])])
        wanted = np.arange(1, self.ways + 1) * rate
        found = np.interp(wanted, np.arange(len(known)), known)
        return np.minimum(np.minimum.accumulate(found), self.references)


def _hash(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele, Lea and Flood, OOPSLA 2014), which is one to one."""
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)
