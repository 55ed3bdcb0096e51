# ruff: noqa: F811  # a fixture is imported
"""What the recorder writes into an instance of tracefs by what was asked for, and what of it is undone."""

from __future__ import annotations

import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.trace.test_trace_record import EVENTS, Machine, machine, pipe_line  # noqa: F401

import tlbcore as tc
from tlbcore.trace.recorder import run as recorder
from tlbcore.trace.recorder import settings
from tlbcore.trace.recorder.run import record
from tlbcore.trace.recorder.settings import Outcome, Recording, Tracefs, duration_s, noise_us


def written(machine: Machine, what: Recording) -> tuple[Outcome, dict[str, dict[str, str]]]:
    """Record, and return for each instance what its files hold when it is removed."""
    found: dict[str, dict[str, str]] = {}

    def remove(here: Path) -> None:
        name = "noise" if here.name.endswith("-noise") else "main"
        found[name] = {
            str(file.relative_to(here)): file.read_text()
            for file in here.rglob("*")
            if file.is_file() and file.name not in ("trace", "trace_pipe", "stats")
        }
        machine.remove(here)

    handle = Tracefs(path=machine.tracefs, make=machine.make, remove=remove)
    return record(what, handle, machine.root), found


ON = {f"events/{name}/enable": "1" for name in EVENTS}
FILTERS = {
    "events/ipi/ipi_send_cpumask/filter": "cpumask & CPUS{2}",
    "events/csd/csd_queue_cpu/filter": "cpu & CPUS{2}",
    "events/irq_vectors/call_function_entry/filter": "CPU & CPUS{2}",
}
USUAL = {
    "tracing_on": "0",
    "events/enable": "0",
    "buffer_size_kb": "4096",
    "trace_clock": "mono",
    **ON,
    **FILTERS,
}


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, {}),
        ({"buffer_kb": 64}, {"buffer_size_kb": "64"}),
        ({"flight": True}, {"options/overwrite": "1"}),
        ({"noise_us": 20.0}, {"options/overwrite": "1"}),
        ({"stacks": True}, {"events/ipi/ipi_send_cpumask/trigger": "stacktrace"}),
        ({"kprobes": False}, {"events/tlbcore/enable": None}),
    ],
)
def test_an_instance_is_set_up_as_it_was_asked_for(
    machine: Machine,
    tmp_path: Path,
    options: dict[str, Any],
    more: dict[str, str | None],
):
    what = Recording(out=tmp_path / "o", isolated=(2,), seconds=0.05, **options)
    done, found = written(machine, what)
    wanted = {name: text for name, text in {**USUAL, **more}.items() if text is not None}
    assert found["main"] == wanted
    assert set(found) == ({"main", "noise"} if "noise_us" in options else {"main"})
    if "noise_us" in options:
        events = {name: text for name, text in {**ON, **FILTERS}.items() if "irq_vectors" in name}
        assert found["noise"] == {
            "tracing_on": "0", "events/enable": "0", "buffer_size_kb": "256", "trace_clock": "mono", **events,
        }  # fmt: skip
    probes = (machine.tracefs / "kprobe_events").read_text()
    assert probes.count("p:tlbcore/") == probes.count("-:tlbcore/") == (0 if "kprobes" in options else 10)
    assert ("tlbcore/*" in done.events) is ("kprobes" not in options)
    assert done.unset == (
        ["tlbcore/flush_tlb_kernel_range/trigger to stacktrace"] if "stacks" in options else []
    )
    assert (done.left, done.lost, done.snapshots) == ([], 8, 0)


def test_without_kprobe_events_no_probe_is_set(machine: Machine, tmp_path: Path):
    (machine.tracefs / "kprobe_events").unlink()
    machine.remove = shutil.rmtree  # type: ignore[method-assign]
    done, _ = written(machine, Recording(out=tmp_path / "o", isolated=(2,), seconds=0.05))
    assert "kprobes: this kernel has no kprobe_events" in done.refused
    assert not (machine.tracefs / "kprobe_events").exists()
    quiet = Recording(out=tmp_path / "q", isolated=(2,), seconds=0.05, kprobes=False)
    assert not any("kprobe" in name for name in written(machine, quiet)[0].refused), "none was asked for"


def test_a_command_that_outlives_the_time_is_ended_and_has_no_status(machine: Machine, tmp_path: Path):
    what = Recording(out=tmp_path / "o", isolated=(2,), seconds=0.2, command=("sleep", "60"))
    start = time.monotonic()
    done, _ = written(machine, what)
    assert done.status is None
    assert done.seconds == pytest.approx(time.monotonic() - start, abs=0.5)
    assert done.seconds < 30


def test_the_longest_of_several_is_told_and_the_rest_counted(tmp_path: Path):
    (tmp_path / "events/irq_vectors/local_timer_entry").mkdir(parents=True)
    lines = [pipe_line(n, "local_timer_entry") + pipe_line(n + us / 1e6, "local_timer_exit")
             for n, us in ((1, 30), (2, 90), (3, 5), (4, 40))]  # fmt: skip
    (tmp_path / "trace_pipe").write_text("".join(lines))
    look = recorder._noise(tmp_path, Recording(out=tmp_path / "o", isolated=(2,), noise_us=20))
    assert (tmp_path / "tracing_on").read_text() == "0"
    assert look() == "CPU 2 kept from its task for 90.0 us by local_timer at 2.000090 and 2 more"
    assert (tmp_path / "tracing_on").read_text() == "1"
    with pytest.raises(tc.TraceError, match="none of the events that tell how long an interrupt took"):
        recorder._noise(tmp_path / "none", Recording(out=tmp_path / "o", isolated=(2,), noise_us=20))


def test_lost_events_are_summed_over_cpus(tmp_path: Path):
    for cpu, text in enumerate(
        ("entries: 5\noverrun: 7\ncommit overrun: 100\ndropped events: 1\n", "overrun: 20\nread events: 9\n")
    ):
        stats = tmp_path / f"per_cpu/cpu{cpu}/stats"
        stats.parent.mkdir(parents=True)
        stats.write_text(text)
    assert recorder._lost(tmp_path) == 28


def test_a_file_is_replaced_or_added_to_and_a_refusal_is_told(tmp_path: Path):
    file = tmp_path / "f"
    assert recorder._try(file, "long text")
    assert recorder._try(file, "x")
    assert file.read_text() == "x"
    assert recorder._try(file, "y", append=True)
    assert file.read_text() == "xy"
    assert not recorder._try(tmp_path / "no" / "f", "x")
    assert not recorder._try(Path("/dev/full"), "x")


def test_a_hangup_that_was_ignored_stays_so(machine: Machine, tmp_path: Path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with recorder._terminable():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "as nohup leaves it"
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("10s", 10), ("5m", 300), ("2h", 7200), ("3d", 259_200), ("0.5 s", 0.5), (" 1.5m ", 90)],
)
def test_a_duration_is_in_seconds(text: str, seconds: float):
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "us"), [("20", 20), ("20us", 20), ("1.5ms", 1500), ("2 s", 2e6), ("60s", 60e6), ("0.1", 0.1)]
)
def test_a_noise_threshold_is_in_microseconds(text: str, us: float):
    assert noise_us(text) == us


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        *((duration_s, text, "expected a number and s, m, h or d")
          for text in ("", "s", "5x", "1e3", "-1s", "1.2.3s", "5 s s")),
        *((duration_s, text, "must be positive") for text in ("0", "0s", "0.0d")),
        *((noise_us, text, "expected a number and us, ms or s")
          for text in ("", "us", "5m", "1e3", "-1", "1.2.3us", ".")),
        *((noise_us, text, "must be more than 0 and at most 60 s")
          for text in ("0", "0us", "60.1s", "60000001", "61 s")),
    ],
)  # fmt: skip
def test_what_is_no_duration_or_threshold_is_refused_as_it_was_written(read: Any, text: str, said: str):
    what = "duration" if read is duration_s else "noise"
    with pytest.raises(tc.TraceError) as found:
        read(text)
    assert str(found.value) == f"{what} {text!r}: {said}"
    assert found.value.__suppress_context__ is said.startswith("expected")


def test_probes_print_their_arguments_in_the_order_in_which_registers_hold_them():
    every = (*settings._KPROBES, *settings.SHOOTDOWN_KPROBES)
    for name, arguments in every:
        given = re.findall(r"(\w+)=%(\w+):([xsu]\d+)", arguments)
        assert " ".join(f"{field}=%{register}:{kind}" for field, register, kind in given) == arguments, name
        registers = [register for _, register, _ in given]
        assert registers == ["di", "si", "dx", "cx", "r8", "r9"][: len(registers)], name
        assert len({field for field, *_ in given}) == len(given)
    ranges = dict(settings._KPROBES)
    assert ranges["flush_tlb_kernel_range"] == "start=%di:x64 end=%si:x64", "addresses are hexadecimal"
    assert ranges["_vm_unmap_aliases"] == "start=%di:x64 end=%si:x64 flush=%dx:s32", "and counts are not"
    pages = {name: arguments for name, arguments in settings._KPROBES if name.startswith("set_memory")}
    assert pages == dict.fromkeys(
        ("set_memory_ro", "set_memory_rox", "set_memory_nx", "set_memory_rw"), "addr=%di:x64 numpages=%si:s32"
    )
    bare = [name for name, arguments in settings._KPROBES if not arguments]
    assert bare == ["flush_tlb_all", "drain_vmap_area_work", "do_flush_tlb_all", "do_kernel_range_flush"]


def test_with_processes_their_shootdowns_are_recorded_and_not_what_interrupts():
    usual, shootdowns = Recording(out=Path("o")), Recording(out=Path("o"), processes=(7,))
    assert (usual.events, usual.probes) == (settings.EVENTS, settings._KPROBES)
    assert (shootdowns.events, shootdowns.probes) == (settings.SHOOTDOWN_EVENTS, settings.SHOOTDOWN_KPROBES)
    assert usual.events != shootdowns.events
    assert usual.buffer_kb > settings.NOISE_BUFFER_KB, "the second ring is a small one"
    assert [name for name, _ in usual.events if name.startswith(settings.NOISE)] == [
        *(f"irq_vectors/{vector}_{end}"
          for vector in ("call_function", "call_function_single", "reschedule", "local_timer", "irq_work")
          for end in ("entry", "exit")),
        "irq/irq_handler_entry", "irq/irq_handler_exit", "sched/sched_switch", "irq/softirq_entry", "irq/softirq_exit",
    ]  # fmt: skip


# The field of each event that names the CPU that is asked or that it happens on; None: kept whole.
FIELDS = {
    "ipi/ipi_send_cpu": "cpu",
    "ipi/ipi_send_cpumask": "cpumask",
    "csd/csd_queue_cpu": "cpu",
    **dict.fromkeys(
        ("vmalloc/alloc_vmap_area", "vmalloc/free_vmap_area_noflush", "vmalloc/purge_vmap_area_lazy",
         "context_tracking/user_enter", "context_tracking/user_exit", "sched/sched_process_fork",
         "sched/sched_process_exit", "cgroup/cgroup_attach_task", "cgroup/cgroup_transfer_tasks")
    ),
}  # fmt: skip


def test_every_event_keeps_what_concerns_the_isolated_cpus():
    """Senders are elsewhere, so their events are told by whom they ask; the rest by where it happens."""
    for name, wanted in settings.EVENTS:
        field = FIELDS.get(name, "CPU")
        assert wanted.format(cpus="2-3") == ("" if field is None else f"{field} & CPUS{{2-3}}"), name
    names = [name for name, _ in settings.EVENTS]
    assert len(set(names)) == len(names) == 33
    assert set(FIELDS) <= set(names)
    for name in names:
        if name.endswith("_entry") and "hrtimer" not in name:
            assert name.removesuffix("entry") + "exit" in names


@pytest.mark.parametrize(
    ("seconds", "noise", "pause"),
    [
        (None, None, 1.0),
        (2.0, None, 1.0),
        (1.9, None, 0.05),
        (None, 20.0, 0.25),
        (2.0, 20.0, 0.25),
        (1.9, 20.0, 0.05),
    ],
)
def test_a_flight_recorder_looks_as_often_as_it_must(
    seconds: float | None, noise: float | None, pause: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Hit at the second look: the ring is saved and emptied, and what saving took is not told."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    (tmp_path / "trace").write_text("# tracer: nop\nhit\n")
    looks = iter(["", "", "CPU 2 CAL +1", "CPU 2 CAL +9", ""])
    what = Recording(out=tmp_path / "o", isolated=(2,), seconds=seconds, noise_us=noise, flight=True)
    outcome = Outcome()
    with (tmp_path / "o").open("wb") as out:
        recorder._flight(tmp_path, what, out, outcome, lambda: len(pauses) == 3, hits=lambda: next(looks))
    assert pauses == [pause] * 3
    note, line = (tmp_path / "o").read_text().splitlines()
    assert note.startswith("# tlbcore snapshot | 1 at ")
    assert note.endswith(": CPU 2 CAL +1")
    assert line == "hit"
    assert outcome.snapshots == 1
    assert (tmp_path / "trace").read_text() == ""
    assert (tmp_path / "tracing_on").read_text() == "1"


@pytest.mark.parametrize(("most", "taken"), [(0, 4), (1, 1), (3, 3), (4, 4), (5, 4)])
def test_a_flight_recorder_stops_at_its_number_of_snapshots(
    most: int, taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    (tmp_path / "trace").write_text("")
    over = iter([False] * 4 + [True])
    outcome = Outcome()
    what = Recording(out=tmp_path / "o", isolated=(2,), seconds=1, flight=True, snapshots=most)
    with (tmp_path / "o").open("wb") as out:
        recorder._flight(tmp_path, what, out, outcome, lambda: next(over), hits=lambda: "hit")
    assert outcome.snapshots == taken


def test_tracefs_is_found_where_it_is_mounted_and_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(settings, "Path", lambda place: tmp_path / place.lstrip("/"))
    usual, old = tmp_path / "sys/kernel/tracing", tmp_path / "sys/kernel/debug/tracing"
    old.mkdir(parents=True)
    with pytest.raises(tc.TraceError, match="no tracefs: mount -t tracefs"):
        Tracefs.find()
    (old / "instances").mkdir()
    assert Tracefs.find().path == old
    (usual / "instances").mkdir(parents=True)
    found = Tracefs.find()
    assert found.path == usual
    found.make(usual / "instances/x")
    found.remove(usual / "instances/x")
    assert list((usual / "instances").iterdir()) == []
    monkeypatch.setattr(settings.os, "access", lambda _, mode: mode != settings.os.W_OK)
    with pytest.raises(
        tc.TraceError, match=r"^/sys/kernel/tracing: recording needs root, which may write there"
    ):
        Tracefs.find()

    def refused(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(tc.TraceError, match="needs root, which may read and write there"):
        Tracefs.find()


def test_what_is_left_out_of_a_recording_has_its_usual_value():
    what = Recording(out=Path("o"))
    assert (what.isolated, what.seconds, what.command, what.noise_us, what.processes) == (
        (),
        None,
        (),
        None,
        (),
    )
    assert (what.kprobes, what.stacks, what.flight, what.snapshots, what.buffer_kb) == (
        True,
        False,
        False,
        0,
        4096,
    )
    done = Outcome()
    assert (done.bytes, done.lost, done.cpu_s, done.seconds, done.snapshots, done.status) == (
        0,
        0,
        0,
        0,
        0,
        None,
    )
    assert not any((done.events, done.refused, done.unset, done.left))
    for made in (Recording, Outcome, Tracefs):
        with pytest.raises(TypeError, match="positional"):
            made(Path("o"))  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("full", "isolated", "found"),
    [
        ("2-3", "3", (2, 3)),
        ("(null)", "3", (3,)),
        ("", "1,4-5", (1, 4, 5)),
        (None, "3", (3,)),
        ("(null)", "", None),
    ],
)
def test_isolated_cpus_are_those_of_the_first_file_that_names_some(
    full: str | None, isolated: str, found: tuple[int, ...] | None, tmp_path: Path
):
    folder = tmp_path / "sys/devices/system/cpu"
    folder.mkdir(parents=True)
    for name, text in (("nohz_full", full), ("isolated", isolated)):
        if text is not None:
            (folder / name).write_text(f"{text}\n")
    if found is None:
        with pytest.raises(tc.TraceError, match="no CPU of this machine is isolated"):
            settings.isolated_cpus(tmp_path)
    else:
        assert settings.isolated_cpus(tmp_path) == found
