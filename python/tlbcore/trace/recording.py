"""Recordings of real kernels: read one, and hold what it says about the isolated CPUs in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore import _core
from tlbcore._core import TraceError
from tlbcore._input.cpus import CpuListError, as_cpus, show_cpus
from tlbcore._output.calls import kept
from tlbcore._output.files import keep_apart, same_file, sealed
from tlbcore._output.progress import Progress, shown
from tlbcore._output.result import Result, _made, rows_table
from tlbcore._output.table import Table
from tlbcore.trace.stolen import stolen_ms

if TYPE_CHECKING:
    from tlbcore.policy import Policy

__all__ = ["Cause", "PartialTraceError", "Trace", "causes", "parse_cpus", "read_trace"]


class PartialTraceError(TraceError):
    """A recording that ends in damage, or does not have the CPUs that were asked for.

    Attributes
    ----------
    partial : Trace
        What could be read.
    """

    def __init__(self, message: str, partial: Trace) -> None:
        super().__init__(message)
        self.partial = partial


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One entry of the catalogue of what interrupts an isolated CPU.

    Attributes
    ----------
    id
        Stable word used in tables and JSON.
    call_class
        purge, vunmap, alias, table_free, set_memory, text, user, other or unknown.
    title, signature, chain, meaning
        In a few words; how it looks in a trace; the kernel functions from who interrupts to who asked (`<-`
        reads "called by"); what happens.
    deferral, because
        `kernel_range` (the list of v7 30/31), `text_sync`, `never` or `unknown`; and why.
    helps
        What an operator can do.
    kind
        `interrupt`, `softirq`, `task`, `nmi` or `firmware`.
    kernels
        Kernels that have it (`6.8-`; `any`), as far as they were looked at.
    remedies
        Pairs of kernels (`6.12-7.2`; `x86` for an architecture) and what helps, or does not, on those.
    """

    id: str
    kind: str
    call_class: str
    title: str
    signature: str
    chain: str
    meaning: str
    deferral: str
    because: str
    helps: str
    kernels: str
    remedies: tuple[tuple[str, str], ...]


class Causes(Result, Mapping[str, Cause]):
    """The catalogue of causes by id; a table too."""

    def __init__(self, rows: Mapping[str, Cause]) -> None:
        self._rows = MappingProxyType(dict(rows))

    def __getitem__(self, name: str) -> Cause:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _tables(self) -> dict[str, Table]:
        return {"causes": rows_table(list(self.values()))}

    def _about(self) -> dict[str, Any]:
        return {"version": _core.__version__}

    def __repr__(self) -> str:
        return f"<Causes: {', '.join(self)}>"


def _causes() -> Causes:
    rows = (
        Cause(
            id=row["id"],
            call_class=row["class"],
            kind=row["kind"],
            title=row["title"],
            signature=row["signature"],
            chain=row["chain"],
            meaning=row["meaning"],
            deferral=row["deferral"],
            because=row["because"],
            helps=row["helps"],
            kernels=row["kernels"],
            remedies=tuple(row["remedies"]),
        )
        for row in _core.trace_causes()
    )
    return Causes({row.id: row for row in rows})


causes: Causes = _causes()
"""The catalogue of causes by id."""


def parse_cpus(cpus: str | Iterable[int]) -> tuple[int, ...]:
    """Return the CPUs of a kernel CPU list, or of numbers, ascending.

    Raises
    ------
    TraceError
        If it is no list of CPUs, or names none.

    >>> parse_cpus("18-20,2")
    (2, 18, 19, 20)
    """
    try:
        found = as_cpus(cpus)
    except CpuListError as error:
        raise TraceError(f"isolated CPUs: {error}") from None
    if not found:
        raise TraceError("isolated CPUs: the list is empty")
    return found


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Trace(Result):
    """A recording after one pass: figures, remote calls and purges, never the events themselves.

    Made by `read_trace`. Times are seconds of the recording's trace clock. Figures count the whole recording, or
    with `between=` what lies between two texts in `trace_marker`. What a recording does not show is None, never 0.

    Attributes
    ----------
    path
        As given; `-` is standard input.
    isolated
        The isolated CPUs.
    isolated_from
        `given`, `recorded` (by `tlbcore record`), `context_tracking` (deduced: only nohz_full CPUs have
        user_enter and user_exit events), `only_cpu` (deduced: one CPU was recorded, as the kernel's
        cpu-isolation guide does it) or `none`.
    seconds, events, lines
        What the figures cover (of a flight recorder the sum of its pieces), and lines read.
    calls
        Remote calls to isolated CPUs, one row per call in the order they were queued: `queued_s`, `ran_s`,
        `other_entry_s` (when the target next entered the kernel for another reason; NaN: not seen), `cpu`,
        `function`, `cause`, `class`, `evidence`, `initiator`, `sender_cpu` (-1: unknown), `in_interrupt`,
        `mode`, `mode_sure`, `traced`, `interrupt`, `queued_line`, `ran_line`. The first 131,072; others are counted.
    purges
        Purges of the lazy vmalloc list that purged something: `at_s`, `areas`, `span_pages`, `charged_areas`,
        `unknown_areas`, `by`, `largest_owner`, `largest_owner_areas`, `largest_cgroup` (`unknown` where the
        recording tells none), `largest_cgroup_areas`, `line`; the first 32,768. `charged_areas` and
        `unknown_areas` sum to `areas`.
    figures
        Everything else, as in the JSON of `tlbcore explain`.
    damage
        Why reading ended early, or None.
    """

    path: str
    isolated: tuple[int, ...]
    isolated_from: str
    seconds: float
    events: int
    lines: int
    calls: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    purges: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    figures: Mapping[str, Any] = field(repr=False)
    damage: str | None = None
    _data: _core.TraceData | None = field(repr=False)

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        return {"calls": self.calls, "purges": self.purges}

    def _about(self) -> dict[str, Any]:
        return {
            "recording": self.path, "isolated": self.isolated, "isolated_from": self.isolated_from,
            "seconds": self.seconds, "events": self.events, "damage": self.damage, "version": _core.__version__,
        }  # fmt: skip

    def _read(self) -> tuple[str, ...]:
        return pieces(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        report = self.figures["report"]
        report["policies"]  # a saved trace cannot make them any more
        figures = MappingProxyType({**self.figures, "report": dict(report)})
        return sealed(_made, (type(self), {**self.__dict__, "figures": figures, "_data": None}))

    @property
    def recorded(self) -> _core.TraceData:
        """What a replay needs; raises `TraceError` for a trace that was saved, which has its figures only."""
        if self._data is None:
            raise TraceError(
                f"{self.path}: was loaded without its events: read_trace reads the recording again"
            )
        return self._data

    @property
    def has_events(self) -> bool:
        """Whether `spans`, `to_perfetto` and `replay` work: a trace that was saved has its figures only."""
        return self._data is not None

    @property
    def spans(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """What took isolated CPUs from their tasks, a row each: `at_s`, `length_us` (NaN: no end), `cpu`, `cause`.

        The first 131,072 of interrupts with a remote call, and as many of everything else.
        """
        return _columns(self.recorded.spans())

    def deferred(self, policy: str | Path | Policy) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return what would have waited on each isolated CPU under a policy, a row per change.

        Columns: `at_s`, `cpu`, `in_favour` (what the recording leaves open is taken as the policy would like it, or
        the other way), `value`: how many deferred requests the CPU has not made up for from then on. The times with
        some are the `exposure_s` of `replay`.

        Raises
        ------
        PolicyError
            For a policy that is not known, or one that a recording says nothing about.
        """
        from tlbcore.policy import as_policies

        (one,) = as_policies([policy])
        return _columns(self.recorded.levels(one.text, one.file, True))

    def to_perfetto(self, path: str | Path, *, policies: Sequence[str | Path | Policy] = ()) -> None:
        """Write a timeline for ui.perfetto.dev: what took each isolated CPU, arrows from senders, purges.

        Parameters
        ----------
        path
            The file, as JSON of Chrome's trace events if its name ends in `.json`; replaced if it exists. `OSError`
            if it cannot be written, `ConfigError` if it is the recording.
        policies
            For each a counter per isolated CPU: what would wait there to be made up for (`deferred`).
        """
        keep_apart(Path(path), self._read())
        from tlbcore._output.perfetto import of_trace
        from tlbcore.policy import as_policies

        of_trace(
            path, self.spans, self.calls, self.purges, isolated=self.isolated,
            causes={name: (cause.title, cause.kind) for name, cause in causes.items()},
            lazy=_columns(self.recorded.lazy_pages()),
            deferred={one.name: self.deferred(one) for one in as_policies(policies)},
        )  # fmt: skip

    def __repr__(self) -> str:
        cpus = ",".join(map(str, self.isolated)) or "none"
        return f"<Trace {self.path}: {self.events} events, {self.seconds:.3f} s, isolated {cpus}>"


class _Report(dict[str, Any]):
    """The report, without `policies` until they are asked for: replays take longer than the reading."""

    def __init__(self, report: Mapping[str, Any], data: _core.TraceData) -> None:
        super().__init__(report)
        self._data: _core.TraceData | None = data

    def __missing__(self, key: str) -> Any:
        if key != "policies" or self._data is None:
            raise KeyError(key)
        self[key] = json.loads(self._data.policies())
        return self[key]


def files_of(path: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the files of one recording, each of which can be opened.

    Raises
    ------
    OSError
        If one cannot be.
    TraceError
        If there is none, or one is named twice: its events would count twice.
    """
    names = [str(path)] if isinstance(path, (str, Path)) else [str(one) for one in path]
    if not names:
        raise TraceError("no recording is named")
    for i, one in enumerate(names):
        if one != "-":
            with Path(one).open("rb"):
                pass
        if any(one == other or same_file(Path(one), Path(other)) for other in names[:i]):
            raise TraceError(f"{one}: is named twice as a piece of one recording")
    return names


def pieces(path: str) -> tuple[str, ...]:
    """Return the files that a result's `path` may name; standard input is none."""
    return tuple(one for one in {path, *path.split(" + ")} if one != "-")


def _columns(found: Mapping[str, object]) -> Mapping[str, np.ndarray[Any, Any]]:
    columns = {name: np.asarray(values) for name, values in found.items()}
    return Table(columns)


@kept
def read_trace(
    path: str | Path | Sequence[str | Path],
    *,
    isolated: str | Iterable[int] | None = None,
    progress: Progress | bool | None = None,
    between: tuple[str, str] | None = None,
) -> Trace:
    """Read a recording in one pass; memory does not depend on its length.

    Understands the kernel's own ftrace text (`trace`, `trace_pipe`), `trace-cmd report`, trace-cmd's own
    `trace.dat` (formats 6 and 7) and `perf script`; plain, .gz, .xz or .zst, told apart by content.

    Parameters
    ----------
    path
        File, or `-` for standard input. Several are one recording in pieces, such as per-CPU files: their
        lines are merged by time.
    isolated
        The isolated CPUs, as a kernel CPU list ("2-3,8") or numbers. Left out, they are those with user_enter
        or user_exit events, which exist only on nohz_full CPUs.
    progress
        Called now and then with (bytes of text read, None); True shows a bar, on a terminal or in a notebook.
    between
        Two texts that `trace_marker` lines begin with: count only from the first to the second, each time they
        come; an empty one is the beginning or the end of the recording. `("GT_BEGIN", "GT_END")` frames the load
        in the recordings that the tests of this project use.

    Raises
    ------
    OSError
        If the file cannot be opened.
    TraceError
        If it is empty, binary, has no trace line, or is of a shape that is known and not read: the message says
        what it looks like and which command prints a form that is. If the marker that opens `between` is absent.
    PartialTraceError
        If compressed data is damaged or ends early, or `isolated` names CPUs the machine does not have; its
        `partial` holds what was read.
    """
    names = files_of(path)
    name = " + ".join(names)
    given = None if isolated is None else parse_cpus(isolated)
    if between is not None and not any(between):
        raise TraceError(f"between: expected two texts of trace_marker: got {between!r}")
    with shown(progress, "reading", "bytes") as advance:
        told = None if advance is None else (lambda done, _lines: advance(done, None))
        data = _core.trace_read(names, given, told, between)
    figures = json.loads(data.figures())
    report = figures["report"] = _Report(figures["report"], data)
    if not report["window_found"]:
        assert between is not None
        raise TraceError(
            f"{name}: no text in trace_marker begins with {between[0]!r}, which opens what is counted"
        )
    stolen = stolen_ms(figures["notes"])
    for cpu in report["isolated"]:
        cpu["stolen_ms"], cpu["stolen_ms_range"] = None, None
        if (found := stolen.get(cpu["cpu"])) is not None:
            cpu["stolen_ms"], cpu["stolen_ms_range"] = found[0], list(found[1:])
    kernels = {value for key, value in figures["notes"] if key == "version"}
    if len(kernels) > 1:
        raise TraceError(
            f"{name}: the pieces come from different kernels, which cannot be one recording: "
            + "; ".join(sorted(kernels))
        )
    trace = Trace(
        path=name,
        isolated=tuple(cpu["cpu"] for cpu in report["isolated"]),
        isolated_from=report["isolated_from"],
        seconds=report["seconds"],
        events=report["events"],
        lines=figures["lines"],
        calls=_columns(data.calls()),
        purges=_columns(data.purges()),
        figures=MappingProxyType(figures),
        damage=data.error,
        _data=data,
    )
    if trace.damage is not None:
        raise PartialTraceError(trace.damage, trace)
    if given is not None:
        seen = {*report["cpus_seen"], *report["cpus_named"]}
        machine = figures["machine_cpus"] or 0
        # A quiet isolated CPU has no events. Where the recording does not tell the machine's size
        # (trace_pipe), twice the CPUs seen are believed.
        believed = machine or 2 * (max(seen, default=-1) + 1)
        absent = [cpu for cpu in given if cpu not in seen and cpu >= believed]
        if absent:
            known = f"CPUs 0-{machine - 1}" if machine else f"events of CPUs {show_cpus(sorted(seen))}"
            raise PartialTraceError(
                f"{name}: isolated CPUs {show_cpus(absent)} are not in this trace, which has {known}", trace
            )
    return trace
