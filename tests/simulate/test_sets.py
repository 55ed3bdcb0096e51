"""Whom each word for a set of CPUs reaches, and how long a policy waits for a variable: four CPUs, two isolated."""

from __future__ import annotations

import pytest
from test_statistics import SPIN, actor, load, machine, steps

import tlbcore as tc

SETS = {
    "online": {0, 1, 2, 3},
    "others": {0, 1, 2, 3},
    "housekeeping": {0, 1},
    "nohz_full": {2, 3},
    "flush_mask": {2, 3},
}


@pytest.mark.parametrize("sender", [0, 2])
@pytest.mark.parametrize("word", SETS)
def test_a_word_for_a_set_means_its_cpus(word: str, sender: int) -> None:
    """Those that are asked are interrupted once; the sender asks only others."""
    policy = tc.Policy(
        text=f"""policy some
  "Asks the CPUs of one set."
  source "made up"

flush_kernel_range
  each cpu in others
    if cpu in {word}
      put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks
"""
    )
    result = tc.simulate(
        load(SPIN, steps("vunmap", 3, sender, us=1000), us=1500), machine=machine(), policy=policy
    )
    wanted = [int(cpu in SETS[word] and cpu != sender) for cpu in range(4)]
    assert result.table["interrupts"].tolist() == wanted


def test_a_wait_for_a_variable_ends_when_it_is_set_and_is_no_deadlock() -> None:
    """CPU 0 unmaps at 1 ms and waits; CPU 2 comes into the kernel at 1.2 ms and says so."""
    policy = tc.Policy(
        text="""policy told
  "Waits until somebody has come into the kernel."
  source "made up"
  var done : 1 bit, shared

to_kernel
  mov cr3, kernel noflush
  done = 1

flush_kernel_range
  done = 0
  await done == 1
  flush_here
"""
    )
    scenario = load(
        actor("spin", 0, 1, 3),
        actor("syscalls", 2, us=1200, base_ps=50_000_000, kernel_pages=0, user_pages=0, by="syscall"),
        steps("vunmap", 3, 0, us=1000),
        us=1500,
    )
    result = tc.simulate(scenario, machine=machine(), policy=policy)
    assert result.table["violations"].sum() == 0
    assert result.table["kernel_ps"][0] > 200e6
