"""Who interrupted the isolated CPUs of a recording, how often, why, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from tlbcore import _core
from tlbcore.trace import Trace, causes

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Explanation:
    """Interrupts of isolated CPUs by cause, with rates, durations, initiators and what would help.

    Attributes
    ----------
    trace
        What is explained.
    table
        One row per isolated CPU and cause, most frequent first: `cpu`, `cause`, `class`, `interrupts`,
        `per_hour` with the 95 % interval of a Poisson process in `per_hour_low` and `per_hour_high`, handler
        lengths `p50_us`, `p95_us`, `max_us` (NaN: not recorded), `total_ms`. All measured.
    initiators
        One row per isolated CPU, task and cause: `cpu`, `comm`, `in_interrupt` (the task was only
        interrupted), `cause`, `calls`.
    missing
        Questions the recording leaves open, with what is missing; `essential` if who interrupted whom is one.
    """

    trace: Trace = field(repr=False)
    table: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    initiators: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    missing: tuple[Mapping[str, Any], ...] = ()

    def __repr__(self) -> str:
        return f"<Explanation of {self.trace!r}>"

    def __str__(self) -> str:
        from tlbcore._report import explain_text

        return explain_text(self)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document without its `schema` and `version`."""
        from tlbcore._report import header_json

        report = self.trace.figures["report"]
        keys = (
            "isolated",
            "policies",
            "purges",
            "forks",
            "flush_tlb_kernel_range",
            "flush_tlb_all",
            "nr_lazy_max",
            "cannot_say",
            "probes",
            "kinds",
        )
        return {**header_json(self.trace), **{key: report[key] for key in keys}}


def explain(trace: Trace) -> Explanation:
    """Explain a recording: who interrupted the isolated CPUs, why, and what would help.

    `print` the result for a report; `.table` has the figures.

    Parameters
    ----------
    trace
        From `read_trace`.
    """
    report = trace.figures["report"]
    hours = trace.seconds / 3600
    rows: list[tuple[Any, ...]] = []
    for cpu in report["isolated"]:
        handlers = {h["cause"]: h for h in cpu["handlers"]}
        by_count = sorted(cpu["interrupts_by_cause"].items(), key=lambda item: (-item[1], item[0]))
        for cause, count in by_count:
            low, high = _core.trace_poisson_95(count)
            h = handlers.get(cause)
            rows.append(
                (
                    cpu["cpu"],
                    cause,
                    causes[cause].call_class,
                    count,
                    *((n / hours if hours > 0 else np.nan) for n in (count, low, high)),
                    *((h["p50_us"], h["p95_us"], h["max_us"], h["total_ms"]) if h else (np.nan,) * 4),
                )
            )
    names = (
        *("cpu", "cause", "class", "interrupts", "per_hour", "per_hour_low", "per_hour_high"),
        *("p50_us", "p95_us", "max_us", "total_ms"),
    )
    kinds: tuple[Any, ...] = (np.int64, np.str_, np.str_, np.int64, *(np.float64,) * 7)
    who = [
        (cpu["cpu"], i["comm"], i["in_interrupt"], i["cause"], i["calls"])
        for cpu in report["isolated"]
        for i in cpu["initiators"]
    ]
    return Explanation(
        trace=trace,
        table=_table(names, kinds, rows),
        initiators=_table(
            ("cpu", "comm", "in_interrupt", "cause", "calls"),
            (np.int64, np.str_, np.bool_, np.str_, np.int64),
            who,
        ),
        missing=tuple(MappingProxyType(m) for m in report["cannot_say"]),
    )


def _table(
    names: tuple[str, ...], kinds: tuple[Any, ...], rows: list[tuple[Any, ...]]
) -> Mapping[str, np.ndarray[Any, Any]]:
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for i, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        columns[name] = np.array([row[i] for row in rows], dtype=kind)
        columns[name].flags.writeable = False
    return MappingProxyType(columns)
