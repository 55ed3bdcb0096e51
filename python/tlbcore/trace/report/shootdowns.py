"""The report of `tlbcore explain --process` and `--all-cpus`: one sentence, then tables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

from tlbcore._input.cpus import show_cpus
from tlbcore._output.table import Table
from tlbcore.trace.report.words import columns, duration, n, paragraph, percent, span, times

_ROWS = 12
_MATRIX = 12  # CPUs on a side; more are listed as pairs
_STATES: Mapping[str, str] = {
    "running": "ran the process",
    "idle": "idle",
    "lazy": "lazy: a kernel thread ran there",
    "elsewhere": "another process ran there: interrupted for nothing",
    "unknown": "who ran there is not recorded",
}


class _Counts(Protocol):
    """What the report needs of `tlbcore.trace.shootdown.Shootdowns`."""

    @property
    def path(self) -> str: ...
    @property
    def process(self) -> str | None: ...
    @property
    def seconds(self) -> float: ...
    @property
    def cpus(self) -> tuple[int, ...]: ...
    @property
    def call_sites(self) -> Table: ...
    @property
    def pairs(self) -> Table: ...
    @property
    def threads(self) -> Table: ...
    @property
    def victims(self) -> Table: ...
    @property
    def address_spaces(self) -> Table: ...
    @property
    def what_if(self) -> Table: ...
    @property
    def lost(self) -> Mapping[str, Any]: ...
    @property
    def predicted(self) -> Mapping[str, tuple[float, float]] | None: ...
    @property
    def missing(self) -> tuple[Mapping[str, str], ...]: ...
    @property
    def figures(self) -> Mapping[str, Any]: ...
    @property
    def machine(self) -> str | None: ...


def sentence(s: _Counts) -> str:
    """Say in one sentence what shootdowns cost, and what most of them are."""
    sites = s.call_sites
    who = re.sub(r" \(.*", "", s.process) if s.process else "all processes"
    verb = "lose" if s.process is None else "loses"
    calls, flushes = int(sites["calls"].sum()), int(sites["flushes"].sum())
    kinds = s.figures["report"]["kinds"]
    if not calls:
        unknown = int(sites["shootdowns"].sum())
        arrived = int(s.victims["calls"].sum())
        if arrived:
            cost = s.lost["handler_s"]
            took = "" if cost is None else f" and lost {duration(cost * 1e6)} in handlers"
            return (
                f"{who} was interrupted {times(arrived, 'time')} in {duration(s.seconds * 1e6)} by flushes of its own "
                f"address space{took}; by which flush, and how long that waited, is not recorded."
            )
        if unknown:
            return (
                f"{who} sent {times(unknown, 'shootdown')} in {duration(s.seconds * 1e6)}; "
                "whom they interrupted is not recorded."
            )
        if not flushes:
            seen = kinds["csd"] or kinds["tlb_flush"] or kinds["range_probe"]
            if not seen and not s.figures["report"]["switched_on"]:
                return f"Whether {who} flushed any user range is not recorded."
            return f"No flush of a user range by {who} is in this recording."
        flags = " ".join(value for key, value in s.figures["notes"] if key == "flags").split()
        broadcast = ", unless it was broadcast: this CPU has INVLPGB" if "invlpgb" in flags else ""
        stayed = "its own CPU" if flushes == 1 else "their own CPU"
        return f"{who} interrupted no other CPU: {times(flushes, 'flush', 'flushes')} stayed on {stayed}{broadcast}."
    first = _most(s, calls)
    cpus = times(len(s.cpus), "CPU")
    if s.lost["share"] is None:
        return (
            f"{who} interrupted other CPUs {times(calls, 'time')} in {duration(s.seconds * 1e6)}; what that cost is "
            f"not recorded: {first}."
        )
    least = "at least " if s.lost["wait_s"] is None or s.lost["handler_s"] is None else ""
    return f"{who} {verb} {least}{percent(s.lost['share'])} of {cpus} to shootdowns: {first}."


def _most(s: _Counts, calls: int) -> str:
    sites = s.call_sites
    sums: dict[str, int] = {}
    for call, count in zip(sites["call"].tolist(), sites["calls"].tolist(), strict=True):
        sums[call] = sums.get(call, 0) + count
    call = max(sums, key=lambda name: (sums[name], name))
    mine = sites["call"] == call
    low = sites["pages_min"][mine & (sites["calls"] > 0) & (sites["pages_min"] >= 0)]
    high = sites["pages_max"][mine & (sites["calls"] > 0) & (sites["pages_max"] >= 0)]
    size = f" of {_pages(int(low.min()), int(high.max()))}" if len(low) else ""
    of = {t["id"]: t for t in s.figures["report"]["threads"]}
    ids = set(s.threads["pid"].tolist())
    senders = {
        row["thread"]
        for row in s.figures["report"]["rows"]
        if row["call"] == call and row["victims"] and of[row["thread"]]["pid"] in ids
    }
    names = sorted({re.sub(r"[#\-_:/ ]*\d+$", "", of[t]["comm"]) or of[t]["comm"] for t in senders})
    named = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    what = call if call != "not recorded" else "by a call that is not recorded,"
    return f"{percent(sums[call] / calls)} are {what}{size} by {times(len(senders), 'thread')} ({named})"


def _pages(low: int, high: int) -> str:
    return times(low, "page") if low == high else f"{low:,} to {high:,} pages"


def shootdowns_text(s: _Counts) -> str:
    """Write the report."""
    report = s.figures["report"]
    events = report["events"]
    lines = [
        f"{s.path}: {duration(s.seconds * 1e6)}, {events:,} events, CPUs {show_cpus(s.cpus)}",
        f"Process: {s.process or 'all'}",
        "",
        "In short",
        *paragraph(_capital(sentence(s)), indent="    ", first="  - "),
    ]
    if (text := helps(s)) is not None:
        lines += paragraph(text, indent="    ", first="  - ")
    if len(s.call_sites["call"]):
        lines += _lost(s)
        lines += _sites(s)
        lines += _pairs(s)
        lines += _states(s)
        lines += _threads(s)
        lines += _spaces(s)
        lines += _stacks(s)
        lines += _what_if(s)
    if s.missing:
        lines += ["", "What this recording cannot say"]
        for gap in s.missing:
            lines += paragraph(f"{gap['question']}: {gap['because']}.", indent="    ", first="  - ")
    return "\n".join(lines)


def _capital(text: str) -> str:
    return text if not text.startswith("all ") else text[:1].upper() + text[1:]


def _of(value: float | None, s: _Counts) -> str:
    if value is None:
        return "not recorded"
    whole = s.seconds * len(s.cpus)
    share = f" ({percent(value / whole)} of {times(len(s.cpus), 'CPU')})" if whole else ""
    return f"{duration(value * 1e6)}{share}"


def _lost(s: _Counts) -> list[str]:
    rows = [
        ["senders waited", _of(s.lost["wait_s"], s), "measured"],
        ["victims' handlers", _of(s.lost["handler_s"], s), "measured"],
    ]
    if s.lost["longest_wait_us"] is not None:
        rows.insert(1, ["longest wait", duration(s.lost["longest_wait_us"]), "measured"])
    if s.predicted is not None:
        for name, what in (("entry_s", "entries and exits"), ("refill_s", "refills, at most")):
            low, high = s.predicted[name]
            whole = s.seconds * len(s.cpus)
            ends = [duration(high * 1e6)] if name == "refill_s" else [duration(e * 1e6) for e in (low, high)]
            parts = (
                [percent(e / whole) for e in ((high,) if name == "refill_s" else (low, high))]
                if whole
                else []
            )
            text = " to ".join(ends) + (
                f" ({' to '.join(dict.fromkeys(parts))} of {times(len(s.cpus), 'CPU')})" if parts else ""
            )
            rows.append([f"victims' {what}", text, f"predicted for {s.machine}"])
    return ["", "Time lost", *columns(rows, "<<<")]


def _number(value: float, unit: str) -> str:
    if math.isnan(value):
        return "not recorded"
    return duration(value * {"ms": 1e3, "us": 1}[unit])


def _sites(s: _Counts) -> list[str]:
    t = s.call_sites
    rows = [["calls", "flushes", "sent", "size", "extent", "waited", "handlers", "call"]]
    merged: dict[tuple[Any, ...], list[float]] = {}
    for i in range(len(t["call"])):
        tables = {"yes": " + tables", "no": "", "not recorded": ""}[t["tables"][i].item()]
        key = (t["size"][i].item(), t["extent"][i].item().replace("_", " ") + tables, t["call"][i].item())
        one = merged.setdefault(key, [0, 0, 0, 0.0, 0.0])
        for at, name in enumerate(("calls", "flushes", "shootdowns", "wait_ms", "handler_ms")):
            one[at] += t[name][i].item()
    order = sorted(merged, key=lambda k: (-merged[k][0], -merged[k][1], k))
    for key in order[:_ROWS]:
        calls, flushes, sent, wait, handler = merged[key]
        unknown = sent > 0 and calls == 0 and s.figures["report"]["kinds"]["csd"] == 0
        rows.append(
            [
                "not recorded" if unknown else n(calls),
                n(flushes),
                n(sent),
                key[0],
                key[1],
                _number(wait, "ms"),
                _number(handler, "ms"),
                key[2],
            ]
        )
    more = len(order) - _ROWS
    tail = [f"  and {times(more, 'kind')} with fewer"] if more > 0 else []
    title = "By call site (remote calls; flushes that asked another CPU under 'sent')"
    return ["", title, *columns(rows, ">>><<>><"), *tail]


def _pairs(s: _Counts) -> list[str]:
    t = s.pairs
    if not len(t["calls"]):
        return []
    victims = sorted(set(t["victim_cpu"].tolist()))
    senders = sorted(set(t["sender_cpu"].tolist()))
    cell = {
        (a, b): c
        for a, b, c in zip(
            t["sender_cpu"].tolist(), t["victim_cpu"].tolist(), t["calls"].tolist(), strict=True
        )
    }
    lines = ["", "Sender (down) and victim (across), remote calls"]
    if len(victims) <= _MATRIX and len(senders) <= _MATRIX:
        rows = [["", *(f"CPU {v}" for v in victims), ""]]
        rows += [[f"CPU {a}", *(n(cell.get((a, v), 0)) for v in victims), ""] for a in senders]
        return [*lines, *(line.rstrip() for line in columns(rows, ">" * (len(victims) + 2)))]
    lines = ["", "Sender and victim, remote calls (most first)"]
    order = sorted(cell, key=lambda k: (-cell[k], k))
    rows = [[n(cell[k]), f"CPU {k[0]} to CPU {k[1]}"] for k in order[:_ROWS]]
    more = len(order) - _ROWS
    return [*lines, *columns(rows, "><"), *([f"  and {times(more, 'pair')} with fewer"] if more > 0 else [])]


def _states(s: _Counts) -> list[str]:
    t = s.victims
    if not len(t["calls"]):
        return []
    rows = []
    for state, text in _STATES.items():
        mine = t["state"] == state
        count = int(t["calls"][mine].sum())
        if not count:
            continue
        sums: dict[str, int] = {}
        for comm, calls in zip(t["comm"][mine].tolist(), t["calls"][mine].tolist(), strict=True):
            sums[comm] = sums.get(comm, 0) + calls
        order = sorted(sums, key=lambda c: (-sums[c], c))
        who = ", ".join(f"{comm} {n(sums[comm])}" for comm in order[:4]) + (", ..." if len(order) > 4 else "")
        spent = duration(float(t["handler_ms"][mine].sum()) * 1e3)
        rows.append([n(count), percent(count / int(t["calls"].sum())), spent, f"{text} ({who})"])
    return ["", "What the victims' CPUs were doing (calls, share, time in handlers)", *columns(rows, ">>><")]


def _threads(s: _Counts) -> list[str]:
    t = s.threads
    rows = [["calls", "flushes", "waited", "thread"]]
    for i in range(min(len(t["pid"]), _ROWS)):
        process = t["process_id"][i].item()
        pid = t["pid"][i].item()
        of = f" of process {process}" if process not in (-1, pid) else ""
        wait = _number(t["wait_ms"][i].item(), "ms")
        rows.append([n(t["calls"][i].item()), n(t["flushes"][i].item()), wait, f"{t['comm'][i]} {pid}{of}"])
    more = len(t["pid"]) - _ROWS
    return [
        "",
        "By thread",
        *columns(rows, ">>><"),
        *([f"  and {times(more, 'thread')} more"] if more > 0 else []),
    ]


def _spaces(s: _Counts) -> list[str]:
    t = s.address_spaces
    if not len(t["mm"]):
        return []
    rows = [["calls", "flushes", "full", "address space"]]
    rows += [
        [*(n(t[name][i].item()) for name in ("calls", "flushes", "full")), f"{t['mm'][i]} ({t['comm'][i]})"]
        for i in range(min(len(t["mm"]), _ROWS))
    ]
    more = len(t["mm"]) - _ROWS
    tail = [f"  and {times(more, 'address space')} more"] if more > 0 else []
    return ["", "By address space (mm)", *columns(rows, ">>><"), *tail]


def _stacks(s: _Counts) -> list[str]:
    t = s.call_sites
    lines = []
    for i in [i for i in range(len(t["stack"])) if t["stack"][i]][:3]:
        text = f"{n(t['calls'][i].item())} by {t['call'][i]}: {t['stack'][i]}"
        lines += paragraph(text, indent="    ", first="  ")
    return ["", "Call chains of the first", *lines] if lines else []


def _what_if(s: _Counts) -> list[str]:
    if not int(s.call_sites["calls"].sum()):
        return []
    t = s.what_if
    timed = s.lost["share"] is not None
    rows = [["remedy", "remote calls left", *(["time lost"] if timed else []), ""]]
    for i in range(len(t["remedy"])):
        shares = [_shares(t["share_low"][i].item(), t["share_high"][i].item())] if timed else []
        left = span(t["calls_low"][i].item(), t["calls_high"][i].item())
        rows.append([str(t["remedy"][i]), left, *shares, str(t["note"][i])])
    return ["", "What would be left (predicted)", *columns(rows, "<><<" if timed else "<><")]


def _shares(low: float, high: float) -> str:
    if math.isnan(low) or math.isnan(high):
        return "not known"
    ends = percent(low), percent(high)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def helps(s: _Counts) -> str | None:
    """Say in one sentence what the largest batch and a broadcast would leave; None if that is not recorded."""
    t = s.what_if
    if s.lost["share"] is None or not int(s.call_sites["calls"].sum()):
        return None
    of = {str(name): i for i, name in enumerate(t["remedy"].tolist())}
    batches = [name for name in of if name.startswith("batch of ")]
    parts = []
    if batches:
        i = of[batches[-1]]
        parts.append(
            f"in batches of {batches[-1].removeprefix('batch of ')} (munmap, madvise, mprotect) they would cost "
            f"{_shares(t['share_low'][i].item(), t['share_high'][i].item())}"
        )
    i = of["INVLPGB"]
    parts.append(
        f"broadcast by INVLPGB {_shares(t['share_low'][i].item(), t['share_high'][i].item())}, where CPU and "
        "kernel have it"
    )
    return f"Predicted: {'; '.join(parts)}."
