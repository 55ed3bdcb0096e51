"""`tlbcore validate`."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from tlbcore.cli import _common


def command(
    misses: Annotated[bool, typer.Option("--misses", help="Only rows outside their tolerance.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the report as one self-contained page of HTML."),
    ] = None,
) -> int:
    """Simulate the published experiments and show both figures.

    The exit status is 1 if a computed figure is outside its tolerance.
    """
    from tlbcore.validation.published import Validation, validate

    with _common.progress("validating", "parts") as advance:
        result = validate(progress=advance)
    rows = result.misses if misses else result.rows
    if html is not None:
        from tlbcore._output.html import reports

        whole = _common.document("validate", 1, rows=[row.to_dict() for row in rows])
        _common.write_page(html, reports.validate(Validation(rows=rows) if misses else result, whole))
    status = 1 if result.misses else 0
    if json:
        _common.print_json("validate", 1, rows=[row.to_dict() for row in rows])
        return status
    from rich.table import Table

    table = Table(box=None)
    for heading in ("#", "figure", "role"):
        table.add_column(heading)
    for heading in ("published", "computed", "ratio", "tolerance", "within"):
        table.add_column(heading, justify="right")
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        tolerance = "-" if math.isnan(row.tolerance) else f"{row.tolerance:g}"
        if not row.absolute and tolerance != "-":
            tolerance = f"{row.tolerance:.0%}"
        within = {True: "yes", False: "NO", None: "not computed"}[row.within]
        computed = "-" if row.computed is None else _number(row.computed)
        unit = f" ({row.unit})" if row.unit else ""
        published = _number(row.published)
        table.add_row(
            str(row.number), f"{row.name}{unit}", row.role, published, computed, ratio, tolerance, within
        )
    _common.print_table(table)
    computed_rows = [row for row in result.rows if row.within is not None]
    print(f"\n{len(computed_rows)} computed, {len(result.misses)} outside their tolerance; inputs are marked")
    for row in result.misses:
        print(textwrap.fill(f"outside: {row.name}: {row.note}", _common.width(), subsequent_indent="    "))
    return status


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value == round(value) else f"{value:.4g}"
