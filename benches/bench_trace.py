"""Lines a second of ftrace text, `trace-cmd report` and `perf script`: import and analysis in one pass."""

from __future__ import annotations

import lzma
import re
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


REPORT = Path(__file__).parents[1] / "tests" / "data" / "p4b.w5.head.report.txt.xz"
_LINE = re.compile(rb"\s*(.*)-(\d+)\s+\[(\d+)\] (?:\S+)\s+(\d+\.\d+): (\w+): ?(.*)")
_SYSTEMS = {b"csd_": b"csd", b"ipi_": b"ipi", b"user": b"context_tracking", b"call": b"irq_vectors"}


def as_perf_script(text: bytes) -> bytes:
    """Return the same events in perf's spelling; lines that are no events are left out."""
    out = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            comm, pid, cpu, at, event, body = match.groups()
            system = _SYSTEMS.get(event[:4], b"other")
            out.append(b"%16b %7b [%b] %14b: %b:%b: %b\n" % (comm, pid, cpu, at, system, event, body))
    return b"".join(out)


@pytest.mark.parametrize("source", ["trace-cmd report", "perf script"])
def bench_other_formats(benchmark, tmp_path_factory: pytest.TempPathFactory, source: str):
    path = tmp_path_factory.mktemp("bench") / "trace.txt"
    if source == "perf script":
        path.write_bytes(as_perf_script(lzma.decompress(SOURCE.read_bytes())) * COPIES)
    else:
        path.write_bytes(lzma.decompress(REPORT.read_bytes()) * COPIES)

    trace = benchmark(tc.read_trace, path, isolated="2-3")

    assert trace.lines > 30_000 * COPIES
    assert trace.figures["broken_lines"] == 0
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.min
        benchmark.extra_info["lines_per_s"] = trace.lines / seconds
        benchmark.extra_info["bytes_per_s"] = path.stat().st_size / seconds
