"""What `simulate` asks of the core, what its result says of the question, and what becomes of its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.geometry import one_tlb

import tlbcore as tc
from tlbcore import _core, scenarios
from tlbcore.simulation.run import result_of

LOAD = scenarios.quiet(duration_s=0.001, cpus=4, isolated="2-3")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return what the core was asked for, and how to go about it, of each run since."""
    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    simulate = _core.simulate

    def noted(question: dict[str, Any], way: dict[str, Any]) -> Any:
        seen.append((dict(question), dict(way)))
        return simulate(question, way)

    monkeypatch.setattr(_core, "simulate", noted)
    return seen


def test_what_is_asked_if_nothing_else_is_said(asked, tmp_path: Path) -> None:
    tc.simulate(LOAD)
    tc.simulate(LOAD, checkpoint=tmp_path / "state")
    tc.simulate(LOAD, checkpoint=tmp_path / "state", every_s=None)
    for question, _ in asked:
        assert {name: question[name] for name in ("skip", "keep", "full", "bound", "threads")} == {
            "skip": True, "keep": 256, "full": False, "bound": "best", "threads": 1,
        }  # fmt: skip
        assert [(name, seed) for _, name, seed in question["jobs"]] == [(tc.policies["ipi"].file, 1)]
        assert question["machine"] == "broadwell-ep-e5-2699v4"
        assert question["scenario"] == LOAD.to_json()
        assert question["kernel"] == tc.Kernel().to_json()
    plain, kept, at_the_end = (way for _, way in asked)
    assert plain == {"progress": None, "resume": None, "checkpoint": False, "every": None, "until": None}
    assert (kept["checkpoint"], kept["resume"], kept["every"][0]) == (True, None, 60.0)
    assert (at_the_end["checkpoint"], at_the_end["every"]) == (True, None)


def test_what_is_asked_is_what_was_said(asked) -> None:
    tc.simulate(LOAD, policy="coalesce-v7", seed=7, detail="full", costs="low", skip=False, timeline=0)
    ((question, _),) = asked
    assert {name: question[name] for name in ("skip", "keep", "full", "bound")} == {
        "skip": False, "keep": 0, "full": True, "bound": "low",
    }  # fmt: skip
    assert [(name, seed) for _, name, seed in question["jobs"]] == [(tc.policies["coalesce-v7"].file, 7)]


def test_a_run_that_ends_leaves_no_checkpoint_whether_there_was_one_or_not(tmp_path: Path) -> None:
    file = tmp_path / "state"
    assert not tc.simulate(LOAD, checkpoint=file).interrupted
    assert list(tmp_path.iterdir()) == []
    load = scenarios.syscall_heavy(duration_s=120.0)

    def stop(*_: float) -> None:
        raise KeyboardInterrupt

    assert tc.simulate(load, skip=False, checkpoint=file, progress=stop).interrupted
    assert list(tmp_path.iterdir()) == [file]
    assert tc.simulate(load, checkpoint=file).duration_s == 120.0
    assert list(tmp_path.iterdir()) == []


def test_a_machine_is_called_as_it_was_given_and_its_text_is_kept(tmp_path: Path) -> None:
    model = tc.machine("broadwell-ep-e5-2699v4")
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\ninherits = "broadwell-ep-e5-2699v4"\n')
    found = {name: tc.simulate(LOAD, machine=name).machine for name in (model.name, str(file), "skylake-sp")}
    assert found == {name: name for name in found}
    of_model = tc.simulate(LOAD, machine=tc.machine(str(file)))
    assert of_model.machine == str(file)
    assert 'inherits = "broadwell-ep-e5-2699v4"' in of_model.machine_text
    assert tc.simulate(LOAD, machine=one_tlb(64, 4)).machine == "one-tlb"


def test_a_result_without_a_name_for_its_machine_has_the_machines_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raws: list[Any] = []
    simulate = _core.simulate

    def noted(*asked: Any) -> Any:
        raws.extend(simulate(*asked))
        return raws[-1:]

    monkeypatch.setattr(_core, "simulate", noted)
    run = tc.simulate(LOAD, machine="broadwell-ep-e5-2699v4")
    model = tc.machine("broadwell-ep-e5-2699v4")
    again = result_of(raws[0], run.scenario, model, run.kernel, run.policy, run.seed)
    assert again.machine == model.name
    assert again.program_runs == run.program_runs > 0
    costs = {name: str(source) for name, source in zip(run.costs["name"], run.costs["source"], strict=True)}
    assert costs["invlpg"] == model.sources["costs.invlpg"]


@pytest.mark.parametrize("timeline", [1 << 32, (1 << 32) + 1, -1])
def test_no_more_events_of_a_cpu_are_kept_than_a_number_of_32_bits_can_count(timeline: int) -> None:
    with pytest.raises(tc.SimError) as found:
        tc.simulate(LOAD, timeline=timeline)
    assert str(found.value) == f"timeline must be an integer from 0 to 4294967295: got {timeline}"
