"""Every entry path of the kernel against the clock (FACTS 1.3)."""

from __future__ import annotations

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios

MACHINE = "broadwell-ep-e5-2699v4"
PATHS = [
    "syscall",
    "syscall_compat",
    "sysenter_compat",
    "exception",
    "exception_espfix",
    "exception_bad_iret",
]


def loop(by: str, policy: str, **options) -> tc.SimResult:
    """An isolated CPU that enters by one path, 100 ns of work each time."""
    call = scenarios.syscalls("isolated", base_ns=2000.0, gap_ns=1000.0, by=by)
    load = tc.Scenario(
        name="paths", duration_s=0.01, cpus=2, isolated=(1,), actors=(scenarios.spin((0,)), call)
    )
    return tc.simulate(load, machine=MACHINE, policy=policy, **options)


def mean_ns(run: tc.SimResult) -> float:
    return run.total("kernel_ps", isolated=True) / run.total("syscalls", isolated=True) / 1000


def test_a_policy_pays_once_for_each_switch_to_the_kernel_cr3_of_the_path():
    switches = dict.fromkeys(PATHS, 1) | {"exception_espfix": 2, "exception_bad_iret": 2}
    one = mean_ns(loop("syscall", "coalesce-v7")) - 2000
    assert one > 300, "an INVPCID and the pages walked again"
    for by, count in switches.items():
        assert mean_ns(loop(by, "ipi")) == pytest.approx(2000, abs=1), by
        run = loop(by, "coalesce-v7")
        calls = run.total("syscalls", isolated=True)
        flushes = run.total("entry_flushes_unneeded", isolated=True)
        assert flushes == pytest.approx(count * calls, rel=0.01), by
        assert (mean_ns(run) - 2000 > 1.4 * one) == (count == 2), by


def test_skipping_and_detail_change_no_count_of_any_path():
    for by in PATHS:
        fast, slow = (loop(by, "coalesce-v7-fixed", skip=skip) for skip in (True, False))
        for name, column in fast.table.items():
            assert column.tobytes() == slow.table[name].tobytes(), (by, name)
        assert loop(by, "coalesce-v7-fixed", detail="full").total("entry_flushes_unneeded") > 1000


def faulting(by: str = "exception", **changes) -> tc.SimResult:
    """A spinning CPU and one that calls, both with 10,000 faults a second."""
    load = tc.Scenario(
        name="faults",
        duration_s=0.5,
        cpus=3,
        isolated=(1, 2),
        actors=(
            scenarios.spin((0, 1)),
            scenarios.syscalls((2,), base_ns=5000.0, gap_ns=5000.0),
            scenarios.faults("isolated", rate_hz=10_000, by=by),
            scenarios.interrupts("isolated", rate_hz=1000, cause="tick", poisson=False),
        ),
    )
    return tc.simulate(load, **({"machine": MACHINE, "policy": "coalesce-v7"} | changes))


def test_faults_are_the_task_s_own_doing_and_each_enters_the_kernel():
    run = faulting()
    faults = run.table["faults"]
    assert faults[0] == 0
    assert 4700 < faults[1] < 5300
    assert 4700 < faults[2] < 5300
    # A tick in the body of a fault interrupts nobody's user mode.
    ticks = run.table["interference"][1]
    assert 0.9 * run.table["interrupts_tick"][1] < ticks < run.table["interrupts_tick"][1]
    assert run.table["entry_flushes_unneeded"][1] == faults[1] + ticks
    whole = sum(int(run.table[name][1]) for name in ("user_ps", "kernel_ps", "interrupt_ps"))
    assert whole == 500_000_000_000


def test_a_return_through_espfix_switches_twice_and_a_bad_iret_enters_twice():
    for by in ("exception_espfix", "exception_bad_iret"):
        run = faulting(by)
        ticks = run.table["interference"][1]
        assert run.table["entry_flushes_unneeded"][1] == 2 * run.table["faults"][1] + ticks


def test_faults_are_the_same_with_and_without_skipping():
    fast, slow = (faulting(skip=skip) for skip in (True, False))
    for name, column in fast.table.items():
        assert column.tobytes() == slow.table[name].tobytes(), name


def test_nmis_take_their_three_entries_and_only_two_of_them_switch_cr3():
    call = scenarios.syscalls("isolated", base_ns=400.0, gap_ns=200.0)
    nmis = scenarios.nmis("isolated", rate_hz=50_000, body_us=1.0)
    load = tc.Scenario(
        name="nmis", duration_s=0.2, cpus=2, isolated=(1,), actors=(scenarios.spin((0,)), call, nmis)
    )
    machine = tc.machine(MACHINE)
    pair = 2 * machine.costs["mov_cr3_noflush"].cycles / machine.mhz * 1e6
    seen = {}
    for policy in ("ipi", "coalesce-v7"):
        run = tc.simulate(load, machine=machine, policy=policy, timeline=100_000)
        took = run.timeline["duration_ps"][run.timeline["cause"] == "nmi"]
        seen[policy] = np.unique(took)
    # From user mode; from the kernel with the user CR3, which saves and restores it; with the kernel CR3.
    assert len(seen["ipi"]) == 3
    gaps = np.subtract.outer(seen["ipi"], seen["ipi"]).ravel()
    assert np.abs(gaps - pair).min() < pair / 4
    flush = machine.costs["invpcid_all"].cycles / machine.mhz * 1e6
    assert seen["coalesce-v7"].min() == pytest.approx(seen["ipi"].min(), rel=0.01), (
        "with the kernel CR3: nothing"
    )
    assert seen["coalesce-v7"].max() - seen["ipi"].max() >= flush * 0.99


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: loop("int80", "ipi"), "unknown variant `int80`"),
        (lambda: faulting("syscall"), "a fault enters as an exception, not by syscall"),
        (
            lambda: scenarios.quiet().replace(actors=(scenarios.faults((1,), rate_hz=1),)),
            "CPU 1 has no user mode",
        ),
        (lambda: scenarios.faults(rate_hz=float("nan")), "a rate must be a finite number"),
    ],
)
def test_paths_that_cannot_be_are_refused(make, rule):
    with pytest.raises(tc.SimError, match=rule):
        make()


@pytest.mark.parametrize("kept", [1, 7, 100_000])
def test_a_timeline_keeps_the_last_events_of_each_cpu_and_counts_the_others(kept: int):
    nmis = scenarios.nmis("isolated", rate_hz=2_000, body_us=1.0)
    load = tc.Scenario(
        name="nmis", duration_s=0.05, cpus=3, isolated=(1, 2), actors=(scenarios.spin((0,)), nmis)
    )
    whole = tc.simulate(load, machine=MACHINE, timeline=1_000_000)
    assert whole.timeline_dropped == 0
    run = tc.simulate(load, machine=MACHINE, timeline=kept)

    left = 0
    for cpu in range(3):
        all_of_it = whole.timeline["time_ps"][whole.timeline["cpu"] == cpu].tolist()
        assert run.timeline["time_ps"][run.timeline["cpu"] == cpu].tolist() == all_of_it[-kept:]
        left += max(len(all_of_it) - kept, 0)
    assert run.timeline_dropped == left
    assert (left > 100) == (kept < 10)
