"""Every result leaves as pandas, xarray and Parquet, is saved and loaded, and is shown in a notebook."""

from __future__ import annotations

import dataclasses
import html.parser
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape as html_escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore._output.result import InertPolicyWarning, Listed, Result
from tlbcore.checker.table import row_of
from tlbcore.checker.worlds import cell_of
from tlbcore.inspect.calibration import _result
from tlbcore.simulation.repair_cost import Cost
from tlbcore.validation.row import Row

ROOT = Path(__file__).parents[1]
RECORDING = ROOT / "data" / "p4.w7.trace.txt.xz"


def _load() -> tc.Scenario:
    return tc.scenarios.syscall_heavy(duration_s=0.01)


def _compared(
    machine: str = "broadwell-ep", policies: tuple[str, ...] = ("ipi", "coalesce-v7")
) -> tc.Comparison:
    return tc.compare(_load(), machine=machine, policies=policies)


def _break_even() -> Any:
    return tc.break_even(
        "syscall-heavy", "base_ns", 1, 2, metric="entry_flush_ns", fixed={"duration_s": 0.01}, replications=2,
        policies=("ipi", "coalesce-v7"),
    )  # fmt: skip


def _swept() -> tc.Sweep:
    return tc.sweep("syscall-heavy", {"spawn_hz": [10, 100]}, fixed={"duration_s": 0.01}, replications=2)


def _repairs() -> tc.Repairs:
    cost = Cost(machine="broadwell-ep", syscall_extra_ns=552.5, nmi_extra_ns=0.0, deferred=0.99, ipis=0.01)
    one = tc.Repair(
        edits=("insert `fence`", "move a store"), policy=tc.policies["coalesce-v7-fixed"], verdict="verified (bounded)",
        states=1234, hypothesis=None, cost=cost,
    )  # fmt: skip
    return tc.Repairs(
        policy=tc.policies["coalesce-v7"],
        edits=2,
        machine="broadwell-ep",
        sentence="Violated.",
        rows=(one, one),
    )


def _validation() -> tc.Validation:
    given: dict[str, Any] = {"name": "a time", "unit": "ns", "role": "prediction", "published": 200.0}
    return tc.Validation(
        rows=(
            Row(number=1, computed=230.0, tolerance=0.1, **given),
            Row(number=2, computed=None, tolerance=0.1, note="not modelled", **given),
        )
    )


def _calibration() -> tc.Calibration:
    report = {
        "measurements": [("cpu.mhz", 3700.0, "MHz", 0.01, True, 8, 0, ""), ("walk", 11.2, "ns", 0.1, False, 3, 0, "")],
        "pages": [16.0, 64.0], "ns": [0.0, 0.1], "cpu": 1, "others": [0], "missing": [("costs.rar", "no RAR")],
        "taken_share": 0.01, "steal_share": None,
    }  # fmt: skip
    host = tc.inspect_host(ROOT / "data" / "host-zen4-guest")
    return _result(report, host, tc.machines["zen4-epyc"], "own", None)


MADE: dict[str, Callable[[], Result]] = {
    "simulate": lambda: tc.simulate(_load(), machine="broadwell-ep", policy="coalesce-v7"),
    "compare": _compared,
    "sweep": _swept,
    "check": lambda: tc.check("coalesce-v7", nmis=1),
    "litmus": lambda: tc.litmus(sorted((ROOT / "litmus").rglob("*.litmus"))[0], ends=True),
    "explain": lambda: tc.explain(tc.read_trace(RECORDING)),
    "replay": lambda: tc.replay(tc.read_trace(RECORDING), ["ipi", "coalesce-v7"]),
    "recording": lambda: tc.read_trace(RECORDING),
    "shootdowns": lambda: tc.shootdowns(RECORDING.parent / "user.p73.us7.trace.txt.xz"),
    "causes": lambda: tc.causes,
    "inspect": lambda: tc.inspect_host(cmdline="nohz_full=2-7", release="6.12.0", cpus=8),
    "necessary": lambda: tc.necessary("lazy-tune", world="pti"),
    "repair": _repairs,
    "repair, none": lambda: tc.Repairs(
        policy=tc.policies["ipi"], edits=1, machine="broadwell-ep", sentence="", rows=()
    ),
    "verdict table": lambda: tc.VerdictTable(
        rows=(row_of("ipi", "purge", (2, 0, 1, "none", "none", "instr", "ordered"), 1 << 30),)
    ),
    "world table": lambda: tc.WorldTable(rows=(cell_of("ipi", "pti", "6.12"),)),
    "validate": _validation,
    "calibrate": _calibration,
    "translate": lambda: tc.translate(
        ROOT / "data" / "addresses" / "walk.lackey.txt.xz", machine="skylake-sp"
    ),
    "miss curve": lambda: tc.miss_curve(np.array([1, 2, 1, 3]), sets=[1, 2], ways=2),
    "access": lambda: tc.Tlb("peers-64x4-1536x12").access(np.array([1, 2, 1])),
}


@pytest.fixture(scope="module")
def made() -> Callable[[str], Result]:
    known: dict[str, Result] = {}
    return lambda name: known.setdefault(name, MADE[name]()) if name not in known else known[name]


def _same(one: Any, other: Any) -> bool:
    return list(one) == list(other) and all(
        np.array_equal(one[c], other[c], equal_nan=np.asarray(one[c]).dtype.kind == "f") for c in one
    )


def test_every_class_of_results_stands_in_this_test(made: Callable[[str], Result]) -> None:
    import tlbcore.inspect.calibration
    import tlbcore.translation
    import tlbcore.validation.published  # noqa: F401

    def below(cls: type) -> set[str]:
        ours = [sub for sub in cls.__subclasses__() if sub.__module__.startswith("tlbcore.")]
        return {cls.__name__} | {name for sub in ours for name in below(sub)}

    elsewhere = {"Result", "Listed", "BreakEven"}  # bases, and what has a test of its own below
    assert {type(made(name)).__name__ for name in MADE} == below(Result) - elsewhere


@pytest.mark.parametrize("name", MADE)
def test_a_saved_result_is_loaded_with_equal_tables_and_conditions(
    name: str, made: Callable[[str], Result], tmp_path: Path
) -> None:
    result = made(name)
    file = result.save(tmp_path / "result")
    for other in (tc.load(file), type(result).load(file), pickle.loads(pickle.dumps(result))):
        assert type(other) is type(result)
        assert list(other._tables()) == list(result._tables())
        assert all(_same(table, other._tables()[key]) for key, table in result._tables().items())
        assert other._about() == result._about()
        assert repr(other) == repr(result)
        assert str(other) == str(result)


@pytest.mark.parametrize("name", MADE)
def test_a_result_and_its_rows_cannot_be_changed_and_are_made_by_keyword(
    name: str, made: Callable[[str], Result]
) -> None:
    result = made(name)
    for one in (result, *(list(result)[:1] if isinstance(result, Listed) else [])):
        if not dataclasses.is_dataclass(one):
            continue
        first = dataclasses.fields(one)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, first, None)
        kinds = {p.kind for p in inspect.signature(type(one)).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}, type(one).__name__


@pytest.mark.parametrize("name", MADE)
def test_a_list_of_rows_equals_their_tuple_and_says_what_it_is_in_one_line(
    name: str, made: Callable[[str], Result]
) -> None:
    result = made(name)
    if not isinstance(result, Listed):
        return
    rows = tuple(result)
    assert result == rows
    assert hash(result) == hash(rows)
    assert result != [*rows]
    assert result != (*rows, None)
    assert repr(result).startswith(f"<{type(result).__name__} of ")
    assert "\n" not in repr(result)
    assert len(repr(result)) < 100


@pytest.mark.parametrize("name", MADE)
def test_every_table_goes_to_pandas_and_parquet_with_its_columns_and_values(
    name: str, made: Callable[[str], Result], tmp_path: Path
) -> None:
    pd = pytest.importorskip("pandas", reason="the extra `tables`")
    result = made(name)
    for key, table in result._tables().items():
        frame = result.to_pandas(key)
        assert list(frame.columns) == list(table)
        back = pd.read_parquet(result.to_parquet(tmp_path / "table.parquet", key))
        assert list(back.columns) == list(table)
        for column in table:
            values = np.asarray(table[column])
            assert len(frame[column]) == len(back[column]) == len(values)
            if values.dtype.kind in "iufb":
                assert np.array_equal(back[column].to_numpy(), values, equal_nan=values.dtype.kind == "f")
            else:
                wanted = [None if v is None else str(v) for v in values]
                assert [None if pd.isna(v) else v for v in back[column]] == wanted
    with pytest.raises(tc.ConfigError, match="unknown table 'nothing'"):
        result.to_pandas("nothing")


@pytest.mark.parametrize("name", MADE)
def test_every_main_table_goes_to_xarray_and_nothing_is_lost(
    name: str, made: Callable[[str], Result]
) -> None:
    pytest.importorskip("xarray", reason="the extra `tables`")
    result = made(name)
    data = result.to_xarray()
    table = next(iter(result._tables().values()))
    for column in data.data_vars:
        values = np.asarray(table[column])
        if values.dtype.kind in "iuf":
            assert np.nansum(data[column].to_numpy().astype(float)) == pytest.approx(
                np.nansum(values.astype(float))
            )
    assert set(data.data_vars) | set(data.coords) <= {*table, "replication"}


@pytest.mark.parametrize(
    ("package", "leave"),
    [
        ("pandas", lambda result, _: result.to_pandas()),
        ("xarray", lambda result, _: result.to_xarray()),
        ("pyarrow", lambda result, folder: result.to_parquet(folder / "t.parquet")),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    package: str, leave: Any, made: Callable[[str], Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"the package {package}: pip install 'tlbcore\[tables\]'"):
        leave(made("miss curve"), tmp_path)


def test_tables_are_listed_by_name(made: Callable[[str], Result]) -> None:
    assert next(iter(made("simulate").tables)) == "table"
    assert set(made("explain").tables) == {"table", "initiators", "missing"}
    assert made("compare").tables["table"] is made("compare").table  # type: ignore[attr-defined]


def test_dimensions_are_what_rows_are_named_by(made: Callable[[str], Result]) -> None:
    pytest.importorskip("xarray", reason="the extra `tables`")
    compared = made("compare")
    assert isinstance(compared, tc.Comparison)
    data = compared.to_xarray()
    assert dict(data.sizes) == {"policy": 2, "cpu_class": 3}
    assert data["policy"].values.tolist() == ["ipi", "coalesce-v7"], "in the order of the comparison"
    rows = (compared.table["policy"] == "coalesce-v7") & (compared.table["cpu_class"] == "housekeeping")
    cell = data["syscall_mean_ns"].sel(policy="coalesce-v7", cpu_class="isolated")
    other = (compared.table["policy"] == "coalesce-v7") & ~rows
    assert float(cell) == compared.table["syscall_mean_ns"][other][0]
    curve = made("miss curve").to_xarray()
    # 1, 2, 1, 3 in one set: one way misses all four; two ways hit the second 1.
    assert curve["misses"].sel(sets=1).values.tolist() == [4, 3]


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# Made here out of their parts, or no call's result: nothing says what made them.
BY_HAND = {"causes", "repair", "repair, none", "verdict table", "world table", "validate", "calibrate"}


@pytest.mark.parametrize("name", MADE)
def test_the_notebooks_view_is_whole_and_folds_every_table(name: str, made: Callable[[str], Result]) -> None:
    result = made(name)
    page = result._repr_html_()
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.seen <= {
        "div",
        "p",
        "b",
        "code",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert ("<p>made by <code>tlbcore." in page) == (name not in BY_HAND)
    for key, table in result._tables().items():
        length = len(next(iter(table.values()))) if table else 0
        assert f"<summary>{key}: {length} rows, {len(table)} columns" in page
    assert len(page) < 200_000


def test_markup_in_names_and_texts_is_shown_and_not_run() -> None:
    evil = "<script>alert(1)</script>"
    load = _load().replace(name=evil)
    page = tc.simulate(load, machine="broadwell-ep")._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_inert_policies_warn_and_are_marked() -> None:
    with pytest.warns(InertPolicyWarning, match="coalesce-v7.*is inert.*Meltdown") as seen:
        found = _compared("cascade-lake-sp")
    assert len(seen) == 1
    assert "<b>inert:</b> `coalesce-v7` is inert: it needs pti" in found._repr_html_()
    assert found._repr_html_().count('title="inert"') == 3, (
        "isolated, housekeeping and all CPUs under coalesce-v7"
    )
    here = _compared()._repr_html_()
    assert "<b>inert:" not in here
    assert 'title="inert"' not in here
    with pytest.warns(InertPolicyWarning, match=r"coalesce-v7` does nothing in 2 of 2 rows"):
        swept = tc.sweep(
            "syscall-heavy", {"spawn_hz": [10, 100]}, fixed={"duration_s": 0.01}, machine="cascade-lake-sp",
            policies=("ct-late", "coalesce-v7"),
        )  # fmt: skip
    assert swept._repr_html_().count('title="inert"') == 2


def test_a_break_even_says_which_policy_is_mainline_and_refuses_mainline_with_itself() -> None:
    asked: dict[str, Any] = {
        "base": "syscall-heavy", "parameter": "base_ns", "low": 500, "high": 600, "machine": "cascade-lake-sp",
        "fixed": {"duration_s": 0.01}, "replications": 2,
    }  # fmt: skip
    with pytest.raises(tc.SweepError, match="ipi and coalesce-v7 are both mainline here"):
        tc.break_even(**asked, policies=("ipi", "coalesce-v7"))
    with pytest.raises(tc.SweepError, match="coalesce-v7 and coalesce-v7-fixed both do nothing here"):
        tc.break_even(**asked, policies=("coalesce-v7", "coalesce-v7-fixed"))


def test_a_break_even_is_a_result_too(tmp_path: Path) -> None:
    from tlbcore import analysis

    def differences(value: float, count: int) -> np.ndarray[Any, Any]:
        return value - 3.0 + np.linspace(-0.01, 0.01, count)

    found = analysis.bisect(
        differences, 1.0, 5.0, parameter="x", metric="m", policies=("a", "b"), replications=5,
        most_replications=40, tolerance=0.02,
    )  # fmt: skip
    other = tc.load(found.save(tmp_path / "even"))
    assert isinstance(other, analysis.BreakEven)
    assert _same(other.points, found.points)
    assert (other.value, str(other)) == (found.value, str(found))


@pytest.mark.parametrize("place", [0, 20, 40, -1])
def test_a_damaged_file_is_refused_and_the_old_one_survives_a_failed_write(
    place: int, tmp_path: Path
) -> None:
    file = tc.miss_curve(np.array([1, 2]), sets=1, ways=1).save(tmp_path / "curve")
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    bad = tmp_path / "bad"
    bad.write_bytes(data)
    with pytest.raises(tc.ConfigError, match=r"bad: is (damaged|no saved result)"):
        tc.load(bad)
    with pytest.raises(OSError, match="no-such-place"):
        tc.load(file).save(tmp_path / "no-such-place" / "curve")
    with pytest.raises(tc.ConfigError, match="holds a MissCurve, no SimResult"):
        tc.SimResult.load(file)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("/tmp/owned"), "x"))


@pytest.mark.parametrize(
    "content",
    [
        _Evil(),
        {"a": print},
        pytest.param(np.load, id="numpy.load"),
        pytest.param(tc.simulate, id="a function of ours"),
        pytest.param(("tlbcore._output.files", "os.abort"), id="through a module of ours"),
        pytest.param(("tlbcore._output.files", "pickle.loads"), id="another reader"),
    ],
)
def test_a_strangers_file_runs_nothing(content: Any, tmp_path: Path) -> None:
    from tlbcore._output import files

    file = tmp_path / "stranger"
    if isinstance(content, tuple):  # STACK_GLOBAL of two texts, by hand
        named = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in content)
        data = pickle.PROTO + b"\x04" + named + b"\x93."
        data = b"0.0.9\n" + data
        file.write_bytes(files._MAGIC + files._digest(data) + data)
    else:
        files.save_object(file, content)
    with pytest.raises(tc.ConfigError, match="which is no part of a result"):
        tc.load(file)


def test_a_file_of_another_version_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    from tlbcore._output import files

    data = b"9.9.9\n" + pickle.PROTO + b"\x04\x8c\x0ctlbcore.gone\x8c\x04Kind\x93."
    file = tmp_path / "newer"
    file.write_bytes(files._MAGIC + files._digest(data) + data)
    with pytest.raises(tc.ConfigError, match=r"tlbcore 9\.9\.9 wrote it, this is"):
        tc.load(file)


@pytest.mark.parametrize("name", ["Counterexample", "LitmusResult", "Step", "TimedReplay", "Verdict"])
def test_a_result_of_the_checker_that_was_saved_before_it_was_a_room_is_found(name: str) -> None:
    from tlbcore import checker

    assert pickle.loads(f"ctlbcore.checker\n{name}\n.".encode()) is getattr(checker, name)
    assert name in checker.__all__


def test_a_nested_seal_is_opened_as_carefully(tmp_path: Path) -> None:
    from tlbcore._output import files

    class Sealed:
        def __reduce__(self) -> Any:
            return files.sealed(files.replace_file, _Evil())

    file = tmp_path / "stranger"
    files.save_object(file, Sealed())
    with pytest.raises(tc.ConfigError, match="which is no part of a result"):
        tc.load(file)


def test_completion_offers_columns_and_names(made: Callable[[str], Result]) -> None:
    compared = made("compare")
    assert compared._ipython_key_completions_() == ["ipi", "coalesce-v7"]
    assert "syscall_mean_ns" in compared.table._ipython_key_completions_()  # type: ignore[attr-defined]
    assert "causes" not in made("causes")._ipython_key_completions_()
    assert set(made("causes")._ipython_key_completions_()) == set(tc.causes)
    assert "misses" in made("miss curve")._ipython_key_completions_()
    assert "walks" in dir(made("access"))
    for name in ("policies", "machines"):
        assert set(getattr(tc, name)._ipython_key_completions_()) == set(getattr(tc, name))


@pytest.mark.parametrize("name", MADE)
def test_columns_are_completed_and_found_as_attributes_and_in_brackets(
    name: str, made: Callable[[str], Result]
) -> None:
    result = made(name)
    table = next(iter(result.tables.values()))
    for column in table:
        if column.isidentifier():
            assert column in dir(result)
        if not isinstance(result, Mapping | Sequence):
            assert _same({column: result[column]}, {column: table[column]})  # type: ignore[index]
            if not hasattr(type(result), column) and column not in vars(result) and name != "access":
                assert _same({column: getattr(result, column)}, {column: table[column]})
    with pytest.raises(AttributeError, match="nothing_of_this"):
        result.nothing_of_this  # type: ignore[attr-defined]  # noqa: B018
    if not isinstance(result, Mapping | Sequence):
        with pytest.raises(KeyError, match="unknown column 'nothing_of_this'"):
            result["nothing_of_this"]  # type: ignore[index]
        with pytest.raises(TypeError, match="not iterable"):
            list(result)  # type: ignore[call-overload]


def test_what_repair_found_unpacks_and_compares_like_a_tuple(made: Callable[[str], Result]) -> None:
    found, none = made("repair"), made("repair, none")
    assert isinstance(found, tc.Repairs)
    first, second = found
    assert (first, found[-1], found[:1], len(found)) == (found.rows[0], second, (first,), 2)
    assert found == (first, second)
    assert found != (first,)
    assert none == ()
    assert not none
    assert hash(found) == hash((first, second))
    assert found.tables["rows"]["edits"].tolist() == ["insert `fence`; move a store"] * 2
    assert found.tables["rows"]["policy_text"][0] == tc.policies["coalesce-v7-fixed"].text
    assert found.tables["rows"]["deferred"].tolist() == [0.99, 0.99]
    needs = made("necessary")
    assert isinstance(needs, tc.Needs)
    assert needs.tables["rows"]["needed"].tolist() == [need.needed for need in needs]
    assert needs.policy.name == "lazy-tune"
    assert needs.sentence.startswith("Verified")


def test_a_loaded_validation_and_calibration_answer_as_before(
    made: Callable[[str], Result], tmp_path: Path
) -> None:
    checked = tc.Validation.load(made("validate").save(tmp_path / "v"))
    assert [row.ratio for row in checked.rows] == [1.15, None]
    assert [row.number for row in checked.misses] == [1]
    measured = made("calibrate")
    assert isinstance(measured, tc.Calibration)
    again = tc.Calibration.load(measured.save(tmp_path / "c"))
    assert again.machine == measured.machine
    assert again.machine.mhz == 3700
    walk = tc.Translation.load(made("translate").save(tmp_path / "t"))
    assert int(walk.table["accesses"].sum()) == 288 + 1453  # docs/tlb.md


def test_a_loaded_recording_has_its_figures_and_asks_for_the_file_to_be_replayed(
    made: Callable[[str], Result], tmp_path: Path
) -> None:
    trace = made("recording")
    other = tc.load(trace.save(tmp_path / "trace"))
    assert isinstance(trace, tc.Trace)
    assert isinstance(other, tc.Trace)
    assert str(tc.explain(other)) == str(tc.explain(trace))
    with pytest.raises(tc.TraceError, match="read_trace reads the recording again"):
        tc.replay(other)


def test_a_loaded_counterexample_still_replays(made: Callable[[str], Result], tmp_path: Path) -> None:
    verdict = made("check")
    other = tc.load(verdict.save(tmp_path / "verdict"))
    assert isinstance(other, tc.Verdict)
    assert other.counterexample is not None
    assert other.counterexample.replay() == other.counterexample.rule
    assert other.to_dict() == verdict.to_dict()  # type: ignore[attr-defined]


def test_a_scenario_comes_back_from_its_json() -> None:
    from tlbcore.scenarios import SCENARIOS

    for make in SCENARIOS.values():
        load = make()
        assert tc.Scenario.from_json(load.to_json()) == load
    text = _load().to_json()
    for bad, said in [
        ("{", "the text is no JSON"),
        ("[]", "must be a JSON object: got list"),
        ("{}", "the key 'duration_ps' is missing"),
        (text.replace('"cpus"', '"cpuz"', 1), "unknown key 'cpuz', did you mean 'cpus'"),
        (text.replace('"actors": [', '"actors": [3, '), "an actor must be a JSON object: got 3"),
        (text.replace('"isolated": [', '"isolated": [0, '), "CPU 0"),
    ]:
        with pytest.raises(tc.SimError, match=said):
            tc.Scenario.from_json(bad)


def test_a_result_keeps_the_machine_as_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\ntitle = "own"\ninherits = "broadwell-ep-e5-2699v4"\n[cpu]\nmhz = 1000\n')
    result = tc.simulate(_load(), machine=str(file))
    file.write_text(file.read_text().replace("1000", "2000"))
    assert "mhz = 1000" in result.machine_text
    assert result.version == tc.__version__
    assert result.to_pandas().attrs["machine_text"] == result.machine_text


def test_a_wide_table_of_a_notebook_leaves_out_what_is_zero_everywhere(made: Callable[[str], Result]) -> None:
    compared = made("compare")
    page = compared._repr_html_()
    table = next(iter(compared.tables.values()))
    assert len(table) > 30
    for name in ("syscall_mean_ns", "violations_per_hour"):
        said = bool(np.nan_to_num(np.asarray(table[name])).any())
        assert (f"<th>{name} (" in page) == said
    assert "syscall_mean_ns" in page
    shown = page.split("<thead><tr>")[1].split("</tr>")[0].count("<th>")
    left = len(table) - shown
    assert f"{len(table)} columns; {left} that are zero or empty everywhere are left out" in page
    assert "left out" not in made("explain")._repr_html_(), "narrow tables are whole"


@pytest.mark.parametrize("name", ["explain", "compare", "sweep", "check", "replay", "access"])
def test_the_notebooks_view_has_the_call_that_made_it(
    name: str, made: Callable[[str], Result], tmp_path: Path
) -> None:
    result = made(name)
    call = {
        "explain": f"tlbcore.explain(tlbcore.read_trace({str(RECORDING)!r}))",
        "sweep": "tlbcore.sweep('syscall-heavy', {'spawn_hz': [10, 100]}, fixed={'duration_s': 0.01}, replications=2)",
        "check": "tlbcore.check('coalesce-v7', nmis=1)",
        "replay": f"tlbcore.replay(tlbcore.read_trace({str(RECORDING)!r}), ['ipi', 'coalesce-v7'])",
        "compare": "tlbcore.compare(",
        "access": "tlbcore.Tlb(...).access(...)",
    }[name]
    assert html_escape(call) in result._repr_html_()
    again = tc.load(result.save(tmp_path / "saved"))
    assert html_escape(f"tlbcore.load({str(tmp_path / 'saved')!r})") in again._repr_html_()


def test_names_of_strangers_stay_text_in_a_notebook() -> None:
    from tlbcore._output import calls
    from tlbcore._output.table import Table

    class Strange(Result):
        def _tables(self) -> dict[str, Any]:
            return {"<b>": Table({"<script>": np.array(["<img src=x>\x1b[31m\u202e"])})}

        def __repr__(self) -> str:
            return "<script>\u202e"

    strange = Strange()
    calls.note(strange, "<script>\x07")
    page = strange._repr_html_()
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "\\x1b[31m\\u202e" in page
    assert "\\x07" in page
