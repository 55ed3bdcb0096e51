"""Entries of 2 MB beside those of 4 KB: a page that lies `in` a large one (SEMANTICS H9)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore_litmus

CASEBOOK = Path(__file__).parents[1] / "litmus" / "casebook"
CASES = sorted(file for n in ("c15", "c40", "c41") for file in CASEBOOK.glob(f"{n}-*.litmus"))


def found(text: str) -> str:
    """What every form of search finds, which must be the same."""
    by = [tc.litmus(text, reduce=reduce).found for reduce in (True, False)] + [explore_litmus(text).found]
    assert len(set(by)) == 1, by
    return by[0]


def of(
    body: str, *, large: str = "", more: str = "", ask: str = "", features: str = "pti pcid invpcid"
) -> str:
    lines = "\n".join(f"  {line}" for line in body.splitlines())
    head = f'litmus a\n{ask}  features "{features}"\n'
    head += f"  page large : vmalloc{large}\n  page small : vmalloc, in large\n{more}"
    return found(f"{head}\ncpu 0\n{lines}\n")


REUSED, FREED = "violated: stale_access (reused)", "violated: stale_access (not_reused)"

SPLIT = "pte large = none locked\n{}pte small = none locked\nrequest small\n{}promise small\n{}"


@pytest.mark.parametrize(
    ("at_split", "flush", "after", "expected"),
    [
        # The large entry of before the split still maps the address that was taken out of it.
        ("", "", "pte small = fresh locked", REUSED),
        # An invalidation of that address drops what maps it, whatever its size.
        ("", "invlpg small\n", "pte small = fresh locked", "verified"),
        ("", "invpcid address kernel small\n", "pte small = fresh locked", "verified"),
        ("", "mov cr3, kernel\n", "pte small = fresh locked", "verified"),
        ("", "mov cr4, pge off\n", "pte small = fresh locked", "verified"),
        # One of another address of the large page drops the large translation, and leaves the small one.
        ("", "invlpg large\n", "pte small = fresh locked", REUSED),
        # Flushed when it was split, and then its small one was walked.
        ("invlpg large\n", "", "pte small = fresh locked", REUSED),
        # Nobody uses what is not allocated.
        ("", "", "", "verified"),
    ],
)
def test_a_split_leaves_the_large_translation(at_split: str, flush: str, after: str, expected: str) -> None:
    assert of(SPLIT.format(at_split, flush, after)) == expected


def test_a_large_entry_that_maps_the_same_frames_is_harmless() -> None:
    """S4: promised or not, what is split without a change maps what it did."""
    split = "pte large = none locked\nrequest large\npromise large\n"
    assert of(split) == "verified"
    assert of(split + "pte large = fresh locked") == REUSED
    assert of(split + "pte small = none locked\nrequest small\ninvlpg small\npromise small") == "verified"


@pytest.mark.parametrize(
    ("flush", "expected"),
    [
        ("invlpg small", "verified"),
        ("invlpg large", REUSED),
        ("invlpg large\ninvlpg small", "verified"),
        ("invpcid all-including-global", "verified"),
    ],
)
def test_a_collapse_leaves_the_small_translation(flush: str, expected: str) -> None:
    body = f"pte small = none locked\nrequest small\n{flush}\npromise small\npte large = fresh locked"
    assert of(body, large=", absent") == expected


@pytest.mark.parametrize(
    ("stride", "expected"),
    [("large", REUSED), ("small", "verified"), ("large final", REUSED), ("all", "verified")],
)
def test_invlpgb_drops_the_translation_of_the_address_it_names(stride: str, expected: str) -> None:
    body = f"pte small = none locked\nrequest small\ninvlpgb {stride}\ntlbsync\npromise small\npte small = fresh locked"
    assert of(body, large=", absent", features="pcid invlpgb") == expected
    split = SPLIT.format("", f"invlpgb {stride}\ntlbsync\n", "pte small = fresh locked")
    assert of(split, features="pcid invlpgb") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("read small", "forbidden"),
        ("pte large = none locked\ninvlpg large\nread small", "forbidden"),  # the table below is there
        ("pte small = none locked\ninvlpg small\nread small", "forbidden"),  # the large entry maps it
        ("pte large = none locked\npte small = none locked\ninvlpg small\nread small", "allowed"),
        ("pte large = none locked\npte small = none locked\nread small", "allowed"),  # nothing need be cached
        ("pte large = none locked\ninvlpg large\nread large", "allowed"),
    ],
)
def test_an_address_faults_where_neither_entry_maps_it(body: str, expected: str) -> None:
    page = "small" if body.endswith("small") else "large"
    assert of(body, ask=f'  exists "fault(0, {page})"\n') == expected


@pytest.mark.parametrize(
    ("flush", "expected"), [("lfence", FREED), ("invlpg small", "verified"), ("invlpg large", FREED)]
)
def test_either_of_two_translations_may_be_used(flush: str, expected: str) -> None:
    """A CPU that holds both, the large one from before a split: each is one that an access may use."""
    pages = "litmus both\n  page large : user of 0\n  page small : user of 0, in large\n"
    split = "\ncpu 0\n  read small\n  pte large = none locked\n  read small\n  pte small = none locked\n"
    assert found(f"{pages}{split}  request small\n  {flush}\n  promise small\n  read small\n") == expected


def test_rights_of_one_small_page_are_more_in_the_large_one() -> None:
    """CPA splits the direct map's 2 MB and takes rights from 4 KB of it."""
    pages = "litmus cpa\n  page large : direct map\n  page small : direct map, in large\n"
    body = "\ncpu 0\n  pte small = less-rights locked\n  pte large = none locked\n"
    body += "  request small\n  {}\n  promise small\n  write small\n"
    assert found(pages + body.format("lfence")) == REUSED
    assert found(pages + body.format("invlpg small")) == "verified"
    assert found(pages + body.format("invlpg large")) == "verified", (
        "nothing small was cached before the split"
    )


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_the_cases_have_one_verdict_in_every_search(file: Path) -> None:
    assert len(CASES) == 6
    assert found(file.read_text(encoding="utf-8")) == tc.litmus(file).stated


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ("  page s : vmalloc, in l\n", "3:.*page `s` lies in `l`, which is no page declared before it"),
        ("  page l : vmalloc\n  page s : direct map, in l\n", "4:.*of the same region and tables"),
        ("  page l : vmalloc\n  page s : vmalloc, global, in l\n", "4:.*of the same region and tables"),
        (
            "  page l : vmalloc\n  page s : vmalloc, in l\n  page t : vmalloc, in s\n",
            "5:.*is itself a small one",
        ),
    ],
)
def test_what_lies_in_nothing_large_is_refused_with_its_place(pages: str, said: str) -> None:
    with pytest.raises(tc.PolicyError, match=said):
        tc.litmus(f'litmus l\n  "x"\n{pages}\ncpu 0\n  fence\n')


def test_page_tables_and_data_beside_it_are_refused() -> None:
    head = "litmus l\n  page l : vmalloc\n  page s : vmalloc, in l\n"
    with pytest.raises(tc.TlbcoreError, match="neither page tables nor `frames`"):
        tc.litmus(head + "\ncpu 0\n  table s = none\n")
    with pytest.raises(tc.TlbcoreError, match="neither page tables nor `frames`"):
        tc.litmus(head + '  var x : 1 bit, shared, starts 0\n  frames "s: x"\n\ncpu 0\n  let r = load s\n')


def test_the_text_of_a_policy_keeps_it() -> None:
    text = 'policy p\n  "x"\n  based on ipi\n  page l : vmalloc\n  page s : vmalloc, absent, in l\n'
    text += "\nto_kernel\n  invlpg s\n"
    policy = tc.Policy(text=text)
    assert "page s : vmalloc, absent, in l" in policy.canonical
    assert policy.code()["pages"][1]["within"] == 0


def drawn(number: int) -> str:
    """A random text about one large page and a small one in it."""
    rng = random.Random(f"large/{number}")

    def page() -> str:
        return rng.choice(("large", "small", "small"))

    def line() -> str:
        which = page()
        gone = f"pte {which} = none locked\n  request {which}\n"
        entry = rng.choice(("none", "none", "fresh", "less-rights", "initial"))
        return rng.choice(
            (
                f"pte {which} = {entry}{rng.choice(('', ' locked'))}",
                f"invlpg {which}",
                f"invpcid address kernel {which}",
                f"invlpgb {which}\n  tlbsync",
                "mov cr3, kernel",
                "invpcid all-including-global",
                f"request {which}\n  invlpg {page()}\n  promise {which}",
                f"request {which}\n  ipi others, h\n  invlpg {page()}\n  await acks\n  promise {which}",
                f"{gone}  invlpg {page()}\n  promise {which}\n  pte {page()} = fresh locked",
                f"{gone}  fence\n  promise {which}\n  read {page()}",
                "touch kernel",
                f"read {which}",
                f"request {which}",
                f"promise {which}",
            )
        )

    region = rng.choice(("vmalloc", "vmalloc", "direct map"))
    more = rng.choice(("", "", ", global"))
    absent = [rng.choice(("", "", ", absent")) for _ in range(2)]
    head = f"litmus l{number}\n  page large : {region}{more}{absent[0]}\n"
    head += f"  page small : {region}{more}{absent[1]}, in large\n"
    asked = rng.choice(
        ("", '  exists "fault(0, small)"\n', '  features "pcid invpcid"\n', '  assume "stores=sc"\n')
    )
    columns = [
        f"\ncpu {n}\n" + "".join(f"  {line()}\n" for _ in range(rng.randint(1, 5 - 2 * n))) for n in range(2)
    ]
    return head + asked + "".join(columns) + f"\nh\n  invlpg {page()}\n"


def explorers_agree(count: int, most: int) -> dict[str, int]:
    seen: dict[str, int] = {}
    for number in range(count):
        text = drawn(number)
        try:
            _core.policy_code(text, "litmus", [])
        except tc.PolicyError:
            continue
        try:
            plain, reduced = (tc.litmus(text, reduce=reduce, memory=1 << 20) for reduce in (False, True))
        except tc.PolicyError:  # a question about a fault of an access that no column makes
            continue
        if (
            plain.found.startswith("inconclusive")
            or reduced.found.startswith("inconclusive")
            or plain.states > most
        ):
            continue
        assert plain.found == reduced.found, text
        slow = explore_litmus(text, limit=4 * most)
        if slow.status == "inconclusive":
            continue
        if slow.found != plain.found:
            slow = explore_litmus(text, every=True)
            rule = {"allowed": "invariant"}.get(plain.found, plain.found.removeprefix("violated: "))
            assert rule in slow.rules, (number, text, plain.text, slow)
        seen[plain.found] = seen.get(plain.found, 0) + 1
    return seen


def test_random_texts_of_large_and_small_entries_come_to_the_same_in_every_search() -> None:
    seen = explorers_agree(350, 400)  # some promise what nobody uses, and count for nothing
    assert sum(seen.values()) >= 53, seen
    assert {"verified", REUSED, "violated: unmapped_access", "forbidden"} <= seen.keys(), seen


@pytest.mark.slow
def test_many_random_texts_of_large_and_small_entries_do() -> None:
    assert sum(explorers_agree(5000, 5000).values()) > 1000
