"""`tlbcore check POLICY|FILE`: exit status 0 verified, 1 violated, 3 inconclusive."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tlbcore.cli import _common

STATUS = {"verified": 0, "violated": 1, "inconclusive": 3}


def command(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(help="A built-in policy, or a file that ends in .policy.")] = "",
    cpus: Annotated[int, typer.Option(help="CPUs: one housekeeping, the others isolated; 2 to 5.")] = 2,
    nmis: Annotated[int, typer.Option(help="NMIs in all.")] = 0,
    mces: Annotated[int, typer.Option(help="Machine checks in all; they nest in NMIs.")] = 0,
    asids: Annotated[int, typer.Option(help="ASIDs per CPU, 1 or 2.")] = 1,
    pages: Annotated[int, typer.Option(help="Tracked vmalloc pages, 1 to 3.")] = 1,
    entries: Annotated[str, typer.Option(help="System calls per isolated CPU, or unbounded.")] = "2",
    rounds: Annotated[str, typer.Option(help="Flush rounds, or unbounded.")] = "1",
    assume: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, repeatable: D, N, T, invpcid, stores, fills, gs, range."),
    ] = None,
    roles: Annotated[
        str, typer.Option(help="What each CPU does, such as 'purge; purge; isolated 2'; instead of --cpus.")
    ] = "",
    memory: Annotated[str, typer.Option(help="Memory the search may use, such as 512M or 8G.")] = "8G",
    reduce: Annotated[
        bool, typer.Option("--reduce/--no-reduce", help="Fuse ops that commute with everything.")
    ] = True,
    threads: Annotated[int, typer.Option(help="Threads of one search; 0 for one per CPU.")] = 0,
    every: Annotated[
        bool, typer.Option("--all", help="The verdict table: every policy under every standard assumption.")
    ] = False,
    necessary: Annotated[
        bool, typer.Option("--necessary", help="Weaken or remove each op in turn: which are needed?")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Verify a policy within bounds, or print the shortest violation."""
    given = _common.given(ctx)
    if every:
        if policy or necessary:
            _common.fail("--all checks every policy: leave the policy and --necessary out")
        refuse(given - {"every", "memory", "json"}, "--all has its own bounds")
        return _table(size(memory), json)
    if not policy:
        _common.fail("name a policy, or ask for --all")
    if roles:
        refuse(given & {"cpus", "entries", "rounds"}, "--roles says who does what, and how often")
    if necessary:
        refuse(given & {"reduce", "threads"}, "--necessary chooses its own search")
        return _necessary(
            policy,
            json,
            cpus=cpus,
            nmis=nmis,
            mces=mces,
            asids=asids,
            pages=pages,
            entries=times(entries),
            rounds=times(rounds),
            assume=assumptions(assume or []),
            memory=size(memory),
            roles=roles,
        )
    from tlbcore.checker import check

    with _common.progress("exploring", "states") as advance:
        verdict = check(
            policy,
            cpus=cpus,
            nmis=nmis,
            mces=mces,
            asids=asids,
            pages=pages,
            entries=times(entries),
            rounds=times(rounds),
            assume=assumptions(assume or []),
            memory=size(memory),
            roles=roles,
            reduce=reduce,
            threads=threads,
            progress=lambda states, _depth: advance(states, None),
        )
    if json:
        _common.print_json("check", 1, **verdict.to_dict())
    else:
        print(verdict)
        if nmis == 0:
            print("\nNo NMI in this scope; --nmis 1 adds one.")
    return STATUS[verdict.status]


def refuse(names: set[str], why: str) -> None:
    """Fail if an option was given that another one leaves nothing to say."""
    if names:
        options = " and ".join(f"--{name}" for name in sorted(names))
        _common.fail(f"{why}: leave {options} out")


def assumptions(words: list[str]) -> dict[str, str]:
    """Read NAME=VALUE words; the same name twice with two values is a contradiction."""
    out: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            _common.fail(f"an assumption is NAME=VALUE: got `{word}`")
        if out.setdefault(name, value) != value:
            _common.fail(f"`{name}` is assumed to be `{out[name]}` and `{value}`")
    return out


def times(text: str) -> int | str:
    """Read a number of runs; what is no number is left to the checker to judge."""
    return int(text) if text.lstrip("-").isdecimal() else text


def size(text: str) -> int:
    """Read a number of bytes: 512M, 8G."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], units.get(text[-1:].upper())) if text[-1:].isalpha() else (text, 1)
    if unit is None or not number.isdigit() or int(number) == 0:
        _common.fail(f"memory is a number with K, M or G: got `{text}`")
    return int(number) * unit


def _necessary(policy: str, json: bool, **bounds: Any) -> int:
    from tlbcore.checker import necessary

    needs = necessary(policy, **bounds)
    if json:
        _common.print_json("necessary", 1, policy=policy, ops=[vars(n) for n in needs])
        return 0
    for n in needs:
        unneeded = {"verified": "not needed within these bounds"}.get(n.status, n.status)
        verdict = f"needed: {n.rule}" if n.needed else unneeded
        source = f" [today: {n.supplied_by}]" if n.needed and n.supplied_by else ""
        print(f"{n.section}, {n.place}: {n.what}\n    {verdict}{source}")
    print(f"\n{sum(n.needed for n in needs)} of {len(needs)} needed")
    return 0


def _table(memory: int, json: bool) -> int:
    """Print the verdict table; exit status 1 if a verdict differs from the policy table's."""
    from tlbcore.checker import verdict_table

    with _common.progress("checking", "policies") as advance:
        rows = verdict_table(memory=memory, progress=lambda done, total: advance(done, total))
    wrong = [row for row in rows if row.stated is not None and row.stated != row.status]
    if json:
        _common.print_json("verdicts", 1, rows=[vars(row) for row in rows], differing=len(wrong))
        return 1 if wrong else 0
    lines: list[tuple[str, ...]] = [
        ("policy", "NMIs", "D", "N", "T", "ASIDs", "INVPCID", "CPUs", "states", "verdict")
    ]
    for r in rows:
        note = "" if r.stated in (None, r.status) else f" (stated: {r.stated})"
        rule = f": {r.rule}" if r.rule else ""
        bounds = (r.policy, r.nmis, r.danger, r.bodies, r.text, r.asids, r.invpcid, r.cpus, r.states)
        lines.append((*map(str, bounds), f"{r.status}{rule}{note}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(" ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"{len(rows)} verdicts, {len(wrong)} differ from the policy table")
    return 1 if wrong else 0
