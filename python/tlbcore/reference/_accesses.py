"""Accesses: which code may touch what (A1, A2), and which of them break a rule (S5, S7 to S9)."""

from __future__ import annotations

from typing import Any

from tlbcore.reference._memory import buffered, read
from tlbcore.reference._model import Model, site_of
from tlbcore.reference._state import Frame, Leaf, Opcode, Overflow, Page, State, Violation, put
from tlbcore.reference._translations import is_large, maps, used

__all__ = [
    "demands",
    "faults",
    "kernel_code",
    "load_page",
    "run_text",
    "store_page",
    "touch",
    "walk_in_software",
]

_BODIES = {"Syscall": "Kernel", "Interrupt": "Kernel", "Idle": "Danger", "Nmi": "Nmi"}
_DEFINITE = {
    "Entry": "EntryArea",
    "PerCpu": "PerCpu",
    "DirectMap": "DirectMap",
    "Image": "Image",
    "Recycled": "Vmalloc",
}
_REACHED = {"none": (), "directmap": ("DirectMap",), "recycled": ("DirectMap", "Vmalloc")}


def uses(m: Model, zone: str, kind: str) -> bool:
    """Whether code of a zone may use pages of a kind (A1, A2)."""
    if kind == "User":
        return zone == "User"
    if zone in ("Danger", "Nmi"):
        return kind in _REACHED[m.assume["D" if zone == "Danger" else "N"]]
    return zone == "Kernel" or kind == _DEFINITE.get(zone)


def runs_patched(m: Model, zone: str) -> bool:
    """Whether code of a zone may have been patched (S7; assumption T)."""
    where = {"instr": ("Kernel", "Nmi"), "danger": ("Kernel", "Nmi", "Danger")}
    return zone in where.get(m.assume["T"], ("Kernel", "Nmi", "Danger", "Entry"))


def faults(m: Model, s: State, i: int, name: str, arg: Any) -> int | None:
    """S8: return the page that an op of the program accesses by itself, if there is no translation for it."""
    if name in ("LoadPage", "StorePage"):
        page = arg["page"]
    elif name == "Touch" and isinstance(arg, dict) and "Zone" not in arg:
        page = next(iter(arg.values()))
    else:
        return None
    return None if access(m, s, i, page) is not None else int(page)


def touch(m: Model, s: State, i: int, name: str, arg: Any) -> None:
    """Check the accesses of a `touch` or of a body."""
    if name == "Body":
        _zone(m, s, i, _BODIES[arg])
    elif arg == "Text":
        run_text(s, i, 0)
    elif "Zone" in arg:
        _zone(m, s, i, arg["Zone"])
    else:
        access(m, s, i, next(iter(arg.values())))


def kernel_code(m: Model, s: State, i: int) -> State:
    """Run ordinary kernel code on a CPU that rests in the kernel."""
    _zone(m, s, i, "Kernel")
    return s


def demands(m: Model, name: str, arg: Any) -> tuple[set[int], set[int]]:
    """Return the pages whose translation an op may need, and the patched instructions that it may run."""
    site = site_of({name: arg})
    if site is not None:
        return set(), {site}
    zone = None
    if name == "Body":
        zone = _BODIES[arg]
    elif name == "Touch" and isinstance(arg, dict) and "Zone" in arg:
        zone = arg["Zone"]
    if zone is not None:
        pages = {p for p, region in enumerate(m.regions) if uses(m, zone, region.kind)}
        return pages, {0} if runs_patched(m, zone) else set()
    if name == "Touch" and isinstance(arg, dict):
        return {next(iter(arg.values()))}, set()
    if name in ("LoadPage", "StorePage"):
        return {arg["page"]}, set()
    return set(), {0} if (name, arg) == ("Touch", "Text") else set()


def _zone(m: Model, s: State, i: int, zone: str) -> None:
    cpu = s.cpus[i]
    if cpu.user and zone not in ("Entry", "User"):
        raise Violation("unmapped_access")
    if zone == "PerCpu" and not cpu.kernel_gs and m.assume["gs"] == "faults":
        raise Violation("wrong_gs_access")
    for p, region in enumerate(m.regions):
        if uses(m, zone, region.kind) and _mapped(m, s, p) is not None:  # S4: code uses what is allocated
            access(m, s, i, p)
    if m.has_text and runs_patched(m, zone):
        run_text(s, i, 0)


def _current(page: Page) -> Leaf | None:
    """Return the entry in the tree, if the page is mapped and the address is not waiting to be used again."""
    leaf = None if page.table is None else dict(page.leaves)[page.table]
    return leaf if leaf is not None and leaf.rights and leaf.version not in page.dead else None


def _mapped(m: Model, s: State, p: int) -> Leaf | None:
    """Return the entry in the tree that maps an address of the page: the large one while it is there (H9)."""
    large = m.regions[p].within
    return _current(s.pages[large if large is not None and is_large(m, s, p) else p])


def access(m: Model, s: State, i: int, p: int) -> Leaf | None:
    """Return the translation that an access uses; none if there is none."""
    cpu, region = s.cpus[i], m.regions[p]
    if region.mm not in (None, cpu.mm):
        raise Violation("wrong_address_space")
    if not maps(m, cpu, p):
        raise Violation("unmapped_access")
    found = used(m, s, i, p)
    if found is None:
        return None
    of, leaf = found
    now = _mapped(m, s, p)
    # A large entry of the start maps the frames of the small ones of the start: their promises are about it too.
    dead = leaf.version in s.pages[of].dead or leaf.version in s.pages[p].dead
    if dead and not _legal(leaf, now):
        raise Violation("stale_access (not_reused)" if now is None else "stale_access (reused)")
    return leaf


def _legal(stale: Leaf, now: Leaf | None) -> bool:
    """S4: whether what is stale maps the frame that is mapped now, as that type, with no more rights."""
    if now is None or stale.frame != now.frame:
        return False
    return stale.rights <= now.rights and stale.uncached == now.uncached


def run_text(s: State, i: int, site: int) -> Opcode:
    """S7: each part as it was fetched, or as memory has it; without a breakpoint the parts belong together.

    Return the head that was run.
    """
    h, t = 2 * site, 2 * site + 1
    head, tail = (s.cpus[i].fetched[part] or s.text[part] for part in (h, t))
    torn = head != tail or tail in s.dead_text[t]
    if head in s.dead_text[h] or (not head[0] and torn):
        raise Violation("stale_text")
    return head


# -- walks in software -------------------------------------------------------------------------------------------


def walk_in_software(m: Model, s: State, i: int, f: Frame, p: int, step: str) -> Frame:
    """Carry out a step of a walk that reads entries from memory, and return the frame with what it found (H8, S12)."""
    page = s.pages[p]
    if s.cpus[i].user:  # page tables and what they map are reached through the direct map
        raise Violation("unmapped_access")
    if step != "Use" and any(address == ("entry", p) for address, _, _ in s.cpus[i].buffer):
        raise Overflow  # its own stores would be forwarded
    match step:
        case "Table":
            if m.regions[p].mm in s.freed:
                raise Violation("freed_mm")
            return f._replace(walked=page.table)
        case "Leaf" | "Last":
            if f.walked in page.freed:
                raise Violation("freed_table_read")
            leaf = None if f.walked is None else dict(page.leaves)[f.walked]
            return f._replace(walked=leaf if step == "Leaf" and leaf is not None and leaf.rights else None)
    now, leaf = _current(page), f.walked
    if leaf is not None and leaf.version in page.dead and not _legal(leaf, now):
        raise Violation("stale_access (not_reused)" if now is None else "stale_access (reused)")
    return f._replace(walked=None)


# -- the data of pages -------------------------------------------------------------------------------------------


def _field(m: Model, s: State, i: int, p: int) -> int | None:
    """Return the field that a page maps, by the translation an access uses; none if it has no data or faults."""
    leaf = access(m, s, i, p)
    fields = m.frames.get(p, ())
    return fields[min(leaf.nth, len(fields) - 1)] if leaf is not None and fields else None


def load_page(m: Model, s: State, i: int, f: Frame, arg: dict[str, int]) -> int:
    """Load the data of a page; 0 if there is none."""
    field = _field(m, s, i, arg["page"])
    if field is None:
        return 0
    user = s.cpus[i].user  # the page is what is mapped, not the variable
    s = s._replace(cpus=put(s.cpus, i, s.cpus[i]._replace(user=False))) if user else s
    return read(m, s, i, f, {"field": field, "at": "Shared"})


def store_page(m: Model, s: State, i: int, p: int, value: int) -> State:
    """Store to the data of a page; a store through no translation is lost."""
    field = _field(m, s, i, p)
    if field is None:
        return s
    bits, shift = m.fields[field]["bits"], m.fields[field]["shift"]
    if value >= 1 << bits:
        raise Overflow
    return buffered(m, s, i, m.where[m.fields[field]["var"], 0], ((1 << bits) - 1) << shift, value << shift)
