"""One search for each question, but for those that the answer to a harsher one implies."""

from __future__ import annotations

from dataclasses import replace

from tlbcore import _core
from tlbcore.checker.question import Question, Told
from tlbcore.checker.verdict import Counterexample, Step, Verdict


def answers_to(asked: list[Question], progress: Told | None, *, confirm: int = 0) -> list[Verdict]:
    """Answer each question under each assumption, and confirm passes as long as that has `confirm` states in all.

    What is verified under more accesses, everything else being the same, is verified under fewer: `src/check/cases.rs`
    says why. So the harshest is searched first: all of the accesses of a group of questions at once, and where that is
    verified the group is.
    """
    left = confirm

    def answer(question: Question, *, trace: bool = True) -> Verdict:
        nonlocal left
        confirmed = replace(question, request={**question.request, "confirm": left})
        verdict, states = _searched(confirmed, progress, trace=trace)
        left -= min(left, states)
        return verdict

    found: dict[int, Verdict] = {}
    proofs: list[tuple[Question, Verdict]] = []
    joined: list[Question] = []
    accesses = [sum(_core.check_accesses(_named(question))) for question in asked]
    for i in sorted(range(len(asked)), key=lambda i: accesses[i], reverse=True):
        question = asked[i]
        harsher = _joined(question, asked)
        if harsher is not None and harsher not in joined and _implies(harsher, question):
            joined.append(harsher)
            done = answer(harsher, trace=False)
            proofs += [(harsher, done)] if done.status == "verified" else []
        proof = next((done for known, done in proofs if _implies(known, question)), None)
        if proof is None:
            found[i] = answer(question)
            proofs += [(question, found[i])] if found[i].status == "verified" else []
        else:
            found[i] = replace(proof, assume=question.assume, implied=True)
    return [found[i] for i in range(len(asked))]


def _named(question: Question) -> list[tuple[str, str]]:
    return list(question.assume.items())


def _implies(known: Question, question: Question) -> bool:
    """Whether `question` need not be searched if `known` is verified."""
    return known.request == question.request and _core.check_implies(_named(known), _named(question))


def _joined(question: Question, asked: list[Question]) -> Question | None:
    """Return the question with the accesses of all that are like it; `None` if one of those has them all."""
    same = [_named(q) for q in asked if q.request == question.request]
    more = _core.check_joined([_named(question), *same])
    if more is None:
        return None
    return replace(question, assume={**question.assume, **dict(more)}, hypothetical=True)


def answer_to(question: Question, progress: Told | None) -> Verdict:
    """Return the verdict on one question, a violation with its run; grade and core are found later."""
    return _searched(question, progress, trace=True)[0]


def _searched(question: Question, progress: Told | None, *, trace: bool) -> tuple[Verdict, int]:
    """Return the verdict on one question, and how many states the search had that was to confirm it."""
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
    verdict = Verdict(
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
        any_number=found["any_number"],
        bits_per_cpu=tuple(found["bits_per_cpu"]),
        bits_shared=found["bits_shared"],
        asked=question.request["about"],
    )
    return verdict, found["second"]
