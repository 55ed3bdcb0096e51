"""The fast checker and the slow explorer agree on mutants of the built-in policies."""

from __future__ import annotations

import random
import re

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.reference.explorer import explore, explore_litmus

BLOCKS = ("if ", "else", "while ", "loop", "each ")


def mutate(policy: tc.Policy, rng: random.Random) -> str:
    """Return the canonical text with one line of its programs changed."""
    lines = policy.canonical.splitlines()
    body = [
        i
        for i, line in enumerate(lines)
        if line.startswith("  ") and i > lines.index("") and not line.strip().startswith(BLOCKS)
    ]
    return "\n".join(mutate_line(lines, rng, body))


def mutate_line(lines: list[str], rng: random.Random, body: list[int]) -> list[str]:
    """Return the lines with one of `body` dropped, moved, followed by a fence or made atomic or plain."""
    lines = list(lines)
    i = rng.choice(body)
    line = lines[i]
    indent = line[: len(line) - len(line.lstrip())]
    match rng.randrange(5):
        case 0:
            lines[i] = f"{indent}lfence"  # dropped; the block is not left empty
        case 1:
            same = [j for j in body if j > i and lines[j].startswith(indent) and "" not in lines[i:j]]
            j = same[0] if same else i
            lines[i], lines[j] = (
                indent + lines[j].strip(),
                lines[j][: len(lines[j]) - len(lines[j].lstrip())] + line.strip(),
            )
        case 2:
            lines[i] = f"{line}\n{indent}fence"
        case 3:
            name, equals, value = line.strip().partition(" = ")
            atomic = equals and not name.startswith(("let ", "pte ", "table "))
            lines[i] = f"{indent}xchg {name}, {value}" if atomic else line
        case _:
            lines[i] = line.replace(" locked", "").replace("xchg ", "or ", 1)
    return lines


def parsed(text: str) -> bool:
    try:
        tc.Policy(text=text)
    except tc.PolicyError:
        return False
    return True


def assembled(text: str) -> bool:
    """Whether it is a policy still: a line that moved may name a local before it has a value."""
    try:
        policy = tc.Policy(text=text)
        _core.check_worlds(policy.text, policy.file)
    except tc.PolicyError:
        return False
    return True


def test_a_mutant_that_reads_a_local_before_its_definition_is_none() -> None:
    lines = 'policy p\n  "p"\n\nct_enter\n  let owed = 1\n  let more = owed\n'
    first, second = lines.splitlines()[-2:]

    assert assembled(lines)
    assert not assembled(lines.replace(f"{first}\n{second}", f"{second}\n{first}"))


def mutants(count: int, seed: int, defers: str = "flush") -> list[tuple[str, dict[str, str]]]:
    """Return texts with the assumptions to check them under."""
    rng = random.Random(seed)
    asked = "purge" if defers == "flush" else "text_poke"
    names = [
        name
        for name, policy in tc.policies.items()
        if policy.sections
        and policy.defers == (defers,)
        and asked in _core.check_initiators(policy.text, policy.file)
    ]
    out: list[tuple[str, dict[str, str]]] = []
    while len(out) < count:
        text = mutate(tc.policies[rng.choice(names)], rng)
        if not assembled(text):
            continue
        assume = {"invpcid": "publishes" if rng.random() < 0.3 else "ordered", "D": "none", "N": "none"}
        if defers == "flush":
            assume["D"] = rng.choice(("none", "recycled"))
        else:
            assume["T"] = rng.choice(("instr", "danger", "noinstr"))
        out.append((text, assume))
    return out


def agree(
    count: int,
    seed: int,
    *,
    initiator: str = "purge",
    path: str = "",
    asids: int = 1,
    most: int | None = None,
) -> None:
    """Compare on so many mutants; with `most` on those whose plain search has no more states."""
    seen = []
    # With two ASIDs one path into the kernel: by any of them Python's search takes minutes.
    roles = f"{initiator}; isolated 1{f' by {path}' if path else ''}"
    drawn = mutants(count if most is None else 12 * count, seed, "flush" if initiator == "purge" else "sync")
    for text, assume in drawn:
        policy = tc.Policy(text=text)
        if asids > 1:
            assume["range"] = "pages"
        if (
            most is not None
            and tc.check(policy, roles=roles, assume=assume, asids=asids, reduce=False).states > most
        ):
            continue
        slow = explore(policy, roles=roles, asids=asids, assume=assume)
        fast = tc.check(policy, roles=roles, assume=assume, asids=asids)
        assert fast.status == slow.status, f"{assume}: {slow.violation} {slow.schedule}\n{text}"
        if fast.counterexample is not None:
            assert fast.counterexample.replay() == fast.counterexample.rule
        seen.append(fast.status)
        if len(seen) == count:
            break
    assert len(seen) == count
    assert {"verified", "violated"} <= set(seen)


KERNEL = dict(_core.policy_kernel())["contexts.kernel"]
SECTION = re.compile(r"^(\w+)( @ .*)?\n((?:  .*\n|\n|#.*\n)+)", re.MULTILINE)
SWITCHING = {match[1]: match[3] for match in SECTION.finditer(KERNEL) if match[1] != "kernel"}
FLUSHER = """
cpu 0
  let mm = 2
  pte range = none locked
  request range
  flush_tlb_mm_range
  promise range
"""
SWITCHERS = (
    "  cli\n  let next = 2\n  switch_mm_irqs_off\n  sti\n  read u\n",
    "  cli\n  let next = 2\n  switch_mm_irqs_off\n  let next = 0\n  switch_mm_irqs_off\n  sti\n"
    "  cli\n  let next = 2\n  switch_mm_irqs_off\n  sti\n  read u\n",
    "  cli\n  let next = 2\n  switch_mm_irqs_off\n  sti\n  enter_lazy\n  cli\n  let next = 2\n"
    "  switch_mm_irqs_off\n  mov cr3, user owed\n  read u\n  mov cr3, kernel noflush\n  sti\n",
)


def contexts(count: int, seed: int) -> list[str]:
    """Litmus tests of memory contexts, each with one line of the kernel's switching or flushing changed."""
    rng = random.Random(seed)
    out: list[str] = []
    while len(out) < count:
        column = rng.choice(SWITCHERS)
        name = rng.choice(sorted(SWITCHING))
        lines = [line for line in SWITCHING[name].splitlines() if line.startswith("  ")]
        changed = mutate_line(
            lines, rng, [i for i, line in enumerate(lines) if not line.strip().startswith(BLOCKS)]
        )
        text = (
            f'litmus mutant-{len(out)}\n  page u : user of 2\n  asids "{rng.choice((1, 2))}"\n'
            f'  assume "range={rng.choice(("full", "pages"))}"\n{FLUSHER}\ncpu 1\n{column}\n{name}\n'
            + "\n".join(changed)
            + "\n"
        )
        if parsed(text):
            out.append(text)
    return out


def contexts_agree(count: int, seed: int) -> None:
    seen = set()
    for text in contexts(count, seed):
        slow, fast = explore_litmus(text), tc.litmus(text)
        assert fast.found.split(":")[0] == slow.status, f"{slow.violation} {slow.schedule}\n{text}"
        seen.add(slow.status)
    assert {"verified", "violated"} <= seen


def test_both_explorers_agree_on_flushes() -> None:
    agree(2, seed=4, most=4000)  # of this seed's mutants some are verified and some violated
    agree(2, seed=4, path="syscall", most=5000)


def test_both_explorers_agree_on_ranged_flushes_with_two_asids() -> None:
    agree(3, seed=4, path="syscall", asids=2, most=2000)


def test_both_explorers_agree_on_syncs_of_patched_text() -> None:
    agree(4, seed=6, initiator="text_breakpoint", path="syscall", most=16_000)


def test_both_explorers_agree_on_switches_of_contexts() -> None:
    contexts_agree(5, seed=28)


@pytest.mark.slow
def test_both_explorers_agree_on_many_random_mutants() -> None:
    agree(800, seed=2)
    agree(100, seed=8, path="syscall", asids=2)
    agree(100, seed=9, initiator="text_poke")
    contexts_agree(200, seed=10)


def forms_agree(count: int, seed: int) -> None:
    """Plain, reduced (fused and, with three CPUs, symmetric) and parallel searches say the same of each mutant."""
    seen = set()
    for number, (text, assume) in enumerate(mutants(count, seed)):
        policy = tc.Policy(text=text)
        cpus = 3 if number % 10 == 0 else 2
        plain, reduced, parallel = (
            tc.check(policy, cpus=cpus, entries=1, assume=assume, reduce=reduce, threads=threads)
            for reduce, threads in ((False, 1), (True, 1), (True, 2))
        )
        assert parallel.to_dict() == reduced.to_dict(), text
        assert plain.status == reduced.status, f"{assume}, {cpus} CPUs\n{text}"
        assert reduced.states <= plain.states or reduced.status == "violated"
        for verdict in (plain, reduced):
            if (found := verdict.counterexample) is not None:
                assert found.replay() == found.rule, text
        if plain.counterexample is not None and reduced.counterexample is not None:
            # Of entry paths that come to the same one is followed, which may take more moves than another.
            shortest, printed = len(plain.counterexample.steps), len(reduced.counterexample.steps)
            assert shortest <= printed, text
        seen.add(plain.status)
    assert {"verified", "violated"} <= seen


def test_every_form_of_search_agrees_on_random_mutants() -> None:
    forms_agree(30, seed=3)


@pytest.mark.slow
def test_every_form_of_search_agrees_on_ten_thousand_random_mutants() -> None:
    forms_agree(10_000, seed=4)
