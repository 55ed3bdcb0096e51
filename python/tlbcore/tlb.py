"""TLBs of any shape, driven by NumPy arrays.

`Tlb` is the one stateful class of tlbcore, as `numpy.random.Generator` is NumPy's: contents and counters
persist from call to call, can be looked at, copied, pickled and reset. One `Tlb` belongs to one thread at a
time.
"""

from __future__ import annotations

import numbers
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlbcore import _core
from tlbcore._output.calls import kept
from tlbcore._output.files import sealed
from tlbcore._output.result import Result
from tlbcore.hardware import Machine
from tlbcore.hardware import machine as _machine

if TYPE_CHECKING:
    from tlbcore.address_traces import Addresses

#: One event of `Tlb.run`: 16 bytes. `vpn` is `address >> 12`; `op` is a number of `OPS`; `flags` are those
#: of `FLAGS`.
EVENT: np.dtype[np.void] = np.dtype(
    [("vpn", "<u8"), ("pcid", "<u2"), ("cpu", "<u2"), ("pages", "<u2"), ("op", "u1"), ("flags", "u1")]
)

#: Names of the ops of an event and their numbers; `help(tlbcore.Tlb.run)` says what each does.
OPS: Mapping[str, int] = {name: number for number, name, _ in _core.event_ops()}

#: What an access does.
Kind = Literal["load", "store", "fetch"]

#: Bits of an event's flags.
FLAGS: Mapping[str, int] = {
    "GLOBAL": 1,
    "NOFLUSH": 2,
    "SIZE_2M": 4,
    "SIZE_1G": 8,
    "VA": 16,
    "PCID": 32,
    "FINAL_ONLY": 64,
    "ANY_PCID": 128,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TlbResult(Result):
    """What one call did.

    `counters` maps names to counts of this call: `accesses`, `{level}_hits` for each level, `walks`, the
    hits of the paging-structure caches (`pde_hits` ...), `walk_loads` (table entries read), `stale_hits`,
    `stale_walks`, `switches` (changes of context) and `invalidated` (entries removed). Each is an attribute
    too.

    `levels`, shape (n,), uint8: the level that answered each access, 0 nearest; the number of levels if the
    tables were walked; 255 for an event that is no access. None if only counts were asked for.
    """

    _made_by: ClassVar[str] = "tlbcore.Tlb(...).access(...)"  # a call of microseconds keeps no arguments

    counters: Mapping[str, int]
    levels: NDArray[np.uint8] | None = None

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        tables: dict[str, Mapping[str, Any]] = {
            "counters": {name: np.array([value]) for name, value in self.counters.items()}
        }
        return tables if self.levels is None else {**tables, "levels": {"level": self.levels}}

    def _about(self) -> dict[str, Any]:
        return {"version": _core.__version__}

    def __getattr__(self, name: str) -> int:
        # Not called for the fields themselves, unless an unpickler asks before they exist.
        counters = self.__dict__.get("counters", {})
        if name in counters:
            return int(counters[name])
        raise AttributeError(f"no counter {name!r}: there are {', '.join(counters)}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.counters]


class Tlb:
    """The TLBs of one CPU, or of several CPUs of one shape.

    `machine` is the name of a built-in machine, a preset file or a `Machine`. With `smt`, structures that
    siblings split have half their sets. With `ideal_pcid`, every structure keeps any number of contexts, as
    the architecture would let it. Raises `TlbError` for a machine that does not exist or whose shape breaks
    a rule.

    >>> import numpy as np
    >>> tlb = Tlb("peers-64x4-1536x12")
    >>> result = tlb.access(np.array([7, 7, 8], dtype=np.uint64))
    >>> result.levels
    array([2, 0, 2], dtype=uint8)
    >>> result.walks
    2
    """

    __slots__ = ("_arguments", "_state", "machine")

    def __init__(
        self,
        machine: str | os.PathLike[str] | Machine,
        *,
        cpus: int = 1,
        smt: bool = False,
        ideal_pcid: bool = False,
    ) -> None:
        self.machine = _machine(machine)
        if not _is_whole(cpus, 1, 4096):
            raise _core.TlbError(f"cpus must be a whole number from 1 to 4096: got {cpus}")
        self._arguments: dict[str, Any] = {
            "cpus": int(cpus),
            "smt": bool(smt),
            "ideal_pcid": bool(ideal_pcid),
        }
        self._state = _core.TlbState(self.machine.name, self.machine.text, **self._arguments)

    def __repr__(self) -> str:
        defaults = {"cpus": 1, "smt": False, "ideal_pcid": False}
        given = (item for item in self._arguments.items() if item not in defaults.items())
        changed = "".join(f", {name}={value}" for name, value in given)
        return f"Tlb({self.machine.name!r}{changed})"

    def access(
        self,
        vpn: ArrayLike | None = None,
        pcid: ArrayLike = 0,
        kind: Kind = "load",
        page_size: ArrayLike = 4096,
        *,
        address: ArrayLike | None = None,
        cpu: int = 0,
        counts_only: bool = False,
    ) -> TlbResult:
        """Access pages in order on one CPU, and return what happened.

        `vpn`, shape (n,), uint64 (any integers are converted): `address >> 12`, whatever the page size. Or
        `address`, shape (n,): byte addresses, as traces have them; kernel addresses may be negative int64.
        `pcid`: one context for all, or shape (n,), uint16; a change of context is a MOV CR3 with NOFLUSH.
        `kind` is load, store or fetch. `page_size` in bytes: 4096, 2 MiB or 1 GiB, one for all or
        shape (n,): how the tables map the page of each access. A miss walks the tables and fills every level.

        Contiguous uint64 and int64 arrays are read in place, without a copy, while the interpreter is released.
        Raises `TlbError` for pages of no canonical address, PCIDs above 4095, a page size that no level
        holds, and use from two threads at once; `TypeError` for an array that does not hold integers. A
        refused call changes nothing.
        """
        if address is None:
            counted = self._state.access_few(vpn, pcid, kind, page_size, cpu, counts_only)
            if counted is not None:
                return _result(*counted)
        if (vpn is None) == (address is None):
            raise TypeError("access takes page numbers (vpn) or byte addresses (address=), one of them")
        pages = _pages(vpn) if address is None else _pages_of(address)
        contexts: int | NDArray[Any]
        if type(pcid) is int and 0 <= pcid <= 4095:
            contexts = pcid
        elif np.ndim(pcid) == 0:
            contexts = int(_integers("pcid", np.atleast_1d(np.asarray(pcid)), np.dtype(np.uint16), 4095)[0])
        else:
            contexts = _integers("pcid", pcid, np.dtype(np.uint16), 4095)
        if not _is_whole(cpu, 0, self._arguments["cpus"] - 1):
            raise _core.TlbError(f"cpu must be below {self._arguments['cpus']}: got {cpu}")
        if np.ndim(page_size) != 0:
            return self.run(_mapped(pages, contexts, kind, page_size, int(cpu)), counts_only=counts_only)
        size: Any = page_size
        if not _is_whole(size, 0, 1 << 30):
            raise _core.TlbError(f"page_size must be 4096, 2097152 or 1073741824 bytes: got {size}")
        levels = None if counts_only else np.empty(len(pages), dtype=np.uint8)
        return _result(self._state.access(pages, contexts, kind, int(size), int(cpu), levels), levels)

    def run(self, events: NDArray[np.void], *, counts_only: bool = False) -> TlbResult:
        """Run events on many CPUs in order, and return what happened, summed over the CPUs.

        `events`, shape (n,), dtype `EVENT`. `op` is a number of `OPS`:

        - load, store, fetch: access `vpn` in context `pcid`; flag GLOBAL says that the tables map the page
          globally, SIZE_2M and SIZE_1G by what size. Another context than the current one is a MOV CR3 with
          NOFLUSH.
        - fill: the same, speculatively: nothing is counted.
        - mov_cr3: load `pcid`; without flag NOFLUSH its non-global entries leave.
        - invlpg: `pages` pages from `vpn`, in the current context and globally.
        - invpcid_address, invpcid_context, invpcid_all, invpcid_non_global: INVPCID types 0 to 3.
        - invlpgb: INVLPGB with TLBSYNC, on every CPU; flags VA, PCID, GLOBAL, FINAL_ONLY.
        - edit: the tables of `pages` pages from `vpn` change: what is cached of them on any CPU, in `pcid`
          and globally (with ANY_PCID in every context), is stale until it is invalidated.

        Raises `TypeError` for another dtype and `TlbError` naming field and index for an event that no CPU
        could execute; then nothing has changed. Source of the rules: SDM Vol. 3A 4.10.4.1, APM Vol. 3.
        """
        array = np.asarray(events)
        if array.dtype != EVENT:
            raise TypeError(f"events must have dtype tlbcore.EVENT: got {array.dtype}")
        if array.ndim != 1:
            raise _core.TlbError(f"events must have one dimension: got shape {array.shape}")
        raw = np.ascontiguousarray(array).view(np.uint8)
        levels = None if counts_only else np.empty(len(array), dtype=np.uint8)
        counters = self._state.run(raw, levels)
        return TlbResult(counters=counters, levels=levels)

    @property
    def counters(self) -> Mapping[str, int]:
        """Counts since the last reset, summed over the CPUs."""
        return self._state.counters()

    @property
    def per_cpu(self) -> Mapping[str, NDArray[np.uint64]]:
        """Counts since the last reset: a table with one row per CPU."""
        rows = [self._state.counters(cpu) for cpu in range(self._arguments["cpus"])]
        return {name: np.array([row[name] for row in rows], dtype=np.uint64) for name in rows[0]}

    def entries(self) -> Mapping[str, NDArray[Any]]:
        """Return everything cached as a table, one row per entry.

        Columns: `cpu`, `level`, `structure`, `set`, `way` (for LRU and FIFO the position in order, newest
        first), `vpn` (first 4 KiB page: `address >> 12`, that of kernel pages with its sign),
        `page_size_bytes`, `pcid` (0 for a global entry), `global`,
        `stale`.
        """
        return self._state.entries()

    def reset(self) -> None:
        """Empty every TLB and zero the counters."""
        self._state.reset()

    def copy(self) -> Tlb:
        """Return an independent TLB in the same state."""
        other = Tlb.__new__(Tlb)
        other.__setstate__(self.__getstate__())
        return other

    __copy__ = copy

    def __deepcopy__(self, _memo: object) -> Tlb:
        return self.copy()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tlb):
            return NotImplemented
        same = (self.machine, self._arguments) == (other.machine, other._arguments)
        return same and self._state.same(other._state)

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return {"machine": self.machine, "arguments": self._arguments, "state": self._state.save()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.machine = state["machine"]
        self._arguments = dict(state["arguments"])
        empty = _core.TlbState(self.machine.name, self.machine.text, **self._arguments)
        self._state = empty.restored(state["state"].decode())

    def __reduce__(self) -> tuple[Any, ...]:
        return sealed(_restored, (type(self), self.__getstate__()))


_new = object.__new__


def _result(counters: Mapping[str, int], levels: NDArray[np.uint8] | None) -> TlbResult:
    """`TlbResult(counters=counters, levels=levels)`, in a third of the time."""
    result = _new(TlbResult)
    fields = result.__dict__
    fields["counters"] = counters
    fields["levels"] = levels
    return result


def _mapped(
    pages: NDArray[np.uint64], contexts: int | NDArray[Any], kind: Kind, page_size: ArrayLike, cpu: int
) -> NDArray[np.void]:
    """Return accesses to pages of several sizes as events."""
    sizes = _integers("page_size", page_size, np.dtype(np.int64), 1 << 30)
    flags = np.zeros(len(sizes), dtype=np.uint8)
    flags[sizes == 2 << 20] = FLAGS["SIZE_2M"]
    flags[sizes == 1 << 30] = FLAGS["SIZE_1G"]
    wrong = (flags == 0) & (sizes != 4096)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise _core.TlbError(
            f"page_size[{index}] must be 4096, 2097152 or 1073741824 bytes: got {int(sizes[index])}"
        )
    if kind not in ("load", "store", "fetch"):
        raise _core.TlbError(f'kind must be "load", "store" or "fetch": got {kind!r}')
    for name, given in (("page_size", sizes), ("pcid", contexts)):
        if not isinstance(given, int) and len(given) != len(pages):
            raise _core.TlbError(f"{name}: must be as long as vpn ({len(pages)}): got {len(given)}")
    events = np.zeros(len(pages), dtype=EVENT)
    events["vpn"], events["pcid"], events["cpu"] = pages, contexts, cpu
    events["op"], events["flags"] = OPS[kind], flags
    return events


def _restored(data: tuple[type[Tlb], dict[str, Any]]) -> Tlb:
    cls, state = data
    tlb = cls.__new__(cls)
    tlb.__setstate__(state)
    return tlb


_PAGE = np.dtype(np.uint64)
_VPN_MAX = (1 << 52) - 1


def _is_whole(value: Any, least: int, most: int) -> bool:
    """Whether a value is a number without a fraction, within bounds; True is none."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and least <= value <= most and int(value) == value


def _integers(field: str, values: ArrayLike, dtype: np.dtype[Any], largest: int) -> NDArray[Any]:
    """Return a contiguous array of `dtype`: the same memory where that is possible."""
    if (
        type(values) is np.ndarray
        and values.dtype is dtype
        and values.ndim == 1
        and values.flags.c_contiguous
    ):
        return values  # as it should be: a call on one page pays for no more looks
    if np.ma.isMaskedArray(values):
        raise _core.TlbError(f"{field} must hold a value everywhere: got a masked array")
    array = np.asarray(values)
    if array.size == 0 and array.dtype.kind == "f" and not isinstance(values, np.ndarray):
        array = array.astype(dtype)  # an empty list
    if array.dtype.kind not in "iu":
        raise TypeError(f"{field} must hold integers: got {array.dtype}{_first_bad(array)}")
    if array.ndim != 1:
        raise _core.TlbError(f"{field} must have one dimension: got shape {array.shape}")
    if array.dtype != dtype:
        if array.size and (int(array.min()) < 0 or int(array.max()) > largest):
            wrong = (array < 0) | (array > largest) if array.dtype.kind == "i" else array > largest
            index = int(np.argmax(wrong))
            raise _core.TlbError(f"{field}[{index}] must be between 0 and {largest}: got {array[index]}")
        array = array.astype(dtype)
    return np.ascontiguousarray(array)


def _pages(vpn: Any) -> NDArray[np.uint64]:
    pages = _integers("vpn", vpn, _PAGE, _VPN_MAX)
    _look_like_pages(pages, stacklevel=4)
    return pages


def _look_like_pages(pages: NDArray[Any], stacklevel: int = 3) -> None:
    """Warn where what is given are addresses."""
    # Page numbers have no common factor of 4096, addresses of pages have: one look at a few of them decides.
    if len(pages) < 2 or int(pages[0]) & 4095 or int(pages[1]) & 4095:
        return
    few = pages[:64]
    if not (few & few.dtype.type(4095)).any() and few.min() >= 1 << 16 and few.min() < few.max():
        warnings.warn(
            f"vpn holds multiples of 4096 ({few[0]:#x}, ...): byte addresses go into address=, page numbers are"
            " address >> 12",
            UserWarning,
            stacklevel=stacklevel,
        )


def _pages_of(address: Any) -> NDArray[np.uint64]:
    array = np.asarray(address)
    if array.dtype.kind == "f" and isinstance(address, list) and {*map(type, address)} == {int}:
        with suppress(OverflowError):  # NumPy takes addresses of users and of the kernel together for floats
            address = array = np.array(address, dtype=np.uint64)
    if array.dtype == np.int64 and not np.ma.isMaskedArray(address):
        address = array.view(np.uint64)  # a kernel address that was read as signed
    addresses = _integers("address", address, _PAGE, (1 << 64) - 1)
    high = addresses >> np.uint64(56)  # bits 63 to 56 are copies of bit 56 (SDM Vol. 1, 3.3.7.1, LA57)
    wrong = (high != 0) & (high != 255)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise _core.TlbError(f"address[{index}] must be canonical: got {int(addresses[index]):#x}")
    pages: NDArray[np.uint64] = addresses >> np.uint64(12)
    return pages


def _first_bad(array: NDArray[Any]) -> str:
    if array.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(array.ravel()))
        if len(bad):
            return f", with {array.ravel()[bad[0]]} at index {bad[0]}"
    return ""


@dataclass(frozen=True, kw_only=True, eq=False)
class MissCurve(Result, Mapping[str, NDArray[Any]]):
    """LRU miss counts, exact or estimated: a table with one row per set count and way count.

    Columns: `sets`, `ways`, `entries` (their product), `misses` (uint64), `miss_ratio`; from a sample also
    `miss_ratio_error`, half the width of the 95 % interval, NaN for fewer than `1 / sample` ways. `accesses` is the
    number of accesses, `sample` the share of the pages that was looked at (1: all, so exact) and `sampled` the number
    of accesses to them. `table` is `misses` as an array of shape (set counts, ways).
    """

    _index = ("sets", "ways")

    sets: tuple[int, ...]
    ways: int
    accesses: int
    table: NDArray[np.uint64]
    sample: float = 1.0
    sampled: int | None = None
    errors: NDArray[np.float64] | None = None

    def _tables(self) -> dict[str, Mapping[str, NDArray[Any]]]:
        return {"table": self}

    def _about(self) -> dict[str, Any]:
        sampled = {} if self.sampled is None else {"sample": self.sample, "sampled": self.sampled}
        return {"accesses": self.accesses, **sampled, "version": _core.__version__}

    def __getitem__(self, column: str) -> NDArray[Any]:
        sets = np.repeat(np.array(self.sets, dtype=np.uint32), self.ways)
        ways = np.tile(np.arange(1, self.ways + 1, dtype=np.uint32), len(self.sets))
        if column == "sets":
            return sets
        if column == "ways":
            return ways
        if column == "entries":
            return sets * ways
        if column == "misses":
            return self.table.ravel()
        if column == "miss_ratio":
            return self.table.ravel() / max(self.accesses, 1)
        if column == "miss_ratio_error" and self.errors is not None:
            return self.errors
        raise KeyError(column)

    def __iter__(self) -> Iterator[str]:
        exact = ("sets", "ways", "entries", "misses", "miss_ratio")
        return iter(exact if self.errors is None else (*exact, "miss_ratio_error"))

    def __len__(self) -> int:
        return 5 if self.errors is None else 6


@kept
def miss_curve(
    vpn: ArrayLike | Addresses,
    sets: int | Sequence[int] | None = None,
    ways: int = 8,
    pcid: ArrayLike = 0,
    flushes: ArrayLike = (),
    *,
    sample: float | None = None,
) -> MissCurve:
    """Count the misses of every LRU TLB of 1 to `ways` ways and these set counts, in one pass.

    `vpn`, shape (n,): `address >> 12`, read in place if uint64; or what `tlbcore.addresses` returned, of one CPU,
    which is read in pieces (then without `pcid` and `flushes`). `sets`: powers of two up to 65,536, 16 if left out; the
    index is linear. `ways`: 1 to 1,048,576 (exact, too; beyond 32 a slower loop). `pcid`: one context, or shape
    (n,), uint16: pages of different contexts are different pages. `flushes`, shape (m,), rising: a full flush
    before the access of each of these numbers. One level, as an exact TLB of that shape would count: LRU is a
    stack algorithm (Mattson et al. 1970, Hill and Smith 1989).

    With `sample`, above 0 and below 1, that share of the pages is looked at, chosen by a hash (SHARDS, Waldspurger et
    al., FAST 2015), and the curve of one set is estimated, with its error: from how the curves differ in which one of
    eight groups of the sampled pages is left out (the jackknife). Where all groups agree, as where every sampled
    access missed, the error is 0, which bounds nothing. Fewer than `1 / sample` ways are not resolved.

    Raises `TlbError` for values out of range, naming field and index, for a sample of several sets, and for one
    that took too few pages to say how uncertain it is; `TypeError` for arrays that do not hold integers.

    >>> import numpy as np
    >>> curve = miss_curve(np.array([1, 2, 1, 2], dtype=np.uint64), sets=1, ways=2)
    >>> curve["misses"]
    array([4, 2], dtype=uint64)
    """
    if sample is not None:
        sample = _share(sample)
        if sets is not None and list(np.atleast_1d(sets)) != [1]:
            raise _core.TlbError(f"sets must be 1 with sample, as a set holds few sampled pages: got {sets}")
    if sets is None:
        sets = 16 if sample is None else 1
    counts = _integers("sets", [sets] if isinstance(sets, int) else sets, np.dtype(np.uint32), (1 << 32) - 1)
    marks = _integers("flushes", flushes, np.dtype(np.uint64), (1 << 63) - 1)
    contexts = None
    if np.ndim(pcid) != 0:
        contexts = _integers("pcid", pcid, np.dtype(np.uint16), 4095)
    if not _is_whole(ways, 1, 1 << 20):
        raise _core.TlbError(f"ways must be a whole number from 1 to 1048576: got {ways}")
    from tlbcore.address_traces import Addresses, curve_pages

    if isinstance(vpn, Addresses) and (np.ndim(pcid) != 0 or pcid != 0 or len(marks)):
        raise TypeError(
            "an address trace has one context and no flushes: pass pages (vpn) with pcid or flushes"
        )
    if sample is not None:
        pieces = curve_pages(vpn) if isinstance(vpn, Addresses) else [_integers("vpn", vpn, _PAGE, _VPN_MAX)]
        return _sampled(pieces, int(ways), contexts, marks, sample)
    if isinstance(vpn, Addresses):
        counter = _core.MissCounter(counts.tolist(), int(ways))
        for piece in curve_pages(vpn):
            counter.feed(piece)
        accesses, misses = counter.counts()
    else:
        pages = _integers("vpn", vpn, _PAGE, _VPN_MAX)
        accesses = len(pages)
        misses = _core.miss_curve(pages, contexts, marks, counts.tolist(), int(ways))
    table = np.array(misses, dtype=np.uint64)
    table.flags.writeable = False
    return MissCurve(sets=tuple(counts.tolist()), ways=int(ways), accesses=accesses, table=table)


def _share(sample: Any) -> float:
    share = float(sample) if isinstance(sample, numbers.Real) and not isinstance(sample, bool) else np.nan
    if not 0 < share < 1:
        raise _core.TlbError(f"sample must be a number above 0 and below 1: got {sample}")
    return share


def _sampled(
    pieces: Iterable[NDArray[np.uint64]],
    ways: int,
    contexts: NDArray[np.uint16] | None,
    marks: NDArray[np.uint64],
    sample: float,
) -> MissCurve:
    from tlbcore._input.sampled import Sample

    taken = Sample(sample, ways)
    for pages in pieces:
        # What `sample` leaves out is checked as well, and as without it.
        if len(pages) and int(pages.max()) >> 45:
            _core.miss_curve(pages, contexts, marks, [1], 1)
        whose: NDArray[np.uint64] | None = None
        if contexts is not None or len(marks):
            if contexts is not None and len(contexts) != len(pages):
                raise _core.TlbError(f"pcid: must be as long as vpn ({len(pages)}): got {len(contexts)}")
            # After a full flush every page is one that was never there.
            epochs = np.searchsorted(marks, np.arange(len(pages), dtype=np.uint64), side="right")
            whose = epochs.astype(np.uint64) << np.uint64(12)
            if contexts is not None:
                whose |= contexts
        taken.feed(pages, whose)
    if not taken.tells:
        raise _core.TlbError(
            f"sample: {sample:g} takes {taken.sampled} of {taken.references} accesses, of too few pages to say how"
            " uncertain the curve is: take a greater one"
        )
    misses, errors = taken.curve()
    misses.flags.writeable = errors.flags.writeable = False
    return MissCurve(
        sets=(1,), ways=ways, accesses=taken.references, table=misses.reshape(1, -1),
        sample=sample, sampled=taken.sampled, errors=errors,
    )  # fmt: skip
