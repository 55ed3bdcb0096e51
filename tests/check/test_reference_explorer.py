"""The policy table states verdicts; the slow explorer, which shares only the ops, finds the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore, explore_litmus

FLUSHES = [name for name, policy in tc.policies.items() if policy.defers == ("flush",)]
SMALL = "purge; isolated 1 by syscall"
SYNCS = [name for name, policy in tc.policies.items() if policy.defers == ("sync",)]


def verdict(verified: bool) -> str:
    return "verified" if verified else "violated"


@pytest.mark.slow
@pytest.mark.parametrize("name", FLUSHES)
def test_the_stated_verdicts_hold_without_nmi(name: str) -> None:
    none, recycled, _ = _core.policy_stated(name)
    assert explore(name).status == verdict(none)
    assert explore(name, assume={"D": "recycled"}).status == verdict(recycled)


@pytest.mark.parametrize("name", ["ipi", "coalesce-v7", "coalesce-v7-fixed"])
def test_the_stated_verdicts_hold_with_one_entry(name: str) -> None:
    for danger, stated in zip(("none", "recycled"), _core.policy_stated(name), strict=False):
        found = explore(name, roles="purge; isolated 1 by syscall", assume={"D": danger})
        assert found.status == verdict(stated)


@pytest.mark.slow
@pytest.mark.parametrize("name", FLUSHES)
def test_the_stated_verdict_holds_with_one_nmi(name: str) -> None:
    stated = _core.policy_stated(name)[2]
    assert explore(name, nmis=1, assume={"N": "recycled"}).status == verdict(stated)


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNCS)
def test_the_stated_verdicts_hold_for_syncs_of_text(name: str) -> None:
    nowhere, danger, _ = _core.policy_stated(name)
    roles = "text_poke; isolated 1"
    assert explore(name, roles=roles).status == verdict(nowhere)
    assert explore(name, roles=roles, assume={"T": "danger"}).status == verdict(danger)


def test_the_fix_of_v7_needs_both_of_its_fences() -> None:
    fixed = tc.policies["coalesce-v7-fixed"]
    no_entry_fence = fixed.replace(
        name="no-entry-fence",
        coalesce="kernel_cr3_loaded = 1\nif me in flush_mask\n  invpcid all-including-global",
    )
    assert explore(no_entry_fence, roles=SMALL).status == "violated"
    assert explore(no_entry_fence, roles=SMALL, assume={"invpcid": "publishes"}).status == "verified"
    no_sender_fence = fixed.replace(
        name="no-sender-fence",
        purge="pte range = none\nrequest range\nflush_kernel_range\npromise range\npte range = fresh",
    )
    assert explore(no_sender_fence, roles=SMALL).status == "violated"


def test_the_race_of_v7_is_found_with_its_schedule() -> None:
    found = explore("coalesce-v7", roles=SMALL)
    assert found.violation == "stale_access (reused)"
    assert found.steps == len(found.schedule)
    assert any("fill" in step for step in found.schedule)


@pytest.mark.parametrize(("flushes", "found"), [("flush_here", "verified"), ("fence", "violated")])
def test_the_caller_of_vunmap_maps_the_same_addresses_again_in_both(flushes: str, found: str) -> None:
    """Nobody else holds the page: who unmaps forgets its own translation, or keeps it and uses it."""
    policy = tc.policies["ipi"].replace(name="alone", flush_kernel_range=flushes)
    roles = "vunmap; isolated 0 by syscall"

    assert tc.check(policy, roles="vunmap", world="pti").status == found
    assert explore(policy, roles="vunmap").status == found
    assert explore("ipi", roles=roles).status == tc.check("ipi", roles=roles, world="pti").status


@pytest.mark.slow
@pytest.mark.parametrize(("name", "found"), [("ct-late", "verified"), ("pending-bit-plain", "violated")])
def test_the_paths_of_fred_come_to_the_same_in_both(name: str, found: str) -> None:
    roles = "purge; isolated 1 by syscall"
    features = ("pcid", "invpcid", "housekeeping_overridden", "context_tracking", "fred")

    assert explore(name, roles=roles, features=features).status == found
    assert tc.check(name, roles=roles, world="nopti+fred").status == found


def test_a_search_that_grows_too_large_says_nothing() -> None:
    assert explore("ipi", limit=100).status == "inconclusive"


FAULTS = """litmus faults
  page u : {kind}
  var p : 1 bit, shared, starts 0
  var x : 1 bit, shared, starts 0
  {question}

cpu 0
  mov cr3, mm 2 asid 0 noflush
  {wait}
  read u
  x = 1
  read u

cpu 1
  pte u = none locked
  p = 1
"""


@pytest.mark.parametrize(
    ("kind", "question", "wait", "found"),
    [
        # The column ends at its first access, so what stands behind it does not happen ...
        ("user of 2, absent", 'exists "fault(0, u)"', "lfence", "allowed"),
        ("user of 2, absent", 'exists "x == 1"', "lfence", "forbidden"),
        ("user of 2, absent", 'forall "fault(0, u) and x == 0"', "lfence", "verified"),
        # ... unless a stale leaf serves it, which is evicted before the second one.
        ("user of 2", 'forall "not (fault(0, u) and x == 1)"', "await p == 1", "violated: invariant"),
        ("user of 2", 'never "fault(0, u) and x == 1"', "await p == 1", "violated: invariant"),
        ("user of 2", 'exists "fault(0, u) and x == 0"', "await p == 1", "allowed"),
        # Kernel code has a handler only where the question names the fault.
        ("vmalloc, absent", "", "lfence", "violated: unmapped_access"),
        ("vmalloc, absent", 'exists "fault(0, u)"', "lfence", "allowed"),
        ("vmalloc", 'exists "fault(0, u) and x == 1"', "await p == 1", "allowed"),
    ],
)
def test_a_fault_is_an_outcome_to_every_form_of_search(
    kind: str, question: str, wait: str, found: str
) -> None:
    text = FAULTS.format(kind=kind, question=question, wait=wait)

    assert explore_litmus(text).found == found
    assert [tc.litmus(text, reduce=reduce).found for reduce in (True, False)] == [found, found]


def test_two_questions_in_one_test_and_locals_in_a_condition_are_refused() -> None:
    two = FAULTS.format(
        kind="user of 2", question='exists "x == 1"\n  never "p == 1 and x == 1"', wait="lfence"
    )
    local = FAULTS.format(kind="user of 2", question='exists "0:r == 1"', wait="let r = x")

    with pytest.raises(NotImplementedError, match="two questions in one test: exists and never"):
        explore_litmus(two)
    with pytest.raises(NotImplementedError, match="the condition"):
        explore_litmus(local)


CASES = sorted((Path(__file__).parents[1] / "litmus" / "cases").glob("*.litmus"))


@pytest.mark.parametrize("file", CASES, ids=lambda f: f.stem)
def test_reported_cases_come_out_as_stated_reduced_and_plain(file: Path) -> None:
    reduced, plain = tc.litmus(file), tc.litmus(file, reduce=False)

    assert reduced.stated == reduced.found == plain.found


@pytest.mark.slow
@pytest.mark.parametrize("file", CASES, ids=lambda f: f.stem)
def test_reported_cases_come_out_as_stated_in_the_second_explorer(file: Path) -> None:
    stated, text = tc.litmus(file).found, file.read_text(encoding="utf-8")

    found = explore_litmus(text)
    if found.found != stated:  # the checker looks for the stated rule by itself
        found = explore_litmus(text, every=True)
    assert found.found == stated or stated.removeprefix("violated: ") in found.rules
