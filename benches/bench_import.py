"""What the first line of a script costs, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("what", ["numpy", "numpy, tlbcore", "numpy, tlbcore._core", "tlbcore.cli"])
def bench_import(benchmark, what: str):
    benchmark(subprocess.run, [sys.executable, "-c", f"import {what}"], check=True)
