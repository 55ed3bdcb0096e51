"""What holds after each move of a counterexample, from the changes that its text shows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tlbcore._output.interleaving.run import Step

Change = tuple[str, str | None]

_HELD = {"tlb": "TLB", "upper": "paging-structure cache", "fetched": "fetched"}


def states(steps: Sequence[Step]) -> list[list[Change]]:
    """Return for each move what it sets (or, with None, takes away): store buffers, TLBs, tables, CR3, variables.

    Made of the changes that the text report shows, so that page and text cannot differ. A name appears once something
    about it changed; before that it has the value with which the run starts.
    """
    buffers: dict[str, list[str]] = {}
    pending: dict[str, int] = {}
    out = []
    for step in steps:
        now: list[Change] = []
        mine = f"cpu {step.cpu} store buffer"
        if step.what == "(store visible)" and buffers.get(mine):
            buffers[mine].pop(0)
            now.append((mine, "; ".join(buffers[mine]) or "empty"))
        waiting = f"cpu {step.cpu} interrupt"
        if step.what == "(interrupt)" and pending.get(waiting):
            pending[waiting] -= 1
            if not pending[waiting]:
                now.append((waiting, None))
        for change in step.changes:
            if (m := re.fullmatch(r"IPI to cpu (\d+)", change)) is not None:
                where = f"cpu {m[1]} interrupt"
                pending[where] = pending.get(where, 0) + 1
                now.append((where, "waiting for it"))
            elif (m := re.fullmatch(r"buffer(\d+): (.*)", change)) is not None:
                where = f"cpu {m[1]} store buffer"
                buffers.setdefault(where, []).append(m[2])
                now.append((where, "; ".join(buffers[where])))
            elif (m := re.fullmatch(r"(tlb|upper|fetched)(\d+): (-?)([^:]*)(?::(.*))?", change)) is not None:
                now.append((f"cpu {m[2]} {_HELD[m[1]]}: {m[4]}", None if m[3] else m[5]))
            elif (m := re.fullmatch(r"cr3: (.*)", change)) is not None:
                now.append((f"cpu {step.cpu} CR3", m[1]))
            elif (m := re.fullmatch(r"((?:pte|table|text) .*): (.*)", change)) is not None:
                now.append((m[1], m[2]))
            elif (m := re.fullmatch(r"(.*): ((?:older than )?\S+ is (?:dead|free))", change)) is not None:
                now.append((f"{m[1]} relied on", m[2]))
            elif (m := re.fullmatch(r"([^=]*\S)=(\S.*)", change)) is not None:
                now.append((m[1], m[2]))
        out.append(now)
    return out


def held(changes: Sequence[Sequence[Change]], now: int) -> dict[str, tuple[str, bool]]:
    """Return what holds after the move with index `now`: each name's value, and whether this move set it.

    `changes` is what `states` returns; below 0 nothing has happened.
    """
    values: dict[str, tuple[str | None, int]] = {}
    for i, step in enumerate(changes[: now + 1]):
        for key, value in step:
            values[key] = (value, i)
    return {key: (value, at == now) for key, (value, at) in values.items() if value is not None}
