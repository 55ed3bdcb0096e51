"""Stolen time: what a hypervisor took from virtual CPUs, from the copies of /proc/stat that `tlbcore record` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_STEAL = 8  # field of a cpuN line in /proc/stat, behind the name


def stolen_ms(notes: Iterable[tuple[str, str]]) -> Mapping[int, tuple[float, float, float]]:
    """Return milliseconds stolen from each CPU between both copies, with the least and the most they can have been.

    The kernel counts in ticks of `user_hz`, so the figure is good to one tick either way. A CPU without both lines is
    left out: not recorded.

    >>> notes = [("user_hz", "100"), ("stat_before", "cpu2 0 0 0 0 0 0 0 5 0 0")]
    >>> stolen_ms([*notes, ("stat_after", "cpu2 0 0 0 0 0 0 0 17 0 0")])
    {2: (120.0, 110.0, 130.0)}
    """
    ticks: dict[str, dict[int, int]] = {"stat_before": {}, "stat_after": {}}
    hz = 100
    for key, value in notes:
        words = value.split()
        if key == "user_hz" and value.strip().isdigit() and int(value):
            hz = int(value)
        elif key in ticks and len(words) > _STEAL and words[0][3:].isdigit() and words[_STEAL].isdigit():
            ticks[key][int(words[0][3:])] = int(words[_STEAL])
    before, after = ticks["stat_before"], ticks["stat_after"]
    tick = 1000.0 / hz
    # A counter that steps back is another boot's: not recorded.
    return {
        cpu: (
            tick * (end - before[cpu]),
            tick * max(end - before[cpu] - 1, 0),
            tick * (end - before[cpu] + 1),
        )
        for cpu, end in after.items()
        if cpu in before and end >= before[cpu]
    }
