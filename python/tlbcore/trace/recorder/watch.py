"""What keeps isolated CPUs from their tasks, shown while it is recorded: a table, metrics, JSON lines.

The counts are since the start of the watch. A kind whose events this kernel does not have is *not recorded*:
null in JSON, a gauge of 0 in the metrics, a note below the table; never a zero.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbcore._core import LiveMeter
from tlbcore._output.files import replace_file
from tlbcore._output.visible import visible

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["KINDS", "Reading", "Row", "Watch", "json_line", "metrics", "table", "write_metrics"]

# Kind -> the events that show it; one that begins so is enough. `call` takes its time as an interrupt.
KINDS: Mapping[str, tuple[str, ...]] = {
    "irq": ("irq_vectors/", "irq/irq_handler_entry"),
    "softirq": ("irq/softirq_entry",),
    "task": ("sched/sched_switch",),
    "call": ("csd/csd_queue_cpu",),
}
_TAKES = ("irq", "softirq", "task")
_WORDS = {
    "irq": "interrupts",
    "softirq": "soft interrupts",
    "task": "other tasks",
    "call": "senders of calls",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Occurrences of one name on one CPU: how many, how long in all, and the longest."""

    cpu: int
    kind: str
    name: str
    count: int
    seconds: float
    longest_s: float


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The counts at one moment.

    `recorded` tells for each kind whether its events are there. `lost` events are known to be missing,
    `lost_unknown` times an unknown number.
    """

    time: float
    seconds: float
    cpus: tuple[int, ...]
    recorded: Mapping[str, bool]
    rows: tuple[Row, ...]
    lost: int = 0
    lost_unknown: int = 0

    def of(self, cpu: int, *kinds: str) -> list[Row]:
        """Return the rows of a CPU."""
        return [row for row in self.rows if row.cpu == cpu and row.kind in kinds]

    def interruptions(self, cpu: int) -> int | None:
        """Return how often something took the CPU, by what is recorded; None if nothing is."""
        if not any(self.recorded[kind] for kind in _TAKES):
            return None
        return sum(row.count for row in self.of(cpu, *_TAKES))

    def taken_s(self, cpu: int) -> float | None:
        """Return the time it took, likewise."""
        if not any(self.recorded[kind] for kind in _TAKES):
            return None
        return sum(row.seconds for row in self.of(cpu, *_TAKES))

    @property
    def lower_bound(self) -> bool:
        """Whether something that takes time is not recorded, or was lost."""
        return bool(self.lost or self.lost_unknown) or not all(self.recorded[kind] for kind in _TAKES)


class Watch:
    """Counts what a recording reads, and shows it once an interval."""

    def __init__(
        self,
        cpus: Sequence[int],
        show: Callable[[Reading, Reading | None], None],
        *,
        interval_s: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cpus = tuple(cpus)
        self._show = show
        self._interval = interval_s
        self._now = now
        self._meter = LiveMeter(list(cpus))
        self._recorded = dict.fromkeys(KINDS, False)
        self._begun = self._due = now()
        self._before: Reading | None = None

    def begin(self, events: Sequence[str]) -> None:
        """Take note of the events that are on; the clock starts."""
        for kind, names in KINDS.items():
            self._recorded[kind] = any(event.startswith(names) for event in events)
        self._begun = self._now()
        self._due = self._begun + self._interval

    def feed(self, text: bytes) -> None:
        """Count a piece of the recording."""
        self._meter.feed(text)

    def tick(self, *, last: bool = False) -> None:
        """Show the counts if an interval is over, or at the end."""
        now = self._now()
        if now < self._due and not last:
            return
        due = self._due + self._interval
        self._due = due if due > now else now + self._interval  # who comes late is not shown twice in a row
        reading = self.reading()
        self._show(reading, self._before)
        self._before = reading

    def reading(self) -> Reading:
        """Return the counts of this moment."""
        lost, unknown = self._meter.lost()
        return Reading(
            time=time.time(),
            seconds=self._now() - self._begun,
            cpus=self._cpus,
            recorded=dict(self._recorded),
            rows=tuple(
                Row(cpu=cpu, kind=kind, name=name, count=count, seconds=ns / 1e9, longest_s=longest / 1e9)
                for cpu, kind, name, count, ns, longest in self._meter.rows()
            ),
            lost=lost,
            lost_unknown=unknown,
        )


def json_line(reading: Reading) -> str:
    """Return a reading as one line of JSON (schema `tlbcore.watch`)."""

    def rows(cpu: int, kind: str) -> list[dict[str, Any]] | None:
        if not reading.recorded[kind]:
            return None
        timed = kind in _TAKES
        return [
            {"name": row.name, "count": row.count}
            | ({"seconds": row.seconds, "longest_s": row.longest_s} if timed else {})
            for row in reading.of(cpu, kind)
        ]

    return json.dumps(
        {
            "schema": "tlbcore.watch",
            "version": 1,
            "time": reading.time,
            "seconds": reading.seconds,
            "lost_events": reading.lost,
            "lost_unknown": reading.lost_unknown,
            "lower_bound": reading.lower_bound,
            "cpus": [
                {
                    "cpu": cpu,
                    "interruptions": reading.interruptions(cpu),
                    "taken_s": reading.taken_s(cpu),
                    **{kind: rows(cpu, kind) for kind in KINDS},
                }
                for cpu in reading.cpus
            ],
        }
    )


def metrics(reading: Reading) -> str:
    """Return a reading in the text format of Prometheus.

    The number of series is bounded: per CPU and kind at most 32 names and `other`.
    """
    return "".join(f"{line}\n" for line in _metrics(reading))


def _metrics(reading: Reading) -> Iterator[str]:
    def family(name: str, kind: str, text: str) -> Iterator[str]:
        yield f"# HELP tlbcore_{name} {text}"
        yield f"# TYPE tlbcore_{name} {kind}"

    timed = [row for row in reading.rows if row.kind in _TAKES]
    yield from family(
        "interruptions_total", "counter", "Times that something took an isolated CPU from its task."
    )
    for row in timed:
        yield f"tlbcore_interruptions_total{_labels(row)} {row.count}"
    yield from family("interruption_seconds_total", "counter", "Time that it took, without what came inside.")
    for row in timed:
        yield f"tlbcore_interruption_seconds_total{_labels(row)} {row.seconds:.9f}"
    yield from family("interruption_longest_seconds", "gauge", "The longest since the start of the watch.")
    for row in timed:
        yield f"tlbcore_interruption_longest_seconds{_labels(row)} {row.longest_s:.9f}"
    yield from family("calls_sent_total", "counter", "Calls queued for an isolated CPU: function and sender.")
    for row in reading.rows:
        if row.kind == "call":
            yield f"tlbcore_calls_sent_total{_labels(row)} {row.count}"
    yield from family(
        "recorded", "gauge", "Whether the kernel has the events that show a kind; 0: not recorded."
    )
    for kind, there in reading.recorded.items():
        yield f'tlbcore_recorded{{kind="{kind}"}} {int(there)}'
    yield from family("lost_events_total", "counter", "Events that the ring lost.")
    yield f"tlbcore_lost_events_total {reading.lost}"
    yield from family("losses_unknown_total", "counter", "Times that it lost an unknown number of events.")
    yield f"tlbcore_losses_unknown_total {reading.lost_unknown}"
    yield from family("watch_seconds", "gauge", "How long the watch has run.")
    yield f"tlbcore_watch_seconds {reading.seconds:.3f}"


def _labels(row: Row) -> str:
    name = visible(row.name).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{cpu="{row.cpu}",kind="{row.kind}",name="{name}"}}'


def write_metrics(path: Path, reading: Reading) -> None:
    """Replace a file of metrics in one step, so that a collector never reads half of it.

    A link stays one, and a device or a pipe is written to. Nothing waits for the disk: the next reading replaces it.
    """
    replace_file(path, metrics(reading).encode(), lasting=False)


def table(reading: Reading, before: Reading | None) -> Table:
    """Draw the table of isolated CPUs."""
    from rich.table import Table as RichTable
    from rich.text import Text

    missing = [_WORDS[kind] for kind, there in reading.recorded.items() if not there]
    notes = [f"{reading.seconds:.0f} s"]
    if missing:
        notes.append(f"not recorded: {', '.join(missing)}")
    if reading.lost:
        notes.append(f"{reading.lost:,} {'event' if reading.lost == 1 else 'events'} lost")
    if reading.lost_unknown:
        often = "once" if reading.lost_unknown == 1 else f"{reading.lost_unknown:,} times"
        notes.append(f"{often} an unknown number of events lost")
    out = RichTable(box=None, pad_edge=False, caption="; ".join(notes), caption_justify="left")
    out.add_column("CPU", justify="right", overflow="fold")
    for name in ("per s", "in all", "time taken", "longest"):
        out.add_column(name, justify="right", overflow="fold")
    out.add_column("most time", overflow="fold")
    out.add_column("most calls from", overflow="fold")
    for cpu in reading.cpus:
        out.add_row(str(cpu), *(Text(text) for text in _cells(reading, before, cpu)))
    return out


def _cells(reading: Reading, before: Reading | None, cpu: int) -> Iterator[str]:
    count, taken = reading.interruptions(cpu), reading.taken_s(cpu)
    if count is None or taken is None:
        yield from ("not recorded", "", "", "", "")
    else:
        since, earlier = (before.seconds, before.interruptions(cpu) or 0) if before else (0.0, 0)
        span = reading.seconds - since
        yield f"{(count - earlier) / span:.1f}" if span > 0 else ""
        yield f"{count:,}"
        bound = "at least " if reading.lower_bound else ""
        yield f"{bound}{taken / reading.seconds:.3%}" if reading.seconds > 0 else ""
        rows = reading.of(cpu, *_TAKES)
        longest = max(rows, key=lambda row: row.longest_s, default=None)
        yield "" if longest is None else f"{longest.longest_s * 1e6:,.0f} us {longest.name}"
        most = max(rows, key=lambda row: row.seconds, default=None)
        yield (
            ""
            if most is None
            else f"{most.name} ({most.kind}, {most.seconds / taken:.0%})"
            if taken
            else most.name
        )
    calls = reading.of(cpu, "call")
    top = max(calls, key=lambda row: row.count, default=None)
    if not reading.recorded["call"]:
        yield "not recorded"
    else:
        yield "" if top is None else f"{top.name} ({top.count:,})"
