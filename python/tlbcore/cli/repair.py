"""`tlbcore repair POLICY`: the smallest edits that make a policy pass; exit status 1 if there are none."""

from __future__ import annotations

from textwrap import fill
from typing import Annotated

import typer

from tlbcore.cli import _common
from tlbcore.cli.check import assumptions, refuse, size, times


def command(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(help="A built-in policy, or a file that ends in .policy.")],
    edits: Annotated[int, typer.Option(help="Edits at most, 1 to 3.")] = 2,
    cpus: Annotated[int, typer.Option(help="CPUs, 2 to 5.")] = 2,
    nmis: Annotated[int, typer.Option(help="NMIs in all; rules for NMIs are then tried too.")] = 0,
    mces: Annotated[int, typer.Option(help="Machine checks in all; they nest in NMIs.")] = 0,
    asids: Annotated[int, typer.Option(help="ASIDs per CPU, 1 or 2.")] = 1,
    pages: Annotated[int, typer.Option(help="Tracked vmalloc pages, 1 to 3.")] = 1,
    entries: Annotated[str, typer.Option(help="System calls per isolated CPU, or unbounded.")] = "2",
    rounds: Annotated[str, typer.Option(help="Flush rounds, or unbounded.")] = "1",
    roles: Annotated[str, typer.Option(help="What each CPU does, as for check.")] = "",
    assume: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, as for check.")] = None,
    memory: Annotated[str, typer.Option(help="Memory one search may use, such as 512M or 8G.")] = "8G",
    machine: Annotated[
        str, typer.Option(help="CPU model that the cost is predicted for.")
    ] = "broadwell-ep-e5-2699v4",
    show: Annotated[bool, typer.Option("--show", help="Print the first repaired policy.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Search for the smallest change that makes a policy pass its check."""
    from tlbcore.checker import repair

    if roles:
        refuse(
            _common.given(ctx) & {"cpus", "entries", "rounds"}, "--roles says who does what, and how often"
        )
    with _common.progress("searching", "states") as advance:
        found = repair(
            policy,
            edits=edits,
            cpus=cpus,
            nmis=nmis,
            mces=mces,
            asids=asids,
            pages=pages,
            entries=times(entries),
            rounds=times(rounds),
            roles=roles,
            assume=assumptions(assume or []),
            memory=size(memory),
            machine=machine,
            progress=lambda states, _depth: advance(states, None),
        )
    if json:
        rows = [
            {
                "edits": r.edits,
                "text": r.policy.text,
                "verdict": r.verdict,
                "states": r.states,
                "cost": vars(r.cost),
            }
            for r in found
        ]
        _common.print_json("repair", 1, policy=policy, repairs=rows)
    else:
        for number, r in enumerate(found, 1):
            print(f"{number}. " + "\n   ".join(r.edits))
            print(f"   {r.verdict}, {r.states} states")
            print(fill(str(r.cost), 76, initial_indent="   ", subsequent_indent="     "))
        if not found:
            print(f"no {edits} of these edits make {policy} pass within these bounds")
        elif show:
            print(f"\n{found[0].policy.text}")
    return 0 if found else 1
