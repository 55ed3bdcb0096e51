"""A seed's results are the same bytes as in the last version: one that differs is a change that CHANGELOG has to name.

`python tests/simulate/test_golden.py` writes the digests and prints the line for CHANGELOG. A digest is of whole
numbers only: statistics, timeline, purges and counts of latencies.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

import tlbcore as tc
from tlbcore import scenarios

FILE = Path(__file__).parents[1] / "data" / "golden.json"
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
SECONDS = {
    "spawn-storm": 60.0, "rteval": 600.0, "dpdk-poll": 600.0, "trading": 2.0, "syscall-heavy": 30.0,
    "filter-attach": 5.0, "module-load": 5.0, "text-poke": 60.0, "quiet": 60.0, "user-shootdown": 0.05,
    "pthread-churn": 0.2, "hackbench": 0.05, "kernel-build": 0.2,
}  # fmt: skip
MACHINES = {
    "broadwell-ep-e5-2699v4": ("ipi", "coalesce-v7-fixed", "ct-late"),
    "zen4-epyc": ("ipi", "invlpgb"),
}


def digest(result: tc.SimResult) -> str:
    """Return the digest of what a run counted."""
    found = blake2b(digest_size=8)
    for table in (result.table, result.timeline, result.purges):
        for name in table:
            column = np.asarray(table[name])
            text = column.astype(str).tolist() if column.dtype.kind in "UO" else column.astype("<u8").tolist()
            found.update(f"{name}={text};".encode())
    counts = {name: one["count"] for name, one in result.latencies.items()}
    found.update(json.dumps(counts, sort_keys=True).encode())
    return found.hexdigest()


def runs() -> dict[str, str]:
    """Return every run's digest."""
    made = {}
    for name, seconds in SECONDS.items():
        load = scenarios.by_name(name, duration_s=seconds)
        for machine, policies in MACHINES.items():
            for policy in policies:
                found = tc.simulate(load, machine=machine, policy=policy, seed=2026)
                made[f"{name} {machine} {policy}"] = digest(found)
    return made


def sweep_seeds() -> list[int]:
    """Return the seeds of two points of a sweep with two replications."""
    found = tc.sweep(
        "syscall-heavy", {"gap_ns": [0.0, 500.0]}, policies=["ipi"], fixed={"duration_s": 0.001}, replications=2,
        seed=2026,
    )  # fmt: skip
    return [int(seed) for seed in found.table["seed"]]


def line(golden: dict[str, Any]) -> str:
    """Return what CHANGELOG says of the results of seeds."""
    whole = blake2b(json.dumps(golden, sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"`tests/data/golden.json`, {len(golden['runs'])} runs, digest {whole}"


def test_every_scenario_has_runs() -> None:
    assert set(SECONDS) == set(scenarios.SCENARIOS)


def test_a_seed_gives_the_bytes_that_it_gave() -> None:
    golden = json.loads(FILE.read_text())
    assert runs() == golden["runs"], (
        "python tests/simulate/test_golden.py, and say in CHANGELOG what changed and why"
    )
    assert sweep_seeds() == golden["sweep_seeds"]


def test_the_digests_are_those_that_changelog_names() -> None:
    assert line(json.loads(FILE.read_text())) in " ".join(CHANGELOG.read_text().split())


def test_a_digest_sees_every_count_and_every_time() -> None:
    result = tc.simulate(scenarios.user_shootdown(duration_s=0.005), machine="zen4-epyc")
    before = digest(result)
    for name in ("table", "timeline"):
        for column, values in getattr(result, name).items():
            if values.dtype.kind in "iu" and len(values):
                changed = {
                    **getattr(result, name),
                    column: values + (np.arange(len(values)) == 0).astype(values.dtype),
                }
                assert digest(result.replace(**{name: changed})) != before, column


if __name__ == "__main__":
    written = {"seed": 2026, "runs": runs(), "sweep_seeds": sweep_seeds()}
    FILE.write_text(json.dumps(written, indent=1) + "\n")
    print(line(written))
