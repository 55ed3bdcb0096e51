"""One vocabulary: seeds, replications, threads, progress, default machines mean the same wherever they occur."""

from __future__ import annotations

import inspect
import itertools
from typing import get_args

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios
from tlbcore._input import defaults
from tlbcore._input.seeds import as_seed, replications
from tlbcore._input.vocabulary import CauseName, EntryPath

MACHINE = "broadwell-ep-e5-2699v4"
LOAD = scenarios.trading(duration_s=0.2)


def test_another_seed_shares_no_run():
    found = {
        seed: tc.compare(LOAD, policies=["ipi", "coalesce-v7"], seed=seed, replications=5)
        for seed in (1, 2, 3)
    }
    for a, b in itertools.combinations(found.values(), 2):
        assert not {run.seed for run in a.results} & {run.seed for run in b.results}
        rows = [
            {run.table["syscalls"].tobytes() for run in c.results if run.policy.name == "ipi"} for c in (a, b)
        ]
        assert [len(row) for row in rows] == [5, 5]
        assert not rows[0] & rows[1]


def test_the_first_replication_is_the_run_of_the_seed_and_policies_share_seeds():
    many = tc.compare(LOAD, policies=["ipi", "coalesce-v7"], seed=9, replications=3)
    assert many["ipi"].seed == 9
    assert many["ipi"].table == tc.simulate(LOAD, policy="ipi", seed=9).table
    seeds = {name: [run.seed for run in many.results if run.policy.name == name] for name in many}
    assert seeds["ipi"] == seeds["coalesce-v7"] == replications(9, 3)
    assert replications(9, 2) == replications(9, 3)[:2]


def test_the_seeds_of_replications_stay_the_same_across_releases():
    assert replications(1, 4) == [1, 11843583011824321130, 7018417977784188888, 8095788021464429438]


def test_seeds_are_numpys():
    sequence = np.random.SeedSequence(5)
    one, two = (tc.simulate(LOAD, seed=sequence) for _ in range(2))
    assert one.seed == two.seed == int(np.random.SeedSequence(5).generate_state(1, np.uint64)[0])
    assert one.table == two.table == tc.simulate(LOAD, seed=one.seed).table
    a, b = (tc.simulate(LOAD, seed=child) for child in sequence.spawn(2))
    assert len({one.seed, a.seed, b.seed, *replications(sequence, 5), *replications(5, 5)}) == 12
    generator = np.random.default_rng(5)
    first, second = (tc.simulate(LOAD, seed=generator) for _ in range(2))
    assert first.seed != second.seed, "it draws"
    assert as_seed(np.random.default_rng(5)) == first.seed
    swept = [
        tc.sweep("trading", {"spawn_hz": [10]}, seed=seed, fixed={"duration_s": 0.01})
        for seed in (sequence, as_seed(sequence))
    ]
    assert swept[0].table["seed"].tolist() == swept[1].table["seed"].tolist()


def test_a_break_even_draws_its_seed_once():
    options = {"fixed": {"duration_s": 20, "spawn_hz": 2000}, "metric": "kernel_share", "tolerance": 0.5}
    generator = np.random.default_rng(3)
    found = tc.break_even("trading", "calls_hz", 0.01, 10, seed=generator, **options)
    again = tc.break_even("trading", "calls_hz", 0.01, 10, seed=as_seed(np.random.default_rng(3)), **options)
    assert found.value == again.value


@pytest.mark.parametrize("seed", [-1, 1 << 64, True, 1.5, "1", None, np.random.RandomState(1)])
def test_what_is_no_seed_is_refused_everywhere(seed):
    message = "seed must be an integer from 0 to 18446744073709551615"
    with pytest.raises(tc.SimError, match=message):
        tc.simulate(LOAD, seed=seed)
    with pytest.raises(tc.SimError, match=message):
        tc.compare(LOAD, policies=["ipi"], seed=seed)
    with pytest.raises(tc.SweepError, match=message):
        tc.sweep("trading", {"spawn_hz": [10]}, seed=seed)


def test_the_largest_seed_is_one():
    assert as_seed((1 << 64) - 1) == (1 << 64) - 1
    assert tc.simulate(scenarios.quiet(duration_s=0.001), seed=np.uint64((1 << 64) - 1)).seed == (1 << 64) - 1


@pytest.mark.parametrize("function", [tc.simulate, tc.compare, tc.sweep, tc.break_even, tc.repair])
def test_the_default_machine_is_the_same_everywhere(function):
    assert inspect.signature(function).parameters["machine"].default == defaults.MACHINE


def test_the_names_that_type_checkers_know_are_those_that_the_core_takes():
    for path in get_args(EntryPath):
        actor = scenarios.syscalls((2,), base_ns=900.0, by=path)
        assert LOAD.replace(actors=(actor,)).actors == (actor,)
    with pytest.raises(tc.SimError, match="sysexit"):
        LOAD.replace(actors=(scenarios.syscalls((2,), base_ns=900.0, by="sysexit"),))
    for cause in get_args(CauseName):
        load = scenarios.quiet(duration_s=0.001).replace(
            actors=(scenarios.interrupts((2,), rate_hz=1e5, cause=cause),)
        )
        assert tc.simulate(load).total(f"interrupts_{cause}") > 0, cause
    with pytest.raises(tc.SimError, match="cosmic"):
        LOAD.replace(actors=(scenarios.interrupts((2,), rate_hz=1e3, cause="cosmic"),))


def public_functions() -> dict[str, inspect.Signature]:
    found = {}
    for name in tc.__all__:
        value = getattr(tc, name)
        if inspect.isfunction(value):
            try:
                found[name] = inspect.signature(value)
            except ValueError:
                continue
    return found


def test_one_word_for_one_thing():
    for name, signature in public_functions().items():
        parameters = signature.parameters
        assert not {"replicates", "seeds", "n_jobs", "verbose"} & set(parameters), name
        if "progress" in parameters:
            assert parameters["progress"].default is None, name
            assert parameters["progress"].annotation == "Progress | bool | None", name
        if "threads" in parameters:
            assert parameters["threads"].default is None, name
            assert parameters["threads"].annotation == "int | None", name
        if "replications" in parameters:
            assert parameters["replications"].annotation == "int", name
        if "seed" in parameters and name != "SimResult":
            assert parameters["seed"].annotation == "Seed", name


def test_progress_is_told_in_one_form():
    told: dict[str, list[tuple[float, float | None]]] = {}

    def teller(name: str):
        told[name] = []
        return lambda done, total: told[name].append((done, total))

    tc.simulate(scenarios.trading(duration_s=5), progress=teller("simulate"))
    tc.compare(scenarios.trading(duration_s=5), policies=["ipi"], progress=teller("compare"))
    tc.sweep("quiet", {"cpus": [4]}, fixed={"duration_s": 0.001}, progress=teller("sweep"))
    tc.read_trace("tests/data/p4.w7.trace.txt.xz", progress=teller("read_trace"))
    tc.check("coalesce-v7-fixed", cpus=3, progress=teller("check"))
    for name, steps in told.items():
        assert all(isinstance(done, (int, float)) for done, _ in steps), name
        assert all(total is None or done <= total for done, total in steps), name
        if name != "check":  # several searches, one after the other
            assert [done for done, _ in steps] == sorted(done for done, _ in steps), name
    assert told["sweep"][-1] == (2, 2)
    assert {total for _, total in (*told["read_trace"], *told["check"])} == {None}


@pytest.mark.parametrize("threads", [0, -1, 65, True, 1.0])
def test_threads_are_a_number_or_none_for_all(threads):
    with pytest.raises(tc.CheckError, match="threads"):
        tc.check("ipi", threads=threads)
    if threads != 65:
        with pytest.raises(tc.SimError, match="threads"):
            tc.compare(LOAD, policies=["ipi"], threads=threads)
        with pytest.raises(tc.SweepError, match="threads"):
            tc.sweep("trading", {"spawn_hz": [10]}, threads=threads)
    assert tc.check("ipi", threads=None).status == tc.check("ipi", threads=1).status
