"""Copies the files that `inspect_host` reads into a directory, so that it can be run elsewhere."""

from __future__ import annotations

from pathlib import Path

from tlbcore._output.visible import naming
from tlbcore.inspect._root import Root

_CPU = "sys/devices/system/cpu"

# Globs below the root. Sizes of these files lie, so they are read, not copied.
FILES = (
    "proc/cmdline",
    "proc/version",
    "proc/cpuinfo",
    "proc/interrupts",
    "proc/swaps",
    "proc/config.gz",
    "proc/irq/default_smp_affinity",
    "proc/irq/[0-9]*/smp_affinity_list",
    "proc/irq/[0-9]*/effective_affinity_list",
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/watchdog",
    "proc/sys/kernel/watchdog_cpumask",
    "proc/sys/kernel/numa_balancing",
    "proc/sys/net/core/bpf_jit_enable",
    "proc/[0-9]*/comm",
    "proc/[0-9]*/status",
    f"{_CPU}/online",
    f"{_CPU}/possible",
    f"{_CPU}/present",
    f"{_CPU}/isolated",
    f"{_CPU}/nohz_full",
    f"{_CPU}/vulnerabilities/meltdown",
    f"{_CPU}/vulnerabilities/spectre_v2",
    f"{_CPU}/cpu[0-9]*/topology/thread_siblings_list",
    f"{_CPU}/cpu[0-9]*/topology/core_cpus_list",
    f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor",
    f"{_CPU}/cpu[0-9]*/cpuidle/state*/name",
    f"{_CPU}/cpu[0-9]*/cpuidle/state*/latency",
    f"{_CPU}/cpu[0-9]*/cpuidle/state*/disable",
    f"{_CPU}/cpuidle/current_driver",
    "sys/devices/system/clocksource/clocksource0/current_clocksource",
    "sys/devices/system/node/node[0-9]*/cpulist",
    "sys/devices/virtual/workqueue/cpumask",
    "sys/kernel/rcu_expedited",
    "sys/kernel/rcu_normal",
    "sys/kernel/mm/transparent_hugepage/enabled",
    "sys/kernel/mm/ksm/run",
    "sys/module/kfence/parameters/sample_interval",
    "sys/module/damon_stat/parameters/enabled",
    "sys/kernel/debug/x86/tlb_single_page_flush_ceiling",
    "sys/kernel/debug/sched/fair_server/cpu[0-9]*/runtime",
)
_CPUSETS = (
    "cpuset.cpus.partition",
    "cpuset.cpus.isolated",
    "cpuset.cpus.effective",
    "cpuset.cpus.exclusive.effective",
    "cpuset.sched_load_balance",
    "cpuset.cpus",
    "cpuset.effective_cpus",
)


def collect(to: Path, *, root: Path | None = None, processes: bool = True) -> list[str]:
    """Copy the files into `to`, which must not exist or be empty, and return their names.

    Raises
    ------
    FileExistsError
        If the directory holds something already.
    """
    if to.exists() and any(to.iterdir()):
        raise FileExistsError(17, "exists and is not empty", str(to))
    files = Root(root)
    release = files.text("proc/sys/kernel/osrelease") or ""
    names = [f"boot/config-{release}"] if release else []
    if release:  # Debian's 7.3 keeps it beside the modules
        names += [f"{base}/{release}/config" for base in ("lib/modules", "usr/lib/modules")]
    for pattern in FILES:
        if processes or not pattern.startswith("proc/[0-9]"):
            names += files.glob(pattern)
    for base in ("sys/fs/cgroup", "sys/fs/cgroup/unified", "sys/fs/cgroup/cpuset"):
        for place in files.walk(base, 5):
            names += [f"{place}/{name}" for name in _CPUSETS if files.exists(f"{place}/{name}")]
    copied = []
    for name in dict.fromkeys(names):
        try:
            data = (files.path / name).read_bytes()
        except OSError:
            continue
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with naming(str(target)):
            target.write_bytes(data)
        copied.append(name)
    return copied
