"""Timelines for Perfetto: every packet is decoded with Perfetto's own messages and compared with the figures."""

from __future__ import annotations

import json
import lzma
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore._output.perfetto import of_shootdowns, of_simulation, of_trace
from tlbcore.cli import main

messages = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="needs perfetto")
unknown_fields = pytest.importorskip("google.protobuf.unknown_fields", reason="needs perfetto")

BUNDLED = Path(tc.__file__).parent / "data" / "modules.trace.txt.xz"
DATA = Path(__file__).parents[1] / "data"


class Read:
    """A trace as Perfetto's importer sees it: tracks with their parents, and slices, moments and values on them."""

    def __init__(self, path: Path) -> None:
        trace = messages.Trace()
        trace.ParseFromString(path.read_bytes())
        names: dict[int, str] = {}
        self.slices: list[tuple[str, str, int, int]] = []
        self.moments: list[tuple[str, str, int]] = []
        self.values: list[tuple[str, int, float]] = []
        self.flows: dict[int, list[tuple[str, int]]] = defaultdict(list)
        open_: dict[int, list[tuple[str, int]]] = defaultdict(list)
        event_type = messages.TrackEvent
        last: dict[int, int] = {}
        for packet in trace.packet:
            assert packet.trusted_packet_sequence_id == 1
            assert not unknown_fields.UnknownFieldSet(packet)
            if packet.HasField("track_descriptor"):
                d = packet.track_descriptor
                names[d.uuid] = f"{names[d.parent_uuid]} / {d.name}" if d.HasField("parent_uuid") else d.name
                continue
            e, at = packet.track_event, packet.timestamp
            assert at >= last.get(e.track_uuid, 0), "a track is in the order of time"
            last[e.track_uuid] = at
            track = names[e.track_uuid]
            if e.type == event_type.TYPE_SLICE_BEGIN:
                open_[e.track_uuid].append((e.name, at))
            elif e.type == event_type.TYPE_SLICE_END:
                name, began = open_[e.track_uuid].pop()
                self.slices.append((track, name, began, at - began))
            elif e.type == event_type.TYPE_INSTANT:
                self.moments.append((track, e.name, at))
            else:
                assert e.type == event_type.TYPE_COUNTER
                self.values.append((track, at, e.double_counter_value))
            for flow in e.flow_ids:
                self.flows[flow].append((track, at))
        assert not any(open_.values()), "every slice ends"

    def counter(self, track: str) -> list[tuple[int, float]]:
        """When a counter changed, and what it was from then on."""
        return [(at, value) for name, at, value in self.values if name == track]


@pytest.mark.parametrize("file", [BUNDLED, DATA / "p4.w7.trace.txt.xz", DATA / "rt4.w4spin.trace.txt.xz"])
def test_what_took_a_cpu_is_in_the_timeline_as_often_and_as_long_as_the_report_says(
    file: Path, tmp_path: Path
):
    trace = tc.read_trace(file)
    table = tc.explain(trace).table
    trace.to_perfetto(tmp_path / "t")
    read = Read(tmp_path / "t")
    n: Counter[tuple[str, str]] = Counter()
    took: Counter[tuple[str, str]] = Counter()
    for track, name, _, length in read.slices:
        n[track.split(" / ")[0], name] += 1
        took[track.split(" / ")[0], name] += length
    for track, name, _ in read.moments:
        if not track.endswith(("remote calls run", "asks other CPUs")):
            n[track.split(" / ")[0], name] += 1
    assert len(table["cpu"]) > 0
    for cpu, cause, count, kind in zip(table["cpu"], table["cause"], table["n"], table["kind"], strict=True):
        here = (f"CPU {cpu} (isolated)", tc.causes[str(cause)].title)
        assert n[here] == count, here
        mine = (trace.spans["cpu"] == cpu) & (trace.spans["cause"] == cause)
        if kind == "interrupt":
            assert took[here] == pytest.approx(
                np.nansum(trace.spans["length_us"][mine]) * 1e3, abs=int(count)
            )


def test_spans_sum_to_the_time_that_the_report_says():
    trace = tc.read_trace(BUNDLED)
    table, spans = tc.explain(trace).table, trace.spans
    assert len(spans["at_s"]) == int(table["n"].sum()) == 540
    assert np.all(np.diff(spans["at_s"]) >= 0)
    # 105 of them on CPU 2, 9.369 ms in all, as the text report prints them.
    mine = (spans["cpu"] == 2) & (spans["cause"] == "exec_memory_free")
    assert (int(mine.sum()), round(float(spans["length_us"][mine].sum()))) == (105, 9369)


def test_an_arrow_leads_from_each_sender_to_its_target(tmp_path: Path):
    trace = tc.read_trace(BUNDLED)
    trace.to_perfetto(tmp_path / "t")
    read = Read(tmp_path / "t")
    calls = trace.calls
    known = np.isfinite(calls["queued_s"]) & np.isfinite(calls["ran_s"]) & (calls["sender_cpu"] >= 0)
    assert len(read.flows) == int(known.sum()) > 0
    first = int(np.flatnonzero(known)[0])
    sender, target = sorted(read.flows[first + 1], key=lambda end: end[1])
    assert sender[0].split(" ")[:2] == ["CPU", str(calls["sender_cpu"][first])]
    assert target[0].split(" ")[:2] == ["CPU", str(calls["cpu"][first])]
    assert sender[1] == round(calls["queued_s"][first] * 1e9)
    for ends in read.flows.values():
        assert len(ends) == 2


def test_purges_are_a_counter(tmp_path: Path):
    trace = tc.read_trace(BUNDLED)
    trace.to_perfetto(tmp_path / "t")
    values = Read(tmp_path / "t").counter("vmalloc / areas handed back by a purge")
    assert [value for _, value in values] == trace.purges["areas"].tolist()


def test_a_simulated_timeline_has_each_kept_event(tmp_path: Path):
    result = tc.simulate(
        tc.scenarios.spawn_storm(duration_s=0.5), machine="broadwell-ep-e5-2699v4", timeline=1000
    )
    t = result.timeline
    assert len(t["cpu"]) > 0
    result.to_perfetto(tmp_path / "t")
    read = Read(tmp_path / "t")
    assert len(read.slices) + len(read.moments) == len(t["cpu"])
    lengths = sorted(length for *_, length in read.slices)
    kept = sorted(round(ps / 1e3) for ps in t["duration_ps"][t["duration_ps"] > 0])
    assert sum(lengths) <= sum(kept) + len(kept)
    assert lengths[-1] == pytest.approx(kept[-1], abs=1)


def test_purges_of_a_simulation_are_a_counter(tmp_path: Path):
    result = tc.simulate(tc.scenarios.rteval(duration_s=500), machine="broadwell-ep-e5-2699v4")
    assert len(result.purges["areas"]) > 1
    result.to_perfetto(tmp_path / "t")
    values = Read(tmp_path / "t").counter("vmalloc / areas handed back by a purge")
    assert [value for _, value in values] == result.purges["areas"].tolist()
    assert [at for at, _ in values] == [round(ps / 1e3) for ps in result.purges["time_ps"].tolist()]


def test_a_recording_without_isolated_cpus_is_an_empty_timeline(tmp_path: Path):
    file = tmp_path / "empty.txt"
    file.write_text("# tracer: nop\n#\n           <...>-1     [000] .....     1.000000: user_exit: \n")
    trace = tc.read_trace(file, isolated="0")
    trace.to_perfetto(tmp_path / "t")
    read = Read(tmp_path / "t")
    assert (read.slices, read.moments, read.values) == ([], [], [])


def test_the_command_writes_it_and_refuses_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "t.pftrace"
    assert main(["explain", str(BUNDLED), "--perfetto", str(file)]) == 0
    assert f"{file}: written" in capsys.readouterr().err
    assert Read(file).slices
    assert main(["explain", str(BUNDLED), str(BUNDLED), "--perfetto", str(tmp_path / "u")]) == 2
    assert not (tmp_path / "u").exists()
    assert main(["explain", str(BUNDLED), "--perfetto", "/nowhere/t"]) == 2
    assert "/nowhere/t" in capsys.readouterr().err


def above_zero(changes: list[tuple[int, float]]) -> float:
    """Seconds with a counter above zero."""
    return sum(after - at for (at, value), (after, _) in pairwise(changes) if value > 0) / 1e9


@pytest.mark.parametrize("file", [BUNDLED, DATA / "p4.w3i.trace.txt.xz", DATA / "p4.w6.trace.txt.xz"])
def test_what_waits_under_a_policy_is_a_counter_that_is_up_for_as_long_as_the_replay_says(
    file: Path, tmp_path: Path
):
    trace = tc.read_trace(file)
    policies = ["ipi", "ct-late", "coalesce-v7"]
    trace.to_perfetto(tmp_path / "t", policies=policies)
    read = Read(tmp_path / "t")
    table = tc.replay(trace, policies).table
    waited = []
    for policy, cpu, low, high in zip(
        *(table[name] for name in ("policy", "cpu", "exposure_low_s", "exposure_high_s")), strict=True
    ):
        here = f"CPU {cpu} (isolated) / deferred under {policy}"
        ways = ["", ", the open taken in its favour", ", the open taken against it"]
        up = [above_zero(changes) for way in ways if (changes := read.counter(here + way))]
        # One counter if both ways are the same; none of a way in which nothing waits.
        assert max(up, default=0.0) == pytest.approx(high, abs=1e-6), here
        assert low - 1e-6 <= min(up, default=0.0), here
        waited += up
        assert policy != "ipi" or not up, "mainline defers nothing"
    assert sum(waited) > 0


def test_pages_on_the_lazy_list_are_a_counter_of_what_each_free_recorded(tmp_path: Path):
    trace = tc.read_trace(BUNDLED)
    trace.to_perfetto(tmp_path / "t")
    found = Read(tmp_path / "t").counter("vmalloc / lazily freed pages")
    with lzma.open(BUNDLED, "rt") as stream:
        frees = re.findall(r"(\d+\.\d+): free_vmap_area_noflush: .*nr_lazy=(\d+)", stream.read())
    assert [(at, value) for at, value in found] == [
        (round(float(at) * 1e9), float(pages)) for at, pages in frees
    ]
    assert len(found) > 100


def test_what_a_simulation_deferred_is_a_counter_that_each_deferral_raises(tmp_path: Path):
    result = tc.simulate(
        tc.scenarios.spawn_storm(duration_s=20, rate_hz=2000),
        machine="broadwell-ep",
        policy="ct-late",
        timeline=100_000,
    )
    result.to_perfetto(tmp_path / "t")
    read, levels = Read(tmp_path / "t"), result.levels
    rises = 0
    for cpu in (2, 3):
        counter = read.counter(f"CPU {cpu} (isolated) / deferred flushes")
        mine = (levels["cpu"] == cpu) & (levels["level"] == "deferred_flushes")
        assert [value for _, value in counter] == levels["value"][mine].tolist()
        # It goes up by one at a time and down to nothing: a flush makes up for all.
        steps = [after - before for (_, before), (_, after) in pairwise([(0, 0.0), *counter])]
        assert all(step == 1 or after == 0 for step, (_, after) in zip(steps, counter, strict=True))
        rises += steps.count(1)
    kept = result.timeline
    assert rises == int(((kept["kind"] == "deferral") & np.isin(kept["cpu"], (2, 3))).sum()) > 0
    lazy = read.counter("vmalloc / lazily freed pages")
    assert len(lazy) > 100
    most = max(value for _, value in lazy)
    assert most >= 24_576, "lazy_max_pages() of four CPUs is passed before a purge"


def test_deferred_syncs_of_patched_text_are_a_counter_too(tmp_path: Path):
    load = tc.scenarios.text_poke(
        duration_s=1, cpus=4, isolated="2-3", static_keys_hz=20, kprobes_hz=20, calls_hz=2000
    )
    result = tc.simulate(load, machine="broadwell-ep", policy="text-defer-v7", timeline=10_000)
    result.to_perfetto(tmp_path / "t")
    read = Read(tmp_path / "t")
    counters = [read.counter(f"CPU {cpu} (isolated) / deferred syncs of patched text") for cpu in (2, 3)]
    rises = [[v for (_, u), (_, v) in pairwise([(0, 0.0), *changes]) if v == u + 1] for changes in counters]
    assert sum(map(len, rises)) == result.total("sync_deferrals", isolated=True) > 50
    falls = sum(value == 0 for changes in counters for _, value in changes)
    assert falls == result.total("syncs_caught_up", isolated=True)


def test_a_name_that_ends_in_json_is_written_as_chrome_s_trace_events(tmp_path: Path):
    trace = tc.read_trace(BUNDLED)
    trace.to_perfetto(tmp_path / "t")
    trace.to_perfetto(tmp_path / "t.json")
    read = Read(tmp_path / "t")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    slices = [(e["name"], round(e["ts"] * 1e3), round(e["dur"] * 1e3)) for e in events if e["ph"] == "X"]
    assert sorted(slices) == sorted((name, at, length) for _, name, at, length in read.slices)
    values = [(round(e["ts"] * 1e3), e["args"]["value"]) for e in events if e["ph"] == "C"]
    assert sorted(values) == sorted((at, value) for _, at, value in read.values)
    starts = {e["id"]: e["ts"] for e in events if e["ph"] == "s"}
    ends = {e["id"]: e["ts"] for e in events if e["ph"] == "f"}
    assert starts.keys() == ends.keys() == read.flows.keys()
    assert all(starts[flow] <= ends[flow] for flow in starts)


SHOOTDOWNS = DATA / "user.p73.us7.trace.txt.xz"


@pytest.mark.parametrize("process", ["wander", None])
def test_the_timeline_of_shootdowns_leads_from_calls_to_whom_they_interrupt(
    process: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "t"
    which = ["--all-cpus"] if process is None else ["--process", process]
    assert main(["explain", str(SHOOTDOWNS), *which, "--perfetto", str(file)]) == 0
    assert f"{file}: written" in capsys.readouterr().err
    found, read = tc.shootdowns(SHOOTDOWNS, process=process), Read(file)
    flushes = [(track, name) for track, name, *_ in (*read.slices, *[(m[0], m[1], 0, 0) for m in read.moments])
               if name.startswith(("flush: ", "wait for")) and track.startswith("threads")]  # fmt: skip
    assert len(flushes) == int(found.call_sites["flushes"].sum()) > 0
    calls = {name for track, name, *_ in read.slices if track.startswith("threads / wander")}
    assert "munmap" in calls
    # Each call of the matrix is an arrow from a thread to the CPU that ran it, which begins inside of a system call.
    assert len(read.flows) == int(found.pairs["interrupts"].sum()) > 0
    to: Counter[str] = Counter()
    for ends in read.flows.values():
        (asked, at), (ran, after) = sorted(ends, key=lambda end: end[0].startswith("CPU"))
        assert asked.startswith("threads / ")
        assert at <= after
        to[ran] += 1
    victims: Counter[str] = Counter()
    for cpu, n in zip(found.pairs["victim_cpu"], found.pairs["interrupts"], strict=True):
        victims[f"CPU {cpu} / flushes for others"] += int(n)
    assert to == victims


# Made-up columns: where each row goes, when, how long, and how it is called.


def columns(**given: list) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in given.items()}


def test_events_of_a_simulation_are_in_nanoseconds_on_their_cpu_and_kind(tmp_path: Path):
    t = columns(
        time_ps=[1_499, 2_500_000, 4_000_000, 6_000_000], cpu=[0, 2, 2, 2], kind=["wait", "nmi", "nmi", "x_y"],
        cause=["purge", "tick", "a\x1bb", "purge"], duration_ps=[0, 1_600, 499, 2_000_000],
    )  # fmt: skip
    levels = columns(
        time_ps=[0, 3_000, 5_000, 7_000], cpu=[2, 2, -1, 0], value=[1, 2, 9, 4],
        level=["deferred_flushes", "deferred_flushes", "lazy_pages", "deferred_syncs"],
    )  # fmt: skip
    of_simulation(tmp_path / "t", t, levels, columns(time_ps=[8_000], areas=[3]), isolated=(2,))
    read = Read(tmp_path / "t")
    assert sorted(read.moments) == [("CPU 0 / wait", "purge", 1)]
    assert sorted(read.slices) == [
        ("CPU 2 (isolated) / nmi", "a\\x1bb", 4000, 0),
        ("CPU 2 (isolated) / nmi", "tick", 2500, 2),
        ("CPU 2 (isolated) / x y", "purge", 6000, 2000),
    ]
    assert read.counter("CPU 2 (isolated) / deferred flushes") == [(0, 1.0), (3, 2.0)]
    assert read.counter("CPU 0 / deferred syncs of patched text") == [(7, 4.0)]
    assert read.counter("vmalloc / lazily freed pages") == [(5, 9.0)]
    assert read.counter("vmalloc / areas handed back by a purge") == [(8, 3.0)]


def test_a_recording_of_a_few_rows_has_each_on_its_track(tmp_path: Path):
    nan = float("nan")
    spans = columns(
        cpu=[2, 2, 3, 1], cause=["timer", "smi", "timer", "timer"], at_s=[1.0, 1.5, 2e-9, 3.0],
        length_us=[1.5, nan, 2.0, 9.0],
    )  # fmt: skip
    calls = columns(
        cpu=[2, 2, 3, 2], sender_cpu=[0, 3, -1, 0], function=["f", "g", "f", "f"], queued_s=[1.0, 2.0, 3.0, nan],
        ran_s=[1.1, 2.5, 3.5, 4.0],
    )  # fmt: skip
    deferred = {
        "same": columns(cpu=[2] * 2, in_favour=[True, False], at_s=[1.0, 1.0], value=[4, 4]),
        "open": columns(cpu=[2] * 3, in_favour=[True, True, False], at_s=[1.0, 2.0, 1.0], value=[4, 6, 5]),
        "late": columns(cpu=[3] * 2, in_favour=[True, False], at_s=[1.0, 1.5], value=[4, 4]),
    }
    of_trace(
        tmp_path / "t", spans, calls, columns(at_s=[7.0], areas=[2]), isolated=(2, 3),
        causes={"timer": ("timer interrupt", "interrupt"), "smi": ("firmware", "firmware")},
        lazy=columns(at_s=[5.0, 6.0], pages=[10, 20]), deferred=deferred,
    )  # fmt: skip
    read = Read(tmp_path / "t")
    assert sorted(read.slices) == [
        ("CPU 2 (isolated) / interrupts", "timer interrupt", 1_000_000_000, 1500),
        ("CPU 3 (isolated) / interrupts", "timer interrupt", 2, 2000),
    ]
    assert sorted(read.moments) == [
        ("CPU 0 / asks other CPUs", "f", 1_000_000_000),
        ("CPU 2 (isolated) / firmware", "firmware", 1_500_000_000),
        ("CPU 2 (isolated) / remote calls run", "f", 1_100_000_000),
        ("CPU 2 (isolated) / remote calls run", "g", 2_500_000_000),
        ("CPU 3 (isolated) / asks other CPUs", "g", 2_000_000_000),
    ]
    assert sorted(read.flows) == [1, 2], "a call without its sender or its time has no arrow"
    on_2, on_3 = "CPU 2 (isolated) / deferred under", "CPU 3 (isolated) / deferred under"
    assert read.counter(f"{on_2} same") == [(1_000_000_000, 4.0)]
    assert read.counter(f"{on_2} open, the open taken in its favour") == [
        (1_000_000_000, 4.0), (2_000_000_000, 6.0),
    ]  # fmt: skip
    assert read.counter(f"{on_2} open, the open taken against it") == [(1_000_000_000, 5.0)]
    assert read.counter(f"{on_3} late, the open taken in its favour") == [(1_000_000_000, 4.0)]
    assert read.counter(f"{on_3} late, the open taken against it") == [(1_500_000_000, 4.0)]
    assert read.counter("vmalloc / lazily freed pages") == [(5_000_000_000, 10.0), (6_000_000_000, 20.0)]
    assert read.counter("vmalloc / areas handed back by a purge") == [(7_000_000_000, 2.0)]
    assert len(read.values) == 9


def test_shootdowns_of_threads_that_are_not_shown_leave_no_arrow(tmp_path: Path):
    nan = float("nan")
    spans = columns(
        what=["munmap", "flush 4", "flush 4", "flush 9", "madvise"],
        kind=["call", "flush", "handler", "handler", "call"],
        thread=[7, 7, -1, -1, 8], sender=[-1, -1, 7, 8, -1], cpu=[0, 0, 3, 4, 1], at_s=[1.0, 1.5, 2.0, 2.5, 3.0],
        length_us=[4.0, nan, 2.6, 3.0, 5.0], asked_s=[nan, nan, 1.75, 2.25, nan],
    )  # fmt: skip
    of_shootdowns(tmp_path / "t", spans, {7: "db 7"})
    read = Read(tmp_path / "t")
    assert sorted(read.slices) == [
        ("CPU 3 / flushes for others", "flush 4", 2_000_000_000, 2600),
        ("threads / db 7", "munmap", 1_000_000_000, 4000),
    ]
    assert sorted(read.moments) == [
        ("threads / db 7", "asks CPU 3", 1_750_000_000),
        ("threads / db 7", "flush 4", 1_500_000_000),
    ]
    assert read.flows == {
        3: [("threads / db 7", 1_750_000_000), ("CPU 3 / flushes for others", 2_000_000_000)]
    }
