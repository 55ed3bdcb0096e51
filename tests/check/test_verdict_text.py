"""How a verdict is printed, on verdicts made by hand: which parts there are, and where lines break."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import pytest

from tlbcore.checker.verdict import HYPOTHESIS, Verdict


def made(**changes: Any) -> Verdict:
    fields: dict[str, Any] = {
        "policy": "mine", "status": "verified", "sentence": "It holds.", "world": "pti", "inert": (),
        "assume": {"D": "none", "N": "1", "x": "0"}, "states": 12, "transitions": 34, "depth": 5,
        "counterexample": None, "grade": None, "witnesses": {"a flush": True}, "wrong_gs": None, "bits_per_cpu": (3,),
        "bits_shared": 2,
    }  # fmt: skip
    return Verdict(**{**fields, **changes})


def test_a_verdict_without_more_is_two_lines() -> None:
    assert str(made()) == "mine: verified\n\nIt holds."
    assert str(made(grade="window exists", inert=("pti",), world="nopti")).startswith(
        "mine: verified (window exists), inert in world nopti\n"
    )


def test_cases_are_listed_where_there_are_two_and_not_where_there_is_one() -> None:
    one, other = made(), made(status="inconclusive", assume={"T": "2", "D": "none"}, implied=True)
    assert str(made(cases=(one,))) == str(made())
    assert str(made(cases=(one, other))).splitlines()[3:] == [
        "",
        "  D=none, N=1              verified, 12 states",
        "  T=2                      inconclusive, implied by a harsher one",
    ]
    elsewhere = made(world="nopti", asked="about purges")
    assert str(made(cases=(one, elsewhere))).splitlines()[4:] == [
        "  pti, D=none, N=1         verified, 12 states",
        "  about purges",
        "  nopti, D=none, N=1       verified, 12 states",
    ]


@pytest.mark.parametrize("length", range(1, 73))
def test_lines_break_at_72_columns(length: int) -> None:
    """A word of each length in turn, so that a column more or fewer breaks some of them elsewhere."""
    word = "x" * length
    parts = {
        f"{word} b {word} d": made(sentence=f"{word} b {word} d"),
        f"Assumption core: {word}; b.": made(status="violated", core=(word, "b")),
        f"{HYPOTHESIS}: {word} (`--assume D=recycled`).": made(hypothesis=made(status=word)),
        f"Never seen within these bounds: {word}; b.": made(witnesses={word: False, "c": True, "b": False}),
    }
    for text, verdict in parts.items():
        assert f"\n\n{fill(text, 72)}" in str(verdict)


def test_what_was_never_seen_is_said_of_what_is_verified_alone() -> None:
    unseen = {"witnesses": {"a flush": False}}
    assert "Never seen" in str(made(**unseen))
    assert "Never seen" not in str(made(status="inconclusive", **unseen))
    assert "Never seen" not in str(made())
    violated = str(made(status="violated")).splitlines()
    assert violated[-1] == "Assumption core: nothing beyond the interleaving."


def test_an_access_by_the_users_gs_is_said_beside_the_verdict() -> None:
    assert str(made(wrong_gs="a schedule")).splitlines()[3:] == [
        "",
        "Beside the verdict: a %gs-relative access happens while GSBASE is the",
        "user's (wrong_gs_access, S8); `--assume gs=faults` prints how.",
    ]
