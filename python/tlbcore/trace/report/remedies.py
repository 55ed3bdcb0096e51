"""What helps against a cause on the kernel of a recording, and what would follow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tlbcore.trace.recording import Cause, Trace
from tlbcore.trace.report.words import n, percent

_ENOUGH_S = 1.0
# Architectures on which no policy and no instruction named here exists.
NOT_X86 = ("aarch64", "riscv64")
# What goes with a cause: a deadline server kicks the CPU, and the kick keeps one tick for the scheduler.
_FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "dl_server": ("nohz_kick", "tick_kept"),
    "nohz_kick": ("tick_kept",),
    "other_task": ("tick_kept", "nohz_kick"),
    "clocksource_watchdog": ("ksoftirqd", "softirq"),
    "set_memory": ("vm_unmap_aliases",),
    "exec_memory_protect": ("vm_unmap_aliases",),
}


def kernel_of(trace: Trace) -> tuple[int, int] | None:
    """Return major and minor version of the recorded kernel, if the recording tells it."""
    for key, value in trace.figures["notes"]:
        if key == "version" and (found := re.search(r"\b(\d+)\.(\d+)", value)):
            return int(found[1]), int(found[2])
    return None


def applies(kernels: str, kernel: tuple[int, int]) -> bool:
    """Tell whether a range of the catalogue has this kernel.

    >>> [applies("6.8-7.2", v) for v in ((6, 1), (6, 12), (7, 3))], applies("7.3-", (7, 3)), applies("any", (4, 18))
    ([False, True, False], True, True)
    """
    if kernels == "any":
        return True
    low, _, high = kernels.partition("-")

    def version(text: str) -> tuple[int, int]:
        major, minor, *_ = text.split(".")
        return int(major), int(minor)

    return version(low) <= kernel and (not high or kernel <= version(high))


def helps(entry: Cause, trace: Trace) -> list[str]:
    """Return the sentences of advice that hold for the kernel and the machine of a recording."""
    kernel = kernel_of(trace)
    architecture = trace.figures["report"]["architecture"]
    lines = [f"Helps: {entry.helps}."]
    command_line = [value for key, value in trace.figures["notes"] if key == "cmdline"]
    if entry.id in ("timer", "scheduler_tick") and command_line and "nohz_full" not in command_line[0]:
        lines.append("This machine runs without nohz_full=: its tick runs while a task does.")
    for kernels, text in entry.remedies:
        if kernels == "x86":
            if architecture not in NOT_X86:
                lines.append(f"Helps: {text}.")
        elif kernel is None:
            lines.append(f"On {kernels}: {text}.")
        elif applies(kernels, kernel):
            lines.append(f"On this kernel ({kernel[0]}.{kernel[1]}): {text}.")
    return lines


def effect(cause: str, cpus: Sequence[Mapping[str, Any]]) -> str:
    """Say what would be left without a cause, and without what follows from it; empty if there is no rate."""
    seconds = sum(cpu["seconds"] for cpu in cpus)
    if seconds < _ENOUGH_S * len(cpus):
        return ""

    def sums(which: Sequence[str]) -> tuple[int, float]:
        rows = [row for cpu in cpus for row in cpu["interference"] if row["cause"] in which]
        return sum(row["n"] for row in rows), sum(row["total_ms"] or 0.0 for row in rows)

    every = sorted({row["cause"] for cpu in cpus for row in cpu["interference"]})
    follow = [c for c in _FOLLOWS.get(cause, ()) if c in every]
    total, total_ms = sums(every)
    alone, alone_ms = sums([cause])
    chain, chain_ms = sums([cause, *follow])

    def rate(count: int) -> str:
        return n(round(count * 3600 / seconds))

    def share(ms: float) -> str:
        return percent(max(ms, 0.0) / 1e3 / seconds)

    text = f"Effect: without it {rate(total - alone)} interruptions per hour and CPU instead of {rate(total)}"
    if total_ms:
        left, now = share(total_ms - alone_ms), share(total_ms)
        text += f", {left} of the time " + ("as before" if left == now else f"instead of {now}")
    unknown = {
        kind for cpu in cpus for kind, known in cpu["knowledge"].items() if known["state"] == "not_recorded"
    }
    if unknown & {"calls", "timers", "tasks", "softirqs"}:
        text += ", of what was recorded"
    if follow:
        text += f"; down to {rate(total - chain)}"
        text += f" and {share(total_ms - chain_ms)}" if total_ms else ""
        text += f" if all of {' and '.join(follow)} goes with it"
    return text + "."
