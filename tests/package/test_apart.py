"""What a command reads is not written over, and its reports go to files of their own."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from tlbcore.cli import main

RECORDING = Path(__file__).parents[1] / "data" / "k61.w4spin.trace.txt.xz"
POLICY = "policy mine\n"


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("before.txt").write_bytes(lzma.decompress(RECORDING.read_bytes()))
    Path("after.txt").write_bytes(Path("before.txt").read_bytes())
    Path("linked.txt").hardlink_to("after.txt")
    Path("mine.policy").write_text(POLICY)


@pytest.mark.parametrize(
    ("words", "file", "option", "other"),
    [
        ("explain before.txt --html before.txt", "before.txt", "--html", "TRACES"),
        ("explain before.txt after.txt --perfetto ./after.txt", "after.txt", "--perfetto", "TRACES"),
        ("explain before.txt linked.txt --html after.txt", "after.txt", "--html", "TRACES"),
        ("explain before.txt --html new --perfetto ./new", "new", "--html", "--perfetto"),
        ("replay before.txt --html before.txt", "before.txt", "--html", "TRACE"),
        ("check mine.policy --svg mine.policy", "mine.policy", "--svg", "POLICY"),
        ("check ipi --html new --svg new", "new", "--html", "--svg"),
        ("compare quiet --kernel mine.policy --html mine.policy", "mine.policy", "--html", "--kernel"),
        ("tlb before.txt --machine zen4-epyc --out before.txt", "before.txt", "--out", "FILE"),
        ("miss-curve before.txt --plot before.txt", "before.txt", "--plot", "FILE"),
    ],
)
def test_a_file_that_is_given_twice_is_refused_before_anything_is_done(words, file, option, other, capsys):
    held = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"tlbcore: error: {file}: {option} would write over what is given as {other}\n"
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == held


def test_files_of_their_own_are_written_and_written_again(capsys):
    Path("ipi").write_text("a file with the name of a policy")
    for _ in range(2):
        assert (
            main(["explain", "before.txt", "--isolated", "2-3", "--html", "a.html", "--perfetto", "a.json"])
            == 0
        )
        assert main(["check", "coalesce-v7", "--cpus", "2", "--html", "b.html", "--svg", "b.svg"]) == 1
    assert main(["check", "coalesce-v7", "--cpus", "2", "--html", "/dev/null", "--svg", "/dev/null"]) == 1
    shown = capsys.readouterr().err
    for name in ("a.html", "a.json", "b.html", "b.svg"):
        assert f"{name}: written" in shown
        assert Path(name).stat().st_size > 40
    assert Path("ipi").read_text() == "a file with the name of a policy"


def test_what_causes_prints_is_one_of_three(capsys):
    for two in ("--json --schema", "--json --markdown", "--markdown --schema"):
        assert main(["causes", *two.split()]) == 2
        assert (
            "--json, --markdown and --schema each print something else: give one" in capsys.readouterr().err
        )
