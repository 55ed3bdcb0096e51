"""Engine, reference and abstract machine agree on what may be stale (SEMANTICS S1, H2, H3, H7).

Random programs of page-table stores, loads and invalidations on one or two CPUs, one step after the other. The
checker says of each load which versions of the page it may go through. In the ideal geometry the engine must
say the same of the fills that try for it: a page is filled once, while the version in question is in the
tables, and the load is stale if and only if the checker allows that version.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from tests.geometry import one_tlb

import tlbcore as tc
from tlbcore.reference import tlb as reference

IDEAL = one_tlb(64)
PAGE = {"a": 0x7F0000000, "b": 0x7F0000123}
PCID = 5
#: Invalidations: text for the checker, op and flags for the engine.
INVALIDATIONS = {
    "invlpg a": ("invlpg", 0),
    "invlpg b": ("invlpg", 0),
    "invpcid all-including-global": ("invpcid_all", 0),
    "invpcid all": ("invpcid_non_global", 0),
    "mov cr4, pge off\n  mov cr4, pge on": ("invpcid_all", 0),
    "invlpgb a\n  tlbsync": ("invlpgb", tc.FLAGS["VA"]),
    "invlpgb b\n  tlbsync": ("invlpgb", tc.FLAGS["VA"]),
    "invlpgb all\n  tlbsync": ("invlpgb", tc.FLAGS["GLOBAL"]),
}


@dataclass(frozen=True)
class Step:
    cpu: int
    text: str

    @property
    def page(self) -> str:
        return "b" if self.text.split("\n")[0].endswith("b") else "a"


def program(seed: int) -> list[Step]:
    """Return steps with one or two stores to the entry of page a, and at least one load after the first."""
    rng = random.Random(seed)
    cpus = rng.randint(1, 2)
    steps = [Step(rng.randrange(cpus), rng.choice(list(INVALIDATIONS))) for _ in range(rng.randint(2, 4))]
    for _ in range(rng.randint(1, 2)):
        steps.insert(rng.randint(0, len(steps)), Step(rng.randrange(cpus), "edit"))
    first = next(i for i, step in enumerate(steps) if step.text == "edit")
    steps.insert(rng.randint(first + 1, len(steps)), Step(rng.randrange(cpus), "load"))
    steps.append(Step(rng.randrange(cpus), "load"))
    return steps


def litmus(steps: list[Step], load: int, version: int) -> str:
    """The program for the checker: may step `load` go through this version?"""
    lines = [
        "litmus generated",
        '  verdict "allowed"',
        '  "Steps of one or two CPUs, one after the other."',
        '  source "tests/simulate/test_staleness.py"',
        # As on the array: each store is there at once.
        '  assume "invpcid=ordered stores=sc"',
        f'  exists "r == {version}"',
        "  var turn : 4 bits, shared, starts 0",
        "  var a0 : 2 bits, shared, starts 0",
        "  var a1 : 2 bits, shared, starts 1",
        "  var a2 : 2 bits, shared, starts 2",
        "  var b0 : 2 bits, shared, starts 0",
        "  var r : 2 bits, shared, starts 3",
        "  page a : user of 0",
        "  page b : user of 0",
        '  frames "a: a0 a1 a2; b: b0"',
    ]
    for cpu in range(1 + max(step.cpu for step in steps)):
        lines += ["", f"cpu {cpu}", "  lfence"]
        for number, step in enumerate(steps):
            if step.cpu != cpu:
                continue
            lines.append(f"  await turn == {number}")
            if step.text == "edit":
                lines.append("  pte a = fresh")
            elif step.text == "load":
                lines.append("  let seen = load a")
                lines += ["  r = seen"] if number == load else []
            else:
                lines.append(f"  {step.text}")
            lines.append(f"  turn = {number + 1}")
    return "\n".join(lines) + "\n"


def script(steps: list[Step], load: int, version: int) -> np.ndarray:
    """The program for the engine up to the load: filled last thing in this version's time, if it has passed."""
    edits = [number for number, step in enumerate(steps[:load]) if step.text == "edit"]
    rows: list[tuple[int, int, int, int, int, int]] = []

    def add(op: str, cpu: int, page: str = "a", flags: int = 0) -> None:
        rows.append((PAGE[page], PCID, cpu, 1, tc.OPS[op], flags))

    for cpu in range(2):
        add("mov_cr3", cpu)
    for number, step in enumerate(steps[:load]):
        if version < len(edits) and number == edits[version]:
            add("fill", steps[load].cpu)
        if step.text == "edit":
            add("edit", step.cpu)
        elif step.text != "load":
            op, flags = INVALIDATIONS[step.text]
            add(op, step.cpu, step.page, flags)
    add("load", steps[load].cpu)
    return np.array(rows, dtype=tc.EVENT)


def questions(steps: list[Step]) -> list[tuple[int, int]]:
    """Each load with each version written before it."""
    return [
        (number, version)
        for number, step in enumerate(steps)
        if step.text == "load"
        for version in range(1 + sum(earlier.text == "edit" for earlier in steps[:number]))
    ]


def agree(seed: int, met: set[tuple[str, bool]]) -> list[bool]:
    """Compare the three on each question; tell which ones the checker could answer."""
    answered = []
    steps = program(seed)
    for load, version in questions(steps):
        newest = sum(step.text == "edit" for step in steps[:load])
        found = tc.litmus(litmus(steps, load, version)).found
        answered.append(found != "inconclusive")
        if found == "inconclusive":  # more stores wait than a word holds: the run says nothing
            continue
        checked = found == "allowed"
        events = script(steps, load, version)
        engine = tc.Tlb(IDEAL, cpus=2).run(events).stale_hits == 1
        oracle = [reference.Tlb(IDEAL) for _ in range(2)]
        for event in events:
            reference.run(oracle, {name: int(event[name]) for name in tc.EVENT.names})
        slow = sum(tlb.counters["stale_hits"] for tlb in oracle) == 1

        where = f"seed {seed}, load {load}, version {version} of {newest}\n{litmus(steps, load, version)}"
        assert engine == slow, where
        # The version in the tables may always be walked to; an older one only through something stale.
        assert checked == (engine if version < newest else not engine), where
        met |= {(step.text, engine) for step in steps if version < newest}
    return answered


def test_the_three_agree_on_random_programs() -> None:
    met: set[tuple[str, bool]] = set()
    answered = [one for seed in range(60) for one in agree(seed, met)]

    assert all(answered)
    assert {text for text, _ in met} >= set(INVALIDATIONS), "every invalidation was tried"
    assert {stale for _, stale in met} == {False, True}


@pytest.mark.slow
def test_the_three_agree_on_many_random_programs() -> None:
    answered = [one for seed in range(60, 3000) for one in agree(seed, set())]

    assert np.mean(answered) > 0.99
