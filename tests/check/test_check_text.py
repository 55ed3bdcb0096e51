"""Text patching in the checker: fetched text, three syncs, and the policies that defer them (SEMANTICS S7)."""

from __future__ import annotations

from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import _core

TEXT = [name for name, policy in tc.policies.items() if policy.defers == ("sync",)]


def test_there_are_both_forms_of_deferred_sync_and_a_repaired_one() -> None:
    assert TEXT == ["text-defer-v7", "text-sync-cr3-reconstructed", "text-sync-tri-state"]
    assert tc.policies["ipi"].defers == ("flush",)


def test_a_policy_that_defers_both_is_asked_about_both(tmp_path: Path) -> None:
    sync = tc.policies["text-sync-cr3-reconstructed"].text
    both = tmp_path / "both.policy"
    both.write_text(
        tc.policies["track-cr3-reconstructed"].text.replace("policy track-cr3-reconstructed", "policy both")
        + "\n"
        + sync[sync.index("text_sync @") :]
    )

    verdict = tc.check(both, assume={"T": "instr"})

    assert tc.Policy(text=both.read_text()).defers == ("flush", "sync")
    assert [("T" in case.assume, case.status) for case in verdict.cases] == [
        (False, "verified"),
        (True, "verified"),
    ]
    assert verdict.hypothesis is not None
    assert verdict.hypothesis.assume["D"] == "recycled"


def test_the_two_forms_differ_in_the_code_that_must_never_be_patched() -> None:
    verdicts = {
        name: {case.assume["T"]: case.status for case in tc.check(name).cases}
        for name in ("text-defer-v7", "text-sync-cr3-reconstructed")
    }

    assert verdicts == {
        "text-defer-v7": {"instr": "verified", "danger": "violated", "noinstr": "violated"},
        "text-sync-cr3-reconstructed": {"instr": "verified", "danger": "verified", "noinstr": "violated"},
    }


def test_patched_code_in_the_danger_zone_is_a_window_and_prints_what_was_fetched() -> None:
    verdict = tc.check("text-defer-v7", assume={"T": "danger"})

    assert verdict.grade == "window exists"
    assert verdict.core == ("code in .noinstr.text is patched",)
    assert verdict.counterexample is not None
    assert verdict.counterexample.rule == "stale_text"
    assert "fetched1: head:i1" in str(verdict.counterexample)
    assert "ct_kernel_exit_state" in str(verdict.counterexample)
    assert verdict.counterexample.replay() == "stale_text"
    assert max(len(line) for line in str(verdict.counterexample).splitlines()) <= 72


def test_every_verified_text_policy_deferred_a_sync_and_left_dead_text_behind() -> None:
    for name in TEXT:
        seen = tc.check(name, assume={"T": "instr"}).witnesses
        assert seen["a flush left a CPU out"], name
        assert seen["a CPU had fetched text that a sync made dead"] == (name != "ipi"), name
        assert "a CPU held a dead translation" not in seen, name


def test_an_nmi_in_the_exit_window_breaks_the_cr3_form_and_not_the_tri_state() -> None:
    broken = tc.check("text-sync-cr3-reconstructed", nmis=1, assume={"T": "instr"})

    assert broken.status == "violated"
    assert broken.core == ("an NMI",)
    assert tc.check("text-sync-tri-state", nmis=1, assume={"T": "instr"}).status == "verified"


def test_no_flush_question_pays_for_text() -> None:
    flush = tc.check("coalesce-v7-fixed")
    text = tc.check("text-defer-v7", assume={"T": "instr"})

    assert flush.bits_shared < text.bits_shared
    assert max(text.bits_per_cpu) <= 64
    assert text.bits_shared <= 64


def test_each_sync_each_write_and_the_catch_up_are_needed() -> None:
    rows = tc.necessary("text-defer-v7", entries=1, assume={"T": "instr"})
    needs = [(n.section, n.what) for n in rows if n.needed]

    assert ("ct_enter", "no `serialize`") in needs
    assert ("sync_handler", "no `serialize`") in needs
    assert ("text_sync", "no `await acks`") in needs
    assert ("text_poke", "no `text head = int3`") in needs
    assert sum(need == ("text_poke", "no `text_sync`") for need in needs) == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("text head = nop", "text becomes int3 or new, not `nop`"),
        ("text tail = int3", "only the head of an instruction becomes int3"),
        ("text middle = new", "a `head` and a `tail`, no `middle`"),
        ("request text all", "a `head` and a `tail`, no `all`"),
    ],
)
def test_a_bad_text_op_names_its_rule_and_place(line: str, said: str) -> None:
    with pytest.raises(tc.PolicyError, match=rf"litmus:4:3: .*{said}"):
        tc.litmus(f"litmus a\n\ncpu 0\n  {line}\n")


def test_an_assumption_about_text_is_one_of_three() -> None:
    assert dict(_core.check_assumptions())["T"] == ["instr", "danger", "noinstr"]
    with pytest.raises(tc.CheckError, match="no assumption `T=everywhere`"):
        tc.check("text-defer-v7", assume={"T": "everywhere"})
