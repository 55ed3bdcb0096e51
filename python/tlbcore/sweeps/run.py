"""Sweeps: many simulations of one configuration with some parameters varied.

A point is a configuration and a seed; what identifies it is a hash of just that. So a sweep that was killed goes on
where it stopped, a widened grid computes only what is new, and policies of one point see the same workload.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlbcore import _core
from tlbcore._core import SweepError, TlbcoreError
from tlbcore._input import defaults
from tlbcore._input.names import unknown
from tlbcore._input.numbers import as_threads, flag
from tlbcore._input.raw import RawRun
from tlbcore._input.seeds import Seed, as_seed
from tlbcore._output.calls import kept
from tlbcore._output.progress import Progress, shown
from tlbcore._output.result import InertPolicyWarning
from tlbcore._output.signals import endings
from tlbcore.hardware import Machine
from tlbcore.hardware import machine as as_machine
from tlbcore.kernel import Kernel, machine_text
from tlbcore.policy import Policy, as_policies, as_policy
from tlbcore.policy import policies as builtin
from tlbcore.scenarios import SCENARIOS, Scenario, by_name
from tlbcore.simulation.run import SimResult, result_of
from tlbcore.sweeps import batches, results
from tlbcore.sweeps.batches import Interrupted, Outcome
from tlbcore.sweeps.metrics import DEFAULT_METRICS, Metric, as_metrics, as_number
from tlbcore.sweeps.parts import Directory, Keys
from tlbcore.sweeps.points import Batch, Column, Points, grid_axes, sample_axis
from tlbcore.sweeps.results import Sweep

__all__ = ["Sweep", "read_sweep", "sweep"]

MANY = 10_000_000  # points; more are computed only when told so
SEEDS = "0.1.0"  # the version from which points have had their seeds
OURS = ("machine", "policy")  # parameters that are not the scenario's
_ELSEWHERE = {
    "policy": "pass policies=",
    "machine": "pass machine=",
    "kernel": "pass kernel=",
}

Base = str | Scenario | Callable[..., Scenario]


@dataclass(frozen=True, kw_only=True)
class _Simulations:
    """The job: a batch of points in, figures out. Pickled when an executor runs it elsewhere."""

    base: Base
    fixed: Mapping[str, Any]
    kernel: Kernel
    machines: Mapping[str, Machine]  # by label
    policies: Mapping[str, Policy]
    metrics: tuple[str, ...]
    own: tuple[Callable[[SimResult], float], ...] = ()
    whole: frozenset[str] = frozenset()  # parameters whose values were given as integers

    def scenario(self, given: Mapping[str, Any]) -> Scenario:
        """Return the workload with some parameters set."""
        if isinstance(self.base, str):
            return by_name(self.base, **{**self.fixed, **given})
        if isinstance(self.base, Scenario):
            return self.base.replace(**{**self.fixed, **given})
        made = self.base(**{**self.fixed, **given})
        if not isinstance(made, Scenario):
            raise SweepError(f"the function must return a Scenario: got {made!r} ({type(made).__name__})")
        return made

    def __call__(self, batch: Batch, threads: int) -> Outcome:
        varied = [name for name in batch.columns if name not in OURS and not name.startswith("kernel.")]
        tuned = [name for name in batch.columns if name.startswith("kernel.")]
        errors: list[str | None] = [None] * len(batch)
        scenarios = _Distinct(self.texts(varied))
        named = self.named(tuned, "kernel.")
        kernels = _Distinct(lambda values: _with_text(self.kernel.replace(**named(values)), Kernel.to_json))
        machines = _Distinct(lambda values: _with_text(self.machines[values[0]], machine_text))
        policies = _Distinct(lambda values: _with_text(self.policies[values[0]], str))
        columns = [
            (scenarios, [batch.columns[name] for name in varied]),
            (machines, [batch.columns.get("machine", [next(iter(self.machines))] * len(batch))]),
            (kernels, [batch.columns[name] for name in tuned]),
            (policies, [batch.columns.get("policy", [next(iter(self.policies))] * len(batch))]),
        ]
        choices = np.zeros((len(batch), 4), dtype=np.uint32)
        for part, (distinct, values) in enumerate(columns):
            rows = _rows(values, len(batch))
            places = {row: distinct.index(row) for row in dict.fromkeys(rows)}
            if len(places) == 1:
                rows = rows[:1]  # one for all
            failed = {row: place for row, place in places.items() if isinstance(place, str)}
            if failed:
                spread = rows if len(rows) > 1 else rows * len(batch)
                errors = [error or failed.get(row) for error, row in zip(errors, spread, strict=True)]
            choices[:, part] = [0 if row in failed else places[row] for row in rows]
        sound = np.array([error is None for error in errors], dtype=bool)
        figures, found, done, without, outputs = _core.sweep_run(
            scenarios.texts, machines.texts, kernels.texts, policies.texts,
            np.ascontiguousarray(choices[sound]), batch.seeds[sound].tolist(), self.metrics, bool(self.own), threads,
        )  # fmt: skip
        where = np.flatnonzero(sound)
        for place, error in zip(where.tolist(), found, strict=True):
            errors[place] = error
        whole_figures = np.full((len(figures) + len(self.own), len(batch)), np.nan)
        whole_figures[: len(figures), where] = figures
        for place, raw in zip(where.tolist(), outputs or (), strict=self.own != ()):
            if raw is not None:
                parts = [part.made[i] for (part, _), i in zip(columns, choices[place].tolist(), strict=True)]
                result = _point(raw, parts, int(batch.seeds[place]))
                try:
                    whole_figures[len(figures) :, place] = [as_number(metric, result) for metric in self.own]
                except Exception as error:  # the user's function; the other points are not to blame
                    errors[place] = f"{type(error).__name__}: {error}"
        inert = np.zeros(len(batch), dtype=bool)
        inert[where] = without
        names = [*self.metrics, *(metric.__name__ for metric in self.own)]
        outcome = Outcome(metrics=dict(zip(names, whole_figures, strict=True)), errors=errors, inert=inert)
        if not done.all():
            reached = np.ones(len(batch), dtype=bool)
            reached[where] = done
            raise Interrupted(done=reached, outcome=outcome.select(reached))
        return outcome

    def texts(self, names: Sequence[str]) -> Callable[[tuple[Any, ...]], tuple[Any, str]]:
        """Return what makes the workload of some values, and its text as the engine gets it."""
        named = self.named(names)
        return lambda values: _with_text(self.scenario(named(values)), Scenario.to_json)

    def named(self, names: Sequence[str], prefix: str = "") -> Callable[[tuple[Any, ...]], dict[str, Any]]:
        """Return what gives numbers of a column, which are floats, the kind that their parameter has."""
        makers = []
        for name in names:
            kind = self.kind(name) or ("int" if name in self.whole else "")
            make = _whole if kind.startswith("int") else _flag if kind.startswith("bool") else None
            makers.append((name.removeprefix(prefix), make))
        return lambda values: {
            name: value if make is None or isinstance(value, str) else make(value)
            for (name, make), value in zip(makers, values, strict=True)
        }

    def kind(self, name: str) -> str:
        """Return a parameter's annotation; empty if it has none."""
        return annotation(self.base, name)


def _check_base(base: Base) -> None:
    if base not in SCENARIOS if isinstance(base, str) else not (isinstance(base, Scenario) or callable(base)):
        raise _core.SimError(unknown("scenario", base, SCENARIOS))


def _own(base: Base) -> dict[str, str]:
    """Name every parameter of a scenario, with its annotation."""
    if isinstance(base, Scenario):
        return {field.name: str(field.type) for field in dataclasses.fields(base)}
    try:
        signature = inspect.signature(SCENARIOS[base] if isinstance(base, str) else base)
    except ValueError:
        raise SweepError(f"{base!r} does not say what its parameters are: wrap it in a function") from None
    # Values are passed by name, one for each.
    taken = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: _written(p.annotation) for p in taken}


def _written(annotation: Any) -> str:
    """Return an annotation as text, such as `int | None`, however it is written; empty if there is none."""
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.removeprefix("typing.").removeprefix("Optional[").removeprefix("None | ")


def annotation(base: Base, name: str) -> str:
    """Return the annotation of a parameter that can be varied; empty if it has none."""
    _check_base(base)
    kernel = {f"kernel.{field.name}": str(field.type) for field in dataclasses.fields(Kernel)}
    known = {**_own(base), **kernel, "machine": "str", "policy": "str"}
    if name not in known:
        raise SweepError(unknown("parameter", name, known))
    return known[name]


class _Distinct:
    """The distinct values of a part of the points, made once each, with their texts."""

    def __init__(self, make: Callable[[tuple[Any, ...]], tuple[Any, str]]) -> None:
        self._make = make
        self._known: dict[tuple[Any, ...], int | str] = {}
        self.made: list[Any] = []
        self.texts: list[str] = []

    def index(self, values: tuple[Any, ...]) -> int | str:
        """Return the place of these values, or the error they make."""
        if values not in self._known:
            try:
                made, text = self._make(values)
            except TlbcoreError as error:
                self._known[values] = str(error)
            except Exception as error:  # a function of the user's; the other points are not to blame
                self._known[values] = f"{type(error).__name__}: {error}"
            else:
                self._known[values] = len(self.texts)
                self.made.append(made)
                self.texts.append(text)
        return self._known[values]


def _with_text(made: Any, text: Callable[[Any], str]) -> tuple[Any, str]:
    return made, text(made)


def _point(raw: RawRun, parts: Sequence[Any], seed: int) -> SimResult:
    scenario, machine, kernel, policy = parts
    return result_of(raw, scenario, machine, kernel, policy, seed)


def _rows(columns: Sequence[Column], length: int) -> list[tuple[Any, ...]]:
    """Return the values of each point; one empty row for all where nothing is varied."""
    lists = [column if isinstance(column, list) else column.tolist() for column in columns]
    return list(zip(*lists, strict=True)) if lists else [()] * length


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _flag(value: float) -> float | bool:
    return bool(value) if value in (0, 1) else value


@kept
def sweep(
    base: Base,
    grid: Mapping[str | tuple[str, ...], Sequence[Any]] | None = None,
    *,
    samples: Any = None,
    names: Sequence[str] | None = None,
    policies: Sequence[str | Path | Policy] = ("ipi", "coalesce-v7-fixed"),
    machine: str | Machine = defaults.MACHINE,
    kernel: Kernel | None = None,
    fixed: Mapping[str, Any] | None = None,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    replications: int = 1,
    seed: Seed = 1,
    threads: int | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    out: str | Path | None = None,
    yes: bool = False,
    progress: Progress | bool | None = None,
) -> Sweep:
    """Simulate every point of a grid, or every sample.

    Parameters
    ----------
    base
        Name of a built-in scenario, a function that returns a `Scenario`, or a `Scenario`.
    grid
        Values by parameter; all combinations are computed. A tuple of names with rows of values changes them
        together. Parameters are those of the scenario, `machine`, `policy`, and `kernel.NAME` for the fields of
        `Kernel`.
    samples, names
        Instead of a grid: columns by name, a pandas or polars data frame, a structured array, or an array of shape
        (n, parameters) with `names` (SALib: `names=problem["names"]`; `scipy.stats.qmc` after `qmc.scale`). Row i of
        one policy and replication is sample i; a sample that is given twice stands there twice.
    policies
        The policies of every point, unless `policy` is in the grid. They see the same workload, draw by draw.
    machine, kernel
        CPU model and kernel, where they are not varied.
    fixed
        Parameters of the scenario that are the same in every point.
    metrics
        What to compute of each point, a column each: figures (`tlbcore.figures()`) by name, `NAME` of isolated CPUs,
        `housekeeping_NAME` or `all_NAME`; and functions of your own. Such a function is called once per point with
        its `SimResult` (without timeline), in the process that simulated it, and returns a number, NaN for
        *missing*; it should depend on nothing else. An exception is the error of that row. Its column is its
        `__name__`. It is pickled for an executor, and cannot be kept in `out`, since nothing tells whether it changed.
    replications
        Seeds per point, derived from `seed` and the point.
    seed
        Seed of the sweep: an integer, or a NumPy `SeedSequence` or `Generator`.
    threads
        Threads in this process; as many as there are CPUs when left out. Results do not depend on it. Not beside an
        `executor`.
    executor
        A `concurrent.futures.Executor`, such as Dask's `client.get_executor()` or `mpi4py.futures`, or a function
        that makes one: then a process pool that broke is replaced.
    out
        Directory for the results. A sweep that is already there goes on; nothing is computed twice.
    yes
        Compute more than ten million points.
    progress
        Called with (points done, points to do), both without what earlier runs left in `out`; True shows a bar with
        rate and time left, on a terminal or in a notebook (extra `cli`).

    Returns
    -------
    Sweep
        The rows of this grid or these samples, in the order in which they were asked for, whoever computed them
        and when. After Ctrl-C those that are done, with `interrupted` set; the same call with the same `out` goes
        on. (KeyboardInterrupt if there is none yet.)

    Raises
    ------
    SweepError
        If a parameter is unknown, the grid is empty, or the directory holds anything else.
    PolicyError, TlbError, SimError, ConfigError
        If what all points share cannot be; a single point that cannot be is a row with its error.

    Examples
    --------
    >>> import tlbcore as tc
    >>> result = tc.sweep("syscall-heavy", {"spawn_hz": [10, 100]}, fixed={"duration_s": 0.01})
    >>> len(result), result.parameters
    (4, ('spawn_hz', 'policy'))
    """
    if executor is not None and threads is not None:
        raise SweepError(
            "threads are of this process, and an executor computes in others: give one of the two"
        )
    threads = as_threads(threads, SweepError)
    yes = flag(yes, "yes", SweepError)
    job, points, identity = _plan(
        base, grid, samples=samples, names=names, policies=policies, machine=machine, kernel=kernel, fixed=fixed,
        metrics=metrics, replications=replications, seed=seed,
    )  # fmt: skip
    if job.own and out is not None:
        raise SweepError(
            f"out= takes metrics by name only: nothing tells whether {job.own[0].__name__} has changed since"
        )
    units = dict(zip(job.metrics, _core.metric_units(job.metrics), strict=True))
    units |= {metric.__name__: "" for metric in job.own}
    known = list(units)
    if len(points) > MANY and not yes:
        raise SweepError(_too_many(job, points, len(known)))
    design = points.design()
    with ExitStack() as open_:
        if out is not None:
            open_.enter_context(endings())
        rows: results.Memory | results.Disk
        directory = None
        if out is None:
            rows = results.Memory(known)
        else:
            directory = open_.enter_context(Directory(Path(out), identity, units))
            directory.plan(design)
            rows = results.Disk(directory, known)
        if executor is None:
            steps = batches.drive_threads(points, job, rows.done.contains, rows.sink, threads)
        else:
            steps = batches.drive_executor(points, job, rows.done.contains, rows.sink, executor)
        left = design.keys[~rows.done.contains(design.keys)]
        total = len(Keys(left)) if points.may_repeat else len(left)
        advance = open_.enter_context(shown(progress, "sweep", "points"))
        finished, interrupted = 0, False
        try:
            for step in steps:
                finished += step
                if advance is not None:
                    advance(finished, total)
        except KeyboardInterrupt:
            if not rows:
                raise
            interrupted = True
        if directory is not None and not interrupted:
            directory.compact()
    if isinstance(rows, results.Memory):
        result = results.from_memory(rows, design, known, units, identity)
    else:
        result = results.from_directory(Path(out or ""))
    for said in results.inert_policies(result.table):
        warnings.warn(
            f"{said}: there the figures under its name are mainline's (column `inert`)",
            InertPolicyWarning,
            stacklevel=3,
        )
    return dataclasses.replace(result, interrupted=interrupted)


def _plan(
    base: Base, grid: Mapping[str | tuple[str, ...], Sequence[Any]] | None, *, samples: Any,
    names: Sequence[str] | None, policies: Sequence[str | Path | Policy], machine: str | Machine,
    kernel: Kernel | None, fixed: Mapping[str, Any] | None, metrics: Sequence[Metric], replications: int, seed: Seed,
) -> tuple[_Simulations, Points, dict[str, Any]]:  # fmt: skip
    _check_base(base)
    if kernel is not None and not isinstance(kernel, Kernel):
        raise _core.ConfigError(f"kernel must be a tlbcore.Kernel: got {type(kernel).__name__}")
    if fixed is not None and not isinstance(fixed, Mapping):
        raise SweepError(f"fixed maps names to values: got {fixed!r}")
    if (grid is None) == (samples is None):
        raise SweepError("a sweep needs a grid or samples, and not both")
    computed, own = as_metrics(metrics)
    seed = as_seed(seed, SweepError)
    texts: dict[str, Policy] = {}
    models: dict[str, Machine] = {}
    if grid is not None:
        if not isinstance(grid, Mapping):
            raise SweepError(f"a grid maps names to lists of values: got {grid!r}")
        if names is not None:
            raise SweepError(
                f"names are those of the columns of samples, and a grid has its own: got {names!r}"
            )
        axes = grid_axes({name: _labelled(name, values, texts, models) for name, values in grid.items()})
    else:
        axes = [sample_axis(samples, names)]
        ours = {
            name: _labels(name, axes[0].columns[name], texts, models)
            for name in OURS
            if name in axes[0].columns
        }
        axes = [dataclasses.replace(axes[0], columns={**axes[0].columns, **ours})]
    varied = [name for axis in axes for name in axis.columns]
    if "policy" not in varied:
        if not (chosen := as_policies(policies)):
            raise SweepError("a sweep needs at least one policy")
        labels = _labels("policy", chosen, texts, models)
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise SweepError(f"the policies have {twice[0]!r} twice")
        axes += grid_axes({"policy": labels})
    if "machine" not in varied:
        _labels("machine", [machine], texts, models)
    job = _Simulations(
        base=base, fixed=dict(fixed or {}), kernel=kernel or Kernel(), machines=models, policies=texts,
        metrics=computed, own=own, whole=frozenset().union(*(axis.whole for axis in axes)),
    )  # fmt: skip
    _refuse_columns({*varied, "policy"}, computed, [metric.__name__ for metric in own])
    for name in (*varied, *job.fixed):
        job.kind(name)
        if name in varied and name in job.fixed:
            raise SweepError(f"parameter {name!r} is both fixed and varied")
        if name in job.fixed and name not in _own(base):
            raise SweepError(
                f"fixed holds parameters of the scenario, and {name!r} is none: {_ELSEWHERE[name.partition('.')[0]]}"
            )
    made = not isinstance(base, (str, Scenario))
    shared = {
        "tlbcore": SEEDS,
        "scenario": base if isinstance(base, str) else "function" if made else job.scenario({}).to_json(),
        "fixed": {name: str(value) for name, value in sorted(job.fixed.items())},
        "kernel": json.loads(job.kernel.to_json()),
        "machine": None if "machine" in varied else next(iter(models)),
        "parameters": sorted({*varied, "policy"}),
        "seed": seed,
    }
    identity = {**shared, "tlbcore": _core.__version__, "engine": _engine(), "metrics": list(computed)}
    points = Points(
        json.dumps(shared, sort_keys=True), seed, axes, replications=replications,
        content=_Content(job=job, made=made, engine=identity["engine"]),
    )  # fmt: skip
    return job, points, identity


def _engine() -> str:
    """Return a digest of all that decides what a built-in scenario of given parameters comes to."""
    from tlbcore import scenarios

    files = sorted(Path(scenarios.__file__).parent.glob("*.py"))
    return _digest(_core.engine() + "".join(file.read_text() for file in files))


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What the values of points stand for, as columns that enter their keys and not their seeds.

    Policies and machines that are not built in have the digest of their text in their label; those that are, and the
    scenarios, are covered by the engine's. What a function of the user's makes of its parameters is known only from
    the scenario that it returns.
    """

    job: _Simulations
    made: bool
    engine: str

    def __call__(self, columns: Mapping[str, Column]) -> dict[str, list[str]]:
        names = [name for name in columns if name not in OURS and not name.startswith("kernel.")]
        length = len(next(iter(columns.values())))
        content = {"engine": [self.engine] * length}
        if self.made:
            make = self.job.texts(names)
            texts = _Distinct(lambda values: (None, _digest(make(values)[1])))
            rows = _rows([columns[name] for name in names], length)
            content["scenario"] = [
                texts.texts[place] if isinstance(place := texts.index(row), int) else place for row in rows
            ]
        return content


def _refuse_columns(parameters: set[str], figures: Sequence[str], own: Sequence[str]) -> None:
    """Refuse names that two columns of the table would have."""
    for name in sorted(parameters & {*results.OWN, *figures}):
        raise SweepError(
            f"parameter {name!r} is called as another column of the table is: give it another name"
        )
    for name in sorted(parameters & {*own}):
        raise SweepError(f"a metric of your own is called {name!r}, which is the name of another column")


def _labelled(names: Any, values: Any, texts: dict[str, Policy], models: dict[str, Machine]) -> Any:
    """Return the values of an axis of the grid, policies and machines by their labels; rows of several names too."""
    if isinstance(names, str):
        return _labels(names, values, texts, models) if names in OURS else values
    for place, name in enumerate(names if isinstance(names, tuple) else ()):
        # What is no row of that length is refused with the other rows.
        if name in OURS and all(isinstance(row, Sequence) and len(row) == len(names) for row in values):
            labels = _labels(name, [row[place] for row in values], texts, models)
            values = [
                (*row[:place], label, *row[place + 1 :]) for row, label in zip(values, labels, strict=True)
            ]
    return values


def _labels(name: Any, values: Any, texts: dict[str, Policy], models: dict[str, Machine]) -> list[str]:
    """Name policies and machines in the table: a built-in by its name, any other as NAME@DIGEST."""
    if isinstance(values, str):
        raise SweepError(f"the grid's {name!r} must be a list of values: got {values!r}")
    labels = []
    for value in values:
        if name == "policy":
            policy = as_policy(value)
            ours = policy.name in builtin and builtin[policy.name] == policy
            label = policy.name if ours else f"{policy.name}@{policy.digest[:8]}"
            texts[label] = policy
        else:
            model = as_machine(value)
            label = model.name if model.text is None else f"{model.name}@{_digest(model.text)}"
            models[label] = model
        labels.append(label)
    return labels


def _digest(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()[:8]


def _too_many(job: _Simulations, points: Points, count: int) -> str:
    first = points.batch(0, 1)
    start = time.perf_counter()
    job(first, 1)
    seconds = (time.perf_counter() - start) * len(points) / (os.cpu_count() or 1)
    size = len(points) * 8 * (count + len(points.names) + 4)
    return (
        f"{len(points):,} points would take about {seconds / 3600:,.1f} hours on the CPUs here and"
        f" {size / 1e9:,.1f} GB before compression: pass yes=True (--yes) to compute them"
    )


@kept
def read_sweep(path: str | Path, *, every: bool = False) -> Sweep:
    """Read the results in a directory, of a sweep that ended or was stopped.

    Parameters
    ----------
    path
        The directory.
    every
        Also the rows of earlier grids that were swept into it. Rows are then sorted by their parameters; otherwise
        they stand in the order in which the last sweep asked for them.

    Raises
    ------
    SweepError
        If the directory holds no sweep, one of a newer version, or a damaged part.
    """
    return results.from_directory(Path(path), every=flag(every, "every", SweepError))
