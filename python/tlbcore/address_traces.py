"""Address traces of other tools, read in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlbcore import _core
from tlbcore._core import TraceError
from tlbcore._input.door import door
from tlbcore._input.names import unknown
from tlbcore._input.numbers import count
from tlbcore._output.result import needed

__all__ = ["AddressChunk", "Addresses", "addresses"]

#: Load, store, fetch; a kind's number is its place.
KINDS = tuple(name for _, name, _ in _core.event_ops()[:3])
_LEAST = 64  # accesses of a chunk: one record must fit
_COLUMNS = ("npy", "parquet")


class AddressChunk(NamedTuple):
    """Some accesses in order.

    `address` (uint64) in bytes; `kind` (uint8): 0 load, 1 store, 2 fetch, as in `tlbcore.OPS`; `cpu` (uint16).
    """

    address: NDArray[np.uint64]
    kind: NDArray[np.uint8]
    cpu: NDArray[np.uint16]

    def select(self, chosen: NDArray[np.bool_] | slice) -> AddressChunk:
        """Return the accesses of a mask or slice."""
        return AddressChunk(self.address[chosen], self.kind[chosen], self.cpu[chosen])


@dataclass(frozen=True, kw_only=True, eq=False)
class Addresses:
    """An address trace. Iterating reads it from the beginning, a chunk at a time.

    Attributes
    ----------
    path
        As given; `-` is standard input, which can be read once.
    format
        `champsim`, `drmemtrace`, `lackey`, `pinatrace`, `gem5-packets`, `gem5-text`, `csv`, `npy` or `parquet`.
    kinds, cpu
        What is left of it: these kinds of access, this CPU (None: all).
    chunk, limit
        Accesses of a chunk at most, and of the trace (None: all), before `kinds` and `cpu` choose among them.
    """

    path: str
    format: str
    kinds: tuple[str, ...] = KINDS
    cpu: int | None = None
    chunk: int = 1 << 20
    limit: int | None = None
    _given: str | None = field(default=None, repr=False)
    _first: list[_core.AddressReader] = field(default_factory=list, repr=False)

    @property
    def physical(self) -> bool:
        """Whether the format has physical addresses: those of gem5's packets and MemoryAccess.

        Translations of physical addresses are not what the program's TLB saw.
        """
        return self.format.startswith("gem5")

    def __iter__(self) -> Iterator[AddressChunk]:
        left = self.limit
        for piece in _PIECES.get(self.format, _text_pieces)(self):
            whole = piece if left is None or len(piece.address) <= left else piece.select(slice(left))
            if left is not None:
                left -= len(whole.address)
            yield self._chosen(whole)
            if left == 0:
                return

    def _chosen(self, piece: AddressChunk) -> AddressChunk:
        if len(self.kinds) < len(KINDS):
            numbers = [KINDS.index(kind) for kind in self.kinds]
            piece = piece.select(np.isin(piece.kind, numbers))
        return piece if self.cpu is None else piece.select(piece.cpu == self.cpu)


@door
def addresses(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002  (the word that users look for)
    kinds: Sequence[str] = KINDS,
    cpu: int | None = None,
    chunk: int = 1 << 20,
    limit: int | None = None,
) -> Addresses:
    """Open an address trace of another tool; its format is told by content, plain or packed (.gz, .xz, .zst, .zip).

    Formats: ChampSim's instructions of 64 bytes; DynamoRIO's offline drmemtrace of 64-bit builds, as its
    `trace_entry.h` describes it up to version 5 (prefetches and cache flushes are left out); Valgrind's
    `--tool=lackey --trace-mem=yes`; Pin's pinatrace; gem5's packets as printed by `decode_packet_trace.py`, and its
    text of `--debug-flags=MemoryAccess` or `Exec`; CSV with a header (`address`, and if it has them `kind` and
    `cpu`), or one address in each line; NumPy's .npy (integers, or a structured array with those fields); Parquet
    with those columns (extra `tables`). A format without CPUs has everything on CPU 0. An access that spans two
    pages counts as one of the first.

    Memory does not depend on the length of the trace.

    Parameters
    ----------
    path
        The file; `-` is standard input.
    format
        What it is, where content does not tell.
    kinds, cpu
        Only these kinds of access (`load`, `store`, `fetch`), only this CPU.
    chunk
        Accesses of a chunk, at most.
    limit
        Read no more than the first so many accesses.

    Returns
    -------
    Addresses
        Iterate over it for chunks of (address, kind, cpu).

    Raises
    ------
    TraceError
        If it is of no format that is known, or damaged; while iterating, where a line (by number) or a record (by
        its place in the unpacked bytes) breaks the rule of its format. What comes before is handed out first.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> import tlbcore as tc
    >>> trace = tc.addresses("tests/data/addresses/walk.lackey.txt.xz", kinds=["load"])
    >>> trace.format
    'lackey'
    >>> sum(len(address) for address, kind, cpu in trace)
    288
    """
    name = str(path)
    known = (*_core.address_formats(), *_COLUMNS)
    if format is not None and format not in known:
        raise TraceError(unknown("format", format, known))
    asked = [] if isinstance(kinds, str) else list(kinds)
    if not asked:
        raise TraceError(f"kinds are a list of some of {', '.join(KINDS)}: got {kinds!r}")
    for kind in asked:
        if kind not in KINDS:
            raise TraceError(unknown("kind", kind, KINDS))
    if name == "-" and format in _COLUMNS:
        raise TraceError(
            f"standard input cannot be read as {format}, whose columns are looked up: give a file"
        )
    first: list[_core.AddressReader] = []
    found = format
    if name != "-":
        with Path(name).open("rb") as stream:
            head = stream.read(8)
        if found is None and head.startswith(b"\x93NUMPY"):
            found = "npy"
        elif found is None and head.startswith(b"PAR1"):
            found = "parquet"
    if found not in _COLUMNS:
        first.append(_core.AddressReader(name, format))
        found = first[0].format
    return Addresses(
        path=name,
        format=found,
        kinds=tuple(kind for kind in KINDS if kind in asked),
        cpu=None if cpu is None else count(cpu, "cpu", most=65535, error=TraceError),
        chunk=count(chunk, "chunk", _LEAST, 1 << 32, TraceError),
        limit=None if limit is None else count(limit, "limit", 1, error=TraceError),
        _given=format,
        _first=first,
    )


def _text_pieces(trace: Addresses) -> Iterator[AddressChunk]:
    reader = trace._first.pop() if trace._first else _core.AddressReader(trace.path, trace._given)
    while (piece := reader.next(trace.chunk)) is not None:
        yield AddressChunk(*piece)


def _npy_pieces(trace: Addresses) -> Iterator[AddressChunk]:
    try:
        whole = np.lib.format.open_memmap(trace.path, mode="r")
    except OSError:
        raise
    except (
        Exception
    ) as error:  # a header is Python's text: what is wrong with it ends in errors of many kinds
        raise TraceError(f"{trace.path}: is no array that NumPy can map: {error}") from None
    names = whole.dtype.names
    if whole.ndim != 1 or (names is None and whole.dtype.kind not in "iu"):
        raise TraceError(
            f"{trace.path}: an array must hold integers or named fields, in one dimension: got {whole.dtype} of"
            f" shape {whole.shape}"
        )
    places = {"address": None} if names is None else _places(trace.path, names)
    for start in range(0, len(whole), trace.chunk):
        piece = whole[start : start + trace.chunk]
        columns = {name: np.asarray(piece if at is None else piece[at]) for name, at in places.items()}
        yield _piece(trace.path, start, columns)


def _parquet_pieces(trace: Addresses) -> Iterator[AddressChunk]:
    pa, pq = needed("pyarrow"), needed("pyarrow.parquet")
    try:
        with pq.ParquetFile(trace.path) as file:
            places = _places(trace.path, file.schema_arrow.names)
            start = 0
            for batch in file.iter_batches(batch_size=trace.chunk, columns=list(places.values())):
                for name in places.values():
                    if batch.column(name).null_count:
                        raise TraceError(f"{trace.path}: column {name!r} has rows without a value")
                columns = {
                    name: batch.column(at).to_numpy(zero_copy_only=False) for name, at in places.items()
                }
                yield _piece(trace.path, start, columns)
                start += len(batch)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TraceError(
            f"{trace.path}: is no Parquet that can be read: {error}"
        ) from None  # bytes that are damaged


_PIECES = {"npy": _npy_pieces, "parquet": _parquet_pieces}


def _places(path: str, names: Sequence[str]) -> dict[str, str]:
    """Return which column is which, by the words that a CSV header may have."""
    found: dict[str, str] = {}
    for what, words in _core.address_columns():
        for name in names:
            if name.lower() in words:
                if names.count(name) > 1:
                    raise TraceError(f"{path}: there are {names.count(name)} columns called {name!r}")
                found.setdefault(what, name)
    if "address" not in found:
        raise TraceError(f"{path}: there is no column `address`: got {', '.join(names)}")
    return found


def _piece(path: str, start: int, columns: dict[str, NDArray[Any]]) -> AddressChunk:
    def refuse(what: str, rule: str, wrong: NDArray[np.bool_]) -> None:
        if wrong.any():
            index = int(np.argmax(wrong))
            got = columns[what][index]  # an object where the column holds texts, lists, decimals
            plain = got.item() if isinstance(got, np.generic) else got
            raise TraceError(f"{path}: {what}[{start + index}] must be {rule}: got {plain!r}")

    for what, column in columns.items():
        if column.ndim != 1:
            raise TraceError(f"{path}: {what} must be one number a row: got {column[0].size} of them")
    everything = np.ones(len(columns["address"]), dtype=bool)
    for what in ("address", "cpu"):
        if what in columns and columns[what].dtype.kind not in "iu":
            refuse(what, "a whole number", everything)
    address = columns["address"].astype(np.int64 if columns["address"].dtype.kind == "i" else np.uint64)
    cpu = columns.get("cpu", np.zeros(len(address), dtype=np.uint16))
    refuse("cpu", "from 0 to 65535", (cpu < 0) | (cpu > 65535))
    kind = columns.get("kind", np.zeros(len(address), dtype=np.uint8))
    if kind.dtype.kind not in "iu":
        words = dict(_core.address_kinds())
        texts = (word.decode("latin-1") if isinstance(word, bytes) else str(word) for word in kind)
        kind = np.array([words.get(text.lower(), 255) for text in texts], dtype=np.int64)
    refuse("kind", "load, store or fetch (0, 1 or 2)", (kind < 0) | (kind > 2))
    return AddressChunk(address.view(np.uint64), kind.astype(np.uint8), cpu.astype(np.uint16))


def of_which(trace: Addresses) -> str:
    """Return what `kinds` and `cpu` leave of a trace, in words; nothing where they leave all of it."""
    chosen = [] if len(trace.kinds) == len(KINDS) else [f"kind {', '.join(trace.kinds)}"]
    chosen += [] if trace.cpu is None else [f"CPU {trace.cpu}"]
    return f" of {' on '.join(chosen)}" if chosen else ""


def canonical_pages(trace: Addresses, address: NDArray[np.uint64], before: int) -> NDArray[np.uint64]:
    """Return `address >> 12`; `before` accesses precede. Raises `TraceError` for the first that no CPU takes."""
    high = address.view(np.int64) >> 56  # bits 63 to 56 are copies of bit 56 (SDM Vol. 1, 3.3.7.1, LA57)
    wrong = (high != 0) & (high != -1)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise TraceError(
            f"{trace.path}: access {before + index}{of_which(trace)} must have a canonical address: "
            f"got {int(address[index]):#x}"
        )
    return address >> np.uint64(12)


def curve_pages(trace: Addresses) -> Iterator[NDArray[np.uint64]]:
    """Yield the pages of a trace of one CPU; raises `TraceError` where it has several."""
    seen: int | None = None
    done = 0
    for chunk in trace:
        cpus = np.unique(chunk.cpu).tolist()
        for cpu in cpus:
            if seen is not None and cpu != seen:
                raise TraceError(
                    f"{trace.path}: holds accesses of CPUs {seen} and {cpu}, which have a TLB each: choose one with"
                    " cpu= (--cpu)"
                )
            seen = cpu
        yield canonical_pages(trace, chunk.address, done)
        done += len(chunk.address)
