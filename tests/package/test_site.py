"""The site of the documentation: it builds without a warning, fetches nothing, and its search works on files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import site as pages_site
from pages.screenshots import browser

pytest.importorskip("material", reason="the group `site`")
pytest.importorskip("mkdocstrings", reason="the group `site`")

ROOT = Path(__file__).parents[2]
CHROMIUM = browser()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "python").exists():
        pytest.skip("the source tree is not here: docstrings are read from it")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "python", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_fetches_nothing(site: Path):
    pages = {path.name for path in site.glob("*.html")} - {"404.html"}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"} <= {
        name.removesuffix(".html") for name in pages
    }
    for name in pages:
        text = (site / name).read_text()
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="?(https?:[^" >]*)', text)
        assert [url for url in fetched if "github.com/tlbcore" not in url] == [], name


def test_reference_has_the_docstrings(site: Path):
    text = (site / "reference.html").read_text()
    for name in ("simulate", "check", "Comparison", "read_trace"):
        assert re.search(rf'id="tlbcore\.[\w.]*\.?{name}"', text), name
    for name in ("plot.comparison", "plot.growth", "scenarios.rteval", "analysis.bisect", "op.invlpg"):
        assert f'id="tlbcore.{name}"' in text, name


def test_names_of_modules_are_those_that_they_have():
    import tlbcore

    for module in tlbcore._MODULES:
        found = getattr(tlbcore, module)
        listed = getattr(found, "__all__", None)
        names = set(pages_site._names(module))
        assert names
        for name in names:
            assert callable(getattr(found, name)), f"{module}.{name}"
        if listed is not None:
            assert names == {name for name in listed if callable(getattr(found, name))}


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_search_works_on_files(site: Path, tmp_path: Path):
    """The hidden frame of docs/javascripts/iframe-worker.js answers; the page waits for it, not for a time."""
    probe = site / "probe.html"
    script = """<pre id=probe></pre><script>
      const box = document.querySelector("[data-md-component=search-query]");
      const seen = () => document.querySelectorAll(".md-search-result__item").length;
      const ask = () => {
        document.getElementById("__search").checked = true;
        document.getElementById("__search").dispatchEvent(new Event("change"));
        box.focus(); box.value = "counterexample";
        for (const kind of ["keyup", "input"]) box.dispatchEvent(new Event(kind, { bubbles: true }));
        document.getElementById("probe").textContent = seen();
        if (!seen()) setTimeout(ask, 200);
      };
      ask();
    </script></body>"""
    probe.write_text((site / "index.html").read_text().replace("</body>", script))
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path}", "--virtual-time-budget=60000", "--dump-dom", probe.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="probe">(\d+)</pre>', done.stdout)
    assert found is not None
    assert int(found[1]) > 0
    assert "CONSOLE" not in done.stderr
