"""Simulated time goes on, or the result says where it does not; what was done survives whatever ends the run."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc

MACHINE = "broadwell-ep"

WAITS = """policy waits
  "Entry code waits for a value that nobody writes; written for this test."
  source "own"
  needs pti
  based on coalesce-v7

to_kernel
  mov cr3, kernel noflush
  await kernel_cr3_loaded == 1
"""

EVERYBODY = """policy everybody
  "Entry code interrupts every CPU and waits, with interrupts off; written for this test."
  source "own"
  needs pti

to_kernel
  mov cr3, kernel noflush
  flush_all
"""


def test_two_cpus_that_ask_for_each_others_time_get_there():
    load = tc.scenarios.user_shootdown(cpus=4, isolated="2-3", rate_hz=20_000, duration_s=0.01)
    result = tc.simulate(load, machine="sapphire-rapids")
    assert (result.duration_s, result.violation) == (0.01, None)
    assert result.total("user_flush_requests") > 100


@pytest.mark.parametrize("seed", range(30))
def test_every_scenario_ends_for_any_cpus_isolation_machine_and_policy(seed: int):
    draw = random.Random(seed)
    name = draw.choice(["user-shootdown", "pthread-churn", "spawn-storm", "syscall-heavy", "kernel-build"])
    cpus = draw.choice([2, 3, 4, 5, 8, 33, 56, 57, 64])
    isolated = draw.choice([f"{cpus - 1}", f"{max(1, cpus // 2)}-{cpus - 1}"])
    load = tc.scenarios.by_name(name, cpus=cpus, isolated=isolated, duration_s=0.002)
    machine = draw.choice(["sapphire-rapids", MACHINE, "zen4-epyc", "skylake-sp"])
    result = tc.simulate(load, machine=machine, policy=draw.choice(list(tc.policies)), seed=seed)
    assert result.duration_s == pytest.approx(0.002)


def test_entry_code_that_waits_for_every_cpu_with_interrupts_off_is_refused(tmp_path: Path):
    file = tmp_path / "mine.policy"
    file.write_text(EVERYBODY)
    with pytest.raises(tc.PolicyError, match=r"mine\.policy:8:3: `\w+` waits here for other CPUs"):
        tc.simulate("syscall-heavy", machine=MACHINE, policy=file)


@pytest.mark.parametrize("name", ["syscall-heavy", "user-shootdown"])
def test_a_policy_that_waits_for_ever_is_a_deadlock_with_its_place_however_short_the_run(
    tmp_path: Path, name: str
):
    file = tmp_path / "mine.policy"
    file.write_text(WAITS)
    load = tc.scenarios.by_name(name, cpus=4, isolated="2-3", duration_s=0.01)
    result = tc.simulate(load, machine=MACHINE, policy=file)
    assert result.violation is not None
    assert result.violation.startswith("deadlock on CPU ")
    assert "mine.policy:9" in result.violation
    assert result.duration_s == 0.01


def test_a_run_that_ends_while_somebody_waits_for_an_acknowledgement_is_no_deadlock():
    load = tc.scenarios.user_shootdown(cpus=8, isolated="7", rate_hz=50_000, duration_s=0.001)
    for seed in range(20):
        assert tc.simulate(load, machine="sapphire-rapids", seed=seed).violation is None


def test_a_purge_that_has_to_wait_is_tried_once_a_second_and_after_a_free_however_many_there_were() -> None:
    """Each free after a postponed purge left one more retry behind: work grew with the square of a run's length."""
    load = tc.Scenario(
        name="waits", duration_s=20, cpus=4, isolated=(2, 3), lazy_max_pages=100,
        actors=(
            tc.scenarios.spin("all"),
            tc.Actor(name="frees", on=(0,), kind="vfree", params={
                "gap": {"mean_ps": 10**11, "exponential": False}, "pages": 60, "then": [], "apart_ps": 0,
                "roams_ps": None,
            }),
        ),
    )  # fmt: skip
    run = tc.simulate(load, machine=MACHINE, policy="quarantine")
    # A free every 0.1 s, of which the second is one too many: at most one try for each of the 199, and one a second.
    assert 19 <= run.total("purges_postponed") <= 199 + 20
    assert run.total("purges") == run.total("purges_postponed")


@pytest.mark.parametrize("rate", [1e12, 1.1e9])
def test_a_rate_without_a_gap_is_refused(rate: float):
    with pytest.raises(tc.SimError, match=r"rate must be at most 1e\+09 per second"):
        tc.scenarios.spawn_storm(rate_hz=rate)


def test_means_are_exact():
    load = tc.scenarios.syscall_heavy(duration_s=0.02)
    result = tc.simulate(load, machine=MACHINE)
    h = result.latencies["syscall_isolated"]
    isolated = result.table["isolated"]
    kernel, calls = (result.table[name][isolated].sum() for name in ("kernel_ps", "syscalls"))
    # At most one call per CPU runs at the end: its time is the kernel's and it is no call yet.
    assert h["count"] == calls
    assert h["mean_ps"] * h["count"] == pytest.approx(float(kernel), abs=float(isolated.sum()) * h["max_ps"])
    assert abs(h["mean_ps"] - h["p50_ps"]) < 0.02 * h["p50_ps"]
    entry = result.latencies["entry_isolated"]
    assert entry["mean_ps"] % 1000 != 0 or entry["mean_ps"] != entry["p50_ps"]


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    file = tmp_path / "run.checkpoint"

    def stop(*_: float) -> None:
        raise KeyboardInterrupt

    load = tc.scenarios.syscall_heavy(duration_s=120.0)
    assert tc.simulate(load, machine=MACHINE, skip=False, checkpoint=file, progress=stop).interrupted
    return file


def test_a_checkpoint_with_one_bit_flipped_is_refused_wherever_it_was(stopped: Path):
    data = stopped.read_bytes()
    load = tc.scenarios.syscall_heavy(duration_s=120.0)
    places = np.random.default_rng(1).integers(0, 8 * len(data), 60)
    for place in places.tolist():
        bad = bytearray(data)
        bad[place // 8] ^= 1 << place % 8
        stopped.write_bytes(bad)
        with pytest.raises(tc.SimError, match="checkpoint: "):
            tc.simulate(load, machine=MACHINE, checkpoint=stopped)


@pytest.mark.parametrize("what", ["simulation", "comparison", "tlb", "sweep"])
def test_a_pickle_with_one_bit_flipped_is_refused_wherever_it_was(what: str):
    load = tc.scenarios.syscall_heavy(duration_s=0.001, cpus=4)
    if what == "tlb":
        made: object = tc.Tlb("peers-64x4-1536x12")
        made.access(np.arange(3000, dtype=np.uint64) % 700)
    elif what == "sweep":
        made = tc.sweep("syscall-heavy", {"gap_ns": [1.0]}, fixed={"duration_s": 0.001})
    elif what == "comparison":
        made = tc.compare(load, machine=MACHINE, policies=["ipi", "coalesce-v7"])
    else:
        made = tc.simulate(load, machine=MACHINE)
    data = pickle.dumps(made)
    again = pickle.loads(data)
    assert type(again) is type(made)
    kept = pickle.dumps(again)
    places = np.random.default_rng(2).integers(0, 8 * len(data), 200)
    for place in places.tolist():
        bad = bytearray(data)
        bad[place // 8] ^= 1 << place % 8
        try:
            other = pickle.loads(bytes(bad))
        except Exception:  # any refusal will do; pickle has many
            continue
        # A flip in pickle's own frame may change nothing.
        assert pickle.dumps(other) == kept


def test_a_checkpoint_is_replaced_as_a_whole(tmp_path: Path, stopped: Path, monkeypatch):
    before = stopped.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def stop(*_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", full)
    load = tc.scenarios.syscall_heavy(duration_s=120.0)
    with pytest.raises(OSError, match=r"No space left.*run\.checkpoint"):
        tc.simulate(load, machine=MACHINE, skip=False, checkpoint=stopped, progress=stop)
    assert stopped.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.checkpoint"]


LONG = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
import tlbcore as tc
load = tc.scenarios.syscall_heavy(duration_s=3000.0)
print("on", flush=True)
tc.simulate(load, machine="broadwell-ep", skip=False, checkpoint=sys.argv[1], every_s=0.2)
print("not reached")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_its_checkpoint(tmp_path: Path, number: signal.Signals):
    file = tmp_path / "run.checkpoint"
    process = subprocess.Popen([sys.executable, "-c", LONG, str(file)], stdout=subprocess.PIPE, text=True)
    with process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (number != signal.SIGKILL or file.exists()):
            time.sleep(0.05)
        if number != signal.SIGKILL:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            time.sleep(0.5)
        os.kill(process.pid, number)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == -number
    assert "not reached" not in printed
    load = tc.scenarios.syscall_heavy(duration_s=3000.0)
    seen: list[float] = []

    def stop(done: float, _total: float) -> None:
        seen.append(done)
        if done > 0:
            raise KeyboardInterrupt

    assert tc.simulate(load, machine=MACHINE, skip=False, checkpoint=file, progress=stop).duration_s > 0
