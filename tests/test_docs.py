"""README and docs/ are true: commands run and print what is shown, Python runs, links lead somewhere.

In a `console` block a line `$ tlbcore ...` is a command and what follows its output, where `...` stands for
anything. `python` blocks of a page run in order in one namespace; `pycon` blocks also show their output.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SETUP = ["pip install '.[all]' && tlbcore demo", "pip install '.[test]' && pytest"]


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in fences if language in languages]


def commands() -> list[tuple[str, str]]:
    """Each command of the pages, with the output shown below it."""
    found = []
    for page in PAGES:
        for _, text in blocks(page, "console"):
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                found.append((command.split("  #")[0].strip(), output))
    return found


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of ours; the only shell syntax understood is a trailing `| head -N`."""
    line, _, head = command.partition(" | head -")
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(line)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
    )  # fmt: skip
    if head:
        done.stdout = "".join(done.stdout.splitlines(keepends=True)[: int(head)])
    return done


def as_shown(output: str) -> str:
    return re.sub(r"[ \t]+$", "", output, flags=re.MULTILINE).strip("\n")


def test_readme_has_exactly_the_two_set_up_commands():
    shown = re.findall(r"^pip install .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown == SETUP


@pytest.mark.parametrize(("command", "output"), commands())
def test_a_command_in_the_documentation_prints_what_is_shown(command: str, output: str):
    assert command.startswith("tlbcore "), "only tlbcore's own commands are run"
    done = run(command)
    assert done.returncode in (0, 1, 3), done.stderr
    if output.strip():
        # A line of `...` stands for any lines, `...` within a line for any text.
        pattern = re.escape(as_shown(output)).replace(r"\.\.\.", r"[\s\S]*?")
        assert re.fullmatch(pattern, as_shown(done.stdout)), done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_documentation_runs(page: Path, monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for language, text in blocks(page, "python", "pycon"):
        if language == "python":
            exec(compile(text, page.name, "exec"), names)
            continue
        example = doctest.DocTestParser().get_doctest(text, names, page.name, page.name, 0)
        runner = doctest.DocTestRunner(optionflags=options)
        report: list[str] = []
        runner.run(example, out=report.append, clear_globs=False)
        assert runner.failures == 0, "".join(report)
        names.update(example.globs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == pages
