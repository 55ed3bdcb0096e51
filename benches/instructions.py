"""Count the instructions of the hot loops with callgrind: `python -m benches.instructions [--record]`.

Wall clocks lie on shared machines; instruction counts of a pinned toolchain do not. Counted is the installed
extension, as `pip install .` builds it, and of it what a call from Python costs (`benches/counted.py`). The counts
per access (of the timed machine: per program run, or per target that a broadcast examines) are kept in
`benches/instructions.json`; the command fails if one has grown by more than 5 %. Needs valgrind.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benches.counted import ENGINES, MARK, STREAMS, prepare

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches" / "instructions.json"
GROWTH = 1.05


def totals(scratch: Path) -> tuple[list[int], dict[str, int]]:
    """Return the instructions between one mark and the next, in their order, and the units of each loop."""
    streams = scratch / "streams.npz"
    prepare(streams)
    command = ["valgrind", "--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={scratch}/out"]
    command += [sys.executable, "-m", "benches.counted", str(streams)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    units = {name: int(count) for name, count in (line.split("\t") for line in done.stdout.splitlines())}
    written = []
    for number in range(1, 2 * len(STREAMS) + 4 * len(ENGINES) + 1):
        total = re.search(
            r"^(?:totals|summary): (\d+)", (scratch / f"out.{number}").read_text(), re.MULTILINE
        )
        assert total, "callgrind wrote no total"
        written.append(int(total[1]))
    return written, units


def counts() -> dict[str, float]:
    """Return instructions per access, or per unit that a loop of the timed machine says it did."""
    with tempfile.TemporaryDirectory() as scratch:
        written, units = totals(Path(scratch))
    measured = iter(written[1::2])  # between them stands what was prepared
    counted = {name: next(measured) / units[name] for name in STREAMS}
    for name in ENGINES:
        once, twice = next(measured), next(measured)
        counted[name] = (twice - once) / units[name]
    return {name: round(count, 1) for name, count in counted.items()}


def main() -> int:
    """Count, compare, and perhaps record."""
    counted = counts()
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
