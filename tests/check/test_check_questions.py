"""What a check asks by itself: everything a policy replaces, every way into the kernel, and nothing in vain."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore_litmus
from tlbcore.scenarios import syscall_heavy

DATA = Path(__file__).parents[1] / "data" / "checker"
FIXED = tc.policies["coalesce-v7-fixed"]
CT_LATE = tc.policies["ct-late"]
KNOWN = {"D": "none"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tlbcore", *arguments], capture_output=True, text=True)


# -- the question follows from the policy ---------------------------------------------------------------------


def asked(policy: tc.Policy) -> list[str]:
    return [initiator for initiator, _, _ in _core.check_questions(policy.text, policy.file)[0]]


def test_a_policy_that_defers_frees_of_page_tables_is_violated_by_the_default_check() -> None:
    """L6: page tables may be walked by any CPU at any time, in user mode too. Issue 14."""
    careless = FIXED.replace(name="careless", flush_kernel_now="flush_kernel_range")
    verdict = tc.check(careless, assume=KNOWN)

    assert verdict.status == "violated"
    assert verdict.counterexample is not None
    assert verdict.counterexample.rule == "freed_table_walk"
    by_question = {case.asked: case.status for case in verdict.cases}
    assert by_question["purges of vmalloc"] == "verified"
    assert by_question["frees of page tables"] == "violated"
    assert (
        "Asked about: purges of vmalloc, frees of page tables, rights of the direct map." in verdict.sentence
    )


def test_so_it_is_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "careless.policy"
    file.write_text(FIXED.replace(name="careless", flush_kernel_now="flush_kernel_range").text)
    found = run("check", str(file), "--assume", "D=none")

    assert found.returncode == 1
    assert "freed_table_walk" in found.stdout
    assert "frees of page tables" in found.stdout


def test_each_replaced_section_is_asked_about() -> None:
    assert asked(tc.policies["ipi"]) == ["purge"]
    assert asked(FIXED) == ["purge"]
    user = ["flush_mm", "flush_mm", "flush_mm_tables", "flush_mm_tables"]
    assert asked(tc.policies["invlpgb"]) == ["purge", "table_free", "set_memory", *user]
    assert asked(tc.policies["luf"]) == ["flush_mm", "flush_mm"]
    assert asked(tc.policies["text-defer-v7"]) == ["text_poke", "text_poke"]
    assert asked(tc.policies["coalesce-all"]) == ["purge"], "through `based on` too"
    assert asked(tc.policies["quarantine"])[0] == "purge"
    own = FIXED.replace(
        name="own", vunmap="pte range = none locked\nrequest range\nflush_here\npromise range"
    )
    assert asked(own) == ["purge", "vunmap"]
    switch = FIXED.replace(name="switch", announce_switch="touch stack")
    assert asked(switch) == ["purge", "flush_mm", "flush_mm", "flush_mm_tables", "flush_mm_tables"]
    everything = FIXED.replace(name="everything", flush_all="flush_all_here")
    assert "flush_all_asked" in asked(everything)


def test_an_immediate_unmap_that_flushes_here_alone_is_violated() -> None:
    own = FIXED.replace(
        name="own", vunmap="pte range = none locked\nrequest range\nflush_here\npromise range"
    )
    verdict = tc.check(own, assume=KNOWN)
    assert verdict.status == "violated"
    assert {case.asked: case.status for case in verdict.cases}["immediate unmaps"] == "violated"


def test_a_flush_of_everything_that_forgets_the_others_is_violated() -> None:
    verdict = tc.check(FIXED.replace(name="everything", flush_all="flush_all_here"), assume=KNOWN)
    assert {case.asked: case.status for case in verdict.cases}["flushes of everything"] == "violated"


@pytest.mark.parametrize(
    ("section", "body", "question"),
    [
        ("flush_loaded", "fence", "flushes of user memory"),
        (
            "flush_mm",
            "let mm = 2\npte range = none locked\nrequest range\npromise range",
            "flushes of user memory",
        ),
        (
            "flush_tlb_mm_range_freed",
            "flush_tlb_mm_range",
            "frees of user page tables, lazy CPUs",
        ),
    ],
)
def test_flushes_of_user_memory_are_asked_about_where_they_are_replaced(
    section: str, body: str, question: str
) -> None:
    broken = tc.check(tc.policies["ipi"].replace(name="broken", **{section: body}), world="pti")
    assert {case.asked: case.status for case in broken.cases}[question] == "violated"


@pytest.mark.parametrize("waits", [True, False])
def test_a_page_table_that_is_freed_at_once_is_walked_by_a_cpu_amid_a_switch(waits: bool) -> None:
    """switch_mm_irqs_off of 6.12 leaves mm_cpumask before it loads the next CR3: tables that wait for RCU save it.

    MMU_GATHER_RCU_TABLE_FREE, which x86 has with PARAVIRT, since 6.15 always.
    """
    changed = {"order_after_lazy": "fence"} if waits else {"grace_period": "lfence"}
    verdict = tc.check(tc.policies["ipi"].replace(name="same", **changed), world="pti")
    found = {case.asked: case.status for case in verdict.cases if "page tables" in case.asked}
    assert found == {
        "frees of user page tables": "verified" if waits else "violated",
        "frees of user page tables, lazy CPUs": "verified",
    }
    assert (verdict.counterexample is None) == waits


def test_what_no_question_runs_is_named() -> None:
    odd = FIXED.replace(name="odd", table_sync_handler="fence\nreturn")
    assert (
        "No question runs what the policy says in: table_sync_handler."
        in tc.check(odd, assume=KNOWN).sentence
    )


# -- every way into the kernel --------------------------------------------------------------------------------

FORGETS = {
    "interrupt": "touch entry\nswapgs\nmov cr3, kernel noflush\ntouch stack\nhandle calls\nbody interrupt\n"
    "to_user\ntouch entry\nswapgs",
    "exception": "touch entry\nswapgs\nmov cr3, kernel noflush\ntouch stack\nsti\nbody syscall\ncli\n"
    "to_user\ntouch entry\nswapgs",
    "syscall_compat": "touch entry\nswapgs\nmov cr3, kernel noflush\ntouch stack\nsti\nbody syscall\ncli\n"
    "to_user\ntouch entry\nswapgs",
    # Between an announcement taken back and one made again no sender would interrupt it.
    "interrupt_kernel": "kernel_cr3_loaded = 0\nfence\nhandle calls\nbody interrupt\nkernel_cr3_loaded = 1",
}


@pytest.mark.parametrize("path", FORGETS)
@pytest.mark.parametrize("reduce", [True, False])
def test_a_path_into_the_kernel_that_forgets_the_flush_is_found_by_default(path: str, reduce: bool) -> None:
    broken = FIXED.replace(name=f"forgets-{path}", **{path: FORGETS[path]})
    verdict = tc.check(broken, assume=KNOWN, reduce=reduce)

    assert verdict.status == "violated"
    assert verdict.counterexample is not None
    assert verdict.counterexample.replay() == verdict.counterexample.rule


def test_an_interrupt_out_of_idle_that_forgets_the_flush_is_found_by_default() -> None:
    body = "touch percpu\nhandle calls\nbody interrupt"
    broken = CT_LATE.replace(name="forgets-idle", interrupt_idle=body)
    verdict = tc.check(broken, assume=KNOWN)
    whole = tc.check(CT_LATE, assume=KNOWN)

    assert verdict.status == "violated"
    assert whole.status == "verified"
    assert [case.asked for case in whole.cases if case.world == whole.world] == [
        "purges of vmalloc",
        "purges of vmalloc, idle CPUs",
    ]


def test_a_device_interrupt_is_an_entry_that_a_role_can_name() -> None:
    roles = "purge; isolated 2 by interrupt"
    assert tc.check(FIXED, roles=roles, assume=KNOWN).status == "verified"
    broken = FIXED.replace(name="forgets", interrupt=FORGETS["interrupt"])
    assert tc.check(broken, roles=roles, assume=KNOWN).status == "violated"
    assert tc.check(broken, roles="purge; isolated 2 by syscall", assume=KNOWN).status == "verified"


def test_the_sentence_names_the_paths() -> None:
    everywhere = tc.check(FIXED, assume=KNOWN).sentence
    assert "entries by any system call, exception or device interrupt" in everywhere
    named = tc.check(FIXED, roles="purge; isolated 2 by exception_espfix", assume=KNOWN).sentence
    assert "entries by exception_espfix" in named
    assert "any system call" not in named


def test_paths_that_another_one_covers_change_no_verdict() -> None:
    """The argument is in `src/check/layout/entries.rs`; here it meets random paths."""
    rng = random.Random(14)
    lines = [
        "touch entry",
        "swapgs",
        "to_kernel",
        "touch percpu",
        "touch stack",
        "touch directmap",
        "touch danger",
    ]
    lines += ["ct_enter", "sti", "body syscall", "cli", "ct_exit", "touch stack", "to_user", "swapgs"]
    seen = set()
    for number in range(24):
        base = rng.choice(["coalesce-v7-fixed", "pending-bit", "noinstr-c", "ct-late"])
        changed = {}
        for path in rng.sample(["exception", "interrupt", "sysenter_compat", "exception_espfix"], 2):
            body = list(lines)
            for _ in range(rng.randrange(3)):
                spot = rng.randrange(len(body))
                if body[spot].startswith(("touch", "ct_", "sti", "body")):
                    del body[spot]
                else:
                    body.insert(spot, rng.choice(["touch stack", "fence", "touch entry"]))
            changed[path] = "\n".join(body)
        policy = tc.policies[base].replace(name=f"random-{number}", **changed)
        how = {
            "assume": {"D": rng.choice(["none", "recycled"])},
            "roles": "purge; isolated 1",
            "world": "pti",
        }
        reduced, plain = tc.check(policy, **how), tc.check(policy, **how, reduce=False)
        assert reduced.status == plain.status, policy.text
        seen.add(reduced.status)
    assert seen == {"verified", "violated"}


# -- no empty pass --------------------------------------------------------------------------------------------


def test_a_purge_that_asks_for_nothing_and_flushes_nothing_is_violated() -> None:
    for file in ("u21-nopromise.policy",):
        found = run("check", str(DATA / file))
        assert found.returncode == 1
        assert "stale_access (reused)" in found.stdout


@pytest.mark.parametrize("role", ["purge", "vunmap"])
@pytest.mark.parametrize("reduce", [True, False])
def test_a_policy_that_never_flushes_the_isolated_cpu_is_violated(role: str, reduce: bool) -> None:
    never = tc.policies["ipi"].replace(name="never", flush_kernel_range="flush_here")
    assert tc.check(never, roles=f"{role}; isolated 2", reduce=reduce).status == "violated"
    assert tc.check("ipi", roles=f"{role}; isolated 2", reduce=reduce).status == "verified"


def test_a_promise_without_a_request_is_refused_at_its_line() -> None:
    file = DATA / "u18-no-promise.litmus"
    with pytest.raises(tc.PolicyError, match=r"u18-no-promise\.litmus:8:3: `promise k` promises nothing"):
        tc.litmus(file)
    with pytest.raises(tc.PolicyError, match=r":7:3: `promise range` promises nothing"):
        tc.Policy(text='policy p\n  "x"\n  source "x"\n\npurge\n  pte range = none\n  promise range\n')


def test_a_request_of_another_cpu_is_none() -> None:
    text = (
        'litmus two\n  "x"\n  source "x"\n  page k : vmalloc\n\ncpu 0\n  pte k = none locked\n  request k\n'
        "  invlpg k\n\n"
        "cpu 1\n  invlpg k\n  promise k\n"
    )
    with pytest.raises(tc.PolicyError, match="litmus:13:3: `promise k` promises nothing"):
        tc.litmus(text)


def test_a_promise_that_a_run_reaches_without_its_request_says_nothing() -> None:
    text = (
        'litmus some\n  "x"\n  source "x"\n  page k : vmalloc\n  var x : 1 bit, shared, starts 0\n\ncpu 0\n'
        "  pte k = none locked\n  if x == 0\n    request k\n  invlpg k\n  promise k\n\ncpu 1\n  x = 1\n"
    )
    found = tc.litmus(text)
    assert found.found.startswith("inconclusive")


def test_a_check_in_which_no_flush_is_completed_is_inconclusive() -> None:
    for roles in ("isolated 2; isolated 2", "isolated idle"):
        verdict = tc.check("ipi", roles=roles, assume=KNOWN)
        assert verdict.status == "inconclusive"
        assert "no run a flush was completed" in verdict.sentence
    assert run("check", "ipi", "--roles", "isolated 2").returncode == 3


def test_entries_that_change_for_nobody_are_no_pass() -> None:
    text = (
        'litmus idle\n  "x"\n  source "x"\n  page k : vmalloc\n\ncpu 0\n  pte k = none locked\n  invlpg k\n'
    )
    assert tc.litmus(text).found == "inconclusive: nothing was asked"


def test_a_purge_after_which_nobody_can_use_the_address_is_no_pass() -> None:
    """Code uses what is mapped (S4): what is never mapped again, nor accessed, breaks nothing without a flush."""
    purge = 'policy p\n  "x"\n  source "x"\n\npurge\n  pte range = none locked\n  request range\n  promise range\n'
    verdict = tc.check(tc.Policy(text=purge))
    assert verdict.status == "inconclusive"
    assert "what was promised is used by nobody afterwards" in " ".join(verdict.sentence.split())
    again = purge + "  pte range = fresh locked\n"
    assert tc.check(tc.Policy(text=again)).rule == "stale_access (reused)"


@pytest.mark.parametrize(
    ("first", "use", "found"),
    [
        ("pte k = none locked", "body syscall", "inconclusive: nothing was asked"),
        ("pte k = none locked", "touch recycled", "inconclusive: nothing was asked"),  # of what is mapped
        ("pte k = none locked", "read k", "violated: stale_access (not_reused)"),
        ("pte k = none locked", "write k", "violated: stale_access (not_reused)"),
        ("pte k = none locked", "walk k", "violated: stale_access (not_reused)"),
        ("pte k = none", "let r = load k", "violated: stale_access (not_reused)"),
        ("pte k = less-rights locked", "body syscall", "violated: stale_access (reused)"),  # it stays mapped
        ("fence", "read k", "inconclusive: nothing was asked"),  # nothing was overwritten
    ],
)
@pytest.mark.parametrize("reduce", [True, False])
def test_a_promise_asks_of_what_somebody_can_use(first: str, use: str, found: str, reduce: bool) -> None:
    text = (
        f'litmus some\n  "x"\n  source "x"\n  page k : vmalloc\n\ncpu 0\n  {first}\n  request k\n'
        f"  promise k\n\ncpu 1\n  {use}\n"
    )
    if use.split()[0] in ("read", "write", "let"):  # where kernel code would fault, too
        text = text.replace("k : vmalloc", "k : user of 0")
    if "load" in use:
        text = text.replace("user of 0\n", 'user of 0\n  var x : 1 bit, shared, starts 0\n  frames "k: x"\n')
    assert tc.litmus(text, reduce=reduce).found == found
    assert explore_litmus(text).found == found


def test_an_address_that_is_mapped_again_is_handed_on_whatever_was_promised() -> None:
    """S3; the flush covers one unmap and the other CPU's reuse is not its business."""
    text = (
        'litmus reuse\n  "x"\n  source "x"\n  page k : vmalloc\n\ncpu 0\n  read k\n  pte k = none locked\n'
        "  {flush}\n  pte k = fresh locked\n  read k\n"
    )
    assert tc.litmus(text.format(flush="fence")).found == "violated: stale_access (reused)"
    assert tc.litmus(text.format(flush="invlpg k")).found == "verified"
    assert tc.litmus(text.format(flush="fence"), reduce=False).found == "violated: stale_access (reused)"


def test_repair_and_necessary_answer_every_question() -> None:
    careless = FIXED.replace(
        name="careless", flush_kernel_now="flush_kernel_range", coalesce="fence\nflush_all_here"
    )
    assert tc.repair(careless, assume=KNOWN, edits=1) == ()


# -- waiting in an entry path ---------------------------------------------------------------------------------


def test_a_wait_for_other_cpus_on_the_way_into_the_kernel_is_refused_in_both_machines() -> None:
    file = DATA / "waits-in-entry.policy"
    where = r"waits-in-entry\.policy:8:3: `\w+` waits here for other CPUs with interrupts off"
    with pytest.raises(tc.PolicyError, match=where):
        tc.check(file)
    with pytest.raises(tc.PolicyError, match=where):
        tc.compare(syscall_heavy(duration_s=0.01), machine="broadwell-ep", policies=[file])


def test_so_is_one_in_a_remote_call() -> None:
    with pytest.raises(tc.PolicyError, match="`flush_handler` waits here"):
        FIXED.replace(name="nested", flush_handler="flush_here\nflush_all")


# -- what is said of bad and of odd input ---------------------------------------------------------------------


def test_mov_cr3_says_flush_as_documented() -> None:
    text = (
        'litmus m\n  "x"\n  page u : user of 2\n  asids "2"\n\ncpu 0\n  mov cr3, mm 2 asid 1{how}\n  read u\n'
    )
    assert tc.litmus(text.format(how=" flush")).states == tc.litmus(text.format(how="")).states
    with pytest.raises(tc.PolicyError, match="expected the end of the line"):
        tc.litmus(text.format(how=" owed"))


@pytest.mark.parametrize(("sign", "locked"), [("+", "add v, 1"), ("|", "or v, 1"), ("^", "")])
def test_arithmetic_in_a_store_gets_the_hint_at_let(sign: str, locked: str) -> None:
    text = (
        f'policy p\n  "x"\n  source "x"\n  var v : 2 bits, shared, starts 0\n\nct_enter\n  v = v {sign} 1\n'
    )
    with pytest.raises(tc.PolicyError, match="`let x = v`") as error:
        tc.Policy(text=text)
    assert "p:7:9" in str(error.value) or "policy:7:9" in str(error.value)
    assert locked in str(error.value)


def test_a_section_of_the_file_is_a_role(tmp_path: Path) -> None:
    file = tmp_path / "own.policy"
    file.write_text(
        'policy own\n  "x"\n  source "x"\n\nmy_purge\n  pte range = none locked\n  request range\n'
        "  flush_kernel_range\n  promise range\n  pte range = fresh\n"
    )
    found = run("check", str(file), "--roles", "my_purge; isolated 2", "--world", "pti")
    assert found.returncode == 0, found.stderr
    assert "Asked about: the roles my_purge; isolated 2." in " ".join(found.stdout.split())
    with pytest.raises(tc.PolicyError, match="nothing uses section `my_purge`"):
        tc.check(file)


def test_what_is_assumed_of_nmis_is_left_out_where_their_number_was_given_as_none() -> None:
    with pytest.raises(tc.CheckError, match="give nmis or mces as well"):
        tc.check("ipi", assume={"N": "recycled"}, world="pti")
    verdict = tc.check("ipi", assume={"N": "recycled"}, nmis=0, world="pti")
    assert verdict.sentence.endswith(
        "N=recycled is about NMIs and machine checks, and there are none: left out."
    )
    assert run("check", "ipi", "--assume", "N=recycled", "--nmis", "0", "--world", "pti").returncode == 0
    assert run("check", "ipi", "--assume", "N=recycled").returncode == 2


@pytest.mark.parametrize("name", [name for name, policy in tc.policies.items() if policy.defers == ("user",)])
def test_the_stated_verdicts_of_policies_of_user_ranges_hold(name: str) -> None:
    """Leaves, page tables, and the worse of both with an NMI, in the worst world, with running and with lazy CPUs."""
    verdict = tc.check(name)
    leaves, tables = (
        all(case.status == "verified" for case in verdict.cases if case.asked.startswith(about))
        for about in ("flushes of user memory", "frees of user page tables")
    )
    with_nmi = tc.check(name, nmis=1)
    assert [leaves, tables, with_nmi.status == "verified"] == _core.policy_stated(name)
    assert (verdict.counterexample is not None) == (verdict.status == "violated")
