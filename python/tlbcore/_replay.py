"""A recording under other policies: what would have been deferred, what remains, and what was pending."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore import _core
from tlbcore._core import PolicyError
from tlbcore._names import unknown
from tlbcore.trace import Trace

if TYPE_CHECKING:
    from tlbcore._machines import Machine

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
            "isolated": self.trace.figures["report"]["isolated"],
            "policies": [dict(o) for o in self.outcomes],
            "baseline": [
                {"cpu": c["cpu"], **c["baseline"]} for c in self.trace.figures["report"]["isolated"]
            ],
        }


def _outcome(trace: Trace, name: str, no_pti: bool) -> dict[str, Any]:
    outcome: dict[str, Any] = json.loads(trace._data.replay(name) or "")
    if no_pti and outcome["needs"] == "PTI":
        mainline = json.loads(trace._data.replay("ipi") or "")
        same = ("policy", "title", "needs")
        return {**mainline, **{key: outcome[key] for key in same}, "inert": "PTI is off"}
    return outcome


def _flush_ns(machine: str | Machine) -> tuple[float, float]:
    """Return what one flush of everything costs, at least and at most."""
    from tlbcore._machines import machine as find

    preset = find(machine)
    cost = preset.costs["invpcid_all" if preset.invpcid else "cr4_pge_toggle"]
    return cost.low * 1000 / preset.mhz, cost.high * 1000 / preset.mhz


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


def replay(
    trace: Trace,
    policies: Sequence[object] | None = None,
    *,
    machine: str | Machine | None = None,
    kernel: object | None = None,
) -> Replay:
    """Replay a recording under policies.

    Parameters
    ----------
    trace
        From `read_trace`.
    policies
        Names or `Policy` objects of built-in policies (see `replayable()`); ipi, ct-late, coalesce-v7 and
        coalesce-v7-fixed if left out.
    machine
        A CPU preset or its name: adds what the entry flushes cost, `entry_cost_ms_low`/`_high`, from the
        preset's cost of one flush of everything (refills not included). Predicted.
    kernel
        Anything with an attribute `pti`, such as `inspect_host().kernel`: where that is False, policies that
        need PTI change nothing (SEMANTICS L7).

    Raises
    ------
    PolicyError
        For a policy that is not known, or one that a recording says nothing about.
    TlbError
        For a machine that is not known.
    """
    names = check_policies(policies)
    no_pti = kernel is not None and getattr(kernel, "pti", None) is False
    outcomes = tuple(MappingProxyType(_outcome(trace, name, no_pti)) for name in names)
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
    if machine is not None:
        for end, ns in zip(("low", "high"), _flush_ns(machine), strict=True):
            table[f"entry_cost_ms_{end}"] = table[f"entry_flushes_{end}"] * ns / 1e6
    for column in table.values():
        column.flags.writeable = False
    return Replay(trace=trace, policies=names, table=MappingProxyType(table), outcomes=outcomes)
