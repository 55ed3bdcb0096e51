"""`tlbcore explain` and `tlbcore replay`: what they print, and how they fail."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
W7 = str(DATA / "p4.w7.trace.txt.xz")
LINE = "            spin-636     [002] d....   245.802753: user_exit: \n"


def tlbcore(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, "-m", "tlbcore", *arguments], input=stdin, capture_output=True, check=False
    )
    return subprocess.CompletedProcess(run.args, run.returncode, run.stdout.decode(), run.stderr.decode())


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


def test_files_that_cannot_be_opened_fail_by_name(tmp_path: Path):
    assert fails("no such file", "explain", str(tmp_path / "missing")) == ""
    assert fails("is a directory", "explain", str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (bytes(range(256)) * 40, "holds binary data"),
        (b"\x17\x08\x44tracing6\0", "trace-cmd report"),
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

    assert "Who interrupted the isolated CPUs" in printed


def test_a_broken_line_is_named_by_file_line_and_column_and_reading_goes_on(tmp_path: Path):
    path = tmp_path / "trace.txt"
    bad = "            spin-636     [002] d....   245.802753: csd_queue_cpu: cpu=x func=f\n"
    path.write_text(LINE * 2 + bad + LINE)

    run = tlbcore("explain", str(path))

    assert run.returncode == 2  # no interrupts in it
    assert f"{path}:3:67: expected cpu=" in run.stdout.replace("\n      ", "")
    assert "4 events" not in run.stdout
    assert "3 events" in run.stdout


def test_only_vectors_gives_vector_known_sender_unknown(tmp_path: Path):
    path = tmp_path / "upstream.txt"
    path.write_text(
        "".join(
            f"           <...>-636     [002] d.h..   {100 + i}.000001: call_function_{e}: vector=252\n"
            f"           <...>-636     [002] d.h..   {100 + i}.00001{j}: local_timer_{e}: vector=236\n"
            for i in range(5)
            for j, e in enumerate(("entry", "exit"))
        )
    )

    printed = fails("vector known, sender unknown", "explain", str(path), "--isolated", "2")

    assert "remote call: vector known, sender unknown" in printed
    assert "CPU 2: 10 interrupts" in printed


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
    assert "expected a list such as" in tlbcore("explain", W7, "--isolated", "two").stderr
    assert "no range of CPUs" in tlbcore("explain", W7, "--isolated", "3-2").stderr


def test_an_isolated_cpu_without_events_is_quiet_not_absent():
    run = tlbcore("explain", str(DATA / "p4.w4idle.trace.txt.xz"), "--isolated", "2-3")

    assert run.returncode == 0, run.stderr
    assert "CPU 2: 0 interrupts" in run.stdout


def test_an_unknown_policy_gets_the_nearest_name():
    fails("did you mean 'coalesce-v7'", "replay", W7, "--policy", "coalesce-v8")
