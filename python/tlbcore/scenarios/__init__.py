"""Workloads as data: CPUs, and actors on them with rates and page working sets.

An actor is what a CPU does when nothing happens (its foreground: `spin`, `idle`, `syscalls`) or something
that happens on it (`interrupts`, `nmis`, `forks`, `vfree`, `chain`, `tasks`), or the user pages its task touches
(`stream`, of `sequential`, `pointer_chase`, `zipf` or `from_array`). A scenario is a frozen `Scenario`; the
functions named after one (`rteval`, `spawn_storm`, ...) make one, and each states what it leaves out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from tlbcore import _core
from tlbcore._input.names import unknown
from tlbcore.scenarios.actors import PLACES as PLACES
from tlbcore.scenarios.actors import (
    Actor,
    chain,
    cpu_list,
    faults,
    forks,
    idle,
    interrupts,
    nmis,
    spin,
    syscalls,
    tasks,
    vfree,
)
from tlbcore.scenarios.actors import _actor as _actor
from tlbcore.scenarios.isolated import dpdk_poll, quiet, rteval, spawn_storm, syscall_heavy, trading
from tlbcore.scenarios.kernel_work import FILTER_STEPS as FILTER_STEPS
from tlbcore.scenarios.kernel_work import KPROBE_STEPS as KPROBE_STEPS
from tlbcore.scenarios.kernel_work import MODULE_STEPS as MODULE_STEPS
from tlbcore.scenarios.kernel_work import STATIC_KEY_STEPS as STATIC_KEY_STEPS
from tlbcore.scenarios.kernel_work import filter_attach, module_load, text_poke
from tlbcore.scenarios.processes import hackbench, kernel_build, pthread_churn, user_shootdown
from tlbcore.scenarios.streams import from_array, pointer_chase, sequential, stream, zipf
from tlbcore.scenarios.workload import Scenario

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

# name on the command line -> function
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
