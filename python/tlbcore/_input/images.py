"""Kernel images by path: bytes in, the core's text and JSON out."""

from __future__ import annotations

import lzma
from pathlib import Path

from tlbcore import _core
from tlbcore._core import ImageError

LARGEST = 1 << 30  # no kernel is as large; a disk given by mistake is


def read(path: str | Path) -> bytes:
    """Return a file's bytes; one that no kernel image can be is refused before it is read."""
    file = Path(path)
    size = file.stat().st_size
    if size > LARGEST:
        raise ImageError(f"{file}: {size} bytes are no kernel image: give /boot/vmlinuz-RELEASE or a vmlinux")
    return file.read_bytes()


def features(*, given: str | None = None, cpu: str | None = None, this_machine: bool = False) -> str:
    """Return the CPU features to walk for, of the one source that is named."""
    if given is not None:
        return given
    if cpu is not None:
        from tlbcore.hardware import machine

        one = machine(cpu)
        return _core.binary_features(one.text or one.name)
    if not this_machine:
        return _core.binary_features()
    folder = Path("/sys/devices/system/cpu/vulnerabilities")
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return _core.binary_features(
        None,
        Path("/proc/cpuinfo").read_text(errors="replace"),
        [(file.name, file.read_text(errors="replace")) for file in files],
    )


def census(path: str | Path, features: str) -> str:
    """Return the census of an image as JSON; of a saved one (`--json`, also .xz) what it holds."""
    data = read(path)
    if str(path).endswith(".xz"):
        data = _saved(path, data)
    if data.lstrip()[:1] == b"{":
        return data.decode(errors="replace")
    try:
        return _core.binary_census(data, features)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def _saved(path: str | Path, data: bytes) -> bytes:
    try:
        return lzma.LZMADecompressor().decompress(data, LARGEST)
    except lzma.LZMAError as error:
        raise ImageError(f"{path}: damaged xz file: {error}") from None


def extract(path: str | Path, features: str) -> str:
    """Return the paths of an image as a kernel text."""
    try:
        return _core.binary_extract(read(path), features)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
