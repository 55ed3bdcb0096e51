"""Syncs of text patching in the timed engine: who is interrupted, who catches up, and when."""

from __future__ import annotations

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios

CPU = "broadwell-ep-e5-2699v4"
FORMS = ["text-defer-v7", "text-sync-cr3-reconstructed", "text-sync-tri-state"]


def batches(**parameters: float) -> tc.Scenario:
    """26 isolated CPUs of 44, and static keys that flip now and then."""
    return scenarios.text_poke(duration_s=15.0, static_keys_hz=1.0, kprobes_hz=0.0, **parameters)


def test_one_batch_interrupts_26_isolated_cpus_78_times() -> None:
    # NUMBERS 12: "78 = 3 x 26 is one text-poke batch".
    run = tc.simulate(batches(), policy="ipi", machine=CPU, seed=1)
    n = run.total("sync_requests") // 3

    assert run.total("sync_requests") == 3 * n > 0
    assert run.total("calls_executed", isolated=True) == 78 * n
    assert run.total("interrupts_text_poke", isolated=True) == 78 * n
    assert run.total("sync_deferrals") == 0


@pytest.mark.parametrize("policy", FORMS)
def test_a_cpu_in_user_mode_is_left_alone_and_the_sync_counted(policy: str) -> None:
    mainline = tc.simulate(batches(), policy="ipi", machine=CPU, seed=1)
    run = tc.simulate(batches(), policy=policy, machine=CPU, seed=1)

    assert run.total("ipis_received", isolated=True) == 0
    assert run.total("sync_deferrals", isolated=True) == mainline.total("calls_executed", isolated=True)
    assert run.total("deferrals") == 0, "a sync is no flush"
    housekeeping = mainline.total("calls_executed", isolated=False)
    assert run.total("calls_executed", isolated=False) == housekeeping > 0


@pytest.mark.parametrize("policy", FORMS)
def test_the_next_kernel_entry_catches_up_before_ordinary_code_runs(policy: str) -> None:
    work = batches(calls_hz=500.0)
    run = tc.simulate(work, policy=policy, machine=CPU, seed=2)
    every = tc.simulate(work, policy=policy, machine=CPU, seed=2, skip=False)

    assert run.total("sync_deferrals") > 0
    assert 0 < run.total("syncs_caught_up") <= run.total("sync_deferrals")
    assert run.total("text_hazards") == 0
    assert all(np.array_equal(run.table[name], every.table[name]) for name in run.table)


def test_a_sync_that_nobody_makes_up_for_is_a_hazard() -> None:
    lost = tc.policies["text-defer-v7"].replace(name="lost", ct_enter="or ct_state, 1")
    run = tc.simulate(batches(calls_hz=500.0), policy=lost, machine=CPU, seed=2, kernel=tc.Kernel(pti=False))

    assert run.total("text_hazards") > 0


def test_a_kprobe_is_one_sync_to_arm_and_one_to_disarm() -> None:
    work = scenarios.text_poke(duration_s=20.0, static_keys_hz=0.0, kprobes_hz=0.5, cpus=4, isolated="2-3")
    run = tc.simulate(work, policy="ipi", machine=CPU, seed=1)

    assert run.total("sync_requests") % 2 == 0
    assert run.total("calls_executed", isolated=True) == 2 * run.total("sync_requests") > 0
