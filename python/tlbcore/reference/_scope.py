"""What the slow explorer is asked: programs, who runs them, how many of everything, what is assumed.

A question comes from a policy and keywords, or from the header of a litmus test, which is read here a second time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlbcore import _core
from tlbcore.policy import FEATURES, Policy
from tlbcore.reference._conditions import FAULT, condition

__all__ = ["Question", "Role", "of_litmus", "of_policy"]

# The words of `--assume`, the default first (SEMANTICS A2, A6).
ASSUMPTIONS = {
    "D": ("none", "directmap", "recycled"),
    "N": ("none", "directmap", "recycled"),
    "T": ("instr", "danger", "noinstr"),
    "invpcid": ("unordered", "ordered", "publishes"),
    "tce": ("on", "off"),
    "interrupts": ("drain", "keep"),
    "broadcast": ("keeps", "drains"),
    "walks": ("monotonic",),
    "stores": ("buffered", "sc"),
    "fills": ("speculative", "demand"),
    "gs": ("works", "faults"),
    "range": ("full", "pages"),
}

_COLUMN = re.compile(r"^cpu (\d+)", re.MULTILINE)
_FACT = re.compile(r'^  ([a-z]+) "(.*)"$', re.MULTILINE)
_ROLE = re.compile(
    r"isolated( (?P<entries>\d+|unbounded)( by (?P<entry>\w+))?)?"
    r"|(?P<isolated>isolated )?(?P<program>\w+)(\*(?P<rounds>\d+|unbounded))?"
)
# By any of these a CPU in user mode comes into the kernel, NMIs apart (H5).
_ENTRIES = (
    "syscall",
    "syscall_compat",
    "sysenter_compat",
    "exception",
    "exception_espfix",
    "exception_bad_iret",
    "interrupt",
)
_KNOWN = {
    "cpus",
    "asids",
    "nmis",
    "mces",
    "assume",
    "exists",
    "forall",
    "never",
    "locations",
    "deaf",
    "unflushed",
    "frames",
    "tops",
    "features",
}
_SAID = {"linux", "verdict", "source", "limits", "states", "note"}  # of no effect on a run


@dataclass(frozen=True, kw_only=True)
class Role:
    """What one CPU runs: `first`, then `left` times one of `paths`, from user mode or from the kernel."""

    first: str
    paths: tuple[str, ...]
    left: int | None = 0  # None: any number of times
    devices: int = 0  # device interrupts that come by themselves; from user mode they are entries
    user: bool = False
    isolated: bool = False
    writes: bool = True  # it owns the requested range
    deaf: bool = False  # it takes no interrupt
    flushes: bool = True  # it is in the mask that the entry flush tests


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything a search starts from."""

    code: dict[str, Any]
    roles: tuple[Role, ...]
    assume: Mapping[str, str]
    features: Sequence[str] = FEATURES
    asids: int = 1
    pages: int = 1
    nmis: int = 0
    mces: int = 0
    frames: Mapping[int, tuple[int, ...]] | None = None  # page: the fields it maps in turn
    tops: Mapping[int, int] | None = (
        None  # page: the variable per mm that says which top-level tables lead to it
    )
    faults: frozenset[tuple[int, str]] = frozenset()  # columns and the pages at which they may end (S8)
    exists: Callable[[Callable[[str], int]], bool] | None = None
    forall: Callable[[Callable[[str], int]], bool] | None = None
    never: Callable[[Callable[[str], int]], bool] | None = None

    def is_answered_by_an_end(self, value: Callable[[str], int]) -> bool:
        """Whether an end is one that `exists` looks for, or one that `forall` excludes."""
        wanted = self.exists is not None and self.exists(value)
        return wanted or (self.forall is not None and not self.forall(value))


_MAPS_AGAIN = {"Pte": {"pages": "Range", "level": "Leaf", "v": "Fresh", "locked": False}}


def _then_map(code: dict[str, Any], roles: Sequence[Role]) -> dict[str, Any]:
    """Let a caller of `vunmap` rely on it by mapping the same addresses again (S3), as the role of that name does."""
    if all(role.first != "vunmap" for role in roles):
        return code
    (last,) = (program["end"] - 1 for program in code["programs"] if program["name"] == "vunmap")
    code = {**code, **{name: list(code[name]) for name in ("ops", "at", "text", "live")}}
    for name in ("at", "text", "live"):
        code[name] += [code[name][last]] * 2
    code["ops"] += [_MAPS_AGAIN, code["ops"][last]]
    code["ops"][last] = {"Jump": len(code["ops"]) - 2}
    return code


def of_policy(
    policy: Policy,
    *,
    roles: str,
    assume: Mapping[str, str],
    features: Sequence[str],
    bounds: Mapping[str, int],
) -> Question:
    """Return what a check of a policy asks."""
    played = tuple(role(word.strip()) for word in re.split("[;,]", roles) if word.strip())
    return Question(
        code=_then_map(policy.code(features), played),
        roles=played,
        assume=assumptions(assume),
        features=features,
        asids=bounds["asids"],
        pages=bounds["pages"],
        nmis=bounds["nmis"],
        mces=bounds["mces"],
    )


def of_litmus(text: str) -> Question:
    """Return what a litmus test asks; what its header says beyond that is not implemented."""
    facts = dict(_FACT.findall(text))
    for key in sorted(facts.keys() - _KNOWN - _SAID):
        raise NotImplementedError(f"the header line {key}")
    asked = [key for key in ("exists", "forall", "never") if key in facts]
    if len(asked) > 1:
        raise NotImplementedError(f"two questions in one test: {' and '.join(asked)}")
    named = " ".join(facts[key] for key in (*asked, "locations") if key in facts)
    features = facts["features"].split() if "features" in facts else FEATURES
    roles = [role(word.strip()) for word in re.split("[;,]", facts.get("cpus", "")) if word.strip()]
    own = sorted({name for r in roles for name in (r.first, *r.paths)})
    code = json.loads(_core.policy_code(text, "litmus", list(features), own))
    roles += [Role(first=f"cpu {n}", paths=(f"cpu {n}",)) for n in sorted(map(int, _COLUMN.findall(text)))]
    deaf, unflushed = (set(map(int, facts.get(key, "").split())) for key in ("deaf", "unflushed"))
    who = enumerate(roles)
    roles = [
        Role(**{**vars(r), "deaf": i in deaf, "flushes": i not in unflushed}) if i in deaf | unflushed else r
        for i, r in who
    ]
    return Question(
        code=_then_map(code, roles),
        roles=tuple(roles),
        assume=assumptions(dict(word.split("=") for word in facts.get("assume", "").split())),
        features=features,
        asids=int(facts.get("asids", 1)),
        nmis=int(facts.get("nmis", 0)),
        mces=int(facts.get("mces", 0)),
        frames=_frames(code, facts.get("frames", "")),
        tops={p: code["fields"][of[0]]["var"] for p, of in _frames(code, facts.get("tops", "")).items()},
        faults=frozenset((int(cpu), page) for cpu, page in FAULT.findall(named)),
        exists=condition(facts["exists"]) if "exists" in facts else None,
        forall=condition(facts["forall"]) if "forall" in facts else None,
        never=condition(facts["never"]) if "never" in facts else None,
    )


def assumptions(said: Mapping[str, str]) -> dict[str, str]:
    """Return every assumption with its value."""
    for name, value in said.items():
        if value not in ASSUMPTIONS.get(name, ()):
            raise NotImplementedError(f"the assumption {name}={value}")
    return {name: said.get(name, values[0]) for name, values in ASSUMPTIONS.items()}


def role(word: str) -> Role:
    """Read a role as `check` does."""
    said = _ROLE.fullmatch(word)
    if said is None:
        raise NotImplementedError(f"the role {word}")
    if said["program"] is None:
        left = None if said["entries"] == "unbounded" else int(said["entries"] or 2)
        paths = (said["entry"],) if said["entry"] else _ENTRIES
        if left == 0 and not said["entry"]:  # it makes no entry of its own, and a device interrupts it
            left, paths = 1, ("interrupt",)
        return Role(first="enter_user", paths=paths, left=left, user=True, isolated=True, writes=False)
    if said["rounds"] == "unbounded":
        raise NotImplementedError("rounds without bound: versions are not renamed here")
    program, rounds = said["program"], int(said["rounds"] or 1)
    return Role(first=program, paths=(program,), left=rounds - 1, isolated=bool(said["isolated"]), devices=1)


def _frames(code: dict[str, Any], text: str) -> dict[int, tuple[int, ...]]:
    """Read `PAGE: VAR VAR; ...`."""
    pages = [page["name"] for page in code["pages"]]
    fields = [field["name"] for field in code["fields"]]
    out = {}
    for part in filter(None, text.split(";")):
        page, names = part.split(":")
        out[pages.index(page.strip())] = tuple(fields.index(name) for name in names.split())
    return out
