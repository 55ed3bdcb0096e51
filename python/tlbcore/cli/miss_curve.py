"""`tlbcore miss-curve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlbcore.cli import _common
from tlbcore.cli.tlb import FileArgument, FormatOption, KindsOption, LimitOption, opened, said


def command(
    file: FileArgument,
    sets: Annotated[list[int] | None, typer.Option(help="Set counts, powers of two. Repeat it. [16]")] = None,
    ways: Annotated[int, typer.Option(help="Ways: 1 to this.", min=1, max=32)] = 8,
    format: FormatOption = None,  # noqa: A002
    kind: KindsOption = None,
    limit: LimitOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curve into this file (.png, .svg, .pdf).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count an address trace's misses in every LRU TLB of these set counts and up to so many ways, in one pass."""
    from tlbcore.tlb import miss_curve

    trace = opened(file, format, kind, limit)
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
    curve = miss_curve(trace, sets=sets or [16], ways=ways)
    if axes is not None and plot is not None:
        from tlbcore.plot import miss_curve as draw

        draw(axes, curve).set_title(f"{trace.path}: {curve.accesses} accesses")
        figure.savefig(plot)
    if json:
        _common.print_json(
            "miss-curve", 1, trace=trace.path, format=trace.format, physical=trace.physical, accesses=curve.accesses,
            table=dict(curve),
        )  # fmt: skip
        return
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for name in curve:
        shown.add_column(name.replace("_", " "), justify="right")
    for row in zip(*(curve[name] for name in curve), strict=True):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    _common.say(f"{trace.path} ({trace.format}): {curve.accesses} accesses, 4096-byte pages, exact LRU")
    _common.print_table(shown)
    said(trace)
