"""What no simulation can be: refused with the value and the rule, never with a traceback of our own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios

MACHINE = "broadwell-ep"


def load(*actors: scenarios.Actor, **changes: Any) -> scenarios.Scenario:
    fields = {"name": "x", "duration_s": 0.001, "cpus": 4, "isolated": "2-3", "actors": actors, **changes}
    return scenarios.Scenario(**fields)


def simulate(**options: Any) -> tc.SimResult:
    return tc.simulate(options.pop("scenario", load()), **{"machine": MACHINE, **options})


def sweep(*grid: Any, **options: Any) -> tc.Sweep:
    fixed = {"duration_s": 0.001, "cpus": 2, "isolated": "1"}
    return tc.sweep("quiet", *(grid or [{"residual_hz": [1]}]), **{"fixed": fixed, **options})


STEP = {"program": "purge", "pages": 0, "cause": "aliases"}

BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: scenarios.quiet(cpus=4, isolated="2-9"), tc.SimError, "CPU 4 does not exist"),
    (lambda: scenarios.quiet(cpus=4, isolated="0-1"), tc.SimError, "CPU 0 cannot be isolated"),
    (lambda: scenarios.quiet(isolated="3-2"), tc.SimError, "must rise"),
    (lambda: scenarios.quiet(isolated="a"), tc.SimError, "a CPU list"),
    (lambda: scenarios.quiet(duration_s=-1), tc.SimError, "duration"),
    (lambda: scenarios.quiet(duration_s=math.nan), tc.SimError, "duration"),
    (lambda: scenarios.quiet(residual_hz=-2), tc.SimError, "rate"),
    (lambda: scenarios.spawn_storm(rate_hz=math.inf), tc.SimError, "rate"),
    (lambda: scenarios.spawn_storm(batch=0), tc.SimError, "batch"),
    (lambda: scenarios.quiet(cpus=0), tc.SimError, "cpus"),
    (lambda: scenarios.by_name("rtevil"), tc.SimError, "did you mean 'rteval'"),
    (lambda: scenarios.by_name("quiet", speed=3), tc.SimError, "speed"),
    (lambda: tc.simulate("quiet", machine="broadwel-ep"), tc.TlbError, "did you mean"),
    (lambda: tc.simulate("quiet", machine=MACHINE, policy="ipl"), tc.PolicyError, "did you mean"),
    (lambda: tc.simulate("quiet", machine=MACHINE, seed=-1), tc.SimError, "seed"),
    (lambda: tc.compare("quiet", machine=MACHINE, policies=[]), tc.SimError, "no policy"),
    (lambda: tc.compare("quiet", machine=MACHINE, policies=["ipi", "ipi"]), tc.SimError, "two policies"),
    (lambda: tc.Kernel(coalesce_tlbi=True, no_hz_full=False), tc.ConfigError, "NO_HZ_FULL is not set"),
    # CPU lists: one reader, whatever they are for.
    (lambda: load(isolated=(1.5,)), tc.SimError, r"a CPU is a number from 0 to 65535: got 1\.5"),
    (lambda: load(isolated=[True]), tc.SimError, "a CPU is a number from 0 to 65535: got True"),
    (lambda: load(isolated=("2",)), tc.SimError, "a CPU is a number from 0 to 65535: got '2'"),
    (lambda: load(isolated=2), tc.SimError, "a text such as 2-3,8 or numbers: got 2"),
    (lambda: load(isolated="2,,3"), tc.SimError, "got '' in '2,,3'"),
    (lambda: load(flush_mask=(-1,)), tc.SimError, "a CPU is a number from 0 to 65535: got -1"),
    (lambda: load(scenarios.spin("isolatd")), tc.SimError, "place 'isolatd', did you mean 'isolated'"),
    (lambda: load(scenarios.spin(None)), tc.SimError, "numbers: got None"),
    (lambda: tc.read_trace(__file__, isolated=[1.5]), tc.TraceError, r"isolated CPUs: a CPU is .* got 1\.5"),
    # Numbers: finite, of their kind, in their range.
    (lambda: load(cpus=True), tc.SimError, "'x': cpus must be an integer from 1 to 4096: got True"),
    (lambda: load(cpus="4"), tc.SimError, "cpus must be an integer from 1 to 4096: got '4'"),
    (lambda: load(sockets=None), tc.SimError, "'x': sockets must be an integer from 1 to 4096: got None"),
    (lambda: load(duration_s="1"), tc.SimError, "'x': duration_s must be a finite number above 0 .* got '1'"),
    (lambda: load(rcu_ms=1e300), tc.SimError, r"rcu_ms must be .* at most 4\.61169e\+09: got 1e\+300"),
    (lambda: load(work_delay_us=None), tc.SimError, "work_delay_us must be .* got None"),
    (lambda: load(lazy_max_pages=1.5), tc.SimError, r"lazy_max_pages must be an integer .* got 1\.5"),
    (lambda: load(actors=[3]), tc.SimError, r"actors are a sequence of Actor: got \[3\]"),
    (lambda: load(actors=scenarios.spin()), tc.SimError, "actors are a sequence of Actor"),
    (lambda: scenarios.spin(user_pages=-1), tc.SimError, "spin: user_pages must be an integer .* got -1"),
    (lambda: scenarios.syscalls(base_ns="1"), tc.SimError, "syscalls: base_ns must be .* got '1'"),
    (lambda: scenarios.syscalls(base_ns=1, kernel_pages=1.5), tc.SimError, r"kernel_pages must .* got 1\.5"),
    (lambda: scenarios.syscalls(base_ns=1, poisson=3), tc.SimError, "poisson must be True or False: got 3"),
    (lambda: scenarios.faults(rate_hz=None), tc.SimError, "faults: a rate must be .* above 0: got None"),
    (lambda: scenarios.forks(rate_hz=1, batch=1.5), tc.SimError, r"forks: batch must be .* got 1\.5"),
    (lambda: scenarios.vfree(rate_hz=1, pages=-3), tc.SimError, "vfree: pages must be .* got -3"),
    (lambda: scenarios.tasks([], rate_hz=1, processes=-1), tc.SimError, "tasks: processes must be .* got -1"),
    (lambda: scenarios.zipf(3, s="a"), tc.SimError, "zipf: s must be a finite number .* got 'a'"),
    (lambda: scenarios.stream("all", 3, rate_hz=1), tc.SimError, "a pattern is made by zipf .* got 3"),
    (lambda: scenarios.rteval(cpus=44.5), tc.SimError, r"cpus must be an integer from 1 to 4096: got 44\.5"),
    (lambda: scenarios.trading(calls_hz=-1), tc.SimError, "calls_hz must be a finite number above 0: got -1"),
    (lambda: scenarios.text_poke(calls_hz=math.nan), tc.SimError, "calls_hz must be .* got nan"),
    (lambda: scenarios.text_poke(calls_hz=-1), tc.SimError, "calls_hz must be .* at least 0: got -1"),
    (lambda: scenarios.module_load(pokes=-1), tc.SimError, "pokes must be an integer from 0 to 1000: got -1"),
    (lambda: scenarios.chain([3], rate_hz=1), tc.SimError, "chain: a step is a mapping: got 3"),
    (lambda: scenarios.chain(3, rate_hz=1), tc.SimError, "chain: steps are a list of mappings: got 3"),
    # Arguments of a run.
    (lambda: scenarios.by_name("quiet", residual=1), tc.SimError, "'residual', did you mean 'residual_hz'"),
    (lambda: scenarios.by_name(3), tc.SimError, "unknown scenario 3: known are dpdk-poll"),
    (lambda: simulate(scenario=3), tc.SimError, "unknown scenario 3: known are dpdk-poll"),
    (lambda: simulate(machine=3), tc.TlbError, "a machine is a name, a file or a Machine: got 3"),
    (lambda: simulate(machine="mine.toml"), OSError, "No such file"),
    (lambda: simulate(timeline=True), tc.SimError, "timeline must be an integer .* got True"),
    (
        lambda: simulate(timeline=1 << 60),
        tc.SimError,
        "timeline must be an integer .* got 1152921504606846976",
    ),
    (lambda: simulate(costs=None), tc.SimError, "costs must be best or low or high: got None"),
    (lambda: simulate(skip=3), tc.SimError, "skip must be True or False: got 3"),
    (lambda: simulate(checkpoint="/no/such/file"), tc.SimError, "there is no directory /no/such"),
    (lambda: tc.compare("quiet", machine=MACHINE, policies="ipi"), tc.PolicyError, "a list of .* got 'ipi'"),
    (lambda: tc.compare("quiet", machine=MACHINE, policies=3), tc.PolicyError, "a list of .* got 3"),
    (lambda: tc.compare("quiet", machine=MACHINE, threads=0), tc.SimError, "threads must be .* got 0"),
    (lambda: tc.compare("quiet", machine=MACHINE, replicates=True), tc.SimError, "replicates .* got True"),
    (lambda: tc.Kernel(nopcid=2), tc.ConfigError, "nopcid must be True or False: got 2"),
    (lambda: tc.Kernel(pti="on"), tc.ConfigError, "pti must be True or False: got 'on'"),
    (
        lambda: tc.Kernel(flush_ceiling=math.nan),
        tc.ConfigError,
        "flush_ceiling must be an integer .* got nan",
    ),
    (lambda: sweep(threads=-2), tc.SweepError, "threads must be an integer from 1 to 4096: got -2"),
    (lambda: sweep(replications=1.5), tc.SweepError, r"replications must be an integer .* got 1\.5"),
    (lambda: sweep(kernel=3), tc.ConfigError, "kernel must be a tlbcore.Kernel: got int"),
    (lambda: sweep(fixed=[1]), tc.SweepError, r"fixed maps names to values: got \[1\]"),
    (lambda: sweep(machine=3), tc.TlbError, "a machine is a name, a file or a Machine: got 3"),
    (lambda: sweep(policies="ipi"), tc.PolicyError, "a list of .* got 'ipi'"),
    (lambda: sweep({3: [1]}), tc.SweepError, "keys are names or tuples of names: got 3"),
    (lambda: tc.sweep(3, {"a": [1]}), tc.SimError, "unknown scenario 3"),
]


@pytest.mark.parametrize(("make", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_what_cannot_be_is_refused_with_the_rule(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_rare_events_and_numbers_of_numpy_are_fine():
    assert load(scenarios.spin(), scenarios.faults(rate_hz=1e-300)).cpus == 4
    actor = scenarios.syscalls(base_ns=np.float32(900), kernel_pages=np.int64(3), poisson=np.True_)
    assert load(actor, isolated=np.array([2, 3], dtype=np.uint16)).isolated == (2, 3)
    assert load(scenarios.spin("2-3")).actors[0].on == (2, 3)


def test_a_sweep_varies_flags_of_the_kernel():
    done = sweep({"kernel.nopcid": [False, True]})
    assert len(done) == 4
    assert not len(done.failed["error"])


def test_a_byte_order_mark_at_the_start_of_a_file_is_no_part_of_its_text(tmp_path: Path):
    policy = tmp_path / "mine.policy"
    policy.write_text(tc.policies["ipi"].text, encoding="utf-8-sig")
    assert tc.Policy.read(policy) == tc.policies["ipi"]
