"""x86-TSO in one page: every end of a small program, by brute force. It shares nothing with the checker.

A program is a list of columns, a column a list of ops. A CPU has a FIFO buffer of stores; it reads its newest buffered
store to a location, or memory; a fence and a LOCKed op wait until the buffer is empty (Owens, Sarkar, Sewell: A better
x86 memory model: x86-TSO, section 3.1).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

LOCATIONS = ("x", "y", "z")
BITS = 4


@dataclass(frozen=True)
class Op:
    """`store`, `load`, `fence`, `nop` or a LOCKed op: `xchg`, `add`, `or`, `and`, `xor`, `bts`, `btr`, `btc`, `cas`."""

    kind: str
    location: str = ""
    register: str = ""
    value: int = 0
    new: int = 0


Program = tuple[tuple[Op, ...], ...]
End = tuple[tuple[str, int], ...]


def locked(op: Op, old: int) -> tuple[int, int]:
    """Return what a LOCKed op leaves in memory and what its register gets."""
    bit = 1 << op.value
    match op.kind:
        case "xchg":
            return op.value, old
        case "add":
            return old + op.value, old
        case "or":
            return old | op.value, old
        case "and":
            return old & op.value, old
        case "xor":
            return old ^ op.value, old
        case "bts":
            return old | bit, old >> op.value & 1
        case "btr":
            return old & ~bit, old >> op.value & 1
        case "btc":
            return old ^ bit, old >> op.value & 1
        case "cas":
            return (op.new if old == op.value else old), old
    raise ValueError(op.kind)


def ends(program: Program) -> set[End]:
    """Return every end: each location's value, and each register's as `N:name`."""
    first: Any = ((0,) * len(program), ((),) * len(program), (("", 0),) * 0, tuple((v, 0) for v in LOCATIONS))
    seen, todo, out = {first}, [first], set()
    while todo:
        at, buffers, registers, memory = todo.pop()
        after = []
        for cpu, column in enumerate(program):
            held = buffers[cpu]
            if held:
                location, value = held[0]
                drained = tuple((v, value if v == location else old) for v, old in memory)
                after.append((at, _with(buffers, cpu, held[1:]), registers, drained))
            if at[cpu] == len(column):
                continue
            op, there = column[at[cpu]], _with(at, cpu, at[cpu] + 1)
            if op.kind == "store":
                after.append(
                    (there, _with(buffers, cpu, (*held, (op.location, op.value))), registers, memory)
                )
            elif op.kind == "nop":
                after.append((there, buffers, registers, memory))
            elif op.kind == "load":
                newest = [value for location, value in held if location == op.location]
                value = newest[-1] if newest else dict(memory)[op.location]
                after.append((there, buffers, _set(registers, f"{cpu}:{op.register}", value), memory))
            elif not held and op.kind == "fence":
                after.append((there, buffers, registers, memory))
            elif not held:
                new, result = locked(op, dict(memory)[op.location])
                changed = tuple((v, new if v == op.location else old) for v, old in memory)
                after.append((there, buffers, _set(registers, f"{cpu}:{op.register}", result), changed))
        if not after:
            out.add(tuple(sorted((*memory, *registers))))
        for state in after:
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return out


def _with(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _set(registers: End, name: str, value: int) -> End:
    return tuple(sorted((dict(registers) | {name: value}).items()))


def draw(seed: int) -> Program:
    """Draw a program of 2 to 4 CPUs; the same for the same seed."""
    rng = random.Random(seed)
    cpus = rng.choice((2, 2, 2, 3, 3, 4))
    most = {2: 4, 3: 3, 4: 2}[cpus]
    locations = LOCATIONS[: rng.choice((1, 2, 2, 3))]
    kinds = (
        ["store"] * 4
        + ["load"] * 4
        + ["fence", "nop", "xchg", "add", "or", "and", "xor", "bts", "btr", "btc", "cas"]
    )
    added = 0
    columns = []
    for _ in range(cpus):
        column = []
        for n in range(rng.randint(1, most)):
            kind = rng.choice(kinds)
            value = rng.randint(1, 3)
            if kind == "add":  # never beyond the bits: 3, and at most 12 added to it
                kind, value = ("add", 1) if added < 8 else ("load", 0)
                added += 1
            elif kind in ("bts", "btr", "btc"):
                value = rng.randint(0, 1)
            elif kind == "cas":
                value = rng.randint(0, 2)
            column.append(Op(kind, rng.choice(locations), f"r{n}", value, rng.randint(1, 3)))
        columns.append(tuple(column))
    return tuple(columns)


def registers(program: Program) -> list[str]:
    """Return the registers that some op writes, as conditions name them."""
    silent = ("store", "fence", "nop")
    return [
        f"{cpu}:{op.register}" for cpu, column in enumerate(program) for op in column if op.kind not in silent
    ]


def text(program: Program, name: str = "drawn") -> str:
    """Write a program as one of our litmus tests."""
    lines = [f"litmus {name}", f'  locations "{" ".join([*LOCATIONS, *registers(program)])}"']
    lines += [f"  var {location} : {BITS} bits, shared, starts 0" for location in LOCATIONS]
    for cpu, column in enumerate(program):
        lines += ["", f"cpu {cpu}"]
        for op in column:
            match op.kind:
                case "store":
                    lines.append(f"  {op.location} = {op.value}")
                case "load":
                    lines.append(f"  let {op.register} = {op.location}")
                case "fence":
                    lines.append("  fence")
                case "nop":
                    lines.append("  sfence" if op.value > 1 else "  lfence")
                case "cas":
                    lines.append(f"  let {op.register} = cas {op.location}, {op.value}, {op.new}")
                case _:
                    lines.append(f"  let {op.register} = {op.kind} {op.location}, {op.value}")
    return "\n".join(lines) + "\n"


_INTEL = ("EBX", "ECX", "EDX", "ESI")


def herd_text(program: Program, name: str = "drawn") -> str:
    """Write a program as herd does, for X86; its LOCKed ops are XCHG and XADD, and those whose result is not kept."""
    cells = []
    for column in program:
        cell = []
        for n, op in enumerate(column):
            register = _INTEL[n]
            match op.kind:
                case "store":
                    cell.append(f"MOV [{op.location}],${op.value}")
                case "load":
                    cell.append(f"MOV {register},[{op.location}]")
                case "fence":
                    cell.append("MFENCE")
                case "nop":
                    cell.append("SFENCE" if op.value > 1 else "LFENCE")
                case "xchg":
                    cell += [f"MOV {register},${op.value}", f"XCHG [{op.location}],{register}"]
                case "add":
                    cell += [f"MOV {register},${op.value}", f"LOCK XADD [{op.location}],{register}"]
                case _:
                    cell.append(f"LOCK {op.kind.upper()} [{op.location}],${op.value}")
        cells.append(cell)
    height = max(len(cell) for cell in cells)
    rows = [[cell[i] if i < len(cell) else "" for cell in cells] for i in range(height)]
    table = [" | ".join(row) + " ;" for row in [[f"P{n}" for n in range(len(program))], *rows]]
    kept = [
        f"{cpu}:{_INTEL[n]}"
        for cpu, column in enumerate(program)
        for n, op in enumerate(column)
        if op.kind in ("load", "xchg", "add")
    ]
    locations = "".join(f"{location};" for location in (*LOCATIONS, *kept))
    first = "".join(f"{location}=0;" for location in LOCATIONS)
    return "\n".join(
        [f"X86 {name}", '"Drawn at random"', f"{{ {first} }}", *table, f"locations [{locations}]", ""]
    )
