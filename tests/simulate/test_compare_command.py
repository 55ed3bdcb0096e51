"""What `tlbcore compare` asks for and prints: rows, marks, remarks, and runs that were stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios
from tlbcore._output.html import reports
from tlbcore._output.table import Table
from tlbcore.cli import main
from tlbcore.simulation import compare as module
from tlbcore.simulation import told

LOAD = scenarios.quiet(duration_s=0.25, cpus=4, isolated="2-3")


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="module")
def real() -> tc.Comparison:
    return tc.compare(LOAD, policies=["ipi", "coalesce-v7"])


class Asked:
    """Stands in for `compare`: notes what it was asked, and answers with the comparison it was given."""

    def __init__(self, answer: tc.Comparison) -> None:
        self.answer, self.how = answer, dict[str, Any]()

    def __call__(self, load: Any, **how: Any) -> tc.Comparison:
        how.pop("progress")(1.0, 2.0)
        self.how = {"load": load, **how}
        return self.answer


@pytest.fixture
def asked(real: tc.Comparison, monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked(real)
    monkeypatch.setattr(module, "compare", made)
    return made


def table(**columns: list[Any]) -> Table:
    """Return a table of two policies on isolated CPUs and all together, in which nothing occurred but `columns`."""
    nothing = {figure.name: np.full(4, np.nan) for figure in tc.figures()}
    names = {"policy": ["ipi", "ipi", "coalesce-v7", "coalesce-v7"], "cpu_class": ["isolated", "all"] * 2}
    return Table({**{name: np.array(values) for name, values in names.items()}, **nothing, **columns})


def test_what_is_asked_if_nothing_is_said(asked: Asked) -> None:
    assert main(["compare"]) == 0
    names = ["ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed", "pending-bit"]
    assert asked.how == {
        "load": scenarios.rteval(),
        "machine": "broadwell-ep-e5-2699v4",
        "kernel": tc.Kernel(broadcast_tlb_flush=True),
        "policies": names,
        "seed": 1,
        "replications": 1,
    }


@pytest.mark.parametrize(("pti", "value"), [("on", True), ("off", False), ("auto", None)])
def test_what_is_asked_is_what_was_said(pti: str, value: bool | None, asked: Asked) -> None:
    line = f"compare --scenario trading --cpus 8 --isolated 3 --duration 2 --machine skylake-sp --pti {pti}"
    assert main([*line.split(), "--policy", "pending-bit", "--seed", "7", "--replications", "3"]) == 0
    assert asked.how == {
        "load": scenarios.trading(cpus=8, isolated="3", duration_s=2.0),
        "machine": "skylake-sp",
        "kernel": tc.Kernel(pti=value, broadcast_tlb_flush=True),
        "policies": ["pending-bit"],
        "seed": 7,
        "replications": 3,
    }


def test_policies_stand_on_what_was_said(asked: Asked) -> None:
    assert main(["compare", "--policy", "ipi", "--kernel-version", "7.3"]) == 0
    assert asked.how["policies"] == [tc.policies["ipi"].on("7.3")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a b.txt"], "compares simulated policies; recordings are compared by `tlbcore explain 'a b.txt'`"),
        (["ipi", "x.txt"], "recordings are compared by `tlbcore explain ipi x.txt`"),
        (
            ["ipi", "my own.policy"],
            "policies are named by an option each: --policy ipi --policy 'my own.policy'",
        ),
        (["--pti", "yes"], "--pti takes on, off or auto: got 'yes'"),
        (["--kernel-version", "6.11"], "--kernel-version takes 6.12 or 7.3: got '6.11'"),
    ],
)
def test_what_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tlbcore: error: ")
    assert err.endswith(f"{said}\n")


def test_figures_that_no_policy_has_are_left_out_and_brief_ones_come_first(
    asked: Asked, real: tc.Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = table(
        ipis_per_hour=[3.0, 1.5, 0.0, 0.0],
        wait_mean_us=[np.nan, np.nan, 0.0, 0.0],
        entry_p50_ns=[np.nan, 80.0, np.nan, np.nan],
    )
    asked.answer = replace(real, table=columns)
    assert main(["compare"]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "quiet on broadwell-ep-e5-2699v4, 4 CPUs (2 isolated), 0.25 s simulated",
        "per isolated CPU (predicted)",
        " figure         ipi  coalesce-v7",
        " ipis_per_hour    3            0",
        "left out: Nothing runs on housekeeping CPUs.",
    ]
    assert main(["compare", "--all-figures"]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()][4:] == [
        "per CPU, all together (predicted)",
        " figure         ipi  coalesce-v7",
        " ipis_per_hour  1.5            0",
        " entry_p50_ns    80            -",
        "left out: Nothing runs on housekeeping CPUs.",
    ]


@pytest.mark.parametrize(
    ("low", "high", "cells", "said"),
    [
        ([1.0, np.nan], [5.0, np.nan], "3 ±2            -", [told.PLUS_MINUS]),
        ([np.nan, 2.0], [np.nan, 9.0], "3         2..9", [told.RANGE]),
        ([1.0, 2.0], [5.0, 9.0], "3 ±2         2..9", [told.PLUS_MINUS, told.RANGE]),
    ],
)
def test_marks_are_explained_where_they_stand(
    low: list[float],
    high: list[float],
    cells: str,
    said: list[str],
    asked: Asked,
    real: tc.Comparison,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = {f"ipis_per_hour_{end}": np.repeat(each, 2) for end, each in (("low", low), ("high", high))}
    asked.answer = replace(real, table=table(ipis_per_hour=np.repeat([3.0, np.nan], 2), **ends))
    assert main(["compare"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(lines[3].split()) == " ".join(f"ipis_per_hour {cells}".split())
    assert lines[4:] == [*said, "left out: Nothing runs on housekeeping CPUs."]
    page = reports.compare(asked.answer, {})
    for text in ("3 ±2", "2..9"):
        assert (f">{text}</td>" in page) == (text in cells)
    assert [mark for mark in (told.PLUS_MINUS, told.RANGE) if f" {mark}." in page] == said


def test_a_bar_that_has_no_value_shows_its_range(real: tc.Comparison) -> None:
    ends = {"ipis_per_hour_low": [np.nan] * 2 + [2.0] * 2, "ipis_per_hour_high": [np.nan] * 2 + [9.0] * 2}
    page = reports.compare(replace(real, table=table(ipis_per_hour=[3.0, 3.0, np.nan, np.nan], **ends)), {})
    assert page.count(">2..9</text>") == 2
    assert "no value" not in page
    without = reports.compare(replace(real, table=table(ipis_per_hour=[3.0, 3.0, np.nan, np.nan])), {})
    assert without.count(">no value</text>") == 2


def test_rules_broken_and_notes_are_told_once_each(
    asked: Asked, real: tc.Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = real.results
    broken = second.replace(violation="deadlock on CPU 1", notes=("b", "c"))
    asked.answer = replace(real, results=(first.replace(notes=("a", "b")), broken))
    assert main(["compare"]) == 1
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "note: a",
        "note: b",
        "note: c",
        "violation under coalesce-v7, seed 1: deadlock on CPU 1",
        "left out: Nothing runs on housekeeping CPUs.",
    ]
    assert main(["compare", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["version"]) == ("tlbcore.compare", 2)
    assert document["notes"] == ["a", "b", "c"]
    run = {"seed": 1, "duration_s": 0.25, "interrupted": False}
    assert document["runs"] == [
        {"policy": "ipi", **run, "violation": None},
        {"policy": "coalesce-v7", **run, "violation": "deadlock on CPU 1"},
    ]


def test_how_far_each_policy_came_before_it_was_interrupted(
    asked: Asked, real: tc.Comparison, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = (run.replace(scenario=replace(LOAD, duration_s=2_000_000.0)) for run in real.results)
    runs = (
        first.replace(duration_s=2_000_000.0),
        first.replace(duration_s=1_234_567.8, seed=5, interrupted=True),
        second.replace(duration_s=0.0, interrupted=True),
    )
    asked.answer = module._comparison(runs, ("ipi", "coalesce-v7"))
    page = tmp_path / "page.html"
    assert main(["compare", "--html", str(page)]) == 130
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("(2 isolated), 0..2000000 of 2000000 s simulated")
    assert out[-2:] == [
        "interrupted: ipi was simulated for 1234568..2000000 of 2000000 s; its figures are of that time",
        "interrupted: coalesce-v7 was simulated for 0 of 2000000 s; it has no figures",
    ]
    assert all(line in page.read_text() for line in out[-2:])


def test_runs_of_different_lengths_have_no_interval(real: tc.Comparison) -> None:
    first, second = real.results
    usual = module._comparison((first, first.replace(seed=2), second), ("ipi", "coalesce-v7")).table
    assert usual["user_share_low"][0] == usual["user_share"][0] == 1
    runs = (first, first.replace(seed=2, duration_s=0.1, interrupted=True), second)
    table = module._comparison(runs, ("ipi", "coalesce-v7")).table
    assert table["user_share"][0] == 1
    assert np.isnan(table["user_share_low"][0])
    assert np.isnan(table["user_share_high"][0])


def test_a_run_with_the_end_of_a_cost_that_was_interrupted_is_one_that_was_interrupted(
    real: tc.Comparison,
) -> None:
    first, second = real.results
    low = second.replace(interrupted=True, duration_s=0.1)
    made = module._comparison((first, second), ("ipi", "coalesce-v7"), (low,))
    assert made.interrupted
    assert told.simulated(made) == "0.1..0.25 of 0.25 s"
    assert told.remarks(made)[-1] == (
        "interrupted: coalesce-v7 was simulated for 0.1..0.25 of 0.25 s; its figures are of that time"
    )
    other = {
        name: np.full_like(column, 9.0) for name, column in second.figures.items() if column.dtype == float
    }
    none = second.replace(interrupted=True, duration_s=0.0, figures={**second.figures, **other})
    table = module._comparison((first, second), ("ipi", "coalesce-v7"), (none,)).table
    assert table["user_share"].tolist() == module._comparison((first, second), made.policies).table[
        "user_share"
    ].tolist()  # fmt: skip


def test_brackets_are_brackets(asked: Asked, real: tc.Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tuple(run.replace(machine="x[/y].toml", notes=("[bold]",)) for run in real.results)
    asked.answer = replace(real, results=runs)
    assert main(["compare"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("quiet on x[/y].toml, 4 CPUs")
    assert "note: [bold]\n" in out


@pytest.mark.parametrize(
    ("broken", "interrupted", "status"),
    [
        ((), False, 0),
        ((0,), False, 1),
        ((1,), False, 1),
        ((0, 1), False, 1),
        ((), True, 130),
        ((1,), True, 130),
    ],
)
def test_the_exit_status_is_1_where_a_run_broke_a_rule(
    broken: tuple[int, ...], interrupted: bool, status: int, asked: Asked, real: tc.Comparison
) -> None:
    runs = tuple(
        run.replace(violation="stale_access" if i in broken else None, interrupted=interrupted)
        for i, run in enumerate(real.results)
    )
    asked.answer = replace(real, results=runs)
    assert main(["compare"]) == status


def test_a_page_that_has_no_place_is_refused_before_anything_is_simulated(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "shut")
    (tmp_path / "shut").mkdir()
    (tmp_path / "file").write_text("")
    for path, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "none" / "page", "no such file or directory"),
        (tmp_path / "file" / "page", "no such file or directory"),
        (tmp_path / "shut" / "page", "permission denied"),
    ):
        assert main(["compare", "--html", str(path)]) == 2
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("", f"tlbcore: error: {path}: {said}\n")
    assert not asked.how
    assert main(["compare", "--html", str(tmp_path / "file")]) == 0
    assert (tmp_path / "file").read_text().startswith("<!")


def test_every_figure_is_in_json_anyway(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--json", "--all-figures"]) == 2
    assert capsys.readouterr().err == "tlbcore: error: --json holds every figure: leave --all-figures out\n"
    assert not asked.how
