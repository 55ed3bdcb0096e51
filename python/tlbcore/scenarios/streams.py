"""Which user pages a task touches, and in which order."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from tlbcore import _core
from tlbcore._input.door import door
from tlbcore._input.numbers import count, quantity
from tlbcore.scenarios.actors import Actor, _gap


def sequential(pages: int, *, stride: int = 1) -> dict[str, Any]:
    """Return the pattern that touches `pages` pages one after the other, every `stride`-th, and again."""
    return {"sequential": {"pages": _positive(pages, "pages"), "stride": _positive(stride, "stride")}}


def pointer_chase(pages: int) -> dict[str, Any]:
    """Return the pattern of one random cycle through `pages` pages: each miss is waited for before the next touch."""
    return {"chase": {"pages": _positive(pages, "pages")}}


def zipf(pages: int, *, s: float = 1.0) -> dict[str, Any]:
    """Return the pattern of independent touches where page `i` has the weight `1 / (i + 1) ** s`.

    Weights become integers, the largest 2**31 and the smallest 1, so that the engine needs no floats.
    """
    power = quantity(s, "zipf: s")
    weights = [max(round(2**31 * (i + 1) ** -power), 1) for i in range(_positive(pages, "pages"))]
    return {"weighted": {"weights": weights}}


@door
def from_array(pages: Iterable[int]) -> dict[str, Any]:
    """Return the pattern of these page numbers (virtual addresses shifted right by 12) in this order, and again.

    Any one-dimensional array of integers will do, of any integer dtype.
    """
    numbers: list[int] = []
    for at, page in enumerate(pages):
        try:
            number = -1 if isinstance(page, bool) else operator.index(page)
        except TypeError:  # not every array that has an `__index__` is a number
            number = -1
        if not 0 <= number < 1 << 64:
            raise _core.SimError(
                f"from_array: page numbers are integers from 0 to 2**64 - 1: got {page} at {at}"
            )
        numbers.append(number)
    return {"array": {"pages": numbers}}


def _positive(value: int, what: str) -> int:
    return count(value, what, 1, 1 << 24)


def stream(
    on: str | tuple[int, ...],
    pattern: Mapping[str, Any] | Iterable[tuple[int, Mapping[str, Any]]],
    *,
    rate_hz: float,
    poisson: bool = False,
    name: str = "stream",
) -> Actor:
    """Return user pages that a CPU's task touches in user mode; simulate with `detail="full"`.

    Parameters
    ----------
    on
        Which CPUs; each needs a foreground with user mode (`spin`, `syscalls`) and takes one stream.
    pattern
        `sequential`, `pointer_chase`, `zipf` or `from_array`; or phases: (touches, pattern) pairs that follow each
        other and repeat.
    rate_hz
        Touches per second of user time, misses included: what they cost is counted (`stream_ps`), not added to
        the task's time.
    poisson
        Exponential gaps instead of constant ones.

    Raises
    ------
    SimError
        If the rate is not above 0. What the engine refuses (no phase, no page, no user mode) is raised by
        `Scenario`.

    Examples
    --------
    >>> from tlbcore import Scenario, simulate
    >>> from tlbcore.scenarios import spin
    >>> load = Scenario(
    ...     name="chase",
    ...     duration_s=0.02,
    ...     cpus=2,
    ...     isolated=(1,),
    ...     actors=(spin("all"), stream("isolated", pointer_chase(64), rate_hz=1e6)),
    ... )
    >>> run = simulate(load, machine="broadwell-ep", policy="ipi", detail="full")
    >>> run.total("stream_first"), run.total("stream_evicted")
    (64, 0)
    """
    if not isinstance(pattern, Iterable):
        raise _core.SimError(
            f"{name}: a pattern is made by zipf and its like, or phases of them: got {pattern!r}"
        )
    if isinstance(pattern, Mapping):
        phases: list[dict[str, Any]] = [{"pattern": dict(pattern)}]
    else:
        try:
            pairs = [(touches, dict(each)) for touches, each in pattern]
        except (TypeError, ValueError):
            raise _core.SimError(
                f"{name}: a phase is a pair of touches and a pattern: got {pattern!r:.80}"
            ) from None
        phases = [{"touches": _positive(touches, "touches"), "pattern": each} for touches, each in pairs]
    return Actor(
        name=name,
        on=on,
        kind="stream",
        params={"gap": _gap(rate_hz, name, poisson), "phases": phases},
    )
