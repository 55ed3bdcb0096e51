"""Curves from a sample of the pages against the exact ones, and what they say of their error."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

import tlbcore as tc
from tlbcore.tlb import MissCurve

COUNT, WAYS = 200_000, 4096


def stream(kind: str, rng: np.random.Generator) -> NDArray[np.uint64]:
    pages = {
        "zipf": lambda: rng.zipf(1.05 + 0.5 * rng.random(), COUNT) % 16_384,
        "uniform": lambda: rng.integers(0, 6_000, COUNT),
        "loop and zipf": lambda: np.where(
            rng.random(COUNT) < 0.5, np.arange(COUNT) % 3_000, rng.zipf(1.2, COUNT) % 9_000
        ),
        "walk": lambda: np.abs(np.cumsum(rng.integers(-40, 41, COUNT))) % 9_000,
    }[kind]()
    # Elsewhere each time, so that other pages are in the sample.
    return pages.astype(np.uint64) + rng.integers(1 << 44, dtype=np.uint64)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlbcore", *arguments], capture_output=True, text=True, check=True, timeout=300
    )


def within(curve: MissCurve, exact: MissCurve) -> NDArray[np.bool_]:
    """For each number of ways that is resolved, whether the exact curve is in the interval."""
    assert curve.errors is not None
    resolved = ~np.isnan(curve.errors)
    assert resolved.tolist() == [ways * curve.sample >= 1 for ways in range(1, curve.ways + 1)]
    far = np.abs(curve["miss_ratio"] - exact["miss_ratio"])
    inside: NDArray[np.bool_] = (far <= curve.errors)[resolved]
    return inside


@pytest.mark.parametrize("kind", ["zipf", "uniform", "loop and zipf", "walk"])
def test_the_exact_curve_lies_in_the_interval(kind):
    rng = np.random.default_rng(15)
    shares = []
    for _ in range(6):
        pages = stream(kind, rng)
        exact = tc.miss_curve(pages, sets=1, ways=WAYS)
        for sample in (0.05, 0.2):
            curve = tc.miss_curve(pages, ways=WAYS, sample=sample)
            assert (np.diff(curve.table.astype(np.int64)) <= 0).all()
            assert curve.table.max() <= curve.accesses == COUNT
            shares.append(within(curve, exact).mean())
    # The points of one curve stand or fall together, so few of a dozen curves may be off, and not on the whole.
    assert np.mean(shares) >= 0.9, shares


def test_a_greater_sample_is_nearer_and_says_so():
    rng = np.random.default_rng(4)
    far, stated = [], []
    exact_of = [stream("loop and zipf", rng) for _ in range(5)]
    for sample in (0.02, 0.3):
        curves = [tc.miss_curve(pages, ways=WAYS, sample=sample) for pages in exact_of]
        exact = [tc.miss_curve(pages, sets=1, ways=WAYS) for pages in exact_of]
        tail = slice(100, None)
        pairs = zip(curves, exact, strict=True)
        far.append(np.mean([np.abs(c["miss_ratio"] - e["miss_ratio"])[tail].mean() for c, e in pairs]))
        stated.append(np.mean([c["miss_ratio_error"][tail].mean() for c in curves]))
    assert far[1] < far[0] / 2
    assert stated[1] < stated[0] / 2


def test_what_is_sampled_is_pages_and_all_their_accesses():
    """Each page four times in a row: every depth is 0, so one way misses each page once, sampled or not."""
    pages = np.repeat(np.arange(40_000, dtype=np.uint64), 4)
    curve = tc.miss_curve(pages, ways=1000, sample=0.05)
    assert curve.sampled is not None
    assert curve.sampled % 4 == 0
    assert curve.sampled == pytest.approx(0.05 * len(pages), rel=0.1)
    # Each sampled miss stands for twenty.
    assert curve.table[0, 19:].tolist() == [curve.sampled // 4 * 20] * 981
    assert curve["miss_ratio"][-1] == pytest.approx(0.25, rel=0.1)


def test_a_page_of_another_context_or_after_a_flush_is_another():
    rng = np.random.default_rng(9)
    pages = rng.integers(0, 3_000, COUNT, dtype=np.uint64)
    pcid = np.repeat(rng.integers(0, 4, COUNT // 100, dtype=np.uint16), 100)
    flushes = [0, 30_000, 30_000, 120_000]
    exact = tc.miss_curve(pages, sets=1, ways=WAYS, pcid=pcid, flushes=flushes)
    curve = tc.miss_curve(pages, ways=WAYS, pcid=pcid, flushes=flushes, sample=0.2)
    assert within(curve, exact).mean() > 0.9
    alone = tc.miss_curve(pages, sets=1, ways=WAYS)
    assert abs(exact["miss_ratio"][-1] - alone["miss_ratio"][-1]) > 3 * curve["miss_ratio_error"][-1]


def test_it_is_a_table_that_is_kept(tmp_path):
    curve = tc.miss_curve(np.arange(90_000, dtype=np.uint64) % 9_000, ways=2000, sample=0.1)
    assert list(curve)[-1] == "miss_ratio_error"
    assert len(curve) == 6
    assert curve["sets"].tolist() == [1] * 2000
    again = tc.load(curve.save(tmp_path / "curve"))
    assert (again.table == curve.table).all()
    assert (again.sample, again.sampled) == (0.1, curve.sampled)
    assert np.array_equal(again["miss_ratio_error"], curve["miss_ratio_error"], equal_nan=True)
    assert curve.to_pandas().attrs["sampled"] == curve.sampled


BAD = [
    ({"sample": 0}, "sample must be a number above 0 and below 1: got 0"),
    ({"sample": 1}, "sample must be .*: got 1"),
    ({"sample": True}, "got True"),
    ({"sample": "some"}, "got some"),
    ({"sample": float("nan")}, "got nan"),
    ({"sample": 0.5, "sets": 16}, "sets must be 1 with sample.*: got 16"),
    ({"sample": 0.5, "sets": [1, 2]}, "got .1, 2."),
    ({"sample": 1e-5}, "sample: 1e-05 takes 0 of 1000 accesses, of too few pages"),
    ({"sample": 0.5, "pcid": [1]}, "pcid: must be as long as vpn .1000.: got 1"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_what_cannot_be_sampled_is_refused(arguments, said):
    with pytest.raises(tc.TlbError, match=said):
        tc.miss_curve(np.arange(1000, dtype=np.uint64), **arguments)


def test_a_page_that_is_none_is_refused_though_it_is_not_sampled():
    pages = np.arange(100_000, dtype=np.uint64)
    pages[77_777] = 1 << 45
    with pytest.raises(tc.TlbError, match=r"vpn\[77777\]"):
        tc.miss_curve(pages, sample=0.001, ways=100_000)


def test_the_command_line_samples_and_takes_many_ways(tmp_path):
    trace = tmp_path / "trace.npy"
    pages = np.arange(60_000, dtype=np.uint64) % 6_000
    np.save(trace, pages << np.uint64(12))
    found = json.loads(run("miss-curve", str(trace), "--ways", "8192", "--sample", "0.1", "--json").stdout)
    curve = tc.miss_curve(pages, ways=8192, sample=0.1)
    assert found["table"]["misses"] == curve.table[0].tolist()
    assert found["table"]["miss_ratio_error"][:9] == [None] * 9
    assert (found["sample"], found["sampled"]) == (0.1, curve.sampled)
    shown = run("miss-curve", str(trace), "--ways", "8192", "--sets", "1").stdout
    assert "--json has every number of ways" in " ".join(shown.split())
    rows = [row for line in shown.splitlines() if (row := line.split())[:1] == ["1"]]
    # A loop over 6,000 pages: LRU of fewer entries misses always, of more only at first.
    assert [row[3] for row in rows if row[1] in ("5120", "6144")] == ["60000", "6000"]
    assert rows[-1][1] == "8192"
    assert len(rows) < 60
    shown = run("miss-curve", str(trace), "--ways", "8192", "--sample", "0.1").stdout
    assert f"LRU estimated from {curve.sampled} of them (0.1 of the pages; error: 95 %)" in " ".join(
        shown.split()
    )
