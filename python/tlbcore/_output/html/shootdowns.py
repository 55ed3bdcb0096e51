"""The page of `explain --process` and `--all-cpus`: what shootdowns of user ranges cost, by call, pair and thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tlbcore._output.html.page import matrix, page, preformatted, rows_of, section, sections_of

if TYPE_CHECKING:
    from tlbcore.trace.shootdown import Shootdowns

_SIDE = 64  # CPUs on a side of the matrix; more are in the table of pairs only

# Heading of the text report, and the table that its figures come from.
_TABLES = {
    "By call site": ("call_sites", "Measured. An empty cell was not recorded."),
    "Sender": ("pairs", "Remote calls by sending and interrupted CPU, measured."),
    "What the victims": ("victims", "Who ran where a call arrived, measured."),
    "By thread": ("threads", "Who sent, measured. An empty cell was not recorded."),
    "By address space": ("address_spaces", "Flushes by address space, measured."),
    "What would be left": ("what_if", "Predicted from the calls of this recording: an interval each."),
}


def shootdowns(found: Shootdowns, document: Mapping[str, Any]) -> str:
    """Return the page: the sentence, every table to sort, and what the recording does not tell."""
    parts = []
    lede = str(document["sentence"])
    for heading, lines in sections_of(str(found))[1:]:
        if heading == "In short":
            continue  # the page opens with it
        added = []
        name, caption = next((of for start, of in _TABLES.items() if heading.startswith(start)), ("", ""))
        if name == "pairs":
            added.append(_matrix(found))
        if name:
            columns = found.what_if if name == "what_if" else getattr(found, name)
            added.append(rows_of(columns, caption))
        parts.append(section(heading, *added, preformatted(lines)))
    return page(
        f"Shootdowns of {found.process or 'all processes'}: {found.path}",
        [f"All{lede[3:]}" if lede.startswith("all ") else lede],
        parts,
        document,
    )


def _matrix(found: Shootdowns) -> str:
    t = found.pairs
    cells = {
        (sender, victim): calls
        for sender, victim, calls in zip(
            t["sender_cpu"].tolist(), t["victim_cpu"].tolist(), t["calls"].tolist(), strict=True
        )
    }
    senders, victims = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    if not cells or max(len(senders), len(victims)) > _SIDE:
        return ""
    rows = [
        (
            f"CPU {sender}" if sender >= 0 else "not recorded",
            [int(cells.get((sender, victim), 0)) for victim in victims],
        )
        for sender in senders
    ]
    return matrix("from", [f"to {victim}" for victim in victims], rows, "Remote calls, measured.")
