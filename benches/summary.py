"""Run the benches and write docs/benchmarks.md: `python -m benches.summary [pytest options]`.

Figures in the documentation come from here only. A run is kept with `--benchmark-save=NAME` and compared with
later ones by `--benchmark-compare --benchmark-compare-fail=median:10%` (`make bench-compare`).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benches.limits import INSTRUCTIONS, Limit, limits_of

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def seconds(value: float) -> str:
    """Three digits and a unit.

    >>> seconds(0.01234)
    '12.3 ms'
    """
    scale, unit = next((pair for pair in SCALES if value >= pair[0]), SCALES[-1])
    return f"{value / scale:.3g} {unit}"


def figure(value: Any) -> str:
    """Group the digits of a large number, keep three of a fraction.

    >>> figure(2345678.9), figure(0.12345), figure("text")
    ('2,345,679', '0.123', 'text')
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def page(report: dict[str, Any]) -> str:
    """Render a pytest-benchmark report as the page."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benches.summary`; all figures are measured, on the machine named here. They are kept",
        "with `--benchmark-save=NAME`, and `make bench-compare` fails where a median is 10 % worse than that.",
        "",
        f"- tlbcore {version('tlbcore')}, Python {platform.python_version()}, {os.cpu_count()} CPUs:"
        f" {report['machine_info']['cpu'].get('brand_raw', 'unknown CPU')}",
        "- median and spread (interquartile range over the median) of whole runs; rates and ratios are of the best run",
        "- limits: what the project promised itself, must / aim; `seconds` is the median",
    ]
    folder = None
    benches = sorted(report["benchmarks"], key=lambda bench: bench["fullname"])
    lines += classes([bench for bench in benches if is_class(bench)])
    for bench in benches:
        if is_class(bench):
            continue
        file = bench["fullname"].split("::")[0]
        if file != folder:
            folder = file
            lines += ["", f"## {Path(file).stem.removeprefix('bench_')}", ""]
            lines += ["| bench | median | spread | rounds | | limit |", "|---|---:|---:|---:|---|---|"]
        stats = bench["stats"]
        spread = stats["iqr"] / stats["median"]
        extra = ", ".join(f"{name}: {figure(value)}" for name, value in bench["extra_info"].items())
        name = bench["name"].removeprefix("bench_").removeprefix("test_")
        figures = {"seconds": stats["median"], **bench["extra_info"]}
        owed = ", ".join(bound(limit, figures[limit.of]) for limit in limits_of(name) if limit.of in figures)
        lines.append(
            f"| `{name}` | {seconds(stats['median'])} | {spread:.0%} | {stats['rounds']} | {extra} | {owed} |"
        )
    return "\n".join(lines + instructions()) + "\n"


def is_class(bench: dict[str, Any]) -> bool:
    """Whether a bench reports the worst and the best of a class: it times its members itself."""
    return any(name.startswith("worst_") for name in bench["extra_info"])


def classes(benches: list[dict[str, Any]]) -> list[str]:
    """Render the worst and the best of each class.

    >>> extra = {"worst_speed": 1.5, "worst_speed_of": "far", "best_speed": 3.0, "best_speed_of": "near"}
    >>> print(classes([{"name": "bench_class_regions", "extra_info": extra}])[-1])
    | regions | speed | 1.5 (far) | 3 (near) |  |
    """
    if not benches:
        return []
    lines = [
        "",
        "## classes",
        "",
        "What people bring, by class (`benches/classes.py`): the worst member beside the best. Peers run in the same",
        "process and in turns: a loop of Numba and one of C that carry the victim along (`benches/peers.py`,",
        "`benches/peers.c`), which check nothing and know one geometry. Times are CPU times of one thread.",
        "",
        "| class | figure | worst | best | limit |",
        "|---|---|---:|---:|---|",
    ]
    for bench in benches:
        name = bench["name"].removeprefix("bench_")
        extra = bench["extra_info"]
        for worst in [key for key in extra if key.startswith("worst_") and not key.endswith("_of")]:
            what = worst.removeprefix("worst_")
            ends = [
                f"{figure(extra[f'{end}_{what}'])} ({extra[f'{end}_{what}_of']})" for end in ("worst", "best")
            ]
            owed = ", ".join(bound(limit, extra[worst]) for limit in limits_of(name) if limit.of == worst)
            shown = name.removeprefix("class_").replace("_", " ")
            lines.append(f"| {shown} | {what.replace('_', ' ')} | {ends[0]} | {ends[1]} | {owed} |")
    return lines


def bound(limit: Limit, reached: float) -> str:
    """Render a limit and how the figure stands.

    >>> bound(Limit("b", "times_numba", 2.8, 3.5), 3.0)
    'times_numba: at least 2.8 / 3.5 (must)'
    """
    both = " / ".join(f"{value:g}" for value in (limit.must, limit.aim) if value is not None)
    return f"{limit.of}: at {'most' if limit.least else 'least'} {both} ({limit.verdict(reached)})"


def instructions() -> list[str]:
    """Render the recorded instruction counts."""
    lines = [
        "",
        "## instructions",
        "",
        "Per access or event, counted by `python -m benches.instructions`.",
        "",
    ]
    lines += ["| loop | instructions | limit |", "|---|---:|---|"]
    for loop, count in json.loads((ROOT / "benches" / "instructions.json").read_text()).items():
        owed = ""
        if loop in INSTRUCTIONS:
            must, aim = INSTRUCTIONS[loop]
            owed = bound(Limit(loop, "instructions", must, aim, least=True), count)
        lines.append(f"| {loop} | {count} | {owed} |")
    return lines


def main() -> int:
    """Run pytest on the benches with timing on, then write the page."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [sys.executable, "-m", "pytest", "-q", "benches", "--benchmark-enable"]
        command += [f"--benchmark-json={report}", *sys.argv[1:]]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if status == 0:
            PAGE.write_text(page(json.loads(report.read_text())))
    return status


if __name__ == "__main__":
    sys.exit(main())
