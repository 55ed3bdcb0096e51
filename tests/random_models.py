"""Random litmus tests over every rule and every input of the checker: what the differentials compare searches on.

A model is the text of a litmus test, decided by a seed and a number. Columns are protocols that mean something (change
an entry, ask for a flush, flush, rely on it; enter and leave the kernel with a flag; use, load and store) with ops
dropped, swapped and put in, so that about half break a rule. Entry paths, handlers and bodies are a few ops each, so
that the second explorer ends too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

import tlbcore as tc
from tlbcore import _core

__all__ = ["models", "patched", "text_of", "typing", "waiting", "walking"]

Rng = random.Random
ZONES = ("danger", "kernel", "entry", "percpu", "user", "nmi", "directmap", "image", "recycled")
ACCESS = re.compile(r"^ *(?:read|write|let \w+ = load|store) (\w)\b", re.MULTILINE)
Lines = list[str]


def models(count: int, seed: int, make: Callable[[int, int], str] | None = None) -> Iterator[tuple[int, str]]:
    """Yield that many models that parse, with their numbers; `make` returns that of a seed and a number."""
    make = make or text_of
    number = 0
    for _ in range(count):
        while True:
            number += 1
            text = make(seed, number)
            try:
                _core.policy_code(text, "litmus", [])
            except tc.PolicyError:
                continue
            break
        yield number, text


def text_of(seed: int, number: int) -> str:
    """Return the model of a seed and a number."""
    rng = random.Random(f"{seed}/{number}")
    return Draft(rng).text(f"m{seed}-{number}")


def walking(seed: int, number: int) -> str:
    """Return a model in whose columns and handlers walks in software are put in, some with interrupts off."""
    rng = random.Random(f"walks {seed}/{number}")
    draft = Draft(rng)
    draft.tables = rng.random() < 0.7
    text = draft.text(f"w{seed}-{number}")
    return put_in(text, rng, lambda: draft.walks())


def typing(seed: int, number: int) -> str:
    """Return a model some of whose entries become uncached, and in which lines are flushed here and there."""
    rng = random.Random(f"types {seed}/{number}")
    draft = Draft(rng)
    draft.tables = draft.data = False

    def typed(change: re.Match[str]) -> str:
        type_ = rng.choice(("uncached", "uncached", "uncached", "cached"))
        return f"{change[1]} = {type_ if rng.random() < 0.7 else change[2]}"

    def flushed(promise: re.Match[str]) -> str:
        lines = rng.choice(("clflush {}", "clflush {}", "clflush {}", "wbinvd", "fence")).format(promise[2])
        return f"{promise[1]}{lines}\n{promise[0]}"

    text = re.sub(r"(pte \w+) = (none|fresh|less-rights)", typed, draft.text(f"t{seed}-{number}"))
    text = re.sub(r"^( +)promise ([kj])$", flushed, text, flags=re.MULTILINE)
    return put_in(text, rng, lambda: draft.lines()) if rng.random() < 0.4 else text


def waiting(seed: int, number: int) -> str:
    """Return a model of somebody who takes an entry away and waits, or not, for those who walk."""
    rng = random.Random(f"grace {seed}/{number}")
    draft = Draft(rng)
    draft.pages, draft.mm, draft.asids, draft.mces = ["k"], 0, 1, 0
    draft.regions = {"k": rng.choice(("vmalloc", "vmalloc", "vmalloc, global", "user of 0"))}
    draft.features, draft.tables = "pcid invpcid invlpgb", rng.random() < 0.6
    draft.data = draft.flags = draft.waits = draft.text_is_patched = False
    walkers = [draft.shaken(draft.sections()) for _ in range(1 if rng.random() < 0.85 else 2)]
    body = [
        block("cpu 0", draft.shaken(draft.taking())),
        *(block(f"cpu {n + 1}", w) for n, w in enumerate(walkers)),
    ]
    body += [block("handler", ["invpcid all-including-global"]), block("nothing", ["lfence"])]
    body += [block("freeing", ["free table k" if draft.tables else "pte k = fresh locked"])]
    body += [block("interrupt_kernel", ["handle calls"])]
    if draft.nmis:
        body.append(
            block(
                "nmi", rng.choice((["walk entries of k"], ["rcu watch", "walk k", "rcu unwatch"], ["fence"]))
            )
        )
    return draft.header(f"g{seed}-{number}", [], []) + "".join(body)


def patched(seed: int, number: int) -> str:
    """Return a model of instructions that decide branches while they are patched, with some stack, CR3 and GSBASE."""
    rng = random.Random(f"patch {seed}/{number}")
    sites = rng.choice(([""], [""], [""], ["s "], ["s ", "t "], ["", "s "]))
    pti = rng.random() < 0.5
    features = (
        "pti pcid invpcid" if pti else rng.choice(("pcid invpcid", "pcid invpcid", "pcid invpcid fred"))
    )
    flags = {
        "gs=faults": 0.4,
        "interrupts=keep": 0.25,
        "stores=sc": 0.2,
        "fills=demand": 0.2,
        "T=danger": 0.2,
    }
    assume = " ".join(flag for flag, often in flags.items() if rng.random() < often) or "D=none"
    nmis, mces = rng.choice(((0, 0),) * 5 + ((1, 0), (2, 0), (0, 1), (1, 1)))
    by = rng.choice(("syscall", "syscall", "exception", "interrupt", ""))
    out = [f"litmus p{seed}-{number}", "  based on ipi", "  var f : 1 bit, per cpu, starts 1, user mapped"]
    out += [f"  site {name.strip()}" for name in sites if name]
    out += [f'  features "{features}"', f'  assume "{assume}"', f'  nmis "{nmis}"', f'  mces "{mces}"']
    out += [f'  cpus "isolated 1 by {by}"'] if by else []

    def line() -> Lines:
        s = rng.choice(sites)
        return rng.choice(
            (
                [f"if text {s}is new", "  f = 1", "else", "  f = 0"],
                [f"if text {s}is new", "  f = 1", "else", "  f = 0"],
                [f"if not text {s}is new", "  serialize"],
                ["rsp scratch", f"if text {s}is new", "  lfence", "rsp stack"],
                [rng.choice(("rsp scratch", "rsp stack"))],
                [rng.choice(("run text", "touch kernel", "touch entry", "touch percpu"))],
                [rng.choice(("serialize", "fence", "f = 0", "xchg f, 1"))],
                [rng.choice(("swapgs", "cli", "sti"))],
                [f"text {s}{rng.choice(('tail = new', 'head = int3', 'head = new'))}"],
            )
        )

    def some(most: int) -> Lines:
        return [new for _ in range(rng.randint(1, most)) for new in line()]

    poke: Lines = []
    for part, value in (("head", "int3"), ("tail", "new"), ("head", "new")):
        if rng.random() < 0.25:
            continue
        s = rng.choice(sites)
        sync = rng.choice(
            (["ipi others, handler", "await acks"], ["ipi others, handler", "await acks"], ["lfence"])
        )
        poke += [f"text {s}{part} = {value}", rng.choice(("serialize", "fence", "lfence"))]
        asks = rng.random() < 0.5
        poke += [f"request text {s}{part}", *sync, f"promise text {s}{part}"] if asks else sync
    first = 1 if by else 0
    body = block(f"cpu {first}", poke) + ("" if by else block("cpu 1", some(3)))
    to_kernel, to_user = ("mov cr3, kernel noflush", "mov cr3, user noflush") if pti else ("lfence", "lfence")
    gs = "lfence" if "fred" in features else rng.choice(("swapgs", "lfence"))
    enter = rng.choice(([gs, to_kernel, "rsp stack"], [gs, to_kernel], [to_kernel, "rsp stack", gs]))
    before = some(1) if rng.random() < 0.3 else []
    leave = [to_user, *rng.choice(([], ["rsp scratch"])), gs]
    if by:
        body += block("enter_user", leave)
        body += "".join(block(name, [*before, *enter, *some(2), *leave]) for name in ("syscall", "exception"))
        body += block("interrupt", [*before, *enter, "handle calls", *leave])
    body += block("handler", [rng.choice(("serialize", "serialize", "lfence"))])
    body += block("interrupt_kernel", ["handle calls", *(some(1) if rng.random() < 0.2 else [])])
    if (kind := rng.random()) < 0.7:
        own = ["touch stack", "touch percpu", rng.choice(("f = 1", "serialize", "touch nmi"))]
        body += block("breakpoint", own if kind < 0.4 else some(1))
    if nmis + mces:
        lines = some(1)
        back = ["if saved is user", "  mov cr3, saved noflush"]
        body += block("nmi_user", [gs, to_kernel, *lines, to_user, gs])
        body += block(
            "nmi", ["let saved = cr3", "if saved is user", "  mov cr3, kernel noflush", *lines, *back]
        )
    return "\n".join(out) + "\n" + body


def put_in(text: str, rng: Rng, lines: Callable[[], Lines]) -> str:
    """Return a text with lines put before some of its statements."""
    out: Lines = []
    sections = False
    for line in text.splitlines():
        sections |= not line
        outermost = line.startswith("  ") and not line.startswith(("   ", "  else"))
        if sections and outermost and rng.random() < 0.3:
            out += [f"  {new}" for new in lines()]
        out.append(line)
    return "\n".join(out) + "\n"


def block(name: str, lines: Lines) -> str:
    """Return a section; one of no lines has a statement that does nothing."""
    return f"\n{name}\n" + "".join(f"  {line}\n" for line in lines or ["lfence"])


class Draft:
    """What one model is made of: first what there is, then who does what with it."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.pages = ["k"] if rng.random() < 0.85 else ["k", "j"]
        self.tables = rng.random() < 0.45
        self.data = not self.tables and rng.random() < 0.2
        self.asids = 2 if rng.random() < 0.15 else 1
        self.features = rng.choice(
            [None] * 5 + ["pcid invpcid", "pcid invpcid invlpgb", "pti invpcid", "housekeeping_overridden"]
        )
        self.text_is_patched = rng.random() < 0.08
        self.nmis, self.mces = (int(rng.random() < p) for p in (0.15, 0.08))
        self.regions = {p: self.region() for p in self.pages}
        self.mm = 2 if "user of 2" in self.regions.values() else 0
        self.flags = rng.random() < 0.5  # senders leave out whoever says that it is in user mode
        self.waits = rng.random() < 0.25  # somebody waits for the first column to say that it is under way

    def text(self, name: str) -> str:
        rng = self.rng
        roles = self.roles() if rng.random() < 0.25 else []
        cpus = 2 if rng.random() < 0.93 else 3
        columns = range(len(roles), cpus if not roles else len(roles) + (rng.random() < 0.15))
        body = [
            block(f"cpu {n}", self.column(writer=n == 0 or (n == len(roles) and rng.random() < 0.5)))
            for n in columns
        ]
        body += [
            block("handler", self.handler()),
            *(block(name, lines) for name, lines in self.entries(roles=bool(roles))),
        ]
        accesses = [
            (n, page) for n, column in zip(columns, body, strict=False) for page in ACCESS.findall(column)
        ]
        return self.header(name, roles, accesses) + "".join(body)

    # -- the header ----------------------------------------------------------------------------------------------

    def region(self) -> str:
        rng = self.rng
        kind = rng.choice(
            ["vmalloc"] * 9
            + [
                "direct map",
                "direct map",
                "image",
                "per cpu",
                "entry area",
                "user of 0",
                "user of 0",
                "user of 2",
            ]
        )
        if self.tables and kind == "direct map":
            kind = "vmalloc"
        words = [kind]
        if rng.random() < 0.25 and "user" not in kind:
            words.append("global")
        if rng.random() < (0.7 if kind == "entry area" else 0.2):
            words.append("user mapped")
        if rng.random() < 0.05:
            words.append("absent")
        return ", ".join(words)

    def header(self, name: str, roles: Lines, accesses: list[tuple[int, str]]) -> str:
        rng = self.rng
        out = [f"litmus {name}", '  verdict "verified"', '  "random"']
        if roles:
            out.append(f'  cpus "{"; ".join(roles)}"')
        if self.features is not None:
            out.append(f'  features "{self.features}"')
        if self.asids > 1:
            out.append('  asids "2"')
        out += [f'  {key} "1"' for key, on in (("nmis", self.nmis), ("mces", self.mces)) if on]
        choices = {
            "D": ("directmap", "recycled", "recycled"),
            "N": ("directmap", "recycled", "recycled"),
            "T": ("danger", "noinstr"),
            "invpcid": ("ordered", "ordered", "publishes"),
            "tce": ("off",),
            "interrupts": ("keep",),
            "broadcast": ("drains",),
            "stores": ("sc",),
            "fills": ("demand",),
            "gs": ("faults",),
            "range": ("pages",),
        }
        likely = {"D": 0.4, "N": 0.4, "invpcid": 0.4, "tce": 0.3}
        said = [f"{k}={rng.choice(v)}" for k, v in choices.items() if rng.random() < likely.get(k, 0.1)]
        if said:
            out.append(f'  assume "{" ".join(said)}"')
        if self.data:
            out.append('  frames "k: x y"')
        if self.data or rng.random() < 0.15:
            a, b = rng.sample(["r0", "r1", "flag", "x", "y"], 2)
            key = "exists" if rng.random() < 0.7 else "never"
            out.append(
                f'  {key} "{a} == {rng.randrange(2)} {rng.choice(("and", "or", "and not"))} {b} == {rng.randrange(2)}"'
            )
        elif accesses and rng.random() < 0.15:
            fault = "fault({}, {})".format(*rng.choice(accesses))
            said = rng.choice(
                (f'exists "r0 == 3 and {fault}"', f'forall "not {fault}"', f'locations "{fault}"')
            )
            out.append(f"  {said}")
        out += [f"  page {p} : {region}" for p, region in self.regions.items()]
        out += [
            f"  var {v} : 2 bits, shared, starts {n}" for v, n in (("r0", 3), ("r1", 3), ("x", 1), ("y", 0))
        ]
        out.append("  var flag : 1 bit, shared, starts 0")
        out.append(
            f"  var inside : 2 bits, per cpu, starts 1{', user mapped' if rng.random() < 0.95 else ''}"
        )
        return "\n".join(out) + "\n"

    def roles(self) -> Lines:
        """Say what the first CPUs do by roles: initiators of the kernel, and isolated CPUs by every path."""
        rng = self.rng
        initiators = ["purge", "vunmap", "table_free", "set_memory", "text_breakpoint", "purge*2"]
        paths = ["syscall"] * 3 + [
            "exception",
            "exception_espfix",
            "exception_bad_iret",
            "sysenter_compat",
            "interrupt",
        ]
        out = [rng.choice(initiators)]
        if rng.random() < 0.15:
            out.append(rng.choice(["isolated purge", "vunmap", "isolated table_free"]))
        if rng.random() < 0.85 or len(out) == 1:
            out.append(f"isolated {rng.choice((0, 0, 0, 1, 1, 'unbounded'))} by {rng.choice(paths)}")
        if "text_breakpoint" not in out and rng.random() < 0.3:
            rng.shuffle(out)
        return out

    # -- ops -----------------------------------------------------------------------------------------------------

    def page(self) -> str:
        return self.rng.choice(self.pages)

    def flush(self, page: str | None = None) -> Lines:
        """Return a flush of this CPU's own translations, or of too few of them."""
        p = page or self.page()
        if self.flags and self.rng.random() < 0.6:
            return self.rng.choice(
                (["invpcid all-including-global"], ["mov cr4, pge off", "mov cr4, pge on"], ["invpcid all"])
            )
        return self.rng.choice(
            [
                [f"invlpg {p}"],
                [f"invlpg {p}"],
                ["invpcid all-including-global"],
                ["invpcid all-including-global"],
                ["invpcid all"],
                [f"invpcid context {self.rng.choice(('kernel', 'user'))}"],
                [f"invpcid address {self.rng.choice(('kernel', 'user'))} {p}"],
                ["mov cr3, kernel flush"],
                ["mov cr4, pge off", "mov cr4, pge on"],
                ["owe user"],
                ["owe others"],
            ]
        )

    def change(self, p: str) -> Lines:
        rng = self.rng
        locked = " locked" if rng.random() < 0.6 else ""
        if self.tables and rng.random() < 0.8:
            return [f"table {p} = {rng.choice(('none', 'none', 'fresh'))}{locked}"]
        what = rng.choice(("none", "none", "fresh", "less-rights"))
        return [f"pte {p} = {what}{locked}"]

    def told(self, p: str) -> Lines:
        """Return how others are told to flush, or not."""
        rng = self.rng
        test = rng.choice(
            ["inside[cpu]", "inside[cpu] & 1", "cpu in housekeeping", "cpu in housekeeping or inside[cpu]"]
        )
        queue = [["ipi others, handler"], ["await acks"]]
        if self.flags:
            test = rng.choice(["inside[cpu]", "inside[cpu]", test])
        some = [
            ["fence"] if rng.random() < 0.7 else [],
            [f"each cpu in others\n    if {test}\n      put cpu into targets"],
            ["ipi targets, handler"],
            ["await acks"],
        ]
        hardware = rng.choice(
            [
                [[f"invlpgb {p}{self.operands()}"], ["tlbsync"]],
                [[f"invlpgb {p}"], ["tlbsync"]],
                [["invlpgb all"], ["tlbsync"]],
                [["rar others"]],
            ]
        )
        return [
            line
            for part in rng.choice(
                [some] * 6 + [hardware] if self.flags else [queue, queue, queue, some, hardware, []]
            )
            for line in part
        ]

    def operands(self) -> str:
        rng = self.rng
        asid = f" asid {rng.randrange(self.asids)}" if rng.random() < 0.4 else ""
        return asid + (" final" if rng.random() < 0.4 else "")

    def any_op(self) -> Lines:
        rng = self.rng
        p = self.page()
        r = rng.choice(("r0", "r1"))
        if self.text_is_patched and rng.random() < 0.4:
            return rng.choice((["run text"], ["run text"], ["serialize"], ["touch danger"]))
        choices: list[Callable[[], Lines]] = [
            lambda: [f"read {p}"],
            lambda: [f"read {p}"],
            lambda: [f"write {p}"],
            lambda: [f"let r = load {p}", f"{r} = r"],
            lambda: [f"store {p}, {rng.randrange(3)}"],
            lambda: [f"touch {rng.choice(ZONES)}"],
            lambda: ["body syscall"],
            lambda: [f"{rng.choice(('x', 'y'))} = {rng.randrange(2)}"],
            lambda: [f"let s = {rng.choice(('x', 'y', 'flag', 'inside'))}", f"{r} = s"],
            lambda: [f"xchg {rng.choice(('x', 'inside'))}, {rng.randrange(2)}"],
            lambda: [f"inside = {rng.randrange(3)}"],
            lambda: [rng.choice(("fence", "fence", "lfence", "serialize"))],
            lambda: self.flush(p),
            lambda: self.change(p),
            lambda: [f"mov cr3, kernel {rng.choice(('noflush', 'flush', 'owed'))}"],
            lambda: [
                f"mov cr3, user {rng.choice(('noflush', 'flush', 'owed'))}",
                "touch user",
                "mov cr3, kernel noflush",
            ],
            lambda: [
                f"mov cr3, mm {self.mm if rng.random() < 0.7 else 2} asid {rng.randrange(self.asids)} noflush"
            ],
            lambda: [rng.choice(("cli", "sti", "swapgs"))],
            lambda: [f"if {rng.choice(('flag', 'inside & 2', 'x'))}\n    {rng.choice(self.flush(p))}"],
            lambda: ["flag = 1"],
            lambda: [f"if either\n    {rng.choice(self.flush(p))}"],
            lambda: [f"request {p}", f"promise {p}"],
            lambda: [f"free table {p}"] if self.tables else [f"read {p}"],
        ]
        return rng.choice(choices)()

    def lines(self) -> Lines:
        """Flush lines, or change a type."""
        p = self.page()
        return self.rng.choice(
            ([f"clflush {p}"], ["wbinvd"], [f"pte {p} = uncached"], [f"pte {p} = cached locked"])
        )

    def walks(self) -> Lines:
        """Walk in software: in one go, or with interrupts off, perhaps using nothing."""
        walk = [self.rng.choice((f"walk {self.page()}", f"walk entries of {self.page()}"))]
        return ["cli", *walk, "sti"] if self.rng.random() < 0.4 else walk

    def sections(self) -> Lines:
        """Walk in a read-side section, with interrupts off, where RCU does not watch, or just so."""
        walk = self.rng.choice((f"walk {self.page()}", f"walk entries of {self.page()}"))
        before = self.rng.choice(([], [], ["rcu unwatch"], ["rcu unwatch", "rcu watch"], ["x = 1"]))
        around = self.rng.choice(
            (["rcu lock", walk, "rcu unlock"], ["cli", walk, "sti"], ["cli", walk, "sti"], [walk])
        )
        return [*before, *around, *self.rng.choice(([], [], ["rcu watch"], ["let s = y", "r1 = s"]))]

    def taking(self) -> Lines:
        """Take an entry away, flush, wait for those who may have seen it, and use again what it led to."""
        rng = self.rng
        level = "table" if self.tables else "pte"
        flush = rng.choice((["invlpgb k", "tlbsync"], ["ipi others, handler", "invlpg k", "await acks"]))
        waits = [["synchronize"]] * 3 + [["ipi others, nothing", "await acks"], [], ["call later freeing"]]
        wait = rng.choice(waits)
        end = (
            []
            if wait == ["call later freeing"]
            else ["free table k" if self.tables else "pte k = fresh locked"]
        )
        locked = " locked" if rng.random() < 0.8 else ""
        begin = rng.choice([[]] * 14 + [["rcu lock"], ["cli"]])
        return [*begin, f"{level} k = none{locked}", "request k", *flush, *wait, "promise k", *end]

    def shaken(self, lines: Lines) -> Lines:
        """Return the lines with some dropped, swapped with the next, or followed by another op."""
        rng = self.rng
        out: Lines = []
        for line in lines:
            if rng.random() < 0.05:
                continue
            out.append(line)
            if rng.random() < 0.08:
                out += self.any_op()
        if len(out) > 1 and rng.random() < 0.2:
            at = rng.randrange(len(out) - 1)
            out[at], out[at + 1] = out[at + 1], out[at]
        return out

    # -- columns -------------------------------------------------------------------------------------------------

    def column(self, *, writer: bool) -> Lines:
        rng = self.rng
        if writer and self.text_is_patched:
            return self.shaken(self.patching())
        if writer:
            return self.loaded(self.shaken(self.flushing()))
        kinds = (
            [self.entering] * 4 + [self.using]
            if self.flags
            else [self.entering, self.using, self.using, self.flushing]
        )
        if self.waits:
            kinds += [self.asking] * 3
        return self.loaded(self.shaken(rng.choice(kinds)()))

    def loaded(self, lines: Lines) -> Lines:
        """Return the lines behind a switch to the address space that the pages are of."""
        load = [f"mov cr3, mm {self.mm} asid 0 noflush"] if self.mm and self.rng.random() < 0.9 else []
        return load + lines

    def flushing(self) -> Lines:
        rng = self.rng
        p = self.page()
        after = [[f"pte {p} = fresh"], [f"read {p}"], ["body syscall"], [], []]
        if self.tables:
            after += [[f"free table {p}"]] * 8
        return [
            *self.change(p),
            *(["flag = 1"] if self.waits else []),
            f"request {p}",
            *(self.told(p) if rng.random() < 0.9 else []),
            *self.flush(p),
            f"promise {p}",
            *rng.choice(after),
        ]

    def patching(self) -> Lines:
        rng = self.rng
        told = self.told("k")
        new = ["text tail = new", "serialize", "text head = new", "serialize"] if rng.random() < 0.3 else []
        return ["text head = int3", "serialize", "request text head", *told, "promise text head", *new]

    def entering(self) -> Lines:
        """Go to user mode and come back, with a flag that senders test."""
        rng = self.rng
        out, back = rng.choice([("xchg inside, 0", "xchg inside, 1"), ("inside = 0", "inside = 1")])
        leave = [out, f"mov cr3, user {rng.choice(('noflush', 'owed', 'flush'))}"]
        enter = [back, "mov cr3, kernel noflush", *self.flush()]
        rng.shuffle(leave)
        if rng.random() < 0.5:
            enter = [enter[1], enter[0], *enter[2:]]
        if rng.random() < 0.3:
            enter.insert(2, "fence")
        return [
            "cli",
            *leave,
            *enter,
            "sti",
            *rng.choice([[f"read {self.page()}"], ["touch danger"], ["fence"], ["body syscall"]]),
        ]

    def using(self) -> Lines:
        return [line for _ in range(self.rng.randint(1, 4)) for line in self.any_op()]

    def asking(self) -> Lines:
        """Ask for a flush of what another CPU changes."""
        p = self.page()
        return ["await flag == 1", f"request {p}", *self.flush(p), f"promise {p}", f"read {p}"]

    def handler(self) -> Lines:
        out = self.flush()
        if self.rng.random() < 0.25:
            out += self.any_op()
        return [line for line in out if "await" not in line]

    # -- what the kernel's paths call ------------------------------------------------------------------------------

    def entries(self, *, roles: bool) -> Iterator[tuple[str, Lines]]:
        """Yield short bodies of what the hardware starts, and of macros."""
        rng = self.rng
        extra = [line for line in (self.any_op() if rng.random() < 0.15 else []) if "await" not in line]
        yield "interrupt_kernel", ["handle calls", *extra]
        if self.nmis or self.mces:
            save = ["let saved = cr3", "if saved is user\n    mov cr3, kernel noflush"]
            restore = [f"if saved is user\n    mov cr3, saved {rng.choice(('owed', 'noflush'))}"]
            yield (
                "nmi",
                [*save, *self.shaken(["touch nmi"]), *restore] if rng.random() < 0.7 else ["touch entry"],
            )
        if not roles:
            return
        back = rng.choice(["xchg inside, 1", "inside = 1"])
        to_kernel = ["mov cr3, kernel noflush"]
        to_kernel.insert(rng.randrange(2), back)
        if rng.random() < 0.3:
            to_kernel.append("fence")
        to_kernel += rng.choice(
            [["flush_all_here"], ["if me in flush_mask\n    flush_all_here"], self.flush(self.pages[0])]
        )
        to_user = [rng.choice(["xchg inside, 0", "inside = 0"]), "mov cr3, user owed"]
        if rng.random() < 0.3:
            to_user.reverse()
        short = rng.random() < 0.95
        macros = {
            "to_kernel": to_kernel if rng.random() < 0.8 else ["mov cr3, kernel noflush"],
            "to_user": to_user,
            "flush_kernel_range": [*self.told("range")[:4], "flush_here", "await acks"],
            "flush_kernel_now": [*self.told("range"), "flush_here"] if rng.random() < 0.5 else None,
            "nmi_user": ["to_kernel", "touch nmi", "to_user"] if short else None,
            "interrupt": ["to_kernel", "handle calls", "to_user"] if short else None,
            "enter_user": ["to_user"] if short else None,
            "syscall": ["to_kernel", "touch danger", "sti", "body syscall", "cli", "to_user"]
            if short
            else None,
            "exception": ["to_kernel", "touch danger", "body syscall", "to_user"] if short else None,
        }
        for name, lines in macros.items():
            if lines is not None:
                yield (
                    name,
                    self.shaken(lines) if name.startswith(("to_", "flush")) else lines,
                )
