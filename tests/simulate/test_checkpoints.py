"""A run that is stopped anywhere goes on to the same end: every scenario, many places, each leg in a new run.

A field of the state that a checkpoint forgets shows only if the run is stopped while it is in use.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import _core, scenarios

MACHINE = "broadwell-ep-e5-2699v4"
STOPS = 12
# Long enough that something happens on several CPUs.
SECONDS = {
    "spawn-storm": 60.0, "rteval": 30.0, "dpdk-poll": 100.0, "trading": 0.05, "syscall-heavy": 0.01,
    "filter-attach": 5.0, "module-load": 5.0, "text-poke": 60.0, "quiet": 60.0, "user-shootdown": 0.005,
    "pthread-churn": 0.02, "hackbench": 0.005, "kernel-build": 0.05,
}  # fmt: skip
# Between them they defer, wait, hand over later, flush user ranges and sync text.
POLICIES = ("ipi", "coalesce-v7-fixed", "quarantine", "latr", "text-defer-v7")


def leg(
    load: tc.Scenario, policy: str, *, until: int | None, resume: bytes | None, detail: bool
) -> dict[str, Any]:
    request: Any = {
        "scenario": load.to_json(), "machine": MACHINE, "kernel": tc.Kernel().to_json(),
        "jobs": [(policy, "", 7)], "skip": True, "keep": 64, "full": detail, "bound": "best", "threads": 1,
    }  # fmt: skip
    course: Any = {"progress": None, "resume": resume, "checkpoint": True, "every": None, "until": until}
    (raw,) = _core.simulate(request, course)
    raw |= {name: {column: raw[name][column] for column in raw[name]} for name in ("table", "figures")}
    return dict(raw)


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare everything that a run counts: statistics, figures, purges, timeline, every latency and quantile."""
    assert set(one) == set(other)
    for name in set(one) - {"checkpoint"}:
        left, right = one[name], other[name]
        if isinstance(left, dict) and name != "latencies":
            assert list(left) == list(right)
            for column in left:
                np.testing.assert_array_equal(left[column], right[column], err_msg=f"{name}.{column}")
        else:
            assert left == right, name


def in_legs(load: tc.Scenario, policy: str, stops: list[int], *, detail: bool = False) -> dict[str, Any]:
    state = None
    for at in stops:
        found = leg(load, policy, until=at, resume=state, detail=detail)
        assert found["interrupted"]
        assert found["reached_ps"] == at
        state = found["checkpoint"]
    return leg(load, policy, until=None, resume=state, detail=detail)


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_a_run_stopped_again_and_again_ends_as_if_never_stopped(name: str) -> None:
    load = scenarios.by_name(name, duration_s=SECONDS[name])
    duration = round(load.duration_s * 1e12)
    rng = np.random.default_rng([17, *name.encode()])
    for policy in POLICIES:
        whole = leg(load, policy, until=None, resume=None, detail=False)
        assert not whole["interrupted"]
        assert whole["program_runs"] > 3
        stops = sorted({1, duration - 1, *rng.integers(1, duration, STOPS).tolist()})
        same(in_legs(load, policy, stops), whole)


@pytest.mark.parametrize("name", ["spawn-storm", "user-shootdown", "text-poke"])
def test_a_run_is_stopped_at_every_event_of_its_timeline(name: str) -> None:
    """And one picosecond before and after: what happens at one instant on two CPUs is cut in the middle."""
    load = scenarios.by_name(name, duration_s=SECONDS[name])
    duration = round(load.duration_s * 1e12)
    for policy in ("ipi", "coalesce-v7-fixed"):
        whole = leg(load, policy, until=None, resume=None, detail=False)
        times = whole["timeline"]["time_ps"].astype(np.int64)
        assert len(times) > 10
        near = {int(at) + by for at in times[:: max(1, len(times) // 50)] for by in (-1, 0, 1)}
        same(in_legs(load, policy, sorted(at for at in near if 0 < at < duration)), whole)


def test_a_run_with_streams_is_stopped_while_pages_are_looked_up() -> None:
    load = scenarios.syscall_heavy(duration_s=0.002, gap_ns=1000.0)
    load = load.replace(
        actors=(*load.actors, scenarios.stream("isolated", scenarios.zipf(3000), rate_hz=1e7, poisson=True))
    )
    whole = leg(load, "coalesce-v7-fixed", until=None, resume=None, detail=True)
    assert whole["table"]["stream_touches"].sum() > 1000
    stops = [round(0.002e12 * k / 17) for k in range(1, 17)]
    same(in_legs(load, "coalesce-v7-fixed", stops, detail=True), whole)


def test_a_checkpoint_belongs_to_its_machine_and_build() -> None:
    """The frequency is no cost: a machine whose file was edited under its name has other times of the same cycles."""
    text = 'name = "mine"\ntitle = "own"\ninherits = "broadwell-ep-e5-2699v4"\n[cpu]\nmhz = {}\n'
    load = scenarios.syscall_heavy(duration_s=0.01)

    def run(mhz: int, **course: Any) -> Any:
        request: Any = {
            "scenario": load.to_json(), "machine": text.format(mhz), "kernel": tc.Kernel().to_json(),
            "jobs": [("ipi", "", 1)], "skip": True, "keep": 4, "full": False, "bound": "best", "threads": 1,
        }  # fmt: skip
        given: Any = {"progress": None, "resume": None, "checkpoint": True, "every": None, "until": None}
        return _core.simulate(request, {**given, **course})[0]

    state = run(2000, until=10**9)["checkpoint"]
    assert run(2000, resume=state)["reached_ps"] == 10**10
    with pytest.raises(tc.SimError, match="checkpoint: is of a run with other inputs"):
        run(2001, resume=state)


def test_a_state_made_by_hand_that_contradicts_itself_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """The seal is right and every size fits: an NMI is due, and nothing sends one."""
    load, mark = scenarios.syscall_heavy(duration_s=0.01), b"tlbcore checkpoint\n"
    sealed = leg(load, "ipi", until=10**9, resume=None, detail=False)["checkpoint"]
    whole = json.loads(gzip.decompress(sealed[len(mark) + 32 :]))

    def forged() -> bytes:
        packed = gzip.compress(json.dumps(whole).encode())
        return mark + hashlib.sha256(packed).digest() + packed

    assert leg(load, "ipi", until=None, resume=forged(), detail=False)["reached_ps"] == 10**10
    for core in whole["state"]["cores"]:
        core["nmi_next"] = core["clock"]
    whole["state"]["queue"] = [core["clock"] for core in whole["state"]["cores"]]
    with pytest.raises(tc.SimError, match=r"^checkpoint: its state contradicts itself, so no run wrote it"):
        leg(load, "ipi", until=None, resume=forged(), detail=False)
    capfd.readouterr()  # what a panic prints


def test_a_state_with_a_part_too_few_does_not_fit() -> None:
    load, mark = scenarios.syscall_heavy(duration_s=0.01), b"tlbcore checkpoint\n"
    sealed = leg(load, "ipi", until=10**9, resume=None, detail=False)["checkpoint"]
    text = gzip.decompress(sealed[len(mark) + 32 :])
    parts = {name for name, part in json.loads(text)["state"].items() if isinstance(part, list) and part}
    # One entry a CPU, or a figure of which durations are kept.
    assert parts >= {"cores", "debts", "stats", "queue", "timelines", "levels", "targets", "own", "durations"}
    for name in sorted(parts):
        whole = json.loads(text)
        whole["state"][name].pop()
        packed = gzip.compress(json.dumps(whole).encode())
        state = mark + hashlib.sha256(packed).digest() + packed
        with pytest.raises(tc.SimError, match=r"^checkpoint: does not fit this run$"):
            leg(load, "ipi", until=None, resume=state, detail=False)
