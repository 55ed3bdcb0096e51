"""One op of a program: whether it has to wait, and what it does."""

from __future__ import annotations

from typing import Any

from tlbcore.reference import _accesses as accesses
from tlbcore.reference import _grace as grace
from tlbcore.reference import _memory as memory
from tlbcore.reference import _translations as translations
from tlbcore.reference._counts import in_one_order, increased, taken
from tlbcore.reference._memory import with_cpu
from tlbcore.reference._model import Model, site_of
from tlbcore.reference._state import (
    INIT_MM,
    NO_MM,
    NO_PC,
    Cpu,
    Frame,
    Overflow,
    State,
    Violation,
    compare,
    named,
    put,
)

__all__ = ["blocked", "execute", "free_for", "members", "migrate", "visit"]


# -- order -------------------------------------------------------------------------------------------------------


def blocked(m: Model, s: State, i: int, f: Frame, name: str, arg: Any) -> bool:
    """Whether the op waits: for its own stores to be visible (H4), or for what other CPUs do."""
    cpu = s.cpus[i]
    if name == "AwaitAcks":
        return bool(cpu.waits)
    if (name, arg) == ("Rcu", "Wait"):
        return bool(cpu.grace)
    site = site_of({name: arg})
    if site is not None:  # an INT3 is delivered with an empty buffer (H5)
        try:
            int3, _ = accesses.run_text(s, i, site)
        except Violation:
            return False
        return int3 and f.stack and bool(cpu.buffer) and m.assume["interrupts"] == "drain"
    if name == "Await":
        try:
            return not compare(arg["f"], memory.read(m, s, i, f, arg["at"]), _value(f, arg["v"]))
        except Violation:
            return False  # executes, and is found again
    if name in ("Invpcid", "Invlpgb", "InvlpgbOf", "InvlpgbAll") and m.assume["invpcid"] != "publishes":
        own = any(isinstance(a, tuple) and a[0] == "entry" for a, _, _ in cpu.buffer)
        return own and m.assume["invpcid"] == "ordered"  # H4 (b)
    if m.assume["broadcast"] == "drains" and name in ("Tlbsync", "Rar"):
        told = members(m, s, i, f, arg) if name == "Rar" else range(len(m.roles))
        if any(s.cpus[who].buffer for who in told):
            return True
    return bool(cpu.buffer) and _publishes(m, s, i, f, name, arg)


def _publishes(m: Model, s: State, i: int, f: Frame, name: str, arg: Any) -> bool:
    """H4 (a)."""
    match name:
        case "Rmw" | "Cas" | "MovCr3" | "MovCr4Pge" | "Invlpg" | "Tlbsync" | "Mask" | "Migrate" | "Wbinvd":
            return True
        case "Invpcid" | "Invlpgb" | "InvlpgbOf" | "InvlpgbAll":
            return True
        case "Ipi":  # L3: the queue is LOCKed, if anything is queued
            return bool(members(m, s, i, f, arg["to"]))
        case "Rar":
            return bool(members(m, s, i, f, arg))
        case "Fence":
            return bool(arg not in ("Load", "Store"))
        case "Pte":
            return bool(arg["locked"])
        case "Rcu":
            return arg in ("Watch", "Unwatch", "Start")
        case "Return":
            return f.ret == NO_PC and f.delivered and not m.fred
        case _:
            return False


# -- frames ------------------------------------------------------------------------------------------------------


def _value(f: Frame, v: dict[str, int]) -> int:
    return v["Imm"] if "Imm" in v else f.regs[v["Reg"]]


def jump(s: State, i: int, f: Frame, pc: int) -> State:
    return with_cpu(s, i, frames=(*s.cpus[i].frames[:-1], f._replace(pc=pc)))


def _set(f: Frame, reg: int, value: int) -> Frame:
    if value < 0:
        raise Overflow
    return f._replace(regs=put(f.regs, reg, value))


def visit(s: State, i: int, f: Frame, who: int | None, done: int) -> State:
    """Go on with a CPU in a loop over a set, or leave the loop."""
    if who is None:
        return jump(s, i, f._replace(cur=-1, visited=frozenset()), done)
    return jump(s, i, f._replace(cur=who, visited=f.visited | {who}), f.pc + 1)


def _leave(m: Model, s: State, i: int, f: Frame) -> State:
    """End a program; of a remote call: a plain store tells its sender."""
    cpu = s.cpus[i]
    if f.ret != NO_PC:
        s = memory.buffered(m, s, i, ("ack", cpu.serving), 0, None)
        s = with_cpu(s, i, serving=-1)
        return jump(s, i, f._replace(ret=NO_PC), f.ret)
    if f.delivered and not m.fred:  # H4 (c), H5
        s = with_cpu(s, i, fetched=(None,) * m.parts, blocked=False)
    elif f.kind == "nmi" and m.fred:  # only its own return unblocks NMIs
        s = with_cpu(s, i, blocked=False)
    return with_cpu(s, i, frames=cpu.frames[:-1])


def free_for(m: Model, s: State, i: int, f: Frame) -> list[int]:
    """L11: CPUs where a task can go on: at rest in the kernel, with the table it uses, and switched."""
    me = s.cpus[i]
    if f.level != 0 or not f.irq:
        return []
    return [
        to
        for to, cpu in enumerate(s.cpus)
        if not (m.roles[to].user or m.roles[to].isolated or m.roles[to].deaf or cpu.frames or cpu.buffer)
        and (cpu.user, cpu.asid, cpu.mm) == (me.user, me.asid, me.mm)
    ]


def migrate(s: State, i: int, f: Frame, to: int) -> State:
    """Go on on another CPU: a task takes along its frame, whom it waits for and what its flush is about."""
    old, new = s.cpus[i], s.cpus[to]

    def gets(of: Cpu) -> dict[str, Any]:
        return {key: getattr(of, key) for key in ("waits", "covers", "covers_text", "info", "task")}

    s = with_cpu(s, to, frames=(f._replace(pc=f.pc + 1),), **gets(old))
    return with_cpu(s, i, frames=(), **gets(new))


# -- sets and conditions -----------------------------------------------------------------------------------------


def members(m: Model, s: State, i: int, f: Frame, name: str) -> frozenset[int]:
    """Return the CPUs of a set."""
    every = frozenset(range(len(m.roles)))
    isolated = frozenset(who for who, role in enumerate(m.roles) if role.isolated)
    match name:
        case "Online":
            return every
        case "Others":
            return every - {i}
        case "Housekeeping":
            return every - isolated
        case "NohzFull":
            return isolated
        case "FlushMask":
            return frozenset(who for who in isolated if m.roles[who].flushes)
        case "Targets":
            return f.targets
        case _:
            return s.masks[s.cpus[i].info[0]] - {i}


def _holds(m: Model, s: State, i: int, f: Frame, c: Any) -> bool:
    if isinstance(c, str):
        return {
            "CurIsMe": f.cur == i,
            "Cr3User": s.cpus[i].user,
            "RangeFull": m.assume["range"] == "full",
        }[c]
    kind, arg = next(iter(c.items()))
    if kind == "Cmp":
        cmp, a, b = arg
        in_one_order(f.regs[a], _value(f, b))
        return compare(cmp, f.regs[a], _value(f, b))
    if kind == "RegUser":
        return bool(f.regs[arg] & 1)
    who = members(m, s, i, f, arg)
    return bool({"MeIn": i in who, "CurIn": f.cur in who, "Empty": not who}[kind])


# -- the ops -----------------------------------------------------------------------------------------------------


def execute(m: Model, s: State, i: int) -> State:
    """Execute the op at the top frame, which does not wait; `Each` is `visit`."""
    f = s.cpus[i].frames[-1]
    name, arg = named(m.ops[f.pc])
    if name == "Return":
        return _leave(m, s, i, f)
    if name == "HandleCalls":
        return _handle_calls(m, s, i, f)
    site = site_of({name: arg})
    if site is not None:
        return _decide(m, s, i, f, site, arg["to"])
    page = accesses.faults(m, s, i, name, arg)
    if page is not None and f.level == 0 and m.handles_fault(i, page):
        # Its handler is kernel code under the kernel's CR3, and no code of the test.
        return with_cpu(s, i, frames=(), user=False, kernel_gs=True, left=0, fault=page)
    if page is not None and m.regions[page].mm is None:
        raise Violation("unmapped_access")
    for group in (_register, _memory, _translation, _remote):
        done = group(m, s, i, f, name, arg)
        if done is not None:
            s, f, pc = done
            return jump(s, i, f, pc)
    raise NotImplementedError(name)


def _decide(m: Model, s: State, i: int, f: Frame, site: int, other: int) -> State:
    """Go where what was fetched of a patched instruction says; an INT3 starts its handler first (H10, S13)."""
    int3, number = accesses.run_text(s, i, site)
    now = number + int3  # the handler stands in for the instruction that is being written
    s = jump(s, i, f, f.pc + 1 if now % 2 else other)
    if not int3:
        return s
    if not f.stack:
        raise Violation("unusable_stack")
    if f.level == 2:
        raise Overflow
    m.seen.add("an INT3")
    return with_cpu(s, i, frames=(*s.cpus[i].frames, m.frame("breakpoint", "breakpoint", f.level + 1)))


Done = tuple[State, Frame, int] | None


def _register(m: Model, s: State, i: int, f: Frame, name: str, arg: Any) -> Done:
    """Carry out ops on this frame and on what only this CPU sees."""
    cpu = s.cpus[i]
    pc = f.pc + 1
    match name:
        case "Move":
            f = _set(f, arg["to"], _value(f, arg["v"]))
        case "MoveWide":
            f = _set(f, arg["to"], arg["v"])
        case "Alu":
            a, b = f.regs[arg["a"]], _value(f, arg["b"])
            results = {"Add": a + b, "Sub": a - b, "And": a & b, "Or": a | b, "Xor": a ^ b}
            f = _set(f, arg["to"], results[arg["f"]])
        case "Unless":
            pc = pc if _holds(m, s, i, f, arg["c"]) else arg["to"]
        case "Jump":
            pc = arg
        case "Loop":
            f = f._replace(visited=frozenset())
        case "Clear":
            f = f._replace(targets=frozenset())
        case "Put":
            f = f._replace(targets=f.targets | {f.cur})
        case "Irq":
            f = f._replace(irq=arg)
        case "SwapGs":
            s = with_cpu(s, i, kernel_gs=not cpu.kernel_gs)
        case "Rsp":
            f = f._replace(stack=arg or m.fred or not m.decide)
        case "SetGs":
            s = with_cpu(s, i, kernel_gs=bool(_value(f, arg)))
        case "ReadGs":
            f = _set(f, arg, int(cpu.kernel_gs))
        case "ReadCr3":
            f = _set(f, arg, int(cpu.user) + 2 * cpu.asid + 4 * cpu.mm)
        case _:
            return None
    return s, f, pc


def _locked(kind: str, old: int, b: int) -> tuple[int, int]:
    """Return what memory holds after a LOCKed operation, and its result."""
    if kind in ("Bts", "Btr", "Btc"):
        bit = 1 << min(b, 63)
        return {"Bts": old | bit, "Btr": old & ~bit, "Btc": old ^ bit}[kind], int(old & bit != 0)
    results = {"Xchg": b, "Add": old + b, "Or": old | b, "And": old & b, "Sub": old - b, "Xor": old ^ b}
    return results[kind], old


def _memory(m: Model, s: State, i: int, f: Frame, name: str, arg: Any) -> Done:
    """Carry out loads, stores and fences, page-table stores and what is promised of them."""
    match name:
        case "Load":
            f = _set(f, arg["to"], taken(m, arg["from"], memory.read(m, s, i, f, arg["from"])))
        case "Store":
            s = memory.store(m, s, i, f, arg["to"], _value(f, arg["v"]))
        case "Rmw":
            old, b = memory.read(m, s, i, f, arg["at"]), _value(f, arg["v"])
            new, result = _locked(arg["f"], old, b)
            new = increased(m, f, arg["at"], old, new)
            s = memory.swap(m, s, i, f, arg["at"], new)
            f = _set(f, arg["to"], taken(m, arg["at"], result))
        case "Cas":
            old = memory.read(m, s, i, f, arg["at"])
            if old == _value(f, arg["old"]):
                s = memory.swap(m, s, i, f, arg["at"], _value(f, arg["new"]))
            f = _set(f, arg["to"], taken(m, arg["at"], old))
        case "Await":
            memory.read(m, s, i, f, arg["at"])
        case "Fence":
            s = with_cpu(s, i, fetched=(None,) * m.parts) if arg == "Serialize" else s
        case "Pte":
            s = memory.change_entries(m, s, i, arg)
        case "Clflush":
            s = memory.clflush(m, s, i, arg)
        case "Wbinvd":
            s = with_cpu(s, i, lines=frozenset(), fetched=(None, None))
        case "FreeTable":
            s = memory.free_tables(m, s, i, arg)
        case "FreeMm":
            s = s._replace(freed=s.freed | {arg})
        case "Request":
            s = memory.request(m, s, i, arg)
        case "Promise":
            s = memory.promise(m, s, i, arg)
        case _:
            return None
    return s, f, f.pc + 1


def _translation(m: Model, s: State, i: int, f: Frame, name: str, arg: Any) -> Done:
    """Carry out accesses and invalidations."""
    cpu = s.cpus[i]
    match name:
        case "Touch" | "Body":
            accesses.touch(m, s, i, name, arg)
        case "LoadPage":
            f = _set(f, arg["to"], accesses.load_page(m, s, i, f, arg))
        case "StorePage":
            s = accesses.store_page(m, s, i, arg["page"], _value(f, arg["v"]))
        case "Walk":
            f = accesses.walk_in_software(m, s, i, f, arg["page"], arg["step"])
        case "MovCr3":
            s = translations.mov_cr3(m, s, i, f, arg)
        case "MovCr4Pge" | "Invlpg" | "Invpcid":
            s = s._replace(cpus=put(s.cpus, i, translations.invalidate(m, cpu, name, arg)))
        case "Invlpgb" | "InvlpgbOf" | "InvlpgbAll":
            s = translations.send_broadcast(m, s, i, name, arg)
        case "Tlbsync":
            s = translations.complete_broadcasts(s, i)
        case "Rar":
            told = members(m, s, i, f, arg)
            cpus = (translations.forget_all(c) if who in told else c for who, c in enumerate(s.cpus))
            s = s._replace(cpus=tuple(cpus))
        case "OweUser":
            s = with_cpu(s, i, owes=cpu.owes | {cpu.asid})
        case "OweOthers":
            s = with_cpu(s, i, owes_others=True)
        case _:
            return None
    return s, f, f.pc + 1


# -- remote calls and address spaces -----------------------------------------------------------------------------


def _remote(m: Model, s: State, i: int, f: Frame, name: str, arg: Any) -> Done:
    """Carry out what is about other CPUs, and the bookkeeping of address spaces."""
    match name:
        case "Ipi":
            s = _ipi(m, s, i, members(m, s, i, f, arg["to"]), arg["run"])
        case "AwaitAcks" | "Migrate":  # `migrate` says where a task goes; here it stays
            pass
        case "Rcu":
            s, f = grace.about(s, i, f, arg)
        case "CallLater":
            s = grace.call_later(s, i, arg)
        case "Ask":
            s, answer = _ask(m, s, i, f, arg["what"])
            f = _set(f, arg["to"], answer)
        case "FlushInfo":
            s = with_cpu(s, i, info=(_value(f, arg["mm"]), _value(f, arg["generation"])))
        case "Mask":
            mm = _value(f, arg["mm"])
            if not 2 <= mm < m.mms:
                raise Overflow
            who = s.masks[mm] | {i} if arg["on"] else s.masks[mm] - {i}
            s = s._replace(masks=put(s.masks, mm, who))
        case _:
            return None
    return s, f, f.pc + 1


def _ipi(m: Model, s: State, i: int, to: frozenset[int], run: int) -> State:
    """Queue a remote call, and interrupt those whose queue was empty; a walker such as an IOMMU has none."""
    to = frozenset(who for who in to if not m.roles[who].deaf)
    for who in to:
        c = s.cpus[who]
        s = with_cpu(s, who, queue=(*c.queue, (run, s.cpus[i].task)), irq=c.irq or not c.queue)
    return with_cpu(s, i, waits=s.cpus[i].waits | to)


def _handle_calls(m: Model, s: State, i: int, f: Frame) -> State:
    """Run the oldest queued call, and come back here; go on when there is none, and in a device's interrupt (H5)."""
    if f.device or not s.cpus[i].queue:
        return jump(s, i, f, f.pc + 1)
    (run, sender), rest = s.cpus[i].queue[0], s.cpus[i].queue[1:]
    s = with_cpu(s, i, queue=rest, serving=sender)
    return jump(s, i, f._replace(ret=f.pc), m.starts[run])


def _ask(m: Model, s: State, i: int, f: Frame, what: Any) -> tuple[State, int]:
    cpu = s.cpus[i]
    match what:
        case "NextMm":  # in turn: a kernel thread, then each process
            return s, {INIT_MM: 2}.get(cpu.mm, cpu.mm + 1 if cpu.mm + 1 < m.mms else INIT_MM)
        case "FlushMm":
            return s, next((r.mm for r in m.regions if r.mm is not None), 2)
        case "InfoMm" | "InfoGen":
            sender = s.cpus[memory.runs(s, cpu.serving) if cpu.serving >= 0 else i]
            return s, sender.info[what == "InfoGen"]
        case "LoadedAsid":
            return s, cpu.asid
        case _:
            return _choose_asid(m, s, i, _value(f, what["AsidFor"]))


def _choose_asid(m: Model, s: State, i: int, mm: int) -> tuple[State, int]:
    """`choose_new_asid` (FACTS 2.3): the slot that holds the address space, or the next one in turn."""
    cpu = s.cpus[i]
    if cpu.owes_others:  # clear_asid_other
        contexts = tuple(held if asid == cpu.asid else NO_MM for asid, held in enumerate(cpu.contexts))
        s = with_cpu(s, i, owes_others=False, contexts=contexts)
        cpu = s.cpus[i]
    if m.pcid and mm in cpu.contexts:
        return s, cpu.contexts.index(mm)
    asid = cpu.next_asid if m.pcid and cpu.next_asid < m.asids else 0
    s = with_cpu(s, i, next_asid=asid + 1, contexts=put(cpu.contexts, asid, mm))
    for (var, who), at in m.where.items():
        if m.vars[var]["copies"] == "Asid" and who == i * m.asids + asid:
            s = s._replace(memory=put(s.memory, at, m.vars[var]["init"]))
    return s, asid
