"""`explain --short`: how much, by what, and what helps, in three lines for a status bar or a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlbcore._input.cpus import show_cpus
from tlbcore._output import width
from tlbcore._output.visible import one_line
from tlbcore.trace.recording import causes
from tlbcore.trace.report.explained import ENOUGH_S, at_least, interference, who
from tlbcore.trace.report.words import duration, n, percent, times

if TYPE_CHECKING:
    from tlbcore.trace.explanation import Explanation
    from tlbcore.trace.shootdown import Shootdowns


def short(e: Explanation) -> str:
    """Return three lines that fit (100 columns at most); a clause that does not fit is left out, never cut."""
    cpus = e.trace.figures["report"]["isolated"]
    if not cpus:
        first = _line([f"{times(e.trace.events, 'event')}", "which CPUs are isolated is not known"])
        return "\n".join([first, "by: not known", "next: name them with --isolated"])
    return "\n".join([_much(e, cpus), _why(e, cpus), _next(e, cpus)])


def _much(e: Explanation, cpus: Sequence[Any]) -> str:
    name = f"CPU{'s' if len(cpus) > 1 else ''} {show_cpus(c['cpu'] for c in cpus)}"
    seconds = sum(cpu["seconds"] for cpu in cpus)
    known = [cpu for cpu in cpus if cpu["interrupts"] is not None]
    said = [f"{name}, {duration(e.trace.seconds * 1e6)}"] if e.trace.seconds else [name]
    if known:
        count = sum(cpu["interrupts"] for cpu in known)
        rate = ""
        recorded = sum(cpu["seconds"] for cpu in known)
        if recorded >= ENOUGH_S * len(known):
            rate = f" ({n(round(count * 3600 / recorded))} per hour{' and CPU' if len(known) > 1 else ''})"
        said.append(f"{times(count, 'interrupt')}{rate}")
    else:
        said.append("interrupts not recorded")
    taken = [cpu["taken_ms"] for cpu in cpus if cpu["taken_ms"] is not None]
    least = at_least(cpus)
    if taken and not sum(taken) and any(cpu["interrupts_idle"] for cpu in known):
        said.append("while idle")
    elif taken and seconds and (sum(taken) or not least):
        said.append(f"{least}{percent(sum(taken) / 1e3 / seconds)} of the time taken")
    longest = max((cpu["longest"]["us"] for cpu in cpus if cpu["longest"]), default=0)
    if longest:
        said.append(f"longest {duration(longest)}")
    return _line(said)


def _why(e: Explanation, cpus: Sequence[Any]) -> str:
    report = e.trace.figures["report"]
    sums = interference(cpus)
    if not sums:
        return "by: nothing that was recorded"
    said: list[str] = []
    for cause, one in sums.items():
        text = f"{n(one['n'])}x {causes[cause].title}"
        length = f", {duration(one['ms'] * 1e3)}" if one["ms"] else ""
        by = who(cpus, cause, report) if not said else ""
        whole = f"{text} ({by}){length}" if by else f"{text}{length}"
        said.append(whole if len(whole) <= width.columns() - len("by: ") else f"{text}{length}")
    return _line(said, start="by: ", sep="; ")


def _next(e: Explanation, cpus: Sequence[Any]) -> str:
    sums = interference(cpus)
    if sums:
        said = [one.rstrip(".") for one in causes[next(iter(sums))].helps.split("; ")]
        return _line(said, start="next: ", sep="; ")
    if e.missing:
        return _line([f"{gap['question']}" for gap in e.missing], start="not recorded: ", sep="; ")
    return "next: nothing to do"


def short_of_shootdowns(s: Shootdowns) -> str:
    """Return three lines on the shootdowns of user ranges."""
    from tlbcore.trace.report.shootdowns import sentence

    flushes, sent, calls = (int(s.call_sites[name].sum()) for name in ("flushes", "shootdowns", "calls"))
    said = [
        f"{s.process or 'all processes'}, {duration(s.seconds * 1e6)}",
        times(flushes, "flush", "flushes"),
        f"{n(sent)} asked other CPUs",
        times(calls, "remote call"),
    ]
    gaps = [str(gap["question"]) for gap in s.missing]
    last = _line(gaps, start="not recorded: ", sep="; ") if gaps else "not recorded: nothing of this question"
    return "\n".join([_line(said), _line(sentence(s).rstrip(".").split(": "), sep=": "), last])


def _line(said: Sequence[str], *, start: str = "", sep: str = ", ") -> str:
    """Join clauses as long as they fit; the first stands in any case, if need be without its examples."""
    text = start + one_line(said[0])
    if len(text) > width.columns():
        text = re.sub(r" \([^()]*\)", "", text)
    while len(text) > width.columns() and sep == "; " and ", " in text:
        text = text.rpartition(", ")[0]
    for clause in said[1:]:
        more = f"{sep}{one_line(clause)}"
        if len(text) + len(more) <= width.columns():
            text += more
    return text
