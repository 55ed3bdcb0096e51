"""The reports of `tlbcore explain` and `tlbcore replay`: plain text of at most 100 columns, and JSON."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlbcore import _core
from tlbcore._cpus import show_cpus
from tlbcore.trace import Trace, causes

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
    """Format a duration with two digits and a unit.

    >>> duration(3.01), duration(51.2), duration(822084)
    ('3us', '51us', '820ms')
    """
    for unit, scale in (("us", 1), ("ms", 1e3), ("s", 1e6)):
        if us < 1000 * scale or unit == "s":
            return f"{float(f'{us / scale:.2g}'):g}{unit}"
    raise AssertionError


def seconds(low: float, high: float) -> str:
    """Format an interval of seconds."""
    return f"{span(float(f'{low:.3g}'), float(f'{high:.3g}'))} s"


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
        wrapped = textwrap.wrap(row[-1], max(room, 1)) or [""]  # no room is no harm to a cell without text
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
    if report["snapshots"]:
        lines += paragraph(
            f"A flight recorder's: {n(report['snapshots'])} snapshots hold {n(trace.seconds)} s of "
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
    return ", ".join(
        name if count == total else f"{name} {count / total:.0%}"
        for name, count in ordered[:top]
        if count > 0.005 * total
    )


def _who(cpus: Sequence[Mapping[str, Any]], cause: str, report: Mapping[str, Any]) -> str:
    if cause == "vmalloc_purge" and report["purges"]["charged"]:
        return f"areas of {_owners_in_short(report['purges'])}"
    if cause == "tick_kept":
        kept: Counter[str] = Counter()
        for cpu in cpus:
            kept.update(cpu["tick_dependencies"])
        return f"kept for {_share(kept.items(), kept.total())}" if kept else ""
    sums: Counter[str] = Counter()
    for cpu in cpus:
        for i in cpu["initiators"]:
            if i["cause"] == cause:
                sums["timers and interrupts" if i["in_interrupt"] else i["comm"]] += i["calls"]
    return _share(sums.items(), sums.total())


def _owners_in_short(purges: Mapping[str, Any]) -> str:
    total = purges["unknown_areas"] + sum(o["areas"] for o in purges["charged"])
    owners = [(o["comm"], o["areas"]) for o in purges["charged"]]
    owners.append(("unknown", purges["unknown_areas"]))
    return _share(owners, total)


def _harm(cpus: Sequence[Mapping[str, Any]]) -> tuple[Counter[str], dict[str, float], list[str]]:
    """Return interrupts and milliseconds by cause, and the causes by harm.

    Harm is the time taken from the CPUs; where no handler has a length, the number of interrupts.
    """
    counts: Counter[str] = Counter()
    taken: dict[str, float] = {}
    for cpu in cpus:
        counts.update(cpu["interrupts_by_cause"])
        for h in cpu["handlers"]:
            taken[h["cause"]] = taken.get(h["cause"], 0.0) + h["total_ms"]
    return counts, taken, sorted(counts, key=lambda cause: (-taken.get(cause, 0.0), -counts[cause], cause))


def _cause_rows(
    cpus: Sequence[Mapping[str, Any]], report: Mapping[str, Any], hours: float
) -> list[list[str]]:
    counts, taken, ordered = _harm(cpus)
    rows = [["n", "per hour (95 %)", "p50/p95/max", "in all", "cause", "from"]]
    share = hours * len(cpus)
    for cause in ordered:
        count = counts[cause]
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
        total = duration(taken[cause] * 1e3) if cause in taken else "-"
        rows.append([n(count), rate, length, total, causes[cause].title, _who(cpus, cause, report)])
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
            f"; quiet for {duration(gaps['p50_s'] * 1e6)} in the median, "
            f"{duration(gaps['longest_s'] * 1e6)} at longest (from {gaps['longest_from_s']:.3f})"
        )
    return text + "."


def _others_there(cpus: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tasks and work items that ran there: not interrupts, but noise all the same."""
    tasks: Counter[str] = Counter()
    work: Counter[str] = Counter()
    for cpu in cpus:
        tasks.update(cpu["tasks_switched_in"])
        work.update(cpu["work"])
    said = []
    if tasks:
        shown = ", ".join(f"{name} {n(count)}x" for name, count in tasks.most_common(6))
        more = f" and {len(tasks) - 6} more" if len(tasks) > 6 else ""
        said.append(f"Tasks switched in: {shown}{more}.")
    if work:
        said.append(f"Work items run: {', '.join(f'{f} {n(c)}x' for f, c in work.most_common(6))}.")
    return paragraph(" ".join(said), indent="    ") if said else []


def explain_text(e: Explanation) -> str:
    """Write the report of `tlbcore explain`."""
    trace = e.trace
    report = trace.figures["report"]
    cpus: list[Mapping[str, Any]] = report["isolated"]
    hours = trace.seconds / 3600
    lines = opening(trace)
    if cpus:
        lines += ["", "In short", *_in_short(e)]
        lines += ["", "Who interrupted the isolated CPUs (measured; most time taken first)"]
        groups = [cpus] if len(cpus) > _MANY else [[cpu] for cpu in cpus]
        for group in groups:
            if len(group) > 1:
                total = sum(cpu["interrupts"] for cpu in group)
                lines += paragraph(f"All {len(group)} together: {n(total)} interrupts; rates are per CPU.")
            else:
                lines += paragraph(_cpu_head(group[0]))
            rows = _cause_rows(group, report, hours)
            if len(rows) > 1:
                lines += columns(rows, ">>>><<", indent="    ")
            lines += _others_there(group)
        if len(cpus) > _MANY:
            for cpu in cpus:
                lines += paragraph(_cpu_head(cpu), indent="      ", first="    ")
        lines += _noise(cpus)
    lines += _purges(report)
    if cpus:
        lines += _helps(cpus, report, hours)
        lines += _policies(report["policies"], cpus)
        lines += _when(cpus)
        lines += _senders(trace)
        lines += _calls(cpus)
        lines += _baseline(cpus, trace)
    lines += _flushes(report)
    if e.missing:
        lines += ["", "What this trace cannot say"]
        for gap in e.missing:
            lines += paragraph(f"{gap['question']}: {gap['because']}.", indent="    ", first="  - ")
    return "\n".join(lines)


_FLUSH_CLASSES = ("purge", "vunmap", "alias", "table_free", "set_memory")


def _in_short(e: Explanation) -> list[str]:
    """Two or three sentences per group of CPUs: how often, what and by whom, what a policy would leave."""
    report = e.trace.figures["report"]
    cpus: list[Mapping[str, Any]] = report["isolated"]
    hours = e.trace.seconds / 3600
    groups = [cpus] if len(cpus) > _MANY else [[cpu] for cpu in cpus]
    lines = []
    for group in groups:
        counts, taken, ordered = _harm(group)
        total = counts.total()
        who = f"CPU {group[0]['cpu']}" if len(group) == 1 else f"CPUs {show_cpus(c['cpu'] for c in group)}"
        if not total:
            lines += paragraph(f"{who}: not interrupted.", indent="    ", first="  ")
            continue
        share = hours * len(group)
        rate = ""
        if share:
            low, high = _core.trace_poisson_95(total)
            each = " each" if len(group) > 1 else ""
            rate = f"{n(round(total / share))} interrupts per hour{each} (95 %: {n(round(low / share))} to "
            rate += f"{n(round(high / share))})"
            if taken:
                lost = sum(taken.values()) / (share * 3600 * 10)
                rate += f", {lost:.2g} % of the time"
        parts = []
        often = sorted(ordered, key=lambda c: -counts[c])
        # The most frequent, and whatever a policy could change.
        named = [c for i, c in enumerate(often) if i < 3 or causes[c].call_class in _FLUSH_CLASSES]
        for cause in named:
            by = _who(group, cause, report)
            first, *more = by.split(", ")
            inside = "" if first.startswith("timers and") else first
            named_by = f" ({inside}{' and others' if more else ''})" if inside else ""
            parts.append(f"{n(counts[cause])} {causes[cause].title}{named_by}")
        rest = total - sum(counts[c] for c in named)
        parts += [f"{n(rest)} others"] if rest else []
        lines += paragraph(f"{who}: {rate or n(total)}: {'; '.join(parts)}.", indent="    ", first="  ")
    flushes = sum(
        count
        for cpu in cpus
        for cause, count in cpu["interrupts_by_cause"].items()
        if causes[cause].call_class in _FLUSH_CLASSES
    )
    everything = sum(cpu["interrupts"] for cpu in cpus)
    best = next((o for o in report["policies"] if o["policy"] == "coalesce-v7-fixed"), None)
    unknown = sum(
        count
        for cpu in cpus
        for cause, count in cpu["interrupts_by_cause"].items()
        if causes[cause].call_class == "unknown"
    )
    if everything and not flushes:
        said = "None of it is a flush of kernel TLB entries: no policy here would change it."
        if unknown:
            said = (
                "None of it is known to be a flush of kernel TLB entries; what a policy would change lies among "
                f"the {n(unknown)} calls whose sender is unknown."
            )
        lines += paragraph(said, indent="    ", first="  ")
    elif flushes and best is not None:
        share = hours * len(cpus)
        left = [best["interrupts"][end] / share if share else math.nan for end in ("low", "high")]
        now = everything / share if share else math.nan
        lines += paragraph(
            f"{n(flushes)} of {n(everything)} are flushes of kernel TLB entries; coalesce-v7-fixed would defer "
            f"{span(best['deferred']['low'], best['deferred']['high'])} calls and leave "
            + (
                f"{span(round(left[0]), round(left[1]))} interrupts per hour and CPU instead of "
                f"{n(round(now))} (predicted)."
                if share
                else "the rest (predicted)."
            ),
            indent="    ",
            first="  ",
        )
    return lines


def _senders(trace: Trace) -> list[str]:
    """Who sends to whom, and how long senders waited for the isolated CPUs."""
    import numpy as np

    calls = trace.calls
    if not len(calls["cpu"]):
        return []
    lines = ["", "Calls by sending and isolated CPU (measured)"]
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
            lines.append(f"    {function}: p50 / p95 / max {spread} over {n(len(took))} calls")
    return lines


def _when(cpus: Sequence[Mapping[str, Any]]) -> list[str]:
    busy = [cpu for cpu in cpus if cpu["interrupts"]][:16]
    if not busy:
        return []
    lines = ["", "When (interrupts over the recording, each CPU on its own scale)"]
    for cpu in busy:
        t, bursts = cpu["timeline"], cpu["bursts"]
        counts = t["counts"]
        while counts and not counts[-1]:
            counts = counts[:-1]
        top = max(counts)
        bars = "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * c / top)] for c in counts)
        lines.append(f"  CPU {cpu['cpu']}  |{bars}| {n(t['step_s'])} s each, at most {n(top)}")
        if bursts["n"]:
            lines += paragraph(
                f"{n(bursts['n'])} bursts (three or more within 10 ms of each other); the largest has "
                f"{n(bursts['largest'])} interrupts, at {bursts['largest_at_s']:.3f}.",
                indent="    ",
            )
    return lines


def _noise(cpus: Sequence[Mapping[str, Any]]) -> list[str]:
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


def comparison_rows(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """Compare recordings cause by cause: interrupts per hour and isolated CPU, with intervals."""
    rows = []
    found = [e.trace for e in explanations]
    ids = sorted(
        {c for t in found for cpu in t.figures["report"]["isolated"] for c in cpu["interrupts_by_cause"]}
    )
    for cause in [None, *ids]:
        row: dict[str, Any] = {"cause": cause or "all", "traces": []}
        for t in found:
            cpus = t.figures["report"]["isolated"]
            count = sum(
                cpu["interrupts"] if cause is None else cpu["interrupts_by_cause"].get(cause, 0)
                for cpu in cpus
            )
            share = t.seconds / 3600 * len(cpus)
            low, high = _core.trace_poisson_95(count)
            scaled = [x / share if share else math.nan for x in (count, low, high)]
            row["traces"].append(
                {"interrupts": count, "per_hour": scaled[0], "low": scaled[1], "high": scaled[2]}
            )
        first, last = row["traces"][0], row["traces"][-1]
        if last["high"] < first["low"]:
            row["change"] = "fewer"
        elif last["low"] > first["high"]:
            row["change"] = "more"
        else:
            row["change"] = "unclear"
        rows.append(row)
    return rows


def comparison_text(explanations: Sequence[Explanation]) -> str:
    """Write a comparison of recordings, first against last."""
    lines = ["Per hour and isolated CPU, with 95 % intervals (measured); change from the first to the last"]
    for i, e in enumerate(explanations, 1):
        lines.append(f"  [{i}] {e.trace.path}")
    kernels = {value for e in explanations for key, value in e.trace.figures["notes"] if key == "version"}
    if len(kernels) > 1:
        lines += paragraph(f"Mind that these are different kernels: {'; '.join(sorted(kernels))}.")
    if any(e.trace.figures["report"]["snapshots"] for e in explanations):
        lines += paragraph(
            "Mind that a flight recorder keeps the interrupted seconds: its rates are not the machine's."
        )
    head = ["cause", *(f"[{i}]" for i in range(1, len(explanations) + 1)), "change"]
    body = []
    for row in comparison_rows(explanations):
        cells = [
            f"{n(round(t['per_hour']))} ({n(round(t['low']))}-{n(round(t['high']))})" for t in row["traces"]
        ]
        title = causes[row["cause"]].title if row["cause"] in causes else "all interrupts"
        body.append([title, *cells, row["change"]])
    return "\n".join(lines + columns([head, *body], "<" + ">" * len(explanations) + "<"))


def coverage_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write how much of what the kernel counted the recording has."""
    lines = ["Coverage against /proc/interrupts (measured; the snapshots may lie a little outside)"]
    table = [["CPU", "row", "kernel", "trace", "covered"]]
    for r in rows:
        covered = f"{min(r['traced'] / r['counted'], 1):.0%}" if r["counted"] else "-"
        table.append([str(r["cpu"]), r["row"], n(r["counted"]), n(r["traced"]), covered])
    return "\n".join(lines + columns(table, "><>><"))


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
        f"{n(report['forks'])} {'fork' if report['forks'] == 1 else 'forks'}."
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
        if report["has_cgroups"]:
            groups = [(o["comm"], o["areas"]) for o in p["cgroups"]]
            groups.append(("not told", total - sum(areas for _, areas in groups)))
            lines += paragraph(f"By control group: {_share(groups, total, 6)}.")
        limit = report["nr_lazy_max"]
        if limit:
            lines += paragraph(
                f"The lazy list holds {n(limit)} pages before a purge (lazy_max_pages), "
                f"or {n(limit // 5)} kernel stacks of 16 KiB."
            )
    return lines


def _helps(cpus: Sequence[Mapping[str, Any]], report: Mapping[str, Any], hours: float) -> list[str]:
    counts, taken, ordered = _harm(cpus)
    total, all_ms = counts.total(), sum(taken.values())
    if not total:
        return []
    by = "time taken" if taken else "number"
    lines = ["", f"What would help, worst first by {by} (effects are predicted from this trace)"]
    share = hours * len(cpus)
    for i, cause in enumerate(ordered[:8], 1):
        entry = causes[cause]
        of = f"{n(counts[cause])} of {n(total)} interrupts, {counts[cause] / total:.0%}"
        if all_ms:
            part = taken.get(cause, 0.0) / all_ms
            of += f"; {'less than 1%' if part < 0.01 else f'{part:.0%}'} of the time taken"
        lines += paragraph(f"{entry.title} ({of}): {entry.meaning}.", indent="     ", first=f"  {i}. ")
        lines += paragraph(f"Helps: {entry.helps}.", indent="     ")
        if share:
            lines += paragraph(
                f"Effect: without it {n(round((total - counts[cause]) / share))} interrupts per hour and CPU "
                f"instead of {n(round(total / share))}.",
                indent="     ",
            )
        if entry.deferral == "kernel_range":
            best = next((o for o in report["policies"] if o["policy"] == "coalesce-v7-fixed"), None)
            if best:
                got = best["deferred_by_class"].get(entry.call_class, {"low": 0, "high": 0})
                lines += paragraph(
                    f"Deferrable ({entry.because}): coalesce-v7-fixed would defer "
                    f"{span(got['low'], got['high'])} of the calls of class {entry.call_class}.",
                    indent="     ",
                )
        elif entry.call_class != "other":
            verdict = {
                "never": "Not deferrable",
                "text_sync": "Deferrable by the text-patching half of the series only",
                "unknown": "Deferrable or not, that is open",
            }[entry.deferral]
            lines += paragraph(f"{verdict}: {entry.because}.", indent="     ")
    if len(ordered) > 8:
        rest = ", ".join(f"{causes[c].title} {n(counts[c])}" for c in ordered[8:])
        lines += paragraph(f"And: {rest}.", indent="     ")
    return lines


def _policies(outcomes: Sequence[Mapping[str, Any]], cpus: Sequence[Mapping[str, Any]]) -> list[str]:
    if not any(o["deferred"]["high"] for o in outcomes):
        return []  # said in short at the top
    rows = [["policy", "deferred", "calls left", "interrupts left", "longest pending", "needs"]]
    for o in outcomes:
        low = max((c["exposure_longest_s"]["low"] for c in o["cpus"]), default=0.0)
        high = max((c["exposure_longest_s"]["high"] for c in o["cpus"]), default=0.0)
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
    title = f"Under other policies (predicted; sums over {len(cpus)} isolated CPUs)"
    return ["", title, *columns(rows, "<>>>><")]


def _said_of(outcome: Mapping[str, Any]) -> list[str]:
    """Say about one policy what no table has: times of senders, calls not recorded, what is not modelled."""
    name, said = outcome["policy"], []
    if "inert" in outcome:
        said.append(f"{name} is inert: {outcome['inert']}; its figures are mainline's.")
    if (wait := outcome["wait_ms"]) is not None:
        ends = (float(f"{wait[end]:.3g}") for end in ("low", "high"))
        said.append(f"{name}: senders wait for isolated CPUs, and their code takes, {span(*ends)} ms.")
    if (more := outcome["more_calls"])["high"]:
        said.append(
            f"{name} calls isolated CPUs {span(more['low'], more['high'])} times where the recording has no call."
        )
    said += [f"{name}, not modelled: {note}." for note in outcome["not_modelled"]]
    return [line for text in said for line in paragraph(text, indent="    ", first="  ")]


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
        lines += ["", "Per isolated CPU (predicted)"]
        priced = "entry_cost_ms_low" in r.table
        head = ["policy", "CPU", "deferred", "left", "entry flushes", "pending", "longest pending"]
        rows = [[*head, "entry cost ms"] if priced else head]
        for i, (o, c) in enumerate((one, cpu) for one in r.outcomes for cpu in one["cpus"]):
            cell = [span(c[k]["low"], c[k]["high"]) for k in ("deferred", "remaining", "entry_flushes")]
            cell += [seconds(c[k]["low"], c[k]["high"]) for k in ("exposure_s", "exposure_longest_s")]
            if priced:
                ends = (float(f"{r.table[f'entry_cost_ms_{end}'][i]:.3g}") for end in ("low", "high"))
                cell.append(span(*ends))
            rows.append([o["policy"], str(c["cpu"]), *cell])
        lines += columns(rows, "<>>>>><" if not priced else "<>>>>>><")
        for outcome in r.outcomes:
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
        if any(o["deferred"]["low"] != o["deferred"]["high"] for o in r.outcomes):
            lines += paragraph(
                "Intervals: the trace leaves open what the CPU was doing when the call was queued, "
                "or who asked for it."
            )
    return "\n".join(lines)
