"""What would be left of the shootdowns of a process, as intervals: of calls, of interrupts, of the time they take.

Everything but the first row is predicted from the counts of `shootdowns`. A figure of time is what was measured, scaled
as the calls are; what a remedy itself takes is added where its cost is known as an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tlbcore._output.table import Table
from tlbcore.hardware import Machine
from tlbcore.hardware import machine as by_name

__all__ = ["remedies"]

# Linux gives a process a global ASID once it is seen on four CPUs, the flushing one included (mm_active_cpus_exceeds).
GLOBAL_ASID_CPUS = 4
# Up to this many pages go one by one by default (tlb_single_page_flush_ceiling).
CEILING = 33
_HIGHER_CEILING = 512
# Whose pages may be unmapped lazily: unmaps, not changes of rights.
_UNMAPS = ("munmap", "madvise", "process_madvise", "reclaim", "page migration", "compaction")
# These interrupt every CPU for page tables on any kernel.
_SYNC_STAYS = ("THP collapse",)

Ends = tuple[float, float]


class _Sites:
    """Call sites as columns, with what each took, in seconds."""

    def __init__(self, sites: Mapping[str, Any], timed: bool) -> None:
        self.call: list[str] = sites["call"].tolist()
        self.sync = sites["extent"] == "table_sync"
        self.full = sites["extent"] == "full"
        self.tables: list[str] = sites["tables"].tolist()
        self.flushes, self.shootdowns, self.calls = (
            sites[name].astype(float) for name in ("flushes", "shootdowns", "calls")
        )
        self.pages = sites["pages_min"], sites["pages_max"]
        self.wait, self.handler = (
            np.nan_to_num(sites[name]) / 1e3 if timed else np.full(len(self.call), np.nan)
            for name in ("wait_ms", "handler_ms")
        )

    def of(self, names: Sequence[str]) -> np.ndarray[Any, Any]:
        """Which rows are one of these calls, whatever its advice."""
        return np.array(
            [call.split("(")[0].split(" (")[0].strip() in names for call in self.call], dtype=bool
        )


def remedies(
    sites: Mapping[str, Any],
    *,
    batches: Sequence[Mapping[str, Any]],
    running: Ends,
    cpus: int,
    interrupts: int | None,
    cpu_seconds: float | None,
    machine: Machine | None = None,
) -> Table:
    """Predict what each remedy would leave.

    Parameters
    ----------
    sites
        `Shootdowns.call_sites`.
    batches
        Per call and size of a batch what was counted: `call`, `batch`, `calls`, `left`, `low`, `high`.
    running
        The share of the calls that found the process running there, at least and at most.
    cpus
        CPUs that send or are called.
    interrupts
        Interrupts that ran the calls; None: not recorded.
    cpu_seconds
        Time of all CPUs; None if what calls cost is not recorded.
    machine
        Whose INVLPG, INVLPGB and Remote Action Requests are taken; intervals of a Zen 4 and a Sapphire Rapids if left
        out, and no figure for another ceiling.

    Returns
    -------
    table
        `remedy`; `calls_low`, `calls_high` (remote calls left); `interrupts_low`, `interrupts_high` (-1: not recorded);
        `share_low`, `share_high` (of the time of all CPUs; NaN: not recorded, or not known); `note`.
    """
    s = _Sites(sites, cpu_seconds is not None)
    total = float(s.calls.sum())
    rows: list[tuple[str, Ends, Ends, str]] = []

    def add(
        name: str, low: Any, high: Any, note: str, *, time: tuple[Any, Any] | None = None, more: Ends = (0, 0)
    ) -> None:
        """Add a row: calls left by site; seconds by site, or as the calls; seconds beside."""
        if time is None:
            # Without a call nothing is waited for; where some are left the time is theirs.
            time = tuple((s.wait + s.handler) * _ratio(left, s.calls) for left in (low, high))
        assert time is not None
        ends = (float(np.sum(time[0])) + more[0], float(np.sum(time[1])) + more[1])
        rows.append((name, (float(np.sum(low)), float(np.sum(high))), ends, note))

    add("recorded", s.calls, s.calls, "measured")
    for size in dict.fromkeys(row["batch"] for row in batches):
        low, high = s.calls.copy(), s.calls.copy()
        for row in (row for row in batches if row["batch"] == size):
            mine = np.array([call == row["call"] for call in s.call], dtype=bool) & ~s.sync
            low[mine] -= s.calls[mine] * (1 - row["low"] / row["calls"])
            high[mine] -= s.calls[mine] * (1 - row["high"] / row["calls"])
        add(
            f"batch of {size}", low, high,
            "munmap, madvise, mprotect of one thread in a row share a flush; pages wait for it",
        )  # fmt: skip
    if cpus > 1:
        keep = max(cpus // 2, 1)
        add(
            f"pinned to {keep} of {cpus} CPUs",
            np.maximum(s.calls - s.shootdowns * (cpus - keep), 0),
            np.minimum(s.calls, s.shootdowns * (keep - 1)),
            "fewer CPUs in mm_cpumask; a process instead of a thread is called by nobody",
        )
    _ceiling(s, add, machine)
    others = ~s.sync
    enough = cpus >= GLOBAL_ASID_CPUS
    open_ = np.where(s.sync, s.calls, 0.0 if enough else s.calls)
    low = np.where(s.sync, s.calls, 0.0)
    add(
        "INVLPGB", low, open_,
        "AMD Zen 3 or later, kernel 6.15, no PTI; a process on four CPUs or more; its cost is unpublished",
        more=_broadcasts(s, others, machine or by_name("zen4-epyc")),
    )  # fmt: skip
    rar = _seconds(machine or by_name("sapphire-rapids"), "rar")
    sent = float(s.shootdowns[others].sum())
    add(
        "RAR", low, low, "Sapphire Rapids or later; in no kernel yet; its cost is unpublished",
        more=(sent * rar[0], sent * rar[1]),
    )  # fmt: skip
    tables = np.array([text == "yes" for text in s.tables], dtype=bool)
    unknown = np.array([text not in ("yes", "no") for text in s.tables], dtype=bool)
    stay = s.sync | tables
    add(
        "LATR", np.where(stay, s.calls, 0.0), np.where(stay | unknown, s.calls, 0.0),
        "swept at ticks, which is not counted; frees of page tables still interrupt",
    )  # fmt: skip
    lazily = s.of(_UNMAPS) & ~stay
    add(
        "LUF", np.where(lazily, 0.0, s.calls), s.calls,
        "only pages mapped read-only, which is not recorded, until they are used again",
    )  # fmt: skip
    per_call = s.handler * _ratio(s.shootdowns, s.calls)
    early = np.where(stay, s.wait, np.maximum(s.wait - per_call, 0)) + s.handler
    add(
        "early acknowledgement", s.calls, s.calls,
        "senders do not wait for the flush itself, but where page tables are freed",
        time=(early, s.wait + s.handler),
    )  # fmt: skip
    fewer = [np.where(s.sync, s.calls, s.calls * share) for share in running]
    add(
        "flush deferred to the context switch", fewer[0], fewer[1],
        "CPUs that run something else, or nothing, are not interrupted",
        time=((s.wait + s.handler) * _ratio(fewer[0], s.calls), s.wait + s.handler * _ratio(fewer[1], s.calls)),
    )  # fmt: skip
    stays = s.sync & ~s.of(_SYNC_STAYS)
    left = np.where(stays, 0.0, s.calls)
    add(
        "RCU-freed tables", left, left,
        "7.3 frees a page table without an interrupt, 6.12 not always (tlb_remove_table)",
    )  # fmt: skip

    def share(seconds: float) -> float:
        return seconds / cpu_seconds if cpu_seconds else math.nan

    each = None if interrupts is None or not total else interrupts / total
    return Table(
        {
            "remedy": np.array([row[0] for row in rows], dtype=np.str_),
            "calls_low": np.array([math.floor(row[1][0] + 1e-6) for row in rows], dtype=np.int64),
            "calls_high": np.array([math.ceil(row[1][1] - 1e-6) for row in rows], dtype=np.int64),
            "interrupts_low": np.array(
                [-1 if each is None else round(row[1][0] * each) for row in rows], dtype=np.int64
            ),
            "interrupts_high": np.array(
                [-1 if each is None else round(row[1][1] * each) for row in rows], dtype=np.int64
            ),
            "share_low": np.array([share(row[2][0]) for row in rows], dtype=np.float64),
            "share_high": np.array([share(row[2][1]) for row in rows], dtype=np.float64),
            "note": np.array([row[3] for row in rows], dtype=np.str_),
        }
    )


def _ratio(part: Any, whole: Any) -> Any:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _seconds(machine: Machine, cost: str) -> Ends:
    second = machine.mhz * 1e6
    return machine.costs[cost].low / second, machine.costs[cost].high / second


def _broadcasts(s: _Sites, mine: np.ndarray[Any, Any], machine: Machine) -> Ends:
    """Return what broadcasts take: one per flush that asked another CPU; at most also those that asked none."""
    one, sync = _seconds(machine, "invlpgb"), _seconds(machine, "tlbsync")
    each = 1 + (machine.invlpgb_extra or 0)
    low, high = s.pages
    few = np.where((low > 0) & (low <= CEILING), -(-low // each), 1)
    many = np.where(
        (high > 0) & (high <= CEILING), -(-high // each), np.where(s.full, 1, -(-CEILING // each))
    )
    return (
        float((s.shootdowns * (few * one[0] + sync[0]))[mine].sum()),
        float((s.flushes * (many * one[1] + sync[1]))[mine].sum()),
    )


def _ceiling(s: _Sites, add: Callable[..., None], machine: Machine | None) -> None:
    """Add another ceiling: as many calls, whose handlers drop pages one by one and leave the rest."""
    low, high = s.pages
    mine = s.full & (low > CEILING) & (high <= _HIGHER_CEILING) & (s.calls > 0)
    if not mine.any():
        return
    more: Ends = (math.nan, math.nan)
    note = "full flushes become ranged: longer handlers (--machine predicts them), fewer refills"
    if machine is not None:
        page, write = _seconds(machine, "invlpg"), _seconds(machine, "mov_cr3_flush")
        more = (
            float((s.calls * np.maximum(low * page[0] - write[1], 0))[mine].sum()),
            float((s.calls * np.maximum(high * page[1] - write[0], 0))[mine].sum()),
        )
        note = f"full flushes become ranged: longer handlers, predicted for {machine.name}; fewer refills"
    add(f"flush ceiling of {_HIGHER_CEILING} pages", s.calls, s.calls, note, more=more)
