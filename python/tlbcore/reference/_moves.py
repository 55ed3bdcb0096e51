"""Everything that can happen next: ops, drained stores, interrupts, NMIs, machine checks, what the hardware caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from tlbcore.reference import _grace as grace
from tlbcore.reference import _memory as memory
from tlbcore.reference import _ops as ops
from tlbcore.reference import _translations as translations
from tlbcore.reference._accesses import demands, kernel_code
from tlbcore.reference._lines import lines
from tlbcore.reference._memory import with_cpu
from tlbcore.reference._model import Model
from tlbcore.reference._state import Frame, State, Violation, named

__all__ = ["Make", "moves"]

Make = Callable[[], State]

_BY_SYSCALL = ("syscall", "syscall_compat")


def moves(m: Model, s: State) -> Iterator[tuple[str, bool, Make]]:
    """Yield each move: its name, whether it happens some day if nothing else does (S11), and what it makes."""
    for i, cpu in enumerate(s.cpus):
        role = m.roles[i]
        if cpu.buffer:
            yield f"cpu {i}: drain", True, partial(memory.drain, m, s, i)
        yield from _hardware(m, s, i)
        drained = not cpu.buffer or m.assume["interrupts"] == "keep"  # H5
        if not role.deaf and drained:
            yield from _interrupts(m, s, i)
            yield from grace.due(m, s, i)
        if cpu.frames:
            yield from _steps(m, s, i)
        elif cpu.left != 0:
            yield from _enter(m, s, i, drained=drained)
        if not cpu.frames and not role.user and not role.deaf and cpu.fault < 0 and not grace.has_left(cpu):
            yield f"cpu {i}: kernel code", False, partial(kernel_code, m, s, i)


def _enter(m: Model, s: State, i: int, *, drained: bool) -> Iterator[tuple[str, bool, Make]]:
    """Start the next round, or enter from user mode by any path there is; exceptions drain the buffer first (H5)."""
    left = s.cpus[i].left
    fewer = None if left is None else left - 1
    for path in m.roles[i].paths:
        frame = m.frame("task", path, 0, irq=not m.roles[i].user)
        if m.decide and m.roles[i].user and path in _BY_SYSCALL and not m.fred:
            frame = frame._replace(stack=False)  # S13: the user's RSP
        frame = frame._replace(device=m.roles[i].user and path == "interrupt")
        if drained or not frame.delivered:
            entered = partial(with_cpu, s, i, left=fewer, frames=(frame,))
            yield f"cpu {i}: enter by {path}", left is not None, entered  # any number of times may be none


def _device(m: Model, s: State, i: int) -> Iterator[tuple[str, bool, Make]]:
    """H5: a device interrupt by itself, amid the kernel; it counts as an entry of a CPU that rests in user mode."""
    cpu, role = s.cpus[i], m.roles[i]
    if role.user:
        if "interrupt" not in role.paths or cpu.left == 0:
            return
        spent = {"left": None if cpu.left is None else cpu.left - 1}
    elif cpu.devices:
        spent = {"devices": cpu.devices - 1}
    else:
        return
    program = "interrupt_idle" if _is_idle(m, s, i) else "interrupt_kernel"
    frame = m.frame("interrupt", program, 1)._replace(device=True)
    yield f"cpu {i}: device", False, partial(_interrupted, s, i, frame, **spent)


def _interrupted(s: State, i: int, frame: Frame, **changes: object) -> State:
    """Start an interrupt, on the stack of what it interrupts (S13)."""
    frames = s.cpus[i].frames
    if frames and not frames[-1].stack:
        raise Violation("unusable_stack")
    return with_cpu(s, i, frames=(*frames, frame), **changes)


def _is_idle(m: Model, s: State, i: int) -> bool:
    """Whether the task waits in the idle loop, or has waited and not closed interrupts again."""
    frames = s.cpus[i].frames
    if not frames:
        return False
    pc = frames[-1].pc
    now, before = named(m.ops[pc]), named(m.ops[pc - 1]) if pc else ("", None)
    return now == ("Body", "Idle") or (now == ("Irq", False) and before == ("Body", "Idle"))


def _interrupts(m: Model, s: State, i: int) -> Iterator[tuple[str, bool, Make]]:
    """H5: IPIs at IF=1, an NMI at any boundary unless blocked, a machine check at any; three levels in all."""
    cpu = s.cpus[i]
    in_user = not cpu.frames and m.roles[i].user and cpu.fault < 0
    level = 0 if in_user else cpu.frames[-1].level + 1 if cpu.frames else 1
    if level > 2:
        return

    def enter(kind: str, program: str, **changes: object) -> Make:
        frame = m.frame(kind, program, level)
        return partial(with_cpu, s, i, frames=(*cpu.frames, frame), **changes)

    if cpu.frames and cpu.frames[-1].irq and cpu.frames[-1].level == 0:
        yield from _device(m, s, i)
    if cpu.irq and (not cpu.frames or cpu.frames[-1].irq):
        amid = "interrupt_idle" if _is_idle(m, s, i) else "interrupt_kernel"
        program = "interrupt" if in_user else amid
        frame = m.frame("task" if in_user else "interrupt", program, level)
        yield f"cpu {i}: interrupt", True, partial(_interrupted, s, i, frame, irq=False)
    program = "nmi_user" if in_user else "nmi"
    if s.nmis > 0 and not cpu.blocked:
        arrives = enter("nmi", program, blocked=True)
        yield f"cpu {i}: nmi", False, lambda: arrives()._replace(nmis=s.nmis - 1)
    if s.mces > 0:
        strikes = enter("mce", program)
        yield f"cpu {i}: mce", False, lambda: strikes()._replace(mces=s.mces - 1)


def _hardware(m: Model, s: State, i: int) -> Iterator[tuple[str, bool, Make]]:
    """H2: leaves and paging-structure entries come and go, and text is fetched."""
    cpu = s.cpus[i]
    pages, text = set(range(len(m.regions))), m.sites
    if m.assume["fills"] == "demand":
        if cpu.frames:
            pages, text = demands(m, *named(m.ops[cpu.frames[-1].pc]))
        elif m.roles[i].user:
            pages, text = set(), set()
    for p in range(len(m.regions)):
        held = translations.cached(m, cpu, p) is not None
        upper = translations.cached_upper(cpu, p) is not None
        if held and (not cpu.user or m.regions[p].user_mapped):
            yield f"cpu {i}: evict {p}", False, partial(translations.evict, m, s, i, p)
        if upper:
            yield f"cpu {i}: evict upper {p}", False, partial(translations.evict_upper, s, i, p)
        if p in m.typed:
            yield from lines(m, s, i, p, fetches=p in pages)
        if p in pages and translations.maps(m, cpu, p):
            if not held:
                yield f"cpu {i}: fill {p}", False, partial(translations.fill, m, s, i, p)
            if m.tables and not upper and s.pages[p].table is not None and translations.leads(m, s, i, p):
                yield f"cpu {i}: fill upper {p}", False, partial(translations.fill_upper, s, i, p)
    for part in range(m.parts):
        if part // 2 in text and translations.can_fetch(m, s, i, part):
            yield f"cpu {i}: fetch {part}", False, partial(translations.fetch, s, i, part)


def _steps(m: Model, s: State, i: int) -> Iterator[tuple[str, bool, Make]]:
    """Yield the ways the op at the top frame may execute: none if it has to wait, several for a loop."""
    cpu = s.cpus[i]
    f = cpu.frames[-1]
    name, arg = named(m.ops[f.pc])
    label = f"cpu {i}: {f.pc} {name}"
    if name == "Each":
        left = ops.members(m, s, i, f, arg["of"]) - f.visited
        for who in sorted(left):
            yield f"{label} {who}", True, partial(ops.visit, s, i, f, who, arg["done"])
        if not left:
            yield label, True, partial(ops.visit, s, i, f, None, arg["done"])
        if arg["of"] == "MmCpumask":  # L4: one that joins behind the walk is passed by
            for who in range(len(s.cpus)):
                if who != i and who not in left and who not in f.visited:
                    passed = f._replace(visited=f.visited | {who})
                    yield f"{label} without {who}", False, partial(ops.jump, s, i, passed, f.pc)
        return
    if name == "Unless" and arg["c"] == "Either":  # nothing decides it
        for pc in (f.pc + 1, arg["to"]):
            yield f"{label} to {pc}", True, partial(ops.jump, s, i, f, pc)
        return
    if name == "Migrate" and not cpu.buffer and (free := ops.free_for(m, s, i, f)):
        for to in free:
            yield f"{label} to cpu {to}", True, partial(ops.migrate, s, i, f, to)
        return
    in_body = f.level == 0 and (name, arg) == ("Body", "Syscall")
    if m.asids > 1 and m.roles[i].user and in_body and not cpu.buffer:
        yield f"cpu {i}: switch", True, partial(translations.switch_asid, m, s, i)
    if not ops.blocked(m, s, i, f, name, arg):
        yield label, True, partial(ops.execute, m, s, i)
