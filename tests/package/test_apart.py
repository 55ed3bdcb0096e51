"""What a command reads is not written over, and its reports go to files of their own."""

from __future__ import annotations

import json
import lzma
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import tlbcore as tc
from tlbcore._core import TraceError
from tlbcore.cli import _COMMANDS, _application, main
from tlbcore.cli._apart import WRITTEN, Command
from tlbcore.trace.recording import pieces

RECORDING = Path(__file__).parents[1] / "data" / "k61.w4spin.trace.txt.xz"
QUIET = RECORDING.with_name("v2.w1idle.trace.txt.xz")
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
        (
            "explain --interrupts before.txt linked.txt --html after.txt",
            "after.txt",
            "--html",
            "--interrupts",
        ),
        ("sweep mine.policy --out mine.policy", "mine.policy", "--out", "GRID"),
        ("record --out new --prometheus new", "new", "--prometheus", "--out"),
        ("inspect --root . --collect .", ".", "--collect", "--root"),
    ],
)
def test_a_file_that_is_given_twice_is_refused_before_anything_is_done(words, file, option, other, capsys):
    held = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"tlbcore: error: {file}: {option} would write over what is given as {other}\n"
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == held


def test_a_file_that_is_called_as_a_policy_or_a_machine_is_not_read(capsys):
    Path("ipi").write_text("of an earlier call")
    assert main(["check", "ipi", "--html", "ipi"]) == 1
    assert Path("ipi").read_text().startswith("<!DOCTYPE html>")
    for policy in ("./ipi", "../" + Path.cwd().name + "/ipi"):
        assert main(["check", policy, "--html", "ipi"]) == 2
        assert capsys.readouterr().err.endswith("--html would write over what is given as POLICY\n")


def parameters() -> Iterator[tuple[str, str, bool, str]]:
    """Yield every parameter: its command's name, its own, whether it is a path, and what is said of it."""
    for name in _COMMANDS:
        module = import_module(f"tlbcore.cli.{name.replace('-', '_')}")
        given = module.app.registered_commands if hasattr(module, "app") else ()
        for function in [one.callback for one in given] or [module.command]:
            for parameter, hint in get_type_hints(function, include_extras=True).items():
                if parameter not in ("ctx", "return"):
                    kind, said = get_args(hint)[:2]
                    yield name, parameter, "Path" in str(kind), said.help or ""


def test_every_option_that_names_a_file_to_be_written_is_held():
    """A path is written or read; what is said to be written and is no path is a file that the command may write to."""
    paths = {(command, name) for command, name, path, _ in parameters() if path}
    assert {(command, name) for command, name in paths if name not in WRITTEN} == {
        ("check", "kernel"), ("compare", "paths"), ("explain", "interrupts"), ("inspect", "root"), ("litmus", "paths"),
        ("replay", "paths"), ("sweep", "grid"),
        ("new", "folder"),  # holds the file that is written, and never one that is there
    }  # fmt: skip
    assert {name for _, name in paths} >= set(WRITTEN)
    writes = re.compile(
        r"\b(write|written|draw|copy|copied|keep this file|directory for|saved? (to|in))\b", re.I
    )
    said = {(command, name) for command, name, _, text in parameters() if writes.search(text)}
    assert {(command, name) for command, name in said if name not in WRITTEN} == {
        ("litmus", "bless"),  # into the tests themselves
        ("new", "name"), ("new", "folder"),
    }  # fmt: skip
    assert said >= {(command, name) for command, name in paths if name in WRITTEN}
    for command in {command for command, name in paths if name in WRITTEN}:
        (built,) = (one for one in _application([command]).registered_commands if one.name == command)
        assert built.cls is Command, command


def test_files_of_a_command_that_is_run_are_its_own(monkeypatch, capsys):
    def find():
        raise TraceError("so far")

    monkeypatch.setattr("tlbcore.trace.recorder.settings.Tracefs.find", find)
    for words in ("top", "record --out new --isolated 1"):
        assert main([*words.split(), "--prometheus", "before.txt", "--", "cat", "before.txt"]) == 2
        assert capsys.readouterr().err == "tlbcore: error: so far\n"


@pytest.mark.parametrize("name", ["before.txt", "./after.txt", "linked.txt"])
def test_a_recording_is_not_written_over_by_what_was_read_from_it(name):
    """Of one in pieces each of them; a link to it is the same file."""
    trace = tc.read_trace(["before.txt", "after.txt"], isolated="2-3")
    flushes = tc.shootdowns(["before.txt", "after.txt"])
    held = Path("before.txt").read_bytes()
    for write in (
        trace.to_perfetto, trace.save, trace.to_parquet, flushes.to_perfetto, flushes.save, flushes.to_parquet,
        tc.explain(trace).save, tc.replay(trace, ["ipi"]).to_parquet,
        lambda name: trace.plot(file=name),
    ):  # fmt: skip
        with pytest.raises(tc.ConfigError) as found:
            write(name)
        assert str(found.value) == f"{Path(name)}: would write over what the result was read from"
    assert Path("before.txt").read_bytes() == Path("after.txt").read_bytes() == held
    assert {path.name for path in Path().iterdir()} == {
        "before.txt", "after.txt", "linked.txt", "mine.policy",
    }  # fmt: skip


def test_results_of_a_recording_are_written_beside_it_and_over_themselves():
    Path("quiet.xz").write_bytes(QUIET.read_bytes())
    trace = tc.read_trace("quiet.xz", isolated="1")
    for _ in range(2):
        trace.to_perfetto("a.json")
        trace.save("a.result")
    trace.to_perfetto(os.devnull)
    events = json.loads(Path("a.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == len(trace.spans["at_s"]) == 2
    again = tc.load("a.result")
    again.save("a.result")
    assert tc.load("a.result").purges["areas"].tolist() == [3282, 3297]
    with pytest.raises(tc.ConfigError, match="would write over"):
        again.save("quiet.xz")


def test_a_file_that_is_called_as_standard_input_is_no_recording():
    assert pieces("-") == ()
    assert set(pieces("a + b")) == {"a + b", "a", "b"}  # a name may have a plus in it


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
