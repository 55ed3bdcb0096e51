"""The fast checker and the slow explorer agree on mutants of the built-in policies."""

from __future__ import annotations

import random

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore

BLOCKS = ("if ", "else", "while ", "loop", "each ")


def mutate(policy: tc.Policy, rng: random.Random) -> str:
    """Return the canonical text with one line of its programs dropped, moved, doubled or made atomic."""
    lines = policy.canonical.splitlines()
    body = [
        i
        for i, line in enumerate(lines)
        if line.startswith("  ") and i > lines.index("") and not line.strip().startswith(BLOCKS)
    ]
    i = rng.choice(body)
    line = lines[i]
    indent = line[: len(line) - len(line.lstrip())]
    match rng.randrange(5):
        case 0:
            lines[i] = f"{indent}lfence"  # dropped; the block is not left empty
        case 1:
            same = [j for j in body if j > i and lines[j].startswith(indent) and "" not in lines[i:j]]
            j = same[0] if same else i
            lines[i], lines[j] = (
                indent + lines[j].strip(),
                lines[j][: len(lines[j]) - len(lines[j].lstrip())] + line.strip(),
            )
        case 2:
            lines[i] = f"{line}\n{indent}fence"
        case 3:
            name, equals, value = line.strip().partition(" = ")
            atomic = equals and not name.startswith(("let ", "pte ", "table "))
            lines[i] = f"{indent}xchg {name}, {value}" if atomic else line
        case _:
            lines[i] = line.replace(" locked", "").replace("xchg ", "or ", 1)
    return "\n".join(lines)


def mutants(count: int, seed: int) -> list[tuple[str, dict[str, object]]]:
    rng = random.Random(seed)
    names = [name for name, policy in tc.policies.items() if policy.sections and policy.defers == ("flush",)]
    out: list[tuple[str, dict[str, object]]] = []
    while len(out) < count:
        text = mutate(tc.policies[rng.choice(names)], rng)
        try:
            tc.Policy(text=text)
        except tc.PolicyError:
            continue
        out.append(
            (text, {"danger": rng.choice(("none", "recycled")), "invpcid_publishes": rng.random() < 0.3})
        )
    return out


def agree(count: int, seed: int, entries: int) -> None:
    seen = set()
    for text, how in mutants(count, seed):
        policy = tc.Policy(text=text)
        slow = explore(policy, entries=entries, **how)  # type: ignore[arg-type]
        assume = {"D": str(how["danger"]), "N": "none"}
        if how["invpcid_publishes"]:
            assume["invpcid"] = "publishes"
        fast = tc.check(policy, roles=f"purge; isolated {entries}", assume=assume)
        assert fast.status == slow.status, f"{assume}: {slow.violation} {slow.schedule}\n{text}"
        if fast.counterexample is not None:
            assert fast.counterexample.replay() == fast.counterexample.rule
        seen.add(fast.status)
    assert {"verified", "violated"} <= seen


def test_both_explorers_agree_on_random_mutants() -> None:
    agree(200, seed=1, entries=1)


@pytest.mark.slow
def test_both_explorers_agree_on_many_random_mutants() -> None:
    agree(2000, seed=2, entries=2)


def forms_agree(count: int, seed: int) -> None:
    """Plain, reduced (fused and, with three CPUs, symmetric) and parallel searches say the same of each mutant."""
    seen = set()
    for number, (text, how) in enumerate(mutants(count, seed)):
        policy = tc.Policy(text=text)
        assume = {"D": str(how["danger"]), "N": "none"}
        if how["invpcid_publishes"]:
            assume["invpcid"] = "publishes"
        cpus = 3 if number % 10 == 0 else 2
        plain, reduced, parallel = (
            tc.check(policy, cpus=cpus, entries=1, assume=assume, reduce=reduce, threads=threads)
            for reduce, threads in ((False, 1), (True, 1), (True, 2))
        )
        assert parallel.to_dict() == reduced.to_dict(), text
        assert plain.status == reduced.status, f"{assume}, {cpus} CPUs\n{text}"
        assert reduced.states <= plain.states or reduced.status == "violated"
        for verdict in (plain, reduced):
            if (found := verdict.counterexample) is not None:
                assert found.replay() == found.rule, text
        if plain.counterexample is not None and reduced.counterexample is not None:
            assert len(plain.counterexample.steps) == len(reduced.counterexample.steps), text
        seen.add(plain.status)
    assert {"verified", "violated"} <= seen


def test_every_form_of_search_agrees_on_random_mutants() -> None:
    forms_agree(60, seed=3)


@pytest.mark.slow
def test_every_form_of_search_agrees_on_ten_thousand_random_mutants() -> None:
    forms_agree(10_000, seed=4)
