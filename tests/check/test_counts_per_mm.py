"""Counts of which each address space has its own (SEMANTICS A8), as Linux' `mm->context.tlb_gen`."""

from __future__ import annotations

import random

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore_litmus

COUNTS = {
    "n": "count, per mm, starts 0",
    "c": "count of n, per cpu, starts 0",
    "d": "count of n, shared, starts 0",
    "e": "count of n, per asid, starts 0",
}
NUMBERS = {
    name: what.replace("count of n", "8 bits").replace("count", "8 bits") for name, what in COUNTS.items()
}
SHARED = "  var x : 1 bit, shared, starts 0\n  var y : 1 bit, shared, starts 0\n  page u : user of 2\n"


def text_of(columns: list[str], declared: dict[str, str], ask: str = "x == 1", more: str = "") -> str:
    head = f'litmus counts\n  exists "{ask}"\n'
    head += "".join(f"  var {name} : {what}\n" for name, what in declared.items()) + SHARED
    programs = (
        f"\ncpu {i}\n" + "".join(f"  {line}\n" for line in c.split("\n")) for i, c in enumerate(columns)
    )
    return head + "".join(programs) + more


def found(text: str) -> str:
    """What every form of search finds, which must be the same."""
    by = [tc.litmus(text, reduce=reduce).found for reduce in (True, False)] + [explore_litmus(text).found]
    assert len({one.replace("inconclusive: overflow", "inconclusive") for one in by}) == 1, (by, text)
    return by[0]


@pytest.mark.parametrize(
    ("test", "other", "expected"),
    [
        ("let a = n[m]\nlet b = n[m]\nif a < b\n  x = 1", "inc n[m]", "allowed"),
        ("let a = n[m]\nlet b = n[m]\nif b < a\n  x = 1", "inc n[m]", "forbidden"),
        ("let a = add n[m], 1\nlet b = n[m]\nif a < b\n  x = 1", "lfence", "allowed"),
        ("inc n[m]\nlet a = n[m]\nd = a\nlet b = n[m]\nif b < d\n  x = 1", "inc n[m]", "forbidden"),
        # Another address space counts for itself.
        (
            "let a = n[m]\nlet m = 1\ninc n[m]\nlet m = 2\nlet b = n[m]\nif a != b\n  x = 1",
            "lfence",
            "forbidden",
        ),
        ("let a = n[m]\nlet b = n[m]\nif a != b\n  x = 1", "let m = 1\ninc n[m]", "forbidden"),
        # A copy of an ASID's, which is the CPU's own.
        (
            "let i = 0\ninc n[m]\nlet a = n[m]\ne[i] = a\nlet b = n[m]\nlet a = e[i]\nif a < b\n  x = 1",
            "inc n[m]",
            "allowed",
        ),
        (
            "let i = 0\ninc n[m]\nlet a = n[m]\ne[i] = a\nlet a = e[i]\nif a == 0\n  x = 1",
            "inc n[m]",
            "forbidden",
        ),
        # 0 is everybody's.
        ("let a = n[m]\nlet m = 1\nlet b = n[m]\nif a == b\n  x = 1", "lfence", "allowed"),
    ],
)
def test_each_address_space_has_an_order_of_its_own(test: str, other: str, expected: str) -> None:
    for declared in (COUNTS, NUMBERS):
        assert found(text_of([f"let m = 2\n{test}", f"let m = 2\n{other}"], declared)) == expected


def test_it_may_start_above_its_copies() -> None:
    """As `tlb_gen` does, so that an ASID that was taken over is behind whatever it holds."""
    body = "let m = 2\nlet a = n[m]\nif a {} d\n  x = 1"
    for sign, expected in ((">", "allowed"), ("==", "forbidden")):
        for declared in (COUNTS, NUMBERS):
            of = {**declared, "n": declared["n"].replace("starts 0", "starts 1")}
            assert found(text_of([body.format(sign)], of)) == expected


def test_values_of_two_address_spaces_have_no_order() -> None:
    body = "let m = 2\ninc n[m]\nlet a = n[m]\nlet m = 1\ninc n[m]\nlet b = n[m]\nif a {} b\n  x = 1"
    for sign in ("==", "<", "!="):
        assert found(text_of([body.format(sign)], COUNTS)).startswith("inconclusive")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("await d == a", "is compared with another one in `if` or `while` alone"),
        ("let b = cas d, a, 0", "is compared with another one in `if` or `while` alone"),
        ("n[m] = 0", "nothing but `inc n` changes it"),
        ("inc c", "`c` is a copy of a count"),
        ("let b = a + 1", "copied and compared"),
        ("let b = n[a]", "copied and compared"),
    ],
)
def test_what_could_tell_values_of_one_order_apart_is_refused(line: str, said: str) -> None:
    with pytest.raises(tc.PolicyError, match=r"^litmus:\d+:\d+: .*" + said):
        tc.litmus(text_of([f"let m = 2\nlet a = n[m]\n{line}"], COUNTS))


def test_a_condition_compares_it_with_0_alone() -> None:
    declared = {**COUNTS, "f": "count of n, shared, starts 0"}
    text = text_of(["let m = 2\nlet a = n[m]\nd = a\nf = a"], declared, ask="d == f")
    with pytest.raises(tc.TlbcoreError, match="counts"):
        tc.litmus(text)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("var k : count, per asid", "a count is `shared` or `per mm`"),
        ("var k : count of n, per mm", "a copy of a count is `shared`, `per cpu` or `per asid`"),
        ("var k : count, per mm, starts 2", "one per mm at 0 or 1"),
        ("var k : count of n, per cpu, starts 1", "start at 0"),
    ],
)
def test_what_cannot_be_declared_is_named(declared: str, said: str) -> None:
    text = text_of(["lfence"], COUNTS).replace("  var x", f"  {declared}\n  var x")
    with pytest.raises(tc.PolicyError, match=said):
        tc.litmus(text)


POLICY = """policy counted
  "Each address space counts its flushes; who is in user mode compares the count of the kernel's when it comes back."
  based on generation-at-entry
  var flushes : {}, per mm, starts 1
  var seen : {}, per cpu, starts 0

{}
"""
ENTRY = """to_kernel
  in_kernel = 1
  fence
  if feature pti
    mov cr3, kernel noflush
  let m = 0
  let now = flushes[m]
  let was = seen
  if now != was
    flush_all_here
    seen = now

flush_kernel_range
  let m = 0
  inc flushes[m]
  each cpu in others
    if cpu in housekeeping or in_kernel[cpu]
      put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks
"""


def counted(more: str, *, bits: bool = False) -> tc.Policy:
    return tc.Policy(
        text=POLICY.format(*(("16 bits", "16 bits") if bits else ("count", "count of flushes")), more)
    )


@pytest.mark.parametrize(
    ("more", "status"), [(ENTRY, "verified"), (ENTRY.replace("  fence\n", ""), "violated")]
)
@pytest.mark.parametrize("reduce", [True, False])
def test_any_number_of_flushes_has_a_verdict(more: str, status: str, reduce: bool) -> None:
    asked = {"roles": "purge*unbounded; isolated unbounded", "assume": {"D": "none"}}
    verdict = tc.check(counted(more), **asked, world="nopti", reduce=reduce)
    assert verdict.status == status
    bits = tc.check(counted(more, bits=True), **asked, world="nopti", memory=1 << 22, reduce=reduce)
    assert bits.status == ("inconclusive" if status == "verified" else "violated")


# -- the random differential ---------------------------------------------------------------------------------------


def drawn(number: int) -> tuple[list[str], str, str]:
    """Columns, a condition and a handler at random, in which a count per mm is used as one may be."""
    rng = random.Random(f"counts per mm/{number}")

    def line() -> str:
        sign = rng.choice(("==", "!=", "<", "<=", ">", ">="))
        one, two = rng.choice(("a", "b")), rng.choice(("a", "b"))
        return rng.choice(
            (
                "inc n[m]",
                "inc n[m]",
                f"let {one} = n[m]",
                f"let {one} = add n[m], 1",
                f"c = {one}",
                f"let {one} = c",
                f"d = {one}",
                f"let {one} = d",
                f"let {one} = xchg d, {two}",
                f"e[i] = {one}",
                f"let {one} = e[i]",
                "d = 0",
                f"if {one} {sign} {two}\n  x = 1",
                f"if {one} {sign} 0\n  y = 1",
                f"each cpu in others\n  let a = c[cpu]\n  if a {sign} b\n    x = 1",
                "let m = 1",
                "ipi others, h",
                "fence",
            )
        )

    columns = [
        f"let m = {rng.choice((2, 2, 1))}\nlet i = 0\nlet a = n[m]\nlet b = c\n"
        + "\n".join(line() for _ in range(rng.randint(1, 3)))
        for _ in range(2)
    ]
    handler = rng.choice(
        (
            "let k = 2\n  inc n[k]",
            "let k = 2\n  let a = n[k]\n  c = a",
            "let a = c\n  d = a",
            "let k = 1\n  inc n[k]",
        )
    )
    ask = rng.choice(("x == 1", "y == 1", "x == 1 and y == 1", "x == 0", "d > 0 and x == 1"))
    return columns, ask, f"\nh\n  {handler}\n"


def agree(first: int, count: int, most: int, slow_most: int) -> tuple[dict[str, int], int]:
    seen: dict[str, int] = {}
    thrice = 0
    for number in range(first, first + count):
        columns, ask, more = drawn(number)
        texts = [text_of(columns, declared, ask, more) for declared in (COUNTS, NUMBERS)]
        try:
            for text in texts:
                _core.policy_code(text, "litmus", [])
        except tc.PolicyError:  # more locals than registers
            continue
        forms = [[tc.litmus(text, reduce=r, memory=1 << 20) for r in (True, False)] for text in texts]
        (counted, _), (_, numbers_plain) = forms
        if numbers_plain.found.startswith("inconclusive") or numbers_plain.states > most:
            continue
        orders = {form.found for form in forms[0]}
        if any(form.startswith("inconclusive") for form in orders):  # two orders meet, on some way
            assert "let m = 1" in texts[0] or "let k = 1" in texts[0], texts[0]
            seen["two orders"] = seen.get("two orders", 0) + 1
            continue
        assert len({form.found for both in forms for form in both}) == 1, (number, texts[0], forms)
        seen[counted.found] = seen.get(counted.found, 0) + 1
        if numbers_plain.states > slow_most:
            continue
        slow = explore_litmus(texts[0], limit=8 * slow_most)
        if slow.status != "inconclusive":
            assert slow.found == counted.found, (number, texts[0], slow.found, counted.found)
            thrice += 1
    return seen, thrice


def test_random_texts_have_the_verdict_of_plain_numbers_in_every_search() -> None:
    seen, thrice = agree(0, 200, 4000, 200)
    assert sum(seen.values()) - seen.get("two orders", 0) >= 100, seen
    assert thrice >= 20
    assert min(seen["allowed"], seen["forbidden"]) >= 20, seen


@pytest.mark.slow
def test_many_random_texts_do() -> None:
    seen, thrice = agree(0, 6000, 20_000, 500)
    assert sum(seen.values()) > 3000
    assert thrice > 1000
