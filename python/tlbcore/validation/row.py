"""One published or measured figure beside the computed one, and all of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tlbcore import _core
from tlbcore._output.result import Result, rows_table
from tlbcore._output.table import Table

__all__ = ["Row", "Validation"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published or measured figure beside the computed one.

    Attributes
    ----------
    number
        Row of NUMBERS.
    name, unit
        What it is.
    role
        `input` (a cost is set from it), `fitted` (a parameter is chosen so that it comes out), `prediction`,
        or `consistency` (an assumption the source leaves open makes it come out).
    published, computed
        The two figures; `computed` is None where the model does not reach, and `note` says why.
    tolerance
        Largest accepted |ratio - 1|, or the largest accepted difference if `absolute`.
    note
        What to know before believing it.
    """

    number: int
    name: str
    unit: str
    role: str
    published: float
    computed: float | None
    tolerance: float
    absolute: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Computed over published; None if not computed or the published figure is zero."""
        if self.computed is None or not self.published:
            return None
        return self.computed / self.published

    @property
    def within(self) -> bool | None:
        """Whether the computed figure is within its tolerance; None if not computed."""
        if self.computed is None:
            return None
        difference = abs(self.computed - self.published)
        if self.absolute:
            return difference <= self.tolerance
        return difference <= self.tolerance * abs(self.published)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ratio and verdict as plain data."""
        return {**dataclasses.asdict(self), "ratio": self.ratio, "within": self.within}


@dataclass(frozen=True, kw_only=True, repr=False)
class Validation(Result):
    """Every row, in the order of NUMBERS; as a table with `ratio` and `within` too."""

    rows: tuple[Row, ...]

    def _tables(self) -> dict[str, Table]:
        return {"rows": rows_table(self.rows, also=("ratio", "within"))}

    def _about(self) -> dict[str, Any]:
        return {"version": _core.__version__}

    def __repr__(self) -> str:
        return f"<Validation of {len(self.rows)} figures, {len(self.misses)} outside their tolerance>"

    @property
    def misses(self) -> tuple[Row, ...]:
        """Rows that are outside their tolerance."""
        return tuple(row for row in self.rows if row.within is False)
