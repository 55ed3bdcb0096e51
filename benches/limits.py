"""What each figure must reach and what it should, in one place; `python -m benches.summary` prints them beside it.

Rates are meant for one core of the machine the page names; ratios hold on any. Nothing here is asserted: a
shared machine would make a liar of every assertion.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Limit:
    """Benches whose name matches `bench` owe the figure `of` (a key of `extra_info`, or `seconds`).

    `must` is the limit and `aim` the goal; with `least` the figure is a time or a count, and less is better.
    """

    bench: str
    of: str
    must: float
    aim: float | None = None
    least: bool = False

    def verdict(self, figure: float) -> str:
        """Say how a figure stands.

        >>> Limit("b", "x", 2.0, 3.0).verdict(2.5)
        'must'
        """
        reached = [
            name
            for name, bound in (("must", self.must), ("aim", self.aim))
            if bound is not None and (figure <= bound if self.least else figure >= bound)
        ]
        return reached[-1] if reached else "missed"


def _ratios(stream: str, must: float, aim: float) -> list[Limit]:
    name = f"ratio_to_numba_and_pycachesim[[]{stream}]"
    peers = [] if stream == "zipf1.2" else [Limit(name, "times_pycachesim", 12)]
    return [Limit(name, "times_numba", must, aim), Limit(name, "scalar_times_numba", 1), *peers]


def _worst(group: str) -> list[Limit]:
    """The worst access stream of a class."""
    return [Limit(group, "worst_times_numba", 2.5, 3.5), Limit(group, "worst_times_c", 1)]


LIMITS: list[Limit] = [
    *_ratios("zipf1.0", 2.8, 3.5),
    *_ratios("uniform64k", 1.4, 1.7),
    *_ratios("hot48", 3.5, 4.8),
    *_ratios("runs8", 2.0, 2.4),
    *_worst("class_regions"),
    *_worst("class_integers"),
    *_worst("class_calls"),
    *_worst("class_contexts"),
    *_worst("class_machines"),
    Limit("class_machines", "worst_million_per_s", 40, 80),
    Limit("class_one_element", "worst_microseconds", 1, least=True),
    Limit("class_events", "worst_million_per_s", 40, 60),
    Limit("class_events_of_the_peers", "worst_million_per_s", 40, 60),
    Limit("class_events_of_the_peers", "worst_times_c_on_hot48", 1),
    Limit("class_curves", "worst_million_per_s", 15),
    Limit("class_full_lru", "worst_million_per_s", 25, 40),
    Limit("real_cpu*", "million_translations_per_s", 40, 80),
    Limit("full_semantics[[]zipf1.0-full-flushes]", "million_events_per_s", 100, 150),
    Limit("full_semantics[[]zipf1.0-pcid-and-ranges]", "million_events_per_s", 60, 90),
    Limit("miss_curve[[]8]", "million_accesses_per_s", 250, 400),
    Limit("miss_curve[[]32]", "million_accesses_per_s", 60, 100),
    Limit("two_threads", "times_one", 1.7),
    Limit("call_overhead", "seconds", 2e-6, least=True),
    Limit("class_program_runs[[]summary]", "worst_million_per_s", 12, 20),
    Limit("class_program_runs[[]full]", "worst_million_per_s", 2, 4),
    Limit("program_runs_in_summary*", "events_per_s", 20e6),
    Limit("program_runs_with_twenty_looked_up_touches*", "events_per_s", 4e6),
    Limit("ten_thousand_points_beyond_the_simulation*", "us_per_point", 50, least=True),
    Limit("points_of_a_millisecond", "us_per_point", 100, 50, least=True),
    Limit("a_run_of_nothing", "us", 400, 200, least=True),
    Limit("shootdowns[[]ipi-*", "s_per_hundred_thousand", 2, least=True),
    Limit("shootdowns_on_a_thousand_cpus*", "s_per_hundred_thousand", 2, least=True),
    Limit("read_back", "rows_per_second", 500e3),
    Limit("dask_with_two_local_workers_against_one_thread", "speedup", 1.6),
    Limit("other_formats*", "lines_per_s", 2e6),
    Limit("published_six_hours*", "seconds", 2.0, least=True),
    Limit("broadcast*", "ns_per_target", 10, least=True),
    Limit("states_per_second_of_a_plain_search*", "states_per_s", 3e6),
    Limit("time_of_a_check[[]coalesce-v7-fixed-4-1-*", "seconds", 60, 10, least=True),
    Limit("time_of_a_check[[]coalesce-v7-fixed-5-0-*", "seconds", 60, least=True),
    Limit("factor_of_an_nmi", "largest_factor", 15, 10, least=True),
    Limit("two_threads_of_a_search[[]default]", "times_one", 1.4, 1.7),
    Limit("two_threads_of_a_search[[]plain]", "times_one", 1.7),
    Limit("transitions_and_bytes_beyond_forty_million_states", "transitions_per_s", 5e6),
    Limit("transitions_and_bytes_beyond_forty_million_states", "bytes_per_state", 14, 12, least=True),
    Limit("the_checker_and_spin_agree_and_this_is_their_speed", "ratio_to_spin", 3),
    Limit("time_of_the_verdict_table", "seconds", 120, least=True),
    Limit("read_trace[[]plain]", "lines_per_s", 3e6, 5e6),
    Limit("read_trace[[]zst]", "lines_per_s", 3e6, 5e6),
]

#: Instructions per access or event, of `benches/instructions.json`.
INSTRUCTIONS: dict[str, tuple[float, float]] = {
    "plain zipf1.0": (60, 52),
    "plain hot48": (25, 22),
    "plain runs8": (20, 17),
    "events zipf1.0": (110, 95),
    "events zipf1.0, ranges": (110, 95),
}


def limits_of(bench: str) -> list[Limit]:
    """Limits of a bench by its short name.

    >>> [limit.of for limit in limits_of("miss_curve[8]")]
    ['million_accesses_per_s']
    """
    return [limit for limit in LIMITS if fnmatchcase(bench, limit.bench)]
