"""The tables of user shootdowns from rows made by hand: every column has its value, every order its tie."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tlbcore.trace.shootdown_tables import (
    address_spaces_table,
    call_sites_table,
    pairs_table,
    threads_table,
    victims_table,
)

CSD: dict[str, Any] = {"kinds": {"csd": 5}}
NONE: dict[str, Any] = {"kinds": {"csd": 0}}
THREADS = {
    1: {"pid": 101, "tgid": 100, "comm": "one"},
    2: {"pid": 102, "tgid": None, "comm": "two"},
    3: {"pid": 90, "tgid": 0, "comm": "three"},
    4: {"pid": 80, "tgid": 80, "comm": "four"},
    5: {"pid": 70, "tgid": 80, "comm": "five"},
}


def columns(table: Any) -> dict[str, list[Any]]:
    """The columns as lists, with None for NaN."""
    return {
        name: [None if isinstance(x, float) and math.isnan(x) else x for x in column.tolist()]
        for name, column in table.items()
    }


def asked(thread: int, flushes: int, victims: int, **more: Any) -> dict[str, Any]:
    """Flushes that a thread asked for."""
    usual = {
        "call": "munmap", "size": 0, "extent": "ranged", "tables": None, "stack": [], "pages": None, "shootdowns": 0,
        "waits": 0, "wait_ns": 0, "longest_ns": 0, "victim_ns": 0, "mm": "m", "full": 0,
    }  # fmt: skip
    return {**usual, "thread": thread, "flushes": flushes, "victims": victims, **more}


def hit(victim: int | None, state: str, calls: int, interrupts: int, ns: int, **cpus: int) -> dict[str, Any]:
    return {"victim": victim, "state": state, "calls": calls, "interrupts": interrupts, "ns": ns, **cpus}


def test_call_sites_add_up_what_is_alike_and_come_by_calls_then_flushes() -> None:
    rows = [
        asked(1, 3, 4, pages=(2, 6), shootdowns=2, waits=2, wait_ns=3_000_000, longest_ns=2500, victim_ns=4_000_000),
        asked(2, 5, 1, pages=(1, 4), shootdowns=1, waits=1, wait_ns=1_000_000, longest_ns=1500, victim_ns=500_000),
        asked(1, 1, 5, size=3, extent="full", tables=True, stack=["f", "g"], shootdowns=1),
        asked(1, 9, 0, call="madvise", size=5, tables=False),
        asked(1, 2, 5, call="mprotect", size=1, pages=(7, 7), shootdowns=1, waits=1, wait_ns=500, longest_ns=500),
    ]  # fmt: skip
    table = columns(call_sites_table(rows, CSD))
    assert table == {
        # Five calls each: more flushes come first.
        "call": ["munmap", "mprotect", "munmap", "madvise"],
        "size": ["1 page", "2 to 8 pages", "34 to 512 pages", "not recorded"],
        "pages_min": [1, 7, -1, -1],
        "pages_max": [6, 7, -1, -1],
        "extent": ["ranged", "ranged", "full", "ranged"],
        "tables": ["not recorded", "not recorded", "yes", "no"],
        "flushes": [8, 2, 1, 9],
        "shootdowns": [3, 1, 1, 0],
        "calls": [5, 5, 5, 0],
        # Without a wait that was recorded it is not known, unless nobody was asked.
        "wait_ms": [4.0, 0.0005, None, 0.0],
        "wait_max_us": [2.5, 0.5, None, None],
        "handler_ms": [4.5, 0.0, 0.0, 0.0],
        "stack": ["", "", "f <- g", ""],
    }
    assert columns(call_sites_table(rows, NONE))["handler_ms"] == [None] * 4


def test_pairs_are_added_up_by_sender_and_victim() -> None:
    rows = [
        hit(1, "running", 4, 2, 1_500_000, sender_cpu=1, victim_cpu=2),
        hit(2, "idle", 3, 1, 500_000, sender_cpu=1, victim_cpu=2),
        hit(1, "running", 7, 6, 250_000, sender_cpu=0, victim_cpu=3),
    ]
    assert columns(pairs_table(rows, CSD)) == {
        "sender_cpu": [0, 1],
        "victim_cpu": [3, 2],
        "calls": [7, 7],
        "interrupts": [6, 3],
        "handler_ms": [0.25, 2.0],
    }
    unknown = columns(pairs_table(rows, NONE))
    assert (unknown["interrupts"], unknown["handler_ms"]) == ([-1, -1], [None, None])


def test_threads_come_by_calls_then_flushes_then_ids() -> None:
    rows = [
        asked(1, 2, 5, shootdowns=1, waits=1, wait_ns=2_000_000),
        asked(1, 1, 2, shootdowns=1, waits=1, wait_ns=1_000_000),
        asked(2, 4, 6, shootdowns=3),
        asked(3, 2, 0),
        asked(4, 1, 0),
        asked(5, 1, 0),
    ]
    assert columns(threads_table(rows, THREADS)) == {
        "pid": [101, 102, 90, 70, 80],
        "process_id": [100, -1, 0, 80, 80],
        "comm": ["one", "two", "three", "five", "four"],
        "flushes": [3, 4, 2, 1, 1],
        "shootdowns": [2, 3, 0, 0, 0],
        "calls": [7, 6, 0, 0, 0],
        "wait_ms": [3.0, None, 0.0, 0.0, 0.0],
    }


def test_victims_are_added_up_by_thread_and_state_and_nobody_is_idle() -> None:
    rows = [
        hit(1, "running", 2, 1, 1_000_000),
        hit(1, "running", 3, 1, 2_000_000),
        hit(1, "lazy", 1, 9, 5_000_000),
        hit(None, "idle", 8, 4, 500_000),
        hit(99, "running", 1, 1, 0),  # a thread of which nothing is known
    ]
    assert columns(victims_table(rows, THREADS)) == {
        "comm": ["<idle>", "one", "<idle>", "one"],
        "pid": [0, 101, 0, 101],
        "state": ["idle", "running", "running", "lazy"],
        "calls": [8, 5, 1, 1],
        "interrupts": [4, 2, 1, 9],
        "handler_ms": [0.5, 3.0, 0.0, 5.0],
    }


@pytest.mark.parametrize(
    ("rows", "order"),
    [
        ([("a", 1, 5), ("b", 9, 4)], ["a", "b"]),
        ([("a", 1, 5), ("b", 9, 5)], ["b", "a"]),
        ([("b", 2, 5), ("a", 2, 5)], ["a", "b"]),
    ],
)
def test_address_spaces_come_by_calls_then_flushes_then_names(rows: list[Any], order: list[str]) -> None:
    made = [asked(1, flushes, calls, mm=mm) for mm, flushes, calls in rows]
    assert columns(address_spaces_table(made, THREADS))["mm"] == order


def test_address_spaces_are_added_up() -> None:
    rows = [asked(1, 2, 3, mm="m", full=1), asked(2, 4, 5, mm="m", full=3), asked(3, 1, 1, mm="n")]
    assert columns(address_spaces_table(rows, THREADS)) == {
        "mm": ["m", "n"], "comm": ["two", "three"], "flushes": [6, 1], "full": [4, 0], "calls": [8, 1],
    }  # fmt: skip
