"""`tlbcore top` and `record --watch`: counts while recording, what is not recorded, metrics of bounded size."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.trace.test_trace_record import Machine

from tlbcore._core import TraceError
from tlbcore.cli import main
from tlbcore.cli._common import console
from tlbcore.cli.top import shown
from tlbcore.trace.recorder.run import record
from tlbcore.trace.recorder.settings import Recording
from tlbcore.trace.recorder.watch import KINDS, Reading, Row, Watch, json_line, metrics, table, write_metrics

LINES = """\
            spin-7       [002] d.h..     1.000000: local_timer_entry: vector=236
            spin-7       [002] d.h..     1.000050: local_timer_exit: vector=236
            spin-7       [002] d.s..     3.000000: softirq_entry: vec=3 [action=NET_RX]
            spin-7       [002] d.h..     3.000020: call_function_entry: vector=252
            spin-7       [002] d.h..     3.000030: call_function_exit: vector=252
            spin-7       [002] d.s..     3.000100: softirq_exit: vec=3 [action=NET_RX]
            bash-9       [000] d....     3.500000: csd_queue_cpu: cpu=2 callsite=x+0x1/0x2 func=do_flush_tlb_all csd=00000000d32e82b2
"""  # noqa: E501
EVERYTHING = ("irq_vectors/local_timer_entry", "irq/softirq_entry", "sched/sched_switch", "csd/csd_queue_cpu")


def reading(events: tuple[str, ...] = EVERYTHING, text: str = LINES) -> Reading:
    clock = iter((0.0, 0.0, 10.0, 20.0, 30.0))
    watch = Watch((2, 3), lambda *_: None, now=lambda: next(clock))
    watch.begin(events)
    watch.feed(text.encode())
    return watch.reading()


def test_what_takes_a_cpu_is_counted_with_its_own_time():
    found = reading()
    assert found.seconds == 10
    assert found.interruptions(2) == 3
    assert found.taken_s(2) == pytest.approx((50 + 90 + 10) * 1e-6)
    assert found.interruptions(3) == 0
    assert [(row.name, row.count) for row in found.of(2, "call")] == [("do_flush_tlb_all by bash", 1)]
    assert not found.lower_bound


def test_what_is_not_recorded_is_null_and_never_zero():
    nothing = reading(events=("vmalloc/purge_vmap_area_lazy",), text="")
    assert nothing.interruptions(2) is None
    assert nothing.taken_s(2) is None
    cpu = json.loads(json_line(nothing))["cpus"][0]
    assert all(cpu[key] is None for key in ("interruptions", "taken_s", *KINDS))
    assert 'tlbcore_recorded{kind="irq"} 0' in metrics(nothing)
    part = reading(events=("irq_vectors/local_timer_entry",))
    assert part.lower_bound
    document = json.loads(json_line(part))
    assert document["cpus"][0]["softirq"] is None
    assert document["cpus"][0]["interruptions"] == 3
    assert document["lower_bound"] is True


def test_the_table_says_what_is_not_recorded(capsys: pytest.CaptureFixture[str]):
    console().print(table(reading(events=("irq_vectors/x",)), None))
    text = " ".join(capsys.readouterr().out.split())
    assert "not recorded: soft interrupts, other tasks, senders of calls" in text
    assert "at least" in text
    console().print(table(reading(events=(), text=""), None))
    assert "not recorded" in capsys.readouterr().out


def test_metrics_are_lines_of_the_text_format_and_bounded():
    found = reading(text=LINES.replace("action=NET_RX", 'action=a"b\\c'))
    text = metrics(found)
    line = re.compile(r'tlbcore_[a-z_]+(\{(\w+="(\\.|[^"\\])*",?)+\})? [0-9.e+-]+')
    for each in text.splitlines():
        assert each.startswith("# ") or line.fullmatch(each), each
    families = re.findall(r"^# TYPE (\S+)", text, re.M)
    assert len(families) == len(set(families))
    assert 'tlbcore_interruptions_total{cpu="2",kind="irq",name="local_timer"} 1' in text
    many = "".join(
        f"            spin-7       [002] d.h..  {n}.000000: irq_handler_entry: irq={n} name=dev{n}\n"
        f"            spin-7       [002] d.h..  {n}.000001: irq_handler_exit: irq={n} ret=handled\n"
        for n in range(500)
    )
    assert len(reading(text=many).rows) == 33
    assert sum(row.count for row in reading(text=many).rows) == 500


def test_a_file_of_metrics_is_replaced_in_one_step(tmp_path: Path):
    path = tmp_path / "tlbcore.prom"
    write_metrics(path, reading())
    before = path.stat().st_ino
    write_metrics(path, reading())
    assert path.stat().st_ino != before
    assert [file.name for file in tmp_path.iterdir()] == ["tlbcore.prom"]
    (tmp_path / "link.prom").symlink_to(path)
    path.write_text("old")
    write_metrics(tmp_path / "link.prom", reading())
    assert (tmp_path / "link.prom").is_symlink()
    assert path.read_text() == metrics(reading())


def test_a_recording_is_watched_while_it_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    machine = Machine(tmp_path, EVERYTHING)
    made = machine.make

    def make(here: Path) -> None:
        made(here)
        (here / "trace_pipe").write_text(LINES)

    machine.make = make  # type: ignore[method-assign]
    out, prometheus = tmp_path / "out.txt", tmp_path / "m.prom"
    with shown((2, 3), 0.05, prometheus, json=True) as watch:
        record(Recording(out=out, isolated=(2, 3), seconds=0.3), machine.handle, machine.root, watch=watch)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) >= 2
    assert lines[-1]["cpus"][0]["interruptions"] >= 3
    assert "local_timer" in prometheus.read_text()
    assert "local_timer_entry" in out.read_text()


def test_top_keeps_nothing_but_the_counts(tmp_path: Path):
    machine = Machine(tmp_path, EVERYTHING)
    seen: list[Reading] = []
    watch = Watch((2,), lambda now, _: seen.append(now), interval_s=0.05)
    record(
        Recording(out=Path(os.devnull), isolated=(2,), seconds=0.2), machine.handle, machine.root, watch=watch
    )
    assert Path(os.devnull).is_char_device()
    assert len(seen) >= 2
    assert seen[-1].recorded == dict.fromkeys(KINDS, True)


def test_a_flight_recorder_is_not_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    machine = Machine(tmp_path, EVERYTHING)
    watch = Watch((2,), lambda *_: None)
    with pytest.raises(TraceError, match="cannot be watched"):
        record(
            Recording(out=tmp_path / "x", isolated=(2,), flight=True),
            machine.handle,
            machine.root,
            watch=watch,
        )
    assert main(["record", "--out", str(tmp_path / "x"), "--flight", "--watch"]) == 2
    assert "cannot be watched" in capsys.readouterr().err


def row(cpu: int, kind: str, name: str, count: int, seconds: float = 0.0, longest_s: float = 0.0) -> Row:
    return Row(cpu=cpu, kind=kind, name=name, count=count, seconds=seconds, longest_s=longest_s)


ROWS = (
    row(2, "irq", "local_timer", 30, 0.003, 0.0002),
    row(2, "softirq", "NET_RX", 5, 0.009, 0.004),
    row(2, "task", "kworker/2:1", 1, 0.001, 0.001),
    row(2, "call", "do_flush_tlb_all by bash", 3),
    row(2, "call", "do_sync_core by bpf", 7),
    row(4, "irq", "reschedule", 2),
)


def counted(seconds: float, rows: tuple[Row, ...] = ROWS, **changes: Any) -> Reading:
    recorded = dict.fromkeys(KINDS, True)
    return replace(
        Reading(time=7.0, seconds=seconds, cpus=(2, 3, 4), recorded=recorded, rows=rows), **changes
    )


def cells(now: Reading, before: Reading | None) -> list[tuple[str, ...]]:
    drawn = table(now, before)
    return list(zip(*([str(cell) for cell in column.cells] for column in drawn.columns), strict=True))


def test_the_table_has_rates_since_the_last_look_and_the_rest_since_the_start():
    """CPU 2: 36 in all, 24 of them in the last 10 s, 13 ms of 20 s, 9 of these 13 by NET_RX."""
    before = counted(10.0, (row(2, "irq", "local_timer", 10), row(2, "task", "x", 2), row(2, "call", "y", 9)))
    two = ("2", "2.4", "36", "0.065%", "4,000 us NET_RX", "NET_RX (softirq, 69%)", "do_sync_core by bpf (7)")
    three = ("3", "0.0", "0", "0.000%", "", "", "")
    four = ("4", "0.2", "2", "0.000%", "0 us reschedule", "reschedule", "")
    assert cells(counted(20.0), before) == [two, three, four]
    first = cells(counted(20.0), None)
    assert [cell[1] for cell in first] == ["1.8", "0.0", "0.1"]
    assert [cell[2:] for cell in first] == [two[2:], three[2:], four[2:]]
    assert table(counted(20.0), None).caption == "20 s"
    assert [cell[1:4] for cell in cells(counted(0.0), None)] == [("", "36", ""), ("", "0", ""), ("", "2", "")]
    assert [cell[1] for cell in cells(counted(10.0), before)] == [""] * 3, "twice the same moment"


@pytest.mark.parametrize(
    ("lost", "unknown", "said"),
    [
        (1234, 0, "20 s; 1,234 events lost"),
        (1, 0, "20 s; 1 event lost"),
        (1234, 2000, "20 s; 1,234 events lost; 2,000 times an unknown number of events lost"),
        (0, 1, "20 s; once an unknown number of events lost"),
    ],
)
def test_what_was_lost_makes_a_lower_bound(lost: int, unknown: int, said: str):
    now = counted(20.0, lost=lost, lost_unknown=unknown)
    assert table(now, None).caption == said
    assert [cell[3] for cell in cells(now, None)] == [f"at least {x}" for x in ("0.065%", "0.000%", "0.000%")]
    assert json.loads(json_line(now))["lower_bound"] is True
    assert {
        f"tlbcore_lost_events_total {lost}", f"tlbcore_losses_unknown_total {unknown}"
    } <= set(metrics(now).splitlines())  # fmt: skip


def test_calls_that_are_not_recorded_leave_the_rest_as_it_is():
    now = counted(20.0, recorded={**dict.fromkeys(KINDS, True), "call": False})
    assert not now.lower_bound
    assert [cell[-1] for cell in cells(now, None)] == ["not recorded"] * 3
    assert table(now, None).caption == "20 s; not recorded: senders of calls"
    assert json.loads(json_line(now))["cpus"][0]["call"] is None


def test_a_reading_in_json_and_as_metrics_is_in_seconds():
    now = counted(20.0)
    assert json.loads(json_line(now)) == {
        "schema": "tlbcore.watch",
        "version": 1,
        "time": 7.0,
        "seconds": 20.0,
        "lost_events": 0,
        "lost_unknown": 0,
        "lower_bound": False,
        "cpus": [
            {
                "cpu": 2,
                "interruptions": 36,
                "taken_s": pytest.approx(0.013),
                "irq": [{"name": "local_timer", "count": 30, "seconds": 0.003, "longest_s": 0.0002}],
                "softirq": [{"name": "NET_RX", "count": 5, "seconds": 0.009, "longest_s": 0.004}],
                "task": [{"name": "kworker/2:1", "count": 1, "seconds": 0.001, "longest_s": 0.001}],
                "call": [
                    {"name": "do_flush_tlb_all by bash", "count": 3},
                    {"name": "do_sync_core by bpf", "count": 7},
                ],
            },
            {"cpu": 3, "interruptions": 0, "taken_s": 0, "irq": [], "softirq": [], "task": [], "call": []},
            {
                "cpu": 4,
                "interruptions": 2,
                "taken_s": 0.0,
                "irq": [{"name": "reschedule", "count": 2, "seconds": 0.0, "longest_s": 0.0}],
                "softirq": [],
                "task": [],
                "call": [],
            },
        ],
    }
    lines = [line for line in metrics(now).splitlines() if not line.startswith("#")]
    assert [line for line in lines if "NET_RX" in line or "bpf" in line or "{" not in line] == [
        'tlbcore_interruptions_total{cpu="2",kind="softirq",name="NET_RX"} 5',
        'tlbcore_interruption_seconds_total{cpu="2",kind="softirq",name="NET_RX"} 0.009000000',
        'tlbcore_interruption_longest_seconds{cpu="2",kind="softirq",name="NET_RX"} 0.004000000',
        'tlbcore_calls_sent_total{cpu="2",kind="call",name="do_sync_core by bpf"} 7',
        "tlbcore_lost_events_total 0",
        "tlbcore_losses_unknown_total 0",
        "tlbcore_watch_seconds 20.000",
    ]


def test_metrics_stand_in_families_each_with_its_words_and_kind():
    rows = (row(2, "irq", 'a"b\\c\nd\x1b', 3, 0.5, 0.25), row(13, "call", "f by x", 4))
    recorded = {"irq": True, "softirq": False, "task": True, "call": True}
    assert metrics(counted(1234.5678, rows, recorded=recorded, lost=5, lost_unknown=6)).splitlines() == [
        "# HELP tlbcore_interruptions_total Times that something took an isolated CPU from its task.",
        "# TYPE tlbcore_interruptions_total counter",
        r"""tlbcore_interruptions_total{cpu="2",kind="irq",name="a\"b\\c\nd\\x1b"} 3""",
        "# HELP tlbcore_interruption_seconds_total Time that it took, without what came inside.",
        "# TYPE tlbcore_interruption_seconds_total counter",
        r"""tlbcore_interruption_seconds_total{cpu="2",kind="irq",name="a\"b\\c\nd\\x1b"} 0.500000000""",
        "# HELP tlbcore_interruption_longest_seconds The longest since the start of the watch.",
        "# TYPE tlbcore_interruption_longest_seconds gauge",
        r"""tlbcore_interruption_longest_seconds{cpu="2",kind="irq",name="a\"b\\c\nd\\x1b"} 0.250000000""",
        "# HELP tlbcore_calls_sent_total Calls queued for an isolated CPU: function and sender.",
        "# TYPE tlbcore_calls_sent_total counter",
        'tlbcore_calls_sent_total{cpu="13",kind="call",name="f by x"} 4',
        "# HELP tlbcore_recorded Whether the kernel has the events that show a kind; 0: not recorded.",
        "# TYPE tlbcore_recorded gauge",
        'tlbcore_recorded{kind="irq"} 1',
        'tlbcore_recorded{kind="softirq"} 0',
        'tlbcore_recorded{kind="task"} 1',
        'tlbcore_recorded{kind="call"} 1',
        "# HELP tlbcore_lost_events_total Events that the ring lost.",
        "# TYPE tlbcore_lost_events_total counter",
        "tlbcore_lost_events_total 5",
        "# HELP tlbcore_losses_unknown_total Times that it lost an unknown number of events.",
        "# TYPE tlbcore_losses_unknown_total counter",
        "tlbcore_losses_unknown_total 6",
        "# HELP tlbcore_watch_seconds How long the watch has run.",
        "# TYPE tlbcore_watch_seconds gauge",
        "tlbcore_watch_seconds 1234.568",
    ]


@pytest.mark.parametrize(
    ("missing", "bound", "interruptions", "cell"),
    [
        ((), False, 36, "0.065%"),
        (("call",), False, 36, "0.065%"),
        (("irq",), True, 36, "at least 0.065%"),
        (("irq", "softirq"), True, 36, "at least 0.065%"),
        (("irq", "softirq", "task"), True, None, ""),
        (("irq", "softirq", "task", "call"), True, None, ""),
    ],
)
def test_one_kind_that_is_recorded_makes_a_figure_and_one_that_is_not_a_bound(
    missing: tuple[str, ...], bound: bool, interruptions: int | None, cell: str
):
    now = counted(20.0, recorded={kind: kind not in missing for kind in KINDS})
    assert (now.lower_bound, now.interruptions(2)) == (bound, interruptions)
    assert now.taken_s(2) == (None if interruptions is None else pytest.approx(0.013))
    first = cells(now, None)[0]
    assert first[3] == cell
    if interruptions is None:
        assert first[1:6] == ("not recorded", "", "", "", "")
    assert first[6] == ("not recorded" if "call" in missing else "do_sync_core by bpf (7)")
    document = json.loads(json_line(now))["cpus"][0]
    assert [kind for kind in KINDS if document[kind] is None] == [kind for kind in KINDS if kind in missing]


def test_the_columns_of_the_table_have_their_heads_and_fold():
    drawn = table(counted(20.0), None)
    assert [str(column.header) for column in drawn.columns] == [
        "CPU", "per s", "in all", "time taken", "longest", "most time", "most calls from",
    ]  # fmt: skip
    assert [column.justify for column in drawn.columns] == ["right"] * 5 + ["left"] * 2
    assert {column.overflow for column in drawn.columns} == {"fold"}
    assert (drawn.box, drawn.pad_edge, drawn.caption_justify) == (None, False, "left")


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("irq_vectors/reschedule_entry", "irq"),
        ("irq/irq_handler_entry", "irq"),
        ("irq/softirq_entry", "softirq"),
        ("sched/sched_switch", "task"),
        ("csd/csd_queue_cpu", "call"),
        ("sched/sched_wakeup", None),
        ("x/irq_vectors/", None),
    ],
)
def test_a_kind_is_recorded_if_an_event_of_it_is_on(event: str, kind: str | None):
    assert reading(events=("a/b", event), text="").recorded == {name: name == kind for name in KINDS}


def test_a_reading_has_the_counts_of_the_meter_in_seconds():
    now = reading(text=LINES + "CPU:2 [LOST 5 EVENTS]\n" + "CPU:2 [LOST EVENTS]\n" * 2)
    assert (now.lost, now.lost_unknown, now.cpus) == (5, 2, (2, 3))
    (timer,) = (one for one in now.rows if one.name == "local_timer")
    assert (timer.cpu, timer.kind, timer.count) == (2, "irq", 1)
    assert (timer.seconds, timer.longest_s) == (pytest.approx(50e-6), pytest.approx(50e-6))
    by_default = Watch((2,), lambda *_: None)
    assert (by_default._interval, by_default._now) == (1.0, time.monotonic)
    assert by_default.reading().recorded == dict.fromkeys(KINDS, False), "before it begins"


def test_metrics_that_cannot_be_written_leave_nothing_behind_and_say_where(tmp_path: Path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_metrics(tmp_path / "taken", counted(1.0))
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(FileNotFoundError):
        write_metrics(tmp_path / "none" / "m.prom", counted(1.0))


def test_the_names_of_tasks_cannot_move_a_terminal(capsys: pytest.CaptureFixture[str]):
    console().print(table(counted(20.0, (row(2, "task", "a\x1b[2Jb", 1, 0.5, 0.5),)), None))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "a\\x1b" in out


def test_counts_are_shown_once_an_interval_and_at_the_end():
    """Looks at 4.5, two intervals late, are shown once, and the next is an interval later."""
    at = [100.0]
    seen: list[tuple[float, float | None]] = []
    watch = Watch(
        (2,),
        lambda now, before: seen.append((round(now.seconds, 3), before and round(before.seconds, 3))),
        now=lambda: at[0],
    )
    at[0] = 200.0
    watch.begin(EVERYTHING)
    for moment in (0.9, 1.0, 1.2, 1.9, 2.1, 4.5, 4.6, 5.4, 5.5, 5.6):
        at[0] = 200.0 + moment
        watch.tick()
    assert seen == [(1.0, None), (2.1, 1.0), (4.5, 2.1), (5.5, 4.5)]
    at[0] = 205.7
    watch.tick(last=True)
    assert seen[-1] == (5.7, 5.5)
