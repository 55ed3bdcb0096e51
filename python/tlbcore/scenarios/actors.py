"""What happens on CPUs: an actor, and a function for each kind of them.

Times become whole picoseconds here, as the engine takes them, and a bad value is refused with the actor's name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from tlbcore import _core
from tlbcore._input.cpus import CpuListError, as_cpus
from tlbcore._input.door import door
from tlbcore._input.names import unknown
from tlbcore._input.numbers import count, flag, quantity
from tlbcore._input.vocabulary import CauseName, EntryPath

_PS = 1e12
_MOST_HZ = 1e9  # no CPU does anything more often, and gaps are whole picoseconds
_MOST_PAGES = (1 << 32) - 1
_MOST_PS = 1 << 62  # 53 days: times are added up in 64 bits

PLACES = ("isolated", "housekeeping", "all")


def _ps(value: float, unit: float, what: str) -> int:
    return round(quantity(value, what, most=_MOST_PS / unit) * unit)


def cpu_list(cpus: str | Iterable[int]) -> tuple[int, ...]:
    """Return the CPUs of a kernel CPU list such as `2-3,8`, or of an iterable, in ascending order.

    Raises
    ------
    SimError
        If it is no list of CPUs.

    Examples
    --------
    >>> cpu_list("2-4,8")
    (2, 3, 4, 8)
    """
    try:
        return as_cpus(cpus)
    except CpuListError as error:
        raise _core.SimError(str(error)) from None


def _place(on: str | Iterable[int], what: str) -> str | tuple[int, ...]:
    """Return where an actor is: one of `PLACES`, or CPUs in the order given (one twice is two of its kind)."""
    if isinstance(on, str) and not on[:1].isdecimal():
        if on not in PLACES:
            raise _core.SimError(f"{what}: {unknown('place', on, PLACES)}")
        return on
    if isinstance(on, str):
        return cpu_list(on)
    listed = tuple(on) if isinstance(on, Iterable) else on  # what can be read once is read once
    if not cpu_list(listed):
        raise _core.SimError(f"{what}: names no CPU: give CPU numbers, or {' or '.join(PLACES)}")
    return listed


def _steps(steps: Iterable[Mapping[str, Any]], what: str) -> list[dict[str, Any]]:
    if not isinstance(steps, Iterable):
        raise _core.SimError(f"{what}: steps are a list of mappings: got {steps!r}")
    found = list(steps)
    for step in found:
        if not isinstance(step, Mapping):
            raise _core.SimError(f"{what}: a step is a mapping: got {step!r}")
    return [dict(step) for step in found]


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One actor: what happens, on which CPUs, how often.

    `on` is `isolated`, `housekeeping`, `all` or CPU numbers; `kind` and `params` are what the functions of
    this module fill in (times in picoseconds, as the engine takes them).
    """

    name: str
    on: str | tuple[int, ...]
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "on", _place(self.on, f"actor {self.name!r}"))
        if not isinstance(self.params, Mapping):
            raise _core.SimError(f"actor {self.name!r}: params are a mapping: got {self.params!r}")
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_actor, (self.name, self.on, self.kind, dict(self.params)))

    def replace(self, **changes: Any) -> Self:
        """Return an actor with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_data(self) -> dict[str, Any]:
        """Return the actor as the engine takes it."""
        return {"name": self.name, "on": _on(self.on), "kind": self.kind, **self.params}


def _on(place: str | tuple[int, ...]) -> Any:
    return place if isinstance(place, str) else {"cpus": list(place)}


def _actor(name: str, on: str | tuple[int, ...], kind: str, params: dict[str, Any]) -> Actor:
    return Actor(name=name, on=on, kind=kind, params=params)


def _gap(rate_hz: float, what: str, poisson: bool = True) -> dict[str, Any]:
    rate = quantity(rate_hz, f"{what}: a rate", above_zero=True)
    if rate > _MOST_HZ:
        raise _core.SimError(
            f"{what}: a rate must be at most {_MOST_HZ:g} per second, one each ns: got {rate:g}"
        )
    mean = min(_PS / rate, _MOST_PS)
    return {"mean_ps": round(mean), "exponential": flag(poisson, f"{what}: poisson")}


def spin(on: str | tuple[int, ...] = "isolated", *, user_pages: int = 0) -> Actor:
    """Return a user-space loop that never enters the kernel and touches `user_pages` pages."""
    params = {"user_pages": count(user_pages, "spin: user_pages", most=_MOST_PAGES)}
    return Actor(name="spin", on=on, kind="spin", params=params)


def idle(on: str | tuple[int, ...] = "housekeeping") -> Actor:
    """Return an idle CPU."""
    return Actor(name="idle", on=on, kind="idle")


def syscalls(
    on: str | tuple[int, ...] = "isolated",
    *,
    base_ns: float,
    gap_ns: float = 0.0,
    poisson: bool = False,
    kernel_pages: int = 12,
    user_pages: int = 4,
    by: EntryPath = "syscall",
    name: str = "syscalls",
) -> Actor:
    """Return a loop of user time and one system call.

    Parameters
    ----------
    on
        Which CPUs.
    base_ns
        One round trip under mainline, nanoseconds: an input; the body is what the entry code leaves of it.
    gap_ns
        User time between two calls; the mean if `poisson`.
    kernel_pages, user_pages
        Pages touched by the call and between calls: what must be walked again after a flush (unsourced).
    by
        Entry path (arch/x86/entry/entry_64.S, entry_64_compat.S): `syscall`; `syscall_compat` or `sysenter_compat` of
        32-bit code; `exception` (`int 0x80` since Linux 6.7), `exception_espfix` or `exception_bad_iret`. No source
        has what SYSENTER takes: here it takes what SYSCALL does.
    """
    gap = {"mean_ps": _ps(gap_ns, 1e3, f"{name}: gap_ns"), "exponential": flag(poisson, f"{name}: poisson")}
    return Actor(
        name=name,
        on=on,
        kind="syscalls",
        params={
            "gap": gap,
            "base_ps": _ps(base_ns, 1e3, f"{name}: base_ns"),
            "kernel_pages": count(kernel_pages, f"{name}: kernel_pages", most=_MOST_PAGES),
            "user_pages": count(user_pages, f"{name}: user_pages", most=_MOST_PAGES),
            "by": by,
        },
    )


def faults(
    on: str | tuple[int, ...] = "isolated",
    *,
    rate_hz: float,
    body_us: float = 0.5,
    by: EntryPath = "exception",
    poisson: bool = True,
    name: str = "faults",
) -> Actor:
    """Return page faults and other exceptions of the tasks of these CPUs, taken in user mode.

    Parameters
    ----------
    on
        Which CPUs; each needs a foreground with user mode (`spin`, `syscalls`).
    rate_hz
        Faults per second of each CPU. One that falls due in the kernel is taken on the return to user mode.
    body_us
        Time of the handler (unsourced).
    by
        Entry path: `exception`, `exception_espfix` (the return goes to a stack segment of the LDT, so through
        espfix64: back to the kernel CR3 and out again) or `exception_bad_iret` (the IRET faults: entered again).

    Examples
    --------
    >>> faults("isolated", rate_hz=100).kind
    'faults'
    """
    return Actor(
        name=name,
        on=on,
        kind="faults",
        params={
            "gap": _gap(rate_hz, name, poisson),
            "body_ps": _ps(body_us, 1e6, f"{name}: body_us"),
            "by": by,
        },
    )


def interrupts(
    on: str | tuple[int, ...] = "isolated",
    *,
    rate_hz: float,
    body_us: float = 2.0,
    cause: CauseName = "residual",
    poisson: bool = True,
) -> Actor:
    """Return interrupts other than remote calls: ticks, kicks, devices."""
    return Actor(
        name=cause,
        on=on,
        kind="interrupts",
        params={
            "gap": _gap(rate_hz, f"interrupts, {cause}", poisson),
            "body_ps": _ps(body_us, 1e6, f"{cause}: body_us"),
            "cause": cause,
        },
    )


def nmis(on: str | tuple[int, ...] = "isolated", *, rate_hz: float, body_us: float = 2.0) -> Actor:
    """Return NMIs, such as a profiler's."""
    return Actor(
        name="nmis",
        on=on,
        kind="nmis",
        params={
            "gap": _gap(rate_hz, "nmis"),
            "body_ps": _ps(body_us, 1e6, "nmis: body_us"),
        },
    )


def forks(
    on: str | tuple[int, ...] = "housekeeping",
    *,
    rate_hz: float,
    batch: int = 1,
    spread: bool = False,
    poisson: bool = True,
) -> Actor:
    """Return processes or threads that are created and exit.

    `rate_hz` per CPU; `batch` are alive before all of them exit. `spread`: on any housekeeping CPU.
    """
    return Actor(
        name="forks",
        on=on,
        kind="forks",
        params={
            "gap": _gap(rate_hz, "forks", poisson),
            "batch": count(batch, "forks: batch", 1, _MOST_PAGES),
            "spread": flag(spread, "forks: spread"),
        },
    )


@door
def vfree(
    on: str | tuple[int, ...] = "housekeeping",
    *,
    rate_hz: float,
    pages: int,
    then: Iterable[int] = (),
    apart_ms: float = 0.0,
    roams_ms: float | None = None,
) -> Actor:
    """Return vmalloc areas of `pages` pages (guard included) that are allocated and freed.

    Parameters
    ----------
    on, rate_hz
        Which CPUs, and rounds per second on each; of the one process, if it roams. The gap between two rounds
        begins at the last free.
    pages
        Pages of the first area of a round, guard included.
    then, apart_ms
        Pages of further areas of a round, freed `apart_ms` after one another: a file table has two areas.
    roams_ms
        One process on these CPUs, and the time between two scheduler ticks (1000 / `CONFIG_HZ`): a purge occupies the
        CPU it runs on, and at that CPU's next tick another of these CPUs pulls the process
        (`nohz_balancer_kick` in kernel/sched/fair.c). None: a process on each, which stays.
    """
    return Actor(
        name="vfree",
        on=on,
        kind="vfree",
        params={
            "gap": _gap(rate_hz, "vfree"),
            "pages": count(pages, "vfree: pages", 1, _MOST_PAGES),
            "then": [count(area, "vfree: pages", 1, _MOST_PAGES) for area in then],
            "apart_ps": _ps(apart_ms, 1e9, "vfree: apart_ms"),
            "roams_ps": None if roams_ms is None else _ps(roams_ms, 1e9, "vfree: roams_ms"),
        },
    )


def chain(
    steps: Iterable[Mapping[str, Any]],
    on: str | tuple[int, ...] = (0,),
    *,
    rate_hz: float,
    name: str = "chain",
    poisson: bool = True,
) -> Actor:
    """Return a chain of kernel work: steps with `program`, `pages` (0: full flush), `cause`, `per_mille`."""
    return Actor(
        name=name,
        on=on,
        kind="chain",
        params={
            "gap": _gap(rate_hz, name, poisson),
            "steps": _steps(steps, name),
        },
    )


def tasks(
    steps: Iterable[Mapping[str, Any]],
    on: str | tuple[int, ...] = "housekeeping",
    *,
    rate_hz: float,
    processes: int = 1,
    shared: bool = False,
    also_on: str | tuple[int, ...] | None = None,
    name: str = "tasks",
    poisson: bool = True,
) -> Actor:
    """Return processes and threads: `rate_hz` turns a second on each CPU, each doing `steps` in order.

    Address spaces, ASIDs, lazy TLB and shootdowns follow `arch/x86/mm/tlb.c` of Linux 6.12: each step runs the
    kernel's own program (`src/kernel/policy/contexts.kernel`).

    Parameters
    ----------
    steps
        Mappings with `do` and, if it does not happen in every turn, `per_mille`:
        `switch` (to the next process of the CPU), `sleep` (a kernel thread borrows the address space),
        `unmap` (with `pages`, 0 for more than the flush ceiling, and `tables` if page-table pages are freed),
        `fork` (a child's kernel stack), `exit` (the oldest child's; `spread` is the chance per mille that it exits on
        another of these CPUs), `exec` (a fresh address space; the old one is torn down), `migrate` (the process moves
        to the one of these CPUs that has the fewest; what it leaves goes lazy, then on with its next process).
    on, rate_hz
        Which CPUs, and turns per second on each.
    processes
        Processes of each CPU, one thread each, that `switch` takes in turn.
    shared
        One address space for all these CPUs: they run threads of one process.
    also_on
        Further CPUs with a thread of the shared process that takes no turns.

    Examples
    --------
    >>> tasks([{"do": "unmap", "pages": 4}], on=(0,), rate_hz=100, shared=True, also_on="isolated").kind
    'tasks'
    """
    return Actor(
        name=name,
        on=on,
        kind="tasks",
        params={
            "gap": _gap(rate_hz, name, poisson),
            "processes": count(processes, f"{name}: processes", 1, (1 << 16) - 1),
            "shared": flag(shared, f"{name}: shared"),
            "also_on": None if also_on is None else _on(_place(also_on, f"{name}: also_on")),
            "steps": _steps(steps, name),
        },
    )
