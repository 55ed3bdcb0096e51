"""What a table of simulations says: marginal effects, Pareto front, break-even.

Tables are mappings of names to columns of one length, as a sweep's is. Nothing here simulates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._core import SweepError
from tlbcore._input.door import door
from tlbcore._input.names import unknown
from tlbcore._input.numbers import count, quantity
from tlbcore._output.result import Result

Table = Mapping[str, NDArray[Any]]


@door
def interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return mean and confidence interval (Student's t); infinite when there is one value only.

    Values that are all the same have that value as their mean and as both ends, to the last bit.

    >>> interval(np.array([1.0, 2.0, 3.0]))
    (2.0, -0.4841..., 4.4841...)
    """
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise _core.ConfigError(f"values must be numbers: got {values!r}") from None
    if values.ndim > 1:
        raise _core.ConfigError(f"values must be a row of numbers: got an array of shape {values.shape}")
    if not 0 < confidence < 1:
        raise _core.ConfigError(f"confidence must be above 0 and below 1: got {confidence!r}")
    count = len(values)
    if not count:
        return math.nan, math.nan, math.nan
    if count > 1 and (values == values[0]).all():
        return (float(values[0]),) * 3
    mean = float(np.mean(values))
    if count < 2:
        return mean, -math.inf, math.inf
    half = _core.student_t(count, confidence) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean, mean - half, mean + half


@door
def effects(
    table: Table,
    parameters: Sequence[str],
    metric: str,
    *,
    cells: Sequence[str] | None = None,
    seed_column: str = "replication",
) -> dict[str, NDArray[Any]]:
    """Return the mean of a metric at each value of each parameter, averaged over the other parameters.

    The interval is what repeating the runs would vary: each replication gives one average over the other
    parameters' values, and the interval is that of these averages. How much the other parameters themselves change
    the metric does not enter it.

    Parameters
    ----------
    table
        Columns of one length: the parameters and the metric.
    parameters
        Names of the columns to group by, one after the other.
    metric
        Name of the column to average.
    cells
        Names of the columns that tell configurations apart; the parameters when left out. A configuration that
        never has the metric (NaN) does not count, nor does a replication in which one that has it lacks it. Rows of
        one configuration and replication are averaged first.
    seed_column
        The column that numbers replications; each row is one of its own where there is none.

    Returns
    -------
    dict
        Tidy columns `parameter`, `value` (text), `mean`, `low`, `high` (95 %; NaN with one replication),
        `count` (configurations averaged), `replications` (that entered).

    Raises
    ------
    SweepError
        If a name is no column, or the metric's holds anything but numbers.

    Examples
    --------
    >>> table = {"x": np.array([1, 1, 2, 2]), "y": np.array([1.0, 3.0, 5.0, 7.0]), "replication": np.array([0, 1] * 2)}
    >>> shown = effects(table, ["x"], "y")
    >>> shown["value"].tolist(), shown["mean"].tolist()
    (['1', '2'], [2.0, 6.0])
    """
    _refuse_text(parameters=parameters, cells=cells)
    y = _numbers(table, metric)
    columns = [_column(table, name) for name in (parameters if cells is None else cells)]
    cell = _numbered(list(zip(*columns, strict=True)))
    turn = _numbered(table[seed_column].tolist()) if seed_column in table else _repeats(cell)
    averages = _means(y, cell, turn)
    known = ~np.isnan(averages).all(axis=1)
    rows = []
    for parameter in parameters:
        x = np.asarray(_column(table, parameter))
        for value in np.unique(x):
            chosen = np.zeros(len(averages), dtype=bool)
            chosen[cell[x == value]] = True
            here = averages[chosen & known]
            per_turn = here.mean(axis=0) if len(here) else here[:0].sum(axis=1)
            mean, low, high = interval(per_turn[~np.isnan(per_turn)])
            if not math.isfinite(low):
                low = high = math.nan
            rows.append((parameter, str(value), mean, low, high, len(here), int((~np.isnan(per_turn)).sum())))
    names = ("parameter", "value", "mean", "low", "high", "count", "replications")
    shown = zip(*rows, strict=True) if rows else [() for _ in names]
    return {name: np.array(column) for name, column in zip(names, shown, strict=True)}


def _means(y: NDArray[np.float64], cell: NDArray[np.int64], turn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of each cell and turn, NaN where no row is; equal rows have theirs to the last bit."""
    shape = (cell.max(initial=-1) + 1, turn.max(initial=-1) + 1)
    rows, first, excess = np.zeros(shape), np.full(shape, np.nan), np.zeros(shape)
    np.add.at(rows, (cell, turn), 1)
    first[cell, turn] = y
    np.add.at(excess, (cell, turn), np.where(y == first[cell, turn], 0, y - first[cell, turn]))
    return first + excess / np.maximum(rows, 1)


def _repeats(cell: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each row among those of its cell."""
    order = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
    turn = np.empty(len(cell), dtype=np.int64)
    turn[order] = np.arange(len(cell)) - np.repeat(starts, np.diff(np.append(starts, len(cell))))
    return turn


def _numbered(values: list[Any]) -> NDArray[np.int64]:
    known: dict[Any, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)


def _refuse_text(**names: Sequence[str] | None) -> None:
    """Refuse a name where a list of them is meant: its letters would be taken for names."""
    for what, given in names.items():
        if isinstance(given, str):
            raise SweepError(f"{what} is a list of names of columns: got {given!r}")


@door
def pareto(
    table: Table, metrics: Sequence[str], by: Sequence[str], *, seed_column: str = "replication"
) -> dict[str, NDArray[Any]]:
    """Return the configurations that no other beats in every metric; less is better.

    Parameters
    ----------
    table
        Columns of one length.
    metrics
        Names of the columns to minimise, such as noise, entry cost and housekeeping cost.
    by
        Names of the columns that tell configurations apart; replications of one are averaged.
    seed_column
        The column that numbers replications; not used to tell configurations apart.

    Returns
    -------
    dict
        Columns `by` and `metrics` (means), a row per configuration of the front, ordered by the first metric.

    Raises
    ------
    SweepError
        If a name is no column, a metric's holds anything but numbers, or no metric is named.

    Examples
    --------
    >>> table = {"p": np.array(["a", "b"]), "x": np.array([1.0, 2.0]), "y": np.array([1.0, 2.0])}
    >>> pareto(table, ["x", "y"], ["p"])["p"].tolist()
    ['a']
    """
    _refuse_text(metrics=metrics, by=by)
    if not metrics:
        raise SweepError("a Pareto front needs at least one metric")
    names = [name for name in by if name != seed_column]
    groups: dict[tuple[Any, ...], list[int]] = {}
    figures = [_numbers(table, metric) for metric in metrics]
    told_apart = (
        zip(*(_column(table, name) for name in names), strict=True) if names else [()] * len(figures[0])
    )
    for i, row in enumerate(told_apart):
        groups.setdefault(row, []).append(i)
    values = np.array([[float(np.mean(figure[rows])) for figure in figures] for rows in groups.values()])
    values = values.reshape(-1, len(metrics))
    whole = ~np.isnan(values).any(axis=1)
    front = [
        i
        for i in np.flatnonzero(whole)
        if not ((values[whole] <= values[i]).all(axis=1) & (values[whole] < values[i]).any(axis=1)).any()
    ]
    front.sort(key=lambda i: tuple(values[i]))
    members = list(groups)
    out: dict[str, NDArray[Any]] = {
        name: np.array([members[i][column] for i in front]) for column, name in enumerate(names)
    }
    return out | {name: values[front, column] for column, name in enumerate(metrics)}


@dataclass(frozen=True, kw_only=True)
class BreakEven(Result):
    """Where two policies cost the same.

    Attributes
    ----------
    parameter, metric, policies
        What was varied, what was compared, and between which two policies.
    value
        Where the mean difference is zero, interpolated.
    low, high
        Below and above these the sign of the difference is certain (95 % at each point, all looks at it together).
    cheaper_below, cheaper_above
        Which policy has the smaller metric on which side.
    points
        Columns `value`, `mean`, `low`, `high`, `replications`: first policy minus second at each value tried.
    """

    parameter: str
    metric: str
    policies: tuple[str, str]
    value: float
    low: float
    high: float
    cheaper_below: str
    cheaper_above: str
    points: Mapping[str, NDArray[np.float64]] = field(repr=False)

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        return {"points": self.points}

    def _about(self) -> dict[str, Any]:
        return {
            "parameter": self.parameter, "metric": self.metric, "policies": self.policies, "value": self.value,
            "low": self.low, "high": self.high, "version": _core.__version__,
        }  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.metric}: {self.cheaper_below} below and {self.cheaper_above} above"
            f" {self.parameter} = {self.value:.4g} ({self.low:.4g} to {self.high:.4g})"
        )


Differences = Callable[[float, int], NDArray[np.float64]]


@door
def bisect(
    differences: Differences,
    low: float,
    high: float,
    *,
    parameter: str,
    metric: str,
    policies: tuple[str, str],
    replications: int = 5,
    most_replications: int = 40,
    tolerance: float = 0.02,
    whole: bool = False,
) -> BreakEven:
    """Find where paired differences change their sign, by bisection with confidence from replications.

    `differences(x, n)` returns n paired differences at x; a larger n extends the smaller one. Where the sign
    stays open after `most_replications`, the edges of the open region are located instead.

    A point is looked at after `replications`, twice that, and so on. Each look spends an equal share of the 5 % for
    which the sign may be wrong (Bonferroni), so that looking again does not buy certainty.

    With `whole`, only whole numbers are tried, and the interval is no narrower than from one to the next. A tolerance
    that is finer than the numbers of a computer ends where there is none between.
    """
    replications = count(replications, "replications", 2, error=SweepError)
    most_replications = count(most_replications, "most_replications", replications, error=SweepError)
    looks = 1 + math.ceil(math.log2(most_replications / replications))
    confidence = 1 - 0.05 / looks
    tolerance = quantity(tolerance, "tolerance", error=SweepError)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise SweepError(f"low and high must be finite: got {low:g} and {high:g}")
    if not low < high:
        raise SweepError(f"low must be below high: got {low:g} and {high:g}")
    if whole and not (float(low).is_integer() and float(high).is_integer()):
        raise SweepError(
            f"{parameter} takes whole numbers: low and high must be such, got {low:g} and {high:g}"
        )
    logarithmic = low > 0 and high / low > 10
    seen: dict[float, tuple[float, float, float, int]] = {}

    def sign(x: float) -> int:
        number = replications
        while True:
            mean, below, above = interval(differences(x, number), confidence)
            seen[x] = (mean, below, above, number)
            if below > 0 or above < 0:
                return 1 if mean > 0 else -1
            if mean == below == above == 0 or number >= most_replications:
                return 0
            number = min(2 * number, most_replications)

    def middle(a: float, b: float) -> float:
        between = math.sqrt(a) * math.sqrt(b) if logarithmic else a / 2 + b / 2
        return float(min(max(round(between), a + 1), b - 1)) if whole and b - a > 1 else between

    def close(a: float, b: float) -> bool:
        if (whole and b - a <= 1) or not a < middle(a, b) < b:
            return True
        return math.log(b / a) <= tolerance if logarithmic else b - a <= tolerance * (high - low)

    first, last = sign(low), sign(high)
    if first == last or not first or not last:
        ends = ", ".join(f"{seen[x][0]:.4g} at {x:g}" for x in (low, high))
        difference = f"{policies[0]} minus {policies[1]} is {ends}"
        if first and last:
            raise SweepError(
                f"no change of sign of {metric} from {parameter} = {low:g} to {high:g}: {difference}"
            )
        where = " and ".join(
            f"at {x:g} after {seen[x][3]} replications"
            for x, found in ((low, first), (high, last))
            if not found
        )
        raise SweepError(
            f"no break-even of {metric} can be told between {parameter} = {low:g} and {high:g}: {difference},"
            f" and its sign is not certain {where}"
        )
    a, b = low, high
    open_at = None
    while not close(a, b) and open_at is None:
        x = middle(a, b)
        here = sign(x)
        if here == first:
            a = x
        elif here == last:
            b = x
        else:
            open_at = x
    if open_at is not None:
        # The edges of the region in which replications do not decide.
        left, right = open_at, open_at
        while not close(a, left):
            x = middle(a, left)
            a, left = (x, left) if sign(x) == first else (a, x)
        while not close(right, b):
            x = middle(right, b)
            right, b = (right, x) if sign(x) == last else (x, b)
    share = seen[a][0] / (seen[a][0] - seen[b][0])
    value = a * (b / a) ** share if logarithmic else a + share * (b - a)
    below, above = (policies[1], policies[0]) if first > 0 else policies
    columns = np.array([(x, *seen[x]) for x in sorted(seen)])
    names = ("value", "mean", "low", "high", "replications")
    return BreakEven(
        parameter=parameter,
        metric=metric,
        policies=policies,
        value=value,
        low=a,
        high=b,
        cheaper_below=below,
        cheaper_above=above,
        points={name: columns[:, i] for i, name in enumerate(names)},
    )


def _numbers(table: Table, name: str) -> NDArray[np.float64]:
    column = _column(table, name)
    try:
        return np.asarray(column, dtype=float)
    except (TypeError, ValueError):
        raise SweepError(f"the column {name!r} does not hold numbers") from None


def _column(table: Table, name: str) -> NDArray[Any]:
    if name not in table:
        raise SweepError(unknown("column", name, table))
    return table[name]
