"""The slow, obvious twin of the checker: x86-TSO, one tracked page, plain breadth-first search over tuples.

It shares the assembled ops with the fast checker and nothing else, so that an error in either shows as a
disagreement. Rules by number: SEMANTICS. Scope: CPU 0 keeps house and runs one initiator program; the others are
isolated, return to user mode first, and enter the kernel at most `entries` times. Or the columns of a litmus test,
with memory contexts. PTI on; neither page-table pages, nor the data of pages, nor machine checks.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tlbcore import _core
from tlbcore.policy import FEATURES, Policy, as_policy
from tlbcore.reference._machine import (
    Assume,
    Danger,
    Machine,
    Overflow,
    Role,
    State,
    Text,
    Violation,
    named,
)

__all__ = ["Exploration", "explore", "explore_litmus"]

_SPECULATION = ("fill", "fetch", "nmi", "kernel")  # nothing says that these ever happen


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What a search found.

    `status` is `verified` (within these bounds), `violated`, or `inconclusive`: a value outgrew its variable,
    there are more than `limit` states, or no run came to a promise. `states` counts distinct states, `steps` is the
    length of the shortest violation or -1, `violation` its rule, `schedule` the actions that lead there.
    """

    status: Literal["verified", "violated", "inconclusive"]
    states: int
    steps: int
    violation: str
    schedule: tuple[str, ...]


def explore(
    policy: str | Policy,
    *,
    cpus: int = 2,
    entries: int = 2,
    nmis: int = 0,
    asids: int = 1,
    danger: Danger = "none",
    nmi: Danger = "none",
    text: Text = "instr",
    invpcid_publishes: bool = False,
    ranged: bool = False,
    initiator: str = "purge",
    limit: int = 2_000_000,
) -> Exploration:
    """Explore every interleaving and return what was found.

    Parameters
    ----------
    policy
        Built-in name, file or policy.
    cpus
        CPUs, the housekeeping one included.
    entries
        Kernel entries by system call per isolated CPU.
    nmis
        NMIs in all.
    asids
        ASIDs per CPU, 1 or 2.
    danger, nmi
        What code between the CR3 switch and the flush, and NMI bodies, may touch (SEMANTICS A2).
    text
        Where text is patched: `instr`, `danger` or `noinstr` (SEMANTICS S7).
    invpcid_publishes
        Whether INVPCID makes earlier stores visible (SEMANTICS H4).
    ranged
        Whether requested ranges are flushed page by page.
    initiator
        The program CPU 0 runs, such as `purge` or `text_poke`.
    limit
        States after which the search gives up.

    Raises
    ------
    PolicyError
        If the policy does not parse or assemble.
    """
    code = as_policy(policy).code()
    roles = (_initiator(initiator), *(_role(f"isolated {entries}"),) * (cpus - 1))
    assume = Assume(danger=danger, nmi=nmi, text=text, invpcid_publishes=invpcid_publishes, ranged=ranged)
    return _search(Machine(code, roles, assume, asids, nmis), limit)


_COLUMN = re.compile(r"^cpu (\d+)", re.MULTILINE)
_FACT = re.compile(r'^  ([a-z]+) "(.*)"$', re.MULTILINE)
_ROLE = re.compile(
    r"isolated (?P<entries>\d+)( by (?P<entry>\w+))?|(?P<isolated>isolated )?(?P<program>\w+)(\*(?P<rounds>\d+))?"
)
_ASSUME = {"D": "danger", "N": "nmi", "T": "text", "invpcid": "invpcid_publishes", "range": "ranged"}
_FAULTS = re.compile(r"fault\((\d+), \w+\)")
_FLAGS = ("publishes", "pages")
_SAID = ("verdict", "source", "limits", "states")  # of no effect on a run


def explore_litmus(test: str, *, limit: int = 2_000_000) -> Exploration:
    """Explore a litmus test whose header says no more than roles, ASIDs, NMIs and assumptions.

    Parameters
    ----------
    test
        The text.
    limit
        States after which the search gives up.

    Raises
    ------
    NotImplementedError
        If the header or the columns ask for more.
    PolicyError
        If the text does not parse or assemble.
    """
    code = json.loads(_core.policy_code(test, "litmus", list(FEATURES)))
    facts = dict(_FACT.findall(test))
    asked = _FAULTS.findall(facts.get("locations", ""))
    if len(asked) == len(facts.get("locations", "").split()) - len(asked):  # `fault(1, k)` is two words
        facts.pop("locations", None)
    for key in facts.keys() - {*_SAID, "cpus", "asids", "nmis", "assume"}:
        raise NotImplementedError(f"the header line {key}")
    how: dict[str, Any] = {}
    for name, value in (word.split("=") for word in facts.get("assume", "").split()):
        if name not in _ASSUME or value == "directmap":
            raise NotImplementedError(f"the assumption {name}={value}")
        how[_ASSUME[name]] = value in _FLAGS if name in ("invpcid", "range") else value
    roles = [_role(word.strip()) for word in re.split("[;,]", facts.get("cpus", "")) if word.strip()]
    roles += [_initiator(f"cpu {n}") for n in sorted({int(n) for n in _COLUMN.findall(test)})]
    machine = Machine(
        code, tuple(roles), Assume(**how), int(facts.get("asids", 1)), int(facts.get("nmis", 0))
    )
    machine.handled = frozenset(int(cpu) for cpu in asked)
    return _search(machine, limit)


def _initiator(program: str, rounds: int = 1, *, isolated: bool = False) -> Role:
    return Role(first=program, again=program, left=rounds - 1, user=False, isolated=isolated)


def _role(word: str) -> Role:
    """Read a role as `check` does."""
    said = _ROLE.fullmatch(word)
    if said is None or word.endswith("unbounded"):
        raise NotImplementedError(f"the role {word}")
    if said["entries"]:
        again, left = said["entry"] or "syscall", int(said["entries"])
        return Role(first="enter_user", again=again, left=left, user=True, isolated=True)
    return _initiator(said["program"], int(said["rounds"] or 1), isolated=bool(said["isolated"]))


# -- the search ----------------------------------------------------------------------------------------------


def _search(m: Machine, limit: int) -> Exploration:
    found = _Found(m.first())
    for at, state in enumerate(found.states):  # which grow: first in, first out
        stuck = True
        for action, make in _actions(m, state):
            happens = action.split()[2] not in _SPECULATION
            stuck = stuck and not happens
            try:
                found.reach(make(), at, action, happens)
            except Violation as rule:
                return found.violated(str(rule), [*found.path(at), action])
            except Overflow:
                return found.clean("inconclusive")
        if stuck and not _rests(state):  # S11: a CPU waits for ever
            return found.violated("deadlock", found.path(at))
        if len(found.states) > limit:
            return found.clean("inconclusive")
    endless = found.endless()
    if endless is not None:
        return found.violated("livelock", found.path(endless))
    return found.clean("inconclusive" if m.about_promises and not m.asked else "verified")


def _rests(state: State) -> bool:
    return not any(cpu.frames for cpu in state.cpus)


class _Found:
    """The states found so far, by number, and how each was reached."""

    def __init__(self, start: State) -> None:
        self.states = [start]
        self.number = {start: 0}
        self.via: list[tuple[int, str]] = [(-1, "")]
        self.before: list[list[int]] = [[]]

    def reach(self, state: State, at: int, action: str, happens: bool) -> None:
        number = self.number.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self.via.append((at, action))
            self.before.append([])
        if happens:
            self.before[number].append(at)

    def endless(self) -> int | None:
        """Return the first state from which no run ends (S11: a loop that nothing leaves)."""
        ends = [_rests(state) for state in self.states]
        queue = deque(number for number, end in enumerate(ends) if end)
        while queue:
            for number in self.before[queue.popleft()]:
                if not ends[number]:
                    ends[number] = True
                    queue.append(number)
        return next((number for number, end in enumerate(ends) if not end), None)

    def path(self, at: int) -> list[str]:
        out = []
        while at:
            at, action = self.via[at]
            out.append(action)
        return out[::-1]

    def violated(self, rule: str, path: list[str]) -> Exploration:
        return Exploration(
            status="violated", states=len(self.states), steps=len(path), violation=rule, schedule=tuple(path)
        )

    def clean(self, status: Literal["verified", "inconclusive"]) -> Exploration:
        return Exploration(status=status, states=len(self.states), steps=-1, violation="", schedule=())


# -- everything nondeterministic -----------------------------------------------------------------------------

_Make = Callable[[], State]


def _actions(m: Machine, s: State) -> Iterator[tuple[str, _Make]]:
    for i, cpu in enumerate(s.cpus):
        if cpu.buffer:
            yield f"cpu {i}: drain", partial(m.drain, s, i)
        if m.can_fill(s, i):
            yield f"cpu {i}: fill", partial(m.fill, s, i)
        for part in (0, 1):
            if m.can_fetch(s, i, part):
                yield f"cpu {i}: fetch {part}", partial(m.fetch, s, i, part)
        yield from _interrupts(m, s, i)
        if cpu.frames:
            yield from _steps(m, s, i)
        elif cpu.left > 0:
            again = m.with_cpu(s, i, cpu._replace(left=cpu.left - 1))
            yield f"cpu {i}: enter", partial(m.push, again, i, "task", m.roles[i].again)
        if not cpu.frames and not m.roles[i].user:
            yield f"cpu {i}: kernel code", partial(_kernel_code, m, s, i)


def _interrupts(m: Machine, s: State, i: int) -> Iterator[tuple[str, _Make]]:
    """H5: IPIs at IF=1, an NMI at any boundary outside of NMIs."""
    cpu = s.cpus[i]
    in_user = not cpu.frames and m.roles[i].user
    if cpu.irq and (not cpu.frames or cpu.frames[-1].irq):
        told = m.with_cpu(s, i, cpu._replace(irq=False))
        kind, program = ("task", "interrupt") if in_user else ("interrupt", "interrupt_kernel")
        yield f"cpu {i}: interrupt", partial(m.push, told, i, kind, program)
    if s.nmis > 0 and not any(f.kind == "nmi" for f in cpu.frames):
        fewer = s._replace(nmis=s.nmis - 1)
        yield f"cpu {i}: nmi", partial(m.push, fewer, i, "nmi", "nmi_user" if in_user else "nmi")


def _kernel_code(m: Machine, s: State, i: int) -> State:
    m.zone(s, i, "Kernel")
    return s


def _steps(m: Machine, s: State, i: int) -> Iterator[tuple[str, _Make]]:
    """Yield the ways the op at the top frame may execute: none if it has to wait, several for a loop."""
    cpu = s.cpus[i]
    f = cpu.frames[-1]
    name, arg = named(m.ops[f.pc])
    label = f"cpu {i}: {f.pc} {name}"
    if name == "Each":
        left = m.members(arg["of"], s, i, f) - f.visited
        if not left:
            yield label, partial(m.jump, s, i, f._replace(cur=-1, visited=frozenset()), arg["done"])
        for who in sorted(left):
            visit = f._replace(cur=who, visited=f.visited | {who})
            yield f"{label} {who}", partial(m.jump, s, i, visit, f.pc + 1)
        return
    if m.asids > 1 and m.roles[i].user and (name, arg) == ("Body", "Syscall") and not cpu.buffer:
        yield f"cpu {i}: switch", partial(m.switch, s, i)
    if not m.blocked(s, i, f, name, arg):
        yield label, partial(m.execute, s, i)
