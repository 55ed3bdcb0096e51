"""What `tlbcore record --process` records, and which processes a name, an id or a control group means here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tlbcore._core import TraceError

# The system calls that may flush a user range, by x86-64 number: mmap, mprotect, munmap, brk, mremap, msync, madvise,
# clone, fork, vfork, execve, exit, shmdt, mlock, munlock, mlockall, munlockall, remap_file_pages, exit_group, mbind,
# migrate_pages, move_pages, execveat, mlock2, pkey_mprotect, clone3, process_madvise, process_mrelease.
_FLUSHING = (
    *(9, 10, 11, 12, 25, 26, 28, 56, 57, 58, 59, 60, 67, 149, 150, 151, 152, 216, 231, 237, 256, 279),
    *(322, 325, 329, 435, 440, 448),
)
_FLUSHING_FILTER = " || ".join(f"id == {number}" for number in _FLUSHING)
# Shootdowns of user ranges, from every CPU: a victim can be any.
SHOOTDOWN_EVENTS: tuple[tuple[str, str], ...] = (
    ("raw_syscalls/sys_enter", _FLUSHING_FILTER),
    ("raw_syscalls/sys_exit", _FLUSHING_FILTER),
    ("tlb/tlb_flush", "reason != 0"),  # 0: a task switch
    ("csd/csd_queue_cpu", ""),
    ("csd/csd_function_entry", ""),
    ("csd/csd_function_exit", ""),
    ("ipi/ipi_send_cpumask", ""),
    *(
        (f"irq_vectors/{v}_{end}", "")
        for v in ("call_function", "call_function_single")
        for end in ("entry", "exit")
    ),
    ("sched/sched_process_fork", ""),
    ("sched/sched_process_exit", ""),
)
SHOOTDOWN_KPROBES: tuple[tuple[str, str], ...] = (
    ("flush_tlb_mm_range", "mm=%di:x64 start=%si:x64 end=%dx:x64 stride=%cx:u32 freed=%r8:u8"),
)


def numbered(folder: Path) -> list[Path]:
    """Return what has a number for a name, ascending: processes, threads. Nothing where the folder went meanwhile."""
    try:
        found = [path for path in folder.iterdir() if path.name.isdecimal()]
    except OSError:
        return []
    return sorted(found, key=lambda path: int(path.name))


def threads(root: Path, processes: Sequence[int]) -> list[tuple[str, str]]:
    """Say which threads belong to the processes asked for: thread id, process id, name."""
    found = []
    for process in processes:
        for path in numbered(root / f"proc/{process}/task"):
            try:
                name = (path / "comm").read_text(errors="replace").strip()
            except OSError:
                continue  # it has ended
            found.append(("thread", f"{path.name} {process} {name}"))
    return found


def find_processes(wanted: str, root: Path = Path("/")) -> tuple[int, ...]:
    """Return the ids of the processes that have this name or id, or are in this control group (`/a/b`).

    Raises
    ------
    TraceError
        If there is none; the message tells near names, and what a container's id is on the host.
    """
    names: dict[int, str] = {}
    inside: dict[int, list[int]] = {}
    groups: dict[str, list[int]] = {}
    threads: dict[int, int] = {}
    for path in numbered(root / "proc"):
        pid = int(path.name)
        try:
            status = (path / "status").read_text(errors="replace")
            groups_of = (path / "cgroup").read_text(errors="replace") if wanted.startswith("/") else ""
        except OSError:
            continue  # it has ended
        name = re.search(r"^Name:\s*(.*)", status, re.M)
        names[pid] = name[1] if name else ""
        ids = re.search(r"^NSpid:\s*(.*)", status, re.M)
        for number in (ids[1].split() if ids else [])[1:]:
            inside.setdefault(int(number), []).append(pid)
        for line in groups_of.splitlines():
            groups.setdefault(line.split(":", 2)[-1], []).append(pid)
        for task in numbered(path / "task"):
            threads[int(task.name)] = pid
    if wanted.startswith("/"):
        group = wanted.rstrip("/") or "/"
        found = {
            pid
            for path, pids in groups.items()
            if path == group or path.startswith(f"{group}/")
            for pid in pids
        }
        if not found:
            raise TraceError(_no_process("control group with a process", wanted, groups))
        return tuple(sorted(found))
    if wanted.isdecimal():
        if (own := threads.get(int(wanted), int(wanted) if int(wanted) in names else None)) is not None:
            return (own,)
        hosts = sorted(set(inside.get(int(wanted), [])))
        if hosts:
            which = ", ".join(f"{pid} ({names[pid]})" for pid in hosts)
            raise TraceError(f"no process {wanted} on this machine; in a container it is an id of {which}")
        raise TraceError(f"no process {wanted} on this machine")
    short = wanted.encode()[:15].decode(errors="ignore")  # as the kernel keeps it
    same = tuple(sorted(pid for pid, name in names.items() if name == short))
    if not same:
        raise TraceError(_no_process("process", wanted, names.values()))
    return same


def _no_process(what: str, wanted: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(wanted, sorted(set(known)), n=3)
    hint = f", did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"no {what} {wanted!r} on this machine{hint}"
