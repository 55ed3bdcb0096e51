"""Snapshots of /proc/interrupts: what the kernel itself counted, to hold against a recording."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tlbcore._core import TraceError
from tlbcore.trace.recording import Trace

__all__ = ["Snapshot", "coverage", "difference", "read_interrupts"]

# Row of /proc/interrupts -> vectors of a recording.
_ROWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "CAL": ("call_function", "call_function_single"),
        "RES": ("reschedule",),
        "LOC": ("local_timer",),
        "IWI": ("irq_work",),
    }
)
# Rows of x86 that another row has counted already (call interrupts that flush; PMU interrupts are NMIs), and rows
# that count no interrupts: polls and retries.
_WITHIN: Mapping[str, str] = MappingProxyType({"TLB": "CAL", "PMI": "NMI"})
_NO_INTERRUPT = frozenset({"MCP", "RTR"})


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One reading of /proc/interrupts.

    Attributes
    ----------
    path
        Where it came from.
    counts
        Interrupts by row name (`CAL`, `RES`, `LOC`, a device's number) and CPU.
    names
        What the kernel prints behind the counts.
    """

    path: str
    counts: Mapping[str, Mapping[int, int]]
    names: Mapping[str, str]


_COUNT = re.compile("[0-9]{1,20}")


def read_interrupts(path: str | Path) -> Snapshot:
    """Read a copy of /proc/interrupts.

    Raises
    ------
    OSError
        If the file cannot be opened.
    TraceError
        If it does not begin with a line of CPU names, or a row has no numbers.
    """
    return _parse(str(path), Path(path).read_text(errors="replace").splitlines())


def _parse(path: str, lines: list[str]) -> Snapshot:
    cpus = (
        [int(word[3:]) for word in lines[0].split() if re.fullmatch("CPU[0-9]{1,5}", word)] if lines else []
    )
    if not cpus:
        raise TraceError(f"{path}:1: is no copy of /proc/interrupts: the first line has no CPU names")
    counts: dict[str, Mapping[int, int]] = {}
    names: dict[str, str] = {}
    for number, line in enumerate(lines[1:], 2):
        name, colon, rest = line.partition(":")
        if not colon:
            raise TraceError(f"{path}:{number}: expected `name:` and counts: {line[:60]!r}")
        words = rest.split()
        values = words[: len(cpus)]
        if not all(map(_COUNT.fullmatch, values)):
            values = [word for word in values if _COUNT.fullmatch(word)]  # ERR and MIS have one count
        if len(values) == len(cpus):
            counts[name.strip()] = dict(zip(cpus, map(int, values), strict=True))
            names[name.strip()] = " ".join(words[len(cpus) :])
    return Snapshot(path=path, counts=counts, names=names)


def noted(trace: Trace) -> tuple[Snapshot, Snapshot] | None:
    """Return the two snapshots that `tlbcore record` put into a recording, if it did."""
    found = []
    for when in ("before", "after"):
        lines = [value for key, value in trace.figures["notes"] if key == f"interrupts_{when}"]
        if not lines:
            return None
        found.append(_parse(f"{trace.path} ({when})", lines))
    return found[0], found[1]


def difference(before: Snapshot, after: Snapshot) -> Mapping[str, Mapping[int, int]]:
    """Return the interrupts between two snapshots, by row and CPU; rows without any are left out.

    Raises
    ------
    TraceError
        If a count goes down: the files are swapped, or from two boots.
    """
    out: dict[str, Mapping[int, int]] = {}
    for row, counts in after.counts.items():
        earlier = before.counts.get(row, {})
        delta = {cpu: n - earlier.get(cpu, 0) for cpu, n in counts.items()}
        if min(delta.values()) < 0:
            raise TraceError(
                f"{after.path}: {row} counts less than in {before.path}: swapped, or from different boots"
            )
        if any(delta.values()):
            out[row] = delta
    return out


def interrupts(delta: Mapping[str, Mapping[int, int]], cpu: int) -> int:
    """Return how often a CPU was interrupted: each interrupt once, whatever rows it stands in.

    On x86 the row CAL counts every call interrupt, those of row TLB among them, and NMI those of row PMI.
    """
    return sum(counts.get(cpu, 0) for row, counts in delta.items() if not _aside(row, delta))


def _aside(row: str, delta: Mapping[str, Mapping[int, int]]) -> str:
    """Why a row does not add to the interrupts; empty if it does."""
    if row in _NO_INTERRUPT:
        return " (no interrupts)"
    within = _WITHIN.get(row)
    return f" (within {within})" if within in delta else ""


def coverage(trace: Trace, before: Snapshot, after: Snapshot) -> list[dict[str, object]]:
    """Hold a recording against what the kernel counted meanwhile.

    Returns
    -------
    list of dict
        Per isolated CPU and kind of interrupt: `cpu`, `row`, `counted` by the kernel, `traced`, and `missing`
        (the snapshots may lie a little outside the recording, so a few are normal).
    """
    delta = difference(before, after)
    rows: list[dict[str, object]] = []
    for cpu in trace.figures["report"]["isolated"]:
        for row, vectors in _ROWS.items():
            counted = delta.get(row, {}).get(cpu["cpu"], 0)
            traced = sum(cpu["interrupts_by_vector"].get(vector, 0) for vector in vectors)
            if counted or traced:
                rows.append(
                    {
                        "cpu": cpu["cpu"],
                        "row": row,
                        "counted": counted,
                        "traced": traced,
                        "missing": max(counted - traced, 0),
                    }
                )
    return rows


def snapshot_text(before: Snapshot, after: Snapshot, isolated: Iterable[int]) -> str:
    """Write what a pair of snapshots alone can say: vectors, but no senders."""
    from tlbcore.trace.report.words import columns, n

    delta = difference(before, after)
    lines = [
        f"{before.path} to {after.path}",
        "  Counts of the kernel: vector known, sender unknown; record a trace for causes.",
    ]
    for cpu in isolated:
        mine = sorted(((d.get(cpu, 0), row) for row, d in delta.items()), reverse=True)
        lines.append(f"  CPU {cpu}: {n(interrupts(delta, cpu))} interrupts.")
        rows = [[n(count), row, f"{after.names[row]}{_aside(row, delta)}"] for count, row in mine if count]
        if rows:
            lines += columns(rows, "><<", indent="    ")
    return "\n".join(lines)
