"""Values of points: what is taken, as what it reaches the workload, and the sentence for what is not."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import SweepError
from tlbcore.sweeps.points import Axis, Batch, Points, as_column, given_whole, grid_axes, sample_axis
from tlbcore.sweeps.run import _flag, _rows, _whole, _written

SHORT = {"duration_s": 0.005}
ONE = {"policies": ["ipi"], "metrics": ["ipis_per_hour"]}
MINE = 'policy mine\n  "mine"\n  based on ct-late\n\nct_enter\n  lfence\n'

# -- columns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ([1, 2.5, True], [1.0, 2.5, 1.0]),
        ((Fraction(1, 4), Decimal("0.5")), [0.25, 0.5]),
        (range(3), [0.0, 1.0, 2.0]),
        (np.array([1, 2], dtype=np.int8), [1.0, 2.0]),
        (np.array([True, False]), [1.0, 0.0]),
        (np.array([1.5], dtype=np.float32), [1.5]),
        ([np.int64(3), np.float32(0.5), np.bool_(True)], [3.0, 0.5, 1.0]),
        ([1 << 53, -(1 << 53), 1 << 60], [2.0**53, -(2.0**53), 2.0**60]),
        ([2.0**70, 1], [2.0**70, 1.0]),
        (["a", "b"], ["a", "b"]),
        (np.array(["a", "b"]), ["a", "b"]),
    ],
)
def test_numbers_are_float64_and_names_are_names(values: Any, column: list[Any]):
    found = as_column("x", values)
    assert list(found) == column
    assert isinstance(found, list) if column[0] == "a" else found.dtype == np.float64


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["1", 2], "'x' must hold numbers only or names only: got '1'"),
        ([2, "1"], "'x' must hold numbers only or names only: got '1'"),
        ([1j], "'x' must hold numbers only or names only: got 1j"),
        (np.array([1 + 2j]), "'x' must hold numbers only or names only: got "),
        ([b"1"], "'x' must hold numbers only or names only: got b'1'"),
        ([date(2026, 1, 1)], "'x' must hold numbers only or names only: got datetime.date"),
        (np.array(["2026-01-01"], dtype="datetime64[s]"), "'x' must hold numbers only or names only: got "),
        (np.array([5], dtype="timedelta64[s]"), "'x' must hold numbers only or names only: got "),
        ([[1, 2]], "'x' must hold numbers only or names only: got [1, 2]"),
        ([{}], "'x' must hold numbers only or names only: got {}"),
        (np.ones((2, 1)), "'x' must hold a value per point: got an array of shape (2, 1)"),
        (np.ma.array([1, 2], mask=[0, 1]), "'x' must hold a value everywhere: got a masked array"),
        ([1, None], "'x' must hold finite numbers: got [1, None]"),
        ([float("inf")], "'x' must hold finite numbers: got [inf]"),
        ([1, 2, 3, 4, 5, float("nan"), 7], "'x' must hold finite numbers: got [1, 2, 3, 4, 5]"),
        ([10**400], "'x' must hold finite numbers: got [1000"),
        ([1, (1 << 53) + 1], "'x' must hold numbers that a float64 holds: got 9007199254740993"),
        ([-(1 << 53) - 1], "'x' must hold numbers that a float64 holds: got -9007199254740993"),
        (np.array([(1 << 63) - 1]), "'x' must hold numbers that a float64 holds: got 9223372036854775807"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_would_be_taken_for_another_number_is_refused(values: Any, said: str):
    with pytest.raises(SweepError) as error:
        as_column("x", values)
    assert str(error.value).startswith(said)


def test_which_columns_were_given_as_integers():
    given = {"a": [1, np.int8(2)], "b": [1, 2.0], "c": [True], "d": ["x"], "e": range(2), "f": np.ones(2)}
    assert given_whole(given) == {"a", "e"}
    assert grid_axes({"a": [1], "b": [1.0]})[0].whole == {"a"}
    assert grid_axes({("a", "b"): [(1, 0.5), (2, 1)]})[0].whole == {"a"}
    assert sample_axis({"a": [1, 1], "b": [0.5, 1]}).whole == {"a"}
    assert sample_axis([[1, 2]], ["a", "b"]).whole == {"a", "b"}
    assert Axis({}, 1).whole == frozenset()


# -- grids and samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({}, "the grid is empty"),
        ({5: [1]}, "the grid's keys are names or tuples of names: got 5"),
        ({("a", 5): [(1, 2)]}, "the grid's keys are names or tuples of names: got ('a', 5)"),
        ({"a": {1, 2}}, "the grid's 'a' must be a list of values: got {1, 2}"),
        ({"a": 5}, "the grid's 'a' must be a list of values: got 5"),
        ({"a": []}, "the grid is empty: 'a' has no values"),
        ({("a", "b"): [1, 2]}, "zipped ('a', 'b') needs 2 values in each row: got 1"),
        ({("a", "b"): ["xy"]}, "zipped ('a', 'b') needs 2 values in each row: got 'xy'"),
        ({("a", "b"): [(1, 2), (3,)]}, "zipped ('a', 'b') needs 2 values in each row: got (3,)"),
        ({("a", "a"): [(1, 2)]}, "parameter 'a' is given twice"),
        ({"a": ["x", "x"]}, "the grid's 'a' has the value 'x' twice"),
        ({("a", "b"): [(1, "x"), (1, "x")]}, "the grid's ('a', 'b') has the value (1.0, 'x') twice"),
    ],
)
def test_a_grid_is_names_with_lists_of_values(grid: Any, said: str):
    with pytest.raises(SweepError) as error:
        grid_axes(grid)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("samples", "names", "said"),
    [
        ([[1, 2]], ["a", "a"], "parameter 'a' is given twice"),
        ([[1, 2]], "ab", "names is a list of names, one per column: got 'ab'"),
        ([[1, 2]], ["a", 5], "names is a list of names, one per column: got ['a', 5]"),
        ({"a": [1]}, ["b"], "names=['b'] beside samples whose columns have names: give one of the two"),
        (
            np.array([(1.0,)], dtype=[("a", float)]),
            ["b"],
            "names=['b'] beside samples whose columns have names",
        ),
        ({"a": 5}, None, "samples['a'] must hold a value per point: got 5"),
        ({"a": []}, None, "the samples are empty"),
        (
            np.ma.array([[1.0]], mask=[[True]]),
            ["a"],
            "samples must hold a value everywhere: got a masked array",
        ),
        (
            {"a": np.ma.array([1.0], mask=[True])},
            None,
            "'a' must hold a value everywhere: got a masked array",
        ),
        ([1, 2], ["a"], "samples must have shape (n, 1): got (2,)"),
    ],
)
def test_samples_are_columns_with_one_name_each(samples: Any, names: Any, said: str):
    with pytest.raises(SweepError) as error:
        sample_axis(samples, names)
    assert str(error.value).startswith(said)


def test_a_data_frame_with_two_columns_of_one_name_is_refused():
    pandas = pytest.importorskip("pandas", reason="makes samples as a data frame")
    with pytest.raises(SweepError, match="parameter 'a' is given twice"):
        sample_axis(pandas.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(SweepError, match="beside samples whose columns have names"):
        sample_axis(pandas.DataFrame([[1, 2]], columns=["a", "b"]), ["a", "b"])


def test_the_numbers_of_points_are_a_product():
    some = Points("base", 1, [*grid_axes({"a": [1, 2, 3], ("b", "c"): [(1, 2), (3, 4)]})], replications=4)
    assert (len(some), some.names, some.may_repeat) == (24, ["a", "b", "c"], False)
    design = some.design()
    assert (design.parameters, design.replications) == (("a", "b", "c"), 4)
    assert (design.samples, design.rows_per_sample) == (0, 1)
    assert len(design.keys) == 24
    sampled = Points(
        "base", 1, [sample_axis({"a": [1.0, 1.0]}), *grid_axes({"p": ["x", "y", "z"]})], replications=2
    )
    design = sampled.design()
    assert (design.samples, design.rows_per_sample, sampled.may_repeat) == (2, 6, True)
    # Sample by sample, policy by policy, replication by replication.
    assert design.numbers(np.arange(12)) == {
        "point": pytest.approx([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        "sample": pytest.approx([0] * 6 + [1] * 6),
    }
    assert design.numbers(np.array([11]))["point"].dtype == np.uint64


def test_replications_are_numbers_of_32_bits():
    most = (1 << 32) - 1
    assert Points("base", 1, grid_axes({"a": [1]}), replications=most).replications == most
    for wrong in (0, 1 << 32):
        with pytest.raises(
            SweepError, match=rf"replications must be an integer from 1 to {most}: got {wrong}$"
        ):
            Points("base", 1, grid_axes({"a": [1]}), replications=wrong)


def test_designs_longer_than_a_block_have_every_key(monkeypatch):
    some = Points("base", 1, grid_axes({"a": range(10)}))
    whole = some.design().keys
    monkeypatch.setattr("tlbcore.sweeps.points.BLOCK", 4)
    assert (some.design().keys == whole).all()
    assert len(some.batch(8, 99)) == 2
    assert len({key.tobytes() for key in whole}) == 10


def test_what_points_stand_for_enters_keys_and_no_seeds():
    axes = grid_axes({"a": [1, 2]})
    asked = []

    def content(columns: Any) -> dict[str, list[str]]:
        asked.append({name: list(column) for name, column in columns.items()})
        return {"text": ["x", "y"]}

    plain, told = Points("base", 1, axes).batch(0, 2), Points("base", 1, axes, content=content).batch(0, 2)
    assert asked == [{"a": [1.0, 2.0]}]
    assert (plain.seeds == told.seeds).all()
    assert (plain.keys != told.keys).any(axis=1).all()
    paired = Points("base", 1, axes, paired=("a",)).batch(0, 2)
    assert paired.seeds[0] == paired.seeds[1]
    assert plain.seeds[0] != plain.seeds[1]


def test_a_part_of_a_batch_keeps_its_rows():
    batch = Batch(
        columns={"n": np.array([1.0, 2.0, 3.0]), "p": ["x", "y", "z"]},
        replications=np.array([0, 1, 2], dtype=np.uint32),
        keys=np.arange(6, dtype=np.uint64).reshape(3, 2),
        seeds=np.array([7, 8, 9], dtype=np.uint64),
    )
    for chosen in (np.array([True, False, True]), slice(None, None, 2)):
        part = batch.select(chosen)
        assert (part.columns["n"].tolist(), part.columns["p"]) == ([1.0, 3.0], ["x", "z"])
        assert (part.replications.tolist(), part.seeds.tolist()) == ([0, 2], [7, 9])
        assert part.keys.tolist() == [[0, 1], [4, 5]]


# -- as what a value reaches the workload -------------------------------------------------------------------------


def seen(base: Any, values: list[Any], name: str = "cpus") -> list[Any]:
    """Return what a function is given, by type and value."""
    found = tc.sweep(base, {name: values}, **ONE)
    assert found.table["error"].tolist() == [None] * len(values)
    return SEEN


SEEN: list[Any] = []


def made(value: Any) -> tc.Scenario:
    SEEN.append(value)
    return tc.scenarios.user_shootdown(pages=1, **SHORT)


def annotated(cpus: int) -> tc.Scenario:
    return made(cpus)


def optional(cpus: Optional[int] = None) -> tc.Scenario:  # noqa: UP045
    return made(cpus)


def plain(cpus):  # type: ignore[no-untyped-def]
    return made(cpus)


def real(cpus: float) -> tc.Scenario:
    return made(cpus)


def truth(cpus: bool) -> tc.Scenario:
    return made(cpus)


def evaluated(function: Any, annotation: Any) -> Any:
    """Return a function with annotations that are types, as where they are not postponed."""
    function.__annotations__ = {"cpus": annotation}
    return function


@pytest.mark.parametrize(
    ("base", "values", "given"),
    [
        (annotated, [4.0, 8], [4, 8]),
        (optional, [4], [4]),
        (plain, [4, 8], [4, 8]),
        (plain, [4.0, 8.5], [4.0, 8.5]),
        (real, [4, 8], [4.0, 8.0]),
        (truth, [True, 0], [True, False]),
        (truth, [2], [2.0]),
        (annotated, [4.5], [4.5]),
        (evaluated(lambda cpus: made(cpus), int), [4.0], [4]),
        (evaluated(lambda cpus: made(cpus), int | None), [4.0], [4]),
        (evaluated(lambda cpus: made(cpus), None | int), [4.0], [4]),
        (evaluated(lambda cpus: made(cpus), Optional[int]), [4.0], [4]),  # noqa: UP045
        (evaluated(lambda cpus: made(cpus), bool), [1], [True]),
        (evaluated(lambda cpus: made(cpus), float), [1], [1.0]),
    ],
)
def test_a_function_gets_the_kind_of_number_that_it_names(base: Any, values: list[Any], given: list[Any]):
    SEEN.clear()
    found = [value for value in seen(base, values) if value is not None]
    assert list(dict.fromkeys(map(repr, found))) == list(map(repr, given))


def test_kinds_by_hand():
    assert [_written(a) for a in (int, "int | None", "Optional[int]", None | int)] == [
        "int", "int | None", "int]", "int",
    ]  # fmt: skip
    assert (repr(_whole(4.0)), repr(_whole(4.5))) == ("4", "4.5")
    assert (_flag(1.0), _flag(0.0), repr(_flag(2.0))) == (True, False, "2.0")
    assert _rows([], 3) == [(), (), ()]
    assert _rows([np.array([1.0, 2.0]), ["a", "b"]], 2) == [(1.0, "a"), (2.0, "b")]


@pytest.mark.parametrize(
    ("grid", "columns"),
    [
        ({("policy", "pages"): [("ipi", 1), (MINE, 2)]}, {"pages": [1.0, 2.0]}),
        ({("pages", "policy"): [[1, "ipi"], [2, MINE]]}, {"pages": [1.0, 2.0]}),
        ({"policy": ["ipi", MINE]}, {}),
    ],
)
def test_policies_that_change_together_with_others_are_policies(
    grid: Any, columns: dict[str, Any], tmp_path: Path
):
    file = tmp_path / "mine.policy"
    file.write_text(MINE)

    def with_file(value: Any) -> Any:
        return (
            file
            if value == MINE
            else [with_file(v) for v in value]
            if isinstance(value, (list, tuple))
            else value
        )

    grid = {name: with_file(values) for name, values in grid.items()}
    found = tc.sweep("user-shootdown", grid, fixed=SHORT, metrics=["ipis_per_hour"])
    assert found.table["error"].tolist() == [None, None]
    label = f"mine@{tc.Policy(text=MINE).digest[:8]}"
    assert found.table["policy"].tolist() == ["ipi", label]
    assert {name: found.table[name].tolist() for name in columns} == columns


def test_policies_and_machines_of_samples_are_named_as_those_of_a_grid(tmp_path: Path):
    file = tmp_path / "mine.policy"
    file.write_text(MINE)
    samples = {"policy": ["ipi", str(file)], "machine": ["zen4-epyc", "skylake-sp"], "pages": [1, 2]}
    found = tc.sweep("user-shootdown", samples=samples, fixed=SHORT, metrics=["ipis_per_hour"])
    assert found.table["error"].tolist() == [None, None]
    assert found.table["policy"].tolist() == ["ipi", f"mine@{tc.Policy(text=MINE).digest[:8]}"]
    assert found.table["machine"].tolist() == ["zen4-epyc", "skylake-sp"]
    together = {("machine", "pages"): [("zen4-epyc", 1), ("skylake-sp", 2)]}
    again = tc.sweep("user-shootdown", together, fixed=SHORT, **ONE)
    assert again.table["machine"].tolist() == ["zen4-epyc", "skylake-sp"]


def policy(run: tc.SimResult) -> float:
    return 1.0


def pages(run: tc.SimResult) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"names": ["x"]}, "names are those of the columns of samples, and a grid has its own: got ['x']"),
        ({"yes": "no"}, "yes must be True or False: got 'no'"),
        ({"yes": 1}, "yes must be True or False: got 1"),
        (
            {"metrics": [policy]},
            "a metric of your own is called 'policy', which is the name of another column",
        ),
        ({"metrics": [pages]}, "a metric of your own is called 'pages', which is the name of another column"),
        ({"samples": {"pages": [1]}}, "a sweep needs a grid or samples, and not both"),
        ({"fixed": 5}, "fixed maps names to values: got 5"),
        ({"fixed": {"pages": 1}}, "parameter 'pages' is both fixed and varied"),
        ({"policies": []}, "a sweep needs at least one policy"),
        ({"policies": ["ipi", "rar", "ipi"]}, "the policies have 'ipi' twice"),
    ],
)
def test_what_a_sweep_cannot_take_is_refused_in_one_sentence(options: dict[str, Any], said: str):
    with pytest.raises(SweepError) as error:
        tc.sweep("user-shootdown", {"pages": [1]}, **{"fixed": SHORT, **options})
    assert str(error.value) == said


def test_a_metric_of_ones_own_is_not_kept_in_a_directory(tmp_path: Path):
    with pytest.raises(SweepError) as error:
        tc.sweep("user-shootdown", {"duration_s": [0.005]}, metrics=[pages], out=tmp_path / "out")
    assert (
        str(error.value) == "out= takes metrics by name only: nothing tells whether pages has changed since"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["seed", "point", "error", "replication", "ipis_per_hour"])
def test_a_parameter_is_not_called_as_another_column(name: str):
    scope: dict[str, Any] = {"made": made}
    exec(f"def base({name}): return made({name})", scope)
    with pytest.raises(
        SweepError, match=f"parameter '{name}' is called as another column of the table is: give it"
    ):
        tc.sweep(scope["base"], {name: [5.5]}, **ONE)


@pytest.mark.parametrize("kept", [False, True])
def test_progress_counts_a_sample_that_is_given_twice_once(kept: bool, tmp_path: Path):
    told: list[Any] = []
    options: dict[str, Any] = {"fixed": SHORT, "out": tmp_path / "out" if kept else None, **ONE}
    options["progress"] = lambda *now: told.append(now)
    tc.sweep("user-shootdown", samples={"pages": [1, 1, 2, 3, 2]}, **options)
    assert told[-1] == (3, 3)
    assert {total for _, total in told} == {3}
    told.clear()
    found = tc.sweep("user-shootdown", samples={"pages": [1, 1, 2, 3, 2, 4, 4]}, **options)
    assert told[-1] == ((1, 1) if kept else (4, 4))
    assert found.table["sample"].tolist() == list(range(7))


def test_ctrl_c_gives_what_is_done_and_nothing_if_there_is_none(monkeypatch):
    def stop(*now: Any) -> None:
        raise KeyboardInterrupt

    found = tc.sweep("user-shootdown", {"pages": [1, 2]}, fixed=SHORT, progress=stop, **ONE)
    assert found.interrupted
    assert 1 <= len(found) <= 2
    monkeypatch.setattr("tlbcore.sweeps.batches.drive_threads", lambda *_: (stop() for _ in range(1)))
    with pytest.raises(KeyboardInterrupt):
        tc.sweep("user-shootdown", {"pages": [1]}, fixed=SHORT, **ONE)


def by_place(n: int, /) -> tc.Scenario:
    return made(n)


def by_any_name(**n: int) -> tc.Scenario:
    return made(n)


def all_by_place(*n: int) -> tc.Scenario:
    return made(n)


@pytest.mark.parametrize("base", [by_place, by_any_name, all_by_place])
def test_what_takes_no_value_by_its_name_is_no_parameter(base: Any):
    with pytest.raises(SweepError, match="unknown parameter 'n': known are "):
        tc.sweep(base, {"n": [1]}, **ONE)
