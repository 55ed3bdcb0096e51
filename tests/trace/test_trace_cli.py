"""`tlbcore explain` and `tlbcore replay`: what they print, and how they fail."""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlbcore.cli import main

DATA = Path(__file__).parents[1] / "data"
FOLDER = Path(os.environ.get("TLBCORE_TRACES", Path(__file__).parents[2] / ".." / "shared" / "traces"))
W7 = str(DATA / "p4.w7.trace.txt.xz")
GT = ("--between", "GT_BEGIN", "GT_END")
LINE = "            spin-636     [002] d....   245.802753: user_exit: \n"


def tlbcore(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command: in this process, or in one of its own if it reads standard input."""
    if stdin is not None:
        command = [sys.executable, "-m", "tlbcore", *arguments]
        run = subprocess.run(command, input=stdin, capture_output=True, check=False)
        return subprocess.CompletedProcess(command, run.returncode, run.stdout.decode(), run.stderr.decode())
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*arguments])
    return subprocess.CompletedProcess([*arguments], status, out.getvalue(), err.getvalue())


def fails(message: str, *arguments: str, stdin: bytes | None = None) -> str:
    """Run a command that must fail with one clear line, and return what it printed."""
    run = tlbcore(*arguments, stdin=stdin)
    assert run.returncode == 2, run
    assert run.stderr.startswith("tlbcore: error: ")
    assert run.stderr.count("\n") == 1
    assert message in run.stderr
    return run.stdout


def test_explain_prints_a_report_of_at_most_100_columns():
    run = tlbcore("explain", W7)

    assert run.returncode == 0, run.stderr
    assert "Isolated CPUs: 2-3 (deduced" in run.stdout
    assert "kernel page rights changed" in run.stdout
    assert "What would help" in run.stdout
    assert max(map(len, run.stdout.splitlines()[1:])) <= 100


def test_json_has_the_documented_keys():
    document = json.loads(tlbcore("explain", W7, "--json").stdout)

    assert (document["schema"], document["version"]) == ("tlbcore.explain", 1)
    assert [cpu["cpu"] for cpu in document["isolated"]] == [2, 3]
    cpu = document["isolated"][0]
    assert cpu["calls_by_function"] == {"do_flush_tlb_all": 176, "do_kernel_range_flush": 21}
    assert cpu["entries"] == 220
    assert cpu["interrupts_by_cause"]["set_memory"] > 0
    assert document["holes"] == []
    assert [p["policy"] for p in document["policies"]] == [
        "ipi",
        "ct-late",
        "coalesce-v7",
        "coalesce-v7-fixed",
    ]


def test_a_kprobe_counts_by_the_function_it_sits_on():
    document = json.loads(tlbcore("explain", str(DATA / "k61.w3i.trace.txt.xz"), "--json").stdout)

    by_cpu = {cpu["cpu"]: cpu["calls_by_function"] for cpu in document["isolated"]}
    assert by_cpu[2] == {"do_flush_tlb_all": 106, "do_kernel_range_flush": 13}
    assert by_cpu[3] == {"do_flush_tlb_all": 106, "do_kernel_range_flush": 14}


def test_replay_names_its_policies_and_its_baseline():
    run = tlbcore("replay", W7, "--policy", "ipi", "--policy", "coalesce-v7-fixed")

    assert run.returncode == 0, run.stderr
    assert "exactly the calls of the trace" in run.stdout
    assert "Call-queue order explains all" in run.stdout
    assert "ct-late" not in run.stdout


def test_standard_input_is_read():
    raw = lzma.decompress(Path(W7).read_bytes())

    document = json.loads(tlbcore("explain", "-", "--json", stdin=raw).stdout)

    assert document["isolated"][0]["entries"] == 220


def test_a_trace_dat_is_read_from_standard_input():
    dat = DATA / "dat.p73.us8.v7.trace.dat"

    piped = json.loads(tlbcore("explain", "-", "--json", stdin=dat.read_bytes()).stdout)

    for cpu, want in zip(
        piped["isolated"], json.loads(tlbcore("explain", str(dat), "--json").stdout)["isolated"], strict=True
    ):
        assert {**cpu, "file": ""} == {**want, "file": ""}


def test_files_that_cannot_be_opened_fail_by_name(tmp_path: Path):
    assert fails("no such file", "explain", str(tmp_path / "missing")) == ""
    assert fails("is a directory", "explain", str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (bytes(range(256)) * 40, "holds binary data"),
        (b"\x17\x08\x44tracing6\0", "trace.dat ends early"),
        (b"\x17\x08\x44tracing8\0\0\x08" + bytes(20), "trace-cmd report FILE > FILE.txt"),
        (b"# README\n\nThis is prose about traces.\nMore prose.\n", "is a trace event; first line is"),
        (b"\xfd7zXZ\0garbage and more garbage", "damaged"),
    ],
)
def test_what_is_no_trace_is_refused_with_a_reason(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "input"
    path.write_bytes(content)
    fails(message, "explain", str(path))


def test_truncated_compression_keeps_what_came_before(tmp_path: Path):
    packed = Path(W7).read_bytes()
    cut = tmp_path / "cut.txt.xz"
    cut.write_bytes(packed[: len(packed) * 3 // 4])

    printed = fails("ends early", "explain", str(cut), "--isolated", "2-3")

    assert "What took the isolated CPUs" in printed


def test_a_broken_line_is_named_by_file_line_and_column_and_reading_goes_on(tmp_path: Path):
    path = tmp_path / "trace.txt"
    bad = "            spin-636     [002] d....   245.802753: csd_queue_cpu: cpu=x func=f\n"
    path.write_text(LINE * 2 + bad + LINE)

    run = tlbcore("explain", str(path))

    assert run.returncode == 2  # no interrupts in it
    # However long the path is, and wherever the line is broken for it.
    assert f"{path}:3:67:expectedcpu=" in "".join(run.stdout.split())
    assert "4 events" not in run.stdout
    assert "3 events" in run.stdout


def test_only_vectors_gives_vector_known_sender_unknown(tmp_path: Path):
    """The upstream recipe (cpu-isolation.rst): it degrades, and is not refused."""
    path = tmp_path / "upstream.txt"
    path.write_text(
        "".join(
            f"           <...>-636     [002] d.h..   {100 + i}.000001: call_function_{e}: vector=252\n"
            f"           <...>-636     [002] d.h..   {100 + i}.00001{j}: local_timer_{e}: vector=236\n"
            for i in range(5)
            for j, e in enumerate(("entry", "exit"))
        )
    )

    run = tlbcore("explain", str(path))

    assert (run.returncode, run.stderr) == (0, "")
    assert "Isolated CPUs: 2 (deduced: no other CPU was recorded)" in run.stdout
    assert "remote call: vector known, sender unknown" in run.stdout
    assert "CPU 2: 10 interrupts" in run.stdout
    assert "what a policy would change lies among" in " ".join(run.stdout.split())
    assert "who sent 5 call interrupts and what they ran" in run.stdout
    assert tlbcore("replay", str(path)).returncode == 0


def test_a_trace_without_the_needed_events_says_which(tmp_path: Path):
    path = tmp_path / "forks.txt"
    path.write_text(
        "            init-1       [000] .....     1.000000: sched_process_fork: comm=init pid=1 "
        "child_comm=init child_pid=2\n" * 3
    )

    fails("cannot say which CPUs are isolated (no user_enter/user_exit events", "explain", str(path))
    fails("no irq_vectors events", "explain", str(path), "--isolated", "0")


def test_isolated_cpus_the_machine_lacks_are_refused():
    printed = fails(
        "isolated CPUs 7 are not in this trace, which has CPUs 0-3", "explain", W7, "--isolated", "3,7"
    )

    assert "CPU 3:" in printed
    assert "a CPU list is numbers and ranges" in tlbcore("explain", W7, "--isolated", "two").stderr
    assert "a range of CPUs must rise" in tlbcore("explain", W7, "--isolated", "3-2").stderr


def test_an_isolated_cpu_without_events_is_quiet_not_absent():
    run = tlbcore("explain", str(DATA / "p4.w4idle.trace.txt.xz"), "--isolated", "2-3")

    assert run.returncode == 0, run.stderr
    assert "CPU 2: 0 interrupts" in run.stdout


def test_an_unknown_policy_gets_the_nearest_name():
    fails("did you mean `coalesce-v7`", "replay", W7, "--policy", "coalesce-v8")


def test_raw_lines_behind_a_figure_are_shown_by_file_and_line():
    path = DATA / "q4.w1st.trace.txt.xz"
    text = lzma.decompress(path.read_bytes()).decode().splitlines()

    run = tlbcore("explain", str(path), "--lines", "kernel_table_free")

    shown = run.stdout.splitlines()
    assert len(shown) > 50
    for line in shown:
        number = int(line.removeprefix(f"{path}:").split(":")[0])
        assert line == f"{path}:{number}: {text[number - 1].rstrip()}"
    assert sum("flush_tlb_kernel_range" in line for line in shown) == 25
    fails("did you mean 'vmalloc_purge'", "explain", str(path), "--lines", "vmalloc_purges")


@pytest.mark.parametrize(
    ("condition", "status"),
    [("per_hour > 10", 1), ("set_memory>0", 1), ("user_shootdown > 0", 0), ("vmalloc_purge.per_hour > 1", 0)],
)
def test_a_condition_decides_the_exit_status(condition: str, status: int):
    run = tlbcore("explain", W7, "--fail-if", condition)

    assert run.returncode == status
    assert ("fail-if: CPU 2: " in run.stdout) == bool(status)


def test_conditions_that_make_no_sense_are_refused():
    fails("expected a figure", "explain", W7, "--fail-if", "per_hour is high")
    fails("did you mean 'per_hour'", "explain", W7, "--fail-if", "per_hours > 1")


def test_two_recordings_are_compared_cause_by_cause():
    run = tlbcore("explain", W7, str(DATA / "p4.w4spin.trace.txt.xz"), *GT, "--json")
    document = json.loads(run.stdout)

    assert document["schema"] == "tlbcore.comparison"
    rows = {row["cause"]: row for row in document["comparison"]}
    assert rows["set_memory"]["change"] == "fewer"
    assert rows["all"]["traces"][0]["n"] == 265 + 275


def interrupts(path: Path, cal: tuple[int, ...], res: tuple[int, ...]) -> str:
    def row(name: str, counts: tuple[int, ...], text: str) -> str:
        return f" {name}: " + " ".join(f"{n:10}" for n in counts) + f"   {text}\n"

    head = "            " + "       ".join(f"CPU{i}" for i in range(4)) + "\n"
    path.write_text(
        head
        + row("CAL", cal, "Function call interrupts")
        + row("RES", res, "Rescheduling interrupts")
        + " ERR:          0\n"
    )
    return str(path)


def test_snapshots_of_proc_interrupts_give_coverage_or_counts(tmp_path: Path):
    before = interrupts(tmp_path / "before", (5, 5, 10, 10), (0, 0, 0, 0))
    after = interrupts(tmp_path / "after", (9, 9, 224, 224), (1, 1, 41, 47))

    document = json.loads(tlbcore("explain", W7, "--interrupts", before, after, "--json").stdout)

    cal = next(row for row in document["coverage"] if (row["cpu"], row["row"]) == (2, "CAL"))
    assert (cal["counted"], cal["traced"], cal["missing"]) == (214, 182 + 31, 1)
    alone = tlbcore("explain", "--interrupts", before, after, "--isolated", "2-3")
    assert alone.returncode == 0, alone.stderr
    assert "CPU 2: 255 interrupts" in alone.stdout
    assert "vector known, sender unknown" in alone.stdout
    fails("from different boots", "explain", "--interrupts", after, before, "--isolated", "2-3")
    fails("give --isolated", "explain", "--interrupts", before, after)
    fails("is no copy of /proc/interrupts", "explain", "--interrupts", W7, after, "--isolated", "2")


def test_an_interrupt_that_stands_in_two_rows_is_counted_once(tmp_path: Path):
    """Issue 16: on x86 CAL contains TLB (and NMI contains PMI); polls of machine checks are no interrupts."""

    def snapshot(name: str, **rows: int) -> str:
        lines = ["           CPU0       CPU1"]
        lines += [f" {row}: {0:10} {count:10}   of {row}" for row, count in rows.items()]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return str(tmp_path / name)

    before = snapshot("before", CAL=0, TLB=0, NMI=0, PMI=0, MCP=0, RTR=0, RES=0)
    after = snapshot("after", CAL=30, TLB=20, NMI=5, PMI=5, MCP=9, RTR=2, RES=1)
    text = tlbcore("explain", "--interrupts", before, after, "--isolated", "1").stdout
    assert "CPU 1: 36 interrupts" in text
    assert "of TLB (within CAL)" in text
    assert "of MCP (no interrupts)" in text
    # aarch64 has no CAL: a row of that name there stands alone.
    before, after = snapshot("b", TLB=0), snapshot("a", TLB=7)
    assert (
        "CPU 1: 7 interrupts" in tlbcore("explain", "--interrupts", before, after, "--isolated", "1").stdout
    )


@pytest.mark.parametrize("name", ["dat.p73.us8.v6", "dat.p73.us8.v7"])
def test_a_trace_dat_is_read_without_trace_cmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """The same explanation as of trace-cmd's report, the raw lines too, with no trace-cmd to be found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    dat, report = DATA / f"{name}.trace.dat", DATA / "dat.p73.us8.report.txt.xz"
    ours = json.loads(tlbcore("explain", str(dat), "--json").stdout)
    theirs = json.loads(tlbcore("explain", str(report), "--json").stdout)
    assert ours["trace"]["broken_lines"] == 0
    assert [cpu["cpu"] for cpu in ours["isolated"]] == [2, 3]
    for mine, want in zip(ours["isolated"], theirs["isolated"], strict=True):
        for key in ("interrupts", "interrupts_by_vector", "calls_by_function", "entries"):
            assert mine[key] == want[key]
    lines = tlbcore("explain", str(dat), "--lines", "holes")
    assert lines.returncode == 0, lines.stderr
    broken = tmp_path / "broken.dat"
    broken.write_bytes(dat.read_bytes()[:200])
    fails("trace.dat", "explain", str(broken))


def test_perf_script_says_what_ftrace_says(tmp_path: Path):
    """The same events in perf's spelling give the same calls, causes and interrupts."""
    import re

    system = {"csd_": "csd", "ipi_": "ipi", "user": "context_tracking", "call": "irq_vectors"}
    out = ["# captured on: somewhere\n"]
    for line in lzma.decompress(Path(W7).read_bytes()).decode().splitlines():
        match = re.fullmatch(r"\s*(.*)-(\d+)\s+\[(\d+)\] (\S+)\s+(\d+\.\d+): (\w+): ?(.*)", line)
        if match is None or match[6] == "tracing_mark_write":
            continue
        comm, pid, cpu, _, at, event, body = match.groups()
        out.append(
            f"{comm:>16} {pid:>7} [{cpu}] {at:>14}: {system.get(event[:4], 'other')}:{event}: {body}\n"
        )
    path = tmp_path / "perf.txt"
    path.write_text("".join(out))

    ours = json.loads(tlbcore("explain", str(path), "--json").stdout)
    theirs = json.loads(tlbcore("explain", W7, "--json").stdout)

    for mine, want in zip(ours["isolated"], theirs["isolated"], strict=True):
        for key in ("interrupts_by_cause", "calls_by_function", "calls_by_class", "entries"):
            assert mine[key] == want[key]


def test_osnoise_gives_interrupts_and_their_lengths(tmp_path: Path):
    path = tmp_path / "osnoise.txt"
    rows = [
        ("d.h1.", 100, "irq_noise: local_timer:236", 9000),
        ("d.h1.", 101, "irq_noise: call_function:252", 5000),
        ("d....", 102, "thread_noise: kworker/2:1:99", 70000),
    ]
    path.write_text(
        "".join(
            f"        osnoise/2-77     [002] {flags}   {at}.000010: {what} start {at}.0 duration {ns} ns\n"
            for flags, at, what, ns in rows
        )
    )

    run = tlbcore("explain", str(path), "--isolated", "2", "--json")
    cpu = json.loads(run.stdout)["isolated"][0]

    assert cpu["interrupts_by_cause"] == {"timer": 1, "call_unknown": 1}
    assert [(x["kind"], x["name"], x["n"]) for x in cpu["noise"]] == [
        ("thread", "kworker/2:1", 1),
        ("irq", "local_timer", 1),
        ("irq", "call_function", 1),
    ]
    assert cpu["noise"][1]["max_us"] == pytest.approx(9, rel=0.02)


def test_per_cpu_files_merge_into_the_recording_they_came_from(tmp_path: Path):
    text = lzma.decompress(Path(W7).read_bytes()).decode().splitlines(keepends=True)
    files = []
    for cpu in range(4):
        files.append(str(tmp_path / f"cpu{cpu}.txt"))
        Path(files[-1]).write_text("".join(line for line in text if f" [00{cpu}] " in line or line[0] == "#"))

    merged = json.loads(tlbcore("explain", "--merge", *files, "--json").stdout)
    whole = json.loads(tlbcore("explain", W7, "--json").stdout)

    for mine, want in zip(merged["isolated"], whole["isolated"], strict=True):
        for key in ("interrupts_by_cause", "calls_by_function", "calls_by_class", "entries"):
            assert mine[key] == want[key]
    fails("raw lines need one file", "explain", "--merge", *files, "--lines", "set_memory")


def test_function_graph_gives_lengths_but_no_rates(tmp_path: Path):
    path = tmp_path / "graph.txt"
    path.write_text(
        "# tracer: function_graph\n"
        " 2)               |  sysvec_call_function() {\n"
        " 2)   0.500 us    |    do_flush_tlb_all();\n"
        " 2) + 12.345 us   |  }\n"
        " 2)   3.000 us    |  sysvec_apic_timer_interrupt();\n"
    )

    run = tlbcore("explain", str(path), "--isolated", "2", "--json")
    document = json.loads(run.stdout)
    cpu = document["isolated"][0]

    assert run.returncode == 0, run.stderr
    assert cpu["interrupts_by_cause"] == {"kernel_flush_unknown": 1, "timer": 1}
    assert cpu["calls_by_function"] == {"do_flush_tlb_all": 1}
    assert {h["cause"]: round(h["max_us"], 1) for h in cpu["handlers"]} == {
        "kernel_flush_unknown": pytest.approx(12.3, rel=0.02),
        "timer": pytest.approx(3.0, rel=0.02),
    }
    assert cpu["interrupts_per_hour"] is None
    assert any("no clock" in gap["because"] for gap in document["cannot_say"])


@pytest.mark.parametrize("name", ["p4b.w5", "q4.w1st"])
def test_a_real_trace_dat_says_what_its_text_twin_says(name: str):
    dat = FOLDER / f"{name}.trace.dat"
    if not dat.exists():
        pytest.skip("the folder of full recordings is not here")
    twin = FOLDER / f"{name}.{'report' if name == 'p4b.w5' else 'trace'}.txt.xz"

    ours = json.loads(tlbcore("explain", str(dat), "--json").stdout)
    theirs = json.loads(tlbcore("explain", str(twin), "--json").stdout)

    assert ours["trace"]["broken_lines"] == 0
    for mine, want in zip(ours["isolated"], theirs["isolated"], strict=True):
        for key in ("interrupts_by_cause", "calls_by_function", "calls_by_class", "entries"):
            assert mine[key] == want[key]
    assert tlbcore("explain", str(dat), "--lines", "tick_kept").stdout.count("local_timer") > 10


@pytest.mark.slow
def test_memory_does_not_depend_on_the_length(tmp_path: Path):
    """Twenty million lines through a pipe, in less than 200 MB."""
    head = lzma.decompress((DATA / "p4.w1.head.trace.txt.xz").read_bytes())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = (
        "import resource, sys, tlbcore as tc\n"
        "trace = tc.read_trace(sys.argv[1], isolated='2-3')\n"
        "print(trace.lines, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(pipe)], stdout=subprocess.PIPE) as reader:
        with pipe.open("wb") as writer:
            for _ in range(445):
                writer.write(head)
        assert reader.stdout is not None
        lines, kib = map(int, reader.stdout.read().split())
    assert lines > 20_000_000
    assert kib < 200 * 1024


def test_the_catalogue_is_printed_whole_or_in_part_and_the_page_is_what_it_prints():
    page = Path(__file__).parents[2] / "docs" / "causes.md"
    whole = tlbcore("causes", "--markdown").stdout

    if page.exists():  # not beside an installed wheel
        assert page.read_text() == whole, "write it anew: tlbcore causes --markdown > docs/causes.md"
    rows = json.loads(tlbcore("causes", "--json").stdout)["causes"]
    assert {"vmalloc_purge", "percpu_reclaim", "khugepaged", "dl_server"} <= {row["id"] for row in rows}
    assert all(all(value for key, value in row.items() if key != "remedies") for row in rows)
    assert "collapse_huge_page" in tlbcore("causes", "khugepaged").stdout
    lines = tlbcore("causes").stdout.splitlines()
    # A long title goes on in its column.
    assert sum(not line.startswith(" ") for line in lines) == len(rows) + 1
    fails("did you mean 'khugepaged'", "causes", "khugepage")


NEWER = sorted(p.name for p in DATA.glob("*.txt.xz") if p.name[:2] in ("p4", "q4", "rt", "v2"))


@pytest.mark.parametrize("name", NEWER)
def test_since_6_5_nearly_every_call_has_a_cause_and_an_initiator(name: str):
    import tlbcore as tc

    calls = tc.read_trace(DATA / name, isolated="1" if name.startswith("v2") else "2-3").calls

    known = (calls["class"] != "unknown") & (calls["initiator"] != "unknown")
    assert known.sum() >= 0.99 * len(known)


def test_enough_recordings_with_calls_are_checked():
    import tlbcore as tc

    assert len(NEWER) >= 15
    assert sum(len(tc.read_trace(DATA / n, isolated="2-3").calls["cpu"]) > 10 for n in NEWER[:8]) >= 5


HEAD = "         spinner-636     [002] d.h..   "


def ticks(*dependencies: str) -> str:
    """Return timer interrupts, each before a `tick_stop` with this dependency."""
    lines = []
    for i, dependency in enumerate(dependencies):
        lines.append(f"{HEAD}{i + 1}.000001: local_timer_entry: vector=236\n")
        lines.append(f"{HEAD}{i + 1}.000002: local_timer_exit: vector=236\n")
        stopped = int(dependency == "NONE")
        lines.append(f"{HEAD}{i + 1}.000003: tick_stop: success={stopped} dependency={dependency}\n")
    return "".join(lines)


def test_a_tick_kept_for_a_dependency_is_told_from_a_residual_one(tmp_path: Path):
    path = tmp_path / "ticks.txt"
    path.write_text(ticks("SCHED", "SCHED", "NONE", "NONE"))

    run = tlbcore("explain", str(path))
    cpu = json.loads(tlbcore("explain", str(path), "--json").stdout)["isolated"][0]

    # The first is kept by the dependency told right behind it, the third by the one told in front of it.
    assert cpu["interrupts_by_cause"] == {"tick_kept": 3, "tick": 1}
    assert "kept for SCHED" in " ".join(run.stdout.split())


def test_tasks_and_work_items_that_ran_there_are_told(tmp_path: Path):
    path = tmp_path / "work.txt"
    path.write_text(
        ticks("NONE")
        + f"{HEAD}2.000001: sched_switch: prev_comm=spinner prev_pid=636 prev_prio=120 prev_state=R ==> "
        "next_comm=kworker/2:1 next_pid=77 next_prio=120\n"
        f"{HEAD}2.000002: workqueue_execute_start: work struct 00000000d8c1d2d1: function vmstat_update\n"
    )

    run = tlbcore("explain", str(path))

    assert "Tasks switched in: kworker/2:1 1x. Work items run: vmstat_update 1x." in run.stdout


def area(at: int, line: str, task: str = "sh-10") -> str:
    return f"{task:>19}      [000] .....   {at}.000000: {line}\n"


def test_purged_areas_are_charged_to_the_control_group_of_their_task(tmp_path: Path):
    """By the snapshot of the recorder, inherited by children, changed by a move; others are not told."""
    size = "size=20480 align=16384 vstart=0x0 vend=0x0 failed=0"
    path = tmp_path / "cgroups.txt"
    path.write_text(
        "# tlbcore isolated | 2\n# tlbcore cgroup_root | 0\n# tlbcore cgroup | 10,12-14 /a b.slice/one\n"
        + area(1, "sched_process_fork: comm=sh pid=10 child_comm=sh child_pid=20")
        + area(2, f"alloc_vmap_area: va_start: 1048576 {size}")
        + area(3, f"alloc_vmap_area: va_start: 2097152 {size}", "sh-20")
        + area(4, "cgroup_attach_task: dst_root=0 dst_id=7 dst_level=1 dst_path=/two three pid=20 comm=sh")
        + area(4, "cgroup_attach_task: dst_root=5 dst_id=7 dst_level=1 dst_path=/other pid=20 comm=sh")
        + area(5, f"alloc_vmap_area: va_start: 3145728 {size}", "sh-20")
        + area(6, f"alloc_vmap_area: va_start: 4194304 {size}", "other-99")
        + "".join(
            area(7, f"free_vmap_area_noflush: va_start=0x{i}00000 nr_lazy=5 nr_lazy_max=9")
            for i in (1, 2, 3, 4)
        )
        + area(8, "purge_vmap_area_lazy: start=0x100000 end=0x500000 num_purged=4", "kworker/0:1-5")
        + ticks("NONE")
    )

    purges = json.loads(tlbcore("explain", str(path), "--json").stdout)["purges"]

    assert {o["comm"]: o["areas"] for o in purges["cgroups"]} == {"/a b.slice/one": 2, "/two three": 1}
    assert {o["comm"]: o["areas"] for o in purges["charged"]} == {"sh": 3, "other": 1}
    printed = tlbcore("explain", str(path)).stdout
    assert "By control group: /a b.slice/one 50%, /two three 25%, not told 25%." in " ".join(printed.split())


def test_the_pieces_of_a_flight_recorder_give_rates_of_what_was_kept(tmp_path: Path):
    path = tmp_path / "flight.txt"
    later = ticks("NONE", "NONE").replace("   1.", "  9001.").replace("   2.", "  9002.")
    path.write_text(
        "# tlbcore isolated | 2\n# tlbcore snapshot | 1\n"
        + ticks("NONE", "NONE")
        + "# tlbcore snapshot | 2\n"
        + later
    )

    document = json.loads(tlbcore("explain", str(path), "--json").stdout)

    assert document["trace"]["snapshots"] == 2
    assert document["trace"]["seconds"] == pytest.approx(2.000004, abs=1e-6)
    assert document["trace"]["elapsed_s"] == pytest.approx(9001.000002, abs=1e-6)
    gaps = document["isolated"][0]["gaps"]
    assert gaps["longest_s"] < 2, "the time between pieces is not quiet, it is unknown"
    assert "A flight recorder's" in tlbcore("explain", str(path)).stdout


def test_pieces_of_different_kernels_are_not_one_recording(tmp_path: Path):
    files = []
    for kernel in ("6.1.0", "6.12.0"):
        files.append(str(tmp_path / kernel))
        Path(files[-1]).write_text(f"# tlbcore version | Linux version {kernel}\n" + ticks("NONE"))

    fails("come from different kernels", "explain", "--merge", *files)

    compared = tlbcore("explain", *files)  # one by one, and compared
    assert compared.returncode == 0
    assert "Mind that these are different kernels" in compared.stdout


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"x" * 10_240, "expected `task-pid [cpu]`"),
        (b"         spinner-636     [99999] d.h..   5.0: user_exit: ", "CPU number is beyond 8191"),
        (b"         spinner-99999999999 [002] d.h..   5.0: user_exit: ", "task id does not fit 32 bits"),
        (b"         spinner-636     [002] d.h..   99999999999999.0: user_exit: ", "does not fit 64 bits"),
        (b"         spinner-636     [002] d.h..   \xff\xfe\x80", "expected a time stamp"),
        (b"y" * 100_000, "line is longer than 64 KiB"),
    ],
)
def test_good_lines_around_a_bad_one_are_kept_and_the_bad_one_is_named(tmp_path: Path, bad: bytes, why: str):
    path = tmp_path / "trace.txt"
    good = ticks("NONE", "NONE").encode()
    path.write_bytes(good + bad + b"\n" + good)

    run = tlbcore("explain", str(path), "--json")
    document = json.loads(run.stdout)

    assert run.returncode == 0, run.stderr
    assert document["isolated"][0]["interrupts"] == 4
    assert document["trace"]["broken_lines"] == 1
    (broken,) = document["trace"]["broken_first"]
    assert broken["line"] == 7
    assert why in broken["why"]
    assert f"{path}:7:" in tlbcore("explain", str(path), "--lines", "broken").stdout


def test_invalid_utf_8_in_a_task_name_is_replaced(tmp_path: Path):
    path = tmp_path / "trace.txt"
    head = HEAD.encode().replace(b"spinner", b"sp\xff\xfeer")
    path.write_bytes(head + b"1.0: sched_switch: a:1 [120] R ==> b\xff:2 [120]\n" + ticks("NONE").encode())

    run = tlbcore("explain", str(path))

    assert run.returncode == 0, run.stderr
    assert "b\ufffd 1x" in run.stdout


def test_time_stamps_that_step_back_are_counted_and_told(tmp_path: Path):
    path = tmp_path / "trace.txt"
    two = ticks("NONE", "NONE") + ticks("NONE")
    path.write_text(two)  # a whole second back: another recording
    document = json.loads(tlbcore("explain", str(path), "--json").stdout)
    assert (document["trace"]["timestamps_backwards"], document["trace"]["recordings"]) == (0, 2)
    assert document["isolated"][0]["interrupts"] == 3
    assert document["trace"]["seconds"] < 2
    lines = ticks("NONE").splitlines(keepends=True)
    path.write_text("".join(lines) + lines[0])  # a moment back: clocks that disagree

    document = json.loads(tlbcore("explain", str(path), "--json").stdout)

    assert (document["trace"]["timestamps_backwards"], document["trace"]["recordings"]) == (1, 1)
    assert "Time stamps step back" in tlbcore("explain", str(path)).stdout


@pytest.mark.parametrize("figure", ["purges", "vmalloc_purge"])
def test_the_lines_of_purges_and_their_flushes_are_shown(figure: str):
    run = tlbcore("explain", str(DATA / "p4.w1.head.trace.txt.xz"), "--lines", figure)

    assert run.returncode == 0, run.stderr
    event = "purge_vmap_area_lazy" if figure == "purges" else "do_flush_tlb_all"
    assert sum(event in line for line in run.stdout.splitlines()) >= 2


def test_the_summary_names_the_flushes_and_what_a_policy_would_leave():
    text = " ".join(tlbcore("explain", W7, *GT).stdout.split())

    head = text[text.index("In short") : text.index("What took")]
    assert "module or BPF code freed (modloop" in head
    assert "394 of 540 are flushes of kernel TLB entries" in head
    assert "coalesce-v7-fixed would defer" in head
    quiet = tlbcore("explain", str(DATA / "rt4.w4spin.trace.txt.xz")).stdout
    assert "None of it is a flush of kernel TLB entries" in quiet


@pytest.mark.parametrize("command", ["explain", "replay"])
def test_the_json_of_both_commands_has_the_isolated_cpus_the_policies_and_the_holes(command: str, capsys):
    assert main([command, str(Path(__file__).parents[1] / "data" / "p4.w7.trace.txt.xz"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["version"]) == (f"tlbcore.{command}", 1)
    assert {"isolated", "policies", "holes"} <= document.keys()
    for cpu in document["isolated"]:
        assert {"cpu", "interrupts_by_cause", "calls_by_function", "entries"} <= cpu.keys()
    assert [cpu["cpu"] for cpu in document["isolated"]] == [2, 3]
    assert document["isolated"][0]["calls_by_function"]["do_flush_tlb_all"] == 176
