"""`docs/mutants.md`: which single-op mutants of each verified policy the checker catches, and why the rest survive.

Mutants are those of `tlbcore check POLICY --necessary`. The arguments stand in `tests/data/mutants.toml`;
`python -m pages.verdicts` in a checkout writes the page, and tests hold it against both.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlbcore import _core
from tlbcore.checker import Bounds, Row
from tlbcore.checker.question import asked_of, request_of, tried
from tlbcore.checker.table import FLUSH_SCOPES, INVPCID, TEXT_SCOPES, row_of, row_request
from tlbcore.policy import policies

_INTRO = """# Mutants

Written by `python -m pages.verdicts`; held against the checker and against the arguments in
`tests/data/mutants.toml` by tests.

A checker that verifies everything finds nothing. So each policy that is verified under some assumptions is weakened by
one op at a time (an op taken away, two neighbours exchanged, a LOCKed or fenced one made plain: what `tlbcore check
POLICY --necessary` tries), and each weaker form is checked within every scope listed, which are the harshest ones that
the policy itself passes; of policies of user ranges alone these are flushes of user memory and frees of its tables, and
only their own sections are weakened. A mutant is *caught* if one of them breaks a rule, makes a value outgrow its
variable, or leaves a promise that nobody could find broken (the last two: inconclusive).
What survives is argued: it means the same, or it is not needed within these bounds and why.
Where an op stands more than once, the number says which.

CPUs, NMIs and ASIDs are those of the [verdicts](verdicts.md), each isolated CPU enters twice unless said otherwise;
`range=pages` flushes page by page, and a program's name stands for the initiator if it is neither `purge` nor
`text_poke`.
"""

# With an NMI a question about text has a million states at two entries.
_TEXT_ENTRIES = 1


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A weaker policy: its name on the page, the rule it breaks and within what; both None if it survives."""

    name: str
    rule: str | None
    within: str | None


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was checked of one policy's mutants."""

    policy: str
    scopes: tuple[str, ...]
    mutants: tuple[Mutant, ...]

    @property
    def survivors(self) -> tuple[str, ...]:
        """Names of those that no scope caught."""
        return tuple(m.name for m in self.mutants if m.rule is None)


def score(name: str, memory: int = 8 << 30) -> Score | None:
    """Check the single-op mutants of a built-in policy; None if no scope verifies the policy itself.

    One of user ranges alone must pass all that it is asked.
    """
    policy = policies[name]
    # A policy of user ranges alone is asked nothing about the kernel's, whose sections its text takes as they are.
    alone = policy.defers == ("user",)
    if alone and not all(_core.policy_stated(name)):
        return None  # no policy to weaken: it is broken as it stands
    questions = _questions(name, memory)
    if not questions:
        return None
    out, seen = [], Counter[str]()
    for section, what, _, text in _core.check_mutants(policy.text, policy.file):
        if alone and section not in _own_sections(name):
            continue
        title = f"{section}: {what}"
        seen[title] += 1
        title += f" ({seen[title]})" if seen[title] > 1 else ""
        rule = within = None
        for label, question in questions:
            found = _core.check_run({**question, "text": text}, None)
            if found["status"] != "verified":  # a value that outgrows its variable is no pass either
                rule, within = found["rule"] or "inconclusive", label
                break
        out.append(Mutant(name=title, rule=rule, within=within))
    return Score(policy=name, scopes=tuple(label for label, _ in questions), mutants=tuple(out))


def _own_sections(name: str) -> set[str]:
    """Return the sections that a policy, or one it is based on, writes itself."""
    text = policies[name].text
    own = set(re.findall(r"^(\w+)(?: @ .*)?$", text, re.MULTILINE))
    for base in re.findall(r"^  based on (\S+)$", text, re.MULTILINE):
        own |= _own_sections(base)
    return own


def _questions(name: str, memory: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the harshest questions that a policy passes, by label, the smallest first."""
    policy = policies[name]
    found: list[tuple[int, str, dict[str, Any]]] = []
    for initiator in _core.check_initiators(policy.text, policy.file):
        if initiator.startswith("flush_mm"):  # of user ranges: asked below, beside what runs in them
            continue
        text = initiator == "text_poke"
        rows = [row_of(name, initiator, scope, memory) for scope in (TEXT_SCOPES if text else FLUSH_SCOPES)]
        passed = [row for row in rows if row.status == "verified"]
        hardest = [r for r in passed if not any(_covers(r, o) for o in passed)]
        for row in hardest:
            if text and row.nmis:
                asked = {**row_request(row, memory), "entries": _TEXT_ENTRIES}
                found.append((row.states, f"{_label(row)}, 1 entry", asked))
            else:
                found.append((row.states, _label(row), row_request(row, memory)))
        if not text and hardest:
            found += _besides(hardest, memory)
    found += _user_questions(name, memory)
    return [(label, question) for _, label, question in sorted(found, key=lambda f: f[0])]


def _user_questions(name: str, memory: int) -> list[tuple[int, str, dict[str, Any]]]:
    """Return what a policy that replaces flushes of user ranges passes of those, with one NMI and with none."""
    policy = policies[name]
    world = _core.check_worlds(policy.text, policy.file)[0]
    out = []
    for initiator, about, beside in asked_of(policy.text, policy.file):
        if not initiator.startswith("flush_mm"):
            continue
        for nmis in (0, 1):
            asked = {
                **request_of(policy, Bounds(nmis=nmis, memory=memory, world=world)),
                "initiator": initiator,
                "beside": beside,
                "trace": False,
                "assume": [("D", "none"), ("N", "none"), ("T", "instr"), ("invpcid", INVPCID)],
            }
            found = _core.check_run(asked, None)
            if found["status"] == "verified":
                out.append((found["states"], f"{about}, {'1 NMI' if nmis else 'no NMI'}", asked))
    return out


def _besides(rows: Sequence[Row], memory: int) -> list[tuple[int, str, dict[str, Any]]]:
    """Return what else a policy passes: ranges flushed page by page, a second round, what no policy may defer."""
    two = [r for r in rows if r.cpus == 2] or [replace(r, cpus=2) for r in rows]
    row = min(two, key=lambda r: (r.nmis, r.danger != "recycled", -r.asids))
    asked = row_request(row, memory)
    calm = {**asked, "nmis": 0}
    twice = replace(row, nmis=0)
    questions = [
        (f"{_label(row)}, range=pages", {**asked, "assume": [*asked["assume"], ("range", "pages")]}),
        (f"{_label(twice)}, 2 rounds", {**calm, "roles": "purge*2; isolated 2"}),
        *(
            (f"{_label(twice)}, `{program}`", {**calm, "roles": f"{program}; isolated 2"})
            for program in ("table_free", "set_memory")
        ),
    ]
    judged = [(_core.check_run(question, None), label, question) for label, question in questions]
    return [(v["states"], label, question) for v, label, question in judged if v["status"] == "verified"]


def _assumed(row: Row) -> tuple[int, ...]:
    """Return what a row assumes, each number growing with what can happen."""
    where = tried("text_poke")["T"].index(row.text)
    worse = (row.danger == "recycled", row.bodies == "recycled", row.invpcid == INVPCID)
    return (row.cpus, row.nmis, row.asids, where, *map(int, worse))


def _covers(a: Row, b: Row) -> bool:
    return a is not b and all(x <= y for x, y in zip(_assumed(a), _assumed(b), strict=True))


def _label(row: Row) -> str:
    out = [f"{row.cpus} CPUs", "1 NMI" if row.nmis else "no NMI"]
    out += ["2 ASIDs"] if row.asids == 2 else []
    out += [f"T={row.text}"] if row.defers == "sync" else [f"D={row.danger}"]
    out += [f"N={row.bodies}"] if row.nmis and row.defers == "flush" else []
    out += ["INVPCID publishes"] if row.invpcid == "publishes" else []
    return ", ".join(out)


def arguments(file: Path) -> dict[tuple[str, str], str]:
    """Return why mutants survive, by policy and mutant. The policy is `*` where it holds for every one.

    Raises
    ------
    ValueError
        If two arguments are about the same mutant.
    """
    out: dict[tuple[str, str], str] = {}
    for entry in tomllib.loads(file.read_text(encoding="utf-8"))["why"]:
        for policy in entry.get("policies", ["*"]):
            for mutant in entry["mutants"]:
                if (policy, mutant) in out:
                    raise ValueError(f"{file}: two arguments for `{mutant}` of {policy}")
                out[policy, mutant] = " ".join(entry["because"].split())
    return out


def argument(why: Mapping[tuple[str, str], str], policy: str, mutant: str) -> str | None:
    """Return why one mutant survives; what is said of its policy comes before what holds for every one."""
    return why.get((policy, mutant), why.get(("*", mutant)))


def mutants_markdown(scores: Sequence[Score], why: Mapping[tuple[str, str], str]) -> str:
    """Return the text of `docs/mutants.md`."""
    out = [_INTRO]
    rows = ["| policy | mutants | caught | argued |", "| --- | --- | --- | --- |"]
    for s in scores:
        left = len(s.survivors)
        rows.append(f"| [`{s.policy}`](#{s.policy}) | {len(s.mutants)} | {len(s.mutants) - left} | {left} |")
    everything = sum(len(s.mutants) for s in scores)
    left = sum(len(s.survivors) for s in scores)
    rows.append(f"| all | {everything} | {everything - left} | {left} |")
    out.append("\n".join(rows) + "\n")
    out += [section(s, why) for s in scores]
    return "\n".join(out)


def section(s: Score, why: Mapping[tuple[str, str], str]) -> str:
    """Return what the page says of one policy."""
    out = [f"## {s.policy}\n", "Scopes: " + "; ".join(f"({i}) {what}" for i, what in enumerate(s.scopes, 1))]
    out += ["\n| caught | rule | scope |", "| --- | --- | --- |"]
    for m in s.mutants:
        if m.rule is not None and m.within is not None:
            out.append(f"| {_escaped(m.name)} | {m.rule} | {s.scopes.index(m.within) + 1} |")
    out += ["\n| survives | because |", "| --- | --- |"]
    for name in s.survivors:
        out.append(f"| {_escaped(name)} | {argument(why, s.policy, name) or 'no argument'} |")
    return "\n".join(out) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
