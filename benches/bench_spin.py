"""The checker against Spin: one policy, one scope, sequentially consistent memory, in one run.

Both count distinct states per second of CPU time; Spin without partial-order reduction against the checker
without its reductions, so that both visit everything, each on one thread. Spin is built with
`cc -O2 -DSAFETY -DNOREDUCE` and run as `pan -E -m1000000`: exact states, no bitstate hashing. Needs `spin`
and `cc`; skipped where they are missing.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import time

import pytest

import tlbcore as tc

needs_spin = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("cc") is None, reason="needs spin and cc"
)
POLICY = "coalesce-v7-fixed"
ASSUME = {"D": "recycled", "N": "none", "stores": "sc"}


def spin(isolated: int, folder) -> tuple[int, float, bool]:
    """Return Spin's states, CPU seconds, and whether it found no error."""
    text = tc.policies[POLICY].promela(isolated=isolated, danger="recycled")
    (folder / "m.pml").write_text(text, encoding="utf-8")
    subprocess.run(["spin", "-a", "m.pml"], cwd=folder, check=True, capture_output=True)
    build = ["cc", "-O2", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    out = subprocess.run(
        ["./pan", "-E", "-m1000000"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    states = re.search(r"(\d+) states, stored", out)
    assert states is not None
    return int(states[1]), seconds, "errors: 0" in out


@needs_spin
def test_the_checker_and_spin_agree_and_this_is_their_speed(benchmark, tmp_path) -> None:
    isolated = 2 if benchmark.enabled else 1
    start = time.process_time()
    verdict = tc.check(POLICY, cpus=isolated + 1, assume=ASSUME, reduce=False, threads=1)
    ours = verdict.states / max(time.process_time() - start, 1e-9)
    states, seconds, clean = spin(isolated, tmp_path)
    theirs = states / max(seconds, 1e-9)

    benchmark.extra_info.update(
        policy=POLICY,
        states=verdict.states,
        states_per_s=ours,
        spin_states=states,
        spin_states_per_s=theirs,
        ratio_to_spin=ours / theirs,
    )
    benchmark.pedantic(
        tc.check,
        args=(POLICY,),
        kwargs={"cpus": isolated + 1, "assume": ASSUME, "reduce": False, "threads": 1},
    )
    assert clean
    assert verdict.status == "verified"
