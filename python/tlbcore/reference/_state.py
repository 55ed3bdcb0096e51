"""The state of the slow explorer's machine, as plain tuples, and the two ways in which a run ends early.

Nothing is packed and nothing renamed: a translation carries the frame it leads to and the store that made it, a
paging-structure entry the table it points to. Rules by number: SEMANTICS.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

__all__ = [
    "INIT_MM",
    "NO_MM",
    "NO_PC",
    "Cpu",
    "Frame",
    "Leaf",
    "Overflow",
    "Page",
    "State",
    "Violation",
    "changed",
    "compare",
    "named",
    "put",
]

NO_PC = -1
INIT_MM, NO_MM = 0, 1

Tag = tuple[int, bool]  # a PCID: the ASID, and whether it is the user half
Ident = tuple[
    int, int
]  # a store to a page-table entry: the CPU, and which of its stores; (-1, 0) for the start
Opcode = tuple[bool, int]  # is it an INT3, and which instruction is it or does it stand before


class Leaf(NamedTuple):
    """A page-table entry that maps a page: what a walk reads, and what a TLB holds of it."""

    version: Ident  # S1: the store that made it
    frame: Ident  # the memory it leads to, by the store that brought it; rights may change under it
    nth: int  # how many changes the page had seen before: which data it maps
    rights: int  # 0 not present, 1 fewer rights, 2 all
    uncached: bool = False  # H11: the type of memory


class Page(NamedTuple):
    """What memory says of a tracked page, and what was promised of it."""

    table: Ident | None  # what the upper entry points to
    last: Ident  # what it pointed to last: entries are written there
    leaves: tuple[tuple[Ident, Leaf], ...]  # each table with the entry in it
    version: Ident  # S1: the last visible change at either level
    replaced: frozenset[Ident]  # versions that visible stores have replaced
    dead: frozenset[Ident]  # versions that a promise has put out of use
    freed: frozenset[Ident]  # tables
    frame: Ident  # the memory that it led to last, where types change
    cacheds: frozenset[Ident]  # versions of the type cached, where it becomes uncached


class Frame(NamedTuple):
    """One activation of a program."""

    kind: str  # task, interrupt, nmi, mce, breakpoint
    level: int  # 0 from user mode or the task itself, else one more than what it interrupts
    delivered: bool
    pc: int
    ret: int
    cur: int
    visited: frozenset[int]
    targets: frozenset[int]
    regs: tuple[int, ...]
    irq: bool  # IF
    reads: bool = False  # a read-side section of this interrupt or NMI is open
    watch: bool = False  # RCU watches because of this interrupt or NMI
    walked: Any = None  # of a walk in software under way: the table it found, then the leaf
    stack: bool = True  # RSP holds one (S13)
    device: bool = False  # a device sent it: it takes no remote calls (H5)


class Cpu(NamedTuple):
    """One CPU."""

    frames: tuple[Frame, ...]  # empty: at rest
    user: bool  # half of the loaded table
    asid: int
    mm: int
    kernel_gs: bool
    blocked: bool  # NMIs are, until an IRET
    leaves: frozenset[tuple[int, Tag | None, Leaf]]  # the TLB: page, PCID (None for global entries), entry
    uppers: frozenset[tuple[int, Tag, Ident]]  # paging-structure caches: page, PCID, table
    fetched: tuple[Opcode | None, ...]  # head and tail of each patched instruction
    buffer: tuple[tuple[Any, int, Any], ...]  # (address, mask, value), oldest first
    stores: int  # page-table stores so far: they number them
    queue: tuple[tuple[int, int], ...]  # (program, sender), oldest first
    irq: bool
    serving: int
    waits: frozenset[int]
    left: int | None  # None: any number
    fault: int  # the page at which its column ended in a fault, or -1
    devices: int
    covers: tuple[frozenset[Ident] | None, ...]  # by page; None: no flush was asked for
    covers_text: tuple[frozenset[Opcode] | None, ...]
    owes: frozenset[int]
    owes_others: bool
    contexts: tuple[int, ...]
    next_asid: int
    info: tuple[int, int]
    broadcasts: frozenset[
        tuple[int, bool, Tag | None]
    ]  # page, leaves alone?, the PCID it names; not complete yet
    reads: bool  # a read-side section of the task is open
    unwatched: bool  # RCU does not watch the task or entry
    grace: frozenset[int]  # the CPUs that `synchronize` waits for
    later: tuple[
        tuple[int, frozenset[int] | None], ...
    ]  # (program, CPUs waited for, None before it has begun)
    lines: frozenset[tuple[int, Ident]]  # H11: of which page and memory it may hold a line
    task: int  # L11: the column whose task runs here, or ran last


class State(NamedTuple):
    """Everything."""

    cpus: tuple[Cpu, ...]
    memory: tuple[int, ...]
    pages: tuple[Page, ...]
    text: tuple[Opcode, ...]
    dead_text: tuple[frozenset[Opcode], ...]
    masks: tuple[frozenset[int], ...]  # mm_cpumask
    freed: frozenset[int]  # mms
    nmis: int
    mces: int


Parts = TypeVar("Parts", Cpu, State)
AT: dict[Any, dict[str, int]] = {
    kind: {name: at for at, name in enumerate(kind._fields)} for kind in (Cpu, State)
}


def changed(old: Parts, **changes: Any) -> Parts:
    """Return it with some parts replaced, in a third of the time of `_replace`."""
    at = AT[type(old)]
    parts: list[Any] = list(old)
    for name, value in changes.items():
        parts[at[name]] = value
    return tuple.__new__(type(old), parts)


class Violation(Exception):  # noqa: N818  (a verdict, not an error)
    """A rule is broken."""


class Overflow(Exception):  # noqa: N818
    """A value outgrew its variable: no verdict."""


def named(op: Any) -> tuple[str, Any]:
    """Return an op's name and its operands."""
    return (op, None) if isinstance(op, str) else next(iter(op.items()))


def compare(cmp: str, a: int, b: int) -> bool:
    """Compare as the op of that name does."""
    found = {"Eq": a == b, "Ne": a != b, "Lt": a < b, "Ge": a >= b, "Le": a <= b, "Gt": a > b}
    return (found | {"Test": a & b != 0})[cmp]


def put(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    """Return the values with one replaced."""
    return (*values[:at], value, *values[at + 1 :])
