"""The engine against the whiteboard model: random shapes, random programs, never a difference.

The laws below hold for any LRU TLB, whatever the engine.
"""

from __future__ import annotations

import copy
import pickle
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.geometry import one_tlb

import tlbcore as tc
from tlbcore.hardware import Machine
from tlbcore.reference import tlb as reference

SIZES = ["4K", "2M", "1G"]
FLAG_OF_SIZE = [0, 4, 8]


def structure(
    name: str, draw: random.Random, sizes: list[str], sets: int | None = None, *, smash: bool
) -> str:
    policy = draw.choice(["lru", "tree-plru", "mru-plru", "fifo", "random"])
    ways = {"tree-plru": draw.choice([1, 2, 4, 8]), "mru-plru": draw.choice([4, 6, 8, 12])}.get(
        policy, draw.randint(1, 6)
    )
    groups = 3 if ways % 3 == 0 else 2
    index = draw.choice(["linear", "xor", "modulo"])
    # Banks share pages, so they need the same number of sets.
    sets = sets or (draw.choice([1, 3, 5]) if index == "modulo" else draw.choice([1, 2, 4]))
    lines = [
        "[[level.structure]]",
        f'name = "{name}"',
        f"sets = {sets}",
        f"ways = {ways}",
        f"sizes = {sizes}".replace("'", '"'),
        f'index = "{index}"',
        f'replacement = "{policy}"',
        f"groups = {groups}",
        f"seed = {draw.randint(0, 9)}",
    ]
    if draw.random() < 0.5:
        lines.append(f"pcid_slots = {draw.randint(0, 3)}")
    if smash and "2M" in sizes and draw.random() < 0.5:
        lines.append("smashes_1g = true")
    return "\n".join(lines)


def machine(seed: int) -> Machine:
    """A random machine that holds every size somewhere."""
    draw = random.Random(seed)
    levels = []
    for number in range(draw.randint(1, 3)):
        split = draw.choice(
            [[SIZES], [["4K"], ["2M", "1G"]], [["4K", "2M"], ["1G"]], [["4K", "2M"], ["4K", "1G"]]]
        )
        if number == 0:  # so that every size is held somewhere
            split = draw.choice([[SIZES], [["4K"], ["2M"], ["1G"]]])
        banked = sum("4K" in sizes for sizes in split) > 1
        sets = draw.choice([1, 2, 4]) if banked else None
        parts = [
            structure(f"s{number}{i}", draw, sizes, sets, smash=not any("1G" in part for part in split))
            for i, sizes in enumerate(split)
        ]
        inclusive = "inclusive = true\n" if number and draw.random() < 0.3 else ""
        levels.append(f'[[level]]\nname = "l{number}"\n{inclusive}' + "\n".join(parts))
    psc = "\n".join(f"{name} = {draw.randint(0, 3)}" for name in ["pde", "pdpte", "pml4e", "pml5e"])
    text = f'name = "random"\ninherits = "_generic"\n[cpu]\nmhz = 1000\n[walker]\n{psc}\n'
    text += f"table_levels = {draw.choice([4, 5])}\n" + "\n".join(levels) + "\n"
    return Machine(name=f"random-{seed}", text=text)


def events(draw: random.Random, count: int, cpus: int, *, pages: int = 40) -> np.ndarray:
    """Programs that hit, miss, switch and invalidate; pages of every size near each other."""
    table = np.zeros(count, dtype=tc.EVENT)
    bases = [0, 512 * 3, 512 * 512 * 2, 0xFFFFFFF800000]
    for event in table:
        event["op"] = draw.choices(range(12), weights=[60, 20, 10, 3, 4, 4, 2, 1, 0.3, 0.5, 1, 2])[0]
        event["vpn"] = draw.choice(bases) + draw.choice([draw.randrange(pages), 512 * draw.randrange(6)])
        event["pcid"] = draw.choices([1, 2, 3, 4095], weights=[20, 3, 2, 1])[0]
        event["cpu"] = draw.randrange(cpus)
        event["pages"] = draw.choice([0, 1, 2, 600])
        flags = draw.choice(FLAG_OF_SIZE) | (draw.random() < 0.1)
        if event["op"] == 4:
            flags |= 2 * draw.randint(0, 1)
        if event["op"] in (10, 11):
            flags = draw.randrange(256) & 0b11110011
            event["pages"] = draw.choice([0, 1, 2])
        if event["op"] in (5, 6):
            event["pages"] = draw.choice([0, 1, 3])
        event["flags"] = flags
    return table


def rows(tlb: tc.Tlb) -> list[list[tuple]]:
    """Everything cached, per CPU, in the reference's form."""
    table = tlb.entries()
    found: list[list[tuple]] = [[] for _ in range(tlb._arguments["cpus"])]
    for i in range(len(table["vpn"])):
        context = None if table["global"][i] else int(table["pcid"][i])
        found[table["cpu"][i]].append(
            (
                int(table["level"][i]),
                int(table["structure"][i]),
                int(table["set"][i]),
                int(table["way"][i]),
                cut(int(table["vpn"][i])),
                int(table["page_size_bytes"][i]) // 4096,
                context,
                bool(table["stale"][i]),
            )
        )
    return found


def cut(vpn: int) -> int:
    return vpn & ((1 << 45) - 1)


def expected(oracle: list[reference.Tlb], program: np.ndarray) -> list[int]:
    levels = []
    for event in program:
        fields = {name: int(event[name]) for name in tc.EVENT.names}
        fields["vpn"] = cut(fields["vpn"])
        levels.append(reference.run(oracle, fields))
    return levels


def assert_same(tlb: tc.Tlb, oracle: list[reference.Tlb]) -> None:
    assert rows(tlb) == [one.entries() for one in oracle]
    for cpu, one in enumerate(oracle):
        assert tlb._state.counters(cpu) == one.counters


@given(seed=st.integers(0, 10**9), cpus=st.integers(1, 3))
def test_a_random_machine_runs_a_random_program_as_the_whiteboard_model_does(seed, cpus):
    one = machine(seed)
    program = events(random.Random(seed), 300, cpus)
    tlb = tc.Tlb(one, cpus=cpus)
    oracle = [reference.Tlb(one) for _ in range(cpus)]
    assert tlb.run(program).levels.tolist() == expected(oracle, program)
    assert_same(tlb, oracle)


def test_the_random_programs_reach_every_kind_of_outcome():
    """What the test above compares is not empty."""
    total: dict[str, int] = {}
    for seed in range(60):
        tlb = tc.Tlb(machine(seed), cpus=2)
        for name, count in tlb.run(events(random.Random(seed), 300, 2)).counters.items():
            total[name] = total.get(name, 0) + count
    for name in [
        "l0_hits",
        "l1_hits",
        "l2_hits",
        "walks",
        "pde_hits",
        "pdpte_hits",
        "pml4e_hits",
        "pml5e_hits",
    ]:
        assert total[name] > 0, name
    for name in ["stale_hits", "switches", "invalidated"]:
        assert total[name] > 0, name


class Session(RuleBasedStateMachine):
    """Engine and oracle side by side through whole sessions, with copies and pickles on the way."""

    @initialize(seed=st.integers(0, 10**9))
    def start(self, seed):
        self.machine = machine(seed)
        self.tlb = tc.Tlb(self.machine, cpus=2)
        self.oracle = [reference.Tlb(self.machine) for _ in range(2)]

    @rule(seed=st.integers(0, 10**9), count=st.integers(1, 60))
    def run_events(self, seed, count):
        program = events(random.Random(seed), count, 2)
        assert self.tlb.run(program).levels.tolist() == expected(self.oracle, program)

    @rule(
        pages=st.lists(st.integers(0, 60), max_size=40),
        pcid=st.sampled_from([0, 1, 2]),
        kind=st.sampled_from(["load", "store", "fetch"]),
        size=st.sampled_from([0, 1, 2]),
        cpu=st.integers(0, 1),
    )
    def access_pages(self, pages, pcid, kind, size, cpu):
        result = self.tlb.access(np.array(pages, dtype=np.uint64), pcid, kind, 4096 << 9 * size, cpu=cpu)
        one = self.oracle[cpu]
        if pages:
            one.switch(pcid)
        assert result.levels.tolist() == [one.access(page, kind, SIZES[size]) for page in pages]

    @rule()
    def pickle_it(self):
        self.tlb = pickle.loads(pickle.dumps(self.tlb))

    @rule()
    def copy_it(self):
        self.tlb = copy.deepcopy(self.tlb)

    @rule()
    def reset_it(self):
        self.tlb.reset()
        self.oracle = [reference.Tlb(self.machine) for _ in range(2)]

    @invariant()
    def agree(self):
        if hasattr(self, "tlb"):
            assert_same(self.tlb, self.oracle)


TestSession = Session.TestCase
TestSession.settings = settings(stateful_step_count=15)


def long_run(count: int, name: str) -> None:
    """Compare on one built-in machine with few flushes, so that its arrays fill up."""
    program = np.zeros(count, dtype=tc.EVENT)
    rng = np.random.default_rng(20251114)
    program["vpn"] = (0x7F0000000 + rng.zipf(1.2, count) % 6000).astype(np.uint64)
    program["cpu"] = rng.integers(0, 2, count)
    program["pcid"] = 1 + (rng.random(count) < 0.3)
    program["flags"] = program["vpn"] % 16 == 0
    rare = rng.random(count) < 0.002
    program["op"][rare] = rng.choice([4, 5, 6, 7, 8, 9, 11], rare.sum())
    one = tc.machine(name)
    if not one.pcid:
        program["pcid"] = 0
    tlb = tc.Tlb(one, cpus=2)
    oracle = [reference.Tlb(one) for _ in range(2)]
    assert tlb.run(program).levels.tolist() == expected(oracle, program)
    assert_same(tlb, oracle)


@pytest.mark.parametrize("name", ["peers-64x4-1536x12", "skylake-sp"])
def test_engine_and_reference_agree_on_1e5_operations(name):
    long_run(100_000, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["peers-64x4-1536x12", "skylake-sp", "zen4-epyc"])
def test_engine_and_reference_agree_on_1e7_operations(name):
    long_run(10_000_000 // 3, name)


@pytest.mark.parametrize("name", sorted(tc.machines))
def test_every_preset_runs_as_its_reference_does(name):
    one = tc.machines[name]
    program = events(random.Random(7), 1500, 1, pages=3000)
    if name.startswith("peers"):
        program = program[program["flags"] & 12 == 0]
    tlb = tc.Tlb(one)
    oracle = [reference.Tlb(one)]
    assert tlb.run(program).levels.tolist() == expected(oracle, program)
    assert_same(tlb, oracle)


# Laws.

PAGES = st.lists(st.integers(0, 30), max_size=200).map(lambda pages: np.array(pages, dtype=np.uint64))


@given(vpn=PAGES, sets=st.sampled_from([1, 2, 8]), ways=st.integers(1, 12))
def test_adding_a_way_never_adds_a_walk_and_never_loses_an_entry(vpn, sets, ways):
    """LRU is a stack algorithm (Mattson et al., 1970): the larger TLB holds what the smaller one holds."""
    small, large = tc.Tlb(one_tlb(ways, sets)), tc.Tlb(one_tlb(ways + 1, sets))
    assert large.access(vpn).walks <= small.access(vpn).walks
    assert set(small.entries()["vpn"].tolist()) <= set(large.entries()["vpn"].tolist())


@given(seed=st.integers(0, 10**9))
def test_flushing_twice_is_flushing_once(seed):
    one = machine(seed)
    tlb = tc.Tlb(one)
    tlb.run(events(random.Random(seed), 200, 1))
    flush = np.zeros(1, dtype=tc.EVENT)
    flush["op"] = random.Random(seed).choice([5, 7, 8, 9])
    flush["pcid"] = 1
    tlb.run(flush)
    once = rows(tlb)
    assert tlb.run(flush).invalidated == 0
    assert rows(tlb) == once


@given(seed=st.integers(0, 10**9))
def test_every_access_is_answered_exactly_once(seed):
    tlb = tc.Tlb(machine(seed), cpus=2)
    program = events(random.Random(seed), 300, 2)
    result = tlb.run(program)
    answered = sum(
        count for name, count in result.counters.items() if name in ("l0_hits", "l1_hits", "l2_hits")
    )
    assert answered + result.walks == result.accesses == int((program["op"] <= 2).sum())
    assert (result.levels == 255).sum() == (program["op"] > 2).sum()


@given(seed=st.integers(0, 10**9), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_results_do_not_depend_on_how_a_stream_is_cut(seed, cuts):
    one = machine(seed)
    program = events(random.Random(seed), 300, 2)
    whole, parts = tc.Tlb(one, cpus=2), tc.Tlb(one, cpus=2)
    levels = [parts.run(part).levels for part in np.split(program, sorted(cuts))]
    assert np.concatenate(levels).tolist() == whole.run(program).levels.tolist()
    assert parts == whole


def test_results_do_not_depend_on_how_many_threads_run_other_tlbs():
    vpn = np.random.default_rng(5).integers(0, 5000, 200_000, dtype=np.uint64)
    alone = tc.Tlb("skylake-sp").access(vpn).counters
    results: list[dict[str, int] | None] = [None] * 4

    def work(i: int) -> None:
        results[i] = dict(tc.Tlb("skylake-sp").access(vpn).counters)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [alone] * 4


def test_the_oracle_is_python_alone():
    """It must not lean on what it judges: only the description of a machine comes from the core."""
    assert "_core" not in Path(reference.__file__).read_text()
    assert reference.splitmix64(0, 0) == 0xE220A8397B1DCDAF
