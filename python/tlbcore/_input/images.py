"""Kernel images by path: bytes in, the core's text and JSON out."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Sequence
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


def is_saved(path: str | Path) -> bool:
    """Tell a saved census from an image; what cannot be read is none."""
    file = Path(path)
    try:
        with lzma.open(file) if file.suffix == ".xz" else file.open("rb") as stream:
            return stream.read(64).lstrip()[:1] == b"{"
    except (OSError, lzma.LZMAError, EOFError):
        return False


def _saved(path: str | Path, data: bytes) -> bytes:
    try:
        return lzma.LZMADecompressor().decompress(data, LARGEST)
    except lzma.LZMAError as error:
        raise ImageError(f"{path}: damaged xz file: {error}") from None


def extract(path: str | Path, features: str, variables: Sequence[str] = ()) -> str:
    """Return the paths of an image as a kernel text; `variables` are texts NAME=SYMBOL."""
    pairs = []
    for pair in variables:
        name, sign, symbol = pair.partition("=")
        if not (name and sign and symbol):
            raise ImageError(f"a variable is NAME=SYMBOL, such as kernel_cr3_loaded=my_flag: got {pair!r}")
        pairs.append((name, symbol))
    try:
        return _core.binary_extract(read(path), features, pairs)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def verify(path: str | Path, features: str, proc: Path = Path("/proc")) -> tuple[str, bool, str]:
    """Compare an image with the running kernel: a report, whether they are the same, the running text's census."""
    release, core = proc / "sys/kernel/osrelease", proc / "kcore"
    if not core.exists():
        raise ImageError(
            f"{core}: there is none, so the running text cannot be read (CONFIG_PROC_KCORE, which micro-VMs "
            "leave out); the file itself is walked without --verify-live"
        )
    if not os.access(core, os.R_OK):
        raise ImageError(f"{core}: only root may read the running text: run as root")
    data = read(path)
    found = _core.binary_verify(
        data, features, str(core), (proc / "kallsyms").read_text(encoding="ascii", errors="replace")
    )
    running, walked = release.read_text().strip(), json.loads(found[2])["release"]
    if running != walked:
        raise ImageError(
            f"{path}: an image of Linux {walked}, but {running} runs: give the image that was booted"
        )
    return found
