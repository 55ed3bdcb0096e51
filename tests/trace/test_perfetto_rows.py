"""What is handed to the writer of timelines: tracks below their groups, names, and rows of six columns each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlbcore import _core
from tlbcore._output.perfetto import _Rows, of_shootdowns, of_simulation, of_trace

nan = float("nan")
KINDS = ("uint64", "int64", "uint32", "uint32", "uint64", "float64")


def columns(**given: list[Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.array(values) for name, values in given.items()}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return what the writer was given last; a row is time, length, track, name, flow and value, by name of track."""
    made = SimpleNamespace(path=None, tracks=[], names=[], rows=[])

    def write(path: Path, tracks: list[Any], names: list[str], *given: np.ndarray[Any, Any]) -> None:
        assert tuple(str(column.dtype) for column in given) == KINDS
        assert all(column.flags.c_contiguous for column in given)
        made.path, made.tracks, made.names = path, tracks, names
        every = zip(*(column.tolist() for column in given), strict=True)
        made.rows = [(tracks[t][0], names[n], at, length, *more) for at, length, t, n, *more in every]

    monkeypatch.setattr(_core, "perfetto_write", write)
    return made


def test_a_track_is_made_once_behind_its_group_and_a_name_is_made_once(written: Any, tmp_path: Path) -> None:
    rows = _Rows()
    assert rows.track("", "alone") == 0
    assert rows.track("g", "a") == 2
    assert rows.track("g", "\x1b", counter=True) == 3
    assert rows.track("g", "a") == 2
    assert rows.track("h", "a") == 5
    assert [rows.name(name) for name in ("x", "y\x1b", "x", "y\\x1b")] == [0, 1, 0, 1]
    rows.add(2, 1, np.array([5, 7]))
    rows.add(
        np.array([0, 5]), np.array([0, 1]), np.array([8, 9]), length_ns=np.array([3, -1]), flow=4, value=2.5
    )
    rows.write(str(tmp_path / "t"))
    assert written.path == tmp_path / "t"
    assert written.tracks == [
        ("alone", -1, False), ("g", -1, False), ("a", 1, False), ("\\x1b", 1, True), ("h", -1, False), ("a", 4, False),
    ]  # fmt: skip
    assert written.names == ["x", "y\\x1b"]
    assert written.rows == [
        ("a", "y\\x1b", 5, -1, 0, 0.0), ("a", "y\\x1b", 7, -1, 0, 0.0), ("alone", "x", 8, 3, 4, 2.5),
        ("a", "y\\x1b", 9, -1, 4, 2.5),
    ]  # fmt: skip


def test_without_any_row_the_columns_are_empty_and_of_their_kinds(written: Any, tmp_path: Path) -> None:
    _Rows().write(tmp_path / "t")
    assert (written.tracks, written.names, written.rows) == ([], [""], [])
    assert (tmp_path / "t").exists()


def test_an_error_of_the_writer_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def write(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(_core, "perfetto_write", write)
    with pytest.raises(OSError, match="disk full") as found:
        _Rows().write(tmp_path / "t")
    assert str(found.value) == f"{tmp_path / 't'}: disk full"
    assert str(found.value.__cause__) == "disk full"
    with pytest.raises(FileNotFoundError) as gone:
        _Rows().write(tmp_path / "none" / "t")
    assert gone.value.filename == str(tmp_path / "none" / "t")


CALLS = columns(cpu=[], sender_cpu=[], function=[], queued_s=[], ran_s=[])
CAUSES = {
    "timer": ("timer interrupt", "interrupt"), "device": ("device interrupt", "interrupt"), "nmi": ("NMI", "nmi"),
    "smi": ("firmware (SMI)", "firmware"),
}  # fmt: skip


def recorded(path: Path, **given: Any) -> None:
    usual: dict[str, Any] = {
        "spans": columns(cpu=[], cause=[], at_s=[], length_us=[]), "calls": CALLS, "lazy": columns(at_s=[], pages=[]),
        "purges": columns(at_s=[], areas=[]), "isolated": (2, 3), "causes": CAUSES, "deferred": {},
    }  # fmt: skip
    of_trace(path, **(usual | given))


def test_what_took_a_cpu_stands_on_a_track_per_kind_of_the_isolated_ones(
    written: Any, tmp_path: Path
) -> None:
    spans = columns(
        cpu=[3, 2, 2, 2, 1, 2], cause=["timer", "timer", "smi", "nmi", "timer", "device"],
        at_s=[0.5, 1.0, 1.5e-9, 1e-6, 2.0, 3.0], length_us=[nan, 1.0006, 2.0, 0.0, 9.0, 0.0014],
    )  # fmt: skip
    recorded(tmp_path / "t", spans=spans)
    assert written.tracks == [
        ("CPU 2 (isolated)", -1, False), ("firmware", 0, False), ("interrupts", 0, False), ("nmis", 0, False),
        ("CPU 3 (isolated)", -1, False), ("interrupts", 4, False),
    ]  # fmt: skip
    assert written.rows == [
        ("firmware", "firmware (SMI)", 2, 2000, 0, 0.0),
        ("interrupts", "timer interrupt", 1_000_000_000, 1001, 0, 0.0),
        ("interrupts", "device interrupt", 3_000_000_000, 1, 0, 0.0),
        ("nmis", "NMI", 1000, 0, 0, 0.0),
        ("interrupts", "timer interrupt", 500_000_000, -1, 0, 0.0),
    ]


def test_a_call_is_an_arrow_from_its_sender_where_both_ends_are_known(written: Any, tmp_path: Path) -> None:
    calls = columns(
        cpu=[2, 3, 2, 2, 3], sender_cpu=[0, 2, -1, 0, 0], function=["f", "g", "f", "f", "f"],
        queued_s=[1.0, 2.0, 3.0, nan, 5.0], ran_s=[1.5, 2.5, 3.5, 4.0, nan],
    )  # fmt: skip
    recorded(tmp_path / "t", calls=calls)
    assert written.tracks == [
        ("CPU 0", -1, False), ("asks other CPUs", 0, False), ("CPU 2 (isolated)", -1, False),
        ("asks other CPUs", 2, False), ("remote calls run", 2, False),
        ("CPU 3 (isolated)", -1, False), ("remote calls run", 5, False),
    ]  # fmt: skip
    assert written.rows == [
        ("asks other CPUs", "f", 1_000_000_000, -1, 1, 0.0),
        ("asks other CPUs", "g", 2_000_000_000, -1, 2, 0.0),
        ("remote calls run", "f", 1_500_000_000, -1, 1, 0.0),
        ("remote calls run", "g", 2_500_000_000, -1, 2, 0.0),
    ]


def test_what_would_wait_is_one_counter_or_two_and_none_where_nothing_does(
    written: Any, tmp_path: Path
) -> None:
    same = columns(
        cpu=[2, 2, 2, 2], in_favour=[True, True, False, False], at_s=[1, 2, 1, 2], value=[1, 0, 1, 0]
    )
    for_one = columns(cpu=[2, 2, 3], in_favour=[True, False, False], at_s=[1.0, 1.0, 2.0], value=[1, 2, 3])
    recorded(tmp_path / "t", deferred={"p": same, "q": for_one})
    by_it, against = (
        "deferred under q, the open taken in its favour",
        "deferred under q, the open taken against it",
    )
    assert written.tracks == [
        ("CPU 2 (isolated)", -1, False), ("deferred under p", 0, True), (by_it, 0, True), (against, 0, True),
        ("CPU 3 (isolated)", -1, False), (against, 4, True),
    ]  # fmt: skip
    assert written.names == ["requests"]
    assert [(track, at, value) for track, _, at, _, _, value in written.rows] == [
        ("deferred under p", 1_000_000_000, 1.0), ("deferred under p", 2_000_000_000, 0.0), (by_it, 1_000_000_000, 1.0),
        (against, 1_000_000_000, 2.0), (against, 2_000_000_000, 3.0),
    ]  # fmt: skip


def test_the_lazy_list_and_purges_are_counters_if_there_are_any(written: Any, tmp_path: Path) -> None:
    recorded(
        tmp_path / "t", lazy=columns(at_s=[1.0], pages=[7]), purges=columns(at_s=[2.0, 3.0], areas=[8, 9])
    )
    assert written.tracks == [
        ("vmalloc", -1, False), ("lazily freed pages", 0, True), ("areas handed back by a purge", 0, True),
    ]  # fmt: skip
    assert written.rows == [
        ("lazily freed pages", "pages", 1_000_000_000, -1, 0, 7.0),
        ("areas handed back by a purge", "areas", 2_000_000_000, -1, 0, 8.0),
        ("areas handed back by a purge", "areas", 3_000_000_000, -1, 0, 9.0),
    ]
    recorded(tmp_path / "t")
    assert (written.tracks, written.rows) == ([], [])


def test_a_simulation_has_its_events_levels_and_purges_on_their_tracks(written: Any, tmp_path: Path) -> None:
    t = columns(
        time_ps=[1_000_000, 2_000_000, 3_600_000_000_000_001], cpu=[1, 0, 0], kind=["nmi", "x_y_z", "nmi"],
        cause=["b", "a", "b"], duration_ps=[1, 1500, 2501],
    )  # fmt: skip
    levels = columns(
        time_ps=[1000, 2000, 3000], cpu=[0, -1, 1], value=[1, 2, 3],
        level=["deferred_syncs", "lazy_pages", "deferred_flushes"],
    )  # fmt: skip
    of_simulation(tmp_path / "t", t, levels, columns(time_ps=[4000], areas=[5]), isolated={1})
    assert written.tracks == [
        ("CPU 0", -1, False), ("nmi", 0, False), ("x y z", 0, False), ("CPU 1 (isolated)", -1, False),
        ("nmi", 3, False), ("vmalloc", -1, False),
        ("lazily freed pages", 5, True), ("deferred syncs of patched text", 0, True),
        ("deferred flushes", 3, True), ("areas handed back by a purge", 5, True),
    ]  # fmt: skip
    assert written.rows == [
        ("nmi", "b", 3_600_000_000_000, 3, 0, 0.0),
        ("x y z", "a", 2000, 2, 0, 0.0),
        ("nmi", "b", 1000, 0, 0, 0.0),
        ("lazily freed pages", "value", 2, -1, 0, 2.0),
        ("deferred syncs of patched text", "value", 1, -1, 0, 1.0),
        ("deferred flushes", "value", 3, -1, 0, 3.0),
        ("areas handed back by a purge", "areas", 4, -1, 0, 5.0),
    ]
    of_simulation(tmp_path / "t", t, {}, columns(time_ps=[], areas=[]), isolated=())
    assert [name for name, *_ in written.tracks] == ["CPU 0", "nmi", "x y z", "CPU 1", "nmi"]


def test_shootdowns_stand_on_threads_and_on_the_cpus_that_they_interrupt(
    written: Any, tmp_path: Path
) -> None:
    spans = columns(
        what=["munmap", "flush", "flush", "flush", "flush"], kind=["call", "flush", "handler", "handler", "handler"],
        thread=[7, 7, -1, -1, -1], sender=[-1, -1, 7, 7, 8], cpu=[0, 0, 3, 4, 3], at_s=[1.0, 1.5, 2.0, 2.5, 3.0],
        length_us=[4.0006, nan, 2.0, nan, 5.0], asked_s=[nan, nan, 1.75, 2.25, 2.75],
    )  # fmt: skip
    of_shootdowns(tmp_path / "t", spans, {9: "idle 9", 7: "db 7"})
    assert written.tracks == [
        ("threads", -1, False), ("db 7", 0, False), ("CPU 3", -1, False), ("flushes for others", 2, False),
        ("CPU 4", -1, False), ("flushes for others", 4, False),
    ]  # fmt: skip
    assert written.rows == [
        ("db 7", "munmap", 1_000_000_000, 4001, 0, 0.0),
        ("db 7", "flush", 1_500_000_000, -1, 0, 0.0),
        ("db 7", "asks CPU 3", 1_750_000_000, -1, 3, 0.0),
        ("db 7", "asks CPU 4", 2_250_000_000, -1, 4, 0.0),
        ("flushes for others", "flush", 2_000_000_000, 2000, 3, 0.0),
        ("flushes for others", "flush", 2_500_000_000, -1, 4, 0.0),
    ]
