"""The `tlbcore` command.

A subcommand is one module in this folder and one line in the table below. Only the invoked one is imported,
so `tlbcore --help` loads neither NumPy nor the compiled core.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

# name -> its line in `tlbcore --help`. A module offers `command`, a function annotated for Typer, or `app`, a
# `typer.Typer` with subcommands of its own.
_COMMANDS: dict[str, str] = {
    "demo": "Explain a bundled real trace, compare policies, check three of them.",
    "explain": "Who interrupted the isolated CPUs in a trace, and why.",
    "causes": "What interrupts isolated CPUs: the catalogue.",
    "words": "What the words of reports mean.",
    "replay": "What would have happened in a recording under other policies.",
    "check": "Verify a policy within bounds, or print a violation.",
    "litmus": "Run litmus tests: small programs with their verdict inside.",
    "new": "Write a litmus test to start from.",
    "repair": "Search for the smallest change that makes a policy pass its check.",
    "policy": "List, show and export policies.",
    "census": "What a kernel image does between user mode and a late flush.",
    "extract": "Write the entry paths of a kernel image as a kernel text.",
    "compare": "Simulate one scenario under several policies.",
    "validate": "Simulate the published experiments and show both figures.",
    "machines": "List CPU presets and show where each number comes from.",
    "sweep": "Simulate a grid of configurations into a Parquet data set.",
    "tlb": "Run an address trace through a machine's TLBs.",
    "miss-curve": "Misses of an address trace in LRU TLBs of every size.",
    "record": "Record a trace on this machine.",
    "top": "Watch what takes isolated CPUs from their tasks, live.",
    "inspect": "What a policy would do on this machine, and why.",
    "calibrate": "Measure this machine's costs.",
    "schema": "Print the JSON Schema of what a command prints with --json.",
    "doctor": "Say what is installed and what this machine is, for a report.",
    "completion": "Print a script that completes commands in bash, zsh or fish.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status, one of `_common.STATUSES`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:  # needs no extra package
        print(_version())
        return 0
    if arguments == ["doctor"] and (find_spec("typer") is None or find_spec("rich") is None):
        from tlbcore._input import doctor

        print(doctor.text(doctor.facts()))
        return 2
    for name in ("typer", "rich"):
        if find_spec(name) is None:
            print(
                f"tlbcore: error: the command line needs the package {name}: pip install 'tlbcore[cli]'",
                file=sys.stderr,
            )
            return 2
    from tlbcore.cli import _common

    if os.environ.get("_TLBCORE_COMPLETE"):
        return _complete(arguments)
    return _common.run(lambda: _application(arguments), arguments)


def _application(arguments: list[str]) -> typer.Typer:
    """Return the application, with the subcommand that is asked for whole and the others by their line only."""
    import typer

    from tlbcore.cli._apart import Command

    app = typer.Typer(
        name="tlbcore",
        help="Who interrupts isolated CPUs, is a TLB-flush deferral safe, and what does it cost?",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            print(_version())
            raise typer.Exit

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=show_version, is_eager=True, help="Print the version and exit."
        ),
    ) -> None: ...

    def stand_in() -> None: ...

    # The top level has no option that takes a value, so the first plain word is the subcommand.
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, line in _COMMANDS.items():
        if name != chosen:
            app.command(name, help=line, short_help=line)(stand_in)
            continue
        module = import_module(f"tlbcore.cli.{name.replace('-', '_')}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=line, short_help=line)
        else:
            app.command(name, cls=Command)(module.command)
    return app


def _complete(words: list[str]) -> int:
    """Print what a shell may put in the place of the last word."""
    import typer

    from tlbcore._output.visible import one_line
    from tlbcore.cli.completion import candidates

    def load(name: str) -> Any:
        tree: Any = typer.main.get_command(_application([name]))
        return tree.commands[name]

    found = candidates(words, _COMMANDS, load)
    sys.stdout.write("".join(f"{name}\t{one_line(meaning)}\n" for name, meaning in found))
    return 0


def _version() -> str:
    from importlib.metadata import version

    return f"tlbcore {version('tlbcore')}"


def entry() -> None:
    """Run as the installed script and as `python -m tlbcore`."""
    sys.exit(main())
