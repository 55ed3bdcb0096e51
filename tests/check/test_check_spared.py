"""A search that is spared changes no answer: random policies, asked with sparing and case by case."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.checker import answers, search
from tlbcore.checker.question import Question

# Small enough that every case is searched in a moment.
NAMES = (
    "coalesce-all", "coalesce-tri-state", "coalesce-v6", "coalesce-v7", "coalesce-v7-fixed", "ct-late", "fancy-state",
    "fancy-state-or", "flush-on-exit", "invlpgb", "noinstr-c", "pending-bit", "pending-bit-plain",
    "pending-bit-recheck", "quarantine", "text-defer-v7", "text-sync-cr3-reconstructed", "text-sync-tri-state",
    "track-cr3-reconstructed", "track-cr3-saved-flag",
)  # fmt: skip
# Verified with one access and violated with another.
MIXED = (
    "coalesce-v7-fixed",
    "coalesce-all",
    "ct-late",
    "noinstr-c",
    "track-cr3-reconstructed",
    "track-cr3-saved-flag",
)


def mutated(text: str, rng: random.Random) -> str:
    """Return a policy with an op deleted, doubled or moved; often one that does not assemble."""
    lines = text.rstrip("\n").split("\n")
    indent = [len(line) - len(line.lstrip()) for line in lines]
    body = next(i for i, line in enumerate(lines) if i and line and not line.startswith(" "))
    ops = [
        i
        for i in range(body + 1, len(lines))
        if indent[i] and lines[i].strip() != "else" and (i + 1 == len(lines) or indent[i + 1] <= indent[i])
    ]
    i = rng.choice(ops)
    match rng.choice(("delete", "double", "double", "move")):
        case "delete":
            del lines[i]
        case "double":
            lines.insert(i, lines[i])
        case _:
            to = rng.choice(ops)
            lines.insert(to, " " * indent[to] + lines[i].strip())
            del lines[i + (to <= i)]
    return "\n".join(lines) + "\n"


def draw(seed: int) -> tuple[tc.Policy, tc.Bounds, tc.Verdict]:
    """Draw a policy that assembles, what it is asked, and the verdict; the same for the same seed."""
    rng = random.Random(seed)
    while True:
        names, nmis = (NAMES, 0) if seed % 5 else (MIXED, 1)
        text = tc.policies[rng.choice(names)].text
        for _ in range(rng.choice((1, 1, 2))):
            text = mutated(text, rng)
        try:
            policy = tc.Policy(text=text, file="drawn.policy")
            world = rng.choice(_core.check_worlds(policy.text, policy.file))
            bounds = tc.Bounds(entries=1, nmis=nmis, asids=1, world=world)
            return policy, bounds, tc.check(policy, confirm=False, **bounds)
        except (tc.PolicyError, tc.CheckError):
            continue


def said(verdict: tc.Verdict) -> dict[str, object]:
    """What must not depend on how the answer was found; numbers of states do, and which run is the shortest."""
    beyond = verdict.hypothesis
    return {
        "status": verdict.status,
        "rule": verdict.rule,
        "grade": verdict.grade,
        "core": verdict.core,
        "world": verdict.world,
        "cases": [(c.asked, dict(c.assume), c.status, c.rule) for c in verdict.cases],
        "hypothesis": None if beyond is None else (beyond.status, beyond.rule),
        "wrong_gs": verdict.wrong_gs is None,
    }


def compare(seeds: Iterable[int], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in seeds:
        policy, bounds, spared = draw(seed)
        with monkeypatch.context() as patch:
            patch.setattr(
                search, "answers_to", lambda asked, told, **_: [answers.answer_to(q, told) for q in asked]
            )
            each = tc.check(policy, confirm=False, **bounds)
        assert said(spared) == said(each), (seed, bounds, policy.text)
        assert not any(case.implied for case in each.cases)
        seen[spared.status] += 1
        beyond = spared if spared.hypothesis is None else spared.hypothesis
        seen["spared"] += any(case.implied for case in (*spared.cases, beyond))
        seen["mixed"] += len({case.status for case in (*spared.cases, beyond)}) > 1
    return seen


def test_what_is_spared_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = compare([0, *range(4, 18)], monkeypatch)
    assert all(seen[what] for what in ("verified", "violated", "spared", "mixed")), seen


def test_a_wrong_proof_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def mildest(question: Question, _: list[Question]) -> Question:
        return replace(question, assume={**question.assume, "D": "none", "N": "none"}, hypothetical=True)

    monkeypatch.setattr(answers, "_joined", mildest)
    monkeypatch.setattr(answers, "_implies", lambda known, question: known.request == question.request)
    with pytest.raises(AssertionError):
        compare([0], monkeypatch)


@pytest.mark.slow
def test_what_is_spared_changes_no_answer_of_many_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = compare(range(20, 320), monkeypatch)
    assert all(seen[what] > 20 for what in ("verified", "violated", "spared", "mixed")), seen
