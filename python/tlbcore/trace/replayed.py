"""A recording under other policies: what they would have deferred, what remains, and what was pending."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tlbcore import _core
from tlbcore._core import PolicyError
from tlbcore._input.raw import Outcome
from tlbcore._output.calls import kept
from tlbcore._output.result import Result
from tlbcore._output.table import Table
from tlbcore._output.visible import visible
from tlbcore.policy import Policy, as_policies
from tlbcore.policy import policies as built_in
from tlbcore.trace.recording import Trace

if TYPE_CHECKING:
    from pathlib import Path

    from tlbcore.hardware import Machine

__all__ = ["Replay", "replay", "replayable"]


def _is_replayable(policy: Policy) -> bool:
    try:
        _core.trace_replayable(policy.text, policy.file)
    except PolicyError:
        return False
    return True


def replayable() -> tuple[str, ...]:
    """Return the names of the built-in policies a recording can be replayed under."""
    return tuple(name for name, policy in built_in.items() if _is_replayable(policy))


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Replay(Result):
    """What would have happened in a recording under other policies.

    What the recording leaves open (the mode of a CPU, the order within the resolution of its clock, the caller of
    a flush) makes a figure an interval: columns `_low` and `_high`.

    Attributes
    ----------
    trace
        What was replayed.
    policies
        Their names, in the order of the table.
    table
        One row per policy and isolated CPU: `policy`, `cpu`, and `_low`/`_high` of each figure (docs/tracing.md):
        `deferred` and `remaining` (recorded remote calls), `interrupts` (of every vector), `entries` (into the kernel),
        `entry_flushes`, `exposure_s` (time with something deferred pending), `exposure_longest_s` and
        `call_interrupts_ms` (recorded time of the call interrupts that are left). Marked *predicted*: the baseline
        row is measured.
    outcomes
        The same per policy, with classes, as in the JSON. `linux` is the version of Linux whose texts the policy stands
        on, `more_calls` are calls that the recording has not got, `not_modelled` says what a figure does not cover.
    """

    trace: Trace = field(repr=False)
    policies: tuple[str, ...]
    table: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    outcomes: tuple[Outcome, ...] = field(repr=False)

    _index = ("policy", "cpu")

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        return {"table": self.table}

    def _about(self) -> dict[str, Any]:
        return self.trace._about()

    def _read(self) -> tuple[str, ...]:
        return self.trace._read()

    def _inert(self) -> list[str]:
        return [f"{o['policy']}: {o['inert']}" for o in self.outcomes if o.get("inert")]

    def __repr__(self) -> str:
        return f"<Replay {', '.join(self.policies)} of {self.trace!r}>"

    def __str__(self) -> str:
        from tlbcore.trace.report.words import replay_text

        return visible(replay_text(self.trace, self.outcomes, self.table))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document without its `schema` and `version`."""
        from tlbcore.trace.report.words import header_json

        return {
            **header_json(self.trace),
            "isolated": self.trace.figures["report"]["isolated"],
            "policies": [dict(o) for o in self.outcomes],
            "baseline": [
                {"cpu": c["cpu"], **c["baseline"]} for c in self.trace.figures["report"]["isolated"]
            ],
        }


def _outcome(trace: Trace, policy: Policy, kernel: object | None, preset: str | None) -> Outcome:
    pti = getattr(kernel, "pti", None) is not False
    outcome: Outcome = json.loads(trace.recorded.replay(policy.text, policy.file, pti, preset))
    outcome["linux"] = policy.linux
    return outcome


def check_policies(policies: Sequence[str | Path | Policy] | None) -> tuple[Policy, ...]:
    """Return the policies of a list; those shown by default for None.

    Raises
    ------
    PolicyError
        For one that is not known, that no recording tells anything about, or whose name stands there twice.
    """
    chosen = as_policies(_core.trace_headline() if policies is None else policies)
    for i, policy in enumerate(chosen):
        _core.trace_replayable(policy.text, policy.file)
        if policy in chosen[:i]:
            raise PolicyError(f"the policy {policy.name!r} is named twice")
        if any(policy.name == other.name for other in chosen[:i]):
            raise PolicyError(f"two different policies are called {policy.name!r}: give one another name")
    return tuple(chosen)


@kept
def replay(
    trace: Trace,
    policies: Sequence[str | Path | Policy] | None = None,
    *,
    machine: str | Machine | None = None,
    kernel: object | None = None,
) -> Replay:
    """Replay a recording under policies.

    Each policy's programs run over the recorded workload: the requests of flushes, syncs and other calls, and what
    each isolated CPU did of its own accord. Which calls are sent, and which interrupts they cause, is their outcome.

    Parameters
    ----------
    trace
        From `read_trace`.
    policies
        Built-in names, `.policy` files or `Policy` objects; ipi, ct-late, coalesce-v7 and coalesce-v7-fixed if left
        out.
    machine
        A CPU preset or its name: adds what entry and exit code takes beyond mainline's, `entry_cost_ms_low`/`_high`
        (refills not included), and per policy `wait_ms`, what senders waited for isolated CPUs and their programs
        took. Predicted.
    kernel
        Anything with an attribute `pti`, such as `inspect_host().kernel`: where that is False, policies that
        need PTI change nothing (SEMANTICS L7).

    Raises
    ------
    PolicyError
        For a policy that is not known, or one that a recording says nothing about.
    TlbError
        For a machine that is not known.

    Examples
    --------
    >>> import tlbcore as tc
    >>> trace = tc.read_trace("tests/data/p4.w7.trace.txt.xz")
    >>> always = tc.policies["coalesce-v7"].replace(
    ...     name="always", flush_kernel_range=["ipi others, flush_handler", "flush_here", "await acks"])
    >>> [(o["policy"], o["deferred"]["high"]) for o in tc.replay(trace, ["ipi", always]).outcomes]
    [('ipi', 0), ('always', 0)]
    """
    from tlbcore.kernel import machine_text

    chosen = check_policies(policies)
    preset = None if machine is None else machine_text(machine)
    read_only = tuple(MappingProxyType(_outcome(trace, policy, kernel, preset)) for policy in chosen)
    outcomes = cast("tuple[Outcome, ...]", read_only)
    rows = [(o["policy"], cpu) for o in outcomes for cpu in o["cpus"]]
    table: dict[str, np.ndarray[Any, Any]] = {
        "policy": np.array([name for name, _ in rows], dtype=np.str_),
        "cpu": np.array([cpu["cpu"] for _, cpu in rows], dtype=np.int64),
    }
    for figure, unit, _ in _core.replay_figures():
        kind = np.int64 if unit == "count" else np.float64
        for end in ("low", "high"):
            name = f"{figure.removesuffix('_s')}_{end}_s" if figure.endswith("_s") else f"{figure}_{end}"
            if preset is not None or figure != "entry_cost_ms":
                table[name] = np.array([cast("Any", cpu)[figure][end] for _, cpu in rows], dtype=kind)
    return Replay(
        trace=trace,
        policies=tuple(p.name for p in chosen),
        table=Table(table),
        outcomes=outcomes,
    )
