"""Runs of a few events whose figures are worked out by hand, beside those of `test_statistics.py`."""

from __future__ import annotations

import pytest
from tests.simulate.test_statistics import actor, load, machine, steps, tasks

import tlbcore as tc


def rows(run: tc.SimResult, name: str) -> list[int]:
    return [int(value) for value in run.table[name]]


def test_before_any_request_a_flush_of_its_range_is_a_whole_one():
    """The entry flushes what was asked last; nobody has asked anything."""
    policy = tc.Policy(
        text="""policy at-entry
  "x"
  based on ipi

to_kernel
  if feature pti
    mov cr3, kernel noflush
  flush_here
"""
    )
    calls = actor("syscalls", 2, us=400, base_ps=50_000_000, kernel_pages=7, user_pages=5, by="syscall")
    run = tc.simulate(load(actor("spin", 0, 1, 3), calls, us=1500), machine=machine(), policy=policy)
    # At 400, 850 and 1,300 us.
    assert rows(run, "syscalls") == [0, 0, 3, 0]
    assert rows(run, "entry_flushes_unneeded") == [0, 0, 3, 0]


@pytest.mark.parametrize("also", [[], [{"do": "unmap", "pages": 0}]])
def test_a_switch_that_flushes_is_no_local_flush_whatever_was_asked_before(also: list[dict[str, object]]):
    """Eight processes in turn at 100, 200, ..., 900 us find their ASID taken; nine pages are walked again each time."""
    spin = actor("spin", 0, 1, 2, 3, user_pages=9)
    scenario = load(spin, tasks(0, us=100, do=[*also, {"do": "switch"}], processes=8), us=950)
    run = tc.simulate(scenario, machine=machine())
    assert rows(run, "mm_switches_flushed") == [9, 0, 0, 0]
    assert rows(run, "local_flushes") == [9 * len(also), 0, 0, 0]
    assert rows(run, "refill_misses_other") == [81, 0, 0, 0]
    assert rows(run, "refill_misses_local") == [0, 0, 0, 0]


def test_a_flush_by_a_write_of_cr3_is_local_here_and_remote_there():
    """Nine times a process of two threads is unmapped as a whole; nine pages are walked again each time."""
    spin = actor("spin", 0, 1, 2, 3, user_pages=9)
    unmaps = tasks(0, us=100, do=[{"do": "unmap", "pages": 0}], also=(2,), shared=True)
    run = tc.simulate(load(spin, unmaps, us=950), machine=machine())
    assert rows(run, "local_flushes") == [9, 0, 0, 0]
    assert rows(run, "remote_flushes") == [0, 0, 9, 0]
    assert rows(run, "refill_misses_local") == [81, 0, 0, 0]
    assert rows(run, "refill_misses_remote") == [0, 0, 81, 0]
    assert rows(run, "refill_misses_other") == [0, 0, 0, 0]


def who_is_called(mark: int, who: int, us: float) -> list[int]:
    """Six CPUs, of which 2 to 5 are isolated, in one socket; `who` calls the kernel at `us`, CPU 0 unmaps at 1 ms.

    Senders leave out whoever has ever come into the kernel. Each of the four variables takes all of its 16 bits.
    """
    policy = tc.Policy(
        text=f"""policy four
  "x"
  based on ipi
  var came : 16 bits, per cpu, starts 0
  var b : 16 bits, per cpu, starts 0
  var c : 16 bits, per cpu, starts 0
  var d : 16 bits, per cpu, starts 0

to_kernel
  if feature pti
    mov cr3, kernel noflush
  came = {mark}

flush_kernel_range
  each cpu in nohz_full
    if came[cpu] == 0
      put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks
"""
    )
    others = [cpu for cpu in range(6) if cpu != who]
    calls = actor("syscalls", who, us=us, base_ps=50_000_000, kernel_pages=7, user_pages=5, by="syscall")
    scenario = tc.Scenario(
        name="few",
        duration_s=1500e-6,
        cpus=6,
        isolated=(2, 3, 4, 5),
        actors=(actor("spin", *others), calls, steps("vunmap", 3, 0, us=1000)),
    )
    return rows(tc.simulate(scenario, machine=machine(), policy=policy), "ipis_received")


@pytest.mark.parametrize("mark", [1, 1 << 13, 1 << 15])
@pytest.mark.parametrize("who", [2, 3, 4, 5])
def test_cpus_that_differ_in_one_bit_of_four_words_are_told_apart(mark: int, who: int):
    assert who_is_called(mark, who, 400) == [int(cpu >= 2 and cpu != who) for cpu in range(6)]


@pytest.mark.parametrize("who", [2, 3, 4, 5])
def test_a_loop_over_cpus_that_look_the_same_does_not_run_ahead_of_one_that_comes_in(who: int):
    """SYSCALL, SWAPGS, CR3 and the store take 47 + 29 + 103 + 1 ns: in 0.2 us it is in before the loop begins."""
    everyone = [0, 0, 1, 1, 1, 1]
    left_out = [int(cpu >= 2 and cpu != who) for cpu in range(6)]
    assert who_is_called(1, who, 999.8) == left_out
    assert who_is_called(1, who, 1002.5) == everyone


@pytest.mark.parametrize("calls", [1, 2, 3, 10])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_call_that_ends_within_a_picosecond_of_the_end_is_one_call(calls: int, after: int):
    """The first way to user mode takes 1 + 103 + 29 ns (CR3, SWAPGS); then a call ends every 400 + 50 us."""
    every = actor("syscalls", 2, us=400, base_ps=50_000_000, kernel_pages=7, user_pages=5, by="syscall")
    end = 133_000 + calls * 450_000_000
    run = tc.simulate(load(actor("spin", 0, 1, 3), every, us=(end + after) / 1e6), machine=machine())
    assert rows(run, "syscalls") == [0, 0, calls, 0]
    assert rows(run, "user_ps")[2] == end + after - calls * 50_000_000


@pytest.mark.parametrize("us", [950, 1450, 1950])
@pytest.mark.parametrize(("pti", "pages"), [(False, 9), (True, 11)])
def test_a_process_that_comes_back_finds_its_pages_where_pcids_keep_them(pti: bool, pages: int, us: int):
    """Two processes in turn each 100 us, of nine pages each; of the kernel's two, which are global without PTI."""
    scenario = load(
        actor("spin", 0, 1, 2, 3, user_pages=9), tasks(0, us=100, do=[{"do": "switch"}], processes=2), us=us
    )
    switches = us // 100
    for nopcid in (False, True):
        kernel = tc.Kernel(pti=pti, nopcid=nopcid)
        run = tc.simulate(scenario, machine=machine(), detail="full", kernel=kernel)
        assert rows(run, "mm_switches")[0] == switches
        assert rows(run, "mm_switches_flushed")[0] == (switches if nopcid else 1)
        kept = 2 * 9 + (3 if pti else 2)  # with PTI the entry page has a translation in each half
        left = pages * (switches + 1) + (0 if pti else 2)
        assert rows(run, "refill_misses")[0] == (left if nopcid else kept), nopcid
