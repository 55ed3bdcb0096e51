"""What people bring to a TLB, by class: members that differ in one property, and a bench tells the worst and the best.

A bench of one stream says how fast that stream is. Where a loop has a door (pages of one window, one integer type, long
calls, one context), the stream goes through it and nobody sees the others. So each class here has members on both sides
of every door that there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from benches import streams
from numpy.typing import NDArray

import tlbcore as tc

Pages = NDArray[np.uint64]
PEERS = "peers-64x4-1536x12"

#: Where the 65,536 pages of a stream lie: share of each region, and its first page.
REGIONS: dict[str, tuple[tuple[float, int], ...]] = {
    "one heap": ((1.0, 0x7_F000_0000),),
    "PIE heap, libraries, stack": ((0.6, 0x5_5D5C_1234), (0.3, 0x7_F3A4_0567), (0.1, 0x7_FFC1_E89A)),
    "user and kernel": ((0.5, 0x7_F3A4_0000), (0.5, 0xFFFF_8881_2345_6000 >> 12)),
    "vmalloc and text": ((0.8, 0xFFFF_C900_0123_4000 >> 12), (0.2, 0xFFFF_FFFF_8100_0000 >> 12)),
    "random 48-bit": (),
}


def placed(pages: Pages, region: str) -> Pages:
    """Move the pages of a stream (`streams.BASE` and up) to where a region has them, one to one."""
    rng = np.random.default_rng(streams.SEED)
    table = np.empty(streams.PAGES, dtype=np.uint64)
    if region == "random 48-bit":
        table[:] = rng.choice(1 << 24, streams.PAGES, replace=False)
        table = table << np.uint64(11) | rng.integers(0, 1 << 11, streams.PAGES, dtype=np.uint64)
    else:
        order = rng.permutation(streams.PAGES)
        start = 0
        for number, (share, first) in enumerate(REGIONS[region]):
            last = number + 1 == len(REGIONS[region])
            end = streams.PAGES if last else start + int(share * streams.PAGES)
            table[order[start:end]] = np.arange(first, first + end - start, dtype=np.uint64)
            start = end
    moved: Pages = table[(pages - np.uint64(streams.BASE)).astype(np.intp)]
    return moved


#: What the pages of a call may come as.
INTEGERS = ("uint64", "int64", "uint32", "int32")
#: Accesses of a call.
CALLS = (64, 512, 4095, 4096, 1_000_000)
#: Contexts: how many there are, and how many accesses lie between changes.
CONTEXTS = {
    "one, as a number": None,
    "one, as an array": (1, 1),
    "two, in turns of 1,000": (2, 1000),
    "64, in turns of 1,000": (64, 1000),
    "64, each access": (64, 1),
}


def contexts(count: int, kinds: int, length: int) -> NDArray[np.uint16]:
    """Return a context for each access: `kinds` of them, drawn anew every `length` accesses."""
    rng = np.random.default_rng(streams.SEED)
    drawn = rng.integers(1, 1 + kinds, -(-count // length), dtype=np.uint16)
    return np.repeat(drawn, length)[:count]


#: What events there are beside accesses.
MIXES = (
    "loads",
    "loads, stores, fetches",
    "full flushes",
    "contexts and ranges",
    "switches",
    "2 MiB pages",
)


def events(pages: Pages, mix: str, cpus: int) -> NDArray[np.void]:
    """Events of a mix on so many CPUs; 1/16 of the pages are global but where pages are of two sizes."""
    rng = np.random.default_rng(streams.SEED)
    made = np.zeros(len(pages), dtype=tc.EVENT)
    made["vpn"] = pages
    made["cpu"] = rng.integers(0, cpus, len(pages))
    made["pcid"] = 1
    spread = (pages * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(60)
    if mix == "2 MiB pages":
        # By region of 2 MiB, so that no page has two sizes.
        huge = (pages >> np.uint64(9)) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(61) == 0
        made["flags"] = np.where(huge, tc.FLAGS["SIZE_2M"], 0)
        return made
    made["flags"] = spread == 0
    rare = rng.random(len(pages)) < 0.001
    if mix == "loads, stores, fetches":
        made["op"] = rng.choice(3, len(pages), p=(0.6, 0.3, 0.1))
    elif mix == "full flushes":
        made["op"][rare] = tc.OPS["invpcid_all"]
    elif mix == "contexts and ranges":
        made["pcid"] += rng.random(len(pages)) < 0.25
        kinds = [tc.OPS[name] for name in ("invlpg", "invpcid_context", "invpcid_address", "invpcid_all")]
        made["op"][rare] = rng.choice(kinds, rare.sum())
        made["pages"][rare] = rng.integers(1, 34, rare.sum())
    elif mix == "switches":
        # Each CPU enters the kernel and leaves it, as under page-table isolation: its own context and the kernel's.
        made["pcid"] = 1 + (np.arange(len(pages)) // (50 * cpus)) % 2
        switch = np.arange(len(pages)) % 50 == 0
        made["op"][switch] = tc.OPS["mov_cr3"]
        made["flags"][switch] = tc.FLAGS["NOFLUSH"]
    return made


@dataclass
class Class:
    """Figures of the members of a class, by name; the worst and the best of each are what a bench reports."""

    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, figure: str, member: str, value: float) -> None:
        self.figures.setdefault(figure, {})[member] = value

    def extremes(self, least: bool = False) -> Iterator[tuple[str, Any]]:
        """Name and value of `worst_FIGURE`, `worst_FIGURE_of`, and the same of the best.

        >>> shown = Class()
        >>> shown.add("speed", "slow", 1.0)
        >>> shown.add("speed", "fast", 2.0)
        >>> dict(shown.extremes())
        {'worst_speed': 1.0, 'worst_speed_of': 'slow', 'best_speed': 2.0, 'best_speed_of': 'fast'}
        """
        for figure, members in self.figures.items():
            order = sorted(members.items(), key=lambda item: item[1], reverse=least)
            for name, (member, value) in (("worst", order[0]), ("best", order[-1])):
                yield f"{name}_{figure}", value
                yield f"{name}_{figure}_of", member

    def table(self, title: str) -> str:
        """All members and figures, for a terminal."""
        names = list(dict.fromkeys(member for members in self.figures.values() for member in members))
        lines = [f"\n{title}: " + ", ".join(self.figures)]
        for name in names:
            values = [f"{members[name]:9.3g}" for members in self.figures.values() if name in members]
            lines.append(f"  {name:58} {' '.join(values)}")
        return "\n".join(lines)
