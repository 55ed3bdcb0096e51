"""What one shootdown costs who asks for it, against the number of CPUs that run the process."""

from __future__ import annotations

from tlbcore import scenarios
from tlbcore._input.vocabulary import Costs
from tlbcore.hardware import Machine
from tlbcore.kernel import Kernel
from tlbcore.policy import Policy
from tlbcore.simulation.run import SimResult, simulate

__all__ = ["shootdown", "shootdown_ns"]


def shootdown(
    victims: int,
    *,
    machine: str | Machine,
    policy: str | Policy = "ipi",
    requests: int = 20,
    pages: int = 1,
    sockets: int = 1,
    pti: bool | None = None,
    costs: Costs = "best",
) -> SimResult:
    """Simulate `requests` unmaps by one thread while `victims` other threads of the process compute.

    They come a millisecond apart, so that one is over before the next begins.
    """
    cpus = victims + 1
    unmap = [{"do": "unmap", "pages": pages}]
    load = scenarios.Scenario(
        name="shootdown",
        duration_s=(requests + 0.9) * 1e-3,
        cpus=cpus,
        isolated=tuple(range(1, cpus)),
        sockets=min(sockets, cpus),
        actors=(
            scenarios.spin("all", user_pages=32),
            scenarios.tasks(unmap, (0,), rate_hz=1000.0, shared=True, also_on="isolated", poisson=False),
        ),
    )
    kernel = Kernel(pti=pti, broadcast_tlb_flush=True, rar=policy == "rar")
    return simulate(load, machine=machine, kernel=kernel, policy=policy, timeline=0, costs=costs)


def shootdown_ns(victims: int, **how: object) -> float:
    """Return the mean time from a request to the moment its caller may rely on it, in nanoseconds."""
    run = shootdown(victims, **how)  # type: ignore[arg-type]
    return run.total("user_flush_request_ps") * 1e-3 / run.total("user_flush_requests")
