"""Sections of one's own as roles: what nothing in a text uses, a role of `check` may run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore

TEXT = """policy own
  "Frees memory in a program of its own, and flushes or does not."
  based on ipi

free_it
  pte range = none locked
  request range
  {}
  promise range
  pte range = fresh locked

look
  touch kernel
"""
ROLES = "free_it; look"
FLUSH = "flush_kernel_range"


@pytest.mark.parametrize(
    ("flush", "status"), [(FLUSH, "verified"), ("flush_here", "violated"), ("fence", "violated")]
)
def test_every_search_runs_them(flush: str, status: str) -> None:
    policy = tc.Policy(text=TEXT.format(flush), programs=("free_it", "look"))

    for reduce in (True, False):
        assert tc.check(policy, roles=ROLES, world="pti", reduce=reduce).status == status
    assert explore(policy, roles=ROLES).status == status


def test_isolated_cpus_run_them_too_and_rounds() -> None:
    policy = tc.Policy(text=TEXT.format(FLUSH), programs=("free_it", "look"))

    assert tc.check(policy, roles="free_it*2; isolated look", world="pti").status == "verified"
    assert explore(policy, roles="free_it*2; look*2", assume={"fills": "demand"}).status == "verified"


def test_a_run_of_them_is_carried_out_by_the_timed_machine() -> None:
    policy = tc.Policy(text=TEXT.format("flush_here"), programs=("free_it", "look"))
    run = tc.check(policy, roles=ROLES, world="pti").counterexample

    assert run.replay() == run.rule == "stale_access (reused)"


def test_a_section_that_no_role_runs_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(tc.PolicyError, match=r"nothing uses section `free_it`.*; a role may, by its name"):
        tc.Policy(text=TEXT.format(FLUSH))
    file = tmp_path / "own.policy"
    file.write_text(TEXT.format(FLUSH), encoding="utf-8")
    with pytest.raises(tc.PolicyError, match="nothing uses section `free_it`"):
        tc.check(file)
    with pytest.raises(tc.PolicyError, match="nothing uses section `look`"):
        tc.check(file, roles="free_it; isolated 1")
    assert tc.check(file, roles=ROLES, world="pti").status == "verified"
    with pytest.raises(tc.CheckError, match="no program `elsewhere`"):
        tc.check(file, roles="free_it; look; elsewhere", world="pti")


def test_the_command_line_takes_them(tmp_path: Path) -> None:
    (tmp_path / "own.policy").write_text(TEXT.format("flush_here"), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "tlbcore", "check", "own.policy", "--roles", ROLES, "--world", "pti"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert "stale_access (reused)" in run.stdout
