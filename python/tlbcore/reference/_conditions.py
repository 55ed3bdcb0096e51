"""The conditions of litmus tests, `x == 1 and not (y >= 2)`: read into functions of what each name stands for."""

from __future__ import annotations

import re
from collections.abc import Callable

from tlbcore.reference._state import compare

__all__ = ["FAULT", "Condition", "condition"]

Condition = Callable[[Callable[[str], int]], bool]

# `fault(0, a)`: did column `cpu 0` end in a fault at page `a`?
FAULT = re.compile(r"fault\(\s*(\d+)\s*,\s*(\w+)\s*\)")

_TOKEN = re.compile(r"\s*(fault\(\s*\d+\s*,\s*\w+\s*\)|\d+|[A-Za-z_][\w.]*|==|!=|<=|>=|<|>|&|[()])")
_COMPARISONS = {"==": "Eq", "!=": "Ne", "<": "Lt", ">=": "Ge", "<=": "Le", ">": "Gt", "&": "Test"}


def condition(text: str) -> Condition:
    """Read a condition over shared variables and faults.

    Raises
    ------
    NotImplementedError
        If it says more than comparisons, `not`, `and`, `or` and parentheses.
    """
    words, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise NotImplementedError(f"the condition {text}")
        words.append(found[1])
        at = found.end()
    reader = _Reader(words)
    out = reader.either()
    if reader.words:
        raise NotImplementedError(f"the condition {text}")
    return out


class _Reader:
    """Words not read yet."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def next_is(self, word: str) -> bool:
        if self.words[:1] != [word]:
            return False
        self.words.pop(0)
        return True

    def either(self) -> Condition:
        parts = [self.both()]
        while self.next_is("or"):
            parts.append(self.both())
        return lambda value: any(part(value) for part in parts)

    def both(self) -> Condition:
        parts = [self.one()]
        while self.next_is("and"):
            parts.append(self.one())
        return lambda value: all(part(value) for part in parts)

    def one(self) -> Condition:
        if self.next_is("not"):
            inner = self.one()
            return lambda value: not inner(value)
        if self.next_is("("):
            inner = self.either()
            if not self.next_is(")"):
                raise NotImplementedError("a parenthesis that is not closed")
            return inner
        left = self.operand()
        if self.words and self.words[0] in _COMPARISONS:
            cmp, right = _COMPARISONS[self.words.pop(0)], self.operand()
            return lambda value: compare(cmp, left(value), right(value))
        return lambda value: left(value) != 0

    def operand(self) -> Callable[[Callable[[str], int]], int]:
        word = self.words.pop(0) if self.words else ")"
        if word.isdigit():
            return lambda _: int(word)
        if not word[0].isalpha() and word[0] != "_":
            raise NotImplementedError(f"{word} in a condition")
        return lambda value: value(word)
