"""The policy table states verdicts; the slow explorer, which shares only the ops, finds the same."""

from __future__ import annotations

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore

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


def test_a_search_that_grows_too_large_says_nothing() -> None:
    assert explore("ipi", limit=100).status == "inconclusive"
