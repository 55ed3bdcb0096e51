"""Counts and quantities from the user: the one place where they are checked.

NumPy's numbers are numbers too; True is none, and neither is a text that looks like one.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
from typing import Any

from tlbcore import _core

_MOST = (1 << 63) - 1


def count(
    value: Any,
    what: str,
    least: int = 0,
    most: int = _MOST,
    error: type[_core.TlbcoreError] = _core.SimError,
) -> int:
    """Return an integer between two bounds, both allowed.

    >>> count(3, "pages")
    3
    """
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:  # not every array that has an `__index__` is a number
        whole = None
    if whole is None or not least <= whole <= most:
        bound = f"of at least {least}" if most == _MOST else f"from {least} to {most}"
        raise error(f"{what} must be an integer {bound}: got {value!r}")
    return whole


def quantity(
    value: Any,
    what: str,
    *,
    above_zero: bool = False,
    most: float = math.inf,
    error: type[_core.TlbcoreError] = _core.SimError,
) -> float:
    """Return a finite number of at least 0, or above it.

    >>> quantity(0.5, "rate_hz", above_zero=True)
    0.5
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not (value > 0 if above_zero else value >= 0) or value > most:
        bound = "above 0" if above_zero else "of at least 0"
        end = "" if most == math.inf else f" and at most {most:g}"
        raise error(f"{what} must be a finite number {bound}{end}: got {value!r}")
    return float(value)


def as_threads(threads: Any, error: type[_core.TlbcoreError] = _core.SimError) -> int:
    """Return a number of threads; as many as there are CPUs for None.

    >>> as_threads(2)
    2
    """
    return (os.cpu_count() or 1) if threads is None else count(threads, "threads", 1, 4096, error)


def flag(value: Any, what: str, error: type[_core.TlbcoreError] = _core.SimError) -> bool:
    """Return True or False, NumPy's included.

    >>> flag(True, "poisson")
    True
    """
    if not isinstance(value, bool) and type(value).__name__ != "bool":
        raise error(f"{what} must be True or False: got {value!r}")
    return bool(value)
