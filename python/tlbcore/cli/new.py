"""`tlbcore new litmus NAME`: write a litmus test to start from, out of a template."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from tlbcore.cli import _common

app = typer.Typer(no_args_is_help=True)


def templates() -> dict[str, str]:
    """Return the text of each template by name; `NAME` stands for the name of the test in its first line."""
    folder = files("tlbcore") / "templates"
    return {
        entry.name.removesuffix(".litmus"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".litmus")
    }


@app.callback()
def group() -> None:
    """Write a file to start from."""


@app.command()
def litmus(
    name: Annotated[str, typer.Argument(help="The test's name; NAME.litmus is written here.")],
    template: Annotated[
        str, typer.Option(help=f"What to start from: {', '.join(templates())}.")
    ] = "register-before-cr3",
    folder: Annotated[Path, typer.Option(help="The folder to write into.")] = Path(),
) -> int:
    """Write a litmus test to start from."""
    known = templates()
    if template not in known:
        _common.fail(f"--template {template}: no such template; there are {', '.join(known)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
        _common.fail(
            f"{name!r}: a name is letters, digits, `_`, `.`, `+` and `-`, and starts with a letter or digit"
        )
    file = folder / f"{name}.litmus"
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(known[template].replace("litmus NAME\n", f"litmus {name}\n", 1))
    except FileExistsError:
        _common.fail(f"{file}: there is such a file already; it is left as it is")
    except OSError as error:
        _common.fail(f"{file}: {(error.strerror or str(error)).lower()}")
    print(f"{file}: written. `tlbcore litmus {file}` runs it.")
    return 0
