"""The fuzzing harness finds what it is for, and every target stands a short run of it."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from fuzz import soak
from fuzz.targets import TARGETS, Target, refused

import tlbcore as tc


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_refuses_or_takes_what_is_made_of_its_seeds(name: str):
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds
    rng = random.Random(f"{name} short")
    taken = 0
    for seed in seeds[:3]:
        target.run(seed)  # a seed that is refused would fuzz the first check only
        taken += 1
    for _ in range(40):
        changed = soak.mutated(rng.choice(seeds), rng.choice(seeds), rng)
        if changed in seeds:
            continue  # changes may undo each other, or change nothing
        try:
            target.run(changed)
            taken += 1
        except Exception as error:
            if not refused(error):
                raise
    if name == "checkpoint":
        assert taken == 1, "a digest refuses every change"
    else:
        assert taken > 3, "some mutations get through"


def run(monkeypatch, tmp_path: Path, what, seconds: float = 2.0) -> soak.Tally:
    monkeypatch.setitem(soak.TARGETS, "probe", Target(run=what, seeds=lambda: [b"seed"]))
    return soak.soak("probe", seconds, 1, tmp_path / "crashes")


def test_executions_are_counted_and_refusals_are_none_of_the_crashes(monkeypatch, tmp_path: Path):
    def refuse(_: bytes) -> None:
        raise tc.TraceError("no")

    tally = run(monkeypatch, tmp_path, refuse, 0.5)
    assert tally.executions > 10
    assert tally.peak_kib > 1000
    assert tally.crashes == []
    assert not (tmp_path / "crashes").exists()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda _: {}["x"], "KeyError: 'x'"),
        (lambda _: int("x"), "ValueError: invalid literal"),
        (lambda _: os.kill(os.getpid(), signal.SIGSEGV), "ended with -11"),
        (lambda _: os._exit(3), "ended with 3"),
        (lambda _: bytearray(8 << 30), "MemoryError"),
    ],
)
def test_whatever_is_no_refusal_is_kept_with_its_input(monkeypatch, tmp_path: Path, what, said: str):
    tally = run(monkeypatch, tmp_path, what, 0.3)
    assert tally.crashes
    assert all(said in crash for crash in tally.crashes)
    inputs = [file for file in (tmp_path / "crashes").iterdir() if file.suffix != ".txt"]
    assert inputs
    assert said in inputs[0].with_suffix(".txt").read_text()


def test_an_input_without_an_answer_is_killed_and_kept(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(soak, "HANG_SECONDS", 0.3)
    tally = run(monkeypatch, tmp_path, lambda _: time.sleep(60), 0.2)
    assert len(tally.crashes) == 1
    assert "no answer within" in tally.crashes[0]


def test_mutations_are_those_of_their_seed():
    first, again = (
        [soak.mutated(b"a line\nand another\n", b"other", random.Random(n)) for n in range(50)]
        for _ in range(2)
    )
    assert first == again
    assert len(set(first)) > 25


@pytest.mark.parametrize("head", ["CPU\ufffd", "CPU", "CPUe", "CPU0\x00", "CPU-1", "CPU999999", ""])
def test_a_copy_of_proc_interrupts_without_cpu_names_is_refused(head: str, tmp_path: Path):
    """Found by `make soak`: such a first line was a ValueError of int()."""
    from tlbcore.trace.interrupts import read_interrupts

    file = tmp_path / "interrupts"
    file.write_text(f"   {head}\n  0: 1 x\n")
    with pytest.raises(tc.TraceError, match="the first line has no CPU names"):
        read_interrupts(file)


def test_a_count_that_is_a_digit_and_no_number_is_none(tmp_path: Path):
    from tlbcore.trace.interrupts import read_interrupts

    file = tmp_path / "interrupts"
    file.write_text("   CPU0 CPU1\nCAL: 5 \u00b2 calls\nRES: 1 2 reschedules\n")
    assert read_interrupts(file).counts == {"RES": {0: 1, 1: 2}}


def test_a_program_that_the_timed_machine_breaks_must_not_be_verified(monkeypatch):
    from fuzz import programs

    monkeypatch.setattr(programs, "program", lambda _: tc.policies["coalesce-v6"].text)
    programs.agree(b"")  # violated, and broken or not
    broken = type("Ran", (), {"violation": "S1"})()
    monkeypatch.setattr(tc, "simulate", lambda *_, **__: broken)
    monkeypatch.setattr(programs, "program", lambda _: tc.policies["coalesce-v7-fixed"].text)
    with pytest.raises(AssertionError, match="verified, and the timed machine breaks it: S1"):
        programs.agree(b"")


def test_programs_are_those_of_their_bytes():
    from fuzz.programs import program

    made = {program(bytes([i])) for i in range(30)}
    assert made == {program(bytes([i])) for i in range(30)}
    assert len(made) > 25
