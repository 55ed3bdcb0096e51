"""What each policy would do on a machine: assembled for its features, read from its programs.

A verdict rests on what the policy needs (SEMANTICS L7), on which CPUs it spares, and on the ops that its
kernel entry gains over mainline's; nothing here knows a policy by name, except mainline's own two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tlbcore._cpus import show_cpus
from tlbcore._machines import Machine
from tlbcore.inspect._facts import Facts
from tlbcore.policy import Policy, policies

# Prefix of an op's text -> cost in the preset. An op that is not listed costs a cycle or less.
_COSTS: tuple[tuple[str, str, float], ...] = (
    ("invpcid all-including-global", "invpcid_all", 1),
    ("invpcid all-non-global", "invpcid_non_global", 1),
    ("invpcid", "invpcid_context", 1),
    ("mov cr4", "cr4_pge_toggle", 0.5),
    ("mfence", "mfence", 1),
    ("xchg", "lock", 1),
    ("cas", "lock", 1),
    ("let", "", 0),
    ("mov cr3", "mov_cr3_flush", 1),
)
_NOT_X86 = {
    "aarch64": "the policies are of x86; an aarch64 CPU broadcasts the invalidation of kernel ranges itself "
    "(TLBI ... IS), so they interrupt nobody. What is left (text patching, page-table frees, IPIs) is not modelled."
}
_Listing = list[tuple[str, int, str, str, str]]
_MARKS = ("", "measured", "published", "fitted", "predicted", "unsourced")


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What one policy would do here.

    `verdict` is `today` (what this kernel does), `defers` (it would spare `spares`), `inert` (it would change
    nothing) or `impossible` (the machine or kernel lacks what it needs). `entry_ns` is paid at each entry,
    `owed_ns` at an entry that finds a flush owed.
    """

    policy: str
    verdict: str
    spares: frozenset[int]
    entry_ops: str
    entry_ns: float
    owed_ns: float
    entry_mark: str
    reason: str


def outlook(facts: Facts, machine: Machine | None) -> Iterator[Outlook]:
    """Yield one row per built-in policy, in the order of the policy table."""
    if facts.cpu is None:
        return
    if not facts.x86:
        for policy in policies.values():
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
    mainline = policies["ipi"].listing([name for name in features if name != "invlpgb"])
    base = Counter(_entry(mainline))
    for policy in policies.values():
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
        listing = policy.listing(features)
        verdict, spares, reason = _effect(policy, facts, listing, mainline)
        gained = [] if verdict == "inert" else list((Counter(_entry(listing)) - base).elements())
        always = [op for op, hangs in gained if not hangs]
        ns, mark = _cost(always, machine)
        owed_ns, owed_mark = _cost([op for op, _ in gained], machine)
        yield Outlook(
            policy=policy.name,
            verdict=verdict,
            spares=spares,
            entry_ops="; ".join(op for op, _ in gained if _priced(op)),
            entry_ns=ns,
            owed_ns=owed_ns,
            entry_mark=max(mark, owed_mark, key=_rank),
            reason=" ".join([reason, *_caveats(policy, facts, [op for op, _ in gained])]),
        )


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


def _effect(
    policy: Policy, facts: Facts, listing: _Listing, mainline: _Listing
) -> tuple[str, frozenset[int], str]:
    """Verdict, CPUs spared, and why, for a policy that the machine can run."""
    assert facts.cpu is not None
    purge = _purge(listing)
    broadcast = facts.cpu.invlpgb is True and not facts.kernel.pti and facts.kernel.at_least(6, 15) is True
    if policy.name == "invlpgb":
        state = "today" if broadcast else "defers"
        return state, facts.online, "flushes are broadcast by the CPU: nobody is interrupted."
    if policy.name == "ipi":
        if broadcast:
            return "inert", frozenset(), "this kernel broadcasts with INVLPGB instead of interrupting."
        return "today", frozenset(), "every purge interrupts every online CPU, isolated ones too."
    if any("cpu in housekeeping" in text for text in purge):
        if not facts.nohz_full:
            boot = (
                f"CPUs {show_cpus(facts.domain)} are isolated from the scheduler only"
                if facts.domain
                else "no CPU is isolated"
            )
            return (
                "inert",
                frozenset(),
                f"it defers for nohz_full CPUs, and there is none: {boot} (FACTS 5.2).",
            )
        return (
            "defers",
            facts.nohz_full & facts.online,
            "nohz_full CPUs in user mode are not interrupted by purges.",
        )
    if purge == _purge(mainline):
        return "defers", frozenset(), "the same interrupts as today, fewer of them."
    if any(text.startswith("put cpu into") for text in purge):
        return "defers", facts.online, "no CPU in user mode is interrupted by a purge."
    return "defers", facts.online, "purges interrupt nobody."


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
            "deferred may differ [OWN, FACTS 1.6 (f)]."
        )


def _purge(listing: _Listing) -> list[str]:
    return [text for program, _, _, text, _ in listing if program == "purge"]


def _entry(listing: _Listing) -> list[tuple[str, bool]]:
    """Ops of a system call up to its body, each with whether it hangs on a test of the policy's own state.

    A test of the CPU's place in a mask is none: for a covered CPU it is always true.
    """
    ops: list[tuple[str, bool]] = []
    until = -1  # ops below this index hang on a test
    for program, index, op, text, _ in listing:
        if program != "syscall":
            continue
        if text.startswith("body"):
            break
        branch = re.search(r"\bto: (\d+) }$", op)
        if branch and text.startswith("if ") and "MeIn" not in op:
            until = max(until, int(branch[1]))
        ops.append((text, index < until))
    return ops


def _priced(op: str) -> bool:
    return any(op.startswith(prefix) and cost for prefix, cost, _ in _COSTS)


def _rank(mark: str) -> int:
    return _MARKS.index(mark)


def _cost(ops: list[str], machine: Machine | None) -> tuple[float, str]:
    """Nanoseconds that these ops add, refills not included, and the weakest mark among them."""
    if machine is None:
        return float("nan"), "unsourced"
    cycles = 0.0
    mark = ""
    for op in ops:
        for prefix, cost, share in _COSTS:
            if op.startswith(prefix):
                if cost:
                    figure = machine.costs[cost]
                    cycles += share * figure.cycles
                    mark = max(mark, figure.mark, key=_rank)
                break
    return cycles * 1000 / machine.mhz, mark
