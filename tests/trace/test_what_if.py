"""What would have helped against user shootdowns, from recordings of 6.12 and 7.3 whose truth was counted apart."""

from __future__ import annotations

import json
import lzma
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import Flush, user_flushes, what_if
from tlbcore.trace.remedies import remedies

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


def made_up(*calls: tuple[str, str, int, int, int, int]) -> SimpleNamespace:
    """A recording of remote calls: class, function, CPU, interrupt that ran it, and by whom and where it was queued."""
    names = ("class", "function", "cpu", "interrupt", "sender_cpu", "queued_line")
    columns = dict(zip(names, map(np.array, zip(*calls, strict=True)), strict=True))
    columns["queued_s"] = columns["queued_line"] / 10
    columns["initiator"] = np.array([f"task-{cpu}" for cpu in columns["sender_cpu"]])
    return SimpleNamespace(path="made up", calls=columns)


MADE_UP = made_up(
    ("user", "flush_tlb_func", 2, 7, 0, 20),
    ("user", "flush_tlb_func", 1, 6, 0, 20),
    ("user", "tlb_remove_table_smp_sync", 3, 8, 0, 20),  # waits for walkers: nobody's flush
    ("user", "flush_tlb_func", 1, 6, 5, 20),
    ("user", "flush_tlb_func", 1, 6, 0, 0),  # queued before the recording began
    ("kernel", "do_flush_tlb_all", 1, 9, 0, 30),
    ("user", "flush_tlb_func", 2, 7, 0, 10),
)


def test_calls_that_one_sender_queued_together_are_a_flush() -> None:
    assert user_flushes(MADE_UP) == flushes(
        (1.0, "task-0", {2}), (2.0, "task-0", {1, 2}), (2.0, "task-5", {1})
    )


def test_a_call_that_is_spared_spares_its_share_of_an_interrupt() -> None:
    """Five calls ran in two interrupts: two fifths of an interrupt each."""
    some = [
        Flush(at_s=1.0, who="wide", cpus=frozenset({1, 2, 3, 4}), tables=True),
        Flush(at_s=2.0, who="wide", cpus=frozenset({1, 2, 3, 4}), tables=None),
        Flush(at_s=3.0, who="narrow", cpus=frozenset({1, 2}), tables=False),
    ]
    figures = ("calls_low", "calls_high", "interrupts_low", "interrupts_high")
    table = what_if(MADE_UP, batches=[2], flushes=some)
    assert {remedy: tuple(row(table, remedy)[f] for f in figures) for remedy in table["remedy"].tolist()} == {
        "recorded": (10, 10, 4, 4),
        "batch of 2": (6, 6, 2, 2),
        "INVLPGB": (2, 2, 1, 1),
        "RAR": (0, 0, 0, 0),
        "LATR": (4, 8, 2, 3),
    }


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


# --- from the counts of a process


def sites(**columns):
    known = {"pages_min": [-1], "pages_max": [-1], "wait_ms": [0.0], "handler_ms": [0.0]}
    rows = len(columns["call"])
    names = [
        "call",
        "extent",
        "tables",
        "pages_min",
        "pages_max",
        "flushes",
        "shootdowns",
        "calls",
        "wait_ms",
        "handler_ms",
    ]
    return {name: np.array(columns.get(name, known.get(name, [""]) * rows)) for name in names}


FOUR = sites(
    call=["madvise(MADV_DONTNEED)", "mprotect", "munmap", "munmap"],
    extent=["ranged", "ranged", "full", "table_sync"],
    tables=["no", "not recorded", "yes", "yes"],
    pages_min=[1, 2, 40, -1],
    pages_max=[8, 33, 100, -1],
    flushes=[30, 4, 1, 2],
    shootdowns=[20, 4, 1, 2],
    calls=[60, 12, 3, 6],
    wait_ms=[60.0, 12.0, 3.0, 6.0],
    handler_ms=[6.0, 1.2, 0.3, 0.6],
)
BATCHES = [
    # 20 madvise in 3 batches, of one to three victims each.
    {"batch": 8, "call": "madvise(MADV_DONTNEED)", "calls": 60, "left": 3, "low": 3, "high": 9},
    {"batch": 8, "call": "munmap", "calls": 3, "left": 1, "low": 3, "high": 3},
]
HOW = {"batches": BATCHES, "running": (0.5, 0.75), "cpus": 4, "interrupts": 27, "cpu_seconds": 1.0}


def ends(table, *of: str) -> dict[str, tuple]:
    return {
        str(remedy): tuple(table[name][i].item() for name in of) for i, remedy in enumerate(table["remedy"])
    }


def test_what_remedies_leave_of_calls_is_counted_by_call_site():
    calls = ends(remedies(FOUR, **HOW), "calls_low", "calls_high")
    assert calls == {
        "recorded": (81, 81),
        "batch of 8": (3 + 12 + 3 + 6, 9 + 12 + 3 + 6),
        # Two CPUs fewer: of three victims at least one is left, and one at most.
        "pinned to 2 of 4 CPUs": (20 + 4 + 1 + 2, 20 + 4 + 1 + 2),
        "INVLPGB": (6, 6),
        "RAR": (6, 6),
        "LATR": (6 + 3, 6 + 3 + 12),
        "LUF": (12 + 3 + 6, 81),
        "early acknowledgement": (81, 81),
        "flush deferred to the context switch": (
            6 + 37,
            6 + 57,
        ),  # half and three quarters of 75, rounded outwards
        "RCU-freed tables": (75, 75),
        "flush ceiling of 512 pages": (81, 81),
    }
    few = ends(remedies(FOUR, **{**HOW, "cpus": 3}), "calls_low", "calls_high")
    assert few["INVLPGB"] == (6, 81), "no global ASID below four CPUs"


def test_interrupts_are_those_of_the_calls_that_are_left_and_may_be_unknown():
    interrupts = ends(remedies(FOUR, **HOW), "interrupts_low", "interrupts_high")
    assert interrupts["recorded"] == (27, 27)
    assert interrupts["batch of 8"] == (8, 10)  # a third of 24 and of 30
    unknown = ends(remedies(FOUR, **{**HOW, "interrupts": None}), "interrupts_low", "interrupts_high")
    assert set(unknown.values()) == {(-1, -1)}


def test_time_left_is_the_measured_one_scaled_and_what_a_broadcast_takes():
    share = ends(remedies(FOUR, **HOW), "share_low", "share_high")
    per_call = 1.1e-3  # 1 ms of waiting and 0.1 of handlers, of one second
    assert share["recorded"] == pytest.approx((81 * per_call, 81 * per_call))
    assert share["batch of 8"] == pytest.approx((24 * per_call, 30 * per_call))
    # Waits end a handler earlier, but where page tables are freed: 24 flushes of 0.1 ms.
    assert share["early acknowledgement"] == pytest.approx((81 * per_call - 24e-4, 81 * per_call))
    machine = tc.machine("zen4-epyc")
    low, high = (
        [getattr(machine.costs[name], end) / (machine.mhz * 1e6) for name in ("invlpgb", "tlbsync")]
        for end in ("low", "high")
    )
    # 1 page is one INVLPGB, 2 as well, everything as well; 8 pages are one, 33 are five.
    least = 25 * (low[0] + low[1])
    most = 30 * (high[0] + high[1]) + 4 * (5 * high[0] + high[1]) + high[0] + high[1]
    assert share["INVLPGB"] == pytest.approx((6 * per_call + least, 6 * per_call + most))
    assert all(math.isnan(end) for end in share["flush ceiling of 512 pages"]), "no machine was named"
    named = ends(remedies(FOUR, **HOW, machine=machine), "share_low", "share_high")
    page, write = machine.costs["invlpg"], machine.costs["mov_cr3_flush"]
    second = machine.mhz * 1e6
    assert named["flush ceiling of 512 pages"] == pytest.approx(
        (
            81 * per_call + 3 * (40 * page.low - write.high) / second,
            81 * per_call + 3 * (100 * page.high - write.low) / second,
        )
    )


def test_broadcasts_and_requests_are_charged_per_flush_that_asked_another_cpu():
    """Of unknown sizes: at least one INVLPGB a flush, at most what a ranged flush may hold; RAR per shootdown."""
    costs = {name: tc.machine("sapphire-rapids").costs["rar"] for name in ("rar", "invlpgb", "tlbsync")}
    machine = SimpleNamespace(name="made up", mhz=1000.0, costs=costs, invlpgb_extra=7)
    low, high = costs["rar"].low / 1e9, costs["rar"].high / 1e9
    one = sites(
        call=["munmap", "munmap", "munmap"],
        extent=["ranged", "full", "table_sync"],
        tables=["not recorded", "no", "not recorded"],
        pages_min=[0, 33, -1],
        pages_max=[0, 33, -1],
        flushes=[5, 3, 2],
        shootdowns=[2, 3, 2],
        calls=[4, 3, 2],
    )
    how = {**HOW, "batches": [], "cpu_seconds": 1.0, "machine": machine, "running": (0.0, 1.0)}
    share = ends(remedies(one, **how), "share_low", "share_high")
    assert share["RAR"] == pytest.approx((5 * low, 5 * high))
    # 33 pages are five broadcasts of eight; so may a ranged flush be whose size is unknown.
    assert share["INVLPGB"] == pytest.approx((2 * 2 * low + 3 * (5 + 1) * low, (5 + 3) * (5 + 1) * high))
    calls = ends(remedies(one, **how), "calls_low", "calls_high")
    assert calls["LATR"] == (2, 2 + 4), "a wait for walkers stays, whatever is known of tables"
    assert calls["flush deferred to the context switch"] == (2, 9)


def test_without_times_nothing_is_said_of_time():
    table = remedies(FOUR, **{**HOW, "cpu_seconds": None})
    assert np.isnan(table["share_low"]).all()
    assert np.isnan(table["share_high"]).all()


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("op", ["munmap", "mprotect", "dontneed", "tables"])
def test_batches_of_a_process_call_as_many_as_the_batched_variant_did(name: str, op: str) -> None:
    """Per flush: predicted from the phase with one page a call, counted in the phase with ten."""
    _, truth = read(name)
    found = tc.shootdowns(
        DATA / f"{name}.trace.txt.xz", process="shoot", between=(f"PH 0 op={op} pages=1 ", "PE"), batches=[8]
    )
    single = truth["by_phase"][f"0 op={op} pages=1 peers=3 state=spin"]
    assert int(found.call_sites["calls"].sum()) == sum(single[f"queued cpu{cpu}"] for cpu in (1, 2, 3))
    table = found.what_if
    at = table["remedy"].tolist().index("batch of 8")
    batches = -(-single["multi"] // 8)
    ten = truth["by_phase"][f"0 op={op} pages=10 peers=3 state=spin"]
    real = sum(ten[f"queued cpu{cpu}"] for cpu in (1, 2, 3)) / ten["multi"]
    for end in ("calls_low", "calls_high", "interrupts_low", "interrupts_high"):
        assert table[end][at] / batches == pytest.approx(real, rel=0.1), end
