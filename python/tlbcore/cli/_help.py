"""What `--help` calls the value of an option: what it means (FILE, POLICY, N), not which type Python gives it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# By the option's name where that says more than its type does.
_NAMES = {
    "assume": "NAME=VALUE",
    "base": "MACHINE",
    "duration": "TIME",
    "entries": "N|unbounded",
    "inherits": "MACHINE",
    "machine": "MACHINE",
    "memory": "SIZE",
    "paths": "PATH",
    "policy": "POLICY",
    "pti": "on|off|auto",
    "roles": "ROLES",
    "rounds": "N|unbounded",
    "scenario": "SCENARIO",
    "trace": "TRACE",
    "world": "FEATURES",
}
_KINDS = (("float", "X"), ("int", "N"), ("path", "FILE"), ("file", "FILE"))


def name_values(command: Any) -> None:
    """Name the values of every option and argument of a command and its subcommands, where none is named yet."""
    for each in commands(command):
        for parameter in each.params:
            if parameter.param_type_name == "argument":
                name = _named(parameter) if parameter.metavar is None else parameter.metavar
                if parameter.nargs == -1:  # the usage line adds brackets and dots of its own
                    name = name.removeprefix("[").removesuffix("]").removesuffix("...")
                parameter.metavar = name
                parameter.display_type_rich = _unsaid
            elif parameter.metavar is None and not parameter.is_flag:
                parameter.metavar = _named(parameter)


def _unsaid(ctx: Any) -> None:
    """Say nothing of an argument's type: its sentence does."""
    del ctx


def commands(command: Any) -> Iterator[Any]:
    """Yield a command and all below it."""
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from commands(each)


def _named(parameter: Any) -> str:
    if parameter.name in _NAMES:
        return _NAMES[parameter.name]
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    if "directory" in (parameter.help or "").lower():
        return "DIR"
    described = str(getattr(parameter, "type", ""))
    if hasattr(parameter, "bare_type"):  # Typer from 0.26 on
        described = parameter.display_type(None)
    return next((name for kind, name in _KINDS if kind in described.lower()), "TEXT")
