"""Counts (SEMANTICS A8): what only grows is known by its rank among its copies, and by nothing else.

A value carries which count it is of: so a register says by itself whether it is renamed, whatever way led there. Of one
that counts per address space, each number also says of which: `OF_MM` times that, and 0 is everybody's.
"""

from __future__ import annotations

from typing import Any

from tlbcore.reference._memory import with_cpu
from tlbcore.reference._model import OF_MM, Model
from tlbcore.reference._state import Frame, Overflow, State

__all__ = ["Count", "in_one_order", "increased", "ranked", "taken"]


class Count(int):
    """A value of a count: an `int` that knows which variable counts it."""

    source: int

    def __new__(cls, value: int, source: int) -> Count:
        count = super().__new__(cls, value)
        count.source = source
        return count


def taken(m: Model, place: dict[str, int], value: int) -> int:
    """Return a value that was read from a field as what the field holds."""
    source = m.counts.get(m.fields[place["field"]]["var"])
    return value if source is None else Count(value, source)


def increased(m: Model, f: Frame, place: dict[str, Any], old: int, new: int) -> int:
    """Return what an increment makes of a count; the first one of an address space's says whose it is."""
    at = place["at"]
    if old or not isinstance(at, dict) or "Mm" not in at or m.fields[place["field"]]["var"] not in m.counts:
        return new
    return new + OF_MM * f.regs[int(at["Mm"][1:])]


def in_one_order(a: int, b: int) -> None:
    """Give no verdict where values of two address spaces' counts are compared."""
    if isinstance(a, Count) and isinstance(b, Count) and a and b and a // OF_MM != b // OF_MM:
        raise Overflow


def ranked(m: Model, s: State) -> State:
    """Return the state with the values of each count replaced by their ranks, 0 by 0."""
    for source in sorted(set(m.counts.values())):
        at = {address for (var, _), address in m.where.items() if m.counts.get(var) == source}
        frames = [f for cpu in s.cpus for f in cpu.frames]
        values = {0, *(s.memory[address] for address in at)}
        values |= {value for cpu in s.cpus for address, _, value in cpu.buffer if address in at}
        values |= {value for f in frames for value in f.regs if _is_of(value, source)}
        rank: dict[int, int] = {}
        for mm in {value // OF_MM for value in values}:
            own = sorted({0, *(value for value in values if value // OF_MM == mm)})
            rank |= {value: n + OF_MM * mm for n, value in enumerate(own)}
        rank[0] = 0
        if all(rank[value] == value for value in values):
            continue
        memory = tuple(rank[value] if n in at else value for n, value in enumerate(s.memory))
        s = s._replace(memory=memory)
        for i, cpu in enumerate(s.cpus):
            buffer = tuple((a, mask, rank[v] if a in at else v) for a, mask, v in cpu.buffer)
            s = with_cpu(s, i, buffer=buffer, frames=tuple(_of(f, rank, source) for f in cpu.frames))
    return s


def _is_of(value: int, source: int) -> bool:
    return isinstance(value, Count) and value.source == source


def _of(f: Frame, rank: dict[int, int], source: int) -> Frame:
    return f._replace(regs=tuple(Count(rank[v], source) if _is_of(v, source) else v for v in f.regs))
