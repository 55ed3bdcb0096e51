"""The table of policies by worlds and versions of Linux, in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_CELL = 5
LEGEND: Mapping[str, str] = {
    "ok": "verified, with an NMI too",
    "nmi": "verified without an NMI, violated with one",
    "bad": "violated without an NMI",
    "*": "only if code does what nobody has seen it do (assumptions N, T)",
    "?": "a limit was met; behind a word, in the search for a worse one",
    "-": "inert: the world lacks what the policy needs, and mainline runs",
}


def heading(world: str) -> str:
    """Return the short name of a world, which heads its columns."""
    words = world.split("+")
    return words[-1] if len(words) > 1 else world


def as_text(table: Sequence[Any]) -> str:
    """Return the table of `Cell`s and its legend."""
    columns = list(dict.fromkeys((cell.world, cell.linux) for cell in table))
    versions = {world: sum(w == world for w, _ in columns) for world, _ in columns}
    # A world of one version is as wide as its name.
    room = {world: max(_CELL, -(-(len(heading(world)) + 1) // n)) for world, n in versions.items()}
    first = max((len(cell.policy) for cell in table), default=0) + 1
    lines = [
        " " * first + "".join(heading(w).ljust(room[w] * n) for w, n in versions.items()),
        " " * first + "".join(linux.ljust(room[world]) for world, linux in columns),
    ]
    words = {(cell.policy, cell.world, cell.linux): cell.word for cell in table}
    for name in dict.fromkeys(cell.policy for cell in table):
        cells = (words.get((name, *column), "").ljust(room[column[0]]) for column in columns)
        lines.append(name.ljust(first) + "".join(cells))
    lines.append("")
    lines += [f"{word:<4} {meaning}" for word, meaning in LEGEND.items()]
    return "\n".join(line.rstrip() for line in lines)
