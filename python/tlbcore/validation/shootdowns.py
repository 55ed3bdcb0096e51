"""What is published about the cost of user shootdowns against the number of CPUs that run the process."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tlbcore.simulation.shootdowns import shootdown_ns
from tlbcore.validation.row import Row

__all__ = ["rows"]

AMD, INTEL = "zen4-epyc", "haswell-ep-e5-2699v3"


def rows() -> Iterator[Row]:
    """Yield the published points of the curve beside ours."""
    yield from _amit19()
    yield from _latr()
    yield from _early()
    yield from _invlpgb()


def _amit19() -> Iterator[Row]:
    alone, two, four = (shootdown_ns(n, machine=INTEL) for n in (0, 1, 3))
    for threads, published, computed in ((2, 1225.0 - 663.0, two - alone), (4, 1421.0 - 663.0, four - alone)):
        yield Row(
            number=7,
            name=f"what {threads} threads add to a madvise, Haswell, concurrent flushes (AMIT19)",
            unit="ns",
            role="prediction",
            published=published,
            computed=computed,
            tolerance=0.25,
            note=f"derived: madvise and touch of one page with {threads} threads less that with one; flushes run at "
            "the same time here and there, as in 6.12; IPI costs are unsourced",
        )


def _latr() -> Iterator[Row]:
    for cpus, sockets, published in ((16, 2, 6000.0), (120, 8, 80_000.0)):
        yield Row(
            number=15,
            name=f"munmap on {cpus} cores and {sockets} sockets (LATR)",
            unit="ns",
            role="consistency",
            published=published,
            computed=shootdown_ns(cpus - 1, machine=INTEL, sockets=sockets),
            tolerance=0.5,
            note="UNVERIFIED: read off a figure of the paper; ours is the flush alone, without the call's own work",
        )
    yield Row(
        number=15,
        name="munmap under LATR against Linux, 2 sockets",
        unit="",
        role="prediction",
        published=1.0 - 0.708,
        computed=None,
        tolerance=math.nan,
        note="the call's own work (locks, page tables, pages) is not modelled: what is left of the call is that work",
    )


def _early() -> Iterator[Row]:
    ipi, early = (
        shootdown_ns(1, machine="skylake-sp", policy=policy, pages=10) for policy in ("ipi", "early-ack")
    )
    yield Row(
        number=15,
        name="early acknowledgement against IPIs, one victim, 10 pages (EuroSys 2020)",
        unit="",
        role="consistency",
        published=0.85,
        computed=early / ipi,
        tolerance=0.05,
        absolute=True,
        note="UNVERIFIED: each of the two main techniques saves 10 to 20 %, by reading notes of the paper",
    )


def _invlpgb() -> Iterator[Row]:
    few, many = (shootdown_ns(n, machine=AMD, policy="invlpgb") for n in (3, 71))
    yield Row(
        number=15,
        name="INVLPGB: a shootdown of 72 threads against one of 4",
        unit="",
        role="consistency",
        published=1.0,
        computed=many / few,
        tolerance=0.05,
        absolute=True,
        note="shape: a broadcast costs the same for any number of CPUs; INVLPGB and TLBSYNC are unsourced",
    )
    ipi = [shootdown_ns(n, machine=AMD) for n in (3, 71)]
    yield Row(
        number=15,
        name="INVLPGB on a 72-CPU Milan (loops/s): gain over IPIs at 72 threads over the gain at 4",
        unit="",
        role="prediction",
        published=(993.0 / 609.0) / (1032.0 / 644.0),
        computed=None,
        tolerance=math.nan,
        note=f"shape only: an LRU lock is in it, which hides the shootdown. Ours alone, without that lock: IPIs cost "
        f"{ipi[0] / few:.1f} broadcasts with 4 threads and {ipi[1] / many:.1f} with 72",
    )
