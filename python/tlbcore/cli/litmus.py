"""`tlbcore litmus FILE|DIR`: exit status 0 if every verdict is the one its file states, 1 if one differs.

It is 3 if none differs and a search met a limit before it came to a verdict. A file that cannot be read or understood
is one line on standard error; the others run all the same, and the exit status is 2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbcore.cli import _common
from tlbcore.cli._bounds import Memory, size

if TYPE_CHECKING:
    from tlbcore.checker import LitmusResult


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Files that end in .litmus (ours, or herd's for x86), or folders of them."),
    ],
    bless: Annotated[
        bool, typer.Option("--bless", help="Write verdicts and stated numbers of states into the files.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the run each test found.")] = False,
    states: Annotated[
        bool, typer.Option("--states", help="List every final state of each test, found in one search.")
    ] = False,
    memory: Memory = "auto",
    reduce: Annotated[
        bool, typer.Option("--reduce/--no-reduce", help="Use symmetry and fuse ops that commute.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Run litmus tests: small programs with their verdict inside."""
    from tlbcore import _core
    from tlbcore.checker import litmus

    if bless and not reduce:
        _common.fail("--bless writes what the reduced search finds: leave --no-reduce out")
    if bless and states:
        _common.fail("--bless writes verdicts and --states lists ends: leave one of them out")
    if json and show:
        _common.fail("--json has every run that was found: leave --show out")
    held = size(memory)
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob("*.litmus")) if path.is_dir() else [path]
        if not found:
            _common.fail(f"{path}: no file ends in .litmus")
        files += found
    tests: list[dict[str, Any]] = []
    wrong = unknown = 0
    width = max(len(file.stem) for file in files)
    for file in files:
        try:
            result = litmus(file, memory=held, reduce=reduce, bless=bless, ends=states)
        except (_core.TlbcoreError, OSError) as error:
            message = _common.message(error) or str(error)
            tests.append({"file": str(file), "error": message})
            if not json:
                sys.stdout.flush()
            print(f"tlbcore: error: {message}", file=sys.stderr)
            continue
        tests.append({**_common.fields_of(result), "ok": result.ok, "error": None})
        unknown += not result.ok and result.inconclusive
        wrong += not result.ok and not result.inconclusive
        if not json:
            _print(result, width, show)
    errors = sum(test["error"] is not None for test in tests)
    if json:
        _common.print_json("litmus", 1, tests=tests, mismatches=wrong, inconclusive=unknown, errors=errors)
    else:
        bad = f", {unknown} inconclusive" if unknown else ""
        bad += f", {errors} not understood" if errors else ""
        right = len(tests) - wrong - unknown - errors
        print(f"{len(tests)} test{'' if len(tests) == 1 else 's'}, {right} as stated{bad}")
    return _common.BAD_INPUT if errors else 1 if wrong else 3 if unknown else 0


def _print(result: LitmusResult, width: int, show: bool) -> None:
    states = "" if result.stated_states in (None, result.states) else f", {result.stated_states} states"
    note = ""
    if not result.ok and not result.herd:
        said = (
            f"stated `{result.stated}`{states}"
            if result.stated
            else "no verdict is stated (--bless writes it)"
        )
        note = f"  {said}" if result.inconclusive else f"  MISMATCH: {said}"
    print(f"{result.name:<{width}}  {result.found:<34} {result.states:>8} states{note}")
    if result.note:
        print(f"{'':<{width}}  {result.note}")
    if result.ends is not None:
        least = "" if result.complete else "at least "
        print(f"{'':<{width}}  {least}{len(result.ends)} final state{'' if len(result.ends) == 1 else 's'}:")
        for end in result.ends:
            print(f"{'':<{width}}    {' '.join(f'{name}={_value(value)}' for name, value in end.items())}")
    if show and result.text:
        print(f"\n{result.text}")


def _value(value: int | str | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
