"""Pages of HTML: self-contained, figures of the JSON, words of the text, safe whatever a task is called."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pages.screenshots import browser

import tlbcore as tc
from tlbcore._output.html import charts, page, reports
from tlbcore._output.interleaving.held import states
from tlbcore.cli import main
from tlbcore.cli._common import document
from tlbcore.validation.row import Row, Validation

DATA = Path(__file__).parents[1] / "data"
BUNDLED = Path(tc.__file__).parent / "data" / "modules.trace.txt.xz"
CHROMIUM = browser()


class Read(HTMLParser):
    """What a page holds: its tables as rows of texts, its links, and that its elements are closed in order."""

    VOID = frozenset({"meta", "input", "link", "br", "img", "hr", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "action"):
                self.refers.append(value or "")
            assert not name.startswith("on"), f"{tag} {name}"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def explained() -> tuple[tc.Explanation, str]:
    e = tc.explain(tc.read_trace(BUNDLED))
    return e, reports.explain(e, document("explain", 1, **e.to_json()))


@pytest.fixture(scope="module")
def violated() -> tuple[tc.Verdict, str]:
    v = tc.check("coalesce-v7")
    return v, reports.check(v, document("check", 1, **v.to_dict()))


@pytest.fixture(scope="module")
def compared() -> tuple[tc.Comparison, str]:
    with pytest.warns(tc.InertPolicyWarning, match="no INVLPGB"):
        c = tc.compare(
            tc.scenarios.rteval(duration_s=120), machine="broadwell-ep-e5-2699v4", policies=["ipi", "invlpgb"]
        )
    return c, reports.compare(c, document("compare", 1, table=c.table))


@pytest.mark.parametrize("which", ["explained", "violated", "compared"])
def test_a_page_needs_nothing_but_itself(which: str, request: pytest.FixtureRequest):
    text = request.getfixturevalue(which)[1]
    read = Read(text)
    assert read.refers, "a page lists its sections"
    assert {link.removeprefix("#") for link in read.refers} <= set(read.ids)
    assert all(link.startswith("#") for link in read.refers)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert len(read.ids) == len(set(read.ids))
    assert len(text) < 2_000_000


def test_a_recording_s_page_has_the_figures_of_its_json_and_the_words_of_its_text(explained):
    e, text = explained
    read = Read(text)
    data = json.loads(read.scripts[-2])
    assert data == document("explain", 1, **e.to_json())
    shown = [row for row in read.rows if len(row) == 9 and row[0].isdigit()]
    assert len(shown) == len(e.table["cpu"])
    order = np.lexsort((-e.table["n"], -e.table["total_ms"], e.table["cpu"]))
    assert [row[1] for row in shown] == [tc.causes[cause].title for cause in e.table["cause"][order].tolist()]
    assert shown[0][1] == "scheduler tick kept", "238.6 ms of CPU 2"
    columns = (e.table[name][order] for name in ("cpu", "n", "per_hour"))
    for row, cpu, n, per_hour in zip(shown, *columns, strict=True):
        assert (row[0], row[3]) == (str(cpu), f"{n:,}")
        assert float(row[4].replace(",", "")) == pytest.approx(per_hour, rel=1e-3)
    words = " ".join(" ".join(read.texts).split())
    report = str(e)
    for line in report[report.index("In short") + 8 :].split("\n"):
        assert " ".join(line.split()) in words, line
    assert "What this trace cannot say" in words


def test_a_call_matrix_counts_each_call_once(explained):
    e, text = explained
    rows = [row for row in Read(text).rows if re.fullmatch(r"CPU \d+|unknown", row[0] if row else "")]
    counts = [int(cell.replace(",", "")) for row in rows for cell in row[1:]]
    assert sum(counts) == len(e.trace.calls["cpu"]) > 0
    for row in rows:
        sender = int(row[0].removeprefix("CPU "))
        for target, cell in zip((2, 3), row[1:], strict=True):
            here = (e.trace.calls["sender_cpu"] == sender) & (e.trace.calls["cpu"] == target)
            assert int(cell.replace(",", "")) == int(here.sum())


def test_a_timeline_has_every_interrupt(explained):
    e, text = explained
    report = e.trace.figures["report"]
    for cpu, svg in zip(report["isolated"], re.findall(r'<svg class="sall".*?</svg>', text), strict=True):
        counts = [int(n.replace(",", "")) for n in re.findall(r"<title>([\d,]+) at", svg)]
        assert sum(counts) == cpu["interrupts"]


def test_a_long_timeline_is_summed_up():
    svg = charts.over_time([1] * 100_000, 0.5, [], 50_000, "x")
    counts = [int(n.replace(",", "")) for n in re.findall(r"<title>([\d,]+) at", svg)]
    assert sum(counts) == 100_000
    assert len(counts) == 2000
    assert 'data-step="25.0"' in svg
    many = charts.over_time([1] * 100_000, 0.5, [], 50_000, "x", figures=64)
    assert many.count("<title>") == 93, "6,000 bars in all"


def test_a_lane_has_a_bar_where_something_happened():
    lane = charts.Lane(HOSTILE, [0.05, 0.06, 9.99], "3x")
    svg = charts.over_time([1] * 10, 1.0, [lane], 10.0, "x")
    (path,) = re.findall(r'<path d="([^"]*)"', svg)
    # Ten seconds in 1,000 buckets of 0.01: the buckets 5, 6 and 999, one event each.
    assert re.findall(r"M([\d.]+) 100v-100", path) == ["0.05", "0.06", "9.99"]
    assert "<script" not in svg


def test_lengths_are_counted_by_class_and_what_has_none_is_apart():
    spans = {
        "cause": ["a"] * 6 + ["b"],
        "length_us": [0.5, 1.0, 2.9, 3.0, 2e5, float("nan"), 1.0],
    }
    assert charts.length_classes()[:3] == ["under 1 us", "1 us to 3 us", "3 us to 10 us"]
    assert charts.lengths(spans, "a") == [1, 2, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert len(charts.length_classes()) + 1 == 11


def test_the_page_counts_each_interruption_by_its_length(explained):
    e, text = explained
    rows = {row[0]: row[1:] for row in Read(text).rows if len(row) == 12 and row[0] != "cause"}
    for cause in dict.fromkeys(map(str, e.table["cause"])):
        counts = [int(cell.replace(",", "")) for cell in rows[tc.causes[cause].title]]
        assert sum(counts) == e.table["n"][e.table["cause"] == cause].sum()


def test_a_chart_has_a_dot_per_point_and_leaves_out_what_is_missing():
    nan = float("nan")
    line = charts.Line(
        "a<b", [1.0, 2.0, 3.0], [10.0, nan, 30.0], [9.0, nan, 29.0], [11.0, nan, 31.0], hollow=True
    )
    svg = charts.lines([line], "x", "y", "c")
    at = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    # x from 1 to 3 goes from 80 to 690 pixels, y from 0 to 31 from 250 up to 20.
    assert [x for x, _ in at] == [80.0, 690.0]
    assert [y for _, y in at] == pytest.approx([250 - 230 * 10 / 31, 250 - 230 * 30 / 31], abs=0.1)
    assert svg.count('class="interval') == 2
    assert svg.count(" hollow") == 2
    assert "a&lt;b (inert)" in svg
    assert charts.lines([charts.Line("a", [1.0], [nan])], "x", "y", "c") == ""
    assert "1,000" in charts.lines([charts.Line("a", [10.0, 1000.0], [1.0, 1000.0])], "x", "y", "c")


def test_a_counterexample_s_page_has_its_moves_and_what_holds_after_each(violated):
    v, text = violated
    found = v.counterexample
    read = Read(text)
    moves = [row for row in read.rows if len(row) == 5 and row[0].isdigit()]
    assert [int(row[0]) for row in moves] == [step.number for step in found.steps]
    for row, step in zip(moves, found.steps, strict=True):
        assert row[1 + step.cpu] == step.what
        assert row[2 - step.cpu] == ""
        assert row[4] == (step.source or "")
    held: dict[str, str | None] = {}
    for changes in states(found.steps):
        held.update(changes)
    # Worked out by hand from the run in the README: cpu 1 says in its buffer that it is in the kernel, and its TLB
    # holds v1 while the page table has v3.
    assert held["cpu 1 store buffer"] == "kernel_cr3_loaded[1]=1"
    assert held["kernel_cr3_loaded[1]"] == "0"
    assert held["cpu 1 CR3"] == "kernel"
    assert held["cpu 1 TLB: va"] == "v1"
    assert held["pte va"] == "v3"
    assert held["cpu 0 store buffer"] == "empty"


def test_a_comparison_s_page_has_the_table_and_says_what_is_inert(compared):
    c, text = compared
    read = Read(text)
    assert "(inert: mainline runs)" in " ".join(read.texts)
    heads = next(row for row in read.rows if row and row[0] == "policy")
    rows = [row for row in read.rows if row and row[0] in ("ipi", "invlpgb") and len(row) == len(heads)]
    at = heads.index("ipis_per_hour")
    mine = [i for i, name in enumerate(c.table["cpu_class"]) if name == c.table["cpu_class"][0]]
    for row, i in zip(rows, mine, strict=False):
        assert float(row[at].replace(",", "")) == pytest.approx(c.table["ipis_per_hour"][i], rel=1e-3)


HOSTILE = "</script><script>alert(1)</script><!--\x1b[31m‮&\"'"


def test_what_a_task_is_called_stays_text(tmp_path: Path):
    shown = page.escape(HOSTILE)
    assert "<" not in shown
    assert "\\x1b" in shown
    assert "\\u202e" in shown
    whole = page.page(
        HOSTILE,
        [HOSTILE],
        [page.section(HOSTILE, page.table([HOSTILE], [[HOSTILE]], HOSTILE))],
        {"comm": HOSTILE},
    )
    read = Read(whole)
    assert read.scripts[-2].count("script") == 3
    assert json.loads(read.scripts[-2]) == {"comm": HOSTILE}
    assert len(read.scripts) == 2
    assert not any(ord(char) < 32 and char not in "\n\t" for char in whole)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1234567.0, "1,234,567"),
        (0.5, "0.5"),
        (12.3456, "12.35"),
        (1e-9, "1.000e-09"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_have_four_digits(value: float, shown: str):
    assert page.number(value) == shown


def test_what_was_not_recorded_is_an_empty_cell_that_says_so():
    text = page.table(["a"], [[None], [float("nan")], [0]], "x")
    assert text.count('data-value="" aria-label="not recorded"') == 2
    assert '<td class="number" data-value="0">0</td>' in text


@pytest.mark.parametrize(
    "words",
    [
        ["check", "coalesce-v7"],
        ["explain", str(BUNDLED)],
        ["explain", str(BUNDLED), str(BUNDLED)],
        ["replay", str(BUNDLED)],
        ["explain", str(DATA / "user.p73.us7.trace.txt.xz"), "--process", "wander"],
        ["compare", "--duration", "0.1", "--scenario", "trading"],
    ],
    ids=" ".join,
)
def test_commands_write_their_page(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "page.html"
    assert main([*words, "--html", str(file)]) in (0, 1)
    said = capsys.readouterr()
    assert f"{file}: written" in said.err
    assert said.out
    data = json.loads(Read(file.read_text()).scripts[-2])
    assert main([*words, "--json"]) in (0, 1)
    assert data == json.loads(capsys.readouterr().out)


def test_a_page_that_cannot_be_written_is_one_line(capsys):
    assert main(["check", "ipi", "--html", "/nowhere/page.html"]) == 2
    assert "/nowhere/page.html: no such file or directory" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("which", ["explained", "violated", "compared"])
def test_a_browser_runs_a_page_without_an_error(which: str, request: pytest.FixtureRequest, tmp_path: Path):
    file = tmp_path / "page.html"
    file.write_text(request.getfixturevalue(which)[1])
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--user-data-dir={tmp_path}", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    if which == "violated":
        assert "after move 45 of 45" in done.stdout
    if which == "explained":
        assert " s to " in done.stdout


@pytest.mark.parametrize(
    ("values", "zero", "logarithmic", "ends", "ticks"),
    [
        ([0, 10], False, False, (0, 10), [0, 2, 4, 6, 8, 10]),
        ([1, 2], False, False, (1, 2), [1, 1.2, 1.4, 1.6, 1.8, 2]),
        ([3, 4], True, False, (0, 4), [0, 1, 2, 3, 4]),
        ([-3, -1], True, False, (-3, 0), [-3, -2, -1, 0]),
        ([0.5, 1.7], False, False, (0.5, 1.7), [0.5, 0.75, 1, 1.25, 1.5]),
        ([2, 9], False, False, (2, 9), [2, 4, 6, 8]),
        ([5, 5], False, False, (4.5, 5.5), [4.6, 4.8, 5, 5.2, 5.4]),
        ([0, 0], False, False, (-0.1, 0.1), [-0.1, -0.05, 0, 0.05, 0.1]),
        ([1, 10], False, False, (1, 10), [2, 4, 6, 8, 10]),  # ten times as much is not more than that
        ([1, 10.1], False, True, (1, 10.1), [1, 10]),
        ([3, 40], True, True, (3, 40), [10]),
        ([1, 1e6], False, True, (1, 1e6), [1, 100, 1e4, 1e6]),
        ([1, 1e5], False, True, (1, 1e5), [1, 10, 100, 1e3, 1e4, 1e5]),
    ],
)
def test_an_axis_has_round_ticks_between_its_ends(values, zero, logarithmic, ends, ticks):
    scale = charts._scale(values, 80, 690, zero=zero)
    assert (scale.low, scale.high) == pytest.approx(ends)
    assert scale.ticks == pytest.approx(ticks)
    assert scale.logarithmic is logarithmic
    assert [scale.at(end) for end in ends] == pytest.approx([80, 690])
    middle = (ends[0] * ends[1]) ** 0.5 if logarithmic else sum(ends) / 2
    assert scale.at(middle) == pytest.approx(385)


def test_counts_over_time_are_as_high_as_they_are_many():
    lanes = [charts.Lane("a", [0.1, 1.4, 1.4, 1.4, 1.4], "5x", 8), charts.Lane("b", [], "", 0)]
    svg = charts.over_time([0, 2, 4], 0.5, lanes, 1.5, "CPU 2")
    assert re.findall(
        r'<rect x="(\d+)" y="([\d.]+)" width="0.9" height="([\d.]+)"><title>(.*?)</title>', svg
    ) == [
        ("1", "50.0", "50.0", "2 at 0.5 s"),
        ("2", "0.0", "100.0", "4 at 1 s"),
    ]
    assert 'data-step="0.5" data-width="3"' in svg
    first, second, third = re.findall(r'<svg class="s(\w+)" viewBox="0 0 3 100".*?>(.*?)</svg>', svg)
    assert (first[0], second[0], third[0]) == ("all", "1", "0"), "the eighth colour is the second again"
    # 1.5 s in 1,000 buckets of 0.003: the one is number 66, the four are in 933; one of four is half as high.
    assert second[1] == '<path d="M0.198 100v-50h0.003V100zM2.799 100v-100h0.003V100z"></path>'
    assert third[1] == '<path d=""></path>'
    assert "<span>a <small>5x</small></span>" in svg
    assert "<span>b</span>" in svg
    rare = charts.over_time([401], 1.0, [charts.Lane("a", [0.0] * 400 + [0.5])], 1.0, "x")
    assert "M0.5 100v-8h" in rare, "what is rare can be seen"
    none = charts.over_time([3], 0.0, [charts.Lane("a", [1.0])], 4.0, "x")
    assert "M0.25 100v-100h0.001" in none, "without a step the seconds are the length"


@pytest.mark.parametrize(
    ("lanes", "figures", "buckets"),
    [(1, 1, 1000), (30, 1, 1000), (31, 1, 967), (40, 1, 750), (8, 10, 375), (8, 200, 40)],
)
def test_many_lanes_share_the_buckets_of_a_page(lanes: int, figures: int, buckets: int):
    svg = charts.over_time([1], 1.0, [charts.Lane("a", [0.0])] * lanes, 1.0, "x", figures=figures)
    assert svg.count(f"h{1 / buckets:.3g}V") == lanes


def test_a_line_has_its_dash_its_place_in_the_legend_and_its_intervals():
    nan = float("nan")
    made = [charts.Line(f"p{i}", [3.0, 1.0], [20.0, 10.0 + i], [19.0, nan], [21.0, nan]) for i in range(8)]
    svg = charts.lines(made, "x", "y", "c")
    paths = re.findall(r'<path class="line s(\d)" stroke-dasharray="([\d ]*)" d="([^"]*)"', svg)
    assert [path[0] for path in paths[1::2]] == ["0", "1", "2", "3", "4", "5", "6", "0"]
    assert [path[1] for path in paths[1::2]] == ["", "6 3", "2 2", "8 3 2 3", "1 3", "10 4", "4 4", ""]
    assert [path[2] for path in paths[1::2]] == [f"M705 {30 + 20 * i}H735" for i in range(8)]
    assert [int(y) for y in re.findall(r'<text x="742" y="(\d+)">p', svg)] == [34 + 20 * i for i in range(8)]
    # From 0 to 21 up 230 pixels: 10 is at 250 - 109.5, 20 at 250 - 219.0; the points stand in order of x.
    assert paths[0][2] == "M80.0 140.5L690.0 31.0"
    bars = re.findall(r'class="interval s\d" d="([^"]*)"', svg)
    assert bars == ["M690.0 41.9V20.0"] * 8
    assert charts.lines([charts.Line("a", [1.0, 2.0], [0.0, 0.0])], "x", "y", "c") == "", "zero everywhere"


@pytest.mark.parametrize(
    ("us", "at"),
    [(0.99, 0), (1, 1), (2.99, 1), (3, 2), (10, 3), (30, 4), (100, 5), (300, 6), (999, 6), (1e3, 7), (1e4, 8),
     (99_999, 8), (1e5, 9), (1e9, 9)],
)  # fmt: skip
def test_a_length_is_in_the_class_that_it_begins(us: float, at: int):
    counts = charts.lengths({"cause": ["a"], "length_us": [us]}, "a")
    assert [i for i, count in enumerate(counts) if count] == [at]


def test_the_classes_of_lengths_are_named_by_their_bounds():
    assert charts.length_classes() == [
        "under 1 us", "1 us to 3 us", "3 us to 10 us", "10 us to 30 us", "30 us to 100 us", "100 us to 300 us",
        "300 us to 1 ms", "1 ms to 10 ms", "10 ms to 100 ms", "from 100 ms",
    ]  # fmt: skip


def test_bars_are_as_long_as_their_values_and_what_is_missing_is_said():
    nan = float("nan")
    names, hollow = ["a", "b", "c", "d", "e"], [False, True, False, False, False]
    svg = page.bars(names, [10.0, 4.0, None, nan, -1.0], "ns", "c", hollow=hollow)
    assert re.findall(r'<rect( class="inert")? x="280" y="(\d+)" width="([\d.]+)"', svg) == [
        ("", "3", "450.0"), (' class="inert"', "25", "180.0"), ("", "47", "0.0"), ("", "69", "0.0"), ("", "91", "0.0"),
    ]  # fmt: skip
    assert re.findall(r'<text x="([\d.]+)" y="(\d+)">([^<]*)</text>', svg)[1::2] == [
        ("736.0", "15", "10 ns"), ("466.0", "37", "4 ns (inert: mainline runs)"), ("286.0", "59", "no value"),
        ("286.0", "81", "no value"), ("286.0", "103", "-1 ns"),
    ]  # fmt: skip
    assert 'viewBox="0 0 960 110"' in svg
    assert 'width="0.0"' in page.bars(["a"], [None], "ns", "c", hollow=[False])


def test_a_matrix_is_darker_where_there_are_more():
    html = page.matrix("from", ["to 1", "to 2"], [("CPU 0", [1, 4000]), ("<b>", [0, 1000])], "c")
    assert re.findall(r'--share:([\d.]+)">([\d,]+)<', html) == [
        ("0.000", "1"), ("1.000", "4,000"), ("0.000", "0"), ("0.250", "1,000"),
    ]  # fmt: skip
    assert Read(html).rows == [["from", "to 1", "to 2"], ["CPU 0", "1", "4,000"], ["<b>", "0", "1,000"]]
    assert "--share:0.000" in page.matrix("a", ["b"], [("c", [0])], "d")


def test_rows_of_a_recording_are_by_cpu_and_most_time_first():
    nan = float("nan")
    rows = {
        "cpu": [3, 2, 2, 2, 2, 2],
        "total_ms": [9.0, 1.0, nan, 5.0, nan, nan],
        "n": [1, 1, 2, 1, 7, 7],
        "cause": ["a", "b", "c", "d", "f", "e"],
    }
    assert reports._by_time({name: np.array(values) for name, values in rows.items()}) == [3, 1, 5, 4, 2, 0]


def test_paragraphs_begin_at_an_indentation_of_two():
    lines = ["  a", "    b", "  c", "   d", "      e", "  f"]
    assert list(reports._paragraphs(lines)) == [["  a", "    b"], ["  c", "   d", "      e"], ["  f"]]
    assert list(reports._paragraphs([])) == []


def one(n, per_hour, low=None, high=None):
    return {"n": n, "per_hour": per_hour, "low": low, "high": high}


def test_what_differs_has_bars_of_the_most_frequent_and_a_row_for_each():
    causes = ["all", *list(tc.causes)[:9]]
    rows = [
        {
            "cause": cause, "traces": [one(i, float(i), 0.5, 2.0), one(2 * i, None if i == 9 else 2.0 * i)],
            "ratio": 2.0, "ratio_low": 1.5, "ratio_high": None if i else 3.0, "change": "more",
        }
        for i, cause in enumerate(causes)
    ]  # fmt: skip
    drawn, table = reports._compared(rows)
    titles = ["all", *(tc.causes[cause].title for cause in causes[1:])]
    names = re.findall(r'<text x="0" y="\d+">([^<]*)</text>', drawn)
    # By the greater rate of the two: 16, 14, 12, 10, 9 (the second of which is not known), 8, 6, 4.
    order = [8, 7, 6, 5, 9, 4, 3, 2]
    assert names == [f"{page.escape(titles[i])} [{k}]" for i in order for k in (1, 2)]
    shown = Read(table).rows
    assert shown[0] == [
        "what", "n [1]", "per hour [1]", "95 % [1]", "n [2]", "per hour [2]", "95 % [2]", "ratio",
        "95 % of it", "change",
    ]  # fmt: skip
    assert shown[1][:2] == ["all", "0"]
    assert shown[1][3] == "0.5 to 2"
    assert shown[1][7:] == ["2", "1.5 to 3", "more"]
    assert [row[0] for row in shown[1:]] == titles
    assert shown[4][4:6] == ["6", "6"]
    assert reports._compared([]) == []


def test_the_page_of_validation_counts_and_marks_what_is_outside():
    rows = tuple(
        Row(number=i, name=f"n{i}", unit="ns" if i else "", role="input", published=10.0, computed=computed,
            tolerance=0.1)
        for i, computed in enumerate((10.5, 12.0, None, 20.0))
    )  # fmt: skip
    text = reports.validate(Validation(rows=rows), {})
    assert "3 computed, 2 outside their tolerance." in text
    found = Read(text).rows
    assert [row[-1] for row in found[1:]] == ["within", "outside", "not computed", "outside"]
    assert [row[1] for row in found[1:]] == ["n0", "n1 (ns)", "n2 (ns)", "n3 (ns)"]
    assert found[1][5] == "1.05"
    assert text.count('<tr class="violated">') == 2
