"""CPU presets: what each machine's TLBs, features and costs are, how each number is known, and from where."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbcore import _core

if TYPE_CHECKING:
    from tlbcore._input import raw


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number of a machine.

    `key` is `section.name` or `structure.aspect`, `value` has its unit, `mark` is measured, published,
    fitted, predicted or unsourced, `source` says where it comes from.
    """

    key: str
    value: str
    mark: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost in core cycles: best estimate, the interval its source allows, mark and meaning."""

    cycles: int
    low: int
    high: int
    mark: str
    doc: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A CPU model: a built-in preset, or a preset text of your own.

    `name` is the name of a built-in machine when `text` is None, otherwise the origin (a file name) that
    stands in messages about `text`. Raises `TlbError` for an unknown name (with the nearest known one) and
    for a text that does not parse (with file and line). Two machines are equal if their name and text are.

    >>> machine("skylake-sp").pcid
    True
    """

    name: str
    text: str | None = None

    def __post_init__(self) -> None:
        for what, given in (("name", self.name), ("text", self.text)):
            if not isinstance(given, str) and (given is not None or what == "name"):
                raise _core.TlbError(f"the {what} of a machine is a text: got {given!r}")
        self._about  # noqa: B018  (validates)

    @cached_property
    def _about(self) -> raw.RawMachine:
        return _core.machine_describe(self.name, self.text)

    @property
    def title(self) -> str:
        """One line for people."""
        return str(self._about["title"])

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the same preset: the parts that share it."""
        return tuple(self._about["aliases"])

    @property
    def vendor(self) -> str:
        """Who makes it, as the preset says."""
        return str(self._about["vendor"])

    @property
    def signature(self) -> str:
        """CPUID signature or signatures."""
        return str(self._about["signature"])

    @property
    def mhz(self) -> int:
        """Core frequency in MHz, with which nanoseconds are converted."""
        return int(self._about["mhz"])

    @property
    def pcid(self) -> bool:
        """Whether CR4.PCIDE may be set."""
        return bool(self._about["pcid"])

    @property
    def invpcid(self) -> bool:
        """Whether INVPCID exists."""
        return bool(self._about["invpcid"])

    @property
    def invlpgb_extra(self) -> int | None:
        """Extra pages of one INVLPGB; None without INVLPGB."""
        extra = self._about["invlpgb_extra"]
        return None if extra is None else int(extra)

    @property
    def meltdown(self) -> bool:
        """Whether page-table isolation is on unless turned off."""
        return bool(self._about["meltdown"])

    @property
    def levels(self) -> tuple[Mapping[str, Any], ...]:
        """TLB levels, nearest first: name, inclusive, structures (name, sets, ways, sizes, kinds, ...)."""
        return tuple(self._about["levels"])

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """Where each number comes from, by the key of its fact."""
        return {key: source for key, _, _, source in self._about["facts"]}

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Every number with its mark and source."""
        rows = self._about["facts"]
        return tuple(
            Fact(key=key, value=value, mark=mark, source=source) for key, value, mark, source in rows
        )

    @property
    def costs(self) -> Mapping[str, Cost]:
        """Costs in core cycles, by name."""
        return {
            name: Cost(cycles=cycles, low=low, high=high, mark=mark, doc=doc)
            for name, cycles, low, high, mark, doc in self._about["costs"]
        }


class _Machines(Mapping[str, Machine]):
    """The built-in machines by name; an alias finds its machine too."""

    @cached_property
    def _names(self) -> list[str]:
        return [name for name, _, _ in _core.machine_names()]

    def __getitem__(self, name: str) -> Machine:
        if not isinstance(name, str):
            raise KeyError(name)
        try:
            return Machine(name=_core.machine_describe(name)["name"])
        except _core.TlbError as error:
            raise KeyError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"machines({', '.join(self)})"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)


#: Built-in machines by name: `tlbcore.machines["skylake-sp"]`.
machines: Mapping[str, Machine] = _Machines()


def machine(which: str | os.PathLike[str] | Machine) -> Machine:
    """Return a machine by name or alias, or from a preset file (a path, or a string that ends in `.toml`).

    Raises `TlbError` for an unknown name or a text that does not parse, `OSError` for a file that cannot be
    read.

    >>> machine("e5-2699v4").name
    'broadwell-ep-e5-2699v4'
    """
    if isinstance(which, Machine):
        return which
    if isinstance(which, str) and not which.endswith(".toml"):
        return _built_in(which)
    if not isinstance(which, (str, os.PathLike)):
        raise _core.TlbError(f"a machine is a name, a file or a Machine: got {which!r}")
    path = Path(which)
    return Machine(name=str(path), text=_read(path))


@lru_cache(maxsize=256)
def _built_in(name: str) -> Machine:
    """Return a built-in machine, the same one each time: it cannot change."""
    return Machine(name=_core.machine_describe(name)["name"])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _core.TlbError(f"{path}: must be a TOML text: got bytes that are not UTF-8") from None
