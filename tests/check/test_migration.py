"""A task that is preempted and goes on on another CPU: `migrate` (SEMANTICS L11)."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore, explore_litmus

CASES = sorted((Path(__file__).parents[1] / "litmus" / "casebook").glob("c19-*.litmus"))


def found(text: str) -> str:
    """What every form of search finds, which must be the same."""
    by = [tc.litmus(text, reduce=reduce).found for reduce in (True, False)] + [explore_litmus(text).found]
    assert len(set(by)) == 1, by
    return by[0]


def ends(
    body: str, ask: str, others: str = "cpu 1\n  lfence\n", var: str = "2 bits, per cpu, starts 0"
) -> str:
    lines = "\n".join(f"  {line}" for line in body.splitlines())
    head = f'litmus a\n  exists "{ask}"\n  var v : {var}\n  var seen : 2 bits, shared, starts 3\n'
    return found(f"{head}\ncpu 0\n{lines}\n\n{others}")


HERE = "v = 1\n{}\nlet r = v\nseen = r"


@pytest.mark.parametrize(
    ("between", "reads"),
    [
        ("fence", {1}),  # this CPU's own copy
        ("migrate", {0, 1}),  # CPU 1's copy; CPU 0's where CPU 1 does not rest yet
        ("if either\n  migrate", {0, 1}),
        ("migrate\nmigrate", {0, 1}),  # there and back
        ("cli\nmigrate\nsti", {1}),  # with interrupts off nothing preempts
    ],
)
def test_me_is_the_cpu_where_the_op_is_carried_out(between: str, reads: set[int]) -> None:
    for value in (0, 1, 2):
        wanted = "allowed" if value in reads else "forbidden"
        assert ends(HERE.format(between), f"seen == {value}") == wanted, value


def test_a_local_goes_with_the_task() -> None:
    body = "let r = 1\nv = 1\nmigrate\nseen = r"
    assert ends(body, "seen == 1") == "allowed"
    assert ends(body, "seen == 0") == "forbidden"


@pytest.mark.parametrize(("how", "expected"), [("migrate", "forbidden"), ("lfence", "allowed")])
def test_a_switch_publishes_what_was_stored_before(how: str, expected: str) -> None:
    """Store buffering, once with a context switch between the store and the load on either side."""
    column = "cpu {0}\n  {1} = 1\n  {3}\n  let r = {2}\n  r{0} = r\n  fence\n  d{0} = 1\n"
    names = ("x", "y", "r0", "r1", "d0", "d1")
    head = 'litmus sb\n  exists "d0 == 1 and d1 == 1 and r0 == 0 and r1 == 0"\n  assume "fills=demand"\n'
    head += "".join(f"  var {name} : 1 bit, shared, starts 0\n" for name in names)
    columns = [column.format(0, "x", "y", how), column.format(1, "y", "x", how), "cpu 2\n  lfence\n"]
    assert found(head + "\n" + "\n".join(columns)) == expected


ACKS = """litmus acks
  verdict "verified"
  page a : vmalloc

cpu 0
  pte a = none locked
  request a
  invlpg a
  ipi others, flush_a
  {}
  promise a
  pte a = fresh locked

cpu 1
  lfence

cpu 2
  lfence

flush_a
  invlpg a
"""


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        ("await acks", "verified"),
        ("if either\n    migrate\n  await acks", "verified"),
        ("await acks\n  migrate", "verified"),
        ("if either\n    migrate", "violated: stale_access (reused)"),
    ],
)
def test_acknowledgements_come_to_the_task_wherever_it_is(wait: str, expected: str) -> None:
    assert found(ACKS.format(wait).replace("\n\ncpu 2\n  lfence", "")) == expected
    assert tc.litmus(ACKS.format(wait)).found == expected


def test_the_cpu_that_the_task_left_runs_another_one() -> None:
    """Two senders and a CPU at rest: the second comes to the CPU of the first, and changes its copy under it."""
    text = """litmus two
  exists "{}"
  assume "fills=demand"
  var mask : 2 bits, per cpu, starts 0
  var seen : 2 bits, shared, starts 0

cpu 0
  mask = 1
  migrate
  migrate
  let m = mask
  seen = m

cpu 1
  migrate
  mask = 2

cpu 2
  lfence
"""
    for value, expected in ((1, "allowed"), (2, "allowed"), (3, "forbidden")):
        assert found(text.format(f"seen == {value}")) == expected, value


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_the_case_has_one_verdict_in_every_search(file: Path) -> None:
    assert len(CASES) == 2
    assert found(file.read_text(encoding="utf-8")) == tc.litmus(file).stated


def test_a_run_with_a_switch_is_told_and_replayed() -> None:
    shown = tc.litmus(CASES[1] if "fixed" in CASES[0].stem else CASES[0])
    assert "pick:1" in shown.schedule
    assert "migrate: cpu 1" in shown.text


def test_rounds_beside_a_task_that_migrates_are_refused() -> None:
    text = 'litmus rounds\n  cpus "purge*2; vunmap"\n  based on ipi\n\npurge\n  migrate\n'
    with pytest.raises(tc.TlbcoreError, match="each CPU that tasks can go to runs one program once"):
        tc.litmus(text)
    with pytest.raises(NotImplementedError, match="rounds beside a task"):
        explore_litmus(text)


def test_a_policy_of_a_sender_that_migrates_stands_on_both_machines() -> None:
    head = (
        'policy moved\n  "x"\n  based on ipi\n  var mask : 1 bit, per cpu, starts 0\n\nflush_kernel_range\n'
    )
    send = "  flush_here\n  mask = 1\n  each cpu in others\n    put cpu into targets\n  ipi targets, flush_handler\n"
    go = "  if either\n    migrate\n"
    right = tc.Policy(text=head + send + go + "  await acks\n")
    wrong = tc.Policy(text=head + send + go + "  if mask == 1\n    await acks\n")
    roles = "purge; idle_once"
    idle = "\nidle_once\n  lfence\n"
    for policy, status in ((right, "verified"), (wrong, "violated")):
        policy = tc.Policy(text=policy.text + idle, programs=("idle_once",))
        assert tc.check(policy, roles=roles, world="pti").status == status
        assert tc.check(policy, roles=roles, world="pti", reduce=False).status == status
        assert explore(policy, roles=roles).status == status
        with pytest.raises(tc.PolicyError, match="migrate"):
            policy.promela()
    found = tc.check(policy, roles=roles, world="pti")
    assert found.counterexample.replay() == found.counterexample.rule


def drawn(number: int) -> str:
    """A random text of two or three columns in which tasks go elsewhere."""
    rng = random.Random(f"migrate/{number}")
    lines = [
        "migrate", "migrate", "if either\n    migrate", "v = 1", "v = 0", "x = 1", "fence", "xchg v, 1", "invlpg a",
        "let r = v\n  x = r", "ipi others, h\n  await acks", "ipi others, h", "await acks", "pte a = none locked",
        "request a", "promise a", "pte a = fresh locked", "let s = x\n  if s == 1\n    v = 1", "cli", "sti",
        "request a\n  invlpg a\n  ipi others, h\n  await acks\n  promise a",
    ]  # fmt: skip
    columns = [
        f"\ncpu {n}\n" + "".join(f"  {rng.choice(lines)}\n" for _ in range(rng.randint(1, 6 - 2 * n)))
        for n in range(rng.choice((2, 2, 3)))
    ]
    ask = rng.choice(("", "", '  exists "x == 1"\n', '  never "x == 1"\n'))
    handler = rng.choice(("invlpg a", "lfence", "v = 1", "x = 1", "invlpg a\n  v = 0"))
    head = f"litmus m{number}\n{ask}  page a : vmalloc\n"
    head += "  var v : 1 bit, per cpu, starts 0\n  var x : 1 bit, shared, starts 0\n"
    return head + "".join(columns) + f"\nh\n  {handler}\n"


def explorers_agree(count: int, most: int) -> dict[str, int]:
    seen: dict[str, int] = {}
    for number in range(count):
        text = drawn(number)
        try:
            _core.policy_code(text, "litmus", [])
        except tc.PolicyError:
            continue
        plain, reduced = (tc.litmus(text, reduce=reduce, memory=1 << 20) for reduce in (False, True))
        if plain.found.startswith("inconclusive") or plain.states > most:
            continue
        assert plain.found == reduced.found, text
        slow = explore_litmus(text, limit=4 * most)
        if slow.status == "inconclusive":
            continue
        if slow.found != plain.found:
            slow = explore_litmus(text, every=True)
            rule = {"allowed": "invariant"}.get(plain.found, plain.found.removeprefix("violated: "))
            assert rule in slow.rules, (number, text, plain.text, slow)
        seen[plain.found] = seen.get(plain.found, 0) + ("migrate" in text)
    return seen


def test_random_texts_in_which_tasks_migrate_come_to_the_same_in_every_search() -> None:
    seen = explorers_agree(400, 500)
    assert sum(seen.values()) >= 40, seen
    assert {"verified", "allowed", "forbidden", "violated: stale_access (reused)"} <= seen.keys(), seen


@pytest.mark.slow
def test_many_random_texts_in_which_tasks_migrate_do() -> None:
    assert sum(explorers_agree(5000, 5000).values()) > 1000


def test_the_language_says_what_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy-language.md").read_text(encoding="utf-8")
    assert re.search(r"^\| `migrate` \|", page, re.MULTILINE)


ISOLATED = """litmus isolated
  cpus "{}"

purge
{}
"""


@pytest.mark.parametrize(
    ("roles", "steps", "expected"),
    [
        (
            "isolated purge; vunmap",
            "pte range = none locked; migrate; request range; migrate; ipi others, flush_handler; migrate; flush_here;"
            " await acks; promise range; migrate; pte range = fresh",  # who sent and who flushed are two
            "violated: stale_access (reused)",
        ),
        (
            "isolated purge; vunmap",
            "migrate; request range; ipi others, flush_handler; flush_here; await acks; promise range",
            "verified",
        ),
    ],
)
def test_a_sender_on_an_isolated_cpu_goes_on_elsewhere(roles: str, steps: str, expected: str) -> None:
    """Nobody comes to such a CPU, but its own task leaves it."""
    text = ISOLATED.format(roles, "\n".join(f"  {step.strip()}" for step in steps.split(";")))
    assert tc.litmus(text).found == tc.litmus(text, reduce=False).found == expected


@pytest.mark.parametrize(
    "text",
    [
        ISOLATED.format("purge; isolated 1", "  request range\n  flush_here\n  promise range")
        + "\nsyscall\n  to_kernel\n  migrate\n  to_user\n",
        'litmus deaf\n  deaf "0"\n  page k : vmalloc\n\ncpu 0\n  migrate\n  read k\n\ncpu 1\n  lfence\n',
    ],
)
def test_a_task_that_came_from_user_mode_and_one_that_nothing_interrupts_are_not_modelled(text: str) -> None:
    with pytest.raises(
        tc.PolicyError, match=r"user mode, or whose CPU takes no interrupts.*not modelled.*L11"
    ):
        tc.litmus(text)
