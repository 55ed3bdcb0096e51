"""What to record and of which CPUs, and what came of it: events with their filters, probes, where tracefs is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tlbcore._core import TraceError
from tlbcore.trace.recorder.process import SHOOTDOWN_EVENTS, SHOOTDOWN_KPROBES
from tlbcore.trace.recording import parse_cpus

_VECTORS = ("call_function", "call_function_single", "reschedule", "local_timer", "irq_work")
# Event -> how to keep only what concerns the isolated CPUs; {cpus} is a kernel CPU list.
EVENTS: tuple[tuple[str, str], ...] = (
    ("ipi/ipi_send_cpu", "cpu & CPUS{{{cpus}}}"),
    ("ipi/ipi_send_cpumask", "cpumask & CPUS{{{cpus}}}"),
    ("csd/csd_queue_cpu", "cpu & CPUS{{{cpus}}}"),
    ("csd/csd_function_entry", "CPU & CPUS{{{cpus}}}"),
    ("csd/csd_function_exit", "CPU & CPUS{{{cpus}}}"),
    ("vmalloc/alloc_vmap_area", ""),
    ("vmalloc/free_vmap_area_noflush", ""),
    ("vmalloc/purge_vmap_area_lazy", ""),
    ("context_tracking/user_enter", ""),
    ("context_tracking/user_exit", ""),
    *((f"irq_vectors/{v}_{end}", "CPU & CPUS{{{cpus}}}") for v in _VECTORS for end in ("entry", "exit")),
    ("irq/irq_handler_entry", "CPU & CPUS{{{cpus}}}"),
    ("irq/irq_handler_exit", "CPU & CPUS{{{cpus}}}"),
    ("sched/sched_switch", "CPU & CPUS{{{cpus}}}"),
    ("irq/softirq_entry", "CPU & CPUS{{{cpus}}}"),
    ("irq/softirq_exit", "CPU & CPUS{{{cpus}}}"),
    ("workqueue/workqueue_execute_start", "CPU & CPUS{{{cpus}}}"),
    ("sched/sched_process_fork", ""),
    ("sched/sched_process_exit", ""),
    ("cgroup/cgroup_attach_task", ""),
    ("cgroup/cgroup_transfer_tasks", ""),
    ("timer/tick_stop", "CPU & CPUS{{{cpus}}}"),
    ("timer/hrtimer_expire_entry", "CPU & CPUS{{{cpus}}}"),
    ("nmi/nmi_handler", "CPU & CPUS{{{cpus}}}"),
)
# What a noise threshold looks at: beginnings and ends of what can keep an isolated CPU from its task.
NOISE = ("irq_vectors/", "irq/", "sched/sched_switch")
NOISE_BUFFER_KB = 256
_KPROBES: tuple[tuple[str, str], ...] = (
    ("flush_tlb_kernel_range", "start=%di:x64 end=%si:x64"),
    ("flush_tlb_all", ""),
    ("drain_vmap_area_work", ""),
    ("_vm_unmap_aliases", "start=%di:x64 end=%si:x64 flush=%dx:s32"),
    ("set_memory_ro", "addr=%di:x64 numpages=%si:s32"),
    ("set_memory_rox", "addr=%di:x64 numpages=%si:s32"),
    ("set_memory_nx", "addr=%di:x64 numpages=%si:s32"),
    ("set_memory_rw", "addr=%di:x64 numpages=%si:s32"),
    ("do_flush_tlb_all", ""),
    ("do_kernel_range_flush", ""),
)


def duration_s(text: str) -> float:
    """Return seconds of `90`, `10s`, `5m`, `2h` or `3d`.

    >>> duration_s("2h"), duration_s("90")
    (7200.0, 90.0)
    """
    match = re.fullmatch(r"([0-9.]+)\s*([smhd]?)", text.strip())
    try:
        if match is None:
            raise ValueError
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    except ValueError:
        raise TraceError(f"duration {text!r}: expected a number and s, m, h or d") from None
    if seconds <= 0:
        raise TraceError(f"duration {text!r}: must be positive")
    return seconds


def noise_us(text: str) -> float:
    """Return microseconds of `20us`, `1.5ms` or `20` (microseconds).

    >>> noise_us("20us"), noise_us("1.5ms")
    (20.0, 1500.0)
    """
    match = re.fullmatch(r"([0-9.]+)\s*(us|ms|s|)", text.strip())
    try:
        if match is None:
            raise ValueError
        value = float(match[1]) * {"": 1, "us": 1, "ms": 1e3, "s": 1e6}[match[2]]
    except ValueError:
        raise TraceError(f"noise {text!r}: expected a number and us, ms or s") from None
    if not 0 < value <= 60e6:
        raise TraceError(f"noise {text!r}: must be more than 0 and at most 60 s")
    return value


@dataclass(frozen=True, kw_only=True)
class Tracefs:
    """A mounted tracefs, and how instances of it come and go."""

    path: Path
    make: Callable[[Path], None] = Path.mkdir
    remove: Callable[[Path], None] = Path.rmdir

    @classmethod
    def find(cls) -> Tracefs:
        """Return the machine's.

        Raises
        ------
        TraceError
            Without tracefs, or without the right to use it.
        """
        for place in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
            path = Path(place)
            try:
                if (path / "instances").is_dir():
                    if not os.access(path / "instances", os.W_OK):
                        raise TraceError(f"{place}: recording needs root, which may write there")
                    return cls(path=path)
            except PermissionError:
                raise TraceError(f"{place}: recording needs root, which may read and write there") from None
        raise TraceError(
            "no tracefs: mount -t tracefs tracefs /sys/kernel/tracing (needs root, not a container)"
        )


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What to record.

    Attributes
    ----------
    out
        File to write; it must not exist.
    isolated
        The CPUs to watch.
    seconds
        How long; None: until the command ends, or Ctrl-C.
    command
        A command to run meanwhile.
    kprobes
        Also probe who flushes kernel ranges. Setting a probe patches code, which interrupts every CPU once.
    stacks
        Call chains of kernel-range flushes and of IPIs to several CPUs.
    flight
        Keep a ring and save it only when an isolated CPU was interrupted by another: days of recording,
        seconds of text.
    noise_us
        The same, but save it when an interrupt, a soft interrupt or another task keeps an isolated CPU from
        its task for more than so many microseconds, as osnoise's and cyclictest's stop do. A second, small
        ring tells: it costs the isolated CPUs a second record of each of these events.
    snapshots
        Stop after so many; 0: never.
    buffer_kb
        Ring per CPU.
    processes
        Record shootdowns of user ranges instead of what interrupts isolated CPUs: flushes, who is asked to flush and
        when, on every CPU, and of system calls those that may flush. The threads of these process ids are written
        down, so that `explain --process` knows who belongs together.
    """

    out: Path
    isolated: tuple[int, ...] = ()
    seconds: float | None = None
    command: tuple[str, ...] = ()
    kprobes: bool = True
    stacks: bool = False
    flight: bool = False
    noise_us: float | None = None
    snapshots: int = 0
    buffer_kb: int = 4096
    processes: tuple[int, ...] = ()

    @property
    def events(self) -> tuple[tuple[str, str], ...]:
        """Events, and the filter of each."""
        return SHOOTDOWN_EVENTS if self.processes else EVENTS

    @property
    def probes(self) -> tuple[tuple[str, str], ...]:
        """Functions to probe, and the arguments to print."""
        return SHOOTDOWN_KPROBES if self.processes else _KPROBES


@dataclass(kw_only=True)
class Outcome:
    """What came of a recording.

    `bytes` written, `lost` events, `events` switched on, what was `refused`, settings that the kernel refused
    (`unset`), what could not be undone (`left`), seconds of CPU time the recorder
    took (`cpu_s`) of `seconds`, `snapshots` of a flight recorder, and the command's `status`, None if it was
    ended together with the recording.
    """

    bytes: int = 0
    lost: int = 0
    events: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unset: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    seconds: float = 0.0
    snapshots: int = 0
    status: int | None = None


def isolated_cpus(root: Path = Path("/")) -> tuple[int, ...]:
    """Return the nohz_full CPUs of a machine, or its isolated ones.

    Raises
    ------
    TraceError
        If there are none.
    """
    for name in ("nohz_full", "isolated"):
        try:
            text = (root / "sys/devices/system/cpu" / name).read_text().strip()
        except OSError:
            continue
        if text and text != "(null)":
            return parse_cpus(text)
    raise TraceError("no CPU of this machine is isolated (nohz_full=, isolcpus=); name some with --isolated")


class Watcher(Protocol):
    """Who looks at a recording while it is made."""

    def begin(self, events: Sequence[str]) -> None:
        """Be told that recording begins, with these events."""

    def feed(self, text: bytes) -> None:
        """Take a piece of the recording."""

    def tick(self, *, last: bool = False) -> None:
        """Be called a few times a second, and at the end."""
