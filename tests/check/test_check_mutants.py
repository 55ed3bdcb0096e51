"""Which single-op mutants of the verified policies the checker catches, and that every other one is argued."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages.mutants import _own_sections, argument, arguments, mutants_markdown, score, section

import tlbcore as tc
from tlbcore import _core

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mutants.md").read_text()
WHY = arguments(ROOT / "tests" / "data" / "mutants.toml")
SAMPLE = ("coalesce-v7-fixed", "track-cr3-reconstructed", "invlpgb", "rar")


def on_page() -> dict[str, tuple[set[str], dict[str, str]]]:
    """By policy: what the page says is caught, and what survives because of what."""
    out = {}
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        caught, survives = part.split("| survives | because |")
        rows = [line.strip("| ").split(" | ") for line in survives.splitlines() if line.startswith("| ")]
        out[part.split("\n", 1)[0]] = (
            {line[2:].split(" | ")[0] for line in caught.splitlines() if re.match(r"\| .*: ", line)},
            {name: because for name, because in rows if name != "---"},
        )
    return out


def test_every_survivor_has_an_argument_and_every_argument_a_survivor() -> None:
    unused = set(WHY)
    for policy, (caught, survivors) in on_page().items():
        assert caught
        assert not caught & survivors.keys()
        for mutant, because in survivors.items():
            assert because == argument(WHY, policy, mutant), f"{policy}: {mutant}"
            unused -= {(policy, mutant)} if (policy, mutant) in WHY else {("*", mutant)}
    assert unused == set(), "arguments about mutants that are caught, or that there are none of"


def test_the_page_has_every_mutant_of_every_policy_that_passes_anything() -> None:
    pages = on_page()
    for name, policy in tc.policies.items():
        stated = _core.policy_stated(name)
        users = policy.defers == ("user",)
        assert (name in pages) == (all(stated) if users else any(stated)), name
        if name in pages:
            caught, survivors = pages[name]
            own = _own_sections(name)
            mutants = [m for m in _core.check_mutants(policy.text, policy.file) if not users or m[0] in own]
            assert len(caught) + len(survivors) == len(mutants) > 0


def test_a_policy_of_user_ranges_alone_is_weakened_where_it_says_something_itself() -> None:
    assert _own_sections("switch-deferred") == {"stop_receiving", "flush_tlb_mm_range_freed"}
    assert _own_sections("latr-two-ticks") >= _own_sections("latr") > {"tick", "sweep", "flush_mm"}
    caught, survivors = on_page()["switch-deferred"]
    assert (len(caught), len(survivors)) == (7, 0)


@pytest.mark.parametrize("policy", SAMPLE)
def test_what_the_page_says_of_a_policy_is_what_is_computed(policy: str) -> None:
    found = score(policy)

    assert found is not None
    assert section(found, WHY) in PAGE, "run `python -m pages.verdicts mutants`"


@pytest.mark.slow
def test_the_page_of_mutants_is_what_is_computed() -> None:
    scores = [s for name in tc.policies if (s := score(name)) is not None]

    assert mutants_markdown(scores, WHY) == PAGE, "run `python -m pages.verdicts mutants`"


def test_a_survivor_without_an_argument_shows() -> None:
    found = score("rar")

    assert found is not None
    assert "no argument" not in section(found, WHY)
    assert section(found, {}).count("no argument") == len(found.survivors)


def test_either_the_fence_or_the_atomic_of_pending_bit_recheck_is_enough_and_neither_is_not() -> None:
    """The argument for three survivors of that policy."""
    switch = "if feature pti\n  mov cr3, kernel noflush\nif owed\n  flush_all_here"
    plain = f"in_kernel = 1\n{{fence}}let owed = pending\n{switch}"
    policy = tc.policies["pending-bit-recheck"]

    fenced = policy.replace(name="fenced", to_kernel=plain.format(fence="fence\n"))
    bare = policy.replace(name="bare", to_kernel=plain.format(fence=""))

    assert tc.check(fenced).status == "verified"
    assert tc.check(bare).status == "violated"
