"""A counterexample that can be stepped through: what each CPU does, and what holds after each move."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlbcore._output.html.page import escape

if TYPE_CHECKING:
    from tlbcore.checker import Counterexample, Step

Change = tuple[str, str | None]

_HELD = {"tlb": "TLB", "upper": "paging-structure cache", "fetched": "fetched"}


def run(found: Counterexample) -> str:
    """Return the moves of a counterexample as a table with buttons, and the state that script puts beside them."""
    lanes = found.lanes
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in ("move", *lanes, "changed", "place"))
    rows = []
    for step in found.steps:
        cells = "".join(
            f"<td>{f'<code>{escape(step.what)}</code>' if cpu == step.cpu else ''}</td>"
            for cpu in range(len(lanes))
        )
        rows.append(
            f'<tr{"" if step.shown else " class=" + chr(34) + "minor" + chr(34)}><td class="number">{step.number}</td>'
            f"{cells}<td>{escape('; '.join(step.changes))}</td><td>{escape(step.source or '')}</td></tr>"
        )
    held = json.dumps(states(found.steps)).replace("<", "\\u003c")
    buttons = "".join(
        f'<button type="button" name="{name}">{text}</button>'
        for name, text in (("first", "First"), ("back", "Back"), ("next", "Next"), ("last", "Last"))
    )
    how = (
        "Buttons, arrow keys or a click go from move to move; what holds after it stands above. Moves that change "
        "nothing here are shown with “all moves”."
    )
    return (
        f'<div class="run" tabindex="0"><div class="stage">'
        f'<div class="controls" role="group" aria-label="Moves">{buttons}'
        f'<label><input type="checkbox"> all moves</label> <output></output></div>\n'
        f'<div class="state" aria-live="polite"></div></div>\n'
        f'<div class="scroll"><table class="steps"><caption>{how}</caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>\n"
        f'<p>{escape(found.closing)}</p><script type="application/json">{held}</script></div>'
    )


def states(steps: Sequence[Step]) -> list[list[Change]]:
    """Return for each move what it sets (or, with None, takes away): store buffers, TLBs, tables, CR3, variables.

    Made of the changes that the text report shows, so that page and text cannot differ. A name appears once something
    about it changed; before that it has the value with which the run starts.
    """
    buffers: dict[str, list[str]] = {}
    out = []
    for step in steps:
        now: list[Change] = []
        mine = f"cpu {step.cpu} store buffer"
        if step.what == "(store visible)" and buffers.get(mine):
            buffers[mine].pop(0)
            now.append((mine, "; ".join(buffers[mine]) or "empty"))
        for change in step.changes:
            if (m := re.fullmatch(r"buffer(\d+): (.*)", change)) is not None:
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
