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
