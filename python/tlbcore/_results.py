"""The rows of a sweep: collected in memory or in a directory, and read back as one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import analysis
from tlbcore._batches import Outcome
from tlbcore._parts import Directory, Keys, keys_to_column
from tlbcore._points import Batch

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xarray as xr

# Columns that every sweep has beside its parameters and metrics.
_OWN = ("key", "replication", "seed", "error")


def columns_of(batch: Batch, outcome: Outcome, metrics: Sequence[str]) -> dict[str, Any]:
    """Return the rows of a batch as columns; a metric that was not computed is NaN."""
    missing = np.full(len(batch), np.nan)
    failed = np.array([error is not None for error in outcome.errors])
    values = {
        name: np.where(failed, np.nan, outcome.metrics.get(name, missing)).astype(np.float64)
        for name in metrics
    }
    return {
        **batch.columns,
        "replication": batch.replications,
        "seed": batch.seeds,
        **values,
        "error": list(outcome.errors),
    }


class Memory:
    """Rows in memory, for sweeps that are not kept."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = metrics
        self._rows: list[dict[str, Any]] = []
        self.done = Keys(np.empty((0, 2), dtype=np.uint64))

    def sink(self, batch: Batch, outcome: Outcome) -> None:
        """Take the rows of a batch."""
        self._rows.append(columns_of(batch, outcome, self._metrics))

    def __bool__(self) -> bool:
        return bool(self._rows)

    def table(self) -> dict[str, NDArray[Any]]:
        """Return all rows."""
        names = list(self._rows[0]) if self._rows else []
        return {name: _join([rows[name] for rows in self._rows]) for name in names}


def _join(parts: list[Any]) -> NDArray[Any]:
    if isinstance(parts[0], list):
        whole = [value for part in parts for value in part]
        return np.array(whole, dtype=object if None in whole else None)
    return np.concatenate(parts)


class Disk:
    """Rows in a directory of Parquet parts."""

    def __init__(self, directory: Directory, metrics: Sequence[str]) -> None:
        self._directory, self._metrics = directory, metrics
        self.done = directory.done

    def __bool__(self) -> bool:
        return not self._directory.empty

    def sink(self, batch: Batch, outcome: Outcome) -> None:
        """Write the rows of a batch; when this returns they are on the disk."""
        self._directory.append(to_arrow(batch, outcome, self._metrics))


def to_arrow(batch: Batch, outcome: Outcome, metrics: Sequence[str]) -> pa.Table:
    """Return the rows of a batch as an Arrow table; a metric that was not computed is null."""
    import pyarrow as pa

    columns: dict[str, Any] = {"key": keys_to_column(batch.keys)}
    for name, values in columns_of(batch, outcome, metrics).items():
        if name == "error":
            columns[name] = pa.array(values, type=pa.string())
        else:
            columns[name] = pa.array(values, from_pandas=name in metrics)
    return pa.table(columns)


class _Table(Mapping[str, NDArray[Any]]):
    """Columns, loaded when they are asked for."""

    def __init__(self, names: Sequence[str], load: Callable[[str], NDArray[Any]]) -> None:
        self._names, self._load = tuple(names), load
        self._loaded: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<table of {len(self)} columns: {', '.join(self)}>"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """The results of a sweep.

    Attributes
    ----------
    table
        A row per point, as a mapping of names to columns: the parameters, `replication` (uint32), `seed`
        (uint64), the metrics (float64, unit in the name or in `units`; NaN where missing) and `error` (text,
        or None). `pandas.DataFrame(sweep.table)` works.
    parameters, metrics
        Names of the columns that were varied, and that were computed.
    units
        Unit of each metric.
    identity
        What the points have in common: base configuration, seed, version of tlbcore.
    path
        The directory, or None when the sweep was not kept.
    interrupted
        Whether Ctrl-C ended it before all points were done.
    """

    table: Mapping[str, NDArray[Any]] = field(repr=False)
    parameters: tuple[str, ...]
    metrics: tuple[str, ...] = field(repr=False)
    units: Mapping[str, str] = field(repr=False)
    identity: Mapping[str, Any] = field(repr=False)
    path: Path | None = None
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.table["seed"])

    def __reduce__(self) -> tuple[Any, ...]:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("table", "units", "identity"):
            data[name] = dict(data[name])
        return (_unpickled, (data,))

    @property
    def failed(self) -> dict[str, NDArray[Any]]:
        """The rows that have an error: parameters, `replication`, `error`."""
        errors = self.table["error"]
        chosen = np.array([error is not None for error in errors], dtype=bool)
        return {name: self.table[name][chosen] for name in (*self.parameters, "replication", "error")}

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a pandas DataFrame (extra `tables`)."""
        import pandas as pd

        return pd.DataFrame({name: self.table[name] for name in self.table if name != "key"})

    def to_xarray(self) -> xr.Dataset:
        """Return the metrics as an xarray Dataset with a dimension per parameter, and `replication`.

        Points that were not computed are NaN. When the parameters do not form a grid (samples, zipped lists)
        there is one dimension, `point`, and they are coordinates along it. Needs the package xarray.
        """
        import xarray as xr

        names = [*self.parameters, "replication"]
        values, where = zip(
            *(np.unique(self.table[name], return_inverse=True) for name in names), strict=True
        )
        shape = tuple(len(axis) for axis in values)
        attributes = {metric: {"units": self.units[metric]} for metric in self.metrics}
        if np.prod(shape, dtype=float) > 2 * len(self):
            return xr.Dataset(
                {metric: ("point", self.table[metric], attributes[metric]) for metric in self.metrics},
                coords={name: ("point", self.table[name]) for name in names},
            )
        data = {}
        for metric in self.metrics:
            grid = np.full(shape, np.nan)
            grid[where] = self.table[metric]
            data[metric] = (names, grid, attributes[metric])
        return xr.Dataset(data, coords=dict(zip(names, values, strict=True)))

    def effects(self, metric: str, parameters: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Return the mean of a metric at each value of each parameter; see `tlbcore.analysis.effects`."""
        return analysis.effects(self.table, parameters or self.parameters, metric)

    def pareto(self, metrics: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the configurations that no other beats; see `tlbcore.analysis.pareto`."""
        return analysis.pareto(self.table, metrics, self.parameters)


def _unpickled(data: dict[str, Any]) -> Sweep:
    table = data["table"]
    data["table"] = _Table(list(table), table.__getitem__)
    for name in ("units", "identity"):
        data[name] = MappingProxyType(data[name])
    return Sweep(**data)


def from_memory(
    rows: Memory, parameters: Sequence[str], metrics: Sequence[str], units: Mapping[str, str], identity: Any
) -> Sweep:
    """Return what was collected."""
    table = rows.table()
    return Sweep(
        table=_Table(list(table), table.__getitem__),
        parameters=tuple(parameters),
        metrics=tuple(metrics),
        units=MappingProxyType(dict(units)),
        identity=MappingProxyType(dict(identity)),
    )


def from_directory(path: Path) -> Sweep:
    """Read a directory; raises `SweepError` when it holds no sweep, a damaged part or a newer version."""
    import json

    from tlbcore import _parts

    identity, stored = _parts.read(path)
    units = json.loads(stored.metadata[b"tlbcore.units"])
    parameters = [name for name in stored.names if name not in units and name not in _OWN]
    return Sweep(
        table=_Table(stored.names, lambda name: stored[name].to_numpy()),
        parameters=tuple(parameters),
        metrics=tuple(units),
        units=MappingProxyType(units),
        identity=MappingProxyType(identity),
        path=path,
    )
