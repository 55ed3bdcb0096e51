"""The package as it is installed: lazy imports, exceptions, the frame of the command line."""

from __future__ import annotations

import json
import os
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
def test_every_subcommand_explains_itself_and_names_values_by_what_they_mean(name: str):
    done = run("-m", "tlbcore", name, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 10
    assert not re.findall(r"<\w+|\b(?:INTEGER|FLOAT|list\[)", done.stdout)


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


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("by zero"), KeyError("x"), AssertionError(), BaseException("a panic of the core")],
)
def test_a_bug_of_ours_is_status_70_with_its_traceback_and_where_to_report_it(error: BaseException, capsys):
    def body() -> None:
        raise error

    assert _common.run(application(body), []) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert re.fullmatch(rf"tlbcore: internal error: {type(error).__name__}.*`tlbcore doctor`.*", lines[-1])


def test_where_faults_are_reported_is_what_the_package_says(capsys):
    from importlib.metadata import metadata

    urls = dict(url.split(", ", 1) for url in metadata("tlbcore").get_all("Project-URL"))
    _common.internal(RuntimeError("x"))
    assert capsys.readouterr().err.endswith(f"prints: {urls['Issues']}\n")


def test_a_check_that_fails_inside_is_neither_verified_nor_violated():
    script = (
        "import sys, tlbcore.checker as c\n"
        "def broken(*a, **k): raise IndexError('ours')\n"
        "c.check = broken\n"
        "from tlbcore.cli import main; sys.exit(main(['check', 'ipi']))"
    )
    assert run("-c", script).returncode == 70


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["check", "coalesce-v7-fixed", "--world", "pti"], 0),
        (["check", "coalesce-v7"], 1),
        (["check", "nonsense"], 2),
        (["check", "ipi", "--cpus", "two"], 2),
        (["check", "ipi", "--memory", "1K"], 3),
    ],
)
def test_check_answers_by_its_exit_status(arguments: list[str], status: int):
    done = run("-m", "tlbcore", *arguments)
    assert done.returncode == status, done.stderr


def test_the_page_of_exit_statuses_is_the_table_of_the_program():
    page = (ROOT / "docs" / "command-line.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert {int(status): meaning for status, meaning in rows} == _common.STATUSES


def test_memory_that_is_not_there_is_an_error_of_the_input(capsys):
    def body() -> None:
        raise MemoryError

    assert _common.run(application(body), []) == 2
    assert capsys.readouterr().err == "tlbcore: error: not enough memory for this\n"


def test_a_full_disk_names_standard_output():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tlbcore", "check", "ipi"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "tlbcore: error: standard output: no space left on device\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "ipi", "--html", "/dev/full"],
        ["calibrate", "--seconds", "0.3", "--base", "zen4-epyc", "--out", "/dev/full"],
    ],
)
def test_a_full_disk_names_the_file_that_was_asked_for(arguments: list[str]):
    done = run("-m", "tlbcore", *arguments)
    assert done.returncode == 2
    assert done.stderr.endswith("tlbcore: error: /dev/full: no space left on device\n")


@pytest.mark.parametrize("missing", ["typer", "rich", "numpy"])
def test_the_version_needs_no_other_package(missing: str):
    script = f"import sys; sys.modules[{missing!r}] = None; from tlbcore.cli import main; sys.exit(main(['--version']))"
    done = run("-c", script)
    assert (done.returncode, done.stdout) == (0, f"tlbcore {tlbcore.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["check", "ipi"], ["policy", "list", "--json"], ["machines", "--json"]]
)
def test_what_needs_no_arrays_and_draws_nothing_loads_neither_numpy_nor_rich(arguments: list[str]):
    done = run("-X", "importtime", "-m", "tlbcore", *arguments)
    assert done.returncode in (0, 1)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tlbcore._core" in loaded
    assert not {"numpy", "rich.console", "rich.progress"} & loaded


@pytest.mark.parametrize("columns", ["60", "80", "140"])
def test_tables_are_as_wide_as_columns_says_and_cut_no_name(columns: str):
    shown = run("-m", "tlbcore", "machines", env={**os.environ, "COLUMNS": columns}).stdout
    table = shown.split("\n\nPTI:")[0].splitlines()
    assert max(map(len, table)) <= int(columns)
    assert "…" not in shown
    assert {line.split()[0] for line in table if not line.startswith(" ")} >= set(tlbcore.machines)


def test_a_table_that_does_not_fit_stands_in_groups_behind_its_first_column(capsys, monkeypatch):
    from rich.table import Table

    monkeypatch.setenv("COLUMNS", "24")
    table = Table("figure", "alpha-policy", "beta-policy", box=None, pad_edge=False)
    table.add_row("ipis", "1", "2")
    _common.print_table(table)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["figure", "alpha-policy"], ["ipis", "1"], ["figure", "beta-policy"], ["ipis", "2"]]


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
    said = " ".join(done.stdout.split())  # however wide it is
    assert "ct-late 328 to 329, coalesce-v7 328 to 329" in said, "as exactly as the recording tells"
    assert not list(tmp_path.iterdir())
