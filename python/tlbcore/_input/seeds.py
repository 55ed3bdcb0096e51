"""Seeds as NumPy takes them: an integer, a `SeedSequence` or a `Generator`; and the seeds of replications."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from tlbcore import _core
from tlbcore._input.numbers import count

Seed: TypeAlias = int | np.random.SeedSequence | np.random.Generator

_MOST = (1 << 64) - 1
# What tells replications from children that a caller spawns: SeedSequence(seed).spawn(n) has one number in its key.
_REPLICATION = int.from_bytes(b"tlb", "big")


def as_seed(seed: Seed, error: type[_core.TlbcoreError] = _core.SimError) -> int:
    """Return a seed as the engine takes it, 0 to 2**64 - 1.

    A `SeedSequence` gives the first 64 bits of its state and stays as it is; a `Generator` draws 64 bits.

    >>> as_seed(7), as_seed(np.random.SeedSequence(7)) == as_seed(np.random.SeedSequence(7))
    (7, True)
    """
    if isinstance(seed, np.random.SeedSequence):
        return int(seed.generate_state(1, np.uint64)[0])
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(0, _MOST, dtype=np.uint64, endpoint=True))
    return count(seed, "seed", most=_MOST, error=error)


def replications(seed: Seed, how_many: int) -> list[int]:
    """Return the seeds of replications: the seed itself, then hashes of it and the replication's number.

    Other seeds have other replications, as children of a `SeedSequence` have; a larger number extends a smaller.

    >>> first, second = replications(1, 5), replications(2, 5)
    >>> first[0], first[:2] == replications(1, 2), set(first) & set(second)
    (1, True, set())
    """
    root = as_seed(seed)
    children = (
        np.random.SeedSequence(root, spawn_key=(_REPLICATION, i)).generate_state(1, np.uint64)[0]
        for i in range(1, how_many)
    )
    return [root, *map(int, children)]
