"""The machine of the slow explorer: what one op, and one event of the hardware, does to a state of plain tuples.

Rules by number: SEMANTICS. Store buffers hold (address, mask, value); the address of a variable's copy is a number,
those of the tracked PTE, of the parts of patched text and of an acknowledgement are names. One page is tracked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

__all__ = ["Assume", "Cpu", "Frame", "Machine", "Overflow", "Role", "State", "Violation"]

Danger = Literal["none", "recycled"]
Text = Literal["instr", "danger", "noinstr"]

_NO_PC = -1
_INIT_MM, _NO_MM = 0, 1
_PAGE = "page"
_PARTS = ("Head", "Tail")
# Programs that the hardware starts, and that end in IRET; SYSRET and the return of a function publish nothing (H4).
_IRET = (
    "exception",
    "exception_espfix",
    "exception_bad_iret",
    "interrupt",
    "interrupt_kernel",
    "interrupt_idle",
    "nmi",
    "nmi_user",
)

Tag = tuple[int, bool] | None  # ASID and user half; None for global entries
Opcode = tuple[bool, int]  # is it an INT3, and which instruction is it or does it stand before


@dataclass(frozen=True, kw_only=True)
class Role:
    """What one CPU runs: `first`, then `left` times `again`, from user mode or from the kernel."""

    first: str
    again: str
    left: int
    user: bool
    isolated: bool


@dataclass(frozen=True, kw_only=True)
class Assume:
    """Assumptions, by the names of `check` (SEMANTICS A2, H4)."""

    danger: Danger = "none"
    nmi: Danger = "none"
    text: Text = "instr"
    invpcid_publishes: bool = False
    ranged: bool = False


class Frame(NamedTuple):
    """One activation of a program."""

    kind: str  # task, interrupt, nmi
    iret: bool
    pc: int
    ret: int
    cur: int
    visited: frozenset[int]
    targets: frozenset[int]
    regs: tuple[int, ...]
    irq: bool  # IF


class Cpu(NamedTuple):
    """One CPU."""

    frames: tuple[Frame, ...]  # empty: at rest
    user: bool  # half of the loaded table
    asid: int
    mm: int
    kernel_gs: bool
    tlb: frozenset[tuple[Tag, int]]
    fetched: tuple[Opcode | None, Opcode | None]  # head and tail
    buffer: tuple[tuple[Any, int, Any], ...]  # (address, mask, value), oldest first
    queue: tuple[tuple[int, int], ...]  # (program, sender), oldest first
    irq: bool
    serving: int
    waits: frozenset[int]
    left: int
    covers: frozenset[int]
    covers_text: tuple[frozenset[Opcode], ...]
    owes: frozenset[int]
    owes_others: bool
    contexts: tuple[int, ...]
    next_asid: int
    info: tuple[int, int]
    broadcast: bool


class State(NamedTuple):
    """Everything."""

    cpus: tuple[Cpu, ...]
    memory: tuple[int, ...]
    pte: int  # version, 0 for not present
    next_version: int
    dead: frozenset[int]
    text: tuple[Opcode, Opcode]
    dead_text: tuple[frozenset[Opcode], ...]
    masks: tuple[frozenset[int], ...]  # mm_cpumask
    freed: frozenset[int]
    nmis: int


class Violation(Exception):  # noqa: N818  (a verdict, not an error)
    """A rule is broken."""


class Overflow(Exception):  # noqa: N818
    """A value outgrew its variable: no verdict."""


class Machine:
    """What never changes, and the ops."""

    def __init__(
        self, code: dict[str, Any], roles: tuple[Role, ...], assume: Assume, asids: int, nmis: int
    ) -> None:
        self.ops = code["ops"]
        self.vars = code["vars"]
        self.fields = code["fields"]
        self.programs = {p["name"]: (p["start"], p["end"]) for p in code["programs"]}
        self.starts = [p["start"] for p in code["programs"]]
        self.roles, self.assume, self.asids, self.nmis = roles, assume, asids, nmis
        self.handled: frozenset[int] = frozenset()  # CPUs whose faults the question names
        run = [op for role in roles for name in (role.first, role.again) for op in self.ops_of(name)]
        about = [arg["pages"] if name == "Pte" else None for name, arg in map(named, run)]
        self.has_text = any(isinstance(p, dict) and "Text" in p for p in about) or {"Touch": "Text"} in run
        page = self.page(code["pages"])
        rights = any(name == "Pte" and arg["v"] == "LessRights" for name, arg in map(named, run))
        self.kind = "DirectMap" if rights and not code["pages"] else page["kind"]
        self.user_of = page["kind"]["User"] if isinstance(page["kind"], dict) else None
        self.user_mapped, self.is_global, self.present = page["user_mapped"], page["global"], page["present"]
        self.has_page = bool(code["pages"]) or not self.has_text or "Range" in about
        self.mms = 1 + max(2, self.user_of or 0)
        # A search that is about promises and meets none says nothing; the search looks when it is done.
        self.about_promises = any(name in ("Pte", "Request", "Promise") for name, _ in map(named, run))
        self.asked = False
        self.where = {
            key: at
            for at, key in enumerate((v, who) for v in range(len(self.vars)) for who in self.owners(v))
        }

    def page(self, pages: list[dict[str, Any]]) -> dict[str, Any]:
        if len(pages) > 1:
            raise NotImplementedError("more than one page")
        page = (
            pages[0] if pages else {"kind": "Vmalloc", "user_mapped": False, "global": False, "present": True}
        )
        if page["kind"] not in ("Vmalloc", "DirectMap") and not isinstance(page["kind"], dict):
            raise NotImplementedError(f"pages of kind {page['kind']}")
        return page

    def ops_of(self, program: str) -> list[Any]:
        start, end = self.programs[program]
        return list(self.ops[start:end])

    def owners(self, var: int) -> range:
        cpus = len(self.roles)
        many = {"One": 1, "Cpu": cpus, "Mm": self.mms, "Asid": cpus * self.asids}
        return range(many[self.vars[var]["copies"]])

    def first(self) -> State:
        """Every CPU is about to run its first program, with `init_mm` loaded and up to date."""

        def cpu(role: Role) -> Cpu:
            return Cpu(
                frames=(self.frame("task", role.first, irq=not role.user),),
                user=False,
                asid=0,
                mm=_INIT_MM,
                kernel_gs=True,
                tlb=frozenset(),
                fetched=(None, None),
                buffer=(),
                queue=(),
                irq=False,
                serving=-1,
                waits=frozenset(),
                left=role.left,
                covers=frozenset(),
                covers_text=(frozenset(), frozenset()),
                owes=frozenset(),
                owes_others=False,
                contexts=(_INIT_MM, *(_NO_MM,) * (self.asids - 1)),
                next_asid=1,
                info=(_INIT_MM, 0),
                broadcast=False,
            )

        def starts(var: int, who: int) -> int:
            current = self.vars[var]["copies"] == "Asid" and who % self.asids == 0
            return 1 if current and self.vars[var]["holds"] == "Generation" else self.vars[var]["init"]

        return State(
            cpus=tuple(cpu(role) for role in self.roles),
            memory=tuple(starts(var, who) for var, who in self.where),
            pte=int(self.present),
            next_version=2,
            dead=frozenset(),
            text=((False, 0), (False, 0)),
            dead_text=(frozenset(), frozenset()),
            masks=(frozenset(),) * self.mms,
            freed=frozenset(),
            nmis=self.nmis,
        )

    def frame(self, kind: str, program: str, *, irq: bool = False) -> Frame:
        start, _ = self.programs[program]
        nobody: frozenset[int] = frozenset()
        return Frame(kind, program in _IRET, start, _NO_PC, -1, nobody, nobody, (0,) * 6, irq)

    # -- what the hardware does ------------------------------------------------------------------------------

    def with_cpu(self, s: State, i: int, cpu: Cpu) -> State:
        return s._replace(cpus=(*s.cpus[:i], cpu, *s.cpus[i + 1 :]))

    def push(self, s: State, i: int, kind: str, program: str) -> State:
        cpu = s.cpus[i]
        return self.with_cpu(s, i, cpu._replace(frames=(*cpu.frames, self.frame(kind, program))))

    def drain(self, s: State, i: int) -> State:
        cpu = s.cpus[i]
        (address, mask, value), rest = cpu.buffer[0], cpu.buffer[1:]
        return self.commit(self.with_cpu(s, i, cpu._replace(buffer=rest)), i, address, mask, value)

    def commit(self, s: State, i: int, address: Any, mask: int, value: Any) -> State:
        if address == _PAGE:
            return self.map(s, value)
        if address in _PARTS:
            return s._replace(text=_with(s.text, _PARTS.index(address), value))
        if isinstance(address, tuple):  # the acknowledgement of a remote call
            sender = address[1]
            return self.with_cpu(s, sender, s.cpus[sender]._replace(waits=s.cpus[sender].waits - {i}))
        return s._replace(memory=_with(s.memory, address, (s.memory[address] & ~mask) | value))

    def buffered(self, s: State, i: int, address: Any, mask: int, value: Any) -> State:
        cpu = s.cpus[i]
        return self.with_cpu(s, i, cpu._replace(buffer=(*cpu.buffer, (address, mask, value))))

    def tag(self, cpu: Cpu) -> Tag:
        return None if self.is_global else (cpu.asid, cpu.user)

    def maps(self, cpu: Cpu) -> bool:
        """Whether the loaded table has an entry for the page."""
        return (not cpu.user or self.user_mapped) and self.user_of in (None, cpu.mm)

    def cached(self, cpu: Cpu) -> int:
        return next((version for tag, version in cpu.tlb if tag == self.tag(cpu)), 0)

    def can_fill(self, s: State, i: int) -> bool:
        cpu = s.cpus[i]
        return self.has_page and self.maps(cpu) and s.pte != 0 and self.cached(cpu) == 0

    def fill(self, s: State, i: int) -> State:
        """Walk (H2); what walks the table of a freed address space breaks S9."""
        cpu = s.cpus[i]
        if cpu.mm in s.freed:
            raise Violation("freed_mm")
        return self.with_cpu(s, i, cpu._replace(tlb=cpu.tlb | {(self.tag(cpu), s.pte)}))

    def can_fetch(self, s: State, i: int, part: int) -> bool:
        """Kernel text is in the kernel table; entry text is in the user's too (A1)."""
        cpu = s.cpus[i]
        mapped = not cpu.user or self.assume.text == "noinstr"
        return self.has_text and mapped and cpu.fetched[part] is None

    def fetch(self, s: State, i: int, part: int) -> State:
        cpu = s.cpus[i]
        fetched = _with(cpu.fetched, part, s.text[part])
        return self.with_cpu(s, i, cpu._replace(fetched=fetched))

    def switch(self, s: State, i: int) -> State:
        """`switch_mm` to the other ASID: NOFLUSH unless a ranged flush has marked it (FACTS 2.5)."""
        cpu = s.cpus[i]._replace(asid=1 - s.cpus[i].asid, fetched=(None, None))
        if cpu.owes_others:
            cpu = cpu._replace(owes_others=False)
            cpu = self.forget(cpu, lambda tag: tag is not None and tag[0] == cpu.asid)
        return self.with_cpu(s, i, cpu)

    def forget(self, cpu: Cpu, gone: Any) -> Cpu:
        return cpu._replace(tlb=frozenset(entry for entry in cpu.tlb if not gone(entry[0])))

    # -- accesses --------------------------------------------------------------------------------------------

    def uses(self, zone: str) -> bool:
        """Whether code of a zone may use the page (A1, A2)."""
        if self.user_of is not None:
            return zone == "User"
        definite = {"DirectMap": "DirectMap", "Recycled": "Vmalloc", "Image": "Image", "PerCpu": "PerCpu"}
        if zone in definite:
            return bool(self.kind == definite[zone])
        by = {"Kernel": "recycled", "Danger": self.assume.danger, "Nmi": self.assume.nmi}
        return by.get(zone) == "recycled"

    def runs_patched(self, zone: str) -> bool:
        """Whether code of a zone may have been patched (S7; assumption T)."""
        where = {"instr": ("Kernel", "Nmi"), "danger": ("Kernel", "Nmi", "Danger")}
        return zone in where.get(self.assume.text, ("Kernel", "Nmi", "Danger", "Entry"))

    def zone(self, s: State, i: int, zone: str) -> None:
        if s.cpus[i].user and zone not in ("Entry", "User"):
            raise Violation("unmapped_access")
        live = s.pte != 0 and s.pte not in s.dead  # S4: code uses what is allocated
        if self.has_page and self.uses(zone) and live:
            self.access(s, i)
        if self.has_text and self.runs_patched(zone):
            self.run_text(s, i)

    def access(self, s: State, i: int) -> None:
        cpu = s.cpus[i]
        if self.user_of not in (None, cpu.mm):
            raise Violation("wrong_address_space")
        if not self.maps(cpu):
            raise Violation("unmapped_access")
        used = self.cached(cpu)
        if used == 0 and cpu.mm in s.freed:
            raise Violation("freed_mm")
        if (used or s.pte) in s.dead:
            raise Violation("stale_access")

    def faults(self, s: State, i: int) -> bool:
        """S8: whether an access finds no translation."""
        return self.cached(s.cpus[i]) == 0 and s.pte == 0

    def handles(self, i: int) -> bool:
        """S8: whether the column of a CPU may end in a fault: at user memory, or because the question names it."""
        return self.user_of is not None or i in self.handled

    def run_text(self, s: State, i: int) -> None:
        """S7: each part as it was fetched, or as memory has it; without a breakpoint the parts belong together."""
        head, tail = (old or new for old, new in zip(s.cpus[i].fetched, s.text, strict=True))
        torn = head != tail or tail in s.dead_text[1]
        if head in s.dead_text[0] or (not head[0] and torn):
            raise Violation("stale_text")

    # -- memory ----------------------------------------------------------------------------------------------

    def address(self, i: int, f: Frame, place: dict[str, Any]) -> tuple[int, int, int]:
        """Return (index into memory, mask, shift) of a field's copy."""
        field = self.fields[place["field"]]
        at = place["at"]
        if isinstance(at, dict):
            which = f.regs[int(next(iter(at.values()))[1:])]
            who = which if "Mm" in at else i * self.asids + which
        else:
            who = {"Me": i, "Cur": f.cur, "Shared": 0}[at]
        if (field["var"], who) not in self.where:
            raise Overflow
        return self.where[field["var"], who], ((1 << field["bits"]) - 1) << field["shift"], field["shift"]

    def mapped(self, s: State, i: int, place: dict[str, Any]) -> None:
        if s.cpus[i].user and not self.vars[self.fields[place["field"]]["var"]]["user_mapped"]:
            raise Violation("unmapped_access")

    def read(self, s: State, i: int, f: Frame, place: dict[str, Any]) -> int:
        self.mapped(s, i, place)
        address, mask, shift = self.address(i, f, place)
        value = s.memory[address]
        for where, part, v in s.cpus[i].buffer:  # own stores are seen, newest last
            if where == address:
                value = (value & ~part) | v
        return (value & mask) >> shift

    def fits(self, place: dict[str, Any], value: int) -> None:
        if not 0 <= value < 1 << self.fields[place["field"]]["bits"]:
            raise Overflow

    def store(self, s: State, i: int, f: Frame, place: dict[str, Any], value: int) -> State:
        self.mapped(s, i, place)
        self.fits(place, value)
        address, mask, shift = self.address(i, f, place)
        own = isinstance(place["at"], dict) and "Asid" in place["at"]  # nobody else ever reads it
        return (self.commit if own else self.buffered)(s, i, address, mask, value << shift)

    def swap(self, s: State, i: int, f: Frame, place: dict[str, Any], value: int) -> State:
        self.fits(place, value)
        address, mask, shift = self.address(i, f, place)
        return self.commit(s, i, address, mask, value << shift)

    def members(self, name: str, s: State, i: int, f: Frame) -> frozenset[int]:
        every = frozenset(range(len(self.roles)))
        isolated = frozenset(who for who, role in enumerate(self.roles) if role.isolated)
        match name:
            case "Online":
                return every
            case "Others":
                return every - {i}
            case "Housekeeping":
                return every - isolated
            case "NohzFull" | "FlushMask":
                return isolated
            case "Targets":
                return f.targets
            case _:
                return s.masks[s.cpus[i].info[0]] - {i}

    # -- one op ----------------------------------------------------------------------------------------------

    def blocked(self, s: State, i: int, f: Frame, name: str, arg: Any) -> bool:
        """Whether the op waits: for its own stores to be visible (H4), or for what other CPUs do."""
        cpu = s.cpus[i]
        if name == "AwaitAcks":
            return bool(cpu.waits)
        if name == "Await":
            try:
                return not compare(arg["f"], self.read(s, i, f, arg["at"]), self.value(f, arg["v"]))
            except Violation:
                return False  # executes, and is found again
        if name in ("Invpcid", "Invlpgb", "InvlpgbAll") and not self.assume.invpcid_publishes:
            return any(address == _PAGE for address, _, _ in cpu.buffer)  # H4 (b)
        return bool(cpu.buffer) and self.publishes(s, i, f, name, arg)

    def publishes(self, s: State, i: int, f: Frame, name: str, arg: Any) -> bool:
        """H4 (a)."""
        match name:
            case "Rmw" | "Cas" | "MovCr3" | "MovCr4Pge" | "Invlpg" | "Tlbsync" | "Mask":
                return True
            case "Invpcid" | "Invlpgb" | "InvlpgbAll":
                return True
            case "Ipi":  # L3: the queue is LOCKed, if anything is queued
                return bool(self.members(arg["to"], s, i, f))
            case "Rar":
                return bool(self.members(arg, s, i, f))
            case "Fence":
                return bool(arg not in ("Load", "Store"))
            case "Pte":
                return bool(arg["locked"])
            case "Return":
                return f.ret == _NO_PC and f.iret
            case _:
                return False

    def value(self, f: Frame, v: dict[str, int]) -> int:
        return v["Imm"] if "Imm" in v else f.regs[v["Reg"]]

    def jump(self, s: State, i: int, f: Frame, pc: int) -> State:
        cpu = s.cpus[i]
        return self.with_cpu(s, i, cpu._replace(frames=(*cpu.frames[:-1], f._replace(pc=pc))))

    def set(self, f: Frame, reg: int, value: int) -> Frame:
        if value < 0:
            raise Overflow
        return f._replace(regs=_with(f.regs, reg, value))

    def execute(self, s: State, i: int) -> State:
        """Execute the op at the top frame, which does not wait; `Each` is the caller's."""
        cpu = s.cpus[i]
        f = cpu.frames[-1]
        name, arg = named(self.ops[f.pc])
        pc = f.pc + 1
        match name:
            case "Move":
                f = self.set(f, arg["to"], self.value(f, arg["v"]))
            case "MoveWide":
                f = self.set(f, arg["to"], arg["v"])
            case "Alu":
                a, b = f.regs[arg["a"]], self.value(f, arg["b"])
                results = {"Add": a + b, "Sub": a - b, "And": a & b, "Or": a | b, "Xor": a ^ b}
                f = self.set(f, arg["to"], results[arg["f"]])
            case "Load":
                f = self.set(f, arg["to"], self.read(s, i, f, arg["from"]))
            case "Store":
                s = self.store(s, i, f, arg["to"], self.value(f, arg["v"]))
            case "Rmw":
                old, b = self.read(s, i, f, arg["at"]), self.value(f, arg["v"])
                kind, bit = arg["f"], 1 << min(b, 63)
                results = {
                    "Xchg": b,
                    "Add": old + b,
                    "Or": old | b,
                    "And": old & b,
                    "Sub": old - b,
                    "Xor": old ^ b,
                }
                results |= {"Bts": old | bit, "Btr": old & ~bit, "Btc": old ^ bit}
                s = self.swap(s, i, f, arg["at"], results[kind])
                f = self.set(f, arg["to"], int(old & bit != 0) if kind in ("Bts", "Btr", "Btc") else old)
            case "Cas":
                old = self.read(s, i, f, arg["at"])
                if old == self.value(f, arg["old"]):
                    s = self.swap(s, i, f, arg["at"], self.value(f, arg["new"]))
                f = self.set(f, arg["to"], old)
            case "Unless":
                if not self.holds(s, i, f, arg["c"]):
                    pc = arg["to"]
            case "Jump":
                pc = arg
            case "Loop":
                f = f._replace(visited=frozenset())
            case "Clear":
                f = f._replace(targets=frozenset())
            case "Put":
                f = f._replace(targets=f.targets | {f.cur})
            case "Await":
                self.read(s, i, f, arg["at"])
            case "Irq":
                f = f._replace(irq=arg)
            case "SwapGs":
                s = self.with_cpu(s, i, cpu._replace(kernel_gs=not cpu.kernel_gs))
            case "SetGs":
                s = self.with_cpu(s, i, cpu._replace(kernel_gs=bool(self.value(f, arg))))
            case "ReadGs":
                f = self.set(f, arg, int(cpu.kernel_gs))
            case "ReadCr3":
                f = self.set(f, arg, int(cpu.user) + 2 * cpu.asid + 4 * cpu.mm)
            case "MovCr3":
                s = self.mov_cr3(s, i, f, arg)
            case "Fence":
                if arg == "Serialize":
                    s = self.with_cpu(s, i, cpu._replace(fetched=(None, None)))
            case "MovCr4Pge" | "Invlpg" | "Invpcid":
                s = self.with_cpu(s, i, self.invalidate(cpu, name, arg))
            case "Invlpgb" | "InvlpgbAll":
                s = self.with_cpu(s, i, cpu._replace(broadcast=True))
            case "Tlbsync":  # the latest moment a broadcast may complete
                if cpu.broadcast:
                    s = self.with_cpu(s, i, cpu._replace(broadcast=False))
                    s = s._replace(cpus=tuple(self.forget(c, lambda _: True) for c in s.cpus))
            case "Rar":
                told = self.members(arg, s, i, f)
                cpus = (self.forget(c, lambda _: True) if who in told else c for who, c in enumerate(s.cpus))
                s = s._replace(cpus=tuple(cpus))
            case "Touch" | "Body":
                self.touch(s, i, name, arg)
                if (
                    name == "Touch"
                    and isinstance(arg, dict)
                    and arg.keys() & {"Read", "Write"}
                    and self.faults(s, i)
                ):
                    if len(cpu.frames) == 1 and f.kind == "task" and self.handles(i):  # its column ends
                        return self.with_cpu(
                            s, i, cpu._replace(frames=(), user=False, kernel_gs=True, left=0)
                        )
                    if self.user_of is None:
                        raise Violation("unmapped_access")
            case "Pte":
                s = self.pte(s, i, arg)
            case "Request":
                s = self.request(s, i, arg)
            case "Promise":
                s = self.promise(s, i, arg)
            case "Ipi":
                s = self.ipi(s, i, f, arg)
            case "HandleCalls":
                if cpu.queue:
                    (run, sender), rest = cpu.queue[0], cpu.queue[1:]
                    s = self.with_cpu(s, i, cpu._replace(queue=rest, serving=sender))
                    return self.jump(s, i, f._replace(ret=f.pc), self.starts[run])
            case "OweUser":
                s = self.with_cpu(s, i, cpu._replace(owes=cpu.owes | {cpu.asid}))
            case "OweOthers":
                s = self.with_cpu(s, i, cpu._replace(owes_others=True))
            case "Ask":
                s, answer = self.ask(s, i, f, arg["what"])
                f = self.set(f, arg["to"], answer)
            case "FlushInfo":
                info = (self.value(f, arg["mm"]), self.value(f, arg["generation"]))
                s = self.with_cpu(s, i, cpu._replace(info=info))
            case "Mask":
                s = self.mask(s, i, self.value(f, arg["mm"]), arg["on"])
            case "FreeMm":
                s = s._replace(freed=s.freed | {arg})
            case "Return":
                return self.leave(s, i, f)
            case "AwaitAcks":
                pass
            case _:
                raise NotImplementedError(name)
        return self.jump(s, i, f, pc)

    def mov_cr3(self, s: State, i: int, f: Frame, arg: Any) -> State:
        cpu = s.cpus[i]
        to = arg["to"]
        if isinstance(to, str):
            user, asid, mm = to == "User", cpu.asid, cpu.mm
        elif "Reg" in to:
            word = f.regs[to["Reg"]]
            user, asid, mm = bool(word & 1), word >> 1 & 1, word >> 2
        else:
            user, asid, mm = False, self.value(f, to["Mm"]["asid"]), self.value(f, to["Mm"]["mm"])
        if mm in s.freed:
            raise Violation("freed_mm")
        owed = arg["keep"] == "Owed" and user and asid in cpu.owes  # the mask is about user PCIDs
        cpu = cpu._replace(user=user, asid=asid, mm=mm, fetched=(None, None))
        if owed:
            cpu = cpu._replace(owes=cpu.owes - {asid})
        if owed or arg["keep"] == "Flush":  # the *new* PCID's translations go, not the global ones
            cpu = self.forget(cpu, lambda tag: tag == (asid, user))
        return self.with_cpu(s, i, cpu)

    def invalidate(self, cpu: Cpu, name: str, arg: Any) -> Cpu:
        """H3, FACTS 2.8."""
        if name == "MovCr4Pge":
            return self.forget(cpu, lambda _: True)._replace(fetched=(None, None))
        if name == "Invlpg":
            return self.forget(cpu, lambda tag: tag in (None, (cpu.asid, cpu.user)))._replace(
                fetched=(None, None)
            )
        if arg["kind"] == "AllGlobal":
            return self.forget(cpu, lambda _: True)
        if arg["kind"] == "All":
            return self.forget(cpu, lambda tag: tag is not None)
        return self.forget(cpu, lambda tag: tag == (cpu.asid, arg["pcid"] == "User"))

    def touch(self, s: State, i: int, name: str, arg: Any) -> None:
        bodies = {"Syscall": "Kernel", "Interrupt": "Kernel", "Idle": "Danger", "Nmi": "Nmi"}
        if name == "Body":
            self.zone(s, i, bodies[arg])
        elif arg == "Text":
            self.run_text(s, i)
        elif "Zone" in arg:
            self.zone(s, i, arg["Zone"])
        else:
            self.access(s, i)

    def pte(self, s: State, i: int, arg: Any) -> State:
        if arg["level"] != "Leaf":
            raise NotImplementedError("upper levels")
        part = _part(arg["pages"])
        if part is not None:
            seen = self.own_text(s, i, part)
            value = (True, seen[1]) if arg["v"] == "Int3" else (False, seen[1] + 1)
            return self.buffered(s, i, _PARTS[part], 0, value)
        version = 0
        if arg["v"] != "None":
            version = s.next_version
            s = s._replace(next_version=version + 1)
        return self.map(s, version) if arg["locked"] else self.buffered(s, i, _PAGE, 0, version)

    def map(self, s: State, version: int) -> State:
        """S3: where an address of vmalloc is mapped again, it was handed on: what it mapped before is dead."""
        if version and not s.pte and self.kind == "Vmalloc" and self.present:
            self.asked = True
            waiting = {v for cpu in s.cpus for address, _, v in cpu.buffer if address == _PAGE}
            s = s._replace(dead=s.dead | frozenset(range(1, s.next_version)) - waiting - {version})
        return s._replace(pte=version)

    def own_text(self, s: State, i: int, part: int) -> Opcode:
        """Return a part of the text as this CPU's stores leave it."""
        own = [value for address, _, value in s.cpus[i].buffer if address == _PARTS[part]]
        return own[-1] if own else s.text[part]

    def request(self, s: State, i: int, arg: Any) -> State:
        """S2: the flush covers what own and visible stores have replaced."""
        cpu = s.cpus[i]
        part = _part(arg)
        if part is not None:
            int3, number = self.own_text(s, i, part)
            older = {(kind, n) for n in range(number) for kind in (False, True)}
            covers = frozenset(older | ({(False, number)} if int3 else set()))
            return self.with_cpu(s, i, cpu._replace(covers_text=_with(cpu.covers_text, part, covers)))
        current, waiting = s.pte, set()
        for who, other in enumerate(s.cpus):
            for address, _, version in other.buffer:
                if address == _PAGE:
                    waiting.add(version)
                    current = version if who == i else current
        replaced = frozenset(v for v in range(1, s.next_version) if v != current and v not in waiting)
        return self.with_cpu(s, i, cpu._replace(covers=replaced))

    def promise(self, s: State, i: int, arg: Any) -> State:
        cpu = s.cpus[i]
        part = _part(arg)
        if part is not None:
            self.asked = True
            dead = _with(s.dead_text, part, s.dead_text[part] | cpu.covers_text[part])
            return s._replace(dead_text=dead)
        self.asked = True
        return s._replace(dead=s.dead | cpu.covers)

    def ipi(self, s: State, i: int, f: Frame, arg: Any) -> State:
        targets = self.members(arg["to"], s, i, f)
        cpus = [
            c._replace(queue=(*c.queue, (arg["run"], i)), irq=c.irq or not c.queue) if who in targets else c
            for who, c in enumerate(s.cpus)
        ]
        cpus[i] = cpus[i]._replace(waits=cpus[i].waits | targets)
        return s._replace(cpus=tuple(cpus))

    def ask(self, s: State, i: int, f: Frame, what: Any) -> tuple[State, int]:
        cpu = s.cpus[i]
        match what:
            case "NextMm":  # in turn: a kernel thread, then each process
                return s, {_INIT_MM: 2}.get(cpu.mm, cpu.mm + 1 if cpu.mm + 1 < self.mms else _INIT_MM)
            case "FlushMm":
                return s, self.user_of or 2
            case "InfoMm" | "InfoGen":
                sender = s.cpus[cpu.serving if cpu.serving >= 0 else i]
                return s, sender.info[what == "InfoGen"]
            case "LoadedAsid":
                return s, cpu.asid
            case _:
                return self.choose_asid(s, i, self.value(f, what["AsidFor"]))

    def choose_asid(self, s: State, i: int, mm: int) -> tuple[State, int]:
        """`choose_new_asid` (FACTS 2.3): the slot that holds the address space, or the next one in turn."""
        cpu = s.cpus[i]
        if cpu.owes_others:  # clear_asid_other
            contexts = tuple(held if asid == cpu.asid else _NO_MM for asid, held in enumerate(cpu.contexts))
            cpu = cpu._replace(owes_others=False, contexts=contexts)
        if mm in cpu.contexts:
            return self.with_cpu(s, i, cpu), cpu.contexts.index(mm)
        asid = cpu.next_asid if cpu.next_asid < self.asids else 0
        cpu = cpu._replace(next_asid=asid + 1, contexts=_with(cpu.contexts, asid, mm))
        memory = s.memory
        for (var, who), at in self.where.items():
            if self.vars[var]["copies"] == "Asid" and who == i * self.asids + asid:
                memory = _with(memory, at, self.vars[var]["init"])
        return self.with_cpu(s._replace(memory=memory), i, cpu), asid

    def mask(self, s: State, i: int, mm: int, on: bool) -> State:
        if not 2 <= mm < self.mms:
            raise Overflow
        members = s.masks[mm] | {i} if on else s.masks[mm] - {i}
        return s._replace(masks=_with(s.masks, mm, members))

    def leave(self, s: State, i: int, f: Frame) -> State:
        cpu = s.cpus[i]
        if f.ret != _NO_PC:  # a remote call is done: a plain store tells its sender
            s = self.buffered(s, i, ("ack", cpu.serving), 0, None)
            s = self.with_cpu(s, i, s.cpus[i]._replace(serving=-1))
            return self.jump(s, i, f._replace(ret=_NO_PC), f.ret)
        if f.iret:
            cpu = cpu._replace(fetched=(None, None))
        return self.with_cpu(s, i, cpu._replace(frames=cpu.frames[:-1]))

    def holds(self, s: State, i: int, f: Frame, c: Any) -> bool:
        if isinstance(c, str):
            return {
                "CurIsMe": f.cur == i,
                "Cr3User": s.cpus[i].user,
                "RangeFull": not self.assume.ranged,
            }[c]
        kind, arg = next(iter(c.items()))
        if kind == "Cmp":
            cmp, a, b = arg
            return compare(cmp, f.regs[a], self.value(f, b))
        if kind == "RegUser":
            return bool(f.regs[arg] & 1)
        members = self.members(arg, s, i, f)
        return bool({"MeIn": i in members, "CurIn": f.cur in members, "Empty": not members}[kind])


def named(op: Any) -> tuple[str, Any]:
    """Return an op's name and its operands."""
    return (op, None) if isinstance(op, str) else next(iter(op.items()))


def compare(cmp: str, a: int, b: int) -> bool:
    """Compare as the op of that name does."""
    found = {"Eq": a == b, "Ne": a != b, "Lt": a < b, "Ge": a >= b, "Le": a <= b, "Gt": a > b}
    return (found | {"Test": a & b != 0})[cmp]


def _part(pages: Any) -> int | None:
    return _PARTS.index(pages["Text"]) if isinstance(pages, dict) and "Text" in pages else None


def _with(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])
