"""Charts of a page, stroke by stroke: axes, grids, lines and what stands beside them, worked out in pixels."""

from __future__ import annotations

import math
import re

import pytest

from tlbcore._output.html import charts
from tlbcore._output.html.charts import Lane, Line

nan = math.nan


def test_a_chart_of_two_points_stroke_by_stroke() -> None:
    """x from 1 to 2 is 80 to 690, 122 for each 0.2; y from 0 to 4 is 250 up to 20, 57.5 for each 1."""
    grid = "".join(
        f'<line class="grid" x1="80" x2="690" y1="{at}" y2="{at}"></line>'
        f'<text x="74" y="{at + 4}" text-anchor="end">{tick}</text>'
        for tick, at in enumerate((250.0, 192.5, 135.0, 77.5, 20.0))
    )
    below = "".join(
        f'<text x="{at}" y="268" text-anchor="middle">{tick}</text>'
        for tick, at in (
            ("1", 80.0),
            ("1.2", 202.0),
            ("1.4", 324.0),
            ("1.6", 446.0),
            ("1.8", 568.0),
            ("2", 690.0),
        )
    )
    assert charts.lines([Line("p & q", [1.0, 2.0], [1.0, 4.0])], "a < b", "c > d", '"f"') == (
        '<figure><div class="scroll" role="group" tabindex="0" aria-label="&quot;f&quot;">'
        '<svg class="chart" viewBox="0 0 960 300" role="img" aria-label="&quot;f&quot;">'
        f"{grid}{below}"
        '<path class="line s0" stroke-dasharray="" d="M80.0 192.5L690.0 20.0"></path>'
        '<circle class="dot s0" cx="80.0" cy="192.5" r="3.5"></circle>'
        '<circle class="dot s0" cx="690.0" cy="20.0" r="3.5"></circle>'
        '<path class="line s0" stroke-dasharray="" d="M705 30H735"></path>'
        '<text x="742" y="34">p &amp; q</text>'
        '<text x="385" y="290" text-anchor="middle">a &lt; b</text>'
        '<text x="80" y="12">c &gt; d</text>'
        "</svg></div><figcaption>&quot;f&quot;</figcaption></figure>"
    )  # fmt: skip


def ticks(svg: str) -> tuple[list[str], list[str]]:
    """Return the numbers beside the axis that goes up, and those below the other."""
    up = re.findall(r'<text x="74" [^>]*>([^<]*)<', svg)
    return up, re.findall(r'y="268"[^>]*>([^<]*)<', svg)


@pytest.mark.parametrize(
    ("line", "zero", "up", "across"),
    [
        (Line("a", [1.0, 2.0], [3.0, 4.0]), True, "0 1 2 3 4", "1 1.2 1.4 1.6 1.8 2"),
        (Line("a", [1.0, 2.0], [3.0, 4.0]), False, "3 3.2 3.4 3.6 3.8 4", "1 1.2 1.4 1.6 1.8 2"),
        # Over a factor of ten both axes are logarithmic, and zero is none of theirs.
        (Line("a", [1.0, 100.0], [2.0, 2000.0]), True, "10 100 1,000", "1 10 100"),
        # An interval belongs to the axis; half of one that is not known does not.
        (Line("a", [1.0, 2.0], [3.0, 4.0], [-2.0, nan], [nan, 8.0]), True, "-2 0 2 4 6 8", "1 1.2 1.4 1.6 1.8 2"),
        # Points that are not known belong to neither axis.
        (Line("a", [1.0, 2.0, 9.0, nan], [3.0, 4.0, nan, 90.0]), True, "0 1 2 3 4", "1 1.2 1.4 1.6 1.8 2"),
        # Three times 0.1 is more than 0.3 by its last bit.
        (Line("a", [0.1, 0.3], [0.0, 0.3]), True, "0 0.1 0.2 0.3", "0.1 0.15 0.2 0.25 0.3"),
        (Line("a", [-0.3, 0.0], [-0.7, 0.0]), True, "-0.6 -0.4 -0.2 0", "-0.3 -0.2 -0.1 0"),
    ],
)  # fmt: skip
def test_axes_have_the_ends_of_what_is_drawn(line: Line, zero: bool, up: str, across: str) -> None:
    assert ticks(charts.lines([line], "x", "y", "c", zero=zero)) == (up.split(), across.split())


def test_lines_share_their_axes_and_those_without_a_point_are_left_out() -> None:
    drawn = [Line("a", [1.0, 2.0], [1.0, 1.0]), Line("none", [5.0], [nan]), Line("b", [3.0], [4.0])]
    svg = charts.lines(drawn, "x", "y", "c")
    assert ticks(svg) == (["0", "1", "2", "3", "4"], ["1", "1.5", "2", "2.5", "3"])
    assert re.findall(r'<text x="742" y="(\d+)">(\w+)', svg) == [("34", "a"), ("54", "b")]
    assert re.findall(r'class="dot s(\d)" cx="([\d.]+)" cy="([\d.]+)"', svg) == [
        ("0", "80.0", "192.5"), ("0", "385.0", "192.5"), ("1", "690.0", "20.0"),
    ]  # fmt: skip


@pytest.mark.parametrize("y", [[0.0, nan], [nan, 0.0], [0.0, 0.0], [nan, nan]])
def test_nothing_but_zero_is_no_chart(y: list[float]) -> None:
    assert charts.lines([Line("a", [1.0, 2.0], y)], "x", "y", "c") == ""
    assert charts.lines([Line("a", [1.0, 2.0], y), Line("b", [1.0], [2.0])], "x", "y", "c") != ""
    assert charts.lines([], "x", "y", "c") == ""


def test_points_are_joined_from_left_to_right_whatever_is_missing_between_them() -> None:
    line = Line("a", [3.0, nan, 1.0, 2.0], [1.0, 1.0, 2.0, 4.0])
    (path, _) = re.findall(r'<path class="line[^>]* d="([^"]*)"', charts.lines([line], "x", "y", "c"))
    assert path == "M80.0 135.0L385.0 20.0L690.0 192.5"


def test_an_interval_stands_where_both_its_ends_and_its_place_are_known() -> None:
    line = Line(
        "a", [1.0, 2.0, 3.0, nan, 5.0], [4.0] * 5, [0.0, 1.0, nan, 2.0, 3.0], [4.0, nan, 2.0, 3.0, 4.0]
    )
    svg = charts.lines([line], "x", "y", "c")
    assert re.findall(r'class="interval s0" d="([^"]*)"', svg) == ["M80.0 250.0V20.0", "M690.0 77.5V20.0"]


@pytest.mark.parametrize(
    ("figures", "per", "bars"),
    [(0, 3, 1667), (1, 3, 1667), (3, 3, 1667), (4, 4, 1250), (100, 84, 60), (1000, 125, 40)],
)
def test_bars_of_a_page_are_shared_by_its_figures(figures: int, per: int, bars: int) -> None:
    """5,000 counts: at most 2,000 bars, at most 6,000 of all figures together, and at least 40."""
    svg = charts.over_time([1] * 5000, 0.5, [], 2500.0, "c", figures=figures)
    assert f'data-step="{per * 0.5}" data-width="{bars}"' in svg
    shown = [int(n) for n in re.findall(r"<title>(\d+) at", svg)]
    assert (len(shown), sum(shown), shown[0]) == (bars, 5000, per)
    assert f"at {per * 0.5:g} s" in svg


def test_as_many_counts_as_bars_stay_apart() -> None:
    svg = charts.over_time([1] * 2000, 0.25, [], 500.0, "c")
    assert 'data-step="0.25" data-width="2000"' in svg


def test_without_a_count_there_is_an_empty_row_and_lanes_go_by_seconds() -> None:
    svg = charts.over_time([], 0.5, [Lane("<a>", [3.0], "<3x>", 6)], 4.0, '"c"')
    empty, bar = "", '<path d="M0.75 100v-100h0.001V100z"></path>'
    assert svg == (
        '<figure class="zoom" tabindex="0" role="group" data-step="4.0" data-width="1" aria-label="&quot;c&quot;">'
        '<div class="lane"><span>all interrupts</span><svg class="sall" viewBox="0 0 1 100" preserveAspectRatio="none" '
        f'aria-hidden="true">{empty}</svg></div>'
        '<div class="lane"><span>&lt;a&gt; <small>&lt;3x&gt;</small></span><svg class="s6" viewBox="0 0 1 100" '
        f'preserveAspectRatio="none" aria-hidden="true">{bar}</svg></div>'
        "<figcaption>&quot;c&quot; <output></output></figcaption></figure>"
    )


def test_lanes_without_any_length_are_of_one_second() -> None:
    svg = charts.over_time([5], 0.0, [Lane("a", [0.5])], 0.0, "c")
    assert 'd="M0.5 100v-100' in svg


def test_lengths_of_a_cause_are_counted_class_by_class_and_those_not_known_last() -> None:
    spans = {"cause": ["a", "a", "b", "a", "a"], "length_us": [0.0, 50.0, 50.0, nan, nan]}
    assert charts.lengths(spans, "a") == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2]
    assert charts.lengths(spans, "b") == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert charts.lengths(spans, "c") == [0] * 11
