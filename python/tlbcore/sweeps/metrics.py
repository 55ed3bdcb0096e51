"""What a sweep computes of each point: figures by name, and functions of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from tlbcore._core import SweepError
from tlbcore._input.names import unknown
from tlbcore.simulation.figures import metric_names
from tlbcore.sweeps.results import OWN

if TYPE_CHECKING:
    from tlbcore._input.vocabulary import MetricName
    from tlbcore.simulation.run import SimResult

DEFAULT_METRICS: tuple[MetricName, ...] = (
    *("ipis_per_hour", "interference_per_hour", "interference_us_per_hour", "deferrals_per_hour"),
    *("entry_flushes_needed_per_hour", "entry_flushes_unneeded_per_hour", "entry_flush_ns", "refill_ns"),
    *("entry_mean_ns", "entry_p99_ns", "syscalls_per_s", "syscall_mean_ns", "syscall_p99_ns"),
    *("exposures_per_hour", "exposure_mean_ns", "kernel_share", "user_share"),
    *("housekeeping_wait_mean_us", "housekeeping_wait_p99_us", "housekeeping_wait_share"),
    *("housekeeping_flush_request_mean_us", "housekeeping_user_flush_request_mean_us"),
    *("all_flush_requests_per_hour", "all_user_flush_requests_per_hour", "all_purges_per_hour"),
    "all_violations_per_hour",
)

Metric: TypeAlias = "MetricName | Callable[[SimResult], float]"


def as_number(metric: Callable[[SimResult], float], result: SimResult) -> float:
    """Return what a function of the user's makes of a result; raises `SweepError` unless it is a number."""
    value = metric(result)
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise SweepError(f"{metric.__name__} must return a number: got {value!r}")
    return float(value)


def as_metrics(chosen: Sequence[Any]) -> tuple[tuple[str, ...], tuple[Callable[[SimResult], float], ...]]:
    """Split metrics into names of figures and functions of the user's; refuse what is neither."""
    if isinstance(chosen, str) or not isinstance(chosen, Sequence):
        raise SweepError(f"metrics is a list of names and functions: got {chosen!r}")
    names = [metric for metric in chosen if isinstance(metric, str)]
    own = [metric for metric in chosen if not isinstance(metric, str)]
    for name in names:
        if name not in (known := metric_names()):
            raise SweepError(unknown("metric", name, known))
    for metric in own:
        name = getattr(metric, "__name__", "")
        if not callable(metric) or not name.isidentifier():
            raise SweepError(f"a metric is the name of a figure or a function with a name: got {metric!r}")
        names_of_all = [*metric_names(), *OWN]
        if name in names_of_all:
            raise SweepError(f"a metric of your own is called {name!r}, which is the name of another column")
    every = [*names, *(metric.__name__ for metric in own)]
    if not every:
        raise SweepError("a sweep needs at least one metric")
    for name in every:
        if every.count(name) > 1:
            raise SweepError(f"metric {name!r} is given twice")
    return tuple(names), tuple(own)
