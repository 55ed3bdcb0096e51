"""Columns and cells of results, by value: types, what is missing, dimensions, and where the notebook's view cuts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np
import pytest

from tlbcore._output import result as results
from tlbcore._output.result import Listed, column, dataset, rows_table

nan = float("nan")


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ([True, False], "b", [True, False]),
        ([True, None], "f", [1.0, nan]),  # a truth value that is not known is no truth value
        ([1, 2], "i", [1, 2]),
        ([1, None, 2], "f", [1.0, nan, 2.0]),
        ([1.5, 2], "f", [1.5, 2.0]),
        (["a", None], "U", ["a", ""]),
        ([None, None], "U", ["", ""]),
        ([("a", 1), ()], "U", ["a; 1", ""]),
        ([{"D": "none", "N": 2}], "U", ["D=none; N=2"]),
        ([1, "a"], "U", ["1", "a"]),
    ],
)
def test_a_column_has_the_type_of_its_values(values, kind, found):
    made = column(values)
    assert made.dtype.kind == kind
    np.testing.assert_array_equal(made, np.array(found))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""), (nan, ""), (0.0, "0"), (1234567.0, "1.23457e+06"), (0.1234567, "0.123457"),
        (np.float32(2.5), "2.5"),
        (12, "12"), (True, "True"), ("a", "a"), (("a", "b"), "a; b"), ({"k": 1}, "k=1"), ("x" * 2000, "x" * 2000),
        ("x" * 2001, "x" * 1999 + "…"),
    ],
)  # fmt: skip
def test_a_cell_of_the_notebooks_view(value, shown):
    assert results._cell(value) == shown


@dataclass(frozen=True)
class One:
    a: int
    b: str | None = None

    @property
    def twice(self) -> int:
        return 2 * self.a


class Some(Listed[One]):
    _of = One

    def __init__(self, rows: tuple[One, ...], words: str = "words") -> None:
        self.__dict__.update(rows=rows, words=words)

    def __repr__(self) -> str:
        return str(self.__dict__["words"])


def test_rows_become_columns_and_properties_too():
    rows = (One(1, "x"), One(2))
    assert {name: values.tolist() for name, values in rows_table(rows, also=("twice",)).items()} == {
        "a": [1, 2], "b": ["x", ""], "twice": [2, 4],
    }  # fmt: skip
    assert list(rows_table(rows, ("b",))) == ["b"]
    assert dict(rows_table(())) == {}
    assert list(Some(())._tables()["rows"]) == ["a", "b"], "without rows there are columns"


def test_a_list_of_rows_is_one_and_equals_its_tuple():
    rows = (One(1), One(2), One(3))
    some = Some(rows)
    assert (len(some), some[1], some[1:], list(some)) == (3, rows[1], rows[1:], list(rows))
    assert some == rows
    assert some == Some(rows, "other")
    assert some != rows[:2]
    assert some != list(rows)
    assert hash(some) == hash(rows)
    assert some._repr_html_().startswith("<div><p><b>Some</b>: <code>words</code></p>")


@pytest.mark.parametrize(("length", "cut"), [(200, False), (201, True)])
def test_a_long_description_is_cut_at_200_characters(length: int, cut: bool):
    (shown,) = re.findall(r"<code>(x+…?)</code>", Some((), "x" * length)._repr_html_())
    assert len(shown) == 200
    assert shown.endswith("…") is cut


@pytest.mark.parametrize("more", [-1, 0, 1, 2])
def test_a_table_shows_its_first_rows_and_counts_the_rest(more: int):
    length = results._SHOWN + more
    columns = {"n": np.arange(length), "inert": np.arange(length) % 2 == 1}
    page = results._folded("t", columns, {"n": "ns"}, opened=True)
    cells = [int(n) for n in re.findall(r"<tr[^>]*><td>(\d+)</td><td>", page)]
    assert cells == list(range(min(length, results._SHOWN)))
    assert page.count('title="inert"') == sum(n % 2 for n in cells)
    assert (f'<td colspan="2">{more} more rows</td>' in page) is (more > 0)
    assert f"<summary>t: {length} rows, 2 columns</summary>" in page
    assert "<th>n (ns)</th><th>inert</th>" in page
    assert page.startswith("<details open>")
    assert results._folded("t", columns, {}, opened=False).startswith("<details>")


def test_the_main_table_alone_is_open_and_has_the_units():
    class Two(results.Result):
        def _tables(self):
            return {"one": {"n": np.array([1])}, "two": {"n": np.array([2])}, "three": {"n": np.array([3])}}

        def _units(self):
            return {"n": "ns"}

    page = Two()._repr_html_()
    assert re.findall(r"<details( open)?><summary>(\w+): 1 rows", page) == [
        (" open", "one"), ("", "two"), ("", "three"),
    ]  # fmt: skip
    assert re.findall(r"<th>(n[^<]*)</th>", page) == ["n (ns)", "n", "n"]


@pytest.mark.parametrize("more", [0, 1])
def test_a_wide_table_leaves_out_what_says_nothing(more: int):
    count = results._WIDE + more
    columns = {f"c{i}": np.array([i % 2, 0]) for i in range(count)}
    page = results._folded("t", columns, {}, opened=True)
    left = count - count // 2
    assert page.count("<th>") == (count // 2 if more else count)
    assert (f"; {left} that are zero or empty everywhere are left out" in page) is bool(more)


@pytest.mark.parametrize(
    ("values", "says"),
    [([0, 0], False), ([0, 1], True), ([0.0, nan], False), ([nan, 1e-9], True), ([False], False), ([True], True),
     (["", ""], False), (["", "a"], True), ([], False)],
)  # fmt: skip
def test_what_says_something(values, says):
    assert results._says_something(np.array(values)) is says


def test_dimensions_stand_in_order_and_what_has_no_row_is_missing():
    pytest.importorskip("xarray")
    columns = {
        "policy": np.array(["z", "a", "z"]),
        "cpu": np.array([3, 1, 1]),
        "n": np.array([1, 2, 3]),
        "word": np.array(["x", "y", "zz"]),
    }
    cube = dataset(
        columns, ("policy", "cpu"), units={"n": "ns", "cpu": "1"}, attributes={"a": 1, "b": None, "c": [1]}
    )
    assert cube["policy"].values.tolist() == ["z", "a"], "text in the order in which it first stands"
    assert cube["cpu"].values.tolist() == [1, 3], "numbers by size"
    np.testing.assert_array_equal(cube["n"].values, [[3, 1], [2, nan]])
    assert cube["word"].values.tolist() == [["zz", "x"], ["y", ""]]
    assert cube["n"].attrs == {"units": "ns"}
    assert cube.attrs == {"a": 1, "c": json.dumps([1])}
    whole = dataset(
        {name: values[:2] for name, values in columns.items()}, ("policy",), units={}, attributes={}
    )
    assert whole["n"].dtype.kind == "i", "whole numbers where nothing is missing"
    rows = dataset(columns, (), units={"n": "ns"}, attributes={})
    assert rows["n"].dims == ("row",)
    assert rows["n"].values.tolist() == [1, 2, 3]
    assert rows["n"].attrs == {"units": "ns"}


@pytest.mark.parametrize(
    ("value", "plain"),
    [(None, None), (np.int32(3), 3), (np.float64(0.5), 0.5), ((1, "a"), [1, "a"]), ({1: (2,)}, {"1": [2]}),
     (True, True), (One(1), "One(a=1, b=None)")],
)  # fmt: skip
def test_what_figures_depend_on_is_plain(value, plain):
    assert results._plain(value) == plain
    assert type(results._plain(value)) is type(plain)
