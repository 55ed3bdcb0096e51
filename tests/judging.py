"""Which tests reach a mutant of the Rust modules, and whether one fails: the part of `mutants_rust` that runs them.

Everything happens in forks of one process that has imported what takes long; a fork becomes a mutant by a call into the
extension.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORK = Path(os.environ.get("TLBCORE_MUTANTS", ROOT / "target" / "mutants"))
TREE = WORK / "tree"

# Where a module's behaviour is told from Python.
FOLDERS = {
    "hw": ("tests/tlb",),
    "kernel": ("tests/check", "tests/simulate"),
    "sim": (
        "tests/simulate",
        "tests/sweep",
        "tests/check/test_timed_schedules.py",
        "tests/trace/test_replay.py",
        "tests/package/test_bounds.py",
    ),
    "check": ("tests/check",),
    "trace": ("tests/trace",),
}


def folders_of(module: str) -> tuple[str, ...]:
    """Return the folders of a module or of a part of one."""
    return FOLDERS[module.partition("/")[0]]


# Left out: what compares digests of everything, so that it notices a change without knowing which is right, what reads
# sources, and what takes minutes or another program.
LEFT_OUT = {
    "tests/simulate/test_golden.py",
    "tests/check/test_check_cases.py",
    "tests/check/test_check_spin.py",
    "tests/trace/test_record_kernel.py",
    "tests/tlb/test_tlb_peers.py",
}
ALIVE = ("survives", "not reached")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def in_children(
    jobs: list, work: Callable, at_once: int, limit: Callable[[object], float]
) -> Iterator[tuple]:
    """Yield each job with what `work(job)` gave in a fork, or None where it died or took longer than `limit(job)`."""
    waiting, running = list(jobs), {}
    while waiting or running:
        while waiting and len(running) < at_once:
            job = waiting.pop(0)
            reads, writes = os.pipe()
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                os.close(reads)
                status = 1
                try:
                    answer = json.dumps(work(job)).encode()
                    while answer:
                        answer = answer[os.write(writes, answer) :]
                    status = 0
                finally:
                    os._exit(status)
            os.close(writes)
            os.set_blocking(reads, False)
            running[child] = (job, reads, bytearray(), time.monotonic() + limit(job))
        time.sleep(0.02)
        for child, (job, reads, said, end) in list(running.items()):
            done, _ = os.waitpid(child, os.WNOHANG)
            late = not done and time.monotonic() > end
            if late:
                kill(child)
                os.waitpid(child, 0)
            with contextlib.suppress(BlockingIOError):
                while part := os.read(reads, 1 << 20):
                    said += part
            if done or late:
                kill(child)  # what it started
                os.close(reads)
                del running[child]
                yield job, json.loads(said) if done and said else None


def kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def silent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


class Reached:
    """A plugin: per test, how long it took and which mutants it, its shared fixtures and its file's imports reach."""

    def __init__(self, path: Path, numbers: int, seconds: float) -> None:
        path.write_bytes(bytes(numbers))
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.size = numbers
        self.shared: dict[str, set[int]] = {}
        self.begun: set[int] | None = None
        self.carried: set[int] = set()
        self.tests: dict[str, list] = {}
        self.passed = False
        self.end = time.monotonic() + seconds

    def take(self) -> set[int]:
        found = {number for number, byte in enumerate(self.map[:]) if byte}
        self.map[:] = bytes(self.size)
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function":
            return (yield)
        self.carried |= self.take()
        try:
            return (yield)
        finally:
            self.shared.setdefault(fixturedef.argname, set()).update(found := self.take())
            self.carried |= found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        if self.begun is None:
            self.begun = self.take()
        for kept in vars(
            item.module
        ).values():  # results that tests share: each is to be reached by all of them
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()
        start = time.monotonic()
        self.carried = set()
        self.passed = False
        result = yield
        found = self.take() | self.carried | self.begun
        for name in item.fixturenames:
            found |= self.shared.get(name, set())
        if self.passed:
            self.tests[item.nodeid] = [time.monotonic() - start, sorted(found)]
        if time.monotonic() > self.end:
            item.session.shouldstop = "enough of this file"
        return result

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.passed = report.passed
        elif report.failed:
            self.passed = False


def of_python(file: str, numbers: int, seconds: float) -> dict[str, list]:
    """Run a test file for so long and return its tests that pass: seconds, and the mutants they reach."""
    silent()
    path = WORK / f"reached.{os.getpid()}"
    hooks = Reached(path, numbers, seconds)
    os.environ["TLBCORE_REACHED"] = str(path)
    choose(0xFFFFFFFF)
    pytest.main(["-q", "-p", "no:cacheprovider", file], plugins=[hooks])
    path.unlink()
    return hooks.tests


def of_rust(test: str, numbers: int) -> dict[str, list]:
    """Run a test of the crate, named by its program and its name, and return the same."""
    path = WORK / f"reached.{os.getpid()}"
    path.write_bytes(bytes(numbers))
    start = time.monotonic()
    program, name = test.rsplit(" ", 1)
    done = subprocess.run(
        [program, "--exact", name],
        env={**os.environ, "TLBCORE_REACHED": str(path)},
        capture_output=True,
        check=False,
    )
    took = time.monotonic() - start
    found = [number for number, byte in enumerate(path.read_bytes()) if byte]
    path.unlink()
    return {test: [took, found]} if done.returncode == 0 else {}


def choose(number: int) -> None:
    """Let this process run a mutant from now on, and those that it starts."""
    os.environ["TLBCORE_MUTANT"] = str(number)
    ctypes.CDLL(str(TREE / "python" / "tlbcore" / "_core.abi3.so")).tlbcore_mutant(ctypes.c_uint32(number))


def quickest(
    tests: dict[str, list], number: int, seconds: float, folders: tuple[str, ...] = ()
) -> list[tuple[str, float]]:
    """Return the tests that reach a mutant, quickest first, as many as fit into so many seconds."""
    reach = sorted(
        (took, name)
        for name, (took, found) in tests.items()
        if number in found
        and (not folders or name.startswith(tuple(f if f.endswith(".py") else f"{f}/" for f in folders)))
    )
    out, total = [], 0.0
    for took, name in reach:
        total += took
        if total > seconds and out:
            break
        out.append((name, took))
    return out


def judge(plan: dict, at_once: int) -> None:
    """Run the tests on each mutant of a plan and write what came of it. Runs in the copy."""
    import numpy  # noqa: F401  (what takes long to import is imported once)

    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401

    import tlbcore  # noqa: F401

    numbers = plan["numbers"]
    with (WORK / "outcomes.jsonl").open("a") as out:

        def told(m: dict, outcome: str) -> None:
            print(json.dumps({**m, "outcome": outcome}), file=out, flush=True)

        left = []
        for m, outcome, reached in by_the_crate(plan, numbers, at_once):
            if outcome == "survives":
                left.append((m, reached))
            else:
                told(m, outcome)
        say(f"{len(left)} of {len(plan['mutants'])} mutants are left to Python")
        for m, outcome in by_the_package(plan, left, numbers, at_once):
            told(m, outcome)
            if outcome in ALIVE:
                say(f"{outcome}: {m['file']}:{m['line']}\n{m['difference']}")


def growing(names: list[str]) -> Iterator[list[str]]:
    """Yield the names in groups of 4, 8, 16, ..., the last sixteen, which take longest, one by one."""
    size, at = 4, 0
    while at < len(names) - 16:
        yield names[at : min(at + size, len(names) - 16)]
        at, size = at + size, 2 * size
    for name in names[max(len(names) - 16, 0) :]:
        yield [name]


def listed(program: str) -> list[str]:
    """Return the names of the tests in a test program."""
    told = subprocess.run(
        [program, "--list", "--format", "terse"], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"^(.+): test$", told, re.MULTILINE)


def by_the_crate(plan: dict, numbers: int, at_once: int) -> Iterator[tuple[dict, str, bool]]:
    """Yield each mutant, what the crate's own tests say of it, and whether one reaches it."""
    programs, seconds = plan["programs"], plan["seconds"]
    names = [f"{program} {name}" for program in programs for name in listed(program)]
    kept, built = WORK / "crate.json", [Path(program).stat().st_mtime for program in programs]
    tests: dict[str, list] = {}
    if kept.exists() and (before := json.loads(kept.read_text()))["built"] == built:
        tests = before["tests"]
    else:
        for _, found in in_children(
            names, lambda name: of_rust(name, numbers), at_once, lambda _: 10 + 2 * seconds
        ):
            tests.update(found or {})
        kept.write_text(json.dumps({"built": built, "tests": tests}))
    say(f"{len(tests)} of {len(names)} tests of the crate pass, in {sum(t for t, _ in tests.values()):.0f} s")

    def run(m: dict) -> str:
        silent()
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        chosen = quickest(tests, m["number"], seconds)
        more = {**os.environ, "TLBCORE_MUTANT": str(m["number"])}
        for group in growing(
            [name for name, _ in chosen]
        ):  # a run of several goes on after the first that fails
            for program in programs:
                here = [name.removeprefix(f"{program} ") for name in group if name.startswith(f"{program} ")]
                command = [program, "--exact", "--test-threads=1", *here]
                if here and subprocess.run(command, env=more, check=False).returncode:
                    return "noticed by the crate"
        return "survives"

    def limit(m: dict) -> float:
        return 20 + 4 * sum(took for _, took in quickest(tests, m["number"], seconds))

    for m, outcome in in_children(plan["mutants"], run, at_once, limit):
        yield m, outcome or "takes too long", bool(quickest(tests, m["number"], seconds))


def files_of(place: Path) -> list[Path]:
    """Return the test files of a folder, or the one file."""
    return sorted(place.glob("test_*.py")) if place.is_dir() else [place]


def by_the_package(
    plan: dict, left: list[tuple[dict, bool]], numbers: int, at_once: int
) -> Iterator[tuple[dict, str]]:
    """Yield each mutant that the crate's tests leave, and what those of the package say of it."""
    seconds = plan["seconds"]
    modules = {m["module"] for m, _ in left}
    files = plan["files"] or sorted(
        {str(p) for m in modules for f in folders_of(m) for p in files_of(Path(f))} - LEFT_OUT
    )
    tests: dict[str, list] = {}
    for file, found in in_children(
        files, lambda file: of_python(file, numbers, 2 * seconds), at_once, lambda _: 600
    ):
        tests.update(found or {})
        say(f"{file}: {len(found or {})} tests, {sum(t for t, _ in (found or {}).values()):.1f} s")

    def of(m: dict) -> list[tuple[str, float]]:
        return quickest(tests, m["number"], seconds, () if plan["files"] else folders_of(m["module"]))

    def run(job: tuple[dict, bool]) -> str:
        m, reached = job
        chosen = of(m)
        if not chosen:
            return "survives" if reached else "not reached"
        silent()
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        choose(m["number"])
        failed: list[str] = []

        class Failed:
            def pytest_runtest_logreport(self, report):
                if report.failed:
                    failed.append(report.nodeid)

        status = pytest.main(
            ["-q", "-x", "-p", "no:cacheprovider", *(n for n, _ in chosen)], plugins=[Failed()]
        )
        return "survives" if status == 0 else f"noticed by {failed[0] if failed else 'pytest'}"

    for (m, _), outcome in in_children(
        left, run, at_once, lambda job: 40 + 4 * sum(took for _, took in of(job[0]))
    ):
        yield m, outcome or "takes too long"
