"""Drawing: each function puts one result into a Matplotlib `Axes` and returns it; none makes a figure or a file.

Needs the extra `plot`. Labels carry the unit, what is predicted says so, and a policy that does nothing here is marked
`inert`.

>>> import matplotlib
>>> matplotlib.use("Agg")
>>> import matplotlib.pyplot as plt
>>> import tlbcore as tc
>>> load = tc.scenarios.syscall_heavy(duration_s=0.01)
>>> found = tc.compare(load, machine="broadwell-ep", policies=["ipi", "coalesce-v7"], replications=2)
>>> _, axes = plt.subplots()
>>> tc.plot.comparison(axes, found, "syscall_mean_ns").get_ylabel()
'syscall_mean_ns (ns, predicted)'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tlbcore._core import ConfigError
from tlbcore._input.names import unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tlbcore.analysis import BreakEven
    from tlbcore.simulation.compare import Comparison
    from tlbcore.simulation.run import SimResult
    from tlbcore.sweeps.run import Sweep
    from tlbcore.tlb import MissCurve

__all__ = ["break_even", "comparison", "heat_map", "latency", "miss_curve", "sweep", "timeline"]


def comparison(axes: Axes, found: Comparison, figure: str, *, cpu_class: str = "isolated") -> Axes:
    """Draw one figure of a comparison: a point per policy, with its 95 % interval when there are several replications.

    A figure that rests on an unsourced cost is a bar without a point. Raises `ConfigError` for an unknown figure or
    class of CPU.
    """
    from tlbcore.simulation.figures import as_figure

    unit = as_figure(figure, ConfigError).unit
    table = found.table
    rows = np.flatnonzero(table["cpu_class"] == cpu_class)
    if not len(rows):
        raise ConfigError(f"the comparison has no {cpu_class!r} CPUs")
    places = np.arange(len(rows))
    values = table[figure][rows]
    if f"{figure}_low" in table:
        low, high = (table[f"{figure}_{end}"][rows] for end in ("low", "high"))
        axes.vlines(places, low, high, linewidth=3, alpha=0.5)
    axes.plot(places, values, "o")
    names = [_marked(table["policy"][row], table["inert"][row]) for row in rows]
    axes.set_xticks(places, names, rotation=30, ha="right")
    axes.set_ylabel(_with_unit(figure, {figure: unit}))
    axes.set_title(f"{found.results[0].scenario.name} on {found.results[0].machine}, per {cpu_class} CPU")
    return axes


def sweep(axes: Axes, result: Sweep, parameter: str, metric: str, *, by: str = "policy") -> Axes:
    """Draw the mean of a metric over one parameter, a line per value of another, with its 95 % interval.

    Means go over everything that is not named; the interval is what repeating the runs would vary, and there is none
    with one replication (`tlbcore.analysis.effects`). Raises `SweepError` for an unknown name.
    """
    from tlbcore import analysis

    groups = np.unique(_column(result, by))
    cells = list(dict.fromkeys([*result.parameters, parameter]))
    columns = {name: _column(result, name) for name in (*cells, "replication", metric)}
    for group in groups:
        chosen = result.table[by] == group
        part = {name: column[chosen] for name, column in columns.items()}
        means = analysis.effects(part, [parameter], metric, cells=cells)
        x = means["value"].astype(float)
        order = np.argsort(x)
        label = _marked(group, result.table["inert"][chosen])
        (line,) = axes.plot(x[order], means["mean"][order], "o-", label=label)
        low, high = means["low"][order], means["high"][order]
        if np.isfinite(low).all():
            axes.fill_between(x[order], low, high, alpha=0.2, color=line.get_color())
    _logarithmic(axes.set_xscale, result.table[parameter])
    axes.set_xlabel(parameter)
    axes.set_ylabel(_with_unit(metric, result.units))
    axes.legend(title=by)
    return axes


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
    image = axes.imshow(mean, origin="lower", aspect="auto")
    axes.set_xticks(range(len(xs)), [f"{value:g}" if x != "policy" else str(value) for value in xs])
    axes.set_yticks(range(len(ys)), [f"{value:g}" if y != "policy" else str(value) for value in ys])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.figure.colorbar(image, ax=axes, label=_with_unit(metric, result.units))
    return axes


def break_even(axes: Axes, found: BreakEven) -> Axes:
    """Draw the paired differences of a break-even, the zero and the interval that holds it."""
    points = found.points
    x, mean = points["value"], points["mean"]
    spread = np.abs(np.vstack([mean - points["low"], points["high"] - mean]))
    axes.errorbar(x, mean, yerr=spread, fmt="o", capsize=3)
    axes.axhline(0, linewidth=0.8)
    axes.axvspan(found.low, found.high, alpha=0.2)
    _logarithmic(axes.set_xscale, x)
    axes.set_xlabel(found.parameter)
    axes.set_ylabel(f"{found.metric}: {found.policies[0]} minus {found.policies[1]} (predicted)")
    return axes


def miss_curve(axes: Axes, curve: MissCurve) -> Axes:
    """Draw misses over entries, a line per number of sets."""
    for sets in np.unique(curve["sets"]):
        rows = curve["sets"] == sets
        axes.plot(curve["sets"][rows] * curve["ways"][rows], curve["misses"][rows], ".-", label=str(sets))
    axes.set_xscale("log", base=2)
    axes.set_xlabel("entries")
    axes.set_ylabel("misses")
    axes.legend(title="sets")
    return axes


_QUANTILES = {"p50_ps": 0.5, "p90_ps": 0.9, "p99_ps": 0.99, "p999_ps": 0.999, "max_ps": 1.0}


def latency(axes: Axes, results: Mapping[str, SimResult], kind: str = "syscall_isolated") -> Axes:
    """Draw the quantiles of a latency, a line per result; `results` may be a comparison.

    The share of calls that take longer is on a logarithmic scale, so that the tail shows; the maximum stands at one
    call of all. Raises `ConfigError` for an unknown latency.
    """
    for label, result in results.items():
        if kind not in result.latencies:
            raise ConfigError(unknown("latency", kind, result.latencies))
        found = result.latencies[kind]
        if not found["count"]:
            continue
        x = [cast("Any", found)[name] * 1e-3 for name in _QUANTILES]
        longer = [max(1 - share, 1 / found["count"]) for share in _QUANTILES.values()]
        axes.plot(x, longer, "o-", label=_marked(label, bool(result.inert)))
    axes.set_yscale("log")
    axes.set_xlabel(f"{kind} (ns, predicted)")
    axes.set_ylabel("share that takes longer")
    if axes.has_data():
        axes.legend()
    return axes


def timeline(axes: Axes, result: SimResult, kinds: Sequence[str] | None = None) -> Axes:
    """Draw the events that a run kept: a row per CPU, a colour per kind. Raises `ConfigError` for an unknown kind."""
    events = result.timeline
    present = np.unique(events["kind"])
    for kind in kinds if kinds is not None else present:
        if kind not in present:
            raise ConfigError(unknown("kind of event", kind, present))
        rows = events["kind"] == kind
        axes.scatter(events["time_ps"][rows] * 1e-12, events["cpu"][rows], s=8, marker="|", label=str(kind))
    axes.set_xlabel("time (s)")
    axes.set_ylabel("CPU")
    axes.set_yticks(range(result.scenario.cpus) if result.scenario.cpus <= 16 else [])
    if axes.has_data():
        axes.legend()
    return axes


def _marked(name: object, inert: Any) -> str:
    """Return a label that says where a policy does nothing, so that mainline is what is drawn."""
    share = float(np.mean(inert))
    return str(name) if share == 0 else f"{name} (inert)" if share == 1 else f"{name} (partly inert)"


def _column(result: Sweep, name: str) -> Any:
    from tlbcore._core import SweepError

    if name not in result.table:
        raise SweepError(unknown("column", name, result.table))
    return result.table[name]


def _with_unit(metric: str, units: Mapping[str, str]) -> str:
    unit = units.get(metric, "")
    return f"{metric} ({unit}, predicted)" if unit else f"{metric} (predicted)"


def _logarithmic(set_scale: Any, values: Any) -> None:
    numbers = np.asarray(values, dtype=float)
    if (numbers > 0).all() and numbers.max() / numbers.min() > 10:
        set_scale("log")
