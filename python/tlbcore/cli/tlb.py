"""`tlbcore tlb`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbcore.cli import _common

if TYPE_CHECKING:
    from tlbcore.address_traces import Addresses
    from tlbcore.translation import Translation

SIZES = {"4K": 4096, "2M": 1 << 21, "1G": 1 << 30}

FileArgument = Annotated[
    str, typer.Argument(help="Address trace; its format is told by content. - is standard input.")
]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="Its format, where content does not tell.")
]
KindsOption = Annotated[
    list[str] | None, typer.Option("--kind", help="Only these accesses: load, store, fetch. Repeat it.")
]
CpuOption = Annotated[int | None, typer.Option(help="Only the accesses of this CPU.", min=0, max=65535)]
LimitOption = Annotated[int | None, typer.Option(help="Read the first so many accesses only.", min=1)]


def command(
    file: FileArgument,
    machine: Annotated[str, typer.Option(help="CPU preset, or a preset file.")] = "skylake-sp",
    page_size: Annotated[str, typer.Option(help="Size of every page: 4K, 2M or 1G.")] = "4K",
    smt: Annotated[bool, typer.Option("--smt", help="A sibling takes its half of split structures.")] = False,
    format: FormatOption = None,  # noqa: A002
    kind: KindsOption = None,
    cpu: CpuOption = None,
    limit: LimitOption = None,
    out: Annotated[Path | None, typer.Option(help="Write the table as Parquet, too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run an address trace through a machine's TLBs: hits and misses per level, walks.

    Traces of ChampSim, DynamoRIO (drmemtrace), Valgrind (lackey), Pin (pinatrace), gem5, CSV, NumPy, Parquet.
    """
    from tlbcore.translation import translate

    if page_size not in SIZES:
        _common.fail(f"--page-size takes {', '.join(SIZES)}: got {page_size!r}")
    trace = opened(file, format, kind, cpu, limit)
    with _common.progress("translating", "accesses") as advance:
        found = translate(trace, machine=machine, page_size=SIZES[page_size], smt=smt, progress=advance)
    if out is not None:
        found.to_parquet(out)
    if json:
        _common.print_json(
            "tlb", 1, trace=found.path, format=found.format, physical=trace.physical, machine=found.machine.name,
            page_size=found.page_size, levels=found.levels, table=found.table, counters=found.counters,
        )  # fmt: skip
        return
    _show(found)
    said(trace)


def opened(
    file: str,
    format: str | None,  # noqa: A002
    kind: list[str] | None,
    cpu: int | None,
    limit: int | None,
) -> Addresses:
    """Open a trace as the options say."""
    from tlbcore.address_traces import KINDS, addresses

    return addresses(file, format=format, kinds=kind or KINDS, cpu=cpu, limit=limit)


def said(trace: Addresses) -> None:
    """Say what to know of a trace's addresses."""
    if trace.physical:
        of_exec = " (of Exec: virtual)" if trace.format == "gem5-text" else ""
        _common.note(
            f"{trace.format} has physical addresses{of_exec}: not those that the program's TLB translated"
        )


def _show(found: Translation) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    names = list(found.table)
    for name in names:
        shown.add_column(name.replace("_", " "), justify="left" if name == "kind" else "right", no_wrap=True)
    for row in zip(*(found.table[name] for name in names), strict=True):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    _common.say(
        f"{found.path} ({found.format}) on {found.machine.name}, {found.page_size}-byte pages (predicted)"
    )
    _common.print_table(shown)
