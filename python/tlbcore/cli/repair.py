"""`tlbcore repair POLICY`: the smallest edits that make a policy pass; exit status 1 if there are none."""

from __future__ import annotations

from textwrap import fill
from typing import Annotated

import typer

from tlbcore._input import defaults
from tlbcore.cli import _bounds, _common


def command(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(help="A built-in policy, or a file that ends in .policy.")],
    edits: Annotated[int, typer.Option(help="Edits at most, 1 to 3.")] = 2,
    cpus: _bounds.Cpus = 2,
    nmis: _bounds.Nmis = 0,
    mces: _bounds.Mces = 0,
    asids: _bounds.Asids = 1,
    pages: _bounds.Pages = 1,
    entries: _bounds.Entries = "2",
    rounds: _bounds.Rounds = "1",
    assume: _bounds.Assume = None,
    roles: _bounds.Roles = "",
    world: _bounds.World = "",
    kernel_version: _bounds.KernelVersion = None,
    memory: _bounds.Memory = "auto",
    machine: Annotated[
        str, typer.Option(help="CPU model that the cost is predicted for.")
    ] = defaults.MACHINE,
    show: Annotated[bool, typer.Option("--show", help="Print the first repaired policy.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Search for the smallest change that makes a policy pass its check."""
    from tlbcore.checker import repair

    if json and show:
        _common.fail("--json holds every repaired policy: leave --show out")
    bounds = _bounds.bounds(
        ctx,
        cpus=cpus,
        nmis=nmis,
        mces=mces,
        asids=asids,
        pages=pages,
        entries=entries,
        rounds=rounds,
        assume=assume,
        roles=roles,
        world=world,
        memory=memory,
    )
    asked = _bounds.subject(policy, kernel_version, None, bounds)
    with _common.progress("searching", "states") as advance:
        found = repair(
            asked,
            edits=edits,
            machine=machine,
            progress=advance,
            **bounds,
        )
    if json:
        rows = [
            {
                "edits": r.edits,
                "text": r.policy.text,
                "verdict": r.verdict,
                "states": r.states,
                "hypothesis": r.hypothesis,
                "cost": _common.fields_of(r.cost),
            }
            for r in found
        ]
        _common.print_json("repair", 1, policy=policy, repairs=rows)
    else:
        for number, r in enumerate(found, 1):
            print(f"{number}. " + "\n   ".join(r.edits))
            print(f"   {r.verdict}, {r.states} states")
            if r.hypothesis is not None:
                print(f"   if a future change touched recycled memory there: {r.hypothesis}")
            print(fill(str(r.cost), 76, initial_indent="   ", subsequent_indent="     "))
        if not found:
            none = "none of these edits makes" if edits == 1 else f"no {edits} of these edits make"
            print(f"{none} {policy} pass within these bounds")
        elif show:
            print(f"\n{found[0].policy.text}")
    return 0 if found else 1
