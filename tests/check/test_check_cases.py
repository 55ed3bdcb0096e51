"""The one table of cases: which assumptions about code that is not modelled are tried for which question."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.imports import only_for_tests

import tlbcore as tc
from tlbcore import _core
from tlbcore.checker.question import questions_in

ROOT = Path(__file__).parents[2]
SOURCE = pytest.mark.skipif(not (ROOT / "python").exists(), reason="the source tree is not here")
WORDS = ({"none", "directmap", "recycled"}, {"instr", "danger", "noinstr"})


def copies(text: str) -> Iterator[str]:
    """Lists of a Python file that are of values of D, N or T alone."""
    if not any(f'"{word}"' in text or f"'{word}'" in text for words in WORDS for word in words - {"none"}):
        return
    for node in ast.walk(ast.parse(text)):
        parts = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else []
        parts = node.keys if isinstance(node, ast.Dict) else parts
        named = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        if len(named) > 1 and any(words.issuperset(named) for words in WORDS):
            yield ast.unparse(node)


def test_a_second_copy_is_seen():
    assert list(copies('x = ["none", "recycled"]'))
    assert list(copies('def f(t):\n    return {"instr": 0, "danger": 1}[t]'))
    assert not list(
        copies('x = ("none", "all"); y = {"D": "none", "N": "recycled"}; z = (1, "none", "recycled")')
    )


@SOURCE
def test_what_is_tried_stands_in_one_table():
    found = {}
    for folder in ("python", "pages"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "reference" not in path.parts:  # the second explorer shares ops alone
                found[str(path.relative_to(ROOT))] = list(copies(path.read_text(encoding="utf-8")))
    assert len(found) > 100
    left = {name: lists for name, lists in found.items() if lists}
    assert left == {"python/tlbcore/policy.py": ["('none', 'recycled')"]}  # what the Promela form knows of D
    # In Rust a value is told apart where it means something, and assumed for a question by the table alone.
    made = re.compile(r"\b(?:danger|nmi|text): *(?:Touches|Patched)::(?!None|Instrumentable)")
    assert made.search("Assume { danger: Touches::Recycled, ..given }")
    rust = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.rs")}
    assert len(rust) > 100
    tests = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", re.DOTALL)
    hidden = only_for_tests(ROOT / "src")
    shipped = {name: tests.sub("", text) for name, text in rust.items() if ROOT / name not in hidden}
    assert {name for name, text in shipped.items() if made.search(text)} <= {"src/check/cases.rs"}


@pytest.mark.parametrize("given", [{}, {"D": "recycled"}, {"N": "none"}], ids=str)
@pytest.mark.parametrize(
    "name", ["coalesce-v7-fixed", "text-defer-v7", "early-ack", "lazy-tune", "pending-bit"]
)
def test_check_asks_what_the_table_says(name: str, given: dict[str, str]):
    policy = tc.policies[name]
    if policy.defers == ("sync",) and "D" in given:
        with pytest.raises(tc.CheckError, match="is about flushes"):
            tc.check(policy, assume=given)
        return
    asked = questions_in(policy, "pti", (), tc.Bounds(nmis=1), given, reduce=True, threads=None)
    assert asked
    for question in asked:
        about = question.request["initiator"]
        cases = [
            (dict(assume), beyond) for assume, beyond in _core.check_cases(about, list(given.items()), True)
        ]
        ours = {n: v for n, v in question.assume.items() if n != "range" or "range" in given}
        assert (ours, question.hypothetical) in cases
        same = [
            q
            for q in asked
            if q.request == question.request and q.assume.get("range") == question.assume.get("range")
        ]
        assert len(same) == len(cases)
