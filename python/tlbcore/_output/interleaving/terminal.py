"""`tlbcore check --step`: one move after the other, by keys; from a pipe the same keys are read as characters."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from tlbcore._output.interleaving.held import held, states
from tlbcore._output.interleaving.run import Run
from tlbcore._output.visible import drawn_on, one_line

KEYS = "n next  p previous  g first  G last  a all moves  NUMBER Enter go to  q end"
_BEFORE = 4  # moves that stay in view above the current one

# What terminals send for keys that are no character.
_SEQUENCES = {
    "[C": "n", "[B": "n", "[D": "p", "[A": "p", "[H": "g", "[F": "G", "[1~": "g", "[4~": "G", "OH": "g", "OF": "G",
    "OA": "p", "OB": "n", "OC": "n", "OD": "p", "[5~": "p", "[6~": "n",
}  # fmt: skip
_SAME = {
    " ": "n",
    "j": "n",
    "l": "n",
    "\x7f": "p",
    "\b": "p",
    "k": "p",
    "h": "p",
    "Q": "q",
    "\x03": "q",
    "\x04": "q",
}


class Steps:
    """Where one stands in a run; moves that change nothing here are passed over unless all are asked for."""

    def __init__(self, found: Run) -> None:
        self.found = found
        self.changes = states(found.steps)
        self.every = False
        self.now = self._stops()[0]

    def _stops(self) -> list[int]:
        """Return the moves at which one stops: the last always is one."""
        steps = self.found.steps
        return [i for i, step in enumerate(steps) if self.every or step.shown or i == len(steps) - 1]

    def press(self, key: str) -> bool:
        """Do what a key says; return whether it says something here."""
        stops = self._stops()
        if key == "n":
            self.now = min((i for i in stops if i > self.now), default=self.now)
        elif key == "p":
            self.now = max((i for i in stops if i < self.now), default=self.now)
        elif key == "g":
            self.now = stops[0]
        elif key == "G":
            self.now = stops[-1]
        elif key == "a":
            self.every = not self.every
            self.now = max((i for i in self._stops() if i <= self.now), default=self._stops()[0])
        elif key.isdecimal():
            number = int(key) if len(key) < 10 else sys.maxsize
            self.now = max((i for i in stops if self.found.steps[i].number <= number), default=stops[0])
        else:
            return False
        return True

    def screen(self, width: int) -> list[str]:
        """Return what is shown: the last moves in their lanes, the place in the kernel, and what holds now."""
        found = self.found
        step = found.steps[self.now]
        lines = [f"{found.rule}: move {step.number} of {len(found.steps)}", ""]
        room = max(12, (min(width, 100) - 7) // len(found.lanes) - 2)
        lines.append("     " + "  ".join(lane[:room].ljust(room) for lane in found.lanes).rstrip())
        for i in [i for i in self._stops() if i <= self.now][-_BEFORE - 1 :]:
            lines += self._move(i, room)
        if step.source:
            lines += textwrap.wrap(f"at {one_line(step.source)}", width, initial_indent="     ",
                                   subsequent_indent="        ")  # fmt: skip
        lines += ["", "what holds after it (* changed by this move)"]
        now = held(self.changes, self.now)
        names = max((len(name) for name in now), default=0)
        for name, (value, changed) in now.items():
            lines += textwrap.wrap(
                f"{one_line(name):<{names}}  {one_line(value)}", max(width, 40),
                initial_indent="  * " if changed else "    ", subsequent_indent=" " * (names + 6),
            )  # fmt: skip
        if not now:
            lines.append("    nothing has changed yet")
        if self.now == len(found.steps) - 1:
            lines += ["", *textwrap.wrap(one_line(found.closing), width)]
        return lines

    def _move(self, i: int, room: int) -> list[str]:
        step = self.found.steps[i]
        out = []
        for at, text in enumerate(textwrap.wrap(one_line(step.what), room) or [""]):
            mark = f"{'>' if i == self.now else ' '}{step.number:>3} " if at == 0 else " " * 5
            out.append(f"{mark}{' ' * (step.cpu * (room + 2))}{text}".rstrip())
        return out


def walk(found: Run, width: int, keys: IO[str] | None = None) -> None:
    """Let the user go through a run until `q`, Ctrl-C, Ctrl-D or the end of what is piped in."""
    steps = Steps(found)
    source = keys or sys.stdin
    live = source.isatty() and sys.stdout.isatty()
    with _keys(source, live=live) as read:
        _show(steps, width, live=live)
        for key in read:
            if key == "q":
                break
            if steps.press(key):
                _show(steps, width, live=live)


def _show(steps: Steps, width: int, *, live: bool) -> None:
    lines = steps.screen(width)
    if not live:
        print("\n".join(lines), "\n" + "-" * min(width, 72), sep="\n")
        return
    out = drawn_on(sys.stdout)
    out.write("\x1b[H\x1b[2J")
    out.flush()
    print("\n".join([*lines, "", *textwrap.wrap(KEYS, width)]))
    sys.stdout.flush()


@contextmanager
def _keys(source: IO[str], *, live: bool) -> Iterator[Iterator[str]]:
    """Give keys as they are pressed, or character by character from what is no terminal."""
    if not live:
        yield _named(lambda: source.read(1), enter="")
        return
    import termios
    import tty

    number = source.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield _named(lambda: os.read(number, 1).decode("latin-1"))
    except KeyboardInterrupt:
        pass
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _named(read: Callable[[], str], enter: str = "n") -> Iterator[str]:
    """Name keys: digits up to Enter are one, an arrow is one; `enter` is what Enter alone says."""
    digits = ""
    while char := read():
        if char.isdecimal() and char.isascii():
            digits += char
            continue
        if char in "\r\n":
            yield digits or enter
            digits = ""
            continue
        digits = ""
        if char == "\x1b":
            sequence = read()
            while sequence[:1] in ("[", "O") and not (
                len(sequence) > 1 and (sequence[-1].isalpha() or sequence[-1] == "~")
            ):
                more = read()
                if not more:
                    break
                sequence += more
            yield _SEQUENCES.get(sequence, "")
            continue
        yield _SAME.get(char, char)
    if digits:
        yield digits
