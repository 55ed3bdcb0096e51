"""Worlds, access classes, grades, and runs under the assumption core alone (issue 14)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.checker.table import FLUSH_SCOPES

# Flushes late, and touches recycled memory before it does: what `ct-late` must never do.
RECYCLED = """policy late-and-touching
  "ct-late with an access to recycled memory before its flush."
  based on ct-late

ct_enter
  touch recycled
  let state = or ct_state, 1
  if state & 2
    flush_all_here
"""

# Nobody is flushed: no store buffer, no speculation and no hypothesis is needed to break it.
NO_FLUSH = """policy no-flush
  "Tells nobody and flushes nothing."

flush_kernel_range
  lfence
"""

# Defers the flush of a rights change to the late flush of ct-late.
RIGHTS_DEFERRED = """policy rights-deferred
  "ct-late that defers changes of rights too."
  based on ct-late

flush_kernel_now
  flush_kernel_range
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlbcore", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", list(tc.policies))
def test_every_sentence_names_its_world_and_every_policy_is_asked_about_where_it_runs(name: str) -> None:
    verdict = tc.check(name, entries=1)

    worlds = list(dict.fromkeys(case.world for case in verdict.cases))
    if "pti" in tc.policies[name].needs:
        assert worlds == ["pti"]
    else:
        assert any(world.startswith("nopti") for world in worlds)
    for case in (verdict, *verdict.cases):
        assert f"world {case.world} of Linux 6.12" in case.sentence
        assert case.inert == ()


def test_the_headline_is_the_worst_of_the_worlds() -> None:
    """Here the flush is forgotten where the kernel runs without PTI."""
    policy = tc.Policy(
        text="""policy forgets
  "Flushes under PTI only."

flush_kernel_range
  if feature pti
    flush_kernel_now
"""
    )

    verdict = tc.check(policy)

    assert {case.world: case.status for case in verdict.cases} == {"pti": "verified", "nopti": "violated"}
    assert (verdict.status, verdict.world) == ("violated", "nopti")
    assert tc.check(policy, world="pti").status == "verified"
    assert tc.check(policy, world="nopti").status == "violated"
    assert "The same holds in world nopti." in tc.check("pending-bit").sentence


@pytest.mark.parametrize("name", [n for n, p in tc.policies.items() if "pti" in p.needs])
def test_a_policy_that_needs_pti_is_inert_without_it_and_mainline_is_what_is_checked(name: str) -> None:
    inert, mainline = tc.check(name, world="nopti"), tc.check("ipi", world="nopti")

    assert (inert.policy, inert.inert, inert.world) == (name, ("pti",), "nopti")
    (same,) = [case for case in mainline.cases if case.asked == inert.asked]
    assert (inert.status, inert.states) == (same.status, same.states)
    assert f"{name} is inert there: it needs pti, and what runs is mainline." in inert.sentence
    assert str(inert).splitlines()[0].endswith("inert in world nopti")
    with pytest.raises(tc.CheckError, match="is inert in world nopti: it needs pti"):
        tc.necessary(name, world="nopti")


@pytest.mark.parametrize("name", list(tc.policies))
def test_a_world_without_pcid_is_covered_by_the_one_with_it(name: str) -> None:
    """Why no verdict asks about it by itself: a write of CR3 drops what may be evicted at any time anyway."""
    policy = tc.policies[name]
    for world in _core.check_worlds(policy.text, policy.file):
        for nmis in (0, 1):
            with_pcid = tc.check(name, world=world, entries=1, nmis=nmis)
            without = tc.check(name, world=f"{world}+nopcid", entries=1, nmis=nmis)
            if with_pcid.status == "verified":
                assert without.status == "verified", (world, nmis)


def test_no_access_to_recycled_memory_is_lost_on_the_way_to_another_machine() -> None:
    """The timed machine and Promela take `touch recycled` for the access that it is."""
    policy = tc.Policy(text=RECYCLED)

    run_ = tc.simulate(tc.scenarios.module_load(duration_s=5.0), machine="skylake-sp", policy=policy, seed=1)
    safe = tc.simulate(
        tc.scenarios.module_load(duration_s=5.0), machine="skylake-sp", policy="ct-late", seed=1
    )
    assert run_.total("hazards") > 0 == safe.total("hazards")
    assert policy.promela().count("ACC(me)") > tc.policies["ct-late"].promela().count("ACC(me)")


@pytest.mark.parametrize(
    ("world", "said"),
    [
        ("ptj", "world `ptj`: `ptj` is no feature; did you mean `pti`?"),
        ("pti+invlpgb", "Linux does not use INVLPGB under PTI"),
        ("pti+nopti", "it has a feature and has it not"),
        ("pti@5.4", "there are no programs of Linux 5.4; these are: 6.12"),
    ],
)
def test_a_wrong_world_is_one_line_and_status_2(world: str, said: str) -> None:
    done = run("check", "ipi", "--world", world)

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr
    with pytest.raises(tc.CheckError):
        tc.check("ipi", world=world)


def test_a_text_that_writes_the_user_cr3_without_a_word_on_pti_is_refused_where_there_is_none() -> None:
    policy = tc.Policy(text='policy p\n  "p"\n\nto_user\n  mov cr3, user owed\n')

    assert {case.world for case in tc.check(policy).cases} == {"pti"}
    with pytest.raises(tc.CheckError, match="p writes the user CR3, and without PTI there is none"):
        tc.check(policy, world="nopti")


def test_mainline_is_asked_about_frees_of_page_tables_with_an_asid_that_is_not_loaded() -> None:
    """Issue 14, the bug posted on 2025-05-28: without PTI, INVLPG leaves upper entries of the PCIDs not loaded.

    20250528-x86-fix-vmap-pt-del-flush-v1-1-e250899ed160@google.com. What the litmus test of that world finds, the
    question that `check` asks of mainline finds.
    """
    bug = tc.litmus(
        """litmus nopti-table-free
  "Mainline's pmd_free_pte_page without PTI: INVLPG on every CPU."
  based on ipi
  page k : vmalloc, global
  cpus "table_free; isolated 2"
  asids "2"
  assume "range=pages"
  features "pcid invpcid housekeeping_overridden context_tracking"
"""
    )

    nopti, pti = tc.check("ipi", world="nopti"), tc.check("ipi", world="pti")

    asked = [case.assume.get("range") for case in nopti.cases if "page tables" in case.asked]
    assert asked == ["pages", "full"]
    assert nopti.status == bug.found.partition(":")[0]
    assert pti.status == "verified", "there invalidate_other flushes the other ASIDs"
    inert = tc.check("coalesce-v7-fixed", world="nopti")
    assert "page tables" not in inert.asked, "which does not replace frees of page tables"


def test_two_names_of_one_world_are_one_world() -> None:
    named = [tc.check("pending-bit", world=w).to_dict() for w in ("nopcid", "pti+nopcid", "nopcid@6.12")]

    assert named[0] == named[1] == named[2]
    assert named[0]["world"] == "pti+nopcid"


def test_an_access_to_recycled_memory_that_stands_in_the_text_is_a_known_one() -> None:
    verdict = tc.check(tc.Policy(text=RECYCLED))

    assert (verdict.status, verdict.assume["D"]) == ("violated", "none")
    assert verdict.grade == "an access in the window is known"
    assert verdict.counterexample is not None
    assert verdict.counterexample.steps[-1].what == "touch recycled"
    assert verdict.counterexample.replay() == verdict.counterexample.rule
    assert tc.check("ct-late").status == "verified", "without it"


def test_the_accesses_of_the_entry_paths_to_the_direct_map_are_known_ones() -> None:
    policy = tc.Policy(text=RIGHTS_DEFERRED)

    deferred = tc.check(policy, roles="set_memory; isolated 1")
    late = tc.check("ct-late", roles="set_memory; isolated 1")

    assert (deferred.status, deferred.grade) == ("violated", "an access in the window is known")
    assert deferred.counterexample is not None
    assert deferred.counterexample.steps[-1].what == "touch directmap"
    assert late.status == "verified", "which flushes those at once"


@pytest.mark.parametrize("region", ["direct map", "image", "per cpu"])
def test_a_purge_never_unmaps_what_is_always_mapped(region: str) -> None:
    text = f'policy p\n  "p"\n  based on ipi\n  page slab : {region}\n'

    verdict = tc.check(tc.Policy(text=text), world="pti", entries=1)

    assert verdict.status == "verified"
    assert "2 pages" in verdict.sentence, "what is purged is tracked beside it"
    assert verdict.witnesses["a flush was completed"]
    broken = tc.check(tc.Policy(text=text + "\nflush_kernel_range\n  lfence\n"), world="pti", entries=1)
    assert broken.counterexample is not None
    changed = [change for step in broken.counterexample.steps for change in step.changes]
    assert any(change.startswith("pte va") for change in changed)
    assert not any("slab: none" in change for change in changed)


def test_per_cpu_data_is_accessed_on_both_sides_of_the_body_so_a_forgotten_swapgs_is_met() -> None:
    """Issue 14: `wrong_gs_access` was never exercised by the entry and exit paths."""
    kernel = dict(_core.policy_kernel())["linux.kernel"]
    body = kernel[kernel.index("\nsyscall @") + 1 : kernel.index("\nsyscall_compat @")]
    forgotten = body.replace("  swapgs\n", "", 1)
    policy = tc.Policy(text=f'policy no-swapgs\n  "The entry forgets SWAPGS."\n\n{forgotten}')

    for when in ({"gs": "faults"}, {"gs": "faults", "N": "none"}):
        verdict = tc.check(policy, assume=when)
        assert verdict.counterexample is not None
        assert verdict.counterexample.rule == "wrong_gs_access"
        assert verdict.counterexample.steps[-1].what == "touch percpu"


def test_a_violation_that_needs_the_interleaving_alone_is_shown_without_store_buffers_and_speculation() -> (
    None
):
    verdict = tc.check(tc.Policy(text=NO_FLUSH), nmis=1)

    assert verdict.core == ()
    assert "nothing beyond the interleaving" in str(verdict)
    shown = verdict.counterexample
    assert shown is not None
    assert (shown.assume["stores"], shown.assume["fills"]) == ("sc", "demand")
    assert not any("buffer" in change for step in shown.steps for change in step.changes)
    assert not any(step.what in ("(store visible)", "(NMI)") for step in shown.steps)
    assert shown.replay() == shown.rule


@pytest.mark.parametrize("name", ["coalesce-v7", "coalesce-v6", "pending-bit-plain", "flush-on-exit"])
def test_the_run_that_is_printed_is_one_under_the_core(name: str) -> None:
    verdict = tc.check(name)

    shown = verdict.counterexample
    assert shown is not None
    assert ("store buffers" in verdict.core) == (shown.assume.get("stores", "buffered") == "buffered")
    assert ("fills at any time" in verdict.core) == (
        shown.assume.get("fills", "speculative") == "speculative"
    )
    again = tc.check(name, world=verdict.world, assume=dict(shown.assume))
    assert again.counterexample is not None
    assert again.counterexample.schedule == shown.schedule
    printed = run("check", name)
    assert shown.text.rstrip() in printed.stdout
    as_json = json.loads(run("check", name, "--json").stdout)
    assert as_json["counterexample"] == shown.to_dict()
    assert (as_json["grade"], as_json["core"]) == (verdict.grade, list(verdict.core))


def test_a_walk_is_speculative_where_no_access_is_next() -> None:
    """A5: where fills on demand do, the walk is one for an access. A lazy CPU touches no user page, and may walk."""
    policy = tc.Policy(
        text="""policy table-free-unflushed
  "Frees page tables without telling anyone."

flush_kernel_now
  lfence
"""
    )

    verdict = tc.check(policy, roles="table_free; isolated 1", assume={"D": "none"})

    shown = verdict.counterexample
    assert shown is not None
    assert shown.rule == "freed_table_walk"
    assert shown.assume["fills"] == "demand"
    assert shown.steps[-1].what == "(walk caches va)"
    assert (verdict.core, verdict.grade) == ((), "an access in the window is known")
    acked = tc.check("early-ack-tables", world="pti")
    assert acked.core == ("fills at any time",)
    assert acked.grade == "a speculative walk suffices"


def test_places_are_files_and_functions_of_the_kernel_with_its_version() -> None:
    verdict = tc.check("coalesce-v7")

    shown = verdict.counterexample
    assert shown is not None
    assert shown.kernel == "Linux 6.12"
    assert "where (*.kernel: Linux 6.12)" in shown.text
    assert "(arch/x86/entry/common.c do_syscall_x64)" in " ".join(shown.closing.split())
    for file, text in _core.policy_kernel():
        places = [line.partition('@ "')[2] for line in text.splitlines() if '@ "' in line]
        wrong = [p for p in places if not p.startswith(("arch/x86/", "kernel/", "mm/"))]
        assert (file, wrong) == (file, [])


@pytest.mark.parametrize("name", list(tc.policies))
def test_what_more_accesses_imply_is_found_without_them_too(name: str) -> None:
    verdict = tc.check(name, entries=1, nmis=1, confirm=False)

    for case in verdict.cases:
        if case.implied:
            alone = tc.check(
                name, entries=1, nmis=1, confirm=False, world=case.world, assume=dict(case.assume)
            )
            (same,) = [c for c in alone.cases if (c.asked, c.assume) == (case.asked, case.assume)]
            assert not same.implied
            assert same.status == case.status == "verified"


def test_all_accesses_at_once_are_searched_first_and_stand_for_each_where_they_break_nothing() -> None:
    both, late = (tc.check(name, entries=1, nmis=1, world="pti") for name in ("pending-bit", "ct-late"))

    # N=none, N=recycled and D=recycled: one search for all three.
    assert both.hypothesis is not None
    assert late.hypothesis is not None
    assert [case.implied for case in (*both.cases, both.hypothesis)] == [True, True, True]
    assert "D=recycled, N=recycled" in both.sentence
    # Here they break a rule together, so each is looked at: N=recycled alone does not, and stands for N=none.
    assert late.hypothesis.status == "violated"
    assert [(case.assume["N"], case.implied) for case in late.cases if "idle" not in case.asked] == [
        ("none", True),
        ("recycled", False),
    ]


def test_where_an_access_caches_nothing_is_implied_by_more_of_them() -> None:
    found = tc.check("ipi", entries=1, world="pti", assume={"fills": "demand"})

    assert not any(case.implied for case in found.cases)


def test_frees_of_page_tables_have_their_second_asid_with_two_cpus() -> None:
    """A third CPU beside a second ASID is a hundred million states of mainline; each is asked about."""
    cases = tc.check("ipi", world="pti", cpus=3, entries=0, assume={"D": "none"}).cases

    assert cases[0].asked == "purges of vmalloc"
    tables = {(c.asked, c.assume["range"]): c.sentence for c in cases if "page tables" in c.asked}
    for form in ("pages", "full"):
        assert "of 3 CPUs, 1 page, 1 ASID," in " ".join(tables["frees of page tables", form].split())
        small = tables["frees of page tables, 2 CPUs with 2 ASIDs", form]
        assert "of 2 CPUs, 1 page, 2 ASIDs," in " ".join(small.split())


def test_a_verdict_on_a_policy_says_that_top_level_entries_are_no_part_of_the_model() -> None:
    """CVE-2025-39844: a kernel mapping that one table's top level lacks is asked about by a litmus test with `tops`."""
    assert "top-level entries that some mm lacks" in tc.check("ipi", world="pti", entries=0).sentence


def test_the_table_of_verdicts_assumes_of_invpcid_what_a_question_does() -> None:
    asked = tc.check("coalesce-v7-fixed", entries=0)

    assert "INVPCID waits for no store" in asked.sentence
    assert {row[6] for row in FLUSH_SCOPES} == {"unordered", "publishes"}
