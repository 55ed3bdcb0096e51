"""Policies whose masks change while they run, whose entry code is patched, and that hook ticks and context switches."""

from __future__ import annotations

from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore, explore_litmus

DEMAND = {"D": "none", "fills": "demand"}


def found(text: str) -> str:
    """What every form of search finds of a litmus test, which must be the same."""
    by = [tc.litmus(text, reduce=reduce).found for reduce in (True, False)] + [explore_litmus(text).found]
    assert len(set(by)) == 1, by
    return by[0]


def verdict(policy: tc.Policy, roles: str, world: str, **more: object) -> str:
    """The status of a check, reduced and not; a run that breaks a rule is carried out by the timed machine too."""
    forms = [
        tc.check(policy, roles=roles, world=world, assume=DEMAND | more.get("assume", {}), reduce=reduce)
        for reduce in (True, False)
    ]
    assert forms[0].status == forms[1].status
    if (run := forms[0].counterexample) is not None:
        assert run.replay() == run.rule
    return forms[0].status


def busy() -> tc.Scenario:
    """Two CPUs in user mode with a tick each, and two that purge what they free."""
    actors = tc.scenarios
    return tc.Scenario(
        name="busy",
        duration_s=0.02,
        cpus=4,
        isolated="2-3",
        actors=(
            actors.spin("isolated"),
            actors.interrupts("isolated", rate_hz=1000, cause="tick"),
            actors.spin("housekeeping"),
            actors.interrupts("housekeeping", rate_hz=1000, cause="tick"),
            actors.chain(
                [{"program": "purge", "pages": 4, "cause": "purge"}], on="housekeeping", rate_hz=2000
            ),
        ),
    )


# -- masks that change ---------------------------------------------------------------------------------------------

MASKS = """
coalesce
  kernel_cr3_loaded = 1
  fence
  if flushes_at_entry
    invpcid all-including-global

flush_kernel_range
  each cpu in others
    if not defers[cpu] or kernel_cr3_loaded[cpu]
      put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks

sender_changes
  each cpu in others
    defers[cpu] = {0}

entry_changes
  each cpu in others
    flushes_at_entry[cpu] = {0}
"""
PURGE = [
    "pte range = none locked",
    "request range",
    "flush_kernel_range",
    "promise range",
    "pte range = fresh",
]
VARS = "  var defers : 1 bit, per cpu, starts {0}\n  var flushes_at_entry : 1 bit, per cpu, starts {0}\n"

# What the masks are before, what is done in which order, and what comes of it: CASES 34, as a policy.
ORDERS = [
    (0, ["sender_changes", *PURGE, "entry_changes"], "violated"),
    (0, ["entry_changes", "sync", "sender_changes", *PURGE], "verified"),
    (1, [*PURGE, "sender_changes", "entry_changes"], "violated"),
    (1, [*PURGE, "sender_changes", "sync", "entry_changes"], "verified"),
]


SYNC = "fence\n  ipi others, nothing\n  await acks"


def masks(starts: int, lines: list[str], name: str) -> str:
    body = "".join(f"  {SYNC if line == 'sync' else line}\n" for line in lines)
    handler = "\nnothing\n  return\n" if "sync" in lines else ""
    return VARS.format(starts) + MASKS.format(1 - starts) + f"\n{name}\n{body}{handler}"


@pytest.mark.parametrize(("starts", "lines", "status"), ORDERS)
def test_a_policy_under_changing_masks_has_a_verdict_and_a_repair(
    starts: int, lines: list[str], status: str
) -> None:
    head = 'policy masks\n  "Bits of each CPU say what senders and its entry do."\n  based on coalesce-v7-fixed\n'
    policy = tc.Policy(text=head + masks(starts, lines, "purge"))
    assert verdict(policy, "purge; isolated 2 by syscall", "pti") == status

    columns = (
        "\ncpu 0\n  purge\n\ncpu 1\n  touch kernel\n  cli\n  to_user\n  to_kernel\n  sti\n  touch kernel\n"
    )
    head = (
        'litmus masks\n  based on coalesce-v7-fixed\n  features "pti pcid invpcid housekeeping_overridden"\n'
    )
    head += '  assume "fills=demand stores=sc"\n  page k : vmalloc\n'
    said = "verified" if status == "verified" else "violated: stale_access (reused)"
    assert found(head + masks(starts, lines, "purge") + columns) == said


def test_a_role_of_its_own_changes_them_beside_a_purge() -> None:
    """The masks are changed by one CPU while another one purges."""
    for order, status in (
        (["sender_changes", "sync", "entry_changes"], "violated"),
        (["entry_changes", "sync", "sender_changes"], "verified"),
    ):
        head = 'policy masks\n  "Changed beside a purge."\n  based on coalesce-v7-fixed\n'
        policy = tc.Policy(text=head + masks(0, order, "change"), programs=("change",))
        roles = "change; purge; isolated 1 by syscall"
        found = tc.check(policy, roles=roles, world="pti", assume=DEMAND)
        assert found.status == status


def test_the_timed_machine_changes_them() -> None:
    """Each tick turns both bits of every other CPU over to 1, in the right order: from then on senders defer."""
    head = 'policy masks\n  "Set by the first tick."\n  based on coalesce-v7-fixed\n'
    lines = ["if not defers", "  entry_changes", "  sender_changes", "  flushes_at_entry = 1", "  defers = 1"]
    set_by_tick = tc.Policy(
        text=head
        + masks(0, lines, "tick").replace("cpu in others\n    defers", "cpu in nohz_full\n    defers")
    )
    never = tc.Policy(text=head + masks(0, ["if defers", "  entry_changes", "  sender_changes"], "tick"))
    runs = tc.compare(
        busy(), machine="broadwell-ep", policies=["ipi", set_by_tick, never.replace(name="never")]
    )
    deferred = [run.total("deferrals") for run in runs.results]
    assert deferred[1] > deferred[0] == deferred[2] == 0
    assert runs.results[1].violation is None


# -- an instruction in entry code that is patched --------------------------------------------------------------------

SITE = """
to_kernel
  mov cr3, kernel noflush
  run text

text_poke
"""
POKE = "".join(
    f"  text {part} = {value}\n  serialize\n  request text {part}\n  SYNC\n  promise text {part}\n"
    for part, value in (("head", "int3"), ("tail", "new"), ("head", "new"))
)


@pytest.mark.parametrize(
    ("base", "sync", "status"),
    [
        ("ipi", "text_sync", "verified"),
        ("text-defer-v7", "text_sync", "violated"),  # deferred until context tracking, behind the site
        ("text-defer-v7", "text_sync_now", "verified"),
    ],
)
def test_entry_code_that_is_patched_needs_a_sync_that_is_not_deferred(
    base: str, sync: str, status: str
) -> None:
    text = f'policy patched\n  "An instruction of the entry."\n  based on {base}\n{SITE}{POKE.replace("SYNC", sync)}'
    policy = tc.Policy(text=text)
    assert verdict(policy, "text_poke; isolated 1 by syscall", "pti") == status
    if status == "violated":  # the others take 150,000 states
        slow = explore(policy, roles="text_poke; isolated 1 by syscall", assume=DEMAND)
        assert slow.status == status
    load = tc.scenarios.syscall_heavy(duration_s=0.001)
    assert tc.simulate(load, machine="skylake-sp", policy=policy).total("syscalls") > 0


# An instruction that decides a branch in the entry (CASES 31, 32): its INT3 needs a stack, its sync must come in time.
DECIDES = """
to_kernel
  mov cr3, kernel noflush
{}  if text is new
    invpcid all-including-global
"""


@pytest.mark.parametrize(
    ("base", "stack", "more", "rule"),
    [
        ("ipi", "", "", "unusable_stack"),  # where RSP holds the value of CR3
        ("ipi", "  rsp stack\n", "", None),  # behind the load of the stack
        ("text-defer-v7", "  rsp stack\n", "", "stale_text"),
        ("text-defer-v7", "  rsp stack\n", "\ntext_sync\n  text_sync_now\n", None),
    ],
)
def test_an_instruction_that_decides_needs_a_stack_and_a_sync_in_time(
    base: str, stack: str, more: str, rule: str | None
) -> None:
    text = f'policy decides\n  "A site of a key."\n  based on {base}\n' + DECIDES.format(stack) + more
    policy = tc.Policy(text=text)
    roles = "text_poke; isolated 1 by syscall"
    assert verdict(policy, roles, "pti") == ("violated" if rule else "verified")
    if rule:
        found = tc.check(policy, roles=roles, world="pti", assume=DEMAND)
        assert found.rule == rule
        slow = explore(policy, roles=roles, assume=DEMAND)
        assert (slow.status, slow.violation) == ("violated", rule)
    with pytest.raises(
        tc.PolicyError, match="no Promela for `if text is new`: what a CPU fetched of it decides"
    ):
        policy.promela()


def test_the_timed_machine_runs_the_new_instruction_behind_a_poke() -> None:
    """System calls flush once somebody has patched their site, and not before; the run goes on behind INT3s."""
    policy = tc.Policy(
        text='policy decides\n  "A site of a key."\n  based on ipi\n' + DECIDES.format("  rsp stack\n")
    )
    actors = tc.scenarios

    load = (actors.syscalls("isolated", base_ns=900.0), actors.spin("housekeeping"))
    poke = actors.chain(
        [{"program": "text_poke", "pages": 0, "cause": "text_poke"}], on="housekeeping", rate_hz=200
    )

    def flushes(*acts: tc.Actor) -> float:
        """Full flushes in entry code, per system call."""
        run = tc.Scenario(name="poked", duration_s=0.02, cpus=2, isolated="1", actors=acts)
        result = tc.simulate(run, machine="skylake-sp", policy=policy)
        assert result.violation is None
        return result.total("entry_flushes_unneeded") / result.total("syscalls")

    never, often = flushes(*load), flushes(*load, poke)
    assert never == 0
    assert 0.2 < often < 0.8  # each poke turns it over


# A key with a site on the way out and one on the way in (CASES 33): what stands there decides a branch.
KEY = """
to_user
  if exit_site
    kernel_cr3_loaded = 0
  mov cr3, user noflush

to_kernel
  mov cr3, kernel noflush
  if entry_site
    xchg kernel_cr3_loaded, 1
    invpcid all-including-global

flush_kernel_range
  each cpu in others
    if kernel_cr3_loaded[cpu]
      put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks

sync
  ipi others, sync_handler
  await acks
"""


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [("exit_site", "entry_site", "violated"), ("entry_site", "exit_site", "verified")],
)
def test_the_sites_of_a_key_change_in_an_order(first: str, second: str, status: str) -> None:
    vars_ = "  var exit_site : 1 bit, shared\n  var entry_site : 1 bit, shared\n"
    lines = [f"{first} = 1", "sync", *PURGE, f"{second} = 1", "sync"]
    body = KEY + "\npurge\n" + "".join(f"  {line}\n" for line in lines)
    policy = tc.Policy(text='policy key\n  "Two sites."\n  based on coalesce-v7-fixed\n' + vars_ + body)
    assert verdict(policy, "purge; isolated 2 by syscall", "pti") == status

    columns = (
        "\ncpu 0\n  purge\n\ncpu 1\n  touch kernel\n  cli\n  to_user\n  to_kernel\n  sti\n  touch kernel\n"
    )
    head = 'litmus key\n  based on coalesce-v7-fixed\n  features "pti pcid invpcid housekeeping_overridden"\n'
    head += '  assume "fills=demand stores=sc"\n  page k : vmalloc\n'
    said = "verified" if status == "verified" else "violated: stale_access (reused)"
    assert found(head + vars_ + body + columns) == said


# -- ticks and context switches ------------------------------------------------------------------------------------

TICK = """  var note : 1 bit, per cpu, starts 0

tick
  if note
{}

flush_kernel_range
  flush_here
  each cpu in others
    xchg note[cpu], 1
  each cpu in others
    if note[cpu]
      return
"""


@pytest.mark.parametrize(
    ("lines", "status"), [("    note = 0", "violated"), ("    flush_all_here\n    note = 0", "verified")]
)
def test_a_policy_that_flushes_at_ticks(lines: str, status: str) -> None:
    policy = tc.Policy(text='policy at-tick\n  "Notes."\n  based on ipi\n' + TICK.format(lines))
    assert verdict(policy, "purge; isolated 2", "nopti") == status

    columns = "\ncpu 0\n  purge\n\ncpu 1\n  touch kernel\n  cli\n  tick\n  sti\n  touch kernel\n"
    head = 'litmus at-tick\n  based on ipi\n  features "pcid invpcid"\n  assume "fills=demand"\n  page k : vmalloc\n'
    said = "verified" if status == "verified" else "violated: stale_access (reused)"
    assert found(head + TICK.format(lines) + columns) == said
    runs = tc.compare(busy(), machine="skylake-sp", policies=["ipi", policy])
    calls = [run.total("calls_executed") for run in runs.results]
    assert calls[0] > calls[1] == 0


SWITCH = """
announce_switch
{}  loaded_mm = 1

stop_receiving

flush_tlb_mm_range
  let gen = tlb_gen[mm]
  flush info mm, gen
  each cpu in mm_cpumask
    xchg note[cpu], 1
  each cpu in mm_cpumask
    if note[cpu]
      return

cpu 0
  flush_mm

cpu 1
  cli
  let next = 2
  switch_mm_irqs_off
  sti
  read u
  cli
  let next = 0
  switch_mm_irqs_off
  let next = 2
  switch_mm_irqs_off
  sti
  read u
"""
AT_SWITCH = "  invpcid all-including-global\n  xchg note, 0\n"


@pytest.mark.parametrize(("lines", "status"), [("  xchg note, 0\n", "violated"), (AT_SWITCH, "verified")])
def test_flushes_at_context_switches(lines: str, status: str) -> None:
    head = 'litmus at-switch\n  based on ipi\n  features "pcid invpcid"\n  asids "2"\n  page u : user of 2\n'
    head += '  assume "fills=demand"\n  var note : 1 bit, per cpu, starts 0\n'
    text = head + SWITCH.format(lines)
    assert found(text).split(":")[0] == status


def test_a_recording_is_replayed_under_them() -> None:
    """Bits that are set: what v7 defers. Bits that no tick sets: mainline. Notes: no call is sent."""
    trace = tc.read_trace(Path(__file__).parents[1] / "data" / "p4.w7.trace.txt.xz")

    def text(name: str, starts: int, test: str) -> tc.Policy:
        lines = [f"if {test}", "  entry_changes", "  sender_changes"]
        head = f'policy {name}\n  "x"\n  based on coalesce-v7-fixed\n'
        return tc.Policy(text=head + masks(starts, lines, "tick"))

    at_tick = tc.Policy(
        text='policy at-tick\n  "x"\n  based on ipi\n' + TICK.format("    flush_all_here\n    note = 0")
    )
    policies = ["coalesce-v7-fixed", text("set", 1, "not defers"), text("clear", 0, "defers"), at_tick]
    fixed, kept, clear, notes = (outcome["deferred"] for outcome in tc.replay(trace, policies).outcomes)
    assert fixed == kept
    assert fixed["low"] > 200
    assert clear == {"low": 0, "high": 0}
    assert notes["low"] >= fixed["high"]
