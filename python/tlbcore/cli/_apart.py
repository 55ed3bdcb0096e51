"""No command writes over what it reads, nor two of its reports into one file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.core

from tlbcore.cli import _common

_FILES = ("html", "svg", "perfetto", "plot")
"""Those that name one file, which nothing makes a directory for."""

_OUT = ("calibrate", "tlb")
"""Commands whose `--out` is such a file; those of others are directories, or must not exist."""

WRITTEN = ("html", "svg", "perfetto", "plot", "prometheus", "out", "collect")
"""Parameters that name a file to be written, or a directory of such files."""

_NAMES = ("policy", "machine")
"""Parameters that take a name, or a file by its ending or a slash: a file that is called as a policy is not read."""

_READ = (
    "trace",
    "traces",
    "file",
    "image",
    "grid",
    "paths",
    "kernel",
    "interrupts",
    "root",
    "against",
    "since",
)
"""Parameters that name a file to be read, or a directory of such files."""

_RUN = "run"
"""Words of a command that is run: its files are its own affair."""


class Command(typer.core.TyperCommand):
    """A command that looks at the files it was given before it starts."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for name in _nameless(self.params, args):
            _common.fail(f"{name} names a file or a directory: got ''")  # which a path takes for `.`
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        names = {parameter.name: parameter.opts[0] for parameter in self.params}
        written = {name: ctx.params[name] for name in WRITTEN if ctx.params.get(name) is not None}
        from tlbcore._output.files import same_file

        for name, path in written.items():
            for other, given in ctx.params.items():
                if other in (name, _RUN):
                    continue
                files = _files(given, named=other in _NAMES)
                if any(same_file(Path(path), file, written=other in written) for file in files):
                    option = names[other] if names[other].startswith("-") else names[other].upper()
                    _common.fail(f"{path}: --{name} would write over what is given as {option}")
        single = (*_FILES, "out") if self.name in _OUT else _FILES
        for path in (Path(written[name]) for name in single if name in written):
            _can_be_written(path)
        return super().invoke(ctx)


def _nameless(parameters: Sequence[Any], words: Sequence[str]) -> Iterator[str]:
    """Yield the options and arguments that name a file and are given an empty word, as they are written."""
    options = {word: one for one in parameters for word in one.opts if one.param_type_name == "option"}
    first = next((one for one in parameters if one.param_type_name == "argument"), None)
    rest = iter(words)
    for word in rest:
        if word == "--":
            return  # what stands behind it is a command that is run
        option, equals, value = word.partition("=")
        if (asked := options.get(option)) is not None and not asked.is_flag:
            values = [value] if equals else [next(rest, None) for _ in range(asked.nargs)]
            if "" in values and asked.name in (*WRITTEN, *_READ):
                yield option
        elif not word and first is not None and first.name in _READ:
            yield first.name.upper()


def _can_be_written(path: Path) -> None:
    """Fail where a report has no place to go, before what it reports is computed."""
    if path.is_dir():
        _common.fail(f"{path}: is a directory")
    if not path.parent.is_dir():
        _common.fail(f"{path}: no such file or directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        _common.fail(f"{path}: permission denied")


def _files(given: object, *, named: bool) -> Iterator[Path]:
    if isinstance(given, Path):
        yield given
    elif isinstance(given, str):
        if not named or "/" in given or given.endswith((".policy", ".toml")):
            yield Path(given)
    elif isinstance(given, list | tuple):
        for one in given:
            yield from _files(one, named=named)
