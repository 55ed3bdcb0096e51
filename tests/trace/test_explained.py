# ruff: noqa: E501  # reports stand as they are said
"""The report of `tlbcore explain`, of made-up figures: each sentence and each cell for what it is given.

Limits of a Poisson count at 95 %, of which rates are made: of 2 0.2422 to 7.225, of 3 0.6187 to 8.767, of 4 1.090 to
10.24, of 6 2.202 to 13.06, of 10 4.795 to 18.39, of 20 12.22 to 30.89.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_report import kept
from test_trace_kinds import irq

import tlbcore as tc
from tlbcore.trace.report import explained
from tlbcore.trace.report.explained import interference, who

KINDS = ("calls", "devices", "firmware", "irq_work", "nmis", "reschedules", "softirqs", "tasks", "timers")
ALL = frozenset(KINDS)


def knowledge(recorded: frozenset[str] = ALL, why: str = "") -> dict[str, dict[str, str]]:
    return {kind: {"state": "recorded" if kind in recorded else "not_recorded", "why": why} for kind in KINDS}


def row(
    cause: str, n: int, *us: float, by: Mapping[str, float | None] | None = None, **more: Any
) -> dict[str, Any]:
    """Return what a cause took: p50, p95 and longest in us, and in all as many ms as its number."""
    p50, p95, longest = us if us else (None, None, None)
    kind = tc.causes[cause].kind
    names = [{"name": name, "total_ms": ms} for name, ms in (by or {}).items()]
    usual = {"via": [], "total_ms": float(n) if us else None}
    times = {"p50_us": p50, "p95_us": p95, "max_us": longest}
    return {"cause": cause, "kind": kind, "n": n, "by": names, **times, **usual} | more


def cpu(number: int, *rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an isolated CPU of 10 s on which everything is recorded, with the figures that follow from its rows."""
    of_kernel = [one for one in rows if one["kind"] == "interrupt"]
    count = sum(one["n"] for one in of_kernel)
    low, high = tc._core.trace_poisson_95(count)
    usual = {
        "cpu": number, "seconds": 10.0, "events": 9, "entries": 0, "gaps": None, "sums": None, "sent": [],
        "interrupts": count, "interrupts_idle": 0, "interrupts_known": "recorded", "interrupts_per_hour": count * 360.0,
        "interrupts_per_hour_95": {"low": low * 360, "high": high * 360}, "interference": list(rows),
        "interrupts_by_cause": {one["cause"]: one["n"] for one in of_kernel}, "knowledge": knowledge(),
        "taken_ms": sum(one["total_ms"] or 0.0 for one in rows), "longest": None, "stolen_ms": None,
        "stolen_ms_range": None, "initiators": [], "tick_dependencies": {}, "tasks_switched_in": {}, "work": {},
        "ipis_by_function": {}, "calls_by_class": {}, "calls_by_function": {}, "implied_calls_by_function": {},
        "noise": [], "latencies": [], "timeline": {"counts": [], "step_s": 1.0}, "bursts": {"n": 0},
        "baseline": {"derived_ipis": None},
    }  # fmt: skip
    return usual | changes


NO_PURGES = {"events": 0, "effective": 0, "empty": 0, "charged": [], "unknown_areas": 0}


def report(*cpus: dict[str, Any], **changes: Any) -> dict[str, Any]:
    usual = {
        "isolated": list(cpus), "architecture": "x86_64", "purges": NO_PURGES, "policies": [], "window": None,
        "recordings": 1, "one_cpu_each": False, "overwritten": 0, "snapshots": 0, "backwards": 0, "flush_tlb_all": 0,
        "flush_tlb_kernel_range": {"calls": 0},
    }  # fmt: skip
    return usual | changes


def trace(made: dict[str, Any], **changes: Any) -> Any:
    figures = {"machine_cpus": 0, "hole_count": 0, "broken_lines": 0, "unknown_events": {}, "notes": []}
    usual = {
        "path": "r.txt", "seconds": 10.0, "events": 7, "isolated": (2,), "isolated_from": "given",
        "calls": {"cpu": []}, "figures": figures | {"report": made},
    }  # fmt: skip
    return SimpleNamespace(**(usual | changes))


def joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def in_short(*cpus: dict[str, Any], **changes: Any) -> str:
    return joined(explained._in_short(trace(report(*cpus, **changes))))


LONGEST = {"us": 300.0, "cause": "timer", "by": ""}
NO_FLUSH = "None of it is a flush of kernel TLB entries: no policy here would change it."
UNSENT = "whether it was interrupted is not recorded (no event that would show it)"
SILENT = {"interrupts": None, "taken_ms": None, "interrupts_known": "not_recorded"}


@pytest.mark.parametrize(
    ("cpus", "said"),
    [
        # Of the time of a task: 20 ms of 10 s. Four causes: three are named, the rest is counted.
        (
            [cpu(2, row("timer", 3, 1, 2, 300), row("device", 2, 1, 2, 3), row("kworker", 1, 1, 2, 3),
                 row("vmstat", 4, 1, 2, 3), taken_ms=20.0, longest=LONGEST)],
            "CPU 2: 0.2 % of the time (20 ms of 10 s) taken from its task, longest 300 us (timer interrupt): 4x vmstat "
            "worker, 4 ms; 3x timer interrupt; 2x device interrupt; 1 other. 5 interrupts: 1,800 per hour (95 %: 584 to "
            f"4,201). {NO_FLUSH}",
        ),
        # What a policy could change is named, too, be it the fourth.
        (
            [cpu(2, row("timer", 4, 1, 2, 300), row("device", 3, 1, 2, 3), row("kworker", 2, 1, 2, 3),
                 row("vmalloc_purge", 1, 1, 2, 3), row("smi", 1), row("nmi", 1),
                 longest=LONGEST | {"by": "by eth0"})],
            "CPU 2: at least 0.1 % of the time (10 ms of 10 s) taken from its task, longest 300 us (timer interrupt by eth0): 4x "
            "timer interrupt; 3x device interrupt; 2x kernel worker, 2 ms; 1x lazy vmalloc purge; 2 others. 8 interrupts: "
            "2,880 per hour (95 %: 1,243 to 5,675).",
        ),
        # Less than a second of each CPU is too short for shares and rates.
        (
            [cpu(2, row("timer", 3, 1, 2, 300), seconds=0.5)],
            "CPU 2: 3 ms of 500 ms taken from its task: 3x timer interrupt. 3 interrupts; the window is too short for a "
            f"rate. {NO_FLUSH}",
        ),
        (
            [cpu(2, row("timer", 1, 1, 2, 300), seconds=0.0)],
            "CPU 2: 1 ms taken from its task: 1x timer interrupt. 1 interrupt; the window is too short for a rate. "
            f"{NO_FLUSH}",
        ),
        (
            [cpu(2, row("timer", 3), interrupts_idle=1)],
            "CPU 2: interrupted while idle: 3x timer interrupt. 3 interrupts: 1,080 per hour (95 %: 223 to 3,156). "
            f"{NO_FLUSH}",
        ),
        (
            [cpu(2, row("timer", 3), longest=LONGEST | {"us": 0.0})],
            "CPU 2: interrupted, for how long is not recorded: 3x timer interrupt. 3 interrupts: 1,080 per hour (95 %: 223 "
            f"to 3,156). {NO_FLUSH}",
        ),
        # What is not recorded of one that was interrupted.
        (
            [cpu(2, row("kworker", 3, 1, 2, 300), interrupts=None, knowledge=knowledge(ALL - {"softirqs"}))],
            "CPU 2: 0.03 % of the time (3 ms of 10 s) taken from its task: 3x kernel worker, 3 ms. Interrupts: not "
            "recorded. Soft interrupts: not recorded.",
        ),
        (
            [cpu(2, row("device", 3, 1, 2, 300),
                 knowledge=knowledge(ALL - {"softirqs", "tasks", "calls", "reschedules", "timers"}))],
            "CPU 2: 0.03 % of the time (3 ms of 10 s) taken from its task: 3x device interrupt. 3 interrupts: 1,080 per "
            "hour (95 %: 223 to 3,156). Remote calls, reschedules, timer interrupts, other tasks and soft interrupts: not "
            "recorded. Whether flushes of kernel TLB entries interrupted them, which a policy here would change, is not "
            "recorded: no event would show a remote call.",
        ),
        (
            [cpu(2, row("device", 3, 1, 2, 300), knowledge=knowledge(ALL - {"calls", "timers"}))],
            "CPU 2: 0.03 % of the time (3 ms of 10 s) taken from its task: 3x device interrupt. 3 interrupts: 1,080 per "
            f"hour (95 %: 223 to 3,156). {NO_FLUSH}",
        ),
        # Three CPUs and more are one group: 24 interrupts in 40 s, and of the 20 ms the share is of all their time.
        (
            [cpu(2, row("timer", 20, 1, 2, 300), longest=LONGEST | {"us": 7.0}), cpu(3), cpu(4), cpu(5, row("device", 4))],
            "CPUs 2-5: at least 0.05 % of the time of each (20 ms of 40 s) taken from its task, longest 7 us (timer interrupt): 20x "
            "timer interrupt; 4x device interrupt. 24 interrupts: 2,160 per hour and CPU (95 %: 1,384 to 3,214), 83% of "
            f"them on CPU 2. {NO_FLUSH}",
        ),
        # Half of them on one of four CPUs is twice its part, and not more.
        (
            [cpu(2, row("timer", 4)), cpu(3, row("timer", 2)), cpu(4, row("timer", 2)), cpu(5)],
            "CPUs 2-5: interrupted, for how long is not recorded: 8x timer interrupt. 8 interrupts: 720 per hour and CPU "
            f"(95 %: 311 to 1,419). {NO_FLUSH}",
        ),
        # Nothing is known of some CPUs: they stand by themselves.
        (
            [cpu(2, **SILENT), cpu(3, row("timer", 3), seconds=1.0), cpu(4, **SILENT)],
            f"CPU 3: interrupted, for how long is not recorded: 3x timer interrupt. 3 interrupts: 10,800 per hour (95 %: "
            f"2,227 to 31,562). CPUs 2,4: {UNSENT}. {NO_FLUSH}",
        ),
    ],
)  # fmt: skip
def test_in_short_stands_what_took_how_much(cpus: list[dict[str, Any]], said: str) -> None:
    assert in_short(*cpus) == said


def asked(cause: str, calls: int, comm: str = "bash", *, in_interrupt: bool = False) -> dict[str, Any]:
    return {"cause": cause, "calls": calls, "comm": comm, "in_interrupt": in_interrupt}


def test_of_a_cpu_without_any_event_of_interrupts_is_told_what_was_sent() -> None:
    functions = {"resched:wake": 1, "f": 5, "g": 4, "h": 3, "resched:f": 2}
    titles = [asked("wakeup", 3), asked("signal", 2), asked("membarrier", 1), asked("rcu_barrier", 1)]
    assert in_short(cpu(2, **SILENT, ipis_by_function=functions, sent=titles)) == (
        f"CPU 2: {UNSENT}; it was sent f 5x, g 4x, h 3x, a reschedule from f 2x (causes: remote wakeup, signal to a running "
        "task, membarrier system call)."
    )  # fmt: skip
    several = [
        cpu(i, **SILENT, ipis_by_function={"f": 2, "g": i}, sent=[asked("wakeup", 1)]) for i in (2, 3, 4)
    ]
    assert in_short(*several) == (
        f"CPUs 2-4: {UNSENT}; it was sent g 9x, f 6x (causes: remote wakeup)."
    )  # fmt: skip


NEVER = "which allows up to 1,078 per hour at 95 %"  # -ln(0.05) of them in 10 s


@pytest.mark.parametrize(
    ("cpus", "said"),
    [
        ([cpu(2)], f"CPU 2: not interrupted in 10 s, {NEVER}."),
        ([cpu(2, seconds=1.0)], "CPU 2: not interrupted in 1 s, which allows up to 10,785 per hour at 95 %."),
        ([cpu(2, seconds=0.5)], "CPU 2: not interrupted in 500 ms."),
        ([cpu(2, seconds=0.0)], "CPU 2: not interrupted."),
        ([cpu(2, knowledge=knowledge(ALL - {"nmis", "tasks"}))],
         f"CPU 2: not interrupted in 10 s, {NEVER}. Not recorded: NMIs, other tasks."),
        ([cpu(2, interrupts_known="in_part", knowledge=knowledge(frozenset({"timers", "irq_work"})))],
         f"CPU 2: none of what was recorded (interrupt work, timer interrupts) took it in 10 s, {NEVER}. Not recorded: "
         "remote calls, device interrupts, firmware (SMI), NMIs, reschedules, soft interrupts, other tasks."),
        ([cpu(2, events=0)], "CPU 2: no event of any kind was recorded there: not interrupted in 10 s, if it was traced, "
         f"{NEVER}."),
        # The shortest of a group bounds it.
        ([cpu(2), cpu(3, seconds=40.0), cpu(4)], f"CPUs 2-4: not interrupted in 10 s, {NEVER}."),
        ([cpu(2), cpu(3, interrupts_known="in_part"), cpu(4)],
         "CPUs 2-4: none of what was recorded (remote calls, device interrupts, firmware (SMI), interrupt work, NMIs, "
         f"reschedules, soft interrupts, other tasks, timer interrupts) took them in 10 s, {NEVER}."),
        ([cpu(i, events=0) for i in (2, 3, 4)], "CPUs 2-4: no event of any kind was recorded there: not interrupted in "
         f"10 s, if they were traced, {NEVER}."),
        # What is said of a group is what is known of those that have events, whichever comes first.
        ([cpu(2, events=0, interrupts_known="in_part", knowledge=knowledge(frozenset())), cpu(3), cpu(4)],
         f"CPUs 2-4: not interrupted in 10 s, {NEVER}. No event of any kind was recorded on CPU 2: taken for quiet."),
        ([cpu(2), cpu(3, events=0), cpu(4, events=0)],
         f"CPUs 2-4: not interrupted in 10 s, {NEVER}. No event of any kind was recorded on CPUs 3-4: taken for quiet."),
    ],
)  # fmt: skip
def test_where_nothing_was_seen_is_told_what_that_allows_and_what_could_not_be_seen(
    cpus: list[dict[str, Any]], said: str
) -> None:
    assert in_short(*cpus) == said


@pytest.mark.parametrize("silent", [2, 3, 4])
def test_whichever_cpu_of_a_recording_is_silent_the_same_is_said(silent: int, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(kept(irq(2.0, "local_timer", 4, cpu=0), cpus=tuple({2, 3, 4} - {silent})))
    said = joined(explained._in_short(tc.read_trace(path, isolated="2-4")))
    assert said.startswith(
        f"CPUs 2-4: none of what was recorded (timer interrupts) took them in 10 s, {NEVER}. Not "
    )
    assert said.endswith(f". No event of any kind was recorded on CPU {silent}: taken for quiet.")


@pytest.mark.parametrize(
    ("cpus", "said"),
    [
        ([cpu(2, stolen_ms=25, stolen_ms_range=(20.0, 30.0))],
         " The hypervisor took 20 ms to 30 ms beside (stolen time)."),
        ([cpu(2, stolen_ms=25, stolen_ms_range=(20.0, 30.0)), cpu(3, stolen_ms=5, stolen_ms_range=(0.0, 10.0))],
         " The hypervisor took 20 ms to 40 ms beside (stolen time)."),
        ([cpu(2, stolen_ms=0, stolen_ms_range=(0.0, 10.0))], ""),
        ([cpu(2, sums={"periods": 1})],
         " These are sums over 1 period of osnoise: how long each kind took is not recorded."),
        ([cpu(2, sums={"periods": 600}), cpu(3, sums={"periods": 700})],
         " These are sums over 1,300 periods of osnoise: how long each kind took is not recorded."),
        ([cpu(2), cpu(3, knowledge=knowledge(why="events were lost"))],
         " Events were lost: all of this is a lower limit."),
        ([cpu(2, row("smi", 1, 1, 2, 3, by={"hwlat": 1.0}))],
         " The hwlat tracer looks at one CPU at a time, part of the time: its counts and rates are lower limits."),
        ([cpu(2, row("smi", 1, 1, 2, 3, by={"osnoise": 1.0}), row("timer", 1, by={"hwlat": None}))], ""),
        ([cpu(2, **SILENT), cpu(3, **SILENT, events=0)], ""),
    ],
)  # fmt: skip
def test_beside_the_kernel_and_how_sure(cpus: list[dict[str, Any]], said: str) -> None:
    assert explained._beside(cpus) == said


def policy(low: int, high: int, left: tuple[int, int] = (4, 6)) -> dict[str, Any]:
    """Return the outcome of the policy that the report is about; its figures beside another's."""
    return {
        "policy": "coalesce-v7-fixed", "deferred": {"low": low, "high": high}, "remaining": {"low": 0, "high": 1},
        "interrupts": {"low": left[0], "high": left[1]}, "cpus": [{"exposure_longest_s": {"low": 0.0, "high": 0.0}}],
        "deferred_by_class": {"purge": {"low": low, "high": high}}, "needs": "",
    }  # fmt: skip


OTHER = policy(100, 200) | {"policy": "ipi"}


@pytest.mark.parametrize(
    ("cpus", "changes", "said"),
    [
        ([cpu(2, row("timer", 3))], {"architecture": "aarch64"},
         "On arm64 the kernel's TLB flushes are broadcast by hardware (TLBI ...IS) and interrupt no CPU: no policy here "
         "applies."),
        ([cpu(2)], {"architecture": "riscv64"},
         "On RISC-V flushes of other CPUs' TLBs go through firmware or interrupts; the policies here are of x86-64."),
        ([cpu(2), cpu(3, interrupts=None)], {}, ""),
        ([cpu(2, row("timer", 3)), cpu(3, interrupts=None)], {}, NO_FLUSH),
        ([cpu(2, row("timer", 3), row("call_unknown", 1000)), cpu(3, row("call_sender_only", 234))], {},
         "None of it is known to be a flush of kernel TLB entries; what a policy would change lies among the 1,234 "
         "interrupts whose sender is not recorded."),
        ([cpu(2, row("timer", 3), row("call_unknown", 1))], {},
         "None of it is known to be a flush of kernel TLB entries; what a policy would change lies in the 1 interrupt "
         "whose sender is not recorded."),
        # One kind of vector is enough to show that no flush came.
        ([cpu(2, row("timer", 3), knowledge=knowledge(frozenset({"nmis"}))),
          cpu(3, knowledge=knowledge(frozenset({"reschedules"})))], {}, NO_FLUSH),
        # 10 of 20 s: 5 purges, 1 of an unknown caller, 4 timers. Left are 4 to 6: 720 to 1,080 per hour instead of 1,800.
        ([cpu(2, row("vmalloc_purge", 3), row("timer", 4)), cpu(3, row("vunmap", 2), row("kernel_flush_unknown", 1))],
         {"policies": [OTHER, policy(4, 6)]},
         "6 of 10 are flushes of kernel TLB entries (1 of them for a caller that is not recorded); coalesce-v7-fixed would "
         "defer 4 to 6 calls and leave 720 to 1,080 interrupts per hour and CPU instead of 1,800 (predicted)."),
        ([cpu(2, row("exec_memory_free", 2), seconds=0.5)], {"policies": [policy(2, 2, (0, 0)), OTHER]},
         "2 of 2 are flushes of kernel TLB entries; coalesce-v7-fixed would defer 2 calls and leave the rest (predicted)."),
        ([cpu(2, row("set_memory", 1), row("timer", 1), seconds=1.0)], {"policies": [policy(1, 1, (1, 1))]},
         "1 of 2 is a flush of kernel TLB entries; coalesce-v7-fixed would defer 1 call and leave 3,600 interrupts per "
         "hour and CPU instead of 7,200 (predicted)."),
        ([cpu(2, row("kernel_table_free", 1))], {"policies": [OTHER]}, ""),
    ],
)  # fmt: skip
def test_of_flushes_is_told_what_a_policy_would_leave(
    cpus: list[dict[str, Any]], changes: dict[str, Any], said: str
) -> None:
    assert joined(explained._of_flushes(cpus, report(*cpus, **changes))) == said


CHARGED = {"charged": [{"comm": "sh", "areas": 6}, {"comm": "cat", "areas": 3}], "unknown_areas": 1}


@pytest.mark.parametrize(
    ("cause", "cpus", "purges", "said"),
    [
        ("vmalloc_purge", [], CHARGED, "areas of sh 60%, cat 30%, unknown 10%"),
        ("vmalloc_purge", [], CHARGED | {"unknown_areas": 0}, "areas of sh 67%, cat 33%"),
        ("vmalloc_purge", [cpu(2, initiators=[asked("vmalloc_purge", 1)])], NO_PURGES, "bash"),
        ("tick_kept", [cpu(2, tick_dependencies={"a": 3}), cpu(3, tick_dependencies={"b": 6, "a": 3})], NO_PURGES,
         "kept for a 50%, b 50%"),
        ("tick_kept", [cpu(2, initiators=[asked("tick_kept", 1)])], NO_PURGES, ""),
        # By calls, those of timers under one name; of other causes none.
        ("wakeup", [cpu(2, initiators=[asked("wakeup", 5), asked("signal", 9, "x"), asked("wakeup", 3, "cat")]),
                    cpu(3, initiators=[asked("wakeup", 1), asked("wakeup", 1, "y", in_interrupt=True)])], NO_PURGES,
         "bash 60%, cat 30%, timers and interrupts 10%"),
        # By time where it is known, and through what.
        ("kworker", [cpu(2, row("kworker", 2, by={"kworker/2:1": 3.0, "": 9.0, "late": None}, via=["f", "g"]),
                         row("vmstat", 1, by={"z": 90.0}, via=["z"]), initiators=[asked("kworker", 9)]),
                     cpu(3, row("kworker", 2, by={"kworker/3:1": 1.0}, via=["g", "h", "i"]))], NO_PURGES,
         "kworker/2:1 75%, kworker/3:1 25% through f, g, h"),
        ("kworker", [cpu(2, row("kworker", 2, by={"a": None}), initiators=[asked("kworker", 9)])], NO_PURGES, "bash"),
        ("kworker", [cpu(2)], NO_PURGES, ""),
    ],
)  # fmt: skip
def test_who_is_behind_a_cause(
    cause: str, cpus: list[dict[str, Any]], purges: dict[str, Any], said: str
) -> None:
    assert who(cpus, cause, {"purges": purges}) == said


def test_interference_of_cpus_is_added_by_time_and_then_by_number() -> None:
    cpus = [
        cpu(2, row("timer", 1, 1, 2, 3), row("device", 9), row("nmi", 9)),
        cpu(
            3,
            row("timer", 2, 4, 5, 6),
            row("kworker", 3, 7, 8, 9),
            row("device", 1),
            row("wakeup", 3, 1, 1, 1),
        ),
        cpu(4, row("timer", 4), row("softirq", 11)),
    ]
    found = interference(cpus)
    assert [(cause, one["n"], one["ms"], one["max_us"], one["kind"]) for cause, one in found.items()] == [
        ("timer", 7, 3.0, 6, "interrupt"),
        ("kworker", 3, 3.0, 9, "task"),
        ("wakeup", 3, 3.0, 1, "interrupt"),
        ("softirq", 11, None, None, "softirq"),
        ("device", 10, None, None, "interrupt"),
        ("nmi", 9, None, None, "nmi"),
    ]
    assert [one["n"] for one in found["timer"]["rows"]] == [1, 2], "those whose length is known"


def test_the_table_of_what_took_a_cpu_has_rates_lengths_and_names() -> None:
    mine = cpu(
        2, row("timer", 10, 1.5, 20, 300), row("device", 2), row("kworker", 3, 7, 8, 9, by={"kworker/2:1": 3.0}),
        tasks_switched_in={f"t{i}": 9 - i for i in range(8)}, work={f"w{i}": 1000 * (9 - i) for i in range(8)},
    )  # fmt: skip
    assert explained._table([mine], report(mine)) == [
        "  CPU 2: 12 interrupts, 4,320 per hour (95 %: 2,232 to 7,546).",
        "     n      per hour (95 %)              p50/p95/max  in all  what, and by whom",
        "    10  3,600 (1,726-6,621)  1.5 us / 20 us / 300 us   10 ms  timer interrupt",
        "     3    1,080 (223-3,156)       7 us / 8 us / 9 us    3 ms  kernel worker (kworker/2:1)",
        "     2       720 (87-2,601)                        -       -  device interrupt",
        "    Tasks switched in: t0 9x, t1 8x, t2 7x, t3 6x, t4 5x, t5 4x and 2 more. Work items run: w0",
        "    9,000x, w1 8,000x, w2 7,000x, w3 6,000x, w4 5,000x, w5 4,000x.",
    ]
    six = cpu(2, tasks_switched_in={f"t{i}": 6 - i for i in range(6)}, work={"w": 1})
    assert joined(explained._others_there([six, cpu(3, tasks_switched_in={"t5": 6}, work={"w": 2})])) == (
        "Tasks switched in: t5 7x, t0 6x, t1 5x, t2 4x, t3 3x, t4 2x. Work items run: w 3x."
    )
    assert explained._others_there([cpu(2)]) == []


def test_the_table_of_several_cpus_has_rates_of_each_and_the_middle_of_their_medians() -> None:
    group = [
        cpu(2, row("timer", 1, 5, 50, 60), row("nmi", 4)),
        cpu(3, row("timer", 2, 9, 40, 80), interrupts=None),
        cpu(4, row("timer", 3, 1, 45, 70)),
    ]
    assert explained._table(group, report(*group)) == [
        "  All 3 together: 4 interrupts; rates are per CPU.",
        "    n  per hour (95 %)           p50/p95/max  in all  what, and by whom",
        "    6  720 (264-1,567)  5 us / 50 us / 80 us    6 ms  timer interrupt",
        "    4  480 (131-1,229)                     -       -  non-maskable interrupt",
    ]
    short = [cpu(i, row("timer", 1, 1, 2, 3), seconds=0.9, interrupts=None) for i in (2, 3, 5)]
    assert explained._table(short, report(*short)) == [
        "  CPUs 2-3,5: interrupts not recorded.",
        "    n  per hour (95 %)         p50/p95/max  in all  what, and by whom",
        "    3                -  1 us / 2 us / 3 us    3 ms  timer interrupt",
    ]


def test_what_is_most_often_is_told_where_that_is_another_order_than_by_time() -> None:
    by_time = [
        row("timer", 9, 1, 1, 1),
        row("device", 8, 1, 1, 1),
        row("kworker", 7, 1, 1, 1),
        row("nmi", 6, 1, 1, 1),
    ]
    assert explained._often([cpu(2, *by_time)]) == []
    by_time[3] |= {"n": 1000}
    assert explained._often([cpu(2, *by_time)]) == [
        "    Most often: non-maskable interrupt 1,000, timer interrupt 9, device interrupt 8."
    ]
    as_often = [row("timer", 1, 1, 1, 1), row("device", 1)]
    assert explained._often([cpu(2, *as_often)]) == [], "those of one number stand by time"


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        (SILENT, False),
        (SILENT | {"interrupts": 0}, True),
        (SILENT | {"taken_ms": 0.0}, True),
        (SILENT | {"interference": [row("nmi", 1)]}, True),
        ({}, True),
    ],
)
def test_a_cpu_is_measured_if_anything_is_known_of_it(changes: dict[str, Any], measured: bool) -> None:
    cpus = [cpu(2, **changes), cpu(3), cpu(4)]
    assert explained._measured(cpus[0]) is measured
    assert [[one["cpu"] for one in group] for group in explained._groups(cpus)] == (
        [[2, 3, 4]] if measured else [[3, 4], [2]]
    )
    assert explained._groups(cpus[:2]) == [cpus[:1], cpus[1:2]]


GAPS = {"p50_s": 0.0025, "longest_s": 1.5, "longest_from_s": 12.34567}


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (cpu(2, interrupts=None), "CPU 2: interrupts not recorded."),
        (cpu(2, interrupts=None, entries=1), "CPU 2: interrupts not recorded; 1 kernel entry."),
        (cpu(2, row("timer", 1), entries=1234),
         "CPU 2: 1 interrupt, 360 per hour (95 %: 9 to 2,006); 1,234 kernel entries."),
        (cpu(2, row("timer", 3), interrupts_idle=3),
         "CPU 2: 3 interrupts while it was idle, 1,080 per hour (95 %: 223 to 3,156)."),
        (cpu(2, row("timer", 3), interrupts_idle=2),
         "CPU 2: 3 interrupts (2 while it was idle), 1,080 per hour (95 %: 223 to 3,156)."),
        (cpu(2, interrupts_idle=2), "CPU 2: 0 interrupts in 10 s (which allows up to 1,078 per hour at 95 %)."),
        (cpu(2, row("timer", 3), interrupts_per_hour=None, seconds=0.25),
         "CPU 2: 3 interrupts in 250 ms, too short for a rate."),
        (cpu(2, row("timer", 3), interrupts_per_hour=None, seconds=0.0), "CPU 2: 3 interrupts."),
        (cpu(2, row("timer", 3), gaps=GAPS),
         "CPU 2: 3 interrupts, 1,080 per hour (95 %: 223 to 3,156); quiet for 2.5 ms in the median, 1.5 s at longest (from "
         "12.346)."),
    ],
)  # fmt: skip
def test_the_line_of_a_cpu(one: dict[str, Any], said: str) -> None:
    assert explained._cpu_head(one) == said


def test_parts_name_the_first_of_whom_and_what_it_ran_through() -> None:
    names = {"kworker/2:1": 2.0, "kworker/2:2": 1.0}
    mine = cpu(
        2, row("kworker", 5, 1, 2, 3, by=names, via=["f"]), row("wakeup", 3), row("signal", 2), row("timer", 1, by={}),
        initiators=[asked("wakeup", 1, in_interrupt=True), asked("signal", 3), asked("signal", 1, "cat")],
    )  # fmt: skip
    assert explained._parts([mine], interference([mine]), report(mine)) == [
        "5x kernel worker (kworker/2:1 67% and others through f), 5 ms",
        "3x remote wakeup",
        "2x signal to a running task (bash 75% and others)",
        "1 other",
    ]


def test_what_would_help_is_told_of_the_eight_that_took_most() -> None:
    names = (
        "vmalloc_purge",
        "set_memory",
        "text_sync",
        "kernel_flush_unknown",
        "timer",
        "kworker",
        "softirq",
        "nmi",
    )
    rows = [row(name, 12 - i, 1, 2, 3) for i, name in enumerate(names)] + [row("smi", 1000), row("device", 4)]
    mine = cpu(2, *rows)
    made = report(mine, policies=[OTHER, policy(3, 7)])
    lines = explained._helps(trace(made), [mine], made)
    heads = [line.strip() for line in lines if line[:4].strip().rstrip(".").isdigit()]
    assert lines[:2] == ["", "What would help, worst first by time taken (effects predicted from this trace)"]
    # 68 ms in all; 12 + 11 + ... + 5 and 1,004 without a length are 1,072.
    assert heads[0].startswith(
        "1. lazy vmalloc purge (12 of 1,072; 18 % of the time taken): freed vmalloc areas"
    )
    assert heads[7].startswith("8. non-maskable interrupt (5 of 1,072; 7.4 % of the time taken): ")
    assert len(heads) == 8
    text = joined(lines)
    assert text.endswith(" And: firmware or hypervisor (SMI, stolen time) 1,000, device interrupt 4.")
    for said in (
        "Deferrable (vmap leaves are cleared without freeing page-table pages (v7 30/31)): coalesce-v7-fixed would defer "
        "3 to 7 of the calls of class purge.",
        "Not deferrable: cpa_flush stays immediate in every version of the series.",
        "Deferrable by the text-patching half of the series only: v7 25/31 defers do_sync_core",
        "Deferrable or not, that is open: depends on the caller.",
    ):
        assert said in text
    assert text.count("eferrable") == 4
    for words in ("Effect: without it", "Helps: "):
        assert text.count(words) >= 8
    for other in ("aarch64", "riscv64"):
        made["architecture"] = other
        assert "eferrable" not in joined(explained._helps(trace(made), [mine], made))
    few = cpu(2, *[row(name, 1) for name in names], seconds=0.5)
    lines = explained._helps(trace(report(few)), [few], report(few))
    assert lines[1] == "What would help, worst first by number (effects predicted from this trace)"
    assert (
        "  1. kernel flush, caller unknown (1 of 8): some kernel mapping changed; the trace does not say"
        in lines
    )
    assert not any("And: " in line or "Effect" in line or "of the time" in line for line in lines)
    assert "Deferrable (" not in joined(lines), "without its policy nothing is said of it"
    unknown = policy(1, 1) | {"deferred_by_class": {}}
    made = report(few, policies=[unknown])
    assert "would defer 0 of the calls of class purge" in joined(explained._helps(trace(made), [few], made))
    assert explained._helps(trace(report(cpu(2))), [cpu(2)], report(cpu(2))) == []


@pytest.mark.parametrize(
    ("changes", "architecture", "deferrable"),
    [
        ({"calls_by_class": {"purge": 1}}, "x86_64", True),
        ({"calls_by_class": {"unknown": 1}}, "x86_64", True),
        ({"calls_by_class": {"other": 1, "user": 2}}, "x86_64", False),
        ({"interrupts_by_cause": {"timer": 1, "set_memory": 1}}, "x86_64", True),
        ({"interrupts_by_cause": {"call_unknown": 1}}, "x86_64", True),
        ({"interrupts_by_cause": {"timer": 1}}, "x86_64", False),
        ({"calls_by_class": {"purge": 1}}, "aarch64", False),
        ({"calls_by_class": {"purge": 1}}, "riscv64", False),
    ],
)
def test_other_policies_are_shown_where_one_could_change_anything(
    changes: dict[str, Any], architecture: str, deferrable: bool
) -> None:
    cpus = [cpu(2), cpu(3, **changes)]
    made = report(*cpus, architecture=architecture, policies=[policy(1, 2)])
    assert explained._deferrable(cpus, made) is deferrable
    text = explained.explain_text(trace(made), [])
    assert ("Under other policies" in text) is deferrable


def test_a_report_has_its_parts_in_order_and_what_the_trace_cannot_say_last() -> None:
    cpus = [cpu(i, row("timer", 3), entries=i) for i in (2, 3, 4)]
    missing = [{"question": "who", "because": "no events"}, {"question": "x " * 50, "because": "y"}]
    parts = explained.explain_text(trace(report(*cpus)), missing).split("\n\n")
    heads = [part.split("\n")[0] for part in parts]
    assert heads == [
        "r.txt",
        "In short",
        "What took the isolated CPUs from their tasks (measured; most time first)",
        "What would help, worst first by number (effects predicted from this trace)",
        "What this trace cannot say",
    ]
    assert parts[2].split("\n")[-3:] == [
        f"    CPU {i}: 3 interrupts, 1,080 per hour (95 %: 223 to 3,156); {i} kernel entries."
        for i in (2, 3, 4)
    ]
    assert parts[4].split("\n") == [
        "What this trace cannot say",
        "  - who: no events.",
        "  - " + " ".join("x" * 48),
        "    x x : y.",
    ]
    two = explained.explain_text(trace(report(*cpus[:2])), [])
    assert [line for line in two.split("\n") if line.startswith("  CPU ") and "entries" in line] == [
        f"  CPU {i}: 3 interrupts, 1,080 per hour (95 %: 223 to 3,156); {i} kernel entries." for i in (2, 3)
    ]
    nobody = explained.explain_text(trace(report(), isolated=()), missing[:1])
    assert [part.split("\n")[0] for part in nobody.split("\n\n")] == ["r.txt", "What this trace cannot say"]
