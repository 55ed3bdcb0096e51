"""What every result can do: leave as pandas, xarray or Parquet, be saved and loaded, be shown in a notebook.

A result names its tables in `_tables` and, where rows have names, the columns that are those in `_index`. The rest
follows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, overload

from tlbcore._core import ConfigError
from tlbcore._input.names import unknown
from tlbcore._output import calls
from tlbcore._output.files import keep_apart, load_object, replace_file, save_object, sealed
from tlbcore._output.table import Table
from tlbcore._output.visible import visible

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["InertPolicyWarning", "Listed", "Result", "load", "rows_table"]

Columns = Mapping[str, Any]
_WIDE = 30  # columns that a notebook shows whatever is in them
_SHOWN = 12  # rows of a table in a notebook


class InertPolicyWarning(UserWarning):
    """A policy does nothing on this machine and kernel: the figures under its name are mainline's."""


def needed(module: str) -> Any:
    """Import an optional package of the extra `tables`; raises `ModuleNotFoundError` that says how to get it."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        package = module.split(".")[0]
        raise ModuleNotFoundError(
            f"this needs the package {package}: pip install 'tlbcore[tables]'", name=package
        ) from None


class Result:
    """Base of results: `to_pandas`, `to_xarray`, `to_parquet`, `save`, `load`, a notebook's view.

    `tables` has the tables by name; each method takes the name of one, and the first of them by default. A column of
    that first one is `result["NAME"]` and, unless something else has the name, `result.NAME`.
    """

    #: Columns that name the rows of the first table: the dimensions of `to_xarray`.
    _index: ClassVar[tuple[str, ...]] = ()

    def _tables(self) -> Mapping[str, Columns]:
        """Return the tables by name, the main one first."""
        raise NotImplementedError

    def _about(self) -> Mapping[str, Any]:
        """Return what the figures depend on, as plain data."""
        return {}

    def _read(self) -> Sequence[str]:
        """Return the files that it was read from: no method writes over them."""
        return ()

    def _inert(self) -> Sequence[str]:
        """Return why policies do nothing here; the notebook's view marks it."""
        return ()

    def _units(self) -> Mapping[str, str]:
        """Return units of columns of the main table."""
        return {}

    @property
    def tables(self) -> Mapping[str, Columns]:
        """Every table of the result by name, the main one first."""
        return self._tables()

    def _columns(self, table: str | None) -> tuple[str, dict[str, np.ndarray[Any, Any]]]:
        import numpy as np

        tables = self._tables()
        name = next(iter(tables)) if table is None else table
        if not isinstance(name, str) or name not in tables:
            raise ConfigError(unknown("table", name, tables))
        columns = tables[name]
        return name, {column: np.asarray(columns[column]) for column in columns}

    def to_pandas(self, table: str | None = None) -> pd.DataFrame:
        """Return a table as a pandas DataFrame (extra `tables`); `attrs` holds what the figures depend on.

        Raises
        ------
        ConfigError
            If there is no such table.
        """
        _, columns = self._columns(table)
        frame: pd.DataFrame = needed("pandas").DataFrame(
            {name: column.copy() for name, column in columns.items()}
        )
        frame.attrs.update(_plain(self._about()))
        return frame

    def to_xarray(self, table: str | None = None) -> xr.Dataset:
        """Return a table as an xarray Dataset (extra `tables`).

        Where some columns name the rows (of a comparison policy and class of CPU), each is a dimension, and what has
        no row is NaN; otherwise there is one dimension, `row`. Text columns are variables of strings.

        Raises
        ------
        ConfigError
            If there is no such table.
        """
        name, columns = self._columns(table)
        index = self._index if name == next(iter(self._tables())) else ()
        return dataset(columns, index, units=self._units(), attributes=_plain(self._about()))

    def to_parquet(self, path: str | Path, table: str | None = None) -> Path:
        """Write a table as a Parquet file (extra `tables`), whole or not at all; return its path.

        The file's metadata has what the figures depend on, as JSON under `tlbcore`.

        Raises
        ------
        ConfigError
            If there is no such table, or the file is the recording that the result was read from.
        OSError
            If the file cannot be written.
        """
        keep_apart(Path(path), self._read())
        pa, pq = needed("pyarrow"), needed("pyarrow.parquet")
        name, columns = self._columns(table)
        about = json.dumps({"result": type(self).__name__, "table": name, **_plain(self._about())})
        arrow = pa.table({column: _arrow(values) for column, values in columns.items()})
        sink = pa.BufferOutputStream()
        pq.write_table(arrow.replace_schema_metadata({"tlbcore": about}), sink)
        replace_file(Path(path), sink.getvalue())
        return Path(path)

    def plot(
        self,
        *arguments: Any,
        axes: Axes | None = None,
        columns: int = 1,
        file: str | Path | None = None,
        **options: Any,
    ) -> Axes:
        """Draw the result (extra `plot`) and return the axes; `tlbcore.plot` says what is drawn of which kind.

        Parameters
        ----------
        *arguments, **options
            What to draw: those of the function of `tlbcore.plot` for this kind, such as the name of a figure.
        axes
            Where to draw; left out, a figure is made.
        columns
            Width of that figure: one or two columns of a journal's page (85 or 178 mm).
        file
            Also write the figure: .pdf, .svg or .png, the same bytes for the same result.

        Raises
        ------
        ConfigError
            If the result has nothing to draw, or for an unknown figure, width or kind of file.
        OSError
            If the file cannot be written.
        """
        drawn: Axes = import_module(
            "tlbcore.plot"
        ).draw(  # by name: drawings know results, not the other way round
            self, *arguments, axes=axes, columns=columns, file=file, **options
        )
        return drawn

    def save(self, path: str | Path) -> Path:
        """Write the whole result to a file, which `load` reads; return its path.

        The file is replaced as a whole and carries a digest.

        Raises
        ------
        ConfigError
            If the file is the recording that the result was read from.
        OSError
            If the file cannot be written.
        """
        keep_apart(Path(path), self._read())
        save_object(Path(path), self)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a result of this class that was saved.

        Raises
        ------
        ConfigError
            If the file is no saved result, is damaged, holds another kind, or one of a newer version.
        OSError
            If the file cannot be read.
        """
        found = load_object(Path(path))
        if not isinstance(found, cls):
            raise ConfigError(f"{path}: holds a {type(found).__name__}, no {cls.__name__}")
        calls.note(found, f"tlbcore.load({str(path)!r})")
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return sealed(_made, (type(self), dict(self.__dict__)))

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{_text(type(self).__name__)}</b>: <code>{_text(_one_line(self))}</code></p>"]
        if call := calls.made_by(self):
            parts.append(f"<p>made by <code>{_text(call)}</code></p>")
        parts += [f"<p><b>inert:</b> {_text(reason)}</p>" for reason in dict.fromkeys(self._inert())]
        about = {key: value for key, value in self._about().items() if value not in (None, "", (), [])}
        if about:
            rows = "".join(
                f"<tr><th>{_text(str(key))}</th><td>{_text(_short(value))}</td></tr>"
                for key, value in about.items()
            )
            parts.append(f"<details><summary>what it depends on</summary><table>{rows}</table></details>")
        for place, (name, columns) in enumerate(self._tables().items()):
            parts.append(_folded(name, columns, self._units() if place == 0 else {}, opened=place == 0))
        return f"<div>{''.join(parts)}</div>"

    def _ipython_key_completions_(self) -> list[str]:
        """Return what stands in brackets: names of a mapping, or columns of the main table."""
        if isinstance(self, Mapping):
            return [str(name) for name in self]
        return list(next(iter(self._tables().values())))

    if not TYPE_CHECKING:  # type checkers shall go on refusing names that no result has

        def __getitem__(self, column: str) -> np.ndarray[Any, Any]:
            """Return a column of the main table."""
            table = self._main()
            if column not in table:
                raise KeyError(unknown("column", column, table))
            return table[column]

        def __getattr__(self, name: str) -> np.ndarray[Any, Any]:
            """Return a column of the main table: what no field is named like."""
            own = getattr(type(self), "__dataclass_fields__", {})
            if not name.startswith("_") and name not in own and name in (table := self._main()):
                return table[name]
            raise AttributeError(f"a {type(self).__name__} has neither an attribute nor a column {name!r}")

        __iter__ = None  # brackets alone would make it a sequence that fails at 0

    def __dir__(self) -> list[str]:
        """Return attributes, and the columns of the main table, which are attributes too."""
        return sorted({*super().__dir__(), *filter(str.isidentifier, self._main())})

    def _main(self) -> Columns:
        return next(iter(self._tables().values()))


T = TypeVar("T")


class Listed(Result, Sequence[T], Generic[T]):
    """A result that is a sequence of rows, instances of the dataclass `_of`; equal to the tuple of them."""

    rows: tuple[T, ...]
    _of: ClassVar[type]

    def _tables(self) -> Mapping[str, Columns]:
        return {"rows": rows_table(self.rows, [field.name for field in dataclasses.fields(self._of)])}

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[T, ...]: ...
    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]

    def __iter__(self) -> Iterator[T]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Listed):
            return type(self) is type(other) and self.rows == other.rows
        return self.rows == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.rows)


def load(path: str | Path) -> Result:
    """Read a result that was saved with its method `save`, of any kind.

    The file holds data only: what names anything but the classes of results is refused, so that a file of a
    stranger's runs nothing.

    Raises
    ------
    ConfigError
        If the file is no saved result, is damaged, or is one of a newer version.
    OSError
        If the file cannot be read.
    """
    return Result.load(path)


def _made(data: tuple[type[Result], dict[str, Any]]) -> Result:
    cls, fields = data
    result = cls.__new__(cls)
    result.__dict__.update(fields)
    return result


def rows_table(rows: Sequence[Any], names: Sequence[str] | None = None, also: Sequence[str] = ()) -> Table:
    """Return dataclass instances as a table: a row each, their fields as columns, and further properties."""
    if names is None:
        names = [field.name for field in dataclasses.fields(rows[0])] if rows else []
    return Table({name: column([getattr(row, name) for row in rows]) for name in (*names, *also)})


def column(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return values as a column: numbers with NaN for None, truth values, or text with "" for None.

    >>> column([1, None]).tolist(), column(["a", None]).tolist()
    ([1.0, nan], ['a', ''])
    """
    import numpy as np

    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known) and len(known) == len(values):
        return np.array(values, dtype=bool)
    if known and all(isinstance(value, (int, float, np.number)) for value in known):
        if len(known) < len(values):
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        return np.array(values)
    return np.array(["" if value is None else _short(value) for value in values], dtype=np.str_)


def dataset(
    columns: Mapping[str, np.ndarray[Any, Any]],
    index: Sequence[str],
    *,
    units: Mapping[str, str],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Return columns as a Dataset: a dimension per name of `index`, in the order in which values first stand."""
    import numpy as np

    made = needed("xarray").Dataset
    attrs = {key: value if isinstance(value, (str, int, float)) else json.dumps(value) for key, value in
             attributes.items() if value is not None}  # fmt: skip
    rest = [name for name in columns if name not in index]
    told = {name: {"units": units[name]} for name in rest if name in units}
    if not index:
        rows: xr.Dataset = made(
            {name: ("row", columns[name], told.get(name, {})) for name in rest}, attrs=attrs
        )
        return rows
    axes, where = [], []
    for name in index:
        values, first, place = np.unique(columns[name], return_index=True, return_inverse=True)
        order = np.argsort(first) if values.dtype.kind in "UO" else np.arange(len(values))
        axes.append(values[order])
        where.append(np.argsort(order)[place])
    data = {}
    for name in rest:
        values = columns[name]
        shape = tuple(len(axis) for axis in axes)
        if values.dtype.kind in "UO":
            grid = np.full(shape, "", dtype=values.dtype)
        elif len(values) == np.prod(shape):
            grid = np.empty(shape, dtype=values.dtype)
        else:
            grid = np.full(shape, np.nan)
        grid[tuple(where)] = values
        data[name] = (tuple(index), grid, told.get(name, {}))
    grid_of_all: xr.Dataset = made(data, coords=dict(zip(index, axes, strict=True)), attrs=attrs)
    return grid_of_all


def _arrow(values: np.ndarray[Any, Any]) -> pa.Array:
    pa = needed("pyarrow")
    if values.dtype.kind in "UO":
        return pa.array([None if value is None else str(value) for value in values], type=pa.string())
    return pa.array(values)


def _plain(value: Any) -> Any:
    """Return plain data: what JSON can hold."""
    import numpy as np

    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _text(text: object) -> str:
    return escape(visible(str(text)))


def _one_line(result: Result) -> str:
    text = repr(result)
    return text if len(text) <= 200 else text[:199] + "…"


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value))
    if isinstance(value, Mapping):
        return "; ".join(f"{key}={item}" for key, item in value.items())
    text = str(value)
    return text if len(text) <= 2000 else f"{text[:1999]}…"


def _folded(name: str, columns: Columns, units: Mapping[str, str], *, opened: bool) -> str:
    """Return a table as HTML: folded, its first rows only."""
    every = list(columns)
    length = len(columns[every[0]]) if every else 0
    names = [column for column in every if len(every) <= _WIDE or _says_something(columns[column])]
    left = (
        f"; {len(every) - len(names)} that are zero or empty everywhere are left out"
        if names != every
        else ""
    )
    heads = "".join(
        f"<th>{_text(column)}{f' ({_text(units[column])})' if column in units else ''}</th>"
        for column in names
    )
    body = []
    for row in range(min(length, _SHOWN)):
        mark = ' style="opacity:0.5" title="inert"' if "inert" in columns and columns["inert"][row] else ""
        cells = "".join(f"<td>{_text(_cell(columns[column][row]))}</td>" for column in names)
        body.append(f"<tr{mark}>{cells}</tr>")
    if length > _SHOWN:
        body.append(f'<tr><td colspan="{len(names)}">{length - _SHOWN} more rows</td></tr>')
    summary = f"{_text(name)}: {length} rows, {len(every)} columns{left}"
    return (
        f"<details{' open' if opened else ''}><summary>{summary}</summary>"
        f'<div style="overflow-x:auto"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></details>"
    )


def _says_something(values: Any) -> bool:
    """Say whether a column has anything but zeros, NaN and empty texts in any row."""
    import numpy as np

    array = np.asarray(values)
    if array.dtype.kind == "f":
        return bool(np.nan_to_num(array).any())
    return bool(array.any()) if array.dtype.kind in "iub" else any(map(bool, array.tolist()))


def _cell(value: Any) -> str:
    import numpy as np

    if value is None:
        return ""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.6g}"
    return _short(value)
