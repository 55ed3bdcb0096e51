"""`simulate`: one run of the timed machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._input import defaults
from tlbcore._input.names import unknown
from tlbcore._input.numbers import count, flag, quantity
from tlbcore._input.raw import Latency, RawRun
from tlbcore._input.seeds import Seed, as_seed
from tlbcore._input.vocabulary import Costs, CpuClass, Detail, FigureName
from tlbcore._output.calls import kept
from tlbcore._output.files import replace_file, sealed
from tlbcore._output.progress import Progress, shown
from tlbcore._output.result import Result
from tlbcore._output.signals import endings
from tlbcore._output.table import Table
from tlbcore.hardware import Machine
from tlbcore.hardware import machine as as_machine
from tlbcore.kernel import Kernel, machine_text
from tlbcore.policy import Policy, as_policy
from tlbcore.scenarios import Scenario, by_name
from tlbcore.simulation.figures import as_figure, statistics

__all__ = ["SimResult", "simulate"]


_TABLES = ("table", "figures", "timeline", "levels", "purges", "costs")


@dataclass(frozen=True, kw_only=True, repr=False)
class SimResult(Result):
    """What one simulation counted.

    Attributes
    ----------
    scenario, machine, kernel, policy, seed
        What was simulated.
    table
        One row per CPU: `cpu`, `isolated`, and a uint64 column per statistic (`tlbcore.statistics()`); times
        in picoseconds.
    timeline
        The last events of each CPU in order of time: `time_ps`, `duration_ps`, `cpu`, `kind`, `cause`,
        `other` (another CPU, or a number of interrupts). `timeline_dropped` counts those the rings no
        longer hold.
    levels
        What was pending, a row per change, and the last of each as for `timeline`: `time_ps`, `cpu` (-1: of the
        machine), `level` (`deferred_flushes` and `deferred_syncs` that a CPU had not made up for, `lazy_pages` of
        vmalloc) and `value`, how many from then on.
    purges
        One row per purge: `time_ps`, `cpu`, `areas`, `hull_pages`, `forks` so far, and whether it was a `tail`.
    figures
        One row per class of CPUs that there are (`isolated`, `housekeeping`, `all`): `cpu_class`, `cpus`, and a
        float64 column per figure (`tlbcore.figures()`), per CPU of the class; NaN where it has no meaning, such as a
        mean of nothing.
    latencies
        Means, which are exact, and quantiles of HDR histograms (two digits): `entry_` (from SYSCALL to the body),
        `syscall_` (the whole call), `interruption_` (of user mode) and `wait_` (for acknowledgements), each with
        `isolated`, `housekeeping` or `all`: `count`, `mean_ps`, `p50_ps`, `p90_ps`, `p99_ps`, `p999_ps`, `max_ps`.
    duration_s
        Simulated seconds reached; below the scenario's if `interrupted`.
    program_runs
        Program runs on all CPUs, the unit of throughput.
    notes
        What has no effect here, and why.
    violation
        The first step that broke a rule of the machine, or None.
    costs
        What the policy's ops take: `name`, `cycles`, `low`, `high` (the interval its source allows), `mark`,
        `source`.
    unsourced
        Those of INVLPGB and RAR that nobody has published: figures that depend on them are intervals at best.
    inert
        Why the figures are mainline's: the policy needs what the machine lacks, or replaces nothing that the scenario
        runs. Empty if it works.
    machine_text, version
        The text of the machine's file as it was read (the file may change afterwards), or the name of a built-in
        machine, whose numbers are those of tlbcore's `version`.
    """

    scenario: Scenario
    machine: str
    kernel: Kernel
    policy: Policy
    seed: int
    table: Mapping[str, NDArray[Any]]
    figures: Mapping[str, NDArray[Any]]
    timeline: Mapping[str, NDArray[Any]]
    timeline_dropped: int
    purges: Mapping[str, NDArray[Any]]
    latencies: Mapping[str, Latency]
    duration_s: float
    program_runs: int
    interrupted: bool
    notes: tuple[str, ...]
    violation: str | None
    costs: Mapping[str, NDArray[Any]]
    unsourced: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    levels: Mapping[str, NDArray[Any]] = field(default_factory=lambda: Table({}))
    machine_text: str = ""
    version: str = _core.__version__

    _index = ("cpu",)

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        rows = [{"latency": name, **one} for name, one in self.latencies.items()]
        latencies = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        return {
            "table": self.table, "figures": self.figures, "timeline": self.timeline, "levels": self.levels,
            "purges": self.purges,
            "latencies": latencies, "costs": self.costs,
        }  # fmt: skip

    def _about(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.to_json(), "machine": self.machine, "machine_text": self.machine_text,
            "kernel": self.kernel.to_json(), "policy": self.policy.name, "policy_text": self.policy.text,
            "seed": self.seed, "duration_s": self.duration_s, "interrupted": self.interrupted,
            "violation": self.violation, "notes": self.notes, "unsourced": self.unsourced, "inert": self.inert,
            "version": self.version,
        }  # fmt: skip

    def _inert(self) -> tuple[str, ...]:
        return self.inert

    def _units(self) -> dict[str, str]:
        return {one.name: one.unit for one in statistics()}

    def total(self, name: str, *, isolated: bool | None = None) -> int:
        """Return a statistic summed over CPUs: isolated ones, the others, or all (None).

        Raises
        ------
        KeyError
            If there is no such statistic.
        """
        column = self.table[name]
        if isolated is not None:
            column = column[self.table["isolated"] == isolated]
        return int(column.sum())

    def figure(self, name: FigureName, cpu_class: CpuClass = "isolated") -> float:
        """Return a figure (`tlbcore.figures()`) of a class of CPUs, per CPU; NaN if it has no meaning here.

        Raises
        ------
        SimError
            If there is no such figure, or no CPU of this class.

        Examples
        --------
        >>> from tlbcore import scenarios
        >>> run = simulate(scenarios.syscall_heavy(duration_s=0.01), machine="broadwell-ep")
        >>> round(run.figure("syscall_mean_ns"))
        770
        """
        as_figure(name, _core.SimError)
        classes: list[str] = self.figures["cpu_class"].tolist()
        if cpu_class not in classes:
            raise _core.SimError(unknown("class of CPUs", cpu_class, classes))
        return float(self.figures[name][classes.index(cpu_class)])

    def to_perfetto(self, path: str | Path) -> None:
        """Write the kept timeline for ui.perfetto.dev: events by CPU and kind, and what was pending as counters.

        Parameters
        ----------
        path
            The file, as JSON of Chrome's trace events if its name ends in `.json`; replaced if it exists. `OSError`
            if it cannot be written.
        """
        from tlbcore._output.perfetto import of_simulation

        of_simulation(path, self.timeline, self.levels, self.purges, isolated=self.scenario.isolated)

    def replace(self, **changes: Any) -> Self:
        """Return a result with some fields changed."""
        return dataclasses.replace(self, **changes)

    def __reduce__(self) -> tuple[Any, ...]:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in _TABLES:
            data[name] = dict(data[name])
        data["latencies"] = {name: dict(one) for name, one in self.latencies.items()}
        return sealed(_result, data)

    def __repr__(self) -> str:
        left = " (interrupted)" if self.interrupted else ""
        return (
            f"<SimResult {self.scenario.name} on {self.machine} under {self.policy.name}, seed {self.seed}: "
            f"{self.duration_s:g} s, {self.program_runs} program runs{left}>"
        )


def _result(data: dict[str, Any]) -> SimResult:
    data.setdefault("levels", {})  # of a result that was saved before there were some
    for name in _TABLES:
        columns = data[name]
        data[name] = Table(tuple(columns), columns.__getitem__)  # most of some 160 are never looked at
    latencies = {name: MappingProxyType(one) for name, one in data["latencies"].items()}
    data["latencies"] = MappingProxyType(latencies)
    return SimResult(**data)


def _as_scenario(load: Scenario | str) -> Scenario:
    return load if isinstance(load, Scenario) else by_name(load)


def _as_kernel(kernel: Kernel | None) -> Kernel:
    if kernel is not None and not isinstance(kernel, Kernel):
        raise _core.ConfigError(f"kernel must be a tlbcore.Kernel: got {type(kernel).__name__}")
    return _default_kernel() if kernel is None else kernel


@cache
def _default_kernel() -> Kernel:
    return Kernel()


def _run(
    load: Scenario,
    machine: str | Machine,
    kernel: Kernel,
    jobs: Sequence[tuple[Policy, int]],
    *,
    skip: bool,
    timeline: int,
    threads: int,
    progress: Progress | bool | None,
    detail: Detail = "summary",
    costs: Costs = "best",
    checkpoint: Path | None = None,
    every_s: float | None = None,
) -> list[SimResult]:
    for what, value, known in (
        ("detail", detail, ("summary", "full")),
        ("costs", costs, ("best", "low", "high")),
    ):
        if value not in known:
            raise _core.SimError(f"{what} must be {' or '.join(known)}: got {value!r}")
    skip = flag(skip, "skip")
    described = machine_text(machine)
    if checkpoint is not None and not checkpoint.parent.is_dir():  # before the run, not after it
        raise _core.SimError(f"checkpoint {checkpoint}: there is no directory {checkpoint.parent}")
    every = None
    if checkpoint is not None and every_s is not None:
        every = (every_s, lambda state: replace_file(checkpoint, state))
    with (
        endings() if checkpoint is not None else nullcontext(),
        shown(progress, "simulating", "s") as advance,
    ):
        resumed = checkpoint is not None and checkpoint.exists()
        raw = _core.simulate(
            {
                "scenario": load.to_json(),
                "machine": described,
                "kernel": kernel.to_json(),
                "jobs": [(policy.text, policy.file, seed) for policy, seed in jobs],
                "skip": skip,
                "keep": timeline,
                "full": detail == "full",
                "bound": costs,
                "threads": threads,
            },
            {
                "progress": advance,
                "resume": checkpoint.read_bytes() if checkpoint is not None and resumed else None,
                "checkpoint": checkpoint is not None,
                "every": every,
                "until": None,
            },
        )
        if checkpoint is not None:
            if raw[0]["checkpoint"] is not None:
                replace_file(checkpoint, raw[0]["checkpoint"])
            elif not raw[0]["interrupted"]:
                checkpoint.unlink(missing_ok=True)
    model = as_machine(machine)
    name = machine if isinstance(machine, str) else model.name
    return [
        result_of(one, load, model, kernel, policy, seed, name)
        for (policy, seed), one in zip(jobs, raw, strict=True)
    ]


def result_of(
    raw: RawRun,
    scenario: Scenario,
    machine: Machine,
    kernel: Kernel,
    policy: Policy,
    seed: int,
    name: str | None = None,
) -> SimResult:
    """Return the result of what the core gives of a run."""
    return _result(
        {
            "scenario": scenario,
            "machine": machine.name if name is None else name,
            "kernel": kernel,
            "policy": policy,
            "seed": seed,
            "table": raw["table"],
            "figures": raw["figures"],
            "timeline": raw["timeline"],
            "timeline_dropped": raw["timeline_dropped"],
            "levels": raw["levels"],
            "purges": raw["purges"],
            "latencies": raw["latencies"],
            "duration_s": raw["reached_ps"] * 1e-12,
            "program_runs": raw["program_runs"],
            "interrupted": raw["interrupted"],
            "notes": tuple(raw["notes"]),
            "violation": raw["violation"],
            "costs": _costs(raw["costs"], machine.sources),
            "unsourced": tuple(raw["unsourced"]),
            "inert": tuple(raw["inert"]),
            "machine_text": machine_text(machine),
            "version": _core.__version__,
        }
    )


def _costs(rows: list[tuple[Any, ...]], sources: Mapping[str, str]) -> dict[str, Any]:
    columns = dict(zip(("name", "cycles", "low", "high", "mark"), zip(*rows, strict=True), strict=True))
    return {**columns, "source": [sources.get(f"costs.{name}", "") for name in columns["name"]]}


@kept
def simulate(
    scenario: Scenario | str,
    *,
    machine: str | Machine = defaults.MACHINE,
    kernel: Kernel | None = None,
    policy: str | Path | Policy = "ipi",
    seed: Seed = 1,
    detail: Detail = "summary",
    costs: Costs = "best",
    skip: bool = True,
    timeline: int = 256,
    checkpoint: str | Path | None = None,
    every_s: float | None = 60.0,
    progress: Progress | bool | None = None,
) -> SimResult:
    """Simulate one scenario under one policy.

    The same inputs give the same result on any machine. Ctrl-C stops the run and returns what there is, with
    `interrupted` set. The machine is sequentially consistent at op granularity.

    Parameters
    ----------
    scenario
        A scenario, or the name of a built-in one with its defaults.
    machine
        CPU model; the one of the published measurements if left out, as everywhere.
    kernel
        Kernel; the default one of `Kernel()` if left out.
    policy
        Name, file or policy.
    seed
        Key of every random draw: an integer, or a NumPy `SeedSequence` or `Generator`, from which 64 bits are
        taken.
    detail
        `summary` charges the misses of a flush as one sum; `full` looks every touched page up in the CPU's
        TLB.
    costs
        `best`, or `low` or `high`: that end of every cost's interval.
    skip
        Jump over proven fixed points. Changes nothing but the time it takes.
    timeline
        Events to keep per CPU.
    checkpoint
        File that an interrupted run leaves behind and the next call with the same inputs goes on from; it is
        removed at the end. It is replaced as a whole and carries a digest. Ctrl-C, SIGTERM and SIGHUP leave it.
    every_s
        Write it also about so often, in seconds of real time, for runs that are killed; None for never.
    progress
        Called with (simulated seconds done, in all) about twenty times a second; True shows a bar, on a terminal
        or in a notebook (extra `cli`).

    Raises
    ------
    SimError
        If the scenario or the seed cannot be.
    ConfigError
        If Kconfig would refuse the kernel.
    PolicyError
        If the policy is unknown or does not assemble for this machine.
    TlbError
        If the machine is unknown.

    Examples
    --------
    >>> from tlbcore import scenarios
    >>> load = scenarios.spawn_storm(duration_s=60)
    >>> simulate(load, machine="broadwell-ep", policy="coalesce-v7").total("ipis_received", isolated=True)
    0
    """
    jobs = [(as_policy(policy), as_seed(seed))]
    load = _as_scenario(scenario)
    (result,) = _run(
        load,
        machine,
        _as_kernel(kernel),
        jobs,
        skip=skip,
        timeline=_as_keep(timeline),
        threads=1,
        progress=progress,
        detail=detail,
        costs=costs,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        every_s=None if every_s is None else quantity(every_s, "every_s", above_zero=True),
    )
    return result


def _as_keep(timeline: int) -> int:
    return count(timeline, "timeline", most=(1 << 32) - 1)
