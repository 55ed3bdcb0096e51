"""What `tlbcore record` writes in front of a recording and behind it: what machine this is, and what it counted."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from tlbcore._input.cpus import show_cpus
from tlbcore.inspect._root import Root
from tlbcore.trace.recorder.process import numbered, threads
from tlbcore.trace.recording import parse_cpus

GROUP = "tlbcore"


def about(
    root: Path, isolated: Sequence[int], processes: Sequence[int], when: str, events: Sequence[str] = ()
) -> bytes:
    """Lines that every importer takes for comments: what machine this is, and what it counted."""
    facts: list[tuple[str, str]] = []

    def read(name: str) -> str:
        try:
            return (root / name).read_text(errors="replace")
        except OSError:
            return ""

    if when == "before":
        online = read("sys/devices/system/cpu/online").strip()
        cpus = len(parse_cpus(online)) if online else os.cpu_count() or 0
        facts += [
            ("version", read("proc/version").strip()),
            ("cmdline", read("proc/cmdline").strip()),
            *([("isolated", show_cpus(isolated))] if isolated else []),
            ("online", f"{online} #P:{cpus}"),
            # What was on: a CPU without an event of a kind that was on had none.
            *(("event", name) for name in events),
        ]
        model = re.search(r"^model name\s*: (.*)", read("proc/cpuinfo"), re.M)
        flags = re.search(r"^flags\s*: (.*)", read("proc/cpuinfo"), re.M)
        facts += [("cpu", model[1] if model else ""), ("flags", flags[1] if flags else "")]
        release = platform.release()
        beside = [f"{base}/{release}/config" for base in ("lib/modules", "usr/lib/modules")]
        config = Root(root).text(f"boot/config-{release}", "proc/config.gz", *beside) or ""
        names = "NO_HZ|CONTEXT_TRACK|MITIGATION|PAGE_TABLE_ISOL|COALESCE|TRACK_CR3|VMAP_STACK|PREEMPT|HZ"
        wanted = rf"^(CONFIG_(?:{names}).*)"
        facts += [("config", line) for line in re.findall(wanted, config, re.M)]
        for cpu in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*")):
            if siblings := read(f"sys/devices/system/cpu/{cpu.name}/topology/thread_siblings_list").strip():
                facts.append(("topology", f"{cpu.name} siblings {siblings}"))
        facts += _cgroups(root)
        facts += threads(root, processes)
        facts.append(("user_hz", str(os.sysconf("SC_CLK_TCK"))))
    stat = read("proc/stat").splitlines()
    facts += [(f"stat_{when}", line) for line in stat if re.match(r"cpu[0-9]", line)]
    facts += [(f"interrupts_{when}", line) for line in read("proc/interrupts").splitlines()]
    # A thread chooses its name, and may put a line break into it: what followed would be a line of the recording.
    return "".join(f"# {GROUP} {key} | {' '.join(value.splitlines())}\n" for key, value in facts).encode()


def _cgroups(root: Path) -> list[tuple[str, str]]:
    """Say which task is in which control group: the one hierarchy of version 2, else systemd's, else the first."""
    found: dict[int, list[tuple[int, str, str]]] = {}
    for path in (task for process in numbered(root / "proc") for task in numbered(process / "task")):
        try:
            text = (path / "cgroup").read_text(errors="replace")
        except OSError:
            continue  # it has ended
        rows = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
        found[int(path.name)] = [
            (int(number), kind, group) for number, kind, group in rows if number.isdigit()
        ]
    every = [row for task in found.values() for row in task]
    for wanted in (lambda row: row[0] == 0, lambda row: row[1] == "name=systemd", lambda _: True):
        roots = {row[0] for row in every if wanted(row)}
        if any(row[2] != "/" for row in every if row[0] in roots):
            break
    else:
        return []
    number = min(row[0] for row in every if row[0] in roots and row[2] != "/")
    groups: dict[str, list[int]] = {}
    for task, lines in found.items():
        for at, _, group in lines:
            if at == number:
                groups.setdefault(group, []).append(task)
    members = [("cgroup", f"{show_cpus(sorted(tasks))} {group}") for group, tasks in sorted(groups.items())]
    return [("cgroup_root", str(number)), *members]
