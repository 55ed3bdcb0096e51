"""A recording under other policies: what would have been deferred, what remains, and what was pending."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from tlbcore import _core
from tlbcore._core import PolicyError
from tlbcore._names import unknown
from tlbcore.trace import Trace

__all__ = ["Replay", "replay", "replayable"]

_RANGES = (
    "deferred",
    "remaining",
    "interrupts",
    "entries",
    "entry_flushes",
    "exposure_s",
    "exposure_longest_s",
)


def replayable() -> tuple[str, ...]:
    """Return the names of the policies a recording can be replayed under."""
    rules, _ = _core.trace_rules()
    return tuple(row[0] for row in rules)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Replay:
    """What a recording would have been under some policies.

    A figure the trace's own user and kernel intervals leave open is an interval: columns `_low` and `_high`.

    Attributes
    ----------
    trace
        What was replayed.
    policies
        Their names, in the order of the table.
    table
        One row per policy and isolated CPU: `policy`, `cpu`, and `_low`/`_high` of `deferred` and `remaining`
        (remote calls), `interrupts` (of every vector), `entries` (into the kernel), `entry_flushes`,
        `exposure_s` (time with something deferred pending) and `exposure_longest_s`. Marked *predicted*: the
        baseline row is measured.
    outcomes
        The same per policy, with classes, as in the JSON.
    """

    trace: Trace = field(repr=False)
    policies: tuple[str, ...]
    table: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    outcomes: tuple[Mapping[str, Any], ...] = field(repr=False)

    def __repr__(self) -> str:
        return f"<Replay {', '.join(self.policies)} of {self.trace!r}>"

    def __str__(self) -> str:
        from tlbcore._report import replay_text

        return replay_text(self)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document without its `schema` and `version`."""
        from tlbcore._report import header_json

        return {
            **header_json(self.trace),
            "policies": [dict(o) for o in self.outcomes],
            "baseline": [
                {"cpu": c["cpu"], **c["baseline"]} for c in self.trace.figures["report"]["isolated"]
            ],
        }


def check_policies(policies: Sequence[object] | None) -> tuple[str, ...]:
    """Return the names of policies given by name or as objects; those shown by default for None."""
    known = replayable()
    if policies is None:
        return known[: _core.trace_rules()[1]]
    names = tuple(str(getattr(p, "name", p)) for p in policies)
    for name in names:
        if name == "lazy-tune":
            raise PolicyError(f"policy {name!r}: a recording does not tell how often a longer list is purged")
        if name not in known:
            raise PolicyError(unknown("policy", name, known))
    return names


def replay(trace: Trace, policies: Sequence[object] | None = None) -> Replay:
    """Replay a recording under policies.

    Parameters
    ----------
    trace
        From `read_trace`.
    policies
        Names or `Policy` objects of built-in policies (see `replayable()`); ipi, ct-late, coalesce-v7 and
        coalesce-v7-fixed if left out.

    Raises
    ------
    PolicyError
        For a policy that is not known, or one whose text a recording says nothing about.
    """
    names = check_policies(policies)
    outcomes = tuple(MappingProxyType(json.loads(trace._data.replay(name) or "")) for name in names)
    rows = [(o["policy"], cpu) for o in outcomes for cpu in o["cpus"]]
    table: dict[str, np.ndarray[Any, Any]] = {
        "policy": np.array([name for name, _ in rows], dtype=np.str_),
        "cpu": np.array([cpu["cpu"] for _, cpu in rows], dtype=np.int64),
    }
    for figure in _RANGES:
        kind = np.float64 if figure.endswith("_s") else np.int64
        for end in ("low", "high"):
            name = f"{figure.removesuffix('_s')}_{end}_s" if figure.endswith("_s") else f"{figure}_{end}"
            table[name] = np.array([cpu[figure][end] for _, cpu in rows], dtype=kind)
    for column in table.values():
        column.flags.writeable = False
    return Replay(trace=trace, policies=names, table=MappingProxyType(table), outcomes=outcomes)
