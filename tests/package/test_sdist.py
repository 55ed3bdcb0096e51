"""What the sdist carries: everything that is kept in git, but for a few files that only a checkout needs."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: The Rust that the project is developed with, and how its lines are broken: any Rust from `rust-version` on builds it.
ONLY_IN_A_CHECKOUT = {".gitignore", "fuzz/.gitignore", "rust-toolchain.toml", "rustfmt.toml"}
#: maturin takes these without being told.
ALWAYS = ["Cargo.lock", "Cargo.toml", "pyproject.toml", "python/**/*"]


def pattern(glob: str) -> re.Pattern[str]:
    """A glob of `pyproject.toml` or `Cargo.toml`; one of the latter that names a folder means all that is in it."""
    text = re.escape(glob.removeprefix("/")).replace(r"\*\*/", "(?:.+/)?").replace(r"\*", "[^/]*")
    return re.compile(f"{text}(?:/.*)?" if glob.startswith("/") else text)


def missing(files: list[str], cargo: str, pyproject: str) -> set[str]:
    """Those of `files` that these two settings leave out of an sdist."""
    of_rust = tomllib.loads(cargo)["package"]["include"]
    of_python = [entry["path"] for entry in tomllib.loads(pyproject)["tool"]["maturin"]["include"]]
    patterns = [pattern(glob) for glob in (*ALWAYS, *of_rust, *of_python)]
    return {file for file in files if not any(each.fullmatch(file) for each in patterns)}


def settings() -> tuple[str, str]:
    return (ROOT / "Cargo.toml").read_text(), (ROOT / "pyproject.toml").read_text()


def test_all_that_is_in_git_is_in_the_sdist():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = done.stdout.splitlines()
    assert len(files) > 500
    assert missing(files, *settings()) == ONLY_IN_A_CHECKOUT


def test_a_file_that_no_pattern_names_is_missing():
    files = [
        "tests/a/b.py",
        "src/a/b.rs",
        "docs/x.md",
        "fuzz/soak.py",
        "fuzz/deep/a.py",
        "other/x.py",
        "x.md",
    ]
    assert missing(files, *settings()) == {"fuzz/deep/a.py", "other/x.py", "x.md"}


def test_a_bench_of_cargo_is_in_the_crate():
    """Otherwise maturin takes the bench out of the sdist's Cargo.toml, and `python -m benches.instructions` fails."""
    cargo = tomllib.loads(settings()[0])
    for bench in cargo["bench"]:
        assert f"/benches/{bench['name']}.rs" in cargo["package"]["include"]
