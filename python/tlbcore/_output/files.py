"""Files and pickles that are whole or not there, and that say so when they were damaged."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any


def replace_file(file: Path, data: bytes | memoryview | Any) -> None:
    """Write a file so that whoever looks finds the old content or the new, also after a crash or on a full disk.

    Raises `OSError` with the file's name; the old content is then still there.
    """
    hidden = file.with_name(f".{file.name}.tmp")
    try:
        with hidden.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        hidden.replace(file)
    except OSError as error:
        with suppress(OSError):
            hidden.unlink()
        raise OSError(error.errno, error.strerror, str(file)) from None
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def sealed(make: Callable[[Any], Any], data: Any) -> tuple[Any, ...]:
    """Return what `__reduce__` returns for an object that `make(data)` makes: a pickle that knows its own digest."""
    content = pickle.dumps(data, protocol=5)
    return _open, (make, content, blake2b(content, digest_size=16).digest())


def _open(make: Callable[[Any], Any], content: bytes, digest: bytes) -> Any:
    if blake2b(content, digest_size=16).digest() != digest:
        raise pickle.UnpicklingError("the pickle is damaged: its digest is not that of its content")
    return make(pickle.loads(content))
