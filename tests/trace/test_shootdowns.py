"""Shootdowns of user ranges: counts against an independent program's, times by hand, bad input (issue 18)."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.trace.test_trace_cli import fails, tlbcore

import tlbcore as tc
from tlbcore.trace import shootdown

DATA = Path(__file__).parents[1] / "data"
TRUTH = json.loads((DATA / "user.truth.json").read_text())
FOLDER = (
    Path(os.environ.get("TLBCORE_TRACES", Path(__file__).parents[2] / ".." / "shared" / "traces")) / "user"
)
GT = ("GT_BEGIN", "GT_END")


def recording(name: str) -> Path:
    return DATA / f"user.{name}.trace.txt.xz"


def by_call(found: tc.Shootdowns, column: str) -> dict[str, int]:
    """Sum a column by system call, as the counting program names them."""
    sums: dict[str, int] = {}
    for call, value in zip(found.call_sites["call"].tolist(), found.call_sites[column].tolist(), strict=True):
        name = "fault_or_kernel" if call.startswith("page fault") else call.split("(")[0].strip()
        sums[name] = sums.get(name, 0) + value
    return {name: value for name, value in sums.items() if value}


# --- truth


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_flushes_by_call_and_kind_are_those_that_an_independent_program_counts(name: str):
    found = tc.shootdowns(recording(name), between=GT)
    truth = TRUTH[name]

    t = found.call_sites
    kinds: dict[str, int] = {}
    for call, extent, tables, flushes in zip(
        *(t[column].tolist() for column in ("call", "extent", "tables", "flushes")), strict=True
    ):
        what = "fault_or_kernel" if call.startswith("page fault") else call.split("(")[0].strip()
        key = f"{what} {extent}" + ("+tables" if tables == "yes" else "")
        kinds[key] = kinds.get(key, 0) + flushes
    assert kinds == truth["mm_range_by_syscall"]


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_victims_by_call_and_by_cpu_are_those_that_an_independent_program_counts(name: str):
    found = tc.shootdowns(recording(name), between=GT)

    calls: dict[str, int] = {}
    cpus: dict[int, int] = {}
    for key, count in TRUTH[name]["initiator"].items():
        cpu, _comm, call = key.split()
        calls[call] = calls.get(call, 0) + count
        cpus[int(cpu)] = cpus.get(int(cpu), 0) + count
    assert by_call(found, "calls") == calls
    by_victim = {
        cpu: int(found.pairs["calls"][found.pairs["victim_cpu"] == cpu].sum())
        for cpu in set(found.pairs["victim_cpu"].tolist())
    }
    assert by_victim == cpus
    assert int(found.victims["calls"].sum()) == sum(cpus.values())  # each of them ran
    assert int(found.call_sites["shootdowns"].sum()) <= sum(TRUTH[name]["multi"].values())


def test_7_3_interrupts_cpus_that_no_longer_run_the_process_and_6_12_does_not():
    new = tc.shootdowns(recording("p73.us7"), process="wander", between=GT)
    old = tc.shootdowns(recording("p612.us7"), process="wander", between=GT)

    assert new.victims["state"].tolist() == ["elsewhere"] * len(new.victims["state"])
    assert int(new.victims["calls"].sum()) == TRUTH["p73.us7"]["tlb_reason"]["remote wrong CPU (5)"] == 8
    assert set(new.victims["comm"].tolist()) == {"spin"}
    assert "elsewhere" not in old.victims["state"].tolist()
    assert "interrupted for nothing (spin 8)" in " ".join(str(new).split())


def test_the_first_sentence_names_process_share_call_pages_and_threads():
    found = tc.shootdowns(recording("p73.us1"), process="shoot", between=GT)
    line = " ".join(str(found).split("In short\n")[1].split("\n\n")[0].split())

    # 240 of 627 + 2 + 4 calls are each of munmap and mprotect; 16 mprotect per size and 8 munmap of 8 kinds.
    assert line.startswith("- shoot loses ")
    assert " of 4 CPUs to shootdowns: 38 % are mprotect of 1 to 512 pages by 1 thread (shoot)." in line
    assert found.process == "shoot (process 324)"
    assert found.threads["pid"].tolist()[0] == 324


def test_full_and_ranged_split_at_34_pages_and_sizes_are_the_calls_own():
    found = tc.shootdowns(recording("p612.us1"), process="shoot", between=GT)
    t = found.call_sites
    dontneed = t["call"] == "madvise(MADV_DONTNEED)"

    assert set(t["extent"][dontneed & (t["pages_max"] <= 33)].tolist()) == {"ranged"}
    assert set(t["extent"][dontneed & (t["pages_min"] >= 34)].tolist()) == {"full"}
    assert sorted(set(t["pages_max"][dontneed].tolist())) == [1, 33, 512]  # of 1; 10 and 33; 34 and 512 pages
    assert int(t["flushes"][dontneed].sum()) == 40


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the whole recordings are not here")
@pytest.mark.parametrize("name", ["p612.us1", "p612.us7", "p612.us8", "p73.us1", "p73.us7", "p73.us8"])
def test_whole_recordings_count_the_same(name: str):
    truth = json.loads((FOLDER / f"{name}.truth.json").read_text())
    found = tc.shootdowns(FOLDER / f"{name}.trace.txt.xz", between=GT)

    assert int(found.call_sites["flushes"].sum()) == sum(truth["mm_range"].values())
    asked = sum(count for key, count in truth["queued"].items() if key.endswith(" flush_tlb_func"))
    assert int(found.call_sites["calls"].sum()) == asked


# --- times, by hand

ENTER, EXIT = "sys_enter: NR {nr} ({args})", "sys_exit: NR {nr} = 0"


def at(us: float, cpu: int, task: str, event: str, flags: str = ".....") -> str:
    return f"{task:>20} [{cpu:03}] {flags} {100 + us / 1e6:.6f}: {event}\n"


def handler(us: float, cpu: int, task: str, csd: int, reason: str | None = "remote shootdown (1)") -> str:
    """Interrupt at `us`; its function runs from 2 to 5 us behind that; it ends at 7."""
    lines = at(us, cpu, task, "call_function_entry: vector=252", "d.h..")
    lines += at(us + 2, cpu, task, f"csd_function_entry: func=flush_tlb_func, csd={csd:016x}", "d.h..")
    if reason is not None:
        lines += at(us + 3, cpu, task, f"tlb_flush: pages:1 reason:{reason}", "d.h..")
    lines += at(us + 5, cpu, task, f"csd_function_exit: func=flush_tlb_func, csd={csd:016x}", "d.h..")
    return lines + at(us + 7, cpu, task, "call_function_exit: vector=252", "d.h..")


def sends(us: float, cpu: int, task: str, pages: int, csds: dict[int, int]) -> str:
    """Announce a flush, and queue it for these CPUs, 1 us apart."""
    text = at(us, cpu, task, f"tlb_flush: pages:{pages} reason:remote ipi send (4)")
    for i, (target, csd) in enumerate(csds.items()):
        text += at(
            us + 1 + i,
            cpu,
            task,
            f"csd_queue_cpu: cpu={target} callsite=flush_tlb_mm_range+0x31b/0x820 func=flush_tlb_func csd={csd:016x}",
        )
    return text


def dontneed(us: float, csds: dict[int, int], victims: str, pages: int = 1, cpu: int = 0) -> str:
    args = f"7f0000000000, {pages * 4096:x}, 4, 0, 0, 0"
    return (
        at(us, cpu, "db-10", ENTER.format(nr=28, args=args))
        + sends(us + 10, cpu, "db-10", pages if pages <= 33 else -1, csds)
        + victims
        + at(us + 100, cpu, "db-10", EXIT.format(nr=28))
    )


CREATE = (
    at(0, 0, "db-10", ENTER.format(nr=56, args="3d0f00, 0, 0, 0, 0, 0"))
    + at(1, 0, "db-10", "sched_process_fork: comm=db pid=10 child_comm=db child_pid=11")
    + at(2, 0, "db-10", EXIT.format(nr=56))
    + at(3, 1, "worker-11", EXIT.format(nr=56))
)


def written(tmp_path: Path, text: str, name: str = "r.txt") -> Path:
    path = tmp_path / name
    path.write_text("# tracer: nop\n#   #P:4\n" + text)
    return path


def test_waits_and_handlers_are_those_of_the_lines(tmp_path: Path):
    """Queued at 1,011 and 1,012 us; the last victim's function ends at 1,035: 23 us waited; two handlers of 7 us."""
    text = CREATE + dontneed(
        1000, {1: 0xA, 2: 0xB}, handler(1020, 1, "worker-11", 0xA) + handler(1030, 2, "db-10", 0xB, None)
    )
    text += at(10_000, 0, "db-10", ENTER.format(nr=231, args="0"))
    found = tc.shootdowns(written(tmp_path, text), process="db", machine="sapphire-rapids")

    t = found.call_sites
    assert t["call"].tolist() == ["madvise(MADV_DONTNEED)"]
    assert (t["flushes"].tolist(), t["shootdowns"].tolist(), t["calls"].tolist()) == ([1], [1], [2])
    assert t["wait_ms"].tolist() == pytest.approx([0.023])
    assert t["wait_max_us"].tolist() == pytest.approx([23.0])
    assert t["handler_ms"].tolist() == pytest.approx([0.014])
    assert found.lost["share"] == pytest.approx((23e-6 + 14e-6) / (10e-3 * 4), rel=1e-3)
    assert found.pairs["handler_ms"].tolist() == pytest.approx([0.007, 0.007])
    # 350 + 250 to 600 + 400 cycles of entry and exit, twice, at 2.6 GHz.
    assert found.predicted is not None
    assert found.predicted["entry_s"] == pytest.approx((2 * 600 / 2.6e9, 2 * 1000 / 2.6e9))
    # One page each: a walk of 33 cycles and a read of 74 from the L3.
    assert found.predicted["refill_s"] == pytest.approx((0, 2 * 107 / 2.6e9))


def test_a_function_of_others_in_the_same_interrupt_is_not_charged(tmp_path: Path):
    victims = (
        at(1020, 1, "worker-11", "call_function_entry: vector=252", "d.h..")
        + at(1021, 1, "worker-11", "csd_function_entry: func=other_func, csd=00000000000000ee", "d.h..")
        + at(1025, 1, "worker-11", "csd_function_exit: func=other_func, csd=00000000000000ee", "d.h..")
        + at(1026, 1, "worker-11", "csd_function_entry: func=flush_tlb_func, csd=000000000000000a", "d.h..")
        + at(1029, 1, "worker-11", "csd_function_exit: func=flush_tlb_func, csd=000000000000000a", "d.h..")
        + at(1031, 1, "worker-11", "call_function_exit: vector=252", "d.h..")
    )
    found = tc.shootdowns(written(tmp_path, CREATE + dontneed(1000, {1: 0xA}, victims)), process="db")

    assert found.pairs["handler_ms"].tolist() == pytest.approx([0.003])


@pytest.mark.parametrize(
    ("task", "reason", "state"),
    [
        ("worker-11", "remote shootdown (1)", "running"),
        (
            "worker-11",
            None,
            "running",
        ),  # an earlier flush had done it; a thread that clone(CLONE_THREAD) made
        ("<idle>-0", None, "idle"),
        ("kworker/1:1-55", None, "lazy"),
        ("other-77", None, "elsewhere"),
        ("other-77", "remote wrong CPU (5)", "elsewhere"),
        ("<idle>-0", "remote wrong CPU (5)", "idle"),
    ],
)
def test_what_a_victim_was_doing(tmp_path: Path, task: str, reason: str | None, state: str):
    text = CREATE + dontneed(1000, {1: 0xA}, handler(1020, 1, task, 0xA, reason))

    found = tc.shootdowns(written(tmp_path, text), process="db")

    assert found.victims["state"].tolist() == [state]
    assert found.victims["comm"].tolist() == [task.rpartition("-")[0]]


def test_a_sender_that_migrates_between_flush_and_queueing_is_still_the_sender(tmp_path: Path):
    text = CREATE + at(1000, 0, "db-10", ENTER.format(nr=11, args="7f0000000000, 3000, 0, 0, 0, 0"))
    text += at(1010, 0, "db-10", "tlb_flush: pages:3 reason:remote ipi send (4)")
    text += at(
        1011,
        3,
        "db-10",
        "csd_queue_cpu: cpu=1 callsite=flush_tlb_mm_range+0x1/0x2 func=flush_tlb_func csd=000000000000000a",
    )
    text += handler(1020, 1, "worker-11", 0xA) + at(1100, 3, "db-10", EXIT.format(nr=11))

    found = tc.shootdowns(written(tmp_path, text), process=10)

    assert found.call_sites["call"].tolist() == ["munmap"]
    assert found.call_sites["pages_max"].tolist() == [3]
    assert (found.pairs["sender_cpu"].tolist(), found.pairs["victim_cpu"].tolist()) == ([3], [1])
    assert found.pairs["calls"].tolist() == [1]


def test_each_flush_of_one_call_is_one_flush(tmp_path: Path):
    """One process_madvise that flushes twice, without a probe to say so."""
    text = CREATE + at(1000, 0, "db-10", ENTER.format(nr=440, args="5, 7ffe, 2, 4, 0, 0"))
    text += sends(1010, 0, "db-10", 5, {1: 0xA}) + handler(1020, 1, "worker-11", 0xA)
    text += at(1030, 0, "db-10", "tlb_flush: pages:5 reason:local mm shootdown (3)")
    text += sends(1040, 0, "db-10", -1, {1: 0xA}) + handler(1050, 1, "worker-11", 0xA)
    text += at(1100, 0, "db-10", EXIT.format(nr=440))

    t = tc.shootdowns(written(tmp_path, text)).call_sites

    assert t["call"].tolist() == ["process_madvise(MADV_DONTNEED)"] * 2
    assert sorted(zip(t["extent"].tolist(), t["pages_max"].tolist(), strict=True)) == [
        ("full", -1),
        ("ranged", 5),
    ]


def test_call_chains_tell_faults_and_reclaim(tmp_path: Path):
    cow = (
        at(1015, 0, "db-10", "<stack trace>")
        + " => ptep_clear_flush\n => wp_page_copy\n => handle_mm_fault\n"
    )
    text = CREATE + sends(1010, 0, "db-10", 1, {}) + cow
    text += at(
        1016,
        0,
        "db-10",
        "csd_queue_cpu: cpu=1 callsite=x+0x1/0x2 func=flush_tlb_func csd=000000000000000a",
    )
    text += handler(1020, 1, "worker-11", 0xA)
    text += sends(1200, 0, "kswapd0-90", -1, {1: 0xC}) + handler(1220, 1, "worker-11", 0xC)
    text += at(1300, 0, "db-10", ENTER.format(nr=0, args="0"))

    found = tc.shootdowns(written(tmp_path, text))

    assert sorted(found.call_sites["call"].tolist()) == ["page fault: copy on write", "reclaim"]
    assert "ptep_clear_flush <- wp_page_copy <- handle_mm_fault" in found.call_sites["stack"].tolist()


# --- what is not recorded


def test_without_system_calls_the_call_is_not_recorded_and_the_rest_is_said(tmp_path: Path):
    text = lzma.decompress(recording("p73.us1").read_bytes()).decode()
    path = tmp_path / "r.txt"
    path.write_text("".join(line for line in text.splitlines(keepends=True) if ": sys_" not in line))
    found = tc.shootdowns(path, process="shoot", between=GT)

    assert set(found.call_sites["call"].tolist()) == {"not recorded"}
    assert int(found.call_sites["calls"].sum()) == sum(TRUTH["p73.us1"]["initiator"].values())
    assert "by which system call: no raw_syscalls or syscalls events" in " ".join(str(found).split())


def test_without_csd_events_waits_and_senders_are_not_recorded(tmp_path: Path):
    text = lzma.decompress(recording("p73.us1").read_bytes()).decode()
    path = tmp_path / "r.txt"
    path.write_text("".join(line for line in text.splitlines(keepends=True) if ": csd_" not in line))

    found = tc.shootdowns(path, process="shoot", between=GT)

    assert found.lost["wait_s"] is None
    assert found.lost["handler_s"] > 0  # interrupts in which the flush is seen
    assert np.isnan(found.call_sites["wait_ms"][found.call_sites["shootdowns"] > 0]).all()
    assert int(found.victims["calls"].sum()) == TRUTH["p73.us1"]["tlb_reason"]["remote shootdown (1)"]
    text = " ".join(str(found).split())
    assert "how long senders waited: no csd events" in text
    assert "shoot was interrupted 628 times in" in text
    assert "by which flush, and how long that waited, is not recorded" in text
    document = json.loads(tlbcore("explain", str(path), "--process", "shoot", "--json").stdout)
    assert document["lost"]["wait_s"] is None


def test_without_csd_events_the_interrupts_sent_name_the_victims(tmp_path: Path):
    """A mask of CPUs 1 and 2; then one CPU from the same place; a wake-up with the same handler is no flush's."""
    back = "callback=generic_smp_call_function_single_interrupt+0x0/0x20"
    text = CREATE + at(1000, 0, "db-10", ENTER.format(nr=11, args="7f0000000000, 1000, 0, 0, 0, 0"))
    text += sends(1010, 0, "db-10", 1, {})
    text += at(
        1011,
        0,
        "db-10",
        f"ipi_send_cpumask: cpumask=00000000,00000006 callsite=flush_tlb_mm_range+0x1/0x2 {back}",
    )
    text += sends(1050, 0, "db-10", 1, {})
    text += at(1051, 0, "db-10", f"ipi_send_cpu: cpu=3 callsite=generic_exec_single+0x1/0x2 {back}")
    text += at(1052, 0, "db-10", f"ipi_send_cpu: cpu=2 callsite=smp_call_function_many_cond+0x1/0x2 {back}")
    text += at(1100, 0, "db-10", EXIT.format(nr=11))

    found = tc.shootdowns(written(tmp_path, text), process="db")

    assert found.pairs["victim_cpu"].tolist() == [1, 2]
    assert found.pairs["calls"].tolist() == [1, 2]
    assert found.call_sites["shootdowns"].tolist() == [2]
    assert found.lost["wait_s"] is None
    assert "how long senders waited: no csd events" in " ".join(str(found).split())


def test_a_recording_without_any_flush_event_says_so_and_fails(tmp_path: Path):
    path = written(tmp_path, at(0, 0, "db-10", "user_exit: "))

    printed = fails("cannot say whether user ranges were flushed", "explain", str(path), "--all-cpus")

    assert "Whether all processes flushed any user range is not recorded." in " ".join(printed.split())


def test_a_process_that_flushes_nothing_is_no_error(tmp_path: Path):
    text = CREATE + dontneed(1000, {1: 0xA}, handler(1020, 1, "worker-11", 0xA))
    text += at(1200, 2, "quiet-50", ENTER.format(nr=0, args="0"))

    found = tc.shootdowns(written(tmp_path, text), process="quiet")

    assert "No flush of a user range by quiet is in this recording." in str(found)
    assert len(found.call_sites["call"]) == 0


# --- bad input


def test_a_name_that_is_not_there_is_told_with_near_ones():
    path = str(recording("p73.us1"))

    fails("no process 'shot' in this recording, did you mean 'shoot'?", "explain", path, "--process", "shot")
    fails(
        "no process 'SHOOT' in this recording, did you mean 'shoot'?", "explain", path, "--process", "SHOOT"
    )
    fails("no process 'zzz' in this recording: it has", "explain", path, "--process", "zzz")
    fails("tells a container's", "explain", path, "--process", "7")
    fails("leave out --process", "explain", path, "--process", "shoot", "--all-cpus")
    fails("--isolated: of isolated CPUs", "explain", path, "--process", "shoot", "--isolated", "2-3")
    fails("/nowhere/page: no such", "explain", path, "--process", "shoot", "--perfetto", "/nowhere/page")
    fails("give one of them", "explain", path, "--machine", "skylake-sp")
    with pytest.raises(tc.TraceError, match="expected a name or an id: got True"):
        tc.shootdowns(path, process=True)


def test_an_id_that_was_used_twice_is_two_processes(tmp_path: Path):
    text = CREATE + dontneed(1000, {1: 0xA}, handler(1020, 1, "worker-11", 0xA))
    text += at(2000, 0, "db-10", "sched_process_exit: comm=db pid=10 prio=120")
    text += at(3000, 2, "sh-20", ENTER.format(nr=57, args="0"))
    text += at(3001, 2, "sh-20", "sched_process_fork: comm=sh pid=20 child_comm=sh child_pid=10")
    text += at(3002, 2, "sh-20", EXIT.format(nr=57))
    text += at(3500, 0, "cc1-10", ENTER.format(nr=11, args="7f0000000000, 1000, 0, 0, 0, 0"))
    text += sends(3510, 0, "cc1-10", 1, {1: 0xA}) + handler(3520, 1, "worker-11", 0xA, None)
    text += at(3600, 0, "cc1-10", EXIT.format(nr=11))
    path = written(tmp_path, text)

    with pytest.raises(
        tc.TraceError, match=r"10 was the id of 2 processes here, name one: 10#1 \(db\), 10#2 \(cc1\)"
    ):
        tc.shootdowns(path, process=10)
    assert tc.shootdowns(path, process="10#1").call_sites["call"].tolist() == ["madvise(MADV_DONTNEED)"]
    second = tc.shootdowns(path, process="10#2")
    assert second.call_sites["call"].tolist() == ["munmap"]
    assert second.victims["state"].tolist() == ["elsewhere"]
    assert tc.shootdowns(path, process="cc1").threads["pid"].tolist() == [10]


def test_process_ids_join_threads_of_other_names_and_part_those_of_one_name(tmp_path: Path):
    def tgid(text: str, ids: dict[str, int]) -> str:
        out = []
        for line in text.splitlines():
            task, rest = line.split(" [", 1)
            out.append(f"{task} ({ids[task.strip()]:>7}) [{rest}\n")
        return "".join(out)

    text = dontneed(1000, {1: 0xA}, handler(1020, 1, "GC Thread#0-11", 0xA, None))
    text += sends(1300, 2, "db-30", 1, {1: 0xB}) + handler(1320, 1, "GC Thread#0-11", 0xB, None)
    ids = {"db-10": 10, "GC Thread#0-11": 10, "db-30": 30}
    path = written(tmp_path, tgid(text, ids))

    by_name = tc.shootdowns(path, process="GC Thread#0")
    assert by_name.process == "GC Thread#0 (process 10)"
    assert by_name.victims["state"].tolist() == ["running"]
    assert tc.shootdowns(path, process=30).victims["state"].tolist() == ["elsewhere"]
    assert tc.shootdowns(path, process="db").process == "db (2 processes 10, 30)"


def test_a_control_group_is_the_processes_the_recorder_found_in_it(tmp_path: Path):
    text = "# tlbcore cgroup_root | 0\n# tlbcore cgroup | 10-11 /system.slice/db.service\n# tlbcore cgroup | 30 /\n"
    text += "# tlbcore thread | 10 10 db\n# tlbcore thread | 11 10 worker\n"
    text += dontneed(1000, {1: 0xA}, handler(1020, 1, "worker-11", 0xA, None))
    path = written(tmp_path, text)

    assert int(tc.shootdowns(path, process="/system.slice").call_sites["calls"].sum()) == 1
    assert tc.shootdowns(path, process="worker").victims["state"].tolist() == ["running"]
    with pytest.raises(tc.TraceError, match=r"no control group '/system\.slic'"):
        tc.shootdowns(path, process="/system.slic")
    with pytest.raises(tc.TraceError, match="is not recorded"):
        tc.shootdowns(recording("p73.us7"), process="/system.slice")


def test_json_and_text_say_the_same(tmp_path: Path):
    path = str(recording("p73.us7"))
    document = json.loads(tlbcore("explain", path, "--process", "wander", "--json", "--between", *GT).stdout)
    text = " ".join(tlbcore("explain", path, "--process", "wander", "--between", *GT).stdout.split())

    assert (document["schema"], document["version"]) == ("tlbcore.shootdowns", 1)
    assert document["sentence"] in text
    assert sum(row["calls"] for row in document["call_sites"]) == 8
    assert document["what_if"][0] == {
        "remedy": "recorded",
        "calls_low": 8,
        "calls_high": 8,
        "interrupts_low": 8,
        "interrupts_high": 8,
        "share_low": document["lost"]["share"],
        "share_high": document["lost"]["share"],
        "note": "measured",
    }
    assert "What would be left" in text
    assert max(len(line) for line in str(tc.shootdowns(path, between=GT)).splitlines()[1:]) <= 100


def test_any_size_of_batch_can_be_asked_for():
    path = str(recording("p73.us7"))
    how = ("explain", path, "--process", "wander", "--between", *GT)
    document = json.loads(tlbcore(*how, "--batch", "2", "--batch", "3", "--json").stdout)
    left = {row["remedy"]: (row["calls_low"], row["calls_high"]) for row in document["what_if"]}
    # Four munmap of two victims each: two batches of two, or three and one.
    assert left["batch of 2"] == left["batch of 3"] == (4, 4)
    usual = json.loads(tlbcore(*how, "--json").stdout)["what_if"]
    sizes = [row["remedy"] for row in usual if row["remedy"].startswith("batch")]
    assert sizes == [
        row for row in tc.shootdowns(path, process="wander", between=GT).what_if["remedy"] if "batch" in row
    ]
    assert sizes == ["batch of 8", "batch of 32"]
    fails("batches must be", *how, "--batch", "0")
    fails("--batch predicts for --process", "explain", path, "--batch", "2")


def test_a_result_is_saved_and_loaded_whole(tmp_path: Path):
    found = tc.shootdowns(recording("p73.us7"), process="wander", between=GT, machine="zen4-epyc")
    again = tc.load(found.save(tmp_path / "found"))

    assert str(again) == str(found)
    assert again.to_json() == found.to_json()
    assert list(found.tables) == ["call_sites", "pairs", "threads", "victims", "address_spaces", "what_if"]
    assert "interrupted for nothing" not in found._repr_html_()  # columns, not the report
    assert "share_low" in found._repr_html_()


def test_what_is_not_recorded_is_no_name_of_a_call_and_broadcasts_stay_possible(tmp_path: Path):
    flush = sends(1010, 0, "db-10", 1, {1: 0xA}) + handler(1020, 1, "db-10", 0xA)
    found = tc.shootdowns(written(tmp_path, flush))
    assert "100 % are by a call that is not recorded, of 1 page by 1 thread (db)." in " ".join(
        str(found).split()
    )

    alone = at(1010, 0, "db-10", "tlb_flush: pages:1 reason:local mm shootdown (3)")
    assert "1 flush stayed on its own CPU." in str(tc.shootdowns(written(tmp_path, alone, "alone.txt")))
    flags = "# tlbcore flags | fpu invlpgb\n" + alone
    text = str(tc.shootdowns(written(tmp_path, flags, "flags.txt")))
    assert "1 flush stayed on its own CPU, unless it was broadcast: this CPU has INVLPGB." in " ".join(
        text.split()
    )


def test_an_end_that_was_lost_does_not_lose_the_flush(tmp_path: Path):
    """The victim's function begins and its end is missing: the call counts, its wait is not recorded."""
    victims = at(1020, 1, "worker-11", "call_function_entry: vector=252", "d.h..")
    victims += at(
        1021, 1, "worker-11", "csd_function_entry: func=flush_tlb_func, csd=000000000000000a", "d.h.."
    )
    victims += "CPU:1 [LOST 5 EVENTS]\n"
    found = tc.shootdowns(written(tmp_path, CREATE + dontneed(1000, {1: 0xA}, victims)), process="db")

    assert found.call_sites["calls"].tolist() == [1]
    assert np.isnan(found.call_sites["wait_ms"]).all()
    assert found.lost["wait_s"] is None


# --- tables by hand


EVERY_KIND = dict.fromkeys(("syscalls", "csd", "ipi", "tlb_flush", "range_probe", "vectors", "stacks"), 1)
REPORT = {
    "kinds": EVERY_KIND, "switched_on": [], "tgids": True, "threads": [], "unmatched": 0, "left_out": 0, "holes": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "question"),
    [
        ({}, None),
        ({"syscalls": 0}, "by which system call"),
        ({"csd": 0}, "how long senders waited"),
        ({"csd": 0, "ipi": 0}, "who interrupted whom, and how long senders waited"),
        ({"tlb_flush": 0}, None),  # the probe tells
        ({"range_probe": 0}, "which address space, and whether page tables were freed"),
        ({"vectors": 0}, "all of what a handler took"),
        ({"stacks": 0}, "from which place in the kernel"),
    ],
)
def test_each_kind_of_event_that_is_missing_leaves_its_question_open(changes: dict, question: str | None):
    missing = list(shootdown._missing({**REPORT, "kinds": EVERY_KIND | changes}))
    assert [row["question"] for row in missing] == ([] if question is None else [question])


@pytest.mark.parametrize(
    ("changes", "question"),
    [
        ({"tgids": False}, "for certain which threads are one process"),
        ({"unmatched": 3}, "who asked for 3 functions"),
        ({"left_out": 4}, "4 counts in the tables"),
        ({"holes": 5}, "what was lost"),
    ],
)
def test_what_was_not_understood_leaves_its_question_open(changes: dict, question: str):
    assert [row["question"] for row in shootdown._missing({**REPORT, **changes})] == [question]


def lost(vectors: int, csd: int, waits: int = 2) -> dict:
    report = {"kinds": {"csd": csd, "vectors": vectors}, "switched_on": [], "seconds": 2.0}
    rows = [
        {"waits": waits, "shootdowns": 2, "wait_ns": 3_000_000, "longest_ns": 2500},
        {"waits": 1, "shootdowns": 1, "wait_ns": 1_000_000, "longest_ns": 1500},
    ]
    return shootdown._lost(report, rows, [{"calls": 3, "ns": 8_000_000}], 4)


def test_the_share_that_is_lost_is_of_all_cpus_and_of_what_is_known():
    assert lost(vectors=1, csd=1) == {
        "wait_s": 0.004, "waits_recorded": 3, "handler_s": 0.008, "share": 0.012 / 8, "longest_wait_us": 2.5,
    }  # fmt: skip
    by_vectors = lost(vectors=1, csd=0)
    assert (by_vectors["wait_s"], by_vectors["handler_s"], by_vectors["share"]) == (None, 0.008, 0.001)
    unknown = lost(vectors=0, csd=0)
    assert (unknown["handler_s"], unknown["share"]) == (None, None)


def test_refills_are_at_most_each_page_once_or_the_largest_array():
    cost = SimpleNamespace
    costs = {
        "interrupt_entry": cost(low=1, high=2), "interrupt_exit": cost(low=3, high=5),
        "walk_setup": cost(cycles=7), "mem_l3": cost(cycles=4),
    }  # fmt: skip
    small, large = {"sets": 4, "ways": 4}, {"sets": 8, "ways": 8}
    machine: Any = SimpleNamespace(
        costs=costs, mhz=1, levels=[{"structures": [small]}, {"structures": [large]}]
    )
    rows = [
        {"ran": 3, "extent": "ranged", "pages": (1, 10)},
        {"ran": 5, "extent": "ranged", "pages": (1, 100)},
        {"ran": 7, "extent": "ranged", "pages": None},
        {"ran": 11, "extent": "full", "pages": (1, 2)},
        {"ran": 14, "extent": "table_sync", "pages": (1, 2)},
    ]
    victims = [
        {"interrupts": 6, "calls": 10, "state": "running"},
        {"interrupts": 4, "calls": 30, "state": "idle"},
    ]
    found = shootdown._predicted(machine, rows, victims)
    assert found["entry_s"] == pytest.approx((10 * 4 / 1e6, 10 * 7 / 1e6))
    # A quarter of what ran found the process running; a walk is 11 cycles.
    dropped = 3 * 10 + (5 + 7 + 11) * 64
    assert found["refill_s"] == pytest.approx((0.0, 10 / 40 * dropped * 11 / 1e6))
    assert shootdown._running(victims) == (0.25, 0.25)
    assert shootdown._running([*victims, {"calls": 40, "state": "unknown"}]) == (0.125, 0.625)
    assert shootdown._running([]) == (0.0, 1.0)


def test_twenty_names_are_shown_and_the_rest_counted():
    names = [f"task-{i:02}" for i in range(27)]
    assert shootdown._unknown("zz", names).endswith("task-19 and 7 more")
    assert shootdown._unknown("zz", names[:20]).endswith("task-19")
    assert "did you mean" in shootdown._unknown("TASK-1", names)


def threads(*pids: int, comm: str = "x") -> dict:
    return {(pid, 0): [{"pid": pid, "reuse": 0, "comm": comm}] for pid in pids}


def test_a_control_group_is_every_id_from_the_first_to_the_last():
    notes = [("cgroup", "3,5-8 /a/b"), ("cgroup", "9 /ab"), ("cgroup", "11 /a")]
    found = shootdown._of_group("f", threads(*range(1, 13)), "/a", notes)
    assert [pid for pid, _ in found] == [3, 5, 6, 7, 8, 11]


def test_a_name_is_what_the_kernel_keeps_of_it():
    report = {"names": [], "pids": []}
    processes = threads(1, comm="fifteen-letters")
    assert shootdown._select("f", report, processes, "fifteen-letters-and-more", []) == processes
    with pytest.raises(tc.TraceError):
        shootdown._select("f", report, processes, "fifteen-letter", [])


def test_a_title_names_four_ids():
    assert shootdown._title("x", threads(4, 2, 3, 1)) == "x (4 processes 1, 2, 3, 4)"
    assert shootdown._title("x", threads(4, 2, 3, 1, 5)) == "x (5 processes 1, 2, 3, 4, ...)"
    assert shootdown._title(7, threads(7, comm="name")) == "name (process 7)"
