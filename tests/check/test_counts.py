"""Counts: variables that only grow, known by the order of their copies (SEMANTICS A8)."""

from __future__ import annotations

import random

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore_litmus

COUNTS = {"n": "count, shared", "c": "count of n, per cpu", "d": "count of n, shared"}
NUMBERS = {"n": "8 bits, shared", "c": "8 bits, per cpu", "d": "8 bits, shared"}


def text_of(columns: list[str], declared: dict[str, str], ask: str, more: str = "") -> str:
    head = f'litmus counts\n  exists "{ask}"\n' if ask else "litmus counts\n"
    head += "".join(f"  var {name} : {what}, starts 0\n" for name, what in declared.items())
    head += "  var x : 1 bit, shared, starts 0\n  var y : 1 bit, shared, starts 0\n"
    programs = (
        f"\ncpu {i}\n" + "".join(f"  {line}\n" for line in c.split("\n")) for i, c in enumerate(columns)
    )
    return head + "".join(programs) + more


def found(text: str) -> str:
    """What every form of search finds, which must be the same."""
    by = [tc.litmus(text, reduce=reduce).found for reduce in (True, False)] + [explore_litmus(text).found]
    assert len(set(by)) == 1, (by, text)
    return by[0]


@pytest.mark.parametrize(
    ("test", "other", "expected"),
    [
        # Of one CPU's loads the later one is no smaller; an increment between makes it larger.
        ("let a = n\nlet b = n\nif b < a\n  x = 1", "inc n", "forbidden"),
        ("let a = n\nlet b = n\nif a < b\n  x = 1", "inc n", "allowed"),
        ("let a = n\ninc n\nlet b = n\nif b <= a\n  x = 1", "inc n", "forbidden"),
        ("let a = add n, 1\nlet b = n\nif a < b\n  x = 1", "lfence", "allowed"),
        ("let a = add n, 1\nlet b = n\nif a == b\n  x = 1", "inc n", "forbidden"),
        # Two increments in between are one step of the order, and not the number 2.
        ("inc n\ninc n\nlet a = n\nif a == 0\n  x = 1", "lfence", "forbidden"),
        ("let a = n\nif a == 0\n  x = 1", "inc n", "allowed"),
        # A copy that waits in a store buffer keeps its place in the order.
        ("let a = n\nc = a\ninc n\nlet b = c\nlet a = n\nif b < a\n  x = 1", "inc n", "allowed"),
        ("let a = n\nd = a\nlet b = d\nif b != a\n  x = 1", "inc n", "forbidden"),
        ("let a = n\nd = a\nfence\nlet b = d\nif b != a\n  x = 1", "inc n\nlet a = n\nd = a", "allowed"),
        ("let a = n\nlet b = cas d, 0, a\nif b > a\n  x = 1", "inc n\nlet a = n\nd = a", "allowed"),
        ("inc n\nlet a = n\nlet b = xchg d, a\nif b > a\n  x = 1", "inc n\nlet a = n\nxchg d, a", "allowed"),
        ("inc n\nlet a = n\nd = a\nd = 0\nfence\nlet a = d\nif a != 0\n  x = 1", "inc n", "forbidden"),
    ],
)
def test_the_order_of_copies_is_that_of_the_numbers(test: str, other: str, expected: str) -> None:
    for declared in (COUNTS, NUMBERS):
        assert found(text_of([test, other], declared, "x == 1")) == expected


@pytest.mark.parametrize(
    ("ask", "expected"),
    [("d == n", "allowed"), ("d < n", "allowed"), ("d > n", "forbidden"), ("n == 0", "forbidden")],
)
def test_conditions_compare_them(ask: str, expected: str) -> None:
    columns = ["inc n\nlet a = n\nd = a", "inc n"]
    for declared in (COUNTS, NUMBERS):
        assert found(text_of(columns, declared, ask)) == expected


def test_waits_compare_them() -> None:
    for declared in (COUNTS, NUMBERS):
        columns = ["inc n\nlet a = n\nawait d >= a\nx = 1", "let a = n\nd = a"]
        assert found(text_of(columns, declared, "x == 1")) == "violated: deadlock"
        columns[1] = "await n > 0\nlet a = n\nd = a"
        assert found(text_of(columns, declared, "x == 0")) == "forbidden"


def test_two_counts_are_two_orders() -> None:
    declared = {**COUNTS, "m": "count, shared", "e": "count of m, shared"}
    numbers = {**NUMBERS, "m": "8 bits, shared", "e": "8 bits, shared"}
    body = "inc n\ninc m\nlet a = m\ne = a\nlet b = n\nif a < {}\n  x = 1"
    for of in (declared, numbers):
        assert found(text_of([body.format("m"), "inc m"], of, "x == 1")) == "allowed"
    with pytest.raises(tc.PolicyError, match="compared with 0 and with copies of the same count"):
        found(text_of([body.format("b"), "inc m"], declared, "x == 1"))


SAID = "copied and compared"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("let a = n\n  let b = a + 1", SAID),
        ("let a = n\n  let b = n - a", SAID),
        ("let a = n\n  if a == 1\n    x = 1", "compared with 0 and with copies of the same count"),
        ("let a = n\n  if a & 1\n    x = 1", "compared with"),
        ("await n == 3", "compared with 0"),
        ("n = 1", "nothing but `inc n` changes it"),
        ("let a = n\n  n = a", "nothing but `inc n` changes it"),
        ("xchg n, 0", "nothing but `inc n` changes it"),
        ("add n, 2", "nothing but `inc n` changes it"),
        ("sub n, 1", "nothing but `inc n` changes it"),
        ("or n, 1", "nothing but `inc n` changes it"),
        ("bts n, 1", "nothing but `inc n` changes it"),
        ("let a = n\n  let b = cas n, a, a", "nothing but `inc n` changes it"),
        ("inc c", "`c` is a copy of a count"),
        ("c = 1", "`c` takes copies of what it is declared to count, and 0"),
        ("let a = x\n  c = a", "`c` takes copies"),
        ("let a = n\n  x = a", "`x` is no count: declare it as a copy, `count of` it"),
        ("let a = n\n  let b = xchg x, a", "`x` is no count"),
        ("let a = x\n  if a == 1\n    let a = n\n  x = a", "`x` is no count"),
        ("let a = x\n  if a == 1\n    let a = n\n  if a == n\n    x = 1", "compared with"),
        ("let a = n\n  mov cr3, mm a asid 0", SAID),
        ("let a = n\n  mov gsbase, a", SAID),
    ],
)
def test_what_could_tell_values_of_one_order_apart_is_refused(line: str, said: str) -> None:
    text = text_of([f"lfence\n{line}".replace("\n  ", "\n")], COUNTS, "")
    with pytest.raises(tc.PolicyError, match=r"^litmus:\d+:\d+: .*" + said.replace("(", r"\(")):
        tc.litmus(text)
    tc.litmus(text_of(["lfence"], COUNTS, ""))


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("var k : count, per cpu", "a count is `shared`"),
        ("var k : count of n, per mm", "a copy of a count is `shared`, `per cpu` or `per asid`"),
        ("var k : count of x, per cpu", "`k` copies `x`, which is no count"),
        ("var k : count of c, per cpu", "`k` copies `c`, which is no count"),
        ("var k : count of nobody, per cpu", "`k` copies `nobody`, which is no count"),
        ("var k : count, shared, starts 1", "start at 0"),
        ("field low : bits 0..1 of n", "counts: it has no bits"),
    ],
)
def test_what_cannot_be_declared_is_named(declared: str, said: str) -> None:
    text = text_of(["lfence"], COUNTS, "").replace("  var x", f"  {declared}\n  var x")
    with pytest.raises(tc.PolicyError, match=said):
        tc.litmus(text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('exists "n == 2"', "`n` counts: it is compared with 0"),
        ('exists "n == x"', "`n` counts"),
        ('exists "d & n"', "`[dn]` counts"),
        ('exists "0:a == 1"', "a condition reads `a`, which holds a count"),
        ('locations "n"', "nothing but the order of its copies is kept"),
        ('frames "p: n"', "`n` counts: no page maps it"),
    ],
)
def test_questions_about_values_are_refused(line: str, said: str) -> None:
    text = text_of(["let a = n\nc = a"], COUNTS, "").replace(
        "  var n", f"  {line}\n  page p : vmalloc\n  var n"
    )
    with pytest.raises(tc.TlbcoreError, match=said):
        tc.litmus(text)


# -- without bound -------------------------------------------------------------------------------------------------

POLICY = """policy counted
  "Who is in user mode is left alone, and compares a count when it comes back."
  based on generation-at-entry
  var flushes : {}
  var seen : {}
{}"""
LATE = """
to_kernel
  in_kernel = 1
  if feature pti
    mov cr3, kernel noflush
  let now = flushes
  let was = seen
  if now != was
    flush_all_here
    seen = now
"""


def counted(more: str = "", *, bits: bool = False) -> tc.Policy:
    how = ("16 bits, shared", "16 bits, per cpu") if bits else ("count, shared", "count of flushes, per cpu")
    return tc.Policy(text=POLICY.format(*how, more))


@pytest.mark.parametrize(("more", "status"), [("", "verified"), (LATE, "violated")])
@pytest.mark.parametrize("reduce", [True, False])
def test_any_number_of_flushes_has_a_verdict(more: str, status: str, reduce: bool) -> None:
    asked = {"roles": "purge*unbounded; isolated unbounded", "assume": {"D": "recycled"}}
    verdict = tc.check(counted(more), **asked, world="nopti", reduce=reduce)
    assert verdict.status == status
    if status == "verified":
        assert "any number" in verdict.sentence


def test_numbers_have_no_verdict_there() -> None:
    asked = {"roles": "purge*unbounded; isolated unbounded", "assume": {"D": "none"}}
    assert tc.check(counted(bits=True), **asked, world="nopti", memory=1 << 22).status == "inconclusive"


ROUNDS = """litmus rounds
  exists "x == 1"
  cpus "send*2; take*2"
  assume "fills=demand stores=sc"
  var n : {n}, starts 0
  var c : {c}, starts 0
  var d : {d}, starts 0
  var x : 1 bit, shared, starts 0

send
  inc n

take
  let a = n
  let b = {of}
  if {test}
    x = 1
  {of} = a
"""


@pytest.mark.parametrize(
    ("of", "test", "expected"),
    [("c", "a < b", "forbidden"), ("c", "a > b", "allowed"), ("d", "a < b", "forbidden")],
)
def test_rounds_come_to_the_same_in_every_search(of: str, test: str, expected: str) -> None:
    for declared in (COUNTS, NUMBERS):
        text = ROUNDS.format(of=of, test=test, **declared)
        assert tc.litmus(text).found == tc.litmus(text, reduce=False).found == expected
    once = ROUNDS.format(of=of, test=test, **COUNTS).replace("send*2", "send")
    assert found(once) == expected


def test_the_timed_machine_counts_and_carries_out_what_was_found() -> None:
    load = tc.scenarios.syscall_heavy(duration_s=0.005)
    runs = [tc.simulate(load, machine="skylake-sp", policy=counted(bits=bits)) for bits in (False, True)]
    assert runs[0].table["syscalls"].tolist() == runs[1].table["syscalls"].tolist()
    run = tc.check(counted(LATE), world="nopti").counterexample
    assert run is not None
    assert run.replay() == run.rule


def test_the_text_keeps_it_and_spin_counts() -> None:
    policy = counted()
    assert "var flushes : count, shared, starts 0" in policy.canonical
    assert "var seen : count of flushes, per cpu, starts 0" in policy.canonical
    assert tc.Policy(text=policy.canonical).digest == policy.digest
    assert "int v_flushes = 0;" in policy.promela()


# -- the random differential ---------------------------------------------------------------------------------------


def drawn(number: int) -> tuple[list[str], str, str]:
    """Columns, a condition and a handler at random, in which a count is used as one may be."""
    rng = random.Random(f"counts/{number}")

    def line() -> str:
        sign = rng.choice(("==", "!=", "<", "<=", ">", ">="))
        one, two = rng.choice(("a", "b")), rng.choice(("a", "b"))
        return rng.choice(
            (
                "inc n",
                "inc n",
                f"let {one} = n",
                f"let {one} = add n, 1",
                f"c = {one}",
                f"let {one} = c",
                f"d = {one}",
                f"let {one} = d",
                f"let {one} = xchg d, {two}",
                f"let {one} = cas d, {one}, {two}",
                "d = 0",
                f"if {one} {sign} {two}\n  x = 1",
                f"if {one} {sign} d\n  y = 1",
                f"if {one} {sign} 0\n  y = 1",
                f"each cpu in others\n  let a = c[cpu]\n  if a {sign} b\n    x = 1",
                f"each cpu in others\n  c[cpu] = {one}",
                f"await d {sign} {one}",
                "ipi others, h",
                "fence",
            )
        )

    columns = [
        "let a = n\nlet b = c\n" + "\n".join(line() for _ in range(rng.randint(1, 3))) for i in range(2)
    ]
    handler = rng.choice(
        ("inc n", "let a = n\n  c = a", "let a = c\n  d = a", "let a = n\n  if a > c\n    y = 1")
    )
    ask = rng.choice(
        ("x == 1", "y == 1", "x == 1 and y == 1", "x == 0", "d == n", "d < n", "d > 0 and x == 1")
    )
    return columns, ask, f"\nh\n  {handler}\n"


def agree(count: int, most: int, slow_most: int) -> tuple[dict[str, int], int]:
    seen: dict[str, int] = {}
    thrice = 0
    for number in range(count):
        columns, ask, more = drawn(number)
        texts = [text_of(columns, declared, ask, more) for declared in (COUNTS, NUMBERS)]
        try:
            for text in texts:
                _core.policy_code(text, "litmus", [])
        except tc.PolicyError:  # more locals than registers
            continue
        forms = [[tc.litmus(text, reduce=r, memory=1 << 20) for r in (True, False)] for text in texts]
        (counted, counted_plain), (_, numbers_plain) = forms
        if numbers_plain.found.startswith("inconclusive") or numbers_plain.states > most:
            continue
        assert len({form.found for both in forms for form in both}) == 1, (number, texts[0], forms)
        assert counted_plain.states <= numbers_plain.states or counted.found != "forbidden", texts[0]
        seen[counted.found] = seen.get(counted.found, 0) + 1
        if numbers_plain.states > slow_most:
            continue
        slow = explore_litmus(texts[0], limit=8 * slow_most)
        if slow.status != "inconclusive":
            assert slow.found == counted.found, (number, texts[0], slow.found, counted.found)
            thrice += 1
    return seen, thrice


def test_random_texts_have_the_verdict_of_plain_numbers_in_every_search() -> None:
    seen, thrice = agree(150, 4000, 160)
    assert sum(seen.values()) >= 100, seen
    assert thrice >= 20
    assert {"allowed", "forbidden", "violated: deadlock"} <= seen.keys(), seen


@pytest.mark.slow
def test_many_random_texts_do() -> None:
    seen, thrice = agree(6000, 20_000, 500)
    assert sum(seen.values()) > 3000
    assert thrice > 1000
