"""Faults put into the Rust modules, and which of them no test notices: `make mutants-rust`.

`python -m tests.mutants_rust [MODULES...] [--count N] [--seed S] [--since BASE] [--again]` draws N mutants of each
module and builds a copy of the crate, in target/mutants, that holds all of them (tests/schemata.py): which one runs is
chosen by the environment. A first run without any notes which test reaches which mutant; then each mutant meets the
tests that reach it, quickest first, the crate's own before Python's, until one fails. Of Python's only the module's
folders are asked, and so many seconds of them (`--seconds`): the score is a lower bound. A test that takes far longer
than usual has noticed, too. A mutant that no test reaches survives.

tests/data/survivors.toml says of those that may survive why. `--again` asks only what was not noticed before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import schemata
from tests.judging import ALIVE, FOLDERS, ROOT, TREE, WORK, judge, say
from tests.mutants import argued_rows as argued
from tests.mutants import changed


@dataclass
class Drawn:
    """A mutant of the run, with its number and the name under which runs know it again."""

    number: int
    module: str
    key: str
    line: int
    mutant: schemata.Mutant


# --- drawing ---


def sources(root: Path, module: str) -> list[Path]:
    """Return the files of a module, or of a part of one (`sim/recorded`), that are not compiled for tests alone."""
    alone = root / "src" / f"{module}.rs"
    files = [*[alone] * alone.exists(), *sorted((root / "src" / module).rglob("*.rs"))]
    hidden = {path for file in files for path in only_for_tests(file)}
    return [file for file in files if not any(file == path or path in file.parents for path in hidden)]


def only_for_tests(file: Path) -> Iterator[Path]:
    beside = file.parent if file.name in ("mod.rs", "lib.rs") else file.with_suffix("")
    for name in re.findall(r"#\[cfg\(test\)\]\s*(?:pub(?:\(\w+\))? )?mod (\w+);", file.read_text()):
        yield from (beside / f"{name}.rs", beside / name)


def draw(root: Path, module: str, count: int, seed: int, lines: dict[str, set[int]] | None) -> list[Drawn]:
    """Return so many mutants of a module in the order of a hash: a change elsewhere leaves the draw as it is."""
    found = []
    for path in sources(root, module):
        source, file = path.read_bytes(), str(path.relative_to(root))
        seen: dict[str, int] = {}
        rows = source.split(b"\n")
        for mutant in schemata.mutants(file, source):
            line = source.count(b"\n", 0, mutant.start)
            if lines is not None and line + 1 not in lines.get(file, ()):
                continue
            name = f"{file}\n{rows[line].strip().decode()}\n{mutant.what}\n{mutant.text.decode()}"
            seen[name] = seen.get(name, 0) + 1
            key = hashlib.sha256(f"{seed}\n{name}\n{seen[name]}".encode()).hexdigest()
            found.append(Drawn(0, module, key, line + 1, mutant))
    return sorted(found, key=lambda d: d.key)[:count]


def lines_since(base: str) -> dict[str, set[int]]:
    """Return by file the lines that differ from a commit."""
    out: dict[str, set[int]] = {}
    text = subprocess.run(
        ["git", "diff", "-U0", base, "--", "src"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for line in text.stdout.splitlines():
        if line.startswith("+++ b/"):
            here = out.setdefault(line[6:], set())
        elif hunk := re.match(r"@@ .* \+(\d+)(?:,(\d+))? @@", line):
            here |= set(range(int(hunk[1]), int(hunk[1]) + int(hunk[2] or 1)))
    return out


# --- building ---


def copy_tree() -> None:
    """Bring the copy up to date; what did not change keeps its time, so that little is compiled again."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        source, target = ROOT / name, TREE / name
        if name.startswith(("src/", "Cargo.toml")) or not source.is_file():
            continue
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    kept = set(listed)
    for path in [*TREE.glob("tests/**/*.py"), *TREE.glob("python/**/*.py")]:
        if str(path.relative_to(TREE)) not in kept:
            path.unlink()


def write_sources(drawn: list[Drawn], root: Path, tree: Path) -> dict[str, schemata.Written]:
    """Write the crate with these mutants, and return how each mutated file was written."""
    by_file: dict[str, list[tuple[int, schemata.Mutant]]] = {}
    for d in drawn:
        by_file.setdefault(d.mutant.file, []).append((d.number, d.mutant))
    fresh = tree.with_name("fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(root / "src", fresh / "src")
    shutil.copy(root / "Cargo.toml", fresh)
    out = {}
    for file, chosen in by_file.items():
        out[file] = schemata.write((root / file).read_bytes(), chosen)
        (fresh / file).write_bytes(out[file].text)
    schemata.arm(fresh)
    for path in fresh.rglob("*.*"):
        target = tree / path.relative_to(fresh)
        if path.is_file() and (not target.exists() or target.read_bytes() != path.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for path in (tree / "src").rglob("*.rs"):
        if not (fresh / path.relative_to(tree)).exists():
            path.unlink()
    return out


def cargo(tree: Path, *command: str) -> list[dict]:
    """Return the messages of a cargo command."""
    done = subprocess.run(
        [*os.environ.get("CARGO", "cargo").split(), *command, "--message-format=json", "-q"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "CARGO_TARGET_DIR": str(tree.parent / "build"),
            "PYO3_BUILD_EXTENSION_MODULE": "1",
        },
    )
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode and not any(errors(messages)):
        raise SystemExit(done.stderr)
    return messages


def errors(messages: list[dict]) -> Iterator[tuple[str, list[tuple[str, int, int]], str]]:
    """Yield the compiler's errors: where, primary places first, and the text."""
    for message in messages:
        said = message.get("message")
        if message["reason"] == "compiler-message" and said["level"].startswith("error") and said["spans"]:
            spans = sorted(said["spans"], key=lambda span: not span["is_primary"])
            yield (
                spans[0]["file_name"],
                [(s["file_name"], s["byte_start"], s["byte_end"]) for s in spans],
                said["rendered"],
            )


def built(
    drawn: list[Drawn], count: int, root: Path, tree: Path, command: list[str]
) -> tuple[list[Drawn], list[str]]:
    """Return `count` mutants of each module that compile, and what was built of them: test programs, or the library."""
    left = drawn
    while True:
        taken: dict[str, int] = {}
        now = []
        for d in left:
            taken[d.module] = taken.get(d.module, 0) + 1
            if taken[d.module] <= count + count // 6 + 1:  # some do not compile
                now.append(d)
        written = write_sources(now, root, tree)
        messages = cargo(tree, *command)
        wrong: set[int] = set()
        for _, spans, _ in errors(messages):
            for file in dict.fromkeys(name for name, _, _ in spans):
                if file in written:
                    wrong |= schemata.blamed(written[file], [(a, b) for name, a, b in spans if name == file])
                    break
        if not any(errors(messages)):
            break
        if not wrong:
            raise SystemExit("\n".join(text for *_, text in errors(messages)))
        say(f"{len(wrong)} mutants do not compile")
        left = [d for d in left if d.number not in wrong]
    made = [m for m in messages if m["reason"] == "compiler-artifact"]
    programs = [m["executable"] for m in made if m["executable"] and m["profile"]["test"]]
    libraries = [m["filenames"][0] for m in made if m["target"]["name"] == "tlbcore"]
    return now, programs or libraries[-1:]


# --- the whole ---


def known() -> dict[str, dict]:
    """Return by key what came of mutants in runs before."""
    path = WORK / "outcomes.jsonl"
    if not path.exists():
        return {}
    return {row["key"]: row for row in map(json.loads, path.read_text().splitlines())}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "modules",
        nargs="*",
        default=list(FOLDERS),
        help=f"of {' '.join(FOLDERS)}, or a part like sim/recorded; all unless given",
    )
    parser.add_argument("--count", type=int, default=60, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=24)
    parser.add_argument(
        "--since", metavar="BASE", default="", help="only in lines that differ from this commit"
    )
    parser.add_argument("--again", action="store_true", help="only what was not noticed before")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of tests of either language for a mutant"
    )
    parser.add_argument(
        "--files", nargs="*", default=[], help="test files of Python to ask, in place of the module's"
    )
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--judge", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.judge:
        judge(json.loads(Path(asked.judge).read_text()), asked.at_once)
        return 0
    TREE.mkdir(parents=True, exist_ok=True)
    lines = lines_since(asked.since) if asked.since else None
    drawn = [d for m in asked.modules for d in draw(ROOT, m, 2 * asked.count, asked.seed, lines)]
    if not drawn:
        print("nothing to change there")
        return 0
    for number, d in enumerate(drawn, 1):
        d.number = number
    copy_tree()
    tests = ["test", "--no-run", "--lib", "--test", "*", "--profile", "quick"]
    some, programs = built(drawn, asked.count, ROOT, TREE, tests)
    some, library = built(
        some, asked.count, ROOT, TREE, ["build", "--lib", "--profile", "quick", "--features", "python"]
    )
    shutil.copy(library[0], TREE / "python" / "tlbcore" / "_core.abi3.so")
    taken: dict[str, int] = {}
    rows = []
    for d in some:
        taken[d.module] = taken.get(d.module, 0) + 1
        if taken[d.module] <= asked.count:
            source = (ROOT / d.mutant.file).read_bytes()
            difference, line = changed(source.decode(), d.mutant.applied(source))
            rows.append(
                {
                    "number": d.number,
                    "module": d.module,
                    "key": d.key,
                    "file": d.mutant.file,
                    "line": d.line,
                    "what": d.mutant.what,
                    "changed": line,
                    "difference": difference,
                }
            )
    say(f"{len(rows)} mutants built")
    before = known() if asked.again else {}
    if not asked.again:
        (WORK / "outcomes.jsonl").unlink(missing_ok=True)
    noticed = {key for key, row in before.items() if row["outcome"] not in ALIVE}
    plan = {
        "mutants": [row for row in rows if row["key"] not in noticed],
        "numbers": len(drawn) + 1,
        "seconds": asked.seconds,
        "programs": programs,
        "files": asked.files,
    }
    (WORK / "plan.json").write_text(json.dumps(plan))
    if plan["mutants"]:
        judging = [
            "-m",
            "tests.mutants_rust",
            "--judge",
            str(WORK / "plan.json"),
            "--at-once",
            str(asked.at_once),
        ]
        subprocess.run(
            [sys.executable, "-W", "ignore", *judging],
            cwd=TREE,
            env={**os.environ, "PYTHONPATH": str(TREE / "python"), "TLBCORE_MUTANTS": str(WORK)},
            check=True,
        )
    return summary(asked.modules, rows, asked.seed)


def is_argued(row: dict) -> bool:
    """Whether survivors.toml says of this change of this line why it may survive."""
    lines = row["difference"].splitlines()[1:]
    was = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    return any(one["was"] == was and one["line"] == row["changed"] for one in argued(row["file"]))


def summary(modules: list[str], rows: list[dict], seed: int) -> int:
    """Print the survivors that nobody argued and the score of each module; return the exit status."""
    outcomes = known()
    status = 0
    for module in modules:
        here = [row for row in rows if row["module"] == module]
        left = [row for row in here if outcomes[row["key"]]["outcome"] in ALIVE]
        still = [row for row in left if not is_argued(row)]
        for row in still:
            print(f"{outcomes[row['key']]['outcome']}: {row['file']}:{row['line']}\n{row['difference']}")
        excused = len(left) - len(still)
        noticed = len(here) - len(left)
        score = 100 * noticed / max(len(here) - excused, 1)
        print(
            f"{module}: {len(here)} mutants (seed {seed}): {noticed} noticed, {excused} argued, {len(still)} open: "
            f"{score:.1f} %"
        )
        status |= bool(still)
    return status


if __name__ == "__main__":
    sys.exit(main())
