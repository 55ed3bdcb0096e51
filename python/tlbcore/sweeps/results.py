"""The rows of a sweep: collected in memory or in a directory, and read back as one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import analysis
from tlbcore._output.files import sealed
from tlbcore._output.result import Result
from tlbcore._output.table import Table
from tlbcore.sweeps.batches import Outcome
from tlbcore.sweeps.parts import Directory, Keys, keys_to_column
from tlbcore.sweeps.points import Batch, Design

if TYPE_CHECKING:
    import pyarrow as pa
    import xarray as xr

# Columns that every sweep has beside its parameters and metrics; `sample` only one of samples.
OWN = ("key", "point", "sample", "replication", "seed", "inert", "error")


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
        "inert": np.zeros(len(batch), dtype=bool) if outcome.inert is None else outcome.inert,
        **values,
        "error": list(outcome.errors),
    }


class Memory:
    """Rows in memory, for sweeps that are not kept."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = metrics
        self._rows: list[dict[str, Any]] = []
        self._keys: list[NDArray[np.uint64]] = []
        self.done = Keys(np.empty((0, 2), dtype=np.uint64))

    def sink(self, batch: Batch, outcome: Outcome) -> None:
        """Take the rows of a batch."""
        self._rows.append(columns_of(batch, outcome, self._metrics))
        self._keys.append(batch.keys)

    def keys(self) -> NDArray[np.uint64]:
        """Return the key of each row, as the rows came."""
        return np.concatenate(self._keys)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def table(self) -> dict[str, NDArray[Any]]:
        """Return all rows, as they came."""
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep(Result):
    """The results of a sweep.

    Attributes
    ----------
    table
        A row per point and replication, in the order in which they were asked for: the parameters as they were
        varied, `point` (uint64, numbers the combinations of values), `sample` (uint64, of samples only: which of
        them this row is; a sample that was given twice has two rows), `replication` (uint32), `seed` (uint64),
        `inert` (bool: the policy does nothing on this machine, and what ran is mainline), the metrics (float64,
        unit in the name or in `units`; NaN where missing) and `error` (text, or None).
        `pandas.DataFrame(sweep.table)` works.
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
        return sealed(_unpickled, data)

    @property
    def failed(self) -> dict[str, NDArray[Any]]:
        """The rows that have an error: parameters, `replication`, `error`."""
        errors = self.table["error"]
        chosen = np.array([error is not None for error in errors], dtype=bool)
        return {name: self.table[name][chosen] for name in (*self.parameters, "replication", "error")}

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        return {"table": self.table}

    def _about(self) -> dict[str, Any]:
        return {**self.identity, "interrupted": self.interrupted}

    def _units(self) -> Mapping[str, str]:
        return self.units

    def _inert(self) -> list[str]:
        return inert_policies(self.table)

    def to_xarray(self, table: str | None = None) -> xr.Dataset:
        """Return the metrics as an xarray Dataset with a dimension per parameter, and `replication`.

        Points that were not computed are NaN. When the parameters do not form a grid (samples, zipped lists)
        there is one dimension, `point`, and they are coordinates along it. Needs the package xarray.
        """
        import xarray as xr

        self._columns(table)  # there is one only
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
        chosen = self.parameters if parameters is None else parameters
        return analysis.effects(self.table, chosen, metric, cells=self.parameters)

    def pareto(self, metrics: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the configurations that no other beats; see `tlbcore.analysis.pareto`."""
        return analysis.pareto(self.table, metrics, self.parameters)


def inert_policies(table: Mapping[str, NDArray[Any]]) -> list[str]:
    """Return, for each policy that did nothing in some rows, how many they are."""
    inert = table["inert"]
    if not inert.any():
        return []
    names = table["policy"]
    return [
        f"`{name}` does nothing in {int(inert[names == name].sum())} of {int((names == name).sum())} rows"
        for name in dict.fromkeys(names[inert].tolist())
    ]


def _unpickled(data: dict[str, Any]) -> Sweep:
    data["table"] = Table(data["table"])
    for name in ("units", "identity"):
        data[name] = MappingProxyType(data[name])
    return Sweep(**data)


def _in_order(
    names: Sequence[str],
    load: Callable[[str], NDArray[Any]],
    keys: NDArray[np.uint64],
    design: Design,
) -> Table:
    """Return the rows that `design` asks for and that there are, in its order.

    `load` gives a column as the rows are stored, `keys` says which row is which point.
    """
    place = Keys(keys).find(design.keys)
    rows = np.flatnonzero(place >= 0)
    place = place[rows]
    numbers = design.numbers(rows)
    others = [name for name in names if name not in design.parameters and name not in OWN]
    shown = [*design.parameters, *numbers, "replication", "seed", "inert", *others, "error"]
    return Table(shown, lambda name: numbers[name] if name in numbers else load(name)[place])


def from_memory(
    rows: Memory,
    design: Design,
    metrics: Sequence[str],
    units: Mapping[str, str],
    identity: Any,
) -> Sweep:
    """Return what was collected."""
    table = rows.table()
    return Sweep(
        table=_in_order(list(table), table.__getitem__, rows.keys(), design),
        parameters=design.parameters,
        metrics=tuple(metrics),
        units=MappingProxyType(dict(units)),
        identity=MappingProxyType(dict(identity)),
    )


def from_directory(path: Path, *, every: bool = False) -> Sweep:
    """Read a directory; raises `SweepError` when it holds no sweep, a damaged part or a newer version."""
    import json

    from tlbcore.sweeps import parts

    identity, stored = parts.read(path)
    units = json.loads(stored.metadata[b"tlbcore.units"])
    design = None if every else parts.design(path)
    parameters = [name for name in stored.names if name not in units and name not in OWN]

    def load(name: str) -> NDArray[Any]:
        column: NDArray[Any] = stored[name].to_numpy()
        return column

    if design is not None:
        parameters = list(design.parameters)
        table = _in_order(stored.names, load, parts.column_to_keys(stored["key"]), design)
    else:
        order = stored.order([*parameters, "replication"])
        table = Table([name for name in stored.names if name != "key"], lambda name: load(name)[order])
    return Sweep(
        table=table,
        parameters=tuple(parameters),
        metrics=tuple(units),
        units=MappingProxyType(units),
        identity=MappingProxyType(identity),
        path=path,
    )
