"""What a check yields, and the list of checks.

A check is a generator over the facts of one machine. One that lacks a file raises `MissingError`: what could
not be looked at is reported as such, not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tlbcore.inspect._facts import NO_CPU, Facts

DOC = "Documentation/admin-guide/cpu-isolation.rst"
PARAMETERS = "Documentation/admin-guide/kernel-parameters.txt"
ISOLATION = "kernel/sched/isolation.c"

# Worst first. error: the isolation that was asked for is not there; warning: interrupts will come; advice:
# they may, rarely or under some loads; note: worth knowing when reading results.
SEVERITIES = ("error", "warning", "advice", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    severity: str
    check: str
    found: str
    reason: str
    remedy: str
    source: str
    cpus: frozenset[int] = NO_CPU


Check = Callable[[Facts], Iterable[Finding]]
CHECKS: list[Check] = []
LINE_CHECKS: set[Check] = set()


def check(function: Check) -> Check:
    """Add a check to the list; its name is the function's."""
    CHECKS.append(function)
    return function


def line_check(function: Check) -> Check:
    """Add a check that the command line alone can answer."""
    LINE_CHECKS.add(function)
    return check(function)
