"""`tlbcore explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from tlbcore.cli import _common, _trace


def command(
    trace: Annotated[
        str, typer.Argument(help="ftrace text or trace-cmd report; plain, .gz, .xz, .zst, or - for stdin.")
    ],
    isolated: Annotated[
        str | None,
        typer.Option(
            help="Isolated CPUs, such as 2-3,8. Left out, they are deduced from the trace.", metavar="CPUS"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain who interrupted the isolated CPUs in a trace, and why."""
    whole, damage = _trace.read(trace, isolated)
    from tlbcore._explain import explain

    explanation = explain(whole)
    if json:
        _common.print_json("explain", 1, **explanation.to_json())
    else:
        print(explanation)
    _trace.finish(whole, damage)
