"""Measure this machine from user space: TLB reach, walks, system calls, IPIs, shootdowns, threads.

Loops are in Rust; memory comes from `mmap` without huge pages, touched in random order so that
neighbouring pages are not neighbours in memory (some cores keep four such pages in one entry). Each figure is
repeated until it stops falling, or reported unstable.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._core import ConfigError

__all__ = ["Calibration", "Figure", "calibrate", "machine_text"]

_PAGE = 4096
_WORDS = _PAGE // 4  # indices of 4 bytes
_LINE_WORDS = 16
_MOST_PAGES = 12288
_SYS_MEMBARRIER = 324
_REGISTER_PRIVATE_EXPEDITED, _PRIVATE_EXPEDITED = 1 << 4, 1 << 3


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    `value` in `unit`; `stable` if repeating it no longer changed it by more than 3 %; `about` says how it was
    measured and what distorts it. Mark: measured.
    """

    name: str
    value: float
    unit: str
    stable: bool
    about: str


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured on this machine.

    Attributes
    ----------
    figures
        By name.
    curve
        Translation cost: `pages` and `cycles` per load beyond what the caches cost.
    cpu
        The CPU the measurements were pinned to.
    hypervisor
        This is a guest: walks are nested, and IPIs may leave the guest.
    predicted_getpid_ns
        getpid predicted from a different system call, to hold against the measured one.
    seconds
        How long it took.
    """

    figures: dict[str, Figure]
    curve: dict[str, NDArray[np.float64]]
    cpu: int
    hypervisor: bool
    predicted_getpid_ns: float
    seconds: float

    @property
    def getpid_error(self) -> float:
        """Prediction over measurement of getpid, minus 1."""
        return self.predicted_getpid_ns / self.figures["getpid_ns"].value - 1


def _steady(
    measure: Callable[[], float], rounds: int = 30, enough: int = 5, within: float = 0.03
) -> tuple[float, bool]:
    """Return the least of repeated measurements, and whether several agree on it.

    The least, because everything that disturbs a loop makes it slower.
    """
    seen: list[float] = []
    for _ in range(rounds):
        seen.append(measure())
        lowest = min(seen)
        if len(seen) >= enough and sum(v <= lowest * (1 + within) for v in seen) >= 3:
            return lowest, True
    return min(seen), False


def _typical(measure: Callable[[], float], rounds: int = 15) -> tuple[float, bool]:
    """Return the median, and whether half of the measurements lie within a tenth of it.

    For what another thread must be running for: the least would be a moment at which it was not.
    """
    q1, median, q3 = np.percentile([measure() for _ in range(rounds)], [25, 50, 75])
    return float(median), bool(q3 - q1 <= 0.2 * median)


def _pair(*names: str, rounds: int = 40) -> list[tuple[float, bool]]:
    """Measure loops in turn, so that what disturbs one disturbs all, and return the least of each."""
    found = np.array([[_core.calibrate_loop(name, 20_000) for name in names] for _ in range(rounds)])
    least = found.min(axis=0)
    return [(float(v), bool((found[:, i] <= 1.03 * v).sum() >= 3)) for i, v in enumerate(least)]


@contextmanager
def _pinned(cpus: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class _Arena:
    """Memory in 4 KiB pages, and chains of loads through it."""

    def __init__(self, pages: int, rng: np.random.Generator) -> None:
        self.memory = mmap.mmap(-1, pages * _PAGE)
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.words: NDArray[np.uint32] = np.frombuffer(self.memory, dtype=np.uint32)
        self.rng = rng
        self.words[rng.permutation(pages) * _WORDS] = 1

    def spread(self, lines: int) -> float:
        """Measure nanoseconds per load, one line in each of as many pages."""
        page = np.arange(lines, dtype=np.int64)
        return self._run(page * _WORDS + page % 64 * _LINE_WORDS)

    def packed(self, lines: int) -> float:
        """Do the same for as many lines, 64 to a page: what the caches alone cost."""
        return self._run(np.arange(lines, dtype=np.int64) * _LINE_WORDS)

    def _run(self, places: NDArray[np.int64]) -> float:
        order = self.rng.permutation(places)
        self.words[order] = np.roll(order, -1).astype(np.uint32)
        start = int(order[0])
        steps = max(2 * len(places), 20_000)
        _core.calibrate_chase(self.words, start, 2 * len(places))
        return min(_core.calibrate_chase(self.words, start, steps) for _ in range(5))


def calibrate(*, cpu: int | None = None, seed: int = 1) -> Calibration:
    """Measure this machine; needs no privileges and takes well under a minute.

    Parameters
    ----------
    cpu
        CPU to measure on; the last one this process may use if left out.
    seed
        Of the random order of pages and loads.

    Raises
    ------
    ConfigError
        If this process may not run on `cpu`.
    """
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed) if cpu is None else cpu
    if cpu not in allowed:
        raise ConfigError(f"CPU {cpu}: this process may run on CPUs {sorted(allowed)} only")
    started = time.monotonic()
    figures: dict[str, Figure] = {}

    def add(name: str, unit: str, about: str, found: tuple[float, bool]) -> float:
        figures[name] = Figure(name=name, value=found[0], unit=unit, stable=found[1], about=about)
        return found[0]

    with _pinned({cpu}):
        _core.calibrate_loop("four_cycles", 20_000_000)  # out of power saving
        four, sure = _steady(lambda: _core.calibrate_loop("four_cycles", 1_000_000))
        add("clock_mhz", "MHz", "a multiply-add chain of four cycles a round", (4000 / four, sure))
        curve = _translation(4 / four, add, np.random.default_rng(seed))
        getpid, getppid = _pair("getpid", "getppid")
        add("getpid_ns", "ns", "std::process::id in a loop", getpid)
        add("getppid_ns", "ns", "a system call of about the same length", getppid)
        threads = _steady(lambda: _core.calibrate_loop("thread_round", 200))
        add(
            "thread_round_us", "us", "clone, run, exit and join of one thread", (threads[0] / 1e3, threads[1])
        )
    _interrupts(cpu, allowed, add)
    return Calibration(
        figures=figures,
        curve=curve,
        cpu=cpu,
        hypervisor=_hypervisor(),
        predicted_getpid_ns=getppid[0],
        seconds=time.monotonic() - started,
    )


_Add = Callable[[str, str, str, tuple[float, bool]], float]


def _translation(per_ns: float, add: _Add, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Measure the cost of translation against the number of pages, and find where it rises."""
    arena = _Arena(_MOST_PAGES, rng)
    least: dict[int, tuple[float, float]] = {}

    def cost(pages: int, rounds: int = 3) -> float:
        """Cycles per load beyond the caches; every call can only lower what is known."""
        spread, packed = least.get(pages, (np.inf, np.inf))
        for _ in range(rounds):
            spread, packed = min(spread, arena.spread(pages)), min(packed, arena.packed(pages))
        least[pages] = spread, packed
        return (spread - packed) * per_ns

    sizes = sorted({int(16 * 2 ** (k / 4)) for k in range(39) if 16 * 2 ** (k / 4) <= _MOST_PAGES})
    curve = {n: cost(n) for n in sizes}
    base = float(np.median([curve[n] for n in sizes if n <= 32]))
    first = next((n for n in sizes if n > 32 and curve[n] > base + 2 and cost(n, 6) > base + 2), None)
    if first is not None:
        level = float(np.median([curve[n] for n in sizes if 2 * first <= n <= 5 * first] or [curve[first]]))
        add(
            "stlb_hit_cycles",
            "cycles",
            "second-level hit beyond a first-level hit",
            (level - base, level > base),
        )
        low, high = sizes[sizes.index(first) - 1], first

        def typical(pages: int) -> float:
            still = min(arena.packed(pages) for _ in range(5))
            # A neighbour on the core takes entries now and then, so a fifth of the runs must agree, not half.
            return float(np.percentile([arena.spread(pages) - still for _ in range(20)], 20)) * per_ns

        while high - low > 1:  # an edge: all hit, or in a ring of one page too many all miss
            at = (low + high) // 2
            low, high = (at, high) if typical(at) < (base + level) / 2 else (low, at)
        sharp = typical(low) < base + 0.25 * (level - base) < base + 0.5 * (level - base) < typical(low + 2)
        add("l1_dtlb_pages", "pages", "knee of a pointer chase, one line per page", (float(low), sharp))
        # Sets conflict long before the second level is full, so its knee is a slope, not an edge.
        later = [n for n in sizes if n >= 4 * first]
        risen = (a for a, b in pairwise(later) if min(curve[a], curve[b]) > 2 * level + 6)
        second = next(risen, None)
        if second is not None:
            fine = [int(second * 2 ** (k / 16)) for k in range(-10, 11)]
            # More pages never cost less, and disturbances only add: what is above a later point is noise.
            rise = np.minimum.accumulate([cost(n, 10) for n in fine][::-1])[::-1].tolist()
            # At capacity half of the sets overflow, and a ring misses in all of those: half-way up.
            k = int(np.argmax(np.diff(rise)))
            beyond = [r for n, r in zip(fine, rise, strict=True) if n > 1.2 * fine[k]]
            top = float(np.median(beyond or rise[-1:]))
            knee = float(np.interp((level + top) / 2, rise, fine))
            rose = "half-way up the second rise of it"
            add("l2_dtlb_pages", "pages", rose, (knee, top > 2 * level + 6))
            walk = "a walk beyond a second-level hit; nested in a guest"
            add("walk_cycles", "cycles", walk, (top - level, top > level))
    return {
        "pages": np.array(sizes, dtype=np.float64),
        "cycles": np.array([curve[n] for n in sizes]),
    }


def _interrupts(cpu: int, allowed: set[int], add: _Add) -> None:
    """Time what makes the kernel interrupt other CPUs: membarrier, and mprotect with threads elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    others = allowed - {cpu}
    page = mmap.mmap(-1, _PAGE)
    page[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))

    def barrier() -> object:
        return libc.syscall(_SYS_MEMBARRIER, _PRIVATE_EXPEDITED, 0, 0)

    def protect() -> None:
        # Taking rights away needs a shootdown; giving them back does not.
        libc.mprotect(ctypes.c_void_p(address), _PAGE, mmap.PROT_READ)
        libc.mprotect(ctypes.c_void_p(address), _PAGE, mmap.PROT_READ | mmap.PROT_WRITE)
        page[0] = 1

    def timed(call: Callable[[], object], steps: int = 300) -> float:
        start = time.perf_counter_ns()
        for _ in range(steps):
            call()
        return (time.perf_counter_ns() - start) / steps

    can = libc.syscall(_SYS_MEMBARRIER, _REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0
    counts = sorted({0, 1, len(others) // 2, len(others)} - ({0} if not others else set()) | {0})
    alone: dict[str, float] = {}
    for spinning in counts:
        with _pinned(others or {cpu}), _core.Spinners(spinning), _pinned({cpu}):
            for name, call in (("membarrier", barrier), ("mprotect", protect)):
                if name == "membarrier" and not can:
                    continue
                found = _typical if spinning else _steady
                value, stable = found(lambda call=call: timed(call))  # type: ignore[misc]
                if spinning == 0:
                    alone[name] = value
                    add(
                        f"{name}_ns_0",
                        "ns",
                        f"{name} pair alone, call overhead of Python included",
                        (value, stable),
                    )
                else:
                    about = f"what {name} takes longer with {spinning} threads spinning on other CPUs"
                    longer = max(value - alone[name], 0.0)
                    # No interrupt takes less than 100 ns: then no spinner was running.
                    add(f"{name}_ns_{spinning}", "ns", about, (longer, stable and longer > 100))


def _hypervisor() -> bool:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123  (one line is enough)
            return any(line.startswith("flags") and " hypervisor" in line for line in file)
    except OSError:
        return False


def machine_text(found: Calibration, inherits: str) -> str:
    """Return a machine preset: what was measured, on top of a preset for the rest.

    Only stable figures become costs; everything is listed in comments.
    """
    mhz = found.figures["clock_mhz"].value
    lines = [
        "# Written by `tlbcore calibrate`. Marked measured: these figures; everything else is inherited from",
        f"# {inherits}.",
    ]
    if found.hypervisor:
        lines.append(
            "# A guest: walks are nested (longer), an IPI may leave the guest (much longer), reach is shared."
        )
    for figure in found.figures.values():
        state = "" if figure.stable else ", unstable"
        lines.append(f"#   {figure.name} = {figure.value:.4g} {figure.unit} ({figure.about}{state})")
    where = "guest" if found.hypervisor else "host"
    source = f"tlbcore calibrate on CPU {found.cpu} of this {where}"
    lines += [
        'name = "calibrated"',
        f'title = "This machine, calibrated on top of {inherits}"',
        f'inherits = "{inherits}"',
        "",
        "[cpu]",
        f'mhz = {{ value = {round(mhz)}, mark = "measured", source = "{source}" }}',
        "",
        "[costs]",
    ]
    costs = {"stlb_hit": ("stlb_hit_cycles", 1.0), "ipi_first": ("membarrier_ns_1", mhz / 1000)}
    for cost, (name, scale) in costs.items():
        if name in found.figures and found.figures[name].stable and found.figures[name].value > 0:
            value, about = found.figures[name].value * scale, found.figures[name].about
            text = f'cycles = {max(round(value), 1)}, mark = "measured", source = "{source}: {about}"'
            lines.append(f"{cost} = {{ {text} }}")
    return "\n".join(lines) + "\n"
