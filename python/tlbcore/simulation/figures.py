"""What a simulation counts and what is made of that: statistics and figures, as the core's tables state them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from tlbcore import _core
from tlbcore._input.names import unknown

CLASSES = ("isolated", "housekeeping", "all")
PATHS = (
    *("syscall", "syscall_compat", "sysenter_compat", "exception", "exception_espfix", "exception_bad_iret"),
)


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One column of `SimResult.table`: its name, its unit (`count` or `ps`) and what it counts."""

    name: str
    unit: str
    doc: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One column of `SimResult.figures` and `Comparison.table`, a value per class of CPUs.

    Attributes
    ----------
    name
        Its name.
    unit
        Its unit, per CPU of the class: `1/h`, `us/h`, `1/s`, `ns`, `us`, `s`, or `1` for shares and ratios.
    doc
        What it is, in one sentence.
    how
        How it follows from statistics (sums over the CPUs of the class) and latencies.
    brief
        Whether `tlbcore compare` shows it without being asked to show all.
    """

    name: str
    unit: str
    doc: str
    how: str
    brief: bool


@cache
def statistics() -> tuple[Statistic, ...]:
    """Return every statistic of a simulation, in the order of the table's columns."""
    return tuple(Statistic(name=name, unit=unit, doc=doc) for name, unit, doc in _core.statistics())


@cache
def figures() -> tuple[Figure, ...]:
    """Return every figure, in the order of the columns of `SimResult.figures` and `Comparison.table`.

    Metrics of sweeps are the same figures by name: `NAME` of isolated CPUs, `housekeeping_NAME`, `all_NAME`.

    Examples
    --------
    >>> [(f.unit, f.how) for f in figures() if f.name == "wait_share"]
    [('1', 'wait_ps / (cpus * time)')]
    """
    return tuple(
        Figure(name=name, unit=unit, doc=doc, how=how, brief=brief)
        for name, unit, doc, how, brief in _core.figures()
    )


def as_figure(name: object, error: type[_core.TlbcoreError]) -> Figure:
    """Return the figure of a name, or raise `error` with the nearest one."""
    known = {figure.name: figure for figure in figures()}
    if not isinstance(name, str) or name not in known:
        raise error(unknown("figure", name, known))
    return known[name]


def metric_names() -> tuple[str, ...]:
    """Return the name of every figure of every class of CPUs."""
    prefixes = ("", *(f"{name}_" for name in CLASSES[1:]))
    return tuple(f"{prefix}{figure.name}" for prefix in prefixes for figure in figures())


def causes() -> tuple[str, ...]:
    """Return the names of the causes that interrupts and flushes of a simulation have."""
    own = "interrupts_"
    return tuple(s.name.removeprefix(own) for s in statistics() if s.name.startswith(own))


def markdown() -> str:
    """Return the tables of statistics and figures as `docs/simulation.md` shows them."""
    lines = ["| Statistic | Unit | What it counts, per CPU |", "|---|---|---|"]
    lines += [f"| `{s.name}` | {s.unit} | {s.doc} |" for s in statistics()]
    lines += ["", "| Figure, per CPU of a class | Unit | What | How |", "|---|---|---|---|"]
    lines += [f"| `{f.name}` | {f.unit} | {f.doc} | `{f.how}` |" for f in figures()]
    return "\n".join(lines)


def _literal(name: str, doc: str, values: Iterable[str]) -> str:
    lines = "".join(f'    "{value}",\n' for value in values)
    return f'{name} = Literal[\n{lines}]\n"""{doc}"""\n'


def vocabulary() -> str:
    """Return the text of `_input/vocabulary.py`, which type checkers read: every name that an argument may be."""
    return "\n".join(
        [
            '"""Names that arguments take, for type checkers. Written by `python -m tests.package.test_docs`."""\n',
            "from typing import Literal\n",
            _literal("CpuClass", "A class of CPUs.", CLASSES),
            _literal("EntryPath", "How user mode is left for the kernel.", PATHS),
            _literal(
                "CauseName", "Why a CPU is interrupted; a row of `tlbcore.statistics()` each.", causes()
            ),
            _literal("Detail", "How closely TLBs are simulated.", ("summary", "full")),
            _literal("Costs", "Which end of the intervals of costs.", ("best", "low", "high")),
            _literal("FigureName", "A figure; see `tlbcore.figures()`.", (f.name for f in figures())),
            _literal("MetricName", "A figure of a class of CPUs, as a sweep names it.", metric_names()),
        ]
    )
