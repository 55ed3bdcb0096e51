"""What every command shares: one line for an error, JSON of plain values, widths, tables, names of values in help."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.table import Table

import tlbcore as tc
from tlbcore import cli
from tlbcore.cli import _bounds, _common, _help, main


@dataclasses.dataclass
class Pair:
    one: int
    two: float


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (_common._FailureError("so"), "so"),
        (FileNotFoundError(2, "No such file or directory", "A b"), "A b: no such file or directory"),
        (OSError(28, "No space left on device"), "no space left on device"),
        (OSError("Foo.json: No space"), "Foo.json: No space"),
        (MemoryError(), "not enough memory for this"),
        (MemoryError("a scenario of 9 GB"), "a scenario of 9 GB"),
        (ModuleNotFoundError("it needs x: pip install 'tlbcore[x]'"), "it needs x: pip install 'tlbcore[x]'"),
        (ModuleNotFoundError("No module named 'x'"), None),
        (tc.TraceError("t: damaged"), "t: damaged"),
        (ValueError("a slip"), None),
        (KeyError("x"), None),
    ],
)
def test_an_error_is_one_line_or_ours(error: BaseException, said: str | None) -> None:
    assert _common.message(error) == said


@pytest.mark.parametrize(
    ("raised", "status", "out"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (tc.SimError("no\nway\x1b"), 2, "tlbcore: error: no\\nway\\x1b\n"),
        (OSError(28, "No space left on device", "f"), 2, "tlbcore: error: f: no space left on device\n"),
    ],
)
def test_how_a_command_ends(
    raised: BaseException,
    status: int,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object) -> str:
        raise raised

    monkeypatch.setattr("tlbcore._output.legend.legend", fails)
    monkeypatch.setattr(_common, "_drop_output", lambda: None)
    assert main(["words"]) == status
    assert capsys.readouterr().err == out


def test_a_fault_of_ours_says_where_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> str:
        raise RuntimeError

    monkeypatch.setattr("tlbcore._output.legend.legend", fails)
    assert main(["words"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith(
        "tlbcore: internal error: RuntimeError; please report it with the lines above and "
    )


def test_a_document_is_made_of_plain_values() -> None:
    values = {
        "a": np.float64(math.nan), "b": np.int64(3), "c": PurePosixPath("x/y"), "d": (1, [2.5]), "e": {2, 1},
        "f": {3: math.inf, "k": -math.inf}, "g": True, "h": np.array([1.5, math.nan]), "i": Pair(one=1, two=math.nan),
        "j": None, "k": np.bool_(False), "l": "text", "m": frozenset("ba"),
    }  # fmt: skip
    assert json.dumps(_common.document("mine", 3, **values)) == json.dumps(
        {
            "schema": "tlbcore.mine",
            "version": 3,
            "a": None,
            "b": 3,
            "c": "x/y",
            "d": [1, [2.5]],
            "e": [1, 2],
            "f": {"3": None, "k": None},
            "g": True,
            "h": [1.5, None],
            "i": {"one": 1, "two": None},
            "j": None,
            "k": False,
            "l": "text",
            "m": ["a", "b"],
        }
    )
    with pytest.raises(TypeError, match=r"^no JSON form for object$"):
        _common.document("mine", 1, a=object())
    assert _common.fields_of(Pair(one=1, two=2.0)) == {"one": 1, "two": 2.0}


@pytest.mark.parametrize(
    ("columns", "terminal", "wanted"),
    [
        ("72", False, 72),
        ("0", False, 100),
        ("-5", False, 100),
        ("x", False, 100),
        ("", False, 100),
        ("", True, 33),
    ],
)
def test_the_width_of_a_line(
    columns: str, terminal: bool, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr("shutil.get_terminal_size", lambda _: SimpleNamespace(columns=33))
    assert _common.width() == wanted


def table() -> Table:
    drawn = Table(title="a title", box=None, pad_edge=False, title_justify="left")
    drawn.add_column("name", no_wrap=True)
    drawn.add_column("long text")
    drawn.add_column("figure", justify="right")
    drawn.add_row("a name", "some words", "1,234,567")
    return drawn


@pytest.mark.parametrize(
    ("room", "groups"),
    [
        (26, [[0, 1, 2]]),
        (25, [[0, 1], [0, 2]]),
        (15, [[0, 1], [0, 2]]),
        (3, [[0, 1], [0, 2]]),
    ],
)
def test_columns_that_do_not_fit_stand_below(room: int, groups: list[list[int]]) -> None:
    """A name and a figure stay whole, of a text its longest word: 8, 7 and 11 with the room between: 26."""
    assert _common._column_groups(table(), room) == groups


def test_a_table_in_groups_has_its_title_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    _common.print_table(table())
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "a title", "name    long text", "a name  some words", "name       figure", "a name  1,234,567",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512), ("512M", 512 << 20), ("8g", 8 << 30), ("3K", 3072)],
)
def test_sizes(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlbcore._input.memory.within_limits", lambda held: held)
    monkeypatch.setattr("tlbcore._input.memory.default_memory", lambda: 7)
    assert (_bounds.size(text), _bounds.size("auto")) == (size, 7)


@pytest.mark.parametrize("text", ["", "0", "0M", "-1", "1.5G", "8T", "M", "²"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(
        _common._FailureError, match=f"^memory is a number with K, M or G, or auto: got `{text}`$"
    ):
        _bounds.size(text)


def test_times_and_assumptions() -> None:
    assert [_bounds.times(text) for text in ("3", "-3", "unbounded", "--3", "", "-")] == [
        3, -3, "unbounded", "--3", "", "-",
    ]  # fmt: skip
    assert _bounds.assumptions(["D=a", "N=b=c", "D=a"]) == {"D": "a", "N": "b=c"}


def parameter(name: str, described: str = "text", *, kind: str = "option", text: str = "") -> Any:
    kind_of = type("Kind", (), {"__str__": lambda _: described})
    return SimpleNamespace(name=name, param_type_name=kind, help=text, type=kind_of())


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (parameter("assume", "int"), "NAME=VALUE"),
        (parameter("memory"), "SIZE"),
        (parameter("file", kind="argument"), "FILE"),
        (parameter("paths", kind="argument"), "PATH"),
        (parameter("out", "path", text="A Directory for it."), "DIR"),
        (parameter("x", "FLOAT"), "X"),
        (parameter("x", "IntRange"), "N"),
        (parameter("x", "Path"), "FILE"),
        (parameter("x", "some words"), "TEXT"),
    ],
)
def test_the_name_of_a_value(asked: Any, wanted: str) -> None:
    assert _help._named(asked) == wanted


def test_each_command_has_its_module() -> None:
    folder = Path(cli.__file__).parent
    for name in cli._COMMANDS:
        assert (folder / f"{name.replace('-', '_')}.py").exists(), name
    files = {path.stem.replace("_", "-") for path in folder.glob("[!_]*.py")}
    assert files == set(cli._COMMANDS)


def test_the_version_and_what_is_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tlbcore {version('tlbcore')}\n"
    assert main(["chek"]) == 2
    assert capsys.readouterr().err.startswith("tlbcore: error: no such command 'chek'")
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name, line in cli._COMMANDS.items():
        assert name in listed
        assert line.split()[0] in listed


def test_only_the_command_that_is_asked_for_is_loaded() -> None:
    for asked, wanted in (
        (["words"], ["words"]),
        (["--help"], []),
        (["-h", "tlb", "words"], ["tlb"]),
        (["causes"], ["causes"]),
    ):
        app = cli._application(asked)
        assert [one.name for one in app.registered_commands] == list(cli._COMMANDS)
        whole = [one.name for one in app.registered_commands if one.callback.__name__ != "stand_in"]
        assert (whole, app.registered_groups) == (wanted, [])
    app = cli._application(["policy"])
    assert [one.name for one in app.registered_groups] == ["policy"]
    assert [one.name for one in app.registered_commands] == [
        name for name in cli._COMMANDS if name != "policy"
    ]


def test_the_words_of_the_command_line_are_those_behind_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tlbcore", "schema", "tlb"])
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["title"] == "tlbcore.tlb"
    assert main(["--version", "--help"]) == 0
    assert capsys.readouterr().out.startswith("tlbcore 0.")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_packages_a_command_line_says_which_it_needs(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == missing else name)
    monkeypatch.setattr("tlbcore._input.doctor.text", lambda _: "what is installed")
    for words in ([], ["causes"], ["doctor", "--json"], ["words"]):
        assert main(words) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert (
            shown.err
            == f"tlbcore: error: the command line needs the package {missing}: pip install 'tlbcore[cli]'\n"
        )
    assert main(["doctor"]) == 2
    assert capsys.readouterr().out == "what is installed\n"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tlbcore 0.")


def test_values_are_named_in_a_command_and_all_below_it() -> None:
    def named(
        name: str, metavar: str | None = None, *, nargs: int = 1, flag: bool = False, kind: str = "option"
    ) -> Any:
        made = parameter(name, kind=kind)
        made.metavar, made.nargs, made.is_flag = metavar, nargs, flag
        return made

    top = [named("machine"), named("x", "MINE"), named("y", flag=True), named("z", "Z", flag=True)]
    below = [
        named("paths", nargs=-1, kind="argument"), named("run", "[-- COMMAND...]", nargs=-1, kind="argument"),
        named("one", "[ONE...]", kind="argument"), named("abc", kind="argument"), named("abc"),
    ]  # fmt: skip
    deep = [named("memory")]
    last = SimpleNamespace(params=deep)
    group = SimpleNamespace(params=top, commands={"b": SimpleNamespace(params=below, commands={"c": last})})
    assert [list(one.params) for one in _help.commands(group)] == [top, below, deep]
    _help.name_values(group)
    assert [one.metavar for one in top + below + deep] == [
        "MACHINE", "MINE", None, "Z", "PATH", "-- COMMAND", "[ONE...]", "ABC", "TEXT", "SIZE",
    ]  # fmt: skip
    assert [hasattr(one, "display_type_rich") for one in below] == [True] * 4 + [False]


def test_the_statuses_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE))
    assert rows == {str(status): meaning for status, meaning in _common.STATUSES.items()}
    assert list(rows) == ["0", "1", "2", "3", "70", "130", "141"]
