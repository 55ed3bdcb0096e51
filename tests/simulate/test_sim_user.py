"""A policy's own flushes of user ranges run on the timed machine, and a comparison says where it replaces nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios
from tlbcore.simulation.shootdowns import shootdown, shootdown_ns

AMD = "zen4-epyc"
BROADCAST = tc.Kernel(broadcast_tlb_flush=True)


def shootdowns(**more):
    """Return threads on 8 CPUs, of which 4 unmap."""
    return scenarios.user_shootdown(**{"duration_s": 0.02, "rate_hz": 2000.0, **more})


def mean_ps(run: tc.SimResult) -> float:
    return run.total("user_flush_request_ps") / run.total("user_flush_requests")


def test_invlpgb_broadcasts_user_flushes_where_the_machine_has_it() -> None:
    found = tc.compare(shootdowns(), machine=AMD, kernel=BROADCAST, policies=["ipi", "invlpgb"])
    ipi, invlpgb = found.results

    assert ipi.total("user_flush_requests") == invlpgb.total("user_flush_requests") > 100
    # 8 threads: each request calls seven CPUs, some of them while another call waits there.
    assert ipi.total("calls_queued") == 7 * ipi.total("user_flush_requests")
    assert ipi.total("interrupts_user_flush") > 5 * ipi.total("user_flush_requests")
    assert invlpgb.total("calls_queued") == invlpgb.total("interrupts_user_flush") == 0
    assert ipi.violation is None
    assert invlpgb.violation is None
    assert ipi.inert == invlpgb.inert == ()


@pytest.mark.parametrize("pages", [1, 8, 9, 33])
def test_a_broadcast_takes_what_its_ops_take(pages: int) -> None:
    load = shootdowns(cpus=2, isolated="1", rate_hz=500, pages=pages)
    run = tc.simulate(load, machine=AMD, kernel=BROADCAST, policy="invlpgb")
    machine = tc.machine(AMD)
    cost = {name: int(cycles) for name, cycles in zip(run.costs["name"], run.costs["cycles"], strict=True)}
    ps = [round(cycles * 1e6 / machine.mhz) for cycles in (
        cost["lock"] + cost["remote_line"],  # add tlb_gen[mm], 1
        1,  # gen + 1
        cost["mem_l1"],  # flush info
        cost["invlpgb"],
        *([cost["invlpgb"]] * ((pages - 1) // 8)),  # up to eight pages each
        cost["tlbsync"],
    )]  # fmt: skip
    assert run.total("user_flush_requests") > 5
    assert mean_ps(run) == pytest.approx(sum(ps), abs=len(ps))


def test_page_tables_by_rcu_cost_the_broadcast_and_spare_an_interrupt_of_everybody() -> None:
    """The grace period is nobody's wait; `call_rcu` and its callback are *not recorded*, and the page says so."""
    unmap = scenarios.tasks(
        [{"do": "unmap", "pages": 4, "tables": True}], on=(0,), rate_hz=500, shared=True, also_on=(1,)
    )
    load = tc.Scenario(
        name="frees", duration_s=0.02, cpus=4, isolated="2-3", actors=(scenarios.spin("isolated"), unmap)
    )
    waits = "\nflush_mm_tables\n  let mm = mm to flush\n  table range = none\n  request range\n"
    waits += "  flush_tlb_mm_range_freed\n  promise range\n  sync_table_free\n  free table range\n"
    by_ipi = tc.Policy(
        text='policy by-ipi\n  "Waits for GUP-fast."\n  based on tables-by-rcu\n  needs invlpgb\n' + waits
    )
    policies = ["invlpgb", "tables-by-rcu", "tables-at-once", by_ipi]
    found = tc.compare(load, machine=AMD, kernel=BROADCAST, policies=policies)
    requests = {run.total("user_flush_requests") for run in found.results}
    assert len(requests) == 1
    (each,) = requests
    assert each > 5
    cost = [mean_ps(run) for run in found.results]
    assert cost[0] == cost[1] == cost[2] <= cost[3]
    assert [run.total("calls_queued") for run in found.results] == [0, 0, 0, 3 * each]
    text = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
    assert "`call_rcu` and its callback take is *not recorded*" in text
    assert any("not recorded" in limit for limit in tc.policies["tables-by-rcu"].limits)


def test_a_broadcast_beyond_the_ceiling_empties_every_cpu_that_runs_the_process() -> None:
    def run(pages: int, detail: str) -> tc.SimResult:
        load = shootdowns(cpus=4, isolated="2-3", rate_hz=200, duration_s=0.1, pages=pages)
        calls = scenarios.syscalls("isolated", base_ns=2000, gap_ns=10_000, kernel_pages=0, user_pages=32)
        load = load.replace(actors=(calls, *load.actors[1:]))
        return tc.simulate(load, machine=AMD, kernel=BROADCAST, policy="invlpgb", detail=detail)

    for detail in ("summary", "full"):
        full = run(34, detail)
        requests = full.total("user_flush_requests_full")
        assert requests == full.total("user_flush_requests") > 10
        # 32 user pages of each thread are walked again after each flush; in full also what is walked once at the start.
        lost = full.table["refill_misses"][2:]
        assert (abs(lost.astype(int) - 32 * requests) <= 64).all(), (detail, requests, lost)
        assert run(4, detail).table["refill_misses"][2:].max() <= 40


def test_fewer_than_four_cpus_have_no_global_asid() -> None:
    for cpus, broadcast in ((3, False), (4, True)):
        load = shootdowns(cpus=cpus, isolated=f"{cpus - 1}")
        ipi, few = (
            tc.simulate(load, machine=AMD, kernel=BROADCAST, policy=p) for p in ("ipi", "invlpgb-from-4-cpus")
        )
        assert few.violation is None
        if broadcast:  # but for the first flush, and what was under way meanwhile
            assert 3 <= few.total("calls_queued") <= 9
        else:
            assert few.total("calls_queued") == ipi.total("calls_queued")


def test_remote_action_requests_reach_user_ranges() -> None:
    run = tc.simulate(shootdowns(), machine="sapphire-rapids", kernel=tc.Kernel(rar=True), policy="rar")
    assert run.total("user_flush_requests") > 100
    assert run.total("calls_queued") == 0
    assert run.violation is None
    assert run.inert == ()


@pytest.mark.parametrize(
    ("name", "machine", "body"),
    [
        ("forgets-all", "skylake-sp", "  inc_mm_tlb_gen\n  flush info mm, gen\n"),
        ("forgets-itself", "sapphire-rapids", "  inc_mm_tlb_gen\n  flush info mm, gen\n  rar mm_cpumask\n"),
        ("forgets-tlbsync", AMD, "  inc_mm_tlb_gen\n  flush info mm, gen\n  invlpgb range\n"),
    ],
)
def test_a_user_flush_that_reaches_too_few_is_a_violation(name: str, machine: str, body: str) -> None:
    policy = tc.Policy(
        text=f'policy {name}\n  "Wrong on purpose."\n  source "a test"\n\nflush_tlb_mm_range\n{body}'
    )
    run = tc.simulate(
        shootdowns(), machine=machine, kernel=tc.Kernel(rar=True, broadcast_tlb_flush=True), policy=policy
    )
    assert run.violation is not None
    assert "stale_access" in run.violation


HERE = "  if loaded_mm == mm\n    cli\n    flush_loaded\n    sti\n"


@pytest.mark.parametrize(
    ("first", "second", "rest", "violated"),
    [
        ("online", "others", "", False),
        ("others", "online", "", False),
        ("others", "targets", HERE, False),  # `targets` is empty: a request that reaches nobody
        ("targets", "others", HERE, False),
        ("others", "targets", "", True),
        ("targets", "targets", HERE, True),
    ],
)
def test_whom_one_of_two_requests_reached_the_other_does_not_take_back(
    first: str, second: str, rest: str, violated: bool
) -> None:
    body = f"  inc_mm_tlb_gen\n  flush info mm, gen\n  rar {first}\n  rar {second}\n{rest}"
    policy = tc.Policy(
        text=f'policy twice\n  "Two requests."\n  source "a test"\n  needs rar\n\nflush_tlb_mm_range\n{body}'
    )
    run = tc.simulate(shootdowns(), machine="sapphire-rapids", kernel=tc.Kernel(rar=True), policy=policy)
    assert (run.violation is not None) is violated


FORGETFUL = """policy forgetful
  "Nobody else flushes."
  source "a test"
  based on ipi

flush_tlb_mm_range
  inc_mm_tlb_gen
  flush info mm, gen
  flush_loaded
"""


@pytest.mark.parametrize(
    "meanwhile",
    [
        scenarios.interrupts((1,), rate_hz=1e4, body_us=99.0, poisson=False),
        scenarios.nmis((1,), rate_hz=1e4, body_us=99.0),
        scenarios.faults((1,), rate_hz=1e4, body_us=99.0, poisson=False),
        scenarios.interrupts((1,), rate_hz=1.0),
    ],
    ids=["in interrupts", "in NMIs", "in exceptions", "in user mode"],
)
def test_who_is_left_out_is_seen_wherever_that_cpu_is(meanwhile: scenarios.Actor) -> None:
    unmaps = scenarios.tasks(
        [{"do": "unmap", "pages": 4}], (0,), rate_hz=2000, shared=True, also_on="isolated"
    )
    load = scenarios.Scenario(
        name="left-out",
        duration_s=0.02,
        cpus=2,
        isolated=(1,),
        actors=(scenarios.spin("all"), meanwhile, unmaps),
    )
    run = tc.simulate(load, policy=tc.Policy(text=FORGETFUL), machine="skylake-sp")

    assert run.total("user_flush_requests") > 30
    # But for those that end in the last microseconds of the entry or exit: what is closed there may be a switch.
    assert run.total("violations") >= 0.9 * run.total("user_flush_requests")


def test_a_policy_that_replaces_nothing_the_scenario_runs_says_so() -> None:
    load = shootdowns()
    run = tc.simulate(load, machine="broadwell-ep", policy="lazy-tune")
    assert run.inert == ("`lazy-tune` is inert: it replaces nothing that scenario `user-shootdown` runs",)
    assert run.inert[0] in run.notes
    ipi = tc.simulate(load, machine="broadwell-ep")
    assert ipi.inert == (), "mainline replaces nothing, and is not inert"
    for column, values in ipi.table.items():
        assert np.array_equal(values, run.table[column]), column

    # Where its purges run it is not inert, nor is one whose entry path is another.
    storm = scenarios.spawn_storm(duration_s=0.01)
    assert tc.simulate(storm, machine="broadwell-ep", policy="lazy-tune").inert == ()
    assert tc.simulate(load, machine="broadwell-ep", policy="coalesce-v7").inert == ()
    # A policy of user ranges does nothing where there are none.
    assert "spawn-storm" in tc.simulate(storm, machine="broadwell-ep", policy="luf").inert[0]


def test_two_policies_that_both_replace_nothing_are_not_compared() -> None:
    other = tc.policies["lazy-tune"].replace(name="other")
    with pytest.raises(tc.SweepError, match=r"both do nothing here.*they replace nothing that runs"):
        tc.break_even(
            "user-shootdown", "rate_hz", 100, 200, policies=("lazy-tune", other), fixed={"duration_s": 0.01}
        )


def test_ipis_cost_the_same_for_each_further_victim_and_a_broadcast_nothing() -> None:
    """The table of docs/simulation.md, and the figures it is published beside."""
    victims = [1, 3, 7, 15, 31, 63, 127, 255, 1023]
    ipi = [shootdown_ns(n, machine=AMD, requests=5) for n in victims]
    slopes = [(b - a) / (n - m) for a, b, m, n in zip(ipi, ipi[1:], victims, victims[1:], strict=False)]
    assert max(slopes) < 1.02 * min(slopes)
    run = shootdown(1, machine=AMD)
    cost = {name: int(cycles) for name, cycles in zip(run.costs["name"], run.costs["cycles"], strict=True)}
    # A look at loaded_mm and is_lazy of the victim, and a LOCKed operation on its queue; a cycle for each plain op.
    victim = cost["lock"] + 3 * cost["remote_line"] + 2 * cost["mem_l1"]
    assert 0 < min(slopes) * tc.machine(AMD).mhz / 1e3 - victim < 10
    broadcast = [shootdown_ns(n, machine=AMD, policy="invlpgb", requests=5) for n in (1, 255, 1023)]
    assert broadcast[0] == broadcast[1] == broadcast[2]
    ends = [shootdown_ns(1, machine=AMD, policy="invlpgb", requests=5, costs=end) for end in ("low", "high")]
    page = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
    for n, ns in zip(victims, ipi, strict=True):
        two = shootdown_ns(n, machine="skylake-sp", sockets=2, requests=5)
        shown = [f"{us:.0f}" if us >= 10 else f"{us:.2g}" for us in (ns / 1e3, two / 1e3)]
        low, high = (f"{end / 1e3:.2g}" for end in ends)
        assert f"| {n} | {shown[0]} | {low} to {high} | {shown[1]} |" in page
