"""Random models over every rule: the reduced search, the plain one and the second explorer say the same of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.random_models import models, patched, text_of, typing, waiting, walking

import tlbcore as tc
from tlbcore.reference.explorer import explore_litmus

MEMORY = 2 << 20
LITMUS = sorted((Path(__file__).parents[1] / "litmus").glob("*/*.litmus"))

# What the second explorer does not have, with the reason.
REFUSED = {
    "rounds without bound": "their versions have to be renamed, which is what this explorer is a check of",
    "the condition": "it asks about shared variables and faults, not about locals and entries",
    "two questions in one test": "each is asked by itself elsewhere",
}


def found(text: str, *, reduce: bool) -> tc.LitmusResult | None:
    """Return what the checker finds; nothing if it refuses the model."""
    try:
        return tc.litmus(text, reduce=reduce, memory=MEMORY)
    except (tc.PolicyError, tc.CheckError):
        return None


def is_conclusive(result: tc.LitmusResult) -> bool:
    return not result.found.startswith("inconclusive")


Make = Callable[[int, int], str]


def reductions_agree(count: int, seed: int, make: Make = text_of) -> Counter[str]:
    """Compare reduced and plain searches; return how often which verdict was found."""
    verdicts: Counter[str] = Counter()
    for number, text in models(count, seed, make):
        plain, reduced = found(text, reduce=False), found(text, reduce=True)
        if plain is None or reduced is None:
            assert plain is reduced, text
            verdicts["refused"] += 1
        elif is_conclusive(plain) and is_conclusive(reduced):
            assert plain.found == reduced.found, f"model {seed}/{number}\n{text}\n{plain.text}"
            verdicts[plain.found] += 1
        else:
            verdicts["inconclusive"] += 1
    return verdicts


def explorers_agree(count: int, seed: int, most: int, make: Make = text_of) -> Counter[str]:
    """Compare the checker with the second explorer on models of at most so many states."""
    verdicts: Counter[str] = Counter()
    for number, text in models(10 * count, seed, make):
        plain = found(text, reduce=False)
        if plain is None or not is_conclusive(plain) or plain.states > most:
            continue
        if verdicts[plain.found] >= count // 4:
            continue
        slow = explore_litmus(text, limit=4 * most)
        if slow.status == "inconclusive":
            continue
        if slow.found != plain.found:  # two rules may be broken by runs of one length
            slow = explore_litmus(text, every=True)
            rule = {"allowed": "invariant"}.get(plain.found, plain.found.removeprefix("violated: "))
            assert rule in slow.rules, (
                f"model {seed}/{number}: {slow.found}\n{slow.schedule}\n{text}\n{plain.text}"
            )
        verdicts[plain.found] += 1
        if sum(verdicts.values()) == count:
            break
    return verdicts


def test_reduced_and_plain_searches_agree_on_random_models() -> None:
    verdicts = reductions_agree(1200, seed=1)
    assert verdicts["inconclusive"] + verdicts["refused"] < 240
    assert min(verdicts[v] for v in BROKEN) >= 3, verdicts


BROKEN = (
    "verified",
    "violated: stale_access (reused)",
    "violated: stale_access (not_reused)",
    "violated: freed_table_walk",
    "violated: unmapped_access",
    "violated: wrong_address_space",
    "violated: deadlock",
    "violated: invariant",
    "allowed",
    "forbidden",
)


def test_both_explorers_agree_on_random_models() -> None:
    verdicts = explorers_agree(120, seed=2, most=250)
    assert sum(verdicts.values()) == 120
    assert len(verdicts) >= 8, verdicts


def test_reduced_and_plain_searches_agree_on_walks_in_software() -> None:
    verdicts = reductions_agree(400, seed=5, make=walking)
    assert verdicts["violated: freed_table_read"] >= 5, verdicts
    assert verdicts["verified"] >= 33, verdicts


def test_both_explorers_agree_on_walks_in_software() -> None:
    verdicts = explorers_agree(120, seed=6, most=250, make=walking)
    assert sum(verdicts.values()) >= 80
    assert verdicts["violated: freed_table_read"] >= 3, verdicts


def test_reduced_and_plain_searches_agree_on_patched_branches() -> None:
    verdicts = reductions_agree(400, seed=9, make=patched)
    assert min(verdicts[v] for v in PATCHED) >= 3, verdicts


def test_both_explorers_agree_on_patched_branches() -> None:
    verdicts = explorers_agree(80, seed=10, most=400, make=patched)
    assert sum(verdicts.values()) >= 53
    assert verdicts["violated: unusable_stack"] >= 3, verdicts


PATCHED = ("verified", "violated: unusable_stack", "violated: stale_text", "violated: unmapped_access")


def test_reduced_and_plain_searches_agree_on_grace_periods() -> None:
    verdicts = reductions_agree(400, seed=7, make=waiting)
    assert verdicts["violated: freed_table_read"] >= 33, verdicts
    assert verdicts["violated: deadlock"] >= 6, verdicts
    assert verdicts["verified"] >= 66, verdicts


def test_both_explorers_agree_on_grace_periods() -> None:
    verdicts = explorers_agree(120, seed=8, most=250, make=waiting)
    assert sum(verdicts.values()) >= 80
    assert verdicts["verified"] >= 20, verdicts
    assert verdicts["violated: freed_table_read"] >= 8, verdicts


def test_reduced_and_plain_searches_agree_on_types() -> None:
    verdicts = reductions_agree(400, seed=9, make=typing)
    assert verdicts["violated: stale_line"] >= 20, verdicts
    assert verdicts["verified"] >= 33, verdicts


def test_both_explorers_agree_on_types() -> None:
    verdicts = explorers_agree(80, seed=10, most=400, make=typing)
    assert sum(verdicts.values()) >= 53
    assert verdicts["violated: stale_line"] >= 3, verdicts


@pytest.mark.slow
def test_reduced_and_plain_searches_agree_on_a_hundred_thousand_random_models() -> None:
    reductions_agree(100_000, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("make", [walking, patched, waiting, typing])
def test_both_explorers_and_reductions_agree_on_many_of_each_kind(make: Make) -> None:
    assert sum(reductions_agree(6000, seed=11, make=make).values()) == 6000
    assert sum(explorers_agree(1200, seed=12, most=400, make=make).values()) >= 800


@pytest.mark.slow
def test_both_explorers_agree_on_many_random_models() -> None:
    assert sum(explorers_agree(3000, seed=4, most=2000).values()) == 3000


def litmus_agrees(file: Path, most: int) -> bool:
    """Compare the two on one litmus test; `False` if it has more states."""
    fast = tc.litmus(file, reduce=False, memory=most * 200)
    if not is_conclusive(fast) or fast.states > most:
        return False
    slow = explore_litmus(file.read_text(encoding="utf-8"), limit=20 * most)
    if slow.found != fast.found:  # the checker looks for the stated rule by itself
        slow = explore_litmus(file.read_text(encoding="utf-8"), limit=20 * most, every=True)
    assert slow.found == fast.found or fast.found.removeprefix("violated: ") in slow.rules, (file.name, slow)
    return slow.status != "inconclusive"


def agrees_or_is_refused(file: Path, most: int) -> bool:
    """Compare the two on one litmus test; `False` if it was not compared, which has a reason."""
    try:
        return litmus_agrees(file, most)
    except NotImplementedError as why:
        refused = str(why)
    assert refused.startswith(tuple(REFUSED)), file.name
    return False


def test_both_explorers_agree_on_the_small_ones_of_the_catalogue() -> None:
    assert sum(agrees_or_is_refused(file, 400) for file in LITMUS) >= 45


@pytest.mark.slow
@pytest.mark.parametrize("file", LITMUS, ids=lambda f: f.stem)
def test_both_explorers_agree_on_the_catalogue(file: Path) -> None:
    try:
        conclusive = litmus_agrees(file, 150_000)
    except NotImplementedError as why:
        refused = str(why)
    else:
        assert conclusive
        return
    assert refused.startswith(tuple(REFUSED))
