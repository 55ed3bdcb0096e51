"""Tables of what a pass over a recording counted of user shootdowns: rows by thread and call site, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlbcore._output.table import Table

SIZES = ("1 page", "2 to 8 pages", "9 to 33 pages", "34 to 512 pages", "over 512 pages", "not recorded")
"""Classes of sizes. Beyond 33 pages (`tlb_single_page_flush_ceiling`) a flush drops the whole address space."""

Rows = Sequence[Mapping[str, Any]]


def _milliseconds(report: Mapping[str, Any]) -> float:
    """Milliseconds of a nanosecond; NaN if nothing tells which function ran for whom."""
    return 1e-6 if report["kinds"]["csd"] else np.nan


def call_sites_table(rows: Rows, report: Mapping[str, Any]) -> Table:
    """Return flushes by call, size, extent and call chain."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = (row["call"], row["size"], row["extent"], row["tables"], tuple(row["stack"]))
        found.setdefault(key, []).append(row)

    def total(group: Rows, name: str) -> int:
        return sum(row[name] for row in group)

    order = sorted(found, key=lambda k: (-total(found[k], "victims"), -total(found[k], "flushes"), str(k)))
    groups = [found[key] for key in order]
    pages = [[row["pages"] for row in group if row["pages"]] for group in groups]
    waits = [total(group, "waits") for group in groups]
    said = {True: "yes", False: "no", None: "not recorded"}
    return Table(
        {
            "call": np.array([key[0] for key in order], dtype=np.str_),
            "size": np.array([SIZES[key[1]] for key in order], dtype=np.str_),
            "pages_min": np.array([min((p[0] for p in ps), default=-1) for ps in pages], dtype=np.int64),
            "pages_max": np.array([max((p[1] for p in ps), default=-1) for ps in pages], dtype=np.int64),
            "extent": np.array([key[2] for key in order], dtype=np.str_),
            "tables": np.array([said[key[3]] for key in order], dtype=np.str_),
            "flushes": np.array([total(g, "flushes") for g in groups], dtype=np.int64),
            "shootdowns": np.array([total(g, "shootdowns") for g in groups], dtype=np.int64),
            "calls": np.array([total(g, "victims") for g in groups], dtype=np.int64),
            "wait_ms": np.array(
                [
                    total(g, "wait_ns") / 1e6 if w or not total(g, "shootdowns") else np.nan
                    for g, w in zip(groups, waits, strict=True)
                ]
            ),
            "wait_max_us": np.array(
                [
                    max(r["longest_ns"] for r in g) / 1e3 if w else np.nan
                    for g, w in zip(groups, waits, strict=True)
                ]
            ),
            "handler_ms": np.array(
                [total(g, "victim_ns") * _milliseconds(report) for g in groups], dtype=np.float64
            ),
            "stack": np.array([" <- ".join(key[4]) for key in order], dtype=np.str_),
        }
    )


def pairs_table(rows: Rows, report: Mapping[str, Any]) -> Table:
    """Return calls by the sender's CPU and the victim's."""
    sums: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        one = sums.setdefault((row["sender_cpu"], row["victim_cpu"]), [0, 0, 0])
        for i, name in enumerate(("calls", "interrupts", "ns")):
            one[i] += row[name]
    order = sorted(sums)
    return Table(
        {
            "sender_cpu": np.array([s for s, _ in order], dtype=np.int64),
            "victim_cpu": np.array([v for _, v in order], dtype=np.int64),
            "calls": np.array([sums[k][0] for k in order], dtype=np.int64),
            "interrupts": np.array(
                [sums[k][1] if report["kinds"]["csd"] else -1 for k in order], dtype=np.int64
            ),
            "handler_ms": np.array([sums[k][2] * _milliseconds(report) for k in order], dtype=np.float64),
        }
    )


def threads_table(rows: Rows, of: Mapping[int, Mapping[str, Any]]) -> Table:
    """Return flushes by the thread that asked."""
    sums: dict[int, dict[str, float]] = {}
    for row in rows:
        one = sums.setdefault(
            row["thread"], dict.fromkeys(("flushes", "shootdowns", "victims", "wait_ns", "waits"), 0)
        )
        for name in one:
            one[name] += row[name]
    order = sorted(sums, key=lambda t: (-sums[t]["victims"], -sums[t]["flushes"], of[t]["pid"], t))

    def process_id(t: int) -> int:
        tgid = of[t]["tgid"]
        return -1 if tgid is None else int(tgid)

    return Table(
        {
            "pid": np.array([of[t]["pid"] for t in order], dtype=np.int64),
            "process_id": np.array([process_id(t) for t in order], dtype=np.int64),
            "comm": np.array([of[t]["comm"] for t in order], dtype=np.str_),
            "flushes": np.array([sums[t]["flushes"] for t in order], dtype=np.int64),
            "shootdowns": np.array([sums[t]["shootdowns"] for t in order], dtype=np.int64),
            "calls": np.array([sums[t]["victims"] for t in order], dtype=np.int64),
            "wait_ms": np.array(
                [
                    sums[t]["wait_ns"] / 1e6 if sums[t]["waits"] or not sums[t]["shootdowns"] else np.nan
                    for t in order
                ]
            ),
        }
    )


def victims_table(rows: Rows, of: Mapping[int, Mapping[str, Any]]) -> Table:
    """Return calls by who ran where they arrived."""
    sums: dict[tuple[str, int, str], list[int]] = {}
    for row in rows:
        who = of.get(row["victim"]) if row["victim"] is not None else None
        key = (who["comm"], who["pid"], row["state"]) if who else ("<idle>", 0, row["state"])
        one = sums.setdefault(key, [0, 0, 0])
        for i, name in enumerate(("calls", "interrupts", "ns")):
            one[i] += row[name]
    order = sorted(sums, key=lambda k: (-sums[k][0], k))
    return Table(
        {
            "comm": np.array([k[0] for k in order], dtype=np.str_),
            "pid": np.array([k[1] for k in order], dtype=np.int64),
            "state": np.array([k[2] for k in order], dtype=np.str_),
            "calls": np.array([sums[k][0] for k in order], dtype=np.int64),
            "interrupts": np.array([sums[k][1] for k in order], dtype=np.int64),
            "handler_ms": np.array([sums[k][2] / 1e6 for k in order], dtype=np.float64),
        }
    )


def address_spaces_table(rows: Rows, of: Mapping[int, Mapping[str, Any]]) -> Table:
    """Return flushes by address space."""
    sums: dict[str, list[int]] = {}
    comms: dict[str, str] = {}
    for row in rows:
        one = sums.setdefault(row["mm"], [0, 0, 0])
        comms[row["mm"]] = of[row["thread"]]["comm"]
        for i, name in enumerate(("flushes", "full", "victims")):
            one[i] += row[name]
    order = sorted(sums, key=lambda mm: (-sums[mm][2], -sums[mm][0], mm))
    return Table(
        {
            "mm": np.array(order, dtype=np.str_),
            "comm": np.array([comms[mm] for mm in order], dtype=np.str_),
            **{
                name: np.array([sums[mm][i] for mm in order], dtype=np.int64)
                for i, name in enumerate(("flushes", "full", "calls"))
            },
        }
    )
