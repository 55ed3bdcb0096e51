"""Exact agreement with other simulators on shared streams, and the counts on which several of them agree."""

from __future__ import annotations

import numpy as np
import pytest
from benches import streams
from tests import peers
from tests.geometry import one_tlb

import tlbcore as tc

PEERS = "peers-64x4-1536x12"


def counts(result: tc.TlbResult) -> tuple[int, int, int]:
    return result.l1_hits, result.stlb_hits, result.walks


@pytest.mark.parametrize("name", streams.NAMES)
def test_the_golden_counts_hold(name):
    """L1 hits, STLB hits and walks of five streams of 2**24 pages, as drcachesim's TLB classes count them."""
    stream = streams.stream(name)
    digest, *golden = streams.GOLDEN[name]
    if streams.digest(stream) != digest:
        pytest.skip("this NumPy generates another stream")
    assert counts(tc.Tlb(PEERS).access(stream, counts_only=True)) == tuple(golden)


@pytest.mark.parametrize("name", streams.GOLDEN_MILLION)
def test_the_golden_counts_of_a_million_hold_on_every_path(name):
    """The whole call, small calls, with levels, as events, and with a PCID per access: the same counts."""
    stream = streams.stream(name)[:1_000_000]
    if streams.digest(streams.stream(name)) != streams.GOLDEN[name][0]:
        pytest.skip("this NumPy generates another stream")
    golden = streams.GOLDEN_MILLION[name]
    tlb = tc.Tlb(PEERS)
    assert counts(tlb.access(stream, counts_only=True)) == golden
    final = tlb.entries()

    levels = tc.Tlb(PEERS).access(stream).levels
    assert tuple(np.bincount(levels, minlength=3).tolist()) == golden

    small = tc.Tlb(PEERS)
    parts = [counts(small.access(part, counts_only=True)) for part in np.array_split(stream, 700)]
    assert tuple(np.sum(parts, axis=0).tolist()) == golden

    each = tc.Tlb(PEERS)
    assert counts(each.access(stream, np.full(len(stream), 0, dtype=np.uint16), counts_only=True)) == golden

    events = np.zeros(len(stream), dtype=tc.EVENT)
    events["vpn"] = stream
    many = tc.Tlb(PEERS)
    assert counts(many.run(events, counts_only=True)) == golden

    for other in (small, each, many):
        assert all((other.entries()[column] == final[column]).all() for column in final)


def test_a_stream_without_numpys_generators_keeps_its_counts():
    """Keep the long-term vector: SplitMix64 stays as NumPy changes; pycachesim counted the same."""
    stream = streams.splitmix(1_000_000, 3000)
    assert stream[:3].tolist() == [0x7F0000000 + n for n in (1916, 1416, 2878)]
    assert counts(tc.Tlb(PEERS).access(stream, counts_only=True)) == (21138, 491290, 487572)


@pytest.mark.parametrize("name", streams.NAMES)
def test_pycachesim_counts_the_same(name):
    pytest.importorskip("cachesim")
    stream = streams.stream(name)[:200_000]
    addresses = ((stream & np.uint64(0xFFFFF)) << np.uint64(6)).tolist()
    assert counts(tc.Tlb(PEERS).access(stream)) == peers.cachesim_counts(addresses, 64)


@pytest.mark.parametrize("name", ["zipf1.0", "runs8"])
def test_libcachesim_counts_the_same_for_a_fully_associative_tlb(name):
    pytest.importorskip("libcachesim")
    stream = streams.stream(name)[:50_000]
    result = tc.Tlb(one_tlb(1536)).access(stream)
    assert result.l1_hits == peers.libcachesim_hits(stream.tolist(), 1536)
