"""What a report says of random recordings equals what happened, which was decided before the recording was written."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import dat_files
import pytest
from test_trace_kinds import LAYOUTS, laid_out
from timelines import FUNCTIONS, HRTIMERS, Timeline, Truth

import tlbcore as tc

SEEDS = range(24)


@pytest.fixture(scope="module", params=SEEDS)
def told(request, tmp_path_factory) -> tuple[Timeline, Any, dict[int, dict[str, Any]]]:
    timeline = Timeline(request.param)
    path = tmp_path_factory.mktemp("timeline") / "trace.txt"
    path.write_text(timeline.text())
    trace = tc.read_trace(path, isolated=",".join(map(str, timeline.truth)))
    return timeline, trace, {cpu["cpu"]: cpu for cpu in trace.figures["report"]["isolated"]}


def each(told) -> list[tuple[Truth, dict[str, Any]]]:
    timeline, _, cpus = told
    assert sorted(cpus) == sorted(timeline.truth)
    return [(truth, cpus[cpu]) for cpu, truth in timeline.truth.items()]


def us(seconds: float) -> int:
    return round(seconds * 1e6)


def test_interrupts_are_counted_by_vector_and_by_cause(told) -> None:
    for truth, cpu in each(told):
        assert cpu["interrupts_by_vector"] == truth.vectors
        assert cpu["interrupts_by_cause"] == truth.causes
        assert cpu["interrupts"] == len(truth.interrupts)
        assert cpu["interrupts_idle"] == truth.idle
        assert cpu["hrtimers"] == truth.hrtimers
        assert cpu["entries"] == cpu["returns"] - told[0].tracked == truth.entries


def test_what_took_the_cpu_is_told_by_cause_with_how_often_how_long_and_by_whom(told) -> None:
    for truth, cpu in each(told):
        rows = {row["cause"]: row for row in cpu["interference"]}
        assert {cause: row["n"] for cause, row in rows.items()} == truth.counted
        for cause, row in rows.items():
            length, when = truth.longest[cause]
            assert us(row["total_ms"] / 1e3) == truth.taken[cause], cause
            assert us(row["max_us"] / 1e6) == length, cause
            assert us(row["max_at_s"]) in when, cause
            if cause in truth.by:
                assert {one["name"]: one["n"] for one in row["by"]} == truth.by[cause]
        assert us(cpu["taken_ms"] / 1e3) == sum(truth.taken.values())
        times = [row["total_ms"] for row in cpu["interference"]]
        assert times == sorted(times, reverse=True)
        assert us(cpu["longest"]["us"] / 1e6) == max(length for length, _ in truth.longest.values())


def test_lengths_of_interrupts_are_those_of_all_nested_ones_among_them(told) -> None:
    for truth, cpu in each(told):
        got = {row["cause"]: row for row in cpu["handlers"]}
        assert {cause: row["n"] for cause, row in got.items()} == {
            c: len(n) for c, n in truth.lengths.items()
        }
        for cause, row in got.items():
            lengths = sorted(truth.lengths[cause])
            assert row["max_us"] == lengths[-1]
            for name, share in (("p50_us", 0.5), ("p95_us", 0.95)):
                at = max(-(-len(lengths) * round(share * 100) // 100), 1) - 1
                assert row[name] == pytest.approx(lengths[at], rel=0.01), (cause, name)


def test_time_in_between_bursts_and_the_timeline(told) -> None:
    timeline = told[0]
    for truth, cpu in each(told):
        assert us(cpu["seconds"]) == timeline.last_us - timeline.first_us
        ordered = sorted(truth.interrupts)
        quiet = [(b - end, end) for (_, end), (b, _) in pairwise(ordered)]
        assert cpu["gaps"]["n"] == len(quiet)
        assert us(cpu["gaps"]["longest_s"]) == max(quiet)[0]
        assert us(cpu["gaps"]["longest_from_s"]) in {end for gap, end in quiet if gap == max(quiet)[0]}
        begun = [b for b, _ in ordered]
        runs = [[begun[0]]]
        for before, now in pairwise(begun):
            if now - before >= 10_000:
                runs.append([])
            runs[-1].append(now)
        bursts = [run for run in runs if len(run) >= 3]
        assert cpu["bursts"]["n"] == len(bursts)
        largest = max(map(len, bursts), default=0)
        assert cpu["bursts"]["largest"] == largest
        assert us(cpu["bursts"]["largest_at_s"]) in {run[0] for run in bursts if len(run) == largest} | {0}
        counts, step = cpu["timeline"]["counts"], cpu["timeline"]["step_s"]
        assert us(cpu["timeline"]["from_s"]) == begun[0]
        slots = Counter(int((at - begun[0]) // round(step * 1e6)) for at in begun)
        assert counts == [slots[k] for k in range(64)]


def test_calls_are_told_one_by_one_with_who_queued_them_when_and_what_they_found(told) -> None:
    timeline, trace, _ = told
    calls = trace.calls
    got = Counter(
        zip(
            calls["cpu"].tolist(),
            calls["sender_cpu"].tolist(),
            calls["initiator"].tolist(),
            calls["function"].tolist(),
            calls["cause"].tolist(),
            map(us, calls["queued_s"].tolist()),
            map(us, calls["ran_s"].tolist()),
            calls["mode"].tolist(),
            strict=True,
        )
    )
    assert got == Counter(
        (cpu, c.sender, c.comm, c.function, FUNCTIONS[c.function], c.queued_us, c.ran_us, c.mode)
        for cpu, truth in timeline.truth.items()
        for c in truth.calls
    )
    for truth, cpu in each(told):
        assert cpu["calls_by_function"] == Counter(c.function for c in truth.calls)
        of_calls = {(row["comm"], row["cause"]): row["calls"] for row in cpu["initiators"]}
        want = Counter((c.comm, FUNCTIONS[c.function]) for c in truth.calls)
        assert {key: n for key, n in of_calls.items() if key[0].startswith("sender")} == want


def test_mainline_replayed_gives_the_recording_back(told) -> None:
    """But for calls of other CPUs that patching text would have made, which are told apart; some share an interrupt."""
    timeline, trace, _ = told
    (mainline,) = tc.replay(trace, ["ipi"]).outcomes
    more = 0
    for cpu in mainline["cpus"]:
        truth = timeline.truth[cpu["cpu"]]
        assert cpu["deferred"] == {"low": 0, "high": 0}
        assert cpu["remaining"] == {"low": len(truth.calls), "high": len(truth.calls)}
        assert cpu["interrupts"]["low"] == len(truth.interrupts)
        assert cpu["entries"]["low"] == truth.entries
        more += cpu["interrupts"]["high"] - len(truth.interrupts)
    patched = sum(
        call.function == "do_sync_core" for truth in timeline.truth.values() for call in truth.calls
    )
    assert mainline["more_calls"]["low"] == 0
    assert more <= mainline["more_calls"]["high"] <= patched * (len(timeline.truth) - 1)


@pytest.mark.parametrize("option", sorted(set(LAYOUTS) - {"perf"}))  # whose lines here know no task
def test_every_layout_of_the_tools_says_the_same_of_a_timeline(tmp_path: Path, option: str) -> None:
    timeline = Timeline(99)
    lines = timeline.text().splitlines(keepends=True)
    path = tmp_path / "trace.txt"
    said = []
    for text in ("".join(lines), "".join(laid_out(line, option) for line in lines)):
        path.write_text(text)
        said.append(tc.read_trace(path, isolated="2,3,5").figures["report"]["isolated"])
    for want, got in zip(*said, strict=True):
        for key in want:
            assert got[key] == want[key], key


@pytest.mark.parametrize("seed", range(6))
def test_a_trace_dat_says_what_the_text_says(tmp_path: Path, seed: int) -> None:
    text = Timeline(seed).text()
    (tmp_path / "trace.txt").write_text(text)
    paths = (tmp_path / "trace.txt", dat_files.write(tmp_path / "trace.dat", text, seed))
    want, got = (tc.read_trace(path, isolated="2,3,5").figures["report"] for path in paths)

    assert got["events"] == want["events"] == len(text.splitlines())
    assert (got["seconds"], got["backwards"], got["cpus_seen"]) == (want["seconds"], 0, want["cpus_seen"])
    for cpu, same in zip(got["isolated"], want["isolated"], strict=True):
        first = same["lines"], cpu.pop("lines")
        heads = {b - a for cause, at in first[0].items() for a, b in zip(at, first[1][cause], strict=True)}
        assert heads == {3}  # lines in front of the events
        assert cpu == {key: value for key, value in same.items() if key != "lines"}


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
@pytest.mark.parametrize("seed", range(3))
def test_trace_cmd_prints_the_trace_dat_as_the_text(tmp_path: Path, seed: int) -> None:
    text = Timeline(seed).text()
    path = dat_files.write(tmp_path / "trace.dat", text, seed)
    report = subprocess.run(["trace-cmd", "report", path], capture_output=True, text=True, check=True).stdout

    def plain(lines: str) -> list[str]:
        without_flags = re.sub(r"(\[\d{3}\]) \S{5} ", r"\1 ", lines)
        said = re.sub(r" (csd|hrtimer|callsite)=\S+", "", without_flags)  # addresses, printed in other ways
        return [" ".join(line.split()) for line in said.splitlines() if not line.startswith("cpus=")]

    assert plain(report) == plain(text)


def as_lttng(line: str) -> str:
    """The line as babeltrace prints what LTTng records of it: functions are addresses there, and left out."""
    match = dat_files.LINE.fullmatch(line)
    assert match
    comm, pid, cpu, _, seconds, us, name, body = match.groups()
    if name.startswith(("csd", "hrtimer", "user", "sched_wakeup")):
        return ""
    said = dict(re.findall(r"(\w+)=(\S+)", body))
    if name == "sched_switch":
        fields = (
            f'prev_comm = "{said["prev_comm"]}", prev_tid = {said["prev_pid"]}, prev_prio = 20, '
            f"prev_state = {dat_files.STATES[said['prev_state']]}, "
            f'next_comm = "{said["next_comm"]}", next_tid = {said["next_pid"]}, next_prio = 20'
        )
    elif name.startswith("softirq"):
        name, fields = f"irq_{name}", f"vec = {said['vec']}"
    else:
        name, fields = f"x86_irq_vectors_{name}", f"vector = {said['vector']}"
    clock = int(seconds)
    stamp = f"{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}.{us}000"
    context = f'{{ tid = {pid}, procname = "{comm}" }}'
    return f"[{stamp}] (+0.000000370) host {name}: {{ cpu_id = {int(cpu)} }}, {context}, {{ {fields} }}\n"


@pytest.mark.parametrize("seed", range(6))
def test_lttng_tells_the_same_but_for_names_of_functions(tmp_path: Path, seed: int) -> None:
    timeline = Timeline(seed)
    path = tmp_path / "lttng.txt"
    path.write_text("".join(map(as_lttng, timeline.text().splitlines())))
    nameless = {
        **dict.fromkeys(FUNCTIONS.values(), "call_unknown"),
        **dict.fromkeys(HRTIMERS.values(), "timer"),
    }

    for cpu in tc.read_trace(path, isolated="2,3,5").figures["report"]["isolated"]:
        truth = timeline.truth[cpu["cpu"]]
        assert cpu["interrupts_by_vector"] == truth.vectors
        assert cpu["interrupts_idle"] == truth.idle
        counted, taken = Counter(), Counter()
        for cause, n in truth.counted.items():
            counted[nameless.get(cause, cause)] += n
            taken[nameless.get(cause, cause)] += truth.taken[cause]
        rows = {row["cause"]: row for row in cpu["interference"]}
        assert {cause: row["n"] for cause, row in rows.items()} == counted
        assert {cause: us(row["total_ms"] / 1e3) for cause, row in rows.items()} == taken
        assert {one["name"]: one["n"] for one in rows["softirq"]["by"]} == truth.by["softirq"]
