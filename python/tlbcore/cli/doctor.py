"""`tlbcore doctor`: exit status 0, or 2 if something is missing that every command needs."""

from __future__ import annotations

from typing import Annotated

import typer

from tlbcore.cli import _common


def command(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """Say what is installed and what this machine is: what a report about a fault needs. Nothing is sent anywhere."""
    from tlbcore._input import doctor

    found = doctor.facts()
    wrong = doctor.problems(found)
    if json:
        _common.print_json("doctor", 1, **found, problems=wrong)
    else:
        print(doctor.text(found))
        for line in wrong:
            print(f"problem: {line}")
    return _common.BAD_INPUT if wrong else 0
