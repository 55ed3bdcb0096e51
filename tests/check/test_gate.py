"""The six programs that the shape of the language was judged by run on both machines.

`coalesce-v7`, `pending-bit` (compare-and-exchange), `fancy-state` (a pair under one atomic), `switch_mm` of
CVE-2025-37964, a freed page-table page, and an NMI that saves and restores a flag. That each fits a word per CPU
is tested in Rust, beside the layout.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import tlbcore as tc

LITMUS = Path(__file__).parents[1] / "litmus" / "history"
POLICIES = {"coalesce-v7": "violated", "pending-bit": "verified", "fancy-state": "verified"}

SWITCH_MM = """policy mm-switch
  "switch_mm in the order of fea4e317f9e7, and the flush that relies on it."
  source "CVE-2025-37964; FACTS 6 B2 and B4"
  var loaded_mm : 2 bits, per cpu, starts 0
  page u : user of 1

switch_mm
  loaded_mm = 3
  mov cr3, mm 1 asid 0
  loaded_mm = 1

flush_mm
  pte u = none locked
  request u
  each cpu in others
    let seen = loaded_mm[cpu]
    if seen == 1 or seen == 3
      put cpu into targets
  ipi targets, flush_u
  await acks
  promise u

flush_u
  invlpg u
"""


@pytest.mark.parametrize("name", [*POLICIES, "coalesce-tri-state"])
def test_a_policy_of_the_gate_runs_on_both_machines(name: str) -> None:
    with_nmi = tc.check(name, nmis=1, assume={"D": "recycled", "N": "recycled"})
    assert with_nmi.status == POLICIES.get(name, "verified")

    run = tc.simulate(tc.scenarios.module_load(duration_s=20.0), machine="skylake-sp", policy=name, seed=1)

    assert run.table["flush_requests"].sum() > 0
    assert run.table["deferrals"].sum() > 0


@pytest.mark.parametrize(
    "bug", ["b02-loaded-mm-window", "b04-switching-after-gen", "b07-ioremap-frees-pte-page"]
)
def test_a_historical_bug_of_the_gate_is_told_from_its_fix(bug: str) -> None:
    broken, fixed = (tc.litmus(LITMUS / f"{name}.litmus") for name in (bug, f"{bug}-fixed"))
    assert [t.found.split(":")[0] for t in (broken, fixed)] == ["violated", "verified"]


def test_switch_mm_and_a_freed_table_run_on_the_timed_machine() -> None:
    steps = [{"program": p, "pages": 1, "cause": "other"} for p in ("switch_mm", "flush_mm", "table_free")]
    load = tc.scenarios.quiet(duration_s=2.0, cpus=4, isolated="2-3").replace(
        actors=(tc.scenarios.spin("isolated"), tc.scenarios.chain(steps, rate_hz=50.0))
    )

    run = tc.simulate(load, machine="skylake-sp", policy=tc.Policy(text=SWITCH_MM), seed=1)

    chains = int(run.table["flush_requests"].sum()) // 2
    assert chains > 50
    # No other CPU has the mm loaded, so only the freed table interrupts: every other CPU, every time.
    assert run.table["ipis_received"].sum() == 3 * chains
