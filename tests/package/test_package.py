"""The package as it is installed: lazy imports, exceptions, the frame of the command line."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tlbcore
from tlbcore import cli
from tlbcore.cli import _common

ROOT = Path(__file__).parents[2]
EXCEPTIONS = [name for name in tlbcore.__all__ if name.endswith("Error")]


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_every_exported_name_resolves_and_is_listed():
    for name in tlbcore.__all__:
        assert getattr(tlbcore, name) is not None
        assert name in dir(tlbcore)


def test_type_checkers_see_the_same_names_as_users():
    source = Path(tlbcore.__file__).read_text()
    imports = set(re.findall(r"^    from (\S+) import (\w+) as \2$", source, re.MULTILINE))
    assert imports == {(module, name) for name, module in tlbcore._EXPORTS.items()}


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = tlbcore.nonsense


def test_importing_tlbcore_loads_neither_numpy_nor_the_core():
    script = "import sys, tlbcore; print(sorted({'numpy', 'tlbcore._core'} & set(sys.modules)))"
    assert run("-c", script).stdout.strip() == "[]"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_neither_numpy_nor_the_core(option: str):
    done = run("-X", "importtime", "-m", "tlbcore", option)
    assert done.returncode == 0
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tlbcore.cli" in loaded
    assert not {"numpy", "tlbcore._core"} & loaded


def test_every_module_of_the_command_line_is_a_subcommand():
    modules = {file.stem for file in Path(cli.__file__).parent.glob("[a-z]*.py")}
    assert modules == {name.replace("-", "_") for name in cli._COMMANDS}


def test_help_lists_every_subcommand_with_its_line():
    shown = run("-m", "tlbcore", "--help").stdout
    for name in cli._COMMANDS:
        assert re.search(rf"\b{name}\b", shown), name


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_every_subcommand_explains_itself(name: str):
    done = run("-m", "tlbcore", name, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 10


def test_version_is_that_of_the_core():
    assert run("-m", "tlbcore", "--version").stdout == f"tlbcore {tlbcore.__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"]])
def test_bad_usage_is_one_line_and_status_2(arguments: list[str]):
    done = run("-m", "tlbcore", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"tlbcore: error: .*nonsense.*\n", done.stderr)


def test_without_typer_one_line_names_the_extra():
    script = (
        "import sys; sys.modules['typer'] = None; from tlbcore.cli import main; sys.exit(main(['--help']))"
    )
    done = run("-c", script)
    assert done.returncode == 2
    assert re.fullmatch(r"tlbcore: error: .*typer.*'tlbcore\[cli\]'\n", done.stderr)


def application(body):
    import typer

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(body)
    return lambda: app


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (tlbcore.TraceError("line 3: no timestamp"), "line 3: no timestamp"),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), "x.txt: no such file or directory"),
    ],
)
def test_bad_input_is_one_line_and_keeps_what_was_printed(error: Exception, message: str, capsys):
    def body() -> None:
        print("already computed")
        raise error

    assert _common.run(application(body), []) == 2
    assert capsys.readouterr() == ("already computed\n", f"tlbcore: error: {message}\n")


def test_fail_is_one_line_and_status_2(capsys):
    assert _common.run(application(lambda: _common.fail("no such thing")), []) == 2
    assert capsys.readouterr().err == "tlbcore: error: no such thing\n"


def test_a_bug_of_ours_keeps_its_traceback():
    def body() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _common.run(application(body), [])


def test_ctrl_c_ends_with_130_and_says_nothing(capsys):
    def body() -> None:
        raise KeyboardInterrupt

    assert _common.run(application(body), []) == 130
    assert capsys.readouterr() == ("", "")


def test_an_exit_status_passes_through():
    assert _common.run(application(lambda: 3), []) == 3


def test_a_reader_that_leaves_is_no_error():
    script = (
        "import sys, typer; from tlbcore.cli import _common\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def body():\n"
        "    for _ in range(100_000): print('x' * 80)\n"
        "sys.exit(_common.run(lambda: app, []))"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    program.stdout.readline()
    program.stdout.close()
    program.stdout = None
    assert program.communicate(timeout=30) == (None, "")
    assert program.returncode == 141


def test_json_opens_with_schema_and_version_and_takes_results(capsys):
    counts, mean, gap = np.array([1, 2]), np.float64(0.5), float("nan")
    _common.print_json("thing", 1, counts=counts, mean=mean, gap=gap, where=Path("a"), of={3: (1,)})
    printed = json.loads(capsys.readouterr().out)
    assert list(printed.items()) == [
        ("schema", "tlbcore.thing"),
        ("version", 1),
        ("counts", [1, 2]),
        ("mean", 0.5),
        ("gap", None),
        ("where", "a"),
        ("of", {"3": [1]}),
    ]


def test_progress_is_silent_when_nobody_watches(capsys):
    with _common.progress("working") as advance:
        advance(1, 2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_are_value_errors_that_pickle(name: str):
    kind = getattr(tlbcore, name)
    assert issubclass(kind, tlbcore.TlbcoreError)
    assert issubclass(kind, ValueError)
    copy = pickle.loads(pickle.dumps(kind("the text")))
    assert type(copy) is kind
    assert str(copy) == "the text"


def test_the_page_of_errors_is_the_list_of_exceptions():
    page = (ROOT / "docs" / "errors.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows == {name: getattr(tlbcore, name).__doc__ for name in EXCEPTIONS}


def test_the_package_is_marked_as_typed():
    assert (Path(tlbcore.__file__).parent / "py.typed").exists()


def test_the_demo_answers_its_questions_without_any_file(tmp_path: Path):
    done = run("-m", "tlbcore", "demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"CPU 2: 265 interrupts", done.stdout)
    assert re.search(r"from modloop \d+%", done.stdout)
    assert re.search(r"coalesce-v7-fixed +0 +0 +1,[34]\d\d", done.stdout), "no IPI, a dearer system call"
    assert re.search(r"coalesce-v7: Violated: stale_access", done.stdout)
    assert re.search(r"coalesce-v7-fixed: Verified \(bounded\)", done.stdout)
    assert not list(tmp_path.iterdir())
