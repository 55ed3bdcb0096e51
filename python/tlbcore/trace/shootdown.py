"""Shootdowns of user ranges in a recording: who asks for them, by which call, whom they interrupt, what it costs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore import _core
from tlbcore._core import TraceError
from tlbcore._input.numbers import count
from tlbcore._output.calls import kept
from tlbcore._output.files import keep_apart
from tlbcore._output.progress import Progress, shown
from tlbcore._output.result import Result
from tlbcore._output.table import Table
from tlbcore.trace.recording import files_of, pieces
from tlbcore.trace.remedies import remedies
from tlbcore.trace.shootdown_tables import (
    Rows,
    address_spaces_table,
    call_sites_table,
    pairs_table,
    threads_table,
    victims_table,
)

if TYPE_CHECKING:
    from tlbcore.hardware import Machine

__all__ = ["Shootdowns", "shootdowns"]

_TABLES = ("call_sites", "pairs", "threads", "victims", "address_spaces", "what_if")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Shootdowns(Result):
    """Flushes of user ranges by one process, or by all, and whom they interrupted. Made by `shootdowns`.

    A *flush* is one `flush_tlb_mm_range` (or, where that is not probed, what `tlb_flush` shows of one); a *shootdown*
    is a flush that asked at least one other CPU; a *call* is what one CPU was asked to run. Times are measured in
    the recording unless `predicted`. What is not recorded is NaN or None, never 0.

    Attributes
    ----------
    path, seconds
        The recording, and how much time the figures cover.
    process
        Name and ids of the process, or None for all.
    cpus
        CPUs of the machine if the recording tells, else those with events.
    call_sites
        One row per system call (or what else flushed), size class, extent and call chain, most calls first: `call`,
        `size`, `pages_min`, `pages_max` (of the call's own length if recorded, else of the flush; -1: not recorded),
        `extent` (`full`, `ranged`, `table_sync`, `unknown`), `tables` (`yes`, `no`, `not recorded`: page tables were
        freed), `flushes`, `shootdowns`, `calls`, `wait_ms` (from the last call queued, or the end of the sender's own
        flush, to the end of the last victim's function), `wait_max_us`, `handler_ms` (victims), `stack`.
    pairs
        `sender_cpu`, `victim_cpu`, `calls`, `interrupts`, `handler_ms`.
    threads
        Senders: `pid`, `process_id` (-1: not recorded), `comm`, `flushes`, `shootdowns`, `calls`, `wait_ms`.
    victims
        Who ran where a call arrived: `comm`, `pid`, `state` (`running` the process, `idle`, `lazy`: a kernel thread,
        `elsewhere`: another process, so that the interrupt was for nothing, `unknown`), `calls`, `interrupts`,
        `handler_ms`.
    address_spaces
        `mm`, `comm`, `flushes`, `full`, `calls`; empty without a probe on `flush_tlb_mm_range`.
    what_if
        What each remedy would leave, as intervals: `remedy`, `calls_low`, `calls_high` (remote calls),
        `interrupts_low`, `interrupts_high` (-1: not recorded), `share_low`, `share_high` (of the CPUs' time; NaN: not
        recorded, or its cost is not known), `note`. The row `recorded` is measured, all others are predicted.
    lost
        `wait_s` and `handler_s`, and both as `share` of the CPUs' time; None: not recorded.
    predicted
        For the machine asked for: seconds of kernel entries and exits (`entry_s`) and of TLB refills (`refill_s`), as
        pairs low, high; None without a machine.
    missing
        Questions the recording leaves open, with what is missing.
    spans
        System calls that flushed, their flushes, and what ran for them on other CPUs, a row each: `kind` (`call`,
        `flush`, `handler`), `what`, `at_s`, `length_us` (NaN: no end), `cpu`, `thread` (a number of `figures`; -1:
        none) and, of a handler, `asked_s`, `sender_cpu`, `sender`. The first 131,072 of each kind, of all processes.
    figures
        Everything, as counted, of all processes.
    senders
        The threads that are shown, as `name (id)`, by their number.
    damage
        Why reading ended early, or None.
    """

    path: str
    process: str | None
    seconds: float
    cpus: tuple[int, ...]
    call_sites: Table
    pairs: Table
    threads: Table
    victims: Table
    address_spaces: Table
    what_if: Table
    lost: Mapping[str, Any]
    predicted: Mapping[str, tuple[float, float]] | None
    missing: tuple[Mapping[str, str], ...]
    figures: Mapping[str, Any] = field(repr=False)
    machine: str | None = None
    damage: str | None = None
    spans: Mapping[str, Any] = field(default_factory=lambda: Table({}), repr=False)
    senders: Mapping[int, str] = field(default_factory=dict, repr=False)

    def to_perfetto(self, path: str | Path) -> None:
        """Write a timeline for ui.perfetto.dev: system calls and flushes of each thread, arrows to whom they interrupt.

        Parameters
        ----------
        path
            The file, as JSON of Chrome's trace events if its name ends in `.json`; replaced if it exists. `OSError`
            if it cannot be written, `ConfigError` if it is the recording.
        """
        keep_apart(Path(path), self._read())
        from tlbcore._output.perfetto import of_shootdowns

        of_shootdowns(path, self.spans, self.senders)

    def _read(self) -> tuple[str, ...]:
        return pieces(self.path)

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        return {name: getattr(self, name) for name in _TABLES}

    def _about(self) -> dict[str, Any]:
        return {
            "recording": self.path, "process": self.process, "seconds": self.seconds, "machine": self.machine,
            "damage": self.damage, "version": _core.__version__,
        }  # fmt: skip

    def __repr__(self) -> str:
        calls = int(self.call_sites["calls"].sum())
        return f"<Shootdowns of {self.process or 'all processes'} in {self.path}: {calls} calls>"

    def __str__(self) -> str:
        from tlbcore.trace.report.shootdowns import shootdowns_text

        return shootdowns_text(self)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document without its `schema` and `version`."""
        from tlbcore.trace.report.shootdowns import sentence

        report = self.figures["report"]
        return {
            "trace": {
                "path": self.path,
                "seconds": self.seconds,
                "events": report["events"],
                "lines": self.figures["lines"],
                "broken_lines": self.figures["broken_lines"],
                "holes": report["holes"],
                "damage": self.damage,
            },
            "process": self.process,
            "cpus": list(self.cpus),
            "sentence": sentence(self),
            "recorded": report["kinds"],
            **{name: records(getattr(self, name)) for name in _TABLES},
            "lost": dict(self.lost),
            "predicted": None if self.predicted is None else dict(self.predicted),
            "machine": self.machine,
            "missing": [dict(gap) for gap in self.missing],
        }


def records(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a table as one dict per row; -1 and NaN, which stand for *not recorded*, as None."""
    names = list(table)
    rows = zip(*(table[name].tolist() for name in names), strict=True)
    return [
        {
            name: None if value == -1 or value != value else value
            for name, value in zip(names, row, strict=True)
        }
        for row in rows
    ]


@kept
def shootdowns(
    path: str | Path | Sequence[str | Path],
    *,
    process: str | int | None = None,
    between: tuple[str, str] | None = None,
    machine: str | Machine | None = None,
    batches: Sequence[int] = (8, 32),
    progress: Progress | bool | None = None,
) -> Shootdowns:
    """Read a recording in one pass and count its shootdowns of user ranges; every CPU can be a victim.

    Parameters
    ----------
    path
        As for `read_trace`.
    process
        A name (of a process or of any of its threads, as the kernel has it: at most 15 bytes), or an id; `"412#2"` is
        the second process that had the id 412; `"/a/b"` is a control group, if the recorder wrote them down. Left out,
        all processes are counted.
    between
        As for `read_trace`.
    machine
        A preset for which kernel entries and refills are predicted.
    batches
        How many flushes in a row of one thread share one, each a row of `what_if`.
    progress
        As for `read_trace`.

    Raises
    ------
    TraceError
        As `read_trace`; if a batch is below 1; if no such process is in the recording, or more than one had that id.
    """
    names = files_of(path)
    if between is not None and not any(between):
        raise TraceError(f"between: expected two texts of trace_marker: got {between!r}")
    if isinstance(process, bool) or not isinstance(process, (str, int, type(None))):
        raise TraceError(f"process: expected a name or an id: got {process!r}")
    sizes = [count(batch, "batches", 1, 1 << 20, error=TraceError) for batch in batches]
    with shown(progress, "reading", "bytes") as advance:
        told = None if advance is None else (lambda done, _lines: advance(done, None))
        text, spans = _core.trace_shootdowns(names, told, between, sizes)
    figures = json.loads(text)
    name = " + ".join(names)
    report = figures["report"]
    if not report["found"]:
        assert between is not None
        raise TraceError(
            f"{name}: no text in trace_marker begins with {between[0]!r}, which opens what is counted"
        )
    processes = _processes(report["threads"])
    notes = figures["notes"]
    chosen = None if process is None else _select(name, report, processes, process, notes)
    of = {t["id"]: t for t in report["threads"]}
    mine = set(of) if chosen is None else {t["id"] for members in chosen.values() for t in members}
    whole = machine
    if isinstance(machine, str):
        from tlbcore.hardware import machine as by_name

        whole = by_name(machine)
    known = figures["machine_cpus"]
    cpus = tuple(range(known)) if known else tuple(report["cpus"])
    rows = [row for row in report["rows"] if row["thread"] in mine]
    victims = [row for row in report["victims"] if row["thread"] in mine or _unasked(row, mine, chosen)]
    lost = _lost(report, rows, victims, len(cpus))
    sites = call_sites_table(rows, report)
    pairs = pairs_table([row for row in report["pairs"] if row["thread"] in mine], report)
    return Shootdowns(
        path=name,
        process=None if process is None or chosen is None else _title(process, chosen),
        seconds=report["seconds"],
        cpus=cpus,
        call_sites=sites,
        pairs=pairs,
        threads=threads_table(rows, of),
        victims=victims_table(victims, of),
        address_spaces=address_spaces_table([row for row in report["mms"] if row["thread"] in mine], of),
        what_if=remedies(
            sites,
            batches=_batches([row for row in report["batches"] if row["thread"] in mine]),
            running=_running(victims),
            cpus=len({*pairs["sender_cpu"].tolist(), *pairs["victim_cpu"].tolist()}),
            interrupts=int(pairs["interrupts"].sum()) if report["kinds"]["csd"] else None,
            cpu_seconds=None if lost["share"] is None else report["seconds"] * len(cpus),
            machine=whole,  # type: ignore[arg-type]
        ),
        lost=MappingProxyType(lost),
        predicted=None if whole is None else MappingProxyType(_predicted(whole, rows, victims)),  # type: ignore[arg-type]
        missing=tuple(MappingProxyType(gap) for gap in _missing(report)),
        figures=MappingProxyType(figures),
        machine=None if whole is None else getattr(whole, "name", str(whole)),
        damage=figures["error"],
        spans=Table({name: np.asarray(column) for name, column in spans.items()}),
        senders=MappingProxyType({row: f"{t['comm']} ({t['pid']})" for row, t in of.items() if row in mine}),
    )


Processes = dict[tuple[Any, ...], list[Mapping[str, Any]]]


def _unasked(row: Mapping[str, Any], mine: set[int], chosen: Processes | None) -> bool:
    """Tell whether a flush whose sender is not recorded is ours: it belongs to the process it found loaded."""
    return row["thread"] is None and (row["victim"] in mine or (chosen is None and row["victim"] is None))


def _processes(threads: Rows) -> Processes:
    """Put threads of one process together: by process id, else by who created them."""
    of = {t["id"]: t for t in threads}
    leaders: dict[int, list[Mapping[str, Any]]] = {}
    for t in threads:
        leaders.setdefault(t["pid"], []).append(t)
    found: Processes = {}
    for t in threads:
        tgid = t["tgid"] if t["tgid"] is not None else of.get(t["leader"], t)["tgid"]
        if tgid is None:
            lead = of.get(t["leader"], t)
            key: tuple[Any, ...] = (lead["pid"], lead["reuse"])
        else:
            # Of several that had this id one after the other, the last that had begun.
            begun = [lead for lead in leaders.get(tgid, []) if lead["first_s"] <= t["first_s"]]
            key = (tgid, max((lead["reuse"] for lead in begun), default=0))
        found.setdefault(key, []).append(t)
    return found


def _select(
    path: str,
    report: Mapping[str, Any],
    processes: Processes,
    process: str | int,
    notes: Sequence[tuple[str, str]],
) -> Processes:
    text = str(process)
    if text.startswith("/"):
        return _of_group(path, processes, text.rstrip("/") or "/", notes)
    match = re.fullmatch(r"(\d+)(?:#([1-9]\d*))?", text)
    if match:
        pid, which = int(match[1]), match[2]
        found = {
            key: members
            for key, members in processes.items()
            if key[0] == pid or any(t["pid"] == pid for t in members)
        }
        if which is not None:
            found = {key: members for key, members in found.items() if key == (pid, int(which) - 1)}
            if not found:
                raise TraceError(f"{path}: no process {text} in this recording")
        if not found and pid not in report["pids"]:
            raise TraceError(
                f"{path}: no process {pid} in this recording; its ids are those of the host "
                "(NSpid in the host's /proc/PID/status tells a container's)"
            )
        if len(found) > 1:
            each = ", ".join(f"{key[0]}#{key[1] + 1} ({_name(key, found[key])})" for key in sorted(found))
            raise TraceError(f"{path}: {pid} was the id of {len(found)} processes here, name one: {each}")
        return found
    # The kernel keeps 15 bytes of a name.
    short = text.encode()[:15].decode(errors="ignore")
    found = {key: members for key, members in processes.items() if any(t["comm"] == short for t in members)}
    if not found and short not in report["names"]:
        raise TraceError(f"{path}: {_unknown(text, report['names'])}")
    return found


def _of_group(path: str, processes: Processes, group: str, notes: Sequence[tuple[str, str]]) -> Processes:
    """Return the processes of a control group and those below it, as the recorder wrote them down."""
    groups = [value.split(" ", 1) for key, value in notes if key == "cgroup" and " " in value]
    if not groups:
        raise TraceError(
            f"{path}: which process is in which control group is not recorded (tlbcore record does)"
        )
    inside = [ids for ids, name in groups if name == group or name.startswith(f"{group}/")]
    if not inside:
        raise TraceError(f"{path}: {_unknown(group, [name for _, name in groups], 'control group')}")
    tasks: set[int] = set()
    for part in ",".join(inside).split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            tasks.update(range(int(first), int(last or first) + 1))
    return {
        key: members
        for key, members in processes.items()
        if key[0] in tasks or any(t["pid"] in tasks for t in members)
    }


def _unknown(name: str, names: Sequence[str], what: str = "process") -> str:
    from difflib import get_close_matches

    folded = {known.casefold(): known for known in names}
    near = [folded[close] for close in get_close_matches(name.casefold(), folded, n=3)]
    near += [known for known in names if name.casefold() in known.casefold() and known not in near]
    if near:
        return f"no {what} {name!r} in this recording, did you mean {' or '.join(map(repr, near[:3]))}?"
    if not names:
        return f"no {what} {name!r} in this recording, which names none"
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"no {what} {name!r} in this recording: it has {shown}"


def _name(key: tuple[Any, ...], members: Rows) -> str:
    lead = next((t for t in members if (t["pid"], t["reuse"]) == key), members[0])
    return str(lead["comm"])


def _title(process: str | int, chosen: Processes) -> str:
    if not chosen:
        return str(process)
    ids = ", ".join(str(key[0]) for key in sorted(chosen)[:4]) + (", ..." if len(chosen) > 4 else "")
    names = sorted({_name(key, members) for key, members in chosen.items()})
    text = str(process)
    name = names[0] if text[:1].isdigit() else text
    return f"{name} ({'process' if len(chosen) == 1 else f'{len(chosen)} processes'} {ids})"


def _on(report: Mapping[str, Any], kind: str, *events: str) -> bool:
    """Was this kind of event recorded, or at least switched on?"""
    on = report["switched_on"]
    return report["kinds"][kind] > 0 or any(name == e or name.startswith(e) for name in on for e in events)


def _lost(report: Mapping[str, Any], rows: Rows, victims: Rows, cpus: int) -> dict[str, Any]:
    timed = _on(report, "csd", "csd/csd_function_entry")
    waits = sum(row["waits"] for row in rows)
    asked = sum(row["shootdowns"] for row in rows)
    wait = sum(row["wait_ns"] for row in rows) / 1e9 if timed and (waits or not asked) else None
    handled = timed or report["kinds"]["vectors"] > 0
    ran = sum(row["calls"] for row in victims)
    handler = sum(row["ns"] for row in victims) / 1e9 if handled and (ran or not asked) else None
    span = report["seconds"] * cpus
    share = None
    if span > 0 and (wait is not None or handler is not None):
        share = ((wait or 0.0) + (handler or 0.0)) / span
    return {
        "wait_s": wait,
        "waits_recorded": waits,
        "handler_s": handler,
        "share": share,
        "longest_wait_us": max((row["longest_ns"] for row in rows), default=0) / 1e3 if waits else None,
    }


def _predicted(machine: Machine, rows: Rows, victims: Rows) -> dict[str, tuple[float, float]]:
    """Kernel entries and exits, and at most so many refills: each page once, or each entry of the largest array."""
    costs = machine.costs
    second = machine.mhz * 1e6
    came = sum(row["interrupts"] for row in victims)
    entry = [
        came * (getattr(costs["interrupt_entry"], end) + getattr(costs["interrupt_exit"], end)) / second
        for end in ("low", "high")
    ]
    entries = max(s["sets"] * s["ways"] for level in machine.levels for s in level["structures"])
    walk = costs["walk_setup"].cycles + costs["mem_l3"].cycles
    running = sum(row["calls"] for row in victims if row["state"] == "running")
    all_ran = sum(row["ran"] for row in rows)
    part = running / all_ran if all_ran else 0.0
    dropped = sum(
        row["ran"]
        * (min(row["pages"][1], entries) if row["extent"] == "ranged" and row["pages"] else entries)
        for row in rows
        if row["extent"] in ("ranged", "full")
    )
    return {"entry_s": (entry[0], entry[1]), "refill_s": (0.0, part * dropped * walk / second)}


def _batches(rows: Rows) -> list[dict[str, Any]]:
    """Add up what batches leave, over threads."""
    sums: dict[tuple[int, str], dict[str, Any]] = {}
    for row in rows:
        key = row["batch"], row["call"]
        one = sums.setdefault(
            key, {"batch": row["batch"], "call": row["call"], "calls": 0, "low": 0, "high": 0}
        )
        for name in ("calls", "low", "high"):
            one[name] += row[name]
    return list(sums.values())


def _running(victims: Rows) -> tuple[float, float]:
    """Return the share of the calls that found the process running, at least and at most."""
    calls = sum(row["calls"] for row in victims)
    running = sum(row["calls"] for row in victims if row["state"] == "running")
    unknown = sum(row["calls"] for row in victims if row["state"] == "unknown")
    return (running / calls, (running + unknown) / calls) if calls else (0.0, 1.0)


def _missing(report: Mapping[str, Any]) -> Iterable[dict[str, str]]:
    kinds = report["kinds"]
    if not _on(report, "syscalls", "raw_syscalls/", "syscalls/"):
        yield {"question": "by which system call", "because": "no raw_syscalls or syscalls events"}
    if not _on(report, "csd", "csd/"):
        because = "no csd events (kernels since 6.5 have them)"
        who = (
            "how long senders waited" if kinds["ipi"] else "who interrupted whom, and how long senders waited"
        )
        yield {"question": who, "because": because}
    if not _on(report, "tlb_flush", "tlb/") and not kinds["range_probe"]:
        yield {"question": "full or ranged, and how many pages", "because": "no tlb:tlb_flush events"}
    if not kinds["range_probe"]:
        yield {
            "question": "which address space, and whether page tables were freed",
            "because": "no probe on flush_tlb_mm_range",
        }
    if not _on(report, "vectors", "irq_vectors/"):
        yield {
            "question": "all of what a handler took",
            "because": "no irq_vectors events: only functions are timed",
        }
    if not kinds["stacks"]:
        yield {"question": "from which place in the kernel", "because": "no call chains (record --stacks)"}
    if not report["tgids"]:
        guessed = any(t["leader_guessed"] for t in report["threads"])
        how = "the clone that created them, and by clone3 without an exec" if guessed else "clone flags"
        yield {
            "question": "for certain which threads are one process",
            "because": f"no process ids (option record-tgid); threads are joined by {how}",
        }
    if report["unmatched"]:
        yield {
            "question": f"who asked for {report['unmatched']} functions",
            "because": "their queueing is missing",
        }
    if report["left_out"]:
        yield {"question": f"{report['left_out']} counts in the tables", "because": "more rows than are kept"}
    if report["holes"]:
        yield {"question": "what was lost", "because": f"events are missing at {report['holes']} places"}
