"""Verdicts: the states of each search and how they grow with the CPUs, what a policy needs, what repairs cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tlbcore._core import ConfigError
from tlbcore._input.door import door
from tlbcore.plot import _canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tlbcore.checker import Verdict
    from tlbcore.verdicts import Need, Needs, Repairs, VerdictTable

# Status -> colour and marker; a search that stopped early has no whole number of states, and is hollow.
_LOOK = {"verified": (0, "o", "full"), "violated": (1, "X", "none"), "inconclusive": (6, "s", "none")}


@door
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


@door
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


@door
def needs(axes: Axes, found: Needs) -> Axes:
    """Draw which ops and orders a policy needs: a row each, the states that were searched, filled where it is needed.

    What was left inconclusive is hollow, like what is not needed, and says so by its mark.
    """
    looks = (("needed", 1, "o", "full"), ("not needed", 0, "o", "none"), ("inconclusive", 6, "s", "none"))
    for label, colour, marker, fill in looks:
        rows = [i for i, need in enumerate(found) if _needed(need) == label]
        if rows:
            axes.plot(
                [found[i].states for i in rows], rows, marker, label=label, fillstyle=fill,
                color=_canvas.PALETTE[colour],
            )  # fmt: skip
    _canvas.rows(axes, [_canvas.marked(f"{need.section}: {need.what}", False) for need in found], room=60)
    axes.set_xscale("log")
    axes.set_xlabel("states until the answer (counted)")
    _canvas.title(axes, f"{found.policy.name}: {sum(need.needed for need in found)} of {len(found)} needed")
    axes.legend()
    return axes


def _needed(need: Need) -> str:
    return "needed" if need.needed else "inconclusive" if need.status == "inconclusive" else "not needed"


@door
def repairs(axes: Axes, found: Repairs) -> Axes:
    """Draw what repairs cost per system call beyond mainline, a bar each."""
    if not len(found):
        edits = "one edit" if found.edits == 1 else f"{found.edits} edits"
        return _canvas.empty(axes, f"nothing with at most {edits} repairs {found.policy.name}")
    axes.barh(
        np.arange(len(found)),
        [row.cost.syscall_extra_ns for row in found],
        color=_canvas.PALETTE[0],
        height=0.6,
    )
    _canvas.rows(axes, [_canvas.marked("; ".join(row.edits), False) for row in found], room=60)
    axes.axvline(0, linewidth=0.8, color="black")
    axes.set_xlabel("system call, beyond mainline (ns, predicted)")
    _canvas.title(axes, f"Repairs of {found.policy.name} on {found.machine}")
    return axes


@door
def verdict_table(axes: Axes, found: VerdictTable) -> Axes:
    """Draw the states of every search of the verdict table, a row per policy; a hollow mark ended early."""
    names = list(dict.fromkeys(row.policy for row in found))
    for status, (colour, marker, fill) in _LOOK.items():
        mine = [row for row in found if row.status == status]
        if mine:
            axes.plot(
                [row.states for row in mine], [names.index(row.policy) for row in mine], marker, label=status,
                fillstyle=fill, color=_canvas.PALETTE[colour], alpha=0.7,
            )  # fmt: skip
    _canvas.rows(axes, names)
    axes.set_xscale("log")
    axes.set_xlabel("states (counted)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes
