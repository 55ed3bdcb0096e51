"""The checklist: cores, clocks, idle states, and what no file can show."""

from __future__ import annotations

from collections.abc import Iterator

from tlbcore._input.cpus import cpu_list, show_cpus
from tlbcore.inspect._facts import CPU, Facts
from tlbcore.inspect._root import MissingError
from tlbcore.inspect.checks.finding import DOC, Finding, check, line_check


@check
def _smt(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
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
            remedy="take the siblings offline"
            if "nosmt" in facts.options
            else "boot with nosmt, or take the siblings offline",
            source=DOC,
            cpus=frozenset(shared),
        )


@check
def _cpufreq(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
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
            remedy=f"cpupower -c {show_cpus(frozenset(moving))} frequency-set -g performance",
            source=DOC,
            cpus=frozenset(moving),
        )


@check
def _idle_states(facts: Facts) -> Iterator[Finding]:
    isolated = facts.meant
    driver = facts.root.text(f"{CPU}/cpuidle/current_driver")
    if not isolated or driver in (None, "none") or facts.boot.said("idle") == "poll":
        return
    deepest: dict[int, tuple[int, str]] = {}  # by CPU: its states need not be its neighbours'
    for cpu in isolated:
        for place in facts.root.glob(f"{CPU}/cpu{cpu}/cpuidle/state*/latency"):
            state = place.rsplit("/", 1)[0]
            latency = facts.root.text(place) or ""
            us = int(latency) if latency.isdecimal() else 0
            if us > 20 and (facts.root.text(f"{state}/disable") or "0").strip() == "0":
                name = facts.root.text(f"{state}/name") or state
                deepest[cpu] = max(deepest.get(cpu, (0, "")), (us, name))
    if deepest:
        us, name = max(deepest.values())
        # What the line limits already is not offered again: the states that are there are those it left.
        limited = facts.boot.said(
            "intel_idle.max_cstate" if driver == "intel_idle" else "processor.max_cstate"
        )
        by_boot = facts.x86 and limited != "1"
        yield Finding(
            severity="advice",
            check="deep-idle-states",
            found=f"idle state {name} takes {us} us to leave ({driver})",
            reason="matters if the isolated task ever sleeps and no program holds /dev/cpu_dma_latency; one that "
            "polls never enters it",
            remedy=("processor.max_cstate=1 intel_idle.max_cstate=1, or " if by_boot else "")
            + "cpupower idle-set -D 20",
            source=DOC,
            cpus=frozenset(deepest),
        )


@line_check
def _housekeeping_left(facts: Facts) -> Iterator[Finding]:
    if facts.meant and not facts.housekeeping:
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
    if facts.kernel.pti and facts.cpu is not None and not facts.cpu.pcid:
        yield Finding(
            severity="advice",
            check="pti-without-pcid",
            found="page-table isolation without PCIDs",
            reason="every entry to and exit from the kernel drops all non-global translations",
            remedy="remove nopcid"
            if "nopcid" in facts.options
            else "a CPU, or a hypervisor setting, with PCID",
            source="docs/sources.md, FACTS 2.7",
        )
