"""Count the instructions of the hot loops with callgrind: `python -m benches.instructions [--record]`.

Wall clocks lie on shared machines; instruction counts of a pinned toolchain do not. The counts per access (of the
timed machine: per program run, or per target that a broadcast examines) are kept in `benches/instructions.json`;
the command fails if one has grown by more than 5 %. Needs valgrind and cargo.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benches import streams
from benches.bench_tlb import full_semantics

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches" / "instructions.json"
COUNT = 1_000_000
GROWTH = 1.05
#: name -> loop of `hot_loops`, stream
CASES = {
    "plain uniform64k": ("plain", "uniform64k"),
    "plain zipf1.0": ("plain", "zipf1.0"),
    "plain hot48": ("plain", "hot48"),
    "plain runs8": ("plain", "runs8"),
    "real zipf1.0": ("real", "zipf1.0"),
    "events zipf1.0": ("events", "zipf1.0"),
    "events hot48": ("events", "hot48"),
    "events zipf1.0, ranges": ("ranges", "zipf1.0"),
    "curve zipf1.0": ("curve", "zipf1.0"),
    "engine, 20 looked-up touches": ("touches", ""),
    "engine, interpreted": ("interpreted", ""),
    "engine, broadcast to 1,024 CPUs": ("broadcast", ""),
}


def build() -> Path:
    """Build the bench and return its binary."""
    command = ["cargo", "build", "--locked", "--profile", "quick", "--bench", "hot_loops"]
    command.append("--message-format=json")
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return Path(next(row["executable"] for row in rows if row.get("executable")))


def count(binary: Path, loop: str, name: str, scratch: Path) -> float:
    """Return instructions per access, or per unit that a loop of the timed machine says it did."""
    file, out = scratch / "stream", scratch / "out"
    arguments = [loop]
    if name:
        data = streams.stream(name)[:COUNT]
        if loop in ("events", "ranges"):
            data = full_semantics(data, ranges=loop == "ranges")
            arguments = ["events"]
        file.write_bytes(data.tobytes())
        arguments.append(str(file))
    command = ["valgrind", "--tool=callgrind", "--toggle-collect=*measured*", f"--callgrind-out-file={out}"]
    done = subprocess.run([*command, binary, *arguments], check=True, capture_output=True, text=True)
    total = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
    assert total, "callgrind wrote no total"
    return int(total[1]) / (COUNT if name else int(done.stdout))


def main() -> int:
    """Count, compare, and perhaps record."""
    binary = build()
    with tempfile.TemporaryDirectory() as scratch:
        counted = {case: round(count(binary, *what, Path(scratch)), 1) for case, what in CASES.items()}
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps(counted, indent=2) + "\n")
    recorded = json.loads(RECORD.read_text())
    worse = []
    for case, now in counted.items():
        print(
            f"{case:32} {now:7.1f} instructions per access or unit, recorded {recorded.get(case, float('nan'))}"
        )
        if now > recorded.get(case, now) * GROWTH:
            worse.append(case)
    if worse:
        print(f"more than 5 % above the record: {', '.join(worse)}", file=sys.stderr)
    return bool(worse)


if __name__ == "__main__":
    sys.exit(main())
