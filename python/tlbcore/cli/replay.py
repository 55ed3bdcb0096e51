"""`tlbcore replay`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tlbcore.cli import _common, _trace


def command(
    trace: Annotated[
        str, typer.Argument(help="ftrace text or trace-cmd report; plain, .gz, .xz, .zst, or - for stdin.")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="Built-in name or .policy file; may be repeated. Mainline and the series if left out.",
        ),
    ] = None,
    isolated: Annotated[
        str | None,
        typer.Option(
            help="Isolated CPUs, such as 2-3,8. Left out, they are deduced from the trace.", metavar="CPUS"
        ),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(help="CPU preset to price entry code and waits with, see `tlbcore machines`."),
    ] = None,
    paths: Annotated[
        Path | None,
        typer.Option(
            "--kernel",
            metavar="FILE",
            help="Paths of a kernel text (`tlbcore extract`) in place of linux.kernel's.",
        ),
    ] = None,
    kernel_version: Annotated[
        str | None,
        typer.Option(help="Linux whose texts the policies stand on: 6.12 or 7.3.", metavar="VERSION"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    perfetto: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a timeline that ui.perfetto.dev opens, with what would wait on each isolated CPU under "
            "each policy; as JSON of Chrome's trace events if FILE ends in .json.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the report as one self-contained page of HTML."),
    ] = None,
) -> None:
    """Show what would have happened in a recording under other policies."""
    from tlbcore.trace.replayed import check_policies, replay

    policies = check_policies(policy)
    if paths is not None or kernel_version is not None:
        policies = check_policies(_common.standing_on(policies, kernel_version, paths))
    whole, damage = _trace.read(trace, isolated)
    result = replay(whole, policies, machine=machine)
    if json:
        _common.print_json("replay", 1, **result.to_json())
    else:
        print(result)
    if perfetto is not None:
        whole.to_perfetto(perfetto, policies=policies)
        print(f"{perfetto}: written", file=sys.stderr)
    if html is not None:
        from tlbcore._output.html import reports

        _common.write_page(html, reports.replay(result, _common.document("replay", 1, **result.to_json())))
    _trace.finish(whole, damage)
