"""Words of the policy language as Python functions.

Each returns the text of one statement (or header line), so a policy built here and one written by hand are
the same thing. What a word means is in the policy language reference; nothing is judged before
`Policy.replace` hands the text to the core.

>>> from tlbcore import op
>>> print(op.if_("me in flush_mask", [op.fence(), op.invpcid(2)]))
if me in flush_mask
  fence
  invpcid all-including-global
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from tlbcore._core import PolicyError
from tlbcore._input.door import door
from tlbcore._input.numbers import flag

__all__ = [
    "await_acks",
    "body",
    "break_",
    "cas",
    "clflush",
    "each",
    "fence",
    "if_",
    "invlpg",
    "invpcid",
    "ipi",
    "let",
    "loop",
    "mov_cr3",
    "mov_cr4_pge",
    "poke",
    "put",
    "rsp",
    "site",
    "store",
    "text",
    "touch",
    "use",
    "var",
    "wbinvd",
    "xchg",
]

_INVPCID = {1: "context kernel", 2: "all-including-global", 3: "all"}


def _block(head: str, body: Sequence[str]) -> str:
    """Return a statement with statements below it, which may be one text."""
    body = [body] if isinstance(body, str) else body
    lines = [line for statement in body for line in statement.splitlines()]
    return "\n".join([head, *(f"  {line}" for line in lines)])


def text(line: str) -> str:
    """Return `line` itself: any statement of the policy language."""
    return line


def var(name: str, *, bits: int = 1, starts: int = 0, per_cpu: bool = True, user_mapped: bool = False) -> str:
    """Declare a variable of 1 to 16 bits; `user_mapped` puts its page into the PTI user table."""
    place = "per cpu" if per_cpu else "shared"
    mapped = ", user mapped" if user_mapped else ""
    return f"var {name} : {bits} bits, {place}, starts {starts}{mapped}"


def site(name: str) -> str:
    """Declare a patched instruction, beside the one without a name (docs/semantics.md, H10)."""
    return f"site {name}"


def poke(part: str, value: str, *, site: str | None = None) -> str:
    """Store to a patched instruction (docs/semantics.md, S7): its `head` becomes `int3` or `new`, its `tail` `new`."""
    return f"text {site} {part} = {value}" if site else f"text {part} = {value}"


def rsp(what: str) -> str:
    """Say what RSP holds from here on: a `stack`, or `scratch` (docs/semantics.md, S13)."""
    return f"rsp {what}"


def store(name: str, value: int | str) -> str:
    """Store plainly: the value enters this CPU's store buffer (docs/semantics.md, H4)."""
    return f"{name} = {value}"


def let(name: str, value: int | str) -> str:
    """Load or compute into a local."""
    return f"let {name} = {value}"


def xchg(name: str, value: int | str, *, to: str | None = None) -> str:
    """Exchange with memory, LOCKed: publishes earlier stores. The old value goes to the local `to`."""
    return f"let {to} = xchg {name}, {value}" if to else f"xchg {name}, {value}"


def cas(name: str, old: int | str, new: int | str, *, to: str) -> str:
    """Compare and exchange, LOCKed; the local `to` gets the value seen, equal to `old` iff it succeeded."""
    return f"let {to} = cas {name}, {old}, {new}"


def fence() -> str:
    """MFENCE: publishes earlier stores."""
    return "fence"


@door
def mov_cr3(what: str, *, noflush: bool | None = None) -> str:
    """Write CR3: `kernel`, `user` or a local. Default for `kernel` is NOFLUSH, for others as owed."""
    how = {True: " noflush", False: "", None: " noflush" if what == "kernel" else " owed"}[noflush]
    return f"mov cr3, {what}{how}"


def mov_cr4_pge(on: bool) -> str:
    """Write CR4.PGE; a change invalidates everything (SDM Vol. 3A 4.10.4.1).

    Raises
    ------
    PolicyError
        If `on` is neither True nor False.
    """
    return f"mov cr4, pge {'on' if flag(on, 'CR4.PGE', PolicyError) else 'off'}"


def invpcid(kind: int) -> str:
    """INVPCID of type 1 (kernel PCID), 2 (all, globals included) or 3 (all but globals).

    Raises
    ------
    ValueError
        For any other type.
    """
    if isinstance(kind, bool) or not isinstance(kind, Integral) or int(kind) not in _INVPCID:
        raise ValueError(f"invpcid type must be 1, 2 or 3 here: got {kind}")
    return f"invpcid {_INVPCID[int(kind)]}"


def invlpg(pages: str = "range") -> str:
    """INVLPG of every page of the request, or of one declared page."""
    return f"invlpg {pages}"


def clflush(pages: str = "range") -> str:
    """CLFLUSH of each line of the requested range, or of a declared page (docs/semantics.md, H11).

    The lines go from every CPU's cache, in order with this CPU's stores.
    """
    return f"clflush {pages}"


def wbinvd() -> str:
    """WBINVD: write back and drop every line that this CPU holds; publishes and serialises (docs/semantics.md, H11)."""
    return "wbinvd"


@door
def if_(test: str, then: Sequence[str], or_else: Sequence[str] = ()) -> str:
    """Branch on a condition of the language, such as `me in nohz_full` or `feature invpcid`."""
    out = _block(f"if {test}", then)
    return f"{out}\n{_block('else', or_else)}" if or_else else out


@door
def each(cpus: str, body: Sequence[str]) -> str:
    """Run `body` for each CPU of a set; inside, `cpu` is that CPU and `name[cpu]` its copy."""
    return _block(f"each cpu in {cpus}", body)


@door
def loop(body: Sequence[str]) -> str:
    """Repeat until `break_()`."""
    return _block("loop", body)


def break_() -> str:
    """Leave the innermost loop."""
    return "break"


def put() -> str:
    """Add the loop's CPU to `targets`."""
    return "put cpu into targets"


def ipi(cpus: str, handler: str) -> str:
    """Queue the section `handler` as a remote call on each CPU of the set."""
    return f"ipi {cpus}, {handler}"


def await_acks() -> str:
    """Wait until every remote call sent has completed."""
    return "await acks"


def touch(zone: str) -> str:
    """Access memory of a class: entry, percpu, stack, directmap, image, recycled, kernel or user.

    The classes: docs/semantics.md, A1. `danger` and `nmi` are places where an access is assumed or not (A2).
    """
    return f"touch {zone}"


def body(slot: str) -> str:
    """Where the timed machine charges a workload: syscall, interrupt, nmi or idle."""
    return f"body {slot}"


def use(section: str) -> str:
    """Stand for another section's statements."""
    return section
