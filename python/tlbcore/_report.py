"""The reports of `tlbcore explain` and `tlbcore replay`: plain text of at most 100 columns, and JSON."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlbcore import _core
from tlbcore.trace import Trace, causes, format_cpus

if TYPE_CHECKING:
    from tlbcore._explain import Explanation
    from tlbcore._replay import Replay

_WIDTH = 100
_MANY = 2  # more isolated CPUs than this are shown together, with one line each


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
            "cpus_seen": report["cpus_seen"],
            "isolated_cpus": list(trace.isolated),
            "isolated_from": trace.isolated_from,
            "unknown_events": f["unknown_events"],
            "broken_lines": f["broken_lines"],
            "broken_first": f["broken_first"],
            "timestamps_backwards": report["backwards"],
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
    """Format a duration with two digits and a unit.

    >>> duration(3.01), duration(51.2), duration(822084)
    ('3us', '51us', '820ms')
    """
    for unit, scale in (("us", 1), ("ms", 1e3), ("s", 1e6)):
        if us < 1000 * scale or unit == "s":
            return f"{float(f'{us / scale:.2g}'):g}{unit}"
    raise AssertionError


def columns(rows: Sequence[Sequence[str]], align: str, indent: str = "  ") -> list[str]:
    """Lay rows out as text; `align` has `>` or `<` per column, the last column wraps under itself."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    out = []
    for row in rows:
        head = "  ".join(
            cell.rjust(w) if a == ">" else cell.ljust(w)
            for cell, w, a in zip(row[:-1], widths, align, strict=False)
        )
        lead = f"{indent}{head}  "
        room = _WIDTH - len(lead)
        if room < 24 and len(row[-1]) > room:
            out.append(lead.rstrip())
            out += textwrap.wrap(
                row[-1], _WIDTH, initial_indent=f"{indent}      ", subsequent_indent=f"{indent}      "
            )
            continue
        wrapped = textwrap.wrap(row[-1], room) or [""]
        out.append((lead + wrapped[0]).rstrip())
        out.extend(" " * len(lead) + more for more in wrapped[1:])
    return out


def paragraph(text: str, indent: str = "  ", first: str | None = None) -> list[str]:
    """Wrap a sentence or two."""
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent if first is None else first, subsequent_indent=indent
    )


def opening(trace: Trace) -> list[str]:
    """Say what was read, which CPUs are isolated and how that is known, and what is missing."""
    f, report = trace.figures, trace.figures["report"]
    lines = [trace.path]
    where = (
        f" between markers {report['window'][0]!r} and {report['window'][1]!r}" if report["window"] else ""
    )
    machine = f"; machine of {f['machine_cpus']} CPUs" if f["machine_cpus"] else ""
    lines += paragraph(f"{n(trace.seconds)} s and {n(trace.events)} events{where}{machine}.")
    how = {
        "given": "as given",
        "context_tracking": "deduced: they have user_enter/user_exit events, which only nohz_full CPUs have",
        "none": "not known",
    }[trace.isolated_from]
    lines += paragraph(f"Isolated CPUs: {format_cpus(trace.isolated) or 'none'} ({how}).")
    if f["hole_count"]:
        kinds = Counter(hole["kind"] for hole in f["holes"])
        lost = sum(hole["events"] or 0 for hole in f["holes"])
        what = ", ".join(f"{kind} {count}x" for kind, count in sorted(kinds.items()))
        first = f["holes"][0]["line"]
        known = f"; {n(lost)} events are known to be lost" if lost else ""
        lines += paragraph(
            f"The trace has holes: {what}, first at {trace.path}:{first}{known}. Counts are lower limits."
        )
    if f["broken_lines"]:
        lines += paragraph(f"{n(f['broken_lines'])} lines could not be read and are not counted:")
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
            f"Time stamps step back {n(report['backwards'])} times: "
            "the trace clock does not agree between CPUs."
        )
    return lines


def _share(counts: Iterable[tuple[str, int]], total: int, top: int = 3) -> str:
    ordered = sorted(counts, key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count / total:.0%}" for name, count in ordered[:top] if count > 0.005 * total)


def _who(cpus: Sequence[Mapping[str, Any]], cause: str, report: Mapping[str, Any]) -> str:
    if cause == "vmalloc_purge" and report["purges"]["charged"]:
        purges = report["purges"]
        total = purges["unknown_areas"] + sum(o["areas"] for o in purges["charged"])
        owners = [(o["comm"], o["areas"]) for o in purges["charged"]]
        owners.append(("unknown", purges["unknown_areas"]))
        return f"areas of {_share(owners, total)}"
    sums: Counter[str] = Counter()
    for cpu in cpus:
        for i in cpu["initiators"]:
            if i["cause"] == cause:
                sums["timers and interrupts" if i["in_interrupt"] else i["comm"]] += i["calls"]
    return _share(sums.items(), sums.total())


def _cause_rows(
    cpus: Sequence[Mapping[str, Any]], report: Mapping[str, Any], hours: float
) -> list[list[str]]:
    sums: Counter[str] = Counter()
    for cpu in cpus:
        sums.update(cpu["interrupts_by_cause"])
    rows = [["n", "per hour (95 %)", "p50/p95/max", "cause", "from"]]
    share = hours * len(cpus)
    for cause, count in sorted(sums.items(), key=lambda item: (-item[1], item[0])):
        low, high = _core.trace_poisson_95(count)
        rate = (
            f"{n(round(count / share))} ({n(round(low / share))}-{n(round(high / share))})" if share else "-"
        )
        lengths = [h for cpu in cpus for h in cpu["handlers"] if h["cause"] == cause]
        length = "-"
        if lengths:
            middle = sorted(lengths, key=lambda h: h["p50_us"])[len(lengths) // 2]
            longest = max(h["max_us"] for h in lengths)
            ninetyfive = max(h["p95_us"] for h in lengths)
            length = "/".join(duration(us) for us in (middle["p50_us"], ninetyfive, longest))
        rows.append([n(count), rate, length, causes[cause].title, _who(cpus, cause, report)])
    return rows


def _cpu_head(cpu: Mapping[str, Any]) -> str:
    rate, spread = cpu["interrupts_per_hour"], cpu["interrupts_per_hour_95"]
    text = f"CPU {cpu['cpu']}: {n(cpu['interrupts'])} interrupts"
    if rate:
        text += f", {n(round(rate))} per hour (95 %: {n(round(spread['low']))} to {n(round(spread['high']))})"
    if cpu["entries"]:
        text += f"; {n(cpu['entries'])} kernel entries"
    if cpu["gaps"]:
        gaps = cpu["gaps"]
        text += (
            f"; quiet for {n(gaps['p50_s'])} s in the median, {n(gaps['longest_s'])} s at longest "
            f"(from {gaps['longest_from_s']:.3f})"
        )
    return text + "."


def explain_text(e: Explanation) -> str:
    """Write the report of `tlbcore explain`."""
    trace = e.trace
    report = trace.figures["report"]
    cpus: list[Mapping[str, Any]] = report["isolated"]
    hours = trace.seconds / 3600
    lines = opening(trace)
    if cpus:
        lines += ["", "Who interrupted the isolated CPUs (measured)"]
        groups = [cpus] if len(cpus) > _MANY else [[cpu] for cpu in cpus]
        for group in groups:
            if len(group) > 1:
                total = sum(cpu["interrupts"] for cpu in group)
                lines += paragraph(f"All {len(group)} together: {n(total)} interrupts; rates are per CPU.")
            else:
                lines += paragraph(_cpu_head(group[0]))
            rows = _cause_rows(group, report, hours)
            if len(rows) > 1:
                lines += columns(rows, ">>><<", indent="    ")
        if len(cpus) > _MANY:
            for cpu in cpus:
                lines += paragraph(_cpu_head(cpu), indent="      ", first="    ")
        lines += _calls(cpus)
        lines += _baseline(cpus, trace)
    lines += _flushes(report)
    lines += _purges(report)
    if cpus:
        lines += _helps(cpus, report)
        lines += _policies(report["policies"], cpus)
    if e.missing:
        lines += ["", "What this trace cannot say"]
        for gap in e.missing:
            lines += paragraph(f"{gap['question']}: {gap['because']}.", indent="    ", first="  - ")
    return "\n".join(lines)


def _calls(cpus: Sequence[Mapping[str, Any]]) -> list[str]:
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


def _baseline(cpus: Sequence[Mapping[str, Any]], trace: Trace) -> list[str]:
    if any(cpu["baseline"]["derived_ipis"] is None for cpu in cpus):
        return []
    recorded = sum(sum(cpu["baseline"]["recorded_ipis"].values()) for cpu in cpus)
    differences = sum(cpu["baseline"]["unexplained"] for cpu in cpus)
    if not differences:
        return paragraph(f"Call-queue order explains all {n(recorded)} call interrupts sent to them.")
    first = next(cpu["baseline"]["unexplained_first"][0] for cpu in cpus if cpu["baseline"]["unexplained"])
    return paragraph(
        f"Call-queue order explains {n(recorded)} call interrupts but for {n(differences)} unexplained, "
        f"first at {trace.path}:{first['line']} ({first['function']})."
    )


def _flushes(report: Mapping[str, Any]) -> list[str]:
    calls, everything = report["flush_tlb_kernel_range"], report["flush_tlb_all"]
    if not calls["calls"] and not everything:
        return []
    text = (
        f"Kernel-range flushes in all: {n(calls['calls'])} flush_tlb_kernel_range ({n(calls['full'])} full, "
        f"{n(calls['ranged'])} of at most 33 pages) and {n(everything)} flush_tlb_all; "
        f"{n(report['forks'])} forks."
    )
    return ["", *paragraph(text, indent="")]


def _purges(report: Mapping[str, Any]) -> list[str]:
    p = report["purges"]
    if not p["events"]:
        return []
    lines = [""]
    if not p["effective"] + p["empty"]:
        text = f"{n(p['events'])} lazy vmalloc purges were entered; no event says what they found."
        return lines + paragraph(text, indent="")
    total = p["unknown_areas"] + sum(o["areas"] for o in p["charged"])
    text = f"{n(p['effective'])} lazy vmalloc purges flushed, {n(p['empty'])} found nothing."
    lines += paragraph(text, indent="")
    if total:
        owners = []
        for owner in p["charged"][:4]:
            stacks = owner["stacks"] / owner["areas"]
            kind = "all kernel stacks" if stacks == 1 else f"{stacks:.0%} kernel stacks"
            owners.append(f"{owner['comm']} {owner['areas'] / total:.1%} ({n(owner['areas'])}, {kind})")
        if len(p["charged"]) > 4:
            owners.append(f"{len(p['charged']) - 4} others")
        if p["unknown_areas"]:
            unknown = p["unknown_areas"]
            owners.append(f"unknown {unknown / total:.1%} ({n(unknown)}, allocated before the recording)")
        text = (
            f"They handed back {n(total)} areas, charged to the tasks that allocated them: "
            f"{', '.join(owners)}. The kworker that runs a purge is not its cause."
        )
        lines += paragraph(text)
        limit = report["nr_lazy_max"]
        if limit:
            lines += paragraph(
                f"The lazy list holds {n(limit)} pages before a purge (lazy_max_pages), "
                f"or {n(limit // 5)} kernel stacks of 16 KiB."
            )
    return lines


def _helps(cpus: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> list[str]:
    sums: Counter[str] = Counter()
    harm: Counter[str] = Counter()
    for cpu in cpus:
        sums.update(cpu["interrupts_by_cause"])
        for h in cpu["handlers"]:
            harm[h["cause"]] += h["total_ms"]
    total = sums.total()
    if not total:
        return []
    lines = ["", "What would help, worst first (effects are predicted from this trace)"]
    ordered = sorted(sums, key=lambda cause: (-sums[cause], -harm[cause], cause))
    for i, cause in enumerate(ordered[:8], 1):
        entry = causes[cause]
        share = f"{n(sums[cause])} of {n(total)} interrupts, {sums[cause] / total:.0%}"
        lines += paragraph(f"{entry.title} ({share}): {entry.meaning}.", indent="     ", first=f"  {i}. ")
        lines += paragraph(f"Helps: {entry.helps}.", indent="     ")
        if entry.deferral == "kernel_range":
            best = next((o for o in report["policies"] if o["policy"] == "coalesce-v7-fixed"), None)
            if best:
                got = best["deferred_by_class"].get(entry.call_class, {"low": 0, "high": 0})
                lines += paragraph(
                    f"Deferrable ({entry.because}): coalesce-v7-fixed would defer "
                    f"{span(got['low'], got['high'])} of these calls.",
                    indent="     ",
                )
        elif entry.call_class != "other":
            lines += paragraph(
                f"Deferrable: {entry.deferral.replace('_', ' ')} ({entry.because}).", indent="     "
            )
    return lines


def _policies(outcomes: Sequence[Mapping[str, Any]], cpus: Sequence[Mapping[str, Any]]) -> list[str]:
    if not any(o["remaining"]["high"] or o["deferred"]["high"] for o in outcomes):
        return []
    rows = [["policy", "calls deferred", "calls left", "interrupts left", "longest pending s", "needs"]]
    for o in outcomes:
        low = max((c["exposure_longest_s"]["low"] for c in o["cpus"]), default=0.0)
        high = max((c["exposure_longest_s"]["high"] for c in o["cpus"]), default=0.0)
        rows.append(
            [
                o["policy"],
                span(o["deferred"]["low"], o["deferred"]["high"]),
                span(o["remaining"]["low"], o["remaining"]["high"]),
                span(o["interrupts"]["low"], o["interrupts"]["high"]),
                span(low, high) if o["deferred"]["high"] else "-",
                o["needs"] or "nothing",
            ]
        )
    title = f"Under other policies (predicted; sums over {len(cpus)} isolated CPUs)"
    return ["", title, *columns(rows, "<>>>><")]


def replay_text(r: Replay) -> str:
    """Write the report of `tlbcore replay`."""
    cpus = r.trace.figures["report"]["isolated"]
    lines = opening(r.trace)
    if cpus:
        lines += _baseline(cpus, r.trace)
        equal = all(cpu["baseline"]["executions_equal"] for cpu in cpus)
        lines += paragraph(
            "The replayed baseline executes "
            + (
                "exactly the calls of the trace, per CPU and function."
                if equal
                else "other calls than the trace."
            )
        )
        lines += _policies(r.outcomes, cpus)
        lines += ["", "Per isolated CPU: calls left by class, and entry flushes (predicted)"]
        rows = [["policy", "CPU", "deferred", "left", "entry flushes", "pending s", "longest s"]]
        for o in r.outcomes:
            for c in o["cpus"]:
                cell = [span(c[k]["low"], c[k]["high"]) for k in ("deferred", "remaining", "entry_flushes")]
                cell += [span(c[k]["low"], c[k]["high"]) for k in ("exposure_s", "exposure_longest_s")]
                rows.append([o["policy"], str(c["cpu"]), *cell])
        lines += columns(rows, "<>>>>><")
        for o in r.outcomes:
            if o["deferred"]["high"]:
                left = ", ".join(
                    f"{k} {span(v['low'], v['high'])}" for k, v in o["remaining_by_class"].items()
                )
                gone = ", ".join(
                    f"{k} {span(v['low'], v['high'])}" for k, v in o["deferred_by_class"].items()
                )
                text = f"{o['policy']} ({o['title']}) defers {gone}; leaves {left or 'nothing'}."
                lines += paragraph(text, indent="    ", first="  ")
        if any(o["deferred"]["low"] != o["deferred"]["high"] for o in r.outcomes):
            lines += paragraph(
                "Intervals: the trace leaves open what the CPU was doing when the call was queued, "
                "or who asked for it."
            )
    return "\n".join(lines)
