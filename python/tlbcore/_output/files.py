"""Files and pickles that are whole or not there, and that say so when they were damaged."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import is_dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tlbcore._core import ConfigError, __version__
from tlbcore._output.visible import naming

_MAGIC = b"tlbcore result 1\n"
_DIGEST = 16  # bytes


def replace_file(file: Path, data: bytes | memoryview | Any, *, lasting: bool = True) -> None:
    """Write a file so that whoever looks finds the old content or the new, also after a crash or on a full disk.

    A link stays one, and what it leads to is replaced; a device or a pipe (/dev/stdout) is written to. What is not
    `lasting` may be lost in a crash of the machine, and nobody waits for the disk.

    Raises `OSError` with the file's name; the old content is then still there.
    """
    if is_special(file):
        with naming(str(file)), file.open("wb") as stream:
            stream.write(data)
        return
    target = Path(os.path.realpath(file))
    hidden = target.with_name(f".{target.name}.tmp")
    try:
        with hidden.open("wb") as stream:
            stream.write(data)
            if lasting:
                stream.flush()
                os.fsync(stream.fileno())
        hidden.replace(target)
    except OSError as error:
        with suppress(OSError):
            hidden.unlink()
        raise OSError(error.errno, error.strerror, str(file)) from None
    if not lasting:
        return
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def is_special(file: Path) -> bool:
    """Whether a name is that of something that must not be replaced by a file: a device, a pipe, a directory."""
    return file.exists() and not file.is_file()


def keep_apart(file: Path, read: Iterable[str]) -> None:
    """Refuse a file to be written if it is one of those that were read.

    Raises `ConfigError`.
    """
    if any(same_file(file, Path(one)) for one in read):
        raise ConfigError(f"{file}: would write over what the result was read from")


def same_file(file: Path, other: Path, *, written: bool = False) -> bool:
    """Whether two names are one file; of files that are not there yet, only those that are `written` can be one."""
    try:
        return file.samefile(other) and not file.is_char_device()  # /dev/null takes two reports
    except (OSError, ValueError):  # one is not there, or can be no name
        return written and file.absolute() == other.absolute()


def sealed(make: Callable[[Any], Any], data: Any) -> tuple[Any, ...]:
    """Return what `__reduce__` returns for an object that `make(data)` makes: a pickle that knows its own digest."""
    content = _pickled(data)
    return _open, (make, content, _digest(content))


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST).digest()


def _pickled(data: Any) -> bytes:
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=5)
    pickler.dispatch_table = {MappingProxyType: lambda proxy: (_read_only, (dict(proxy),))}
    pickler.dump(data)
    return stream.getvalue()


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


def _open(make: Callable[[Any], Any], content: bytes, digest: bytes) -> Any:
    return make(pickle.loads(_whole(content, digest)))


def _whole(content: bytes, digest: bytes) -> bytes:
    if _digest(content) != digest:
        raise pickle.UnpicklingError("the pickle is damaged: its digest is not that of its content")
    return content


def save_object(file: Path, result: Any) -> None:
    """Write an object as a file with a digest, whole or not at all."""
    content = __version__.encode() + b"\n" + _pickled(result)
    replace_file(file, _MAGIC + _digest(content) + content)


def load_object(file: Path) -> Any:
    """Read what `save_object` wrote.

    A pickle may name any function of any module; this one may name our classes, what arrays are made of, and plain
    containers, nothing else.

    Raises `ConfigError` if it is another file, damaged, or names anything else.
    """
    data = file.read_bytes()
    if not data.startswith(_MAGIC):
        raise ConfigError(f"{file}: is no saved result of tlbcore")
    start = len(_MAGIC) + _DIGEST
    digest, content = data[len(_MAGIC) : start], data[start:]
    if _digest(content) != digest:
        raise ConfigError(f"{file}: is damaged: its digest is not that of its content")
    version, _, content = content.partition(b"\n")
    try:
        return _Careful(io.BytesIO(content)).load()
    except _UNREADABLE as error:
        wrote = version.decode(errors="replace")
        by = "" if wrote == __version__ else f" (tlbcore {wrote} wrote it, this is {__version__})"
        raise ConfigError(f"{file}: cannot be loaded: {error}{by}") from None


# What a pickle of another version, or of a stranger's, ends in.
_UNREADABLE = (
    pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, ImportError, LookupError, TypeError, ValueError,
)  # fmt: skip
# What arrays, paths and read-only mappings are pickled as.
_PLAIN = {
    "builtins": {"bytearray", "complex", "frozenset", "range", "set", "slice"},
    "collections": {"OrderedDict"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "pathlib": {"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"},
}
# Functions that make objects of ours from data; each takes what `sealed` was given.
_MAKERS = {"_actor", "_compared", "_made", "_read_only", "_restored", "_result", "_unpickled"}


class _Careful(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        if module.split(".")[0] == "tlbcore" and "." not in name:
            if (module, name) == (__name__, "_open"):
                return _open_carefully
            found = super().find_class(module, name)
            ours = getattr(found, "__module__", "").split(".")[0] == "tlbcore"
            if ours and (name in _MAKERS or (isinstance(found, type) and _is_data(found))):
                return found
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a result")


def _is_data(cls: type) -> bool:
    return is_dataclass(cls) or any(base.__name__ in ("Result", "Table", "Tlb") for base in cls.__mro__)


def _open_carefully(make: Callable[[Any], Any], content: bytes, digest: bytes) -> Any:
    return make(_Careful(io.BytesIO(_whole(content, digest))).load())
