"""Whether an argument is of the kind that a function's annotation asks for."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import numpy.typing

_GENERIC = (collections.abc, typing, numpy.typing)
_MOST = 60  # characters of a value
# Names that stand in annotations and are imported for type checkers alone -> where they are.
_ELSEWHERE = {"Axes": "matplotlib.axes", "Result": "tlbcore._output.result"}


def refusal(function: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> str | None:
    """Return which argument is not of the kind that a function's annotations ask for, or None if each is.

    >>> def wait(seconds: float, cpus: list[int] | None = None) -> None: ...
    >>> refusal(wait, ("long",), {})
    "wait: seconds must be float: got 'long' (str)"
    >>> refusal(wait, (1,), {"cpus": [1, "2"]})
    "wait: cpus must be list[int] | None: got [1, '2'] (list)"
    >>> refusal(wait, (1,), {"cpus": [1, 2]})
    """
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*arguments, **named)
    except TypeError:
        return None  # the language has said which argument is missing or unknown
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        if parameter.annotation is parameter.empty:
            continue
        values = {name: value}
        if parameter.kind is parameter.VAR_KEYWORD:
            values = value
        elif parameter.kind is parameter.VAR_POSITIONAL:
            values = {f"{name}[{place}]": each for place, each in enumerate(value)}
        kind = _resolved(parameter.annotation, function)
        for place, given in values.items():
            if not _fits(given, kind):
                got = f"{_shown(given)} ({type(given).__name__})"
                return f"{function.__name__}: {place} must be {parameter.annotation}: got {got}"
    return None


class _Names(dict[str, Any]):
    """Names that an annotation may use and that its module imports for type checkers alone."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = known

    def __missing__(self, name: str) -> Any:
        import tlbcore

        if name in self.known or hasattr(builtins, name):
            raise KeyError(name)  # looked up where it is
        if name in _ELSEWHERE:
            return getattr(import_module(_ELSEWHERE[name]), name)
        if name in tlbcore.__all__:
            return getattr(tlbcore, name)
        return next((getattr(module, name) for module in _GENERIC if hasattr(module, name)), Any)


def _resolved(annotation: Any, function: Callable[..., Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    known = inspect.unwrap(function).__globals__
    try:
        return eval(annotation, known, _Names(known))  # our own source
    except TypeError:  # a generic whose name was imported for type checkers alone
        return Any


def unaliased(hint: Any) -> Any:
    """Return what a name of a `type` statement stands for: from NumPy 2.5 on `NDArray` is one."""
    while hasattr(get_origin(hint) or hint, "__value__"):
        name, parts = get_origin(hint) or hint, get_args(hint)
        hint = name.__value__[parts] if parts else name.__value__
    return hint


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind of an annotation; what is not understood fits."""
    if hint is numpy.typing.ArrayLike:
        return True  # whatever NumPy makes an array of
    hint = unaliased(hint)
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(part) is type(value) and part == value for part in parts)
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, Real)
    if hint is int:
        return isinstance(value, Integral)
    kind = origin or hint
    if kind is np.ndarray:
        return isinstance(value, list | tuple) or hasattr(value, "__array__")
    if not isinstance(kind, type):
        return True
    try:
        if not isinstance(value, kind):
            return False
    except TypeError:  # a protocol that cannot be asked
        return True
    if isinstance(value, Mapping) and len(parts) == 2:
        return all(_fits(key, parts[0]) and _fits(each, parts[1]) for key, each in value.items())
    if isinstance(value, Sequence) and issubclass(kind, Iterable) and len(parts) == 1:
        return all(_fits(each, parts[0]) for each in value)
    return True


def _shown(value: Any) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= _MOST else shown[: _MOST - 1] + "…"
