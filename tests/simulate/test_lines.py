"""Machines that tell the lines of other CPUs apart: what each access of a shootdown costs, and in what order.

A cycle is a nanosecond here, so each claim is exact: a line that takes 100 ns longer makes a shootdown that much longer
for each time it is waited for.
"""

from __future__ import annotations

import pytest

import tlbcore as tc
from tlbcore.simulation.shootdowns import shootdown_ns


def machine(near: int, far: int, at_once: int = 4, far_ipi: int = 500) -> tc.Machine:
    """Return a machine whose lines take this long, and whose sender looks at so many CPUs at once."""
    return tc.Machine(
        name="mine",
        text=f"""
name = "mine"
inherits = "haswell-ep-calls"
[cpu]
mhz = {{ value = 1000 }}
lines_at_once = {{ value = {at_once} }}
[costs]
remote_line = {{ ns = {near}, low = {near}, high = {near}, mark = "unsourced", source = "a test" }}
remote_line_cross_socket = {{ ns = {far}, low = {far}, high = {far}, mark = "unsourced", source = "a test" }}
ipi_same_socket = {{ ns = 500, low = 500, high = 500, mark = "unsourced", source = "a test" }}
ipi_cross_socket = {{ ns = {far_ipi}, low = {far_ipi}, high = {far_ipi}, mark = "unsourced", source = "a test" }}
""",
    )


def took(victims: int, on: tc.Machine, sockets: int = 1, policy: str = "ipi", pages: int = 1) -> float:
    return shootdown_ns(victims, machine=on, sockets=sockets, policy=policy, pages=pages, requests=3)


@pytest.mark.parametrize(
    ("at_once", "waited"),
    [
        (4, 2 / 4 + 1 + 1),  # loaded_mm and is_lazy overlapped, the queue, the acknowledgement
        (1, 2 + 1 + 1),
        (0, 2 + 1),  # not told apart: acknowledgements are read while others are waited for
    ],
)
def test_a_further_victim_costs_its_looks_its_queue_and_its_acknowledgement(
    at_once: int, waited: float
) -> None:
    def each(line: int) -> float:
        on = machine(line, line, at_once)
        return (took(7, on) - took(3, on)) / 4

    assert each(140) - each(40) == pytest.approx(100 * waited)


@pytest.mark.parametrize(("at_once", "per_victim", "once"), [(4, 2 / 4 + 1 + 1, 0), (0, 0, 1)])
def test_lines_of_another_socket_take_longer_each_time(at_once: int, per_victim: float, once: float) -> None:
    for victims, far in ((3, 2), (7, 4)):
        slower = took(victims, machine(40, 240, at_once), sockets=2)
        longer = slower - took(victims, machine(40, 140, at_once), sockets=2)
        assert longer == pytest.approx(100 * (far * per_victim + once))
        # On one socket it makes no difference.
        assert took(victims, machine(40, 240, at_once)) == took(victims, machine(40, 140, at_once))


def test_acknowledgements_that_are_in_when_the_wait_begins_are_still_read_one_by_one() -> None:
    """Early acknowledgements, and thirty pages to flush at home before the wait."""

    def each(line: int) -> float:
        on = machine(line, line)
        return (took(7, on, policy="early-ack", pages=30) - took(3, on, policy="early-ack", pages=30)) / 4

    assert each(140) - each(40) == pytest.approx(100 * 2.5)


def test_who_answers_late_is_waited_for_and_those_behind_it_are_read_after_it() -> None:
    """The far half answers 10 us later: near lines are read by then, and far ones after that."""

    base = took(7, machine(40, 140, far_ipi=10_000), sockets=2)
    # Three near victims: two looks of a quarter line, a queue. The generation of the mm: the sender's, a far handler's.
    assert took(7, machine(140, 140, far_ipi=10_000), sockets=2) - base == pytest.approx(100 * (3 * 1.5 + 2))
    assert took(7, machine(40, 240, far_ipi=10_000), sockets=2) - base == pytest.approx(4 * 100 * 2.5)


def test_a_number_of_lines_that_no_cpu_has_is_refused() -> None:
    with pytest.raises(tc.TlbError, match=r"cpu.lines_at_once must be between 0 and 100: got 101"):
        machine(40, 140, 101)
