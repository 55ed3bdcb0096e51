"""What each policy would do on a machine: words for what its programs do there (`src/sim/outlook.rs`).

A verdict rests on what the policy needs (SEMANTICS L7), on which CPUs it spares, and on what a system call costs more
than mainline's; nothing here knows a policy by name, except mainline's own two.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tlbcore import _core
from tlbcore._input.cpus import show_cpus
from tlbcore.hardware import Machine
from tlbcore.inspect._facts import Facts
from tlbcore.kernel import machine_text
from tlbcore.policy import Policy, policies

_NOT_X86 = {
    "aarch64": "the policies are of x86; an aarch64 CPU broadcasts the invalidation of kernel ranges itself "
    "(TLBI ... IS), so they interrupt nobody. What is left (text patching, page-table frees, IPIs) is not modelled."
}
# A preset for questions whose answer has no cost in it.
_ANY = "skylake-sp"

# What a CPU may be doing when a request comes: the fields of `src/sim/outlook.rs`.
_IDLE, _KERNEL, _ALL = "idle", "kernel", "housekeeping"


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What one policy would do here.

    `verdict` is `today` (what this kernel does), `defers` (it would spare `spares`), `inert` (it would change
    nothing) or `impossible` (the machine or kernel lacks what it needs). `entry_ns` is paid by each system call, on its
    way in and out, `owed_ns` by one that finds a flush owed.
    """

    policy: str
    verdict: str
    spares: frozenset[int]
    entry_ops: str
    entry_ns: float
    owed_ns: float
    entry_mark: str
    reason: str


def _policies() -> Iterator[Policy]:
    """Yield those about the kernel's range and text: user ranges are a question of processes, not of a host."""
    return (policy for policy in policies.values() if policy.defers != ("user",))


def outlook(facts: Facts, machine: Machine | None) -> Iterator[Outlook]:
    """Yield one row per built-in policy of the kernel's range and text, in the order of the policy table."""
    if facts.cpu is None:
        return
    if not facts.x86:
        for policy in _policies():
            yield Outlook(
                policy=policy.name,
                verdict="not modelled",
                spares=frozenset(),
                entry_ops="",
                entry_ns=0.0,
                owed_ns=0.0,
                entry_mark="",
                reason=_NOT_X86.get(
                    facts.cpu.arch, f"the policies are of x86; how {facts.cpu.arch} flushes is not modelled."
                ),
            )
        return
    features = [
        name
        for name, here in {
            "pti": facts.kernel.pti,
            "pcid": facts.cpu.pcid,
            "invpcid": facts.cpu.invpcid,
            "invlpgb": facts.cpu.invlpgb and not facts.kernel.pti,
            "rar": False,  # in no kernel yet
            "housekeeping_overridden": bool(facts.isolated),
            "context_tracking": facts.kernel.context_tracking,
        }.items()
        if here
    ]
    # Whom a policy would spare is asked with isolated CPUs, so that it can be said what there is none of.
    isolated = sorted({*features, "housekeeping_overridden", "context_tracking"})
    preset = _ANY if machine is None else machine_text(machine)
    for policy in _policies():
        lacking = _lacking(policy, facts)
        if lacking is not None:
            verdict, reason = lacking
            yield Outlook(
                policy=policy.name,
                verdict=verdict,
                spares=frozenset(),
                entry_ops="",
                entry_ns=0.0,
                owed_ns=0.0,
                entry_mark="",
                reason=reason,
            )
            continue
        verdict, spares, reason = _effect(policy, facts, _outlook(policy, tuple(isolated), preset))
        seen = _outlook(policy, tuple(features), preset)
        does = verdict != "inert"
        ops: list[str] = seen["ops"] if does else []
        always, owed = ((seen[key]["best"] if does else 0.0) for key in ("entry_ns", "owed_ns"))
        if machine is None:
            always = owed = float("nan")
        yield Outlook(
            policy=policy.name,
            verdict=verdict,
            spares=spares,
            entry_ops="; ".join(ops),
            entry_ns=always,
            owed_ns=owed,
            entry_mark="unsourced" if machine is None else seen["mark"] if does else "",
            reason=" ".join([reason, *_caveats(policy, facts, ops)]),
        )


@functools.cache
def _outlook(policy: Policy, features: tuple[str, ...], preset: str) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(_core.policy_outlook(policy.text, policy.file, features, preset))
    return found


def _lacking(policy: Policy, facts: Facts) -> tuple[str, str] | None:
    """Verdict and reason if the machine lacks something the policy needs."""
    assert facts.cpu is not None
    if "pti" in policy.needs and facts.kernel.pti is not True:
        if facts.kernel.pti is None:
            return "impossible", "whether page-table isolation is on could not be told"
        why = (
            "the CPU is not affected by Meltdown"
            if facts.cpu.affected_by_meltdown is False
            else "it was turned off at boot"
        )
        return (
            "inert",
            f"page-table isolation is off ({why}): the CR3 macros are patched out, nothing is deferred and "
            "nothing is "
            "paid (SEMANTICS L7)",
        )
    if "context_tracking" in policy.needs and not facts.kernel.context_tracking:
        return "inert", "context tracking is active on nohz_full CPUs only, and there is none"
    if "invlpgb" in policy.needs:
        if facts.kernel.pti:
            return "impossible", "Linux turns INVLPGB off while page-table isolation is on (94a17f2dc90b)"
        if facts.cpu.invlpgb is not True:
            hidden = " to this guest" if facts.cpu.hypervisor and facts.cpu.vendor == "amd" else ""
            unknown = " (this kernel's /proc/cpuinfo would not show it)" if facts.cpu.invlpgb is None else ""
            return "impossible", f"INVLPGB is not shown{hidden}{unknown}; AMD Zen 3 and later servers have it"
    if "rar" in policy.needs:
        return "impossible", "no released kernel uses remote action requests"
    return None


def _effect(policy: Policy, facts: Facts, seen: Mapping[str, Any]) -> tuple[str, frozenset[int], str]:
    """Verdict, CPUs spared, and why, for a policy that the machine can run."""
    assert facts.cpu is not None
    broadcast = facts.cpu.invlpgb is True and not facts.kernel.pti and facts.kernel.at_least(6, 15) is True
    if policy.name == "ipi":
        if broadcast:
            return "inert", frozenset(), "this kernel broadcasts with INVLPGB instead of interrupting."
        return "today", frozenset(), "every purge interrupts every online CPU, isolated ones too."
    if all(seen["flush_now"].values()):
        state = "today" if policy.name == "invlpgb" and broadcast else "defers"
        return (
            state,
            facts.online,
            "flushes of the kernel's range are broadcast by the CPU: nobody is interrupted.",
        )
    kinds = {"flush": "purges", "sync": "syncs of patched text", "user_flush": "flushes of user ranges"}
    for kind, requests in kinds.items():
        spared = {mode for mode, is_spared in seen[kind].items() if is_spared}
        if not spared:
            continue
        if _KERNEL in spared:
            return "defers", facts.online, f"{requests} interrupt nobody."
        mode = "in user mode or idle" if _IDLE in spared else "in user mode"
        if _ALL in spared:
            return "defers", facts.online, f"no CPU {mode} is interrupted by {requests}."
        if facts.nohz_full:
            online = facts.nohz_full & facts.online
            return "defers", online, f"nohz_full CPUs {mode} are not interrupted by {requests}."
        boot = (
            f"CPUs {show_cpus(facts.domain)} are isolated from the scheduler only"
            if facts.domain
            else "no CPU is isolated"
        )
        return (
            "inert",
            frozenset(),
            f"it defers for nohz_full CPUs, and there is none: {boot} (docs/sources.md, FACTS 5.2).",
        )
    if "lazy_max_factor" in policy.text:
        return "defers", frozenset(), "the same interrupts as today, fewer of them."
    return "defers", frozenset(), "as its programs stand, every CPU is interrupted as today."


def _caveats(policy: Policy, facts: Facts, added: list[str]) -> Iterator[str]:
    if (
        facts.kernel.pti
        and facts.cpu is not None
        and not facts.cpu.pcid
        and any("cr3" in op or "invpcid" in op or "cr4" in op for op in added)
    ):
        yield "Without PCIDs every CR3 write drops non-global translations anyway."
    settings = facts.kernel_settings
    if policy.name == "coalesce-v7" and settings is not None and settings.get("CPUMASK_OFFSTACK") == "y":
        yield (
            "CONFIG_CPUMASK_OFFSTACK=y: v7 tests a bit of the mask's pointer, so CPUs that flush and CPUs "
            "that are "
            "deferred may differ (docs/sources.md, FACTS 1.6 f)."
        )
