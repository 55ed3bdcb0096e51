"""Recordings held against each other: rate by rate, with the interval of their ratio."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlbcore import _core
from tlbcore.trace.recording import Trace, causes
from tlbcore.trace.report.words import columns, n, paragraph

if TYPE_CHECKING:
    from tlbcore.trace.explanation import Explanation

_ENOUGH_S = 1.0


def _known(trace: Trace, cause: str | None) -> tuple[int, float] | None:
    """Return how often and in how many seconds (of all isolated CPUs together), or None if it is not recorded."""
    count, seconds = 0, 0.0
    for cpu in trace.figures["report"]["isolated"]:
        state = cpu["interrupts_known"]
        kind = "interrupt" if cause is None else causes[cause].kind
        if kind != "interrupt":
            key = {"task": "tasks", "softirq": "softirqs", "nmi": "nmis", "firmware": "firmware"}[kind]
            state = cpu["knowledge"][key]["state"]
        if state == "not_recorded":
            return None
        seconds += cpu["seconds"]
        if cause is None:
            count += cpu["interrupts"]
        else:
            count += sum(row["n"] for row in cpu["interference"] if row["cause"] == cause)
    return count, seconds


def comparison_rows(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """Compare recordings cause by cause: how often per hour and isolated CPU, with intervals.

    `ratio` is the last rate by the first, with its 95 % interval (both ends exact, by the binomial share of the
    counts); `change` is *more* or *fewer* where the interval leaves 1 out, *unclear* where it does not, and
    *not recorded* where one of the recordings cannot tell. Rates need a second of data.
    """
    rows = []
    found = [e.trace for e in explanations]
    ids = sorted(
        {
            row["cause"]
            for t in found
            for cpu in t.figures["report"]["isolated"]
            for row in cpu["interference"]
        }
    )
    for cause in [None, *ids]:
        row: dict[str, Any] = {"cause": cause or "all", "traces": []}
        for t in found:
            known = _known(t, cause)
            cpus = len(t.figures["report"]["isolated"])
            if known is None or not cpus:
                row["traces"].append(
                    {"n": None, "seconds": None, "per_hour": None, "low": None, "high": None}
                )
                continue
            count, seconds = known
            low, high = _core.trace_poisson_95(count)
            enough = seconds >= _ENOUGH_S * cpus
            scaled = [x * 3600 / seconds if enough else None for x in (count, low, high)]
            row["traces"].append(
                {"n": count, "seconds": seconds, "per_hour": scaled[0], "low": scaled[1], "high": scaled[2]}
            )
        row["interrupts"] = cause is None or causes[cause].kind == "interrupt"
        row |= _change(row["traces"][0], row["traces"][-1])
        rows.append(row)
    return rows


def _change(first: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    if first["per_hour"] is None or last["per_hour"] is None:
        return {"ratio": None, "ratio_low": None, "ratio_high": None, "change": "not recorded"}
    low, high = _core.trace_rate_ratio_95(first["n"], first["seconds"], last["n"], last["seconds"])
    ratio = last["per_hour"] / first["per_hour"] if first["n"] else None
    change = "fewer" if high < 1 else "more" if low > 1 else "unclear"
    return {
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": None if math.isinf(high) else high,
        "change": change,
    }


def comparison_text(explanations: Sequence[Explanation]) -> str:
    """Write a comparison of recordings, first against last."""
    lines = paragraph(
        "Before and after: per hour and isolated CPU, with 95 % intervals (measured); ratio: last by first",
        first="",
    )
    for i, e in enumerate(explanations, 1):
        lines.append(f"  [{i}] {e.trace.path}")
    kernels = {value for e in explanations for key, value in e.trace.figures["notes"] if key == "version"}
    if len(kernels) > 1:
        lines += paragraph(f"Mind that these are different kernels: {'; '.join(sorted(kernels))}.")
    if any(e.trace.figures["report"]["snapshots"] for e in explanations):
        lines += paragraph(
            "Mind that a flight recorder keeps the interrupted seconds: its rates are not the machine's."
        )
    head = [*(f"[{i}]" for i in range(1, len(explanations) + 1)), "ratio (95 %)", "change", "cause"]
    body = []
    for row in comparison_rows(explanations):
        cells = [
            "not recorded"
            if t["n"] is None
            else f"{n(t['n'])} in all"
            if t["per_hour"] is None
            else f"{n(round(t['per_hour']))} ({n(round(t['low']))}-{n(round(t['high']))})"
            for t in row["traces"]
        ]
        ratio = "-"  # also of nothing and nothing
        if row["change"] != "not recorded" and (row["traces"][0]["n"] or row["traces"][-1]["n"]):
            high = "any" if row["ratio_high"] is None else _ratio(row["ratio_high"])
            middle = "new" if row["ratio"] is None else _ratio(row["ratio"])
            ratio = f"{middle} ({_ratio(row['ratio_low'])}-{high})"
        title = causes[row["cause"]].title if row["cause"] in causes else "all interrupts"
        body.append([*cells, ratio, row["change"], title])
    return "\n".join(lines + columns([head, *body], ">" * (len(explanations) + 1) + "<<"))


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{float(f'{value:.2g}'):g}" if value >= 0.001 else "0"
