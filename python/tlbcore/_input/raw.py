"""What crosses the line to the core and back, as types. Held against the core by `tests/package/test_boundary.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    until: int | None  # stop there, in picoseconds


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


class Levels(TypedDict):
    """What was pending, in order of time."""

    time_ps: NDArray[np.uint64]
    cpu: NDArray[np.int32]
    level: list[str]
    value: NDArray[np.uint64]


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

    # Columns of these two are made when they are asked for.
    table: Mapping[str, NDArray[np.uint32] | NDArray[np.bool_] | NDArray[np.uint64]]
    figures: Mapping[str, list[str] | NDArray[np.uint64] | NDArray[np.float64]]
    timeline: Timeline
    timeline_dropped: int
    levels: Levels
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
    linux: str
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


class RawStep(TypedDict):
    """One move of a run that breaks a rule."""

    number: int
    cpu: int
    what: str
    source: str | None
    changes: list[str]
    shown: bool


class RawCounterexample(TypedDict):
    """A run that breaks a rule."""

    rule: str
    schedule: str
    text: str
    closing: str
    kernel: str
    lanes: list[str]
    steps: list[RawStep]


class RawVerdict(TypedDict):
    """What a search says."""

    status: str
    world: str
    rule: str | None
    sentence: str
    states: int
    transitions: int
    depth: int
    second: int
    any_number: bool
    bytes: int
    store_buffer: int
    bits_per_cpu: list[int]
    bits_shared: int
    witnesses: list[tuple[str, bool]]
    counterexample: RawCounterexample | None
    wrong_gs: str | None


class RawLitmus(RawVerdict):
    """What a litmus test says: `ends` are the final states and whether these are all."""

    name: str
    doc: str
    source: list[str]
    stated: str
    stated_states: int | None
    found: str
    note: str
    herd: bool
    ends: tuple[list[dict[str, int | str | bool]], bool] | None


class RawNeed(TypedDict):
    """What becomes of a policy without one op or one order."""

    section: str
    place: str
    what: str
    supplied_by: str
    status: str
    rule: str | None
    states: int


class RawRepair(TypedDict):
    """Edits that make a policy pass."""

    edits: list[str]
    text: str
    verdict: str
    states: int


class RawPolicy(TypedDict):
    """A policy's header, the names of its sections and its canonical text."""

    name: str
    doc: str
    source: list[str]
    limits: list[str]
    needs: list[str]
    based_on: str | None
    mainline: bool
    sections: list[str]
    text: str


class RawCalibration(TypedDict):
    """What was measured: (key, value, unit, spread, stable, runs, preempted, how), and the curve of accesses."""

    measurements: list[tuple[str, float, str, float, bool, int, int, str]]
    pages: list[float]
    ns: list[float]
    cpu: int
    others: list[int]
    missing: list[tuple[str, str]]
    taken_share: float
    steal_share: float | None


class RawStructure(TypedDict):
    """One structure of a TLB level."""

    name: str
    sets: int
    ways: int
    sizes: list[str]
    kinds: list[str]
    index: str
    replacement: str
    groups: int
    seed: int
    pcid_slots: int | None
    smashes_1g: bool


class RawLevel(TypedDict):
    """One level of the TLBs."""

    name: str
    inclusive: bool
    structures: list[RawStructure]


class RawMachine(TypedDict):
    """A machine: features, facts as (key, value, mark, source), costs as (name, cycles, low, high, mark, what)."""

    name: str
    title: str
    aliases: list[str]
    vendor: str
    signature: str
    mhz: int
    pcid: bool
    invpcid: bool
    invlpgb_extra: int | None
    rar: bool
    meltdown: bool
    table_levels: int
    facts: list[tuple[str, str, str, str]]
    costs: list[tuple[str, int, int, int, str, str]]
    levels: list[RawLevel]
    psc: list[int]


class RawCause(TypedDict("_RawCause", {"class": str})):
    """A row of the catalogue of causes."""

    id: str
    kind: str
    title: str
    signature: str
    chain: str
    meaning: str
    deferral: str
    because: str
    helps: str
    kernels: str
    remedies: list[tuple[str, str]]


class RawCalls(TypedDict("_RawCalls", {"class": list[str]})):
    """Remote calls of a recording, a row each."""

    queued_s: NDArray[np.float64]
    ran_s: NDArray[np.float64]
    other_entry_s: NDArray[np.float64]
    cpu: NDArray[np.uint32]
    function: list[str]
    cause: list[str]
    evidence: list[str]
    initiator: list[str]
    sender_cpu: NDArray[np.int64]
    in_interrupt: NDArray[np.bool_]
    mode: list[str]
    mode_sure: NDArray[np.bool_]
    traced: NDArray[np.bool_]
    interrupt: NDArray[np.uint32]
    queued_line: NDArray[np.uint64]
    ran_line: NDArray[np.uint64]


class RawSpans(TypedDict):
    """What took isolated CPUs from their tasks, a row each."""

    at_s: NDArray[np.float64]
    length_us: NDArray[np.float64]
    cpu: NDArray[np.uint32]
    cause: list[str]


class RawLevels(TypedDict):
    """What would wait on isolated CPUs under a policy, a row per change."""

    at_s: NDArray[np.float64]
    cpu: NDArray[np.uint32]
    in_favour: NDArray[np.bool_]
    value: NDArray[np.uint32]


class RawLazyPages(TypedDict):
    """Pages on the lazy list, a row per free."""

    at_s: NDArray[np.float64]
    pages: NDArray[np.uint64]


class RawPurges(TypedDict):
    """Purges of a recording, a row each."""

    at_s: NDArray[np.float64]
    areas: NDArray[np.uint64]
    span_pages: NDArray[np.uint64]
    charged_areas: NDArray[np.uint64]
    unknown_areas: NDArray[np.uint64]
    by: list[str]
    largest_owner: list[str]
    largest_owner_areas: NDArray[np.uint64]
    largest_cgroup: list[str]
    largest_cgroup_areas: NDArray[np.uint64]
    line: NDArray[np.uint64]
