"""What a repaired policy costs: two short runs of the timed machine beside its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from tlbcore.policy import Policy

__all__ = ["Cost", "cost_of"]

_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a policy costs on a small embedded workload, as the simulator predicts it.

    The workload: 4 CPUs, 2 of them isolated with 1,000 system calls a second each, beside a housekeeping CPU that
    unmaps kernel addresses (or patches text) 20 times a second; and the same CPUs idle with 1,000 NMIs a second, so
    that each NMI comes from kernel mode. Rates are unsourced; times are per event and hardly depend on them.

    Parameters
    ----------
    machine
        CPU preset whose costs were charged.
    syscall_extra_ns
        Mean system call of the isolated CPUs, refill misses included, beyond that of mainline.
    nmi_extra_ns
        Mean NMI from kernel mode beyond that of mainline.
    deferred
        Share of flushes (or syncs) that were over before an isolated CPU had carried them out, 0 to 1.
    ipis
        Interrupts an isolated CPU took per flush (or sync).
    """

    machine: str
    syscall_extra_ns: float
    nmi_extra_ns: float
    deferred: float
    ipis: float

    def __str__(self) -> str:
        return (
            f"{self.syscall_extra_ns:+.0f} ns per system call, {self.nmi_extra_ns:+.0f} ns per NMI from kernel mode "
            f"(predicted, {self.machine}); {self.deferred:.0%} deferred, {self.ipis:.2f} IPIs per request"
        )


def cost_of(policy: Policy, machine: str) -> Cost:
    """Simulate a policy and mainline on the embedded workload.

    Raises
    ------
    SimError
        If there is no such machine, or the policy cannot run there.
    """
    from tlbcore import scenarios
    from tlbcore.simulation.run import SimResult, simulate

    text = policy.defers == ("sync",)
    step = {"program": "text_poke", "pages": 0, "cause": "text_poke"} if text else _PURGE
    work = scenarios.Scenario(
        name="repair-calls",
        duration_s=_SECONDS,
        cpus=4,
        isolated=(2, 3),
        actors=(
            scenarios.syscalls("isolated", base_ns=770.0, gap_ns=1e6, poisson=True),
            scenarios.spin("housekeeping"),
            scenarios.chain((step,), (0,), rate_hz=20.0, name="requests"),
        ),
    )
    nmis = work.replace(
        name="repair-nmis",
        actors=(
            scenarios.idle("isolated"),
            scenarios.spin("housekeeping"),
            scenarios.nmis("isolated", rate_hz=1000.0),
        ),
    )

    def run(scenario: scenarios.Scenario, of: Policy | str) -> SimResult:
        return simulate(scenario, machine=machine, policy=of, seed=1)

    def mean(result: SimResult, time: str, count: str) -> float:
        return result.total(time, isolated=True) / 1000 / max(result.total(count, isolated=True), 1)

    ours, mainline = run(work, policy), run(work, "ipi")
    ours_nmi, mainline_nmi = run(nmis, policy), run(nmis, "ipi")
    requests = 2 * ours.total("sync_requests" if text else "flush_requests")
    return Cost(
        machine=machine,
        syscall_extra_ns=mean(ours, "kernel_ps", "syscalls") - mean(mainline, "kernel_ps", "syscalls"),
        nmi_extra_ns=mean(ours_nmi, "interrupt_ps", "nmis") - mean(mainline_nmi, "interrupt_ps", "nmis"),
        deferred=ours.total("sync_deferrals" if text else "deferrals", isolated=True) / max(requests, 1),
        ipis=ours.total("ipis_received", isolated=True) / max(requests, 1),
    )


_PURGE = {"program": "vunmap", "pages": 0, "cause": "vunmap"}
