"""One search for each question, but for those that the answer to a harsher one implies."""

from __future__ import annotations

from dataclasses import replace

from tlbcore import _core
from tlbcore.checker.question import Question, Told
from tlbcore.checker.verdict import Counterexample, Step, Verdict

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


def answers_to(asked: list[Question], progress: Told | None, *, confirm: int = 0) -> list[Verdict]:
    """Answer each question under each assumption, and confirm passes as long as that has `confirm` states in all.

    What code may touch (D, N) and where text is patched (T) only add accesses: an access reads, changes no entry, no
    variable and no buffer, and caches nothing that could not be cached at that moment anyway (SEMANTICS H2). So every
    run under fewer accesses is one under more, but for those that break a rule earlier, and what is verified under
    more, everything else being the same, is verified under less. The harshest is searched first: all of the accesses
    of a group of questions at once, and where that is verified the group is. With `fills=demand` an access does cache,
    and each question is searched by itself.
    """
    left = confirm

    def answer(question: Question, *, trace: bool = True) -> Verdict:
        nonlocal left
        confirmed = replace(question, request={**question.request, "confirm": left})
        verdict, states = _searched(confirmed, progress, trace=trace)
        left -= min(left, states)
        return verdict

    for question in asked:
        for name, levels in _ACCESSES.items():
            if question.assume.get(name, levels[0]) not in levels:
                return [answer(q) for q in asked]  # the core says which there are
    found: dict[int, Verdict] = {}
    proofs: list[tuple[Question, Verdict]] = []
    joined: list[Question] = []
    for i in sorted(range(len(asked)), key=lambda i: sum(_accesses(asked[i].assume)), reverse=True):
        question = asked[i]
        harsher = _joined(question, asked)
        if harsher is not None and harsher not in joined and question.assume.get("fills") != "demand":
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


def _alike(a: Question, b: Question) -> bool:
    """Whether two questions differ in what is accessed alone."""
    return a.request == b.request and _others(a.assume) == _others(b.assume)


def _implies(known: Question, question: Question) -> bool:
    """Whether `question`, which is `known` with no other and no more accesses, need not be searched."""
    more = zip(_accesses(known.assume), _accesses(question.assume), strict=True)
    return (
        _alike(known, question) and question.assume.get("fills") != "demand" and all(a >= b for a, b in more)
    )


def _joined(question: Question, asked: list[Question]) -> Question | None:
    """Return the question with the accesses of all that are like it; `None` if one of those has them all."""
    alike = [q for q in asked if _alike(q, question)]
    most = [max(levels) for levels in zip(*(_accesses(q.assume) for q in alike), strict=True)]
    if any(_accesses(q.assume) == most for q in alike):
        return None
    named = zip(_ACCESSES.items(), most, strict=True)
    more = {name: levels[i] for (name, levels), i in named if name in question.assume}
    return replace(question, assume={**question.assume, **more}, hypothetical=True)


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
        bits_per_cpu=tuple(found["bits_per_cpu"]),
        bits_shared=found["bits_shared"],
        asked=question.request["about"],
    )
    return verdict, found["second"]
