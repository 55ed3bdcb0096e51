"""Miss counts of many TLBs in one pass equal those of the TLBs themselves."""

from __future__ import annotations

import numpy as np
import pytest
from benches import streams
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry import one_tlb

import tlbcore as tc


def driven(vpn: np.ndarray, sets: int, ways: int, pcid: np.ndarray, flushes: list[int]) -> int:
    """Count the misses of a single TLB of that shape, driven through the engine."""
    tlb = tc.Tlb(one_tlb(ways, sets))
    flush = np.zeros(1, dtype=tc.EVENT)
    flush["op"] = tc.OPS["invpcid_all"]
    walks = 0
    for vpns, pcids in zip(np.split(vpn, flushes), np.split(pcid, flushes), strict=True):
        walks += tlb.access(vpns, pcids).walks
        tlb.run(flush)
    return walks


@given(
    seed=st.integers(0, 10**6),
    sets=st.sampled_from([1, 4, 32]),
    ways=st.one_of(st.integers(1, 32), st.integers(33, 90)),
    flushes=st.lists(st.integers(0, 500), max_size=4).map(sorted),
)
def test_a_point_of_the_curve_is_the_tlb_of_that_shape(seed, sets, ways, flushes):
    rng = np.random.default_rng(seed)
    vpn = rng.zipf(1.3, 500).astype(np.uint64) % np.uint64(200)
    pcid = rng.integers(0, 3, 500).astype(np.uint16)
    curve = tc.miss_curve(vpn, sets=[sets, 2], ways=ways, pcid=pcid, flushes=flushes)
    assert curve.table[0, ways - 1] == driven(vpn, sets, ways, pcid, flushes)
    assert (np.diff(curve.table.astype(np.int64), axis=1) <= 0).all(), "a way more never misses more"


def test_the_curve_passes_through_the_golden_counts():
    stream = streams.stream("zipf1.0")
    if streams.digest(stream) != streams.GOLDEN["zipf1.0"][0]:
        pytest.skip("this NumPy generates another stream")
    curve = tc.miss_curve(stream, sets=16, ways=4)
    assert curve.table[0, 3] == streams.COUNT - streams.GOLDEN["zipf1.0"][1]


def test_a_deep_curve_begins_as_the_shallow_one_and_ends_where_only_first_uses_miss():
    """Two loops: stacks up to 32 ways, a tree of last uses beyond."""
    stream = streams.splitmix(60_000, 3_000) * np.uint64(7)
    deep = tc.miss_curve(stream, sets=[1, 8], ways=4_000).table
    assert (deep[:, :32] == tc.miss_curve(stream, sets=[1, 8], ways=32).table).all()
    assert deep[0, 2_999] == deep[0, 3_999] == len(np.unique(stream))
    assert deep[0, 1_535] == tc.Tlb(one_tlb(1536)).access(stream, counts_only=True).walks


def test_the_curve_is_a_table_of_columns():
    curve = tc.miss_curve([1, 2, 3, 1], sets=[1, 2], ways=3)
    assert list(curve) == ["sets", "ways", "entries", "misses", "miss_ratio"]
    assert curve["sets"].tolist() == [1, 1, 1, 2, 2, 2]
    assert curve["misses"].tolist() == [4, 4, 3, 4, 3, 3]
    assert curve["entries"].tolist() == [1, 2, 3, 2, 4, 6]
    assert curve["miss_ratio"][0] == 1.0
    assert curve.accesses == 4


def test_pages_far_apart_keep_their_names_apart():
    far = np.array([5, 5 + (1 << 40), 5 + (1 << 33), 5], dtype=np.uint64)
    assert tc.miss_curve(far, sets=1, ways=4).table.tolist() == [[4, 4, 3, 3]]


def test_nothing_in_nothing_out():
    assert tc.miss_curve([], sets=1, ways=2).table.tolist() == [[0, 0]]


BAD = [
    ({"sets": 3}, r"sets\[0\]: must be a power of two, at most 65536: got 3"),
    ({"sets": []}, "sets: must hold at least one set count"),
    ({"ways": 0}, "ways must be a whole number from 1 to 1048576: got 0"),
    ({"ways": 1_048_577}, "got 1048577"),
    ({"pcid": np.array([1], dtype=np.uint16)}, r"pcid: must be as long as vpn \(2\): got 1"),
    ({"pcid": np.array([1, 4096])}, r"pcid\[1\] must be between 0 and 4095"),
    ({"flushes": [2, 1]}, r"flushes\[1\]: must not fall: got 1 after 2"),
    ({"vpn": np.array([1 << 50], dtype=np.uint64)}, r"vpn\[0\]"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_questions_are_refused_by_place(arguments, message):
    with pytest.raises(tc.TlbError, match=message):
        tc.miss_curve(**{"vpn": [1, 2], **arguments})
