"""The page of a sweep: means by policy, a chart per figure and parameter, and what could not be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlbcore._output.html.charts import Line, lines
from tlbcore._output.html.page import Cell, escape, number, page, section, table
from tlbcore._output.visible import one_line

if TYPE_CHECKING:
    from tlbcore.sweeps.run import Sweep

_POINTS = 2000  # rows of the table of points; the Parquet files have all


def sweep(result: Sweep, metrics: Sequence[str], document: Mapping[str, Any]) -> str:
    """Return the page; `metrics` are the figures it shows, each over every parameter with numbers."""
    import numpy as np

    means = document["means_by_policy"]
    heads: list[str] = ["policy"]
    for metric in metrics:
        heads += [_with_unit(metric, result.units), "95 %"]
    rows: list[list[Cell]] = []
    for i, policy in enumerate(next(iter(means.values()))["value"] if means else []):
        row: list[Cell] = [str(policy)]
        for metric in metrics:
            row += [
                _cell(means[metric]["mean"][i]),
                _interval(means[metric]["low"][i], means[metric]["high"][i]),
            ]
        rows.append(row)
    caption = "Means over all points, predicted. An empty interval: one replication has none."
    inert = {reason.split(" on ")[0] for reason in document["inert"]}
    marks = ["inert" if str(row[0]) in inert else "" for row in rows]
    parts = [section("Means by policy", table(heads, rows, caption, marks=marks))]
    for parameter in result.parameters:
        values = np.asarray(result.table[parameter])
        if parameter == "policy" or values.dtype.kind not in "iufb" or len(np.unique(values)) < 2:
            continue
        drawn = [_over(result, metric, parameter) for metric in metrics]
        parts.append(section(f"Over {parameter}", *(part for pair in drawn for part in pair)))
    if document["inert"]:
        parts.append(
            section("Policies that do nothing", *(f"<p>{escape(reason)}</p>" for reason in document["inert"]))
        )
    if document["failed"]:
        failed = result.failed
        errors: list[list[Cell]] = [
            [
                *(_plain(failed[name][i]) for name in (*result.parameters, "replication")),
                str(failed["error"][i]),
            ]
            for i in range(min(len(failed["error"]), _POINTS))
        ]
        caption = f"{document['failed']} points could not be computed."
        parts.append(
            section("What failed", table([*result.parameters, "replication", "error"], errors, caption))
        )
    parts.append(_points(result, metrics))
    lede = (
        f"{len(result)} points"
        + (f", {document['failed']} of them failed" if document["failed"] else "")
        + "."
    )
    return page(f"Sweep: {_base(result)}", [lede], parts, document)


def _over(result: Sweep, metric: str, parameter: str) -> tuple[str, str]:
    """Return the chart of a metric over a parameter, a line per policy, and the same as a table."""
    import numpy as np

    from tlbcore import analysis

    rows: list[list[Cell]] = []
    series = []
    cells = list(dict.fromkeys([*result.parameters, parameter]))
    for policy in np.unique(result.table["policy"]):
        chosen = result.table["policy"] == policy
        part = {name: result.table[name][chosen] for name in (*cells, "replication", metric)}
        found = analysis.effects(part, [parameter], metric, cells=cells)
        hollow = bool(np.asarray(result.table["inert"][chosen]).all())
        x, mean, low, high = ([float(v) for v in found[name]] for name in ("value", "mean", "low", "high"))
        series.append(Line(one_line(str(policy)), x, mean, low, high, hollow))
        rows += [
            [str(policy), at, _cell(value), _interval(a, b)]
            for at, value, a, b in zip(x, mean, low, high, strict=True)
        ]
    name = _with_unit(metric, result.units)
    caption = (
        f"{metric} over {parameter}: means of everything else, with 95 % intervals where runs were repeated."
    )
    chart = lines(series, parameter, f"{name}, predicted", caption)
    return chart, table(["policy", parameter, name, "95 %"], rows, f"{metric}: the figures of the chart.")


def _points(result: Sweep, metrics: Sequence[str]) -> str:
    names = [*result.parameters, "replication", *metrics]
    count = min(len(result), _POINTS)
    rows: list[list[Cell]] = [[_plain(result.table[name][i]) for name in names] for i in range(count)]
    said = f"The first {count} of {len(result)}." if count < len(result) else f"All {count}."
    heads = [_with_unit(name, result.units) for name in names]
    return section("Points", table(heads, rows, f"{said} An empty cell has no value."))


def _base(result: Sweep) -> str:
    base = result.identity.get("scenario", "")
    return str(base) if isinstance(base, str) and len(str(base)) < 60 else "a scenario"


def _with_unit(name: str, units: Mapping[str, str]) -> str:
    unit = units.get(name, "")
    return f"{name} ({unit})" if unit not in ("", "1") else name


def _cell(value: Any) -> Cell:
    return None if value is None or value != value else float(value)


def _interval(low: Any, high: Any) -> Cell:
    if low is None or high is None or low != low or high != high:
        return None
    return f"{number(float(low))} to {number(float(high))}"


def _plain(value: Any) -> Cell:
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, float):
        return _cell(plain)
    return plain if isinstance(plain, int | str) else None if plain is None else str(plain)
