"""Tables of tools that print sums: what they tell is told, and what they do not is said to be missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_trace_cli import tlbcore
from test_trace_kinds import explained, irq, line, rows, switch

OSNOISE = """\
                                          Operating System Noise
duration:   0 00:01:00 | time is in us
CPU Period  Runtime  Noise  % CPU Aval  Max Noise  Max Single  HW  NMI  IRQ  Softirq  Thread
  2 #59  53100000  304896  99.42580  6978  56  549  0  53111  1590  13
  3 #59  53100000  0  100.00000  0  0  0  0  0  0  0
"""
TRACER = """\
# tracer: osnoise
#
#  TASK-PID  CPU# ||||  TIMESTAMP  IN US  IN US  AVAILABLE  IN US  HW  NMI  IRQ  SIRQ THREAD
           <...>-859  [002] ....  81.637220: 1000000  190  99.98100  9  18  0  1007  18  1
           <...>-859  [002] ....  82.637220: 1000000  210  99.97900  12  20  0  1003  14  2
"""
PERF = """\
 Performance counter stats for 'system wide':

CPU2                  1,200      irq_vectors:local_timer_entry
CPU3                      0      irq_vectors:local_timer_entry

      60.000000000 seconds time elapsed

"""


def status(tmp_path: Path, text: str, condition: str, isolated: str = "2") -> int:
    path = tmp_path / "text"
    path.write_text(text)
    return tlbcore("explain", str(path), "--isolated", isolated, "--fail-if", condition).returncode


def test_rtla_osnoise_gives_counts_the_time_taken_and_the_longest(tmp_path: Path):
    cpu, shown = explained(tmp_path, OSNOISE)

    assert (cpu["interrupts"], cpu["seconds"]) == (53111, pytest.approx(53.1))
    assert cpu["interrupts_per_hour"] == pytest.approx(53111 * 3600 / 53.1)
    assert cpu["taken_ms"] == pytest.approx(304.896)
    assert cpu["taken_share"] == pytest.approx(0.304896 / 53.1)  # 100 % less the 99.42580 % printed
    assert cpu["longest"] == {"us": 56.0, "at_s": None, "cause": "noise_unnamed", "by": None}
    counts = {cause: (row["kind"], row["n"], row["total_ms"]) for cause, row in rows(cpu).items()}
    assert counts == {
        "interrupt_unnamed": ("interrupt", 53111, None),
        "softirq": ("softirq", 1590, None),
        "smi": ("firmware", 549, None),
        "task_unnamed": ("task", 13, None),
    }
    assert "0.57 % of the time (305 ms of 53.1 s) taken from its task, longest 56 us" in shown
    assert "how long each kind took is not recorded" in shown


def test_a_cpu_without_noise_was_not_interrupted(tmp_path: Path):
    cpu, shown = explained(tmp_path, OSNOISE, isolated="3")

    assert (cpu["interrupts"], cpu["taken_ms"], cpu["interference"]) == (0, 0.0, [])
    assert "CPU 3: not interrupted in 53.1 s" in shown


@pytest.mark.parametrize(
    ("condition", "want"),
    [
        ("taken_ms > 304", 1),
        ("taken_ms > 305", 0),
        ("longest_us > 55", 1),
        ("longest_us > 56", 0),
        ("interrupts > 53110", 1),
        ("kworker > 0", 3),  # 13 threads that have no name
        ("vmalloc_purge > 0", 3),
        ("softirq.ms > 1", 3),
        ("smi == 549", 1),
        ("nmi > 0", 0),
    ],
)
def test_conditions_on_sums_are_decided_only_where_they_can_be(tmp_path: Path, condition: str, want: int):
    assert status(tmp_path, OSNOISE, condition) == want


def test_rows_of_the_tracer_are_added_up_over_the_time_they_measured(tmp_path: Path):
    cpu, _ = explained(tmp_path, TRACER)

    assert (cpu["interrupts"], cpu["seconds"], cpu["taken_ms"]) == (2010, 2.0, pytest.approx(0.4))
    assert {cause: row["n"] for cause, row in rows(cpu).items()} == {
        "interrupt_unnamed": 2010,
        "smi": 38,
        "softirq": 32,
        "task_unnamed": 3,
    }
    assert cpu["sums"] == {
        "periods": 2, "runtime_s": 2.0, "noise_ms": 0.4, "max_period_us": 210.0, "max_single_us": 12.0,
    }  # fmt: skip


def test_rows_count_nothing_where_events_tell_the_same(tmp_path: Path):
    event = line(82.0, "irq_noise: local_timer:236 start 81.999995000 duration 5000 ns", task="osnoise/2-859")

    cpu, _ = explained(tmp_path, TRACER.replace("# tracer", "# x") + event.replace("82.0", "82.7"))

    assert cpu["sums"] is None
    assert cpu["interrupts"] == 1
    assert cpu["taken_ms"] == pytest.approx(0.005)


def test_hardware_noise_says_nothing_of_interrupts(tmp_path: Path):
    text = """\
                                          Hardware-related Noise
duration:   0 00:10:00 | time is in us
CPU Period       Runtime        Noise  % CPU Aval   Max Noise   Max Single          HW          NMI
  2 #599  599000000  138  99.99997  3  3  4  74
"""
    cpu, shown = explained(tmp_path, text)

    assert cpu["interrupts"] is None
    assert {cause: row["n"] for cause, row in rows(cpu).items()} == {"nmi": 74, "smi": 4}
    assert cpu["knowledge"]["calls"]["state"] == "not_recorded"
    assert "Interrupts: not recorded." in shown


def test_latencies_of_rtla_are_told_and_say_nothing_of_interrupts(tmp_path: Path):
    text = """\
                                     Timer Latency
  0 00:00:59   |          IRQ Timer Latency (us)        |         Thread Timer Latency (us)
CPU COUNT      |      cur       min       avg       max |      cur       min       avg       max
  2 #58634     |        1         0         1        10 |       11         2         9        23
"""
    cpu, shown = explained(tmp_path, text)

    assert cpu["interrupts"] is None
    assert cpu["latencies"] == [
        {"context": "irq", "n": 58634, "p50_us": None, "mean_us": 1.0, "max_us": 10.0},
        {"context": "thread", "n": None, "p50_us": None, "mean_us": 9.0, "max_us": 23.0},
    ]
    assert "CPU 2: whether it was interrupted is not recorded" in shown
    assert status(tmp_path, text, "smi == 0") == 2  # nothing that was asked is in it


def test_latencies_of_the_tracer_are_exact(tmp_path: Path):
    text = line(54.0, "#1     context    irq timer_latency       932 ns") + line(
        54.001, "#2     context    irq timer_latency      2833 ns"
    )
    cpu, _ = explained(tmp_path, text)

    (latency,) = cpu["latencies"]
    assert (latency["n"], latency["max_us"]) == (2, 2.833)
    assert latency["mean_us"] == pytest.approx(1.8825)


def test_perf_stat_counts_per_cpu(tmp_path: Path):
    cpu, shown = explained(tmp_path, PERF)

    assert (cpu["interrupts"], cpu["seconds"], cpu["taken_ms"]) == (1200, 60.0, None)
    assert cpu["interrupts_by_cause"] == {"timer": 1200}
    assert cpu["interrupts_per_hour"] == pytest.approx(72_000)
    assert "for how long is not recorded" in shown
    _, quiet = explained(tmp_path, PERF, isolated="3")
    # The timer was counted and nothing else.
    assert "CPU 3: none of what was recorded (timer interrupts) took it in 60 s" in quiet
    assert status(tmp_path, PERF, "timer > 1199") == 1
    assert status(tmp_path, PERF, "interrupts == 0", isolated="3") == 3


def test_hwlat_looks_at_one_cpu_at_a_time(tmp_path: Path):
    text = line(5.0, "#1       inner/outer(us): 2160/1940    ts:1600001212.559595228", flags="d...")

    cpu, _ = explained(tmp_path, text)

    assert cpu["knowledge"]["firmware"]["state"] == "in_part"
    assert status(tmp_path, text, "smi == 0", isolated="4") == 3
    assert status(tmp_path, text, "smi > 0") == 1


def test_a_second_boot_is_not_a_clock_that_steps_back(tmp_path: Path):
    _, shown = explained(tmp_path, irq(500.0, "local_timer", 4) + irq(3.0, "local_timer", 4))

    assert "2 recordings" in shown
    assert "step back" not in shown


def test_a_displaced_task_that_moves_away_is_not_kept_from_its_cpu_any_more(tmp_path: Path):
    text = (
        switch(1.0, "swapper/2-0", "R", "app-7")
        + switch(2.0, "app-7", "R", "kworker/2:1-99")
        + line(
            2.001, "sched_migrate_task: comm=app pid=7 prio=120 orig_cpu=2 dest_cpu=3", task="kworker/2:1-99"
        )
        + switch(2.050, "kworker/2:1-99", "I", "swapper/2-0")
    )
    cpu, _ = explained(tmp_path, text)

    assert rows(cpu)["kworker"]["total_ms"] == pytest.approx(1.0)


def test_the_wakeup_tracer_prints_switches_of_its_own(tmp_path: Path):
    text = (
        line(1.0, "    7:120:R ==> [002]    99:120:R kworker/2:1")
        + line(1.005, "   99:120:I ==> [002]     7:120:R app", task="kworker/2:1-99")
        + line(1.006, "    7:120:R   + [002]   812:  0:R rtapp")
    )
    cpu, _ = explained(tmp_path, text)

    assert rows(cpu)["kworker"]["total_ms"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    "before", ["[  812.200002] ", "[Mon Nov 23 10:00:00 2026] ", "Nov 23 10:00:00 node7 kernel: "]
)
def test_a_dump_of_the_ring_is_found_in_a_kernel_log(tmp_path: Path, before: str):
    ring = [
        "     app-5       2d.h1. 811000000us : local_timer_entry: vector=236",
        "     app-5       2d.h1. 811000004us : local_timer_exit: vector=236",
    ]
    log = ["BUG: kernel NULL pointer dereference", "Oops: 0002 [#1] SMP", "Dumping ftrace buffer:", "-" * 33]
    text = "".join(f"{before}{inner}\n" for inner in (*log, *ring, "-" * 33, "CPU: 2 PID: 5 Comm: app"))

    cpu, shown = explained(tmp_path, text)

    assert (cpu["interrupts"], cpu["handlers"][0]["max_us"]) == (1, 4.0)
    assert "could not be read" not in shown


def test_perf_tools_print_around_the_lines_of_the_kernel(tmp_path: Path):
    text = "Tracing kprobe x. Ctrl-C to end.\n" + irq(1.0, "local_timer", 4) + "^C\nEnding tracing...\n"

    cpu, shown = explained(tmp_path, text)

    assert cpu["interrupts"] == 1
    assert "could not be read" not in shown


@pytest.mark.parametrize(("count", "n"), [(2, 2), (1, 1), (0, None)])
def test_a_histogram_of_rtla_counts_what_it_measured(tmp_path: Path, count: int, n: int | None):
    """A count of none is no count: of what was never measured the tool prints no longest either."""
    text = f"""\
# RTLA timerlat histogram
# Time unit is microseconds (us)
# Duration:   0 00:01:00
Index   IRQ-002   Thr-002
0             1         0
over:         0         0
count:   {count:>6}         0
min:          0         -
avg:          3         -
max:          7         -
"""
    assert explained(tmp_path, text)[0]["latencies"] == [
        {"context": "irq", "n": n, "p50_us": None, "mean_us": 3.0, "max_us": 7.0}
    ]


def test_a_cpu_that_nothing_took_lost_no_time_and_not_minus_none(tmp_path: Path):
    lines = [
        "          <idle>-0       [000] d.h..    10.000000: local_timer_entry: vector=236",
        "          <idle>-0       [000] d.h..    10.000010: local_timer_exit: vector=236",
        "            spin-7       [002] .....    12.500000: sys_enter: NR 0",
    ]
    cpu, _ = explained(tmp_path, "\n".join(lines) + "\n", isolated="2")
    assert str(cpu["taken_ms"]) == "0.0"
