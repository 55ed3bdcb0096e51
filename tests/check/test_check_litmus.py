"""Every litmus test has the verdict its file states, with and without reductions."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore, explore_litmus

FOLDER = Path(__file__).parents[1] / "litmus"
FILES = sorted(FOLDER.rglob("*.litmus"))
# The plain search of these takes longer than a test should.
LARGE = {
    "two-initiators", "v8-nmi-restores-zero", "tri-state-nmi", "hull-covers-only-what-it-saw", "n2",
    "text-poke-three-syncs", "v7-text-noinstr-excluded", "v8-text-nmi-after-flag-cleared",
}  # fmt: skip


def names(folder: str) -> set[str]:
    return {file.stem for file in (FOLDER / folder).glob("*.litmus")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_verdict_is_the_one_stated(file: Path) -> None:
    result = tc.litmus(file)

    assert (result.found, result.states) == (result.stated, result.stated_states or result.states)
    assert result.ok
    assert result.name == file.stem
    assert result.source, "a litmus test names its source"


@pytest.mark.parametrize("file", [f for f in FILES if f.stem not in LARGE], ids=lambda file: file.stem)
def test_reductions_do_not_change_the_verdict(file: Path) -> None:
    assert tc.litmus(file, reduce=False).found == tc.litmus(file).found


def test_at_least_sixteen_historical_bugs_stand_as_pairs() -> None:
    bugs = {name for name in names("history") if not name.endswith("-fixed")}

    assert {f"{name}-fixed" for name in bugs} | bugs == names("history")
    assert len(bugs) >= 16
    for name in bugs:
        assert tc.litmus(FOLDER / "history" / f"{name}.litmus").stated.startswith("violated"), name
        assert tc.litmus(FOLDER / "history" / f"{name}-fixed.litmus").stated == "verified", name


def test_the_x86_transistency_verdicts_match_the_published_ones_but_for_mrf1() -> None:
    published_forbidden = {
        "ipi4", "ipi8", "mp", "mrf1", "n5", "n5_synonym", "ptwalk2", "sb_synonym",
    }  # fmt: skip
    ours = {name: tc.litmus(FOLDER / "x86t_elt" / f"{name}.litmus").found for name in names("x86t_elt")}

    assert len(ours) == 31
    differing = {
        name for name, found in ours.items() if (found == "forbidden") != (name in published_forbidden)
    }
    assert differing == {"mrf1"}, "there is no PTE store without its INVLPG in the published model"


def test_every_rule_of_the_machine_is_broken_by_some_test() -> None:
    broken = {
        tc.litmus(file).stated.removeprefix("violated: ")
        for file in FILES
        if 'verdict "violated' in file.read_text()
    }

    assert broken == {
        "stale_access (reused)", "stale_access (not_reused)", "freed_table_walk", "freed_table_read", "stale_line",
        "stale_text", "unmapped_access", "wrong_gs_access", "unusable_stack", "wrong_address_space", "freed_mm",
        "deadlock", "livelock",
    }  # fmt: skip


def test_bless_writes_the_verdict_found(tmp_path: Path) -> None:
    file = tmp_path / "sb.litmus"
    text = (FOLDER / "tso" / "sb.litmus").read_text().replace('verdict "allowed"', 'verdict "forbidden"')
    file.write_text(text)

    wrong = subprocess.run(
        [sys.executable, "-m", "tlbcore", "litmus", str(file)], capture_output=True, text=True
    )
    blessed = subprocess.run(
        [sys.executable, "-m", "tlbcore", "litmus", str(tmp_path), "--bless"], capture_output=True, text=True
    )

    assert (wrong.returncode, blessed.returncode) == (1, 0)
    assert "MISMATCH" in wrong.stdout
    assert 'verdict "allowed"' in file.read_text()


def test_exact_numbers_of_states_are_few_and_stand_beside_their_verdicts() -> None:
    stated = {file.stem: tc.litmus(file) for file in (FOLDER / "counts").glob("*.litmus")}

    assert 8 <= len(stated) <= 12
    assert {result.found for result in stated.values()} == {"verified"}
    assert all(result.stated_states for result in stated.values())
    others = [f for f in FILES if f.parent.name != "counts" and '\n  states "' in f.read_text()]
    assert others == [], "all of them in one folder"
    assert (
        stated["count-fix-sc"].states < stated["count-fix-2-cpus"].states < stated["count-fix-2-asids"].states
    )


def test_bless_refreshes_a_stated_number_of_states(tmp_path: Path) -> None:
    file = tmp_path / "count.litmus"
    text = (FOLDER / "counts" / "count-fix-2-cpus.litmus").read_text()
    file.write_text(re.sub(r'states "\d+"', 'states "7"', text))

    assert not tc.litmus(file).ok
    assert tc.litmus(file, reduce=False).ok, "the number is that of the reduced search"
    assert tc.litmus(file, bless=True).ok
    assert file.read_text() == text


def test_a_loop_that_nothing_ends_is_a_livelock_and_its_schedule_replays() -> None:
    """Issue 5, bad input: loops that cannot end."""
    forever = tc.Policy(
        text="""policy forever
  "Waits for a value that nobody stores."
  based on ipi
  var go : 2 bits, shared, starts 0

flush_kernel_range
  go = 1
  while go == 1
    lfence
  flush_kernel_now
"""
    )
    for reduce in (True, False):
        verdict = tc.check(forever, assume={"D": "none"}, reduce=reduce)
        assert verdict.counterexample is not None
        assert verdict.counterexample.rule == verdict.counterexample.replay() == "livelock"
        assert "goes round for ever. livelock (S11)" in " ".join(str(verdict.counterexample).split())
        timed = verdict.counterexample.replay_timed()
        assert (timed.rule, timed.why_not is None) == (None, False)
    assert explore(forever, roles="purge; isolated 1 by syscall").violation == "livelock"
    ended = forever.text.replace("flush_kernel_range\n  go = 1", "flush_kernel_range\n  go = 2")
    assert tc.check(tc.Policy(text=ended), assume={"D": "none"}).status == "verified"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("litmus a\n\n", "no CPU does anything"),
        ('litmus a\n  nmis "many"\n\ncpu 0\n  fence\n', "`nmis` is a number, 0 to 7"),
        ('litmus a\n  colour "red"\n\ncpu 0\n  fence\n', "`colour` is no header line"),
        ('litmus a\n  exists "z == 1"\n\ncpu 0\n  fence\n', "`z` is no variable"),
        ('litmus a\n  states "some"\n\ncpu 0\n  fence\n', "`states` takes a number"),
        ("litmus a\n\ncpu 1\n  fence\n", "the next CPU is `cpu 0`: found `cpu 1`"),
        ("litmus a\n\ncpu 0\n  loop\n    fence\n", "cannot end"),
        ("litmus a\n\ncpu 0\n  while 1 == 1\n    fence\n", "cannot end once it is entered"),
        ("litmus a\n\ncpu 0\n  let x = 1\n  while x == 1\n    fence\n", "cannot end once it is entered"),
        ("litmus a\n\ncpu 0\n  fense\n", "did you mean `fence`"),
        ("litmus a\n\ncpu 0\n  free mm 0\n", "0 is init_mm, which stays"),
    ],
)
def test_a_bad_litmus_text_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(tc.PolicyError, match=said):
        tc.litmus(text)


def test_a_value_that_overflows_its_width_is_inconclusive_and_no_wrap() -> None:
    text = "litmus a\n  var n : 1 bit, shared, starts 0\n\ncpu 0\n  add n, 1\n  add n, 1\n"

    assert tc.litmus(text).found == "inconclusive: overflow"


BROKEN_AND_SHOWN = """litmus both
  {}page k : vmalloc, absent
  var x : 2 bits, shared, starts 0
  never "x == {}"

cpu 0
  xchg x, 1
  xchg x, 2
  {}

cpu 1
  {}
"""


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize(
    ("stated", "value", "reads", "expected"),
    [
        # Shown a move before the access, or the access may come first.
        ("", 2, (True, False), "violated: invariant"),
        ("", 2, (True, True), "violated: unmapped_access"),
        ("", 3, (True, False), "violated: unmapped_access"),
        # A stated rule is asked about by itself, an invariant with what it says.
        ('verdict "violated: invariant"\n  ', 2, (True, True), "violated: invariant"),
        ('verdict "violated: unmapped_access"\n  ', 2, (True, False), "violated: unmapped_access"),
        ('verdict "violated: invariant"\n  ', 3, (True, True), "violated: unmapped_access"),
    ],
)
def test_what_no_state_may_show_and_what_a_move_breaks(
    stated: str, value: int, reads: tuple[bool, bool], expected: str, reduce: bool
) -> None:
    text = BROKEN_AND_SHOWN.format(stated, value, *("read k" if read else "lfence" for read in reads))
    assert tc.litmus(text, reduce=reduce).found == expected
    if not stated:
        assert explore_litmus(text).found == expected


@pytest.mark.parametrize("reduce", [True, False])
def test_a_value_that_does_not_fit_hides_nothing_that_another_cpu_can_do_before(reduce: bool) -> None:
    """The op behind the exchange is local and would be carried out with it, and the run would end there."""
    text = """litmus overflow
  page k : vmalloc
  var go : 1 bit, shared, starts 0
  var n : 1 bit, per cpu, starts 0

cpu 0
  pte k = none locked
  request k
  promise k
  pte k = fresh locked
  xchg go, 1
  let r = 2
  n = r

cpu 1
  await go == 1
  read k
"""
    assert tc.litmus(text, reduce=reduce).found == "violated: stale_access (reused)"
    harmless = text.replace("  pte k = fresh locked\n", "").replace("  read k\n", "  lfence\n")
    assert tc.litmus(harmless, reduce=reduce).found == "inconclusive: overflow"
