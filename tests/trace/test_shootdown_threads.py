"""Whose thread a flush is: creations of which the flags are known or only likely, ids that are handed out again."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_shootdowns import ENTER, EXIT, at, by_call, dontneed, handler, sends, written

import tlbcore as tc


def created(nr: int, args: str) -> str:
    return (
        at(0, 0, "db-10", ENTER.format(nr=nr, args=args))
        + at(1, 0, "db-10", "sched_process_fork: comm=db pid=10 child_comm=db child_pid=11")
        + at(2, 0, "db-10", EXIT.format(nr=nr))
    )


THREAD = created(56, "3d0f00, 0, 0, 0, 0, 0")
CLONE3 = created(435, "7ffd, 58")


@pytest.mark.parametrize(
    ("creation", "nr", "state"),
    [
        (CLONE3, None, "running"),  # likely a thread
        (CLONE3, 59, "elsewhere"),  # it runs another program, so it was none
        (CLONE3, 322, "elsewhere"),
        (CLONE3, 39, "running"),  # another call says nothing
        (THREAD, 59, "running"),  # the flags said so
    ],
)
def test_who_runs_another_program_was_no_thread_unless_the_flags_said_so(
    tmp_path: Path, creation: str, nr: int | None, state: str
):
    runs = "" if nr is None else at(10, 1, "cc1-11", ENTER.format(nr=nr, args="0"))
    text = creation + runs + dontneed(1000, {1: 0xA}, handler(1020, 1, "cc1-11", 0xA, None))

    assert tc.shootdowns(written(tmp_path, text)).victims["state"].tolist() == [state]


@pytest.mark.parametrize("creation", [THREAD, CLONE3])
def test_a_thread_stays_its_process_s_when_the_id_of_the_first_thread_is_handed_out_again(
    tmp_path: Path, creation: str
):
    """db-10 flushes nothing itself, ends, and another process gets its id; then its thread flushes."""
    text = creation + at(100, 0, "db-10", "sched_process_exit: comm=db pid=10 prio=120")
    text += at(200, 2, "sh-20", ENTER.format(nr=57, args="0"))
    text += at(201, 2, "sh-20", "sched_process_fork: comm=sh pid=20 child_comm=sh child_pid=10")
    text += at(202, 2, "sh-20", EXIT.format(nr=57))
    text += at(300, 0, "cc1-10", ENTER.format(nr=0, args="0")) + at(301, 0, "cc1-10", EXIT.format(nr=0))
    text += at(1000, 1, "worker-11", ENTER.format(nr=11, args="7f0000000000, 1000, 0, 0, 0, 0"))
    text += sends(1010, 1, "worker-11", 1, {0: 0xA}) + handler(1020, 0, "cc1-10", 0xA, None)
    text += at(1100, 1, "worker-11", EXIT.format(nr=11))
    path = written(tmp_path, text)

    assert by_call(tc.shootdowns(path, process="db"), "flushes") == {"munmap": 1}
    assert tc.shootdowns(path, process="db").victims["state"].tolist() == ["elsewhere"]
    assert by_call(tc.shootdowns(path, process="cc1"), "flushes") == {}


def test_a_call_chain_that_tells_of_reclaim_puts_the_length_of_the_system_call_aside(tmp_path: Path):
    """The call was given 10 pages; the flush of 3 in it is reclaim's, whose size is its own."""

    def text(*frames: str) -> str:
        lines = dontneed(1000, {1: 0xA}, handler(1020, 1, "worker-11", 0xA), pages=10).splitlines(True)
        lines[1] = lines[1].replace("pages:10", "pages:3")
        chain = at(1010.5, 0, "db-10", "<stack trace>") + "".join(f" => {frame}\n" for frame in frames)
        return "".join([*lines[:2], chain, *lines[2:]])

    asked = tc.shootdowns(written(tmp_path, text("flush_tlb_mm_range", "zap_page_range_single")))
    assert by_call(asked, "flushes") == {"madvise": 1}
    assert asked.call_sites["pages_max"].tolist() == [10]
    reclaim = tc.shootdowns(written(tmp_path, text("arch_tlbbatch_flush", "shrink_folio_list")))
    assert by_call(reclaim, "flushes") == {"reclaim": 1}
    assert reclaim.call_sites["pages_min"].tolist() == [3]
    assert reclaim.call_sites["pages_max"].tolist() == [3]
