"""The pages of `tlbcore census`: what entry paths touch before a late flush, and what one kernel adds to another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlbcore._output.html.page import Cell, page, preformatted, section, table

DANGER = "danger zone"

Document = Mapping[str, Any]


def census(document: Document, report: str) -> str:
    """Return the page of one image; `report` is its text."""
    entries: Sequence[Document] = document["entries"]
    regions = sorted({region for entry in entries for zone in entry["zones"] for region in zone["counts"]})
    rows: list[list[Cell]] = []
    for entry in entries:
        for zone in entry["zones"]:
            counts = [_span(zone["counts"].get(region)) for region in regions]
            ops = "; ".join(dict.fromkeys(op["op"] for op in zone["ops"]))
            rows.append([entry["name"], zone["zone"], *counts, ops])
    marks = ["danger" if row[1] == DANGER else "" for row in rows]
    caption = (
        "Accesses on one way through, fewest to most; counted in the machine code. An empty cell has none."
    )
    parts = [
        section(
            "Accesses by entry and zone",
            table(["entry", "zone", *regions, "ops"], rows, caption, marks=marks),
        ),
        section("What is touched in a danger zone", _objects(entries)),
        section(
            "What was assumed",
            preformatted([*document["assumed"], *(f"note: {note}" for note in document["notes"])]),
        ),
        section("As text", preformatted(report.rstrip("\n").split("\n"))),
    ]
    gave_up = [entry for entry in entries if entry["gave_up"]]
    if gave_up:
        lost: list[list[Cell]] = [[entry["name"], entry["gave_up"]] for entry in gave_up]
        told = table(["entry", "why"], lost, "Nothing is said of these.")
        parts.insert(0, section("What could not be followed", told))
    lede = (
        f"{len(entries)} entry paths, with {' '.join(document['features'])}. Between the CR3 switch and a late flush "
        "(the danger zone) nothing may touch what the flush is owed for."
    )
    return page(f"Entry paths of Linux {document['release']}", [lede], parts, document)


def _objects(entries: Sequence[Document]) -> str:
    """Return each object of a danger zone once: how it is accessed, by how many entries, and where first."""
    found: dict[tuple[str, str, str], tuple[set[str], str]] = {}
    for entry in entries:
        for zone in entry["zones"]:
            if zone["zone"] != DANGER:
                continue
            for access in zone["accesses"]:
                key = (access["region"], access["way"], access["object"])
                names, _ = found.setdefault(key, (set(), access["place"]))
                names.add(entry["name"])
    rows: list[list[Cell]] = [
        [region, way, thing or None, len(names), place]
        for (region, way, thing), (names, place) in found.items()
    ]
    rows.sort(key=lambda row: (str(row[0]), str(row[2]), str(row[1])))
    caption = "Each object once, with the first place that touches it."
    return table(["region", "access", "object", "entries", "first place"], rows, caption)


def difference(document: Document, report: str, title: str) -> str:
    """Return the page of what one image adds to another's entry paths and drops."""
    parts = []
    for name, heading in (("added", "Added"), ("dropped", "Dropped")):
        rows: list[list[Cell]] = [
            [
                row["zone"],
                "yes" if row["danger"] else "no",
                row["kind"],
                row["what"],
                len(row["entries"]),
                row["place"],
                ", ".join(row["entries"]),
            ]
            for row in document[name]
        ]
        heads = ["zone", "in a danger zone", "kind", "what", "entries", "first place", "which"]
        marks = ["violated" if row["danger"] else "" for row in document[name]]
        parts.append(section(heading, table(heads, rows, f"{len(rows)} in all.", marks=marks)))
    changed: list[list[Cell]] = [[name, "new"] for name in document["new_entries"]]
    changed += [[name, "gone"] for name in document["gone_entries"]]
    parts.append(
        section("Entries", table(["entry", ""], changed, "Entry paths that only one of the two has."))
    )
    parts.append(section("As text", preformatted(report.rstrip("\n").split("\n"))))
    danger = (
        "Something is new in a danger zone." if document["danger"] else "Nothing is new in a danger zone."
    )
    return page(title, [danger], parts, document, status="violated" if document["danger"] else "verified")


def _span(counts: Sequence[int] | None) -> Cell:
    if counts is None:
        return None
    low, high = counts
    return high if low == high else f"{low} to {high}"
