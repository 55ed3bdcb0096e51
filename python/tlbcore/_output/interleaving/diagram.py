"""A counterexample as a sequence diagram in SVG: a lifeline per CPU and one of memory, time downwards.

A dashed box is an event of the hardware. An arrow to memory is what became visible to every CPU, one from memory what a
CPU read, one between CPUs an IPI; what stays in a CPU (its TLB, its store buffer, CR3) stands beside the move. Fonts
are the reader's, so lines are broken by a count of characters with room to spare, and nothing is measured.
"""

from __future__ import annotations

import html
import re
import textwrap

from tlbcore._output.interleaving.run import Run, Step
from tlbcore._output.visible import one_line

_LANE, _GUTTER, _BESIDE = 230, 46, 300  # pixels: of a CPU, of the numbers, of what changed
_LINE, _PAD, _CHAR = 15, 5, 7.4
_STYLE = (  # scoped, because in a page a style element holds for all of it
    ".sequence text{font:12px ui-monospace,'Cascadia Mono','DejaVu Sans Mono',monospace;fill:#1a1f26}"
    ".sequence .head{font-weight:700}.sequence .title{font-size:14px;font-weight:700}.sequence .quiet{fill:#56606d}"
    ".sequence .life{stroke:#9aa5b3;stroke-dasharray:3 4}.sequence .op{fill:#eef4fb;stroke:#0b5cad}"
    ".sequence .event{fill:#fff;stroke:#56606d;stroke-dasharray:4 3}"
    ".sequence .broken{fill:#fdeceb;stroke:#b3261e;stroke-width:2}"
    ".sequence .arrow{stroke:#0b5cad;fill:none;marker-end:url(#tip)}"
    ".sequence .ipi{stroke:#b35c00;stroke-width:2}"
)


def svg(found: Run, title: str = "", *, every: bool = False, prefix: str = "") -> str:
    """Return the diagram; `every` has the moves too that change nothing others can see.

    `prefix` keeps ids apart where a page has several diagrams.
    """
    lanes = found.lanes
    places = [_GUTTER + _LANE * i + _LANE // 2 for i in range(len(lanes))]
    memory = _GUTTER + _LANE * len(lanes) + 40
    beside = memory + 44
    width = beside + _BESIDE
    heading = title or f"{found.rule} in {len(found.steps)} moves"
    out = [f'<text class="title" x="{_GUTTER}" y="22">{_text(heading)}</text>']
    out += [
        f'<text class="head" x="{x}" y="48" text-anchor="middle">{_text(lane)}</text>'
        for x, lane in zip(places, lanes, strict=True)
    ]
    out += [
        f'<text class="head" x="{memory}" y="48" text-anchor="middle">memory</text>',
        f'<text class="head" x="{beside}" y="48">changed</text>',
    ]
    top = y = 60
    rows: list[str] = []
    sent: dict[int, tuple[int, int]] = {}  # CPU -> where the IPI left that it has not taken yet
    shown = [step for step in found.steps if every or step.shown or step is found.steps[-1]]
    for step in shown:
        row, height = _move(step, places, memory, beside, y, last=step is found.steps[-1])
        if step.what == "(interrupt)" and step.cpu in sent:
            rows.append(_ipi(sent.pop(step.cpu), places[step.cpu], y + 12))
        rows += row
        for change in step.changes:
            if (to := re.fullmatch(r"IPI to cpu (\d+)", change)) is not None:
                sent[int(to[1])] = (places[step.cpu], y + 12)
        y += height
    lifelines = [
        f'<line class="life" x1="{x}" y1="{top}" x2="{x}" y2="{y}"></line>' for x in (*places, memory)
    ]
    y += 20
    for line in textwrap.wrap(one_line(found.closing), int((width - _GUTTER) / _CHAR)):
        out.append(f'<text x="{_GUTTER}" y="{y}">{_text(line)}</text>')
        y += _LINE
    tip = f"{prefix}tip"
    style = _STYLE.replace("#tip", f"#{tip}")
    return (
        f'<svg class="sequence" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 6}" '
        f'width="{width}" height="{y + 6}" role="img" aria-label="{_text(heading)}">\n<title>{_text(heading)}</title>\n'
        f"<desc>{_text(one_line(found.closing))}</desc>\n<style>{style}</style>\n"
        f'<defs><marker id="{tip}" viewBox="0 0 8 8" refX="8" refY="4" markerUnits="userSpaceOnUse" '
        f'markerWidth="9" markerHeight="9" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="#0b5cad"></path></marker></defs>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"></rect>\n'
        + "\n".join(lifelines + out + rows)
        + "\n</svg>\n"
    )


def _ipi(start: tuple[int, int], x: int, y: int) -> str:
    """Return the arrow of an IPI from where it left to the interrupt, each at the side that faces the other."""
    side = _LANE // 2 - 8
    towards = 1 if x > start[0] else -1
    return f'<path class="arrow ipi" d="M{start[0] + towards * side} {start[1]}L{x - towards * side} {y}"></path>'


def _move(
    step: Step, places: list[int], memory: int, beside: int, y: int, *, last: bool
) -> tuple[list[str], int]:
    """Return one move's elements and how high they stand."""
    x = places[step.cpu]
    room = int((_LANE - 24) / _CHAR)
    what = textwrap.wrap(one_line(step.what), room) or [""]
    changes = [
        line for change in step.changes for line in textwrap.wrap(one_line(change), int(_BESIDE / _CHAR))
    ]
    height = _LINE * max(len(what), len(changes), 1) + 2 * _PAD + 6
    box = _LINE * len(what) + 2 * _PAD
    kind = "broken" if last else "event" if step.what.startswith("(") else "op"
    out = [
        f'<text class="quiet" x="{_GUTTER - 8}" y="{y + 16}" text-anchor="end">{step.number}</text>',
        f'<rect class="{kind}" x="{x - _LANE // 2 + 8}" y="{y}" width="{_LANE - 16}" height="{box}" rx="3"></rect>',
    ]
    out += [
        f'<text x="{x}" y="{y + _PAD + 11 + _LINE * i}" text-anchor="middle">{_text(line)}</text>'
        for i, line in enumerate(what)
    ]
    edge, middle = x + _LANE // 2 - 8, y + box // 2
    if any(_is_read(change) for change in step.changes):
        out.append(f'<path class="arrow" d="M{memory} {middle}L{edge} {middle}"></path>')
    elif any(_is_shared(change) for change in step.changes):
        out.append(f'<path class="arrow" d="M{edge} {middle}L{memory} {middle}"></path>')
    out += [
        f'<text x="{beside}" y="{y + _PAD + 11 + _LINE * i}">{_text(line)}</text>'
        for i, line in enumerate(changes)
    ]
    return out, height


def _is_read(change: str) -> bool:
    return change.startswith("reads ")


def _is_shared(change: str) -> bool:
    """Say whether a change is one of memory, which every CPU can see."""
    own = ("buffer", "tlb", "upper", "fetched", "cr3", "reads ", "IPI to ")
    return change != "ack" and not change.startswith(own) and not change.endswith((" is dead", " is free"))


def _text(text: str) -> str:
    return html.escape(one_line(text))
