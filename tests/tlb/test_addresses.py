"""Address traces of other tools: every format gives the same accesses, and what they do to TLBs is right."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tlbcore as tc
from tlbcore.cli import main

WALK = Path(__file__).parents[1] / "data" / "addresses" / "walk.lackey.txt.xz"
LOAD, STORE, FETCH = (tc.OPS[name] for name in ("load", "store", "fetch"))

# (address, kind, cpu), as every format that can say it must give them back.
ACCESSES = [
    (0x401000 + 16 * n, FETCH, 0) if n % 3 == 0 else (0x7FF000000000 + n * 5000, n % 3 - 1, 0)
    for n in range(900)
]


def all_of(trace: tc.Addresses) -> list[tuple[int, int, int]]:
    return [row for a, k, c in trace for row in zip(a.tolist(), k.tolist(), c.tolist(), strict=True)]


def lackey(accesses: list[tuple[int, int, int]]) -> bytes:
    words = {LOAD: " L", STORE: " S", FETCH: "I "}
    return "".join(f"{words[kind]} {address:08x},4\n" for address, kind, _ in accesses).encode()


def csv(accesses: list[tuple[int, int, int]]) -> bytes:
    words = {LOAD: "load", STORE: "store", FETCH: "fetch"}
    rows = "".join(f"{cpu},{words[kind]},{address:#x}\n" for address, kind, cpu in accesses)
    return f"cpu,kind,address\n{rows}".encode()


def drmemtrace(accesses: list[tuple[int, int, int]]) -> bytes:
    types = {LOAD: 0, STORE: 1, FETCH: 10}
    out = struct.pack("<HHQ", 25, 0, 5)
    cpu = 0
    for address, kind, on in accesses:
        if on != cpu:
            cpu = on
            out += struct.pack("<HHQ", 28, 3, cpu)
        out += struct.pack("<HHQ", types[kind], 4, address)
    return out + struct.pack("<HHQ", 26, 0, 0)


def champsim(accesses: list[tuple[int, int, int]]) -> bytes:
    """Groups of fetch, load, store, as ACCESSES has them."""
    out = b""
    for fetch, load, store in zip(accesses[::3], accesses[1::3], accesses[2::3], strict=True):
        assert (fetch[1], load[1], store[1]) == (FETCH, LOAD, STORE)
        out += struct.pack("<QBB6x2Q4Q", fetch[0], 0, 0, store[0], 0, load[0], 0, 0, 0)
    return out


def zipped(data: bytes, file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(0, len(data), 5000):
            archive.writestr(f"trace.{index // 5000:04}", data[index : index + 5000])


def npy(accesses: list[tuple[int, int, int]], file: Path) -> None:
    fields = np.dtype([("vaddr", "<u8"), ("kind", "u1"), ("cpu", "<i4")])
    with file.open("wb") as stream:
        np.save(stream, np.array(accesses, dtype=fields))


def parquet(accesses: list[tuple[int, int, int]], file: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra `tables`")
    import pyarrow.parquet as pq

    names = ["load", "store", "fetch"]
    address, kind, cpu = zip(*accesses, strict=True)
    columns = {"address": pa.array(address, pa.uint64()), "kind": [names[k] for k in kind], "cpu": list(cpu)}
    pq.write_table(pa.table(columns), file, row_group_size=100)


FORMATS: dict[str, tuple[str, Callable[[list[tuple[int, int, int]], Path], Any]]] = {
    "lackey": ("lackey", lambda a, f: f.write_bytes(lackey(a))),
    "lackey.xz": ("lackey", lambda a, f: f.write_bytes(lzma.compress(lackey(a)))),
    "csv": ("csv", lambda a, f: f.write_bytes(csv(a))),
    "csv.gz": ("csv", lambda a, f: f.write_bytes(gzip.compress(csv(a)))),
    "drmemtrace": ("drmemtrace", lambda a, f: f.write_bytes(drmemtrace(a))),
    "drmemtrace.gz": ("drmemtrace", lambda a, f: f.write_bytes(gzip.compress(drmemtrace(a)))),
    "drmemtrace.zip": ("drmemtrace", lambda a, f: zipped(drmemtrace(a), f)),
    "champsim.xz": ("champsim", lambda a, f: f.write_bytes(lzma.compress(champsim(a)))),
    "npy": ("npy", npy),
    "parquet": ("parquet", parquet),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("chunk", [64, 100, 1 << 20])
def test_every_format_gives_the_same_accesses_in_chunks_of_any_size(
    name: str, chunk: int, tmp_path: Path
) -> None:
    file = tmp_path / "trace"  # the name tells nothing
    wanted, write = FORMATS[name]
    write(ACCESSES, file)
    trace = tc.addresses(file, chunk=chunk)
    assert trace.format == wanted
    for _ in range(2):  # iterating again begins again
        chunks = list(trace)
        assert all(len(piece.address) <= chunk for piece in chunks)
        assert [column.dtype for column in chunks[0]] == [np.uint64, np.uint8, np.uint16]
        assert all_of(trace) == ACCESSES


@pytest.mark.parametrize("name", ["csv", "drmemtrace", "npy", "parquet"])
def test_kinds_cpus_and_a_limit_choose(name: str, tmp_path: Path) -> None:
    accesses = [(address, kind, n % 4) for n, (address, kind, _) in enumerate(ACCESSES)]
    file = tmp_path / "trace"
    FORMATS[name][1](accesses, file)
    assert all_of(tc.addresses(file)) == accesses
    chosen = tc.addresses(file, kinds=["store"], cpu=3, limit=500)
    assert all_of(chosen) == [row for row in accesses[:500] if row[1:] == (STORE, 3)]


def slow_lru(pages: list[int], sets: int, ways: int) -> list[bool]:
    """Whether each access hits: an LRU list per set, written for this test."""
    tlb: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(sets)]
    hits = []
    for page in pages:
        row = tlb[page % sets]
        hits.append(page in row)
        row[page] = None
        row.move_to_end(page)
        if len(row) > ways:
            row.popitem(last=False)
    return hits


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([LOAD, STORE, FETCH])), min_size=1, max_size=400),
)
def test_a_file_counts_what_an_independent_lru_counts(
    tmp_path_factory: pytest.TempPathFactory, accesses: Any
) -> None:
    file = tmp_path_factory.mktemp("lru") / "trace"
    file.write_bytes(lackey([(0x10000 + page * 4096 + 7, kind, 0) for page, kind in accesses]))
    found = tc.translate(file, machine="peers-64x4-1536x12")
    pages = [16 + page for page, _ in accesses]
    near = slow_lru(pages, 16, 4)
    far_pages = [page for page, hit in zip(pages, near, strict=True) if not hit]
    far = slow_lru(far_pages, 128, 12)
    assert found.table["l1_hits"].sum() == sum(near)
    assert found.table["stlb_hits"].sum() == sum(far)
    assert found.table["walks"].sum() == len(far) - sum(far)
    for kind in ("load", "store", "fetch"):
        rows = found.table["kind"] == kind
        hits = sum(hit for hit, (_, k) in zip(near, accesses, strict=True) if k == tc.OPS[kind])
        assert found.table["l1_hits"][rows].sum() == hits


def test_pycachesim_counts_the_same_on_the_same_file() -> None:
    cachesim = pytest.importorskip("cachesim", reason="the peer simulator pycachesim is not installed")
    memory = cachesim.MainMemory()
    far = cachesim.Cache("stlb", 128, 12, 4096, "LRU")
    near = cachesim.Cache("l1", 16, 4, 4096, "LRU", load_from=far, store_to=far)
    memory.load_to(far)
    memory.store_from(far)
    peer = cachesim.CacheSimulator(near, memory)
    for address, _, _ in tc.addresses(WALK):
        for one in address.tolist():
            peer.load(one, length=1)
    found = tc.translate(WALK, machine="peers-64x4-1536x12").table
    assert (found["l1_hits"].sum(), found["stlb_hits"].sum(), found["walks"].sum()) == (
        near.stats()["HIT_count"], far.stats()["HIT_count"], far.stats()["MISS_count"],
    )  # fmt: skip


def test_the_bundled_walk_counts_what_its_program_does() -> None:
    """`walk.c` reads 96 pages three times, from one page of code.

    96 pages in 16 sets are 6 each: 4 ways never hit in cyclic order, and 1536 entries hold all from the second round.
    """
    found = tc.translate(WALK, machine="peers-64x4-1536x12")
    table = {name: found.table[name].tolist() for name in found.table}
    assert table == {
        "cpu": [0, 0],
        "kind": ["load", "fetch"],
        "accesses": [3 * 96, 1453],
        "l1_hits": [0, 1452],
        "l1_misses": [288, 1],
        "stlb_hits": [192, 0],
        "stlb_misses": [96, 1],
        "walks": [96, 1],
        "walk_ratio": [1 / 3, 1 / 1453],
    }
    assert found.counters["accesses"].tolist() == [288 + 1453]
    curve = tc.miss_curve(tc.addresses(WALK, kinds=["load"]), sets=[16, 32], ways=8)
    misses = curve.to_pandas().set_index(["sets", "ways"])["misses"] if _has("pandas") else None
    assert curve.table.tolist() == [[288] * 5 + [96] * 3, [288] * 2 + [96] * 6]
    assert misses is None or misses[(16, 6)] == 96


def _has(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_a_curve_over_a_file_is_the_curve_over_its_pages(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    addresses = (rng.zipf(1.3, 20_000) % 5000 + (rng.integers(0, 2, 20_000) << 35)).astype(
        np.uint64
    ) << np.uint64(12)
    np.save(tmp_path / "trace.npy", addresses)
    found = tc.miss_curve(tc.addresses(tmp_path / "trace.npy", chunk=777), sets=[1, 64], ways=16)
    assert np.array_equal(found.table, tc.miss_curve(addresses >> np.uint64(12), sets=[1, 64], ways=16).table)
    assert found.accesses == 20_000
    for arguments in ({"flushes": [3]}, {"pcid": 1}, {"pcid": np.zeros(20_000, dtype=np.uint16)}):
        with pytest.raises(TypeError, match="one context and no flushes"):
            tc.miss_curve(tc.addresses(tmp_path / "trace.npy"), **arguments)


def test_cpus_have_tlbs_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_bytes(csv([(0x1000, LOAD, 0), (0x1000, LOAD, 7), (0x1000, STORE, 7)]))
    found = tc.translate(file, machine="peers-64x4-1536x12").table
    assert list(zip(found["cpu"].tolist(), found["kind"].tolist(), found["walks"].tolist(), strict=True)) == [
        (0, "load", 1), (7, "load", 1), (7, "store", 0),
    ]  # fmt: skip
    with pytest.raises(tc.TraceError, match=r"holds accesses of CPUs 0 and 7.*choose one with cpu="):
        tc.miss_curve(tc.addresses(file))
    assert tc.miss_curve(tc.addresses(file, cpu=7), sets=1, ways=1).table.tolist() == [[1]]


def test_pages_of_2_mib_are_looked_up_as_such(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.arange(64, dtype=np.uint64) << np.uint64(12))  # 64 small pages, one large
    small, large = (
        tc.translate(tmp_path / "t.npy", machine="skylake-sp", page_size=size).table["walks"].tolist()
        for size in (4096, 1 << 21)
    )
    assert (small, large) == ([64], [1])


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "noise": (bytes(range(200, 256)) * 9, "no address trace of a known format .*begins with c8 c9"),
    "prose": (b"hello world\n", "begins with .hello world"),
    "a bad line": (lackey(ACCESSES) + b" L zzz,4\n", r":901: a line of lackey must be .*got .* L zzz,4"),
    "a bad kind": (b"address,kind\n1,laod\n", ":2: a kind must be load, store or fetch"),
    "a cut record": (champsim(ACCESSES)[:-1], r"byte 19136 \(unpacked\): the trace ends inside a record: 63 of 64"),
    "a cut archive": (drmemtrace(ACCESSES)[:-12], "without a footer"),
    "a cut packing": (lzma.compress(lackey(ACCESSES))[:-40], "damaged after line|unexpected"),
    "protobuf": (b"gem5\x08\x01\x02", "decode_packet_trace.py"),
    "no columns": (b"\x93NUMPY\x01\x00v\x00", "NUMPY|header|npy|parse|magic|EOF"),
    "far away": (b"address\n0x1\n0x8000000000000000\n", "access 1 must have a canonical address: got 0x80000"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_its_place(name: str, tmp_path: Path) -> None:
    data, said = BAD[name]
    file = tmp_path / "bad"
    file.write_bytes(data)
    with pytest.raises(tc.TraceError, match=said) as caught:
        tc.translate(file, machine="skylake-sp")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([1.0]), "must hold integers"),
        (np.zeros((2, 2), dtype=np.uint64), "in one dimension"),
        (
            np.array([(1, 3)], dtype=[("address", "<u8"), ("kind", "u1")]),
            r"kind\[0\] must be load, store or fetch",
        ),
        (
            np.array([(1, 0), (1, -1)], dtype=[("address", "<u8"), ("cpu", "<i8")]),
            r"cpu\[1\] must be from 0 to 65535",
        ),
        (np.array([(1,)], dtype=[("time", "<u8")]), "there is no column `address`: got time"),
        (np.array([{}], dtype=object), "Python objects in dtype"),
    ],
)
def test_arrays_that_are_no_addresses_are_refused(array: Any, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(tc.TraceError, match=said):
        all_of(tc.addresses(tmp_path / "bad.npy"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"address": ["0x1", "b"]}, r"address\[0\] must be a whole number: got '0x1'$"),
        ({"address": [1.5]}, r"address\[0\] must be a whole number: got 1.5$"),
        ({"address": [[1, 2]]}, r"address\[0\] must be a whole number: got array\(\[1, 2\]\)$"),
        ({"address": [{"a": 1}]}, r"address\[0\] must be a whole number: got \{'a': 1\}$"),
        ({"address": [True]}, r"address\[0\] must be a whole number: got True$"),
        ({"address": [1], "cpu": ["a"]}, r"cpu\[0\] must be a whole number: got 'a'$"),
        ({"address": [1, 2], "cpu": [0, 65536]}, r"cpu\[1\] must be from 0 to 65535: got 65536$"),
        ({"address": [1, 2, 3], "kind": ["load", "r", "lod"]}, r"kind\[2\] must be load.*: got 'lod'$"),
        (
            {"address": [1, 2], "kind": [2, 3]},
            r"kind\[1\] must be load, store or fetch \(0, 1 or 2\): got 3$",
        ),
        ({"address": [1, None]}, r"column 'address' has rows without a value$"),
        ({"time": [1], "Kind": [0]}, r"there is no column `address`: got time, Kind$"),
    ],
)
def test_columns_that_are_no_addresses_are_refused(columns: Any, said: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra `tables`")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(tc.TraceError, match=f"^{tmp_path}/t.parquet: {said}"):
        all_of(tc.addresses(tmp_path / "t.parquet"))


def test_columns_are_taken_by_their_words(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra `tables`")
    import pyarrow.parquet as pq

    file = tmp_path / "t.parquet"
    kinds = pa.array([b"r", b"W", b"x"])
    pq.write_table(
        pa.table({"n": ["a", "b", "c"], "VAddr": [-4096, 1, 2], "RW": kinds, "core": [0, 65535, 7]}), file
    )
    assert all_of(tc.addresses(file)) == [(2**64 - 4096, LOAD, 0), (1, STORE, 65535), (2, FETCH, 7)]
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["address", "address"]), file)
    with pytest.raises(tc.TraceError, match=f"^{file}: there are 2 columns called 'address'$"):
        all_of(tc.addresses(file))
    pq.write_table(pa.table({"address": pa.array([], pa.uint64())}), file)
    assert all_of(tc.addresses(file)) == []
    file.write_bytes(b"address\n1\n")
    with pytest.raises(tc.TraceError, match=f"^{file}: .*Parquet"):
        all_of(tc.addresses(file, format="parquet"))


def test_fields_of_an_array_are_taken_by_their_words(tmp_path: Path) -> None:
    file = tmp_path / "t.npy"
    fields = np.dtype([("when", "f8"), ("addr", ">i8"), ("op", "S6"), ("CPU", "u1")])
    np.save(file, np.array([(0.5, -4096, b"Load", 3), (0.7, 1, b"ifetch", 0)], dtype=fields))
    assert all_of(tc.addresses(file)) == [(2**64 - 4096, LOAD, 3), (1, FETCH, 0)]
    np.save(file, np.array([(1, "w")], dtype=[("address", "<u4"), ("kind", "U1")]))
    assert all_of(tc.addresses(file)) == [(1, STORE, 0)]


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(16)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"address\n1\n",
        b"PK\x03\x04" + bytes(40),
        header("{'descr': '<u8', 'fortran_order': False, 'shape': (9999999999999999999,), }"),
        header("{'descr': '<u8', 'fortran_order': False, 'shape': (-5,), }"),
        header("{'descr': '<u8', 'fortran_order': False, 'shape': (5,), }"),
        header("{'descr': '<u8', 'fortran_order': False, 'shape': (True,), }"),
        header("{'descr': ['a'], 'fortran_order': False, 'shape': (1,), }"),
        header("{[]: 1}"),
        header("(((((("),
    ],
)
def test_a_file_that_numpy_cannot_map_is_refused(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad"
    file.write_bytes(data)
    with pytest.raises(tc.TraceError, match=f"^{file}: is no array that NumPy can map: "):
        all_of(tc.addresses(file, format="npy"))


def test_a_field_holds_one_whole_number(tmp_path: Path) -> None:
    file = tmp_path / "t.npy"
    for dtype, said in [
        ([("address", "<u8", (2,))], "address must be one number a row: got 2 of them"),
        ([("address", "<u8"), ("kind", "u1", (3,))], "kind must be one number a row: got 3 of them"),
        ([("address", "<u8"), ("cpu", "?")], r"cpu\[0\] must be a whole number: got False"),
        ([("address", "c16")], r"address\[0\] must be a whole number: got 0j"),
    ]:
        np.save(file, np.zeros(2, dtype=dtype))
        with pytest.raises(tc.TraceError, match=f"^{file}: {said}$"):
            all_of(tc.addresses(file))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"kinds": "load"}, "kinds are a list of some of load, store, fetch: got 'load'"),
        ({"kinds": []}, r"kinds are a list of some of load, store, fetch: got \[\]"),
        ({"kinds": ["load", "lod"]}, "unknown kind 'lod', did you mean 'load'\\?"),
        ({"cpu": -1}, "cpu must be an integer from 0 to 65535: got -1"),
        ({"cpu": 65536}, "cpu must be an integer from 0 to 65535: got 65536"),
        ({"chunk": 63}, "chunk must be an integer from 64 to 4294967296: got 63"),
        ({"chunk": (1 << 32) + 1}, "chunk must be an integer from 64 to 4294967296: got 4294967297"),
        ({"limit": 0}, "limit must be an integer of at least 1: got 0"),
        ({"format": "csvv"}, "unknown format 'csvv', did you mean 'csv'\\?"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(asked: Any, said: str) -> None:
    with pytest.raises(tc.TraceError, match=f"^{said}$"):
        tc.addresses(WALK, **asked)


def test_kinds_are_a_set_in_any_form(tmp_path: Path) -> None:
    """A kind twice is that kind once; three times it is not all three."""
    file = tmp_path / "t.csv"
    file.write_bytes(csv([(1, LOAD, 0), (2, STORE, 0), (3, FETCH, 0)]))
    for kinds, left in [
        (["load", "load", "load"], [1]), (["fetch", "load"], [1, 3]), (iter(["store"]), [2]), ({"store"}, [2]),
        (np.array(["fetch"]), [3]), (("load", "store", "fetch", "load"), [1, 2, 3]),
    ]:  # fmt: skip
        assert [address for address, _, _ in all_of(tc.addresses(file, kinds=kinds))] == left
    trace = tc.addresses(file, kinds=["fetch", "load"], cpu=65535, chunk=64, limit=1)
    assert (trace.kinds, trace.cpu, trace.chunk, trace.limit) == (("load", "fetch"), 65535, 64, 1)
    assert tc.addresses(file).kinds == ("load", "store", "fetch")
    assert tc.addresses(file).chunk == tc.Addresses(path="x", format="csv").chunk == 1 << 20
    with pytest.raises(AttributeError, match="cannot assign"):
        trace.limit = 2  # type: ignore[misc]
    with pytest.raises(tc.TraceError, match=r"t.csv: holds no access of kind load, fetch on CPU 65535$"):
        tc.translate(trace, machine="skylake-sp")


@pytest.mark.parametrize("name", ["npy", "parquet"])
def test_columns_cannot_come_from_a_pipe(name: str) -> None:
    said = f"standard input cannot be read as {name}, whose columns are looked up: give a file"
    with pytest.raises(tc.TraceError, match=f"^{said}$"):
        tc.addresses("-", format=name)


def test_an_address_that_is_not_canonical_is_named_among_those_chosen(tmp_path: Path) -> None:
    """Bits 63 to 56 are one with five-level paging: not in 2^56 and above, nor below 2^64 - 2^56."""
    file = tmp_path / "t.csv"
    ends = [2**56 - 1, 2**64 - 2**56, 2**64 - 1]
    file.write_bytes(csv([(address, LOAD, 0) for address in ends]))
    assert tc.translate(file, machine="skylake-sp").table["walks"].tolist() == [3]
    file.write_bytes(csv([(1, LOAD, 7), (1, LOAD, 3)]))
    with pytest.raises(tc.TraceError, match="holds accesses of CPUs 3 and 7"):
        tc.miss_curve(tc.addresses(file))
    file.write_bytes(csv([(1, LOAD, 7)] * 64 + [(1, LOAD, 3)]))
    with pytest.raises(tc.TraceError, match="holds accesses of CPUs 7 and 3"):
        tc.miss_curve(tc.addresses(file, chunk=64))
    for wrong in (2**56, 2**64 - 2**56 - 1):
        rows = [(1, STORE, 4), (2, LOAD, 4), (3, LOAD, 5), (wrong, LOAD, 4)]
        file.write_bytes(csv(rows))
        for asked, place in [
            ({}, "access 3"), ({"cpu": 4}, "access 2 of CPU 4"), ({"kinds": ["load"]}, "access 2 of kind load"),
            ({"kinds": ["load"], "cpu": 4}, "access 1 of kind load on CPU 4"),
        ]:  # fmt: skip
            said = f"^{file}: {place} must have a canonical address: got {wrong:#x}$"
            with pytest.raises(tc.TraceError, match=said):
                tc.translate(tc.addresses(file, **asked), machine="skylake-sp")
            if "cpu" in asked:
                with pytest.raises(tc.TraceError, match=said):
                    tc.miss_curve(tc.addresses(file, **asked))


def test_what_a_translation_cannot_be_asked(tmp_path: Path) -> None:
    machine = "peers-64x4-1536x12"
    for asked, said in [
        ({"smt": 1}, "smt must be True or False: got 1"),
        ({"page_size": 8192}, "page_size must be 4096, 2097152 or 1073741824 bytes: got 8192"),
        ({"page_size": 4096.0}, "page_size must be 4096, 2097152 or 1073741824 bytes: got 4096.0"),
        (
            {"page_size": 1 << 30},
            f"page_size=1073741824 on {machine}: no level holds 1G pages for fetch accesses",
        ),
    ]:
        with pytest.raises(tc.TlbError, match=f"^{said}$"):
            tc.translate(WALK, machine=machine, **asked)
    found = tc.translate(WALK, machine=machine, page_size=np.int64(4096), smt=np.bool_(False))
    assert (type(found.page_size), found.page_size) == (int, 4096)
    with pytest.raises(AttributeError, match="cannot assign"):
        found.path = ""  # type: ignore[misc]


def test_what_comes_before_damage_is_handed_out_first(tmp_path: Path) -> None:
    file = tmp_path / "bad"
    file.write_bytes(lackey(ACCESSES) + b"what?\n")
    seen: list[int] = []
    with pytest.raises(tc.TraceError, match=":901:"):
        seen.extend(address for chunk in tc.addresses(file) for address in chunk.address.tolist())
    assert seen == [address for address, _, _ in ACCESSES]


def test_unpacking_takes_bounded_memory(tmp_path: Path) -> None:
    """200 MB of text behind 30 kB: a chunk at a time, and an .xz that asks for 1 GiB of window is refused."""
    import resource

    file = tmp_path / "long.xz"
    file.write_bytes(lzma.compress(b"I  00401000,4\n" * 100, preset=1))
    line = b"I  00401000,4\n" * 10_000
    packer = lzma.LZMACompressor(preset=0)
    file.write_bytes(b"".join(packer.compress(line) for _ in range(1400)) + packer.flush())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(len(address) for address, _, _ in tc.addresses(file, chunk=1 << 16))
    assert count == 14_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"
    greedy = tmp_path / "greedy.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(b"I  00401000,4\n", filters=filters))
    # The block's header: size, flags, filter id 0x21, one byte of properties (dictionary size), padding, CRC32.
    at = data.index(b"\x21\x01", 12) + 2
    data[at] = 40  # 4 GiB
    end = 12 + (data[12] + 1) * 4
    data[end - 4 : end] = struct.pack("<I", __import__("zlib").crc32(bytes(data[12 : end - 4])))
    greedy.write_bytes(data)
    with pytest.raises(tc.TraceError, match=r"(?i)memory"):
        all_of(tc.addresses(greedy, format="lackey"))


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlbcore", *arguments], capture_output=True, text=True, check=False, **more
    )


def test_the_command_prints_the_table_and_json(tmp_path: Path) -> None:
    machine = "peers-64x4-1536x12"
    shown = run("tlb", str(WALK), "--machine", machine, env={**os.environ, "COLUMNS": "100"})
    assert shown.returncode == 0, shown.stderr
    words = [line.split() for line in shown.stdout.splitlines()]
    assert ["0", "load", "288", "0", "288", "192", "96", "96", "0.3333"] in words
    out = tmp_path / "t.parquet"
    data = json.loads(
        run("tlb", str(WALK), "--machine", machine, "--json", "--kind", "fetch", "--out", str(out)).stdout
    )
    assert (data["schema"], data["format"], data["table"]["walks"]) == ("tlbcore.tlb", "lackey", [1])
    assert out.exists()
    bad = run("tlb", "/no/such/file")
    assert (bad.returncode, bad.stderr) == (2, "tlbcore: error: /no/such/file: no such file or directory\n")
    piped = run("miss-curve", "-", "--ways", "2", "--json", input="address\n0x1000\n0x1fff\n0x2000\n")
    assert json.loads(piped.stdout)["table"]["misses"] == [2, 2]


def test_the_curve_is_printed_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot`")
    picture = tmp_path / "curve.png"
    done = run("miss-curve", str(WALK), "--kind", "load", "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    assert ["16", "6", "96", "96", "0.3333"] in [line.split() for line in done.stdout.splitlines()]
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = run("miss-curve", str(WALK), "--plot", str(tmp_path / "curve.doc"))
    assert (refused.returncode, "ends in .png, .svg or .pdf" in refused.stderr) == (2, True)


def test_a_cpu_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(csv([(0x1000, LOAD, 0), (0x1000, LOAD, 7), (0x2000, LOAD, 7)]))
    assert main(["miss-curve", str(file), "--ways", "1"]) == 2
    assert capsys.readouterr().err == (
        f"tlbcore: error: {file}: holds accesses of CPUs 0 and 7, which have a TLB each: "
        "choose one with cpu= (--cpu)\n"
    )
    assert main(["miss-curve", str(file), "--ways", "1", "--cpu", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["table"]["misses"] == [2]
    assert main(["tlb", str(file), "--cpu", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["table"]["accesses"] == [2]


def test_physical_addresses_are_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gem5"
    file.write_text("10: system.mem: Read from cpu0.data of size 8 on address 0x1000 C\n")
    assert tc.addresses(file).physical
    said = "has physical addresses{}: not those that the program's TLB translated\n"
    assert main(["tlb", str(file)]) == 0
    assert capsys.readouterr().err == f"tlbcore: gem5-text {said.format(' (of Exec: virtual)')}"
    file.write_text("0,r,4096,8,0,10\n")
    assert main(["tlb", str(file)]) == 0
    assert capsys.readouterr().err == f"tlbcore: gem5-packets {said.format('')}"
    assert not tc.addresses(WALK).physical
