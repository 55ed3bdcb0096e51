"""README and docs/ are true: commands run and print what is shown, Python runs, links lead somewhere.

In a `console` block a line `$ tlbcore ...` is a command and what follows its output, where `...` stands for
anything. `python` blocks of a page run in order in one namespace; `pycon` blocks also show their output.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
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
    if "python/tlbcore/" in command and not (ROOT / "python").exists():
        pytest.skip("the source tree is not here: the command names a file of it")
    done = run(command)
    assert done.returncode in (0, 1, 3), done.stderr
    if output.strip():
        # A line of `...` stands for any lines, `...` within a line for any text.
        pattern = re.escape(as_shown(output)).replace(r"\.\.\.", r"[\s\S]*?")
        assert re.fullmatch(pattern, as_shown(done.stdout)), done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_documentation_runs(page: Path, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    if "import matplotlib" in page.read_text():
        pytest.importorskip("matplotlib").use("Agg")
        monkeypatch.chdir(tmp_path)  # its figures become files
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


def sentence(value: object) -> str:
    """The first sentence of a docstring as a table's cell."""
    text = (value.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|")


def api_markdown() -> str:
    """The tables of docs/api.md: every public name of the package and of its namespaces.

    `python -m tests.package.test_docs` writes them anew.
    """
    import tlbcore

    parts = []
    for title, module in [("tlbcore", tlbcore), *((n, getattr(tlbcore, n)) for n in tlbcore._MODULES)]:
        parts += ["", f"## `{title}`", ""] if title != "tlbcore" else [f"## `{title}`", ""]
        parts += [sentence(module), ""] if title != "tlbcore" else []
        parts += ["| Name | |", "|---|---|"]
        names = module.__all__ if hasattr(module, "__all__") else [
            name for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]  # fmt: skip
        for name in sorted(names):
            value = getattr(module, name)
            if name in DATA:
                parts.append(f"| `{name}` | {DATA[name]} |")
            else:
                parts.append(f"| `{name}` | {sentence(value)} |")
    return "\n".join(parts)


# Public names that are values: an instance has the docstring of its type.
DATA = {
    "EVENT": "NumPy dtype of an event for `Tlb.run`.",
    "FLAGS": "Flags of an event by name.",
    "OPS": "Ops of an event by name.",
    "SCENARIOS": "The built-in scenarios by name.",
    "__version__": "The version, of the core and of this package.",
    "causes": "The catalogue of what interrupts an isolated CPU; `causes[id]`.",
    "machines": "The built-in machines by name; an alias finds its machine too.",
    "policies": "The built-in policies by name.",
}


def test_the_page_of_the_api_has_every_public_name_with_its_sentence():
    page = (ROOT / "docs" / "api.md").read_text()
    assert page[page.index("## `tlbcore`") :].strip() == api_markdown().strip()
    for row in re.findall(r"^\| `.*$", page, re.MULTILINE):
        assert not row.endswith("|  |"), f"{row} has no docstring"


def test_the_places_on_the_page_of_extensions_exist():
    page = (ROOT / "docs" / "extending.md").read_text()
    places = re.findall(r"`((?:src|tests|python|benches|docs)/[\w./-]*)`", page)
    assert len(places) > 10
    for place in places:
        if place.startswith("python/") and not (ROOT / "python").exists():
            continue  # a run on the wheel, whose package is elsewhere
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_how_it_is_run_and_compiles(example: Path):
    source = example.read_text()
    assert f"python examples/{example.name}" in source
    compile(source, example.name, "exec")


SOURCES = "FACTS|HARDWARE|CENSUS|NUMBERS|PEERS|CHECKER"
CITING = ("src", "python", "pages", "docs", "benches", "tests", "examples")


def citations() -> set[str]:
    """Every rule and every section of a source that code, data or a page names, such as `FACTS 1.4`."""
    files = [ROOT / "README.md"]
    for place in CITING:
        files += (p for p in (ROOT / place).rglob("*") if p.suffix in {".rs", ".py", ".md", ".toml", ".kernel",
                                                                       ".litmus", ".policy", ".txt"})  # fmt: skip
    found = set()
    for path in files:
        if path == ROOT / "docs" / "sources.md":
            continue
        text = re.sub(r"\s*\n\s*(?://[/!]|#|\*)?\s*", " ", path.read_text(errors="ignore"))
        for source, list_ in re.findall(rf"\b({SOURCES}) (\d[\d., ]*(?:and \d[\d.]*)?)", text):
            for section in re.findall(r"\d+(?:\.\d+)?", list_.split(". ")[0]):
                if len(section) < 4:
                    found.add(f"{source} {section}")
        found |= {f"SEMANTICS {rule}" for rule in re.findall(r"\bSEMANTICS ([SHAL]\d+)\b", text)}
        found |= {f"FACTS 6 {bug}" for bug in re.findall(r"\bFACTS (?:6,? )?(B\d+)\b", text)}
    return found


def test_every_rule_and_source_that_is_cited_is_on_the_pages_of_rules_and_sources():
    sources = (ROOT / "docs" / "sources.md").read_text()
    rules = (ROOT / "docs" / "semantics.md").read_text()
    there = {" ".join(found) for found in re.findall(rf"^#+ ({SOURCES}) ([\d.]+):", sources, re.MULTILINE)}
    there |= {f"SEMANTICS {rule}" for rule in re.findall(r"^- \*\*([SHAL]\d+)", rules, re.MULTILINE)}
    there |= {f"FACTS 6 {bug}" for bug in re.findall(r"^\| (B\d+) \|", sources, re.MULTILINE)}
    cited = citations()
    assert len(cited) > 50
    assert not cited - there


def test_what_a_user_reads_names_the_page_of_sources_with_their_sections():
    """`FACTS 5.2` alone says nothing to someone who has the package only."""
    package = Path(importlib.import_module("tlbcore").__file__ or "").parent
    seen = 0
    for file in sorted(package.rglob("*.py")):
        tree = ast.parse(file.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                named = re.search(rf"\b(?:{SOURCES}) \d", node.value)
                seen += bool(named)
                assert not named or "docs/sources.md" in node.value, f"{file}:{node.lineno}: {named[0]}"
    assert seen > 5


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == pages


if __name__ == "__main__":  # write the generated tables
    from tlbcore.simulation.figures import markdown, vocabulary

    for name, first, text in (
        ("api.md", "## `tlbcore`", api_markdown()),
        ("simulation.md", "| Statistic | Unit |", markdown()),
    ):
        page = ROOT / "docs" / name
        before, found, _ = page.read_text().partition(first)
        assert found, f"{page} has lost its {first!r}"
        page.write_text(f"{before}{text}\n")
    (ROOT / "python/tlbcore/_input/vocabulary.py").write_text(vocabulary())


def test_the_site_has_every_page():
    pages = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(pages) == sorted(page.name for page in PAGES if page.parent.name == "docs")
