"""The page of each report. Each takes the result and the JSON document that the command would print of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlbcore._output.html.charts import Lane, Line, length_classes, lengths, over_time
from tlbcore._output.html.charts import lines as chart
from tlbcore._output.html.page import (
    Cell,
    bars,
    matrix,
    number,
    page,
    preformatted,
    rows_of,
    section,
    sections_of,
    table,
)
from tlbcore._output.html.run import run
from tlbcore.simulation import told

if TYPE_CHECKING:
    from tlbcore.checker import Verdict
    from tlbcore.simulation.compare import Comparison
    from tlbcore.trace import Trace
    from tlbcore.trace.explanation import Explanation
    from tlbcore.trace.replayed import Replay
    from tlbcore.validation.published import Validation

Document = Mapping[str, Any]

_LANES = 8  # causes of a CPU that have a lane of their own


def check(verdict: Verdict, document: Document) -> str:
    """Return the page of a verdict: its sentence, the run to step through, and the verdicts it is the worst of."""
    parts = []
    found = verdict.counterexample
    if found is not None:
        parts.append(section("The run that breaks it", run(found)))
    rows: list[list[Cell]] = [
        [case.world, case.asked, _assumed(case), case.status, case.states]
        for case in verdict.cases or (verdict,)
    ]
    heads = ("world", "asked about", "assumptions", "verdict", "states")
    marks = [str(row[3]) for row in rows]
    parts.append(
        section(
            "What was asked",
            table(heads, rows, "Each search; the verdict is the worst of them.", marks=marks),
        )
    )
    seen: list[list[Cell]] = [
        [what, "seen" if was else "not seen"] for what, was in verdict.witnesses.items()
    ]
    if seen:
        caption = "A pass in which nothing happened says nothing: what the search saw at least once."
        parts.append(section("Witnesses", table(("what", "seen"), seen, caption)))
    parts.append(section("As text", preformatted(str(verdict).split("\n"))))
    title = f"{verdict.policy}: {verdict.status}" + (f" ({verdict.grade})" if verdict.grade else "")
    return page(title, [verdict.sentence], parts, document, status=_class(verdict.status))


def _class(status: str) -> str:
    return status if status in ("verified", "violated") else "unknown"


def _assumed(verdict: Verdict) -> str:
    return ", ".join(f"{key}={value}" for key, value in verdict.assume.items())


def explain(explanation: Explanation, document: Document) -> str:
    """Return the page of a recording: the words of the report, its tables to sort, and when it happened."""
    lede, parts = _recording(explanation)
    return page(f"Who interrupted: {explanation.trace.path}", lede, parts, document)


def explain_pair(explanations: Sequence[Explanation], compared: str, document: Document) -> str:
    """Return the page of several recordings: what differs, then each."""
    parts = [section("What differs", *_compared(document["comparison"]), preformatted(compared.split("\n")))]
    for i, explanation in enumerate(explanations, 1):
        lede, one = _recording(explanation)
        head = section(explanation.trace.path, *(preformatted([line]) for line in lede))
        # Two recordings have sections of one name.
        parts += [part.replace('<section id="', f'<section id="r{i}-', 1) for part in (head, *one)]
    names = " and ".join(explanation.trace.path for explanation in explanations)
    return page(f"Compared: {names}", [], parts, document)


def _compared(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how often what happened in each recording: bars of the most frequent, and a table of all."""
    from tlbcore.trace import causes

    if not rows:
        return []
    count = len(rows[0]["traces"])
    heads = ["what"]
    for k in range(1, count + 1):
        heads += [f"n [{k}]", f"per hour [{k}]", f"95 % [{k}]"]
    cells: list[list[Cell]] = []
    for row in rows:
        cell: list[Cell] = ["all" if row["cause"] == "all" else causes[row["cause"]].title]
        for one in row["traces"]:
            cell += [one["n"], one["per_hour"], _span(one["low"], one["high"])]
        cells.append([*cell, row["ratio"], _span(row["ratio_low"], row["ratio_high"]), row["change"]])
    often = sorted(rows, key=lambda row: -max(one["per_hour"] or 0.0 for one in row["traces"]))[:_LANES]
    names = [
        f"{'all' if row['cause'] == 'all' else causes[row['cause']].title} [{k}]"
        for row in often
        for k in range(1, count + 1)
    ]
    rates = [one["per_hour"] for row in often for one in row["traces"]]
    said = "Interruptions per hour and isolated CPU, measured"
    return [
        bars(names, rates, "per hour", f"{said}; the most frequent.", hollow=[False] * len(names)),
        table([*heads, "ratio", "95 % of it", "change"], cells, f"{said}. An empty cell was not recorded."),
    ]


def _span(low: float | None, high: float | None) -> Cell:
    return None if low is None or high is None else f"{number(low)} to {number(high)}"


def _recording(explanation: Explanation) -> tuple[list[str], list[str]]:
    """Return the first sentences and the sections of one recording."""
    from tlbcore.trace import causes

    trace = explanation.trace
    text = dict(sections_of(str(explanation)))
    head = next(iter(text))
    parts = []
    spans = trace.spans if trace.has_events else None
    for heading, lines in list(text.items())[1:]:
        if heading == "In short":
            continue  # the page opens with it
        added = []
        if heading.startswith("What took"):
            t = explanation.table
            rows = [
                [
                    int(t["cpu"][i]),
                    causes[str(t["cause"][i])].title,
                    str(t["kind"][i]),
                    int(t["n"][i]),
                    *(_known(t[name][i]) for name in ("per_hour", "p50_us", "p95_us", "max_us", "total_ms")),
                ]
                for i in _by_time(t)
            ]
            heads = ("CPU", "what", "kind", "n", "per hour", "p50 us", "p95 us", "max us", "in all ms")
            added.append(table(heads, rows, "Measured. An empty cell was not recorded."))
        elif heading.startswith("When"):
            added += _over_time(trace, spans)
        elif heading.startswith("Calls by sending"):
            added.append(_senders(explanation))
        parts.append(section(heading, *added, preformatted(lines)))
        if heading.startswith("What took") and spans is not None:
            parts.append(_lengths(explanation, spans))
    lede = [" ".join(line.strip() for line in group) for group in _paragraphs(text.get("In short", []))]
    return lede or [" ".join([head, *map(str.strip, text[head])])], parts


def _by_time(t: Mapping[str, Any]) -> list[int]:
    """Return the rows of an explanation by CPU, most time first, as the heading says; then most frequent first."""

    def place(i: int) -> tuple[int, float, int, str]:
        return int(t["cpu"][i]), -(_known(t["total_ms"][i]) or 0.0), -int(t["n"][i]), str(t["cause"][i])

    return sorted(range(len(t["cpu"])), key=place)


def _over_time(trace: Trace, spans: Mapping[str, Any] | None) -> list[str]:
    """Return what took each isolated CPU over time: its interrupts, and a lane per cause, most time first."""
    from tlbcore.trace import causes

    isolated = [cpu for cpu in trace.figures["report"]["isolated"] if cpu["interrupts"]]
    order: dict[str, int] = {}  # a cause has one colour on every CPU
    out = []
    for cpu in isolated:
        lanes = []
        rows = sorted(
            cpu["interference"], key=lambda row: (-(row["total_ms"] or 0.0), -row["n"], row["cause"])
        )
        for row in rows[:_LANES]:
            if spans is None:
                break
            mine = (spans["cpu"] == cpu["cpu"]) & (spans["cause"] == row["cause"])
            said = f"{row['n']:,}x" + ("" if row["total_ms"] is None else f", {number(row['total_ms'])} ms")
            at_s = spans["at_s"][mine] - cpu["timeline"]["from_s"]
            lanes.append(
                Lane(causes[row["cause"]].title, at_s, said, order.setdefault(row["cause"], len(order)))
            )
        t = cpu["timeline"]
        more = len(rows) - _LANES
        caption = f"CPU {cpu['cpu']}, measured. + - 0 and arrows zoom and move."
        if spans is not None and more > 0:
            caption += f" {more} causes with less time have no lane."
        out.append(over_time(t["counts"], t["step_s"], lanes, cpu["seconds"], caption, figures=len(isolated)))
    return out


def _lengths(explanation: Explanation, spans: Mapping[str, Any]) -> str:
    """Return how many interruptions of each cause were how long."""
    from tlbcore.trace import causes

    order = list(dict.fromkeys(map(str, explanation.table["cause"])))
    rows = [(causes[cause].title, lengths(spans, cause)) for cause in order]
    caption = "How many of each cause were how long, measured; all isolated CPUs together."
    return section("How long", matrix("cause", [*length_classes(), "not recorded"], rows, caption))


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Yield the paragraphs of indented lines: a new one begins at an indentation of two."""
    group: list[str] = []
    for line in lines:
        if group and line.startswith("  ") and not line.startswith("   "):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _senders(explanation: Explanation) -> str:
    calls = explanation.trace.calls
    targets = sorted(set(calls["cpu"].tolist()))
    rows = []
    for sender in sorted(set(calls["sender_cpu"].tolist())):
        mine = calls["cpu"][calls["sender_cpu"] == sender]
        rows.append(
            (f"CPU {sender}" if sender >= 0 else "unknown", [int((mine == cpu).sum()) for cpu in targets])
        )
    return matrix(
        "from", [f"to {cpu}" for cpu in targets], rows, "Remote calls by sending and isolated CPU, measured."
    )


def compare(comparison: Comparison, document: Document) -> str:
    """Return the page of a comparison: a bar per policy for what matters most, and every figure in a table."""
    t, first = comparison.table, comparison.results[0]
    inert = {r.policy.name for r in comparison.results if r.inert}
    parts = []
    for cpu_class in dict.fromkeys(map(str, t["cpu_class"])):
        rows = [i for i, name in enumerate(t["cpu_class"]) if name == cpu_class]
        names = [str(t["policy"][i]) for i in rows]
        figures = [
            n
            for n in t
            if n not in ("policy", "cpu_class", "cpus", "replications", "inert")
            and not n.endswith(("_low", "_high"))
        ]
        charts = [
            bars(
                names,
                [_known(t[figure][i]) for i in rows],
                "",
                f"{figure}, per {cpu_class} CPU (predicted)",
                hollow=[name in inert for name in names],
                ranges=[told.cell(t, figure, i) for i in rows],
            )
            for figure in ("ipis_per_hour", "interference_us_per_hour", "entry_mean_ns")
            if figure in t and any(t[figure][i] > 0 for i in rows)
        ]
        shown = [f for f in figures if any(told.cell(t, f, i) not in ("-", "0") for i in rows)]
        cells = [[name, *(_figure(t, f, i) for f in shown)] for name, i in zip(names, rows, strict=True)]
        marks = told.explained([told.cell(t, f, i) for f in shown for i in rows])
        caption = " ".join(
            [
                "Predicted. What is zero or absent for every policy is left out; an empty cell did not occur.",
                *(f"{mark}." for mark in marks),
            ]
        )
        charts += _tails(comparison, cpu_class)
        heading = "Per CPU, all together" if cpu_class == "all" else f"Per {cpu_class} CPU"
        parts.append(section(heading, *charts, table(("policy", *shown), cells, caption)))
    rests = [*told.notes(comparison), *told.remarks(comparison)]
    parts.append(section("What the figures rest on", preformatted(rests)))
    load = first.scenario
    lede = f"{load.cpus} CPUs ({len(load.isolated)} isolated), {told.simulated(comparison)} simulated."
    return page(f"{first.scenario.name} on {first.machine}", [lede], parts, document)


def _figure(table: Mapping[str, Any], name: str, i: int) -> Cell:
    """Return a figure as a cell: a number to sort by, or the text of one that has an interval."""
    text = told.cell(table, name, i)
    return text if "±" in text or ".." in text else _known(table[name][i])


_QUANTILES = {"p50_ps": 0.5, "p90_ps": 0.9, "p99_ps": 0.99, "p999_ps": 0.999, "max_ps": 1.0}


def _tails(comparison: Comparison, cpu_class: str) -> list[str]:
    """Return the distribution of each latency that occurs: which share takes longer, a line per policy."""
    out = []
    for what, said in (("syscall", "system call"), ("interruption", "interruption of user mode")):
        series = []
        for name, one in comparison.items():
            found: Mapping[str, Any] = one.latencies[f"{what}_{cpu_class}"]
            if found["count"]:
                x = [found[key] * 1e-3 for key in _QUANTILES]
                y = [max(1 - share, 1 / found["count"]) for share in _QUANTILES.values()]
                series.append(Line(name, x, y, hollow=bool(one.inert)))
        caption = f"How long a {said} takes, per {cpu_class} CPU: the share that takes longer (predicted, first seed)."
        out.append(chart(series, "ns", "share that takes longer", caption, zero=False))
    return out


def replay(replayed: Replay, document: Document) -> str:
    """Return the page of a replay: its report, section by section, and every figure to sort."""
    text = sections_of(str(replayed))
    parts = []
    for heading, lines in text[1:]:
        added = ""
        if heading.startswith("Per isolated CPU"):
            added = rows_of(
                replayed.table, "Predicted, from low to high; the recording leaves open what lies between."
            )
        parts.append(section(heading, added, preformatted(lines)))
    head, lines = text[0]
    return page(f"Replayed: {head}", [" ".join(map(str.strip, lines))], parts, document)


def validate(validation: Validation, document: Document) -> str:
    """Return the page of the published experiments beside what the simulator computes."""
    rows: list[list[Cell]] = [
        [
            row.number,
            f"{row.name}{f' ({row.unit})' if row.unit else ''}",
            row.role,
            _known(row.published),
            row.computed,
            row.ratio,
            {True: "within", False: "outside", None: "not computed"}[row.within],
        ]
        for row in validation.rows
    ]
    heads = ("#", "figure", "role", "published", "computed", "ratio", "tolerance")
    marks = ["violated" if row.within is False else "" for row in validation.rows]
    missed = len(validation.misses)
    lede = f"{sum(row.within is not None for row in validation.rows)} computed, {missed} outside their tolerance."
    caption = "An empty cell was not computed. A role of `input` means that the figure went in."
    return page(
        "Published experiments", [lede], [section("Rows", table(heads, rows, caption, marks=marks))], document
    )
