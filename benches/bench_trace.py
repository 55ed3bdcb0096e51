"""Lines a second of ftrace text, plain and Zstandard: import, analysis and replay in one pass."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

import tlbcore as tc

SOURCE = Path(__file__).parents[1] / "tests" / "data" / "p4.w1.head.trace.txt.xz"
COPIES = 8


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "trace.txt"
    path.write_bytes(lzma.decompress(SOURCE.read_bytes()) * COPIES)
    return path


@pytest.mark.parametrize("packing", ["plain", "zst", "xz"])
def bench_read_trace(benchmark, text: Path, packing: str):
    path = text
    if packing == "zst":
        if shutil.which("zstd") is None:
            pytest.skip("needs the zstd program to make its input")
        path = text.with_suffix(".zst")
        subprocess.run(["zstd", "-q", "-f", text, "-o", path], check=True)
    elif packing == "xz":
        path = text.with_suffix(".xz")
        path.write_bytes(lzma.compress(text.read_bytes(), preset=1))

    trace = benchmark(tc.read_trace, path, isolated="2-3")

    assert trace.lines == 45_000 * COPIES
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.min
        benchmark.extra_info["lines_per_s"] = trace.lines / seconds
        benchmark.extra_info["bytes_per_s"] = text.stat().st_size / seconds
