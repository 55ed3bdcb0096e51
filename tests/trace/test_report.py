# ruff: noqa: E501  # reports stand as they are said
"""Figures of a recording of a few lines, with their values worked out: bursts, gaps, windows, what is not said."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_trace_kinds import irq, line

import tlbcore as tc
from tlbcore.trace.report.shootdowns import sentence, shootdowns_text


def report(path: Path, *lines: str, isolated: str = "2", **options: Any) -> dict[str, Any]:
    path.joinpath("trace.txt").write_text("".join(lines))
    return tc.read_trace(path / "trace.txt", isolated=isolated, **options).figures["report"]


def ticks(*at: float) -> str:
    return (
        line(1.0, "user_enter: ") + "".join(irq(s, "local_timer", 4) for s in at) + line(5.0, "user_exit: ")
    )


@pytest.mark.parametrize(
    ("at", "bursts", "largest", "largest_at_s"),
    [
        ((2.0, 2.005, 2.010), 1, 3, 2.0),
        ((2.0, 2.005), 0, 0, 0.0),
        ((2.0, 2.02, 2.04, 2.06), 0, 0, 0.0),
        ((2.0, 2.009999, 2.019998), 1, 3, 2.0),
        ((2.0, 2.01, 2.02), 0, 0, 0.0),
        ((2.0, 2.005, 2.010, 3.0, 4.0, 4.009, 4.018, 4.0279), 2, 4, 4.0),
        ((2.0, 2.005, 2.010, 4.0, 4.005, 4.010), 2, 3, 2.0),  # of two as large the first
    ],
)
def test_a_burst_is_three_within_ten_milliseconds_of_each_other(
    at: tuple[float, ...], bursts: int, largest: int, largest_at_s: float, tmp_path: Path
) -> None:
    found = report(tmp_path, ticks(*at))["isolated"][0]["bursts"]
    assert (found["n"], found["largest"], found["largest_at_s"]) == (bursts, largest, largest_at_s)


def test_a_gap_lasts_from_one_interrupts_end_to_the_next_ones_begin(tmp_path: Path) -> None:
    gaps = report(tmp_path, ticks(2.0, 2.5, 3.5, 3.75))["isolated"][0]["gaps"]
    assert gaps["n"] == 3
    assert gaps["longest_s"] == pytest.approx(1 - 4e-6, abs=1e-9)
    assert gaps["longest_from_s"] == pytest.approx(2.5 + 4e-6, abs=1e-9)


def test_a_window_is_named_by_its_first_and_last_marker(tmp_path: Path) -> None:
    """Two windows: of 1.6 s with an interrupt, and of 1 s with another."""
    found = report(
        tmp_path,
        line(0.9, "tracing_mark_write: A1 first", cpu=0),
        line(1.0, "user_enter: "),
        irq(2.0, "local_timer", 4),
        line(2.5, "tracing_mark_write: B1 end", cpu=0),
        irq(2.7, "local_timer", 4),
        line(3.0, "tracing_mark_write: A2 again", cpu=0),
        irq(3.5, "local_timer", 4),
        line(4.0, "tracing_mark_write: B2 last", cpu=0),
        irq(4.5, "local_timer", 4),
        between=("A", "B"),
    )
    assert found["window"] == ["A1 first", "B2 last"]
    assert found["isolated"][0]["interrupts"] == 2
    assert found["seconds"] == pytest.approx(2.6)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("", True),
        ("softirq_entry: vec=1 [action=TIMER]", False),
        ("irq_noise: local_timer:236 start 2.000000001 duration 4000 ns", False),
        ("irq_noise: twice", False),
    ],
)
def test_soft_interrupts_are_unknown_where_nothing_tells_of_them(
    event: str, said: bool, tmp_path: Path
) -> None:
    more = (
        line(2.5, event.replace("twice", "local_timer:236 start 2.000000001 duration 4000 ns"))
        if event
        else ""
    )
    more *= 2 if "twice" in event else 1
    asked = [row["question"] for row in report(tmp_path, ticks(2.0), more)["cannot_say"]]
    assert ("whether soft interrupts took time" in asked) == said


@pytest.mark.parametrize(
    "text",
    [
        "12:34:56 up 3 days",
        "a b 12:34:56.5 c\n",
        "1:2:3.4 x",
        "[ab:cd:ef.gh] (+0.1) host x: { }",
        "45:67 8.9: x",
    ],
)
def test_a_clock_alone_makes_no_recording_of_another_tool(text: str, tmp_path: Path) -> None:
    path = tmp_path / "prose.txt"
    path.write_text(text + "\n")
    with pytest.raises(tc.TraceError) as error:
        tc.read_trace(path, isolated="2")
    for tool in ("babeltrace", "LTTng", "perf"):
        assert f"looks like {tool}" not in str(error.value)
    assert "is a trace event" in str(error.value)


def kept(*lines: str, cpus: tuple[int, ...] = (2,), until: float = 11.0) -> str:
    """Return a recording of CPUs that are in user mode from 1 s on but for these lines, in order of time."""
    every = [line(1.0, "user_enter: ", cpu=cpu) for cpu in cpus] + list(lines)
    every += [line(until, "user_exit: ", cpu=cpu) for cpu in cpus]
    return "".join(sorted(every, key=lambda text: float(text.split()[3].rstrip(":"))))


def flush(at: float) -> str:
    """Return a flush of everything that CPU 0 asks CPU 2 for, 10 us before it arrives for 8 us."""
    return (
        line(
            at - 1e-5,
            "csd_queue_cpu: cpu=2 callsite=x+0x1/0x2 func=do_flush_tlb_all csd=00000000d32e82b2",
            cpu=0,
            task="bash-9",
            flags="d....",
        )
        + line(
            at - 5e-6,
            "ipi_send_cpumask: cpumask=2 callsite=on_each_cpu_cond_mask+0x1/0x2 "
            "callback=generic_smp_call_function_single_interrupt+0x0/0x10",
            cpu=0,
            task="bash-9",
        )
        + irq(at, "call_function", 8)
    )


def sent(at: float, event: str) -> str:
    return line(at, event, cpu=0, task="bash-9")


WAKEUP = "ipi_send_cpu: cpu=2 callsite=try_to_wake_up+0x1/0x2 callback=0x0"
FLUSHED = (
    "ipi_send_cpumask: cpumask=2 callsite=on_each_cpu_cond_mask+0x1/0x2 callback=do_flush_tlb_all+0x0/0x10"
)
UNKNOWN = " Other tasks and soft interrupts: not recorded."
NO_FLUSH = "None of it is a flush of kernel TLB entries: no policy here would change it."
# A recording, its isolated CPUs, *In short*, and the first lines of *What took ...*. Rates are 3600 n / seconds with the
# exact limits of a Poisson count: of 1 0.0253 to 5.572, of 3 0.6187 to 8.767, of 4 1.090 to 10.24, of 9 4.115 to 17.08.
REPORTS = {
    "one CPU: by time, not by number": (
        kept(*(irq(at, "local_timer", 4) for at in (2.0, 2.5, 3.5)), irq(4.0, "reschedule", 300), until=21.0),
        "2",
        "CPU 2: 0.0016 % of the time (312 us of 20 s) taken from its task, longest 300 us (reschedule, reason not "
        "recorded): 1x reschedule, reason not recorded; 3x timer interrupt. 4 interrupts: 720 per hour (95 %: 196 to "
        f"1,843).{UNKNOWN} {NO_FLUSH}",
        "CPU 2: 4 interrupts, 720 per hour (95 %: 196 to 1,843); 1 kernel entry; quiet for 502 ms in the median, 1 s "
        "at longest (from 2.500). n per hour (95 %) p50/p95/max in all what, and by whom "
        "1 180 (5-1,003) 300 us / 300 us / 300 us 300 us reschedule, reason not recorded "
        "3 540 (111-1,578) 4 us / 4 us / 4 us 12 us timer interrupt "
        "Most often: timer interrupt 3, reschedule, reason not recorded 1.",
    ),
    "too short for a rate": (
        kept(irq(1.2, "local_timer", 4), until=1.5),
        "2",
        "CPU 2: 4 us of 500 ms taken from its task, longest 4 us (timer interrupt): 1x timer interrupt. 1 interrupt; "
        f"the window is too short for a rate.{UNKNOWN} {NO_FLUSH}",
        "CPU 2: 1 interrupt in 500 ms, too short for a rate; 1 kernel entry. n per hour (95 %) p50/p95/max in all what, "
        "and by whom 1 - 4 us / 4 us / 4 us 4 us timer interrupt",
    ),
    "just long enough": (
        kept(irq(1.2, "local_timer", 4), until=2.0),
        "2",
        "CPU 2: 0.0004 % of the time (4 us of 1 s) taken from its task, longest 4 us (timer interrupt): 1x timer "
        f"interrupt. 1 interrupt: 3,600 per hour (95 %: 91 to 20,058).{UNKNOWN} {NO_FLUSH}",
        "CPU 2: 1 interrupt, 3,600 per hour (95 %: 91 to 20,058); 1 kernel entry. n per hour (95 %) p50/p95/max in all "
        "what, and by whom 1 3,600 (91-20,058) 4 us / 4 us / 4 us 4 us timer interrupt",
    ),
    "three CPUs together: 7 of 9 on one of them": (
        kept(
            *(irq(2.0 + i / 2, "local_timer", 4) for i in range(7)),
            irq(6.0, "local_timer", 5, cpu=3),
            irq(7.0, "irq_work", 50, cpu=4),
            cpus=(2, 3, 4),
        ),
        "2-4",
        "CPUs 2-4: 0.00028 % of the time of each (83 us of 30 s) taken from its task, longest 50 us (interrupt work): "
        "1x interrupt work; 8x timer interrupt. 9 interrupts: 1,080 per hour and CPU (95 %: 494 to 2,050), 78% of them "
        f"on CPU 2.{UNKNOWN} {NO_FLUSH}",
        "All 3 together: 9 interrupts; rates are per CPU. n per hour (95 %) p50/p95/max in all what, and by whom "
        "1 120 (3-669) 50 us / 50 us / 50 us 50 us interrupt work "
        "8 960 (414-1,892) 5 us / 5 us / 5 us 33 us timer interrupt "
        "Most often: timer interrupt 8, interrupt work 1. "
        "CPU 2: 7 interrupts, 2,520 per hour (95 %: 1,013 to 5,192); 1 kernel entry; quiet for 500 ms in the median, "
        "500 ms at longest (from 2.000). CPU 3: 1 interrupt, 360 per hour (95 %: 9 to 2,006); 1 kernel entry. "
        "CPU 4: 1 interrupt, 360 per hour (95 %: 9 to 2,006); 1 kernel entry.",
    ),
    "only what was sent": (
        kept(sent(1.5, WAKEUP), sent(1.6, WAKEUP), sent(1.7, FLUSHED), until=3.5),
        "2",
        "CPU 2: whether it was interrupted is not recorded (no event that would show it); it was sent a reschedule from "
        "try_to_wake_up 2x, do_flush_tlb_all 1x (causes: remote wakeup).",
        "CPU 2: interrupts not recorded; 1 kernel entry. Sent to CPU 2: 2 remote wakeup",
    ),
    "nothing was sent, nothing is recorded": (
        kept(until=3.5),
        "2",
        "CPU 2: whether it was interrupted is not recorded (no event that would show it).",
        "CPU 2: interrupts not recorded; 1 kernel entry.",
    ),
    "flushes": (
        kept(*map(flush, (2.0, 3.0, 4.0)), irq(5.0, "local_timer", 4)),
        "2",
        "CPU 2: 0.00028 % of the time (28 us of 10 s) taken from its task, longest 8 us (kernel flush, caller unknown): "
        "3x kernel flush, caller unknown (bash); 1x timer interrupt. 4 interrupts: 1,440 per hour (95 %: 392 to 3,687)."
        f"{UNKNOWN} 3 of 4 are flushes of kernel TLB entries (3 of them for a caller that is not recorded); "
        "coalesce-v7-fixed would defer 0 to 3 calls and leave 360 to 1,440 interrupts per hour and CPU instead of 1,440 "
        "(predicted).",
        "CPU 2: 4 interrupts, 1,440 per hour (95 %: 392 to 3,687); 1 kernel entry; quiet for 1 s in the median, 1 s at "
        "longest (from 2.000). n per hour (95 %) p50/p95/max in all what, and by whom "
        "3 1,080 (223-3,156) 8 us / 8 us / 8 us 24 us kernel flush, caller unknown (bash) "
        "1 360 (9-2,006) 4 us / 4 us / 4 us 4 us timer interrupt",
    ),
    "flushes in a window that is too short": (
        kept(*map(flush, (1.1, 1.3, 1.5)), until=1.9),
        "2",
        "CPU 2: 24 us of 900 ms taken from its task, longest 8 us (kernel flush, caller unknown): 3x kernel flush, caller "
        f"unknown (bash). 3 interrupts; the window is too short for a rate.{UNKNOWN} 3 of 3 are flushes of kernel TLB "
        "entries (3 of them for a caller that is not recorded); coalesce-v7-fixed would defer 0 to 3 calls and leave the "
        "rest (predicted).",
        "CPU 2: 3 interrupts in 900 ms, too short for a rate; 1 kernel entry; quiet for 200 ms in the median, 200 ms at "
        "longest (from 1.100).",
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_says_how_much_of_what_and_what_a_policy_would_leave(name: str, tmp_path: Path) -> None:
    text, isolated, short, took = REPORTS[name]
    path = tmp_path / "trace.txt"
    path.write_text(text)
    said = str(tc.explain(tc.read_trace(path, isolated=isolated)))
    parts = {
        part.partition("\n")[0]: " ".join(part.partition("\n")[2].split()) for part in said.split("\n\n")
    }
    assert parts["In short"] == short
    (there,) = (words for head, words in parts.items() if head.startswith("What took"))
    assert there.startswith(took)
    assert ("Under other policies (predicted; sums over 1 isolated CPU)" in parts) == (
        "deferr" in short + took or "defer " in short
    )


# The report of shootdowns, of made-up tables: what is shown is what they hold, and the rest is counted.


def table(**columns: list[Any]) -> dict[str, Any]:
    return {name: np.array(values) for name, values in columns.items()}


def shootdowns(**changes: Any) -> SimpleNamespace:
    """Return 14 of everything; 10 s of 4 CPUs, of which 40 ms were waited and 20 ms handled: 0.15 %."""
    many = list(range(14))
    calls = [100 - i for i in many]
    sites = table(
        call=["munmap", "munmap", *(f"call_{i}" for i in many[2:])],
        size=["2 to 33 pages"] * 14,
        extent=["range", "range", *["all_pages"] * 12],
        tables=["no", "no", "yes", *["not recorded"] * 11],
        flushes=[10 * c for c in calls],
        shootdowns=[2 * c for c in calls],
        calls=calls,
        pages_min=[3, 2, *[1] * 12],
        pages_max=[7, 9, *[1] * 12],
        wait_ms=[0.5, 1.5, *[4.0] * 12],
        handler_ms=[0.25, 0.25, *[float("nan")] * 12],
        stack=["", "a < b", "c < d", "e", "f", *[""] * 9],
    )
    report = {
        "events": 12345,
        "kinds": {"csd": 1, "tlb_flush": 1, "range_probe": 0},
        "threads": [
            {"id": i, "pid": 400 + i, "comm": name}
            for i, name in enumerate(("pool-1", "pool-2", "io#3", "main", "7", "idle"))
        ],
        "rows": [
            *({"call": "munmap", "thread": i, "victims": 1} for i in range(5)),
            {"call": "munmap", "thread": 5, "victims": 0},
            {"call": "call_2", "thread": 5, "victims": 1},
        ],
    }
    made = {
        "path": "r.txt",
        "process": "db (process 400)",
        "seconds": 10.0,
        "cpus": (0, 1, 2, 3),
        "call_sites": sites,
        "pairs": table(sender_cpu=many, victim_cpu=[20 + i for i in many], calls=[1000 + i for i in many]),
        "threads": table(
            pid=[400 + i for i in many],
            comm=[f"t{i}" for i in many],
            process_id=[400, -1, *[400] * 12],
            calls=calls,
            flushes=[10 * c for c in calls],
            wait_ms=[1.5, float("nan"), *[2.0] * 12],
        ),
        "victims": table(
            state=["running", "running", "idle", *["elsewhere"] * 6],
            comm=["db", "db", "swapper", "a", "b", "c", "d", "e", "a"],
            calls=[10, 20, 30, 1, 2, 3, 4, 5, 65],
            handler_ms=[0.5, 0.25, 2.0, *[0.125] * 6],
        ),
        "address_spaces": table(
            mm=[f"mm{i}" for i in many],
            comm=["db"] * 14,
            calls=calls,
            flushes=[10 * c for c in calls],
            full=many,
        ),
        "what_if": table(
            remedy=["today", "batch of 2", "batch of 64", "batch of 512", "INVLPGB"],
            calls_low=[1400, 700, 30, 4, 0],
            calls_high=[1400, 700, 40, 4, 0],
            share_low=[0.0015, 0.0008, 0.0001, 0.00005, float("nan")],
            share_high=[0.0015, 0.0009, 0.0002, 0.00005, float("nan")],
            note=["", "", "", "x", "y"],
        ),
        "lost": {"wait_s": 0.04, "handler_s": 0.02, "share": 0.0015, "longest_wait_us": 321.0},
        "predicted": {"entry_s": (0.004, 0.008), "refill_s": (0.0, 0.012)},
        "missing": ({"question": "who", "because": "no events"},),
        "figures": {"report": report, "notes": [("flags", "fpu pcid"), ("flags", "pge")]},
        "machine": "skylake-sp",
    }
    return SimpleNamespace(**{**made, **changes})


def sections(text: str) -> dict[str, list[str]]:
    parts = [part.splitlines() for part in text.split("\n\n")]
    return {part[0]: [" ".join(line.split()) for line in part[1:]] for part in parts}


def test_the_report_of_shootdowns_has_the_tables_figures_and_counts_what_it_leaves_out() -> None:
    said = sections(shootdowns_text(shootdowns()))
    assert said["r.txt: 10 s, 12,345 events, CPUs 0-3"] == ["Process: db (process 400)"]
    # 199 of 1309 calls are of munmap (2 to 9 pages), by five threads with three names; who asked nobody is left out.
    assert " ".join(said["In short"]) == (
        "- db loses 0.15 % of 4 CPUs to shootdowns: 15 % are munmap of 2 to 9 pages by 5 threads (7, io, main, ...). "
        "- Predicted: in batches of 512 (munmap, madvise, mprotect) they would cost 0.005 %; broadcast by INVLPGB not "
        "known, where CPU and kernel have it."
    )
    assert said["Time lost"] == [
        "senders waited 40 ms (0.1 % of 4 CPUs) measured",
        "longest wait 321 us measured",
        "victims' handlers 20 ms (0.05 % of 4 CPUs) measured",
        "victims' entries and exits 4 ms to 8 ms (0.01 % to 0.02 % of 4 CPUs) predicted for skylake-sp",
        "victims' refills, at most 12 ms (0.03 % of 4 CPUs) predicted for skylake-sp",
    ]
    sites = said["By call site (remote calls; flushes that asked another CPU under 'sent')"]
    assert sites[0] == "calls flushes sent size extent waited handlers call"
    assert sites[1] == "199 1,990 398 2 to 33 pages range 2 ms 500 us munmap"
    assert sites[2] == "98 980 196 2 to 33 pages all pages + tables 4 ms not recorded call_2"
    assert sites[3] == "97 970 194 2 to 33 pages all pages 4 ms not recorded call_3"
    assert len(sites) == 1 + 12 + 1
    assert sites[-1] == "and 1 kind with fewer"
    assert said["Sender and victim, remote calls (most first)"] == [
        *(f"{1000 + i:,} CPU {i} to CPU {20 + i}" for i in range(13, 1, -1)),
        "and 2 pairs with fewer",
    ]
    assert said["What the victims' CPUs were doing (calls, share, time in handlers)"] == [
        "30 21 % 750 us ran the process (db 30)",
        "30 21 % 2 ms idle (swapper 30)",
        "80 57 % 750 us another process ran there: interrupted for nothing (a 66, e 5, d 4, c 3, ...)",
    ]
    threads = said["By thread"]
    assert threads[1:3] == ["100 1,000 1.5 ms t0 400", "99 990 not recorded t1 401"]
    assert threads[3] == "98 980 2 ms t2 402 of process 400"
    assert (len(threads), threads[-1]) == (14, "and 2 threads more")
    spaces = said["By address space (mm)"]
    assert spaces[:2] == ["calls flushes full address space", "100 1,000 0 mm0 (db)"]
    assert (len(spaces), spaces[-1]) == (14, "and 2 address spaces more")
    assert said["Call chains of the first"] == [
        "99 by munmap: a < b", "98 by call_2: c < d", "97 by call_3: e",
    ]  # fmt: skip
    assert said["What would be left (predicted)"] == [
        "remedy remote calls left time lost",
        "today 1,400 0.15 %",
        "batch of 2 700 0.08 % to 0.09 %",
        "batch of 64 30 to 40 0.01 % to 0.02 %",
        "batch of 512 4 0.005 % x",
        "INVLPGB 0 not known y",
    ]
    assert said["What this recording cannot say"] == ["- who: no events."]


def test_of_twelve_of_everything_nothing_is_left_out() -> None:
    whole = shootdowns()
    for name in ("call_sites", "pairs", "threads", "address_spaces"):
        setattr(whole, name, {key: values[:12] for key, values in getattr(whole, name).items()})
    text = shootdowns_text(whole)
    assert not re.search(r"^  and \d+", text, re.M)
    matrix = sections(text)["Sender (down) and victim (across), remote calls"]
    assert matrix[0].split()[:4] == ["CPU", "20", "CPU", "21"]
    whole.pairs = table(sender_cpu=[0, 0, 3], victim_cpu=[1, 3, 1], calls=[5, 1234, 7])
    assert sections(shootdowns_text(whole))["Sender (down) and victim (across), remote calls"] == [
        "CPU 1 CPU 3", "CPU 0 5 1,234", "CPU 3 7 0",
    ]  # fmt: skip


NOTHING = table(call=["munmap"], calls=[0], flushes=[0], shootdowns=[0])
SILENT = {"csd": 0, "tlb_flush": 0, "range_probe": 0}


@pytest.mark.parametrize(
    ("sites", "victims", "kinds", "flags", "changes", "said"),
    [
        ({}, 3, {}, "", {}, "db was interrupted 3 times in 10 s by flushes of its own address space and lost 20 ms in "
         "handlers; by which flush, and how long that waited, is not recorded."),
        ({"shootdowns": [2]}, 0, {}, "", {}, "db sent 2 shootdowns in 10 s; whom they interrupted is not recorded."),
        ({}, 0, {"range_probe": 1}, "", {}, "No flush of a user range by db is in this recording."),
        ({}, 0, {}, "", {}, "Whether db flushed any user range is not recorded."),
        ({"flushes": [1]}, 0, {}, "", {}, "db interrupted no other CPU: 1 flush stayed on its own CPU."),
        ({"flushes": [2]}, 0, {}, "fpu invlpgb", {}, "db interrupted no other CPU: 2 flushes stayed on their own CPU, "
         "unless it was broadcast: this CPU has INVLPGB."),
        ({"flushes": [2]}, 0, {}, "", {"process": None},
         "all processes interrupted no other CPU: 2 flushes stayed on their own CPU."),
    ],
)  # fmt: skip
def test_who_sent_nothing_is_told_what_is_known(
    sites: dict, victims: int, kinds: dict, flags: str, changes: dict, said: str
) -> None:
    made = shootdowns(
        call_sites={**NOTHING, **{key: np.array(values) for key, values in sites.items()}},
        victims=table(calls=[victims]),
        figures={"report": {"kinds": {**SILENT, **kinds}, "switched_on": []}, "notes": [("flags", flags)]},
        **changes,
    )
    assert sentence(made) == said


def test_what_was_lost_in_part_is_a_lower_bound() -> None:
    lost = {"wait_s": None, "handler_s": 0.02, "share": 0.0005, "longest_wait_us": None}
    assert sentence(shootdowns(lost=lost)).startswith(
        "db loses at least 0.05 % of 4 CPUs to shootdowns: 15 % are "
    )
    assert sentence(shootdowns(lost=lost, process=None)).startswith(
        "all processes lose at least 0.05 % of 4 CPUs"
    )
    said = sections(shootdowns_text(shootdowns(lost=lost, predicted=None, seconds=0.0)))
    assert said["Time lost"] == ["senders waited not recorded measured", "victims' handlers 20 ms measured"]
    lost["share"] = None
    made = shootdowns(lost=lost)
    assert sentence(made).startswith(
        "db interrupted other CPUs 1,309 times in 10 s; what that cost is not recorded: 15 % are munmap"
    )
    assert "Predicted: " not in shootdowns_text(made)
    assert sections(shootdowns_text(made))["What would be left (predicted)"][:2] == [
        "remedy remote calls left",
        "today 1,400",
    ]
