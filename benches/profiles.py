"""Where the time goes of what misses its aim: `python -m benches.profiles` writes docs/profiles.md.

Needs Linux' `perf`, and an extension that kept its symbols:

    export PYO3_BUILD_EXTENSION_MODULE=1
    cargo rustc --release --features python --lib --crate-type cdylib -- -C link-arg=-Wl,-S
    cp target/release/libtlbcore.so python/tlbcore/_core.abi3.so

Each workload is a member of a class of `bench_classes`, or a bench, that is below what it owes (`limits`). It is
repeated for so many seconds in a process of its own, sampled by the CPU's clock; the shares are of the samples in the
extension.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benches import bench_sim, classes, streams
from benches.bench_classes import accessing, running
from benches.classes import PEERS
from tests.geometry import one_tlb

import tlbcore as tc

PAGE = Path(__file__).parent.parent / "docs" / "profiles.md"
COUNT = 1 << 20
SECONDS = 4.0
SHOWN = 6


def pages(region: str, stream: str = "zipf1.0", count: int = COUNT) -> Any:
    return classes.placed(streams.stream(stream)[:count], region)


def access(
    machine: Any, region: str, *, contexts: tuple[int, int] | None = None, stream: str = "zipf1.0"
) -> Any:
    vpn = pages(region, stream)
    pcid = 0 if contexts is None else classes.contexts(len(vpn), *contexts)
    return accessing(tc.Tlb(machine), vpn, pcid)


def events(
    machine: str, mix: str, cpus: int, stream: str = "zipf1.0", region: str = "PIE heap, libraries, stack"
) -> Any:
    return running(tc.Tlb(machine, cpus=cpus), classes.events(pages(region, stream, COUNT // 4), mix, cpus))


def short_calls(size: int, region: str) -> Any:
    vpn, tlb = pages(region, count=1000 * size), tc.Tlb(PEERS)
    parts = [vpn[at : at + size] for at in range(0, len(vpn), size)]
    return lambda: [tlb.access(part, counts_only=True) for part in parts]


def simulated(load: Any, **how: Any) -> Any:
    return partial(tc.simulate, load, machine=bench_sim.MACHINE, timeline=0, **how)


def on_a_thousand_cpus(kind: str) -> Any:
    load, options = bench_sim.shootdowns_of(kind, 60)
    return partial(tc.simulate, load, machine="zen4-epyc", timeline=0, **options)


def nothing() -> Any:
    actors = (tc.scenarios.spin("all"),)
    load = tc.Scenario(name="nothing", duration_s=1e-6, cpus=4, isolated=(2, 3), actors=actors)
    return partial(tc.simulate, load, machine="skylake-sp", policy="ipi", timeline=0)


#: The figure that is missed, and what is run.
WORKLOADS: dict[str, tuple[str, Callable[[], Any]]] = {
    "random regions": (
        "regions, times Numba and C",
        lambda: access(PEERS, "random 48-bit", stream="uniform64k"),
    ),
    "user and kernel": ("regions, times Numba", lambda: access(PEERS, "user and kernel", stream="runs8")),
    "64 contexts": (
        "contexts, times Numba and C",
        lambda: access(PEERS, "PIE heap, libraries, stack", contexts=(64, 1)),
    ),
    "short calls": ("calls, times Numba", lambda: short_calls(64, "one heap")),
    "a preset with two contexts": (
        "machines, accesses per second",
        lambda: access("zen3-client", "random 48-bit", contexts=(2, 1000)),
    ),
    "events on a preset": (
        "events per second",
        lambda: events("granite-rapids", "contexts and ranges", 64),
    ),
    "events of hot48": ("events, times C", lambda: events(PEERS, "full flushes", 64, "hot48", "one heap")),
    "full LRU of 64 ways": ("full LRU", lambda: access(one_tlb(64), "random 48-bit")),
    "a curve of 65,536 ways": (
        "curves",
        lambda: partial(tc.miss_curve, pages("random 48-bit", "uniform64k"), 1, 65536),
    ),
    "interpreted calls": (
        "program runs, not skipped",
        lambda: simulated(bench_sim.loop(44, 0.01), skip=False),
    ),
    "20 looked-up touches a call": (
        "program runs, looked up",
        lambda: simulated(bench_sim.loop(44, 0.005, kernel_pages=20), skip=False, detail="full"),
    ),
    "four senders, 1,024 CPUs": ("shootdowns, per request", lambda: on_a_thousand_cpus("four-senders")),
    "another policy, 1,024 CPUs": ("shootdowns, per request", lambda: on_a_thousand_cpus("another-policy")),
    "a run of nothing": ("a run of nothing", nothing),
    "a plain search": (
        "two threads",
        lambda: partial(
            tc.check,
            "coalesce-v7-fixed",
            nmis=1,
            world="pti",
            assume={"D": "none", "N": "none"},
            reduce=False,
            threads=1,
        ),
    ),
}


def repeat(name: str) -> None:
    """Run a workload for so many seconds."""
    work = WORKLOADS[name][1]()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        work()


def shares(name: str) -> tuple[float, list[tuple[float, str]]]:
    """Return the share of samples in the extension, and its functions with their shares of those."""
    with tempfile.TemporaryDirectory() as scratch:
        data = f"{scratch}/perf.data"
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-o", data]
        command += [sys.executable, "-m", "benches.profiles", "--run", name]
        subprocess.run(command, check=True, capture_output=True)
        asked = ["perf", "report", "-i", data, "--stdio", "--sort", "dso,symbol", "-g", "none"]
        text = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"^\s*([\d.]+)%\s+(\S+)\s+\[[.k]\] (.+?)(?:\s+-\s+-)?\s*$", text, re.MULTILINE)
    ours = [(float(share), plain(symbol)) for share, dso, symbol in rows if "_core" in dso]
    total = sum(share for share, _ in ours)
    by_name: dict[str, float] = {}
    for share, symbol in ours:
        by_name[symbol] = by_name.get(symbol, 0.0) + share
    order = sorted(((100 * share / total, symbol) for symbol, share in by_name.items()), reverse=True)
    return total, order[:SHOWN]


def plain(symbol: str) -> str:
    """Return a symbol without its types' parameters and hash.

    >>> plain("tlbcore::hw::fast::run::<2, true>::h0123456789abcdef")
    'tlbcore::hw::fast::run'
    """
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol)
    while "<" in symbol and (shorter := re.sub(r"(::)?<[^<>]*>", "", symbol)) != symbol:
        symbol = shorter
    return symbol.strip()


def page() -> str:
    lines = [
        "# Where the time goes",
        "",
        "Of what is below its aim on the page of [benchmarks](benchmarks.md): the functions that took the time, by",
        "samples of the CPU's clock in the extension, written by `python -m benches.profiles`. *Of all* is the",
        "extension's part of the process; the rest is the interpreter, NumPy and the making of the input.",
        "",
        "| Work | Misses | Of all | Functions |",
        "|---|---|---:|---|",
    ]
    for name, (misses, _) in WORKLOADS.items():
        total, order = shares(name)
        told = ", ".join(f"`{symbol}` {share:.0f} %" for share, symbol in order if share >= 1)
        lines.append(f"| {name} | {misses} | {total:.0f} % | {told} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> int:
    if sys.argv[1:2] == ["--run"]:
        repeat(sys.argv[2])
    else:
        PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
