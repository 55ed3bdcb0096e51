"""What every command prints in 80 columns: no line is longer, and no name is cut."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import cli
from tlbcore._output.width import wrapped
from tlbcore.cli import _common, main

DATA = Path(__file__).parents[1] / "data"
LITMUS = Path(__file__).parents[1] / "litmus"
BUNDLED = str(Path(tc.__file__).parent / "data" / "modules.trace.txt.xz")
SHOOTDOWNS = str(DATA / "user.p73.us7.trace.txt.xz")
CENSUS = [str(DATA / f"linux-{release}.census.json.xz") for release in ("6.1.192", "6.12.117")]
WALK = str(DATA / "addresses" / "walk.lackey.txt.xz")
GRID = """
scenario = "syscall-heavy"
policies = ["ipi", "coalesce-v7"]
[fixed]
duration_s = 0.001
[grid]
spawn_hz = [10, 1000]
"""

SHOWN = {
    "help": ["--help"],
    "demo": ["demo"],
    "explain": ["explain", BUNDLED, "--legend"],
    "explain-short": ["explain", BUNDLED, "--short"],
    "explain-pair": ["explain", str(DATA / "p4.w5s.trace.txt.xz"), str(DATA / "p4.w7.trace.txt.xz")],
    "explain-process": ["explain", SHOOTDOWNS, "--all-cpus", "--machine", "broadwell-ep"],
    "causes": ["causes"],
    "causes-one": ["causes", "vmalloc_purge"],
    "words": ["words"],
    "replay": ["replay", BUNDLED, "--machine", "skylake-sp"],
    "check": ["check", "coalesce-v7"],
    "check-step": ["check", "coalesce-v7", "--step"],
    "litmus": ["litmus", str(LITMUS / "cases")],
    "repair": ["repair", "coalesce-v7"],
    "policy-list": ["policy", "list"],
    "census": ["census", CENSUS[1]],
    "census-entry": ["census", CENSUS[1], "--entry", "entry_SYSCALL_64"],
    "census-since": ["census", CENSUS[1], "--since", CENSUS[0]],
    "compare": ["compare", "--scenario", "syscall-heavy", "--duration", "0.01"],
    "validate": ["validate", "--misses"],
    "machines": ["machines"],
    "machines-one": ["machines", "broadwell-ep"],
    "sweep": ["sweep", "GRID", "--out", "OUT"],
    "tlb": ["tlb", WALK],
    "miss-curve": ["miss-curve", WALK],
    "inspect": ["inspect", "--root", str(DATA / "host-rt4")],
    "doctor": ["doctor"],
}
# What is copied or read by programs is not broken: texts of policies, kernels, tests, schemas and scripts. The others
# need a machine of their own: their help is looked at, as everybody's.
LEFT_ALONE = {"new", "extract", "record", "top", "calibrate", "schema", "completion"}


def test_every_command_is_here():
    assert {words[0] for words in SHOWN.values()} - {"--help"} == set(cli._COMMANDS) - LEFT_ALONE


def fits(text: str, room: int) -> None:
    """No line is longer, but for a name that stands alone or a remedy that is copied; nothing ends in dots."""
    for line in text.splitlines():
        alone = len(line.split()) <= 1
        assert len(line) <= room or alone or line.startswith("    remedy "), line
        assert "\u2026" not in line
        assert not line.endswith("...") or "Usage:" in line, line


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "repair" else name for name in SHOWN]
)
def test_what_a_command_prints_fits_eighty_columns(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdin", io.StringIO("nnq"))
    (tmp_path / "grid.toml").write_text(GRID)
    places = {"GRID": str(tmp_path / "grid.toml"), "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in SHOWN[name]]) in (0, 1)
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) > 2
    for place, short in ((DATA, "data"), (tmp_path, "here"), (Path(tc.__file__).parent, "tlbcore")):
        shown = shown.replace(str(place), short)
    fits(shown, 80)


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_help_fits_eighty_columns(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "--help"]) == 0
    fits(capsys.readouterr().out, 80)


def test_a_census_in_wide_columns_is_a_table_and_in_narrow_ones_a_list_of_the_same_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["census", CENSUS[1]]) == 0
    wide = capsys.readouterr().out.splitlines()
    heads = [
        "cpu_entry_area",
        "per-CPU",
        "entry text",
        "kernel rodata",
        "kernel data",
        "direct map",
        "task stack",
    ]
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["census", CENSUS[1]]) == 0
    narrow = capsys.readouterr().out.splitlines()
    row = next(line for line in wide if line.startswith("  danger zone"))
    counts = row[18:].split()[: len(heads)]
    some = ", ".join(f"{head} {n}" for head, n in zip(heads, counts, strict=True) if n != "0")
    assert some == "per-CPU 5, direct map 1, task stack 28"
    assert next(line for line in narrow if line.startswith("  danger zone")).split("  ")[-1].startswith(some)


def test_the_table_of_top_and_a_command_line_without_blanks_are_broken_and_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from tlbcore.trace.recorder.watch import KINDS, Reading, Row, table

    monkeypatch.setenv("COLUMNS", "60")
    rows = tuple(
        Row(
            cpu=2,
            kind=kind,
            name="a_kernel_function_with_a_long_name",
            count=10**9,
            seconds=0.1,
            longest_s=0.1,
        )
        for kind in KINDS
    )
    reading = Reading(time=1.0, seconds=1.0, cpus=(2,), rows=rows, recorded=dict.fromkeys(KINDS, True))
    _common.console().print(table(reading, None))
    shown = capsys.readouterr().out
    fits(shown, 60)
    assert main(["inspect", "--root", str(DATA / "host-p4")]) == 0
    shown = capsys.readouterr().out
    fits(shown, 60)
    line = (DATA / "host-p4" / "proc" / "cmdline").read_text().strip()
    assert max(line.split(), key=len) in "".join(part.strip() for part in shown.splitlines())


def test_lines_are_broken_at_blanks_and_words_stay_whole():
    assert wrapped("  a long_name_that_is_wider", 10).split("\n") == ["  a", "    long_name_that_is_wider"]
    assert wrapped("short\n\n  kept", 10) == "short\n\n  kept"
