"""What an operator is told is true: each kind of fault of issue 16, on recordings made up for the kind."""

from __future__ import annotations

import json
import lzma
import os
import re
from pathlib import Path

import pytest
from test_trace_cli import DATA, GT, W7, fails, tlbcore

import tlbcore as tc

FOLDER = Path(os.environ.get("TLBCORE_TRACES", Path(__file__).parents[2] / ".." / "shared" / "traces"))
USER = FOLDER / "user"


def line(at: float, event: str, *, cpu: int = 2, task: str = "app-7", flags: str = "d.h..") -> str:
    return f"{task:>23} [{cpu:03}] {flags} {at:12.6f}: {event}\n"


def switch(at: float, prev: str, state: str, following: str, *, cpu: int = 2) -> str:
    def spelled(which: str, task: str) -> str:
        comm, _, pid = task.rpartition("-")
        return f"{which}_comm={comm} {which}_pid={pid} {which}_prio=120"

    body = f"sched_switch: {spelled('prev', prev)} prev_state={state} ==> {spelled('next', following)}"
    return line(at, body, cpu=cpu, task=prev, flags="d....")


def irq(at: float, vector: str, us: float, *, cpu: int = 2, task: str = "app-7") -> str:
    return line(at, f"{vector}_entry: vector=1", cpu=cpu, task=task) + line(
        at + us / 1e6, f"{vector}_exit: vector=1", cpu=cpu, task=task
    )


def explained(tmp_path: Path, text: str, *arguments: str, isolated: str = "2") -> tuple[dict, str]:
    """Return the JSON of a recording's first isolated CPU, and the report in one line."""
    path = tmp_path / "trace.txt"
    path.write_text(text)
    run = tlbcore("explain", str(path), "--isolated", isolated, "--json", *arguments)
    assert run.stdout, run.stderr
    shown = tlbcore("explain", str(path), "--isolated", isolated, *arguments).stdout
    return json.loads(run.stdout)["isolated"][0], " ".join(shown.split())


def rows(cpu: dict) -> dict[str, dict]:
    return {row["cause"]: row for row in cpu["interference"]}


# 1. Everything that takes the CPU from its task.

INTRUDERS = {
    "kworker/2:1-99": "kworker",
    "ksoftirqd/2-21": "ksoftirqd",
    "irq/24-eth0-88": "irq_thread",
    "migration/2-20": "stop_machine",
    "rcuc/2-19": "rcu_thread",
    "kcompactd0-60": "kernel_thread",
    "backup.sh-900": "other_task",
}


@pytest.mark.parametrize(("intruder", "cause"), INTRUDERS.items())
def test_whoever_displaces_the_task_is_interference_in_headline_ranking_longest_and_fail_if(
    tmp_path: Path, intruder: str, cause: str
):
    text = (
        line(1.0, "local_timer_entry: vector=236")
        + line(1.000005, "local_timer_exit: vector=236")
        + switch(2.0, "app-7", "R", intruder)
        + switch(2.05, intruder, "S", "app-7")
        + line(11.0, "user_enter: ")
    )

    cpu, shown = explained(tmp_path, text)

    name = intruder.rpartition("-")[0]
    assert cpu["interference"][0]["cause"] == cause
    assert cpu["interference"][0]["total_ms"] == pytest.approx(50, abs=1e-3)
    assert (cpu["longest"]["cause"], cpu["longest"]["by"]) == (cause, name)
    assert cpu["taken_share"] == pytest.approx(0.005, rel=1e-3)
    headline = shown[shown.index("In short") : shown.index("What took")]
    assert "0.5 % of the time (50 ms of 10 s)" in headline
    assert name in headline
    path = str(tmp_path / "trace.txt")
    for condition in ("taken_ms > 10", "longest_us > 1000", f"{cause} > 0", f"{cause}.ms > 10"):
        run = tlbcore("explain", path, "--isolated", "2", "--fail-if", condition)
        assert run.returncode == 1, (condition, run.stdout[-300:])


def test_a_task_that_left_by_itself_and_an_idle_cpu_are_not_interrupted(tmp_path: Path):
    text = (
        switch(1.0, "app-7", "S", "kworker/2:1-99")  # it sleeps
        + switch(1.5, "kworker/2:1-99", "I", "swapper/2-0")
        + switch(2.0, "swapper/2-0", "R", "kworker/2:1-99")  # an idle CPU has no task
        + switch(2.5, "kworker/2:1-99", "R", "app-7")  # a kernel thread is not what the CPU is for
        + switch(3.0, "app-7", "R", "swapper/2-0")  # it was moved elsewhere
        + line(3.1, "softirq_entry: vec=7 [action=SCHED]", task="<idle>-0", flags="..s..")
        + line(3.2, "softirq_exit: vec=7 [action=SCHED]", task="<idle>-0", flags="..s..")
        + switch(4.0, "swapper/2-0", "R", "app-7")
    )

    cpu, _ = explained(tmp_path, text)

    assert cpu["interference"] == []
    assert cpu["taken_ms"] == 0


def test_what_comes_while_the_cpu_is_taken_counts_and_takes_nothing_more(tmp_path: Path):
    text = (
        switch(1.0, "app-7", "R", "kworker/2:1-99")
        + irq(1.2, "local_timer", 100, task="kworker/2:1-99")
        + switch(1.5, "kworker/2:1-99", "R", "ksoftirqd/2-21")
        + line(1.6, "softirq_entry: vec=1 [action=TIMER]", task="ksoftirqd/2-21")
        + line(1.7, "softirq_exit: vec=1 [action=TIMER]", task="ksoftirqd/2-21")
        + switch(2.0, "ksoftirqd/2-21", "S", "app-7")
        + irq(2.5, "local_timer", 100)
        + line(2.5002, "softirq_entry: vec=1 [action=TIMER]")
        + line(2.5003, "softirq_exit: vec=1 [action=TIMER]")
        + line(3.0, "user_enter: ")
    )

    cpu, _ = explained(tmp_path, text)

    got = {cause: (row["n"], round(row["total_ms"], 6)) for cause, row in rows(cpu).items()}
    assert got == {"kworker": (1, 500), "ksoftirqd": (1, 500), "timer": (2, 0.1), "softirq": (1, 0.1)}
    assert cpu["taken_ms"] == pytest.approx(1000.2)
    assert cpu["taken_share"] <= 1


def test_the_work_item_names_what_a_kernel_worker_did(tmp_path: Path):
    text = (
        switch(1.0, "app-7", "R", "kworker/2:1-99")
        + line(1.0, "workqueue_execute_start: work struct 0: function vmstat_update", task="kworker/2:1-99")
        + switch(1.01, "kworker/2:1-99", "I", "app-7")
        + line(3.0, "user_enter: ")
    )

    cpu, _ = explained(tmp_path, text)

    assert list(rows(cpu)) == ["vmstat"]


# 2. What is not recorded is not zero.

UNKNOWN = {
    "hwlat": line(1.0, "#1       inner/outer(us): 2160/1940    ts:1600001212.559595228"),
    "no vector events": line(1.0, "sched_wakeup: comm=a pid=1 prio=120 target_cpu=002") * 3,
    "function_graph without them": " 2)   0.500 us    |    do_flush_tlb_all();\n" * 3,
    "headers only": "# tracer: nop\n#\n",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_recording_that_cannot_show_interrupts_never_says_there_were_none(tmp_path: Path, name: str):
    path = tmp_path / "trace.txt"
    path.write_text(UNKNOWN[name])

    run = tlbcore("explain", str(path), "--isolated", "2", "--json")
    shown = tlbcore("explain", str(path), "--isolated", "2").stdout

    (cpu,) = json.loads(run.stdout)["isolated"]
    assert (cpu["interrupts"], cpu["interrupts_per_hour"]) == (None, None)
    assert cpu["interrupts_known"] == "not_recorded"
    assert "not interrupted" not in shown
    assert "ot recorded" in shown[shown.index("In short") : shown.index("What took")]
    for condition in ("per_hour > 10", "interrupts == 0", "vmalloc_purge == 0", "longest_us < 1e9"):
        undecided = tlbcore("explain", str(path), "--isolated", "2", "--fail-if", condition)
        assert undecided.returncode in (2, 3), condition  # 2: nothing at all is recorded


def test_a_condition_on_a_figure_that_is_not_recorded_is_exit_3(tmp_path: Path):
    path = tmp_path / "trace.txt"
    path.write_text(irq(1.0, "call_function", 5) + irq(5.0, "reschedule", 5))

    def status(condition: str) -> tuple[int, str]:
        run = tlbcore("explain", str(path), "--isolated", "2", "--fail-if", condition)
        return run.returncode, run.stdout

    assert status("interrupts > 1")[0] == 1  # at least two is more than one
    assert status("interrupts > 5")[0] == 3  # timers are not recorded
    assert "timers (irq_vectors:local_timer" in " ".join(status("interrupts > 5")[1].split())
    assert status("kworker == 0")[0] == 3
    assert status("user_shootdown == 0")[0] == 3  # the call interrupt may have been one


def test_nothing_seen_over_a_window_is_told_with_what_it_still_allows(tmp_path: Path):
    """20 s with no event still allow about 540 per hour (95 %)."""

    def others(at: float) -> str:
        vectors = ("call_function", "reschedule", "local_timer")
        return "".join(irq(at, vector, 3, cpu=0, task="init-1") for vector in vectors)

    cpu, shown = explained(tmp_path, others(0.0) + line(10.0, "user_enter: ") + others(20.0))

    assert (cpu["interrupts"], cpu["interrupts_known"]) == (0, "recorded")
    assert cpu["interrupts_per_hour_95"]["high"] == pytest.approx(3.689 / 20 * 3600, rel=1e-3)
    assert "CPU 2: not interrupted in 20 s, which allows up to 539 per hour at 95 %." in shown
    assert "Not recorded:" in shown


def test_a_silent_cpu_of_a_recording_of_one_other_cpu_is_not_recorded(tmp_path: Path):
    _, shown = explained(tmp_path, irq(1.0, "local_timer", 3) + irq(9.0, "local_timer", 3), isolated="2-3")

    assert "CPU 3: whether it was interrupted is not recorded" in shown


# 3. The unobserved is not asserted.


def test_a_timer_interrupt_is_what_was_recorded_of_it(tmp_path: Path):
    def timer(at: float, function: str = "", stop: str = "") -> str:
        text = line(at, "local_timer_entry: vector=236")
        text += line(at, f"hrtimer_expire_entry: hrtimer=0 function={function} now=1") if function else ""
        text += line(at + 2e-6, "local_timer_exit: vector=236")
        text += line(at + 3e-6, f"tick_stop: success={int(stop == 'NONE')} dependency={stop}") if stop else ""
        return text

    def causes(text: str) -> dict[str, int]:
        return explained(tmp_path, text)[0]["interrupts_by_cause"]

    assert causes(timer(1) + timer(3)) == {"timer": 2}
    assert causes(timer(1, "tick_nohz_handler") + timer(3)) == {"scheduler_tick": 1, "timer": 1}
    assert causes(timer(1, "hrtick") + timer(3, "hrtimer_wakeup/0x0")) == {"hrtick": 1, "hrtimer": 1}
    # A later dependency holds for the tick in front of it, and for those behind until one says otherwise.
    assert causes(timer(1, stop="SCHED") + timer(2) + timer(3, stop="NONE") + timer(4)) == {
        "tick_kept": 3,
        "tick": 1,
    }
    _, shown = explained(tmp_path, timer(1, "hrtimer_wakeup") + timer(3, "hrtimer_wakeup"))
    assert "timer of this CPU (hrtimer_wakeup)" in shown
    _, shown = explained(tmp_path, timer(1) + timer(3))
    assert "the tick was stopped" not in shown
    assert "why the tick was not stopped (its dependency): no tick_stop events" in shown


# 4. Windows.


def test_two_boots_in_one_file_add_their_times(tmp_path: Path):
    boot = irq(100.0, "local_timer", 3) + irq(110.0, "local_timer", 3)
    later = irq(5.0, "local_timer", 3) + irq(15.0, "local_timer", 3)
    header = "# tracer: nop\n#\n"

    for text in (boot + later, header + later + header + boot, header + boot + header + later):
        cpu, shown = explained(tmp_path, text)
        assert cpu["seconds"] == pytest.approx(20, abs=0.01)
        assert cpu["interrupts"] == 4
        assert cpu["gaps"]["longest_s"] < 10.1
        assert "2 recordings one behind the other" in shown


@pytest.mark.parametrize(
    ("cpus", "hinted"),
    [
        ((2, 3), True),
        ((3, 2, 0), True),
        ((2,), False),
        ((2, 2), False),
        ((2, 3, 2), False),
        ((2, (3, 0)), False),
    ],
)
def test_files_of_one_cpu_each_one_behind_the_other_are_merged(
    tmp_path: Path, cpus: tuple[int | tuple[int, ...], ...], hinted: bool
):
    """As `cat per_cpu/cpu*/trace` writes them; whether time goes on or begins anew."""
    for step in (0.0, 100.0):
        text = ""
        for i, ones in enumerate(cpus):
            text += "# tracer: nop\n#\n"
            for at in (1.0 + step * i, 11.0 + step * i):
                for cpu in ones if isinstance(ones, tuple) else (ones,):
                    text += irq(at, "local_timer", 3, cpu=cpu)
        _, shown = explained(tmp_path, text)
        assert ("recordings one behind the other" in shown) is (len(cpus) > 1)
        assert ("Each is of one CPU: per-CPU files of one recording are read as one where" in shown) is hinted


def test_markers_cut_only_when_asked_and_as_often_as_they_come(tmp_path: Path):
    cycles = "".join(
        line(t, f"tracing_mark_write: CYCLE_BEGIN {t}")
        + irq(t + 1, "local_timer", 3)
        + line(t + 2, "tracing_mark_write: CYCLE_END")
        + irq(t + 3, "reschedule", 3)
        for t in (10.0, 20.0)
    )

    whole, _ = explained(tmp_path, cycles)
    inside, shown = explained(tmp_path, cycles, "--between", "CYCLE_BEGIN", "CYCLE_END")

    assert whole["interrupts"] == 4
    assert inside["interrupts_by_vector"] == {"local_timer": 2}
    assert inside["seconds"] == pytest.approx(4)
    assert "between markers" in shown
    fails("begins with 'NO_SUCH'", "explain", str(tmp_path / "trace.txt"), "--between", "NO_SUCH", "X")


def test_a_thread_of_osnoise_counts_once_beside_its_switches(tmp_path: Path):
    noise = line(10.0, "thread_noise: kworker/2:1:77 start 9.500000000 duration 500000000 ns")
    away = switch(9.5, "app-7", "R+", "kworker/2:1-77") + switch(10.0, "kworker/2:1-77", "I", "app-7")
    end = line(11.0, "user_exit: ")

    for text in (noise + end, away + end, away + noise + end):
        cpu, _ = explained(tmp_path, text)
        assert [row["n"] for row in cpu["interference"]] == [1], text
        assert sum(row["total_ms"] for row in cpu["interference"]) == pytest.approx(500)


def test_osnoise_windows_begin_where_what_they_measure_began(tmp_path: Path):
    text = line(10.0, "thread_noise: kworker/2:1:77 start 9.500000000 duration 500000000 ns") + line(
        10.5, "irq_noise: local_timer:236 start 10.499995000 duration 5000 ns"
    )

    cpu, _ = explained(tmp_path, text)

    assert cpu["seconds"] == pytest.approx(1.0)
    assert cpu["taken_share"] == pytest.approx(0.500005, rel=1e-4)


def test_perf_deltatime_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "perf.txt"
    path.write_text(
        "".join(
            f"        app  7 [002]     {d:.6f}: irq_vectors:local_timer_{e}: vector=236\n"
            for d in (0.0, 0.003, 0.001, 0.002, 0.0005, 0.9, 0.1)
            for e in ("entry", "exit")
        )
    )

    fails("--deltatime", "explain", str(path), "--isolated", "2")


# 5. Options of the field's tools.


def plain() -> str:
    return irq(1.0, "local_timer", 5) + irq(2.0, "reschedule", 3) + irq(4.0, "local_timer", 5)


LAYOUTS = (
    "latency", "microseconds", "oops", "oops, caller", "dmesg -T", "journal", "journal, monotonic", "difference",
    "perf", "perf, tasks",
)  # fmt: skip


def laid_out(text: str, option: str) -> str:
    """Write a line of the kernel's text as another tool or option does."""
    match = re.fullmatch(r"\s*(\S+)-(\d+)\s+\[(\d+)\] (\S+)\s+(\d+\.\d+): (\w+): (.*)\n", text)
    assert match, text
    comm, pid, cpu, flags, at, event, body = match.groups()
    us = round(float(at) * 1e6)
    dump = f"{comm:>8.8}-{pid:<7} {int(cpu):3}{flags} {us:4}us : {event}: {body}\n"
    return {
        "oops": f"[  123.456789] {dump}",
        "oops, caller": f"[  123.456789][ T1234] {dump}",
        "dmesg -T": f"[Mon Nov 23 10:00:00 2026] {dump}",
        "journal": f"Nov 23 10:00:00 node7 kernel: {dump}",
        "journal, monotonic": f"[  123.456789] node7 kernel: {dump}",
        "latency": f"{comm:>8.8}-{pid:<5} {int(cpu):3}{flags} {at}: {event}:    {body}\n",
        "microseconds": f"{comm:>8.8}-{pid:<7} {int(cpu):3}{flags} {us:4}us+: {event}: {body}\n",
        "difference": f"{comm:>16}-{pid:<5} [{cpu}] {at}: (+17)   {event}:   {body}\n",
        "perf": f"{':-1':>16} {'-1':>7} [{cpu}] {at}:  irq_vectors:{event}: {body}\n",
        "perf, tasks": f"{comm:>16} {pid:>7} [{cpu}] {at}:  irq_vectors:{event}: {body}\n",
    }[option]


@pytest.mark.parametrize("option", LAYOUTS)
def test_every_layout_of_the_tools_says_the_same(tmp_path: Path, option: str):
    want, _ = explained(tmp_path, plain())

    got, _ = explained(
        tmp_path, "".join(laid_out(text, option) for text in plain().splitlines(keepends=True))
    )

    for key in ("interrupts_by_cause", "interrupts_by_vector", "interrupts", "handlers", "seconds"):
        assert got[key] == want[key], key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "looks like JSON"),
        ("           CPU0       CPU1\n  0:   1 2 timer\n", "--interrupts BEFORE AFTER"),
        ("[00012345678901] (+000000000010) host irq_handler_entry: { cpu_id = 2 }\n", "LTTng"),
        ("Attaching 3 probes...\n@us[2]: 17\n", "bpftrace"),
        ("  Timer Latency\n  0 00:00:01   |   IRQ Timer Latency\n", "rtla"),
        (
            "# RTLA osnoise histogram\n# Duration:   0 00:01:00\nIndex   CPU-000\n0   5\n",
            "rtla osnoise top -q",
        ),
        ("## CPU 7 hit stop tracing, analyzing it ##\n  IRQ latency:  28.13 us\n", "rtla timerlat top"),
        ("timestamp = 10:32:12.1, name = x, stream.packet.context = { cpu_id = 2 }\n", "LTTng"),
        ("     5.000 ( 0.002 ms): app/812 munmap(addr: 0x7f, len: 4096) = 0\n", "perf trace"),
        ("           time    cpu  task name     wait time  sch delay\n", "perf sched script"),
        ("Tracing 4 functions for \"b'smp_call*'\"... Hit Ctrl-C to end.\nFUNC   COUNT\n", "funccount"),
        ("HARDIRQ                    TOTAL_usecs\nnvme0q3      120\n", "summed over all CPUs"),
        (
            " Performance counter stats for 'system wide':\n\n   9      irq_vectors:x_entry\n",
            "perf stat -a -A",
        ),
        ("T: 0 (  812) P:95 I:1000 C:  10000 Min:      2 Act:    3 Avg:    3 Max:      14\n", "cyclictest"),
        ("   app  7  1.500000: irq_vectors:local_timer_entry: vector=236\n", "without its CPU column"),
        (line(1, "local_timer_entry: vector=236").replace("1.000000", "123456"), "counts no time"),
    ],
)
def test_a_known_shape_that_is_not_read_is_refused_with_what_to_do(tmp_path: Path, text: str, message: str):
    path = tmp_path / "input"
    path.write_text(text)

    assert fails(message, "explain", str(path), "--isolated", "2") == ""


def test_one_damaged_line_does_not_make_a_recording_something_else(tmp_path: Path):
    raw = line(3.0, "sched_switch: prev_comm=a prev_pid=1 prev_state=0x1 next_comm=b next_pid=2")

    cpu, _ = explained(tmp_path, plain() + raw + plain().replace("4.000", "9.000"))

    assert cpu["interrupts"] == 6


# 6. Vectors, architectures.


@pytest.mark.parametrize(
    ("event", "vector", "cause"),
    [
        ("x86_platform_ipi", "x86_platform_ipi", "platform_ipi"),
        ("thermal_apic", "other_vector", "other_vector"),
        ("deferred_error_apic", "other_vector", "other_vector"),
        ("irq_work", "irq_work", "irq_work"),
    ],
)
def test_vectors_have_their_own_names(tmp_path: Path, event: str, vector: str, cause: str):
    cpu, _ = explained(tmp_path, irq(1.0, event, 5) + irq(3.0, event, 5))

    assert cpu["interrupts_by_vector"] == {vector: 2}
    assert cpu["interrupts_by_cause"] == {cause: 2}


def test_posted_interrupts_are_no_errors(tmp_path: Path):
    cpu, _ = explained(tmp_path, " 2)   3.000 us    |  sysvec_kvm_posted_intr_wakeup_ipi();\n")

    assert cpu["interrupts_by_cause"] == {"posted_interrupt": 1}


@pytest.mark.parametrize(
    ("reason", "vector", "cause"),
    [
        ("Rescheduling interrupts", "ipi_reschedule", "reschedule"),
        ("Function call interrupts", "ipi_call_function", "call_unknown"),
        ("Timer broadcast interrupts", "ipi_timer_broadcast", "timer_broadcast"),
        ("IRQ work interrupts", "ipi_irq_work", "irq_work"),
        ("CPU stop interrupts", "ipi_other", "ipi_other"),
    ],
)
def test_an_arm64_ipi_with_its_wrapper_is_one_interrupt(tmp_path: Path, reason: str, vector: str, cause: str):
    ipi = line(1.0, f"ipi_entry: ({reason})") + line(1.000002, f"ipi_exit: ({reason})")
    wrapped = (
        line(3.0, "irq_handler_entry: irq=2 name=IPI")
        + ipi.replace("1.00000", "3.00000")
        + line(3.000005, "irq_handler_exit: irq=2 ret=handled")
    )
    bare = line(5.0, "irq_handler_entry: irq=2 name=IPI") + line(
        5.000005, "irq_handler_exit: irq=2 ret=handled"
    )

    cpu, _ = explained(tmp_path, ipi + wrapped)
    assert (cpu["interrupts_by_vector"], cpu["interrupts_by_cause"]) == ({vector: 2}, {cause: 2})
    assert cpu["handlers"][0]["max_us"] == pytest.approx(2)
    cpu, _ = explained(tmp_path, bare)
    assert cpu["interrupts_by_cause"] == {"ipi_other": 1}


def test_a_device_timer_of_arm64_is_no_device(tmp_path: Path):
    text = (
        line(1.0, "irq_handler_entry: irq=10 name=arch_timer")
        + line(1.000005, "irq_handler_exit: irq=10 ret=handled")
        + line(2.0, "irq_handler_entry: irq=55 name=eth0")
        + line(2.000005, "irq_handler_exit: irq=55 ret=handled")
    )

    cpu, shown = explained(tmp_path, text)

    assert cpu["interrupts_by_vector"] == {"arch_timer": 1, "device": 1}
    assert "APIC" not in shown


# 9 and 10. Causes of several kernels.


def call(function: str, callsite: str, *, after: str = "") -> str:
    return (
        line(
            1.0,
            f"csd_queue_cpu: cpu=2 callsite={callsite}+0x1/0x2 func={function} csd=00000000aa",
            cpu=0,
            task="x-9",
        )
        + after
        + line(1.00001, "call_function_single_entry: vector=251")
        + line(1.00002, f"csd_function_entry: func={function}, csd=00000000aa")
        + line(1.00003, f"csd_function_exit: func={function}, csd=00000000aa")
        + line(1.00004, "call_function_single_exit: vector=251")
    )


@pytest.mark.parametrize(
    ("function", "callsite", "cause"),
    [
        ("ipi_mb", "membarrier_private_expedited", "membarrier"),
        ("ipi_sync_core", "on_each_cpu_cond_mask", "membarrier"),
        ("ipi_rseq", "on_each_cpu_cond_mask", "membarrier"),
        ("ipi_sync_rq_state", "sync_runqueues_membarrier_state", "membarrier"),
        ("__hrtick_start", "generic_exec_single", "hrtick"),
        ("watchdog_check_skew_remote", "x", "clocksource_watchdog"),
        ("retrigger_next_event", "x", "clock_set"),
        ("rcu_barrier_handler", "x", "rcu_barrier"),
        ("cr4_update_pce", "x", "cache_or_msr"),
        ("__wbnoinvd", "x", "cache_or_msr"),
        ("do_shoot_lazy_tlb", "x", "lazy_tlb"),
        ("__cfsb_csd_unthrottle", "x", "cfs_bandwidth"),
        ("ftrace_sync_ipi", "x", "recording"),
        ("rb_cpu_sync", "x", "recording"),
        ("__bpf_arch_ibpb", "bpf_prog_pack_alloc", "bpf_ibpb"),
        ("do_flush_tlb_all", "cpa_flush", "set_memory"),
        ("do_flush_tlb_all", "__change_page_attr_set_clr", "set_memory"),
        ("do_flush_tlb_all", "flush_tlb_kernel_range", "kernel_flush_unknown"),
        ("nohz_full_kick_func", "irq_work_queue_on", "nohz_kick"),
    ],
)
def test_functions_and_call_sites_of_three_kernels_have_a_cause(
    tmp_path: Path, function: str, callsite: str, cause: str
):
    cpu, _ = explained(tmp_path, call(function, callsite))

    assert cpu["interrupts_by_cause"] == {cause: 1}


@pytest.mark.parametrize("place", ["zap_other_threads", "__send_signal_locked"])
def test_signals_are_known_by_where_they_are_sent(tmp_path: Path, place: str):
    text = line(1.0, f"ipi_send_cpu: cpu=2 callsite={place}+0x1/0x2 callback=0x0", cpu=0, task="x-9") + irq(
        1.0001, "reschedule", 3
    )

    assert explained(tmp_path, text)[0]["interrupts_by_cause"] == {"signal": 1}


def test_a_timer_armed_on_this_cpu_explains_the_kick_that_follows(tmp_path: Path):
    armed = line(
        0.99999, "timer_start: timer=0 function=clocksource_watchdog expires=1 [timeout=1] cpu=2", cpu=0
    )
    kick = call("nohz_full_kick_func", "irq_work_queue_on")

    assert explained(tmp_path, armed + kick)[0]["interrupts_by_cause"] == {"clocksource_watchdog": 1}
    late = armed.replace("0.999990", "0.500000")
    assert explained(tmp_path, late + kick)[0]["interrupts_by_cause"] == {"nohz_kick": 1}


def without(name: str, *events: str, folder: Path = DATA) -> str:
    text = lzma.decompress((folder / name).read_bytes()).decode()
    return "".join(t for t in text.splitlines(keepends=True) if not any(f" {e}: (" in t for e in events))


PROBES = (
    "tlbk",
    "tlbk_all_h",
    "tlbk_range_h",
    "vm_unmap_aliases",
    "flush_tlb_all",
    "drain_work",
    "reclaim_purge",
)
PROBES += ("set_ro", "set_rw", "set_nx", "set_rox", "cpa_tlb_h", "cpa_all_h", "sync_core_h", "text_sync")


def test_a_purge_without_probes_is_lazy_only_if_the_list_was_full_and_a_worker_ran_it(tmp_path: Path):
    """Module loads purge a list that is nearly empty; forks fill it."""
    (tmp_path / "w7.txt").write_text(without("p4.w7.trace.txt.xz", *PROBES))
    modules = tc.read_trace(tmp_path / "w7.txt", isolated="2-3")
    (tmp_path / "w1.txt").write_text(without("p4.w1.head.trace.txt.xz", *PROBES))
    forks = tc.read_trace(tmp_path / "w1.txt", isolated="2-3")

    kernel = modules.calls["class"][np_isin(modules.calls["function"])]
    assert (kernel == "purge").sum() == 0
    assert (kernel == "unknown").sum() > 100
    assert (forks.calls["class"][np_isin(forks.calls["function"])] == "purge").all()
    shown = " ".join(str(tc.explain(modules)).split())
    assert "are flushes of kernel TLB entries (" in shown
    assert "for a caller that is not recorded)" in shown


def np_isin(functions):
    import numpy as np

    return np.isin(functions, ["do_flush_tlb_all", "do_kernel_range_flush"])


@pytest.mark.skipif(not USER.exists(), reason="the folder of full recordings is not here")
@pytest.mark.parametrize(
    ("name", "cause", "count"),
    [("p73.us8", "membarrier", 22), ("p612.us8", "membarrier", 22), ("n73.w10", "hrtick", 2)],
)
def test_recordings_of_7_3_and_6_12_have_the_causes_their_truth_states(name: str, cause: str, count: int):
    report = tc.read_trace(USER / f"{name}.trace.txt.xz", isolated="2-3").figures["report"]

    assert [cpu["interrupts_by_cause"].get(cause) for cpu in report["isolated"]] == [count, count]
    for cpu in report["isolated"]:
        assert not {"call_other", "reschedule", "kernel_flush_unknown"} & set(cpu["interrupts_by_cause"])


@pytest.mark.skipif(not USER.exists(), reason="the folder of full recordings is not here")
def test_call_chains_never_make_the_answer_worse(tmp_path: Path):
    """7.3 inlines vm_reset_perms and appends .part.N to frames."""
    text = lzma.decompress((USER / "p73b.w7st.trace.txt.xz").read_bytes()).decode()
    plain = [
        t for t in text.splitlines(keepends=True) if "<stack trace>" not in t and not t.startswith(" => ")
    ]
    (tmp_path / "plain.txt").write_text("".join(plain))
    with_chains = tc.read_trace(USER / "p73b.w7st.trace.txt.xz", isolated="2-3").calls
    without_chains = tc.read_trace(tmp_path / "plain.txt", isolated="2-3").calls

    assert len(with_chains["class"]) == len(without_chains["class"]) > 100
    assert (with_chains["class"] == "unknown").sum() == 0
    # No call that was known by its probes gets another class from its chain.
    known = without_chains["class"] != "unknown"
    assert (with_chains["class"][known] == without_chains["class"][known]).all()


def test_advice_is_of_the_kernel_that_was_recorded(tmp_path: Path):
    def shown(version: str) -> str:
        note = f"# tlbcore version | Linux version {version}\n# tlbcore isolated | 2\n"
        text = switch(1.0, "app-7", "R", "kworker/2:1-99") + switch(1.5, "kworker/2:1-99", "I", "app-7")
        return explained(tmp_path, note + text + line(4.0, "user_enter: "))[1]

    assert "On this kernel (6.12): unbound workers avoid nohz_full=" in shown("6.12.117-amd64")
    assert "nohz_full= alone does not keep them away" in shown("7.3.4-amd64")
    assert "nohz_full= alone does not keep them away" not in shown("6.12.117-amd64")
    assert "On this kernel" not in shown("5.14.0-427.el9")


def test_effects_follow_what_a_cause_brings_with_it():
    shown = " ".join(tlbcore("explain", str(DATA / "p4.w4spin.trace.txt.xz")).stdout.split())

    advice = shown[shown.index("What would help") :]
    effect = advice[advice.index("deadline server timer (") :]
    assert "if all of nohz_kick and tick_kept goes with it" in effect[: effect.index("goes with it.") + 13]


# 11. Words.


def test_numbers_have_no_exponents_and_one_is_singular(tmp_path: Path):
    texts = [tlbcore("explain", str(path)).stdout for path in sorted(DATA.glob("p4.w[1347]*.xz"))]
    texts.append(explained(tmp_path, irq(1.0, "local_timer", 3) + irq(4.0, "local_timer", 3))[1])

    for text in texts:
        assert not re.search(r"\d[eE][-+]\d", text), re.findall(r".{30}\d[eE][-+]\d.{10}", text)
        assert not re.search(r"\b1 (bursts|interrupts|events|forks|others)\b", text)
        assert not re.search(r"\d(us|ms)\b", text)
        assert max(map(len, text.splitlines()), default=0) <= 100 or "trace.txt" in text


# Before and after.


def test_two_recordings_are_compared_by_the_ratio_of_their_rates(tmp_path: Path):
    files = []
    for name, step in (("before", 1.0), ("after", 0.1)):
        files.append(str(tmp_path / name))
        Path(files[-1]).write_text(
            "".join(irq(1 + i * step, "local_timer", 3) for i in range(int(20 / step)))
            + irq(22.0, "reschedule", 3)
        )
    options = ("--isolated", "2")

    document = json.loads(tlbcore("explain", *files, *options, "--json").stdout)
    row = {row["cause"]: row for row in document["comparison"]}

    assert row["timer"]["change"] == "more"
    assert row["timer"]["ratio"] == pytest.approx(10, rel=0.02)
    assert row["timer"]["ratio_low"] < 10 < row["timer"]["ratio_high"]
    assert row["reschedule"]["change"] == "unclear"
    assert tlbcore("explain", *files, *options, "--fail-if", "more").returncode == 1
    assert tlbcore("explain", *reversed(files), *options, "--fail-if", "more").returncode == 0
    assert tlbcore("explain", files[0], files[0], *options, "--fail-if", "more").returncode == 0
    fails("give two or more", "explain", files[0], *options, "--fail-if", "more")


def test_compare_points_to_explain_for_recordings():
    fails("tlbcore explain", "compare", W7, W7)


def test_causes_have_a_schema_and_keep_to_it():
    rows = json.loads(tlbcore("causes", "--json").stdout)["causes"]
    schema = json.loads(tlbcore("causes", "--schema").stdout)
    entry = schema["properties"]["causes"]["items"]

    assert schema["$schema"].startswith("https://json-schema.org/")
    for row in rows:
        assert set(row) == set(entry["required"]) == set(entry["properties"])
        assert row["kind"] in entry["properties"]["kind"]["enum"]
        assert row["call_class"] in entry["properties"]["call_class"]["enum"]
        assert row["deferral"] in entry["properties"]["deferral"]["enum"]
        for remedy in row["remedies"]:
            assert re.fullmatch(
                entry["properties"]["remedies"]["items"]["properties"]["kernels"]["pattern"],
                remedy["kernels"],
            )


def test_figures_between_the_markers_of_our_recordings_are_those_of_the_load():
    inside = json.loads(tlbcore("explain", W7, *GT, "--json").stdout)
    whole = json.loads(tlbcore("explain", W7, "--json").stdout)

    assert inside["isolated"][0]["entries"] == 220
    assert whole["isolated"][0]["entries"] >= 220
    assert whole["trace"]["window"] is None


def test_what_the_recorder_had_on_is_recorded_also_where_nothing_happened(tmp_path: Path):
    notes = "".join(
        f"# tlbcore event | {event}\n"
        for event in (
            *(f"irq_vectors/{v}_entry" for v in ("call_function", "reschedule", "local_timer")),
            "sched/sched_switch",
        )
    )
    text = line(1.0, "user_exit: ", cpu=3) + line(21.0, "user_enter: ", cpu=3)

    cpu, shown = explained(tmp_path, "# tlbcore isolated | 2-3\n" + notes + text)

    assert (cpu["interrupts"], cpu["interrupts_known"]) == (0, "recorded")
    assert cpu["knowledge"]["tasks"]["state"] == "recorded"
    assert cpu["knowledge"]["softirqs"]["state"] == "not_recorded"
    path = str(tmp_path / "trace.txt")
    for condition, status in (
        ("kworker > 0", 0),
        ("per_hour > 10", 0),
        ("softirq > 0", 3),
        ("longest_us > 10", 3),
    ):
        run = tlbcore("explain", path, "--isolated", "2", "--fail-if", condition)
        assert run.returncode == status, (condition, run.stdout[-200:])
    assert "Not recorded: " in shown


def test_a_tick_stopped_for_idle_runs_again_with_the_task(tmp_path: Path):
    """A machine without nohz_full= prints tick_stop in the idle loop only."""
    text = (
        line(1.0, "tick_stop: success=1 dependency=NONE", task="<idle>-0")
        + irq(2.0, "local_timer", 3, task="<idle>-0")
        + switch(2.1, "swapper/2-0", "R", "app-7")
        + irq(3.0, "local_timer", 3)
        + irq(4.0, "local_timer", 3)
    )

    cpu, _ = explained(tmp_path, "# tlbcore cmdline | ro quiet\n" + text)

    assert cpu["interrupts_by_cause"] == {"tick": 1, "timer": 2}
    assert cpu["interrupts_idle"] == 1
    shown = tlbcore("explain", str(tmp_path / "trace.txt"), "--isolated", "2").stdout
    assert "This machine runs without nohz_full=" in " ".join(shown.split())


# LTTng, as babeltrace prints it. The shapes of lines are those of published prints; names of interrupt events are
# lttng-modules' own, UNVERIFIED against a print.


def lttng(*events: tuple[int, float, str, str]) -> str:
    lines = []
    for cpu, at, name, fields in events:
        clock = f"{int(at) // 3600:02}:{int(at) // 60 % 60:02}:{at % 60:012.9f}"
        lines.append(f"[{clock}] (+0.000001000) node-7 {name}: {{ cpu_id = {cpu} }}, {{ {fields} }}\n")
    return "".join(lines)


def test_an_lttng_recording_is_read_and_what_it_has_not_is_said(tmp_path: Path):
    switch = (
        'prev_comm = "{}", prev_tid = {}, prev_prio = 20, prev_state = {}, next_comm = "{}", next_tid = {}'
    )
    events = [(0, 86000.0, "sched_switch", switch.format("swapper/0", 0, 0, "sh", 9) + ", next_prio = 20")]
    for n in range(10):
        at = 86390.0 + 2 * n  # past midnight
        events.append((3, at % 86400, "x86_irq_vectors_call_function_entry", "vector = 252"))
        events.append((3, at % 86400 + 4e-6, "x86_irq_vectors_call_function_exit", "vector = 252"))
    events.append(
        (3, 20.0, "sched_switch", switch.format("app", 700, 0, "kworker/3:1", 31) + ", next_prio = 20")
    )
    events.append(
        (3, 20.03, "sched_switch", switch.format("kworker/3:1", 31, 1, "app", 700) + ", next_prio = 20")
    )
    path = tmp_path / "lttng.txt"
    path.write_text(lttng(*events))
    trace = tc.read_trace(path, isolated="3")
    (cpu,) = trace.figures["report"]["isolated"]
    assert trace.figures["broken_lines"] == 0
    assert trace.seconds == pytest.approx(420.03)
    assert cpu["interrupts_by_vector"]["call_function"] == 10
    by_cause = {row["cause"]: row for row in cpu["interference"]}
    assert by_cause["kworker"]["total_ms"] == pytest.approx(30)
    assert cpu["knowledge"]["tasks"]["state"] == "recorded"
    assert cpu["knowledge"]["softirqs"]["state"] == "not_recorded"
    text = " ".join(str(tc.explain(tc.read_trace(path, isolated="3"))).split())
    assert "Soft interrupts: not recorded." in text
    assert "sender unknown" in text


# What is not recorded is told in the line that needs it, whatever else is.


def of_app(cpu: int, at: float, what: str) -> str:
    return f"             app-700     [{cpu:03}] d.h.. {at:12.6f}: {what}\n"


def in_short(path: Path) -> str:
    text = " ".join(str(tc.explain(tc.read_trace(path, isolated="3"))).split())
    return text[text.index("In short") : text.index("What took")]


def test_nmis_alone_say_nothing_of_tasks_and_interrupts(tmp_path: Path):
    path = tmp_path / "nmis.txt"
    nmi = "nmi_handler: perf_event_nmi_handler() delta_ns: 5120 handled: 1"
    path.write_text("# tracer: nop\n" + "".join(of_app(3, 10.0 + n, nmi) for n in range(5)))
    said = in_short(path)
    assert "5x non-maskable interrupt" in said
    assert "Interrupts: not recorded. Other tasks and soft interrupts: not recorded." in said
    report = tc.read_trace(path, isolated="3").figures["report"]
    questions = [missing["question"] for missing in report["cannot_say"]]
    assert "whether other tasks took the CPU from its task" in questions
    assert "of what was recorded" in " ".join(str(tc.explain(tc.read_trace(path, isolated="3"))).split())


def test_devices_alone_say_nothing_of_flushes(tmp_path: Path):
    path = tmp_path / "devices.txt"
    pairs = [
        of_app(3, 10.0 + n, "irq_handler_entry: irq=30 name=dwc3")
        + of_app(3, 10.000014 + n, "irq_handler_exit: irq=30 ret=handled")
        for n in range(10)
    ]
    path.write_text("# tracer: nop\n" + "".join(pairs))
    said = in_short(path)
    assert (
        "Remote calls, reschedules, timer interrupts, other tasks and soft interrupts: not recorded." in said
    )
    assert "None of it is a flush" not in said
    assert "is not recorded: no event would show a remote call" in said


def test_riscv_is_neither_arm64_nor_x86(tmp_path: Path):
    path = tmp_path / "riscv.txt"
    pairs = [
        of_app(3, 10.0 + n / 10, "irq_handler_entry: irq=5 name=riscv-timer")
        + of_app(3, 10.000004 + n / 10, "irq_handler_exit: irq=5 ret=handled")
        + of_app(3, 10.01 + n / 10, "irq_handler_entry: irq=6 name=IPI")
        + of_app(3, 10.010004 + n / 10, "irq_handler_exit: irq=6 ret=handled")
        for n in range(20)
    ]
    path.write_text("# tracer: nop\n" + "".join(pairs))
    report = tc.read_trace(path, isolated="3").figures["report"]
    assert report["architecture"] == "riscv64"
    (cpu,) = report["isolated"]
    assert cpu["interrupts_by_vector"]["riscv_timer"] == 20
    text = str(tc.explain(tc.read_trace(path, isolated="3")))
    assert "TLBI" not in text
    assert "the policies here are of x86-64" in " ".join(text.split())


def test_perf_script_without_the_task_is_read(tmp_path: Path):
    path = tmp_path / "perf.txt"
    path.write_text(
        "".join(
            f"[003] {100 + n}.000000: irq_vectors:local_timer_entry: vector=236\n"
            f"[003] {100 + n}.000004: irq_vectors:local_timer_exit: vector=236\n"
            for n in range(10)
        )
    )
    trace = tc.read_trace(path, isolated="3")
    assert trace.figures["broken_lines"] == 0
    assert trace.figures["report"]["isolated"][0]["interrupts"] == 10
