"""The report of `tlbcore explain`: what took isolated CPUs from their tasks, how often, why, and what would help."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tlbcore import _core
from tlbcore._input.cpus import show_cpus
from tlbcore.trace.recording import Trace, causes
from tlbcore.trace.report import sections
from tlbcore.trace.report.remedies import NOT_X86, effect, helps
from tlbcore.trace.report.words import (
    _baseline,
    _policies,
    between,
    columns,
    duration,
    listed,
    n,
    opening,
    paragraph,
    percent,
    shares,
    span,
    times,
)

_MANY = 2  # more isolated CPUs than this are shown together, with one line each
_FLUSH_CLASSES = ("purge", "vunmap", "alias", "table_free", "set_memory")
_KINDS: Mapping[str, str] = {
    "calls": "remote calls",
    "reschedules": "reschedules",
    "timers": "timer interrupts",
    "irq_work": "interrupt work",
    "devices": "device interrupts",
    "softirqs": "soft interrupts",
    "tasks": "other tasks",
    "nmis": "NMIs",
    "firmware": "firmware (SMI)",
}
# Seconds per CPU: a shorter recording cannot say how often something happens in an hour.
ENOUGH_S = 1.0

Cpus = Sequence[Mapping[str, Any]]


def explain_text(trace: Trace, missing: Sequence[Mapping[str, str]]) -> str:
    """Write the report of `tlbcore explain`."""
    report = trace.figures["report"]
    cpus: Cpus = report["isolated"]
    lines = opening(trace)
    if cpus:
        lines += ["", "In short", *_in_short(trace)]
        lines += ["", "What took the isolated CPUs from their tasks (measured; most time first)"]
        for group in _groups(cpus):
            lines += _table(group, report)
        if len(cpus) > _MANY:
            for cpu in cpus:
                lines += paragraph(_cpu_head(cpu), indent="      ", first="    ")
        lines += sections.sent(cpus)
        lines += sections.noise(cpus)
        lines += sections.latencies(cpus)
    lines += sections.purges(report)
    if cpus:
        lines += _helps(trace, cpus, report)
        lines += _policies(report["policies"], cpus) if _deferrable(cpus, report) else []
        lines += sections.when(cpus)
        lines += sections.senders(trace)
        lines += sections.calls(cpus)
        lines += _baseline(cpus, trace)
    lines += sections.flushes(report)
    if missing:
        lines += ["", "What this trace cannot say"]
        for gap in missing:
            lines += paragraph(f"{gap['question']}: {gap['because']}.", indent="    ", first="  - ")
    return "\n".join(lines)


def _groups(cpus: Cpus) -> list[Cpus]:
    """Return CPUs that are shown together: all of them if they are many, but for those of which nothing is known."""
    if len(cpus) <= _MANY:
        return [[cpu] for cpu in cpus]
    known = [cpu for cpu in cpus if _measured(cpu)]
    unknown = [cpu for cpu in cpus if not _measured(cpu)]
    return [group for group in (known, unknown) if group]


def _deferrable(cpus: Cpus, report: Mapping[str, Any]) -> bool:
    """Tell whether a policy could change anything: else there is nothing to replay."""
    classes = {name for cpu in cpus for name in cpu["calls_by_class"]}
    classes |= {causes[cause].call_class for cpu in cpus for cause in cpu["interrupts_by_cause"]}
    return report["architecture"] not in NOT_X86 and not classes.isdisjoint((*_FLUSH_CLASSES, "unknown"))


def _measured(cpu: Mapping[str, Any]) -> bool:
    return cpu["taken_ms"] is not None or cpu["interrupts"] is not None or bool(cpu["interference"])


def who(cpus: Cpus, cause: str, report: Mapping[str, Any]) -> str:
    """Name whoever is behind a cause on these CPUs."""
    if cause == "vmalloc_purge" and report["purges"]["charged"]:
        return f"areas of {_owners_in_short(report['purges'])}"
    if cause == "tick_kept":
        kept: Counter[str] = Counter()
        for cpu in cpus:
            kept.update(cpu["tick_dependencies"])
        return f"kept for {shares(kept.items(), kept.total())}" if kept else ""
    by_time: Counter[str] = Counter()
    by_count: Counter[str] = Counter()
    via: dict[str, None] = {}
    for cpu in cpus:
        for i in cpu["initiators"]:
            if i["cause"] == cause:
                by_count["timers and interrupts" if i["in_interrupt"] else i["comm"]] += i["calls"]
        for row in cpu["interference"]:
            if row["cause"] == cause:
                for by in row["by"]:
                    if by["name"] and by["total_ms"] is not None:
                        by_time[by["name"]] += by["total_ms"]
        for row in cpu["interference"]:
            if row["cause"] == cause:
                via.update(dict.fromkeys(row["via"]))
    chosen: Counter[str] = by_time if by_time.total() else by_count
    named = shares(chosen.items(), chosen.total())
    return f"{named} through {', '.join(list(via)[:3])}" if via else named


def _owners_in_short(purges: Mapping[str, Any]) -> str:
    total = purges["unknown_areas"] + sum(o["areas"] for o in purges["charged"])
    owners = [(o["comm"], o["areas"]) for o in purges["charged"]]
    owners.append(("unknown", purges["unknown_areas"]))
    return shares(owners, total)


def interference(cpus: Cpus) -> dict[str, dict[str, Any]]:
    """Sum interference over CPUs: cause -> n, ms (None: no length is known), longest, by time and then number."""
    sums: dict[str, dict[str, Any]] = {}
    for cpu in cpus:
        for row in cpu["interference"]:
            one = sums.setdefault(
                row["cause"], {"n": 0, "ms": None, "max_us": None, "rows": [], "kind": row["kind"]}
            )
            one["n"] += row["n"]
            if row["total_ms"] is not None:
                one["ms"] = (one["ms"] or 0.0) + row["total_ms"]
                one["max_us"] = max(one["max_us"] or 0.0, row["max_us"])
                one["rows"].append(row)
    ordered = sorted(sums, key=lambda cause: (-(sums[cause]["ms"] or 0.0), -sums[cause]["n"], cause))
    return {cause: sums[cause] for cause in ordered}


def _table(group: Cpus, report: Mapping[str, Any]) -> list[str]:
    if len(group) > 1:
        total = sum(cpu["interrupts"] or 0 for cpu in group)
        lines = paragraph(
            f"All {len(group)} together: {times(total, 'interrupt')}; rates are per CPU."
            if any(cpu["interrupts"] is not None for cpu in group)
            else f"CPUs {show_cpus(c['cpu'] for c in group)}: interrupts not recorded."
        )
    else:
        lines = paragraph(_cpu_head(group[0]))
    rows = [["n", "per hour (95 %)", "p50/p95/max", "in all", "what, and by whom"]]
    share = sum(cpu["seconds"] for cpu in group) / 3600
    enough = share * 3600 >= ENOUGH_S * len(group)
    for cause, sums in interference(group).items():
        low, high = _core.trace_poisson_95(sums["n"])
        rate = (
            f"{n(round(sums['n'] / share))} ({n(round(low / share))}-{n(round(high / share))})"
            if enough
            else "-"
        )
        length, total_time = "-", "-"
        if sums["rows"]:
            middle = sorted(sums["rows"], key=lambda h: h["p50_us"])[len(sums["rows"]) // 2]
            ninetyfive = max(h["p95_us"] for h in sums["rows"])
            length = " / ".join(duration(us) for us in (middle["p50_us"], ninetyfive, sums["max_us"]))
            total_time = duration(sums["ms"] * 1e3)
        by = who(group, cause, report)
        rows.append(
            [n(sums["n"]), rate, length, total_time, causes[cause].title + (f" ({by})" if by else "")]
        )
    if len(rows) > 1:
        lines += columns(rows, ">>>><", indent="    ")
    return lines + _often(group) + _others_there(group)


def _often(group: Cpus) -> list[str]:
    """Say which causes are most frequent, if that is another order than the one by time."""
    sums = interference(group)
    by_count = sorted(sums, key=lambda cause: -sums[cause]["n"])
    if by_count[:3] == list(sums)[:3]:
        return []
    shown = ", ".join(f"{causes[cause].title} {n(sums[cause]['n'])}" for cause in by_count[:3])
    return paragraph(f"Most often: {shown}.", indent="    ")


def _cpu_head(cpu: Mapping[str, Any]) -> str:
    if cpu["interrupts"] is None:
        text = f"CPU {cpu['cpu']}: interrupts not recorded"
    else:
        text = f"CPU {cpu['cpu']}: {times(cpu['interrupts'], 'interrupt')}"
        if cpu["interrupts"] and cpu["interrupts_idle"]:
            idle = cpu["interrupts_idle"]
            text += " while it was idle" if idle == cpu["interrupts"] else f" ({n(idle)} while it was idle)"
        text += _rate_of(cpu)
    if cpu["entries"]:
        text += f"; {times(cpu['entries'], 'kernel entry', 'kernel entries')}"
    if cpu["gaps"]:
        gaps = cpu["gaps"]
        text += (
            f"; quiet for {duration(gaps['p50_s'] * 1e6)} in the median, "
            f"{duration(gaps['longest_s'] * 1e6)} at longest (from {gaps['longest_from_s']:.3f})"
        )
    return text + "."


def _rate_of(cpu: Mapping[str, Any]) -> str:
    rate, spread = cpu["interrupts_per_hour"], cpu["interrupts_per_hour_95"]
    if rate is None:
        return f" in {duration(cpu['seconds'] * 1e6)}, too short for a rate" if cpu["seconds"] else ""
    if not rate:
        return f" in {duration(cpu['seconds'] * 1e6)} (which allows {_bound(cpu['seconds'])})"
    return f", {n(round(rate))} per hour (95 %: {n(round(spread['low']))} to {n(round(spread['high']))})"


def _bound(seconds: float) -> str:
    """How many per hour no event in so many seconds still allows: the one-sided 95 % limit of a Poisson process."""
    return f"up to {n(round(-math.log(0.05) * 3600 / seconds))} per hour at 95 %"


def _others_there(cpus: Cpus) -> list[str]:
    """Tasks and work items that ran there, whether or not they took the CPU from a task."""
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


def _speaker(group: Cpus) -> Mapping[str, Any]:
    """Return a CPU of which is known what is known of the group: one that has events, if any has."""
    return next((cpu for cpu in group if cpu["events"]), group[0])


def _unknown_kinds(cpu: Mapping[str, Any]) -> list[str]:
    return [_KINDS[kind] for kind, known in cpu["knowledge"].items() if known["state"] == "not_recorded"]


def _recorded_kinds(cpu: Mapping[str, Any]) -> list[str]:
    return [_KINDS[kind] for kind, known in cpu["knowledge"].items() if known["state"] != "not_recorded"]


def _in_short(trace: Trace) -> list[str]:
    """Two or three sentences per group of CPUs: how much, what and by whom, what a policy would leave."""
    report = trace.figures["report"]
    cpus: Cpus = report["isolated"]
    lines = []
    for group in _groups(cpus):
        lines += paragraph(_headline(group, report), indent="    ", first="  ")
    return lines + _of_flushes(cpus, report)


def _headline(group: Cpus, report: Mapping[str, Any]) -> str:
    return _headline_of_kernel(group, report) + _beside(group)


def _beside(group: Cpus) -> str:
    """Say what took the CPUs without the kernel's doing, and how sure that is."""
    text = ""
    silent = [cpu["cpu"] for cpu in group if not cpu["events"]]
    if 0 < len(silent) < len(group) and _measured(group[0]):
        cpus = "CPU" if len(silent) == 1 else "CPUs"
        text += f" No event of any kind was recorded on {cpus} {show_cpus(silent)}: taken for quiet."
    known = [cpu for cpu in group if cpu["stolen_ms"]]
    if known:
        low = sum(cpu["stolen_ms_range"][0] for cpu in known)
        high = sum(cpu["stolen_ms_range"][1] for cpu in known)
        text += f" The hypervisor took {duration(low * 1e3)} to {duration(high * 1e3)} beside (stolen time)."
    sums = [cpu["sums"] for cpu in group if cpu["sums"]]
    if sums:
        periods = times(sum(s["periods"] for s in sums), "period")
        text += f" These are sums over {periods} of osnoise: how long each kind took is not recorded."
    if any(known["why"] == "events were lost" for cpu in group for known in cpu["knowledge"].values()):
        text += " Events were lost: all of this is a lower limit."
    rows = [row for cpu in group for row in cpu["interference"] if row["kind"] == "firmware"]
    if any(by["name"] == "hwlat" for row in rows for by in row["by"]):
        text += " The hwlat tracer looks at one CPU at a time, part of the time: its counts and rates are lower limits."
    return text


def at_least(cpus: Cpus) -> str:
    """Return these words where something took one of the CPUs for a time that is not recorded."""
    parts = [row["total_ms"] for cpu in cpus if not cpu["sums"] for row in cpu["interference"]]
    return "at least " if None in parts else ""


def _headline_of_kernel(group: Cpus, report: Mapping[str, Any]) -> str:
    sums = interference(group)
    total = sum(s["n"] for s in sums.values())
    one = _speaker(group)
    name = f"CPU {one['cpu']}" if len(group) == 1 else f"CPUs {show_cpus(c['cpu'] for c in group)}"
    unknown = _unknown_kinds(one)
    if not _measured(one):
        what: Counter[str] = Counter()
        why: Counter[str] = Counter()
        for cpu in group:
            for function, count in cpu["ipis_by_function"].items():
                place = function.removeprefix("resched:")
                what[f"a reschedule from {place}" if place != function else function] += count
            for i in cpu["sent"]:
                why[causes[i["cause"]].title] += i["calls"]
        shown = ", ".join(f"{x} {n(c)}x" for x, c in what.most_common(4))
        reasons = ", ".join(title for title, _ in why.most_common(3))
        told = f"; it was sent {shown} (causes: {reasons})" if what else ""
        return f"{name}: whether it was interrupted is not recorded (no event that would show it){told}."
    if not total:
        return _nothing(group, name, unknown)
    seconds = sum(cpu["seconds"] for cpu in group)
    taken = sum(cpu["taken_ms"] or 0.0 for cpu in group)
    parts = _parts(group, sums, report)
    text = f"{name}: "
    if taken and seconds >= ENOUGH_S * len(group):
        each = "" if len(group) == 1 else " of each"
        text += at_least(group)
        text += f"{percent(taken / 1e3 / seconds)} of the time{each} ({duration(taken * 1e3)}"
        text += f" of {duration(seconds * 1e6)}) taken from its task"
    elif taken:
        text += (
            f"{at_least(group)}{duration(taken * 1e3)}"
            + (f" of {duration(seconds * 1e6)}" if seconds else "")
            + " taken from its task"
        )
    elif any(cpu["interrupts_idle"] for cpu in group):
        text += "interrupted while idle"
    else:
        text += "interrupted, for how long is not recorded"
    longest = max((cpu["longest"] for cpu in group if cpu["longest"]), key=lambda x: x["us"], default=None)
    if longest and longest["us"]:
        by = f" {longest['by']}" if longest["by"] else ""
        text += f", longest {duration(longest['us'])} ({causes[longest['cause']].title}{by})"
    text += f": {'; '.join(parts)}."
    text += _rate(group)
    if one["interrupts"] is None:
        text += " Interrupts: not recorded."
    # A recording of devices alone has a number of interrupts, and says nothing of most of them.
    vectors = [_KINDS[kind] for kind in ("calls", "reschedules", "timers")]
    absent = vectors if one["interrupts"] is not None and set(vectors) <= set(unknown) else []
    absent += [kind for kind in ("other tasks", "soft interrupts") if kind in unknown]
    if absent:
        text += f" {listed(absent).capitalize()}: not recorded."
    return text


def _nothing(group: Cpus, name: str, unknown: Sequence[str]) -> str:
    """Nothing was seen: say over what time, and what would not have been seen."""
    one = _speaker(group)
    seconds = min(cpu["seconds"] for cpu in group)
    over = f" in {duration(seconds * 1e6)}" if seconds else ""
    bound = f", which allows {_bound(seconds)}" if seconds >= ENOUGH_S else ""
    whole = all(cpu["interrupts_known"] == "recorded" for cpu in group if cpu["events"])
    if not one["events"]:
        were = "it was" if len(group) == 1 else "they were"
        text = f"{name}: no event of any kind was recorded there: not interrupted{over}, if {were} traced{bound}."
    elif whole:
        text = f"{name}: not interrupted{over}{bound}."
    else:
        them = "it" if len(group) == 1 else "them"
        text = (
            f"{name}: none of what was recorded ({', '.join(_recorded_kinds(one))}) took {them}{over}{bound}."
        )
    return text + (f" Not recorded: {', '.join(unknown)}." if unknown else "")


def _parts(group: Cpus, sums: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Name the causes that took most time, and whatever a policy could change."""
    chosen = [c for i, c in enumerate(sums) if i < 3 or causes[c].call_class in (*_FLUSH_CLASSES, "unknown")]
    parts = []
    for cause in chosen:
        names, _, via = who(group, cause, report).partition(" through ")
        first, *more = names.split(", ")
        inside = "" if first.startswith("timers and") else first
        inside += (" and others" if more else "") + (f" through {via}" if via else "")
        named_by = f" ({inside.strip()})" if inside.strip() else ""
        took = sums[cause]["ms"]
        time = f", {duration(took * 1e3)}" if took and sums[cause]["kind"] != "interrupt" else ""
        parts.append(f"{n(sums[cause]['n'])}x {causes[cause].title}{named_by}{time}")
    rest = sum(s["n"] for c, s in sums.items() if c not in chosen)
    return parts + ([times(rest, "other")] if rest else [])


def _rate(group: Cpus) -> str:
    known = [cpu for cpu in group if cpu["interrupts"] is not None]
    count = sum(cpu["interrupts"] for cpu in known)
    seconds = sum(cpu["seconds"] for cpu in known)
    if not count:
        return ""
    if seconds < ENOUGH_S * len(known):
        return f" {times(count, 'interrupt')}; the window is too short for a rate."
    low, high = (x * 3600 / seconds for x in _core.trace_poisson_95(count))
    each = " and CPU" if len(known) > 1 else ""
    text = f" {times(count, 'interrupt')}: {n(round(count * 3600 / seconds))} per hour{each} (95 %: "
    text += f"{n(round(low))} to {n(round(high))})"
    most = max(known, key=lambda cpu: cpu["interrupts"])
    if len(known) > 1 and most["interrupts"] > 2 * count / len(known):
        text += f", {most['interrupts'] / count:.0%} of them on CPU {most['cpu']}"
    return text + "."


def _of_flushes(cpus: Cpus, report: Mapping[str, Any]) -> list[str]:
    """Say what a deferral policy would leave."""
    if report["architecture"] == "aarch64":
        return paragraph(
            "On arm64 the kernel's TLB flushes are broadcast by hardware (TLBI ...IS) and interrupt no CPU: no policy "
            "here applies.",
            indent="    ",
            first="  ",
        )
    if report["architecture"] == "riscv64":
        return paragraph(
            "On RISC-V flushes of other CPUs' TLBs go through firmware or interrupts; the policies here are of x86-64.",
            indent="    ",
            first="  ",
        )
    everything = sum(cpu["interrupts"] or 0 for cpu in cpus)
    if not everything:
        return []

    def count(which: Sequence[str]) -> int:
        return sum(
            number
            for cpu in cpus
            for cause, number in cpu["interrupts_by_cause"].items()
            if causes[cause].call_class in which
        )

    flushes, unknown = count(_FLUSH_CLASSES), count(("unknown",))
    of_unknown_caller = sum(cpu["interrupts_by_cause"].get("kernel_flush_unknown", 0) for cpu in cpus)
    if not flushes and not of_unknown_caller:
        said = "None of it is a flush of kernel TLB entries: no policy here would change it."
        vectors = ("calls", "reschedules", "timers")
        if not any(cpu["knowledge"][kind]["state"] != "not_recorded" for cpu in cpus for kind in vectors):
            said = (
                "Whether flushes of kernel TLB entries interrupted them, which a policy here would change, is not "
                "recorded: no event would show a remote call."
            )
        if unknown:
            there = f"{'in' if unknown == 1 else 'among'} the {times(unknown, 'interrupt')}"
            said = (
                "None of it is known to be a flush of kernel TLB entries; what a policy would change lies "
                f"{there} whose sender is not recorded."
            )
        return paragraph(said, indent="    ", first="  ")
    best = next((o for o in report["policies"] if o["policy"] == "coalesce-v7-fixed"), None)
    if best is None:
        return []
    seconds = sum(cpu["seconds"] for cpu in cpus)
    left = ""
    if seconds >= ENOUGH_S * len(cpus):
        ends = [round(best["interrupts"][end] * 3600 / seconds) for end in ("low", "high")]
        now = n(round(everything * 3600 / seconds))
        left = f"{between(ends[0], ends[1], 'interrupt')} per hour and CPU instead of {now}"
    callers = (
        f" ({n(of_unknown_caller)} of them for a caller that is not recorded)" if of_unknown_caller else ""
    )
    are = "is a flush" if flushes + of_unknown_caller == 1 else "are flushes"
    deferred = between(best["deferred"]["low"], best["deferred"]["high"], "call")
    return paragraph(
        f"{n(flushes + of_unknown_caller)} of {n(everything)} {are} of kernel TLB entries{callers}; "
        f"coalesce-v7-fixed would defer {deferred} and leave "
        f"{left or 'the rest'} (predicted).",
        indent="    ",
        first="  ",
    )


def _helps(trace: Trace, cpus: Cpus, report: Mapping[str, Any]) -> list[str]:
    sums = interference(cpus)
    total = sum(s["n"] for s in sums.values())
    all_ms = sum(s["ms"] or 0.0 for s in sums.values())
    if not total:
        return []
    by = "time taken" if all_ms else "number"
    lines = ["", f"What would help, worst first by {by} (effects predicted from this trace)"]
    for i, (cause, one) in enumerate(list(sums.items())[:8], 1):
        entry = causes[cause]
        of = f"{n(one['n'])} of {n(total)}"
        if all_ms:
            of += f"; {percent((one['ms'] or 0.0) / all_ms)} of the time taken"
        lines += paragraph(f"{entry.title} ({of}): {entry.meaning}.", indent="     ", first=f"  {i}. ")
        for advice in helps(entry, trace):
            lines += paragraph(advice, indent="     ")
        said = effect(cause, cpus)
        if said:
            lines += paragraph(said, indent="     ")
        if report["architecture"] in NOT_X86:
            continue
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
    if len(sums) > 8:
        rest = ", ".join(f"{causes[c].title} {n(sums[c]['n'])}" for c in list(sums)[8:])
        lines += paragraph(f"And: {rest}.", indent="     ")
    return lines
