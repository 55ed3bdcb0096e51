"""What keeps a recorder from leaving anything behind: a watchdog that outlives it, and a clean-up of what others left.

An instance is named after its recorder: `tlbcore-PID-START`, where START is the recorder's start in clock ticks since
boot, so that a process that got the same number later is not taken for it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tlbcore._core import TraceError
from tlbcore._input.cpus import show_cpus
from tlbcore.trace.recorder.notes import GROUP
from tlbcore.trace.recording import parse_cpus

_NAME = re.compile(rf"{GROUP}-(\d+)(?:-(\d+))?(?:-[a-z]+)?")

# Waits for a line on standard input. If that ends without one, the recorder was killed: stop the instance first, which
# is what disturbs isolated CPUs, then remove it. A probe goes when no instance uses it any more, hence the tries.
_WATCHDOG = r"""
read -r left && exit 0
here=$1 probes=$2; shift 2
echo 0 > "$here/tracing_on"
echo 0 > "$here/events/enable"
rmdir "$here"
for name; do
    for try in 1 2 3; do echo "-:$name" >> "$probes" && break; sleep 1; done
done
"""


def instance_name(suffix: str = "") -> str:
    """Return the name of this process's instance."""
    return f"{GROUP}-{os.getpid()}-{_start(Path('/'), os.getpid()) or 0}{suffix}"


@contextmanager
def watchdog(here: Path, probe_events: Path, probes: Sequence[str] = ()) -> Iterator[None]:
    """Let a small process stop and remove an instance if this one is killed meanwhile; it does nothing otherwise.

    Nothing of this process runs after SIGKILL or when the kernel is out of memory; a shell that waits does.
    """
    try:
        child = subprocess.Popen(
            [
                "/bin/sh",
                "-c",
                _WATCHDOG,
                GROUP,
                str(here),
                str(probe_events),
                *(f"{GROUP}/{name}" for name in probes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C and a closed terminal are for the recorder
        )
    except OSError:
        yield  # no shell here: a recording without a watchdog is better than none
        return
    assert child.stdin is not None
    try:
        yield
    finally:
        with suppress(OSError):
            child.stdin.write(b"done\n")
            child.stdin.close()
        child.wait()


def check_cpus(isolated: Sequence[int], root: Path = Path("/")) -> None:
    """Refuse CPUs that the machine does not have.

    Raises
    ------
    TraceError
        If one is not online; the message tells which are.
    """
    try:
        online = parse_cpus((root / "sys/devices/system/cpu/online").read_text())
    except (OSError, TraceError):
        return  # nothing tells
    if absent := sorted(set(isolated) - set(online)):
        number = "CPU" if len(absent) == 1 else "CPUs"
        raise TraceError(f"{number} {show_cpus(absent)}: not online here; these are: {show_cpus(online)}")


def dead_instances(tracefs: Path, root: Path = Path("/")) -> list[Path]:
    """Return the instances whose recorder no longer runs."""
    dead = []
    for here in sorted((tracefs / "instances").glob(f"{GROUP}-*")):
        if found := _NAME.fullmatch(here.name):
            start = _start(root, int(found[1]))
            if start is None or found[2] not in (None, "0", str(start)):
                dead.append(here)
    return dead


def clean(tracefs: Path, root: Path = Path("/")) -> tuple[list[str], list[str]]:
    """Remove the instances of recorders that no longer run, and probes that no recorder uses.

    Returns what was removed and what could not be, with the reason.
    """
    removed: list[str] = []
    left: list[str] = []
    for here in dead_instances(tracefs, root):
        for name in ("tracing_on", "events/enable"):
            with suppress(OSError):
                _put(here / name, "0", os.O_TRUNC)
        _remove(f"instance {here.name}", here.rmdir, removed, left)
    if not list((tracefs / "instances").glob(f"{GROUP}-*")):
        events = tracefs / "kprobe_events"
        for name in _probes(events):
            _remove(f"kprobe {name}", partial(_put, events, f"-:{name}\n", os.O_APPEND), removed, left)
    return removed, left


def _remove(what: str, how: Callable[[], None], removed: list[str], left: list[str]) -> None:
    try:
        how()
        removed.append(what)
    except OSError as error:
        left.append(f"{what} ({(error.strerror or str(error)).lower()})")


def _probes(events: Path) -> list[str]:
    try:
        text = events.read_text()
    except OSError:
        return []
    return re.findall(rf"^p\S*:({GROUP}/\S+)", text, re.MULTILINE)


def _put(file: Path, text: str, how: int) -> None:
    """Write to a file that is there; nothing is made."""
    opened = os.open(file, os.O_WRONLY | how)
    try:
        os.write(opened, text.encode())
    finally:
        os.close(opened)


def _start(root: Path, pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is none."""
    try:
        stat = (root / f"proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name may hold spaces and parentheses
    return int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else None
