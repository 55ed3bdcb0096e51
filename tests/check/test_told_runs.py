"""A run that is told, followed by hand: what each line says was executed, read, buffered and changed, on x86-TSO.

Programs are drawn at random, and each is asked for one of its ends, drawn too. The schedule says who acts, `where`
which line of the text that was, and `tests/tso.py` what the line means.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

import pytest
from tests.tso import LOCATIONS, Op, Program, draw, ends, locked, text

import tlbcore as tc


@dataclass
class Told:
    """A counterexample's text, cut into what its rows say."""

    lanes: dict[int, list[str]] = field(default_factory=dict)
    changed: dict[int, str] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)


def read(printed: str) -> Told:
    """Read the rows of a text, whose words may be broken anywhere, and the places of its moves."""
    rows, _, rest = printed.partition("\nwhere ")
    head, *rows = rows.splitlines()
    starts = [match.start() for match in re.finditer(r"cpu \d+", head)] + [head.index("changed")]
    told, number = Told(), 0
    for row in rows:
        number = int(row[:4]) if row[:4].strip() else number
        cells = [row[a:b].replace(" ", "") for a, b in zip(starts, [*starts[1:], None], strict=True)]
        was = told.lanes.setdefault(number, [""] * (len(starts) - 1))
        told.lanes[number] = [x + y for x, y in zip(was, cells[:-1], strict=True)]
        told.changed[number] = told.changed.get(number, "") + cells[-1]
    for numbers, line in re.findall(r"^  ([\d ]+) litmus:(\d+)$", rest, re.MULTILINE):
        told.lines |= {int(number): int(line) for number in numbers.split()}
    return told


def places(program: Program, written: str) -> dict[int, tuple[int, int]]:
    """Return the CPU and the place in its column of each line."""
    found, cpu, nth = {}, -1, 0
    for number, line in enumerate(written.splitlines(), 1):
        if line.startswith("cpu "):
            cpu, nth = int(line[4:]), 0
        elif cpu >= 0 and line.strip():
            found[number] = (cpu, nth)
            nth += 1
    assert len(found) == sum(map(len, program))
    return found


class Followed:
    """Memory, buffers and registers while a run is followed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.memory = dict.fromkeys(LOCATIONS, 0)
        self.buffers: list[list[tuple[str, int]]] = [[] for _ in program]
        self.registers: dict[str, int] = {}
        self.done = [0] * len(program)

    def set(self, location: str, value: int) -> str:
        was, self.memory[location] = self.memory[location], value
        return f"{location}={value}" if was != value else ""

    def drain(self, cpu: int) -> str:
        return self.set(*self.buffers[cpu].pop(0))

    def execute(self, cpu: int, op: Op) -> str:
        """Execute an op; return what is to be told of it."""
        held = self.buffers[cpu]
        match op.kind:
            case "nop":
                return ""
            case "store":
                held.append((op.location, op.value))
                return f"buffer{cpu}:{op.location}={op.value}"
            case "load":
                newest = [value for location, value in held if location == op.location]
                value = newest[-1] if newest else self.memory[op.location]
                self.registers[f"{cpu}:{op.register}"] = value
                return f"reads{value}"
        assert not held, "a fence and a LOCKed op wait until the buffer is empty"
        if op.kind == "fence":
            return ""
        new, result = locked(op, self.memory[op.location])
        self.registers[f"{cpu}:{op.register}"] = result
        return self.set(op.location, new)


def follow(program: Program, end: tuple[tuple[str, int], ...]) -> int:
    """Ask for an end and follow the run that is told; how many of its lines were read."""
    condition = " and ".join(f"{name} == {value}" for name, value in end)
    written = re.sub(r"  locations .*", f'  exists "{condition}"', text(program))
    result = tc.litmus(written)
    assert result.found == "allowed"
    assert result.schedule
    told, at, run = read(result.text), places(program, written), Followed(program)
    words = written.splitlines()
    moves = [move for token in result.schedule.split() for move in repeated(token)]
    for number, move in enumerate(moves, 1):
        cpu, action = int(move[0]), move[2:]
        lanes = told.lanes.get(number, [""] * len(program))
        assert not any(lane for n, lane in enumerate(lanes) if n != cpu), (number, written)
        changed = ""
        if action == "drain":
            assert lanes[cpu] == "(storevisible)"
            changed = run.drain(cpu)
        elif number in told.lines:
            line = told.lines[number]
            assert at[line] == (cpu, at[line][1]), (number, written)
            # What is left out on the way changes nothing that others see.
            skipped = program[cpu][run.done[cpu] : at[line][1]]
            assert all(op.kind == "nop" for op in skipped), (number, written, result.text)
            run.done[cpu] = at[line][1] + 1
            assert lanes[cpu] == words[line - 1].replace(" ", ""), (number, written, result.text)
            changed = run.execute(cpu, program[cpu][at[line][1]])
        else:
            assert action == "step"
            assert not lanes[cpu]
        assert told.changed.get(number, "") == changed, (number, written, result.text)
    assert set(told.lanes) <= set(range(1, len(moves) + 1))
    for column, done in zip(program, run.done, strict=True):
        assert all(op.kind == "nop" for op in column[done:])
    assert not any(run.buffers)
    assert {**run.memory, **run.registers} == dict(end)
    return len(told.lanes)


def repeated(token: str) -> list[str]:
    move, _, times = token.partition("*")
    return [move] * int(times or 1)


def test_each_line_of_a_run_says_what_the_line_did() -> None:
    lines = 0
    for seed in range(260):
        program = draw(seed)
        possible = sorted(ends(program))
        lines += follow(program, random.Random(seed).choice(possible))
    assert lines > 1200


@pytest.mark.slow
def test_each_line_of_many_more_runs_does() -> None:
    for seed in range(1000, 8000):
        program = draw(seed)
        follow(program, random.Random(seed).choice(sorted(ends(program))))
