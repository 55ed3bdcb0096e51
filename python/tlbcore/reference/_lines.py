"""Lines of caches: who may hold one, and whether somebody relies on nobody doing so (H11, S14)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from tlbcore.reference._memory import with_cpu
from tlbcore.reference._model import Model
from tlbcore.reference._state import State, Violation
from tlbcore.reference._translations import cached, maps, walk

__all__ = ["lines"]


def lines(
    m: Model, s: State, i: int, p: int, *, fetches: bool
) -> Iterator[tuple[str, bool, Callable[[], State]]]:
    """Yield what can happen to a page's lines on one CPU; `fetches` says whether it may use the page now."""
    page, cpu = s.pages[p], s.cpus[i]
    assert page.table is not None
    now = dict(page.leaves)[page.table]
    relied = now.rights > 0 and now.uncached and page.cacheds <= page.dead
    if relied and (p, now.frame) in cpu.lines:
        yield f"cpu {i}: write back {p}", False, _harm
    frame = _used(m, s, i, p) if fetches else None
    if frame is not None and (p, frame) not in cpu.lines:
        yield f"cpu {i}: line {p}", False, partial(with_cpu, s, i, lines=cpu.lines | {(p, frame)})


def _harm() -> State:
    raise Violation("stale_line")


def _used(m: Model, s: State, i: int, p: int) -> tuple[int, int] | None:
    """Return the frame that an access would reach through a translation of the type cached."""
    cpu = s.cpus[i]
    if cpu.user and not m.regions[p].user_mapped:
        return None
    leaf = cached(m, cpu, p)
    if leaf is None and maps(m, cpu, p):
        try:
            leaf = walk(m, s, i, p)
        except Violation:  # the walk itself is the harm
            return None
    return None if leaf is None or leaf.uncached else leaf.frame
