"""Walks over `mm_cpumask` while CPUs join and leave (SEMANTICS L4): each is come to once, in an order nobody knows."""

from __future__ import annotations

import random

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore_litmus

HEAD = """litmus walks
  page u : user of 2
  exists "{ask}"
  var n : 3 bits, shared, starts 0
  var seen : 1 bit, shared, starts 0
  var of : 1 bit, per cpu, starts 0
  var x : 1 bit, shared, starts 0
  var y : 1 bit, shared, starts 0
"""
#: Counts whom it comes to, and tells what `x` was at the last of them.
WALK = """let k = 0
let r = 0
flush info 2, 1
each cpu in mm_cpumask
  let k = k + 1
  let r = x
  of[cpu] = 1
seen = r
n = k"""


def text_of(ask: str, *columns: str) -> str:
    programs = (
        f"\ncpu {i}\n" + "".join(f"  {line}\n" for line in c.split("\n")) for i, c in enumerate(columns)
    )
    return HEAD.format(ask=ask) + "".join(programs)


def found(text: str, limit: int = 200_000) -> str | None:
    """What each form of search finds, which must be the same; `None`: more states than the limit."""
    plain, reduced = (tc.litmus(text, reduce=reduce) for reduce in (False, True))
    assert plain.found == reduced.found, text
    if plain.states > limit:
        return None
    slow = explore_litmus(text, limit=4 * limit)
    if slow.status == "inconclusive":
        return None
    assert slow.found == plain.found, (plain.found, slow.found, text)
    return plain.found


#: Tells whether the last that it comes to has said so of itself.
WHOM = WALK.replace("let r = x", "let r = of[cpu]").replace("\n  of[cpu] = 1", "")
JOINED = "join mm_cpumask of 2\ny = 1"
TOLD = "join mm_cpumask of 2\nx = 1"
AWAITS = f"await y == 1\n{WALK}"


@pytest.mark.parametrize(
    ("ask", "columns", "expected"),
    [
        # It is passed by, joins, and tells; then the walk comes to the other one.
        ("n == 1 and seen == 1", (AWAITS, JOINED, TOLD), "allowed"),
        ("n == 1 and seen == 0", (AWAITS, JOINED, TOLD), "allowed"),
        ("n == 2 and seen == 1", (AWAITS, JOINED, TOLD), "allowed"),
        # Who was there from before the walk on is come to.
        ("n == 0", (AWAITS, JOINED, TOLD), "forbidden"),
        ("n == 1", (AWAITS, "await x == 1\n" + JOINED, TOLD), "forbidden"),
        # Nobody is come to twice, nor after it has left for good.
        ("n == 3", (AWAITS, JOINED, "join mm_cpumask of 2\nleave mm_cpumask of 2\n" + TOLD), "forbidden"),
        ("n == 2", (AWAITS, JOINED, "join mm_cpumask of 2\nleave mm_cpumask of 2\nx = 1"), "allowed"),
        (
            "n == 2",
            (f"await x == 1\n{AWAITS}", JOINED, "join mm_cpumask of 2\nleave mm_cpumask of 2\nx = 1"),
            "forbidden",
        ),
        # With nobody left to come to, the walk is over: it cannot wait for what one does that it has passed by.
        ("n == 0 and seen == 1", (WALK, JOINED, TOLD), "forbidden"),
        # It is passed by while nobody is there; then it joins, and has another one join, to which the walk comes alone.
        (
            "n == 1 and seen == 0",
            (WHOM, "of = 1\njoin mm_cpumask of 2\ny = 1", "await y == 1\njoin mm_cpumask of 2"),
            "allowed",
        ),
        ("n == 1 and seen == 0", (WHOM, "of = 1\njoin mm_cpumask of 2\ny = 1", "lfence"), "forbidden"),
        # The walker itself is left out.
        ("n == 1", (f"join mm_cpumask of 2\n{WALK}", "lfence"), "forbidden"),
    ],
)
def test_whom_a_walk_comes_to(ask: str, columns: tuple[str, ...], expected: str) -> None:
    assert found(text_of(ask, *columns)) == expected


def test_a_run_that_passes_a_cpu_by_says_so() -> None:
    text = text_of("n == 1 and seen == 1", AWAITS, JOINED, TOLD)
    result = tc.litmus(text)
    assert "(the walk passes cpu 2 by)" in " ".join(result.text.split())
    moves = result.schedule.split()
    assert moves.index("0.pass:2") < next(at for at, move in enumerate(moves) if move.startswith("2.")), moves


def drawn(rng: random.Random) -> str:
    def line() -> str:
        ways = (
            "join mm_cpumask of 2",
            "join mm_cpumask of 2",
            "leave mm_cpumask of 2",
            "x = 1",
            "y = 1",
            "fence",
            "of = 1",
        )
        return rng.choice((*ways, "x = 0", "let r = of\nx = r"))

    others = ["\n".join(line() for _ in range(rng.randint(1, 3))) for _ in range(2)]
    if rng.random() < 0.5:  # one joins behind the other, and knows it
        others[0] = f"of = 1\njoin mm_cpumask of 2\n{others[0]}\ny = 1"
        others[1] = f"join mm_cpumask of 2\n{others[1]}"
    if "y = 1" in others[0]:
        others[1] = f"await y == 1\n{others[1]}"
    walk = rng.choice(
        [WALK, WHOM, WHOM, f"await y == 1\n{WALK}", f"join mm_cpumask of 2\n{WALK}", f"{WALK}\nfence"]
    )
    ask = f"n == {rng.choice((0, 1, 1, 1, 2, 3))}" + rng.choice(
        ("", " and seen == 1", " and seen == 0", " and x == 1")
    )
    return text_of(ask, walk, *others)


def agree(count: int, seed: int) -> dict[str, int]:
    rng, seen = random.Random(seed), dict[str, int]()
    for _ in range(count):
        text = drawn(rng)
        if (what := found(text, 4000)) is not None:
            seen[what] = seen.get(what, 0) + 1
    return seen


def test_random_walks_find_the_same_in_every_form_of_search() -> None:
    seen = agree(80, 3)
    assert min(seen.get("allowed", 0), seen.get("forbidden", 0)) >= 10, seen


@pytest.mark.slow
def test_many_random_walks_do() -> None:
    assert sum(agree(2000, 2).values()) > 1000
