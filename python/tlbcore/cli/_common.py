"""What every subcommand shares: how it fails, prints and shows progress.

A failure the user can mend is one line on standard error and exit status 2; what was already printed stays.
A traceback means a bug of ours: its last line says where to report it, and the exit status is 70.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, NoReturn, TextIO, cast

from tlbcore._output.visible import VisibleStream, drawn_on, naming, one_line, visible
from tlbcore._output.width import fitted, wrapped
from tlbcore.cli._help import name_values

if TYPE_CHECKING:
    import typer
    from rich.console import Console
    from rich.table import Table

    from tlbcore.policy import Policy

BAD_INPUT = 2
INTERNAL = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE

# What each exit status means, for whichever subcommand; docs/command-line.md has the same table.
STATUSES = {
    0: "The question is answered: verified, repaired, or printed.",
    1: "The answer is the bad one: violated, a simulated run broke a rule, a verdict differs, a published figure is "
    "missed, nothing repairs it, a `--fail-if` condition holds.",
    BAD_INPUT: "The command line, a file or the machine is not as it must be; one line says what.",
    3: "Inconclusive: a limit was met, or the recording does not tell.",
    INTERNAL: "A fault of tlbcore; the last line says where to report it.",
    INTERRUPTED: "Ended by Ctrl-C; what was computed is printed where that makes sense.",
    BROKEN_PIPE: "The reader of the output left (`| head`).",
}


class _FailureError(Exception):
    """A failure that a subcommand states itself."""


def fail(message: str) -> NoReturn:
    """End the command with `tlbcore: error: message` and exit status 2."""
    raise _FailureError(message)


def run(build: Callable[[], typer.Typer], arguments: list[str]) -> int:
    """Run a Typer application and return the exit status."""
    if sys.stderr is None:  # closed by the caller (2>&-)
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (for the rest of the process)
    if sys.stdout is None:
        print("tlbcore: error: standard output is closed", file=sys.stderr)
        return BAD_INPUT
    with _visible_output(), fitted(width()):
        return _run(build, arguments)


def _run(build: Callable[[], typer.Typer], arguments: list[str]) -> int:
    import typer

    try:
        command = typer.main.get_command(build())
        name_values(command)
        status = command.main(arguments, prog_name="tlbcore", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (BrokenPipeError, SystemExit) as left:
        # The reader left (`| head`); Typer says so with status 1, which to `check` means violated.
        if isinstance(left, SystemExit) and not isinstance(left.__context__, BrokenPipeError):
            raise
        _drop_output()
        return BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BaseException as error:  # the core's panics are no Exception
        text = _unwritten() or message(error)
        if text is None:
            return internal(error)
        if text:
            print(f"tlbcore: error: {one_line(text)}", file=sys.stderr)
        return BAD_INPUT


def internal(error: BaseException) -> int:
    """Print the traceback of a fault of ours and where to report it; return its exit status."""
    traceback.print_exception(error, file=sys.stderr)
    what = one_line(f"{type(error).__name__}: {error}".removesuffix(": "))
    print(
        f"tlbcore: internal error: {what}; please report it with the lines above and what `tlbcore doctor` prints: "
        f"{_issues()}",
        file=sys.stderr,
    )
    return INTERNAL


def _issues() -> str:
    """Return where faults are reported, as the package's metadata has it."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        urls = metadata("tlbcore").get_all("Project-URL") or []
    except PackageNotFoundError:
        urls = []
    named: dict[str, str] = dict(url.split(", ", 1) for url in urls)
    return named.get("Issues", "to whoever gave you this package")


@contextmanager
def _visible_output() -> Iterator[None]:
    """Let nothing that is printed move a cursor, and no character be one that the encoding lacks."""
    kept = sys.stdout, sys.stderr
    for stream in kept:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = cast("TextIO", VisibleStream(kept[0], "standard output"))
    sys.stderr = cast("TextIO", VisibleStream(kept[1], "standard error"))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = kept


def _unwritten() -> str | None:
    """Write what is still buffered; return what kept it from being written (a full disk), if something did."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _drop_output()
        return message(error)
    return None


def _drop_output() -> None:
    # The interpreter flushes once more at exit; that must not fail either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def message(error: BaseException) -> str | None:
    """Return one line for an error of the input, None for one of ours."""
    if isinstance(error, _FailureError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return (
            f"{where}{error.strerror.lower() if error.strerror else error}"  # other texts have names in them
        )
    if isinstance(error, MemoryError):
        return str(error) or "not enough memory for this"
    if isinstance(error, ModuleNotFoundError) and "pip install" in str(error):
        return str(error)  # an optional package, and the extra that brings it
    # Typer's errors of usage; `tlbcore` alone prints the help and has nothing to add.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        if type(error).__name__ == "NoArgsIsHelpError":
            return ""
        # What it converted is in the error it came from, and not in its own text.
        details: list[Any] = getattr(error.__cause__, "errors", list)()
        got = f": got {details[0]['input']!r}" if details else ""
        return _one_line(error.format_message()) + got
    # Asking the loaded core, if any: an error of the core cannot exist before the core is loaded.
    core = sys.modules.get("tlbcore._core")
    if core is not None and isinstance(error, core.TlbcoreError):
        return str(error)
    return None


def _one_line(text: str) -> str:
    line = " ".join(text.split()).removesuffix(".")
    return line[:1].lower() + line[1:]


def given(context: typer.Context) -> set[str]:
    """Return the names of the parameters that the command line gives."""
    named = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in named.items() if source is not None and source.name == "COMMANDLINE"}


def known_version(version: str) -> None:
    """Fail where there are no texts of a version of Linux."""
    from tlbcore import _core

    if version not in (known := _core.policy_versions()):
        fail(f"--kernel-version takes {' or '.join(known)}: got {version!r}")


def standing_on(asked: Sequence[Any], version: str | None, paths: Path | None) -> list[Policy]:
    """Return the policies on a version of Linux (`--kernel-version`) and the paths of a file (`--kernel`)."""
    from tlbcore.policy import as_policy

    chosen = [as_policy(one) for one in asked]
    if version is not None:
        known_version(version)
        chosen = [one.on(version) for one in chosen]
    return chosen if paths is None else [one.on(paths) for one in chosen]


def print_json(schema: str, version: int, **fields: object) -> None:
    """Print one JSON object that opens with `schema` (as `tlbcore.<schema>`) and `version`.

    Takes what results are made of: NumPy arrays and scalars, dataclasses, mappings, paths. Not a number is
    printed as null: missing is missing, never zero.
    """
    print_document(document(schema, version, **fields))


def print_document(whole: Mapping[str, Any]) -> None:
    """Print a JSON document that `document` returned."""
    print(json.dumps(whole, indent=2, allow_nan=False))


def document(schema: str, version: int, **fields: object) -> dict[str, Any]:
    """Return what `print_json` prints, made of JSON's own types only."""
    whole: dict[str, Any] = _plain({"schema": f"tlbcore.{schema}", "version": version, **fields})
    return whole


def write_page(path: Path, text: str) -> None:
    """Write a page of HTML and say so on standard error."""
    with naming(str(path)):
        path.write_text(text, encoding="utf-8")
    print(f"{path}: written", file=sys.stderr)


def print_legend(report: str) -> None:
    """Print what the words mean that a report uses."""
    from tlbcore._output.legend import legend, used

    print(f"\nWords (`tlbcore words` has all)\n{legend(used(report), width())}")


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a result by name; what is noted beside them (the call that made it) is not printed."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [_plain(item) for item in sorted(value)]
    raise TypeError(f"no JSON form for {type(value).__name__}")


DEFAULT_WIDTH = 100


def width() -> int:
    """Return how many columns a line may have: COLUMNS if set, the terminal's, or 100 for a pipe or a file."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    if sys.stdout.isatty():
        import shutil

        return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
    return DEFAULT_WIDTH


def console(*, error: bool = False) -> Console:
    """Return a Rich console of `width()` columns: plain text when standard output is no terminal.

    COLUMNS and NO_COLOR are obeyed in pipes, too; hidden characters of what is printed are made visible. Brackets
    are brackets: names of files and what files say may have some.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Visible(Console):
        def render(self, *arguments: Any, **options: Any) -> Any:
            for segment in super().render(*arguments, **options):
                text = segment.text if segment.control else visible(segment.text)
                yield Segment(text, segment.style, segment.control)

    stream: IO[str] = drawn_on(sys.stderr if error else sys.stdout)
    if stream.isatty():
        return Visible(file=stream, highlight=False, markup=False, width=width())
    return Visible(file=stream, highlight=False, markup=False, width=width(), no_color=True)


def print_table(table: Table) -> None:
    """Print a Rich table in which no name is cut.

    Where even the longest words do not fit side by side, the columns are printed in groups below each other, each
    group behind the first column again.
    """
    from rich.table import Table

    screen = console()
    for number, group in enumerate(_column_groups(table, screen.width)):
        part = Table(
            title=table.title if number == 0 else None,
            title_justify=table.title_justify,
            box=table.box,
            pad_edge=table.pad_edge,
        )
        for at in group:
            column = table.columns[at]
            part.add_column(column.header, justify=column.justify, no_wrap=False, overflow="fold")
        for row in zip(*(list(table.columns[at].cells) for at in group), strict=True):
            part.add_row(*row)
        screen.print(part)


def _column_groups(table: Table, room: int) -> list[list[int]]:
    def longest_word(at: int) -> int:
        column = table.columns[at]
        texts = [str(column.header), *(str(cell) for cell in column.cells)]
        # A column that asks not to be wrapped holds names; others are text, whose longest word must fit.
        words = (
            texts if column.no_wrap or column.justify == "right" else [w for t in texts for w in t.split()]
        )
        return max(map(len, words), default=0) + 2

    groups, used = [[0]], longest_word(0)
    for at in range(1, len(table.columns)):
        needs = longest_word(at)
        if used + needs > room and len(groups[-1]) > 1:
            groups.append([0])
            used = longest_word(0)
        groups[-1].append(at)
        used += needs
    return groups


@contextmanager
def progress(what: str, unit: str = "") -> Iterator[Callable[[float, float | None], None]]:
    """Show a bar with rate and time left on standard error, if that is a terminal; otherwise nothing.

    Yields `advance(done, total)`; `total` is None when it is not known.
    """
    from tlbcore._output.progress import bar

    with bar(what, unit) as advance:
        yield advance


@contextmanager
def without_inert_warnings() -> Iterator[None]:
    """Keep the library from warning of inert policies, for a command that prints which they are."""
    import warnings

    from tlbcore._output.result import InertPolicyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InertPolicyWarning)
        yield


def say(text: str) -> None:
    """Print text, its lines broken at blanks where they are longer than `width()`."""
    print(wrapped(text, width()))


def note(message: str) -> None:
    """Say something beside the output."""
    print(f"tlbcore: {message}", file=sys.stderr)
