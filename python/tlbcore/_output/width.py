"""How many columns the text of a report may have: 100, or what the command line says there are."""

from __future__ import annotations

import textwrap
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


def wrapped(text: str, room: int) -> str:
    """Return text in which no line is longer than `room`, broken at blanks; what follows is indented by two more.

    A word that is longer stands whole: names are never cut.

    >>> print(wrapped("  of one line two are made", 16))
      of one line
        two are made
    """
    lines = []
    for line in text.split("\n"):
        if len(line) <= room:
            lines.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line.strip(), room, initial_indent=indent, subsequent_indent=f"{indent}  ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join(lines)
