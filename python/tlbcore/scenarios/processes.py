"""Processes and threads: shootdowns of user pages, threads created, context switches, a build."""

from __future__ import annotations

from typing import Any

from tlbcore import _core
from tlbcore._input.door import door
from tlbcore._input.numbers import count, flag, quantity
from tlbcore.scenarios.actors import cpu_list, spin, tasks
from tlbcore.scenarios.streams import _positive
from tlbcore.scenarios.workload import Scenario


@door
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

    `rate_hz` changes a second on each housekeeping CPU, of `pages` pages (0: of more than the flush ceiling). The
    isolated threads only compute, and are interrupted because they share the address space. With `batch` as many
    changes share a flush, as `process_madvise` or an allocator's decay have it: a call of `batch * pages` pages,
    `rate_hz / batch` times a second. `pinned` keeps the threads of the process on the housekeeping CPUs; another
    process computes on the others.

    Raises
    ------
    SimError
        If `batch` is below 1, or a call would be of more than 2**32 - 1 pages.
    """
    batch = _positive(batch, "batch")
    pages = count(pages, "pages", most=((1 << 32) - 1) // batch)
    steps: list[dict[str, Any]] = [{"do": "unmap", "pages": batch * pages}]
    also_on = None if flag(pinned, "pinned") else "isolated"
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


# Migrations per context switch, and the share of children that exit on another CPU: see `kernel_build`.
_MIGRATIONS = 0.043
_SPREAD = 0.474


def _per_mille(chance: float, what: str, given: float) -> int:
    """Return a chance as the engine takes it, per mille; one above 0 that would become none is refused."""
    rounded = round(1000 * chance)
    if given and not rounded:
        raise _core.SimError(
            f"{what} must be 0 or at least 0.0005, as chances are whole per mille: got {given!r}"
        )
    return rounded


def kernel_build(
    *,
    duration_s: float = 10.0,
    cpus: int = 8,
    isolated: str | tuple[int, ...] = "4-7",
    jobs_hz: float = 50.0,
    switches_hz: float = 1000.0,
    migrations: float = _MIGRATIONS,
    spread: float = _SPREAD,
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
        Migrations per context switch: 4.3 % of a kernel build on 16 CPUs (published, mvermeulen.org/perf/?p=615);
        0, or from 0.0005 to 0.5.
    spread
        Share of children that exit on another CPU than they started on: 5,694 of 12,007 on two CPUs (measured, trace
        p4.w2 of 6.12 under QEMU); 0, or from 0.0005 to 1.

    Raises
    ------
    SimError
        If a share is none, or so small that it would be rounded to none: the engine has chances per mille.
    """
    share = quantity(migrations, "migrations", most=0.5)
    moves = _per_mille(
        share / (1 - share), "migrations", share
    )  # a migration is followed by a switch of its own
    spreads = _per_mille(quantity(spread, "spread", most=1), "spread", spread)
    job: list[dict[str, Any]] = [
        {"do": "switch"},
        {"do": "fork"},
        {"do": "unmap", "pages": 0},
        {"do": "switch"},
        {"do": "exec"},
        {"do": "unmap", "pages": 16},
        {"do": "unmap", "pages": 2, "tables": True},
        {"do": "exit", "spread": spreads},
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
        f"fewest; rates are unsourced, except migrations per context switch "
        f"({'published' if migrations == _MIGRATIONS else 'as given'}) and the share of children that exit elsewhere "
        f"({'measured' if spread == _SPREAD else 'as given'}).",
    )
