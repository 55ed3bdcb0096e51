"""`tlbcore check POLICY|FILE`: exit status 0 verified, 1 violated, 3 inconclusive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tlbcore.cli import _bounds, _common

STATUS = {"verified": 0, "violated": 1, "inconclusive": 3}


def command(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(help="A built-in policy, or a file that ends in .policy.")] = "",
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
    kernel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Paths of a kernel text (`tlbcore extract`) in place of linux.kernel's."
        ),
    ] = None,
    kernel_version: _bounds.KernelVersion = None,
    memory: _bounds.Memory = "auto",
    reduce: Annotated[
        bool, typer.Option("--reduce/--no-reduce", help="Fuse ops that commute with everything.")
    ] = True,
    confirm: Annotated[
        bool | None,
        typer.Option(
            "--confirm/--no-confirm",
            help="Confirm a pass without reductions, whatever it takes; by default where it takes about a second.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of one search; one per CPU when left out.", min=1)
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="The verdict table: every policy in every world, on every version of Linux."
        ),
    ] = False,
    necessary: Annotated[
        bool, typer.Option("--necessary", help="Weaken or remove each op in turn: which are needed?")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the report as one self-contained page of HTML."),
    ] = None,
    legend: Annotated[
        bool,
        typer.Option("--legend", help="End with what the words of the report mean; `tlbcore words` has all."),
    ] = False,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the run that breaks it as a sequence diagram."),
    ] = None,
    mail: Annotated[
        bool, typer.Option("--mail", help="Print it as a mail: 72 columns of ASCII, and how to see it again.")
    ] = False,
    step: Annotated[
        bool,
        typer.Option(
            "--step", help="Go through the run that breaks it move by move, by keys (n, p, g, G, a, q)."
        ),
    ] = False,
) -> int:
    """Verify a policy within bounds, or print a violation."""
    given = _common.given(ctx)
    if every:
        if policy or necessary:
            _common.fail("--all checks every policy: leave the policy and --necessary out")
        _refuse_forms(html, svg, mail=mail, step=step, why="--all is a table")
        _bounds.refuse(ctx, given - {"every", "memory", "json", "kernel_version"}, "--all has its own bounds")
        return _table(_bounds.size(memory), json, kernel_version)
    if not policy:
        _common.fail("name a policy, or ask for --all")
    if json + mail + step > 1:
        _common.fail("--json, --mail and --step each print it their way: give one")
    if legend and (json or mail or step or necessary):
        _common.fail(
            "--legend explains the words of the report: leave --json, --mail, --step and --necessary out"
        )
    if not reduce:
        _bounds.refuse(ctx, given & {"confirm"}, "--no-reduce leaves nothing to confirm")
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
    asked = _bounds.subject(policy, kernel_version, kernel, bounds)
    if necessary:
        _refuse_forms(html, svg, mail=mail, step=step, why="--necessary asks about every op")
        _bounds.refuse(ctx, given & {"reduce", "confirm", "threads"}, "--necessary chooses its own search")
        return _necessary(asked, json, bounds)
    from tlbcore.checker import check

    with _common.progress("exploring", "states") as advance:
        verdict = check(
            asked,
            reduce=reduce,
            confirm=confirm,
            threads=threads,
            progress=advance,
            **bounds,
        )
    if json:
        _common.print_json("check", 1, **verdict.to_dict())
    elif mail:
        from tlbcore._output.interleaving.mail import mail as written

        print(written(verdict, _again(ctx)), end="")
    elif step and verdict.counterexample is not None:
        from tlbcore._output.interleaving.terminal import walk

        walk(verdict.counterexample, _common.width())
    else:
        print(verdict)
        if nmis == 0:
            print("\nNo NMI in this scope; --nmis 1 adds one.")
        if legend:
            _common.print_legend(str(verdict))
    if html is not None:
        from tlbcore._output.html import reports

        _common.write_page(html, reports.check(verdict, _common.document("check", 1, **verdict.to_dict())))
    if verdict.counterexample is None:
        if svg is not None or step:
            wanted = ["step through"] * step + ["draw"] * (svg is not None)
            _common.note(f"{verdict.policy} is {verdict.status}: there is no run to {' or '.join(wanted)}")
    elif svg is not None:
        from tlbcore._output.interleaving.diagram import svg as drawn

        run = verdict.counterexample
        title = f"{verdict.policy}: {run.rule} in {len(run.steps)} moves"
        _common.write_page(svg, drawn(run, title))
    return STATUS[verdict.status]


def _refuse_forms(html: Path | None, svg: Path | None, *, mail: bool, step: bool, why: str) -> None:
    forms = {"--html": html, "--svg": svg, "--mail": mail, "--step": step}
    if given := [name for name, value in forms.items() if value]:
        _common.fail(f"{', '.join(given)}: of one verdict, and {why}")


def _again(ctx: typer.Context) -> str:
    """Return the command line of this call, without the form it is printed in."""
    from tlbcore._output.interleaving.mail import quoted

    words: list[str] = ["tlbcore", "check"]
    for parameter in ctx.command.params:
        name, value = str(parameter.name), ctx.params[str(parameter.name)]
        if name not in _common.given(ctx) or name in (
            "json",
            "mail",
            "step",
            "html",
            "svg",
            "memory",
            "threads",
        ):
            continue
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [parameter.opts[0], str(one)]
    return quoted(words)


def _necessary(policy: Any, json: bool, bounds: dict[str, Any]) -> int:
    from tlbcore.checker import necessary

    needs = necessary(policy, **bounds)
    if json:
        name = str(getattr(policy, "name", policy))
        _common.print_json("necessary", 1, policy=name, ops=[_common.fields_of(n) for n in needs])
        return 0
    for n in needs:
        unneeded = {"verified": "not needed within these bounds"}.get(n.status, n.status)
        verdict = f"needed: {n.rule}" if n.needed else unneeded
        source = f" [today: {n.supplied_by}]" if n.needed and n.supplied_by else ""
        print(f"{n.section}, {n.place}: {n.what}\n    {verdict}{source}")
    print(f"\n{sum(n.needed for n in needs)} of {len(needs)} needed")
    return 0


def _table(memory: int, json: bool, linux: str | None) -> int:
    """Print the verdict table; exit status 1 if a verdict differs from the policy table's."""
    from tlbcore.checker import verdict_table, world_table

    if linux is not None:
        _common.known_version(linux)

    with _common.progress("checking", "policies") as advance:
        rows = verdict_table(memory=memory, linux=linux, progress=advance)
        cells = world_table(memory=memory, linux=linux, progress=advance)
    wrong = [row for row in rows if row.stated is not None and row.stated != row.status]
    if json:
        plain = {
            "rows": [_common.fields_of(row) for row in rows],
            "cells": [_common.fields_of(cell) for cell in cells],
        }
        _common.print_json("verdicts", 1, **plain, differing=len(wrong))
        return 1 if wrong else 0
    print(cells)
    for row in wrong:
        print(f"{row.policy}, {row.world}: {row.status}, and the policy table states {row.stated}")
    searched = len(rows) + 2 * sum(not cell.inert for cell in cells)
    print(f"{searched} verdicts, {len(wrong)} differ from the policy table")
    return 1 if wrong else 0
