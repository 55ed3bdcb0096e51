"""Where two policies are equal: bisection over one parameter, with replications until the sign is certain."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbcore import analysis
from tlbcore._core import SweepError
from tlbcore._input import defaults
from tlbcore._input.seeds import Seed, as_seed
from tlbcore._output.calls import kept
from tlbcore._output.result import InertPolicyWarning
from tlbcore.hardware import Machine
from tlbcore.kernel import Kernel
from tlbcore.policy import Policy, as_policy
from tlbcore.policy import policies as builtin
from tlbcore.sweeps.metrics import Metric, as_metrics
from tlbcore.sweeps.run import Base, annotation, sweep


def _why_inert(policies: Sequence[Policy], machine: str | Machine, kernel: Kernel) -> str:
    reasons = [kernel.inert(policy, machine) for policy in policies]
    return "; ".join(reason for each in reasons for reason in each) or "they replace nothing that runs"


def _kernel_at(kernel: Kernel | None, parameter: str, value: float, kind: str) -> Kernel:
    """Return the kernel of a value, which may be a field of it."""
    kernel = kernel or Kernel()
    if not parameter.startswith("kernel."):
        return kernel
    made = bool(value) if kind.startswith("bool") else int(value) if kind.startswith("int") else value
    return kernel.replace(**{parameter.removeprefix("kernel."): made})


@kept
def break_even(
    base: Base,
    parameter: str,
    low: float,
    high: float,
    *,
    policies: tuple[str | Policy, str | Policy] = ("ipi", "coalesce-v7-fixed"),
    metric: Metric = "syscall_mean_ns",
    machine: str | Machine = defaults.MACHINE,
    kernel: Kernel | None = None,
    fixed: Mapping[str, Any] | None = None,
    replications: int = 5,
    most_replications: int = 40,
    tolerance: float = 0.02,
    seed: Seed = 1,
    threads: int | None = None,
) -> analysis.BreakEven:
    """Find where two policies cost the same, by bisection with confidence from paired replications.

    Parameters
    ----------
    base, machine, kernel, fixed, seed, threads
        As in `sweep`.
    parameter, low, high
        What to vary, and between which values; on a logarithmic scale when they differ more than tenfold. Only whole
        numbers are tried of a parameter that takes no others.
    policies
        The two policies.
    metric
        What to compare: one of what `sweep` takes as `metrics`, a name or a function of your own.
    replications, most_replications
        Replications per value; doubled up to the second number where the sign of the difference stays open.
    tolerance
        Width of the result as a share of the range (of the value, on a logarithmic scale); 0 for as narrow as can be.

    Returns
    -------
    BreakEven
        The value, and an interval outside of which the sign is certain (95 % at each point).

    Raises
    ------
    SweepError
        If there is no change of sign between the two values, or a name is unknown; if at some value neither policy
        does anything but what mainline does.

    Warns
    -----
    InertPolicyWarning
        If one of the policies does nothing at values that were tried.
    """
    names_of_figures, own = as_metrics([metric])
    column = own[0].__name__ if own else names_of_figures[0]
    pair = [as_policy(policy) for policy in policies]
    seed = as_seed(seed, SweepError)  # once: a generator would draw another at each look
    if len(pair) != 2:
        raise SweepError(f"a break-even needs two policies: got {len(pair)}")
    if pair[0] == pair[1]:
        raise SweepError(f"a break-even needs two policies: got {pair[0].name!r} twice")
    names = (pair[0].name, pair[1].name)
    kind = annotation(base, parameter)
    whole = kind.startswith("int") or (not kind and isinstance(low, Integral) and isinstance(high, Integral))
    tried: set[float] = set()
    inert: tuple[dict[float, str], dict[float, str]] = ({}, {})  # why, by the value at which

    def differences(value: float, count: int) -> NDArray[np.float64]:
        given = int(value) if whole else value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InertPolicyWarning)  # it is said once, at the end
            found = sweep(
                base, {parameter: [given]}, policies=pair, machine=machine, kernel=kernel, fixed=fixed,
                metrics=[metric], replications=count, seed=seed, threads=threads,
            )  # fmt: skip
        if found.interrupted:
            raise KeyboardInterrupt
        if len(found.failed["error"]):
            raise SweepError(f"{parameter} = {value:g}: {found.failed['error'][0]}")
        order = np.argsort(found.table["replication"], kind="stable")
        labels, inert_rows = found.table["policy"][order], found.table["inert"][order]
        first = labels == labels[0]
        tried.add(value)
        idle = [bool(inert_rows[here].any()) for here in (first, ~first)]
        at = _kernel_at(kernel, parameter, value, kind) if any(idle) else Kernel()
        # Mainline differs from an inert policy as little as two of those do.
        if all(here or policy == builtin["ipi"] for here, policy in zip(idle, pair, strict=True)):
            raise SweepError(
                f"{names[0]} and {names[1]} {'both do nothing here' if all(idle) else 'are both mainline here'},"
                f" at {parameter} = {value:g}, so that mainline is compared with itself:"
                f" {_why_inert(pair, machine, at)}"
            )
        for policy, here, why in zip(pair, idle, inert, strict=True):
            if here:
                why[value] = _why_inert([policy], machine, at)
        values = found.table[column][order]
        out: NDArray[np.float64] = values[first] - values[~first]
        if np.isnan(out).any():
            raise SweepError(f"{column} has no value at {parameter} = {value:g}")
        return out

    found = analysis.bisect(
        differences, low, high, parameter=parameter, metric=column, policies=names,
        replications=replications, most_replications=most_replications, tolerance=tolerance,
        whole=whole,
    )  # fmt: skip
    for name, why in zip(names, inert, strict=True):
        if not why:
            continue
        value, reason = min(why.items())
        where = (
            "here"
            if len(why) == len(tried)
            else f"at {len(why)} of {len(tried)} values, such as {parameter} = {value:g}"
        )
        warnings.warn(
            f"`{name}` does nothing {where}, so {found.metric} of mainline stands under its name: {reason}",
            InertPolicyWarning,
            stacklevel=3,
        )
    return found
