"""Address traces run through a machine's TLBs."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._core import TraceError
from tlbcore._input.numbers import flag
from tlbcore._output.calls import kept
from tlbcore._output.progress import Progress, shown
from tlbcore._output.result import Result
from tlbcore._output.table import Table
from tlbcore.address_traces import KINDS, Addresses, addresses, canonical_pages, of_which
from tlbcore.hardware import Machine
from tlbcore.hardware import machine as as_machine
from tlbcore.tlb import EVENT, FLAGS, Tlb

__all__ = ["Translation", "translate"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Translation(Result):
    """What the accesses of a trace did to the TLBs of a machine.

    Attributes
    ----------
    path, format, machine, page_size
        What was run through which TLBs; every page of the trace has this size.
    levels
        Names of the TLB's levels, nearest first.
    table
        One row per CPU and kind of access: `cpu`, `kind`, `accesses`, `{level}_hits` and `{level}_misses` for each
        level (an access misses a level if none up to it answers), `walks`, `walk_ratio` (walks per access).
    counters
        One row per CPU: `cpu`, and the counters of `TlbResult`, paging-structure caches included.
    """

    _index = ("cpu", "kind")

    path: str
    format: str
    machine: Machine
    page_size: int
    levels: tuple[str, ...]
    table: Table
    counters: Table

    def _tables(self) -> dict[str, Table]:
        return {"table": self.table, "counters": self.counters}

    def _about(self) -> dict[str, Any]:
        return {
            "trace": self.path, "format": self.format, "machine": self.machine.name, "page_size": self.page_size,
            "version": _core.__version__,
        }  # fmt: skip

    def __repr__(self) -> str:
        accesses, walks = (int(self.table[name].sum()) for name in ("accesses", "walks"))
        return f"<Translation of {self.path} on {self.machine.name}: {accesses} accesses, {walks} walks>"


@kept
def translate(
    trace: Addresses | str | Path,
    *,
    machine: str | Path | Machine,
    page_size: int = 4096,
    smt: bool = False,
    progress: Progress | bool | None = None,
) -> Translation:
    """Run an address trace through the TLBs of a machine: hits and misses per level, walks.

    Each CPU of the trace has TLBs of its own, empty at the start, and one context; nothing is flushed.

    Parameters
    ----------
    trace
        A file, or what `addresses` returned.
    machine
        CPU model: the name of a built-in one, a preset file or a `Machine`.
    page_size
        Size of every page: 4096, 2 MiB or 1 GiB.
    smt
        Whether a sibling takes half of the structures that siblings split.
    progress
        Called with (accesses done, None); True shows a bar on a terminal.

    Raises
    ------
    TraceError, OSError
        As for `addresses`; for an address that is not canonical, by its number among the accesses chosen.
    TlbError
        If the machine is unknown, or no level of it holds pages of this size.

    Examples
    --------
    >>> import tlbcore as tc
    >>> found = tc.translate("tests/data/addresses/walk.lackey.txt.xz", machine="peers-64x4-1536x12")
    >>> [found.table[name].tolist() for name in ("kind", "accesses", "l1_misses", "walks")]
    [['load', 'fetch'], [288, 1453], [288, 1], [96, 1]]
    """
    source = trace if isinstance(trace, Addresses) else addresses(trace)
    model = as_machine(machine)
    smt = flag(smt, "smt", _core.TlbError)
    sizes = {4096: 0, 1 << 21: FLAGS["SIZE_2M"], 1 << 30: FLAGS["SIZE_1G"]}
    if not isinstance(page_size, Integral) or page_size not in sizes:
        raise _core.TlbError(f"page_size must be 4096, 2097152 or 1073741824 bytes: got {page_size!r}")
    tlbs: dict[int, Tlb] = {}
    sums: dict[int, NDArray[np.int64]] = {}
    levels = tuple(name.removesuffix("_hits") for name in _hits(Tlb(model, smt=smt)))
    done = 0
    with shown(progress, "translating", "accesses") as advance:
        for chunk in source:
            pages = canonical_pages(source, chunk.address, done)
            for cpu in np.unique(chunk.cpu).tolist():
                if cpu not in tlbs:
                    tlbs[cpu] = Tlb(model, smt=smt)
                    sums[cpu] = np.zeros((len(KINDS), len(levels) + 1), dtype=np.int64)
                mine = chunk.cpu == cpu
                events = np.zeros(int(mine.sum()), dtype=EVENT)
                events["vpn"], events["op"] = pages[mine], chunk.kind[mine]
                events["flags"] = sizes[page_size]
                try:
                    answered = tlbs[cpu].run(events).levels
                except _core.TlbError as error:  # the page's size is all that can be wrong with these events
                    what = str(error).partition(": ")[2]
                    raise _core.TlbError(f"page_size={page_size} on {model.name}: {what}") from None
                assert answered is not None
                places = events["op"].astype(np.int64) * (len(levels) + 1) + answered
                sums[cpu] += np.bincount(places, minlength=sums[cpu].size).reshape(sums[cpu].shape)
            done += len(pages)
            if advance is not None:
                advance(done, None)
    if not done:
        raise TraceError(f"{source.path}: holds no access" + of_which(source))
    rows = [(cpu, kind) for cpu in sorted(sums) for kind in range(len(KINDS)) if sums[cpu][kind].sum()]
    counted = np.array([sums[cpu][kind] for cpu, kind in rows])
    accesses = counted.sum(axis=1)
    table: dict[str, Any] = {
        "cpu": np.array([cpu for cpu, _ in rows], dtype=np.int64),
        "kind": np.array([KINDS[kind] for _, kind in rows]),
        "accesses": accesses,
    }
    for level, name in enumerate(levels):
        table[f"{name}_hits"] = counted[:, level]
        table[f"{name}_misses"] = accesses - counted[:, : level + 1].sum(axis=1)
    table["walks"] = counted[:, -1]
    table["walk_ratio"] = counted[:, -1] / accesses
    counters = [{"cpu": cpu, **tlbs[cpu].counters} for cpu in sorted(tlbs)]
    return Translation(
        path=source.path,
        format=source.format,
        machine=model,
        page_size=int(page_size),
        levels=levels,
        table=Table(table),
        counters=Table({name: np.array([row[name] for row in counters]) for name in counters[0]}),
    )


def _hits(tlb: Tlb) -> list[str]:
    names = list(tlb.counters)
    return [name for name in names[: names.index("walks")] if name.endswith("_hits")]
