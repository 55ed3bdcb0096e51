"""Sections of the report of `tlbcore explain` behind its tables: what was sent, when, latencies, calls, purges."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tlbcore._output import width
from tlbcore.trace.recording import Trace, causes
from tlbcore.trace.report.words import columns, duration, n, paragraph, shares, times

Cpus = Sequence[Mapping[str, Any]]

_BESIDE = 36  # columns beside the bars of a time line: its CPU, and what a bar is


def sent(cpus: Cpus) -> list[str]:
    """Tell what was sent to CPUs whose interrupts are not recorded."""
    lines = []
    for cpu in cpus:
        if cpu["interrupts"] is None and cpu["sent"]:
            rows = [
                f"{n(i['calls'])} {causes[i['cause']].title} ("
                + ("a timer or interrupt there" if i["in_interrupt"] else i["comm"])
                + ")"
                for i in cpu["sent"][:6]
            ]
            lines += paragraph(
                f"Sent to CPU {cpu['cpu']}: {'; '.join(rows)}. Whether and when they arrived is not recorded.",
                indent="    ",
            )
    return lines


def latencies(cpus: Cpus) -> list[str]:
    """Tell how late timerlat's interrupt and thread were."""
    rows = [["CPU", "latency of", "n", "p50", "mean", "max"]]

    def told(us: float | None) -> str:
        return "-" if us is None else duration(us)

    for cpu in cpus:
        rows += [
            [
                str(cpu["cpu"]),
                x["context"],
                "-" if x["n"] is None else n(x["n"]),
                *(told(x[key]) for key in ("p50_us", "mean_us", "max_us")),
            ]
            for x in cpu["latencies"]
        ]
    if len(rows) == 1:
        return []
    return ["", "How late timerlat's interrupt and thread were (measured)", *columns(rows, "><>>>>")]


def senders(trace: Trace) -> list[str]:
    """Who sends to whom, and how long senders waited for the isolated CPUs."""
    import numpy as np

    calls = trace.calls
    if not len(calls["cpu"]):
        return []
    not_kept = trace.figures["report"]["calls_not_kept"]
    of_first = (
        f", of the first {n(len(calls['cpu']))} calls: {n(not_kept)} more are counted above"
        if not_kept
        else ""
    )
    lines = ["", f"Calls by sending and isolated CPU (measured{of_first})"]
    senders = sorted(set(calls["sender_cpu"].tolist()))
    targets = sorted(set(calls["cpu"].tolist()))
    if len(targets) <= 12:
        rows = [["from", *(f"to {cpu}" for cpu in targets), "in all"]]
        for sender in senders:
            mine = calls["cpu"][calls["sender_cpu"] == sender]
            counts = [int((mine == cpu).sum()) for cpu in targets]
            name = f"CPU {sender}" if sender >= 0 else "unknown"
            rows.append([name, *map(n, counts), n(sum(counts))])
        lines += columns(rows, "<" + ">" * len(targets) + "<")
    waits = (calls["ran_s"] - calls["queued_s"]) * 1e6
    if np.isfinite(waits).any():
        lines.append("  What senders waited for, from queueing to running:")
    for function in sorted(set(calls["function"].tolist())):
        took = waits[(calls["function"] == function) & np.isfinite(waits)]
        if len(took):
            p50, p95 = np.percentile(took, [50, 95])
            spread = " / ".join(duration(float(us)) for us in (p50, p95, took.max()))
            text = f"{function}: p50 / p95 / max {spread} over {times(len(took), 'call')}"
            lines += paragraph(text, indent="      ", first="    ")
    return lines


def when(cpus: Cpus) -> list[str]:
    """Draw interrupts over time."""
    busy = [cpu for cpu in cpus if any(cpu["timeline"]["counts"])][:16]  # of sums there is no when
    if not busy:
        return []
    lines = ["", "When (interrupts over the recording, each CPU on its own scale)"]
    for cpu in busy:
        t, bursts = cpu["timeline"], cpu["bursts"]
        counts, step_s = t["counts"], t["step_s"]
        while len(counts) > width.columns() - _BESIDE:
            counts = [sum(counts[i : i + 2]) for i in range(0, len(counts), 2)]
            step_s *= 2
        while counts and not counts[-1]:
            counts = counts[:-1]
        top = max(counts)
        bars = "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * c / top)] for c in counts)
        lines.append(f"  CPU {cpu['cpu']}  |{bars}| {duration(step_s * 1e6)} each, at most {n(top)}")
        if bursts["n"]:
            lines += paragraph(
                f"{times(bursts['n'], 'burst')} (three or more within 10 ms of each other); the largest has "
                f"{n(bursts['largest'])} interrupts, at {bursts['largest_at_s']:.3f}.",
                indent="    ",
            )
    return lines


def noise(cpus: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell what osnoise and soft interrupts took, by name."""
    rows = [["CPU", "kind", "n", "p50/p95/max", "in all", "what"]]
    for cpu in cpus:
        for x in cpu["noise"][:6]:
            spread = "/".join(duration(x[key]) for key in ("p50_us", "p95_us", "max_us"))
            rows.append(
                [str(cpu["cpu"]), x["kind"], n(x["n"]), spread, duration(x["total_ms"] * 1e3), x["name"]]
            )
    if len(rows) == 1:
        return []
    return ["", "Soft interrupts, threads and osnoise events (measured)", *columns(rows, "><>>><")]


def calls(cpus: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell which remote calls ran there."""
    functions: Counter[str] = Counter()
    implied: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    for cpu in cpus:
        functions.update(cpu["calls_by_function"])
        implied.update(cpu["implied_calls_by_function"])
        classes.update(cpu["calls_by_class"])
    if not functions and not implied:
        return []
    shown = [f"{name} {n(count)}" for name, count in functions.most_common()]
    shown += [f"{name} {n(count)} (implied)" for name, count in implied.most_common()]
    by_class = ", ".join(f"{name} {n(count)}" for name, count in classes.most_common())
    return paragraph(
        f"Remote calls executed there: {', '.join(shown)}. By class: {by_class}. "
        "One interrupt may run several."
    )


def flushes(report: Mapping[str, Any]) -> list[str]:
    """Count flushes of kernel ranges, whoever was interrupted."""
    calls, everything = report["flush_tlb_kernel_range"], report["flush_tlb_all"]
    if not calls["calls"] and not everything:
        return []
    text = (
        f"Kernel-range flushes in all: {n(calls['calls'])} flush_tlb_kernel_range ({n(calls['full'])} full, "
        f"{n(calls['ranged'])} of at most 33 pages) and {n(everything)} flush_tlb_all; "
        f"{n(report['forks'])} {'fork' if report['forks'] == 1 else 'forks'}."
    )
    return ["", *paragraph(text, indent="")]


def purges(report: Mapping[str, Any]) -> list[str]:
    """Tell what purges of the lazy list handed back, and whose it was."""
    p = report["purges"]
    if not p["events"]:
        return []
    lines = [""]
    if not p["effective"] + p["empty"]:
        entered = "purge was entered" if p["events"] == 1 else "purges were entered"
        text = f"{n(p['events'])} lazy vmalloc {entered}; no event says what was found."
        return lines + paragraph(text, indent="")
    total = p["unknown_areas"] + sum(o["areas"] for o in p["charged"])
    text = f"{times(p['effective'], 'lazy vmalloc purge')} flushed, {n(p['empty'])} found nothing."
    lines += paragraph(text, indent="")
    if total:
        owners = []
        for owner in p["charged"][:4]:
            stacks = owner["stacks"] / owner["areas"]
            kind = "all kernel stacks" if stacks == 1 else f"{stacks:.0%} kernel stacks"
            owners.append(f"{owner['comm']} {owner['areas'] / total:.1%} ({n(owner['areas'])}, {kind})")
        if len(p["charged"]) > 4:
            owners.append(times(len(p["charged"]) - 4, "other"))
        if p["unknown_areas"]:
            unknown = p["unknown_areas"]
            owners.append(f"unknown {unknown / total:.1%} ({n(unknown)}, allocated before the recording)")
        text = (
            f"They handed back {times(total, 'area')}, charged to the tasks that allocated them: "
            f"{', '.join(owners)}. The kworker that runs a purge is not its cause."
        )
        lines += paragraph(text)
        if report["has_cgroups"]:
            groups = [(o["comm"], o["areas"]) for o in p["cgroups"]]
            groups.append(("not told", total - sum(areas for _, areas in groups)))
            lines += paragraph(f"By control group: {shares(groups, total, 6)}.")
        limit = report["nr_lazy_max"]
        if limit:
            lines += paragraph(
                f"The lazy list holds {n(limit)} pages before a purge (lazy_max_pages), "
                f"or {n(limit // 5)} kernel stacks of 16 KiB."
            )
    return lines
