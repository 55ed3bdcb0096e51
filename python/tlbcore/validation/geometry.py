"""Row 9 of NUMBERS: reach, steps and eviction orders of TLB presets, found by driving access streams through them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tlbcore import scenarios
from tlbcore.hardware import Machine, machine
from tlbcore.scenarios import Scenario
from tlbcore.simulation.run import simulate
from tlbcore.tlb import Tlb
from tlbcore.validation.row import Row

# preset, pages of the first level's knee and of the second's, tolerance of that, what they were read from.
_KNEES = (
    ("haswell-ep-e5-2699v3", 64, 1024, 0.0, "CPUID"),
    ("broadwell-ep-e5-2699v4", 64, 1536, 0.0, "CPUID"),
    ("skylake-sp", 64, 1536, 0.0, "CPUID"),
    ("zen4-epyc", 72, 3072, 0.02, "measured on a guest: exactly 72, about 3072"),
)

# preset, cycles a touch takes more beyond the first level.
_STEPS = (
    ("skylake-sp", 9.0, "MEMLAT: 14 up to 64 pages, 23 from 96"),
    ("golden-cove", 7.0, "MEMLAT: 15 to 22"),
    ("zen4-epyc", 7.0, "measured on a guest: 4.0 to 11.0"),
)

# preset, level, ways, pages between two of the same set, ways in the order in which new pages replace them.
_ORDERS = (
    ("skylake-sp", 0, 4, 16, (1, 3, 2, 4), "dTLB, PLRU4"),
    ("haswell-ep-e5-2699v3", 1, 8, 1 << 14, (1, 5, 3, 7, 2, 6, 4, 8), "STLB, PLRU8"),
    ("skylake-sp", 1, 12, 1 << 14, (1, 5, 9, 3, 7, 11, 2, 6, 10, 4, 8, 12), "STLB, (MRU+1) mod 3 PLRU4"),
)


def _reach(name: str, level: int, step: int, most: int) -> int:
    """Pages in a row, in steps of `step`, that a second round finds no farther than `level`."""
    reach = 0
    for pages in range(step, most, step):
        tlb, vpns = Tlb(name), np.arange(pages, dtype=np.uint64)
        tlb.access(vpns)
        tlb.access(vpns)
        levels = tlb.access(vpns).levels
        if levels is not None and levels.max() <= level:
            reach = pages
    return reach


def _step_cycles(name: str) -> float:
    """Cycles that a touch of 512 pages takes more than one of pages that fit the first level."""

    def spent(duration_s: float) -> tuple[float, int]:
        load = Scenario(
            name="chase",
            duration_s=duration_s,
            cpus=2,
            isolated=(1,),
            actors=(
                scenarios.spin("all"),
                scenarios.stream("isolated", scenarios.pointer_chase(512), rate_hz=1e6),
            ),
        )
        run = simulate(load, machine=name, detail="full")
        return float(run.total("stream_ps")), int(run.total("stream_touches"))

    (first_ps, first), (ps, touches) = spent(0.01), spent(0.02)
    return (ps - first_ps) / (touches - first) * machine(name).mhz * 1e-6


def _order(name: str | Machine, level: int, ways: int, stride: int) -> list[int]:
    """Ways of one set, numbered from 1 as they were filled, in the order in which new pages replace them."""
    tlb = Tlb(name)
    left = list(range(ways))
    tlb.access(np.arange(ways, dtype=np.uint64) * stride)
    order: list[int] = []
    for new in range(ways, 2 * ways):
        tlb.access([new * stride])
        for way in list(left):
            levels = tlb.copy().access([way * stride]).levels
            if levels is not None and levels[0] > level:
                order.append(way + 1)
                left.remove(way)
    return order


def _contexts(name: str) -> Iterator[tuple[str, float, float]]:
    """Contexts an STLB keeps, and the one that a further one replaces after the first was used again."""
    kept = 0
    for contexts in range(1, 9):
        tlb = Tlb(name)
        tlb.access(np.full(contexts, 5, dtype=np.uint64), np.arange(1, contexts + 1, dtype=np.uint16))
        if tlb.access([5], 1).walks == 0:
            kept = contexts
    yield "contexts that the STLB keeps", 4.0, float(kept)
    tlb = Tlb(name)
    tlb.access([5] * 6, [1, 2, 3, 4, 1, 5])
    lost = [pcid for pcid in range(1, 6) if tlb.copy().access([5], pcid).walks]
    yield "context that a fifth replaces after the first was used again", 2.0, float(lost[0])


def rows() -> Iterator[Row]:
    """Yield the rows."""

    def row(
        name: str,
        unit: str,
        published: float,
        computed: float,
        tolerance: float,
        note: str,
        role: str = "consistency",
    ) -> Row:
        return Row(
            number=9,
            name=name,
            unit=unit,
            role=role,
            published=published,
            computed=computed,
            tolerance=tolerance,
            note=note,
        )

    for name, first, second, tolerance, note in _KNEES:
        reach = float(_reach(name, 0, 4, 2 * first))
        yield row(f"reach of the dTLB, {name}", "pages", first, reach, 0.0, note)
        reach = float(_reach(name, 1, second // 16, 2 * second))
        yield row(f"reach of all levels, {name}", "pages", second, reach, tolerance, note)
    for name, cycles, note in _STEPS:
        yield row(f"step beyond the dTLB, {name}", "cycles", cycles, _step_cycles(name), 0.02, note, "input")
    for name, level, ways, stride, order, what in _ORDERS:
        found = _order(name, level, ways, stride)
        agree = sum(a == b for a, b in zip(order, found, strict=False))
        note = f"TLBDR names the policy; by its definition new pages replace {order}: found {tuple(found)}"
        yield row(f"victims in order, {what}, {name}", "ways", float(ways), float(agree), 0.0, note)
    for what, published, computed in _contexts("skylake-sp"):
        yield row(f"{what}, skylake-sp", "PCIDs", published, computed, 0.0, "TLBDR, one machine")
