"""The checklist: interrupts, the tick, and the threads that share a CPU with an isolated task."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tlbcore._input.boot_line import has
from tlbcore._input.cpus import cpu_list, cpu_mask, show_cpus
from tlbcore.inspect._facts import Facts
from tlbcore.inspect._root import MissingError
from tlbcore.inspect.checks import remedies
from tlbcore.inspect.checks.finding import DOC, Finding, check, line_check


@line_check
def _managed_irq(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
    open_to = isolated - facts.managed_irq
    known = has(facts.version, (5, 6), el8=193) is not False
    # One option for both: other findings offer the domain flag with it.
    flags = ("managed_irq",) if open_to <= facts.cpuset_domain else ("domain", "managed_irq")
    if open_to and known:
        yield Finding(
            severity="advice",
            check="managed-irqs",
            found=f"isolcpus=managed_irq is not given for CPUs {show_cpus(open_to)}",
            reason="queues of NVMe and network devices are spread over all CPUs by the kernel, beyond "
            "smp_affinity",
            remedy=remedies.first(
                remedies.boot(facts, [("isolcpus", remedies.isolcpus(facts, isolated, *flags))]),
                "set the affinity of these queues with the device's own tool (ethtool -L, nvme)",
            ),
            source=DOC,
            cpus=open_to,
        )


@line_check
def _default_irq_affinity(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
    if not isolated:
        return
    default = facts.default_irq
    if default is None:
        raise MissingError("proc/irq/default_smp_affinity")
    hit = default & isolated
    if hit:
        yield Finding(
            severity="warning",
            check="irq-default-affinity",
            found=f"new interrupts may go to CPUs {show_cpus(hit)}",
            reason="a device that appears later interrupts an isolated CPU",
            remedy=remedies.first(
                remedies.boot(facts, [("irqaffinity", show_cpus(facts.housekeeping))])
                if facts.housekeeping
                else None,
                f"write the mask of CPUs {show_cpus(facts.housekeeping) or '0'} to /proc/irq/default_smp_affinity",
            ),
            source=DOC,
            cpus=hit,
        )


@check
def _irqs_on_isolated(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
    if not isolated:
        return
    affinities = facts.root.glob("proc/irq/[0-9]*/effective_affinity_list")
    affinities = affinities or facts.root.glob("proc/irq/[0-9]*/smp_affinity_list")
    if not affinities:
        raise MissingError("proc/irq/*/effective_affinity_list")
    names = _irq_names(facts.root.text("proc/interrupts") or "")
    hits: list[str] = []
    where: set[int] = set()
    for number, place in sorted((int(place.split("/")[2]), place) for place in affinities):
        cpus = cpu_list(facts.root.text(place) or "") & isolated
        # Numbers without a line in /proc/interrupts have no handler.
        if cpus and (not names or str(number) in names):
            hits.append(f"{number} ({names.get(str(number), '?')})")
            where |= cpus
    if hits:
        yield Finding(
            severity="warning",
            check="irqs-on-isolated-cpus",
            found=f"{len(hits)} interrupts go to isolated CPUs: "
            f"{', '.join(hits[:6])}{', ...' if len(hits) > 6 else ''}",
            reason="each one runs a handler, and its softirq, on the isolated CPU",
            remedy=f"echo {show_cpus(facts.housekeeping)} > /proc/irq/N/smp_affinity_list; keep irqbalance "
            "off these CPUs",
            source=DOC,
            cpus=frozenset(where),
        )


def _irq_names(interrupts: str) -> dict[str, str]:
    lines = interrupts.splitlines()
    if not lines:
        return {}
    width = len(lines[0].split())
    names = {}
    for line in lines[1:]:
        number, _, rest = line.partition(":")
        if number.strip().isdigit():
            names[number.strip()] = " ".join(rest.split()[width:][-1:])
    return names


@check
def _irqs_delivered(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
    if not isolated:
        return
    lines = facts.root.need("proc/interrupts").splitlines()
    if not lines:
        raise MissingError("proc/interrupts")
    columns = [int(word[3:]) for word in lines[0].split() if word.startswith("CPU") and word[3:].isdigit()]
    device: dict[int, int] = {}
    for line in lines[1:]:
        number, _, rest = line.partition(":")
        if not number.strip().isdigit():
            continue
        for cpu, count in zip(columns, rest.split(), strict=False):
            if cpu in isolated and count.isdigit() and int(count):
                device[cpu] = device.get(cpu, 0) + int(count)
    if device:
        yield Finding(
            severity="advice",
            check="device-interrupts-seen",
            found="device interrupts since boot: "
            + ", ".join(f"CPU {c}: {n}" for c, n in sorted(device.items())),
            reason="some came before the affinities were set, perhaps; a count that still grows is "
            "interference",
            remedy="compare two copies of /proc/interrupts taken minutes apart (tlbcore explain takes the "
            "pair)",
            source="proc/interrupts",
            cpus=frozenset(device),
        )


@check
def _irqbalance(facts: Facts) -> Iterator[Finding]:
    if not facts.meant:
        return
    names = [facts.root.text(place) for place in facts.root.glob("proc/[0-9]*/comm")]
    if not names:
        raise MissingError("proc/*/comm")
    if "irqbalance" in names:
        # What it reads itself: sysfs lists what was isolated at boot, not partitions made since.
        by_itself = facts.meant <= facts.nohz_full | facts.boot_domain
        yield Finding(
            severity="note" if by_itself else "advice",
            check="irqbalance-running",
            found="irqbalance runs",
            reason="it keeps off these CPUs by itself, unless it is given a list of banned CPUs: then that list counts"
            if by_itself
            else "it moves interrupts, and keeps by itself off those CPUs only that the boot line isolates",
            remedy=f"see that IRQBALANCE_BANNED_CPULIST is not set, or holds {show_cpus(facts.meant)}"
            if by_itself
            else f"IRQBALANCE_BANNED_CPULIST={show_cpus(facts.meant)}, or stop it and set affinities by hand",
            source="irqbalance(1)",
        )


@check
def _clocksource(facts: Facts) -> Iterator[Finding]:
    if not facts.nohz_full or not facts.x86:
        return
    current = facts.root.need("sys/devices/system/clocksource/clocksource0/current_clocksource")
    flags = re.search(r"^flags\s*:\s*(.*)$", facts.root.text("proc/cpuinfo") or "", re.MULTILINE)
    words = frozenset(flags[1].split()) if flags else frozenset[str]()
    if current in _PARAVIRTUAL and facts.boot.said("clocksource") != current:
        yield Finding(
            severity="advice",
            check="clocksource",
            found=f"the clock source is {current}",
            reason="full dynticks needs a stable TSC; this is the hypervisor's clock, which the kernel prefers where "
            "the guest's TSC is not said to be constant and never to stop",
            remedy="have the hypervisor show an invariant TSC (flags constant_tsc and nonstop_tsc in the guest)",
            source=DOC,
        )
    elif current != "tsc":
        yield Finding(
            severity="warning",
            check="clocksource",
            found=f"the clock source is {current}",
            reason="full dynticks needs a stable TSC; another clock means the TSC was found unreliable, "
            "and its watchdog interrupts CPUs in turn",
            remedy="take clocksource= off the command line"
            if facts.boot.said("clocksource") not in (None, "tsc")
            else "find out in dmesg why the TSC was given up"
            + ("" if _trusted(facts) else "; tsc=reliable only if you know it is"),
            source=DOC,
        )
    elif "tsc_reliable" not in words and not _trusted(facts) and (doubt := _watched(facts, words)):
        newer = has(facts.version, (7, 0))
        yield Finding(
            severity="advice",
            check="clocksource-watched",
            found=doubt,
            reason="where there is a second clock (hpet, acpi_pm), the clock source watchdog then "
            + (
                "calls a function on every online CPU in turn, isolated ones too, and both spin with interrupts off"
                if newer
                else "visits every CPU with a timer, twice a second"
            ),
            remedy=f"boot with {'tsc=nowatchdog or ' if has(facts.version, (5, 3), el8=193) else ''}tsc=reliable, "
            "if the platform's TSC is good",
            source=DOC,
        )


_PARAVIRTUAL = ("kvm-clock", "xen", "hyperv_clocksource_tsc_page", "hyperv_clocksource_msr")


def _watched(facts: Facts, flags: frozenset[str]) -> str:
    """Why the kernel watches the TSC (check_system_tsc_reliable); empty if it does not, or that is not known."""
    wanted = ("constant_tsc", "nonstop_tsc", "tsc_adjust")
    lacking = [flag for flag in wanted if flag not in flags]
    if lacking:
        return f"the kernel watches the TSC, for the CPU does not show {', '.join(lacking)}"
    # Trusted since b50db7095fe0, which long-term versions and vendors' builds took over; none before 5.4 did.
    old = has(facts.version, (5, 4), el8=(1, 10_000)) is False
    return "a kernel this old watches the TSC on every CPU (commit b50db7095fe0)" if old else ""


def _trusted(facts: Facts) -> bool:
    """Whether the command line vouches for the TSC."""
    return any(value in ("reliable", "nowatchdog") for value in facts.options.get("tsc", []))


@line_check
def _clocksource_option(facts: Facts) -> Iterator[Finding]:
    """Without the machine's files the command line may still name another clock."""
    asked = facts.boot.said("clocksource")
    there = facts.root.exists("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if asked not in (None, "", "tsc") and facts.x86 and facts.nohz_full and not there:
        yield Finding(
            severity="warning",
            check="clocksource",
            found=f"clocksource={asked} is on the command line",
            reason="full dynticks wants a clock that is read without leaving the core; another than the TSC costs "
            "every reader",
            remedy=f"take clocksource={asked} off the command line, if the TSC is good",
            source=DOC,
            cpus=facts.nohz_full,
        )


@check
def _lockup_watchdog(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
    if not isolated:
        return
    enabled = facts.root.text("proc/sys/kernel/watchdog")
    if enabled is None:
        nmi_off = facts.boot.said("nmi_watchdog") == "0"
        if "nowatchdog" in facts.options or ("nosoftlockup" in facts.options and nmi_off):
            return
        raise MissingError("proc/sys/kernel/watchdog")
    mask = facts.root.text("proc/sys/kernel/watchdog_cpumask")
    # The mask starts as the housekeeping CPUs when nohz_full= is given.
    watched = cpu_list(mask) & isolated if mask is not None else isolated - facts.nohz_full
    if enabled.strip() != "0" and watched:
        yield Finding(
            severity="warning",
            check="lockup-watchdog",
            found=f"the lockup detector runs on CPUs {show_cpus(watched)}",
            reason="a timer and a thread wake there every four seconds, and an NMI from the PMU samples them",
            remedy=f"echo {show_cpus(facts.housekeeping)} > /proc/sys/kernel/watchdog_cpumask"
            + ("" if "nowatchdog" in facts.options else ", or boot with nowatchdog"),
            source="Documentation/admin-guide/lockup-watchdogs.rst",
            cpus=watched,
        )


@check
def _workqueues(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
    if not isolated:
        return
    hit = cpu_mask(facts.root.need("sys/devices/virtual/workqueue/cpumask")) & isolated
    by_partition = has(facts.version, (6, 8)) and facts.has_partitions
    if hit:
        yield Finding(
            severity="warning",
            check="unbound-workqueues",
            found=f"unbound workqueues may run on CPUs {show_cpus(hit)}",
            reason="a kworker preempts the isolated task",
            remedy="write the housekeeping mask to /sys/devices/virtual/workqueue/cpumask"
            + ("; an isolated partition does it by itself" if by_partition else ""),
            source=DOC,
            cpus=hit,
        )


@check
def _kernel_threads(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
    if not isolated:
        return
    places = facts.root.glob("proc/[0-9]*/status")
    if not places:
        raise MissingError("proc/*/status")
    strangers: list[str] = []
    where: set[int] = set()
    for place in places:
        status = facts.root.text(place) or ""
        # Older kernels have no such line; there a thread without memory of its own is the kernel's, or dead.
        said = re.search(r"^Kthread:\s*(\d)", status, re.MULTILINE)
        kernel = said[1] == "1" if said else "VmSize:" not in status
        allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.MULTILINE)
        name = re.search(r"^Name:\s*(.*)$", status, re.MULTILINE)
        if not kernel or allowed is None or name is None:
            continue
        cpus = cpu_list(allowed[1])
        # A thread of one CPU only (migration/3, ksoftirqd/3) belongs there.
        if len(cpus) > 1 and cpus & isolated:
            strangers.append(name[1])
            where |= cpus & isolated
    if strangers:
        shown = ", ".join(sorted(set(strangers))[:6])
        yield Finding(
            severity="advice",
            check="kernel-threads",
            found=f"{len(strangers)} kernel threads may run on isolated CPUs: {shown}",
            reason="they are allowed there; the scheduler wakes them where they last ran"
            + (
                "; from 7.0 on kernel threads keep to the CPUs of the scheduler's domains, not to those with a tick"
                if has(facts.version, (7, 0))
                else ""
            ),
            remedy=f"taskset -pc {show_cpus(facts.housekeeping)} PID, or tuna; "
            + _boot_placement(facts, where),
            source=DOC,
            cpus=frozenset(where),
        )


def _boot_placement(facts: Facts, where: set[int]) -> str:
    """Say what places kernel threads elsewhere from the start, in this version."""
    if has(facts.version, (7, 0)):
        if where <= facts.domain:
            return "most move by themselves when an isolated partition is made"
        return f"isolation from the scheduler's domains does it at boot: {remedies.domain(facts, frozenset(where))}"
    if where <= facts.nohz_full:
        return "those that nohz_full= did not move were placed later or are bound by their owner"
    return "nohz_full= does it for most at boot"


@check
def _fair_server(facts: Facts) -> Iterator[Finding]:
    """6.12's deadline server for fair tasks ticks on a CPU that runs one of them alone."""
    isolated = facts.meant
    if not isolated or has(facts.version, (6, 12)) is not True or has(facts.version, (7, 0)):
        return
    base = "sys/kernel/debug/sched/fair_server"
    runtimes = {cpu: facts.root.text(f"{base}/cpu{cpu}/runtime") for cpu in isolated}
    if all(runtime is None for runtime in runtimes.values()):
        raise MissingError(f"{base}/cpu*/runtime")
    on = frozenset(cpu for cpu, runtime in runtimes.items() if runtime not in (None, "0"))
    if on:
        yield Finding(
            severity="advice",
            check="fair-server",
            found=f"the fair server has a runtime on CPUs {show_cpus(on)}",
            reason="its timer interrupts a CPU that runs one ordinary task: about 55 times in 20 s on 6.12; "
            "7.3 stops the server there (0 to 2)",
            remedy=f"echo 0 > /sys/kernel/debug/sched/fair_server/cpuN/runtime for CPUs {show_cpus(on)}; a real-time "
            "task there can then starve ordinary ones",
            source="kernel/sched/deadline.c; measured on 6.12 and 7.3",
            cpus=on,
        )


@check
def _damon(facts: Facts) -> Iterator[Finding]:
    """DAMON_STAT is on by default in Debian's 7.3."""
    enabled = facts.root.text("sys/module/damon_stat/parameters/enabled")
    if enabled in ("Y", "1") and facts.meant:
        yield Finding(
            severity="advice",
            check="damon-stat",
            found="DAMON_STAT is on",
            reason="kdamond wakes many times a second and clears accessed bits of all memory; it may run on "
            "CPUs that are in the scheduler's domains",
            remedy="echo N > /sys/module/damon_stat/parameters/enabled, or boot with damon_stat.enabled=N",
            source="Documentation/admin-guide/mm/damon/stat.rst",
        )
