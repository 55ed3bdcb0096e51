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
    assert found.table["error"].tolist() == ["the function must return a Scenario: got 1 (int)"]
    with pytest.raises(SweepError, match="does not say what its parameters are"):
        tc.sweep(dict, {"n": [1]})


def test_what_makes_executors_must_make_one():
    with pytest.raises(SweepError, match="a function that makes one: it made 3"):
        tc.sweep("user-shootdown", {"duration_s": [0.005]}, executor=lambda: 3)
    with pytest.raises(
        SweepError, match=r"^threads are of this process, and an executor computes in others: give"
    ):
        tc.sweep("user-shootdown", {"duration_s": [0.005]}, executor=lambda: 3, threads=1)


# -- a break-even where a policy does nothing ------------------------------------------------------------------

PTI, NONE = "`coalesce-v7` is inert: it needs pti", "they replace nothing that runs"


def break_even(monkeypatch, parameter: str, inert, **options):
    """Ask for a break-even of made-up sweeps: the first policy costs the value, the second 2.5."""

    def sweep(base, grid, *, policies, **said):
        [value] = grid[parameter]
        names = [
            p.name if p in (tc.policies["ipi"], tc.policies["coalesce-v7"]) else f"{p.name}@1"
            for p in policies
        ]
        rows = [(place, turn) for turn in range(said["replications"]) for place in (0, 1)]
        table = {
            "policy": np.array([names[place] if place == 0 else f"{names[place]}~" for place, _ in rows]),
            "replication": np.array([turn for _, turn in rows]),
            "inert": np.array([inert(place, value) for place, _ in rows]),
            "syscall_mean_ns": np.array([(value, 2.5)[place] for place, _ in rows]),
        }
        return type("Found", (), {"interrupted": False, "failed": {"error": []}, "table": table})()

    monkeypatch.setattr("tlbcore.sweeps.break_even.sweep", sweep)
    return tc.break_even("user-shootdown", parameter, 0, 4, tolerance=0, machine="broadwell-ep", **options)


def test_why_a_policy_is_inert_is_asked_of_the_kernel_that_is_varied(monkeypatch):
    """`kernel.pti = 0` is a kernel without PTI, whatever `kernel=` says."""
    pair = ("ipi", "coalesce-v7")
    with pytest.raises(SweepError) as error:
        break_even(monkeypatch, "kernel.pti", lambda place, value: place == 1 and value == 0, policies=pair)
    assert str(error.value).startswith(
        "ipi and coalesce-v7 are both mainline here, at kernel.pti = 0, so that mainline is compared with itself: "
    )
    assert "pti" in str(error.value).rpartition("itself: ")[2]
    assert NONE not in str(error.value)
    with pytest.raises(SweepError, match=f"are both mainline here, at pages = 0, .*itself: {NONE}$"):
        break_even(monkeypatch, "pages", lambda place, _: place == 1, policies=pair)


def test_two_policies_that_are_inert_at_different_values_are_compared(monkeypatch):
    pair = ("coalesce-v7", "coalesce-v7-fixed")
    with pytest.warns(tc.InertPolicyWarning) as warned:
        found = break_even(monkeypatch, "pages", lambda place, value: value == (0, 4)[place], policies=pair)
    assert (found.low, found.high) == (2, 3)
    # Tried are both ends and whole numbers between: 0, 4, 2, 3.
    assert [str(one.message) for one in warned] == [
        f"`{name}` does nothing at 1 of 4 values, such as pages = {value}, so syscall_mean_ns of mainline stands under"
        f" its name: {NONE}"
        for name, value in zip(pair, (0, 4), strict=True)
    ]
    with pytest.raises(SweepError, match="both do nothing here, at pages = 4, so"):
        break_even(monkeypatch, "pages", lambda _, value: value == 4, policies=pair)


def test_a_policy_that_does_nothing_anywhere_does_nothing_here(monkeypatch):
    mine = [
        tc.policies["ipi"].replace(name="mine", flush_handler=f"{op}\nflush_here")
        for op in ("lfence", "sfence")
    ]
    with pytest.warns(
        tc.InertPolicyWarning, match="^`mine` does nothing here, so syscall_mean_ns of mainline"
    ):
        found = break_even(monkeypatch, "pages", lambda place, _: place == 0, policies=tuple(mine))
    assert found.policies == ("mine", "mine")
    assert (found.low, found.high) == (2, 3)


@pytest.mark.parametrize("policies", [("ipi",), ("ipi", "rar", "latr")])
def test_a_break_even_is_of_two_policies(policies: tuple[str, ...]):
    with pytest.raises(SweepError, match=f"a break-even needs two policies: got {len(policies)}$"):
        tc.break_even("user-shootdown", "pages", 1, 2, policies=policies)


def test_a_policy_is_not_compared_with_itself():
    for pair in (("ipi", "ipi"), ("ipi", tc.policies["ipi"])):
        with pytest.raises(SweepError, match=r"a break-even needs two policies: got 'ipi' twice$"):
            tc.break_even("user-shootdown", "pages", 1, 2, policies=pair)


def test_a_break_even_that_cannot_be_says_at_which_value(monkeypatch):
    def sweep(base, grid, **said):
        rows = np.array(["ipi", "rar"] * said["replications"])
        table = {
            "policy": rows, "replication": np.repeat(np.arange(said["replications"]), 2),
            "inert": np.zeros(len(rows), dtype=bool), "syscall_mean_ns": np.full(len(rows), np.nan),
        }  # fmt: skip
        failed = {"error": errors}
        return type("Found", (), {"interrupted": stopped, "failed": failed, "table": table})()

    monkeypatch.setattr("tlbcore.sweeps.break_even.sweep", sweep)
    stopped, errors = False, ["no such thing", "nor that"]
    with pytest.raises(SweepError, match=r"^pages = 1: no such thing$"):
        tc.break_even("user-shootdown", "pages", 1, 2, policies=("ipi", "rar"))
    errors = []
    with pytest.raises(SweepError, match=r"^syscall_mean_ns has no value at pages = 1$"):
        tc.break_even("user-shootdown", "pages", 1, 2, policies=("ipi", "rar"))
    stopped = True
    with pytest.raises(KeyboardInterrupt):
        tc.break_even("user-shootdown", "pages", 1, 2, policies=("ipi", "rar"))


def test_a_parameter_without_an_annotation_is_whole_if_its_ends_are(monkeypatch):
    tried = []

    def base(n):
        tried.append(n)
        return tc.scenarios.syscall_heavy(spawn_hz=n, **SHORT)

    monkeypatch.setattr(
        "tlbcore.analysis.bisect", lambda differences, *_, **said: (differences(3.0, 2), said)
    )
    for low, high, whole in ((1, 9, True), (1.0, 9, False)):
        tried.clear()
        with pytest.raises(AttributeError):  # what stands in for the result knows no metric
            tc.break_even(base, "n", low, high, policies=("ipi", "ct-late"))
        assert {repr(n) for n in tried} == {"3" if whole else "3.0"}


def test_what_a_break_even_is_asked_with_unless_it_is_told(monkeypatch):
    asked = []

    def sweep(base, grid, **said):
        asked.append((base, grid, said))
        return type("Found", (), {"interrupted": False, "failed": {"error": ["seen"]}, "table": {}})()

    def bisect(differences, low, high, **said):
        with pytest.raises(SweepError, match=r"^gap_ns = 2: seen$"):
            differences(2.0, 7)
        bounds.append((low, high, said))
        raise SweepError("enough")

    def own(run):
        return 1.0

    bounds: list[object] = []
    monkeypatch.setattr("tlbcore.sweeps.break_even.sweep", sweep)
    monkeypatch.setattr("tlbcore.analysis.bisect", bisect)
    with pytest.raises(SweepError, match="enough"):
        tc.break_even("syscall-heavy", "gap_ns", 1, 3)
    (bound,) = bounds
    told = {
        "parameter": "gap_ns", "policies": ("ipi", "coalesce-v7-fixed"), "replications": 5, "most_replications": 40,
        "tolerance": 0.02, "whole": False,
    }  # fmt: skip
    assert bound == (1, 3, {**told, "metric": "syscall_mean_ns"})
    with pytest.raises(SweepError, match="enough"):
        tc.break_even("syscall-heavy", "gap_ns", 1, 3, metric=own, seed=9, threads=2, machine="zen4-epyc")
    assert bounds[1] == (1, 3, {**told, "metric": "own"})
    pair = [tc.policies[name] for name in told["policies"]]
    plain = {
        "policies": pair, "machine": "broadwell-ep-e5-2699v4", "kernel": None, "fixed": None,
        "metrics": ["syscall_mean_ns"], "replications": 7, "seed": 1, "threads": None,
    }  # fmt: skip
    given = {**plain, "metrics": [own], "seed": 9, "threads": 2, "machine": "zen4-epyc"}
    assert asked == [("syscall-heavy", {"gap_ns": [2.0]}, options) for options in (plain, given)]
