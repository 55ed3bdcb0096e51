"""`--fail-if`: conditions on the figures of an explanation, for use in CI."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tlbcore._core import TraceError
from tlbcore._input.names import unknown
from tlbcore.trace.recording import Trace, causes

_CONDITION = re.compile(r"\s*([a-z_.]+)\s*(>=|<=|==|>|<)\s*([-+0-9.eE]+)\s*")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}
FIGURES = (
    *("per_hour", "interrupts", "calls", "entries", "lost_events"),
    *("longest_us", "taken_ms", "taken_percent", "stolen_ms"),
)
_TIMES = ("longest_us", "taken_ms", "taken_percent")
_SUFFIXES = (".per_hour", ".ms", ".longest_us")
_INTERRUPTS = ("calls", "reschedules", "timers")
_OWN_KINDS: Mapping[str, str] = {"device": "devices", "irq_work": "irq_work"}
_WORDS: Mapping[str, str] = {
    "devices": "device interrupts",
    "irq_work": "interrupt work",
    "softirqs": "soft interrupts",
    "nmis": "NMIs",
}
_KIND_EVENTS: Mapping[str, str] = {
    "task": "tasks",
    "softirq": "softirqs",
    "nmi": "nmis",
    "firmware": "firmware",
}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A figure of each isolated CPU, compared with a number."""

    figure: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read `per_hour > 10`, `vmalloc_purge == 0` or `nohz_kick.per_hour >= 2`.

        Raises
        ------
        TraceError
            If it has another form, or names a figure that does not exist.
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise TraceError(f"condition {text!r}: expected a figure, one of > < >= <= ==, and a number")
        figure, sign, limit = match.groups()
        stem = _stem(figure)
        if stem not in (known := {*FIGURES, *causes}):
            raise TraceError(f"condition {text!r}: {unknown('figure', stem, known)}")
        if stem in FIGURES and stem != figure:
            raise TraceError(f"condition {text!r}: {figure[len(stem) :]} belongs to a cause, not to {stem}")
        try:
            return cls(figure=figure, sign=sign, limit=float(limit))
        except ValueError:
            raise TraceError(f"condition {text!r}: {limit!r} is no number") from None

    def met(self, trace: Trace) -> list[str]:
        """Return one line per isolated CPU on which the condition surely holds."""
        out = []
        for cpu in trace.figures["report"]["isolated"]:
            low, high = self._range(cpu, trace)
            if self._holds(low) and self._holds(high):
                out.append(f"CPU {cpu['cpu']}: {self.figure} = {_text(low)} {self.sign} {self.limit:g}")
        return out

    def open(self, trace: Trace) -> list[str]:
        """Return one line per isolated CPU on which the recording does not decide the condition."""
        out = []
        for cpu in trace.figures["report"]["isolated"]:
            low, high = self._range(cpu, trace)
            if self._may_hold(low, high) and not (self._holds(low) and self._holds(high)):
                known = "" if math.isinf(low) or not low else f" (at least {_text(low)})"
                out.append(
                    f"CPU {cpu['cpu']}: {self.figure} is not recorded{known}: {_why(cpu, self.figure, trace)}"
                )
        return out

    def _holds(self, value: float) -> bool:
        return _OPERATORS[self.sign](value, self.limit)

    def _may_hold(self, low: float, high: float) -> bool:
        """Tell whether it holds for some value between these two."""
        return low <= self.limit <= high if self.sign == "==" else self._holds(low) or self._holds(high)

    def _range(self, cpu: Mapping[str, Any], trace: Trace) -> tuple[float, float]:
        """Return the least and the most that the figure may be."""
        stem = _stem(self.figure)
        if stem == "stolen_ms":
            low, high = cpu["stolen_ms_range"] or (0.0, math.inf)
            return low, high
        low, sure = self._value(cpu, trace, stem)
        return low, low if sure else math.inf

    def _value(self, cpu: Mapping[str, Any], trace: Trace, stem: str) -> tuple[float, bool]:
        """Return what was recorded of the figure, and whether that is all of it."""
        seconds = cpu["seconds"]
        interrupts = _sure(cpu)
        if stem in causes:
            rows = [row for row in cpu["interference"] if row["cause"] == stem]
            sure = all(_recorded(cpu, kind) for kind in _asked(stem)) and not _hidden(cpu, stem)
            count = float(sum(row["n"] for row in rows))
            if self.figure.endswith(".per_hour"):
                return (count * 3600 / seconds, sure) if seconds >= 1 else (0.0, False)
            if self.figure.endswith(".ms"):
                lengths = [row["total_ms"] for row in rows]
                return sum(x or 0.0 for x in lengths), sure and None not in lengths
            if self.figure.endswith(".longest_us"):
                lengths = [row["max_us"] for row in rows]
                return max((x or 0.0 for x in lengths), default=0.0), sure and None not in lengths
            return count, sure
        if stem == "interrupts":
            return float(cpu["interrupts"] or 0), interrupts
        if stem == "per_hour":
            rate = cpu["interrupts_per_hour"]
            return (0.0, False) if rate is None else (float(rate), interrupts)
        if stem == "calls":
            report = trace.figures["report"]
            counted = float(sum(cpu["calls_by_function"].values()))
            on = bool(report["kinds"]["csd_entry"] or report["kinds"]["probes"])
            return counted, on and _whole(cpu, trace)
        if stem == "entries":
            on = bool(trace.figures["report"]["kinds"]["user"])
            return float(cpu["entries"]), on and _whole(cpu, trace)
        if stem == "lost_events":
            holes = trace.figures["holes"]
            lost = float(sum(hole["events"] or 0 for hole in holes if hole["kind"] != "cut"))
            known = all(hole["events"] is not None for hole in holes if hole["kind"] == "lost")
            return lost, known and len(holes) == trace.figures["hole_count"]
        if cpu["sums"]:  # osnoise measures all of it
            measured = {
                "longest_us": cpu["longest"]["us"],
                "taken_ms": cpu["taken_ms"],
                "taken_percent": 100.0 * cpu["taken_share"],
            }
            return float(measured[stem]), True
        everything = all(_recorded(cpu, kind) for kind in _asked(stem))
        lengths = [row["total_ms"] for row in cpu["interference"]]
        everything = everything and None not in lengths
        if stem == "longest_us":
            return float(cpu["longest"]["us"] if cpu["longest"] else 0.0), everything
        if stem == "taken_ms":
            return float(cpu["taken_ms"] or 0.0), everything
        share = cpu["taken_share"]
        return (100.0 * share if share is not None else 0.0), everything and share is not None


def _stem(figure: str) -> str:
    for suffix in _SUFFIXES:
        figure = figure.removesuffix(suffix)
    return figure


def _text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _recorded(cpu: Mapping[str, Any], kind: str) -> bool:
    known = cpu["knowledge"][kind]
    # A CPU without any event is taken for quiet where the other CPUs show that the event was on.
    return known["state"] == "recorded" or (known["state"] == "in_part" and not cpu["events"])


def _lost(cpu: Mapping[str, Any], trace: Trace) -> bool:
    """Tell whether events of the CPU may have been lost."""
    holes = trace.figures["holes"]
    return len(holes) < trace.figures["hole_count"] or any(
        hole["kind"] == "lost" and hole["cpu"] in (None, cpu["cpu"]) for hole in holes
    )


def _absent(cpu: Mapping[str, Any]) -> bool:
    """Tell whether the CPU shows nothing and something was sent to it: it was not traced."""
    return not cpu["events"] and cpu["knowledge"]["calls"]["state"] == "not_recorded"


def _whole(cpu: Mapping[str, Any], trace: Trace) -> bool:
    return not _lost(cpu, trace) and not _absent(cpu)


def _sure(cpu: Mapping[str, Any]) -> bool:
    return all(_recorded(cpu, kind) for kind in _INTERRUPTS)


def _asked(stem: str) -> tuple[str, ...]:
    """Return the kinds of events that a figure is made from."""
    if stem in _TIMES:
        return (*_INTERRUPTS, "tasks", "softirqs")
    if stem in _OWN_KINDS:
        return (*_INTERRUPTS, _OWN_KINDS[stem])
    kind = causes[stem].kind if stem in causes else "interrupt"
    return _INTERRUPTS if kind == "interrupt" else (_KIND_EVENTS[kind],)


_OWN_EVENTS = {"calls": "functions (csd_function_entry)", "entries": "user mode (user_enter, user_exit)"}
_NO_CALLS = (
    *("tick", "tick_kept", "timer", "scheduler_tick", "hrtimer", "device", "other_vector", "platform_ipi"),
    *("posted_interrupt", "timer_broadcast", "reschedule", "irq_work", "call_empty", "call_unknown"),
)
_COULD_BE: Mapping[str, Callable[[str], bool]] = {
    "kernel_flush_unknown": lambda c: (
        causes[c].call_class in ("purge", "vunmap", "alias", "table_free", "set_memory")
    ),
    "call_unknown": lambda c: causes[c].kind == "interrupt" and c not in _NO_CALLS,
    "reschedule": lambda c: c in ("dl_server", "sched_resched", "wakeup", "signal"),
    "timer": lambda c: c in ("tick", "tick_kept", "scheduler_tick", "hrtimer", "hrtick"),
    "scheduler_tick": lambda c: c in ("tick", "tick_kept"),
    "interrupt_unnamed": lambda c: causes[c].kind == "interrupt",
    "task_unnamed": lambda c: causes[c].kind == "task",
}


def _hidden(cpu: Mapping[str, Any], cause: str) -> bool:
    """Tell whether interrupts that count under a vaguer cause may be of this one."""
    return any(
        any(row["cause"] == vague and row["n"] for row in cpu["interference"])
        and could(cause)
        and vague != cause
        for vague, could in _COULD_BE.items()
    )


def _why(cpu: Mapping[str, Any], figure: str, trace: Trace) -> str:
    if figure == "lost_events":
        kept, count = len(trace.figures["holes"]), trace.figures["hole_count"]
        return (
            "how many events each hole has lost is not recorded"
            if kept == count
            else f"only the first {kept:,} of {count:,} holes are kept"
        )
    if figure in _OWN_EVENTS:
        on = trace.figures["report"]["kinds"]
        if on["user"] if figure == "entries" else on["csd_entry"] or on["probes"]:
            return "the CPU was not traced" if _absent(cpu) else "events were lost"
        return f"no events of {_OWN_EVENTS[figure]}"
    asked = _asked(_stem(figure))
    missing = [
        f"{_WORDS.get(kind, kind)} ({known['events']})"
        for kind, known in cpu["knowledge"].items()
        if kind in asked and known["state"] == "not_recorded"
    ]
    if figure == "stolen_ms":
        return (
            "/proc/stat counts in ticks"
            if cpu["stolen_ms"] is not None
            else "no copies of /proc/stat (tlbcore record)"
        )
    if figure in causes and _hidden(cpu, figure):
        return "some interrupts have a cause that is not recorded"
    if not missing and _lost(cpu, trace):
        return "events were lost"
    if not missing and cpu["seconds"] < 1:
        return "less than a second was recorded"
    return f"no events of {', '.join(missing)}" if missing else "not every length was recorded"
