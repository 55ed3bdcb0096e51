"""How much memory a search may use: what the machine, its control group and the limits of the process leave."""

from __future__ import annotations

from pathlib import Path

_GIB = 1 << 30
UNKNOWN = 8 * _GIB  # where nothing says how much is left
# Address space that is reserved and not used: stacks of threads, and 64 MiB per thread that allocates (glibc's arenas).
RESERVED = 256 << 20


def default_memory(root: Path = Path("/")) -> int:
    """Return three quarters of what is left, in bytes; 8 GiB where nothing tells how much that is.

    The rest is for the counterexample, the interpreter and whoever else runs.
    """
    left = left_bytes(root)
    return UNKNOWN if left is None else max(left // 4 * 3, 1)


def within_limits(asked: int, root: Path = Path("/")) -> int:
    """Return what is asked for, or less where the address space is limited: a failed allocation ends the process."""
    left = _address_space(root)
    return asked if left is None else max(min(asked, left // 4 * 3), 1)


def left_bytes(root: Path = Path("/")) -> int | None:
    """Return the least of what /proc/meminfo, the control groups and RLIMIT_AS leave, in bytes; None if none tells."""
    known = [left for left in (_machine(root), *_groups(root), _address_space(root)) if left is not None]
    return max(min(known), 0) if known else None


def _machine(root: Path) -> int | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name == "MemAvailable" and words and words[0].isdecimal():
            return int(words[0]) << 10
    return None


def _groups(root: Path) -> list[int]:
    """Return what each control group from the process's own up to the root leaves (versions 1 and 2)."""
    out: list[int] = []
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container the path may be the host's, while the group is mounted at the top.
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            here = top.joinpath(*parts[:depth])
            most, now = _number(here / limit), _number(here / used)
            if most is not None and now is not None:
                # Pages of files that nobody has changed can be dropped, and count as used.
                out.append(most - now + _inactive_files(here))
    return out


def _inactive_files(group: Path) -> int:
    for line in (_text(group / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0


def _address_space(root: Path) -> int | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    pages = (_text(root / "proc/self/statm") or "0").split()[0]
    return soft - int(pages) * resource.getpagesize() - RESERVED


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text is not None and text.isdecimal() else None  # `max` is no number


def _text(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return None
