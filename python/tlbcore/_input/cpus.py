"""CPU lists and masks as the kernel reads and writes them: the one place where they are read.

Whoever takes a list from the user raises the error of its own part with the text of `CpuListError`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable

LIMIT = 1 << 16  # far above NR_CPUS: a range is made as numbers, so it needs some bound
_GROUP = re.compile("[0-9a-fA-F]{1,8}")


class CpuListError(ValueError):
    """What is no list of CPUs."""


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
    named = 0
    for part in text.split(","):
        span, colon, stride = part.strip().partition(":")
        if span == "all" and last is not None:
            span = f"0-{last}"
        first_text, dash, last_text = span.partition("-")
        try:
            first = _cpu(first_text, last)
            end = _cpu(last_text, last) if dash else first
            used, group = (_cpu(word, None) for word in stride.split("/")) if colon else (1, 1)
        except ValueError:
            raise CpuListError(
                f"a CPU list is numbers and ranges: got {_start(part)} in {_start(text)}"
            ) from None
        if end < first or end >= LIMIT or not 0 < used <= group:
            raise CpuListError(
                f"a range of CPUs must rise and end below {LIMIT}: got {_start(part)} in {_start(text)}"
            )
        named += end + 1 - first
        if named > 4 * LIMIT:  # text from anywhere must not keep the reader busy
            raise CpuListError(
                f"a CPU list names at most {4 * LIMIT} CPUs, however often: {_start(text)} names more"
            )
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
    groups = text.strip().split(",")
    if not all(_GROUP.fullmatch(group) for group in groups):
        raise CpuListError(f"a CPU mask is hexadecimal groups of at most 8 digits: got {_start(text)}")
    if len(groups) > LIMIT // 32:
        raise CpuListError(f"a CPU mask ends below CPU {LIMIT}: {_start(text)} has {len(groups)} groups")
    bits = int("".join(group.rjust(8, "0") for group in groups), 16)
    return frozenset(cpu for cpu, bit in enumerate(reversed(f"{bits:b}")) if bit == "1")


def _start(text: str) -> str:
    """Return a text of any length as an error shows it."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def as_cpus(cpus: str | Iterable[int]) -> tuple[int, ...]:
    """Return the CPUs of a list, as text or numbers, in ascending order.

    Raises
    ------
    CpuListError
        If it is neither, or a number is below 0 or above 65535.

    >>> as_cpus("2-4,8"), as_cpus([3, 2])
    ((2, 3, 4, 8), (2, 3))
    """
    if isinstance(cpus, str):
        return tuple(sorted(cpu_list(cpus)))
    if not isinstance(cpus, Iterable) or isinstance(cpus, bytes | bytearray):
        raise CpuListError(f"a CPU list is a text such as 2-3,8 or numbers: got {cpus!r}")
    found: set[int] = set()
    for cpu in cpus:
        if isinstance(cpu, bool) or not hasattr(cpu, "__index__") or not 0 <= operator.index(cpu) < LIMIT:
            raise CpuListError(f"a CPU is a number from 0 to {LIMIT - 1}: got {cpu!r}")
        found.add(operator.index(cpu))
    return tuple(sorted(found))


def show_cpus(cpus: Iterable[int]) -> str:
    """Write CPUs as the kernel does.

    >>> show_cpus(frozenset({0, 2, 3, 4}))
    '0,2-4'
    """
    parts: list[str] = []
    ordered = sorted(set(cpus))
    start = 0
    for at, cpu in enumerate(ordered):
        if at + 1 < len(ordered) and ordered[at + 1] == cpu + 1:
            continue
        first = ordered[start]
        parts.append(str(cpu) if first == cpu else f"{first}-{cpu}")
        start = at + 1
    return ",".join(parts)
