"""Recordings and measurements: what interrupted, what a policy would leave, published figures, costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore._core import ConfigError
from tlbcore._input.door import door
from tlbcore._input.names import unknown
from tlbcore.plot import _canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tlbcore.inspect.calibration import Calibration
    from tlbcore.trace import Trace
    from tlbcore.trace.explanation import Explanation
    from tlbcore.trace.replayed import Replay
    from tlbcore.trace.shootdown import Shootdowns
    from tlbcore.validation.row import Validation

_COLUMNS = {
    "per_hour": "interruptions per hour (measured)",
    "n": "interruptions (measured)",
    "total_ms": "time taken (ms, measured)",
    "p50_us": "median length (us, measured)",
    "p95_us": "95th percentile of lengths (us, measured)",
    "max_us": "longest (us, measured)",
}
_REPLAYED = {
    "interrupts": "interrupts left (predicted)",
    "remaining": "remote calls left (predicted)",
    "deferred": "remote calls deferred (predicted)",
    "entry_flushes": "flushes at kernel entry (predicted)",
    "exposure_s": "time with a deferral pending (s, predicted)",
    "exposure_longest_s": "longest time pending (s, predicted)",
    "call_interrupts_ms": "time of call interrupts left (ms, predicted)",
    "entries": "kernel entries (predicted)",
}


def causes_of(result: Any) -> int:
    """Return how many rows a recording's chart has."""
    return len(np.unique(_explained(result).table["cause"]))


def _explained(result: Any) -> Explanation:
    from tlbcore.trace.explanation import Explanation, explain

    found: Explanation = result if isinstance(result, Explanation) else explain(result)
    return found


def recording(axes: Axes, trace: Trace, figure: str = "per_hour") -> Axes:
    """Draw a recording: see `explanation`."""
    return explanation(axes, _explained(trace), figure)


@door
def explanation(axes: Axes, found: Explanation, figure: str = "per_hour") -> Axes:
    """Draw what took the isolated CPUs: a row per cause, a mark per CPU, with the 95 % interval of rates.

    `figure` is a column of its table: `per_hour`, `n`, `total_ms`, `p50_us`, `p95_us` or `max_us`. What was not
    recorded has no mark. Raises `ConfigError` for another column.
    """
    from tlbcore.trace import causes

    if figure not in _COLUMNS:
        raise ConfigError(unknown("figure", figure, _COLUMNS))
    table = found.table
    if not len(table["cpu"]):
        return _canvas.empty(axes, "nothing took the isolated CPUs, as far as was recorded")
    sums: dict[str, float] = {}
    for cause, value in zip(table["cause"].tolist(), np.nan_to_num(table[figure]).tolist(), strict=True):
        sums[cause] = sums.get(cause, 0.0) + value
    order = sorted(sums, key=lambda cause: (-sums[cause], cause))
    cpus = np.unique(table["cpu"])
    for i, cpu in enumerate(cpus):
        mine = np.flatnonzero(table["cpu"] == cpu)
        shift = (i - (len(cpus) - 1) / 2) * 0.6 / max(len(cpus), 1)
        y = np.array([order.index(table["cause"][row]) for row in mine]) + shift
        values = table[figure][mine].astype(float)
        look = {**_canvas.series(i), "linestyle": "none"}
        if figure == "per_hour":
            axes.hlines(
                y, table["per_hour_low"][mine], table["per_hour_high"][mine], color=look["color"], alpha=0.5
            )
        axes.plot(values, y, label=f"CPU {cpu}", **look)
    _canvas.rows(axes, [causes[cause].title for cause in order])
    values = table[figure].astype(float)
    _canvas.logarithmic(axes.set_xscale, values[np.isfinite(values) & (values > 0)])
    axes.set_xlabel(_COLUMNS[figure])
    axes.legend()
    return axes


def _ends(figure: str) -> tuple[str, str]:
    """Return the columns of the low and the high end of a figure; of seconds the unit comes last."""
    head = figure.removesuffix("_s")
    unit = "_s" if head != figure else ""
    return f"{head}_low{unit}", f"{head}_high{unit}"


@door
def replay(axes: Axes, found: Replay, figure: str = "interrupts") -> Axes:
    """Draw what policies would have left in a recording: a bar from low to high per policy, sums over its CPUs.

    `figure` is a column of its table without `_low` or `_high`; the longest time pending is that of the worst CPU. An
    inert policy is hollow. Raises `ConfigError` for an unknown figure.
    """
    table = found.table
    known = [name for name in _REPLAYED if _ends(name)[0] in table]
    if figure not in known:
        raise ConfigError(unknown("figure", figure, known))
    inert = {str(one["policy"]) for one in found.outcomes if one.get("inert")}
    top = 0.0
    total = np.max if figure == "exposure_longest_s" else np.sum
    for i, policy in enumerate(found.policies):
        mine = table["policy"] == policy
        low, high = (float(total(table[end][mine])) for end in _ends(figure))
        fill = "none" if policy in inert else "full"
        top = max(top, high)
        axes.vlines([i], [low], [high], linewidth=3, alpha=0.5, color=_canvas.PALETTE[0])
        axes.plot([i, i], [low, high], "o", fillstyle=fill, color=_canvas.PALETTE[0])
    names = [_canvas.marked(policy, policy in inert) for policy in found.policies]
    axes.set_xticks(np.arange(len(names)), names, rotation=30, ha="right")
    axes.margins(x=0.15)
    axes.set_ylim(0, 1.1 * top or 1.0)
    axes.set_ylabel(_REPLAYED[figure])
    cpus = len(np.unique(table["cpu"]))
    _canvas.title(axes, f"{cpus} isolated CPU{'s' if cpus > 1 else ''}")
    return axes


@door
def validation(axes: Axes, found: Validation) -> Axes:
    """Draw computed over published for each experiment that has a ratio, with the tolerance it must be within.

    What went in (`input`, `fitted`) is hollow; a prediction is filled. Rows without a ratio are left out.
    """
    rows = [(row, row.ratio) for row in found.rows if row.ratio is not None]
    if not rows:
        return _canvas.empty(axes, "no row has a ratio")
    for i, (row, ratio) in enumerate(rows):
        allowed = row.tolerance / abs(row.published) if row.absolute else row.tolerance
        axes.hlines(
            [i], [max(1 - allowed, 1e-3)], [1 + allowed], linewidth=5, alpha=0.2, color=_canvas.PALETTE[0]
        )
        axes.plot(
            [ratio], [i], "o", fillstyle="full" if row.role == "prediction" else "none",
            color=_canvas.PALETTE[0 if row.within else 1],
        )  # fmt: skip
    axes.axvline(1, linewidth=0.8, color="black")
    _canvas.rows(axes, [f"{row.number} {row.name}" for row, _ in rows], room=60)
    ratios = [ratio for _, ratio in rows]
    if min(ratios) > 0 and max(ratios) / min(ratios) > 3:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(
        "computed over published; bar: tolerance\n(hollow: an input, fitted or a consistency check)"
    )
    return axes


@door
def shootdowns(axes: Axes, found: Shootdowns, figure: str = "calls") -> Axes:
    """Draw who interrupts whom by shootdowns: senders down, victims across, `calls`, `interrupts` or `handler_ms`.

    Pairs without a call stay empty. Raises `ConfigError` for another figure.
    """
    known = {
        "calls": "remote calls (measured)",
        "interrupts": "interrupts (measured)",
        "handler_ms": "time in handlers (ms, measured)",
    }
    if figure not in known:
        raise ConfigError(unknown("figure", figure, known))
    pairs = found.pairs
    if not len(pairs["calls"]):
        return _canvas.empty(axes, "no remote call between CPUs was recorded")
    senders, at = np.unique(pairs["sender_cpu"], return_inverse=True)
    victims, to = np.unique(pairs["victim_cpu"], return_inverse=True)
    grid = np.full((len(senders), len(victims)), np.nan)
    grid[at, to] = pairs[figure]
    image = axes.imshow(grid, aspect="auto", cmap="cividis", vmin=0)
    axes.grid(False)
    axes.set_xticks(range(len(victims)), [str(cpu) for cpu in victims])
    axes.set_yticks(range(len(senders)), ["not recorded" if cpu < 0 else str(cpu) for cpu in senders])
    axes.set_xlabel("interrupted CPU")
    axes.set_ylabel("sending CPU")
    axes.figure.colorbar(image, ax=axes, label=known[figure])
    return axes


@door
def calibration(axes: Axes, found: Calibration) -> Axes:
    """Draw what a load costs over the pages it goes over: the curve from which TLB sizes are read."""
    axes.plot(found.curve["pages"], found.curve["ns"], **_canvas.series(0))
    _canvas.logarithmic(axes.set_xscale, found.curve["pages"])
    axes.set_xlabel("pages of the pointer chase")
    axes.set_ylabel("time per load (ns, measured)")
    _canvas.title(axes, f"CPU {found.cpu}")
    return axes
