"""`simulate` and `compare`: the timed machine, one run or several policies side by side."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._input.numbers import as_threads, count, flag, quantity
from tlbcore._output.files import replace_file, sealed
from tlbcore._output.progress import Progress, shown
from tlbcore._output.result import InertPolicyWarning, Result
from tlbcore._output.signals import endings
from tlbcore._output.table import Table
from tlbcore.analysis import interval
from tlbcore.hardware import Machine
from tlbcore.hardware import machine as as_machine
from tlbcore.kernel import Kernel, machine_text
from tlbcore.policy import Policy, as_policies, as_policy
from tlbcore.scenarios import Scenario, by_name

__all__ = ["FIGURES", "Comparison", "SimResult", "Statistic", "compare", "simulate", "statistics"]

DEFAULT_POLICIES = ("ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed", "pending-bit")


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One column of `SimResult.table`: its name, its unit (`count` or `ps`) and what it counts."""

    name: str
    unit: str
    doc: str


def statistics() -> tuple[Statistic, ...]:
    """Return every statistic of a simulation, in the order of the table's columns."""
    return tuple(Statistic(name=name, unit=unit, doc=doc) for name, unit, doc in _core.statistics())


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
    purges
        One row per purge: `time_ps`, `cpu`, `areas`, `hull_pages`, `forks` so far, and whether it was a `tail`.
    latencies
        HDR histograms (two digits) by class of CPU: `entry_` (from SYSCALL to the body), `syscall_` (the whole
        call), `interruption_` (of user mode), each with `isolated` or `housekeeping`; and `initiator_wait`:
        `count`, `mean_ps`, `p50_ps`, `p90_ps`, `p99_ps`, `p999_ps`, `max_ps`.
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
        Why the policy does nothing here, so that mainline ran; empty if it works.
    machine_text, version
        The machine's description as it was read (a file may change afterwards), and tlbcore's version.
    """

    scenario: Scenario
    machine: str
    kernel: Kernel
    policy: Policy
    seed: int
    table: Mapping[str, NDArray[Any]]
    timeline: Mapping[str, NDArray[Any]]
    timeline_dropped: int
    purges: Mapping[str, NDArray[Any]]
    latencies: Mapping[str, Mapping[str, float]]
    duration_s: float
    program_runs: int
    interrupted: bool
    notes: tuple[str, ...]
    violation: str | None
    costs: Mapping[str, NDArray[Any]]
    unsourced: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    machine_text: str = ""
    version: str = _core.__version__

    _index = ("cpu",)

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        rows = [{"latency": name, **one} for name, one in self.latencies.items()]
        latencies = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        return {
            "table": self.table, "timeline": self.timeline, "purges": self.purges, "latencies": latencies,
            "costs": self.costs,
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

    def replace(self, **changes: Any) -> Self:
        """Return a result with some fields changed."""
        return dataclasses.replace(self, **changes)

    def __reduce__(self) -> tuple[Any, ...]:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("table", "timeline", "purges", "costs"):
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
    for name in ("table", "timeline", "purges", "costs"):
        data[name] = Table(data[name])
    latencies = {name: MappingProxyType(one) for name, one in data["latencies"].items()}
    data["latencies"] = MappingProxyType(latencies)
    return SimResult(**data)


def _as_scenario(load: Scenario | str) -> Scenario:
    return load if isinstance(load, Scenario) else by_name(load)


def _as_seed(seed: int) -> int:
    return count(seed, "seed", most=(1 << 64) - 1)


def _as_kernel(kernel: Kernel | None) -> Kernel:
    if kernel is not None and not isinstance(kernel, Kernel):
        raise _core.ConfigError(f"kernel must be a tlbcore.Kernel: got {type(kernel).__name__}")
    return Kernel() if kernel is None else kernel


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
    detail: str = "summary",
    costs: str = "best",
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
        raw = _core.simulate(
            load.to_json(),
            described,
            kernel.to_json(),
            [(policy.text, policy.file, seed) for policy, seed in jobs],
            skip=skip,
            keep=timeline,
            full=detail == "full",
            bound=costs,
            resume=checkpoint.read_bytes() if checkpoint is not None and checkpoint.exists() else None,
            checkpoint=checkpoint is not None,
            every=every,
            threads=threads,
            progress=advance,
        )
        if checkpoint is not None:
            if raw[0]["checkpoint"] is not None:
                replace_file(checkpoint, raw[0]["checkpoint"])
            elif not raw[0]["interrupted"]:
                checkpoint.unlink(missing_ok=True)
    name = machine if isinstance(machine, str) else as_machine(machine).name
    sources = {fact.key: fact.source for fact in as_machine(machine).facts}
    return [
        _result(
            {
                "scenario": load,
                "machine": name,
                "kernel": kernel,
                "policy": policy,
                "seed": seed,
                "table": one["table"],
                "timeline": one["timeline"],
                "timeline_dropped": one["timeline_dropped"],
                "purges": one["purges"],
                "latencies": one["latencies"],
                "duration_s": one["reached_ps"] * 1e-12,
                "program_runs": one["program_runs"],
                "interrupted": one["interrupted"],
                "notes": tuple(one["notes"]),
                "violation": one["violation"],
                "costs": _costs(one["costs"], sources),
                "unsourced": tuple(one["unsourced"]),
                "inert": tuple(one["inert"]),
                "machine_text": described,
                "version": _core.__version__,
            }
        )
        for (policy, seed), one in zip(jobs, raw, strict=True)
    ]


def _costs(rows: list[tuple[Any, ...]], sources: Mapping[str, str]) -> dict[str, Any]:
    columns = dict(zip(("name", "cycles", "low", "high", "mark"), zip(*rows, strict=True), strict=True))
    return {**columns, "source": [sources.get(f"costs.{name}", "") for name in columns["name"]]}


def simulate(
    scenario: Scenario | str,
    *,
    machine: str | Machine,
    kernel: Kernel | None = None,
    policy: str | Path | Policy = "ipi",
    seed: int = 1,
    detail: str = "summary",
    costs: str = "best",
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
        CPU model.
    kernel
        Kernel; the default one of `Kernel()` if left out.
    policy
        Name, file or policy.
    seed
        Key of every random draw.
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
    jobs = [(as_policy(policy), _as_seed(seed))]
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


def _hours(result: SimResult, cpus: int) -> float:
    return result.duration_s / 3600 * cpus


def _per_hour(name: str, scale: float = 1.0) -> Callable[[SimResult, bool, int], float]:
    return lambda r, isolated, cpus: r.total(name, isolated=isolated) * scale / _hours(r, cpus)


def _mean(time: str, counts: str | tuple[str, ...], scale: float) -> Callable[[SimResult, bool, int], float]:
    names = (counts,) if isinstance(counts, str) else counts

    def value(r: SimResult, isolated: bool, _cpus: int) -> float:
        n = sum(r.total(name, isolated=isolated) for name in names)
        return r.total(time, isolated=isolated) * scale / n if n else math.nan

    return value


def _latency(kind: str, key: str, scale: float) -> Callable[[SimResult, bool, int], float]:
    def value(r: SimResult, isolated: bool, _cpus: int) -> float:
        h = r.latencies[f"{kind}_{'isolated' if isolated else 'housekeeping'}"]
        return h[key] * scale if h["count"] else math.nan

    return value


def _share(name: str) -> Callable[[SimResult, bool, int], float]:
    return lambda r, isolated, cpus: r.total(name, isolated=isolated) * 1e-12 / (r.duration_s * cpus)


def _quiet(r: SimResult, isolated: bool, _cpus: int) -> float:
    column = r.table["longest_quiet_ps"][r.table["isolated"] == isolated]
    return float(column.min()) * 1e-12


# name -> (what it is, how it is computed); the columns of Comparison.table, per CPU of the class
FIGURES: dict[str, tuple[str, Callable[[SimResult, bool, int], float]]] = {
    "ipis_per_hour": ("remote-call interrupts per CPU and hour", _per_hour("ipis_received")),
    "calls_per_hour": ("remote calls executed per CPU and hour", _per_hour("calls_executed")),
    "coalescing_factor": (
        "remote calls per remote-call interrupt",
        _mean("calls_executed", "ipis_received", 1.0),
    ),
    "interference_per_hour": ("interruptions of user mode per CPU and hour", _per_hour("interference")),
    "interference_us_per_hour": ("their time, per CPU and hour", _per_hour("interference_ps", 1e-6)),
    "shortest_longest_quiet_s": ("longest quiet time, of the CPU where it is shortest", _quiet),
    "deferrals_per_hour": ("flush requests over before the CPU flushed", _per_hour("deferrals")),
    "entry_flushes_needed_per_hour": ("entry flushes while one was owed", _per_hour("entry_flushes_needed")),
    "entry_flushes_unneeded_per_hour": ("entry flushes while none was", _per_hour("entry_flushes_unneeded")),
    "entry_mean_ns": ("mean time from SYSCALL to the body: entry code", _latency("entry", "mean_ps", 1e-3)),
    "entry_p99_ns": ("99th percentile of that", _latency("entry", "p99_ps", 1e-3)),
    "syscall_mean_ns": ("mean system call, refills included", _mean("kernel_ps", "syscalls", 1e-3)),
    "syscall_p99_ns": ("99th percentile of system calls", _latency("syscall", "p99_ps", 1e-3)),
    "refill_misses_per_hour": ("TLB misses caused by flushes", _per_hour("refill_misses")),
    "exposures_per_hour": ("windows in the kernel with a flush owed", _per_hour("exposures")),
    "exposure_mean_ns": ("mean length of such a window", _mean("exposure_ps", "exposures", 1e-3)),
    "hazards_per_hour": ("ordinary kernel code run with a flush owed", _per_hour("hazards")),
    "sync_deferrals_per_hour": (
        "syncs of text over before the CPU had serialised",
        _per_hour("sync_deferrals"),
    ),
    "text_hazards_per_hour": ("ordinary kernel code run with a sync of text owed", _per_hour("text_hazards")),
    "flush_requests_per_hour": ("kernel-range flushes initiated", _per_hour("flush_requests")),
    "user_flush_requests_per_hour": ("user-range flushes initiated", _per_hour("user_flush_requests")),
    "flush_request_mean_us": (
        "mean time of a kernel-range flush, until its caller relies on it",
        _mean("flush_request_ps", "flush_requests", 1e-6),
    ),
    "user_flush_request_mean_us": (
        "mean time of a user-range flush, until its caller relies on it",
        _mean("user_flush_request_ps", "user_flush_requests", 1e-6),
    ),
    "wait_mean_us": (
        "mean wait of an initiator",
        _mean("wait_ps", ("flush_requests", "user_flush_requests", "sync_requests"), 1e-6),
    ),
    "wait_share": ("share of time waited for acknowledgements", _share("wait_ps")),
    "mm_switches_per_hour": ("context switches to another address space", _per_hour("mm_switches")),
    "migration_share": (
        "migrations to another CPU, per context switch",
        _mean("migrations", "mm_switches", 1.0),
    ),
    "mm_switch_flush_share": (
        "share of those that flushed",
        _mean("mm_switches_flushed", "mm_switches", 1.0),
    ),
    "user_share": ("share of time in user mode", _share("user_ps")),
    "violations_per_hour": ("steps that broke a rule of the machine", _per_hour("violations")),
}


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
        One row per policy and class of CPU: `policy`, `cpu_class`, `cpus`, `seeds`, and a float column per
        figure (docs/simulation.md), a mean over seeds; with several seeds also `..._low` and `..._high`, the 95 %
        confidence interval. What did not occur is NaN, never zero. A figure that depends on a cost without a source
        (`SimResult.unsourced`) is NaN too: the interval then spans the runs with either end of every cost.
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
        """Whether any run was stopped before its end."""
        return any(result.interrupted for result in self.results)

    def __repr__(self) -> str:
        first = self.results[0]
        return f"<Comparison of {', '.join(self)}: {first.scenario.name} on {first.machine}>"


def _comparison(
    results: tuple[SimResult, ...], names: tuple[str, ...], bounds: tuple[SimResult, ...] = ()
) -> Comparison:
    many = bool(bounds) or any(sum(r.policy.name == name for r in results) > 1 for name in names)
    columns: dict[str, list[Any]] = {"policy": [], "cpu_class": [], "cpus": [], "seeds": []}
    for name in FIGURES:
        columns[name] = []
        if many:
            columns[f"{name}_low"], columns[f"{name}_high"] = [], []
    for policy in names:
        runs = [r for r in results if r.policy.name == policy and r.duration_s > 0]
        if not runs:
            continue
        for isolated in (True, False):
            cpus = int((runs[0].table["isolated"] == isolated).sum())
            if not cpus:
                continue
            columns["policy"].append(policy)
            columns["cpu_class"].append("isolated" if isolated else "housekeeping")
            columns["cpus"].append(cpus)
            columns["seeds"].append(len(runs))
            for name, (_, compute) in FIGURES.items():
                mean, low, high = _interval([compute(r, isolated, cpus) for r in runs])
                ends = [compute(r, isolated, cpus) for r in bounds if r.policy.name == policy]
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


def compare(
    scenario: Scenario | str,
    *,
    machine: str | Machine,
    kernel: Kernel | None = None,
    policies: Sequence[str | Path | Policy] = DEFAULT_POLICIES,
    seed: int = 1,
    replicates: int = 1,
    threads: int | None = None,
    detail: str = "summary",
    costs: str = "best",
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
    seed, replicates
        Seeds `seed`, `seed + 1`, ...: how many. With two or more, the table has confidence intervals.
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
    >>> c.table["syscall_mean_ns"][0] < c.table["syscall_mean_ns"][2]
    np.True_
    """
    chosen = as_policies(policies)
    names = tuple(policy.name for policy in chosen)
    if not names:
        raise _core.SimError("no policy to compare")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise _core.SimError(f"two policies are called {sorted(twice)[0]!r}: give one another name")
    replicates = count(replicates, "replicates", 1, 1_000_000)
    jobs = [(policy, _as_seed(seed + i)) for policy in chosen for i in range(replicates)]
    load, kernel = _as_scenario(scenario), _as_kernel(kernel)
    keep, workers = _as_keep(timeline), as_threads(threads)

    def run(jobs: Sequence[tuple[Policy, int]], costs: str, told: Progress | bool | None) -> list[SimResult]:
        return _run(
            load, machine, kernel, jobs, skip=skip, timeline=keep, threads=workers, progress=told, detail=detail,
            costs=costs,
        )  # fmt: skip

    results = run(jobs, costs, progress)
    rests = {r.policy.name for r in results if r.unsourced and not r.interrupted}
    again = [(policy, seed) for policy, seed in jobs if policy.name in rests]
    ends = ("low", "high") if again and costs == "best" else ()
    bounds = [result for end in ends for result in run(again, end, None)]
    for reason in dict.fromkeys(reason for result in results for reason in result.inert):
        warnings.warn(
            f"{reason}; the figures under its name are mainline's", InertPolicyWarning, stacklevel=2
        )
    return _comparison(tuple(results), names, tuple(bounds))


def statistics_markdown() -> str:
    """Return the table of statistics, causes and figures as `docs/simulation.md` shows it."""
    lines = ["| Statistic | Unit | What it counts, per CPU |", "|---|---|---|"]
    lines += [f"| `{s.name}` | {s.unit} | {s.doc} |" for s in statistics()]
    lines += ["", "| Figure of a comparison | What |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, (text, _) in FIGURES.items()]
    return "\n".join(lines)
