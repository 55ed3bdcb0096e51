"""The slow, obvious twin of the checker: one page, x86-TSO, plain breadth-first search over tuples.

It shares the assembled ops with the fast checker and nothing else, so that an error in either shows as a
disagreement. Rules by number: SEMANTICS. Scope: CPU 0 keeps house and runs one initiator program; the others
are isolated, return to user mode first, and enter the kernel at most `entries` times; PTI on, one ASID, one
vmalloc page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tlbcore.policy import Policy, as_policy

__all__ = ["Exploration", "explore"]

Danger = Literal["none", "recycled"]
_NO_PC = -1
_PAGE = "page"  # the PTE as an address in a store buffer


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What a search found.

    `status` is `verified` (within these bounds), `violated`, or `inconclusive`: a value outgrew its variable, or
    there are more than `limit` states. `states` counts distinct states, `steps` is the length of the shortest
    violation or -1, `violation` its rule, `schedule` the actions that lead there.
    """

    status: Literal["verified", "violated", "inconclusive"]
    states: int
    steps: int
    violation: str
    schedule: tuple[str, ...]


class _Frame(NamedTuple):
    kind: str  # task, syscall, interrupt, nmi
    pc: int
    ret: int
    cur: int
    left: frozenset[int]  # CPUs the loop has not visited
    targets: frozenset[int]
    regs: tuple[int, ...]
    irq: bool  # IF


class _Cpu(NamedTuple):
    frames: tuple[_Frame, ...]  # empty: user mode
    kernel_cr3: bool
    kernel_gs: bool
    tlb: int  # cached version, 0 for none
    buffer: tuple[tuple[Any, int, int], ...]  # (address, mask, value), oldest first
    queue: tuple[int, ...]  # programs to run, oldest first
    waits: int  # remote calls not acknowledged
    entries: int


class _State(NamedTuple):
    cpus: tuple[_Cpu, ...]
    memory: tuple[int, ...]
    pte: int
    next_version: int
    asked: frozenset[int]
    dead: frozenset[int]
    nmis: int


class _Violation(Exception):  # noqa: N818  (a verdict, not an error)
    pass


class _Overflow(Exception):  # noqa: N818
    pass


def explore(
    policy: str | Policy,
    *,
    cpus: int = 2,
    entries: int = 2,
    nmis: int = 0,
    danger: Danger = "none",
    nmi: Danger = "none",
    invpcid_publishes: bool = False,
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
    danger, nmi
        What code between the CR3 switch and the flush, and NMI bodies, may touch (SEMANTICS A2).
    invpcid_publishes
        Whether INVPCID makes earlier stores visible (SEMANTICS H4).
    initiator
        The program CPU 0 runs.
    limit
        States after which the search gives up.

    Raises
    ------
    PolicyError
        If the policy does not parse or assemble.
    """
    code = as_policy(policy).code()
    return _Explorer(code, cpus, entries, nmis, danger, nmi, invpcid_publishes, initiator).run(limit)


class _Explorer:
    def __init__(
        self,
        code: dict[str, Any],
        cpus: int,
        entries: int,
        nmis: int,
        danger: Danger,
        nmi: Danger,
        invpcid_publishes: bool,
        initiator: str,
    ) -> None:
        self.ops = code["ops"]
        self.vars = code["vars"]
        self.fields = code["fields"]
        self.programs = {p["name"]: p["start"] for p in code["programs"]}
        self.starts = [p["start"] for p in code["programs"]]
        self.count = cpus
        self.danger, self.nmi = danger, nmi
        self.invpcid_publishes = invpcid_publishes
        self.first_entries, self.first_nmis, self.initiator = entries, nmis, initiator

    # -- the search ------------------------------------------------------------------------------------------

    def run(self, limit: int) -> Exploration:
        start = self.first()
        parents: dict[_State, tuple[_State, str] | None] = {start: None}
        before: dict[_State, list[_State]] = {start: []}
        queue = deque([start])
        while queue:
            state = queue.popleft()
            stuck = True
            for action, make in self.actions(state):
                stuck = False
                try:
                    successor = make()
                except _Violation as found:
                    return self.violated(str(found), parents, [*self.path(parents, state), action])
                except _Overflow:
                    return self.clean("inconclusive", parents)
                if successor not in parents:
                    parents[successor] = (state, action)
                    before[successor] = []
                    queue.append(successor)
                if action.split()[2] not in ("fill", "nmi"):  # nothing says that these ever happen
                    before[successor].append(state)
            if stuck and state.cpus[0].frames:  # S11: the initiator waits for ever
                return self.violated("deadlock", parents, self.path(parents, state))
            if len(parents) > limit:
                return self.clean("inconclusive", parents)
        return self.unending(parents, before) or self.clean("verified", parents)

    def unending(self, parents: dict[_State, Any], before: dict[_State, list[_State]]) -> Exploration | None:
        """Return the first state from which no run ends (S11: a loop that nothing leaves), as a violation."""
        ends = {state for state in parents if not any(cpu.frames for cpu in state.cpus)}
        queue = deque(ends)
        while queue:
            for state in before[queue.popleft()]:
                if state not in ends:
                    ends.add(state)
                    queue.append(state)
        for state in parents:
            if state not in ends:
                return self.violated("livelock", parents, self.path(parents, state))
        return None

    def violated(self, rule: str, parents: dict[_State, Any], path: list[str]) -> Exploration:
        return Exploration(
            status="violated", states=len(parents), steps=len(path), violation=rule, schedule=tuple(path)
        )

    def clean(self, status: Literal["verified", "inconclusive"], parents: dict[_State, Any]) -> Exploration:
        return Exploration(status=status, states=len(parents), steps=-1, violation="", schedule=())

    def path(self, parents: dict[_State, tuple[_State, str] | None], state: _State) -> list[str]:
        out = []
        step = parents[state]
        while step is not None:
            out.append(step[1])
            step = parents[step[0]]
        return out[::-1]

    def first(self) -> _State:
        def cpu(who: int) -> _Cpu:
            program, irq = (self.initiator, True) if who == 0 else ("enter_user", False)
            return _Cpu((self.frame("task", program, irq),), True, True, 0, (), (), 0, self.first_entries)

        memory = tuple(v["init"] for v in self.vars for _ in range(self.count if v["per_cpu"] else 1))
        return _State(
            tuple(cpu(i) for i in range(self.count)), memory, 1, 2, frozenset(), frozenset(), self.first_nmis
        )

    def frame(self, kind: str, program: str, irq: bool) -> _Frame:
        return _Frame(kind, self.programs[program], _NO_PC, -1, frozenset(), frozenset(), (0,) * 6, irq)

    # -- everything nondeterministic -------------------------------------------------------------------------

    def actions(self, s: _State) -> Iterator[tuple[str, Any]]:
        for i, cpu in enumerate(s.cpus):
            if cpu.buffer:
                yield f"cpu {i}: drain", lambda i=i: self.drain(s, i)
            if cpu.kernel_cr3 and cpu.tlb == 0 and s.pte != 0:
                yield f"cpu {i}: fill", lambda i=i, cpu=cpu: self.with_cpu(s, i, cpu._replace(tlb=s.pte))
            in_nmi = any(f.kind == "nmi" for f in cpu.frames)
            can_nmi = s.nmis > 0 and not in_nmi and i != 0
            fewer = s._replace(nmis=s.nmis - 1)
            if not cpu.frames:
                if i == 0:  # the initiator is back in ordinary kernel code
                    yield "cpu 0: kernel code", lambda: self.kernel_code(s)
                    continue
                if cpu.entries > 0:
                    once_less = cpu._replace(entries=cpu.entries - 1)
                    yield f"cpu {i}: syscall", self.enter(s, i, once_less, "syscall", "syscall")
                if cpu.queue:
                    yield f"cpu {i}: interrupt", self.enter(s, i, cpu, "interrupt", "interrupt")
                if can_nmi:
                    yield f"cpu {i}: nmi", self.enter(fewer, i, cpu, "nmi", "nmi_user")
                continue
            if cpu.queue and cpu.frames[-1].irq and not in_nmi:
                yield f"cpu {i}: interrupt", self.enter(s, i, cpu, "interrupt", "interrupt_kernel")
            if can_nmi:
                yield f"cpu {i}: nmi", self.enter(fewer, i, cpu, "nmi", "nmi")
            yield from self.steps(s, i)

    def kernel_code(self, s: _State) -> _State:
        self.touch(s, 0, "Touch", {"Zone": "Kernel"})
        return s

    def enter(self, s: _State, i: int, cpu: _Cpu, kind: str, program: str) -> Callable[[], _State]:
        return lambda: self.push(s, i, cpu, kind, program)

    def push(self, s: _State, i: int, cpu: _Cpu, kind: str, program: str) -> _State:
        return self.with_cpu(s, i, cpu._replace(frames=(*cpu.frames, self.frame(kind, program, False))))

    def with_cpu(self, s: _State, i: int, cpu: _Cpu) -> _State:
        return s._replace(cpus=(*s.cpus[:i], cpu, *s.cpus[i + 1 :]))

    def drain(self, s: _State, i: int) -> _State:
        cpu = s.cpus[i]
        (address, mask, value), rest = cpu.buffer[0], cpu.buffer[1:]
        s = self.with_cpu(s, i, cpu._replace(buffer=rest))
        if address == _PAGE:
            return s._replace(pte=value)
        memory = list(s.memory)
        memory[address] = (memory[address] & ~mask) | value
        return s._replace(memory=tuple(memory))

    # -- one op ----------------------------------------------------------------------------------------------

    def address(self, place: dict[str, Any], i: int, cur: int) -> tuple[int, int, int]:
        """Return (index into memory, mask, shift) of a field's copy."""
        field = self.fields[place["field"]]
        at = 0
        for v in self.vars[: field["var"]]:
            at += self.count if v["per_cpu"] else 1
        who = {"Me": i, "Cur": cur, "Shared": 0}[place["at"]]
        return at + who, ((1 << field["bits"]) - 1) << field["shift"], field["shift"]

    def read(self, s: _State, i: int, place: dict[str, Any], cur: int) -> int:
        self.mapped(s, i, place)
        address, mask, shift = self.address(place, i, cur)
        value = s.memory[address]
        for where, part, v in s.cpus[i].buffer:  # own stores are seen, newest last
            if where == address:
                value = (value & ~part) | v
        return (value & mask) >> shift

    def mapped(self, s: _State, i: int, place: dict[str, Any]) -> None:
        if place["at"] == "Shared" and self.vars[self.fields[place["field"]]["var"]]["user_mapped"]:
            return
        if not s.cpus[i].kernel_cr3 and not self.vars[self.fields[place["field"]]["var"]]["user_mapped"]:
            raise _Violation("unmapped_access")

    def fits(self, place: dict[str, Any], value: int) -> None:
        if value < 0 or value >= 1 << self.fields[place["field"]]["bits"]:
            raise _Overflow

    def members(self, name: str, i: int, frame: _Frame) -> frozenset[int]:
        every = frozenset(range(self.count))
        return {
            "Online": every,
            "Others": every - {i},
            "Housekeeping": frozenset({0}),
            "NohzFull": every - {0},
            "FlushMask": every - {0},
            "Targets": frame.targets,
        }[name]

    def steps(self, s: _State, i: int) -> Iterator[tuple[str, Any]]:
        """Yield the ways the op at the top frame may execute: none if it has to wait, several for a loop."""
        cpu = s.cpus[i]
        f = cpu.frames[-1]
        op = self.ops[f.pc]
        name, arg = _named(op)
        label = f"cpu {i}: {f.pc} {name}"
        if cpu.buffer and self.publishes(name, arg):
            return
        if name == "Each":
            if not f.left:
                yield label, lambda: self.jump(s, i, f._replace(cur=-1), arg["done"])
            for who in sorted(f.left):
                yield (
                    f"{label} {who}",
                    lambda who=who: self.jump(s, i, f._replace(cur=who, left=f.left - {who}), f.pc + 1),
                )
            return
        if name == "AwaitAcks" and cpu.waits:
            return
        if name == "Await":
            try:
                if not _compare(arg["f"], self.read(s, i, arg["at"], f.cur), self.value(f, arg["v"])):
                    return
            except _Violation:
                pass  # executes, and is found again
        yield label, lambda: self.execute(s, i, name, arg)

    def publishes(self, name: str, arg: Any) -> bool:
        """SEMANTICS H4 (a): the op waits until earlier stores are visible."""
        if name in ("Rmw", "Cas", "MovCr3", "MovCr4Pge", "Invlpg", "Ipi", "Rar", "Tlbsync"):
            return True
        if name == "Fence":
            return bool(arg != "Load")
        if name == "Pte":
            return bool(arg["locked"])
        return self.invpcid_publishes and name in ("Invpcid", "Invlpgb", "InvlpgbAll")

    def value(self, f: _Frame, v: dict[str, int]) -> int:
        return v["Imm"] if "Imm" in v else f.regs[v["Reg"]]

    def jump(self, s: _State, i: int, f: _Frame, pc: int) -> _State:
        cpu = s.cpus[i]
        return self.with_cpu(s, i, cpu._replace(frames=(*cpu.frames[:-1], f._replace(pc=pc))))

    def set(self, f: _Frame, reg: int, value: int) -> _Frame:
        return f._replace(regs=(*f.regs[:reg], value, *f.regs[reg + 1 :]))

    def store(self, s: _State, i: int, place: dict[str, Any], cur: int, value: int) -> _State:
        self.mapped(s, i, place)
        self.fits(place, value)
        address, mask, shift = self.address(place, i, cur)
        cpu = s.cpus[i]
        return self.with_cpu(s, i, cpu._replace(buffer=(*cpu.buffer, (address, mask, value << shift))))

    def swap(self, s: _State, i: int, place: dict[str, Any], cur: int, value: int) -> _State:
        self.fits(place, value)
        address, mask, shift = self.address(place, i, cur)
        memory = list(s.memory)
        memory[address] = (memory[address] & ~mask) | value << shift
        return s._replace(memory=tuple(memory))

    def execute(self, s: _State, i: int, name: str, arg: Any) -> _State:
        cpu = s.cpus[i]
        f = cpu.frames[-1]
        pc = f.pc + 1
        match name:
            case "Move":
                f = self.set(f, arg["to"], self.value(f, arg["v"]))
            case "Alu":
                a, b = f.regs[arg["a"]], self.value(f, arg["b"])
                f = self.set(
                    f,
                    arg["to"],
                    {"Add": a + b, "Sub": a - b, "And": a & b, "Or": a | b, "Xor": a ^ b}[arg["f"]],
                )
            case "Load":
                f = self.set(f, arg["to"], self.read(s, i, arg["from"], f.cur))
            case "Store":
                s = self.store(s, i, arg["to"], f.cur, self.value(f, arg["v"]))
            case "Rmw":
                old, b = self.read(s, i, arg["at"], f.cur), self.value(f, arg["v"])
                new = {"Xchg": b, "Add": old + b, "Or": old | b, "And": old & b}[arg["f"]]
                s = self.swap(s, i, arg["at"], f.cur, new)
                f = self.set(f, arg["to"], old)
            case "Cas":
                old = self.read(s, i, arg["at"], f.cur)
                if old == self.value(f, arg["old"]):
                    s = self.swap(s, i, arg["at"], f.cur, self.value(f, arg["new"]))
                f = self.set(f, arg["to"], old)
            case "Unless":
                if not self.holds(s, i, f, arg["c"]):
                    pc = arg["to"]
            case "Jump":
                pc = arg
            case "Loop":
                f = f._replace(left=self.members(arg, i, f))
            case "Clear":
                f = f._replace(targets=frozenset())
            case "Put":
                f = f._replace(targets=f.targets | {f.cur})
            case "Await":
                self.read(s, i, arg["at"], f.cur)
            case "Irq":
                f = f._replace(irq=arg)
            case "SwapGs" | "SetGs" | "ReadGs" | "ReadCr3":
                s, f = self.register(s, i, f, name, arg)
            case "MovCr3":
                s = self.mov_cr3(s, i, f, arg)
            case "MovCr4Pge" | "Invlpg" | "Invpcid":
                s = self.with_cpu(s, i, cpu._replace(tlb=0))
            case "Tlbsync":  # the latest moment a broadcast may complete
                s = s._replace(cpus=tuple(c._replace(tlb=0) for c in s.cpus))
            case "Rar":
                told = self.members(arg, i, f)
                cpus = (c._replace(tlb=0) if who in told else c for who, c in enumerate(s.cpus))
                s = s._replace(cpus=tuple(cpus))
            case "Touch" | "Body":
                self.touch(s, i, name, arg)
            case "Pte":
                s = self.pte(s, i, arg)
            case "Request":
                s = s._replace(asked=self.overwritten(s, i))
            case "Promise":
                s = s._replace(dead=s.dead | s.asked)
            case "Ipi":
                s = self.ipi(s, i, f, arg)
            case "HandleCalls":
                if cpu.queue:
                    run, rest = cpu.queue[0], cpu.queue[1:]
                    s = self.with_cpu(s, i, cpu._replace(queue=rest))
                    return self.jump(s, i, f._replace(ret=f.pc), self.starts[run])
            case "Return":
                return self.leave(s, i, f)
            case "AwaitAcks" | "Fence" | "OweUser" | "OweOthers" | "Invlpgb" | "InvlpgbAll":
                pass
            case _:
                raise NotImplementedError(name)
        return self.jump(s, i, f, pc)

    def overwritten(self, s: _State, i: int) -> frozenset[int]:
        """Return what a flush called now covers (S2): what own and visible stores have replaced."""
        current, waiting = s.pte, set()
        for who, cpu in enumerate(s.cpus):
            for address, _, version in cpu.buffer:
                if address == _PAGE:
                    waiting.add(version)
                    current = version if who == i else current
        return frozenset(v for v in range(1, s.next_version) if v != current and v not in waiting)

    def register(self, s: _State, i: int, f: _Frame, name: str, arg: Any) -> tuple[_State, _Frame]:
        cpu = s.cpus[i]
        if name == "SwapGs":
            s = self.with_cpu(s, i, cpu._replace(kernel_gs=not cpu.kernel_gs))
        elif name == "SetGs":
            s = self.with_cpu(s, i, cpu._replace(kernel_gs=bool(self.value(f, arg))))
        elif name == "ReadGs":
            f = self.set(f, arg, int(cpu.kernel_gs))
        else:
            f = self.set(f, arg, int(cpu.kernel_cr3))
        return s, f

    def mov_cr3(self, s: _State, i: int, f: _Frame, arg: Any) -> _State:
        to = arg["to"]
        kernel = {"Kernel": True, "User": False}[to] if isinstance(to, str) else bool(f.regs[to["Reg"]])
        cpu = s.cpus[i]
        # Without NOFLUSH the *new* PCID's translations go; the page is cached under the kernel PCID only.
        tlb = 0 if kernel and arg["keep"] == "Flush" else cpu.tlb
        return self.with_cpu(s, i, cpu._replace(kernel_cr3=kernel, tlb=tlb))

    def touch(self, s: _State, i: int, name: str, arg: Any) -> None:
        cpu = s.cpus[i]
        zone = (
            {"Syscall": "Kernel", "Interrupt": "Kernel", "Idle": "Kernel", "Nmi": "Entry"}[arg]
            if name == "Body"
            else arg["Zone"]
        )
        if zone in ("Stack", "Kernel", "Danger", "Nmi") and not cpu.kernel_cr3:
            raise _Violation("unmapped_access")
        recycled = (
            zone == "Kernel"
            or (zone == "Danger" and self.danger == "recycled")
            or (zone == "Nmi" and self.nmi == "recycled")
        )
        if recycled and cpu.tlb in s.dead:
            raise _Violation("stale_access")

    def pte(self, s: _State, i: int, arg: Any) -> _State:
        if arg["v"] == "None":
            version = 0
        else:
            version = s.next_version
            s = s._replace(next_version=version + 1)
        if arg["locked"]:
            return s._replace(pte=version)
        cpu = s.cpus[i]
        return self.with_cpu(s, i, cpu._replace(buffer=(*cpu.buffer, (_PAGE, 0, version))))

    def ipi(self, s: _State, i: int, f: _Frame, arg: Any) -> _State:
        targets = self.members(arg["to"], i, f) - {i}
        cpus = [
            c._replace(queue=(*c.queue, arg["run"])) if who in targets else c for who, c in enumerate(s.cpus)
        ]
        cpus[i] = cpus[i]._replace(waits=cpus[i].waits + len(targets))
        return s._replace(cpus=tuple(cpus))

    def leave(self, s: _State, i: int, f: _Frame) -> _State:
        cpu = s.cpus[i]
        if f.ret != _NO_PC:  # a remote call is done; only CPU 0 sends any
            s = self.jump(s, i, f._replace(ret=_NO_PC), f.ret)
            sender = s.cpus[0]
            return self.with_cpu(s, 0, sender._replace(waits=sender.waits - 1))
        if i == 0 and len(cpu.frames) == 1:  # the initiator is done, and stays in the kernel
            return self.with_cpu(s, i, cpu._replace(frames=()))
        return self.with_cpu(s, i, cpu._replace(frames=cpu.frames[:-1]))

    def holds(self, s: _State, i: int, f: _Frame, c: Any) -> bool:
        if isinstance(c, str):
            return {"CurIsMe": f.cur == i, "Cr3User": not s.cpus[i].kernel_cr3, "RangeFull": True}[c]
        kind, arg = next(iter(c.items()))
        if kind == "Cmp":
            cmp, a, b = arg
            return _compare(cmp, f.regs[a], self.value(f, b))
        if kind == "RegUser":
            return bool(f.regs[arg] == 0)
        members = self.members(arg, i, f)
        return bool({"MeIn": i in members, "CurIn": f.cur in members, "Empty": not members}[kind])


def _named(op: Any) -> tuple[str, Any]:
    return (op, None) if isinstance(op, str) else next(iter(op.items()))


def _compare(cmp: str, a: int, b: int) -> bool:
    return {"Eq": a == b, "Ne": a != b, "Lt": a < b, "Ge": a >= b, "Test": a & b != 0}[cmp]
