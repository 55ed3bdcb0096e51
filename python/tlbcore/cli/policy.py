"""`tlbcore policy list|show|export`."""

from __future__ import annotations

from typing import Annotated

import typer

from tlbcore.cli import _common

app = typer.Typer(no_args_is_help=True, help="List, show and export policies.")


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the built-in policies."""
    from tlbcore.policy import policies

    if json:
        rows = [
            {
                "name": p.name,
                "doc": p.doc,
                "source": p.source,
                "needs": p.needs,
                "limits": p.limits,
                "digest": p.digest,
            }
            for p in policies.values()
        ]
        _common.print_json("policies", 1, policies=rows)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("policy", "needs", "what it does"):
        table.add_column(column, no_wrap=column == "policy")
    for p in policies.values():
        table.add_row(p.name, ", ".join(p.needs), p.doc)
    _common.print_table(table)


@app.command()
def show(
    policy: Annotated[str, typer.Argument(help="A built-in policy, or a file that ends in .policy.")],
    ops: Annotated[bool, typer.Option("--ops", help="Show the assembled ops instead of the text.")] = False,
    kernel: Annotated[bool, typer.Option("--kernel", help="Show the kernel's own paths after it.")] = False,
) -> None:
    """Print a policy's text with its sources."""
    from tlbcore import _core
    from tlbcore.policy import as_policy

    if ops and kernel:
        _common.fail("--ops shows the kernel's own paths, too: leave --kernel out")
    chosen = as_policy(policy)
    if not ops:
        print(chosen.text.rstrip())
        if kernel:
            for _, text in _core.policy_kernel():
                print()
                print(text.rstrip())
        return
    program = ""
    for name, index, op, _, source in chosen.listing():
        if name != program:
            print(f"{name}:")
            program = name
        print(f"  {index:4} {op:<72} {source}")


@app.command()
def export(
    policy: Annotated[str, typer.Argument(help="A built-in policy, or a file that ends in .policy.")],
    to: Annotated[str, typer.Option(help="The language: promela.")] = "promela",
    isolated: Annotated[int, typer.Option(help="Isolated CPUs, 1 to 4.")] = 2,
    entries: Annotated[int, typer.Option(help="System calls each makes, 1 to 4.")] = 2,
    danger: Annotated[str, typer.Option(help="What early entry code may touch: none or recycled.")] = "none",
) -> None:
    """Print a policy for another tool, so that it confirms a verdict."""
    from tlbcore.policy import as_policy

    if to != "promela":
        _common.fail(f"a policy is exported to promela, not to `{to}`")
    print(as_policy(policy).promela(isolated=isolated, entries=entries, danger=danger), end="")
