"""A policy of one's own: checked, mended, timed, and run over a recording. `python examples/own_policy.py RECORDING`.

Two variants of the entry code of v7's coalesced flush: one that flushes too early, and one with a fence more.
"""

from __future__ import annotations

import sys

import tlbcore as tc
from tlbcore import op

# v7's entry code flushes after it has stored its flag; ours flushes first, which is wrong, and the checker says why.
HASTY = tc.policies["coalesce-v7"].replace(
    name="hasty",
    coalesce=[op.if_("me in flush_mask", [op.invpcid(2)]), op.store("kernel_cr3_loaded", 1)],
)
# The same with the flag first and a fence between: INVPCID does not order the store for other CPUs by itself.
FENCED = tc.policies["coalesce-v7"].replace(
    name="fenced",
    coalesce=[op.store("kernel_cr3_loaded", 1), op.if_("me in flush_mask", [op.fence(), op.invpcid(2)])],
)


def main(recording: str) -> None:
    """Check both, then time the one that holds and run it over the recording."""
    for policy in (HASTY, FENCED):
        verdict = tc.check(policy)
        moves = "" if verdict.counterexample is None else f" in {len(verdict.counterexample.steps)} moves"
        print(f"{policy.name}: {verdict.status}{moves}")
    load = tc.scenarios.syscall_heavy(duration_s=0.1)
    timed = tc.compare(load, machine="broadwell-ep", policies=["ipi", FENCED]).table
    calls = timed["syscall_mean_ns"][timed["cpu_class"] == "isolated"]
    print(f"a system call takes {calls[1] - calls[0]:.0f} ns more (predicted)")
    found = tc.replay(tc.read_trace(recording), ["ipi", FENCED]).table
    ours = found["policy"] == "fenced"
    low, high = (int(found[f"deferred_{end}"][ours].sum()) for end in ("low", "high"))
    print(f"of the recorded calls {low} to {high} would not have been sent (predicted)")


if __name__ == "__main__":
    main(sys.argv[1])
