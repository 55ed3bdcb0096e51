"""What a policy is asked: bounds and assumptions as a user gives them, as questions that the core takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from tlbcore import _core
from tlbcore._input.numbers import count, flag
from tlbcore.policy import Policy, policies

GIB = 1 << 30


Told = Callable[[int, int], None]  # what the core calls: states and depth


class Bounds(TypedDict, total=False):
    """The bounds and assumptions of a question, which `check`, `necessary` and `repair` take as keywords.

    Parameters
    ----------
    cpus
        CPUs, 2 to 5.
    nmis, mces
        NMIs, 0 to 7, and machine checks, 0 to 3, in all.
    asids, pages
        ASIDs per CPU (1 or 2) and tracked vmalloc pages (1 to 3).
    entries
        System calls each isolated CPU makes, 0 to 15, or `"unbounded"`: any number of them.
    rounds
        Flush rounds, 1 to 15, or `"unbounded"`. Versions of pages are then renamed to what is current,
        superseded, covered by a flush under way or dead (SEMANTICS S1), so that the graph stays finite. A
        sender that waits for an unbounded number of rounds or entries to come is a deadlock (S11): nothing
        says that they ever do.
    assume
        Assumptions by name, such as `{"D": "recycled", "invpcid": "publishes"}`.
    memory
        Bytes the search may hold; beyond, the verdict is inconclusive.
    roles
        What each CPU does, 1 to 5 of them, instead of `cpus`, `entries` and `rounds`: such as `purge; purge; isolated
        2`. A role is `PROGRAM`, `PROGRAM*ROUNDS`, `isolated ENTRIES`, `isolated ENTRIES by ENTRY` (an entry path such
        as `exception_espfix`) or `isolated PROGRAM`.
    world
        The machine and kernel, as a set of features: `pti`, `nopti`, `nopti+invlpgb`, `nopcid`, ...; `@6.12` behind
        it names the kernel version. Left out: `pti` for a policy that needs it, otherwise every world in which the
        policy is another program, and the worst verdict is the headline.
    """

    cpus: int
    nmis: int
    mces: int
    asids: int
    pages: int
    entries: int | str
    rounds: int | str
    assume: Mapping[str, str] | None
    memory: int
    roles: str
    world: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """One search: the policy it is about, what is asked, and under which assumptions.

    `inert` are the features that the world lacks, `hypothetical` says that the kernel does not do what is assumed.
    """

    name: str
    request: dict[str, Any]
    assume: dict[str, str]
    inert: tuple[str, ...] = ()
    hypothetical: bool = False


# A question, what is assumed of it, and whether the kernel does not do that.
_Case = tuple[dict[str, Any], dict[str, str], bool]


def worlds_of(policy: Policy, bounds: Bounds) -> list[tuple[str, tuple[str, ...]]]:
    """Return the worlds a policy is asked about, each with the features that it lacks there."""
    if not (world := named_world(bounds)):
        return [(name, ()) for name in _core.check_worlds(policy.text, policy.file)]
    name, inert = _core.check_world(policy.text, policy.file, world)
    return [(name, tuple(inert))]


def named_world(bounds: Bounds) -> str:
    """Return the name of the world that was asked for; empty for every one."""
    world = bounds.get("world", "")
    if not isinstance(world, str):
        raise _core.CheckError(f"world is a set of features such as 'nopti+invlpgb': got {world!r}")
    return world


def on_its_version(policy: Policy, bounds: Bounds) -> tuple[Policy, Bounds]:
    """Return a policy on the version of Linux that the name of the world has behind `@`, and the bounds without it."""
    world = named_world(bounds)
    if "@" not in world:
        return policy, bounds
    name, version = world.split("@", 1)
    if version not in _core.policy_versions():
        _core.check_world(policy.text, policy.file, world)  # says which there are
    return policy.on(version), {**bounds, "world": name}


def questions_in(
    policy: Policy,
    world: str,
    inert: tuple[str, ...],
    bounds: Bounds,
    given: dict[str, str],
    *,
    reduce: bool,
    threads: int | None,
) -> list[Question]:
    """Return what is asked of a policy in one world; where it is inert, of mainline."""
    subject = policies["ipi"] if inert else policy
    request = {**request_of(subject, bounds, reduce=reduce, threads=threads), "world": world}
    return [
        Question(name=policy.name, request=asked, assume=assume, inert=inert, hypothetical=hypothetical)
        for asked, assume, hypothetical in _with_table_free(policy, _questions(subject, request, given))
    ]


def _with_table_free(policy: Policy, questions: list[_Case]) -> list[_Case]:
    """Ask mainline about frees of page tables too; and about those with 2 ASIDs and both forms of a flush.

    What a flush leaves of upper entries is those of the PCIDs that are not loaded, and pmd_free_pte_page flushes one
    page. A policy that is mainline says nothing of its own, so that all of it is asked about. The second ASID is one of
    2 CPUs: where more were asked for, they have the ASIDs that were asked for in a question beside it.
    """
    out = list(questions)
    if _is_mainline(policy) and not any(asked["roles"] for asked, *_ in questions):
        about = {"initiator": "table_free", "beside": "", "about": "frees of page tables"}
        out += [({**asked, **about}, a, h) for asked, a, h in questions if asked["initiator"] == "purge"]
    for i, (asked, assume, hypothetical) in reversed(list(enumerate(out))):
        if asked["initiator"] != "table_free":
            continue
        forms = [{**asked, "asids": 2}]
        if asked["cpus"] > 2 and asked["asids"] == 1:
            beside = f"{asked['about']}, 2 CPUs with 2 ASIDs"
            forms = [asked, {**asked, "cpus": 2, "asids": 2, "about": beside}]
        ranges = [assume["range"]] if "range" in assume else ["pages", "full"]
        out[i : i + 1] = [(form, {**assume, "range": how}, hypothetical) for form in forms for how in ranges]
    return out


def _is_mainline(policy: Policy) -> bool:
    """Whether a policy replaces nothing, and nothing that it is based on does."""
    return _core.policy_parse(policy.text, policy.file, list(policy.programs))["mainline"]


@functools.lru_cache(maxsize=256)
def asked_of(text: str, file: str) -> tuple[tuple[str, str, str], ...]:
    """Return what a policy is asked: initiator, what it is about, what runs beside it or nothing."""
    return tuple(_core.check_questions(text, file)[0])


@functools.lru_cache(maxsize=256)
def initiators_of(text: str, file: str) -> tuple[str, ...]:
    """Return what a policy defers: `purge`, `text_poke`, `flush_mm`."""
    return tuple(_core.check_initiators(text, file))


@functools.cache
def tried(initiator: str) -> dict[str, list[str]]:
    """Return the values of D, N and T that an initiator's question is tried with where nothing is fixed."""
    return dict(_core.check_tried(initiator))


def _questions(policy: Policy, request: dict[str, Any], given: dict[str, str]) -> list[_Case]:
    """Return what is asked of a policy: its initiators, each under every assumption that is not given."""
    rows = list(asked_of(policy.text, policy.file))
    if request["roles"]:
        rows = [(_core.check_initiator_of(request["roles"]), f"the roles {request['roles'].strip()}", "")]
    _refuse_idle(policy, request, given, [initiator for initiator, _, _ in rows])
    out = []
    for initiator, about, beside in rows:
        about = f"{about}, idle CPUs" if beside == "idle" else about
        asked = {**request, "initiator": initiator, "beside": beside, "about": about}
        nmis = bool(request["nmis"] or request["mces"])
        for assume, hypothetical in _core.check_cases(initiator, list(given.items()), nmis):
            out.append((asked, dict(assume), hypothetical))
    return out


def _refuse_idle(
    policy: Policy, request: dict[str, Any], given: dict[str, str], initiators: list[str]
) -> None:
    """Refuse bounds and assumptions that nothing asked of this policy depends on."""
    about_text = [bool(tried(initiator)["T"]) for initiator in initiators]
    if all(about_text):
        about = f"{policy.name} is asked about syncs of text alone"
        if request["pages"] != 1:
            raise _core.CheckError(f"pages={request['pages']} is about flushes, and {about}")
        for name, least in (("D", "none"), ("N", "none"), ("range", "full")):
            if given.get(name, least) != least:
                raise _core.CheckError(
                    f"{name}={given[name]} is about flushes, and {about}: T says where text is patched"
                )
    elif not any(about_text) and "T" in given:
        raise _core.CheckError(
            f"T={given['T']} is about patched text, and {policy.name} is asked about flushes alone"
        )
    if given.get("N", "none") != "none" and not (request["nmis"] or request["mces"]):
        raise _core.CheckError(f"N={given['N']} is about NMIs and machine checks: give nmis or mces as well")


def request_of(
    policy: Policy, bounds: Bounds, *, reduce: bool = True, threads: int | None = None
) -> dict[str, Any]:
    """Return the question as the core takes it, without assumptions; `check` names the world."""
    unknown = sorted(bounds.keys() - Bounds.__annotations__.keys())
    if unknown:
        raise TypeError(f"{unknown[0]!r} is no bound; these are: {', '.join(Bounds.__annotations__)}")
    _refuse_contradiction(bounds)
    return {
        "text": policy.text,
        "file": policy.file,
        "cpus": bound("cpus", bounds.get("cpus", 2), 1 if bounds.get("roles") else 2, 5),
        "nmis": bound("nmis", bounds.get("nmis", 0), 0, 7),
        "mces": bound("mces", bounds.get("mces", 0), 0, 3),
        "asids": bound("asids", bounds.get("asids", 1), 1, 2),
        "pages": bound("pages", bounds.get("pages", 1), 1, 3),
        "entries": _times("entries", bounds.get("entries", 2), 0),
        "rounds": _times("rounds", bounds.get("rounds", 1), 1),
        "memory": memory_of(bounds.get("memory", 8 * GIB)),
        "plain": not flag(reduce, "reduce", _core.CheckError),
        "confirm": 0,
        "threads": 0 if threads is None else bound("threads", threads, 1, 64),
        "roles": bounds.get("roles", ""),
        "world": bounds.get("world") or "pti",
        "initiator": initiators_of(policy.text, policy.file)[0],
        "beside": "",
        "about": "",
    }


def _refuse_contradiction(bounds: Bounds) -> None:
    """Refuse roles and, beside them, what roles say differently."""
    roles = bounds.get("roles", "")
    if not isinstance(roles, str):
        raise _core.CheckError(f"roles is a text such as `purge; isolated 2`: got {roles!r}")
    if not roles:
        return
    named = len([role for role in roles.replace(",", ";").split(";") if role.strip()])
    if not named:
        raise _core.CheckError(f"roles name a CPU each, such as `purge; isolated 2`: got {roles!r}")
    if bounds.get("cpus", named) != named:
        raise _core.CheckError(
            f"cpus={bounds['cpus']!r} contradicts roles={roles!r}, which name {named}: give one of the two"
        )
    for name, form in (("entries", "isolated ENTRIES"), ("rounds", "PROGRAM*ROUNDS")):
        if name in bounds:
            raise _core.CheckError(
                f"{name}={bounds.get(name)!r} beside roles={roles!r}: roles say how often, as `{form}`"
            )


def assumed(bounds: Bounds) -> dict[str, str]:
    """Return the assumptions that are given."""
    given = bounds.get("assume")
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(w, str) for pair in given.items() for w in pair):
        raise _core.CheckError(f"assume is names and values, such as {{'D': 'recycled'}}: got {given!r}")
    return dict(given)


def programs_in(bounds: Bounds) -> tuple[str, ...]:
    """Return the names in roles: sections of a file that nothing else uses may be among them."""
    roles = bounds.get("roles", "")
    words = roles.replace(",", ";").split(";") if isinstance(roles, str) else []
    names = (word.strip().removeprefix("isolated ").partition("*")[0].strip() for word in words)
    return tuple(name for name in names if name.isidentifier())


def of_effect(bounds: Bounds, given: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Leave out what is assumed of NMIs where none was asked for in so many words, as in a loop over their number."""
    if given.get("N", "none") == "none" or bounds.get("nmis") != 0 or bounds.get("mces"):
        return given, []
    rest = {name: value for name, value in given.items() if name != "N"}
    return rest, [f"N={given['N']} is about NMIs and machine checks, and there are none: left out."]


def bound(name: str, value: int, least: int, most: int) -> int:
    """Return a bound if it is one."""
    return count(value, name, least, most, _core.CheckError)


def memory_of(value: int) -> int:
    """Return a number of bytes if it is one."""
    return count(value, "memory", 1, error=_core.CheckError)


def _times(name: str, value: int | str, least: int) -> int:
    """Read a number of runs; 255 stands for any number."""
    if value == "unbounded":
        return 255
    if isinstance(value, str):
        raise _core.CheckError(f"{name} must be an integer from {least} to 15 or unbounded: got {value!r}")
    return bound(name, value, least, 15)
