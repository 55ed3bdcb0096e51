"""A recorder that is killed, fills the disk or is asked for CPUs that are not there leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.trace.test_trace_record import EVENTS, Machine

import tlbcore as tc
from tlbcore.trace.recorder import guard
from tlbcore.trace.recorder.run import record
from tlbcore.trace.recorder.settings import Recording


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, EVENTS)


def wait_for(what, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(what())


def test_a_killed_recorder_is_stopped_by_its_watchdog(tmp_path: Path):
    """SIGKILL runs no `finally`; without the watchdog isolated CPUs would be traced until the next boot."""
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.trace.test_trace_record import EVENTS, Machine\n"
        "from tlbcore.trace.recorder.run import record\n"
        "from tlbcore.trace.recorder.settings import Recording\n"
        "here = Path(sys.argv[1]); machine = Machine(here, EVENTS)\n"
        "record(Recording(out=here / 'out', isolated=(2, 3)), machine.handle, machine.root)\n"
    )
    recorder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2])
    tracing = tmp_path / "tracing"

    def on() -> list[Path]:
        return [f for f in tracing.glob("instances/*/tracing_on") if f.read_text().strip() == "1"]

    assert wait_for(on), "it records"
    (here,) = tracing.glob("instances/*")
    start, namespaces = guard._start(Path("/"), recorder.pid), guard._namespaces(Path("/"))
    assert here.name == f"tlbcore-{recorder.pid}-{start}-{namespaces}"

    os.kill(recorder.pid, signal.SIGKILL)
    recorder.wait()

    assert wait_for(lambda: not on())
    enable = here / "events/enable"
    assert wait_for(lambda: enable.exists() and enable.read_text() == "0\n")
    assert wait_for(lambda: "-:tlbcore/flush_tlb_kernel_range\n" in (tracing / "kprobe_events").read_text())


def test_the_watchdog_of_a_recorder_that_ends_by_itself_does_nothing(tmp_path: Path):
    here = tmp_path / "instance"
    (here / "events").mkdir(parents=True)
    with guard.watchdog(here, tmp_path / "kprobe_events", ["f"]):
        assert not (here / "tracing_on").exists()
    assert list(here.iterdir()) == [here / "events"]
    assert not (tmp_path / "kprobe_events").exists()


def left_over(machine: Machine, name: str) -> Path:
    """An instance as tracefs has it: its files go with the folder."""
    here = machine.tracefs / "instances" / name
    here.mkdir()
    return here


def seen_from(root: Path, pid: str | None = "pid:[5]", time: str | None = "time:[6]", me: int = 0) -> None:
    """/proc of whoever cleans: its own number, and its namespaces (None: the kernel has none)."""
    me = me or os.getpid()
    (root / f"proc/{me}/ns").mkdir(parents=True, exist_ok=True)
    (root / "proc/self").symlink_to(str(me))
    for name, target in (("pid", pid), ("time", time)):
        if target is not None:
            (root / f"proc/{me}/ns/{name}").symlink_to(target)


def running(root: Path, pid: int, start: int) -> None:
    (root / f"proc/{pid}").mkdir(parents=True, exist_ok=True)
    fields = " ".join(str(number) for number in range(4, 22))
    (root / f"proc/{pid}/stat").write_text(f"{pid} (tl b) core) S {fields} {start} 23 24\n")
    assert guard._start(root, pid) == start


def test_clean_removes_what_dead_recorders_left_and_nothing_else(machine: Machine):
    seen_from(machine.root)
    running(machine.root, 77, 22)
    probes = machine.tracefs / "kprobe_events"
    probes.write_text("p:tlbcore/set_memory_ro set_memory_ro\np:mine/other f\n")
    living = left_over(machine, "tlbcore-77-22-5-6")
    noise = left_over(machine, "tlbcore-77-22-5-6-noise")
    again = left_over(machine, "tlbcore-77-21-5-6")  # that number was given to another process since
    dead = left_over(machine, "tlbcore-78-5-5-6")
    others = [left_over(machine, "trace-cmd"), left_over(machine, "tlbcore-notes-x")]

    removed, left, unknown = guard.clean(machine.tracefs, machine.root)

    assert removed == [f"instance {here.name}" for here in (again, dead)]
    assert left == unknown == []
    assert all(here.is_dir() for here in (living, noise, *others))
    assert "-:" not in probes.read_text(), "a living recorder may use them"


ELSEWHERE = "its recorder is in another PID or time namespace"
UNSAID = "its name does not say which PID namespace its recorder is in"
NO_PROC = "/proc is not there, or of another PID namespace"


@pytest.mark.parametrize(
    ("name", "here", "why"),
    [
        ("tlbcore-78-5-5-6", {}, None),
        ("tlbcore-78-5-9-6", {}, ELSEWHERE),  # 78 is another process in there, and may live
        ("tlbcore-77-21-5-9", {}, ELSEWHERE),  # starts are shifted in a time namespace: 21 there may be 22 here
        ("tlbcore-78-5-9-6-noise", {}, ELSEWHERE),
        ("tlbcore-78-5", {}, UNSAID),
        ("tlbcore-78", {}, UNSAID),
        ("tlbcore-78-5-0-0", {"pid": None, "time": None}, None),  # a kernel without namespaces
        ("tlbcore-78-5-5-0", {"time": None}, None),  # before 5.6
        ("tlbcore-78-5-5-6", {"pid": None}, ELSEWHERE),
        ("tlbcore-78-5-5-6", {"me": 1}, NO_PROC),  # unshare --pid without a /proc of its own
    ],
)  # fmt: skip
def test_what_cannot_be_told_dead_from_here_is_left_alone(machine: Machine, name, here, why):
    seen_from(machine.root, **here)
    running(machine.root, 77, 22)
    instance = left_over(machine, name)
    (machine.tracefs / "kprobe_events").write_text("p:tlbcore/set_memory_ro set_memory_ro\n")

    removed, left, unknown = guard.clean(machine.tracefs, machine.root)

    assert left == []
    assert unknown == ([] if why is None else [f"instance {name} ({why})"])
    assert instance.is_dir() == (why is not None)
    assert removed == ([f"instance {name}", "kprobe tlbcore/set_memory_ro"] if why is None else [])


def test_without_a_proc_nothing_is_removed(machine: Machine):
    left_over(machine, "tlbcore-78-5-5-6")
    _, _, unknown = guard.clean(machine.tracefs, machine.root)
    assert unknown == [f"instance tlbcore-78-5-5-6 ({NO_PROC})"]


def test_clean_removes_probes_when_no_recorder_is_left(machine: Machine):
    seen_from(machine.root)
    probes = machine.tracefs / "kprobe_events"
    probes.write_text("p:tlbcore/set_memory_ro set_memory_ro\np:mine/other f\n")
    left_over(machine, "tlbcore-78-5-5-6")

    removed, left, unknown = guard.clean(machine.tracefs, machine.root)

    assert removed == ["instance tlbcore-78-5-5-6", "kprobe tlbcore/set_memory_ro"]
    assert left == unknown == []
    assert probes.read_text().endswith("-:tlbcore/set_memory_ro\n")
    assert "mine/other" not in probes.read_text().split("p:mine")[1].split("\n", 1)[1]


def test_clean_says_what_it_could_not_remove(machine: Machine):
    seen_from(machine.root)
    busy = left_over(machine, "tlbcore-78-5-5-6")
    (busy / "used").mkdir()
    assert guard.clean(machine.tracefs, machine.root) == (
        [],
        ["instance tlbcore-78-5-5-6 (directory not empty)"],
        [],
    )


def test_the_command_says_what_it_left_alone(machine: Machine, monkeypatch, capsys):
    from tlbcore.cli.record import _clean
    from tlbcore.trace.recorder.settings import Tracefs

    monkeypatch.setattr(Tracefs, "find", lambda: machine.handle)
    _clean()
    assert capsys.readouterr().out == "nothing was left by a recorder that no longer runs\n"
    left_over(machine, "tlbcore-78-5-9-6")
    _clean()
    assert capsys.readouterr().out == (
        f"left alone, whether its recorder runs is not known here: instance tlbcore-78-5-9-6 ({ELSEWHERE})\n"
        f"  remove one whose recorder is gone: rmdir {machine.tracefs}/instances/NAME\n"
    )


def test_cpus_that_the_machine_does_not_have_are_refused_before_anything_is_made(
    machine: Machine, tmp_path: Path
):
    with pytest.raises(tc.TraceError, match=r"^CPU 4: not online here; these are: 0-3$"):
        record(Recording(out=tmp_path / "o", isolated=(3, 4)), machine.handle, machine.root)
    with pytest.raises(tc.TraceError, match=r"^CPUs 4-5: not online here"):
        record(Recording(out=tmp_path / "o", isolated=(4, 5)), machine.handle, machine.root)
    assert not (tmp_path / "o").exists()
    assert list((machine.tracefs / "instances").iterdir()) == []


def test_settings_that_the_kernel_refuses_are_told(machine: Machine, tmp_path: Path):
    made = machine.make

    def without_clock(here: Path) -> None:
        made(here)
        (here / "trace_clock").mkdir()

    machine.make = without_clock  # type: ignore[method-assign]
    done = record(Recording(out=tmp_path / "o", isolated=(2,), seconds=0.1), machine.handle, machine.root)
    assert done.unset == ["trace_clock to mono"]


def test_a_full_disk_names_the_file_and_everything_is_undone(machine: Machine):
    full = Path("/dev/full")

    class Full(type(full)):  # type: ignore[misc]
        def open(self, mode: str = "r", *_: object, **__: object):
            return open("/dev/full", "wb")  # noqa: PTH123

    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        record(Recording(out=Full("/dev/full"), isolated=(2,), seconds=0.1), machine.handle, machine.root)
    assert list((machine.tracefs / "instances").iterdir()) == []
