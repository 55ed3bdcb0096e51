"""What a machine is, which of its CPUs are isolated and how well, and what each policy would do on it.

`inspect_host()` reads the running system, `inspect_host(root)` a directory with copies of the same files at
the same places, made by `tlbcore inspect --collect DIR`, by `sosreport`, or by hand. None is obligatory but
`proc/cpuinfo`; what a missing file would have told is listed in `not_checked`.

    proc/cmdline  proc/version  proc/cpuinfo  proc/interrupts  proc/swaps
    proc/config.gz, boot/config-RELEASE, lib/modules/RELEASE/config, usr/lib/modules/RELEASE/config or config
                                                         the kernel's configuration
    proc/irq/default_smp_affinity  proc/irq/*/{smp,effective}_affinity_list
    proc/sys/kernel/{osrelease,watchdog,watchdog_cpumask,numa_balancing}  proc/sys/net/core/bpf_jit_enable
    proc/PID/{comm,status}                               kernel threads and who runs
    sys/devices/system/cpu/{online,possible,present,isolated,nohz_full}
    sys/devices/system/cpu/vulnerabilities/{meltdown,spectre_v2}
    sys/devices/system/cpu/cpu*/{topology,cpufreq,cpuidle}/...  sys/devices/system/cpu/cpuidle/current_driver
    sys/devices/system/clocksource/clocksource0/current_clocksource  sys/devices/system/node/node*/cpulist
    sys/devices/virtual/workqueue/cpumask
    sys/fs/cgroup/**/cpuset.cpus{.partition,.isolated,.effective,.exclusive.effective}
    sys/kernel/{rcu_expedited,rcu_normal,mm/transparent_hugepage/enabled,mm/ksm/run}
    sys/module/kfence/parameters/sample_interval
    sys/module/damon_stat/parameters/enabled
    sys/kernel/debug/x86/tlb_single_page_flush_ceiling   root only
    sys/kernel/debug/sched/fair_server/cpu*/runtime      root only
    dmesg                                                output of dmesg, used where nothing else tells
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._input.boot_line import Release
from tlbcore._input.cpus import CpuListError, cpu_list, show_cpus
from tlbcore._output.calls import kept
from tlbcore._output.result import Result
from tlbcore.hardware import Machine
from tlbcore.inspect._facts import Cpu, Facts, HostKernel
from tlbcore.inspect._machine import fitting_machine
from tlbcore.inspect._policies import outlook
from tlbcore.inspect._root import MissingError, Pasted, Root
from tlbcore.inspect.checks.lint import lint

__all__ = ["Cpu", "Host", "HostKernel", "inspect_host"]

Table = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Host(Result):
    """One machine as it was found. Made by `inspect_host`.

    Attributes
    ----------
    machine
        The CPU preset that fits, for `compare` and `replay`; None if none does. `machine_fit` says how well.
    cpu
        The CPU as the kernel describes it; None for a command line alone.
    kernel
        Version, command line, configuration, page-table isolation and what else changes flushing.
    boot
        One row per `nohz_full=` and `isolcpus=` of the command line, in order: `option`, `status` (in force,
        ignored, refused, empty, unsupported), `flags`, `cpus`, `skipped` (words that are no flag), `why`, by the
        rules of the kernel's version.
    online, nohz_full, isolated
        CPU numbers: online; without a tick; isolated in either way (no tick, or outside the scheduler's
        domains).
    isolation
        One row per online CPU. `cpu` int32; bool columns `nohz_full`, `domain` (outside scheduler domains),
        `cpuset` (by a partition made at run time), `managed_irq`, `rcu_offloaded`, `default_irq` (new
        interrupts may go there).
    policies
        One row per built-in policy: `policy`, `verdict` (today, defers, inert, impossible, not modelled), `spares` (CPU
        list), `entry_ops` and `entry_ns` (what a system call of a covered CPU gains, on its way in and out; refills
        not included, NaN without a preset), `owed_ns` (the same for one that finds a flush or a sync owed),
        `entry_mark` (how the cost is known), `reason`.
    findings
        The linter's table, worst first: `severity` (error, warning, advice, note), `check`, `cpus`, `found`,
        `reason`, `remedy`, `source`.
    not_checked
        (check, file it lacked) for each check that could not be made.
    """

    root: str | None
    machine: Machine | None
    machine_fit: str
    cpu: Cpu | None
    kernel: HostKernel
    boot: Table
    online: tuple[int, ...]
    nohz_full: tuple[int, ...]
    isolated: tuple[int, ...]
    isolation: Table
    policies: Table
    findings: Table
    not_checked: tuple[tuple[str, str], ...]

    def _tables(self) -> dict[str, Table]:
        return {
            "findings": self.findings, "policies": self.policies, "isolation": self.isolation, "boot": self.boot,
        }  # fmt: skip

    def _about(self) -> dict[str, Any]:
        machine = None if self.machine is None else self.machine.name
        return {
            "machine": machine,
            "machine_fit": self.machine_fit,
            "isolated": self.isolated,
            "root": self.root,
        }


@kept
def inspect_host(
    root: str | Path | None = None,
    *,
    cmdline: str | None = None,
    release: str | None = None,
    cpus: str | int | None = None,
) -> Host:
    """Inspect the running system, a directory of files collected from one, or a command line alone.

    Parameters
    ----------
    root
        A collected directory (layout: this module's docstring); None for the running system.
    cmdline
        A kernel command line, such as somebody pasted: what the kernel makes of it. The running system is then
        not looked at.
    release
        The kernel it is for (`uname -r`); taken from BOOT_IMAGE= if left out. Where it is not known and the
        versions differ, a finding says so.
    cpus
        How many CPUs that machine has, or which (`0-15`); as many as the line names if left out.

    Raises
    ------
    ConfigError
        If `cmdline` and `root` are both given, or `release` or `cpus` is given without `cmdline` or is no
        version, no number of CPUs. If the directory is not there or holds no `proc/cpuinfo`, or a file that
        must hold CPU numbers does not.

    >>> host = inspect_host()
    >>> len(host.isolation["cpu"]) == len(host.online)
    True
    >>> pasted = inspect_host(cmdline="isolcpus=managed_irq,2-7", release="6.12", cpus=8)
    >>> str(pasted.findings["check"][0]), pasted.boot["status"].tolist()
    ('managed-irq-only', ['in force'])
    """
    if cmdline is not None:
        if root is not None:
            raise _core.ConfigError("cmdline is a machine of its own: give either root or cmdline")
        return _host(Facts(_pasted(cmdline, release, cpus)), None)
    if release is not None or cpus is not None:
        raise _core.ConfigError("release and cpus describe the machine of a command line: cmdline is missing")
    files = Root(root)
    if not files.path.is_dir():
        raise _core.ConfigError(f"{files.path}: a directory of collected files is needed")
    try:
        facts = Facts(files)
        return _host(facts, None if root is None else str(root))
    except MissingError as missing:
        raise _core.ConfigError(f"{files.path}: cannot be inspected without {missing}") from None
    except CpuListError as error:
        raise _core.ConfigError(f"{files.path}: {error}") from None


def _pasted(cmdline: str, release: str | None, cpus: str | int | None) -> Pasted:
    files = {"proc/cmdline": cmdline}
    if release is not None:
        Release.given(release)
        files["proc/sys/kernel/osrelease"] = release
    if cpus is not None:
        text = str(cpus)
        try:
            if text.isascii() and text.isdigit() and len(text) < 9:
                text = f"0-{int(text) - 1}" if int(text) else ""
            if not cpu_list(text):
                raise CpuListError("no CPU is named")
        except CpuListError as error:
            raise _core.ConfigError(f"cpus {cpus!r}: a number of CPUs or a list is needed: {error}") from None
        files["sys/devices/system/cpu/online"] = text
    return Pasted(files)


def _host(facts: Facts, root: str | None) -> Host:
    machine, fit = None, "nothing is known of the CPU"
    if facts.cpu is not None:
        other = f"presets are of x86 CPUs, and this is {facts.cpu.arch}"
        machine, fit = fitting_machine(facts.cpu) if facts.x86 else (None, other)
    findings, not_checked = lint(facts)
    online = sorted(facts.online)
    columns = {
        "nohz_full": facts.nohz_full,
        "domain": facts.domain,
        "cpuset": facts.cpuset_domain,
        "managed_irq": facts.managed_irq,
        "rcu_offloaded": facts.rcu_offloaded,
        "default_irq": facts.online if facts.default_irq is None else facts.default_irq,
    }
    return Host(
        root=root,
        machine=machine,
        machine_fit=fit,
        cpu=facts.cpu,
        kernel=facts.kernel,
        boot=_table(
            [
                {
                    "option": made.text,
                    "status": made.status,
                    "flags": ",".join(made.flags),
                    "cpus": made.cpus,
                    "skipped": ",".join(made.skipped),
                    "why": made.why,
                }
                for made in facts.boot.decisions
            ],
            ("option", "status", "flags", "cpus", "skipped", "why"),
        ),
        online=tuple(online),
        nohz_full=tuple(sorted(facts.nohz_full)),
        isolated=tuple(sorted(facts.isolated)),
        isolation={"cpu": np.array(online, dtype=np.int32)}
        | {name: np.array([cpu in cpus for cpu in online], dtype=np.bool_) for name, cpus in columns.items()},
        policies=_table(
            outlook(facts, machine),
            ("policy", "verdict", "spares", "entry_ops", "entry_ns", "owed_ns", "entry_mark", "reason"),
        ),
        findings=_table(findings, ("severity", "check", "cpus", "found", "reason", "remedy", "source")),
        not_checked=tuple(not_checked),
    )


def _table(rows: Any, names: tuple[str, ...]) -> Table:
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in rows:
        for name in names:
            value = row[name] if isinstance(row, dict) else getattr(row, name)
            columns[name].append(show_cpus(value) if isinstance(value, frozenset) else value)
    return {
        name: np.array(values, dtype=np.float64 if name.endswith("_ns") else np.str_)
        for name, values in columns.items()
    }
