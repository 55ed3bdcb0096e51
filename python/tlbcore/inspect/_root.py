"""Files of a live system, or of a directory with copies of them at the same places.

What is not there is missing, never a default: `need` raises `MissingError`, and whoever asked says that it
could not be told.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

MOST_BYTES = 64 << 20


class MissingError(Exception):
    """A file that a question needs is not there or cannot be read."""


class Root:
    """Reads files below one directory and remembers which could not be read."""

    def __init__(self, path: str | Path | None) -> None:
        self.live = path is None
        self.pasted = False
        self.path = Path("/" if path is None else path)

    def text(self, *names: str) -> str | None:
        """Return the text of the first of these files that can be read, without trailing white space."""
        for name in names:
            try:
                with (self.path / name).open("rb") as raw:
                    file = gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw
                    data = file.read(MOST_BYTES + 1)
            except (OSError, EOFError, zlib.error):
                continue
            if len(data) > MOST_BYTES:
                continue  # no file that is asked for is nearly as long, and none may fill the memory
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


class Pasted(Root):
    """A few files given as text: a command line somebody pasted, and what else was said of the machine."""

    def __init__(self, files: Mapping[str, str]) -> None:
        super().__init__("/")
        self.live = False
        self.pasted = True
        self.files = dict(files)

    def text(self, *names: str) -> str | None:
        return next((self.files[name].rstrip() for name in names if name in self.files), None)

    def exists(self, name: str) -> bool:
        return name in self.files

    def glob(self, pattern: str) -> list[str]:
        return sorted(name for name in self.files if PurePosixPath(name).match(pattern))

    def walk(self, name: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        return iter(())


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
