"""`docs/casebook.md`: public arguments and bugs, each a litmus test that is broken and one that is mended.

`python -m pages.casebook` in a checkout writes it; a test holds it against what is found. A case is a litmus file whose
header has the comments `# case: TITLE` and `# kind: KEY`, then its prose. The mended form is the file of the same name
with `-fixed`, or the one that `# fixed: NAME` names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tlbcore as tc

KINDS: Mapping[str, str] = {
    "order": "Announced too late: the mask, the flag and the page table",
    "reach": "A flush that does not reach every copy",
    "wait": "Relied on before everybody is done",
    "tables": "Page tables that somebody still walks",
    "change": "Rules that change while they are in use",
}

_INTRO = """# The case book

Written by `python -m pages.casebook` from the files in `tests/litmus` and from what the checker finds; held against
both by a test.

Each case is a bug or an argument from a public list, as two litmus tests: the form that was disputed or wrong, and one
that is right. What the words mean is in [checking](checking.md), what the rules rest on in [semantics](semantics.md).
*Verified* is meant within the bounds of the test. A case is a model of the argument and not the kernel: where something
stands for something else, the case says so.

To add one, put two files into `tests/litmus/casebook`; [extending](extending.md) says how.
"""


@dataclass(frozen=True)
class Case:
    """One case: the file of the broken form, the file of the mended one, and what the broken file says about both."""

    title: str
    kind: str
    prose: str
    broken: Path
    fixed: Path


def cases(folder: Path) -> list[Case]:
    """Return the cases of a folder of litmus files, by kind and name; `ValueError` names a file that is incomplete."""
    files = {file.stem: file for file in sorted(folder.rglob("*.litmus"))}
    found = []
    for name, file in files.items():
        comments = re.findall(r"^  # ?(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        said = {
            m[1]: m[2]
            for line in comments
            if (m := re.fullmatch(r"(case|kind|fixed): (.*)", line)) is not None
        }
        if "case" not in said:
            continue
        fixed = said.get("fixed", f"{name}-fixed")
        if said.get("kind") not in KINDS or fixed not in files:
            raise ValueError(
                f"{file}: a case needs `# kind:` (one of {', '.join(KINDS)}) and a mended form `{fixed}`"
            )
        prose = "\n".join(line for line in comments if not re.match(r"(case|kind|fixed): ", line))
        found.append(Case(said["case"], said["kind"], prose, file, files[fixed]))
    kinds = list(KINDS)
    return sorted(found, key=lambda case: (kinds.index(case.kind), case.broken.stem))


def casebook_markdown(folder: Path) -> str:
    """Return the text of `docs/casebook.md` for the cases in a folder."""
    book = cases(folder)
    out = [_INTRO, f"{len(book)} cases.\n"]
    for kind, title in KINDS.items():
        mine = [case for case in book if case.kind == kind]
        out.append(f"- [{title}](#{_anchor(title)})")
        out += [f"    - [{case.title}](#{_anchor(case.title)})" for case in mine]
    for kind, title in KINDS.items():
        out.append(f"\n## {title}")
        for case in (case for case in book if case.kind == kind):
            out.append(f"\n### {case.title}\n")
            out.append(_case(case))
    return "\n".join(out) + "\n"


def _case(case: Case) -> str:
    broken, fixed = (tc.litmus(file) for file in (case.broken, case.fixed))
    run = broken.text.split("\nwhere (")[0].rstrip()
    ending = [
        part for part in re.split(r"\n\n", broken.text.rstrip()) if not part.lstrip().startswith("where (")
    ]
    said = ending[-1].strip() if len(ending) > 1 else ""
    run = run.removesuffix(said).rstrip()
    out = [
        case.prose,
        "",
        f"- Source: {_sources(broken.source)}",
        f"- `{broken.name}`: **{broken.found}**. {broken.doc}",
        f"- `{fixed.name}`: **{fixed.found}**. {fixed.doc}",
        "",
        "```text",
        *run.strip("\n").split("\n"),
        *(["", *said.split("\n")] if said else []),
        "```",
    ]
    changes = _changes(case.broken, case.fixed)
    if changes:
        out += ["", "What mends it:", "", "```diff", *changes, "```"]
    return "\n".join(out)


def _sources(sources: tuple[str, ...]) -> str:
    """Join sources without the sections of our own notes, which `docs/sources.md` explains."""
    parts = [part for source in sources for part in source.split("; ")]
    return "; ".join(
        part for part in parts if not re.match(r"(FACTS|SEMANTICS|CENSUS|CHECKER) ", part)
    ) or "; ".join(parts)


def _changes(broken: Path, fixed: Path) -> list[str]:
    """Return what differs between the programs of two files, or nothing if they have little in common."""
    before, after = (_program(file) for file in (broken, fixed))
    if difflib.SequenceMatcher(None, before, after).ratio() < 0.5:
        return []
    lines = difflib.unified_diff(before, after, n=1, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _program(file: Path) -> list[str]:
    """Return a file's lines that say what runs: no comments, name, verdict, sentence, source and numbers of states."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not re.match(r'litmus |  (#|"|verdict |source |states )|$', line)]


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    page = casebook_markdown(root / "tests" / "litmus")
    (root / "docs" / "casebook.md").write_text(page, encoding="utf-8")
