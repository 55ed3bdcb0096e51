"""The array interface: what it returns, what it keeps, what it refuses."""

from __future__ import annotations

import copy
import pickle
import threading
import time
import warnings

import numpy as np
import pytest
from tests import raced

import tlbcore as tc

PEERS = "peers-64x4-1536x12"


def pages(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


def event(
    op: str, vpn: int = 0, *, pcid: int = 0, cpu: int = 0, count: int = 0, flags: int = 0
) -> np.ndarray:
    one = np.zeros(1, dtype=tc.EVENT)
    one[0] = (vpn, pcid, cpu, count, tc.OPS[op], flags)
    return one


def test_levels_and_counters_tell_the_same_story():
    result = tc.Tlb(PEERS).access(pages(*range(100), 99, 0))
    assert result.levels.dtype == np.uint8
    assert result.levels[-2:].tolist() == [0, 1]
    assert (result.l1_hits, result.stlb_hits, result.walks) == (1, 1, 100)
    assert result.accesses == 102
    assert result.walk_loads == 400
    assert dict(result.counters)["walks"] == 100


def test_state_persists_from_call_to_call_and_counts_are_those_of_the_call():
    tlb = tc.Tlb(PEERS)
    assert tlb.access(pages(7)).walks == 1
    assert tlb.access(pages(7)).walks == 0
    assert tlb.counters["accesses"] == 2


def test_counts_only_returns_no_levels():
    assert tc.Tlb(PEERS).access(pages(1, 2), counts_only=True).levels is None


def test_an_unknown_counter_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match="no counter 'misses': there are accesses, l1_hits"):
        _ = tc.Tlb(PEERS).access(pages(1)).misses


def test_contexts_do_not_answer_for_each_other_and_globals_answer_all():
    tlb = tc.Tlb(PEERS)
    tlb.access(pages(7), pcid=1)
    assert tlb.access(pages(7), pcid=2).walks == 1
    tlb.run(event("load", 9, pcid=1, flags=tc.FLAGS["GLOBAL"]))
    assert tlb.access(pages(9), pcid=2).walks == 0


def test_a_huge_page_answers_for_all_its_pages():
    tlb = tc.Tlb("skylake-sp")
    tlb.access(pages(512), page_size=2 << 20)
    assert tlb.access(pages(1023), page_size=2 << 20).l1_hits == 1
    assert tlb.access(pages(1024), page_size=2 << 20).walks == 1


def test_loads_stores_and_fetches_use_the_structures_that_serve_them():
    tlb = tc.Tlb("ice-lake-sp")
    tlb.access(pages(7), kind="load")
    assert tlb.access(pages(7), kind="store").levels.tolist() == [1]
    assert tlb.access(pages(7), kind="fetch").levels.tolist() == [1]
    assert tlb.access(pages(7), kind="store").levels.tolist() == [0]


def test_smt_halves_what_siblings_split():
    whole, half = tc.Tlb("skylake-sp"), tc.Tlb("skylake-sp", smt=True)
    code = pages(*range(128), *range(128))
    assert whole.access(code, kind="fetch").l1_hits == 128
    assert half.access(code, kind="fetch").l1_hits < 128


def test_ideal_pcid_keeps_what_a_real_l1_loses():
    switch = np.array([1, 2, 1], dtype=np.uint16)
    assert tc.Tlb("skylake-sp").access(pages(7, 8, 7), switch).levels.tolist() == [2, 2, 1]
    assert tc.Tlb("skylake-sp", ideal_pcid=True).access(pages(7, 8, 7), switch).levels.tolist() == [2, 2, 0]


def test_entries_show_everything_cached_newest_first():
    tlb = tc.Tlb(PEERS)
    tlb.access(pages(16, 32), pcid=3)
    table = tlb.entries()
    first = table["level"] == 0
    assert table["vpn"][first].tolist() == [32, 16]
    assert table["way"][first].tolist() == [0, 1]
    assert set(table["pcid"].tolist()) == {3}
    assert set(table["page_size_bytes"].tolist()) == {4096}
    assert {len(values) for values in table.values()} == {4}


def test_a_stale_entry_is_marked_hit_and_gone_after_invlpg():
    tlb = tc.Tlb(PEERS, cpus=2)
    tlb.run(np.concatenate([event("load", 7, pcid=1), event("load", 7, pcid=1, cpu=1)]))
    tlb.run(event("edit", 7, pcid=1))
    assert tlb.entries()["stale"].all()
    assert tlb.run(event("load", 7, pcid=1, cpu=1)).stale_hits == 1
    tlb.run(event("invlpg", 7, cpu=1))
    result = tlb.run(event("load", 7, pcid=1, cpu=1))
    assert (result.walks, result.stale_hits) == (1, 0)
    assert tlb.run(event("load", 7, pcid=1, cpu=0)).stale_hits == 1, "the other CPU was not asked"


def test_counters_of_each_cpu_add_up():
    tlb = tc.Tlb(PEERS, cpus=3)
    tlb.run(np.concatenate([event("load", n, cpu=n % 2) for n in range(9)]))
    assert tlb.per_cpu["accesses"].tolist() == [5, 4, 0]
    assert tlb.counters["walks"] == 9


def test_copies_and_pickles_continue_alike_and_apart():
    tlb = tc.Tlb("skylake-sp", cpus=2, smt=True)
    rng = np.random.default_rng(1)
    tlb.access(rng.integers(0, 4000, 5000, dtype=np.uint64), pcid=3, cpu=1)
    twins = [copy.copy(tlb), copy.deepcopy(tlb), pickle.loads(pickle.dumps(tlb)), tlb.copy()]
    more = rng.integers(0, 4000, 5000, dtype=np.uint64)
    wanted = tlb.access(more, cpu=1).levels.tolist()
    for twin in twins:
        assert twin != tlb
        assert twin.access(more, cpu=1).levels.tolist() == wanted
        assert twin == tlb


def test_reset_empties_and_zeroes():
    tlb = tc.Tlb(PEERS)
    tlb.access(pages(1, 2, 3))
    tlb.reset()
    assert len(tlb.entries()["vpn"]) == 0
    assert not any(tlb.counters.values())
    assert tlb == tc.Tlb(PEERS)


def test_repr_recreates_it():
    assert repr(tc.Tlb("skylake-sp", cpus=4, smt=True)) == "Tlb('skylake-sp', cpus=4, smt=True)"
    assert repr(tc.Tlb(PEERS)) == f"Tlb({PEERS!r})"


def test_two_threads_on_one_tlb_are_told_so_and_lose_nothing():
    tlb = tc.Tlb("skylake-sp")
    many = np.random.default_rng(1).integers(0, 100_000, 6_000_000, dtype=np.uint64)
    worker = threading.Thread(target=lambda: tlb.access(many, counts_only=True))
    worker.start()
    refused = 0
    while worker.is_alive():
        try:
            tlb.access(pages(1))
        except tc.TlbError as error:
            assert "in use by another thread" in str(error)  # noqa: PT017
            refused += 1
        time.sleep(0.001)
    worker.join()
    assert refused > 0
    assert tlb.counters["accesses"] >= len(many)


# Arrays: what is read in place, what is converted, what is refused.


def test_read_only_strided_and_other_integer_arrays_are_accepted():
    base = np.arange(20, dtype=np.uint64)
    frozen = base.copy()
    frozen.flags.writeable = False
    forms = [
        frozen,
        base[::1],
        np.repeat(base, 2)[::2],
        base.astype(np.int64),
        base.astype(np.uint8),
        list(range(20)),
    ]
    forms.append(base.astype(">u8"))
    for form in forms:
        assert tc.Tlb(PEERS).access(form).walks == 20


def test_an_empty_array_counts_nothing():
    for empty in ([], pages(), np.empty(0, dtype=np.int64)):
        result = tc.Tlb(PEERS).access(empty)
        assert len(result.levels) == 0
        assert not any(result.counters.values())
    assert not any(tc.Tlb(PEERS).run(np.empty(0, dtype=tc.EVENT)).counters.values())


@pytest.mark.slow
def test_a_thousand_million_pages_are_read_without_a_copy():
    import resource

    many = np.zeros(10**9, dtype=np.uint64)
    tlb = tc.Tlb(PEERS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert tlb.access(many, counts_only=True).walks == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 9_000_000


BAD_PAGES = [
    ([1.0, 2.0], TypeError, "vpn must hold integers: got float64"),
    ([1.0, float("nan")], TypeError, "with nan at index 1"),
    (["a"], TypeError, "vpn must hold integers"),
    ([True], TypeError, "vpn must hold integers"),
    ([[1, 2]], tc.TlbError, r"vpn must have one dimension: got shape \(1, 2\)"),
    ([3, -1], tc.TlbError, r"vpn\[1\] must be between 0 and"),
    (np.array([3, -1]), tc.TlbError, r"vpn\[1\] must be between 0 and \d+: got -1"),
    (np.array([3, 4, -7], dtype=np.int32), tc.TlbError, r"vpn\[2\] must be between 0 and \d+: got -7"),
    (np.array([3, 1 << 50]), tc.TlbError, r"vpn\[1\]: vpn must be the page number of a canonical"),
    (
        np.array([1, 1 << 45], dtype=np.uint64),
        tc.TlbError,
        r"vpn\[1\]: vpn must be the page number of a canonical",
    ),
    (np.array([1, 2**64 - 1], dtype=np.uint64), tc.TlbError, r"vpn\[1\]"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD_PAGES)
def test_bad_pages_are_refused_by_place_and_change_nothing(bad, error, message):
    tlb = tc.Tlb(PEERS)
    tlb.access(pages(5))
    before = tlb.copy()
    with pytest.raises(error, match=message):
        tlb.access(bad)
    assert tlb == before


@pytest.mark.parametrize("at", [0, 4_999, 5_000_000])
def test_one_bad_page_in_a_long_stream_changes_nothing(at):
    stream = np.random.default_rng(1).integers(0, 4000, at + 5000, dtype=np.uint64)
    stream[at] = 1 << 50
    tlb = tc.Tlb(PEERS)
    tlb.access(pages(5))
    before = tlb.copy()
    with pytest.raises(tc.TlbError, match=rf"vpn\[{at}\]"):
        tlb.access(stream, counts_only=True)
    assert tlb == before


BAD_ARGUMENTS = [
    ({"pcid": 4096}, tc.TlbError, "must be between 0 and 4095: got 4096"),
    ({"pcid": -1}, tc.TlbError, "must be between 0 and 4095"),
    ({"pcid": 1.5}, TypeError, "pcid must hold integers"),
    ({"pcid": np.array([1, 2, 5000])}, tc.TlbError, r"pcid\[2\] must be between 0 and 4095: got 5000"),
    ({"pcid": np.array([1, 2, 5000], dtype=np.uint16)}, tc.TlbError, r"pcid\[2\]: pcid must be at most 4095"),
    ({"pcid": np.array([1, 2], dtype=np.uint16)}, tc.TlbError, r"pcid: must be as long as vpn \(3\): got 2"),
    ({"kind": "read"}, tc.TlbError, 'kind must be "load", "store" or "fetch": got "read"'),
    ({"page_size": 8192}, tc.TlbError, "page_size must be 4096, 2097152 or 1073741824 bytes: got 8192"),
    ({"page_size": 2 << 20}, tc.TlbError, "no level of peers-64x4-1536x12 holds 2M pages for load accesses"),
    ({"cpu": 1}, tc.TlbError, "cpu must be below 1: got 1"),
    ({"cpu": -1}, tc.TlbError, "cpu must be below 1: got -1"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_and_change_nothing(arguments, error, message):
    tlb = tc.Tlb(PEERS)
    before = tlb.copy()
    with pytest.raises(error, match=message):
        tlb.access(pages(1, 2, 3), **arguments)
    assert tlb == before


def changed(**fields: int) -> np.ndarray:
    three = np.zeros(3, dtype=tc.EVENT)
    for name, value in fields.items():
        three[name][2] = value
    return three


@pytest.mark.parametrize("contexts", [126, 127, 128, 300, 4095])
def test_contexts_are_told_apart_however_many_there_are(contexts: int):
    """A page of its own in each, then one page in all: nobody finds what another has brought."""
    events = np.zeros(3 * contexts, dtype=tc.EVENT)
    events["op"] = event("load", 0)["op"]
    events["pcid"] = np.tile(np.arange(1, contexts + 1), 3)
    events["vpn"][:contexts] = 1000 + np.arange(contexts)
    events["vpn"][contexts:] = 7
    results = [tc.Tlb(PEERS).run(part) for part in (events, events[: 2 * contexts])]
    ways = 12  # of its second level, all of them taken by the last who came
    assert results[1].walks == 2 * contexts
    assert results[0].walks == 3 * contexts
    last = tc.Tlb(PEERS)
    last.run(events[: 2 * contexts])
    assert last.run(events[2 * contexts - ways : 2 * contexts]).walks == 0


BAD_EVENTS = [
    (changed(op=12), r"op\[2\]: must be at most 11: got 12"),
    (changed(cpu=2), r"cpu\[2\]: must be below 2: got 2"),
    (changed(pcid=4096), r"pcid\[2\]: must be at most 4095: got 4096"),
    (changed(vpn=1 << 60), r"vpn\[2\]: vpn must be the page number"),
    (changed(flags=12), r"flags\[2\]: page size must be"),
    (changed(flags=4), r"flags\[2\]: no level holds 2M pages for load accesses"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_EVENTS)
def test_bad_events_are_refused_by_place_and_change_nothing(bad, message):
    tlb = tc.Tlb(PEERS, cpus=2)
    before = tlb.copy()
    with pytest.raises(tc.TlbError, match=message):
        tlb.run(bad)
    assert tlb == before


def test_events_of_another_dtype_are_refused():
    with pytest.raises(TypeError, match=r"events must have dtype tlbcore\.EVENT: got uint64"):
        tc.Tlb(PEERS).run(pages(1))
    with pytest.raises(tc.TlbError, match="one dimension"):
        tc.Tlb(PEERS).run(np.zeros((2, 2), dtype=tc.EVENT))


def test_strided_events_are_read_as_they_stand():
    events = np.zeros(10, dtype=tc.EVENT)
    events["vpn"] = np.arange(10)
    assert tc.Tlb(PEERS).run(events[::2]).walks == 5


@pytest.mark.parametrize("cpus", [0, -1, 5000, 1.5])
def test_a_number_of_cpus_that_no_machine_has_is_refused(cpus):
    with pytest.raises(tc.TlbError, match="cpus must be a whole number from 1 to 4096"):
        tc.Tlb(PEERS, cpus=cpus)


def test_a_state_of_another_shape_is_refused():
    state = tc.Tlb("skylake-sp").__getstate__()
    with pytest.raises(tc.TlbError, match="must come from the same geometry"):
        tc.Tlb(PEERS).__setstate__({**state, "machine": tc.machine(PEERS)})


def test_ctrl_c_stops_a_long_call():
    """Signals are looked at between blocks of about 50 ms. With levels no access is left out as a repeat."""
    import signal

    many = np.zeros(200_000_000, dtype=np.uint64)
    tlb = tc.Tlb("zen4-epyc")
    main = threading.main_thread().ident
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            tlb.access(many)
    finally:
        timer.cancel()
        timer.join()
    assert tlb.counters["accesses"] < len(many)


@pytest.mark.parametrize("machine", raced.MACHINES)
def test_an_array_that_another_thread_writes_to_is_refused_or_run_and_never_a_fault(machine: str):
    """Issue 17: a CPU number that was checked in the caller's array and read there again."""
    ran, refused = raced.race(machine, 1.0, 1 << 18)
    assert ran + refused > 3


@pytest.mark.parametrize("count", [100, 20_000, 400_000])
def test_a_refused_run_changes_nothing_wherever_the_bad_event_stands(count: int):
    rng = np.random.default_rng(2)
    events = np.zeros(count, dtype=tc.EVENT)
    events["cpu"] = rng.integers(0, 4, count)
    events["vpn"] = rng.integers(0, 500, count)
    for machine in (PEERS, "skylake-sp"):
        tlb = tc.Tlb(machine, cpus=4)
        tlb.run(events)
        before = tlb.copy()
        for place in (0, count // 2, count - 1):
            bad = events.copy()
            bad["cpu"][place] = 4
            with pytest.raises(tc.TlbError, match=rf"cpu\[{place}\]: must be below 4: got 4"):
                tlb.run(bad)
            assert tlb == before


def test_addresses_are_pages_and_pages_that_look_like_addresses_are_warned_of():
    address = np.array([0x7F00_1234_5678, 0x7F00_1234_6000, 0xFFFF_FFFF_8100_0000], dtype=np.uint64)
    by_page, by_address = tc.Tlb(PEERS), tc.Tlb(PEERS)
    by_page.access(address >> 12)
    by_address.access(address=address)
    assert by_page == by_address
    signed = tc.Tlb(PEERS)
    signed.access(address=address.view(np.int64))
    assert signed == by_page
    assert sorted(by_page.entries()["vpn"][by_page.entries()["level"] == 0]) == sorted(address >> 12)
    with pytest.warns(UserWarning, match=r"multiples of 4096 .*address="):
        tc.Tlb(PEERS).access(np.array([0x400000, 0x401000, 0x600000]))
    with pytest.raises(tc.TlbError, match=r"address\[1\] must be canonical: got 0x800000000000000"):
        tc.Tlb(PEERS).access(address=[1, 1 << 59])
    with pytest.raises(TypeError, match="one of them"):
        tc.Tlb(PEERS).access([1], address=[1])


def test_the_first_and_the_last_address_of_either_half_is_taken_and_none_between():
    """57-bit addresses; however an array has its bytes."""
    ends = np.array([0, (1 << 56) - 1, 0xFF << 56, (1 << 64) - 1], dtype=np.uint64)
    by_page = tc.Tlb(PEERS)
    by_page.access(ends >> np.uint64(12))
    for form in (ends, ends.astype(">u8"), ends.view(np.int64), ends.tolist()):
        by_address = tc.Tlb(PEERS)
        assert by_address.access(address=form).walks == 4
        assert by_address == by_page
    for beyond in (1 << 56, (0xFF << 56) - 1, 1 << 63):
        with pytest.raises(tc.TlbError, match=rf"address\[1\] must be canonical: got {beyond:#x}$"):
            tc.Tlb(PEERS).access(address=[5, beyond])
    for no_address in ([1 << 64, 1], [-1, (1 << 64) - 1], [5.0, 1 << 63]):
        with pytest.raises(TypeError, match="address must hold integers"):
            tc.Tlb(PEERS).access(address=no_address)


def test_pages_are_of_context_0_on_cpu_0_if_nothing_else_is_said():
    tlb = tc.Tlb(PEERS, cpus=2)
    tlb.access(pages(7))
    table = tlb.entries()
    assert (set(table["pcid"].tolist()), set(table["cpu"].tolist())) == ({0}, {0})


def test_pages_beside_addresses_are_refused_in_the_form_that_is_quickest_too():
    tlb = tc.Tlb(PEERS)
    with pytest.raises(TypeError, match="one of them"):
        tlb.access(pages(1), address=pages(1 << 12))
    with pytest.raises(TypeError, match="one of them"):
        tlb.access()
    assert tlb == tc.Tlb(PEERS)


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ([1 << 16, 2 << 16], True),
        ([1 << 16, 1 << 16], False),  # one page again and again may be any
        ([(1 << 16) - 4096, 2 << 16], False),  # low pages
        ([1 << 16], False),
        ([*(n << 16 for n in range(1, 65)), 3], True),  # the first 64 are looked at
        ([*(n << 16 for n in range(1, 64)), 3], False),
        ([1 << 16, (2 << 16) + 1, 3 << 16], False),
        ([(1 << 16) + 1, 2 << 16, 3 << 16], False),
    ],
)
def test_what_is_taken_for_addresses(given: list[int], warned: bool):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        tc.Tlb(PEERS).access(np.array(given, dtype=np.uint64))
    assert [str(one.message) for one in seen] == [
        "vpn holds multiples of 4096 (0x10000, ...): byte addresses go into address=, page numbers are address >> 12"
    ] * warned
    assert [one.filename for one in seen] == [__file__] * warned, "the caller's line is shown"


@pytest.mark.parametrize("field", ["vpn", "pcid", "address"])
def test_a_masked_array_is_refused(field: str):
    masked = np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])
    given = {"vpn": [1, 2, 3], field: masked}
    if field == "address":
        del given["vpn"]
    with pytest.raises(tc.TlbError, match=f"{field} must hold a value everywhere"):
        tc.Tlb(PEERS).access(**given)


def test_a_short_call_is_the_same_however_its_pages_come():
    rng = np.random.default_rng(7)
    for machine in (PEERS, "skylake-sp", "zen4-epyc"):
        tlbs = {}
        for call in range(40):
            count = int(rng.choice([0, 1, 2, 7, 8, 64, 256, 257, 4096, 1 << 14, (1 << 14) + 1]))
            pages = rng.integers(0, 3000, count, dtype=np.uint64)
            pcid, kind = int(rng.integers(0, 3)), ("load", "store", "fetch")[rng.integers(0, 3)]
            forms = {kind: pages.astype(kind) for kind in ("u8", "i8", "u4", "i4", "u2", ">u8", ">i4")}
            forms["strided"] = np.repeat(pages, 2)[::2]
            forms["list"] = pages.tolist()
            forms["subclass"] = pages.view(np.memmap)
            forms["plain"] = pages
            for name, form in forms.items():
                tlb = tlbs.setdefault(name, tc.Tlb(machine))
                contexts = np.int16(pcid) if name == "i8" else pcid
                result = tlb.access(form, contexts, kind, np.int64(4096) if name == "u4" else 4096)
                counted = tlbs.setdefault("counts", tc.Tlb(machine))
                if name == "plain":
                    counts = counted.access(form, pcid, kind, counts_only=1)
                    assert counts.levels is None
                    assert counts.counters == result.counters
                    assert sum(result.levels == 0) == result.counters["l1_hits"]
                    assert result.levels.dtype == np.uint8
            for name, tlb in tlbs.items():
                assert tlb == tlbs["plain"], (machine, call, name)


def test_a_short_call_is_refused_as_a_long_one():
    for count in (2, 300, 20_000):
        pages = np.full(count, 5, dtype=np.int64)
        tlb = tc.Tlb("peers-64x4-1536x12", cpus=2)
        for arguments, said in (
            ({"pcid": 4096}, "4096"),
            ({"pcid": -1}, "-1"),
            ({"cpu": 2}, "cpu must be below 2: got 2"),
            ({"page_size": -4096}, "page_size .*-4096"),
            ({"page_size": 1 << 30}, "1 ?G"),
            ({"kind": "read"}, "read"),
        ):
            with pytest.raises(tc.TlbError, match=said):
                tlb.access(pages, **arguments)
        pages[1] = -1
        with pytest.raises(tc.TlbError, match=r"vpn\[1\] must be between 0 and \d+: got -1"):
            tlb.access(pages)
        assert tlb == tc.Tlb("peers-64x4-1536x12", cpus=2)
        with pytest.warns(UserWarning, match="byte addresses"):
            tlb.access((np.arange(count, dtype=np.uint64) + 99) << np.uint64(12))


def test_pages_of_several_sizes_by_array_are_those_accesses_one_by_one():
    rng = np.random.default_rng(21)
    for machine in ("skylake-sp", "sapphire-rapids", "zen4-epyc"):
        for kind in ("load", "fetch"):
            regions = rng.integers(0, 40, 3000, dtype=np.uint64)
            sizes = np.array([4096, 2 << 20, 1 << 30])[(regions % np.uint64(3)).astype(int)]
            pages = (regions << np.uint64(18)) + rng.integers(0, 600, 3000, dtype=np.uint64)
            pcid = np.repeat(rng.integers(0, 3, 300, dtype=np.uint16), 10)
            slow, levels = tc.Tlb(machine, cpus=2), []
            for page, context, size in zip(pages, pcid, sizes, strict=True):
                levels += slow.access([page], int(context), kind, int(size), cpu=1).levels.tolist()
            found = tc.Tlb(machine, cpus=2)
            result = found.access(pages, pcid, kind, sizes, cpu=1)
            assert result.levels.tolist() == levels
            assert found == slow
            assert result.counters == slow.counters
            again = tc.Tlb(machine, cpus=2)
            counted = again.access(
                address=pages << np.uint64(12),
                pcid=pcid,
                kind=kind,
                page_size=sizes.tolist(),
                cpu=1,
                counts_only=True,
            )
            assert counted.levels is None
            assert again == slow
    one = tc.Tlb("skylake-sp")
    one.access([1, 2], 7, "store", [4096, 4096])
    same = tc.Tlb("skylake-sp")
    same.access([1, 2], 7, "store")
    assert one == same


def test_page_sizes_that_are_none_are_refused():
    tlb = tc.Tlb("peers-64x4-1536x12")
    for arguments, said in (
        ({"page_size": [4096, 8192]}, r"page_size\[1\] must be 4096, 2097152 or 1073741824 bytes: got 8192"),
        ({"page_size": [4096]}, r"page_size: must be as long as vpn .2.: got 1"),
        ({"page_size": [4096, 4096], "pcid": [1]}, r"pcid: must be as long as vpn .2.: got 1"),
        ({"page_size": [4096, -4096]}, "page_size.*-4096"),
        ({"page_size": [[4096, 4096]]}, "page_size must have one dimension"),
        ({"page_size": [4096, 2 << 20]}, "2M"),
        ({"page_size": [4096, 4096], "kind": "read"}, 'kind must be "load", "store" or "fetch": got .read.'),
        ({"page_size": [4096, 4096], "cpu": 1}, "cpu must be below 1: got 1"),
    ):
        with pytest.raises(tc.TlbError, match=said):
            tlb.access([1, 2], **arguments)
    with pytest.raises(TypeError, match="page_size must hold integers"):
        tlb.access([1, 2], page_size=[4096.0, 4096.0])
    with pytest.raises(tc.TlbError, match=r"vpn\[1\]"):
        tlb.access(np.array([1, 1 << 50], dtype=np.uint64), page_size=[4096, 4096])
    assert tlb == tc.Tlb("peers-64x4-1536x12")
