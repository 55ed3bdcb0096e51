"""Policies x worlds x versions of Linux: what `check` says of every built-in policy on every machine."""

from __future__ import annotations

from collections.abc import Iterable

from tlbcore import _core
from tlbcore._output.calls import kept
from tlbcore._output.progress import Progress, shown
from tlbcore.checker.answers import answers_to
from tlbcore.checker.question import GIB, Bounds, Question, questions_in, worlds_of
from tlbcore.checker.verdict import Verdict
from tlbcore.policy import policies
from tlbcore.verdicts import Cell, WorldTable

#: The worlds of the table, by the heading of their column.
WORLDS = {
    "pti": "pti",
    "nopti": "nopti",
    "nopcid": "pti+nopcid",
    "invlpgb": "nopti+invlpgb",
    "fred": "nopti+fred",
}
_WORST = ("violated", "inconclusive", "verified")


# Questions that run the same programs on the same machine have one answer, by whatever names they are asked.
_Known = dict[tuple[object, ...], Verdict]


def cell_of(name: str, world: str, linux: str, memory: int = 8 * GIB, known: _Known | None = None) -> Cell:
    """Ask a built-in policy all there is to ask in one world, without an NMI and with one.

    `known` keeps answers from one cell to the next.
    """
    known = {} if known is None else known
    policy = policies[name].on(linux)
    bounds = Bounds(world=world, memory=memory)
    ((one, inert),) = worlds_of(policy, bounds)
    if inert:
        return Cell(policy=name, world=one, linux=linux, inert=", ".join(inert))
    asked = [
        question
        for nmis in (0, 1)
        for question in questions_in(
            policy, one, inert, {**bounds, "nmis": nmis}, {}, reduce=True, threads=None
        )
        if not question.hypothetical
    ]
    keys = [_key(question) for question in asked]
    new = {key: question for key, question in zip(keys, asked, strict=True) if key not in known}
    known.update(zip(new, answers_to(list(new.values()), None), strict=True))
    answers = [(question, known[key]) for key, question in zip(keys, asked, strict=True)]
    calm, hit = ([v for q, v in answers if q.request["nmis"] == nmis] for nmis in (0, 1))
    return Cell(
        policy=name,
        world=one,
        linux=linux,
        status=_worst(calm),
        nmi=_worst([*calm, *hit]),
        known=_worst(_as_known(calm)),
        nmi_known=_worst(_as_known([*calm, *hit])),
        states=sum(v.states for _, v in answers if not v.implied),
    )


def _key(question: Question) -> tuple[object, ...]:
    names = ("text", "file", "world", "about")
    bounds = sorted((key, str(value)) for key, value in question.request.items() if key not in names)
    programs = _core.check_programs({**question.request, "assume": [], "trace": False})
    return (programs, *bounds, *sorted(question.assume.items()))


def _worst(found: Iterable[Verdict]) -> str:
    return min((v.status for v in found), key=_WORST.index)


def _as_known(found: list[Verdict]) -> list[Verdict]:
    """Return the verdicts that assume nothing about code which nobody has seen do it (N and T; SEMANTICS A5)."""
    return [v for v in found if v.assume.get("N", "none") == "none" and v.assume.get("T", "instr") == "instr"]


@kept
def world_table(
    *, memory: int = 8 * GIB, linux: str | None = None, progress: Progress | bool | None = None
) -> WorldTable:
    """Return what `check` says of every built-in policy in every world, on every version of Linux.

    Two CPUs, one page, two entries, one flush round; without an NMI and with one. The worlds are machines with PTI,
    without it, with PTI and without PCID, with INVLPGB, with FRED. Where a policy needs what a world lacks it is
    inert, so that mainline runs, and nothing is searched.

    Parameters
    ----------
    memory
        Bytes one search may hold.
    linux
        The only version of Linux to ask about; every one there are texts of if left out.
    progress
        Called with (policies done, policies in all).

    Raises
    ------
    PolicyError
        If there are no texts of that version.
    """
    versions = list(_core.policy_versions()) if linux is None else [linux]
    names = list(policies)
    cells: list[Cell] = []
    known: _Known = {}
    with shown(progress, "checking", "policies") as advance:
        for done, name in enumerate(names):
            if advance is not None:
                advance(done, len(names))
            cells += [
                cell_of(name, world, version, memory, known)
                for world in WORLDS.values()
                for version in versions
            ]
        if advance is not None:
            advance(len(names), len(names))
    return WorldTable(rows=tuple(cells))
