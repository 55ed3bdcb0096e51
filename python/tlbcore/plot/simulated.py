"""Simulations: comparisons, sweeps, break-evens, latencies and timelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tlbcore._core import ConfigError
from tlbcore._input.door import door
from tlbcore._input.names import unknown
from tlbcore.plot import _canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tlbcore.analysis import BreakEven
    from tlbcore.simulation.compare import Comparison
    from tlbcore.simulation.run import SimResult
    from tlbcore.sweeps.run import Sweep

_FIRST = ("interference_us_per_hour", "ipis_per_hour", "syscall_mean_ns", "entry_mean_ns", "kernel_share")
_NUMBERS = "iufb"  # kinds of columns that have a place on an axis


@door
def comparison(
    axes: Axes, found: Comparison, figure: str | None = None, *, cpu_class: str = "isolated"
) -> Axes:
    """Draw one figure of a comparison: a point per policy, with its 95 % interval when there are several replications.

    Left out, the figure is the first that differs between policies, of time taken, interrupts, system calls, entries. A
    figure that rests on an unsourced cost is a bar without a point; an inert policy is hollow. Raises `ConfigError` for
    an unknown figure or class of CPU.
    """
    from tlbcore.simulation.figures import as_figure

    table = found.table
    rows = np.flatnonzero(table["cpu_class"] == cpu_class)
    if not len(rows):
        raise ConfigError(f"the comparison has no {cpu_class!r} CPUs")
    if figure is None:
        figure = next((name for name in _FIRST if np.ptp(np.nan_to_num(table[name][rows])) > 0), _FIRST[-1])
    unit = as_figure(figure, ConfigError).unit
    places = np.arange(len(rows))
    values = table[figure][rows]
    inert = table["inert"][rows].astype(bool)
    if f"{figure}_low" in table:
        low, high = (table[f"{figure}_{end}"][rows] for end in ("low", "high"))
        axes.vlines(places, low, high, linewidth=3, alpha=0.5, color=_canvas.PALETTE[0])
    for chosen, fill in ((~inert, "full"), (inert, "none")):
        if chosen.any():
            axes.plot(places[chosen], values[chosen], "o", color=_canvas.PALETTE[0], fillstyle=fill)
    names = [_canvas.marked(table["policy"][row], table["inert"][row]) for row in rows]
    axes.set_xticks(places, names, rotation=30, ha="right")
    axes.margins(x=0.15)
    axes.set_ylabel(_canvas.words(figure, unit))
    _canvas.title(
        axes, f"{found.results[0].scenario.name} on {found.results[0].machine}, per {cpu_class} CPU"
    )
    return axes


def run(axes: Axes, result: SimResult, what: str = "timeline", **options: Any) -> Axes:
    """Draw a run: its `timeline`, or the tail of one of its latencies by name, such as `syscall_isolated`.

    Raises `ConfigError` for an unknown latency.
    """
    if what == "timeline":
        return timeline(axes, result, **options)
    return latency(axes, {result.policy.name: result}, what, **options)


def swept(
    axes: Axes,
    result: Sweep,
    metric: str | None = None,
    parameter: str | None = None,
    *,
    against: str | None = None,
    **options: Any,
) -> Axes:
    """Draw a sweep: a metric over one parameter, or over two (`against`) as a heat map.

    Left out, the metric is the first that was computed, and the parameter the first with numbers of which there are
    several. Raises `SweepError` for an unknown name, or if nothing but policies was varied.
    """
    from tlbcore._core import SweepError

    if metric is None:
        metric = result.metrics[0]
    if parameter is None:
        numbers = [
            n
            for n in result.parameters
            if np.asarray(result.table[n]).dtype.kind in _NUMBERS and n != against
        ]
        several = [name for name in numbers if len(np.unique(result.table[name])) > 1]
        if not (several or numbers):
            raise SweepError(f"no parameter has numbers to draw over: {', '.join(result.parameters)}")
        parameter = (several or numbers)[0]
    if against is not None:
        return heat_map(axes, result, parameter, against, metric, **options)
    return sweep(axes, result, parameter, metric, **options)


@door
def sweep(axes: Axes, result: Sweep, parameter: str, metric: str, *, by: str = "policy") -> Axes:
    """Draw the mean of a metric over one parameter, a line per value of another, with its 95 % interval.

    Means go over everything that is not named; the interval is what repeating the runs would vary, and there is none
    with one replication (`tlbcore.analysis.effects`). Raises `SweepError` for an unknown name, or a parameter that has
    no numbers.
    """
    from tlbcore import analysis
    from tlbcore._core import SweepError

    if np.asarray(_column(result, parameter)).dtype.kind not in _NUMBERS:
        raise SweepError(f"{parameter!r} has no numbers to draw over")
    groups = np.unique(_column(result, by))
    cells = list(dict.fromkeys([*result.parameters, parameter]))
    columns = {name: _column(result, name) for name in (*cells, "replication", metric)}
    for i, group in enumerate(groups):
        chosen = result.table[by] == group
        inert = result.table["inert"][chosen]
        part = {name: column[chosen] for name, column in columns.items()}
        means = analysis.effects(part, [parameter], metric, cells=cells)
        x = means["value"].astype(float)
        order = np.argsort(x)
        look = _canvas.series(i, inert=float(np.mean(inert)))
        (line,) = axes.plot(x[order], means["mean"][order], label=_canvas.marked(group, inert), **look)
        low, high = means["low"][order], means["high"][order]
        if np.isfinite(low).any():
            axes.fill_between(x[order], low, high, alpha=0.2, color=line.get_color())
    _canvas.logarithmic(axes.set_xscale, result.table[parameter])
    axes.set_xlabel(_canvas.parameter(parameter))
    axes.set_ylabel(_canvas.words(metric, result.units.get(metric, "")))
    axes.legend(title=by)
    return axes


@door
def heat_map(
    axes: Axes, result: Sweep, x: str, y: str, metric: str, *, where: Mapping[str, Any] | None = None
) -> Axes:
    """Draw the mean of a metric over two parameters; `where` holds others fixed, such as `{"policy": "ipi"}`.

    Points that were not computed stay empty. Raises `SweepError` for an unknown name or an empty selection.
    """
    from tlbcore._core import SweepError

    chosen = np.ones(len(result), dtype=bool)
    for name, value in (where or {}).items():
        chosen &= _column(result, name) == value
    if not chosen.any():
        raise SweepError(f"no point has {dict(where or {})!r}")
    (xs, ix), (ys, iy) = (np.unique(_column(result, name)[chosen], return_inverse=True) for name in (x, y))
    values = _column(result, metric)[chosen]
    known = ~np.isnan(values)
    total, count = np.zeros((len(ys), len(xs))), np.zeros((len(ys), len(xs)))
    np.add.at(total, (iy[known], ix[known]), values[known])
    np.add.at(count, (iy[known], ix[known]), 1)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    image = axes.imshow(mean, origin="lower", aspect="auto", cmap="cividis")
    axes.grid(False)
    axes.set_xticks(range(len(xs)), list(map(_tick, xs)))
    axes.set_yticks(range(len(ys)), list(map(_tick, ys)))
    axes.set_xlabel(_canvas.parameter(x))
    axes.set_ylabel(_canvas.parameter(y))
    label = _canvas.words(metric, result.units.get(metric, ""))
    axes.figure.colorbar(image, ax=axes, label=label, format="%.4g")
    return axes


def _tick(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


@door
def break_even(axes: Axes, found: BreakEven) -> Axes:
    """Draw the paired differences of a break-even, the zero and the interval that holds it."""
    points = found.points
    x, mean = points["value"], points["mean"]
    spread = np.abs(np.vstack([mean - points["low"], points["high"] - mean]))
    axes.errorbar(x, mean, yerr=spread, fmt="o", capsize=3, color=_canvas.PALETTE[0])
    axes.axhline(0, linewidth=0.8, color="black")
    axes.axvspan(found.low, found.high, alpha=0.2, color=_canvas.PALETTE[1], linewidth=0)
    _canvas.logarithmic(axes.set_xscale, x)
    axes.set_xlabel(_canvas.parameter(found.parameter))
    first, second = (_canvas.marked(name, False) for name in found.policies)
    axes.set_ylabel(f"{_canvas.words(found.metric)}\n{first} minus {second}")
    _canvas.title(axes, f"{found.cheaper_below} is less below, {found.cheaper_above} above {found.value:.4g}")
    return axes


_LATENCIES = {
    "entry": "From SYSCALL to the body",
    "syscall": "Whole system call",
    "interruption": "Interruption of user mode",
    "wait": "Wait for acknowledgements",
}
_QUANTILES = {"p50_ps": 0.5, "p90_ps": 0.9, "p99_ps": 0.99, "p999_ps": 0.999, "max_ps": 1.0}


@door
def latency(axes: Axes, results: Mapping[str, SimResult], kind: str = "syscall_isolated") -> Axes:
    """Draw the quantiles of a latency, a line per result; `results` may be a comparison.

    The share of calls that take longer is on a logarithmic scale, so that the tail shows; the maximum stands at one
    call of all. Raises `ConfigError` for an unknown latency.
    """
    for i, (label, result) in enumerate(results.items()):
        if kind not in result.latencies:
            raise ConfigError(unknown("latency", kind, result.latencies))
        found = result.latencies[kind]
        if not found["count"]:
            continue
        x = [cast("Any", found)[name] * 1e-3 for name in _QUANTILES]
        longer = [max(1 - share, 1 / found["count"]) for share in _QUANTILES.values()]
        look = _canvas.series(i, inert=float(bool(result.inert)))
        axes.plot(x, longer, label=_canvas.marked(label, bool(result.inert)), **look)
    axes.set_yscale("log")
    what, _, cpu_class = kind.rpartition("_")
    of = "all CPUs" if cpu_class == "all" else f"{cpu_class} CPUs"
    axes.set_xlabel(f"{_LATENCIES.get(what, what)}, {of}\n(ns, predicted)")
    axes.set_ylabel("share that takes longer")
    if not axes.has_data():
        return _canvas.empty(axes, "none occurred")
    axes.legend()
    return axes


@door
def timeline(axes: Axes, result: SimResult, kinds: Sequence[str] | None = None) -> Axes:
    """Draw the events that a run kept: a row per CPU, a colour per kind. Raises `ConfigError` for an unknown kind."""
    events = result.timeline
    present = np.unique(events["kind"])
    for kind in kinds if kinds is not None else present:
        if kind not in present:
            raise ConfigError(unknown("kind of event", kind, present))
        rows = events["kind"] == kind
        place = int(np.flatnonzero(present == kind)[0])
        shift = (place - (len(present) - 1) / 2) * 0.8 / len(present)
        axes.scatter(
            events["time_ps"][rows] * 1e-12, events["cpu"][rows] + shift, s=12, marker="|", linewidths=0.8,
            color=_canvas.PALETTE[place % len(_canvas.PALETTE)], label=str(kind).replace("_", " "),
        )  # fmt: skip
    axes.set_xlabel("time (s, predicted)")
    axes.set_ylabel("CPU")
    cpus = np.unique(events["cpu"])
    axes.set_yticks(cpus if len(cpus) <= 16 else cpus[:: -(-len(cpus) // 16)])
    if not axes.has_data():
        return _canvas.empty(axes, "no event was kept")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=2)
    return axes


def _column(result: Sweep, name: str) -> Any:
    from tlbcore._core import SweepError

    if name not in result.table:
        raise SweepError(unknown("column", name, result.table))
    return result.table[name]
