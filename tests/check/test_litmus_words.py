"""Words of the language that litmus tests brought: locked arithmetic, single bits, SFENCE, 16-bit constants, names."""

from __future__ import annotations

import re

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore, explore_litmus

# An op on a variable of 4 bits that holds 5, its operand, what memory and the register hold then.
LOCKED = [
    ("xchg v, 2", 2, 5),
    ("add v, 2", 7, 5),
    ("sub v, 2", 3, 5),
    ("inc v", 6, 5),
    ("dec v", 4, 5),
    ("or v, 2", 7, 5),
    ("and v, 4", 4, 5),
    ("xor v, 6", 3, 5),
    ("bts v, 1", 7, 0),
    ("bts v, 2", 5, 1),
    ("btr v, 2", 1, 1),
    ("btr v, 1", 5, 0),
    ("btc v, 0", 4, 1),
    ("btc v, 3", 13, 0),
]


def found(body: str, *, var: str = "4 bits, shared, starts 5", ask: str = "v >= 0") -> str:
    lines = "\n".join(f"  {line}" for line in body.splitlines())
    text = f'litmus a\n  exists "{ask}"\n  var v : {var}\n  var old : 16 bits, shared, starts 9\n\ncpu 0\n{lines}\n'
    return tc.litmus(text).found


@pytest.mark.parametrize(("op", "memory", "register"), LOCKED, ids=lambda value: str(value))
def test_a_locked_op_changes_memory_and_returns_what_was_there(op: str, memory: int, register: int) -> None:
    body = f"let r = {op}\nold = r"
    assert found(body, ask=f"v == {memory} and old == {register}") == "allowed"
    assert found(body, ask=f"v != {memory} or old != {register}") == "forbidden"


@pytest.mark.parametrize("op", [op for op, *_ in LOCKED])
def test_a_locked_op_publishes_earlier_stores(op: str) -> None:
    def sb(between: str) -> str:
        columns = "\n\n".join(
            f"cpu {me}\n  {mine} = 1\n  {between}\n  let r = {theirs}\n  r{me} = r\n  fence\n  d{me} = 1"
            for me, mine, theirs in ((0, "x", "y"), (1, "y", "x"))
        )
        names = ("x", "y", "r0", "r1", "d0", "d1")
        declared = "\n".join(f"  var {name} : 1 bit, shared, starts 0" for name in names)
        return (
            f'litmus sb\n  exists "d0 == 1 and d1 == 1 and r0 == 0 and r1 == 0"\n{declared}\n'
            f"  var v : 4 bits, shared, starts 5\n\n{columns}\n"
        )

    assert tc.litmus(sb(op)).found == "forbidden"
    assert tc.litmus(sb("sfence")).found == tc.litmus(sb("lfence")).found == "allowed"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("bts v, 4", "`v` has bits 0 to 3: there is no bit 4"),
        ("v = 16", "`v` has 4 bits: 16 does not fit"),
        ("v = 65536", "a constant is at most 65535: got 65536"),
        ("sub v, 16", "`v` has 4 bits: 16 does not fit"),
    ],
)
def test_what_a_variable_cannot_hold_is_refused_with_its_place(body: str, said: str) -> None:
    with pytest.raises(tc.PolicyError, match=f"^litmus:7:.*{said}"):
        found(body)


def test_a_difference_below_zero_does_not_wrap() -> None:
    assert found("sub v, 6") == "inconclusive: overflow"


@pytest.mark.parametrize("value", [255, 256, 4096, 65535])
def test_constants_have_sixteen_bits(value: int) -> None:
    of = {"var": f"16 bits, shared, starts {value - 1}"}
    assert (
        found(
            f"let r = cas v, {value - 1}, {value}\nold = r", ask=f"v == {value} and old == {value - 1}", **of
        )
        == "allowed"
    )
    assert found(f"v = {value}\nfence\nif v <= {value - 1}\n  old = 1", ask="old == 1", **of) == "forbidden"
    assert found(f"v = {value}\nfence\nif v > {value - 1}\n  old = 1", ask="old != 1", **of) == "forbidden"
    assert found(f"await v >= {value}", **of) == "violated: deadlock"


@pytest.mark.parametrize("name", ["2+2W", "MP+mfence+po", "n1", "6.SB", "CoRR"])
def test_a_test_is_called_what_the_field_calls_it(name: str) -> None:
    assert tc.litmus(f"litmus {name}\n  var x : 1 bit, shared, starts 0\n\ncpu 0\n  x = 1\n").name == name


def test_both_machines_and_the_slow_explorer_carry_out_every_word() -> None:
    lines = "\n".join(f"  {op.replace('v', 'n')}" for op, *_ in LOCKED if op != "xchg v, 2")
    policy = tc.Policy(
        text=f"""policy words
  "Every locked op on a variable of its own."
  based on ipi
  var n : 16 bits, per cpu, starts 900

to_kernel
  mov cr3, kernel noflush
  n = 900
{lines}
  sfence
  if n > 65000
    n = 0
"""
    )
    load = tc.scenarios.syscall_heavy(duration_s=0.001)
    assert tc.simulate(load, machine="skylake-sp", policy=policy).total("syscalls") > 0
    roles = "purge; isolated 1"
    assert tc.check(policy, roles=roles, assume={"D": "none"}).status == "verified"
    assert explore(policy, roles=roles, assume={"fills": "demand"}).status == "verified"


def undecided(ask: str, body: str) -> str:
    lines = "\n".join(f"  {line}" for line in body.splitlines())
    return f'litmus a\n  exists "{ask}"\n  var v : 4 bits, shared, starts 0\n\ncpu 0\n{lines}\n'


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        ("if either\n  v = 1\nelse\n  v = 2", {1, 2}),
        ("if not either\n  v = 1", {0, 1}),
        ("if either and either\n  v = 1\nelse\n  v = 2", {1, 2}),
        ("loop\n  inc v\n  if either or v == 3\n    break", {1, 2, 3}),
        ("if either\n  v = 1\nif v == 1\n  v = 4", {0, 4}),
    ],
)
def test_an_undecided_branch_goes_every_way_in_every_search(body: str, ends: set[int]) -> None:
    for end in range(5):
        text = undecided(f"v == {end}", body)
        wanted = "allowed" if end in ends else "forbidden"
        assert tc.litmus(text).found == tc.litmus(text, reduce=False).found == wanted, end
        assert explore_litmus(text).found == wanted, end


def test_the_run_says_which_way_was_taken() -> None:
    for end, word in ((1, "yes"), (2, "no")):
        shown = tc.litmus(undecided(f"v == {end}", "if either\n  v = 1\nelse\n  v = 2"))
        assert f"0.take:{word}" in shown.schedule.split()
        assert f"if either: {word}" in shown.text


def test_a_run_with_undecided_branches_is_carried_out_again_by_both_machines() -> None:
    text = """policy p
  "Flushes on one way, which nothing decides."
  based on coalesce-v7-fixed

flush_all_here
  if not either
    invpcid all-including-global
"""
    run = tc.check(tc.Policy(text=text)).counterexample
    assert "take:yes" in run.schedule
    assert run.replay() == run.rule


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("while either\n  fence", "4:9: `either` stands in `if` alone"),
        ("while not (v or either)\n  fence", "`either` stands in `if` alone"),
        ("let either = 1", "`either` is a test that nothing decides"),
    ],
)
def test_an_undecided_branch_is_no_loop_and_no_name(body: str, message: str) -> None:
    lines = "\n".join(f"  {line}" for line in body.splitlines())
    with pytest.raises(tc.PolicyError, match=re.escape(message)):
        _core.policy_code(f"policy p\n  var v : 1 bit, per cpu\nto_kernel\n{lines}\n", "p", [])


def test_the_timed_machine_goes_the_first_way() -> None:
    """One policy that flushes on its first way, and one that does on its second."""
    head = 'policy {}\n  "x"\n  based on ipi\n\nto_kernel\n  mov cr3, kernel noflush\n  if either\n'
    flush, none = "    invpcid all-including-global\n", "    lfence\n"
    first = tc.Policy(text=head.format("first") + flush + "  else\n" + none)
    second = tc.Policy(text=head.format("second") + none + "  else\n" + flush)
    load = tc.scenarios.syscall_heavy(duration_s=0.001)
    flushes = {}
    for policy in (first, second):
        run = tc.simulate(load, machine="skylake-sp", policy=policy)
        flushes[policy.name] = run.total("entry_flushes_needed") + run.total("entry_flushes_unneeded")
    assert flushes["first"] > flushes["second"] == 0
    assert ":: true -> skip :: true -> goto" in first.promela()


@pytest.mark.parametrize(
    ("flush", "verdict"),
    [
        ([], "violated: stale_access (reused)"),
        (["invlpg a"], "violated: stale_access (reused)"),  # of this CPU alone
        (["invlpgb a", "tlbsync"], "verified"),
        (["invlpgb a final", "tlbsync"], "verified"),
        (["invlpgb a asid 0", "tlbsync"], "verified"),
        (["invlpgb a asid 0 final", "tlbsync"], "verified"),
        (["invlpgb a asid 1", "tlbsync"], "violated: stale_access (reused)"),  # the other CPU runs in ASID 0
    ],
)
def test_a_broadcast_of_one_page_reaches_what_another_cpu_holds_of_its_asid(
    flush: list[str], verdict: str
) -> None:
    lines = "".join(f"  {line}\n" for line in flush)
    text = f"""litmus replaced
  verdict "verified"
  page a : vmalloc
  var go : 1 bit, shared, starts 0
  var used : 1 bit, shared, starts 0

cpu 0
  await used == 1
  pte a = fresh
  request a
{lines}  promise a
  go = 1

cpu 1
  read a
  xchg used, 1
  await go == 1
  read a
"""
    assert tc.litmus(text).found == verdict
    assert tc.litmus(text, reduce=False).found == verdict
