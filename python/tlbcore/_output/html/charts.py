"""Charts as SVG: lines over a parameter, and what took a CPU over time, a lane per cause.

Made here because a path per series is less than any library's set-up, and nothing has to be bundled. Every chart stands
beside a table with the same figures, for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tlbcore._output.html.page import escape, number, scroller

COLOURS = 7  # classes s0 to s6 of the style sheet: the colours of Okabe and Ito
_DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3", "10 4", "4 4")
_BUCKETS = 1000  # of a lane; fewer where there are many lanes, so that a page stays below 2 MB
_BUDGET = 30_000  # buckets of all lanes of a page
_BARS = 6_000  # bars with a text of their own, of a page
_SLACK = 1e-9  # of a step: an end of an axis that is a tick but for its last bits has one


@dataclass(frozen=True)
class Line:
    """One series of a chart; what is NaN is not drawn, a hollow one is inert."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    hollow: bool = False


@dataclass(frozen=True)
class _Scale:
    """From values to pixels, linear or logarithmic; the ends differ."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    ticks: list[float] = field(default_factory=list)

    def at(self, value: float) -> float:
        low, high, value = (
            (math.log10(self.low), math.log10(self.high), math.log10(value))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def _scale(values: Sequence[float], start: float, end: float, *, zero: bool = False) -> _Scale:
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > 10
    if logarithmic:
        ticks = [10.0**i for i in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        every = -(-len(ticks) // 6)
        return _Scale(low, high, start, end, logarithmic=True, ticks=ticks[::every])
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    step = 10 ** math.floor(math.log10(high - low))  # the axis is one to ten of them long
    for part in (0.2, 0.25, 0.5, 1.0, 2.0):
        if (high - low) / (step * part) <= 5:
            step *= part
            break
    first, last = math.ceil(low / step - _SLACK), math.floor(high / step + _SLACK)
    ticks = [i * step for i in range(first, last + 1)]
    return _Scale(low, high, start, end, ticks=ticks)


def lines(series: Sequence[Line], x: str, y: str, caption: str, *, zero: bool = True) -> str:
    """Return a chart of lines with their intervals; axes are logarithmic where positive values span a factor of ten.

    Empty where there is nothing to draw, or zero only.
    """
    drawn = [line for line in series if any(_known(a, b) for a, b in zip(line.x, line.y, strict=True))]
    xs = [a for line in drawn for a, b in zip(line.x, line.y, strict=True) if _known(a, b)]
    ys = [b for line in drawn for a, b in zip(line.x, line.y, strict=True) if _known(a, b)]
    if not any(ys):
        return ""  # nothing, or zero everywhere
    ys += [value for line in drawn for value in (*line.low, *line.high) if not math.isnan(value)]
    across = _scale(xs, 80, 690)
    up = _scale(ys, 250, 20, zero=zero)
    out = [
        f'<line class="grid" x1="80" x2="690" y1="{up.at(tick):.1f}" y2="{up.at(tick):.1f}"></line>'
        f'<text x="74" y="{up.at(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        for tick in up.ticks
    ]
    out += [
        f'<text x="{across.at(tick):.1f}" y="268" text-anchor="middle">{number(tick)}</text>'
        for tick in across.ticks
    ]
    for i, line in enumerate(drawn):
        out += _line(line, i, across, up)
    out.append(f'<text x="385" y="290" text-anchor="middle">{escape(x)}</text>')
    out.append(f'<text x="80" y="12">{escape(y)}</text>')
    return (
        f'<figure>{scroller(caption)}<svg class="chart" viewBox="0 0 960 300" role="img" '
        f'aria-label="{escape(caption)}">{"".join(out)}</svg></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _line(line: Line, i: int, across: _Scale, up: _Scale) -> list[str]:
    known = [(a, b) for a, b in zip(line.x, line.y, strict=True) if _known(a, b)]
    points = [(across.at(a), up.at(b)) for a, b in sorted(known)]
    bars = [
        f'<path class="interval s{i % COLOURS}" d="M{across.at(a):.1f} {up.at(low):.1f}V{up.at(high):.1f}"></path>'
        for a, low, high in zip(line.x, line.low, line.high, strict=False)
        if _known(a, low) and not math.isnan(high)
    ]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    dash = _DASHES[i % len(_DASHES)]
    name = f"{line.name} (inert)" if line.hollow else line.name
    y = 30 + 20 * i
    return [
        *bars,
        f'<path class="line s{i % COLOURS}" stroke-dasharray="{dash}" d="M{path}"></path>',
        *(
            f'<circle class="dot s{i % COLOURS}{" hollow" if line.hollow else ""}" cx="{a:.1f}" cy="{b:.1f}" r="3.5">'
            f"</circle>"
            for a, b in points
        ),
        f'<path class="line s{i % COLOURS}" stroke-dasharray="{dash}" d="M705 {y}H735"></path>',
        f'<text x="742" y="{y + 4}">{escape(name)}</text>',
    ]


def _known(a: float, b: float) -> bool:
    return not (math.isnan(a) or math.isnan(b))


@dataclass(frozen=True)
class Lane:
    """What happened over time: a name, when (seconds from the start), what is said beside the name, a colour."""

    name: str
    at_s: Any
    said: str = ""
    colour: int = 0


def over_time(
    counts: Sequence[int],
    step_s: float,
    lanes: Sequence[Lane],
    seconds: float,
    caption: str,
    *,
    figures: int = 1,
) -> str:
    """Return counts over time, and below them a lane per cause; wheel, pointer and keys zoom and move all of them.

    `figures` is how many such charts the page has, for its size.
    """
    import numpy as np

    if not counts:
        counts, step_s = [0], seconds
    bars = max(40, min(2000, _BARS // max(figures, 1)))
    if len(counts) > bars:
        per = math.ceil(len(counts) / bars)
        counts = [sum(counts[i : i + per]) for i in range(0, len(counts), per)]
        step_s *= per
    whole = len(counts)
    top = max(counts) or 1
    drawn = "".join(
        f'<rect x="{i}" y="{100 - 100 * count / top:.1f}" width="0.9" height="{100 * count / top:.1f}">'
        f"<title>{count:,} at {i * step_s:.6g} s</title></rect>"
        for i, count in enumerate(counts)
        if count
    )
    rows = [_row("all interrupts", "", whole, drawn, "all")]
    buckets = max(40, min(_BUCKETS, _BUDGET // max(1, figures * max(1, len(lanes)))))
    length = whole * step_s or seconds or 1.0
    for lane in lanes:
        found, _ = np.histogram(np.asarray(lane.at_s, dtype=float), bins=buckets, range=(0.0, length))
        most = int(found.max()) or 1
        width = whole / buckets
        path = "".join(
            f"M{i * width:.4g} 100v-{max(8.0, 100 * math.sqrt(found[i] / most)):.0f}h{width:.3g}V100z"
            for i in np.flatnonzero(found).tolist()
        )
        rows.append(
            _row(lane.name, lane.said, whole, f'<path d="{path}"></path>', str(lane.colour % COLOURS))
        )
    return (
        f'<figure class="zoom" tabindex="0" role="group" data-step="{step_s!r}" data-width="{whole}" '
        f'aria-label="{escape(caption)}">{"".join(rows)}'
        f"<figcaption>{escape(caption)} <output></output></figcaption></figure>"
    )


def _row(name: str, said: str, whole: int, drawn: str, colour: str) -> str:
    return (
        f'<div class="lane"><span>{escape(name)}{f" <small>{escape(said)}</small>" if said else ""}</span>'
        f'<svg class="s{colour}" viewBox="0 0 {whole} 100" '
        f'preserveAspectRatio="none" aria-hidden="true">{drawn}</svg></div>'
    )


EDGES_US = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5, math.inf)
"""Bounds of the classes of lengths, in microseconds; the lower one belongs to its class."""


def length_classes() -> list[str]:
    """Return the heads of the classes of lengths.

    >>> length_classes()[0], length_classes()[-1]
    ('under 1 us', 'from 100 ms')
    """
    names = [f"under {_us(EDGES_US[1])}"]
    names += [f"{_us(low)} to {_us(high)}" for low, high in pairwise(EDGES_US[1:-1])]
    return [*names, f"from {_us(EDGES_US[-2])}"]


def lengths(spans: Mapping[str, Any], cause: str) -> list[int]:
    """Return how many spans of a cause have a length of each class, and how many have none that is known."""
    import numpy as np

    mine = np.asarray(spans["length_us"])[np.asarray(spans["cause"]) == cause]
    known = mine[~np.isnan(mine)]
    counts, _ = np.histogram(known, bins=np.array(EDGES_US))
    return [*counts.tolist(), int(np.isnan(mine).sum())]


def _us(value: float) -> str:
    return f"{value / 1e3:g} ms" if value >= 1e3 else f"{value:g} us"
