"""What helps, as advice that this machine can take.

An option that is on the command line already is not offered again; one that contradicts another is not offered;
what the kernel's version does not have is not offered. While the line holds a part that the kernel refused or
ignored, nothing is built on it: mending that part comes first.
"""

from __future__ import annotations

from collections.abc import Iterable

from tlbcore._input.boot_line import FLAGS, boot_cpu_list, has
from tlbcore._input.cpus import CpuListError, cpu_list, show_cpus
from tlbcore.inspect._facts import Facts

_LISTS = ("nohz_full", "rcu_nocbs", "irqaffinity")


def isolcpus(facts: Facts, cpus: frozenset[int], *flags: str) -> str:
    """Return the value of an `isolcpus=` with these flags and those in force, as this version takes it."""
    wanted = {
        *flags,
        *(flag for made in facts.boot.decisions if made.option == "isolcpus" for flag in made.flags),
    }
    if "nohz_full" in facts.options:
        wanted.discard("nohz")  # nohz_full= says it
    if has(facts.version, (5, 6), el8=193) is False:
        wanted.discard("managed_irq")
    return ",".join([*(flag for flag in FLAGS if flag in wanted), show_cpus(cpus)])


def boot(facts: Facts, options: Iterable[tuple[str, str | None]], *, mending: bool = False) -> str | None:
    """Return `boot with ...` for the options that are not in force already; None if all are.

    `mending` says that the advice mends the line itself.
    """
    if not mending and not facts.boot.settled:
        return "first mend the command line (see the findings on it); then look again"
    parts, overrides = [], []
    for name, value in options:
        text = name if value is None else f"{name}={value}"
        said = facts.boot.said(name)
        if said is None:
            parts.append(text)
        elif value is not None and not _same(facts, name, said, value):
            if value in facts.boot.options.get(name, ()):
                overrides.append(f"without the last {name}, which overrides the one before it")
            else:
                parts.append(f"{text} instead of {name}={said}")
    asked = [*([f"with {' '.join(parts)}"] if parts else []), *overrides]
    return f"boot {' and '.join(asked)}{_where(facts)}" if asked else None


def _where(facts: Facts) -> str:
    if facts.managed_by == "OpenShift":
        return " (through the PerformanceProfile: spec.cpu and spec.additionalKernelArgs)"
    if facts.managed_by == "tuned":
        return " (through tuned: isolated_cores and cmdline_* of the profile)"
    return ""


def _same(facts: Facts, name: str, said: str, value: str) -> bool:
    if name in _LISTS:
        try:
            return boot_cpu_list(said, facts.boot.possible) == cpu_list(value)
        except CpuListError:
            return False
    return sorted(said.split(",")) == sorted(value.split(","))


def first(*choices: str | None) -> str:
    """Return the first advice that is one."""
    return next(choice for choice in choices if choice)


def domain(facts: Facts, cpus: frozenset[int]) -> str:
    """How to take CPUs out of the scheduler's domains here."""
    ways = []
    if facts.cgroup_v1:
        ways.append(
            "cpuset.sched_load_balance=0 in the root cpuset and in one that holds these CPUs (cgroup v1)"
        )
    elif facts.has_partitions:
        ways.append(f"echo isolated > cpuset.cpus.partition in a cgroup with CPUs {show_cpus(cpus)}")
    line = boot(facts, [("isolcpus", isolcpus(facts, cpus, "domain", "managed_irq"))])
    if line and not facts.boot.settled:
        return line
    return "; or ".join([*ways, *([line] if line else [])]) or "take these CPUs out of every balanced cpuset"


def nohz_full(facts: Facts, cpus: frozenset[int]) -> str | None:
    """How to stop the tick of these CPUs, the boot CPU excepted."""
    return boot(facts, [("nohz_full", show_cpus(cpus - {0}))]) if cpus - {0} else None
