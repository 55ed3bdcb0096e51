"""Litmus tests: a small program in columns with its verdict inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlbcore import _core
from tlbcore._input import texts
from tlbcore._input.numbers import flag
from tlbcore._output.calls import kept
from tlbcore._output.result import Result, column, rows_table
from tlbcore._output.visible import naming
from tlbcore.checker.question import GIB, memory_of


@dataclass(frozen=True, kw_only=True)
class LitmusResult(Result):
    """How one litmus test ended.

    Parameters
    ----------
    name, doc, source
        From its header.
    file
        Where it came from.
    stated
        The verdict in the file; empty if it has none yet.
    found
        The verdict of the checker.
    states
        States explored.
    stated_states
        The number in the file, with reductions; None if it states none or they are off.
    text
        The run that was found, one lane per CPU; empty if there is none.
    schedule
        That run as text.
    note
        What is in the way of a verdict, if something is.
    herd
        Whether the file is one of herd's, which state no verdict.
    ends
        If they were asked for: every end that some run comes to, as what its conditions and `locations` read by name;
        without any, the shared variables. Entries of page tables are words, faults true or false.
    complete
        Whether there are no other ends; None if they were not asked for.
    """

    name: str
    doc: str
    source: tuple[str, ...]
    file: str
    stated: str
    found: str
    states: int
    stated_states: int | None
    text: str
    schedule: str
    note: str = ""
    herd: bool = False
    ends: tuple[Mapping[str, int | str | bool], ...] | None = None
    complete: bool | None = None

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        names = ("name", "stated", "found", "states", "stated_states", "file", "note")
        tables: dict[str, Mapping[str, Any]] = {"test": rows_table([self], names, ("ok",))}
        if self.ends is not None:
            keys = list(dict.fromkeys(key for end in self.ends for key in end))
            tables["ends"] = {key: column([end.get(key) for end in self.ends]) for key in keys}
        return tables

    def _about(self) -> dict[str, Any]:
        return {"name": self.name, "doc": self.doc, "source": self.source, "version": _core.__version__}

    @property
    def ok(self) -> bool:
        """Whether the verdict found is the one stated, and the number of states too if one is.

        One of herd's files states none: any that is found will do.
        """
        if self.herd:
            return not self.inconclusive
        return self.stated == self.found and self.stated_states in (None, self.states)

    @property
    def inconclusive(self) -> bool:
        """Whether the search came to no verdict, so that it neither confirms the stated one nor differs from it."""
        return _undecided(self.found)


def _undecided(found: str) -> bool:
    return found.startswith("inconclusive")


@kept
def litmus(
    test: str | Path,
    *,
    memory: int = 8 * GIB,
    reduce: bool = True,
    bless: bool = False,
    ends: bool = False,
) -> LitmusResult:
    """Run one litmus test: a small program in columns with its verdict inside.

    Parameters
    ----------
    test
        A file that ends in `.litmus`, or the text itself; one of herd's for x86 does too.
    memory
        Bytes the search may hold.
    reduce
        As for `check`.
    bless
        Write the verdict found into the file, and the number of states if it states one. A search that came to none
        because it met a limit writes nothing.
    ends
        List every end in one search.

    Raises
    ------
    CheckError
        If `memory` is no number of bytes.
    PolicyError
        If the text or its header is wrong; the message has file, line and column.
    OSError
        If the file cannot be read.
    """
    if not isinstance(test, (str, Path)) or test == "":
        raise _core.PolicyError(f"a litmus test is a file or its text: got {test!r}")
    plain = not flag(reduce, "reduce", _core.CheckError)
    bless = flag(bless, "bless", _core.CheckError)
    inline = isinstance(test, str) and "\n" in test
    file = "litmus" if inline else str(test)
    text = whole = str(test)
    if not inline:
        text = texts.read(Path(test))
        whole = texts.with_bases(Path(test), text)
    ends = flag(ends, "ends", _core.CheckError)
    found = _core.litmus_run(whole, Path(file).name, memory_of(memory), plain, ends)
    counted = found["stated_states"] if reduce else None
    stated = (found["stated"], counted)
    new = not _undecided(found["found"]) and stated != (found["found"], counted and found["states"])
    if bless and new and not inline and not found["herd"]:
        text = _blessed(text, "verdict", found["found"])
        if counted is not None:
            text = _blessed(text, "states", counted := found["states"])
        with naming(str(test)):
            Path(test).write_text(text, encoding="utf-8")
        found["stated"] = found["found"]
    shown = found["counterexample"] or {"text": "", "schedule": ""}
    return LitmusResult(
        name=found["name"],
        doc=found["doc"],
        source=tuple(found["source"]),
        file=file,
        stated=found["stated"],
        found=found["found"],
        states=found["states"],
        stated_states=counted,
        text=shown["text"],
        schedule=shown["schedule"],
        note=found["note"],
        herd=found["herd"],
        ends=None if found["ends"] is None else tuple(found["ends"][0]),
        complete=None if found["ends"] is None else found["ends"][1],
    )


def _blessed(text: str, key: str, value: str | int) -> str:
    lines = text.split("\n")
    line = f'  {key} "{value}"'
    for i, old in enumerate(lines):
        if old.strip().startswith(f"{key} "):
            lines[i] = line
            return "\n".join(lines)
    lines.insert(1, line)
    return "\n".join(lines)
