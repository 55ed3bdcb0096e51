"""What a report about a fault needs to know of the machine and the installation; works without any optional package."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from tlbcore._input.memory import left_bytes
from tlbcore._output.visible import one_line

_FLAGS = ("pti", "pcid", "invpcid", "invpcid_single", "la57", "pdpe1gb", "smep", "fred", "hypervisor")


def facts() -> dict[str, Any]:
    """Return the facts by section; a fact that cannot be told is None, a package that is not there too."""
    return {
        "tlbcore": _tlbcore(),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
            "libc": " ".join(platform.libc_ver()) or None,
        },
        "machine": _machine(),
        "packages": _packages(),
    }


def problems(found: dict[str, Any]) -> list[str]:
    """Return what keeps tlbcore from working here, a line each."""
    out = []
    if found["tlbcore"]["core"] != "loads":
        out.append(f"the compiled core does not load: {found['tlbcore']['core']}")
    out += [
        f"{package['name']} is missing: pip install tlbcore"
        for package in found["packages"]
        if package["extra"] is None and package["version"] is None
    ]
    return out


def text(found: dict[str, Any]) -> str:
    """Return the facts as lines of `name: value`, as the issue forms ask for them."""
    lines = []
    for section in ("tlbcore", "python", "machine"):
        lines.append(f"{section}:")
        lines += [f"  {name}: {_shown(value)}" for name, value in found[section].items()]
    lines.append("packages:")
    for package in found["packages"]:
        extra = f" (extra {package['extra']})" if package["extra"] else ""
        lines.append(f"  {package['name']}: {package['version'] or 'missing'}{extra}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return one_line(str(value))


def _tlbcore() -> dict[str, Any]:
    try:
        from tlbcore import _core

        core = "loads"
        place: str | None = _core.__file__
    except ImportError as error:
        core, place = str(error), None
    try:
        number: str | None = version("tlbcore")
    except PackageNotFoundError:
        number = None
    return {"version": number, "core": core, "file": place}


def _machine() -> dict[str, Any]:
    cpuinfo = _read("/proc/cpuinfo") or ""
    fields = dict(re.findall(r"^(\S[^\t:]*?)\s*:\s*(.*)$", cpuinfo, re.MULTILINE))
    flags = fields.get("flags", "").split()
    signature = [fields.get(name, "?") for name in ("vendor_id", "cpu family", "model", "stepping")]
    left = left_bytes()
    return {
        "cpu": fields.get("model name") or platform.processor() or None,
        "signature": " ".join(signature) if "vendor_id" in fields else None,
        "arch": platform.machine(),
        "cpus": _read("/sys/devices/system/cpu/online"),
        "allowed_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "isolated": _cpus("/sys/devices/system/cpu/isolated"),
        "nohz_full": _cpus("/sys/devices/system/cpu/nohz_full"),
        "features": [flag for flag in _FLAGS if flag in flags],
        "kernel": platform.release(),
        "memory_left_mib": None if left is None else left >> 20,
        "tracefs": _tracefs(),
        "root": os.geteuid() == 0 if hasattr(os, "geteuid") else None,
    }


def _tracefs() -> str:
    for place in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        try:
            if (Path(place) / "instances").is_dir():
                return f"{place}{'' if os.access(Path(place) / 'instances', os.W_OK) else ', not writeable'}"
        except PermissionError:
            return f"{place}, not readable"
    return "not mounted, or not readable"


def _packages() -> list[dict[str, str | None]]:
    """Return what the package's metadata asks for, and what is there."""
    found: dict[tuple[str, str | None], None] = {}
    try:
        lines = requires("tlbcore") or []
    except PackageNotFoundError:
        lines = []
    for line in lines:
        name = re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if name != "tlbcore" and (extra is None or extra[1] not in ("all", "test")):
            found[name, extra[1] if extra else None] = None
    return [{"name": name, "extra": extra, "version": _version(name)} for name, extra in found]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpus(path: str) -> str | None:
    """Return a list of CPUs; the kernel writes none as nothing, or as (null)."""
    try:
        text = Path(path).read_text(errors="replace").strip()
    except OSError:
        return None
    return "none" if text in ("", "(null)") else text


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip() or None
    except OSError:
        return None
