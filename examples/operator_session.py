"""An operator's session: is this command line right, who interrupts my CPUs, what would help?

`python examples/operator_session.py RECORDING`; a recording is made with `tlbcore record`.
"""

from __future__ import annotations

import sys

import tlbcore as tc

CMDLINE = "nohz_full=2-3 isolcpus=domain,managed_irq,2-3 rcu_nocbs=2-3"


def main(recording: str) -> None:
    """Print what the kernel makes of the command line, and what a recording says."""
    host = tc.inspect_host(cmdline=CMDLINE, release="6.12.0", cpus=4)
    for row in range(len(host.boot["option"])):
        print(f"{host.boot['option'][row]}: {host.boot['status'][row]}, CPUs {host.boot['cpus'][row]}")
    trace = tc.read_trace(recording)
    found = tc.explain(trace)
    print(f"{trace.seconds:.0f} s, isolated CPUs {', '.join(map(str, trace.isolated))}")
    first = found.table["cpu"] == trace.isolated[0]
    for cause, count in list(zip(found.table["cause"][first], found.table["n"][first], strict=True))[:3]:
        print(f"{count} x {cause}: {tc.causes[cause].helps}")
    would = tc.replay(trace, ["ipi", "coalesce-v7-fixed"]).table
    for policy in ("ipi", "coalesce-v7-fixed"):
        rows = would["policy"] == policy
        print(f"{policy}: {int(would['interrupts_high'][rows].sum())} interrupts at most")


if __name__ == "__main__":
    main(sys.argv[1])
