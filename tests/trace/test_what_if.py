"""What would have helped against user shootdowns, from recordings of 6.12 and 7.3 whose truth was counted apart."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import Flush, user_flushes, what_if
from tlbcore.trace.what_if import what_if_sites

DATA = Path(__file__).parents[1] / "data"
RECORDINGS = ("p73.us1", "p612.us1")


def read(name: str) -> tuple[tc.Trace, dict]:
    trace = tc.read_trace(DATA / f"{name}.trace.txt.xz", isolated="1-3")
    return trace, json.loads((DATA / f"{name}.truth.json").read_text())


def phases(name: str) -> dict[tuple[str, int], tuple[float, float]]:
    """Return when each phase began and ended, from the program's own marks."""
    mark = re.compile(r"(\d+\.\d+): tracing_mark_write: P([HE]) 0 op=(\w+) pages=(\d+)")
    out: dict[tuple[str, int], list[float]] = {}
    with lzma.open(DATA / f"{name}.trace.txt.xz", "rt") as lines:
        for found in filter(None, map(mark.search, lines)):
            out.setdefault((found[3], int(found[4])), []).append(float(found[1]))
    return {phase: (begin, end) for phase, (begin, end) in out.items()}


def row(table, remedy: str) -> dict:
    at = table["remedy"].tolist().index(remedy)
    return {name: column[at].item() for name, column in table.items()}


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_recorded_row_is_what_was_counted(name: str) -> None:
    trace, truth = read(name)
    recorded = row(what_if(trace), "recorded")
    queued = sum(truth["queued"][f"{cpu} flush_tlb_func"] for cpu in (1, 2, 3))
    # A flush that called CPU 0 alone calls none of these CPUs.
    others = sum(truth["multi"].values())
    assert recorded["calls_low"] == recorded["calls_high"] == queued
    assert others - 2 <= recorded["flushes_low"] <= others
    ipis = sum(truth["ipis"][f"{cpu} flush_tlb_func"] for cpu in (1, 2, 3))
    assert recorded["interrupts_low"] == pytest.approx(ipis, abs=3)


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("op", ["munmap", "mprotect", "dontneed", "tables"])
def test_the_calls_of_a_batched_variant_follow_from_the_unbatched_one(name: str, op: str) -> None:
    """Ten pages a call, predicted from the phase with one page a call, and counted in the phase with ten."""
    trace, truth = read(name)
    begin, end = phases(name)[op, 1]
    single = [flush for flush in user_flushes(trace) if begin <= flush.at_s <= end]
    assert len(single) == truth["by_phase"][f"0 op={op} pages=1 peers=3 state=spin"]["multi"]
    ten_times = [
        Flush(at_s=flush.at_s + turn * (end - begin), who=flush.who, cpus=flush.cpus)
        for turn in range(10)
        for flush in single
    ]
    predicted = row(what_if(trace, batches=[10], flushes=ten_times), "batch of 10")
    counted = truth["by_phase"][f"0 op={op} pages=10 peers=3 state=spin"]
    real = sum(counted[f"queued cpu{cpu}"] for cpu in (1, 2, 3))
    assert predicted["calls_low"] <= predicted["calls_high"]
    for end_of in ("calls_low", "calls_high", "interrupts_low", "interrupts_high"):
        assert predicted[end_of] == pytest.approx(real, rel=0.1), end_of


def flushes(*of: tuple[float, str, set[int]]) -> list[Flush]:
    return [Flush(at_s=at, who=who, cpus=frozenset(cpus)) for at, who, cpus in of]


def test_a_batch_calls_at_least_whom_its_last_flush_called_and_at_most_whom_any_did() -> None:
    trace, _ = read("p73.us1")
    some = flushes((1, "a", {1}), (2, "b", {2, 3}), (3, "a", {1, 2}), (4, "a", {3}), (5, "b", {2}))
    table = what_if(trace, batches=[1, 2, 9], flushes=some)
    figures = ("flushes_low", "flushes_high", "calls_low", "calls_high")
    assert [row(table, "recorded")[f] for f in figures] == [5, 5, 7, 7]
    assert [row(table, "batch of 1")[f] for f in figures] == [5, 5, 7, 7]
    # a: {1}+{1,2} and {3}; b: {2,3}+{2}.
    assert [row(table, "batch of 2")[f] for f in figures] == [3, 3, 2 + 1 + 1, 2 + 1 + 2]
    assert [row(table, "batch of 9")[f] for f in figures] == [2, 2, 1 + 1, 3 + 2]
    # Who waits at most a second joins its neighbour only.
    near = what_if(trace, batches=[9], within_s=1.0, flushes=some)
    assert [row(near, "batch of 9")[f] for f in figures] == [4, 4, 1 + 1 + 2 + 1, 1 + 3 + 2 + 1]


def test_who_runs_on_too_few_cpus_has_no_global_asid_and_tables_still_interrupt_under_latr() -> None:
    trace, _ = read("p73.us1")
    some = [
        Flush(at_s=1.0, who="wide", cpus=frozenset({1, 2, 3}), tables=True),
        Flush(at_s=2.0, who="wide", cpus=frozenset({1, 2}), tables=False),
        Flush(at_s=3.0, who="narrow", cpus=frozenset({1, 2}), tables=False),
    ]
    table = what_if(trace, flushes=some)
    assert row(table, "INVLPGB")["calls_low"] == row(table, "INVLPGB")["calls_high"] == 2
    assert row(table, "RAR")["calls_high"] == 0
    assert (row(table, "LATR")["calls_low"], row(table, "LATR")["calls_high"]) == (3, 3)
    unknown = what_if(trace, flushes=flushes((1, "a", {1, 2})))
    assert (row(unknown, "LATR")["calls_low"], row(unknown, "LATR")["calls_high"]) == (0, 2)
    assert "not recorded" in row(unknown, "LATR")["note"]


def test_a_batch_of_nothing_is_refused() -> None:
    trace, _ = read("p73.us1")
    with pytest.raises(tc.TraceError, match="batches must be"):
        what_if(trace, batches=[0])


def test_without_shootdowns_there_is_nothing_to_spare() -> None:
    quiet = tc.read_trace(DATA / "p4.w4spin.trace.txt.xz")
    table = what_if(quiet)
    assert all((table[c] == 0).all() for c in ("flushes_high", "calls_high", "interrupts_high"))


@pytest.mark.parametrize(
    ("policy", "low", "high"),
    [
        ("ipi", 0, 0),
        ("invlpgb", 637, 637),
        # The first flush finds the process on four CPUs; from then on it has a global ASID.
        ("invlpgb-from-4-cpus", 634, 634),
        ("rar", 637, 637),
        # Frees of page tables still interrupt, and which flushes freed some is not recorded.
        ("latr", 0, 637),
        ("luf", 0, 320),
        ("early-ack", 0, 0),
        ("switch-deferred", 0, 0),
    ],
)
def test_policies_of_user_ranges_are_replayed(policy: str, low: int, high: int) -> None:
    trace, truth = read("p73.us1")
    assert sum(truth["queued"][f"{cpu} flush_tlb_func"] for cpu in (1, 2, 3)) == 637
    (outcome,) = tc.replay(trace, [policy]).outcomes
    assert outcome["deferred"] == {"low": low, "high": high}
    assert outcome["more_calls"]["high"] == 0


def test_counts_by_call_site_say_what_is_left_between_one_cpu_and_all() -> None:
    sites = {
        "call": ["madvise(MADV_DONTNEED)", "mprotect", "munmap", "munmap"],
        "extent": ["ranged", "ranged", "full", "table_sync"],
        "tables": ["no", "not recorded", "yes", "yes"],
        "shootdowns": [20, 4, 1, 2],
        "calls": [60, 12, 3, 6],
    }
    table = what_if_sites(sites, 3, batches=[8])
    ends = {
        remedy: (int(low), int(high))
        for remedy, low, high in zip(table["remedy"], table["calls_low"], table["calls_high"], strict=True)
    }
    assert ends == {
        "recorded": (81, 81),
        # 20 madvise in 3 batches of one to three victims; mprotect and the sync as before; one munmap in one batch.
        "batch of 8": (3 + 12 + 1 + 6, 9 + 12 + 3 + 6),
        "INVLPGB": (6, 6),
        "RAR": (6, 6),
        "LATR": (6 + 3, 6 + 3 + 12),
        "RCU-freed tables": (75, 75),
    }
    few = what_if_sites(sites, 2)
    at = few["remedy"].tolist().index("INVLPGB")
    assert (few["calls_low"][at], few["calls_high"][at]) == (6, 81)
