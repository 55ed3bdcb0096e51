"""Measure this machine from user space and write it down as a CPU preset.

What can be measured without privileges is: the clock, the reach of the data TLBs, hits in their second level,
walks, the caches, a locked instruction, passing a line, an interrupt to another CPU (`membarrier`),
shootdowns (`mprotect`, `munmap` while threads run elsewhere), system calls, threads. The other numbers of the
preset are inherited from the built-in machine that fits, with their own marks. Under a hypervisor the figures
describe this guest, not its CPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._input.numbers import count
from tlbcore._output.calls import kept
from tlbcore._output.progress import Progress, shown
from tlbcore._output.result import Result, column
from tlbcore.hardware import Machine, machines
from tlbcore.hardware import machine as as_machine
from tlbcore.inspect import Cpu, Host, inspect_host

if TYPE_CHECKING:
    from tlbcore._input import raw

__all__ = ["Calibration", "calibrate"]

Table = Mapping[str, NDArray[Any]]

# Figures of `calibrate` that are costs of a preset: key there, key in the preset. Anything else is shown
# only.
_COSTS = {
    "costs.lock": "lock",
    "costs.stlb_hit": "stlb_hit",
    "costs.mem_l1": "mem_l1",
    "costs.mem_l2": "mem_l2",
    "costs.mem_l3": "mem_l3",
    "costs.mem_dram": "mem_dram",
    "costs.remote_line": "remote_line",
    "membarrier_first": "ipi_first",
    "membarrier_next": "ipi_next",
}
# Other calls that do nothing: what `getpid` is predicted from.
_NULL_CALLS = ("getppid", "getuid", "getgid")
# Where no preset fits: a neighbour whose structures are refined by what is measured.
_NEAREST = {"intel": "skylake-sp", "amd": "zen3-epyc"}

# A CPU that was taken away for more than this share of the time was not idle enough.
_BUSY = 0.05
# What other tasks and other guests slow down all the time, so that every run agrees on a wrong figure: caches, memory
# and the interconnect. On a busy machine these are not stable, whatever their spread.
_SHARED = ("walk", "walk_far", "costs.mem_l3", "costs.mem_dram", "costs.remote_line")

_HYPERVISOR = (
    "interrupts to other CPUs cost an exit to the hypervisor, and its scheduler may hold one back",
    "walks go through two sets of page tables; what they cost depends on the host's page size behind this "
    "memory",
    "the CPU model and features are what the hypervisor shows, and other guests share the third-level cache",
)


@dataclass(frozen=True, kw_only=True)
class Calibration(Result):
    """What was measured, and the machine made of it. Made by `calibrate`.

    Attributes
    ----------
    figures
        One row per measured figure: `key` (`section.key` of a preset where there is one), `value` float64,
        `unit`, `spread` (float64, share of the value by which repeated measurements differed), `stable` bool,
        `runs` int64, `preempted` int64 (runs that did not count, because the CPU was taken away),
        `mark` (measured, or fitted for what is computed from measurements), `used` (bool: taken
        over into the machine), `how`.
    inherited
        (key, value, mark) of each number of the machine that was not measured, with the mark it has in
        `base`.
    machine
        The machine as the simulator reads it; `toml` is its text.
    base
        The built-in machine that the rest is inherited from, and `base_why`.
    getpid_ns, getpid_predicted_ns
        Measured, and predicted from the other system calls without work (their median); NaN if one is
        missing.
    curve
        `pages` and `ns`: translation cost per load of a pointer chase over so many pages.
    taken_share, steal_share
        Share of the time in which the measuring thread wanted its CPU and did not have it, and the share the
        hypervisor admits to (NaN where the kernel does not tell).
    caveats
        What a hypervisor distorts, how busy the machine was, and figures left out because they did not settle.
    """

    figures: Table
    inherited: tuple[tuple[str, str, str], ...]
    machine: Machine
    toml: str
    base: Machine
    base_why: str
    getpid_ns: float
    getpid_predicted_ns: float
    curve: Table
    taken_share: float
    steal_share: float
    caveats: tuple[str, ...]
    cpu: int

    def _tables(self) -> dict[str, Table]:
        key, value, mark = zip(*self.inherited, strict=True) if self.inherited else ((), (), ())
        inherited = {"key": column(key), "value": column(value), "mark": column(mark)}
        return {"figures": self.figures, "inherited": inherited, "curve": self.curve}

    def _about(self) -> dict[str, Any]:
        return {
            "machine": self.machine.name, "base": self.base.name, "base_why": self.base_why, "cpu": self.cpu,
            "caveats": self.caveats, "version": _core.__version__,
        }  # fmt: skip

    @property
    def getpid_error(self) -> float:
        """Share by which the prediction of getpid is off."""
        return self.getpid_predicted_ns / self.getpid_ns - 1


@kept
def calibrate(
    *,
    seconds: float = 20.0,
    cpu: int | None = None,
    base: str | Machine | None = None,
    name: str | None = None,
    progress: Progress | bool | None = None,
) -> Calibration:
    """Measure this machine.

    The measuring thread is bound to one CPU; every figure is the least disturbed of many runs, repeated until
    those agree within 3 % or its share of the time is up, and then reported as not stable and not taken over.
    Runs in which the CPU was taken away, so that the thread's own time lags behind the wall clock, do not count.
    All but the reach of the TLBs is measured twice, some time apart; a figure whose two readings differ by more
    than 6 % is not stable either. On a machine that was busy meanwhile, what is shared (walks, the third-level
    cache, memory, passing a line) is never called stable.

    Parameters
    ----------
    seconds
        At most about this long altogether, 0.2 to 600; usually less.
    cpu
        The CPU to measure on; the last one this process may run on if left out.
    base
        A machine to inherit from; by default the preset that fits this CPU.
    name
        Name of the new machine.
    progress
        Called with (stages done, stages in all) whenever one begins; True shows a bar, on a terminal or in a notebook.

    Raises
    ------
    ConfigError
        If `seconds` is out of range, or `cpu` is no number of a CPU.
    TlbError
        If `base` names no machine, or no preset is near and none was given.
    OSError
        If the process may not run on `cpu`, or memory for the measurement cannot be had.
    """
    if not 0.2 <= seconds <= 600:
        raise _core.ConfigError(f"seconds must be between 0.2 and 600: got {seconds}")
    cpu = None if cpu is None else count(cpu, "cpu", most=(1 << 16) - 1, error=_core.ConfigError)
    host = inspect_host()
    inherits, why = _base(host, base)
    stages = len(_core.calibrate_stages())
    with shown(progress, "measuring", "stages") as advance:
        report = None if advance is None else (lambda stage: advance(stage, stages))
        found = _core.calibrate_run(seconds, cpu, report)
    return _result(found, host, inherits, why, name)


def _cpu(host: Host) -> Cpu:
    assert host.cpu is not None, "the running system has a CPU"
    return host.cpu


def _base(host: Host, base: str | Machine | None) -> tuple[Machine, str]:
    if base is not None:
        chosen = as_machine(base)
        if chosen.text is not None:
            raise _core.TlbError(f"base must be a built-in machine: got {chosen.name!r}")
        return chosen, "as asked"
    if host.machine is not None:
        return host.machine, host.machine_fit
    near = _NEAREST.get(_cpu(host).vendor)
    if near is None:
        raise _core.TlbError(f"no preset is near this {_cpu(host).vendor or 'unknown'} CPU: name one as base")
    return machines[near], f"{host.machine_fit}; nearest of that vendor"


@dataclass(frozen=True)
class _Figure:
    key: str
    value: float
    unit: str
    spread: float
    stable: bool
    runs: int
    preempted: int
    how: str
    mark: str = "measured"


def _result(found: raw.RawCalibration, host: Host, base: Machine, why: str, name: str | None) -> Calibration:
    figures = {row[0]: _Figure(*row) for row in found["measurements"]}
    steal = found["steal_share"]
    busy = found["taken_share"] > _BUSY or (steal or 0.0) > _BUSY
    if busy:
        figures |= {key: replace(figures[key], stable=False) for key in _SHARED if key in figures}
    walk = _walk_setup(figures)
    if walk is not None:
        figures[walk.key] = walk
    caveats = list(_HYPERVISOR) if _cpu(host).hypervisor else []
    if busy:
        by = "" if steal is None else f"; {steal:.0%} of the time by the hypervisor's own account"
        caveats.append(
            f"this CPU was busy with other things {found['taken_share']:.0%} of the time{by}: what is shared "
            "(walks, the third-level cache, memory, the other CPUs) may look slower than it is and is called "
            "unstable; repeat on an idle machine"
        )
    caveats += [f"{key} not measured: {reason}" for key, reason in found["missing"]]
    usable: dict[str, _Figure] = {}
    for figure in figures.values():
        if not figure.stable:
            lost = f", {figure.preempted} of them with the CPU taken away" if figure.preempted else ""
            caveats.append(
                f"{figure.key} did not settle (spread {figure.spread:.0%} over {figure.runs} runs{lost}): "
                "not taken over"
            )
        elif not figure.value > 0:
            caveats.append(f"{figure.key} was lost in the noise: not taken over")
        else:
            usable[figure.key] = figure
    third, memory = usable.get("costs.mem_l3"), figures.get("costs.mem_dram")
    if third and memory and third.value > 0.7 * memory.value:
        del usable["costs.mem_l3"]
        caveats.append("costs.mem_l3 is hardly less than memory: others use that cache; not taken over")

    text, used = _toml(usable, host, base, name or f"calibrated-{base.name}", found["cpu"])
    made = Machine(name="calibrated.toml", text=text)
    rows = list(figures.values())
    others = [figures[key].value for key in _NULL_CALLS if key in figures]
    return Calibration(
        figures={
            "key": np.array([row.key for row in rows], dtype=np.str_),
            "value": np.array([row.value for row in rows], dtype=np.float64),
            "unit": np.array([row.unit for row in rows], dtype=np.str_),
            "spread": np.array([row.spread for row in rows], dtype=np.float64),
            "stable": np.array([row.stable for row in rows], dtype=np.bool_),
            "runs": np.array([row.runs for row in rows], dtype=np.int64),
            "preempted": np.array([row.preempted for row in rows], dtype=np.int64),
            "mark": np.array([row.mark for row in rows], dtype=np.str_),
            "used": np.array([row.key in used for row in rows], dtype=np.bool_),
            "how": np.array([row.how for row in rows], dtype=np.str_),
        },
        inherited=tuple(
            (fact.key, fact.value, fact.mark) for fact in made.facts if not fact.source.startswith(_SOURCE)
        ),
        machine=made,
        toml=text,
        base=base,
        base_why=why,
        getpid_ns=figures["getpid"].value if "getpid" in figures else float("nan"),
        getpid_predicted_ns=float(np.median(others)) if others else float("nan"),
        curve=_curve(found["pages"], found["ns"]),
        taken_share=float(found["taken_share"]),
        steal_share=float("nan") if steal is None else float(steal),
        caveats=tuple(caveats),
        cpu=found["cpu"],
    )


def _curve(pages: list[float], ns: list[float]) -> Table:
    order = np.argsort(np.array(pages, dtype=np.float64), kind="stable")
    return {
        "pages": np.array(pages, dtype=np.float64)[order].astype(np.int64),
        "ns": np.array(ns, dtype=np.float64)[order],
    }


def _walk_setup(figures: dict[str, _Figure]) -> _Figure | None:
    """Return a walk without its memory read: with one read from the L2 it costs what was measured.

    Beyond a first-level hit a walk costs the hit in the second level that it missed, and the height of the
    ramp.
    """
    parts = [figures.get(key) for key in ("walk", "costs.stlb_hit", "costs.mem_l2")]
    if any(part is None for part in parts):
        return None
    ramp, hit, read = (part for part in parts if part is not None)
    return _Figure(
        key="costs.walk_setup",
        value=ramp.value + hit.value - read.value,
        unit="ns",
        spread=max(ramp.spread, hit.spread, read.spread),
        stable=ramp.stable and hit.stable and read.stable,
        runs=ramp.runs,
        preempted=ramp.preempted,
        how="walk and second-level hit, less one load from the L2",
        mark="fitted",
    )


_SOURCE = "tlbcore calibrate"


def _toml(usable: dict[str, _Figure], host: Host, base: Machine, name: str, cpu: int) -> tuple[str, set[str]]:
    """Text of the machine, and the keys of the figures that are in it."""
    used: set[str] = set()
    where = f"{_SOURCE}, {'guest' if _cpu(host).hypervisor else 'bare metal'}, CPU {cpu}"
    lines = [
        f"# Measured by tlbcore calibrate on {_cpu(host).name or 'an unnamed CPU'}, kernel "
        f"{host.kernel.release}.",
        "# Everything that is not in here is inherited, with its own marks.",
        f"name = {_string(name)}",
        f"title = {_string(f'{_cpu(host).name}, calibrated')}",
        f"inherits = {_string(base.name)}",
        f"vendor = {_string(_cpu(host).vendor)}",
        f"signature = {_string(_cpu(host).signature)}",
        "",
        "[cpu]",
    ]
    if "cpu.mhz" in usable:
        used.add("cpu.mhz")
        lines.append(_plain("mhz", round(usable["cpu.mhz"].value), where, usable["cpu.mhz"].how))
    shown = f"{where}: as /proc/cpuinfo shows it"
    flags: dict[str, bool | int | None] = {
        "pcid": _cpu(host).pcid,
        "invpcid": _cpu(host).invpcid,
        "meltdown": _cpu(host).affected_by_meltdown,
        "invlpgb_extra": 0 if _cpu(host).invlpgb is False else None,
    }
    lines += [_plain(key, value, shown) for key, value in flags.items() if value is not None]

    lines += ["", "[costs]"]
    keys = _COSTS | {"costs.walk_setup": "walk_setup"}
    for key, cost in keys.items():
        figure = usable.get(key)
        if figure is None:
            continue
        used.add(key)
        low, high = figure.value, figure.value * (1 + figure.spread)
        source = _string(f"{where}: {figure.how}")
        lines.append(
            f"{cost} = {{ ns = {figure.value:.3f}, low = {low:.3f}, high = {high:.3f}, "
            f'mark = "{figure.mark}", source = {source} }}'
        )
    lines += _levels(usable, base, where, used)
    return "\n".join(lines) + "\n", used


def _levels(usable: dict[str, _Figure], base: Machine, where: str, used: set[str]) -> list[str]:
    """TOML of the two data TLBs of small pages, where the measurement has something to say about them."""
    lines: list[str] = []
    for at, key in ((0, "l1.entries"), (1, "l2.entries")):
        figure = usable.get(key)
        if figure is None or at >= len(base.levels):
            continue
        level = base.levels[at]
        holders = [s for s in level["structures"] if "4K" in s["sizes"] and "load" in s["kinds"]]
        if not holders:
            continue
        one = holders[0]
        nominal = one["sets"] * one["ways"]
        used.add(key)
        lines += ["", "[[level]]", f"name = {_string(level['name'])}", "[[level.structure]]"]
        lines.append(f"name = {_string(one['name'])}")
        source = f"{where}: {figure.value:.0f} entries; {figure.how}"
        # A measurement of the first level is good to a page; one of the second brackets the nominal number.
        off = 1.0 if at == 0 else max(0.1, figure.spread) * nominal
        if abs(figure.value - nominal) <= off:
            if at == 1:
                source += f"; consistent with the nominal {nominal}, which is kept"
        else:
            sets, ways = _shape(usable, one, figure.value, at)
            lines += [f"sets = {sets}", f"ways = {ways}"]
            if "plru" in one["replacement"] and ways & (ways - 1):
                lines.append('replacement = "lru"')  # a tree needs a power of two
        lines.append(f'from = {{ entries = ["measured", {_string(source)}] }}')
    return lines


def _shape(usable: dict[str, _Figure], one: Mapping[str, Any], entries: float, at: int) -> tuple[int, int]:
    """Return sets and ways of a structure whose size is not the one inherited."""
    if at == 0 and "l1.sets" in usable:
        return round(usable["l1.sets"].value), max(1, round(entries / usable["l1.sets"].value))
    return int(one["sets"]), max(1, round(entries / int(one["sets"])))


def _plain(key: str, value: bool | float, where: str, how: str = "") -> str:
    source = _string(f"{where}: {how}" if how else where)
    return f'{key} = {{ value = {json.dumps(value)}, mark = "measured", source = {source} }}'


def _string(text: str) -> str:
    """Write a TOML basic string: JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
