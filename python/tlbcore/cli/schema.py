"""`tlbcore schema [NAME]`."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

import typer

from tlbcore.cli import _common

_FOLDER = files("tlbcore") / "data" / "schemas"


def command(
    name: Annotated[str | None, typer.Argument(help="One schema; their names if left out.")] = None,
) -> None:
    """Print the JSON Schema of what a command prints with --json; its field `schema` is tlbcore.NAME."""
    from tlbcore._input.names import unknown

    known = names()
    if name is None:
        print("\n".join(known))
        return
    name = name.removeprefix("tlbcore.")
    if name not in known:
        _common.fail(unknown("schema", name, known))
    print((_FOLDER / f"{name}.json").read_text(encoding="utf-8").rstrip())


def names() -> list[str]:
    """Return the names of the schemas."""
    return sorted(
        file.name.removesuffix(".json") for file in _FOLDER.iterdir() if file.name.endswith(".json")
    )
