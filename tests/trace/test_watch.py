"""`tlbcore top` and `record --watch`: counts while recording, what is not recorded, metrics of bounded size."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from tests.trace.test_trace_record import Machine

from tlbcore._core import TraceError
from tlbcore.cli import main
from tlbcore.cli._common import console
from tlbcore.cli.top import shown
from tlbcore.trace.recorder.run import record
from tlbcore.trace.recorder.settings import Recording
from tlbcore.trace.recorder.watch import KINDS, Reading, Watch, json_line, metrics, table, write_metrics

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
