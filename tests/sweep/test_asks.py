"""What a sweep and a break-even take, and the sentence for what they do not."""

from __future__ import annotations

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import SimError, SweepError

SHORT = {"duration_s": 0.005}


def test_a_break_even_over_a_whole_parameter_tries_whole_values_only(monkeypatch):
    tried = []

    def sweep(base, grid, **options):
        [value] = grid["pages"]
        tried.append(value)
        rows = [(p, r) for p in ("ipi", "coalesce-v7-fixed") for r in range(options["replications"])]
        table = {
            "policy": np.array([policy for policy, _ in rows]),
            "replication": np.array([turn for _, turn in rows]),
            "inert": np.zeros(len(rows), dtype=bool),
            "syscall_mean_ns": np.array([value if policy == "ipi" else 11.5 for policy, _ in rows]),
        }
        return type("Found", (), {"interrupted": False, "failed": {"error": []}, "table": table})()

    monkeypatch.setattr("tlbcore.sweeps.break_even.sweep", sweep)
    found = tc.break_even("user-shootdown", "pages", 1, 64, tolerance=0)
    assert all(value == int(value) for value in tried)
    assert (found.low, found.high) == (11, 12)
    tried.clear()
    with pytest.raises(SweepError, match="pages takes whole numbers"):
        tc.break_even("user-shootdown", "pages", 1.5, 64)
    assert not tried


def test_a_break_even_names_the_scenario_and_the_parameter_that_it_does_not_know():
    with pytest.raises(SimError, match="unknown scenario 'user-shotdown'"):
        tc.break_even("user-shotdown", "pages", 1, 64)
    with pytest.raises(SweepError, match="unknown parameter 'page'"):
        tc.break_even("user-shootdown", "page", 1, 64)
    with pytest.raises(SimError, match="unknown scenario 3"):
        tc.sweep(3, {"pages": [1]})


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("machine", "zen3", "machine="),
        ("policy", "ipi", "policies="),
        ("kernel.flush_ceiling", 9, "kernel="),
    ],
)
def test_what_is_no_parameter_of_the_scenario_is_not_fixed(name: str, value: object, instead: str):
    with pytest.raises(SweepError, match=f"scenario, and '{name}' is none: pass {instead}$"):
        tc.sweep("user-shootdown", {"duration_s": [0.005]}, fixed={name: value})


def test_a_function_of_the_users_may_have_a_machine_of_its_own():
    def made(pages: int, machine: str) -> tc.Scenario:
        assert machine == "mine"
        return tc.scenarios.user_shootdown(pages=pages, **SHORT)

    found = tc.sweep(made, {"pages": [1]}, fixed={"machine": "mine"}, policies=["ipi"])
    assert found.table["error"].tolist() == [None]


@pytest.mark.parametrize(("name", "values"), [("policy", "ipi"), ("machine", "zen3")])
def test_a_word_is_no_list_of_words(name: str, values: str):
    with pytest.raises(SweepError, match=f"the grid's '{name}' must be a list of values: got '{values}'"):
        tc.sweep("user-shootdown", {name: values}, fixed=SHORT)


def test_a_function_must_return_a_scenario_and_say_its_parameters():
    found = tc.sweep(lambda n: n, {"n": [1]}, policies=["ipi"])
    assert found.table["error"].tolist() == ["the function must return a Scenario: got 1.0 (float)"]
    with pytest.raises(SweepError, match="does not say what its parameters are"):
        tc.sweep(dict, {"n": [1]})


def test_what_makes_executors_must_make_one():
    with pytest.raises(SweepError, match="a function that makes one: it made 3"):
        tc.sweep("user-shootdown", {"duration_s": [0.005]}, executor=lambda: 3)
