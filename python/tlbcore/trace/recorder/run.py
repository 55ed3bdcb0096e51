"""Record what interrupts isolated CPUs: the smallest set of events that tells, set up and undone by itself.

Everything happens in a tracing instance of its own, so other users of tracing are not disturbed and leaving
means removing it. Only kprobes are global; they live in a group of their own and are removed by name.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tlbcore._core import NoiseMeter, TraceError
from tlbcore._input.cpus import show_cpus
from tlbcore._output.visible import naming
from tlbcore.trace.recorder import guard
from tlbcore.trace.recorder.notes import GROUP, about
from tlbcore.trace.recorder.settings import (
    EVENTS,
    NOISE,
    NOISE_BUFFER_KB,
    Outcome,
    Recording,
    Tracefs,
    Watcher,
)

__all__ = ["record"]


def record(
    what: Recording,
    tracefs: Tracefs | None = None,
    root: Path = Path("/"),
    *,
    watch: Watcher | None = None,
) -> Outcome:
    """Record; everything is restored on return, error, SIGTERM and Ctrl-C.

    `watch` is fed with what is recorded, while it is; not with a flight recorder, whose ring is read only when
    it is saved. The null device as `out` keeps nothing.

    Raises
    ------
    TraceError
        Without root or tracefs, or if no event that tells anything can be switched on.
    FileExistsError
        If the output exists.
    """
    if watch is not None and (what.flight or what.noise_us is not None):
        raise TraceError("a flight recorder cannot be watched: its ring is read only when it is saved")
    guard.check_cpus(what.isolated, root)
    tracefs = tracefs or Tracefs.find()
    outcome = Outcome()
    started, used = time.monotonic(), time.process_time()
    # Probes outside, the instance inside: a probe that any instance has switched on cannot be removed.
    with (
        naming(str(what.out)),
        what.out.open("wb" if what.out == Path(os.devnull) else "xb") as out,
        _terminable(),
        _probes(tracefs, what, outcome) as probes,
    ):
        with _instance(tracefs, probes=probes) as here, _trigger(tracefs, what, root) as hits:
            _set_up(here, what, outcome)
            out.write(about(root, what.isolated, what.processes, "before", outcome.events))
            with _housekeeping(what.isolated):
                _run(here, what, out, hits, outcome, watch)
            out.write(about(root, what.isolated, what.processes, "after"))
            outcome.lost = _lost(here)
        outcome.bytes = out.tell()
    outcome.seconds = time.monotonic() - started
    outcome.cpu_s = time.process_time() - used
    return outcome


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn the first signal that asks to end into an exception, so that `finally` runs; then let it run.

    A second Ctrl-C, or the SIGHUP of a closed terminal, must not break into the undoing.
    """
    asked = False

    def leave(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # only there can handlers be set
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _instance(tracefs: Tracefs, suffix: str = "", probes: Sequence[str] = ()) -> Iterator[Path]:
    here = tracefs.path / "instances" / guard.instance_name(suffix)
    try:
        try:
            tracefs.make(here)
        except PermissionError:
            raise TraceError(f"{here}: recording needs root, which may write there") from None
        with guard.watchdog(here, tracefs.path / "kprobe_events", () if suffix else probes):
            yield here
    finally:
        if here.is_dir():
            _try(here / "tracing_on", "0")
            _try(here / "events/enable", "0")
            tracefs.remove(here)


@contextmanager
def _probes(tracefs: Tracefs, what: Recording, outcome: Outcome) -> Iterator[list[str]]:
    """Set kprobes; which ones a kernel takes depends on what its compiler inlined."""
    places, taken = tracefs.path / "kprobe_events", []
    try:
        if what.kprobes and not places.exists():
            outcome.refused.append("kprobes: this kernel has no kprobe_events")
        elif what.kprobes:
            for function, arguments in what.probes:
                line = f"p:{GROUP}/{function} {function} {arguments}".strip()
                taken.append(function)  # before it is: a signal may come between
                if not _try(places, f"{line}\n", append=True):
                    taken.remove(function)
                    outcome.refused.append(f"kprobe on {function}")
        yield taken
    finally:
        for function in taken:
            if not _try(places, f"-:{GROUP}/{function}\n", append=True):
                outcome.left.append(f"kprobe {GROUP}/{function}")


def _set_up(here: Path, what: Recording, outcome: Outcome) -> None:
    settings = [("buffer_size_kb", str(what.buffer_kb)), ("trace_clock", "mono")]
    if what.flight or what.noise_us is not None:
        settings.append(("options/overwrite", "1"))
    _try(here / "tracing_on", "0")
    outcome.unset += [f"{name} to {value}" for name, value in settings if not _try(here / name, value)]
    events = here / "events"
    if what.processes:
        _try(here / "options/record-tgid", "1")
    for name, wanted in what.events:
        taken = _enable(events / name, wanted, what.isolated)
        (outcome.events if taken else outcome.refused).append(name)
    if what.kprobes and (events / GROUP).is_dir():
        _try(events / GROUP / "enable", "1")
        outcome.events.append(f"{GROUP}/*")
    if what.stacks and what.processes:
        _try(events / "tlb/tlb_flush/trigger", "stacktrace if reason == 4")  # CPUs are about to be asked
    elif what.stacks:
        for name in (f"{GROUP}/flush_tlb_kernel_range", "ipi/ipi_send_cpumask"):
            if not _try(events / name / "trigger", "stacktrace"):
                outcome.unset.append(f"{name}/trigger to stacktrace")
    telling = ("ipi/", "csd/", "tlb/") if what.processes else ("ipi/", "csd/", "irq_vectors/")
    if not any(name.startswith(telling) for name in outcome.events):
        systems = " and ".join(name.rstrip("/") for name in telling).replace(" and ", ", ", 1)
        raise TraceError(f"{here}: this kernel has none of the {systems} events")


def _enable(event: Path, wanted: str, isolated: Sequence[int]) -> bool:
    """Switch an event on, only for the isolated CPUs where the kernel can."""
    if not event.is_dir():
        return False
    if wanted:
        cpus = show_cpus(isolated)
        ok = _try(event / "filter", wanted.format(cpus=cpus))
        # CPU lists in filters need 6.6; the recording CPU can be compared on older kernels.
        if not ok and wanted.startswith("CPU"):
            ranges = (part.partition("-") for part in cpus.split(","))
            simple = (f"(CPU >= {low} && CPU <= {high or low})" for low, _, high in ranges)
            _try(event / "filter", " || ".join(simple))
    return _try(event / "enable", "1")


def _run(
    here: Path, what: Recording, out: IO[bytes], hits: Hits, outcome: Outcome, watch: Watcher | None
) -> None:
    deadline = None if what.seconds is None else time.monotonic() + what.seconds
    _write(here / "tracing_on", "1")
    if watch is not None:
        watch.begin(outcome.events)
    # Only now, so that the recording has its fork and with it its control group.
    command = subprocess.Popen(what.command) if what.command else None
    try:
        loop = partial(_stream, watch=watch) if hits is None else partial(_flight, hits=hits)
        loop(here, what, out, outcome, lambda: _over(deadline, command))
    except KeyboardInterrupt:
        pass  # asked to stop: what was recorded is kept
    finally:
        _try(here / "tracing_on", "0")
        if command is not None:
            outcome.status = command.poll()
            if outcome.status is None:  # the time or the snapshots are up: how it ends now is our doing
                command.terminate()
                command.wait()
    if hits is None:
        for block in _available(here):
            out.write(block)
            if watch is not None:
                watch.feed(block)
    if watch is not None:
        watch.tick(last=True)


def _over(deadline: float | None, command: subprocess.Popen[bytes] | None) -> bool:
    if deadline is not None and time.monotonic() >= deadline:
        return True
    return command is not None and command.poll() is not None


def _stream(
    here: Path,
    _what: Recording,
    out: IO[bytes],
    _outcome: Outcome,
    over: Callable[[], bool],
    *,
    watch: Watcher | None = None,
) -> None:
    pipe = os.open(here / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while not over():
            if watch is not None:
                watch.tick()
            select.select([pipe], [], [], 0.2)
            try:
                while block := _read(pipe, here):
                    out.write(block)
                    if watch is not None:
                        watch.feed(block)
                        watch.tick()
                    if over():
                        break
                else:
                    time.sleep(0.05)
            except BlockingIOError:
                time.sleep(0.05)
    finally:
        os.close(pipe)


# What has happened to the isolated CPUs since the last look, in a few words; "" if nothing. None: no flight recorder.
Hits = Callable[[], str] | None


@contextmanager
def _trigger(tracefs: Tracefs, what: Recording, root: Path) -> Iterator[Hits]:
    """Set up what tells a flight recorder that an isolated CPU was hit."""
    if what.noise_us is not None:
        with _instance(tracefs, "-noise") as here:
            yield _noise(here, what)
    elif what.flight:
        yield _interrupted(root, what.isolated)
    else:
        yield None


def _interrupted(root: Path, cpus: Sequence[int]) -> Callable[[], str]:
    """Compare the calls and reschedules each CPU has taken since boot."""
    from tlbcore.trace.interrupts import read_interrupts

    def counts() -> dict[tuple[str, int], int]:
        rows = read_interrupts(root / "proc/interrupts").counts
        return {(row, cpu): rows.get(row, {}).get(cpu, 0) for row in ("CAL", "RES") for cpu in cpus}

    before = counts()

    def look() -> str:
        nonlocal before
        now = counts()
        found = [f"CPU {cpu} {row} +{n - before[row, cpu]}" for (row, cpu), n in now.items()]
        found = [text for text in found if not text.endswith("+0")]
        before = now
        return ", ".join(found)

    return look


def _noise(here: Path, what: Recording) -> Callable[[], str]:
    """Record what can keep an isolated CPU from its task into a small ring, and look for what took too long."""
    assert what.noise_us is not None
    _try(here / "tracing_on", "0")
    _try(here / "buffer_size_kb", str(NOISE_BUFFER_KB))
    _try(here / "trace_clock", "mono")
    wanted = [(name, keep) for name, keep in EVENTS if name.startswith(NOISE)]
    enabled = [name for name, keep in wanted if _enable(here / "events" / name, keep, what.isolated)]
    if not enabled:
        raise TraceError(f"{here}: this kernel has none of the events that tell how long an interrupt took")
    meter = NoiseMeter(what.noise_us, what.isolated)
    started = False

    def look() -> str:
        nonlocal started
        if not started:
            started = True
            _write(here / "tracing_on", "1")
        hits = [hit for block in _available(here) for hit in meter.feed(block)]
        if not hits:
            return ""
        cpu, at, us, by = max(hits, key=lambda hit: hit[2])
        more = f" and {len(hits) - 1} more" if len(hits) > 1 else ""
        return f"CPU {cpu} kept from its task for {us:.1f} us by {by} at {at:.6f}{more}"

    return look


def _available(here: Path) -> Iterator[bytes]:
    """Take what the pipe of an instance holds now."""
    pipe = os.open(here / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while block := _read(pipe, here):
            yield block
    except BlockingIOError:
        pass
    finally:
        os.close(pipe)


def _flight(
    here: Path,
    what: Recording,
    out: IO[bytes],
    outcome: Outcome,
    over: Callable[[], bool],
    *,
    hits: Callable[[], str],
) -> None:
    """Look a few times a second whether an isolated CPU was hit; if so, save the ring."""
    pause = 0.05 if what.seconds is not None and what.seconds < 2 else 0.25 if what.noise_us else 1.0
    hits()
    while not over():
        time.sleep(pause)
        why = hits()
        if not why:
            continue
        _write(here / "tracing_on", "0")
        outcome.snapshots += 1
        note = f"# {GROUP} snapshot | {outcome.snapshots} at {time.time():.3f}: {why}\n"
        out.write(note.encode())
        with (here / "trace").open("rb") as ring:
            # The header counts a ring that is meant to be overwritten: not a hole in what was wanted.
            out.writelines(line for line in ring if not line.startswith(b"#"))
        out.flush()
        if what.snapshots and outcome.snapshots >= what.snapshots:
            return
        _try(here / "trace", "")
        hits()  # what saving took is nobody's noise
        _write(here / "tracing_on", "1")


@contextmanager
def _housekeeping(isolated: Sequence[int]) -> Iterator[None]:
    """Keep the recorder itself away from the CPUs it watches."""
    before = os.sched_getaffinity(0)
    others = before - set(isolated)
    if others:
        os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _lost(here: Path) -> int:
    lost = 0
    for path in here.glob("per_cpu/cpu*/stats"):
        for key, value in re.findall(r"^(overrun|dropped events): (\d+)", path.read_text(), re.M):
            lost += int(value) if key else 0
    return lost


def _read(pipe: int, here: Path) -> bytes:
    with naming(str(here / "trace_pipe")):
        return os.read(pipe, 1 << 16)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _try(path: Path, text: str, *, append: bool = False) -> bool:
    # Not open(..., "a"): Python would seek to the end, which files of tracefs refuse.
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
    try:
        file = os.open(path, flags, 0o644)
    except OSError:
        return False
    try:
        os.write(file, text.encode())
    except OSError:
        return False
    finally:
        os.close(file)
    return True
