"""Spin's verdict on the exported text; skipped where Spin or a C compiler is missing."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import tlbcore as tc

needs_spin = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("cc") is None, reason="needs spin and cc"
)


def spin_finds_an_error(text: str, folder) -> bool:
    (folder / "m.pml").write_text(text, encoding="utf-8")
    subprocess.run(["spin", "-a", "m.pml"], cwd=folder, check=True, capture_output=True)
    subprocess.run(
        ["cc", "-O0", "-w", "-DSAFETY", "-o", "pan", "pan.c"], cwd=folder, check=True, capture_output=True
    )
    out = subprocess.run(
        ["./pan", "-E", "-m1000000"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    assert "max search depth too small" not in out
    return "errors: 0" not in out


@needs_spin
@pytest.mark.parametrize(
    ("name", "danger", "violated"),
    [
        ("ipi", "recycled", False),
        ("coalesce-v7", "none", True),
        ("coalesce-v7-fixed", "recycled", False),
        ("ct-late", "none", False),
        ("ct-late", "recycled", True),
        ("pending-bit", "recycled", False),
        ("pending-bit-plain", "none", True),
        ("flush-on-exit", "none", True),
        ("quarantine", "recycled", False),
    ],
)
def test_spin_gives_the_verdict_under_sequential_consistency(name, danger, violated, tmp_path) -> None:
    text = tc.policies[name].promela(isolated=1, entries=2, danger=danger)
    assert spin_finds_an_error(text, tmp_path) is violated


def test_a_scope_without_isolated_cpus_is_refused() -> None:
    with pytest.raises(tc.PolicyError, match="1 to 4 isolated CPUs"):
        tc.policies["ipi"].promela(isolated=0)
    with pytest.raises(tc.PolicyError, match="`none` or `recycled`"):
        tc.policies["ipi"].promela(danger="maybe")
