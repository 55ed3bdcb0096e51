"""Translations: what a walk finds (S6, S9), what may be cached (H2), what an invalidation drops (H3)."""

from __future__ import annotations

from typing import Any

from tlbcore.reference._memory import with_cpu
from tlbcore.reference._model import Model
from tlbcore.reference._state import Cpu, Frame, Leaf, State, Tag, Violation, put

__all__ = [
    "cached",
    "complete_broadcasts",
    "evict",
    "evict_upper",
    "fetch",
    "fill",
    "fill_upper",
    "forget_all",
    "invalidate",
    "is_large",
    "leads",
    "maps",
    "mov_cr3",
    "send_broadcast",
    "switch_asid",
    "used",
    "walk",
]


def tag(cpu: Cpu) -> Tag:
    """Return the PCID in use."""
    return cpu.asid, cpu.user


def maps(m: Model, cpu: Cpu, p: int) -> bool:
    """Whether the loaded table has entries for the page."""
    region = m.regions[p]
    return (not cpu.user or region.user_mapped) and region.mm in (None, cpu.mm)


def cached(m: Model, cpu: Cpu, p: int) -> Leaf | None:
    """Return what the TLB says of a page now; global entries answer every PCID."""
    want = None if m.regions[p].is_global else tag(cpu)
    return next((leaf for page, its, leaf in cpu.leaves if page == p and its == want), None)


def cached_upper(cpu: Cpu, p: int) -> Any:
    """Return the table that a paging-structure cache says the page is under; the G bit has no part in it."""
    return next((table for page, its, table in cpu.uppers if page == p and its == tag(cpu)), None)


def leads(m: Model, s: State, i: int, p: int) -> bool:
    """Whether the loaded top-level table leads to a page of the kernel: all do that nothing is said about."""
    return p not in m.tops or s.memory[m.where[m.tops[p], s.cpus[i].mm]] != 0


def walk(m: Model, s: State, i: int, p: int) -> Leaf | None:
    """Return what a walk finds now."""
    cpu, page = s.cpus[i], s.pages[p]
    if cpu.mm in s.freed:
        raise Violation("freed_mm")
    table = cached_upper(cpu, p) or (page.table if leads(m, s, i, p) else None)
    if table is None:
        return None
    if table in page.freed:
        raise Violation("freed_table_walk")
    if is_large(m, s, p):
        return None  # the walk ends above, at the large entry
    leaf = dict(page.leaves)[table]
    return leaf if leaf.rights else None


def is_large(m: Model, s: State, p: int) -> bool:
    """Whether a large entry maps the page now (H9)."""
    large = m.regions[p].within
    if large is None:
        return False
    entry = s.pages[large]
    return entry.table is not None and dict(entry.leaves)[entry.table].rights > 0


def used(m: Model, s: State, i: int, p: int) -> tuple[int, Leaf] | None:
    """Return the translation that an access uses, and of which page it is; the TLB is looked at first.

    Of two that are cached the hardware takes either: here the large one, which may be evicted before.
    """
    cpu, large = s.cpus[i], m.regions[p].within
    for page in (p,) if large is None else (large, p):
        if (leaf := cached(m, cpu, page)) is not None:
            return page, leaf
    page = p if large is None or not is_large(m, s, p) else large
    found = walk(m, s, i, page)
    return None if found is None else (page, found)


# -- what the hardware may do at any time ------------------------------------------------------------------------


def fill(m: Model, s: State, i: int, p: int) -> State:
    """Walk, and cache what it finds; the state as it is if that is nothing."""
    found = walk(m, s, i, p)
    if found is None:
        return s
    cpu = s.cpus[i]
    entry = (p, None if m.regions[p].is_global else tag(cpu), found)
    return with_cpu(s, i, leaves=cpu.leaves | {entry})


def fill_upper(s: State, i: int, p: int) -> State:
    """Cache the upper entry of a page, which is present."""
    cpu = s.cpus[i]
    table = s.pages[p].table
    assert table is not None
    return with_cpu(s, i, uppers=cpu.uppers | {(p, tag(cpu), table)})


def evict(m: Model, s: State, i: int, p: int) -> State:
    """Drop a page's leaf of the PCID in use."""
    cpu = s.cpus[i]
    want = None if m.regions[p].is_global else tag(cpu)
    return with_cpu(s, i, leaves=frozenset(e for e in cpu.leaves if e[:2] != (p, want)))


def evict_upper(s: State, i: int, p: int) -> State:
    """Drop a page's paging-structure entry of the PCID in use."""
    cpu = s.cpus[i]
    return with_cpu(s, i, uppers=frozenset(e for e in cpu.uppers if e[:2] != (p, tag(cpu))))


def can_fetch(m: Model, s: State, i: int, part: int) -> bool:
    """Kernel text is in the kernel table; entry text is in the user's too (A1)."""
    cpu, site = s.cpus[i], part // 2
    mapped = not cpu.user or m.assume["T"] == "noinstr" or site in m.decide
    return site in m.sites and mapped and cpu.fetched[part] is None


def fetch(s: State, i: int, part: int) -> State:
    """Fetch and decode a part of a patched instruction."""
    return with_cpu(s, i, fetched=put(s.cpus[i].fetched, part, s.text[part]))


# -- invalidations -----------------------------------------------------------------------------------------------


def forget_all(cpu: Cpu) -> Cpu:
    """Drop every translation, global ones and paging-structure entries too."""
    return cpu._replace(leaves=frozenset(), uppers=frozenset())


def _forget_pcid(cpu: Cpu, gone: Any) -> Cpu:
    """Drop what was cached under some PCIDs; global entries belong to none."""
    return cpu._replace(
        leaves=frozenset(e for e in cpu.leaves if e[1] is None or not gone(e[1])),
        uppers=frozenset(e for e in cpu.uppers if not gone(e[1])),
    )


def invalidate(m: Model, cpu: Cpu, name: str, arg: Any) -> Cpu:
    """Carry out MOV CR4, INVLPG or INVPCID."""
    if name == "MovCr4Pge":
        return forget_all(cpu)._replace(fetched=(None,) * m.parts)
    if (
        name == "Invlpg"
    ):  # the page in this PCID or global; this PCID's upper entries, of other pages without TCE
        pages = m.reached(arg)
        above = pages if m.assume["tce"] == "on" else range(len(m.regions))
        return cpu._replace(
            leaves=frozenset(e for e in cpu.leaves if e[0] not in pages or e[1] not in (None, tag(cpu))),
            uppers=frozenset(e for e in cpu.uppers if e[0] not in above or e[1] != tag(cpu)),
            fetched=(None,) * m.parts,
        )
    if arg["kind"] == "AllGlobal":
        return forget_all(cpu)
    if arg["kind"] == "All":
        return _forget_pcid(cpu, lambda _: True)
    of = (cpu.asid, arg["pcid"] == "User")
    if arg["kind"] == "Context":
        return _forget_pcid(cpu, lambda its: its == of)
    pages = m.reached(arg["pages"])
    return cpu._replace(
        leaves=frozenset(e for e in cpu.leaves if e[0] not in pages or e[1] != of),
        uppers=frozenset(e for e in cpu.uppers if e[0] not in pages or e[1] != of),
    )


def send_broadcast(m: Model, s: State, i: int, name: str, arg: Any) -> State:
    """Start INVLPGB: of everything, or of pages; of user pages with the PCID of the global ASID, the last there is."""
    operands = arg if name == "InvlpgbOf" else {"pages": arg, "leaves": False, "asid": None}
    pages = range(len(m.regions)) if name == "InvlpgbAll" else m.reached(operands["pages"])
    sent = set()
    for p in pages:
        asid = operands["asid"]
        if asid is None and m.regions[p].mm is not None and name != "InvlpgbAll":
            asid = m.asids - 1
        sent.add((p, operands["leaves"], None if asid is None else (asid, False)))
    return with_cpu(s, i, broadcasts=s.cpus[i].broadcasts | sent)


def complete_broadcasts(s: State, i: int) -> State:
    """Carry out on every CPU what this one has broadcast: TLBSYNC, the latest moment it may happen."""
    sent = s.cpus[i].broadcasts
    s = with_cpu(s, i, broadcasts=frozenset())

    def told(c: Cpu) -> Cpu:
        leaves, uppers = c.leaves, c.uppers
        for p, alone, pcid in sent:
            leaves = frozenset(e for e in leaves if e[0] != p or pcid not in (None, e[1]))
            if not alone:
                uppers = frozenset(e for e in uppers if e[0] != p or pcid not in (None, e[1]))
        return c._replace(leaves=leaves, uppers=uppers)

    return s._replace(cpus=tuple(map(told, s.cpus)))


def mov_cr3(m: Model, s: State, i: int, f: Frame, arg: Any) -> State:
    """Write CR3: the half, the ASID and the mm, and what bit 63 says of the new PCID's translations."""
    cpu, to = s.cpus[i], arg["to"]
    if isinstance(to, str):
        user, asid, mm = to == "User" and (m.pti or cpu.user), cpu.asid, cpu.mm
    elif "Reg" in to:
        word = f.regs[to["Reg"]]
        user, asid, mm = bool(word & 1), word >> 1 & 1, word >> 2
    else:
        value = {key: v["Imm"] if "Imm" in v else f.regs[v["Reg"]] for key, v in to["Mm"].items()}
        user, asid, mm = False, value["asid"], value["mm"]
    if mm in s.freed:
        raise Violation("freed_mm")
    owed = arg["keep"] == "Owed" and user and asid in cpu.owes  # the mask is about user PCIDs
    cpu = cpu._replace(user=user, asid=asid, mm=mm, fetched=(None,) * m.parts)
    if owed:
        cpu = cpu._replace(owes=cpu.owes - {asid})
    if not m.pcid:  # bit 63 is no such bit then, and there is one PCID
        cpu = _forget_pcid(cpu, lambda _: True)
    elif owed or arg["keep"] == "Flush":
        cpu = _forget_pcid(cpu, lambda its: its == (asid, user))
    return s._replace(cpus=put(s.cpus, i, cpu))


def switch_asid(m: Model, s: State, i: int) -> State:
    """`switch_mm` to the other ASID: NOFLUSH unless a ranged flush has marked it (FACTS 2.5)."""
    cpu = s.cpus[i]._replace(asid=1 - s.cpus[i].asid, fetched=(None,) * m.parts)
    if cpu.owes_others or not m.pcid:
        cpu = _forget_pcid(cpu._replace(owes_others=False), lambda its: its[0] == cpu.asid)
    return s._replace(cpus=put(s.cpus, i, cpu))
