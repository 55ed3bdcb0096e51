"""`tlbcore machines [NAME]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tlbcore.cli import _common

if TYPE_CHECKING:
    from tlbcore.hardware import Machine

_SECTIONS = {"cpu": "features", "walker": "page walker", "costs": "costs"}


def command(
    name: Annotated[
        str | None,
        typer.Argument(help="A built-in machine or one of its parts, or a file that ends in .toml."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List CPU presets, or show one with the mark and source of every number."""
    from tlbcore.hardware import machine, machines

    if name is not None:
        one = machine(name)
        if json:
            _common.print_json(
                "machine", 1, **_summary(one), facts=one.facts, costs=one.costs, levels=one.levels
            )
        else:
            _show(one)
        return
    everything = list(machines.values())
    if json:
        _common.print_json("machines", 1, machines=[_summary(one) for one in everything])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("machine", "PTI", "PCID", "INVPCID", "INVLPGB", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for one in everything:
        flags = (one.meltdown, one.pcid, one.invpcid, one.invlpgb_extra is not None)
        table.add_row(one.name, *("yes" if flag else "-" for flag in flags), one.title)
    _common.print_table(table)
    _common.say("\nPTI: on unless turned off. `tlbcore machines NAME` shows where each number comes from.")


def _summary(one: Machine) -> dict[str, object]:
    names = (
        "name",
        "title",
        "aliases",
        "vendor",
        "signature",
        "mhz",
        "pcid",
        "invpcid",
        "invlpgb_extra",
        "meltdown",
    )
    return {name: getattr(one, name) for name in names}


def _show(one: Machine) -> None:
    from rich.table import Table

    _common.say(f"{one.name}: {one.title}")
    if one.signature:
        print(f"CPUID {one.signature}")
    if one.aliases:
        _common.say(f"also: {', '.join(one.aliases)}")
    sections: dict[str, list[tuple[str, str, str, str]]] = {"TLB": []}
    for fact in one.facts:
        section, _, key = fact.key.partition(".")
        title = _SECTIONS.get(section, "TLB")
        shown = fact.key.removesuffix(".entries") if title == "TLB" else key
        if title == "TLB" and shown.endswith(".pcid_slots"):
            shown = shown.replace("pcid_slots", "keeps")
        sections.setdefault(title, []).append((shown, fact.value, fact.mark, fact.source))
    for title, rows in sections.items():
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for column in ("", "value", "mark", "source"):
            table.add_column(column, no_wrap=column in ("", "mark"), overflow="fold")
        for row in rows:
            table.add_row(*row)
        _common.console().print()
        _common.print_table(table)
