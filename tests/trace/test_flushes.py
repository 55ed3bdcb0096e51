"""What is said of random shootdowns of user ranges equals what happened, which was decided before it was written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from flushes import CPUS, PROCESSES, SIZES, Flush, Story, by

import tlbcore as tc
from tlbcore.trace.shootdown_tables import SIZES as LABELS

ASKED = ["db", "web", None]  # None: every process


@pytest.fixture(scope="module", params=[(seed, who) for seed in range(8) for who in ASKED])
def told(request, tmp_path_factory) -> tuple[Story, list[Flush], tc.Shootdowns]:
    seed, who = request.param
    story = Story(seed)
    path = tmp_path_factory.mktemp("flushes") / "r.txt"
    path.write_text(story.text())
    found = tc.shootdowns(path, process=who)
    return story, story.of(who) if who else story.flushes, found


def rows(table, *names: str) -> dict[tuple, tuple]:
    """The rows of a table by the columns that are not named, which become the value."""
    keys = [column for name, column in table.items() if name not in names]
    out = dict(
        zip(
            zip(*(k.tolist() for k in keys), strict=True),
            zip(*(table[n].tolist() for n in names), strict=True),
            strict=True,
        )
    )
    assert len(out) == len(keys[0])
    return out


def waited(flushes: list[Flush]) -> list[int]:
    return [flush.wait_us for flush in flushes if flush.wait_us is not None]


def test_call_sites_have_every_flush_by_call_and_size(told) -> None:
    _, flushes, found = told
    groups = by(flushes, lambda f: (f.call, f.bucket))
    got = rows(
        found.call_sites,
        "pages_min", "pages_max", "flushes", "shootdowns", "calls", "wait_ms", "wait_max_us", "handler_ms",
    )  # fmt: skip
    assert len(got) == len(groups)
    for (call, size, extent, tables, stack), values in got.items():
        group = groups[call, LABELS.index(size) + 1]
        assert (extent, tables, stack) == (
            "ranged" if group[0].pages <= 33 else "full",
            "not recorded",
            "",
        )
        low, high, count, sent, calls, wait, longest, handlers = values
        pages = [flush.pages for flush in group]
        assert (low, high) == (min(pages), max(pages))
        assert (count, sent) == (len(group), len(waited(group)))
        assert calls == sum(len(flush.victims) for flush in group)
        assert wait == pytest.approx(sum(waited(group)) / 1e3)
        assert np.isnan(longest) if not waited(group) else longest == max(waited(group))
        assert handlers == pytest.approx(sum(v.handler_us for f in group for v in f.victims) / 1e3)


def test_pairs_victims_and_threads(told) -> None:
    _, flushes, found = told
    pairs, victims = Counter(), Counter()
    pair_us, victim_us = Counter(), Counter()
    for flush in flushes:
        for v in flush.victims:
            pairs[flush.cpu, v.cpu] += 1
            pair_us[flush.cpu, v.cpu] += v.handler_us
            victims[v.comm, v.pid, v.state] += 1
            victim_us[v.comm, v.pid, v.state] += v.handler_us
    for table, counts, us in ((found.pairs, pairs, pair_us), (found.victims, victims, victim_us)):
        got = rows(table, "calls", "interrupts", "handler_ms")
        assert {key: calls for key, (calls, _, _) in got.items()} == counts
        for key, (calls, interrupts, ms) in got.items():
            assert interrupts == calls  # each was queued to a CPU with nothing else to run
            assert ms == pytest.approx(us[key] / 1e3)
    got = rows(found.threads, "flushes", "shootdowns", "calls", "wait_ms")
    groups = by(flushes, lambda f: (f.pid, -1, f.comm))
    assert {key: value[:3] for key, value in got.items() if value[0]} == {
        key: (len(g), len(waited(g)), sum(len(f.victims) for f in g)) for key, g in groups.items()
    }
    for key, group in groups.items():
        assert got[key][3] == pytest.approx(sum(waited(group)) / 1e3)


def test_what_is_lost_is_a_share_of_all_cpus(told) -> None:
    story, flushes, found = told
    handlers = sum(v.handler_us for f in flushes for v in f.victims)
    window = (max(us for us, _ in story.lines) - min(us for us, _ in story.lines)) * CPUS
    assert found.lost["wait_s"] == pytest.approx(sum(waited(flushes)) / 1e6)
    assert found.lost["waits_recorded"] == len(waited(flushes))
    assert found.lost["handler_s"] == pytest.approx(handlers / 1e6)
    assert found.lost["longest_wait_us"] == max(waited(flushes))
    assert found.lost["share"] == pytest.approx((sum(waited(flushes)) + handlers) / window)


@pytest.mark.parametrize("seed", range(4))
def test_processes_add_up_to_all_of_them(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    path.write_text(Story(seed).text())
    parts = [tc.shootdowns(path, process=name) for name in PROCESSES]
    whole = tc.shootdowns(path)
    for name in ("flushes", "shootdowns", "calls"):
        assert sum(int(p.call_sites[name].sum()) for p in parts) == int(whole.call_sites[name].sum()) > 0
    assert sum(p.lost["wait_s"] for p in parts) == pytest.approx(whole.lost["wait_s"])
    assert len(LABELS) == len(SIZES) + 1
