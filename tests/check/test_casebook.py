"""The case book, the templates of `tlbcore new` and the page that leads through one of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages.casebook import KINDS, casebook_markdown, cases

import tlbcore as tc
from tlbcore.cli import main
from tlbcore.cli.new import templates

ROOT = Path(__file__).parents[2]
LITMUS = ROOT / "tests" / "litmus"
WRONG = ("violated: ", "allowed")


def test_each_case_is_broken_in_one_form_and_right_in_the_other():
    book = cases(LITMUS)
    assert len(book) >= 30
    for case in book:
        broken, fixed = (tc.litmus(file) for file in (case.broken, case.fixed))
        assert broken.found.startswith(WRONG), case.broken
        assert fixed.found in ("verified", "forbidden"), case.fixed
        assert broken.source, f"{case.broken}: a case has a source"
        assert case.prose, f"{case.broken}: a case says what it is about"


@pytest.mark.parametrize("file", sorted((LITMUS / "casebook").glob("*.litmus")), ids=lambda file: file.stem)
def test_a_case_has_the_same_verdict_without_reductions(file: Path):
    assert tc.litmus(file, reduce=False).found == tc.litmus(file).found


def test_every_file_of_the_case_book_belongs_to_a_case():
    of_cases = {file for case in cases(LITMUS) for file in (case.broken, case.fixed)}
    assert set((LITMUS / "casebook").glob("*.litmus")) <= of_cases


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  # case: A\n  # kind: oder\n", "kind"),
        ("  # case: A\n  # kind: order\n  # fixed: elsewhere\n", "elsewhere"),
    ],
)
def test_a_case_that_is_incomplete_is_named(tmp_path: Path, text: str, said: str):
    (tmp_path / "a.litmus").write_text("litmus a\n" + text)
    (tmp_path / "a-fixed.litmus").write_text("litmus a-fixed\n")
    with pytest.raises(ValueError, match=f"a.litmus.*{said}"):
        cases(tmp_path)


def test_the_page_is_what_the_cases_say():
    page = casebook_markdown(LITMUS)
    assert (ROOT / "docs" / "casebook.md").read_text() == page
    for kind in KINDS.values():
        assert f"\n## {kind}\n\n### " in page


@pytest.mark.parametrize("name", templates())
def test_a_template_is_as_it_states(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["new", "litmus", "mine", "--template", name, "--folder", str(tmp_path)]) == 0
    file = tmp_path / "mine.litmus"
    assert str(file) in capsys.readouterr().out
    result = tc.litmus(file)
    assert (result.name, result.found) == ("mine", result.stated)


MISTAKES = {
    "register-before-cr3": (
        "  or in_set, 1\n  mov cr3, mm 1 asid 0\n",
        "  mov cr3, mm 1 asid 0\n  or in_set, 1\n",
        "violated: stale_access (not_reused)",
    ),
    "acknowledge-counter": (
        "  sub left, 1\n",
        "  let l = left\n  let l = l - 1\n  left = l\n",
        "violated: deadlock",
    ),
    "shootdown-under-a-spinlock": ("  cli\n", "", "verified"),
    "asid-reuse": (
        "  # This one:\n  mov cr3, mm 1 asid 1 flush\n",
        "  mov cr3, mm 1 asid 1 noflush\n",
        "violated: stale_access (not_reused)",
    ),
    "lazy-tlb": ("  fence\n", "", "violated: stale_access (not_reused)"),
}


@pytest.mark.parametrize("name", templates())
def test_the_change_that_a_template_proposes_changes_its_verdict(name: str, tmp_path: Path):
    before, after, found = MISTAKES[name]
    text = templates()[name].replace("litmus NAME", "litmus mine")
    assert text.count(before) == 1
    file = tmp_path / "mine.litmus"
    file.write_text(text.replace(before, after))
    assert tc.litmus(file).found == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine", "--template", "nope"], "no such template; there are acknowledge-counter"),
        (["a/b"], "'a/b': a name is"),
        (["mine", "--folder", "nowhere"], "nowhere/mine.litmus: no such file or directory"),
    ],
)
def test_new_refuses_in_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "litmus", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_new_leaves_a_file_that_is_there(tmp_path, capsys):
    file = tmp_path / "mine.litmus"
    file.write_text("mine")
    assert main(["new", "litmus", "mine", "--folder", str(tmp_path)]) == 2
    assert "already" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_the_page_about_protocols_prints_what_it_shows(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "tlbcore"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tlbcore "$@"\n')
    tool.chmod(0o755)
    page = (ROOT / "docs" / "your-shootdown-protocol.md").read_text()
    steps = [
        step
        for block in re.findall(r"^```shell\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]
    assert len(steps) >= 4
    for step in steps:
        command, _, shown = step.partition("\n")
        done = subprocess.run(
            ["sh", "-c", command],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}", "COLUMNS": "100", "NO_COLOR": "1"},
        )  # fmt: skip
        pattern = re.escape(shown.strip("\n")).replace(r"\.\.\.", r"[\s\S]*?")
        assert re.fullmatch(pattern, done.stdout.strip("\n")), done.stdout + done.stderr
