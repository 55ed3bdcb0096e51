"""Edited forms of a policy: which of its ops it needs, and which edits make it pass."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any, Unpack

from tlbcore import _core
from tlbcore._input import defaults
from tlbcore._output.calls import kept
from tlbcore._output.progress import Progress
from tlbcore.checker.question import (
    Bounds,
    Question,
    Told,
    assumed,
    bound,
    of_effect,
    on_its_version,
    programs_in,
    questions_in,
    worlds_of,
)
from tlbcore.checker.search import checked, exploring
from tlbcore.checker.verdict import Verdict
from tlbcore.kernel import machine_text
from tlbcore.policy import Policy, as_policy
from tlbcore.simulation.repair_cost import cost_of
from tlbcore.verdicts import Need, Needs, Repair, Repairs

_Assumed = list[tuple[str, str]]


def _edited(
    policy: Policy, bounds: Bounds, progress: Told | None
) -> tuple[Verdict, list[tuple[dict[str, Any], list[_Assumed]]]]:
    """Return the verdict on a policy, and what is asked of its edited forms: all that was asked of the policy.

    Each question with the assumptions under which it must hold, those that are harder to survive first; the questions
    of the verdict's world come before the others. What holds of the policy must hold of its forms: an access to
    recycled memory in the danger zone is assumed if the policy survives it.
    """
    verdict = checked(policy, bounds, progress=progress)
    if verdict.inert:
        needs = ", ".join(verdict.inert)
        raise _core.CheckError(f"{policy.name} is inert in world {verdict.world}: it needs {needs}")
    policy, bounds = on_its_version(policy, bounds)
    given, _ = of_effect(bounds, assumed(bounds))
    if verdict.hypothesis is None or verdict.hypothesis.status != "verified":
        given = {"D": "none", **given}
    asked = [
        question
        for world, inert in sorted(worlds_of(policy, bounds), key=lambda world: world[0] != verdict.world)
        for question in questions_in(policy, world, inert, bounds, given, reduce=True, threads=None)
    ]
    asks = [
        ({**request, "trace": False, "assume": []}, [list(q.assume.items()) for q in reversed(list(same))])
        for request, same in groupby(asked, key=_request)
    ]
    return verdict, asks


def _request(question: Question) -> dict[str, Any]:
    return question.request


@kept
def necessary(
    policy: str | Path | Policy, *, progress: Progress | bool | None = None, **bounds: Unpack[Bounds]
) -> Needs:
    """Weaken or remove each op, fence and order of a verified policy in turn, and check what is left.

    What is left is asked all that the policy was asked, in the same worlds.

    The result is a sequence of `Need`, and saved and shown like any other. `bounds` are the keywords of
    `tlbcore.Bounds`.

    Raises
    ------
    CheckError
        If the bounds cannot be explored, or the policy is not verified to begin with.
    PolicyError
        If the policy is unknown or does not assemble.

    Examples
    --------
    >>> import tlbcore as tc
    >>> [n.what for n in tc.necessary("coalesce-v7-fixed") if n.needed and "fence" in n.what][0]
    'no `fence`'
    """
    with exploring(progress) as told:
        return _necessary(policy, bounds, told)


def _necessary(policy: str | Path | Policy, bounds: Bounds, progress: Told | None) -> Needs:
    chosen = as_policy(policy, programs=programs_in(bounds))
    verdict, asks = _edited(chosen, bounds, progress)
    if verdict.status != "verified":
        raise _core.CheckError(
            f"{chosen.name} is {verdict.status} to begin with: nothing can be shown needed"
        )
    rows = tuple(
        Need(
            section=r["section"],
            place=r["place"],
            what=r["what"],
            needed=r["status"] == "violated",
            status=r["status"],
            rule=r["rule"],
            supplied_by=r["supplied_by"],
            states=r["states"],
        )
        for r in _core.check_necessary(asks, progress)
    )
    return Needs(policy=chosen, sentence=verdict.sentence, rows=rows)


@kept
def repair(
    policy: str | Path | Policy,
    *,
    edits: int = 2,
    machine: str = defaults.MACHINE,
    progress: Progress | bool | None = None,
    **bounds: Unpack[Bounds],
) -> Repairs:
    """Search for the smallest edits that make a policy pass its check, all of the smallest size.

    The result is a sequence of `Repair`, empty if there is none, and saved and shown like any other.

    Edits: move a store, insert a fence or a flush, an XCHG for a plain store; with NMIs in scope also rules
    for NMIs from kernel mode (flush; save and restore; announce, flush and restore). `bounds` are the keywords of
    `tlbcore.Bounds`.

    Parameters
    ----------
    edits
        Edits at most, 1 to 3.
    machine
        CPU preset for the cost of each repair.

    Raises
    ------
    CheckError
        If the bounds cannot be explored, or the policy passes already.
    PolicyError
        If the policy is unknown or does not assemble.
    SimError
        If there is no such machine.
    """
    with exploring(progress) as told:
        return _repaired(policy, bounds, edits=edits, machine=machine, progress=told)


def _repaired(
    policy: str | Path | Policy, bounds: Bounds, *, edits: int, machine: str, progress: Told | None
) -> Repairs:
    most = bound("edits", edits, 1, 3)
    machine_text(machine)  # before a long search
    chosen = as_policy(policy, programs=programs_in(bounds))
    verdict, asks = _edited(chosen, bounds, progress)
    if verdict.status == "verified":
        raise _core.CheckError(f"{chosen.name} is verified within these bounds: there is nothing to repair")
    out = []
    for r in _core.check_repair(asks, most, progress):
        fixed = Policy(text=r["text"])
        judged = checked(fixed, bounds, progress=progress)
        if judged.status != "verified":  # asked another question than the policy
            continue
        out.append(
            Repair(
                edits=tuple(r["edits"]),
                policy=fixed,
                verdict=r["verdict"],
                states=r["states"],
                hypothesis=None if judged.hypothesis is None else judged.hypothesis.status,
                cost=cost_of(fixed, machine),
            )
        )
    return Repairs(policy=chosen, edits=most, machine=machine, sentence=verdict.sentence, rows=tuple(out))
