"""The `tlbcore` command.

A subcommand is one module in this folder and one line in the table below. Only the invoked one is imported,
so `tlbcore --help` loads neither NumPy nor the compiled core.
"""

from __future__ import annotations

import sys
from importlib import import_module

# name -> its line in `tlbcore --help`. A module offers `command`, a function annotated for Typer, or `app`, a
# `typer.Typer` with subcommands of its own.
_COMMANDS: dict[str, str] = {
    "demo": "Explain a bundled real trace, compare policies, check three of them.",
    "explain": "Who interrupted the isolated CPUs in a trace, and why.",
    "causes": "What interrupts isolated CPUs: the catalogue.",
    "replay": "What would have happened in a recording under other policies.",
    "check": "Verify a policy within bounds, or print the shortest violation.",
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
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 2 for bad input, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        import rich  # noqa: F401
        import typer
    except ModuleNotFoundError as missing:
        print(
            f"tlbcore: error: the command line needs the package {missing.name}: pip install 'tlbcore[cli]'",
            file=sys.stderr,
        )
        return 2
    from tlbcore.cli import _common

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
            from importlib.metadata import version

            print(f"tlbcore {version('tlbcore')}")
            raise typer.Exit

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=show_version, is_eager=True, help="Print the version and exit."
        ),
    ) -> None: ...

    def stand_in() -> None: ...

    def build() -> typer.Typer:
        # The top level has no option that takes a value, so the first plain word is the subcommand.
        chosen = next((word for word in arguments if not word.startswith("-")), None)
        for name, line in _COMMANDS.items():
            if name != chosen:
                app.command(name, help=line)(stand_in)
                continue
            module = import_module(f"tlbcore.cli.{name.replace('-', '_')}")
            if hasattr(module, "app"):
                app.add_typer(module.app, name=name, help=line)
            else:
                app.command(name)(module.command)
        return app

    return _common.run(build, arguments)


def entry() -> None:
    """Run as the installed script and as `python -m tlbcore`."""
    sys.exit(main())
