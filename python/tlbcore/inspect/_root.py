"""Files of a live system, or of a directory with copies of them at the same places.

What is not there is missing, never a default: `need` raises `MissingError`, and whoever asked says that it
could not be told.
"""

from __future__ import annotations

import gzip
import os
import shlex
from collections.abc import Iterator
from pathlib import Path


class MissingError(Exception):
    """A file that a question needs is not there or cannot be read."""


class CpuListError(ValueError):
    """Text that is no list of CPUs."""


class Root:
    """Reads files below one directory and remembers which could not be read."""

    def __init__(self, path: str | Path | None) -> None:
        self.live = path is None
        self.path = Path("/" if path is None else path)

    def text(self, *names: str) -> str | None:
        """Return the text of the first of these files that can be read, without trailing white space."""
        for name in names:
            try:
                data = (self.path / name).read_bytes()
                if name.endswith(".gz"):
                    data = gzip.decompress(data)
            except (OSError, EOFError, gzip.BadGzipFile):
                continue
            return data.decode("utf-8", "replace").rstrip()
        return None

    def need(self, *names: str) -> str:
        """Return the text of the first readable of these files.

        Raises
        ------
        MissingError
            If none can be read; the message is the first name.
        """
        text = self.text(*names)
        if text is None:
            raise MissingError(names[0])
        return text

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def glob(self, pattern: str) -> list[str]:
        """Return the names below the root that match, sorted."""
        try:
            found = [str(path.relative_to(self.path)) for path in self.path.glob(pattern)]
        except OSError:
            return []
        return sorted(found)

    def walk(self, name: str, depth: int) -> Iterator[str]:
        """Yield this directory and the ones below it, down to `depth` levels."""
        top = self.path / name
        for directory, inner, _files in os.walk(top):
            here = Path(directory)
            yield str(here.relative_to(self.path))
            inner.sort()
            if len(here.relative_to(top).parts) >= depth:
                inner.clear()


def cpu_list(text: str, last: int | None = None) -> frozenset[int]:
    """Read a list of CPUs as the kernel writes and reads it.

    Knows `0-3,8`, strides (`0-15:2/4`: two of every four), `N` for the last CPU and `all`; an empty text and
    `(null)` are no CPU.

    Raises
    ------
    CpuListError
        If the text is no such list; the message says which part.

    >>> sorted(cpu_list("0-2,5"))
    [0, 1, 2, 5]
    >>> sorted(cpu_list("0-7:1/4"))
    [0, 4]
    """
    text = text.strip()
    if text in ("", "(null)"):
        return frozenset()
    cpus: set[int] = set()
    for part in text.split(","):
        span, _, stride = part.partition(":")
        if span == "all" and last is not None:
            span = f"0-{last}"
        first_text, dash, last_text = span.partition("-")
        try:
            first = _cpu(first_text, last)
            end = _cpu(last_text, last) if dash else first
            used, group = (int(word) for word in stride.split("/")) if stride else (1, 1)
        except ValueError:
            raise CpuListError(f"a CPU list is numbers and ranges: got {part!r} in {text!r}") from None
        if end < first or end > 1 << 16 or not 0 < used <= group:
            raise CpuListError(f"a range of CPUs must rise and end below 65536: got {part!r} in {text!r}")
        cpus.update(cpu for cpu in range(first, end + 1) if (cpu - first) % group < used)
    return frozenset(cpus)


def _cpu(text: str, last: int | None) -> int:
    if text == "N" and last is not None:
        return last
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return int(text)


def cpu_mask(text: str) -> frozenset[int]:
    """Read a CPU mask as in `smp_affinity`: hexadecimal groups of 32 bits, the highest first.

    >>> sorted(cpu_mask("00000001,0000000c"))
    [2, 3, 32]
    """
    try:
        bits = 0
        for group in text.strip().split(","):
            bits = bits << 32 | int(group, 16)
    except ValueError:
        raise CpuListError(f"a CPU mask is hexadecimal groups: got {text!r}") from None
    return frozenset(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def show_cpus(cpus: frozenset[int]) -> str:
    """Write a set of CPUs as the kernel does.

    >>> show_cpus(frozenset({0, 2, 3, 4}))
    '0,2-4'
    """
    parts: list[str] = []
    ordered = sorted(cpus)
    start = 0
    for at, cpu in enumerate(ordered):
        if at + 1 < len(ordered) and ordered[at + 1] == cpu + 1:
            continue
        first = ordered[start]
        parts.append(str(cpu) if first == cpu else f"{first}-{cpu}")
        start = at + 1
    return ",".join(parts)


def boot_options(cmdline: str) -> dict[str, list[str]]:
    """Split a kernel command line into its options, each with its values in order; `--` ends them."""
    options: dict[str, list[str]] = {}
    try:
        words = shlex.split(cmdline, posix=True)
    except ValueError:  # an open quote: the kernel takes the rest as one word, and so does a plain split
        words = cmdline.split()
    for word in words:
        if word == "--":
            break
        name, _, value = word.partition("=")
        # To the kernel '-' and '_' are the same in names of options.
        options.setdefault(name.replace("-", "_"), []).append(value)
    return options


def config_options(text: str) -> dict[str, str]:
    """Read a kernel `.config`: names without `CONFIG_`, values as written, `n` for what is not set."""
    options: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("CONFIG_") and "=" in line:
            name, _, value = line.removeprefix("CONFIG_").partition("=")
            options[name] = value.strip().strip('"')
        elif line.startswith("# CONFIG_") and line.endswith(" is not set"):
            options[line.removeprefix("# CONFIG_").removesuffix(" is not set")] = "n"
    return options
