"""What keeps a recorder from leaving anything behind: a watchdog that outlives it, and a clean-up of what others left.

An instance is named after its recorder: `tlbcore-PID-START-PIDS-TIMES`. START is the recorder's start in clock ticks
since boot, so that a process that got the same number later is not taken for it. PIDS and TIMES are its PID and time
namespaces, 0 where the kernel has none: in another one the same process has another number, or another start, and
tracefs is one for all of them. So whoever looks from elsewhere cannot tell a living recorder from a dead one, and
leaves it alone.
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

_NAME = re.compile(rf"{GROUP}-(\d+)(?:-(\d+)(?:-(\d+-\d+))?)?(?:-[a-z]+)?")

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
    root, pid = Path("/"), os.getpid()
    return f"{GROUP}-{pid}-{_start(root, pid) or 0}-{_namespaces(root) or '0-0'}{suffix}"


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


def instances(tracefs: Path, root: Path = Path("/")) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the instances whose recorder no longer runs, and those of which that cannot be told, with the reason.

    A recorder no longer runs if, seen from its own namespaces, nobody has its number, or somebody who started later.
    """
    dead: list[Path] = []
    unknown: list[tuple[Path, str]] = []
    seen_from = _namespaces(root)
    for here in sorted((tracefs / "instances").glob(f"{GROUP}-*")):
        found = _NAME.fullmatch(here.name)
        if found is None:
            continue
        start = _start(root, int(found[1]))
        if seen_from is None:
            unknown.append((here, "/proc is not there, or of another PID namespace"))
        elif found[3] is None:
            unknown.append((here, "its name does not say which PID namespace its recorder is in"))
        elif found[3] != seen_from:
            unknown.append((here, "its recorder is in another PID or time namespace"))
        elif start is None or found[2] not in ("0", str(start)):
            dead.append(here)
    return dead, unknown


def clean(tracefs: Path, root: Path = Path("/")) -> tuple[list[str], list[str], list[str]]:
    """Remove the instances of recorders that no longer run, and probes that no recorder uses.

    Returns what was removed, what could not be, with the reason, and what was left alone since nothing here tells
    whether its recorder runs, with the reason.
    """
    removed: list[str] = []
    left: list[str] = []
    dead, unknown = instances(tracefs, root)
    for here in dead:
        for name in ("tracing_on", "events/enable"):
            with suppress(OSError):
                _put(here / name, "0", os.O_TRUNC)
        _remove(f"instance {here.name}", here.rmdir, removed, left)
    if not list((tracefs / "instances").glob(f"{GROUP}-*")):
        events = tracefs / "kprobe_events"
        for name in _probes(events):
            _remove(f"kprobe {name}", partial(_put, events, f"-:{name}\n", os.O_APPEND), removed, left)
    return removed, left, [f"instance {here.name} ({why})" for here, why in unknown]


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


def _namespaces(root: Path) -> str | None:
    """Return this process's PID and time namespace, 0 for one that the kernel lacks; None if /proc cannot tell."""
    try:
        if str((root / "proc/self").readlink()) != str(os.getpid()):
            return None  # a /proc of another namespace, where processes have other numbers
        numbers = []
        for name in ("pid", "time"):
            file = root / "proc/self/ns" / name
            numbers.append(re.sub(r"\D", "", str(file.readlink())) if file.is_symlink() else "0")
    except OSError:
        return None
    return "-".join(numbers)


def _start(root: Path, pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is none."""
    try:
        stat = (root / f"proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name may hold spaces and parentheses
    return int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else None
