"""`tlbcore litmus FILE|DIR`: exit status 0 if every verdict is the one its file states, 1 if not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlbcore.cli import _common
from tlbcore.cli._bounds import size


def command(
    paths: Annotated[list[Path], typer.Argument(help="Files that end in .litmus, or folders of them.")],
    bless: Annotated[
        bool, typer.Option("--bless", help="Write verdicts and stated numbers of states into the files.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the run each test found.")] = False,
    memory: Annotated[str, typer.Option(help="Memory one search may use, such as 512M or 8G.")] = "8G",
    reduce: Annotated[
        bool, typer.Option("--reduce/--no-reduce", help="Use symmetry and fuse ops that commute.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Run litmus tests: small programs with their verdict inside."""
    from tlbcore.checker import litmus

    if bless and not reduce:
        _common.fail("--bless writes what the reduced search finds: leave --no-reduce out")
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob("*.litmus")) if path.is_dir() else [path]
        if not found:
            _common.fail(f"{path}: no file ends in .litmus")
        files += found
    results = []
    width = max(len(file.stem) for file in files)
    for file in files:
        result = litmus(file, memory=size(memory), reduce=reduce, bless=bless)
        results.append(result)
        if json:
            continue
        states = "" if result.stated_states in (None, result.states) else f", {result.stated_states} states"
        note = "" if result.ok else f"  MISMATCH: stated `{result.stated}`{states}"
        print(f"{result.name:<{width}}  {result.found:<34} {result.states:>8} states{note}")
        if show and result.text:
            print(f"\n{result.text}")
    wrong = sum(not result.ok for result in results)
    if json:
        _common.print_json("litmus", 1, tests=[{**vars(r), "ok": r.ok} for r in results], mismatches=wrong)
    else:
        print(f"{len(results)} tests, {len(results) - wrong} as stated")
    return 1 if wrong else 0
