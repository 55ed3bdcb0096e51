"""Timelines for ui.perfetto.dev: what took each CPU, who sent it, what was pending, what was handed back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._output.visible import visible

Columns = Mapping[str, NDArray[Any]]

_LEVELS = {
    "deferred_flushes": "deferred flushes",
    "deferred_syncs": "deferred syncs of patched text",
    "lazy_pages": "lazily freed pages",
}


class _Rows:
    """Tracks, names and rows of one timeline, in columns."""

    def __init__(self) -> None:
        self.tracks: dict[tuple[str, str], tuple[int, str, int, bool]] = {}
        self.names: dict[str, int] = {}
        self.columns: list[tuple[NDArray[Any], ...]] = []

    def track(self, group: str, name: str, *, counter: bool = False) -> int:
        """Return the number of a track under a group, both made at first use."""
        if group and (group, "") not in self.tracks:
            self.tracks[group, ""] = (len(self.tracks), group, -1, False)
        if (group, name) not in self.tracks:
            parent = self.tracks[group, ""][0] if group else -1
            self.tracks[group, name] = (len(self.tracks), name, parent, counter)
        return self.tracks[group, name][0]

    def name(self, name: str) -> int:
        return self.names.setdefault(visible(name), len(self.names))

    def add(
        self,
        track: NDArray[Any] | int,
        name: NDArray[Any] | int,
        at_ns: NDArray[Any],
        *,
        length_ns: NDArray[Any] | int = -1,
        flow: NDArray[Any] | int = 0,
        value: NDArray[Any] | float = 0.0,
    ) -> None:
        """Add rows; a length below 0 is an instant, a flow of 0 joins nothing."""
        kinds = (np.uint64, np.int64, np.uint32, np.uint32, np.uint64, np.float64)
        given = (at_ns, length_ns, track, name, flow, value)
        rows = len(at_ns)
        self.columns.append(
            tuple(
                np.ascontiguousarray(np.broadcast_to(np.asarray(column, dtype=kind), rows))
                for column, kind in zip(given, kinds, strict=True)
            )
        )

    def write(self, path: str | Path) -> None:
        """Write the file; `OSError` names it."""
        names = list(self.names) or [""]
        joined = (
            [np.concatenate(column) for column in zip(*self.columns, strict=True)] if self.columns else None
        )
        if joined is None:
            joined = [np.zeros(0, dtype=kind) for kind in ("u8", "i8", "u4", "u4", "u8", "f8")]
        tracks = [(visible(name), parent, counter) for _, name, parent, counter in self.tracks.values()]
        with Path(path).open("wb"):  # an error of Python's names the file
            pass
        try:
            _core.perfetto_write(Path(path), tracks, names, *joined)
        except OSError as error:
            raise OSError(f"{path}: {error}") from error


def of_trace(
    path: str | Path,
    spans: Columns,
    calls: Columns,
    purges: Columns,
    *,
    isolated: tuple[int, ...],
    causes: Mapping[str, tuple[str, str]],
    lazy: Columns,
    deferred: Mapping[str, Columns],
) -> None:
    """Write a recording: slices of what took each isolated CPU, arrows from senders, the lazy list, what would wait.

    `causes` are titles and kinds by id; `deferred` is what each policy would have left to be made up for.
    """
    rows = _Rows()
    known = {str(cause): rows.name(causes[str(cause)][0]) for cause in np.unique(spans["cause"])}
    # Interrupts, soft interrupts and tasks overlap without nesting, so each kind has a track of its own.
    kinds = {
        cause: f"{causes[cause][1]}s" if causes[cause][1] != "firmware" else "firmware" for cause in known
    }
    for cpu in isolated:
        for kind in sorted(set(kinds.values())):
            of_kind = [cause for cause in known if kinds[cause] == kind]
            mine = (spans["cpu"] == cpu) & np.isin(spans["cause"], of_kind)
            if mine.any():
                track = rows.track(f"CPU {cpu} (isolated)", kind)
                length = np.where(np.isnan(spans["length_us"][mine]), -1, spans["length_us"][mine] * 1e3)
                name = np.array([known[str(cause)] for cause in spans["cause"][mine]], dtype=np.uint32)
                rows.add(track, name, _ns(spans["at_s"][mine]), length_ns=np.rint(length).astype(np.int64))
    _sent(rows, calls, isolated)
    for policy, levels in deferred.items():
        _waiting(rows, policy, levels, isolated)
    if len(lazy["at_s"]):
        track = rows.track("vmalloc", "lazily freed pages", counter=True)
        rows.add(track, rows.name("pages"), _ns(lazy["at_s"]), value=lazy["pages"].astype(np.float64))
    if len(purges["at_s"]):
        track = rows.track("vmalloc", "areas handed back by a purge", counter=True)
        rows.add(track, rows.name("areas"), _ns(purges["at_s"]), value=purges["areas"].astype(np.float64))
    rows.write(path)


def _waiting(rows: _Rows, policy: str, levels: Columns, isolated: tuple[int, ...]) -> None:
    """Add a counter per CPU of what would wait there, two where what is not recorded decides about it."""
    for cpu in isolated:
        both = []
        for in_favour in (True, False):
            mine = (levels["cpu"] == cpu) & (levels["in_favour"] == in_favour)
            both.append((_ns(levels["at_s"][mine]), levels["value"][mine].astype(np.float64)))
        same = all(np.array_equal(one, other) for one, other in zip(*both, strict=True))
        words = [""] if same else [", the open taken in its favour", ", the open taken against it"]
        for word, (at, value) in zip(words, both, strict=False):
            if len(at):
                name = f"deferred under {policy}{word}"
                track = rows.track(f"CPU {cpu} (isolated)", name, counter=True)
                rows.add(track, rows.name("requests"), at, value=value)


def _sent(rows: _Rows, calls: Columns, isolated: tuple[int, ...]) -> None:
    """Add a moment at the sender and one at the target of each remote call whose ends are known, and an arrow."""
    known = np.isfinite(calls["queued_s"]) & np.isfinite(calls["ran_s"]) & (calls["sender_cpu"] >= 0)
    flow = np.arange(1, len(known) + 1, dtype=np.uint64)
    name = np.array([rows.name(str(function)) for function in calls["function"]], dtype=np.uint32)
    for sender in np.unique(calls["sender_cpu"][known]):
        mine = known & (calls["sender_cpu"] == sender)
        group = f"CPU {sender}{' (isolated)' if int(sender) in isolated else ''}"
        rows.add(
            rows.track(group, "asks other CPUs"), name[mine], _ns(calls["queued_s"][mine]), flow=flow[mine]
        )
    for cpu in isolated:
        mine = known & (calls["cpu"] == cpu)
        if mine.any():
            track = rows.track(f"CPU {cpu} (isolated)", "remote calls run")
            rows.add(track, name[mine], _ns(calls["ran_s"][mine]), flow=flow[mine])


def of_simulation(
    path: str | Path, t: Columns, levels: Columns, purges: Columns, *, isolated: Collection[int]
) -> None:
    """Write the kept timeline of a simulation: events by CPU and kind, what was pending, and what purges freed."""
    rows = _Rows()
    for cpu in np.unique(t["cpu"]):
        for kind in np.unique(t["kind"][t["cpu"] == cpu]):
            mine = (t["cpu"] == cpu) & (t["kind"] == kind)
            group = f"CPU {cpu}{' (isolated)' if int(cpu) in isolated else ''}"
            name = np.array([rows.name(str(cause)) for cause in t["cause"][mine]], dtype=np.uint32)
            length = np.where(t["duration_ps"][mine] > 0, t["duration_ps"][mine] / 1e3, -1.0)
            track = rows.track(group, str(kind).replace("_", " "))
            rows.add(track, name, _ns(t["time_ps"][mine] * 1e-12), length_ns=np.rint(length).astype(np.int64))
    for cpu in np.unique(levels["cpu"]) if "cpu" in levels else ():
        for level in np.unique(levels["level"][levels["cpu"] == cpu]):
            mine = (levels["cpu"] == cpu) & (levels["level"] == level)
            group = "vmalloc" if cpu < 0 else f"CPU {cpu}{' (isolated)' if int(cpu) in isolated else ''}"
            track = rows.track(group, _LEVELS[str(level)], counter=True)
            at = _ns(levels["time_ps"][mine] * 1e-12)
            rows.add(track, rows.name("value"), at, value=levels["value"][mine].astype(np.float64))
    if len(purges["time_ps"]):
        track = rows.track("vmalloc", "areas handed back by a purge", counter=True)
        areas = purges["areas"].astype(np.float64)
        rows.add(track, rows.name("areas"), _ns(purges["time_ps"] * 1e-12), value=areas)
    rows.write(path)


def of_shootdowns(path: str | Path, spans: Columns, threads: Mapping[int, str]) -> None:
    """Write user shootdowns: calls and flushes by thread, what ran for them by CPU, and arrows to it.

    `threads` are the names of those that are shown as senders, by number.
    """
    rows = _Rows()
    names = np.array([rows.name(str(what)) for what in spans["what"]], dtype=np.uint32)
    at = _ns(spans["at_s"])
    length = np.where(np.isnan(spans["length_us"]), -1, np.rint(spans["length_us"] * 1e3)).astype(np.int64)
    for thread, name in threads.items():
        mine = np.isin(spans["kind"], ("call", "flush")) & (spans["thread"] == thread)
        if mine.any():
            rows.add(rows.track("threads", name), names[mine], at[mine], length_ns=length[mine])
    ran = (spans["kind"] == "handler") & np.isin(spans["sender"], list(threads))
    flow = np.arange(1, len(ran) + 1, dtype=np.uint64)
    for thread, name in threads.items():
        mine = ran & (spans["sender"] == thread)
        asks = np.array([rows.name(f"asks CPU {cpu}") for cpu in spans["cpu"][mine]], dtype=np.uint32)
        if mine.any():
            rows.add(rows.track("threads", name), asks, _ns(spans["asked_s"][mine]), flow=flow[mine])
    for cpu in np.unique(spans["cpu"][ran]):
        mine = ran & (spans["cpu"] == cpu)
        track = rows.track(f"CPU {cpu}", "flushes for others")
        rows.add(track, names[mine], at[mine], length_ns=length[mine], flow=flow[mine])
    rows.write(path)


def _ns(seconds: NDArray[Any]) -> NDArray[np.uint64]:
    ns: NDArray[np.uint64] = np.rint(seconds * 1e9).astype(np.uint64)
    return ns
