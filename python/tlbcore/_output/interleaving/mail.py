"""A verdict as the body of a plain-text mail: at most 72 columns of ASCII, and how the reader gets the same."""

from __future__ import annotations

import shlex
import textwrap

from tlbcore import _core
from tlbcore._output.interleaving.run import Found
from tlbcore._output.visible import visible

WIDTH = 72


def mail(verdict: Found, command: str = "") -> str:
    """Return the mail: a subject, the verdict as its text has it, and the command and version that print it.

    `command` is the command line; left out, a call of `check` is named.
    """
    run = verdict.counterexample
    subject = f"{verdict.policy}: {verdict.status}" + (
        f" ({run.rule}, {len(run.steps)} moves)" if run else ""
    )
    lines = [f"Subject: {subject}", ""]
    for line in visible(str(verdict)).split("\n"):
        lines += [line] if len(line) <= WIDTH else _broken(line)
    asked = command or f"tlbcore.check({verdict.policy!r}, ...)"
    lines += ["", f"To see it again (tlbcore {_core.__version__}):", "", *_shell(asked)]
    if run is not None:
        lines += [
            "",
            *textwrap.wrap(
                f"Places in linux.kernel are functions of {run.kernel}. The run, as Counterexample.replay "
                "carries it out:",
                WIDTH,
            ),
            *textwrap.wrap(
                run.schedule, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
            ),
        ]
    return "\n".join(lines).encode("ascii", "backslashreplace").decode("ascii") + "\n"


def _broken(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _shell(command: str) -> list[str]:
    """Break a command line where a shell lets it go on."""
    lines, now = [], " "
    for word in command.split(" "):
        if len(now) + 1 + len(word) > WIDTH - 2 and now.strip():
            lines.append(f"{now} \\")
            now = "   "
        now += f" {word}"
    return [*lines, now]


def quoted(words: list[str]) -> str:
    """Return a command line of these words."""
    return " ".join(map(shlex.quote, words))
