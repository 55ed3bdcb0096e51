"""What every subcommand shares: how it fails, prints and shows progress.

A failure the user can mend is one line on standard error and exit status 2; what was already printed stays.
A traceback means a bug of ours.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import typer
    from rich.console import Console

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE


class _FailureError(Exception):
    """A failure that a subcommand states itself."""


def fail(message: str) -> NoReturn:
    """End the command with `tlbcore: error: message` and exit status 2."""
    raise _FailureError(message)


def run(build: Callable[[], typer.Typer], arguments: list[str]) -> int:
    """Run a Typer application and return the exit status."""
    import typer

    if sys.stderr is None:  # closed by the caller (2>&-)
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (for the rest of the process)
    if sys.stdout is None:
        print("tlbcore: error: standard output is closed", file=sys.stderr)
        return BAD_INPUT
    try:
        command = typer.main.get_command(build())
        status = command.main(arguments, prog_name="tlbcore", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (BrokenPipeError, SystemExit) as left:
        # The reader left (`| head`); Typer says so with status 1, which to `check` means violated.
        if isinstance(left, SystemExit) and not isinstance(left.__context__, BrokenPipeError):
            raise
        # The interpreter flushes once more at exit; that must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        text = message(error)
        if text is None:
            raise
        sys.stdout.flush()
        if text:
            print(f"tlbcore: error: {text}", file=sys.stderr)
        return BAD_INPUT


def message(error: Exception) -> str | None:
    """Return one line for an error of the input, None for one of ours."""
    if isinstance(error, _FailureError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{(error.strerror or str(error)).lower()}"
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
    path.write_text(text, encoding="utf-8")
    print(f"{path}: written", file=sys.stderr)


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


def console(*, error: bool = False) -> Console:
    """Return a Rich console: plain text of 100 columns when standard output is no terminal."""
    from rich.console import Console

    stream: IO[str] = sys.stderr if error else sys.stdout
    if stream.isatty():
        return Console(file=stream, highlight=False)
    return Console(file=stream, highlight=False, width=100, no_color=True)


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


def note(message: str) -> None:
    """Say something beside the output."""
    print(f"tlbcore: {message}", file=sys.stderr)
