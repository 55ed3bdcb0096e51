"""The TLB as one would explain it on a whiteboard: lists of entries, looked through one by one.

Nothing here is clever, so that it can be read next to the manual. The engine must agree with it on every
access, on everything cached and in which order (`tests/tlb/test_tlb_oracle.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tlbcore.hardware import Machine

_SIZES = {"4K": 1, "2M": 512, "1G": 512 * 512}  # in pages of 4 KiB
_MASK64 = (1 << 64) - 1


def splitmix64(seed: int, n: int) -> int:
    """Return the n-th number of SplitMix64 from `seed` (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (seed + (n + 1) * 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK64
    return z ^ z >> 31


@dataclass(kw_only=True)
class Entry:
    """A cached translation of `pages` pages from `vpn`; `pcid` is None for a global one.

    `whole` is the number of pages of the mapping it belongs to: more than `pages` for a piece of a 1 GiB
    page. `version`: so many edits of the tables it is known to be newer than, or untouched by; `overtaken`: the
    next one after these changed its mapping.
    """

    vpn: int
    pages: int
    whole: int
    pcid: int | None
    version: int = 0
    overtaken: bool = False

    def first_of_mapping(self) -> int:
        """First page of the mapping it belongs to."""
        return self.vpn - self.vpn % self.whole


@dataclass(kw_only=True)
class _Set:
    """One set: `ways` places. For LRU and FIFO the order of `places` is the order of age, newest first."""

    policy: str
    ways: int
    groups: int
    seed: int
    places: list[Entry | None] = field(default_factory=list)
    # For each inner node of each tree of ways: does the victim lie to the right?
    right: dict[tuple[int, str], bool] = field(default_factory=dict)
    recent_group: int = 0

    def __post_init__(self) -> None:
        self.places = [None] * self.ways

    def use(self, way: int) -> None:
        """Note that the entry in `way` was just used."""
        if self.policy == "lru":
            self.places.insert(0, self.places.pop(way))
        if self.policy in ("tree-plru", "mru-plru"):
            size = self._tree_size()
            group, inside = divmod(way, size)
            path = format(inside, "b").zfill(size.bit_length() - 1) if size > 1 else ""
            for depth in range(len(path)):
                self.right[group, path[:depth]] = path[depth] == "0"
            self.recent_group = group

    def enter(self, entry: Entry, draw: Iterator[int]) -> Entry | None:
        """Put `entry` in and return what had to leave."""
        if self.policy in ("lru", "fifo"):
            self.places.insert(0, entry)
            return self.places.pop()
        way = self.places.index(None) if None in self.places else self._victim(draw)
        old = self.places[way]
        self.places[way] = entry
        self.use(way)
        return old

    def _tree_size(self) -> int:
        return self.ways if self.policy == "tree-plru" else self.ways // self.groups

    def _victim(self, draw: Iterator[int]) -> int:
        if self.policy == "random":
            return next(draw) * self.ways >> 64
        group = 0 if self.policy == "tree-plru" else (self.recent_group + 1) % self.groups
        size = self._tree_size()
        path = ""
        while 1 << len(path) < size:
            path += "1" if self.right.get((group, path), False) else "0"
        return group * size + (int(path, 2) if path else 0)

    def remove(self, doomed: list[Entry]) -> None:
        """Take entries out; the others keep their order, and the dead places become free."""
        dead = {id(entry) for entry in doomed}
        alive = [None if id(place) in dead else place for place in self.places]
        if self.policy in ("lru", "fifo"):
            kept = [place for place in alive if place is not None]
            alive = [*kept, *[None] * (self.ways - len(kept))]
        self.places = alive


class _Structure:
    """One array of sets."""

    def __init__(self, shape: Mapping[str, Any]) -> None:
        self.shape = shape
        policy, ways, groups, seed = shape["replacement"], shape["ways"], shape["groups"], shape["seed"]
        self.sets = [_Set(policy=policy, ways=ways, groups=groups, seed=seed) for _ in range(shape["sets"])]
        self.contexts = [0]  # those it keeps, most recent first
        self.draws = (splitmix64(seed, n) for n in range(1 << 62))

    def holds(self, size: str, kind: str) -> bool:
        smashed = size == "1G" and self.shape["smashes_1g"]
        return kind in self.shape["kinds"] and (size in self.shape["sizes"] or smashed)

    def cached_size(self, size: str) -> str:
        """Return the size under which it caches a page of `size`: 1 GiB may be cut into 2 MiB."""
        return size if size in self.shape["sizes"] else "2M"

    def set_of(self, vpn: int, size: str) -> _Set:
        page = vpn // _SIZES[self.cached_size(size)]
        if self.shape["index"] == "xor" and len(self.sets) > 1:
            bits = len(self.sets).bit_length() - 1
            page = page ^ page >> bits
        return self.sets[page % len(self.sets)]

    def entries(self) -> list[Entry]:
        return [place for one in self.sets for place in one.places if place is not None]

    def remove(self, doomed: list[Entry]) -> int:
        for one in self.sets if doomed else []:
            one.remove(doomed)
        return len(doomed)


class Tlb:
    """The TLB of one CPU. Methods take pages as `address >> 12` and sizes as "4K", "2M", "1G"."""

    def __init__(self, machine: Machine) -> None:
        about = machine._about
        self.levels = [[_Structure(shape) for shape in level["structures"]] for level in about["levels"]]
        self.names = [level["name"] for level in about["levels"]]
        self.inclusive = [level["inclusive"] for level in about["levels"]]
        self.table_levels = about["table_levels"]
        self.psc_room = about["psc"]
        # Cached pointers to page tables, by level (0: PDE), most recent first: (pages they cover, context).
        self.psc: list[list[tuple[int, int]]] = [[], [], [], []]
        self.pcid = 0
        # Stores to the tables so far: first page, pages, context (None: all). Their number is the tables' version.
        self.edits: list[tuple[int, int, int | None]] = []
        names = [f"{name}_hits" for name in self.names]
        psc = ["pde_hits", "pdpte_hits", "pml4e_hits", "pml5e_hits"]
        rest = ["walks", "walk_loads", "stale_hits", "stale_walks", "switches", "invalidated"]
        self.counters = dict.fromkeys(["accesses", *names, *psc, *rest], 0)

    def switch(self, pcid: int) -> None:
        """MOV CR3 with NOFLUSH."""
        if pcid == self.pcid:
            return
        self.pcid = pcid
        self.counters["switches"] += 1
        for structure in self._structures():
            room = structure.shape["pcid_slots"]
            if room is None:
                continue
            if pcid in structure.contexts:
                structure.contexts.remove(pcid)
            structure.contexts.insert(0, pcid)
            for gone in structure.contexts[max(room, 1) :]:
                doomed = [entry for entry in structure.entries() if entry.pcid == gone]
                self.counters["invalidated"] += structure.remove(doomed)
            del structure.contexts[max(room, 1) :]

    def access(self, vpn: int, kind: str = "load", size: str = "4K", is_global: bool = False) -> int:
        """Return the level that answers, or the number of levels after a walk; fill the levels above it."""
        self.counters["accesses"] += 1
        level, found = self._look_up(vpn, kind, size)
        if found is None:
            self.counters["walks"] += 1
            self._walk(vpn, size)
            pcid, version = (None if is_global else self.pcid), len(self.edits)
        else:
            self.counters[f"{self.names[level]}_hits"] += 1
            self.counters["stale_hits"] += self.is_stale(found)
            pcid, version = found.pcid, found.version
        for above in reversed(range(level)):
            structure = self._home(above, vpn, kind, size)
            if structure is None:
                continue
            pages = _SIZES[structure.cached_size(size)]
            entry = Entry(vpn=vpn - vpn % pages, pages=pages, whole=_SIZES[size], pcid=pcid, version=version)
            victim = structure.set_of(vpn, size).enter(entry, structure.draws)
            if victim is not None and self.inclusive[above]:
                self._evict_above(above, victim)
        return level

    def fill(self, vpn: int, size: str = "4K", is_global: bool = False) -> None:
        """Access speculatively: nothing is counted."""
        before = dict(self.counters)
        self.access(vpn, "load", size, is_global)
        self.counters = before

    def invalidate(
        self, *, vpn: int | None = None, pcid: int | None = None, globals_too: bool, psc: str = "context"
    ) -> None:
        """Remove one page or all, of one context or all; `psc` is none, page or context."""
        for structure in self._structures():
            doomed = [entry for entry in structure.entries() if _falls(entry, vpn, pcid, globals_too)]
            self.counters["invalidated"] += structure.remove(doomed)
        if psc == "none":
            return
        for level, cached in enumerate(self.psc):
            covered = 512 ** (level + 1)
            self.psc[level] = [
                (page, context)
                for page, context in cached
                if not (
                    (pcid is None or context == pcid)
                    and (psc == "context" or vpn is None or page == vpn // covered)
                )
            ]

    def edit(self, vpn: int, pages: int, pcid: int | None) -> None:
        """Note that the tables of these pages changed; `pcid` None means in every context."""
        self.edits.append((vpn, pages, pcid))

    def is_stale(self, entry: Entry) -> bool:
        """Return whether an edit after the entry was filled concerns what it maps."""
        first = entry.first_of_mapping()
        while not entry.overtaken and entry.version < len(self.edits):
            vpn, pages, pcid = self.edits[entry.version]
            overlaps = first < vpn + pages and vpn < first + entry.whole
            if overlaps and (pcid is None or entry.pcid is None or entry.pcid == pcid):
                entry.overtaken = True
            else:
                entry.version += 1
        return entry.overtaken

    def entries(self) -> list[tuple[int, int, int, int, int, int, int | None, bool]]:
        """Everything cached: level, structure, set, way, first page, pages, context, stale."""
        rows = []
        number = 0
        for level, structures in enumerate(self.levels):
            for structure in structures:
                for index, one in enumerate(structure.sets):
                    for way, entry in enumerate(one.places):
                        if entry is not None:
                            rows.append(
                                (
                                    level,
                                    number,
                                    index,
                                    way,
                                    entry.vpn,
                                    entry.pages,
                                    entry.pcid,
                                    self.is_stale(entry),
                                )
                            )
                number += 1
        return rows

    def _structures(self) -> list[_Structure]:
        return [structure for level in self.levels for structure in level]

    def _home(self, level: int, vpn: int, kind: str, size: str) -> _Structure | None:
        """Return the structure of a level that may hold the page; banks share by the bit above the index."""
        banks = [structure for structure in self.levels[level] if structure.holds(size, kind)]
        if not banks:
            return None
        page = vpn // _SIZES[banks[0].cached_size(size)]
        sets = 1
        while sets < len(banks[0].sets):
            sets *= 2
        return banks[page // sets % len(banks)]

    def _look_up(self, vpn: int, kind: str, size: str) -> tuple[int, Entry | None]:
        for level in range(len(self.levels)):
            structure = self._home(level, vpn, kind, size)
            if structure is None:
                continue
            one = structure.set_of(vpn, size)
            pages = _SIZES[structure.cached_size(size)]
            for way, entry in enumerate(one.places):
                if entry is None or (entry.pages, entry.whole) != (pages, _SIZES[size]):
                    continue
                if entry.vpn == vpn - vpn % pages and entry.pcid in (None, self.pcid):
                    one.use(way)
                    return level, entry
        return len(self.levels), None

    def _walk(self, vpn: int, size: str) -> None:
        """Read table entries from the deepest cached pointer down to the leaf."""
        leaf = list(_SIZES).index(size)
        begin = self.table_levels - 1
        for level in range(leaf, self.table_levels - 1):
            pointer = (vpn // 512 ** (level + 1), self.pcid)
            if pointer in self.psc[level]:
                self.psc[level].remove(pointer)
                self.psc[level].insert(0, pointer)
                self.counters[["pde_hits", "pdpte_hits", "pml4e_hits", "pml5e_hits"][level]] += 1
                begin = level
                break
        for level in range(leaf, begin):
            self.psc[level].insert(0, (vpn // 512 ** (level + 1), self.pcid))
            del self.psc[level][self.psc_room[level] :]
        self.counters["walk_loads"] += begin - leaf + 1

    def _evict_above(self, level: int, victim: Entry) -> None:
        for structures in self.levels[:level]:
            for structure in structures:
                doomed = [
                    entry
                    for entry in structure.entries()
                    if entry.pcid == victim.pcid
                    and entry.whole == victim.whole
                    and entry.first_of_mapping() == victim.first_of_mapping()
                ]
                self.counters["invalidated"] += structure.remove(doomed)


def _falls(entry: Entry, vpn: int | None, pcid: int | None, globals_too: bool) -> bool:
    context = globals_too if entry.pcid is None else pcid is None or entry.pcid == pcid
    first = entry.first_of_mapping()
    return context and (vpn is None or first <= vpn < first + entry.whole)


def run(tlbs: list[Tlb], event: Mapping[str, int]) -> int:
    """Execute one event of `tlbcore.EVENT`; return the level that answered, 255 if it is no access."""
    tlb = tlbs[event["cpu"]]
    op, vpn, pcid, flags = event["op"], event["vpn"], event["pcid"], event["flags"]
    pages = range(vpn, vpn + max(event["pages"], 1))
    size = list(_SIZES)[flags >> 2 & 3]
    is_global = bool(flags & 1)
    if op <= 2:
        tlb.switch(pcid)
        return tlb.access(vpn, ("load", "store", "fetch")[op], size, is_global)
    if op == 3:
        tlb.switch(pcid)
        tlb.fill(vpn, size, is_global)
    elif op == 4:
        tlb.switch(pcid)
        if not flags & 2:
            tlb.invalidate(pcid=pcid, globals_too=False)
    elif op == 5:
        for page in pages:
            tlb.invalidate(vpn=page, pcid=tlb.pcid, globals_too=True)
    elif op == 6:
        for page in pages:
            tlb.invalidate(vpn=page, pcid=pcid, globals_too=False, psc="page")
    elif op == 7:
        tlb.invalidate(pcid=pcid, globals_too=False)
    elif op == 8:
        tlb.invalidate(globals_too=True)
    elif op == 9:
        tlb.invalidate(globals_too=False)
    elif op == 10:
        context = pcid if flags & 32 else None
        has_page = bool(flags & 16)
        psc = "none" if flags & 64 else "page" if has_page else "context"
        for each in tlbs:
            for one in pages if has_page else [None]:
                each.invalidate(vpn=one, pcid=context, globals_too=is_global, psc=psc)
    elif op == 11:
        for each in tlbs:
            each.edit(vpn, len(pages), None if flags & 128 else pcid)
    return 255
