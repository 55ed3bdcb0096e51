"""Text patching in the checker: fetched text, three syncs, and the policies that defer them (SEMANTICS S7)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore_litmus

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
        ("text a head = int3", "`a` is no site; a header line `site a` declares one"),
        ("request text a b head", "`text` takes a site and a part, not `a b head`"),
        ("run text a", "the instruction without a name; `if text a is new` runs a site"),
        ("rsp heap", "`rsp` holds `stack` or `scratch`, not `heap`"),
    ],
)
def test_a_bad_text_op_names_its_rule_and_place(line: str, said: str) -> None:
    with pytest.raises(tc.PolicyError, match=rf"litmus:4:3: .*{said}"):
        tc.litmus(f"litmus a\n\ncpu 0\n  {line}\n")


def test_an_assumption_about_text_is_one_of_three() -> None:
    assert dict(_core.check_assumptions())["T"] == ["instr", "danger", "noinstr"]
    with pytest.raises(tc.CheckError, match="no assumption `T=everywhere`"):
        tc.check("text-defer-v7", assume={"T": "everywhere"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  site s\n  site s\n\ncpu 0\n  fence\n", "litmus:3:8: site `s` is declared twice"),
        ("  site a\n  site b\n  site c\n\ncpu 0\n  fence\n", "litmus:4:8: more than 2 sites"),
        ("  site 1\n\ncpu 0\n  fence\n", "litmus:2:8: expected the name of a patched instruction, found `1`"),
        ("\ncpu 0\n  while text is new\n    fence\n", "litmus:4:9: `text is new` stands in `if` alone"),
        ("\ncpu 0\n  if text s is new\n    fence\n", "litmus:4:6: `s` is no site"),
        ("\ncpu 0\n  if text is old\n    fence\n", "or `text is new`, found `is old`"),
        (
            "  site s\n\ncpu 0\n  if text s is new\n    promise text s head\n",
            "`promise text s head` promises nothing: no `request text s head` comes before it",
        ),
        (
            "  page a : vmalloc\n  page b : vmalloc\n  page c : vmalloc\n  site s\n  site t\n\ncpu 0\n"
            "  if text s is new\n    fence\n  if text t is new\n    fence\n  if text is new\n    fence\n",
            "head and tail of each patched instruction among them is 2 to 7: got 9",
        ),
    ],
)
def test_a_site_that_cannot_be_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises((tc.PolicyError, tc.CheckError), match=re.escape(said)):
        tc.litmus(f"litmus a\n{text}")


POKE = """
poke
  text head = int3
  serialize
  ipi others, sync
  await acks
  text tail = new
  serialize
  ipi others, sync
  await acks
  text head = new
  serialize
  ipi others, sync
  await acks

sync
  serialize
"""


def ends(columns: str, header: str = "") -> list[dict[str, int]]:
    """The ends of a litmus test whose column 0 pokes the instruction, and what the others have in `x`."""
    text = f'litmus a\n  based on ipi\n  locations "x"\n  var x : 2 bits, shared, starts 0\n{header}\ncpu 0\n  poke\n'
    return [dict(end) for end in tc.litmus(text + columns + POKE, ends=True).ends]


def test_a_patched_instruction_decides_a_branch() -> None:
    column = "\ncpu 1\n  if text is new\n    x = 2\n  else\n    x = 1\n"
    assert sorted(end["x"] for end in ends(column)) == [1, 2]


def test_an_int3_goes_on_as_the_new_instruction_behind_its_handler() -> None:
    """The handler alone stores 3; what stores 1 behind it is the branch of the new instruction."""
    column = "\ncpu 1\n  if text is new\n    let seen = x\n    x = seen\n  else\n    x = 1\n\nbreakpoint\n  x = 3\n"
    assert sorted(end["x"] for end in ends(column)) == [0, 1, 3]


def test_an_instruction_that_is_poked_again_is_turned_over() -> None:
    poke = "".join(
        f"  text s {part} = {value}\n" for part, value in (("head", "int3"), ("tail", "new"), ("head", "new"))
    )
    header = 'litmus a\n  site s\n  locations "x"\n  var x : 2 bits, shared, starts 0\n'
    for pokes, end in ((1, 2), (2, 3), (3, 2)):
        column = "\ncpu 1\n  await x == 1\n  serialize\n  if text s is new\n    x = 2\n  else\n    x = 3\n"
        found = tc.litmus(f"{header}\ncpu 0\n{poke * pokes}  x = 1\n{column}", ends=True)
        assert [dict(e)["x"] for e in found.ends] == [end], pokes


def test_the_run_says_what_was_fetched_and_where_the_stack_is_missing() -> None:
    text = 'litmus a\n  verdict "verified"\n  based on ipi\n  cpus "text_poke; isolated 1 by syscall"\n\n'
    found = tc.litmus(text + "to_kernel\n  if text is new\n    lfence\n  mov cr3, kernel noflush\n")
    assert found.found == "violated: unusable_stack"
    assert "if text is new: INT3" in found.text
    assert "takes the INT3 that it runs" in found.text
    assert found.schedule


def test_an_interrupt_finds_no_stack_either() -> None:
    """Interrupts are on where RSP holds none: whoever sends one, or a device, breaks the same rule."""
    text = "litmus a\n  based on ipi\n\ncpu 0\n  ipi others, sync\n  await acks\n\ncpu 1\n{}{}\nsync\n  serialize\n"
    site = "  if text is new\n    lfence\n"
    for first, said in (
        ("  rsp scratch\n", "violated: unusable_stack"),
        ("  cli\n  rsp scratch\n  rsp stack\n  sti\n", "verified"),
    ):
        for reduce in (True, False):
            assert (
                tc.litmus(text.format(first, "  lfence\n  rsp stack\n" + site), reduce=reduce).found == said
            )


def test_what_rsp_holds_is_asked_where_an_instruction_is_run_that_decides() -> None:
    """The site is in a program that nobody runs: neither search follows RSP."""
    text = (
        'litmus a\n  based on ipi\n  cpus "isolated 1 by syscall"\n\ncpu 1\n  ipi others, sync\n  await acks\n\n'
        "syscall\n  mov cr3, kernel noflush\n  rsp scratch\n  sti\n  cli\n  mov cr3, user noflush\n\n"
        "{}\n  mov cr3, kernel noflush\n  if text is new\n    lfence\n  mov cr3, user noflush\n\nsync\n  serialize\n"
    )
    for program, said in (("exception", "verified"), ("interrupt", "violated: unusable_stack")):
        assert tc.litmus(text.format(program)).found == explore_litmus(text.format(program)).found == said


@pytest.mark.parametrize(("cpus", "lane"), [(2, 21), (3, 15), (4, 12), (5, 9)])
def test_lanes_share_what_the_column_of_changes_leaves(cpus: int, lane: int) -> None:
    """72 columns: 4 of numbers, then a lane of each CPU with a space in front, then 24, 20 or 16 of what changed."""
    text = str(tc.check("coalesce-v7", cpus=cpus).counterexample)
    head = text.splitlines()[0]
    starts = [head.index(f"cpu {n}") for n in range(cpus)] + [head.index("changed")]

    assert starts == [4 + n * (lane + 1) for n in range(cpus + 1)]
    assert max(map(len, text.splitlines())) <= 72


def test_mainline_leaves_nobody_out_and_deferral_does() -> None:
    left_out = {
        name: tc.check(name).witnesses["a flush left a CPU out"] for name in ("ipi", "coalesce-v7-fixed")
    }

    assert left_out == {"ipi": False, "coalesce-v7-fixed": True}
