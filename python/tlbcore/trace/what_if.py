"""What would have helped against the user shootdowns of a recording: interrupts left under each remedy, as intervals.

Counted are the remote calls to the CPUs that the recording was read for, and the interrupts that ran them. A call that
found another one waiting needed no interrupt of its own; the remedies are taken to leave that share as it was.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore._core import TraceError
from tlbcore._input.door import door
from tlbcore._input.numbers import count
from tlbcore._output.table import Table
from tlbcore.trace.remedies import GLOBAL_ASID_CPUS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlbcore.trace import Trace

__all__ = ["Flush", "user_flushes", "what_if"]

_SYNC = "tlb_remove_table_smp_sync"


@dataclass(frozen=True, kw_only=True)
class Flush:
    """One flush of a user range that called other CPUs.

    Attributes
    ----------
    at_s
        When its calls were queued, seconds of the recording.
    who
        Whose it is: flushes of the same process that follow each other can share one.
    cpus
        The CPUs it called.
    tables
        Whether page tables are freed; None if that is not recorded.
    """

    at_s: float
    who: str
    cpus: frozenset[int]
    tables: bool | None = None


@door
def user_flushes(trace: Trace) -> list[Flush]:
    """Return the flushes of user ranges in a recording, in order of time: calls that one sender queued together.

    Raises
    ------
    TraceError
        If the recording has no queued calls (`csd:csd_queue_cpu`), so that nobody can say which belong together.
    """
    calls = trace.calls
    mine = np.flatnonzero((calls["class"] == "user") & (calls["function"] != _SYNC))
    if len(mine) and not (calls["queued_line"][mine] > 0).any():
        raise TraceError(
            f"{trace.path}: which calls are of one flush is not recorded: record csd:csd_queue_cpu"
        )
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in mine[calls["queued_line"][mine] > 0]:
        groups[int(calls["queued_line"][i]), int(calls["sender_cpu"][i])].append(int(i))
    out = [
        Flush(
            at_s=float(calls["queued_s"][rows[0]]),
            who=str(calls["initiator"][rows[0]]),
            cpus=frozenset(int(calls["cpu"][i]) for i in rows),
        )
        for rows in groups.values()
    ]
    return sorted(out, key=lambda flush: (flush.at_s, flush.who))


def _batched(flushes: Sequence[Flush], batch: int, within_s: float) -> tuple[int, int, int]:
    """Return the flushes that are left, and the fewest and the most calls, if `batch` flushes in a row share one.

    The one that is left comes when the last of them came, and calls whoever runs the process then: at least the CPUs
    that the last one called, at most all that any of them did.
    """
    of: dict[str, list[Flush]] = defaultdict(list)
    for flush in flushes:
        of[flush.who].append(flush)
    left = low = high = 0
    for mine in of.values():
        groups: list[list[Flush]] = []
        for flush in mine:
            if not groups or len(groups[-1]) == batch or flush.at_s - groups[-1][0].at_s > within_s:
                groups.append([])
            groups[-1].append(flush)
        left += len(groups)
        low += sum(len(group[-1].cpus) for group in groups)
        high += sum(len(frozenset[int]().union(*(one.cpus for one in group))) for group in groups)
    return left, low, high


@door
def what_if(
    trace: Trace,
    *,
    batches: Sequence[int] = (8, 32),
    within_s: float = math.inf,
    flushes: Sequence[Flush] | None = None,
) -> Mapping[str, NDArray[Any]]:
    """Predict what remedies would leave of the remote calls and interrupts that user shootdowns caused.

    Parameters
    ----------
    trace
        From `read_trace`; its `isolated` CPUs are the victims that are counted.
    batches
        How many flushes in a row share one, each a row `batch of N` (`process_madvise`, an allocator's decay).
    within_s
        The longest that a flush may wait for others, in seconds.
    flushes
        Which flushes to look at; those of the whole recording (`user_flushes`) if left out.

    Returns
    -------
    table
        `remedy`; `flushes_low`, `flushes_high`; `calls_low`, `calls_high` (remote calls); `interrupts_low`,
        `interrupts_high`; `note`. The row `recorded` is measured, all others are predicted.

    Raises
    ------
    TraceError
        If the recording does not tell which calls are of one flush, or a batch is below 1.
    """
    flushes = user_flushes(trace) if flushes is None else list(flushes)
    calls = trace.calls
    user = calls["class"] == "user"
    ran = user & (calls["function"] != _SYNC)
    interrupts = len({*zip(calls["cpu"][ran].tolist(), calls["interrupt"][ran].tolist(), strict=True)})
    total = sum(len(flush.cpus) for flush in flushes)
    share = interrupts / int(ran.sum()) if ran.any() else 1.0
    rows: list[tuple[str, int, int, int, int, str]] = [
        ("recorded", len(flushes), len(flushes), total, total, "measured")
    ]
    for batch in batches:
        batch = count(batch, "batches", 1, 1 << 20, error=TraceError)
        left, low, high = _batched(flushes, batch, within_s)
        note = "pages that wait for their flush cannot be used again meanwhile"
        rows.append((f"batch of {batch}", left, left, low, high, note))
    few = [f for f in flushes if len(_cpus_of(flushes)[f.who]) + 1 < GLOBAL_ASID_CPUS]
    rows.append(
        (
            "INVLPGB",
            len(flushes),
            len(flushes),
            0 if not few else sum(len(f.cpus) for f in few),
            sum(len(f.cpus) for f in few),
            "AMD Zen 3, kernel 6.15, no PTI; a process that runs on fewer than four CPUs keeps its interrupts",
        )
    )
    rows.append(("RAR", len(flushes), len(flushes), 0, 0, "Sapphire Rapids and later; in no kernel yet"))
    tables = [f for f in flushes if f.tables]
    unknown = [f for f in flushes if f.tables is None]
    least = sum(len(f.cpus) for f in tables)
    rows.append(
        (
            "LATR",
            len(flushes),
            len(flushes),
            least,
            least + sum(len(f.cpus) for f in unknown),
            "swept at ticks; frees of page tables still interrupt"
            + (", and which these were is not recorded" if unknown else ""),
        )
    )
    return Table(
        {
            "remedy": [row[0] for row in rows],
            "flushes_low": [row[1] for row in rows],
            "flushes_high": [row[2] for row in rows],
            "calls_low": [row[3] for row in rows],
            "calls_high": [row[4] for row in rows],
            "interrupts_low": [round(row[3] * share) for row in rows],
            "interrupts_high": [round(row[4] * share) for row in rows],
            "note": [row[5] for row in rows],
        }
    )


def _cpus_of(flushes: Sequence[Flush]) -> dict[str, set[int]]:
    out: dict[str, set[int]] = defaultdict(set)
    for flush in flushes:
        out[flush.who] |= flush.cpus
    return out
