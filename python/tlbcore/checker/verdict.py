"""What the checker answers: a verdict, the run that breaks a rule, and that run in the timed engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlbcore import _core
from tlbcore._output.result import Result, rows_table
from tlbcore._output.table import Table

HYPOTHESIS = "If a future change touched recycled memory on the entry and exit paths"


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
        speculative walk suffices` (no code touches it: hardware may, at any time), or `an access in the window is
        known`. None of a case, and of a hypothesis that is violated without its assumption, too.
    witnesses
        What was seen at least once, so that a pass is not vacuous. Of a verdict with cases, in any of them.
    wrong_gs
        Schedule of a run in which a %gs-relative access meets the user's GSBASE (SEMANTICS S8, L2); reported
        beside the verdict, unless `assume={"gs": "faults"}` makes it one.
    implied
        Of a case: it was not searched, because the same with more accesses was verified; its numbers are those.
    asked
        What was asked about: such as purges of vmalloc. Of a verdict with cases, all of it.
    core
        If violated: a smallest set of assumptions the violation needs, found by switching each off. The sentence says
        of which of them that is not known, because a limit was met without it.
    any_number
        If verified: each isolated CPU meets the others only through CPUs that are not, so one of each kind stands for
        any number of them, and that is how it was searched (`src/check/star.rs` has the argument). Of a verdict with
        cases, whether it is so of each.
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
    any_number: bool = False

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
                assumed = [f"{k}={v}" for k, v in case.assume.items() if k in named]
                what = ", ".join([case.world, *assumed] if worlds else assumed)
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
            "any_number": self.any_number,
            "bits_per_cpu": list(self.bits_per_cpu),
            "bits_shared": self.bits_shared,
            "counterexample": self.counterexample.to_dict() if self.counterexample else None,
            "cases": [case.to_dict() for case in self.cases],
            "hypothesis": None if self.hypothesis is None else self.hypothesis.to_dict(),
        }
