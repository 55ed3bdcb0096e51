"""The checker: verify a policy within stated bounds, or get an interleaving that breaks it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tlbcore import _core
from tlbcore._input import defaults
from tlbcore._input.numbers import count, flag
from tlbcore._output.calls import kept
from tlbcore._output.progress import Progress, shown
from tlbcore._output.result import Result, column, rows_table
from tlbcore._output.table import Table
from tlbcore._output.visible import naming
from tlbcore.kernel import machine_text
from tlbcore.policy import Policy, as_policy, policies
from tlbcore.simulation.repair_cost import cost_of
from tlbcore.verdicts import Need, Needs, Repair, Repairs, Row, VerdictTable

__all__ = [
    "Bounds",
    "Counterexample",
    "LitmusResult",
    "Need",
    "Needs",
    "Repair",
    "Repairs",
    "Row",
    "Step",
    "TimedReplay",
    "Verdict",
    "VerdictTable",
    "check",
    "litmus",
    "necessary",
    "repair",
    "verdict_table",
]

_GIB = 1 << 30
HYPOTHESIS = "If a future change touched recycled memory on the entry and exit paths"

Told = Callable[[int, int], None]  # what the core calls: states and depth


@dataclass(frozen=True, kw_only=True)
class Step:
    """One move of a counterexample.

    Parameters
    ----------
    number
        Position in the schedule, from 1.
    cpu
        CPU it happens on.
    what
        The op's line of source, or an event of the hardware in parentheses.
    source
        File, line and place of the op; None for events of the hardware.
    changes
        What changed: entries of TLBs and page tables, variables, buffered stores.
    shown
        Whether the printed table has it: it changes something that others, or a later walk, can see.
    """

    number: int
    cpu: int
    what: str
    source: str | None
    changes: tuple[str, ...]
    shown: bool


@dataclass(frozen=True, kw_only=True)
class TimedReplay:
    """A schedule of the checker in the timed engine.

    Parameters
    ----------
    rule
        The rule that the last move breaks; None if it breaks none, or `why_not` says why it did not run.
    time_ns
        When the last move happened, from the start.
    moves
        Moves carried out.
    why_not
        What the question has that the timed engine has no equivalent of: walks through freed page tables, patched
        text, user memory, data of pages, conditions on states, CPUs that take no interrupts.
    """

    rule: str | None
    time_ns: float
    moves: int
    why_not: str | None


def _timed(request: dict[str, Any], store_buffer: int, schedule: str, machine: str) -> TimedReplay:
    rule, time_ps, moves, why_not = _core.check_replay_timed(request, store_buffer, schedule, machine)
    return TimedReplay(rule=rule, time_ns=time_ps / 1e3, moves=moves, why_not=why_not)


@dataclass(frozen=True, kw_only=True, repr=False)
class Counterexample:
    """A run that breaks a rule, the shortest on the entry paths that the search follows.

    `print` shows one lane per CPU in at most 72 columns.

    Parameters
    ----------
    rule
        Name of the broken rule, as in SEMANTICS S5 to S11.
    schedule
        The run as text, all nondeterminism in it; `replay` carries it out.
    steps
        Its moves.
    lanes
        Headings of the lanes.
    closing
        One sentence on what went wrong.
    text
        What `print` shows.
    kernel
        The kernel that places in `linux.kernel` and `contexts.kernel` are functions of, such as `Linux 6.12`.
    assume
        The assumptions the run needs no more than: those of the verdict, but for what its core can do without.
    """

    rule: str
    schedule: str
    steps: tuple[Step, ...]
    lanes: tuple[str, ...]
    closing: str
    text: str
    kernel: str
    assume: Mapping[str, str]
    _request: dict[str, Any] = field(compare=False)
    _store_buffer: int = field(compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Counterexample {self.rule} in {len(self.steps)} moves>"

    def replay(self) -> str | None:
        """Carry out the schedule, in the checker and in the timed engine; return the rule its last move breaks.

        The timed engine sits out what it has no equivalent of; `replay_timed` says what that is.

        Raises
        ------
        CheckError
            If a move is not possible when its turn comes, or the two machines disagree (a bug in one of them).
        """
        rule = _core.check_replay(self._request, self._store_buffer, self.schedule)
        timed = self.replay_timed()
        if timed.why_not is None and timed.rule != rule:
            raise _core.CheckError(f"the checker's rule is {rule!r}, the timed engine's {timed.rule!r}")
        return rule

    def replay_timed(self, *, machine: str = "skylake-sp") -> TimedReplay:
        """Carry out the schedule in the timed engine with its store queue on.

        Programs, interpreter, costs and TLB are those of `simulate`; who goes on is the schedule's decision, so a
        CPU whose turn comes late stood still until then.

        Parameters
        ----------
        machine
            CPU model, for costs and the TLB (nothing leaves it for lack of PCID slots).

        Raises
        ------
        CheckError
            If a move is not possible when its turn comes.
        TlbError
            If the machine is unknown.
        """
        return _timed(self._request, self._store_buffer, self.schedule, machine)

    def to_svg(self, path: str | Path | None = None, *, every: bool = False) -> str:
        """Return the run as a sequence diagram in SVG, and write it if a path is given.

        A lifeline per CPU and one of memory, time downwards. `every` adds the moves that change nothing others can see.
        `OSError` if the file cannot be written.
        """
        from tlbcore._output.files import replace_file
        from tlbcore._output.interleaving.diagram import svg

        text = svg(self, every=every)
        if path is not None:
            replace_file(Path(path), text.encode())
        return text

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def to_dict(self) -> dict[str, Any]:
        """Return the counterexample as plain data, the twin of its text."""
        return {
            "rule": self.rule,
            "schedule": self.schedule,
            "assume": dict(self.assume),
            "kernel": self.kernel,
            "lanes": list(self.lanes),
            "closing": self.closing,
            "steps": [
                {
                    "number": s.number,
                    "cpu": s.cpu,
                    "what": s.what,
                    "source": s.source,
                    "changes": list(s.changes),
                    "shown": s.shown,
                }
                for s in self.steps
            ],
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Verdict(Result):
    """The answer of the checker. `print` shows it in full; `bool` raises, because there are three outcomes.

    Parameters
    ----------
    policy
        Name of the policy.
    status
        `verified` (within the bounds), `violated`, or `inconclusive`.
    sentence
        The verdict in the words of SEMANTICS, bounds and assumptions included.
    world
        The machine and kernel it is about: a set of features such as `pti` or `nopti+invlpgb`.
    inert
        The features that the policy needs and the world lacks: what runs there is mainline, and so is the verdict's
        subject. Empty where the policy runs.
    assume
        The assumptions it was computed under.
    states, transitions, depth
        Size of the explored graph. A violated search stops early.
    counterexample
        If violated: a run that breaks a rule under the assumptions of `core` and no others.
    grade
        If violated: `window exists` (the run needs an assumption about code that nobody has seen do it), `a
        speculative walk suffices` (no code touches it: hardware may), or `an access in the window is known`.
    witnesses
        What was seen at least once, so that a pass is not vacuous.
    wrong_gs
        Schedule of a run in which a %gs-relative access meets the user's GSBASE (SEMANTICS S8, L2); reported
        beside the verdict, unless `assume={"gs": "faults"}` makes it one.
    implied
        Of a case: it was not searched, because the same with more accesses was verified; its numbers are those.
    asked
        What was asked about: such as purges of vmalloc. Of a verdict with cases, all of it.
    core
        If violated: a smallest set of machine assumptions the violation needs, found by switching each off.
    bits_per_cpu, bits_shared
        Width of the packed state.
    cases
        The verdicts this one is the worst of: one for each world, question and assumption about code that is not
        modelled.
    hypothesis
        What the kernel does not do today, asked beside the verdict: the same with an access to recycled memory
        anywhere between the CR3 switch and the flush (D=recycled). The worst of the worlds; None if D was given, or
        nothing asked is about flushes.
    """

    policy: str
    status: str
    sentence: str
    world: str
    inert: tuple[str, ...]
    assume: Mapping[str, str]
    states: int
    transitions: int
    depth: int
    counterexample: Counterexample | None
    grade: str | None
    witnesses: Mapping[str, bool]
    wrong_gs: str | None
    bits_per_cpu: tuple[int, ...]
    bits_shared: int
    cases: tuple[Verdict, ...] = ()
    core: tuple[str, ...] = ()
    hypothesis: Verdict | None = None
    asked: str = ""
    implied: bool = False

    def _tables(self) -> dict[str, Table]:
        cases = self.cases or (self,)
        names = (
            "policy",
            "world",
            "asked",
            "status",
            "rule",
            "states",
            "transitions",
            "depth",
            "implied",
            "assume",
        )
        tables = {"cases": rows_table(cases, names, ("inert",))}
        if self.counterexample is not None:
            tables["counterexample"] = rows_table(self.counterexample.steps)
        return tables

    def _about(self) -> dict[str, Any]:
        return {
            "policy": self.policy, "status": self.status, "grade": self.grade, "sentence": self.sentence,
            "world": self.world, "assume": dict(self.assume), "core": self.core, "version": _core.__version__,
        }  # fmt: skip

    def _inert(self) -> list[str]:
        needs = {case.world: case.inert for case in (self.cases or (self,)) if case.inert}
        return [f"{self.policy} in world {world} needs {', '.join(what)}" for world, what in needs.items()]

    @property
    def rule(self) -> str | None:
        """The rule that breaks, if one does."""
        return None if self.counterexample is None else self.counterexample.rule

    @property
    def residency(self) -> bool:
        """Whether a CPU held a dead translation or dead text in some run: a diagnostic, never a failure (S10)."""
        dead = ("a CPU held a dead translation", "a CPU had fetched text that a sync made dead")
        return any(self.witnesses.get(what, False) for what in dead)

    def __bool__(self) -> bool:
        raise TypeError("a verdict is verified, violated or inconclusive: compare .status")

    def __repr__(self) -> str:
        return f"<Verdict {self.policy}: {self.status}, {self.states} states>"

    def __str__(self) -> str:
        from textwrap import fill

        parts = [f"{self.policy}: {self.status}" + (f" ({self.grade})" if self.grade else "")]
        if self.inert:
            parts[0] += f", inert in world {self.world}"
        if self.counterexample is not None:
            parts += ["", str(self.counterexample).rstrip()]
        parts += ["", fill(self.sentence, 72)]
        if self.status == "violated":
            needs = "; ".join(self.core) if self.core else "nothing beyond the interleaving"
            parts += ["", fill(f"Assumption core: {needs}.", 72)]
        if self.hypothesis is not None:
            found = self.hypothesis
            rule = f": {found.counterexample.rule}" if found.counterexample else ""
            parts += ["", fill(f"{HYPOTHESIS}: {found.status}{rule} (`--assume D=recycled`).", 72)]
        if len(self.cases) > 1:
            parts.append("")
            worlds = len({case.world for case in self.cases}) > 1
            several = len({case.asked for case in self.cases}) > 1
            about = ""
            for case in self.cases:
                if several and case.asked != about:
                    about = case.asked
                    parts.append(f"  {about}")
                named = ("T",) if "T" in case.assume else ("D", "N", "range")
                what = ", ".join(f"{k}={v}" for k, v in case.assume.items() if k in named)
                what = f"{case.world}, {what}" if worlds else what
                rule = f": {case.counterexample.rule}" if case.counterexample else ""
                size = "implied by a harsher one" if case.implied else f"{case.states} states"
                parts.append(f"  {what:<24} {case.status}{rule}, {size}")
        never = [what for what, seen in self.witnesses.items() if not seen]
        if self.status == "verified" and never:
            parts += ["", fill("Never seen within these bounds: " + "; ".join(never) + ".", 72)]
        if self.wrong_gs is not None:
            parts += [
                "",
                fill(
                    "Beside the verdict: a %gs-relative access happens while GSBASE is the user's "
                    "(wrong_gs_access, S8); `--assume gs=faults` prints how.",
                    72,
                ),
            ]
        return "\n".join(parts)

    def to_mail(self) -> str:
        """Return the verdict as a plain-text mail of at most 72 columns: subject, text, how to see it again."""
        from tlbcore._output.interleaving.mail import mail

        return mail(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain data."""
        return {
            "policy": self.policy,
            "status": self.status,
            "sentence": self.sentence,
            "world": self.world,
            "inert": list(self.inert),
            "assume": dict(self.assume),
            "states": self.states,
            "transitions": self.transitions,
            "depth": self.depth,
            "grade": self.grade,
            "witnesses": dict(self.witnesses),
            "wrong_gs": self.wrong_gs,
            "core": list(self.core),
            "asked": self.asked,
            "bits_per_cpu": list(self.bits_per_cpu),
            "bits_shared": self.bits_shared,
            "counterexample": self.counterexample.to_dict() if self.counterexample else None,
            "cases": [case.to_dict() for case in self.cases],
            "hypothesis": None if self.hypothesis is None else self.hypothesis.to_dict(),
        }


class Bounds(TypedDict, total=False):
    """The bounds and assumptions of a question, which `check`, `necessary` and `repair` take as keywords.

    Parameters
    ----------
    cpus
        CPUs, 2 to 5.
    nmis, mces
        NMIs and machine checks in all.
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
        What each CPU does, instead of `cpus`, `entries` and `rounds`: such as `purge; purge; isolated 2`. A
        role is `PROGRAM`, `PROGRAM*ROUNDS`, `isolated ENTRIES`, `isolated ENTRIES by ENTRY` (an entry path such
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
        Confirm a pass of the reduced search by one without reductions: `None` where that has no more than about a
        million states (a second or so), `True` whatever it takes. The sentence says whether it was.
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
        If the bounds or assumptions cannot be explored, or there is no such world.
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
    with _exploring(progress) as told:
        return _checked(policy, bounds, reduce=reduce, confirm=confirm, threads=threads, progress=told)


@contextmanager
def _exploring(progress: Progress | bool | None) -> Iterator[Told | None]:
    """Turn `progress` into what the core calls with states and depth."""
    with shown(progress, "exploring", "states") as advance:
        yield None if advance is None else lambda states, _depth: advance(states, None)


def _checked(
    policy: str | Path | Policy,
    bounds: Bounds,
    *,
    reduce: bool = True,
    confirm: bool | None = None,
    threads: int | None = None,
    progress: Told | None,
) -> Verdict:
    chosen = as_policy(policy, programs=_programs(bounds))
    given, note = _of_effect(bounds, _assumed(bounds))
    asked = [
        question
        for world, inert in _worlds(chosen, bounds)
        for question in _in_world(chosen, world, inert, bounds, given, reduce=reduce, threads=threads)
    ]
    most = _CONFIRMED if confirm is None else _ANY if flag(confirm, "confirm", _core.CheckError) else 0
    asked = [replace(question, request={**question.request, "confirm": most}) for question in asked]
    answers = list(zip(_answers(asked, progress), asked, strict=True))
    found = [(verdict, question) for verdict, question in answers if not question.hypothetical]
    beyond = [verdict for verdict, question in answers if question.hypothetical]
    beyond = [replace(v, grade="window exists") if v.status == "violated" else v for v in beyond]
    cases = tuple(case for case, _ in found)
    worst, question = min(found, key=lambda pair: _RANK[pair[0].status])
    if worst.status == "inconclusive" and question.request["cpus"] > 2 and not question.request["roles"]:
        worst = replace(worst, sentence=f"{worst.sentence} {_estimate(question, progress)}".rstrip())
    if worst.status == "verified":
        worst = _harshest(cases)
    if worst.status == "violated":
        note += _of_mainline(worst, question, progress)
        worst = _under_core(worst, question, progress)
    return replace(
        worst,
        sentence=" ".join([worst.sentence, *_said(chosen, cases, bounds.get("roles", "")), *note]),
        asked=", ".join(dict.fromkeys(case.asked for case in cases)),
        cases=cases,
        wrong_gs=next((case.wrong_gs for case in cases if case.wrong_gs), None),
        hypothesis=min(reversed(beyond), key=lambda v: _RANK[v.status]) if beyond else None,
    )


# States of an unreduced search that confirms: about a second's worth, and any number.
_CONFIRMED = 1 << 20
_ANY = 1 << 62

_RANK = {"violated": 0, "inconclusive": 1, "verified": 2}


@dataclass(frozen=True, kw_only=True)
class _Question:
    """One search: the policy it is about, what is asked, and under which assumptions.

    `inert` are the features that the world lacks, `hypothetical` says that the kernel does not do what is assumed.
    """

    name: str
    request: dict[str, Any]
    assume: dict[str, str]
    inert: tuple[str, ...] = ()
    hypothetical: bool = False


# What is asked about memory that may be recycled.
_RECYCLED = ("purge", "vunmap", "table_free", "flush_all_asked")


def _worlds(policy: Policy, bounds: Bounds) -> list[tuple[str, tuple[str, ...]]]:
    """Return the worlds a policy is asked about, each with the features that it lacks there."""
    world = bounds.get("world", "")
    if not isinstance(world, str):
        raise _core.CheckError(f"world is a set of features such as 'nopti+invlpgb': got {world!r}")
    if not world:
        return [(name, ()) for name in _core.check_worlds(policy.text, policy.file)]
    name, inert = _core.check_world(policy.text, policy.file, world)
    return [(name, tuple(inert))]


def _in_world(
    policy: Policy,
    world: str,
    inert: tuple[str, ...],
    bounds: Bounds,
    given: dict[str, str],
    *,
    reduce: bool,
    threads: int | None,
) -> list[_Question]:
    """Return what is asked of a policy in one world; where it is inert, of mainline."""
    subject = policies["ipi"] if inert else policy
    request = {**_request(subject, bounds, reduce=reduce, threads=threads), "world": world}
    out = []
    for asked, assume in _with_table_free(policy, _questions(subject, request, given)):
        question = _Question(name=policy.name, request=asked, assume=assume, inert=inert)
        out.append(question)
        harmless = assume.get("N", "none") == given.get("N", "none") and asked["initiator"] in _RECYCLED
        if "D" not in given and "T" not in assume and harmless:
            out.append(replace(question, assume={**assume, "D": "recycled"}, hypothetical=True))
    return out


def _with_table_free(
    policy: Policy, questions: list[tuple[dict[str, Any], dict[str, str]]]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Ask mainline about frees of page tables too; and about those with 2 ASIDs and both forms of a flush.

    What a flush leaves of upper entries is those of the PCIDs that are not loaded, and pmd_free_pte_page flushes one
    page. A policy that is mainline says nothing of its own, so that all of it is asked about. The second ASID is one of
    2 CPUs: where more were asked for, they have the ASIDs that were asked for in a question beside it.
    """
    out = list(questions)
    if _is_mainline(policy) and not any(asked["roles"] for asked, _ in questions):
        about = {"initiator": "table_free", "beside": "", "about": "frees of page tables"}
        out += [({**asked, **about}, assume) for asked, assume in questions if asked["initiator"] == "purge"]
    for i, (asked, assume) in reversed(list(enumerate(out))):
        if asked["initiator"] != "table_free":
            continue
        forms = [{**asked, "asids": 2}]
        if asked["cpus"] > 2 and asked["asids"] == 1:
            beside = f"{asked['about']}, 2 CPUs with 2 ASIDs"
            forms = [asked, {**asked, "cpus": 2, "asids": 2, "about": beside}]
        ranges = [assume["range"]] if "range" in assume else ["pages", "full"]
        out[i : i + 1] = [(form, {**assume, "range": how}) for form in forms for how in ranges]
    return out


def _is_mainline(policy: Policy) -> bool:
    """Whether a policy replaces nothing, and nothing that it is based on does."""
    base = _core.policy_parse(policy.text, policy.file, list(policy.programs))["based_on"]
    return not policy.sections and (base is None or _is_mainline(policies[base]))


def _harshest(cases: tuple[Verdict, ...]) -> Verdict:
    """Return what a verdict says that every case shares: the last of the first world, and where else it holds."""
    first = [case for case in cases if (case.world, case.asked) == (cases[0].world, cases[0].asked)]
    others = dict.fromkeys(case.world for case in cases if case.world != cases[0].world)
    if not others:
        return first[-1]
    return replace(first[-1], sentence=f"{first[-1].sentence} The same holds in world {', '.join(others)}.")


def _under_core(worst: Verdict, question: _Question, progress: Told | None) -> Verdict:
    """Give a violation its assumption core, the shortest run under that core alone, and its grade."""
    core, needed = _core_of(question, progress)
    if (needed.request, needed.assume) != (question.request, question.assume):
        run = _one(needed, progress)
        worst = replace(worst, sentence=run.sentence, counterexample=run.counterexample)
    return replace(worst, core=core, grade=_grade(core, worst.counterexample))


def _grade(core: tuple[str, ...], run: Counterexample | None) -> str:
    """Say how a violation is known (SEMANTICS A5)."""
    if any(what in core for what, (name, _) in _SWITCHES.items() if name in ("D", "N", "T")):
        return "window exists"
    if run is not None and run.steps and run.steps[-1].what.startswith(("(walk caches", "(fetches")):
        return "a speculative walk suffices"
    return "an access in the window is known"


def _programs(bounds: Bounds) -> tuple[str, ...]:
    """Return the names in roles: sections of a file that nothing else uses may be among them."""
    roles = bounds.get("roles", "")
    words = roles.replace(",", ";").split(";") if isinstance(roles, str) else []
    names = (word.strip().removeprefix("isolated ").partition("*")[0].strip() for word in words)
    return tuple(name for name in names if name.isidentifier())


def _of_effect(bounds: Bounds, given: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Leave out what is assumed of NMIs where none was asked for in so many words, as in a loop over their number."""
    if given.get("N", "none") == "none" or bounds.get("nmis") != 0 or bounds.get("mces"):
        return given, []
    rest = {name: value for name, value in given.items() if name != "N"}
    return rest, [f"N={given['N']} is about NMIs and machine checks, and there are none: left out."]


def _of_mainline(worst: Verdict, question: _Question, progress: Told | None) -> list[str]:
    """Say of a broken rule about user memory whether the kernel's own text breaks it too, where it does.

    6.12's `switch_mm_irqs_off` leaves `mm_cpumask` of the previous mm before it loads the next CR3, and a walk in
    between may go through a table that is freed meanwhile.
    """
    mainline = policies["ipi"]
    if not question.request["initiator"].startswith("flush_mm") or worst.counterexample is None:
        return []
    request = {**question.request, "text": mainline.text, "file": mainline.file}
    own = _one(replace(question, request=request), progress)
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


# From the fewest accesses to the most.
_ACCESSES = {
    "D": ("none", "directmap", "recycled"),
    "N": ("none", "directmap", "recycled"),
    "T": ("instr", "danger", "noinstr"),
}


def _accesses(assume: dict[str, str]) -> list[int]:
    return [levels.index(assume.get(name, levels[0])) for name, levels in _ACCESSES.items()]


def _others(assume: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in assume.items() if name not in _ACCESSES}


def _answers(asked: list[_Question], progress: Told | None) -> list[Verdict]:
    """Answer each question under each assumption.

    What code may touch (D, N) and where text is patched (T) only add accesses: an access reads, changes no entry, no
    variable and no buffer, and caches nothing that could not be cached at that moment anyway (SEMANTICS H2). So every
    run under fewer accesses is one under more, but for those that break a rule earlier, and what is verified under
    more, everything else being the same, is verified under less. The harshest is searched first: all of the accesses
    of a group of questions at once, and where that is verified the group is. With `fills=demand` an access does cache,
    and each question is searched by itself.
    """
    for question in asked:
        for name, levels in _ACCESSES.items():
            if question.assume.get(name, levels[0]) not in levels:
                return [_one(q, progress) for q in asked]  # the core says which there are
    found: dict[int, Verdict] = {}
    proofs: list[tuple[_Question, Verdict]] = []
    joined: list[_Question] = []
    for i in sorted(range(len(asked)), key=lambda i: sum(_accesses(asked[i].assume)), reverse=True):
        question = asked[i]
        harsher = _joined(question, asked)
        if harsher is not None and harsher not in joined and question.assume.get("fills") != "demand":
            joined.append(harsher)
            done = _one(harsher, progress, trace=False)
            proofs += [(harsher, done)] if done.status == "verified" else []
        proof = next((done for known, done in proofs if _implies(known, question)), None)
        if proof is None:
            found[i] = _one(question, progress)
            proofs += [(question, found[i])] if found[i].status == "verified" else []
        else:
            found[i] = replace(proof, assume=question.assume, implied=True)
    return [found[i] for i in range(len(asked))]


def _alike(a: _Question, b: _Question) -> bool:
    """Whether two questions differ in what is accessed alone."""
    return a.request == b.request and _others(a.assume) == _others(b.assume)


def _implies(known: _Question, question: _Question) -> bool:
    """Whether `question`, which is `known` with no other and no more accesses, need not be searched."""
    more = zip(_accesses(known.assume), _accesses(question.assume), strict=True)
    return (
        _alike(known, question) and question.assume.get("fills") != "demand" and all(a >= b for a, b in more)
    )


def _joined(question: _Question, asked: list[_Question]) -> _Question | None:
    """Return the question with the accesses of all that are like it; `None` if one of those has them all."""
    alike = [q for q in asked if _alike(q, question)]
    most = [max(levels) for levels in zip(*(_accesses(q.assume) for q in alike), strict=True)]
    if any(_accesses(q.assume) == most for q in alike):
        return None
    named = zip(_ACCESSES.items(), most, strict=True)
    more = {name: levels[i] for (name, levels), i in named if name in question.assume}
    return replace(question, assume={**question.assume, **more}, hypothetical=True)


# Measured over the built-in policies that pass without NMI and with D=recycled: what the third CPU and each later one
# multiply states by, least, median and most.
_THIRD_CPU = (14, 52, 89)
_LATER_CPU = (10, 41, 64)


def _estimate(question: _Question, progress: Told | None) -> str:
    """Say how many states a scope that cannot be held may have: its 2-CPU form, times measured factors."""
    request = question.request
    small = _one(replace(question, request={**request, "cpus": 2}), progress)
    if small.status != "verified":
        return ""
    later = request["cpus"] - 3
    least, likely, most = (
        small.states * third * each**later for third, each in zip(_THIRD_CPU, _LATER_CPU, strict=True)
    )
    return (
        f"Estimate: 2 CPUs have {small.states} states; by what further CPUs multiply them by elsewhere (measured, "
        f"without NMI), about {likely:.0e}, between {least:.0e} and {most:.0e}."
    )


@functools.lru_cache(maxsize=256)
def _asked(text: str, file: str) -> tuple[tuple[str, str, str], ...]:
    return tuple(_core.check_questions(text, file)[0])


@functools.lru_cache(maxsize=256)
def _initiators(text: str, file: str) -> tuple[str, ...]:
    return tuple(_core.check_initiators(text, file))


def _questions(
    policy: Policy, request: dict[str, Any], given: dict[str, str]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return what is asked of a policy: its initiators, each under every assumption that is not given."""
    roles = [role.strip().removeprefix("isolated ") for role in request["roles"].replace(",", ";").split(";")]
    rows = list(_asked(policy.text, policy.file))
    if request["roles"]:
        text = any(r.startswith("text_") for r in roles)
        rows = [("text_poke" if text else "purge", f"the roles {request['roles'].strip()}", "")]
    _refuse_idle(policy, request, given, [initiator for initiator, _, _ in rows])
    out = []
    for initiator, about, beside in rows:
        about = f"{about}, idle CPUs" if beside == "idle" else about
        asked = {**request, "initiator": initiator, "beside": beside, "about": about}
        if initiator.startswith("text_"):
            where = [given["T"]] if "T" in given else ["instr", "danger", "noinstr"]
            rest = {"D": given.get("D", "none"), "N": given.get("N", "none")}
            out += [(asked, {**given, **rest, "T": text}) for text in where]
        else:
            # User memory is no business of NMIs.
            most = {"set_memory": "directmap", "flush_mm": "none", "flush_mm_tables": "none"}
            touched = list(dict.fromkeys(["none", most.get(initiator, "recycled")]))
            nmis = request["nmis"] or request["mces"]
            bodies = [given["N"]] if "N" in given else touched if nmis else ["none"]
            flushes = {k: v for k, v in given.items() if k != "T"}
            out += [(asked, {**flushes, "D": given.get("D", "none"), "N": n}) for n in bodies]
    return out


def _refuse_idle(
    policy: Policy, request: dict[str, Any], given: dict[str, str], initiators: list[str]
) -> None:
    """Refuse bounds and assumptions that nothing asked of this policy depends on."""
    if all(initiator.startswith("text_") for initiator in initiators):
        about = f"{policy.name} is asked about syncs of text alone"
        if request["pages"] != 1:
            raise _core.CheckError(f"pages={request['pages']} is about flushes, and {about}")
        for name in ("D", "N"):
            if given.get(name, "none") != "none":
                raise _core.CheckError(
                    f"{name}={given[name]} is about flushes, and {about}: T says where text is patched"
                )
    elif not any(initiator.startswith("text_") for initiator in initiators) and "T" in given:
        raise _core.CheckError(
            f"T={given['T']} is about patched text, and {policy.name} is asked about flushes alone"
        )
    if given.get("N", "none") != "none" and not (request["nmis"] or request["mces"]):
        raise _core.CheckError(f"N={given['N']} is about NMIs and machine checks: give nmis or mces as well")


def _request(
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
        "cpus": _bound("cpus", bounds.get("cpus", 2), 1 if bounds.get("roles") else 2, 5),
        "nmis": _bound("nmis", bounds.get("nmis", 0), 0, 7),
        "mces": _bound("mces", bounds.get("mces", 0), 0, 3),
        "asids": _bound("asids", bounds.get("asids", 1), 1, 2),
        "pages": _bound("pages", bounds.get("pages", 1), 1, 3),
        "entries": _times("entries", bounds.get("entries", 2), 0),
        "rounds": _times("rounds", bounds.get("rounds", 1), 1),
        "memory": _memory(bounds.get("memory", 8 * _GIB)),
        "plain": not flag(reduce, "reduce", _core.CheckError),
        "confirm": 0,
        "threads": 0 if threads is None else _bound("threads", threads, 1, 64),
        "roles": bounds.get("roles", ""),
        "world": bounds.get("world") or "pti",
        "initiator": _initiators(policy.text, policy.file)[0],
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


def _assumed(bounds: Bounds) -> dict[str, str]:
    given = bounds.get("assume") or {}
    if not isinstance(given, Mapping) or not all(isinstance(w, str) for pair in given.items() for w in pair):
        raise _core.CheckError(f"assume is names and values, such as {{'D': 'recycled'}}: got {given!r}")
    return dict(given)


# What a violation may need, by what it is called, and the value of the assumption that does without it.
_SWITCHES = {
    "fills at any time": ("fills", "demand"),
    "store buffers": ("stores", "sc"),
    "INVPCID does not publish": ("invpcid", "publishes"),
    "INVLPG keeps the upper entries of other addresses (AMD's TCE)": ("tce", "off"),
    "code in the danger zone touches recycled memory": ("D", "none"),
    "NMI bodies touch recycled memory": ("N", "none"),
    "code in .noinstr.text is patched": ("T", "instr"),
}


def _core_of(question: _Question, progress: Told | None) -> tuple[tuple[str, ...], _Question]:
    """Find a smallest set of assumptions a violation needs: each is switched off, and stays off if it can.

    Returns what is needed, and the question without the rest.
    """
    quick = {**question.request, "trace": False, "confirm": 0}
    given = dict(question.assume)
    needed = []
    for what, (name, value) in _SWITCHES.items():
        if given.get(name) == value or (name == "T" and "T" not in given):
            continue
        off = {**given, name: value}
        if _core.check_run({**quick, "assume": list(off.items())}, progress)["status"] == "violated":
            given = off
        else:
            needed.append(what)
    for name, what in (("nmis", "an NMI"), ("mces", "a machine check")):
        if quick[name]:
            tried = _core.check_run({**quick, name: 0, "assume": list(given.items())}, progress)
            if tried["status"] == "violated":
                quick[name] = 0
            else:
                needed.append(what)
    counts = {name: quick[name] for name in ("nmis", "mces")}
    return tuple(needed), replace(question, request={**question.request, **counts}, assume=given)


def _bound(name: str, value: int, least: int, most: int) -> int:
    return count(value, name, least, most, _core.CheckError)


def _memory(value: int) -> int:
    return count(value, "memory", 1, error=_core.CheckError)


def _times(name: str, value: int | str, least: int) -> int:
    """Read a number of runs; 255 stands for any number."""
    if value == "unbounded":
        return 255
    if isinstance(value, str):
        raise _core.CheckError(f"{name} must be an integer from {least} to 15 or unbounded: got {value!r}")
    return _bound(name, value, least, 15)


def _one(question: _Question, progress: Told | None, *, trace: bool = True) -> Verdict:
    """Return the verdict on one question, a violation with its run if `trace`; grade and core are found later."""
    asked = {**question.request, "trace": trace, "assume": list(question.assume.items())}
    found = _core.check_run(asked, progress)
    shown = found["counterexample"]
    example = None
    if shown is not None:
        example = Counterexample(
            rule=shown["rule"],
            schedule=shown["schedule"],
            steps=tuple(
                Step(
                    number=s["number"],
                    cpu=s["cpu"],
                    what=s["what"],
                    source=s["source"],
                    changes=tuple(s["changes"]),
                    shown=s["shown"],
                )
                for s in shown["steps"]
            ),
            lanes=tuple(shown["lanes"]),
            closing=shown["closing"],
            text=shown["text"],
            kernel=shown["kernel"],
            assume=dict(question.assume),
            _request=asked,
            _store_buffer=found["store_buffer"],
        )
    sentence = found["sentence"]
    if question.inert:
        sentence += f" {question.name} is inert there: it needs {', '.join(question.inert)}, and what runs is mainline."
    return Verdict(
        policy=question.name,
        status=found["status"],
        sentence=sentence,
        world=found["world"],
        inert=question.inert,
        assume=question.assume,
        states=found["states"],
        transitions=found["transitions"],
        depth=found["depth"],
        counterexample=example,
        grade=None,
        witnesses=dict(found["witnesses"]),
        wrong_gs=found["wrong_gs"],
        bits_per_cpu=tuple(found["bits_per_cpu"]),
        bits_shared=found["bits_shared"],
        asked=question.request["about"],
    )


def _edited(policy: Policy, bounds: Bounds, progress: Told | None) -> tuple[Verdict, dict[str, Any]]:
    """Return the verdict on a policy, and what is asked of its edited forms in the world of that verdict.

    What holds of the policy must hold of them: an access to recycled memory in the danger zone is assumed if the
    policy survives it.
    """
    verdict = _checked(policy, bounds, progress=progress)
    if verdict.inert:
        needs = ", ".join(verdict.inert)
        raise _core.CheckError(f"{policy.name} is inert in world {verdict.world}: it needs {needs}")
    given = _assumed(bounds)
    if verdict.hypothesis is None or verdict.hypothesis.status != "verified":
        given.setdefault("D", "none")
    request = {**_request(policy, bounds), "world": verdict.world}
    return verdict, {**request, "trace": False, "assume": list(given.items())}


@kept
def necessary(
    policy: str | Path | Policy, *, progress: Progress | bool | None = None, **bounds: Unpack[Bounds]
) -> Needs:
    """Weaken or remove each op, fence and order of a verified policy in turn, and check what is left.

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
    with _exploring(progress) as told:
        return _necessary(policy, bounds, told)


def _necessary(policy: str | Path | Policy, bounds: Bounds, progress: Told | None) -> Needs:
    chosen = as_policy(policy)
    verdict, request = _edited(chosen, bounds, progress)
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
        for r in _core.check_necessary(request, progress)
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
        Edits at most.
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
    with _exploring(progress) as told:
        return _repaired(policy, bounds, edits=edits, machine=machine, progress=told)


def _repaired(
    policy: str | Path | Policy, bounds: Bounds, *, edits: int, machine: str, progress: Told | None
) -> Repairs:
    most = _bound("edits", edits, 1, 3)
    machine_text(machine)  # before a long search
    chosen = as_policy(policy)
    verdict, request = _edited(chosen, bounds, progress)
    if verdict.status == "verified":
        raise _core.CheckError(f"{chosen.name} is verified within these bounds: there is nothing to repair")
    out = []
    for r in _core.check_repair(request, most, progress):
        fixed = Policy(text=r["text"])
        judged = _checked(fixed, bounds, progress=progress)
        if judged.status != "verified":  # in another world, or asked another question
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


_Scope = tuple[int, int, int, str, str, str, str]
# What a question assumes of INVPCID where nothing is said.
_INVPCID = dict(_core.check_assumptions())["invpcid"][0]
# CPUs, NMIs, ASIDs, D, N, T, INVPCID.
_FLUSH_SCOPES: tuple[_Scope, ...] = (
    *(
        (2, nmis, asids, danger, bodies, "instr", publishes)
        for nmis in (0, 1)
        for asids in (1, 2)
        for publishes in (_INVPCID, "publishes")
        for danger in ("none", "recycled")
        for bodies in (("none", "recycled") if nmis else ("none",))
    ),
    *((3, 0, 1, danger, "none", "instr", _INVPCID) for danger in ("none", "recycled")),
)
# No translation and no INVPCID is part of the question.
_TEXT_SCOPES: tuple[_Scope, ...] = tuple(
    (2, nmis, 1, "none", "none", text, _INVPCID) for nmis in (0, 1) for text in ("instr", "danger", "noinstr")
)


def _stated(stated: list[str], initiator: str, scope: _Scope) -> str | None:
    cpus, nmis, asids, danger, bodies, text, publishes = scope
    if (cpus, asids, publishes) != (2, 1, _INVPCID):
        return None
    if initiator == "text_poke":
        case = {(0, "instr"): 0, (0, "danger"): 1, (1, "instr"): 2}.get((nmis, text))
    else:
        case = {(0, "none", "none"): 0, (0, "recycled", "none"): 1, (1, "none", "recycled"): 2}.get(
            (nmis, danger, bodies)
        )
    return None if case is None else stated[case]


def _row(name: str, initiator: str, scope: _Scope, memory: int, world: str = "") -> Row:
    """Check one built-in policy within one scope and world: the first one it is asked about, if none is named."""
    cpus, nmis, asids, danger, bodies, text, publishes = scope
    stated = ["verified" if v else "violated" for v in _core.policy_stated(name)]
    row = Row(
        policy=name,
        world=world or _core.check_worlds(policies[name].text, policies[name].file)[0],
        defers="sync" if initiator == "text_poke" else "flush",
        cpus=cpus,
        nmis=nmis,
        asids=asids,
        danger=danger,
        bodies=bodies,
        text=text,
        invpcid=publishes,
        status="",
        rule=None,
        states=0,
        unseen=(),
        stated=_stated(stated, initiator, scope),
    )
    found = _core.check_run(_row_request(row, memory), None)
    return replace(
        row,
        status=found["status"],
        rule=found["rule"],
        states=found["states"],
        unseen=tuple(what for what, seen in found["witnesses"] if not seen),
    )


def _row_request(row: Row, memory: int) -> dict[str, Any]:
    """Return the question of a row."""
    bounds = Bounds(cpus=row.cpus, nmis=row.nmis, asids=row.asids, memory=memory, world=row.world)
    return {
        **_request(policies[row.policy], bounds),
        "initiator": "text_poke" if row.defers == "sync" else "purge",
        "trace": False,
        "assume": [("D", row.danger), ("N", row.bodies), ("T", row.text), ("invpcid", row.invpcid)],
    }


@kept
def verdict_table(*, memory: int = 8 * _GIB, progress: Progress | bool | None = None) -> VerdictTable:
    """Return the verdicts of every built-in policy at the standard scope.

    In every world it is asked about: 2 CPUs x {0, 1 NMI} x {D none, recycled} x {N none, recycled} x {1, 2 ASIDs} x
    {INVPCID publishes or not}, and 3 CPUs without NMI. Of a policy that defers syncs of text: 2 CPUs x {0, 1 NMI} x
    {T instr, danger, noinstr}. Policies of user ranges alone have no row: `check` asks them all there is to ask.

    Parameters
    ----------
    memory
        Bytes one search may hold.
    progress
        Called with (policies done, policies in all).
    """
    rows: list[Row] = []
    names = list(policies)
    with shown(progress, "checking", "policies") as advance:
        for done, name in enumerate(names):
            if advance is not None:
                advance(done, len(names))
            policy = policies[name]
            for world in _core.check_worlds(policy.text, policy.file):
                for initiator in _initiators(policy.text, policy.file):
                    if initiator == "flush_mm":
                        continue  # `check` asks them all there is to ask
                    scopes = _TEXT_SCOPES if initiator == "text_poke" else _FLUSH_SCOPES
                    rows += [_row(name, initiator, scope, memory, world) for scope in scopes]
        if advance is not None:
            advance(len(names), len(names))
    return VerdictTable(rows=tuple(rows))


@dataclass(frozen=True, kw_only=True)
class LitmusResult(Result):
    """How one litmus test ended.

    Parameters
    ----------
    name, doc, source
        From its header.
    file
        Where it came from.
    stated
        The verdict in the file; empty if it has none yet.
    found
        The verdict of the checker.
    states
        States explored.
    stated_states
        The number in the file, with reductions; None if it states none or they are off.
    text
        The run that was found, one lane per CPU; empty if there is none.
    schedule
        That run as text.
    note
        What is in the way of a verdict, if something is.
    herd
        Whether the file is one of herd's, which state no verdict.
    ends
        If they were asked for: every end that some run comes to, as what its conditions and `locations` read by name;
        without any, the shared variables. Entries of page tables are words, faults true or false.
    complete
        Whether there are no other ends; None if they were not asked for.
    """

    name: str
    doc: str
    source: tuple[str, ...]
    file: str
    stated: str
    found: str
    states: int
    stated_states: int | None
    text: str
    schedule: str
    note: str = ""
    herd: bool = False
    ends: tuple[Mapping[str, int | str | bool], ...] | None = None
    complete: bool | None = None

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        names = ("name", "stated", "found", "states", "stated_states", "file", "note")
        tables: dict[str, Mapping[str, Any]] = {"test": rows_table([self], names, ("ok",))}
        if self.ends is not None:
            keys = list(dict.fromkeys(key for end in self.ends for key in end))
            tables["ends"] = {key: column([end.get(key) for end in self.ends]) for key in keys}
        return tables

    def _about(self) -> dict[str, Any]:
        return {"name": self.name, "doc": self.doc, "source": self.source, "version": _core.__version__}

    @property
    def ok(self) -> bool:
        """Whether the verdict found is the one stated, and the number of states too if one is.

        One of herd's files states none: any that is found will do.
        """
        if self.herd:
            return not self.found.startswith("inconclusive")
        return self.stated == self.found and self.stated_states in (None, self.states)


@kept
def litmus(
    test: str | Path,
    *,
    memory: int = 8 * _GIB,
    reduce: bool = True,
    bless: bool = False,
    ends: bool = False,
) -> LitmusResult:
    """Run one litmus test: a small program in columns with its verdict inside.

    Parameters
    ----------
    test
        A file that ends in `.litmus`, or the text itself; one of herd's for x86 does too.
    memory
        Bytes the search may hold.
    reduce
        As for `check`.
    bless
        Write the verdict found into the file, and the number of states if it states one.
    ends
        List every end in one search.

    Raises
    ------
    CheckError
        If `memory` is no number of bytes.
    PolicyError
        If the text or its header is wrong; the message has file, line and column.
    OSError
        If the file cannot be read.
    """
    if not isinstance(test, (str, Path)) or test == "":
        raise _core.PolicyError(f"a litmus test is a file or its text: got {test!r}")
    plain = not flag(reduce, "reduce", _core.CheckError)
    bless = flag(bless, "bless", _core.CheckError)
    inline = isinstance(test, str) and "\n" in test
    file = "litmus" if inline else str(test)
    try:
        text = str(test) if inline else Path(test).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _core.PolicyError(f"{file}: not a text file: {error.reason} at byte {error.start}") from None
    ends = flag(ends, "ends", _core.CheckError)
    found = _core.litmus_run(text, Path(file).name, _memory(memory), plain, ends)
    counted = found["stated_states"] if reduce else None
    stated = (found["stated"], counted)
    if bless and not inline and not found["herd"] and stated != (found["found"], counted and found["states"]):
        text = _blessed(text, "verdict", found["found"])
        if counted is not None:
            text = _blessed(text, "states", counted := found["states"])
        with naming(str(test)):
            Path(test).write_text(text, encoding="utf-8")
        found["stated"] = found["found"]
    shown = found["counterexample"] or {"text": "", "schedule": ""}
    return LitmusResult(
        name=found["name"],
        doc=found["doc"],
        source=tuple(found["source"]),
        file=file,
        stated=found["stated"],
        found=found["found"],
        states=found["states"],
        stated_states=counted,
        text=shown["text"],
        schedule=shown["schedule"],
        note=found["note"],
        herd=found["herd"],
        ends=None if found["ends"] is None else tuple(found["ends"][0]),
        complete=None if found["ends"] is None else found["ends"][1],
    )


def _blessed(text: str, key: str, value: str | int) -> str:
    lines = text.split("\n")
    line = f'  {key} "{value}"'
    for i, old in enumerate(lines):
        if old.strip().startswith(f"{key} "):
            lines[i] = line
            return "\n".join(lines)
    lines.insert(1, line)
    return "\n".join(lines)
