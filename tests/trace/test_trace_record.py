"""`tlbcore record` on an imitation of tracefs: what is written where, and that everything is undone."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

import tlbcore as tc
from tlbcore.trace.conditions import Condition
from tlbcore.trace.recorder import run as recorder
from tlbcore.trace.recorder.process import find_processes
from tlbcore.trace.recorder.run import record
from tlbcore.trace.recorder.settings import Recording, Tracefs, duration_s, isolated_cpus, noise_us

LINE = "            spin-636     [002] d....   245.802753: user_exit: \n"


class Machine:
    """Directories that look like tracefs, /proc and /sys."""

    def __init__(self, path: Path, events: tuple[str, ...]) -> None:
        self.root = path / "root"
        self.tracefs = path / "tracing"
        self.events = events
        self.writes: list[str] = []
        for folder in ("proc", "sys/devices/system/cpu"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "proc/version").write_text("Linux version 6.12.0\n")
        (self.root / "proc/cmdline").write_text("nohz_full=2-3\n")
        (self.root / "sys/devices/system/cpu/online").write_text("0-3\n")
        self.interrupts(0)
        (self.tracefs / "instances").mkdir(parents=True)
        (self.tracefs / "kprobe_events").write_text("")

    def interrupts(self, cal: int) -> None:
        text = f"           CPU0 CPU1 CPU2 CPU3\n CAL: 1 1 {cal} 0 Function call interrupts\n"
        swap = self.root / "proc/interrupts.new"
        swap.write_text(text)
        swap.replace(self.root / "proc/interrupts")

    def make(self, here: Path) -> None:
        for name in self.events:
            (here / "events" / name).mkdir(parents=True)
        (here / "options").mkdir()
        (here / "trace_pipe").write_text(LINE * 3)
        (here / "trace").write_text("# tracer: nop\n" + LINE)
        stats = here / "per_cpu/cpu0/stats"
        stats.parent.mkdir(parents=True)
        stats.write_text("entries: 5\noverrun: 7\ndropped events: 1\n")

    def remove(self, here: Path) -> None:
        # The kernel refuses to remove a probe that an instance has switched on.
        assert "-:" not in (self.tracefs / "kprobe_events").read_text().split("p:")[-1]
        for name in ("tracing_on", "events/enable"):
            self.writes.append(f"{name}={(here / name).read_text()}")
        for name in self.events:
            filter_ = here / "events" / name / "filter"
            self.writes.append(f"{name} filter={filter_.read_text() if filter_.exists() else ''}")
        shutil.rmtree(here)

    @property
    def handle(self) -> Tracefs:
        return Tracefs(path=self.tracefs, make=self.make, remove=self.remove)


EVENTS = (
    "ipi/ipi_send_cpumask",
    "csd/csd_queue_cpu",
    "vmalloc/purge_vmap_area_lazy",
    "irq_vectors/call_function_entry",
    "tlbcore",
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, EVENTS)


def test_a_recording_is_a_trace_with_its_machine_in_comments(machine: Machine, tmp_path: Path):
    out = tmp_path / "out.txt"

    done = record(Recording(out=out, isolated=(2, 3), seconds=0.2), machine.handle, machine.root)

    text = out.read_text()
    assert "# tlbcore version | Linux version 6.12.0" in text
    assert "# tlbcore cmdline | nohz_full=2-3" in text
    assert "# tlbcore interrupts_before |  CAL:" in text
    assert "# tlbcore interrupts_after |  CAL:" in text
    assert done.lost == 8
    assert done.bytes == len(text)
    trace = tc.read_trace(out)
    assert (trace.isolated, trace.isolated_from) == ((2, 3), "recorded")
    assert trace.figures["machine_cpus"] == 4
    assert trace.figures["broken_lines"] == 0
    assert trace.events >= 3


def test_filters_name_the_isolated_cpus_and_missing_events_are_told(machine: Machine, tmp_path: Path):
    done = record(Recording(out=tmp_path / "o", isolated=(2, 3), seconds=0.1), machine.handle, machine.root)

    assert "ipi/ipi_send_cpumask filter=cpumask & CPUS{2-3}" in machine.writes
    assert "csd/csd_queue_cpu filter=cpu & CPUS{2-3}" in machine.writes
    assert "vmalloc/purge_vmap_area_lazy filter=" in machine.writes
    assert "context_tracking/user_enter" in done.refused
    assert "tlbcore/*" in done.events


def test_everything_is_undone_after_success_failure_and_sigterm(machine: Machine, tmp_path: Path):
    record(Recording(out=tmp_path / "a", isolated=(2,), seconds=0.1), machine.handle, machine.root)
    probes = (machine.tracefs / "kprobe_events").read_text().splitlines()
    set_, removed = (
        [line.split()[0].removeprefix(mark) for line in probes if line.startswith(mark)]
        for mark in ("p:", "-:")
    )
    assert set_ == removed
    assert set_[0] == "tlbcore/flush_tlb_kernel_range"
    assert list((machine.tracefs / "instances").iterdir()) == []

    bare = Machine(tmp_path / "bare", ("vmalloc/purge_vmap_area_lazy",))
    with pytest.raises(tc.TraceError, match="none of the ipi, csd and irq_vectors events"):
        record(Recording(out=tmp_path / "b", isolated=(2,), seconds=0.1), bare.handle, bare.root)
    assert list((bare.tracefs / "instances").iterdir()) == []

    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGTERM)).start()
    done = record(Recording(out=tmp_path / "c", isolated=(2,), seconds=60), machine.handle, machine.root)
    assert done.seconds < 30
    assert "tracing_on=0" in machine.writes
    assert list((machine.tracefs / "instances").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_at_any_step_undoes_everything(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = recorder._try
    interrupted = 0
    for step in range(1, 500):
        count = 0

        def stopped(path: Path, text: str, *, append: bool = False, at: int = step) -> bool:
            nonlocal count
            done = real(path, text, append=append)
            count += 1
            if count == at and (text.startswith("p:") or "instances" in str(path)) and text != "0":
                os.kill(os.getpid(), signal.SIGTERM)
            return done

        monkeypatch.setattr(recorder, "_try", stopped)
        out = tmp_path / f"out{step}"
        try:
            record(Recording(out=out, isolated=(2,), seconds=0.01), machine.handle, machine.root)
        except KeyboardInterrupt:
            interrupted += 1
        probes = (machine.tracefs / "kprobe_events").read_text().splitlines()
        set_ = {line.split()[0].removeprefix("p:") for line in probes if line.startswith("p:")}
        removed = {line.removeprefix("-:") for line in probes if line.startswith("-:")}
        assert set_ <= removed, step
        assert list((machine.tracefs / "instances").iterdir()) == [], step
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        (machine.tracefs / "kprobe_events").write_text("")
        if count < step:
            break
    assert interrupted > 10


def test_a_second_signal_does_not_break_into_the_undoing(machine: Machine, tmp_path: Path):
    real = machine.remove
    asked = []

    def remove(here: Path) -> None:
        asked.append(here)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        real(here)

    handle = Tracefs(path=machine.tracefs, make=machine.make, remove=remove)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    record(Recording(out=tmp_path / "o", isolated=(2,), seconds=60), handle, machine.root)
    assert len(asked) == 1
    assert list((machine.tracefs / "instances").iterdir()) == []


def test_an_error_while_setting_up_undoes_everything(machine: Machine, tmp_path: Path):
    (machine.tracefs / "instances").rmdir()
    (machine.tracefs / "instances").write_text("in the way")
    with pytest.raises((OSError, tc.TraceError)):
        record(Recording(out=tmp_path / "o", isolated=(2,), seconds=1), machine.handle, machine.root)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_configuration_is_found_where_the_kernel_keeps_it(machine: Machine, tmp_path: Path):
    config = b"CONFIG_NO_HZ_FULL=y\nCONFIG_UNRELATED=y\n"
    (machine.root / "proc/config.gz").write_bytes(gzip.compress(config))
    out = tmp_path / "o"
    record(Recording(out=out, isolated=(2,), seconds=0.1), machine.handle, machine.root)
    assert "# tlbcore config | CONFIG_NO_HZ_FULL=y" in out.read_text()
    assert "UNRELATED" not in out.read_text()


def test_a_command_ends_the_recording_and_its_status_is_told(machine: Machine, tmp_path: Path):
    command = (sys.executable, "-c", "import time; time.sleep(.2); raise SystemExit(3)")

    done = record(Recording(out=tmp_path / "o", isolated=(2,), command=command), machine.handle, machine.root)

    assert done.status == 3


def test_the_flight_recorder_saves_the_ring_only_when_a_cpu_is_hit(machine: Machine, tmp_path: Path):
    quiet = Recording(out=tmp_path / "quiet", isolated=(2,), seconds=0.4, flight=True)
    assert record(quiet, machine.handle, machine.root).snapshots == 0

    out = tmp_path / "busy"

    def saved() -> int:
        return out.read_text().count("# tlbcore snapshot") if out.exists() else 0

    def hit() -> None:
        for n in (1, 2):
            time.sleep(0.25)
            machine.interrupts(n)
            for _ in range(200):  # the next hit comes after this one was saved
                if saved() >= n:
                    break
                time.sleep(0.01)

    threading.Thread(target=hit).start()
    busy = Recording(out=out, isolated=(2,), seconds=1.9, flight=True)
    done = record(busy, machine.handle, machine.root)

    assert done.snapshots == 2
    assert saved() == 2
    assert out.read_text().count(LINE) == 1, "what was saved is cleared from the ring"


def test_the_flight_recorder_counts_calls_and_reschedules_of_the_isolated_cpus(machine: Machine):
    def interrupts(**rows: tuple[int, int, int, int]) -> None:
        lines = [f" {name}: {' '.join(map(str, counts))} words\n" for name, counts in rows.items()]
        (machine.root / "proc/interrupts").write_text("           CPU0 CPU1 CPU2 CPU3\n" + "".join(lines))

    interrupts(CAL=(1, 1, 5, 1), RES=(1, 1, 7, 2), LOC=(1, 1, 1, 1), TLB=(1, 1, 1, 1))
    look = recorder._interrupted(machine.root, (2, 3))
    interrupts(CAL=(9, 9, 5, 1), RES=(9, 9, 7, 2), LOC=(9, 9, 9, 9), TLB=(9, 9, 9, 9))
    assert look() == ""
    interrupts(CAL=(9, 9, 6, 1), RES=(9, 9, 7, 12), LOC=(9, 9, 9, 9), TLB=(9, 9, 9, 9))
    assert look() == "CPU 2 CAL +1, CPU 3 RES +10"
    assert look() == "", "each is told once"


def test_the_recorder_keeps_off_the_cpus_that_it_watches(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    moves = Mock()
    monkeypatch.setattr(os, "sched_getaffinity", Mock(return_value={0, 1, 2, 3}))
    monkeypatch.setattr(os, "sched_setaffinity", moves)
    record(Recording(out=tmp_path / "o", isolated=(2, 3), seconds=0.1), machine.handle, machine.root)
    assert [call.args for call in moves.call_args_list] == [(0, {0, 1}), (0, {0, 1, 2, 3})]
    moves.reset_mock()
    with recorder._housekeeping((0, 1, 2, 3)):
        moves.assert_not_called()  # there is nowhere else


def test_kernels_before_6_6_compare_the_recording_cpu_and_take_other_events_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recorder, "_try", old := Mock(side_effect=lambda _, text: "CPUS{" not in text))
    (tmp_path / "event").mkdir()
    assert recorder._enable(tmp_path / "event", "CPU & CPUS{{{cpus}}}", (2, 3, 5))
    assert [call.args[1] for call in old.call_args_list] == [
        "CPU & CPUS{2-3,5}", "(CPU >= 2 && CPU <= 3) || (CPU >= 5 && CPU <= 5)", "1",
    ]  # fmt: skip
    old.reset_mock()
    assert recorder._enable(tmp_path / "event", "cpu & CPUS{{{cpus}}}", (2,))
    assert [call.args[1] for call in old.call_args_list] == ["cpu & CPUS{2}", "1"]
    assert not recorder._enable(tmp_path / "none", "", (2,))


def pipe_line(at: float, event: str) -> str:
    return f"            spin-636     [002] d.h..   {at:.6f}: {event}: vector=236\n"


def test_a_noise_threshold_saves_the_ring_when_something_takes_longer(machine: Machine, tmp_path: Path):
    out = tmp_path / "noise"
    pipes: list[Path] = []
    make = machine.make

    def noisy(here: Path) -> None:
        make(here)
        if here.name.endswith("-noise"):
            (here / "trace_pipe").write_text("")
            pipes.append(here / "trace_pipe")

    def saved() -> int:
        return out.read_text().count("# tlbcore snapshot") if out.exists() else 0

    def timers() -> None:
        for n, us in enumerate((5, 50, 7, 90), 1):
            time.sleep(0.2)
            text = pipe_line(n, "local_timer_entry") + pipe_line(n + us / 1e6, "local_timer_exit")
            pipes[0].write_text(text)
            for _ in range(100):
                if us < 20 or saved() >= n // 2:
                    break
                time.sleep(0.01)
            if n < 4:  # with the last one the recording ends and its files go
                pipes[0].write_text("")

    handle = Tracefs(path=machine.tracefs, make=noisy, remove=machine.remove)
    thread = threading.Thread(target=timers)
    thread.start()
    what = Recording(out=out, isolated=(2,), seconds=60, noise_us=20, snapshots=2)
    done = record(what, handle, machine.root)
    thread.join()

    assert done.snapshots == 2
    assert done.seconds < 50, "the second snapshot ends it"
    notes = [line for line in out.read_text().splitlines() if line.startswith("# tlbcore snapshot | ")]
    assert "kept from its task for 50.0 us by local_timer at 2.000050" in notes[0]
    assert "kept from its task for 90.0 us by local_timer at 4.000090" in notes[1]
    assert tc.read_trace(out).figures["report"]["snapshots"] == 2
    assert list((machine.tracefs / "instances").iterdir()) == []


@pytest.mark.parametrize("text", ["", "20 m", "-1us", "0", "61s", "fast"])
def test_noise_thresholds_that_make_no_sense_are_refused(text: str):
    with pytest.raises(tc.TraceError, match="noise"):
        noise_us(text)


def test_control_groups_of_running_tasks_are_written_down(machine: Machine, tmp_path: Path):
    for pid, tasks, group in ((10, (10, 11, 12), "/a b.slice"), (20, (20,), "/")):
        for task in tasks:
            folder = machine.root / f"proc/{pid}/task/{task}"
            folder.mkdir(parents=True)
            (folder / "cgroup").write_text(f"1:name=systemd:/old\n0::{group}\n")
    out = tmp_path / "o"

    record(Recording(out=out, isolated=(2,), seconds=0.1), machine.handle, machine.root)

    text = out.read_text()
    assert "# tlbcore cgroup_root | 0\n" in text
    assert "# tlbcore cgroup | 10-12 /a b.slice\n" in text
    assert "# tlbcore cgroup | 20 /\n" in text
    (machine.root / "proc/10/task/10/cgroup").write_text("")
    for task in (11, 12):
        (machine.root / f"proc/10/task/{task}/cgroup").write_text("1:name=systemd:/old\n0::/\n")
    (machine.root / "proc/20/task/20/cgroup").write_text("2:cpu:/x\n1:name=systemd:/old\n0::/\n")
    record(Recording(out=tmp_path / "v1", isolated=(2,), seconds=0.1), machine.handle, machine.root)
    assert "# tlbcore cgroup | 11-12,20 /old\n" in (tmp_path / "v1").read_text()


SHOOTDOWN_EVENTS = (
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "tlb/tlb_flush",
    "csd/csd_queue_cpu",
    "csd/csd_function_entry",
    "csd/csd_function_exit",
    "irq_vectors/call_function_entry",
    "sched/sched_process_fork",
    "tlbcore",
)


def process(
    root: Path, pid: int, name: str, *, inside: str = "", group: str = "/", threads: str = ""
) -> None:
    here = root / "proc" / str(pid)
    for number, comm in [(str(pid), name), *(text.split("=") for text in threads.split())]:
        (here / "task" / number).mkdir(parents=True)
        (here / "task" / number / "comm").write_text(f"{comm}\n")
    (here / "status").write_text(f"Name:\t{name}\nTgid:\t{pid}\nNSpid:\t{pid}\t{inside}\n")
    (here / "cgroup").write_text(f"0::{group}\n")


def test_shootdowns_of_a_process_are_recorded_from_every_cpu_and_everything_is_undone(tmp_path: Path):
    machine = Machine(tmp_path, SHOOTDOWN_EVENTS)
    process(machine.root, 400, "db", threads="412=worker")
    out = tmp_path / "out.txt"

    done = record(
        Recording(out=out, processes=(400,), seconds=0.1, stacks=True), machine.handle, machine.root
    )

    assert "tlb/tlb_flush filter=reason != 0" in machine.writes
    assert "csd/csd_queue_cpu filter=" in machine.writes  # a victim can be any CPU
    (calls,) = [line for line in machine.writes if line.startswith("raw_syscalls/sys_enter filter=")]
    assert {"id == 10", "id == 11", "id == 28", "id == 440"} <= set(calls.partition("=")[2].split(" || "))
    assert "id == 0" not in calls.split(" || ")  # read() flushes nothing
    text = out.read_text()
    assert "# tlbcore thread | 400 400 db\n# tlbcore thread | 412 400 worker\n" in text
    assert "# tlbcore isolated" not in text
    probes = (machine.tracefs / "kprobe_events").read_text()
    assert "p:tlbcore/flush_tlb_mm_range flush_tlb_mm_range mm=%di:x64 start=%si:x64" in probes
    assert probes.rstrip().endswith("-:tlbcore/flush_tlb_mm_range")
    assert not list((machine.tracefs / "instances").iterdir())
    assert (done.left, done.lost) == ([], 8)
    assert tc.shootdowns(out, process="worker").process == "worker (process 400)"


def test_a_process_is_found_by_name_id_thread_and_control_group(tmp_path: Path):
    machine = Machine(tmp_path, ())
    process(machine.root, 400, "db", group="/system.slice/db.service", threads="412=worker")
    process(machine.root, 500, "java", inside="7", group="/kubepods/pod1/a")
    process(machine.root, 501, "sh", inside="8", group="/kubepods/pod2/b")

    def find(wanted: str) -> tuple[int, ...]:
        return find_processes(wanted, machine.root)

    assert (find("db"), find("400"), find("412"), find("/system.slice")) == ((400,), (400,), (400,), (400,))
    assert find("/kubepods") == (500, 501)
    for wanted, message in (
        ("jav", "no process 'jav' on this machine, did you mean 'java'?"),
        ("7", r"no process 7 on this machine; in a container it is an id of 500 \(java\)"),
        ("9999", "no process 9999 on this machine"),
        ("/kubepod", "no control group with a process '/kubepod'"),
    ):
        with pytest.raises(tc.TraceError, match=message):
            find(wanted)


def test_stolen_time_is_written_down_and_told_with_what_a_tick_leaves_open(machine: Machine, tmp_path: Path):
    out = tmp_path / "out.txt"
    (machine.root / "proc/stat").write_text("cpu  0\ncpu2 1 0 0 0 0 0 0 5 0 0\ncpu3 1 0 0 0 0 0 0 5 0 0\n")

    record(Recording(out=out, isolated=(2, 3), seconds=0.1), machine.handle, machine.root)
    text = out.read_text()
    out.write_text(text.replace("stat_after | cpu2 1 0 0 0 0 0 0 5", "stat_after | cpu2 1 0 0 0 0 0 0 17"))

    trace = tc.read_trace(out)
    cpus = {cpu["cpu"]: cpu for cpu in trace.figures["report"]["isolated"]}
    tick = 1000 / os.sysconf("SC_CLK_TCK")
    assert cpus[2]["stolen_ms"] == 12 * tick
    assert cpus[2]["stolen_ms_range"] == [11 * tick, 13 * tick]
    assert (cpus[3]["stolen_ms"], cpus[3]["stolen_ms_range"]) == (0, [0, tick])
    assert Condition.parse("stolen_ms > 100").met(trace) == ["CPU 2: stolen_ms = 110 > 100"]
    assert Condition.parse("stolen_ms > 115").met(trace) == []
    assert "CPU 2: stolen_ms is not recorded" in Condition.parse("stolen_ms > 115").open(trace)[0]
    # Without both copies nothing is known, and nothing is said.
    out.write_text(text.replace("stat_after", "other"))
    without = tc.read_trace(out)
    assert without.figures["report"]["isolated"][0]["stolen_ms"] is None
    assert len(Condition.parse("stolen_ms > 0").open(without)) == 2


def test_an_existing_file_is_not_overwritten(machine: Machine, tmp_path: Path):
    out = tmp_path / "precious"
    out.write_text("x")
    with pytest.raises(FileExistsError):
        record(Recording(out=out, isolated=(2,), seconds=0.1), machine.handle, machine.root)
    assert out.read_text() == "x"


def test_isolated_cpus_come_from_the_machine_or_are_asked_for(machine: Machine):
    folder = machine.root / "sys/devices/system/cpu"
    with pytest.raises(tc.TraceError, match="name some with --isolated"):
        isolated_cpus(machine.root)
    (folder / "isolated").write_text("3\n")
    assert isolated_cpus(machine.root) == (3,)
    (folder / "nohz_full").write_text("2-3\n")
    assert isolated_cpus(machine.root) == (2, 3)


@pytest.mark.parametrize("text", ["", "2x", "-1", "0", "1.2.3h"])
def test_durations_that_make_no_sense_are_refused(text: str):
    with pytest.raises(tc.TraceError, match="duration"):
        duration_s(text)
