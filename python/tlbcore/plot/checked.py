"""Verdicts: how many states each search had, and how that grows with the CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tlbcore._core import ConfigError
from tlbcore.plot import _canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tlbcore.checker import Verdict

# Status -> colour and marker; a search that stopped early has no whole number of states, and is hollow.
_LOOK = {"verified": (0, "o", "full"), "violated": (1, "X", "none"), "inconclusive": (6, "s", "none")}


def verdict(axes: Axes, found: Verdict) -> Axes:
    """Draw the states of each search of a verdict; a hollow mark ended early (violated, or a limit).

    What a harsher search implies was not searched, and is left out.
    """
    cases = [case for case in found.cases if not case.implied] or [found]
    for status, (colour, marker, fill) in _LOOK.items():
        rows = [i for i, case in enumerate(cases) if case.status == status]
        if rows:
            axes.plot(
                [cases[i].states for i in rows], rows, marker, label=status, fillstyle=fill,
                color=_canvas.PALETTE[colour],
            )  # fmt: skip
    _canvas.rows(axes, [f"{case.asked or 'as asked'}, {case.world}" for case in cases])
    axes.set_xscale("log")
    axes.set_xlabel("states (counted)")
    _canvas.title(axes, f"{_canvas.marked(found.policy, bool(found.inert))}: {found.status}")
    axes.legend()
    return axes


def growth(axes: Axes, verdicts: Mapping[int, Verdict]) -> Axes:
    """Draw how the states of a check grow with the CPUs; `verdicts` maps a number of CPUs to the verdict with so many.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> import tlbcore as tc
    >>> _, axes = plt.subplots()
    >>> found = {cpus: tc.check("coalesce-v7-fixed", cpus=cpus, world="pti") for cpus in (2, 3)}
    >>> tc.plot.growth(axes, found).get_xlabel()
    'CPUs'

    Raises `ConfigError` if there is none, or if they are of different policies.
    """
    if not verdicts:
        raise ConfigError("growth needs at least one verdict")
    names = sorted({found.policy for found in verdicts.values()})
    if len(names) > 1:
        raise ConfigError(f"growth is that of one policy: got {', '.join(names)}")
    cpus = sorted(verdicts)
    states = [verdicts[n].states for n in cpus]
    axes.plot(cpus, states, color=_canvas.PALETTE[0], linewidth=0.8)
    for status, (colour, marker, fill) in _LOOK.items():
        here = [i for i, n in enumerate(cpus) if verdicts[n].status == status]
        if here:
            axes.plot(
                np.array(cpus)[here], np.array(states)[here], marker, label=status, fillstyle=fill,
                color=_canvas.PALETTE[colour],
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xticks(cpus)
    axes.set_xlabel("CPUs")
    axes.set_ylabel("states (counted)")
    _canvas.title(axes, _canvas.marked(names[0], False))
    axes.legend()
    return axes
