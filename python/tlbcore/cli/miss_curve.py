"""`tlbcore miss-curve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlbcore.cli import _common
from tlbcore.cli.tlb import CpuOption, FileArgument, FormatOption, KindsOption, LimitOption, opened, said

#: Up to so many ways every row is printed, beyond them a few in each doubling.
SHOWN = 32


def few(ways: int, most: int) -> bool:
    """Whether a table of many ways has this row: four in each doubling, and the last.

    >>> [ways for ways in range(1, 101) if few(ways, 100)]
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 100]
    """
    step = 1 << max(ways.bit_length() - 3, 0)
    return ways == most or ways % step == 0


def _cell(value: object) -> str:
    """Write a number; what is not known is a dash."""
    if not isinstance(value, float):
        return str(value)
    return "-" if value != value else f"{value:.4g}"


def command(
    file: FileArgument,
    sets: Annotated[
        list[int] | None, typer.Option(help="Set counts, powers of two. Repeat it. [16, or 1 with --sample]")
    ] = None,
    ways: Annotated[int, typer.Option(help="Ways: 1 to this.", min=1, max=1 << 20)] = 8,
    sample: Annotated[
        float | None,
        typer.Option(help="Look at this share of the pages only, such as 0.01: an estimate, with its error."),
    ] = None,
    format: FormatOption = None,  # noqa: A002
    kind: KindsOption = None,
    cpu: CpuOption = None,
    limit: LimitOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curve into this file (.png, .svg, .pdf).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count an address trace's misses in every LRU TLB of these set counts and up to so many ways, in one pass."""
    from tlbcore.tlb import miss_curve

    trace = opened(file, format, kind, cpu, limit)
    axes = None
    if plot is not None:
        try:
            import matplotlib

            matplotlib.use("Agg")
            from matplotlib import pyplot
        except ModuleNotFoundError:
            _common.fail("--plot needs the package matplotlib: pip install 'tlbcore[plot]'")
        figure = pyplot.figure()
        if plot.suffix[1:] not in figure.canvas.get_supported_filetypes():
            _common.fail(f"--plot: {plot}: a picture's name ends in .png, .svg or .pdf")
        axes = figure.gca()
    curve = miss_curve(trace, sets=sets or None, ways=ways, sample=sample)
    if axes is not None and plot is not None:
        from tlbcore.plot import miss_curve as draw

        draw(axes, curve).set_title(f"{trace.path}: {curve.accesses} accesses")
        figure.savefig(plot)
    if json:
        _common.print_json(
            "miss-curve", 1, trace=trace.path, format=trace.format, physical=trace.physical, accesses=curve.accesses,
            **({} if curve.sampled is None else {"sample": curve.sample, "sampled": curve.sampled}), table=dict(curve),
        )  # fmt: skip
        return
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for name in curve:
        shown.add_column(name.replace("_", " "), justify="right")
    rows = [
        row
        for row in zip(*(curve[name] for name in curve), strict=True)
        if ways <= SHOWN or few(int(row[1]), ways)
    ]
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    how = "exact LRU"
    if curve.sampled is not None:
        how = f"LRU estimated from {curve.sampled} of them ({curve.sample:g} of the pages; error: 95 %)"
    if len(rows) < curve.table.size:
        how += "; --json has every number of ways"
    _common.say(f"{trace.path} ({trace.format}): {curve.accesses} accesses, 4096-byte pages, {how}")
    _common.print_table(shown)
    said(trace)
