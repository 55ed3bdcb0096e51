# ruff: noqa: E501  # reports stand as they are said
"""The smaller parts of reports about recordings, of made-up figures: sections, remedies, three lines, comparisons."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_explained import ALL, NO_PURGES, asked, cpu, in_short, joined, knowledge, report, row, trace

import tlbcore as tc
from tlbcore._output import width
from tlbcore.trace.report import sections
from tlbcore.trace.report.compared import comparison_rows, comparison_text
from tlbcore.trace.report.remedies import applies, effect, helps, kernel_of
from tlbcore.trace.report.short import _line, short, short_of_shootdowns

nan = math.nan


def test_what_was_sent_to_a_cpu_is_told_where_its_interrupts_are_not_recorded() -> None:
    sent = [
        asked("wakeup", 1234),
        asked("signal", 2, "x", in_interrupt=True),
        *(asked("membarrier", i, "y") for i in range(9, 4, -1)),
    ]
    assert joined(
        sections.sent([cpu(2, interrupts=None, sent=sent), cpu(3, sent=sent), cpu(4, interrupts=None)])
    ) == (
        "Sent to CPU 2: 1,234 remote wakeup (bash); 2 signal to a running task (a timer or interrupt there); 9 membarrier "
        "system call (y); 8 membarrier system call (y); 7 membarrier system call (y); 6 membarrier system call (y). Whether "
        "and when they arrived is not recorded."
    )


def test_latencies_and_noise_have_a_row_each_and_a_dash_for_what_was_not_printed() -> None:
    known = {"context": "irq", "n": 1000, "p50_us": 1.5, "mean_us": 2.5, "max_us": 3500.0}
    blank = {"context": "thread", "n": None, "p50_us": None, "mean_us": None, "max_us": 4.0}
    assert sections.latencies([cpu(2, latencies=[known, blank]), cpu(13, latencies=[known]), cpu(4)]) == [
        "",
        "How late timerlat's interrupt and thread were (measured)",
        "  CPU  latency of      n     p50    mean  max",
        "    2  irq         1,000  1.5 us  2.5 us  3.5 ms",
        "    2  thread          -       -       -  4 us",
        "   13  irq         1,000  1.5 us  2.5 us  3.5 ms",
    ]
    assert sections.latencies([cpu(2)]) == []
    noise = [
        {
            "kind": "irq",
            "n": 9 - i,
            "p50_us": 1,
            "p95_us": 20,
            "max_us": 300,
            "total_ms": 4.0,
            "name": f"n{i}",
        }
        for i in range(7)
    ]
    assert sections.noise([cpu(2, noise=noise[:1]), cpu(3), cpu(13, noise=noise)]) == [
        "",
        "Soft interrupts, threads and osnoise events (measured)",
        "  CPU  kind  n        p50/p95/max  in all  what",
        "    2  irq   9  1 us/20 us/300 us    4 ms  n0",
        *(f"   13  irq   {9 - i}  1 us/20 us/300 us    4 ms  n{i}" for i in range(6)),
    ]
    assert sections.noise([cpu(2)]) == []


def sending(**changes: Any) -> Any:
    """Return calls of f from CPU 0 to 2 and 3, and one of unknown sender; waits of 100, 200 and 300 us, one of g of 1 ms."""
    calls = {
        "sender_cpu": [0, 0, 0, -1, 10], "cpu": [2, 2, 3, 3, 2], "function": ["f", "f", "f", "f", "g"],
        "queued_s": [1.0, 1.0, 1.0, nan, 2.0], "ran_s": [1.0001, 1.0002, 1.0003, 4.0, 2.001],
    } | changes  # fmt: skip
    return trace(report(calls_not_kept=0), calls={name: np.array(values) for name, values in calls.items()})


def test_who_sent_what_to_whom_and_how_long_that_waited() -> None:
    made = sending()
    assert sections.senders(made) == [
        "",
        "Calls by sending and isolated CPU (measured)",
        "  from     to 2  to 3  in all",
        "  unknown     0     1  1",
        "  CPU 0       2     1  3",
        "  CPU 10      1     0  1",
        "  What senders waited for, from queueing to running:",
        "    f: p50 / p95 / max 200 us / 290 us / 300 us over 3 calls",
        "    g: p50 / p95 / max 1 ms / 1 ms / 1 ms over 1 call",
    ]
    made.figures["report"]["calls_not_kept"] = 1234
    assert sections.senders(made)[1] == (
        "Calls by sending and isolated CPU (measured, of the first 5 calls: 1,234 more are counted above)"
    )
    unknown = sending(queued_s=[nan] * 5)
    assert not any("waited" in line for line in sections.senders(unknown))
    assert sections.senders(sending(sender_cpu=[], cpu=[], function=[], queued_s=[], ran_s=[])) == []
    for targets, lines in ((12, 2 + 1 + 1 + 2), (13, 2 + 2)):
        n = {"sender_cpu": [0] * targets, "cpu": list(range(targets)), "function": ["f"] * targets}
        many = sending(**n, queued_s=[1.0] * targets, ran_s=[1.5] * targets)
        assert len(sections.senders(many)) == lines, "with more than twelve there is no matrix"


def over_time(counts: list[int], **bursts: Any) -> dict[str, Any]:
    return cpu(2, timeline={"counts": counts, "step_s": 0.5}, bursts={"n": 0} | bursts)


def test_bars_over_time_are_eighths_of_the_highest_and_never_none_for_one() -> None:
    assert sections.when([over_time([0, 1, 2, 8, 16, 1, 0, 0]), cpu(3)]) == [
        "",
        "When (interrupts over the recording, each CPU on its own scale)",
        "  CPU 2  | ▁▁▄█▁| 500 ms each, at most 16",
    ]
    assert sections.when([over_time([0, 0])]) == []
    with width.fitted(40):  # four columns of bars
        assert sections.when([over_time([1, 2, 0, 0, 5, 0, 0])])[2] == "  CPU 2  |▅ █| 1 s each, at most 5"
        assert sections.when([over_time([1, 1, 1, 1])])[2] == "  CPU 2  |████| 500 ms each, at most 1"
        assert sections.when([over_time([1] * 9)])[2] == "  CPU 2  |██▂| 2 s each, at most 4"
    burst = over_time([1], n=1, largest=1234, largest_at_s=5.4321)
    assert joined(sections.when([burst])[3:]) == (
        "1 burst (three or more within 10 ms of each other); the largest has 1,234 interrupts, at 5.432."
    )
    assert len(sections.when([over_time([1])] * 17)) == 2 + 16, "sixteen CPUs have a line"


def test_calls_are_told_by_function_and_class() -> None:
    two = cpu(2, calls_by_function={"f": 1, "g": 2}, calls_by_class={"user": 1, "purge": 2})
    more = cpu(
        3, calls_by_function={"f": 1000}, implied_calls_by_function={"h": 3}, calls_by_class={"user": 1000}
    )
    assert joined(sections.calls([two, more])) == (
        "Remote calls executed there: f 1,001, g 2, h 3 (implied). By class: user 1,001, purge 2. One interrupt may run "
        "several."
    )
    assert joined(sections.calls([cpu(2, implied_calls_by_function={"h": 3})])).startswith(
        "Remote calls executed there: h 3 (implied). "
    )
    assert sections.calls([cpu(2)]) == []


@pytest.mark.parametrize(
    ("calls", "everything", "forks", "said"),
    [
        (0, 0, 9, ""),
        (
            3,
            0,
            1,
            "Kernel-range flushes in all: 3 flush_tlb_kernel_range (1 full, 2 of at most 33 pages) and 0 flush_tlb_all; 1 fork.",
        ),
        (
            0,
            4,
            2,
            "Kernel-range flushes in all: 0 flush_tlb_kernel_range (1 full, 2 of at most 33 pages) and 4 flush_tlb_all; 2 forks.",
        ),
    ],
)
def test_flushes_of_kernel_ranges_are_counted(calls: int, everything: int, forks: int, said: str) -> None:
    ranges = {"calls": calls, "full": 1, "ranged": 2}
    made = report(flush_tlb_kernel_range=ranges, flush_tlb_all=everything, forks=forks)
    assert joined(sections.flushes(made)) == said


def owner(comm: str, areas: int, stacks: int = 0) -> dict[str, Any]:
    return {"comm": comm, "areas": areas, "stacks": stacks}


OWNERS = [
    owner("sh", 50, 50),
    owner("cat", 20, 5),
    owner("dd", 10),
    owner("ls", 8),
    owner("a", 1),
    owner("b", 1),
]
FOUND = NO_PURGES | {"events": 9, "effective": 3, "empty": 2}
PURGED = FOUND | {"charged": OWNERS, "unknown_areas": 10}


@pytest.mark.parametrize(
    ("purges", "more", "said"),
    [
        (NO_PURGES, {}, ""),
        (NO_PURGES | {"events": 1}, {}, "1 lazy vmalloc purge was entered; no event says what was found."),
        (NO_PURGES | {"events": 1234}, {}, "1,234 lazy vmalloc purges were entered; no event says what was found."),
        (FOUND | {"effective": 1}, {}, "1 lazy vmalloc purge flushed, 2 found nothing."),
        (FOUND | {"effective": 0}, {}, "0 lazy vmalloc purges flushed, 2 found nothing."),
        (
            PURGED, {},
            "3 lazy vmalloc purges flushed, 2 found nothing. They handed back 100 areas, charged to the tasks that allocated "
            "them: sh 50.0% (50, all kernel stacks), cat 20.0% (20, 25% kernel stacks), dd 10.0% (10, 0% kernel stacks), ls "
            "8.0% (8, 0% kernel stacks), 2 others, unknown 10.0% (10, allocated before the recording). The kworker that runs "
            "a purge is not its cause.",
        ),
        (
            FOUND | {"charged": OWNERS[:4], "cgroups": [owner("/a", 60), owner("/b", 20)]},
            {"has_cgroups": True, "nr_lazy_max": 24576},
            "3 lazy vmalloc purges flushed, 2 found nothing. They handed back 88 areas, charged to the tasks that allocated "
            "them: sh 56.8% (50, all kernel stacks), cat 22.7% (20, 25% kernel stacks), dd 11.4% (10, 0% kernel stacks), ls "
            "9.1% (8, 0% kernel stacks). The kworker that runs a purge is not its cause. By control group: /a 68%, /b 23%, "
            "not told 9%. The lazy list holds 24,576 pages before a purge (lazy_max_pages), or 4,915 kernel stacks of 16 KiB.",
        ),
        (
            FOUND | {"charged": OWNERS[:5]}, {},
            "3 lazy vmalloc purges flushed, 2 found nothing. They handed back 89 areas, charged to the tasks that allocated "
            "them: sh 56.2% (50, all kernel stacks), cat 22.5% (20, 25% kernel stacks), dd 11.2% (10, 0% kernel stacks), ls "
            "9.0% (8, 0% kernel stacks), 1 other. The kworker that runs a purge is not its cause.",
        ),
        (
            FOUND | {"charged": [owner("sh", 1)]}, {},
            "3 lazy vmalloc purges flushed, 2 found nothing. They handed back 1 area, charged to the tasks that allocated "
            "them: sh 100.0% (1, 0% kernel stacks). The kworker that runs a purge is not its cause.",
        ),
    ],
)  # fmt: skip
def test_purges_are_charged_to_those_who_allocated(
    purges: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    made = report(purges=purges, **({"has_cgroups": False, "nr_lazy_max": None} | more))
    assert joined(sections.purges(made)) == said


# What helps.


@pytest.mark.parametrize(
    ("notes", "version"),
    [
        ([("version", "Linux version 6.12.3-x (a)")], (6, 12)), ([("version", "x"), ("version", "7.1")], (7, 1)),
        ([("cmdline", "6.1")], None), ([("version", "none")], None), ([], None),
    ],
)  # fmt: skip
def test_the_kernel_of_a_recording_is_that_of_its_notes(notes: list[tuple[str, str]], version: Any) -> None:
    assert kernel_of(SimpleNamespace(figures={"notes": notes})) == version  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kernels", "those"),
    [
        ("any", "5.4 6.7 6.8 7.2 7.3"),
        ("6.8-7.2", "6.8 7.2"),
        ("7.2-", "7.2 7.3"),
        ("5.4-6.8", "5.4 6.7 6.8"),
        ("6.8.1-", "6.8 7.2 7.3"),
    ],
)
def test_a_range_of_kernels_has_both_its_ends(kernels: str, those: str) -> None:
    every = [(5, 4), (6, 7), (6, 8), (7, 2), (7, 3)]
    assert " ".join(f"{a}.{b}" for a, b in every if applies(kernels, (a, b))) == those


@pytest.mark.parametrize(
    ("cause", "notes", "architecture", "said"),
    [
        ("x", [], "x86_64", ["Helps: h.", "Helps: on x86.", "On 6.8-7.2: old.", "On 7.3-: new."]),
        ("x", [("version", "7.3")], "aarch64", ["Helps: h.", "On this kernel (7.3): new."]),
        ("x", [("version", "6.8")], "riscv64", ["Helps: h.", "On this kernel (6.8): old."]),
        ("x", [("version", "6.1"), ("cmdline", "quiet")], "x86_64", ["Helps: h.", "Helps: on x86."]),
        *((cause, [("version", "6.1"), ("cmdline", "quiet")], "x86_64",
           ["Helps: h.", "This machine runs without nohz_full=: its tick runs while a task does.", "Helps: on x86."])
          for cause in ("timer", "scheduler_tick")),
        ("timer", [("version", "6.1"), ("cmdline", "nohz_full=2")], "x86_64", ["Helps: h.", "Helps: on x86."]),
        ("timer", [("version", "6.1")], "x86_64", ["Helps: h.", "Helps: on x86."]),
    ],
)  # fmt: skip
def test_advice_is_that_for_the_kernel_and_the_machine(
    cause: str, notes: list[tuple[str, str]], architecture: str, said: list[str]
) -> None:
    entry: Any = SimpleNamespace(
        id=cause, helps="h", remedies=(("x86", "on x86"), ("6.8-7.2", "old"), ("7.3-", "new"))
    )
    made = SimpleNamespace(figures={"notes": notes, "report": {"architecture": architecture}})
    assert helps(entry, made) == said  # type: ignore[arg-type]


def test_an_effect_is_what_would_be_left_and_what_goes_with_it() -> None:
    """20 s of two CPUs: 10 interruptions are 1,800 an hour, without the 4 kicks 1,080, without the 3 ticks after them 540.

    They took 20 ms, 0.1 %: the kicks 4 ms, the ticks 3 ms.
    """
    mine = [
        cpu(2, row("nohz_kick", 4, 1, 1, 1), row("device", 3, 1, 1, 1, total_ms=13.0)),
        cpu(3, row("tick_kept", 3, 1, 1, 1), row("nmi", 0)),
    ]
    assert effect("nohz_kick", mine) == (
        "Effect: without it 1,080 interruptions per hour and CPU instead of 1,800, 0.08 % of the time instead of 0.1 %; down "
        "to 540 and 0.065 % if all of tick_kept goes with it."
    )
    assert effect("nmi", mine) == (
        "Effect: without it 1,800 interruptions per hour and CPU instead of 1,800, 0.1 % of the time as before."
    )
    two_in_seven = cpu(2, row("timer", 2), seconds=7.0)  # 1,028.6 per hour
    assert "instead of 1,029." in effect("timer", [two_in_seven])
    untimed = [
        cpu(
            2,
            row("dl_server", 1),
            row("nohz_kick", 2),
            row("tick_kept", 3),
            knowledge=knowledge(ALL - {"tasks"}),
        )
    ]
    assert effect("dl_server", untimed) == (
        "Effect: without it 1,800 interruptions per hour and CPU instead of 2,160, of what was recorded; down to 0 if all of "
        "nohz_kick and tick_kept goes with it."
    )
    assert effect("timer", [cpu(2, row("timer", 1), seconds=0.999)]) == ""
    assert (
        effect("timer", [cpu(2, row("timer", 1), seconds=1.0)])
        == "Effect: without it 0 interruptions per hour and CPU instead of 3,600."
    )
    for kind, part in (
        ("calls", True),
        ("timers", True),
        ("softirqs", True),
        ("nmis", False),
        ("devices", False),
    ):
        some = [cpu(2, row("timer", 1), knowledge=knowledge(ALL - {kind}))]
        assert (", of what was recorded" in effect("timer", some)) is part
        some[0]["knowledge"][kind]["state"] = "in_part"
        assert ", of what was recorded" not in effect("timer", some)


# Three lines.


def explained(*cpus: dict[str, Any], missing: tuple[str, ...] = (), **changes: Any) -> Any:
    gaps = [{"question": question, "because": "x"} for question in missing]
    return SimpleNamespace(trace=trace(report(*cpus), **changes), missing=gaps)


LONGEST = {"us": 300.0, "cause": "timer", "by": ""}


@pytest.mark.parametrize(
    ("cpus", "changes", "said"),
    [
        ([cpu(2, row("timer", 3, 1, 1, 1), longest=LONGEST)], {},
         "CPU 2, 10 s, 3 interrupts (1,080 per hour), 0.03 % of the time taken, longest 300 us"),
        ([cpu(2, row("timer", 1, 1, 1, 1)), cpu(3, longest=LONGEST | {"us": 5.0})], {},
         "CPUs 2-3, 10 s, 1 interrupt (180 per hour and CPU), 0.005 % of the time taken, longest 5 us"),
        ([cpu(2, seconds=0.5)], {"seconds": 0.0}, "CPU 2, 0 interrupts, 0 % of the time taken"),
        ([cpu(2, row("timer", 2), interrupts_idle=1, taken_ms=0.0)], {}, "CPU 2, 10 s, 2 interrupts (720 per hour), while idle"),
        ([cpu(2, interrupts=None, taken_ms=None)], {}, "CPU 2, 10 s, interrupts not recorded"),
        ([cpu(2, row("timer", 4), taken_ms=None), cpu(3, interrupts=None, taken_ms=1.0)], {},
         "CPUs 2-3, 10 s, 4 interrupts (1,440 per hour), at least 0.005 % of the time taken"),
        ([cpu(2, row("timer", 4), taken_ms=None), cpu(3)], {}, "CPUs 2-3, 10 s, 4 interrupts (720 per hour and CPU)"),
        ([cpu(2, seconds=0.0)], {}, "CPU 2, 10 s, 0 interrupts"),
        ([cpu(2, seconds=1.0), cpu(3, seconds=0.9)], {}, "CPUs 2-3, 10 s, 0 interrupts, 0 % of the time taken"),
        ([cpu(2, seconds=1.0), cpu(3, seconds=1.0)], {},
         "CPUs 2-3, 10 s, 0 interrupts (0 per hour and CPU), 0 % of the time taken"),
    ],
)  # fmt: skip
def test_the_first_line_is_how_much(cpus: list[dict[str, Any]], changes: dict[str, Any], said: str) -> None:
    assert short(explained(*cpus, **changes)).split("\n")[0] == said


def test_a_share_is_the_least_where_a_length_is_not_recorded() -> None:
    said = in_short(cpu(2, row("timer", 2, 1, 1, 1), row("device", 3), seconds=0.5))
    assert said.startswith("CPU 2: at least 2 ms of 500 ms taken from its task")
    sums = cpu(2, row("timer", 2, 1, 1, 1), row("device", 3), sums={"periods": 1})
    assert in_short(sums).startswith("CPU 2: 0.02 % of the time (2 ms of 10 s) taken"), (
        "osnoise measures the sum"
    )


def test_the_second_line_is_by_what_and_the_third_what_helps_against_the_first() -> None:
    mine = cpu(
        2,
        row("timer", 3, 1, 1, 1),
        row("wakeup", 4),
        initiators=[asked("timer", 1, "a"), asked("wakeup", 1, "b")],
    )
    _, why, following = short(explained(mine)).split("\n")
    assert why == "by: 3x timer interrupt (a), 3 ms; 4x remote wakeup"
    assert following.startswith(f"next: {tc.causes['timer'].helps.split('; ')[0]}")
    long = cpu(2, row("timer", 3, 1, 1, 1), initiators=[asked("timer", 1, "x" * 80)])
    assert short(explained(long)).split("\n")[1] == "by: 3x timer interrupt, 3 ms", (
        "who does not fit is left out"
    )
    named = cpu(2, row("timer", 3, 1, 1, 1), initiators=[asked("timer", 1, "x" * 49)])
    for columns, who in (
        (80, f" ({'x' * 49})"),
        (79, ""),
    ):  # 4 for "by: ", 18 for the cause, 52 for who, 6 for the time
        with width.fitted(columns):
            assert short(explained(named)).split("\n")[1] == f"by: 3x timer interrupt{who}, 3 ms"
    bracketed = cpu(2, row("timer", 3, 1, 1, 1), initiators=[asked("timer", 1, "(" + "x" * 49)])
    with width.fitted(80):
        assert short(explained(bracketed)).split("\n")[1] == "by: 3x timer interrupt, 3 ms", (
            "whatever the name is"
        )
    quiet = explained(cpu(2), missing=("who", "why"))
    assert short(quiet).split("\n")[1:] == ["by: nothing that was recorded", "not recorded: who; why"]
    assert short(explained(cpu(2))).split("\n")[2] == "next: nothing to do"
    assert short(explained(isolated=(), events=1)) == (
        "1 event, which CPUs are isolated is not known\nby: not known\nnext: name them with --isolated"
    )


@pytest.mark.parametrize(
    ("said", "sep", "line"),
    [
        (["a" * 40, "b" * 58, "c"], ", ", f"{'a' * 40}, {'b' * 58}"),
        (["a" * 40, "b" * 59, "c"], ", ", f"{'a' * 40}, c"),
        ([f"{'a' * 50}, {'b' * 20}, {'c' * 26}"], "; ", f"{'a' * 50}, {'b' * 20}, {'c' * 26}"),
        ([f"{'a' * 50}, {'b' * 20}, {'c' * 27}"], "; ", f"{'a' * 50}, {'b' * 20}"),
        ([f"{'a' * 50}, {'b' * 20}, {'c' * 27}"], ", ", f"{'a' * 50}, {'b' * 20}, {'c' * 27}"),
        ([f"{'a' * 96} (b)"], "; ", f"{'a' * 96} (b)"),
        ([f"{'a' * 97} (b)"], "; ", "a" * 97),
        (["a" * 101, "b"], "; ", "a" * 101),
    ],
)
def test_a_line_has_the_clauses_that_fit_a_hundred_columns(said: list[str], sep: str, line: str) -> None:
    assert _line(said, sep=sep) == line


def test_three_lines_on_shootdowns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlbcore.trace.report.shootdowns.sentence", lambda s: f"{s.seconds} s: that is it.")
    sites = {"flushes": np.array([1, 0]), "shootdowns": np.array([1000, 234]), "calls": np.array([1, 0])}
    made: Any = SimpleNamespace(call_sites=sites, process=None, seconds=2.5, missing=[])
    assert short_of_shootdowns(made).split("\n") == [
        "all processes, 2.5 s, 1 flush, 1,234 asked other CPUs, 1 remote call", "2.5 s: that is it",
        "not recorded: nothing of this question",
    ]  # fmt: skip
    made.process, made.missing = "db", [{"question": "a"}, {"question": "b"}]
    sites["flushes"] += 1
    assert short_of_shootdowns(made).startswith("db, 2.5 s, 3 flushes, ")
    assert short_of_shootdowns(made).endswith("\nnot recorded: a; b")


# Before and after.


def recorded(
    *cpus: dict[str, Any], notes: tuple[tuple[str, str], ...] = (), snapshots: int = 0, path: str = "r"
) -> Any:
    made = trace(report(*cpus, snapshots=snapshots), path=path)
    made.figures["notes"] = list(notes)
    return SimpleNamespace(trace=made)


def test_rates_are_per_cpu_and_the_ratio_is_of_the_last_by_the_first() -> None:
    """10 in 10 s and 40 in 10 s: 3,600 and 14,400 per hour, four times as many, 1.966 to 8.970 at 95 %."""
    first = recorded(cpu(2, row("timer", 6)), cpu(3, row("timer", 4), row("device", 0), row("kworker", 1)))
    last = recorded(cpu(2, row("timer", 40), seconds=20.0))
    every = {one["cause"]: one for one in comparison_rows([first, recorded(cpu(2)), last])}
    assert list(every) == ["all", "device", "kworker", "timer"]
    timer = every["timer"]
    assert [(t["n"], t["seconds"], t["per_hour"]) for t in timer["traces"]] == [
        (10, 20.0, 1800.0),
        (0, 10.0, 0.0),
        (40, 20.0, 7200.0),
    ]
    assert (timer["traces"][0]["low"], timer["traces"][0]["high"]) == pytest.approx(
        (4.795388696 * 180, 18.39035604 * 180)
    )
    assert (timer["ratio"], timer["change"]) == (4.0, "more")
    assert (timer["ratio_low"], timer["ratio_high"]) == pytest.approx((1.96574761, 8.96986732))
    assert every["all"] == {**timer, "cause": "all"}
    assert every["kworker"]["ratio"] == 0.0
    assert every["device"] | {"traces": []} == {
        "cause": "device", "traces": [], "interrupts": True, "ratio": None, "ratio_low": 0.0, "ratio_high": None, "change": "unclear",
    }  # fmt: skip
    assert [one["interrupts"] for one in every.values()] == [True, True, False, True]
    (even, _) = comparison_rows([recorded(cpu(2, row("timer", 100)))] * 2)  # from 0.75 to 1.33 times as many
    assert (even["ratio"], even["change"]) == (1.0, "unclear")
    assert [one["change"] for one in comparison_rows([last, first])] == [
        "fewer",
        "unclear",
        "unclear",
        "fewer",
    ]


@pytest.mark.parametrize(
    ("cause", "changes", "known"),
    [
        ("timer", {"interrupts_known": "not_recorded", "interrupts": None}, False),
        ("timer", {"interrupts_known": "in_part"}, True),
        ("timer", {"knowledge": knowledge(frozenset())}, True),
        *((cause, {"knowledge": knowledge(ALL - {kind})}, False)
          for cause, kind in (("kworker", "tasks"), ("softirq", "softirqs"), ("nmi", "nmis"), ("smi", "firmware"))),
        *((cause, {"interrupts_known": "not_recorded", "interrupts": None}, True) for cause in ("kworker", "softirq", "nmi", "smi")),
    ],
)  # fmt: skip
def test_what_one_cpu_cannot_tell_is_not_recorded(cause: str, changes: dict[str, Any], known: bool) -> None:
    first, last = recorded(cpu(2, row(cause, 3)), cpu(3, **changes)), recorded(cpu(2, row(cause, 3)))
    (found,) = (one for one in comparison_rows([first, last]) if one["cause"] == cause)
    assert (found["change"] != "not recorded") is known
    assert (found["traces"][0]["n"] is not None) is known
    nobody = comparison_rows([recorded(), last])[0]
    assert nobody["traces"][0] == dict.fromkeys(("n", "seconds", "per_hour", "low", "high"))
    assert (nobody["change"], nobody["ratio"], nobody["ratio_high"]) == ("not recorded", None, None)


def test_a_comparison_as_text() -> None:
    """2 and 8 in 10 s are 720 and 2,880 per hour, four times as many (0.798 to 38.67); of 0 and 5 there is no ratio."""
    notes = (("version", "6.1"), ("cmdline", "x"))
    first = recorded(cpu(2, row("timer", 2), row("kworker", 1)), notes=notes, path="a")
    blind = {"knowledge": knowledge(ALL - {"tasks"}), "interrupts": 8}
    last = recorded(cpu(2, row("timer", 8), row("device", 5), **blind), notes=(("version", "5.9"),), path="b")
    assert comparison_text([first, last]).split("\n") == [
        "Before and after: per hour and isolated CPU, with 95 % intervals (measured); ratio: last by first",
        "  [1] a",
        "  [2] b",
        "  Mind that these are different kernels: 5.9; 6.1.",
        "             [1]                  [2]    ratio (95 %)  change        cause",
        "  720 (87-2,601)  2,880 (1,243-5,675)      4 (0.8-39)  unclear       all interrupts",
        "     0 (0-1,328)    1,800 (584-4,201)  new (0.92-any)  unclear       device interrupt",
        "   360 (9-2,006)         not recorded               -  not recorded  kernel worker",
        "  720 (87-2,601)  2,880 (1,243-5,675)      4 (0.8-39)  unclear       timer interrupt",
    ]
    brief = recorded(cpu(2, row("timer", 2), seconds=0.5), snapshots=1, notes=notes)
    said = comparison_text([first, brief]).split("\n")
    assert (
        said[3]
        == "  Mind that a flight recorder keeps the interrupted seconds: its rates are not the machine's."
    )
    assert said[5] == "  720 (87-2,601)  2 in all             -  not recorded  all interrupts"
    same = comparison_text([recorded(cpu(2), notes=notes), recorded(cpu(2), notes=notes)])
    assert "Mind" not in same
    assert same.split("\n")[-1] == "  0 (0-1,328)  0 (0-1,328)             -  unclear  all interrupts"


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0.0, "0"),
        (0.0009, "0"),
        (0.001, "0.001"),
        (0.0123, "0.012"),
        (1.0, "1"),
        (12.34, "12"),
        (99.6, "100"),
        (1234.5, "1,234"),
    ],
)
def test_a_ratio_has_two_digits(ratio: float, said: str) -> None:
    from tlbcore.trace.report.compared import _ratio

    assert _ratio(ratio) == said
