"""`explain --short`, the legend, and the page of shootdowns."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore._output import width
from tlbcore._output.legend import WORDS, legend, used
from tlbcore.cli import main
from tlbcore.trace.report import words
from tlbcore.trace.report.compared import comparison_text
from tlbcore.trace.report.short import _line, short, short_of_shootdowns

DATA = Path(__file__).parents[1] / "data"
BUNDLED = Path(tc.__file__).parent / "data" / "modules.trace.txt.xz"
RECORDINGS = sorted(DATA.glob("*.trace.txt.xz"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_there_are_three_lines_of_100_columns(path: Path):
    found = tc.explain(tc.read_trace(path, isolated="1"))
    lines = short(found).split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_reports_fit_a_terminal(path: Path, columns: int):
    trace = tc.read_trace(path, isolated="1")
    with width.fitted(columns):
        texts = [
            str(tc.explain(trace)),
            str(tc.replay(trace)),
            str(tc.shootdowns(path)),
        ]
    # The first line is the file's name, which is never cut.
    lines = [line for text in texts for line in text.split("\n") if str(path) not in line]
    assert [line for line in lines if len(line) > columns] == []


def test_a_table_that_is_too_wide_stands_in_groups_behind_its_first_column():
    rows = [["policy", "a" * 20, "b" * 20, "c"], ["ipi", "1", "2", "word " * 3]]
    with width.fitted(40):
        assert words.columns(rows, "<>><") == [
            f"  policy  {'a' * 20}",
            f"  ipi     {'1':>20}",
            f"  policy  {'b' * 20}",
            f"  ipi     {'2':>20}",
            "  policy  c",
            "  ipi     word word word",
        ]
        both = words.columns(rows, "<>><", keys=2)
        assert both[2] == f"  policy  {'a' * 20}  c", "two columns say which row it is"
        rows[1][3] = "word " * 10
        below = words.columns(rows, "<>><")
        assert below[-2] == "        word word word word word word", "a sentence stands below its row"
    assert len(words.columns(rows, "<>><")) == 3, "they fit a hundred but for one word"


def test_the_command_line_says_how_wide_a_report_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(BUNDLED.parent)  # a path is not broken
    assert main(["explain", BUNDLED.name]) == 0
    assert max(map(len, capsys.readouterr().out.split("\n"))) <= 80
    assert width.columns() == 100, "and leaves it as it was"


def test_the_figures_are_those_of_the_report():
    found = tc.explain(tc.read_trace(BUNDLED))
    much, why, helps = short(found).split("\n")
    assert much.startswith(
        "CPUs 2-3, 60.7 s, 540 interrupts (16,022 per hour and CPU), 1.4 % of the time taken"
    )
    assert int(found.table["interrupts"].sum()) == 540
    # 540 interrupts of two CPUs in the time of both.
    assert round(540 * 3600 / (2 * found.trace.seconds)) == 16_022
    freed = found.table["cause"] == "exec_memory_free"
    assert why.startswith(
        f"by: {found.table['n'][freed].sum()}x module or BPF code freed (modloop 60%, kworker 40%)"
    )
    assert helps == f"next: {tc.causes['exec_memory_free'].helps}"


def test_what_is_not_recorded_is_said():
    blind = tc.explain(tc.read_trace(DATA / "user.p612.us1.trace.txt.xz", isolated="1"))
    known = blind.trace.figures["report"]["isolated"][0]["interrupts"]
    assert ("interrupts not recorded" in short(blind)) == (known is None)
    none = tc.explain(tc.read_trace(DATA / "user.p612.us1.trace.txt.xz"))
    assert short(none).split("\n")[0].endswith("which CPUs are isolated is not known")


def test_a_clause_that_does_not_fit_is_left_out_whole():
    assert _line(["a" * 60, "b" * 50, "c"]) == f"{'a' * 60}, c"
    assert _line(["x\n\x1b"]) == "x\\n\\x1b"


def test_every_advice_of_the_catalogue_fits_a_line():
    for cause in tc.causes.values():
        line = _line(cause.helps.split("; "), start="next: ", sep="; ")
        assert len(line) <= 100, cause.id


def test_shootdowns_in_three_lines():
    found = tc.shootdowns(DATA / "user.p73.us7.trace.txt.xz", process="wander")
    lines = short_of_shootdowns(found).split("\n")
    assert lines[0] == "wander (process 386), 7.28 s, 32 flushes, 4 asked other CPUs, 8 remote calls"
    assert int(found.call_sites["flushes"].sum()) == 32
    assert lines[1].startswith("wander loses 0.74 % of 4 CPUs to shootdowns")
    assert lines[2].startswith("not recorded: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--short", "--json"], "--short is a form of the report"),
        (["--legend", "--json"], "--legend explains the words of the whole report"),
        (["--legend", "--short"], "--legend explains"),
        (["--lines", "timer", "--json"], "--lines prints raw lines: leave --json out"),
        (
            ["--interrupts", "b", "a", "--short"],
            "--interrupts adds a table to the report: leave --lines and --short out",
        ),
        (
            ["--interrupts", "b", "a", "--lines", "timer"],
            "--interrupts adds a table to the report: leave --lines and",
        ),
        (
            ["--interrupts", "b", "a", "--between", "x", "y"],
            "the whole recording, --between parts of it: leave one out",
        ),
        (
            [str(BUNDLED), "--interrupts", "b", "a"],
            "--interrupts is about one recording: name one, or --merge its",
        ),
        (
            [str(BUNDLED), "--perfetto", "p"],
            "--perfetto shows one recording: name one, or --merge its pieces",
        ),
        (
            ["--all-cpus", "--short", "--batch", "4"],
            "--short predicts nothing: leave --machine and --batch out",
        ),
        (
            ["--process", "modloop", "--short", "--machine", "zen4"],
            "--short predicts nothing: leave --machine and",
        ),
        (["--all-cpus", "--isolated", ""], "--isolated: of isolated CPUs, not of shootdowns of user ranges"),
        (
            ["--all-cpus", "--interrupts", "b", "a", "--fail-if", "timer > 0"],
            "--fail-if, --interrupts: of isolated CPUs",
        ),
    ],
)
def test_forms_that_exclude_each_other_are_refused(words, message, capsys):
    """Before anything is read or printed: the copies of /proc/interrupts are no files."""
    assert main(["explain", str(BUNDLED), *words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--json"], "--json"),
        (["--html", "p"], "--html"),
        (["--perfetto", "p"], "--perfetto"),
        (["--fail-if", "timer > 0"], "--fail-if"),
        (["--short"], "--short"),
        (["--legend"], "--legend"),
        (["--merge"], "--merge"),
        (["--lines", "timer", "--json"], "--lines prints raw lines"),
        (["--between", "x", "y", "--html", "p"], "--between and --html"),
    ],
)
def test_two_copies_of_proc_interrupts_are_counts_alone(words, named, tmp_path, capsys):
    for name, count in (("before", 5), ("after", 9)):
        (tmp_path / name).write_text(f"     CPU0  CPU1\n CAL: 0 {count}   Function call interrupts\n")
    pair = ["explain", "--isolated", "1", "--interrupts", str(tmp_path / "before"), str(tmp_path / "after")]

    assert main([*pair, *words]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert "--lines" in named or said.startswith(
        "tlbcore: error: two copies of /proc/interrupts are counts alone: leave "
    )
    assert main(pair) == 0
    assert "CPU 1: 4 interrupts." in capsys.readouterr().out


def test_of_two_recordings_each_has_its_name(capsys):
    assert main(["explain", str(BUNDLED), str(BUNDLED), "--short"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[4]] == [f"{BUNDLED}:"] * 2
    assert len(lines) == 8


def test_conditions_hold_for_short_reports_too(capsys):
    assert main(["explain", str(BUNDLED), "--short", "--fail-if", "per_hour > 10"]) == 1
    assert len(capsys.readouterr().out.splitlines()) >= 3


def test_the_legend_has_the_words_of_the_report_and_no_others(capsys):
    assert [word for word, _ in used("A purge (predicted) took p95; repurged, unpredicted.")] == [
        "purge|purges",
        "predicted",
        "p50|p95|p99|p999",
    ]
    assert main(["explain", str(BUNDLED), "--legend"]) == 0
    report, words = capsys.readouterr().out.split("\nWords (")
    assert "  purge " in words
    assert "stale_access" not in words
    for word, _ in WORDS:
        if word.split("|")[0] in words.split("\n", 1)[1]:
            assert any(form in report for form in word.split("|")) or word.split("|")[0] in legend(
                used(report)
            )


def test_every_rule_of_the_checker_has_its_word():
    known = {form for word, _ in WORDS for form in word.split("|")}
    rules = (Path(__file__).parents[2] / "docs" / "semantics.md").read_text()
    named = {
        rule
        for heads in re.findall(r"^- \*\*S\d+ ((?:`\w+`(?:, )?)+)", rules, re.M)
        for rule in re.findall(r"`(\w+)`", heads)
    }
    assert {"stale_access", "freed_table_walk", "stale_text", "unmapped_access"} <= named
    assert named <= known
    assert len({word for word, _ in WORDS}) == len(WORDS)


def test_words_are_looked_up(capsys):
    assert main(["words", "PURGES"]) == 0
    assert capsys.readouterr().out.startswith("  purge ")
    assert main(["words", "purg"]) == 2
    assert "did you mean 'purge'" in capsys.readouterr().err
    assert main(["words", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["words"]) == len(WORDS)


class _Rows(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


def test_the_page_of_shootdowns_has_every_call_site(tmp_path):
    file = tmp_path / "page.html"
    path = DATA / "user.p73.us7.trace.txt.xz"
    assert main(["explain", str(path), "--process", "wander", "--html", str(file)]) == 0
    found = tc.shootdowns(path, process="wander")
    rows = _Rows(file.read_text()).rows
    heads = next(row for row in rows if row[:2] == ["call", "size"])
    at = heads.index("flushes")
    sites = [row for row in rows if len(row) == len(heads) and row != heads]
    assert [int(row[at]) for row in sites] == found.call_sites["flushes"].tolist()
    assert [row[0] for row in sites] == found.call_sites["call"].tolist()
    assert ["CPU 0", "4", "4"] in rows, "the matrix of who asked whom"
    assert "What this recording cannot say" in file.read_text()


@pytest.mark.parametrize(
    ("format_", "given", "said"),
    [
        ("duration", (999.4,), "999 us"),
        ("duration", (999.6,), "1 ms"),  # three digits of it are a thousand
        ("duration", (0.9996,), "1 us"),
        ("duration", (0.0004,), "0.4 ns"),
        ("duration", (1e6,), "1 s"),
        ("duration", (5e9,), "5,000 s"),
        ("duration", (99.5,), "99.5 us"),
        ("duration", (99.96,), "100 us"),
        ("seconds", (1.0000001, 1.0000002), "1 s"),
        ("seconds", (0.0, 1.5), "0 s to 1.5 s"),
        ("n", (99.96,), "100"),
        ("n", (100.4,), "100"),
        ("n", (-1234.0,), "-1,234"),
        ("n", (float("nan"),), "-"),
        ("span", (2, 2.5), "2 to 2.5"),
        ("percent", (0.1,), "10 %"),
        ("percent", (0.0999,), "10 %"),
        ("percent", (0.0994,), "9.9 %"),
        ("percent", (0.01,), "1 %"),
        ("percent", (1.5e-6,), "0.00015 %"),
        ("percent", (9.9e-7,), "less than 0.0001 %"),
        ("listed", ((),), ""),
        ("listed", (("a", "b"),), "a and b"),
        ("listed", (("a", "b", "c", "d"),), "a, b, c and d"),
        ("times", (0, "flush", "flushes"), "0 flushes"),
        ("times", (1, "flush", "flushes"), "1 flush"),
        ("times", (2, "flush", "flushes"), "2 flushes"),
        ("shares", ([("a", 3), ("b", 1)], 4), "a 75%, b 25%"),
        ("shares", ([("b", 2), ("a", 2), ("c", 4)], 8), "c 50%, a 25%, b 25%"),
        ("shares", ([("a", 4)], 4), "a"),
        ("shares", ([("a", 995), ("b", 5)], 1000), "a 100%"),  # half a percent is left out
        ("shares", ([("a", 994), ("b", 6)], 1000), "a 99%, b 1%"),
        ("shares", ([("a", 4), ("b", 3), ("c", 2), ("d", 1)], 10), "a 40%, b 30%, c 20%"),
        ("shares", ([("a", 4), ("b", 3), ("c", 2), ("d", 1)], 10, 1), "a 40%"),
        ("shares", ([("a", 0)], 4), ""),
    ],
)
def test_figures_are_written_for_people(format_: str, given: tuple, said: str):
    assert getattr(words, format_)(*given) == said


def test_columns_share_a_line_as_long_as_they_fit_exactly():
    """Two keys of 3 and 4, then 10 and 10: 2 + 3 + 2 + 4 + 2 + 10 + 2 + 10 + 2 + 5 columns are 42."""
    rows = [["key", "more", "a" * 10, "b" * 10, "c" * 5]]
    with width.fitted(42):
        assert words.columns(rows, "<<<<<", keys=2) == [f"  key  more  {'a' * 10}  {'b' * 10}  ccccc"]
    with width.fitted(41):
        assert words.columns(rows, "<<<<<", keys=2) == [
            f"  key  more  {'a' * 10}  {'b' * 10}",
            "  key  more  ccccc",
        ]


def test_a_last_column_wraps_under_itself_while_it_has_24_columns():
    with width.fitted(40):
        for key, room in (("k", 35), ("k" * 12, 24)):
            whole = (room + 1) // 5  # words of four letters
            rows = [[key, "word " * (whole + 2)]]
            assert words.columns(rows, "<<") == [
                f"  {key}  {' '.join(['word'] * whole)}",
                " " * (40 - room) + "word word",
            ]
        assert words.columns([["k" * 13, "word " * 7]], "<<") == [
            "  " + "k" * 13,
            "        " + " ".join(["word"] * 6),
            "        word",
        ]


def test_one_recording_is_explained_and_two_are_compared_behind_their_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    found = [
        tc.explain(tc.read_trace(path, isolated="2-3")) for path in (BUNDLED, DATA / "p4.w6.trace.txt.xz")
    ]
    paths = [found[0].trace.path, found[1].trace.path]
    assert main(["explain", *paths, "--isolated", "2-3"]) == 0
    both = capsys.readouterr().out
    assert both.startswith(f"{found[0]}\n\n{found[1]}\n")
    assert both.rstrip("\n").endswith("\n\n" + comparison_text(found))
    assert main(["explain", paths[1], "--isolated", "2-3", "--html", str(tmp_path / "one.html")]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith(f"{found[1]}\n")
    assert comparison_text(found[1:] * 2).split("\n")[0] not in alone
    assert main(["explain", paths[1], "--isolated", "2-3", "--short"]) == 0
    assert capsys.readouterr().out == f"{short(found[1])}\n", "no name where there is one"


def test_what_short_reports_leave_out_is_on_the_page(tmp_path, capsys):
    page = tmp_path / "page"
    words = ["explain", str(BUNDLED), "--all-cpus", "--short", "--machine", "skylake-sp", "--html", str(page)]
    assert main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert "skylake-sp" in page.read_text()
