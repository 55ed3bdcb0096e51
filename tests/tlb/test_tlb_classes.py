"""However accesses come, they leave what they leave a few at a time: regions, integers, contexts, lengths of calls.

Calls of five accesses go one by one; longer ones take loops of their own, by what they are.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from benches import classes, streams
from tests.geometry import one_tlb

import tlbcore as tc

COUNT = 20_000
MACHINES = ["peers-64x4-1536x12", "skylake-sp", "sapphire-rapids", "zen4-epyc", one_tlb(700)]


def in_calls(machine: object, vpn: np.ndarray, pcid: np.ndarray | int, call: int) -> tuple[tc.Tlb, list[int]]:
    tlb, levels = tc.Tlb(machine), []
    for at in range(0, len(vpn), call):
        context = pcid if isinstance(pcid, int) else pcid[at : at + call]
        levels += tlb.access(vpn[at : at + call], context).levels.tolist()
    return tlb, levels


@pytest.mark.parametrize("region", classes.REGIONS)
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: getattr(machine, "name", machine))
def test_one_call_leaves_what_many_leave(machine, region):
    vpn = classes.placed(streams.splitmix(COUNT, 1 << 16), region)
    vpn[::3] = vpn[(np.arange(0, COUNT, 3) // 7) % 40]  # some pages often
    for drawn in (None, (2, 100), (70, 1)):
        pcid = 3 if drawn is None else classes.contexts(COUNT, *drawn)
        slow, expected = in_calls(machine, vpn, pcid, 5)
        for call in (64, 4_095, COUNT):
            found, levels = in_calls(machine, vpn, pcid, call)
            assert levels == expected, (drawn, call)
            assert found == slow, (drawn, call)
        counted = tc.Tlb(machine)
        counted.access(vpn, pcid, counts_only=True)
        assert counted == slow, drawn


@pytest.mark.parametrize("kind", classes.INTEGERS)
def test_integers_of_every_type_are_the_same_pages(kind):
    vpn = streams.splitmix(COUNT, 3_000) - np.uint64(streams.BASE - 0x40000)
    expected = tc.Tlb("skylake-sp")
    expected.access(vpn)
    for form in (vpn.astype(kind), np.repeat(vpn.astype(kind), 2)[::2], list(vpn.astype(kind))):
        found = tc.Tlb("skylake-sp")
        found.access(form)
        assert found == expected


@pytest.mark.parametrize("mix", classes.MIXES)
@pytest.mark.parametrize("cpus", [1, 64])
def test_events_in_one_call_leave_what_they_leave_in_many(mix, cpus):
    vpn = classes.placed(streams.splitmix(COUNT, 2_000), "user and kernel")
    made = classes.events(vpn, mix, cpus)
    for machine in ("skylake-sp", "sapphire-rapids", "zen4-epyc"):
        slow, fast = tc.Tlb(machine, cpus=cpus), tc.Tlb(machine, cpus=cpus)
        expected = np.concatenate([slow.run(made[at : at + 5]).levels for at in range(0, COUNT, 5)])
        assert (fast.run(made).levels == expected).all()
        assert fast == slow


@pytest.mark.parametrize("behind", range(1, 8))
def test_repeats_behind_the_last_whole_vector_are_accesses(behind):
    """Of three pages in a set of two ways, the order of the last ones decides which are held."""
    seen = set()
    for tail in itertools.product((0, 1, 2), repeat=min(behind, 4)):
        vpn = np.repeat(np.arange(512, dtype=np.uint64) % 3, 8)  # most repeat their predecessor
        vpn = np.concatenate([vpn, [1] * (behind - len(tail)), tail]).astype(np.uint64) + np.uint64(0x40000)
        found = tc.Tlb(one_tlb(2))
        walks = found.access(vpn).walks
        slow, _ = in_calls(one_tlb(2), vpn, 0, 5)
        assert found == slow, tail
        held: list[int] = []
        misses = 0
        for page in vpn.tolist():
            misses += page not in held
            held = [page, *(each for each in held if each != page)][:2]
        assert walks == misses
        seen.add(tuple(held))
    assert len(seen) == (6 if behind > 1 else 3)
