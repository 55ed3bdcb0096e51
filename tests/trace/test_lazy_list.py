"""Who filled the lazy list of vmalloc: random recordings whose charges are added up before they are written."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import tlbcore as tc

BASE = 0xFFFFC90000000000
OWNERS = {"forks": 50, "loader": 51, "bpf": 52}
STACK = (5, 16384)  # pages, guard page included, and alignment


@dataclass
class Purge:
    by: str
    areas: int
    span_pages: int
    charged: Counter[str]
    unknown: int


@dataclass
class Truth:
    areas: Counter[str] = field(default_factory=Counter)
    pages: Counter[str] = field(default_factory=Counter)
    stacks: Counter[str] = field(default_factory=Counter)
    purges: list[Purge] = field(default_factory=list)
    allocated: int = 0
    freed: int = 0
    empty: int = 0


def story(seed: int, steps: int = 400) -> tuple[str, Truth]:
    """Return a recording and what is true of it."""
    draw, truth, lines = random.Random(seed), Truth(), []
    alive: list[tuple[int, str, int, bool]] = []
    listed: deque[tuple[str, int, bool]] = deque()
    at, place = 1_000_000, BASE

    def say(task: str, event: str) -> None:
        nonlocal at
        at += draw.randrange(1, 5000)
        lines.append(f"{task:>23} [000] ..... {at / 1e6:12.6f}: {event}\n")

    def free(fresh: bool) -> None:
        start, owner, pages, stack = (
            (BASE - 4096 * len(lines), "", 1, False) if fresh else alive.pop(draw.randrange(len(alive)))
        )
        listed.append((owner, pages, stack))
        truth.freed += 1
        said = f"va_start={start:#x} nr_lazy={sum(p for _, p, _ in listed)} nr_lazy_max=3000"
        say(draw.choice(("kworker/0:2-9", "rcu_preempt-8", "forks-50")), f"free_vmap_area_noflush: {said}")

    for _ in range(steps):
        what = draw.random()
        if what < 0.5:
            owner = draw.choice(list(OWNERS))
            stack = owner == "forks" and draw.random() < 0.7
            pages, align = STACK if stack else (draw.randrange(1, 40), draw.choice((4096, 16384)))
            stack = (pages, align) == STACK
            place += pages * 4096
            alive.append((place, owner, pages, stack))
            truth.allocated += 1
            place += pages * 4096
            size = f"va_start: {place - pages * 4096} size={pages * 4096} align={align}"
            say(f"{owner}-{OWNERS[owner]}", f"alloc_vmap_area: {size} vstart=0x0 vend=0xffffffff failed=0")
        elif what < 0.9 and (alive or what > 0.88):
            free(fresh=what > 0.88)  # allocated before the recording began
        else:
            by = draw.choice(("kworker/1:0", "loader"))
            task = f"{by}-{7 if by != 'loader' else OWNERS[by]}"
            taken = [listed.popleft() for _ in range(len(listed))]
            # What is freed while the purge waits belongs to the next one.
            if taken and draw.random() < 0.6:
                probe = "flush_tlb_kernel_range: (flush_tlb_kernel_range+0x0/0x30) start=0x1000 end=0x9000"
                say(task, "__purge_vmap_area_lazy: (__purge_vmap_area_lazy+0x0/0x30)")
                say(task, probe)
                for _ in range(draw.randrange(3)):
                    if alive:
                        free(fresh=False)
            span = draw.randrange(1, 5000) if taken else 0
            said = f"start={BASE:#x} end={BASE + span * 4096:#x} num_purged={len(taken)}"
            say(task, f"purge_vmap_area_lazy: {said}")
            if not taken:
                truth.empty += 1
                continue
            charged = Counter(owner for owner, _, _ in taken if owner)
            truth.purges.append(Purge(by, len(taken), span, charged, sum(not owner for owner, _, _ in taken)))
            for owner, pages, stack in taken:
                if owner:
                    truth.areas[owner] += 1
                    truth.pages[owner] += pages
                    truth.stacks[owner] += stack
    at += 1
    lines.append(f"{'app-7':>23} [002] d.h.. {at / 1e6:12.6f}: local_timer_entry: vector=236\n")
    return "".join(lines), truth


@pytest.mark.parametrize("seed", range(8))
def test_purges_are_charged_to_those_who_filled_the_list(tmp_path: Path, seed: int) -> None:
    text, truth = story(seed)
    path = tmp_path / "trace.txt"
    path.write_text(text)
    report = tc.read_trace(path, isolated="2").figures["report"]
    purges = report["purges"]

    assert report["vmalloc_traffic"] == [truth.allocated, truth.freed]
    assert report["nr_lazy_max"] == 3000
    assert (purges["effective"], purges["empty"]) == (len(truth.purges), truth.empty)
    assert purges["events"] == len(truth.purges) + truth.empty
    rows = {row["comm"]: (row["areas"], row["pages"], row["stacks"]) for row in purges["charged"]}
    assert rows == {
        owner: (truth.areas[owner], truth.pages[owner], truth.stacks[owner]) for owner in truth.areas
    }
    assert [row["areas"] for row in purges["charged"]] == sorted(truth.areas.values(), reverse=True)
    assert purges["unknown_areas"] == sum(purge.unknown for purge in truth.purges)
    assert len(truth.purges) > 10
    for got, want in zip(purges["first"], truth.purges, strict=True):
        assert (got["areas"], got["span_pages"], got["unknown"]) == (
            want.areas,
            want.span_pages,
            want.unknown,
        )
        assert {one["comm"]: one["areas"] for one in got["charged"]} == want.charged
        assert got["by"].startswith(want.by.split("/")[0])
        assert "purge_vmap_area_lazy:" in text.splitlines()[got["line"] - 1]
