"""`compare`: several policies side by side on one scenario."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._input import defaults
from tlbcore._input.numbers import as_threads, count
from tlbcore._input.seeds import Seed
from tlbcore._input.seeds import replications as replication_seeds
from tlbcore._input.vocabulary import Costs, Detail
from tlbcore._output.calls import kept
from tlbcore._output.files import sealed
from tlbcore._output.progress import Progress
from tlbcore._output.result import InertPolicyWarning, Result
from tlbcore._output.table import Table
from tlbcore.analysis import interval
from tlbcore.hardware import Machine
from tlbcore.kernel import Kernel
from tlbcore.policy import Policy, as_policies
from tlbcore.scenarios import Scenario
from tlbcore.simulation.figures import figures
from tlbcore.simulation.run import SimResult, _as_keep, _as_kernel, _as_scenario, _run

__all__ = ["DEFAULT_POLICIES", "Comparison", "compare"]

DEFAULT_POLICIES = ("ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed", "pending-bit")


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % confidence interval; NaN bounds where there is none."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2 or not np.isfinite(array).all():
        return float(array.mean()), math.nan, math.nan
    return interval(array)


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Result, Mapping[str, SimResult]):
    """Several policies on one scenario; `comparison[name]` is the run of a policy with the first seed.

    Attributes
    ----------
    table
        One row per policy and class of CPUs (`isolated`, `housekeeping`, `all`; those that there are): `policy`,
        `cpu_class`, `cpus`, `replications`, `inert` (the policy does nothing here, and these are the figures of
        mainline), and a float column per figure (`tlbcore.figures()`), a mean over
        replications; with several also `..._low` and `..._high`, the 95 % confidence interval (NaN where runs differ
        in length, since one was interrupted). What did not occur is NaN, never zero. A figure that depends on a cost
        without a source (`SimResult.unsourced`) is NaN too: the interval then spans the runs with either end of every
        cost.
    results
        Every run, by policy and then by seed.
    bounds
        The runs with costs low and high of policies that rest on unsourced costs.
    """

    table: Mapping[str, NDArray[Any]]
    results: tuple[SimResult, ...]
    policies: tuple[str, ...] = field(default=())
    bounds: tuple[SimResult, ...] = field(default=())

    _index = ("policy", "cpu_class")

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        return {"table": self.table}

    def _about(self) -> dict[str, Any]:
        first = self.results[0]._about()
        shared = ("scenario", "machine", "machine_text", "kernel", "version")
        seeds = sorted({result.seed for result in self.results})
        return {**{key: first[key] for key in shared}, "seeds": seeds, "inert": self._inert()}

    def _inert(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reason for result in self.results for reason in result.inert))

    def _units(self) -> dict[str, str]:
        return {f"{figure.name}{end}": figure.unit for figure in figures() for end in ("", "_low", "_high")}

    def __getitem__(self, policy: str) -> SimResult:
        for result in self.results:
            if result.policy.name == policy:
                return result
        raise KeyError(policy)

    def __iter__(self) -> Iterator[str]:
        return iter(self.policies)

    def __len__(self) -> int:
        return len(self.policies)

    def __hash__(self) -> int:
        return id(self)

    def replace(self, **changes: Any) -> Self:
        """Return a comparison with some fields changed."""
        return dataclasses.replace(self, **changes)

    def __reduce__(self) -> tuple[Any, ...]:
        return sealed(_compared, (self.results, self.policies, self.bounds))

    @property
    def interrupted(self) -> bool:
        """Whether any run was stopped before its end, those of `bounds` with them."""
        return any(result.interrupted for result in (*self.results, *self.bounds))

    def __repr__(self) -> str:
        first = self.results[0]
        return f"<Comparison of {', '.join(self)}: {first.scenario.name} on {first.machine}>"


def _comparison(
    results: tuple[SimResult, ...], names: tuple[str, ...], bounds: tuple[SimResult, ...] = ()
) -> Comparison:
    many = bool(bounds) or any(sum(r.policy.name == name for r in results) > 1 for name in names)
    columns: dict[str, list[Any]] = {
        "policy": [],
        "cpu_class": [],
        "cpus": [],
        "replications": [],
        "inert": [],
    }
    names_of_figures = [figure.name for figure in figures()]
    for name in names_of_figures:
        columns[name] = []
        if many:
            columns[f"{name}_low"], columns[f"{name}_high"] = [], []
    for policy in names:
        runs = [r for r in results if r.policy.name == policy and r.duration_s > 0]
        if not runs:
            continue
        others = [r for r in bounds if r.policy.name == policy and r.duration_s > 0]
        alike = len({r.duration_s for r in runs}) == 1  # runs of different lengths are no sample of one thing
        for row, cpu_class in enumerate(runs[0].figures["cpu_class"].tolist()):
            columns["policy"].append(policy)
            columns["cpu_class"].append(cpu_class)
            columns["cpus"].append(int(runs[0].figures["cpus"][row]))
            columns["replications"].append(len(runs))
            columns["inert"].append(bool(runs[0].inert))
            for name in names_of_figures:
                mean, low, high = _interval([float(r.figures[name][row]) for r in runs])
                if not alike:
                    low = high = math.nan
                ends = [float(r.figures[name][row]) for r in others]
                if any(end != mean and not (math.isnan(end) and math.isnan(mean)) for end in ends):
                    known = [value for value in (mean, low, high, *ends) if not math.isnan(value)]
                    mean, low, high = math.nan, min(known), max(known)
                columns[name].append(mean)
                if many:
                    columns[f"{name}_low"].append(low)
                    columns[f"{name}_high"].append(high)
    return Comparison(table=Table(columns), results=results, policies=names, bounds=bounds)


def _compared(fields: tuple[Any, ...]) -> Comparison:
    return _comparison(*fields)


@kept
def compare(
    scenario: Scenario | str,
    *,
    machine: str | Machine = defaults.MACHINE,
    kernel: Kernel | None = None,
    policies: Sequence[str | Path | Policy] = DEFAULT_POLICIES,
    seed: Seed = 1,
    replications: int = 1,
    threads: int | None = None,
    detail: Detail = "summary",
    costs: Costs = "best",
    skip: bool = True,
    timeline: int = 256,
    progress: Progress | bool | None = None,
) -> Comparison:
    """Simulate one scenario under several policies, each with the same draws.

    Parameters
    ----------
    scenario, machine, kernel, detail, costs, skip, timeline, progress
        As in `simulate`.
    policies
        Names, files or policies; all must have different names.
    seed
        As in `simulate`: that of the first replication; the others have hashes of it and their number.
    replications
        How many runs of each policy. With two or more, the table has confidence intervals.
    threads
        Worker threads; all CPUs if left out. Results do not depend on it.

    Raises
    ------
    SimError
        If the scenario or a seed cannot be, no policy is given, or two policies have one name.
    ConfigError, PolicyError, TlbError
        As in `simulate`.

    Examples
    --------
    >>> from tlbcore import scenarios
    >>> load = scenarios.syscall_heavy(duration_s=0.1)
    >>> c = compare(load, machine="broadwell-ep", policies=["ipi", "coalesce-v7"])
    >>> c["ipi"].figure("syscall_mean_ns") < c["coalesce-v7"].figure("syscall_mean_ns")
    True
    """
    chosen = as_policies(policies)
    names = tuple(policy.name for policy in chosen)
    if not names:
        raise _core.SimError("no policy to compare")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise _core.SimError(f"two policies are called {sorted(twice)[0]!r}: give one another name")
    replications = count(replications, "replications", 1, 1_000_000)
    seeds = replication_seeds(seed, replications)
    jobs = [(policy, one) for policy in chosen for one in seeds]
    load, kernel = _as_scenario(scenario), _as_kernel(kernel)
    keep, workers = _as_keep(timeline), as_threads(threads)

    def run(
        jobs: Sequence[tuple[Policy, int]], costs: Costs, told: Progress | bool | None
    ) -> list[SimResult]:
        return _run(
            load, machine, kernel, jobs, skip=skip, timeline=keep, threads=workers, progress=told, detail=detail,
            costs=costs,
        )  # fmt: skip

    results = run(jobs, costs, progress)
    rests = {r.policy.name for r in results if r.unsourced and not r.interrupted}
    again = [(policy, seed) for policy, seed in jobs if policy.name in rests]
    ends: tuple[Costs, ...] = ("low", "high") if again and costs == "best" else ()
    bounds = [result for end in ends for result in run(again, end, None)]
    for reason in dict.fromkeys(reason for result in results for reason in result.inert):
        warnings.warn(
            f"{reason}; the figures under its name are mainline's", InertPolicyWarning, stacklevel=3
        )
    return _comparison(tuple(results), names, tuple(bounds))
