"""Faults put into a Python module one at a time, and which of them no test notices: `make mutants-python`.

`python -m tests.mutants MODULE TESTS... [--count N] [--seed S]` draws N of cosmic-ray's mutants of a module of
python/tlbcore and runs the tests against each, in a fork that imports the changed text in place of the file. Nothing is
written, and processes that tests start see the module as it is. What survives is printed as a difference;
tests/data/survivors.toml says of those that may survive why.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.machinery
import os
import random
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARGUED = ROOT / "tests" / "data" / "survivors.toml"


def places(source: str) -> list[tuple[str, int]]:
    """Return what can be done to a source: operators, each with the number of its place."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    out = []
    nodes = list(ast_nodes(get_ast(source)))
    for name in plugins.operator_names():
        if not name.startswith("core/Variable"):  # they take arguments
            operator = plugins.get_operator(name)()
            count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            out += [(name, number) for number in range(count)]
    return out


def mutants(source: str, seed: int) -> Iterator[tuple[str, str]]:
    """Yield mutants in random order: the operator, and the text. Annotations are never evaluated: left alone."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    same = ast.dump(bare(source))
    every = places(source)
    random.Random(seed).shuffle(every)
    for name, number in every:
        text = mutate_code(source, plugins.get_operator(name)(), number)
        if text is not None and compiles(text) and ast.dump(bare(text)) != same:
            yield name, text


def compiles(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def bare(text: str) -> ast.Module:
    """Return the tree without annotations."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
    return tree


def survives(file: Path, text: str, tests: list[str], seconds: float) -> bool:
    """Whether all tests pass with this text in place of the file; one that takes longer than `seconds` fails."""
    child = os.fork()
    if child == 0:
        run(file, text, tests)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def run(file: Path, text: str, tests: list[str]) -> None:
    """Run the tests and end this process with their exit status."""
    import pytest

    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    loaded = importlib.machinery.SourceFileLoader.get_code

    def get_code(self, fullname):
        if Path(self.path).resolve() == file:
            return compile(text, str(file), "exec")
        return loaded(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    status = 1
    try:
        status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests])
    finally:
        os._exit(status)


def argued(module: str) -> dict[str, str]:
    """Return the survivors of a module that were argued: the changed line, and why."""
    return {row["line"]: row["why"] for row in argued_rows(module)}


def argued_rows(module: str) -> list[dict[str, str]]:
    """Return them as they stand in the file."""
    return tomllib.loads(ARGUED.read_text(encoding="utf-8")).get(module, []) if ARGUED.exists() else []


def changed(before: str, after: str) -> tuple[str, str]:
    """Return the lines that differ, as a difference, and the new ones as one text, or which are gone."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    new = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    gone = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    return "\n".join(lines), new.strip() or f"without {gone.strip()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    file = (ROOT / "python" / "tlbcore" / asked.module).resolve()
    before = file.read_text(encoding="utf-8")
    drawn = list(islice(mutants(before, asked.seed), asked.count))
    import numpy  # noqa: F401  (takes long, so once)

    start = time.monotonic()
    if not survives(file, before, asked.tests, 600.0):
        print("the tests fail without any mutant")
        return 2
    limit = 10 * (time.monotonic() - start) + 10
    why = argued(asked.module)
    alive, excused = [], 0
    for operator, text in drawn:
        if survives(file, text, asked.tests, limit):
            difference, line = changed(before, text)
            if line in why:
                excused += 1
                continue
            alive.append(difference)
            print(f"survives: {operator}\n{difference}", flush=True)
    print(
        f"{asked.module}: {len(drawn)} of {len(places(before))} mutants run (seed {asked.seed}): "
        f"{len(drawn) - len(alive) - excused} killed, {excused} argued, {len(alive)} open"
    )
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
