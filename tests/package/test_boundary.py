"""The line between Python and the core: what crosses it has the types that are stated, and a text is parsed once."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import _core, scenarios
from tlbcore._input import raw
from tlbcore._input.kinds import unaliased

MACHINE = "broadwell-ep-e5-2699v4"
DATA = Path(__file__).parent.parent / "data"


def problems(value: Any, wanted: Any, where: str) -> list[str]:
    """Say where a value is not of a type: every key of a TypedDict must be there and no other."""
    wanted = unaliased(wanted)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if typing.is_typeddict(wanted):
        hints = typing.get_type_hints(wanted)
        required = wanted.__required_keys__
        if not isinstance(value, (dict, types.MappingProxyType)):
            return [f"{where}: {type(value).__name__} is no mapping"]
        missing, strange = required - set(value), set(value) - set(hints)
        found = [f"{where}: {name} is missing" for name in sorted(missing)]
        found += [f"{where}: {name} is not stated" for name in sorted(strange)]
        return found + [
            problem
            for name in hints
            if name in value
            for problem in problems(value[name], hints[name], f"{where}.{name}")
        ]
    if origin in (typing.Union, types.UnionType):
        tried = [problems(value, one, where) for one in arguments]
        return [] if any(not found for found in tried) else [f"{where}: {value!r:.60} is none of {arguments}"]
    if origin is list:
        return [p for i, one in enumerate(value) for p in problems(one, arguments[0], f"{where}[{i}]")]
    if origin is tuple:
        same = isinstance(value, tuple) and len(value) == len(arguments)
        pairs = zip(value, arguments, strict=True) if same else ()
        return [f"{where}: {value!r:.60}"] * (not same) + [
            p for one, of in pairs for p in problems(one, of, where)
        ]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where}: {type(value).__name__} is no dict"]
        return [p for name, one in value.items() for p in problems(one, arguments[1], f"{where}[{name!r}]")]
    if origin is Mapping:  # what the core makes when it is asked for
        columns = {name: value[name] for name in value}
        return [p for name, one in columns.items() for p in problems(one, arguments[1], f"{where}[{name!r}]")]
    if origin is np.ndarray:
        (dtype,) = typing.get_args(arguments[1])
        right = isinstance(value, np.ndarray) and value.dtype == np.dtype(dtype) and value.ndim == 1
        return [] if right else [f"{where}: {getattr(value, 'dtype', value)!r} is not {dtype}"]
    if wanted is float:
        wanted = (int, float)
    if wanted is type(None):
        return [] if value is None else [f"{where}: {value!r} is not None"]
    right = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    return [] if right else [f"{where}: {value!r:.60} is no {wanted}"]


def request(**changes: Any) -> raw.RunRequest:
    load = scenarios.user_shootdown(duration_s=0.01)
    return {
        "scenario": load.to_json(), "machine": MACHINE, "kernel": tc.Kernel().to_json(),
        "jobs": [("coalesce-v7", "", 1), ("ipi", "", 2)], "skip": True, "keep": 16, "full": False, "bound": "best",
        "threads": 2, **changes,
    }  # fmt: skip


COURSE: raw.RunCourse = {"progress": None, "resume": None, "checkpoint": False, "every": None, "until": None}


def test_what_a_run_gives_has_the_types_that_are_stated():
    runs = _core.simulate(request(), COURSE)
    assert len(runs) == 2
    purges = _core.simulate(
        request(scenario=scenarios.spawn_storm(duration_s=60).to_json(), jobs=[("ipi", "", 1)]), COURSE
    )
    assert len(purges[0]["purges"]["cpu"]) > 0
    for run in [*runs, *purges]:
        assert problems(run, raw.RawRun, "run") == []
        statistics = ["cpu", "isolated", *(s.name for s in tc.statistics())]
        assert list(run["table"]) == statistics
        assert list(run["figures"]) == ["cpu_class", "cpus", *(f.name for f in tc.figures())]


def test_columns_of_a_run_are_made_when_they_are_asked_for():
    run = _core.simulate(
        request(scenario=scenarios.quiet(duration_s=2, cpus=3, isolated="1").to_json()), COURSE
    )[0]
    table, figures = run["table"], run["figures"]
    assert len(table) == 2 + len(tc.statistics())
    assert table["cpu"].tolist() == [0, 1, 2]
    assert table["isolated"].tolist() == [False, True, False]
    assert table["user_ps"][1] + table["interrupt_ps"][1] == 2 * 10**12
    assert [table[s.name].shape for s in tc.statistics()] == [(3,)] * len(tc.statistics())
    assert table["interference"].tolist() == table["interrupts_residual"].tolist() == [0, 2, 0]
    assert len(figures) == 2 + len(tc.figures())
    assert figures["cpu_class"] == ["isolated", "housekeeping", "all"]
    assert figures["cpus"].tolist() == [1, 2, 3]
    for name in ("cpus", "cpu_class ", "", None, 3, ["cpu"]):
        with pytest.raises(KeyError):
            table[name]
    once, again = table["interrupts_residual"], table["interrupts_residual"]
    once[:] = 0  # each is its own
    assert again.tolist() == [0, 2, 0]


def test_a_type_that_is_wrong_is_noticed():
    run = _core.simulate(request(), COURSE)[0]
    assert problems({**run, "more": 1}, raw.RawRun, "run") == ["run: more is not stated"]
    assert problems({k: v for k, v in run.items() if k != "inert"}, raw.RawRun, "run") == [
        "run: inert is missing"
    ]
    assert problems({**run, "reached_ps": "1"}, raw.RawRun, "run") == [
        "run.reached_ps: '1' is no <class 'int'>"
    ]
    assert problems({**run, "interrupted": 1}, raw.RawRun, "run")
    assert problems({**run, "purges": {**run["purges"], "tail": run["purges"]["cpu"]}}, raw.RawRun, "run")


def test_what_a_run_takes_is_what_is_stated():
    for name in raw.RunRequest.__required_keys__:
        short = {key: value for key, value in request().items() if key != name}
        with pytest.raises((KeyError, TypeError, ValueError)):
            _core.simulate(short, COURSE)
    for name in raw.RunCourse.__required_keys__:
        short = {key: value for key, value in COURSE.items() if key != name}
        with pytest.raises((KeyError, TypeError, ValueError)):
            _core.simulate(request(), short)


class Watched:
    """The core's functions, with all that they gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.given: dict[str, list[Any]] = {name: [] for name in names}
        for name in names:
            monkeypatch.setattr(_core, name, self._watched(name, getattr(_core, name)))

    def _watched(self, name: str, inner: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.given[name].append(inner(*args, **kwargs))
            return self.given[name][-1]

        return call


def test_what_the_checker_gives_has_the_types_that_are_stated(monkeypatch):
    watched = Watched(
        monkeypatch, "check_run", "check_necessary", "check_repair", "litmus_run", "policy_parse"
    )
    tc.check("coalesce-v7", world="pti")
    tc.check("coalesce-v7-fixed", world="pti")
    tc.necessary("coalesce-v7-fixed")
    tc.repair("coalesce-v7", world="pti")
    for file in sorted((DATA.parent / "litmus" / "tso").glob("*.litmus"))[:3]:
        for ends in (True, False):
            tc.litmus(file, ends=ends)
    wanted = {
        "check_run": raw.RawVerdict,
        "check_necessary": list[raw.RawNeed],
        "check_repair": list[raw.RawRepair],
        "litmus_run": raw.RawLitmus,
        "policy_parse": raw.RawPolicy,
    }
    for name, kind in wanted.items():
        assert watched.given[name]
        assert [p for found in watched.given[name] for p in problems(found, kind, name)] == []
    assert all(watched.given[name][0] for name in ("check_necessary", "check_repair"))  # lists of something
    assert {found["status"] for found in watched.given["check_run"]} == {"verified", "violated"}
    assert {found["ends"] is None for found in watched.given["litmus_run"]} == {True, False}


def test_what_machines_and_tlbs_give_has_the_types_that_are_stated():
    for name in tc.machines:
        assert problems(_core.machine_describe(name), raw.RawMachine, name) == []
        assert problems(_core.TlbState(name).levels(), list[raw.RawLevel], name) == []


def test_what_a_recording_gives_has_the_types_that_are_stated():
    data = _core.trace_read([str(DATA / "p4.w7.trace.txt.xz")])
    for found, kind in (
        (data.calls(), raw.RawCalls),
        (data.spans(), raw.RawSpans),
        (data.purges(), raw.RawPurges),
    ):
        assert problems(found, kind, kind.__name__) == []
        assert len({len(column) for column in found.values()}) == 1
        assert len(found["cause" if "cause" in found else "by"]) > 100
    assert problems(_core.trace_causes(), list[raw.RawCause], "causes") == []


def test_what_a_calibration_gives_has_the_types_that_are_stated():
    assert problems(_core.calibrate_run(0.05), raw.RawCalibration, "calibration") == []


@pytest.mark.parametrize("machine", [None, MACHINE])
def test_what_a_replay_gives_has_the_types_that_are_stated(machine):
    trace = tc.read_trace(DATA / "p4.w7.trace.txt.xz")
    replayed = tc.replay(trace, ["ipi", "coalesce-v7", "invlpgb"], machine=machine)
    for outcome in replayed.outcomes:
        assert problems(outcome, raw.Outcome, "outcome") == []
    figures = [name for name in typing.get_type_hints(raw.CpuOutcome) if name != "cpu"]
    assert figures == [name for name, _, _ in _core.replay_figures()]
    for name, unit, sentence in _core.replay_figures():
        assert sentence.endswith(".")
        assert unit == "count" or name.endswith(f"_{unit}")
        shown = f"{name.removesuffix('_s')}_low_s" if name.endswith("_s") else f"{name}_low"
        assert (shown in replayed.table) == (machine is not None or name != "entry_cost_ms")
        if shown in replayed.table:
            assert (replayed.table[shown].dtype == np.int64) == (unit == "count"), name


def test_the_page_of_recordings_lists_every_figure_of_a_replay():
    page = (Path(__file__).parent.parent.parent / "docs" / "tracing.md").read_text()
    for name, unit, sentence in _core.replay_figures():
        assert f"| `{name}` | {unit} | {sentence} |" in page


def test_a_result_carries_the_text_of_its_machine_and_the_version(tmp_path):
    text = 'inherits = "skylake-sp"\ntitle = "mine"\n'
    file = tmp_path / "mine.toml"
    file.write_text(text)
    run = tc.simulate("quiet", machine=str(file))
    file.write_text("changed")
    assert (run.machine_text, run.version) == (text, tc.__version__)
    assert tc.simulate("quiet", machine="skylake-sp").machine_text == "skylake-sp"


def own(name: str) -> tc.Policy:
    return tc.policies["coalesce-v7-fixed"].replace(name=name)


@pytest.mark.parametrize(
    ("run", "parsed"),
    [
        (lambda load, p: tc.simulate(load, policy=p), 1),
        (lambda load, p: tc.compare(load, policies=["ipi", p], replications=3), 1),
        # A sweep hands texts on without the names of their files, so that they are told apart by what they say alone.
        (lambda load, p: tc.sweep(load, {"duration_s": [0.001, 0.002, 0.003]}, policies=[p]), 2),
        (lambda _, p: tc.replay(tc.read_trace(DATA / "p4.w7.trace.txt.xz"), [p], machine=MACHINE), 1),
        (lambda _, p: tc.check(p, world="pti"), 1),
        (lambda _, p: tc.necessary(p, world="pti"), 1),
    ],
    ids=["simulate", "compare", "sweep", "replay", "check", "necessary"],
)
def test_a_file_is_parsed_once_however_often_it_runs(tmp_path, run, parsed):
    load = scenarios.syscall_heavy(duration_s=0.001)
    counted = []
    # Texts that are kept begin anew after 256: if that was just now, it is not again.
    for _ in range(2):
        run(load, own("warm"))  # the built-in ones are parsed
        number = _core.policy_parsed()
        file = tmp_path / f"once-{number}.policy"
        file.write_text(own("once").text.replace("policy once\n", f"policy once-{number}\n"))
        before = _core.policy_parsed()
        for _ in range(3):
            run(load, file)
        counted.append(_core.policy_parsed() - before)
    assert parsed in counted, counted


def test_a_file_that_changes_is_read_anew(tmp_path):
    """What is kept is kept by the text, not by the name of its file."""
    load = scenarios.syscall_heavy(duration_s=0.001)
    file = tmp_path / "changing.policy"
    flushes = []
    for name in ("coalesce-v7-fixed", "ipi"):
        file.write_text(tc.policies[name].replace(name="changing").text)
        flushes.append(tc.simulate(load, policy=file).total("entry_flushes_unneeded", isolated=True))
    assert flushes[0] > 100
    assert flushes[1] == 0


# Where a command does not stand for the default of its function: what it says in its place.
OTHER_DEFAULTS = {
    ("check", "policy"): "",  # left out with --all
    ("compare", "scenario"): "rteval",
    ("litmus", "memory"): "auto",  # read by the command itself
}
COMMANDS = {
    "calibrate": 4, "check": 3, "compare": 3, "litmus": 2, "miss_curve": 3, "repair": 2, "replay": 1, "sweep": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_defaults_of_its_function(name: str) -> None:
    function = inspect.signature(getattr(tc, name)).parameters
    command = inspect.signature(importlib.import_module(f"tlbcore.cli.{name}").command).parameters
    missing = inspect.Parameter.empty
    both = [k for k in function if k in command and command[k].default is not missing]
    differing = {(name, k): command[k].default for k in both if command[k].default != function[k].default}
    assert differing == {k: v for k, v in OTHER_DEFAULTS.items() if k[0] == name}
    same = [k for k in both if (name, k) not in differing]
    assert len(same) == COMMANDS[name], "an option that loses its parameter is no longer compared"
