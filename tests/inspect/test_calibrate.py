"""`calibrate`: what becomes of measured figures, and that a quick run ends in a machine that loads.

No test asserts a time: fits are tested on made-up curves (in the core), the result on made-up figures.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.cli import main
from tlbcore.inspect import inspect_host
from tlbcore.inspect.calibration import _base, _result

GUEST = Path(__file__).parents[1] / "data" / "host-zen4-guest"


def figures(**changes: float | None) -> dict[str, object]:
    """Return a report as the core makes it; a figure given as None is left out."""
    values: dict[str, float | None] = {
        "cpu.mhz": 3700.0,
        "costs.lock": 2.3,
        "l1.entries": 72.0,
        "l1.sets": 1.0,
        "costs.stlb_hit": 1.9,
        "walk": 11.2,
        "l2.entries": 2900.0,
        "costs.mem_l1": 1.08,
        "costs.mem_l2": 3.8,
        "costs.mem_l3": 11.0,
        "costs.mem_dram": 140.0,
        "getppid": 117.0,
        "getuid": 98.0,
        "getgid": 98.0,
        "getpid": 105.0,
        "membarrier_first": 8300.0,
    }
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return {
        "measurements": [
            (key, value, "ns", 0.01, True, 8, 0, "made up") for key, value in values.items() if value
        ],
        "pages": [64.0, 16.0, 80.0],
        "ns": [0.1, 0.0, 1.9],
        "cpu": 1,
        "others": [0],
        "missing": [],
        "taken_share": 0.01,
        "steal_share": None,
    }


def calibrated(found: dict[str, object], base: str = "zen4-epyc") -> tc.Calibration:
    return _result(found, inspect_host(GUEST), tc.machines[base], "as asked", None)


def structure(machine: tc.Machine, level: int, name: str) -> tuple[int, int]:
    found = next(s for s in machine.levels[level]["structures"] if s["name"] == name)
    return found["sets"], found["ways"]


def test_measured_figures_become_costs_with_their_mark_and_the_rest_is_inherited():
    made = calibrated(figures())
    assert made.machine.mhz == 3700
    assert made.machine.costs["stlb_hit"].cycles == 7
    assert made.machine.costs["stlb_hit"].mark == "measured"
    assert made.machine.costs["mem_l1"].cycles == 4
    assert made.machine.costs["ipi_first"].cycles == round(8300 * 3.7)
    # 11.2 + 1.9 - 3.8 ns: with one read from the L2 a walk costs again what was measured.
    assert made.machine.costs["walk_setup"].cycles == round(9.3 * 3.7)
    assert made.machine.costs["walk_setup"].mark == "fitted"
    base = tc.machines["zen4-epyc"].costs
    assert made.machine.costs["invpcid_all"].mark == base["invpcid_all"].mark == "predicted"
    inherited = {key for key, _, _ in made.inherited}
    assert "costs.invpcid_all" in inherited
    assert "costs.stlb_hit" not in inherited
    assert not made.machine.invlpgb_extra  # the guest does not show INVLPGB


def test_a_bracket_around_the_nominal_second_level_keeps_it_and_a_different_size_replaces_it():
    assert structure(calibrated(figures()).machine, 1, "l2-dtlb-4k") == (128, 24)
    assert structure(calibrated(figures(l2__entries=2000.0)).machine, 1, "l2-dtlb-4k") == (128, 16)


@pytest.mark.parametrize(
    ("entries", "sets", "base", "name", "shape"),
    [
        (72.0, 1.0, "zen4-epyc", "dtlb", (1, 72)),
        (96.0, 1.0, "zen4-epyc", "dtlb", (1, 96)),
        (64.0, 16.0, "skylake-sp", "dtlb-4k", (16, 4)),
        (96.0, 16.0, "skylake-sp", "dtlb-4k", (16, 6)),
    ],
)
def test_the_first_level_is_what_was_measured(entries, sets, base, name, shape):
    made = calibrated(figures(l1__entries=entries, l1__sets=sets), base)
    assert structure(made.machine, 0, name) == shape
    fact = next(fact for fact in made.machine.facts if fact.key == f"{name}.entries")
    assert fact.mark == "measured"


def test_a_figure_that_did_not_settle_is_shown_but_not_taken_over():
    found = figures()
    rows = found["measurements"]
    assert isinstance(rows, list)
    at = next(i for i, row in enumerate(rows) if row[0] == "costs.stlb_hit")
    rows[at] = (*rows[at][:4], False, *rows[at][5:])
    made = calibrated(found)
    base = tc.machines["zen4-epyc"]
    assert made.machine.costs["stlb_hit"].cycles == base.costs["stlb_hit"].cycles
    assert any("costs.stlb_hit did not settle" in caveat for caveat in made.caveats)
    # What is computed from it did not settle either.
    assert made.machine.costs["walk_setup"].cycles == base.costs["walk_setup"].cycles
    used = dict(zip(made.figures["key"].tolist(), made.figures["used"].tolist(), strict=True))
    assert not used["costs.stlb_hit"]
    assert used["costs.mem_l2"]


def test_a_busy_machine_is_told_with_the_hypervisors_own_account():
    quiet, busy = figures(), figures() | {"taken_share": 0.4, "steal_share": 0.25}
    assert not any("busy with other things" in caveat for caveat in calibrated(quiet).caveats)
    made = calibrated(busy)
    assert any("busy with other things 40% of the time; 25%" in caveat for caveat in made.caveats)
    assert (made.taken_share, made.steal_share) == (0.4, 0.25)
    # Every run may agree on a wrong figure where others use the same caches and memory all the time.
    stable = dict(zip(made.figures["key"].tolist(), made.figures["stable"].tolist(), strict=True))
    assert not any(stable[key] for key in ("walk", "costs.mem_l3", "costs.mem_dram", "costs.walk_setup"))
    assert stable["l1.entries"]
    assert stable["costs.mem_l1"]
    assert made.machine.costs["mem_dram"].mark != "measured"
    assert calibrated(quiet).machine.costs["mem_dram"].mark == "measured"
    assert np.isnan(calibrated(quiet).steal_share)


def test_a_third_level_as_slow_as_memory_is_not_believed():
    made = calibrated(figures(costs__mem_l3=130.0))
    assert made.machine.costs["mem_l3"].cycles == tc.machines["zen4-epyc"].costs["mem_l3"].cycles
    assert any("mem_l3" in caveat for caveat in made.caveats)


def test_a_missing_figure_is_missing_and_the_machine_still_loads():
    made = calibrated(figures(walk=None, l2__entries=None, cpu__mhz=None, getpid=None))
    assert made.machine.mhz == tc.machines["zen4-epyc"].mhz
    assert np.isnan(made.getpid_ns)


def test_getpid_is_predicted_from_the_other_calls_only():
    first, second = calibrated(figures()), calibrated(figures(getpid=500.0))
    assert first.getpid_predicted_ns == second.getpid_predicted_ns == 98.0
    assert first.getpid_error == pytest.approx(98 / 105 - 1)


def test_a_guest_is_told_what_its_hypervisor_distorts():
    assert any("hypervisor" in caveat for caveat in calibrated(figures()).caveats)


@pytest.mark.parametrize("name", ['a "quoted" name', "tab\tand\nnewline", "back\\slash", "µ\x7f"])
def test_any_name_gives_a_file_that_parses(name):
    made = _result(figures(), inspect_host(GUEST), tc.machines["zen4-epyc"], "as asked", name)
    assert _core.machine_describe("x", made.toml)["name"] == name


def test_the_curve_is_sorted_by_pages():
    curve = calibrated(figures()).curve
    assert curve["pages"].tolist() == [16, 64, 80]
    assert curve["ns"].tolist() == [0.0, 0.1, 1.9]


# The real thing, quickly.


def test_a_quick_run_ends_in_a_machine_that_loads_and_translates(tmp_path):
    told: list[tuple[float, float | None]] = []
    made = tc.calibrate(seconds=0.3, base="zen4-epyc", progress=lambda *args: told.append(args))
    stages = len(_core.calibrate_stages())
    assert told == [(stage, stages) for stage in range(stages)]
    path = tmp_path / "machine.toml"
    path.write_text(made.toml)
    machine = tc.machine(path)
    assert machine.title.endswith("calibrated")
    assert tc.Tlb(machine).access(np.arange(4, dtype=np.uint64)) is not None
    values = made.figures["value"]
    assert np.isfinite(values).all()
    assert {"cpu.mhz", "getpid", "thread_life"} <= set(made.figures["key"].tolist())


def test_an_interrupt_ends_a_long_run():
    def interrupt(_done: float, _total: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tc.calibrate(seconds=600, progress=interrupt)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.19, 600.5, float("nan"), float("inf"), 1e9])
def test_a_time_out_of_range_is_refused(seconds):
    with pytest.raises(tc.ConfigError, match="seconds must be between"):
        tc.calibrate(seconds=seconds)


def test_a_base_that_is_no_builtin_machine_is_refused(tmp_path):
    with pytest.raises(tc.TlbError, match="no machine is called"):
        tc.calibrate(seconds=0.2, base="zen44")
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ninherits = "zen4-epyc"\n')
    with pytest.raises(tc.TlbError, match="base must be a built-in machine"):
        tc.calibrate(seconds=0.2, base=str(path))


def test_a_cpu_that_may_not_be_used_is_refused():
    with pytest.raises(OSError, match="may not run on cpu 65000"):
        tc.calibrate(seconds=0.2, cpu=65000)


def test_the_command_writes_a_machine_and_prints_json(tmp_path, capsys):
    path = tmp_path / "machine.toml"
    assert main(["calibrate", "--seconds", "0.3", "--base", "zen4-epyc", "--out", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["version"]) == ("tlbcore.calibrate", 1)
    assert document["base"] == "zen4-epyc"
    assert tc.machine(path).text == path.read_text()
    assert main(["machines", str(path)]) == 0
    assert "tlbcore calibrate" in capsys.readouterr().out


def test_the_command_refuses_bad_input_in_one_line(tmp_path, capsys):
    for arguments in (["--cpu", "65000"], ["--seconds", "0"], ["--out", str(tmp_path / "no" / "m.toml")]):
        assert main(["calibrate", "--seconds", "0.2", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


# Where each of these rules begins.


def report(rows: dict[str, dict[str, object]], **changes: object) -> dict[str, object]:
    """Return a report some of whose rows differ: `value`, `spread`, `stable`, `runs`, `preempted`."""
    names = ("key", "value", "unit", "spread", "stable", "runs", "preempted", "how")
    made = figures() | changes
    made["measurements"] = [
        tuple((dict(zip(names, row, strict=True)) | rows.get(row[0], {})).values())
        for row in figures()["measurements"]  # type: ignore[attr-defined]
    ]
    return made


def test_a_cost_reaches_from_the_value_to_the_value_and_its_spread():
    """A walk without its read takes the widest spread of the three that it is computed from."""
    made = calibrated(
        report({"costs.lock": {"spread": 0.5}, "costs.mem_l2": {"spread": 0.2}, "walk": {"spread": 0.04}})
    )
    costs = tomllib.loads(made.toml)["costs"]
    assert {key: costs["lock"][key] for key in ("ns", "low", "high")} == {"ns": 2.3, "low": 2.3, "high": 3.45}
    assert {key: costs["walk_setup"][key] for key in ("ns", "low", "high")} == {
        "ns": 9.3, "low": 9.3, "high": 11.16,
    }  # fmt: skip
    assert costs["lock"]["source"] == "tlbcore calibrate, guest, CPU 1: made up"
    assert set(costs) == {
        "lock", "stlb_hit", "mem_l1", "mem_l2", "mem_l3", "mem_dram", "ipi_first", "walk_setup",
    }  # fmt: skip


@pytest.mark.parametrize("share", ["taken_share", "steal_share"])
def test_a_cpu_is_busy_from_more_than_a_twentieth_on(share: str):
    for value, busy in ((0.05, False), (0.051, True)):
        made = calibrated(figures() | {share: value})
        assert any("busy with other things" in caveat for caveat in made.caveats) is busy
        stable = dict(zip(made.figures["key"].tolist(), made.figures["stable"].tolist(), strict=True))
        assert stable["costs.mem_dram"] is not busy


def test_a_third_level_is_believed_up_to_seven_tenths_of_memory():
    for value, believed in ((70.0, True), (70.1, False)):
        made = calibrated(figures(costs__mem_dram=100.0, costs__mem_l3=value))
        assert (made.machine.costs["mem_l3"].mark == "measured") is believed
        assert any("hardly less than memory" in caveat for caveat in made.caveats) is not believed


@pytest.mark.parametrize(
    ("level", "entries", "spread", "shape"),
    [
        ("l1", 71.0, 0.01, (1, 72)),  # good to a page
        ("l1", 73.0, 0.01, (1, 72)),
        ("l1", 73.1, 0.01, (1, 73)),
        ("l1", 70.9, 0.5, (1, 71)),
        ("l2", 2765.0, 0.01, (128, 24)),  # 3,072 less a tenth is 2,764.8
        ("l2", 2764.0, 0.01, (128, 22)),
        ("l2", 3379.0, 0.01, (128, 24)),
        ("l2", 3380.0, 0.01, (128, 26)),
        ("l2", 2458.0, 0.2, (128, 24)),  # or less its spread: 2,457.6
        ("l2", 2457.0, 0.2, (128, 19)),
    ],
)
def test_a_nominal_size_is_kept_within_what_the_measurement_is_good_to(
    level: str, entries: float, spread: float, shape: tuple[int, int]
):
    made = calibrated(report({f"{level}.entries": {"value": entries, "spread": spread}}))
    name = {"l1": "dtlb", "l2": "l2-dtlb-4k"}[level]
    assert structure(made.machine, int(level[1]) - 1, name) == shape
    kept = (
        "which is kept" in next(fact for fact in made.machine.facts if fact.key == f"{name}.entries").source
    )
    assert kept is (level == "l2" and shape == (128, 24))


def test_what_was_lost_did_not_settle_or_is_missing_is_said_and_not_taken_over():
    made = calibrated(
        report(
            {
                "costs.lock": {"value": 0.0},
                "costs.mem_l1": {"stable": False, "spread": 0.12, "runs": 40, "preempted": 3},
                "costs.mem_l2": {"stable": False, "spread": 0.5, "runs": 7, "preempted": 0},
            },
            missing=[("costs.remote_line", "one CPU")],
        )
    )
    for said in (
        "costs.lock was lost in the noise: not taken over",
        "costs.mem_l1 did not settle (spread 12% over 40 runs, 3 of them with the CPU taken away): not taken over",
        "costs.mem_l2 did not settle (spread 50% over 7 runs): not taken over",
        "costs.remote_line not measured: one CPU",
    ):
        assert said in made.caveats
    assert {"lock", "mem_l1", "mem_l2", "walk_setup"}.isdisjoint(tomllib.loads(made.toml)["costs"])
    rows = {row: i for i, row in enumerate(made.figures["key"].tolist())}
    assert made.figures["preempted"][rows["costs.mem_l1"]] == 3
    assert made.figures["runs"][rows["costs.mem_l1"]] == 40
    assert made.figures["spread"][rows["costs.walk_setup"]] == 0.5
    assert not made.figures["stable"][rows["costs.walk_setup"]]


def test_getpid_is_the_median_of_those_that_are_there():
    assert calibrated(figures(getppid=None, getuid=90.0)).getpid_predicted_ns == 94.0
    assert np.isnan(calibrated(figures(getppid=None, getuid=None, getgid=None)).getpid_predicted_ns)


@pytest.mark.parametrize(("vendor", "name"), [("intel", "skylake-sp"), ("amd", "zen3-epyc"), ("via", None)])
def test_where_no_preset_fits_the_nearest_of_the_vendor_does(vendor: str, name: str | None):
    host = inspect_host(GUEST)
    assert host.cpu is not None
    there = replace(host, cpu=replace(host.cpu, vendor=vendor), machine=None, machine_fit="none fits")
    if name is None:
        with pytest.raises(tc.TlbError, match="no preset is near this via CPU: name one as base"):
            _base(there, None)
    else:
        assert _base(there, None) == (tc.machines[name], "none fits; nearest of that vendor")
    assert _base(there, "zen4-epyc") == (tc.machines["zen4-epyc"], "as asked")
    assert _base(host, None)[0].name == "zen4-epyc"
