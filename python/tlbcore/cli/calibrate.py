"""`tlbcore calibrate`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbcore._output.visible import naming
from tlbcore.cli import _common

if TYPE_CHECKING:
    from tlbcore.inspect.calibration import Calibration


def command(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the machine to this file.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="At most about this long.")] = 20.0,
    cpu: Annotated[int | None, typer.Option("--cpu", help="Measure on this CPU.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", "--inherits", help="Built-in machine for the rest.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the new machine.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this machine's TLBs and costs and write them as a machine for --machine."""
    from tlbcore import _core
    from tlbcore.inspect.calibration import calibrate

    def progress(done: float, _total: float | None) -> None:
        if sys.stderr.isatty():
            print(f"measuring {_core.calibrate_stages()[int(done)]} ...", file=sys.stderr)

    found = calibrate(seconds=seconds, cpu=cpu, base=base, name=name, progress=progress)
    if out is not None:
        with naming(str(out)):
            out.write_text(found.toml, encoding="utf-8")
    if json:
        _common.print_json(
            "calibrate",
            1,
            out=out,
            base=found.base.name,
            base_why=found.base_why,
            cpu=found.cpu,
            figures=found.figures,
            inherited=[{"key": key, "value": value, "mark": mark} for key, value, mark in found.inherited],
            getpid_ns=found.getpid_ns,
            getpid_predicted_ns=found.getpid_predicted_ns,
            curve=found.curve,
            taken_share=found.taken_share,
            steal_share=found.steal_share,
            caveats=found.caveats,
        )
        return
    _show(found)
    if out is not None:
        _common.say(f"\nwritten to {out}: tlbcore machines {out} shows every number with its mark and source")


def _show(found: Calibration) -> None:
    from rich.table import Table
    from rich.text import Text

    console = _common.console()
    table = Table(box=None, pad_edge=False)
    for column in ("figure", "value", "spread", "", "how"):
        table.add_column(
            column, justify="right" if column in ("value", "spread") else "left", no_wrap=column != "how"
        )
    rows = found.figures
    for at, key in enumerate(rows["key"].tolist()):
        value, unit = float(rows["value"][at]), str(rows["unit"][at])
        digits = 0 if unit in ("entries", "sets", "ways", "MHz") or value >= 1000 else 2 if value < 100 else 1
        state = str(rows["mark"][at]) if rows["stable"][at] else "unstable"
        share = float(rows["spread"][at])
        spread = "" if unit in ("sets", "ways") else f"{share:.1%}" if share < 10 else "> 1000%"
        cells = (key, f"{value:,.{digits}f} {unit}", spread, state, str(rows["how"][at]))
        table.add_row(*(Text(cell) for cell in cells))
    _common.print_table(table)
    if not math.isnan(found.getpid_ns):
        _common.say(
            f"\ngetpid: predicted {found.getpid_predicted_ns:.0f} ns from the other calls without work, "
            "measured "
            f"{found.getpid_ns:.0f} ns: {found.getpid_error:+.0%}"
        )
    _common.say(
        f"\ninherited from {found.base.name} ({found.base_why}): {len(found.inherited)} numbers, among them"
    )
    costs = [
        f"{key.removeprefix('costs.')} {value} ({mark})"
        for key, value, mark in found.inherited
        if "costs." in key
    ]
    console.print(Text("  " + "; ".join(costs)))
    if found.caveats:
        print("\nmind that")
        for caveat in found.caveats:
            console.print(Text(f"  - {caveat}"))
