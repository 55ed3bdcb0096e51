"""Shells that ask what may come next: the candidates, and the scripts in the shells themselves."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import tlbcore
from tlbcore.cli import _complete


def complete(*words: str) -> list[str]:
    with redirect_stdout(io.StringIO()) as out:
        assert _complete([*words]) == 0
    return [line.split("\t")[0] for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ch"], ["check"]),
        (["--ver"], ["--version"]),
        (["policy", ""], ["list", "show", "export"]),
        (["policy", "show", "coalesce-v7"], ["coalesce-v7", "coalesce-v7-fixed"]),
        (["check", "coalesce-v7-f"], ["coalesce-v7-fixed"]),
        (["check", "--nm"], ["--nmis"]),
        (["check", "--no-red"], ["--no-reduce"]),
        (["check", "--nmis", ""], []),
        (["compare", "--machine", "zen4-"], ["zen4-epyc", "zen4-client"]),
        (["compare", "--policy", "=", "ct-"], ["ct-late"]),
        (["compare", "--pti", "="], ["on", "off", "auto"]),
        (["compare", "--pti="], ["--pti=on", "--pti=off", "--pti=auto"]),
        (["compare", "--policy=ct-"], ["--policy=ct-late"]),
        (["compare", "--policy=ct-late", "--pti=o"], ["--pti=on", "--pti=off"]),
        (["check", "--nmis="], []),
        (["check", "--all="], []),
        (["check", "--nothing="], []),
        (["causes", "vmalloc_"], ["vmalloc_purge"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["explain", ""], []),
        (["record", "--out", "x", "--", "ls", "-"], []),
        (["nonsense", ""], []),
    ],
)
def test_candidates(words: list[str], found: list[str]):
    assert complete(*words) == found


def test_nothing_said_yet_offers_every_command():
    from tlbcore.cli import _COMMANDS

    assert complete("") == [*_COMMANDS, "--help", "--version"]


def test_names_are_those_of_the_package():
    from tlbcore.cli.schema import names

    assert complete("check", "") == list(tlbcore.policies)
    assert complete("machines", "") == list(tlbcore.machines)
    assert complete("schema", "") == names()


def script(shell: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tlbcore", "completion", shell], capture_output=True, text=True, check=True
    )
    return done.stdout


def in_shell(shell: str, text: str, tmp_path: Path) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "tlbcore"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tlbcore "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [shell, "-c", text],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes(tmp_path: Path):
    ask = "COMP_WORDS=(tlbcore policy show coalesce-v7); COMP_CWORD=3; _tlbcore; printf '%s\\n' \"${COMPREPLY[@]}\""
    assert in_shell("bash", script("bash") + ask, tmp_path) == ["coalesce-v7", "coalesce-v7-fixed"]
    whole = ask.replace(
        "policy show coalesce-v7); COMP_CWORD=3", "compare --pti=o); COMP_CWORD=2"
    )  # COMP_WORDBREAKS
    assert in_shell("bash", script("bash") + whole, tmp_path) == ["--pti=on", "--pti=off"]


def test_fish_completes(tmp_path: Path):
    found = in_shell("fish", script("fish") + "complete -C 'tlbcore compare --pti=o' | cut -f 1", tmp_path)
    assert found == ["--pti=off", "--pti=on"]
    found = in_shell(
        "fish", script("fish") + "complete -C 'tlbcore policy show coalesce-v7' | cut -f 1", tmp_path
    )
    assert found == ["coalesce-v7", "coalesce-v7-fixed"]


def test_fish_falls_back_to_files(tmp_path: Path):
    (tmp_path / "mine.trace.txt").touch()
    found = in_shell("fish", script("fish") + "complete -C 'tlbcore explain mi' | cut -f 1", tmp_path)
    assert found == ["mine.trace.txt"]
    found = in_shell("fish", script("fish") + "complete -C 'tlbcore record --out=mi' | cut -f 1", tmp_path)
    assert found == ["--out=mine.trace.txt"]


def test_zsh_completes(tmp_path: Path):
    # Without a terminal `_describe` cannot run: what it is given is what counts.
    ask = (
        'compdef() { : }; _describe() { print -l "${(@P)2}" }; _files() { print files }; compset() { print -- "$@" }\n'
        + script("zsh")
        + "\nwords=(tlbcore policy show coalesce-v7-); CURRENT=4; _tlbcore"
        + "\nwords=(tlbcore explain x); CURRENT=3; _tlbcore"
        + "\nwords=(tlbcore compare --pti=o); CURRENT=3; _tlbcore"
        + "\nwords=(tlbcore explain --out=x); CURRENT=3; _tlbcore"
    )
    found = in_shell("zsh", ask, tmp_path)
    assert found[0].startswith("coalesce-v7-fixed:")
    assert found[-8:] == ["files", "-P", "*=", "on:", "off:", "-P", "*=", "files"]


def test_another_shell_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "tlbcore", "completion", "tcsh"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"unknown shell 'tcsh'" in done.stderr
