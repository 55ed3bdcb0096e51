"""What to say when a name is not known."""

from __future__ import annotations

from collections.abc import Iterable


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the nearest known one, or all when none is near.

    >>> unknown("policy", "coalesce-v8", ["ipi", "coalesce-v7"])
    "unknown policy 'coalesce-v8', did you mean 'coalesce-v7'?"
    >>> unknown("policy", "zzz", ["ipi", "coalesce-v7"])
    "unknown policy 'zzz': known are coalesce-v7, ipi"
    """
    from tlbcore import _core

    names = sorted(known)
    near = _core.nearest(name, names) if isinstance(name, str) else None
    if near is not None:
        return f"unknown {what} {name!r}, did you mean {near!r}?"
    return f"unknown {what} {name!r}: known are {', '.join(names)}"
