"""`tlbcore causes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tlbcore.cli import _common

if TYPE_CHECKING:
    from tlbcore.trace import Cause

_DEFERRAL = {
    "kernel_range": "yes, by the kernel-range policies (ct-late, coalesce-v7 and the like)",
    "text_sync": "by the text-patching half of the series only",
    "never": "no",
    "unknown": "the trace does not tell",
}


def command(
    name: Annotated[str | None, typer.Argument(help="One cause; all of them if left out.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/causes.md.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what interrupts isolated CPUs: how it looks in a trace, who calls, what can be done."""
    from tlbcore._names import unknown
    from tlbcore.trace import causes

    if name is not None and name not in causes:
        _common.fail(unknown("cause", name, causes))
    chosen = list(causes.values()) if name is None else [causes[name]]
    if json:
        from dataclasses import asdict

        _common.print_json("causes", 1, causes=[asdict(cause) for cause in chosen])
    elif markdown:
        print(_page(chosen))
    elif name is None:
        from tlbcore._report import columns

        rows = [[c.id, c.call_class, c.deferral, c.title] for c in chosen]
        print("\n".join(columns([["cause", "class", "deferral", ""], *rows], "<<<<", indent="")))
    else:
        print(f"{name}: {chosen[0].title}")
        for field, text in _facts(chosen[0]):
            from tlbcore._report import paragraph

            print("\n".join(paragraph(text, indent="              ", first=f"  {field:12}")))


def _facts(cause: Cause) -> list[tuple[str, str]]:
    return [
        ("looks like", cause.signature),
        ("call chain", cause.chain),
        ("meaning", cause.meaning),
        ("deferrable", f"{_DEFERRAL[cause.deferral]}: {cause.because}"),
        ("helps", cause.helps),
    ]


def _page(causes: list[Cause]) -> str:
    lines = [
        "# What interrupts an isolated CPU",
        "",
        "The catalogue that `tlbcore explain` takes causes from: an entry each in `src/trace/cause.rs`. This page is",
        'written by `tlbcore causes --markdown`; in a call chain an arrow reads "called by". A figure or a `--fail-if`',
        "condition refers to a cause by its id. Flushes, kicks, reschedules, wakeups, ticks and table frees were seen",
        "in recordings of Linux 6.1 and 6.12 (`tests/data`); the rarer ones (khugepaged, percpu, KFENCE, expedited",
        "RCU, stop_machine and the like) are from reading kernel sources and were not seen in a recording here.",
        "",
        "| cause | class | what | deferrable |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| [`{c.id}`](#{c.id}) | {c.call_class} | {c.title} | {c.deferral.replace('_', ' ')} |"
        for c in causes
    ]
    for cause in causes:
        lines += ["", f"## {cause.id}", "", f"{cause.title[0].upper()}{cause.title[1:]}.", ""]
        lines += [f"- **{field.capitalize()}**: {_escaped(text)}." for field, text in _facts(cause)]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Keep Markdown from reading names as markup."""
    return text.replace("*", "\\*").replace("<-", "&larr;").replace("_", "\\_").replace("<", "&lt;")
