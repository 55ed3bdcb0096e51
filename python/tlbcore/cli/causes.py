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
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of --json.")] = False,
) -> None:
    """List what interrupts isolated CPUs: how it looks in a trace, who calls, what can be done."""
    from tlbcore._input.names import unknown
    from tlbcore.trace import causes

    if json + markdown + schema > 1:
        _common.fail("--json, --markdown and --schema each print something else: give one")
    if schema and name is not None:
        _common.fail(f"--schema is of every cause: leave {name} out")
    if name is not None and name not in causes:
        _common.fail(unknown("cause", name, causes))
    chosen = list(causes.values()) if name is None else [causes[name]]
    if schema:
        import json as writer

        print(writer.dumps(_schema(list(causes.values())), indent=2))
    elif json:
        _common.print_json("causes", 1, causes=[_row(cause) for cause in chosen])
    elif markdown:
        print(_page(chosen))
    elif name is None:
        from tlbcore.trace.report.words import columns

        rows = [[c.id, c.call_class, c.deferral, c.title] for c in chosen]
        print("\n".join(columns([["cause", "class", "deferral", ""], *rows], "<<<<", indent="")))
    else:
        print(f"{name}: {chosen[0].title}")
        for field, text in _facts(chosen[0]):
            from tlbcore.trace.report.words import paragraph

            print("\n".join(paragraph(text, indent="              ", first=f"  {field:12}")))


def _row(cause: Cause) -> dict[str, object]:
    from dataclasses import asdict

    row = asdict(cause)
    row["remedies"] = [{"kernels": kernels, "helps": helps} for kernels, helps in cause.remedies]
    return row


def _schema(causes: list[Cause]) -> dict[str, object]:
    """Describe what `--json` prints, so that other programs can use the catalogue."""
    text = {"type": "string", "minLength": 1}

    def one_of(values: set[str]) -> dict[str, object]:
        return {"enum": sorted(values)}

    versions = r"^(any|x86|[0-9]+(\.[0-9]+)+-([0-9]+(\.[0-9]+)+)?)$"
    remedy = {
        "type": "object",
        "required": ["kernels", "helps"],
        "properties": {
            "kernels": {
                "type": "string",
                "pattern": versions,
                "description": "First and last version it is known for (nothing: and later), or an architecture.",
            },
            "helps": text,
        },
    }
    properties: dict[str, object] = {
        "id": {**text, "description": "Stable word, as in figures and --fail-if."},
        "kind": one_of({c.kind for c in causes}),
        "call_class": one_of({c.call_class for c in causes}),
        "title": text,
        "signature": {**text, "description": "How it looks in a recording."},
        "chain": {
            **text,
            "description": 'Kernel functions from who interrupts to who asked; "<-": called by.',
        },
        "meaning": text,
        "deferral": one_of({c.deferral for c in causes}),
        "because": text,
        "helps": {**text, "description": "What helps on every kernel."},
        "kernels": {"type": "string", "pattern": versions, "description": "Kernels that have it."},
        "remedies": {
            "type": "array",
            "items": remedy,
            "description": "What helps, or does not, on some kernels.",
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tlbcore.causes",
        "description": "The catalogue of what interrupts isolated CPUs: how each looks, who calls, what helps.",
        "type": "object",
        "required": ["schema", "version", "causes"],
        "properties": {
            "schema": {"const": "tlbcore.causes"},
            "version": {"const": 1},
            "causes": {
                "type": "array",
                "items": {"type": "object", "required": list(properties), "properties": properties},
            },
        },
    }


def _facts(cause: Cause) -> list[tuple[str, str]]:
    kernels = [] if cause.kernels == "any" else [("kernels", cause.kernels)]
    return [
        ("looks like", cause.signature),
        *kernels,
        ("call chain", cause.chain),
        ("meaning", cause.meaning),
        ("deferrable", f"{_DEFERRAL[cause.deferral]}: {cause.because}"),
        ("helps", cause.helps),
        *((f"on {kernels}", text) for kernels, text in cause.remedies),
    ]


def _page(causes: list[Cause]) -> str:
    lines = [
        "# What interrupts an isolated CPU",
        "",
        "The catalogue that `tlbcore explain` takes causes from: an entry each in `src/trace/cause.rs`. This page is",
        'written by `tlbcore causes --markdown`; in a call chain an arrow reads "called by". A figure or a `--fail-if`',
        "condition refers to a cause by its id. Flushes, kicks, reschedules, wakeups, ticks and table frees were seen",
        "in recordings of Linux 6.1, 6.12 and 7.3; the rarer ones (khugepaged, percpu, KFENCE, expedited RCU and the",
        "like) are from reading kernel sources and were not seen in a recording here. `on 6.12-7.2` says what helps on",
        "those versions, as far as they were looked at. `tlbcore causes --json` is the catalogue for other programs,",
        "`--schema` the JSON Schema of it. What a name in a recording says stands in `src/trace/cause/signature.rs`.",
        "",
        "| cause | kind | class | what | deferrable |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| [`{c.id}`](#{c.id}) | {c.kind} | {c.call_class} | {c.title} | {c.deferral.replace('_', ' ')} |"
        for c in causes
    ]
    for cause in causes:
        lines += ["", f"## {cause.id}", "", f"{cause.title[0].upper()}{cause.title[1:]}.", ""]
        lines += [f"- **{field.capitalize()}**: {_escaped(text)}." for field, text in _facts(cause)]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Keep Markdown from reading names as markup."""
    return text.replace("*", "\\*").replace("<-", "&larr;").replace("_", "\\_").replace("<", "&lt;")
