"""What a repaired policy costs: the runs that are made, and what is made of their totals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import tlbcore as tc
from tlbcore.simulation import run as runs
from tlbcore.simulation.repair_cost import Cost, cost_of


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (Cost(machine="m", syscall_extra_ns=552.5, nmi_extra_ns=-1.4, deferred=0.994, ipis=0.006),
         "+552 ns per system call, -1 ns per NMI from kernel mode (predicted, m); 99% deferred, 0.01 IPIs per request"),
        (Cost(machine="x y", syscall_extra_ns=0.0, nmi_extra_ns=1234.6, deferred=0.0, ipis=12.345),
         "+0 ns per system call, +1235 ns per NMI from kernel mode (predicted, x y); 0% deferred, 12.35 IPIs per "
         "request"),
    ],
)  # fmt: skip
def test_a_cost_as_a_sentence(cost: Cost, said: str) -> None:
    assert str(cost) == said
    with pytest.raises(AttributeError):
        cost.ipis = 0.0  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Cost("m", 1.0, 2.0, 3.0, 4.0)  # type: ignore[misc]


# Totals by run: of isolated CPUs, and (`all`) of every CPU.
USUAL: dict[str, dict[str, int]] = {
    "repair-calls ipi": {"kernel_ps": 8_000_000, "syscalls": 4},
    "repair-nmis ipi": {"interrupt_ps": 600_000, "nmis": 6},
    "repair-nmis ours": {"interrupt_ps": 1_000_000, "nmis": 5},
}
FLUSHES = {
    "deferrals": 12,
    "sync_deferrals": 99,
    "all flush_requests": 10,
    "all sync_requests": 77,
    "ipis_received": 5,
}
SYNCS = {
    "sync_deferrals": 12,
    "deferrals": 99,
    "all sync_requests": 10,
    "all flush_requests": 77,
    "ipis_received": 5,
}
CALLS = {"kernel_ps": 6_000_000, "syscalls": 2}


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answer runs by the totals of `totals`; note the scenario, policy and options of each in `asked`."""
    made = SimpleNamespace(totals={}, asked=[])

    def simulate(scenario: Any, *, policy: Any, **options: Any) -> Any:
        made.asked.append((scenario, policy, options))
        totals = made.totals[f"{scenario.name} {'ipi' if policy == 'ipi' else 'ours'}"]

        def total(name: str, isolated: bool | None = None) -> int:
            found: int = totals[name if isolated else f"all {name}"]
            return found

        return SimpleNamespace(total=total)

    monkeypatch.setattr(runs, "simulate", simulate)
    return made


@pytest.mark.parametrize(
    ("name", "counts"), [("coalesce-v7", FLUSHES), ("text-defer-v7", SYNCS), ("latr", FLUSHES)]
)
def test_a_cost_is_what_our_runs_take_beyond_mainline_s(
    name: str, counts: dict[str, int], simulated: Any
) -> None:
    """3,000 ns for a call beside 2,000, 200 for an NMI beside 100; 10 requests of two CPUs, 12 of these 20 deferred."""
    simulated.totals = {**USUAL, "repair-calls ours": CALLS | counts}
    assert cost_of(tc.policies[name], "skylake-sp") == Cost(
        machine="skylake-sp", syscall_extra_ns=1000.0, nmi_extra_ns=100.0, deferred=0.6, ipis=0.25
    )


def test_where_nothing_happened_nothing_is_divided_by_zero(simulated: Any) -> None:
    names = (
        "kernel_ps",
        "syscalls",
        "interrupt_ps",
        "nmis",
        "deferrals",
        "ipis_received",
        "all flush_requests",
    )
    nothing = dict.fromkeys(names, 0)
    simulated.totals = {
        f"repair-{which} {of}": nothing for which in ("calls", "nmis") for of in ("ipi", "ours")
    }
    found = cost_of(tc.policies["coalesce-v7"], "skylake-sp")
    assert (found.syscall_extra_ns, found.nmi_extra_ns, found.deferred, found.ipis) == (0, 0, 0, 0)
    once = nothing | {"kernel_ps": 5000, "syscalls": 1, "interrupt_ps": 7000, "nmis": 1}
    simulated.totals |= {"repair-calls ours": once, "repair-nmis ours": once}
    found = cost_of(tc.policies["coalesce-v7"], "skylake-sp")
    assert (found.syscall_extra_ns, found.nmi_extra_ns) == (5.0, 7.0)


@pytest.mark.parametrize(
    ("name", "program", "cause"),
    [("ct-late", "vunmap", "vunmap"), ("text-defer-v7", "text_poke", "text_poke")],
)
def test_the_workload_is_the_one_that_is_described(
    name: str, program: str, cause: str, simulated: Any
) -> None:
    simulated.totals = {**USUAL, "repair-calls ours": CALLS | FLUSHES}
    policy = tc.policies[name]
    cost_of(policy, "skylake-sp")
    assert [(scenario.name, of) for scenario, of, _ in simulated.asked] == [
        ("repair-calls", policy), ("repair-calls", "ipi"), ("repair-nmis", policy), ("repair-nmis", "ipi"),
    ]  # fmt: skip
    assert all(options == {"machine": "skylake-sp", "seed": 1} for *_, options in simulated.asked)
    calls, nmis = simulated.asked[0][0], simulated.asked[2][0]
    for scenario in (calls, nmis):
        assert (scenario.cpus, scenario.isolated, scenario.duration_s) == (4, (2, 3), 4.0)
    from tlbcore import scenarios

    step = {"program": program, "pages": 0, "cause": cause}
    assert calls.actors == (
        scenarios.syscalls("isolated", base_ns=770.0, gap_ns=1e6, poisson=True),
        scenarios.spin("housekeeping"),
        scenarios.chain((step,), (0,), rate_hz=20.0, name="requests"),
    )
    assert nmis.actors == (
        scenarios.idle("isolated"), scenarios.spin("housekeeping"), scenarios.nmis("isolated", rate_hz=1000.0),
    )  # fmt: skip


def test_on_a_real_machine_deferring_costs_calls_and_spares_interrupts() -> None:
    mainline = cost_of(tc.policies["ipi"], "skylake-sp")
    assert (mainline.syscall_extra_ns, mainline.nmi_extra_ns, mainline.deferred) == (0.0, 0.0, 0.0)
    assert mainline.ipis == pytest.approx(1.0)
    deferring = cost_of(tc.policies["coalesce-v7"], "skylake-sp")
    assert deferring.syscall_extra_ns > 100, "a flush of everything at each entry"
    assert deferring.deferred > 0.9
    assert deferring.ipis < 0.1
