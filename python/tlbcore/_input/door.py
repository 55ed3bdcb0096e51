"""A call with an argument of the wrong kind is refused in one sentence, instead of where it fell over it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, ParamSpec, TypeVar

from tlbcore._core import ConfigError, TlbcoreError

P = ParamSpec("P")
R = TypeVar("R")

SLIPS = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What the language raises where a value is not what the code took it for."""


def door(function: Callable[P, R]) -> Callable[P, R]:
    """Let a public function say which argument is not what it takes.

    Arguments are compared with the annotations only once a call has failed by a slip (an attribute that is not
    there, a thing that cannot be iterated): a call that succeeds pays nothing, and an error of ours stands as it is.
    """

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return function(*arguments, **named)
        except SLIPS as slip:
            refuse(slip, function, arguments, named)
            raise

    return call


def refuse(
    slip: Exception, function: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> None:
    """Raise `TypeError` if a slip comes of an argument of the wrong kind; return if nothing is known to be wrong."""
    if isinstance(slip, TlbcoreError) or _said(slip):
        return
    if "embedded null" in str(slip) and (named_so := _with_null({**dict(enumerate(arguments)), **named})):
        raise ConfigError(
            f"{function.__name__}: no file has a null byte in its name: got {named_so!r}"
        ) from slip
    from tlbcore._input.kinds import refusal  # not at the start: a search of the checker needs no NumPy

    refused = refusal(function, arguments, named)
    if refused is not None:
        raise TypeError(refused) from slip  # what it ended in stays in sight: the slip may be ours


def _with_null(values: Mapping[Any, Any]) -> str:
    """Return the first name among arguments, or in a list of them, that has a null byte in it; empty if none has."""
    for value in values.values():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, str | PurePath) and "\0" in str(one):
                return str(one)
    return ""


def _said(slip: Exception) -> bool:
    """Whether a line of ours has raised it, with words of its own about a kind or a value."""
    if not isinstance(slip, TypeError | ValueError):
        return False
    from traceback import extract_tb

    last = extract_tb(slip.__traceback__)[-1]
    return (last.line or "").startswith("raise ") and Path(__file__).parents[1] in Path(last.filename).parents
