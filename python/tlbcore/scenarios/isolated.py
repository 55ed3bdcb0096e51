"""Loads that try isolation: tasks on isolated CPUs, and processes created beside them."""

from __future__ import annotations

from tlbcore import _core
from tlbcore._input.numbers import count, quantity
from tlbcore.scenarios.actors import Actor, cpu_list, forks, idle, interrupts, spin, syscalls
from tlbcore.scenarios.workload import Scenario


def _others(cpus: int, isolated: tuple[int, ...]) -> int:
    """Return the number of housekeeping CPUs; 1 where there is none, which `Scenario` refuses with the rule."""
    return max(count(cpus, "cpus", 1, 4096) - len(isolated), 1)


def _spawns(spawn_hz: float, cpus: int, isolated: tuple[int, ...], batch: int) -> Actor:
    """Return the processes of all housekeeping CPUs together, `spawn_hz` a second."""
    rate = quantity(spawn_hz, "spawn_hz", above_zero=True)
    return forks("housekeeping", rate_hz=rate / _others(cpus, isolated), batch=batch)


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
    (docs/sources.md, FACTS 3.2): fitted, so the number of interrupts is a consistency check and no prediction
    (docs/sources.md, NUMBERS 2).

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
            _spawns(spawn_hz, cpus, listed, batch),
        ),
    )


_RESIDUAL_HZ = 1.2  # entries a second of an isolated CPU on which nothing goes on, 6.12 under QEMU


def _residual(hz: float) -> str:
    """Return what is said of residual noise: where its rate comes from, if it is ours."""
    if hz == _RESIDUAL_HZ:
        return f"is {hz:g} entries a second (measured, 6.12 under QEMU)"
    return f"is {hz:g} entries a second (as given)" if hz else "is left out, too"


def spawn_storm(
    *,
    duration_s: float = 60.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    rate_hz: float = 100.0,
    batch: int = 256,
    residual_hz: float = _RESIDUAL_HZ,
) -> Scenario:
    """Return a fork storm on every housekeeping CPU: `rate_hz` forks/s each, `batch` alive.

    `residual_hz` interrupts a second come to each isolated CPU from elsewhere (measured, 6.12 under QEMU: 1.2).
    """
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
        f"left out. Residual noise {_residual(residual_hz)}.",
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
        _spawns(spawn_hz, cpus, listed, 8),
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
    """Return the user time between two calls of `base_ns`, so that there are `calls_hz` a second.

    Raises `SimError` if calls that follow each other at once are fewer.
    """
    rate, base = quantity(calls_hz, "calls_hz", above_zero=True), quantity(base_ns, "base_ns")
    if rate * base > 1e9 * (1 + 1e-9):
        raise _core.SimError(
            f"calls_hz must be at most {1e9 / base:g}, as a call takes {base:g} ns: got {rate:g}"
        )
    return max(1e9 / rate - base, 0.0)


def trading(
    *,
    duration_s: float = 60.0,
    cpus: int = 16,
    isolated: str | tuple[int, ...] = "8-15",
    calls_hz: float = 20_000.0,
    base_ns: float = 900.0,
    spawn_hz: float = 50.0,
) -> Scenario:
    """Return event-driven tasks: Poisson system calls on the isolated CPUs, latency matters.

    `calls_hz` calls a second of `base_ns` each, one after the other: at most `1e9 / base_ns`.
    """
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
            _spawns(spawn_hz, cpus, listed, 8),
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

    `base_ns` is the published time of one call before the patches: an input (docs/sources.md, NUMBERS 14).
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
            _spawns(spawn_hz, cpus, listed, 20),
        ),
    )


def quiet(
    *,
    duration_s: float = 3600.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    residual_hz: float = _RESIDUAL_HZ,
) -> Scenario:
    """Return busy isolated CPUs with residual noise only (measured, 6.12 under QEMU: 1.2 entries/s; 0: none)."""
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
