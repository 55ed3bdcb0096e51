"""What the reports about recordings share, and the one of `tlbcore replay`: plain text of at most 100 columns, JSON."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlbcore._input.cpus import show_cpus
from tlbcore._output import width
from tlbcore._output.visible import visible
from tlbcore.trace.recording import Trace

if TYPE_CHECKING:
    import numpy as np

_LAST = 24  # columns that the last column of a table has at least, or it stands below


def header_json(trace: Trace) -> dict[str, Any]:
    """Return what every JSON document about a recording begins with."""
    f = trace.figures
    report = f["report"]
    return {
        "trace": {
            "path": trace.path,
            "seconds": trace.seconds,
            "events": trace.events,
            "lines": f["lines"],
            "bytes": f["bytes"],
            "window": report["window"],
            "machine_cpus": f["machine_cpus"],
            "architecture": report["architecture"],
            "recordings": report["recordings"],
            "one_cpu_each": report["one_cpu_each"],
            "overwritten": report["overwritten"],
            "cpus_seen": report["cpus_seen"],
            "isolated_cpus": list(trace.isolated),
            "isolated_from": trace.isolated_from,
            "unknown_events": f["unknown_events"],
            "broken_lines": f["broken_lines"],
            "broken_first": f["broken_first"],
            "timestamps_backwards": report["backwards"],
            "snapshots": report["snapshots"],
            "elapsed_s": report["elapsed_s"],
            "calls_not_kept": report["calls_not_kept"],
            "damage": trace.damage,
        },
        "holes": f["holes"],
        "hole_count": f["hole_count"],
    }


def n(value: float) -> str:
    """Format a number for people: thousands set apart, three digits below a hundred.

    >>> n(1234.5), n(12.34), n(0.5)
    ('1,234', '12.3', '0.5')
    """
    if math.isnan(value):
        return "-"
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def span(low: float, high: float) -> str:
    """Format an interval, or one figure if its ends are equal.

    >>> span(3, 3), span(0, 6)
    ('3', '0 to 6')
    """
    return n(low) if low == high else f"{n(low)} to {n(high)}"


def duration(us: float) -> str:
    """Format a duration with three digits and a unit.

    >>> duration(3.014), duration(51.24), duration(822084), duration(0.5), duration(0)
    ('3.01 us', '51.2 us', '822 ms', '500 ns', '0 s')
    """
    if not us:
        return "0 s"
    for unit, scale in (("ns", 1e-3), ("us", 1), ("ms", 1e3), ("s", 1e6)):
        value = float(f"{us / scale:.3g}")
        if value < 1000 or unit == "s":
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:g} {unit}"
    raise AssertionError


def seconds(low: float, high: float) -> str:
    """Format an interval of seconds.

    >>> seconds(2e-6, 3.01), seconds(0.5, 0.5)
    ('2 us to 3.01 s', '500 ms')
    """
    ends = [duration(end * 1e6) for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def percent(share: float) -> str:
    """Format a share of the time.

    >>> percent(0.0092), percent(0.5), percent(0.0000123), percent(1e-9), percent(0.0)
    ('0.92 %', '50 %', '0.0012 %', 'less than 0.0001 %', '0 %')
    """
    value = 100 * share
    if not value:
        return "0 %"
    if value < 0.0001:
        return "less than 0.0001 %"
    if value >= 10:
        return f"{value:.0f} %"
    decimals = max(1 - math.floor(math.log10(value)), 0)
    text = f"{value:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def listed(words: Sequence[str]) -> str:
    """Return words as in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def times(count: int, one: str, several: str | None = None) -> str:
    """Format a number of things.

    >>> times(1, "burst"), times(1234, "burst")
    ('1 burst', '1,234 bursts')
    """
    return f"{n(count)} {one if count == 1 else several or one + 's'}"


def between(low: float, high: float, one: str) -> str:
    """Format a number of things of which the least and the most is known.

    >>> between(1, 1, "call"), between(0, 1, "call")
    ('1 call', '0 to 1 calls')
    """
    return f"{span(low, high)} {one if low == high == 1 else one + 's'}"


def shares(counts: Iterable[tuple[str, float]], total: float, top: int = 3) -> str:
    """Name the largest parts of a whole with their shares, those below half a percent left out."""
    ordered = sorted(counts, key=lambda item: (-item[1], item[0]))
    return ", ".join(
        name if count == total else f"{name} {count / total:.0%}"
        for name, count in ordered[:top]
        if count > 0.005 * total
    )


def columns(rows: Sequence[Sequence[str]], align: str, indent: str = "  ", keys: int = 1) -> list[str]:
    """Lay rows out as text; `align` has `>` or `<` per column, the last column wraps under itself.

    Columns that do not fit side by side stand in groups below each other, each behind the first `keys` columns again.
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    room = width.columns()
    first = list(range(keys))
    before = len(indent) + sum(widths[:keys]) + 2 * (keys - 1)
    groups, used = [list(first)], before
    for at in range(keys, len(align)):
        # The last column may be broken at words, or stand below; the others may not.
        last = at == len(align) - 1
        needs = 2 + (min(widths[at], _LAST) if last else widths[at])
        if used + needs > room and len(groups[-1]) > keys and not (last and widths[at] > _LAST):
            groups.append(list(first))
            used = before
        groups[-1].append(at)
        used += needs
    out = []
    for group in groups:
        # Only the last column may be broken: behind the columns of another group stands an empty one.
        end = [] if group[-1] == len(align) - 1 else [""]
        chosen = [[row[at] for at in group] + end for row in rows]
        out += _laid([widths[at] for at in group], chosen, [align[at] for at in group], indent)
    return out


def _laid(
    widths: Sequence[int], rows: Sequence[Sequence[str]], align: Sequence[str], indent: str
) -> list[str]:
    most = width.columns()
    out = []
    for row in rows:
        head = "  ".join(
            cell.rjust(w) if a == ">" else cell.ljust(w)
            for cell, w, a in zip(row[:-1], widths, align, strict=False)
        )
        lead = f"{indent}{head}  "
        room = most - len(lead)
        if room < _LAST and len(row[-1]) > room:
            out.append(lead.rstrip())
            out += textwrap.wrap(
                row[-1], most, initial_indent=f"{indent}      ", subsequent_indent=f"{indent}      "
            )
            continue
        wrapped = textwrap.wrap(row[-1], max(room, 1)) or [""]  # no room is no harm to a cell without text
        out.append((lead + wrapped[0]).rstrip())
        out.extend(" " * len(lead) + more for more in wrapped[1:])
    return out


def paragraph(text: str, indent: str = "  ", first: str | None = None) -> list[str]:
    """Wrap a sentence or two."""
    return textwrap.wrap(
        visible(text),
        width.columns(),
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
    )


_PER_CPU = (
    " Each is of one CPU: per-CPU files of one recording are read as one where they are "
    "given apart, with --merge."
)


def opening(trace: Trace) -> list[str]:
    """Say what was read, which CPUs are isolated and how that is known, and what is missing."""
    f, report = trace.figures, trace.figures["report"]
    lines = [trace.path]
    where = (
        f" between markers {report['window'][0]!r} and {report['window'][1]!r}" if report["window"] else ""
    )
    machine = f"; machine of {times(f['machine_cpus'], 'CPU')}" if f["machine_cpus"] else ""
    known = {"x86_64": "; x86-64", "aarch64": "; arm64", "riscv64": "; RISC-V"}.get(
        report["architecture"], ""
    )
    lines += paragraph(
        f"{duration(trace.seconds * 1e6) if trace.seconds else 'No clock'} and {times(trace.events, 'event')}"
        f"{where}{machine}{known}."
    )
    if report["recordings"] > 1:
        lines += paragraph(
            f"The text holds {n(report['recordings'])} recordings one behind the other (time stamps begin anew, or a "
            "second header stands in it): their times are added, and nothing is carried from one to the next."
            + (_PER_CPU if report["one_cpu_each"] else "")
        )
    if report["overwritten"]:
        lines += paragraph(
            "Rings were overwritten: the window of each CPU begins with the first event that is left of it."
        )
    if report["snapshots"]:
        hold = "holds" if report["snapshots"] == 1 else "hold"
        lines += paragraph(
            f"A flight recorder's: {times(report['snapshots'], 'snapshot')} {hold} {n(trace.seconds)} s of "
            f"{n(report['elapsed_s'])} s. Rates are those of the seconds that were kept, which are the "
            "interrupted ones; for the whole time see the kernel's own counts below."
        )
    how = {
        "given": "as given",
        "recorded": "as the recorder noted",
        "context_tracking": "deduced: they have user_enter/user_exit events, which only nohz_full CPUs have",
        "only_cpu": "deduced: no other CPU was recorded",
        "none": "not known",
    }[trace.isolated_from]
    lines += paragraph(f"Isolated CPUs: {show_cpus(trace.isolated) or 'none'} ({how}).")
    if f["hole_count"]:
        kinds = Counter(hole["kind"] for hole in f["holes"])
        lost = sum(hole["events"] or 0 for hole in f["holes"])
        what = ", ".join(f"{kind} {count}x" for kind, count in sorted(kinds.items()))
        first = f["holes"][0]["line"]
        are = "is" if lost == 1 else "are"
        known = f"; {times(lost, 'event')} {are} known to be lost" if lost else ""
        # Of more than a thousand only the first are kept.
        has = "holes:" if len(f["holes"]) == f["hole_count"] else (
            f"{n(f['hole_count'])} holes. Of the first {n(len(f['holes']))}:"
        )  # fmt: skip
        lines += paragraph(
            f"The trace has {has} {what}, first at {trace.path}:{first}{known}. Counts are lower limits."
        )
    if f["broken_lines"]:
        are = "is" if f["broken_lines"] == 1 else "are"
        lines += paragraph(f"{times(f['broken_lines'], 'line')} could not be read and {are} not counted:")
        for broken in f["broken_first"][:3]:
            lines += paragraph(
                f"{trace.path}:{broken['line']}:{broken['column']}: {broken['why']}: {broken['text']!r}",
                indent="      ",
                first="    ",
            )
    if f["unknown_events"]:
        shown = ", ".join(f"{name} {n(count)}" for name, count in list(f["unknown_events"].items())[:8])
        more = len(f["unknown_events"]) - 8
        lines += paragraph(
            f"Events that say nothing about interference: {shown}{f' and {more} more' if more > 0 else ''}."
        )
    if report["backwards"]:
        lines += paragraph(
            f"Time stamps step back {'once' if report['backwards'] == 1 else n(report['backwards']) + ' times'}: "
            "the trace clock does not agree between CPUs."
        )
    return lines


def coverage_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write how much of what the kernel counted the recording has."""
    lines = ["Coverage against /proc/interrupts (measured; the snapshots may lie a little outside)"]
    table = [["CPU", "row", "kernel", "trace", "covered"]]
    for r in rows:
        covered = f"{min(r['traced'] / r['counted'], 1):.0%}" if r["counted"] else "-"
        table.append([str(r["cpu"]), r["row"], n(r["counted"]), n(r["traced"]), covered])
    return "\n".join(lines + columns(table, "><>><"))


def _baseline(cpus: Sequence[Mapping[str, Any]], trace: Trace) -> list[str]:
    if any(cpu["baseline"]["derived_ipis"] is None for cpu in cpus):
        return []
    recorded = sum(sum(cpu["baseline"]["recorded_ipis"].values()) for cpu in cpus)
    differences = sum(cpu["baseline"]["unexplained"] for cpu in cpus)
    if not differences:
        if not recorded:
            return []
        return paragraph(f"Call-queue order explains all {n(recorded)} call interrupts sent to them.")
    first = next(cpu["baseline"]["unexplained_first"][0] for cpu in cpus if cpu["baseline"]["unexplained"])
    return paragraph(
        f"Call-queue order explains {n(recorded)} call interrupts but for {n(differences)} unexplained, "
        f"first at {trace.path}:{first['line']} ({first['function']})."
    )


def _policies(outcomes: Sequence[Mapping[str, Any]], cpus: Sequence[Mapping[str, Any]]) -> list[str]:
    if not any(o["deferred"]["high"] for o in outcomes):
        return []  # said in short at the top
    rows = [["policy", "deferred", "calls left", "interrupts left", "longest pending", "needs"]]
    for o in outcomes:
        low = max(c["exposure_longest_s"]["low"] for c in o["cpus"])
        high = max(c["exposure_longest_s"]["high"] for c in o["cpus"])
        rows.append(
            [
                o["policy"],
                span(o["deferred"]["low"], o["deferred"]["high"]),
                span(o["remaining"]["low"], o["remaining"]["high"]),
                span(o["interrupts"]["low"], o["interrupts"]["high"]),
                seconds(low, high) if o["deferred"]["high"] else "-",
                o["needs"] or "nothing",
            ]
        )
    title = f"Under other policies (predicted; sums over {times(len(cpus), 'isolated CPU')})"
    return ["", title, *columns(rows, "<>>>><")]


def _of_versions(outcomes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which policies stand on the texts of another Linux than the usual one."""
    from tlbcore import _core

    lines = []
    for version in _core.policy_versions()[1:]:
        if named := [o["policy"] for o in outcomes if o.get("linux") == version]:
            lines += paragraph(f"With the texts of Linux {version}: {', '.join(named)}.")
    return lines


def _said_of(outcome: Mapping[str, Any]) -> list[str]:
    """Say about one policy what no table has: times of senders, calls not recorded, what is not modelled."""
    name, said = outcome["policy"], []
    if "inert" in outcome:
        said.append(f"{name} is inert: {outcome['inert']}; its figures are mainline's.")
    if (wait := outcome["wait_ms"]) is not None:
        ends = (float(f"{wait[end]:.3g}") for end in ("low", "high"))
        said.append(f"{name}: senders wait for isolated CPUs, and their code takes, {span(*ends)} ms.")
    if (more := outcome["more_calls"])["high"]:
        often = "once" if more["low"] == more["high"] == 1 else f"{span(more['low'], more['high'])} times"
        said.append(f"{name} calls isolated CPUs {often} where the recording has no call.")
    said += [f"{name}, not modelled: {note}." for note in outcome["not_modelled"]]
    return [line for text in said for line in paragraph(text, indent="    ", first="  ")]


def replay_text(
    trace: Trace, outcomes: Sequence[Mapping[str, Any]], table: Mapping[str, np.ndarray[Any, Any]]
) -> str:
    """Write the report of `tlbcore replay`."""
    cpus = trace.figures["report"]["isolated"]
    lines = opening(trace)
    if cpus:
        lines += _baseline(cpus, trace)
        equal = all(cpu["baseline"]["executions_equal"] for cpu in cpus)
        lines += paragraph(
            "The replayed baseline executes "
            + (
                "exactly the calls of the trace, per CPU and function."
                if equal
                else "other calls than the trace."
            )
        )
        lines += _policies(outcomes, cpus)
        lines += _of_versions(outcomes)
        lines += ["", "Per isolated CPU (predicted)"]
        priced = "entry_cost_ms_low" in table
        head = ["policy", "CPU", "deferred", "left", "entry flushes", "pending", "longest pending"]
        rows = [[*head, "entry cost ms"] if priced else head]
        for i, (o, c) in enumerate((one, cpu) for one in outcomes for cpu in one["cpus"]):
            cell = [span(c[k]["low"], c[k]["high"]) for k in ("deferred", "remaining", "entry_flushes")]
            cell += [seconds(c[k]["low"], c[k]["high"]) for k in ("exposure_s", "exposure_longest_s")]
            if priced:
                ends = (float(f"{table[f'entry_cost_ms_{end}'][i]:.3g}") for end in ("low", "high"))
                cell.append(span(*ends))
            rows.append([o["policy"], str(c["cpu"]), *cell])
        lines += columns(rows, "<>>>>><" if not priced else "<>>>>>><", keys=2)
        for outcome in outcomes:
            if outcome["deferred"]["high"]:
                left = ", ".join(
                    f"{k} {span(v['low'], v['high'])}" for k, v in outcome["remaining_by_class"].items()
                )
                gone = ", ".join(
                    f"{k} {span(v['low'], v['high'])}" for k, v in outcome["deferred_by_class"].items()
                )
                text = f"{outcome['policy']} ({outcome['title']}) defers {gone}; leaves {left or 'nothing'}."
                lines += paragraph(text, indent="    ", first="  ")
            lines += _said_of(outcome)
        if any(o["deferred"]["low"] != o["deferred"]["high"] for o in outcomes):
            lines += paragraph(
                "Intervals: the trace leaves open what the CPU was doing when the call was queued, "
                "or who asked for it."
            )
    return "\n".join(lines)
