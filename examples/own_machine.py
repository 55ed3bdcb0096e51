"""What if the CPU were another? A machine of one's own, from a preset. `python examples/own_machine.py DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path

import tlbcore as tc

TEXT = """name = "fast-invpcid"
title = "a Broadwell on which INVPCID takes 40 cycles"
inherits = "broadwell-ep-e5-2699v4"

[costs]
invpcid_all = { cycles = 40, mark = "unsourced", source = "a what-if" }
"""


def main(directory: str) -> None:
    """Compare the coalesced flush on both."""
    file = Path(directory) / "fast-invpcid.toml"
    file.write_text(TEXT)
    load = tc.scenarios.syscall_heavy(duration_s=0.1)
    for machine in ("broadwell-ep", str(file)):
        table = tc.compare(load, machine=machine, policies=["ipi", "coalesce-v7"]).table
        calls = table["syscall_mean_ns"][table["cpu_class"] == "isolated"]
        name = Path(machine).stem
        print(f"{name}: {calls[1] - calls[0]:.0f} ns more per system call (predicted)")


if __name__ == "__main__":
    main(sys.argv[1])
