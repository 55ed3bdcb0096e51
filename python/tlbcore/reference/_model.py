"""What never changes during a search: programs, pages, variables, roles; and the state it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tlbcore.reference._conditions import FAULT
from tlbcore.reference._scope import Question
from tlbcore.reference._state import INIT_MM, NO_MM, NO_PC, Cpu, Frame, Leaf, Page, State, named

__all__ = ["OF_MM", "Model", "Region", "part_of", "site_of"]

OF_MM = 1 << 14  # A8: above the numbers of a count per address space, whose it is

_PARTS = ("Head", "Tail")


def part_of(pages: Any) -> int | None:
    """Return which part of the patched instructions an op is about, all heads and tails in a row."""
    if not (isinstance(pages, dict) and "Text" in pages):
        return None
    site, part = pages["Text"]
    return 2 * int(site) + _PARTS.index(part)


def site_of(op: Any) -> int | None:
    """Return the patched instruction that decides a branch (H10)."""
    name, arg = named(op)
    test = arg["c"] if name == "Unless" else None
    return int(test["Text"]) if isinstance(test, dict) and "Text" in test else None


# Programs that the hardware starts. Without FRED they end in IRET; ERETS, ERETU, SYSRET and the return of a function
# publish nothing (H4).
_DELIVERED = (
    "exception",
    "exception_espfix",
    "exception_bad_iret",
    "interrupt",
    "interrupt_kernel",
    "interrupt_idle",
    "nmi",
    "nmi_user",
    "breakpoint",
)
_START = (-1, 0)


@dataclass(frozen=True, kw_only=True)
class Region:
    """What a tracked page is."""

    name: str
    kind: str  # Vmalloc, DirectMap, Image, PerCpu, EntryArea, User
    mm: int | None  # whose user memory
    is_global: bool
    user_mapped: bool
    present: bool
    within: int | None  # the page of a large entry in which it lies


def accessed(op: tuple[str, Any]) -> int | None:
    """Return the page that an op accesses by itself, or walks in software."""
    name, arg = op
    if name in ("LoadPage", "StorePage", "Walk"):
        return int(arg["page"])
    if name == "Touch" and isinstance(arg, dict) and "Zone" not in arg:
        return int(next(iter(arg.values())))
    return None


class Model:
    """A question, with what is looked up in it."""

    def __init__(self, question: Question) -> None:
        code = question.code
        self.question = question
        self.ops, self.vars, self.fields = code["ops"], code["vars"], code["fields"]
        # A8: the variable that counts what a variable holds.
        self.counts = {
            n: v["holds"]["Count"] for n, v in enumerate(self.vars) if isinstance(v["holds"], dict)
        }
        self.programs = {p["name"]: (p["start"], p["end"]) for p in code["programs"]}
        self.starts = [p["start"] for p in code["programs"]]
        self.roles, self.assume, self.asids = question.roles, question.assume, question.asids
        if "Migrate" in self.ops and any(not role.user and role.left for role in self.roles):
            raise NotImplementedError("rounds beside a task that migrates")
        if "Migrate" in self.ops and any(named(op)[0] in ("Walk", "Rcu", "CallLater") for op in self.ops):
            raise NotImplementedError("walks in software and grace periods beside a task that migrates")
        self.pti, self.pcid = "pti" in question.features, "pcid" in question.features
        self.fred = "fred" in question.features
        self.frames, self.tops = question.frames or {}, question.tops or {}
        run = [op for role in self.roles for name in (role.first, *role.paths) for op in self.ops_of(name)]
        about = [arg["pages"] if name == "Pte" else arg for name, arg in map(named, run) if name in _ABOUT]
        # H10: instructions that decide a branch; entry text may be among them, and both tables map that.
        self.decide = {
            site for name in self._run() for site in map(site_of, self.ops_of(name)) if site is not None
        }
        self.parts = 2 * (1 + len(code.get("sites", ())))
        written = {part // 2 for part in map(part_of, about) if part is not None}
        self.sites = written | self.decide | ({0} if {"Touch": "Text"} in run else set())
        self.has_text = bool(self.sites)
        # A search that is about promises and sees none says nothing; it looks when it is done.
        self.about_promises = any(name in (*_ABOUT, "FreeTable") for name, _ in map(named, run))
        self.seen: set[str] = set()
        # Pages that some program accesses by itself, or walks in software.
        ran = [named(op) for name in self._run() for op in self.ops_of(name)]
        self.accessed = {page for page in map(accessed, ran) if page is not None}
        self.regions = self._regions(code["pages"], tracked=not self.has_text or "Range" in about)
        # A cached pointer to the only table there ever is changes no walk.
        self.tables = any(name == "FreeTable" or (name == "Pte" and arg["level"] == "Table")
                          for name, arg in map(named, self.ops))  # fmt: skip
        entries = [arg for name, arg in map(named, self.ops) if name == "Pte"]
        self.types = any(entry["v"] in _TYPES for entry in entries)  # H11
        uncached = [entry["pages"] for entry in entries if entry["v"] == "Uncached"]
        every = frozenset(range(len(self.regions))) if "Range" in uncached else frozenset()
        self.typed = every | {pages["One"] for pages in uncached if pages != "Range"}
        self.graces = any(op == {"Rcu": "Start"} or named(op)[0] == "CallLater" for op in self.ops)
        self.mms = 1 + max([2, *(r.mm or 0 for r in self.regions), *map(_mm_of, self.ops)])
        self.where = {
            key: at
            for at, key in enumerate((v, who) for v in range(len(self.vars)) for who in self._owners(v))
        }
        self.names = {f["name"]: f for f in self.fields}

    def _regions(self, declared: list[dict[str, Any]], *, tracked: bool) -> tuple[Region, ...]:
        if not declared:
            one = {
                "kind": "Vmalloc",
                "global": not self.pti,
                "user_mapped": False,
                "present": True,
                "within": None,
            }
            declared = [{"name": f"va{n}", **one} for n in range(self.question.pages if tracked else 0)]

        def region(page: dict[str, Any]) -> Region:
            kind = page["kind"]
            return Region(
                name=page["name"],
                kind="User" if isinstance(kind, dict) else kind,
                mm=kind["User"] if isinstance(kind, dict) else None,
                is_global=page["global"],
                user_mapped=page["user_mapped"],
                present=page["present"],
                within=page["within"],
            )

        return tuple(map(region, declared))

    def _run(self) -> set[str]:
        """Return the programs that some CPU can come to: what roles and events start, and what these send or leave."""
        events = ["interrupt", "interrupt_kernel", "interrupt_idle"]
        if self.question.nmis or self.question.mces:
            events += ["nmi", "nmi_user"]
        todo = [name for role in self.roles for name in (role.first, *role.paths)]
        todo += [name for name in (*events, "breakpoint") if name in self.programs]
        found: set[str] = set()
        names = list(self.programs)
        while todo:
            if (name := todo.pop()) not in found:
                found.add(name)
                ops = map(named, self.ops_of(name))
                todo += [
                    names[arg["run"] if what == "Ipi" else arg]
                    for what, arg in ops
                    if what in ("Ipi", "CallLater")
                ]
        return found

    def ops_of(self, program: str) -> list[Any]:
        start, end = self.programs[program]
        return list(self.ops[start:end])

    def _owners(self, var: int) -> range:
        cpus = len(self.roles)
        many = {"One": 1, "Cpu": cpus, "Mm": self.mms, "Asid": cpus * self.asids}
        return range(many[self.vars[var]["copies"]])

    def which(self, pages: Any) -> list[int]:
        """Return the pages an op is about: one, or every page that a flush of kernel memory can name."""
        if isinstance(pages, dict):
            return [pages["One"]] if "One" in pages else []
        alone = len(self.regions) == 1
        return [p for p, region in enumerate(self.regions) if alone or region.mm is None]

    def reached(self, pages: Any) -> list[int]:
        """Return the pages of which an invalidation by address drops leaves: of every size that maps it (H9)."""
        named = self.which(pages)
        large = {self.regions[p].within for p in named} - {None}
        return [p for p in range(len(self.regions)) if p in named or p in large]

    def changed(self, i: int, pages: Any, what: str) -> list[int]:
        """Return the pages whose entries an op changes.

        Of a range those that this CPU owns; of memory that is never unmapped only rights and types change (A1).
        """
        if pages != "Range":
            return self.which(pages)
        if not self.roles[i].writes:
            return []
        lasting = [p for p in self.which(pages) if self.regions[p].kind in ("DirectMap", "Image", "PerCpu")]
        if what in ("LessRights", *_TYPES) and lasting:
            return lasting
        return [p for p in self.which(pages) if p not in lasting]

    def handles_fault(self, i: int, p: int) -> bool:
        """Whether a column may end in a fault at a page (S8): user memory, or what the question names."""
        return self.regions[p].mm is not None or (i, self.regions[p].name) in self.question.faults

    def value_of(self, s: State, name: str) -> int:
        """Return a shared variable as memory has it, or whether a column ended in a fault."""
        if said := FAULT.fullmatch(name):
            fault = s.cpus[int(said[1])].fault
            return int(fault >= 0 and self.regions[fault].name == said[2])
        field = self.names[name]
        word = s.memory[self.where[field["var"], 0]]
        return int(word >> field["shift"] & ((1 << field["bits"]) - 1))

    # -- the start -------------------------------------------------------------------------------------------

    def frame(self, kind: str, program: str, level: int, *, irq: bool = False) -> Frame:
        start, _ = self.programs[program]
        nobody: frozenset[int] = frozenset()
        return Frame(kind, level, program in _DELIVERED, start, NO_PC, -1, nobody, nobody, (0,) * 6, irq)

    def _first(self, var: int) -> int:
        """Return what a count starts at."""
        return int(self.vars[self.counts[var]]["init"])

    def _begins_in_a_section(self, program: str) -> bool:
        """Whether the first word of a program about sections closes one (L10)."""
        words = [
            op["Rcu"]
            for op in self.ops_of(program)
            if isinstance(op, dict) and op.get("Rcu") in ("Lock", "Unlock")
        ]
        return self.graces and words[:1] == ["Unlock"]

    def first(self) -> State:
        """Every CPU is about to run its first program, with `init_mm` loaded and up to date."""
        nothing: frozenset[Any] = frozenset()
        cpus = tuple(
            Cpu(
                frames=(self.frame("task", role.first, 0, irq=not role.user),),
                user=False,
                asid=0,
                mm=INIT_MM,
                kernel_gs=True,
                blocked=False,
                leaves=nothing,
                uppers=nothing,
                fetched=(None,) * self.parts,
                buffer=(),
                stores=0,
                queue=(),
                irq=False,
                serving=-1,
                waits=nothing,
                left=role.left,
                fault=-1,
                devices=role.devices,
                covers=(None,) * len(self.regions),
                covers_text=(None,) * self.parts,
                owes=nothing,
                owes_others=False,
                contexts=(INIT_MM, *(NO_MM,) * (self.asids - 1)),
                next_asid=1,
                info=(INIT_MM, 0),
                broadcasts=nothing,
                reads=self._begins_in_a_section(role.first),
                unwatched=False,
                grace=nothing,
                later=(),
                lines=nothing,
                task=i,
            )
            for i, role in enumerate(self.roles)
        )

        def starts(var: int, who: int) -> int:
            holds, copies, init = (self.vars[var][key] for key in ("holds", "copies", "init"))
            if copies == "Asid" and who % self.asids == 0:  # it holds init_mm, and is up to date
                return self._first(var) if var in self.counts else 1 if holds == "Generation" else int(init)
            return int(init + OF_MM * who if copies == "Mm" and var in self.counts and init else init)

        def page(p: int, region: Region) -> Page:
            leaf = Leaf(_START, _START, 0, 2 * int(region.present))
            cacheds = frozenset({_START}) if region.present and p in self.typed else nothing
            leaves = ((_START, leaf),)
            return Page(_START, _START, leaves, _START, nothing, nothing, nothing, _START, cacheds)

        return State(
            cpus=cpus,
            memory=tuple(starts(var, who) for var, who in self.where),
            pages=tuple(page(p, region) for p, region in enumerate(self.regions)),
            text=((False, 0),) * self.parts,
            dead_text=(nothing,) * self.parts,
            masks=(nothing,) * self.mms,
            freed=nothing,
            nmis=self.question.nmis,
            mces=self.question.mces,
        )


_ABOUT = ("Pte", "Request", "Promise")
_TYPES = ("Uncached", "Cached")


def _mm_of(op: Any) -> int:
    """Return the number of the address space that an op names."""
    name, arg = named(op)
    if name == "FreeMm":
        return int(arg)
    if name == "MovCr3" and isinstance(arg["to"], dict) and "Mm" in arg["to"]:
        return int(arg["to"]["Mm"]["mm"].get("Imm", 0))
    return 0
