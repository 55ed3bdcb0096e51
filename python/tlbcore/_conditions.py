"""`--fail-if`: conditions on the figures of an explanation, for use in CI."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tlbcore._core import TraceError
from tlbcore._names import unknown
from tlbcore.trace import Trace, causes

_CONDITION = re.compile(r"\s*([a-z_.]+)\s*(>=|<=|==|>|<)\s*([0-9.eE+]+)\s*")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}
FIGURES = ("per_hour", "interrupts", "calls", "entries", "longest_us", "lost_events")


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
        stem = figure.removesuffix(".per_hour")
        if stem not in (known := {*FIGURES, *causes}):
            raise TraceError(f"condition {text!r}: {unknown('figure', stem, known)}")
        try:
            return cls(figure=figure, sign=sign, limit=float(limit))
        except ValueError:
            raise TraceError(f"condition {text!r}: {limit!r} is no number") from None

    def met(self, trace: Trace) -> list[str]:
        """Return one line per isolated CPU on which the condition holds."""
        out = []
        for cpu in trace.figures["report"]["isolated"]:
            value = self._value(cpu, trace)
            if _OPERATORS[self.sign](value, self.limit):
                text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
                out.append(f"CPU {cpu['cpu']}: {self.figure} = {text} {self.sign} {self.limit:g}")
        return out

    def _value(self, cpu: Mapping[str, Any], trace: Trace) -> float:
        stem = self.figure.removesuffix(".per_hour")
        if stem in causes:
            count = float(cpu["interrupts_by_cause"].get(stem, 0))
            rate = self.figure != stem and trace.seconds > 0
            return count * 3600 / trace.seconds if rate else count
        if stem == "per_hour":
            return float(cpu["interrupts_per_hour"])
        if stem == "calls":
            return float(sum(cpu["calls_by_function"].values()))
        if stem == "longest_us":
            return max((float(h["max_us"]) for h in cpu["handlers"]), default=0.0)
        if stem == "lost_events":
            return float(sum(hole["events"] or 0 for hole in trace.figures["holes"]))
        return float(cpu[stem])
