"""What a sweep asks of the core and makes of its answer, what identifies a sweep, and what it says of its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import SweepError, _core
from tlbcore.sweeps import run
from tlbcore.sweeps.batches import Interrupted
from tlbcore.sweeps.points import Batch, Points, grid_axes
from tlbcore.sweeps.run import _Distinct, _labels, _Simulations, _too_many, annotation

SHORT = {"duration_s": 0.005}
OTHER = tc.Policy(text='policy other\n  "other"\n  based on ct-late\n\nct_enter\n  lfence\n')


def job(**changes: Any) -> _Simulations:
    made: dict[str, Any] = {
        "base": "user-shootdown", "fixed": SHORT, "kernel": tc.Kernel(),
        "machines": {m: tc.machine(m) for m in ("skylake-sp", "zen4-epyc")},
        "policies": {p: tc.policies[p] for p in ("ipi", "ct-late")}, "metrics": ("ipis_per_hour", "user_share"),
    }  # fmt: skip
    return _Simulations(**{**made, **changes})


def batch(**columns: Any) -> Batch:
    length = len(next(iter(columns.values())))
    return Batch(
        columns={n: c if isinstance(c[0], str) else np.array(c, dtype=float) for n, c in columns.items()},
        replications=np.zeros(length, dtype=np.uint32),
        keys=np.zeros((length, 2), dtype=np.uint64),
        seeds=np.arange(70, 70 + length, dtype=np.uint64),
    )


class Core:
    """Answers a batch: the metric is the number of the choice, twice it, and so on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.asked: dict[str, Any] = {}
        self.changes = changes
        monkeypatch.setattr(_core, "sweep_run", self)

    def __call__(self, scenarios, machines, kernels, policies, choices, seeds, wanted, whole, threads) -> Any:  # type: ignore[no-untyped-def]
        self.asked = {
            "scenarios": scenarios, "machines": machines, "kernels": kernels, "policies": policies,
            "choices": choices.tolist(), "seeds": seeds, "wanted": wanted, "whole": whole, "threads": threads,
        }  # fmt: skip
        count = len(seeds)
        answer = {
            "figures": np.array([[float(seed), 2.0 * seed] for seed in seeds]).reshape(count, 2).T,
            "errors": [None] * count, "done": np.ones(count, dtype=bool), "inert": np.zeros(count, dtype=bool),
            "outputs": ["raw"] * count if whole else None, **self.changes,
        }  # fmt: skip
        return tuple(answer.values())


def test_each_distinct_part_is_made_once_and_chosen_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core(monkeypatch, inert=np.array([False, True, False, True]))
    columns: dict[str, Any] = {
        "pages": [1, 2, 1, 2], "machine": ["zen4-epyc", "skylake-sp", "zen4-epyc", "zen4-epyc"],
        "kernel.pti": [1, 1, 0, 1], "policy": ["ct-late", "ct-late", "ipi", "ct-late"],
    }  # fmt: skip
    outcome = job()(batch(**columns), 3)
    made = [tc.scenarios.user_shootdown(pages=pages, **SHORT).to_json() for pages in (1, 2)]
    assert core.asked["scenarios"] == made
    assert core.asked["machines"] == ["zen4-epyc", "skylake-sp"]
    assert core.asked["kernels"] == [tc.Kernel(pti=pti).to_json() for pti in (True, False)]
    assert core.asked["policies"] == [str(tc.policies["ct-late"]), str(tc.policies["ipi"])]
    # Scenario, machine, kernel, policy, in the order in which each was met.
    assert core.asked["choices"] == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]]
    assert core.asked["seeds"] == [70, 71, 72, 73]
    assert (core.asked["wanted"], core.asked["whole"], core.asked["threads"]) == (
        ("ipis_per_hour", "user_share"), False, 3,
    )  # fmt: skip
    assert {name: values.tolist() for name, values in outcome.metrics.items()} == {
        "ipis_per_hour": [70, 71, 72, 73], "user_share": [140, 142, 144, 146],
    }  # fmt: skip
    assert outcome.errors == [None] * 4
    assert outcome.inert is not None
    assert outcome.inert.tolist() == [False, True, False, True]


def test_what_is_not_varied_is_the_first_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core(monkeypatch)
    job(kernel=tc.Kernel(pti=False))(batch(pages=[1, 2, 3]), 1)
    assert core.asked["machines"] == ["skylake-sp"]
    assert core.asked["policies"] == [str(tc.policies["ipi"])]
    assert core.asked["kernels"] == [tc.Kernel(pti=False).to_json()]
    assert core.asked["choices"] == [[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]]


@pytest.mark.parametrize(
    ("columns", "errors"),
    [
        ({"cpus": [4, 0, 8]}, [None, "cpus must be", None]),
        ({"cpus": [0, 0, 0]}, ["cpus must be"] * 3),
        ({"kernel.flush_ceiling": [33, -1, 33]}, [None, "flush_ceiling must be", None]),
        ({"kernel.flush_ceiling": [-1, -1, -1]}, ["flush_ceiling must be"] * 3),
        (
            {"cpus": [0, 4, 8], "kernel.flush_ceiling": [-1, -1, 33]},
            ["cpus must be", "flush_ceiling must be", None],
        ),
    ],
)
def test_a_point_that_cannot_be_is_left_out_of_what_is_asked(
    monkeypatch: pytest.MonkeyPatch, columns: Any, errors: list[str | None]
) -> None:
    core = Core(monkeypatch)
    outcome = job(base="syscall-heavy")(batch(**columns), 1)
    sound = [place for place, error in enumerate(errors) if error is None]
    assert core.asked["seeds"] == [70 + place for place in sound]
    for found, wanted in zip(outcome.errors, errors, strict=True):
        assert (found is None) if wanted is None else str(found).startswith(wanted)
    values = outcome.metrics["user_share"]
    assert values[sound].tolist() == [2.0 * (70 + place) for place in sound]
    assert np.isnan(values).sum() == 3 - len(sound)
    assert outcome.inert is not None
    assert outcome.inert.tolist() == [False] * 3


def test_errors_of_the_core_stand_at_their_points(monkeypatch: pytest.MonkeyPatch) -> None:
    Core(monkeypatch, errors=["first", None])
    assert job(base="syscall-heavy")(batch(cpus=[4, 0, 8]), 1).errors[0::2] == ["first", None]


def own(result: Any) -> float:
    return float(result[1])


def failing(result: Any) -> float:
    raise ZeroDivisionError(result[0])


def no_number(result: Any) -> Any:
    return "many"


def test_metrics_of_ones_own_stand_behind_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core(monkeypatch, outputs=["a", None, "c"])
    parts: list[Any] = []

    def point(raw: Any, made: Any, seed: int) -> Any:
        parts.append(made)
        return raw, seed

    monkeypatch.setattr(run, "_point", point)
    columns: dict[str, Any] = {"pages": [1, 2, 3], "policy": ["ct-late", "ipi", "ipi"]}
    outcome = job(own=(own,))(batch(**columns), 1)
    assert core.asked["whole"] is True
    assert list(outcome.metrics) == ["ipis_per_hour", "user_share", "own"]
    assert outcome.metrics["own"][0::2].tolist() == [70.0, 72.0]
    assert np.isnan(outcome.metrics["own"][1])
    scenario, machine, kernel, policy = parts[1]
    assert (scenario, machine.name) == (tc.scenarios.user_shootdown(pages=3, **SHORT), "skylake-sp")
    assert (kernel, policy) == (tc.Kernel(), tc.policies["ipi"])
    for metric, said in (
        (failing, "ZeroDivisionError: a"),
        (no_number, "SweepError: no_number must return a number"),
    ):
        found = job(own=(metric,))(batch(**columns), 1)
        assert str(found.errors[0]).startswith(said)
        assert found.metrics["ipis_per_hour"].tolist() == [70, 71, 72]


def test_ctrl_c_hands_on_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    Core(monkeypatch, done=np.array([True, False, True]))
    with pytest.raises(Interrupted) as cut:
        job(base="syscall-heavy")(batch(cpus=[4, 0, 8, 12]), 1)
    # The second cannot be, and is done with that.
    assert cut.value.done.tolist() == [True, True, False, True]
    assert cut.value.outcome.metrics["ipis_per_hour"][[0, 2]].tolist() == [70, 73]
    assert len(cut.value.outcome.errors) == 3


def test_distinct_values_are_made_once_and_errors_are_kept() -> None:
    made: list[Any] = []

    def make(values: tuple[Any, ...]) -> tuple[Any, str]:
        made.append(values)
        if values == (0,):
            raise SweepError("none")
        if values == (9,):
            raise KeyError("nine")
        return values[0], f"text {values[0]}"

    distinct = _Distinct(make)
    assert [distinct.index((n,)) for n in (5, 0, 7, 5, 9, 0)] == [0, "none", 1, 0, "KeyError: 'nine'", "none"]
    assert made == [(5,), (0,), (7,), (9,)]
    assert (distinct.made, distinct.texts) == ([5, 7], ["text 5", "text 7"])


def test_labels_are_names_of_what_is_built_in_and_digests_of_the_rest(tmp_path: Path) -> None:
    texts: dict[str, Any] = {}
    models: dict[str, Any] = {}
    mine = tc.policies["ct-late"].replace(name="ipi")
    labels = _labels("policy", ["ipi", OTHER, mine], texts, models)
    assert labels == ["ipi", f"other@{OTHER.digest[:8]}", f"ipi@{mine.digest[:8]}"]
    assert list(texts.values()) == [tc.policies["ipi"], OTHER, mine]
    file = tmp_path / "own.toml"
    file.write_text('inherits = "zen4-epyc"\n')
    own_machine = tc.machine(file)
    (label,) = _labels("machine", [file], texts, models)
    assert own_machine.text is not None
    from hashlib import sha256

    assert label == f"{own_machine.name}@{sha256(own_machine.text.encode()).hexdigest()[:8]}"
    assert _labels("machine", ["zen4-epyc"], texts, models) == ["zen4-epyc"]
    assert list(models) == [label, "zen4-epyc"]


def plan(**options: Any) -> tuple[_Simulations, Points, dict[str, Any]]:
    asked: dict[str, Any] = {
        "samples": None, "names": None, "policies": ["ipi"], "machine": "skylake-sp", "kernel": None, "fixed": SHORT,
        "metrics": ["user_share"], "replications": 1, "seed": 5, **options,
    }  # fmt: skip
    base, grid = asked.pop("base", "user-shootdown"), asked.pop("grid", {"pages": [1, 2]})
    return run._plan(base, grid, **asked)


def made_by(pages: int) -> tc.Scenario:
    return tc.scenarios.user_shootdown(pages=pages, **SHORT)


def test_a_sweep_is_identified_by_what_its_points_share() -> None:
    made, points, identity = plan(fixed={**SHORT, "batch": 2}, grid={"pages": [1, 2], "kernel.pti": [True]})
    assert identity == {
        "tlbcore": tc.__version__, "scenario": "user-shootdown", "fixed": {"batch": "2", "duration_s": "0.005"},
        "kernel": identity["kernel"], "machine": "skylake-sp", "parameters": ["kernel.pti", "pages", "policy"],
        "seed": 5, "engine": run._engine(), "metrics": ["user_share"],
    }  # fmt: skip
    assert points.names == ["pages", "kernel.pti", "policy"]
    assert (list(made.policies), list(made.machines)) == (["ipi"], ["skylake-sp"])
    assert plan(grid={"machine": ["zen4-epyc"]})[2]["machine"] is None
    assert plan(base=made_by, fixed=None)[2]["scenario"] == "function"
    load = tc.scenarios.user_shootdown(pages=1, **SHORT)
    assert plan(base=load, fixed=None, grid={"cpus": [4]})[2]["scenario"] == load.to_json()
    assert plan(kernel=tc.Kernel(pti=False))[2]["kernel"]["pti"] is False


def test_keys_change_with_what_decides_a_result_and_seeds_with_the_point() -> None:
    def first(**options: Any) -> Any:
        batch = plan(**options)[1].batch(0, 1)
        return batch.keys[0].tolist(), int(batch.seeds[0])

    same = first()
    assert first(policies=["ipi", "ct-late"]) == same
    assert first(grid={"pages": [1]}) == first(replications=3) == same
    key, seed = first(policies=["ct-late"])
    assert key != same[0]
    assert seed == same[1], "policies share their draws"
    for options in (
        {"seed": 6}, {"fixed": {"duration_s": 0.01}}, {"grid": {"pages": [2]}}, {"machine": "zen4-epyc"},
        {"kernel": tc.Kernel(pti=False)},
    ):  # fmt: skip
        key, seed = first(**options)
        assert key != same[0]
        assert seed != same[1]


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"kernel": 5}, tc.ConfigError, "kernel must be a tlbcore.Kernel: got int"),
        ({"fixed": [1]}, SweepError, "fixed maps names to values: got [1]"),
        ({"grid": None}, SweepError, "a sweep needs a grid or samples, and not both"),
        ({"grid": [1]}, SweepError, "a grid maps names to lists of values: got [1]"),
        ({"fixed": {"no": 1}}, SweepError, "unknown parameter 'no': known are "),
        (
            {"fixed": {"kernel.pti": 1}},
            SweepError,
            "fixed holds parameters of the scenario, and 'kernel.pti' is none",
        ),
        ({"grid": {"page": [1]}}, SweepError, "unknown parameter 'page'"),
        ({"seed": "x"}, SweepError, "seed must be an integer"),
        ({"replications": 0}, SweepError, "replications must be an integer"),
        ({"metrics": []}, SweepError, "a sweep needs at least one metric"),
        ({"base": "user-shotdown"}, tc.SimError, "unknown scenario 'user-shotdown'"),
        ({"base": 5}, tc.SimError, "unknown scenario 5"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as error:
        plan(**options)
    assert str(error.value).startswith(said)


def test_annotations_of_what_can_be_varied() -> None:
    assert annotation("user-shootdown", "pages") == "int"
    assert annotation("user-shootdown", "kernel.pti") == "bool | None"
    assert annotation("user-shootdown", "machine") == annotation("user-shootdown", "policy") == "str"
    assert annotation(lambda n: n, "n") == ""
    assert annotation(tc.scenarios.user_shootdown(pages=1, **SHORT), "cpus") == "int"


def test_how_long_and_how_large_many_points_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point of 3.6 s on 10 CPUs: 10^9 are 10^5 hours; 8 bytes for each of 2 metrics, 4 names and 4 more."""
    clock = iter([100.0, 103.6])
    monkeypatch.setattr(run, "time", type("Time", (), {"perf_counter": lambda: next(clock)}))
    monkeypatch.setattr(run, "os", type("Os", (), {"cpu_count": lambda: 10}))
    asked: list[Any] = []
    points = Points("b", 1, grid_axes({**{name: range(1000) for name in "xyz"}, "policy": ["ipi"]}))
    said = _too_many(lambda batch, threads: asked.append((len(batch), threads)), points, 2)  # type: ignore[arg-type]
    assert asked == [(1, 1)]
    assert said == (
        "1,000,000,000 points would take about 100,000.0 hours on the CPUs here and 80.0 GB before compression:"
        " pass yes=True (--yes) to compute them"
    )


@pytest.mark.parametrize("every", [1, "no", None])
def test_reading_every_row_is_true_or_false(every: Any, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="every must be True or False: got "):
        tc.read_sweep(tmp_path, every=every)
