"""Spin gives the same verdicts in the scope it shares with the checker: sequential consistency, no NMI."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import tlbcore as tc

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None,
    reason="needs the Debian packages spin and gcc",
)


@pytest.mark.parametrize("policy", ["ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed", "pending-bit"])
@pytest.mark.parametrize("danger", ["none", "recycled"])
def test_spin_agrees(policy: str, danger: str, tmp_path: Path) -> None:
    (tmp_path / "m.pml").write_text(tc.policies[policy].promela(isolated=1, entries=2, danger=danger))
    subprocess.run(["spin", "-a", "m.pml"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["gcc", "-O1", "-DSAFETY", "-w", "pan.c", "-o", "pan"], cwd=tmp_path, check=True)
    said = subprocess.run(
        ["./pan", "-E", "-m200000"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    errors = re.search(r"errors: (\d+)", said.stdout)
    assert errors is not None, said.stdout

    # The Promela text has page-table isolation and no frees of tables: the same world and question are asked.
    ours = tc.check(policy, world="pti", assume={"D": danger, "N": "none", "stores": "sc"})

    assert (ours.status == "violated") == (errors[1] != "0")
