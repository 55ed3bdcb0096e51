"""The checker from Python and from the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages.verdicts import litmus_markdown, verdicts_markdown, worlds_markdown

import tlbcore as tc
from tlbcore import _core, op
from tlbcore._output.worlds import heading
from tlbcore.checker import Cell, Row
from tlbcore.checker.worlds import WORLDS, cell_of
from tlbcore.cli import main

ROOT = Path(__file__).parents[2]
SOURCES = {f"{name}.policy": _core.policy_text(name) for name in tc.policies} | dict(_core.policy_kernel())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlbcore", *arguments], capture_output=True, text=True, check=False
    )


def test_the_v7_race_is_found_and_its_schedule_replays() -> None:
    verdict = tc.check("coalesce-v7")

    assert verdict.status == "violated"
    assert verdict.counterexample is not None
    assert verdict.counterexample.rule == "stale_access (reused)"
    assert verdict.counterexample.replay() == verdict.counterexample.rule
    flushed = next(s.number for s in verdict.counterexample.steps if s.what.startswith("invpcid"))
    filled = next(s.number for s in verdict.counterexample.steps if s.what == "(walk caches va)")
    assert flushed < filled, "the stale translation is cached after the flush"


@pytest.mark.parametrize("policy", ["coalesce-v7", "coalesce-v6", "pending-bit-plain", "noinstr-c"])
def test_a_counterexample_breaks_the_same_rule_in_the_timed_engine(policy: str) -> None:
    counterexample = tc.check(policy, nmis=1, assume={"N": "recycled", "D": "recycled"}).counterexample
    assert counterexample is not None

    timed = counterexample.replay_timed()

    assert (timed.rule, timed.why_not) == (counterexample.rule, None)
    assert timed.moves == len(counterexample.steps)
    slower = counterexample.replay_timed(machine="haswell-ep")
    assert 0 < timed.time_ns != slower.time_ns, "the costs are the machine's"


def test_what_the_timed_engine_lacks_is_named_and_the_checker_still_replays() -> None:
    counterexample = tc.check("text-defer-v7").counterexample
    assert counterexample is not None

    assert counterexample.replay() == counterexample.rule == "stale_text"
    timed = counterexample.replay_timed()
    assert timed.rule is None
    assert timed.why_not == "it tracks patched text, and the timed engine fetches none"


def test_a_counterexample_is_at_most_72_columns_wide_and_names_the_patch() -> None:
    text = str(tc.check("coalesce-v7").counterexample)

    assert max(len(line) for line in text.splitlines()) <= 72
    assert "v7 29/31 calling.h" in text


def test_the_fix_is_verified_without_nmi_and_not_vacuously() -> None:
    verdict = tc.check("coalesce-v7-fixed")

    assert verdict.status == "verified"
    assert all(verdict.witnesses.values()), verdict.witnesses
    assert [case.status for case in verdict.cases] == ["verified"]
    assert verdict.hypothesis is not None
    assert (verdict.hypothesis.assume["D"], verdict.hypothesis.status) == ("recycled", "verified")


def test_the_fix_fails_without_the_fence_of_the_entry() -> None:
    unfenced = tc.policies["coalesce-v7-fixed"].replace(
        name="unfenced", coalesce=[op.store("kernel_cr3_loaded", 1), op.invpcid(2)]
    )

    assert tc.check(unfenced).status == "violated"
    assert tc.check(unfenced, assume={"invpcid": "publishes"}).status == "verified"
    assert tc.check(unfenced, assume={"stores": "sc"}).status == "verified"


def test_the_late_flush_is_safe_in_this_kernel_and_not_if_a_future_one_touched_recycled_memory() -> None:
    """Issue 14: no entry path of six kernels has such an access, so it is a hypothesis and not the headline."""
    verdict = tc.check("ct-late")

    assert {(c.world, c.assume["D"], c.status) for c in verdict.cases} == {
        ("pti", "none", "verified"),
        ("nopti", "none", "verified"),
    }
    assert (verdict.status, verdict.grade) == ("verified", None)
    assert verdict.hypothesis is not None
    assert (verdict.hypothesis.status, verdict.hypothesis.grade) == ("violated", "window exists")
    assert "future change touched recycled memory" in str(verdict)
    asked = tc.check("ct-late", assume={"D": "recycled"})
    assert (asked.status, asked.grade, asked.hypothesis) == ("violated", "window exists", None)


def test_an_nmi_breaks_the_fix_and_meets_the_users_gsbase() -> None:
    verdict = tc.check("coalesce-v7-fixed", nmis=1)

    assert verdict.status == "violated"
    assert verdict.assume["N"] == "recycled" or verdict.assume["D"] == "recycled"
    assert verdict.wrong_gs is not None
    strict = tc.check("coalesce-v7-fixed", nmis=1, assume={"gs": "faults", "D": "none", "N": "none"})
    assert strict.counterexample is not None
    assert strict.counterexample.rule == "wrong_gs_access"


def test_fusing_does_not_change_a_verdict() -> None:
    for policy in tc.policies:
        fused, plain = tc.check(policy), tc.check(policy, reduce=False)
        assert [c.status for c in fused.cases] == [c.status for c in plain.cases], policy


def test_a_verdict_is_no_truth_value() -> None:
    with pytest.raises(TypeError, match=r"compare \.status"):
        bool(tc.check("ipi"))


def remembering(name: str) -> tc.Policy:
    """Return a policy whose sender remembers over its loop that it met a CPU, so that none stands for another."""
    return tc.Policy(
        text=f'policy remembering-{name}\n  "Its purge remembers."\n  source "a test"\n  based on {name}\n\npurge\n'
        "  pte range = none locked\n  request range\n  let met = 0\n  each cpu in nohz_full\n    let met = 1\n"
        "  if met == 1\n    flush_kernel_range\n  promise range\n  pte range = fresh\n"
    )


def test_a_memory_limit_makes_the_verdict_inconclusive() -> None:
    verdict = tc.check(
        remembering("ipi"), world="pti", cpus=3, nmis=1, memory=1 << 20, assume={"D": "none", "N": "none"}
    )

    assert verdict.status == "inconclusive"
    assert "memory limit" in verdict.sentence
    assert "Estimate: 2 CPUs have " in verdict.sentence


@pytest.mark.parametrize(
    ("policy", "status"), [("pending-bit", 0), ("coalesce-v7-fixed", 0), ("ct-late", 0), ("coalesce-v7", 1)]
)
def test_the_exit_status_is_the_verdict(policy: str, status: int) -> None:
    assert run("check", policy).returncode == status


def test_a_pass_with_one_of_a_kind_is_one_with_any_number_and_says_so() -> None:
    few = tc.check("pending-bit", nmis=1, assume={"D": "none", "N": "none"})
    many = tc.check("pending-bit", cpus=5, nmis=1, assume={"D": "none", "N": "none"})
    assert few.any_number
    assert many.any_number
    assert many.states == few.states
    assert "of 5 CPUs" in many.sentence
    assert "states of 2 CPUs, where one isolated CPU stands for any number of its kind" in many.sentence
    alone = tc.check(remembering("pending-bit"), assume={"D": "none"})
    assert alone.status == "verified"
    assert not alone.any_number
    assert "stands for" not in alone.sentence
    assert not tc.check("coalesce-v7").any_number, "a violation needs no such claim"


def test_a_violation_with_one_of_a_kind_is_a_run_of_all_cpus() -> None:
    verdict = tc.check("coalesce-v7", cpus=4, assume={"D": "none"})
    assert verdict.status == "violated"
    assert verdict.counterexample is not None
    assert verdict.counterexample.replay() == verdict.counterexample.rule
    assert "within 4 CPUs" in verdict.sentence


def test_the_exit_status_of_an_inconclusive_check_is_3() -> None:
    assert (
        run("check", "ipi", "--world", "pti", "--cpus", "3", "--nmis", "1", "--memory", "1M").returncode == 3
    )


def test_json_has_a_schema_and_the_counterexample() -> None:
    shown = json.loads(run("check", "coalesce-v7", "--json").stdout)

    assert (shown["schema"], shown["version"]) == ("tlbcore.check", 1)
    assert shown["counterexample"]["schedule"].startswith("1.step")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "coalesce-v77"], "did you mean `coalesce-v7`"),
        (["check", "ipi", "--cpus", "9"], "cpus must be an integer from 2 to 5: got 9"),
        (["check", "ipi", "--cpus", "2.5"], "'--cpus': Input should be a valid integer"),
        (["check", "ipi", "--cpus", "2.5"], "got '2.5'"),
        (
            ["check", "ipi", "--entries", "1e3"],
            "entries must be an integer from 0 to 15 or unbounded: got '1e3'",
        ),
        (["check", "tests"], "no policy is called `tests`"),
        (["check", "tests/"], "is a directory"),
        (["litmus", "README.md"], "README.md:3:82: `?` means nothing here"),
        (["check", "ipi", "--assume", "D"], "NAME=VALUE"),
        (["check", "ipi", "--assume", "D=maybe"], "no assumption `D=maybe`"),
        (["check", "ipi", "--assume", "D=none", "--assume", "D=recycled"], "`D` is assumed to be"),
        (["check", "ipi", "--memory", "lots"], "memory is a number"),
        (["check", "/nowhere/x.policy"], "no such file"),
        (["check", "--all", "ipi"], "--all checks every policy"),
        (["check", "ipi", "--roles", "purge; isolated 99"], "is 0 to 15: got 99"),
        (["check", "ipi", "--roles", "purge; isolated 2", "--cpus", "4"], "leave --cpus out"),
        (["repair", "ipi", "--roles", "purge; isolated 2", "--entries", "3"], "leave --entries out"),
        (["check", "--all", "--cpus", "3"], "--all has its own bounds: leave --cpus out"),
        (["check", "ipi", "--necessary", "--no-reduce", "--threads", "2"], "--no-reduce and --threads out"),
        (["check", "text-defer-v7", "--pages", "2"], "pages=2 is about flushes"),
        (["check", "text-defer-v7", "--assume", "D=recycled"], "D=recycled is about flushes"),
        (["check", "ipi", "--assume", "T=danger"], "T=danger is about patched text"),
        (["check", "ipi", "--assume", "N=recycled"], "give nmis or mces as well"),
        (["litmus", "tests/litmus/counts", "--bless", "--no-reduce"], "leave --no-reduce out"),
        (["repair", "ipi", "--world", "pti"], "there is nothing to repair"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: list[str], said: str) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_syntax_error_in_a_policy_file_names_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "bad.policy"
    file.write_text("policy bad\n\nto_kernel\n  mov cr9, kernel\n")

    done = run("check", str(file))

    assert done.returncode == 2
    assert "bad.policy:4:7:" in done.stderr


@pytest.fixture(scope="module")
def rows() -> tuple[Row, ...]:
    return tc.verdict_table()


def by_world() -> str:
    """The part of the page with the table of worlds, as it stands there."""
    page = (ROOT / "docs" / "verdicts.md").read_text()
    _, head, rest = page.partition("## Policies by worlds and versions")
    part, _, _ = rest.partition("\n## ")
    return head + part


def test_the_pages_of_verdicts_and_litmus_tests_are_what_is_computed(rows: tuple[Row, ...]) -> None:
    assert (ROOT / "docs" / "verdicts.md").read_text() == verdicts_markdown(rows, by_world()), (
        "run pages.verdicts"
    )
    assert (ROOT / "docs" / "litmus.md").read_text() == litmus_markdown(ROOT / "tests" / "litmus")


@pytest.mark.slow
def test_the_table_of_worlds_is_what_is_computed() -> None:
    assert by_world() == worlds_markdown(tc.world_table())


@pytest.mark.parametrize(
    ("policy", "world", "linux", "word"),
    [
        ("ipi", "pti", "6.12", "ok"),
        ("ipi", "nopti", "6.12", "bad"),
        ("ipi", "nopti+invlpgb", "6.12", "bad"),
        ("ipi", "nopti+invlpgb", "7.3", "ok"),
        ("coalesce-v7", "nopti+fred", "7.3", "-"),
        ("coalesce-v7-fixed", "pti", "6.12", "nmi*"),
        ("pending-bit-plain", "pti+nopcid", "6.12", "ok"),
        ("pending-bit-plain", "nopti+fred", "6.12", "bad"),
        ("track-cr3-invpcid", "pti", "7.3", "nmi"),
    ],
)
def test_cells_of_the_table_of_worlds_are_in_the_page(policy: str, world: str, linux: str, word: str) -> None:
    table = [line.strip("| ").split(" | ") for line in by_world().splitlines() if line.startswith("|")]
    column = table[0].index(f"{heading(world)} {linux}")
    line = next(line for line in table if line[0] == f"`{policy}`")

    assert cell_of(policy, world, linux).word == word
    assert line[column] == word


def test_the_table_of_worlds_fits_80_columns_and_says_what_is_inert(capsys, monkeypatch) -> None:
    cells = [
        Cell(
            policy=name, world=world, linux=linux, inert="pti" * ("pti" in policy.needs and world != "pti"),
            status="verified", nmi="violated", known="verified", nmi_known="verified",
        )
        for name, policy in tc.policies.items()
        for world in WORLDS.values()
        for linux in ("6.12", "7.3")
    ]  # fmt: skip
    table = tc.WorldTable(rows=tuple(cells))
    monkeypatch.setattr("tlbcore.checker.world_table", lambda **_: table)
    monkeypatch.setattr("tlbcore.checker.verdict_table", lambda **_: [])

    assert main(["check", "--all"]) == 0
    shown = capsys.readouterr().out

    assert max(map(len, shown.splitlines())) <= 80
    assert "coalesce-v7                 nmi* nmi* -    -" in shown
    assert "-    inert: the world lacks what the policy needs" in shown
    assert "0 differ from the policy table" in shown


def test_every_verified_row_names_its_witnesses_and_a_dead_translation_is_no_failure() -> None:
    verdict = tc.check("coalesce-v7-fixed")

    assert (verdict.status, verdict.residency) == ("verified", True)
    assert not tc.check("ipi", world="pti", roles="purge; isolated 2").residency


def test_the_verdict_table_is_the_policy_tables(rows: tuple[Row, ...]) -> None:

    # Policies of user ranges alone have no row: `test_check_questions` has their verdicts.
    of_user_ranges = {
        n for n, p in tc.policies.items() if _core.check_initiators(p.text, p.file) == ["flush_mm"]
    }
    assert "latr" in of_user_ranges
    assert {row.policy for row in rows} == set(tc.policies) - of_user_ranges
    assert [row for row in rows if row.stated not in (None, row.status)] == []
    worlds = {(row.policy, row.world) for row in rows}
    assert ("ipi", "nopti") in worlds
    assert ("coalesce-v7", "nopti") not in worlds, "it is inert there"
    assert sum(row.stated is not None for row in rows) == 3 * len(worlds)
    assert all(row.status != "inconclusive" for row in rows)


def test_both_fences_of_the_fix_are_needed_and_the_senders_is_attributed() -> None:
    needs = {n.what: n for n in tc.necessary("coalesce-v7-fixed")}

    assert needs["no `fence`"].needed
    assert needs["`lfence` instead of `fence`"].needed
    sender = needs["`pte range = none locked` as a plain store"]
    assert sender.needed
    assert "XCHG" in sender.supplied_by


def test_every_need_names_the_file_it_stands_in() -> None:
    needs = tc.necessary("coalesce-v7-fixed")

    files = {n.section: n.place.partition(":")[0] for n in needs}
    assert files["coalesce"] == "coalesce-v7-fixed.policy"
    assert files["to_kernel"] == "coalesce-v7.policy", "the policy it is based on"
    assert files["flush_all_here"] == "linux.kernel"
    for need in needs:
        line = int(need.place.partition(":")[2])
        text = SOURCES[files[need.section]].splitlines()[line - 1]
        assert text.startswith("  "), f"{need.place} is no statement: {text}"


def test_nothing_can_be_shown_needed_of_a_broken_policy() -> None:
    with pytest.raises(tc.CheckError, match="violated to begin with"):
        tc.necessary("coalesce-v7")


def test_repair_rediscovers_flag_before_fence_before_flush() -> None:
    found = tc.repair("coalesce-v7", edits=2)

    assert any(
        "coalesce: move `kernel_cr3_loaded = 1` to the top of its block" in r.edits
        and any("insert `fence` before" in e for e in r.edits)
        for r in found
    )
    for r in found:
        assert tc.check(r.policy).status == "verified"
        assert 400 < r.cost.syscall_extra_ns < 700, "the published entry costs +570 ns (NUMBERS 1)"
        assert r.cost.deferred > 0.9
        assert r.cost.ipis < 0.1


@pytest.mark.parametrize(
    ("scope", "verdict"),
    [
        ({}, "verified (bounded)"),
        ({"entries": "unbounded"}, "verified (any number of entries, the rest bounded)"),
        ({"rounds": "unbounded"}, "verified (any number of flush rounds, the rest bounded)"),
        (
            {"roles": "purge*unbounded; isolated unbounded"},
            "verified (any number of entries and flush rounds, the rest bounded)",
        ),
    ],
)
def test_a_verdict_and_a_repair_say_what_has_no_bound(scope: dict[str, Any], verdict: str) -> None:
    assert tc.check("coalesce-v7-fixed", **scope).sentence.startswith("V" + verdict[1:] + ": no violation")
    args = [word for name, value in scope.items() for word in (f"--{name}", value)]
    assert f"   {verdict}, " in run("repair", "coalesce-v7", *args).stdout  # what `Repair.verdict` says


def test_repair_finds_a_rule_for_nmis() -> None:
    found = tc.repair("coalesce-v7-fixed", edits=1, nmis=1)

    assert any("save" not in e and "put back what was found" in e for r in found for e in r.edits)
    assert all(r.cost.nmi_extra_ns > 100 for r in found), "an NMI from kernel mode flushes now"


def test_the_assumption_core_of_the_v7_race_is_a_fill_or_a_buffered_store() -> None:
    assert tc.check("coalesce-v7", assume={"D": "none"}).core == ("store buffers",)
    without = tc.check("coalesce-v7", assume={"D": "none", "stores": "sc"})
    assert without.core == ("fills at any time",)


def test_two_initiators_and_an_isolated_initiator_can_be_asked_for() -> None:
    assert tc.check("coalesce-v7-fixed", roles="isolated purge; isolated 1").status == "verified"
    with pytest.raises(tc.CheckError, match="is no role"):
        tc.check("ipi", roles="purge * x")


def test_every_entry_path_of_the_kernel_can_be_the_isolated_cpus() -> None:
    for entry in ("syscall_compat", "sysenter_compat", "exception", "exception_espfix", "exception_bad_iret"):
        verdict = tc.check("coalesce-v7", roles=f"purge; isolated 1 by {entry}", assume={"D": "none"})
        assert verdict.status == "violated", entry
    with pytest.raises(tc.CheckError, match="`sysret` is no entry path from user mode; these are: syscall, "):
        tc.check("ipi", roles="purge; isolated 2 by sysret")


@pytest.mark.parametrize("cpus", [2, 3])
def test_a_cpu_of_the_standard_scope_is_one_word(cpus: int) -> None:
    verdict = tc.check("coalesce-v7-fixed", cpus=cpus, assume={"D": "recycled"})

    assert max(*verdict.bits_per_cpu, verdict.bits_shared) <= 64


@pytest.mark.parametrize(("policy", "nmis", "reduce"), [("ipi", 1, True), ("coalesce-v7", 0, False)])
def test_the_number_of_threads_changes_nothing(policy: str, nmis: int, reduce: bool) -> None:
    how = {"roles": "purge; isolated 2 by syscall; isolated 2 by syscall", "nmis": nmis, "reduce": reduce,
           "assume": {"D": "none", "N": "none"}, "world": "pti"}  # fmt: skip
    one, two, eight = (tc.check(remembering(policy), **how, threads=n) for n in (1, 2, 8))  # type: ignore[arg-type]

    assert one.states > 1 << 16, "blocks are cut among threads from there on"
    assert one.to_dict() == two.to_dict() == eight.to_dict()


def test_a_search_that_meets_its_memory_limit_says_how_far_it_came() -> None:
    limited = [
        tc.check(
            remembering("ipi"),
            world="pti",
            cpus=3,
            nmis=1,
            assume={"D": "none", "N": "none"},
            memory=1 << 20,
            threads=n,
        )
        for n in (1, 2)
    ]

    assert {v.status for v in limited} == {"inconclusive"}
    assert limited[0].to_dict() == limited[1].to_dict()
    assert f"at depth {limited[0].depth} with {limited[0].states} states" in limited[0].sentence


SCOPES = [(0, "none", "none"), (0, "recycled", "none"), (1, "none", "recycled")]


def test_a_counter_without_a_bound_is_no_pass() -> None:
    counts = tc.policies["generation-at-entry"].text
    numbers = counts.replace("count, shared", "16 bits, shared").replace("count of flushes", "16 bits")
    asked = {"rounds": "unbounded", "assume": {"D": "none"}, "memory": 1 << 22}
    assert tc.check(tc.Policy(text=numbers), **asked).status == "inconclusive"
    assert tc.check(tc.Policy(text=counts), **asked).status == "verified"


def test_a_grace_period_has_no_end_if_nothing_says_that_an_idle_cpu_goes_idle_again() -> None:
    """S11: a sender must not wait for a round that need not come; of so many rounds the last ends the question."""
    assert tc.check("quarantine-by-grace", roles="purge; isolated idle").status == "verified"
    every = tc.check("quarantine-by-grace", entries="unbounded", rounds="unbounded")
    assert every.counterexample is not None
    assert every.counterexample.rule == "deadlock"


@pytest.mark.parametrize("name", [n for n, p in tc.policies.items() if p.defers == ("flush",)])
def test_any_number_of_entries_and_rounds_has_the_verdict_of_two_entries_and_one_round(name: str) -> None:
    """Versions are renamed (SEMANTICS S1). No policy's verdict is stricter without bound."""
    policy = tc.policies[name]
    world = _core.check_worlds(policy.text, policy.file)[0]
    for nmis, danger, bodies in SCOPES:
        how: dict[str, object] = {"nmis": nmis, "assume": {"D": danger, "N": bodies}, "world": world}
        # A policy that also replaces flushes of user memory is asked about purges alone: generations have a bound. So
        # is one whose sender waits for stays in the kernel: nothing says that idle rounds without bound go on.
        if name == "quarantine-by-grace" or any(
            about == "flushes of user memory"
            for _, about, _ in _core.check_questions(policy.text, policy.file)[0]
        ):
            bounded = tc.check(name, **how, roles="purge; isolated 2")  # type: ignore[arg-type]
            every = tc.check(name, **how, roles="purge*unbounded; isolated unbounded")  # type: ignore[arg-type]
        else:
            bounded = tc.check(name, **how)  # type: ignore[arg-type]
            every = tc.check(name, **how, entries="unbounded", rounds="unbounded")  # type: ignore[arg-type]

        assert every.status == bounded.status
        if every.counterexample is None:
            assert "any number of entries per isolated CPU, any number of flush rounds" in every.sentence
        else:
            assert bounded.counterexample is not None
            assert every.counterexample.replay() == every.counterexample.rule
            assert len(every.counterexample.steps) == len(bounded.counterexample.steps)


def test_unbounded_rounds_find_what_needs_two() -> None:
    """A policy that flushes in its first round only: one round passes, any number does not."""
    once = tc.Policy(
        text="""policy once
  "Flushes in its first round only."
  based on ipi
  var flushed : 1 bit, starts 0

flush_kernel_range
  if flushed == 0
    flush_kernel_now
  flushed = 1
"""
    )
    assert tc.check(once, assume={"D": "none"}).status == "verified"
    found = tc.check(once, assume={"D": "none"}, rounds="unbounded")
    assert found.status == "violated"
    assert "2 flush rounds" in found.sentence


def test_the_estimate_of_a_scope_that_is_not_held_has_the_true_number_between_its_ends() -> None:
    how = {"cpus": 3, "assume": {"D": "recycled"}, "world": "pti"}
    for policy in ("ipi", "coalesce-v7-fixed", "pending-bit"):
        cut = tc.check(remembering(policy), **how, memory=1 << 17).sentence  # type: ignore[arg-type]
        likely, least, most = (float(n) for n in re.findall(r"[0-9]e\+[0-9]+", cut))
        states = tc.check(remembering(policy), **how, confirm=False).cases[0].states  # type: ignore[arg-type]
        assert 0.9 * least <= states <= 1.1 * most
        assert states / 4 < likely < states * 5


def test_generations_only_grow_so_their_flushes_have_a_bound() -> None:
    with pytest.raises(tc.CheckError, match="the generation of an address space has too"):
        tc.check("ipi", roles="flush_mm*unbounded; isolated 1", assume={"D": "none"})


def test_a_bound_is_a_number_or_unbounded() -> None:
    with pytest.raises(
        tc.CheckError, match="rounds must be an integer from 1 to 15 or unbounded: got 'many'"
    ):
        tc.check("ipi", rounds="many")
    with pytest.raises(tc.CheckError, match="patched text"):
        tc.check("text-sync-tri-state", rounds="unbounded")


def test_a_broadcast_that_nobody_waited_for_is_violated_on_both_machines():
    text = tc.policies["invlpgb"].text
    assert "  tlbsync\n" in text
    verdict = tc.check(tc.Policy(text=text.replace("  tlbsync\n", "  lfence\n")))
    assert verdict.status == "violated"
    assert verdict.counterexample is not None
    assert verdict.counterexample.replay_timed().rule == verdict.counterexample.rule
