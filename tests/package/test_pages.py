"""Every page: what strangers' names do in it, how big it gets, and what a browser does with it."""

from __future__ import annotations

import html
import json
import lzma
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pages import screenshots
from pages.screenshots import browser
from tests.package.test_html import Read

import tlbcore as tc
from tlbcore._output.html import charts, page
from tlbcore._output.legend import WORDS
from tlbcore.cli import main

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
RECORDING = DATA / "p4.w7.trace.txt.xz"
SHOOTDOWNS = DATA / "user.p73.us7.trace.txt.xz"
CENSUS = DATA / "linux-6.1.192.census.json.xz"
NEWER = DATA / "linux-6.12.117.census.json.xz"
CHROMIUM = browser()
BAD = "<script>\x01\u202e"  # ten characters of a task's fifteen

GRID = """
scenario = "syscall-heavy"
policies = ["ipi", "coalesce-v7", "invlpgb"]
replications = 2
[fixed]
duration_s = 0.01
[grid]
spawn_hz = [10, 1000]
gap_ns = [0.0, 500.0]
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording in which tasks are called as a page's author would rather not have it."""
    folder = tmp_path_factory.mktemp("hostile")
    with lzma.open(RECORDING, "rt") as stream:
        (folder / "isolated.txt").write_text(stream.read().replace("modloop", BAD))
    with lzma.open(SHOOTDOWNS, "rt") as stream:
        (folder / "user.txt").write_text(stream.read().replace("wander", BAD))
    (folder / "grid.toml").write_text(GRID)
    text = tc.policies["coalesce-v7"].text
    (folder / "bad<b>.policy").write_text(re.sub(r"^policy \S+", "policy bad", text, count=1, flags=re.M))
    return folder


def words(kind: str, hostile: Path) -> list[str]:
    """The command line of each page."""
    return {
        "explain": ["explain", str(hostile / "isolated.txt")],
        "pair": ["explain", str(hostile / "isolated.txt"), str(hostile / "isolated.txt")],
        "process": ["explain", str(hostile / "user.txt"), "--all-cpus"],
        "replay": ["replay", str(hostile / "isolated.txt")],
        "check": ["check", "coalesce-v7"],
        "file": ["check", str(hostile / "bad<b>.policy")],
        "compare": [
            "compare",
            "--scenario",
            "syscall-heavy",
            "--duration",
            "0.05",
            "--policy",
            "ipi",
            "--policy",
            "invlpgb",
        ],
        "sweep": ["sweep", str(hostile / "grid.toml"), "--out", str(hostile / "out")],
        "validate": ["validate"],
        "census": ["census", str(CENSUS)],
        "difference": ["census", str(NEWER), "--since", str(CENSUS)],
    }[kind]


KINDS = (
    "explain", "pair", "process", "replay", "check", "file", "compare", "sweep", "validate", "census", "difference",
)  # fmt: skip
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "nav",
        "section",
        "script",
    ),
    *(
        "h1",
        "h2",
        "p",
        "ul",
        "li",
        "a",
        "pre",
        "code",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "div",
    ),
    *(
        "button",
        "figure",
        "figcaption",
        "output",
        "svg",
        "rect",
        "path",
        "line",
        "text",
        "circle",
        "defs",
        "marker",
    ),
    *("dl", "dt", "dd", "desc", "span", "small", "label", "input", "details", "summary", "wbr"),
}


@pytest.fixture(scope="module")
def pages(hostile: Path) -> dict[str, str]:
    """The text of each page."""
    made = {}
    for kind in KINDS:
        file = hostile / f"{kind}.html"
        assert main([*words(kind, hostile), "--html", str(file)]) in (0, 1)
        made[kind] = file.read_text()
    return made


class Tags(Read):
    """Also which elements there are."""

    def __init__(self, text: str) -> None:
        self.tags: list[str] = []
        super().__init__(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        super().handle_starttag(tag, attrs)


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_becomes_an_element(kind: str, pages):
    text = pages[kind]
    read = Tags(text)
    assert set(read.tags) <= TAGS
    runs = read.tags.count("script") - 2
    assert runs == (1 if kind in ("check", "file") else 0), "what a page shows has no script of its own"
    assert not any(ord(char) < 32 and char not in "\n\t" for char in text)
    assert "\u202e" not in text
    if kind in ("explain", "pair", "process"):
        assert "&lt;script&gt;\\x01\\u202e" in text, "the name is there, as text"
    assert not re.search(r"https?://|@import|url\((?!#)", text), "nothing is fetched"
    assert len(read.ids) == len(set(read.ids))
    assert {link.removeprefix("#") for link in read.refers} <= set(read.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_below_two_megabytes_and_holds_its_document(kind: str, pages):
    text = pages[kind]
    assert len(text.encode()) < 2_000_000
    data = json.loads(Read(text).scripts[-2])
    assert data["schema"].startswith("tlbcore.")


@pytest.mark.parametrize("kind", ["process", "sweep", "census", "difference"])
def test_the_document_in_the_page_is_what_json_prints(kind: str, pages, hostile, capsys):
    capsys.readouterr()
    assert main([*words(kind, hostile), "--json"]) in (0, 1)
    assert json.loads(Read(pages[kind]).scripts[-2]) == json.loads(capsys.readouterr().out)


def test_a_sweep_s_page_has_the_means_and_every_point(pages, hostile):
    read = Read(pages["sweep"])
    result = tc.read_sweep(hostile / "out")
    heads = next(row for row in read.rows if row[:3] == ["spawn_hz", "gap_ns", "policy"])
    points = [
        row for row in read.rows if len(row) == len(heads) and row[2] in ("ipi", "coalesce-v7", "invlpgb")
    ]
    assert len(points) == len(result) == 24
    at = heads.index("syscall_mean_ns (ns)")
    shown = sorted(float(row[at].replace(",", "")) for row in points)
    assert shown == pytest.approx(sorted(result.table["syscall_mean_ns"].tolist()), rel=1e-3)
    means = next(row for row in read.rows if row[0] == "ipi" and len(row) > 4)
    mine = result.table["policy"] == "ipi"
    head = next(row for row in read.rows if row[0] == "policy" and "syscall_mean_ns (ns)" in row)
    mean = float(means[head.index("syscall_mean_ns (ns)")].replace(",", ""))
    assert mean == pytest.approx(result.table["syscall_mean_ns"][mine].mean(), rel=1e-3)
    assert "invlpgb (inert)" in " ".join(read.texts)


def test_a_census_page_has_every_entry_and_zone(pages):
    with lzma.open(CENSUS) as stream:
        census = json.load(stream)
    read = Read(pages["census"])
    head = next(row for row in read.rows if row[:2] == ["entry", "zone"])
    rows = [row for row in read.rows if len(row) == len(head) and row != head]
    assert len(rows) == sum(len(entry["zones"]) for entry in census["entries"])
    first = next(row for row in rows if row[:2] == ["entry_SYSCALL_64", "danger zone"])
    # By hand from the census: 1 of the direct map, 5 per CPU, 28 of the stack.
    assert [first[head.index(region)] for region in ("direct map", "per-CPU", "task stack")] == [
        "1",
        "5",
        "28",
    ]
    assert "mov cr3, kernel flush" in first[-1]


def test_a_difference_s_page_has_what_was_added(pages):
    read = Read(pages["difference"])
    data = json.loads(read.scripts[-2])
    rows = [row for row in read.rows if len(row) == 7 and row[1] in ("yes", "no")]
    assert len(rows) == len(data["added"]) + len(data["dropped"])
    assert sum(row[1] == "yes" for row in rows) == sum(
        r["danger"] for n in ("added", "dropped") for r in data[n]
    )


@pytest.mark.parametrize("kind", ["explain", "process", "replay"])
def test_names_in_a_timeline_are_text(kind: str, hostile, tmp_path):
    file = tmp_path / "t.json"
    assert main([*words(kind, hostile), "--perfetto", str(file)]) == 0
    text = file.read_text()
    assert not any(ord(char) < 32 and char != "\n" for char in text)
    assert "\u202e" not in text
    assert "\\u202e" not in text.replace("\\\\u202e", ""), "nor written as JSON writes it"
    names = {event["name"] for event in json.loads(text)["traceEvents"]} | {
        event["args"]["name"]
        for event in json.loads(text)["traceEvents"]
        if event["ph"] == "M" and "name" in event["args"]
    }
    if kind == "process":
        assert any("<script>\\x01\\u202e" in name for name in names)


def test_entry_and_html_are_refused(capsys, tmp_path):
    assert main(["census", str(CENSUS), "--entry", "entry_SYSCALL_64", "--html", str(tmp_path / "x")]) == 2
    assert "--html has every entry" in capsys.readouterr().err


def test_many_cpus_share_the_room_of_a_page():
    lanes = [charts.Lane("a cause", [i / 1000 for i in range(100_000)], colour=i) for i in range(8)]
    one = charts.over_time([1] * 2000, 0.05, lanes, 100.0, "x", figures=64)
    assert 64 * len(one) < 1_500_000


def test_a_million_events_are_a_page_and_a_timeline(tmp_path):
    """Issue 21: below 2 MB. The events of a recording of a minute, 105 times behind each other."""
    with lzma.open(RECORDING, "rt") as stream:
        lines = stream.read().splitlines()
    shape = re.compile(r"^(.*?\[\d+\].*?\s)(\d+\.\d+)(:.*)$")
    head = [line for line in lines if line.startswith("#")]
    parts = [(m[1], float(m[2]), m[3]) for line in lines if (m := shape.match(line))]
    assert len(parts) == 9556
    file = tmp_path / "big.txt"
    with file.open("w") as out:
        out.write("\n".join(head) + "\n")
        for k in range(105):
            out.write("\n".join(f"{a}{t + 61 * k:.6f}{b}" for a, t, b in parts) + "\n")
    report, timeline = tmp_path / "big.html", tmp_path / "big.pftrace"
    assert main(["explain", str(file), "--html", str(report), "--perfetto", str(timeline)]) == 0
    assert report.stat().st_size < 2_000_000
    assert timeline.stat().st_size < 20_000_000
    data = json.loads(Read(report.read_text()).scripts[-2])
    assert data["trace"]["events"] == 105 * 9556 > 1_000_000
    assert sum(cpu["interrupts"] for cpu in data["isolated"]) == 105 * 540


# In a browser. A script at the end of the page presses keys and writes down what it sees.

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


def browse(file: Path, script: str, tmp_path: Path, *options: str) -> dict[str, Any]:
    """Open a page with a script at its end, which must set `seen`; return that, and fail on an error in the console."""
    probed = tmp_path / "probed.html"
    end = (
        f"<pre id=probe></pre><script>{{ const seen = {{}}; {script}; "
        "document.getElementById('probe').textContent = JSON.stringify(seen); }</script></body>"
    )
    probed.write_text(file.read_text().replace("</body>", end))
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--user-data-dir={tmp_path / 'profile'}", *options, "--dump-dom", probed.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert found, "the script has run"
    return dict(json.loads(html.unescape(found[1])))


PRESS = (
    "const press = (at, key) => "
    "at.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));"
)


@needs_browser
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_runs_without_error_and_fits_a_telephone(kind: str, pages, hostile, tmp_path):
    seen = browse(
        hostile / f"{kind}.html",
        "const usable = document.querySelectorAll('button, a, input, summary, [tabindex]');"
        "seen.focus = [...usable].every(e => e.tabIndex >= 0);"
        "seen.scrolled = [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
        ".every(e => e.tabIndex === 0 || e.closest('.run'));"
        "seen.named = [...document.querySelectorAll('[role=img], [role=group], nav')]"
        ".every(e => e.getAttribute('aria-label'));"
        "const frame = document.createElement('iframe'); frame.style.cssText = 'width:375px;height:700px;border:0';"
        "document.body.append(frame); const inner = document.documentElement.cloneNode(true);"
        "inner.querySelectorAll('script, iframe').forEach(e => e.remove());"
        "frame.contentDocument.write('<!DOCTYPE html>' + inner.outerHTML); frame.contentDocument.close();"
        "seen.narrow = frame.contentDocument.documentElement.scrollWidth;"
        "frame.style.width = '1440px'; seen.wide = frame.contentDocument.documentElement.scrollWidth;",
        tmp_path,
        "--window-size=1500,1000",
    )
    assert seen["focus"]
    assert seen["scrolled"], "keys reach whatever scrolls"
    assert seen["named"], "what is a picture or a group has a name for a screen reader"
    assert seen["narrow"] <= 375, "wide tables scroll within themselves"
    assert seen["wide"] <= 1440


@needs_browser
def test_paper_has_every_column_and_nothing_folded(pages, tmp_path):
    """Prints show no scroll bars: what is wider than the sheet is lost. All pages stand in frames of A4's width."""
    printed = {kind: text.replace("@media print", "@media all") for kind, text in pages.items()}
    assert all(printed[kind] != text for kind, text in pages.items())
    host = tmp_path / "host.html"
    inside = json.dumps(printed).replace("<", "\\u003c")
    host.write_text(f"<!DOCTYPE html><body><script id=all type='application/json'>{inside}</script></body>")
    seen = browse(
        host,
        "for (const [kind, text] of Object.entries(JSON.parse(document.getElementById('all').textContent))) {"
        "const frame = document.createElement('iframe'); frame.style.cssText = 'width:717px;height:900px;border:0';"
        "document.body.append(frame); const view = frame.contentWindow, inner = frame.contentDocument;"
        "inner.open(); inner.write(text); inner.close(); view.dispatchEvent(new Event('beforeprint'));"
        "const lost = [...inner.querySelectorAll('td, th, pre, svg')].filter(e => e.clientWidth)"
        ".filter(e => e.getBoundingClientRect().right > 718).map(e => e.outerHTML.slice(0, 60));"
        "seen[kind] = {wide: inner.documentElement.scrollWidth, lost: lost.slice(0, 3),"
        "open: [...inner.querySelectorAll('details')].every(d => d.open),"
        "ink: view.getComputedStyle(inner.body).color, ground: view.getComputedStyle(inner.body).backgroundColor,"
        "scheme: view.getComputedStyle(inner.documentElement).colorScheme}; frame.remove(); }",
        tmp_path,
        "--blink-settings=preferredColorScheme=0",
    )
    assert set(seen) == set(KINDS)
    for kind, one in seen.items():
        assert one == {
            "wide": one["wide"],
            "lost": [],
            "open": True,
            "scheme": "light",
            "ink": "rgb(0, 0, 0)",
            "ground": "rgb(255, 255, 255)",
        }, kind
        assert one["wide"] <= 717, kind


@needs_browser
def test_a_counterexample_is_stepped_through_by_keys(pages, hostile, tmp_path):
    verdict = tc.check("coalesce-v7")
    assert verdict.counterexample is not None
    shown = [step.number for step in verdict.counterexample.steps if step.shown]
    seen = browse(
        hostile / "check.html",
        PRESS + "const run = document.querySelector('.run'), out = run.querySelector('output');"
        "const at = () => Number(out.textContent.match(/move (\\d+)/)[1]);"
        "seen.last = at(); press(run, 'Home'); seen.first = at(); press(run, 'ArrowRight'); seen.second = at();"
        "press(run, 'ArrowLeft'); seen.back = at(); press(run, 'End'); seen.end = at();"
        "seen.held = [...run.querySelectorAll('.state div')].map(d => d.innerText ?? d.textContent);"
        "run.querySelector('button[name=back]').click(); seen.button = at();"
        "const all = run.querySelector('input'); all.checked = true; all.dispatchEvent(new Event('change'));"
        "press(run, 'Home'); seen.all = at();",
        tmp_path,
    )
    assert [seen[name] for name in ("last", "first", "second", "back", "end", "button", "all")] == [
        *(shown[-1], shown[0], shown[1], shown[0], shown[-1], shown[-2], 1),
    ]
    held = [" ".join(text.split()) for text in seen["held"]]
    for text in ("cpu 1 TLB: va v1", "pte va v3"):
        assert any(text in one or text.replace("va v", "vav") in one for one in held), held


@needs_browser
def test_tables_sort_and_timelines_zoom_by_keys(pages, hostile, tmp_path):
    seen = browse(
        hostile / "explain.html",
        PRESS
        + "const table = document.querySelector('table.sortable'), heads = [...table.querySelectorAll('th')];"
        "const n = heads.findIndex(h => h.textContent.trim() === 'n');"
        "const column = () => [...table.tBodies[0].rows].map(r => Number(r.cells[n].dataset.value));"
        "heads[n].querySelector('button').click(); seen.down = column();"
        "seen.sort = heads[n].getAttribute('aria-sort');"
        "heads[n].querySelector('button').click(); seen.up = column();"
        "const figure = document.querySelector('figure.zoom'), box = () => [...figure.querySelectorAll('svg')]"
        ".map(s => s.getAttribute('viewBox'));"
        "seen.whole = box(); press(figure, '+'); seen.zoomed = box(); press(figure, 'ArrowRight'); seen.moved = box();"
        "press(figure, '0'); seen.again = box();",
        tmp_path,
    )
    assert seen["down"] == sorted(seen["down"], reverse=True)
    assert seen["up"] == sorted(seen["up"])
    assert seen["sort"] == "descending"
    assert len(set(seen["zoomed"])) == 1, "all lanes go along"
    assert seen["zoomed"] != seen["whole"]
    assert seen["moved"] != seen["zoomed"]
    assert seen["again"] == seen["whole"]


def size(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG file."""
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


needs_tree = pytest.mark.skipif(
    not (ROOT / "python").exists(), reason="the source tree is not here: pictures are of its recordings"
)


@needs_browser
@needs_tree
def test_the_pictures_of_readme_are_taken_by_a_command(tmp_path):
    taken = screenshots.readme(str(CHROMIUM), tmp_path)
    readme = (ROOT / "README.md").read_text()
    for picture in taken:
        assert f"docs/images/{picture.name}" in readme
        kept = ROOT / "docs" / "images" / picture.name
        assert size(picture) == size(kept) == (1100, 1000)
        assert picture.stat().st_size > 50_000, "a page, and no empty window"


@needs_browser
@needs_tree
def test_pages_are_taken_at_both_widths_in_both_themes(tmp_path):
    taken = screenshots.every(str(CHROMIUM), tmp_path, ["check"])
    assert sorted(path.name for path in taken) == [
        *("check-1440-dark.png", "check-1440-light.png", "check-375-dark.png", "check-375-light.png"),
    ]
    assert {size(path) for path in taken} == {(1440, 1600), (500, 1600)}
    assert len({path.read_bytes() for path in taken}) == 4
    for command in screenshots.EVERY.values():
        for word in command:
            assert not word.endswith(".xz") or (ROOT / word).exists(), word


@needs_browser
def test_a_page_follows_light_and_dark(pages, hostile, tmp_path):
    ask = "seen.ground = getComputedStyle(document.body).backgroundColor;"
    dark = browse(hostile / "check.html", ask, tmp_path, "--blink-settings=preferredColorScheme=0")
    light = browse(hostile / "check.html", ask, tmp_path, "--blink-settings=preferredColorScheme=1")
    assert light["ground"] == "rgb(255, 255, 255)"
    assert dark["ground"] == "rgb(20, 23, 28)"


def test_two_recordings_are_compared_cause_by_cause(pages):
    read = Read(pages["pair"])
    data = json.loads(read.scripts[-2])
    head = next(row for row in read.rows if row[:2] == ["what", "n [1]"])
    rows = [row for row in read.rows if len(row) == len(head) and row != head]
    assert [row[1] for row in rows] == [f"{one['traces'][0]['n']:,}" for one in data["comparison"]]
    assert rows[0][0] == "all"
    assert rows[0][1] == rows[0][4] == "540", "the same recording twice"
    assert {row[-1] for row in rows} == {"unclear"}


def test_a_replay_s_page_has_every_figure(pages):
    read = Read(pages["replay"])
    table = tc.replay(tc.read_trace(RECORDING)).table
    head = next(row for row in read.rows if row[:2] == ["policy", "cpu"])
    rows = [row for row in read.rows if len(row) == len(head) and row != head]
    assert [row[0] for row in rows] == table["policy"].tolist()
    assert [int(row[head.index("interrupts low")]) for row in rows] == table["interrupts_low"].tolist()


def test_a_page_says_what_its_words_mean_and_no_others(pages):
    text = pages["check"].split('<details class="words">')[1]
    words = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert ("stale_access", html.escape(dict(WORDS)["stale_access"])) in words
    assert "purge" not in dict(words) or "purge" in pages["check"].split('<details class="words">')[0]
    assert "SMI" not in dict(words)
    assert "shootdown" in dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", pages["process"]))


def test_lines_of_a_table_stay_whole_and_sentences_may_be_broken():
    text = page.preformatted(["  a  b", "  a sentence of words", "  more", "  1  2"])
    assert re.findall(r"<pre( class=prose)?>", text) == ["", " class=prose", ""]
    assert "sentence of words\n  more" in text
    deep = page.preformatted(["  a  b", "            goes on below"])
    assert deep.count("<pre") == 1
