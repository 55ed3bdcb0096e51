"""The points of a sweep, made when they are asked for: memory does not grow with their number."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._core import SweepError
from tlbcore._input.numbers import count

Column = NDArray[np.float64] | list[str]
BLOCK = 1 << 16  # points whose keys are made at once
_EXACT = 1 << 53  # float64 holds every integer below


@dataclass(frozen=True)
class Axis:
    """Parameters that change together; one alone in a grid, several when zipped or sampled."""

    columns: Mapping[str, Column]
    size: int
    sampled: bool = False  # rows of samples, which may repeat; the values of a grid are checked
    whole: frozenset[str] = frozenset()  # columns that were given as integers


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some points: a value per parameter, replication, key and seed of each."""

    columns: Mapping[str, Column]
    replications: NDArray[np.uint32]
    keys: NDArray[np.uint64]
    seeds: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.seeds)

    def select(self, chosen: NDArray[np.bool_] | slice) -> Batch:
        """Return the points of a mask or slice."""
        where = np.arange(len(self))[chosen]
        return Batch(
            columns={name: _take(column, where) for name, column in self.columns.items()},
            replications=self.replications[where],
            keys=self.keys[where],
            seeds=self.seeds[where],
        )


def _take(column: Column, where: NDArray[np.int64]) -> Column:
    return [column[i] for i in where] if isinstance(column, list) else column[where]


@dataclass(frozen=True, kw_only=True)
class Design:
    """The rows of a sweep in the order in which they were asked for.

    Row i is point `i // replications`, a combination of values. Of samples it is sample
    `i // rows_per_sample % samples`; `samples` is 0 for a grid.
    """

    keys: NDArray[np.uint64]
    parameters: tuple[str, ...]
    replications: int
    samples: int
    rows_per_sample: int

    def numbers(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.uint64]]:
        """Return the columns that say what each of these rows is: `point`, and of samples `sample`."""
        counted = {"point": (rows // self.replications).astype(np.uint64)}
        if self.samples:
            counted["sample"] = (rows // self.rows_per_sample % self.samples).astype(np.uint64)
        return counted


class Points:
    """All points of a sweep: the product of its axes, times replications; the last axis changes fastest.

    Parameters named in `paired` do not enter the seed: their values see the same workload.
    """

    def __init__(
        self,
        base: str,
        seed: int,
        axes: Sequence[Axis],
        *,
        replications: int = 1,
        paired: Sequence[str] = ("policy",),
        content: Callable[[Mapping[str, Column]], Mapping[str, list[str]]] | None = None,
    ) -> None:
        """Take what all points share as `base`; `content` adds to each point's key what its values stand for."""
        self._base, self._seed, self._axes = base, seed, list(axes)
        self._paired = frozenset(paired)
        self._content = content
        self.replications = count(replications, "replications", 1, (1 << 32) - 1, SweepError)
        self.may_repeat = any(axis.sampled for axis in axes)
        self.names = [name for axis in axes for name in axis.columns]
        for name in self.names:
            if self.names.count(name) > 1:
                raise SweepError(f"parameter {name!r} is given twice")

    def __len__(self) -> int:
        return math.prod(axis.size for axis in self._axes) * self.replications

    def design(self) -> Design:
        """Return the order of the rows: every key, and which sample is which row."""
        keys = [self.batch(start, start + BLOCK).keys for start in range(0, len(self), BLOCK)]
        inner, samples = self.replications, 0
        for axis in reversed(self._axes):
            if axis.sampled:
                samples = axis.size
                break
            inner *= axis.size
        return Design(
            keys=np.concatenate(keys), parameters=tuple(self.names), replications=self.replications,
            samples=samples, rows_per_sample=inner if samples else 1,
        )  # fmt: skip

    def batch(self, start: int, stop: int) -> Batch:
        """Return points `start` to `stop`."""
        index = np.arange(start, min(stop, len(self)), dtype=np.int64)
        index, replications = np.divmod(index, self.replications)
        columns: dict[str, Column] = {}
        for axis in reversed(self._axes):
            index, where = np.divmod(index, axis.size)
            for name, column in axis.columns.items():
                columns[name] = _take(column, where)
        rows = [(name, name in self._paired, column) for name, column in columns.items()]
        if self._content is not None:
            rows += [(name, True, texts) for name, texts in self._content(columns).items()]
        keys, seeds = _core.sweep_identify(self._base, self._seed, rows, replications.astype(np.uint32))
        return Batch(
            columns={name: columns[name] for name in self.names},
            replications=replications.astype(np.uint32),
            keys=keys,
            seeds=seeds,
        )


def grid_axes(grid: Mapping[str | tuple[str, ...], Sequence[Any]]) -> list[Axis]:
    """Turn a grid into axes: a name with its values, or a tuple of names with rows of values (zipped).

    >>> [sorted(axis.columns) for axis in grid_axes({"a": [1, 2], ("b", "c"): [(1, "x"), (2, "y")]})]
    [['a'], ['b', 'c']]
    """
    if not grid:
        raise SweepError("the grid is empty")
    axes = []
    for names, values in grid.items():
        if not isinstance(names, (str, tuple)) or not all(isinstance(name, str) for name in names):
            raise SweepError(f"the grid's keys are names or tuples of names: got {names!r}")
        if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
            raise SweepError(f"the grid's {names!r} must be a list of values: got {values!r}")
        if not len(values):
            raise SweepError(f"the grid is empty: {names!r} has no values")
        if isinstance(names, str):
            axis = Axis({names: as_column(names, values)}, len(values), whole=given_whole({names: values}))
        else:
            _refuse_twice(names)
            rows = []
            for row in values:
                if isinstance(row, str) or not hasattr(row, "__len__") or len(row) != len(names):
                    raise SweepError(f"zipped {names!r} needs {len(names)} values in each row: got {row!r}")
                rows.append(tuple(row))
            columns = dict(zip(names, zip(*rows, strict=True), strict=True))
            axis = Axis(
                {name: as_column(name, column) for name, column in columns.items()},
                len(rows),
                whole=given_whole(columns),
            )
        seen: set[tuple[float | str, ...]] = set()
        for row in zip(*axis.columns.values(), strict=True):
            if row in seen:
                values = [v if isinstance(v, str) else float(v) for v in row]
                shown = values[0] if len(values) == 1 else tuple(values)
                raise SweepError(f"the grid's {names!r} has the value {shown!r} twice")
            seen.add(row)
        axes.append(axis)
    return axes


def sample_axis(samples: Any, names: Sequence[str] | None = None) -> Axis:
    """Turn samples into one axis: columns by name, a data frame, a structured array, or rows with names.

    SALib's samples are an array of rows, and its problem's `names` are the names. So are those of
    `scipy.stats.qmc`, once they were scaled to the parameters' bounds (`qmc.scale`).
    """
    columns: dict[str, Any]
    named = isinstance(samples, Mapping) or hasattr(samples, "columns")
    if names is not None and (named or getattr(getattr(samples, "dtype", None), "names", None)):
        raise SweepError(
            f"names={list(names)!r} beside samples whose columns have names: give one of the two"
        )
    if isinstance(samples, Mapping):
        columns = dict(samples)
    elif hasattr(samples, "columns") and hasattr(samples, "__getitem__"):  # pandas, polars
        every = [str(name) for name in samples.columns]
        _refuse_twice(every)
        columns = {str(name): samples[name].to_numpy() for name in samples.columns}
    elif hasattr(samples, "dtype") and samples.dtype.names:
        columns = {name: samples[name] for name in samples.dtype.names}
    else:
        rows = np.asarray(samples)
        if np.ma.isMaskedArray(samples):
            raise SweepError("samples must hold a value everywhere: got a masked array")
        if names is None:
            raise SweepError(
                "samples without names: pass names=[...], one per column (SALib: problem['names'])"
            )
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise SweepError(f"names is a list of names, one per column: got {names!r}")
        _refuse_twice(names)
        if rows.ndim != 2 or rows.shape[1] != len(names):
            raise SweepError(f"samples must have shape (n, {len(names)}): got {rows.shape}")
        columns = {name: rows[:, i] for i, name in enumerate(names)}
    for name, column in columns.items():
        if not hasattr(column, "__len__"):
            raise SweepError(f"samples[{name!r}] must hold a value per point: got {column!r}")
    sizes = {len(column) for column in columns.values()}
    if sizes in (set(), {0}):
        raise SweepError("the samples are empty")
    if len(sizes) > 1:
        raise SweepError(f"the samples' columns differ in length: {sorted(sizes)}")
    return Axis(
        {name: as_column(name, column) for name, column in columns.items()},
        sizes.pop(),
        sampled=True,
        whole=given_whole(columns),
    )


def _refuse_twice(names: Sequence[str]) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise SweepError(f"parameter {name!r} is given twice")


def as_column(name: str, values: Any) -> Column:
    """Turn values into numbers (float64) or names."""
    if np.ma.isMaskedArray(values):
        raise SweepError(f"{name!r} must hold a value everywhere: got a masked array")
    if getattr(values, "ndim", 1) != 1:
        raise SweepError(f"{name!r} must hold a value per point: got an array of shape {values.shape}")
    plain = isinstance(values, np.ndarray) and values.dtype.kind in "biuf"
    if not plain and all(isinstance(value, str) for value in values):
        return [str(value) for value in values]
    for value in () if plain else values:
        real = isinstance(value, (numbers.Real, Decimal, np.bool_)) and not isinstance(value, np.timedelta64)
        if value is not None and not real:
            raise SweepError(f"{name!r} must hold numbers only or names only: got {value!r}")
    try:
        column = np.ascontiguousarray(values, dtype=np.float64)
    except OverflowError:
        column = np.array([math.inf])
    if not np.isfinite(column).all():
        raise SweepError(f"{name!r} must hold finite numbers: got {list(itertools.islice(values, 5))!r}")
    for place in np.flatnonzero(np.abs(column) >= _EXACT).tolist():
        if isinstance(values[place], numbers.Integral) and int(values[place]) != float(column[place]):
            raise SweepError(f"{name!r} must hold numbers that a float64 holds: got {int(values[place])}")
    return column


def given_whole(columns: Mapping[str, Any]) -> frozenset[str]:
    """Name the columns that were given as integers."""
    return frozenset(
        name
        for name, values in columns.items()
        if all(isinstance(value, numbers.Integral) and not isinstance(value, bool) for value in values)
    )
