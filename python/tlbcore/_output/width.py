"""How many columns the text of a report may have: 100, or what the command line says there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MOST = 100
LEAST = 40

_columns: ContextVar[int] = ContextVar("columns", default=MOST)


def columns() -> int:
    """Return how many columns a report may have here."""
    return _columns.get()


@contextmanager
def fitted(room: int) -> Iterator[None]:
    """Let reports fit this many columns, within what they can be read in."""
    before = _columns.set(max(LEAST, min(MOST, room)))
    try:
        yield
    finally:
        _columns.reset(before)
