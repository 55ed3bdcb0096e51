"""Who interrupted the isolated CPUs of a recording, how often, why, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from tlbcore import _core
from tlbcore._output.calls import kept
from tlbcore._output.result import Result, column
from tlbcore._output.table import Table
from tlbcore._output.visible import visible
from tlbcore.trace.recording import Trace, causes

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Explanation(Result):
    """Interrupts of isolated CPUs by cause, with rates, durations, initiators and what would help.

    Attributes
    ----------
    trace
        What is explained.
    table
        One row per isolated CPU and cause of interference, most frequent first: `cpu`, `cause`, `kind`
        (`interrupt`, `softirq`, `task`, `nmi`, `firmware`), `class`, `n` (how often), `interrupts` (the same, 0
        for other kinds), `per_hour` with the 95 % interval of a Poisson process in `per_hour_low` and
        `per_hour_high` (NaN: less than a second was recorded), lengths `p50_us`, `p95_us`, `max_us` (NaN: not
        recorded), `total_ms` (time taken from the CPU's task). All measured.
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

    _index = ("cpu", "cause")

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        keys = list(dict.fromkeys(key for row in self.missing for key in row))
        missing = {key: column([row.get(key) for row in self.missing]) for key in keys}
        return {"table": self.table, "initiators": self.initiators, "missing": missing}

    def _about(self) -> dict[str, Any]:
        return self.trace._about()

    def _read(self) -> tuple[str, ...]:
        return self.trace._read()

    def __repr__(self) -> str:
        return f"<Explanation of {self.trace!r}>"

    def __str__(self) -> str:
        from tlbcore.trace.report.explained import explain_text

        return visible(explain_text(self.trace, self.missing))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document without its `schema` and `version`."""
        from tlbcore.trace.report.words import header_json

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
        from tlbcore.trace.report.explained import interference

        sums = interference(report["isolated"])
        by_count = sorted(sums, key=lambda cause: (-sums[cause]["n"], cause))
        rankings = {"by_time": list(sums), "by_count": by_count}
        return {**header_json(self.trace), **{key: report[key] for key in keys}, "rankings": rankings}


@kept
def explain(trace: Trace) -> Explanation:
    """Explain a recording: who interrupted the isolated CPUs, why, and what would help.

    `print` the result for a report; `.table` has the figures.

    Parameters
    ----------
    trace
        From `read_trace`.
    """
    report = trace.figures["report"]
    rows: list[tuple[Any, ...]] = []
    for cpu in report["isolated"]:
        hours = cpu["seconds"] / 3600 if cpu["seconds"] >= 1 else 0.0
        for row in sorted(cpu["interference"], key=lambda row: (-row["n"], row["cause"])):
            low, high = _core.trace_poisson_95(row["n"])
            lengths = (row[key] for key in ("p50_us", "p95_us", "max_us", "total_ms"))
            rows.append(
                (
                    cpu["cpu"],
                    row["cause"],
                    row["kind"],
                    causes[row["cause"]].call_class,
                    row["n"],
                    row["n"] if row["kind"] == "interrupt" else 0,
                    *((n / hours if hours > 0 else np.nan) for n in (row["n"], low, high)),
                    *(np.nan if length is None else length for length in lengths),
                )
            )
    names = (
        *("cpu", "cause", "kind", "class", "n", "interrupts", "per_hour", "per_hour_low", "per_hour_high"),
        *("p50_us", "p95_us", "max_us", "total_ms"),
    )
    kinds: tuple[Any, ...] = (np.int64, np.str_, np.str_, np.str_, np.int64, np.int64, *(np.float64,) * 7)
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
    return Table(columns)
