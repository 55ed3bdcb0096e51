"""The checklist for isolated CPUs: one function per item, yielding what is wrong, why it matters, what helps.

The items are those of the kernel's own document (Documentation/admin-guide/cpu-isolation.rst, "doc" below)
and the causes of interference that operators met in public (USERS B). A check that lacks a file raises
`MissingError`: what could not be looked at is reported as such, not passed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tlbcore._cpus import CpuListError, cpu_list, cpu_mask, show_cpus
from tlbcore.inspect._facts import CPU, NO_CPU, Facts
from tlbcore.inspect._root import MissingError

DOC = "Documentation/admin-guide/cpu-isolation.rst"
PARAMETERS = "Documentation/admin-guide/kernel-parameters.txt"

# Worst first. error: the isolation that was asked for is not there; warning: interrupts will come; advice:
# they may, rarely or under some loads; note: worth knowing when reading results.
SEVERITIES = ("error", "warning", "advice", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    severity: str
    check: str
    found: str
    reason: str
    remedy: str
    source: str
    cpus: frozenset[int] = NO_CPU


Check = Callable[[Facts], Iterable[Finding]]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Add a check to the list; its name is the function's."""
    CHECKS.append(function)
    return function


def lint(facts: Facts) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Return the findings, worst first, and the checks not made with the file each lacks."""
    findings: list[Finding] = []
    skipped: list[tuple[str, str]] = []
    for function in CHECKS:
        name = function.__name__.removeprefix("_")
        try:
            findings += function(facts)
        except MissingError as missing:
            skipped.append((name, str(missing)))
        except CpuListError as error:
            skipped.append((name, str(error)))
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return findings, skipped


def _isolated(facts: Facts) -> frozenset[int]:
    return facts.isolated & facts.online


# What was asked for against what is there ----------------------------------------------------------------


@check
def _no_isolated_cpu(facts: Facts) -> Iterator[Finding]:
    if facts.isolated or facts.asked_nohz_full or facts.isolcpus("domain"):
        return
    yield Finding(
        severity="note",
        check="no-isolated-cpu",
        found="no CPU is isolated: no nohz_full=, no isolcpus=, no isolated cpuset partition",
        reason="every CPU does housekeeping; deferral policies concern isolated CPUs only",
        remedy="boot with nohz_full=LIST irqaffinity=REST isolcpus=managed_irq,LIST, and make an isolated "
        "cpuset partition",
        source=DOC,
    )


@check
def _boot_lists_parse(facts: Facts) -> Iterator[Finding]:
    for name in ("nohz_full", "rcu_nocbs", "irqaffinity"):
        for value in facts.options.get(name, []):
            try:
                cpus = cpu_list(value, max(facts.online, default=0))
            except CpuListError as error:
                yield Finding(
                    severity="error",
                    check="boot-list-refused",
                    found=f"{name}={value}",
                    reason=f"the kernel drops an option whose list does not parse: {error}",
                    remedy=f"write {name}= with numbers and ranges, such as 2-7,9",
                    source=PARAMETERS,
                )
                continue
            beyond = cpus - facts.online
            if beyond and name == "nohz_full":
                yield Finding(
                    severity="note",
                    check="boot-list-beyond-the-machine",
                    found=f"{name}={value}, but only CPUs {show_cpus(facts.online)} are online",
                    reason="the list names CPUs that this machine does not run",
                    remedy="shorten the list, or see why those CPUs are offline",
                    source=f"{CPU}/online",
                    cpus=beyond,
                )


@check
def _nohz_full_in_force(facts: Facts) -> Iterator[Finding]:
    asked = facts.asked_nohz_full & facts.online
    if not asked or asked <= facts.nohz_full:
        return
    missing = asked - facts.nohz_full
    settings = facts.kernel_settings
    built = settings.get("NO_HZ_FULL", "n") if settings is not None else "unknown"
    yield Finding(
        severity="error",
        check="nohz-full-not-in-force",
        found=f"the command line asks for {show_cpus(asked)} without a tick, "
        f"the kernel runs {show_cpus(facts.nohz_full) or 'none'} so (CONFIG_NO_HZ_FULL: {built})",
        reason="these CPUs keep their tick, and no deferral policy covers them",
        remedy="use a kernel with CONFIG_NO_HZ_FULL=y; keep CPU 0 for housekeeping",
        source="FACTS 5.1, 5.2",
        cpus=missing,
    )


@check
def _tick_lists_agree(facts: Facts) -> Iterator[Finding]:
    flagged = facts.isolcpus("nohz")
    listed = facts.option_cpus("nohz_full")
    if flagged and "nohz_full" in facts.options and listed != flagged:
        yield Finding(
            severity="error",
            check="tick-lists-differ",
            found=f"isolcpus=nohz,{show_cpus(flagged)} and nohz_full={','.join(facts.options['nohz_full'])}",
            reason="the kernel ignores the second of the two lists when they differ",
            remedy="give one of them, or the same list to both",
            source="FACTS 5.2, kernel/sched/isolation.c housekeeping_setup",
            cpus=listed | flagged,
        )


@check
def _tickless_but_balanced(facts: Facts) -> Iterator[Finding]:
    shared = (facts.nohz_full - facts.domain) & facts.online
    if shared:
        yield Finding(
            severity="warning",
            check="tickless-but-balanced",
            found=f"CPUs {show_cpus(shared)} run without a tick but stay in the scheduler's domains",
            reason="the load balancer puts other tasks there; with two runnable tasks the tick is back",
            remedy="echo isolated > cpuset.cpus.partition in a cgroup with these CPUs, or boot with "
            "isolcpus=domain,LIST",
            source=DOC,
            cpus=shared,
        )


@check
def _isolated_with_tick(facts: Facts) -> Iterator[Finding]:
    ticking = (facts.domain - facts.nohz_full) & facts.online
    if ticking:
        yield Finding(
            severity="warning",
            check="isolated-with-tick",
            found=f"CPUs {show_cpus(ticking)} are outside the scheduler's domains but keep the tick",
            reason="they take HZ timer interrupts a second, and flush deferral covers nohz_full CPUs only: "
            "isolcpus=domain sets housekeeping_overridden but no kernel-noise mask",
            remedy=f"boot with nohz_full={show_cpus(facts.domain)} (cannot be changed at run time)",
            source=f"{DOC}; FACTS 5.2",
            cpus=ticking,
        )


@check
def _partition_valid(facts: Facts) -> Iterator[Finding]:
    for base in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
        for place in facts.root.walk(base, 5):
            state = facts.root.text(f"{place}/cpuset.cpus.partition") or ""
            if "invalid" in state:
                yield Finding(
                    severity="error",
                    check="partition-invalid",
                    found=f"{place.removeprefix(base) or '/'}: cpuset.cpus.partition is {state!r}",
                    reason="an invalid partition isolates nothing",
                    remedy="read the reason in the parentheses; its CPUs must be the parent's and no "
                    "sibling's",
                    source="Documentation/admin-guide/cgroup-v2.rst",
                )


@check
def _rcu_callbacks(facts: Facts) -> Iterator[Finding]:
    local = _isolated(facts) - facts.rcu_offloaded
    if local:
        yield Finding(
            severity="warning",
            check="rcu-callbacks-local",
            found=f"CPUs {show_cpus(local)} run their RCU callbacks themselves",
            reason="callbacks run in softirq on the CPU that queued them, and keep its tick on",
            remedy=f"boot with rcu_nocbs={show_cpus(_isolated(facts))} (CONFIG_RCU_NOCB_CPU=y); nohz_full= "
            "implies it",
            source="Documentation/admin-guide/kernel-per-CPU-kthreads.rst; FACTS 5.2",
            cpus=local,
        )


@check
def _boot_domain_only(facts: Facts) -> Iterator[Finding]:
    values = [v for v in facts.options.get("isolcpus", []) if v[:1].isdigit()]
    if values:
        yield Finding(
            severity="note",
            check="isolcpus-without-flags",
            found=f"isolcpus={values[0]}",
            reason="without flags it means domain only: managed interrupts are not kept away",
            remedy=f"isolcpus=domain,managed_irq,{values[0]}; or partitions, which can change at run time",
            source=PARAMETERS,
            cpus=facts.isolcpus("domain"),
        )


# Interrupts ----------------------------------------------------------------------------------------------


@check
def _managed_irq(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
    open_to = isolated - facts.isolcpus("managed_irq")
    if open_to:
        yield Finding(
            severity="advice",
            check="managed-irqs",
            found=f"isolcpus=managed_irq is not given for CPUs {show_cpus(open_to)}",
            reason="queues of NVMe and network devices are spread over all CPUs by the kernel, beyond "
            "smp_affinity",
            remedy=f"boot with isolcpus=managed_irq,{show_cpus(isolated)}",
            source=DOC,
            cpus=open_to,
        )


@check
def _default_irq_affinity(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
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
            remedy=f"boot with irqaffinity={show_cpus(facts.housekeeping)}, or write "
            "/proc/irq/default_smp_affinity",
            source=DOC,
            cpus=hit,
        )


@check
def _irqs_on_isolated(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
    if not isolated:
        return
    affinities = facts.root.glob("proc/irq/[0-9]*/effective_affinity_list")
    affinities = affinities or facts.root.glob("proc/irq/[0-9]*/smp_affinity_list")
    if not affinities:
        raise MissingError("proc/irq/*/effective_affinity_list")
    names = _irq_names(facts.root.text("proc/interrupts") or "")
    hits: list[str] = []
    where: set[int] = set()
    for place in affinities:
        number = place.split("/")[2]
        cpus = cpu_list(facts.root.text(place) or "") & isolated
        # Numbers without a line in /proc/interrupts have no handler.
        if cpus and (not names or number in names):
            hits.append(f"{number} ({names.get(number, '?')})")
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
    isolated = _isolated(facts)
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
    if not _isolated(facts):
        return
    names = [facts.root.text(place) for place in facts.root.glob("proc/[0-9]*/comm")]
    if not names:
        raise MissingError("proc/*/comm")
    if "irqbalance" in names:
        yield Finding(
            severity="advice",
            check="irqbalance-running",
            found="irqbalance runs",
            reason="it moves interrupts; unless told otherwise it may move them to isolated CPUs",
            remedy="IRQBALANCE_BANNED_CPULIST, or stop it and set affinities by hand",
            source="irqbalance(1)",
        )


# The tick and its friends --------------------------------------------------------------------------------


@check
def _clocksource(facts: Facts) -> Iterator[Finding]:
    if not facts.nohz_full:
        return
    current = facts.root.need("sys/devices/system/clocksource/clocksource0/current_clocksource")
    flags = re.search(r"^flags\s*:\s*(.*)$", facts.root.text("proc/cpuinfo") or "", re.MULTILINE)
    words = frozenset(flags[1].split()) if flags else frozenset[str]()
    if current != "tsc":
        yield Finding(
            severity="warning",
            check="clocksource",
            found=f"the clock source is {current}",
            reason="full dynticks needs a stable TSC; another clock means the TSC was found unreliable, "
            "and its watchdog interrupts CPUs in turn",
            remedy="find out in dmesg why the TSC was given up; tsc=reliable only if you know it is",
            source=DOC,
        )
    elif not ({"nonstop_tsc", "constant_tsc"} <= words or "tsc_known_freq" in words) and not any(
        value in ("reliable", "nowatchdog") for value in facts.options.get("tsc", [])
    ):
        yield Finding(
            severity="advice",
            check="clocksource-watched",
            found="the CPU does not promise a TSC that never stops (flags constant_tsc, nonstop_tsc)",
            reason="the clock source watchdog then visits every CPU with a timer, twice a second",
            remedy="tsc=nowatchdog or tsc=reliable, if the platform's TSC is good",
            source=DOC,
        )


@check
def _lockup_watchdog(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
    if not isolated:
        return
    enabled = facts.root.text("proc/sys/kernel/watchdog")
    if enabled is None:
        if "nowatchdog" in facts.options:
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
            remedy=f"echo {show_cpus(facts.housekeeping)} > /proc/sys/kernel/watchdog_cpumask, or boot "
            "with nowatchdog",
            source="Documentation/admin-guide/lockup-watchdogs.rst",
            cpus=watched,
        )


@check
def _workqueues(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
    if not isolated:
        return
    hit = cpu_mask(facts.root.need("sys/devices/virtual/workqueue/cpumask")) & isolated
    if hit:
        yield Finding(
            severity="warning",
            check="unbound-workqueues",
            found=f"unbound workqueues may run on CPUs {show_cpus(hit)}",
            reason="a kworker preempts the isolated task",
            remedy="write the housekeeping mask to /sys/devices/virtual/workqueue/cpumask; a partition "
            "does it by itself",
            source=DOC,
            cpus=hit,
        )


@check
def _kernel_threads(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
    if not isolated:
        return
    places = facts.root.glob("proc/[0-9]*/status")
    if not places:
        raise MissingError("proc/*/status")
    strangers: list[str] = []
    where: set[int] = set()
    for place in places:
        status = facts.root.text(place) or ""
        if not re.search(r"^(Kthread:\s*1|VmSize)", status, re.MULTILINE) and "VmSize" in status:
            continue
        kernel = "Kthread:\t1" in status or "VmSize:" not in status
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
            reason="they are allowed everywhere; the scheduler wakes them where they last ran",
            remedy=f"taskset -pc {show_cpus(facts.housekeeping)} PID, or tuna; nohz_full= does it for most "
            "at boot",
            source=DOC,
            cpus=frozenset(where),
        )


# Memory: what makes the kernel flush, and so interrupt ---------------------------------------------------


@check
def _bpf_jit(facts: Facts) -> Iterator[Finding]:
    value = facts.root.need("proc/sys/net/core/bpf_jit_enable")
    if _isolated(facts) and value.strip() == "0":
        yield Finding(
            severity="warning",
            check="bpf-jit-off",
            found="net.core.bpf_jit_enable is 0",
            reason="each attached socket filter then flushes every TLB about twice (one flush_tlb_all, 1.1 "
            "range "
            "flushes); with the JIT none at all",
            remedy="sysctl net.core.bpf_jit_enable=1",
            source="measured on 6.12 (FACTS 8, traces w3i against w3j)",
        )


@check
def _kfence(facts: Facts) -> Iterator[Finding]:
    if not _isolated(facts):
        return
    interval = facts.root.text("sys/module/kfence/parameters/sample_interval")
    if interval is None:
        if facts.setting("KFENCE") != "y":
            return
        interval = facts.setting("KFENCE_SAMPLE_INTERVAL")
    static_keys = facts.kernel_settings is None or facts.setting("KFENCE_STATIC_KEYS") == "y"
    if interval.strip() not in ("", "0", "n") and static_keys:
        yield Finding(
            severity="warning",
            check="kfence-static-keys",
            found=f"KFENCE samples every {interval.strip()} ms",
            reason="where it uses a static key, each sample patches kernel text, and each patch interrupts "
            "every CPU "
            "(three syncs per batch)",
            remedy="kfence.sample_interval=0, or a kernel with CONFIG_KFENCE_STATIC_KEYS=n",
            source="USERS B; FACTS 1.2 (text patching)",
            cpus=_isolated(facts),
        )


@check
def _debug_pagealloc(facts: Facts) -> Iterator[Finding]:
    if not _isolated(facts):
        return
    asked = any(value in ("", "on", "1") for value in facts.options.get("debug_pagealloc", []))
    if asked or facts.setting("DEBUG_PAGEALLOC_ENABLE_DEFAULT") == "y":
        yield Finding(
            severity="warning",
            check="debug-pagealloc",
            found="DEBUG_PAGEALLOC is on",
            reason="every vfree flushes every TLB at once instead of one purge for thousands",
            remedy="boot without debug_pagealloc=on",
            source="FACTS 5.1, mm/vmalloc.c free_unmap_vmap_area",
        )


@check
def _expedited_rcu(facts: Facts) -> Iterator[Finding]:
    expedited = facts.root.need("sys/kernel/rcu_expedited")
    if _isolated(facts) and expedited.strip() not in ("0", ""):
        yield Finding(
            severity="warning",
            check="rcu-expedited",
            found=f"rcu_expedited is {expedited.strip()}",
            reason="every grace period interrupts the CPUs that have not reported, isolated ones that are "
            "in the kernel too",
            remedy="boot with rcupdate.rcu_normal_after_boot=1; leave rcu_expedited at 0",
            source="Documentation/admin-guide/kernel-parameters.txt; USERS B",
        )


@check
def _numa_balancing(facts: Facts) -> Iterator[Finding]:
    value = facts.root.text("proc/sys/kernel/numa_balancing")
    if value is None:
        if facts.kernel_settings is not None and facts.setting("NUMA_BALANCING") == "n":
            return
        raise MissingError("proc/sys/kernel/numa_balancing")
    if _isolated(facts) and value.strip() not in ("0", ""):
        yield Finding(
            severity="warning",
            check="numa-balancing",
            found="kernel.numa_balancing is on",
            reason="it unmaps pages of running tasks to see who uses them: page faults and TLB shootdowns "
            "in the workload",
            remedy="sysctl kernel.numa_balancing=0",
            source="Documentation/admin-guide/sysctl/kernel.rst",
        )


@check
def _huge_pages(facts: Facts) -> Iterator[Finding]:
    text = facts.root.need("sys/kernel/mm/transparent_hugepage/enabled")
    if _isolated(facts) and "[always]" in text:
        yield Finding(
            severity="advice",
            check="khugepaged",
            found="transparent huge pages are on for everyone",
            reason="khugepaged drains per-CPU lists on all CPUs and shoots down the TLBs of a process it "
            "collapses",
            remedy="echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            source="USERS B",
        )


@check
def _ksm(facts: Facts) -> Iterator[Finding]:
    if _isolated(facts) and facts.root.need("sys/kernel/mm/ksm/run").strip() == "1":
        yield Finding(
            severity="advice",
            check="ksm",
            found="kernel samepage merging runs",
            reason="it write-protects pages of running tasks: TLB shootdowns and later page faults",
            remedy="echo 2 > /sys/kernel/mm/ksm/run",
            source="Documentation/admin-guide/mm/ksm.rst",
        )


@check
def _swap(facts: Facts) -> Iterator[Finding]:
    lines = facts.root.need("proc/swaps").splitlines()
    if _isolated(facts) and len(lines) > 1:
        yield Finding(
            severity="advice",
            check="swap",
            found=f"swap is on: {lines[1].split()[0]}",
            reason="reclaim unmaps pages; a page fault in the isolated task is a long stay in the kernel",
            remedy="mlockall(MCL_CURRENT | MCL_FUTURE) in the workload, or no swap",
            source=DOC,
        )


@check
def _flush_ceiling(facts: Facts) -> Iterator[Finding]:
    text = facts.root.need("sys/kernel/debug/x86/tlb_single_page_flush_ceiling")
    if text.strip() != "33":
        yield Finding(
            severity="note",
            check="flush-ceiling",
            found=f"tlb_single_page_flush_ceiling is {text.strip()} (default 33)",
            reason="flushes of up to that many pages go page by page, larger ones drop the whole TLB",
            remedy="echo 33 > /sys/kernel/debug/x86/tlb_single_page_flush_ceiling, unless it was meant",
            source="FACTS 2.1",
        )


# Hardware ------------------------------------------------------------------------------------------------


@check
def _smt(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
    if not isolated:
        return
    lists = {
        cpu: facts.root.text(
            f"{CPU}/cpu{cpu}/topology/thread_siblings_list", f"{CPU}/cpu{cpu}/topology/core_cpus_list"
        )
        for cpu in isolated
    }
    if all(text is None for text in lists.values()):
        raise MissingError(f"{CPU}/cpu*/topology/thread_siblings_list")
    shared = {cpu for cpu, text in lists.items() if text and len(cpu_list(text) & facts.online) > 1}
    if shared:
        yield Finding(
            severity="warning",
            check="smt",
            found=f"CPUs {show_cpus(frozenset(shared))} share their core with a sibling",
            reason="the sibling takes half of the core, of its caches and of its TLBs whenever it runs",
            remedy="boot with nosmt, or take the siblings offline",
            source=DOC,
            cpus=frozenset(shared),
        )


@check
def _cpufreq(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
    if not isolated:
        return
    governors = {cpu: facts.root.text(f"{CPU}/cpu{cpu}/cpufreq/scaling_governor") for cpu in isolated}
    moving = {cpu: name for cpu, name in governors.items() if name not in (None, "performance")}
    if moving:
        yield Finding(
            severity="advice",
            check="cpu-frequency",
            found=f"frequency governor {', '.join(sorted({str(n) for n in moving.values()}))}",
            reason="a change of frequency stalls the core for microseconds",
            remedy="cpupower -c LIST frequency-set -g performance",
            source=DOC,
            cpus=frozenset(moving),
        )


@check
def _idle_states(facts: Facts) -> Iterator[Finding]:
    isolated = _isolated(facts)
    driver = facts.root.text(f"{CPU}/cpuidle/current_driver")
    if not isolated or driver in (None, "none") or facts.options.get("idle") == ["poll"]:
        return
    limits = [*facts.options.get("processor.max_cstate", []), *facts.options.get("intel_idle.max_cstate", [])]
    cpu = min(isolated)
    latencies = {}
    for place in facts.root.glob(f"{CPU}/cpu{cpu}/cpuidle/state*/latency"):
        state = place.rsplit("/", 1)[0]
        if (facts.root.text(f"{state}/disable") or "0").strip() == "0":
            latencies[facts.root.text(f"{state}/name") or state] = int(facts.root.text(place) or "0")
    deep = {name: us for name, us in latencies.items() if us > 20}
    if deep and not limits:
        name, us = max(deep.items(), key=lambda item: item[1])
        yield Finding(
            severity="advice",
            check="deep-idle-states",
            found=f"idle state {name} takes {us} us to leave ({driver})",
            reason="matters if the isolated task ever sleeps; one that polls never enters it",
            remedy="processor.max_cstate=1 intel_idle.max_cstate=1, or cpupower idle-set -D 20",
            source=DOC,
            cpus=isolated,
        )


@check
def _housekeeping_left(facts: Facts) -> Iterator[Finding]:
    if facts.isolated and not facts.housekeeping:
        yield Finding(
            severity="error",
            check="no-housekeeping-cpu",
            found="every online CPU is isolated",
            reason="somebody has to do the housekeeping; the kernel then takes the boot CPU back",
            remedy="keep at least one CPU per NUMA node out of the lists",
            source=DOC,
        )
    for place in facts.root.glob("sys/devices/system/node/node[0-9]*/cpulist"):
        cpus = cpu_list(facts.root.text(place) or "") & facts.online
        if cpus and facts.housekeeping and cpus <= facts.isolated:
            yield Finding(
                severity="advice",
                check="node-without-housekeeping",
                found=f"{place.split('/')[4]}: all of its CPUs {show_cpus(cpus)} are isolated",
                reason="its housekeeping is done from another node, across the interconnect",
                remedy="leave one CPU of each node for housekeeping",
                source=DOC,
                cpus=cpus,
            )


@check
def _pti_without_pcid(facts: Facts) -> Iterator[Finding]:
    if facts.kernel.pti and not facts.cpu.pcid:
        yield Finding(
            severity="advice",
            check="pti-without-pcid",
            found="page-table isolation without PCIDs",
            reason="every entry to and exit from the kernel drops all non-global translations",
            remedy="remove nopcid"
            if "nopcid" in facts.options
            else "a CPU, or a hypervisor setting, with PCID",
            source="FACTS 2.7",
        )


@check
def _guest(facts: Facts) -> Iterator[Finding]:
    if facts.cpu.hypervisor:
        yield Finding(
            severity="note",
            check="guest",
            found="this kernel runs under a hypervisor",
            reason="the host preempts virtual CPUs unseen, the CPU model is what the hypervisor says, and "
            "an IPI costs "
            "an exit; nothing in here can isolate against the host",
            remedy="pin virtual CPUs to isolated host CPUs, and inspect the host too",
            source=DOC,
        )


@check
def _firmware(facts: Facts) -> Iterator[Finding]:
    if _isolated(facts) and not facts.cpu.hypervisor:
        yield Finding(
            severity="note",
            check="firmware-interrupts",
            found="system management interrupts cannot be seen from here",
            reason="firmware stops all CPUs at will, and no trace shows it",
            remedy="the vendor's low-latency guide for the BIOS; rtla hwnoise measures what is left",
            source=DOC,
        )
