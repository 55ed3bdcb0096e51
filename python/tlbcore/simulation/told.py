"""What a report of a comparison says beside its figures, and how it writes one figure, as text and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlbcore.simulation.compare import Comparison

PLUS_MINUS = "±: half of the 95 % confidence interval over replications"
RANGE = "a..b: with either end of the costs that have no source, and over replications"


def cell(table: Mapping[str, Any], name: str, i: int) -> str:
    """Return a figure of a row: alone, with half of its interval, as a range, or `-` where it did not occur."""
    value = float(table[name][i])
    if math.isnan(value):
        low, high = (float(table.get(f"{name}_{end}", {i: math.nan})[i]) for end in ("low", "high"))
        return "-" if math.isnan(low) else f"{number(low)}..{number(high)}"
    text = number(value)
    if f"{name}_low" in table and not math.isnan(float(table[f"{name}_low"][i])):
        half = (float(table[f"{name}_high"][i]) - float(table[f"{name}_low"][i])) / 2
        if half > 1e-12 * abs(value):  # less is what summing floats leaves
            text += f" ±{half:.2g}" if half < 99.5 else f" ±{half:.0f}"
    return text


def number(value: float) -> str:
    """Write four digits, and whole numbers as they are rather than as powers of ten."""
    return f"{value:.4g}" if abs(value) < 9999.5 else f"{value:.0f}"


def explained(cells: list[str]) -> list[str]:
    """Return what the marks mean that stand in these cells."""
    marks = {"±": PLUS_MINUS, "..": RANGE}
    return [said for mark, said in marks.items() if any(mark in text for text in cells)]


def simulated(found: Comparison) -> str:
    """Return how many seconds were simulated, and of how many where something was interrupted."""
    whole = _seconds(found.results[0].scenario.duration_s)
    return f"{_reached(found)} of {whole} s" if found.interrupted else f"{_reached(found)} s"


def notes(found: Comparison) -> list[str]:
    """Return what has no effect, and why; each once."""
    return list(dict.fromkeys(note for run in found.results for note in run.notes))


def remarks(found: Comparison) -> list[str]:
    """Return the lines that end a report: rules broken, what is left out, and which policies were interrupted."""
    first = found.results[0]
    out = [
        f"violation under {run.policy.name}, seed {run.seed}: {run.violation}"
        for run in found.results
        if run.violation is not None
    ]
    out.append(f"left out: {first.scenario.abstraction}")
    whole, known = _seconds(first.scenario.duration_s), set(found.table["policy"])
    for name in found.policies:
        if any(run.interrupted for run in (*found.results, *found.bounds) if run.policy.name == name):
            end = "its figures are of that time" if name in known else "it has no figures"
            out.append(f"interrupted: {name} was simulated for {_reached(found, name)} of {whole} s; {end}")
    return out


def _reached(found: Comparison, policy: str | None = None) -> str:
    """Return how many seconds runs came to: one number, or the lowest and the highest."""
    reached = [run.duration_s for run in (*found.results, *found.bounds) if policy in (None, run.policy.name)]
    return "..".join(dict.fromkeys(map(_seconds, (min(reached), max(reached)))))


def _seconds(value: float) -> str:
    """Write six digits, and whole numbers as they are rather than as powers of ten."""
    return f"{value:.6g}" if abs(value) < 999_999.5 else f"{value:.0f}"
