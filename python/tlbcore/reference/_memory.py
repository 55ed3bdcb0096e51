"""Memory: variables and store buffers (H4), page-table entries with their versions (S1, S2), text.

Store buffers hold (address, mask, value). The address of a variable's copy is a number; those of a page-table entry, of
a part of patched text and of an acknowledgement are names.
"""

from __future__ import annotations

from typing import Any

from tlbcore.reference._model import Model, part_of
from tlbcore.reference._state import (
    Frame,
    Ident,
    Leaf,
    Opcode,
    Overflow,
    Page,
    State,
    Violation,
    changed,
    put,
)

__all__ = [
    "buffered",
    "change_entries",
    "clflush",
    "drain",
    "free_tables",
    "own_text",
    "promise",
    "read",
    "request",
    "runs",
    "store",
    "swap",
    "with_cpu",
]


def with_cpu(s: State, i: int, **changes: Any) -> State:
    """Return the state with some of a CPU's parts replaced."""
    return changed(s, cpus=put(s.cpus, i, changed(s.cpus[i], **changes)))


def runs(s: State, task: int) -> int:
    """Return the CPU that runs a column's task, or ran it last (L11)."""
    return next(i for i, cpu in enumerate(s.cpus) if cpu.task == task)


# -- store buffers -----------------------------------------------------------------------------------------------


def drain(m: Model, s: State, i: int) -> State:
    """Make a CPU's oldest store visible."""
    (address, mask, value), rest = s.cpus[i].buffer[0], s.cpus[i].buffer[1:]
    return commit(m, with_cpu(s, i, buffer=rest), i, address, mask, value)


def buffered(m: Model, s: State, i: int, address: Any, mask: int, value: Any) -> State:
    """Store plainly."""
    if m.assume["stores"] == "sc":
        return commit(m, s, i, address, mask, value)
    return with_cpu(s, i, buffer=(*s.cpus[i].buffer, (address, mask, value)))


def commit(m: Model, s: State, i: int, address: Any, mask: int, value: Any) -> State:
    if isinstance(address, int):
        return s._replace(memory=put(s.memory, address, (s.memory[address] & ~mask) | value))
    kind, which = address
    if kind == "entry":
        return s._replace(pages=put(s.pages, which, written(m, s.pages[which], which, *value)))
    if kind == "text":
        return s._replace(text=put(s.text, which, value))
    if kind == "lines":  # of a page, on every CPU
        gone = [frozenset(line for line in cpu.lines if line[0] != which) for cpu in s.cpus]
        cpus = (changed(cpu, lines=left) for cpu, left in zip(s.cpus, gone, strict=True))
        return s._replace(cpus=tuple(cpus))
    at = runs(s, which)
    return with_cpu(s, at, waits=s.cpus[at].waits - {i})  # a remote call is acknowledged


# -- variables ---------------------------------------------------------------------------------------------------


def _address(m: Model, i: int, f: Frame, place: dict[str, Any]) -> tuple[int, int, int]:
    """Return (index into memory, mask, shift) of a field's copy."""
    field = m.fields[place["field"]]
    at = place["at"]
    if isinstance(at, dict):
        which = f.regs[int(next(iter(at.values()))[1:])]
        who = which if "Mm" in at else i * m.asids + which
    else:
        who = {"Me": i, "Cur": f.cur, "Shared": 0}[at]
    if (field["var"], who) not in m.where:
        raise Overflow
    return m.where[field["var"], who], ((1 << field["bits"]) - 1) << field["shift"], field["shift"]


def _reach(m: Model, s: State, i: int, place: dict[str, Any]) -> None:
    """S8: the loaded table maps the variable, and GSBASE leads to this CPU's copy."""
    if place["at"] == "Me" and not s.cpus[i].kernel_gs and m.assume["gs"] == "faults":
        raise Violation("wrong_gs_access")
    if s.cpus[i].user and not m.vars[m.fields[place["field"]]["var"]]["user_mapped"]:
        raise Violation("unmapped_access")


def _seen(s: State, i: int, address: int) -> int:
    """Return a word as this CPU sees it: its own stores first, newest last."""
    value = s.memory[address]
    for where, part, v in s.cpus[i].buffer:
        if where == address:
            value = (value & ~part) | v
    return value


def read(m: Model, s: State, i: int, f: Frame, place: dict[str, Any]) -> int:
    """Load a field."""
    _reach(m, s, i, place)
    address, mask, shift = _address(m, i, f, place)
    return (_seen(s, i, address) & mask) >> shift


def store(m: Model, s: State, i: int, f: Frame, place: dict[str, Any], value: int) -> State:
    """Store to a field."""
    _reach(m, s, i, place)
    _fits(m, place, value)
    address, mask, shift = _address(m, i, f, place)
    own = isinstance(place["at"], dict) and "Asid" in place["at"]  # nobody else ever reads it
    return (commit if own else buffered)(m, s, i, address, mask, value << shift)


def swap(m: Model, s: State, i: int, f: Frame, place: dict[str, Any], value: int) -> State:
    """Write a field by a LOCKed operation, which read it before."""
    _fits(m, place, value)
    address, mask, shift = _address(m, i, f, place)
    return commit(m, s, i, address, mask, value << shift)


def _fits(m: Model, place: dict[str, Any], value: int) -> None:
    if not 0 <= value < 1 << m.fields[place["field"]]["bits"]:
        raise Overflow


# -- page-table entries ------------------------------------------------------------------------------------------


def change_entries(m: Model, s: State, i: int, arg: dict[str, Any]) -> State:
    """Write page-table entries, or a part of the patched instruction."""
    pages = arg["pages"]
    part = part_of(pages)
    if part is not None:
        _, number = own_text(s, i, part)
        value = (True, number) if arg["v"] == "Int3" else (False, number + 1)
        return buffered(m, s, i, ("text", part), 0, value)
    for p in m.changed(i, pages, arg["v"]):
        number = s.cpus[i].stores + 1
        s = with_cpu(s, i, stores=number)
        entry = (arg["level"], arg["v"], (i, number))
        s = (commit if arg["locked"] else buffered)(m, s, i, ("entry", p), 0, entry)
    return s


def clflush(m: Model, s: State, i: int, pages: Any) -> State:
    """H11: drop lines on every CPU, in order with this one's stores."""
    for p in m.changed(i, pages, "Uncached"):
        if p in m.typed:
            s = buffered(m, s, i, ("lines", p), 0, None)
    return s


def written(m: Model, page: Page, p: int, level: str, what: str, ident: Ident) -> Page:
    """Return the page after a store to its entry, or to the one above, has become visible."""
    leaves = dict(page.leaves)
    nth = len(page.replaced) + 1
    if level == "Table":
        if what == "Initial":
            raise NotImplementedError("an upper entry that is as at the start again")
        if what != "None":
            leaves[ident] = Leaf(ident, ident, nth, 2)
        page = page._replace(
            table=None if what == "None" else ident,
            last=page.last if what == "None" else ident,
            leaves=tuple(leaves.items()),
            version=ident,
            replaced=page.replaced | {page.version},
        )
        return _told(m, page)
    absent = page.table is not None and not leaves[page.table].rights
    again = what == "Fresh" and absent and page.replaced
    if again and m.regions[p].kind == "Vmalloc":  # S3: the address was handed on
        m.seen.add("a promise")
        page = page._replace(dead=page.dead | page.replaced | {page.version})
    old = leaves[page.last]
    same = (
        m.regions[p].kind == "DirectMap"
    )  # S4: there it is the rights that come back, unless `none` was between
    leaves[page.last] = {
        "None": Leaf(ident, ident, nth, 0),
        "Fresh": Leaf(ident, old.frame if same else ident, nth, 2),
        "Initial": Leaf(ident, old.frame if same or old.frame == page.leaves[0][1].frame else ident, nth, 2),
        "LessRights": Leaf(ident, old.frame, nth, 1),
        "Uncached": Leaf(ident, page.frame, nth, 2, uncached=True),
        "Cached": Leaf(ident, page.frame, nth, 2),
    }[what]
    new = leaves[page.last]
    if m.types and new.rights:  # H11
        caches = p in m.typed and not new.uncached
        page = page._replace(frame=new.frame, cacheds=page.cacheds | ({ident} if caches else set()))
    return _told(
        m, page._replace(leaves=tuple(leaves.items()), version=ident, replaced=page.replaced | {page.version})
    )


def _told(m: Model, page: Page) -> Page:
    if _is_mapped_behind(page, page.dead):
        m.seen.add("a promise")
    return page


def _own(s: State, i: int, p: int) -> list[tuple[str, str, Ident]]:
    """Return this CPU's stores to a page's entries that wait in its buffer, oldest first."""
    return [value for address, _, value in s.cpus[i].buffer if address == ("entry", p)]


def free_tables(m: Model, s: State, i: int, pages: Any) -> State:
    """Free the tables that the upper entry pointed to before; its first one if it was never changed."""
    for p in m.changed(i, pages, "None"):
        m.seen.add("a promise")  # S3: a table that is freed is relied on
        page = s.pages[p]
        own = [(what, ident) for level, what, ident in _own(s, i, p) if level == "Table"]
        tables = [table for table, _ in page.leaves] + [ident for what, ident in own if what != "None"]
        now = (None if own[-1][0] == "None" else own[-1][1]) if own else page.table
        gone = {table for table in tables if table != now} or {tables[0]}
        s = s._replace(pages=put(s.pages, p, page._replace(freed=page.freed | gone)))
    return s


# -- text --------------------------------------------------------------------------------------------------------


def own_text(s: State, i: int, part: int) -> Opcode:
    """Return a part of the text as this CPU's stores leave it."""
    own = [value for address, _, value in s.cpus[i].buffer if address == ("text", part)]
    return own[-1] if own else s.text[part]


# -- promises ----------------------------------------------------------------------------------------------------


def request(m: Model, s: State, i: int, pages: Any) -> State:
    """S2: the flush covers what visible stores have replaced, and what this CPU's own have."""
    cpu = s.cpus[i]
    part = part_of(pages)
    if part is not None:
        int3, number = own_text(s, i, part)
        older = {(kind, n) for n in range(number) for kind in (False, True)}
        covered = frozenset(older | ({(False, number)} if int3 else set()))
        return with_cpu(s, i, covers_text=put(cpu.covers_text, part, covered))
    for p in m.which(pages):
        own = [ident for _, _, ident in _own(s, i, p)]
        mine = {s.pages[p].version, *own[:-1]} if own else set()
        covers = put(s.cpus[i].covers, p, s.pages[p].replaced | mine)
        s = with_cpu(s, i, covers=covers)
    return s


def _of_two_sizes(m: Model, p: int) -> bool:
    return m.regions[p].within is not None or any(region.within == p for region in m.regions)


def _is_mapped_behind(page: Page, dead: frozenset[Ident]) -> bool:
    """Whether the page is mapped again, or still, and something that was mapped before is dead (S4: code uses it)."""
    leaf = None if page.table is None else dict(page.leaves)[page.table]
    return bool(dead) and leaf is not None and bool(leaf.rights) and leaf.version not in dead


def promise(m: Model, s: State, i: int, pages: Any) -> State:
    """S3: from here on nobody may use what the flush covered."""
    cpu = s.cpus[i]
    part = part_of(pages)
    if part is not None:
        old = cpu.covers_text[part]
        m.seen.add("a promise without a request" if old is None else "a promise")
        s = with_cpu(s, i, covers_text=put(cpu.covers_text, part, None))
        return s._replace(dead_text=put(s.dead_text, part, s.dead_text[part] | (old or frozenset())))
    for p in m.which(pages):
        page, covered = s.pages[p], cpu.covers[p]
        if covered is None:
            m.seen.add("a promise without a request")
        elif (covered and (p in m.accessed or _of_two_sizes(m, p))) or _is_mapped_behind(
            page, page.dead | covered
        ):
            m.seen.add("a promise")
        s = s._replace(pages=put(s.pages, p, page._replace(dead=page.dead | (covered or frozenset()))))
        s = with_cpu(s, i, covers=put(s.cpus[i].covers, p, None))
    return s
