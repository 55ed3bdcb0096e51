"""A counterexample that can be stepped through: what each CPU does, and what holds after each move."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tlbcore._output.html.page import escape, scroller
from tlbcore._output.interleaving.diagram import svg
from tlbcore._output.interleaving.held import states

if TYPE_CHECKING:
    from tlbcore.checker import Counterexample


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
    drawn = svg(found).replace(' xmlns="http://www.w3.org/2000/svg"', "")  # a page has it by itself
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
        f'<div class="run" tabindex="0" role="group" aria-label="The run, move by move"><div class="stage">'
        f'<div class="controls" role="group" aria-label="Moves">{buttons}'
        f'<label><input type="checkbox"> all moves</label> <output></output></div>\n'
        f'<div class="state" aria-live="polite"></div></div>\n'
        f'<div class="scroll"><table class="steps"><caption>{how}</caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>\n"
        f'<p>{escape(found.closing)}</p><script type="application/json">{held}</script></div>'
        f'<details class="diagram"><summary>As a sequence diagram</summary>'
        f"{scroller('The run as a sequence diagram')}{drawn}</div></details>"
    )
