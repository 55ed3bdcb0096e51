"""What `compare` asks for, which runs it asks again, what it warns of, and what a comparison says of itself."""

from __future__ import annotations

import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios
from tlbcore.simulation import compare as module

LOAD = scenarios.quiet(duration_s=0.001, cpus=4, isolated="2-3")


def run_of(policy: tc.Policy, seed: int, **changes: Any) -> SimpleNamespace:
    """Return a run in which every figure is its seed, with nothing to say but what is changed."""
    columns = {figure.name: np.full(1, float(seed)) for figure in tc.figures()}
    figures = {"cpu_class": np.array(["all"]), "cpus": np.array([4]), **columns}
    usual = {"duration_s": 1.0, "inert": (), "unsourced": (), "interrupted": False, "figures": figures}
    return SimpleNamespace(**(usual | {"policy": policy, "seed": seed} | changes))


class Runs:
    """Stands in for the simulator: notes what was asked, and answers with runs as `changes` has them by policy."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[Any, ...], list[tuple[str, int]], dict[str, Any]]] = []
        self.changes: dict[str, dict[str, Any]] = {}

    def __call__(self, load: Any, machine: Any, kernel: Any, jobs: Any, **how: Any) -> list[SimpleNamespace]:
        self.asked.append(((load, machine, kernel), [(policy.name, seed) for policy, seed in jobs], how))
        return [run_of(policy, seed, **self.changes.get(policy.name, {})) for policy, seed in jobs]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(module, "_run", made)
    return made


def test_what_is_asked_if_nothing_else_is_said(runs: Runs) -> None:
    found = tc.compare(LOAD)
    ((about, jobs, how),) = runs.asked
    assert about == (LOAD, "broadwell-ep-e5-2699v4", tc.Kernel())
    names = ["ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed", "pending-bit"]
    assert jobs == [(name, 1) for name in names]
    workers = how.pop("threads")
    assert workers >= 1
    assert how == {"skip": True, "timeline": 256, "progress": None, "detail": "summary", "costs": "best"}
    assert list(found) == names
    assert found.bounds == ()
    assert found.table["replications"].tolist() == [1] * 5
    assert "wait_mean_us_low" not in found.table


def test_what_is_asked_is_what_was_said(runs: Runs) -> None:
    kernel = tc.Kernel(broadcast_tlb_flush=True)
    seen: list[object] = []
    found = tc.compare(
        LOAD, machine="skylake-sp", kernel=kernel, policies=["ct-late", "ipi"], seed=7, replications=2, threads=3,
        detail="full", costs="low", skip=False, timeline=5, progress=seen.append,
    )  # fmt: skip
    ((about, jobs, how),) = runs.asked
    assert about == (LOAD, "skylake-sp", kernel)
    (_, second), *_ = [job for job in jobs if job[1] != 7]
    assert jobs == [("ct-late", 7), ("ct-late", second), ("ipi", 7), ("ipi", second)]
    told = how.pop("progress")
    assert told == seen.append
    assert how == {"skip": False, "timeline": 5, "threads": 3, "detail": "full", "costs": "low"}
    assert list(found) == ["ct-late", "ipi"]
    assert [run.seed for run in found.results] == [7, second, 7, second]


@pytest.mark.parametrize(
    ("costs", "changes", "again"),
    [
        ("best", {"ct-late": {"unsourced": ("invlpgb",)}}, ["ct-late"]),
        ("best", {"ipi": {"unsourced": ("invlpg",)}, "ct-late": {"unsourced": ("invlpgb",)}}, ["ipi", "ct-late"]),
        ("best", {"ct-late": {"unsourced": ("invlpgb",), "interrupted": True}}, []),
        ("best", {}, []),
        ("low", {"ct-late": {"unsourced": ("invlpgb",)}}, []),
        ("high", {"ct-late": {"unsourced": ("invlpgb",)}}, []),
    ],
)  # fmt: skip
def test_policies_that_rest_on_costs_without_a_source_run_again_with_either_end(
    costs: Any, changes: dict[str, dict[str, Any]], again: list[str], runs: Runs
) -> None:
    runs.changes = changes
    found = tc.compare(LOAD, policies=["ipi", "ct-late"], seed=3, costs=costs, timeline=9, progress=False)
    first, *more = runs.asked
    assert first[1] == [("ipi", 3), ("ct-late", 3)]
    assert (first[2]["costs"], first[2]["progress"]) == (costs, False)
    ends = [(jobs, how["costs"], how["progress"], how["timeline"]) for _, jobs, how in more]
    jobs = [(name, 3) for name in again]
    assert ends == ([(jobs, "low", None, 9), (jobs, "high", None, 9)] if again else [])
    assert [run.policy.name for run in found.bounds] == again * 2
    assert len(found.results) == 2
    assert ("wait_mean_us_low" in found.table) == bool(again)


def test_what_is_inert_is_warned_of_once_where_compare_was_called(runs: Runs) -> None:
    runs.changes = {"ct-late": {"inert": ("a: why", "b")}, "pending-bit": {"inert": ("b", "c")}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = tc.compare(LOAD, policies=["ipi", "pending-bit", "ct-late"], replications=2)
    assert [str(one.message) for one in caught] == [
        f"{reason}; the figures under its name are mainline's" for reason in ("b", "c", "a: why")
    ]
    assert {(one.category, one.filename) for one in caught} == {(tc.InertPolicyWarning, __file__)}
    assert found._inert() == ("b", "c", "a: why")
    assert found.table["inert"].tolist() == [False, True, True]


@pytest.mark.parametrize("replications", [0, 1_000_001, True, 1.5])
def test_there_are_one_to_a_million_replications(replications: Any, runs: Runs) -> None:
    with pytest.raises(tc.SimError, match=r"^replications must be an integer from 1 to 1000000: got "):
        tc.compare(LOAD, replications=replications)
    assert runs.asked == []


def test_the_first_name_that_two_policies_have_is_told(runs: Runs) -> None:
    with pytest.raises(tc.SimError) as found:
        tc.compare(LOAD, policies=["ipi", "pending-bit", "ct-late", "pending-bit", "ct-late"])
    assert str(found.value) == "two policies are called 'ct-late': give one another name"


@pytest.fixture(scope="module")
def compared() -> tc.Comparison:
    return tc.compare(LOAD, policies=["ipi", "ct-late"], seed=5, replications=2)


def test_a_comparison_says_what_it_is_of(compared: tc.Comparison) -> None:
    first, second = (run.seed for run in compared.results[:2])
    machine = "broadwell-ep-e5-2699v4"
    about = compared._about()
    assert list(about) == ["scenario", "machine", "machine_text", "kernel", "version", "seeds", "inert"]
    assert (about["machine"], about["version"], about["inert"]) == (machine, tc.__version__, ())
    assert about["seeds"] == sorted([first, second])
    assert repr(compared) == f"<Comparison of ipi, ct-late: quiet on {machine}>"
    units = compared._units()
    assert len(units) == 3 * len(tc.figures())
    assert {name: units[name] for name in ("wait_mean_us", "wait_mean_us_low", "ipis_per_hour_high")} == {
        "wait_mean_us": "us", "wait_mean_us_low": "us", "ipis_per_hour_high": "1/h",
    }  # fmt: skip


def test_a_comparison_is_a_mapping_that_can_be_changed_only_by_replace(compared: tc.Comparison) -> None:
    assert dict(compared) == {"ipi": compared.results[0], "ct-late": compared.results[2]}
    assert "ct-early" not in compared
    with pytest.raises(KeyError, match="'ct-early'"):
        compared["ct-early"]
    with pytest.raises(AttributeError):
        compared.policies = ()  # type: ignore[misc]
    other = compared.replace(policies=("ct-late",))
    assert (list(other), list(compared)) == (["ct-late"], ["ipi", "ct-late"])
    assert other.results is compared.results
    assert len({compared, compared, other}) == 2
    with pytest.raises(ValueError, match="read-only"):
        compared.table["wait_mean_us"][0] = 1.0
    bare = tc.Comparison(table={}, results=compared.results)
    assert (bare.policies, bare.bounds, len(bare)) == ((), (), 0)


def test_a_comparison_comes_back_from_a_pickle_with_all_its_runs() -> None:
    load = scenarios.spawn_storm(duration_s=60, cpus=4)
    kernel = tc.Kernel(broadcast_tlb_flush=True)
    made = tc.compare(load, machine="zen4-epyc", kernel=kernel, policies=["invlpgb"])
    again = pickle.loads(pickle.dumps(made))
    assert [run.seed for run in again.bounds] == [1, 1]
    low, high = (run.figure("flush_request_mean_us", "housekeeping") for run in again.bounds)
    assert low < high
    assert [run.table for run in again.bounds] == [run.table for run in made.bounds]
    assert again.policies == ("invlpgb",)
    assert again.table == made.table
