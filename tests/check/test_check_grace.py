"""Walks in software and grace periods: what each word means, worked out by hand, in both explorers."""

from __future__ import annotations

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore_litmus

VARS = "".join(
    f"  var {name} : 1 bit, shared, starts {starts}\n"
    for name, starts in (("x", 0), ("y", 0), ("before", 0), ("after", 0), ("late", 1))
)


def both(header: str, *columns: str, more: str = "") -> str:
    """Return what the checker finds, reduced and not, and the second explorer."""
    programs = "".join(
        f"\ncpu {n}\n" + "".join(f"  {line}\n" for line in column.split("; "))
        for n, column in enumerate(columns)
    )
    text = f'litmus grace\n  verdict "verified"\n{header}{VARS}{programs}{more}'
    found = {tc.litmus(text, reduce=reduce).found for reduce in (True, False)}
    found.add(explore_litmus(text).found)
    found = {"inconclusive" if said.startswith("inconclusive") else said for said in found}
    assert len(found) == 1, found
    return found.pop()


# A reader that did not see x = 1 has ended before `after` is set: it sees y = 0.
READS = '  exists "before == 1 and late == 0"\n'
READER = "{}; let a = x; if a == 0\n    before = 1; let b = y; if b == 1\n    late = 0; {}"
WRITER = "x = 1; {}; y = 1"


@pytest.mark.parametrize(
    ("section", "wait", "found"),
    [
        (("rcu lock", "rcu unlock"), "synchronize", "forbidden"),
        (("cli", "sti"), "synchronize", "forbidden"),
        (("lfence", "lfence"), "synchronize", "allowed"),
        (("rcu lock", "rcu unlock"), "fence", "allowed"),
        (("rcu unwatch; rcu lock", "rcu unlock"), "synchronize", "allowed"),
        (("rcu unwatch; cli", "sti"), "synchronize", "allowed"),
        (("rcu unwatch; rcu watch; cli", "sti"), "synchronize", "forbidden"),
    ],
)
def test_a_grace_period_waits_for_sections_that_rcu_watches(
    section: tuple[str, str], wait: str, found: str
) -> None:
    assert both(READS, WRITER.format(wait), READER.format(*section)) == found


def test_what_a_section_stored_is_visible_when_the_grace_period_is_over() -> None:
    asks = '  exists "before == 1 and late == 0"\n'
    reader = "rcu lock; let a = x; if a == 0\n    before = 1; y = 1; rcu unlock"
    waits = "x = 1; {}; let c = y; if c == 0\n    late = 0"
    # `before` is stored ahead of y: a writer that misses y came before both, or did not wait.
    assert both(asks, waits.format("synchronize"), reader) == "forbidden"
    assert both(asks, waits.format("fence"), reader) == "allowed"


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("rcu lock; synchronize; rcu unlock", "violated: deadlock"),
        ("cli; synchronize; sti", "violated: deadlock"),
        ("rcu lock; rcu unlock; synchronize", "forbidden"),
        ("rcu unwatch; rcu lock; synchronize; rcu unlock", "forbidden"),
    ],
)
def test_who_waits_in_a_section_of_its_own_waits_for_ever(column: str, found: str) -> None:
    assert both('  exists "x == 1"\n', column, "lfence") == found


def test_what_is_called_later_runs_after_the_sections_and_not_in_the_caller() -> None:
    later = "\nset_y\n  y = 1\n"
    assert both(READS, "x = 1; call later set_y", READER.format("cli", "sti"), more=later) == "forbidden"
    assert both(READS, "x = 1; call later set_y", READER.format("lfence", "lfence"), more=later) == "allowed"
    # The caller goes on before it has run.
    goes_on = "call later set_y; let b = y; if b == 0\n    late = 0"
    assert both('  exists "late == 0 and y == 1"\n', goes_on, "lfence", more=later) == "allowed"
    # It runs some day.
    assert both('  exists "y == 0"\n', "call later set_y", "lfence", more=later) == "forbidden"


def test_more_than_two_that_wait_are_inconclusive() -> None:
    later = "\nset_y\n  y = 1\n"
    calls = "cli; " + "; ".join(["call later set_y"] * 3) + "; sti"
    assert both('  exists "x == 1"\n', calls, "lfence", more=later) == "inconclusive"
    two = "cli; " + "; ".join(["call later set_y"] * 2) + "; sti"
    assert both('  exists "x == 1"\n', two, "lfence", more=later) == "forbidden"


def test_a_section_in_a_section_is_inconclusive() -> None:
    found = both('  exists "x == 1"\n', "rcu lock; rcu lock; rcu unlock; synchronize", "lfence")
    assert found == "inconclusive"


WALK = '  features "pcid invpcid invlpgb"\n  page p : vmalloc\n'
FLUSH = "request p; invlpgb p; tlbsync; promise p"


@pytest.mark.parametrize(
    ("writer", "walker", "found"),
    [
        (f"table p = none locked; {FLUSH}; free table p", "walk entries of p", "violated: freed_table_read"),
        (
            f"table p = none locked; {FLUSH}; synchronize; free table p",
            "cli; walk entries of p; sti",
            "verified",
        ),
        # The memory is somebody else's, and the walk has the old entry: no flush reaches it.
        ("pte p = none locked; pte p = fresh", "walk p", "violated: stale_access (reused)"),
        (f"pte p = none locked; {FLUSH}; pte p = fresh", "walk entries of p", "verified"),
        (f"pte p = none locked; {FLUSH}", "walk p", "violated: stale_access (not_reused)"),
        (
            f"pte p = none locked; {FLUSH.replace('promise', 'synchronize; promise')}",
            "cli; walk p; sti",
            "verified",
        ),
        (
            f"pte p = none locked; {FLUSH}",
            "mov cr3, user noflush; walk p; mov cr3, kernel",
            "violated: unmapped_access",
        ),
    ],
)
def test_a_walk_keeps_what_it_has_loaded(writer: str, walker: str, found: str) -> None:
    features = WALK.replace("pcid", "pti pcid", 1) if "user" in walker else WALK
    assert both(features, writer, walker) == found


def test_a_walk_behind_its_own_buffered_entry_is_inconclusive() -> None:
    column = f"pte p = none; walk p; {FLUSH}"
    assert both(WALK, column, "lfence") == "inconclusive"
    assert both(WALK, column.replace("none", "none locked"), "lfence") == "verified"


@pytest.mark.parametrize(
    ("writer", "found"),
    [
        # S3: a table that is freed was relied on, whatever was promised: that alone is a question ...
        ("table p = none; invlpgb p; tlbsync; free table p", "verified"),
        ("table p = none; free table p", "violated: freed_table_walk"),
        ("free table p", "violated: freed_table_walk"),
        # ... if a run comes to it; and an entry that changes is none.
        ("table p = none; if x == 1\n    free table p", "inconclusive"),
        ("table p = none; invlpgb p; tlbsync", "inconclusive"),
    ],
)
def test_a_table_that_is_freed_is_something_asked(writer: str, found: str) -> None:
    assert both(WALK, writer, "lfence") == found


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("walk q", "`q` is neither `range` nor a declared page"),
        ("walk leaf of p", "`walk` takes a page, or `entries of` a page, not `leaf of p`"),
        ("rcu start", "`rcu` takes lock, unlock, watch or unwatch, not `start`"),
        ("call later nobody", "`ipi` or `call later` names the section `nobody`, which is not defined"),
    ],
)
def test_what_cannot_be_read_is_named(line: str, said: str) -> None:
    with pytest.raises(tc.PolicyError, match=said):
        tc.litmus(f'litmus bad\n  verdict "verified"\n  page p : vmalloc\n\ncpu 0\n  {line}\n')


def test_a_cpu_in_user_mode_runs_nothing_later() -> None:
    text = (
        'litmus offloaded\n  verdict "verified"\n  cpus "purge; isolated 1 by syscall"\n\nset\n  lfence\n\n'
        "syscall\n  mov cr3, kernel noflush\n  call later set\n  mov cr3, user noflush\n"
    )
    with pytest.raises(tc.PolicyError, match="its callbacks run on other CPUs"):
        tc.litmus(text)


# A process with a walk in it beside somebody who frees its page tables.
FREES = """litmus frees
  verdict "verified"
  based on {policy}
  features "pcid invpcid invlpgb"

cpu 0
  flush_mm_tables_then_free

cpu 1
  let next = 2
  cli
  switch_mm_irqs_off
  sti
  process_runs
  let next = 0
  cli
  switch_mm_irqs_off
  sti
"""


@pytest.mark.parametrize(
    ("policy", "more", "found"),
    [
        ("tables-by-rcu", "", "verified"),
        ("tables-at-once", "", "violated: freed_table_read"),
        # With interrupts on nothing holds the grace period up.
        ("tables-by-rcu", "\ngup_fast\n  walk entries of u\n", "violated: freed_table_read"),
    ],
)
def test_page_tables_wait_for_gup_fast_if_its_interrupts_are_off(policy: str, more: str, found: str) -> None:
    text = FREES.format(policy=policy) + more
    assert tc.litmus(text).found == found
    plain, slow = tc.litmus(text, reduce=False), explore_litmus(text)
    assert plain.found == slow.found == found
    assert found != "verified" or plain.states == slow.states == 3090
