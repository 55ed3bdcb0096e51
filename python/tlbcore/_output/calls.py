"""Which call made a result: kept as text, for the notebook's view."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

from tlbcore._input.door import SLIPS, refuse

P = ParamSpec("P")
R = TypeVar("R")

_MOST = 80  # characters of one argument
_NAME = "_call"


def kept(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function's results know the call that made them, and the function refuse what it cannot take (`door`)."""

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            result = function(*arguments, **named)
        except SLIPS as slip:
            refuse(slip, function, arguments, named)
            raise
        object.__setattr__(result, _NAME, text(function.__name__, arguments, named))
        return result

    return call


def made_by(result: object) -> str:
    """Return the call that made a result as text, or what its class says makes it; empty if it is not known."""
    found: str = getattr(result, "__dict__", {}).get(_NAME, getattr(type(result), "_made_by", ""))
    return found


def note(result: object, call: str) -> None:
    """Keep a text as the call that made a result."""
    object.__setattr__(result, _NAME, call)


def text(name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Return a call as text.

    >>> text("sweep", ("rteval", {"cpus": [8, 16]}), {"seed": 1, "progress": True})
    "tlbcore.sweep('rteval', {'cpus': [8, 16]}, seed=1)"
    """
    parts = [_shown(value) for value in arguments]
    parts += [f"{key}={_shown(value)}" for key, value in named.items() if key != "progress"]
    return f"tlbcore.{name}({', '.join(parts)})"


def _shown(value: Any) -> str:
    if known := made_by(value):
        return known
    if isinstance(value, PurePath):
        return repr(str(value))
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<array of shape {tuple(value.shape)}>"
    shown = repr(value)
    return shown if len(shown) <= _MOST else f"{shown[: _MOST - 1]}…"
