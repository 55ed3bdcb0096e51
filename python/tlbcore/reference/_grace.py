"""Grace periods (L10): who is in a read-side section, who waits for it, and what runs when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from tlbcore.reference._memory import with_cpu
from tlbcore.reference._model import Model
from tlbcore.reference._state import Cpu, Frame, Overflow, State

__all__ = ["about", "call_later", "due", "has_left", "settled"]

MOST = 2  # programs of a CPU that wait for grace periods


def _holds_up(cpu: Cpu) -> bool:
    """Whether a grace period that begins now waits for a CPU: it may be in a section, or its stores are not visible."""
    if cpu.unwatched and not any(f.watch for f in cpu.frames):
        return False
    closed = any(f.level > 0 or not f.irq for f in cpu.frames)
    return closed or (cpu.reads and not has_left(cpu)) or any(f.reads for f in cpu.frames) or bool(cpu.buffer)


def has_left(cpu: Cpu) -> bool:
    """Whether a CPU ended its last round in a section: what it does next is no part of the question."""
    return cpu.reads and cpu.left == 0 and not any(f.level == 0 for f in cpu.frames)


def _sections(s: State) -> frozenset[int]:
    return frozenset(i for i, cpu in enumerate(s.cpus) if _holds_up(cpu))


def settled(m: Model, s: State) -> State:
    """Return a state in which nobody waits for a CPU that is quiescent, and what can begin has begun."""
    if not m.graces:
        return s
    held = _sections(s)
    for i, cpu in enumerate(s.cpus):
        later = tuple(
            (run, (None if cpu.buffer else held) if waits is None else waits & held)
            for run, waits in cpu.later
        )
        if later != cpu.later or not cpu.grace <= held:
            s = with_cpu(s, i, grace=cpu.grace & held, later=later)
    return s


def about(s: State, i: int, f: Frame, what: str) -> tuple[State, Frame]:
    """Open or close a section, have RCU watch or not, or ask for a grace period."""
    match what:
        case "Lock" if f.reads or (f.level == 0 and s.cpus[i].reads):
            raise Overflow  # sections do not nest
        case "Lock" | "Unlock" if f.level > 0:
            f = f._replace(reads=what == "Lock")
        case "Lock" | "Unlock":
            s = with_cpu(s, i, reads=what == "Lock")
        case "Watch" | "Unwatch" if f.level > 0:
            f = f._replace(watch=what == "Watch")
        case "Watch" | "Unwatch":
            s = with_cpu(s, i, unwatched=what == "Unwatch")
        case "Start":
            s = with_cpu(s, i, grace=_sections(s))
    return s, f


def call_later(s: State, i: int, run: int) -> State:
    """Run a program on this CPU after a grace period."""
    if len(s.cpus[i].later) == MOST:
        raise Overflow
    return with_cpu(s, i, later=(*s.cpus[i].later, (run, None)))


def due(m: Model, s: State, i: int) -> Iterator[tuple[str, bool, Callable[[], State]]]:
    """Yield the start of the program whose grace period is over, like an interrupt."""
    cpu = s.cpus[i]
    if not cpu.later or cpu.later[0][1] is None or cpu.later[0][1]:
        return
    if cpu.frames and (cpu.frames[-1].level > 0 or not cpu.frames[-1].irq):
        return
    frame = m.frame("later", m.question.code["programs"][cpu.later[0][0]]["name"], 1)
    starts = partial(with_cpu, s, i, later=cpu.later[1:], frames=(*cpu.frames, frame))
    yield f"cpu {i}: a grace period is over", True, starts
