# ruff: noqa: E501  # reasons stand as they are said
"""What each policy would do on a machine, of made-up facts: verdict, CPUs that are spared, price, and the reason word by word."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

import tlbcore as tc
from tlbcore.inspect import _policies
from tlbcore.inspect._policies import _caveats, _effect, _lacking, outlook

ONLINE = frozenset({0, 1, 2, 3})


def facts(**changes: Any) -> Any:
    """Return an Intel CPU with PTI, PCID and INVPCID; CPUs 2 and 3 of four without a tick; changes go to where the name is."""
    cpu = {
        "arch": "x86",
        "pcid": True,
        "invpcid": True,
        "invlpgb": False,
        "hypervisor": False,
        "vendor": "intel",
        "affected_by_meltdown": True,
    }
    kernel = {"pti": True, "context_tracking": True, "release": (6, 12)}
    there = {
        "x86": True,
        "isolated": frozenset({2, 3}),
        "nohz_full": frozenset({2, 3, 9}),
        "online": ONLINE,
        "domain": frozenset(),
        "kernel_settings": None,
    }
    for part in (cpu, kernel, there):
        part.update({name: changes.pop(name) for name in list(part) if name in changes})
    assert not changes
    release = kernel["release"]
    made = SimpleNamespace(
        **kernel, at_least=lambda major, minor: None if release is None else release >= (major, minor)
    )
    return SimpleNamespace(cpu=SimpleNamespace(**cpu), kernel=made, **there)


def needing(*needs: str, name: str = "p", text: str = "") -> Any:
    return SimpleNamespace(name=name, needs=needs, text=text, file="f")


OFF = "the CR3 macros are patched out, nothing is deferred and nothing is paid (SEMANTICS L7)"
HAVE = "AMD Zen 3 and later servers have it"


@pytest.mark.parametrize(
    ("needs", "changes", "verdict", "reason"),
    [
        ((), {}, None, None),
        (("pti",), {}, None, None),
        (("pti",), {"pti": None}, "impossible", "whether page-table isolation is on could not be told"),
        (("pti",), {"pti": False}, "inert", f"page-table isolation is off (it was turned off at boot): {OFF}"),
        (("pti",), {"pti": False, "affected_by_meltdown": None}, "inert", f"page-table isolation is off (it was turned off at boot): {OFF}"),
        (("pti",), {"pti": False, "affected_by_meltdown": False}, "inert", f"page-table isolation is off (the CPU is not affected by Meltdown): {OFF}"),
        (("context_tracking",), {}, None, None),
        (("context_tracking",), {"context_tracking": False}, "inert", "context tracking is active on nohz_full CPUs only, and there is none"),
        (("invlpgb",), {"invlpgb": True}, "impossible", "Linux turns INVLPGB off while page-table isolation is on (94a17f2dc90b)"),
        (("invlpgb",), {"pti": False, "invlpgb": True}, None, None),
        (("invlpgb",), {"pti": None, "invlpgb": True}, None, None),
        (("invlpgb",), {"pti": False}, "impossible", f"INVLPGB is not shown; {HAVE}"),
        (("invlpgb",), {"pti": False, "vendor": "amd"}, "impossible", f"INVLPGB is not shown; {HAVE}"),
        (("invlpgb",), {"pti": False, "hypervisor": True}, "impossible", f"INVLPGB is not shown; {HAVE}"),
        (("invlpgb",), {"pti": False, "hypervisor": True, "vendor": "amd", "invlpgb": None}, "impossible",
         f"INVLPGB is not shown to this guest (this kernel's /proc/cpuinfo would not show it); {HAVE}"),
        (("rar",), {}, "impossible", "no released kernel uses remote action requests"),
        (("rar", "pti"), {"pti": None}, "impossible", "whether page-table isolation is on could not be told"),
    ],
)  # fmt: skip
def test_what_a_machine_lacks_is_told(
    needs: tuple[str, ...], changes: dict[str, Any], verdict: str | None, reason: str | None
) -> None:
    assert _lacking(needing(*needs), facts(**changes)) == (None if verdict is None else (verdict, reason))


MODES = ("user", "idle", "kernel", "housekeeping")


def seen(*now: str, flush: str = "", sync: str = "", user_flush: str = "") -> dict[str, Any]:
    """Return an outlook: in which modes a flush takes place at once, and in which each request spares a CPU."""
    spared = {"flush_now": " ".join(now), "flush": flush, "sync": sync, "user_flush": user_flush}
    return {kind: {mode: mode in said.split() for mode in MODES} for kind, said in spared.items()}


NOBODY = "it defers for nohz_full CPUs, and there is none: "
BROADCAST = {"pti": False, "invlpgb": True, "release": (6, 15)}


@pytest.mark.parametrize(
    ("name", "changes", "outlook_", "verdict", "spares", "reason"),
    [
        ("ipi", {}, seen(), "today", "", "every purge interrupts every online CPU, isolated ones too."),
        ("ipi", BROADCAST, seen(), "inert", "", "this kernel broadcasts with INVLPGB instead of interrupting."),
        *(("ipi", BROADCAST | change, seen(), "today", "", "every purge interrupts every online CPU, isolated ones too.")
          for change in ({"pti": True}, {"invlpgb": None}, {"release": (6, 14)}, {"release": None})),
        ("invlpgb", BROADCAST, seen(*MODES), "today", "0123", "flushes of the kernel's range are broadcast by the CPU: nobody is interrupted."),
        ("invlpgb", BROADCAST | {"release": (6, 14)}, seen(*MODES), "defers", "0123", "flushes of the kernel's range are broadcast by the CPU: nobody is interrupted."),
        ("other", BROADCAST, seen(*MODES), "defers", "0123", "flushes of the kernel's range are broadcast by the CPU: nobody is interrupted."),
        ("p", {}, seen(*MODES[1:], flush="user"), "defers", "23", "nohz_full CPUs in user mode are not interrupted by purges."),
        ("p", {}, seen(flush="user idle kernel"), "defers", "0123", "purges interrupt nobody."),
        ("p", {}, seen(sync="user kernel"), "defers", "0123", "syncs of patched text interrupt nobody."),
        ("p", {}, seen(flush="user idle"), "defers", "23", "nohz_full CPUs in user mode or idle are not interrupted by purges."),
        ("p", {}, seen(sync="user", user_flush="user kernel"), "defers", "23", "nohz_full CPUs in user mode are not interrupted by syncs of patched text."),
        ("p", {}, seen(user_flush="user"), "defers", "23", "nohz_full CPUs in user mode are not interrupted by flushes of user ranges."),
        ("p", {}, seen(flush="user housekeeping"), "defers", "0123", "no CPU in user mode is interrupted by purges."),
        ("p", {}, seen(flush="user idle housekeeping"), "defers", "0123", "no CPU in user mode or idle is interrupted by purges."),
        ("p", {"nohz_full": frozenset()}, seen(flush="user"), "inert", "", f"{NOBODY}no CPU is isolated (docs/sources.md, FACTS 5.2)."),
        ("p", {"nohz_full": frozenset(), "domain": frozenset({1, 2, 5})}, seen(flush="user"), "inert", "",
         f"{NOBODY}CPUs 1-2,5 are isolated from the scheduler only (docs/sources.md, FACTS 5.2)."),
        ("p", {}, seen(), "defers", "", "as its programs stand, every CPU is interrupted as today."),
        ("lazy", {}, seen(), "defers", "", "the same interrupts as today, fewer of them."),
    ],
)  # fmt: skip
def test_whom_a_policy_spares_and_why(
    name: str, changes: dict[str, Any], outlook_: dict[str, Any], verdict: str, spares: str, reason: str
) -> None:
    policy = needing(name=name, text="lazy_max_factor 2" if name == "lazy" else "")
    assert _effect(policy, facts(**changes), outlook_) == (verdict, frozenset(map(int, spares)), reason)


DROPS = "Without PCIDs every CR3 write drops non-global translations anyway."
OFFSTACK = (
    "CONFIG_CPUMASK_OFFSTACK=y: v7 tests a bit of the mask's pointer, so CPUs that flush and CPUs that are deferred may "
    "differ (docs/sources.md, FACTS 1.6 f)."
)


@pytest.mark.parametrize(
    ("name", "changes", "ops", "said"),
    [
        *(("p", {"pcid": False}, ["lfence", op], [DROPS]) for op in ("mov cr3, user", "invpcid all", "mov cr4, pge off")),
        ("p", {"pcid": False}, ["lfence"], []),
        ("p", {"pcid": False}, [], []),
        ("p", {}, ["mov cr3, user"], []),
        ("p", {"pcid": False, "pti": False}, ["mov cr3, user"], []),
        ("coalesce-v7", {"kernel_settings": {"CPUMASK_OFFSTACK": "y"}}, [], [OFFSTACK]),
        ("coalesce-v7", {"kernel_settings": {"CPUMASK_OFFSTACK": "n"}}, [], []),
        ("coalesce-v7", {"kernel_settings": {}}, [], []),
        *((name, {"kernel_settings": {"CPUMASK_OFFSTACK": "y"}}, [], []) for name in ("p", "coalesce-v6", "coalesce-v7-fixed")),
        ("coalesce-v7", {"kernel_settings": {"CPUMASK_OFFSTACK": "y"}, "pcid": False}, ["cr3"], [DROPS, OFFSTACK]),
    ],
)  # fmt: skip
def test_what_to_know_of_a_policy_here(
    name: str, changes: dict[str, Any], ops: list[str], said: list[str]
) -> None:
    assert list(_caveats(needing(name=name), facts(**changes), ops)) == said


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...], str]]:
    """Let there be two policies, `p`, and `q` that no machine can run; return what was asked of `p`."""
    monkeypatch.setattr(_policies, "_policies", lambda: iter([needing("rar", name="q"), needing()]))
    asked: list[tuple[str, tuple[str, ...], str]] = []

    def outlook_of(policy: Any, features: tuple[str, ...], preset: str) -> dict[str, Any]:
        asked.append((policy.name, features, preset))
        price = {
            "ops": ["lfence", "mov cr3"],
            "entry_ns": {"best": 1.5},
            "owed_ns": {"best": 2.5},
            "mark": "measured",
        }
        return seen(flush="user") | price

    monkeypatch.setattr(_policies, "_outlook", outlook_of)
    return asked


def test_a_row_has_the_ops_and_the_price_on_the_machine(two: list[Any]) -> None:
    q, p = outlook(facts(), tc.machine("broadwell-ep-e5-2699v4"))
    assert (p.policy, p.verdict, p.spares, p.entry_ops, p.entry_ns, p.owed_ns, p.entry_mark) == (
        "p", "defers", {2, 3}, "lfence; mov cr3", 1.5, 2.5, "measured",
    )  # fmt: skip
    assert p.reason == "nohz_full CPUs in user mode are not interrupted by purges."
    with pytest.raises(AttributeError):
        p.reason = ""  # type: ignore[misc]
    assert (q.policy, q.verdict, q.spares, q.entry_ops, q.entry_ns, q.owed_ns, q.entry_mark, q.reason) == (
        "q", "impossible", frozenset(), "", 0.0, 0.0, "", "no released kernel uses remote action requests",
    )  # fmt: skip
    every = ("context_tracking", "housekeeping_overridden", "invpcid", "pcid", "pti")
    assert [(name, tuple(sorted(features))) for name, features, _ in two] == [("p", every)] * 2
    assert all("broadwell-ep-e5-2699v4" in text for _, _, text in two)


def test_what_the_machine_has_not_got_is_asked_without_it(two: list[Any]) -> None:
    bare = facts(
        pti=False, pcid=False, invpcid=False, invlpgb=True, isolated=frozenset(), nohz_full=frozenset(), context_tracking=False
    )  # fmt: skip
    _, p = outlook(bare, None)
    assert [features for _, features, _ in two] == [
        ("context_tracking", "housekeeping_overridden", "invlpgb"),
        ("invlpgb",),
    ]
    assert {preset for *_, preset in two} == {"skylake-sp"}
    assert (p.verdict, p.entry_ops, p.entry_mark) == ("inert", "", "unsourced"), "what is inert costs nothing"
    assert math.isnan(p.entry_ns)
    assert math.isnan(p.owed_ns)
    _, priced = outlook(bare, tc.machine("broadwell-ep-e5-2699v4"))
    assert (priced.entry_ns, priced.owed_ns, priced.entry_mark) == (0.0, 0.0, "")
    _, known = outlook(facts(), None)
    assert (known.verdict, known.entry_ops, known.entry_mark) == ("defers", "lfence; mov cr3", "unsourced")
    _, dropped = outlook(facts(pcid=False), None)
    assert dropped.reason == f"nohz_full CPUs in user mode are not interrupted by purges. {DROPS}"
    two.clear()
    list(outlook(facts(invlpgb=True), None))
    assert "invlpgb" not in two[1][1], "Linux does not use it with PTI"


def test_other_architectures_and_pasted_lines_have_no_outlook(two: list[Any]) -> None:
    for arch, reason in (
        ("aarch64", "the policies are of x86; an aarch64 CPU broadcasts the invalidation of kernel ranges itself (TLBI ... IS), so "
         "they interrupt nobody. What is left (text patching, page-table frees, IPIs) is not modelled."),
        ("riscv64", "the policies are of x86; how riscv64 flushes is not modelled."),
    ):  # fmt: skip
        rows = list(outlook(facts(arch=arch, x86=False), None))
        assert [row.policy for row in rows] == ["q", "p"]
        assert {
            (row.verdict, row.spares, row.entry_ops, row.entry_ns, row.owed_ns, row.entry_mark, row.reason)
            for row in rows
        } == {("not modelled", frozenset(), "", 0.0, 0.0, "", reason)}
    pasted = facts()
    pasted.cpu = None
    assert list(outlook(pasted, None)) == []
    assert two == []


def test_policies_about_user_ranges_alone_are_no_question_of_a_host() -> None:
    names = [policy.name for policy in _policies._policies()]
    assert names == [name for name, policy in tc.policies.items() if policy.defers != ("user",)]
    assert len(names) < len(tc.policies)
