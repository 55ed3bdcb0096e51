"""Workloads as data: CPUs, and actors on them with rates and page working sets.

An actor is what a CPU does when nothing happens (its foreground: `spin`, `idle`, `syscalls`) or something
that happens on it (`interrupts`, `nmis`, `forks`, `vfree`, `chain`, `tasks`), or the user pages its task touches
(`stream`, of `sequential`, `pointer_chase`, `zipf` or `from_array`). A scenario is a frozen `Scenario`; the
functions named after one (`rteval`, `spawn_storm`, ...) make one, and each states what it leaves out.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Self

from tlbcore import _core
from tlbcore._input.cpus import CpuListError, as_cpus
from tlbcore._input.names import unknown
from tlbcore._input.numbers import count, flag, quantity
from tlbcore._input.vocabulary import CauseName, EntryPath

__all__ = [
    "SCENARIOS",
    "Actor",
    "Scenario",
    "by_name",
    "chain",
    "cpu_list",
    "dpdk_poll",
    "faults",
    "filter_attach",
    "forks",
    "from_array",
    "hackbench",
    "idle",
    "interrupts",
    "kernel_build",
    "module_load",
    "nmis",
    "pointer_chase",
    "pthread_churn",
    "quiet",
    "rteval",
    "sequential",
    "spawn_storm",
    "spin",
    "stream",
    "syscall_heavy",
    "syscalls",
    "tasks",
    "text_poke",
    "trading",
    "user_shootdown",
    "vfree",
    "zipf",
]

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
    cpu_list(on)
    return tuple(on)


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


def sequential(pages: int, *, stride: int = 1) -> dict[str, Any]:
    """Return the pattern that touches `pages` pages one after the other, every `stride`-th, and again."""
    return {"sequential": {"pages": _positive(pages, "pages"), "stride": _positive(stride, "stride")}}


def pointer_chase(pages: int) -> dict[str, Any]:
    """Return the pattern of one random cycle through `pages` pages: each miss is waited for before the next touch."""
    return {"chase": {"pages": _positive(pages, "pages")}}


def zipf(pages: int, *, s: float = 1.0) -> dict[str, Any]:
    """Return the pattern of independent touches where page `i` has the weight `1 / (i + 1) ** s`.

    Weights become integers, the largest 2**31 and the smallest 1, so that the engine needs no floats.
    """
    power = quantity(s, "zipf: s")
    weights = [max(round(2**31 * (i + 1) ** -power), 1) for i in range(_positive(pages, "pages"))]
    return {"weighted": {"weights": weights}}


def from_array(pages: Iterable[int]) -> dict[str, Any]:
    """Return the pattern of these page numbers (virtual addresses shifted right by 12) in this order, and again.

    Any one-dimensional array of integers will do, of any integer dtype.
    """
    numbers: list[int] = []
    for at, page in enumerate(pages):
        if isinstance(page, bool) or not hasattr(page, "__index__") or operator.index(page) < 0:
            raise _core.SimError(f"from_array: page numbers are integers of at least 0: got {page} at {at}")
        numbers.append(operator.index(page))
    return {"array": {"pages": numbers}}


def _positive(value: int, what: str) -> int:
    return count(value, what, 1, 1 << 24)


def stream(
    on: str | tuple[int, ...],
    pattern: Mapping[str, Any] | Iterable[tuple[int, Mapping[str, Any]]],
    *,
    rate_hz: float,
    poisson: bool = False,
    name: str = "stream",
) -> Actor:
    """Return user pages that a CPU's task touches in user mode; simulate with `detail="full"`.

    Parameters
    ----------
    on
        Which CPUs; each needs a foreground with user mode (`spin`, `syscalls`) and takes one stream.
    pattern
        `sequential`, `pointer_chase`, `zipf` or `from_array`; or phases: (touches, pattern) pairs that follow each
        other and repeat.
    rate_hz
        Touches per second of user time, misses included: what they cost is counted (`stream_ps`), not added to
        the task's time.
    poisson
        Exponential gaps instead of constant ones.

    Raises
    ------
    SimError
        If the rate is not above 0. What the engine refuses (no phase, no page, no user mode) is raised by
        `Scenario`.

    Examples
    --------
    >>> from tlbcore import simulate
    >>> load = Scenario(
    ...     name="chase",
    ...     duration_s=0.02,
    ...     cpus=2,
    ...     isolated=(1,),
    ...     actors=(spin("all"), stream("isolated", pointer_chase(64), rate_hz=1e6)),
    ... )
    >>> run = simulate(load, machine="broadwell-ep", policy="ipi", detail="full")
    >>> run.total("stream_first"), run.total("stream_evicted")
    (64, 0)
    """
    if not isinstance(pattern, Iterable):
        raise _core.SimError(
            f"{name}: a pattern is made by zipf and its like, or phases of them: got {pattern!r}"
        )
    if isinstance(pattern, Mapping):
        phases: list[dict[str, Any]] = [{"pattern": dict(pattern)}]
    else:
        try:
            pairs = [(touches, dict(each)) for touches, each in pattern]
        except (TypeError, ValueError):
            raise _core.SimError(
                f"{name}: a phase is a pair of touches and a pattern: got {pattern!r:.80}"
            ) from None
        phases = [{"touches": _positive(touches, "touches"), "pattern": each} for touches, each in pairs]
    return Actor(
        name=name,
        on=on,
        kind="stream",
        params={"gap": _gap(rate_hz, name, poisson), "phases": phases},
    )


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A workload: CPUs and actors on them.

    Parameters
    ----------
    name, abstraction
        What it is called, and what it leaves out, in one sentence.
    duration_s
        Simulated seconds.
    cpus, isolated, sockets
        Online CPUs, the NOHZ_FULL ones among them (a list such as `18-43` or numbers), sockets.
    actors
        What happens.
    flush_mask
        CPUs the entry flush tests for, where that differs from `isolated` (FACTS 1.6 f).
    lazy_max_pages
        `lazy_max_pages()`, where it is tuned; None: the kernel's formula.
    rcu_ms, work_delay_us
        RCU grace period, and the time from queueing the purge work to its start (both unsourced).
    extra_ipi_ms
        Mean of an extra exponential delay of interrupts, for emulators.

    Raises
    ------
    SimError
        If no such machine can be: CPU 0 isolated, a CPU that does not exist, a negative or NaN time or rate,
        two foregrounds on one CPU. The message names the scenario, the actor and the rule.
    """

    name: str
    duration_s: float
    cpus: int
    isolated: tuple[int, ...]
    actors: tuple[Actor, ...]
    abstraction: str = ""
    sockets: int = 1
    flush_mask: tuple[int, ...] | None = None
    lazy_max_pages: int | None = None
    rcu_ms: float = 20.0
    work_delay_us: float = 20.0
    extra_ipi_ms: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "isolated", cpu_list(self.isolated))
        if not isinstance(self.actors, Iterable) or not all(isinstance(a, Actor) for a in self.actors):
            raise _core.SimError(
                f"scenario {self.name!r}: actors are a sequence of Actor: got {self.actors!r}"
            )
        object.__setattr__(self, "actors", tuple(self.actors))
        if self.flush_mask is not None:
            object.__setattr__(self, "flush_mask", cpu_list(self.flush_mask))
        object.__setattr__(self, "_json", self._to_json())  # sweeps ask for it once per point
        _core.scenario_check(self.to_json())

    def to_json(self) -> str:
        """Return the scenario as the engine takes it: one JSON object, times in picoseconds."""
        text: str = self.__dict__["_json"]
        return text

    def _to_json(self) -> str:
        what = f"scenario {self.name!r}:"
        lazy = self.lazy_max_pages
        duration = quantity(self.duration_s, f"{what} duration_s", above_zero=True, most=_MOST_PS / _PS)
        return json.dumps(
            {
                "name": self.name,
                "abstraction": self.abstraction,
                "duration_ps": max(round(duration * _PS), 1),
                "cpus": count(self.cpus, f"{what} cpus", 1, 4096),
                "isolated": list(self.isolated),
                "sockets": count(self.sockets, f"{what} sockets", 1, 4096),
                "flush_mask": None if self.flush_mask is None else list(self.flush_mask),
                "lazy_max_pages": None if lazy is None else count(lazy, f"{what} lazy_max_pages"),
                "rcu_ps": _ps(self.rcu_ms, 1e9, f"{what} rcu_ms"),
                "work_delay_ps": _ps(self.work_delay_us, 1e6, f"{what} work_delay_us"),
                "extra_ipi_ps": _ps(self.extra_ipi_ms, 1e9, f"{what} extra_ipi_ms"),
                "actors": [actor.to_data() for actor in self.actors],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the scenario that `to_json` wrote.

        Raises
        ------
        SimError
            If the text is no JSON object, lacks a key or has one that no scenario has, or if no such machine can be.

        Examples
        --------
        >>> load = spawn_storm(duration_s=1)
        >>> Scenario.from_json(load.to_json()) == load
        True
        """
        try:
            data = json.loads(text)
        except (TypeError, ValueError) as error:
            raise _core.SimError(f"scenario: the text is no JSON: {error}") from None
        if not isinstance(data, dict):
            raise _core.SimError(f"scenario: the text must be a JSON object: got {type(data).__name__}")
        what = f"scenario {data.get('name')!r}:"
        fields = dict(data)
        try:
            for name, ps, unit in _TIMES:
                fields[name] = fields.pop(ps) / unit
            actors = [_actor_of(actor, what) for actor in fields.pop("actors")]
            fields["isolated"] = tuple(fields["isolated"])
        except KeyError as error:
            raise _core.SimError(f"{what} the key {error.args[0]!r} is missing") from None
        except TypeError as error:
            raise _core.SimError(f"{what} a value has the wrong kind: {error}") from None
        known = {field.name for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise _core.SimError(f"{what} {unknown('key', name, known)}")
        try:
            return cls(**fields, actors=tuple(actors))
        except TypeError as error:
            raise _core.SimError(f"{what} {error}") from None

    def replace(self, **changes: Any) -> Self:
        """Return a scenario with some fields changed."""
        return dataclasses.replace(self, **changes)


# Fields of a scenario that are times: name, key in the JSON, picoseconds of one.
_TIMES = (
    ("duration_s", "duration_ps", 1e12),
    ("rcu_ms", "rcu_ps", 1e9),
    ("work_delay_us", "work_delay_ps", 1e6),
    ("extra_ipi_ms", "extra_ipi_ps", 1e9),
)


def _actor_of(data: Any, what: str) -> Actor:
    if not isinstance(data, dict):
        raise _core.SimError(f"{what} an actor must be a JSON object: got {data!r}")
    params = dict(data)
    on = params.pop("on")
    if isinstance(on, dict):
        on = tuple(on["cpus"])
    return Actor(name=params.pop("name"), on=on, kind=params.pop("kind"), params=params)


def _others(cpus: int, isolated: tuple[int, ...]) -> int:
    """Return the number of housekeeping CPUs; 1 where there is none, which `Scenario` refuses with the rule."""
    return max(count(cpus, "cpus", 1, 4096) - len(isolated), 1)


def rteval(
    *,
    duration_s: float = 6 * 3600.0,
    cpus: int = 44,
    isolated: str | tuple[int, ...] = "18-43",
    sockets: int = 2,
    spawn_hz: float = 114.0,
    batch: int = 20,
) -> Scenario:
    """Return the published noise measurement: kernel build and hackbench beside busy isolated CPUs.

    The spawn rate was never published. The default is the rate at which one purge in about 108 s follows
    (FACTS 3.2): fitted, so the number of interrupts is a consistency check and no prediction (NUMBERS 2).

    Parameters
    ----------
    duration_s, cpus, isolated, sockets
        As in `Scenario`.
    spawn_hz
        Processes and threads created per second on all housekeeping CPUs together.
    batch
        Children alive before they exit, per CPU: decides how many stacks come from the cache.
    """
    listed = cpu_list(isolated)
    return Scenario(
        name="rteval",
        duration_s=duration_s,
        cpus=cpus,
        isolated=listed,
        sockets=sockets,
        abstraction="Kernel build and hackbench are their process creation; isolated CPUs run one busy loop "
        "and nothing else interrupts them; housekeeping system calls cost nothing.",
        actors=(
            spin("isolated"),
            spin("housekeeping"),
            forks(
                "housekeeping", rate_hz=quantity(spawn_hz, "spawn_hz") / _others(cpus, listed), batch=batch
            ),
        ),
    )


def spawn_storm(
    *,
    duration_s: float = 60.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    rate_hz: float = 100.0,
    batch: int = 256,
    residual_hz: float = 1.2,
) -> Scenario:
    """Return a fork storm on every housekeeping CPU: `rate_hz` forks/s each, `batch` alive."""
    actors: tuple[Actor, ...] = (
        spin("isolated"),
        spin("housekeeping"),
        forks("housekeeping", rate_hz=rate_hz, batch=batch),
    )
    if residual_hz:
        actors += (interrupts("isolated", rate_hz=residual_hz),)
    return Scenario(
        name="spawn-storm",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        actors=actors,
        abstraction="A fork is its kernel stack; its own CPU time, page faults and copy-on-write flushes are "
        "left out. Residual noise is 1.2 entries a second (measured, 6.12 under QEMU).",
    )


def dpdk_poll(
    *,
    duration_s: float = 600.0,
    cpus: int = 16,
    isolated: str | tuple[int, ...] = "4-15",
    user_pages: int = 512,
    spawn_hz: float = 50.0,
    tick_hz: float = 0.0,
) -> Scenario:
    """Return pollers that never enter the kernel, beside housekeeping CPUs that spawn processes."""
    listed = cpu_list(isolated)
    actors: tuple[Actor, ...] = (
        spin("isolated", user_pages=user_pages),
        spin("housekeeping"),
        forks("housekeeping", rate_hz=quantity(spawn_hz, "spawn_hz") / _others(cpus, listed), batch=8),
    )
    if tick_hz:
        actors += (interrupts("isolated", rate_hz=tick_hz, cause="tick", poisson=False),)
    return Scenario(
        name="dpdk-poll",
        duration_s=duration_s,
        cpus=cpus,
        isolated=listed,
        actors=actors,
        abstraction="Polling is a loop over user pages; device interrupts are off; rates are unsourced.",
    )


def _between(calls_hz: float, base_ns: float) -> float:
    """Return the user time between two calls of `base_ns`, so that there are `calls_hz` a second."""
    return max(1e9 / quantity(calls_hz, "calls_hz", above_zero=True) - quantity(base_ns, "base_ns"), 0.0)


def trading(
    *,
    duration_s: float = 60.0,
    cpus: int = 16,
    isolated: str | tuple[int, ...] = "8-15",
    calls_hz: float = 20_000.0,
    base_ns: float = 900.0,
    spawn_hz: float = 50.0,
) -> Scenario:
    """Return event-driven tasks: Poisson system calls on the isolated CPUs, latency matters."""
    listed = cpu_list(isolated)
    gap_ns = _between(calls_hz, base_ns)
    return Scenario(
        name="trading",
        duration_s=duration_s,
        cpus=cpus,
        isolated=listed,
        abstraction="A message is one system call of fixed work after a Poisson gap; rates are unsourced.",
        actors=(
            syscalls("isolated", base_ns=base_ns, gap_ns=gap_ns, poisson=True),
            spin("housekeeping"),
            forks("housekeeping", rate_hz=quantity(spawn_hz, "spawn_hz") / _others(cpus, listed), batch=8),
        ),
    )


def syscall_heavy(
    *,
    duration_s: float = 10.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    base_ns: float = 770.0,
    gap_ns: float = 0.0,
    spawn_hz: float = 90.0,
) -> Scenario:
    """Return the published getpid loop on every isolated CPU, beside a load that spawns processes.

    `base_ns` is the published time of one call before the patches: an input (NUMBERS 14).
    """
    listed = cpu_list(isolated)
    return Scenario(
        name="syscall-heavy",
        duration_s=duration_s,
        cpus=cpus,
        isolated=listed,
        abstraction="getpid in a loop; 12 kernel and 4 user pages are touched per round (unsourced).",
        actors=(
            syscalls("isolated", base_ns=base_ns, gap_ns=gap_ns),
            spin("housekeeping"),
            forks("housekeeping", rate_hz=quantity(spawn_hz, "spawn_hz") / _others(cpus, listed), batch=20),
        ),
    )


# Per attach and detach of a socket filter without the JIT (traces p4.w3i, FACTS 8): one flush_tlb_all of
# set_memory_ro; one purge by the free, full because its range runs from the direct map into vmalloc. In 14 %
# the next attach purges the area first: then both flushes are ranged (fitted to p4.w3i).
FILTER_STEPS: tuple[dict[str, Any], ...] = (
    {"program": "set_memory", "pages": 0, "cause": "set_memory"},
    {"program": "purge", "pages": 0, "cause": "aliases", "per_mille": 863},
    {"program": "purge", "pages": 3, "cause": "aliases", "per_mille": 137},
    {"program": "purge", "pages": 2, "cause": "aliases", "per_mille": 137},
)

# Per load and unload of a module (traces p4.w7): 5 full and 1 ranged flush_tlb_kernel_range, 3.3
# flush_tlb_all.
MODULE_STEPS: tuple[dict[str, Any], ...] = (
    *({"program": "purge", "pages": 0, "cause": "aliases"} for _ in range(5)),
    {"program": "purge", "pages": 4, "cause": "aliases"},
    *({"program": "set_memory", "pages": 0, "cause": "set_memory"} for _ in range(3)),
    {"program": "set_memory", "pages": 0, "cause": "set_memory", "per_mille": 333},
)


# One batch of text_poke_bp_batch: three syncs, however many instructions it patches.
STATIC_KEY_STEPS: tuple[dict[str, Any], ...] = ({"program": "text_poke", "pages": 0, "cause": "text_poke"},)


def filter_attach(
    *,
    duration_s: float = 60.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    rate_hz: float = 1.6,
) -> Scenario:
    """Return socket filters attached and detached without the JIT, `rate_hz` times a second."""
    return Scenario(
        name="filter-attach",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        abstraction="An attach and detach is its flushes as counted on 6.12 (fitted); the JIT has none.",
        actors=(
            spin("isolated"),
            spin("housekeeping"),
            chain(FILTER_STEPS, (0,), rate_hz=rate_hz, name="filter"),
        ),
    )


def module_load(
    *,
    duration_s: float = 60.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    rate_hz: float = 0.35,
    pokes: int = 0,
) -> Scenario:
    """Return modules loaded and unloaded, `rate_hz` times a second.

    `pokes` is the number of `text_poke_bp_batch` batches per cycle, of three syncs each: static keys that a module
    flips, ftrace updates while a tracer is on. The recorded module (nls_utf8) needs none: 21 traced cycles queued
    1,139 remote calls, none of them `do_sync_core`.
    """
    steps = (*MODULE_STEPS, *STATIC_KEY_STEPS * count(pokes, "pokes", most=1000))
    return Scenario(
        name="module-load",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        abstraction="A load and unload is its flushes as counted on 6.12 (fitted), where no text was patched"
        + (f"; {pokes} batches of text patching are added to each." if pokes else "."),
        actors=(
            spin("isolated"),
            spin("housekeeping"),
            chain(steps, (0,), rate_hz=rate_hz, name="module"),
        ),
    )


# Arming and disarming a kprobe: one sync each.
KPROBE_STEPS: tuple[dict[str, Any], ...] = (
    {"program": "text_breakpoint", "pages": 0, "cause": "text_poke"},
    {"program": "text_breakpoint", "pages": 0, "cause": "text_poke"},
)


def text_poke(
    *,
    duration_s: float = 600.0,
    cpus: int = 44,
    isolated: str | tuple[int, ...] = "18-43",
    static_keys_hz: float = 0.05,
    kprobes_hz: float = 0.01,
    calls_hz: float = 0.0,
    base_ns: float = 900.0,
) -> Scenario:
    """Return text patching on a housekeeping CPU: static keys flipped, kprobes armed and disarmed.

    Parameters
    ----------
    duration_s, cpus, isolated
        As in `Scenario`.
    static_keys_hz, kprobes_hz
        Batches of `text_poke_bp_batch` and kprobe cycles per second (both unsourced).
    calls_hz, base_ns
        System calls of the isolated CPUs, and the time of one; 0: they spin in user mode.
    """
    quantity(calls_hz, "calls_hz")
    gap_ns = _between(calls_hz, base_ns) if calls_hz else 0.0
    actors: tuple[Actor, ...] = (
        syscalls("isolated", base_ns=base_ns, gap_ns=gap_ns, poisson=True) if calls_hz else spin("isolated"),
        spin("housekeeping"),
    )
    if static_keys_hz:
        actors += (chain(STATIC_KEY_STEPS, (0,), rate_hz=static_keys_hz, name="static keys"),)
    if kprobes_hz:
        actors += (chain(KPROBE_STEPS, (0,), rate_hz=kprobes_hz, name="kprobes"),)
    return Scenario(
        name="text-poke",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        abstraction="A patch is its syncs: 3 per batch of static keys, 1 for arming and 1 for disarming a kprobe; "
        "what the breakpoint costs those who hit it is left out; rates are unsourced.",
        actors=actors,
    )


def quiet(
    *,
    duration_s: float = 3600.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    residual_hz: float = 1.2,
) -> Scenario:
    """Return busy isolated CPUs with residual noise only (measured, 6.12 under QEMU: 1.2 entries/s)."""
    actors: tuple[Actor, ...] = (spin("isolated"), idle("housekeeping"))
    if residual_hz:
        actors += (interrupts("isolated", rate_hz=residual_hz),)
    return Scenario(
        name="quiet",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        actors=actors,
        abstraction="Nothing runs on housekeeping CPUs.",
    )


# name on the command line -> function
def user_shootdown(
    *,
    duration_s: float = 10.0,
    cpus: int = 8,
    isolated: str | tuple[int, ...] = "4-7",
    rate_hz: float = 500.0,
    pages: int = 4,
    batch: int = 1,
    pinned: bool = False,
) -> Scenario:
    """Return one process with a thread on every CPU; housekeeping threads change user mappings.

    `rate_hz` changes a second on each housekeeping CPU, of `pages` pages. The isolated threads only compute, and
    are interrupted because they share the address space. With `batch` as many changes share a flush, as
    `process_madvise` or an allocator's decay have it: a call of `batch * pages` pages, `rate_hz / batch` times a
    second. `pinned` keeps the threads of the process on the housekeeping CPUs; another process computes on the others.

    Raises
    ------
    SimError
        If `batch` is below 1.
    """
    batch = _positive(batch, "batch")
    steps: list[dict[str, Any]] = [{"do": "unmap", "pages": batch * pages}]
    also_on = None if pinned else "isolated"
    return Scenario(
        name="user-shootdown",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        actors=(
            spin("isolated", user_pages=32),
            spin("housekeeping"),
            tasks(steps, rate_hz=rate_hz / batch, shared=True, also_on=also_on, name="threads"),
        ),
        abstraction="Page faults after an unmap and contention for mmap_lock are left out; rates are unsourced.",
    )


def pthread_churn(
    *,
    duration_s: float = 10.0,
    cpus: int = 8,
    isolated: str | tuple[int, ...] = "4-7",
    rate_hz: float = 1000.0,
) -> Scenario:
    """Return a process on the housekeeping CPUs that creates and joins threads, `rate_hz` a second on each.

    A thread is a kernel stack in vmalloc space and a user stack that `madvise` gives back when it ends
    (glibc `advise_stack_range`).
    """
    steps: list[dict[str, Any]] = [
        {"do": "switch"},
        {"do": "fork"},
        {"do": "unmap", "pages": 8},
        {"do": "exit"},
        {"do": "sleep"},
    ]
    return Scenario(
        name="pthread-churn",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        actors=(spin("isolated"), tasks(steps, rate_hz=rate_hz, shared=True, name="threads")),
        abstraction="A thread's own work and its page faults are left out; 8 touched pages of user stack and the "
        "rates are unsourced.",
    )


def hackbench(
    *,
    duration_s: float = 1.0,
    cpus: int = 8,
    isolated: str | tuple[int, ...] = "4-7",
    switches_hz: float = 50_000.0,
    processes: int = 40,
) -> Scenario:
    """Return processes that pass messages: `switches_hz` context switches a second on each housekeeping CPU.

    `processes` per CPU are taken in turn; each has an address space of its own, so more than six miss the ASIDs.
    """
    steps: list[dict[str, Any]] = [{"do": "switch"}, {"do": "sleep", "per_mille": 50}]
    return Scenario(
        name="hackbench",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        actors=(spin("isolated"), tasks(steps, rate_hz=switches_hz, processes=processes, name="messages")),
        abstraction="A message is a context switch; the copy and wake-ups on other CPUs are left out, and no "
        "process moves (no source says how often); rates and the share of sleeps are unsourced.",
    )


def kernel_build(
    *,
    duration_s: float = 10.0,
    cpus: int = 8,
    isolated: str | tuple[int, ...] = "4-7",
    jobs_hz: float = 50.0,
    switches_hz: float = 1000.0,
    migrations: float = 0.043,
    spread: float = 0.474,
) -> Scenario:
    """Return a parallel build: `jobs_hz` compiler processes a second on each housekeeping CPU, and context switches.

    A job is a fork (copy-on-write: the parent is flushed as a whole), an exec, unmaps while it runs, and an exit.

    Parameters
    ----------
    duration_s, cpus, isolated
        As in `Scenario`.
    jobs_hz, switches_hz
        Jobs, and turns of other processes, per second on each housekeeping CPU (unsourced).
    migrations
        Migrations per context switch: 4.3 % of a kernel build on 16 CPUs (published, mvermeulen.org/perf/?p=615).
    spread
        Share of children that exit on another CPU than they started on: 5,694 of 12,007 on two CPUs (measured, trace
        p4.w2 of 6.12 under QEMU).
    """
    quantity(migrations, "migrations", most=0.5)
    moves = round(1000 * migrations / (1 - migrations))  # a migration is followed by a switch of its own
    job: list[dict[str, Any]] = [
        {"do": "switch"},
        {"do": "fork"},
        {"do": "unmap", "pages": 0},
        {"do": "switch"},
        {"do": "exec"},
        {"do": "unmap", "pages": 16},
        {"do": "unmap", "pages": 2, "tables": True},
        {"do": "exit", "spread": round(1000 * quantity(spread, "spread", most=1))},
        *({"do": "migrate", "per_mille": moves} for _ in range(3)),  # of two switches and the exec
    ]
    turns: list[dict[str, Any]] = [
        {"do": "switch"},
        {"do": "migrate", "per_mille": moves},
        {"do": "sleep", "per_mille": 200},
    ]
    return Scenario(
        name="kernel-build",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        actors=(
            spin("isolated"),
            tasks(job, rate_hz=jobs_hz, processes=2, name="jobs"),
            tasks(turns, rate_hz=switches_hz, processes=4, name="others"),
        ),
        abstraction="Page faults and the work of the compiler are left out; a process moves to the CPU with the "
        "fewest; rates are unsourced, except migrations per context switch (published) and the share of children that "
        "exit elsewhere (measured).",
    )


SCENARIOS: dict[str, Callable[..., Scenario]] = {
    "spawn-storm": spawn_storm,
    "rteval": rteval,
    "dpdk-poll": dpdk_poll,
    "trading": trading,
    "syscall-heavy": syscall_heavy,
    "filter-attach": filter_attach,
    "module-load": module_load,
    "text-poke": text_poke,
    "quiet": quiet,
    "user-shootdown": user_shootdown,
    "pthread-churn": pthread_churn,
    "hackbench": hackbench,
    "kernel-build": kernel_build,
}


@cache
def _parameters(make: Callable[..., Scenario]) -> tuple[str, ...]:
    return tuple(inspect.signature(make).parameters)


def by_name(name: str, **parameters: Any) -> Scenario:
    """Return a built-in scenario by its name, such as `spawn-storm`.

    Raises
    ------
    SimError
        If there is none of that name (the nearest is suggested), or it does not take a parameter.
    """
    if not isinstance(name, str) or name not in SCENARIOS:
        raise _core.SimError(unknown("scenario", name, SCENARIOS))
    known = _parameters(SCENARIOS[name])
    for parameter in parameters:
        if parameter not in known:
            raise _core.SimError(f"scenario {name!r}: {unknown('parameter', parameter, known)}")
    return SCENARIOS[name](**parameters)
