"""The checklist: memory management, which makes the kernel flush TLBs and so interrupt."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tlbcore._input.boot_line import has
from tlbcore.inspect._facts import CPU, Facts
from tlbcore.inspect._root import MissingError
from tlbcore.inspect.checks import remedies
from tlbcore.inspect.checks.finding import DOC, Finding, check


@check
def _bpf_jit(facts: Facts) -> Iterator[Finding]:
    value = facts.root.need("proc/sys/net/core/bpf_jit_enable")
    if facts.meant and value.strip() == "0":
        yield Finding(
            severity="warning",
            check="bpf-jit-off",
            found="net.core.bpf_jit_enable is 0",
            reason="each attached socket filter then flushes every TLB about twice (one flush_tlb_all, 1.1 "
            "range flushes); with the JIT its memory comes from a pack that is there already",
            remedy="sysctl net.core.bpf_jit_enable=1",
            source="measured on 6.12 (docs/sources.md, FACTS 8, traces w3i against w3j)",
        )


@check
def _bpf_ibpb(facts: Facts) -> Iterator[Finding]:
    """Where branch predictors are guarded by (e)IBRS, reuse of JIT memory runs IBPB on every CPU."""
    if not facts.meant or not _ibpb_on_reuse(facts):
        return
    if facts.root.need("proc/sys/net/core/bpf_jit_enable").strip() == "0":
        return
    state = facts.root.need(f"{CPU}/vulnerabilities/spectre_v2")
    # "Vulnerable; IBPB: disabled" (mitigations=off) names what the CPU has, not what the kernel does.
    if state.startswith("Mitigation") and "IBPB" in state and "Retpoline" not in state:
        yield Finding(
            severity="note",
            check="bpf-jit-ibpb",
            found="the BPF JIT is on, and this CPU uses IBPB without retpolines",
            reason="a filter that reuses memory of an earlier one makes the kernel run IBPB on every CPU, "
            "isolated ones too: 26 interrupts per isolated CPU for 60 filters",
            remedy="attach BPF filters before the isolated work starts; do not load and unload them meanwhile",
            source="kernel/bpf/core.c; measured on 7.3",
            cpus=facts.meant,
        )


def _ibpb_on_reuse(facts: Facts) -> bool:
    """Versions whose source was read: 7.3, and 6.12 from .117 on."""
    version = facts.version
    if version is None:
        return False
    return has(version, (7, 3)) is True or (
        (version.major, version.minor) == (6, 12) and version.patch >= 117
    )


@check
def _kfence(facts: Facts) -> Iterator[Finding]:
    if not facts.meant:
        return
    interval = facts.root.text("sys/module/kfence/parameters/sample_interval")
    if interval is None:
        if facts.setting("KFENCE") != "y":
            return
        interval = facts.boot.said("kfence.sample_interval") or facts.setting("KFENCE_SAMPLE_INTERVAL")
    static_keys = facts.kernel_settings is None or facts.setting("KFENCE_STATIC_KEYS") == "y"
    if interval.strip() not in ("", "0", "n") and static_keys:
        yield Finding(
            severity="warning",
            check="kfence-static-keys",
            found=f"KFENCE samples every {interval.strip()} ms",
            reason="where it uses a static key, each sample patches kernel text, and each patch interrupts "
            "every CPU "
            "(three syncs per batch)",
            remedy=remedies.first(
                remedies.boot(facts, [("kfence.sample_interval", "0")]),
                "use a kernel with CONFIG_KFENCE_STATIC_KEYS=n",
            ),
            source="Documentation/dev-tools/kfence.rst; docs/sources.md, FACTS 1.2 (text patching)",
            cpus=facts.meant,
        )


@check
def _debug_pagealloc(facts: Facts) -> Iterator[Finding]:
    if not facts.meant:
        return
    asked = _said_bool(facts.options.get("debug_pagealloc", []))
    if asked is None and facts.setting("DEBUG_PAGEALLOC_ENABLE_DEFAULT") != "y":
        return
    built = facts.kernel_settings is None or facts.kernel_settings.get("DEBUG_PAGEALLOC") != "n"
    if asked is not False and built:
        yield Finding(
            severity="warning",
            check="debug-pagealloc",
            found="DEBUG_PAGEALLOC is on",
            reason="every vfree flushes every TLB at once instead of one purge for thousands",
            remedy="boot without debug_pagealloc=on" if asked else "boot with debug_pagealloc=off",
            source="docs/sources.md, FACTS 5.1; mm/vmalloc.c free_unmap_vmap_area",
        )


def _said_bool(values: list[str]) -> bool | None:
    """Return what an option that is yes or no ends as: the last value that kstrtobool takes, None without one."""
    said = None
    for value in values:
        if re.match(r"[yY1tT]|[oO][nN]", value):
            said = True
        elif re.match(r"[nN0fF]|[oO][fF]", value):
            said = False
    return said


@check
def _expedited_rcu(facts: Facts) -> Iterator[Finding]:
    expedited = facts.root.need("sys/kernel/rcu_expedited")
    # rcu_normal overrides it; with PREEMPT_RT it is 1 from the end of the boot on.
    normal = facts.root.text("sys/kernel/rcu_normal") not in (None, "", "0")
    if facts.meant and expedited.strip() not in ("0", "") and not normal:
        yield Finding(
            severity="warning",
            check="rcu-expedited",
            found=f"rcu_expedited is {expedited.strip()}",
            reason="every grace period interrupts the CPUs that have not reported, isolated ones that are "
            "in the kernel too",
            remedy="echo 0 > /sys/kernel/rcu_expedited"
            + (
                ""
                if facts.boot.said("rcupdate.rcu_normal_after_boot") == "1"
                else "; boot with rcupdate.rcu_normal_after_boot=1"
            ),
            source="Documentation/admin-guide/kernel-parameters.txt",
        )


@check
def _numa_balancing(facts: Facts) -> Iterator[Finding]:
    value = facts.root.text("proc/sys/kernel/numa_balancing")
    if value is None:
        if facts.kernel_settings is not None and facts.setting("NUMA_BALANCING") == "n":
            return
        raise MissingError("proc/sys/kernel/numa_balancing")
    if facts.meant and value.strip() not in ("0", ""):
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
    if facts.meant and "[always]" in text:
        yield Finding(
            severity="advice",
            check="khugepaged",
            found="transparent huge pages are on for everyone",
            reason="khugepaged drains per-CPU lists on all CPUs and shoots down the TLBs of a process it "
            "collapses",
            remedy="echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            source="Documentation/admin-guide/mm/transhuge.rst",
        )


@check
def _ksm(facts: Facts) -> Iterator[Finding]:
    if facts.meant and facts.root.need("sys/kernel/mm/ksm/run").strip() == "1":
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
    devices = [line.split()[0] for line in facts.root.need("proc/swaps").splitlines()[1:] if line.strip()]
    if facts.meant and devices:
        yield Finding(
            severity="advice",
            check="swap",
            found=f"swap is on: {', '.join(devices)}",
            reason="reclaim unmaps pages; a page fault in the isolated task is a long stay in the kernel",
            remedy="mlockall(MCL_CURRENT | MCL_FUTURE) in the workload, or no swap",
            source=DOC,
        )


@check
def _flush_ceiling(facts: Facts) -> Iterator[Finding]:
    if not facts.x86:
        return
    text = facts.root.need("sys/kernel/debug/x86/tlb_single_page_flush_ceiling")
    if not text.isdigit():
        raise MissingError("sys/kernel/debug/x86/tlb_single_page_flush_ceiling")
    if text != "33":
        yield Finding(
            severity="note",
            check="flush-ceiling",
            found=f"tlb_single_page_flush_ceiling is {text} (default 33)",
            reason="flushes of up to that many pages go page by page, larger ones drop the whole TLB",
            remedy="echo 33 > /sys/kernel/debug/x86/tlb_single_page_flush_ceiling, unless it was meant",
            source="docs/sources.md, FACTS 2.1",
        )
