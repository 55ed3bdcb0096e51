"""Calibration: figures are plausible and the preset it writes loads, however fast the machine is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import _calibrate, _core
from tlbcore._calibrate import Calibration, Figure, machine_text


def test_a_chain_is_followed_and_one_that_leaves_its_buffer_does_not_crash():
    chain = np.array([1, 2, 0, 99], dtype=np.uint32)

    assert _core.calibrate_chase(chain, 0, 1000) > 0
    assert _core.calibrate_chase(chain, 3, 1000) > 0
    with pytest.raises(tc.ConfigError, match="no measuring loop"):
        _core.calibrate_loop("rdtsc", 1)


def test_steady_takes_the_least_and_tells_when_it_never_settles():
    falling = iter([5.0, 3.0, 3.01, 9.0, 3.02])
    assert _calibrate._steady(lambda: next(falling)) == (3.0, True)
    wild = iter(np.geomspace(100, 1, 30))
    assert _calibrate._steady(lambda: next(wild))[1] is False


def figure(name: str, value: float, unit: str, stable: bool = True) -> Figure:
    return Figure(name=name, value=value, unit=unit, stable=stable, about="a test")


def test_only_stable_figures_become_costs_and_the_preset_loads():
    found = Calibration(
        figures={
            f.name: f
            for f in (
                figure("clock_mhz", 3000, "MHz"),
                figure("stlb_hit_cycles", 7.2, "cycles"),
                figure("membarrier_ns_1", 900, "ns", stable=False),
                figure("getpid_ns", 100, "ns"),
            )
        },
        curve={},
        cpu=1,
        hypervisor=True,
        predicted_getpid_ns=90,
        seconds=1,
    )

    text = machine_text(found, "zen4-epyc")
    preset = tc.Machine(name="calibrated.toml", text=text)

    assert preset.mhz == 3000
    assert (preset.costs["stlb_hit"].cycles, preset.costs["stlb_hit"].mark) == (7, "measured")
    assert preset.costs["ipi_first"].mark == tc.machines["zen4-epyc"].costs["ipi_first"].mark == "predicted"
    assert "unstable" in text
    assert found.getpid_error == pytest.approx(-0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="measures Linux")
def test_the_command_measures_this_machine_and_writes_its_preset(tmp_path: Path):
    out = tmp_path / "machine.toml"

    run = subprocess.run(
        [sys.executable, "-m", "tlbcore", "calibrate", "--out", out, "--json"],
        capture_output=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    figures = {f["name"]: f["value"] for f in document["figures"]}
    assert 200 < figures["clock_mhz"] < 10_000
    assert all(value >= 0 for value in figures.values())
    assert document["seconds"] < 60
    assert tc.machine(out).mhz == round(figures["clock_mhz"])


def test_a_cpu_this_process_may_not_use_is_refused():
    with pytest.raises(tc.ConfigError, match="may run on CPUs"):
        _calibrate.calibrate(cpu=8000)
