"""A directory of Parquet parts that survives kill -9, a full disk and damaged files.

A part is written under a hidden name, flushed to the disk, and renamed to the hash of its bytes. So a file
named `<hash>.parquet` is complete and its name proves it: whatever happens, the directory holds whole batches
of rows. Parts that were merged into a larger one are named in its metadata (`replaces`) before they are
deleted, so no row counts twice at any moment.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from tlbcore._core import SweepError
from tlbcore._output.files import replace_file
from tlbcore.sweeps.points import Design

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "tlbcore.sweep"
VERSION = 2
# pandas and pyarrow pass over names that begin with an underscore or a point; polars and duckdb take *.parquet.
ABOUT = "_sweep.json"
DESIGN = "_design"
COMPACT_ROWS = 50_000  # a finished directory has files of at least so many rows, and one with the rest
COMPACT_PARTS = 64  # slow points make small parts; more of them than this are merged early


@dataclass(frozen=True)
class _Part:
    name: str
    rows: int


def keys_to_column(keys: NDArray[np.uint64]) -> pa.Array:
    """Turn keys, shape (n, 2), into a column of 16-byte values."""
    import pyarrow as pa

    data = pa.py_buffer(np.ascontiguousarray(keys, dtype="<u8").tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, data])


def column_to_keys(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return a column of 16-byte keys as an array of two words each."""
    whole = column.combine_chunks()
    start = whole.offset * 16
    data = whole.buffers()[1][start : start + 16 * len(whole)]
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2).astype(np.uint64, copy=False)


class Keys:
    """The keys of the points that are done: 16 bytes each, sorted."""

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        places = np.lexsort((keys[:, 1], keys[:, 0]))
        keys = keys[places]
        fresh = np.ones(len(keys), dtype=bool)
        fresh[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        self.duplicates = int(len(keys) - fresh.sum())
        self._keys, self._places = keys[fresh], places[fresh]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the place that each key, shape (n, 2), had among those given; -1 where it is none of them."""
        place = np.full(len(keys), -1, dtype=np.int64)
        for at, here in self._candidates(keys):
            place[here] = self._places[at[here]]
        return place

    def contains(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Say of each key, shape (n, 2), whether it is done."""
        found = np.zeros(len(keys), dtype=bool)
        for _, here in self._candidates(keys):
            found |= here
        return found

    def _candidates(self, keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        """Yield indices into the sorted keys, and where the key there is the one that was asked for."""
        if not len(self._keys):
            return
        high, low = self._keys[:, 0], self._keys[:, 1]
        at = np.searchsorted(high, keys[:, 0])
        # Equal high halves are adjacent, and more than one of them is a chance of 2^-64 per pair.
        for step in range(2):
            here = np.minimum(at + step, len(high) - 1)
            yield here, (high[here] == keys[:, 0]) & (low[here] == keys[:, 1])


class Directory:
    """A sweep's output directory, opened by the one process that adds to it."""

    def __init__(self, path: Path, identity: Mapping[str, Any], units: Mapping[str, str]) -> None:
        """Create the directory, or open it to resume; refuse one that holds anything else.

        Raises `SweepError` for the directory of another sweep, of a newer version, in use by another process,
        or with foreign files; nothing in it is touched then.
        """
        self.path = path
        self._metadata = {
            "tlbcore.sweep": json.dumps(dict(identity), sort_keys=True),
            "tlbcore.units": json.dumps(dict(units)),
        }
        if path.exists() and not path.is_dir():
            raise SweepError(f"{path} is not a directory")
        about = path / ABOUT
        if about.exists():
            _compare(about, identity)
        elif path.exists() and any(not file.name.startswith(".") for file in path.iterdir()):
            raise SweepError(f"{path} is not empty and holds no sweep")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        if not about.exists():
            text = json.dumps({"schema": SCHEMA, "version": VERSION, **identity}, indent=2, sort_keys=True)
            replace_file(about, text.encode())
        for left in path.glob(".*.tmp"):
            left.unlink()
        self.damaged: list[str] = []
        self._parts: list[_Part] = []
        self.done = self._load()

    def _take_lock(self) -> BufferedWriter:
        lock = (self.path / ".lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it however the process ends
        except BlockingIOError:
            lock.close()
            raise SweepError(f"another process is writing to {self.path}") from None
        return lock

    def close(self) -> None:
        """Free the directory."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self) -> Keys:
        import pyarrow.parquet as pq

        found: dict[str, pq.ParquetFile] = {}
        for file in _part_files(self.path):
            if _is_whole(file):
                found[file.stem] = pq.ParquetFile(file)
            else:
                # Kept for whoever wants to look; its points are simply not done.
                file.rename(file.with_suffix(".corrupt"))
                self.damaged.append(file.name)
        for name in _replaced(found):
            found.pop(name).close()
            self._file(name).unlink()
        keys = [column_to_keys(part.read(["key"])["key"]) for part in found.values()]
        self._parts = [_Part(name, part.metadata.num_rows) for name, part in found.items()]
        for part in found.values():
            part.close()
        return Keys(np.concatenate([np.empty((0, 2), dtype=np.uint64), *keys]))

    @property
    def empty(self) -> bool:
        """Whether there is no row yet."""
        return not _part_files(self.path)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.parquet"

    def plan(self, design: Design) -> None:
        """Write down the order of the rows, so that whoever reads the directory finds them in it."""
        keys = np.ascontiguousarray(design.keys, dtype="<u8").tobytes()
        about = {
            "parameters": design.parameters, "replications": design.replications, "samples": design.samples,
            "rows_per_sample": design.rows_per_sample,
        }  # fmt: skip
        about["digest"] = _hash(json.dumps(about).encode() + keys)
        replace_file(self.path / DESIGN, json.dumps(about).encode() + b"\n" + keys)

    def append(self, table: pa.Table) -> None:
        """Add rows; when this returns they are on the disk."""
        self._parts.append(self._store(table, replaces=[]))
        small = [part for part in self._parts if part.rows < COMPACT_ROWS]
        if len(small) >= COMPACT_PARTS or sum(part.rows for part in small) >= COMPACT_ROWS:
            self._merge(small)

    def compact(self) -> None:
        """Merge what is small; at the end of a sweep."""
        small = [part for part in self._parts if part.rows < COMPACT_ROWS]
        if len(small) > 1:
            self._merge(small)

    def _merge(self, parts: list[_Part]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [pq.read_table(self._file(part.name)) for part in parts]
        table = pa.concat_tables(tables, promote_options="permissive")
        merged = self._store(table, replaces=[part.name for part in parts])
        for part in parts:
            self._file(part.name).unlink()
        self._parts = [part for part in self._parts if part not in parts] + [merged]

    def _store(self, table: pa.Table, replaces: list[str]) -> _Part:
        import pyarrow as pa
        import pyarrow.parquet as pq

        metadata = {**self._metadata, "tlbcore.replaces": json.dumps(replaces)}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
        data = sink.getvalue()
        name = _hash(memoryview(data))
        replace_file(self._file(name), data)
        return _Part(name, table.num_rows)


class Stored:
    """The rows of a directory, read column by column when they are asked for.

    Small parts stay open, since whoever goes on with the sweep may merge and delete them; large ones stay on the disk.
    """

    def __init__(self, files: list[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._parts: list[pq.ParquetFile | Path] = []
        self.names: list[str] = []
        for file in files:
            part = pq.ParquetFile(pa.OSFile(str(file)))
            self.names += [name for name in part.schema_arrow.names if name not in self.names]
            self.metadata: dict[bytes, bytes] = dict(part.schema_arrow.metadata)
            self._parts.append(part if part.metadata.num_rows < COMPACT_ROWS else file)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if name not in self.names:
            raise KeyError(name)
        parts = [
            pq.read_table(part, columns=[name], partitioning=None)
            if isinstance(part, Path)
            else part.read([name])
            for part in self._parts
        ]
        return pa.concat_tables(parts, promote_options="permissive")[name]

    def order(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows sorted by these columns, one after the other."""
        import pyarrow as pa
        import pyarrow.compute as pc

        table = pa.table({name: self[name] for name in names})
        order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names])
        rows: NDArray[np.int64] = order.to_numpy().astype(np.int64)
        return rows


def read(path: Path) -> tuple[dict[str, Any], Stored]:
    """Return what `_sweep.json` says and the rows; raises `SweepError` for a damaged part or no sweep."""
    import pyarrow.parquet as pq

    about = path / ABOUT
    if not about.exists():
        raise SweepError(f"{path} holds no sweep")
    identity = _identity(about)
    replaces = {}
    for file in _part_files(path):
        if not _is_whole(file):
            raise SweepError(f"{file}: the part is damaged; resume the sweep to compute its points again")
        replaces[file] = set(json.loads(pq.read_schema(file).metadata[b"tlbcore.replaces"]))
    replaced = set().union(*replaces.values())
    files = [file for file in replaces if file.stem not in replaced]
    if not files:
        raise SweepError(f"{path}: the sweep has no rows yet")
    return identity, Stored(files)


def design(path: Path) -> Design | None:
    """Return the order of the rows that the last sweep into this directory asked for; None if it holds none."""
    try:
        about, keys = (path / DESIGN).read_bytes().split(b"\n", 1)
    except (OSError, ValueError):
        return None
    try:
        fields = json.loads(about)
        digest = fields.pop("digest")
        header = json.dumps(fields).encode()
        whole = np.frombuffer(keys, dtype="<u8").reshape(-1, 2).astype(np.uint64, copy=False)
        found = Design(keys=whole, parameters=tuple(fields.pop("parameters")), **fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        digest = None
    if digest is None or digest != _hash(header + keys):
        raise SweepError(f"{path / DESIGN}: the order of the rows is damaged; sweep again to write it anew")
    return found


def _part_files(path: Path) -> list[Path]:
    return [file for file in sorted(path.glob("*.parquet")) if re.fullmatch("[0-9a-f]{32}", file.stem)]


def _is_whole(file: Path) -> bool:
    return _hash(file.read_bytes()) == file.stem


def _hash(data: bytes | memoryview) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _replaced(found: Mapping[str, Any]) -> list[str]:
    """Name the parts whose rows stand in a merged part too: the driver died between merging and deleting."""
    replaced = set()
    for part in found.values():
        replaced.update(json.loads(part.schema_arrow.metadata[b"tlbcore.replaces"]))
    return sorted(replaced & set(found))


def _identity(about: Path) -> dict[str, Any]:
    try:
        document = json.loads(about.read_text())
        schema, version = document.pop("schema"), document.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SweepError(f"{about} does not describe a sweep") from None
    if schema != SCHEMA:
        raise SweepError(f"{about} does not describe a sweep: its schema is {schema!r}")
    if not isinstance(version, int):
        raise SweepError(f"{about} does not describe a sweep: its version is {version!r}")
    if version > VERSION:
        raise SweepError(f"{about} is of version {version}: this tlbcore knows versions up to {VERSION}")
    return dict(document)


def _compare(about: Path, identity: Mapping[str, Any]) -> None:
    held = _identity(about)
    wanted = json.loads(json.dumps(dict(identity)))
    for name in sorted(held.keys() | wanted.keys()):
        if held.get(name) != wanted.get(name):
            raise SweepError(
                f"{about.parent} holds another sweep: its {name} is {_short(held.get(name))},"
                f" not {_short(wanted.get(name))}"
            )


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."
