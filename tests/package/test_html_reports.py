"""Which sections a page has, and what its charts are given: the parts of `reports`, by value."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore._output.html import reports
from tlbcore._output.html.page import sections_of
from tlbcore._output.table import Table
from tlbcore.validation.row import Row, Validation

RECORDING = Path(__file__).parents[1] / "data" / "k61.w4spin.trace.txt.xz"
BUNDLED = Path(tc.__file__).parent / "data" / "modules.trace.txt.xz"


@pytest.fixture(scope="module")
def trace() -> tc.Trace:
    return tc.read_trace(BUNDLED)


def headings(text: str) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<(]*)", text)


def test_a_page_has_every_section_of_the_report_in_its_order(trace: tc.Trace) -> None:
    found = reports.explain(tc.explain(trace), {})
    assert [heading.split(",")[0].strip() for heading in headings(found)] == [
        "What took the isolated CPUs from their tasks",
        "How long",
        "127 lazy vmalloc purges flushed",
        "What would help",
        "Under other policies",
        "When",
        "Calls by sending and isolated CPU",
        "Kernel-range flushes in all: 127 flush_tlb_kernel_range",
        "What this trace cannot say",
    ]
    replayed = reports.replay(tc.replay(trace, ["ipi"]), {})
    assert f"<h1>Replayed: {trace.path}</h1>" in replayed
    assert headings(replayed) == ["Per isolated CPU "]


def test_a_page_of_a_recording_without_isolated_cpus_has_every_section_too() -> None:
    """Such a report has no short form, so its first section is one of the page's."""
    explanation = tc.explain(tc.read_trace(RECORDING))
    sections = [heading for heading, _ in sections_of(str(explanation))][1:]
    assert "In short" not in sections
    assert sections != []
    found = re.findall(r"<h2[^>]*>([^<]*)", reports.explain(explanation, {}))
    assert found == [escape(heading) for heading in sections]


def test_a_comparison_has_a_bar_for_what_is_above_zero_and_opens_with_its_first_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[str, list[float]]] = []

    def bars(
        _: object, values: list[float], __: str, caption: str, *, hollow: list[bool], ranges: list[str]
    ) -> str:
        assert (hollow, ranges) == ([False, False], [f"{values[0]:g}"] * 2)
        drawn.append((caption, values))
        return ""

    monkeypatch.setattr(reports, "bars", bars)
    made = tc.compare(tc.scenarios.rteval(duration_s=120), policies=["ipi", "coalesce-v7"])
    columns = {name: np.array(values) for name, values in made.table.items()}
    columns["ipis_per_hour"][:] = 0.5
    columns["entry_mean_ns"][:] = 0.0
    columns["interference_us_per_hour"][:] = 2.0
    first, last = made.results
    changed = replace(made, table=Table(columns), results=(first.replace(duration_s=99.0), last))
    text = reports.compare(changed, {})
    assert "44 CPUs (26 isolated), 99..120 s simulated." in text
    assert drawn == [
        (f"{figure}, per {cpu_class} CPU (predicted)", [value] * 2)
        for cpu_class in dict.fromkeys(map(str, columns["cpu_class"]))
        for figure, value in (("ipis_per_hour", 0.5), ("interference_us_per_hour", 2.0))
    ]


def test_witnesses_have_a_section_where_there_are_some() -> None:
    verdict = tc.check("coalesce-v7", cpus=2, nmis=0, confirm=False)
    text = reports.check(verdict, {})
    assert headings(text) == ["The run that breaks it", "What was asked", "Witnesses", "As text"]
    shown = re.findall(r"<td[^>]*>([^<]*)</td><td[^>]*>((?:not )?seen)</td>", text)
    assert shown == [(what, "seen" if was else "not seen") for what, was in verdict.witnesses.items()]
    without = reports.check(replace(verdict, witnesses={}), {})
    assert headings(without) == ["The run that breaks it", "What was asked", "As text"]


def test_a_cpu_has_lanes_of_its_own_interruptions_and_says_how_many_causes_have_none(
    trace: tc.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(reports, "over_time", lambda *given, figures: drawn.append((*given, figures)) or "")
    reports._over_time(trace, trace.spans)
    spans, cpus = trace.spans, trace.figures["report"]["isolated"]
    colours: dict[str, int] = {}
    for (_, _, lanes, seconds, caption, figures), cpu in zip(drawn, cpus, strict=True):
        assert (seconds, figures) == (cpu["seconds"], 2)
        causes = sorted(cpu["interference"], key=lambda row: -row["total_ms"])
        assert [lane.name for lane in lanes] == [tc.causes[row["cause"]].title for row in causes[:8]]
        for lane, row in zip(lanes, causes, strict=False):
            assert len(lane.at_s) == row["n"]
            mine = (spans["cpu"] == cpu["cpu"]) & (spans["cause"] == row["cause"])
            np.testing.assert_allclose(lane.at_s + cpu["timeline"]["from_s"], spans["at_s"][mine])
            assert lane.said.startswith(f"{row['n']:,}x, ")
            assert lane.colour == colours.setdefault(lane.name, lane.colour), "one colour on every CPU"
        more = "" if len(causes) == 8 else f" {len(causes) - 8} causes with less time have no lane."
        assert caption == f"CPU {cpu['cpu']}, measured. + - 0 and arrows zoom and move.{more}"
    assert [len(cpu["interference"]) for cpu in cpus] == [8, 10]
    drawn.clear()
    reports._over_time(trace, None)
    assert [(given[2], "no lane" in given[4]) for given in drawn] == [([], False), ([], False)]


def test_what_is_measured_has_full_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[bool]] = []

    def bars(*_: object, hollow: list[bool]) -> str:
        kept.append(hollow)
        return ""

    monkeypatch.setattr(reports, "bars", bars)
    one = {"n": 1, "per_hour": 2.0, "low": 1.0, "high": 3.0}
    row = {
        "cause": "all",
        "traces": [one, one],
        "ratio": 1.0,
        "ratio_low": 0.5,
        "ratio_high": 2.0,
        "change": "",
    }
    reports._compared([row])
    assert kept == [[False, False]]


def test_the_rows_that_are_outside_are_the_ones_that_are_marked() -> None:
    rows = tuple(
        Row(number=1, name=f"n{i}", unit="", role="input", published=10.0, computed=computed, tolerance=0.1)
        for i, computed in enumerate((10.5, 12.0, None))
    )
    text = reports.validate(Validation(rows=rows), {})
    assert re.findall(r"<tr([^>]*)><td[^>]*>1</td>", text) == ["", ' class="violated"', ""]
