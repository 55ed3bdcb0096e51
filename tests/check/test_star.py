"""One CPU of a kind stands for others: held against searches of three CPUs in which nothing is reduced."""

from __future__ import annotations

import pytest

import tlbcore as tc


@pytest.mark.parametrize("danger", ["none", "recycled"])
@pytest.mark.parametrize("name", [n for n, policy in tc.policies.items() if policy.defers == ("flush",)])
def test_a_policy_has_the_verdict_of_a_search_that_reduces_nothing(name: str, danger: str) -> None:
    worlds = {"invlpgb": "nopti+invlpgb", "invlpgb-from-4-cpus": "nopti+invlpgb", "rar": "nopti+rar"}
    world = worlds.get(name, "pti")
    roles = "purge; isolated 1 by syscall; isolated 1 by syscall"
    few = tc.check(name, roles=roles, assume={"D": danger}, world=world, confirm=False)
    every = tc.check(name, roles=roles, assume={"D": danger}, world=world, reduce=False)
    assert few.status == every.status != "inconclusive"
    assert few.any_number == (few.status == "verified" and name != "quarantine")
    if few.any_number:
        assert few.states * 100 < every.states
    if few.counterexample is not None:
        assert every.counterexample is not None
        assert few.counterexample.rule == every.counterexample.rule
        assert few.counterexample.replay() == few.counterexample.rule
