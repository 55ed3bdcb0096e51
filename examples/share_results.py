"""Results to others: pandas, Parquet, and a file that holds everything.

`python examples/share_results.py DIRECTORY`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tlbcore as tc


def main(directory: str) -> None:
    """Write a comparison three ways, and read it back as whoever gets it would."""
    import pyarrow.parquet

    folder = Path(directory)
    load = tc.scenarios.trading(duration_s=1, cpus=8, isolated="4-7")
    found = tc.compare(load, machine="broadwell-ep", policies=["ipi", "coalesce-v7-fixed"])
    frame = found.to_pandas().set_index(["policy", "cpu_class"])
    print(frame["syscall_mean_ns"].round(1).to_string())
    found.to_parquet(folder / "comparison.parquet")
    about = json.loads(pyarrow.parquet.read_schema(folder / "comparison.parquet").metadata[b"tlbcore"])
    again = tc.Scenario.from_json(about["scenario"])
    print(f"{about['result']} of {again.name} on {about['machine']}, seeds {about['seeds']}")
    found.save(folder / "comparison")
    loaded = tc.load(folder / "comparison")
    assert isinstance(loaded, tc.Comparison)
    repeated = tc.compare(again, machine="broadwell-ep", policies=[run.policy for run in loaded.results])
    same = repeated.table == loaded.table
    print(f"computed again from what was saved: {'the same' if same else 'another'} table")


if __name__ == "__main__":
    main(sys.argv[1])
