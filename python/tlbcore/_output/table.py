"""Tables: named columns of one length, read-only, loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from tlbcore._input.names import unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[Any]
else:
    Column = Any  # a search of the checker has no arrays, and starts in half the time without NumPy


class Table(dict[str, Column]):
    """A mapping of names to columns of one length.

    It is a `dict` because pandas, polars and pyarrow take those as columns; it cannot be changed, and so its arrays
    are not writeable. A column that stands on the disk is read at its first use and kept.

    >>> import numpy as np
    >>> table = Table({"cpu": np.arange(2), "calls": np.array([5, 7])})
    >>> table
    <table of 2 columns: cpu, calls>
    >>> dict(table)["calls"].tolist()
    [5, 7]
    """

    __slots__ = ("_load",)

    def __init__(
        self,
        columns: Mapping[str, Any] | Sequence[str] = (),
        load: Callable[[str], Any] | None = None,
    ) -> None:
        """Take whole columns, or names and what loads the column of a name."""
        self._load = load
        if isinstance(columns, Mapping):
            super().__init__({name: _frozen(column) for name, column in columns.items()})
        else:
            super().__init__(dict.fromkeys(columns))  # type: ignore[arg-type]  # loaded by __getitem__

    def __getitem__(self, name: str) -> Column:
        try:
            column: Column | None = super().__getitem__(name)
        except (KeyError, TypeError):  # of an unknown name, of what is no name
            raise KeyError(unknown("column", name, self)) from None
        if column is None:
            assert self._load is not None, "a name without a column has what loads it"
            column = _frozen(self._load(name))
            super().__setitem__(name, column)
        return column

    def __iter__(self) -> Iterator[str]:  # its presence also keeps dict() and ** from passing __getitem__ by
        return super().__iter__()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the columns that are in memory."""
        return tuple(name for name in self if super(Table, self).__getitem__(name) is not None)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a column, or the default."""
        try:
            return self[name]
        except KeyError:
            return default

    def values(self) -> Any:
        """Return the columns, in order."""
        return [self[name] for name in self]

    def items(self) -> Any:
        """Return (name, column) pairs, in order."""
        return [(name, self[name]) for name in self]

    def copy(self) -> dict[str, Column]:
        """Return a dictionary of the columns."""
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return list(self) == list(other) and all(_same(self[name], other[name]) for name in self)

    def __ne__(self, other: object) -> bool:  # a dictionary's own would compare arrays
        return not self == other

    __hash__ = None

    def _closed(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a result's table cannot be changed: dict(table) is a copy that can")

    __setitem__ = __delitem__ = __ior__ = _closed
    clear = pop = popitem = setdefault = update = _closed

    def __reduce__(self) -> tuple[Any, ...]:
        return (Table, (self.copy(),))

    def __repr__(self) -> str:
        return f"<table of {len(self)} columns: {', '.join(self)}>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)


def _same(column: Column, other: Any) -> bool:
    """Whether two columns hold the same; not a number is the same as not a number."""
    import numpy as np

    others = np.asarray(other)
    numbers = column.dtype.kind == others.dtype.kind == "f"
    return bool(np.array_equal(column, others, equal_nan=numbers))


def _frozen(column: Any) -> Column:
    import numpy as np

    array = np.asarray(column)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
