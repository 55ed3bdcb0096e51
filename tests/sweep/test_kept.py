"""Rows of a sweep as they are kept: keys, parts, the order, and the words for a directory that is another's."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlbcore import SweepError
from tlbcore.sweeps import parts, results
from tlbcore.sweeps.batches import Outcome
from tlbcore.sweeps.parts import Directory, Keys, Stored, column_to_keys, keys_to_column
from tlbcore.sweeps.points import Batch, Design

IDENTITY = {"seed": 1, "metrics": ["m"]}
UNITS = {"m": "ns"}


def keys(*pairs: tuple[int, int]) -> np.ndarray[Any, Any]:
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


def table(*numbers: int, **columns: Any) -> pa.Table:
    return pa.table(
        {"key": keys_to_column(keys(*((n, n) for n in numbers))), "m": [float(n) for n in numbers], **columns}
    )


def design(*numbers: int, **changes: Any) -> Design:
    made: dict[str, Any] = {"parameters": ("x",), "replications": 1, "samples": 0, "rows_per_sample": 1}
    return Design(keys=keys(*((n, n) for n in numbers)), **{**made, **changes})


# -- keys -------------------------------------------------------------------------------------------------------


def test_a_key_is_sixteen_bytes_the_low_word_of_each_first() -> None:
    column = keys_to_column(keys((1, 2), (1 << 63, 0)))
    assert column.type == pa.binary(16)
    assert column.to_pylist() == [
        bytes([1] + [0] * 7 + [2] + [0] * 7), bytes([0] * 7 + [128] + [0] * 8),
    ]  # fmt: skip
    whole = pa.chunked_array([column, keys_to_column(keys((3, 4)))])
    assert column_to_keys(whole).tolist() == [[1, 2], [1 << 63, 0], [3, 4]]
    assert column_to_keys(whole[1:]).tolist() == [[1 << 63, 0], [3, 4]], (
        "a part of a column begins where it does"
    )
    assert column_to_keys(whole[1:2]).tolist() == [[1 << 63, 0]]


def test_keys_know_where_each_stood_and_which_there_are() -> None:
    known = Keys(keys((5, 1), (2, 9), (2, 3), (5, 1), (7, 0)))
    assert (len(known), known.duplicates) == (4, 1)
    asked = keys((2, 3), (2, 9), (2, 4), (5, 1), (7, 0), (8, 0), (0, 0))
    assert known.find(asked).tolist() == [2, 1, -1, 0, 4, -1, -1]
    assert known.contains(asked).tolist() == [True, True, False, True, True, False, False]
    none = Keys(keys())
    assert (len(none), none.duplicates) == (0, 0)
    assert none.find(asked).tolist() == [-1] * 7
    assert not none.contains(asked).any()


# -- a directory --------------------------------------------------------------------------------------------------


def test_the_description_of_a_directory_is_what_was_said(tmp_path: Path) -> None:
    Directory(tmp_path / "a" / "b", IDENTITY, UNITS).close()
    about = json.loads((tmp_path / "a" / "b" / "_sweep.json").read_text())
    assert about == {"schema": "tlbcore.sweep", "version": 2, **IDENTITY}


def test_a_directory_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        kept.append(table(1))
    about = tmp_path / "_sweep.json"
    about.write_text(about.read_text().replace('"version": 2', '"version": 1'))
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        assert len(kept.done) == 1
    assert parts.read(tmp_path)[0] == IDENTITY


def test_what_a_killed_driver_left_is_cleared_and_hidden_files_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    (tmp_path / ".x.tmp").touch()
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        assert kept.empty
        assert sorted(file.name for file in tmp_path.iterdir()) == [".hidden", ".lock", "_sweep.json"]
        kept.append(table(1))
        assert not kept.empty


def test_a_part_is_named_by_its_bytes_and_says_what_it_replaces(tmp_path: Path) -> None:
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        for number in (1, 2):
            kept.append(table(number))
        small = {file.stem for file in tmp_path.glob("*.parquet")}
        for file in tmp_path.glob("*.parquet"):
            assert blake2b(file.read_bytes(), digest_size=16).hexdigest() == file.stem
            assert json.loads(pq.read_schema(file).metadata[b"tlbcore.replaces"]) == []
        left = {file.name: file.read_bytes() for file in tmp_path.glob("*.parquet")}
        kept.compact()
        (merged,) = tmp_path.glob("*.parquet")
        assert set(json.loads(pq.read_schema(merged).metadata[b"tlbcore.replaces"])) == small
        kept.compact()
        assert list(tmp_path.glob("*.parquet")) == [merged], "one part is nothing to merge"
    for name, data in left.items():  # the driver died before it deleted them
        (tmp_path / name).write_bytes(data)
    assert sorted(parts.read(tmp_path)[1]["m"].to_pylist()) == [1.0, 2.0]
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        assert (len(kept.done), kept.done.duplicates) == (2, 0)
        assert list(tmp_path.glob("*.parquet")) == [merged]
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        assert kept.done.contains(keys((1, 1), (2, 2), (3, 3))).tolist() == [True, True, False]
        assert kept.damaged == []


@pytest.mark.parametrize(
    ("rows", "parts_left"),
    [((3, 3), 2), ((3, 3, 3), 1), ((8, 3), 2), ((3, 8), 2), ((10, 3), 2), ((10, 3, 3, 3), 2)],
)
def test_parts_are_merged_once_they_make_a_large_one(
    monkeypatch: pytest.MonkeyPatch, rows: tuple[int, ...], parts_left: int, tmp_path: Path
) -> None:
    """A part is large from 8 rows on here; many are four of them."""
    monkeypatch.setattr(parts, "COMPACT_ROWS", 8)
    monkeypatch.setattr(parts, "COMPACT_PARTS", 4)
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        start = 0
        for count in rows:
            kept.append(table(*range(start, start + count)))
            start += count
        assert len(list(tmp_path.glob("*.parquet"))) == parts_left
    assert sorted(parts.read(tmp_path)[1]["m"].to_pylist()) == list(range(start))


@pytest.mark.parametrize(("rows", "left"), [((8, 3), 2), ((3, 3), 1), ((8, 8), 2), ((7, 1), 1)])
def test_at_the_end_what_is_small_is_merged(
    monkeypatch: pytest.MonkeyPatch, rows: tuple[int, int], left: int, tmp_path: Path
) -> None:
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        for number, count in enumerate(rows):
            kept.append(table(*range(100 * number, 100 * number + count)))
        monkeypatch.setattr(parts, "COMPACT_ROWS", 8)
        kept.compact()
        assert len(list(tmp_path.glob("*.parquet"))) == left


def test_many_small_parts_are_merged_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Directory(tmp_path / "more", IDENTITY, UNITS) as kept:
        for number in range(6):
            kept.append(table(number))
    monkeypatch.setattr(parts, "COMPACT_PARTS", 4)
    with Directory(tmp_path / "more", IDENTITY, UNITS) as kept:
        kept.append(table(6))
    assert len(list((tmp_path / "more").glob("*.parquet"))) == 1
    left = []
    with Directory(tmp_path / "few", IDENTITY, UNITS) as kept:
        for number in range(7):
            kept.append(table(number))
            left.append(len(list((tmp_path / "few").glob("*.parquet"))))
    assert left == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ("no json", "does not describe a sweep"),
        ("[" * 100_000, "does not describe a sweep"),
        ("[]", "does not describe a sweep"),
        ('{"version": 2}', "does not describe a sweep"),
        ('{"schema": "tlbcore.sweep"}', "does not describe a sweep"),
        ('{"schema": "other", "version": 2}', "does not describe a sweep: its schema is 'other'"),
        ('{"schema": "tlbcore.sweep", "version": "2"}', "does not describe a sweep: its version is '2'"),
        ('{"schema": "tlbcore.sweep", "version": null}', "does not describe a sweep: its version is None"),
        ('{"schema": "tlbcore.sweep", "version": 3}', "is of version 3: this tlbcore knows versions up to 2"),
    ],
)
def test_a_description_that_is_none_is_named(about: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "_sweep.json").write_text(about)
    for ask in (lambda: Directory(tmp_path, IDENTITY, UNITS), lambda: parts.read(tmp_path)):
        with pytest.raises(SweepError) as error:
            ask()
        assert str(error.value) == f"{tmp_path / '_sweep.json'} {said}"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"seed": 2}, "its seed is 1, not 2"),
        ({"metrics": ["n"]}, 'its metrics is ["m"], not ["n"]'),
        ({"more": True}, "its more is null, not true"),
        ({"seed": "x" * 100}, f'its seed is 1, not "{"x" * 56}...'),
        ({"seed": "x" * 58}, f'its seed is 1, not "{"x" * 58}"'),
        ({"seed": "x" * 59}, f'its seed is 1, not "{"x" * 56}...'),
        ({"metrics": ["n"], "seed": 2}, 'its metrics is ["m"], not ["n"]'),
    ],
)
def test_another_sweep_is_told_by_the_first_thing_that_differs(
    wanted: Any, said: str, tmp_path: Path
) -> None:
    Directory(tmp_path, IDENTITY, UNITS).close()
    with pytest.raises(SweepError) as error:
        Directory(tmp_path, {**IDENTITY, **wanted}, UNITS)
    assert str(error.value) == f"{tmp_path} holds another sweep: {said}"
    Directory(tmp_path, {"metrics": ("m",), "seed": 1}, UNITS).close()  # as JSON has it


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"holds no sweep$"):
        parts.read(tmp_path)
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        with pytest.raises(SweepError, match=r"the sweep has no rows yet$"):
            parts.read(tmp_path)
        kept.append(table(1, 2))
        with pytest.raises(SweepError, match="another process is writing to "):
            Directory(tmp_path, IDENTITY, UNITS)
    identity, stored = parts.read(tmp_path)
    assert identity == IDENTITY
    assert stored.names == ["key", "m"]
    with pytest.raises(KeyError):
        stored["n"]
    (tmp_path / "notes.parquet").write_text("not ours")
    (tmp_path / f"{'0' * 32}.txt").write_text("not ours")
    assert parts.read(tmp_path)[1]["m"].to_pylist() == [1.0, 2.0]
    (file,) = [file for file in tmp_path.glob("*.parquet") if len(file.stem) == 32]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(
        SweepError, match=r"the part is damaged; resume the sweep to compute its points again$"
    ):
        parts.read(tmp_path)
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        assert kept.damaged == [file.name]
        assert len(kept.done) == 0
    assert file.with_suffix(".corrupt").exists()


def test_columns_of_several_parts_are_one_and_rows_are_sorted_by_name_after_name(tmp_path: Path) -> None:
    files = []
    for place, (n, x) in enumerate([((4, 2), ["b", "a"]), ((3, 1), ["a", "b"])]):
        files.append(tmp_path / f"{place}.parquet")
        pq.write_table(
            table(*n, x=x, **({"late": [1.0, 2.0]} if place else {})).replace_schema_metadata({"a": "b"}),
            files[-1],
        )
    stored = Stored(files)
    assert stored.names == ["key", "m", "x", "late"]
    assert stored["m"].to_pylist() == [4.0, 2.0, 3.0, 1.0]
    assert stored.order(["x", "m"]).tolist() == [1, 2, 3, 0]
    assert stored.order(["m"]).tolist() == [3, 1, 2, 0]
    assert stored.order(["m"]).dtype == np.int64
    assert stored.metadata[b"a"] == b"b"


# -- the order --------------------------------------------------------------------------------------------------


def test_the_order_is_read_back_as_it_was_planned(tmp_path: Path) -> None:
    assert parts.design(tmp_path) is None
    planned = design(3, 1, 2, parameters=("x", "policy"), replications=3, samples=2, rows_per_sample=6)
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        kept.plan(planned)
    found = parts.design(tmp_path)
    assert found is not None
    assert found.keys.tolist() == planned.keys.tolist()
    assert (found.parameters, found.replications, found.samples, found.rows_per_sample) == (
        ("x", "policy"),
        3,
        2,
        6,
    )


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b'"replications": 3', b'"replications": 2'),
        (b'"samples": 2', b'"samples": 9'),
        (b'"rows_per_sample": 6', b'"rows_per_sample": 5'),
        (b'["x", "policy"]', b'["y", "policy"]'),
        (b'"digest": "', b'"digest": "0'),
        (b'"replications"', b'"repetitions"'),
        (b"{", b"[" * 100_000),
        (b"{", b"["),
        (b"\n\x03", b"\n\x04"),
    ],
)
def test_an_order_of_which_any_part_is_damaged_is_refused(was: bytes, now: bytes, tmp_path: Path) -> None:
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        kept.plan(design(3, 1, 2, parameters=("x", "policy"), replications=3, samples=2, rows_per_sample=6))
    data = (tmp_path / "_design").read_bytes()
    assert data.count(was) >= 1
    (tmp_path / "_design").write_bytes(data.replace(was, now, 1))
    with pytest.raises(SweepError, match=r"the order of the rows is damaged; sweep again to write it anew$"):
        parts.design(tmp_path)


# -- rows -------------------------------------------------------------------------------------------------------


def batch(*numbers: int) -> Batch:
    return Batch(
        columns={"x": np.array(numbers, dtype=float), "policy": ["ipi"] * len(numbers)},
        replications=np.arange(len(numbers), dtype=np.uint32),
        keys=keys(*((n, n) for n in numbers)),
        seeds=np.array(numbers, dtype=np.uint64) + np.uint64(100),
    )


def test_a_batch_is_columns_and_what_failed_or_was_not_computed_is_missing() -> None:
    outcome = Outcome(metrics={"m": np.array([1.0, 2.0])}, errors=[None, "no"], inert=np.array([True, False]))
    columns = results.columns_of(batch(5, 6), outcome, ["m", "n"])
    assert list(columns) == ["x", "policy", "replication", "seed", "inert", "m", "n", "error"]
    assert columns["m"][0] == 1.0
    assert np.isnan(columns["m"][1])
    assert np.isnan(columns["n"]).all()
    assert (columns["seed"].tolist(), columns["replication"].tolist()) == ([105, 106], [0, 1])
    assert (columns["inert"].tolist(), columns["error"]) == ([True, False], [None, "no"])
    plain = results.columns_of(batch(5), Outcome(metrics={}, errors=[None]), ["m"])
    assert plain["inert"].tolist() == [False]
    arrow = results.to_arrow(batch(5, 6), outcome, ["m", "n"])
    assert arrow.column_names == ["key", *columns]
    assert arrow["m"].to_pylist() == [1.0, None]
    assert arrow["error"].to_pylist() == [None, "no"]
    assert column_to_keys(arrow["key"]).tolist() == [[5, 5], [6, 6]]


def test_rows_in_memory_stand_as_they_were_asked_for() -> None:
    rows = results.Memory(["m"])
    assert not rows
    assert rows.table() == {}
    rows.sink(batch(7, 5), Outcome(metrics={"m": np.array([70.0, 50.0])}, errors=[None, None]))
    rows.sink(batch(6), Outcome(metrics={"m": np.array([60.0])}, errors=["no"]))
    assert rows
    assert rows.keys().tolist() == [[7, 7], [5, 5], [6, 6]]
    # Point 8 was not computed; 5 was asked for twice.
    planned = design(5, 6, 7, 8, 5, samples=5)
    sweep = results.from_memory(rows, planned, ["m"], UNITS, {"seed": 1})
    assert list(sweep.table) == [
        "x",
        "point",
        "sample",
        "replication",
        "seed",
        "inert",
        "policy",
        "m",
        "error",
    ]
    assert sweep.table["x"].tolist() == [5.0, 6.0, 7.0, 5.0]
    assert sweep.table["point"].tolist() == sweep.table["sample"].tolist() == [0, 1, 2, 4]
    assert sweep.table["m"][[0, 2, 3]].tolist() == [50.0, 70.0, 50.0]
    assert np.isnan(sweep.table["m"][1])
    assert sweep.table["error"].tolist() == [None, "no", None, None]
    assert (sweep.parameters, sweep.metrics, dict(sweep.units)) == (("x",), ("m",), UNITS)
    assert (len(sweep), sweep.path, sweep.interrupted) == (4, None, False)
    assert sweep.failed["error"].tolist() == ["no"]
    assert sweep.failed["x"].tolist() == [6.0]
    assert sweep.failed["replication"].tolist() == [0]
    assert sweep._about() == {"seed": 1, "interrupted": False}
    assert sweep._units() is sweep.units
    assert isinstance(sweep.units, MappingProxyType)
    with pytest.raises(AttributeError, match="cannot assign to field 'path'"):
        sweep.path = None  # type: ignore[misc]


def test_columns_of_several_batches_are_one() -> None:
    assert results._join([["a"], ["b"]]).tolist() == ["a", "b"]
    assert results._join([["a"], ["b"]]).dtype.kind == "U"
    errors = results._join([[None], ["no"]])
    assert (errors.tolist(), errors.dtype) == ([None, "no"], object)
    assert results._join([np.array([1.0]), np.array([2.0])]).tolist() == [1.0, 2.0]


def test_every_row_of_a_directory_is_sorted_by_its_parameters(tmp_path: Path) -> None:
    with Directory(tmp_path, IDENTITY, UNITS) as kept:
        kept.plan(design(7))
        rows = results.Disk(kept, ["m"])
        assert not rows
        rows.sink(batch(7, 5), Outcome(metrics={"m": np.array([70.0, 50.0])}, errors=[None, None]))
        assert rows
    assert results.from_directory(tmp_path).table["x"].tolist() == [7.0]
    every = results.from_directory(tmp_path, every=True)
    assert every.table["x"].tolist() == [5.0, 7.0]
    assert (every.parameters, every.metrics, every.path) == (("x", "policy"), ("m",), tmp_path)
    assert "point" not in every.table
    assert "key" not in every.table
    (tmp_path / "_design").unlink()
    assert results.from_directory(tmp_path).table["x"].tolist() == [5.0, 7.0]


def test_a_cube_has_units_and_holes() -> None:
    pytest.importorskip("xarray")
    rows = results.Memory(["m"])
    rows.sink(batch(7, 5), Outcome(metrics={"m": np.array([70.0, 50.0])}, errors=[None, None]))
    cube = results.from_memory(rows, design(7, 5), ["m"], UNITS, {}).to_xarray()
    # Two values of x by two replications: half of them is there.
    assert dict(cube.sizes) == {"x": 2, "replication": 2}
    assert cube["m"].sel(x=7.0, replication=0) == 70.0
    assert cube["m"].sel(x=5.0, replication=1) == 50.0
    assert np.isnan(cube["m"].sel(x=5.0, replication=0))
    assert cube["m"].attrs == {"units": "ns"}


def test_effects_are_of_the_parameters_that_are_named() -> None:
    rows = results.Memory(["m"])
    rows.sink(batch(7, 5), Outcome(metrics={"m": np.array([70.0, 50.0])}, errors=[None, None]))
    sweep = results.from_memory(rows, design(7, 5, parameters=("x", "policy")), ["m"], UNITS, {})
    assert sweep.effects("m")["parameter"].tolist() == ["x", "x", "policy"]
    assert sweep.effects("m", ["policy"])["parameter"].tolist() == ["policy"]
    assert len(sweep.effects("m", [])["parameter"]) == 0
    assert sweep.pareto(["m"])["x"].tolist() == [5.0]
    with pytest.raises(SweepError, match=r"^parameters is a list of names of columns: got 'policy'$"):
        sweep.effects("m", "policy")
    with pytest.raises(SweepError, match=r"^metrics is a list of names of columns: got 'm'$"):
        sweep.pareto("m")


def test_who_did_nothing_in_how_many_rows() -> None:
    names = np.array(["b", "a", "b", "c", "a"])
    inert = np.array([True, False, False, False, True])
    assert results.inert_policies({"inert": inert, "policy": names}) == [
        "`b` does nothing in 1 of 2 rows", "`a` does nothing in 1 of 2 rows",
    ]  # fmt: skip
    assert results.inert_policies({"inert": np.zeros(5, dtype=bool), "policy": names}) == []
