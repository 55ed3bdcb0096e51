"""Schedules written by hand in the timed engine: what the moves of counterexamples happen not to ask of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import tlbcore as tc

# Nobody flushes, so that every question has a counterexample, whose schedule is then replaced.
SILENT = 'policy silent\n  "x"\n  based on ipi\n\nflush_kernel_range\n  lfence\n'
REUSED = "stale_access (reused)"


def counterexample(text: str = SILENT, **asked: Any) -> tc.Counterexample:
    found = tc.check(tc.Policy(text=text), **asked).counterexample
    assert found is not None
    return found


def played(run: tc.Counterexample, schedule: str) -> str | None:
    timed = dataclasses.replace(run, schedule=schedule).replay_timed()
    assert timed.why_not is None
    return timed.rule


def in_system_call(run: tc.Counterexample) -> str:
    """The moves of CPU 1 to the body of its first system call: what stands before its first walk."""
    moves, walked, _ = run.schedule.partition(" 1.fill:va")
    assert walked
    assert moves.split()[-2] == "1.enter"
    return moves


def test_code_at_rest_in_the_kernel_uses_what_it_holds_in_the_timed_engine_too():
    run = counterexample(roles="purge; purge", world="pti")
    assert run.schedule.endswith(" 0.use")
    assert played(run, run.schedule) == REUSED
    # Without the walk it holds nothing, and a CPU amid its program is not at rest.
    without = run.schedule.replace(" 0.fill:va", "")
    assert without != run.schedule
    assert played(run, without) is None
    with pytest.raises(tc.CheckError, match=r"`1\.use`: it is not possible there"):
        played(run, "1.step 1.use")


@pytest.mark.parametrize("world", ["pti", "nopti"])
def test_with_one_asid_nobody_switches_to_another(world: str):
    one, two = (counterexample(roles="purge; isolated 1", world=world, asids=n) for n in (1, 2))
    schedule = f"{in_system_call(two)} 1.switch"
    assert played(two, schedule) is None
    with pytest.raises(tc.CheckError, match=r"`1\.switch`: it is not possible there"):
        played(one, schedule)


@pytest.mark.parametrize(("world", "rule"), [("nopti", REUSED), ("pti", None)])
def test_a_global_translation_is_that_of_every_asid(world: str, rule: str | None):
    """Without PTI kernel pages are global; with it they belong to the ASID that walked."""
    run = counterexample(roles="purge; isolated 1", world=world, asids=2)
    purge, call = "0.step*5", in_system_call(run)
    # Walked after the purge: what the other ASID finds is the new translation.
    assert played(run, f"{purge} {call} 1.fill:va 1.switch 1.step") is None
    # Walked before: the old one.
    assert played(run, f"{call} 1.fill:va {purge} 1.switch 1.step") == rule
    assert played(run, f"{call} 1.fill:va {purge} 1.step") == REUSED


def test_a_loop_that_was_left_halfway_starts_again_with_every_cpu():
    """The first loop is at CPU 1 when it is left; the second still collects it."""
    flush = """  each cpu in others
    break
  each cpu in others
    put cpu into targets
  ipi targets, flush_handler
"""
    run = counterexample(SILENT.replace("  lfence\n", flush), roles="purge; purge", world="pti")
    sent = next(step.number for step in run.steps if step.what.startswith("ipi"))
    assert played(run, f"0.step*{sent} 1.irq") is None
    with pytest.raises(tc.CheckError, match=r"`1\.irq`: it is not possible there"):
        played(run, f"0.step*{sent - 1} 1.irq")


@pytest.mark.parametrize("collected", [True, False])
def test_a_set_is_empty_until_a_cpu_is_put_into_it(collected: bool):
    flush = f"""  each cpu in others
    {"put cpu into targets" if collected else "lfence"}
  if targets is empty
    lfence
  else
    ipi targets, flush_handler
"""
    run = counterexample(SILENT.replace("  lfence\n", flush), roles="purge; purge", world="pti")
    decided = next(step.number for step in run.steps if step.what.startswith("if targets"))
    moves = f"0.step*{decided + 1} 1.irq"
    if collected:
        assert played(run, moves) is None
    else:
        with pytest.raises(tc.CheckError, match=r"`1\.irq`: it is not possible there"):
            played(run, moves)


def test_machine_checks_nest_two_deep_in_a_program_and_three_deep_in_user_mode():
    """Three frames: a program's and two of what comes amid it; in user mode the first #MC has the first."""
    found = tc.check("coalesce-v7-fixed", roles="purge; isolated 1", world="pti", nmis=0, mces=3)
    run = found.counterexample
    assert run is not None
    assert found.core[-1] == "a machine check"

    def refused(schedule: str) -> bool:
        try:
            return played(run, schedule) is not None
        except tc.CheckError as error:
            return "it is not possible there" in str(error)

    # Its first program ends in user mode.
    steps = next(n for n in range(1, 40) if refused(f"1.step*{n + 1}"))
    assert steps > 2
    for before, deep in (("1.step", 2), (f"1.step*{steps - 1}", 2), (f"1.step*{steps}", 3)):
        assert not refused(f"{before} 1.mce*{deep}")
        assert deep == 3 or refused(f"{before} 1.mce*{deep + 1}")
    # With one machine check in all there is no second one, however deep.
    run = tc.check("coalesce-v7-fixed", roles="purge; isolated 1", world="pti", mces=1).counterexample
    assert run is not None
    assert not refused("1.step 1.mce")
    assert refused("1.step 1.mce*2")
