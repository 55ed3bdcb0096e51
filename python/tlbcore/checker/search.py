"""`check`: every question of a policy, the worst answer as the headline, and what a violation needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from tlbcore import _core
from tlbcore._input.numbers import flag
from tlbcore._output.calls import kept
from tlbcore._output.progress import Progress, shown
from tlbcore.checker.answers import answer_to, answers_to
from tlbcore.checker.question import (
    Bounds,
    Question,
    Told,
    assumed,
    of_effect,
    on_its_version,
    programs_in,
    questions_in,
    worlds_of,
)
from tlbcore.checker.verdict import Counterexample, Verdict
from tlbcore.policy import Policy, as_policy, policies


@kept
def check(
    policy: str | Path | Policy,
    *,
    reduce: bool = True,
    confirm: bool | None = None,
    threads: int | None = None,
    progress: Progress | bool | None = None,
    **bounds: Unpack[Bounds],
) -> Verdict:
    """Explore every interleaving of a policy's programs within bounds.

    Each section that the policy, or what it is based on, replaces is asked about: purges of vmalloc, frees of page
    tables, rights of the direct map, patched text, flushes of user memory; a policy that replaces none of what is
    asked about is asked about purges. One verdict each, and the headline is the worst.

    One housekeeping CPU purges lazily freed vmalloc space; the other CPUs are isolated, return to user mode
    and come into the kernel by any path: system calls, exceptions, device interrupts. Where the policy replaces
    what an idle CPU runs they idle instead, in a question of its own. What is not fixed by `assume` about code that
    is not modelled (N: bodies of NMIs) is tried both ways, in every world the policy runs in unless `world` names
    one, and the worst verdict is the headline. The kernel's own accesses between the CR3 switch and the flush are in
    its programs; what a future access to recycled memory there would break (D=recycled) is asked too, and is
    `Verdict.hypothesis`.

    Of a policy that defers syncs of text patching (it defines `text_sync`) the housekeeping CPU patches an
    instruction instead: INT3, tail, first byte, with a sync after each (SEMANTICS S7). Where patched code may
    run is the assumption T: `instr` (nowhere in .noinstr.text), `danger` (also between the CR3 switch and the
    first instrumentable code), `noinstr` (anywhere); each is tried unless `assume` fixes it.

    Parameters
    ----------
    policy
        A built-in name, a file that ends in `.policy`, or a `Policy`.
    reduce
        Treat interchangeable CPUs alike and fuse ops that commute with everything else. Verdicts are the
        same without, slower.
    confirm
        Confirm a pass of the reduced search by one without reductions: `None` as long as these have no more than half
        a million states in all (a few tenths of a second), `True` whatever it takes. The sentence says whether it was.
        Without `reduce` there is nothing to confirm, so it is left out there.
    threads
        Threads of one search, 1 to 64; one per CPU, up to 8, if left out. Small searches run on one. The verdict, its
        schedule and every count are the same for any number.
    progress
        Called with (states, None) now and then; True shows a bar, on a terminal or in a notebook (extra `cli`).
    **bounds
        How many of everything, who does what, and what is assumed, as keywords: `cpus`, `nmis`, `mces`, `asids`,
        `pages`, `entries`, `rounds`, `assume`, `memory`, `roles`, `world`; `tlbcore.Bounds` explains them.

    Raises
    ------
    CheckError
        If the bounds or assumptions cannot be explored, there is no such world, or `confirm` is given without `reduce`.
    PolicyError
        If the policy is unknown or does not assemble.

    Examples
    --------
    >>> import tlbcore as tc
    >>> tc.check("coalesce-v7").status
    'violated'
    >>> tc.check("coalesce-v7-fixed").status
    'verified'
    """
    with exploring(progress) as told:
        return checked(policy, bounds, reduce=reduce, confirm=confirm, threads=threads, progress=told)


@contextmanager
def exploring(progress: Progress | bool | None) -> Iterator[Told | None]:
    """Turn `progress` into what the core calls with states and depth."""
    with shown(progress, "exploring", "states") as advance:
        yield None if advance is None else lambda states, _depth: advance(states, None)


def checked(
    policy: str | Path | Policy,
    bounds: Bounds,
    *,
    reduce: bool = True,
    confirm: bool | None = None,
    threads: int | None = None,
    progress: Told | None,
) -> Verdict:
    """Return what `check` does; `progress` is what the core calls."""
    if confirm is not None and not flag(reduce, "reduce", _core.CheckError):
        raise _core.CheckError(f"reduce=False leaves nothing to confirm: leave confirm={confirm!r} out")
    chosen, bounds = on_its_version(as_policy(policy, programs=programs_in(bounds)), bounds)
    given, note = of_effect(bounds, assumed(bounds))
    asked = [
        question
        for world, inert in worlds_of(chosen, bounds)
        for question in questions_in(chosen, world, inert, bounds, given, reduce=reduce, threads=threads)
    ]
    most = _CONFIRMED if confirm is None else _ANY if flag(confirm, "confirm", _core.CheckError) else 0
    answers = list(zip(answers_to(asked, progress, confirm=most), asked, strict=True))
    found = [(verdict, question) for verdict, question in answers if not question.hypothetical]
    beyond = [verdict for verdict, question in answers if question.hypothetical]
    cases = tuple(case for case, _ in found)
    broken = {(case.world, case.asked) for case in cases if case.status == "violated"}  # without it, too
    beyond = [
        replace(v, grade="window exists")
        if v.status == "violated" and (v.world, v.asked) not in broken
        else v
        for v in beyond
    ]
    worst, question = min(found, key=lambda pair: _RANK[pair[0].status])
    if worst.status == "inconclusive" and question.request["cpus"] > 2 and not question.request["roles"]:
        worst = replace(worst, sentence=f"{worst.sentence} {_estimate(question, progress)}".rstrip())
    if worst.status == "verified":
        worst = _harshest(cases)
        note = [*_unconfirmed(worst, cases), *note]
    if worst.status == "violated":
        worst, needed, unsure = _under_core(worst, question, progress)
        note += [*unsure, *_of_mainline(worst, needed, progress)]
    return replace(
        worst,
        sentence=" ".join([worst.sentence, *_said(chosen, cases, bounds.get("roles", "")), *note]),
        asked=", ".join(dict.fromkeys(case.asked for case in cases)),
        cases=cases,
        any_number=all(case.any_number for case in cases),
        witnesses=_seen(worst, cases),
        wrong_gs=next((case.wrong_gs for case in cases if case.wrong_gs), None),
        hypothesis=min(reversed(beyond), key=lambda v: _RANK[v.status]) if beyond else None,
    )


# States of the unreduced searches that confirm what one call finds: a few tenths of a second's worth, and any number.
_CONFIRMED = 1 << 19
_ANY = 1 << 62


_RANK = {"violated": 0, "inconclusive": 1, "verified": 2}


def _harshest(cases: tuple[Verdict, ...]) -> Verdict:
    """Return what a verdict says that every case shares: the last of the first world, and where else it holds."""
    first = [case for case in cases if (case.world, case.asked) == (cases[0].world, cases[0].asked)]
    others = dict.fromkeys(case.world for case in cases if case.world != cases[0].world)
    if not others:
        return first[-1]
    return replace(first[-1], sentence=f"{first[-1].sentence} The same holds in world {', '.join(others)}.")


def _unconfirmed(headline: Verdict, cases: tuple[Verdict, ...]) -> list[str]:
    """Say how many cases no search without reductions confirmed, where the headline's was."""
    if _NOT_CONFIRMED in headline.sentence:
        return []
    left = sum(_NOT_CONFIRMED in case.sentence for case in cases)
    return [f"Of the {len(cases)} cases, {left} were not confirmed unreduced."] if left else []


def _seen(headline: Verdict, cases: tuple[Verdict, ...]) -> dict[str, bool]:
    """Return what was seen at least once in any case; what one case alone did not see, its own witnesses say."""
    of_all = [headline.witnesses, *(case.witnesses for case in cases)]
    return {
        what: any(seen.get(what, False) for seen in of_all)
        for what in dict.fromkeys(what for seen in of_all for what in seen)
    }


def _under_core(
    worst: Verdict, question: Question, progress: Told | None
) -> tuple[Verdict, Question, list[str]]:
    """Give a violation its assumption core, the shortest run under that core alone, and its grade.

    Also returns the question under that core, and a note on what may not be needed.
    """
    core, needed, unsure = _core_of(question, progress)
    if (needed.request, needed.assume) != (question.request, question.assume):
        run = answer_to(needed, progress)
        worst = replace(worst, sentence=run.sentence, counterexample=run.counterexample)
    note = [f"Whether it needs the following is not known, a limit was met: {'; '.join(unsure)}."]
    found = replace(worst, core=core, grade=_grade(core, worst.counterexample))
    return found, needed, note if unsure else []


def _grade(core: tuple[str, ...], run: Counterexample | None) -> str:
    """Say how a violation is known (SEMANTICS A5)."""
    if any(what.startswith(_OF_CODE) for what in core):
        return "window exists"
    # Where fills on demand do, the hardware walks for an access that is next.
    if (
        _FILLS in core
        and run is not None
        and run.steps
        and run.steps[-1].what.startswith(("(walk caches", "(fetches", "(writes back"))
    ):
        return "a speculative walk suffices"
    return "an access in the window is known"


def _of_mainline(worst: Verdict, question: Question, progress: Told | None) -> list[str]:
    """Say of a broken rule about user memory whether the kernel's own text breaks it too, where it does.

    6.12's `switch_mm_irqs_off` leaves `mm_cpumask` of the previous mm before it loads the next CR3, and a walk in
    between may go through a table that is freed meanwhile.
    """
    stands_on = _core.policy_linux(question.request["text"], question.request["file"])
    mainline = policies["ipi"].on(stands_on)
    if not question.request["initiator"].startswith("flush_mm") or worst.counterexample is None:
        return []
    request = {**question.request, "text": mainline.text, "file": mainline.file}
    own = answer_to(replace(question, request=request), progress)
    same = own.counterexample is not None and own.counterexample.rule == worst.counterexample.rule
    return [f"The kernel's own text ({mainline.name}) breaks the same rule there."] if same else []


def _said(policy: Policy, cases: tuple[Verdict, ...], roles: str) -> list[str]:
    """Say what was asked about, and which of the policy's sections were not."""
    about = ", ".join(dict.fromkeys(case.asked for case in cases))
    out = [f"Asked about: {about}."]
    left = [] if roles else _core.check_questions(policy.text, policy.file)[1]
    if left:
        out.append(f"No question runs what the policy says in: {', '.join(left)}.")
    return out


# Measured over the built-in policies that pass without NMI and with D=recycled: what the third CPU and each later one
# multiply states by, least, median and most.
_THIRD_CPU = (14, 52, 89)
_LATER_CPU = (10, 41, 64)


def _estimate(question: Question, progress: Told | None) -> str:
    """Say how many states a scope that cannot be held may have: its 2-CPU form, times measured factors."""
    request = question.request
    small = answer_to(replace(question, request={**request, "cpus": 2}), progress)
    # Where one CPU stands for others, that search is the one which was cut.
    if small.status != "verified" or small.any_number:
        return ""
    later = request["cpus"] - 3
    least, likely, most = (
        small.states * third * each**later for third, each in zip(_THIRD_CPU, _LATER_CPU, strict=True)
    )
    return (
        f"Estimate: 2 CPUs have {small.states} states; by what further CPUs multiply them by elsewhere (measured, "
        f"without NMI), about {likely:.0e}, between {least:.0e} and {most:.0e}."
    )


_NOT_CONFIRMED = "Not confirmed unreduced."
_FILLS = "fills at any time"
# What a violation may need, by what it is called, and the value of the assumption that does without it.
_SWITCHES = {
    _FILLS: ("fills", "demand"),
    "store buffers": ("stores", "sc"),
    "delivery of interrupts publishes nothing": ("interrupts", "drain"),
    "broadcasts leave the stores of the CPUs they reach in their buffers": ("broadcast", "drains"),
    "INVPCID does not publish": ("invpcid", "publishes"),
    "INVLPG keeps the upper entries of other addresses (AMD's TCE)": ("tce", "off"),
    "code in the danger zone touches recycled memory": ("D", "none"),
    "NMI bodies touch recycled memory": ("N", "none"),
    "code in .noinstr.text is patched": ("T", "instr"),
    "ranges are flushed page by page": ("range", "full"),
    "a %gs-relative access under the user's GSBASE ends the run": ("gs", "works"),
}
_UNLESS_SAID = {name: values[0] for name, values in dict(_core.check_assumptions()).items()}
# Those about code, by how they begin.
_OF_CODE = ("code in the danger zone touches", "NMI bodies touch", "code in .noinstr.text is patched")
# Without store buffers there is nothing that a delivery or a broadcast could leave in them.
_OF_BUFFERS = ("interrupts", "broadcast")
_BROADCASTING = {"invlpgb", "rar"}  # features of worlds in which anything is broadcast


def _core_of(question: Question, progress: Told | None) -> tuple[tuple[str, ...], Question, list[str]]:
    """Find a smallest set of assumptions a violation needs: each is switched off, and stays off if it can.

    Returns what is needed, the question without the rest, and what is called needed because a limit was met without it.
    """
    quick = {**question.request, "trace": False, "confirm": 0}
    given = dict(question.assume)
    needed, unsure = [], []

    def violated(what: str, request: dict[str, Any], assume: dict[str, str]) -> bool:
        found = _core.check_run({**request, "assume": list(assume.items())}, progress)["status"]
        if found != "violated":
            needed.append(what)
        if found == "inconclusive":
            unsure.append(what)
        return found == "violated"

    for what, (name, value) in _SWITCHES.items():
        if given.get(name, _UNLESS_SAID[name]) == value:
            continue
        if name in _OF_BUFFERS and given.get("stores") == "sc":
            continue
        if name == "broadcast" and not _BROADCASTING & set(quick["world"].split("+")):
            continue
        if given.get(name) == "directmap":
            what = what.replace("recycled memory", "the direct map")
        off = {**given, name: value}
        if violated(what, quick, off):
            given = off
    for name, what in (("nmis", "an NMI"), ("mces", "a machine check")):
        if quick[name] and violated(what, {**quick, name: 0}, given):
            quick[name] = 0
    counts = {name: quick[name] for name in ("nmis", "mces")}
    return tuple(needed), replace(question, request={**question.request, **counts}, assume=given), unsure
