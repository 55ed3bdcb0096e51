"""What no simulation can be: refused with the value and the rule, never with a traceback of our own."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import cli, scenarios

MACHINE = "broadwell-ep"


def load(*actors: scenarios.Actor, **changes: Any) -> scenarios.Scenario:
    fields = {"name": "x", "duration_s": 0.001, "cpus": 4, "isolated": "2-3", "actors": actors, **changes}
    return scenarios.Scenario(**fields)


def simulate(**options: Any) -> tc.SimResult:
    return tc.simulate(options.pop("scenario", load()), **{"machine": MACHINE, **options})


def sweep(*grid: Any, **options: Any) -> tc.Sweep:
    fixed = {"duration_s": 0.001, "cpus": 2, "isolated": "1"}
    return tc.sweep("quiet", *(grid or [{"residual_hz": [1]}]), **{"fixed": fixed, **options})


def chain(**changes: Any) -> scenarios.Scenario:
    step = {"program": "purge", "pages": 0, "cause": "aliases", **changes}
    return load(scenarios.chain([step], rate_hz=1))


def policy(*lines: str) -> tc.Policy:
    body = "\n".join(f"  {line}" for line in lines)
    return tc.Policy(text=f"policy p\n  page x : vmalloc, absent\nto_kernel\n{body}\n", file="p")


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
    (lambda: load(flush_mask="9"), tc.SimError, "flush_mask: CPU 9 does not exist"),
    (lambda: load(name=3), tc.SimError, "scenario: name must be a text: got 3"),
    # Steps of chains.
    (lambda: chain(cause="alias"), tc.SimError, 'scenario "x": actor "chain": unknown variant `alias`'),
    (lambda: chain(per_mille=2000), tc.SimError, "a chance per mille is at most 1000: got 2000"),
    (lambda: chain(program="syscall"), tc.SimError, '"syscall" is no kernel work that a chain can run'),
    (lambda: load(scenarios.chain([], rate_hz=1)), tc.SimError, "there is no step"),
    (
        lambda: simulate(scenario=chain(program="purg")),
        tc.SimError,
        "no program `purg`; did you mean `purge`",
    ),
    # Ops the machine lacks, and accesses to what nothing maps.
    (
        lambda: simulate(policy=policy("invlpgb all")),
        tc.PolicyError,
        "p:4:3: `invlpgb all`: the CPU has no INVL",
    ),
    (
        lambda: simulate(policy=policy("rar others")),
        tc.PolicyError,
        "p:4:3: `rar others`: the CPU has no remote",
    ),
    (
        lambda: simulate(policy=policy("invpcid all"), machine="haswell-e3-1231v3"),
        tc.PolicyError,
        "the CPU has no INVPCID; `if feature invpcid` or `needs invpcid`",
    ),
    (lambda: simulate(policy=policy("read x")), tc.PolicyError, "p:4:3: `read x`: no table maps `x`"),
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
    (
        lambda: tc.compare("quiet", machine=MACHINE, replications=True),
        tc.SimError,
        "replications .* got True",
    ),
    (lambda: tc.Kernel(nopcid=2), tc.ConfigError, "nopcid must be True or False: got 2"),
    (
        lambda: tc.Kernel(pti="on"),
        tc.ConfigError,
        r"pti must be True, False or None \(the CPU decides\): got 'on'",
    ),
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


def test_the_user_table_has_no_kernel_pages() -> None:
    text = "policy p\n  based on coalesce-v7\n  page x : vmalloc\n\n"
    text += "coalesce\n  mov cr3, user\n  read x\n  mov cr3, kernel\n"
    run = simulate(scenario=scenarios.syscall_heavy(duration_s=0.001), policy=tc.Policy(text=text, file="p"))
    assert run.violation is not None
    assert run.violation.startswith("unmapped_access on CPU")
    assert run.violation.endswith("p:7")


def test_time_that_a_program_never_leaves_is_kernel_time() -> None:
    text = "policy p\n  var never : 1 bit\n\nto_kernel\n  await never == 1\n"
    run = simulate(scenario=scenarios.syscall_heavy(duration_s=0.01), policy=tc.Policy(text=text, file="p"))
    isolated = run.table["isolated"]
    assert (run.table["user_ps"][isolated] < 1e7).all()
    assert (run.table["kernel_ps"][isolated] > 0.99e10).all()


GRID = 'scenario = "quiet"\n{}\n[fixed]\nduration_s = 0.001\n{}\n[grid]\nresidual_hz = [1]\n'
ANY_ZIP = 'scenario = "quiet"\n[[zip]]\nresidual_hz = 1\n'

COMMANDS = [
    ("", "compare --machine mine.toml", "mine.toml:1: key with no value, expected `=`"),
    ("", "compare --machine folder.toml", "folder.toml: is a directory"),
    ("", "compare --policy folder.policy", "folder.policy: is a directory"),
    ("", "compare --policy ipii", "did you mean `ipi`"),
    ("", "compare --machine skylake-ps", 'did you mean "skylake-sp"'),
    ("", "compare --scenario quite", "unknown scenario 'quite', did you mean 'quiet'"),
    ("", "compare --scenario quiet --duration nan", "duration_s must be a finite number above 0"),
    ("", "compare --scenario quiet --replications 0", "replications must be an integer from 1"),
    ("", "sweep folder.toml --out out", "folder.toml: is a directory"),
    (
        GRID.format("machine = 3", ""),
        "sweep grid.toml --out out",
        "a machine is a name, a file or a Machine: got 3",
    ),
    (GRID.format("replications = 'a'", ""), "sweep grid.toml --out out", "replications must be an integer"),
    (
        GRID.format("", "cpus = 2.5"),
        "sweep grid.toml --out out",
        "no point can be simulated: scenario 'quiet': cpus",
    ),
    (
        GRID.format("", "[kernel]\nptii = 3"),
        "sweep grid.toml --out out",
        "unknown key 'ptii', did you mean 'pti'",
    ),
    (
        GRID.format("", "[kernel]\npti = 3"),
        "sweep grid.toml --out out",
        "pti must be True, False or None (the CPU decides): got 3",
    ),
    (ANY_ZIP, "sweep grid.toml --out out", "a [[zip]] is a table of lists: got {'residual_hz': 1}"),
    ("scenario = 3\n[grid]\na = [1]", "sweep grid.toml --out out", "unknown scenario 3: known are"),
]


@pytest.mark.parametrize(("grid", "command", "text"), COMMANDS, ids=[text for _, _, text in COMMANDS])
def test_a_command_says_in_one_line_what_cannot_be(grid, command, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.toml", "folder.policy"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine.toml").write_text("a machine")
    (tmp_path / "grid.toml").write_text(grid, encoding="utf-8-sig")
    assert cli.main(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tlbcore: error: ")
    assert text in line


def test_closed_streams_are_no_traceback():
    command = f"{sys.executable} -m tlbcore machines"
    closed = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stderr) == (2, "tlbcore: error: standard output is closed\n")
    silent = subprocess.run(f"{command} 2>&-", shell=True, capture_output=True, text=True, check=False)
    assert silent.returncode == 0
    assert "skylake-sp" in silent.stdout
