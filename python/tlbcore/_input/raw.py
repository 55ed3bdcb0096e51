"""What crosses the line to the core and back, as types. Held against the core by `tests/package/test_boundary.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tlbcore._input.vocabulary import Costs


class RunRequest(TypedDict):
    """What is simulated."""

    scenario: str  # JSON
    machine: str  # a built-in name, or a text
    kernel: str  # JSON
    jobs: list[tuple[str, str, int]]  # policy, its file, seed
    skip: bool
    keep: int
    full: bool
    bound: Costs
    threads: int


class RunCourse(TypedDict):
    """What happens meanwhile, and where it goes on."""

    progress: Callable[[float, float], None] | None
    resume: bytes | None
    checkpoint: bool
    every: tuple[float, Callable[[bytes], None]] | None


class Latency(TypedDict):
    """Durations of one kind on one class of CPUs: the mean is exact, quantiles have two digits."""

    count: int
    mean_ps: float
    p50_ps: int
    p90_ps: int
    p99_ps: int
    p999_ps: int
    max_ps: int


class Timeline(TypedDict):
    """Events in order of time."""

    time_ps: NDArray[np.uint64]
    duration_ps: NDArray[np.uint64]
    cpu: NDArray[np.uint32]
    kind: list[str]
    cause: list[str]
    other: NDArray[np.uint32]


class Purges(TypedDict):
    """Purges in order of time."""

    time_ps: NDArray[np.uint64]
    cpu: NDArray[np.uint32]
    areas: NDArray[np.uint32]
    hull_pages: NDArray[np.uint64]
    forks: NDArray[np.uint64]
    tail: NDArray[np.bool_]


class RawRun(TypedDict):
    """What a run gives."""

    table: dict[str, NDArray[np.uint32] | NDArray[np.bool_] | NDArray[np.uint64]]
    figures: dict[str, list[str] | NDArray[np.uint64] | NDArray[np.float64]]
    timeline: Timeline
    timeline_dropped: int
    purges: Purges
    latencies: dict[str, Latency]
    costs: list[tuple[str, int, int, int, str]]
    unsourced: list[str]
    program_runs: int
    reached_ps: int
    interrupted: bool
    notes: list[str]
    inert: list[str]
    violation: str | None
    checkpoint: bytes | None


class Range(TypedDict):
    """What a recording leaves open."""

    low: float
    high: float


class CpuOutcome(TypedDict):
    """What a policy makes of one isolated CPU of a recording."""

    cpu: int
    deferred: Range
    remaining: Range
    interrupts: Range
    entries: Range
    entry_flushes: Range
    exposure_s: Range
    exposure_longest_s: Range
    call_interrupts_ms: Range
    entry_cost_ms: Range | None


class _Outcome(TypedDict, total=False):
    inert: str


class Outcome(_Outcome):
    """What a policy makes of a recording; `inert` only where it does nothing."""

    policy: str
    title: str
    needs: str
    deferred_by_class: dict[str, Range]
    remaining_by_class: dict[str, Range]
    deferred: Range
    remaining: Range
    interrupts: Range
    more_calls: Range
    more_lines: list[int]
    wait_ms: Range | None
    not_modelled: list[str]
    cpus: list[CpuOutcome]
