"""TLBs: miss curves, address traces run through a machine, the counters of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tlbcore._input.door import door
from tlbcore.plot import _canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tlbcore.tlb import MissCurve, TlbResult
    from tlbcore.translation import Translation


@door
def miss_curve(axes: Axes, curve: MissCurve) -> Axes:
    """Draw misses over entries, a line per number of sets."""
    for i, sets in enumerate(np.unique(curve["sets"])):
        rows = curve["sets"] == sets
        look = _canvas.series(i)
        axes.plot(curve["sets"][rows] * curve["ways"][rows], curve["misses"][rows], label=str(sets), **look)
    how = "exact"
    if curve.errors is not None:
        how = f"from {curve.sample:g} of the pages"
        spread = curve.errors * curve.accesses
        axes.fill_between(
            curve["entries"],
            curve["misses"] - spread,
            curve["misses"] + spread,
            alpha=0.2,
            lw=0,
            label="95 %",
        )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("entries (sets times ways)")
    axes.set_ylabel(f"misses of {curve.accesses:,} accesses\n(LRU, {how})")
    axes.legend(title="sets")
    return axes


@door
def translation(axes: Axes, found: Translation) -> Axes:
    """Draw what answered the accesses of each CPU: a bar per CPU, a part per level, the rest walks."""
    table = found.table
    cpus = np.unique(table["cpu"])
    left = np.zeros(len(cpus))
    total = np.array([table["accesses"][table["cpu"] == cpu].sum() for cpu in cpus], dtype=float)
    for i, name in enumerate([*(f"{level}_hits" for level in found.levels), "walks"]):
        part = np.array([table[name][table["cpu"] == cpu].sum() for cpu in cpus]) / np.maximum(total, 1)
        axes.barh(
            np.arange(len(cpus)), part, left=left, label=name.replace("_", " "), color=_canvas.PALETTE[i]
        )
        left = left + part
    _canvas.rows(axes, [f"CPU {cpu}" for cpu in cpus])
    axes.set_xlabel("share of accesses (predicted)")
    _canvas.title(axes, f"{_canvas.marked(found.path, False)} on {found.machine.name}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes


@door
def access(axes: Axes, result: TlbResult) -> Axes:
    """Draw the counters of one call that are not zero, a bar each."""
    counters = {name: int(count) for name, count in result.counters.items() if count}
    if not counters:
        return _canvas.empty(axes, "nothing was counted")
    axes.barh(np.arange(len(counters)), list(counters.values()), color=_canvas.PALETTE[0])
    _canvas.rows(axes, [name.replace("_", " ") for name in counters])
    axes.set_xlabel("count")
    return axes
