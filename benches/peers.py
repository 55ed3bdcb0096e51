"""The loops that tlbcore's are compared with, in the same process: Numba's and C's, made when a bench runs.

Both keep the recency order as the layout and carry the victim along, in 64 bits a way. They do less than a `Tlb`: no
check of what is given, no page sizes, no globals, one geometry. That is what a reader would write, so it is the peer.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Pages = NDArray[np.uint64]
SOURCE = Path(__file__).parent / "peers.c"
L1, L2 = (16, 4), (128, 12)
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


@cache
def library() -> ctypes.CDLL:
    """Compile the loops in C for this machine; skip where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    out = Path(tempfile.mkdtemp()) / "peers.so"
    command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", str(SOURCE), "-o", str(out)]
    subprocess.run(command, check=True)
    made = ctypes.CDLL(str(out))
    made.peer_curve.restype = ctypes.c_uint64
    return made


@cache
def numba_loop() -> Any:
    """Compile the loop of Numba, `(pages, l1, l2) -> (hits, hits)`; skip where it is not installed."""
    numba = pytest.importorskip("numba")

    @numba.njit
    def run(pages: Any, l1: Any, l2: Any) -> tuple[int, int]:
        first = second = 0
        for page in pages:
            row = l1[page & np.uint64(15)]
            carry = page
            hit = False
            for way in range(4):
                old = row[way]
                row[way] = carry
                if old == page:
                    hit = True
                    break
                carry = old
            if hit:
                first += 1
                continue
            row = l2[page & np.uint64(127)]
            carry = page
            for way in range(12):
                old = row[way]
                row[way] = carry
                if old == page:
                    second += 1
                    break
                carry = old
        return first, second

    run(np.array([1, 2], dtype=np.uint64), *empty())
    return run


def empty() -> tuple[Pages, Pages]:
    """Return both levels with nothing in them."""
    return np.full(L1, EMPTY), np.full(L2, EMPTY)


def _at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def c_access(pages: Pages, contexts: NDArray[np.uint16] | None, l1: Pages, l2: Pages) -> tuple[int, int]:
    """Hits of both levels, by the loop in C."""
    counts = np.zeros(2, dtype=np.uint64)
    given = None if contexts is None else _at(contexts)
    library().peer_access(_at(pages), given, ctypes.c_size_t(len(pages)), _at(l1), _at(l2), _at(counts))
    return int(counts[0]), int(counts[1])


def c_events(events: NDArray[np.void], cpus: int) -> tuple[int, int]:
    """Hits of both levels, by the loop in C; every op that is no access empties its CPU."""
    state = np.full(cpus * (L1[0] * L1[1] + L2[0] * L2[1]), EMPTY)
    counts = np.zeros(2, dtype=np.uint64)
    library().peer_events(_at(events), ctypes.c_size_t(len(events)), _at(state), _at(counts))
    return int(counts[0]), int(counts[1])


def c_curve(pages: Pages, depth: int) -> NDArray[np.uint64]:
    """Misses of a fully associative LRU of 1 to `depth` pages, by Olken's tree in C."""
    found = np.zeros(depth, dtype=np.uint64)
    library().peer_curve(_at(pages), ctypes.c_size_t(len(pages)), _at(found), ctypes.c_size_t(depth))
    misses: NDArray[np.uint64] = np.uint64(len(pages)) - np.cumsum(found, dtype=np.uint64)
    return misses
